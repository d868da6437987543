//! The one error of this crate: Kafka's names and numbers where Kafka has them, evidence in every variant.

use std::io;
use std::sync::Arc;

use edgelog_core::{ConfigError, DecodeError, EncodeError, LeaderEpoch, Offset, Position, TimestampMs};

use crate::codec::CodecError;
use crate::escape::{escaped, shown_name};

/// In every error that says that what is written is not, or may not be, what the names lead to any more.
pub(crate) const WHILE_IN_USE: &str = "while it was in use";

/// What this crate's calls return. With an error type it is the one of the standard library, so that `use edgelog::*`
/// leaves a program's own `Result<T, E>` as they are.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, named as Kafka names it, with the evidence at hand.
///
/// [`Error::kafka_code`] gives Kafka's own number for it where one exists. [`Display`](std::fmt::Display) is one line:
/// names of files, topics and keys are [escaped](crate::escape).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A position outside `[log_start_offset, log_end_offset]` was asked for.
    #[error("offset {requested} is out of range: the log holds {log_start_offset} to {log_end_offset}")]
    OffsetOutOfRange {
        /// The offset that was asked for.
        requested: Offset,
        /// First offset that the log holds.
        log_start_offset: Offset,
        /// The offset after the last record.
        log_end_offset: Offset,
    },

    /// Bytes below the end of the log are not a valid record batch. Records before and behind stay readable:
    /// [`Reader::skip_damage`](crate::Reader::skip_damage) goes on behind.
    #[error("{file} is damaged at position {position} (offset {offset} was expected there): {source}")]
    CorruptRecord {
        /// The segment file, relative to the data directory.
        file: String,
        /// Byte in that file where a valid batch was expected.
        position: Position,
        /// The offset that was expected there.
        offset: Offset,
        /// What was found instead.
        #[source]
        source: DamageKind,
    },

    /// The records inside a batch cannot be read although its CRC holds: it was damaged before it was written, or its
    /// writer writes what is no record. The reader stands behind the batch already.
    #[error("{file} is damaged at position {position}, offsets {base_offset} to {last_offset}: {source}")]
    CorruptBatch {
        /// The segment file, relative to the data directory.
        file: String,
        /// Byte in that file where the batch begins.
        position: Position,
        /// The batch's first offset.
        base_offset: Offset,
        /// Its last offset.
        last_offset: Offset,
        /// What is wrong with its payload or its records.
        #[source]
        source: DamageKind,
    },

    /// The payload of a batch was not decompressed, and may well be sound: the codec is not built in, more comes out
    /// than `edgelog.decompressed.bytes.max` allows, or there is no memory for it. No damage. The reader stands behind
    /// the batch already.
    #[error("offsets {base_offset} to {last_offset} ({file} at position {position}) are not read: {source}")]
    NotDecompressed {
        /// The segment file, relative to the data directory.
        file: String,
        /// Byte in that file where the batch begins.
        position: Position,
        /// The batch's first offset.
        base_offset: Offset,
        /// Its last offset.
        last_offset: Offset,
        /// What keeps it from being decompressed.
        #[source]
        source: CodecError,
    },

    /// No topic or partition has this name.
    #[error("no topic-partition {} in this store", shown_name(name))]
    UnknownTopicOrPartition {
        /// The name that was asked for.
        name: String,
    },

    /// One record is larger than a batch may be.
    #[error("a record of {given} bytes is larger than max.message.bytes={max}")]
    RecordTooLarge {
        /// Bytes that the record's batch would take.
        given: usize,
        /// `max.message.bytes`.
        max: usize,
    },

    /// A batch is larger than a segment can hold.
    #[error("a batch of {given} bytes is larger than segment.bytes={max}")]
    RecordBatchTooLarge {
        /// Bytes of the batch.
        given: usize,
        /// `segment.bytes`.
        max: usize,
    },

    /// The log's offsets are used up: a record behind its end would have none that a log can hold.
    #[error("offset {next_offset} leaves no room for {records} records: the greatest offset is {max}")]
    OffsetsUsedUp {
        /// How many records were to be appended.
        records: u32,
        /// The offset that the first of them would get.
        next_offset: Offset,
        /// The greatest offset that a record can have.
        max: Offset,
    },

    /// A topic name breaks Kafka's rules.
    #[error("\"{}\" is no topic name: {reason}", shown_name(name))]
    InvalidTopic {
        /// The name as given.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },

    /// The topic exists already.
    #[error("topic {name} exists already")]
    TopicExists {
        /// The topic.
        name: String,
    },

    /// A number of partitions that cannot be.
    #[error("{given} partitions were asked for; a topic has 1 to {max}")]
    InvalidPartitions {
        /// The number asked for.
        given: u32,
        /// The most that a topic may have.
        max: u32,
    },

    /// A record's timestamp is too far from the others of its batch to be stored with them.
    #[error("timestamp {given} ms cannot be stored in this batch")]
    InvalidTimestamp {
        /// The timestamp in milliseconds.
        given: TimestampMs,
    },

    /// A batch handed in for appending is not a valid record batch.
    #[error("the batch to append is invalid: {0}")]
    InvalidRecord(#[source] DecodeError),

    /// The data directory was written by a version of edgelog whose format this one does not know.
    #[error("{file} has format {found} (incompatible features {features:#x}), this version reads up to {known}")]
    UnsupportedVersion {
        /// The file.
        file: String,
        /// Its format version.
        found: u16,
        /// Its incompatible feature bits.
        features: u32,
        /// The newest version known here.
        known: u16,
    },

    /// A configuration key or value that cannot be.
    #[error("{}={}: {source}", shown_name(key), shown_name(value))]
    InvalidConfig {
        /// The key as given.
        key: String,
        /// The value as given.
        value: String,
        /// Why.
        #[source]
        source: ConfigError,
    },

    /// A file operation failed.
    #[error("{operation} {}: {source}", escaped(path))]
    Storage {
        /// What was being done.
        operation: &'static str,
        /// The file, relative to the data directory.
        path: String,
        /// The system's own error.
        #[source]
        source: io::Error,
    },

    /// The position belongs to a history that was truncated: its offset is past the end of its leader epoch.
    #[error(
        "offset {offset} of leader epoch {given} was truncated: that epoch ends at {end_offset}, the current epoch is \
         {current}"
    )]
    FencedLeaderEpoch {
        /// The offset asked for.
        offset: Offset,
        /// The epoch that it was seen with.
        given: LeaderEpoch,
        /// Where that epoch ends in this log.
        end_offset: Offset,
        /// The epoch that is current.
        current: LeaderEpoch,
    },

    /// The topic was deleted and created again since this log was attached: another log has the name now.
    #[error("the topic of {name} was deleted and created again; open the log again to read the new one")]
    LogReplaced {
        /// The topic-partition asked for.
        name: String,
    },

    /// The position's epoch is one that this log has not reached.
    #[error("leader epoch {given} is unknown here; the latest is {current}")]
    UnknownLeaderEpoch {
        /// The epoch asked for.
        given: LeaderEpoch,
        /// The epoch that is current.
        current: LeaderEpoch,
    },

    /// A log has more transactions than a reader of committed records keeps in mind.
    #[error("{log} has {given} aborted or open transactions; read_committed keeps up to {max} in memory")]
    TooManyTransactions {
        /// The log.
        log: String,
        /// How many there are up to where the log was looked at.
        given: usize,
        /// The most that are kept.
        max: usize,
    },

    /// A batch to append, or its payload, cannot be compressed or decompressed here.
    #[error(transparent)]
    Compression(#[from] CodecError),

    /// Another process (or another store in this one) has the data directory open for writing.
    #[error("the data directory is in use: {0}; attach read-only, or close it there first")]
    DataDirLocked(#[source] io::Error),

    /// An earlier write or flush failed, so nothing more is accepted until the store is opened again.
    #[error("an earlier I/O error made {log} read-only ({reason}); open the store again to go on")]
    PreviousIo {
        /// The log concerned.
        log: String,
        /// The error that it was.
        reason: String,
    },

    /// The write or flush that failed just now; the log is read-only from here on, until the store is opened again.
    /// Later calls answer [`Error::PreviousIo`].
    #[error("{source}; {log} is read-only from here on: open the store again to go on")]
    LogFailed {
        /// The log concerned.
        log: String,
        /// The error of the file operation.
        #[source]
        source: Box<Error>,
    },

    /// The log is there and the open of the store could not open it; other logs are open. The next open of the store
    /// tries again.
    #[error("{log} could not be opened: {source}")]
    NotOpened {
        /// The log concerned.
        log: String,
        /// Why.
        #[source]
        source: Arc<Error>,
    },

    /// A segment holds messages of format 0 or 1. The file stays as it is.
    #[error("{file} at {position}: {source}")]
    UnsupportedMessageFormat {
        /// The segment file, relative to the data directory.
        file: String,
        /// The byte where the first such message begins.
        position: Position,
        /// [`DecodeError::OldFormat`], with the format.
        #[source]
        source: DecodeError,
    },

    /// The store or log was closed.
    #[error("the log is closed")]
    Closed,

    /// The log is open for reading only.
    #[error("the log is attached read-only")]
    ReadOnly,

    /// The handle was made before a `fork`, and this is the child: open the store again here.
    #[error("this handle belongs to the parent process; open or attach again after fork")]
    Forked,
}

/// What was found where a valid batch was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DamageKind {
    /// The bytes are not a valid batch.
    #[error("{0}")]
    Batch(#[from] DecodeError),
    /// The compressed records inside a valid batch cannot be decompressed.
    #[error("{0}")]
    Compression(#[from] CodecError),
    /// The batch there starts at another offset, so records between are missing.
    #[error("found offset {found} instead")]
    WrongOffset {
        /// Base offset of the batch found.
        found: Offset,
    },
    /// The file ends there although the log goes on behind it.
    #[error("the segment ends there, the next one begins at offset {next}")]
    SegmentEndsEarly {
        /// Base offset of the next segment.
        next: Offset,
    },
    /// The log ends there, although the checkpoint knows more of it to have been durable.
    #[error("the log ends there, and everything below offset {recovery_point} was durable")]
    LogEndsEarly {
        /// The recovery point: where the durable part ended.
        recovery_point: Offset,
    },
    /// The batch holds, and belongs to a transaction whose marker may be among what is damaged behind it: a reader of
    /// committed records does not give it out.
    #[error("the marker of their transaction is damaged or missing, so they are not known to be committed")]
    OutcomeInDoubt,
    /// The disk could not read the bytes.
    #[error("unreadable: {0}")]
    Unreadable(#[source] io::Error),
}

impl Error {
    /// Kafka's error code, where Kafka has one for this.
    pub fn kafka_code(&self) -> Option<i16> {
        Some(match self {
            Error::OffsetOutOfRange { .. } | Error::OffsetsUsedUp { .. } => 1,
            Error::CorruptRecord { .. } | Error::CorruptBatch { .. } => 2,
            Error::UnknownTopicOrPartition { .. } => 3,
            Error::RecordTooLarge { .. }
            | Error::NotDecompressed { source: CodecError::TooLarge { .. }, .. }
            | Error::Compression(CodecError::TooLarge { .. }) => 10,
            Error::InvalidTopic { .. } => 17,
            Error::RecordBatchTooLarge { .. } => 18,
            Error::InvalidTimestamp { .. } => 32,
            Error::UnsupportedVersion { .. } => 35,
            Error::TopicExists { .. } => 36,
            Error::InvalidPartitions { .. } => 37,
            Error::InvalidConfig { .. } => 40,
            Error::UnsupportedMessageFormat { .. } => 43,
            Error::NotOpened { source, .. } => return source.kafka_code(),
            Error::Storage { .. } | Error::LogFailed { .. } | Error::PreviousIo { .. } => 56,
            Error::FencedLeaderEpoch { .. } => 74,
            Error::UnknownLeaderEpoch { .. } => 75,
            Error::LogReplaced { .. } => 103,
            Error::NotDecompressed { source: CodecError::OutOfMemory { .. }, .. }
            | Error::Compression(CodecError::OutOfMemory { .. })
            | Error::DataDirLocked(_)
            | Error::Closed
            | Error::ReadOnly
            | Error::Forked
            | Error::TooManyTransactions { .. } => return None,
            Error::Compression(_) | Error::NotDecompressed { .. } => 76,
            Error::InvalidRecord(_) => 87,
        })
    }

    /// Whether the same call on the same handle may succeed later, when time has passed or room was freed: a full disk
    /// or quota, where the log is still writable, or memory that the system did not have. An error that made the log
    /// read-only is not retriable ([`Error::LogFailed`], [`Error::PreviousIo`]): the store has to be opened again
    /// first.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::NotDecompressed { source: CodecError::OutOfMemory { .. }, .. }
            | Error::Compression(CodecError::OutOfMemory { .. }) => true,
            Error::Storage { .. } => self.is_storage_full(),
            _ => false,
        }
    }

    /// Whether the error says that there is no room on the disk (or in its quota).
    pub fn is_storage_full(&self) -> bool {
        match self {
            Error::Storage { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Error::LogFailed { source, .. } => source.is_storage_full(),
            Error::NotOpened { source, .. } => source.is_storage_full(),
            _ => false,
        }
    }

    /// Whether the error reports bytes in a file that cannot be read as records: damage, or an old message format.
    pub fn is_corrupt(&self) -> bool {
        match self {
            Error::CorruptRecord { .. } | Error::CorruptBatch { .. } | Error::UnsupportedMessageFormat { .. } => true,
            Error::NotOpened { source, .. } => source.is_corrupt(),
            _ => false,
        }
    }

    /// Whether the error reports that files that this process was writing are not, or may not be, where their names
    /// lead any more: another program has moved, removed or replaced them, their directory, or the store's lock file.
    /// What was acknowledged stands in those files, as far as they still exist.
    pub fn is_out_of_place(&self) -> bool {
        match self {
            Error::Storage { source, .. } => source.to_string().contains(WHILE_IN_USE),
            Error::LogFailed { source, .. } => source.is_out_of_place(),
            Error::NotOpened { source, .. } => source.is_out_of_place(),
            Error::PreviousIo { reason, .. } => reason.contains(WHILE_IN_USE),
            _ => false,
        }
    }

    /// The same error of a file operation that has made `log` read-only; other errors as they are.
    pub(crate) fn made_read_only(self, log: &impl std::fmt::Display) -> Error {
        match self {
            Error::Storage { .. } => Error::LogFailed { log: log.to_string(), source: Box::new(self) },
            other => other,
        }
    }

    /// The given file operation's error, with what was being done to what.
    pub(crate) fn storage(operation: &'static str, path: &str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Storage { operation, path: path.to_owned(), source }
    }
}

/// What an encoding error means to the caller of an append.
impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Error {
        match error {
            EncodeError::RecordTooLarge { given, max } => {
                let bounded = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
                Error::RecordTooLarge { given: bounded(given), max: bounded(max) }
            }
            EncodeError::TimestampOutOfRange { given, .. } => Error::InvalidTimestamp { given },
            EncodeError::BufferTooSmall { needed, available } => {
                Error::RecordTooLarge { given: needed, max: available }
            }
            _ => Error::RecordTooLarge { given: usize::MAX, max: i32::MAX as usize },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_are_escaped_and_cut() {
        let name = format!("x\u{1b}[2J\n{}", "y".repeat(60_000));
        let errors = [
            Error::storage("open", &name[..20])(io::ErrorKind::NotFound.into()),
            Error::UnknownTopicOrPartition { name: name.clone() },
            Error::InvalidTopic { name: name.clone(), reason: "it is too long" },
            Error::InvalidConfig {
                key: name.clone(),
                value: name.clone(),
                source: ConfigError::UnknownKey { nearest: None },
            },
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains(r"x\u{1b}[2J\nyyy") && text.chars().all(crate::escape::is_plain), "{text}");
            assert!(text.len() < 700, "{} bytes", text.len());
        }
    }

    #[test]
    fn classes_say_what_a_caller_can_do() {
        let full = || Error::storage("write", "t-0/0.log")(io::ErrorKind::StorageFull.into());
        let (retriable, failed) = (full(), full().made_read_only(&"t-0"));
        assert!(retriable.is_retriable() && retriable.is_storage_full());
        assert!(!failed.is_retriable() && failed.is_storage_full(), "the log is read-only until the store is reopened");
        assert!(failed.to_string().contains("t-0 is read-only from here on"), "{failed}");
        let other = Error::storage("write", "t-0/0.log")(io::ErrorKind::PermissionDenied.into());
        assert!(!other.is_retriable() && !other.is_storage_full());

        let old = Error::UnsupportedMessageFormat {
            file: "t-0/0.log".to_owned(),
            position: Position(0),
            source: DecodeError::OldFormat { magic: 1 },
        };
        assert!(old.is_corrupt() && old.to_string().contains("message format 1"), "{old}");
        let unopened = Error::NotOpened { log: "t-0".to_owned(), source: Arc::new(old) };
        assert!(unopened.is_corrupt() && unopened.kafka_code() == Some(43), "{unopened}");
        let unopened = Error::NotOpened { log: "t-0".to_owned(), source: Arc::new(other) };
        assert!(!unopened.is_corrupt() && unopened.kafka_code() == Some(56), "{unopened}");
    }
}
