//! The error codes of Kafka's protocol by their names, and what a producer does about each.

use std::fmt;

use kafka_protocol::error::ResponseError;

/// One of Kafka's error codes, printed with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub i16);

impl Code {
    /// Stands for the code of what a response does not name.
    pub(crate) const UNNAMED: Code = Code::of(ResponseError::UnknownServerError);

    pub(crate) const fn of(error: ResponseError) -> Code {
        Code(error.code())
    }

    /// `None` for 0, which is no error.
    pub(crate) const fn named(self) -> Option<ResponseError> {
        ResponseError::try_from_code(self.0)
    }

    /// Whether a broker answers this while leaders or coordinators move or load: another one may be it now.
    pub(crate) fn is_of_a_move(self) -> bool {
        use ResponseError as Error;
        let Some(error) = self.named() else { return false };
        matches!(
            error,
            Error::LeaderNotAvailable
                | Error::NotLeaderOrFollower
                | Error::RequestTimedOut
                | Error::BrokerNotAvailable
                | Error::ReplicaNotAvailable
                | Error::NetworkException
                | Error::CoordinatorLoadInProgress
                | Error::CoordinatorNotAvailable
                | Error::NotCoordinator
        )
    }

    pub(crate) fn class(self) -> Class {
        use ResponseError as Error;
        let Some(error) = self.named() else { return Class::Fatal };
        match error {
            _ if self.is_of_a_move() => Class::Retriable,
            // Answered while leaders wait for their replicas. CorruptMessage: the bytes were checked here, so they were
            // damaged on the way. ConcurrentTransactions and UnstableOffsetCommit: while a transaction is being
            // completed.
            Error::CorruptMessage
            | Error::NotEnoughReplicas
            | Error::NotEnoughReplicasAfterAppend
            | Error::NotController
            | Error::ConcurrentTransactions
            | Error::KafkaStorageError
            | Error::FencedLeaderEpoch
            | Error::UnknownLeaderEpoch
            | Error::UnstableOffsetCommit
            | Error::ThrottlingQuotaExceeded
            | Error::InconsistentTopicId
            | Error::RebootstrapRequired => Class::Retriable,
            Error::UnknownServerError
            | Error::OutOfOrderSequenceNumber
            | Error::DuplicateSequenceNumber
            | Error::InvalidTxnState
            | Error::InvalidProducerIdMapping
            | Error::UnknownProducerId
            | Error::TransactionAbortable => Class::Abortable,
            Error::InvalidProducerEpoch | Error::ProducerFenced => Class::Epoch,
            Error::TransactionalIdAuthorizationFailed => Class::Refused,
            Error::UnknownTopicOrPartition
            | Error::InvalidTopicException
            | Error::IllegalGeneration
            | Error::UnknownMemberId
            | Error::TopicAuthorizationFailed
            | Error::GroupAuthorizationFailed
            | Error::PolicyViolation
            | Error::UnsupportedCompressionType
            | Error::UnknownTopicId => Class::Topic,
            Error::MessageTooLarge | Error::RecordListTooLarge | Error::InvalidTimestamp | Error::InvalidRecord => {
                Class::Batch
            }
            _ => Class::Fatal,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.named() {
            Some(ResponseError::Unknown(_)) | None => write!(f, "{}", self.0),
            Some(known) => write!(f, "{} {known:?}", self.0),
        }
    }
}

/// What to do about an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Send the same request again, perhaps to another broker.
    Retriable,
    /// The transaction is lost: abort it, read the committed offsets again and go on.
    Abortable,
    /// Our epoch is not the current one: our own transaction timed out, or another producer fenced us. Asking for our
    /// own id shows which.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_printed_with_its_name() {
        assert_eq!(Code(90).to_string(), "90 ProducerFenced");
        assert_eq!(Code(9999).to_string(), "9999");
    }

    /// The numbers are the protocol's: a wrong name would put one into another class.
    #[test]
    fn every_code_is_in_the_class_of_its_number() {
        for number in -2..=200 {
            let class = match number {
                2 | 5..=9 | 13..=16 | 19 | 20 | 41 | 51 | 56 | 74 | 75 | 88 | 89 | 103 | 129 => Class::Retriable,
                -1 | 45 | 46 | 48 | 49 | 59 | 120 => Class::Abortable,
                47 | 90 => Class::Epoch,
                53 => Class::Refused,
                3 | 17 | 22 | 25 | 29 | 30 | 44 | 76 | 100 => Class::Topic,
                10 | 18 | 32 | 87 => Class::Batch,
                _ => Class::Fatal,
            };
            assert_eq!(Code(number).class(), class, "{}", Code(number));
        }
    }
}
