//! The cluster as the bridge sees it: which broker leads what, which one coordinates whom, and a connection to each.
//!
//! Coordinators are spoken to over connections of their own: a broker that throttles a producer holds back whatever
//! comes later on the same connection, and an EndTxn that waits behind it meets a transaction that timed out.

use std::collections::{HashMap, HashSet};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DescribeConfigsRequest, EndTxnRequest, FetchRequest,
    FindCoordinatorRequest, InitProducerIdRequest, ListGroupsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetFetchRequest, ProduceRequest, SaslAuthenticateRequest, SaslHandshakeRequest, TopicName,
    TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::backoff::StopHandle;
use super::connection::{Connection, Transport, check};
use super::error::{BridgeError, Result};
use super::line::Line;
use super::shape::Speaks;

/// The transactions of exactly-once delivery are those of this feature level (KIP-890).
const TRANSACTION_VERSION_MIN: i16 = 2;

// Newest: what kafka-protocol encodes and a broker was seen to take. Oldest: what transactions of version 2 need, or
// the first that carries the fields used here. Produce 9 to 11 is for at-least-once alone: a cluster with those
// transactions has 12.
macro_rules! speaks {
    ($($request:ty: $min:literal to $max:literal),+ $(,)?) => {
        $(impl Speaks for $request { const SPOKEN: (i16, i16) = ($min, $max); })+
    };
}
speaks! {
    MetadataRequest: 12 to 12,
    FindCoordinatorRequest: 4 to 6,
    InitProducerIdRequest: 4 to 5,
    ProduceRequest: 9 to 13,
    TxnOffsetCommitRequest: 5 to 5,
    EndTxnRequest: 5 to 5,
    OffsetFetchRequest: 8 to 9,
    DescribeConfigsRequest: 4 to 4,
    FetchRequest: 13 to 16,
    OffsetCommitRequest: 8 to 9,
    CreateTopicsRequest: 5 to 7,
    ListGroupsRequest: 4 to 5,
    ApiVersionsRequest: 3 to 3,
    SaslHandshakeRequest: 1 to 1,
    SaslAuthenticateRequest: 2 to 2,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// Metadata, Produce and Fetch.
    Data,
    /// What goes to the coordinators of transactions and groups.
    Coordinator,
}

/// What is coordinated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Coordinated {
    Group(String),
    Transaction(String),
}

impl Coordinated {
    fn key(&self) -> (&str, i8) {
        match self {
            Coordinated::Group(id) => (id, 0),
            Coordinated::Transaction(id) => (id, 1),
        }
    }
}

impl BridgeError {
    /// As [`needing`](BridgeError::needing), for what coordinators are asked.
    pub(super) fn needing_id(self, of: &Coordinated) -> BridgeError {
        match of {
            Coordinated::Group(id) => self.needing("Read", &format!("the group {id}")),
            Coordinated::Transaction(id) => self.needing("Write", &format!("the transactional id {id}")),
        }
    }
}

/// Whether it is of the form that Kafka makes: nothing else is written down or shown.
pub(super) fn is_cluster_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// A topic of the cluster.
#[derive(Debug, Clone, Default)]
pub(super) struct RemoteTopic {
    pub(super) id: Uuid,
    /// Leader of each partition; -1 where there is none now.
    pub(super) leaders: Vec<i32>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    bootstrap: Vec<(String, u16)>,
    transport: Transport,
    nodes: HashMap<i32, (String, u16)>,
    connections: HashMap<(i32, Role), Connection>,
    coordinators: HashMap<Coordinated, i32>,
    /// The id that the cluster has given itself.
    pub(super) id: Option<String>,
    /// What they coordinate was not answered when it was asked for last.
    unanswered: HashSet<Coordinated>,
}

impl Cluster {
    pub(super) fn new(bootstrap: Vec<(String, u16)>, transport: Transport) -> Cluster {
        Cluster {
            bootstrap,
            transport,
            nodes: HashMap::new(),
            connections: HashMap::new(),
            coordinators: HashMap::new(),
            id: None,
            unanswered: HashSet::new(),
        }
    }

    pub(super) fn stop(&self) -> &StopHandle {
        &self.transport.stop
    }

    pub(super) fn line(&self) -> &Line {
        &self.transport.line
    }

    /// The topics that exist among those named, with their leaders, and who may not be asked about. Asks any broker:
    /// one that is connected, one that is known, and then those of `bootstrap.servers`.
    pub(super) fn topics(&mut self, names: &[&str]) -> Result<HashMap<String, Result<RemoteTopic>>> {
        let topics = names.iter().map(|name| {
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string((*name).to_owned()))))
        });
        // Topics are created by people: what a mistyped name creates is there for good.
        let request =
            MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(false);
        let answer = self.ask_any(&request)?;
        if answer.error_code != 0 {
            return Err(BridgeError::broker("Metadata", answer.error_code, None));
        }
        if answer.brokers.is_empty() {
            return Err(BridgeError::broker("Metadata", 8, Some("no broker is available")));
        }
        let nodes: HashMap<i32, (String, u16)> = answer
            .brokers
            .iter()
            .filter_map(|broker| Some((broker.node_id.0, (broker.host.to_string(), u16::try_from(broker.port).ok()?))))
            .collect();
        // Bootstrap connections have negative numbers; a broker that moved is connected to anew.
        let moved = |node: i32| node >= 0 && nodes.get(&node) != self.nodes.get(&node);
        let stale: Vec<_> = self.connections.keys().filter(|(node, _)| moved(*node)).copied().collect();
        for key in stale {
            self.connections.remove(&key);
        }
        self.nodes = nodes;
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

    fn ask_any(&mut self, request: &MetadataRequest) -> Result<kafka_protocol::messages::MetadataResponse> {
        let mut last = None;
        let mut candidates: Vec<i32> =
            self.connections.keys().filter(|(_, role)| *role == Role::Data).map(|(node, _)| *node).collect();
        let known: Vec<i32> = self.nodes.keys().filter(|node| !candidates.contains(node)).copied().collect();
        candidates.extend(known);
        candidates.extend((1..=self.bootstrap.len() as i32).map(|n| -n));
        for node in candidates {
            match self.request(node, Role::Data, request) {
                Ok(answer) => return Ok(answer),
                // Who is not accepted by one is accepted by none, and perhaps locked out for trying.
                Err(error @ (BridgeError::Stopped | BridgeError::Authentication { .. })) => return Err(error),
                Err(error) if error.is_retriable() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.expect("there is at least one bootstrap server"))
    }

    /// Refuses a cluster whose transactions are not those that this bridge makes.
    pub(super) fn check_features(&mut self) -> Result<()> {
        let Some(connection) = self.connections.values().next() else { return Ok(()) };
        let found = connection.transaction_version();
        if found >= TRANSACTION_VERSION_MIN {
            return Ok(());
        }
        let address = connection.address();
        Err(BridgeError::Unsupported(format!(
            "the cluster at {address} has transaction.version={found}, exactly-once delivery needs \
             {TRANSACTION_VERSION_MIN}; Kafka 4.0 and later have it: \
             kafka-features.sh --bootstrap-server {address} upgrade --feature \
             transaction.version={TRANSACTION_VERSION_MIN}; or set edgelog.bridge.delivery=at-least-once"
        )))
    }

    /// Asks one broker, connecting first where that is needed. Drops the connection when it fails.
    pub(super) fn request<R: Speaks>(&mut self, node: i32, role: Role, request: &R) -> Result<R::Response> {
        let mut connection = self.take(node, role)?;
        let answer = connection.request(request)?;
        self.connections.insert((node, role), connection);
        Ok(answer)
    }

    /// Sends a request, connecting first where that is needed; [`receive`](Cluster::receive) gets the answer, after
    /// those to earlier ones. An error loses all that is under way there.
    pub(super) fn send<R: Speaks>(&mut self, node: i32, role: Role, request: &R) -> Result<()> {
        let mut connection = self.take(node, role)?;
        connection.send(request)?;
        self.connections.insert((node, role), connection);
        Ok(())
    }

    /// Waits for the answer to the oldest request to this broker that has none yet, which was an `R`. An error loses
    /// all that is under way there.
    pub(super) fn receive<R: Speaks>(&mut self, node: i32, role: Role) -> Result<R::Response> {
        const NETWORK_EXCEPTION: i16 = 13;
        let Some(mut connection) = self.connections.remove(&(node, role)) else {
            return Err(BridgeError::broker("waiting for an answer", NETWORK_EXCEPTION, Some("the connection died")));
        };
        let answer = connection.receive::<R>()?;
        self.connections.insert((node, role), connection);
        Ok(answer)
    }

    /// The next request to this broker in this role waits, as it asked for.
    pub(super) fn mute(&mut self, node: i32, role: Role, throttle_time_ms: i32) {
        if let Some(connection) = self.connections.get_mut(&(node, role)) {
            connection.mute_for(throttle_time_ms);
        }
    }

    /// Which version of a request the broker would be asked in.
    pub(super) fn version<R: Speaks>(&mut self, node: i32, role: Role) -> Result<i16> {
        let connection = self.take(node, role)?;
        let version = connection.version::<R>();
        self.connections.insert((node, role), connection);
        version
    }

    fn take(&mut self, node: i32, role: Role) -> Result<Connection> {
        if let Some(connection) = self.connections.remove(&(node, role)) {
            return Ok(connection);
        }
        self.transport.stop.check_grace()?;
        let place = match usize::try_from(-1 - i64::from(node)) {
            Ok(bootstrap) => self.bootstrap.get(bootstrap),
            Err(_) => self.nodes.get(&node),
        };
        let Some((host, port)) = place.cloned() else {
            return Err(BridgeError::broker(format!("looking for broker {node}"), 8, None));
        };
        Connection::open(&host, port, &self.transport)
    }

    /// All brokers that the cluster has named.
    pub(super) fn nodes(&self) -> Vec<i32> {
        self.nodes.keys().copied().collect()
    }

    /// Any broker: one that is connected where there is one.
    pub(super) fn any_node(&self) -> i32 {
        let connected = self.connections.keys().find(|(node, role)| *node >= 0 && *role == Role::Data);
        connected.map(|(node, _)| *node).or_else(|| self.nodes.keys().next().copied()).unwrap_or(-1)
    }

    /// The broker that coordinates a group or a transactional id, where nobody has to be asked.
    pub(super) fn known_coordinator(&self, of: &Coordinated) -> Option<i32> {
        self.coordinators.get(of).copied()
    }

    /// The broker that coordinates a group or a transactional id.
    pub(super) fn coordinator(&mut self, of: &Coordinated) -> Result<i32> {
        if let Some(&node) = self.coordinators.get(of) {
            return Ok(node);
        }
        let (key, key_type) = of.key();
        let request = FindCoordinatorRequest::default()
            .with_key_type(key_type)
            .with_coordinator_keys(vec![StrBytes::from_string(key.to_owned())]);
        let any = self.any_node();
        let answer = self.request(any, Role::Data, &request)?;
        let doing = format!("looking for the coordinator of {key}");
        let Some(found) = answer.coordinators.first() else {
            return Err(BridgeError::broker(doing, 15, Some("the answer names nobody")));
        };
        if found.error_code != 0 {
            let error = BridgeError::broker(doing, found.error_code, found.error_message.as_deref());
            return Err(error.needing_id(of));
        }
        let node = found.node_id.0;
        let port = u16::try_from(found.port).unwrap_or_default();
        self.nodes.insert(node, (found.host.to_string(), port));
        self.coordinators.insert(of.clone(), node);
        Ok(node)
    }

    /// Asks the coordinator of a group or a transactional id. It is looked up anew where it could not be reached
    /// twice in a row: a connection that dies says nothing of who coordinates.
    pub(super) fn ask_coordinator<R: Speaks>(&mut self, of: &Coordinated, request: &R) -> Result<R::Response> {
        let node = self.coordinator(of)?;
        let answer = self.request(node, Role::Coordinator, request);
        if answer.is_ok() {
            self.unanswered.remove(of);
        } else if !self.unanswered.insert(of.clone()) {
            self.forget_coordinator(of);
        }
        answer
    }

    /// Looks the coordinator up anew the next time: it failed, or said that it is none.
    pub(super) fn forget_coordinator(&mut self, of: &Coordinated) {
        self.unanswered.remove(of);
        self.coordinators.remove(of);
    }
}
