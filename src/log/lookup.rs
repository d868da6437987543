//! Where in a log something is: the last records, the first record of a time.

use std::sync::Arc;

use edgelog_core::config::IsolationLevel;
use edgelog_core::{Offset, OffsetAndEpoch, TimestampMs};

use super::handle::Log;
use super::origin::Origin;
use super::read::Reader;
use super::shared::{LogShared, is_unreadable};
use super::types::{OffsetSpec, ReadUpTo, ReaderOptions};
use crate::error::{Error, Result};
use crate::sync::Ordering;

impl Log {
    /// The offset of the first record whose timestamp (milliseconds since 1970) is `timestamp` or later, as
    /// Kafka's `offsetsForTimes`; `None` where there is none.
    ///
    /// # Errors
    /// What reading a file can answer.
    pub fn offset_for_time(&self, timestamp: TimestampMs) -> Result<Option<OffsetAndEpoch>> {
        self.shared.check_alive()?;
        self.shared.refresh()?;
        self.shared.notice_retention()?;
        self.shared.offset_for_time(timestamp)
    }
}

impl LogShared {
    /// The offset of the first of the last `count` records below `bound` that a reader with `options` gives out.
    ///
    /// That is arithmetic in a log that this process writes, where offsets are contiguous and nothing is left out. Else
    /// records are counted from further and further back: what an attached process sees may end in a loss.
    pub(super) fn offset_of_last(
        self: &Arc<Self>,
        count: u64,
        start: Offset,
        bound: Offset,
        options: ReaderOptions,
    ) -> Result<Offset> {
        let back = |count: u64| bound.saturating_sub(i64::try_from(count).unwrap_or(i64::MAX)).max(start);
        let mut from = back(count);
        let leaves_out = options.isolation == IsolationLevel::ReadCommitted && self.may_have_transactions();
        let is_whole = self.origin() == Origin::Own && !self.is_attached();
        if is_whole && !leaves_out || count == 0 {
            return Ok(from);
        }
        let mut span = count;
        loop {
            let (records, _) = self.count_records(from, bound, u64::MAX, options)?;
            if from == start || records >= count {
                let (_, offset) = self.count_records(from, bound, records.saturating_sub(count), options)?;
                return Ok(offset.unwrap_or(from));
            }
            span = span.saturating_mul(4);
            from = back(span);
        }
    }

    /// Where a reader goes on that has met a segment which cannot be opened, by `error`: at the next one; `None` where
    /// none follows.
    ///
    /// # Errors
    /// `error`, where it says something else.
    pub(super) fn behind_unreadable(&self, error: Error) -> Result<Option<Offset>> {
        let Error::Storage { path, .. } = &error else { return Err(error) };
        let segments = self.segments.read();
        let Some(at) = segments.iter().position(|segment| segment.path() == *path).filter(|_| is_unreadable(&error))
        else {
            return Err(error);
        };
        Ok(segments.get(at + 1).map(|next| next.base_offset))
    }

    /// How many records lie between two offsets, up to and with the one behind `skip` others, and that one's offset.
    fn count_records(
        self: &Arc<Self>,
        from: Offset,
        bound: Offset,
        skip: u64,
        options: ReaderOptions,
    ) -> Result<(u64, Option<Offset>)> {
        let mut reader = Reader::new(Arc::clone(self), options);
        reader.seek(OffsetSpec::Offset(from))?;
        let mut count = 0;
        while reader.position().offset < bound {
            let batch = match reader.next_batch() {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                Err(error) if error.is_corrupt() => {
                    reader.skip_damage()?;
                    continue;
                }
                Err(error) => match self.behind_unreadable(error)? {
                    Some(next) => {
                        reader.seek(OffsetSpec::Offset(next))?;
                        continue;
                    }
                    None => break,
                },
            };
            // Records that cannot be decoded are reported by the reader who asks for them. Of a batch that holds some,
            // none counts: it may be that none is given out.
            let Ok(records) = batch.records() else { continue };
            if !records.clone().all(|record| record.is_ok()) {
                continue;
            }
            for record in records.map_while(Result::ok) {
                if count == skip {
                    return Ok((count, Some(record.offset)));
                }
                count += 1;
            }
        }
        Ok((count, None))
    }

    /// The first record at or after a time. Segments are looked at oldest first, by their largest timestamp.
    pub(super) fn offset_for_time(self: &Arc<Self>, timestamp: TimestampMs) -> Result<Option<OffsetAndEpoch>> {
        let bound = self.bound(ReadUpTo::HighWatermark);
        let start = self.log_start_offset.load(Ordering::Acquire);
        let segments = self.segments.read().clone();
        for (at, segment) in segments.iter().enumerate() {
            let is_last = at + 1 == segments.len();
            if !is_last && segments[at + 1].base_offset <= start {
                continue;
            }
            if let Err(error) = self.open_for_reading(segment) {
                self.behind_unreadable(error)?;
                continue;
            }
            if segment.largest_timestamp(&self.pool)? < timestamp && !(is_last && self.is_attached()) {
                continue;
            }
            let from = segment.offset_before_time(timestamp, &self.pool)?.max(start);
            if let Some(found) = self.first_at_or_after(timestamp, from, bound)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn first_at_or_after(
        self: &Arc<Self>,
        timestamp: TimestampMs,
        from: Offset,
        bound: Offset,
    ) -> Result<Option<OffsetAndEpoch>> {
        if from >= bound {
            return Ok(None);
        }
        let mut reader = Reader::new(Arc::clone(self), ReaderOptions::default());
        reader.seek(OffsetSpec::Offset(from))?;
        loop {
            let batch = match reader.next_batch() {
                Ok(Some(batch)) => batch,
                Ok(None) => return Ok(None),
                // The reader that goes there passes over the same damage.
                Err(error) if error.is_corrupt() => {
                    reader.skip_damage()?;
                    continue;
                }
                Err(error) => match self.behind_unreadable(error)? {
                    Some(next) => {
                        reader.seek(OffsetSpec::Offset(next))?;
                        continue;
                    }
                    None => return Ok(None),
                },
            };
            if batch.view().max_timestamp() < timestamp {
                continue;
            }
            let leader_epoch = batch.leader_epoch();
            let Ok(records) = batch.records() else {
                // The reader that goes there meets the error, and can go on behind the batch.
                return Ok(Some(OffsetAndEpoch { offset: batch.base_offset().max(from), leader_epoch }));
            };
            for record in records {
                let Ok(record) = record else {
                    return Ok(Some(OffsetAndEpoch { offset: batch.base_offset().max(from), leader_epoch }));
                };
                if record.timestamp >= timestamp {
                    return Ok(Some(OffsetAndEpoch { offset: record.offset, leader_epoch }));
                }
            }
        }
    }
}
