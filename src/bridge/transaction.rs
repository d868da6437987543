//! One transaction, top to bottom: every batch and every offset acknowledged, then the progress file, then the commit.
//!
//! 1. The commit is asked for only when every Produce and every TxnOffsetCommit answered 0: a cluster commits the
//!    position also where a batch is missing. (Positions are asked for while the last batches are on their way, once
//!    the transaction is open.)
//! 2. Inside a transaction a batch is never split, merged or stamped again: a resend has the same bytes and the same
//!    sequence, so that the leader knows it.
//! 3. An answer that did not come is never guessed. What was asked is asked again, in the same words, until the
//!    answer is there: Produce by its sequence, EndTxn by its epoch.
//! 4. Sequences begin at 0 in every transaction, since each end of one raises the epoch (transactions of version 2).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgelog_core::Offset;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    EndTxnRequest, GroupId, OffsetCommitRequest, ProduceRequest, ProduceResponse, TopicName, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::dead_letter::Refusal;
use super::error::{BridgeError, Result};
use super::event::BridgeEvent;
use super::loss_record::Loss;
use super::own_files::OwnFiles;
use super::pause_reason::PauseReason;
use super::producer_header::Producer;
use super::producer_id::{ProducerIdentity, transactional_id};
use super::refused_records::Refused;
use super::sender_change::SenderChange;
use super::session::{Completing, Patience, Session};
use super::targets::Targets;
use super::transaction_plan::{Kind, PlannedLog, ProducerBatch, Runs, TransactionPlan};
use crate::kafka::{
    self, Backoff, Class, Code, CoordinatorRequest, IN_FLIGHT_MAX, KafkaError, Role, check, commit_request, keep_worse,
};

/// The version from which on Produce names topics by their ids.
const PRODUCE_BY_ID: i16 = 13;
const NO_LEADER: Code = Code::of(ResponseError::LeaderNotAvailable);
/// A leader that was just elected may not know its topic yet: so many tries before it is believed.
const UNKNOWN_TOPIC_TRIES: u32 = 10;

/// So many Produces are under way to a broker: it knows a producer's last five batches of a partition again.
const UNDER_WAY_MAX: usize = 5;

/// So many tries in a row fail before a partition is left out for a while.
const FAILING_TRIES: u32 = 6;

/// What became of a transaction: what the loop does about it.
pub(super) struct TransactionResult {
    /// As which producer to go on, once the cluster has committed it; or why it has not. It is not aborted yet then.
    pub(super) outcome: std::result::Result<Producer, Lost>,
    /// What was found out about senders.
    pub(super) changes: SenderChanges,
    /// What the plan carried for each sender: records and bytes of its own.
    pub(super) sent: BTreeMap<usize, (u64, u64)>,
    /// What is reported once it is committed.
    pub(super) events: Vec<BridgeEvent>,
    pub(super) took: Duration,
}

/// By sender, in the order in which they were found out.
type SenderChanges = Vec<(usize, SenderChange)>;

/// Why a transaction cannot be committed.
pub(super) enum Lost {
    /// It has to be aborted; where the cause lies with one log, that log is paused.
    Abort(BridgeError),
    /// It has to be aborted, and something smaller tried: the target refuses a batch, and the batch's log looks for the
    /// record; or a request is more than connections carry.
    Smaller(BridgeError),
    /// It has to be aborted since it takes too long.
    Late(BridgeError),
    /// Our epoch is not the current one.
    Epoch(BridgeError),
    /// A person has to do something.
    Fatal(BridgeError),
}

impl From<KafkaError> for Lost {
    fn from(error: KafkaError) -> Lost {
        BridgeError::from(error).into()
    }
}

impl From<BridgeError> for Lost {
    fn from(error: BridgeError) -> Lost {
        match error.code().map(Code::class) {
            Some(Class::Abortable | Class::Topic | Class::Batch) => Lost::Abort(error),
            Some(Class::Epoch) => Lost::Epoch(error),
            _ if error.is_retriable() => Lost::Late(error),
            _ => Lost::Fatal(error),
        }
    }
}

/// A stamped batch for one partition.
struct Wire {
    sender: usize,
    kind: Kind,
    records: u32,
    runs: Runs,
    offsets: (Offset, Offset),
    bytes: Bytes,
}

impl Wire {
    /// The records of it that the target says it refuses, by name: of a batch of which one is refused, it takes none.
    fn refusals(&self, answered: &PartitionProduceResponse, doing: &str) -> Vec<Refusal> {
        let of = |named: &BatchIndexAndErrorMessage| {
            let index = u32::try_from(named.batch_index).ok().filter(|index| *index < self.records)?;
            let words = named.batch_index_error_message.as_deref().or(answered.error_message.as_deref());
            let reason = KafkaError::broker(doing, Code(answered.error_code), words).to_string();
            Some(Refusal { offset: self.runs.offset_of(index)?, code: Code(answered.error_code), reason })
        };
        answered.record_errors.iter().filter_map(of).collect()
    }
}

/// Where the first batch of a sender came to lie: topic, partition and offset.
type FirstBatches = HashMap<usize, ((String, i32), Offset)>;

/// What still has to go to one partition of the target, in order.
type Queues = BTreeMap<(String, i32), VecDeque<Wire>>;

/// Records and bytes of each sender's own records; not those of dead letters.
fn sent_by_sender(plan: &TransactionPlan) -> BTreeMap<usize, (u64, u64)> {
    let mut sent: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    for piece in plan.pieces.iter().filter(|piece| piece.kind == Kind::Records) {
        let (records, bytes) = sent.entry(piece.sender).or_default();
        *records += u64::from(piece.records.unsigned_abs());
        *bytes += piece.wire.len() as u64;
    }
    sent
}

/// Produces that were sent and are to be answered, each with its leader and the partitions it carries a batch of.
type Sent = Vec<(i32, Vec<(String, i32)>)>;

/// The Produces of one transaction: what is left to send, what was answered, and how well it goes.
struct Producing<'a> {
    changes: &'a mut SenderChanges,
    queues: Queues,
    topic_ids: TopicIds,
    first_batches: FirstBatches,
    /// When the cluster ends the transaction; known once it was opened.
    deadline: Option<Instant>,
    backoff: Backoff,
    /// Rounds in a row without any progress.
    completing: Completing,
    failing_tries: u32,
    unknown_topic_tries: u32,
}

impl Producing<'_> {
    /// Whether something of this sender was not acknowledged yet.
    fn is_left(&self, sender: usize) -> bool {
        self.queues.values().flatten().any(|wire| wire.sender == sender)
    }

    /// Pauses all senders that have something for this partition.
    fn pause_senders(&mut self, partition: &(String, i32), reason: &str) {
        for wire in &self.queues[partition] {
            let reason = PauseReason::ClusterRefuses { reason: reason.to_owned() };
            self.changes.push((wire.sender, SenderChange::Paused(reason)));
        }
    }

    /// The first batch for this partition was refused. Its log leaves the records out that the target names; where it
    /// names none, it tries less of the batch next. Where it is one of the bridge's own records, the log is paused.
    fn look_for_refused(
        &mut self,
        partition: &(String, i32),
        error: &KafkaError,
        (response, doing): (&PartitionProduceResponse, &str),
    ) {
        let head = self.queues[partition].front().expect("its head was sent");
        let (code, reason) = (error.code().unwrap_or(Code::UNNAMED), error.to_string());
        let change = match &head.kind {
            Kind::Records => {
                // The offsets that it stands for may begin with a hole.
                let offset = head.runs.offset_of(0).unwrap_or(head.offsets.0);
                let refusal = Refusal { offset, code, reason };
                let Wire { offsets, records, .. } = *head;
                let batch = Refused { offsets, records, bytes: head.bytes.len(), refusal };
                SenderChange::Refused { named: head.refusals(response, doing), batch }
            }
            Kind::DeadLetter(refusal) => {
                let reason = format!("{refusal}; and so is its dead letter: {reason}");
                SenderChange::Paused(PauseReason::RecordRefused { reason })
            }
            Kind::Loss(lost) => {
                let reason = format!("{lost}; and the record that reports it is refused: {reason}");
                SenderChange::Paused(PauseReason::Lost { reason })
            }
        };
        self.changes.push((head.sender, change));
    }

    /// Batches that were not acknowledged yet.
    fn batches_left(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }
}

/// Whether a broker does not know the topic, by its name or its id.
fn is_unknown_topic(code: Code) -> bool {
    matches!(code.named(), Some(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId))
}

/// The ids under which the planned logs know their target topics: never that of one that was created since under the
/// same name. Those of the bridge's own records are not in it.
type TopicIds = HashMap<String, Uuid>;

/// What is reported with the commit, once it is committed.
fn events_of(plan: &TransactionPlan) -> Vec<BridgeEvent> {
    let event = |piece: &ProducerBatch| {
        let log = plan.log_of(piece.sender)?.name.clone();
        match &piece.kind {
            Kind::Records => None,
            Kind::DeadLetter(refusal) => {
                let (topic, reason) = (piece.to.0.clone(), refusal.reason.clone());
                Some(BridgeEvent::DeadLetter { log, offset: refusal.offset, topic, reason })
            }
            Kind::Loss(Loss { first_offset, next_offset, detail, .. }) => Some(BridgeEvent::Lost {
                log,
                first_offset: *first_offset,
                next_offset: *next_offset,
                reason: detail.clone(),
            }),
        }
    };
    plan.pieces.iter().filter_map(event).collect()
}

/// Ends the transaction of this producer, and asks until there is an answer. With it comes as which producer to go on.
pub(super) fn end_transaction(session: &mut Session, producer: Producer, committed: bool) -> Result<Producer> {
    let request = EndTxnRequest::default()
        .with_transactional_id(transactional_id(session))
        .with_producer_id(producer.id.into())
        .with_producer_epoch(producer.epoch)
        .with_committed(committed);
    let transaction = session.transaction();
    let doing = if committed { "committing a transaction" } else { "aborting a transaction" };
    let answer = session.retry(Patience::Grace, |cluster| {
        let answer = cluster.ask_coordinator(&transaction, &request)?;
        check(doing, answer.error_code).map_err(|error| error.needing_id(&transaction))?;
        Ok(answer)
    })?;
    // At the end of the epochs it is another id, too.
    let raised = Producer { id: answer.producer_id.0, epoch: answer.producer_epoch };
    Ok(if raised.id >= 0 { raised } else { producer })
}

/// What a coordinator says to the one position that it was asked to take.
fn code_of_position(answer: &TxnOffsetCommitResponse) -> i16 {
    let answered = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
    answered.map_or(Code::UNNAMED.0, |partition| partition.error_code)
}

/// What commits a log's new position without a transaction, behind records that were acknowledged.
fn plain_position_request(log: &PlannedLog) -> OffsetCommitRequest {
    commit_request(log.group_id(), log.target(), log.to.offset, log.to.metadata())
}

/// One transaction, and what it needs. It knows no sender: what it has to know of logs is in its plan, and what it
/// finds out about them is in its result.
pub(super) struct Transaction<'a> {
    session: &'a mut Session,
    producer: &'a mut ProducerIdentity,
    targets: &'a mut Targets,
    files: &'a mut OwnFiles,
}

impl<'a> Transaction<'a> {
    pub(super) fn of(
        session: &'a mut Session,
        producer: &'a mut ProducerIdentity,
        targets: &'a mut Targets,
        files: &'a mut OwnFiles,
    ) -> Transaction<'a> {
        Transaction { session, producer, targets, files }
    }

    /// Sends what is planned and commits it, or finds out why that cannot be.
    pub(super) fn run(mut self, plan: TransactionPlan) -> TransactionResult {
        let (sent, mut events, began) = (sent_by_sender(&plan), events_of(&plan), Instant::now());
        let (records, TransactionPlan { pieces, logs, bytes, .. }) = (plan.records(), plan);
        let _span = tracing::debug_span!("transaction", records, bytes).entered();
        let mut changes = SenderChanges::new();
        let outcome = self.send_and_commit(pieces, &logs, &mut changes);
        match &outcome {
            Ok(_) => {
                changes.extend(logs.iter().map(|log| (log.sender, SenderChange::Committed(log.to))));
                let positions = logs.into_iter().map(|log| (log.name, log.to.offset)).collect();
                events.insert(0, BridgeEvent::Committed { records, bytes: bytes as u64, positions });
            }
            Err(Lost::Abort(error) | Lost::Smaller(error) | Lost::Late(error) | Lost::Epoch(error)) => {
                events = vec![BridgeEvent::Aborted { reason: error.to_string() }];
            }
            Err(Lost::Fatal(_)) => events.clear(),
        }
        TransactionResult { outcome, changes, sent, events, took: began.elapsed() }
    }

    fn send_and_commit(
        &mut self,
        pieces: Vec<ProducerBatch>,
        logs: &[PlannedLog],
        changes: &mut SenderChanges,
    ) -> std::result::Result<Producer, Lost> {
        let mut unanswered: Vec<&PlannedLog> = logs.iter().collect();
        let is_opened = !pieces.is_empty();
        let mut first_batches = self.produce(pieces, &mut unanswered, changes)?;
        let producer = self.producer.current();
        if !self.session.in_transactions() {
            let requests = logs.iter().map(|log| (log, plain_position_request(log))).collect();
            self.ask_to_commit(requests, changes, |answer| {
                let answered = answer.topics.iter().flat_map(|topic| &topic.partitions).next();
                answered.map_or(Code::UNNAMED.0, |partition| partition.error_code)
            })?;
            return Ok(producer);
        }
        // Without records, the first offset opens the transaction: others that arrive with it are refused.
        let first = if is_opened { 0 } else { 1.min(unanswered.len()) };
        for logs in [&unanswered[..first], &unanswered[first..]] {
            let requests = logs.iter().map(|log| (*log, self.position_request(log))).collect();
            self.ask_to_commit(requests, changes, code_of_position)?;
        }
        let pending = logs.iter().map(|log| {
            let first = first_batches.remove(&log.sender);
            (log.name.clone(), log.pending(producer, first))
        });
        if let Err(error) = self.files.progress().write_before_commit(pending.collect()) {
            // A file that was removed with its store is no reason to end: the store that is there again is noticed.
            return Err(if self.files.is_replaced() { Lost::Abort(error) } else { Lost::Fatal(error) });
        }
        end_transaction(self.session, producer, true).map_err(Lost::from)
    }

    /// Sends every batch, several Produces under way at once, and returns the offset that each sender's first one got.
    /// Takes those logs out of `unanswered` whose positions are part of the transaction, too, when it returns.
    fn produce(
        &mut self,
        pieces: Vec<ProducerBatch>,
        unanswered: &mut Vec<&PlannedLog>,
        changes: &mut SenderChanges,
    ) -> std::result::Result<FirstBatches, Lost> {
        let mut topic_ids = TopicIds::new();
        for log in &*unanswered {
            topic_ids.entry(log.before.remote.clone()).or_insert(log.to.topic_id);
        }
        let mut producing = Producing {
            changes,
            queues: self.stamp_all(pieces),
            topic_ids,
            first_batches: FirstBatches::new(),
            deadline: None,
            backoff: self.session.backoff(),
            completing: Completing::default(),
            failing_tries: 0,
            unknown_topic_tries: 0,
        };
        while !producing.queues.is_empty() {
            let left = producing.batches_left();
            let failure = self.produce_heads(&mut producing, unanswered)?;
            if producing.batches_left() < left {
                producing.backoff = self.session.backoff();
                (producing.unknown_topic_tries, producing.failing_tries) = (0, 0);
            }
            if let Some(error) = failure {
                self.prepare_another_try(error, &mut producing)?;
            }
        }
        Ok(producing.first_batches)
    }

    /// One round: sends what is next for each partition and receives all the answers, also behind one with an error,
    /// before anything else is sent on those connections. Returns what went wrong and may go well at another try.
    fn produce_heads(
        &mut self,
        producing: &mut Producing<'_>,
        unanswered: &mut Vec<&PlannedLog>,
    ) -> std::result::Result<Option<KafkaError>, Lost> {
        let (sent, mut failure) = self.send_heads(producing).map_err(Lost::from)?;
        let batches = sent.iter().map(|(_, partitions)| partitions.len()).sum::<usize>();
        let is_last = self.session.in_transactions() && batches == producing.batches_left();
        let mut asked = Vec::new();
        let mut lost = None;
        let mut behind = HashSet::new();
        for (n, (leader, partitions)) in sent.iter().enumerate() {
            let answer = self.session.cluster_mut().receive::<ProduceRequest>(*leader, Role::Data);
            self.session.metrics().heard(&answer);
            match answer {
                Ok(answer) => {
                    self.session.cluster_mut().mute(*leader, Role::Data, answer.throttle_time_ms);
                    // The transaction was opened when the first request had arrived.
                    producing.deadline.get_or_insert_with(|| Instant::now() + self.producer.transaction_timeout());
                    if lost.is_some() {
                        continue;
                    }
                    match self.take_answers(&answer, partitions, producing, &mut behind) {
                        Ok(answered) => failure = failure.or(answered),
                        Err(found) => lost = Some(found),
                    }
                    // A transaction that an answer has shown to be open takes positions, too, while the last batches
                    // are on their way. (As the first requests of one, both at once are refused.)
                    if is_last && n + 1 < sent.len() && asked.is_empty() && failure.is_none() && lost.is_none() {
                        asked = self.send_positions(unanswered);
                    }
                }
                Err(error) if error.is_retriable() => {
                    failure.get_or_insert(error);
                }
                Err(error) => {
                    lost.get_or_insert(error.into());
                }
            }
        }
        self.hear_positions(&asked, unanswered);
        lost.map_or(Ok(failure), Err)
    }

    /// Waits for another try after a round in which something went wrong; or says why there is none.
    fn prepare_another_try(
        &mut self,
        error: KafkaError,
        producing: &mut Producing<'_>,
    ) -> std::result::Result<(), Lost> {
        if error.code().is_none() && self.is_too_much(&producing.queues) {
            return Err(Lost::Smaller(error.into()));
        }
        producing.failing_tries += 1;
        let others_are_done = producing.first_batches.keys().any(|sender| !producing.is_left(*sender));
        if producing.failing_tries >= FAILING_TRIES && (others_are_done || error.code().is_some()) {
            // Theirs is the trouble: the others go on without them.
            let first = self.session.backoff();
            let left: BTreeSet<usize> = producing.queues.values().flatten().map(|wire| wire.sender).collect();
            producing.changes.extend(left.into_iter().map(|n| (n, SenderChange::BackOff(first.clone()))));
            return Err(Lost::Abort(error.into()));
        }
        if error.code().is_some_and(is_unknown_topic) {
            producing.unknown_topic_tries += 1;
            if producing.unknown_topic_tries > UNKNOWN_TOPIC_TRIES {
                return Err(Lost::Abort(error.into()));
            }
        }
        if producing.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Lost::Late(error.into()));
        }
        self.session.report_retry(&error, &mut producing.completing);
        self.session.stop().check_grace()?;
        self.session.stop().wait_before_retry(producing.backoff.pause_after(&error));
        // Who leads may have changed; but a connection that died once says nothing of that. Where no broker answers,
        // the next round says so.
        if error.code().is_some() || producing.failing_tries % 2 == 0 {
            let _ = self.targets.look_up_leaders(self.session);
        }
        Ok(())
    }

    fn stamp_all(&mut self, mut pieces: Vec<ProducerBatch>) -> Queues {
        self.producer.stamp(&mut pieces, self.session.in_transactions());
        let mut queues = Queues::new();
        for piece in pieces {
            let ProducerBatch { sender, to, kind, wire, records, runs, offsets } = piece;
            let (records, bytes) = (records.unsigned_abs(), wire.freeze());
            queues.entry(to).or_default().push_back(Wire { sender, kind, records, runs, offsets, bytes });
        }
        queues
    }

    fn by_leader(&self, queues: &Queues) -> BTreeMap<Option<i32>, Vec<(String, i32)>> {
        let mut leaders: BTreeMap<Option<i32>, Vec<(String, i32)>> = BTreeMap::new();
        for partition in queues.keys() {
            leaders.entry(self.targets.leader(partition)).or_default().push(partition.clone());
        }
        leaders
    }

    /// Sends each leader what is next for its partitions: several requests, each with one batch of a partition (a
    /// broker takes no more of them in one) and as much as a request may carry. Returns what was sent, and what went
    /// wrong and may go well at another try.
    fn send_heads(&mut self, producing: &Producing<'_>) -> kafka::Result<(Sent, Option<KafkaError>)> {
        let Producing { queues, topic_ids, .. } = producing;
        let (mut sent, mut failure) = (Sent::new(), None);
        for (leader, partitions) in self.by_leader(queues) {
            let Some(leader) = leader else {
                failure.get_or_insert(KafkaError::broker("looking for a partition's leader", NO_LEADER, None));
                continue;
            };
            let before = sent.len();
            let mut next = vec![0; partitions.len()];
            let request_bytes_max = self.session.cluster().link().request_bytes_max();
            // All of it dies with the connection: no more than that carries.
            let mut left = request_bytes_max.saturating_mul(2);
            while sent.len() - before < UNDER_WAY_MAX && left > 0 {
                let mut room = request_bytes_max;
                let mut batches: Vec<(&(String, i32), &Bytes)> = Vec::new();
                for (partition, next) in partitions.iter().zip(&mut next) {
                    let Some(wire) = queues[partition].get(*next) else { continue };
                    if wire.bytes.len() <= room || batches.is_empty() {
                        room = room.saturating_sub(wire.bytes.len());
                        *next += 1;
                        batches.push((partition, &wire.bytes));
                    }
                }
                if batches.is_empty() {
                    break;
                }
                left = left.saturating_sub(batches.iter().map(|(_, bytes)| bytes.len()).sum());
                match self.send_batches(leader, &batches, topic_ids) {
                    Ok(()) => sent.push((leader, batches.iter().map(|(partition, _)| (*partition).clone()).collect())),
                    Err(error) if error.is_retriable() => {
                        // What was sent before it died with the connection.
                        sent.truncate(before);
                        failure = Some(error);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((sent, failure))
    }

    /// Sends positions to their groups' coordinators, without waiting for answers. Returns who was
    /// asked for which.
    fn send_positions<'p>(&mut self, of: &[&'p PlannedLog]) -> Vec<(i32, &'p PlannedLog)> {
        let mut asked = Vec::new();
        for log in of.iter().take(IN_FLIGHT_MAX) {
            let request = self.position_request(log);
            // Who is not known cannot be asked for either: records are under way to whom that would be asked.
            let Some(node) = self.session.cluster().known_coordinator(&log.group) else {
                continue;
            };
            if self.session.cluster_mut().send(node, Role::Coordinator, &request).is_err() {
                break;
            }
            asked.push((node, *log));
        }
        asked
    }

    /// Hears the answers to [`send_positions`](Self::send_positions), and takes those logs out whose positions were
    /// accepted. What was not is asked for again behind the records, where the answer counts.
    fn hear_positions(&mut self, asked: &[(i32, &PlannedLog)], unanswered: &mut Vec<&PlannedLog>) {
        for (node, log) in asked {
            let answer = self.session.cluster_mut().receive::<TxnOffsetCommitRequest>(*node, Role::Coordinator);
            if answer.is_ok_and(|answer| code_of_position(&answer) == 0) {
                unanswered.retain(|left| left.sender != log.sender);
            }
        }
    }

    /// Whether a batch that is sent next is more than connections carry, and can be less.
    fn is_too_much(&self, queues: &Queues) -> bool {
        let max = self.session.cluster().link().request_bytes_max();
        let mut heads = queues.values().filter_map(VecDeque::front);
        heads.any(|head| head.records > 1 && head.bytes.len() > max.saturating_mul(2))
    }

    /// Sends one Produce with a batch for each of these partitions.
    fn send_batches(
        &mut self,
        leader: i32,
        batches: &[(&(String, i32), &Bytes)],
        topic_ids: &TopicIds,
    ) -> kafka::Result<()> {
        let version = self.session.cluster_mut().version::<ProduceRequest>(leader, Role::Data)?;
        let mut topics: BTreeMap<&str, Vec<PartitionProduceData>> = BTreeMap::new();
        for (partition, batch) in batches {
            let data = PartitionProduceData::default().with_index(partition.1).with_records(Some((*batch).clone()));
            topics.entry(&partition.0).or_default().push(data);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            let topic = TopicProduceData::default().with_partition_data(partitions);
            if version >= PRODUCE_BY_ID {
                topic.with_topic_id(self.topic_id(name, topic_ids))
            } else {
                topic.with_name(TopicName(StrBytes::from_string(name.to_owned())))
            }
        });
        let request = ProduceRequest::default()
            .with_transactional_id(self.session.in_transactions().then(|| transactional_id(self.session)))
            .with_acks(-1)
            .with_timeout_ms(self.session.config().request_timeout.as_millis() as i32)
            .with_topic_data(topics.collect());
        self.session.cluster_mut().send(leader, Role::Data, &request)
    }

    /// The id of the topic that is meant by this name.
    fn topic_id(&self, name: &str, known: &TopicIds) -> Uuid {
        let known = known.get(name).copied();
        known.or_else(|| self.targets.topic(name).map(|topic| topic.id)).unwrap_or_default()
    }

    /// Whether the topic of this name is another one than the logs know.
    fn is_recreated(&self, name: &str, known: &TopicIds) -> bool {
        let found = self.targets.topic(name);
        found.is_some_and(|found| known.get(name).is_some_and(|known| *known != found.id))
    }

    /// Takes what was acknowledged out of the queues. Returns an error that allows another try. Such an error of a
    /// partition puts it `behind`: later answers for it say nothing that the next try does not say again.
    fn take_answers(
        &mut self,
        answer: &ProduceResponse,
        partitions: &[(String, i32)],
        producing: &mut Producing<'_>,
        behind: &mut HashSet<(String, i32)>,
    ) -> std::result::Result<Option<KafkaError>, Lost> {
        let mut retry = None;
        for partition in partitions.iter().filter(|partition| !behind.contains(*partition)).cloned().collect::<Vec<_>>()
        {
            let partition = &partition;
            let by_id = self.topic_id(&partition.0, &producing.topic_ids);
            let topic = answer
                .responses
                .iter()
                .find(|topic| *topic.name.0 == *partition.0 || (!by_id.is_nil() && topic.topic_id == by_id));
            let answered =
                topic.and_then(|topic| topic.partition_responses.iter().find(|answered| answered.index == partition.1));
            let doing = format!("Produce to {}-{}", partition.0, partition.1);
            let Some(answered) = answered else {
                let error = KafkaError::broker(doing, Code::UNNAMED, Some("the answer does not name it"));
                return Err(Lost::Abort(error.into()));
            };
            if answered.error_code == 0 {
                let queue = producing.queues.get_mut(partition).expect("it was asked for");
                let wire = queue.pop_front().expect("its head was sent");
                producing.first_batches.entry(wire.sender).or_insert((partition.clone(), Offset(answered.base_offset)));
                if queue.is_empty() {
                    producing.queues.remove(partition);
                }
                continue;
            }
            let error =
                KafkaError::broker(doing.as_str(), Code(answered.error_code), answered.error_message.as_deref());
            let code = Code(answered.error_code);
            let error = match code.class() {
                Class::Refused => error.needing_id(&self.session.transaction()),
                _ => error.needing("Write", &format!("the topic {}", partition.0)),
            };
            match code.class() {
                Class::Retriable => {
                    behind.insert(partition.clone());
                    retry = Some(error);
                }
                Class::Topic => {
                    // Perhaps a leader that does not know its topic yet.
                    if is_unknown_topic(code) && !self.is_recreated(&partition.0, &producing.topic_ids) {
                        behind.insert(partition.clone());
                        retry = Some(error);
                        continue;
                    }
                    producing.pause_senders(partition, &error.to_string());
                    return Err(Lost::Abort(error.into()));
                }
                Class::Batch => {
                    producing.look_for_refused(partition, &error, (answered, &doing));
                    return Err(Lost::Smaller(error.into()));
                }
                Class::Abortable | Class::Refused => return Err(Lost::Abort(error.into())),
                Class::Epoch => return Err(Lost::Epoch(error.into())),
                Class::Fatal => return Err(Lost::Fatal(error.into())),
            }
        }
        Ok(retry)
    }

    /// What puts a log's new position into the transaction.
    fn position_request(&self, log: &PlannedLog) -> TxnOffsetCommitRequest {
        let (producer, (topic, number)) = (self.producer.current(), log.target());
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(number)
            .with_committed_offset(log.to.offset.0)
            .with_committed_metadata(Some(StrBytes::from_string(log.to.metadata())));
        let topic = TxnOffsetCommitRequestTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(vec![partition]);
        TxnOffsetCommitRequest::default()
            .with_transactional_id(transactional_id(self.session))
            .with_group_id(GroupId(StrBytes::from_string(log.group_id().to_owned())))
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch)
            .with_topics(vec![topic])
    }

    /// Asks logs' groups to take positions, all at once, and those again that did not, until each has answered or
    /// the transaction's time is over.
    fn ask_to_commit<R: CoordinatorRequest>(
        &mut self,
        requests: Vec<(&PlannedLog, R)>,
        changes: &mut SenderChanges,
        code: impl Fn(&R::Response) -> i16,
    ) -> std::result::Result<(), Lost> {
        struct Left<'p, R> {
            log: &'p PlannedLog,
            request: R,
            doing: String,
            needed: String,
        }
        let left = requests.into_iter().map(|(log, request)| {
            let PlannedLog { name, before, .. } = log;
            let doing = format!("committing the position of {name}");
            let needed = format!("the group {} and the topic {}", log.group_id(), before.remote);
            Left { log, request, doing, needed }
        });
        let mut left: Vec<Left<'_, R>> = left.collect();
        if left.is_empty() {
            return Ok(());
        }
        let mut refused = Vec::new();
        let deadline = Instant::now() + self.producer.transaction_timeout();
        let committed = self.session.retry(Patience::Until(deadline), |cluster| {
            let requests: Vec<_> = left.iter().map(|left| (&left.log.group, &left.request)).collect();
            let mut answers = cluster.ask_coordinators(&requests).into_iter();
            let mut failure = None;
            refused.clear();
            left.retain(|left| {
                let answer = answers.next().expect("one answer for each request");
                let committed = answer.and_then(|answer| {
                    check(&left.doing, code(&answer)).map_err(|error| error.needing("Read", &left.needed))
                });
                let Err(error) = committed else { return false };
                if error.code().is_some_and(|code| code.class() == Class::Topic) {
                    refused.push((left.log.sender, error.to_string()));
                }
                keep_worse(&mut failure, error);
                true
            });
            failure.map_or(Ok(()), Err)
        });
        // What concerns one sender's topic or group lets that sender wait.
        for (sender, reason) in refused {
            changes.push((sender, SenderChange::Paused(PauseReason::ClusterRefuses { reason })));
        }
        committed.map_err(Lost::from)
    }
}
