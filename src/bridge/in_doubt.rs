//! Resolves a transaction in doubt whose committed offset has expired: fetches the target partition at the offset of
//! the transaction's first batch, and looks whether that batch was committed, was aborted, or is gone.

use edgelog_core::{HEADER_LEN, RecordBatch};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};

use super::error::Result;
use super::progress_file::PendingCommit;
use super::uplink::{Patience, Uplink};
use crate::kafka::{Code, KafkaError, Role, check};

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

impl Uplink {
    /// Finds out what became of a sender's pending commit. Only where no transaction of ours is open any more, that is
    /// behind InitProducerId.
    pub(super) fn resolve_in_doubt(&mut self, n: usize, intent: &PendingCommit) -> Result<InDoubtOutcome> {
        let sender = &self.senders[n];
        let target = sender.target.expect("it was aimed");
        let (remote, number) = intent.elsewhere.clone().unwrap_or_else(|| (sender.remote.clone(), target.partition));
        let partition = FetchPartition::default()
            .with_partition(number)
            .with_fetch_offset(intent.first_offset.0)
            .with_partition_max_bytes(HEADER_LEN as i32);
        let topic = FetchTopic::default().with_partitions(vec![partition]);
        let mut request = FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(HEADER_LEN as i32)
            .with_isolation_level(READ_COMMITTED)
            .with_session_epoch(NO_SESSION);
        let doing = format!("looking for the last transaction in {remote}-{number}");
        let found = self.retry(Patience::Asked, |cluster| {
            let topics = cluster.topics(&[&remote])?;
            let found = topics.get(&remote).and_then(|topic| topic.as_ref().ok());
            let leader = found.and_then(|topic| topic.leaders.get(number as usize)).copied().unwrap_or(-1);
            let Some(found) = found.filter(|_| leader >= 0) else {
                return Err(KafkaError::broker(doing.as_str(), LEADER_NOT_AVAILABLE, None));
            };
            request.topics = vec![topic.clone().with_topic_id(found.id)];
            let answer = cluster.request(leader, Role::Data, &request)?;
            check(&doing, answer.error_code)?;
            let told = answer.responses.into_iter().flat_map(|topic| topic.partitions).next();
            let told = told.ok_or_else(|| KafkaError::broker(doing.as_str(), LEADER_NOT_AVAILABLE, None))?;
            if told.error_code != OFFSET_OUT_OF_RANGE {
                check(&doing, told.error_code)
                    .map_err(|error| error.needing("Read", &format!("the topic {remote}")))?;
                // Another producer's older transaction is still open: what follows it is not decided for readers.
                if told.last_stable_offset <= intent.first_offset.0 {
                    return Err(KafkaError::broker(doing.as_str(), UNSTABLE_OFFSET_COMMIT, None));
                }
            }
            Ok(told)
        })?;
        if found.error_code == OFFSET_OUT_OF_RANGE {
            return Ok(InDoubtOutcome::Gone(gone(intent, "the target has deleted what was there, or never had it")));
        }
        let was_aborted = found.aborted_transactions.iter().flatten().any(|aborted| {
            aborted.producer_id.0 == intent.producer.id && aborted.first_offset <= intent.first_offset.0
        });
        let records = found.records.unwrap_or_default();
        let Ok(batch) = RecordBatch::parse(&records) else {
            return Ok(InDoubtOutcome::Gone(gone(intent, "there is no batch")));
        };
        let is_ours = batch.base_offset() == intent.first_offset
            && batch.producer_id() == intent.producer.id
            && batch.producer_epoch() == intent.producer.epoch;
        Ok(match (is_ours, was_aborted) {
            (true, true) => InDoubtOutcome::Aborted,
            (true, false) => InDoubtOutcome::Committed,
            (false, _) => InDoubtOutcome::Gone(gone(intent, "another batch is there")),
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
