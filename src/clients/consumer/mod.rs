//! The consumer: subscribe or assign, poll, process, commit.

mod assigned;
mod config;
mod pattern;
mod rebalance;
mod records;
mod subscription;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::{Offset, OffsetAndEpoch, TimestampMs};

use self::assigned::{Assigned, Mended, Room, Terms};
use self::config::ConsumerConfig;
use self::subscription::Subscription;
use crate::clients::group::{
    CommittedOffset, ConsumerError, Group, MemberOptions, Membership, OffsetAndMetadata, Result, Waker,
};
use crate::error::Error;
use crate::log::{LostRange, OffsetSpec, TopicPartition};
use crate::store::Store;

pub use self::config::CONSUMER_KEYS;
pub(super) use self::config::{Given, OffsetReset, find_key};
pub use self::records::{ConsumerRecord, ConsumerRecords, Iter};

/// So long at most a consumer waits without saying to its group that it is there.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// How a consumer is made; begin with [`Consumer::options`].
#[derive(Debug, Clone, Default)]
pub struct ConsumerOptions {
    config: ConsumerConfig,
}

impl ConsumerOptions {
    /// Sets a key ([`CONSUMER_KEYS`]).
    ///
    /// # Errors
    /// [`ConsumerError::InvalidKey`], with the nearest key where there is no such one, and with Kafka's reason where
    /// its `consumer` protocol refuses it; [`ConsumerError::InvalidValue`].
    pub fn set(mut self, key: &str, value: &str) -> Result<ConsumerOptions> {
        self.config.set(key, value)?;
        Ok(self)
    }

    /// A consumer of a store. With `group.id` this process hosts the group from here on.
    ///
    /// # Errors
    /// As [`Group::open`].
    pub fn open(self, store: &Arc<Store>) -> Result<Consumer> {
        store.check_open()?;
        let group = match &self.config.group_id {
            Some(name) => Some(Group::open(store, name)?),
            None => None,
        };
        let waker = Waker::new()?;
        Ok(Consumer {
            store: Arc::clone(store),
            config: self.config,
            group,
            waker,
            subscription: Subscription::None,
            membership: None,
            listener: None,
            is_notifying: false,
            assigned: Vec::new(),
            next: 0,
            looked: None,
            auto_committed: Instant::now(),
            pending: Vec::new(),
        })
    }
}

/// Is called by a poll when the consumer's share of its group's partitions changes: Kafka's
/// `ConsumerRebalanceListener`.
pub trait RebalanceListener: Send {
    /// The consumer has these partitions from now on, in addition to those that it had.
    fn on_partitions_assigned(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// The consumer is about to give these partitions up; the others go on. What was processed of them can be committed
    /// now.
    fn on_partitions_revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// The consumer has lost these partitions: other members may have them, and a commit is refused.
    fn on_partitions_lost(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }
}

struct Listener(Box<dyn RebalanceListener>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RebalanceListener")
    }
}

/// What is called when an asynchronous commit is done.
type CommitCallback = Box<dyn FnOnce(&[(TopicPartition, OffsetAndMetadata)], Result<()>) + Send>;

struct PendingCommit {
    offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
    callback: Option<CommitCallback>,
}

impl fmt::Debug for PendingCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCommit").field("offsets", &self.offsets).finish_non_exhaustive()
    }
}

/// Reads topics from where its group stands, and remembers durably how far it came: Kafka's consumer, in the process.
///
/// The default way is at-least-once: poll, process, then [`commit_sync`](Consumer::commit_sync). After a crash, what
/// was polled and not committed comes again.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use edgelog::clients::Consumer;
/// use edgelog::{NewRecord, NewTopic, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let storage = edgelog::storage::MemoryStorage::new();
/// # let store = Arc::new(Store::options().open_on(storage)?);
/// store.create_topic_if_absent(&NewTopic::new("boiler"))?;
/// store.log("boiler", 0)?.append(NewRecord::value(b"21.5 C"))?;
///
/// let mut consumer =
///     Consumer::options().set("group.id", "billing")?.set("auto.offset.reset", "earliest")?.open(&store)?;
/// consumer.subscribe(&["boiler"])?;
/// # let mut seen = 0;
/// loop {
///     let records = consumer.poll(Duration::from_millis(100))?;
///     if records.is_empty() {
///         break;
///     }
///     for record in &records {
///         let record = record?;
///         println!("{} {}: {:?}", record.topic(), record.offset, record.value.map(String::from_utf8_lossy));
/// #       seen += 1;
///     }
///     consumer.commit_sync()?; // durable when this returns
/// }
/// consumer.close()?;
/// # assert_eq!(seen, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Concurrency
/// A consumer belongs to one thread at a time, but for its [`waker`](Consumer::waker). Several consumers of one group
/// share its partitions.
///
/// # Durability
/// Dropping a consumer commits nothing. [`close`](Consumer::close) does what was asked for before.
#[derive(Debug)]
pub struct Consumer {
    store: Arc<Store>,
    config: ConsumerConfig,
    group: Option<Group>,
    waker: Waker,
    subscription: Subscription,
    membership: Option<Membership>,
    listener: Option<Listener>,
    /// The listener is being called.
    is_notifying: bool,
    /// In the order in which polls take from them, beginning at `next`.
    assigned: Vec<Assigned>,
    next: usize,
    /// When it was looked for topics and partitions last.
    looked: Option<Instant>,
    auto_committed: Instant,
    pending: Vec<PendingCommit>,
}

impl Consumer {
    /// Options with their defaults.
    pub fn options() -> ConsumerOptions {
        ConsumerOptions::default()
    }

    /// Its group, where it has one.
    pub fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// The store that it reads.
    pub(in crate::clients) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Its `client.id`.
    pub fn client_id(&self) -> &str {
        &self.config.client_id
    }

    /// Its id as a member of its group, where it is one.
    pub fn member_id(&self) -> Option<&str> {
        self.membership.as_ref().map(Membership::id)
    }

    /// What ends a poll from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn terms(&self) -> Terms<'_> {
        Terms { store: &self.store, group: self.group.as_ref(), config: &self.config }
    }

    /// Reads these partitions, and no others, each from its group's position or else as `auto.offset.reset` says.
    /// Partitions that it has by now go on where they are. No group shares them out.
    ///
    /// # Errors
    /// [`ConsumerError::SubscriptionConflict`] while it subscribes to topics; [`ConsumerError::NoPosition`];
    /// [`ConsumerError::Log`] where there is no such partition. Nothing has changed then.
    pub fn assign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        if self.subscription.is_to_topics() {
            return Err(ConsumerError::SubscriptionConflict);
        }
        let wanted: BTreeSet<_> = partitions.iter().cloned().collect();
        let opened = self.open_new(&wanted)?;
        self.assigned.retain(|assigned| wanted.contains(&*assigned.name));
        self.assigned.extend(opened);
        self.subscription = if wanted.is_empty() { Subscription::None } else { Subscription::Assigned };
        self.next = 0;
        Ok(())
    }

    /// Those of these partitions that it does not have.
    fn open_new(&self, wanted: &BTreeSet<TopicPartition>) -> Result<Vec<Assigned>> {
        let has = |name: &&TopicPartition| self.assigned.iter().any(|assigned| *assigned.name == **name);
        wanted.iter().filter(|name| !has(name)).map(|name| Assigned::open(name, self.terms())).collect()
    }

    /// The partitions that it reads, in order.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let mut names: Vec<_> = self.assigned.iter().map(|assigned| (*assigned.name).clone()).collect();
        names.sort_unstable();
        names
    }

    /// Records of the partitions that it reads, at most `max.poll.records` and about `fetch.max.bytes`; where there are
    /// none, waits for them, `timeout` at most. No records after that.
    ///
    /// Partitions take turns: where one has more than a poll returns, the next poll begins with the next one.
    ///
    /// # Errors
    /// [`ConsumerError::Wakeup`]; [`ConsumerError::NotSubscribed`]; [`ConsumerError::Log`] where a partition cannot be
    /// read, and nothing else was found: it stays where it is, the others go on with the next poll, and
    /// [`skip_damage`](Consumer::skip_damage) or a seek goes on behind; [`ConsumerError::NoPosition`]; with
    /// `enable.auto.commit`, what a commit can answer.
    pub fn poll(&mut self, timeout: Duration) -> Result<ConsumerRecords> {
        // A timeout beyond the clock's range is none.
        let deadline = Instant::now().checked_add(timeout);
        self.begin_poll()?;
        loop {
            if self.waker.take() {
                return Err(ConsumerError::Wakeup);
            }
            self.look_at_group()?;
            let records = self.fetch()?;
            if !records.is_empty() {
                return Ok(records);
            }
            if let Some(group) = &self.group {
                group.follow()?;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(records);
            }
            self.wait(deadline)?;
        }
    }

    fn begin_poll(&mut self) -> Result<()> {
        self.store.check_open()?;
        if self.is_notifying {
            return Err(ConsumerError::InListener);
        }
        if matches!(self.subscription, Subscription::None) {
            return Err(ConsumerError::NotSubscribed);
        }
        if self.config.auto_commit && self.auto_committed.elapsed() >= self.config.auto_commit_interval {
            self.commit_sync()?;
            self.auto_committed = Instant::now();
        }
        self.commit_pending();
        Ok(())
    }

    /// What the logs have now.
    fn fetch(&mut self) -> Result<ConsumerRecords> {
        let mut room = Room {
            records: self.config.poll_records_max,
            bytes: self.config.fetch_bytes_max,
            partition_bytes: self.config.partition_bytes_max,
        };
        let mut records = ConsumerRecords::default();
        let mut gone = Vec::new();
        let count = self.assigned.len();
        for n in 0..count {
            let at = (self.next + n) % count;
            if self.assigned[at].is_paused {
                continue;
            }
            let mut taken = self.assigned[at].take(&mut room, &mut records.parts);
            // Behind a position that moved there may be records at once.
            for _ in 0..2 {
                let Err(error) = taken else { break };
                if !records.parts.is_empty() {
                    // What was found is returned first; the error comes again with the next poll.
                    taken = Ok(());
                    break;
                }
                let terms = Terms { store: &self.store, group: self.group.as_ref(), config: &self.config };
                taken = match self.assigned[at].mend(error, terms)? {
                    Mended::GoesOn => self.assigned[at].take(&mut room, &mut records.parts),
                    Mended::IsGone => {
                        gone.push(Arc::clone(&self.assigned[at].name));
                        Ok(())
                    }
                };
            }
            if let Err(error) = taken {
                self.next = (at + 1) % count;
                return Err(ConsumerError::log(&self.assigned[at].name)(error));
            }
            if room.records == 0 || room.bytes == 0 {
                self.next = (at + 1) % count;
                break;
            }
        }
        self.let_go_of(&gone)?;
        Ok(records)
    }

    /// Topics that were deleted: a subscription goes on without them.
    fn let_go_of(&mut self, gone: &[Arc<TopicPartition>]) -> Result<()> {
        let Some(first) = gone.first() else { return Ok(()) };
        if !self.subscription.is_to_topics() {
            let error = Error::UnknownTopicOrPartition { name: first.to_string() };
            return Err(ConsumerError::log(first)(error));
        }
        self.assigned.retain(|assigned| !gone.contains(&assigned.name));
        (self.next, self.looked) = (0, None);
        Ok(())
    }

    /// Waits until a log has something, the group has, or another thread wakes it.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<()> {
        let mut left = HEARTBEAT_INTERVAL;
        if self.subscription.is_to_topics() {
            let age = self.looked.map_or(Duration::ZERO, |looked| looked.elapsed());
            left = left.min(self.look_interval().saturating_sub(age).max(Duration::from_millis(1)));
        }
        if let Some(deadline) = deadline {
            left = left.min(deadline.saturating_duration_since(Instant::now()));
        }
        let reading = self.assigned.iter_mut().filter(|assigned| !assigned.is_paused);
        self.waker.wait(reading.map(Assigned::poll_descriptor), left)
    }

    fn find(&self, partition: &TopicPartition) -> Result<usize> {
        let found = self.assigned.iter().position(|assigned| *assigned.name == *partition);
        found.ok_or_else(|| ConsumerError::NotAssigned(partition.clone()))
    }

    /// The next poll returns this partition's records from there on.
    ///
    /// # Errors
    /// [`ConsumerError::NotAssigned`]; [`ConsumerError::Log`] with what [`Reader::seek`](crate::Reader::seek) can
    /// answer: the position is then as it was.
    pub fn seek(&mut self, partition: &TopicPartition, to: OffsetSpec) -> Result<()> {
        let at = self.find(partition)?;
        let terms = Terms { store: &self.store, group: self.group.as_ref(), config: &self.config };
        self.assigned[at].seek(to, terms)
    }

    /// Goes on behind the damage that a poll has reported of a partition, and says what was lost.
    ///
    /// # Errors
    /// [`ConsumerError::NotAssigned`]; [`ConsumerError::Log`] with what reading a file can answer.
    pub fn skip_damage(&mut self, partition: &TopicPartition) -> Result<LostRange> {
        let at = self.find(partition)?;
        self.assigned[at].skip_damage()
    }

    /// Polls return nothing of these partitions until they are resumed. Their positions stay.
    ///
    /// # Errors
    /// [`ConsumerError::NotAssigned`]; nothing is paused then.
    pub fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, true)
    }

    /// Polls return records of these partitions again.
    ///
    /// # Errors
    /// [`ConsumerError::NotAssigned`]; nothing is resumed then.
    pub fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        self.set_paused(partitions, false)
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], is_paused: bool) -> Result<()> {
        let found: Vec<_> = partitions.iter().map(|partition| self.find(partition)).collect::<Result<_>>()?;
        for at in found {
            self.assigned[at].is_paused = is_paused;
        }
        Ok(())
    }

    /// The partitions that are paused, in order.
    pub fn paused(&self) -> Vec<TopicPartition> {
        let paused = self.assigned.iter().filter(|assigned| assigned.is_paused);
        let mut names: Vec<_> = paused.map(|assigned| (*assigned.name).clone()).collect();
        names.sort_unstable();
        names
    }

    /// The offset of the next record that a poll returns of this partition, with the leader epoch of the one before.
    ///
    /// # Errors
    /// [`ConsumerError::NotAssigned`].
    pub fn position(&self, partition: &TopicPartition) -> Result<OffsetAndEpoch> {
        Ok(self.assigned[self.find(partition)?].position())
    }

    /// Records between the position of this partition and its end.
    ///
    /// # Errors
    /// [`ConsumerError::NotAssigned`].
    pub fn lag(&self, partition: &TopicPartition) -> Result<u64> {
        Ok(self.assigned[self.find(partition)?].lag())
    }

    /// The position that the group has committed for a partition, assigned or not.
    ///
    /// # Errors
    /// [`ConsumerError::NoGroup`].
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<CommittedOffset>> {
        Ok(self.group_for("committed")?.committed(partition))
    }

    fn group_for(&self, call: &'static str) -> Result<&Group> {
        self.group.as_ref().ok_or(ConsumerError::NoGroup { call })
    }

    /// The first offset that each of these partitions holds.
    ///
    /// # Errors
    /// [`ConsumerError::Log`] where there is no such partition.
    pub fn beginning_offsets(&self, partitions: &[TopicPartition]) -> Result<Vec<Offset>> {
        partitions.iter().map(|name| Ok(self.log(name)?.offsets().log_start_offset)).collect()
    }

    /// The offset behind the last record of each of these partitions that a consumer may read: the high watermark.
    ///
    /// # Errors
    /// [`ConsumerError::Log`] where there is no such partition.
    pub fn end_offsets(&self, partitions: &[TopicPartition]) -> Result<Vec<Offset>> {
        let end = |name| {
            // Attached, what the writer has appended since is looked at by this.
            let reader = self.log(name)?.reader(OffsetSpec::Latest).map_err(ConsumerError::log(name))?;
            Ok(reader.position().offset)
        };
        partitions.iter().map(end).collect()
    }

    /// The first record of each partition at or after a time, in milliseconds since 1970; `None` where there is none.
    ///
    /// # Errors
    /// [`ConsumerError::Log`] where there is no such partition, and what reading a file can answer.
    pub fn offsets_for_times(&self, times: &[(TopicPartition, TimestampMs)]) -> Result<Vec<Option<OffsetAndEpoch>>> {
        let find = |(name, time): &(TopicPartition, TimestampMs)| {
            self.log(name)?.offset_for_time(*time).map_err(ConsumerError::log(name))
        };
        times.iter().map(find).collect()
    }

    fn log(&self, name: &TopicPartition) -> Result<crate::Log> {
        self.store.log(&name.topic, name.partition).map_err(ConsumerError::log(name))
    }

    /// Commits the positions of all partitions that it reads: everything that polls have returned.
    ///
    /// # Errors
    /// [`ConsumerError::NoGroup`]; [`ConsumerError::FencedMember`]; and as [`Group::commit`].
    ///
    /// # Durability
    /// On return, the positions survive a power cut, and so do the records before them.
    pub fn commit_sync(&mut self) -> Result<()> {
        let offsets = self.uncommitted()?;
        self.commit_offsets(&offsets)
    }

    /// The positions that differ from what was committed last.
    fn uncommitted(&self) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>> {
        self.group_for("a commit")?;
        let moved = |assigned: &&Assigned| assigned.committed != Some(assigned.position().offset);
        let offset = |assigned: &Assigned| {
            let OffsetAndEpoch { offset, leader_epoch } = assigned.position();
            let mut at = OffsetAndMetadata::new(offset);
            at.leader_epoch = Some(leader_epoch).filter(|epoch| *epoch >= 0);
            ((*assigned.name).clone(), at)
        };
        Ok(self.assigned.iter().filter(moved).map(offset).collect())
    }

    /// Commits these offsets, with metadata and leader epochs where they have any; all of them or none.
    ///
    /// # Errors
    /// As [`commit_sync`](Consumer::commit_sync).
    ///
    /// # Durability
    /// As [`commit_sync`](Consumer::commit_sync).
    pub fn commit_offsets(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        // In the order in which they were asked for.
        self.commit_pending();
        self.commit_now(offsets)
    }

    fn commit_now(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        let group = self.group_for("a commit")?;
        if offsets.is_empty() {
            return Ok(());
        }
        let logs: Vec<_> = offsets
            .iter()
            .map(|(name, _)| match self.assigned.iter().find(|assigned| *assigned.name == *name) {
                Some(assigned) => Ok(assigned.log.clone()),
                None => self.log(name),
            })
            .collect::<Result<_>>()?;
        let named: Vec<_> = logs.iter().zip(offsets).map(|(log, (_, at))| (log, at.clone())).collect();
        match &self.membership {
            Some(membership) => membership.commit(&named)?,
            None => group.commit_alone(&named)?,
        }
        for (name, at) in offsets {
            if let Some(assigned) = self.assigned.iter_mut().find(|assigned| *assigned.name == *name) {
                assigned.committed = Some(at.offset);
            }
        }
        Ok(())
    }

    /// Commits the present positions with the next poll, commit or close of this consumer, without waiting now. Those
    /// that come together share one flush. `callback` is called by that call, with what became of it.
    ///
    /// # Errors
    /// [`ConsumerError::NoGroup`].
    ///
    /// # Durability
    /// None on return; that of [`commit_sync`](Consumer::commit_sync) when the callback was given `Ok`.
    pub fn commit_async(
        &mut self,
        callback: impl FnOnce(&[(TopicPartition, OffsetAndMetadata)], Result<()>) + Send + 'static,
    ) -> Result<()> {
        let offsets = self.uncommitted()?;
        self.pending.push(PendingCommit { offsets, callback: Some(Box::new(callback)) });
        Ok(())
    }

    /// Does the commits that were asked for, as one where there are several. A failure is said to their callbacks.
    fn commit_pending(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let mut all = std::collections::BTreeMap::new();
        for commit in &pending {
            all.extend(commit.offsets.iter().cloned());
        }
        if pending.is_empty() {
            return;
        }
        let all: Vec<_> = all.into_iter().collect();
        let mut committed = self.commit_now(&all).err();
        let text = committed.as_ref().map(ToString::to_string);
        let last = pending.len() - 1;
        for (n, commit) in pending.iter_mut().enumerate() {
            let Some(callback) = commit.callback.take() else { continue };
            let outcome = match (&text, committed.is_some() && n == last) {
                (None, _) => Ok(()),
                (Some(_), true) => Err(committed.take().expect("it failed")),
                (Some(text), false) => Err(ConsumerError::CommitFailed { reason: text.clone() }),
            };
            callback(&commit.offsets, outcome);
        }
    }

    /// Does what was asked for (asynchronous commits, and with `enable.auto.commit` a last one), leaves the group, and
    /// ends.
    ///
    /// # Errors
    /// As [`commit_sync`](Consumer::commit_sync). It has left all the same.
    pub fn close(mut self) -> Result<()> {
        self.commit_pending();
        if self.config.auto_commit && self.group.is_some() { self.commit_sync() } else { Ok(()) }
    }

    fn member_options(&self) -> MemberOptions {
        MemberOptions {
            instance: self.config.instance_id.clone(),
            assignor: self.config.assignor,
            poll_interval_max: self.config.poll_interval_max,
        }
    }
}

#[cfg(test)]
mod tests;
