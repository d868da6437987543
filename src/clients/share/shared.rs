//! A share group that this process hosts: its lock tables, and how they last.
//!
//! # What lasts when
//!
//! 1. Where a new share-partition begins is durable before its first record is given out.
//! 2. What became of records is appended to `__share_group_state-0` and flushed, behind a flush of the records
//!    themselves, and only then applied. A record that was given back is given out again behind that.
//! 3. What cannot be processed is set aside and becomes a dead letter (see `set_aside`).
//! 4. A snapshot of every share-partition is written now and then, and what lies before it is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use edgelog_core::{LeaderEpoch, Offset, OffsetAndEpoch, TimestampMs};
use parking_lot::Mutex;

use super::config::ShareConfig;
use super::record::{Entry, Head, Key, SetAside, State, parse, put_key, put_value};
use super::set_aside::{Due, Writer, producer_name};
use super::table::{AckType, Change, DeliveryState, LockTable};
use crate::canary::{Bug, bug};
use crate::clients::consumer::OffsetReset;
use crate::clients::dead_letter::{Home, Outlets};
use crate::clients::group::{ConsumerError, Group, GroupKind, Registry, Result, SHARE_STATE_TOPIC, Waker};
use crate::error::Error;
use crate::log::{BatchBuilder, Durability, Log, NewRecord, OffsetSpec, Reader, TopicPartition};
use crate::store::{NewTopic, Store};

/// A snapshot is due once so much was appended since the last one, or four times as much as it takes.
const SNAPSHOT_BYTES: usize = 256 << 10;
/// No group has more of a partition in flight.
const SPAN_MAX: i64 = 65_536;

/// The share groups of this process. Its consumers share them.
static HOSTED: Registry<ShareGroup> = Registry::new();

/// An acknowledgement, and what came of it.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) offset: Offset,
    pub(super) answer: AckType,
    /// Its consumer does not hold the record.
    pub(super) is_refused: bool,
}

#[derive(Debug)]
pub(super) struct ShareGroup {
    group: Group,
    store: Arc<Store>,
    config: ShareConfig,
    started: Instant,
    state: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    batch: BatchBuilder,
    key: Vec<u8>,
    value: Vec<u8>,
    changes: Vec<Change>,
    saved: BTreeMap<Key, Saved>,
    partitions: BTreeMap<TopicPartition, Partition>,
    appended: usize,
    snapshot: usize,
    owners: u64,
    wakers: Vec<(u64, Waker)>,
    outlets: Outlets,
    /// Dead letters could not be written when that was last tried, and why where that was not reported.
    is_behind: bool,
    failed: Option<ConsumerError>,
}

/// What the group's log says of a share-partition that no consumer of this process has had.
#[derive(Debug, Default)]
pub(super) struct Saved {
    snapshot_epoch: i32,
    leader_epoch: LeaderEpoch,
    pub(super) start: Offset,
    pub(super) records: BTreeMap<Offset, Change>,
    /// The topic, as those that are set aside say it.
    topic: String,
    set_aside: BTreeMap<Offset, SetAside>,
}

#[derive(Debug)]
struct Partition {
    log: Log,
    key: Key,
    table: LockTable,
    snapshot_epoch: i32,
    /// At the end of the log.
    tail: Reader,
    /// Records without a dead letter yet.
    set_aside: BTreeMap<Offset, SetAside>,
}

/// What a record of the group's log says behind its head.
struct Said<'a> {
    changes: &'a [Change],
    /// Of the records that are set aside.
    topic: &'a str,
    set_aside: &'a [&'a SetAside],
}

impl Saved {
    fn apply(&mut self, state: State) {
        if state.is_snapshot {
            self.records.clear();
            self.set_aside.clear();
        }
        self.snapshot_epoch = state.snapshot_epoch;
        self.leader_epoch = state.leader_epoch;
        self.start = match state.start {
            Some(start) if state.is_snapshot => start,
            Some(start) => start.max(self.start),
            None => self.start,
        };
        for (first, last, state, count) in state.batches {
            self.set_aside.retain(|offset, _| !(first..=last).contains(offset));
            let mut offset = first.max(self.start);
            while offset <= last.min(self.start + SPAN_MAX) {
                self.records.insert(offset, Change { offset, state, count });
                offset += 1;
            }
        }
        self.records = self.records.split_off(&self.start);
        for (topic, one) in
            state.set_aside.into_iter().flat_map(|(topic, all)| all.into_iter().map(move |one| (topic.clone(), one)))
        {
            let SetAside { offset, count, cause, .. } = one;
            if offset >= self.start {
                self.records.insert(offset, Change { offset, state: DeliveryState::Archiving(cause), count });
            }
            self.topic = topic;
            self.set_aside.insert(offset, one);
        }
    }

    /// Forgets what it says of records that were truncated: others may have their offsets. Whether there were such.
    fn follow_truncation(&mut self, log: &Log) -> crate::Result<bool> {
        let at = OffsetAndEpoch { offset: self.start, leader_epoch: self.leader_epoch };
        let end = match log.check_position(at) {
            Ok(()) => log.offsets().log_end_offset,
            Err(Error::FencedLeaderEpoch { end_offset, .. }) => end_offset,
            Err(error) => return Err(error),
        };
        let forgotten = self.records.split_off(&end);
        self.set_aside.split_off(&end);
        if end >= self.start && forgotten.is_empty() {
            return Ok(false);
        }
        tracing::warn!(log = %log.name(), start = %self.start, %end, "the log was truncated; going on there");
        self.start = self.start.min(end);
        Ok(true)
    }
}

impl ShareGroup {
    pub(super) fn open(store: &Arc<Store>, name: &str, config: &ShareConfig) -> Result<Arc<ShareGroup>> {
        HOSTED.find_or_open(store, name, || ShareGroup::read(store, name, config))
    }

    /// The group as its log says it is.
    fn read(store: &Arc<Store>, name: &str, config: &ShareConfig) -> Result<ShareGroup> {
        let group = Group::open_as(store, name, GroupKind::Share)?;
        let topic = NewTopic::new(SHARE_STATE_TOPIC)
            .config("segment.bytes", "524288")
            .config("segment.index.bytes", "16384")
            .config("flush.messages", "1")
            .config("retention.ms", "-1");
        let log = group.own_log(&topic, SHARE_STATE_TOPIC)?;
        let (saved, appended) = load(&log, name).map_err(ConsumerError::group(name))?;
        let inner = Inner {
            batch: log.batch(),
            log,
            key: Vec::new(),
            value: Vec::new(),
            changes: Vec::new(),
            saved,
            partitions: BTreeMap::new(),
            appended,
            snapshot: 0,
            owners: 0,
            wakers: Vec::new(),
            outlets: Outlets::default(),
            is_behind: false,
            failed: None,
        };
        let (store, started, state) = (Arc::clone(store), Instant::now(), Mutex::new(inner));
        let share = ShareGroup { group, store, config: config.clone(), started, state };
        share.finish_set_aside(&mut share.state.lock(), Durability::Sync)?;
        Ok(share)
    }

    pub(super) fn name(&self) -> &str {
        self.group.name()
    }

    /// The topic that its dead letters go to.
    pub(super) fn dead_letters(&self) -> Option<&str> {
        self.config.dead_letters.as_deref()
    }

    /// A consumer joins, under a number of its own.
    pub(super) fn join(&self, waker: Waker) -> u64 {
        let mut inner = self.state.lock();
        inner.owners += 1;
        let owner = inner.owners;
        inner.wakers.push((owner, waker));
        owner
    }

    /// A consumer is gone: what it holds is given back.
    pub(super) fn leave(&self, owner: u64) -> Result<()> {
        let mut inner = self.state.lock();
        inner.wakers.retain(|(other, _)| *other != owner);
        let names: Vec<_> = inner.partitions.keys().cloned().collect();
        for name in names {
            self.give_back(&mut inner, &name, Some(owner))?;
        }
        Ok(())
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Begins to share out a partition, where that has not begun.
    pub(super) fn open_partition(&self, name: &TopicPartition) -> Result<()> {
        let mut inner = self.state.lock();
        let log = self.store.log(&name.topic, name.partition).map_err(ConsumerError::log(name))?;
        let Some(id) = log.lasting_id() else {
            let reason = "the store's checkpoint does not say which log this is; open the store for writing once";
            return Err(ConsumerError::NoPosition { log: name.clone(), reason: reason.to_owned() });
        };
        let key = (id, name.partition);
        if inner.partitions.get(name).is_some_and(|partition| partition.key == key) {
            return Ok(());
        }
        let failed = || ConsumerError::log(name);
        let tail = log.reader(OffsetSpec::Latest).map_err(failed())?;
        let end = tail.position().offset;
        let is_as_saved = match inner.saved.get_mut(&key) {
            Some(saved) => !saved.follow_truncation(&log).map_err(failed())?,
            None => false,
        };
        let saved = inner.saved.remove(&key);
        let start = match (&saved, self.config.reset) {
            (Some(saved), _) => saved.start.max(log.offsets().log_start_offset),
            (None, OffsetReset::Latest) => end,
            (None, OffsetReset::ByDuration(before)) => {
                let before = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
                let time = TimestampMs(self.store.clock().now().0.saturating_sub(before));
                log.offset_for_time(time).map_err(failed())?.map_or(end, |at| at.offset)
            }
            (None, _) => log.offsets().log_start_offset,
        };
        self.group.hold(&log, start)?;
        let mut table = LockTable::new(start, self.config.limits);
        let snapshot_epoch = saved.as_ref().map_or(0, |saved| saved.snapshot_epoch);
        let Saved { records, set_aside, .. } = saved.unwrap_or_default();
        for change in records.into_values() {
            table.restore(change);
        }
        let mut partition = Partition { log, key, table, snapshot_epoch, tail, set_aside };
        if !is_as_saved {
            inner.snapshot_of(self.name(), &mut partition, self.store.clock().now(), Durability::Sync)?;
        }
        inner.partitions.insert(name.clone(), partition);
        Ok(())
    }

    /// Lets a partition begin at another offset, with all records from there on as new.
    pub(super) fn begin_at(&self, log: &Log, offset: Offset) -> Result<()> {
        let name = log.name();
        self.open_partition(name)?;
        let inner = &mut *self.state.lock();
        if !inner.wakers.is_empty() {
            return Err(ConsumerError::GroupNotEmpty { name: self.name().to_owned() });
        }
        self.group.hold(log, offset)?;
        let Some(mut partition) = inner.partitions.remove(name) else { return Ok(()) };
        let before = std::mem::replace(&mut partition.table, LockTable::new(offset, self.config.limits));
        let written = inner.snapshot_of(self.name(), &mut partition, self.store.clock().now(), Durability::Sync);
        if written.is_err() {
            partition.table = before;
        }
        inner.partitions.insert(name.clone(), partition);
        written?;
        self.group.advance(log, offset)
    }

    /// Gives at most `max` records of a partition to a consumer.
    pub(super) fn acquire(
        &self,
        owner: u64,
        name: &TopicPartition,
        max: usize,
        taken: &mut Vec<(Offset, u16)>,
    ) -> Result<()> {
        let mut inner = self.state.lock();
        if inner.is_behind {
            self.catch_up(&mut inner);
        }
        self.give_back(&mut inner, name, None)?;
        let Some(partition) = inner.partitions.get_mut(name) else { return Ok(()) };
        partition.table.log_starts_at(partition.log.offsets().log_start_offset);
        let end = partition.tail.position().offset + i64::try_from(partition.tail.lag()).unwrap_or(i64::MAX);
        partition.table.admit(end);
        partition.table.acquire(owner, self.now_ms(), max, taken);
        Ok(())
    }

    /// Whether a consumer holds a record, still.
    pub(super) fn holds(&self, owner: u64, name: &TopicPartition, offset: Offset) -> bool {
        let (inner, now) = (self.state.lock(), self.now_ms());
        let partition = inner.partitions.get(name);
        partition.is_some_and(|partition| partition.table.plan(owner, offset, AckType::Renew, now).is_some())
    }

    /// Gives back records that were acquired and are not handed out: of some the time has not come, for so many
    /// milliseconds, and of others it is over.
    pub(super) fn withhold(
        &self,
        owner: u64,
        name: &TopicPartition,
        early: &[(Offset, i64)],
        expired: &[Offset],
    ) -> Result<()> {
        let inner = &mut *self.state.lock();
        let now = self.now_ms();
        let Some(partition) = inner.partitions.get_mut(name) else { return Ok(()) };
        for (offset, wait_ms) in early {
            partition.table.postpone(owner, *offset, now.saturating_add(*wait_ms));
        }
        let Some(last) = expired.last() else { return Ok(()) };
        let changes: Vec<_> = expired.iter().filter_map(|at| partition.table.plan_expired(owner, *at)).collect();
        self.group.make_durable(&partition.log, *last + 1)?;
        self.write_and_apply(inner, name, &changes)
    }

    /// Ends the locks that are over, or those of a consumer.
    fn give_back(&self, inner: &mut Inner, name: &TopicPartition, owner: Option<u64>) -> Result<()> {
        let Some(partition) = inner.partitions.get(name) else { return Ok(()) };
        let mut changes = std::mem::take(&mut inner.changes);
        changes.clear();
        partition.table.plan_given_back(owner, self.now_ms(), &mut changes);
        let done = self.write_and_apply(inner, name, &changes);
        inner.changes = changes;
        done
    }

    /// Acknowledges records of a partition, in the order of their offsets, but for those that the consumer does not
    /// hold. Durable on return.
    pub(super) fn acknowledge(&self, owner: u64, name: &TopicPartition, acks: &mut [Ack]) -> Result<()> {
        let inner = &mut *self.state.lock();
        let Some(last) = acks.last().map(|ack| ack.offset) else { return Ok(()) };
        let Some(partition) = inner.partitions.get(name) else {
            for ack in acks {
                ack.is_refused = true;
            }
            return Ok(());
        };
        self.group.make_durable(&partition.log, last + 1)?;
        let now = self.now_ms();
        let mut changes = std::mem::take(&mut inner.changes);
        changes.clear();
        for ack in acks {
            match partition.table.plan(owner, ack.offset, ack.answer, now) {
                Some(change) => changes.push(change),
                // What retention has taken needs no answer.
                None => ack.is_refused = ack.offset >= partition.log.offsets().log_start_offset,
            }
        }
        let done = self.write_and_apply(inner, name, &changes);
        inner.changes = changes;
        done
    }

    fn write_and_apply(&self, inner: &mut Inner, name: &TopicPartition, changes: &[Change]) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let set_aside = self.number_set_aside(inner, name, changes)?;
        let Some(mut partition) = inner.partitions.remove(name) else { return Ok(()) };
        // A renewal is not written: no lock is.
        let is_written = changes.iter().any(|change| change.state != DeliveryState::Acquired);
        let is_written = is_written && (set_aside.is_empty() || !bug(Bug::DeadLetterWithoutAnIntent));
        let now = self.store.clock().now();
        let written = if is_written { inner.update(self.name(), &partition, changes, &set_aside, now) } else { Ok(()) };
        let is_behind = written.is_ok() && !set_aside.is_empty();
        if written.is_ok() {
            partition.table.apply(changes, self.now_ms());
            partition.set_aside.extend(set_aside.into_iter().map(|one| (one.offset, one)));
        }
        let advanced = self.group.advance(&partition.log, partition.table.start());
        inner.partitions.insert(name.clone(), partition);
        written?;
        if is_behind {
            self.catch_up(inner);
        }
        inner.wakers.iter().for_each(|(_, waker)| waker.nudge());
        // The state is written; what follows only keeps the files short, and is tried again.
        if let Err(error) = advanced.and_then(|()| inner.keep_short(self.name(), self.store.clock().now())) {
            tracing::warn!(group = self.name(), %error, "the group's files could not be kept short");
        }
        Ok(())
    }

    /// Gives the dead letters of these changes their numbers. The records are durable on return.
    fn number_set_aside(&self, inner: &mut Inner, name: &TopicPartition, changes: &[Change]) -> Result<Vec<SetAside>> {
        let is_set_aside = |change: &&Change| matches!(change.state, DeliveryState::Archiving(_));
        let (Some(last), Some(topic), Some(partition)) =
            (changes.iter().rfind(is_set_aside), &self.config.dead_letters, inner.partitions.get(name))
        else {
            return Ok(Vec::new());
        };
        self.group.make_durable(&partition.log, last.offset + 1)?;
        let (target, producer) =
            (Outlets::target(&self.group, &self.store, topic, name.partition)?, producer_name(self.name()));
        inner.outlets.outlet(&self.group, &self.store, &target, &producer)?;
        let mut number = |change: &Change| {
            let DeliveryState::Archiving(cause) = change.state else { return None };
            let number = inner.outlets.give_out(&target, &producer);
            let (offset, count, target) = (change.offset, change.count, target.clone());
            Some(SetAside { offset, count, cause, number, target })
        };
        Ok(changes.iter().filter_map(&mut number).collect())
    }

    /// Writes the dead letters that are due. What that answers, a poll reports that has nothing else to return.
    fn catch_up(&self, inner: &mut Inner) {
        let done = self.finish_set_aside(inner, Durability::Os);
        inner.is_behind = done.is_err();
        if let Err(error) = &done {
            tracing::warn!(group = self.name(), %error, "records stay set aside");
        }
        inner.failed = done.err();
    }

    /// Writes the dead letters that are due, and archives their records.
    fn finish_set_aside(&self, inner: &mut Inner, durability: Durability) -> Result<()> {
        let mut due = self.due(inner)?;
        if durability == Durability::Sync && !due.is_empty() {
            // A process before may have died between its append and its flush.
            inner.log.flush().map_err(ConsumerError::group(self.name()))?;
        }
        due.sort_by(|a, b| (&a.record.target, a.record.number).cmp(&(&b.record.target, b.record.number)));
        let (group, store) = (&self.group, &*self.store);
        let writer = Writer { group, store, copies_records: self.config.copies_records };
        for of_one in due.chunk_by(|a, b| a.record.target == b.record.target) {
            writer.write(&mut inner.outlets, of_one)?;
            let mut by_log = BTreeMap::<_, Vec<_>>::new();
            for Due { log, key, record: SetAside { offset, count, .. }, .. } in of_one {
                let change = Change { offset: *offset, state: DeliveryState::Archived, count: *count };
                by_log.entry((log, *key)).or_default().push(change);
            }
            for ((log, key), mut changes) in by_log {
                changes.sort_by_key(|change| change.offset);
                inner.archive(self.name(), log, key, &changes, self.store.clock().now(), durability)?;
                if let Some(partition) = inner.partitions.get_mut(log) {
                    partition.table.apply(&changes, self.now_ms());
                    self.group.advance(&partition.log, partition.table.start())?;
                }
            }
        }
        if due.iter().any(|due| due.record.target.home == Home::Group) {
            // Their retention is due now and then.
            let own = self.group.own_store();
            own.tick(store.clock().now()).map_err(ConsumerError::group(self.name()))?;
        }
        Ok(())
    }

    /// The records that are set aside, but for those whose dead letters this process cannot write: they wait for one
    /// that writes the store.
    fn due(&self, inner: &Inner) -> Result<Vec<Due>> {
        let mut due = Vec::new();
        for (name, partition) in &inner.partitions {
            let of = |record: &SetAside| Due {
                log: name.clone(),
                key: partition.key,
                source: Some(partition.log.clone()),
                record: record.clone(),
            };
            due.extend(partition.set_aside.values().map(of));
        }
        for (key, saved) in inner.saved.iter().filter(|(_, saved)| !saved.set_aside.is_empty()) {
            let log = TopicPartition::new(saved.topic.as_str(), key.1);
            let source = match self.store.log(&log.topic, log.partition) {
                Ok(found) => Some(found).filter(|found| found.lasting_id() == Some(key.0)),
                Err(Error::UnknownTopicOrPartition { .. }) => None,
                Err(error) => return Err(ConsumerError::log(&log)(error)),
            };
            let of =
                |record: &SetAside| Due { log: log.clone(), key: *key, source: source.clone(), record: record.clone() };
            due.extend(saved.set_aside.values().map(of));
        }
        due.retain(|due| due.record.target.home == Home::Group || !self.store.is_attached());
        Ok(due)
    }

    /// Why dead letters could not be written, once for each try.
    pub(super) fn take_failure(&self) -> Option<ConsumerError> {
        self.state.lock().failed.take()
    }

    /// In so many milliseconds something becomes available by time alone.
    pub(super) fn next_in_ms(&self) -> Option<u64> {
        let (inner, now) = (self.state.lock(), self.now_ms());
        let next = inner.partitions.values().filter_map(|partition| partition.table.next_ms(now)).min()?;
        Some(u64::try_from(next - now).unwrap_or(0))
    }

    /// The start offset of a partition, how many records of it are held, and how many behind that offset are done.
    #[cfg(test)]
    pub(super) fn describe(&self, name: &TopicPartition) -> Option<(Offset, usize, usize)> {
        let inner = self.state.lock();
        let table = &inner.partitions.get(name)?.table;
        let (held, done) = table.counts();
        Some((table.start(), held, done))
    }
}

impl Inner {
    fn update(
        &mut self,
        group: &str,
        of: &Partition,
        changes: &[Change],
        set_aside: &[SetAside],
        now: TimestampMs,
    ) -> Result<()> {
        let head = Head {
            is_snapshot: false,
            snapshot_epoch: of.snapshot_epoch,
            leader_epoch: of.log.epoch_before(of.table.start()),
            start: of.table.start(),
            now,
        };
        let durability = if bug(Bug::ShareStateBeforeTheFlush) { Durability::Os } else { Durability::Sync };
        let set_aside: Vec<_> = set_aside.iter().collect();
        let said = Said { changes, topic: &of.log.name().topic, set_aside: &set_aside };
        self.append(group, of.key, &head, &said, durability)
    }

    /// Says that records of a log that were set aside are archived.
    fn archive(
        &mut self,
        group: &str,
        log: &TopicPartition,
        key: Key,
        changes: &[Change],
        now: TimestampMs,
        durability: Durability,
    ) -> Result<()> {
        let said = Said { changes, topic: &log.topic, set_aside: &[] };
        let of_open = self.partitions.get(log).filter(|partition| partition.key == key);
        let (snapshot_epoch, leader_epoch, start) = match (of_open, self.saved.get(&key)) {
            (Some(of), _) => (of.snapshot_epoch, of.log.epoch_before(of.table.start()), of.table.start()),
            (None, Some(saved)) => (saved.snapshot_epoch, saved.leader_epoch, saved.start),
            (None, None) => return Ok(()),
        };
        let head = Head { is_snapshot: false, snapshot_epoch, leader_epoch, start, now };
        self.append(group, key, &head, &said, durability)?;
        for change in changes {
            if let Some(partition) = self.partitions.get_mut(log).filter(|partition| partition.key == key) {
                partition.set_aside.remove(&change.offset);
            }
            if let Some(saved) = self.saved.get_mut(&key) {
                saved.set_aside.remove(&change.offset);
                saved.records.entry(change.offset).and_modify(|record| *record = *change);
            }
        }
        Ok(())
    }

    fn snapshot_of(&mut self, group: &str, of: &mut Partition, now: TimestampMs, durability: Durability) -> Result<()> {
        of.snapshot_epoch = of.snapshot_epoch.wrapping_add(1).max(0);
        let mut changes = Vec::new();
        of.table.written(&mut changes);
        let start = of.table.start();
        let leader_epoch = of.log.epoch_before(start);
        let head = Head { is_snapshot: true, snapshot_epoch: of.snapshot_epoch, leader_epoch, start, now };
        let set_aside: Vec<_> = of.set_aside.values().collect();
        let said = Said { changes: &changes, topic: &of.log.name().topic, set_aside: &set_aside };
        self.append(group, of.key, &head, &said, durability)
    }

    fn append(&mut self, group: &str, key: Key, head: &Head, said: &Said<'_>, durability: Durability) -> Result<()> {
        self.key.clear();
        put_key(&mut self.key, head.is_snapshot, group, key);
        self.value.clear();
        put_value(&mut self.value, head, said.changes, said.topic, said.set_aside);
        self.batch.clear();
        let failed = ConsumerError::group(group);
        self.batch.push(NewRecord::value(&self.value).with_key(&self.key)).map_err(&failed)?;
        self.appended += self.batch.size();
        self.log.append_batch_with(&mut self.batch, durability).map_err(&failed)?;
        Ok(())
    }

    /// Writes everything once more where it is due, and deletes what lies before.
    fn keep_short(&mut self, group: &str, now: TimestampMs) -> Result<()> {
        if self.appended < SNAPSHOT_BYTES.max(4 * self.snapshot) {
            return Ok(());
        }
        let begin = self.log.offsets().log_end_offset;
        self.appended = 0;
        let mut partitions = std::mem::take(&mut self.partitions);
        let written = partitions.values_mut().try_for_each(|of| self.snapshot_of(group, of, now, Durability::Os));
        self.partitions = partitions;
        written?;
        let saved = std::mem::take(&mut self.saved);
        let written = saved.iter().try_for_each(|(key, saved)| {
            let (snapshot_epoch, leader_epoch, start) = (saved.snapshot_epoch, saved.leader_epoch, saved.start);
            let head = Head { is_snapshot: true, snapshot_epoch, leader_epoch, start, now };
            let changes: Vec<_> = saved.records.values().copied().collect();
            let set_aside: Vec<_> = saved.set_aside.values().collect();
            let said = Said { changes: &changes, topic: &saved.topic, set_aside: &set_aside };
            self.append(group, *key, &head, &said, Durability::Os)
        });
        self.saved = saved;
        written?;
        let failed = ConsumerError::group(group);
        self.log.flush().map_err(&failed)?;
        self.log.delete_records_before(begin).map_err(&failed)?;
        (self.snapshot, self.appended) = (self.appended, 0);
        Ok(())
    }
}

/// What the group's log says of each share-partition, and how many bytes it has.
pub(super) fn load(log: &Log, group: &str) -> crate::Result<(BTreeMap<Key, Saved>, usize)> {
    let (mut saved, mut bytes) = (BTreeMap::<Key, Saved>::new(), 0);
    let mut reader = log.reader(OffsetSpec::Earliest)?;
    loop {
        let batch = match reader.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok((saved, bytes)),
            Err(error) if error.is_corrupt() => {
                let lost = reader.skip_damage()?;
                tracing::warn!(group, ?lost, "the group's state was damaged: records that are done may come again");
                continue;
            }
            Err(error) => return Err(error),
        };
        bytes += batch.bytes().len();
        for record in batch.records()? {
            let record = record?;
            match parse(record.key, record.value) {
                Entry::State { group: of, key, state } if of == group => saved.entry(key).or_default().apply(state),
                Entry::Deleted { group: of, key } if of == group => drop(saved.remove(&key)),
                Entry::Unreadable => {
                    tracing::warn!(group, offset = %record.offset, "a record of the group's state cannot be read");
                }
                _ => {}
            }
        }
    }
}
