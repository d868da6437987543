//! The words of the log's interface: what goes in, what comes back, and where one stands.

use std::fmt;
use std::str::FromStr;

use edgelog_core::config::IsolationLevel;
use edgelog_core::{Header, LeaderEpoch, Offset, OffsetAndEpoch, TimestampMs};

use crate::error::{Error, Result};

/// A topic's name is at most this long, as in Kafka.
const TOPIC_NAME_LEN_MAX: usize = 249;

/// One partition of one topic: the name of a log, printed as Kafka names its directory, `topic-partition`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: String,
    /// The partition, counted from 0.
    pub partition: u32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`; the topic's name is checked where a log is made.
    pub fn new(topic: impl Into<String>, partition: u32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }

    /// Parses a directory's name, split at the last `-` as Kafka does.
    pub(crate) fn parse_dir(name: &str) -> Option<TopicPartition> {
        let (topic, partition) = name.rsplit_once('-')?;
        let canonical =
            partition == "0" || (partition.bytes().all(|b| b.is_ascii_digit()) && !partition.starts_with('0'));
        if !canonical || check_topic_name(topic).is_err() {
            return None;
        }
        Some(TopicPartition { topic: topic.to_owned(), partition: partition.parse().ok()? })
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl FromStr for TopicPartition {
    type Err = Error;

    /// Reads `topic-partition`, split at the last dash. Whether there is such a log is another question.
    ///
    /// # Errors
    /// [`Error::InvalidTopic`] for text that names no partition.
    fn from_str(name: &str) -> Result<TopicPartition> {
        let reason = "a partition is named by its topic, a dash and its number, as its directory is";
        TopicPartition::parse_dir(name).ok_or_else(|| Error::InvalidTopic { name: name.to_owned(), reason })
    }
}

/// `offset 5`, `offsets 5 to 9`: the offsets `first..next` in the words of every report. At least one is named.
pub(crate) fn offsets_in_words(first: Offset, next: Offset) -> String {
    let last = next.saturating_sub(1);
    if last <= first { format!("offset {first}") } else { format!("offsets {first} to {last}") }
}

/// Kafka's rules for a topic's name: 1 to 249 of `a-z A-Z 0-9 . _ -`, and not `.` or `..`.
pub(crate) fn check_topic_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > TOPIC_NAME_LEN_MAX {
        "it is longer than 249 bytes"
    } else if name == "." || name == ".." {
        "it is a path"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        "only ASCII letters, digits, '.', '_' and '-' are allowed"
    } else {
        return Ok(());
    };
    Err(Error::InvalidTopic { name: name.to_owned(), reason })
}

/// When an append returns, and so what a power cut can still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// After the bytes are in the operating system's page cache (`acks=1`). Survives a crash of the process;
    /// a power cut takes what the kernel had not written yet, up to half a minute with usual settings.
    Os,
    /// Like [`Os`](Durability::Os), and the bytes are flushed within `flush.ms` (one second where the log has
    /// none).
    Interval,
    /// After the bytes are on the disk (`acks=all`), the default. Concurrent appenders share one flush.
    Sync,
}

/// A record to append, borrowed from its caller.
///
/// ```
/// # use edgelog::{NewRecord, TimestampMs};
/// let record = NewRecord::value(b"21.5 C").with_key(b"boiler").with_timestamp(TimestampMs(1_700_000_000_000));
/// # assert_eq!(record.key, Some(&b"boiler"[..]));
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NewRecord<'a> {
    /// The key; `None` is Kafka's null key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since 1970; `None` lets the store's clock say.
    pub timestamp: Option<TimestampMs>,
}

impl<'a> NewRecord<'a> {
    /// A record with this key and value, each of which may be Kafka's null, no headers, stamped at the append.
    pub fn new(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> NewRecord<'a> {
        NewRecord { key, value, ..NewRecord::default() }
    }

    /// A record with this value, no key, no headers, stamped at the append.
    pub fn value(value: &'a [u8]) -> NewRecord<'a> {
        NewRecord { value: Some(value), ..NewRecord::default() }
    }

    /// A record that says the key's value is gone.
    pub fn tombstone(key: &'a [u8]) -> NewRecord<'a> {
        NewRecord { key: Some(key), ..NewRecord::default() }
    }

    /// The same record with a key.
    #[must_use]
    pub fn with_key(self, key: &'a [u8]) -> NewRecord<'a> {
        NewRecord { key: Some(key), ..self }
    }

    /// The same record with headers.
    #[must_use]
    pub fn with_headers(self, headers: &'a [Header<'a>]) -> NewRecord<'a> {
        NewRecord { headers, ..self }
    }

    /// The same record with its own timestamp.
    #[must_use]
    pub fn with_timestamp(self, timestamp: TimestampMs) -> NewRecord<'a> {
        NewRecord { timestamp: Some(timestamp), ..self }
    }
}

/// Where an append's records stand now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendInfo {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Offset of the last record.
    pub last_offset: Offset,
    /// The leader epoch that they were written in: with an offset it names this data and no other.
    pub leader_epoch: LeaderEpoch,
    /// Largest timestamp among them.
    pub max_timestamp: TimestampMs,
}

impl AppendInfo {
    /// The first record's position, safe to keep across restarts: should a power cut take the record back,
    /// the position answers [`Error::FencedLeaderEpoch`] and never other data.
    pub fn position(&self) -> OffsetAndEpoch {
        OffsetAndEpoch { offset: self.base_offset, leader_epoch: self.leader_epoch }
    }
}

/// Where a reader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffsetSpec {
    /// At the first record that the log still holds.
    Earliest,
    /// Behind the last acknowledged record: only new ones follow.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At a position that was handed out before; fails where its history was truncated.
    Position(OffsetAndEpoch),
    /// At the first record with this timestamp (milliseconds since 1970) or a later one; at the end where
    /// there is none.
    Timestamp(TimestampMs),
    /// So many records before the end, or at the first where there are fewer.
    Last(u64),
}

/// How far a reader may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ReadUpTo {
    /// What was acknowledged to its appender: the high watermark.
    #[default]
    HighWatermark,
    /// Everything appended, acknowledged or not: the log end offset.
    LogEnd,
    /// Only what no power cut can take: the recovery point.
    Durable,
}

/// How a reader reads.
///
/// ```
/// # use edgelog::{ReadUpTo, ReaderOptions};
/// let options = ReaderOptions::default().up_to(ReadUpTo::Durable).check_crcs(false);
/// # assert!(!options.check_crcs);
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ReaderOptions {
    /// How far it may read.
    pub up_to: ReadUpTo,
    /// Whether each batch's CRC-32C is checked before it is handed out (`check.crcs`, default true).
    pub check_crcs: bool,
    /// Whether records of aborted transactions are left out (`isolation.level`, default `read_uncommitted`).
    pub isolation: IsolationLevel,
}

impl Default for ReaderOptions {
    fn default() -> ReaderOptions {
        ReaderOptions { up_to: ReadUpTo::HighWatermark, check_crcs: true, isolation: IsolationLevel::ReadUncommitted }
    }
}

impl ReaderOptions {
    /// The same, reading up to there.
    #[must_use]
    pub fn up_to(self, up_to: ReadUpTo) -> ReaderOptions {
        ReaderOptions { up_to, ..self }
    }

    /// The same, with each batch's CRC-32C checked or not.
    #[must_use]
    pub fn check_crcs(self, check_crcs: bool) -> ReaderOptions {
        ReaderOptions { check_crcs, ..self }
    }

    /// The same, with or without the records of aborted transactions.
    #[must_use]
    pub fn isolation(self, isolation: IsolationLevel) -> ReaderOptions {
        ReaderOptions { isolation, ..self }
    }
}

/// The four offsets of a log at one moment: `log_start_offset <= high_watermark <= log_end_offset`, and
/// `recovery_point <= log_end_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOffsets {
    /// First offset that the log holds.
    pub log_start_offset: Offset,
    /// Readers stop here: everything below was acknowledged.
    pub high_watermark: Offset,
    /// Everything below is durable.
    pub recovery_point: Offset,
    /// The offset that the next record gets.
    pub log_end_offset: Offset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_name_is_split_at_the_last_dash() {
        assert_eq!(TopicPartition::parse_dir("a-b-12"), Some(TopicPartition::new("a-b", 12)));
        for bad in ["a", "a-", "-1", "a-01", "a-+1", "a b-0", "a-99999999999", "a-1.x-delete"] {
            assert_eq!(TopicPartition::parse_dir(bad), None, "{bad}");
            assert!(matches!(bad.parse::<TopicPartition>(), Err(Error::InvalidTopic { .. })), "{bad}");
        }
    }
}
