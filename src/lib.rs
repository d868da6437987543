//! Kafka's log as a library, for devices whose power goes without warning.
//!
//! A program opens a data directory, appends records to topics and reads them back by offset or by time. No
//! broker runs, nothing listens on a port, and the files are Apache Kafka's own: record batches of format 2
//! with their offset and time indexes. An append returns when its record is on the disk, unless a weaker
//! level was chosen by name.
//!
//! # Example
//!
//! ```
//! use edgelog::{NewRecord, NewTopic, OffsetSpec, Store};
//!
//! fn main() -> edgelog::Result<()> {
//! #   let dir = std::env::temp_dir().join(format!("edgelog-doc-test-{}", std::process::id()));
//! #   std::fs::create_dir_all(&dir).expect("a temporary directory");
//! #   std::env::set_current_dir(&dir).expect("just created");
//!     let store = Store::open("./edgelog-data")?; // after a crash: recovers, and says what it found
//!     println!("{}", store.recovery_report());
//!     store.create_topic_if_absent(&NewTopic::new("boiler"))?;
//!     let log = store.log("boiler", 0)?;
//!
//!     let record = NewRecord::value(b"21.5 C").with_key(b"flow");
//!     let info = log.append(record)?; // on the disk when this returns
//!     println!("appended at offset {}", info.base_offset);
//!
//!     let mut reader = log.reader(OffsetSpec::Earliest)?;
//!     while let Some(batch) = reader.next_batch()? {
//!         for record in batch.records()? {
//!             let record = record?;
//!             println!("{}: {:?}", record.offset, record.value.map(String::from_utf8_lossy));
//!         }
//!     }
//!     store.close()?;
//! #   std::fs::remove_dir_all(&dir).expect("nothing else uses it");
//!     Ok(())
//! }
//! ```
//!
//! To append many records at once, fill a [`BatchBuilder`] from [`Log::batch`]. To wait for what comes, use
//! [`Reader::next_batch_timeout`], [`Reader::follow`] or [`Reader::poll_descriptor`]. To read what another
//! process writes, open the directory with [`Store::attach`]. To delete from the front,
//! [`Log::delete_records_before`]; to take records back from the end, [`Log::truncate_to`].
//!
//! # The four offsets
//!
//! `log_start_offset <= high_watermark <= log_end_offset`, and `recovery_point <= log_end_offset`; see
//! [`LogOffsets`]. A reader stops at the high watermark: what was acknowledged to its appender. One made by
//! [`Log::reader_with`] may read to the log end, or stop at the recovery point, below which everything is
//! durable ([`ReadUpTo`]).
//!
//! An offset alone does not name a record for good: where a crash truncates records that were not durable,
//! their offsets are given out again. So every append answers a *leader epoch* with the offset, and a
//! position kept as both ([`OffsetAndEpoch`]) is answered [`Error::FencedLeaderEpoch`] when its history was
//! truncated, never with other data.
//!
//! # Durability
//!
//! | level | the append returns | `kill -9` takes | a power cut takes |
//! |---|---|---|---|
//! | [`Sync`](Durability::Sync), the default | after the flush; concurrent appenders share one | nothing | nothing |
//! | [`Interval`](Durability::Interval) | from the page cache; flushed in `flush.ms` | nothing | one interval |
//! | [`Os`](Durability::Os) | from the page cache | nothing | what the kernel had not written yet |
//!
//! The log's level follows from its keys: `flush.messages=1` (the default) is `Sync`; above that, `flush.ms`
//! makes it `Interval`, and without `flush.ms` it is `Os`. [`Log::append_with`] chooses for one append. After
//! a failed flush the log is read-only until the store is opened again, and reopening does not trust what the
//! page cache shows: see [`Store::open`] and [`RecoveryReport`].
//!
//! # Threads and processes
//!
//! A [`Store`] and a [`Log`] are used from any thread. A `Log` is cheap to clone; threads share a `Store` in an `Arc`:
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//! use std::thread;
//!
//! use edgelog::{NewRecord, NewTopic, Store};
//!
//! fn four_writers(dir: &Path) -> edgelog::Result<()> {
//!     let store = Arc::new(Store::open(dir)?);
//!     store.create_topic_if_absent(&NewTopic::new("ticks"))?;
//!     let log = store.log("ticks", 0)?;
//!
//!     let append = || {
//!         let log = log.clone();
//!         thread::spawn(move || log.append(NewRecord::value(b"tick")))
//!     };
//!     let writers = [append(), append(), append(), append()];
//!     let topics = thread::spawn({
//!         let store = Arc::clone(&store);
//!         move || store.topics()
//!     });
//!     for writer in writers {
//!         writer.join().expect("it does not panic")?;
//!     }
//!     println!("{} records in {} topic", log.offsets().log_end_offset, topics.join().expect("nor this")?.len());
//!     store.close() // for all of them: an append answers `Error::Closed` from here on
//! }
//! # fn main() -> edgelog::Result<()> {
//! #     let dir = std::env::temp_dir().join(format!("edgelog-doc-threads-{}", std::process::id()));
//! #     four_writers(&dir)?;
//! #     assert_eq!(Store::open(&dir)?.log("ticks", 0)?.offsets().log_end_offset, 4);
//! #     std::fs::remove_dir_all(&dir).expect("nothing else uses it");
//! #     Ok(())
//! # }
//! ```
//!
//! Appends to one log are made one after the other, and readers wait for no append. Housekeeping (interval flushes,
//! retention, room ahead of writers, the checkpoint) is one thread for the whole store, or with
//! `edgelog.housekeeping=tick` the host's own calls of [`Store::tick`]. One process writes a data directory; any number
//! attach and read. In the child of a `fork`, handles answer [`Error::Forked`]. A `tracing` subscriber may call the
//! store and the log that an event is about: events are emitted when their thread holds no lock of the engine.
//!
//! # Features
//!
//! | feature | buys | costs |
//! |---|---|---|
//! | `snappy` (default) | `compression.type=snappy`, and reading snappy batches | the `snap` crate, pure Rust |
//! | `lz4` | reading lz4 batches, and writing them to clusters | the `lz4_flex` crate, pure Rust |
//! | `zstd` | reading zstd batches | no crate: a decoder of our own, which only reads |
//! | `zstd-write` | writing zstd batches to clusters, and `zstd` | the `zstd-safe` crate, which builds the C library |
//! | `gzip` | reading gzip batches, and writing them to clusters | the `flate2` crate, pure Rust |
//! | `async` | the handles of a [`clients::Producer`] are futures | no crate, no runtime |
//! | `bridge` | sending logs to Kafka: the module `bridge` | `kafka-protocol`, `rustls`, `ring` (a C compiler) |
//!
//! Features only add. Without any, batches are written and read uncompressed, and a compressed batch still
//! can be read as bytes; its records answer [`Error::Compression`] with the feature's name. The format itself,
//! without files or threads and without `std`, is the package `edgelog-core`, here as [`edgelog_core`].
//!
//! # Guarantees
//!
//! The README numbers them, each with what it rests on, and lists the limitations below them.
//! `docs/crash_safety.md` walks through every operation: its commit point, and what the next open does after
//! a cut anywhere. `docs/configuration.md` has every key; `docs/kafka_compatibility.md` says what is the
//! same as in Kafka, what differs and what is absent.

// The simulated disk is a part of the library's own tests, too.
#[cfg(test)]
extern crate self as edgelog;

#[cfg(feature = "bridge")]
pub mod bridge;
#[cfg(not(edgelog_canary))]
mod canary;
#[cfg(edgelog_canary)]
#[doc(hidden)]
pub mod canary;
pub mod clients;
pub mod clock;
mod codec;
mod error;
pub mod escape;
mod events;
pub mod inspect;
#[cfg(feature = "bridge")]
mod kafka;
mod log;
mod segment;
mod sorted;
pub mod storage;
mod store;
mod sync;
#[cfg(test)]
mod testing;
mod zeros;

pub use codec::CodecError;
pub use edgelog_core;
pub use edgelog_core::config::IsolationLevel;
pub use edgelog_core::{
    CompressionType, Header, LeaderEpoch, LogConfig, Offset, OffsetAndEpoch, Record, StoreConfig, TimestampMs,
};
pub use error::{DamageKind, Error, Result};
pub use log::{
    AppendInfo, Batch, BatchBuilder, CutTail, Durability, Log, LogOffsets, LogRecovery, LostRange, NewRecord,
    OffsetSpec, ReadUpTo, Reader, ReaderOptions, Records, TopicPartition,
};
pub use store::{
    NewTopic, PARTITIONS_MAX, RecoveryReport, RetentionHold, RetentionHolds, Store, StoreOptions, Topic, topic_matches,
};
