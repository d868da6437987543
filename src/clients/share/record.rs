//! The records of `__share_group_state`, as Kafka's share coordinator writes them.
//!
//! A snapshot (key type 0) is the whole state of a share-partition, an update (key type 1) what has changed since. All
//! numbers are big-endian, arrays begin with their length and one as a varint.
//!
//! | key | size | field |
//! |---|---|---|
//! | 0 | 2 | type: 0 is a snapshot, 1 an update |
//! | 2 | 2 + n | the group |
//! | ... | 16 | the log's id, where Kafka has its topic's id |
//! | ... | 4 | the partition |
//!
//! | value | size | field |
//! |---|---|---|
//! | 0 | 2 | version, 0 |
//! | 2 | 4 | the snapshot's epoch |
//! | 6 | 4 | the state's epoch, of snapshots alone |
//! | ... | 4 | the leader epoch |
//! | ... | 8 | the start offset; -1 in an update: as it was |
//! | ... | 16 | when it was created and written, of snapshots alone |
//! | ... | varint | state batches: first offset (8), last offset (8), state (1), count (2), tagged fields: none (1) |
//! | ... | varint | tagged fields: none, or one |
//!
//! A record that is set aside has state 3 until its dead letter is durable. What that dead letter is stands in a tagged
//! field of our own, which Kafka's readers pass over: number 17764, its length (varint), and
//!
//! | size | field |
//! |---|---|
//! | 2 + n | the topic that the records are of |
//! | 11 + n | of each partition of a dead letter topic: store (1), topic (2 + n), number (4), count of records (4) |
//! | 19 | of each of its records: offset (8), the dead letter's number (8), delivery count (2), cause (1) |
//!
//! The store is 0 where the topic is in that of the records, 1 where it is in the group's own. The cause is 0 of a
//! record that was rejected, 1 of one that came too often, 2 of one that expired.

use edgelog_core::{LeaderEpoch, LogId, Offset, TimestampMs};

use super::table::{Cause, Change, DeliveryState};
use crate::canary::{Bug, bug};
use crate::clients::dead_letter::{Home, Target};
use crate::clients::group::{Bytes, put_varint};

const BATCH_BYTES: usize = 20;
const SET_ASIDE_TAG: u32 = 17_764;
const SET_ASIDE_BYTES: usize = 19;
const CAUSES: [Cause; 3] = [Cause::Rejected, Cause::DeliveryCountExceeded, Cause::Expired];

/// Which share-partition a record is of: its log's id and its number.
pub(super) type Key = (LogId, u32);

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    State {
        group: String,
        key: Key,
        state: State,
    },
    /// The share-partition has no state any more.
    Deleted {
        group: String,
        key: Key,
    },
    Other,
    Unreadable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) is_snapshot: bool,
    pub(super) snapshot_epoch: i32,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) start: Option<Offset>,
    /// First and last offset, what they are, and how often they came.
    pub(super) batches: Vec<(Offset, Offset, DeliveryState, u16)>,
    /// The records that are set aside, and the topic that they are of.
    pub(super) set_aside: Option<(String, Vec<SetAside>)>,
}

/// A record that is set aside: where its dead letter goes, and under which number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SetAside {
    pub(super) offset: Offset,
    pub(super) count: u16,
    pub(super) cause: Cause,
    pub(super) number: i64,
    pub(super) target: Target,
}

pub(super) fn put_key(out: &mut Vec<u8>, is_snapshot: bool, group: &str, key: Key) {
    out.extend_from_slice(&i16::from(!is_snapshot).to_be_bytes());
    out.extend_from_slice(&(group.len() as u16).to_be_bytes());
    out.extend_from_slice(group.as_bytes());
    out.extend_from_slice(&key.0.to_bytes());
    out.extend_from_slice(&(key.1 as i32).to_be_bytes());
}

/// What stands before the state batches, and how many of them follow.
pub(super) struct Head {
    pub(super) is_snapshot: bool,
    pub(super) snapshot_epoch: i32,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) start: Offset,
    pub(super) now: TimestampMs,
}

/// Appends a value. The changes are in the order of their offsets; neighbours of one kind become one state batch. Those
/// that set a record of `topic` aside are in `set_aside` as well.
pub(super) fn put_value(out: &mut Vec<u8>, head: &Head, changes: &[Change], topic: &str, set_aside: &[&SetAside]) {
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&head.snapshot_epoch.to_be_bytes());
    if head.is_snapshot {
        out.extend_from_slice(&0_i32.to_be_bytes());
    }
    out.extend_from_slice(&head.leader_epoch.0.to_be_bytes());
    out.extend_from_slice(&head.start.0.to_be_bytes());
    if head.is_snapshot {
        out.extend_from_slice(&head.now.0.to_be_bytes());
        out.extend_from_slice(&head.now.0.to_be_bytes());
    }
    put_varint(out, runs(changes).count() as u32 + 1);
    for run in runs(changes) {
        let (first, last) = (run[0], run[run.len() - 1]);
        out.extend_from_slice(&first.offset.0.to_be_bytes());
        out.extend_from_slice(&last.offset.0.to_be_bytes());
        out.push(match first.state {
            DeliveryState::Available | DeliveryState::Acquired => 0,
            DeliveryState::Acknowledged => 2,
            DeliveryState::Archiving(_) => 3,
            DeliveryState::Archived => 4,
        });
        let count = if bug(Bug::ForgetDeliveryCounts) { 0 } else { first.count };
        out.extend_from_slice(&(count as i16).to_be_bytes());
        out.push(0);
    }
    out.push(u8::from(!set_aside.is_empty()));
    if !set_aside.is_empty() {
        let mut field = Vec::new();
        put_set_aside(&mut field, topic, set_aside);
        put_varint(out, SET_ASIDE_TAG);
        put_varint(out, field.len() as u32);
        out.extend_from_slice(&field);
    }
}

fn put_set_aside(out: &mut Vec<u8>, topic: &str, set_aside: &[&SetAside]) {
    let put_text = |out: &mut Vec<u8>, text: &str| {
        out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    };
    put_text(out, topic);
    for of_one in set_aside.chunk_by(|a, b| a.target == b.target) {
        let Target { home, topic, partition } = &of_one[0].target;
        out.push(u8::from(*home == Home::Group));
        put_text(out, topic);
        out.extend_from_slice(&(*partition as i32).to_be_bytes());
        out.extend_from_slice(&(of_one.len() as i32).to_be_bytes());
        for one in of_one {
            out.extend_from_slice(&one.offset.0.to_be_bytes());
            out.extend_from_slice(&one.number.to_be_bytes());
            out.extend_from_slice(&(one.count as i16).to_be_bytes());
            out.push(CAUSES.iter().position(|cause| *cause == one.cause).unwrap_or_default() as u8);
        }
    }
}

fn parse_set_aside(mut bytes: Bytes<'_>) -> Option<(String, Vec<SetAside>)> {
    let (source, mut found) = (bytes.string()?, Vec::new());
    while !bytes.0.is_empty() {
        let home = if bytes.array()? == [0] { Home::Store } else { Home::Group };
        let (topic, partition) = (bytes.string()?, u32::try_from(bytes.i32()?).ok()?);
        let target = Target { home, topic, partition };
        let count = usize::try_from(bytes.i32()?).ok()?;
        if count > bytes.0.len() / SET_ASIDE_BYTES {
            return None;
        }
        for _ in 0..count {
            let (offset, number) = (Offset(bytes.i64()?), bytes.i64()?);
            let count = u16::try_from(bytes.i16()?).ok()?;
            let [cause] = bytes.array()?;
            let cause = *CAUSES.get(usize::from(cause))?;
            found.push(SetAside { offset, count, cause, number, target: target.clone() });
        }
    }
    Some((source, found))
}

/// Neighbours of one kind. A lock is not written, and so no renewal.
fn runs(changes: &[Change]) -> impl Iterator<Item = &[Change]> {
    let runs = changes.chunk_by(|a, b| a.offset + 1 == b.offset && a.state == b.state && a.count == b.count);
    runs.filter(|run| run[0].state != DeliveryState::Acquired)
}

pub(super) fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Entry {
    let Some(key) = key else { return Entry::Unreadable };
    let mut key = Bytes(key);
    let is_snapshot = match key.i16() {
        Some(0) => true,
        Some(1) => false,
        Some(2..) => return Entry::Other,
        _ => return Entry::Unreadable,
    };
    let Some((group, key)) = parse_key(key) else { return Entry::Unreadable };
    let Some(value) = value else { return Entry::Deleted { group, key } };
    match parse_value(Bytes(value), is_snapshot) {
        Some(state) => Entry::State { group, key, state },
        None => Entry::Unreadable,
    }
}

fn parse_key(mut key: Bytes<'_>) -> Option<(String, Key)> {
    let group = key.string()?;
    let id = LogId::from_bytes(key.array()?);
    let partition = u32::try_from(key.i32()?).ok()?;
    Some((group, (id, partition)))
}

fn parse_value(mut bytes: Bytes<'_>, is_snapshot: bool) -> Option<State> {
    if bytes.array()? != [0, 0] {
        return None;
    }
    let snapshot_epoch = bytes.i32()?;
    if is_snapshot {
        bytes.take(4)?;
    }
    let leader_epoch = LeaderEpoch(bytes.i32()?);
    let start = Offset(bytes.i64()?);
    if is_snapshot {
        bytes.take(16)?;
    }
    let count = bytes.varint()?.checked_sub(1)? as usize;
    if count > bytes.0.len() / BATCH_BYTES {
        return None;
    }
    let mut batches = Vec::with_capacity(count);
    for _ in 0..count {
        let (first, last) = (bytes.i64()?, bytes.i64()?);
        let state = match bytes.array()? {
            [0] => DeliveryState::Available,
            [2] => DeliveryState::Acknowledged,
            // What we set aside is in the tagged field. What Kafka does, it finishes itself.
            [3 | 4] => DeliveryState::Archived,
            _ => return None,
        };
        let count = u16::try_from(bytes.i16()?).ok()?;
        pass_tagged_fields(&mut bytes)?;
        if first < 0 || last < first {
            return None;
        }
        batches.push((Offset(first), Offset(last), state, count));
    }
    let mut set_aside = None;
    for _ in 0..bytes.varint()? {
        let (tag, field) = bytes.tagged_field()?;
        if tag == SET_ASIDE_TAG {
            set_aside = Some(parse_set_aside(Bytes(field))?);
        }
    }
    let start = Some(start).filter(|start| *start >= 0);
    Some(State { is_snapshot, snapshot_epoch, leader_epoch, start, batches, set_aside })
}

fn pass_tagged_fields(bytes: &mut Bytes<'_>) -> Option<()> {
    for _ in 0..bytes.varint()? {
        bytes.tagged_field()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(offset: i64, state: DeliveryState, count: u16) -> Change {
        Change { offset: Offset(offset), state, count }
    }

    fn head(is_snapshot: bool) -> Head {
        Head { is_snapshot, snapshot_epoch: 3, leader_epoch: LeaderEpoch(4), start: Offset(9), now: TimestampMs(5) }
    }

    fn set_aside_state() -> DeliveryState {
        DeliveryState::Archiving(Cause::Rejected)
    }

    fn aside(n: i64) -> SetAside {
        let home = if n < 2 { Home::Group } else { Home::Store };
        let cause = CAUSES[n as usize % CAUSES.len()];
        let target = Target { home, topic: "dlq.t".to_owned(), partition: 2 };
        SetAside { offset: Offset(10 + n), count: 5, cause, number: 7 + n, target }
    }

    #[test]
    fn an_update_is_the_bytes_that_kafka_writes() {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        put_key(&mut key, false, "g", (LogId::from_bytes([0xab; 16]), 7));
        let expected = [&[0, 1, 0, 1, b'g'][..], &[0xab; 16], &[0, 0, 0, 7]].concat();
        assert_eq!(key, expected);
        let (done, back) = (DeliveryState::Acknowledged, DeliveryState::Available);
        put_value(&mut value, &head(false), &[change(9, back, 4), change(10, done, 1), change(11, done, 1)], "t", &[]);
        let expected = [
            &[0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9, 3][..],
            &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 4, 0],
            &[0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 11, 2, 0, 1, 0],
            &[0],
        ];
        assert_eq!(value, expected.concat());
    }

    /// Kafka's decoder passes over the tagged field.
    #[test]
    fn what_is_set_aside_stands_in_a_tagged_field() {
        let target = Target { home: Home::Store, topic: "dlq.jobs".to_owned(), partition: 1 };
        let cause = Cause::DeliveryCountExceeded;
        let one = SetAside { offset: Offset(10), count: 5, cause, number: 7, target };
        let mut value = Vec::new();
        put_value(&mut value, &head(false), &[change(10, DeliveryState::Archiving(cause), 5)], "jobs", &[&one]);
        let field = [
            &b"\0\x04jobs\0\0\x08dlq.jobs\0\0\0\x01\0\0\0\x01"[..],
            &[0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 5, 1],
        ];
        let expected = [
            &[0, 0, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9, 2][..],
            &[0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 10, 3, 0, 5, 0],
            &[1, 0xe4, 0x8a, 0x01, 44],
            &field.concat(),
        ];
        assert_eq!(value, expected.concat());
    }

    #[test]
    fn what_was_written_is_read_and_nothing_damaged_is_obeyed() {
        for is_snapshot in [true, false] {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            put_key(&mut key, is_snapshot, "g", (LogId::from_bytes([1; 16]), 2));
            let set_aside: Vec<_> = (0..3).map(aside).collect();
            let changes = [change(9, DeliveryState::Archived, 5), change(10, set_aside_state(), 5)];
            put_value(&mut value, &head(is_snapshot), &changes, "jobs", &set_aside.iter().collect::<Vec<_>>());
            let archived = |offset| (Offset(offset), Offset(offset), DeliveryState::Archived, 5);
            let state = State {
                is_snapshot,
                snapshot_epoch: 3,
                leader_epoch: LeaderEpoch(4),
                start: Some(Offset(9)),
                batches: vec![archived(9), archived(10)],
                set_aside: Some(("jobs".to_owned(), set_aside)),
            };
            let found = parse(Some(&key), Some(&value));
            assert_eq!(found, Entry::State { group: "g".into(), key: (LogId::from_bytes([1; 16]), 2), state });
            let deleted = parse(Some(&key), None);
            assert_eq!(deleted, Entry::Deleted { group: "g".into(), key: (LogId::from_bytes([1; 16]), 2) });
            for len in 0..value.len() {
                assert_eq!(parse(Some(&key), Some(&value[..len])), Entry::Unreadable, "{len} bytes");
            }
            for len in 0..key.len() {
                assert_eq!(parse(Some(&key[..len]), Some(&value)), Entry::Unreadable, "{len} bytes");
            }
        }
    }
}
