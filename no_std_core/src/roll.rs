//! When the active segment is full and a new one begins.

use crate::offset_index::OFFSET_INDEX_ENTRY_LEN;
use crate::time_index::TIME_INDEX_ENTRY_LEN;
use crate::units::{Offset, TimestampMs};

/// Why a new segment begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RollReason {
    /// The batch would take the segment past `segment.bytes`.
    Size,
    /// The segment has been open for longer than `segment.ms`.
    Time,
    /// An index has no room for another entry (`segment.index.bytes`).
    IndexFull,
    /// The batch's last offset does not fit behind the base offset in 31 bits.
    OffsetOverflow,
}

/// What the decision is made from: the limits, the active segment, and the batch that wants to be appended.
#[derive(Debug, Clone, Copy)]
pub struct RollParams {
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `segment.index.bytes`, for each of the two indexes.
    pub segment_index_bytes: u32,
    /// Base offset of the active segment.
    pub base_offset: Offset,
    /// Bytes in the active segment.
    pub size: u32,
    /// When the active segment was created, in ms since 1970.
    pub created_ms: TimestampMs,
    /// The max timestamp of the active segment's first batch; negative where it has none.
    pub first_batch_timestamp: TimestampMs,
    /// Entries in the offset index.
    pub offset_index_entries: u32,
    /// Entries in the time index.
    pub time_index_entries: u32,
    /// Bytes of the batch.
    pub batch_size: u32,
    /// Last offset of the batch.
    pub batch_last_offset: Offset,
    /// Max timestamp of the batch.
    pub batch_max_timestamp: TimestampMs,
    /// The wall clock in ms since 1970: counts only where the first batch has no timestamp.
    pub now: TimestampMs,
}

impl RollParams {
    /// Whether the batch begins a new segment, and why. Source: Kafka's `LogSegment.shouldRoll`.
    ///
    /// A segment without batches never rolls: the new one would have its name. So a log that takes a batch larger than
    /// `segment.bytes` gives it a segment of its own; the engine refuses it first, as brokers do.
    #[inline]
    pub fn should_roll(&self) -> Option<RollReason> {
        if self.size == 0 {
            return None;
        }
        if u64::from(self.size) + u64::from(self.batch_size) > u64::from(self.segment_bytes) {
            return Some(RollReason::Size);
        }
        if self.waited_ms() > self.segment_ms {
            return Some(RollReason::Time);
        }
        if self.index_is_full() {
            return Some(RollReason::IndexFull);
        }
        if self.batch_last_offset.saturating_since(self.base_offset) > i64::from(i32::MAX) {
            return Some(RollReason::OffsetOverflow);
        }
        None
    }

    /// How long the segment has been filling: by the records' own time where they have one, so that a backlog
    /// rolls as it would have rolled live.
    fn waited_ms(&self) -> i64 {
        if self.first_batch_timestamp >= 0 {
            self.batch_max_timestamp.saturating_since(self.first_batch_timestamp)
        } else {
            self.now.saturating_since(self.created_ms)
        }
    }

    /// The time index keeps one slot for the entry that sealing adds.
    fn index_is_full(&self) -> bool {
        let offset_entries_max = self.segment_index_bytes / OFFSET_INDEX_ENTRY_LEN as u32;
        let time_entries_max = (self.segment_index_bytes / TIME_INDEX_ENTRY_LEN as u32).saturating_sub(1);
        self.offset_index_entries >= offset_entries_max || self.time_index_entries >= time_entries_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: RollParams = RollParams {
        segment_bytes: 1000,
        segment_ms: 500,
        segment_index_bytes: 40,
        base_offset: Offset(100),
        size: 900,
        created_ms: TimestampMs(5000),
        first_batch_timestamp: TimestampMs(10_000),
        offset_index_entries: 0,
        time_index_entries: 0,
        batch_size: 100,
        batch_last_offset: Offset(100 + i32::MAX as i64),
        batch_max_timestamp: TimestampMs(10_500),
        now: TimestampMs(1 << 40),
    };

    #[test]
    fn each_limit_may_be_reached_and_not_passed() {
        assert_eq!(PARAMS.should_roll(), None);
        for (params, reason) in [
            (RollParams { batch_size: 101, ..PARAMS }, RollReason::Size),
            (RollParams { batch_max_timestamp: TimestampMs(10_501), ..PARAMS }, RollReason::Time),
            (RollParams { offset_index_entries: 5, ..PARAMS }, RollReason::IndexFull),
            // 40 bytes hold three entries of twelve, and one is kept back.
            (RollParams { time_index_entries: 2, ..PARAMS }, RollReason::IndexFull),
            (RollParams { batch_last_offset: PARAMS.batch_last_offset + 1, ..PARAMS }, RollReason::OffsetOverflow),
        ] {
            assert_eq!(params.should_roll(), Some(reason));
            assert_eq!(RollParams { size: 0, ..params }.should_roll(), None);
        }
        assert_eq!(RollParams { offset_index_entries: 4, time_index_entries: 1, ..PARAMS }.should_roll(), None);
    }

    #[test]
    fn without_timestamps_the_wall_clock_counts() {
        let params = RollParams { first_batch_timestamp: TimestampMs(-1), now: TimestampMs(5500), ..PARAMS };
        assert_eq!(params.should_roll(), None);
        assert_eq!(RollParams { now: TimestampMs(5501), ..params }.should_roll(), Some(RollReason::Time));
        // A clock that jumped back rolls nothing.
        assert_eq!(RollParams { now: TimestampMs(i64::MIN), ..params }.should_roll(), None);
    }

    #[test]
    fn hostile_numbers_do_not_overflow() {
        let params = RollParams {
            size: u32::MAX,
            batch_size: u32::MAX,
            segment_bytes: u32::MAX,
            base_offset: Offset(i64::MIN),
            batch_last_offset: Offset(i64::MAX),
            batch_max_timestamp: TimestampMs(i64::MIN),
            first_batch_timestamp: TimestampMs(i64::MAX),
            ..PARAMS
        };
        assert_eq!(params.should_roll(), Some(RollReason::Size));
        assert_eq!(RollParams { batch_size: 0, ..params }.should_roll(), Some(RollReason::OffsetOverflow));
    }
}
