//! Flushing: makes everything below one end durable, for all who wait for it at once.
//!
//! The order is the proof. The published end is read *first*; then every segment written since the recovery
//! point is flushed, oldest first; then the directory, if a name in it is new; only then does the recovery
//! point become that end. A flush runs outside of the append lock, so what is appended meanwhile belongs to the
//! next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::{Offset, Position};

use super::handle::Log;
use super::role::Writer;
use super::saved_log::DurablePoint;
use super::shared::{LogShared, state};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::events;
use crate::segment::Segment;
use crate::sync::{Ordering, elapsed};

/// The leader of a group waits for the appenders of the last group at most this part of a usual flush ...
const GATHER_FRACTION: u32 = 2;
/// ... and never longer than this.
const GATHER_MAX: Duration = Duration::from_micros(200);

impl Log {
    /// Makes everything that was appended before this call durable.
    ///
    /// # Errors
    /// [`Error::LogFailed`] where this flush failed, [`Error::PreviousIo`] where an earlier one did: the log is then
    /// read-only until the store is opened again.
    ///
    /// # Durability
    /// On return, all records with offsets below the log end offset at the call are on the disk.
    pub fn flush(&self) -> Result<()> {
        self.shared.check_alive()?;
        self.shared.flush_until(self.shared.log_end_offset.load(Ordering::Acquire))
    }
}

impl Log {
    /// Makes everything below `offset` durable, as far as it was appended, and returns the end below which everything
    /// is durable now: [`ReadUpTo::Durable`](super::ReadUpTo::Durable) reads up to there.
    ///
    /// An *attached* log can do that, too, no matter which program writes it: it flushes the writer's files, once at
    /// most for each call, and only where that is needed. What it returns may lie below what it shows. What is seen and
    /// was not flushed counts for nothing where no process of this machine has the store open for writing (it may have
    /// died of a flush that failed), or an older edgelog has: the answer is then what the writer's checkpoint names.
    ///
    /// # Errors
    /// As [`flush`](Log::flush). Attached: [`Error::PreviousIo`] where the writer has met an error while it wrote or
    /// flushed this log, from that moment on until the store was opened for writing again; [`Error::Storage`] where the
    /// flush itself fails, and then `PreviousIo` for as long as this store is attached.
    ///
    /// # Durability
    /// All records below the answer survive a power cut, with their offsets, leader epochs and bytes, until a program
    /// truncates or deletes them on purpose.
    ///
    /// # Concurrency
    /// Any thread. The writing process does not wait for an attached one, but for the disk that both write to.
    pub fn flush_up_to(&self, offset: Offset) -> Result<Offset> {
        let log = &*self.shared;
        log.check_alive()?;
        if let Some(attached) = log.attached() {
            return log.flush_attached(attached, offset);
        }
        log.flush_until(offset.min(log.log_end_offset.load(Ordering::Acquire)))?;
        Ok(log.recovery_point.load(Ordering::Acquire))
    }
}

/// Keeps flushes out for as long as it lives: truncation lowers what a flush under way would raise again.
pub(super) struct FlushPause<'a>(&'a Writer);

impl Drop for FlushPause<'_> {
    fn drop(&mut self) {
        self.0.flush_state.lock().flushing = false;
        self.0.flushed.notify_all();
    }
}

/// Ends a flush that panicked: what it flushed is not known, and no thread may wait for it.
struct Unwound<'a>(&'a LogShared, &'a Writer);

impl Drop for Unwound<'_> {
    fn drop(&mut self) {
        self.0.fail("a flush panicked");
        drop(FlushPause(self.1));
    }
}

impl Writer {
    /// Waits for a flush under way and keeps others out until the answer is dropped.
    pub(super) fn pause_flushes(&self) -> FlushPause<'_> {
        let mut flush = self.flush_state.lock();
        while flush.flushing {
            self.flushed.wait(&mut flush);
        }
        flush.flushing = true;
        FlushPause(self)
    }

    /// Waits a moment for the appenders that the last flush served: they are likely on their way here, and
    /// one flush serves all. A lone appender never waits.
    fn gather(&self, group: u32, usual: Duration) {
        if group < 2 {
            return;
        }
        let limit = (usual / GATHER_FRACTION).min(GATHER_MAX);
        let begun = Instant::now();
        while self.sync_appends.load(Ordering::Relaxed) < group && elapsed(begun) < limit {
            std::thread::yield_now();
        }
    }
}

impl LogShared {
    /// Returns once the recovery point has reached `target`, or the log's end where a truncation has lowered that
    /// below it: by flushing, or by waiting for who flushes already.
    pub(crate) fn flush_until(&self, target: Offset) -> Result<()> {
        // A flush under way is a lock too: who waits for it from within an event waits for itself.
        let _events = events::hold();
        if self.recovery_point.load(Ordering::Acquire) >= target {
            return Ok(());
        }
        let writer = self.writer()?;
        let mut flush = writer.flush_state.lock();
        loop {
            let target = target.min(self.log_end_offset.load(Ordering::Acquire));
            if self.recovery_point.load(Ordering::Acquire) >= target {
                return Ok(());
            }
            if self.state.load(Ordering::Acquire) == state::FAILED {
                return Err(self.previous_failure());
            }
            if flush.flushing {
                writer.flushed.wait(&mut flush);
                continue;
            }
            flush.flushing = true;
            let (group, usual) = (flush.last_group, flush.usual);
            drop(flush);

            let unwound = Unwound(self, writer);
            writer.gather(group, usual);
            let begun = Instant::now();
            let outcome = self.flush_once(writer, target);
            std::mem::forget(unwound);

            flush = writer.flush_state.lock();
            flush.flushing = false;
            if let Ok(served) = outcome {
                flush.last_group = served;
                flush.usual = (flush.usual * 7 + elapsed(begun)) / 8;
            }
            writer.flushed.notify_all();
            outcome?;
        }
    }

    /// Flushes whether or not anything is known to need it: the size of a trimmed file does.
    pub(super) fn flush_now(&self) -> Result<()> {
        let _events = events::hold();
        let writer = self.writer()?;
        let _no_other = writer.pause_flushes();
        self.flush_once(writer, Offset::MAX).map(|_| ())
    }

    /// Flushes and trims the sealed segments. Those that are appended to meanwhile wait for the next time.
    pub(super) fn flush_sealed(&self, active_base: Offset) -> Result<()> {
        let _events = events::hold();
        let writer = self.writer()?;
        let _no_other = writer.pause_flushes();
        self.flush_once(writer, active_base).map(|_| ())
    }

    /// One flush: of everything below the end as it is now, or, where `target` lies in no later segment than the active
    /// one's beginning, of the sealed segments below it alone. Returns how many `Sync` appends it served.
    fn flush_once(&self, writer: &Writer, target: Offset) -> Result<u32> {
        let (end, active_base, position, served) = {
            let guard = writer.appender.lock();
            let appender = guard.as_ref().ok_or(Error::Closed)?;
            let segment = &appender.writer;
            let active_base = segment.segment().base_offset;
            let served = if target <= active_base { 0 } else { writer.sync_appends.swap(0, Ordering::Relaxed) };
            (appender.next_offset, active_base, segment.position(), served)
        };
        if bug(Bug::CheckpointBeforeFlush) {
            *writer.durable.lock() = DurablePoint { offset: end, base_offset: active_base, position };
            self.host()?.checkpoint()?;
        }
        let outcome = self.flush_files(writer, active_base, target);
        if let Err(error) = outcome {
            self.fail(&error.to_string());
            return Err(error.made_read_only(&self.name));
        }
        if target <= active_base {
            return Ok(served);
        }
        let end = if bug(Bug::TakeTheEndAfterTheFlush) { self.log_end_offset.load(Ordering::Acquire) } else { end };
        debug_assert!(active_base <= end && end <= self.log_end_offset.load(Ordering::Acquire), "flushed up to {end}");
        self.made_durable(writer, DurablePoint { offset: end, base_offset: active_base, position }, position);
        Ok(served)
    }

    /// Everything below `point` is durable; `position` is where that ends in the segment that was flushed last.
    fn made_durable(&self, writer: &Writer, point: DurablePoint, position: Position) {
        {
            let mut durable = writer.durable.lock();
            let is_same = durable.base_offset == point.base_offset || point.position == 0;
            let from = if is_same { durable.position } else { Position(0) };
            writer.flushed_bytes.fetch_add(u64::from(position.saturating_since(from)), Ordering::Relaxed);
            *durable = point;
        }
        // Readers first: an append returns when the recovery point has passed it, and then finds its own record.
        self.acknowledge(writer, point.offset);
        self.recovery_point.store(point.offset, Ordering::Release);
        // Also where the high watermark stays: some wait for what is durable.
        self.wake.wake_all();
    }

    /// Flushes every segment from the recovery point's on, up to the active one or to `target`; each time the directory
    /// too, if a name in it is new. Of several sealed segments each counts as durable when its own flush is done.
    fn flush_files(&self, writer: &Writer, active_base: Offset, target: Offset) -> Result<()> {
        let mut segment = self.first_to_flush();
        let mut is_first = true;
        while let Some(current) = segment.take().filter(|current| current.base_offset < active_base) {
            let next = self.segment_after(current.base_offset);
            let next_base = next.as_ref().map_or(active_base, |next| next.base_offset);
            let is_between = !is_first && next_base < active_base;
            is_first = false;
            let is_passed_over = bug(Bug::FlushActiveSegmentOnly) || (is_between && bug(Bug::PassOverSegmentsBetween));
            if !is_passed_over {
                current.trim_and_flush()?;
            }
            self.sync_new_names(writer)?;
            if next_base > self.recovery_point.load(Ordering::Acquire) {
                let point = DurablePoint { offset: next_base, base_offset: next_base, position: Position(0) };
                self.made_durable(writer, point, current.len()?);
                // Those who wait for this segment alone go on. The lock, so that none is just about to wait.
                drop(writer.flush_state.lock());
                writer.flushed.notify_all();
            }
            if next_base >= target {
                return Ok(());
            }
            segment = next;
        }
        if target <= active_base {
            return Ok(());
        }
        let active = self.segment_for(active_base).ok_or(Error::Closed)?;
        // The name is made for the error alone: a flush allocates nothing.
        let failed = |error| Error::storage("flush", &active.path())(error);
        active.file()?.flush().map_err(failed)?;
        self.sync_new_names(writer)
    }

    /// Makes the directory's names durable, if there are new ones.
    fn sync_new_names(&self, writer: &Writer) -> Result<()> {
        if writer.names_dirty.swap(false, Ordering::AcqRel) && !bug(Bug::SkipDirectorySync) {
            self.storage.sync_dir(&self.dir).map_err(Error::storage("sync directory", &self.dir))?;
        }
        Ok(())
    }

    /// The segment of the recovery point, or one sealed before it that still has its reserved room: a flush that
    /// met the end of a segment exactly saw it as the active one.
    fn first_to_flush(&self) -> Option<Arc<Segment>> {
        let recovery_point = self.recovery_point.load(Ordering::Acquire);
        let segments = self.segments.read();
        let behind = segments.partition_point(|segment| segment.base_offset <= recovery_point);
        let mut first = behind.saturating_sub(1);
        while first > 0 && segments[first - 1].is_untrimmed() {
            first -= 1;
        }
        segments.get(first).map(Arc::clone)
    }

    /// Everything below `end` is durable: lets readers see the `Sync` appends among it.
    fn acknowledge(&self, writer: &Writer, end: Offset) {
        {
            let mut guard = writer.appender.lock();
            let Some(appender) = guard.as_mut() else { return };
            if appender.sync_pending_from.is_some() {
                if appender.sync_pending_end <= end {
                    appender.sync_pending_from = None;
                } else {
                    appender.sync_pending_from = appender.sync_pending_from.map(|from| from.max(end));
                }
            }
            let acknowledged = appender.sync_pending_from.unwrap_or(appender.next_offset);
            debug_assert!(acknowledged <= appender.next_offset, "{acknowledged} of {}", appender.next_offset);
            if acknowledged > self.high_watermark.load(Ordering::Relaxed) {
                self.high_watermark.store(acknowledged, Ordering::Release);
            }
        }
    }
}
