//! What consumers and groups can answer.

use std::io;
use std::time::Duration;

use edgelog_core::Offset;

use crate::error::Error;
use crate::escape::shown_name;
use crate::log::TopicPartition;

/// What a consumer's calls return.
pub(crate) type Result<T, E = ConsumerError> = std::result::Result<T, E>;

/// Everything that can go wrong with a consumer or a group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// A key that consumers do not have, or do not take.
    #[error("{key}: {reason}")]
    InvalidKey {
        /// The key as given.
        key: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A value that a key does not take.
    #[error("{key}={}: {allowed}", shown_name(value))]
    InvalidValue {
        /// The key.
        key: &'static str,
        /// The value as given.
        value: String,
        /// What the key takes.
        allowed: String,
    },

    /// A group's name breaks a rule.
    #[error("group.id={}: {reason}", shown_name(name))]
    InvalidGroup {
        /// The name as given.
        name: String,
        /// Which rule it breaks.
        reason: String,
    },

    /// A call that needs a group, of a consumer without `group.id`.
    #[error("{call} needs a group: set group.id")]
    NoGroup {
        /// The call.
        call: &'static str,
    },

    /// Another process hosts the group: one at a time does.
    #[error("group {} is hosted by another process: {source}", shown_name(name))]
    GroupHosted {
        /// The group.
        name: String,
        /// Whose lock it is.
        source: io::Error,
    },

    /// The group is of the other kind: a consumer group commits positions, a share group shares out records.
    #[error("group {} is not a {wanted} group", shown_name(name))]
    WrongGroupKind {
        /// The group.
        name: String,
        /// What it was to be: `share` or `consumer`.
        wanted: &'static str,
    },

    /// A record was acknowledged by a share consumer that does not hold it: its lock has ended, or it was not polled.
    #[error("{log}: the record at offset {offset} is not held by this consumer; its lock may have ended")]
    InvalidRecordState {
        /// The partition.
        log: TopicPartition,
        /// The record.
        offset: Offset,
    },

    /// A poll with `share.acknowledgement.mode=explicit`, while a record of the one before is not acknowledged.
    #[error(
        "{log}: the record at offset {offset} was polled and is not acknowledged; all are to be before the next poll"
    )]
    Unacknowledged {
        /// The partition.
        log: TopicPartition,
        /// The first such record.
        offset: Offset,
    },

    /// There is no such group.
    #[error("no group {} in this store", shown_name(name))]
    UnknownGroup {
        /// The group.
        name: String,
    },

    /// The consumer has neither subscribed to topics nor been assigned partitions.
    #[error("the consumer is not subscribed to any topics and has no partitions assigned")]
    NotSubscribed,

    /// Partitions were assigned while topics are subscribed to, or the other way round.
    #[error("subscribe and assign exclude each other: call unsubscribe in between")]
    SubscriptionConflict,

    /// A pattern that names of topics cannot be held against.
    #[error("\"{}\" is no pattern of topic names: {reason}", shown_name(pattern))]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The partition is not assigned to this consumer.
    #[error("{0} is not assigned to this consumer")]
    NotAssigned(TopicPartition),

    /// There is no position to begin at, and `auto.offset.reset=none`.
    #[error("{log} has no position to begin at, and auto.offset.reset=none: {reason}")]
    NoPosition {
        /// The partition.
        log: TopicPartition,
        /// Why there is none.
        reason: String,
    },

    /// The records before an offset are not durable, and cannot be made so from here. Nothing was committed, or set
    /// aside.
    #[error("{log}: the records before offset {offset} are not durable: only what lies below {durable} is")]
    NotDurable {
        /// The partition.
        log: TopicPartition,
        /// The offset that was to be committed, or the one behind the record that was to be set aside.
        offset: Offset,
        /// Everything below it is durable.
        durable: Offset,
    },

    /// Metadata longer than a position may have.
    #[error("{log}: {given} bytes of metadata were to be committed, and {max} are allowed")]
    MetadataTooLarge {
        /// The partition.
        log: TopicPartition,
        /// How many bytes it has.
        given: usize,
        /// How many it may have.
        max: usize,
    },

    /// Dead letters cannot be written. Their records stay set aside, or as they were, and it is tried again.
    #[error("dead letters in {}: {source}", shown_name(topic))]
    DeadLetters {
        /// Their topic.
        topic: String,
        /// What happened.
        #[source]
        source: Box<Error>,
    },

    /// `Waker::wakeup` was called.
    #[error("the consumer was woken up")]
    Wakeup,

    /// This consumer is no member of the group any more: it did not poll for `max.poll.interval.ms`, and others may
    /// have its partitions. Its next poll joins again. Nothing was committed.
    #[error(
        "the consumer is no member of its group any more: it did not poll for longer than max.poll.interval.ms={} \
         allows, and others may have its partitions",
        interval.as_millis()
    )]
    FencedMember {
        /// `max.poll.interval.ms`.
        interval: Duration,
    },

    /// A consumer with partitions of its own choice commits in a group that has members, who own them.
    #[error("group {} has members: a consumer that assigns partitions to itself cannot commit in it", shown_name(name))]
    GroupHasMembers {
        /// The group.
        name: String,
    },

    /// A share group is to be reset while this process has consumers of it.
    #[error("group {} has consumers: close them first", shown_name(name))]
    GroupNotEmpty {
        /// The group.
        name: String,
    },

    /// Another member of the group has this `group.instance.id`.
    #[error("group.instance.id={}: another member of the group has it", shown_name(instance))]
    UnreleasedInstance {
        /// The instance's name.
        instance: String,
    },

    /// An asynchronous commit failed together with a later one, which has the error itself.
    #[error("the commit failed: {reason}")]
    CommitFailed {
        /// The error as text.
        reason: String,
    },

    /// `poll` was called by a rebalance listener.
    #[error("poll cannot be called by a rebalance listener")]
    InListener,

    /// Reading one partition failed. The others go on; this one stays where it is.
    #[error("{log}: {source}")]
    Log {
        /// The partition.
        log: TopicPartition,
        /// What happened.
        #[source]
        source: Box<Error>,
    },

    /// The group's own store cannot be used.
    #[error("group {}: {source}", shown_name(name))]
    Group {
        /// The group.
        name: String,
        /// What happened.
        #[source]
        source: Box<Error>,
    },

    /// What the store can answer.
    #[error(transparent)]
    Store(Box<Error>),
}

impl From<Error> for ConsumerError {
    fn from(error: Error) -> ConsumerError {
        ConsumerError::Store(Box::new(error))
    }
}

impl ConsumerError {
    /// For a partition's errors.
    pub(crate) fn log(log: &TopicPartition) -> impl FnOnce(Error) -> ConsumerError + '_ {
        move |source| ConsumerError::Log { log: log.clone(), source: Box::new(source) }
    }

    /// For those of a dead letter topic.
    pub(crate) fn dead_letters(topic: &str) -> impl Fn(Error) -> ConsumerError + '_ {
        move |source| ConsumerError::DeadLetters { topic: topic.to_owned(), source: Box::new(source) }
    }

    /// For a group's errors.
    pub(crate) fn group(name: &str) -> impl Fn(Error) -> ConsumerError + '_ {
        move |source| ConsumerError::Group { name: name.to_owned(), source: Box::new(source) }
    }
}
