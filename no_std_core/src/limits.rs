//! How large anything may be and how long any search may take, each bound once.
//!
//! Recovery, readers, attached processes and the tools take their bounds from here. A bound that one of them had for
//! itself would make a batch sound for one and damage for another.

/// The most bytes that a batch may have, header included: Kafka's positions in a segment are 31 bits wide.
///
/// A topic's `max.message.bytes` bounds what is appended and not what is read: the key may have been greater before.
pub const BATCH_BYTES_MAX: usize = i32::MAX as usize;

/// The most bytes of a segment that a log is written with: Kafka's positions are 31 bits wide, and a broker refuses a
/// longer file.
pub const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// The most bytes of a segment that are read. One that something else has made longer than a segment can be is left as
/// it is, and what is in it stays readable as far as a position here can count.
pub const READABLE_BYTES_MAX: u64 = if usize::BITS > 32 { u32::MAX as u64 - 1 } else { SEGMENT_BYTES_MAX };

/// So many sealed segments of a log may wait to be flushed: one more begins only when the first of them is durable.
/// The names of later segments prove by that what is durable, where a checkpoint says less.
pub const UNFLUSHED_SEGMENTS_MAX: usize = 8;

/// A search behind damage computes checksums over at most so many times the bytes of its segment. Hostile bytes can
/// offer overlapping candidates; this keeps their cost linear.
pub const CRC_PASSES_MAX: u64 = 8;

/// So many batches behind damage are compared before one of them is believed.
pub const CANDIDATES_MAX: usize = 16;

/// A lost byte has held at most so many records: the shortest record has 7 bytes, and zstd packs 30,000 bytes of
/// equal records into one. A hole that is wider than its lost bytes allow makes a base offset less credible.
pub const RECORDS_PER_BYTE_MAX: u64 = 30_000 / 7;

/// A search looks through the bytes in stretches of this size.
pub const SEARCH_STRIDE_BYTES: usize = 256 << 10;

/// A hole between two batches of a segment is believed up to this width: more records than a device writes in its life,
/// and few enough that a log behind it still opens. An index entry counts offsets in 31 bits, but compacted logs hold
/// batches further from their segment's base than that.
pub const HOLE_MAX: i64 = 1 << 39;
