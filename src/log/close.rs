//! The end of a log's use: closing it cleanly, letting go of it, and the periodic work in between.

use std::sync::Arc;

use edgelog_core::TimestampMs;

use super::saved_log::DurablePoint;
use super::shared::{LogShared, state};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::segment::file_names;
use crate::storage::small_file::{Lasting, replace};
use crate::sync::Ordering;

impl LogShared {
    /// What is due for this log at `now`. Returns whether a segment was sealed, and so the checkpoint has news.
    pub(crate) fn tick(&self, now: TimestampMs) -> Result<bool> {
        let Ok(writer) = self.writer() else { return Ok(false) };
        if !matches!(self.state.load(Ordering::Acquire), state::WRITABLE | state::ATTEND) {
            return Ok(false);
        }
        self.check_place()?;
        self.prepare_room()?;
        let sealed = self.finish_sealed()?;
        if self.unflushed(writer).bytes > self.unflushed_bytes_max / 2 {
            self.flush_until(self.log_end_offset.load(Ordering::Acquire))?;
        }
        let since = writer.interval_since.load(Ordering::Acquire);
        // A clock that was set back must not keep a flush waiting.
        if since != 0 && (now < since || now - since >= self.flush_interval_ms()) {
            writer.interval_since.store(0, Ordering::Release);
            self.flush_until(self.log_end_offset.load(Ordering::Acquire))?;
        }
        Ok(sealed)
    }

    /// Fails the log where its active segment is not what its name leads to: a flush looks by itself, and what is
    /// acknowledged before it is flushed depends on this.
    fn check_place(&self) -> Result<()> {
        let (segment, file) = {
            let guard = self.writer()?.appender.lock();
            let Some(appender) = guard.as_ref() else { return Ok(()) };
            let Some(file) = appender.writer.file() else { return Ok(()) };
            (Arc::clone(appender.writer.segment()), Arc::clone(file))
        };
        let checked = file.check_place().map_err(|error| Error::storage("look at", &segment.path())(error));
        if let Err(error) = &checked {
            self.fail(&error.to_string());
        }
        checked
    }

    /// The interval within which an `Interval` append still waits to be flushed.
    pub(crate) fn interval_pending(&self) -> Option<i64> {
        let writer = self.writer().ok()?;
        (writer.interval_since.load(Ordering::Acquire) != 0).then(|| self.flush_interval_ms())
    }

    /// Flushes, trims the file to its batches and writes the indexes. Appends answer `Closed` from here on.
    pub(crate) fn close(&self) -> Result<()> {
        let Ok(writer) = self.writer() else { return Ok(()) };
        let (segment, file, position, end) = {
            let mut guard = writer.appender.lock();
            let failed = self.state.load(Ordering::Acquire) == state::FAILED;
            if !failed {
                self.state.store(state::CLOSED, Ordering::Release);
            }
            self.wake.wake_all();
            if failed {
                return Err(self.previous_failure());
            }
            let Some(appender) = guard.as_mut() else { return Ok(()) };
            if appender.prepared.take().is_some() {
                let _ = self.storage.remove_file(&format!("{}/{}", self.dir, file_names::PREPARED));
            }
            let file = appender.writer.take_file();
            // What was never written to needs nothing: its files are as the last close left them.
            if file.is_none() && !appender.writer.segment().is_stale() {
                return Ok(());
            }
            appender.writer.seal();
            (Arc::clone(appender.writer.segment()), file, appender.writer.position(), appender.next_offset)
        };
        if let Some(file) = file {
            let path = segment.path();
            // A thread that prepares room writes to the file's end. From here on none begins to.
            drop(writer.preparing.lock());
            let len = file.len().map_err(Error::storage("look at", &path))?;
            debug_assert!(len >= u64::from(position), "{path} of {len} bytes ends before its batches, at {position}");
            if len > u64::from(position) {
                file.truncate(u64::from(position)).map_err(Error::storage("trim", &path))?;
            }
            if bug(Bug::MarkCleanBeforeFlush) {
                *writer.durable.lock() = DurablePoint { offset: end, base_offset: segment.base_offset, position };
            } else {
                self.flush_now()?;
            }
            debug_assert_eq!(writer.durable.lock().offset, end, "nothing is appended to a closed log");
        }
        let segments = self.segments.read().clone();
        for segment in segments.iter().rev().filter(|segment| segment.has_unwritten_indexes()) {
            // On a full disk there is no room for what can be rebuilt.
            if let Err(error) = segment.write_indexes(&self.pool) {
                tracing::debug!(log = %self.name, %error, "indexes were not written and will be rebuilt");
                break;
            }
        }
        self.write_text_files();
        Ok(())
    }

    /// Lets go of a log whose files are about to be deleted.
    pub(crate) fn abandon(&self) {
        let Ok(writer) = self.writer() else { return };
        let _no_flush = writer.pause_flushes();
        let mut guard = writer.appender.lock();
        self.state.store(state::CLOSED, Ordering::Release);
        *guard = None;
        self.segments.write().clear();
        *writer.durable.lock() = DurablePoint::default();
        drop(guard);
        self.keep_directory(None);
        self.wake.wake_all();
    }

    /// Ends the use of a log whose store is let go of. An append under way is done on return.
    pub(crate) fn let_go(&self) {
        self.state.store(state::CLOSED, Ordering::Release);
        if let Ok(writer) = self.writer() {
            drop(writer.appender.lock());
        }
        self.wake.wake_all();
    }

    /// Ends the use of an attached log.
    pub(crate) fn detach(&self) {
        if self.is_attached() {
            self.state.store(state::CLOSED, Ordering::Release);
        }
    }

    /// Kafka's text files next to the segments: derived from the checkpoint, for Kafka's tools and for people.
    fn write_text_files(&self) {
        let epochs = self.epochs.read().to_string();
        let metadata = format!("version: 0\ntopic_id: {}", self.id);
        for (name, text) in [(file_names::LEADER_EPOCH_CHECKPOINT, epochs), (file_names::PARTITION_METADATA, metadata)]
        {
            let path = format!("{}/{name}", self.dir);
            let written = replace(&*self.storage, &path, text.as_bytes(), Lasting::Process);
            if let Err(error) = written {
                tracing::debug!(log = %self.name, %error, path, "a derived file was not written");
            }
        }
    }
}
