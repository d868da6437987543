//! Batches that hold and that a log goes on without: in a copied log they may stand out of order. Offsets there need
//! only rise, and each reader takes the batches that do.
//!
//! Where their offsets stand elsewhere in the log, they are copies, and nothing is lost. Else no reader gives their
//! records out, and that is a loss like any other.

use edgelog_core::limits::HOLE_MAX;
use edgelog_core::{
    Candidate, Effort, HEADER_LEN, Offset, Plausible, RecordBatch, Resync, displaced_batch, find_batch,
};

use super::Window;

/// So many ranges of one stretch are kept apart.
const RANGES_MAX: usize = 4096;

/// Offsets from the first to behind the last.
pub(crate) type OffsetRange = (Offset, Offset);

/// The offsets of the batches with records that hold in the bytes `from..to`, in ascending order; `due` is the offset
/// that was due there. One that says an offset which no reader believes has those that are due.
///
/// Of any epoch: below the recovery point no batch of a truncated history can stand.
pub(crate) fn sound_between(window: &mut Window, (from, to): (u64, u64), due: Offset) -> Vec<OffsetRange> {
    let mut effort = Effort::for_segment(window.end());
    let (mut at, mut due, mut found) = (from, due, Vec::new());
    while at < to && found.len() < RANGES_MAX {
        let batch = match unplaced(window, at, due) {
            Some(batch) => {
                due = batch.next_offset;
                batch
            }
            None => match find_batch(window, at, &Plausible::ANY, &mut effort.search) {
                Resync::Found(batch) => batch,
                _ => break,
            },
        };
        if batch.end > to {
            at = batch.position + 1;
            continue;
        }
        at = batch.end;
        let header = window.at(batch.position, HEADER_LEN);
        if let Some(count) = RecordBatch::peek_count(header).filter(|&count| count > 0) {
            found.push((batch, batch.base_offset.saturating_add(i64::from(count))));
        }
    }
    let behind = RecordBatch::peek_place(window.at(to, HEADER_LEN)).map(|(base_offset, _)| base_offset);
    let follows = found.iter().skip(1).map(|(next, _)| Some(next.base_offset)).chain([behind]);
    joined(
        found
            .iter()
            .zip(follows)
            .map(|((batch, least), next)| (batch.base_offset, reach(batch, *least, next)))
            .collect(),
    )
}

/// A batch at `position` that holds and says an offset that no batch there can have: as the one of the offset `due`.
fn unplaced(window: &mut Window, position: u64, due: Offset) -> Option<Candidate> {
    let (claimed, _) = RecordBatch::peek_place(window.at(position, HEADER_LEN))?;
    let is_believable = claimed >= 0 && claimed.saturating_since(due) <= HOLE_MAX;
    if is_believable { None } else { displaced_batch(window, position, due) }
}

/// The offset behind a batch whose records take the offsets up to `least` at least. One that compaction has thinned out
/// says more, up to where the batch behind it begins at `next`; what nothing bears out is not counted.
fn reach(batch: &Candidate, least: Offset, next: Option<Offset>) -> Offset {
    match next.filter(|&next| next >= least) {
        Some(next) => batch.next_offset.min(next),
        None => batch.next_offset.min(least),
    }
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
    mut left: Vec<OffsetRange>,
    (first, next): OffsetRange,
    end: Offset,
) -> Vec<OffsetRange> {
    // No reader believes a wider hole: there the base offset is what is damaged.
    if ranges.iter().any(|(first, _)| first.saturating_since(end) > HOLE_MAX) {
        return Vec::new();
    }
    let missing = next.saturating_since(first).max(0);
    let offsets = ranges.iter().fold(0_i64, |sum, (first, next)| sum.saturating_add(*next - *first));
    if offsets <= missing {
        // One that reaches into what is missing has no place of its own.
        let is_apart = |range: &OffsetRange| range.1 <= first || range.0 >= next;
        let apart: Vec<OffsetRange> = ranges.iter().copied().filter(is_apart).collect();
        left = common(&left, &apart);
        if left != apart || apart.last().is_none_or(|(_, next)| *next > end) {
            return Vec::new();
        }
    }
    // Those that are missing are lost already.
    take_out(&mut left, (first, next));
    left
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

    #[test]
    fn a_thinned_batch_reaches_as_far_as_the_next_one_bears_it_out() {
        let reach = |claimed: i64, next: Option<i64>| {
            let (base_offset, next_offset) = (Offset(10), Offset(claimed));
            let batch = Candidate { position: 0, end: 100, base_offset, next_offset };
            super::reach(&batch, Offset(13), next.map(Offset)).0
        };
        assert_eq!([reach(13, None), reach(13, Some(13)), reach(13, Some(5))], [13; 3], "as many records as offsets");
        assert_eq!([reach(20, Some(20)), reach(20, Some(900))], [20; 2], "what follows bears it out");
        assert_eq!([reach(20, Some(15)), reach(1 << 31, Some(15))], [15; 2], "what follows begins before");
        assert_eq!([reach(1 << 31, None), reach(1 << 31, Some(12))], [13; 2], "its records alone");
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
        assert_eq!(lost(&[(29, 38)], &[(29, 38)], (30, 40)), 0, "it reaches into what is missing");
        assert_eq!(lost(&[(17, 20), (29, 32)], &[(17, 20), (29, 32)], (30, 40)), 1, "the other one does not");
        assert_eq!(lost(&[], &[], (9, 3)), 0);
        let far = HOLE_MAX + 51;
        assert_eq!(lost(&[(far, far + 3)], &[(far, far + 3)], (9, 9)), 0, "no hole is so wide");
    }
}
