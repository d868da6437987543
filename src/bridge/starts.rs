//! Where all senders go on: asks the cluster for what it has committed of them, all at once, and carries out what
//! `start_offset` decides from that.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use edgelog_core::LogId;

use kafka_protocol::error::ResponseError;

use super::committed_offset::{CommittedOffset, OperatorDecision};
use super::error::{BridgeError, Result};
use super::in_doubt::{InDoubtOutcome, resolve_in_doubt};
use super::partition_sender::PartitionSender;
use super::pause_reason::PauseReason;
use super::progress_file::ProgressFile;
use super::route::Target;
use super::session::{Patience, Session};
use super::start_offset::{
    Progress, ReadAs, Start, StartFacts, StartPolicy, TargetTopic, is_for_this_log, resolve_start,
};
use super::targets::Targets;
use crate::TopicPartition;
use crate::kafka::{Class, Code, GroupOffset, KafkaError, keep_worse};

const UNSTABLE_OFFSET_COMMIT: Code = Code::of(ResponseError::UnstableOffsetCommit);

/// Which log each name is of.
pub(super) type Identities = BTreeMap<TopicPartition, LogId>;

/// What the cluster said of one log's group.
#[derive(Debug)]
enum Fetched {
    /// What the group has committed for its target topic.
    Offsets(Vec<GroupOffset>),
    /// A transaction keeps them open for longer than an answer may take: a cluster completes one that was ended within
    /// milliseconds.
    KeptOpen,
    /// This log's group is refused; the others have nothing to do with it.
    Refused(BridgeError),
}

/// Which logs are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those that are not paused: what one is paused for is not over because a transaction is.
    Sending,
    /// Those that do not send.
    Waiting,
}

/// What is needed to learn where senders go on, and where that is written down.
pub(super) struct Starts<'a> {
    session: &'a mut Session,
    senders: &'a mut [PartitionSender],
    targets: &'a Targets,
    progress: &'a mut ProgressFile,
}

impl<'a> Starts<'a> {
    pub(super) fn of(
        session: &'a mut Session,
        senders: &'a mut [PartitionSender],
        targets: &'a Targets,
        progress: &'a mut ProgressFile,
    ) -> Starts<'a> {
        Starts { session, senders, targets, progress }
    }

    /// The offsets that the cluster holds for the groups of these senders under their target topics: all asked for at
    /// once, and again for those alone that have none yet.
    fn fetch_offsets(&mut self, senders: &[usize], stable: bool) -> Result<BTreeMap<usize, Fetched>> {
        let mut left: Vec<(usize, String)> =
            senders.iter().map(|&n| (n, self.senders[n].group_id().to_owned())).collect();
        let mut found = BTreeMap::new();
        if left.is_empty() {
            return Ok(found);
        }
        let (mut open_since, open_max) = (HashMap::new(), self.session.config().request_timeout);
        self.session.retry(Patience::Asked, |cluster| {
            let groups: Vec<&str> = left.iter().map(|(_, group)| group.as_str()).collect();
            let mut offsets = cluster.group_offsets(&groups, stable);
            let mut failure: Option<KafkaError> = None;
            left.retain(|(n, group)| {
                let offsets = offsets.remove(group).expect("every group has an answer or an error");
                let is_open = offsets.as_ref().is_err_and(|error| error.code() == Some(UNSTABLE_OFFSET_COMMIT));
                let since = is_open.then(|| *open_since.entry(*n).or_insert_with(Instant::now));
                match offsets {
                    Ok(offsets) => drop(found.insert(*n, Fetched::Offsets(offsets))),
                    Err(_) if since.is_some_and(|since| since.elapsed() >= open_max) => {
                        found.insert(*n, Fetched::KeptOpen);
                    }
                    Err(error) if error.code().is_some_and(|code| code.class() == Class::Topic) => {
                        found.insert(*n, Fetched::Refused(error.into()));
                    }
                    Err(error) => {
                        if !is_open {
                            open_since.remove(n);
                        }
                        keep_worse(&mut failure, error);
                        return true;
                    }
                }
                false
            });
            failure.map_or(Ok(()), Err)
        })?;
        for (n, fetched) in &mut found {
            if let Fetched::Offsets(offsets) = fetched {
                offsets.retain(|committed| committed.topic == self.senders[*n].remote());
            }
        }
        Ok(found)
    }

    /// Learns where senders go on: those of logs that have these `identities` in the store. Before InitProducerId it
    /// only compares; after it, as the `holder`, they begin to read there.
    pub(super) fn learn(mut self, which: Which, identities: &Identities, is_holder: bool) -> Result<()> {
        let read_as = if is_holder { ReadAs::Holder } else { ReadAs::Current };
        let mut foreign = None;
        let (asked, mut any_ours) = self.choose_senders(which, identities);
        let fetched = self.fetch_offsets(&asked, is_holder)?;
        let mut starts = Vec::new();
        let mut unstable = Vec::new();
        let (mut in_doubt, mut of_doubtful) = (Vec::new(), BTreeMap::new());
        for (n, fetched) in fetched {
            match self.resolve(n, &fetched, read_as, None)? {
                Start::ReadStable => unstable.push(n),
                Start::FindOutcome(pending) => {
                    let sender = &self.senders[n];
                    in_doubt.push((n, pending, (sender.remote().to_owned(), sender.target_partition())));
                    of_doubtful.insert(n, fetched);
                }
                start => starts.push((n, start)),
            }
        }
        for (n, fetched) in self.fetch_offsets(&unstable, true)? {
            let start = self.resolve(n, &fetched, ReadAs::Stable, None)?;
            starts.push((n, start));
        }
        for (n, outcome) in resolve_in_doubt(self.session, &in_doubt)? {
            let start = match outcome {
                Ok(outcome) => self.resolve(n, &of_doubtful[&n], read_as, Some(&outcome))?,
                Err(reason) => Start::Paused(PauseReason::ClusterRefuses { reason }),
            };
            starts.push((n, start));
        }
        for (n, start) in starts {
            if let Start::AnotherLog(reason) = &start {
                foreign.get_or_insert_with(|| (self.senders[n].name().to_string(), reason.to_string()));
            }
            any_ours |= matches!(start, Start::At(_) | Start::Decided(_));
            self.begin_at(n, start, is_holder)?;
        }
        match foreign {
            // One log that was created again concerns itself alone. Where none is this device's, this is another
            // device's id.
            Some((log, reason)) if !any_ours => Err(BridgeError::Conflict { log, reason }),
            _ => Ok(()),
        }
    }

    /// The senders that are looked at, and whether any other one sends or is paused by what is not looked at.
    fn choose_senders(&mut self, which: Which, identities: &Identities) -> (Vec<usize>, bool) {
        let (mut chosen, mut any_other) = (Vec::new(), false);
        for (n, sender) in self.senders.iter_mut().enumerate() {
            let is_paused = sender.paused().is_some();
            if which == Which::Waiting && sender.is_sending() || which == Which::Sending && is_paused {
                any_other = true;
                continue;
            }
            if !sender.has_files() || self.targets.topic(sender.remote()).is_none() {
                continue;
            }
            sender.look_again();
            if identities.get(sender.name()) == Some(&sender.log().id()) {
                chosen.push(n);
            } else {
                sender.pause(PauseReason::NoIdentity);
            }
        }
        (chosen, any_other)
    }

    /// Where one sender goes on; `in_doubt` is what became of its pending commit, once that was found out.
    fn resolve(
        &mut self,
        n: usize,
        fetched: &Fetched,
        read_as: ReadAs,
        in_doubt: Option<&InDoubtOutcome>,
    ) -> Result<Start> {
        let committed = match fetched {
            Fetched::Offsets(committed) => committed,
            Fetched::KeptOpen => {
                let group = self.senders[n].group_id().to_owned();
                let waited_ms = u64::try_from(self.session.config().request_timeout.as_millis()).unwrap_or(u64::MAX);
                return Ok(Start::Paused(PauseReason::OffsetKeptOpen { group, waited_ms }));
            }
            Fetched::Refused(error) => {
                return Ok(Start::Paused(PauseReason::ClusterRefuses { reason: error.to_string() }));
            }
        };
        let sender = &self.senders[n];
        let topic = self.targets.topic(sender.remote()).expect("a sender without one is not looked at");
        let facts = StartFacts {
            log_id: sender.log().id(),
            partition: sender.name().partition,
            is_recreated: sender.is_replaced(),
            topic: TargetTopic {
                name: sender.remote(),
                id: topic.id,
                partitions: topic.leaders.len(),
                cluster: self.session.cluster().id(),
            },
            committed,
            read_as,
            progress: match self.progress.entries().get(sender.name()) {
                _ if self.progress.is_damaged() => Progress::Damaged,
                None => Progress::Nothing,
                Some(log) => Progress::Known(log),
            },
            in_doubt,
        };
        let check = |offset: &CommittedOffset| sender.check_ownership(offset);
        let topic_id = topic.id;
        let resolved = resolve_start(&facts, &StartPolicy::of(self.session.config()), &check)?;
        if let Some(partition) = resolved.partition {
            self.senders[n].aim_at(Target { partition, topic_id });
        }
        match resolved.start {
            Start::Conflict(reason) => Err(BridgeError::Conflict { log: self.senders[n].name().to_string(), reason }),
            start => Ok(start),
        }
    }

    /// Carries out what was resolved for one sender; where this bridge is not the `holder` yet, nothing is read.
    fn begin_at(&mut self, n: usize, start: Start, is_holder: bool) -> Result<()> {
        let sender = &mut self.senders[n];
        match start {
            Start::Paused(reason) | Start::AnotherLog(reason) => sender.pause(reason),
            _ if !is_holder => {}
            Start::At(offset) => sender.start_at(&offset)?,
            Start::Beginning => {
                let began = self.progress.began(sender.name(), sender.log_start().log_id);
                sender.start_at_the_beginning(began)?;
            }
            Start::Decided(offset) => {
                sender.start_as_decided(offset.as_ref())?;
                self.progress.decided(sender.name(), offset);
            }
            Start::Conflict(_) | Start::ReadStable | Start::FindOutcome(_) => unreachable!("resolved before"),
        }
        Ok(())
    }

    /// Whether a person has decided that the bridge of this store goes on.
    pub(super) fn is_decided(&mut self) -> Result<bool> {
        let all: Vec<usize> = (0..self.senders.len()).collect();
        for (n, fetched) in self.fetch_offsets(&all, false)? {
            let Fetched::Offsets(committed) = fetched else { continue };
            let check = |offset: &CommittedOffset| self.senders[n].check_ownership(offset);
            for committed in committed {
                if let Some(Ok(decided)) = OperatorDecision::parse(&committed.metadata) {
                    if is_for_this_log(&decided, &check)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}
