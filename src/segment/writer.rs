//! The writer of the active segment: puts batches at its end, indexes them, and publishes its length.
//!
//! Room is allocated before it is written, so that a full disk is an error of the call that needs the room. The writer
//! reserves it in steps, ahead of need:
//!
//! 1. `position <= reserved`: a batch is written only where room is reserved, or where the file system cannot reserve.
//! 2. The segment's published length is `position`, and the file is at least as long.
//! 3. While `preparing`, another thread writes zeros behind `reserved`, and the writer never reserves there itself.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use edgelog_core::{LogConfig, NO_TIMESTAMP, OFFSET_MAX, Offset, Position, RollParams, SegmentIndexer, TimestampMs};

use super::{BufferPool, Segment};
use crate::canary::{Bug, bug};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::storage::{Access, StorageFile};

/// Room is reserved ahead of the writer in steps: an idle log costs a block; what is written to is given enough that
/// its file system's own pages are not written for every few records; then they double, to a call every 4 MiB.
const RESERVE_STEP_MIN: u32 = 4 << 10;
const RESERVE_STEP_SECOND: u32 = 64 << 10;
const RESERVE_STEP_MAX: u32 = 4 << 20;
/// What the file system cannot reserve has no end: every write may fail for lack of room, and then says so.
const UNBOUNDED: u32 = u32::MAX;
/// Batches from this size on are written by a system call also where the page cache is enough: so many pages are
/// faulted in one by one as dearly as the call copies them (measured on ext4 with prepared room: the border lies
/// between 64 and 256 KiB).
const MAP_STORE_BYTES_MAX: usize = 64 << 10;

/// What the writer says of a batch that wants to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The batch fits. Where `asks`, the room behind it gets scarce and more should be prepared.
    Reserved { asks: bool },
    /// The batch begins the next segment.
    NextSegment,
    /// More room is being prepared: the batch waits for it.
    Preparing,
}

/// Room that is reserved and prepared ahead of the writer.
#[derive(Debug)]
pub(crate) struct RoomAhead {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn StorageFile>,
    /// Behind what the writer has; empty where the segment has all its room, or no room can be reserved.
    pub(crate) room: Range<u32>,
    /// The writer stores through the map, faster than its pages come: the pages are prepared, too.
    pub(crate) stores: bool,
    /// Batches that the page cache has and the disk may lack, enough of them to have them written.
    pub(crate) unwritten: Range<u32>,
    /// The segment is three quarters full: its successor should be made ready.
    pub(crate) nearly_full: bool,
}

/// The writing end of the active segment.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    segment: Arc<Segment>,
    config: Arc<LogConfig>,
    /// Opened for the first batch, so that an idle log holds no descriptor.
    file: Option<Arc<dyn StorageFile>>,
    /// Where the next batch goes.
    position: Position,
    /// The file's bytes up to here are allocated; [`UNBOUNDED`] where the file system cannot reserve.
    reserved: u32,
    reserve_step: u32,
    /// More room behind `reserved` is being prepared, part by part.
    preparing: bool,
    /// More room was asked for and has not come yet.
    asked: bool,
    /// When room was given last, and where the segment ended then.
    given: (TimestampMs, Position),
    /// The last batch was stored through the map.
    stores: bool,
    /// The page cache was asked to write what lies before.
    written_back: Position,
    indexer: SegmentIndexer,
    /// Entries in the offset index and in the time index.
    index_entries: (u32, u32),
    /// When the segment was begun.
    created_ms: TimestampMs,
    /// Largest timestamp of the segment's first batch.
    first_timestamp: Option<TimestampMs>,
    clear: Clear,
}

/// What makes an append simple: a batch that stays inside these needs no look at anything else.
#[derive(Debug, Clone, Copy)]
struct Clear {
    position: Position,
    offset: Offset,
    timestamp: TimestampMs,
}

impl Clear {
    /// Every batch has to be looked at.
    const NOTHING: Clear = Clear { position: Position(0), offset: Offset(0), timestamp: TimestampMs::MIN };
}

impl SegmentWriter {
    /// The writer of the new segment behind this one, in whose file `reserved` bytes are allocated. It reserves in
    /// steps of this one's size: the log fills as fast as before.
    pub(crate) fn next(
        &self,
        segment: Arc<Segment>,
        file: Arc<dyn StorageFile>,
        reserved: u32,
        now: TimestampMs,
    ) -> SegmentWriter {
        let (reserve_step, stores) = (self.reserve_step, self.stores);
        let writer = SegmentWriter::idle(segment, Position(0), Arc::clone(&self.config), now);
        SegmentWriter { file: Some(file), reserved, reserve_step, stores, ..writer }
    }

    /// A writer that goes on at `position` of a segment that has batches up to there, and the offset behind the last of
    /// them; `None` where no batch ends there. Its indexes are in memory afterwards.
    pub(crate) fn resume(
        segment: &Arc<Segment>,
        position: Position,
        config: Arc<LogConfig>,
        now: TimestampMs,
        pool: &Arc<BufferPool>,
    ) -> Result<(SegmentWriter, Option<Offset>)> {
        let (indexer, index_entries, ends_at) = segment.resume_indexer(position, pool)?;
        let first_timestamp = segment.first_timestamp(position, pool);
        let writer = SegmentWriter::idle(Arc::clone(segment), position, config, now);
        Ok((SegmentWriter { indexer, index_entries, first_timestamp, ..writer }, ends_at))
    }

    fn idle(segment: Arc<Segment>, position: Position, config: Arc<LogConfig>, now: TimestampMs) -> SegmentWriter {
        SegmentWriter {
            indexer: SegmentIndexer::new(segment.base_offset, config.index_interval_bytes),
            segment,
            config,
            file: None,
            position,
            reserved: 0,
            reserve_step: RESERVE_STEP_MIN,
            preparing: false,
            asked: false,
            given: (now, Position(0)),
            stores: false,
            written_back: position,
            index_entries: (0, 0),
            created_ms: now,
            first_timestamp: None,
            clear: Clear::NOTHING,
        }
    }

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Where the next batch goes.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// `segment.bytes`: no batch is larger.
    pub(crate) fn segment_bytes(&self) -> u32 {
        self.config.segment_bytes
    }

    pub(crate) fn set_config(&mut self, config: Arc<LogConfig>) {
        self.config = config;
        self.clear = Clear::NOTHING;
    }

    /// Whether a batch of `size` bytes fits, as far as that shows without a look at the rules; if not,
    /// [`room_for`](SegmentWriter::room_for) looks.
    #[inline]
    pub(crate) fn has_room_for(&self, size: usize, last_offset: Offset, max_timestamp: TimestampMs) -> bool {
        self.position.0 as usize + size <= self.clear.position.0 as usize
            && last_offset <= self.clear.offset
            && max_timestamp <= self.clear.timestamp
    }

    /// Sees to allocated room for a batch of `size` bytes, or says where else it belongs.
    #[cold]
    pub(crate) fn room_for(
        &mut self,
        size: usize,
        last_offset: Offset,
        max_timestamp: TimestampMs,
        clock: &dyn Clock,
    ) -> Result<Room> {
        let params = RollParams {
            segment_bytes: self.config.segment_bytes,
            segment_ms: self.config.segment_ms,
            segment_index_bytes: self.config.segment_index_bytes,
            base_offset: self.segment.base_offset,
            size: self.position.0,
            created_ms: self.created_ms,
            first_batch_timestamp: self.first_timestamp.unwrap_or(NO_TIMESTAMP),
            offset_index_entries: self.index_entries.0,
            time_index_entries: self.index_entries.1,
            batch_size: size as u32,
            batch_last_offset: last_offset,
            batch_max_timestamp: max_timestamp,
            now: if self.first_timestamp == Some(NO_TIMESTAMP) { clock.now() } else { NO_TIMESTAMP },
        };
        if params.should_roll().is_some() {
            return Ok(Room::NextSegment);
        }
        let end = self.position.0 as usize + size;
        if end <= self.reserved as usize {
            let asks = !self.asked && self.reserved - (end as u32) < ask_below(self.reserve_step);
            self.asked |= asks;
            self.clear = self.clear_ahead();
            return Ok(Room::Reserved { asks });
        }
        if self.preparing {
            return Ok(Room::Preparing);
        }
        self.reserve(end).map(|()| Room::Reserved { asks: false })
    }

    /// As far as no rule of [`RollParams`] can speak up, room is there, and none need be asked for. Holds until an
    /// index grows, the configuration changes, or room is given back.
    fn clear_ahead(&self) -> Clear {
        // Without timestamps the wall clock counts: that has to be looked at each time.
        let Some(first) = self.first_timestamp.filter(|&first| first >= 0) else { return Clear::NOTHING };
        let asking = if self.asked { 0 } else { ask_below(self.reserve_step) };
        Clear {
            position: Position(self.reserved.saturating_sub(asking).min(self.config.segment_bytes)),
            offset: self.segment.base_offset.saturating_add(i64::from(i32::MAX)).min(OFFSET_MAX - 1),
            timestamp: first.saturating_add(self.config.segment_ms),
        }
    }

    /// Reserves up to `end` and a step ahead, or up to `end` alone where there is not that much room.
    fn reserve(&mut self, end: usize) -> Result<()> {
        let path = self.segment.path();
        let file = self.open(&path)?;
        let max = self.config.segment_bytes as usize;
        let generous = self.reserve_target(end);
        let reserved = match file.reserve(generous as u64) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                let least = end.next_multiple_of(RESERVE_STEP_MIN as usize).min(max.max(end));
                file.reserve(least as u64).map(|()| least)
            }
            other => other.map(|()| generous),
        };
        self.reserved = match reserved {
            Ok(reserved) => reserved as u32,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => UNBOUNDED,
            Err(error) => return Err(Error::storage("reserve room in", &path)(error)),
        };
        Ok(())
    }

    fn open(&mut self, path: &str) -> Result<Arc<dyn StorageFile>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = self.segment.storage.open(path, Access::Write).map_err(Error::storage("open", path))?;
        debug_assert!(file.len().map_or(true, |len| len >= u64::from(self.position)), "{path} ends before its batches");
        // What the last close wrote is short from here on, and would still pass for whole after a crash.
        self.segment.remove_index_files();
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// How far to reserve so that `end` is covered, and raises the next step.
    fn reserve_target(&mut self, end: usize) -> usize {
        let step = self.reserve_step.clamp(RESERVE_STEP_MIN, RESERVE_STEP_MAX);
        self.reserve_step = step.saturating_mul(2).clamp(RESERVE_STEP_SECOND, RESERVE_STEP_MAX);
        let target = end.next_multiple_of(RESERVE_STEP_MIN as usize) + (step - RESERVE_STEP_MIN) as usize;
        // Never beyond what the segment can hold, but always what this batch needs.
        target.min(self.config.segment_bytes as usize).max(end)
    }

    /// Puts a batch at the end, for which there is room, indexes it and publishes the segment's new length. Where
    /// `in_cache`, the page cache is all that it has to reach.
    ///
    /// # Errors
    /// Those of the file: any part of the batch may then stand behind the end, which is where it was.
    #[inline]
    pub(crate) fn append(
        &mut self,
        batch: &[u8],
        last_offset: Offset,
        max_timestamp: TimestampMs,
        in_cache: bool,
    ) -> io::Result<()> {
        let (position, end) = (self.position, self.position + batch.len() as u32);
        debug_assert!(end <= self.reserved, "a batch of {} bytes at {position} of {}", batch.len(), self.reserved);
        debug_assert_eq!(self.segment.len().ok(), Some(position), "what is published is what was written");
        let file = self.file.as_ref().expect("room was made in it");
        if bug(Bug::PublishBeforeCopy) {
            self.segment.publish(end);
        }
        self.stores = in_cache && batch.len() <= MAP_STORE_BYTES_MAX;
        if self.stores {
            file.store_at(batch, u64::from(position))?;
        } else {
            file.write_at(batch, u64::from(position))?;
        }
        if let Some((entry, time)) = self.indexer.on_batch(position, last_offset, max_timestamp) {
            self.segment.push_index_entries(entry, time);
            self.index_entries.0 += 1;
            self.index_entries.1 += u32::from(time.is_some());
            self.clear = Clear::NOTHING;
        }
        if self.first_timestamp.is_none() {
            self.first_timestamp = Some(max_timestamp);
        }
        self.position = end;
        self.segment.publish_batch(end, max_timestamp);
        Ok(())
    }

    /// Ends the file at the last batch: a write that failed may have left something behind it.
    pub(crate) fn cut_behind_the_end(&mut self) -> Result<()> {
        let path = self.segment.path();
        let file = self.file.as_ref().expect("it was written to");
        file.truncate(u64::from(self.position)).map_err(Error::storage("cut", &path))?;
        self.reserved = self.position.0;
        self.reserve_step = RESERVE_STEP_MIN;
        self.preparing = false;
        self.clear = Clear::NOTHING;
        Ok(())
    }

    /// Adds the last time index entry: nothing will be appended here any more.
    pub(crate) fn seal(&mut self) {
        self.segment.seal(&mut self.indexer);
    }

    /// The file, where anything was written to the segment since it was opened.
    pub(crate) fn file(&self) -> Option<&Arc<dyn StorageFile>> {
        self.file.as_ref()
    }

    /// The file, where anything was written to the segment since it was opened. The writer has none afterwards.
    pub(crate) fn take_file(&mut self) -> Option<Arc<dyn StorageFile>> {
        self.file.take()
    }
}

/// Room that is prepared ahead of the writer, by a thread that calls these under the append lock and works outside of
/// it.
impl SegmentWriter {
    /// The room that was asked for; `None` where none was.
    pub(crate) fn room_ahead(&mut self, now: TimestampMs) -> Option<RoomAhead> {
        let file = self.file.clone().filter(|_| self.asked)?;
        let target = self.reserve_target(self.reserved as usize) as u32;
        // In a segment that has all its room there is nothing to ask for until the next one.
        self.asked = target <= self.reserved;
        // Prepared room is dirty: zeros that a flush writes for nothing. It pays where a map is filled faster than
        // its pages come, and nowhere else.
        let stores = self.stores && self.fills(target.saturating_sub(self.reserved), now);
        let nearly_full = self.position.0 / 3 >= self.config.segment_bytes / 4;
        let end = if self.reserved == UNBOUNDED { self.reserved } else { target.max(self.reserved) };
        // What is flushed by itself needs no help, and would leave the cache, where readers look for it.
        let written = if self.stores { self.position.0 & !(RESERVE_STEP_MAX - 1) } else { 0 };
        let unwritten = self.written_back.0..self.written_back.0.max(written);
        self.written_back = Position(unwritten.end);
        let room = self.reserved..end;
        Some(RoomAhead { segment: Arc::clone(&self.segment), file, room, stores, unwritten, nearly_full })
    }

    /// Whether, at the pace since room was given last, `room` bytes are filled in a moment. Room is given now.
    fn fills(&mut self, room: u32, now: TimestampMs) -> bool {
        const MOMENT_MS: i64 = 200;
        let (since, from) = std::mem::replace(&mut self.given, (now, self.position));
        // A clock that was set meanwhile says nothing. One tick of it is the least.
        let waited = now.saturating_since(since).max(1);
        let filled = i64::from(self.position.saturating_since(from));
        waited.saturating_mul(i64::from(room)) <= filled.saturating_mul(MOMENT_MS)
    }

    /// Moves the end of the writer's room from `at` to `to`, a part of `room`. `false` where the writer went on by
    /// itself, to room of its own.
    pub(crate) fn take_room(&mut self, at: u32, to: u32, room: &Range<u32>) -> bool {
        let waits_for_it = self.reserved == at && (at == room.start || self.preparing);
        if waits_for_it {
            self.reserved = to;
            self.preparing = to < room.end;
        }
        waits_for_it
    }

    /// The end of the writer's room.
    pub(crate) fn reserved(&self) -> u32 {
        self.reserved
    }

    /// Nothing came of the room that was being prepared: the writer sees to itself.
    pub(crate) fn give_up_prepared_room(&mut self) {
        self.preparing = false;
    }
}

/// How much room is left when more is asked for: half of what was reserved last, or a whole step for a busy log.
#[inline]
fn ask_below(next_step: u32) -> u32 {
    match next_step {
        RESERVE_STEP_MAX => RESERVE_STEP_MAX,
        RESERVE_STEP_SECOND => RESERVE_STEP_MIN / 4,
        _ => next_step / 4,
    }
}
