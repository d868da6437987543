//! The coordinators of groups and transactional ids: which broker it is, and asking it.
//!
//! A device has a group for each of its logs, and there may be hundreds. So coordinators are looked up with many keys
//! in a request, and requests to them go out together: what is asked of all costs a round trip or two, and not one or
//! two for each.

use std::collections::{HashMap, HashSet};

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    EndTxnRequest, FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest, OffsetCommitRequest,
    TxnOffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::api::ApiRequest;
use super::brokers::{Brokers, Role, lost_with_its_connection};
use super::error::{KafkaError, Result};
use super::error_code::Code;
use super::link::IN_FLIGHT_MAX;

/// So many keys are looked up in one request: an answer that takes long on a slow line is not asked for again whole.
const KEYS_MAX: usize = 100;
/// So many of these requests are in flight together.
const LOOKUPS_MAX: usize = 8;

/// What is coordinated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum CoordinatorKey {
    Group(String),
    Transaction(String),
}

impl CoordinatorKey {
    const GROUP: i8 = 0;
    const TRANSACTION: i8 = 1;

    /// The key and its type, as FindCoordinator has them.
    fn parts(&self) -> (&str, i8) {
        match self {
            CoordinatorKey::Group(id) => (id, CoordinatorKey::GROUP),
            CoordinatorKey::Transaction(id) => (id, CoordinatorKey::TRANSACTION),
        }
    }

    pub(super) fn id(&self) -> &str {
        self.parts().0
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

    /// Asks the coordinator of a group or a transactional id; see [`ask_all`](Coordinators::ask_all).
    pub(super) fn ask<R: CoordinatorRequest>(
        &mut self,
        brokers: &mut Brokers,
        key: &CoordinatorKey,
        request: &R,
    ) -> Result<R::Response> {
        self.ask_all(brokers, &[(key, request)]).pop().expect("one response for one request")
    }

    /// Asks the coordinator of each key, all at once; returns what each request was answered, in their order. A broker
    /// that says that it is not the coordinator has done nothing: it is forgotten, and the one that FindCoordinator
    /// names is asked, once. Where there is none yet, the response says so, and the next call looks again.
    pub(super) fn ask_all<R: CoordinatorRequest>(
        &mut self,
        brokers: &mut Brokers,
        requests: &[(&CoordinatorKey, &R)],
    ) -> Vec<Result<R::Response>> {
        let has = |response: &Result<R::Response>, error| {
            response.as_ref().is_ok_and(|response| R::codes(response).contains(&Code::of(error).0))
        };
        let mut responses = self.ask_once(brokers, requests);
        let moved: Vec<usize> =
            (0..requests.len()).filter(|n| has(&responses[*n], ResponseError::NotCoordinator)).collect();
        if !moved.is_empty() {
            let again: Vec<_> = moved.iter().map(|n| requests[*n]).collect();
            for (key, _) in &again {
                self.forget(key);
            }
            for (n, response) in moved.into_iter().zip(self.ask_once(brokers, &again)) {
                responses[n] = response;
            }
        }
        for ((key, _), response) in requests.iter().zip(&responses) {
            if has(response, ResponseError::NotCoordinator) || has(response, ResponseError::CoordinatorNotAvailable) {
                self.forget(key);
            }
        }
        responses
    }

    fn ask_once<R: ApiRequest>(
        &mut self,
        brokers: &mut Brokers,
        requests: &[(&CoordinatorKey, &R)],
    ) -> Vec<Result<R::Response>> {
        let keys: Vec<_> = requests.iter().map(|(key, _)| *key).collect();
        let mut not_found = self.find_all(brokers, &keys);
        let known: Vec<_> = requests.iter().filter_map(|(key, request)| Some((self.known(key)?, *request))).collect();
        let mut responses = brokers.exchange(Role::Coordinator, IN_FLIGHT_MAX, &known).into_iter();
        let respond = |(key, _): &(&CoordinatorKey, &R)| {
            if self.known(key).is_none() {
                return Err(not_found.remove(*key).unwrap_or_else(lost_with_its_connection));
            }
            responses.next().expect("one response for each that is known")
        };
        let responses: Vec<_> = requests.iter().map(respond).collect();
        for (key, response) in keys.into_iter().zip(&responses) {
            self.heard(key, response.is_ok());
        }
        responses
    }

    /// A coordinator that could not be reached twice in a row is forgotten: one connection that dies says nothing of
    /// who coordinates.
    pub(super) fn heard(&mut self, key: &CoordinatorKey, is_answered: bool) {
        if is_answered {
            self.unanswered.remove(key);
        } else if !self.unanswered.insert(key.clone()) {
            self.forget(key);
        }
    }

    /// Looks up the coordinators of all of these that are not known, many in a request and all requests at once.
    /// Returns why those are missing that are: what was answered of a key, or that there was no answer.
    pub(super) fn find_all(
        &mut self,
        brokers: &mut Brokers,
        keys: &[&CoordinatorKey],
    ) -> HashMap<CoordinatorKey, KafkaError> {
        let unknown: HashSet<&CoordinatorKey> = keys.iter().copied().filter(|key| self.known(key).is_none()).collect();
        let mut lookups: Vec<(Vec<&CoordinatorKey>, FindCoordinatorRequest)> = Vec::new();
        for key_type in [CoordinatorKey::GROUP, CoordinatorKey::TRANSACTION] {
            let mut of_type: Vec<&CoordinatorKey> =
                unknown.iter().copied().filter(|key| key.parts().1 == key_type).collect();
            of_type.sort_unstable_by_key(|key| key.parts());
            for keys in of_type.chunks(KEYS_MAX) {
                let names = keys.iter().map(|key| StrBytes::from_string(key.parts().0.to_owned()));
                let request = FindCoordinatorRequest::default().with_key_type(key_type);
                lookups.push((keys.to_vec(), request.with_coordinator_keys(names.collect())));
            }
        }
        let node = brokers.any_node();
        let requests: Vec<_> = lookups.iter().map(|(_, request)| (node, request)).collect();
        let responses = brokers.exchange(Role::Data, LOOKUPS_MAX, &requests);
        let mut missing = HashMap::new();
        for ((keys, _), response) in lookups.iter().zip(responses) {
            match response {
                Ok(response) => missing.extend(self.learn(brokers, keys, &response)),
                // The first one has the words of what went wrong.
                Err(error) => {
                    let errors = std::iter::once(error).chain(std::iter::repeat_with(lost_with_its_connection));
                    missing.extend(keys.iter().map(|key| (*key).clone()).zip(errors));
                }
            }
        }
        missing
    }

    /// Takes over where coordinators are; returns what was said of those that are nowhere.
    fn learn(
        &mut self,
        brokers: &mut Brokers,
        keys: &[&CoordinatorKey],
        response: &FindCoordinatorResponse,
    ) -> Vec<(CoordinatorKey, KafkaError)> {
        let mut missing = Vec::new();
        for key in keys {
            let (id, _) = key.parts();
            let doing = format!("looking for the coordinator of {id}");
            let Some(found) = response.coordinators.iter().find(|found| *found.key == *id) else {
                let none = Code::of(ResponseError::CoordinatorNotAvailable);
                missing.push(((*key).clone(), KafkaError::broker(doing, none, Some("the answer names no broker"))));
                continue;
            };
            if found.error_code != 0 {
                let error = KafkaError::broker(doing, Code(found.error_code), found.error_message.as_deref());
                missing.push(((*key).clone(), error.needing_id(key)));
                continue;
            }
            let node = found.node_id.0;
            let port = u16::try_from(found.port).unwrap_or_default();
            brokers.add(node, (found.host.to_string(), port));
            self.nodes.insert((*key).clone(), node);
        }
        missing
    }

    pub(super) fn forget(&mut self, key: &CoordinatorKey) {
        self.unanswered.remove(key);
        self.nodes.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kafka_protocol::messages::find_coordinator_response::Coordinator;
    use kafka_protocol::messages::{ApiKey, EndTxnResponse};

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
                .with_key(StrBytes::from_static_str("id"))
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
