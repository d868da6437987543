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
//! | a batch over the start of an epoch | continues | damage |
//! | a batch of another offset, or no batch | damage | damage: the log ends |
//!
//! The CRC covers neither the base offset nor the leader epoch, so those two are rules of their own. Below the
//! recovery point no stale batch can stand: what was there was overwritten or cut before the point rose over it.

use crate::error::DecodeError;
use crate::leader_epoch::EpochTableView;
use crate::limits::BATCH_BYTES_MAX;
use crate::record_batch::RecordBatch;
use crate::segment_scan::{ScanRules, ScanStep, epoch_of, scan_step};
use crate::units::{LeaderEpoch, Offset};

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
    /// The epochs of the log; `None` where no checkpoint knows them: then any epoch continues it.
    pub epochs: Option<EpochTableView<'a>>,
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

impl Continuation<'_> {
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

    /// Judges place and history of a batch whose bytes hold.
    fn judge_batch<'b>(&self, batch: RecordBatch<'b>) -> Judgement<'b> {
        // Segments of logs that were not written here may overlap, and lose nothing by it.
        let is_beyond = if self.contiguous {
            batch.last_offset() >= self.offset_end
        } else {
            batch.base_offset() >= self.offset_end && batch.base_offset() != self.next_offset
        };
        if is_beyond {
            let error = DecodeError::BeyondNextSegment { last_offset: batch.last_offset(), next_base: self.offset_end };
            return Judgement::Damage(error);
        }
        // A batch that was written here has a record for each of its offsets, or none where repair filled a gap.
        if self.contiguous && !batch.is_whole() {
            let (given, max) = (batch.record_count(), batch.last_offset_delta().saturating_add(1));
            return Judgement::Damage(DecodeError::BadRecordCount { given, max });
        }
        // The last durable batch ends at the recovery point: no hole, however legal, spans it.
        if self.next_offset < self.durable_below && batch.base_offset() >= self.durable_below {
            let (expected, found) = (self.next_offset, batch.base_offset());
            return Judgement::Damage(DecodeError::NotContiguous { expected, found });
        }
        let Some(epochs) = &self.epochs else { return Judgement::Continues { batch, right_epoch: None } };
        let is_durable = batch.base_offset() < self.durable_below;
        let found = batch.partition_leader_epoch();
        let expected = match epoch_of(epochs, &batch) {
            Ok(expected) => expected,
            // The bytes were durable: an epoch table that contradicts them does not make them damage.
            Err(_) if is_durable => return Judgement::Continues { batch, right_epoch: None },
            Err(error) => return Judgement::Damage(error),
        };
        let latest = epochs.latest().map_or(-1, |latest| latest.epoch);
        if found == expected {
            Judgement::Continues { batch, right_epoch: None }
        } else if is_durable || found > latest || found < 0 {
            Judgement::Continues { batch, right_epoch: Some(expected) }
        } else {
            Judgement::Stale { batch, expected }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader_epoch::EpochEntry;
    use crate::record_batch::stamp_base;
    use crate::record_batch_builder::encode_one;
    use std::vec::Vec;

    const EPOCHS: [EpochEntry; 3] = [
        EpochEntry { epoch: 1, start_offset: 0 },
        EpochEntry { epoch: 3, start_offset: 10 },
        EpochEntry { epoch: 5, start_offset: 20 },
    ];

    fn batch(base_offset: Offset, epoch: LeaderEpoch) -> Vec<u8> {
        let mut bytes = [0; 200];
        let size = encode_one(&mut bytes, 1000, None, Some(b"value"), &[]).unwrap();
        stamp_base(&mut bytes, base_offset, epoch);
        bytes[..size].to_vec()
    }

    fn due(next_offset: Offset) -> Continuation<'static> {
        Continuation {
            next_offset,
            contiguous: true,
            offset_end: Offset::MAX,
            durable_below: 15,
            epochs: Some(EpochTableView(&EPOCHS)),
            check_crc: true,
        }
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
        assert_eq!((judge(due(12), 12, 3), judge(due(25), 25, 5)), ("continues", "continues"));
        assert_eq!((judge(due(12), 12, 9), judge(due(25), 25, 9)), ("field damaged", "field damaged"));
        assert_eq!((judge(due(12), 12, -1), judge(due(25), 25, -1)), ("field damaged", "field damaged"));
        assert_eq!((judge(due(12), 12, 1), judge(due(25), 25, 3)), ("field damaged", "stale"));
        assert_eq!((judge(due(12), 13, 3), judge(due(25), 26, 5)), ("damage", "damage"));
        // Without a table any epoch continues the log.
        let unknown = Continuation { epochs: None, ..due(25) };
        assert_eq!(judge(unknown, 25, 3), "continues");
        // Where offsets need only rise, a hole is no damage, and a fall is.
        let rising = Continuation { contiguous: false, epochs: None, ..due(25) };
        assert_eq!((judge(rising, 40, 5), judge(rising, 24, 5)), ("continues", "damage"));
        // A hole below the recovery point ends below it: a batch ends at the point.
        let below = Continuation { next_offset: 11, ..rising };
        assert_eq!(
            (judge(below, 14, 5), judge(below, 15, 5), judge(below, 1 << 40, 5)),
            ("continues", "damage", "damage")
        );
    }

    #[test]
    fn a_batch_that_reaches_into_the_next_segment_is_damage_unless_segments_may_overlap() {
        let mut bytes = batch(25, 5);
        let last = Continuation { offset_end: 25, ..due(25) };
        assert!(matches!(last.judge(&bytes), Judgement::Damage(DecodeError::BeyondNextSegment { next_base: 25, .. })));
        assert!(matches!(Continuation { offset_end: 26, ..last }.judge(&bytes), Judgement::Continues { .. }));
        bytes[..8].copy_from_slice(&30_i64.to_be_bytes());
        let overlapping = Continuation { contiguous: false, offset_end: 31, ..last };
        assert!(matches!(overlapping.judge(&bytes), Judgement::Continues { .. }));
    }
}
