//! A record batch of format 2, as a view of bytes from disk or network.
//!
//! | byte | type | field | notes |
//! |---|---|---|---|
//! | 0 | i64 | base offset | outside the CRC |
//! | 8 | i32 | batch length | of what follows: the batch's size less 12 |
//! | 12 | i32 | partition leader epoch | outside the CRC; -1: none |
//! | 16 | i8 | magic | 2 |
//! | 17 | u32 | crc | CRC-32C of byte 21 to the end |
//! | 21 | i16 | attributes | below |
//! | 23 | i32 | last offset delta | |
//! | 27 | i64 | base timestamp | of the first record; the delete horizon where bit 6 says so |
//! | 35 | i64 | max timestamp | |
//! | 43 | i64 | producer id | -1: none |
//! | 51 | i16 | producer epoch | -1: none |
//! | 53 | i32 | base sequence | -1: none |
//! | 57 | i32 | record count | |
//! | 61 | | records | one compressed block where the codec is not 0 |
//!
//! All big-endian. Attributes: bits 0-2 codec, 3 timestamp type (0 create time, 1 log append time), 4 transactional, 5
//! control, 6 delete horizon. The CRC starts behind offset and epoch, so that a log that takes the batch in stamps both
//! without touching the rest ([`stamp_base`]). Source: Kafka's `DefaultRecordBatch`.

use core::fmt;
use core::iter::FusedIterator;

use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::compression::CompressionType;
use crate::crc32c::{crc32c, crc32c_combine};
use crate::error::DecodeError;
use crate::old_message::OldMessage;
use crate::record::{RECORD_LEN_MIN, Record};
use crate::units::{LeaderEpoch, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, Offset, TimestampMs};

/// Bytes before the records.
pub const HEADER_LEN: usize = 61;
/// Bytes that the batch length does not count: base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;
/// The first byte that the CRC covers.
pub const CRC_START: usize = 21;
/// The magic of this format.
pub const MAGIC: i8 = 2;
/// The least that the batch length field can be.
pub const BATCH_LENGTH_MIN: i32 = (HEADER_LEN - LOG_OVERHEAD) as i32;
/// The most: a batch's size has to fit Kafka's `i32` positions.
pub const BATCH_LENGTH_MAX: i32 = i32::MAX - LOG_OVERHEAD as i32;

/// Where the CRC stands.
const CRC_FIELD: core::ops::Range<usize> = 17..CRC_START;
/// Bytes up to and with the magic: enough for [`RecordBatch::peek_size`] to return all that it can.
const MAGIC_END: usize = 17;

pub(crate) const ATTRIBUTE_CODEC: i16 = 0x07;
const ATTRIBUTE_LOG_APPEND_TIME: i16 = 0x08;
const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
const ATTRIBUTE_CONTROL: i16 = 0x20;
const ATTRIBUTE_DELETE_HORIZON: i16 = 0x40;
pub(crate) const ATTRIBUTES_UNUSED: i16 = !0x7f;

/// The 61 bytes, field by field; unaligned and big-endian, so that it can lie over any bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RecordBatchHeader {
    pub(crate) base_offset: I64,
    pub(crate) batch_length: I32,
    pub(crate) partition_leader_epoch: I32,
    pub(crate) magic: i8,
    pub(crate) crc: U32,
    pub(crate) attributes: I16,
    pub(crate) last_offset_delta: I32,
    pub(crate) base_timestamp: I64,
    pub(crate) max_timestamp: I64,
    pub(crate) producer_id: I64,
    pub(crate) producer_epoch: I16,
    pub(crate) base_sequence: I32,
    pub(crate) record_count: I32,
}

const _: () = assert!(size_of::<RecordBatchHeader>() == HEADER_LEN);
const _: () = assert!(core::mem::offset_of!(RecordBatchHeader, attributes) == CRC_START);

/// Whose clock the timestamps of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's: each record has its own.
    CreateTime,
    /// The log's, when the batch was appended: every record has the batch's max timestamp.
    LogAppendTime,
}

impl fmt::Display for TimestampType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        })
    }
}

/// A batch whose header was checked and whose bytes are all there. The CRC is checked by
/// [`verify_crc`](Self::verify_crc) alone.
#[derive(Clone, Copy)]
pub struct RecordBatch<'a> {
    header: &'a RecordBatchHeader,
    payload: &'a [u8],
    /// Header and payload together: exactly the batch.
    bytes: &'a [u8],
}

impl<'a> RecordBatch<'a> {
    /// The batch at the start of `bytes`, which may be longer.
    ///
    /// What holds afterwards: size, magic and codec are good; the base offset is not negative and the offset
    /// behind the last one exists; the record count is not more than the offsets or the bytes allow. What
    /// does not: the CRC, the records.
    ///
    /// # Errors
    /// `Truncated` (with the size of the whole batch, where the bytes reach far enough for that),
    /// `BadBatchLength`, `BadMagic`, `OldFormat`, `UnknownCompression`, `BadOffset`, `BadRecordCount`.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let Ok((header, _)) = RecordBatchHeader::ref_from_prefix(bytes) else { return Err(too_short(bytes)) };
        let size = header.size().map_err(|error| OldMessage::named_or(bytes, error))?;
        header.check()?;
        let Some((bytes, _)) = bytes.split_at_checked(size) else {
            return Err(DecodeError::Truncated { needed: size, available: bytes.len() });
        };
        // The size is never below HEADER_LEN: this cannot fail, and says so to the compiler without a panic.
        let payload = bytes.get(HEADER_LEN..).unwrap_or_default();
        Ok(Self { header, payload, bytes })
    }

    /// What the batch at the start of `bytes` says of its place, unchecked: no checksum covers it. `None` where the
    /// header is not all there.
    #[inline]
    pub fn peek_place(bytes: &[u8]) -> Option<(Offset, LeaderEpoch)> {
        let (header, _) = RecordBatchHeader::ref_from_prefix(bytes).ok()?;
        Some((Offset(header.base_offset.get()), LeaderEpoch(header.partition_leader_epoch.get())))
    }

    /// How many records the batch at the start of `bytes` says that it has, unchecked. `None` where the header is not
    /// all there.
    pub fn peek_count(bytes: &[u8]) -> Option<i32> {
        let (header, _) = RecordBatchHeader::ref_from_prefix(bytes).ok()?;
        Some(header.record_count.get())
    }

    /// The greatest timestamp that the batch at the start of `bytes` says, unchecked. `None` where the header is not
    /// all there.
    pub fn peek_max_timestamp(bytes: &[u8]) -> Option<TimestampMs> {
        let (header, _) = RecordBatchHeader::ref_from_prefix(bytes).ok()?;
        Some(TimestampMs(header.max_timestamp.get()))
    }

    /// The size in bytes of the batch at the start of `bytes`, from its first twelve bytes alone (of
    /// seventeen, the magic is checked as well), so that a caller knows how much to read.
    ///
    /// # Errors
    /// `Truncated` below twelve bytes, `BadBatchLength`, `BadMagic`.
    #[inline]
    pub fn peek_size(bytes: &[u8]) -> Result<usize, DecodeError> {
        let Some((&[_, _, _, _, _, _, _, _, a, b, c, d], rest)) = bytes.split_first_chunk::<LOG_OVERHEAD>() else {
            return Err(DecodeError::Truncated { needed: LOG_OVERHEAD, available: bytes.len() });
        };
        let size = checked_size(i32::from_be_bytes([a, b, c, d]))?;
        match rest.get(MAGIC_END - 1 - LOG_OVERHEAD) {
            Some(&magic) if magic as i8 != MAGIC => Err(DecodeError::BadMagic { given: magic as i8 }),
            _ => Ok(size),
        }
    }

    /// Checks the CRC over all bytes from the attributes on.
    ///
    /// # Errors
    /// `BadCrc` with both sums.
    #[inline]
    pub fn verify_crc(&self) -> Result<(), DecodeError> {
        let (stored, computed) = (self.crc(), self.compute_crc());
        if stored == computed { Ok(()) } else { Err(DecodeError::BadCrc { stored, computed }) }
    }

    /// CRC-32C of the bytes that are there.
    #[inline]
    pub fn compute_crc(&self) -> u32 {
        crc32c(self.bytes.get(CRC_START..).unwrap_or_default())
    }

    /// The whole batch, header included.
    #[inline]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header's bytes.
    #[inline]
    pub fn header_bytes(&self) -> &'a [u8; HEADER_LEN] {
        zerocopy::transmute_ref!(self.header)
    }

    /// Its size in bytes, header included.
    #[inline]
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The records: bytes 61 to the end, compressed or not.
    #[inline]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The offset of its first record (of the first that there was, in a compacted log).
    #[inline]
    pub fn base_offset(&self) -> Offset {
        Offset(self.header.base_offset.get())
    }

    /// The offset of its last record.
    #[inline]
    pub fn last_offset(&self) -> Offset {
        // Neither this nor the next overflows: `check` refused such headers.
        self.base_offset().wrapping_add(i64::from(self.last_offset_delta()))
    }

    /// The offset behind its last record: where the next batch begins.
    #[inline]
    pub fn next_offset(&self) -> Offset {
        self.last_offset().wrapping_add(1)
    }

    /// The last offset less the base offset, 0 or more; survives compaction.
    #[inline]
    pub fn last_offset_delta(&self) -> i32 {
        self.header.last_offset_delta.get()
    }

    /// The leader epoch that it was appended in, or [`NO_LEADER_EPOCH`](crate::NO_LEADER_EPOCH).
    #[inline]
    pub fn partition_leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.header.partition_leader_epoch.get())
    }

    /// The CRC that the header claims.
    #[inline]
    pub fn crc(&self) -> u32 {
        self.header.crc.get()
    }

    /// The attribute bits as they stand.
    #[inline]
    pub fn attributes(&self) -> i16 {
        self.header.attributes.get()
    }

    /// How the records are compressed.
    #[inline]
    pub fn compression(&self) -> CompressionType {
        CompressionType::from_id((self.attributes() & ATTRIBUTE_CODEC) as u8).unwrap_or_default()
    }

    /// Whether it belongs to a transaction.
    #[inline]
    pub fn is_transactional(&self) -> bool {
        self.attributes() & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether its record is a marker of Kafka's own, not data.
    #[inline]
    pub fn is_control(&self) -> bool {
        self.attributes() & ATTRIBUTE_CONTROL != 0
    }

    /// Whose clock its timestamps are.
    #[inline]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes() & ATTRIBUTE_LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// When compaction may drop its tombstones, in ms since 1970, where it says.
    #[inline]
    pub fn delete_horizon(&self) -> Option<TimestampMs> {
        (self.attributes() & ATTRIBUTE_DELETE_HORIZON != 0).then(|| self.base_timestamp())
    }

    /// What the records' timestamp deltas are counted from, in ms since 1970.
    #[inline]
    pub fn base_timestamp(&self) -> TimestampMs {
        TimestampMs(self.header.base_timestamp.get())
    }

    /// The greatest timestamp of its records, in ms since 1970 (or when it was appended, see
    /// [`TimestampType`]).
    #[inline]
    pub fn max_timestamp(&self) -> TimestampMs {
        TimestampMs(self.header.max_timestamp.get())
    }

    /// The producer's id, or [`NO_PRODUCER_ID`](crate::NO_PRODUCER_ID).
    #[inline]
    pub fn producer_id(&self) -> i64 {
        self.header.producer_id.get()
    }

    /// The producer's epoch, or [`NO_PRODUCER_EPOCH`](crate::NO_PRODUCER_EPOCH).
    #[inline]
    pub fn producer_epoch(&self) -> i16 {
        self.header.producer_epoch.get()
    }

    /// The producer's number for the first record, or [`NO_SEQUENCE`](crate::NO_SEQUENCE).
    #[inline]
    pub fn base_sequence(&self) -> i32 {
        self.header.base_sequence.get()
    }

    /// The producer's number for the last record: after `i32::MAX` comes 0.
    /// [`NO_SEQUENCE`](crate::NO_SEQUENCE) where there is none.
    #[inline]
    pub fn last_sequence(&self) -> i32 {
        let base = self.base_sequence();
        if base < 0 {
            return base;
        }
        // Both are 31 bits wide, and so is the wrapped sum.
        (base as u32).wrapping_add(self.last_offset_delta() as u32) as i32 & i32::MAX
    }

    /// Whether it has a record for each of its offsets, or none at all, as every batch has that no compaction thinned
    /// out.
    #[inline]
    pub fn is_whole(&self) -> bool {
        let count = self.record_count();
        count == 0 || i64::from(count) == i64::from(self.last_offset_delta()) + 1
    }

    /// How many records it holds; compaction may leave none.
    #[inline]
    pub fn record_count(&self) -> i32 {
        self.header.record_count.get()
    }

    /// Its records.
    ///
    /// # Errors
    /// `Compressed` where they have to be decompressed first (see [`records_in`](Self::records_in)).
    #[inline]
    pub fn records(&self) -> Result<Records<'a>, DecodeError> {
        match self.compression() {
            _ if self.record_count() == 0 => Ok(self.records_in(&[])),
            CompressionType::None => Ok(self.records_in(self.payload())),
            codec => Err(DecodeError::Compressed { codec }),
        }
    }

    /// Its records in `payload`, which the caller has decompressed. A batch without records has none there, no matter
    /// what the payload is: Kafka asks the count first.
    #[inline]
    pub fn records_in<'p>(&self, payload: &'p [u8]) -> Records<'p> {
        let payload = if self.record_count() == 0 { &[] } else { payload };
        let append_time =
            if self.timestamp_type() == TimestampType::LogAppendTime { Some(self.max_timestamp()) } else { None };
        Records {
            rest: payload,
            payload_len: payload.len(),
            base_offset: self.base_offset(),
            base_timestamp: self.base_timestamp(),
            append_time,
            previous_delta: -1,
            last_delta: self.last_offset_delta(),
            remaining: self.record_count(),
            record_count: self.record_count(),
        }
    }
}

impl fmt::Debug for RecordBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBatch")
            .field("base_offset", &self.base_offset())
            .field("last_offset", &self.last_offset())
            .field("record_count", &self.record_count())
            .field("size", &self.size())
            .field("partition_leader_epoch", &self.partition_leader_epoch())
            .field("compression", &self.compression())
            .field("max_timestamp", &self.max_timestamp())
            .field("producer_id", &self.producer_id())
            .field("crc", &self.crc())
            .finish_non_exhaustive()
    }
}

impl RecordBatchHeader {
    /// The size of the batch, once length and magic are good.
    #[inline]
    pub(crate) fn size(&self) -> Result<usize, DecodeError> {
        let size = checked_size(self.batch_length.get())?;
        if self.magic != MAGIC {
            return Err(DecodeError::BadMagic { given: self.magic });
        }
        Ok(size)
    }

    /// Checks what later code relies on, of a header whose size is good.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        let codec = (self.attributes.get() & ATTRIBUTE_CODEC) as u8;
        if codec > CompressionType::Zstd.id() {
            return Err(DecodeError::UnknownCompression { given: codec });
        }
        let (base_offset, last_offset_delta) = (self.base_offset.get(), self.last_offset_delta.get());
        if base_offset < 0 || last_offset_delta < 0 || base_offset > i64::MAX - 1 - i64::from(last_offset_delta) {
            return Err(DecodeError::BadOffset { base_offset: Offset(base_offset), last_offset_delta });
        }
        let count = self.record_count.get();
        let count_max = self.record_count_max(codec);
        if count < 0 || i64::from(count) > count_max {
            return Err(DecodeError::BadRecordCount { given: count, max: count_max.min(i64::from(i32::MAX)) as i32 });
        }
        Ok(())
    }

    /// The most records that the batch can hold: one per offset, and seven bytes for each where they are not
    /// compressed.
    #[inline]
    fn record_count_max(&self, codec: u8) -> i64 {
        let offsets = i64::from(self.last_offset_delta.get()) + 1;
        if codec != 0 {
            return offsets;
        }
        let payload_len = self.batch_length.get() as u32 - BATCH_LENGTH_MIN as u32;
        offsets.min(i64::from(payload_len / RECORD_LEN_MIN as u32))
    }
}

#[inline]
fn checked_size(batch_length: i32) -> Result<usize, DecodeError> {
    if !(BATCH_LENGTH_MIN..=BATCH_LENGTH_MAX).contains(&batch_length) {
        return Err(DecodeError::BadBatchLength { given: batch_length, min: BATCH_LENGTH_MIN, max: BATCH_LENGTH_MAX });
    }
    Ok(batch_length as usize + LOG_OVERHEAD)
}

/// What is wrong with bytes that do not even hold a header.
#[cold]
fn too_short(bytes: &[u8]) -> DecodeError {
    match RecordBatch::peek_size(bytes) {
        Ok(size) => DecodeError::Truncated { needed: size, available: bytes.len() },
        Err(DecodeError::Truncated { .. }) => DecodeError::Truncated { needed: HEADER_LEN, available: bytes.len() },
        Err(error) => OldMessage::named_or(bytes, error),
    }
}

/// The records of a batch in order. After an error, which is the last item, it gives nothing more.
///
/// Checked on the way, besides each record's own shape: offset deltas rise and stay within the batch, and
/// nothing is left over or missing after the last record.
#[derive(Debug, Clone)]
pub struct Records<'p> {
    rest: &'p [u8],
    /// Records still to come; 0 after an error.
    remaining: i32,
    previous_delta: i32,
    last_delta: i32,
    record_count: i32,
    base_offset: Offset,
    base_timestamp: TimestampMs,
    append_time: Option<TimestampMs>,
    payload_len: usize,
}

/// A place among a batch's records: see [`Records::mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordsMark {
    /// Bytes of the payload that are not read yet.
    rest_len: usize,
    remaining: i32,
    previous_delta: i32,
}

impl Records<'_> {
    /// Where this stands now. [`skip_to`](Records::skip_to) goes there in other records of the same batch.
    #[inline]
    pub const fn mark(&self) -> RecordsMark {
        RecordsMark { rest_len: self.rest.len(), remaining: self.remaining, previous_delta: self.previous_delta }
    }

    /// Goes on from a [`mark`](Records::mark) of the same batch, without reading what lies before it. A mark that lies
    /// before the records' present place, or that is none of theirs, changes nothing.
    #[inline]
    pub fn skip_to(&mut self, mark: RecordsMark) {
        let is_ahead = mark.remaining >= 0 && mark.remaining <= self.remaining;
        let Some(skipped) = self.rest.len().checked_sub(mark.rest_len).filter(|_| is_ahead) else { return };
        self.rest = &self.rest[skipped..];
        (self.remaining, self.previous_delta) = (mark.remaining, mark.previous_delta);
    }

    /// Records that are still to come, where nothing is wrong with them.
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.remaining as usize
    }

    // What follows is cold and takes and gives values: a call that is handed `&mut self` would keep the whole
    // iterator in memory, also where it is never made.

    /// Gives up: nothing comes after the error.
    #[inline]
    const fn stop(&mut self) {
        self.remaining = 0;
        self.rest = &[];
    }

    #[cold]
    fn explain(rest: &[u8], payload_len: usize, expected: i32, remaining: i32) -> DecodeError {
        if rest.is_empty() {
            return DecodeError::TooFewRecords { expected, found: expected - remaining };
        }
        Record::explain(rest, payload_len)
    }

    #[cold]
    const fn bad_delta(given: i64, previous: i32, max: i32) -> DecodeError {
        DecodeError::BadOffsetDelta { given: given as i32, min: previous.saturating_add(1), max }
    }
}

impl<'p> Iterator for Records<'p> {
    type Item = Result<Record<'p>, DecodeError>;

    #[inline(always)]
    #[allow(clippy::inline_always)] // Not inlined, each record travels through memory: a third of the time.
    fn next(&mut self) -> Option<Self::Item> {
        if self.remaining <= 0 {
            let remaining = self.rest.len();
            if remaining == 0 {
                return None;
            }
            self.stop();
            return Some(Err(DecodeError::RecordsRemaining { at: self.payload_len - remaining, remaining }));
        }
        let Some((mut record, next)) = Record::take(self.rest) else {
            let error = Self::explain(self.rest, self.payload_len, self.record_count, self.remaining);
            self.stop();
            return Some(Err(error));
        };
        // Until here, offset and timestamp are deltas.
        let delta = record.offset.0 as i32;
        if delta <= self.previous_delta || delta > self.last_delta {
            let error = Self::bad_delta(record.offset.0, self.previous_delta, self.last_delta);
            self.stop();
            return Some(Err(error));
        }
        self.rest = next;
        self.previous_delta = delta;
        self.remaining -= 1;
        // Offsets cannot overflow within the batch; a timestamp delta is anything, and wraps as Java's does.
        record.offset = self.base_offset.wrapping_add(i64::from(delta));
        record.timestamp = match self.append_time {
            Some(append_time) => append_time,
            None => self.base_timestamp.wrapping_add(record.timestamp.0),
        };
        Some(Ok(record))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        // One more than the records: the error at the end.
        (0, Some(self.remaining().saturating_add(1)))
    }
}

impl FusedIterator for Records<'_> {}

/// Gives a batch its place in a log: base offset and leader epoch, both outside the CRC.
///
/// # Panics
/// Where `batch` is shorter than a header: a mistake of the caller, not of the data.
#[inline]
pub fn stamp_base(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    let Ok((header, _)) = RecordBatchHeader::mut_from_prefix(batch) else {
        panic!("a batch of {} bytes has no header to stamp", batch.len())
    };
    header.base_offset.set(base_offset.0);
    header.partition_leader_epoch.set(leader_epoch.0);
}

/// Makes a header whole again whose records are compressed now: length, codec and CRC say what `batch` holds.
///
/// # Panics
/// Where `batch` is shorter than a header or longer than a batch: a mistake of the caller, not of the data.
pub fn stamp_compressed(batch: &mut [u8], codec: CompressionType) {
    let batch_length = i32::try_from(batch.len() - LOG_OVERHEAD).expect("a batch that fits");
    let Ok((header, _)) = RecordBatchHeader::mut_from_prefix(batch) else {
        panic!("a batch of {} bytes has no header to stamp", batch.len())
    };
    header.batch_length.set(batch_length);
    header.attributes.set(header.attributes.get() & !ATTRIBUTE_CODEC | i16::from(codec.id()));
    let crc = crc32c(&batch[CRC_START..]);
    if let Ok((header, _)) = RecordBatchHeader::mut_from_prefix(batch) {
        header.crc.set(crc);
    }
}

/// The batch that says that the offsets `first..next` hold no records, as Kafka's own compaction leaves it.
///
/// # Panics
/// Where these are no offsets of one batch: 1 to `i32::MAX` of them.
pub fn empty_batch(first: Offset, next: Offset, leader_epoch: LeaderEpoch) -> [u8; HEADER_LEN] {
    let last_offset_delta = i32::try_from(next - first - 1).ok().filter(|&delta| delta >= 0);
    let mut header = RecordBatchHeader {
        base_offset: first.0.into(),
        batch_length: BATCH_LENGTH_MIN.into(),
        partition_leader_epoch: leader_epoch.0.into(),
        magic: MAGIC,
        crc: 0.into(),
        attributes: 0.into(),
        last_offset_delta: last_offset_delta.expect("a batch's offsets fit 31 bits").into(),
        base_timestamp: NO_TIMESTAMP.0.into(),
        max_timestamp: NO_TIMESTAMP.0.into(),
        producer_id: NO_PRODUCER_ID.into(),
        producer_epoch: NO_PRODUCER_EPOCH.into(),
        base_sequence: NO_SEQUENCE.into(),
        record_count: 0.into(),
    };
    header.crc.set(crc32c(&header.as_bytes()[CRC_START..]));
    zerocopy::transmute!(header)
}

/// Sets the greatest timestamp of a whole batch and, since the CRC covers it, the CRC.
///
/// # Panics
/// Where `batch` is shorter than a header: a mistake of the caller, not of the data.
pub fn stamp_max_timestamp(batch: &mut [u8], max_timestamp: TimestampMs) {
    let size = batch.len();
    let Ok((header, _)) = RecordBatchHeader::mut_from_prefix(batch) else {
        panic!("a batch of {size} bytes has no header to stamp")
    };
    header.max_timestamp.set(max_timestamp.0);
    let crc = crc32c(&batch[CRC_START..]);
    batch[CRC_FIELD].copy_from_slice(&crc.to_be_bytes());
}

/// The CRC of a batch after its header changed from `header_old` to `header_new`, without reading its
/// `payload_len` bytes of payload.
///
/// A CRC is linear: the old and the new header's own sums, moved past the payload, are taken out of and put
/// into the sum that `header_old` holds. What the CRC field of `header_new` holds plays no part. Where the
/// old sum was wrong, so is the new one: damage stays visible.
pub fn restamped_crc(header_old: &[u8; HEADER_LEN], header_new: &[u8; HEADER_LEN], payload_len: u64) -> u32 {
    let old = RecordBatchHeader::ref_from_bytes(header_old).map_or(0, |header| header.crc.get());
    let change = crc32c(&header_old[CRC_START..]) ^ crc32c(&header_new[CRC_START..]);
    old ^ crc32c_combine(change, 0, payload_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Header;
    use crate::record_batch_builder::{RecordBatchBuilder, encode_one};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// Three records with keys, values and headers.
    fn sample() -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(vec![0; 400]);
        builder.append(TimestampMs(1000), Some(b"k"), Some(b"value"), &[Header::new("h", b"x")]).unwrap();
        builder.append(TimestampMs(900), None, None, &[]).unwrap();
        builder.append(TimestampMs(1100), None, Some(&[5; 100]), &[Header { key: b"\xff", value: None }]).unwrap();
        builder.finish().to_vec()
    }

    /// Sets a header field of a valid batch and makes the CRC true again.
    fn altered(byte: usize, field: &[u8]) -> Vec<u8> {
        let mut bytes = sample();
        bytes[byte..byte + field.len()].copy_from_slice(field);
        let crc = crc32c(&bytes[CRC_START..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn refused(byte: usize, field: &[u8]) -> DecodeError {
        RecordBatch::parse(&altered(byte, field)).unwrap_err()
    }

    /// All records of a batch with this payload and count; offsets up to 100 are allowed.
    fn read(payload: &[u8], count: i32) -> Result<usize, DecodeError> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend_from_slice(payload);
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        // Compressed, so that the count is not held against the payload here.
        bytes[22] = 1;
        bytes[23..27].copy_from_slice(&100_i32.to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let batch = RecordBatch::parse(&bytes).unwrap();
        let mut records = batch.records_in(batch.payload());
        let mut good = 0;
        for record in records.by_ref() {
            if let Err(error) = record {
                assert!(records.next().is_none(), "nothing comes after an error");
                return Err(error);
            }
            good += 1;
        }
        assert!(records.next().is_none());
        Ok(good)
    }

    #[test]
    fn getters_read_the_bytes_that_the_table_names() {
        let bytes: [u8; HEADER_LEN] = [
            0, 0, 0, 0, 0, 0, 1, 2, // base offset 258
            0, 0, 0, 49, // length
            0, 0, 0, 7, // epoch
            2, // magic
            0xde, 0xad, 0xbe, 0xef, // CRC
            0, 0x7a, // snappy, log append time, transactional, control, delete horizon
            0, 0, 0, 5, // last offset delta
            0, 0, 0, 0, 0, 0, 0, 11, // base timestamp
            0, 0, 0, 0, 0, 0, 0, 12, // max timestamp
            0, 0, 0, 0, 0, 0, 0, 13, // producer id
            0, 14, // producer epoch
            0x7f, 0xff, 0xff, 0xfe, // base sequence
            0, 0, 0, 3, // count
        ];
        let batch = RecordBatch::parse(&bytes).unwrap();
        assert_eq!(
            (batch.base_offset(), batch.last_offset(), batch.next_offset()),
            (Offset(258), Offset(263), Offset(264))
        );
        assert_eq!((batch.size(), batch.payload().len(), batch.partition_leader_epoch()), (61, 0, LeaderEpoch(7)));
        assert_eq!(
            (batch.crc(), batch.attributes(), batch.compression()),
            (0xdead_beef, 0x7a, CompressionType::Snappy)
        );
        assert!(batch.is_transactional() && batch.is_control());
        assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(
            (batch.base_timestamp(), batch.delete_horizon(), batch.max_timestamp()),
            (TimestampMs(11), Some(TimestampMs(11)), TimestampMs(12))
        );
        assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (13, 14, i32::MAX - 1));
        // i32::MAX - 1, i32::MAX, 0, 1, 2, 3
        assert_eq!((batch.last_sequence(), batch.last_offset_delta(), batch.record_count()), (3, 5, 3));
        assert_eq!(batch.header_bytes(), &bytes);
        assert_eq!(batch.records().unwrap_err(), DecodeError::Compressed { codec: CompressionType::Snappy });
    }

    #[test]
    fn a_stamped_max_timestamp_comes_with_its_crc() {
        let mut bytes = sample();
        let before = RecordBatch::parse(&bytes).unwrap().payload().to_vec();
        stamp_max_timestamp(&mut bytes, TimestampMs(-7));
        let batch = RecordBatch::parse(&bytes).unwrap();
        assert_eq!((batch.max_timestamp(), batch.verify_crc()), (TimestampMs(-7), Ok(())));
        assert_eq!((batch.base_timestamp(), batch.payload()), (TimestampMs(1000), &before[..]));
    }

    #[test]
    fn every_cut_says_what_is_needed() {
        let bytes = sample();
        for len in 0..bytes.len() {
            let needed = if len < 12 { HEADER_LEN } else { bytes.len() };
            let error = RecordBatch::parse(&bytes[..len]).unwrap_err();
            assert_eq!(error, DecodeError::Truncated { needed, available: len });
            match RecordBatch::peek_size(&bytes[..len]) {
                Err(error) => {
                    assert_eq!((error, len < 12), (DecodeError::Truncated { needed: 12, available: len }, true));
                }
                Ok(size) => assert_eq!(size, bytes.len()),
            }
        }
        let longer = [&bytes[..], &[1, 2, 3]].concat();
        assert_eq!(RecordBatch::parse(&longer).unwrap().bytes(), &bytes);
    }

    #[test]
    fn every_flipped_bit_behind_the_epoch_is_found() {
        let bytes = sample();
        RecordBatch::parse(&bytes).unwrap().verify_crc().unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let held = RecordBatch::parse(&flipped).and_then(|batch| batch.verify_crc());
            let outside_crc = (0..8 * 8).contains(&bit) || (12 * 8..16 * 8).contains(&bit);
            // A flipped sign bit of the base offset is found without the CRC.
            assert_eq!(held.is_ok(), outside_crc && bit != 7, "bit {bit}");
        }
    }

    #[test]
    fn headers_that_cannot_be_are_refused() {
        let (min, max) = (BATCH_LENGTH_MIN, BATCH_LENGTH_MAX);
        for given in [0, 48, -1, i32::MIN, i32::MAX, max + 1] {
            assert_eq!(refused(8, &given.to_be_bytes()), DecodeError::BadBatchLength { given, min, max });
        }
        let size = i32::MAX as usize;
        assert_eq!(RecordBatch::peek_size(&altered(8, &max.to_be_bytes())), Ok(size));
        assert!(matches!(refused(8, &max.to_be_bytes()), DecodeError::Truncated { needed, .. } if needed == size));
        assert_eq!(refused(16, &[1]), DecodeError::BadMagic { given: 1 });
        assert_eq!(RecordBatch::peek_size(&altered(16, &[0x82])), Err(DecodeError::BadMagic { given: -126 }));
        assert_eq!(refused(22, &[5]), DecodeError::UnknownCompression { given: 5 });
        assert!(matches!(refused(0, &[0x80]), DecodeError::BadOffset { .. }));
        assert!(matches!(refused(23, &(-1_i32).to_be_bytes()), DecodeError::BadOffset { last_offset_delta: -1, .. }));
        // The last offset may be the greatest number less one, so that the next offset exists.
        let last = (i64::MAX - 3).to_be_bytes();
        assert_eq!(RecordBatch::parse(&altered(0, &last)).unwrap().next_offset(), i64::MAX);
        let beyond = DecodeError::BadOffset { base_offset: Offset(i64::MAX - 2), last_offset_delta: 2 };
        assert_eq!(refused(0, &(i64::MAX - 2).to_be_bytes()), beyond);
        assert_eq!(refused(57, &(-1_i32).to_be_bytes()), DecodeError::BadRecordCount { given: -1, max: 3 });
        assert_eq!(refused(57, &4_i32.to_be_bytes()), DecodeError::BadRecordCount { given: 4, max: 3 });
    }

    #[test]
    fn counts_that_the_bytes_cannot_hold_are_refused() {
        let mut bytes = [0; 200];
        let size = encode_one(&mut bytes, TimestampMs(0), None, Some(&[0; 14]), &[]).unwrap();
        bytes[23..27].copy_from_slice(&i32::MAX.to_be_bytes());
        bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        let max = (size as i32 - 61) / 7;
        let error = RecordBatch::parse(&bytes).unwrap_err();
        assert_eq!(error, DecodeError::BadRecordCount { given: i32::MAX, max });
        // A codec may have shrunk them to anything.
        bytes[22] = 4;
        assert_eq!(RecordBatch::parse(&bytes).unwrap().record_count(), i32::MAX);
    }

    #[test]
    fn compacted_batches_with_holes_or_nothing_left_are_read() {
        let two = altered(57, &2_i32.to_be_bytes());
        let error = RecordBatch::parse(&two).unwrap().records().unwrap().last().unwrap().unwrap_err();
        assert!(matches!(error, DecodeError::RecordsRemaining { .. }), "{error}");
        // Records 0 and 2 of three offsets.
        assert_eq!(read(&[0x0c, 0, 0, 0, 1, 1, 0, 0x0c, 0, 0, 4, 1, 1, 0], 2), Ok(2));
        assert_eq!(read(&[], 0), Ok(0));
    }

    #[test]
    fn log_append_time_gives_every_record_the_batchs_time() {
        let bytes = altered(22, &[0x08]);
        let batch = RecordBatch::parse(&bytes).unwrap();
        assert!(batch.records().unwrap().all(|record| record.unwrap().timestamp == 1100));
    }

    #[test]
    fn records_that_are_not_valid_are_reported_with_their_position() {
        use DecodeError::{
            BadFieldLength, BadHeaderCount, BadOffsetDelta, BadRecordLength, BadVarint, RecordsRemaining, TooFewRecords,
        };
        const GOOD: [u8; 7] = [0x0c, 0, 0, 0, 1, 1, 0];
        let after_good = |bytes: &[u8]| read(&[&GOOD[..], bytes].concat(), 2).unwrap_err();
        assert_eq!(read(&GOOD, 1), Ok(1));
        assert_eq!(after_good(&[]), TooFewRecords { expected: 2, found: 1 });
        assert_eq!(read(&[&GOOD[..], &[0]].concat(), 1), Err(RecordsRemaining { at: 7, remaining: 1 }));
        // The same offset again, one that goes back, one behind the last.
        assert_eq!(after_good(&GOOD), BadOffsetDelta { given: 0, min: 1, max: 100 });
        assert_eq!(after_good(&[0x0c, 0, 0, 1, 1, 1, 0]), BadOffsetDelta { given: -1, min: 1, max: 100 });
        assert_eq!(after_good(&[0x0e, 0, 0, 0xca, 0x01, 1, 1, 0]), BadOffsetDelta { given: 101, min: 1, max: 100 });
        // Lengths: negative, too long, too short, shorter than its fields, longer than its fields.
        assert_eq!(after_good(&[0x01, 0]), BadRecordLength { at: 7, given: -1, available: 1 });
        assert_eq!(after_good(&[0x0e, 0, 0, 2, 1, 1, 0]), BadRecordLength { at: 7, given: 7, available: 6 });
        assert_eq!(after_good(&[0x00]), BadRecordLength { at: 7, given: 0, available: 1 });
        assert_eq!(after_good(&[0x0a, 0, 0, 2, 1, 1]), BadVarint { at: 13 });
        assert_eq!(after_good(&[0x0e, 0, 0, 2, 1, 1, 0, 0]), BadRecordLength { at: 7, given: 7, available: 6 });
        // Varints that do not end: the length, the timestamp, the offset.
        assert_eq!(after_good(&[0x80]), BadVarint { at: 7 });
        let mut long = [0xff; 30];
        assert_eq!(after_good(&long), BadVarint { at: 7 });
        (long[0], long[1]) = (0x3a, 0);
        assert_eq!(after_good(&long), BadVarint { at: 9 });
        long[2] = 0;
        assert_eq!(after_good(&long), BadVarint { at: 10 });
        // Key and value lengths: below -1, beyond the record.
        assert_eq!(after_good(&[0x0c, 0, 0, 2, 3, 1, 0]), BadFieldLength { at: 11, given: -2, available: 2 });
        assert_eq!(after_good(&[0x0c, 0, 0, 2, 6, 1, 0]), BadFieldLength { at: 11, given: 3, available: 2 });
        assert_eq!(after_good(&[0x0c, 0, 0, 2, 1, 4, 0]), BadFieldLength { at: 12, given: 2, available: 1 });
        // Headers: a negative count, more than bytes, a null key, a value beyond the record.
        assert_eq!(after_good(&[0x0c, 0, 0, 2, 1, 1, 1]), BadHeaderCount { at: 13, given: -1, available: 0 });
        assert_eq!(after_good(&[0x0e, 0, 0, 2, 1, 1, 4, 0]), BadHeaderCount { at: 13, given: 2, available: 1 });
        assert_eq!(after_good(&[0x10, 0, 0, 2, 1, 1, 2, 1, 1]), BadFieldLength { at: 14, given: -1, available: 1 });
        assert_eq!(after_good(&[0x10, 0, 0, 2, 1, 1, 2, 0, 2]), BadFieldLength { at: 15, given: 1, available: 0 });
        assert_eq!(read(&[0x10, 0, 0, 2, 1, 1, 2, 0, 0], 1), Ok(1));
    }

    #[test]
    fn headers_are_found_by_name_the_last_one_first() {
        let mut bytes = [0; 200];
        let headers = [Header::new("a", b"1"), Header::new("b", b"2"), Header::new("a", b"3")];
        encode_one(&mut bytes, TimestampMs(0), None, None, &headers).unwrap();
        let record = RecordBatch::parse(&bytes).unwrap().records().unwrap().next().unwrap().unwrap();
        assert_eq!(record.headers().last_value("a"), Some(Some(&b"3"[..])));
        assert_eq!(record.headers().last_value("c"), None);
        assert_eq!(record.headers().next().unwrap().key_str(), Some("a"));
    }

    #[test]
    #[should_panic(expected = "no header to stamp")]
    fn stamping_less_than_a_header_is_our_own_mistake() {
        stamp_base(&mut [0; 60], Offset(0), LeaderEpoch(0));
    }

    proptest! {
        #[test]
        fn restamping_is_recomputing(
            value in proptest::collection::vec(any::<u8>(), 0..3000),
            header in proptest::collection::vec(any::<u8>(), HEADER_LEN),
        ) {
            let mut bytes = vec![0; 4000];
            let size = encode_one(&mut bytes, TimestampMs(77), None, Some(&value), &[]).unwrap();
            bytes.truncate(size);
            let old: [u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().unwrap();
            let new: [u8; HEADER_LEN] = header.try_into().unwrap();
            let crc = restamped_crc(&old, &new, (size - HEADER_LEN) as u64);
            bytes[..HEADER_LEN].copy_from_slice(&new);
            prop_assert_eq!(crc, crc32c(&bytes[CRC_START..]));
        }

        /// Payloads that are records but for some bytes: the walk ends, and what it refuses it can explain.
        #[test]
        fn damaged_payloads_are_walked_to_an_end(
            places in proptest::collection::vec((0_usize..400, any::<u8>()), 0..6),
            count in 0_i32..8,
        ) {
            let bytes = sample();
            let mut payload = bytes[HEADER_LEN..].to_vec();
            for (place, byte) in places {
                let place = place % payload.len();
                payload[place] = byte;
            }
            if let Ok(good) = read(&payload, count) {
                prop_assert_eq!(good, count as usize);
            }
        }

        #[test]
        fn any_payload_is_walked_to_an_end(
            payload in proptest::collection::vec(prop_oneof![any::<u8>(), 0_u8..4], 0..60),
            count in 0_i32..8,
        ) {
            let _ = read(&payload, count);
        }

        #[test]
        fn any_bytes_parse_or_are_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            plausible: bool,
        ) {
            if plausible && bytes.len() >= HEADER_LEN {
                let length = bytes.len() as i32 - 12;
                bytes[8..12].copy_from_slice(&length.to_be_bytes());
                bytes[16] = 2;
            }
            if let Ok(batch) = RecordBatch::parse(&bytes) {
                prop_assert!(batch.size() <= bytes.len());
                prop_assert!(batch.last_offset() >= batch.base_offset());
                prop_assert!(batch.next_offset() > batch.last_offset());
                let _ = (batch.verify_crc(), batch.last_sequence(), std::format!("{batch:?}"));
                let _ = batch.records_in(batch.payload()).count();
            }
        }
    }
}
