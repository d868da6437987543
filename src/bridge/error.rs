//! What can go wrong between here and the cluster, sorted by who has to do something about it.

use std::fmt;
use std::io;

use crate::error::Error;
use crate::escape::{shown_name, shown_sentence};
use crate::kafka::{Class, Code, KafkaError, Words};

/// What the bridge's calls return.
pub type Result<T> = std::result::Result<T, BridgeError>;

/// Why the bridge stopped, or what it is waiting for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// A configuration key or value that cannot be, or that this version does not have.
    #[error("{}: {}", shown_name(key), shown_sentence(reason))]
    InvalidConfig {
        /// The key as given.
        key: String,
        /// Why; never holds the value of a secret.
        reason: String,
    },

    /// The store answered an error.
    #[error(transparent)]
    Store(#[from] Error),

    /// The store has no topic of a name that is to be sent, or none at all that is, and the bridge was to end when all
    /// is.
    #[error("no topic here matches edgelog.bridge.topics={patterns}{}{}", Names(names), of_kafka(patterns))]
    NoTopics {
        /// Those of `edgelog.bridge.topics` that match nothing.
        patterns: String,
        /// The topics that the store has.
        names: Vec<String>,
    },

    /// Another bridge works for this store.
    #[error("another bridge works for this store: {0}")]
    Locked(#[source] io::Error),

    /// The bridge's note in the data directory is of another device than the one that is named.
    #[error(
        "the note here is of the device {}, and not of {}: nothing was changed",
        shown_name(device),
        shown_name(named)
    )]
    OtherDevice {
        /// The device that was named.
        named: String,
        /// The device whose bridge wrote the note.
        device: String,
    },

    /// The bridge's note, or its lock, cannot be read or written.
    #[error("{operation} {}: {source}", shown_name(file))]
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
    #[error("{}: {source}", shown_name(address))]
    Connection {
        /// Host and port.
        address: String,
        /// The system's own error.
        #[source]
        source: io::Error,
    },

    /// TLS with a broker failed: its certificate or ours, or it speaks no TLS. Reported and tried again, slowly, since
    /// certificates are renewed and clocks set.
    #[error("{}: TLS: {}", shown_name(address), shown_sentence(reason))]
    Tls {
        /// Host and port.
        address: String,
        /// What is wrong, and what can be done about it.
        reason: String,
    },

    /// A broker does not accept who we say we are. Reported and tried again, slowly: passwords and tokens are rotated.
    #[error("{}: authentication ({mechanism}): {}", shown_name(address), shown_sentence(reason))]
    Authentication {
        /// Host and port.
        address: String,
        /// `sasl.mechanism`.
        mechanism: &'static str,
        /// The broker's words, or ours; never holds a password or token.
        reason: String,
    },

    /// A broker answered something that is no answer of Kafka's.
    #[error("{} answered what is no answer of Kafka's: {}", shown_name(address), shown_sentence(reason))]
    Protocol {
        /// Host and port.
        address: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A broker refused.
    #[error("{}: the broker answers {code}{}", shown_sentence(doing), Words(message))]
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

    /// Another producer has taken over this device's transactional id: another copy of the device runs. Nothing is sent
    /// by this one any more, and starting it again would only fence the other one.
    #[error(
        "fenced: another bridge uses transactional.id {transactional_id}; if it is a copy of this device, one has to go"
    )]
    Fenced {
        /// The id that both use.
        transactional_id: String,
    },

    /// The position that the cluster holds for this device does not belong to the log here: a person has to decide
    /// which of them is right. Nothing was sent, and no bridge was fenced.
    #[error("the cluster's position of {log} is not one of the log here: {reason}")]
    Conflict {
        /// The local log.
        log: String,
        /// What differs.
        reason: String,
    },

    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
}

impl BridgeError {
    /// Whether a person has to decide before this bridge may run again: another one is, or seems to be, this device.
    pub fn needs_decision(&self) -> bool {
        matches!(self, BridgeError::Fenced { .. } | BridgeError::Conflict { .. })
    }

    /// Whether the same may succeed later by itself.
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

    /// The broker's code; `None` where no broker answered one.
    pub(super) fn code(&self) -> Option<Code> {
        match self {
            BridgeError::Broker { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<KafkaError> for BridgeError {
    fn from(error: KafkaError) -> BridgeError {
        match error {
            KafkaError::Connection { address, source } => BridgeError::Connection { address, source },
            KafkaError::Tls { address, reason } => BridgeError::Tls { address, reason },
            KafkaError::Authentication { address, mechanism, reason } => {
                BridgeError::Authentication { address, mechanism, reason }
            }
            KafkaError::Protocol { address, reason } => BridgeError::Protocol { address, reason },
            KafkaError::Broker { doing, code, message } => BridgeError::Broker { doing, code, message },
            KafkaError::Unsupported(what) | KafkaError::NotThereYet(what) => BridgeError::Unsupported(what),
            KafkaError::Stopped => BridgeError::Stopped,
        }
    }
}

/// The topics of a store, as many as fit a line.
/// Why topics that begin with two underscores match nothing.
fn of_kafka(patterns: &str) -> &'static str {
    if patterns.split(',').any(|pattern| pattern.starts_with("__")) {
        "; topics that begin with __ are Kafka's own, and are not sent"
    } else {
        ""
    }
}

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
