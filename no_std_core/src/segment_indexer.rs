//! Which batches of a segment are indexed: one rule for live appends, for rebuilding and for checking.
//!
//! For each batch at position `p`, with `mark` the position of the batch indexed last (0 at first):
//!
//! 1. where the batch's max timestamp is greater than all before it, that and the batch's last offset become
//!    the pending time;
//! 2. where `p - mark` is more than the interval, the batch gets an entry in the offset index, the pending time one in
//!    the time index if it is later than that index's last, and `mark` becomes `p`.
//!
//! When the segment is sealed, the pending time goes into the time index under the same condition. So the
//! first batch never has an entry, and the indexes depend on the log alone: rebuilt ones equal those of live
//! appends byte for byte. Source: Kafka's `LogSegment.recover` (4.1 and later; its live counter restarts when
//! a segment is reopened, this one's does not).

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
    /// The greatest timestamp of batches that no index entry can name.
    unindexed_timestamp: TimestampMs,
}

impl SegmentIndexer {
    /// The rule for a segment without batches. `index_interval_bytes` is Kafka's `index.interval.bytes`.
    #[inline]
    pub const fn new(base_offset: Offset, index_interval_bytes: u32) -> Self {
        Self {
            base_offset,
            index_interval_bytes,
            mark: Position(0),
            largest_timestamp: NO_TIMESTAMP,
            offset_of_largest: base_offset,
            indexed_timestamp: NO_TIMESTAMP,
            unindexed_timestamp: TimestampMs::MIN,
        }
    }

    /// The rule as it stood when the last entry of `offset_index` was made, and how many entries of
    /// `time_index` belong to that moment: one that sealing added behind it has to go, so that the
    /// indexes stay those of a segment that was never closed.
    ///
    /// The caller then gives [`on_batch`](Self::on_batch) every batch from [`mark`](Self::mark) on; the one
    /// at the mark itself may be among them. Both indexes have been checked.
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
    /// A batch whose last offset does not fit behind the base offset in an `i32` is noted and never indexed: only logs
    /// that were not written here hold one, and the batches themselves have to be walked for it.
    #[inline]
    pub fn on_batch(
        &mut self,
        position: Position,
        last_offset: Offset,
        max_timestamp: TimestampMs,
    ) -> Option<(OffsetIndexEntry, Option<TimeIndexEntry>)> {
        if max_timestamp > self.largest_timestamp {
            if self.fits(last_offset) {
                self.largest_timestamp = max_timestamp;
                self.offset_of_largest = last_offset;
            } else {
                self.unindexed_timestamp = self.unindexed_timestamp.max(max_timestamp);
            }
        }
        if position.saturating_since(self.mark) > self.index_interval_bytes {
            return self.index(position, last_offset);
        }
        None
    }

    /// The time index's last entry, when the segment takes no more batches; `None` where the index says it
    /// already.
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
    pub fn largest_timestamp(&self) -> TimestampMs {
        self.largest_timestamp.max(self.unindexed_timestamp)
    }

    /// The last offset of the batch that first reached the greatest timestamp which an index entry can name; the base
    /// offset where there is none.
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

    /// Whether an index entry can name `offset`.
    #[inline]
    pub fn fits(&self, offset: Offset) -> bool {
        offset.checked_since(self.base_offset).is_some_and(|relative| (0..=i64::from(i32::MAX)).contains(&relative))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// A batch as the rule sees it: size in bytes, records, max timestamp.
    type Batch = (u32, i64, i64);

    struct Indexes {
        offsets: Vec<u8>,
        times: Vec<u8>,
    }

    impl Indexes {
        fn take(&mut self, base: Offset, entries: Option<(OffsetIndexEntry, Option<TimeIndexEntry>)>) {
            let Some((offset, time)) = entries else { return };
            self.offsets.extend_from_slice(&offset.encode(base));
            self.seal(base, time);
        }

        fn seal(&mut self, base: Offset, time: Option<TimeIndexEntry>) {
            self.times.extend(time.map(|time| time.encode(base)).iter().flatten());
        }
    }

    /// The rule as its source states it, with nothing shared: recompute from all batches before.
    fn naive(base: Offset, interval: u32, batches: &[Batch]) -> Indexes {
        let mut indexes = Indexes { offsets: vec![], times: vec![] };
        let (mut position, mut mark, mut next, mut last_time) = (0, 0, base, -1);
        let mut reached: Vec<(TimestampMs, Offset)> = vec![];
        for &(size, records, timestamp) in batches {
            next += records;
            reached.push((TimestampMs(timestamp), next - 1));
            if position - mark > interval {
                let greatest = reached.iter().map(|r| r.0).max().unwrap();
                let first = *reached.iter().find(|r| r.0 == greatest).unwrap();
                indexes.offsets.extend_from_slice(
                    &OffsetIndexEntry { offset: next - 1, position: Position(position) }.encode(base),
                );
                if greatest > last_time {
                    last_time = greatest.0;
                    indexes
                        .times
                        .extend_from_slice(&TimeIndexEntry { timestamp: first.0, offset: first.1 }.encode(base));
                }
                mark = position;
            }
            position += size;
        }
        if let Some(greatest) = reached.iter().map(|r| r.0).max().filter(|greatest| *greatest > last_time) {
            let first = *reached.iter().find(|r| r.0 == greatest).unwrap();
            indexes.seal(base, Some(TimeIndexEntry { timestamp: first.0, offset: first.1 }));
        }
        indexes
    }

    #[test]
    fn the_first_batch_is_never_indexed_and_the_interval_has_to_be_passed() {
        let mut indexer = SegmentIndexer::new(Offset(100), 4096);
        assert_eq!(indexer.on_batch(Position(0), Offset(109), TimestampMs(50)), None);
        assert_eq!(indexer.on_batch(Position(4096), Offset(119), TimestampMs(40)), None);
        let time = TimeIndexEntry { timestamp: TimestampMs(50), offset: Offset(109) };
        assert_eq!(
            indexer.on_batch(Position(4097), Offset(129), TimestampMs(50)),
            Some((OffsetIndexEntry { offset: Offset(129), position: Position(4097) }, Some(time)))
        );
        assert_eq!(
            (indexer.largest_timestamp(), indexer.offset_of_largest_timestamp(), indexer.mark()),
            (TimestampMs(50), Offset(109), Position(4097))
        );
        // No later time: an offset entry alone, and nothing to seal.
        assert_eq!(
            indexer.on_batch(Position(9000), Offset(139), TimestampMs(50)),
            Some((OffsetIndexEntry { offset: Offset(139), position: Position(9000) }, None))
        );
        assert_eq!(indexer.on_seal(), None);
        assert_eq!(indexer.on_batch(Position(9001), Offset(149), TimestampMs(51)), None);
        assert_eq!(indexer.on_seal(), Some(TimeIndexEntry { timestamp: TimestampMs(51), offset: Offset(149) }));
        assert_eq!(indexer.on_seal(), None);
    }

    #[test]
    fn batches_without_timestamps_leave_the_time_index_empty() {
        let mut indexer = SegmentIndexer::new(Offset(0), 0);
        assert_eq!(indexer.on_batch(Position(0), Offset(0), NO_TIMESTAMP), None);
        assert_eq!(
            indexer.on_batch(Position(70), Offset(1), NO_TIMESTAMP),
            Some((OffsetIndexEntry { offset: Offset(1), position: Position(70) }, None))
        );
        assert_eq!((indexer.on_seal(), indexer.largest_timestamp()), (None, NO_TIMESTAMP));
    }

    #[test]
    fn offsets_that_do_not_fit_are_never_indexed() {
        let mut indexer = SegmentIndexer::new(Offset(10), 0);
        assert_eq!(indexer.on_batch(Position(1), Offset(9), TimestampMs(5)), None);
        assert_eq!(indexer.on_batch(Position(2), Offset(11 + i64::from(i32::MAX)), TimestampMs(5)), None);
        assert_eq!(indexer.on_batch(Position(3), Offset(i64::MIN), TimestampMs(5)), None);
        assert_eq!(indexer.on_seal(), None);
        assert!(indexer.on_batch(Position(4), Offset(10 + i64::from(i32::MAX)), TimestampMs(5)).is_some());
    }

    fn batches() -> impl Strategy<Value = Vec<Batch>> {
        proptest::collection::vec((61_u32..3000, 1_i64..20, prop_oneof![Just(-1_i64), 0_i64..300]), 0..60)
    }

    proptest! {
        #[test]
        fn live_indexes_are_those_of_the_definition(
            batches in batches(),
            base in 0_i64..1000,
            interval in 0_u32..6000,
        ) {
            let expected = naive(Offset(base), interval, &batches);
            let mut live = Indexes { offsets: vec![], times: vec![] };
            let mut indexer = SegmentIndexer::new(Offset(base), interval);
            let (mut position, mut next) = (0, base);
            for (size, records, timestamp) in batches {
                next += records;
                live.take(Offset(base), indexer.on_batch(Position(position), Offset(next - 1), TimestampMs(timestamp)));
                position += size;
            }
            live.seal(Offset(base), indexer.on_seal());
            prop_assert_eq!(&live.offsets, &expected.offsets);
            prop_assert_eq!(&live.times, &expected.times);
            prop_assert!(OffsetIndex::new(&live.offsets, Offset(base)).check().is_ok());
        }

        /// Closed, sealed, opened again and appended to, as often as may be: the indexes are those of one sitting.
        #[test]
        fn resuming_anywhere_changes_no_byte(
            batches in batches(),
            base in 0_i64..1000,
            interval in 0_u32..6000,
            closes in proptest::collection::vec(0_usize..60, 0..4),
        ) {
            let expected = naive(Offset(base), interval, &batches);
            let mut live = Indexes { offsets: vec![], times: vec![] };
            let mut indexer = SegmentIndexer::new(Offset(base), interval);
            let mut appended: Vec<(Position, Offset, TimestampMs)> = vec![];
            let (mut position, mut next) = (0, base);
            for (n, (size, records, timestamp)) in batches.into_iter().enumerate() {
                if closes.contains(&n) {
                    let before = indexer;
                    live.seal(Offset(base), indexer.on_seal());
                    let offsets = OffsetIndex::new(&live.offsets, Offset(base));
                    let times = TimeIndex::new(&live.times, Offset(base));
                    let (mut resumed, kept) = SegmentIndexer::resume(Offset(base), interval, &offsets, &times);
                    live.times.truncate(kept * 12);
                    let mark = resumed.mark();
                    for &(position, last, timestamp) in appended.iter().filter(|batch| batch.0 >= mark) {
                        prop_assert_eq!(resumed.on_batch(position, last, timestamp), None);
                    }
                    prop_assert_eq!(resumed, before);
                    indexer = resumed;
                }
                next += records;
                live.take(Offset(base), indexer.on_batch(Position(position), Offset(next - 1), TimestampMs(timestamp)));
                appended.push((Position(position), Offset(next - 1), TimestampMs(timestamp)));
                position += size;
            }
            live.seal(Offset(base), indexer.on_seal());
            prop_assert_eq!(&live.offsets, &expected.offsets);
            prop_assert_eq!(&live.times, &expected.times);
        }
    }
}
