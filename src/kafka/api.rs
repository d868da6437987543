//! The requests that are made, each with the versions of it that are spoken and the schema of its response.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, EndTxnRequest, FetchRequest,
    FindCoordinatorRequest, InitProducerIdRequest, ListGroupsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::{Decodable, Request};

use super::schema::Field::{Array, Fixed, Numbers, OldTexts, Since, Struct, Text, Until};
use super::schema::{ResponseSchema, of, tagged};

/// A request with its versions, and the check of its response.
pub(crate) trait ApiRequest: Request {
    /// The oldest and the newest version of it that is spoken.
    const SPOKEN: (i16, i16);
    /// What its response looks like: walked before it is decoded.
    const RESPONSE: ResponseSchema;
}

/// What stands before the answers to requests that know tags: the correlation id.
const HEADER: ResponseSchema = of(&[Fixed(4)]);
const NODE: ResponseSchema = of(&[Fixed(4), Text, Fixed(4), Text]);
const LEADER: ResponseSchema = of(&[Fixed(4 + 4)]);
const EPOCH_AND_OFFSET: ResponseSchema = of(&[Fixed(4 + 8)]);
const FEATURE: ResponseSchema = of(&[Text, Fixed(2 + 2)]);
/// What became of each partition's offset.
const COMMITTED: ResponseSchema = of(&[Fixed(4), Array(&of(&[Text, Array(&of(&[Fixed(4 + 2)]))]))]);

macro_rules! requests {
    ($($request:ty, $min:literal to $max:literal => $schema:expr),+ $(,)?) => {
        $(impl ApiRequest for $request {
            const SPOKEN: (i16, i16) = ($min, $max);
            const RESPONSE: ResponseSchema = $schema;
        })+

        /// Reads a response as the bridge does, to the request of that key; `version` counts from the oldest one that
        /// is spoken. For fuzzing.
        #[cfg(fuzzing)]
        pub fn decode_answer(api_key: i16, version: i16, answer: &[u8]) {
            let _ = check_header(answer);
            let mut answer = Bytes::copy_from_slice(answer);
            $(if api_key == <$request>::KEY {
                let (oldest, newest) = <$request>::SPOKEN;
                let _ = decode::<$request>(&mut answer, (oldest + version).min(newest));
            })+
        }
    };
}

// Newest: what kafka-protocol encodes and a broker was seen to take. Oldest: what transactions of version 2 need, or
// the first that carries the fields used here. Produce 9 to 11 is for at-least-once alone: a cluster with those
// transactions has 12.
requests! {
    ApiVersionsRequest, 3 to 3 => tagged(
        &[Fixed(2), Array(&of(&[Fixed(2 + 2 + 2)])), Fixed(4)],
        &[(0, Array(&FEATURE)), (1, Fixed(8)), (2, Array(&FEATURE)), (3, Fixed(1))],
    ),
    SaslHandshakeRequest, 1 to 1 => ResponseSchema { fields: &[Fixed(2), OldTexts], tagged: None },
    SaslAuthenticateRequest, 2 to 2 => of(&[Fixed(2), Text, Text, Fixed(8)]),
    MetadataRequest, 12 to 12 => of(&[
        Fixed(4),
        Array(&NODE),
        Text,
        Fixed(4),
        Array(&of(&[
            Fixed(2),
            Text,
            Fixed(16 + 1),
            Array(&of(&[Fixed(2 + 4 + 4 + 4), Numbers(4), Numbers(4), Numbers(4)])),
            Fixed(4),
        ])),
    ]),
    FindCoordinatorRequest, 4 to 6 => of(&[Fixed(4), Array(&of(&[Text, Fixed(4), Text, Fixed(4 + 2), Text]))]),
    InitProducerIdRequest, 4 to 5 => of(&[Fixed(4 + 2 + 8 + 2)]),
    ProduceRequest, 9 to 13 => tagged(
        &[
            Array(&of(&[
                Until(12, &Text),
                Since(13, &Fixed(16)),
                Array(&tagged(
                    &[Fixed(4 + 2 + 8 + 8 + 8), Array(&of(&[Fixed(4), Text])), Text],
                    &[(0, Struct(&LEADER))],
                )),
            ])),
            Fixed(4),
        ],
        &[(0, Array(&NODE))],
    ),
    TxnOffsetCommitRequest, 5 to 5 => COMMITTED,
    OffsetCommitRequest, 8 to 9 => COMMITTED,
    EndTxnRequest, 5 to 5 => of(&[Fixed(4 + 2 + 8 + 2)]),
    OffsetFetchRequest, 8 to 9 => of(&[
        Fixed(4),
        Array(&of(&[
            Text,
            Array(&of(&[Text, Array(&of(&[Fixed(4 + 8 + 4), Text, Fixed(2)]))])),
            Fixed(2),
        ])),
    ]),
    ListGroupsRequest, 4 to 5 => of(&[Fixed(4 + 2), Array(&of(&[Text, Text, Text, Since(5, &Text)]))]),
    DescribeConfigsRequest, 4 to 4 => of(&[
        Fixed(4),
        Array(&of(&[
            Fixed(2),
            Text,
            Fixed(1),
            Text,
            Array(&of(&[Text, Text, Fixed(1 + 1 + 1), Array(&of(&[Text, Text, Fixed(1)])), Fixed(1), Text])),
        ])),
    ]),
    FetchRequest, 13 to 16 => tagged(
        &[
            Fixed(4 + 2 + 4),
            Array(&of(&[
                Fixed(16),
                Array(&tagged(
                    &[Fixed(4 + 2 + 8 + 8 + 8), Array(&of(&[Fixed(8 + 8)])), Fixed(4), Text],
                    &[(0, Struct(&EPOCH_AND_OFFSET)), (1, Struct(&LEADER)), (2, Struct(&EPOCH_AND_OFFSET))],
                )),
            ])),
        ],
        &[(0, Array(&NODE))],
    ),
    CreateTopicsRequest, 5 to 7 => of(&[
        Fixed(4),
        Array(&tagged(
            &[
                Text,
                Since(7, &Fixed(16)),
                Fixed(2),
                Text,
                Fixed(4 + 2),
                Array(&of(&[Text, Text, Fixed(1 + 1 + 1)])),
            ],
            &[(0, Fixed(2))],
        )),
    ]),
}

/// Decodes the response to an `R` that was sent in `version`.
pub(super) fn decode<R: ApiRequest>(response: &mut Bytes, version: i16) -> Result<R::Response, String> {
    R::RESPONSE.walk(response, version)?;
    R::Response::decode(response, version).map_err(|error| error.to_string())
}

/// Whether the header of a response that knows tags can be decoded.
pub(super) fn check_header(response: &[u8]) -> Result<(), String> {
    HEADER.walk(response, 0).map(drop)
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
    use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
    use kafka_protocol::messages::describe_configs_response::{
        DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
    };
    use kafka_protocol::messages::fetch_response::{
        AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch as FetchLeader,
        NodeEndpoint as FetchNode, PartitionData, SnapshotId,
    };
    use kafka_protocol::messages::find_coordinator_response::Coordinator;
    use kafka_protocol::messages::list_groups_response::ListedGroup;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
    use kafka_protocol::messages::offset_fetch_response::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
    };
    use kafka_protocol::messages::produce_response::{
        BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::txn_offset_commit_response::{
        TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
    };
    use kafka_protocol::messages::{
        ApiVersionsResponse, CreateTopicsResponse, DescribeConfigsResponse, EndTxnResponse, FetchResponse,
        FindCoordinatorResponse, GroupId, InitProducerIdResponse, ListGroupsResponse, MetadataResponse,
        OffsetCommitResponse, OffsetFetchResponse, ProduceResponse, SaslAuthenticateResponse, SaslHandshakeResponse,
        TopicName, TxnOffsetCommitResponse,
    };
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::super::schema::STRUCTURE_BYTES_MAX;
    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn topic(name: &'static str) -> TopicName {
        TopicName(text(name))
    }

    /// The answer walks to its very end and is decoded, and no part of it is; and wherever the largest number stands in
    /// it, no room is made for what is not there.
    fn holds<R: ApiRequest>(answer: &R::Response, (first, last): (i16, i16))
    where
        R::Response: Encodable,
    {
        for version in first..=last {
            let mut bytes = BytesMut::new();
            answer.encode(&mut bytes, version).unwrap();
            let bytes = bytes.freeze();
            let left = R::RESPONSE.walk(&bytes, version).unwrap();
            assert_eq!(left, 0, "version {version} of {}: bytes are left", R::KEY);
            decode::<R>(&mut bytes.clone(), version).unwrap();
            for len in 0..bytes.len() {
                assert!(decode::<R>(&mut bytes.slice(..len), version).is_err(), "{len} bytes of {}", R::KEY);
            }
            for at in 0..bytes.len() {
                let mut damaged = bytes[..at].to_vec();
                damaged.extend([0xFF, 0xFF, 0xFF, 0xFF, 0x0F]);
                damaged.extend(bytes.iter().skip(at + 5));
                let _ = decode::<R>(&mut Bytes::from(damaged), version);
            }
        }
    }

    fn spoken<R: ApiRequest>(answer: &R::Response)
    where
        R::Response: Encodable,
    {
        holds::<R>(answer, R::SPOKEN);
    }

    #[test]
    fn every_answer_has_the_schema_that_the_codec_gives_it() {
        spoken::<ApiVersionsRequest>(
            &ApiVersionsResponse::default()
                .with_api_keys(vec![ApiVersion::default(); 3])
                .with_supported_features(vec![SupportedFeatureKey::default().with_name(text("f"))])
                .with_finalized_features_epoch(7)
                .with_finalized_features(vec![FinalizedFeatureKey::default().with_name(text("transaction.version"))])
                .with_zk_migration_ready(true),
        );
        spoken::<SaslHandshakeRequest>(
            &SaslHandshakeResponse::default().with_mechanisms(vec![text("PLAIN"), text("OAUTHBEARER")]),
        );
        spoken::<SaslAuthenticateRequest>(
            &SaslAuthenticateResponse::default()
                .with_error_message(Some(text("no")))
                .with_auth_bytes(Bytes::from_static(b"said")),
        );
        let partition = MetadataResponsePartition::default()
            .with_replica_nodes(vec![1.into(), 2.into()])
            .with_isr_nodes(vec![1.into()])
            .with_offline_replicas(vec![2.into()]);
        spoken::<MetadataRequest>(
            &MetadataResponse::default()
                .with_brokers(vec![MetadataResponseBroker::default().with_host(text("h")).with_rack(Some(text("r")))])
                .with_cluster_id(Some(text("cluster")))
                .with_topics(vec![
                    MetadataResponseTopic::default()
                        .with_name(Some(topic("t")))
                        .with_partitions(vec![partition.clone(), partition]),
                ]),
        );
        spoken::<FindCoordinatorRequest>(&FindCoordinatorResponse::default().with_coordinators(vec![
            Coordinator::default().with_key(text("k")).with_host(text("h")).with_error_message(Some(text("w"))),
        ]));
        spoken::<InitProducerIdRequest>(&InitProducerIdResponse::default());
        spoken::<EndTxnRequest>(&EndTxnResponse::default());
    }

    #[test]
    fn every_answer_about_records_has_the_schema_that_the_codec_gives_it() {
        let node = NodeEndpoint::default().with_host(text("h"));
        let partition = PartitionProduceResponse::default()
            .with_record_errors(vec![BatchIndexAndErrorMessage::default()])
            .with_error_message(Some(text("words")));
        let led = partition.clone().with_current_leader(LeaderIdAndEpoch::default().with_leader_id(1.into()));
        let topics = |partition| {
            let topic = TopicProduceResponse::default().with_name(topic("t"));
            vec![topic.with_partition_responses(vec![partition])]
        };
        holds::<ProduceRequest>(&ProduceResponse::default().with_responses(topics(partition)), (9, 9));
        let answer =
            ProduceResponse::default().with_responses(topics(led.clone())).with_node_endpoints(vec![node.clone()]);
        holds::<ProduceRequest>(&answer, (10, 12));
        let by_id = TopicProduceResponse::default().with_topic_id(uuid::Uuid::from_u128(7));
        let by_id = by_id.with_partition_responses(vec![led]);
        holds::<ProduceRequest>(
            &ProduceResponse::default().with_responses(vec![by_id]).with_node_endpoints(vec![node]),
            (13, 13),
        );
        let data = PartitionData::default()
            .with_aborted_transactions(Some(vec![AbortedTransaction::default()]))
            .with_diverging_epoch(EpochEndOffset::default().with_epoch(1))
            .with_current_leader(FetchLeader::default().with_leader_id(1.into()))
            .with_snapshot_id(SnapshotId::default().with_epoch(1))
            .with_records(Some(Bytes::from_static(b"records")));
        let topics = vec![FetchableTopicResponse::default().with_partitions(vec![data])];
        let answer = FetchResponse::default().with_responses(topics);
        holds::<FetchRequest>(&answer, (13, 15));
        holds::<FetchRequest>(&answer.with_node_endpoints(vec![FetchNode::default().with_host(text("h"))]), (16, 16));
    }

    #[test]
    fn every_answer_about_positions_and_rules_has_the_schema_that_the_codec_gives_it() {
        let partitions = vec![TxnOffsetCommitResponsePartition::default(); 2];
        spoken::<TxnOffsetCommitRequest>(&TxnOffsetCommitResponse::default().with_topics(vec![
            TxnOffsetCommitResponseTopic::default().with_name(topic("t")).with_partitions(partitions),
        ]));
        let partitions = vec![OffsetCommitResponsePartition::default(); 2];
        spoken::<OffsetCommitRequest>(
            &OffsetCommitResponse::default().with_topics(vec![
                OffsetCommitResponseTopic::default().with_name(topic("t")).with_partitions(partitions),
            ]),
        );
        let partition = OffsetFetchResponsePartitions::default().with_metadata(Some(text("edgelog/1")));
        let topics = OffsetFetchResponseTopics::default().with_name(topic("t")).with_partitions(vec![partition]);
        spoken::<OffsetFetchRequest>(
            &OffsetFetchResponse::default()
                .with_groups(vec![OffsetFetchResponseGroup::default().with_topics(vec![topics])]),
        );
        let group =
            ListedGroup::default().with_group_id(GroupId(text("edgelog:d:t-0"))).with_group_state(text("Empty"));
        spoken::<ListGroupsRequest>(&ListGroupsResponse::default().with_groups(vec![group]));
        let synonym = DescribeConfigsSynonym::default().with_name(text("n")).with_value(Some(text("v")));
        let config =
            DescribeConfigsResourceResult::default().with_name(text("retention.ms")).with_synonyms(vec![synonym]);
        spoken::<DescribeConfigsRequest>(
            &DescribeConfigsResponse::default()
                .with_results(vec![DescribeConfigsResult::default().with_configs(vec![config.clone(), config])]),
        );
        let config = CreatableTopicConfigs::default().with_name(text("n")).with_value(Some(text("v")));
        let made = CreatableTopicResult::default()
            .with_name(topic("t"))
            .with_configs(Some(vec![config]))
            .with_topic_config_error_code(29);
        spoken::<CreateTopicsRequest>(&CreateTopicsResponse::default().with_topics(vec![made]));
    }

    #[test]
    fn a_length_that_nothing_stands_behind_is_an_error_and_no_allocation() {
        // No throttling; then 2^32 - 2 brokers, each of which would take some hundred bytes.
        let brokers = Bytes::from_static(&[0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0, 0, 0, 1]);
        assert!(decode::<MetadataRequest>(&mut brokers.clone(), 12).is_err());
        let mechanisms = Bytes::from_static(&[0, 0, 0x7F, 0xFF, 0xFF, 0xFF]);
        assert!(decode::<SaslHandshakeRequest>(&mut mechanisms.clone(), 1).is_err());
        // A known tag whose array is longer than its own length, and a number that never ends.
        let features = Bytes::from_static(&[0, 0, 1, 0, 0, 0, 0, 1, 2, 1, 9]);
        assert!(decode::<ApiVersionsRequest>(&mut features.clone(), 3).is_err());
        let endless = Bytes::from_static(&[0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert!(decode::<ApiVersionsRequest>(&mut endless.clone(), 3).is_err());
    }

    #[test]
    fn what_is_not_text_is_bounded_and_tags_of_tomorrow_are_skipped() {
        let apis = |count: usize| {
            let mut bytes = BytesMut::from(&[0, 0][..]);
            let mut len = count + 1;
            while len > 0x7F {
                bytes.put_u8(len as u8 | 0x80);
                len >>= 7;
            }
            bytes.put_u8(len as u8);
            (0..count).for_each(|_| bytes.put_slice(&[0, 1, 0, 0, 0, 3, 0]));
            // No throttling; a tag that is not known, with three bytes.
            bytes.put_slice(&[0, 0, 0, 0, 1, 99, 3, 1, 2, 3]);
            bytes.freeze()
        };
        let many = STRUCTURE_BYTES_MAX / 7;
        assert_eq!(decode::<ApiVersionsRequest>(&mut apis(many - 10), 3).unwrap().api_keys.len(), many - 10);
        let said = decode::<ApiVersionsRequest>(&mut apis(many + 10), 3).unwrap_err();
        assert!(said.contains("next to text and records"), "{said}");
        assert!(check_header(&[0, 0, 0, 7, 1, 99, 1, 0]).is_ok());
        assert!(check_header(&[0, 0, 0, 7, 1, 99, 2, 0]).is_err());
    }
}
