//! What the library answers, as `edgelog.Error` with its code.

use edgelog::clients::{ConsumerError, ProducerError};
use pyo3::prelude::*;

/// librdkafka's codes for what does not come from a broker.
pub(crate) mod local {
    pub(crate) const FAIL: i32 = -196;
    pub(crate) const MSG_TIMED_OUT: i32 = -192;
    pub(crate) const UNKNOWN_PARTITION: i32 = -190;
    pub(crate) const QUEUE_FULL: i32 = -184;
    pub(crate) const STATE: i32 = -172;
    pub(crate) const FENCED: i32 = -144;
    pub(crate) const PURGE_QUEUE: i32 = -152;
    pub(crate) const AUTO_OFFSET_RESET: i32 = -140;
    pub(crate) const DESTROY: i32 = -197;
}

/// An error before it is a Python object: made without Python's lock.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// Kafka's code, or librdkafka's where it is negative.
    pub(crate) code: i32,
    pub(crate) text: String,
    pub(crate) is_retriable: bool,
}

impl Failure {
    pub(crate) fn new(code: i32, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into(), is_retriable: false }
    }

    /// `edgelog.Error`, to raise.
    pub(crate) fn raise(&self, py: Python<'_>) -> PyErr {
        let made = py
            .import("edgelog._errors")
            .and_then(|module| module.getattr("Error"))
            .and_then(|class| class.call1((self.code, &self.text, self.is_retriable)));
        made.map_or_else(|error| error, PyErr::from_value)
    }
}

impl From<&ProducerError> for Failure {
    fn from(error: &ProducerError) -> Failure {
        let code = match error {
            ProducerError::UnknownPartition { .. } => local::UNKNOWN_PARTITION,
            ProducerError::DeliveryTimeout { .. } => local::MSG_TIMED_OUT,
            ProducerError::BufferFull { .. } => local::QUEUE_FULL,
            ProducerError::Purged => local::PURGE_QUEUE,
            ProducerError::ProducerFenced { .. } => local::FENCED,
            ProducerError::Closed => local::DESTROY,
            error => error.kafka_code().map_or(local::FAIL, i32::from),
        };
        Failure { code, text: error.to_string(), is_retriable: error.is_retriable() }
    }
}

impl From<&edgelog::Error> for Failure {
    fn from(error: &edgelog::Error) -> Failure {
        let code = error.kafka_code().map_or(local::FAIL, i32::from);
        Failure { code, text: error.to_string(), is_retriable: error.is_retriable() }
    }
}

impl From<&ConsumerError> for Failure {
    fn from(error: &ConsumerError) -> Failure {
        let code = match error {
            ConsumerError::Log { source, .. }
            | ConsumerError::Group { source, .. }
            | ConsumerError::DeadLetters { source, .. }
            | ConsumerError::Store(source) => source.kafka_code().map_or(local::FAIL, i32::from),
            ConsumerError::NoPosition { .. } => local::AUTO_OFFSET_RESET,
            ConsumerError::NotAssigned(_) => local::UNKNOWN_PARTITION,
            ConsumerError::FencedMember { .. } => 25, // UNKNOWN_MEMBER_ID
            ConsumerError::UnknownGroup { .. } => 69, // GROUP_ID_NOT_FOUND
            ConsumerError::MetadataTooLarge { .. } => 12,
            ConsumerError::InvalidRecordState { .. } => 121,
            ConsumerError::UnreleasedInstance { .. } => 111,
            ConsumerError::SubscriptionConflict | ConsumerError::InListener => local::STATE,
            _ => local::FAIL,
        };
        Failure { code, text: error.to_string(), is_retriable: false }
    }
}

/// As [`Failure::raise`], for what was returned.
pub(crate) fn raised<E>(py: Python<'_>) -> impl Fn(E) -> PyErr + '_
where
    for<'a> Failure: From<&'a E>,
{
    move |error| Failure::from(&error).raise(py)
}
