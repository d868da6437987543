//! What can be wrong with bytes, and with a record to be written. Every variant carries its
//! evidence; all are `Copy` and own nothing.

use core::fmt;

use crate::compression::CompressionType;
use crate::units::{LeaderEpoch, Offset, TimestampMs};

/// Bytes that are not the batch or the record that they were taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside the batch.
    Truncated {
        /// Bytes that are needed from the start of the batch.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// The length field of a batch is out of bounds.
    BadBatchLength {
        /// The field: the bytes that follow it, that is the batch's size less 12.
        given: i32,
        /// The least that it may be.
        min: i32,
        /// The most that it may be here.
        max: i32,
    },
    /// The magic byte is not 2: an old or foreign format.
    BadMagic {
        /// The byte found.
        given: i8,
    },
    /// The bytes are a message of format 0 or 1, which Kafka wrote before 0.11.
    OldFormat {
        /// The format, 0 or 1.
        magic: i8,
    },
    /// The checksum does not match the bytes.
    BadCrc {
        /// CRC-32C that the header claims.
        stored: u32,
        /// CRC-32C of the bytes that are there.
        computed: u32,
    },
    /// The attributes name a codec that the format does not have.
    UnknownCompression {
        /// The codec number, 5 to 7.
        given: u8,
    },
    /// The attributes ask for what is not taken here: log append time, or a transaction.
    UnsupportedAttributes {
        /// The attributes.
        given: i16,
    },
    /// Records were asked of a batch whose payload has to be decompressed first.
    Compressed {
        /// The codec to decompress it with.
        codec: CompressionType,
    },
    /// The base offset is negative, or the last offset would pass the greatest one there is.
    BadOffset {
        /// The base offset found.
        base_offset: Offset,
        /// The last offset delta found.
        last_offset_delta: i32,
    },
    /// The number of records cannot be true: negative, more than the offsets of the batch, or more than its
    /// bytes can hold.
    BadRecordCount {
        /// The count found.
        given: i32,
        /// The most that this batch can hold.
        max: i32,
    },
    /// A variable-length integer does not end within its greatest length, or runs past the end of its record.
    BadVarint {
        /// Where it starts, in bytes from the start of the payload.
        at: usize,
    },
    /// A record's length field is negative, runs past the payload, or is not what the record's fields add up
    /// to.
    BadRecordLength {
        /// Where the record starts, in bytes from the start of the payload.
        at: usize,
        /// The length field found.
        given: i32,
        /// What the fields add up to, or what the payload still holds.
        available: usize,
    },
    /// The length of a key, a value or a header runs past its record, or is negative where it must not be.
    BadFieldLength {
        /// Where the length field starts, in bytes from the start of the payload.
        at: usize,
        /// The length found.
        given: i32,
        /// What the record still holds.
        available: usize,
    },
    /// A record's number of headers is negative or more than its bytes can hold.
    BadHeaderCount {
        /// Where the count starts, in bytes from the start of the payload.
        at: usize,
        /// The count found.
        given: i32,
        /// The bytes that the record still holds.
        available: usize,
    },
    /// A record's offset delta does not lie between the record before it and the end of the batch.
    BadOffsetDelta {
        /// The delta found.
        given: i32,
        /// The least that it may be.
        min: i32,
        /// The most that it may be: the batch's last offset delta.
        max: i32,
    },
    /// Bytes are left over after the last record.
    RecordsRemaining {
        /// Where they start, in bytes from the start of the payload.
        at: usize,
        /// How many there are.
        remaining: usize,
    },
    /// The payload ends before the number of records that the header claims.
    TooFewRecords {
        /// The header's record count.
        expected: i32,
        /// Records that were there.
        found: i32,
    },
    /// The base offset does not continue the log.
    NotContiguous {
        /// The offset that has to come next (where offsets need only rise: the least that may).
        expected: Offset,
        /// The base offset found.
        found: Offset,
    },
    /// The batch says that it reaches into the next segment.
    BeyondNextSegment {
        /// The batch's last offset.
        last_offset: Offset,
        /// Where the next segment begins.
        next_base: Offset,
    },
    /// The batch says that it reaches over the recovery point, where the last durable batch ends.
    BeyondRecoveryPoint {
        /// The batch's last offset.
        last_offset: Offset,
        /// The recovery point.
        recovery_point: Offset,
    },
    /// The leader epoch is not the one of that offset: another history, or a damaged field.
    BadEpoch {
        /// The epoch that the table gives for the offset.
        expected: LeaderEpoch,
        /// The epoch found.
        found: LeaderEpoch,
    },
    /// A header field holds what no writer of this format writes there (reported only where damage is searched
    /// through).
    Implausible {
        /// Where the field stands in the batch header, in bytes.
        header_byte: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { needed, available } => {
                write!(f, "the batch needs {needed} bytes and {available} are there")
            }
            Self::BadBatchLength { given, min, max } => {
                write!(f, "batch length {given} is not between {min} and {max}")
            }
            Self::BadMagic { given } => write!(f, "magic {given} is not 2"),
            Self::OldFormat { magic } => write!(
                f,
                "message format {magic}, which Kafka wrote before 0.11; edgelog reads record batches (magic 2) only: \
                 consume the topic from a broker and produce it again, to have it as record batches"
            ),
            Self::BadCrc { stored, computed } => {
                write!(f, "the batch says CRC-32C {stored:08x} and its bytes have {computed:08x}")
            }
            Self::UnknownCompression { given } => write!(f, "compression codec {given} does not exist"),
            Self::UnsupportedAttributes { given } => {
                write!(f, "attributes {given:#06x} ask for log append time or a transaction")
            }
            Self::Compressed { codec } => {
                write!(f, "the records are compressed with {codec} and have to be decompressed first")
            }
            Self::BadOffset { base_offset, last_offset_delta } => {
                write!(f, "base offset {base_offset} with last offset delta {last_offset_delta} is out of range")
            }
            Self::BadRecordCount { given, max } => write!(f, "record count {given} is not between 0 and {max}"),
            Self::BadVarint { at } => write!(f, "the varint at byte {at} of the payload does not end"),
            Self::BadRecordLength { at, given, available } => {
                write!(f, "the record at byte {at} of the payload says {given} bytes and has {available}")
            }
            Self::BadFieldLength { at, given, available } => {
                write!(f, "the length {given} at byte {at} of the payload does not fit the {available} bytes left")
            }
            Self::BadHeaderCount { at, given, available } => {
                write!(
                    f,
                    "the header count {given} at byte {at} of the payload does not fit the {available} bytes left"
                )
            }
            Self::BadOffsetDelta { given, min, max } => {
                write!(f, "offset delta {given} is not between {min} and {max}")
            }
            Self::RecordsRemaining { at, remaining } => {
                write!(f, "{remaining} bytes remain at byte {at} of the payload, after the last record")
            }
            Self::TooFewRecords { expected, found } => {
                write!(f, "the batch says {expected} records and holds {found}")
            }
            Self::NotContiguous { expected, found } => {
                write!(f, "base offset {found} where {expected} has to come next")
            }
            Self::BeyondNextSegment { last_offset, next_base } => {
                write!(f, "the batch says last offset {last_offset}, and the next segment begins at {next_base}")
            }
            Self::BeyondRecoveryPoint { last_offset, recovery_point } => {
                write!(f, "the batch says last offset {last_offset}, and the durable ones end at {recovery_point}")
            }
            Self::BadEpoch { expected, found } => write!(f, "leader epoch {found} where {expected} is the offset's"),
            Self::Implausible { header_byte } => {
                write!(f, "the field at byte {header_byte} of the batch header holds a value that no writer puts there")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

/// A record or batch that cannot be written as asked. Nothing was changed where one is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The caller's buffer is too short.
    BufferTooSmall {
        /// Length that the whole buffer needs to have for this call to succeed.
        needed: usize,
        /// Length that it has.
        available: usize,
    },
    /// The batch would pass what the format's length field can say.
    RecordTooLarge {
        /// Bytes that the batch would have (saturated).
        given: u64,
        /// The most that a batch can have.
        max: u64,
    },
    /// The batch holds as many records as the format's count field can say.
    TooManyRecords {
        /// That many.
        max: i32,
    },
    /// The timestamp is negative and not [`NO_TIMESTAMP`](crate::NO_TIMESTAMP).
    TimestampOutOfRange {
        /// The timestamp given.
        given: TimestampMs,
    },
    /// A batch without records was to be finished with a compressed payload.
    NoRecords,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BufferTooSmall { needed, available } => {
                write!(f, "the buffer needs {needed} bytes and has {available}")
            }
            Self::RecordTooLarge { given, max } => {
                write!(f, "the batch would have {given} bytes, more than the format's {max}")
            }
            Self::TooManyRecords { max } => write!(f, "the batch holds {max} records already, the most there can be"),
            Self::TimestampOutOfRange { given } => write!(f, "timestamp {given} is negative and not -1 for none"),
            Self::NoRecords => f.write_str("the batch has no records"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// An index that cannot be trusted. Indexes are derived: the answer is always to rebuild it from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexError {
    /// The file ends inside an entry.
    PartialEntry {
        /// The file's length in bytes.
        len: usize,
        /// The length of one entry.
        entry_len: usize,
    },
    /// An entry is all zeros, as room that was never written is.
    ZeroEntry {
        /// Which one, from 0.
        entry: usize,
    },
    /// A column does not rise from the entry before, or is negative.
    NotAscending {
        /// Which entry, from 0.
        entry: usize,
        /// The column's value in the entry before it (or the least allowed in the first).
        previous: i64,
        /// The column's value in this one.
        found: i64,
    },
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PartialEntry { len, entry_len } => {
                write!(f, "{len} bytes are not a multiple of the entry's {entry_len}")
            }
            Self::ZeroEntry { entry } => write!(f, "entry {entry} is all zeros"),
            Self::NotAscending { entry, previous, found } => {
                write!(f, "entry {entry} has {found} after {previous}")
            }
        }
    }
}

impl core::error::Error for IndexError {}

/// A table of leader epochs that cannot be true, or a text that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EpochError {
    /// An epoch or start offset is negative.
    Negative {
        /// Which entry, from 0.
        entry: usize,
    },
    /// An epoch or start offset does not rise from the entry before.
    NotAscending {
        /// Which entry, from 0.
        entry: usize,
    },
    /// The text's first line is not version 0.
    BadVersion,
    /// A line is not what its place calls for.
    BadLine {
        /// Which line, from 1.
        line: usize,
    },
    /// The text holds another number of entries than it says.
    BadCount {
        /// What it says.
        declared: usize,
        /// What it holds.
        found: usize,
    },
}

impl fmt::Display for EpochError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Negative { entry } => write!(f, "epoch entry {entry} is negative"),
            Self::NotAscending { entry } => write!(f, "epoch entry {entry} does not rise from the one before"),
            Self::BadVersion => f.write_str("the epoch checkpoint does not start with version 0"),
            Self::BadLine { line } => write!(f, "line {line} of the epoch checkpoint cannot be read"),
            Self::BadCount { declared, found } => {
                write!(f, "the epoch checkpoint says {declared} entries and holds {found}")
            }
        }
    }
}

impl core::error::Error for EpochError {}
