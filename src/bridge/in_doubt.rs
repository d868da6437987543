//! Resolves transactions in doubt whose committed offsets have expired: fetches the target partition at the offset of
//! each transaction's first batch of a log, and looks whether that batch was committed, was aborted, or is gone. (One
//! batch is enough: a transaction counts in all partitions, or in none.)

use std::collections::BTreeMap;

use edgelog_core::{HEADER_LEN, RecordBatch};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use uuid::Uuid;

use super::error::Result;
use super::progress_file::PendingCommit;
use super::session::{Patience, Session};
use crate::kafka::{self, Class, Cluster, Code, KafkaError, check, keep_worse};

const READ_COMMITTED: i8 = 1;
const OFFSET_OUT_OF_RANGE: i16 = ResponseError::OffsetOutOfRange.code();
const LEADER_NOT_AVAILABLE: Code = Code::of(ResponseError::LeaderNotAvailable);
const UNSTABLE_OFFSET_COMMIT: Code = Code::of(ResponseError::UnstableOffsetCommit);
/// A session that is not wanted.
const NO_SESSION: i32 = -1;

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InDoubtOutcome {
    Committed,
    Aborted,
    /// It cannot be seen any more: a person has to decide.
    Gone(String),
}

/// What became of the pending commits of senders; or why the cluster does not show it.
pub(super) type InDoubtOutcomes = BTreeMap<usize, std::result::Result<InDoubtOutcome, String>>;

/// A commit that is looked for.
struct Search<'a> {
    sender: usize,
    pending: &'a PendingCommit,
    topic: String,
    partition: i32,
    doing: String,
}

/// Finds out what became of pending commits of senders, of all at once, each in the target partition that it names,
/// or in that of its sender. Only where no transaction of ours is open any more, that is behind InitProducerId.
pub(super) fn resolve_in_doubt(
    session: &mut Session,
    pending: &[(usize, PendingCommit, (String, i32))],
) -> Result<InDoubtOutcomes> {
    let searches = pending.iter().map(|(sender, pending, target)| {
        let (topic, partition) = pending.elsewhere.clone().unwrap_or_else(|| target.clone());
        let doing = format!("looking for the last transaction in {topic}-{partition}");
        Search { sender: *sender, pending, topic, partition, doing }
    });
    let (mut left, mut found): (Vec<Search<'_>>, _) = (searches.collect(), InDoubtOutcomes::new());
    if left.is_empty() {
        return Ok(found);
    }
    session.retry(Patience::Asked, |cluster| {
        let answers = fetch_all(cluster, &left)?;
        let mut failure = None;
        for (n, answer) in answers {
            match answer {
                Ok(outcome) => drop(found.insert(n, Ok(outcome))),
                // The others have nothing to do with what is wrong with this one's target.
                Err(error) if error.code().is_some_and(|code| code.class() == Class::Topic) => {
                    found.insert(n, Err(error.to_string()));
                }
                Err(error) => keep_worse(&mut failure, error),
            }
        }
        left.retain(|search| !found.contains_key(&search.sender));
        failure.map_or(Ok(()), Err)
    })?;
    Ok(found)
}

/// Looks for each of these once: one request to its leader for each, all in flight together. (A request for several
/// would get the first one's batch alone, or need room for all.)
fn fetch_all(
    cluster: &mut Cluster,
    searches: &[Search<'_>],
) -> kafka::Result<Vec<(usize, kafka::Result<InDoubtOutcome>)>> {
    let mut names: Vec<&str> = searches.iter().map(|search| search.topic.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let topics = cluster.topics(&names)?;
    let (mut asked, mut requests, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    for search in searches {
        let topic = topics.get(&search.topic).and_then(|topic| topic.as_ref().ok());
        let leader = topic.and_then(|topic| topic.leaders.get(search.partition as usize)).copied().unwrap_or(-1);
        if let Some(topic) = topic.filter(|_| leader >= 0) {
            asked.push(search);
            requests.push((leader, search.request(topic.id)));
        } else {
            let error = KafkaError::broker(search.doing.as_str(), LEADER_NOT_AVAILABLE, None);
            answers.push((search.sender, Err(error)));
        }
    }
    let requests: Vec<(i32, &FetchRequest)> = requests.iter().map(|(leader, request)| (*leader, request)).collect();
    let responses = cluster.exchange(&requests);
    let read = |(search, response): (&Search<'_>, kafka::Result<FetchResponse>)| {
        (search.sender, response.and_then(|response| search.read(response)))
    };
    answers.extend(asked.into_iter().zip(responses).map(read));
    Ok(answers)
}

impl Search<'_> {
    fn request(&self, topic_id: Uuid) -> FetchRequest {
        let partition = FetchPartition::default()
            .with_partition(self.partition)
            .with_fetch_offset(self.pending.first_offset.0)
            .with_partition_max_bytes(HEADER_LEN as i32);
        FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(HEADER_LEN as i32)
            .with_isolation_level(READ_COMMITTED)
            .with_session_epoch(NO_SESSION)
            .with_topics(vec![FetchTopic::default().with_topic_id(topic_id).with_partitions(vec![partition])])
    }

    fn read(&self, response: FetchResponse) -> kafka::Result<InDoubtOutcome> {
        let Search { pending, doing, .. } = self;
        check(doing, response.error_code)?;
        let found = response.responses.into_iter().flat_map(|topic| topic.partitions).next();
        let found = found.ok_or_else(|| KafkaError::broker(doing.as_str(), LEADER_NOT_AVAILABLE, None))?;
        if found.error_code == OFFSET_OUT_OF_RANGE {
            return Ok(InDoubtOutcome::Gone(gone(pending, "the target has deleted what was there, or never had it")));
        }
        check(doing, found.error_code).map_err(|error| error.needing("Read", &format!("the topic {}", self.topic)))?;
        // Another producer's older transaction is still open: what follows it is not decided for readers.
        if found.last_stable_offset <= pending.first_offset.0 {
            return Err(KafkaError::broker(doing.as_str(), UNSTABLE_OFFSET_COMMIT, None));
        }
        let was_aborted = found.aborted_transactions.iter().flatten().any(|aborted| {
            aborted.producer_id.0 == pending.producer.id && aborted.first_offset <= pending.first_offset.0
        });
        let records = found.records.unwrap_or_default();
        let Ok(batch) = RecordBatch::parse(&records) else {
            return Ok(InDoubtOutcome::Gone(gone(pending, "there is no batch")));
        };
        let is_ours = batch.base_offset() == pending.first_offset
            && batch.producer_id() == pending.producer.id
            && batch.producer_epoch() == pending.producer.epoch;
        Ok(match (is_ours, was_aborted) {
            (true, true) => InDoubtOutcome::Aborted,
            (true, false) => InDoubtOutcome::Committed,
            (false, _) => InDoubtOutcome::Gone(gone(pending, "another batch is there")),
        })
    }
}

fn gone(intent: &PendingCommit, what: &str) -> String {
    format!(
        "the cluster has no position of it, and whether the transaction up to offset {} was committed cannot be seen \
         at offset {} of the target: {what}",
        intent.to.offset, intent.first_offset
    )
}
