//! Which of the oldest segments may go, and why.

use crate::units::{Offset, TimestampMs};

/// Why a segment may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetentionReason {
    /// All of its records lie before the log start offset.
    LogStart,
    /// Its newest record is older than `retention.ms`.
    Time,
    /// The log holds more than `retention.bytes` without it as well.
    Size,
}

/// 2020-01-01T00:00Z: a clock that shows an earlier time was not set yet. (Devices without one begin in 1970, or when
/// their firmware was built.)
const DATED_FROM_MS: TimestampMs = TimestampMs(1_577_836_800_000);

/// Whether a timestamp says when something happened: one before 2020 is of a clock that was not set, and says nothing
/// of a record's age.
pub const fn is_dated(timestamp: TimestampMs) -> bool {
    timestamp.0 >= DATED_FROM_MS.0
}

/// What is known of one segment that takes no more batches.
#[derive(Debug, Clone, Copy)]
pub struct SealedSegment {
    /// Bytes of its log file.
    pub size: u64,
    /// Its greatest timestamp in ms since 1970 (where its records have none: when it was sealed); negative:
    /// never old.
    pub largest_timestamp: TimestampMs,
    /// The base offset of the segment that follows.
    pub next_base_offset: Offset,
}

/// The limits, and the log that they are held against.
#[derive(Debug, Clone, Copy)]
pub struct RetentionParams {
    /// `retention.bytes`; negative: no limit.
    pub retention_bytes: i64,
    /// `retention.ms`; negative: no limit.
    pub retention_ms: i64,
    /// Bytes of all segments, the active one included.
    pub total_bytes: u64,
    /// The log start offset.
    pub log_start_offset: Offset,
    /// The high watermark: nothing above it goes.
    pub high_watermark: Offset,
    /// From here on nothing is deleted for its age: a holder still needs it. [`Offset::MAX`] where no holder does.
    pub undelivered_from: Offset,
    /// The wall clock in ms since 1970.
    pub now: TimestampMs,
}

impl RetentionParams {
    /// The segments that may go: one reason for each, from the oldest on; the first that has to stay ends it.
    ///
    /// `sealed` gives the segments oldest first, *without the active one*, which never goes. Source: the
    /// deletable segments of Kafka's `UnifiedLog`, with its three passes (time, size, log start) made in
    /// one.
    pub fn expired<I>(self, sealed: I) -> Expired<I::IntoIter>
    where
        I: IntoIterator<Item = SealedSegment>,
    {
        Expired { params: self, sealed: sealed.into_iter() }
    }

    /// Why `segment`, the oldest that is left, may go.
    fn reason(&self, segment: &SealedSegment) -> Option<RetentionReason> {
        if segment.next_base_offset > self.high_watermark {
            return None;
        }
        if segment.next_base_offset <= self.log_start_offset {
            return Some(RetentionReason::LogStart);
        }
        let age = self.now.saturating_since(segment.largest_timestamp);
        let is_delivered = segment.next_base_offset <= self.undelivered_from;
        if self.retention_ms >= 0 && segment.largest_timestamp >= 0 && age > self.retention_ms && is_delivered {
            return Some(RetentionReason::Time);
        }
        // Only what still leaves the limit filled goes: after it, the log holds `retention.bytes` or more.
        let left = self.total_bytes.saturating_sub(segment.size);
        if self.retention_bytes >= 0 && self.total_bytes >= segment.size && left >= self.retention_bytes as u64 {
            return Some(RetentionReason::Size);
        }
        None
    }
}

/// The reasons of the segments that may go, oldest first; see [`RetentionParams::expired`].
#[derive(Debug, Clone)]
pub struct Expired<I> {
    params: RetentionParams,
    sealed: I,
}

impl<I: Iterator<Item = SealedSegment>> Iterator for Expired<I> {
    type Item = RetentionReason;

    fn next(&mut self) -> Option<RetentionReason> {
        let segment = self.sealed.next()?;
        let reason = self.params.reason(&segment);
        match reason {
            Some(_) => self.params.total_bytes = self.params.total_bytes.saturating_sub(segment.size),
            // Nothing behind a segment that stays may go: the limits of the log close.
            None => self.params.high_watermark = Offset::MIN,
        }
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const PARAMS: RetentionParams = RetentionParams {
        retention_bytes: -1,
        retention_ms: -1,
        total_bytes: 450,
        log_start_offset: Offset(0),
        high_watermark: Offset(450),
        undelivered_from: Offset::MAX,
        now: TimestampMs(10_000),
    };

    /// Four sealed segments of 100 bytes and 100 offsets, with an active one of 50 behind.
    fn expired(params: RetentionParams) -> Vec<RetentionReason> {
        let segments = (1..5).map(|n| SealedSegment {
            size: 100,
            largest_timestamp: TimestampMs(n * 1000),
            next_base_offset: Offset(n * 100),
        });
        params.expired(segments).collect()
    }

    #[test]
    fn without_limits_all_stay() {
        assert_eq!(expired(PARAMS), []);
    }

    #[test]
    fn by_time_strictly_older_ones_go() {
        use RetentionReason::Time;
        assert_eq!(expired(RetentionParams { retention_ms: 8000, ..PARAMS }), [Time]);
        assert_eq!(expired(RetentionParams { retention_ms: 7999, ..PARAMS }), [Time, Time]);
        assert_eq!(expired(RetentionParams { retention_ms: 0, ..PARAMS }), [Time; 4]);
        assert_eq!(expired(RetentionParams { retention_ms: 0, now: TimestampMs(i64::MIN), ..PARAMS }), []);
    }

    #[test]
    fn by_size_the_log_stays_at_least_as_large_as_the_limit() {
        use RetentionReason::Size;
        assert_eq!(expired(RetentionParams { retention_bytes: 450, ..PARAMS }), []);
        assert_eq!(expired(RetentionParams { retention_bytes: 351, ..PARAMS }), []);
        assert_eq!(expired(RetentionParams { retention_bytes: 350, ..PARAMS }), [Size]);
        assert_eq!(expired(RetentionParams { retention_bytes: 0, ..PARAMS }), [Size; 4]);
    }

    #[test]
    fn what_lies_before_the_log_start_goes_first() {
        use RetentionReason::{LogStart, Time};
        assert_eq!(expired(RetentionParams { log_start_offset: Offset(199), ..PARAMS }), [LogStart]);
        let params = RetentionParams { log_start_offset: Offset(200), retention_ms: 6999, ..PARAMS };
        assert_eq!(expired(params), [LogStart, LogStart, Time]);
    }

    #[test]
    fn what_was_not_delivered_goes_for_its_size_and_not_for_its_age() {
        use RetentionReason::{LogStart, Size, Time};
        let params = RetentionParams { retention_ms: 0, undelivered_from: Offset(200), ..PARAMS };
        assert_eq!(expired(params), [Time, Time]);
        assert_eq!(expired(RetentionParams { undelivered_from: Offset(199), ..params }), [Time]);
        assert_eq!(expired(RetentionParams { retention_bytes: 150, ..params }), [Time, Time, Size]);
        assert_eq!(
            expired(RetentionParams { undelivered_from: Offset(0), log_start_offset: Offset(100), ..params }),
            [LogStart]
        );
    }

    #[test]
    fn nothing_above_the_high_watermark_goes() {
        let params = RetentionParams { retention_ms: 0, retention_bytes: 0, log_start_offset: Offset(450), ..PARAMS };
        assert_eq!(expired(RetentionParams { high_watermark: Offset(299), ..params }).len(), 2);
        assert_eq!(expired(RetentionParams { high_watermark: Offset(99), ..params }).len(), 0);
    }

    #[test]
    fn a_segment_that_stays_keeps_all_behind_it() {
        let segments = [(5000, 100), (1, 200), (1, 300)].map(|(largest_timestamp, next_base_offset)| SealedSegment {
            size: 1,
            largest_timestamp: TimestampMs(largest_timestamp),
            next_base_offset: Offset(next_base_offset),
        });
        let mut expired = RetentionParams { retention_ms: 6000, ..PARAMS }.expired(segments);
        assert_eq!((expired.next(), expired.next(), expired.next(), expired.next()), (None, None, None, None));
    }
}
