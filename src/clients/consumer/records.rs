//! What a poll returns: batches as the engine lends them, of which the records are read where they are used.
//!
//! No record is copied, and nothing is allocated for it. A batch of which a poll returns a part is shared with the next
//! one; where its records were read up to there, the next part goes on at that byte.

use std::ops::Deref;
use std::sync::Arc;

use edgelog_core::{LeaderEpoch, Offset, Record, RecordsMark};
use parking_lot::Mutex;

use crate::clients::group::{ConsumerError, Result};
use crate::log::{Batch, Records, TopicPartition};

/// A batch that several polls return in parts.
#[derive(Debug)]
pub(super) struct SharedBatch {
    pub(super) batch: Batch,
    /// Where the records from this offset on begin, once those before were read.
    mark: Mutex<Option<(Offset, RecordsMark)>>,
}

impl SharedBatch {
    pub(super) fn new(batch: Batch) -> Arc<SharedBatch> {
        Arc::new(SharedBatch { batch, mark: Mutex::new(None) })
    }
}

#[derive(Debug)]
pub(super) enum Held {
    Whole(Batch),
    Part(Arc<SharedBatch>),
}

impl Held {
    #[inline]
    fn batch(&self) -> &Batch {
        match self {
            Held::Whole(batch) => batch,
            Held::Part(shared) => &shared.batch,
        }
    }
}

/// The records of one batch with offsets from `from` up to `until`.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) partition: Arc<TopicPartition>,
    pub(super) held: Held,
    pub(super) from: Offset,
    pub(super) until: Offset,
}

/// The records that a poll returns, partition by partition, each in the order of its log.
///
/// They stay readable when the consumer has gone on, or is gone. To keep one longer than its batch, copy it: a batch
/// keeps its segment's bytes.
#[derive(Debug, Default)]
pub struct ConsumerRecords {
    pub(super) parts: Vec<Part>,
}

impl ConsumerRecords {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many records there are; of a log that was compacted elsewhere, how many at most.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| usize::try_from(part.until - part.from).unwrap_or(0)).sum()
    }

    /// The partitions that they are of, in the order of the records. A partition may come more than once.
    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        let mut last: Option<&TopicPartition> = None;
        self.parts
            .iter()
            .map(|part| &*part.partition)
            .filter(move |partition| last.replace(partition) != Some(*partition))
    }

    /// All records. A record that cannot be read is an error in its place; what follows it in its batch is left out.
    pub fn iter(&self) -> Iter<'_> {
        Iter { parts: self.parts.iter(), current: None }
    }

    /// The records of one partition.
    pub fn records<'a>(&'a self, partition: &'a TopicPartition) -> impl Iterator<Item = Result<ConsumerRecord<'a>>> {
        let parts = self.parts.iter().filter(move |part| *part.partition == *partition);
        parts.flat_map(|part| Iter { parts: std::slice::from_ref(part).iter(), current: None })
    }
}

impl<'a> IntoIterator for &'a ConsumerRecords {
    type Item = Result<ConsumerRecord<'a>>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// A record, and where it was read. Dereferences to the [`Record`] with its offset, timestamp, key, value and headers.
#[derive(Debug, Clone, Copy)]
pub struct ConsumerRecord<'a> {
    partition: &'a TopicPartition,
    leader_epoch: LeaderEpoch,
    record: Record<'a>,
}

impl<'a> ConsumerRecord<'a> {
    /// Its topic.
    pub fn topic(&self) -> &'a str {
        &self.partition.topic
    }

    /// The number of its partition.
    pub fn partition(&self) -> u32 {
        self.partition.partition
    }

    /// Its topic and partition.
    pub fn topic_partition(&self) -> &'a TopicPartition {
        self.partition
    }

    /// The leader epoch that it was written in.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The record, which lives as long as what `poll` has returned.
    pub fn record(&self) -> Record<'a> {
        self.record
    }
}

impl<'a> Deref for ConsumerRecord<'a> {
    type Target = Record<'a>;

    fn deref(&self) -> &Record<'a> {
        &self.record
    }
}

/// Iterates over what a poll has returned.
#[derive(Debug)]
pub struct Iter<'a> {
    parts: std::slice::Iter<'a, Part>,
    current: Option<Current<'a>>,
}

#[derive(Debug)]
struct Current<'a> {
    part: &'a Part,
    records: Records<'a>,
    leader_epoch: LeaderEpoch,
    /// The offset behind the last record.
    next: Offset,
}

impl Iter<'_> {
    /// Begins the next part.
    #[cold]
    fn begin(&mut self) -> Option<Result<()>> {
        let part = self.parts.next()?;
        let batch = part.held.batch();
        let mut records = match batch.records() {
            Ok(records) => records,
            Err(error) => return Some(Err(ConsumerError::log(&part.partition)(error))),
        };
        if let Held::Part(shared) = &part.held {
            if let Some((_, mark)) = shared.mark.lock().filter(|(at, _)| *at == part.from) {
                records.skip_to(mark);
            }
        }
        self.current = Some(Current { part, records, leader_epoch: batch.leader_epoch(), next: part.from });
        Some(Ok(()))
    }

    /// Ends the part, and leaves to the next one of its batch where that begins.
    #[cold]
    fn end(&mut self) {
        let Some(Current { part, records, next, .. }) = self.current.take() else { return };
        if let (Held::Part(shared), true) = (&part.held, next == part.until) {
            *shared.mark.lock() = Some((next, records.mark()));
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<ConsumerRecord<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Result<ConsumerRecord<'a>>> {
        loop {
            let Some(current) = &mut self.current else {
                match self.begin()? {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            };
            if current.next < current.part.until {
                match current.records.next() {
                    Some(Ok(record)) if record.offset < current.part.from => continue,
                    Some(Ok(record)) if record.offset < current.part.until => {
                        current.next = record.offset + 1;
                        let (partition, leader_epoch) = (&*current.part.partition, current.leader_epoch);
                        return Some(Ok(ConsumerRecord { partition, leader_epoch, record }));
                    }
                    Some(Err(error)) => {
                        let error = ConsumerError::log(&current.part.partition)(error);
                        self.current = None;
                        return Some(Err(error));
                    }
                    _ => {}
                }
            }
            self.end();
        }
    }
}
