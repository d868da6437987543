//! Batches that hold in themselves: what each has to look like, and the search for the next one.
//!
//! The caller lends the bytes ([`SegmentBytes`]). Nothing here needs more of them at a time than a stretch of
//! [`SEARCH_STRIDE_BYTES`], however large a batch claims to be.

use zerocopy::FromBytes;

use crate::compression::CompressionType;
use crate::crc32c::{crc32c, crc32c_combine};
use crate::error::DecodeError;
use crate::leader_epoch::EpochTableView;
use crate::limits::{BATCH_BYTES_MAX, HOLE_MAX, SEARCH_STRIDE_BYTES};
use crate::record_batch::{
    ATTRIBUTE_CODEC, ATTRIBUTES_UNUSED, BATCH_LENGTH_MIN, CRC_START, HEADER_LEN, MAGIC, RecordBatchHeader,
};
use crate::segment_scan::{ScanRules, header_holds};
use crate::units::{LeaderEpoch, NO_LEADER_EPOCH, Offset};

/// Lends the bytes of one segment.
pub trait SegmentBytes {
    /// Where the bytes end.
    fn end(&self) -> u64;

    /// Bytes from `position` on: at least `wanted`, or all up to the end where it is nearer. Fewer mean that the rest
    /// cannot be read.
    fn at(&mut self, position: u64, wanted: usize) -> &[u8];

    /// Whether a file next to the segment says that a batch ends before `end`: an index by its last entry, or, behind
    /// the last segment of a log, a snapshot by its name. Asked where no other batch says anything.
    fn names_end(&mut self, _end: Offset, _is_last: bool) -> bool {
        false
    }
}

impl SegmentBytes for &[u8] {
    fn end(&self) -> u64 {
        self.len() as u64
    }

    fn at(&mut self, position: u64, _wanted: usize) -> &[u8] {
        usize::try_from(position).ok().and_then(|from| self.get(from..)).unwrap_or_default()
    }
}

/// What a batch behind damage has to look like before its CRC is worth computing.
#[derive(Debug, Clone, Copy)]
pub struct Plausible<'a> {
    /// The least base offset: that of the first batch that is missing. [`ANY_OFFSET`](Self::ANY_OFFSET) where no
    /// offset is known to be due: then a batch may have any.
    pub offset_min: Offset,
    /// The offset that the batch has to end before: the next segment's base, or the log's end where it is known; else
    /// `Offset::MAX`.
    pub offset_end: Offset,
    /// Everything below was durable: the recovery point. 0 where none is known.
    pub durable_below: Offset,
    /// Where in the bytes the recovery point stands: what stands before is below it, and its base offset is not asked.
    /// 0 where it does not stand in them.
    pub durable_position: u64,
    /// Whether batches of this log have as many records as offsets, as all have that no compaction thinned out.
    pub contiguous: bool,
    /// The epochs of the log; `None` takes any that is not below -1.
    pub epochs: Option<EpochTableView<'a>>,
}

impl Plausible<'_> {
    /// For [`offset_min`](Self::offset_min).
    pub const ANY_OFFSET: Offset = Offset(-1);

    /// Any batch of any log.
    pub const ANY: Plausible<'static> = Plausible {
        offset_min: Plausible::ANY_OFFSET,
        offset_end: Offset::MAX,
        durable_below: Offset(0),
        durable_position: 0,
        contiguous: false,
        epochs: None,
    };

    /// Holds every field of the header against what some writer could have written there.
    ///
    /// # Errors
    /// The first field that does not hold.
    fn check(&self, header: &RecordBatchHeader) -> Result<(), DecodeError> {
        let rules = ScanRules {
            expected_offset: Some(self.offset_min),
            contiguous: false,
            epochs: None,
            batch_bytes_max: BATCH_BYTES_MAX,
            check_crc: false,
        };
        header_holds(header, &rules)?;
        let implausible = |header_byte| Err(DecodeError::Implausible { header_byte });
        let base_offset = Offset(header.base_offset.get());
        // `header_holds` saw to it that this does not overflow.
        let last_offset = base_offset.wrapping_add(i64::from(header.last_offset_delta.get()));
        if self.offset_min != Self::ANY_OFFSET && base_offset.saturating_since(self.offset_min) > HOLE_MAX {
            return implausible(0);
        }
        // Segments of logs that were not written here may overlap: there only the base offset has to fit.
        let bounded = if self.contiguous { last_offset } else { base_offset };
        if bounded >= self.offset_end {
            return implausible(0);
        }
        let epoch = LeaderEpoch(header.partition_leader_epoch.get());
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
        if self.contiguous && count != i64::from(header.last_offset_delta.get()) + 1 && count != 0 {
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

/// A batch whose bytes hold in themselves, and what it says of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Where it starts.
    pub position: u64,
    /// Where it ends.
    pub end: u64,
    /// Its base offset, which no checksum covers.
    pub base_offset: Offset,
    /// The offset behind its last one.
    pub next_offset: Offset,
}

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resync {
    /// The log goes on with this batch.
    Found(Candidate),
    /// No batch that holds starts between the given place and the end.
    Nothing,
    /// The effort was spent.
    OutOfEffort {
        /// The first place that was not decided; the search may go on from it with new effort.
        unread_from: u64,
    },
}

/// What such a header says of its batch. Of one that ends at the place of the recovery point, the offset of that point
/// says more than its own base offset, which no checksum covers.
pub(crate) fn plausible_candidate(
    header: &RecordBatchHeader,
    position: u64,
    end: u64,
    plausible: &Plausible<'_>,
) -> Option<Candidate> {
    let batch_end = position + header.size().ok()? as u64;
    if batch_end == plausible.durable_position {
        let offsets = i64::from(header.last_offset_delta.get()) + 1;
        let mut held = *header;
        held.base_offset.set(plausible.durable_below.saturating_sub(offsets).0);
        if plausible.contiguous || plausible.check(&held).is_ok() {
            return candidate_of(&held, position, batch_end, end, plausible);
        }
    }
    candidate_of(header, position, batch_end, end, plausible)
}

pub(crate) fn candidate_of(
    header: &RecordBatchHeader,
    position: u64,
    batch_end: u64,
    end: u64,
    plausible: &Plausible<'_>,
) -> Option<Candidate> {
    plausible.check(header).ok()?;
    let base_offset = Offset(header.base_offset.get());
    let next_offset = base_offset + i64::from(header.last_offset_delta.get()) + 1;
    (batch_end <= end).then_some(Candidate { position, end: batch_end, base_offset, next_offset })
}

/// The next batch from `from` on that is plausible and holds in itself; the bytes of each checksum are taken from
/// `budget`. `in_order` says what one is that ends at the recovery point, which its own bytes alone do not say.
pub(crate) fn find_candidate<B: SegmentBytes>(
    bytes: &mut B,
    from: u64,
    plausible: &Plausible<'_>,
    budget: &mut u64,
    in_order: impl Fn(&mut B, Candidate, &mut u64) -> Option<Candidate>,
) -> Resync {
    const MAGIC_AT: usize = 16;
    let end = bytes.end();
    let mut position = from;
    while position < end && end - position >= HEADER_LEN as u64 {
        let stretch = bytes.at(position, SEARCH_STRIDE_BYTES);
        let Some(last_start) = stretch.len().checked_sub(HEADER_LEN) else { return Resync::Nothing };
        let mut at = 0;
        // A candidate that is longer than what is at hand.
        let mut longer = None;
        while at <= last_start {
            // The magic byte first: one byte in 256 of noise has it, none of a run of zeros.
            let magics = &stretch[at + MAGIC_AT..=last_start + MAGIC_AT];
            let Some(skip) = magics.iter().position(|&byte| byte == MAGIC as u8) else { break };
            at += skip;
            let place = position + at as u64;
            let header = RecordBatchHeader::ref_from_prefix(&stretch[at..]).ok().map(|(header, _)| header);
            let Some((header, candidate)) = header
                .and_then(|header| plausible_candidate(header, place, end, plausible).map(|found| (header, found)))
            else {
                at += 1;
                continue;
            };
            let size = candidate.end - candidate.position;
            let Some(left) = budget.checked_sub(size) else { return Resync::OutOfEffort { unread_from: place } };
            let is_at_point = candidate.end == plausible.durable_position;
            let Some(whole) = stretch.get(at..at + size as usize).filter(|_| !is_at_point) else {
                longer = Some((candidate, header.crc.get()));
                break;
            };
            *budget = left;
            if crc32c(&whole[CRC_START..]) == header.crc.get() {
                return Resync::Found(candidate);
            }
            at += 1;
        }
        let Some((candidate, crc)) = longer else {
            position += last_start as u64 + 1;
            continue;
        };
        if candidate.position > position {
            // Once more with the stretch that begins here: what is longer than that is worth moving it.
            position = candidate.position;
            continue;
        }
        *budget -= candidate.end - candidate.position;
        if crc_holds(bytes, &candidate, crc) {
            if let Some(candidate) = in_order(bytes, candidate, budget) {
                return Resync::Found(candidate);
            }
        }
        position += 1;
    }
    Resync::Nothing
}

/// Whether the checksum of a candidate holds.
pub(crate) fn crc_holds(bytes: &mut impl SegmentBytes, candidate: &Candidate, stored: u32) -> bool {
    checksum(bytes, candidate.position, candidate.end) == Some(stored)
}

/// CRC-32C of the batch from `position` to `end`, computed stretch by stretch; `None` where not all of it can be read.
pub fn checksum(bytes: &mut impl SegmentBytes, position: u64, end: u64) -> Option<u32> {
    let mut at = position + CRC_START as u64;
    let mut crc = 0;
    while at < end {
        let wanted = (end - at).min(SEARCH_STRIDE_BYTES as u64) as usize;
        // Combined, and not appended to: a linker then sees that one polynomial is asked for, and drops the tables of
        // sixty others.
        crc = crc32c_combine(crc, crc32c(bytes.at(at, wanted).get(..wanted)?), wanted as u64);
        at += wanted as u64;
    }
    Some(crc)
}

/// A batch at `position` that holds in all but its base offset, which has to be `expected`: where it ends.
pub fn displaced_batch(bytes: &mut impl SegmentBytes, position: u64, expected: Offset) -> Option<Candidate> {
    let (mut header, _) = RecordBatchHeader::read_from_prefix(bytes.at(position, HEADER_LEN)).ok()?;
    // The offset that is wrong may also be one that no batch can have.
    header.base_offset.set(expected.0);
    let end = position + header.size().ok()? as u64;
    header.check().ok()?;
    let next_offset = expected + i64::from(header.last_offset_delta.get()) + 1;
    (end <= bytes.end() && checksum(bytes, position, end) == Some(header.crc.get())).then_some(Candidate {
        position,
        end,
        base_offset: expected,
        next_offset,
    })
}
