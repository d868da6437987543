//! Whether a batch that contradicts its place says a wrong base offset, or stands out of order.
//!
//! No checksum covers a base offset. Where what is known of a place says another one than the batch that stands there,
//! either the field is damaged, or the batch belongs elsewhere: then its records do not have the offsets of the place.
//! Two things show the latter, and damage to one field makes neither:
//!
//! 1. **A copy.** A batch with the same base offset and the same checksum, which covers nearly all the rest, stands
//!    elsewhere in the segment.
//! 2. **Exchanged.** Another batch says that it ends with the offset that this one is held to end with, and the offsets
//!    that this one says it has are those of no other.

use zerocopy::FromBytes;

use crate::candidate::{Candidate, Plausible, Resync, SegmentBytes, checksum, find_candidate};
use crate::limits::BATCH_BYTES_MAX;
use crate::record_batch::{HEADER_LEN, RecordBatchHeader};
use crate::segment_scan::{ScanRules, header_holds};
use crate::units::Offset;

/// What a batch says of itself.
struct Word {
    end: u64,
    first: Offset,
    next: Offset,
    crc: u32,
}

impl Word {
    fn read(bytes: &mut impl SegmentBytes, position: u64) -> Option<Word> {
        let (header, _) = RecordBatchHeader::read_from_prefix(bytes.at(position, HEADER_LEN)).ok()?;
        let rules = ScanRules {
            expected_offset: None,
            contiguous: false,
            epochs: None,
            batch_bytes_max: BATCH_BYTES_MAX,
            check_crc: false,
        };
        header_holds(&header, &rules).ok()?;
        let end = position + header.size().ok()? as u64;
        let first = Offset(header.base_offset.get());
        let next = first + i64::from(header.last_offset_delta.get()) + 1;
        (end <= bytes.end()).then_some(Word { end, first, next, crc: header.crc.get() })
    }
}

/// Whether `batch`, whose checksum holds, stands out of order where its own base offset is another one than the one
/// given here.
///
/// Looks at the headers of the whole segment; what it reads is taken from `budget`. Where that is spent, the batch is
/// not believed at the offset given: true.
#[cold]
pub fn is_out_of_order(bytes: &mut impl SegmentBytes, batch: &Candidate, budget: &mut u64) -> bool {
    // An offset that no batch can have is that of no place.
    let Some(own) = Word::read(bytes, batch.position) else { return false };
    let (mut at, mut has_its_end, mut is_free) = (0, false, true);
    while at < bytes.end() {
        let Some(left) = budget.checked_sub(HEADER_LEN as u64) else { return true };
        *budget = left;
        let Some(other) = Word::read(bytes, at) else {
            match find_candidate(bytes, at + 1, &Plausible::ANY, budget, |_, found, _| Some(found)) {
                Resync::Found(found) => at = found.position,
                Resync::Nothing => break,
                Resync::OutOfEffort { .. } => return true,
            }
            continue;
        };
        if at != batch.position {
            let is_same = (other.first, other.next, other.crc) == (own.first, own.next, own.crc);
            if is_same && checksum(bytes, at, other.end) == Some(own.crc) {
                return true;
            }
            has_its_end |= other.next == batch.next_offset;
            is_free &= other.next <= own.first || other.first >= own.next;
        }
        at = other.end;
    }
    has_its_end && is_free
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_batch::stamp_base;
    use crate::record_batch_builder::encode_one;
    use crate::units::{LeaderEpoch, TimestampMs};
    use std::vec::Vec;

    /// One record at `base` that says `what`.
    fn batch(base: i64, what: u8) -> Vec<u8> {
        let mut bytes = [0; 200];
        let size = encode_one(&mut bytes, TimestampMs(1000), None, Some(&[what; 30]), &[]).unwrap();
        stamp_base(&mut bytes, Offset(base), LeaderEpoch(0));
        bytes[..size].to_vec()
    }

    /// Batches of one record, each with its base offset and what it says: does the last one stand out of order, where
    /// `right` is its offset?
    fn is_last_out_of_order(batches: &[(i64, u8)], right: i64, budget: u64) -> bool {
        let bytes: Vec<u8> = batches.iter().flat_map(|&(base, what)| batch(base, what)).collect();
        let size = (bytes.len() / batches.len()) as u64;
        let end = bytes.len() as u64;
        let (base_offset, next_offset) = (Offset(right), Offset(right + 1));
        let last = Candidate { position: end - size, end, base_offset, next_offset };
        is_out_of_order(&mut &bytes[..], &last, &mut budget.clone())
    }

    #[test]
    fn a_copy_or_an_exchanged_batch_is_out_of_order_and_one_with_a_wrong_base_offset_is_not() {
        let last = |batches: &[(i64, u8)], right| is_last_out_of_order(batches, right, 100_000);
        assert!(last(&[(0, 1), (17, 2), (0, 1)], 27), "a copy");
        assert!(!last(&[(0, 1), (17, 2), (0, 3)], 27), "another batch that says the same offset");
        assert!(!last(&[(0, 1), (17, 2), (1, 1)], 27), "the same records elsewhere");
        assert!(last(&[(0, 1), (2, 2), (1, 3)], 2), "exchanged");
        assert!(last(&[(2, 1), (0, 2), (1, 3)], 2), "moved behind the end");
        assert!(!last(&[(0, 1), (2, 2), (0, 3)], 2), "the offset is another one's");
        assert!(!last(&[(0, 1), (1, 2), (7, 3)], 2), "no other one ends there");
        assert!(!last(&[(0, 1), (2, 2), (-7, 3)], 2), "no batch has that offset");
    }

    #[test]
    fn damage_hides_nothing_behind_it_and_what_is_not_looked_at_is_not_believed() {
        let mut bytes: Vec<u8> = [batch(5, 9), batch(0, 1), batch(17, 2), batch(0, 1)].concat();
        let size = (bytes.len() / 4) as u64;
        bytes[16] = 9;
        let last = Candidate { position: 3 * size, end: 4 * size, base_offset: Offset(27), next_offset: Offset(28) };
        assert!(is_out_of_order(&mut &bytes[..], &last, &mut 100_000));
        bytes[size as usize + 70] ^= 1;
        assert!(!is_out_of_order(&mut &bytes[..], &last, &mut 100_000), "the other one does not hold");
        assert!(is_last_out_of_order(&[(0, 1), (1, 2), (7, 3)], 2, 2 * HEADER_LEN as u64));
    }
}
