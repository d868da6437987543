//! Floor 4, the data directory: topics and their partitions, the checkpoint, one housekeeping thread or
//! `tick`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use edgelog_core::config::{Housekeeping, StorageKind};
use edgelog_core::{LogConfig, LogId, Offset, StoreConfig};

use crate::canary::{Bug, bug};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::events;
use crate::log::{self, Log, LogHost, LogShared, OpenLog, SavedLog, TopicPartition};
use crate::segment::BufferPool;
use crate::storage::{DirectoryStorage, DirectoryStorageOptions, ForkGuard, Storage, StorageLock, StoreMode};
use crate::sync::{AtomicBool, Mutex, Ordering, RwLock};

pub(crate) mod checkpoint;
mod housekeeping;
mod ours;
mod report;
pub(crate) mod retention_holds;
mod settings;
mod topic;

pub use report::RecoveryReport;
pub use retention_holds::{RetentionHold, RetentionHolds};
pub use topic::{NewTopic, PARTITIONS_MAX, Topic};

use checkpoint::{Checkpoint, CheckpointFile, Followed};
use housekeeping::Housekeeper;
pub(crate) use ours::{is_partition, survey};
pub(crate) use settings::{are_settings_lost, read_config, settings_to_heal};
use topic::TopicSettings;

/// How a store is opened; begin with [`Store::options`].
///
/// ```
/// # fn main() -> edgelog::Result<()> {
/// # let storage = edgelog::storage::MemoryStorage::new();
/// let store = edgelog::Store::options()
///     .set("edgelog.checkpoint.interval.ms", "5000")?
///     .set("flush.messages", "1")? // for every topic that does not say otherwise
///     .open_on(storage)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StoreOptions {
    config: StoreConfig,
    topic_defaults: LogConfig,
    clock: Arc<dyn Clock>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            config: StoreConfig::default(),
            topic_defaults: LogConfig::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

impl StoreOptions {
    /// Sets a key of the store, or a topic's key as the default for topics that do not set it themselves.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`], with the nearest key where there is no such one.
    pub fn set(mut self, key: &str, value: &str) -> Result<StoreOptions> {
        let set = match self.config.set(key, value) {
            Err(edgelog_core::ConfigError::WrongScope { .. }) => self.topic_defaults.set(key, value),
            set => set,
        };
        set.map_err(|source| Error::InvalidConfig { key: key.to_owned(), value: value.to_owned(), source })?;
        Ok(self)
    }

    /// Lets another clock stamp records and drive retention.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> StoreOptions {
        self.clock = Arc::new(clock);
        self
    }

    /// Opens the store in the directory `path`, which is created where it does not exist. See
    /// [`Store::open`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(self, path: impl AsRef<Path>) -> Result<Store> {
        let storage = self.directory(path.as_ref(), false)?;
        self.open_on(storage)
    }

    /// Opens the store on any storage.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(self, storage: impl Storage + 'static) -> Result<Store> {
        Store::open_writing(Arc::new(storage), self)
    }

    /// Attaches read-only to the store in the directory `path`. See [`Store::attach`].
    ///
    /// # Errors
    /// As [`Store::attach`].
    pub fn attach(self, path: impl AsRef<Path>) -> Result<Store> {
        let storage = self.directory(path.as_ref(), true)?;
        Store::open_reading(Arc::new(storage), self)
    }

    /// Attaches read-only on any storage.
    ///
    /// # Errors
    /// As [`Store::attach`].
    pub fn attach_on(self, storage: impl Storage + 'static) -> Result<Store> {
        Store::open_reading(Arc::new(storage), self)
    }

    fn directory(&self, path: &Path, read_only: bool) -> Result<DirectoryStorage> {
        let options = DirectoryStorageOptions {
            store_mode: match self.config.storage {
                StorageKind::Auto => StoreMode::Auto,
                StorageKind::Map => StoreMode::Map,
                StorageKind::File => StoreMode::File,
            },
            map_bytes_max: self.config.map_bytes_max,
            // Some descriptors are not the cache's: the lock, the checkpoint, a directory being listed or synced.
            open_files_max: (self.config.open_files_max as usize).saturating_sub(8).max(8),
            read_only,
            file_mode: self.config.file_mode,
        };
        let name = path.display().to_string();
        DirectoryStorage::open(path, options).map_err(Error::storage("open data directory", &name))
    }
}

/// A data directory of topics: one process writes it, any number attach and read.
///
/// # Concurrency
/// Every call may come from any thread. A store belongs to the process that opened it: in a child after
/// `fork`, calls answer [`Error::Forked`] and dropping it does nothing.
///
/// Dropping a store closes it as far as it can; [`close`](Store::close) says whether that worked.
#[derive(Debug)]
pub struct Store {
    shared: Arc<StoreShared>,
    housekeeper: Mutex<Option<Housekeeper>>,
}

#[derive(Debug)]
pub(crate) struct StoreShared {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    config: StoreConfig,
    topic_defaults: LogConfig,
    pool: Arc<BufferPool>,
    fork: ForkGuard,
    attached: bool,
    logs: RwLock<BTreeMap<TopicPartition, Arc<LogShared>>>,
    topics: RwLock<BTreeMap<String, TopicSettings>>,
    /// Topics that are being created: nobody gets their logs before their names last, or what is appended there and
    /// acknowledged would go with a name that does not.
    coming: Mutex<Vec<String>>,
    /// Logs that are there and could not be opened: why, and what the checkpoint goes on saying of them.
    unopened: RwLock<BTreeMap<TopicPartition, Unopened>>,
    /// Logs that are being deleted and that a power cut may still bring back, since their directories' new names need
    /// not last: what the checkpoint goes on saying of them.
    leaving: Mutex<BTreeMap<TopicPartition, SavedLog>>,
    checkpoint: Mutex<CheckpointState>,
    /// The checkpoint as another process writes it.
    followed: Mutex<Followed>,
    /// The checkpoint on the medium says that the store is in use.
    marked: AtomicBool,
    closed: AtomicBool,
    kick: housekeeping::Kick,
    report: RwLock<RecoveryReport>,
    /// The data directory's lock; `None` when attached or closed.
    lock: Mutex<Option<Box<dyn StorageLock>>>,
    vouch: Mutex<Vouch>,
}

/// What the checkpoint says of a log that could not be opened, and why it could not.
type Unopened = (Option<SavedLog>, Arc<Error>);

/// Whether attached processes may rely on this one: its logs are recovered, and of each that fails they are told.
#[derive(Debug, Default)]
struct Vouch {
    flag: Option<Box<dyn StorageLock>>,
    /// A log failed, and that could not be told.
    withdrawn: bool,
}

/// The checkpoint file and what was last written to it.
#[derive(Debug)]
struct CheckpointState {
    file: Option<CheckpointFile>,
    written: Checkpoint,
    /// How often it would have said so little more that it was left.
    left: u32,
}

impl Store {
    /// Options with their defaults.
    pub fn options() -> StoreOptions {
        StoreOptions::default()
    }

    /// Opens the store in the directory `path` for writing, whatever the last stop left behind, and creates
    /// it where there is none.
    ///
    /// What was found is in [`recovery_report`](Store::recovery_report). After a clean close, opening costs
    /// one listing a directory; after any other stop also a walk over what was written since the last
    /// recovery points, whatever the size of the logs.
    ///
    /// # Errors
    /// [`Error::DataDirLocked`] where another process writes it; [`Error::UnsupportedVersion`] where a newer
    /// edgelog wrote it; [`Error::Storage`] where the directory cannot be used at all. Damage and a full
    /// disk are no errors: see the report.
    ///
    /// # Durability
    /// All records that can be read after this call are on the medium.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Store::options().open(path)
    }

    /// Attaches read-only to a store that another process writes, or nobody. The writer needs not agree and
    /// does not notice.
    ///
    /// Records are seen when they reach the page cache, which for `Sync` appends is before they are durable;
    /// readers that ask for [`ReadUpTo::Durable`](crate::ReadUpTo::Durable) see what the writer's last
    /// checkpoint names, or more after [`Log::flush_up_to`].
    ///
    /// # Errors
    /// [`Error::Storage`] where there is no such directory.
    pub fn attach(path: impl AsRef<Path>) -> Result<Store> {
        Store::options().attach(path)
    }

    fn open_writing(storage: Arc<dyn Storage>, options: StoreOptions) -> Result<Store> {
        let lock = storage.lock().map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::DataDirLocked(error),
            _ => Error::storage("lock", ".lock")(error),
        })?;
        let (mut file, found) = CheckpointFile::open(&storage)?;
        let boot_id = storage.boot_id();
        let saved = found.newest.clone().unwrap_or_default();
        let recovering = Recovering {
            is_clean: (found.agree || bug(Bug::TrustOneCleanSlot)) && saved.clean,
            same_boot: saved.boot_id == boot_id && boot_id != [0; 16],
            had_checkpoint: found.newest.is_some(),
            saved: saved.logs.clone(),
            odd: found.odd,
        };
        if recovering.same_boot && !recovering.is_clean {
            file.doubt();
        }
        let shared =
            StoreShared::new(storage, options, false, CheckpointState { file: Some(file), written: saved, left: 0 });
        *shared.lock.lock() = Some(lock);
        shared.recover(&recovering, found.agree)?;
        if shared.report.read().not_writable.is_none() {
            shared.vouch();
        }
        let housekeeper = match shared.config.housekeeping {
            Housekeeping::Thread => Some(Housekeeper::start(&shared)?),
            Housekeeping::Tick => None,
        };
        Ok(Store { shared, housekeeper: Mutex::new(housekeeper) })
    }

    fn open_reading(storage: Arc<dyn Storage>, options: StoreOptions) -> Result<Store> {
        let found = checkpoint::read(&*storage)?;
        let had_checkpoint = found.newest.is_some();
        let written = found.newest.unwrap_or_default();
        let shared = StoreShared::new(storage, options, true, CheckpointState { file: None, written, left: 0 });
        shared.marked.store(true, Ordering::Release);
        shared.load_topics(&shared.saved_logs())?;
        {
            let mut report = shared.report.write();
            report.clean = true;
            // Nothing is recovered here. What the writer would report of the checkpoint is reported as it is.
            report.checkpoint_lost = !had_checkpoint && !shared.topics.read().is_empty();
            report.odd = found.odd;
        }
        Ok(Store { shared, housekeeper: Mutex::new(None) })
    }

    /// What opening found and did.
    pub fn recovery_report(&self) -> RecoveryReport {
        self.shared.report.read().clone()
    }

    /// The configuration of the store.
    pub fn config(&self) -> &StoreConfig {
        &self.shared.config
    }

    /// The log of one partition.
    ///
    /// # Errors
    /// [`Error::UnknownTopicOrPartition`], also while the topic is being created; and what attaching to a log's files
    /// can answer.
    pub fn log(&self, topic: &str, partition: u32) -> Result<Log> {
        self.shared.check_open()?;
        let name = TopicPartition::new(topic, partition);
        if self.shared.coming.lock().iter().any(|coming| coming == topic) {
            return Err(Error::UnknownTopicOrPartition { name: name.to_string() });
        }
        if let Some(shared) = self.shared.logs.read().get(&name) {
            return Ok(Log { shared: Arc::clone(shared) });
        }
        if self.shared.attached {
            return self.shared.attach_log(name).map(|shared| Log { shared });
        }
        if let Some((_, source)) = self.shared.unopened.read().get(&name) {
            return Err(Error::NotOpened { log: name.to_string(), source: Arc::clone(source) });
        }
        Err(Error::UnknownTopicOrPartition { name: name.to_string() })
    }

    /// The identity that the checkpoint has for a log: the one that lasts. `None` where it has none, as for files that
    /// were put here and not yet opened for writing.
    #[cfg(feature = "bridge")]
    pub(crate) fn lasting_id(&self, name: &TopicPartition) -> Result<Option<[u8; 16]>> {
        Ok(self.shared.read_saved(name)?.map(|saved| saved.id))
    }

    /// Who still needs records of which log: from there on, nothing is deleted for its age. Read from the holders'
    /// files
    /// now, once for all logs.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::Storage`].
    pub fn retention_holds(&self) -> Result<RetentionHolds> {
        self.shared.check_open()?;
        RetentionHolds::read(&*self.shared.storage)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`]; attached, what listing the data directory can answer.
    pub fn topics(&self) -> Result<Vec<Topic>> {
        self.shared.check_open()?;
        if self.shared.attached {
            self.shared.load_topics(&self.shared.saved_logs())?;
        }
        Ok(self.shared.topics.read().iter().map(|(name, settings)| settings.describe(name, &self.shared)).collect())
    }

    /// One topic.
    ///
    /// # Errors
    /// [`Error::UnknownTopicOrPartition`], and as [`topics`](Store::topics).
    pub fn topic(&self, name: &str) -> Result<Topic> {
        let topics = self.topics()?;
        let found = topics.into_iter().find(|topic| topic.name == name);
        found.ok_or_else(|| Error::UnknownTopicOrPartition { name: name.to_owned() })
    }

    /// Creates a topic with its partitions, empty.
    ///
    /// # Errors
    /// [`Error::TopicExists`], [`Error::InvalidTopic`], [`Error::InvalidPartitions`],
    /// [`Error::InvalidConfig`], [`Error::Storage`]; [`Error::ReadOnly`] when attached.
    ///
    /// # Durability
    /// On return, the topic is on the medium. A power cut before leaves all of its partitions, or none after
    /// the next open.
    pub fn create_topic(&self, topic: &NewTopic) -> Result<()> {
        self.shared.create_topic(topic)
    }

    /// As [`create_topic`](Store::create_topic), where there is no such topic yet. Returns whether it was
    /// created.
    ///
    /// # Errors
    /// As [`create_topic`](Store::create_topic), but for [`Error::TopicExists`].
    pub fn create_topic_if_absent(&self, topic: &NewTopic) -> Result<bool> {
        match self.create_topic(topic) {
            Ok(()) => Ok(true),
            Err(Error::TopicExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a topic with all of its records. Batches that readers hold stay readable; handles of its logs
    /// answer [`Error::Closed`].
    ///
    /// # Errors
    /// [`Error::UnknownTopicOrPartition`], [`Error::Storage`]; [`Error::ReadOnly`] when attached.
    ///
    /// # Durability
    /// On return, the topic is gone also after a power cut.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.shared.delete_topic(name)
    }

    /// Sets keys of a topic's configuration, or with `None` sets them back to their defaults; in force from
    /// the next append.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`], and then nothing is changed; [`Error::UnknownTopicOrPartition`],
    /// [`Error::Storage`]; [`Error::ReadOnly`] when attached.
    pub fn alter_topic(&self, name: &str, changes: &[(&str, Option<&str>)]) -> Result<()> {
        self.shared.alter_topic(name, changes)
    }

    /// Makes everything in every log durable that was appended before this call.
    ///
    /// # Errors
    /// The first log's error; the others are flushed all the same.
    pub fn flush(&self) -> Result<()> {
        self.shared.check_open()?;
        let logs: Vec<_> = self.shared.logs.read().values().cloned().collect();
        let mut first = Ok(());
        for shared in logs {
            let flushed = Log { shared }.flush();
            if first.is_ok() {
                first = flushed;
            }
        }
        first
    }

    /// Does what is due at `now` (milliseconds since 1970): interval flushes, room ahead of writers, sealed
    /// segments' indexes, retention, the checkpoint. For programs without threads
    /// (`edgelog.housekeeping=tick`); call it as often as the shortest `flush.ms` asks for.
    ///
    /// # Errors
    /// The first error met; the rest is done all the same and tried again by the next call.
    pub fn tick(&self, now: edgelog_core::TimestampMs) -> Result<()> {
        self.shared.check_open()?;
        self.shared.tick(now)
    }

    /// Closes the store: flushes all logs, trims their files, writes the clean mark. Handles of its logs
    /// answer [`Error::Closed`] from then on.
    ///
    /// # Errors
    /// The first log's or the checkpoint's error; [`Error::Closed`] where a panic of the housekeeping thread had ended
    /// the use of the store. It is closed all the same; the next open then recovers.
    pub fn close(&self) -> Result<()> {
        if self.shared.fork.forked() {
            return Err(Error::Forked);
        }
        let housekeeper = self.housekeeper.lock().take();
        if housekeeper.is_some_and(|housekeeper| !housekeeper.stop(&self.shared)) {
            self.abandon();
            return Err(Error::Closed);
        }
        self.shared.close()
    }

    /// Lets go of the store as it is: no flush, no clean mark, and the next open recovers. For a host that caught a
    /// panic in one of its calls and trusts nothing that this process remembers of the store.
    ///
    /// # Durability
    /// What was acknowledged stays so; what was not may be found by the next open.
    pub fn abandon(&self) {
        if self.shared.fork.forked() {
            return;
        }
        let housekeeper = self.housekeeper.lock().take();
        if let Some(housekeeper) = housekeeper {
            housekeeper.stop(&self.shared);
        }
        self.shared.let_go();
        self.shared.lower_flags();
        *self.shared.lock.lock() = None;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            if !matches!(error, Error::Forked) {
                tracing::warn!(%error, "the store could not be closed cleanly; the next open recovers");
            }
        }
    }
}

/// What the checkpoint said when a store was opened for writing.
struct Recovering {
    is_clean: bool,
    same_boot: bool,
    had_checkpoint: bool,
    saved: BTreeMap<TopicPartition, SavedLog>,
    /// What the checkpoint said of single logs, and no log comes to.
    odd: Vec<(String, String)>,
}

impl StoreShared {
    fn new(
        storage: Arc<dyn Storage>,
        options: StoreOptions,
        attached: bool,
        checkpoint: CheckpointState,
    ) -> Arc<StoreShared> {
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
            closed: AtomicBool::new(false),
            kick: housekeeping::Kick::default(),
            report: RwLock::default(),
            lock: Mutex::new(None),
            vouch: Mutex::default(),
        })
    }

    fn check_open(&self) -> Result<()> {
        if self.fork.forked() {
            return Err(Error::Forked);
        }
        if self.closed.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.attached { Err(Error::ReadOnly) } else { Ok(()) }
    }

    /// Opens every log in the data directory, in whatever state the last stop left it.
    fn recover(self: &Arc<Self>, recovering: &Recovering, slots_agree: bool) -> Result<()> {
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
        report.healed = self.heal_settings(&loaded);
        report.suspended = loaded.suspended;
        let names: Vec<TopicPartition> =
            self.topics.read().iter().flat_map(|(name, topic)| topic.names(name)).collect();
        report.checkpoint_lost = !recovering.had_checkpoint && !names.is_empty();
        if report.checkpoint_lost || (!recovering.had_checkpoint && names.is_empty()) {
            report.clean = names.is_empty();
        }
        for name in names {
            let (log, outcome) = match self.open_log(name.clone(), recovering) {
                Ok(opened) => opened,
                // A gap in the numbers of a topic's partitions: somebody took a directory away. The others open.
                Err(Error::Storage { operation: "list", source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    continue;
                }
                // One log that cannot be opened does not keep the others from their users, nor is its state forgotten.
                Err(error) => {
                    tracing::error!(log = %name, %error, "the log could not be opened");
                    let saved = recovering.saved.get(&name).cloned();
                    report.unopened.push((name.clone(), error.to_string()));
                    self.unopened.write().insert(name, (saved, Arc::new(error)));
                    continue;
                }
            };
            self.logs.write().insert(log.name.clone(), log);
            report.logs.push(outcome);
        }
        // A directory that the checkpoint knows and that is not there: not our doing, and not to be passed over.
        let is_open = |name: &TopicPartition| report.logs.iter().any(|log| log.name == *name);
        let unopened = self.unopened.read().clone();
        let deleted = &report.finished_deletions;
        let gone =
            |name: &&TopicPartition| !is_open(name) && !unopened.contains_key(name) && !deleted.contains(&name.topic);
        report.missing = known.keys().filter(gone).cloned().collect();
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

    /// Returns where this process is the store's one writer. Where it is not any more, no log of it acknowledges
    /// anything from here on.
    fn check_lock(&self) -> Result<()> {
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
    fn saved_logs(&self) -> BTreeMap<TopicPartition, SavedLog> {
        self.checkpoint.lock().written.logs.clone()
    }

    fn written_clean(&self) -> bool {
        self.checkpoint.lock().written.clean
    }

    /// Writes to both slots that the store is in use, with what the checkpoint said before.
    fn mark(&self) -> Result<()> {
        let mut state = self.checkpoint.lock();
        let mut checkpoint = state.written.clone();
        checkpoint.clean = false;
        checkpoint.boot_id = self.storage.boot_id();
        let file = state.file.as_mut().ok_or(Error::Closed)?;
        file.write_both(&checkpoint)?;
        state.written = checkpoint;
        Ok(())
    }

    fn open_log(
        self: &Arc<Self>,
        name: TopicPartition,
        recovering: &Recovering,
    ) -> Result<(Arc<LogShared>, crate::log::LogRecovery)> {
        let saved = recovering.saved.get(&name).cloned();
        let dir = name.to_string();
        let mut params = self.open_params(name, saved, recovering.is_clean, recovering.same_boot);
        params.odd = recovering.odd.iter().filter(|(odd, _)| *odd == dir).map(|(_, what)| what.clone()).collect();
        log::open(&params)
    }

    fn open_params(
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
            isolation_level: self.config.isolation_level,
            saved,
            odd: Vec::new(),
            store_is_clean,
            same_boot,
            new_id: random_id(),
        }
    }

    fn attach_log(self: &Arc<Self>, name: TopicPartition) -> Result<Arc<LogShared>> {
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
    fn gather(&self, clean: bool) -> Checkpoint {
        // A log is among those that leave before it is taken from the others.
        let leaving = self.leaving.lock();
        let logs = self.logs.read();
        let mut saved = leaving.clone();
        let unopened = self.unopened.read();
        saved.extend(unopened.iter().filter_map(|(name, (saved, _))| Some((name.clone(), saved.clone()?))));
        saved.extend(logs.iter().filter_map(|(name, log)| Some((name.clone(), log.to_save()?))));
        Checkpoint { clean, boot_id: self.storage.boot_id(), logs: saved }
    }

    /// Makes the names in the data directory durable, and with them that what was renamed to be deleted is gone.
    fn sync_names(&self) -> Result<()> {
        let mut leaving = self.leaving.lock();
        self.storage.sync_dir("").map_err(Error::storage("sync directory", "."))?;
        leaving.clear();
        Ok(())
    }

    /// Writes the checkpoint, to one slot or to both. Gathering happens under the file's lock: no older state
    /// overtakes a newer one.
    fn write_checkpoint(&self, clean: bool, both: bool) -> Result<()> {
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
    fn checkpoint_if_changed(&self) -> Result<()> {
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

    fn close(&self) -> Result<()> {
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

    /// Tells attached processes that what they see and flush will last: nothing is in the logs that a recovery would
    /// not keep. Where they cannot be told, they go by the checkpoint.
    fn vouch(&self) {
        let raised = {
            let mut vouch = self.vouch.lock();
            if vouch.flag.is_some() || vouch.withdrawn {
                return;
            }
            self.storage.raise_flag("").map(|raised| vouch.flag = Some(raised))
        };
        if let Err(error) = raised {
            // Perhaps under an append's lock, which allowed writing.
            events::emit(move || tracing::debug!(%error, "attached processes cannot flush beside this one"));
        }
    }

    /// What the logs' flags told is settled by the next open, before which nobody vouches for them.
    fn lower_flags(&self) {
        *self.vouch.lock() = Vouch { flag: None, withdrawn: true };
        for log in self.logs.read().values() {
            log.lower_flag();
        }
    }
}

impl StoreShared {
    /// Nothing is read or written through this store from here on, and nothing made durable.
    fn let_go(&self) {
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

    fn flush_beside(&self) -> Result<()> {
        checkpoint::flush(&*self.storage)?;
        self.storage.sync_dir("").map_err(Error::storage("sync directory", "."))
    }

    fn distrust(&self) {
        *self.vouch.lock() = Vouch { flag: None, withdrawn: true };
    }

    fn held_from(&self, name: &TopicPartition, id: LogId) -> Result<Option<Offset>> {
        Ok(RetentionHolds::read(&*self.storage)?.held_from(name, id))
    }

    fn checkpoint(&self) -> Result<()> {
        self.write_checkpoint(false, false)
    }

    fn wake_housekeeping(&self) {
        self.kick.kick();
    }
}

/// The identity of a new log: 128 bits from the standard library's per-map keys, which the system's random source
/// seeds.
pub(crate) fn random_id() -> [u8; 16] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut id = [0; 16];
    for half in id.chunks_exact_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    LogId::from_random(id).to_bytes()
}
