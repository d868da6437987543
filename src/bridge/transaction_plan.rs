//! What one transaction carries, and all that it needs to know of the logs that it is of: it asks no sender.

use bytes::BytesMut;
use edgelog_core::Offset;

use super::committed_offset::CommittedOffset;
use super::dead_letter::Refusal;
use super::loss_record::Loss;
use super::producer_header::Producer;
use super::progress_file::{LogProgress, PendingCommit};
use crate::TopicPartition;
use crate::kafka::CoordinatorKey;

/// A log of which a transaction commits a range.
#[derive(Debug, Clone)]
pub(super) struct PlannedLog {
    /// Its sender, as a number.
    pub(super) sender: usize,
    pub(super) name: TopicPartition,
    /// The group that keeps its position.
    pub(super) group: CoordinatorKey,
    /// Where the range ends: what the transaction commits.
    pub(super) to: CommittedOffset,
    /// What the progress file says of it while nothing is about to be committed.
    pub(super) before: LogProgress,
}

impl PlannedLog {
    pub(super) fn group_id(&self) -> &str {
        let CoordinatorKey::Group(group) = &self.group else { unreachable!("positions are kept by groups") };
        group
    }

    /// The target topic and partition.
    pub(super) fn target(&self) -> (&str, i32) {
        (&self.before.remote, self.before.partition)
    }

    /// What the progress file says of it before `producer` commits the transaction, in which its first batch got that
    /// partition and offset of the target, if it has one.
    pub(super) fn pending(&self, producer: Producer, first: Option<((String, i32), Offset)>) -> LogProgress {
        let pending = first.map(|(place, first_offset)| {
            let is_target = (place.0.as_str(), place.1) == self.target();
            let elsewhere = Some(place).filter(|_| !is_target);
            PendingCommit { to: self.to, producer, first_offset, elsewhere }
        });
        LogProgress { pending, ..self.before.clone() }
    }
}

/// A batch for one partition of the target, not yet stamped.
#[derive(Debug)]
pub(super) struct ProducerBatch {
    pub(super) sender: usize,
    /// The topic and partition that it goes to.
    pub(super) to: (String, i32),
    pub(super) kind: Kind,
    pub(super) wire: BytesMut,
    pub(super) records: i32,
    pub(super) runs: Runs,
    /// The local offsets that it stands for: from the first to before the next.
    pub(super) offsets: (Offset, Offset),
}

/// The local offsets of a batch's records: of each run of consecutive ones, the index and the offset of its first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Runs(Vec<(u32, Offset)>);

impl Runs {
    /// Records whose offsets are consecutive.
    pub(super) fn from(first: Offset) -> Runs {
        Runs(vec![(0, first)])
    }

    /// The record at `index`, behind all before, has this offset.
    pub(super) fn push(&mut self, index: u32, offset: Offset) {
        if self.offset_of(index) != Some(offset) {
            self.0.push((index, offset));
        }
    }

    /// The offsets of `count` records: the first one's, and the one behind the last one's.
    pub(super) fn ends(&self, count: u32) -> Option<(Offset, Offset)> {
        Some((self.offset_of(0)?, self.offset_of(count.checked_sub(1)?)? + 1))
    }

    /// The offset of the record at `index`, where there are so many records.
    pub(super) fn offset_of(&self, index: u32) -> Option<Offset> {
        let (first, offset) = self.0.iter().rev().find(|(first, _)| *first <= index)?;
        Some(*offset + i64::from(index - first))
    }
}

/// What a piece holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The log's records.
    Records,
    DeadLetter(Refusal),
    Loss(Loss),
}

/// What one transaction carries.
#[derive(Debug, Default)]
pub(super) struct TransactionPlan {
    /// In the order of each log's offsets.
    pub(super) pieces: Vec<ProducerBatch>,
    /// The logs of which it commits a range, in the order in which they came to be in it.
    pub(super) logs: Vec<PlannedLog>,
    pub(super) bytes: usize,
    /// Whose turn it is next.
    pub(super) next_sender: usize,
}

impl TransactionPlan {
    pub(super) fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Where the range of this sender's log ends, if it carries one.
    pub(super) fn end_of(&self, sender: usize) -> Option<Offset> {
        self.log_of(sender).map(|log| log.to.offset)
    }

    /// The log of this sender, if it carries a range of it.
    pub(super) fn log_of(&self, sender: usize) -> Option<&PlannedLog> {
        self.logs.iter().find(|log| log.sender == sender)
    }

    /// Pieces stand for everything of this log below where its range ends.
    pub(super) fn reach(&mut self, log: PlannedLog) {
        match self.logs.iter_mut().find(|planned| planned.sender == log.sender) {
            Some(planned) => *planned = log,
            None => self.logs.push(log),
        }
    }

    /// Records of the logs in all.
    pub(super) fn records(&self) -> u64 {
        let ours = self.pieces.iter().filter(|piece| piece.kind == Kind::Records);
        ours.map(|piece| piece.records as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The broker counts records from the beginning of a batch, in which offsets may be missing.
    #[test]
    fn a_record_that_the_broker_names_by_its_index_is_found_by_its_offset() {
        let mut runs = Runs::default();
        for (index, offset) in [7, 8, 9, 20, 21, 40].into_iter().enumerate() {
            runs.push(index as u32, Offset(offset));
        }
        assert_eq!(runs.0, [(0, Offset(7)), (3, Offset(20)), (5, Offset(40))]);
        let offsets: Vec<i64> = (0..6).map(|index| runs.offset_of(index).unwrap().0).collect();
        assert_eq!(offsets, [7, 8, 9, 20, 21, 40]);
        assert_eq!(Runs::default().offset_of(0), None);
    }
}
