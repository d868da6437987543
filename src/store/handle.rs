//! The handle of a store that programs hold: opening, attaching, and what a store is asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use edgelog_core::config::{Housekeeping, StorageKind};
use edgelog_core::{LogId, StoreConfig};

use super::checkpoint::{self, CheckpointFile};
use super::housekeeping::Housekeeper;
use super::options::StoreOptions;
use super::producer_ids::ProducerIdentity;
use super::report::RecoveryReport;
use super::retention_holds::RetentionHolds;
use super::shared::{CheckpointState, Recovering, StoreShared};
use super::topic::{NewTopic, Topic};
use crate::canary::{Bug, bug};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::log::{Log, TopicPartition};
use crate::storage::{DirectoryStorage, DirectoryStorageOptions, LOCK_FILE, Storage, StoreMode};
use crate::sync::{Mutex, Ordering};

impl StoreOptions {
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

    /// Opens the store on a storage that others have, too.
    pub(crate) fn open_shared(self, storage: Arc<dyn Storage>) -> Result<Store> {
        Store::open_writing(storage, self)
    }

    /// Attaches on a storage that others have, too.
    pub(crate) fn attach_shared(self, storage: Arc<dyn Storage>) -> Result<Store> {
        Store::open_reading(storage, self)
    }

    /// With this clock, which another store has.
    pub(crate) fn shared_clock(mut self, clock: &Arc<dyn Clock>) -> StoreOptions {
        self.clock = Arc::clone(clock);
        self
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
            clean_files_max: 56,
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

impl Store {
    /// Options with their defaults.
    pub fn options() -> StoreOptions {
        StoreOptions::default()
    }

    /// Opens the store in the directory `path` for writing, no matter how the last use ended, and creates
    /// it where there is none.
    ///
    /// What was found is in [`recovery_report`](Store::recovery_report). After a clean close, opening costs
    /// one listing a directory; after any other stop also a walk over what was written since the last
    /// recovery points, however large the logs are.
    ///
    /// # Errors
    /// [`Error::DataDirLocked`] where another process writes it; [`Error::UnsupportedVersion`] where a newer
    /// edgelog wrote it; [`Error::Storage`] where the directory cannot be used at all. Damage and a full
    /// disk are no errors: see the report.
    ///
    /// # Durability
    /// All records that can be read after this call are on the disk.
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Store::options().open(path)
    }

    /// Attaches read-only to a store that another process writes, or none. The writer needs not agree and
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
            _ => Error::storage("lock", LOCK_FILE)(error),
        })?;
        let (mut file, found) = CheckpointFile::open(&storage)?;
        let boot_id = storage.boot_id();
        let saved = found.newest.clone().unwrap_or_default();
        let recovering = Recovering {
            is_clean: (found.agree || bug(Bug::TrustOneCleanSlot)) && saved.clean,
            same_boot: saved.boot_id == boot_id && boot_id != [0; 16],
            had_checkpoint: found.newest.is_some(),
            slots: found.valid,
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

    /// Whether another process may be writing the store, and this one reads.
    pub(crate) fn is_attached(&self) -> bool {
        self.shared.attached
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

    /// The identities that the checkpoint has for logs now: those that last. It has none for files that were put here
    /// and not yet opened for writing.
    pub(crate) fn lasting_ids(&self) -> Result<BTreeMap<TopicPartition, LogId>> {
        let mut followed = self.shared.followed.lock();
        let logs = &followed.now(&*self.shared.storage)?.logs;
        Ok(logs.iter().map(|(name, saved)| (name.clone(), saved.id)).collect())
    }

    /// The files of the data directory, for what stands there next to the logs.
    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.shared.storage
    }

    /// Opens the next producer of a name, and fences those before it.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Closed`], [`Error::Storage`].
    ///
    /// # Durability
    /// The epoch is on the disk on return.
    pub(crate) fn open_producer(&self, name: &str) -> Result<ProducerIdentity> {
        self.shared.check_writable()?;
        self.shared.check_lock()?;
        self.shared.producer_ids.lock().open(&self.shared.storage, name)
    }

    /// What stamps records without a time.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// Returns where the store is open, in the process that opened it.
    pub(crate) fn check_open(&self) -> Result<()> {
        self.shared.check_open()
    }

    /// Who still needs records of which log: from there on, nothing is deleted for its age. Read from the holders'
    /// files now, once for all logs. A holder whose file cannot be read needs all of them.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`], [`Error::Storage`].
    pub fn retention_holds(&self) -> Result<RetentionHolds> {
        self.shared.check_open()?;
        RetentionHolds::read_leniently(&*self.shared.storage)
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
        Ok(self.shared.topics.read().iter().map(|(name, settings)| settings.describe(name)).collect())
    }

    /// Partitions that the checkpoint names and whose directories are not in the data directory, in order: their
    /// records cannot be read. Of a topic's deletion that a stop has cut short, none is missing.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`]; attached, what reading the checkpoint and the data directory can answer.
    pub fn missing_partitions(&self) -> Result<Vec<TopicPartition>> {
        self.shared.check_open()?;
        if self.shared.attached { self.shared.find_missing() } else { Ok(self.recovery_report().missing) }
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
    /// On return, the topic is on the disk. A power cut before leaves all of its partitions, or none after
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
    /// answer [`Error::Closed`]. Where a partition is a link, what it leads to goes as well if the
    /// `edgelog.properties` there names that partition and nothing else uses the directory; if not, the link alone.
    ///
    /// # Errors
    /// [`Error::UnknownTopicOrPartition`], [`Error::Storage`]; [`Error::NotOpened`] where a partition is a link that
    /// leads nowhere now; [`Error::ReadOnly`] when attached.
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
