//! What a poll of a share consumer returns.

use std::ops::Deref;
use std::sync::Arc;

use edgelog_core::{Offset, Record};

use crate::clients::group::{ConsumerError, Result};
use crate::log::{Batch, TopicPartition};

#[derive(Debug)]
pub(super) struct Part {
    pub(super) partition: Arc<TopicPartition>,
    pub(super) batch: Batch,
    /// The records of it that were given out, and how often each of them was.
    pub(super) given: Vec<(Offset, u16)>,
}

/// The records that a poll of a [`ShareConsumer`](super::ShareConsumer) returns. They stay readable when the consumer
/// has gone on, or is gone.
#[derive(Debug, Default)]
pub struct ShareRecords {
    pub(super) parts: Vec<Part>,
}

impl ShareRecords {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.given.len()).sum()
    }

    /// All records. A record that cannot be read is an error in its place; what follows it in its batch is left out.
    pub fn iter(&self) -> impl Iterator<Item = Result<ShareRecord<'_>>> {
        self.parts.iter().flat_map(Part::records)
    }
}

impl Part {
    fn records(&self) -> impl Iterator<Item = Result<ShareRecord<'_>>> {
        let (records, failed) = match self.batch.records() {
            Ok(records) => (Some(records), None),
            Err(error) => (None, Some(Err(ConsumerError::log(&self.partition)(error)))),
        };
        let mut given = self.given.iter().peekable();
        let found = records.into_iter().flatten().filter_map(move |record| {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Some(Err(ConsumerError::log(&self.partition)(error))),
            };
            let (_, delivery_count) = given.next_if(|(offset, _)| *offset == record.offset)?;
            Some(Ok(ShareRecord { partition: &self.partition, record, delivery_count: *delivery_count }))
        });
        failed.into_iter().chain(found)
    }
}

/// A record, where it was read, and how often it was delivered. Dereferences to the [`Record`].
#[derive(Debug, Clone, Copy)]
pub struct ShareRecord<'a> {
    pub(super) partition: &'a TopicPartition,
    record: Record<'a>,
    delivery_count: u16,
}

impl<'a> ShareRecord<'a> {
    /// Its topic and partition.
    pub fn topic_partition(&self) -> &'a TopicPartition {
        self.partition
    }

    /// The record, which lives as long as what `poll` has returned.
    pub fn record(&self) -> Record<'a> {
        self.record
    }

    /// How often it was delivered, this time included.
    pub fn delivery_count(&self) -> u16 {
        self.delivery_count
    }
}

impl<'a> Deref for ShareRecord<'a> {
    type Target = Record<'a>;

    fn deref(&self) -> &Record<'a> {
        &self.record
    }
}
