//! Flushing by an attached process: it makes durable what it sees of a log, and knows what is durable.
//!
//! The writer may know nothing of it; what it appends below `Sync` is in the page cache, and a flush of the file by any
//! process of the machine puts it onto the disk, stored through a map or not. Four things make the end that was seen
//! a durable one:
//!
//! 1. The end is looked at *first*; then every segment from the last durable point on is flushed, oldest first, then
//!    the directory. All that was seen had been validated (length, CRC-32C, offset), and so is accepted by a recovery.
//! 2. After a flush of the writer's that failed, the kernel takes the pages for clean, and a flush of another process
//!    succeeds without them. So a healthy writer has raised the flag of the data directory, and raises that of a log
//!    which failed: without the one, or with the other, a flush from here proves nothing. A recovery, which rewrites
//!    what it accepts, comes before the flag of the next writer.
//! 3. Behind the flush the writer's checkpoint is read once more: where an epoch began below the end that was seen,
//!    what was seen was removed, by a truncation or by a recovery between two writers.
//! 4. The checkpoint that names the log, its identity and its epochs is flushed, too, and the directory that holds the
//!    log's.
//!
//! A flush from here that fails is not tried again until the writer has resolved it. The kernel reports the error to
//! the writer, which has the file open, at its own next flush; then a recovery rewrites what it accepts. So the flush
//! counts as resolved once the writer's checkpoint names as durable
//!
//! * more than had been appended when it failed (that flush began behind it, and its writer got no error), or
//! * the beginning of an epoch that there was not when it failed: what lies below was written or flushed again.

use std::sync::Arc;

use edgelog_core::{LeaderEpoch, Offset};

use super::attachment::FailedFlush;
use super::handle::Log;
use super::role::Attached;
use super::shared::{LogShared, is_gone};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::sync::Ordering;

impl Log {
    /// The flush from here that failed, until it is resolved.
    pub(crate) fn failed_flush(&self) -> Option<FailedFlush> {
        self.shared.attached()?.attachment.lock().failed
    }

    /// Whether more is seen than is durable, and for longer than a writer takes to close the store, no process has it
    /// open for writing that answers for the rest. The next writer does, once it has recovered the log.
    #[cfg_attr(not(feature = "bridge"), allow(dead_code))]
    pub(crate) fn is_unvouched(&self) -> bool {
        self.shared.attached().is_some_and(|attached| attached.attachment.lock().is_unvouched())
    }

    /// Of an attached log whose files may have lost their names: takes over what its last segment holds by now, where
    /// that file is still open here. Whether it is, and could be read.
    #[cfg_attr(not(feature = "bridge"), allow(dead_code))]
    pub(crate) fn look_at_open_file(&self) -> bool {
        self.shared.attached().is_some_and(|attached| self.shared.look_at_open_file(&mut attached.attachment.lock()))
    }

    /// Takes over from a process that died after its flush had failed: as if it had been this one's.
    pub(crate) fn inherit_failed_flush(&self, failed: FailedFlush, whose: &str) {
        let Some(attached) = self.shared.attached() else { return };
        attached.attachment.lock().failed = Some(failed);
        let reason = format!(
            "what {whose} could not flush may be lost; the program that writes it has to flush it, or to open the \
             store again"
        );
        self.shared.failure.lock().get_or_insert(reason);
        let durable = self.shared.recovery_point.load(Ordering::Acquire);
        self.shared.raise_flags(durable, failed.end);
    }
}

impl LogShared {
    /// Makes durable what this attached log shows, if it reaches beyond what is durable by now, and returns the end
    /// below which everything is durable. See [`Log::flush_up_to`](super::Log::flush_up_to).
    pub(super) fn flush_attached(&self, attached: &Attached, offset: Offset) -> Result<Offset> {
        let _no_other = attached.flushing.lock();
        self.refresh()?;
        if !self.resolve_failed_flush(attached)? {
            return Err(self.previous_failure());
        }
        let durable = self.recovery_point.load(Ordering::Acquire);
        let generation = self.generation.load(Ordering::Acquire);
        let end = self.log_end_offset.load(Ordering::Acquire);
        let is_vouched = durable >= offset.min(end) || self.is_vouched_for(durable, end)?;
        attached.attachment.lock().note_vouched(is_vouched);
        if durable >= offset.min(end) || !is_vouched {
            return Ok(durable);
        }
        match self.flush_attached_files(attached, durable, end) {
            Ok(()) => {}
            // Taken by retention, or by a truncation, while it was flushed: the next call sees what there is.
            Err(error) if is_gone(&error) => return Ok(durable),
            Err(error) => {
                // The kernel takes the pages for clean: the next flush would return no error.
                self.raise_flags(durable, end);
                self.failure.lock().get_or_insert_with(|| error.to_string());
                self.note_failed_flush(attached);
                return Err(error);
            }
        }
        if !self.is_vouched_for(durable, end)? {
            return Ok(durable);
        }
        self.read_checkpoint(&mut attached.attachment.lock())?;
        self.refresh()?;
        if self.generation.load(Ordering::Acquire) == generation {
            let mut at = attached.attachment.lock();
            let end = if bug(Bug::TakeTheEndAfterTheAttachedFlush) {
                self.log_end_offset.load(Ordering::Acquire)
            } else {
                end
            };
            at.flushed = at.flushed.max(end);
            self.recovery_point.fetch_max(at.flushed, Ordering::AcqRel);
        }
        Ok(self.recovery_point.load(Ordering::Acquire))
    }

    /// Shows other attached processes that these files could not be flushed. A file that has another process's flag
    /// keeps that one.
    fn raise_flags(&self, durable: Offset, end: Offset) {
        if bug(Bug::KeepAFailureToOneself) {
            return;
        }
        let segments = self.segments_between(durable, end);
        let raised = segments.iter().filter_map(|segment| self.storage.raise_flag(&segment.path()).ok());
        self.failure_flags.lock().extend(raised);
    }

    /// Whether one of these files could not be flushed by another attached process.
    fn sees_flags(&self, durable: Offset, end: Offset) -> Result<bool> {
        for segment in self.segments_between(durable, end) {
            match self.sees_flag(&segment.path()) {
                Ok(false) => {}
                // Taken by retention, or by a truncation: the flush meets that, too.
                Err(error) if is_gone(&error) => {}
                found => return found,
            }
        }
        Ok(false)
    }

    fn sees_flag(&self, path: &str) -> Result<bool> {
        self.storage.sees_flag(path).map_err(Error::storage("look at", path))
    }

    /// Notes what was appended by now, and which epochs there are: they show later whether the writer has resolved it.
    /// Where they cannot be looked at, it stays unresolved.
    fn note_failed_flush(&self, attached: &Attached) {
        let end = self.refresh().map_or(Offset::MAX, |_| self.log_end_offset.load(Ordering::Acquire));
        let saved = self.host().and_then(|host| host.read_saved(&self.name)).ok().flatten();
        let epoch = saved.and_then(|saved| Some(saved.epochs.last()?.epoch)).unwrap_or(LeaderEpoch::MAX);
        attached.attachment.lock().failed = Some(FailedFlush { end, epoch });
    }

    /// Whether there is no failed flush (any more).
    fn resolve_failed_flush(&self, attached: &Attached) -> Result<bool> {
        let mut at = attached.attachment.lock();
        let Some(failed) = at.failed else { return Ok(true) };
        // What a recovery has cut meanwhile is not read from here any more.
        self.read_checkpoint(&mut at)?;
        let Some(saved) = self.host()?.read_saved(&self.name)?.filter(|saved| saved.id == self.id) else {
            return Ok(false);
        };
        let durable = saved.durable.offset;
        let began = saved.epochs.iter().find(|entry| entry.epoch > failed.epoch).map(|entry| entry.start_offset);
        let is_resolved = durable > failed.end || began.is_some_and(|start| durable >= start);
        if !is_resolved && !bug(Bug::ResolveFailedFlushesAtOnce) {
            return Ok(false);
        }
        at.failed = None;
        drop(at);
        for segment in &*self.segments.read() {
            segment.file()?.forget_failed_flush();
        }
        *self.failure.lock() = None;
        self.lower_flag();
        Ok(true)
    }

    /// The kernel reports an error once to each descriptor. Those of this process get it now, while the log is known to
    /// have failed, and not when the writer has mended it.
    fn hear_errors(&self) {
        let (durable, end) = (self.recovery_point.load(Ordering::Acquire), self.log_end_offset.load(Ordering::Acquire));
        for file in self.segments_between(durable, end).iter().filter_map(|segment| segment.file().ok()) {
            let _ = file.flush();
            file.forget_failed_flush();
        }
    }

    /// Whether what is seen is what a recovery would keep, once it is flushed: a healthy writer has the store open. An
    /// error where its flag says that this log failed, or another attached process's flag that a flush did.
    fn is_vouched_for(&self, durable: Offset, end: Offset) -> Result<bool> {
        if bug(Bug::TrustADeadWriter) {
            return Ok(true);
        }
        let reason = if self.sees_flag(&self.dir)? {
            "the program that writes it could not write or flush it, and what is not durable by now may be lost; that \
             program, or the next one, has to open the store again"
        } else if self.sees_flags(durable, end)? {
            "another process could not flush it, and what is not durable by now may be lost; the program that writes \
             it has to flush it, or to open the store again"
        } else {
            let host = self.host()?;
            return Ok(
                host.has_healthy_writer()? && host.read_saved(&self.name)?.is_some_and(|saved| saved.id == self.id)
            );
        };
        self.hear_errors();
        Err(Error::PreviousIo { log: self.name.to_string(), reason: reason.to_owned() })
    }

    /// Flushes every segment from the one that holds `durable` up to the one that holds `end`, then what names them.
    fn flush_attached_files(&self, attached: &Attached, durable: Offset, end: Offset) -> Result<()> {
        let segments = self.segments_between(durable, end);
        for segment in &segments {
            segment.file()?.flush().map_err(|error| Error::storage("flush", &segment.path())(error))?;
        }
        let attachment = &attached.attachment;
        let (names, newest) = (attachment.lock().names_flushed, segments.last().map(|segment| segment.base_offset));
        if names < newest && !bug(Bug::SkipAttachedDirectorySync) {
            self.storage.sync_dir(&self.dir).map_err(Error::storage("sync directory", &self.dir))?;
            if names.is_none() {
                self.host()?.flush_attached()?;
            }
        }
        attachment.lock().names_flushed = names.max(newest);
        Ok(())
    }

    /// From the one that holds `durable` to the one that holds what lies before `end`.
    fn segments_between(&self, durable: Offset, end: Offset) -> Vec<Arc<Segment>> {
        let segments = self.segments.read();
        let first = segments.partition_point(|segment| segment.base_offset <= durable).saturating_sub(1);
        let behind = segments.partition_point(|segment| segment.base_offset < end);
        segments.get(first..behind.max(first)).unwrap_or_default().to_vec()
    }
}
