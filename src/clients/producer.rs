//! Sending records: the partitioner, batches that wait for more, acknowledgements.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use edgelog_core::HEADER_LEN;

use super::accumulator::{Partition, Refused, Rules};
use super::delivery::{Callback, Delivery, DeliveryResult, Home, Reports};
use super::named::Naming;
use super::partitioner::Sticky;
use super::producer_config::ProducerConfig;
use super::producer_error::ProducerError;
use super::producer_memory::Memory;
use super::producer_metrics::{Counters, ProducerMetrics};
use super::producer_record::ProducerRecord;
use super::producer_sender::Sender;
use crate::error::Error;
use crate::log::TopicPartition;
use crate::storage::ForkGuard;
use crate::store::{NewTopic, Store};
use crate::sync::{AtomicBool, JoinHandle, Mutex, Ordering, RwLock, spawn};

/// How a producer is opened; begin with [`Producer::builder`].
#[derive(Debug, Clone)]
pub struct ProducerBuilder {
    store: Arc<Store>,
    config: ProducerConfig,
}

impl ProducerBuilder {
    /// Sets one of [`PRODUCER_KEYS`](super::PRODUCER_KEYS). Keys of Kafka's producers that are about the network, such
    /// as `bootstrap.servers` or `retries`, are accepted and change nothing.
    ///
    /// # Errors
    /// [`ProducerError::InvalidConfig`], with the reason, the bounds or the nearest key.
    pub fn set(mut self, key: &str, value: &str) -> Result<ProducerBuilder, ProducerError> {
        self.config.set(key, value)?;
        Ok(self)
    }

    /// Opens the producer, and starts its thread.
    ///
    /// # Errors
    /// [`ProducerError::InvalidConfig`] where two keys contradict each other; [`ProducerError::Log`] with
    /// [`Error::ReadOnly`] where the store is attached, and where the system has no thread.
    pub fn open(self) -> Result<Producer, ProducerError> {
        self.config.validate()?;
        if self.store.is_attached() {
            return Err(Error::ReadOnly.into());
        }
        let config = &self.config;
        let naming = config.name.as_deref().map(|name| self.store.open_producer(name).map(Naming)).transpose()?;
        let reports = Arc::new(Reports::new(config.delivery_timeout));
        let rules = Arc::new(Rules {
            acks: config.acks,
            linger: config.linger,
            batch_size: config.batch_size,
            batch_size_at_once: if naming.is_none() { config.batch_size } else { 0 },
            naming,
            compression: config.compression,
            memory: Memory::new(config.buffer_memory, config.max_block),
            active: Mutex::default(),
        });
        let sender = Arc::new(Sender::new(Arc::clone(&rules), Arc::clone(&reports)));
        let thread = spawn("edgelog-producer", {
            // The store is open for as long as there is something to append.
            let (sender, store) = (Arc::clone(&sender), Arc::clone(&self.store));
            move || {
                sender.run();
                drop(store);
            }
        });
        let thread = thread.map_err(Error::storage("start the producer's thread", "."))?;
        let core = Core {
            store: self.store,
            config: self.config,
            rules,
            reports,
            sender,
            usual: std::array::from_fn(|_| OnceLock::new()),
            topics: RwLock::default(),
            replaced: Mutex::default(),
            thread: Mutex::new(Some(thread)),
            fork: ForkGuard::here(),
        };
        Ok(Producer(Arc::new(core)))
    }
}

/// Sends records to the topics of a store: without waiting, in batches.
///
/// ```
/// use std::sync::Arc;
///
/// use edgelog::clients::{Producer, ProducerRecord};
/// use edgelog::{Store, storage::MemoryStorage};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let storage = MemoryStorage::new();
/// let store = Arc::new(Store::options().open_on(storage)?);
/// let producer = Producer::builder(&store).set("linger.ms", "10")?.open()?;
///
/// // Goes into a batch, which is appended and flushed within about 10 ms.
/// let delivery = producer.send(ProducerRecord::new("telemetry", b"21.5 C").with_key(b"boiler"))?;
/// let metadata = delivery.wait()?; // acks=all: on flash from here on
/// println!("{} is at offset {:?}", metadata.topic_partition, metadata.offset);
///
/// producer.send_with(ProducerRecord::new("telemetry", b"21.6 C"), |outcome| {
///     if let Err(error) = outcome {
///         eprintln!("lost: {error}");
///     }
/// })?;
/// producer.close()?; // everything that was sent is answered
/// # Ok(())
/// # }
/// ```
///
/// A record is encoded into its partition's open batch before `send` returns. The batch is appended when `batch.size`
/// is reached, by the thread whose record reached it, or when `linger.ms` is over, by the producer's own thread. With
/// `acks=all` that thread then flushes, once for all batches that came meanwhile. Records of one partition stand in the
/// log in the order in which they were sent. An append is not retried: where it fails, all records of its batch are
/// answered with the log's error, and the next batch is tried for itself.
///
/// # Concurrency
/// Every call may come from any thread. Clones are handles of the same producer; the last one that is dropped closes
/// it. Callbacks run on the producer's thread, which then holds no lock: they may call the producer, but not wait for
/// it.
///
/// # Durability
/// What an acknowledgement says depends on `acks`; a record that is not acknowledged may be in the log or not.
#[derive(Debug, Clone)]
pub struct Producer(Arc<Core>);

impl Producer {
    /// A producer of this store, with the defaults of [`PRODUCER_KEYS`](super::PRODUCER_KEYS). It keeps the store open.
    pub fn builder(store: &Arc<Store>) -> ProducerBuilder {
        ProducerBuilder { store: Arc::clone(store), config: ProducerConfig::default() }
    }

    /// Takes a record and returns the handle of its answer.
    ///
    /// Waits where `buffer.memory` is used up, for `max.block.ms` at most, and at a topic's first record, while the
    /// topic is created.
    ///
    /// # Errors
    /// The record was not taken: [`ProducerError::RecordTooLarge`], [`ProducerError::BufferFull`],
    /// [`ProducerError::UnknownTopic`], [`ProducerError::UnknownPartition`], [`ProducerError::Closed`], and
    /// [`ProducerError::Log`] with what the store answers. Errors of the append are the handle's.
    ///
    /// # Durability
    /// None before the handle's answer.
    #[inline]
    pub fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery, ProducerError> {
        self.0.send(&record, None)
    }

    /// Takes a record, and has `callback` called with its answer, once, on the producer's thread. With `acks=0` it is
    /// called as with `acks=1`.
    ///
    /// A callback that panics harms no other one. While one runs, no batch waits for its `linger.ms` and nothing is
    /// flushed: it should be short.
    ///
    /// # Errors
    /// As [`send`](Producer::send), and then `callback` is not called.
    pub fn send_with(
        &self,
        record: ProducerRecord<'_>,
        callback: impl FnOnce(DeliveryResult) + Send + 'static,
    ) -> Result<(), ProducerError> {
        self.0.send(&record, Some(Box::new(callback))).map(drop)
    }

    /// Appends all open batches, and returns when every record is answered that was sent before this call, and its
    /// callback has returned. What failed, its own handle says.
    ///
    /// # Errors
    /// [`ProducerError::InCallback`] in a callback of this producer; [`ProducerError::Log`] with [`Error::Forked`].
    pub fn flush(&self) -> Result<(), ProducerError> {
        self.0.check_fork()?;
        self.0.sender.ask(None).map(drop)
    }

    /// As [`flush`](Producer::flush), for so long at most. Returns whether it came to its end.
    ///
    /// # Errors
    /// As [`flush`](Producer::flush).
    pub fn flush_timeout(&self, timeout: Duration) -> Result<bool, ProducerError> {
        self.0.check_fork()?;
        self.0.sender.ask(Instant::now().checked_add(timeout))
    }

    /// Discards the records that stand in open batches. Their handles and callbacks answer
    /// [`ProducerError::Purged`]. What was appended already stays. Returns how many records were discarded.
    ///
    /// # Errors
    /// [`ProducerError::Log`] with [`Error::Forked`].
    pub fn purge(&self) -> Result<u64, ProducerError> {
        self.0.check_fork()?;
        Ok(self.0.partitions().iter().map(|partition| partition.purge()).sum())
    }

    /// Takes no further record, appends and flushes what was taken, and returns when every record is answered and every
    /// callback has returned. Again and again it does nothing. Called by a callback, it does not wait.
    ///
    /// # Errors
    /// [`ProducerError::Log`] with [`Error::Forked`]. What failed, its own handle says.
    pub fn close(&self) -> Result<(), ProducerError> {
        self.0.check_fork()?;
        self.0.close();
        Ok(())
    }

    /// The number of the last record that a partition's log has of this producer's name: the sequence or the source
    /// offset that it was sent with, or that it was given. `None` where it has none. A program that reads, processes
    /// and writes goes on behind it.
    ///
    /// Records that were sent and not appended yet do not count. What is counted and not acknowledged may go with a
    /// power cut.
    ///
    /// # Errors
    /// [`ProducerError::SequenceNotAllowed`] without `edgelog.producer.name`; [`ProducerError::ProducerFenced`];
    /// [`ProducerError::UnknownPartition`], [`ProducerError::UnknownTopic`], and [`ProducerError::Log`] with what the
    /// store answers. As `send`, it creates the topic.
    pub fn last_sequence(&self, topic: &str, partition: u32) -> Result<Option<i64>, ProducerError> {
        self.0.last_sequence(topic, partition)
    }

    /// What the producer did since it was opened, under the names of Kafka's producer metrics.
    pub fn metrics(&self) -> ProducerMetrics {
        let core = &*self.0;
        let (topics, replaced) = (core.topics.read(), core.replaced.lock());
        let mut counters = replaced.1.clone();
        let all = topics.values().chain(&replaced.0).flat_map(|topic| &topic.partitions);
        all.for_each(|known| known.1.count(&mut counters));
        let memory = &core.rules.memory;
        counters.metrics([memory.total(), memory.free(), u64::from(memory.waiting()), memory.waited_ns()])
    }
}

#[cfg(test)]
impl Producer {
    /// The producer id and epoch of a named producer.
    pub(super) fn identity(&self) -> Option<(i64, i16)> {
        self.0.rules.naming.as_ref().map(|naming| (naming.0.id(), naming.0.epoch))
    }

    pub(super) fn is_acks_all(&self) -> bool {
        self.0.config.acks == super::producer_config::Acks::All
    }
}

/// One producer, as its handles share it.
#[derive(Debug)]
struct Core {
    store: Arc<Store>,
    config: ProducerConfig,
    rules: Arc<Rules>,
    reports: Arc<Reports>,
    sender: Arc<Sender>,
    /// The first topics that were asked for, by [`slot`]: found without a lock, and some of them replaced by now.
    usual: [OnceLock<Arc<Topic>>; USUAL],
    /// All topics.
    topics: RwLock<HashMap<String, Arc<Topic>, BuildHasherDefault<NameHasher>>>,
    /// Topics whose logs were closed, while a call of `send` may still be in one; and what was counted for all before.
    replaced: Mutex<(Vec<Arc<Topic>>, Counters)>,
    thread: Mutex<Option<JoinHandle<()>>>,
    fork: ForkGuard,
}

/// So many topics are found without a lock, where they do not meet in one slot.
const USUAL: usize = 64;

/// Where a topic of that name stands among the usual ones.
#[inline]
fn slot(name: &str) -> usize {
    let bytes = name.as_bytes();
    let (first, last) = (bytes.first().copied().unwrap_or(0), bytes.last().copied().unwrap_or(0));
    (bytes.len() + usize::from(first) * 7 + usize::from(last) * 31) % USUAL
}

/// A topic, as it was when it was looked up.
#[derive(Debug)]
struct Topic {
    name: String,
    /// It is not the topic of its name any more.
    replaced: AtomicBool,
    /// How many partitions it has, which keys are spread over.
    count: u32,
    /// Those that are there, by number.
    partitions: Vec<(u32, Arc<Partition>)>,
    sticky: Sticky,
}

impl Topic {
    /// Whether its logs are closed, and there may be another topic of the name.
    fn is_stale(&self) -> bool {
        self.partitions.iter().any(|known| known.1.log.check_alive().is_err())
    }

    fn partition(&self, partition: u32) -> Option<usize> {
        // Nearly always all are there.
        match self.partitions.get(partition as usize) {
            Some((number, _)) if *number == partition => Some(partition as usize),
            _ => self.partitions.binary_search_by_key(&partition, |known| known.0).ok(),
        }
    }
}

/// FNV-1a: names of topics are short, and checked before they are put into the table.
#[derive(Debug)]
struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> NameHasher {
        NameHasher(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Core {
    fn check_fork(&self) -> Result<(), ProducerError> {
        if self.fork.forked() { Err(Error::Forked.into()) } else { Ok(()) }
    }

    #[inline]
    fn send(&self, record: &ProducerRecord<'_>, callback: Option<Callback>) -> Result<Delivery, ProducerError> {
        self.check_fork()?;
        let bytes_max = record.bytes_max();
        let alone = bytes_max.saturating_add(HEADER_LEN);
        if alone > self.config.max_request_size {
            return Err(too_large(alone, self.config.max_request_size, "max.request.size"));
        }
        if alone as u64 > self.config.buffer_memory {
            return Err(too_large(alone, self.config.buffer_memory as usize, "buffer.memory"));
        }
        let kept;
        let topic = match self.usual[slot(record.topic)].get() {
            Some(usual) if usual.name == record.topic && !usual.replaced.load(Ordering::Acquire) => usual,
            _ => {
                kept = self.topic(record.topic)?;
                &kept
            }
        };
        if record.sequence.is_some() {
            self.check_sequence(topic, record)?;
        }
        let (at, sticky) = match self.choose(topic, record) {
            Err(_) if topic.is_stale() => return self.send_again(topic, record, callback),
            chosen => chosen?,
        };
        match topic.partitions[at].1.send(&self.rules, record, bytes_max, callback) {
            Ok(delivery) => {
                if sticky {
                    topic.sticky.sent(at, topic.partitions.len(), bytes_max, self.config.batch_size);
                }
                Ok(delivery)
            }
            Err(refused) => match *refused {
                Refused::Because(error) => Err(error),
                Refused::Stale(callback) => self.send_again(topic, record, callback),
            },
        }
    }

    fn last_sequence(&self, name: &str, partition: u32) -> Result<Option<i64>, ProducerError> {
        self.check_fork()?;
        let Some(naming) = &self.rules.naming else {
            let reason = "a producer numbers its records where edgelog.producer.name is set";
            return Err(ProducerError::SequenceNotAllowed { reason });
        };
        let mut topic = self.topic(name)?;
        if topic.is_stale() {
            self.forget(name, &topic);
            topic = self.topic(name)?;
        }
        let record = ProducerRecord::new(name, b"").with_partition(partition);
        let (at, _) = self.choose(&topic, &record)?;
        topic.partitions[at].1.last_sequence(naming)
    }

    /// The topic was deleted since it was looked up, and may have been created again; or the store was closed.
    #[cold]
    fn send_again(
        &self,
        known: &Arc<Topic>,
        record: &ProducerRecord<'_>,
        callback: Option<Callback>,
    ) -> Result<Delivery, ProducerError> {
        self.forget(record.topic, known);
        let topic = self.topic(record.topic)?;
        let (at, _) = self.choose(&topic, record)?;
        let bytes_max = record.bytes_max();
        topic.partitions[at].1.send(&self.rules, record, bytes_max, callback).map_err(|refused| match *refused {
            Refused::Because(error) => error,
            Refused::Stale(_) => Error::Closed.into(),
        })
    }

    /// Whether a record can have a number: a repeat has to find its first.
    #[cold]
    fn check_sequence(&self, topic: &Topic, record: &ProducerRecord<'_>) -> Result<(), ProducerError> {
        let reason = if self.rules.naming.is_none() {
            "a producer numbers its records where edgelog.producer.name is set"
        } else if record.partition.is_none()
            && (record.key.is_none() || self.config.ignore_keys)
            && topic.partitions.len() > 1
        {
            "it needs a partition or a key, or what is sent again would go elsewhere"
        } else {
            return Ok(());
        };
        Err(ProducerError::SequenceNotAllowed { reason })
    }

    /// Which of the topic's partitions the record goes to, and whether that is because others without a key do.
    #[inline]
    fn choose(&self, topic: &Topic, record: &ProducerRecord<'_>) -> Result<(usize, bool), ProducerError> {
        if record.partition.is_none() && record.key.is_none() {
            return Ok((topic.sticky.current(), true));
        }
        self.choose_by_number_or_key(topic, record)
    }

    fn choose_by_number_or_key(
        &self,
        topic: &Topic,
        record: &ProducerRecord<'_>,
    ) -> Result<(usize, bool), ProducerError> {
        let by_key = || {
            let key = record.key.filter(|_| !self.config.ignore_keys)?;
            self.config.partitioner.partition(key, topic.count)
        };
        let Some(partition) = record.partition.or_else(by_key) else {
            return Ok((topic.sticky.current(), true));
        };
        let at = topic.partition(partition).ok_or_else(|| ProducerError::UnknownPartition {
            topic: record.topic.to_owned(),
            partition,
            partitions: topic.count,
        })?;
        Ok((at, false))
    }

    /// The topic, created where there is none and that is wanted.
    fn topic(&self, name: &str) -> Result<Arc<Topic>, ProducerError> {
        if let Some(topic) = self.topics.read().get(name) {
            return Ok(Arc::clone(topic));
        }
        self.look_up(name)
    }

    #[cold]
    #[inline(never)]
    fn look_up(&self, name: &str) -> Result<Arc<Topic>, ProducerError> {
        if self.rules.memory.is_closed() {
            return Err(ProducerError::Closed);
        }
        let found = match self.store.topic(name) {
            Err(Error::UnknownTopicOrPartition { .. }) if self.config.create_topics => {
                self.store.create_topic_if_absent(&NewTopic::new(name))?;
                self.store.topic(name)?
            }
            Err(Error::UnknownTopicOrPartition { .. }) => {
                return Err(ProducerError::UnknownTopic { topic: name.to_owned() });
            }
            found => found?,
        };
        let mut partitions = Vec::with_capacity(found.partition_ids.len());
        for partition in found.partition_ids {
            let log = self.store.log(name, partition)?;
            let topic_partition = Arc::new(TopicPartition::new(name, partition));
            let home = Arc::new(Home { name: topic_partition, reports: Arc::clone(&self.reports) });
            partitions.push((partition, Partition::new(home, log)));
        }
        let sticky = Sticky::new(partitions.len());
        let replaced = AtomicBool::new(false);
        let topic = Arc::new(Topic { name: name.to_owned(), replaced, count: found.partitions, partitions, sticky });
        // Another thread may have been faster: one object a partition, or two batches would be open at a time.
        let mut topics = self.topics.write();
        let topic = Arc::clone(topics.entry(name.to_owned()).or_insert(topic));
        let _ = self.usual[slot(name)].set(Arc::clone(&topic)); // or another one stands there
        Ok(topic)
    }

    /// Forgets a topic whose logs are closed.
    fn forget(&self, name: &str, known: &Arc<Topic>) {
        let mut topics = self.topics.write();
        if topics.get(name).is_some_and(|topic| Arc::ptr_eq(topic, known)) {
            topics.remove(name);
            known.replaced.store(true, Ordering::Release);
            let (replaced, counted) = &mut *self.replaced.lock();
            // A call that is in one of them has it too, or finds it among the usual ones.
            replaced.retain(|topic| {
                let is_usual = self.usual[slot(&topic.name)].get().is_some_and(|usual| Arc::ptr_eq(usual, topic));
                let in_use = is_usual || Arc::strong_count(topic) > 1;
                if !in_use {
                    topic.partitions.iter().for_each(|known| known.1.count(counted));
                }
                in_use
            });
            replaced.push(Arc::clone(known));
        }
    }

    /// Every partition that a call of `send` may be in.
    fn partitions(&self) -> Vec<Arc<Partition>> {
        let topics = self.topics.read();
        let replaced = self.replaced.lock();
        let all = topics.values().chain(&replaced.0).flat_map(|topic| &topic.partitions);
        all.map(|known| Arc::clone(&known.1)).collect()
    }

    fn close(&self) {
        self.rules.memory.close();
        // Who is in a partition now has put its record where the sender looks, once the partition can be locked. Who
        // comes later finds the producer closed.
        for partition in self.partitions() {
            partition.pass_through();
        }
        self.sender.close();
        self.sender.wait_for_the_end();
        if !self.reports.is_sender() {
            if let Some(thread) = self.thread.lock().take() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !self.fork.forked() {
            self.close();
        }
    }
}

fn too_large(given: usize, max: usize, key: &'static str) -> ProducerError {
    ProducerError::RecordTooLarge { given, max, key }
}
