//! Truncation: takes records back from the end.
//!
//! Bytes that readers may hold are never rewritten, so the kept part moves into a new file. Cut anywhere,
//! what is left is a longer valid log, fenced by the epoch that was made durable first:
//!
//! 1. the new epoch and the lowered recovery point are durable;
//! 2. later segments are unlinked, newest first, and the directory is synced;
//! 3. the kept prefix is copied to a `.part` file, flushed, renamed over the segment, and the directory is
//!    synced.

use std::sync::Arc;

use edgelog_core::{LeaderEpoch, Offset, Position};

use super::handle::Log;
use super::saved_log::DurablePoint;
use super::shared::{LogShared, state};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::events;
use crate::segment::{Cursor, Segment, file_names};
use crate::storage::{Access, StorageFile, remove_if_there};
use crate::sync::Ordering;

impl Log {
    /// Removes all records from `offset` on; a batch that holds `offset` goes as a whole. Returns the new
    /// log end offset.
    ///
    /// The leader epoch rises: a reader that saw the removed records gets [`Error::FencedLeaderEpoch`]. Batches that
    /// readers hold stay readable.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] below the log start or above the log end; [`Error::Storage`], and then the
    /// log is read-only until it is reopened; the errors of a log that cannot be written.
    ///
    /// # Durability
    /// On return, the truncation is on the disk; cut short by a power cut, the log is a longer one of a
    /// fenced epoch.
    pub fn truncate_to(&self, offset: Offset) -> Result<Offset> {
        let log = &*self.shared;
        log.check_writable()?;
        let (start, end) = (log.log_start_offset.load(Ordering::Acquire), log.log_end_offset.load(Ordering::Acquire));
        if offset < start || offset > end {
            return Err(Error::OffsetOutOfRange { requested: offset, log_start_offset: start, log_end_offset: end });
        }
        let epoch = log.epochs.read().view().latest().map_or(LeaderEpoch(0), |latest| latest.epoch);
        log.epoch_after(epoch)?;
        log.host()?.allow_writing()?;
        // Everything durable first: the order of what follows is then the only thing that a power cut can break into.
        log.flush_until(end)?;
        let truncated = log.truncate(offset);
        if let Err(error) = &truncated {
            log.fail(&error.to_string());
        }
        truncated.map_err(|error| error.made_read_only(&log.name))
    }
}

impl LogShared {
    #[inline(never)]
    fn truncate(&self, offset: Offset) -> Result<Offset> {
        let _events = events::hold();
        let writer = self.writer()?;
        let _no_flush = writer.pause_flushes();
        let mut guard = writer.appender.lock();
        if self.state.load(Ordering::Acquire) == state::FAILED {
            return Err(self.previous_failure());
        }
        let appender = guard.as_mut().ok_or(Error::Closed)?;
        if offset >= appender.next_offset {
            if appender.torn {
                // Of an append that answered an error there may be more behind the end than it seems.
                self.fence_torn_tail(appender)?;
            }
            return Ok(appender.next_offset);
        }
        let segment = self.segment_for(offset).ok_or(Error::Closed)?;
        let (position, end) = self.batch_start(&segment, offset)?;

        assert!(end <= offset && offset < appender.next_offset, "the batch of {offset} begins at {end}");
        let raised = self.epoch_after(appender.epoch)?;
        let epoch = if bug(Bug::TruncateInTheOldEpoch) { appender.epoch } else { raised };
        self.epochs.write().assign(epoch, end);
        *writer.durable.lock() = DurablePoint { offset: end, base_offset: segment.base_offset, position };
        // The batch may begin before the log start: all of its records are gone, so the log starts at its end.
        self.log_start_offset.fetch_min(end, Ordering::AcqRel);
        self.recovery_point.store(end, Ordering::Release);
        if !bug(Bug::TruncateBeforeTheEpochLasts) {
            self.host()?.checkpoint()?;
        }
        appender.epoch = epoch;

        let later: Vec<Arc<Segment>> =
            self.segments.read().iter().filter(|s| s.base_offset > segment.base_offset).cloned().collect();
        for segment in later.iter().rev() {
            segment.remove_files()?;
        }
        self.storage.sync_dir(&self.dir).map_err(Error::storage("sync directory", &self.dir))?;
        let kept = Arc::new(self.swap_prefix(&segment, position)?);
        kept.rebuild_into_memory(&self.pool)?;
        kept.set_stale();

        (appender.writer, _) = self.resume_writer(&kept, position)?;
        (appender.next_offset, appender.sync_pending_from, appender.torn) = (end, None, false);
        {
            let mut segments = self.segments.write();
            segments.retain(|s| s.base_offset < kept.base_offset);
            segments.push(kept);
            self.log_end_offset.store(end, Ordering::Release);
            self.high_watermark.store(end, Ordering::Release);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        drop(guard);
        self.wake.wake_all();
        let log = self.name.clone();
        events::emit(move || tracing::info!(%log, end = end.0, epoch = epoch.0, "truncated"));
        Ok(end)
    }

    /// Position and base offset of the batch that holds `offset`.
    fn batch_start(&self, segment: &Arc<Segment>, offset: Offset) -> Result<(Position, Offset)> {
        let len = segment.len()?;
        let (mut position, _) = segment.position_for(offset, &self.pool)?;
        let mut cursor = Cursor::new(&self.pool);
        while position < len {
            let batch = cursor.batch(segment, position, len)?;
            let file = || segment.path();
            let batch = batch.map_err(|e| Error::CorruptRecord { file: file(), position, offset, source: e.into() })?;
            if batch.last_offset() >= offset {
                // Where damage has taken the batch that held it, the log ends at the offset itself.
                return Ok((position, batch.base_offset().min(offset)));
            }
            position += batch.size() as u32;
        }
        Ok((len, offset))
    }

    /// Puts a new file with the first `len` bytes in the segment's place.
    fn swap_prefix(&self, segment: &Segment, len: Position) -> Result<Segment> {
        let part = file_names::part_file(&self.dir, segment.base_offset);
        let path = segment.path();
        let file = self.copy_prefix(segment, &part, len)?;
        self.storage.rename(&part, &path).map_err(Error::storage("swap in", &path))?;
        self.storage.sync_dir(&self.dir).map_err(Error::storage("sync directory", &self.dir))?;
        Ok(Segment::on_file(&self.storage, &self.dir, self.segment_options(), segment.base_offset, file, len))
    }

    /// Copies the first `len` bytes of a segment into the new file `part`, durably.
    pub(super) fn copy_prefix(&self, segment: &Segment, part: &str, len: Position) -> Result<Arc<dyn StorageFile>> {
        remove_if_there(&*self.storage, part).map_err(Error::storage("replace", part))?;
        let file = self.storage.open(part, Access::CreateNew).map_err(Error::storage("create", part))?;
        let flush = || if bug(Bug::SwapInUnflushedCopy) { Ok(()) } else { file.flush() };
        let copied = copy(&**segment.file()?, &*file, len).and_then(|()| flush());
        if let Err(error) = copied {
            let _ = self.storage.remove_file(part);
            return Err(Error::storage("copy the kept part to", part)(error));
        }
        Ok(file)
    }
}

/// Copies the first `len` bytes of a file.
fn copy(from: &dyn StorageFile, to: &dyn StorageFile, len: Position) -> std::io::Result<()> {
    const PIECE_BYTES: usize = 256 << 10;
    let mut piece = vec![0; PIECE_BYTES.min(len.0 as usize)];
    let mut position = 0;
    while position < u64::from(len) {
        let wanted = piece.len().min((u64::from(len) - position) as usize);
        let read = from.read_at(&mut piece[..wanted], position)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        to.write_at(&piece[..read], position)?;
        position += read as u64;
    }
    Ok(())
}
