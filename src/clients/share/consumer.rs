//! A share consumer: Kafka's, in the process.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::{LogId, Offset};

use super::config::ShareConfig;
use super::records::{Part, ShareRecord, ShareRecords};
use super::shared::{Ack, ShareGroup};
use super::table::AckType;
use super::when::{When, when};
use crate::clients::group::{ConsumerError, Result, Waker};
use crate::error::Error;
use crate::log::{OffsetSpec, Reader, TopicPartition};
use crate::store::Store;

/// So often a consumer looks for new partitions at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a share consumer is made of.
#[derive(Debug, Clone, Default)]
pub struct ShareConsumerOptions {
    config: ShareConfig,
}

impl ShareConsumerOptions {
    /// Sets a key ([`SHARE_CONSUMER_KEYS`](super::SHARE_CONSUMER_KEYS)). The keys of the group, which begin with
    /// `share.` and `edgelog.share.`, are those of the consumer that opens it first in this process.
    ///
    /// # Errors
    /// [`ConsumerError::InvalidKey`], with the nearest key where there is no such one, and with the reason where share
    /// consumers refuse it; [`ConsumerError::InvalidValue`].
    pub fn set(mut self, key: &str, value: &str) -> Result<ShareConsumerOptions> {
        self.config.set(key, value)?;
        Ok(self)
    }

    /// A share consumer of a store. This process hosts the group from here on.
    ///
    /// # Errors
    /// [`ConsumerError::NoGroup`]; [`ConsumerError::WrongGroupKind`]; as [`Group::open`](crate::clients::Group::open).
    pub fn open(self, store: &Arc<Store>) -> Result<ShareConsumer> {
        let Some(name) = &self.config.group_id else { return Err(ConsumerError::NoGroup { call: "a share consumer" }) };
        let share = ShareGroup::open(store, name, &self.config)?;
        let waker = Waker::new()?;
        let owner = share.join(waker.clone());
        Ok(ShareConsumer {
            store: Arc::clone(store),
            config: self.config,
            share,
            owner,
            waker,
            topics: Vec::new(),
            assigned: Vec::new(),
            next: 0,
            looked: None,
            delivered: Vec::new(),
            acks: Vec::new(),
            taken: Vec::new(),
            callbacks: Vec::new(),
        })
    }
}

#[derive(Debug)]
struct Assigned {
    name: Arc<TopicPartition>,
    log_id: LogId,
    reader: Reader,
    /// At the end of the log, to wait for more.
    tail: Reader,
}

#[derive(Debug)]
struct Delivered {
    partition: Arc<TopicPartition>,
    offset: Offset,
    count: u16,
    ack: Option<AckType>,
    is_done: bool,
    /// A poll has returned it.
    is_handed_out: bool,
    /// A commit has renewed it, and no poll has returned it since: it waits for no answer.
    is_renewed: bool,
}

/// Records that were acquired and are not handed out.
#[derive(Debug, Default)]
struct Withheld {
    /// Those whose time has not come, and in how many milliseconds they are looked at again.
    early: Vec<(Offset, i64)>,
    /// Those whose time is over.
    expired: Vec<Offset>,
}

struct Callback(Box<dyn FnOnce(Result<()>) + Send>);

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

/// Takes records out of topics as jobs out of a queue: Kafka's `KafkaShareConsumer`, in the process.
///
/// Consumers of one share group share each partition record by record. A record is held by who polled it until it is
/// acknowledged, its lock ends (`share.record.lock.duration.ms`), or the consumer is dropped. Then it comes again, to
/// any of them, at most `share.delivery.count.limit` times in all.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use edgelog::clients::{AckType, ShareConsumer};
/// use edgelog::{NewRecord, NewTopic, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let storage = edgelog::storage::MemoryStorage::new();
/// # let store = Arc::new(Store::options().open_on(storage)?);
/// store.create_topic_if_absent(&NewTopic::new("jobs"))?;
/// store.log("jobs", 0)?.append(NewRecord::value(b"print the label"))?;
///
/// let options = ShareConsumer::options().set("group.id", "printers")?;
/// let mut worker = options.set("share.acknowledgement.mode", "explicit")?.open(&store)?;
/// worker.subscribe(&["jobs"])?;
/// let records = worker.poll(Duration::from_millis(100))?;
/// for record in records.iter() {
///     let record = record?;
///     println!("delivery {}: {:?}", record.delivery_count(), record.value);
///     worker.acknowledge(&record, AckType::Accept)?;
/// }
/// worker.commit_sync()?; // durable when this returns
/// # assert_eq!(records.len(), 1);
/// # Ok(())
/// # }
/// ```
///
/// # Concurrency
/// A consumer belongs to one thread at a time, but for its [`waker`](ShareConsumer::waker). Each thread has its own.
///
/// # Durability
/// What [`commit_sync`](ShareConsumer::commit_sync) has returned for survives a power cut. Dropping a consumer commits
/// nothing, and gives its records back at once.
#[derive(Debug)]
pub struct ShareConsumer {
    store: Arc<Store>,
    config: ShareConfig,
    share: Arc<ShareGroup>,
    owner: u64,
    waker: Waker,
    topics: Vec<String>,
    assigned: Vec<Assigned>,
    next: usize,
    looked: Option<Instant>,
    /// What was polled and not committed, in the order of the polls.
    delivered: Vec<Delivered>,
    acks: Vec<Ack>,
    taken: Vec<(Offset, u16)>,
    callbacks: Vec<Callback>,
}

impl ShareConsumer {
    /// Options with their defaults.
    pub fn options() -> ShareConsumerOptions {
        ShareConsumerOptions::default()
    }

    /// What ends a poll from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Takes records of these topics, and of no others. Topics that are not there yet are noticed later.
    ///
    /// # Errors
    /// [`ConsumerError::Log`] where a partition cannot be opened; [`ConsumerError::Group`];
    /// [`ConsumerError::InvalidValue`] where one of them is where the group's own dead letters go.
    pub fn subscribe(&mut self, topics: &[&str]) -> Result<()> {
        if let Some(topic) = topics.iter().find(|topic| self.share.dead_letters() == Some(**topic)) {
            return Err(ConsumerError::InvalidValue {
                key: "errors.deadletterqueue.topic.name",
                value: (*topic).to_owned(),
                allowed: "a group cannot take records out of the topic that its own dead letters go to".to_owned(),
            });
        }
        self.topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let topics = &self.topics;
        self.assigned.retain(|assigned| topics.contains(&assigned.name.topic));
        self.next = 0;
        self.look()
    }

    fn look(&mut self) -> Result<()> {
        for topic in &self.topics {
            let found = match self.store.topic(topic) {
                Ok(found) => found,
                Err(Error::UnknownTopicOrPartition { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            for partition in found.partition_ids {
                let name = TopicPartition::new(topic.as_str(), partition);
                let log = self.store.log(topic, partition).map_err(ConsumerError::log(&name))?;
                if self.assigned.iter().any(|assigned| *assigned.name == name && assigned.log_id == log.id()) {
                    continue;
                }
                // Of a topic that was deleted and created again, what is held is gone.
                self.assigned.retain(|assigned| *assigned.name != name);
                self.delivered.retain(|delivered| *delivered.partition != name);
                self.share.open_partition(&name)?;
                let reader = log.reader(OffsetSpec::Earliest).map_err(ConsumerError::log(&name))?;
                let tail = log.reader(OffsetSpec::Latest).map_err(ConsumerError::log(&name))?;
                self.assigned.push(Assigned { name: Arc::new(name), log_id: log.id(), reader, tail });
            }
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Records that no other consumer holds, at most `max.poll.records`; where there are none, waits for them, at most
    /// `timeout`. What was acknowledged before is committed first, and with `share.acknowledgement.mode=implicit` all
    /// that was polled before is accepted. Records with [`AckType::Renew`] are returned again.
    ///
    /// # Errors
    /// [`ConsumerError::Wakeup`]; [`ConsumerError::NotSubscribed`]; [`ConsumerError::Unacknowledged`];
    /// [`ConsumerError::Log`] where a partition cannot be read; what a commit can answer, but for locks that have
    /// ended: those records come again.
    pub fn poll(&mut self, timeout: Duration) -> Result<ShareRecords> {
        let deadline = Instant::now().checked_add(timeout);
        self.store.check_open()?;
        if self.topics.is_empty() {
            return Err(ConsumerError::NotSubscribed);
        }
        self.check_acknowledged()?;
        match self.commit() {
            Ok(()) => {}
            Err(error @ ConsumerError::InvalidRecordState { .. }) => {
                tracing::warn!(group = self.share.name(), %error, "a record comes again");
            }
            Err(error) => return Err(error),
        }
        loop {
            if self.waker.take() {
                return Err(ConsumerError::Wakeup);
            }
            if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
                self.look()?;
            }
            for assigned in &mut self.assigned {
                assigned.tail.seek(OffsetSpec::Latest).map_err(ConsumerError::log(&assigned.name))?;
            }
            let (records, is_any_withheld) = self.fetch()?;
            if records.is_empty() && is_any_withheld {
                // Behind those that wait there may be others.
                continue;
            }
            if records.is_empty() {
                self.share.take_failure().map_or(Ok(()), Err)?;
            }
            if !records.is_empty() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(records);
            }
            self.wait(deadline)?;
        }
    }

    fn check_acknowledged(&self) -> Result<()> {
        let open = self.delivered.iter().find(|delivered| delivered.ack.is_none() && !delivered.is_renewed);
        match open.filter(|_| self.config.is_explicit) {
            Some(Delivered { partition, offset, .. }) => {
                Err(ConsumerError::Unacknowledged { log: (**partition).clone(), offset: *offset })
            }
            None => Ok(()),
        }
    }

    /// Records, and whether there were some whose time has not come, or is over.
    fn fetch(&mut self) -> Result<(ShareRecords, bool)> {
        let (mut records, mut is_any_withheld) = (ShareRecords::default(), false);
        // What was renewed, and whose lock has ended since, comes again as any other.
        let (share, owner) = (&self.share, self.owner);
        self.delivered.retain(|one| share.holds(owner, &one.partition, one.offset));
        let mut left = self.config.poll_records_max.saturating_sub(self.delivered.len());
        for n in 0..self.assigned.len() {
            let at = (self.next + n) % self.assigned.len();
            let name = Arc::clone(&self.assigned[at].name);
            self.taken.clear();
            self.share.acquire(self.owner, &name, left, &mut self.taken)?;
            let acquired = self.taken.len();
            left -= acquired;
            // A lock may have ended just now.
            let taken = &self.taken;
            let is_new = |one: &Delivered| taken.iter().any(|(offset, _)| *offset == one.offset);
            self.delivered.retain(|one| *one.partition != *name || !is_new(one));
            // What was renewed.
            let again = self.delivered.iter().filter(|delivered| *delivered.partition == *name);
            self.taken.extend(again.map(|delivered| (delivered.offset, delivered.count)));
            for &(offset, count) in &self.taken[..acquired] {
                self.delivered.push(Delivered {
                    partition: Arc::clone(&name),
                    offset,
                    count,
                    ack: None,
                    is_done: false,
                    is_handed_out: false,
                    is_renewed: false,
                });
            }
            self.taken.sort_unstable();
            let mut withheld = Withheld::default();
            if let Err(error) = self.read(at, &mut records, &mut withheld) {
                self.release(&name)?;
                self.next = at + 1;
                return Err(ConsumerError::log(&name)(error));
            }
            let Withheld { early, expired } = withheld;
            if !early.is_empty() || !expired.is_empty() {
                is_any_withheld = true;
                let is_handed_out = |one: &Delivered| one.is_handed_out || *one.partition != *name;
                let is_withheld = |at: Offset| expired.contains(&at) || early.iter().any(|(offset, _)| *offset == at);
                self.delivered.retain(|one| is_handed_out(one) || !is_withheld(one.offset));
                self.share.withhold(self.owner, &name, &early, &expired)?;
            }
            for one in self.delivered.iter_mut().filter(|one| *one.partition == *name) {
                (one.is_handed_out, one.is_renewed) = (true, false);
            }
        }
        self.next = (self.next + 1) % self.assigned.len().max(1);
        Ok((records, is_any_withheld))
    }

    /// Reads the records that were taken of a partition.
    fn read(&mut self, at: usize, records: &mut ShareRecords, withheld: &mut Withheld) -> crate::Result<()> {
        let now = self.store.clock().now();
        let assigned = &mut self.assigned[at];
        let mut left = &self.taken[..];
        while let Some(&(first, _)) = left.first() {
            if assigned.reader.position().offset != first {
                assigned.reader.seek(OffsetSpec::Offset(first))?;
            }
            let Some(batch) = assigned.reader.next_batch()? else { break };
            let last = batch.last_offset();
            let (of_this, behind) = left.split_at(left.partition_point(|(offset, _)| *offset <= last));
            left = behind;
            let mut given = Vec::with_capacity(of_this.len());
            let mut wanted = of_this.iter().peekable();
            let (early, expired) = (withheld.early.len(), withheld.expired.len());
            for record in batch.records()? {
                let record = record?;
                let offset = record.offset;
                while wanted.next_if(|(wanted, _)| *wanted < offset).is_some() {}
                let Some(one) = wanted.next_if(|(wanted, _)| *wanted == offset) else { continue };
                let time = when(&record, now);
                let is_ours = |one: &Delivered| one.offset == offset && one.partition == assigned.name;
                let is_renewed = || self.delivered.iter().any(|one| is_ours(one) && one.is_handed_out);
                match time {
                    When::Later(ms) if !is_renewed() => withheld.early.push((offset, ms)),
                    When::Never if !is_renewed() => withheld.expired.push(offset),
                    _ => given.push(*one),
                }
            }
            let (early, expired) = (&withheld.early[early..], &withheld.expired[expired..]);
            let is_there = |one: &&(Offset, u16)| {
                given.contains(one) || expired.contains(&one.0) || early.iter().any(|(offset, _)| *offset == one.0)
            };
            for &(offset, _) in of_this.iter().filter(|one| !is_there(one)) {
                // There is no such record: compaction took it.
                let gap = self.delivered.iter_mut().find(|d| d.offset == offset && d.partition == assigned.name);
                if let Some(gap) = gap {
                    gap.ack = Some(AckType::Accept);
                }
            }
            if !given.is_empty() {
                records.parts.push(Part { partition: Arc::clone(&assigned.name), batch, given });
            }
        }
        Ok(())
    }

    /// Gives back what could not be read of a partition.
    fn release(&mut self, name: &Arc<TopicPartition>) -> Result<()> {
        let mut offsets: Vec<_> = self.taken.iter().map(|(offset, _)| *offset).collect();
        offsets.sort_unstable();
        let release = |&offset: &Offset| Ack { offset, answer: AckType::Release, is_refused: false };
        let mut acks: Vec<_> = offsets.iter().map(release).collect();
        self.delivered.retain(|delivered| delivered.partition != *name || !offsets.contains(&delivered.offset));
        self.share.acknowledge(self.owner, name, &mut acks)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<()> {
        let mut left = LOOK_INTERVAL;
        if let Some(ms) = self.share.next_in_ms() {
            left = left.min(Duration::from_millis(ms.max(1)));
        }
        if let Some(deadline) = deadline {
            left = left.min(deadline.saturating_duration_since(Instant::now()));
        }
        let tails = self.assigned.iter_mut().map(|assigned| assigned.tail.poll_descriptor().map_err(Into::into));
        self.waker.wait(tails, left)
    }

    /// Says what became of a record that was polled. Of two acknowledgements before a commit the last one counts. It
    /// lasts from the next commit or poll on.
    ///
    /// # Errors
    /// [`ConsumerError::InvalidRecordState`] for a record that was not polled, or was committed.
    pub fn acknowledge(&mut self, record: &ShareRecord<'_>, ack: AckType) -> Result<()> {
        self.acknowledge_offset(record.topic_partition(), record.record().offset, ack)
    }

    /// As [`acknowledge`](ShareConsumer::acknowledge), of the record at an offset.
    ///
    /// # Errors
    /// As [`acknowledge`](ShareConsumer::acknowledge).
    pub fn acknowledge_offset(&mut self, partition: &TopicPartition, offset: Offset, ack: AckType) -> Result<()> {
        let found = self.delivered.iter_mut().find(|one| one.offset == offset && *one.partition == *partition);
        let Some(found) = found else {
            return Err(ConsumerError::InvalidRecordState { log: partition.clone(), offset });
        };
        found.ack = Some(ack);
        Ok(())
    }

    /// Commits what was acknowledged; with `share.acknowledgement.mode=implicit`, accepts all that was polled.
    ///
    /// # Errors
    /// [`ConsumerError::InvalidRecordState`] with the first record whose lock has ended: it comes again, the others are
    /// committed. [`ConsumerError::NotDurable`], and what writing can answer: what is not committed then is tried again
    /// by the next commit.
    ///
    /// # Durability
    /// On return, what is committed survives a power cut.
    pub fn commit_sync(&mut self) -> Result<()> {
        self.commit()
    }

    /// Commits with the next poll, commit or close, and calls `callback` then.
    pub fn commit_async(&mut self, callback: impl FnOnce(Result<()>) + Send + 'static) {
        self.callbacks.push(Callback(Box::new(callback)));
    }

    fn commit(&mut self) -> Result<()> {
        let outcome = self.commit_delivered();
        for Callback(callback) in self.callbacks.drain(..) {
            callback(match &outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(ConsumerError::CommitFailed { reason: error.to_string() }),
            });
        }
        outcome
    }

    fn commit_delivered(&mut self) -> Result<()> {
        if !self.config.is_explicit {
            let polled = self.delivered.iter_mut().filter(|one| !one.is_renewed);
            polled.for_each(|one| one.ack = one.ack.or(Some(AckType::Accept)));
        }
        self.delivered.sort_unstable_by(|a, b| (&a.partition, a.offset).cmp(&(&b.partition, b.offset)));
        let (mut refused, mut failed) = (None, None);
        let mut acks = std::mem::take(&mut self.acks);
        for of_one in self.delivered.chunk_by_mut(|a, b| a.partition == b.partition) {
            let answered = |one: &Delivered| Some(Ack { offset: one.offset, answer: one.ack?, is_refused: false });
            acks.clear();
            acks.extend(of_one.iter().filter_map(answered));
            if let Err(error) = self.share.acknowledge(self.owner, &of_one[0].partition, &mut acks) {
                failed = Some(error);
                break;
            }
            for (one, ack) in of_one.iter_mut().filter(|one| one.ack.is_some()).zip(&acks) {
                if ack.is_refused && refused.is_none() {
                    refused = Some(((*one.partition).clone(), one.offset));
                }
                // What is renewed stays.
                one.is_renewed = one.ack == Some(AckType::Renew) && !ack.is_refused;
                one.is_done = !one.is_renewed;
                one.ack = None;
            }
        }
        self.acks = acks;
        self.delivered.retain(|one| !one.is_done);
        match (failed, refused) {
            (Some(error), _) => Err(error),
            (None, Some((log, offset))) => Err(ConsumerError::InvalidRecordState { log, offset }),
            (None, None) => Ok(()),
        }
    }

    /// Commits what was acknowledged, and gives the rest back.
    ///
    /// # Errors
    /// As [`commit_sync`](ShareConsumer::commit_sync).
    pub fn close(mut self) -> Result<()> {
        // With implicit acknowledgement, what the last poll has returned was not processed for certain.
        self.config.is_explicit = true;
        self.commit()
    }
}

impl Drop for ShareConsumer {
    fn drop(&mut self) {
        if let Err(error) = self.share.leave(self.owner) {
            tracing::warn!(group = self.share.name(), %error, "records could not be given back; a restart does");
        }
    }
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod dead_letters;
#[cfg(test)]
mod tests;
