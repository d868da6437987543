//! A group that this process hosts: its store, its positions, and how they last.
//!
//! # What lasts when
//!
//! 1. A commit first makes the records before its offsets durable in their logs, then lowers the retention hold where
//!    it moves back, then appends its records to `__consumer_offsets-0` in one batch, and flushes. It is acknowledged
//!    behind that.
//! 2. A snapshot is every position once more, behind all others. What lies before it is deleted once it is durable. A
//!    stop in between leaves both, of which the newer count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use edgelog_core::{LeaderEpoch, LogId, Offset, OffsetAndEpoch};
use parking_lot::Mutex;

use super::error::{ConsumerError, Result};
use super::hold::{Hold, Need};
use super::members::Members;
use super::name::dir_of;
use super::record::{CommittedOffset, Entry, METADATA_BYTES_MAX, parse, put_key, put_value};
use super::registry::Registry;
use crate::canary::{Bug, bug};
use crate::error::Error;
use crate::log::{BatchBuilder, Durability, Log, LostRange, NewRecord, OffsetSpec, TopicPartition};
use crate::storage::Storage;
use crate::store::failed_flushes::{FailedFlushes, GROUP_FILE, read_all};
use crate::store::retention_holds::{DELETED_GROUP_SUFFIX, GROUPS_DIR};
use crate::store::{NewTopic, Store};

/// The topic of the positions, in Kafka and here.
pub(super) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The topic of the state of share groups, in Kafka and here.
pub(crate) const SHARE_STATE_TOPIC: &str = "__share_group_state";
const SEGMENT_BYTES: &str = "524288";
/// A snapshot is due once so much was appended since the last one, or four times as much as it takes.
const SNAPSHOT_BYTES: usize = 256 << 10;
/// What a batch takes besides its records.
const BATCH_BYTES: usize = 90;

/// The groups that this process hosts. Consumers of one group share it.
static HOSTED: Registry<GroupShared> = Registry::new();

/// An offset, and what a program keeps with it: Kafka's `OffsetAndMetadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetAndMetadata {
    /// The offset that is to be read next: one more than that of the last record that was processed.
    pub offset: Offset,
    /// The leader epoch of that record; `None` lets the log say.
    pub leader_epoch: Option<LeaderEpoch>,
    /// What the program keeps with it, at most 4096 bytes.
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// An offset without metadata.
    pub fn new(offset: Offset) -> OffsetAndMetadata {
        OffsetAndMetadata { offset, leader_epoch: None, metadata: String::new() }
    }

    /// The same with metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: impl Into<String>) -> OffsetAndMetadata {
        OffsetAndMetadata { metadata: metadata.into(), ..self }
    }

    /// The same with the leader epoch of the last record that was processed.
    #[must_use]
    pub fn with_leader_epoch(self, epoch: LeaderEpoch) -> OffsetAndMetadata {
        OffsetAndMetadata { leader_epoch: Some(epoch), ..self }
    }
}

/// What opening a group found damaged, and what became of its positions. None of them moves forward.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct GroupRecovery {
    /// Offsets of the group's own log that are lost, as sentences.
    pub lost: Vec<String>,
    /// Positions that were set back to what the retention hold says, since newer ones may be among what is lost.
    pub set_back: Vec<TopicPartition>,
}

impl GroupRecovery {
    /// Whether nothing was lost.
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty()
    }
}

impl fmt::Display for GroupRecovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("nothing was lost");
        }
        f.write_str(&self.lost.join("; "))?;
        for name in &self.set_back {
            write!(f, "; the position of {name} was set back")?;
        }
        Ok(())
    }
}

/// A group of consumers, hosted by this process: its committed positions.
///
/// A group is a small store of its own in `groups/NAME/` of the data directory. Any process that can read the store can
/// have groups in it, also one that is attached; one process at a time hosts a group. Handles of one group in one
/// process share it, and so do its consumers; the last one that is dropped gives it up.
///
/// # Concurrency
/// Every call may come from any thread.
#[derive(Debug, Clone)]
pub struct Group {
    pub(super) shared: Arc<GroupShared>,
}

/// What a group is for: the two do not mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// It commits positions.
    Consumer,
    /// It shares records out one by one.
    Share,
}

#[derive(Debug)]
pub(super) struct GroupShared {
    name: String,
    kind: GroupKind,
    store: Arc<Store>,
    own: Store,
    recovery: GroupRecovery,
    positions: Mutex<Positions>,
    /// Of the flushes of this process, where it does not write the store.
    failed: Option<Mutex<FailedFlushes>>,
    pub(super) members: Members,
}

#[derive(Debug)]
struct Positions {
    log: Log,
    committed: BTreeMap<TopicPartition, CommittedOffset>,
    hold: Hold,
    batch: BatchBuilder,
    key: Vec<u8>,
    value: Vec<u8>,
    /// Bytes that were appended since the last snapshot, and what that took.
    appended: usize,
    snapshot: usize,
}

/// What the group's log says.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) committed: BTreeMap<TopicPartition, CommittedOffset>,
    /// Positions that were read before damage: newer ones may be lost.
    doubtful: BTreeSet<TopicPartition>,
    lost: Vec<String>,
    bytes: usize,
}

impl Group {
    /// Hosts the group `name` of `store`, which is created where there is none.
    ///
    /// # Errors
    /// [`ConsumerError::InvalidGroup`]; [`ConsumerError::GroupHosted`] with the other process's id;
    /// [`ConsumerError::WrongGroupKind`] for a share group; and [`ConsumerError::Group`] where its directory cannot be
    /// made or used.
    ///
    /// # Durability
    /// Every position that was committed before is there, also after a power cut. What damage took is in
    /// [`recovery`](Group::recovery).
    pub fn open(store: &Arc<Store>, name: &str) -> Result<Group> {
        Group::open_as(store, name, GroupKind::Consumer)
    }

    /// As [`open`](Group::open), for a group of one kind.
    pub(crate) fn open_as(store: &Arc<Store>, name: &str, kind: GroupKind) -> Result<Group> {
        store.check_open()?;
        let dir = dir_of(name)?;
        let shared = HOSTED.find_or_open(store, name, || GroupShared::open(store, name, &dir, kind))?;
        if shared.kind == kind { Ok(Group { shared }) } else { Err(wrong_kind(name, kind)) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What opening it found damaged.
    pub fn recovery(&self) -> &GroupRecovery {
        &self.shared.recovery
    }

    /// The committed position of a partition.
    pub fn committed(&self, partition: &TopicPartition) -> Option<CommittedOffset> {
        self.shared.positions.lock().committed.get(partition).cloned()
    }

    /// All committed positions.
    pub fn all_committed(&self) -> BTreeMap<TopicPartition, CommittedOffset> {
        self.shared.positions.lock().committed.clone()
    }

    /// Commits a position in each of these logs, all of them or none.
    ///
    /// What lies before a position is made durable in its log first: a position that is committed never runs ahead of
    /// what a power cut leaves. At `flush.messages=1` it is durable anyway; below that, this costs a flush of the log.
    ///
    /// # Errors
    /// [`ConsumerError::NotDurable`] where the records before an offset cannot be made durable from here, as in an
    /// attached process whose writer is gone; [`ConsumerError::MetadataTooLarge`]; [`Error::OffsetOutOfRange`] and
    /// [`Error::FencedLeaderEpoch`] in [`ConsumerError::Log`] for an offset that the log does not have; what writing
    /// can answer. Nothing is committed then, but where the group's own log failed: what that has is seen at the next
    /// open.
    ///
    /// # Durability
    /// On return, the positions survive a power cut.
    pub fn commit(&self, offsets: &[(&Log, OffsetAndMetadata)]) -> Result<()> {
        self.commit_if(offsets, || Ok(()))
    }

    /// As [`commit`](Group::commit), where `allowed` says so when all is ready to be written. What that returns is kept
    /// until it is.
    pub(super) fn commit_if<T>(
        &self,
        offsets: &[(&Log, OffsetAndMetadata)],
        allowed: impl FnOnce() -> Result<T>,
    ) -> Result<()> {
        let now = self.shared.store.clock().now();
        let mut entries = Vec::with_capacity(offsets.len());
        for (log, at) in offsets {
            let name = log.name();
            let (given, max) = (at.metadata.len(), METADATA_BYTES_MAX);
            if given > max {
                return Err(ConsumerError::MetadataTooLarge { log: name.clone(), given, max });
            }
            let leader_epoch = self.shared.check_durable(log, at)?;
            let position = CommittedOffset {
                offset: at.offset,
                leader_epoch,
                metadata: at.metadata.clone(),
                commit_timestamp: now,
                log_id: log.lasting_id(),
            };
            entries.push((name.clone(), Some(position)));
        }
        let _allowed = allowed()?;
        self.shared.append(entries)
    }

    /// Deletes the positions of these partitions: a consumer begins there as `auto.offset.reset` says.
    ///
    /// # Errors
    /// What writing can answer.
    ///
    /// # Durability
    /// On return, they are gone also after a power cut.
    pub fn delete_offsets(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.append(partitions.iter().map(|name| (name.clone(), None)).collect())
    }

    /// Keeps the records of a log from `offset` on, before a consumer hands out the first of them.
    pub(crate) fn hold(&self, log: &Log, offset: Offset) -> Result<()> {
        let now = self.shared.store.clock().now();
        let needs = [(log.name(), log.lasting_id().unwrap_or_default(), offset)];
        let mut positions = self.shared.positions.lock();
        positions.hold.lower(&needs, now).map_err(ConsumerError::group(&self.shared.name))
    }

    /// The group needs records of a log from `offset` on alone: the hold may say so when it is written next.
    pub(crate) fn advance(&self, log: &Log, offset: Offset) -> Result<()> {
        let now = self.shared.store.clock().now();
        let needs = [(log.name(), log.lasting_id().unwrap_or_default(), offset)];
        let mut positions = self.shared.positions.lock();
        positions.hold.raise(&needs);
        positions.hold.follow(now, false).map_err(ConsumerError::group(&self.shared.name))
    }

    /// A log of the group's own store, which is made where there is none.
    pub(crate) fn own_log(&self, topic: &NewTopic, name: &str) -> Result<Log> {
        let failed = ConsumerError::group(&self.shared.name);
        self.shared.own.create_topic_if_absent(topic).map_err(&failed)?;
        self.shared.own.log(name, 0).map_err(&failed)
    }

    /// The group's own store, which this process writes.
    pub(crate) fn own_store(&self) -> &Store {
        &self.shared.own
    }

    /// Makes the records of a log before `offset` durable.
    pub(crate) fn make_durable(&self, log: &Log, offset: Offset) -> Result<()> {
        let durable = self.shared.make_durable(log, offset).map_err(ConsumerError::log(log.name()))?;
        if durable < offset {
            return Err(ConsumerError::NotDurable { log: log.name().clone(), offset, durable });
        }
        Ok(())
    }

    /// Lets the retention hold follow the positions, where that is due.
    pub(crate) fn follow(&self) -> Result<()> {
        let now = self.shared.store.clock().now();
        let mut positions = self.shared.positions.lock();
        positions.hold.follow(now, false).map_err(ConsumerError::group(&self.shared.name))
    }
}

impl GroupShared {
    /// Makes the records before a position durable, and says which leader epoch the last of them has.
    fn check_durable(&self, log: &Log, at: &OffsetAndMetadata) -> Result<Option<LeaderEpoch>> {
        let name = log.name();
        let durable = if bug(Bug::CommitAheadOfTheLog) {
            log.offsets().log_end_offset
        } else {
            self.make_durable(log, at.offset).map_err(ConsumerError::log(name))?
        };
        let offsets = log.offsets();
        if at.offset < 0 || at.offset > offsets.log_end_offset {
            return Err(ConsumerError::log(name)(Error::OffsetOutOfRange {
                requested: at.offset,
                log_start_offset: offsets.log_start_offset,
                log_end_offset: offsets.log_end_offset,
            }));
        }
        if durable < at.offset {
            return Err(ConsumerError::NotDurable { log: name.clone(), offset: at.offset, durable });
        }
        let epoch = at.leader_epoch.unwrap_or_else(|| log.epoch_before(at.offset));
        let position = OffsetAndEpoch { offset: at.offset, leader_epoch: epoch };
        log.check_position(position).map_err(ConsumerError::log(name))?;
        Ok(Some(epoch).filter(|epoch| *epoch >= 0))
    }

    /// The end below which everything of the log is durable; at least `offset` where that can be.
    ///
    /// In an attached process, a flush that failed in another one, which may be gone, makes a later one prove nothing.
    /// What such processes have written down is looked at before the flush, and once more behind it.
    fn make_durable(&self, log: &Log, offset: Offset) -> crate::Result<Offset> {
        let Some(failed) = &self.failed else { return log.flush_up_to(offset) };
        if log.failed_flush().is_none() && log.offsets().recovery_point >= offset {
            return log.flush_up_to(offset);
        }
        let mut failed = failed.lock();
        let mut durable = Offset(0);
        for _ in 0..2 {
            let known = read_all(&**self.store.storage())?.remove(log.name());
            if let (Some((id, flush)), None) = (known, log.failed_flush()) {
                if id == log.id() {
                    log.inherit_failed_flush(flush, "another attached process");
                }
            }
            let outcome = log.flush_up_to(offset);
            match log.failed_flush() {
                Some(flush) => failed.remember(log.name(), log.id(), flush),
                None => failed.forget(log.name()),
            }
            durable = outcome?;
        }
        Ok(durable)
    }

    fn open(store: &Arc<Store>, name: &str, dir: &str, kind: GroupKind) -> Result<GroupShared> {
        let failed = ConsumerError::group(name);
        let path = format!("{GROUPS_DIR}/{dir}");
        let nested = store.storage().nested(&path).map_err(Error::storage("open directory", &path));
        let storage = nested.map_err(&failed)?;
        remove_deleted(store, dir).map_err(&failed)?;
        let options = Store::options().set("edgelog.housekeeping", "tick").map_err(&failed)?;
        let opened = options.shared_clock(store.clock()).open_shared(Arc::clone(&storage));
        let own = opened.map_err(|error| match error {
            Error::DataDirLocked(source) => ConsumerError::GroupHosted { name: name.to_owned(), source },
            error => failed(error),
        })?;
        let hold = Hold::open(&storage).map_err(&failed)?;
        let flushes = if store.is_attached() {
            Some(Mutex::new(FailedFlushes::open(Arc::clone(&storage), GROUP_FILE).map_err(&failed)?))
        } else {
            None
        };
        let topic = NewTopic::new(OFFSETS_TOPIC)
            .config("segment.bytes", SEGMENT_BYTES)
            .config("segment.index.bytes", "16384")
            .config("flush.messages", "1")
            .config("retention.ms", "-1");
        let is_new = own.create_topic_if_absent(&topic).map_err(&failed)?;
        let log = own.log(OFFSETS_TOPIC, 0).map_err(&failed)?;
        let mut loaded = load(&log, name).map_err(&failed)?;
        let is_other = match kind {
            GroupKind::Consumer => own.topic(SHARE_STATE_TOPIC).is_ok(),
            GroupKind::Share => !loaded.committed.is_empty(),
        };
        if is_other {
            return Err(wrong_kind(name, kind));
        }
        if is_new && !hold.logs().is_empty() {
            loaded.lost.push("the log of its positions is gone".to_owned());
        }
        for outcome in &own.recovery_report().logs {
            // What was cut behind the end was not acknowledged.
            if !outcome.lost.is_empty() || !outcome.doubts.is_empty() {
                loaded.doubt(format!("its last open for writing found damage in {}", outcome.name));
            }
        }
        let mut recovery = GroupRecovery::default();
        if !loaded.lost.is_empty() && kind == GroupKind::Consumer {
            recovery = loaded.heal(&hold);
        }
        let batch = log.batch();
        let snapshot = loaded.committed.len() * BATCH_BYTES;
        let mut positions = Positions {
            log,
            committed: loaded.committed,
            hold,
            batch,
            key: Vec::new(),
            value: Vec::new(),
            appended: loaded.bytes.saturating_sub(snapshot),
            snapshot,
        };
        if !recovery.is_clean() {
            tracing::warn!(group = name, %recovery, "the group's store was damaged");
            // Where that fails, the next open finds the same.
            if let Err(error) = positions.write_snapshot(name) {
                tracing::warn!(group = name, %error, "the healed positions could not be written");
            }
        }
        Ok(GroupShared {
            name: name.to_owned(),
            kind,
            store: Arc::clone(store),
            own,
            recovery,
            positions: Mutex::new(positions),
            failed: flushes,
            members: Members::new(),
        })
    }

    /// Positions to commit, or with `None` to delete, all of them or none.
    fn append(&self, entries: Vec<(TopicPartition, Option<CommittedOffset>)>) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let failed = ConsumerError::group(&self.name);
        let now = self.store.clock().now();
        let mut positions = self.positions.lock();
        let needs: Vec<Need<'_>> = entries
            .iter()
            .filter_map(|(name, at)| at.as_ref().map(|at| (name, at.log_id.unwrap_or_default(), at.offset)))
            .collect();
        positions.hold.lower(&needs, now).map_err(&failed)?;
        positions.append(&self.name, &entries).map_err(&failed)?;
        positions.hold.raise(&needs);
        for (name, at) in entries {
            if let Some(at) = at {
                positions.committed.insert(name, at);
            } else {
                positions.hold.forget(&name);
                positions.committed.remove(&name);
            }
        }
        // The positions are committed; what follows only keeps the files short, and is tried again.
        let kept_short = positions.keep_short(&self.name).and_then(|()| positions.hold.follow(now, false));
        if let Err(error) = kept_short {
            tracing::warn!(group = self.name, %error, "the group's files could not be kept short");
        }
        Ok(())
    }
}

impl Positions {
    /// Appends positions as one batch. Durable on return.
    fn append(&mut self, group: &str, entries: &[(TopicPartition, Option<CommittedOffset>)]) -> crate::Result<()> {
        let durability = if bug(Bug::CommitBeforeTheFlush) { Durability::Os } else { Durability::Sync };
        self.batch.clear();
        for (name, at) in entries {
            self.push(group, name, at.as_ref())?;
        }
        self.appended += self.batch.size();
        self.log.append_batch_with(&mut self.batch, durability)?;
        Ok(())
    }

    fn push(&mut self, group: &str, name: &TopicPartition, at: Option<&CommittedOffset>) -> crate::Result<()> {
        self.key.clear();
        put_key(&mut self.key, group, name);
        self.value.clear();
        let mut record = NewRecord::tombstone(&self.key);
        if let Some(at) = at {
            put_value(&mut self.value, at);
            record = NewRecord::value(&self.value).with_key(&self.key);
        }
        self.batch.push(record)
    }

    fn keep_short(&mut self, group: &str) -> crate::Result<()> {
        if self.appended < SNAPSHOT_BYTES.max(4 * self.snapshot) {
            return Ok(());
        }
        self.write_snapshot(group)
    }

    /// Writes every position once more, and deletes what lies before.
    fn write_snapshot(&mut self, group: &str) -> crate::Result<()> {
        let start = self.log.offsets().log_end_offset;
        let committed = std::mem::take(&mut self.committed);
        let written = self.write_all(group, &committed);
        self.committed = committed;
        self.snapshot = written?;
        self.log.flush()?;
        self.log.delete_records_before(start)?;
        self.appended = 0;
        Ok(())
    }

    /// Appends these positions in as many batches as they take. Returns their bytes.
    fn write_all(
        &mut self,
        group: &str,
        committed: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> crate::Result<usize> {
        let mut bytes = 0;
        self.batch.clear();
        for (name, at) in committed {
            if self.batch.size() > SNAPSHOT_BYTES / 2 {
                bytes += self.batch.size();
                self.log.append_batch_with(&mut self.batch, Durability::Os)?;
            }
            self.push(group, name, Some(at))?;
        }
        if !self.batch.is_empty() {
            bytes += self.batch.size();
            self.log.append_batch_with(&mut self.batch, Durability::Os)?;
        }
        Ok(bytes)
    }
}

fn wrong_kind(name: &str, wanted: GroupKind) -> ConsumerError {
    let wanted = if wanted == GroupKind::Share { "share" } else { "consumer" };
    ConsumerError::WrongGroupKind { name: name.to_owned(), wanted }
}

/// Reads the positions that a log says the group has.
pub(super) fn load(log: &Log, group: &str) -> crate::Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut reader = log.reader(OffsetSpec::Earliest)?;
    loop {
        let batch = match reader.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(loaded),
            Err(error) if error.is_corrupt() => {
                let LostRange { first_offset, next_offset, file, .. } = reader.skip_damage()?;
                loaded.doubt(format!("{file} is damaged: its offsets {first_offset} to {next_offset} are lost"));
                continue;
            }
            Err(error) => return Err(error),
        };
        loaded.bytes += batch.bytes().len();
        let records = match batch.records() {
            Ok(records) => records,
            Err(error) => {
                loaded.doubt(error.to_string());
                continue;
            }
        };
        for record in records {
            match record.map(|record| parse(record.key, record.value)) {
                Ok(Entry::Offset(of, name, at)) if of == group => {
                    loaded.doubtful.remove(&name);
                    match at {
                        Some(at) => drop(loaded.committed.insert(name, at)),
                        None => drop(loaded.committed.remove(&name)),
                    }
                }
                Ok(Entry::Offset(..) | Entry::Other) => {}
                Ok(Entry::Unreadable) => {
                    loaded.doubt(format!("a record from offset {} on is none of this version", batch.base_offset()));
                }
                Err(error) => loaded.doubt(error.to_string()),
            }
        }
    }
}

impl Loaded {
    /// Something was lost here: what was read before may not be the newest.
    fn doubt(&mut self, lost: String) {
        self.lost.push(lost);
        self.doubtful.extend(self.committed.keys().cloned());
    }

    /// What the retention hold says is never ahead of a position. What may have been followed by a position that is
    /// lost goes back there, and so does what is lost altogether.
    fn heal(&mut self, hold: &Hold) -> GroupRecovery {
        let mut set_back = Vec::new();
        for (name, held) in hold.logs() {
            let id = Some(held.log_id).filter(|id| *id != LogId::ZERO);
            match self.committed.get_mut(name) {
                Some(at) if !self.doubtful.contains(name) || (at.log_id == id && at.offset <= held.offset) => {}
                found => {
                    let before = found.map(|at| at.clone());
                    let of_this = before.filter(|at| at.log_id == id);
                    let at = CommittedOffset {
                        offset: held.offset,
                        leader_epoch: None,
                        metadata: String::new(),
                        commit_timestamp: of_this.map_or(edgelog_core::TimestampMs(0), |at| at.commit_timestamp),
                        log_id: id,
                    };
                    self.committed.insert(name.clone(), at);
                    set_back.push(name.clone());
                }
            }
        }
        // Without a hold there is nothing to go back to but the beginning.
        for name in &self.doubtful {
            if !hold.logs().contains_key(name) {
                if let Some(at) = self.committed.get_mut(name) {
                    (at.offset, at.leader_epoch) = (Offset(0), None);
                    set_back.push(name.clone());
                }
            }
        }
        GroupRecovery { lost: std::mem::take(&mut self.lost), set_back }
    }
}

impl Drop for GroupShared {
    fn drop(&mut self) {
        let positions = self.positions.get_mut();
        let now = self.store.clock().now();
        let followed = positions.hold.follow(now, true).and_then(|()| self.own.close());
        if let Err(error) = followed {
            if !matches!(error, Error::Forked | Error::Closed) {
                tracing::warn!(group = self.name, %error, "the group could not be closed cleanly");
            }
        }
    }
}

/// Removes a directory with all that is in it.
pub(super) fn remove_all(storage: &dyn Storage, dir: &str) -> crate::Result<()> {
    for entry in storage.read_dir(dir).map_err(Error::storage("list", dir))? {
        let path = format!("{dir}/{}", entry.name);
        if entry.is_dir {
            remove_all(storage, &path)?;
        } else {
            storage.remove_file(&path).map_err(Error::storage("remove", &path))?;
        }
    }
    storage.remove_dir(dir).map_err(Error::storage("remove", dir))
}

/// Removes what a deletion of the group that was cut short has left.
fn remove_deleted(store: &Store, dir: &str) -> crate::Result<()> {
    let gone = format!("{dir}{DELETED_GROUP_SUFFIX}");
    if store.storage().metadata(&format!("{GROUPS_DIR}/{gone}")).is_err() {
        return Ok(());
    }
    let groups = store.storage().nested(GROUPS_DIR).map_err(Error::storage("open directory", GROUPS_DIR))?;
    remove_all(&*groups, &gone)
}

#[cfg(test)]
mod tests;
