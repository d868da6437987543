//! The producer id and its epoch: claiming the transactional id, and claiming it again.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use super::config::Delivery;
use super::error::{BridgeError, Result};
use super::producer_header::Producer;
use super::start_offset::Which;
use super::uplink::{Patience, Uplink};
use crate::kafka::{self, Class, Cluster, Code, CoordinatorKey, Role, check};

/// The cluster has no such transactional id any more.
const FORGOTTEN_ID: Code = Code::of(ResponseError::InvalidProducerIdMapping);

/// Asks for an epoch of the transactional id.
pub(super) fn ask_to_claim(
    cluster: &mut Cluster,
    of: &CoordinatorKey,
    request: &InitProducerIdRequest,
) -> kafka::Result<InitProducerIdResponse> {
    let answer = cluster.ask_coordinator(of, request)?;
    check("claiming the transactional id", answer.error_code).map_err(|error| error.needing_id(of))?;
    Ok(answer)
}

/// Whether our epoch is not the current one.
fn is_fenced(error: &BridgeError) -> bool {
    error.code().is_some_and(|code| code.class() == Class::Epoch)
}

impl Uplink {
    /// Asks for the epoch behind our own: a transaction of ours that timed out leaves that to us, and another
    /// producer that fenced us does not. Never asks as if we were new, or two copies would fence each other for ever.
    pub(super) fn claim_own_id(&mut self) -> Result<()> {
        if !self.in_transactions() {
            return self.init_producer(None);
        }
        let mut was_unanswered = false;
        match self.ask_for_epoch(self.producer, &mut was_unanswered) {
            // The cluster may have given out the epoch in an answer that was lost, and what asks again has an older one
            // then. No bridge is fenced blindly for that: as at a start, positions have to be those of the logs here.
            Err(error) if is_fenced(&error) && was_unanswered => {
                self.producer = None;
                self.learn_starts(Which::All)?;
                self.init_producer(None)
            }
            Err(error) if is_fenced(&error) => {
                Err(BridgeError::Fenced { transactional_id: self.config.transactional_id() })
            }
            // The cluster has forgotten the id, as it does after a week of silence: so no other producer has it.
            Err(error) if error.code() == Some(FORGOTTEN_ID) => self.init_producer(None),
            other => other,
        }
    }

    /// Gets the producer id and an epoch that no producer had before; ends what an earlier holder left open.
    pub(super) fn init_producer(&mut self, own: Option<Producer>) -> Result<()> {
        self.ask_for_epoch(own, &mut false)
    }

    /// As `init_producer`; says whether an answer did not come before the one that counts.
    fn ask_for_epoch(&mut self, own: Option<Producer>, was_unanswered: &mut bool) -> Result<()> {
        self.transaction_timeout = self.timeout_wanted();
        if !self.in_transactions() {
            return self.init_idempotent_producer();
        }
        let timeout_ms = self.transaction_timeout.as_millis() as i32;
        let mut request = InitProducerIdRequest::default()
            .with_transactional_id(Some(self.transactional_id()))
            .with_transaction_timeout_ms(timeout_ms);
        if let Some(own) = own {
            request = request.with_producer_id(own.id.into()).with_producer_epoch(own.epoch);
        }
        let transaction = CoordinatorKey::Transaction(self.config.transactional_id());
        let patience = if own.is_some() { Patience::Grace } else { Patience::Asked };
        let answer = self.retry(patience, |cluster| {
            let answer = ask_to_claim(cluster, &transaction, &request);
            *was_unanswered |= answer.as_ref().is_err_and(|error| error.code().is_none());
            answer
        })?;
        self.producer = Some(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch });
        Ok(())
    }

    /// A producer id that no producer had before: what an earlier one sent has nothing to do with it.
    fn init_idempotent_producer(&mut self) -> Result<()> {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer = self.retry(Patience::Asked, |cluster| {
            let node = cluster.any_node();
            let answer = cluster.request(node, Role::Coordinator, &request)?;
            check("asking for a producer id", answer.error_code)?;
            Ok(answer)
        })?;
        self.sequences.clear();
        self.producer = Some(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch });
        Ok(())
    }

    /// Whether records and positions go in transactions, or as they come (`edgelog.bridge.delivery`).
    pub(super) fn in_transactions(&self) -> bool {
        self.config.delivery == Delivery::ExactlyOnce
    }

    pub(super) fn transactional_id(&self) -> TransactionalId {
        TransactionalId(StrBytes::from_string(self.config.transactional_id()))
    }

    /// For how long a transaction should be allowed to be open.
    fn timeout_wanted(&self) -> Duration {
        let sending = self.senders.iter().filter(|sender| sender.paused.is_none()).count();
        self.config.transaction_timeout.unwrap_or_else(|| self.cluster.link().transaction_timeout(sending))
    }

    /// Asks the cluster for another transaction timeout, where the line has become another one.
    pub(super) fn follow_the_line(&mut self) -> Result<()> {
        let (wanted, current) = (self.timeout_wanted(), self.transaction_timeout);
        let is_far = wanted > current * 3 / 2 || wanted < current / 3;
        if self.producer.is_some() && self.in_transactions() && is_far { self.claim_own_id() } else { Ok(()) }
    }
}
