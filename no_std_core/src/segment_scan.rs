//! Walks the bytes of a segment batch by batch: for recovery, for checking, for readers of another process,
//! for fuzzing.
//!
//! The CRC covers neither the base offset nor the leader epoch. So a batch counts only where all three hold:
//! its bytes (length, magic, CRC), its place (the base offset continues the log), and its history (the epoch
//! is the one that the table gives for that offset). A batch that a crash took back, or that stands behind
//! the end from another time, fails one of them.

use zerocopy::FromBytes;

use crate::compression::CompressionType;
use crate::error::DecodeError;
use crate::leader_epoch::EpochTableView;
use crate::old_message::OldMessage;
use crate::record_batch::{
    ATTRIBUTE_CODEC, ATTRIBUTES_UNUSED, BATCH_LENGTH_MIN, HEADER_LEN, LOG_OVERHEAD, MAGIC, RecordBatch,
    RecordBatchHeader,
};
use crate::units::{LeaderEpoch, NO_LEADER_EPOCH, Offset, first_nonzero};

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
/// Whatever can be told from the header is told before more bytes are asked for, and the epoch last.
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
fn header_holds(header: &RecordBatchHeader, rules: &ScanRules<'_>) -> Result<(), DecodeError> {
    let size = header.size()?;
    if size > rules.batch_bytes_max {
        let max = rules.batch_bytes_max.saturating_sub(LOG_OVERHEAD).min(i32::MAX as usize) as i32;
        return Err(DecodeError::BadBatchLength { given: header.batch_length.get(), min: BATCH_LENGTH_MIN, max });
    }
    header.check()?;
    if let Some(expected) = rules.expected_offset {
        let found = header.base_offset.get();
        if found < expected || (rules.contiguous && found != expected) {
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
fn epoch_of(epochs: &EpochTableView<'_>, batch: &RecordBatch<'_>) -> Result<LeaderEpoch, DecodeError> {
    let at = |offset| epochs.epoch_for(offset).unwrap_or(NO_LEADER_EPOCH);
    let (first, last) = (at(batch.base_offset()), at(batch.last_offset()));
    if first == last {
        Ok(first)
    } else {
        Err(DecodeError::BadEpoch { expected: last, found: batch.partition_leader_epoch() })
    }
}

/// What a batch behind damage has to look like before its CRC is worth computing.
#[derive(Debug, Clone, Copy)]
pub struct Plausible<'a> {
    /// The least base offset: that of the first batch that is missing.
    pub offset_min: Offset,
    /// The offset that the batch has to end before: the next segment's base, or the log's end where it is
    /// known; else `Offset::MAX`.
    pub offset_end: Offset,
    /// Whether batches of this log have as many records as offsets, as all have that no compaction thinned
    /// out.
    pub contiguous: bool,
    /// The epochs of the log; `None` takes any that is not below -1.
    pub epochs: Option<EpochTableView<'a>>,
    /// The most bytes that a batch may have.
    pub batch_bytes_max: usize,
}

impl Plausible<'_> {
    /// Holds every field of the header against what some writer could have written there.
    ///
    /// # Errors
    /// The first field that does not hold.
    fn check(&self, header: &RecordBatchHeader) -> Result<(), DecodeError> {
        let rules = ScanRules {
            expected_offset: Some(self.offset_min),
            contiguous: false,
            epochs: None,
            batch_bytes_max: self.batch_bytes_max,
            check_crc: false,
        };
        header_holds(header, &rules)?;
        let implausible = |header_byte| Err(DecodeError::Implausible { header_byte });
        let base_offset = header.base_offset.get();
        // `header_holds` saw to it that this does not overflow.
        let last_offset = base_offset.wrapping_add(i64::from(header.last_offset_delta.get()));
        if last_offset >= self.offset_end {
            return implausible(0);
        }
        let epoch = header.partition_leader_epoch.get();
        let known = match self.epochs {
            None => epoch >= NO_LEADER_EPOCH,
            // A table that starts later than the damage says nothing about what is before it.
            Some(epochs) => epochs.epoch_for(base_offset).is_none_or(|expected| expected == epoch),
        };
        if !known {
            return implausible(12);
        }
        let attributes = header.attributes.get();
        if attributes & ATTRIBUTES_UNUSED != 0 {
            return implausible(21);
        }
        let (base_timestamp, max_timestamp) = (header.base_timestamp.get(), header.max_timestamp.get());
        if base_timestamp < -1 {
            return implausible(27);
        }
        if max_timestamp < -1 {
            return implausible(35);
        }
        let idempotent = header.producer_id.get() >= 0;
        if header.producer_id.get() < -1 {
            return implausible(43);
        }
        if header.producer_epoch.get() < if idempotent { 0 } else { -1 } {
            return implausible(51);
        }
        if header.base_sequence.get() < -1 {
            return implausible(53);
        }
        let count = i64::from(header.record_count.get());
        if self.contiguous && count != i64::from(header.last_offset_delta.get()) + 1 {
            return implausible(57);
        }
        // Records that are compressed take some bytes, and none take none.
        let codec = CompressionType::from_id((attributes & ATTRIBUTE_CODEC) as u8).unwrap_or_default();
        let payload_is_empty = header.batch_length.get() == BATCH_LENGTH_MIN;
        if payload_is_empty != (count == 0) && (count > 0 || codec == CompressionType::None) {
            return implausible(57);
        }
        Ok(())
    }
}

/// What the search for a batch behind damage came to. Positions are in the bytes searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resync {
    /// A batch that holds starts here.
    Found {
        /// Where it starts.
        position: usize,
    },
    /// None starts anywhere from the given place to the end.
    Nothing,
    /// The budget of bytes to checksum ran out.
    OutOfBudget {
        /// The first place that was not decided; the search may go on from it with a new budget.
        unread_from: usize,
    },
}

/// Searches `bytes[from..]` for the next batch that holds, after damage.
///
/// A candidate has to be plausible in every field of its header ([`Plausible`]) before its CRC is computed,
/// and the bytes of that are taken from `crc_budget`: hostile bytes can offer overlapping candidates, and the
/// budget (say, eight times the segment's size) keeps their cost linear. `bytes` reaches to the segment's
/// end: a batch that runs past it is none.
pub fn find_next_batch(bytes: &[u8], from: usize, plausible: &Plausible<'_>, crc_budget: &mut u64) -> Resync {
    const MAGIC_AT: usize = 16;
    let mut position = from;
    while let Some(rest) = bytes.get(position..).filter(|rest| rest.len() >= HEADER_LEN) {
        // The magic byte first: one byte in 256 of noise has it, none of a run of zeros.
        let last_start = rest.len() - HEADER_LEN;
        let Some(skip) = rest[MAGIC_AT..=MAGIC_AT + last_start].iter().position(|&byte| byte == MAGIC as u8) else {
            return Resync::Nothing;
        };
        position += skip;
        match candidate(&rest[skip..], plausible, crc_budget) {
            Candidate::Holds => return Resync::Found { position },
            Candidate::TooDear => return Resync::OutOfBudget { unread_from: position },
            Candidate::Fails => position += 1,
        }
    }
    Resync::Nothing
}

enum Candidate {
    Holds,
    Fails,
    TooDear,
}

fn candidate(bytes: &[u8], plausible: &Plausible<'_>, crc_budget: &mut u64) -> Candidate {
    let Ok((header, _)) = RecordBatchHeader::ref_from_prefix(bytes) else { return Candidate::Fails };
    if plausible.check(header).is_err() {
        return Candidate::Fails;
    }
    let Ok(batch) = RecordBatch::parse(bytes) else { return Candidate::Fails };
    let Some(left) = crc_budget.checked_sub(batch.size() as u64) else { return Candidate::TooDear };
    *crc_budget = left;
    if batch.verify_crc().is_ok() { Candidate::Holds } else { Candidate::Fails }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader_epoch::EpochEntry;
    use crate::record_batch::stamp_base;
    use crate::record_batch_builder::RecordBatchBuilder;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const EPOCHS: [EpochEntry; 2] =
        [EpochEntry { epoch: 0, start_offset: 0 }, EpochEntry { epoch: 3, start_offset: 12 }];

    fn rules() -> ScanRules<'static> {
        ScanRules {
            expected_offset: Some(0),
            contiguous: true,
            epochs: Some(EpochTableView(&EPOCHS)),
            batch_bytes_max: 10_000,
            check_crc: true,
        }
    }

    fn batch(base_offset: Offset, epoch: LeaderEpoch, records: u8, value_len: usize) -> Vec<u8> {
        let mut builder = RecordBatchBuilder::new(vec![0; 20_000]);
        for n in 0..records {
            builder.append(1000 + i64::from(n), None, Some(&vec![n; value_len]), &[]).unwrap();
        }
        let bytes = builder.finish();
        stamp_base(bytes, base_offset, epoch);
        bytes.to_vec()
    }

    /// Batches of four records, epochs as the table says.
    fn log(batches: usize) -> Vec<u8> {
        (0..batches).flat_map(|n| batch(n as i64 * 4, if n < 3 { 0 } else { 3 }, 4, 10 + n)).collect()
    }

    /// Walks to whatever ends it: how many batches, where, and what that was.
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
        assert_eq!(invalid(&batch(4, 0, 1, 1), rules()), DecodeError::NotContiguous { expected: 0, found: 4 });
        let rising = ScanRules { contiguous: false, ..rules() };
        assert!(matches!(scan_step(&batch(4, 0, 1, 1), &rising), ScanStep::Batch(_)));
        let later = ScanRules { expected_offset: Some(5), ..rising };
        assert_eq!(invalid(&batch(4, 0, 1, 1), later), DecodeError::NotContiguous { expected: 5, found: 4 });
        let any = ScanRules { expected_offset: None, epochs: None, ..rules() };
        assert!(matches!(scan_step(&batch(4, 77, 1, 1), &any), ScanStep::Batch(_)));
        // Only the epoch is wrong: the batch is handed over with the epoch it should have.
        match scan_step(&batch(0, 3, 2, 1), &rules()) {
            ScanStep::WrongEpoch { batch, expected: 0 } => assert_eq!(batch.partition_leader_epoch(), 3),
            other => panic!("{other:?}"),
        }
        // A batch that lies across the start of an epoch is from no history of this log.
        let across = ScanRules { expected_offset: Some(10), ..rules() };
        assert_eq!(invalid(&batch(10, 0, 4, 1), across), DecodeError::BadEpoch { expected: 3, found: 0 });
        // Before the table's first entry only a batch without an epoch fits.
        let none = ScanRules { epochs: Some(EpochTableView(&[])), ..rules() };
        assert!(matches!(scan_step(&batch(0, -1, 1, 1), &none), ScanStep::Batch(_)));
        assert!(matches!(scan_step(&batch(0, 0, 1, 1), &none), ScanStep::WrongEpoch { expected: -1, .. }));
        let small = ScanRules { batch_bytes_max: 70, ..rules() };
        assert!(matches!(invalid(&batch(0, 0, 1, 9), small), DecodeError::BadBatchLength { max: 58, .. }));
    }

    #[test]
    fn what_the_header_decides_is_decided_before_more_is_asked_for() {
        let bytes = batch(4, 0, 1, 5000);
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
                ScanStep::WrongEpoch { expected: 0, .. } => assert!((12 * 8..16 * 8).contains(&bit)),
                ScanStep::NeedMore { needed } => assert!(needed > bytes.len() && (8 * 8..12 * 8).contains(&bit)),
                ScanStep::WrongEpoch { .. } | ScanStep::Invalid(_) => {}
            }
        }
    }

    fn plausible() -> Plausible<'static> {
        Plausible {
            offset_min: 0,
            offset_end: i64::MAX,
            contiguous: true,
            epochs: Some(EpochTableView(&EPOCHS)),
            batch_bytes_max: 10_000,
        }
    }

    #[test]
    fn the_next_batch_is_found_behind_damage() {
        let mut bytes = log(6);
        let sizes: Vec<_> = {
            let mut at = 0;
            (0..6)
                .map(|_| {
                    let size = RecordBatch::parse(&bytes[at..]).unwrap().size();
                    at += size;
                    size
                })
                .collect()
        };
        bytes[30] ^= 1;
        let mut budget = bytes.len() as u64 * 8;
        assert_eq!(find_next_batch(&bytes, 0, &plausible(), &mut budget), Resync::Found { position: sizes[0] });
        // The damaged one was plausible, and cost its size; so did the good one.
        assert_eq!(budget, bytes.len() as u64 * 8 - (sizes[0] + sizes[1]) as u64);
        assert_eq!(
            find_next_batch(&bytes, sizes[0] + 1, &plausible(), &mut budget),
            Resync::Found { position: sizes[0] + sizes[1] }
        );
        let fifth = Plausible { offset_min: 14, ..plausible() };
        let position = sizes[..4].iter().sum();
        assert_eq!(find_next_batch(&bytes, 0, &fifth, &mut budget), Resync::Found { position });
        let early = Plausible { offset_end: 7, ..plausible() };
        assert_eq!(find_next_batch(&bytes, 1, &early, &mut budget), Resync::Nothing);
        assert_eq!(find_next_batch(&bytes, bytes.len() + 5, &plausible(), &mut budget), Resync::Nothing);
        assert_eq!(find_next_batch(&bytes, usize::MAX, &plausible(), &mut budget), Resync::Nothing);
    }

    #[test]
    fn the_budget_ends_the_search_where_it_can_go_on() {
        let bytes = log(3);
        let size = RecordBatch::parse(&bytes).unwrap().size();
        let mut budget = size as u64 - 1;
        let search = find_next_batch(&bytes, 0, &plausible(), &mut budget);
        assert_eq!((search, budget), (Resync::OutOfBudget { unread_from: 0 }, size as u64 - 1));
        budget = size as u64;
        assert_eq!(find_next_batch(&bytes, 0, &plausible(), &mut budget), Resync::Found { position: 0 });
        assert_eq!(budget, 0);
    }

    #[test]
    fn each_field_has_to_be_plausible() {
        let bytes = log(1);
        let found = |at: usize, field: &[u8]| {
            let mut bytes = bytes.clone();
            bytes[at..at + field.len()].copy_from_slice(field);
            let mut budget = 1_000_000;
            find_next_batch(&bytes, 0, &plausible(), &mut budget);
            // Spent budget means that the header was believed.
            budget != 1_000_000
        };
        assert!(found(0, &[]));
        for (at, field) in [
            (0, &[0x80][..]),
            (12, &[0, 0, 0, 1]),
            (16, &[1]),
            (21, &[1]),
            (22, &[0x80]),
            (22, &[5]),
            (23, &[0, 0, 0, 4]),
            (27, &[0x80]),
            (35, &[0x80]),
            (43, &[0x80]),
            (51, &[0x80]),
            (53, &[0x80]),
            (57, &[0, 0, 0, 3]),
            (57, &[0, 0, 0, 0]),
        ] {
            assert!(!found(at, field), "{at}");
        }
    }

    /// Every position tried in full, without a budget.
    fn naive_next(bytes: &[u8], from: usize, plausible: &Plausible<'_>) -> Option<usize> {
        (from..bytes.len()).find(|&at| {
            let rest = &bytes[at..];
            RecordBatch::parse(rest).is_ok_and(|batch| {
                batch.verify_crc().is_ok()
                    && batch.size() <= plausible.batch_bytes_max
                    && batch.base_offset() >= plausible.offset_min
                    && batch.last_offset() < plausible.offset_end
                    && EpochTableView(&EPOCHS).epoch_for(batch.base_offset()) == Some(batch.partition_leader_epoch())
            })
        })
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
            let plausible = Plausible { offset_min, ..plausible() };
            let expected = naive_next(&bytes, from, &plausible);
            let mut budget = u64::MAX;
            let found = find_next_batch(&bytes, from, &plausible, &mut budget);
            prop_assert_eq!(found, expected.map_or(Resync::Nothing, |position| Resync::Found { position }));
        }

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
            let mut budget = 2400;
            prop_assert_eq!(find_next_batch(&bytes, 0, &plausible(), &mut budget), Resync::Nothing);
        }
    }
}
