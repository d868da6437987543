//! What can go wrong between a client and a broker.

use std::fmt;
use std::io;

use kafka_protocol::error::ResponseError;

use super::error_code::{Class, Code};
use crate::escape::{shown_name, shown_sentence};

pub(crate) type Result<T> = std::result::Result<T, KafkaError>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum KafkaError {
    #[error("{}: {source}", shown_name(address))]
    Connection {
        address: String,
        #[source]
        source: io::Error,
    },
    #[error("{}: TLS: {}", shown_name(address), shown_sentence(reason))]
    Tls { address: String, reason: String },
    /// The reason never holds a password or a token.
    #[error("{}: authentication ({mechanism}): {}", shown_name(address), shown_sentence(reason))]
    Authentication { address: String, mechanism: &'static str, reason: String },
    /// What came is no response of Kafka's.
    #[error("{} answered what is no answer of Kafka's: {}", shown_name(address), shown_sentence(reason))]
    Protocol { address: String, reason: String },
    #[error("{}: the broker answers {code}{}", shown_sentence(doing), Words(message))]
    Broker { doing: String, code: Code, message: Option<String> },
    /// The cluster says nothing of a topic yet that it should have; in words.
    #[error("{}", shown_sentence(_0))]
    NotThereYet(String),
    /// The cluster lacks what is needed.
    #[error("{0}")]
    Unsupported(String),
    #[error("stopped")]
    Stopped,
}

impl KafkaError {
    pub(crate) fn broker(doing: impl Into<String>, code: Code, message: Option<&str>) -> KafkaError {
        let message = message.filter(|message| !message.is_empty()).map(str::to_owned);
        KafkaError::Broker { doing: doing.into(), code, message }
    }

    /// The broker's code, or the one that stands for its answer; `None` where no broker answered.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            KafkaError::Broker { code, .. } => Some(*code),
            // A broker has answered: leaders are to be looked up again.
            KafkaError::NotThereYet(_) => Some(Code::of(ResponseError::LeaderNotAvailable)),
            _ => None,
        }
    }

    /// Whether the same may succeed later without any change of ours.
    pub(crate) fn is_retriable(&self) -> bool {
        matches!(self.class(), Class::Retriable | Class::Refused)
    }

    /// Whether only a person can mend it; the same may succeed after that.
    pub(crate) fn is_refusal(&self) -> bool {
        self.class() == Class::Refused
    }

    fn class(&self) -> Class {
        match self {
            KafkaError::Connection { .. } | KafkaError::Protocol { .. } | KafkaError::NotThereYet(_) => {
                Class::Retriable
            }
            KafkaError::Tls { .. } | KafkaError::Authentication { .. } => Class::Refused,
            KafkaError::Broker { code, .. } => code.class(),
            KafkaError::Unsupported(_) | KafkaError::Stopped => Class::Fatal,
        }
    }

    /// Names the right that is needed, where the broker refuses for lack of one.
    pub(crate) fn needing(mut self, operation: &str, on: &str) -> KafkaError {
        use ResponseError::{GroupAuthorizationFailed, TopicAuthorizationFailed, TransactionalIdAuthorizationFailed};
        if let KafkaError::Broker { code, message, .. } = &mut self {
            if let Some(TopicAuthorizationFailed | GroupAuthorizationFailed | TransactionalIdAuthorizationFailed) =
                code.named()
            {
                *message = Some(format!("the user needs {operation} on {on}"));
            }
        }
        self
    }
}

/// Fails with the code of a response, where that is an error.
pub(crate) fn check(doing: &str, code: i16) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(KafkaError::broker(doing, Code(code), None)) }
}

/// Of several failures, keeps the one that another try does not mend; else the one that ended a connection, with which
/// others were lost; else the first.
pub(crate) fn keep_worse(kept: &mut Option<KafkaError>, error: KafkaError) {
    let rank = |error: &KafkaError| (error.is_retriable(), error.code().is_some());
    if kept.as_ref().is_none_or(|kept| rank(&error) < rank(kept)) {
        *kept = Some(error);
    }
}

/// The broker's words behind its code.
pub(crate) struct Words<'a>(pub(crate) &'a Option<String>);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |words| write!(f, " ({})", shown_sentence(words)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::{SENTENCE_CHARS_MAX, is_plain};

    #[test]
    fn of_several_failures_the_one_is_kept_that_says_most() {
        let broker = |error: ResponseError| KafkaError::broker("asking", Code(error.code()), None);
        let died = || KafkaError::Connection { address: "a:1".to_owned(), source: io::ErrorKind::UnexpectedEof.into() };
        let moved = || broker(ResponseError::NotCoordinator);
        let lost = || broker(ResponseError::NetworkException);
        let fatal = || broker(ResponseError::InvalidRequest);
        for (errors, kept) in [
            ([moved(), lost(), lost()], moved()),
            ([lost(), died(), moved()], died()),
            ([lost(), died(), fatal()], fatal()),
        ] {
            let mut found = None;
            for error in errors {
                keep_worse(&mut found, error);
            }
            assert_eq!(found.map(|error| error.to_string()), Some(kept.to_string()));
        }
    }

    /// A broker, or who says to be one, chooses these: they go to terminals and logs.
    #[test]
    fn what_others_say_is_shown_escaped_and_cut() {
        let evil = || "\u{1b}]0;title\u{7}\n\u{202e}".repeat(60_000);
        let (address, reason) = (evil(), evil());
        for error in [
            KafkaError::Connection { address: evil(), source: io::ErrorKind::ConnectionRefused.into() },
            KafkaError::Tls { address: evil(), reason: evil() },
            KafkaError::Authentication { address: evil(), mechanism: "PLAIN", reason: evil() },
            KafkaError::Protocol { address, reason },
            KafkaError::broker(evil(), Code(48), Some(&evil())),
            KafkaError::broker(evil(), Code(29), None).needing("Write", &evil()),
        ] {
            let (said, most) = (error.to_string(), 2 * SENTENCE_CHARS_MAX + 100);
            let begins: String = said.chars().take(80).collect();
            assert!((20..most).contains(&said.len()), "{} bytes, at most {most}: {begins:?}", said.len());
            assert!(said.chars().all(is_plain), "{begins:?}");
        }
    }

    #[test]
    fn a_refusal_names_its_code_and_the_right_that_is_missing() {
        let error = |code| KafkaError::broker("EndTxn", Code(code), Some("words"));
        assert_eq!(error(48).to_string(), "EndTxn: the broker answers 48 InvalidTxnState (words)");
        let without_a_right = error(53).needing("Write", "the topic t").to_string();
        assert!(without_a_right.ends_with("(the user needs Write on the topic t)"), "{without_a_right}");
        assert!(error(48).needing("Write", "the topic t").to_string().ends_with("(words)"));
    }
}
