//! For loops of plain consumers: try again what fails, set aside what goes on failing, and go on.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::headers::{DeadLetterHeaders, TIMESTAMP_HEADER};
use super::outlet::{Outlets, Target};
use crate::clients::consumer::{Consumer, ConsumerRecord, Given, find_key};
use crate::clients::group::{ConsumerError, Group, Result, Waker};
use crate::clients::key::{ClientKey, key};
use crate::error::Error;
use crate::log::{NewRecord, check_topic_name};
use crate::store::Store;

/// Every key, in the order of the documentation. But for the last one they are Kafka Connect's.
pub const DEAD_LETTER_QUEUE_KEYS: &[ClientKey] = &[
    key(
        "errors.deadletterqueue.topic.name",
        "",
        "Where records go that go on failing. It has to be set. The topic is created where there is none.",
    ),
    key(
        "errors.deadletterqueue.context.headers.enable",
        "true",
        "Whether a dead letter says where its record was and why it failed. Kafka Connect's default is false.",
    ),
    key(
        "errors.retry.timeout",
        "10000",
        "So long a record is tried again, in milliseconds. 0: it is tried once, as by default in Kafka Connect; -1: it \
         is tried until it succeeds.",
    ),
    key("errors.retry.delay.max.ms", "60000", "The longest wait between two tries, in milliseconds."),
    key(
        "edgelog.errors.retry.delay.ms",
        "300",
        "The wait before the second try, in milliseconds; each wait after it is twice as long. Kafka Connect's is 300.",
    ),
];

/// What a dead letter queue is made of.
#[derive(Debug, Clone)]
pub struct DeadLetterQueueOptions {
    config: Config,
}

#[derive(Debug, Clone)]
struct Config {
    topic: Option<String>,
    has_headers: bool,
    /// `None`: for as long as it takes.
    retry_timeout: Option<Duration>,
    delay_max: Duration,
    delay: Duration,
}

impl Config {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(row) = find_key(DEAD_LETTER_QUEUE_KEYS, &[], "dead letter queues", key)? else { return Ok(()) };
        let given = Given { key: row.key, value };
        match row.key {
            "errors.deadletterqueue.topic.name" => {
                check_topic_name(value).map_err(|error| given.refuse(error.to_string()))?;
                self.topic = Some(value.to_owned());
            }
            "errors.deadletterqueue.context.headers.enable" => self.has_headers = given.flag()?,
            "errors.retry.timeout" => {
                let ms = u64::try_from(given.number(-1)?).ok();
                self.retry_timeout = ms.map(Duration::from_millis);
            }
            "errors.retry.delay.max.ms" => self.delay_max = given.ms(1)?,
            "edgelog.errors.retry.delay.ms" => self.delay = given.ms(1)?,
            _ => unreachable!("every key of the table is set here"),
        }
        Ok(())
    }
}

impl Default for DeadLetterQueueOptions {
    fn default() -> DeadLetterQueueOptions {
        let zero = Duration::ZERO;
        let mut config = Config { topic: None, has_headers: true, retry_timeout: None, delay_max: zero, delay: zero };
        for row in DEAD_LETTER_QUEUE_KEYS.iter().filter(|row| !row.default.is_empty()) {
            config.set(row.key, row.default).expect("a key takes its own default");
        }
        DeadLetterQueueOptions { config }
    }
}

impl DeadLetterQueueOptions {
    /// Sets a key ([`DEAD_LETTER_QUEUE_KEYS`]).
    ///
    /// # Errors
    /// [`ConsumerError::InvalidKey`], [`ConsumerError::InvalidValue`].
    pub fn set(mut self, key: &str, value: &str) -> Result<DeadLetterQueueOptions> {
        self.config.set(key, value)?;
        Ok(self)
    }

    /// A dead letter queue for what a consumer polls.
    ///
    /// # Errors
    /// [`ConsumerError::NoGroup`] of a consumer without a group; [`ConsumerError::InvalidValue`] without a topic.
    pub fn open(self, consumer: &Consumer) -> Result<DeadLetterQueue> {
        let Some(group) = consumer.group() else {
            return Err(ConsumerError::NoGroup { call: "a dead letter queue" });
        };
        let Some(topic) = self.config.topic.clone() else {
            let (key, value) = ("errors.deadletterqueue.topic.name", String::new());
            return Err(ConsumerError::InvalidValue { key, value, allowed: "it has to be set".to_owned() });
        };
        Ok(DeadLetterQueue {
            store: Arc::clone(consumer.store()),
            group: group.clone(),
            waker: consumer.waker(),
            topic,
            config: self.config,
            outlets: Outlets::default(),
        })
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processed<T> {
    /// It was processed, with this outcome.
    Done(T),
    /// It went on failing, and is a dead letter.
    SetAside,
}

/// Tries again what fails, sets aside what goes on failing, and lets the loop go on.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use edgelog::clients::{Consumer, DeadLetterQueue, Processed};
/// use edgelog::{NewRecord, NewTopic, Store};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Arc::new(Store::options().open_on(edgelog::storage::MemoryStorage::new())?);
/// # store.create_topic(&NewTopic::new("readings"))?;
/// for value in ["21.5", "warm", "22.0"] {
///     store.log("readings", 0)?.append(NewRecord::value(value.as_bytes()))?;
/// }
/// let mut consumer = Consumer::options().set("group.id", "sum")?.set("auto.offset.reset", "earliest")?.open(&store)?;
/// consumer.subscribe(&["readings"])?;
/// let options = DeadLetterQueue::options().set("errors.deadletterqueue.topic.name", "dlq.readings")?;
/// let mut queue = options.set("errors.retry.timeout", "0")?.open(&consumer)?;
/// let mut sum = 0.0;
/// for record in &consumer.poll(Duration::from_millis(100))? {
///     let record = record?;
///     let text = String::from_utf8_lossy(record.value.unwrap_or_default());
///     if let Processed::Done(number) = queue.process(&record, |_| text.parse::<f64>())? {
///         sum += number;
///     }
/// }
/// consumer.commit_sync()?;
/// assert_eq!(sum, 43.5);
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// A dead letter survives a power cut before [`process`](DeadLetterQueue::process) returns. A record that comes again
/// after a crash, since its offset was not committed, and fails again, has one dead letter.
#[derive(Debug)]
pub struct DeadLetterQueue {
    store: Arc<Store>,
    group: Group,
    waker: Waker,
    topic: String,
    config: Config,
    outlets: Outlets,
}

impl DeadLetterQueue {
    /// Options with their defaults.
    pub fn options() -> DeadLetterQueueOptions {
        DeadLetterQueueOptions::default()
    }

    /// Calls `process` until it succeeds or `errors.retry.timeout` is over, with longer waits in between. What goes on
    /// failing becomes a dead letter.
    ///
    /// The waits count for `max.poll.interval.ms`: the other members get a consumer's partitions that waits longer.
    ///
    /// # Errors
    /// [`ConsumerError::Wakeup`] where [`Waker::wakeup`] ends a wait: the record is neither processed nor set aside.
    /// Those of [`set_aside`](DeadLetterQueue::set_aside) where the dead letter cannot be written.
    pub fn process<'r, T, E: Display>(
        &mut self,
        record: &ConsumerRecord<'r>,
        mut process: impl FnMut(&ConsumerRecord<'r>) -> std::result::Result<T, E>,
    ) -> Result<Processed<T>> {
        // A time beyond the clock's range is none.
        let deadline = self.config.retry_timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let is_endless = deadline.is_none();
        let mut delay = self.config.delay.min(self.config.delay_max);
        loop {
            let failed = match process(record) {
                Ok(outcome) => return Ok(Processed::Done(outcome)),
                Err(error) => error.to_string(),
            };
            let left = deadline.map_or(delay, |deadline| deadline.saturating_duration_since(Instant::now()));
            if !is_endless && left.is_zero() {
                self.set_aside(record, &failed)?;
                return Ok(Processed::SetAside);
            }
            self.wait(delay.min(left))?;
            delay = delay.saturating_mul(2).min(self.config.delay_max);
        }
    }

    /// Makes a dead letter of a record at once. Nothing is done where there is one from this group already.
    ///
    /// The record is durable first: after a power cut, no other record has its offset and passes for set aside.
    ///
    /// # Errors
    /// [`ConsumerError::DeadLetters`], [`ConsumerError::Log`]; [`ConsumerError::NotDurable`] where the record cannot be
    /// made durable, or was truncated.
    pub fn set_aside(&mut self, record: &ConsumerRecord<'_>, reason: &str) -> Result<()> {
        let name = record.topic_partition();
        let log = self.store.log(&name.topic, name.partition).map_err(ConsumerError::log(name))?;
        self.group.make_durable(&log, record.offset + 1)?;
        // Of each log they are numbered by themselves, with the records' offsets; of each leader epoch, too, since
        // other records have the offsets that were truncated.
        let id = log.lasting_id().unwrap_or_else(|| log.id());
        let (group, epoch) = (self.group.name(), record.leader_epoch());
        let producer = format!("consumer/{group}/{id:x}-{}/{epoch}", name.partition);
        let target = Outlets::target(&self.group, &self.store, &self.topic, name.partition)?;
        let written = self.write(record, reason, &target, &producer);
        if written.is_err() {
            self.outlets.close(&target, &producer);
        }
        written
    }

    fn write(&mut self, record: &ConsumerRecord<'_>, reason: &str, target: &Target, producer: &str) -> Result<()> {
        let (name, offset) = (record.topic_partition(), record.offset);
        let outlet = self.outlets.outlet(&self.group, &self.store, target, producer)?;
        let group = Some(self.group.name());
        let mut write = || {
            if outlet.finds(offset.0) {
                return outlet.finish();
            }
            let taken = if self.config.has_headers {
                let headers = DeadLetterHeaders::connect(name, offset, group, reason);
                let headers = headers.with(TIMESTAMP_HEADER, record.timestamp.0.to_string());
                let all = headers.behind(Some(&record.record()));
                outlet.push_rising(offset.0, NewRecord::new(record.key, record.value).with_headers(&all))
            } else {
                let own: Vec<_> = record.headers().collect();
                outlet.push_rising(offset.0, NewRecord::new(record.key, record.value).with_headers(&own))
            };
            if let Err(Error::RecordTooLarge { given, max }) = taken {
                let why =
                    format!("{reason} (with its record the dead letter takes {given} bytes, and {max} are allowed)");
                let headers = DeadLetterHeaders::connect(name, offset, group, &why);
                outlet.push_rising(offset.0, NewRecord::default().with_headers(&headers.behind(None)))?;
            } else {
                taken?;
            }
            outlet.finish()
        };
        write().map_err(ConsumerError::dead_letters(&self.topic))
    }

    /// Waits, unless the consumer is woken up.
    fn wait(&self, delay: Duration) -> Result<()> {
        let until = Instant::now() + delay;
        loop {
            if self.waker.take() {
                return Err(ConsumerError::Wakeup);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.waker.wait(std::iter::empty(), left)?;
        }
    }
}

#[cfg(test)]
mod tests;
