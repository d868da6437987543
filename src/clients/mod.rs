//! Kafka's clients, in the process: producers and consumers over a [`Store`](crate::Store).
//!
//! A [`Log`](crate::Log) appends and reads. What a program builds around that stands here, in the shapes that
//! people know from Kafka: records that are sent without waiting, positions that outlive the process.

mod accumulator;
mod consumer;
pub(crate) mod dead_letter;
mod delivery;
#[cfg(test)]
mod double_cuts;
mod group;
mod key;
#[cfg(all(loom, test))]
mod models;
mod named;
mod partitioner;
mod producer;
mod producer_bell;
mod producer_config;
mod producer_error;
mod producer_memory;
mod producer_metrics;
mod producer_record;
mod producer_sender;
mod share;

pub use consumer::{
    CONSUMER_KEYS, Consumer, ConsumerOptions, ConsumerRecord, ConsumerRecords, Iter, RebalanceListener,
};
pub use dead_letter::{DEAD_LETTER_QUEUE_KEYS, DeadLetter, DeadLetterQueue, DeadLetterQueueOptions, Processed};
pub use delivery::{Delivery, DeliveryResult};
pub use group::{
    CommittedOffset, ConsumerError, GROUP_DIR_BYTES_MAX, Group, GroupDescription, GroupRecovery, OffsetAndMetadata,
    Waker, attach_group_store, delete_group, describe_group, list_groups, open_group_store,
};
pub use key::ClientKey;
pub use partitioner::Partitioner;
pub use producer::{Producer, ProducerBuilder};
pub use producer_config::PRODUCER_KEYS;
pub use producer_error::{InvalidKey, ProducerError};
pub use producer_metrics::ProducerMetrics;
pub use producer_record::{ProducerRecord, RecordMetadata};
pub use share::{
    AckType, SHARE_CONSUMER_KEYS, ShareConsumer, ShareConsumerOptions, SharePartition, ShareRecord, ShareRecords,
    describe_share_group, reset_share_group,
};
