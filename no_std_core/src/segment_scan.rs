//! Walks the bytes of a segment batch by batch: for recovery, for checking, for readers of another process, for fuzzing.
//!
//! The CRC covers neither the base offset nor the leader epoch. So a batch counts only where all three hold: its bytes (length, magic, CRC), its
//! place (the base offset continues the log), and its history (the epoch is the one that the table gives for that offset).
//! A batch that a crash took back, or that stands behind the end from another time, fails one of them.

use zerocopy::FromBytes;

use crate::compression::CompressionType;
use crate::error::DecodeError;
use crate::leader_epoch::EpochTableView;
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
    /// Whether the base offset has to *be* the expected one; otherwise it may be greater, as in compacted logs.
    pub contiguous: bool,
    /// The epochs of the log; `None` takes any. An offset before the first entry has to have [`NO_LEADER_EPOCH`].
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
    /// A batch that holds to all rules but one: its leader epoch is not the offset's. Below the recovery point that is a damaged field, to be healed from
    /// the table; above it, the batch is from another history and ends the log.
    WrongEpoch {
        /// The batch; its CRC holds, where it was to be checked.
        batch: RecordBatch<'a>,
        /// The epoch that the table gives.
        expected: LeaderEpoch,
    },
    /// No bytes, or a header's worth of zeros: nothing was written here.
    End,
    /// The bytes end inside the batch, and what is there holds so far. At the end of a file this is a torn write.
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
        return ScanStep::Invalid(error);
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
        Err(error) => ScanStep::Invalid(error),
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
    /// The offset that the batch has to end before: the next segment's base, or the log's end where it is known; else `Offset::MAX`.
    pub offset_end: Offset,
    /// Whether batches of this log have as many records as offsets, as all have that no compaction thinned out.
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
/// A candidate has to be plausible in every field of its header ([`Plausible`]) before its CRC is computed, and the bytes of that are taken from
/// `crc_budget`: hostile bytes can offer overlapping candidates, and the budget (say, eight times the segment's size) keeps their cost linear. `bytes` reaches to the segment's
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
