//! The records of `__consumer_offsets`, as Kafka's group coordinator writes them.
//!
//! A commit is a record. Its key is `OffsetCommitKey` of version 1, its value `OffsetCommitValue` of version 4; a value
//! of null says that the position is deleted. All numbers are big-endian.
//!
//! | key | size | field |
//! |---|---|---|
//! | 0 | 2 | version, 1 |
//! | 2 | 2 + n | the group |
//! | ... | 2 + n | the topic |
//! | ... | 4 | the partition |
//!
//! | value | size | field |
//! |---|---|---|
//! | 0 | 2 | version, 4 |
//! | 2 | 8 | the offset that is to be read next |
//! | 10 | 4 | the leader epoch of the record before; -1: not known |
//! | 14 | varint, n | the metadata: its length and one |
//! | ... | 8 | when it was committed, in milliseconds since 1970 |
//! | ... | 1 | tagged fields: one |
//! | ... | 2 | tag 0, of 16 bytes |
//! | ... | 16 | the log's id, where Kafka has its topic's id |
//!
//! Versions 0 to 3, which have no id, are read as well.

use edgelog_core::{LeaderEpoch, LogId, Offset, TimestampMs};

use super::bytes::{Bytes, put_varint};
use crate::log::TopicPartition;

/// Metadata beyond this is refused, as Kafka's `offset.metadata.max.bytes` has it.
pub(crate) const METADATA_BYTES_MAX: usize = 4096;
const KEY_VERSION: i16 = 1;
const VALUE_VERSION: i16 = 4;

/// A position as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset that is to be read next.
    pub offset: Offset,
    /// The leader epoch of the record before it; `None` where that is not known.
    pub leader_epoch: Option<LeaderEpoch>,
    /// What the program keeps with it.
    pub metadata: String,
    /// When it was committed, in milliseconds since 1970.
    pub commit_timestamp: TimestampMs,
    /// Of the log that the offset is one of; `None` where the record does not name one, as those of older brokers.
    pub log_id: Option<LogId>,
}

/// What a record of the log says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The position of a partition; `None`: it has none any more.
    Offset(String, TopicPartition, Option<CommittedOffset>),
    /// A record of Kafka's that says nothing of positions.
    Other,
    /// A position in a form that is not known here, or that is damaged.
    Unreadable,
}

/// Appends the key of the partition's position.
pub(super) fn put_key(out: &mut Vec<u8>, group: &str, name: &TopicPartition) {
    out.extend_from_slice(&KEY_VERSION.to_be_bytes());
    for text in [group, &name.topic] {
        out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(&(name.partition as i32).to_be_bytes());
}

/// Appends the value that says this position.
pub(super) fn put_value(out: &mut Vec<u8>, position: &CommittedOffset) {
    out.extend_from_slice(&VALUE_VERSION.to_be_bytes());
    out.extend_from_slice(&position.offset.0.to_be_bytes());
    out.extend_from_slice(&position.leader_epoch.unwrap_or(edgelog_core::NO_LEADER_EPOCH).0.to_be_bytes());
    put_varint(out, position.metadata.len() as u32 + 1);
    out.extend_from_slice(position.metadata.as_bytes());
    out.extend_from_slice(&position.commit_timestamp.0.to_be_bytes());
    match position.log_id {
        None => out.push(0),
        Some(id) => {
            out.extend_from_slice(&[1, 0, 16]);
            out.extend_from_slice(&id.to_bytes());
        }
    }
}

/// What a record says.
pub(super) fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Entry {
    let Some(key) = key else { return Entry::Unreadable };
    let mut key = Bytes(key);
    match key.i16() {
        Some(0..=KEY_VERSION) => {}
        // Of a group, a member, an assignment.
        Some(2..) => return Entry::Other,
        _ => return Entry::Unreadable,
    }
    let (Some(group), Some(topic), Some(partition)) = (key.string(), key.string(), key.i32()) else {
        return Entry::Unreadable;
    };
    let Ok(partition) = u32::try_from(partition) else { return Entry::Unreadable };
    let name = TopicPartition::new(topic, partition);
    match value {
        None => Entry::Offset(group, name, None),
        Some(value) => match parse_value(Bytes(value)) {
            Some(position) => Entry::Offset(group, name, Some(position)),
            None => Entry::Unreadable,
        },
    }
}

fn parse_value(mut bytes: Bytes<'_>) -> Option<CommittedOffset> {
    let version = bytes.i16().filter(|version| (0..=VALUE_VERSION).contains(version))?;
    let offset = Offset(bytes.i64()?);
    let leader_epoch = if version >= 3 { LeaderEpoch(bytes.i32()?) } else { edgelog_core::NO_LEADER_EPOCH };
    let metadata = if version >= 4 { bytes.compact_string()? } else { bytes.string()? };
    let commit_timestamp = TimestampMs(bytes.i64()?);
    let mut log_id = None;
    if version >= 4 {
        for _ in 0..bytes.varint()? {
            let (tag, field) = bytes.tagged_field()?;
            if tag == 0 {
                log_id = Some(LogId::from_bytes(field.try_into().ok()?)).filter(|id| *id != LogId::ZERO);
            }
        }
    }
    let leader_epoch = Some(leader_epoch).filter(|epoch| *epoch >= 0);
    (offset >= 0).then_some(CommittedOffset { offset, leader_epoch, metadata, commit_timestamp, log_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position() -> CommittedOffset {
        CommittedOffset {
            offset: Offset(0x0102),
            leader_epoch: Some(LeaderEpoch(3)),
            metadata: "m".to_owned(),
            commit_timestamp: TimestampMs(0x0405),
            log_id: Some(LogId::from_bytes([0xab; 16])),
        }
    }

    #[test]
    fn a_commit_is_the_bytes_that_kafka_writes() {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        put_key(&mut key, "g", &TopicPartition::new("t", 7));
        put_value(&mut value, &position());
        assert_eq!(key, [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 7]);
        let mut expected = vec![0, 4, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 2, b'm', 0, 0, 0, 0, 0, 0, 4, 5, 1, 0, 16];
        expected.extend([0xab; 16]);
        assert_eq!(value, expected);
        let parsed = parse(Some(&key), Some(&value));
        assert_eq!(parsed, Entry::Offset("g".into(), TopicPartition::new("t", 7), Some(position())));
        assert_eq!(parse(Some(&key), None), Entry::Offset("g".into(), TopicPartition::new("t", 7), None));
    }

    #[test]
    fn older_versions_are_read_and_nothing_damaged_is_obeyed() {
        let mut key = Vec::new();
        put_key(&mut key, "g", &TopicPartition::new("t", 7));
        // Version 3: no id, and the metadata's length in two bytes.
        let old = [0, 3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 4, 5];
        let Entry::Offset(_, _, Some(found)) = parse(Some(&key), Some(&old)) else { panic!("it is read") };
        assert_eq!(found, CommittedOffset { log_id: None, ..position() });
        let mut value = Vec::new();
        put_value(&mut value, &position());
        for len in 0..value.len() {
            assert_eq!(parse(Some(&key), Some(&value[..len])), Entry::Unreadable, "{len} bytes");
        }
        for len in 0..key.len() {
            assert_eq!(parse(Some(&key[..len]), Some(&value)), Entry::Unreadable, "{len} bytes");
        }
        value[1] = 5;
        assert_eq!(parse(Some(&key), Some(&value)), Entry::Unreadable);
        assert_eq!(parse(Some(&[0, 3, 0, 1, b'g']), None), Entry::Other);
        assert_eq!(parse(None, None), Entry::Unreadable);
    }
}
