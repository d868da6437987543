//! Which local log goes where: to which topic and partition of the target, and what the target takes.

use edgelog_core::Offset;
use uuid::Uuid;

use super::committed_offset::{BatchMark, CommittedOffset};
use super::partition::ByKey;
use super::progress_file::{LogProgress, PendingCommit};
use super::target_rules::TargetRules;
use super::transaction_plan::PlannedLog;
use crate::kafka::CoordinatorKey;
use crate::{Log, TopicPartition};

/// Where a log's records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) partition: i32,
    pub(super) topic_id: Uuid,
}

#[derive(Debug)]
pub(super) struct Route {
    name: TopicPartition,
    log: Log,
    group: CoordinatorKey,
    remote: String,
    /// The id of the cluster that the target is in.
    cluster: Option<String>,
    target: Option<Target>,
    /// The log's records go to partitions of the target that their keys choose, and not to that of `target`, for which
    /// its position is committed.
    by_key: Option<ByKey>,
    rules: TargetRules,
}

impl Route {
    /// From a log to the topic `remote`, of which nothing is known yet. Its position is kept by `group`.
    pub(super) fn new(name: TopicPartition, log: Log, group: CoordinatorKey, remote: String) -> Route {
        let rules = TargetRules::default();
        Route { name, log, group, remote, cluster: None, target: None, by_key: None, rules }
    }

    pub(super) fn name(&self) -> &TopicPartition {
        &self.name
    }

    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// The group that keeps the log's position, as its coordinator is asked for it.
    pub(super) fn group(&self) -> &CoordinatorKey {
        &self.group
    }

    /// The target topic.
    pub(super) fn remote(&self) -> &str {
        &self.remote
    }

    /// The target partition, where it is known.
    pub(super) fn target(&self) -> Option<Target> {
        self.target
    }

    /// The target partition of a log that is sent.
    pub(super) fn target_partition(&self) -> i32 {
        self.target.expect("a log that is sent has a target").partition
    }

    /// The target's partitions that keys choose among, where they do.
    pub(super) fn by_key(&self) -> Option<ByKey> {
        self.by_key
    }

    pub(super) fn rules(&self) -> &TargetRules {
        &self.rules
    }

    /// From another log of the same name.
    pub(super) fn begin_at(&mut self, log: Log) {
        self.log = log;
    }

    pub(super) fn aim_at(&mut self, target: Target) {
        self.target = Some(target);
    }

    pub(super) fn set_cluster(&mut self, id: Option<&str>) {
        self.cluster = id.map(str::to_owned);
    }

    pub(super) fn set_rules(&mut self, rules: TargetRules) {
        self.rules = rules;
    }

    /// The log's records are spread over the target's partitions by their keys, or are not. Where they were, over
    /// another number: how many those were, and are now.
    pub(super) fn spread(&mut self, by_key: Option<ByKey>) -> Option<(u32, u32)> {
        let before = std::mem::replace(&mut self.by_key, by_key);
        let (before, now) = (before?, by_key?);
        (before != now).then(|| (before.partitions(), now.partitions()))
    }

    /// The position behind everything before `offset`.
    pub(super) fn position_at(&self, offset: Offset, mark: BatchMark) -> CommittedOffset {
        let topic_id = self.target.map_or(Uuid::nil(), |target| target.topic_id);
        CommittedOffset { offset, log_id: self.log.id(), mark, topic_id }
    }

    /// What the progress file says of the log.
    pub(super) fn progress(
        &self,
        acknowledged: Option<CommittedOffset>,
        pending: Option<PendingCommit>,
    ) -> LogProgress {
        let (remote, partition, cluster) = (self.remote.clone(), self.target_partition(), self.cluster.clone());
        LogProgress { remote, partition, acknowledged, pending, cluster, began: None }
    }

    /// What a transaction needs to know of the log, where it carries a range of it up to `offset`. `sender` is its
    /// sender's number, and what the cluster has of it before is `acknowledged`.
    pub(super) fn planned(
        &self,
        sender: usize,
        acknowledged: Option<CommittedOffset>,
        (offset, mark): (Offset, BatchMark),
    ) -> PlannedLog {
        let (name, group, to) = (self.name.clone(), self.group.clone(), self.position_at(offset, mark));
        PlannedLog { sender, name, group, to, before: self.progress(acknowledged, None) }
    }
}
