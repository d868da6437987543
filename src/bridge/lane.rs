//! One local log on its way to one target partition: where it stands, and whether a position that somebody remembers is
//! one of this log's.

use edgelog_core::{Offset, OffsetAndEpoch};
use uuid::Uuid;

use super::cluster::Coordinated;
use super::position::{BatchMark, Position};
use crate::error::Error;
use crate::{Log, OffsetSpec, ReadUpTo, Reader, ReaderOptions, TopicPartition};

/// Where a log's records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) partition: i32,
    pub(super) topic_id: Uuid,
}

/// What a broker allows where it does not tell: 1 MiB and the 12 bytes before a batch's length.
pub(super) const MAX_MESSAGE_BYTES_DEFAULT: usize = 1_048_588;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: TopicPartition,
    pub(super) log: Log,
    pub(super) group: Coordinated,
    pub(super) remote: String,
    pub(super) target: Option<Target>,
    /// The offset to be sent next: everything below is committed in the cluster.
    pub(super) position: Offset,
    /// The batch that ends there, where one is committed.
    pub(super) mark: Option<BatchMark>,
    /// Stands at the first offset that no transaction under way holds.
    pub(super) reader: Option<Reader>,
    /// Why nothing is sent of this log for now.
    pub(super) waits: Option<String>,
    /// What the target would delete on arrival: records with an earlier time than this long ago.
    pub(super) retention_ms: Option<i64>,
    /// The target's `max.message.bytes`.
    pub(super) batch_bytes_max: usize,
}

impl Lane {
    /// A log on its way to the topic `remote`, of which nothing is known yet.
    pub(super) fn new(name: TopicPartition, log: Log, group: Coordinated, remote: String) -> Lane {
        Lane {
            name,
            log,
            group,
            remote,
            target: None,
            position: 0,
            mark: None,
            reader: None,
            waits: None,
            retention_ms: None,
            batch_bytes_max: MAX_MESSAGE_BYTES_DEFAULT,
        }
    }
}

/// Whose position it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This log's, and the batch that ends there is the same here.
    Ours,
    /// Another log's: this one was begun anew, or this is another device.
    Foreign(String),
    /// This log's identity, and another history: another copy of this device went on without this one, or this one was
    /// set back.
    Diverged(String),
    /// This log's, and it cannot go on from there.
    Unusable(String),
}

/// Only what no power cut can take back; and damage is an error whatever `check.crcs` says, since what is sent is what
/// was appended.
const READING: ReaderOptions = ReaderOptions { up_to: ReadUpTo::Durable, check_crcs: true };

impl Lane {
    /// Begins to read at a position that was judged to be ours.
    pub(super) fn start_at(&mut self, position: &Position) -> crate::Result<()> {
        (self.position, self.mark) = (position.offset, Some(position.mark));
        self.reader = None;
        match self.log.reader_with(OffsetSpec::Offset(position.offset), READING) {
            Ok(reader) => self.reader = Some(reader),
            Err(Error::OffsetOutOfRange { log_start_offset, .. }) if log_start_offset > position.offset => {
                self.waits = Some(deleted_unsent(position.offset, log_start_offset));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Begins to read at the first record that the log holds.
    pub(super) fn start_at_the_beginning(&mut self) -> crate::Result<()> {
        let reader = self.log.reader_with(OffsetSpec::Earliest, READING)?;
        (self.position, self.mark) = (reader.position().offset, None);
        self.reader = Some(reader);
        Ok(())
    }

    /// The position that a transaction up to `offset` commits.
    pub(super) fn position_at(&self, offset: Offset, mark: BatchMark) -> Position {
        let topic_id = self.target.map_or(Uuid::nil(), |target| target.topic_id);
        Position { offset, log_id: self.log.id(), mark, topic_id }
    }
}

pub(super) fn deleted_unsent(position: Offset, log_start_offset: Offset) -> String {
    format!("offsets {position} to {log_start_offset} were deleted here before they were sent")
}

/// Whose position it is. Reads the batch that ends there.
pub(super) fn judge(log: &Log, position: &Position) -> crate::Result<Verdict> {
    if position.log_id != log.id() {
        return Ok(Verdict::Foreign("it belongs to a log of another identity".to_owned()));
    }
    let Position { offset, mark, .. } = *position;
    let options = ReaderOptions { up_to: ReadUpTo::LogEnd, check_crcs: true };
    let mut reader = match log.reader_with(OffsetSpec::Offset(offset - 1), options) {
        Ok(reader) => reader,
        Err(Error::OffsetOutOfRange { log_start_offset, .. }) if offset < log_start_offset => {
            return Ok(Verdict::Unusable(deleted_unsent(offset, log_start_offset)));
        }
        // The batch was delivered and deleted: its epoch still tells whether that history is this one.
        Err(Error::OffsetOutOfRange { log_start_offset, .. }) if offset == log_start_offset => {
            return match log.check_position(OffsetAndEpoch { offset, leader_epoch: mark.leader_epoch }) {
                Ok(()) => Ok(Verdict::Ours),
                Err(error @ (Error::FencedLeaderEpoch { .. } | Error::UnknownLeaderEpoch { .. })) => {
                    Ok(Verdict::Diverged(error.to_string()))
                }
                Err(error) => Err(error),
            };
        }
        Err(Error::OffsetOutOfRange { log_end_offset, .. }) => return Ok(ends_below(log_end_offset, offset)),
        Err(error) => return Err(error),
    };
    match reader.next_batch() {
        Ok(Some(batch)) => {
            let here = BatchMark { leader_epoch: batch.leader_epoch(), crc: batch.view().crc() };
            let end = batch.last_offset() + 1;
            if end == offset && here == mark {
                return Ok(Verdict::Ours);
            }
            Ok(Verdict::Diverged(format!(
                "the batch that ends at offset {offset} there has CRC {:08x} and leader epoch {}, here one ends at \
                 {end} with CRC {:08x} and epoch {}",
                mark.crc, mark.leader_epoch, here.crc, here.leader_epoch
            )))
        }
        Ok(None) => Ok(ends_below(log.offsets().log_end_offset, offset)),
        Err(error) if error.is_corrupt() => Ok(Verdict::Unusable(error.to_string())),
        Err(error) => Err(error),
    }
}

fn ends_below(log_end_offset: Offset, offset: Offset) -> Verdict {
    Verdict::Diverged(format!("the log ends at offset {log_end_offset}, and {offset} was committed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::{NewRecord, NewTopic, Store};

    fn log_of(values: &[&str]) -> (Store, Log) {
        let store = Store::options().open_on(MemoryStorage::new()).unwrap();
        store.create_topic(&NewTopic::new("t")).unwrap();
        let log = store.log("t", 0).unwrap();
        for value in values {
            log.append(NewRecord::value(value.as_bytes()).with_timestamp(1)).unwrap();
        }
        (store, log)
    }

    /// The position behind the record at `offset` - 1.
    fn position_of(log: &Log, offset: Offset) -> Position {
        let batch = log.reader(OffsetSpec::Offset(offset - 1)).unwrap().next_batch().unwrap().unwrap();
        let mark = BatchMark { leader_epoch: batch.leader_epoch(), crc: batch.view().crc() };
        Position { offset, log_id: log.id(), mark, topic_id: Uuid::nil() }
    }

    #[test]
    fn a_position_is_ours_only_where_the_same_batch_ends_there() {
        let (_store, log) = log_of(&["a", "b", "c"]);
        let position = position_of(&log, 2);
        assert_eq!(judge(&log, &position).unwrap(), Verdict::Ours);

        let (_other_store, other) = log_of(&["a", "b", "c"]);
        assert!(matches!(judge(&other, &position).unwrap(), Verdict::Foreign(_)));
        // As if it were a copy of the same log.
        let as_copy = |log: &Log| Position { log_id: log.id(), ..position };
        assert_eq!(judge(&other, &as_copy(&other)).unwrap(), Verdict::Ours);
        let (_diverged_store, diverged) = log_of(&["a", "B", "c"]);
        assert!(matches!(judge(&diverged, &as_copy(&diverged)).unwrap(), Verdict::Diverged(_)));
        let (_short_store, short) = log_of(&["a"]);
        assert!(matches!(judge(&short, &as_copy(&short)).unwrap(), Verdict::Diverged(_)));
        let (_empty_store, empty) = log_of(&[]);
        assert!(matches!(judge(&empty, &as_copy(&empty)).unwrap(), Verdict::Diverged(_)));
    }

    #[test]
    fn a_position_at_the_log_start_is_judged_by_its_epoch_and_one_below_is_a_gap() {
        let (_store, log) = log_of(&["a", "b", "c"]);
        let (one, two) = (position_of(&log, 1), position_of(&log, 2));
        log.delete_records_before(2).unwrap();
        assert_eq!(judge(&log, &two).unwrap(), Verdict::Ours);
        let later = BatchMark { leader_epoch: two.mark.leader_epoch + 1, ..two.mark };
        assert!(matches!(judge(&log, &Position { mark: later, ..two }).unwrap(), Verdict::Diverged(_)));
        assert!(matches!(judge(&log, &one).unwrap(), Verdict::Unusable(_)));
    }
}
