//! Which batches of a segment are indexed: one rule for live appends, for rebuilding and for checking.
//!
//! For each batch at position `p`, with `mark` the position of the batch indexed last (0 at first):
//!
//! 1. where the batch's max timestamp is greater than all before it, that and the batch's last offset become the time to tell;
//! 2. where `p - mark` is more than the interval, the batch gets an entry in the offset index, the time to tell one in the time index if it is later
//!    than that index's last, and `mark` becomes `p`.
//!
//! When the segment is sealed, the time to tell goes into the time index under the same condition. So the first batch never has an entry, and the
//! indexes depend on the log alone: rebuilt ones equal those of live appends byte for byte.
//! Source: Kafka's `LogSegment.recover` (4.1 and later; its live counter restarts when a segment is reopened, this one's does not).

use crate::offset_index::{OffsetIndex, OffsetIndexEntry};
use crate::time_index::{TimeIndex, TimeIndexEntry};
use crate::units::{NO_TIMESTAMP, Offset, Position, TimestampMs};

/// The state of the rule for one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentIndexer {
    base_offset: Offset,
    index_interval_bytes: u32,
    mark: Position,
    largest_timestamp: TimestampMs,
    offset_of_largest: Offset,
    /// The timestamp of the time index's last entry.
    indexed_timestamp: TimestampMs,
}

impl SegmentIndexer {
    /// The rule for a segment without batches. `index_interval_bytes` is Kafka's `index.interval.bytes`.
    #[inline]
    pub const fn new(base_offset: Offset, index_interval_bytes: u32) -> Self {
        Self {
            base_offset,
            index_interval_bytes,
            mark: 0,
            largest_timestamp: NO_TIMESTAMP,
            offset_of_largest: base_offset,
            indexed_timestamp: NO_TIMESTAMP,
        }
    }

    /// The rule as it stood when the last entry of `offset_index` was made, and how many entries of `time_index` belong to that moment: one that sealing
    /// added behind it has to go, so that the indexes stay those of a segment that was never closed.
    ///
    /// The caller then gives [`on_batch`](Self::on_batch) every batch from [`mark`](Self::mark) on; the one at the mark itself may be among them.
    /// Both indexes have been checked.
    pub fn resume(
        base_offset: Offset,
        index_interval_bytes: u32,
        offset_index: &OffsetIndex<'_>,
        time_index: &TimeIndex<'_>,
    ) -> (Self, usize) {
        let mut indexer = Self::new(base_offset, index_interval_bytes);
        let Some(last) = offset_index.last() else { return (indexer, 0) };
        indexer.mark = last.position;
        let kept = time_index.entries().rposition(|entry| entry.offset <= last.offset).map_or(0, |n| n + 1);
        if let Some(entry) = kept.checked_sub(1).and_then(|n| time_index.entry(n)) {
            indexer.largest_timestamp = entry.timestamp;
            indexer.offset_of_largest = entry.offset;
            indexer.indexed_timestamp = entry.timestamp;
        }
        (indexer, kept)
    }

    /// Takes note of the next batch, in the order of the log, and says what to add to the indexes.
    ///
    /// A batch whose last offset does not fit behind the base offset in an `i32` is noted and never indexed: only a damaged log holds one.
    #[inline]
    pub fn on_batch(
        &mut self,
        position: Position,
        last_offset: Offset,
        max_timestamp: TimestampMs,
    ) -> Option<(OffsetIndexEntry, Option<TimeIndexEntry>)> {
        if max_timestamp > self.largest_timestamp && self.fits(last_offset) {
            self.largest_timestamp = max_timestamp;
            self.offset_of_largest = last_offset;
        }
        if position.saturating_sub(self.mark) > self.index_interval_bytes {
            return self.index(position, last_offset);
        }
        None
    }

    /// The time index's last entry, when the segment takes no more batches; `None` where the index says it already.
    #[inline]
    pub fn on_seal(&mut self) -> Option<TimeIndexEntry> {
        if self.largest_timestamp <= self.indexed_timestamp {
            return None;
        }
        self.indexed_timestamp = self.largest_timestamp;
        Some(TimeIndexEntry { timestamp: self.largest_timestamp, offset: self.offset_of_largest })
    }

    /// The greatest timestamp of all batches so far, or [`NO_TIMESTAMP`].
    #[inline]
    pub const fn largest_timestamp(&self) -> TimestampMs {
        self.largest_timestamp
    }

    /// The last offset of the batch that first reached [`largest_timestamp`](Self::largest_timestamp); the base offset where there is none.
    #[inline]
    pub const fn offset_of_largest_timestamp(&self) -> Offset {
        self.offset_of_largest
    }

    /// Where the batch starts that was indexed last; 0 where none was.
    #[inline]
    pub const fn mark(&self) -> Position {
        self.mark
    }

    /// The segment's base offset.
    #[inline]
    pub const fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Out of line: one batch in a page of them comes here.
    #[cold]
    fn index(&mut self, position: Position, last_offset: Offset) -> Option<(OffsetIndexEntry, Option<TimeIndexEntry>)> {
        if !self.fits(last_offset) {
            return None;
        }
        self.mark = position;
        Some((OffsetIndexEntry { offset: last_offset, position }, self.on_seal()))
    }

    #[inline]
    fn fits(&self, offset: Offset) -> bool {
        offset.checked_sub(self.base_offset).is_some_and(|relative| (0..=i64::from(i32::MAX)).contains(&relative))
    }
}
