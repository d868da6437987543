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

    /// Takes one record off the front of `rest`, whose first byte is byte `at` of the payload.
    ///
    /// The caller still has to add what the batch knows: `offset` and `timestamp` hold the *deltas*.
    #[inline(always)]
    #[allow(clippy::inline_always)] // The one loop that scans live or die by; it has one caller.
    pub(crate) fn take(rest: &mut &'a [u8], payload_len: usize) -> Result<(Self, i32), DecodeError> {
        let start = *rest;
        let Some(given) = take_varint(rest) else { return Err(bad_varint(payload_len, start)) };
        // A negative length becomes one of 2^31 and more, on 32-bit processors too.
        let Some((mut body, next)) = rest.split_at_checked(given as u32 as usize) else {
            return Err(bad_record_length(payload_len, start, given, rest.len()));
        };
        *rest = next;
        // Places in errors are told in the payload; `body` alone knows only how much is left before `next`.
        let end = payload_len - next.len();

        let Some((_attributes, tail)) = body.split_first() else {
            return Err(DecodeError::BadRecordLength {
                at: payload_len - start.len(),
                given,
                available: RECORD_LEN_MIN,
            });
        };
        body = tail;
        let before = body;
        let Some(timestamp_delta) = take_varlong(&mut body) else { return Err(bad_varint(end, before)) };
        let before = body;
        let Some(offset_delta) = take_varint(&mut body) else { return Err(bad_varint(end, before)) };
        let key = take_nullable(&mut body, end)?;
        let value = take_nullable(&mut body, end)?;
        let headers =
            if body == [0] { Headers::NONE } else { Headers::take(&mut body, end, start, payload_len, given)? };
        let record = Self { offset: Offset::from(offset_delta), timestamp: timestamp_delta, key, value, headers };
        Ok((record, offset_delta))
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

    /// The value of the last header with this name, as Kafka's `lastHeader` finds it: the inner `None` is a header
    /// without a value.
    pub fn last(&self, key: &str) -> Option<Option<&'a [u8]>> {
        self.filter(|header| header.key == key.as_bytes()).last().map(|header| header.value)
    }

    /// Reads the header count and walks all headers once, so that the iterator later needs no errors.
    #[inline(never)]
    fn take(
        body: &mut &'a [u8],
        end: usize,
        record: &[u8],
        payload_len: usize,
        record_given: i32,
    ) -> Result<Self, DecodeError> {
        let before = *body;
        let Some(given) = take_varint(body) else { return Err(bad_varint(end, before)) };
        // A header takes two bytes at least; Kafka's own bound is one, which the walk makes good.
        if given < 0 || given as usize > body.len() {
            return Err(DecodeError::BadHeaderCount { at: end - before.len(), given, available: body.len() });
        }
        let headers = Self { rest: body, count: given as u32 };
        for _ in 0..given {
            take_header(body, end)?;
        }
        if !body.is_empty() {
            let consumed = record_given as usize - body.len();
            let at = payload_len - record.len();
            return Err(DecodeError::BadRecordLength { at, given: record_given, available: consumed });
        }
        Ok(headers)
    }
}

#[allow(clippy::copy_iterator)] // A record is Copy and lends its headers any number of times: each loop has a copy of its own.
impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    #[inline]
    fn next(&mut self) -> Option<Header<'a>> {
        self.count = self.count.checked_sub(1)?;
        let header = take_header(&mut self.rest, 0);
        debug_assert!(header.is_ok(), "headers are walked before they are handed out");
        header.ok()
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

/// Takes one header off the front; `end` is the place behind the record in the payload.
fn take_header<'a>(body: &mut &'a [u8], end: usize) -> Result<Header<'a>, DecodeError> {
    let before = *body;
    let Some(given) = take_varint(body) else { return Err(bad_varint(end, before)) };
    let Some((key, tail)) = body.split_at_checked(given as u32 as usize) else {
        return Err(bad_field_length(end, before, given, body.len()));
    };
    *body = tail;
    Ok(Header { key, value: take_nullable(body, end)? })
}

/// Takes a length, -1 for none, and that many bytes off the front.
#[inline(always)]
#[allow(clippy::inline_always)] // As Record::take.
fn take_nullable<'a>(body: &mut &'a [u8], end: usize) -> Result<Option<&'a [u8]>, DecodeError> {
    let before = *body;
    let Some(given) = take_varint(body) else { return Err(bad_varint(end, before)) };
    if given == -1 {
        return Ok(None);
    }
    // Below -1 it becomes one of 2^31 and more, which no record holds.
    let Some((field, tail)) = body.split_at_checked(given as u32 as usize) else {
        return Err(bad_field_length(end, before, given, body.len()));
    };
    *body = tail;
    Ok(Some(field))
}

// The errors' arithmetic stays out of the loop.

#[cold]
fn bad_varint(end: usize, before: &[u8]) -> DecodeError {
    DecodeError::BadVarint { at: end.wrapping_sub(before.len()) }
}

#[cold]
fn bad_field_length(end: usize, before: &[u8], given: i32, available: usize) -> DecodeError {
    DecodeError::BadFieldLength { at: end.wrapping_sub(before.len()), given, available }
}

#[cold]
fn bad_record_length(payload_len: usize, start: &[u8], given: i32, available: usize) -> DecodeError {
    DecodeError::BadRecordLength { at: payload_len - start.len(), given, available }
}
