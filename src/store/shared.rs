//! One data directory, as its handle, its logs and housekeeping share it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use edgelog_core::{LogConfig, LogId, Offset, StoreConfig};

use super::checkpoint::{self, Checkpoint, CheckpointFile, Followed};
use super::kick::Kick;
use super::options::StoreOptions;
use super::ours;
use super::producer_ids::ProducerIds;
use super::random_id::random_id;
use super::report::RecoveryReport;
use super::retention_holds::RetentionHolds;
use super::topic::TopicSettings;
use crate::canary::{Bug, bug};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::events;
use crate::log::{self, LogHost, LogShared, OpenLog, SavedLog, TopicPartition};
use crate::segment::BufferPool;
use crate::storage::{ForkGuard, Storage, StorageLock};
use crate::sync::{AtomicBool, Mutex, Ordering, RwLock};

pub(crate) struct StoreShared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: StoreConfig,
    pub(super) topic_defaults: LogConfig,
    pub(super) pool: Arc<BufferPool>,
    pub(super) fork: ForkGuard,
    pub(super) attached: bool,
    pub(super) logs: RwLock<BTreeMap<TopicPartition, Arc<LogShared>>>,
    pub(super) topics: RwLock<BTreeMap<String, TopicSettings>>,
    /// Topics that are being created. No caller gets their logs before their names are durable. Else what was appended
    /// and acknowledged could be lost with the name.
    pub(super) coming: Mutex<Vec<String>>,
    /// Logs that are there and could not be opened: why, and what the checkpoint goes on saying of them.
    pub(super) unopened: RwLock<BTreeMap<TopicPartition, Unopened>>,
    /// Logs that are being deleted and that a power cut may still bring back, since their directories' new names need
    /// not last: what the checkpoint goes on saying of them.
    pub(super) leaving: Mutex<BTreeMap<TopicPartition, SavedLog>>,
    pub(super) checkpoint: Mutex<CheckpointState>,
    /// The checkpoint as another process writes it.
    pub(super) followed: Mutex<Followed>,
    /// The checkpoint on the disk says that the store is in use.
    pub(super) marked: AtomicBool,
    /// Every topic has its settings in two files: one that has none has lost them.
    pub(super) recorded: AtomicBool,
    pub(super) closed: AtomicBool,
    pub(super) kick: Kick,
    pub(super) report: RwLock<RecoveryReport>,
    /// The data directory's lock; `None` when attached or closed.
    pub(super) lock: Mutex<Option<Box<dyn StorageLock>>>,
    pub(super) vouch: Mutex<Vouch>,
    pub(super) producer_ids: Mutex<ProducerIds>,
}

/// By what it stands on: all logs would say no more, and the code that prints them counts in the C library.
impl fmt::Debug for StoreShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreShared").field(&self.storage).finish()
    }
}

/// What the checkpoint says of a log that could not be opened, and why it could not.
pub(super) type Unopened = (Option<SavedLog>, Arc<Error>);

/// Whether attached processes may rely on this one: its logs are recovered, and its flag shows each log that fails.
#[derive(Debug, Default)]
pub(super) struct Vouch {
    pub(super) flag: Option<Box<dyn StorageLock>>,
    /// A log failed, and that could not be shown.
    pub(super) withdrawn: bool,
}

/// The checkpoint file and what was last written to it.
#[derive(Debug)]
pub(super) struct CheckpointState {
    pub(super) file: Option<CheckpointFile>,
    pub(super) written: Checkpoint,
    /// How often it would have said so little more that it was left.
    pub(super) left: u32,
}

/// What the checkpoint said when a store was opened for writing.
pub(super) struct Recovering {
    pub(super) is_clean: bool,
    pub(super) same_boot: bool,
    pub(super) had_checkpoint: bool,
    /// Which slots held.
    pub(super) slots: [bool; 2],
    pub(super) saved: BTreeMap<TopicPartition, SavedLog>,
    /// What the checkpoint said of single logs, and no log comes to.
    pub(super) odd: Vec<(String, String)>,
}

impl StoreShared {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        options: StoreOptions,
        attached: bool,
        checkpoint: CheckpointState,
    ) -> Arc<StoreShared> {
        let recorded = AtomicBool::new(checkpoint.written.is_recorded);
        Arc::new(StoreShared {
            storage,
            clock: options.clock,
            config: options.config,
            topic_defaults: options.topic_defaults,
            pool: Arc::default(),
            fork: ForkGuard::here(),
            attached,
            logs: RwLock::default(),
            topics: RwLock::default(),
            unopened: RwLock::default(),
            coming: Mutex::default(),
            leaving: Mutex::default(),
            checkpoint: Mutex::new(checkpoint),
            followed: Mutex::default(),
            marked: AtomicBool::new(false),
            recorded,
            closed: AtomicBool::new(false),
            kick: Kick::default(),
            report: RwLock::default(),
            lock: Mutex::new(None),
            vouch: Mutex::default(),
            producer_ids: Mutex::default(),
        })
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.fork.forked() {
            return Err(Error::Forked);
        }
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    pub(super) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.attached { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Opens every log in the data directory, in any state that the last stop left.
    pub(super) fn recover(self: &Arc<Self>, recovering: &Recovering, slots_agree: bool) -> Result<()> {
        let mut report = RecoveryReport { clean: recovering.is_clean, ..RecoveryReport::default() };
        if recovering.had_checkpoint && !recovering.is_clean && (!slots_agree || self.written_clean()) {
            // Recovery changes bytes. Two slots that differ might be read as a clean pair after another cut.
            if let Err(error) = self.mark() {
                report.not_writable = Some(error.to_string());
            }
        }
        report.odd.clone_from(&recovering.odd);
        let leftovers = self.remove_leftovers(&recovering.saved)?;
        // What is known is what the checkpoint said, but for what is gone now.
        let mut known = recovering.saved.clone();
        for name in &leftovers.gone {
            known.remove(name);
        }
        let forgotten = known.len() < recovering.saved.len();
        report.finished_deletions = leftovers.finished_deletions;
        report.removed = leftovers.unfinished;
        report.removed.extend(leftovers.deleted.into_iter().map(|(_, name)| name));
        report.removed.retain(|name| !report.finished_deletions.contains(&name.topic));
        report.left = leftovers.left;
        let loaded = self.load_topics(&known)?;
        let names: Vec<TopicPartition> =
            self.topics.read().iter().flat_map(|(name, topic)| topic.names(name)).collect();
        let claims = self.claim_directories(&names, recovering, &mut report);
        self.heal_settings(&loaded, &mut report);
        report.suspended = loaded.suspended;
        report.checkpoint_lost = !recovering.had_checkpoint && !names.is_empty();
        if report.checkpoint_lost || (!recovering.had_checkpoint && names.is_empty()) {
            report.clean = names.is_empty();
        }
        for (name, claim) in names.into_iter().zip(claims) {
            if self.unopened.read().contains_key(&name) {
                continue;
            }
            let (log, outcome) = match self.open_log(name.clone(), recovering) {
                Ok(opened) => opened,
                // A gap in the numbers of a topic's partitions: a directory was removed from outside. The others open.
                Err(Error::Storage { operation: "list", source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    continue;
                }
                // One log that cannot be opened does not keep the others from their users, nor is its state forgotten.
                Err(error) => {
                    self.leave_unopened(name, error, recovering, &mut report);
                    continue;
                }
            };
            log.keep_directory(claim);
            self.logs.write().insert(log.name.clone(), log);
            report.logs.push(outcome);
        }
        // A directory that the checkpoint knows and that is not there: not our doing, and not to be passed over.
        let open = self.logs.read();
        let unopened = self.unopened.read().clone();
        let deleted = &report.finished_deletions;
        let gone = |name: &&TopicPartition| {
            !open.contains_key(*name) && !unopened.contains_key(name) && !deleted.contains(&name.topic)
        };
        report.missing = known.keys().filter(gone).cloned().collect();
        drop(open);
        report.clean &= report.odd.is_empty() && deleted.is_empty() && !forgotten;
        report.clean &= report.missing.is_empty() && report.logs.iter().all(|log| log.clean);
        if !report.clean {
            // The new epochs and recovery points, before anything is appended; and the names of what is served: those
            // that a killed process made, or took away, may be in the cache alone.
            let synced = if bug(Bug::ServeUnsyncedTopics) { Ok(()) } else { self.sync_names() };
            match synced.and_then(|()| self.write_checkpoint(false, false)) {
                // Also on a disk that was too full at first: leftovers were removed since.
                Ok(()) => {
                    self.marked.store(true, Ordering::Release);
                    report.not_writable = None;
                }
                Err(error) => report.not_writable = Some(error.to_string()),
            }
        }
        if !report.clean || report.has_notes() {
            tracing::warn!("{report}");
        }
        *self.report.write() = report;
        Ok(())
    }

    /// Of each log the lock of its directory, where that is written here and stands elsewhere. Those that are not
    /// written here, since another store writes them, or another log of this one, or since they are away, are left
    /// unopened.
    fn claim_directories(
        &self,
        names: &[TopicPartition],
        recovering: &Recovering,
        report: &mut RecoveryReport,
    ) -> Vec<Option<Box<dyn StorageLock>>> {
        let shared = ours::shared_directories(&*self.storage, names);
        let claim = |name: &TopicPartition| {
            let claim = ours::claim(&*self.storage, name, &ours::others_of(&shared, name));
            claim.unwrap_or_else(|error| {
                self.leave_unopened(name.clone(), error, recovering, report);
                None
            })
        };
        names.iter().map(claim).collect()
    }

    /// Notes that a log is there and is not opened: what the checkpoint says of it stays.
    fn leave_unopened(&self, name: TopicPartition, error: Error, recovering: &Recovering, report: &mut RecoveryReport) {
        tracing::error!(log = %name, %error, "the log could not be opened");
        let saved = recovering.saved.get(&name).cloned();
        report.unopened.push((name.clone(), error.to_string()));
        self.unopened.write().insert(name, (saved, Arc::new(error)));
    }

    /// Returns where this process is the store's one writer. Where it is not any more, no log of it acknowledges
    /// anything from here on.
    pub(super) fn check_lock(&self) -> Result<()> {
        // A log that fails says so to the host's log, and the list of logs is locked here.
        let _events = events::hold();
        let checked = self.storage.check_lock().map_err(Error::storage("look at the lock of", "."));
        if let Err(error) = &checked {
            for log in self.logs.read().values() {
                log.fail(&error.to_string());
            }
        }
        checked
    }

    /// What the checkpoint said when it was read or written last.
    pub(super) fn saved_logs(&self) -> BTreeMap<TopicPartition, SavedLog> {
        self.checkpoint.lock().written.logs.clone()
    }

    pub(super) fn written_clean(&self) -> bool {
        self.checkpoint.lock().written.clean
    }

    /// Writes to both slots that the store is in use, with what the checkpoint said before.
    pub(super) fn mark(&self) -> Result<()> {
        let mut state = self.checkpoint.lock();
        let mut checkpoint = state.written.clone();
        checkpoint.clean = false;
        checkpoint.boot_id = self.storage.boot_id();
        let file = state.file.as_mut().ok_or(Error::Closed)?;
        file.write_both(&checkpoint)?;
        state.written = checkpoint;
        Ok(())
    }

    pub(super) fn open_log(
        self: &Arc<Self>,
        name: TopicPartition,
        recovering: &Recovering,
    ) -> Result<(Arc<LogShared>, crate::log::LogRecovery)> {
        let saved = recovering.saved.get(&name).cloned();
        let dir = name.to_string();
        let mut params = self.open_params(name, saved, recovering.is_clean, recovering.same_boot);
        params.slots = recovering.slots;
        params.odd = recovering.odd.iter().filter(|(odd, _)| *odd == dir).map(|(_, what)| what.clone()).collect();
        log::open(&params)
    }

    pub(super) fn open_params(
        self: &Arc<Self>,
        name: TopicPartition,
        saved: Option<SavedLog>,
        store_is_clean: bool,
        same_boot: bool,
    ) -> OpenLog {
        let host: Weak<dyn LogHost> = Arc::downgrade(self) as Weak<dyn LogHost>;
        let config = self.topics.read().get(&name.topic).map_or(self.topic_defaults, |topic| topic.config);
        OpenLog {
            name,
            storage: Arc::clone(&self.storage),
            clock: Arc::clone(&self.clock),
            host,
            pool: Arc::clone(&self.pool),
            config,
            check_crcs: self.config.check_crcs,
            decompressed_bytes_max: self.config.decompressed_bytes_max,
            unflushed_bytes_max: self.config.unflushed_bytes_max,
            isolation_level: self.config.isolation_level,
            saved,
            odd: Vec::new(),
            store_is_clean,
            slots: [false; 2],
            same_boot,
            new_id: random_id(),
        }
    }

    pub(super) fn attach_log(self: &Arc<Self>, name: TopicPartition) -> Result<Arc<LogShared>> {
        let exists = |topics: &BTreeMap<String, TopicSettings>| {
            topics.get(&name.topic).is_some_and(|topic| topic.has(name.partition))
        };
        if !exists(&self.topics.read()) {
            self.load_topics(&self.saved_logs())?;
        }
        if !exists(&self.topics.read()) {
            return Err(Error::UnknownTopicOrPartition { name: name.to_string() });
        }
        // The checkpoint as it is now: the writer has gone on since this process attached.
        let saved = self.read_saved(&name)?;
        let log = log::attach(&self.open_params(name.clone(), saved, false, false))?;
        Ok(Arc::clone(self.logs.write().entry(name).or_insert(log)))
    }

    /// Every log's durable state as it is now.
    pub(super) fn gather(&self, clean: bool) -> Checkpoint {
        // A log is among those that leave before it is taken from the others.
        let leaving = self.leaving.lock();
        let logs = self.logs.read();
        let mut saved = leaving.clone();
        let unopened = self.unopened.read();
        saved.extend(unopened.iter().filter_map(|(name, (saved, _))| Some((name.clone(), saved.clone()?))));
        saved.extend(logs.iter().filter_map(|(name, log)| Some((name.clone(), log.to_save()?))));
        let is_recorded = self.recorded.load(Ordering::Acquire);
        Checkpoint { clean, is_recorded, boot_id: self.storage.boot_id(), logs: saved }
    }

    /// Makes the names in the data directory durable, and with them that what was renamed to be deleted is gone.
    pub(super) fn sync_names(&self) -> Result<()> {
        let mut leaving = self.leaving.lock();
        self.storage.sync_dir("").map_err(Error::storage("sync directory", "."))?;
        leaving.clear();
        Ok(())
    }

    /// Writes the checkpoint, to one slot or to both. Gathering happens under the file's lock: no older state
    /// overtakes a newer one.
    pub(super) fn write_checkpoint(&self, clean: bool, both: bool) -> Result<()> {
        self.check_lock()?;
        let mut state = self.checkpoint.lock();
        let checkpoint = self.gather(clean);
        let file = state.file.as_mut().ok_or(Error::Closed)?;
        if both { file.write_both(&checkpoint) } else { file.write(&checkpoint) }?;
        state.written = checkpoint;
        state.left = 0;
        Ok(())
    }

    /// Writes the checkpoint where it would say something new. Recovery points that moved by next to nothing are left
    /// for some rounds: walking that much is quicker than the flush, which a slow log would make for every few records.
    pub(super) fn checkpoint_if_changed(&self) -> Result<()> {
        const LITTLE_BYTES: u64 = 64 << 10;
        const ROUNDS_LEFT: u32 = 5;
        if !self.marked.load(Ordering::Acquire) {
            return Ok(());
        }
        let changed = {
            let mut state = self.checkpoint.lock();
            let now = self.gather(false);
            let little = now.bytes_since(&state.written).is_some_and(|bytes| bytes < LITTLE_BYTES);
            let changed = state.written != now;
            let left = changed && little && state.left < ROUNDS_LEFT;
            state.left += u32::from(left);
            changed && !left
        };
        if changed { self.write_checkpoint(false, false) } else { Ok(()) }
    }

    pub(super) fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) || self.attached {
            for log in self.logs.read().values() {
                log.detach();
            }
            return Ok(());
        }
        let logs: Vec<_> = self.logs.read().values().cloned().collect();
        let mut first = Ok(());
        for log in &logs {
            let closed = log.close();
            if first.is_ok() {
                first = closed;
            }
        }
        if first.is_ok() && (self.marked.load(Ordering::Acquire)) {
            first = self.write_checkpoint(true, true);
        }
        self.checkpoint.lock().file = None;
        self.lower_flags();
        *self.lock.lock() = None;
        first
    }

    /// Shows attached processes that what they see and flush will last: a recovery keeps all that is in the logs. Where
    /// that cannot be shown, they go by the checkpoint.
    pub(super) fn vouch(&self) {
        let raised = {
            let mut vouch = self.vouch.lock();
            if vouch.flag.is_some() || vouch.withdrawn {
                return;
            }
            self.storage.raise_flag("").map(|raised| vouch.flag = Some(raised))
        };
        if let Err(error) = raised {
            // Perhaps under an append's lock, which allowed writing.
            events::emit(move || tracing::debug!(%error, "attached processes cannot flush what this one writes"));
        }
    }

    /// The next open resolves what the logs' flags have shown. Before it no process vouches for the logs.
    pub(super) fn lower_flags(&self) {
        *self.vouch.lock() = Vouch { flag: None, withdrawn: true };
        for log in self.logs.read().values() {
            log.lower_flag();
            log.keep_directory(None);
        }
    }
}

impl StoreShared {
    /// Nothing is read or written through this store from here on, and nothing made durable.
    pub(super) fn let_go(&self) {
        self.closed.store(true, Ordering::Release);
        for log in self.logs.read().values() {
            log.let_go();
        }
    }
}

impl LogHost for StoreShared {
    fn allow_writing(&self) -> Result<()> {
        if self.marked.load(Ordering::Acquire) || bug(Bug::SkipTheMark) {
            return Ok(());
        }
        self.check_writable()?;
        // As at an open that could not: no record is acknowledged below a name that may not last.
        self.sync_names()?;
        self.write_checkpoint(false, true)?;
        self.marked.store(true, Ordering::Release);
        self.report.write().not_writable = None;
        self.vouch();
        Ok(())
    }

    fn unmark(&self) -> Result<()> {
        if self.written_clean() { self.mark() } else { Ok(()) }
    }

    fn read_saved(&self, name: &TopicPartition) -> Result<Option<SavedLog>> {
        Ok(self.followed.lock().now(&*self.storage)?.logs.get(name).cloned())
    }

    fn has_healthy_writer(&self) -> Result<bool> {
        if !self.storage.sees_flag("").map_err(Error::storage("look at", "."))? {
            return Ok(false);
        }
        // A flag may be seen from another machine, over a network file system; the pages that a flush writes are not.
        let boot_id = self.followed.lock().now(&*self.storage)?.boot_id;
        Ok(boot_id == self.storage.boot_id() && boot_id != [0; 16])
    }

    fn flush_attached(&self) -> Result<()> {
        checkpoint::flush(&*self.storage)?;
        self.storage.sync_dir("").map_err(Error::storage("sync directory", "."))
    }

    fn distrust(&self) {
        *self.vouch.lock() = Vouch { flag: None, withdrawn: true };
    }

    fn held_from(&self, name: &TopicPartition, id: LogId) -> Result<Option<Offset>> {
        Ok(RetentionHolds::read(&*self.storage)?.held_from(name, id))
    }

    fn producer_ids(&self) -> Result<Vec<Vec<i64>>> {
        self.producer_ids.lock().ids(&*self.storage)
    }

    fn checkpoint(&self) -> Result<()> {
        self.write_checkpoint(false, false)
    }

    fn wake_housekeeping(&self) {
        self.kick.kick();
    }
}
