//! Batches that hold and that a log goes on without: in a copied log they may stand out of order. Offsets there need
//! only rise, and each reader takes the batches that do.
//!
//! Where their offsets stand elsewhere in the log, they are copies, and nothing is lost. Else no reader gives their
//! records out, and that is a loss like any other.

use edgelog_core::limits::HOLE_MAX;
use edgelog_core::{Effort, HEADER_LEN, Offset, Plausible, RecordBatch, Resync, find_batch};

use super::Window;

/// So many ranges of one stretch are kept apart.
const RANGES_MAX: usize = 4096;

/// Offsets from the first to behind the last.
pub(crate) type OffsetRange = (Offset, Offset);

/// The offsets of the batches with records that hold in the bytes `from..to`, in ascending order.
///
/// Of any epoch: below the recovery point no batch of a truncated history can stand.
pub(crate) fn sound_between(window: &mut Window, (from, to): (u64, u64)) -> Vec<OffsetRange> {
    let any = Plausible {
        offset_min: Plausible::ANY_OFFSET,
        offset_end: Offset::MAX,
        durable_below: Offset(0),
        durable_position: 0,
        contiguous: false,
        epochs: None,
    };
    let mut effort = Effort::for_segment(window.end());
    let (mut at, mut found) = (from, Vec::new());
    while at < to && found.len() < RANGES_MAX {
        let Resync::Found(batch) = find_batch(window, at, &any, &mut effort.search) else { break };
        let header = window.at(batch.position, HEADER_LEN);
        let has_records = RecordBatch::peek_count(header).is_some_and(|count| count > 0);
        if batch.end > to {
            at = batch.position + 1;
            continue;
        }
        at = batch.end;
        if has_records {
            found.push((batch.base_offset, batch.next_offset));
        }
    }
    joined(found)
}

/// The ranges in ascending order, those that touch as one.
pub(crate) fn joined(mut ranges: Vec<OffsetRange>) -> Vec<OffsetRange> {
    ranges.retain(|(first, next)| first < next);
    ranges.sort_unstable();
    let mut joined: Vec<OffsetRange> = Vec::with_capacity(ranges.len());
    for (first, next) in ranges {
        match joined.last_mut().filter(|last| first <= last.1) {
            Some(last) => last.1 = last.1.max(next),
            None => joined.push((first, next)),
        }
    }
    joined
}

/// Takes the offsets of `range` out of ranges in ascending order.
pub(crate) fn take_out(ranges: &mut Vec<OffsetRange>, (from, to): OffsetRange) {
    let begin = ranges.partition_point(|(_, next)| *next <= from);
    let end = ranges.partition_point(|(first, _)| *first < to);
    if begin >= end || from >= to {
        return;
    }
    let edges = [(ranges[begin].0, from), (to, ranges[end - 1].1)];
    ranges.splice(begin..end, edges.into_iter().filter(|(first, next)| first < next));
}

/// The offsets that both have, each in ascending order.
pub(crate) fn common(left: &[OffsetRange], right: &[OffsetRange]) -> Vec<OffsetRange> {
    let mut found = Vec::new();
    for &(from, to) in right {
        let begin = left.partition_point(|(_, next)| *next <= from);
        let within = left[begin..].iter().take_while(|(first, _)| *first < to);
        found.extend(within.map(|&(first, next)| (first.max(from), next.min(to))));
    }
    found
}

/// What is lost of the batches of the offsets `ranges`, of which `left` stand nowhere else in a log that ends at `end`,
/// where the offsets of `missing` are lost in any case.
///
/// No checksum covers a base offset: batches that can be the missing ones, and have no place of their own in a hole of
/// the log, are these.
pub(crate) fn lost_of(
    ranges: &[OffsetRange],
    left: Vec<OffsetRange>,
    (first, next): OffsetRange,
    end: Offset,
) -> Vec<OffsetRange> {
    // No reader believes a wider hole: there the base offset is what is damaged.
    if ranges.iter().any(|(first, _)| first.saturating_since(end) > HOLE_MAX) {
        return Vec::new();
    }
    let missing = next.saturating_since(first).max(0);
    let offsets = ranges.iter().fold(0_i64, |sum, (first, next)| sum.saturating_add(*next - *first));
    let have_a_place = left == ranges && ranges.last().is_some_and(|(_, next)| *next <= end);
    if offsets > missing || have_a_place { left } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(of: &[(i64, i64)]) -> Vec<OffsetRange> {
        of.iter().map(|&(first, next)| (Offset(first), Offset(next))).collect()
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let all = ranges(&[(27, 37), (17, 27), (3, 3), (40, 50), (41, 44)]);
        assert_eq!(joined(all), ranges(&[(17, 37), (40, 50)]));
    }

    /// Against the obvious: each offset by itself.
    #[test]
    fn what_is_taken_out_is_out_and_nothing_else() {
        let all = ranges(&[(2, 5), (7, 9), (12, 20)]);
        let holds = |ranges: &[OffsetRange], at: i64| ranges.iter().any(|r| (r.0.0..r.1.0).contains(&at));
        for from in 0..22 {
            for to in 0..22 {
                let mut left = all.clone();
                take_out(&mut left, (Offset(from), Offset(to)));
                let shared = common(&all, &[(Offset(from), Offset(to.max(from)))]);
                for at in 0..22 {
                    assert_eq!(holds(&shared, at), holds(&all, at) && (from..to).contains(&at), "{from} {to} {at}");
                    assert_eq!(holds(&left, at), holds(&all, at) && !(from..to).contains(&at), "{from} {to} {at}");
                }
                assert_eq!(joined(left.clone()), left, "{from} {to}");
            }
        }
    }

    #[test]
    fn a_batch_whose_base_offset_is_wrong_is_one_of_those_that_are_missing() {
        let lost = |of: &[(i64, i64)], left: &[(i64, i64)], missing: (i64, i64)| {
            lost_of(&ranges(of), ranges(left), (Offset(missing.0), Offset(missing.1)), Offset(50)).len()
        };
        assert_eq!(lost(&[(1 << 41, (1 << 41) + 3)], &[(1 << 41, (1 << 41) + 3)], (7, 10)), 0, "it fits");
        assert_eq!(lost(&[(17, 37)], &[(17, 37)], (0, 5)), 1, "it does not");
        assert_eq!(lost(&[(17, 20)], &[(17, 20)], (30, 40)), 1, "it has a place of its own");
        assert_eq!(lost(&[(17, 20)], &[(17, 19)], (30, 40)), 0, "which it does not fit into");
        assert_eq!(lost(&[(17, 20)], &[], (0, 0)), 0, "a copy");
        assert_eq!(lost(&[], &[], (9, 3)), 0);
        let far = HOLE_MAX + 51;
        assert_eq!(lost(&[(far, far + 3)], &[(far, far + 3)], (9, 9)), 0, "no hole is so wide");
    }
}
