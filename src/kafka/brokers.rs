//! The brokers of a cluster, and a connection to each.
//!
//! Coordinators are spoken to over connections of their own: a broker that throttles a producer holds back what comes
//! later on the same connection, and an EndTxn that waits behind it meets a transaction that timed out.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kafka_protocol::error::ResponseError;

use super::api::ApiRequest;
use super::connection::{Connection, Transport};
use super::error::{KafkaError, Result};
use super::error_code::Code;
use super::link::{IN_FLIGHT_MAX, LinkEstimator};
use super::stop::StopHandle;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Metadata, Produce and Fetch.
    Data,
    /// What goes to the coordinators of transactions and groups.
    Coordinator,
}

#[derive(Debug)]
pub(super) struct Brokers {
    bootstrap: Vec<(String, u16)>,
    transport: Transport,
    /// Where the brokers are that the cluster has named.
    addresses: HashMap<i32, (String, u16)>,
    connections: HashMap<(i32, Role), Connection>,
}

impl Brokers {
    pub(super) fn new(bootstrap: Vec<(String, u16)>, transport: Transport) -> Brokers {
        Brokers { bootstrap, transport, addresses: HashMap::new(), connections: HashMap::new() }
    }

    pub(super) fn stop(&self) -> &StopHandle {
        &self.transport.stop
    }

    pub(super) fn link(&self) -> &LinkEstimator {
        &self.transport.link
    }

    /// Takes over which brokers there are. A connection to one that moved is closed.
    pub(super) fn replace(&mut self, addresses: HashMap<i32, (String, u16)>) {
        // Bootstrap connections have negative numbers.
        let known = &self.addresses;
        self.connections.retain(|(node, _), _| *node < 0 || addresses.get(node) == known.get(node));
        self.addresses = addresses;
    }

    pub(super) fn add(&mut self, node: i32, address: (String, u16)) {
        self.addresses.insert(node, address);
    }

    /// All brokers that the cluster has named.
    pub(super) fn nodes(&self) -> Vec<i32> {
        self.addresses.keys().copied().collect()
    }

    /// Any broker: one that is connected where there is one.
    pub(super) fn any_node(&self) -> i32 {
        let connected = self.connections.keys().find(|(node, role)| *node >= 0 && *role == Role::Data);
        connected.map(|(node, _)| *node).or_else(|| self.addresses.keys().next().copied()).unwrap_or(-1)
    }

    /// Every broker that can be tried: those that are connected, then those that are known, then those of
    /// `bootstrap.servers`.
    pub(super) fn candidates(&self) -> Vec<i32> {
        let mut candidates: Vec<i32> =
            self.connections.keys().filter(|(_, role)| *role == Role::Data).map(|(node, _)| *node).collect();
        let known: Vec<i32> = self.addresses.keys().filter(|node| !candidates.contains(node)).copied().collect();
        candidates.extend(known);
        candidates.extend((1..=self.bootstrap.len() as i32).map(|n| -n));
        candidates
    }

    /// The finalized `transaction.version`, whether the broker knows version 2, and its address; of one that is
    /// connected.
    pub(super) fn transaction_version(&self) -> Option<(i16, bool, &str)> {
        let connection = self.connections.values().next()?;
        let knows_2 = connection.knows_transactions_of_version_2();
        Some((connection.transaction_version(), knows_2, connection.address()))
    }

    /// Asks one broker, connecting first where that is needed. Drops the connection when it fails.
    pub(super) fn request<R: ApiRequest>(&mut self, node: i32, role: Role, request: &R) -> Result<R::Response> {
        let mut connection = self.take(node, role)?;
        let response = connection.request(request)?;
        self.connections.insert((node, role), connection);
        Ok(response)
    }

    /// Sends a request, connecting first where that is needed; [`receive`](Brokers::receive) gets the response, after
    /// those to earlier ones. An error loses all that is in flight there.
    pub(super) fn send<R: ApiRequest>(&mut self, node: i32, role: Role, request: &R) -> Result<()> {
        let mut connection = self.take(node, role)?;
        connection.send(request)?;
        self.connections.insert((node, role), connection);
        Ok(())
    }

    /// Waits for the response to the oldest request in flight to this broker, which was an `R`. An error loses all that
    /// is in flight there.
    pub(super) fn receive<R: ApiRequest>(&mut self, node: i32, role: Role) -> Result<R::Response> {
        let Some(mut connection) = self.connections.remove(&(node, role)) else {
            return Err(lost_with_its_connection());
        };
        let response = connection.receive::<R>()?;
        self.connections.insert((node, role), connection);
        Ok(response)
    }

    /// Sends each of these requests to its broker and returns what each was answered, in their order: one round trip
    /// for as many as may be in flight, not one for each. Nothing else may be in flight there. An error loses all that
    /// is in flight to its broker, and nothing more of the exchange is sent there; other brokers' answers are their
    /// own.
    pub(super) fn exchange<R: ApiRequest>(
        &mut self,
        role: Role,
        in_flight_max: usize,
        requests: &[(i32, &R)],
    ) -> Vec<Result<R::Response>> {
        let mut responses: Vec<Option<Result<R::Response>>> = requests.iter().map(|_| None).collect();
        // By broker, the requests that are still to be sent and those in flight.
        let mut queues: BTreeMap<i32, (VecDeque<usize>, VecDeque<usize>)> = BTreeMap::new();
        for (n, (node, _)) in requests.iter().enumerate() {
            queues.entry(*node).or_default().0.push_back(n);
        }
        let max = in_flight_max.clamp(1, IN_FLIGHT_MAX);
        while !queues.is_empty() {
            // Every broker gets what it may have before any is waited for.
            queues.retain(|node, (queue, in_flight)| {
                while in_flight.len() < max {
                    let Some(n) = queue.pop_front() else { break };
                    if let Err(error) = self.send(*node, role, requests[n].1) {
                        responses[n] = Some(Err(error));
                        return false;
                    }
                    in_flight.push_back(n);
                }
                true
            });
            queues.retain(|node, (queue, in_flight)| {
                let Some(n) = in_flight.pop_front() else { return false };
                let response = self.receive::<R>(*node, role);
                let is_whole = response.is_ok();
                responses[n] = Some(response);
                is_whole && !(queue.is_empty() && in_flight.is_empty())
            });
        }
        responses.into_iter().map(|response| response.unwrap_or_else(|| Err(lost_with_its_connection()))).collect()
    }

    /// The next request to this broker in this role waits, as it asked for.
    pub(super) fn mute(&mut self, node: i32, role: Role, throttle_time_ms: i32) {
        if let Some(connection) = self.connections.get_mut(&(node, role)) {
            connection.mute_for(throttle_time_ms);
        }
    }

    /// Which version of a request the broker would be asked in.
    pub(super) fn version<R: ApiRequest>(&mut self, node: i32, role: Role) -> Result<i16> {
        let connection = self.take(node, role)?;
        let version = connection.version::<R>();
        self.connections.insert((node, role), connection);
        version
    }

    fn take(&mut self, node: i32, role: Role) -> Result<Connection> {
        const UNKNOWN: Code = Code::of(ResponseError::BrokerNotAvailable);
        if let Some(connection) = self.connections.remove(&(node, role)) {
            return Ok(connection);
        }
        self.transport.stop.check_grace()?;
        let address = match usize::try_from(-1 - i64::from(node)) {
            Ok(bootstrap) => self.bootstrap.get(bootstrap),
            Err(_) => self.addresses.get(&node),
        };
        let Some((host, port)) = address.cloned() else {
            return Err(KafkaError::broker(format!("looking for broker {node}"), UNKNOWN, None));
        };
        Connection::open(&host, port, &self.transport)
    }
}

/// The connection on which a request was sent, or would have been, ended without its answer.
pub(super) fn lost_with_its_connection() -> KafkaError {
    const DIED: Code = Code::of(ResponseError::NetworkException);
    KafkaError::broker("waiting for an answer", DIED, Some("the connection died"))
}
