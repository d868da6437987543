//! What a person does about a device's positions, from any machine that reaches the cluster: look at them, and decide.
//!
//! A decision is committed in place of a position (see `committed_offset`). A bridge of the device that runs is
//! fenced first, so that it does not overwrite the decision: it stands back, reads the positions again after
//! `edgelog.bridge.retry.ms`, finds the decision and goes on as it says. Its first transaction puts positions into the
//! places of all decisions that it obeyed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use edgelog_core::{LogId, Offset};
use kafka_protocol::messages::{InitProducerIdRequest, ListGroupsRequest, TransactionalId};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::committed_offset::{BatchMark, CommittedOffset, Decision, OperatorDecision};
use super::config::{BridgeConfig, Delivery};
use super::error::{BridgeError, Result};
use super::home::Home;
use super::ownership::READING;
use super::producer_id::ask_to_claim;
use super::progress_file::ProgressFile;
use super::status::{LogStatus, status};
use crate::error::Error;
use crate::kafka::{
    self, Backoff, Cluster, Code, CoordinatorKey, GroupOffset, Role, StopHandle, Transport, check, commit_request,
    keep_worse,
};
use crate::{Log, OffsetSpec, Store, TopicPartition, topic_matches};

/// How long the cluster would let a transaction of ours be open; none is opened.
const TRANSACTION_TIMEOUT_MS: i32 = 10_000;

/// A position of one of the device's logs, as the cluster keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterPosition {
    /// The device's log.
    pub log: TopicPartition,
    /// The group that keeps it.
    pub group: String,
    /// The target topic that it is stored under.
    pub target_topic: String,
    /// The target partition.
    pub target_partition: i32,
    /// The offset of the local log that is sent next.
    pub offset: Offset,
    /// Whose position it is.
    pub holds: PositionOf,
}

/// What stands with a position's offset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PositionOf {
    /// The position of a log.
    Log {
        /// The log's identity.
        log_id: LogId,
        /// The leader epoch of the batch before the position.
        leader_epoch: i32,
        /// The id that the target topic had when it was committed.
        target_topic_id: [u8; 16],
    },
    /// A decision that no bridge has obeyed yet.
    Decided {
        /// What was decided.
        decision: Decision,
        /// The identity of the log that it is meant for; `None`: for whichever reads it first.
        log_id: Option<LogId>,
    },
    /// Nothing that a bridge reads: another program committed or reset it.
    Unknown {
        /// What is wrong with it.
        reason: String,
    },
}

/// Looks at a device's positions, and decides about them.
///
/// Needs the device's own rights: Read on its groups, Read on its target topics, and, to decide, Write on its
/// transactional id.
pub struct Admin {
    config: BridgeConfig,
    cluster: Cluster,
    /// So long each call may take; without one, as long as connecting and asking may.
    timeout: Option<Duration>,
    /// When the call that is under way began.
    began: Instant,
    /// A broker has answered.
    is_answered: bool,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Admin {
    /// For the device and the cluster that `config` names; the topics need not be set. Does not connect yet. Where no
    /// broker answers, calls fail within `socket.connection.setup.timeout.ms`; what fails later is tried again for
    /// `request.timeout.ms`.
    ///
    /// # Errors
    /// [`BridgeError::InvalidConfig`](super::BridgeError::InvalidConfig).
    pub fn new(config: BridgeConfig) -> Result<Admin> {
        config.validate_device()?;
        let cluster = cluster_within(&config, config.connect_timeout);
        Ok(Admin { config, cluster, timeout: None, began: Instant::now(), is_answered: false })
    }

    /// Lets no call take longer than about `timeout`, whether brokers answer or not. (Looking up a host's name takes
    /// the system as long as it takes.)
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Admin {
        (self.cluster, self.timeout) = (cluster_within(&self.config, timeout), Some(timeout));
        self
    }

    /// Every position that the cluster keeps of the device's logs, by log.
    ///
    /// # Errors
    /// A cluster that does not answer, or refuses.
    pub fn positions(&mut self) -> Result<Vec<ClusterPosition>> {
        self.began = Instant::now();
        self.read_positions()
    }

    fn read_positions(&mut self) -> Result<Vec<ClusterPosition>> {
        let groups = self.groups()?;
        let mut left: Vec<&str> = groups.iter().map(|(_, group)| group.as_str()).collect();
        let mut offsets = HashMap::new();
        // All at once, and those again alone that had no answer.
        self.retry(|cluster| {
            let mut failure = None;
            let mut answers = cluster.group_offsets(&left, false);
            left.retain(|group| match answers.remove(*group) {
                Some(Ok(found)) => {
                    offsets.insert((*group).to_owned(), found);
                    false
                }
                Some(Err(error)) => {
                    keep_worse(&mut failure, error);
                    true
                }
                None => true,
            });
            failure.map_or(Ok(()), Err)
        })?;
        let mut found = Vec::new();
        for (log, group) in &groups {
            for committed in offsets.remove(group).unwrap_or_default() {
                let holds = PositionOf::of(&committed);
                let GroupOffset { topic: target_topic, partition: target_partition, offset, .. } = committed;
                let (log, group) = (log.clone(), group.clone());
                found.push(ClusterPosition { log, group, target_topic, target_partition, offset, holds });
            }
        }
        found.sort_by(|a, b| a.log.cmp(&b.log));
        Ok(found)
    }

    /// Decides about the logs of all topics that match one of `topics` (names and patterns with `*`) and of which the
    /// cluster keeps a position; returns these. With `store`, the directory of a data store, the decision is for that
    /// store alone, as it is now or goes on, and for no other copy of it. A store that is adopted goes on by its note
    /// with logs of which the cluster has forgotten the position (their target topic was deleted and created again, or
    /// the cluster is another one); its other logs that the cluster does not know are passed over.
    ///
    /// The device's bridge, where one runs, is fenced, and stands back until it reads the decision, after
    /// `edgelog.bridge.retry.ms` at most; with `edgelog.bridge.on.fenced=exit` it ends. A decision lasts until a bridge
    /// obeys it, or until the cluster forgets it like any position of a silent group (`offsets.retention.minutes`).
    ///
    /// # Errors
    /// As [`positions`](Admin::positions); [`BridgeError::Store`](super::BridgeError::Store) for `store`.
    pub fn decide(
        &mut self,
        topics: &[String],
        decision: Decision,
        store: Option<&Path>,
    ) -> Result<Vec<ClusterPosition>> {
        self.began = Instant::now();
        let noted = match store {
            Some(dir) if decision == Decision::Adopt => self.noted(dir)?,
            _ => Vec::new(),
        };
        let store = store.map(Store::attach).transpose()?;
        let is_chosen =
            |position: &ClusterPosition| topics.iter().any(|pattern| topic_matches(pattern, &position.log.topic));
        if !noted.iter().any(is_chosen) && !self.read_positions()?.iter().any(is_chosen) {
            return Ok(Vec::new());
        }
        if self.config.delivery == Delivery::ExactlyOnce {
            self.fence()?;
        }
        // No bridge moves them any more.
        let mut decided = self.read_positions()?;
        let known: HashSet<TopicPartition> = decided.iter().map(|position| position.log.clone()).collect();
        decided.extend(noted.into_iter().filter(|position| !known.contains(&position.log)));
        decided.retain(is_chosen);
        let mut requests = Vec::new();
        let mut done = Vec::new();
        for mut position in decided {
            let end = match &store {
                None => None,
                Some(store) => match store.log(&position.log.topic, position.log.partition) {
                    Ok(log) => Some(end_of(&log)?),
                    Err(Error::UnknownTopicOrPartition { .. }) => continue,
                    Err(error) => return Err(error.into()),
                },
            };
            let ruling = OperatorDecision { decision, end };
            let to = (position.target_topic.as_str(), position.target_partition);
            let request = commit_request(&position.group, to, position.offset, ruling.metadata());
            requests.push((CoordinatorKey::Group(position.group.clone()), request, position.log.clone()));
            position.holds = PositionOf::Decided { decision, log_id: end.map(|end| end.log_id) };
            done.push(position);
        }
        self.retry(|cluster| {
            let asked: Vec<_> = requests.iter().map(|(of, request, _)| (of, request)).collect();
            let mut answers = cluster.ask_coordinators(&asked).into_iter();
            let mut failure = None;
            requests.retain(|(of, _, log)| {
                let answer = answers.next().expect("one answer for each request");
                let decided = answer.and_then(|answer| {
                    let partition = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
                    let code = partition.map_or(Code::UNNAMED.0, |partition| partition.error_code);
                    check(&format!("deciding about {log}"), code).map_err(|error| error.needing_id(of))
                });
                let Err(error) = decided else { return false };
                keep_worse(&mut failure, error);
                true
            });
            failure.map_or(Ok(()), Err)
        })?;
        Ok(done)
    }

    /// What the note of the store in `dir` says that this cluster, or the one before, has acknowledged, as far as it is
    /// for partitions that there are.
    fn noted(&mut self, dir: &Path) -> Result<Vec<ClusterPosition>> {
        let mut noted = Vec::new();
        let of_note = match status(dir) {
            // It decides nothing then.
            Err(BridgeError::Note { .. }) => Vec::new(),
            other => other?,
        };
        for LogStatus { log, remote, remote_partition, acknowledged, .. } in of_note {
            if let (Some(target_partition), Some(offset)) = (remote_partition, acknowledged) {
                let (group, holds) = (self.config.group_id(&log), PositionOf::Unknown { reason: String::new() });
                noted.push(ClusterPosition { log, group, target_topic: remote, target_partition, offset, holds });
            }
        }
        let names: HashSet<&str> = noted.iter().map(|position| position.target_topic.as_str()).collect();
        if names.is_empty() {
            return Ok(noted);
        }
        let names: Vec<&str> = names.into_iter().collect();
        let topics = self.retry(|cluster| cluster.topics(&names))?;
        let partitions_of = |name: &str| match topics.get(name) {
            Some(Ok(topic)) => topic.leaders.len(),
            _ => 0,
        };
        let is_there = |position: &ClusterPosition| {
            usize::try_from(position.target_partition)
                .is_ok_and(|partition| partition < partitions_of(&position.target_topic))
        };
        noted.retain(is_there);
        Ok(noted)
    }

    /// The devices of which the cluster keeps groups, by name: those whose groups the user may see, and whose bridges
    /// have the same `edgelog.bridge.id.prefix`.
    ///
    /// # Errors
    /// As [`positions`](Admin::positions).
    pub fn devices(&mut self) -> Result<Vec<String>> {
        self.began = Instant::now();
        let names = self.group_names()?;
        let of = |name: &String| Some(self.config.device_and_log_of(name)?.0.to_owned());
        let devices: BTreeSet<String> = names.iter().filter_map(of).collect();
        Ok(devices.into_iter().collect())
    }

    /// The device's logs of which the cluster has a group, with its name.
    fn groups(&mut self) -> Result<Vec<(TopicPartition, String)>> {
        let names = self.group_names()?;
        let config = &self.config;
        let ours = names.into_iter().filter_map(|name| {
            let (device, log) = config.device_and_log_of(&name)?;
            let log = log.parse().ok().filter(|_| device == config.device)?;
            Some((log, name))
        });
        Ok(ours.collect())
    }

    /// The names of all groups.
    fn group_names(&mut self) -> Result<Vec<String>> {
        let request = ListGroupsRequest::default();
        let nodes = self.retry(|cluster| {
            cluster.topics(&[])?;
            Ok(cluster.nodes())
        })?;
        let mut found = Vec::new();
        for node in nodes {
            // Each broker names those that it coordinates.
            let answer = self.retry(|cluster| {
                let answer = cluster.request(node, Role::Coordinator, &request)?;
                check("listing groups", answer.error_code)?;
                Ok(answer)
            })?;
            found.extend(answer.groups.iter().map(|group| group.group_id.0.to_string()));
        }
        Ok(found)
    }

    /// Takes the transactional id, so that who had it commits nothing any more.
    fn fence(&mut self) -> Result<()> {
        let id = self.config.transactional_id();
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(StrBytes::from_string(id.clone()))))
            .with_transaction_timeout_ms(TRANSACTION_TIMEOUT_MS);
        let of = CoordinatorKey::Transaction(id);
        self.retry(|cluster| ask_to_claim(cluster, &of, &request)).map(drop)
    }

    /// Asks again for a while, as long as the answer may be another one later.
    fn retry<T>(&mut self, mut ask: impl FnMut(&mut Cluster) -> kafka::Result<T>) -> Result<T> {
        let asked = Instant::now();
        let mut backoff = Backoff::new(self.config.backoff, self.config.backoff_max);
        loop {
            let outcome = ask(&mut self.cluster);
            self.is_answered |= !outcome.as_ref().is_err_and(|error| error.code().is_none());
            let left = match self.timeout {
                Some(timeout) => timeout.saturating_sub(self.began.elapsed()),
                None if self.is_answered => self.config.request_timeout.saturating_sub(asked.elapsed()),
                None => self.config.connect_timeout.saturating_sub(self.began.elapsed()),
            };
            let is_over = left.is_zero();
            let error = match outcome {
                Err(error) if error.is_retriable() && !error.is_refusal() && !is_over => error,
                other => return Ok(other?),
            };
            self.cluster.stop().wait(backoff.pause().min(left));
            if error.code().is_none() {
                let _ = self.cluster.topics(&[]);
            }
        }
    }
}

impl PositionOf {
    fn of(committed: &GroupOffset) -> PositionOf {
        match OperatorDecision::parse(&committed.metadata) {
            Some(Ok(OperatorDecision { decision, end })) => {
                return PositionOf::Decided { decision, log_id: end.map(|end| end.log_id) };
            }
            Some(Err(reason)) => return PositionOf::Unknown { reason },
            None => {}
        }
        match CommittedOffset::parse(committed.offset, &committed.metadata) {
            Ok(position) => PositionOf::Log {
                log_id: position.log_id,
                leader_epoch: position.mark.leader_epoch.0,
                target_topic_id: position.topic_id.into_bytes(),
            },
            Err(reason) => PositionOf::Unknown { reason },
        }
    }
}

/// The cluster, of which no answer is waited for longer than `patience`. Brokers to begin with that do not answer share
/// that time.
fn cluster_within(config: &BridgeConfig, patience: Duration) -> Cluster {
    let servers = u32::try_from(config.bootstrap.len()).unwrap_or(1).max(1);
    let (connect, request) = (config.connect_timeout.min(patience / servers), config.request_timeout.min(patience));
    let transport = Transport::new(&config.client_id, connect, request, &config.security, StopHandle::default());
    Cluster::new(config.bootstrap.clone(), transport)
}

/// Where what is durable of a log ends: another copy of it that went its own way has another batch there, or none.
fn end_of(log: &Log) -> Result<CommittedOffset> {
    let offset = log.reader_with(OffsetSpec::Latest, READING)?.position().offset;
    let gap = BatchMark::behind_a_gap(log.leader_epoch());
    let mark = if offset > log.offsets().log_start_offset {
        let mut reader = log.reader_with(OffsetSpec::Offset(offset - 1), READING)?;
        let batch = reader.next_batch()?;
        batch.map_or(gap, |batch| BatchMark { leader_epoch: batch.leader_epoch(), crc: batch.view().crc() })
    } else {
        gap
    };
    Ok(CommittedOffset { offset, log_id: log.id(), mark, topic_id: Uuid::nil() })
}

/// Takes the logs of all topics that match one of `topics` out of the note in the data directory `dir`, and returns
/// them: retention counts them as any other from then on, and so it does logs of topics that are created. A bridge that
/// is started later asks the cluster where they stand, and sends those that it does not know from their beginning. A
/// note that is damaged is replaced by an empty one. Where no log matches, the note stays as it is, unless all topics
/// were meant (`*`).
///
/// # Errors
/// [`BridgeError::OtherDevice`](super::BridgeError::OtherDevice) where `device` is not the one whose bridge wrote the
/// note, as far as that says so;
/// [`BridgeError::Locked`](super::BridgeError::Locked) while a bridge works for this store;
/// [`BridgeError::Note`](super::BridgeError::Note); [`BridgeError::Store`](super::BridgeError::Store) where there is no
/// store.
///
/// # Durability
/// Durable on return.
pub fn forget(dir: impl AsRef<Path>, device: Option<&str>, topics: &[String]) -> Result<Vec<TopicPartition>> {
    let dir = dir.as_ref();
    drop(Store::attach(dir)?);
    let home = Home::open(dir)?;
    let mut progress = ProgressFile::open(home.storage())?;
    if let (Some(named), Some(device)) = (device, progress.device()) {
        if named != device {
            return Err(BridgeError::OtherDevice { named: named.to_owned(), device: device.to_owned() });
        }
    }
    let is_chosen = |log: &TopicPartition| topics.iter().any(|pattern| topic_matches(pattern, &log.topic));
    if !topics.iter().any(|topic| topic == "*") && !progress.entries().keys().any(is_chosen) {
        return Ok(Vec::new());
    }
    let held_topics = !progress.topics().is_empty();
    let gone = progress.forget(is_chosen);
    if progress.is_damaged() || held_topics || !gone.is_empty() {
        // Both files: what the older one says is not to come back.
        progress.write()?;
        progress.write()?;
    }
    Ok(gone)
}
