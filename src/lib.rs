//! edgelog
pub mod clock;
mod codec;
mod error;
pub mod inspect;
mod log;
mod segment;
pub mod storage;
mod store;
mod sync;

pub use codec::CodecError;
pub use edgelog_core as core;
pub use edgelog_core::{
    CompressionType, Header, LeaderEpoch, LogConfig, Offset, OffsetAndEpoch, Record, StoreConfig, TimestampMs,
};
pub use error::{DamageKind, Error, Result};
pub use log::{
    AppendInfo, Batch, BatchBuilder, CutTail, Durability, Log, LogOffsets, LogRecovery, LostRange, NewRecord,
    OffsetSpec, ReadUpTo, Reader, ReaderOptions, Records, TopicPartition,
};
pub use store::{NewTopic, PARTITIONS_MAX, RecoveryReport, Store, StoreOptions, Topic};
