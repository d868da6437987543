//! The append path, top to bottom: encode (outside the lock), make room, place, index, publish, wake, wait
//! for the flush.

use std::cell::{RefCell, RefMut};
use std::io;
use std::sync::Arc;

use edgelog_core::{
    CRC_START, CompressionType, DecodeError, HEADER_LEN, LOG_OVERHEAD, LeaderEpoch, LogConfig, NO_TIMESTAMP,
    OFFSET_MAX, Offset, Position, RecordBatch, RollParams, SegmentIndexer, TimestampMs, TimestampType, crc32c,
    encode_one, stamp_base, stamp_max_timestamp,
};

use super::{AppendInfo, BatchBuilder, Durability, Log, LogShared, NewRecord, state};
use crate::canary::{Bug, bug};
use crate::codec;
use crate::error::{Error, Result};
use crate::events;
use crate::segment::{Segment, file_names};
use crate::storage::{Access, StorageFile};
use crate::sync::{MutexGuard, Ordering};
use crate::zeros;

/// Room is reserved ahead of the writer in steps: an idle log costs a block; what is written to is given enough that
/// its file system's own pages are not written for every few records; then they double, to a call every 4 MiB.
const RESERVE_STEP_MIN: u32 = 4 << 10;
const RESERVE_STEP_SECOND: u32 = 64 << 10;
const RESERVE_STEP_MAX: u32 = 4 << 20;
/// Batches from this size on are written by a system call also at `Os`: so many pages are faulted in one by one as
/// dearly as the call copies them (measured on ext4 with prepared room: the border lies between 64 and 256 KiB).
const MAP_STORE_BYTES_MAX: usize = 64 << 10;
/// A thread keeps its encoding buffer up to this size.
const SCRATCH_KEPT_MAX: usize = 1 << 20;
/// Compressing less than this cannot pay: the smallest frame costs about as much.
const COMPRESS_BYTES_MIN: usize = 64;

/// The writing end of a log: what only the holder of the append lock sees.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // four facts that have nothing to do with each other
pub(crate) struct Appender {
    pub(crate) segment: Arc<Segment>,
    /// Opened for the first append, so that an idle log holds no descriptor.
    pub(crate) file: Option<Arc<dyn StorageFile>>,
    /// Where the next batch goes.
    pub(crate) position: Position,
    /// The file's bytes up to here are allocated; `u32::MAX` where the file system cannot reserve.
    pub(crate) reserved: u32,
    pub(crate) reserve_step: u32,
    /// Housekeeping is preparing more room behind `reserved`, part by part, holding the log's `preparing` lock: nobody
    /// else writes there.
    pub(crate) preparing: bool,
    pub(crate) next_offset: Offset,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) indexer: SegmentIndexer,
    /// Entries in the offset index and in the time index.
    pub(crate) index_entries: (u32, u32),
    /// When the segment was begun.
    pub(crate) created_ms: TimestampMs,
    /// Largest timestamp of the segment's first batch.
    pub(crate) first_timestamp: Option<TimestampMs>,
    pub(crate) config: Arc<LogConfig>,
    /// Base offset of the oldest `Sync` append that waits for its flush: the high watermark stays there.
    pub(crate) sync_pending_from: Option<Offset>,
    /// End of the newest `Sync` append.
    pub(crate) sync_pending_end: Offset,
    /// A write failed half way: what it left behind the end must be fenced before the next append.
    pub(crate) torn: bool,
    /// The file made ready for the next segment, with its reserved length.
    pub(crate) prepared: Option<(Arc<dyn StorageFile>, u32)>,
    /// Housekeeping was asked to prepare room and has not come yet.
    pub(crate) asked: bool,
    /// When room was given last, and where the segment ended then.
    pub(crate) given: (TimestampMs, Position),
    /// The last batch was stored through the map.
    pub(crate) stores: bool,
    pub(crate) clear: Clear,
}

/// A thread's own buffers: the encoded batch, and its compressed form.
#[derive(Default)]
struct Scratch {
    encoded: Vec<u8>,
    compressed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { encoded: Vec::new(), compressed: Vec::new() }) };
}

/// What the path of every append hands up. An [`Error`] is three times as wide as an [`AppendInfo`]: by value, each
/// floor of the path would move the room of an error that is not there.
type Outcome<T> = std::result::Result<T, Box<Error>>;

/// Lends this thread's buffers, or new ones where they are in use (an append made by a log subscriber inside
/// an append).
#[inline]
fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(scratch) => work(&mut Lent(scratch).0),
        Err(_) => work(&mut Scratch::default()),
    })
}

/// Lent buffers, which go back without what they grew to beyond the measure.
struct Lent<'a>(RefMut<'a, Scratch>);

impl Drop for Lent<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.encoded.capacity() > SCRATCH_KEPT_MAX || self.0.compressed.capacity() > SCRATCH_KEPT_MAX {
            *self.0 = Scratch::default();
        }
    }
}

impl Log {
    /// Appends one record at the log's own durability and returns where it stands.
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`]; [`Error::OffsetsUsedUp`] behind the greatest offset; [`Error::Storage`] where there is
    /// no room (nothing was appended, try again when there is); [`Error::PreviousIo`] after a failed write or flush;
    /// [`Error::Closed`], [`Error::ReadOnly`], [`Error::Forked`]. After any error but those about the record, the record
    /// may still be found when the log is reopened.
    ///
    /// # Durability
    /// With `flush.messages=1` (the default) the record is on the medium when this returns.
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
            let size = log.encode(&mut scratch.encoded, timestamp, &record)?;
            let codec = log.compression();
            if codec != CompressionType::None && size >= HEADER_LEN + COMPRESS_BYTES_MIN && log.may_compress(size) {
                let Scratch { encoded, compressed } = scratch;
                if let Some(size) = compress_batch(codec, &mut encoded[..size], compressed)? {
                    return log.append_batch_bytes(&mut compressed[..size], 0, timestamp, durability);
                }
            }
            log.append_batch_bytes(&mut scratch.encoded[..size], 0, timestamp, durability)
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
        let codec = log.compression();
        let is_plain = codec == CompressionType::None || !log.may_compress(batch.bytes().len());
        let info: Outcome<AppendInfo> = if is_plain {
            log.append_batch_bytes(batch.bytes(), last_offset_delta, max_timestamp, durability)
        } else {
            with_scratch(|scratch| match compress_batch(codec, batch.bytes(), &mut scratch.compressed)? {
                Some(size) => log.append_batch_bytes(
                    &mut scratch.compressed[..size],
                    last_offset_delta,
                    max_timestamp,
                    durability,
                ),
                None => log.append_batch_bytes(batch.bytes(), last_offset_delta, max_timestamp, durability),
            })
        };
        let info = info.map_err(|error| *error)?;
        batch.clear();
        Ok(info)
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
                expected: Offset::from(view.record_count()) - 1,
                found: Offset::from(view.last_offset_delta()),
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

/// Compresses an encoded batch; `None` where that does not make it smaller.
fn compress_batch(codec: CompressionType, batch: &mut [u8], out: &mut Vec<u8>) -> Result<Option<usize>> {
    out.clear();
    out.extend_from_slice(&batch[..HEADER_LEN]);
    codec::compress(codec, &batch[HEADER_LEN..], out)?;
    if out.len() >= batch.len() {
        return Ok(None);
    }
    let batch_length = (out.len() - LOG_OVERHEAD) as u32;
    out[8..12].copy_from_slice(&batch_length.to_be_bytes());
    // The codec is the low three bits of the attributes' low byte; nothing else in the header changes.
    out[22] |= codec.id();
    let crc = crc32c(&out[CRC_START..]);
    out[17..21].copy_from_slice(&crc.to_be_bytes());
    Ok(Some(out.len()))
}

impl LogShared {
    /// Holds a batch from elsewhere to what appends of our own are: its records decode, and their times are their
    /// makers'. Returns the greatest of these times, as Kafka's `LogValidator` computes it for each batch.
    fn check_records(&self, batch: &RecordBatch<'_>) -> Result<TimestampMs> {
        let log_append_time = batch.timestamp_type() != TimestampType::CreateTime;
        if log_append_time || batch.is_transactional() {
            let attributes = batch.attributes();
            return Err(Error::InvalidRecord(DecodeError::UnsupportedAttributes { given: attributes }));
        }
        let mut buffer = self.pool.take();
        let records = match batch.compression() {
            CompressionType::None => batch.records().map_err(Error::InvalidRecord)?,
            codec => {
                codec::decompress(codec, batch.payload(), &mut buffer, self.decompressed_bytes_max)?;
                batch.records_in(&buffer)
            }
        };
        let mut max_timestamp = None;
        for record in records {
            let timestamp = record.map_err(Error::InvalidRecord)?.timestamp;
            max_timestamp = max_timestamp.max(Some(timestamp));
        }
        Ok(max_timestamp.unwrap_or(NO_TIMESTAMP))
    }

    /// Whether a batch of `size` bytes could be decompressed again.
    #[inline]
    fn may_compress(&self, size: usize) -> bool {
        size - HEADER_LEN <= self.decompressed_bytes_max
    }

    /// Encodes a one-record batch into `buffer`, which grows as needed, and returns the batch's size.
    #[inline]
    fn encode(&self, buffer: &mut Vec<u8>, timestamp: TimestampMs, record: &NewRecord<'_>) -> Outcome<usize> {
        loop {
            match encode_one(buffer, timestamp, record.key, record.value, record.headers) {
                Ok(size) => {
                    let max = self.hot.batch_bytes_max.load(Ordering::Relaxed) as usize;
                    if size > max {
                        return Err(Error::RecordTooLarge { given: size, max }.into());
                    }
                    return Ok(size);
                }
                Err(edgelog_core::EncodeError::BufferTooSmall { needed, .. }) => self.grow(buffer, needed)?,
                Err(error) => return Err(Error::from(error).into()),
            }
        }
    }

    #[cold]
    fn grow(&self, buffer: &mut Vec<u8>, needed: usize) -> Result<()> {
        const BUFFER_BYTES_MIN: usize = 1 << 10;
        let max = self.hot.batch_bytes_max.load(Ordering::Relaxed) as usize;
        if needed > max {
            return Err(Error::RecordTooLarge { given: needed, max });
        }
        zeros::resize(buffer, needed.next_power_of_two().max(BUFFER_BYTES_MIN));
        Ok(())
    }

    /// Appends an encoded batch: the part that appenders do one at a time, and then the wait for its flush.
    #[inline]
    fn append_batch_bytes(
        &self,
        batch: &mut [u8],
        last_offset_delta: i32,
        max_timestamp: TimestampMs,
        durability: Durability,
    ) -> Outcome<AppendInfo> {
        if self.fork.forked() {
            return Err(Error::Forked.into());
        }
        let max = self.hot.batch_bytes_max.load(Ordering::Relaxed) as usize;
        if batch.len() > max {
            return Err(Error::RecordTooLarge { given: batch.len(), max }.into());
        }
        // Taken by what is slow under the lock, and dropped behind it.
        let mut events = None;
        let (base_offset, leader_epoch, moved) = {
            let mut guard = self.appender.lock();
            if self.state.load(Ordering::Relaxed) != state::WRITABLE {
                events.get_or_insert_with(events::hold);
                self.attend(&mut guard)?;
            }
            let mut appender = guard.as_mut().expect("a writable log has an appender");
            if !appender.clear.covers(appender, batch.len(), last_offset_delta, max_timestamp) {
                events.get_or_insert_with(events::hold);
                self.make_room(&mut guard, batch.len(), last_offset_delta, max_timestamp)?;
                appender = guard.as_mut().expect("a writable log has an appender");
            }
            let (base_offset, leader_epoch) = (appender.next_offset, appender.epoch);
            match self.place(appender, batch, last_offset_delta, max_timestamp, durability) {
                Ok(moved) => (base_offset, leader_epoch, moved),
                Err(error) => {
                    events.get_or_insert_with(events::hold);
                    return Err(self.write_failed(appender, error).into());
                }
            }
        };
        drop(events);
        let last_offset = base_offset + Offset::from(last_offset_delta);
        let end = last_offset + 1;
        if moved {
            self.wake.wake_all();
        }
        if durability == Durability::Sync {
            self.flush_until(end)?;
        } else {
            if durability == Durability::Interval && self.interval_since.load(Ordering::Relaxed) == 0 {
                self.interval_since.store(self.clock.now().max(1), Ordering::Release);
                if let Some(host) = self.host.upgrade() {
                    host.wake_housekeeping();
                }
            }
            // Kafka's count of records between flushes. One of 1 is `Sync`, and an append that chose less meant it.
            let flush_messages = self.hot.flush_messages.load(Ordering::Relaxed);
            if flush_messages > 1 && end - self.recovery_point.load(Ordering::Relaxed) >= flush_messages {
                self.flush_until(end)?;
            }
        }
        Ok(AppendInfo { base_offset, last_offset, leader_epoch, max_timestamp })
    }

    /// Puts the batch at the end and publishes it. Returns whether readers may see more.
    #[inline]
    fn place(
        &self,
        appender: &mut Appender,
        batch: &mut [u8],
        last_offset_delta: i32,
        max_timestamp: TimestampMs,
        durability: Durability,
    ) -> io::Result<bool> {
        let base_offset = appender.next_offset;
        let last_offset = base_offset + Offset::from(last_offset_delta);
        let position = appender.position;
        stamp_base(batch, base_offset, appender.epoch);
        let file = appender.file.as_ref().expect("room was made in it");
        if bug(Bug::PublishBeforeCopy) {
            appender.segment.publish(position + batch.len() as u32);
            self.log_end_offset.store(last_offset + 1, Ordering::Release);
        }
        appender.stores = durability == Durability::Os && batch.len() <= MAP_STORE_BYTES_MAX;
        if appender.stores {
            file.store_at(batch, u64::from(position))?;
        } else {
            file.write_at(batch, u64::from(position))?;
        }
        if let Some((entry, time)) = appender.indexer.on_batch(position, last_offset, max_timestamp) {
            appender.segment.push_index_entries(entry, time);
            appender.index_entries.0 += 1;
            appender.index_entries.1 += u32::from(time.is_some());
            appender.clear = Clear::NOTHING;
        }
        if appender.first_timestamp.is_none() {
            appender.first_timestamp = Some(max_timestamp);
        }
        appender.segment.saw_timestamp(max_timestamp);
        appender.position = position + batch.len() as u32;
        appender.next_offset = last_offset + 1;
        appender.segment.publish(appender.position);
        self.log_end_offset.store(appender.next_offset, Ordering::Release);
        if durability == Durability::Sync {
            appender.sync_pending_from.get_or_insert(base_offset);
            appender.sync_pending_end = appender.next_offset;
            self.sync_appends.fetch_add(1, Ordering::Relaxed);
        }
        let moved = appender.sync_pending_from.is_none() || bug(Bug::ShowBeforeFlush);
        if moved {
            self.high_watermark.store(appender.next_offset, Ordering::Release);
        }
        Ok(moved)
    }

    /// What a failed write means: no room is an error that passes, anything else makes the log read-only.
    #[cold]
    fn write_failed(&self, appender: &mut Appender, error: io::Error) -> Error {
        let path = appender.segment.path();
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
            state::ATTACHED => return Err(Error::ReadOnly),
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
        let epoch = appender.epoch + i32::from(!bug(Bug::SkipTornTailFence));
        let before = self.epochs.read().clone();
        self.epochs.write().assign(epoch, appender.next_offset);
        if let Err(error) = self.host()?.checkpoint() {
            // Nobody is told an epoch that a power cut could give out once more.
            *self.epochs.write() = before;
            return Err(error);
        }
        appender.epoch = epoch;
        let path = appender.segment.path();
        let file = appender.file.as_ref().expect("it was written to");
        file.truncate(u64::from(appender.position)).map_err(Error::storage("cut", &path))?;
        appender.reserved = appender.position;
        appender.reserve_step = RESERVE_STEP_MIN;
        appender.preparing = false;
        appender.clear = Clear::NOTHING;
        appender.torn = false;
        Ok(())
    }

    /// Sees to a segment that the batch fits into and to allocated room for it.
    #[cold]
    fn make_room(
        &self,
        guard: &mut MutexGuard<'_, Option<Appender>>,
        size: usize,
        last_offset_delta: i32,
        max_timestamp: TimestampMs,
    ) -> Result<()> {
        loop {
            let appender = guard.as_mut().expect("a writable log has an appender");
            let max = appender.config.segment_bytes as usize;
            if size > max {
                return Err(Error::RecordBatchTooLarge { given: size, max });
            }
            if Offset::from(last_offset_delta) > OFFSET_MAX - appender.next_offset {
                let (records, next_offset) = (last_offset_delta as u32 + 1, appender.next_offset);
                return Err(Error::OffsetsUsedUp { records, next_offset, max: OFFSET_MAX });
            }
            let config = &appender.config;
            let params = RollParams {
                segment_bytes: config.segment_bytes,
                segment_ms: config.segment_ms,
                segment_index_bytes: config.segment_index_bytes,
                base_offset: appender.segment.base_offset,
                size: appender.position,
                created_ms: appender.created_ms,
                first_batch_timestamp: appender.first_timestamp.unwrap_or(NO_TIMESTAMP),
                offset_index_entries: appender.index_entries.0,
                time_index_entries: appender.index_entries.1,
                batch_size: size as u32,
                batch_last_offset: appender.next_offset + Offset::from(last_offset_delta),
                batch_max_timestamp: max_timestamp,
                now: if appender.first_timestamp == Some(NO_TIMESTAMP) { self.clock.now() } else { NO_TIMESTAMP },
            };
            if params.should_roll().is_some() {
                self.roll(guard)?;
                continue;
            }
            let end = appender.position as usize + size;
            if end <= appender.reserved as usize {
                if !appender.asked && appender.reserved - (end as u32) < ask_below(appender.reserve_step) {
                    self.ask_for_room(appender);
                }
                appender.clear = Clear::ahead_of(appender);
                return Ok(());
            }
            if !appender.preparing {
                return self.reserve(appender, end);
            }
            self.wait_for_prepared_room(guard)?;
        }
    }

    /// Waits for the part of the room that is being prepared; the lock is given up meanwhile.
    #[cold]
    fn wait_for_prepared_room(&self, guard: &mut MutexGuard<'_, Option<Appender>>) -> Result<()> {
        let room = |guard: &MutexGuard<'_, Option<Appender>>| guard.as_ref().map(|appender| appender.reserved);
        let before = room(guard);
        MutexGuard::unlocked(guard, || drop(self.preparing.lock()));
        if room(guard) == before {
            // Nothing came of it: the appender sees to itself.
            if let Some(appender) = guard.as_mut() {
                appender.preparing = false;
            }
        }
        if self.state.load(Ordering::Acquire) == state::WRITABLE { Ok(()) } else { self.attend(guard) }
    }

    #[cold]
    fn ask_for_room(&self, appender: &mut Appender) {
        appender.asked = true;
        if let Some(host) = self.host.upgrade() {
            host.wake_housekeeping();
        }
    }

    /// Reserves up to `end` and a step ahead, or up to `end` alone where there is not that much room.
    #[cold]
    fn reserve(&self, appender: &mut Appender, end: usize) -> Result<()> {
        let max = appender.config.segment_bytes as usize;
        let path = appender.segment.path();
        if appender.file.is_none() {
            let file = self.storage.open(&path, Access::Write).map_err(Error::storage("open", &path))?;
            // What the last close wrote is short from here on, and would still pass for whole after a crash.
            appender.segment.remove_index_files();
            appender.file = Some(file);
        }
        let file = Arc::clone(appender.file.as_ref().expect("just opened"));
        let generous = reserve_target(appender, end);
        let reserved = match file.reserve(generous as u64) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => {
                let least = end.next_multiple_of(RESERVE_STEP_MIN as usize).min(max.max(end));
                file.reserve(least as u64).map(|()| least)
            }
            other => other.map(|()| generous),
        };
        match reserved {
            Ok(reserved) => {
                appender.reserved = reserved as u32;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                // This file system cannot promise room: every write may fail for lack of it, and then says so.
                appender.reserved = u32::MAX;
                Ok(())
            }
            Err(error) => Err(Error::storage("reserve room in", &path)(error)),
        }
    }

    /// Seals the active segment and begins the next one. The lock may be given up meanwhile: look again
    /// afterwards.
    #[cold]
    fn roll(&self, guard: &mut MutexGuard<'_, Option<Appender>>) -> Result<()> {
        // The recovery point trails the end by one sealed segment at most, so that opening stays quick. Rather than
        // to begin a third segment, the appender waits.
        let active_base = guard.as_ref().expect("an owned log").segment.base_offset;
        if self.recovery_point.load(Ordering::Acquire) < active_base {
            MutexGuard::unlocked(guard, || self.flush_until(active_base))?;
            if self.state.load(Ordering::Acquire) != state::WRITABLE {
                self.attend(guard)?;
            }
            return Ok(());
        }
        let appender = guard.as_mut().expect("an owned log");
        let base_offset = appender.next_offset;
        let (file, reserved) = self.next_segment_file(appender, base_offset)?;
        self.names_dirty.store(true, Ordering::Release);
        appender.segment.seal(&mut appender.indexer);
        let segment =
            Segment::on_file(&self.storage, &self.dir, self.segment_options(), base_offset, Arc::clone(&file), 0);
        let segment = Arc::new(segment);
        self.segments.write().push(Arc::clone(&segment));
        appender.segment = segment;
        appender.file = Some(file);
        appender.position = 0;
        appender.reserved = reserved;
        appender.preparing = false;
        appender.clear = Clear::NOTHING;
        appender.asked = false;
        appender.indexer = SegmentIndexer::new(base_offset, appender.config.index_interval_bytes);
        appender.index_entries = (0, 0);
        appender.created_ms = self.clock.now();
        appender.given = (appender.created_ms, 0);
        appender.first_timestamp = None;
        let name = self.name.clone();
        events::emit(move || tracing::debug!(log = %name, base_offset, "rolled"));
        if let Some(host) = self.host.upgrade() {
            host.wake_housekeeping();
        }
        Ok(())
    }

    /// The file of the segment that begins at `base_offset`: the one made ready, under its real name now, or
    /// a new one.
    fn next_segment_file(&self, appender: &mut Appender, base_offset: Offset) -> Result<(Arc<dyn StorageFile>, u32)> {
        let path = file_names::log_file(&self.dir, base_offset);
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

/// What makes an append simple: a batch that stays inside these needs no look at anything else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clear {
    position: Position,
    offset: Offset,
    timestamp: TimestampMs,
}

impl Clear {
    /// Every batch has to be looked at.
    pub(crate) const NOTHING: Clear = Clear { position: 0, offset: 0, timestamp: TimestampMs::MIN };

    /// As far as no rule of [`RollParams`] can speak up, room is there, and none need be asked for. Holds until an
    /// index grows, the configuration changes, or room is taken back.
    fn ahead_of(appender: &Appender) -> Clear {
        // Without timestamps the wall clock counts: that has to be looked at each time.
        let Some(first) = appender.first_timestamp.filter(|&first| first >= 0) else { return Clear::NOTHING };
        let asking = if appender.asked { 0 } else { ask_below(appender.reserve_step) };
        Clear {
            position: appender.reserved.saturating_sub(asking).min(appender.config.segment_bytes),
            offset: appender.segment.base_offset.saturating_add(Offset::from(i32::MAX)).min(OFFSET_MAX),
            timestamp: first.saturating_add(appender.config.segment_ms),
        }
    }

    #[inline]
    fn covers(&self, appender: &Appender, size: usize, last_offset_delta: i32, max_timestamp: TimestampMs) -> bool {
        appender.position as usize + size <= self.position as usize
            && Offset::from(last_offset_delta) <= self.offset - appender.next_offset
            && max_timestamp <= self.timestamp
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

/// How far to reserve so that `end` is covered, and raises the next step.
pub(super) fn reserve_target(appender: &mut Appender, end: usize) -> usize {
    let step = appender.reserve_step.clamp(RESERVE_STEP_MIN, RESERVE_STEP_MAX);
    appender.reserve_step = step.saturating_mul(2).clamp(RESERVE_STEP_SECOND, RESERVE_STEP_MAX);
    let target = end.next_multiple_of(RESERVE_STEP_MIN as usize) + (step - RESERVE_STEP_MIN) as usize;
    // Never beyond what the segment can hold, but always what this batch needs.
    target.min(appender.config.segment_bytes as usize).max(end)
}

impl Appender {
    /// Whether, at the pace since room was given last, `room` bytes are filled in a moment. Room is given now.
    pub(super) fn fills(&mut self, room: u32, now: TimestampMs) -> bool {
        const MOMENT_MS: i64 = 200;
        let (since, from) = std::mem::replace(&mut self.given, (now, self.position));
        // A clock that was set tells nothing; a tick of it is the least that it can tell.
        let waited = now.saturating_sub(since).max(1);
        let filled = i64::from(self.position.saturating_sub(from));
        waited.saturating_mul(i64::from(room)) <= filled.saturating_mul(MOMENT_MS)
    }

    /// An appender that goes on at `position` of `segment`, whose indexes are empty.
    pub(crate) fn new(
        segment: Arc<Segment>,
        position: Position,
        next_offset: Offset,
        epoch: LeaderEpoch,
        created_ms: TimestampMs,
        config: Arc<LogConfig>,
    ) -> Appender {
        Appender {
            indexer: SegmentIndexer::new(segment.base_offset, config.index_interval_bytes),
            segment,
            file: None,
            position,
            reserved: 0,
            reserve_step: RESERVE_STEP_MIN,
            preparing: false,
            next_offset,
            epoch,
            index_entries: (0, 0),
            created_ms,
            first_timestamp: None,
            config,
            sync_pending_from: None,
            sync_pending_end: 0,
            torn: false,
            prepared: None,
            asked: false,
            given: (created_ms, 0),
            stores: false,
            clear: Clear::NOTHING,
        }
    }
}
