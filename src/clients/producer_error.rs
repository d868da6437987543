//! Why a record was not sent, or not acknowledged.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::escape::escaped;
use crate::log::TopicPartition;

/// Why a record was not sent, or not acknowledged.
///
/// What [`Producer::send`](super::Producer::send) itself answers means that the record was not taken. What a
/// [`Delivery`](super::Delivery) answers is of a record that was taken and is not acknowledged: after
/// [`Log`](ProducerError::Log) and [`DeliveryTimeout`](ProducerError::DeliveryTimeout) it may still be found in the
/// log.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// A key or a value of the configuration that cannot be.
    #[error("{0}")]
    InvalidConfig(Box<InvalidKey>),
    /// The record alone is larger than one of the limits.
    #[error("the record takes {given} bytes, {key} allows {max}")]
    RecordTooLarge {
        /// Bytes that the record takes in a batch of its own, at most.
        given: usize,
        /// The limit in bytes.
        max: usize,
        /// Whose limit it is.
        key: &'static str,
    },
    /// Records that wait for their acknowledgement fill `buffer.memory`, and went on doing so for `max.block.ms`.
    #[error(
        "buffer.memory={buffer_memory} is used up, {needed} bytes were not free within max.block.ms={max_block_ms}"
    )]
    BufferFull {
        /// Bytes that a new batch needs.
        needed: usize,
        /// The limit in bytes.
        buffer_memory: u64,
        /// How long `send` waited.
        max_block_ms: u64,
    },
    /// There is no such partition of the topic, or its directory is not in the data directory.
    #[error("{} has {partitions} partitions, and none with the number {partition} that is there", escaped(topic))]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
        /// How many the topic has.
        partitions: u32,
    },
    /// The topic does not exist, and `allow.auto.create.topics` is false.
    #[error("there is no topic {}, and allow.auto.create.topics=false", escaped(topic))]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// `delivery.timeout.ms` passed without an acknowledgement. The record may be in the log all the same.
    #[error("not acknowledged within delivery.timeout.ms={delivery_timeout_ms}; the record may be in the log")]
    DeliveryTimeout {
        /// The limit.
        delivery_timeout_ms: u64,
    },
    /// The record was discarded by [`Producer::purge`](super::Producer::purge) before it was appended.
    #[error("the record was purged before it was appended")]
    Purged,
    /// The log was truncated below the record before it was acknowledged.
    #[error("the log was truncated below the record before it was acknowledged")]
    Truncated,
    /// A newer producer of the same name was opened. This one appends nothing any more.
    #[error("producer {name} of epoch {epoch} is fenced by a newer one, of epoch {newest}")]
    ProducerFenced {
        /// `edgelog.producer.name`.
        name: String,
        /// This producer's epoch.
        epoch: i16,
        /// The newest one's, of the same producer id or a later one.
        newest: i16,
    },
    /// A record of a named producer has a number that is neither the next one nor that of a record that the log has.
    #[error("{partition}: a record has the sequence {sequence}, and {expected} is expected")]
    OutOfOrderSequence {
        /// The partition.
        partition: Box<TopicPartition>,
        /// The record's number.
        sequence: i64,
        /// The next number.
        expected: i64,
    },
    /// A record has a sequence or a source offset where it can have none.
    #[error("the record has a sequence: {reason}")]
    SequenceNotAllowed {
        /// Why.
        reason: &'static str,
    },
    /// The producer is closed.
    #[error("the producer is closed")]
    Closed,
    /// A callback, which runs on the producer's own thread, asked for something that only that thread can do.
    #[error("a callback cannot wait for its own producer")]
    InCallback,
    /// What the store or the log answered.
    #[error(transparent)]
    Log(Arc<Error>),
}

/// A key or a value that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidKey {
    /// The key as given.
    pub key: String,
    /// The value as given.
    pub value: String,
    /// Why, with the limit or the nearest key.
    pub reason: String,
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", escaped(&self.key), escaped(&self.value), self.reason)
    }
}

impl ProducerError {
    /// Kafka's error code, where Kafka has one for this.
    pub fn kafka_code(&self) -> Option<i16> {
        match self {
            ProducerError::UnknownPartition { .. } | ProducerError::UnknownTopic { .. } => Some(3),
            ProducerError::DeliveryTimeout { .. } | ProducerError::BufferFull { .. } => Some(7),
            ProducerError::RecordTooLarge { .. } => Some(10),
            ProducerError::InvalidConfig(_) => Some(40),
            ProducerError::OutOfOrderSequence { .. } => Some(45),
            ProducerError::ProducerFenced { .. } => Some(90),
            ProducerError::Log(error) => error.kafka_code(),
            _ => None,
        }
    }

    /// Whether the same record may be sent later with success, by the same producer: memory or disk was full.
    pub fn is_retriable(&self) -> bool {
        match self {
            ProducerError::BufferFull { .. } => true,
            ProducerError::Log(error) => error.is_retriable(),
            _ => false,
        }
    }
}

impl From<Error> for ProducerError {
    fn from(error: Error) -> ProducerError {
        match error {
            Error::RecordTooLarge { given, max } => {
                ProducerError::RecordTooLarge { given, max, key: "max.message.bytes" }
            }
            error => ProducerError::Log(Arc::new(error)),
        }
    }
}
