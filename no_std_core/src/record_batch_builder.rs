//! Writes record batches into the caller's memory: one record in one go, or record by record.
//!
//! The bytes are those of [`record_batch`](crate::record_batch), with create time, offset deltas 0, 1, 2,
//! ..., the first record's timestamp as the base and the true maximum. Base offset and leader epoch are written as 0:
//! the log that appends the batch stamps them.

use crate::compression::CompressionType;
use crate::crc32c::crc32c;
use crate::error::EncodeError;
use crate::record::Header;
use crate::record_batch::{BATCH_LENGTH_MAX, CRC_START, HEADER_LEN, LOG_OVERHEAD, MAGIC};
use crate::units::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampMs};
use crate::varint::{encode_varint, encode_varlong, varint_len, varlong_len};

/// The most bytes that a batch can have.
pub const BATCH_SIZE_MAX: usize = BATCH_LENGTH_MAX as usize + LOG_OVERHEAD;

/// Writes a whole batch of one record, CRC included, to the front of `buffer` and returns its size in bytes.
///
/// `timestamp` is in ms since 1970, or [`NO_TIMESTAMP`].
///
/// # Errors
/// `BufferTooSmall` with the exact size of the batch, `TimestampOutOfRange`, `RecordTooLarge`. On an error
/// the buffer is as it was.
#[inline]
pub fn encode_one(
    buffer: &mut [u8],
    timestamp: TimestampMs,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) -> Result<usize, EncodeError> {
    check_timestamp(timestamp)?;
    let record = PlacedRecord { start: HEADER_LEN, timestamp_delta: 0, offset_delta: 0, key, value, headers };
    let needed = record.write(buffer)?;
    let Some(batch) = buffer.get_mut(..needed) else { return Err(broken()) };
    let fields = HeaderFields {
        record_count: 1,
        last_offset_delta: 0,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        codec: CompressionType::None,
        producer: Producer::NONE,
    };
    fields.write(batch);
    Ok(needed)
}

/// A batch in the making, in the caller's buffer: an array, a slice, or a `Vec` that the caller lengthens.
///
/// The first 61 bytes of the buffer are kept free for the header, the records follow as they come.
#[derive(Debug, Clone)]
pub struct RecordBatchBuilder<B> {
    buffer: B,
    /// Behind the last record; `HEADER_LEN` where there is none.
    end: usize,
    record_count: i32,
    /// Offsets between the records that have none.
    holes: i32,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    producer: Producer,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> RecordBatchBuilder<B> {
    /// An empty batch in `buffer`, of any length; what the buffer holds does not matter.
    #[inline]
    pub const fn new(buffer: B) -> Self {
        Self {
            buffer,
            end: HEADER_LEN,
            record_count: 0,
            holes: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer: Producer::NONE,
        }
    }

    /// Adds a record and returns its offset delta: 0 for the first, then 1, and so on. `timestamp` is in ms
    /// since 1970, or [`NO_TIMESTAMP`].
    ///
    /// # Errors
    /// `BufferTooSmall` with the length that the whole buffer needs, `TimestampOutOfRange`, `RecordTooLarge`,
    /// `TooManyRecords`. On an error nothing has changed, and the call may be made again with a longer
    /// buffer.
    #[inline(always)]
    #[allow(clippy::inline_always)] // The path of every record: as a call of its own a quarter dearer.
    pub fn append(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<i32, EncodeError> {
        debug_assert!(self.holes == 0, "a batch is filled by `append` or by `append_at`");
        let offset_delta = self.record_count;
        check_timestamp(timestamp)?;
        let base_timestamp = if offset_delta == 0 { timestamp } else { self.base_timestamp };
        // The greatest one behind one that is missing wraps, and so does the sum that reads it.
        let timestamp_delta = timestamp.0.wrapping_sub(base_timestamp.0);
        let record = PlacedRecord { start: self.end, timestamp_delta, offset_delta, key, value, headers };
        self.end = record.write(self.buffer.as_mut())?;
        self.record_count += 1;
        self.base_timestamp = base_timestamp;
        // No timestamp is below all others, and so is the first value of this.
        self.max_timestamp = self.max_timestamp.max(timestamp);
        Ok(offset_delta)
    }

    /// Adds a record of another batch, which keeps its place and its time: `offset_delta` is counted from the first
    /// record, whose own is 0, and offsets in between that have no record are a hole, as compaction leaves them. The
    /// time is any, also one before 1970. A batch is filled by this or by [`append`](Self::append).
    ///
    /// # Errors
    /// As of `append`, but for the timestamp.
    ///
    /// # Panics
    /// Where `offset_delta` is not above that of the record before.
    pub fn append_at(
        &mut self,
        offset_delta: i32,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), EncodeError> {
        let is_first = self.record_count == 0;
        let next = self.record_count + self.holes;
        assert!(offset_delta >= next && (!is_first || offset_delta == 0), "offset delta {offset_delta} behind {next}");
        let base_timestamp = if is_first { timestamp } else { self.base_timestamp };
        let timestamp_delta = timestamp.0.wrapping_sub(base_timestamp.0);
        let record = PlacedRecord { start: self.end, timestamp_delta, offset_delta, key, value, headers };
        self.end = record.write(self.buffer.as_mut())?;
        self.record_count += 1;
        self.holes += offset_delta - next;
        self.base_timestamp = base_timestamp;
        self.max_timestamp = if is_first { timestamp } else { self.max_timestamp.max(timestamp) };
        Ok(())
    }

    /// Records so far.
    #[inline]
    pub const fn record_count(&self) -> i32 {
        self.record_count
    }

    /// The size in bytes that the batch would have if it were finished now, uncompressed; an empty one still
    /// has its header.
    #[inline]
    pub const fn size(&self) -> usize {
        self.end
    }

    /// Whether there is no record yet.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// The first record's timestamp; [`NO_TIMESTAMP`] without records.
    #[inline]
    pub const fn base_timestamp(&self) -> TimestampMs {
        self.base_timestamp
    }

    /// The greatest timestamp so far; [`NO_TIMESTAMP`] without records.
    #[inline]
    pub const fn max_timestamp(&self) -> TimestampMs {
        self.max_timestamp
    }

    /// Marks the batch as an idempotent producer's; holds until [`clear`](Self::clear).
    #[inline]
    pub const fn set_producer(&mut self, id: i64, epoch: i16, base_sequence: i32) {
        self.producer = Producer { id, epoch, base_sequence };
    }

    /// Writes the header, CRC included, and lends the whole batch, uncompressed. Records may still be
    /// appended afterwards, and the batch finished again.
    ///
    /// A batch without records does not exist in the format: an empty builder lends an empty slice.
    ///
    /// # Panics
    /// Where the caller has shortened the buffer below [`size`](Self::size).
    #[inline]
    pub fn finish(&mut self) -> &mut [u8] {
        if self.record_count == 0 {
            return &mut [];
        }
        let fields = self.fields(CompressionType::None);
        let batch = &mut self.buffer.as_mut()[..self.end];
        fields.write(batch);
        batch
    }

    /// The records so far, as [`finish`](Self::finish) would leave them: what a codec compresses.
    ///
    /// # Panics
    /// Where the caller has shortened the buffer below [`size`](Self::size).
    #[inline]
    pub fn payload(&self) -> &[u8] {
        if self.record_count == 0 { &[] } else { &self.buffer.as_ref()[HEADER_LEN..self.end] }
    }

    /// Writes the header in front of the compressed payload that the caller has put at `out[61..61 +
    /// payload_len]`, CRC included, and lends the whole batch.
    ///
    /// # Errors
    /// `NoRecords`, `BufferTooSmall`, `RecordTooLarge`. On an error `out` is as it was.
    pub fn finish_compressed<'o>(
        &self,
        codec: CompressionType,
        out: &'o mut [u8],
        payload_len: usize,
    ) -> Result<&'o mut [u8], EncodeError> {
        if self.record_count == 0 {
            return Err(EncodeError::NoRecords);
        }
        let needed = bounded_end(HEADER_LEN, payload_len)?;
        let available = out.len();
        let Some(batch) = out.get_mut(..needed) else { return Err(EncodeError::BufferTooSmall { needed, available }) };
        self.fields(codec).write(batch);
        Ok(batch)
    }

    /// Forgets the records and the producer; the buffer stays.
    #[inline]
    pub const fn clear(&mut self) {
        self.end = HEADER_LEN;
        self.record_count = 0;
        self.holes = 0;
        self.base_timestamp = NO_TIMESTAMP;
        self.max_timestamp = NO_TIMESTAMP;
        self.producer = Producer::NONE;
    }

    /// The buffer, to be lengthened: its first [`size`](Self::size) bytes have to stay as they are.
    #[inline]
    pub const fn buffer_mut(&mut self) -> &mut B {
        &mut self.buffer
    }

    /// Gives the buffer back.
    #[inline]
    pub fn into_buffer(self) -> B {
        self.buffer
    }

    #[inline]
    const fn fields(&self, codec: CompressionType) -> HeaderFields {
        HeaderFields {
            record_count: self.record_count,
            last_offset_delta: self.record_count + self.holes - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            codec,
            producer: self.producer,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Producer {
    id: i64,
    epoch: i16,
    base_sequence: i32,
}

impl Producer {
    const NONE: Self = Self { id: NO_PRODUCER_ID, epoch: NO_PRODUCER_EPOCH, base_sequence: NO_SEQUENCE };
}

/// What a header says besides sizes and sums.
struct HeaderFields {
    record_count: i32,
    last_offset_delta: i32,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
    codec: CompressionType,
    producer: Producer,
}

impl HeaderFields {
    /// Writes the header of `batch`, whose payload is in place. `batch` is longer than a header and at most
    /// `BATCH_SIZE_MAX`.
    ///
    /// What the CRC covers goes out as five words of eight bytes from [`CRC_START`] on, because the CRC reads
    /// it right back, eight bytes at a time from there: a processor hands a word from its store buffer to
    /// such a read at once, but makes a read wait that spans smaller stores.
    #[inline]
    fn write(&self, batch: &mut [u8]) {
        let batch_length = (batch.len() - LOG_OVERHEAD) as u32;
        let attributes = u64::from(self.codec.id());
        let last_offset_delta = self.last_offset_delta as u32;
        let (base_timestamp, max_timestamp) = (self.base_timestamp.0 as u64, self.max_timestamp.0 as u64);
        let (producer_id, producer_epoch) = (self.producer.id as u64, self.producer.epoch as u16);
        let (base_sequence, record_count) = (self.producer.base_sequence as u32, self.record_count as u32);
        let Some(header) = batch.first_chunk_mut::<HEADER_LEN>() else { return };
        let mut put = |at: usize, word: u64| header[at..at + 8].copy_from_slice(&word.to_be_bytes());
        put(0, 0);
        put(8, u64::from(batch_length) << 32);
        put(21, attributes << 48 | u64::from(last_offset_delta) << 16 | base_timestamp >> 48);
        put(29, base_timestamp << 16 | max_timestamp >> 48);
        put(37, max_timestamp << 16 | producer_id >> 48);
        put(45, producer_id << 16 | u64::from(producer_epoch));
        put(53, u64::from(base_sequence) << 32 | u64::from(record_count));
        header[16] = MAGIC as u8;
        let crc = crc32c(&batch[CRC_START..]);
        batch[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_be_bytes());
    }
}

#[inline]
const fn check_timestamp(timestamp: TimestampMs) -> Result<(), EncodeError> {
    if timestamp.0 < NO_TIMESTAMP.0 { Err(EncodeError::TimestampOutOfRange { given: timestamp }) } else { Ok(()) }
}

/// Numbers below this take one byte or two.
const SMALL: usize = 1 << 13;
/// What a small record has at most around its key and its value: attributes, the key's length and the count of headers
/// take a byte each; its own length, both deltas and the value's length two.
const SMALL_AROUND_MAX: usize = 11;

/// A record, and where in its batch it stands.
#[derive(Debug, Clone, Copy)]
struct PlacedRecord<'a> {
    /// Where it starts, in bytes.
    start: usize,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [Header<'a>],
}

impl PlacedRecord<'_> {
    /// Writes the record to the buffer of its batch, and returns where it ends.
    ///
    /// # Errors
    /// As of [`encode_one`], but for the timestamp; the buffer is as it was.
    ///
    /// Which way is taken is known before either begins: a small record leaves nothing in registers for another way.
    #[inline(always)]
    #[allow(clippy::inline_always)] // The path of every record: as a call of its own a quarter dearer.
    fn write(self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        if self.is_small(buffer.len()) { self.write_small(buffer).ok_or_else(broken) } else { self.write_any(buffer) }
    }

    /// Whether it is as nearly all are: without headers, with a key below 64 bytes and everything else below 8 KiB, and
    /// with room to spare in a buffer of that length.
    #[inline]
    fn is_small(&self, available: usize) -> bool {
        let (key_len, value_len) = (self.key.map_or(0, <[u8]>::len), self.value.map_or(0, <[u8]>::len));
        self.headers.is_empty()
            && (self.timestamp_delta as u64 | self.offset_delta as u64) < SMALL as u64
            && key_len < 64
            && value_len < SMALL - 64 - SMALL_AROUND_MAX
            && self.start < BATCH_SIZE_MAX - SMALL
            && self.start + SMALL_AROUND_MAX + key_len + value_len <= available
    }

    /// For one that [`is_small`](Self::is_small). What stands before the key then is eight bytes at most, and goes out
    /// as one word; what is too much of it is written over (or lies in the spare room, behind the smallest record of
    /// all, of seven bytes). `None` cannot happen; it keeps a mistake of ours from becoming a panic.
    #[inline(always)]
    #[allow(clippy::inline_always)] // The path of every record: as a call of its own a quarter dearer.
    fn write_small(self, buffer: &mut [u8]) -> Option<usize> {
        let (key_len, value_len) = (self.key.map_or(0, <[u8]>::len), self.value.map_or(0, <[u8]>::len));
        let (timestamp_delta, timestamp_len) = two_bytes(self.timestamp_delta as u64);
        let (offset_delta, offset_len) = two_bytes(self.offset_delta as u64);
        let (value_word, value_word_len) = if self.value.is_some() { two_bytes(value_len as u64) } else { (1, 1) };
        let body_len = 3 + timestamp_len + offset_len + key_len + value_word_len + value_len;
        let (body_len_word, body_start) = two_bytes(body_len as u64);
        let mut head_len = body_start + 1;
        let mut head = body_len_word | timestamp_delta << (8 * head_len);
        head_len += timestamp_len;
        head |= offset_delta << (8 * head_len);
        head_len += offset_len;
        head |= if self.key.is_some() { (key_len as u64) << 1 } else { 1 } << (8 * head_len);
        head_len += 1;
        let mut out = Out(buffer.get_mut(self.start..)?);
        *out.0.first_chunk_mut()? = head.to_le_bytes();
        out.advance(head_len)?;
        if let Some(key) = self.key {
            out.bytes(key)?;
        }
        // One byte of it may be the value's first, or the count of headers.
        *out.0.first_chunk_mut()? = (value_word as u16).to_le_bytes();
        out.advance(value_word_len)?;
        if let Some(value) = self.value {
            out.bytes(value)?;
        }
        *out.0.first_mut()? = 0;
        Some(self.start + body_start + body_len)
    }

    #[inline(never)]
    fn write_any(self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        if self.offset_delta == i32::MAX {
            return Err(EncodeError::TooManyRecords { max: i32::MAX });
        }
        let body_len = self.body_len();
        let end = bounded_end(self.start, body_len.saturating_add(len_len(body_len)))?;
        let available = buffer.len();
        let Some(dest) = buffer.get_mut(self.start..end) else {
            return Err(EncodeError::BufferTooSmall { needed: end, available });
        };
        self.fill(dest, body_len).ok_or_else(broken)?;
        Ok(end)
    }

    /// The value of its length field, worked out before the first byte is written: what does not fit changes nothing.
    #[inline]
    fn body_len(&self) -> usize {
        // Sums saturate: headers may name the same bytes many times over, and so pass even what memory can hold.
        (1 + varlong_len(self.timestamp_delta) + varint_len(self.offset_delta))
            .saturating_add(nullable_len(self.key))
            .saturating_add(nullable_len(self.value))
            .saturating_add(if self.headers.is_empty() { 1 } else { headers_len(self.headers) })
    }

    /// Fills `dest`, exactly as long as the record. `None` cannot happen, as in [`write_small`](Self::write_small).
    #[inline]
    fn fill(self, dest: &mut [u8], body_len: usize) -> Option<()> {
        let mut out = Out(dest);
        out.varint(body_len as i32)?;
        out.byte(0)?;
        out.varlong(self.timestamp_delta)?;
        out.varint(self.offset_delta)?;
        out.nullable(self.key)?;
        out.nullable(self.value)?;
        if self.headers.is_empty() {
            out.byte(0)?;
        } else {
            out.headers(self.headers)?;
        }
        debug_assert!(out.0.is_empty(), "the record is as long as its lengths say");
        Some(())
    }
}

/// The varint of a number below [`SMALL`], first byte lowest, and how many bytes that is.
#[inline]
const fn two_bytes(number: u64) -> (u64, usize) {
    let zigzag = number << 1;
    if zigzag < 0x80 { (zigzag, 1) } else { (zigzag & 0x7f | 0x80 | zigzag >> 7 << 8, 2) }
}

/// The rest of a buffer that is being filled.
struct Out<'b>(&'b mut [u8]);

impl Out<'_> {
    #[inline]
    fn advance(&mut self, len: usize) -> Option<()> {
        self.0 = core::mem::take(&mut self.0).get_mut(len..)?;
        Some(())
    }

    #[inline]
    fn byte(&mut self, byte: u8) -> Option<()> {
        *self.0.first_mut()? = byte;
        self.advance(1)
    }

    #[inline]
    fn varint(&mut self, value: i32) -> Option<()> {
        // -64 to 63, nearly all there are, is one byte.
        if (-64..64).contains(&value) {
            return self.byte(((value << 1) ^ (value >> 31)) as u8);
        }
        // To 8191, most lengths of values, it is two.
        if (0..1 << 13).contains(&value) {
            *self.0.first_chunk_mut()? = [(value << 1) as u8 | 0x80, (value >> 6) as u8];
            return self.advance(2);
        }
        let len = encode_varint(value, self.0)?;
        self.advance(len)
    }

    #[inline]
    fn varlong(&mut self, value: i64) -> Option<()> {
        if (-64..64).contains(&value) {
            return self.byte(((value << 1) ^ (value >> 63)) as u8);
        }
        let len = encode_varlong(value, self.0)?;
        self.advance(len)
    }

    #[inline]
    fn nullable(&mut self, field: Option<&[u8]>) -> Option<()> {
        let Some(field) = field else { return self.varint(-1) };
        self.varint(field.len() as i32)?;
        self.bytes(field)
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let (dest, rest) = core::mem::take(&mut self.0).split_at_mut_checked(bytes.len())?;
        dest.copy_from_slice(bytes);
        self.0 = rest;
        Some(())
    }

    #[inline(never)]
    fn headers(&mut self, headers: &[Header<'_>]) -> Option<()> {
        self.varint(headers.len() as i32)?;
        for header in headers {
            self.nullable(Some(header.key))?;
            self.nullable(header.value)?;
        }
        Some(())
    }
}

/// Out of the way of records without headers, as nearly all are: those pay for none.
#[inline(never)]
fn headers_len(headers: &[Header<'_>]) -> usize {
    let of_one = |header: &Header<'_>| nullable_len(Some(header.key)).saturating_add(nullable_len(header.value));
    headers.iter().map(of_one).fold(len_len(headers.len()), usize::saturating_add)
}

#[inline]
fn nullable_len(field: Option<&[u8]>) -> usize {
    match field {
        None => 1,
        Some(field) => field.len().saturating_add(len_len(field.len())),
    }
}

/// The varint length of a length; what is above `i32::MAX` is refused later by the sum that it is part of.
#[inline]
const fn len_len(len: usize) -> usize {
    varint_len(if len > i32::MAX as usize { i32::MAX } else { len as i32 })
}

/// `start + len`, or the error where the batch would be larger than a batch can be.
#[inline]
fn bounded_end(start: usize, len: usize) -> Result<usize, EncodeError> {
    match start.checked_add(len) {
        Some(end) if end <= BATCH_SIZE_MAX => Ok(end),
        _ => Err(EncodeError::RecordTooLarge {
            given: (start as u64).saturating_add(len as u64),
            max: BATCH_SIZE_MAX as u64,
        }),
    }
}

/// A mistake of ours in the arithmetic above. It fails the tests, and callers get it as a buffer that no length
/// satisfies.
#[cold]
fn broken() -> EncodeError {
    debug_assert!(false, "a record outgrew its lengths");
    EncodeError::BufferTooSmall { needed: usize::MAX, available: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::{RecordBatch, TimestampType};
    use crate::units::NO_LEADER_EPOCH;
    use crate::units::{LeaderEpoch, Offset};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn records_of_another_batch_keep_their_places_and_times() {
        let mut builder = RecordBatchBuilder::new(vec![0; 512]);
        let records = [(0, -5000_i64, "a"), (3, -9000, "b"), (4, 7, "c"), (9, -1, "d")];
        for (offset_delta, timestamp, value) in records {
            builder.append_at(offset_delta, TimestampMs(timestamp), None, Some(value.as_bytes()), &[]).unwrap();
        }
        let bytes = builder.finish().to_vec();
        let batch = RecordBatch::parse(&bytes).unwrap();
        batch.verify_crc().unwrap();
        assert_eq!((batch.record_count(), batch.last_offset(), batch.max_timestamp().0), (4, Offset(9), 7));
        let read = batch.records().unwrap().map(|record| record.unwrap());
        let read: Vec<_> = read.map(|record| (record.offset.0, record.timestamp.0, record.value.unwrap())).collect();
        assert_eq!(read, records.map(|(delta, time, value)| (i64::from(delta), time, value.as_bytes())));
    }

    /// Worked out by hand from the two tables: timestamp 1000, key "k", value "v1", one header "h" without a
    /// value. Only the CRC is computed.
    const BY_HAND: [u8; 74] = [
        0, 0, 0, 0, 0, 0, 0, 0, // base offset
        0, 0, 0, 62, // length: 74 - 12
        0, 0, 0, 0, // leader epoch
        2, // magic
        0, 0, 0, 0, // CRC, see below
        0, 0, // attributes
        0, 0, 0, 0, // last offset delta
        0, 0, 0, 0, 0, 0, 0x03, 0xe8, // base timestamp
        0, 0, 0, 0, 0, 0, 0x03, 0xe8, // max timestamp
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // producer id
        0xff, 0xff, // producer epoch
        0xff, 0xff, 0xff, 0xff, // base sequence
        0, 0, 0, 1,    // record count
        0x18, // length 12
        0, 0, 0, // attributes, timestamp delta, offset delta
        0x02, b'k', // key
        0x04, b'v', b'1', // value
        0x02, 0x02, b'h', 0x01, // one header, key of one byte, no value
    ];

    #[test]
    fn one_record_is_the_bytes_worked_out_by_hand() {
        let mut buffer = [0xaa; 80];
        let headers = [Header { key: b"h", value: None }];
        let size = encode_one(&mut buffer, TimestampMs(1000), Some(b"k"), Some(b"v1"), &headers).unwrap();
        let mut expected = BY_HAND;
        expected[17..21].copy_from_slice(&crc32c(&BY_HAND[21..]).to_be_bytes());
        assert_eq!(buffer[..size], expected);
        assert_eq!(buffer[size..], [0xaa; 6]);
        let mut builder = RecordBatchBuilder::new([0x55; 74]);
        assert_eq!(builder.append(TimestampMs(1000), Some(b"k"), Some(b"v1"), &headers), Ok(0));
        assert_eq!(builder.finish(), expected);
    }

    proptest! {
        #[test]
        fn a_small_record_has_the_bytes_that_any_record_has(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..70)),
            value in proptest::option::of(prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..90),
                proptest::collection::vec(any::<u8>(), 7_900..8_300),
            ]),
            timestamp_delta in prop_oneof![-3..140_i64, 8_100..8_300_i64],
            offset_delta in prop_oneof![0..140_i32, 8_100..8_300_i32],
            start in 0..3_usize,
        ) {
            let (key, value) = (key.as_deref(), value.as_deref());
            let record = PlacedRecord { start, timestamp_delta, offset_delta, key, value, headers: &[] };
            let (mut small, mut any) = (vec![0xaa; 9_000], vec![0xaa; 9_000]);
            let end = record.write_any(&mut any).unwrap();
            let (key_len, value_len) = (key.map_or(0, <[u8]>::len), value.map_or(0, <[u8]>::len));
            let is_small = (0..8_192).contains(&timestamp_delta) && offset_delta < 8_192;
            let is_small = is_small && key_len < 64 && value_len < 8_117;
            prop_assert_eq!(record.is_small(9_000), is_small);
            if is_small {
                prop_assert_eq!(record.write_small(&mut small), Some(end));
                prop_assert_eq!(&small[..end], &any[..end]);
                prop_assert!(small[end.max(start + 8)..].iter().all(|byte| *byte == 0xaa));
            }
            // Room for exactly the record is enough, and one byte less is not: with nothing written.
            let mut exact = vec![0xaa; end];
            prop_assert_eq!(record.write(&mut exact), Ok(end));
            prop_assert_eq!(&exact, &any[..end]);
            let mut tight = vec![0xaa; end - 1];
            let too_small = EncodeError::BufferTooSmall { needed: end, available: end - 1 };
            prop_assert_eq!(record.write(&mut tight), Err(too_small));
            prop_assert!(tight.iter().all(|byte| *byte == 0xaa));
        }
    }

    #[test]
    fn the_needed_length_is_exact_and_too_little_changes_nothing() {
        let mut buffer = [0x77; 100];
        let needed = match encode_one(&mut [], TimestampMs(5), None, Some(&[1; 20]), &[]) {
            Err(EncodeError::BufferTooSmall { needed, available: 0 }) => needed,
            other => panic!("{other:?}"),
        };
        let short = encode_one(&mut buffer[..needed - 1], TimestampMs(5), None, Some(&[1; 20]), &[]);
        assert_eq!(short, Err(EncodeError::BufferTooSmall { needed, available: needed - 1 }));
        assert_eq!(buffer, [0x77; 100]);
        assert_eq!(encode_one(&mut buffer[..needed], TimestampMs(5), None, Some(&[1; 20]), &[]), Ok(needed));
    }

    #[test]
    fn a_builder_grows_with_its_buffer() {
        let mut builder = RecordBatchBuilder::new(Vec::new());
        assert!(builder.is_empty());
        assert!(builder.finish().is_empty() && builder.payload().is_empty());
        for n in 0..200_i32 {
            let value = vec![7; n as usize];
            let delta = loop {
                let before = (builder.size(), builder.record_count(), builder.max_timestamp());
                match builder.append(TimestampMs(10_000 - i64::from(n)), None, Some(&value), &[]) {
                    Ok(delta) => break delta,
                    Err(EncodeError::BufferTooSmall { needed, available }) => {
                        assert_eq!((builder.size(), builder.record_count(), builder.max_timestamp()), before);
                        assert!(available < needed);
                        builder.buffer_mut().resize(needed, 0);
                    }
                    Err(other) => panic!("{other}"),
                }
            };
            assert_eq!(delta, n);
        }
        assert_eq!(
            (builder.base_timestamp(), builder.max_timestamp(), builder.record_count()),
            (TimestampMs(10_000), TimestampMs(10_000), 200)
        );
        let size = builder.size();
        let batch = RecordBatch::parse(builder.finish()).unwrap();
        assert_eq!((batch.size(), batch.last_offset_delta(), batch.verify_crc()), (size, 199, Ok(())));
        let timestamps: Vec<_> = batch.records().unwrap().map(|record| record.unwrap().timestamp).collect();
        assert_eq!(timestamps, (0..200).map(|n| 10_000 - n).collect::<Vec<_>>());
        builder.clear();
        assert!(builder.is_empty() && builder.finish().is_empty());
        assert_eq!(builder.base_timestamp(), NO_TIMESTAMP);
    }

    #[test]
    fn records_without_timestamps_stay_without() {
        let mut builder = RecordBatchBuilder::new([0; 200]);
        builder.append(NO_TIMESTAMP, None, None, &[]).unwrap();
        assert_eq!(
            builder.append(TimestampMs(-2), None, None, &[]),
            Err(EncodeError::TimestampOutOfRange { given: TimestampMs(-2) })
        );
        assert_eq!(
            builder.append(TimestampMs(i64::MIN), None, None, &[]),
            Err(EncodeError::TimestampOutOfRange { given: TimestampMs(i64::MIN) })
        );
        assert_eq!((builder.base_timestamp(), builder.max_timestamp()), (TimestampMs(-1), TimestampMs(-1)));
        builder.append(TimestampMs(i64::MAX), None, None, &[]).unwrap();
        builder.append(NO_TIMESTAMP, None, None, &[]).unwrap();
        let batch = RecordBatch::parse(builder.finish()).unwrap();
        let timestamps: Vec<_> = batch.records().unwrap().map(|record| record.unwrap().timestamp).collect();
        assert_eq!(timestamps, [-1, i64::MAX, -1]);
        assert_eq!(batch.max_timestamp(), i64::MAX);
    }

    #[test]
    fn a_record_larger_than_the_format_is_refused_without_touching_memory() {
        // The same mebibyte named 4,096 times: 4 GiB, more than a batch can be, and than 32 bits can count.
        let mebibyte = vec![0; 1 << 20];
        let headers = vec![Header { key: b"", value: Some(&mebibyte) }; 4096];
        let error = encode_one(&mut [0; 100], TimestampMs(0), None, None, &headers).unwrap_err();
        assert!(matches!(error, EncodeError::RecordTooLarge { max: 2_147_483_647, .. }), "{error}");
    }

    #[test]
    fn a_compressed_payload_gets_the_same_header() {
        let mut builder = RecordBatchBuilder::new([0; 300]);
        let mut out = [9; 100];
        assert_eq!(builder.finish_compressed(CompressionType::Snappy, &mut out, 10), Err(EncodeError::NoRecords));
        builder.set_producer(7, 3, 40);
        builder.append(TimestampMs(50), None, Some(b"a"), &[]).unwrap();
        builder.append(TimestampMs(60), None, Some(b"b"), &[]).unwrap();
        let needed = EncodeError::BufferTooSmall { needed: 101, available: 100 };
        assert_eq!(builder.finish_compressed(CompressionType::Snappy, &mut out, 40), Err(needed));
        assert!(builder.finish_compressed(CompressionType::Snappy, &mut out, usize::MAX).is_err());
        assert_eq!(out, [9; 100]);
        let payload = builder.payload().to_vec();
        let bytes = builder.finish_compressed(CompressionType::Snappy, &mut out, 39).unwrap();
        let batch = RecordBatch::parse(bytes).unwrap();
        assert_eq!((batch.size(), batch.verify_crc(), batch.compression()), (100, Ok(()), CompressionType::Snappy));
        assert!(batch.records().is_err());
        assert_eq!(batch.records_in(&payload).map(|r| r.unwrap().timestamp).collect::<Vec<_>>(), [50, 60]);
        assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (7, 3, 40));
        assert_eq!(batch.last_sequence(), 41);
    }

    type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);
    type OwnedRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<OwnedHeader>);

    fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..max)
    }

    fn record() -> impl Strategy<Value = OwnedRecord> {
        (
            prop_oneof![-1_i64..5, 1_700_000_000_000_i64..1_700_000_100_000, 0..i64::MAX],
            proptest::option::of(bytes(80)),
            proptest::option::of(prop_oneof![bytes(200), Just(vec![3; 9000])]),
            proptest::collection::vec((bytes(10), proptest::option::of(bytes(70))), 0..4),
        )
    }

    proptest! {
        #[test]
        fn what_is_built_is_read_back(
            records in proptest::collection::vec(record(), 1..30),
            base in 0_i64..1 << 40, epoch in -1_i32..9,
        ) {
            let mut builder = RecordBatchBuilder::new(vec![0xee; 400_000]);
            for (n, (timestamp, key, value, headers)) in records.iter().enumerate() {
                let headers = headers.iter().map(|(key, value)| Header { key, value: value.as_deref() });
                let headers: Vec<_> = headers.collect();
                let timestamp = TimestampMs(*timestamp);
                prop_assert_eq!(builder.append(timestamp, key.as_deref(), value.as_deref(), &headers), Ok(n as i32));
                if records.len() == 1 {
                    let mut one = vec![0; builder.size()];
                    let size = encode_one(&mut one, timestamp, key.as_deref(), value.as_deref(), &headers).unwrap();
                    prop_assert_eq!(&one[..size], &*builder.finish());
                }
            }
            crate::stamp_base(builder.finish(), Offset(base), LeaderEpoch(epoch));
            let size = builder.size();
            let buffer = builder.into_buffer();
            let batch = RecordBatch::parse(&buffer).unwrap();
            prop_assert_eq!(batch.size(), size);
            prop_assert_eq!(batch.verify_crc(), Ok(()));
            prop_assert_eq!(batch.partition_leader_epoch(), epoch);
            prop_assert_eq!(batch.base_offset(), base);
            prop_assert_eq!(batch.next_offset(), base + records.len() as i64);
            prop_assert_eq!(batch.timestamp_type(), TimestampType::CreateTime);
            prop_assert_eq!(batch.base_timestamp(), records[0].0);
            prop_assert_eq!(batch.max_timestamp(), records.iter().map(|r| r.0).max().unwrap());
            let mut read = batch.records().unwrap();
            prop_assert_eq!(read.remaining(), records.len());
            for (n, (timestamp, key, value, headers)) in records.iter().enumerate() {
                let record = read.next().unwrap().unwrap();
                prop_assert_eq!((record.offset, record.timestamp), (Offset(base + n as i64), TimestampMs(*timestamp)));
                prop_assert_eq!((record.key, record.value), (key.as_deref(), value.as_deref()));
                prop_assert_eq!(record.headers().len(), headers.len());
                let read_headers = record.headers().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec)));
                prop_assert_eq!(&read_headers.collect::<Vec<_>>(), headers);
            }
            prop_assert!(read.next().is_none() && read.next().is_none());
        }
    }

    #[test]
    fn a_new_batch_has_epoch_zero_until_it_is_stamped() {
        let mut buffer = [0; 100];
        let size = encode_one(&mut buffer, TimestampMs(0), None, None, &[]).unwrap();
        assert_eq!(RecordBatch::parse(&buffer).unwrap().partition_leader_epoch(), 0);
        crate::stamp_base(&mut buffer[..size], Offset(9), NO_LEADER_EPOCH);
        let batch = RecordBatch::parse(&buffer).unwrap();
        assert_eq!(
            (batch.base_offset(), batch.partition_leader_epoch(), batch.verify_crc()),
            (Offset(9), LeaderEpoch(-1), Ok(()))
        );
    }
}
