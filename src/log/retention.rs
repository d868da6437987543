//! Retention and the rest of a log's housekeeping: all work other than appends, in the store's thread or its `tick`.

use std::sync::Arc;

use edgelog_core::limits::UNFLUSHED_SEGMENTS_MAX;
use edgelog_core::{
    NO_TIMESTAMP, Offset, Position, RetentionParams, RetentionReason, SealedSegment, TimestampMs, is_dated,
};

use super::handle::Log;
use super::shared::{LogShared, state};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::events;
use crate::segment::Segment;
use crate::sync::Ordering;

/// What retention leaves.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Bytes of the log; negative: no limit.
    bytes: i64,
    /// Age; negative: no limit.
    ms: i64,
    /// From here on, age is no reason.
    undelivered_from: Offset,
}

/// What retention took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) segments: usize,
    pub(crate) bytes: u64,
    pub(crate) log_start_offset: Offset,
}

impl Log {
    /// Deletes all records before `offset`: they cannot be read any more, and whole segments of them give
    /// their room back. Offsets above the high watermark are taken as the high watermark. Returns the new
    /// log start offset.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] for a negative offset, [`Error::Storage`], and the errors of a log that
    /// cannot be written.
    ///
    /// # Durability
    /// On return, the new log start offset is on the disk.
    pub fn delete_records_before(&self, offset: Offset) -> Result<Offset> {
        let log = &self.shared;
        log.check_writable()?;
        let high_watermark = log.high_watermark.load(Ordering::Acquire);
        let start = log.log_start_offset.load(Ordering::Acquire);
        if offset < 0 {
            let log_end_offset = log.log_end_offset.load(Ordering::Acquire);
            return Err(Error::OffsetOutOfRange { requested: offset, log_start_offset: start, log_end_offset });
        }
        let host = log.host()?;
        host.allow_writing()?;
        // A durable log start above the durable end would leave a hole after a power cut.
        let offset = offset.min(high_watermark);
        log.flush_until(offset)?;
        log.keep_sequences(offset)?;
        let start = log.log_start_offset.fetch_max(offset, Ordering::AcqRel).max(offset);
        host.checkpoint()?;
        log.expire_within(Limits { bytes: -1, ms: -1, undelivered_from: Offset::MAX }, log.clock.now())?;
        Ok(start)
    }
}

impl Log {
    /// The offset from which on nothing of this log is deleted for its age (`retention.ms`), because a holder still
    /// needs it: a bridge that has not delivered it to a cluster yet. `None` where no holder does. Read from the
    /// holders' files in the data directory, which trail what was delivered by some transactions.
    /// [`Store::retention_holds`](crate::Store::retention_holds) has the holders' names, and reads the files once for
    /// all logs.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn held_from(&self) -> Result<Option<Offset>> {
        self.shared.check_alive()?;
        self.shared.host()?.held_from(&self.shared.name, self.shared.id)
    }
}

impl LogShared {
    /// Whether the log takes changes at all.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_alive()?;
        match self.state.load(Ordering::Acquire) {
            state::FAILED => Err(self.previous_failure()),
            _ => self.writer().map(|_| ()),
        }
    }

    /// Removes the oldest segments as `retention.ms`, `retention.bytes` and the log start offset say.
    ///
    /// What lies at or above `held_from` is not deleted for its age.
    pub(crate) fn expire(self: &Arc<Self>, now: TimestampMs, held_from: Option<Offset>) -> Result<Option<Expired>> {
        let config = Arc::clone(&self.config.read());
        let limits = Limits {
            bytes: config.retention_bytes,
            ms: config.retention_ms,
            undelivered_from: held_from.unwrap_or(Offset::MAX),
        };
        self.expire_within(limits, now)
    }

    /// Removes the oldest segments that lie beyond these limits or before the log start offset.
    fn expire_within(self: &Arc<Self>, limits: Limits, now: TimestampMs) -> Result<Option<Expired>> {
        let Limits { bytes: retention_bytes, ms: retention_ms, undelivered_from } = limits;
        let segments = self.segments.read().clone();
        let log_start_offset = self.log_start_offset.load(Ordering::Acquire);
        let by_start = segments.get(1).is_some_and(|next| next.base_offset <= log_start_offset);
        if segments.len() < 2 || (retention_bytes < 0 && retention_ms < 0 && !by_start) {
            return Ok(None);
        }
        let total_bytes = if retention_bytes < 0 { 0 } else { self.size()?.1 };
        let params = RetentionParams {
            retention_bytes,
            retention_ms,
            total_bytes,
            log_start_offset,
            // What is not durable yet is not deleted either: the recovery point stays inside the log.
            high_watermark: self
                .high_watermark
                .load(Ordering::Acquire)
                .min(self.recovery_point.load(Ordering::Acquire)),
            undelivered_from,
            now,
        };
        let sealed_segments = &segments[..segments.len() - 1];
        let mut ages = ages_of(sealed_segments, |segment| segment.largest_timestamp(&self.pool));
        let sealed = segments.windows(2).enumerate().map_while(|(at, pair)| {
            let size = u64::from(pair[0].len().ok()?);
            // Only age needs the timestamp, and it costs opening an index.
            let largest_timestamp = if retention_ms < 0 { NO_TIMESTAMP } else { ages(at).ok()? };
            Some(SealedSegment { size, largest_timestamp, next_base_offset: pair[1].base_offset })
        });
        let mut reasons: Vec<RetentionReason> = params.expired(sealed).collect();
        // What an index says is no evidence: before anything goes for its age, its batches are asked.
        let mut checked = ages_of(sealed_segments, |segment| self.checked_age(segment));
        let is_young = |(at, reason): (usize, &RetentionReason)| {
            *reason == RetentionReason::Time
                && checked(at).is_ok_and(|newest| newest < 0 || now.saturating_since(newest) <= retention_ms)
        };
        let kept_from = reasons.iter().enumerate().position(is_young);
        reasons.truncate(kept_from.unwrap_or(reasons.len()));
        if reasons.is_empty() {
            return Ok(None);
        }
        // Removing names changes the log: the clean mark, if it still stands, goes first.
        self.host()?.allow_writing()?;
        self.remove_oldest(&segments[..reasons.len()], segments[reasons.len()].base_offset, &reasons).map(Some)
    }

    /// The timestamp that a segment is as old as: its largest, unless the clock was lost while it was written.
    fn checked_age(&self, segment: &Segment) -> Result<TimestampMs> {
        let (largest, last) = segment.checked_timestamps(&self.pool)?;
        Ok(if last < 0 || is_dated(last) { largest } else { last })
    }

    /// Takes `expired` off the front of the log. Readers that are in them keep what they hold.
    fn remove_oldest(
        self: &Arc<Self>,
        expired: &[Arc<Segment>],
        next_base: Offset,
        reasons: &[RetentionReason],
    ) -> Result<Expired> {
        self.keep_sequences(next_base)?;
        let log_start_offset = self.log_start_offset.fetch_max(next_base, Ordering::AcqRel).max(next_base);
        self.epochs.write().truncate_from_start(log_start_offset);
        // The log start is durable before the first name goes: names that a power cut brings back, with or without
        // their neighbours, lie before it and are no part of the log.
        if !bug(Bug::DeleteBeforeTheStartLasts) {
            self.host()?.checkpoint()?;
        }
        self.segments.write().retain(|segment| segment.base_offset >= next_base);
        let mut bytes = 0;
        let _events = events::hold();
        // Oldest first: cut anywhere, what is left is one contiguous log.
        for (segment, reason) in expired.iter().zip(reasons) {
            bytes += u64::from(segment.len().unwrap_or(Position(0)));
            segment.remove_files()?;
            let (log, base_offset, reason) = (self.name.clone(), segment.base_offset, *reason);
            events::emit(move || tracing::info!(%log, base_offset = base_offset.0, ?reason, "deleted a segment"));
        }
        Ok(Expired { segments: expired.len(), bytes, log_start_offset })
    }

    /// Seals what was rolled: flushes it, then writes its indexes. Returns whether there was anything to seal.
    pub(crate) fn finish_sealed(&self) -> Result<bool> {
        let Some(active_base) = self.active_base() else { return Ok(false) };
        let mut any = false;
        let segments = self.segments.read().clone();
        let last = segments.iter().rev().take(2 + UNFLUSHED_SEGMENTS_MAX);
        if last.filter(|segment| segment.base_offset < active_base).any(|segment| segment.is_untrimmed()) {
            self.flush_sealed(active_base)?;
        }
        // From the newest back: what was sealed last, and what a reader found to be wrong in any of the others.
        let is_due = |segment: &&Arc<Segment>| segment.base_offset < active_base && segment.has_unwritten_indexes();
        for segment in segments.iter().rev().filter(is_due) {
            segment.write_indexes(&self.pool)?;
            any = true;
        }
        Ok(any)
    }

    fn active_base(&self) -> Option<Offset> {
        self.writer().ok()?.appender.lock().as_ref().map(|appender| appender.writer.segment().base_offset)
    }
}

/// The times by which these sealed segments are old, asked for from the first one on: that of a segment's newest
/// record. A clock that was not set yet says nothing of age, so what it stamped is as old as the first segment behind
/// it that has a date: that was written later. Where none has, nothing is old.
fn ages_of<'a>(
    segments: &'a [Arc<Segment>],
    newest: impl Fn(&Segment) -> Result<TimestampMs> + 'a,
) -> impl FnMut(usize) -> Result<TimestampMs> + 'a {
    // Up to here the answer is known: looking again would read all between once more for each.
    let mut known: Option<(usize, TimestampMs)> = None;
    move |at| {
        if let Some((_, timestamp)) = known.filter(|&(until, _)| at <= until) {
            return Ok(timestamp);
        }
        let mut found = (segments.len(), NO_TIMESTAMP);
        for (until, segment) in segments.iter().enumerate().skip(at) {
            let timestamp = newest(segment)?;
            if timestamp < 0 || is_dated(timestamp) || bug(Bug::BelieveAnUnsetClock) {
                found = (until, timestamp);
                break;
            }
        }
        known = Some(found);
        Ok(found.1)
    }
}
