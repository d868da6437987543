//! Kafka's clients, in the process: producers and consumers over a [`Store`](crate::Store).
//!
//! A [`Log`](crate::Log) appends and reads. What a program builds around that stands here, in the shapes that
//! people know from Kafka: records that are sent without waiting, positions that outlive the process.

mod consumer;
mod group;

pub use consumer::{
    CONSUMER_KEYS, Consumer, ConsumerKey, ConsumerOptions, ConsumerRecord, ConsumerRecords, Iter, RebalanceListener,
};
pub use group::{
    CommittedOffset, ConsumerError, GROUP_DIR_BYTES_MAX, Group, GroupDescription, GroupRecovery, OffsetAndMetadata,
    Waker, delete_group, describe_group, list_groups,
};
