//! A cluster: its topics and who leads them, its brokers, and its coordinators.

use std::collections::HashMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::api::ApiRequest;
use super::brokers::{Brokers, Role};
use super::connection::Transport;
use super::coordinator::{CoordinatorKey, CoordinatorRequest, Coordinators};
use super::error::{KafkaError, Result, check, keep_worse};
use super::error_code::Code;
use super::group_offsets::{self, GroupOffset};
use super::link::{IN_FLIGHT_MAX, LinkEstimator};
use super::stop::StopHandle;

/// The transactions of exactly-once delivery are those of this feature level (KIP-890).
const TRANSACTION_VERSION_MIN: i16 = 2;

/// Whether it is of the form that Kafka makes: nothing else is written down or shown.
pub(crate) fn is_cluster_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// A topic of the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct RemoteTopic {
    pub(crate) id: Uuid,
    /// Leader of each partition; -1 where there is none now.
    pub(crate) leaders: Vec<i32>,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    brokers: Brokers,
    coordinators: Coordinators,
    /// The id that the cluster has given itself.
    id: Option<String>,
}

impl Cluster {
    pub(crate) fn new(bootstrap: Vec<(String, u16)>, transport: Transport) -> Cluster {
        Cluster { brokers: Brokers::new(bootstrap, transport), coordinators: Coordinators::default(), id: None }
    }

    /// The id that the cluster has given itself, once it was asked for topics.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(crate) fn stop(&self) -> &StopHandle {
        self.brokers.stop()
    }

    pub(crate) fn link(&self) -> &LinkEstimator {
        self.brokers.link()
    }

    /// The topics that exist among those named, with their leaders, and who may not be asked about. Asks any broker:
    /// one that is connected, one that is known, and then those of `bootstrap.servers`.
    pub(crate) fn topics(&mut self, names: &[&str]) -> Result<HashMap<String, Result<RemoteTopic>>> {
        let topics = names.iter().map(|name| {
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string((*name).to_owned()))))
        });
        // Topics are created by people: what a mistyped name creates is there for good.
        let request =
            MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(false);
        let answer = self.ask_any(&request)?;
        if answer.error_code != 0 {
            return Err(KafkaError::broker("Metadata", Code(answer.error_code), None));
        }
        if answer.brokers.is_empty() {
            let none = Code::of(ResponseError::BrokerNotAvailable);
            return Err(KafkaError::broker("Metadata", none, Some("no broker is available")));
        }
        let address = |host: &StrBytes, port: i32| Some((host.to_string(), u16::try_from(port).ok()?));
        let brokers = answer.brokers.iter();
        let addresses = brokers.filter_map(|broker| Some((broker.node_id.0, address(&broker.host, broker.port)?)));
        self.brokers.replace(addresses.collect());
        self.id = answer.cluster_id.as_ref().map(ToString::to_string).filter(|id| is_cluster_id(id));
        let mut found = HashMap::new();
        for topic in &answer.topics {
            let Some(name) = topic.name.as_ref().map(|name| name.0.to_string()) else { continue };
            let doing = format!("looking up the topic {name}");
            let looked = check(&doing, topic.error_code);
            let described =
                looked.map_err(|error| error.needing("Write and Read", &format!("the topic {name}"))).map(|()| {
                    let mut leaders = vec![-1; topic.partitions.len()];
                    for partition in &topic.partitions {
                        let index = usize::try_from(partition.partition_index).unwrap_or(usize::MAX);
                        if let Some(leader) = leaders.get_mut(index) {
                            *leader = if partition.error_code == 0 { partition.leader_id.0 } else { -1 };
                        }
                    }
                    RemoteTopic { id: topic.topic_id, leaders }
                });
            found.insert(name, described);
        }
        Ok(found)
    }

    fn ask_any(&mut self, request: &MetadataRequest) -> Result<MetadataResponse> {
        let (mut last, mut unsupported) = (None, None);
        for node in self.brokers.candidates() {
            match self.brokers.request(node, Role::Data, request) {
                Ok(response) => return Ok(response),
                // Who is not accepted by one is accepted by none, and perhaps locked out for trying.
                Err(error @ (KafkaError::Stopped | KafkaError::Authentication { .. })) => return Err(error),
                Err(error) if error.is_retriable() => last = Some(error),
                // A controller's port among the brokers', say. Where no other one answers, that is the reason.
                Err(error @ KafkaError::Unsupported(_)) => unsupported = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.or(unsupported).expect("there is at least one bootstrap server"))
    }

    /// Refuses a cluster whose transactions are not those of KIP-890.
    pub(crate) fn check_features(&mut self) -> Result<()> {
        let Some((found, knows_2, address)) = self.brokers.transaction_version() else { return Ok(()) };
        if found >= TRANSACTION_VERSION_MIN {
            return Ok(());
        }
        let what_helps = if knows_2 {
            format!(
                "this command raises it: kafka-features.sh --bootstrap-server {address} upgrade --feature \
                 transaction.version={TRANSACTION_VERSION_MIN}"
            )
        } else {
            "this broker is older: upgrade the brokers first".to_owned()
        };
        Err(KafkaError::Unsupported(format!(
            "the cluster at {address} has transaction.version={found}, exactly-once delivery needs \
             {TRANSACTION_VERSION_MIN}; Kafka 4.0 and later have it, and {what_helps}; or set \
             edgelog.bridge.delivery=at-least-once"
        )))
    }

    /// Asks one broker, connecting first where that is needed. Drops the connection when it fails.
    pub(crate) fn request<R: ApiRequest>(&mut self, node: i32, role: Role, request: &R) -> Result<R::Response> {
        self.brokers.request(node, role, request)
    }

    /// Sends a request, connecting first where that is needed; [`receive`](Cluster::receive) gets the response, after
    /// those to earlier ones. An error loses all that is in flight there.
    pub(crate) fn send<R: ApiRequest>(&mut self, node: i32, role: Role, request: &R) -> Result<()> {
        self.brokers.send(node, role, request)
    }

    /// Waits for the response to the oldest request in flight to this broker, which was an `R`. An error loses all that
    /// is in flight there.
    pub(crate) fn receive<R: ApiRequest>(&mut self, node: i32, role: Role) -> Result<R::Response> {
        self.brokers.receive::<R>(node, role)
    }

    /// Sends each of these requests to its broker and returns what each was answered, in their order: one round trip
    /// for as many as may be in flight. Nothing else may be in flight there.
    pub(crate) fn exchange<R: ApiRequest>(&mut self, requests: &[(i32, &R)]) -> Vec<Result<R::Response>> {
        self.brokers.exchange(Role::Data, IN_FLIGHT_MAX, requests)
    }

    /// The next request to this broker in this role waits, as it asked for.
    pub(crate) fn mute(&mut self, node: i32, role: Role, throttle_time_ms: i32) {
        self.brokers.mute(node, role, throttle_time_ms);
    }

    /// Which version of a request the broker would be asked in.
    pub(crate) fn version<R: ApiRequest>(&mut self, node: i32, role: Role) -> Result<i16> {
        self.brokers.version::<R>(node, role)
    }

    /// All brokers that the cluster has named.
    pub(crate) fn nodes(&self) -> Vec<i32> {
        self.brokers.nodes()
    }

    /// Any broker: one that is connected where there is one.
    pub(crate) fn any_node(&self) -> i32 {
        self.brokers.any_node()
    }

    /// The broker that coordinates a group or a transactional id, where no broker has to be asked.
    pub(crate) fn known_coordinator(&self, key: &CoordinatorKey) -> Option<i32> {
        self.coordinators.known(key)
    }

    /// Asks the coordinator of a group or a transactional id; one that says that it is not the coordinator is looked up
    /// again and asked again, once.
    pub(crate) fn ask_coordinator<R: CoordinatorRequest>(
        &mut self,
        key: &CoordinatorKey,
        request: &R,
    ) -> Result<R::Response> {
        self.coordinators.ask(&mut self.brokers, key, request)
    }

    /// As [`ask_coordinator`](Cluster::ask_coordinator), for many keys at once: what each request was answered, in
    /// their order.
    pub(crate) fn ask_coordinators<R: CoordinatorRequest>(
        &mut self,
        requests: &[(&CoordinatorKey, &R)],
    ) -> Vec<Result<R::Response>> {
        self.coordinators.ask_all(&mut self.brokers, requests)
    }

    /// Looks up the coordinators of these keys, where they are not known. Whichever is not found is looked up again
    /// when it is asked; returns a reason of those that another try may mend.
    pub(crate) fn find_coordinators(&mut self, keys: &[&CoordinatorKey]) -> Option<KafkaError> {
        let missing = self.coordinators.find_all(&mut self.brokers, keys);
        let mut kept = None;
        for error in missing.into_values().filter(|error| error.is_retriable() && !error.is_refusal()) {
            keep_worse(&mut kept, error);
        }
        kept
    }

    /// What each of these groups has committed, by its name; with `stable`, behind transactions that are open.
    pub(crate) fn group_offsets(&mut self, groups: &[&str], stable: bool) -> HashMap<String, Result<Vec<GroupOffset>>> {
        group_offsets::fetch(&mut self.coordinators, &mut self.brokers, groups, stable)
    }
}
