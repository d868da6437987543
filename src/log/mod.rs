//! Floor 3, one topic-partition: append, read, flush, recovery, retention and truncation.
//!
//! # Who may do what at the same time
//!
//! 1. One appender at a time, under `appender`; the bytes it writes lie behind every published end.
//! 2. Readers take no lock but a short one on the list of segments. They see a batch only after its segment's
//!    length and then an end offset were published, each with Release.
//! 3. One flush at a time, beside the appender, never under its lock.
//! 4. Bytes below a published end never change. Truncation swaps files and counts up `generation`.
//! 5. Locks are taken in this order: flush state, appender, segments, a segment's indexes. The appender's
//!    lock is never held while waiting for a flush.
//! 6. Events are emitted under none of these, nor while a flush is under way: see `events`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use edgelog_core::config::IsolationLevel;
use edgelog_core::{CompressionType, EpochTable, LogConfig, LogId, Offset, Position, RecordBatch};

use crate::canary::{Bug, bug};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::events;
use crate::segment::{BufferPool, Segment, file_names};
use crate::storage::{ForkGuard, Storage, StorageLock};
use crate::sync::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, RwLock, Wake};

mod append;
mod attach;
mod batch;
mod batch_builder;
mod beside;
mod close;
mod encode;
mod flush;
mod lookup;
mod old_format;
mod preallocate;
mod read;
mod recovery;
mod retention;
mod saved_log;
mod signal;
mod transactions;
mod truncate;
mod types;

pub use batch::{Batch, Records};
pub use batch_builder::BatchBuilder;
pub use read::{LostRange, Reader, ReaderOptions};
pub use recovery::{CutTail, LogRecovery};
pub use types::{AppendInfo, Durability, LogOffsets, NewRecord, OffsetSpec, ReadUpTo, TopicPartition};

pub(crate) use append::Appender;
pub(crate) use attach::{Attachment, attach};
#[cfg(feature = "bridge")]
pub(crate) use beside::FailedFlush;
pub(crate) use recovery::{OpenLog, open};
pub(crate) use saved_log::SavedLog;
pub(crate) use types::{check_topic_name, offsets_in_words};

/// What a log asks of the store that it lives in.
pub(crate) trait LogHost: Send + Sync + fmt::Debug {
    /// Returns once the checkpoint says that the store is not cleanly closed: the first byte of any log may
    /// change.
    fn allow_writing(&self) -> Result<()>;

    /// Takes the clean mark off the checkpoint, which goes on saying what it said otherwise; durable on return.
    fn unmark(&self) -> Result<()>;

    /// What the checkpoint says of a log now: another process writes it.
    fn read_saved(&self, name: &TopicPartition) -> Result<Option<SavedLog>>;

    /// Attached: whether a process of this machine, in this boot of it, has the store open for writing, and has told of
    /// every log that it could not write or flush.
    fn has_healthy_writer(&self) -> Result<bool>;

    /// Attached: makes the checkpoint and the names in the data directory durable as they are now.
    fn flush_beside(&self) -> Result<()>;

    /// Takes back that attached processes may rely on this one: one of its logs has failed, and that could not be told.
    fn distrust(&self);

    /// The first offset of a log that a holder still needs: from there on, nothing is deleted for its age. `None` where
    /// nobody needs any.
    fn held_from(&self, name: &TopicPartition, id: LogId) -> Result<Option<Offset>>;

    /// Writes the checkpoint with every log's epochs, start and recovery point as they are now; durable on
    /// return.
    fn checkpoint(&self) -> Result<()>;

    /// There is something to prepare, seal or flush.
    fn wake_housekeeping(&self);
}

/// How a log came to be, which decides what a valid continuation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Origin {
    /// Written here: base offsets are contiguous.
    Own = 0,
    /// Brought in as files (from a broker, or a checkpoint was lost): base offsets need only rise.
    Imported = 1,
}

impl Origin {
    /// Whether a log of this origin can hold such a batch. One that was written here has a record for each of its
    /// offsets, or none where repair filled a gap, and is of no transaction.
    pub(crate) fn can_hold(self, batch: &RecordBatch<'_>) -> bool {
        self == Origin::Imported || (batch.is_whole() && !batch.is_control() && !batch.is_transactional())
    }
}

/// Whether the log in `dir` was begun here, by a file that no copy of a broker's partition has.
pub(crate) fn is_begun_here(storage: &dyn Storage, dir: &str) -> bool {
    storage.metadata(&format!("{dir}/{}", file_names::OWN_FILE)).is_ok()
}

/// A log's position that is durable: `offset` is the end of what was flushed, at `position` of the segment
/// `base_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DurablePoint {
    pub(crate) offset: Offset,
    pub(crate) base_offset: Offset,
    pub(crate) position: Position,
}

/// States of a log; anything but `WRITABLE` sends an append onto its slow path.
mod state {
    pub(super) const WRITABLE: u8 = 0;
    /// Something must be done before the next append: the store's mark, or a tail that a failed write left
    /// behind.
    pub(super) const ATTEND: u8 = 1;
    /// A write or flush failed: read-only until reopened.
    pub(super) const FAILED: u8 = 2;
    pub(super) const CLOSED: u8 = 3;
    pub(super) const ATTACHED: u8 = 4;
}

/// What an append needs of the configuration, without a lock.
#[derive(Debug, Default)]
struct HotConfig {
    compression: AtomicU8,
    batch_bytes_max: AtomicU32,
    flush_messages: AtomicI64,
    flush_ms: AtomicI64,
    check_crcs: AtomicBool,
}

/// One log, shared by all its handles.
#[derive(Debug)]
pub(crate) struct LogShared {
    pub(crate) name: TopicPartition,
    pub(crate) dir: Arc<str>,
    pub(crate) id: [u8; 16],
    origin: AtomicU8,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    host: Weak<dyn LogHost>,
    fork: ForkGuard,
    pool: Arc<BufferPool>,
    /// `edgelog.decompressed.bytes.max`.
    decompressed_bytes_max: usize,
    isolation_level: IsolationLevel,
    /// Known from the first reader of committed records on.
    transactions: Mutex<transactions::Transactions>,
    config: RwLock<Arc<LogConfig>>,
    hot: HotConfig,

    state: AtomicU8,
    /// Why the log is `FAILED`; of an attached one, why what it shows cannot be made durable from here.
    failure: Mutex<Option<String>>,
    /// Up where the log has failed: attached processes see it.
    failure_flag: Mutex<Option<Box<dyn StorageLock>>>,
    appender: Mutex<Option<Appender>>,
    /// Held while room behind the appender's is written to; taken before `appender`, never after it.
    preparing: Mutex<()>,
    attachment: Option<Mutex<Attachment>>,

    segments: RwLock<Vec<Arc<Segment>>>,
    epochs: RwLock<EpochTable>,
    log_start_offset: AtomicI64,
    high_watermark: AtomicI64,
    log_end_offset: AtomicI64,
    recovery_point: AtomicI64,
    /// Counts truncations: whoever remembers a segment looks again when it changed.
    generation: AtomicU64,
    wake: Wake,
    /// Sealed segments whose indexes were loaded, oldest first.
    loaded: Mutex<VecDeque<Arc<Segment>>>,

    durable: Mutex<DurablePoint>,
    flush_state: Mutex<flush::FlushState>,
    flushed: Condvar,
    /// When the oldest unflushed `Interval` append was made; 0 where there is none.
    interval_since: AtomicI64,
    /// `Sync` appends since the last flush began.
    sync_appends: AtomicU32,
    /// A name in the partition directory is new and not yet synced.
    names_dirty: AtomicBool,
}

/// A handle of one topic-partition's log. Clones are handles of the same log.
///
/// # Concurrency
/// Every call may come from any thread. Appenders take turns; readers never wait for them.
#[derive(Debug, Clone)]
pub struct Log {
    pub(crate) shared: Arc<LogShared>,
}

impl Log {
    /// The topic and partition.
    pub fn name(&self) -> &TopicPartition {
        &self.shared.name
    }

    /// The log's identity: made with the log, never changed, told from every other log's by chance (128
    /// random bits).
    pub fn id(&self) -> [u8; 16] {
        self.shared.id
    }

    /// The four offsets as they are now.
    pub fn offsets(&self) -> LogOffsets {
        self.shared.offsets()
    }

    /// The leader epoch that the next record gets.
    pub fn leader_epoch(&self) -> edgelog_core::LeaderEpoch {
        self.shared.epochs.read().view().latest().map_or(0, |entry| entry.epoch)
    }

    /// Which epoch began at which offset, oldest first.
    pub fn leader_epochs(&self) -> Vec<edgelog_core::EpochEntry> {
        self.shared.epochs.read().view().entries().to_vec()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.shared.config.read())
    }

    /// Whether another process may be writing the log, and this one reads.
    #[cfg(feature = "bridge")]
    pub(crate) fn is_attached(&self) -> bool {
        self.shared.attachment.is_some()
    }

    /// Why the log is read-only until the store is opened again, where a write or flush of it failed.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// The durability of an append that names none, as `flush.messages` and `flush.ms` ask for.
    #[inline]
    pub fn default_durability(&self) -> Durability {
        self.shared.default_durability()
    }

    /// How many segments the log has, and their bytes in all (whole batches, without room reserved ahead).
    ///
    /// # Errors
    /// [`Error::Storage`] where a segment's file cannot be looked at.
    pub fn size(&self) -> Result<(usize, u64)> {
        self.shared.size()
    }
}

impl LogShared {
    /// The four offsets, in the order that [`LogOffsets`] promises.
    ///
    /// Each rises only when those above it have risen, so they are read lowest first. Only a truncation lowers them:
    /// the recovery point and the start first, then the others while it holds the list of segments.
    fn offsets(&self) -> LogOffsets {
        let _no_truncation = self.segments.read();
        let mut offsets = LogOffsets {
            log_start_offset: self.log_start_offset.load(Ordering::Acquire),
            recovery_point: self.recovery_point.load(Ordering::Acquire),
            high_watermark: self.high_watermark.load(Ordering::Acquire),
            log_end_offset: self.log_end_offset.load(Ordering::Acquire),
        };
        if self.attachment.is_some() {
            // The writer's checkpoint may be ahead of what this process has validated, or validates again.
            offsets.high_watermark = offsets.high_watermark.min(offsets.log_end_offset);
            offsets.log_start_offset = offsets.log_start_offset.min(offsets.high_watermark);
            offsets.recovery_point = offsets.recovery_point.min(offsets.log_end_offset);
        }
        debug_assert!(
            offsets.log_start_offset <= offsets.high_watermark
                && offsets.high_watermark <= offsets.log_end_offset
                && offsets.recovery_point <= offsets.log_end_offset,
            "{}: {offsets:?}",
            self.name
        );
        offsets
    }

    pub(crate) fn origin(&self) -> Origin {
        if self.origin.load(Ordering::Relaxed) == Origin::Own as u8 { Origin::Own } else { Origin::Imported }
    }

    pub(crate) fn set_config(&self, config: LogConfig) {
        self.hot.compression.store(config.compression_type.id(), Ordering::Relaxed);
        self.hot.batch_bytes_max.store(config.max_message_bytes, Ordering::Relaxed);
        self.hot.flush_messages.store(config.flush_messages, Ordering::Relaxed);
        self.hot.flush_ms.store(config.flush_ms, Ordering::Relaxed);
        let config = Arc::new(config);
        *self.config.write() = Arc::clone(&config);
        if let Some(appender) = self.appender.lock().as_mut() {
            appender.writer.set_config(config);
        }
    }

    fn compression(&self) -> CompressionType {
        CompressionType::from_id(self.hot.compression.load(Ordering::Relaxed)).unwrap_or(CompressionType::None)
    }

    /// The durability that the log's keys ask for.
    #[inline]
    pub(crate) fn default_durability(&self) -> Durability {
        if self.hot.flush_messages.load(Ordering::Relaxed) == 1 {
            Durability::Sync
        } else if self.hot.flush_ms.load(Ordering::Relaxed) != i64::MAX {
            Durability::Interval
        } else {
            Durability::Os
        }
    }

    /// Milliseconds that an unflushed `Interval` append may wait.
    pub(crate) fn flush_interval_ms(&self) -> i64 {
        const DEFAULT_MS: i64 = 1000;
        match self.hot.flush_ms.load(Ordering::Relaxed) {
            i64::MAX => DEFAULT_MS,
            ms => ms,
        }
    }

    pub(crate) fn size(&self) -> Result<(usize, u64)> {
        let segments = self.segments.read().clone();
        let mut bytes = 0;
        for segment in &segments {
            match segment.len() {
                Ok(len) => bytes += u64::from(len),
                // Retention in another process took it between the listing and now.
                Err(error) if self.attachment.is_some() && is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((segments.len(), bytes))
    }

    /// The segment that holds `offset`: the last one whose base is at or below it.
    fn segment_for(&self, offset: Offset) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let behind = segments.partition_point(|segment| segment.base_offset <= offset);
        segments.get(behind.saturating_sub(1)).map(Arc::clone)
    }

    /// The segment behind the one that begins at `base_offset`.
    fn segment_after(&self, base_offset: Offset) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let behind = segments.partition_point(|segment| segment.base_offset <= base_offset);
        segments.get(behind).map(Arc::clone)
    }

    /// Where the segment behind the one that begins at `base_offset` begins; `Offset::MAX` where there is none.
    fn base_after(&self, base_offset: Offset) -> Offset {
        let segments = self.segments.read();
        let behind = segments.partition_point(|segment| segment.base_offset <= base_offset);
        segments.get(behind).map_or(Offset::MAX, |segment| segment.base_offset)
    }

    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.fork.forked() {
            return Err(Error::Forked);
        }
        match self.state.load(Ordering::Acquire) {
            state::CLOSED => Err(Error::Closed),
            _ => Ok(()),
        }
    }

    /// Makes the log read-only for good: a write or flush failed, and what is on the medium is not known any
    /// more. A caller that holds a lock has taken a hold on its events before.
    pub(crate) fn fail(&self, reason: &str) {
        self.tell_attached();
        let is_first = {
            let mut failure = self.failure.lock();
            let is_first = failure.is_none();
            if is_first {
                *failure = Some(reason.to_owned());
            }
            self.state.store(state::FAILED, Ordering::Release);
            is_first
        };
        self.wake.wake_all();
        if is_first {
            let (log, reason) = (self.name.clone(), reason.to_owned());
            events::emit(move || tracing::error!(%log, reason, "the log is read-only until the store is opened again"));
        }
    }

    /// Raises the log's flag: what was written and not flushed may never reach the medium, although a flush by somebody
    /// else would succeed. Where that cannot be told of this log, nothing of the store is vouched for any more.
    fn tell_attached(&self) {
        if bug(Bug::KeepAFailureToOneself) {
            return;
        }
        let mut flag = self.failure_flag.lock();
        if flag.is_none() {
            match self.storage.raise_flag(&self.dir) {
                Ok(raised) => *flag = Some(raised),
                Err(_) => {
                    if let Some(host) = self.host.upgrade() {
                        host.distrust();
                    }
                }
            }
        }
    }

    /// The store is closed: the next open recovers the log.
    pub(crate) fn lower_flag(&self) {
        *self.failure_flag.lock() = None;
    }

    fn previous_failure(&self) -> Error {
        Error::PreviousIo { log: self.name.to_string(), reason: self.failure.lock().clone().unwrap_or_default() }
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    fn host(&self) -> Result<Arc<dyn LogHost>> {
        self.host.upgrade().ok_or(Error::Closed)
    }

    /// What the checkpoint keeps of this log.
    pub(crate) fn durable_state(&self) -> (DurablePoint, Offset, Vec<edgelog_core::EpochEntry>) {
        // The start first: it never passes what is durable, and must not seem to.
        let start = self.log_start_offset.load(Ordering::Acquire);
        let durable = *self.durable.lock();
        (durable, start, self.epochs.read().view().entries().to_vec())
    }
}

/// Whether the error says that a file is not there.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Storage { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}
