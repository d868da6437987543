//! Whether an offset that was committed is of a log that is here, and of its history.

use edgelog_core::config::IsolationLevel;
use edgelog_core::{LeaderEpoch, Offset, OffsetAndEpoch};

use super::committed_offset::{BatchMark, CommittedOffset};
use crate::error::Error;
use crate::{Log, OffsetSpec, ReadUpTo, ReaderOptions};

/// Of which log and history a committed offset is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This log's, and the batch that ends there is the same here.
    Ours,
    /// Another log's: this one was created again, or this is another device.
    Foreign(String),
    /// Of this log by its identity, and of another history: another copy of this device went on without this one, or
    /// this one was set back.
    Diverged(String),
    /// This log's by its identity; the batch before it is damaged here, so that no more can be said.
    Damaged(String),
}

/// Only what no power cut can undo; and damage is an error also where `check.crcs` is off, since what is sent is what
/// was appended.
pub(super) const READING: ReaderOptions = ReaderOptions {
    up_to: ReadUpTo::Durable,
    check_crcs: true,
    // Batches of transactions stop the sender: they are not passed over.
    isolation: IsolationLevel::ReadUncommitted,
};

/// Of which log and history an offset is. Reads the batch that ends there.
pub(super) fn check_ownership(log: &Log, position: &CommittedOffset) -> crate::Result<Ownership> {
    if position.log_id != log.id() {
        return Ok(Ownership::Foreign("it belongs to a log of another identity".to_owned()));
    }
    let CommittedOffset { offset, mark, .. } = *position;
    let options = ReaderOptions { up_to: ReadUpTo::LogEnd, ..READING };
    let mut reader = match log.reader_with(OffsetSpec::Offset(offset - 1), options) {
        Ok(_) if mark.is_behind_a_gap() => return check_epoch(log, offset, mark.leader_epoch),
        Ok(reader) => reader,
        // The batch was delivered and deleted, or deleted with what followed: its epoch still says whether that
        // history is this one.
        Err(Error::OffsetOutOfRange { log_start_offset, .. }) if offset <= log_start_offset => {
            return check_epoch(log, offset, mark.leader_epoch);
        }
        Err(Error::OffsetOutOfRange { log_end_offset, .. }) => return Ok(ends_below(log_end_offset, offset)),
        Err(error) => return Err(error),
    };
    match reader.next_batch() {
        Ok(Some(batch)) => {
            let here = BatchMark { leader_epoch: batch.leader_epoch(), crc: batch.view().crc() };
            let end = batch.last_offset() + 1;
            if end >= offset && here == mark {
                return Ok(Ownership::Ours);
            }
            Ok(Ownership::Diverged(format!(
                "the batch before offset {offset} there has CRC {:08x} and leader epoch {}, here one that ends at \
                 {end} has CRC {:08x} and epoch {}",
                mark.crc, mark.leader_epoch, here.crc, here.leader_epoch
            )))
        }
        Ok(None) => Ok(ends_below(log.offsets().log_end_offset, offset)),
        Err(error) if error.is_corrupt() => Ok(Ownership::Damaged(error.to_string())),
        Err(error) => Err(error),
    }
}

fn check_epoch(log: &Log, offset: Offset, leader_epoch: LeaderEpoch) -> crate::Result<Ownership> {
    match log.check_position(OffsetAndEpoch { offset, leader_epoch }) {
        Ok(()) => Ok(Ownership::Ours),
        Err(error @ (Error::FencedLeaderEpoch { .. } | Error::UnknownLeaderEpoch { .. })) => {
            Ok(Ownership::Diverged(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn ends_below(log_end_offset: Offset, offset: Offset) -> Ownership {
    Ownership::Diverged(format!("the log ends at offset {log_end_offset}, and {offset} was committed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgelog_core::TimestampMs;
    use uuid::Uuid;

    use crate::storage::MemoryStorage;
    use crate::{NewRecord, NewTopic, Store};

    fn log_of(values: &[&str]) -> (Store, Log) {
        let store = Store::options().open_on(MemoryStorage::new()).unwrap();
        store.create_topic(&NewTopic::new("t")).unwrap();
        let log = store.log("t", 0).unwrap();
        for value in values {
            log.append(NewRecord::value(value.as_bytes()).with_timestamp(TimestampMs(1))).unwrap();
        }
        (store, log)
    }

    /// The position behind the record at `offset` - 1.
    fn position_of(log: &Log, offset: Offset) -> CommittedOffset {
        let batch = log.reader(OffsetSpec::Offset(offset - 1)).unwrap().next_batch().unwrap().unwrap();
        let mark = BatchMark { leader_epoch: batch.leader_epoch(), crc: batch.view().crc() };
        CommittedOffset { offset, log_id: log.id(), mark, topic_id: Uuid::nil() }
    }

    #[test]
    fn a_position_is_ours_only_where_the_same_batch_ends_there() {
        let (_store, log) = log_of(&["a", "b", "c"]);
        let position = position_of(&log, Offset(2));
        assert_eq!(check_ownership(&log, &position).unwrap(), Ownership::Ours);

        let (_other_store, other) = log_of(&["a", "b", "c"]);
        assert!(matches!(check_ownership(&other, &position).unwrap(), Ownership::Foreign(_)));
        // As if it were a copy of the same log.
        let as_copy = |log: &Log| CommittedOffset { log_id: log.id(), ..position };
        assert_eq!(check_ownership(&other, &as_copy(&other)).unwrap(), Ownership::Ours);
        let (_diverged_store, diverged) = log_of(&["a", "B", "c"]);
        assert!(matches!(check_ownership(&diverged, &as_copy(&diverged)).unwrap(), Ownership::Diverged(_)));
        let (_short_store, short) = log_of(&["a"]);
        assert!(matches!(check_ownership(&short, &as_copy(&short)).unwrap(), Ownership::Diverged(_)));
        let (_empty_store, empty) = log_of(&[]);
        assert!(matches!(check_ownership(&empty, &as_copy(&empty)).unwrap(), Ownership::Diverged(_)));
    }

    #[test]
    fn a_position_at_the_log_start_or_below_is_judged_by_its_epoch() {
        let (_store, log) = log_of(&["a", "b", "c"]);
        let (one, two) = (position_of(&log, Offset(1)), position_of(&log, Offset(2)));
        log.delete_records_before(Offset(2)).unwrap();
        assert_eq!(check_ownership(&log, &two).unwrap(), Ownership::Ours);
        let later = BatchMark { leader_epoch: two.mark.leader_epoch + 1, ..two.mark };
        assert!(matches!(
            check_ownership(&log, &CommittedOffset { mark: later, ..two }).unwrap(),
            Ownership::Diverged(_)
        ));
        assert_eq!(check_ownership(&log, &one).unwrap(), Ownership::Ours);
    }
}
