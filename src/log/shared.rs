//! One log, as all its handles share it: what readers need, and what this process is to it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use edgelog_core::config::IsolationLevel;
use edgelog_core::{CompressionType, Continuation, EpochTable, LogConfig, LogId, Offset, Position};

use super::atomic_offset::AtomicOffset;
use super::host::LogHost;
use super::open_log::OpenLog;
use super::origin::Origin;
use super::role::{Attached, Role, Writer};
use super::saved_log::SavedLog;
use super::transactions::Transactions;
use super::types::{Durability, LogOffsets, TopicPartition};
use crate::canary::{Bug, bug};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::events;
use crate::segment::{BufferPool, Misnamed, Segment, SegmentOptions, SegmentWriter};
use crate::storage::{Access, ForkGuard, Storage, StorageLock};
use crate::sync::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Mutex, Ordering, RwLock, Wake};

/// States of a log; anything but `WRITABLE` sends an append onto its slow path. An attached log is `WRITABLE` or
/// `CLOSED`: it is its role that refuses appends.
pub(super) mod state {
    pub(in crate::log) const WRITABLE: u8 = 0;
    /// Something must be done before the next append: the store's mark, or a tail that a failed write left
    /// behind.
    pub(in crate::log) const ATTEND: u8 = 1;
    /// A write or flush failed: read-only until reopened.
    pub(in crate::log) const FAILED: u8 = 2;
    pub(in crate::log) const CLOSED: u8 = 3;
}

/// What an append needs of the configuration, without a lock.
#[derive(Debug, Default)]
pub(super) struct HotConfig {
    pub(super) compression: AtomicU8,
    pub(super) batch_bytes_max: AtomicU32,
    pub(super) flush_messages: AtomicI64,
    pub(super) flush_ms: AtomicI64,
    pub(super) check_crcs: AtomicBool,
}

/// What of a log is not durable yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unflushed {
    /// From that of the recovery point on, the active one included.
    pub(super) segments: usize,
    /// Of batches.
    pub(super) bytes: u64,
    /// Where the first of them ends, if it is a sealed one.
    pub(super) first_end: Option<Offset>,
}

/// One log, shared by all its handles.
pub(crate) struct LogShared {
    pub(crate) name: TopicPartition,
    pub(crate) dir: Arc<str>,
    pub(crate) id: LogId,
    pub(super) origin: AtomicU8,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) host: Weak<dyn LogHost>,
    pub(super) fork: ForkGuard,
    pub(super) pool: Arc<BufferPool>,
    /// `edgelog.decompressed.bytes.max`.
    pub(super) decompressed_bytes_max: usize,
    /// `edgelog.unflushed.bytes.max`.
    pub(super) unflushed_bytes_max: u64,
    pub(super) isolation_level: IsolationLevel,
    /// Known from the first reader of committed records on.
    pub(super) transactions: Mutex<Transactions>,
    /// Held by who reads or writes the file of named producers' sequences.
    pub(super) sequences: Mutex<()>,
    pub(super) config: RwLock<Arc<LogConfig>>,
    pub(super) hot: HotConfig,

    pub(super) state: AtomicU8,
    /// Why the log is `FAILED`; of an attached one, why what it shows cannot be made durable from here.
    pub(super) failure: Mutex<Option<String>>,
    /// Up where the log has failed, for attached processes to see: the writer's on the directory, an attached process's
    /// on the files that it could not flush.
    pub(super) failure_flags: Mutex<Vec<Box<dyn StorageLock>>>,
    /// The lock of the log's directory, where that stands elsewhere, behind a link.
    pub(super) directory: Mutex<Option<Box<dyn StorageLock>>>,
    pub(super) role: Role,

    pub(super) segments: RwLock<Vec<Arc<Segment>>>,
    pub(super) epochs: RwLock<EpochTable>,
    pub(super) log_start_offset: AtomicOffset,
    pub(super) high_watermark: AtomicOffset,
    pub(super) log_end_offset: AtomicOffset,
    pub(super) recovery_point: AtomicOffset,
    /// See [`Continuation::unbroken_from`]; `Offset::MAX` where it is not known.
    pub(super) unbroken_from: AtomicOffset,
    /// Counts truncations: code that keeps a segment looks again when it changed.
    pub(super) generation: AtomicU64,
    pub(super) wake: Wake,
    /// Files whose names are wrong, as an attached process knows them.
    pub(super) misnamed: RwLock<Vec<Misnamed>>,
    /// The names of the files were held against their batches, since a reader met damage.
    pub(super) are_names_checked: AtomicBool,
    /// Sealed segments whose indexes were loaded, oldest first.
    pub(super) loaded: Mutex<VecDeque<Arc<Segment>>>,
}

/// By its name: all segments and indexes would say no more, and the code that prints them counts in the C library.
impl fmt::Debug for LogShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogShared").field(&self.name).finish()
    }
}

impl LogShared {
    pub(super) fn new(params: &OpenLog, saved: Option<&SavedLog>, origin: Origin, role: Role) -> LogShared {
        let epochs = saved.map(|s| s.epochs.clone()).unwrap_or_default();
        // A table that contradicts itself cannot have passed the checkpoint's CRC; a fresh one is built from the
        // batches.
        let epochs = EpochTable::from_entries(epochs).unwrap_or_default();
        let state = match role {
            Role::Writer(_) => state::ATTEND,
            Role::Attached(_) => state::WRITABLE,
        };
        let log = LogShared {
            name: params.name.clone(),
            dir: params.name.to_string().into(),
            id: saved.map_or(params.new_id, |s| s.id),
            origin: AtomicU8::new(origin as u8),
            storage: Arc::clone(&params.storage),
            clock: Arc::clone(&params.clock),
            host: params.host.clone(),
            fork: ForkGuard::here(),
            pool: Arc::clone(&params.pool),
            decompressed_bytes_max: params.decompressed_bytes_max as usize,
            unflushed_bytes_max: params.unflushed_bytes_max,
            isolation_level: params.isolation_level,
            transactions: Mutex::default(),
            sequences: Mutex::default(),
            config: RwLock::new(Arc::new(LogConfig::default())),
            hot: HotConfig::default(),
            state: AtomicU8::new(state),
            failure: Mutex::new(None),
            failure_flags: Mutex::default(),
            directory: Mutex::default(),
            role,
            segments: RwLock::new(Vec::new()),
            epochs: RwLock::new(epochs),
            log_start_offset: AtomicOffset::new(Offset(0)),
            high_watermark: AtomicOffset::new(Offset(0)),
            log_end_offset: AtomicOffset::new(Offset(0)),
            recovery_point: AtomicOffset::new(Offset(0)),
            unbroken_from: AtomicOffset::new(Offset::MAX),
            generation: AtomicU64::new(0),
            wake: Wake::default(),
            misnamed: RwLock::default(),
            are_names_checked: AtomicBool::new(false),
            loaded: Mutex::default(),
        };
        log.hot.check_crcs.store(params.check_crcs, Ordering::Relaxed);
        log.set_config(params.config);
        log
    }

    pub(super) fn segment_options(&self) -> SegmentOptions {
        let access = if self.is_attached() { Access::Read } else { Access::Write };
        SegmentOptions::new(&self.config.read(), access, self.origin() == Origin::Own)
    }

    /// A writer that goes on at `position` of `segment`, and the offset behind the last batch before it; `None` where
    /// no batch ends there.
    pub(super) fn resume_writer(
        &self,
        segment: &Arc<Segment>,
        position: Position,
    ) -> Result<(SegmentWriter, Option<Offset>)> {
        let config = Arc::clone(&self.config.read());
        SegmentWriter::resume(segment, position, config, self.clock.now(), &self.pool)
    }

    /// The four offsets, in the order that [`LogOffsets`] promises.
    ///
    /// Each rises only when those above it have risen, so they are read lowest first. Only a truncation lowers them:
    /// the recovery point and the start first, then the others while it holds the list of segments.
    pub(super) fn offsets(&self) -> LogOffsets {
        let _no_truncation = self.segments.read();
        let mut offsets = LogOffsets {
            log_start_offset: self.log_start_offset.load(Ordering::Acquire),
            recovery_point: self.recovery_point.load(Ordering::Acquire),
            high_watermark: self.high_watermark.load(Ordering::Acquire),
            log_end_offset: self.log_end_offset.load(Ordering::Acquire),
        };
        if self.is_attached() {
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

    /// What this process keeps as the log's writer. [`Error::ReadOnly`] where another process writes it, and what
    /// [`check_alive`](Self::check_alive) says of a handle that is of no use any more.
    #[inline]
    pub(super) fn writer(&self) -> Result<&Writer> {
        match &self.role {
            Role::Writer(writer) => Ok(writer),
            Role::Attached(_) => {
                self.check_alive()?;
                Err(Error::ReadOnly)
            }
        }
    }

    /// The writer, for an append. [`Error::Forked`] in a child of the process that opened the log; else as
    /// [`writer`](Self::writer).
    #[inline]
    pub(super) fn appending(&self) -> Result<&Writer> {
        if self.fork.forked() {
            return Err(Error::Forked);
        }
        self.writer()
    }

    /// What this process keeps as one that is attached; `None` where it writes the log itself.
    #[inline]
    pub(super) fn attached(&self) -> Option<&Attached> {
        match &self.role {
            Role::Attached(attached) => Some(attached),
            Role::Writer(_) => None,
        }
    }

    /// The identity that a checkpoint has for the log, or will have.
    pub(super) fn lasting_id(&self) -> Option<LogId> {
        self.attached().map_or(Some(self.id), |attached| attached.attachment.lock().id)
    }

    /// Whether another process may be writing the log, and this one reads.
    #[inline]
    pub(super) fn is_attached(&self) -> bool {
        self.attached().is_some()
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
        if let Role::Writer(writer) = &self.role {
            if let Some(appender) = writer.appender.lock().as_mut() {
                appender.writer.set_config(config);
            }
        }
    }

    pub(super) fn compression(&self) -> CompressionType {
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
        if self.is_attached() {
            // Each file is looked at now: copies do not count.
            self.put_names_right()?;
        }
        let segments = self.segments.read().clone();
        let mut bytes = 0;
        for segment in &segments {
            match segment.len() {
                Ok(len) => bytes += u64::from(len),
                // Retention in another process took it between the listing and now; or readers meet it and go on.
                Err(error) if self.is_attached() && (is_gone(&error) || is_unreadable(&error)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((segments.len(), bytes))
    }

    /// What a batch of this log is held to where `next_offset` is due, and all offsets lie below `offset_end`.
    pub(super) fn due(&self, next_offset: Offset, offset_end: Offset) -> Continuation<'static> {
        Continuation {
            next_offset,
            contiguous: self.origin() == Origin::Own,
            offset_end,
            durable_below: self.recovery_point.load(Ordering::Acquire),
            durable_position: 0,
            unbroken_from: self.unbroken_from.load(Ordering::Relaxed),
            epochs: None,
            epoch_before: None,
            check_crc: true,
        }
    }

    /// What of the log is not durable yet.
    pub(super) fn unflushed(&self, writer: &Writer) -> Unflushed {
        let durable = *writer.durable.lock();
        let segments = self.segments.read();
        let behind = segments.partition_point(|segment| segment.base_offset <= durable.offset);
        let unflushed = &segments[behind.saturating_sub(1)..];
        let bytes: u64 = unflushed.iter().map(|segment| segment.known_len().map_or(0, u64::from)).sum();
        let flushed = unflushed.first().map_or(0, |first| durable.position_in(first.base_offset));
        let first_end = unflushed.get(1).map(|second| second.base_offset);
        Unflushed { segments: unflushed.len(), bytes: bytes.saturating_sub(flushed), first_end }
    }

    /// Bytes of batches that were made durable since the log was opened.
    pub(crate) fn flushed_bytes(&self) -> u64 {
        self.writer().map_or(0, |writer| writer.flushed_bytes.load(Ordering::Relaxed))
    }

    /// The segment that holds `offset`: the last one whose base is at or below it.
    pub(super) fn segment_for(&self, offset: Offset) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let behind = segments.partition_point(|segment| segment.base_offset <= offset);
        segments.get(behind.saturating_sub(1)).map(Arc::clone)
    }

    /// The segment behind the one that begins at `base_offset`.
    pub(super) fn segment_after(&self, base_offset: Offset) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let behind = segments.partition_point(|segment| segment.base_offset <= base_offset);
        segments.get(behind).map(Arc::clone)
    }

    /// Where the segment behind the one that begins at `base_offset` begins; `Offset::MAX` where there is none.
    pub(super) fn base_after(&self, base_offset: Offset) -> Offset {
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

    /// Makes the log read-only for good: a write or flush failed, and what is on the disk is not known any
    /// more. A caller that holds a lock has taken a hold on its events before.
    pub(crate) fn fail(&self, reason: &str) {
        self.raise_flag();
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

    /// Raises the log's flag: what was written and not flushed may never reach the disk, although a flush by another
    /// process would succeed. Where this flag cannot be raised, nothing of the store is vouched for any more.
    fn raise_flag(&self) {
        if bug(Bug::KeepAFailureToOneself) {
            return;
        }
        let mut flags = self.failure_flags.lock();
        if flags.is_empty() {
            match self.storage.raise_flag(&self.dir) {
                Ok(raised) => flags.push(raised),
                Err(_) => {
                    if let Some(host) = self.host.upgrade() {
                        host.distrust();
                    }
                }
            }
        }
    }

    /// The store is closed, and the next open recovers the log; or the writer has resolved what failed here.
    pub(crate) fn lower_flag(&self) {
        self.failure_flags.lock().clear();
    }

    /// Keeps the lock of the log's directory, or gives it up: nothing is written here any more.
    pub(crate) fn keep_directory(&self, lock: Option<Box<dyn StorageLock>>) {
        *self.directory.lock() = lock;
    }

    pub(super) fn previous_failure(&self) -> Error {
        Error::PreviousIo { log: self.name.to_string(), reason: self.failure.lock().clone().unwrap_or_default() }
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    pub(super) fn host(&self) -> Result<Arc<dyn LogHost>> {
        self.host.upgrade().ok_or(Error::Closed)
    }

    /// What the checkpoint keeps of this log; `None` where the log is attached, and the checkpoint another process's.
    pub(crate) fn to_save(&self) -> Option<SavedLog> {
        // The start first: it never passes what is durable, and must not seem to.
        let log_start_offset = self.log_start_offset.load(Ordering::Acquire);
        let durable = *self.writer().ok()?.durable.lock();
        let epochs = self.epochs.read().view().entries().to_vec();
        let mut saved = SavedLog { id: self.id, origin: self.origin(), log_start_offset, durable, epochs };
        saved.leave_out_far_offsets();
        Some(saved)
    }
}

/// Whether the error says that a file cannot be opened or read at all: another user's, or no regular one. What the
/// machine has too little of just now says nothing of the file.
pub(crate) fn is_unreadable(error: &Error) -> bool {
    use std::io::ErrorKind::{IsADirectory, Other, PermissionDenied};
    // No regular file is `Other`.
    matches!(error, Error::Storage { source, .. } if matches!(source.kind(), PermissionDenied | IsADirectory | Other))
}

/// Whether the error says that a file is not there.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Storage { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}
