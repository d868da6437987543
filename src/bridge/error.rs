//! What can go wrong between here and the cluster, sorted by who has to do something about it.

use std::fmt;
use std::io;

use kafka_protocol::error::ResponseError;

use crate::error::Error;

/// What the bridge's calls return.
pub type Result<T> = std::result::Result<T, BridgeError>;

/// Why the bridge stopped, or what it is waiting for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// A configuration key or value that cannot be, or that this version does not have.
    #[error("{key}: {reason}")]
    InvalidConfig {
        /// The key as given.
        key: String,
        /// Why; never holds the value of a secret.
        reason: String,
    },

    /// The store answered an error.
    #[error(transparent)]
    Store(#[from] Error),

    /// No topic of the store is one that is to be sent, and the bridge was to end when all is.
    #[error("no topic here matches edgelog.bridge.topics={patterns}{}", Names(names))]
    NoTopics {
        /// `edgelog.bridge.topics`.
        patterns: String,
        /// The topics that the store has.
        names: Vec<String>,
    },

    /// Another bridge works for this store.
    #[error("another bridge works for this store: {0}")]
    Locked(#[source] io::Error),

    /// The bridge's note, or its lock, cannot be read or written.
    #[error("{operation} {file}: {source}")]
    Note {
        /// What was being done.
        operation: &'static str,
        /// The file, relative to the data directory.
        file: String,
        /// The system's own error.
        #[source]
        source: io::Error,
    },

    /// A connection failed. Retried by itself; seen only where nothing may be retried.
    #[error("{address}: {source}")]
    Connection {
        /// Host and port.
        address: String,
        /// The system's own error.
        #[source]
        source: io::Error,
    },

    /// TLS with a broker failed: its certificate or ours, or it speaks no TLS. Told and tried again, slowly, since
    /// certificates are renewed and clocks set.
    #[error("{address}: TLS: {reason}")]
    Tls {
        /// Host and port.
        address: String,
        /// What is wrong, and what can be done about it.
        reason: String,
    },

    /// A broker does not accept who we say we are. Told and tried again, slowly: passwords and tokens are rotated.
    #[error("{address}: authentication ({mechanism}): {reason}")]
    Authentication {
        /// Host and port.
        address: String,
        /// `sasl.mechanism`.
        mechanism: &'static str,
        /// The broker's words, or ours; never holds a password or token.
        reason: String,
    },

    /// A broker answered something that is no answer of Kafka's.
    #[error("{address} answered what is no answer of Kafka's: {reason}")]
    Protocol {
        /// Host and port.
        address: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A broker refused.
    #[error("{doing}: the broker answers {code}{}", Words(message))]
    Broker {
        /// What was being done.
        doing: String,
        /// Its error code, with the name.
        code: Code,
        /// The broker's own words, where it has any.
        message: Option<String>,
    },

    /// The cluster cannot do what exactly-once delivery needs.
    #[error("{0}")]
    Unsupported(String),

    /// Somebody else has taken over this device's transactional id: another copy of this device runs. Nothing is sent
    /// by this one any more, and starting it again would only fence the other one.
    #[error(
        "fenced: another bridge uses transactional.id {transactional_id}; if it is a copy of this device, one has to go"
    )]
    Fenced {
        /// The id that both use.
        transactional_id: String,
    },

    /// The position that the cluster holds for this device does not belong to the log here: a person has to decide
    /// which of them is right. Nothing was sent, and nobody was fenced.
    #[error("the cluster's position of {log} is not one of the log here: {reason}")]
    Conflict {
        /// The local log.
        log: String,
        /// What differs.
        reason: String,
    },

    /// Somebody asked to stop.
    #[error("stopped")]
    Stopped,
}

impl BridgeError {
    /// Whether a person has to decide before this bridge may run again: somebody else is, or seems to be, this device.
    pub fn needs_decision(&self) -> bool {
        matches!(self, BridgeError::Fenced { .. } | BridgeError::Conflict { .. })
    }

    /// Whether the same may succeed later without anybody's doing.
    pub(super) fn is_retriable(&self) -> bool {
        match self {
            BridgeError::Connection { .. }
            | BridgeError::Protocol { .. }
            | BridgeError::Tls { .. }
            | BridgeError::Authentication { .. } => true,
            BridgeError::Broker { code, .. } => matches!(code.class(), Class::Retriable | Class::Refused),
            _ => false,
        }
    }

    /// Whether it is only a person who can mend it; the same may succeed once somebody did.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            BridgeError::Tls { .. } | BridgeError::Authentication { .. } => true,
            BridgeError::Broker { code, .. } => code.class() == Class::Refused,
            _ => false,
        }
    }

    /// Where it is a refusal for lack of a right: with the right that is needed.
    pub(super) fn needing(mut self, operation: &str, on: &str) -> BridgeError {
        if let BridgeError::Broker { code: Code(29 | 30 | 53), message, .. } = &mut self {
            *message = Some(format!("the user needs {operation} on {on}"));
        }
        self
    }

    pub(super) fn broker(doing: impl Into<String>, code: i16, message: Option<&str>) -> BridgeError {
        let message = message.filter(|message| !message.is_empty()).map(str::to_owned);
        BridgeError::Broker { doing: doing.into(), code: Code(code), message }
    }
}

/// The broker's words behind its code.
struct Words<'a>(&'a Option<String>);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |words| write!(f, " ({words})"))
    }
}

/// The topics of a store, as many as fit a line.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMED_MAX: usize = 12;
        let named = &self.0[..self.0.len().min(NAMED_MAX)];
        match self.0.len() {
            0 => write!(f, ": the store has none"),
            count if count > NAMED_MAX => {
                write!(f, "; the store has {} and {} more", named.join(", "), count - NAMED_MAX)
            }
            _ => write!(f, "; the store has {}", named.join(", ")),
        }
    }
}

/// One of Kafka's error codes, printed with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub i16);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ResponseError::try_from_code(self.0) {
            Some(ResponseError::Unknown(_)) | None => write!(f, "{}", self.0),
            Some(known) => write!(f, "{} {known:?}", self.0),
        }
    }
}

/// What to do about an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The same request again, perhaps to somebody else.
    Retriable,
    /// The transaction is lost; abort it, learn the position again and go on.
    Abortable,
    /// Our epoch is not the current one: our own transaction timed out, or somebody fenced us. Asking for our own id
    /// tells which.
    Epoch,
    /// Nothing is wrong but with this topic, partition or group.
    Topic,
    /// As `Retriable`, once a person has granted what is missing: tried again, slowly.
    Refused,
    /// Nothing is wrong but with a record of this batch, or with its size.
    Batch,
    /// A person has to change something.
    Fatal,
}

impl Code {
    pub(super) fn class(self) -> Class {
        match self.0 {
            // Answered while leaders or coordinators move, load or wait for their replicas; 2 when bytes were damaged
            // on the way, since they were checked here; 51 and 88 while a transaction is being completed.
            2 | 5..=9 | 13..=16 | 19 | 20 | 41 | 51 | 56 | 74 | 75 | 88 | 89 | 103 | 129 => Class::Retriable,
            -1 | 45 | 46 | 48 | 49 | 59 | 120 => Class::Abortable,
            47 | 90 => Class::Epoch,
            53 => Class::Refused,
            3 | 17 | 22 | 25 | 29 | 30 | 44 | 76 | 100 => Class::Topic,
            10 | 18 | 32 | 87 => Class::Batch,
            _ => Class::Fatal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_printed_with_its_name() {
        assert_eq!(Code(90).to_string(), "90 ProducerFenced");
        assert_eq!(Code(9999).to_string(), "9999");
        let error = BridgeError::broker("EndTxn", 48, Some("words"));
        assert_eq!(error.to_string(), "EndTxn: the broker answers 48 InvalidTxnState (words)");
    }
}
