//! The producer id and its epoch: claiming the transactional id, claiming it again, and making batches this producer's.

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use super::error::{BridgeError, Result};
use super::producer_header::{self, Producer};
use super::session::{Patience, Session};
use super::transaction_plan::ProducerBatch;
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

pub(super) fn transactional_id(session: &Session) -> TransactionalId {
    TransactionalId(StrBytes::from_string(session.config().transactional_id()))
}

/// Whether our epoch is not the current one.
fn is_fenced(error: &BridgeError) -> bool {
    error.code().is_some_and(|code| code.class() == Class::Epoch)
}

/// What became of claiming the own id again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Claimed,
    /// The cluster may have given out the epoch in an answer that was lost, and what asks again has an older one then.
    /// No bridge is fenced blindly for that: as at a start, positions have to be those of the logs here, and then it
    /// may be claimed as at a start.
    Unsure,
}

/// The identity of a producer, once the cluster has given one.
#[derive(Default)]
pub(super) struct ProducerIdentity {
    producer: Option<Producer>,
    /// The next sequence number of each partition, where they go on behind the last (at-least-once).
    sequences: HashMap<(String, i32), i32>,
    /// For how long the cluster lets a transaction be open, as it was asked for last.
    transaction_timeout: Duration,
}

impl ProducerIdentity {
    /// Whether only this bridge can move the positions of its logs.
    pub(super) fn is_claimed(&self) -> bool {
        self.producer.is_some()
    }

    /// Another bridge may have it: it has to be claimed as at a start.
    pub(super) fn give_up(&mut self) {
        self.producer = None;
    }

    /// The producer whose transaction it is.
    pub(super) fn current(&self) -> Producer {
        self.producer.expect("a transaction has a producer")
    }

    /// What the end of a transaction has made of it.
    pub(super) fn go_on_as(&mut self, producer: Producer) {
        self.producer = Some(producer);
    }

    /// For how long the cluster lets a transaction be open.
    pub(super) fn transaction_timeout(&self) -> Duration {
        self.transaction_timeout
    }

    /// Asks for the epoch behind our own, with so many senders that are `sending`: a transaction of ours that timed out
    /// leaves that to us, and another producer that fenced us does not. Never asks as if we were new, or two copies
    /// would fence each other for ever.
    pub(super) fn claim_again(&mut self, session: &mut Session, sending: usize) -> Result<Claim> {
        if session.in_transactions() {
            let mut was_unanswered = false;
            match self.ask_for_epoch(session, sending, self.producer, &mut was_unanswered) {
                Err(error) if is_fenced(&error) && was_unanswered => return Ok(Claim::Unsure),
                Err(error) if is_fenced(&error) => {
                    return Err(BridgeError::Fenced { transactional_id: session.config().transactional_id() });
                }
                // The cluster has forgotten the id, as it does after a week of silence: so no other producer has it.
                Err(error) if error.code() == Some(FORGOTTEN_ID) => {}
                other => return other.map(|()| Claim::Claimed),
            }
        }
        self.claim(session, sending).map(|()| Claim::Claimed)
    }

    /// Gets the producer id and an epoch that no producer had before; ends what an earlier holder left open.
    pub(super) fn claim(&mut self, session: &mut Session, sending: usize) -> Result<()> {
        self.ask_for_epoch(session, sending, None, &mut false)
    }

    /// Says whether an answer did not come before the one that counts.
    fn ask_for_epoch(
        &mut self,
        session: &mut Session,
        sending: usize,
        own: Option<Producer>,
        was_unanswered: &mut bool,
    ) -> Result<()> {
        self.transaction_timeout = timeout_wanted(session, sending);
        if !session.in_transactions() {
            return self.claim_idempotent(session);
        }
        let timeout_ms = self.transaction_timeout.as_millis() as i32;
        let mut request = InitProducerIdRequest::default()
            .with_transactional_id(Some(transactional_id(session)))
            .with_transaction_timeout_ms(timeout_ms);
        if let Some(own) = own {
            request = request.with_producer_id(own.id.into()).with_producer_epoch(own.epoch);
        }
        let transaction = session.transaction();
        let patience = if own.is_some() { Patience::Grace } else { Patience::Asked };
        let answer = session.retry(patience, |cluster| {
            let answer = ask_to_claim(cluster, &transaction, &request);
            *was_unanswered |= answer.as_ref().is_err_and(|error| error.code().is_none());
            answer
        })?;
        self.producer = Some(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch });
        Ok(())
    }

    /// A producer id that no producer had before: what an earlier one sent has nothing to do with it.
    fn claim_idempotent(&mut self, session: &mut Session) -> Result<()> {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let answer = session.retry(Patience::Asked, |cluster| {
            let node = cluster.any_node();
            let answer = cluster.request(node, Role::Coordinator, &request)?;
            check("asking for a producer id", answer.error_code)?;
            Ok(answer)
        })?;
        self.sequences.clear();
        self.producer = Some(Producer { id: answer.producer_id.0, epoch: answer.producer_epoch });
        Ok(())
    }

    /// Whether the cluster should be asked for another transaction timeout, since the line has become another one.
    pub(super) fn is_outgrown(&self, session: &Session, sending: usize) -> bool {
        let (wanted, current) = (timeout_wanted(session, sending), self.transaction_timeout);
        let is_far = wanted > current * 3 / 2 || wanted < current / 3;
        self.is_claimed() && session.in_transactions() && is_far
    }

    /// Makes these batches the next ones of this producer. A transaction begins with them, where there are any: its
    /// sequence numbers begin at 0.
    pub(super) fn stamp(&mut self, batches: &mut [ProducerBatch], in_transactions: bool) {
        if in_transactions {
            self.sequences.clear();
        }
        let producer = self.current();
        for batch in batches {
            let sequence = self.sequences.entry(batch.to.clone()).or_default();
            producer_header::set_producer_state(&mut batch.wire, producer, *sequence, in_transactions);
            *sequence = sequence_after(*sequence, batch.records);
        }
    }
}

/// For how long a transaction should be allowed to be open.
fn timeout_wanted(session: &Session, sending: usize) -> Duration {
    let configured = session.config().transaction_timeout;
    configured.unwrap_or_else(|| session.cluster().link().transaction_timeout(sending))
}

/// The sequence number `count` records further on: behind 2^31 - 1 comes 0.
fn sequence_after(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) & 0x7fff_ffff) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(0, 5), 5);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 5), 3);
    }
}
