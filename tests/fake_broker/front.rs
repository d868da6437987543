//! What stands between the bridge and krafka's FakeBroker, and speaks the versions of requests that FakeBroker lacks:
//! FindCoordinator 4 for its 2, OffsetFetch 8 for its 5, and DescribeConfigs 4, of which it has none: topics have the
//! rules that are set here. Everything else goes through as it is. It also cuts answers in halves, refuses records as
//! the leader of a compacted topic does, and knows no topics for a while, which FakeBroker does not.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::{BufMut, Bytes, BytesMut};
use edgelog::edgelog_core::RecordBatch;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, DescribeConfigsRequest, DescribeConfigsResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, MetadataRequest, MetadataResponse, OffsetFetchRequest, OffsetFetchResponse,
    ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// A listener in front of one FakeBroker.
pub struct Front {
    pub address: SocketAddr,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct Faults {
    /// The next answer to a request of this key is cut in the middle.
    halved: Option<i16>,
    /// The next answer to a request of this key is made of these bytes, behind its header.
    forged: Option<(i16, Vec<u8>)>,
    /// So many answers to Metadata know no topic.
    forgetful: usize,
    /// What each topic's configuration says.
    rules: HashMap<String, Vec<(String, String)>>,
    /// The topic that takes no record without a key, and whether a refusal names the records.
    keyed: Option<(String, bool)>,
    done: usize,
}

/// What is said of the other partitions that a refused Produce is for.
const NOT_YET: i16 = 5;
const INVALID_RECORD: i16 = 87;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

impl Front {
    pub fn of(broker: SocketAddr) -> Front {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("it listens");
        let faults = Arc::<Mutex<Faults>>::default();
        let shared = faults.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(broker) = TcpStream::connect(broker) else { continue };
                let faults = shared.clone();
                // An end that is gone ends the other.
                thread::spawn(move || Pair { client, broker, address, faults }.carry());
            }
        });
        Front { address, faults }
    }

    pub fn halve(&self, key: i16) {
        self.faults.lock().unwrap().halved = Some(key);
    }

    pub fn forge(&self, key: i16, body: &[u8]) {
        self.faults.lock().unwrap().forged = Some((key, body.to_vec()));
    }

    /// The next so many answers to Metadata know no topic, as those of a broker that was just started.
    pub fn forget_topics(&self, answers: usize) {
        self.faults.lock().unwrap().forgetful = answers;
    }

    /// Lets a topic's configuration say so.
    pub fn set_rule(&self, topic: &str, key: &str, value: &str) {
        let mut faults = self.faults.lock().unwrap();
        faults.rules.entry(topic.to_owned()).or_default().push((key.to_owned(), value.to_owned()));
    }

    /// Refuses batches for this topic with a record without a key, and names these records, or does not.
    pub fn refuse_without_key(&self, topic: &str, names: bool) {
        self.faults.lock().unwrap().keyed = Some((topic.to_owned(), names));
    }

    /// How many answers were cut or forged, and batches refused.
    pub fn done(&self) -> usize {
        self.faults.lock().unwrap().done
    }
}

/// One connection and what it is carried on by.
struct Pair {
    client: TcpStream,
    broker: TcpStream,
    address: SocketAddr,
    faults: Arc<Mutex<Faults>>,
}

impl Pair {
    fn carry(mut self) -> io::Result<()> {
        loop {
            let frame = read_frame(&mut self.client)?;
            let key = i16::from_be_bytes([frame[0], frame[1]]);
            let version = i16::from_be_bytes([frame[2], frame[3]]);
            let answer = match key {
                ApiVersionsRequest::KEY => self.versions(&frame, version)?,
                MetadataRequest::KEY => self.metadata(&frame, version)?,
                FindCoordinatorRequest::KEY => self.coordinator(&frame, version)?,
                OffsetFetchRequest::KEY => self.positions(&frame, version)?,
                DescribeConfigsRequest::KEY => self.rules(&frame, version),
                ProduceRequest::KEY => match self.refusal(&frame, version) {
                    Some(refusal) => refusal,
                    None => self.pass(&frame)?,
                },
                _ => self.pass(&frame)?,
            };
            let mut faults = self.faults.lock().unwrap();
            if faults.halved == Some(key) {
                (faults.halved, faults.done) = (None, faults.done + 1);
                let mut whole = (answer.len() as u32).to_be_bytes().to_vec();
                whole.extend_from_slice(&answer);
                return self.client.write_all(&whole[..whole.len() / 2]);
            }
            if let Some((_, body)) = faults.forged.take_if(|(forged, _)| *forged == key) {
                faults.done += 1;
                // The correlation id; and no tags, but for the one answer whose header has none.
                let mut forged = answer[..4].to_vec();
                if key != ApiVersionsRequest::KEY {
                    forged.push(0);
                }
                forged.extend(body);
                write_frame(&mut self.client, &forged)?;
                continue;
            }
            drop(faults);
            write_frame(&mut self.client, &answer)?;
        }
    }

    fn pass(&mut self, frame: &[u8]) -> io::Result<Bytes> {
        write_frame(&mut self.broker, frame)?;
        read_frame(&mut self.broker)
    }

    fn versions(&mut self, frame: &[u8], version: i16) -> io::Result<Bytes> {
        let mut answer = self.pass(frame)?;
        // What refuses the version, in version 0.
        if answer[4..6] == [0, 35] {
            return Ok(answer);
        }
        let (header, mut said) = decode::<ApiVersionsResponse>(&mut answer, version);
        for (key, spoken) in
            [(FindCoordinatorRequest::KEY, 4), (OffsetFetchRequest::KEY, 8), (DescribeConfigsRequest::KEY, 4)]
        {
            said.api_keys.retain(|api| api.api_key != key);
            let api = ApiVersion::default().with_api_key(key).with_min_version(spoken).with_max_version(spoken);
            said.api_keys.push(api);
        }
        Ok(encode(&header, &said, version))
    }

    fn metadata(&mut self, frame: &[u8], version: i16) -> io::Result<Bytes> {
        let mut answer = self.pass(frame)?;
        let (header, mut said) = decode::<MetadataResponse>(&mut answer, version);
        for broker in &mut said.brokers {
            broker.host = StrBytes::from_string(self.address.ip().to_string());
            broker.port = i32::from(self.address.port());
        }
        let mut faults = self.faults.lock().unwrap();
        if faults.forgetful > 0 && !said.topics.is_empty() {
            (faults.forgetful, faults.done) = (faults.forgetful - 1, faults.done + 1);
            for topic in &mut said.topics {
                topic.error_code = UNKNOWN_TOPIC_OR_PARTITION;
                topic.partitions.clear();
            }
        }
        drop(faults);
        Ok(encode(&header, &said, version))
    }

    fn coordinator(&mut self, frame: &[u8], version: i16) -> io::Result<Bytes> {
        let (header, asked) = decode_request::<FindCoordinatorRequest>(frame, version);
        let mut coordinators = Vec::new();
        let mut answered = ResponseHeader::default().with_correlation_id(header.correlation_id);
        for key in asked.coordinator_keys {
            let older = FindCoordinatorRequest::default().with_key(key.clone()).with_key_type(asked.key_type);
            let found;
            (answered, found) = self.ask(&header, &older, 2)?;
            coordinators.push(
                Coordinator::default()
                    .with_key(key)
                    .with_node_id(found.node_id)
                    .with_host(StrBytes::from_string(self.address.ip().to_string()))
                    .with_port(i32::from(self.address.port()))
                    .with_error_code(found.error_code)
                    .with_error_message(found.error_message),
            );
        }
        let answer = FindCoordinatorResponse::default().with_coordinators(coordinators);
        Ok(encode(&answered, &answer, version))
    }

    fn positions(&mut self, frame: &[u8], version: i16) -> io::Result<Bytes> {
        let (header, asked) = decode_request::<OffsetFetchRequest>(frame, version);
        let mut groups = Vec::new();
        let mut answered = ResponseHeader::default().with_correlation_id(header.correlation_id);
        for group in asked.groups {
            let topic = |topic: kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics| {
                OffsetFetchRequestTopic::default().with_name(topic.name).with_partition_indexes(topic.partition_indexes)
            };
            let topics = group.topics.map(|topics| topics.into_iter().map(topic).collect());
            let older = OffsetFetchRequest::default().with_group_id(group.group_id.clone()).with_topics(topics);
            let found;
            (answered, found) = self.ask(&header, &older, 5)?;
            let topics = found.topics.into_iter().map(|topic| {
                let partitions = topic.partitions.into_iter().map(|partition| {
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(partition.partition_index)
                        .with_committed_offset(partition.committed_offset)
                        .with_committed_leader_epoch(partition.committed_leader_epoch)
                        .with_metadata(partition.metadata)
                        .with_error_code(partition.error_code)
                });
                OffsetFetchResponseTopics::default().with_name(topic.name).with_partitions(partitions.collect())
            });
            groups.push(
                OffsetFetchResponseGroup::default()
                    .with_group_id(group.group_id)
                    .with_topics(topics.collect())
                    .with_error_code(found.error_code),
            );
        }
        Ok(encode(&answered, &OffsetFetchResponse::default().with_groups(groups), version))
    }

    /// The same in an older version.
    fn ask<R: Request>(
        &mut self,
        header: &RequestHeader,
        request: &R,
        version: i16,
    ) -> io::Result<(ResponseHeader, R::Response)> {
        let mut frame = BytesMut::new();
        let header = header.clone().with_request_api_version(version);
        header.encode(&mut frame, R::header_version(version)).expect("it fits");
        request.encode(&mut frame, version).expect("it fits");
        let mut answer = self.pass(&frame)?;
        Ok(decode(&mut answer, version))
    }

    fn rules(&self, frame: &[u8], version: i16) -> Bytes {
        let (header, asked) = decode_request::<DescribeConfigsRequest>(frame, version);
        let faults = self.faults.lock().unwrap();
        let results = asked.resources.into_iter().map(|resource| {
            let rules = faults.rules.get(&*resource.resource_name).into_iter().flatten();
            let configs = rules.map(|(key, value)| {
                DescribeConfigsResourceResult::default()
                    .with_name(StrBytes::from_string(key.clone()))
                    .with_value(Some(StrBytes::from_string(value.clone())))
            });
            DescribeConfigsResult::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
                .with_configs(configs.collect())
        });
        let header = ResponseHeader::default().with_correlation_id(header.correlation_id);
        encode(&header, &DescribeConfigsResponse::default().with_results(results.collect()), version)
    }

    /// What the leader of a compacted topic answers to a batch with records without a key; `None` where all have one.
    fn refusal(&self, frame: &[u8], version: i16) -> Option<Bytes> {
        let mut faults = self.faults.lock().unwrap();
        let (keyed, names) = faults.keyed.clone()?;
        let (header, asked) = decode_request::<ProduceRequest>(frame, version);
        let mut is_refused = false;
        let topics: Vec<_> = asked
            .topic_data
            .into_iter()
            .map(|topic| {
                let partitions = topic.partition_data.iter().map(|partition| {
                    let records = partition.records.as_deref().filter(|_| *topic.name.0 == *keyed);
                    let without_key = records.map(without_key).unwrap_or_default();
                    is_refused |= !without_key.is_empty();
                    let code = if without_key.is_empty() { NOT_YET } else { INVALID_RECORD };
                    let named = without_key.into_iter().filter(|_| names).map(|index| {
                        BatchIndexAndErrorMessage::default()
                            .with_batch_index(index)
                            .with_batch_index_error_message(Some(StrBytes::from_static_str("it has no key")))
                    });
                    PartitionProduceResponse::default()
                        .with_index(partition.index)
                        .with_error_code(code)
                        .with_base_offset(-1)
                        .with_record_errors(named.collect())
                        .with_error_message(Some(StrBytes::from_static_str("One or more records have been rejected")))
                });
                let partitions = partitions.collect();
                TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions)
            })
            .collect();
        faults.done += usize::from(is_refused);
        let header = ResponseHeader::default().with_correlation_id(header.correlation_id);
        is_refused.then(|| encode(&header, &ProduceResponse::default().with_responses(topics), version))
    }
}

/// The records of a batch that have no key, by their indexes.
fn without_key(batch: &[u8]) -> Vec<i32> {
    let batch = RecordBatch::parse(batch).expect("the bridge made it");
    let records = batch.records().expect("it is not compressed");
    let found = records.enumerate().filter(|(_, record)| record.as_ref().is_ok_and(|record| record.key.is_none()));
    found.map(|(index, _)| index as i32).collect()
}

fn decode_request<R: Request>(frame: &[u8], version: i16) -> (RequestHeader, R) {
    let mut bytes = Bytes::copy_from_slice(frame);
    let header = RequestHeader::decode(&mut bytes, R::header_version(version)).expect("the bridge made it");
    (header, R::decode(&mut bytes, version).expect("the bridge made it"))
}

fn decode<A: Decodable + HeaderVersion>(answer: &mut Bytes, version: i16) -> (ResponseHeader, A) {
    let header = ResponseHeader::decode(answer, A::header_version(version)).expect("FakeBroker made it");
    (header, A::decode(answer, version).expect("FakeBroker made it"))
}

fn encode<A: Encodable + HeaderVersion>(header: &ResponseHeader, answer: &A, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes, A::header_version(version)).expect("it fits");
    answer.encode(&mut bytes, version).expect("it fits");
    bytes.freeze()
}

fn read_frame(from: &mut TcpStream) -> io::Result<Bytes> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    from.read_exact(&mut frame)?;
    Ok(frame.into())
}

fn write_frame(to: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let mut whole = BytesMut::with_capacity(frame.len() + 4);
    whole.put_u32(frame.len() as u32);
    whole.put_slice(frame);
    to.write_all(&whole)
}
