//! Every case in which a log starts, as one row each.

use edgelog_core::{LeaderEpoch, LogId, Offset};
use uuid::Uuid;

use super::super::committed_offset::BatchMark;
use super::super::producer_header::Producer;
use super::*;

const TOPIC: Uuid = Uuid::from_u128(1);
const OTHER_TOPIC: Uuid = Uuid::from_u128(2);
const LOG: LogId = LogId::from_bytes([7; 16]);
const OTHER_LOG: LogId = LogId::from_bytes([8; 16]);

/// An offset of the log here for the topic that is there now.
fn at(offset: i64) -> CommittedOffset {
    let mark = BatchMark { leader_epoch: LeaderEpoch(0), crc: 5 };
    CommittedOffset { offset: Offset(offset), log_id: LOG, mark, topic_id: TOPIC }
}

fn of_other_log(offset: i64) -> CommittedOffset {
    CommittedOffset { log_id: OTHER_LOG, ..at(offset) }
}

fn of_other_topic(offset: i64) -> CommittedOffset {
    CommittedOffset { topic_id: OTHER_TOPIC, ..at(offset) }
}

/// From 100 on, another copy of the log went its own way; at 50 the log is damaged.
fn ownership(offset: &CommittedOffset) -> Ownership {
    match offset.offset.0 {
        _ if offset.log_id != LOG => Ownership::Foreign("another identity".to_owned()),
        50 => Ownership::Damaged("damaged".to_owned()),
        100.. => Ownership::Diverged("diverged".to_owned()),
        _ => Ownership::Ours,
    }
}

fn committed(offset: CommittedOffset) -> GroupOffset {
    with_metadata(offset.offset.0, &offset.metadata())
}

fn with_metadata(offset: i64, metadata: &str) -> GroupOffset {
    GroupOffset { topic: "t".to_owned(), partition: 2, offset: Offset(offset), metadata: metadata.to_owned() }
}

fn decided(decision: Decision, end: Option<CommittedOffset>) -> GroupOffset {
    with_metadata(0, &OperatorDecision { decision, end }.metadata())
}

fn pending(to: CommittedOffset) -> PendingCommit {
    PendingCommit { to, producer: Producer { id: 1, epoch: 1 }, first_offset: Offset(0), elsewhere: None }
}

fn known(acknowledged: Option<CommittedOffset>, pending_to: Option<CommittedOffset>) -> LogProgress {
    let (remote, cluster) = ("t".to_owned(), Some("before".to_owned()));
    LogProgress { remote, partition: 1, acknowledged, pending: pending_to.map(pending), cluster, began: None }
}

/// A row: what is known, what the configuration says, and what follows.
struct Row {
    committed: Vec<GroupOffset>,
    read_as: ReadAs,
    progress: Option<LogProgress>,
    is_damaged: bool,
    in_doubt: Option<InDoubtOutcome>,
    is_recreated: bool,
    partitions: usize,
    cluster: &'static str,
    config: &'static [(&'static str, &'static str)],
}

/// Nothing is known, and everything as it is by default; the log is partition 1 of its topic, and the target has four.
fn row() -> Row {
    Row {
        committed: Vec::new(),
        read_as: ReadAs::Holder,
        progress: None,
        is_damaged: false,
        in_doubt: None,
        is_recreated: false,
        partitions: 4,
        cluster: "before",
        config: &[],
    }
}

impl Row {
    fn resolve(&self) -> Resolved {
        let mut config = BridgeConfig::default();
        config.set("edgelog.device.id", "d").unwrap();
        config.set("edgelog.bridge.partition", "same").unwrap();
        for (key, value) in self.config {
            config.set(key, value).unwrap();
        }
        let progress = match &self.progress {
            _ if self.is_damaged => Progress::Damaged,
            None => Progress::Nothing,
            Some(log) => Progress::Known(log),
        };
        let facts = StartFacts {
            log_id: LOG,
            partition: 1,
            is_recreated: self.is_recreated,
            topic: TargetTopic { name: "t", id: TOPIC, partitions: self.partitions, cluster: Some(self.cluster) },
            committed: &self.committed,
            read_as: self.read_as,
            progress,
            in_doubt: self.in_doubt.as_ref(),
        };
        resolve_start(&facts, &StartPolicy::of(&config), &|offset| Ok(ownership(offset))).unwrap()
    }
}

fn hold(rows: Vec<(&str, Row, Option<i32>, Start)>) {
    for (name, row, partition, start) in rows {
        assert_eq!(row.resolve(), Resolved { partition, start }, "{name}");
    }
}

const FOLLOW: &[(&str, &str)] = &[("edgelog.bridge.on.set.back", "follow")];
const GO_ON: &[(&str, &str)] = &[("edgelog.bridge.on.set.back", "resume")];
const RESTART_NEW: &[(&str, &str)] = &[("edgelog.bridge.on.new.log", "restart")];
const RESTART: &[(&str, &str)] = &[("edgelog.bridge.on.recreated", "restart")];
const RESUME: &[(&str, &str)] = &[("edgelog.bridge.on.recreated", "resume")];

fn another_log(how: &str) -> Start {
    let words = "where this one was created again on purpose, edgelog.bridge.on.new.log=restart sends it";
    Start::AnotherLog(PauseReason::AnotherLog { reason: format!("{how}; {words}") })
}

fn recreated(offset: i64, clusters: Option<(&str, &str)>) -> Start {
    let clusters = clusters.map(|(before, now)| (before.to_owned(), now.to_owned()));
    Start::Paused(PauseReason::TargetRecreated { topic: "t".to_owned(), offset: Offset(offset), clusters })
}

#[test]
fn by_what_the_cluster_has_committed() {
    let one = |offset| vec![committed(offset)];
    hold(vec![
        ("ours", Row { committed: one(at(9)), ..row() }, Some(2), Start::At(at(9))),
        (
            "ours, before the claim",
            Row { committed: one(at(9)), read_as: ReadAs::Current, ..row() },
            Some(2),
            Start::At(at(9)),
        ),
        ("of another log", Row { committed: one(of_other_log(9)), ..row() }, Some(2), another_log("another identity")),
        (
            "of another log, sent on purpose",
            Row { committed: one(of_other_log(9)), config: RESTART_NEW, ..row() },
            Some(2),
            Start::Beginning,
        ),
        (
            "of the log before, created again while the bridge ran",
            Row { committed: one(of_other_log(9)), is_recreated: true, ..row() },
            Some(2),
            Start::Paused(PauseReason::LogRecreated),
        ),
        ("of another copy", Row { committed: one(at(100)), ..row() }, Some(2), Start::Conflict("diverged".to_owned())),
        ("damaged here, losses are reported", Row { committed: one(at(50)), ..row() }, Some(2), Start::At(at(50))),
        (
            "damaged here, losses stop it",
            Row { committed: one(at(50)), config: &[("edgelog.bridge.on.lost", "stop")], ..row() },
            Some(2),
            Start::Paused(PauseReason::LocalLog { reason: "damaged".to_owned() }),
        ),
        (
            "for a partition that is not there",
            Row { committed: one(at(9)), partitions: 2, ..row() },
            None,
            Start::Paused(PauseReason::PartitionMissing { topic: "t".to_owned(), partition: 2, count: 2 }),
        ),
        (
            "for two partitions",
            Row { committed: vec![committed(at(9)), committed(at(9))], ..row() },
            None,
            Start::Paused(PauseReason::SeveralPartitions { topic: "t".to_owned(), partitions: vec![2, 2] }),
        ),
        (
            "reset by another program",
            Row { committed: vec![with_metadata(9, "")], ..row() },
            Some(2),
            Start::Paused(PauseReason::OffsetNotUsable { reason: CommittedOffset::parse(Offset(9), "").unwrap_err() }),
        ),
        ("of a topic before", Row { committed: one(of_other_topic(9)), ..row() }, Some(2), recreated(9, None)),
        (
            "of a topic before, in another cluster",
            Row {
                committed: one(of_other_topic(9)),
                progress: Some(known(Some(at(9)), None)),
                cluster: "now",
                ..row()
            },
            Some(2),
            recreated(9, Some(("before", "now"))),
        ),
        (
            "of a topic before, all is sent again",
            Row { committed: one(of_other_topic(9)), config: RESTART, ..row() },
            Some(2),
            Start::Beginning,
        ),
        (
            "of a topic before, it goes on",
            Row { committed: one(of_other_topic(9)), config: RESUME, ..row() },
            Some(2),
            Start::At(of_other_topic(9)),
        ),
    ]);
}

#[test]
fn where_the_cluster_was_set_back() {
    let back = |read_as, config| Row {
        committed: vec![committed(at(9))],
        progress: Some(known(Some(at(12)), None)),
        read_as,
        config,
        ..row()
    };
    let reason = PauseReason::SetBack { committed: Offset(9), acknowledged: Offset(12) };
    hold(vec![
        ("a commit may be on its way", back(ReadAs::Current, &[]), Some(2), Start::ReadStable),
        ("behind open transactions", back(ReadAs::Stable, &[]), Some(2), Start::Paused(reason.clone())),
        ("behind the claim", back(ReadAs::Holder, &[]), Some(2), Start::Paused(reason)),
        ("it follows", back(ReadAs::Holder, FOLLOW), Some(2), Start::At(at(9))),
        ("it goes on", back(ReadAs::Holder, GO_ON), Some(2), Start::At(at(12))),
        (
            "of another log, the acknowledged offset says nothing",
            Row { committed: vec![committed(at(9))], progress: Some(known(Some(of_other_log(12)), None)), ..row() },
            Some(2),
            Start::At(at(9)),
        ),
        (
            "the cluster is ahead",
            Row { committed: vec![committed(at(12))], progress: Some(known(Some(at(9)), None)), ..row() },
            Some(2),
            Start::At(at(12)),
        ),
    ]);
}

#[test]
fn by_the_progress_file_where_the_cluster_has_nothing() {
    let outcome = |progress, in_doubt| Row { progress, in_doubt, ..row() };
    let (committed_to, ack) = (Some(at(12)), Some(at(9)));
    let gone = InDoubtOutcome::Gone("gone".to_owned());
    hold(vec![
        ("new", row(), Some(1), Start::Beginning),
        ("nothing was sent yet", Row { progress: Some(known(None, None)), ..row() }, Some(1), Start::Beginning),
        (
            "new, and the target has too few partitions",
            Row { partitions: 1, ..row() },
            None,
            Start::Paused(PauseReason::TargetUnusable {
                topic: "t".to_owned(),
                reason: partition::choose(PartitionRule::Same, false, "d", 1, 1).unwrap_err(),
            }),
        ),
        ("damaged", Row { is_damaged: true, ..row() }, None, Start::Paused(PauseReason::ProgressDamaged)),
        ("expired", Row { progress: Some(known(ack, None)), ..row() }, Some(1), Start::At(at(9))),
        (
            "for another target",
            Row { progress: Some(LogProgress { remote: "before".to_owned(), ..known(ack, None) }), ..row() },
            Some(1),
            Start::Beginning,
        ),
        (
            "for a partition that is not there",
            Row { progress: Some(LogProgress { partition: 4, ..known(ack, None) }), ..row() },
            None,
            Start::Paused(PauseReason::PartitionMissing { topic: "t".to_owned(), partition: 4, count: 4 }),
        ),
        (
            "of another log",
            Row { progress: Some(known(Some(of_other_log(9)), None)), ..row() },
            Some(1),
            another_log("the note in the data directory is of a log of another identity"),
        ),
        (
            "of another log, sent on purpose",
            Row { progress: Some(known(Some(of_other_log(9)), None)), config: RESTART_NEW, ..row() },
            Some(1),
            Start::Beginning,
        ),
        (
            "of a topic before",
            Row { progress: Some(known(Some(of_other_topic(9)), None)), ..row() },
            Some(1),
            recreated(9, None),
        ),
        (
            "of a topic before, a commit pending",
            Row { progress: Some(known(None, Some(of_other_topic(12)))), ..row() },
            Some(1),
            recreated(12, None),
        ),
        (
            "of a topic before, a commit pending, it goes on",
            Row { progress: Some(known(None, Some(of_other_topic(12)))), config: RESUME, ..row() },
            Some(1),
            Start::Beginning,
        ),
        (
            "pending, before the claim",
            Row { progress: Some(known(ack, committed_to)), read_as: ReadAs::Current, ..row() },
            Some(1),
            Start::Beginning,
        ),
        ("pending", outcome(Some(known(ack, committed_to)), None), Some(1), Start::FindOutcome(pending(at(12)))),
        (
            "pending, and was committed",
            outcome(Some(known(ack, committed_to)), Some(InDoubtOutcome::Committed)),
            Some(1),
            Start::At(at(12)),
        ),
        (
            "pending, and was aborted",
            outcome(Some(known(ack, committed_to)), Some(InDoubtOutcome::Aborted)),
            Some(1),
            Start::At(at(9)),
        ),
        (
            "the first one pending, and was aborted",
            outcome(Some(known(None, committed_to)), Some(InDoubtOutcome::Aborted)),
            Some(1),
            Start::Beginning,
        ),
        (
            "pending, and cannot be seen",
            outcome(Some(known(ack, committed_to)), Some(gone)),
            Some(1),
            Start::Paused(PauseReason::InDoubt { reason: "gone".to_owned() }),
        ),
        (
            "another copy went on",
            Row { progress: Some(known(Some(at(100)), None)), ..row() },
            Some(1),
            Start::Conflict("diverged".to_owned()),
        ),
    ]);
}

#[test]
fn by_what_a_person_has_decided() {
    let adopt = |progress, in_doubt, read_as| Row {
        committed: vec![decided(Decision::Adopt, None)],
        progress,
        in_doubt,
        read_as,
        ..row()
    };
    let for_copy = |end| Row { committed: vec![decided(Decision::Restart, Some(end))], ..row() };
    let gone = InDoubtOutcome::Gone("gone".to_owned());
    hold(vec![
        (
            "all again",
            Row {
                committed: vec![decided(Decision::Restart, None)],
                progress: Some(known(Some(at(9)), None)),
                ..row()
            },
            Some(2),
            Start::Decided(None),
        ),
        ("this one, and nothing is known", adopt(None, None, ReadAs::Holder), Some(2), Start::Decided(None)),
        ("this one", adopt(Some(known(Some(at(9)), None)), None, ReadAs::Holder), Some(2), Start::Decided(Some(at(9)))),
        (
            "this one, whose progress is another history's",
            adopt(Some(known(Some(at(100)), None)), None, ReadAs::Holder),
            Some(2),
            Start::Decided(None),
        ),
        (
            "this one, before the claim",
            adopt(Some(known(Some(at(9)), Some(at(12)))), None, ReadAs::Current),
            Some(2),
            Start::Decided(Some(at(9))),
        ),
        (
            "this one, a commit pending",
            adopt(Some(known(Some(at(9)), Some(at(12)))), None, ReadAs::Holder),
            Some(2),
            Start::FindOutcome(pending(at(12))),
        ),
        (
            "this one, a commit pending for a topic before",
            adopt(Some(known(Some(at(9)), Some(of_other_topic(12)))), None, ReadAs::Holder),
            Some(2),
            Start::Decided(Some(at(9))),
        ),
        (
            "this one, and it was committed",
            adopt(Some(known(Some(at(9)), Some(at(12)))), Some(InDoubtOutcome::Committed), ReadAs::Holder),
            Some(2),
            Start::Decided(Some(at(12))),
        ),
        (
            "this one, and that cannot be seen",
            adopt(Some(known(Some(at(9)), Some(at(12)))), Some(gone), ReadAs::Holder),
            Some(2),
            Start::Decided(Some(at(9))),
        ),
        ("for the copy here", for_copy(at(9)), Some(2), Start::Decided(None)),
        (
            "for another copy",
            for_copy(at(100)),
            Some(2),
            Start::Conflict("a person has decided that another copy of this device goes on".to_owned()),
        ),
        (
            "not understood",
            Row { committed: vec![with_metadata(0, "edgelog/1 decided=sell")], ..row() },
            Some(2),
            Start::Paused(PauseReason::DecisionNotUnderstood {
                reason: "it holds a decision that is not understood: sell".to_owned(),
            }),
        ),
    ]);
}
