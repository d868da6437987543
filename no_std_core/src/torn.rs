//! Which damaged end of a log no stop of its writer leaves.
//!
//! A batch that is due at the end of a log, and whose checksum does not hold, is an unfinished append, or a batch that
//! was damaged later. Which of the two it is shows where the machine has run on since, and only by how batches are
//! written:
//!
//! 1. By a system call, from the first byte on. A kill ends it between two pages: what was not written yet reads as
//!    zeros, or the file ends there.
//! 2. Through the map, all that is behind the first bytes, and then these. A kill leaves no length without the rest.
//!
//! So a batch whose header holds, and whose last byte is not zero, was written whole. So was one whose checksum holds
//! and whose base offset, or whose number of records, alone is wrong: the checksum comes with the bytes behind it, and
//! no writer gives out an offset but the next one. A batch may end in a few zeros itself (a record without headers in
//! one, LZ4's end mark in four): these count for as long as no page begins among them.

use zerocopy::FromBytes;

use crate::candidate::{Candidate, SegmentBytes, checksum, displaced_batch, plausible_candidate};
use crate::continuation::Continuation;
use crate::record_batch::{HEADER_LEN, RecordBatchHeader};
use crate::units::{LeaderEpoch, Offset};

/// So many zeros at its end may be a batch's own.
const OWN_ZEROS_MAX: usize = 4;
/// Pages have this size, or a multiple of it.
const PAGE_BYTES: u64 = 4096;

/// The batch that is due at `position` and was written whole, although its checksum, or its base offset, does not hold
/// now.
///
/// The answer counts where the machine has not booted since the batch was written: a power cut takes bytes in any
/// order. Where no checkpoint knows the log (`due.epochs` is `None`), neither that nor its history is known, and only a
/// batch whose checksum holds was written whole.
pub fn written_whole(bytes: &mut impl SegmentBytes, position: u64, due: &Continuation<'_>) -> Option<Candidate> {
    let (header, _) = RecordBatchHeader::read_from_prefix(bytes.at(position, HEADER_LEN)).ok()?;
    let epoch = LeaderEpoch(header.partition_leader_epoch.get());
    let is_of_this_history = due.epochs.is_none_or(|epochs| epochs.epoch_for(due.next_offset) == Some(epoch));
    let is_whole = header.record_count.get().checked_sub(1) == Some(header.last_offset_delta.get());
    if !is_of_this_history {
        return None;
    }
    if !is_whole {
        // Nothing but a count that no batch has: what holds was written, also where its fields contradict each other.
        return displaced_batch(bytes, position, due.next_offset);
    }
    if Offset(header.base_offset.get()) != due.next_offset {
        return displaced_batch(bytes, position, due.next_offset);
    }
    due.epochs?;
    let batch = plausible_candidate(&header, position, bytes.end(), &due.plausible())?;
    if checksum(bytes, position, batch.end)? == header.crc.get() {
        return None;
    }
    let len = OWN_ZEROS_MAX + 1;
    let last = bytes.at(batch.end - len as u64, len).get(..len)?;
    let zeros = last.iter().rev().take_while(|&&byte| byte == 0).count();
    let is_page_among_them = (batch.end - zeros as u64).next_multiple_of(PAGE_BYTES) < batch.end;
    (zeros <= OWN_ZEROS_MAX && !is_page_among_them).then_some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader_epoch::{EpochEntry, EpochTableView};
    use crate::record_batch::stamp_base;
    use crate::record_batch_builder::RecordBatchBuilder;
    use crate::units::TimestampMs;
    use std::vec;
    use std::vec::Vec;

    const EPOCHS: [EpochEntry; 1] = [EpochEntry { epoch: LeaderEpoch(2), start_offset: Offset(0) }];

    fn batch(value: &[u8]) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(vec![0; value.len() + 20_000]);
        for _ in 0..2 {
            builder.append(TimestampMs(1000), None, Some(value), &[]).unwrap();
        }
        let bytes = builder.finish();
        stamp_base(bytes, Offset(10), LeaderEpoch(2));
        bytes.to_vec()
    }

    fn due(next_offset: i64) -> Continuation<'static> {
        Continuation {
            next_offset: Offset(next_offset),
            contiguous: true,
            offset_end: Offset::MAX,
            durable_below: Offset(0),
            durable_position: 0,
            unbroken_from: Offset::MAX,
            epochs: Some(EpochTableView(&EPOCHS)),
            epoch_before: None,
            check_crc: true,
        }
    }

    /// The offset behind the batch, where it was written whole.
    fn whole(bytes: &[u8], next_offset: i64) -> Option<i64> {
        written_whole(&mut &bytes[..], 0, &due(next_offset)).map(|batch| batch.next_offset.0)
    }

    #[test]
    fn no_byte_can_be_changed_without_being_seen_for_what_it_is() {
        let bytes = batch(b"value");
        assert_eq!(whole(&bytes, 10), None, "it holds");
        assert_eq!(whole(&bytes, 9), Some(11), "but for its base offset");
        for at in crate::record_batch::CRC_START..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            // Of the header, what is not plausible any more says nothing.
            let found = whole(&changed, 10);
            assert!(found == Some(12) || at < HEADER_LEN && found.is_none(), "{at}: {found:?}");
            assert_eq!(whole(&changed, 11), None, "another batch is due");
        }
        let mut epoch = bytes.clone();
        (epoch[15], epoch[70]) = (1, epoch[70] ^ 1);
        assert_eq!(whole(&epoch, 10), None, "of another history");
        let mut displaced = bytes.clone();
        displaced[..8].copy_from_slice(&1000_i64.to_be_bytes());
        assert_eq!(whole(&displaced, 10), Some(12));
        displaced[70] ^= 1;
        assert_eq!(whole(&displaced, 10), None, "two of its parts are wrong: a torn write may be that");
        let mut epoch = bytes;
        (epoch[7], epoch[15]) = (99, 1);
        assert_eq!(whole(&epoch, 10), None, "of another history, and elsewhere");
    }

    #[test]
    fn what_a_kill_leaves_was_not_written_whole() {
        let bytes = batch(&[b'v'; 6000]);
        for page in (0..bytes.len()).step_by(PAGE_BYTES as usize).skip(1) {
            let mut torn = bytes.clone();
            torn[page..].fill(0);
            assert_eq!(whole(&torn, 10), None, "{page}");
            assert_eq!(whole(&torn[..page], 10), None, "the file ends at {page}");
        }
        // Zeros that reach the start of a page may be missing bytes, however few they are.
        let mut bytes = batch(&vec![b'v'; (PAGE_BYTES as usize + 2 - batch(b"").len()) / 2]);
        bytes.truncate(PAGE_BYTES as usize + 2);
        let end = bytes.len();
        bytes[8..12].copy_from_slice(&(end as i32 - 12).to_be_bytes());
        bytes[end - 2..].fill(0);
        assert_eq!(whole(&bytes, 10), None);
        bytes[end - 1] = 1;
        assert_eq!(whole(&bytes, 10), Some(12));
    }
}
