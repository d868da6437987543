//! Floor 3, one topic-partition: append, read, flush, recovery, retention and truncation.
//!
//! # Who may do what at the same time
//!
//! 1. One appender at a time, under `appender`; the bytes it writes lie behind every published end.
//! 2. Readers take no lock but a short one on the list of segments. They see a batch only after its segment's
//!    length and then an end offset were published, each with Release.
//! 3. One flush at a time, in parallel with the appender, never under its lock.
//! 4. Bytes below a published end never change. Truncation swaps files and counts up `generation`.
//! 5. Locks are taken in this order: flush state, appender, segments, a segment's indexes. The appender's
//!    lock is never held while waiting for a flush.
//! 6. Events are emitted under none of these, nor while a flush is under way: see `events`.

mod append;
mod atomic_offset;
mod attach;
mod attached_flush;
mod attachment;
mod batch;
mod batch_builder;
mod close;
mod encode;
mod flush;
mod handle;
mod host;
mod lookup;
mod lost_range;
mod names;
mod old_format;
mod open_log;
mod origin;
mod passed_over;
mod preallocate;
mod proof;
mod read;
mod readable;
mod recovery;
mod retention;
mod role;
mod saved_log;
mod sequences;
mod shared;
mod signal;
mod stable;
mod swap;
mod transactions;
mod truncate;
mod types;

pub use batch::{Batch, Records};
pub use batch_builder::BatchBuilder;
pub use handle::Log;
pub use lost_range::LostRange;
pub use read::Reader;
pub use recovery::{CutTail, LogRecovery};
pub use types::{AppendInfo, Durability, LogOffsets, NewRecord, OffsetSpec, ReadUpTo, ReaderOptions, TopicPartition};

pub(crate) use attach::attach;
pub(crate) use attachment::FailedFlush;
pub(crate) use host::LogHost;
pub(crate) use names::wrong_names;
pub(crate) use open_log::OpenLog;
pub(crate) use origin::{ORIGIN_CREATED, ORIGIN_KEY, Origin, is_written_here};
pub(crate) use proof::{Believed, believed};
pub(crate) use recovery::open;
pub(crate) use saved_log::{DurablePoint, SavedLog};
pub(crate) use sequences::{NUMBER_MAX, Numbered, NumberedBatch, SEQUENCE_MASK};
pub(crate) use shared::{LogShared, is_unreadable};
pub(crate) use swap::fits_in;
pub(crate) use types::{check_topic_name, offsets_in_words};
