//! The offsets that groups have committed: read for many groups at once, and the request that commits one.

use std::collections::{BTreeMap, HashMap};

use edgelog_core::Offset;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::brokers::{Brokers, Role, lost_with_its_connection};
use super::coordinator::{CoordinatorKey, Coordinators};
use super::error::{KafkaError, Result, check};
use super::error_code::Code;

/// So many groups are asked for in one request: an answer that takes long on a slow line is not asked for again whole.
const GROUPS_MAX: usize = 64;
/// So many of these requests are in flight to a coordinator.
const FETCHES_MAX: usize = 8;

/// What one group has committed for a partition: Kafka's `OffsetAndMetadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupOffset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: Offset,
    pub(crate) metadata: String,
}

/// What each of these groups has committed, by its name; with `stable`, behind transactions that are open. Coordinators
/// that are not known are looked up first.
pub(super) fn fetch(
    coordinators: &mut Coordinators,
    brokers: &mut Brokers,
    groups: &[&str],
    stable: bool,
) -> HashMap<String, Result<Vec<GroupOffset>>> {
    let keys: Vec<_> = groups.iter().map(|group| CoordinatorKey::Group((*group).to_owned())).collect();
    let missing = coordinators.find_all(brokers, &keys.iter().collect::<Vec<_>>());
    let mut by_node: BTreeMap<i32, Vec<&CoordinatorKey>> = BTreeMap::new();
    for key in &keys {
        if let Some(node) = coordinators.known(key) {
            by_node.entry(node).or_default().push(key);
        }
    }
    let fetches: Vec<(i32, &[&CoordinatorKey], OffsetFetchRequest)> = by_node
        .iter()
        .flat_map(|(node, keys)| keys.chunks(GROUPS_MAX).map(|keys| (*node, keys, request(keys, stable))))
        .collect();
    let requests: Vec<_> = fetches.iter().map(|(node, _, request)| (*node, request)).collect();
    let responses = brokers.exchange(Role::Coordinator, FETCHES_MAX, &requests);
    let mut found: HashMap<String, Result<Vec<GroupOffset>>> =
        missing.into_iter().map(|(key, error)| (key.id().to_owned(), Err(error))).collect();
    for ((_, keys, _), response) in fetches.iter().zip(responses) {
        for key in *keys {
            coordinators.heard(key, response.is_ok());
        }
        match response {
            Ok(response) => {
                let mut groups: HashMap<String, OffsetFetchResponseGroup> =
                    response.groups.into_iter().map(|group| (group.group_id.0.to_string(), group)).collect();
                for key in *keys {
                    let offsets = offsets_of(key, groups.remove(key.id()));
                    if offsets.as_ref().is_err_and(|error| error.code().is_some_and(is_elsewhere)) {
                        coordinators.forget(key);
                    }
                    found.insert(key.id().to_owned(), offsets);
                }
            }
            // The first one has the words of what went wrong.
            Err(error) => {
                let errors = std::iter::once(error).chain(std::iter::repeat_with(lost_with_its_connection));
                found.extend(keys.iter().zip(errors).map(|(key, error)| (key.id().to_owned(), Err(error))));
            }
        }
    }
    found
}

fn request(keys: &[&CoordinatorKey], stable: bool) -> OffsetFetchRequest {
    let group = |key: &&CoordinatorKey| {
        OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(key.id().to_owned())))
            .with_topics(None)
    };
    OffsetFetchRequest::default().with_groups(keys.iter().map(group).collect()).with_require_stable(stable)
}

fn offsets_of(key: &CoordinatorKey, group: Option<OffsetFetchResponseGroup>) -> Result<Vec<GroupOffset>> {
    let doing = format!("reading the offsets of the group {}", key.id());
    let group = group
        .ok_or_else(|| KafkaError::broker(doing.as_str(), Code::UNNAMED, Some("the answer does not name the group")))?;
    check(&doing, group.error_code).map_err(|error| error.needing_id(key))?;
    let mut found = Vec::new();
    for topic in group.topics {
        for partition in topic.partitions {
            check(&doing, partition.error_code)?;
            if partition.committed_offset >= 0 {
                found.push(GroupOffset {
                    topic: topic.name.0.to_string(),
                    partition: partition.partition_index,
                    offset: Offset(partition.committed_offset),
                    metadata: partition.metadata.map(|metadata| metadata.to_string()).unwrap_or_default(),
                });
            }
        }
    }
    Ok(found)
}

/// Whether a broker says by this code that it is not the coordinator.
fn is_elsewhere(code: Code) -> bool {
    matches!(code.named(), Some(ResponseError::NotCoordinator | ResponseError::CoordinatorNotAvailable))
}

/// The request that commits a group's offset without a transaction.
pub(crate) fn commit_request(
    group_id: &str,
    (topic, partition): (&str, i32),
    offset: Offset,
    metadata: String,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset.0)
        .with_committed_metadata(Some(StrBytes::from_string(metadata)));
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![partition]);
    // Generation -1 and no member, as by default: no member consumes in this group.
    OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group_id.to_owned())))
        .with_topics(vec![topic])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

    use kafka_protocol::messages::find_coordinator_response::Coordinator;
    use kafka_protocol::messages::offset_fetch_response::{OffsetFetchResponsePartitions, OffsetFetchResponseTopics};
    use kafka_protocol::messages::{ApiKey, FindCoordinatorRequest, FindCoordinatorResponse, OffsetFetchResponse};
    use kafka_protocol::protocol::Decodable;

    use super::super::test_broker::{encoded, listen_to, plaintext};
    use super::*;

    const REFUSED: ResponseError = ResponseError::GroupAuthorizationFailed;
    const MOVED: ResponseError = ResponseError::NotCoordinator;

    /// What the broker says of the group of this name: `refused` has no coordinator for us, `moved` another one, `gone`
    /// is not named, and every other one has its length committed.
    fn group_of(name: &str) -> Option<OffsetFetchResponseGroup> {
        let group = OffsetFetchResponseGroup::default().with_group_id(GroupId(StrBytes::from_string(name.to_owned())));
        match name {
            "gone" => None,
            "moved" => Some(group.with_error_code(MOVED.code())),
            _ => {
                let partition = OffsetFetchResponsePartitions::default()
                    .with_partition_index(3)
                    .with_committed_offset(name.len() as i64)
                    .with_metadata(Some(StrBytes::from_static_str("words")));
                let topic = OffsetFetchResponseTopics::default()
                    .with_name(TopicName(StrBytes::from_static_str("t")))
                    .with_partitions(vec![partition]);
                Some(group.with_topics(vec![topic]))
            }
        }
    }

    fn broker(counts: [Arc<AtomicUsize>; 2]) -> u16 {
        let own = Arc::<AtomicU16>::default();
        let its_own = Arc::clone(&own);
        let port = listen_to(move |key, version, mut body| {
            if key == ApiKey::OffsetFetch {
                counts[1].fetch_add(1, Ordering::SeqCst);
                let asked = OffsetFetchRequest::decode(&mut body, version).unwrap();
                assert!(asked.require_stable);
                let groups = asked.groups.iter().filter_map(|group| group_of(&group.group_id.0)).collect();
                return Some(encoded(&OffsetFetchResponse::default().with_groups(groups), version));
            }
            counts[0].fetch_add(1, Ordering::SeqCst);
            let asked = FindCoordinatorRequest::decode(&mut body, version).unwrap();
            let coordinators = asked.coordinator_keys.into_iter().map(|key| {
                let code = if *key == *"refused" { REFUSED.code() } else { 0 };
                Coordinator::default()
                    .with_key(key)
                    .with_node_id(1.into())
                    .with_host(StrBytes::from_static_str("127.0.0.1"))
                    .with_port(i32::from(own.load(Ordering::SeqCst)))
                    .with_error_code(code)
            });
            let found = FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
            Some(encoded(&found, version))
        });
        its_own.store(port, Ordering::SeqCst);
        port
    }

    #[test]
    fn many_groups_are_read_in_few_requests_and_what_is_wrong_with_one_concerns_it_alone() {
        let counts = [Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default()];
        let port = broker(counts.clone());
        let counted = || counts.each_ref().map(|count| count.load(Ordering::SeqCst));
        let mut brokers = Brokers::new(vec![("127.0.0.1".to_owned(), port)], plaintext());
        let mut coordinators = Coordinators::default();
        let names: Vec<String> = (0..250).map(|n| format!("{n:0width$}", width = 1 + n % 7)).collect();
        let mut groups: Vec<&str> = names.iter().map(String::as_str).collect();
        groups.extend(["refused", "moved", "gone"]);
        let mut found = fetch(&mut coordinators, &mut brokers, &groups, true);
        // 253 groups: three times 100 keys, and four times 64 groups of the 252 that have a coordinator.
        assert_eq!(counted(), [3, 4]);
        for name in &names {
            let (topic, metadata) = ("t".to_owned(), "words".to_owned());
            let offset = GroupOffset { topic, partition: 3, offset: Offset(name.len() as i64), metadata };
            assert_eq!(found.remove(name.as_str()).unwrap().unwrap(), [offset]);
        }
        let code = |group: &str| found[group].as_ref().unwrap_err().code();
        assert_eq!(code("refused"), Some(Code::of(REFUSED)));
        assert_eq!(code("moved"), Some(Code::of(MOVED)));
        assert_eq!(code("gone"), Some(Code::UNNAMED));
        // Only who said that it is not the coordinator is forgotten, and who was never found.
        fetch(&mut coordinators, &mut brokers, &["gone", "0"], true);
        assert_eq!(counted(), [3, 5]);
        fetch(&mut coordinators, &mut brokers, &["moved"], true);
        assert_eq!(counted(), [4, 6]);
        fetch(&mut coordinators, &mut brokers, &["refused"], true);
        assert_eq!(counted(), [5, 6]);
    }

    #[test]
    fn a_connection_that_dies_is_the_answer_to_every_group() {
        let port = listen_to(|_, _, _| None);
        let mut brokers = Brokers::new(vec![("127.0.0.1".to_owned(), port)], plaintext());
        let found = fetch(&mut Coordinators::default(), &mut brokers, &["a", "b", "c"], false);
        assert_eq!(found.len(), 3);
        assert!(found.values().all(|offsets| offsets.as_ref().is_err_and(KafkaError::is_retriable)), "{found:?}");
        let is_connection_error = |offsets: &Result<_>| matches!(offsets, Err(KafkaError::Connection { .. }));
        assert_eq!(found.values().filter(|offsets| is_connection_error(offsets)).count(), 1, "{found:?}");
    }
}
