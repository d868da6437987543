//! What the next transaction carries: whose turn it is, how much fits in, and what has to go by itself. The
//! `accumulator` fills it.

use std::time::Duration;

use edgelog_core::Offset;

use super::accumulator::{DrainLimits, collect};
use super::committed_offset::BatchMark;
use super::lent_log::LentLog;
use super::partition_sender::PartitionSender;
use super::session::Session;
use super::targets::InternalTopics;
use super::transaction_plan::TransactionPlan;
use crate::clock::{Clock, SystemClock};

/// The first sender that looks for what the target refused.
fn searching(lent: &[LentLog<'_>]) -> Option<usize> {
    lent.iter().find(|log| log.is_searching && log.stopped.is_none()).map(|log| log.sender)
}

pub(super) struct Planner {
    /// What a transaction may carry, in bytes.
    bytes_max: usize,
    /// The most that `bytes_max` may be.
    bytes_allowed: usize,
    /// Whose turn it is first in the next transaction: one that is full before all had theirs goes on there.
    first_sender: usize,
    /// What was refused was looked into last: it is the turn of the others.
    others_turn: bool,
}

impl Planner {
    /// For transactions of at most so many bytes.
    pub(super) fn new(bytes_allowed: usize) -> Planner {
        Planner { bytes_max: bytes_allowed, bytes_allowed, first_sender: 0, others_turn: true }
    }

    /// Records, for a transaction that may be open for so long. Where a log's batch was refused, ranges of it are tried
    /// in transactions of their own, in turn with what the others have.
    pub(super) fn records(
        &mut self,
        session: &Session,
        internal: &InternalTopics,
        lent: &mut [LentLog<'_>],
        transaction_timeout: Duration,
    ) -> TransactionPlan {
        let (link, mut plan) = (session.cluster().link(), TransactionPlan::default());
        // The others and one that searches take turns. Three of them: the first may only begin a search.
        for _ in 0..3 {
            let only = searching(lent).filter(|_| !self.others_turn);
            let limits = DrainLimits {
                config: session.config(),
                internal,
                bytes_max: self.bytes_max.min(link.transaction_bytes_max(transaction_timeout)),
                request_bytes_max: link.piece_bytes_max(),
                senders_max: link.offsets_max(transaction_timeout),
                first: self.first_sender,
                now: SystemClock.now(),
                only,
            };
            plan = collect(lent, &limits);
            self.first_sender = plan.next_sender;
            self.others_turn = only.is_some();
            if !plan.is_empty() || only.is_none() && searching(lent).is_none() {
                break;
            }
        }
        plan
    }

    /// What the next transaction may carry after one with `bytes` that ran out of time.
    pub(super) fn ran_late(&mut self, bytes: usize) {
        self.bytes_max = (self.bytes_max.min(bytes) / 2).max(1);
    }

    /// What the next transaction may carry after one that was committed.
    pub(super) fn went_well(&mut self) {
        self.bytes_max = self.bytes_max.saturating_mul(2).min(self.bytes_allowed);
    }
}

/// Positions that are to be committed without records: those that the cluster would forget after some days, and those
/// in whose place a decision stands.
pub(super) fn positions_alone(
    session: &Session,
    senders: &[PartitionSender],
    transaction_timeout: Duration,
    of: impl Fn(&PartitionSender) -> Option<(Offset, BatchMark)>,
) -> TransactionPlan {
    let found = senders.iter().enumerate().filter_map(|(n, sender)| Some((n, of(sender)?)));
    let found = found.take(session.cluster().link().offsets_max(transaction_timeout));
    let logs = found.map(|(n, end)| senders[n].planned(n, end)).collect();
    TransactionPlan { logs, ..TransactionPlan::default() }
}
