//! The shape of each answer that the bridge reads: walked before anything is decoded.
//!
//! The codec makes room for as many elements as the length of an array says, before it reads the first of them. A
//! length that is wrong would ask for terabytes, and memory that is not there ends the whole program: no error, no
//! unwinding. So nothing is decoded whose every length was not seen to be covered by bytes that are there.
//!
//! The shapes are those of the versions that are spoken; a tag that none of them knows is skipped by its length.

use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, EndTxnRequest, FetchRequest,
    FindCoordinatorRequest, InitProducerIdRequest, ListGroupsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest, TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::{Decodable, Request};

/// What an answer may hold beside text and records: each byte of it becomes some 20 in memory. Enough for 20,000
/// partitions in the topics of one device.
const STRUCTURE_BYTES_MAX: usize = 1 << 20;

/// A request whose answer can be walked.
pub(super) trait Answered: Request {
    const ANSWER: Shape;
}

/// A request that the bridge makes, with the versions of it that it can speak.
pub(super) trait Speaks: Answered {
    /// Oldest and newest.
    const SPOKEN: (i16, i16);
}

/// Fields in their order, then those with tags.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    fields: &'static [Field],
    /// `None` where the message is of the time before tags.
    tagged: Option<&'static [(u32, Field)]>,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    /// So many bytes.
    Fixed(usize),
    /// A compact string, compact bytes, or records: a length, and that many bytes.
    Text,
    /// A compact array.
    Array(&'static Shape),
    /// A compact array of values of so many bytes each.
    Numbers(usize),
    Struct(&'static Shape),
    /// Only up to this version, and only from this one on.
    Until(i16, &'static Field),
    Since(i16, &'static Field),
    /// An array of strings, both of the time before compact ones.
    OldTexts,
}

use Field::{Array, Fixed, Numbers, OldTexts, Since, Struct, Text, Until};

const fn of(fields: &'static [Field]) -> Shape {
    Shape { fields, tagged: Some(&[]) }
}

const fn tagged(fields: &'static [Field], tagged: &'static [(u32, Field)]) -> Shape {
    Shape { fields, tagged: Some(tagged) }
}

/// What stands before the answers to requests that know tags: the correlation id.
const HEADER: Shape = of(&[Fixed(4)]);
const NODE: Shape = of(&[Fixed(4), Text, Fixed(4), Text]);
const LEADER: Shape = of(&[Fixed(4 + 4)]);
const EPOCH_AND_OFFSET: Shape = of(&[Fixed(4 + 8)]);
const FEATURE: Shape = of(&[Text, Fixed(2 + 2)]);
/// What became of each partition's offset.
const COMMITTED: Shape = of(&[Fixed(4), Array(&of(&[Text, Array(&of(&[Fixed(4 + 2)]))]))]);

macro_rules! answered {
    ($($request:ty: $shape:expr),+ $(,)?) => {
        $(impl Answered for $request { const ANSWER: Shape = $shape; })+

        /// Reads an answer as the bridge does, to the request of that key; `version` counts from the oldest one that is
        /// spoken. For fuzzing.
        #[cfg(fuzzing)]
        pub fn decode_answer(api_key: i16, version: i16, answer: &[u8]) {
            let _ = check_header(answer);
            let mut answer = bytes::Bytes::copy_from_slice(answer);
            $(if api_key == <$request>::KEY {
                let (oldest, newest) = <$request>::SPOKEN;
                let _ = decode::<$request>(&mut answer, (oldest + version).min(newest));
            })+
        }
    };
}

answered! {
    ApiVersionsRequest: tagged(
        &[Fixed(2), Array(&of(&[Fixed(2 + 2 + 2)])), Fixed(4)],
        &[(0, Array(&FEATURE)), (1, Fixed(8)), (2, Array(&FEATURE)), (3, Fixed(1))],
    ),
    SaslHandshakeRequest: Shape { fields: &[Fixed(2), OldTexts], tagged: None },
    SaslAuthenticateRequest: of(&[Fixed(2), Text, Text, Fixed(8)]),
    MetadataRequest: of(&[
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
    FindCoordinatorRequest: of(&[Fixed(4), Array(&of(&[Text, Fixed(4), Text, Fixed(4 + 2), Text]))]),
    InitProducerIdRequest: of(&[Fixed(4 + 2 + 8 + 2)]),
    ProduceRequest: tagged(
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
    TxnOffsetCommitRequest: COMMITTED,
    OffsetCommitRequest: COMMITTED,
    EndTxnRequest: of(&[Fixed(4 + 2 + 8 + 2)]),
    OffsetFetchRequest: of(&[
        Fixed(4),
        Array(&of(&[
            Text,
            Array(&of(&[Text, Array(&of(&[Fixed(4 + 8 + 4), Text, Fixed(2)]))])),
            Fixed(2),
        ])),
    ]),
    ListGroupsRequest: of(&[Fixed(4 + 2), Array(&of(&[Text, Text, Text, Since(5, &Text)]))]),
    DescribeConfigsRequest: of(&[
        Fixed(4),
        Array(&of(&[
            Fixed(2),
            Text,
            Fixed(1),
            Text,
            Array(&of(&[Text, Text, Fixed(1 + 1 + 1), Array(&of(&[Text, Text, Fixed(1)])), Fixed(1), Text])),
        ])),
    ]),
    FetchRequest: tagged(
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
    CreateTopicsRequest: of(&[
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

/// Decodes the answer to an `R` that was asked in `version`.
pub(super) fn decode<R: Answered>(answer: &mut bytes::Bytes, version: i16) -> Result<R::Response, String> {
    Walk::begin(answer, version).shape(&R::ANSWER)?;
    R::Response::decode(answer, version).map_err(|error| error.to_string())
}

/// Whether the header of an answer that knows tags can be decoded.
pub(super) fn check_header(answer: &[u8]) -> Result<(), String> {
    Walk::begin(answer, 0).shape(&HEADER)
}

struct Walk<'a> {
    left: &'a [u8],
    version: i16,
    structure_left: usize,
}

impl<'a> Walk<'a> {
    fn begin(answer: &'a [u8], version: i16) -> Walk<'a> {
        Walk { left: answer, version, structure_left: STRUCTURE_BYTES_MAX }
    }

    fn shape(&mut self, shape: &Shape) -> Result<(), String> {
        shape.fields.iter().try_for_each(|field| self.field(field))?;
        let Some(known) = shape.tagged else { return Ok(()) };
        for _ in 0..self.varint()? {
            let (tag, len) = (self.varint()?, self.varint()?);
            let Some((_, field)) = known.iter().find(|(known, _)| *known == tag) else {
                self.skip(len as usize)?;
                continue;
            };
            let before = self.left.len();
            self.field(field)?;
            let taken = before - self.left.len();
            if taken != len as usize {
                return Err(format!("tag {tag} takes {taken} bytes and says {len}"));
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field) -> Result<(), String> {
        match *field {
            Fixed(len) => self.structure(len).map(drop),
            Text => match self.varint()? {
                0 => Ok(()),
                len => self.skip(len as usize - 1),
            },
            Array(element) => (1..self.varint()?).try_for_each(|_| self.shape(element)),
            Numbers(len) => (1..self.varint()?).try_for_each(|_| self.structure(len).map(drop)),
            Struct(shape) => self.shape(shape),
            Until(last, field) if self.version <= last => self.field(field),
            Since(first, field) if self.version >= first => self.field(field),
            Until(..) | Since(..) => Ok(()),
            OldTexts => {
                let count = u32::from_be_bytes(self.structure(4)?.try_into().expect("four bytes"));
                (0..count).try_for_each(|_| {
                    let len = u16::from_be_bytes(self.structure(2)?.try_into().expect("two bytes"));
                    self.skip(len as usize)
                })
            }
        }
    }

    /// An unsigned number of at most 32 bits, seven to a byte.
    fn varint(&mut self) -> Result<u32, String> {
        let mut value = 0;
        for n in 0..5 {
            let byte = self.structure(1)?[0];
            value |= u32::from(byte & 0x7F) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than five bytes".to_owned())
    }

    fn structure(&mut self, len: usize) -> Result<&'a [u8], String> {
        let Some(left) = self.structure_left.checked_sub(len) else {
            return Err(format!("more than {STRUCTURE_BYTES_MAX} bytes beside text and records"));
        };
        self.structure_left = left;
        let (taken, left) = self.left.split_at_checked(len).ok_or_else(|| self.ends_before(len))?;
        self.left = left;
        Ok(taken)
    }

    /// Text and records, and tags that nobody knows.
    fn skip(&mut self, len: usize) -> Result<(), String> {
        self.left = self.left.get(len..).ok_or_else(|| self.ends_before(len))?;
        Ok(())
    }

    fn ends_before(&self, len: usize) -> String {
        format!("{len} bytes should follow where {} are left", self.left.len())
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes, BytesMut};
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

    use super::*;

    fn text(text: &'static str) -> StrBytes {
        StrBytes::from_static_str(text)
    }

    fn topic(name: &'static str) -> TopicName {
        TopicName(text(name))
    }

    /// The answer walks to its very end and is decoded, and no part of it is; and wherever the largest number stands in
    /// it, no room is made for what is not there.
    fn holds<R: Answered>(answer: &R::Response, (first, last): (i16, i16))
    where
        R::Response: Encodable,
    {
        for version in first..=last {
            let mut bytes = BytesMut::new();
            answer.encode(&mut bytes, version).unwrap();
            let bytes = bytes.freeze();
            let mut walk = Walk::begin(&bytes, version);
            walk.shape(&R::ANSWER).unwrap();
            assert!(walk.left.is_empty(), "version {version} of {}: {} bytes left", R::KEY, walk.left.len());
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

    fn spoken<R: Speaks>(answer: &R::Response)
    where
        R::Response: Encodable,
    {
        holds::<R>(answer, R::SPOKEN);
    }

    #[test]
    fn every_answer_has_the_shape_that_the_codec_gives_it() {
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
    fn every_answer_about_records_has_the_shape_that_the_codec_gives_it() {
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
    fn every_answer_about_positions_and_rules_has_the_shape_that_the_codec_gives_it() {
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
            // No throttling; a tag that nobody knows, with three bytes.
            bytes.put_slice(&[0, 0, 0, 0, 1, 99, 3, 1, 2, 3]);
            bytes.freeze()
        };
        let many = STRUCTURE_BYTES_MAX / 7;
        assert_eq!(decode::<ApiVersionsRequest>(&mut apis(many - 10), 3).unwrap().api_keys.len(), many - 10);
        let told = decode::<ApiVersionsRequest>(&mut apis(many + 10), 3).unwrap_err();
        assert!(told.contains("beside text and records"), "{told}");
        assert!(check_header(&[0, 0, 0, 7, 1, 99, 1, 0]).is_ok());
        assert!(check_header(&[0, 0, 0, 7, 1, 99, 2, 0]).is_err());
    }
}
