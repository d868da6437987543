//! What continues a log: the one judgement of the batch that stands where the next one is due.
//!
//! Recovery, attached processes, readers and the tools all ask here, so that no two of them answer differently. They
//! say what the log is ([`Continuation`]), lend the bytes, and get a [`Judgement`].
//!
//! | what stands there | below the recovery point | at or above it |
//! |---|---|---|
//! | a batch that holds, at the next offset, in the offset's epoch | continues | continues |
//! | the same, but its epoch field is -1 or above the latest | continues, field damaged | continues, field damaged |
//! | the same, but of an epoch before the offset's | continues, field damaged | stale: a truncated history |
//! | the same, but the table contradicts what the batch before bears out | continues | continues, the table is wrong |
//! | a batch over the start of an epoch | continues | damage |
//! | a batch over the recovery point | continues if its checksum holds: the point is wrong | - |
//! | a batch of another offset, or no batch | damage | damage: the log ends |
//!
//! The CRC covers neither the base offset nor the leader epoch, so those two are rules of their own. Below the
//! recovery point no stale batch can stand: what was there was overwritten or cut before the point rose over it.

use crate::candidate::{Candidate, Plausible, SegmentBytes, checksum, displaced_batch};
use crate::error::DecodeError;
use crate::leader_epoch::EpochTableView;
use crate::limits::{BATCH_BYTES_MAX, HOLE_MAX, SEARCH_STRIDE_BYTES};
use crate::out_of_order::is_out_of_order;
use crate::record_batch::{HEADER_LEN, RecordBatch};
use crate::resync::{Effort, batch_at, is_jump_believed};
use crate::segment_scan::{ScanRules, ScanStep, epoch_of, follows, scan_step};
use crate::units::{LeaderEpoch, NO_LEADER_EPOCH, Offset};

/// What a log says about its next batch.
#[derive(Debug, Clone, Copy)]
pub struct Continuation<'a> {
    /// The offset that is due.
    pub next_offset: Offset,
    /// The log was written here: base offsets are contiguous. Else they need only rise (imported, compacted).
    pub contiguous: bool,
    /// Where the next segment begins; `Offset::MAX` where there is none.
    pub offset_end: Offset,
    /// The recovery point: everything below was durable.
    pub durable_below: Offset,
    /// Where in the bytes the recovery point stands; 0 where it does not stand in them.
    pub durable_position: u64,
    /// From here on the log was written by a program that leaves no holes, although offsets need only rise before: the
    /// recovery point of a log that was copied here and is written here since. `Offset::MAX` where no such point is
    /// known.
    pub unbroken_from: Offset,
    /// The epochs of the log; `None` where no checkpoint knows them: then any epoch continues it.
    pub epochs: Option<EpochTableView<'a>>,
    /// The epoch field of the batch that ends where this one is due; `None` where it is not known.
    pub epoch_before: Option<LeaderEpoch>,
    /// Whether the CRC is computed.
    pub check_crc: bool,
}

/// What stands where the next batch is due.
#[derive(Debug, Clone, Copy)]
pub enum Judgement<'a> {
    /// The log goes on.
    Continues {
        /// The batch.
        batch: RecordBatch<'a>,
        /// The epoch of its offsets, where the batch's own field says another: that field is damaged.
        right_epoch: Option<LeaderEpoch>,
    },
    /// A batch that holds, of a history that was truncated. The log ends before it.
    Stale {
        /// The batch.
        batch: RecordBatch<'a>,
        /// The epoch of its offset.
        expected: LeaderEpoch,
    },
    /// Nothing was written here.
    End,
    /// The bytes end inside the batch, and what is there holds so far.
    NeedMore {
        /// Bytes needed from the start of the batch; ask again with these.
        needed: usize,
    },
    /// No batch of this log.
    Damage(DecodeError),
}

/// What stands at a place of a segment, judged by its own bytes and by what stands behind it.
#[derive(Debug, Clone, Copy)]
pub enum Standing {
    /// The log goes on.
    Batch {
        /// Where it is, and the offset that is due behind it.
        batch: Candidate,
        /// What its epoch field says.
        epoch: LeaderEpoch,
        /// The epoch of its offsets, where the field says another: it is damaged.
        right_epoch: Option<LeaderEpoch>,
        /// Its own field says another base offset than `batch`: it is damaged.
        is_displaced: bool,
    },
    /// A batch that holds, of a history that was truncated. The log ends before it.
    Stale,
    /// Nothing was written here.
    End,
    /// The bytes end inside the batch, or cannot be read.
    Cut {
        /// Bytes needed from the start of the batch.
        needed: usize,
    },
    /// No batch of this log.
    Damage(DecodeError),
}

impl Continuation<'_> {
    /// Judges the batch at `position`.
    ///
    /// Where offsets need only rise, two fields can say too much, and then hide what follows: a base offset, which no
    /// checksum covers, and the last offset of a batch that compaction has thinned out. So a batch that jumps, or that
    /// has fewer records than offsets, is compared with what stands behind it. One behind which nothing stands is held
    /// to its end where that is known (`displaced`), and so are the last ones of a log without holes.
    pub fn judge_at(&self, bytes: &mut impl SegmentBytes, position: u64, effort: &mut Effort) -> Standing {
        if self.contiguous {
            return match self.judge_by_itself(bytes, position, effort) {
                Standing::Damage(error) => self.displaced(bytes, position, effort).unwrap_or(Standing::Damage(error)),
                standing => standing,
            };
        }
        // What the batch says is not asked where it is known.
        let at_point = position < self.durable_position;
        if let Some(standing) = at_point.then(|| self.displaced(bytes, position, effort)).flatten() {
            return standing;
        }
        match self.judge_by_itself(bytes, position, effort) {
            Standing::Damage(error) if !at_point => {
                self.displaced(bytes, position, effort).unwrap_or(Standing::Damage(error))
            }
            standing => standing,
        }
    }

    /// The batch at `position`, where all but its base offset holds, and its end is known to be another one than it
    /// says: at the place of the recovery point stands that point's offset. The last batch of a sealed segment, or of a
    /// log that no checkpoint knows, ends where the next segment begins if there are no holes, and else with an end
    /// that a file next to the segment names, where no offset is missing before it. A batch that stands out of order is
    /// none of these, and above the recovery point of a log that was written here it may be of another history.
    #[cold]
    fn displaced(&self, bytes: &mut impl SegmentBytes, position: u64, effort: &mut Effort) -> Option<Standing> {
        let header = bytes.at(position, HEADER_LEN);
        let (claimed, epoch) = RecordBatch::peek_place(header)?;
        let end = position + RecordBatch::peek_size(header).ok()? as u64;
        let is_at_point = end == self.durable_position;
        let is_sealed = self.offset_end != Offset::MAX;
        let may_be_named = is_sealed || !self.contiguous && self.durable_below == 0;
        let is_known = is_at_point || may_be_named && end == bytes.end();
        if !is_known {
            return None;
        }
        let mut batch = displaced_batch(bytes, position, self.next_offset)?;
        if is_at_point {
            batch.base_offset += self.durable_below - batch.next_offset;
            batch.next_offset = self.durable_below;
        } else if self.contiguous {
            let may_be_stale = self.durable_below > 0 && batch.next_offset > self.durable_below;
            if batch.next_offset != self.offset_end || may_be_stale {
                return None;
            }
        } else if !bytes.names_end(batch.next_offset, !is_sealed) {
            return None;
        }
        let is_due =
            if self.contiguous { batch.base_offset == self.next_offset } else { batch.base_offset >= self.next_offset };
        let is_displaced =
            is_due && batch.base_offset != claimed && !is_out_of_order(bytes, &batch, &mut effort.corroboration);
        is_displaced.then_some(Standing::Batch { batch, epoch, right_epoch: None, is_displaced })
    }

    fn judge_by_itself(&self, bytes: &mut impl SegmentBytes, position: u64, effort: &mut Effort) -> Standing {
        let left = usize::try_from(bytes.end().saturating_sub(position)).unwrap_or(usize::MAX);
        let mut wanted = HEADER_LEN;
        let (mut found, count, epoch, right_epoch) = loop {
            let seen = bytes.at(position, wanted);
            if seen.len() < wanted.min(left) {
                return Standing::Cut { needed: wanted };
            }
            match self.judge(seen) {
                Judgement::Continues { batch, right_epoch } => {
                    let (base_offset, next_offset) = (batch.base_offset(), batch.next_offset());
                    let end = position + batch.size() as u64;
                    let found = Candidate { position, end, base_offset, next_offset };
                    break (found, batch.record_count(), batch.partition_leader_epoch(), right_epoch);
                }
                Judgement::Stale { .. } => return Standing::Stale,
                Judgement::End => return Standing::End,
                Judgement::NeedMore { needed } if needed > wanted && needed <= left => {
                    // Only what is a batch is taken into memory as a whole.
                    if let Some(error) = self.long_batch_fails(bytes, position, needed) {
                        return Standing::Damage(error);
                    }
                    wanted = needed;
                }
                Judgement::NeedMore { needed } => return Standing::Cut { needed },
                Judgement::Damage(error) => return Standing::Damage(error),
            }
        };
        if !self.contiguous {
            if i64::from(count) < found.next_offset - found.base_offset {
                let claimed = found.next_offset;
                found.next_offset = self.reach(bytes, &found, count, effort);
                if found.next_offset != claimed && !self.check_crc {
                    // What it says is refuted: it holds only if its checksum does.
                    return Continuation { check_crc: true, ..*self }.judge_by_itself(bytes, position, effort);
                }
            }
            if found.base_offset > self.next_offset && !self.is_jump_believed(bytes, found, effort) {
                let (expected, found) = (self.next_offset, found.base_offset);
                return Standing::Damage(DecodeError::NotContiguous { expected, found });
            }
        }
        Standing::Batch { batch: found, epoch, right_epoch, is_displaced: false }
    }

    /// Whether a batch that leaves a hole before it is believed against what stands behind it.
    fn is_jump_believed(&self, bytes: &mut impl SegmentBytes, found: Candidate, effort: &mut Effort) -> bool {
        let may_end_behind_hole = self.next_offset < self.unbroken_from;
        is_jump_believed(bytes, found, self.next_offset, &self.plausible(), may_end_behind_hole, effort)
    }

    /// What a batch behind damage at this place looks like.
    pub fn plausible(&self) -> Plausible<'static> {
        Plausible {
            offset_min: self.next_offset,
            offset_end: self.offset_end,
            durable_below: self.durable_below,
            durable_position: self.durable_position,
            contiguous: self.contiguous,
            epochs: None,
        }
    }

    /// The checksum of a batch that is longer than a stretch, where it does not hold.
    #[cold]
    fn long_batch_fails(&self, bytes: &mut impl SegmentBytes, position: u64, size: usize) -> Option<DecodeError> {
        if size <= SEARCH_STRIDE_BYTES || !self.check_crc {
            return None;
        }
        let stored = u32::from_be_bytes(*bytes.at(position, HEADER_LEN).get(17..)?.first_chunk()?);
        let computed = checksum(bytes, position, position + size as u64)?;
        (stored != computed).then_some(DecodeError::BadCrc { stored, computed })
    }

    /// The offset behind a batch of fewer records than offsets. What it says itself is believed, but not over the start
    /// of the next segment or over the recovery point, and not where the two batches behind it agree that the log goes
    /// on before. Once it is refuted, the one batch behind it is enough.
    #[cold]
    fn reach(&self, bytes: &mut impl SegmentBytes, batch: &Candidate, count: i32, effort: &mut Effort) -> Offset {
        let least = batch.base_offset.saturating_add(i64::from(count.max(1)));
        let claimed = batch.next_offset;
        let durable_below = if batch.base_offset < self.durable_below { self.durable_below } else { Offset::MAX };
        let bounded = claimed.min(self.offset_end.min(durable_below).max(least));
        let behind = Plausible { offset_min: least, offset_end: claimed, ..self.plausible() };
        let Some(next) = batch_at(bytes, batch.end, &behind, &mut effort.corroboration) else { return bounded };
        let behind = Plausible { offset_min: next.next_offset, ..behind };
        let third = batch_at(bytes, next.end, &behind, &mut effort.corroboration).map(|third| third.base_offset);
        let goes_on_before = bounded < claimed || third.is_some_and(|third| third < claimed);
        if goes_on_before && next.next_offset <= claimed { next.base_offset } else { bounded }
    }

    /// Judges the one batch at the start of `bytes`.
    #[inline]
    pub fn judge<'b>(&self, bytes: &'b [u8]) -> Judgement<'b> {
        let rules = ScanRules {
            expected_offset: Some(self.next_offset),
            contiguous: self.contiguous,
            epochs: None,
            batch_bytes_max: BATCH_BYTES_MAX,
            check_crc: self.check_crc,
        };
        match scan_step(bytes, &rules) {
            ScanStep::Batch(batch) | ScanStep::WrongEpoch { batch, .. } => self.judge_batch(batch),
            ScanStep::End => Judgement::End,
            ScanStep::NeedMore { needed } => Judgement::NeedMore { needed },
            ScanStep::Invalid(error) => Judgement::Damage(error),
        }
    }

    /// Holds the offsets of a batch against the ones that are due: what no checksum covers.
    ///
    /// # Errors
    /// The first rule that the batch breaks.
    #[inline]
    pub fn check_place(&self, batch: &RecordBatch<'_>) -> Result<(), DecodeError> {
        let (base_offset, last_offset) = (batch.base_offset(), batch.last_offset());
        let is_due = base_offset == self.next_offset;
        let is_inside = last_offset < self.offset_end && base_offset >= self.durable_below;
        // Nearly every batch: none of the rules below can be broken.
        if is_due && is_inside && self.contiguous && batch.is_whole() {
            return Ok(());
        }
        let hole = base_offset.saturating_since(self.next_offset);
        if !follows(Some(self.next_offset), base_offset, self.contiguous) || hole > HOLE_MAX {
            return Err(DecodeError::NotContiguous { expected: self.next_offset, found: base_offset });
        }
        // Segments of logs that were not written here may overlap, and lose nothing by it.
        let is_beyond = if self.contiguous {
            last_offset >= self.offset_end
        } else {
            base_offset >= self.offset_end && base_offset != self.next_offset
        };
        if is_beyond {
            return Err(DecodeError::BeyondNextSegment { last_offset, next_base: self.offset_end });
        }
        // A batch that was written here has a record for each of its offsets, or none where repair filled a gap.
        if self.contiguous && !batch.is_whole() {
            let (given, max) = (batch.record_count(), batch.last_offset_delta().saturating_add(1));
            return Err(DecodeError::BadRecordCount { given, max });
        }
        // The last durable batch ends at the recovery point: no batch and no hole, however legal, spans it. One that
        // is the start of the next segment may be known by its name alone, and segments may overlap there.
        // A batch that compaction has thinned out is judged by what follows it: `judge_at`.
        // One that stands at the very offset that is due is no damage if its checksum holds: then the point is wrong.
        let is_exact = base_offset >= self.durable_below
            || !is_due && (self.contiguous || (self.durable_below != self.offset_end && batch.is_whole()));
        if self.next_offset < self.durable_below && last_offset >= self.durable_below && is_exact {
            if base_offset >= self.durable_below {
                return Err(DecodeError::NotContiguous { expected: self.next_offset, found: base_offset });
            }
            return Err(DecodeError::BeyondRecoveryPoint { last_offset, recovery_point: self.durable_below });
        }
        Ok(())
    }

    /// Judges place and history of a batch whose bytes hold.
    fn judge_batch<'b>(&self, batch: RecordBatch<'b>) -> Judgement<'b> {
        if let Err(error) = self.check_place(&batch) {
            return Judgement::Damage(error);
        }
        let Some(epochs) = &self.epochs else { return Judgement::Continues { batch, right_epoch: None } };
        let is_durable = batch.base_offset() < self.durable_below;
        let found = batch.partition_leader_epoch();
        let expected = match epoch_of(epochs, &batch) {
            Ok(expected) => expected,
            // The bytes were durable: an epoch table that contradicts them does not make them damage.
            Err(_) if is_durable || self.contradicts(*epochs, &batch) => {
                return Judgement::Continues { batch, right_epoch: None };
            }
            Err(error) => return Judgement::Damage(error),
        };
        let latest = epochs.latest().map_or(NO_LEADER_EPOCH, |latest| latest.epoch);
        if found == expected {
            Judgement::Continues { batch, right_epoch: None }
        } else if is_durable || found > latest || found < 0 {
            Judgement::Continues { batch, right_epoch: Some(expected) }
        } else if self.contradicts(*epochs, &batch) {
            Judgement::Continues { batch, right_epoch: None }
        } else {
            Judgement::Stale { batch, expected }
        }
    }

    /// Whether the epochs cannot be those of the log: no batch of an epoch stands before that epoch's first offset, and
    /// where no epoch begins between this batch and the one before it, both are of the same history. No truncation
    /// leaves what contradicts either.
    #[cold]
    fn contradicts(&self, epochs: EpochTableView<'_>, batch: &RecordBatch<'_>) -> bool {
        let (found, base_offset) = (batch.partition_leader_epoch(), batch.base_offset());
        let begins_behind =
            epochs.entries().iter().any(|entry| entry.epoch == found && entry.start_offset > base_offset);
        let last_before = base_offset.saturating_sub(1);
        let is_borne_out = self.epoch_before == Some(found)
            && base_offset == self.next_offset
            && epochs.epoch_for(last_before) == epochs.epoch_for(base_offset);
        begins_behind || is_borne_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader_epoch::EpochEntry;
    use crate::record_batch::stamp_base;
    use crate::record_batch_builder::{RecordBatchBuilder, encode_one};
    use crate::units::TimestampMs;
    use std::vec;
    use std::vec::Vec;

    const EPOCHS: [EpochEntry; 3] = [
        EpochEntry { epoch: LeaderEpoch(1), start_offset: Offset(0) },
        EpochEntry { epoch: LeaderEpoch(3), start_offset: Offset(10) },
        EpochEntry { epoch: LeaderEpoch(5), start_offset: Offset(20) },
    ];

    fn batch(base_offset: Offset, epoch: LeaderEpoch) -> Vec<u8> {
        let mut bytes = [0; 200];
        let size = encode_one(&mut bytes, TimestampMs(1000), None, Some(b"value"), &[]).unwrap();
        stamp_base(&mut bytes, base_offset, epoch);
        bytes[..size].to_vec()
    }

    fn batch_of(base_offset: Offset, records: usize) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(vec![0; 500]);
        for _ in 0..records {
            builder.append(TimestampMs(1000), None, Some(b"value"), &[]).unwrap();
        }
        let bytes = builder.finish();
        stamp_base(bytes, base_offset, LeaderEpoch(5));
        bytes.to_vec()
    }

    /// As compaction leaves a batch whose last records it has taken.
    fn thinned(base_offset: Offset, records: usize, delta: i32) -> Vec<u8> {
        let mut bytes = batch_of(base_offset, records);
        bytes[23..27].copy_from_slice(&delta.to_be_bytes());
        let crc = crate::crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The offset that is due behind the first batch of `bytes`, in a log whose offsets need only rise.
    fn due_behind(due: Continuation<'_>, bytes: &[u8]) -> Offset {
        let effort = &mut Effort::for_segment(bytes.len() as u64);
        match (Continuation { contiguous: false, epochs: None, ..due }).judge_at(&mut &bytes[..], 0, effort) {
            Standing::Batch { batch, .. } => batch.next_offset,
            other => panic!("{other:?}"),
        }
    }

    /// In a log without holes, what the offset that is due and the recovery point agree on is what the batch has.
    #[test]
    fn the_last_durable_batch_of_a_log_without_holes_is_held_to_both_its_ends() {
        let mut bytes = batch_of(Offset(30), 3);
        let end = bytes.len() as u64;
        let known = Continuation { durable_below: Offset(33), durable_position: end, epochs: None, ..due(Offset(30)) };
        let mut standing = |claimed: i64, due: Continuation<'_>| {
            bytes[..8].copy_from_slice(&claimed.to_be_bytes());
            match due.judge_at(&mut &bytes[..], 0, &mut Effort::for_segment(end)) {
                Standing::Batch { batch, is_displaced, .. } => Some((batch.base_offset.0, is_displaced)),
                _ => None,
            }
        };
        for claimed in [29, 31, 33, 1 << 41, -1, i64::MIN, i64::MAX] {
            assert_eq!(standing(claimed, known), Some((30, true)), "{claimed}");
            assert_eq!(standing(claimed, Continuation { durable_below: Offset(34), ..known }), None, "{claimed}");
            assert_eq!(standing(claimed, Continuation { durable_position: end + 1, ..known }), None, "{claimed}");
        }
        assert_eq!(standing(30, known), Some((30, false)));
        bytes[70] ^= 1;
        let damaged = Continuation { check_crc: true, ..known };
        assert!(matches!(
            damaged.judge_at(&mut &bytes[..], 0, &mut Effort::for_segment(end)),
            Standing::Damage(DecodeError::BadCrc { .. })
        ));
    }

    /// The same where the next segment begins with the offset behind it, and nothing else stands behind it in its own.
    #[test]
    fn the_last_batch_of_a_sealed_segment_without_holes_is_held_to_the_next_ones_start() {
        let mut bytes = batch_of(Offset(30), 3);
        let end = bytes.len() as u64;
        let sealed =
            Continuation { durable_below: Offset(60), offset_end: Offset(33), epochs: None, ..due(Offset(30)) };
        for claimed in [27, 29, 31, 33, 1 << 41, -1, i64::MIN, i64::MAX] {
            bytes[..8].copy_from_slice(&claimed.to_be_bytes());
            let standing = |due: Continuation<'_>, bytes: &[u8]| match due.judge_at(
                &mut &bytes[..],
                0,
                &mut Effort::for_segment(end),
            ) {
                Standing::Batch { batch, is_displaced, .. } => Some((batch.base_offset.0, is_displaced)),
                _ => None,
            };
            assert_eq!(standing(sealed, &bytes), Some((30, true)), "{claimed}");
            assert_eq!(standing(Continuation { offset_end: Offset(34), ..sealed }, &bytes), None, "{claimed}");
            assert_eq!(standing(Continuation { durable_below: Offset(32), ..sealed }, &bytes), None, "{claimed}");
            assert!(standing(Continuation { durable_below: Offset(0), ..sealed }, &bytes).is_some(), "{claimed}");
            assert_eq!(standing(Continuation { offset_end: Offset::MAX, ..sealed }, &bytes), None, "{claimed}");
            assert_eq!(standing(sealed, &[&bytes[..], &batch_of(Offset(33), 1)].concat()), None, "{claimed}");
        }
    }

    #[test]
    fn a_batch_that_says_too_great_a_last_offset_hides_nothing() {
        let due = Continuation { durable_below: Offset(0), ..due(Offset(30)) };
        let first = thinned(Offset(30), 2, 500);
        let (second, third) = (batch_of(Offset(35), 2), batch_of(Offset(40), 1));
        assert_eq!(due_behind(due, &first), 531, "nothing contradicts it");
        assert_eq!(due_behind(due, &[&first[..], &second].concat()), 531, "one against one: the checksum covers it");
        assert_eq!(due_behind(due, &[&first[..], &second, &third].concat()), 35, "two against one");
        let next_begins = Continuation { offset_end: Offset(37), ..due };
        assert_eq!(due_behind(next_begins, &[&first[..], &second].concat()), 35, "one and the next segment");
        assert_eq!(due_behind(next_begins, &first), 37, "not over the next segment's start");
        assert_eq!(
            due_behind(Continuation { durable_below: Offset(50), ..due }, &first),
            50,
            "nor over the recovery point"
        );
        // What follows behind the last offset bears it out.
        assert_eq!(due_behind(due, &[&first[..], &batch_of(Offset(531), 2)].concat()), 531);
    }

    #[test]
    fn a_base_offset_that_damage_has_raised_is_contradicted_by_what_follows() {
        let judge = |batches: &[Vec<u8>]| {
            let bytes = batches.concat();
            let rising = Continuation { contiguous: false, epochs: None, durable_below: Offset(0), ..due(Offset(30)) };
            rising.judge_at(&mut &bytes[..], 0, &mut Effort::for_segment(bytes.len() as u64))
        };
        assert!(matches!(judge(&[batch_of(Offset(40), 2), batch_of(Offset(42), 1)]), Standing::Batch { .. }));
        let contradicted = judge(&[batch_of(Offset(4000), 2), batch_of(Offset(32), 2), batch_of(Offset(34), 1)]);
        assert!(matches!(contradicted, Standing::Damage(DecodeError::NotContiguous { found: Offset(4000), .. })));
        assert!(
            matches!(judge(&[batch_of(Offset(3_000_000_000), 2)]), Standing::Batch { .. }),
            "compaction leaves such holes"
        );
        // Raised by less than the batch behind it has, which then ends higher than both.
        for raised in [31, 32] {
            let contradicted = judge(&[batch_of(Offset(raised), 2), batch_of(Offset(32), 2)]);
            assert!(matches!(contradicted, Standing::Damage(DecodeError::NotContiguous { .. })), "{raised}");
        }
        let too_wide = judge(&[batch_of(Offset(1 << 40), 2)]);
        assert!(matches!(too_wide, Standing::Damage(DecodeError::NotContiguous { .. })));
        assert!(matches!(judge(&[batch_of(Offset(30), 2)[..70].to_vec()]), Standing::Cut { .. }));
        assert!(matches!(judge(&[vec![0; 100]]), Standing::End));
    }

    /// Without a batch behind it, the recovery point says as much.
    #[test]
    fn a_base_offset_raised_at_a_segments_end_is_contradicted_by_the_recovery_point() {
        let judge = |base, offset_end, durable_below| {
            let bytes = batch_of(Offset(base), 2);
            let (offset_end, durable_below) = (Offset(offset_end), Offset(durable_below));
            let due = Continuation { contiguous: false, epochs: None, offset_end, durable_below, ..due(Offset(30)) };
            match due.judge_at(&mut &bytes[..], 0, &mut Effort::for_segment(bytes.len() as u64)) {
                Standing::Batch { batch, .. } => Ok(batch.base_offset.0),
                Standing::Damage(_) => Err(()),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(judge(31, 32, 32), Err(()), "put at 30 it leads up to the point");
        assert_eq!(judge(31, 32, 500), Ok(31), "segments may overlap");
        assert_eq!(judge(31, i64::MAX, 32), Err(()), "up to the recovery point");
        assert_eq!(judge(31, 33, 500), Ok(31), "it leads up to the next segment as it is");
        assert_eq!(judge(31, 40, 500), Ok(31), "a hole before it, and one behind");
        assert_eq!(judge(30, 32, 32), Ok(30));
    }

    /// What was appended here behind what was copied here has no hole, and a file next to the segment may know its end.
    #[test]
    fn a_last_batch_behind_a_hole_is_not_believed_where_no_hole_can_be() {
        struct Named(Vec<u8>, i64);
        impl SegmentBytes for Named {
            fn end(&self) -> u64 {
                self.0.len() as u64
            }
            fn at(&mut self, position: u64, _wanted: usize) -> &[u8] {
                &self.0[position as usize..]
            }
            fn names_end(&mut self, end: Offset, is_last: bool) -> bool {
                is_last && end == self.1
            }
        }
        let holds = |unbroken_from: i64, named: i64| {
            let due = Continuation {
                contiguous: false,
                epochs: None,
                durable_below: Offset(0),
                unbroken_from: Offset(unbroken_from),
                ..due(Offset(30))
            };
            let mut bytes = Named(batch_of(Offset(40), 2), named);
            match due.judge_at(&mut bytes, 0, &mut Effort::for_segment(1000)) {
                Standing::Batch { batch, is_displaced, .. } => Some((batch.base_offset.0, is_displaced)),
                _ => None,
            }
        };
        let as_it_says = Some((40, false));
        assert_eq!([holds(i64::MAX, 0), holds(31, 0), holds(i64::MAX, 42)], [as_it_says; 3]);
        assert_eq!(holds(30, 0), None, "written here since");
        assert_eq!(holds(i64::MAX, 32), Some((30, true)), "put at 30 it ends where it is said to end");
    }

    /// The last batch below the recovery point ends with it: what its base offset says is not asked.
    #[test]
    fn a_batch_that_ends_at_the_place_of_the_recovery_point_ends_with_its_offset() {
        let judge = |next_offset: i64, batch: Vec<u8>, place: Option<u64>| {
            let end = batch.len() as u64;
            let bytes = [batch, batch_of(Offset(60), 2)].concat();
            let due = Continuation {
                contiguous: false,
                epochs: None,
                durable_below: Offset(40),
                durable_position: place.unwrap_or(end),
                ..due(Offset(next_offset))
            };
            match due.judge_at(&mut &bytes[..], 0, &mut Effort::for_segment(bytes.len() as u64)) {
                Standing::Batch { batch, is_displaced, .. } => {
                    Some((batch.base_offset.0, batch.next_offset.0, is_displaced))
                }
                _ => None,
            }
        };
        for claimed in [0, 29, 30, 35, 37, 39, 1 << 41, i64::MIN] {
            assert_eq!(judge(30, batch_of(Offset(claimed), 2), None), Some((38, 40, true)), "{claimed}");
            assert_eq!(judge(38, batch_of(Offset(claimed), 2), None), Some((38, 40, true)), "{claimed}");
        }
        assert_eq!(judge(30, batch_of(Offset(38), 2), None), Some((38, 40, false)));
        // One that compaction has thinned out, too.
        assert_eq!(judge(30, thinned(Offset(33), 2, 6), None), Some((33, 40, false)));
        assert_eq!(judge(30, thinned(Offset(36), 2, 6), None), Some((33, 40, true)));
        // Where offsets before it are due that it would have, the point is not believed.
        assert_eq!(judge(39, batch_of(Offset(39), 2), None), Some((39, 41, false)));
        assert_eq!(judge(30, batch_of(Offset(31), 2), Some(1)), Some((31, 33, false)), "it stands elsewhere");
        let mut damaged = batch_of(Offset(35), 2);
        damaged[70] ^= 1;
        assert_eq!(judge(30, damaged, None), None);
    }

    fn due(next_offset: Offset) -> Continuation<'static> {
        Continuation {
            next_offset,
            contiguous: true,
            offset_end: Offset::MAX,
            durable_below: Offset(15),
            durable_position: 0,
            unbroken_from: Offset::MAX,
            epochs: Some(EpochTableView(&EPOCHS)),
            epoch_before: None,
            check_crc: true,
        }
    }

    /// No epoch is believed that the batches do not bear out.
    #[test]
    fn an_epoch_that_the_batches_contradict_takes_none_of_them() {
        let judge = |due: Continuation<'_>, base, epoch| match due.judge(&batch(Offset(base), LeaderEpoch(epoch))) {
            Judgement::Continues { .. } => "continues",
            Judgement::Stale { .. } => "stale",
            other => panic!("{other:?}"),
        };
        let entry = |epoch, start| EpochEntry { epoch: LeaderEpoch(epoch), start_offset: Offset(start) };
        // The epoch's first offset is another one: a batch of it stands before.
        for moved in [&[entry(0, 40)][..], &[entry(0, 0), entry(1, 40)], &[entry(0, i64::MAX - 9)]] {
            let latest = moved[moved.len() - 1].epoch.0;
            let due = Continuation { epochs: Some(EpochTableView(moved)), ..due(Offset(25)) };
            assert_eq!(judge(due, 25, latest), "continues", "{moved:?}");
        }
        // Its number is another one: the batch before, in the same epoch by the table, has the same field.
        let (renumbered, truncated) = ([entry(7, 0)], [entry(3, 0), entry(7, 25)]);
        let before = |epochs, before| Continuation {
            epochs: Some(EpochTableView(epochs)),
            epoch_before: Some(LeaderEpoch(before)),
            ..due(Offset(25))
        };
        assert_eq!(judge(before(&renumbered, 3), 25, 3), "continues");
        assert_eq!(judge(before(&renumbered, 7), 25, 3), "stale");
        assert_eq!(judge(Continuation { epoch_before: None, ..before(&renumbered, 3) }, 25, 3), "stale");
        // A truncation to here.
        assert_eq!(judge(before(&truncated, 3), 25, 3), "stale");
    }

    /// The table at the top of this file, row by row.
    #[test]
    fn each_row_of_the_table_holds() {
        let judge = |due: Continuation<'_>, base, epoch| match due.judge(&batch(base, epoch)) {
            Judgement::Continues { right_epoch: None, .. } => "continues",
            Judgement::Continues { right_epoch: Some(_), .. } => "field damaged",
            Judgement::Stale { .. } => "stale",
            Judgement::Damage(_) => "damage",
            Judgement::End | Judgement::NeedMore { .. } => "end",
        };
        // Below the recovery point, and above it.
        assert_eq!(
            (judge(due(Offset(12)), Offset(12), LeaderEpoch(3)), judge(due(Offset(25)), Offset(25), LeaderEpoch(5))),
            ("continues", "continues")
        );
        assert_eq!(
            (judge(due(Offset(12)), Offset(12), LeaderEpoch(9)), judge(due(Offset(25)), Offset(25), LeaderEpoch(9))),
            ("field damaged", "field damaged")
        );
        assert_eq!(
            (judge(due(Offset(12)), Offset(12), LeaderEpoch(-1)), judge(due(Offset(25)), Offset(25), LeaderEpoch(-1))),
            ("field damaged", "field damaged")
        );
        assert_eq!(
            (judge(due(Offset(12)), Offset(12), LeaderEpoch(1)), judge(due(Offset(25)), Offset(25), LeaderEpoch(3))),
            ("field damaged", "stale")
        );
        assert_eq!(
            (judge(due(Offset(12)), Offset(13), LeaderEpoch(3)), judge(due(Offset(25)), Offset(26), LeaderEpoch(5))),
            ("damage", "damage")
        );
        // Without a table any epoch continues the log.
        let unknown = Continuation { epochs: None, ..due(Offset(25)) };
        assert_eq!(judge(unknown, Offset(25), LeaderEpoch(3)), "continues");
        // Where offsets need only rise, a hole is no damage, and a fall is.
        let rising = Continuation { contiguous: false, epochs: None, ..due(Offset(25)) };
        assert_eq!(
            (judge(rising, Offset(40), LeaderEpoch(5)), judge(rising, Offset(24), LeaderEpoch(5))),
            ("continues", "damage")
        );
        // A hole below the recovery point ends below it: a batch ends at the point.
        let below = Continuation { next_offset: Offset(11), ..rising };
        let over = batch_of(Offset(14), 2);
        assert!(matches!(below.judge(&over), Judgement::Damage(DecodeError::BeyondRecoveryPoint { .. })));
        let next_begins_there = Continuation { offset_end: Offset(15), ..below };
        assert!(matches!(next_begins_there.judge(&over), Judgement::Continues { .. }));
        assert_eq!(
            (
                judge(below, Offset(14), LeaderEpoch(5)),
                judge(below, Offset(15), LeaderEpoch(5)),
                judge(below, Offset(1 << 40), LeaderEpoch(5))
            ),
            ("continues", "damage", "damage")
        );
    }

    #[test]
    fn a_batch_that_reaches_into_the_next_segment_is_damage_unless_segments_may_overlap() {
        let mut bytes = batch(Offset(25), LeaderEpoch(5));
        let last = Continuation { offset_end: Offset(25), ..due(Offset(25)) };
        assert!(matches!(
            last.judge(&bytes),
            Judgement::Damage(DecodeError::BeyondNextSegment { next_base: Offset(25), .. })
        ));
        assert!(matches!(Continuation { offset_end: Offset(26), ..last }.judge(&bytes), Judgement::Continues { .. }));
        bytes[..8].copy_from_slice(&30_i64.to_be_bytes());
        let overlapping = Continuation { contiguous: false, offset_end: Offset(31), ..last };
        assert!(matches!(overlapping.judge(&bytes), Judgement::Continues { .. }));
    }
}
