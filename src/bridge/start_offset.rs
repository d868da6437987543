//! Where the records of a log are sent from: decided from what the cluster has committed of it, what the progress file
//! says, the target topic, whose history an offset is of, and the configuration.
//!
//! [`resolve_start`] decides, and does nothing else: what it needs is handed in, and what it lacks it asks for. Its
//! tests are a table of all cases that there are. `starts` gets the values, for all logs at once, and carries out what
//! was decided.

use edgelog_core::LogId;
use uuid::Uuid;

use super::committed_offset::{CommittedOffset, Decision, OperatorDecision};
use super::config::{BridgeConfig, LostRule, NewLogRule, PartitionRule, RecreatedRule, SetBackRule};
use super::in_doubt::InDoubtOutcome;
use super::ownership::Ownership;
use super::partition;
use super::pause_reason::PauseReason;
use super::progress_file::{LogProgress, PendingCommit};
use crate::kafka::GroupOffset;

/// When the committed offsets were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadAs {
    /// A transaction that is open may move them.
    Current,
    /// Behind transactions that were open.
    Stable,
    /// Behind InitProducerId: only this bridge can move them.
    Holder,
}

/// What the progress file says of the log.
#[derive(Debug, Clone, Copy)]
pub(super) enum Progress<'a> {
    /// The file cannot be read.
    Damaged,
    Nothing,
    Known(&'a LogProgress),
}

/// The target topic as the cluster has it now.
#[derive(Debug, Clone, Copy)]
pub(super) struct TargetTopic<'a> {
    pub(super) name: &'a str,
    pub(super) id: Uuid,
    pub(super) partitions: usize,
    /// The id of the cluster.
    pub(super) cluster: Option<&'a str>,
}

/// What a start is resolved from.
#[derive(Debug, Clone, Copy)]
pub(super) struct StartFacts<'a> {
    pub(super) log_id: LogId,
    /// The number of the local partition.
    pub(super) partition: u32,
    /// The log was deleted and created again here while the bridge ran.
    pub(super) is_recreated: bool,
    pub(super) topic: TargetTopic<'a>,
    /// What the log's group has committed for the target topic.
    pub(super) committed: &'a [GroupOffset],
    pub(super) read_as: ReadAs,
    pub(super) progress: Progress<'a>,
    /// What became of the pending commit, once that was asked for.
    pub(super) in_doubt: Option<&'a InDoubtOutcome>,
}

/// What the configuration says.
#[derive(Debug, Clone, Copy)]
pub(super) struct StartPolicy<'a> {
    pub(super) on_set_back: SetBackRule,
    pub(super) on_recreated: RecreatedRule,
    pub(super) on_new_log: NewLogRule,
    pub(super) on_lost: LostRule,
    pub(super) partition: PartitionRule,
    /// The target topic is the device's own.
    pub(super) is_own_topic: bool,
    pub(super) device: &'a str,
}

impl StartPolicy<'_> {
    pub(super) fn of(config: &BridgeConfig) -> StartPolicy<'_> {
        StartPolicy {
            on_set_back: config.on_set_back,
            on_recreated: config.on_recreated,
            on_new_log: config.on_new_log,
            on_lost: config.on_lost,
            partition: config.partition,
            is_own_topic: config.to.contains("{device}"),
            device: &config.device,
        }
    }
}

/// Where a log goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Behind an offset of this log's own.
    At(CommittedOffset),
    /// At the first record that the log holds: the cluster has nothing of it.
    Beginning,
    /// A person has decided that it goes on there, or at its first record.
    Decided(Option<CommittedOffset>),
    /// Nowhere: the offset is of another log. Where that is so of every log, this is another device's id.
    AnotherLog(PauseReason),
    Paused(PauseReason),
    /// The offset is of another copy of this device: nothing at all may be sent.
    Conflict(String),
    /// The committed offsets have to be read again behind transactions that are open.
    ReadStable,
    /// What became of this commit has to be found out.
    FindOutcome(PendingCommit),
}

/// A start, and the target partition, where one was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) partition: Option<i32>,
    pub(super) start: Start,
}

/// Finds out whose history an offset is of: it reads the batch of the log that ends there.
pub(super) type CheckOwnership<'a> = dyn Fn(&CommittedOffset) -> crate::Result<Ownership> + 'a;

/// Where a log goes on.
///
/// # Errors
/// What `ownership` answers.
pub(super) fn resolve_start(
    facts: &StartFacts<'_>,
    policy: &StartPolicy<'_>,
    ownership: &CheckOwnership<'_>,
) -> crate::Result<Resolved> {
    let resolver = Resolver { facts, policy, ownership };
    let at_partition = |known| match resolver.choose_partition(known) {
        Ok(partition) => Ok(partition),
        Err(reason) => Err(Resolved { partition: None, start: Start::Paused(reason) }),
    };
    match facts.committed {
        [committed] => match at_partition(Some(committed.partition)) {
            Ok(partition) => {
                let start = resolver.by_committed(committed)?;
                Ok(Resolved { partition: Some(partition), start })
            }
            Err(paused) => Ok(paused),
        },
        [] => {
            if matches!(facts.progress, Progress::Damaged) {
                return Ok(Resolved { partition: None, start: Start::Paused(PauseReason::ProgressDamaged) });
            }
            let known = resolver.progress().filter(|log| log.acknowledged.is_some() || log.pending.is_some());
            match at_partition(known.map(|known| known.partition)) {
                Ok(partition) => {
                    let start = known.map_or(Ok(Start::Beginning), |known| resolver.by_progress(known))?;
                    Ok(Resolved { partition: Some(partition), start })
                }
                Err(paused) => Ok(paused),
            }
        }
        several => {
            let partitions = several.iter().map(|committed| committed.partition).collect();
            let reason = PauseReason::SeveralPartitions { topic: facts.topic.name.to_owned(), partitions };
            Ok(Resolved { partition: None, start: Start::Paused(reason) })
        }
    }
}

struct Resolver<'a> {
    facts: &'a StartFacts<'a>,
    policy: &'a StartPolicy<'a>,
    ownership: &'a CheckOwnership<'a>,
}

impl<'a> Resolver<'a> {
    /// What the progress file says of the log on its way to this target.
    fn progress(&self) -> Option<&'a LogProgress> {
        match self.facts.progress {
            Progress::Known(log) if log.remote == self.facts.topic.name => Some(log),
            _ => None,
        }
    }

    /// Where there is an offset, the log stays with its partition, also when partitions are added.
    fn choose_partition(&self, known: Option<i32>) -> std::result::Result<i32, PauseReason> {
        let (count, topic) = (self.facts.topic.partitions, self.facts.topic.name.to_owned());
        match known {
            Some(partition) if usize::try_from(partition).is_ok_and(|partition| partition < count) => Ok(partition),
            Some(partition) => Err(PauseReason::PartitionMissing { topic, partition, count }),
            None => {
                let StartPolicy { partition: rule, is_own_topic, device, .. } = *self.policy;
                partition::choose(rule, is_own_topic, device, self.facts.partition, count)
                    .map_err(|reason| PauseReason::TargetUnusable { topic, reason })
            }
        }
    }

    fn by_committed(&self, committed: &GroupOffset) -> crate::Result<Start> {
        match OperatorDecision::parse(&committed.metadata) {
            Some(Ok(decision)) => return self.by_decision(&decision),
            Some(Err(reason)) => return Ok(Start::Paused(PauseReason::DecisionNotUnderstood { reason })),
            None => {}
        }
        let offset = match CommittedOffset::parse(committed.offset, &committed.metadata) {
            Ok(offset) => offset,
            Err(reason) => return Ok(Start::Paused(PauseReason::OffsetNotUsable { reason })),
        };
        if offset.topic_id != self.facts.topic.id {
            return self.in_recreated_topic(offset);
        }
        let is_of_these = |known: &CommittedOffset| known.log_id == offset.log_id && known.topic_id == offset.topic_id;
        let acknowledged = self.progress().and_then(|log| log.acknowledged).filter(is_of_these);
        let Some(acknowledged) = acknowledged.filter(|acknowledged| acknowledged.offset > offset.offset) else {
            return self.if_ours(offset);
        };
        if self.facts.read_as == ReadAs::Current {
            // A transaction is committed before its offsets are: what it acknowledged may be on its way there.
            return Ok(Start::ReadStable);
        }
        match self.policy.on_set_back {
            SetBackRule::Follow => self.if_ours(offset),
            SetBackRule::Resume => self.if_ours(acknowledged),
            SetBackRule::Stop => {
                Ok(Start::Paused(PauseReason::SetBack { committed: offset.offset, acknowledged: acknowledged.offset }))
            }
        }
    }

    fn by_decision(&self, decided: &OperatorDecision) -> crate::Result<Start> {
        if !is_for_this_log(decided, self.ownership)? {
            return Ok(Start::Conflict("a person has decided that another copy of this device goes on".to_owned()));
        }
        let (Decision::Adopt, Some(log)) = (decided.decision, self.progress()) else {
            return Ok(Start::Decided(None));
        };
        let mut at = log.acknowledged;
        // What is open is resolved once only this bridge can move it; where that cannot be seen, it is sent again.
        let is_holder = self.facts.read_as == ReadAs::Holder;
        let pending = log.pending.as_ref().filter(|pending| pending.to.topic_id == self.facts.topic.id);
        if let Some(pending) = pending.filter(|_| is_holder) {
            match self.facts.in_doubt {
                None => return Ok(Start::FindOutcome(pending.clone())),
                Some(InDoubtOutcome::Committed) => at = Some(pending.to),
                Some(InDoubtOutcome::Aborted | InDoubtOutcome::Gone(_)) => {}
            }
        }
        let is_ours = at.as_ref().is_some_and(|at| matches!((self.ownership)(at), Ok(Ownership::Ours)));
        Ok(Start::Decided(at.filter(|_| is_ours)))
    }

    /// The cluster has no offset: the log is new there, or its offset expired.
    fn by_progress(&self, known: &LogProgress) -> crate::Result<Start> {
        let newest = known.pending.as_ref().map(|pending| pending.to).or(known.acknowledged);
        let newest = newest.expect("what is known has an offset");
        if newest.log_id != self.facts.log_id {
            return Ok(self.if_of_another_log("the note in the data directory is of a log of another identity"));
        }
        if newest.topic_id != self.facts.topic.id {
            // What a pending commit would have added went with the topic.
            return match (known.acknowledged, self.policy.on_recreated) {
                (None, RecreatedRule::Resume) => Ok(Start::Beginning),
                (acknowledged, _) => self.in_recreated_topic(acknowledged.unwrap_or(newest)),
            };
        }
        let mut at = known.acknowledged;
        if let Some(pending) = &known.pending {
            match self.facts.in_doubt {
                // Resolved once only this bridge can move it.
                _ if self.facts.read_as != ReadAs::Holder => return Ok(Start::Beginning),
                None => return Ok(Start::FindOutcome(pending.clone())),
                Some(InDoubtOutcome::Committed) => at = Some(pending.to),
                Some(InDoubtOutcome::Aborted) => {}
                Some(InDoubtOutcome::Gone(reason)) => {
                    return Ok(Start::Paused(PauseReason::InDoubt { reason: reason.clone() }));
                }
            }
        }
        at.map_or(Ok(Start::Beginning), |at| self.if_ours(at))
    }

    /// The offset is of a topic that was deleted and created again since.
    fn in_recreated_topic(&self, offset: CommittedOffset) -> crate::Result<Start> {
        match self.policy.on_recreated {
            RecreatedRule::Restart => Ok(Start::Beginning),
            RecreatedRule::Resume => self.if_ours(offset),
            RecreatedRule::Stop => {
                let topic = self.facts.topic.name.to_owned();
                let (offset, clusters) = (offset.offset, self.other_clusters());
                Ok(Start::Paused(PauseReason::TargetRecreated { topic, offset, clusters }))
            }
        }
    }

    /// The cluster that has acknowledged the log and this one, where they are not the same.
    fn other_clusters(&self) -> Option<(String, String)> {
        let Progress::Known(log) = self.facts.progress else { return None };
        let (before, now) = (log.cluster.as_deref()?, self.facts.topic.cluster?);
        (before != now).then(|| (before.to_owned(), now.to_owned()))
    }

    fn if_ours(&self, offset: CommittedOffset) -> crate::Result<Start> {
        Ok(match (self.ownership)(&offset)? {
            Ownership::Ours => Start::At(offset),
            Ownership::Foreign(reason) => self.if_of_another_log(&reason),
            Ownership::Diverged(reason) => Start::Conflict(reason),
            Ownership::Damaged(_) if self.policy.on_lost == LostRule::Report => Start::At(offset),
            Ownership::Damaged(reason) => Start::Paused(PauseReason::LocalLog { reason }),
        })
    }

    fn if_of_another_log(&self, reason: &str) -> Start {
        match self.policy.on_new_log {
            NewLogRule::Restart => Start::Beginning,
            // It was this device's own while this bridge ran, and no other one's.
            NewLogRule::Stop if self.facts.is_recreated => Start::Paused(PauseReason::LogRecreated),
            NewLogRule::Stop => Start::AnotherLog(PauseReason::AnotherLog {
                reason: format!(
                    "{reason}; where this one was created again on purpose, edgelog.bridge.on.new.log=restart sends it"
                ),
            }),
        }
    }
}

/// Whether a decision is for the copy of the log that is here.
pub(super) fn is_for_this_log(decided: &OperatorDecision, ownership: &CheckOwnership<'_>) -> crate::Result<bool> {
    match &decided.end {
        None => Ok(true),
        Some(end) => Ok(matches!(ownership(end)?, Ownership::Ours)),
    }
}

#[cfg(test)]
mod tests;
