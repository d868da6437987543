//! Where a log goes on behind damage: one search for all who read segments.
//!
//! 1. **Find.** A candidate is a header that is plausible in every field, in front of bytes whose CRC-32C holds. The
//!    bytes of each computed checksum are taken from a budget ([`Effort`]).
//! 2. **Corroborate.** The CRC does not cover the base offset. So a candidate is compared with the batches that
//!    follow it, until two of them stand side by side and agree, or [`CANDIDATES_MAX`] are known. Of all ways to
//!    believe some of them in rising order, the best one is taken. A base offset that damage has raised would
//!    otherwise hide everything behind it.
//!
//! Where batches are contiguous, the batch that stands right at the damage may hold, but for the offsets that are
//! missing before it. It is believed where the next batch goes on from it, or, where none follows, where it ends at the
//! recovery point or in front of the next segment: then its base offset is not what is damaged, and something before it
//! is gone.
//!
//! Below the recovery point every offset was durable, so a candidate there lies below that point; only where there is
//! none, the first batch at or above the point is looked for, not before the place where the point stands.
//!
//! Where no batch follows to be asked, the end is: a batch that ends at the place of the recovery point ends with the
//! offset of that point, and its base offset is what follows from that; and where batches are contiguous, the last one
//! of a segment ends where the next segment begins, or it is not believed.

use core::cmp::Reverse;

use zerocopy::FromBytes;

use crate::candidate::{
    Candidate, Plausible, Resync, SegmentBytes, candidate_of, crc_holds, find_candidate, plausible_candidate,
};
use crate::limits::{CANDIDATES_MAX, CRC_PASSES_MAX, RECORDS_PER_BYTE_MAX};
use crate::out_of_order::is_out_of_order;
use crate::record_batch::{HEADER_LEN, RecordBatchHeader};
use crate::units::Offset;

/// How many bytes may still be checksummed in the searches of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// To find candidates.
    pub search: u64,
    /// To compare candidates; where it is spent, the first candidate is believed.
    pub corroboration: u64,
}

impl Effort {
    /// The effort that a segment of `len` bytes is worth.
    pub const fn for_segment(len: u64) -> Self {
        let bytes = len.saturating_mul(CRC_PASSES_MAX);
        Self { search: bytes, corroboration: bytes }
    }
}

impl Candidate {
    /// Whether `later` can be the next of the batches that are believed.
    fn agrees(&self, later: &Candidate, contiguous: bool) -> bool {
        if contiguous && self.end == later.position {
            self.next_offset == later.base_offset
        } else {
            self.next_offset <= later.base_offset
        }
    }

    /// Whether the two stand side by side and agree: damage to one field does not make two batches agree.
    fn is_borne_out_by(&self, later: &Candidate, contiguous: bool) -> bool {
        self.end == later.position && self.agrees(later, contiguous)
    }

    /// How credible this one is behind `before`, a place and the offset that was due there.
    fn credit(&self, before: (u64, Offset), contiguous: bool) -> u32 {
        let (lost_bytes, lost_offsets) = (self.position - before.0, self.base_offset.0.abs_diff(before.1.0));
        // Where compaction has taken records, a hole of any width is legal and no byte is lost for it.
        if !contiguous || lost_offsets <= lost_bytes.saturating_mul(RECORDS_PER_BYTE_MAX) { 3 } else { 1 }
    }
}

/// Searches from `from` on for the batch with which the log goes on behind damage at `damaged`.
///
/// `plausible.offset_min` is the offset that was due at `damaged`.
pub fn resync(
    bytes: &mut impl SegmentBytes,
    damaged: u64,
    from: u64,
    plausible: &Plausible<'_>,
    effort: &mut Effort,
) -> Resync {
    let durable = plausible.durable_below;
    if durable > 0 && plausible.offset_min < durable && durable < plausible.offset_end {
        let below = Plausible { offset_end: durable, ..*plausible };
        match resync_within(bytes, damaged, from, &below, plausible.offset_end, effort) {
            Resync::Nothing => {}
            found => return found,
        }
        let above = Plausible { offset_min: durable, ..*plausible };
        let from = from.max(plausible.durable_position);
        return resync_within(bytes, damaged, from, &above, plausible.offset_end, effort);
    }
    resync_within(bytes, damaged, from, plausible, plausible.offset_end, effort)
}

/// `segment_end`: the offset that all of the segment lies before.
fn resync_within(
    bytes: &mut impl SegmentBytes,
    damaged: u64,
    from: u64,
    plausible: &Plausible<'_>,
    segment_end: Offset,
    effort: &mut Effort,
) -> Resync {
    if let Some(batch) = batch_behind_missing_ones(bytes, damaged, plausible, effort).filter(|_| from <= damaged + 1) {
        return Resync::Found(batch);
    }
    match find_batch(bytes, from, plausible, &mut effort.search) {
        Resync::Found(first) => {
            let before = (damaged, plausible.offset_min);
            corroborated(bytes, first, before, plausible, segment_end, effort).map_or(Resync::Nothing, Resync::Found)
        }
        other => other,
    }
}

/// Whether the last of the batches behind damage ends where it has to.
fn ends_well(candidate: &Candidate, plausible: &Plausible<'_>, segment_end: Offset, bytes_end: u64) -> bool {
    let is_last = candidate.end == bytes_end && candidate.end > plausible.durable_position;
    !(plausible.contiguous && is_last) || segment_end == Offset::MAX || candidate.next_offset == segment_end
}

/// The batch right at the damage, where what follows bears its base offset out: batches before it are missing.
fn batch_behind_missing_ones(
    bytes: &mut impl SegmentBytes,
    damaged: u64,
    plausible: &Plausible<'_>,
    effort: &mut Effort,
) -> Option<Candidate> {
    if !plausible.contiguous || plausible.offset_min == Plausible::ANY_OFFSET {
        return None;
    }
    let batch = batch_at(bytes, damaged, plausible, &mut effort.corroboration)?;
    if batch.base_offset == plausible.offset_min {
        // Nothing is missing: it says another offset itself.
        return None;
    }
    let durable = plausible.durable_below;
    let ends_there = batch.next_offset == plausible.offset_end || durable > 0 && batch.next_offset == durable;
    let next = batch_at(bytes, batch.end, plausible, &mut effort.corroboration);
    let is_borne_out = next.map_or(ends_there, |next| batch.is_borne_out_by(&next, true));
    is_borne_out.then_some(batch)
}

/// Whether a batch that holds, and that leaves a hole before it where holes are legal, is believed.
///
/// `candidate` directly follows the last good batch, whose end and next offset are `candidate.position` and
/// `expected`. It is believed unless the batches behind it contradict its base offset. Where none follows,
/// `may_end_behind_hole` says whether the last batch of the log can leave a hole before it.
pub(crate) fn is_jump_believed(
    bytes: &mut impl SegmentBytes,
    candidate: Candidate,
    expected: Offset,
    plausible: &Plausible<'_>,
    may_end_behind_hole: bool,
    effort: &mut Effort,
) -> bool {
    // The usual case: the next header goes on from here.
    let behind = Plausible { offset_min: candidate.next_offset, ..*plausible };
    let header = RecordBatchHeader::read_from_prefix(bytes.at(candidate.end, HEADER_LEN));
    if header.is_ok_and(|(header, _)| plausible_candidate(&header, candidate.end, u64::MAX, &behind).is_some()) {
        return true;
    }
    if would_lead_on(bytes, &candidate, expected, plausible, may_end_behind_hole, effort) {
        return false;
    }
    let before = (candidate.position, expected);
    corroborated(bytes, candidate, before, plausible, Offset::MAX, effort) == Some(candidate)
}

/// Whether the log would go on behind `candidate` without a hole and without an overlap, had it the offset `expected`:
/// to the next batch, or, where none follows, to the recovery point, or to an end that a file next to the segment
/// names. Then its base offset alone is what is wrong. So it is where no batch follows, and the program that wrote this
/// part of the log leaves no holes. Where the next segment begins says nothing: it may overlap this one, and a hole
/// before that be as wide.
#[cold]
fn would_lead_on(
    bytes: &mut impl SegmentBytes,
    candidate: &Candidate,
    expected: Offset,
    plausible: &Plausible<'_>,
    may_end_behind_hole: bool,
    effort: &mut Effort,
) -> bool {
    let offsets = candidate.next_offset - candidate.base_offset;
    let due_behind = expected.saturating_add(offsets);
    let behind = Plausible { offset_min: due_behind, ..*plausible };
    match batch_at(bytes, candidate.end, &behind, &mut effort.corroboration) {
        Some(next) => next.base_offset == due_behind,
        None if due_behind == plausible.durable_below || !may_end_behind_hole => true,
        None => bytes.names_end(due_behind, plausible.offset_end == Offset::MAX),
    }
}

/// The batch at `position`, where one is plausible and holds. The bytes of its checksum are taken from `budget`.
pub fn batch_at(
    bytes: &mut impl SegmentBytes,
    position: u64,
    plausible: &Plausible<'_>,
    budget: &mut u64,
) -> Option<Candidate> {
    let (header, _) = RecordBatchHeader::read_from_prefix(bytes.at(position, HEADER_LEN)).ok()?;
    let candidate = plausible_candidate(&header, position, bytes.end(), plausible)?;
    *budget = budget.checked_sub(candidate.end - candidate.position)?;
    if crc_holds(bytes, &candidate, header.crc.get()) { in_order(bytes, candidate, plausible, budget) } else { None }
}

/// The batch `found`, whose checksum holds; where it was given the offset of the recovery point and stands out of
/// order, at the offset that it says itself.
fn in_order(
    bytes: &mut impl SegmentBytes,
    found: Candidate,
    plausible: &Plausible<'_>,
    budget: &mut u64,
) -> Option<Candidate> {
    if found.end != plausible.durable_position {
        return Some(found);
    }
    let (header, _) = RecordBatchHeader::read_from_prefix(bytes.at(found.position, HEADER_LEN)).ok()?;
    if header.base_offset.get() == found.base_offset.0 || !is_out_of_order(bytes, &found, budget) {
        return Some(found);
    }
    candidate_of(&header, found.position, found.end, bytes.end(), plausible)
}

/// The next batch from `from` on that is plausible and holds in itself; the bytes of each checksum are taken from
/// `budget`.
pub fn find_batch(bytes: &mut impl SegmentBytes, from: u64, plausible: &Plausible<'_>, budget: &mut u64) -> Resync {
    find_candidate(bytes, from, plausible, budget, |bytes, found, budget| in_order(bytes, found, plausible, budget))
}

/// Which of the batches from `first` on the log goes on with; `before`: where the last good batch ended, and the
/// offset that was due there. `None` where none of them is believed.
fn corroborated(
    bytes: &mut impl SegmentBytes,
    first: Candidate,
    before: (u64, Offset),
    plausible: &Plausible<'_>,
    segment_end: Offset,
    effort: &mut Effort,
) -> Option<Candidate> {
    let mut candidates = [first; CANDIDATES_MAX];
    let mut count = 1;
    let mut is_borne_out = false;
    while count < CANDIDATES_MAX {
        let last = candidates[count - 1];
        // What stands behind the place of the point is above it.
        let is_at_point = last.end == plausible.durable_position;
        let mut find = || find_batch(bytes, last.end, plausible, &mut effort.corroboration);
        let next = match if is_at_point { Resync::Nothing } else { find() } {
            Resync::Found(next) => next,
            Resync::OutOfEffort { .. } => break,
            Resync::Nothing => {
                count -= usize::from(!ends_well(&last, plausible, segment_end, bytes.end()));
                break;
            }
        };
        candidates[count] = next;
        count += 1;
        is_borne_out = last.is_borne_out_by(&next, plausible.contiguous);
        if is_borne_out {
            break;
        }
    }
    let candidates = candidates.get(..count)?;
    candidates.get(best_start(candidates, before, plausible, is_borne_out)).copied()
}

/// Where the best of all ways to believe some of the candidates starts.
///
/// Any two that follow each other in a way agree. The best one has the most credit; of two such, the one that ends
/// with the lower offset, and then the one that starts first. Where offsets need only rise, and two neighbours
/// contradict each other with nothing else to say which is damaged, no rule can be right always. The lower one hides
/// the higher one alone; the higher one would hide all that lies between. And a damaged field of 64 bits is greater
/// than the right one nearly always. Indexes say nothing here: they name some batches, and are as old as the damage.
/// `is_borne_out`: the last two agree side by side, and are believed in any case. So is one that ends at the recovery
/// point, as the last durable batch does, or where the next segment begins.
fn best_start(candidates: &[Candidate], before: (u64, Offset), plausible: &Plausible<'_>, is_borne_out: bool) -> usize {
    const BORNE_OUT: u32 = 1000;
    let Plausible { contiguous, durable_below: durable, durable_position, offset_end, .. } = *plausible;
    let Some(last) = candidates.len().checked_sub(1) else { return 0 };
    // From each candidate on: the credit of the rest of the way, and the offset that it ends with.
    let mut ways = [(0, Reverse(Offset(0))); CANDIDATES_MAX];
    for at in (0..=last).rev() {
        let candidate = candidates[at];
        let is_below = durable_position == 0 || candidate.end <= durable_position;
        let is_at_point = durable > 0 && candidate.next_offset == durable && is_below;
        let ends_there = is_at_point || candidate.next_offset == offset_end;
        let borne_out = if at == last && (is_borne_out || ends_there) { BORNE_OUT } else { 0 };
        let end = (borne_out, Reverse(candidate.next_offset));
        let goes_on = (at + 1..=last)
            // Of the two at the end, none is believed without the other.
            .filter(|&later| !is_borne_out || later < last || at + 1 == last)
            .filter(|&later| candidate.agrees(&candidates[later], contiguous));
        let behind = (candidate.end, candidate.next_offset);
        let on = goes_on.map(|later| (ways[later].0 + candidates[later].credit(behind, contiguous), ways[later].1));
        ways[at] = on.max().map_or(end, |on| on.max(end));
    }
    let start = |&at: &usize| {
        let credit = ways[at].0 + candidates[at].credit(before, contiguous);
        ((credit, ways[at].1), Reverse(candidates[at].position))
    };
    (0..=last).max_by_key(start).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::candidate::displaced_batch;
    use crate::crc32c::crc32c;
    use crate::leader_epoch::{EpochEntry, EpochTableView};
    use crate::limits::{HOLE_MAX, SEARCH_STRIDE_BYTES};
    use crate::record_batch::{CRC_START, RecordBatch, stamp_base};
    use crate::record_batch_builder::RecordBatchBuilder;
    use crate::units::{LeaderEpoch, TimestampMs};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const EPOCHS: [EpochEntry; 2] = [
        EpochEntry { epoch: LeaderEpoch(0), start_offset: Offset(0) },
        EpochEntry { epoch: LeaderEpoch(3), start_offset: Offset(12) },
    ];

    fn batch(base_offset: Offset, epoch: i32, records: u8, value_len: usize) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(vec![0; value_len * usize::from(records) + 20_000]);
        for n in 0..records {
            builder.append(TimestampMs(1000 + i64::from(n)), None, Some(&vec![n; value_len]), &[]).unwrap();
        }
        let bytes = builder.finish();
        stamp_base(bytes, base_offset, LeaderEpoch(epoch));
        bytes.to_vec()
    }

    /// Batches of four records, epochs as the table says.
    fn log(batches: usize) -> Vec<u8> {
        (0..batches).flat_map(|n| batch(Offset(n as i64 * 4), if n < 3 { 0 } else { 3 }, 4, 10 + n)).collect()
    }

    fn sizes(bytes: &[u8], batches: usize) -> Vec<usize> {
        let mut at = 0;
        let mut next = || {
            let size = RecordBatch::parse(&bytes[at..]).unwrap().size();
            at += size;
            size
        };
        (0..batches).map(|_| next()).collect()
    }

    fn plausible() -> Plausible<'static> {
        Plausible {
            offset_min: Offset(0),
            offset_end: Offset(i64::MAX),
            durable_below: Offset(0),
            durable_position: 0,
            contiguous: true,
            epochs: Some(EpochTableView(&EPOCHS)),
        }
    }

    /// Where the search finds a batch, with a budget.
    fn search(mut bytes: &[u8], from: u64, plausible: &Plausible<'_>, budget: &mut u64) -> Result<Option<u64>, u64> {
        match find_batch(&mut bytes, from, plausible, budget) {
            Resync::Found(candidate) => Ok(Some(candidate.position)),
            Resync::Nothing => Ok(None),
            Resync::OutOfEffort { unread_from } => Err(unread_from),
        }
    }

    /// Where the log goes on behind damage at `damaged`, and with which offset.
    fn goes_on(mut bytes: &[u8], damaged: usize, plausible: &Plausible<'_>) -> Option<(u64, Offset)> {
        let mut effort = Effort::for_segment(bytes.len() as u64);
        match resync(&mut bytes, damaged as u64, damaged as u64 + 1, plausible, &mut effort) {
            Resync::Found(candidate) => Some((candidate.position, candidate.base_offset)),
            _ => None,
        }
    }

    #[test]
    fn where_no_offset_is_due_a_batch_at_any_offset_is_found() {
        let far = [&b"damage"[..], &batch(Offset(HOLE_MAX + 7), 0, 1, 5)].concat();
        let find = |offset_min| {
            let plausible = Plausible {
                offset_min,
                offset_end: Offset::MAX,
                durable_below: Offset(0),
                durable_position: 0,
                contiguous: false,
                epochs: None,
            };
            let mut effort = Effort::for_segment(far.len() as u64);
            matches!(resync(&mut &far[..], 0, 1, &plausible, &mut effort), Resync::Found(found) if found.position == 6)
        };
        assert!(find(Plausible::ANY_OFFSET));
        assert!(!find(Offset(0)), "a hole is not that wide");
    }

    #[test]
    fn the_next_batch_is_found_behind_damage() {
        let mut bytes = log(6);
        let sizes = sizes(&bytes, 6);
        let start = |n: usize| Ok(Some(sizes[..n].iter().sum::<usize>() as u64));
        bytes[30] ^= 1;
        let mut budget = bytes.len() as u64 * 8;
        assert_eq!(search(&bytes, 0, &plausible(), &mut budget), start(1));
        // The damaged one was plausible, and cost its size; so did the good one.
        assert_eq!(budget, bytes.len() as u64 * 8 - (sizes[0] + sizes[1]) as u64);
        assert_eq!(search(&bytes, sizes[0] as u64 + 1, &plausible(), &mut budget), start(2));
        let fifth = Plausible { offset_min: Offset(14), ..plausible() };
        assert_eq!(search(&bytes, 0, &fifth, &mut budget), start(4));
        let early = Plausible { offset_end: Offset(7), ..plausible() };
        assert_eq!(search(&bytes, 1, &early, &mut budget), Ok(None));
        assert_eq!(search(&bytes, bytes.len() as u64 + 5, &plausible(), &mut budget), Ok(None));
        assert_eq!(search(&bytes, u64::MAX, &plausible(), &mut budget), Ok(None));
    }

    #[test]
    fn the_effort_ends_the_search_where_it_can_go_on() {
        let bytes = log(3);
        let size = sizes(&bytes, 1)[0] as u64;
        let mut budget = size - 1;
        assert_eq!((search(&bytes, 0, &plausible(), &mut budget), budget), (Err(0), size - 1));
        budget = size;
        assert_eq!((search(&bytes, 0, &plausible(), &mut budget), budget), (Ok(Some(0)), 0));
    }

    /// Bytes that are lent in stretches, as from a file.
    struct Stretches<'a> {
        bytes: &'a [u8],
        longest: usize,
    }

    impl SegmentBytes for Stretches<'_> {
        fn end(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn at(&mut self, position: u64, wanted: usize) -> &[u8] {
            self.longest = self.longest.max(wanted);
            let rest = &self.bytes[position as usize..];
            &rest[..wanted.min(rest.len())]
        }
    }

    /// `max.message.bytes` may allow hundreds of megabytes: no such batch is taken into memory to be found.
    #[test]
    fn a_batch_longer_than_a_stretch_is_found_stretch_by_stretch() {
        let (short, long) = (batch(Offset(0), 0, 1, 10), batch(Offset(1), 0, 1, 3 * SEARCH_STRIDE_BYTES));
        for junk in [0, 1, SEARCH_STRIDE_BYTES - 30, SEARCH_STRIDE_BYTES, 2 * SEARCH_STRIDE_BYTES + 5] {
            let bytes = [&short[..], &vec![9; junk], &long, &batch(Offset(2), 0, 1, 5)].concat();
            let mut lent = Stretches { bytes: &bytes, longest: 0 };
            let mut effort = Effort::for_segment(bytes.len() as u64);
            let behind = Plausible { offset_min: Offset(1), epochs: None, ..plausible() };
            let Resync::Found(found) = resync(&mut lent, short.len() as u64, short.len() as u64, &behind, &mut effort)
            else {
                panic!("{junk}")
            };
            assert_eq!((found.position, found.next_offset), ((short.len() + junk) as u64, Offset(2)), "{junk}");
            assert!(lent.longest <= SEARCH_STRIDE_BYTES);
        }
    }

    #[test]
    fn each_field_has_to_be_plausible() {
        let bytes = log(1);
        let is_plausible = |at: usize, field: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + field.len()].copy_from_slice(field);
            let mut budget = 1_000_000;
            let _ = search(&bytes, 0, &plausible(), &mut budget);
            // Spent budget means that the header was believed.
            budget != 1_000_000
        };
        assert!(is_plausible(0, &[]));
        for (at, field) in [
            (0, &[0x80][..]),
            (12, &[0, 0, 0, 1]),
            (16, &[1]),
            (21, &[1]),
            (22, &[0x80]),
            (22, &[5]),
            (23, &[0, 0, 0, 4]),
            (43, &[0x80]),
            (51, &[0x80]),
            (53, &[0x80]),
            (57, &[0, 0, 0, 3]),
            (57, &[0, 0, 0, 0]),
        ] {
            assert!(!is_plausible(at, field), "{at}");
        }
    }

    /// Kafka takes any timestamp but one below -1 from a producer of its own; older clients and clocks write such.
    #[test]
    fn batches_from_before_1970_are_plausible() {
        let bytes = log(1);
        for at in [27, 35] {
            let mut early = bytes.clone();
            early[at..at + 8].copy_from_slice(&(-5000_i64).to_be_bytes());
            let crc = crc32c(&early[CRC_START..]);
            early[17..21].copy_from_slice(&crc.to_be_bytes());
            assert_eq!(search(&early, 0, &plausible(), &mut 1_000_000), Ok(Some(0)), "{at}");
        }
    }

    /// No CRC covers a base offset. One that damage has raised hides nothing that stands behind it.
    #[test]
    fn a_raised_base_offset_is_not_believed_against_what_follows() {
        let batches: Vec<Vec<u8>> = (0..5).map(|n| batch(Offset(n * 4), 0, 4, 20)).collect();
        for contiguous in [true, false] {
            let rules = Plausible { contiguous, epochs: None, offset_min: Offset(4), ..plausible() };
            for raised in [13_i64, 1 << 33, i64::MAX / 2] {
                let mut second = batches[1].clone();
                second[..8].copy_from_slice(&raised.to_be_bytes());
                let bytes = [&batches[0][..], b"damage", &second, &batches[2], &batches[3]].concat();
                let third = batches[0].len() + 6 + second.len();
                let found = goes_on(&bytes, batches[0].len(), &rules);
                assert_eq!(found, Some((third as u64, Offset(8))), "{raised} {contiguous}");
            }
        }
    }

    /// In a log that compaction has thinned, every batch leaves a hole before it, and each is what it says.
    #[test]
    fn holes_are_believed_where_they_are_legal() {
        let bases = [0_i64, 1, 10, 20, 5_000_000_000, 5_000_000_040];
        let batches: Vec<Vec<u8>> = bases.iter().map(|&base| batch(Offset(base), 0, 1, 10)).collect();
        let bytes = batches.concat();
        let rules = Plausible { contiguous: false, epochs: None, ..plausible() };
        let mut position = 0;
        let mut due = 0;
        for (base, one) in bases.iter().zip(&batches) {
            let end = position + one.len() as u64;
            let jump = Candidate { position, end, base_offset: Offset(*base), next_offset: Offset(base + 1) };
            let mut effort = Effort::for_segment(bytes.len() as u64);
            let behind = Plausible { offset_min: Offset(due), ..rules };
            assert!(is_jump_believed(&mut &bytes[..], jump, Offset(due), &behind, true, &mut effort), "{base}");
            (position, due) = (end, base + 1);
        }
        // Behind damage, too: the first batch that holds is where the log goes on.
        let mut damaged = bytes.clone();
        damaged[batches[0].len() + 40] ^= 1;
        let third = batches[..2].concat().len() as u64;
        assert_eq!(
            goes_on(&damaged, batches[0].len(), &Plausible { offset_min: Offset(1), ..rules }),
            Some((third, Offset(10)))
        );
    }

    /// Below the recovery point nothing beyond it is plausible while something below it is there.
    #[test]
    fn a_batch_below_the_recovery_point_goes_before_one_above() {
        let (damaged, good, above) =
            (batch(Offset(0), 0, 4, 10), batch(Offset(4), 0, 4, 10), batch(Offset(8), 0, 4, 10));
        let mut raised = batch(Offset(0), 0, 4, 11);
        raised[..8].copy_from_slice(&700_i64.to_be_bytes());
        let bytes = [&damaged[..20], &raised, &good, &above].concat();
        let rules = Plausible { durable_below: Offset(8), epochs: None, ..plausible() };
        assert_eq!(goes_on(&bytes, 0, &rules), Some((20 + raised.len() as u64, Offset(4))));
        // Nothing below is left: what follows the point is where the log goes on.
        let bytes = [&damaged[..20], &above[..]].concat();
        assert_eq!(goes_on(&bytes, 0, &rules), Some((20, Offset(8))));
        // Nor is that a batch which stands before the place of the point.
        let bytes = [&damaged[..20], &raised, &above[..]].concat();
        assert_eq!(goes_on(&bytes, 0, &rules), Some((20 + raised.len() as u64, Offset(8))), "two agree");
        let bytes = [&damaged[..20], &raised[..]].concat();
        assert_eq!(goes_on(&bytes, 0, &rules), Some((20, Offset(700))));
        assert_eq!(goes_on(&bytes, 0, &Plausible { durable_position: 21, ..rules }), None);
        assert_eq!(goes_on(&bytes, 0, &Plausible { durable_position: 20, ..rules }), Some((20, Offset(700))));
    }

    /// Behind damage no batch before it says what a base offset has to be. What is known of its end does.
    #[test]
    fn the_last_batch_behind_damage_is_held_to_its_end() {
        let mut last = batch(Offset(0), 0, 4, 10);
        let end = (20 + last.len()) as u64;
        let mut found = |claimed: i64, rules: Plausible<'_>| {
            last[..8].copy_from_slice(&claimed.to_be_bytes());
            let bytes = [&[9; 20][..], &last].concat();
            goes_on(&bytes, 0, &Plausible { epochs: None, ..rules }).map(|(_, base_offset)| base_offset.0)
        };
        // In front of the next segment, where offsets have no holes.
        let sealed = Plausible { offset_end: Offset(12), ..plausible() };
        assert_eq!([8, 7, 0, 9].map(|claimed| found(claimed, sealed)), [Some(8), None, None, None]);
        let may_have_holes = Plausible { contiguous: false, ..sealed };
        assert_eq!(found(7, may_have_holes), Some(7));
        assert_eq!(found(7, plausible()), Some(7), "nothing is known of the end");
        // At the place of the recovery point: the base offset follows from that.
        for contiguous in [true, false] {
            let rules = Plausible { durable_below: Offset(12), durable_position: end, contiguous, ..plausible() };
            assert_eq!([8, 7, 0].map(|claimed| found(claimed, rules)), [Some(8); 3], "{contiguous}");
            let is_behind = Plausible { durable_position: end + 1, ..rules };
            assert_eq!(found(7, is_behind), Some(7), "the file is cut short");
            let found_at = |offset_min| {
                let rules = Plausible { offset_min: Offset(offset_min), epochs: None, ..rules };
                let bytes = [&[9; 20][..], &batch(Offset(7), 0, 4, 10)].concat();
                goes_on(&bytes, 20, &rules).map(|(position, base_offset)| (position, base_offset.0))
            };
            assert_eq!(found_at(8), None, "it is what is damaged");
            assert_eq!(found_at(0), contiguous.then_some((20, 8)), "something is missing");
            let is_contradicted = Plausible { offset_min: Offset(9), ..rules };
            assert_eq!(found(9, is_contradicted), (!contiguous).then_some(9), "{contiguous}");
        }
    }

    #[test]
    fn a_batch_that_holds_but_for_its_base_offset_is_known() {
        let mut bytes = [batch(Offset(0), 0, 4, 10), batch(Offset(4), 0, 4, 10)].concat();
        let second = bytes.len() / 2;
        bytes[second..second + 8].copy_from_slice(&i64::MIN.to_be_bytes());
        let found = displaced_batch(&mut &bytes[..], second as u64, Offset(4)).unwrap();
        assert_eq!((found.end, found.base_offset, found.next_offset), (bytes.len() as u64, Offset(4), Offset(8)));
        bytes[second + 70] ^= 1;
        assert_eq!(displaced_batch(&mut &bytes[..], second as u64, Offset(4)), None);
    }

    /// Every position tried in full, without a budget.
    fn naive_next(bytes: &[u8], from: usize, plausible: &Plausible<'_>) -> Option<u64> {
        let found = (from..bytes.len()).find(|&at| {
            let rest = &bytes[at..];
            RecordBatch::parse(rest).is_ok_and(|batch| {
                batch.verify_crc().is_ok()
                    && batch.base_offset() >= plausible.offset_min
                    && batch.base_offset() - plausible.offset_min <= HOLE_MAX
                    && batch.last_offset() < plausible.offset_end
                    && EpochTableView(&EPOCHS).epoch_for(batch.base_offset()) == Some(batch.partition_leader_epoch())
            })
        });
        found.map(|at| at as u64)
    }

    proptest! {
        #[test]
        fn the_search_is_the_naive_search(
            batches in 1_usize..8,
            damage in proptest::collection::vec((0_usize..1000, any::<u8>()), 0..12),
            junk in proptest::collection::vec(prop_oneof![Just(2_u8), Just(0_u8), any::<u8>()], 0..150),
            from in 0_usize..400,
            offset_min in 0_i64..20,
        ) {
            let mut bytes = [junk, log(batches)].concat();
            for (place, byte) in damage {
                let len = bytes.len();
                bytes[place % len] = byte;
            }
            let plausible = Plausible { offset_min: Offset(offset_min), ..plausible() };
            let expected = naive_next(&bytes, from, &plausible);
            prop_assert_eq!(search(&bytes, from as u64, &plausible, &mut u64::MAX.clone()), Ok(expected));
        }

        #[test]
        fn no_bytes_are_taken_for_a_batch(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0_u8), Just(2_u8)], 0..300),
        ) {
            prop_assert_eq!(search(&bytes, 0, &plausible(), &mut 2400), Ok(None));
        }
    }
}
