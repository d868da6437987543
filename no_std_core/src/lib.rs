//! Bytes and decisions of edgelog: Kafka's record batches, their indexes, and the rules by which a log rolls,
//! recovers and forgets.
//!
//! Everything here is a function of its arguments: no file, no clock, no thread, no allocation (but for
//! [`EpochTable`]), and no `unsafe`. So the same code runs in a microcontroller's flash driver, in the engine
//! of the `edgelog` package, and under a fuzzer.
//!
//! # From records to bytes and back
//!
//! ```
//! use edgelog_core::{Header, LeaderEpoch, Offset, RecordBatch, TimestampMs, encode_one, stamp_base};
//!
//! let mut buffer = [0; 256];
//! let headers = [Header::new("site", b"north")];
//! let size = encode_one(&mut buffer, TimestampMs(1_700_000_000_000), Some(b"pump-7"), Some(b"3.2 bar"), &headers)?;
//! // The log that appends the batch sets both fields; they are outside the checksum.
//! stamp_base(&mut buffer, Offset(42), LeaderEpoch(0));
//!
//! let batch = RecordBatch::parse(&buffer)?;
//! batch.verify_crc()?;
//! assert_eq!((batch.size(), batch.base_offset()), (size, Offset(42)));
//! for record in batch.records()? {
//!     let record = record?;
//!     assert_eq!((record.offset, record.value), (Offset(42), Some(&b"3.2 bar"[..])));
//! }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # What bytes may do
//!
//! Bytes come from disks and networks. No sequence of them panics, loops without end or makes anything
//! allocate: every function that takes bytes answers with a value or with an error that carries what it
//! expected and what it found. Assertions are for our own mistakes.
//!
//! # Features
//!
//! The ladder is core, `alloc`, `std`; none is on by default.
//! - *(none)*: everything but `EpochTable`. Checksums by a table of 8 KiB.
//! - `alloc`: [`EpochTable`], the one type that owns a list.
//! - `std` (implies `alloc`): checksums by the processor's own instructions, found out at run time. Nothing
//!   else changes.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

mod candidate;
mod compression;
pub mod config;
mod continuation;
mod crc32c;
mod error;
mod leader_epoch;
pub mod limits;
mod log_id;
mod offset_index;
mod old_message;
mod out_of_order;
mod partitioner;
mod record;
mod record_batch;
mod record_batch_builder;
mod resync;
mod retention;
mod roll;
mod segment_indexer;
mod segment_scan;
mod time_index;
mod torn;
mod units;
pub mod varint;

pub use candidate::{Candidate, Plausible, Resync, SegmentBytes, checksum, displaced_batch};
pub use compression::{CompressionType, ParseCompressionTypeError};
pub use config::{ConfigError, LogConfig, StoreConfig};
pub use continuation::{Continuation, Judgement, Standing};
pub use crc32c::{crc32c, crc32c_append, crc32c_combine};
pub use error::{DecodeError, EncodeError, EpochError, IndexError};
pub use leader_epoch::{
    EpochEntry, EpochTableView, LEADER_EPOCH_MAX, LEADER_EPOCH_RISE_MAX, LearnedEpoch, judge_learned_epoch,
};
#[cfg(feature = "alloc")]
pub use leader_epoch::{EpochLearner, EpochTable};
pub use log_id::LogId;
pub use offset_index::{OFFSET_INDEX_ENTRY_LEN, OffsetIndex, OffsetIndexEntry};
pub use old_message::OldMessage;
pub use out_of_order::is_out_of_order;
pub use partitioner::partition_for_key;
pub use record::{Header, Headers, RECORD_LEN_MIN, Record};
pub use record_batch::{
    BATCH_LENGTH_MAX, BATCH_LENGTH_MIN, CRC_START, HEADER_LEN, LOG_OVERHEAD, MAGIC, RecordBatch, Records, RecordsMark,
    TimestampType, empty_batch, restamped_crc, stamp_base, stamp_compressed, stamp_max_timestamp,
};
pub use record_batch_builder::{BATCH_SIZE_MAX, RecordBatchBuilder, encode_one};
pub use resync::{Effort, batch_at, find_batch, resync};
pub use retention::{Expired, RetentionParams, RetentionReason, SealedSegment, is_dated};
pub use roll::{RollParams, RollReason};
pub use segment_indexer::SegmentIndexer;
pub use segment_scan::{ScanRules, ScanStep, follows, scan_step};
pub use time_index::{TIME_INDEX_ENTRY_LEN, TimeIndex, TimeIndexEntry};
pub use torn::written_whole;
pub use units::{
    LeaderEpoch, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, OFFSET_MAX, Offset,
    OffsetAndEpoch, Position, TimestampMs, first_nonzero,
};
