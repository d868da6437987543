//! The coordinators of groups and transactional ids: which broker it is, and asking it.

use std::collections::{HashMap, HashSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, OffsetCommitRequest, OffsetFetchRequest,
    TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::api::ApiRequest;
use super::brokers::{Brokers, Role};
use super::error::{KafkaError, Result};
use super::error_code::Code;

/// What is coordinated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum CoordinatorKey {
    Group(String),
    Transaction(String),
}

impl CoordinatorKey {
    /// The key and its type, as FindCoordinator has them.
    fn parts(&self) -> (&str, i8) {
        match self {
            CoordinatorKey::Group(id) => (id, 0),
            CoordinatorKey::Transaction(id) => (id, 1),
        }
    }
}

impl KafkaError {
    /// As [`needing`](KafkaError::needing), for what coordinators are asked.
    pub(crate) fn needing_id(self, of: &CoordinatorKey) -> KafkaError {
        match of {
            CoordinatorKey::Group(id) => self.needing("Read", &format!("the group {id}")),
            CoordinatorKey::Transaction(id) => self.needing("Write", &format!("the transactional id {id}")),
        }
    }
}

/// A request that goes to a coordinator.
pub(crate) trait CoordinatorRequest: ApiRequest {
    /// The codes in a response by which a broker says that it is not the coordinator.
    fn codes(response: &Self::Response) -> Vec<i16>;
}

impl CoordinatorRequest for InitProducerIdRequest {
    fn codes(response: &Self::Response) -> Vec<i16> {
        vec![response.error_code]
    }
}

impl CoordinatorRequest for EndTxnRequest {
    fn codes(response: &Self::Response) -> Vec<i16> {
        vec![response.error_code]
    }
}

impl CoordinatorRequest for TxnOffsetCommitRequest {
    fn codes(response: &Self::Response) -> Vec<i16> {
        response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code).collect()
    }
}

impl CoordinatorRequest for OffsetCommitRequest {
    fn codes(response: &Self::Response) -> Vec<i16> {
        response.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code).collect()
    }
}

impl CoordinatorRequest for OffsetFetchRequest {
    fn codes(response: &Self::Response) -> Vec<i16> {
        response.groups.iter().map(|group| group.error_code).collect()
    }
}

/// Which broker coordinates what, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Coordinators {
    nodes: HashMap<CoordinatorKey, i32>,
    /// The last request to the coordinators of these got no response.
    unanswered: HashSet<CoordinatorKey>,
}

impl Coordinators {
    /// The coordinator, where no broker has to be asked for it.
    pub(super) fn known(&self, key: &CoordinatorKey) -> Option<i32> {
        self.nodes.get(key).copied()
    }

    /// Asks the coordinator of a group or a transactional id. A broker that says that it is not the coordinator has
    /// done nothing: it is forgotten, and the one that FindCoordinator names is asked, once. Where there is none yet,
    /// the response says so, and the next call looks again.
    pub(super) fn ask<R: CoordinatorRequest>(
        &mut self,
        brokers: &mut Brokers,
        key: &CoordinatorKey,
        request: &R,
    ) -> Result<R::Response> {
        let has = |response: &R::Response, error| R::codes(response).contains(&Code::of(error).0);
        let mut response = self.ask_once(brokers, key, request)?;
        if has(&response, ResponseError::NotCoordinator) {
            self.forget(key);
            response = self.ask_once(brokers, key, request)?;
        }
        if has(&response, ResponseError::NotCoordinator) || has(&response, ResponseError::CoordinatorNotAvailable) {
            self.forget(key);
        }
        Ok(response)
    }

    /// A coordinator that could not be reached twice in a row is forgotten: one connection that dies says nothing of
    /// who coordinates.
    fn ask_once<R: ApiRequest>(
        &mut self,
        brokers: &mut Brokers,
        key: &CoordinatorKey,
        request: &R,
    ) -> Result<R::Response> {
        let node = self.find(brokers, key)?;
        let response = brokers.request(node, Role::Coordinator, request);
        if response.is_ok() {
            self.unanswered.remove(key);
        } else if !self.unanswered.insert(key.clone()) {
            self.forget(key);
        }
        response
    }

    fn find(&mut self, brokers: &mut Brokers, key: &CoordinatorKey) -> Result<i32> {
        if let Some(node) = self.known(key) {
            return Ok(node);
        }
        let (id, key_type) = key.parts();
        let request = FindCoordinatorRequest::default()
            .with_key_type(key_type)
            .with_coordinator_keys(vec![StrBytes::from_string(id.to_owned())]);
        let response = brokers.request(brokers.any_node(), Role::Data, &request)?;
        let doing = format!("looking for the coordinator of {id}");
        let Some(found) = response.coordinators.first() else {
            let none = Code::of(ResponseError::CoordinatorNotAvailable);
            return Err(KafkaError::broker(doing, none, Some("the answer names nobody")));
        };
        if found.error_code != 0 {
            let error = KafkaError::broker(doing, Code(found.error_code), found.error_message.as_deref());
            return Err(error.needing_id(key));
        }
        let node = found.node_id.0;
        let port = u16::try_from(found.port).unwrap_or_default();
        brokers.add(node, (found.host.to_string(), port));
        self.nodes.insert(key.clone(), node);
        Ok(node)
    }

    fn forget(&mut self, key: &CoordinatorKey) {
        self.unanswered.remove(key);
        self.nodes.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kafka_protocol::messages::find_coordinator_response::Coordinator;
    use kafka_protocol::messages::{ApiKey, EndTxnResponse, FindCoordinatorResponse};

    use super::super::test_broker::{encoded, listen, plaintext};
    use super::*;

    /// A cluster of two brokers that both answer EndTxn with a code of their own. The first one says that it is the
    /// coordinator itself, and from the second time on that the other one is. Returns how often it was asked.
    fn two_brokers(codes: [ResponseError; 2]) -> (Brokers, Arc<AtomicUsize>) {
        let end = |code: i16| move |version| encoded(&EndTxnResponse::default().with_error_code(code), version);
        let (first, second) = (end(codes[0].code()), end(codes[1].code()));
        let second = listen(move |_, version| Some(second(version)));
        let asked = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&asked);
        // Known once it listens.
        let own = Arc::<AtomicUsize>::default();
        let its_own = Arc::clone(&own);
        let port = listen(move |key, version| {
            if key == ApiKey::EndTxn {
                return Some(first(version));
            }
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            let port = if is_first { own.load(Ordering::SeqCst) as i32 } else { i32::from(second) };
            let found = Coordinator::default()
                .with_node_id(if is_first { 1 } else { 2 }.into())
                .with_host(StrBytes::from_static_str("127.0.0.1"))
                .with_port(port);
            Some(encoded(&FindCoordinatorResponse::default().with_coordinators(vec![found]), version))
        });
        its_own.store(usize::from(port), Ordering::SeqCst);
        (Brokers::new(vec![("127.0.0.1".to_owned(), port)], plaintext()), asked)
    }

    fn end_transaction(coordinators: &mut Coordinators, brokers: &mut Brokers) -> Code {
        let key = CoordinatorKey::Transaction("id".to_owned());
        Code(coordinators.ask(brokers, &key, &EndTxnRequest::default()).unwrap().error_code)
    }

    #[test]
    fn who_says_that_it_is_not_the_coordinator_is_forgotten_and_the_next_one_is_asked() {
        let key = CoordinatorKey::Transaction("id".to_owned());
        // Any other code is an answer.
        for code in [ResponseError::NotCoordinator, ResponseError::ConcurrentTransactions] {
            let (mut brokers, asked) = two_brokers([code, ResponseError::InvalidTxnState]);
            let mut coordinators = Coordinators::default();
            let moved = code == ResponseError::NotCoordinator;
            let answered = if moved { ResponseError::InvalidTxnState } else { code };
            assert_eq!(end_transaction(&mut coordinators, &mut brokers), Code::of(answered));
            assert_eq!(coordinators.known(&key), Some(if moved { 2 } else { 1 }));
            assert_eq!(asked.load(Ordering::SeqCst), if moved { 2 } else { 1 });
        }
    }

    #[test]
    fn where_there_is_no_coordinator_the_caller_hears_of_it_and_the_next_call_looks_again() {
        use ResponseError::{CoordinatorNotAvailable, NotCoordinator};
        let key = CoordinatorKey::Transaction("id".to_owned());
        for (codes, lookups) in
            [([NotCoordinator, NotCoordinator], 2), ([CoordinatorNotAvailable, ResponseError::InvalidTxnState], 1)]
        {
            let (mut brokers, asked) = two_brokers(codes);
            let mut coordinators = Coordinators::default();
            assert_eq!(end_transaction(&mut coordinators, &mut brokers), Code::of(codes[0]));
            assert_eq!((coordinators.known(&key), asked.load(Ordering::SeqCst)), (None, lookups));
            assert_eq!(end_transaction(&mut coordinators, &mut brokers), Code::of(codes[1]));
        }
    }
}
