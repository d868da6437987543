//! What is sent, and what comes back.

use std::sync::Arc;

use edgelog_core::{Header, LeaderEpoch, Offset, OffsetAndEpoch, TimestampMs};

use super::named::Sequence;
use crate::log::{NewRecord, TopicPartition};

/// A record to send, borrowed from its caller: [`send`](super::Producer::send) encodes it before it returns.
///
/// ```
/// # use edgelog::clients::ProducerRecord;
/// let record = ProducerRecord::new("telemetry", b"21.5 C").with_key(b"boiler");
/// # assert_eq!(record.key, Some(&b"boiler"[..]));
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ProducerRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition; `None` lets the partitioner choose.
    pub partition: Option<u32>,
    /// The key; `None` is Kafka's null key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since 1970; `None` lets the store's clock say.
    pub timestamp: Option<TimestampMs>,
    pub(super) sequence: Option<Sequence>,
}

impl<'a> ProducerRecord<'a> {
    /// A record with this value and no key.
    pub fn new(topic: &'a str, value: &'a [u8]) -> ProducerRecord<'a> {
        ProducerRecord {
            topic,
            partition: None,
            key: None,
            value: Some(value),
            headers: &[],
            timestamp: None,
            sequence: None,
        }
    }

    /// A record that says the key's value is gone.
    pub fn tombstone(topic: &'a str, key: &'a [u8]) -> ProducerRecord<'a> {
        ProducerRecord {
            topic,
            partition: None,
            key: Some(key),
            value: None,
            headers: &[],
            timestamp: None,
            sequence: None,
        }
    }

    /// The same record with a key.
    #[must_use]
    pub fn with_key(self, key: &'a [u8]) -> ProducerRecord<'a> {
        ProducerRecord { key: Some(key), ..self }
    }

    /// The same record for this partition, no matter which key it has.
    #[must_use]
    pub fn with_partition(self, partition: u32) -> ProducerRecord<'a> {
        ProducerRecord { partition: Some(partition), ..self }
    }

    /// The same record with headers.
    #[must_use]
    pub fn with_headers(self, headers: &'a [Header<'a>]) -> ProducerRecord<'a> {
        ProducerRecord { headers, ..self }
    }

    /// The same record with its own timestamp.
    #[must_use]
    pub fn with_timestamp(self, timestamp: TimestampMs) -> ProducerRecord<'a> {
        ProducerRecord { timestamp: Some(timestamp), ..self }
    }

    /// The same record with its number in its partition, for a producer with `edgelog.producer.name`. It has to be the
    /// next one (a producer's first record in a partition may have any), or that of a record that the log has: that one
    /// is not appended again. The record needs a partition or a key.
    #[must_use]
    pub fn with_sequence(self, sequence: i64) -> ProducerRecord<'a> {
        ProducerRecord { sequence: Some(Sequence::Exact(sequence)), ..self }
    }

    /// As [`with_sequence`](Self::with_sequence), with a number that may pass over others: the offset of the record
    /// that this one was made from. With one source partition for each target partition, what is read, processed and
    /// sent again is there once.
    #[must_use]
    pub fn with_source_offset(self, offset: Offset) -> ProducerRecord<'a> {
        ProducerRecord { sequence: Some(Sequence::Rising(offset.0)), ..self }
    }

    pub(super) fn for_log(&self, timestamp: TimestampMs) -> NewRecord<'a> {
        NewRecord::new(self.key, self.value).with_headers(self.headers).with_timestamp(timestamp)
    }

    /// The most bytes that the record takes in a batch: its lengths and deltas at their longest.
    #[inline]
    pub(super) fn bytes_max(&self) -> usize {
        /// Attributes, and six numbers of five bytes or one of ten.
        const AROUND: usize = 1 + 5 + 10 + 5 + 5 + 5 + 5;
        const AROUND_HEADER: usize = 10;
        let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let mut bytes = AROUND.saturating_add(len(self.key)).saturating_add(len(self.value));
        for header in self.headers {
            bytes = bytes.saturating_add(AROUND_HEADER + header.key.len()).saturating_add(len(header.value));
        }
        bytes
    }
}

/// Where a record stands that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The topic and partition, shared by all records of the partition.
    pub topic_partition: Arc<TopicPartition>,
    /// The offset. `None` with `acks=0`, which does not wait until it is known, and where a named producer repeats a
    /// record that the log has, or had, and that it does not remember.
    pub offset: Option<Offset>,
    /// The leader epoch that it was written in; with the offset it names this record and no other. -1 without one.
    pub leader_epoch: LeaderEpoch,
    /// The record's timestamp.
    pub timestamp: TimestampMs,
}

impl RecordMetadata {
    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic_partition.topic
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.topic_partition.partition
    }

    /// The record's position, safe to keep across restarts; `None` with `acks=0`.
    pub fn position(&self) -> Option<OffsetAndEpoch> {
        self.offset.map(|offset| OffsetAndEpoch { offset, leader_epoch: self.leader_epoch })
    }
}

#[cfg(test)]
mod tests {
    use edgelog_core::{HEADER_LEN, RecordBatchBuilder};

    use super::*;

    #[test]
    fn the_bound_of_a_record_is_a_bound() {
        let long = vec![7; 70_000];
        let headers = [Header { key: b"name", value: Some(&long) }, Header { key: b"", value: None }];
        let records = [
            ProducerRecord::new("t", b""),
            ProducerRecord::new("t", &long).with_key(&long).with_headers(&headers),
            ProducerRecord::tombstone("t", b"k").with_headers(&headers[1..]),
        ];
        for record in records {
            let mut builder = RecordBatchBuilder::new(vec![0; 500_000]);
            for timestamp in [i64::MAX, 0] {
                let before = builder.size();
                builder.append(TimestampMs(timestamp), record.key, record.value, record.headers).unwrap();
                assert!(builder.size() - before <= record.bytes_max(), "{} bytes", builder.size() - HEADER_LEN);
            }
        }
    }
}
