//! Walks the bytes of a segment batch by batch: for recovery, for checking, for readers of another process,
//! for fuzzing.
//!
//! The CRC covers neither the base offset nor the leader epoch. So a batch counts only where all three hold:
//! its bytes (length, magic, CRC), its place (the base offset continues the log), and its history (the epoch
//! is the one that the table gives for that offset). A batch that a crash removed from the log, or that stands behind
//! the end from another time, fails one of them.

use zerocopy::FromBytes;

use crate::error::DecodeError;
use crate::leader_epoch::EpochTableView;
use crate::old_message::OldMessage;
use crate::record_batch::{BATCH_LENGTH_MIN, HEADER_LEN, LOG_OVERHEAD, RecordBatch, RecordBatchHeader};
use crate::units::{LeaderEpoch, NO_LEADER_EPOCH, Offset, first_nonzero};

/// Whether a base offset may come next: it is the one that is due, or, where offsets need only rise, lies behind it.
/// `None` takes any.
#[inline]
pub fn follows(due: Option<Offset>, base_offset: Offset, contiguous: bool) -> bool {
    due.is_none_or(|due| if contiguous { base_offset == due } else { base_offset >= due })
}

/// What a batch is held to besides its own bytes.
#[derive(Debug, Clone, Copy)]
pub struct ScanRules<'a> {
    /// The offset that has to come next; `None` takes any.
    pub expected_offset: Option<Offset>,
    /// Whether the base offset has to *be* the expected one; otherwise it may be greater, as in compacted
    /// logs.
    pub contiguous: bool,
    /// The epochs of the log; `None` takes any. An offset before the first entry has to have
    /// [`NO_LEADER_EPOCH`].
    pub epochs: Option<EpochTableView<'a>>,
    /// The most bytes that a batch may have.
    pub batch_bytes_max: usize,
    /// Whether the CRC is checked.
    pub check_crc: bool,
}

impl ScanRules<'_> {
    /// The rules for what follows `batch`.
    #[inline]
    #[must_use]
    pub fn after(self, batch: &RecordBatch<'_>) -> Self {
        Self { expected_offset: Some(batch.next_offset()), ..self }
    }
}

/// What stands at the start of some bytes.
#[derive(Debug, Clone, Copy)]
pub enum ScanStep<'a> {
    /// A batch that holds to all rules.
    Batch(RecordBatch<'a>),
    /// A batch that holds to all rules but one: its leader epoch is not the offset's. Below the recovery
    /// point that is a damaged field, to be healed from the table; above it, the batch is from another
    /// history and ends the log.
    WrongEpoch {
        /// The batch; its CRC holds, where it was to be checked.
        batch: RecordBatch<'a>,
        /// The epoch that the table gives.
        expected: LeaderEpoch,
    },
    /// No bytes, or a header's worth of zeros: nothing was written here.
    End,
    /// The bytes end inside the batch, and what is there holds so far. At the end of a file this is a torn
    /// write.
    NeedMore {
        /// Bytes needed from the start of the batch; ask again with these.
        needed: usize,
    },
    /// No batch that holds.
    Invalid(DecodeError),
}

/// Looks at the one batch at the start of `bytes`.
///
/// Damage that the header shows is reported before more bytes are asked for, and a wrong epoch last.
#[inline]
pub fn scan_step<'a>(bytes: &'a [u8], rules: &ScanRules<'_>) -> ScanStep<'a> {
    let Ok((header, _)) = RecordBatchHeader::ref_from_prefix(bytes) else { return without_header(bytes) };
    if header.batch_length.get() == 0 && first_nonzero(&bytes[..HEADER_LEN]).is_none() {
        return ScanStep::End;
    }
    if let Err(error) = header_holds(header, rules) {
        return ScanStep::Invalid(OldMessage::named_or(bytes, error));
    }
    let batch = match RecordBatch::parse(bytes) {
        Ok(batch) => batch,
        Err(DecodeError::Truncated { needed, .. }) => return ScanStep::NeedMore { needed },
        Err(error) => return ScanStep::Invalid(error),
    };
    if rules.check_crc {
        if let Err(error) = batch.verify_crc() {
            return ScanStep::Invalid(error);
        }
    }
    match rules.epochs.map(|epochs| epoch_of(&epochs, &batch)) {
        Some(Err(error)) => ScanStep::Invalid(error),
        Some(Ok(expected)) if expected != batch.partition_leader_epoch() => ScanStep::WrongEpoch { batch, expected },
        _ => ScanStep::Batch(batch),
    }
}

/// What to say to bytes that are shorter than a header.
#[cold]
fn without_header(bytes: &[u8]) -> ScanStep<'_> {
    if first_nonzero(bytes).is_none() {
        return ScanStep::End;
    }
    match RecordBatch::peek_size(bytes) {
        Ok(_) | Err(DecodeError::Truncated { .. }) => ScanStep::NeedMore { needed: HEADER_LEN },
        Err(error) => ScanStep::Invalid(OldMessage::named_or(bytes, error)),
    }
}

/// The rules that the header alone decides.
#[inline]
pub(crate) fn header_holds(header: &RecordBatchHeader, rules: &ScanRules<'_>) -> Result<(), DecodeError> {
    let size = header.size()?;
    if size > rules.batch_bytes_max {
        let max = rules.batch_bytes_max.saturating_sub(LOG_OVERHEAD).min(i32::MAX as usize) as i32;
        return Err(DecodeError::BadBatchLength { given: header.batch_length.get(), min: BATCH_LENGTH_MIN, max });
    }
    header.check()?;
    if let Some(expected) = rules.expected_offset {
        let found = Offset(header.base_offset.get());
        if !follows(Some(expected), found, rules.contiguous) {
            return Err(DecodeError::NotContiguous { expected, found });
        }
    }
    Ok(())
}

/// The epoch that the table gives for all of the batch's offsets.
///
/// # Errors
/// `BadEpoch` where another epoch starts among them: no field could make such a batch right.
#[inline]
pub(crate) fn epoch_of(epochs: &EpochTableView<'_>, batch: &RecordBatch<'_>) -> Result<LeaderEpoch, DecodeError> {
    let at = |offset| epochs.epoch_for(offset).unwrap_or(NO_LEADER_EPOCH);
    let (first, last) = (at(batch.base_offset()), at(batch.last_offset()));
    if first == last {
        Ok(first)
    } else {
        Err(DecodeError::BadEpoch { expected: last, found: batch.partition_leader_epoch() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader_epoch::EpochEntry;
    use crate::record_batch::stamp_base;
    use crate::record_batch_builder::RecordBatchBuilder;
    use crate::units::TimestampMs;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const EPOCHS: [EpochEntry; 2] = [
        EpochEntry { epoch: LeaderEpoch(0), start_offset: Offset(0) },
        EpochEntry { epoch: LeaderEpoch(3), start_offset: Offset(12) },
    ];

    fn rules() -> ScanRules<'static> {
        ScanRules {
            expected_offset: Some(Offset(0)),
            contiguous: true,
            epochs: Some(EpochTableView(&EPOCHS)),
            batch_bytes_max: 10_000,
            check_crc: true,
        }
    }

    fn batch(base_offset: Offset, epoch: LeaderEpoch, records: u8, value_len: usize) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(vec![0; 20_000]);
        for n in 0..records {
            builder.append(TimestampMs(1000 + i64::from(n)), None, Some(&vec![n; value_len]), &[]).unwrap();
        }
        let bytes = builder.finish();
        stamp_base(bytes, base_offset, epoch);
        bytes.to_vec()
    }

    /// Batches of four records, epochs as the table says.
    fn log(batches: usize) -> Vec<u8> {
        (0..batches)
            .flat_map(|n| batch(Offset(n as i64 * 4), if n < 3 { LeaderEpoch(0) } else { LeaderEpoch(3) }, 4, 10 + n))
            .collect()
    }

    /// Walks to the end: how many batches, where it is, and what ended the walk.
    fn walk<'a>(bytes: &'a [u8], mut rules: ScanRules<'_>) -> (usize, usize, ScanStep<'a>) {
        let (mut batches, mut position) = (0, 0);
        loop {
            match scan_step(&bytes[position..], &rules) {
                ScanStep::Batch(batch) => {
                    batches += 1;
                    position += batch.size();
                    rules = rules.after(&batch);
                }
                other => return (batches, position, other),
            }
        }
    }

    #[test]
    fn a_log_ends_at_nothing_or_at_zeros() {
        let bytes = log(6);
        assert!(matches!(walk(&bytes, rules()), (6, end, ScanStep::End) if end == bytes.len()));
        for zeros in [1, 60, 61, 500] {
            let longer = [&bytes[..], &vec![0; zeros]].concat();
            assert!(matches!(walk(&longer, rules()), (6, end, ScanStep::End) if end == bytes.len()), "{zeros}");
        }
        assert!(matches!(scan_step(&[], &rules()), ScanStep::End));
    }

    #[test]
    fn zeros_with_something_in_the_header_are_no_end() {
        for at in 0..HEADER_LEN {
            let mut bytes = [0; 200];
            bytes[at] = 1;
            assert!(matches!(scan_step(&bytes, &rules()), ScanStep::Invalid(_)), "{at}");
        }
    }

    #[test]
    fn every_cut_asks_for_the_rest() {
        let bytes = log(2);
        let first = RecordBatch::parse(&bytes).unwrap().size();
        for len in 1..first {
            // Where only zeros of the base offset are there, nothing was written.
            let zeros = bytes[..len].iter().all(|&byte| byte == 0);
            match scan_step(&bytes[..len], &rules()) {
                ScanStep::End => assert!(zeros),
                ScanStep::NeedMore { needed } => {
                    assert!(!zeros);
                    assert_eq!(needed, if len < HEADER_LEN { HEADER_LEN } else { first });
                }
                other => panic!("{len}: {other:?}"),
            }
        }
    }

    #[test]
    fn place_and_history_are_rules_too() {
        let invalid = |bytes: &[u8], rules| match scan_step(bytes, &rules) {
            ScanStep::Invalid(error) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            invalid(&batch(Offset(4), LeaderEpoch(0), 1, 1), rules()),
            DecodeError::NotContiguous { expected: Offset(0), found: Offset(4) }
        );
        let rising = ScanRules { contiguous: false, ..rules() };
        assert!(matches!(scan_step(&batch(Offset(4), LeaderEpoch(0), 1, 1), &rising), ScanStep::Batch(_)));
        let later = ScanRules { expected_offset: Some(Offset(5)), ..rising };
        assert_eq!(
            invalid(&batch(Offset(4), LeaderEpoch(0), 1, 1), later),
            DecodeError::NotContiguous { expected: Offset(5), found: Offset(4) }
        );
        let any = ScanRules { expected_offset: None, epochs: None, ..rules() };
        assert!(matches!(scan_step(&batch(Offset(4), LeaderEpoch(77), 1, 1), &any), ScanStep::Batch(_)));
        // Only the epoch is wrong: the batch is handed over with the epoch it should have.
        match scan_step(&batch(Offset(0), LeaderEpoch(3), 2, 1), &rules()) {
            ScanStep::WrongEpoch { batch, expected: LeaderEpoch(0) } => assert_eq!(batch.partition_leader_epoch(), 3),
            other => panic!("{other:?}"),
        }
        // A batch that lies across the start of an epoch is from no history of this log.
        let across = ScanRules { expected_offset: Some(Offset(10)), ..rules() };
        assert_eq!(
            invalid(&batch(Offset(10), LeaderEpoch(0), 4, 1), across),
            DecodeError::BadEpoch { expected: LeaderEpoch(3), found: LeaderEpoch(0) }
        );
        // Before the table's first entry only a batch without an epoch fits.
        let none = ScanRules { epochs: Some(EpochTableView(&[])), ..rules() };
        assert!(matches!(scan_step(&batch(Offset(0), LeaderEpoch(-1), 1, 1), &none), ScanStep::Batch(_)));
        assert!(matches!(
            scan_step(&batch(Offset(0), LeaderEpoch(0), 1, 1), &none),
            ScanStep::WrongEpoch { expected: LeaderEpoch(-1), .. }
        ));
        let small = ScanRules { batch_bytes_max: 70, ..rules() };
        assert!(matches!(
            invalid(&batch(Offset(0), LeaderEpoch(0), 1, 9), small),
            DecodeError::BadBatchLength { max: 58, .. }
        ));
    }

    #[test]
    fn what_the_header_decides_is_decided_before_more_is_asked_for() {
        let bytes = batch(Offset(4), LeaderEpoch(0), 1, 5000);
        assert!(matches!(
            scan_step(&bytes[..HEADER_LEN], &rules()),
            ScanStep::Invalid(DecodeError::NotContiguous { .. })
        ));
        let small = ScanRules { batch_bytes_max: 4000, expected_offset: None, ..rules() };
        assert!(matches!(
            scan_step(&bytes[..HEADER_LEN], &small),
            ScanStep::Invalid(DecodeError::BadBatchLength { .. })
        ));
    }

    #[test]
    fn no_flipped_bit_is_ever_accepted() {
        let bytes = log(1);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match scan_step(&flipped, &rules()) {
                ScanStep::Batch(_) | ScanStep::End => panic!("bit {bit}"),
                ScanStep::WrongEpoch { expected: LeaderEpoch(0), .. } => assert!((12 * 8..16 * 8).contains(&bit)),
                ScanStep::NeedMore { needed } => assert!(needed > bytes.len() && (8 * 8..12 * 8).contains(&bit)),
                ScanStep::WrongEpoch { .. } | ScanStep::Invalid(_) => {}
            }
        }
    }

    proptest! {
        #[test]
        fn damage_ends_the_walk_at_its_batch(batches in 1_usize..6, place in 0_usize..2000, bit in 0_u8..8) {
            let mut bytes = log(batches);
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            let (_, position, end) = walk(&bytes, rules());
            // Everything before the damaged batch is read, and nothing from it on.
            prop_assert!(position <= place);
            prop_assert!(!matches!(end, ScanStep::End | ScanStep::Batch(_)));
        }

        #[test]
        fn any_bytes_end_the_walk(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0_u8), Just(2_u8)], 0..300),
            contiguous: bool,
        ) {
            let rules = ScanRules { contiguous, ..rules() };
            let (batches, ..) = walk(&bytes, rules);
            prop_assert_eq!(batches, 0);
        }
    }
}
