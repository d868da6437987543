//! One record inside a batch, as a view of the bytes.
//!
//! | field | type | notes |
//! |---|---|---|
//! | length | varint | of all that follows |
//! | attributes | i8 | 0, unused |
//! | timestamp delta | varlong | from the batch's base timestamp; may be negative |
//! | offset delta | varint | from the batch's base offset |
//! | key length | varint | -1: no key |
//! | key | bytes | |
//! | value length | varint | -1: no value |
//! | value | bytes | |
//! | header count | varint | 0 or more |
//! | headers | | each: key length (varint, 0 or more), key (UTF-8), value length (varint, -1: none), value |
//!
//! Source: Kafka's `DefaultRecord`. The shortest record is seven bytes long, [`RECORD_LEN_MIN`].

use core::fmt;

use crate::error::DecodeError;
use crate::units::{Offset, TimestampMs};
use crate::varint::{take_varint, take_varlong};

/// The bytes of a record with nothing in it: seven fields of one byte.
pub const RECORD_LEN_MIN: usize = 7;

/// A header of a record: a name and, perhaps, a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name; Kafka asks for UTF-8 and does not check it.
    pub key: &'a [u8],
    /// The value, or `None`.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// A header with a value.
    #[inline]
    pub const fn new(key: &'a str, value: &'a [u8]) -> Self {
        Self { key: key.as_bytes(), value: Some(value) }
    }

    /// The name as text, or `None` where it is not UTF-8.
    #[inline]
    pub fn key_str(&self) -> Option<&'a str> {
        core::str::from_utf8(self.key).ok()
    }
}

/// One record, borrowing its bytes from the batch's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the log.
    pub offset: Offset,
    /// Its timestamp in ms since 1970, or [`NO_TIMESTAMP`](crate::NO_TIMESTAMP).
    pub timestamp: TimestampMs,
    /// Its key, or `None`.
    pub key: Option<&'a [u8]>,
    /// Its value, or `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// Its headers in the order written. They were checked when the record was.
    #[inline]
    pub const fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// The record at the front of `rest`, and what follows it. `None` where anything is wrong: what,
    /// [`explain`](Self::explain) says, so that this one stays small.
    ///
    /// The caller still has to add what the batch knows: `offset` and `timestamp` hold the *deltas*.
    #[inline(always)]
    #[allow(clippy::inline_always)] // The one loop that scans live or die by; it has one caller.
    pub(crate) fn take(mut rest: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let given = take_varint(&mut rest)?;
        // A negative length becomes one of 2^31 and more, on 32-bit processors too, and no payload is that long.
        let (body, next) = rest.split_at_checked(given as u32 as usize)?;
        let (_attributes, mut body) = body.split_first()?;
        let timestamp = TimestampMs(take_varlong(&mut body)?);
        let offset = Offset(i64::from(take_varint(&mut body)?));
        let key = take_nullable(&mut body)?;
        let value = take_nullable(&mut body)?;
        let headers = if body == [0] { Headers::NONE } else { Headers::take(body)? };
        Some((Self { offset, timestamp, key, value, headers }, next))
    }

    /// What is wrong with the record at the front of `rest`, the end of a payload of `payload_len` bytes,
    /// that [`take`](Self::take) refused.
    #[cold]
    #[inline(never)]
    pub(crate) fn explain(rest: &[u8], payload_len: usize) -> DecodeError {
        let at = payload_len - rest.len();
        Self::walk(rest, at).err().unwrap_or_else(|| {
            debug_assert!(false, "both walks refuse the same records");
            DecodeError::BadVarint { at }
        })
    }

    /// The same walk as `take`, field by field, for the place of the first field that does not hold.
    fn walk(mut rest: &[u8], at: usize) -> Result<(), DecodeError> {
        let before = rest.len();
        let given = take_varint(&mut rest).ok_or(DecodeError::BadVarint { at })?;
        let body_at = at + before - rest.len();
        let available = rest.len();
        let body = usize::try_from(given).ok().and_then(|len| rest.get(..len));
        let body = body.ok_or(DecodeError::BadRecordLength { at, given, available })?;
        let bad_length = |available| DecodeError::BadRecordLength { at, given, available };
        // Positions are reported in the payload: what is left of the body stands before `end`.
        let mut fields = Fields { rest: body, end: body_at + body.len() };
        let (_attributes, rest) = body.split_first().ok_or(bad_length(1))?;
        fields.rest = rest;
        fields.varlong()?;
        fields.varint()?;
        fields.nullable()?;
        fields.nullable()?;
        let place = fields.place();
        let count = fields.varint()?;
        if count < 0 || count as usize > fields.rest.len() {
            return Err(DecodeError::BadHeaderCount { at: place, given: count, available: fields.rest.len() });
        }
        for _ in 0..count {
            fields.header_key()?;
            fields.nullable()?;
        }
        if fields.rest.is_empty() { Ok(()) } else { Err(bad_length(body.len() - fields.rest.len())) }
    }
}

/// The fields of a record that is being explained.
struct Fields<'a> {
    rest: &'a [u8],
    /// Where the record ends in the payload.
    end: usize,
}

impl Fields<'_> {
    /// Where the next field starts in the payload.
    fn place(&self) -> usize {
        self.end - self.rest.len()
    }

    fn varint(&mut self) -> Result<i32, DecodeError> {
        let at = self.place();
        take_varint(&mut self.rest).ok_or(DecodeError::BadVarint { at })
    }

    fn varlong(&mut self) -> Result<i64, DecodeError> {
        let at = self.place();
        take_varlong(&mut self.rest).ok_or(DecodeError::BadVarint { at })
    }

    fn nullable(&mut self) -> Result<(), DecodeError> {
        let at = self.place();
        let given = self.varint()?;
        if given == -1 { Ok(()) } else { self.skip(at, given) }
    }

    fn header_key(&mut self) -> Result<(), DecodeError> {
        let at = self.place();
        let given = self.varint()?;
        self.skip(at, given)
    }

    fn skip(&mut self, at: usize, given: i32) -> Result<(), DecodeError> {
        let available = self.rest.len();
        let rest = usize::try_from(given).ok().and_then(|len| self.rest.get(len..));
        self.rest = rest.ok_or(DecodeError::BadFieldLength { at, given, available })?;
        Ok(())
    }
}

/// The headers of one record, in the order written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Exactly the encoded headers that are left.
    rest: &'a [u8],
    /// How many those are.
    count: u32,
}

impl<'a> Headers<'a> {
    const NONE: Self = Self { rest: &[], count: 0 };

    /// Whether there is none (left).
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value of the last header with this name, as Kafka's `lastHeader` finds it: the inner `None` is a
    /// header without a value.
    pub fn last_value(&self, key: &str) -> Option<Option<&'a [u8]>> {
        self.filter(|header| header.key == key.as_bytes()).last().map(|header| header.value)
    }

    /// Reads the header count and walks all headers once, to the end of `body`, so that the iterator later
    /// needs no errors.
    #[inline(never)]
    fn take(mut body: &'a [u8]) -> Option<Self> {
        let given = take_varint(&mut body)?;
        // Each header takes two bytes at least, so the walk below ends within the body at any count that is claimed.
        let count = u32::try_from(given).ok().filter(|&count| count as usize <= body.len())?;
        let headers = Self { rest: body, count };
        for _ in 0..count {
            take_header(&mut body)?;
        }
        body.is_empty().then_some(headers)
    }
}

#[allow(clippy::copy_iterator)] // A record lends its headers any number of times: each loop has a copy of its own.
impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    #[inline]
    fn next(&mut self) -> Option<Header<'a>> {
        self.count = self.count.checked_sub(1)?;
        let header = take_header(&mut self.rest);
        debug_assert!(header.is_some(), "headers are walked before they are handed out");
        header
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count as usize, Some(self.count as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(*self).finish()
    }
}

/// Takes one header off the front.
#[inline]
fn take_header<'a>(body: &mut &'a [u8]) -> Option<Header<'a>> {
    let len = take_varint(body)?;
    let (key, rest) = body.split_at_checked(len as u32 as usize)?;
    *body = rest;
    Some(Header { key, value: take_nullable(body)? })
}

/// Takes a length, -1 for none, and that many bytes off the front. The outer `None` is an error.
#[inline(always)]
#[allow(clippy::inline_always, clippy::option_option)] // As Record::take; an enum would say the same at greater length.
fn take_nullable<'a>(body: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = take_varint(body)?;
    if len == -1 {
        return Some(None);
    }
    // Below -1 it becomes one of 2^31 and more, which no record holds.
    let (field, rest) = body.split_at_checked(len as u32 as usize)?;
    *body = rest;
    Some(Some(field))
}
