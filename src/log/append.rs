//! The append path, top to bottom: encode (outside the lock), see to room, assign offsets and epoch, let the segment's
//! writer append, publish, wake, wait for the flush.

use std::io;
use std::sync::Arc;

use edgelog_core::limits::UNFLUSHED_SEGMENTS_MAX;
use edgelog_core::{
    CompressionType, DecodeError, LEADER_EPOCH_MAX, LeaderEpoch, NO_TIMESTAMP, OFFSET_MAX, Offset, OffsetAndEpoch,
    Position, RecordBatch, TimestampMs, stamp_base, stamp_max_timestamp,
};

use super::batch_builder::BatchBuilder;
use super::encode::{Outcome, with_scratch};
use super::handle::Log;
use super::recovery::free_name;
use super::role::{Appender, Writer};
use super::shared::{LogShared, state};
use super::types::{AppendInfo, Durability, NewRecord};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::events;
use crate::segment::{Room, Segment, file_names};
use crate::storage::{Access, StorageFile};
use crate::sync::{MutexGuard, Ordering};

/// Where a batch was placed: its base offset and leader epoch, and whether readers may see more.
type Placed = (Offset, LeaderEpoch, bool);

/// When the records of a batch are acknowledged, and so shown to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Acknowledged {
    /// When they are in the page cache; with whether they may stay there for as long as the kernel likes.
    AtOnce { only_cached: bool },
    /// When they are flushed, for which the appender waits.
    ByOwnFlush,
    /// When they are flushed, which is not the appender's to do.
    AfterAFlush,
}

impl Acknowledged {
    #[inline]
    fn at(durability: Durability) -> Acknowledged {
        match durability {
            Durability::Sync => Acknowledged::ByOwnFlush,
            Durability::Interval => Acknowledged::AtOnce { only_cached: false },
            Durability::Os => Acknowledged::AtOnce { only_cached: true },
        }
    }
}

impl Log {
    /// Appends one record at the log's own durability and returns where it stands.
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`]; [`Error::OffsetsUsedUp`] behind the greatest offset; [`Error::Storage`] where
    /// there is no room (nothing was appended, try again when there is); [`Error::LogFailed`] where its write or flush
    /// failed, [`Error::PreviousIo`] where an earlier one did; [`Error::FencedLeaderEpoch`] where another thread
    /// truncated the record before it was durable; [`Error::Closed`], [`Error::ReadOnly`], [`Error::Forked`]. After
    /// any error but those about the record, the record may still be found when the log is reopened.
    ///
    /// # Durability
    /// With `flush.messages=1` (the default) the record is on the disk when this returns.
    ///
    /// # Concurrency
    /// Any thread; appends of several threads share one flush.
    #[inline]
    pub fn append(&self, record: NewRecord<'_>) -> Result<AppendInfo> {
        self.append_with(record, self.shared.default_durability())
    }

    /// Appends one record at the given durability. See [`append`](Log::append).
    ///
    /// # Errors
    /// As [`append`](Log::append).
    #[inline]
    pub fn append_with(&self, record: NewRecord<'_>, durability: Durability) -> Result<AppendInfo> {
        let log = &*self.shared;
        let timestamp = record.timestamp.unwrap_or_else(|| log.clock.now());
        let outcome = with_scratch(|scratch| {
            let batch = log.encode(scratch, timestamp, &record)?;
            log.append_batch_bytes(batch, 0, timestamp, durability)
        });
        outcome.map_err(|error| *error)
    }

    /// An empty batch of records for this log, to be filled and appended again and again without allocating.
    pub fn batch(&self) -> BatchBuilder {
        let bytes_max = self.shared.hot.batch_bytes_max.load(Ordering::Relaxed) as usize;
        BatchBuilder::new(bytes_max, Arc::clone(&self.shared.clock))
    }

    /// Appends the records of `batch` as one record batch, compressed as `compression.type` says, at the
    /// log's own durability, and empties `batch`. All of them are in the log or none.
    ///
    /// An empty batch appends nothing and answers where the next record would go.
    ///
    /// # Errors
    /// As [`append`](Log::append), and `batch` keeps its records.
    #[inline]
    pub fn append_batch(&self, batch: &mut BatchBuilder) -> Result<AppendInfo> {
        self.append_batch_with(batch, self.shared.default_durability())
    }

    /// Appends a batch at the given durability. See [`append_batch`](Log::append_batch).
    ///
    /// # Errors
    /// As [`append_batch`](Log::append_batch).
    #[inline]
    pub fn append_batch_with(&self, batch: &mut BatchBuilder, durability: Durability) -> Result<AppendInfo> {
        let log = &*self.shared;
        let Some(last_offset_delta) = batch.finish() else {
            let next = log.log_end_offset.load(Ordering::Acquire);
            return Ok(AppendInfo {
                base_offset: next,
                last_offset: next - 1,
                leader_epoch: self.leader_epoch(),
                max_timestamp: NO_TIMESTAMP,
            });
        };
        let max_timestamp = batch.max_timestamp();
        let info: Outcome<AppendInfo> = with_scratch(|scratch| {
            let bytes = log.compress(batch.bytes(), &mut scratch.compressed)?;
            log.append_batch_bytes(bytes, last_offset_delta, max_timestamp, durability)
        });
        let info = info.map_err(|error| *error)?;
        batch.clear();
        Ok(info)
    }

    /// Appends a batch for a producer: compressed with `codec`, or as the log says where there is none, and with `Sync`
    /// *not* flushed. Its records stay hidden from readers up to the high watermark until
    /// [`flush_up_to`](Log::flush_up_to) has made them durable, which is the caller's to call: so one flush serves all
    /// batches before it. The batch has to hold a record, and keeps them; the appender clears it.
    ///
    /// # Errors
    /// As [`append_batch`](Log::append_batch).
    #[inline]
    pub(crate) fn append_for_producer(
        &self,
        batch: &mut BatchBuilder,
        codec: Option<CompressionType>,
        durability: Durability,
    ) -> Result<AppendInfo> {
        let log = &*self.shared;
        let last_offset_delta = batch.finish().expect("a producer's batch holds a record");
        let max_timestamp = batch.max_timestamp();
        let codec = codec.unwrap_or_else(|| log.compression());
        let info: Outcome<AppendInfo> = with_scratch(|scratch| {
            let bytes = log.compress_with(codec, batch.bytes(), &mut scratch.compressed)?;
            if durability == Durability::Sync {
                log.put_batch(bytes, last_offset_delta, max_timestamp, Acknowledged::AfterAFlush)
            } else {
                log.append_batch_bytes(bytes, last_offset_delta, max_timestamp, durability)
            }
        });
        info.map_err(|error| *error)
    }

    /// Whether what was appended there was not truncated since.
    pub(crate) fn is_still_there(&self, info: &AppendInfo) -> bool {
        self.shared.check_epoch(end_of(info)).is_ok()
    }

    /// The most bytes that a batch of this log may have now: `max.message.bytes`.
    #[inline]
    pub(crate) fn batch_bytes_max(&self) -> usize {
        self.shared.hot.batch_bytes_max.load(Ordering::Relaxed) as usize
    }

    /// [`Error::Closed`] where the store was closed or the topic deleted, [`Error::Forked`] in a child.
    #[inline]
    pub(crate) fn check_alive(&self) -> Result<()> {
        self.shared.check_alive()
    }

    /// Appends one record batch that was encoded elsewhere (Kafka's format, magic 2). Base offset and leader epoch,
    /// which its CRC does not cover, are set here. The records' bytes stay as they are.
    ///
    /// The max timestamp becomes the greatest timestamp of the records, as a broker sets it: some producers leave 0 or
    /// -1 in the header, and searches by time and retention rely on it. Where that changes the header, the CRC is
    /// computed again.
    ///
    /// # Errors
    /// [`Error::InvalidRecord`] where the batch is not valid, its CRC included, or its offsets have holes;
    /// [`Error::Compression`] where its payload does not decompress, or to more than
    /// `edgelog.decompressed.bytes.max`; else as [`append`](Log::append).
    pub fn append_encoded(&self, batch: &[u8], durability: Durability) -> Result<AppendInfo> {
        let view = RecordBatch::parse(batch).map_err(Error::InvalidRecord)?;
        view.verify_crc().map_err(Error::InvalidRecord)?;
        if view.size() != batch.len() {
            let error = DecodeError::Truncated { needed: batch.len(), available: view.size() };
            return Err(Error::InvalidRecord(error));
        }
        if view.record_count() != view.last_offset_delta() + 1 || view.is_control() {
            let error = DecodeError::NotContiguous {
                expected: Offset(i64::from(view.record_count()) - 1),
                found: Offset(i64::from(view.last_offset_delta())),
            };
            return Err(Error::InvalidRecord(error));
        }
        let max_timestamp = self.shared.check_records(&view)?;
        let (last_offset_delta, claimed) = (view.last_offset_delta(), view.max_timestamp());
        let outcome = with_scratch(|scratch| {
            scratch.encoded.clear();
            scratch.encoded.extend_from_slice(batch);
            if max_timestamp != claimed {
                stamp_max_timestamp(&mut scratch.encoded, max_timestamp);
            }
            self.shared.append_batch_bytes(&mut scratch.encoded, last_offset_delta, max_timestamp, durability)
        });
        outcome.map_err(|error| *error)
    }
}

impl LogShared {
    /// Appends an encoded batch: the part that appenders do one at a time, and then the wait for its flush.
    #[inline]
    fn append_batch_bytes(
        &self,
        batch: &mut [u8],
        last_offset_delta: i32,
        max_timestamp: TimestampMs,
        durability: Durability,
    ) -> Outcome<AppendInfo> {
        let info = self.put_batch(batch, last_offset_delta, max_timestamp, Acknowledged::at(durability))?;
        if durability == Durability::Sync {
            self.flush_appended(&info)?;
        } else {
            let writer = self.writer()?;
            if durability == Durability::Interval && writer.interval_since.load(Ordering::Relaxed) == 0 {
                writer.interval_since.store(self.clock.now().max(TimestampMs(1)).0, Ordering::Release);
                if let Some(host) = self.host.upgrade() {
                    host.wake_housekeeping();
                }
            }
            // Kafka's count of records between flushes. One of 1 is `Sync`, and an append that chose less meant it.
            let flush_messages = self.hot.flush_messages.load(Ordering::Relaxed);
            let unflushed = info.last_offset + 1 - self.recovery_point.load(Ordering::Relaxed);
            if flush_messages > 1 && unflushed >= flush_messages {
                self.flush_appended(&info)?;
            }
        }
        Ok(info)
    }

    /// Returns once what was appended is durable.
    ///
    /// # Errors
    /// [`Error::FencedLeaderEpoch`] where a truncation took it before: its epoch has ended, and others may have its
    /// offsets. Those of a flush.
    fn flush_appended(&self, info: &AppendInfo) -> Result<()> {
        self.flush_until(info.last_offset + 1)?;
        self.check_epoch(end_of(info))
    }

    /// The part of an append that appenders do one at a time.
    #[inline]
    fn put_batch(
        &self,
        batch: &mut [u8],
        last_offset_delta: i32,
        max_timestamp: TimestampMs,
        acknowledged: Acknowledged,
    ) -> Outcome<AppendInfo> {
        let writer = self.appending()?;
        let max = self.hot.batch_bytes_max.load(Ordering::Relaxed) as usize;
        if batch.len() > max {
            return Err(Error::RecordTooLarge { given: batch.len(), max }.into());
        }
        let mut guard = writer.appender.lock();
        let ready = guard.as_mut().filter(|appender| {
            let last_offset = appender.last_offset(last_offset_delta);
            self.state.load(Ordering::Relaxed) == state::WRITABLE
                && appender.writer.has_room_for(batch.len(), last_offset, max_timestamp)
        });
        let (base_offset, leader_epoch, moved) = if let Some(appender) = ready {
            match self.place(writer, appender, batch, last_offset_delta, max_timestamp, acknowledged) {
                Ok(placed) => {
                    drop(guard);
                    placed
                }
                Err(error) => return Err(self.write_failed(guard, error).into()),
            }
        } else {
            self.place_slowly(writer, guard, batch, last_offset_delta, max_timestamp, acknowledged)?
        };
        let last_offset = base_offset + i64::from(last_offset_delta);
        if moved {
            self.wake.wake_all();
        }
        Ok(AppendInfo { base_offset, last_offset, leader_epoch, max_timestamp })
    }

    /// Places a batch for which the log, or room in it, has to be seen to first.
    #[cold]
    #[inline(never)]
    fn place_slowly(
        &self,
        writer: &Writer,
        guard: MutexGuard<'_, Option<Appender>>,
        batch: &mut [u8],
        last_offset_delta: i32,
        max_timestamp: TimestampMs,
        acknowledged: Acknowledged,
    ) -> Outcome<Placed> {
        let _events = events::hold();
        // Dropped before the hold, which emits its events then.
        let mut guard = guard;
        if self.state.load(Ordering::Relaxed) != state::WRITABLE {
            self.attend(&mut guard)?;
        }
        self.make_room(writer, &mut guard, batch.len(), last_offset_delta, max_timestamp)?;
        let appender = guard.as_mut().ok_or(Error::Closed)?;
        match self.place(writer, appender, batch, last_offset_delta, max_timestamp, acknowledged) {
            Ok(placed) => Ok(placed),
            Err(error) => Err(self.write_failed(guard, error).into()),
        }
    }

    /// Puts the batch at the end and publishes it.
    #[inline]
    fn place(
        &self,
        writer: &Writer,
        appender: &mut Appender,
        batch: &mut [u8],
        last_offset_delta: i32,
        max_timestamp: TimestampMs,
        acknowledged: Acknowledged,
    ) -> io::Result<Placed> {
        let (base_offset, leader_epoch) = (appender.next_offset, appender.epoch);
        let last_offset = base_offset + i64::from(last_offset_delta);
        stamp_base(batch, base_offset, leader_epoch);
        debug_assert!(
            reads_back(batch, base_offset, leader_epoch, last_offset),
            "{}: what is written at {base_offset} is what a reader takes there",
            self.name
        );
        if bug(Bug::PublishBeforeCopy) {
            self.log_end_offset.store(last_offset + 1, Ordering::Release);
        }
        let only_cached = acknowledged == Acknowledged::AtOnce { only_cached: true };
        appender.writer.append(batch, last_offset, max_timestamp, only_cached)?;
        appender.next_offset = last_offset + 1;
        self.log_end_offset.store(appender.next_offset, Ordering::Release);
        if !matches!(acknowledged, Acknowledged::AtOnce { .. }) {
            appender.sync_pending_from.get_or_insert(base_offset);
            appender.sync_pending_end = appender.next_offset;
            // Those who wait for a flush, for the next leader to wait for them: a producer's batch is no such one.
            if acknowledged == Acknowledged::ByOwnFlush {
                writer.sync_appends.fetch_add(1, Ordering::Relaxed);
            }
        }
        let moved = appender.sync_pending_from.is_none() || bug(Bug::ShowBeforeFlush);
        if moved {
            self.high_watermark.store(appender.next_offset, Ordering::Release);
        }
        Ok((base_offset, leader_epoch, moved))
    }

    /// What a failed write means: no room is an error that passes, anything else makes the log read-only.
    #[cold]
    fn write_failed(&self, guard: MutexGuard<'_, Option<Appender>>, error: io::Error) -> Error {
        let _events = events::hold();
        // Dropped before the hold, which emits its events then.
        let mut guard = guard;
        let Some(appender) = guard.as_mut() else { return Error::Closed };
        let path = appender.writer.segment().path();
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            appender.torn = true;
            self.state.store(state::ATTEND, Ordering::Release);
        } else {
            self.fail(&format!("write {path}: {error}"));
        }
        Error::storage("write", &path)(error)
    }

    /// The slow path of a log that is not simply writable.
    #[cold]
    fn attend(&self, guard: &mut MutexGuard<'_, Option<Appender>>) -> Result<()> {
        match self.state.load(Ordering::Acquire) {
            state::FAILED => return Err(self.previous_failure()),
            state::CLOSED => return Err(Error::Closed),
            _ => {}
        }
        let host = self.host()?;
        host.allow_writing()?;
        if let Some(appender) = guard.as_mut().filter(|appender| appender.torn) {
            self.fence_torn_tail(appender)?;
        }
        self.state.store(state::WRITABLE, Ordering::Release);
        Ok(())
    }

    /// Raises the epoch, durably, over what a failed write may have left behind the end, and cuts that off:
    /// were the next batch to be lost in a crash, the debris must not pass for it.
    pub(super) fn fence_torn_tail(&self, appender: &mut Appender) -> Result<()> {
        let raised = self.epoch_after(appender.epoch)?;
        let epoch = if bug(Bug::SkipTornTailFence) { appender.epoch } else { raised };
        let before = self.epochs.read().clone();
        self.epochs.write().assign(epoch, appender.next_offset);
        if let Err(error) = self.host()?.checkpoint() {
            // An epoch that a power cut could give out once more is not reported.
            *self.epochs.write() = before;
            return Err(error);
        }
        appender.epoch = epoch;
        appender.writer.cut_behind_the_end()?;
        appender.torn = false;
        Ok(())
    }

    /// The leader epoch behind `epoch`.
    ///
    /// # Errors
    /// Behind the greatest one that a checkpoint says there is none: nothing is written in it.
    pub(super) fn epoch_after(&self, epoch: LeaderEpoch) -> Result<LeaderEpoch> {
        if epoch < LEADER_EPOCH_MAX {
            return Ok(epoch + 1);
        }
        let reason = format!("it is {LEADER_EPOCH_MAX}, the greatest; its records can be copied to another topic");
        Err(Error::storage("raise the leader epoch of", &self.dir)(io::Error::other(reason)))
    }

    /// Sees to a segment that the batch fits into and to allocated room for it.
    #[cold]
    fn make_room(
        &self,
        writer: &Writer,
        guard: &mut MutexGuard<'_, Option<Appender>>,
        size: usize,
        last_offset_delta: i32,
        max_timestamp: TimestampMs,
    ) -> Result<()> {
        loop {
            let appender = guard.as_mut().ok_or(Error::Closed)?;
            let max = appender.writer.segment_bytes() as usize;
            if size > max {
                return Err(Error::RecordBatchTooLarge { given: size, max });
            }
            let reserved = appender.writer.reserved();
            let last_offset = appender.last_offset(last_offset_delta);
            if last_offset >= OFFSET_MAX {
                let (records, next_offset) = (last_offset_delta as u32 + 1, appender.next_offset);
                return Err(Error::OffsetsUsedUp { records, next_offset, max: OFFSET_MAX - 1 });
            }
            match appender.writer.room_for(size, last_offset, max_timestamp, &*self.clock)? {
                Room::Reserved { asks } => {
                    if let (true, Some(host)) = (asks, self.host.upgrade()) {
                        host.wake_housekeeping();
                    }
                    let is_more = asks || appender.writer.reserved() != reserved;
                    if !(is_more && self.wait_for_flush(writer, guard, false)?) {
                        return Ok(());
                    }
                }
                Room::NextSegment => self.roll(writer, guard)?,
                Room::Preparing => self.wait_for_prepared_room(writer, guard)?,
            }
        }
    }

    /// Waits for the part of the room that is being prepared; the lock is given up meanwhile.
    #[cold]
    fn wait_for_prepared_room(&self, writer: &Writer, guard: &mut MutexGuard<'_, Option<Appender>>) -> Result<()> {
        let room = |guard: &MutexGuard<'_, Option<Appender>>| guard.as_ref().map(|appender| appender.writer.reserved());
        let before = room(guard);
        MutexGuard::unlocked(guard, || drop(writer.preparing.lock()));
        if room(guard) == before {
            // Nothing came of it: the appender sees to itself.
            if let Some(appender) = guard.as_mut() {
                appender.writer.give_up_prepared_room();
            }
        }
        if self.state.load(Ordering::Acquire) == state::WRITABLE { Ok(()) } else { self.attend(guard) }
    }

    /// Waits where too much is unflushed to go on: so an open has not much to look at, and nothing to write again for
    /// long. Whether it did; the lock was given up then.
    fn wait_for_flush(
        &self,
        writer: &Writer,
        guard: &mut MutexGuard<'_, Option<Appender>>,
        rolls: bool,
    ) -> Result<bool> {
        let next_offset = guard.as_ref().ok_or(Error::Closed)?.next_offset;
        let unflushed = self.unflushed(writer);
        let is_too_much =
            unflushed.bytes > self.unflushed_bytes_max || (rolls && unflushed.segments > UNFLUSHED_SEGMENTS_MAX);
        // One sealed segment may wait to be flushed, however large it is.
        if !is_too_much || (rolls && unflushed.segments < 2) {
            return Ok(false);
        }
        let target = unflushed.first_end.unwrap_or(next_offset);
        MutexGuard::unlocked(guard, || self.flush_until(target))?;
        if self.state.load(Ordering::Acquire) != state::WRITABLE {
            self.attend(guard)?;
        }
        Ok(true)
    }

    /// Seals the active segment and begins the next one. The lock may be given up meanwhile: look again
    /// afterwards.
    #[cold]
    fn roll(&self, writer: &Writer, guard: &mut MutexGuard<'_, Option<Appender>>) -> Result<()> {
        if self.wait_for_flush(writer, guard, true)? {
            return Ok(());
        }
        let appender = guard.as_mut().ok_or(Error::Closed)?;
        let base_offset = appender.next_offset;
        let (file, reserved) = self.next_segment_file(appender, base_offset)?;
        writer.names_dirty.store(true, Ordering::Release);
        appender.writer.seal();
        let options = self.segment_options();
        let segment = Segment::on_file(&self.storage, &self.dir, options, base_offset, Arc::clone(&file), Position(0));
        let segment = Arc::new(segment);
        let mut segments = self.segments.write();
        debug_assert!(segments.last().is_some_and(|last| last.base_offset < base_offset), "rolled to {base_offset}");
        segments.push(Arc::clone(&segment));
        drop(segments);
        appender.writer = appender.writer.next(segment, file, reserved, self.clock.now());
        let name = self.name.clone();
        events::emit(move || tracing::debug!(log = %name, base_offset = base_offset.0, "rolled"));
        if let Some(host) = self.host.upgrade() {
            host.wake_housekeeping();
        }
        Ok(())
    }

    /// The file of the segment that begins at `base_offset`: the one made ready, under its real name now, or
    /// a new one.
    fn next_segment_file(&self, appender: &mut Appender, base_offset: Offset) -> Result<(Arc<dyn StorageFile>, u32)> {
        let path = file_names::log_file(&self.dir, base_offset);
        free_name(&*self.storage, &self.dir, base_offset, appender.epoch)?;
        if let Some((file, reserved)) = appender.prepared.take() {
            let prepared = format!("{}/{}", self.dir, file_names::PREPARED);
            match self.storage.rename(&prepared, &path) {
                Ok(()) => return Ok((file, reserved)),
                Err(error) => {
                    let name = self.name.clone();
                    events::emit(
                        move || tracing::warn!(log = %name, %error, "the segment made ready could not be used"),
                    );
                }
            }
        }
        let file = self.storage.open(&path, Access::CreateNew).map_err(Error::storage("create", &path))?;
        Ok((file, 0))
    }
}

/// Where a reader goes on behind what was appended.
fn end_of(info: &AppendInfo) -> OffsetAndEpoch {
    OffsetAndEpoch { offset: info.last_offset + 1, leader_epoch: info.leader_epoch }
}

/// Whether a reader takes `batch` for the one that stands at `base_offset`: what every write is held to.
fn reads_back(batch: &[u8], base_offset: Offset, epoch: LeaderEpoch, last_offset: Offset) -> bool {
    RecordBatch::parse(batch).is_ok_and(|read| {
        read.size() == batch.len()
            && read.verify_crc().is_ok()
            && (read.base_offset(), read.partition_leader_epoch()) == (base_offset, epoch)
            && (read.last_offset(), read.is_whole()) == (last_offset, true)
    })
}
