//! Kafka's clients, in the process: producers and consumers over a [`Store`](crate::Store).
//!
//! A [`Log`](crate::Log) appends and reads. What a program builds around that stands here, in the shapes that
//! people know from Kafka: records that are sent without waiting, positions that outlive the process.
