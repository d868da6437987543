//! Flushing beside the writer: an attached process makes durable what it sees of a log, and knows what is.
//!
//! The writer may know nothing of it; what it appends below `Sync` is in the page cache, and a flush of the file by any
//! process of the machine puts it onto the medium, stored through a map or not. Four things make the end that was seen
//! a durable one:
//!
//! 1. The end is looked at *first*; then every segment from the last durable point on is flushed, oldest first, then
//!    the directory. All that was seen had been validated (length, CRC-32C, offset), and so is accepted by a recovery.
//! 2. After a flush of the writer's that failed, the kernel takes the pages for clean, and a flush of somebody else's
//!    succeeds without them. So a healthy writer has raised the flag of the data directory, and raises that of a log
//!    which failed: without the one, or with the other, a flush from here proves nothing. A recovery, which writes anew
//!    what it accepts, comes before the flag of the next writer.
//! 3. Behind the flush the writer's checkpoint is read once more: where an epoch began below the end that was seen,
//!    what was seen was taken back, by a truncation or by a recovery between two writers.
//! 4. The checkpoint that names the log, its identity and its epochs is flushed, too, and the directory that holds the
//!    log's.

use edgelog_core::Offset;

use super::{LogShared, is_gone};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::sync::Ordering;

impl LogShared {
    /// Makes durable what this attached log shows, if it reaches beyond what is durable by now, and returns the end
    /// below which everything is durable. See [`Log::flush_up_to`](super::Log::flush_up_to).
    pub(super) fn flush_beside(&self, offset: Offset) -> Result<Offset> {
        let _no_other = self.pause_flushes();
        if self.failure().is_some() {
            return Err(self.previous_failure());
        }
        self.refresh()?;
        let durable = self.recovery_point.load(Ordering::Acquire);
        let generation = self.generation.load(Ordering::Acquire);
        let end = self.log_end_offset.load(Ordering::Acquire);
        if durable >= offset.min(end) || !self.is_vouched_for()? {
            return Ok(durable);
        }
        match self.flush_files_beside(durable, end) {
            Ok(()) => {}
            // Taken by retention, or by a truncation, while it was flushed: the next call sees what there is.
            Err(error) if is_gone(&error) => return Ok(durable),
            Err(error) => {
                // The kernel takes the pages for clean: who asked once more would be told that all is well.
                self.tell_attached();
                self.failure.lock().get_or_insert_with(|| error.to_string());
                return Err(error);
            }
        }
        if !self.is_vouched_for()? {
            return Ok(durable);
        }
        let attachment = self.attachment.as_ref().expect("the caller looked");
        self.read_checkpoint(&mut attachment.lock())?;
        self.refresh()?;
        if self.generation.load(Ordering::Acquire) == generation {
            let mut at = attachment.lock();
            let end =
                if bug(Bug::TakeTheEndAfterTheFlushBeside) { self.log_end_offset.load(Ordering::Acquire) } else { end };
            at.flushed = at.flushed.max(end);
            self.recovery_point.fetch_max(at.flushed, Ordering::AcqRel);
        }
        Ok(self.recovery_point.load(Ordering::Acquire))
    }

    /// Whether what is seen is what a recovery would keep, once it is flushed: a healthy writer has the store open. An
    /// error where it has told that this log failed.
    fn is_vouched_for(&self) -> Result<bool> {
        if bug(Bug::TrustADeadWriter) {
            return Ok(true);
        }
        if self.storage.sees_flag(&self.dir).map_err(Error::storage("look at", &self.dir))? {
            let reason = "the program that writes it could not write or flush it, and what is not durable by now may \
                          be lost; that program, or the next one, has to open the store again";
            return Err(Error::PreviousIo { log: self.name.to_string(), reason: reason.to_owned() });
        }
        let host = self.host()?;
        Ok(host.has_healthy_writer()? && host.read_saved(&self.name)?.is_some_and(|saved| saved.id == self.id))
    }

    /// Flushes every segment from the one that holds `durable` up to the one that holds `end`, then what names them.
    fn flush_files_beside(&self, durable: Offset, end: Offset) -> Result<()> {
        let segments = self.segments.read().clone();
        let first = segments.partition_point(|segment| segment.base_offset <= durable).saturating_sub(1);
        let behind = segments.partition_point(|segment| segment.base_offset < end);
        let Some(segments) = segments.get(first..behind.max(first)) else { return Ok(()) };
        for segment in segments {
            segment.file()?.flush().map_err(|error| Error::storage("flush", &segment.path())(error))?;
        }
        let attachment = self.attachment.as_ref().expect("the caller looked");
        let (names, newest) = (attachment.lock().names_flushed, segments.last().map(|segment| segment.base_offset));
        if names < newest && !bug(Bug::SkipDirectorySyncBeside) {
            self.storage.sync_dir(&self.dir).map_err(Error::storage("sync directory", &self.dir))?;
            if names.is_none() {
                self.host()?.flush_beside()?;
            }
        }
        attachment.lock().names_flushed = names.max(newest);
        Ok(())
    }
}
