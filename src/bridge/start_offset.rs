//! Where each log stands: what the cluster has committed of it, what the note beside the store says where the cluster
//! has forgotten, and whether either is of the log that is here.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use kafka_protocol::error::ResponseError;

use super::committed_offset::{CommittedOffset, Decision, OperatorDecision};
use super::config::{LostRule, NewLogRule, RecreatedRule, SetBackRule};
use super::error::{BridgeError, Result};
use super::in_doubt::InDoubtOutcome;
use super::partition;
use super::partition_sender::{Ownership, Presence, Target, check_ownership};
use super::progress_file::LogProgress;
use super::uplink::{Patience, Uplink};
use crate::kafka::{Class, Code, CoordinatorKey, GroupOffset, KafkaError, RemoteTopic, keep_worse};

const UNSTABLE_OFFSET_COMMIT: Code = Code::of(ResponseError::UnstableOffsetCommit);

/// What the cluster said of one log's group.
#[derive(Debug)]
pub(super) enum Fetched {
    /// What the group has committed for its target topic.
    Offsets(Vec<GroupOffset>),
    /// A transaction keeps them open for longer than an answer may take: a cluster completes one that was ended within
    /// milliseconds.
    KeptOpen,
    /// This log's group is refused; the others have nothing to do with it.
    Refused(BridgeError),
}

impl Uplink {
    /// The positions that the cluster holds for the groups of these senders under their target topics: all asked for at
    /// once, and again for those alone that have none yet.
    pub(super) fn fetch_positions(&mut self, senders: &[usize], stable: bool) -> Result<BTreeMap<usize, Fetched>> {
        let mut left: Vec<(usize, String)> = senders
            .iter()
            .map(|&n| {
                let CoordinatorKey::Group(group) = &self.senders[n].group else {
                    unreachable!("groups keep positions")
                };
                (n, group.clone())
            })
            .collect();
        let mut found = BTreeMap::new();
        if left.is_empty() {
            return Ok(found);
        }
        let (mut open_since, open_max) = (HashMap::new(), self.config.request_timeout);
        self.retry(Patience::Asked, |cluster| {
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
                offsets.retain(|committed| committed.topic == self.senders[*n].remote);
            }
        }
        Ok(found)
    }

    /// Learns where senders stand. Before InitProducerId it only compares; after it, senders begin to read there.
    pub(super) fn learn_positions(&mut self, which: Which) -> Result<()> {
        let is_holder = self.producer.is_some();
        let mut foreign = None;
        let mut any_ours = false;
        let identities = self.store.lasting_ids()?;
        let mut asked = Vec::new();
        for (n, sender) in self.senders.iter_mut().enumerate() {
            let sends = sender.waits.is_none() && sender.reader.is_some();
            if which == Which::Waiting && sends || which == Which::Sending && sender.waits.is_some() {
                any_ours = true;
                continue;
            }
            if sender.presence == Presence::Gone || !self.remote.contains_key(&sender.remote) {
                continue;
            }
            (sender.waits, sender.obeys) = (None, false);
            if identities.get(&sender.name) == Some(&sender.log.id()) {
                asked.push(n);
            } else {
                let reason = "the store's checkpoint has no identity for it: open the store for writing once";
                sender.waits = Some(reason.to_owned());
            }
        }
        for (n, fetched) in self.fetch_positions(&asked, is_holder)? {
            let topic = self.remote[&self.senders[n].remote].clone();
            let placed = match fetched {
                Fetched::Offsets(committed) => self.place(n, &topic, &committed, is_holder, is_holder),
                Fetched::KeptOpen => Ok(self.kept_open(n)),
                Fetched::Refused(error) => Err(error),
            };
            let found = match placed {
                Err(error) if error.code().is_some_and(|code| code.class() == Class::Topic) => {
                    self.senders[n].waits = Some(error.to_string());
                    continue;
                }
                found => found?,
            };
            let sender = &mut self.senders[n];
            match found {
                Found::Ours(position) => {
                    any_ours = true;
                    if is_holder {
                        sender.start_at(&position)?;
                    }
                }
                Found::Beginning if is_holder => sender.start_at_the_beginning()?,
                Found::Beginning => {}
                Found::Decided(position) => {
                    any_ours = true;
                    if is_holder {
                        match &position {
                            Some(position) => sender.start_at(position)?,
                            None => sender.start_at_the_beginning()?,
                        }
                        sender.obeys = true;
                        // What it was before is no evidence of a cluster that was set back.
                        let entry = self.progress.entries.entry(sender.name.clone()).or_default();
                        (entry.acknowledged, entry.pending) = (position, None);
                        self.progress_is_behind = true;
                    }
                }
                Found::Foreign(reason) => {
                    foreign.get_or_insert_with(|| (sender.name.to_string(), reason.clone()));
                    sender.waits = Some(reason);
                }
                Found::Wait(reason) => sender.waits = Some(reason),
            }
        }
        match foreign {
            // One log that was begun anew is its own affair. Where none is known, this is another device's id.
            Some((log, reason)) if !any_ours => Err(BridgeError::Conflict { log, reason }),
            _ => Ok(()),
        }
    }

    /// Where one sender goes on; `is_stable`: the positions were read behind transactions that are open.
    fn place(
        &mut self,
        n: usize,
        topic: &RemoteTopic,
        committed: &[GroupOffset],
        is_holder: bool,
        is_stable: bool,
    ) -> Result<Found> {
        let sender = &self.senders[n];
        let noted = self.progress.entries.get(&sender.name).filter(|entry| entry.remote == sender.remote).cloned();
        let [committed] = committed else {
            if committed.len() > 1 {
                let partitions: Vec<i32> = committed.iter().map(|committed| committed.partition).collect();
                return Ok(Found::Wait(format!(
                    "its group has positions for several partitions of {}: {partitions:?}",
                    sender.remote
                )));
            }
            return self.place_by_note(n, topic, noted.as_ref(), is_holder);
        };
        if let Err(reason) = self.aim(n, topic, Some(committed.partition)) {
            return Ok(Found::Wait(reason));
        }
        match OperatorDecision::parse(&committed.metadata) {
            Some(Ok(ruling)) => return self.obey(n, topic, noted.as_ref(), &ruling, is_holder),
            Some(Err(reason)) => return Ok(Found::Wait(reason)),
            None => {}
        }
        let position = match CommittedOffset::parse(committed.offset, &committed.metadata) {
            Ok(position) => position,
            Err(reason) => return Ok(Found::Wait(format!("the cluster's position is not obeyed: {reason}"))),
        };
        if position.topic_id != topic.id {
            return self.place_in_recreated(n, position);
        }
        let is_of_these = |done: &CommittedOffset| done.log_id == position.log_id && done.topic_id == position.topic_id;
        let done = noted.and_then(|entry| entry.acknowledged).filter(is_of_these);
        let Some(done) = done.filter(|done| done.offset > position.offset) else { return self.weigh(n, position) };
        if !is_stable {
            // A transaction is committed before its positions are: what it acknowledged may be on its way there.
            return match self.fetch_positions(&[n], true)?.remove(&n) {
                Some(Fetched::Offsets(stable)) => self.place(n, topic, &stable, is_holder, true),
                Some(Fetched::Refused(error)) => Err(error),
                Some(Fetched::KeptOpen) | None => Ok(self.kept_open(n)),
            };
        }
        match self.config.on_set_back {
            SetBackRule::Follow => self.weigh(n, position),
            SetBackRule::Resume => self.weigh(n, done),
            SetBackRule::Stop => Ok(Found::Wait(format!(
                "the cluster's position is {}, and it had acknowledged {}: it was set back; \
                 edgelog.bridge.on.set.back=follow sends what it lost again, and resume goes on at {}",
                position.offset, done.offset, done.offset
            ))),
        }
    }

    /// A sender whose position the cluster keeps open. The others go on.
    fn kept_open(&self, n: usize) -> Found {
        let CoordinatorKey::Group(group) = &self.senders[n].group else { unreachable!("positions are kept by groups") };
        Found::Wait(format!(
            "the cluster keeps its position (group {group}) in an open transaction for more than \
             request.timeout.ms={}; where that stays, kafka-transactions.sh finds and aborts it in __consumer_offsets",
            self.config.request_timeout.as_millis()
        ))
    }

    /// Where a sender goes on of which a person has decided.
    fn obey(
        &mut self,
        n: usize,
        topic: &RemoteTopic,
        noted: Option<&LogProgress>,
        ruling: &OperatorDecision,
        is_holder: bool,
    ) -> Result<Found> {
        if !self.is_meant(n, ruling)? {
            let reason = "a person has decided that another copy of this device goes on".to_owned();
            return Err(BridgeError::Conflict { log: self.senders[n].name.to_string(), reason });
        }
        let (Decision::Adopt, Some(entry)) = (ruling.decision, noted) else { return Ok(Found::Decided(None)) };
        let mut at = entry.acknowledged;
        // What is open is settled when nobody can move it any more; where that cannot be seen, it is sent again.
        if let Some(intent) = entry.pending.as_ref().filter(|intent| is_holder && intent.to.topic_id == topic.id) {
            if matches!(self.resolve_in_doubt(n, intent)?, InDoubtOutcome::Committed) {
                at = Some(intent.to);
            }
        }
        let log = &self.senders[n].log;
        let is_ours = at.as_ref().is_some_and(|at| matches!(check_ownership(log, at), Ok(Ownership::Ours)));
        Ok(Found::Decided(at.filter(|_| is_ours)))
    }

    /// Whether a decision is for the store that is here.
    fn is_meant(&self, n: usize, ruling: &OperatorDecision) -> Result<bool> {
        match &ruling.end {
            None => Ok(true),
            Some(end) => Ok(matches!(check_ownership(&self.senders[n].log, end)?, Ownership::Ours)),
        }
    }

    /// Whether a person has decided that the bridge of this store goes on.
    pub(super) fn is_decided(&mut self) -> Result<bool> {
        self.find_senders()?;
        let all: Vec<usize> = (0..self.senders.len()).collect();
        for (n, fetched) in self.fetch_positions(&all, false)? {
            let Fetched::Offsets(committed) = fetched else { continue };
            for committed in committed {
                if let Some(Ok(ruling)) = OperatorDecision::parse(&committed.metadata) {
                    if self.is_meant(n, &ruling)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Where a sender goes on whose position is of a topic that was deleted and created again since.
    fn place_in_recreated(&self, n: usize, position: CommittedOffset) -> Result<Found> {
        let remote = &self.senders[n].remote;
        match self.config.on_recreated {
            RecreatedRule::Restart => Ok(Found::Beginning),
            RecreatedRule::Resume => self.weigh(n, position),
            RecreatedRule::Stop => {
                let what = self.other_cluster(n).unwrap_or_else(|| {
                    format!(
                        "the target topic {remote} is another one than the position was committed for: it was deleted \
                         and re-created"
                    )
                });
                Ok(Found::Wait(format!(
                    "{what}; edgelog.bridge.on.recreated=restart sends all that is here again, and resume goes on at \
                     {}",
                    position.offset
                )))
            }
        }
    }

    /// Says so where another cluster than this one has acknowledged the log.
    fn other_cluster(&self, n: usize) -> Option<String> {
        let (before, now) = (self.progress.entries.get(&self.senders[n].name)?.cluster.as_ref()?, self.cluster.id()?);
        (before != now).then(|| {
            format!(
                "this is another cluster (id {now}) than the one that has acknowledged its records (id {before}): that \
                 one was wiped, or bootstrap.servers names another"
            )
        })
    }

    /// Whether a sender goes on at a position that somebody remembers.
    fn weigh(&self, n: usize, position: CommittedOffset) -> Result<Found> {
        let sender = &self.senders[n];
        match check_ownership(&sender.log, &position)? {
            Ownership::Ours => Ok(Found::Ours(position)),
            Ownership::Foreign(reason) => Ok(self.begun_anew(n, &reason)),
            Ownership::Diverged(reason) => Err(BridgeError::Conflict { log: sender.name.to_string(), reason }),
            Ownership::Damaged(_) if self.config.on_lost == LostRule::Report => Ok(Found::Ours(position)),
            Ownership::Damaged(reason) => Ok(Found::Wait(reason)),
        }
    }

    /// What becomes of a log that is another one than a position is of.
    fn begun_anew(&self, n: usize, reason: &str) -> Found {
        match self.config.on_new_log {
            NewLogRule::Restart => Found::Beginning,
            // It was this device's own while this bridge ran, and no other one's.
            NewLogRule::Stop if self.senders[n].presence == Presence::Replaced => Found::Wait(
                "it was deleted and created again here, and the cluster's position is of the log that it was before; \
                 edgelog.bridge.on.new.log=restart sends this one from its beginning"
                    .to_owned(),
            ),
            NewLogRule::Stop => Found::Foreign(format!(
                "{reason}; where this one was begun anew on purpose, edgelog.bridge.on.new.log=restart sends it"
            )),
        }
    }

    /// Where a sender goes on of which the cluster knows nothing: it is new there, or its position expired.
    fn place_by_note(
        &mut self,
        n: usize,
        topic: &RemoteTopic,
        noted: Option<&LogProgress>,
        is_holder: bool,
    ) -> Result<Found> {
        if self.progress.is_damaged {
            let reason = "the cluster has no position of it, and the note beside the store is damaged";
            return Ok(Found::Wait(reason.to_owned()));
        }
        let known = noted.filter(|entry| entry.acknowledged.is_some() || entry.pending.is_some());
        if let Err(reason) = self.aim(n, topic, known.map(|entry| entry.partition)) {
            return Ok(Found::Wait(reason));
        }
        let sender = &self.senders[n];
        let Some(entry) = known else { return Ok(Found::Beginning) };
        let newest =
            entry.pending.as_ref().map(|intent| intent.to).or(entry.acknowledged).expect("one of both is there");
        if newest.log_id != sender.log.id() {
            return Ok(self.begun_anew(n, "the note beside the store is of a log of another identity"));
        }
        if newest.topic_id != topic.id {
            // What an open intent would have added went with the topic.
            return match (entry.acknowledged, self.config.on_recreated) {
                (None, RecreatedRule::Resume) => Ok(Found::Beginning),
                (done, _) => self.place_in_recreated(n, done.unwrap_or(newest)),
            };
        }
        let mut at = entry.acknowledged;
        if let Some(intent) = &entry.pending {
            if !is_holder {
                // InDoubtOutcome when nobody can move it any more.
                return Ok(Found::Beginning);
            }
            match self.resolve_in_doubt(n, intent)? {
                InDoubtOutcome::Committed => at = Some(intent.to),
                InDoubtOutcome::Aborted => {}
                InDoubtOutcome::Gone(reason) => return Ok(Found::Wait(reason)),
            }
        }
        let Some(position) = at else { return Ok(Found::Beginning) };
        self.weigh(n, position)
    }

    /// Fixes the target partition: where there is a position, it stays with it, also when partitions are added.
    fn aim(&mut self, n: usize, topic: &RemoteTopic, known: Option<i32>) -> std::result::Result<(), String> {
        let sender = &self.senders[n];
        let count = topic.leaders.len();
        let partition = match known {
            Some(partition) if usize::try_from(partition).is_ok_and(|partition| partition < count) => partition,
            Some(partition) => {
                return Err(format!("its position is for partition {partition}, and {} has {count}", sender.remote));
            }
            None => {
                let owned = self.config.to.contains("{device}");
                let (rule, device) = (self.config.partition, &self.config.device);
                partition::choose(rule, owned, device, sender.name.partition, count)
                    .map_err(|reason| format!("its target topic {} cannot be used: {reason}", sender.remote))?
            }
        };
        self.senders[n].target = Some(Target { partition, topic_id: topic.id });
        Ok(())
    }
}

/// Which senders are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    /// Those that do not wait: what one waits for is not over because a transaction is.
    Sending,
    /// Those that do not send.
    Waiting,
}

/// Where a sender stands.
enum Found {
    Ours(CommittedOffset),
    /// The cluster has nothing of this log.
    Beginning,
    /// A person has decided that it goes on here, or at the beginning.
    Decided(Option<CommittedOffset>),
    Foreign(String),
    Wait(String),
}
