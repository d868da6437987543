//! Room for a writer that asked for it, reserved and prepared by housekeeping at the same time, and the file of the
//! segment that comes next.

use std::sync::Arc;

use edgelog_core::TimestampMs;

use super::role::Writer;
use super::shared::{LogShared, state};
use crate::error::{Error, Result};
use crate::segment::{RoomAhead, file_names};
use crate::storage::{Access, remove_if_there};
use crate::sync::Ordering;

/// Room is prepared in parts of this size: an appender that waits for one waits some 50 us.
const PREPARED_BYTES: u32 = 256 << 10;

impl LogShared {
    /// Makes room ahead of a writer that asked for it, outside the append lock, and the next segment when
    /// this one is three quarters full.
    pub(crate) fn prepare_room(&self) -> Result<()> {
        let Ok(writer) = self.writer() else { return Ok(()) };
        let Some((ahead, segment_bytes, has_next)) = self.room_ahead(writer, self.clock.now()) else { return Ok(()) };
        if !ahead.room.is_empty() && ahead.file.reserve(u64::from(ahead.room.end)).is_ok() {
            self.hand_over_room(writer, &ahead);
        }
        // Early, so that a flush finds little left to do, and those who wait for it wait for little.
        if !ahead.unwritten.is_empty() {
            ahead.file.start_write_back(u64::from(ahead.unwritten.start)..u64::from(ahead.unwritten.end));
        }
        if !has_next && ahead.nearly_full {
            self.prepare_next_segment(writer, segment_bytes, ahead.stores)?;
        }
        Ok(())
    }

    /// What the writer asks for, `segment.bytes`, and whether the next segment's file is there already.
    fn room_ahead(&self, writer: &Writer, now: TimestampMs) -> Option<(RoomAhead, u32, bool)> {
        let mut guard = writer.appender.lock();
        let appender = guard.as_mut()?;
        if self.state.load(Ordering::Acquire) != state::WRITABLE {
            return None;
        }
        let ahead = appender.writer.room_ahead(now)?;
        Some((ahead, appender.writer.segment_bytes(), appender.prepared.is_some()))
    }

    /// Gives reserved room to the writer, a part at a time; where it stores, prepared. The writer stays behind what it
    /// was given, and an appender waits for the next part where it comes that far.
    fn hand_over_room(&self, writer: &Writer, ahead: &RoomAhead) {
        let RoomAhead { segment, file, room, stores, .. } = ahead;
        // Moves the end of the writer's room from `at`; not where it went on by itself, to room of its own.
        let give = |at: u32, to: u32| {
            let mut guard = writer.appender.lock();
            let active = guard.as_mut().map(|appender| &mut appender.writer);
            let Some(active) = active.filter(|active| Arc::ptr_eq(active.segment(), segment)) else {
                // Sealed meanwhile, and perhaps trimmed already: the room goes back.
                segment.set_untrimmed();
                return false;
            };
            self.state.load(Ordering::Acquire) == state::WRITABLE && active.take_room(at, to, room)
        };
        let mut at = room.start;
        while at < room.end {
            let _preparing = writer.preparing.lock();
            let end = if *stores { room.end.min(at + PREPARED_BYTES) } else { room.end };
            if !give(at, at) {
                return;
            }
            if *stores {
                file.prepare(u64::from(at)..u64::from(end));
            }
            if !give(at, end) {
                return;
            }
            at = end;
        }
    }

    /// Creates and reserves the file of the next segment under a name of its own.
    fn prepare_next_segment(&self, writer: &Writer, segment_bytes: u32, stores: bool) -> Result<()> {
        const FIRST_ROOM_MAX: u32 = 4 << 20;
        let path = format!("{}/{}", self.dir, file_names::PREPARED);
        remove_if_there(&*self.storage, &path).map_err(Error::storage("replace", &path))?;
        let file = self.storage.open(&path, Access::CreateNew).map_err(Error::storage("create", &path))?;
        let room = segment_bytes.min(FIRST_ROOM_MAX);
        if file.reserve(u64::from(room)).is_err() {
            // No room ahead of need is no error: the append that needs it reports the error.
            let _ = self.storage.remove_file(&path);
            return Ok(());
        }
        if stores {
            file.prepare(0..u64::from(room));
        }
        if let Some(appender) = writer.appender.lock().as_mut() {
            appender.prepared = Some((file, room));
        }
        Ok(())
    }
}
