//! Named producers: records that have numbers, and are appended once.
//!
//! # Numbers
//!
//! A producer with `edgelog.producer.name` numbers the records of each partition, from 0 up to 2^62. A record may come
//! with its own number: a *sequence*, which has to be the next one, as in Kafka; or a *source offset*, which may pass
//! over numbers, since a program that filters what it reads has nothing to send for some. What the log has already is
//! answered with its offset, and not appended again.
//!
//! Kafka's batches have 32 bits for this, and edgelog writes them as Kafka does: producer id, producer epoch, and as
//! base sequence the lower 31 bits of the first record's number. Records of one batch follow one upon the other, so a
//! record that passes over numbers begins a batch. `log::sequences` says how the upper bits come back.
//!
//! # Why nothing is appended twice, and nothing is left out
//!
//! 1. A number is held against the log's and the open batch's under the partition's lock, under which batches are
//!    appended. What the log's last number is was found by a walk over its batches.
//! 2. One producer of a name appends at a time: who appends holds its fence, and a newer producer waits for that before
//!    it looks into any log. Its epoch is durable before.
//! 3. Where a batch was not appended, the numbers behind it are refused until its own come again. They would hide that
//!    these are missing.
//! 4. A repeat is acknowledged as its first was: with `acks=all` when that is durable.

use edgelog_core::{LeaderEpoch, Offset};

use super::producer_error::ProducerError;
use crate::canary::{Bug, bug};
use crate::error::Error;
use crate::log::{AppendInfo, BatchBuilder, Log, NUMBER_MAX, Numbered, NumberedBatch, SEQUENCE_MASK, TopicPartition};
use crate::store::producer_ids::ProducerIdentity;
use crate::sync::RwLockReadGuard;

/// The number that a record brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sequence {
    /// The next one, as in Kafka.
    Exact(i64),
    /// A later one.
    Rising(i64),
}

impl Sequence {
    fn number(self) -> i64 {
        match self {
            Sequence::Exact(number) | Sequence::Rising(number) => number,
        }
    }
}

/// The name that a producer has, and its fence.
#[derive(Debug)]
pub(super) struct Naming(pub(super) ProducerIdentity);

impl Naming {
    /// No newer producer of the name begins while the answer is held.
    fn enter(&self) -> Result<RwLockReadGuard<'_, (i64, i16)>, ProducerError> {
        let newest = self.0.fence.read();
        if *newest == (self.0.id(), self.0.epoch) || bug(Bug::FenceNoProducer) {
            return Ok(newest);
        }
        Err(ProducerError::ProducerFenced { name: self.0.name.clone(), epoch: self.0.epoch, newest: newest.1 })
    }
}

/// The numbers of one partition, under its lock.
#[derive(Debug)]
pub(super) struct Numbers {
    log: Numbered,
    /// Of the first record of the open batch, or of the one that is about to be opened.
    first: i64,
    /// A batch from this number on was not appended: nothing behind it is, before it comes again.
    missing_from: Option<i64>,
}

/// What the number of a record means.
#[derive(Debug)]
pub(super) enum Place {
    /// It goes behind the last record of the open batch.
    Next,
    /// It goes into a batch of its own beginning: the open one is to be appended first.
    BehindAHole,
    /// It is the record with this index in the open batch.
    Open(u32),
    /// The log has it: its offset and leader epoch; -1 where they are not known.
    InLog(Offset, LeaderEpoch),
}

impl Numbers {
    /// What the log says now. `before` is what was known.
    pub(super) fn read(naming: &Naming, log: &Log, before: Option<Numbers>) -> Result<Numbers, ProducerError> {
        let _fence = naming.enter()?;
        let numbered = log.numbered(&naming.0.ids)?;
        let first = before.as_ref().map_or(numbered.last + 1, |before| before.first);
        Ok(Numbers { log: numbered, first, missing_from: before.and_then(|before| before.missing_from) })
    }

    /// Whether they are of the log as it is.
    pub(super) fn is_current(&self, log: &Log) -> bool {
        self.log.generation == log.generation()
    }

    /// The number of the last record that the log has.
    pub(super) fn last(&self, naming: &Naming) -> Result<Option<i64>, ProducerError> {
        drop(naming.enter()?);
        Ok((self.log.last >= 0).then_some(self.log.last))
    }

    /// Where a record goes, with `pending` records in the open batch; notes its number where it opens a batch.
    pub(super) fn place(
        &mut self,
        naming: &Naming,
        partition: &TopicPartition,
        sequence: Option<Sequence>,
        pending: usize,
    ) -> Result<Place, ProducerError> {
        drop(naming.enter()?);
        let pending = pending as i64;
        let next = match (pending, self.missing_from) {
            (0, missing_from) => missing_from.unwrap_or(self.log.last + 1),
            _ => self.first + pending,
        };
        let number = sequence.map_or(next, Sequence::number);
        let is_first = pending == 0 && self.log.last < 0 && self.missing_from.is_none();
        let may_skip = matches!(sequence, Some(Sequence::Rising(_))) && (pending > 0 || self.missing_from.is_none());
        if !(0..NUMBER_MAX).contains(&number) || (number > next && !may_skip && !is_first) {
            return Err(out_of_order(partition, number, next));
        }
        if pending > 0 && (self.first..next).contains(&number) {
            return Ok(Place::Open((number - self.first) as u32));
        }
        if number <= self.log.last {
            return match self.log.find(number) {
                Some(batch) => Ok(Place::InLog(batch.base_offset + (number - batch.first), batch.leader_epoch)),
                None if number <= self.log.unknown_to => Ok(Place::InLog(Offset(-1), LeaderEpoch(-1))),
                None => Err(out_of_order(partition, number, next)),
            };
        }
        match pending {
            0 => self.first = number,
            _ if number < next => return Err(out_of_order(partition, number, next)),
            _ if number > next => return Ok(Place::BehindAHole),
            _ => {}
        }
        Ok(Place::Next)
    }

    /// Appends the batch under its numbers.
    pub(super) fn append(
        &mut self,
        naming: &Naming,
        log: &Log,
        builder: &mut BatchBuilder,
        append: impl FnOnce(&mut BatchBuilder) -> Result<AppendInfo, Error>,
    ) -> Result<AppendInfo, ProducerError> {
        let (first, last) = (self.first, self.first + builder.len() as i64 - 1);
        let appended = naming.enter().and_then(|fence| {
            if first - (self.log.last + 1) > SEQUENCE_MASK {
                log.note_jump(&naming.0.ids, first - 1)?;
            }
            builder.set_producer(naming.0.id(), naming.0.epoch, (first & SEQUENCE_MASK) as i32);
            let info = append(builder)?;
            drop(fence);
            Ok(info)
        });
        match &appended {
            Ok(info) => {
                let (base_offset, leader_epoch) = (info.base_offset, info.leader_epoch);
                self.log.note(NumberedBatch { first, last, base_offset, leader_epoch });
                self.missing_from = self.missing_from.filter(|from| *from > last);
            }
            Err(_) => self.discard(),
        }
        appended
    }

    /// The open batch goes without being appended.
    pub(super) fn discard(&mut self) {
        self.missing_from = Some(self.missing_from.map_or(self.first, |from| from.min(self.first)));
    }
}

fn out_of_order(partition: &TopicPartition, sequence: i64, expected: i64) -> ProducerError {
    ProducerError::OutOfOrderSequence { partition: Box::new(partition.clone()), sequence, expected }
}

#[cfg(test)]
mod crash;
