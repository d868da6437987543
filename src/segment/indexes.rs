//! A segment's two indexes: looked up, built from the batches, held against them, and written to their files.

use std::sync::Arc;

use edgelog_core::{
    Continuation, Effort, HEADER_LEN, NO_TIMESTAMP, OFFSET_INDEX_ENTRY_LEN, Offset, OffsetIndex, OffsetIndexEntry,
    Position, RecordBatch, SegmentIndexer, Standing, TIME_INDEX_ENTRY_LEN, TimeIndex, TimeIndexEntry, TimestampMs,
};

use super::BufferPool;
use super::built_indexes::BuiltIndexes;
use super::cursor::{Cursor, Lent};
use super::index_state::{IndexBytes, Indexes};
use super::log_file::{Segment, TIMESTAMP_UNKNOWN};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::storage::{Access, remove_if_there};
use crate::sync::Ordering;

/// No index file of a segment below 2 GiB is larger than this; a larger one is not read.
pub(crate) const INDEX_BYTES_MAX: usize = 64 << 20;

impl Segment {
    /// Adds what the indexer gave out for a batch.
    pub(crate) fn push_index_entries(&self, entry: OffsetIndexEntry, time: Option<TimeIndexEntry>) {
        if let Indexes::Memory { offsets, times } = &mut *self.indexes.write() {
            offsets.extend_from_slice(&entry.encode(self.base_offset));
            if let Some(time) = time {
                times.extend_from_slice(&time.encode(self.base_offset));
            }
        }
    }

    /// Adds the last time index entry: nothing will be appended here any more.
    pub(crate) fn seal(&self, indexer: &mut SegmentIndexer) {
        if let (Indexes::Memory { times, .. }, Some(time)) = (&mut *self.indexes.write(), indexer.on_seal()) {
            times.extend_from_slice(&time.encode(self.base_offset));
        }
        self.largest_timestamp.store(indexer.largest_timestamp().0, Ordering::Release);
        self.set_untrimmed();
    }

    /// Writes the indexes that are in memory to their files and lets go of the memory. They are derived, so
    /// nothing is flushed: what a crash makes of them is found when they are read.
    pub(crate) fn write_indexes(&self, pool: &Arc<BufferPool>) -> Result<()> {
        if self.is_stale() && !matches!(&*self.indexes.read(), Indexes::Memory { .. }) {
            self.rebuild_into_memory(pool)?;
        }
        let mut indexes = self.indexes.write();
        if let Indexes::Memory { offsets, times } = &*indexes {
            for (path, bytes) in self.index_paths().iter().zip([offsets, times]) {
                self.write_index(path, bytes)?;
            }
            *indexes = Indexes::Unloaded;
            self.stale.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Replaces an index file. The old one is removed first: its bytes may be lent, and lent bytes never
    /// change.
    fn write_index(&self, path: &str, bytes: &[u8]) -> Result<()> {
        remove_if_there(&*self.storage, path).map_err(Error::storage("replace", path))?;
        let file = self.storage.open(path, Access::CreateNew).map_err(Error::storage("create", path))?;
        let written = file.write_at(bytes, 0);
        if written.is_err() {
            // Half an index is worse than none, though not dangerous: it would be found out and rebuilt.
            let _ = self.storage.remove_file(path);
        }
        written.map_err(Error::storage("write", path))
    }

    /// Whether rebuilt or freshly sealed indexes wait to be written.
    pub(crate) fn has_unwritten_indexes(&self) -> bool {
        self.is_stale() || matches!(&*self.indexes.read(), Indexes::Memory { .. })
    }

    /// Lets go of indexes that can be read again.
    pub(crate) fn unload_indexes(&self) {
        let mut indexes = self.indexes.write();
        if matches!(&*indexes, Indexes::Read { .. }) {
            *indexes = Indexes::Unloaded;
        }
    }

    /// Position of a batch at or before the one that holds `target`. Returns also whether indexes had to be
    /// loaded.
    pub(crate) fn position_for(&self, target: Offset, pool: &Arc<BufferPool>) -> Result<(Position, bool)> {
        self.with_offset_index(pool, |index| index.lookup(target).position)
    }

    /// The offset from which on a scan for `timestamp` starts: the last indexed one that is too early.
    pub(crate) fn offset_before_time(&self, timestamp: TimestampMs, pool: &Arc<BufferPool>) -> Result<Offset> {
        self.load_indexes(pool)?;
        // An entry says: the records up to this offset are at most this old. A record of exactly `timestamp` may
        // be the one that made the entry, so the entry before it is where the scan starts.
        Ok(self.with_time_index(|index| index.lookup(timestamp.saturating_sub(1))).offset)
    }

    fn with_time_index<T>(&self, look: impl FnOnce(TimeIndex<'_>) -> T) -> T {
        let indexes = self.indexes.read();
        let times = match &*indexes {
            Indexes::Memory { times, .. } => times.as_slice(),
            Indexes::Read { times, .. } => times.bytes(),
            Indexes::Unloaded => &[],
        };
        look(TimeIndex::new(times, self.base_offset))
    }

    /// Lets an indexer go on at `position`, the end of the batches: the indexes are in memory afterwards,
    /// without what sealing added. Returns also how many entries each of them has, and the offset behind the last
    /// batch before `position` (the segment's base offset at its start); `None` where no batch ends there.
    pub(crate) fn resume_indexer(
        &self,
        position: Position,
        pool: &Arc<BufferPool>,
    ) -> Result<(SegmentIndexer, (u32, u32), Option<Offset>)> {
        self.load_indexes(pool)?;
        let (mut resumed, mut ends_at) = self.resume_from_indexes(position, pool);
        if ends_at.is_none() {
            // The last entry names another place than a batch's, or there is damage behind it: batches behind damage
            // count as well.
            let (built, _, (end, next_offset)) = self.index_batches(pool, false)?;
            let BuiltIndexes { indexer, offsets, times, .. } = built;
            let counts = (offsets.len() / OFFSET_INDEX_ENTRY_LEN, times.len() / TIME_INDEX_ENTRY_LEN);
            *self.indexes.write() = Indexes::Memory { offsets, times };
            resumed = (indexer, (counts.0 as u32, counts.1 as u32));
            ends_at = (end == position).then_some(next_offset);
        }
        let (indexer, counts) = resumed;
        self.largest_timestamp.store(indexer.largest_timestamp().0, Ordering::Release);
        Ok((indexer, counts, ends_at))
    }

    /// Also the offset behind the last batch, where the batch that the last entry names is there, and others from it to
    /// `position`.
    fn resume_from_indexes(
        &self,
        position: Position,
        pool: &Arc<BufferPool>,
    ) -> ((SegmentIndexer, (u32, u32)), Option<Offset>) {
        let (mut indexer, counts, mut named) = {
            let mut indexes = self.indexes.write();
            let (offsets, mut times) = match &*indexes {
                Indexes::Read { offsets, times } => (offsets.bytes().to_vec(), times.bytes().to_vec()),
                Indexes::Memory { offsets, times } => (offsets.clone(), times.clone()),
                Indexes::Unloaded => (Vec::new(), Vec::new()),
            };
            let (indexer, kept) = SegmentIndexer::resume(
                self.base_offset,
                self.options.interval_bytes,
                &OffsetIndex::new(&offsets, self.base_offset),
                &TimeIndex::new(&times, self.base_offset),
            );
            times.truncate(kept * TIME_INDEX_ENTRY_LEN);
            let counts = ((offsets.len() / OFFSET_INDEX_ENTRY_LEN) as u32, kept as u32);
            let named = OffsetIndex::new(&offsets, self.base_offset).last().map(|entry| entry.offset);
            *indexes = Indexes::Memory { offsets, times };
            (indexer, counts, named)
        };
        // The batches behind the last entry are the indexer's own to look at again: an interval at most.
        let mut cursor = Cursor::new(pool);
        let (mut at, mut next_offset) = (indexer.mark(), self.base_offset);
        while at < position {
            let Ok(Ok(batch)) = cursor.batch(self, at, position) else { break };
            if named.take().is_some_and(|offset| offset != batch.last_offset()) {
                break;
            }
            indexer.on_batch(at, batch.last_offset(), batch.max_timestamp());
            (at, next_offset) = (at + batch.size() as u32, batch.next_offset());
        }
        ((indexer, counts), (at == position).then_some(next_offset))
    }

    /// Largest timestamp of the first batch, where there is one below `end`.
    pub(crate) fn first_timestamp(&self, end: Position, pool: &Arc<BufferPool>) -> Option<TimestampMs> {
        if end == 0 {
            return None;
        }
        let mut cursor = Cursor::new(pool);
        let first = cursor.batch(self, Position(0), end).ok()?;
        Some(first.ok()?.max_timestamp())
    }

    /// Builds the indexes from the batches and keeps them in memory, no matter what the files say.
    pub(crate) fn rebuild_into_memory(&self, pool: &Arc<BufferPool>) -> Result<()> {
        let (offsets, times) = self.rebuild_indexes(pool)?;
        *self.indexes.write() = Indexes::Memory { offsets, times };
        Ok(())
    }

    /// Holds what the indexes say against the batches. Where they said something else they are replaced, and
    /// `true` is returned.
    pub(crate) fn correct_indexes(&self, pool: &Arc<BufferPool>) -> Result<bool> {
        let (offsets, times) = self.rebuild_indexes(pool)?;
        Ok(self.replace_indexes(offsets, times))
    }

    fn replace_indexes(&self, offsets: Vec<u8>, times: Vec<u8>) -> bool {
        let mut indexes = self.indexes.write();
        let same = match &*indexes {
            Indexes::Memory { offsets: o, times: t } => *o == offsets && *t == times,
            Indexes::Read { offsets: o, times: t } => o.bytes() == offsets && t.bytes() == times,
            Indexes::Unloaded => false,
        };
        if !same {
            *indexes = Indexes::Memory { offsets, times };
        }
        !same
    }

    fn with_offset_index<T>(
        &self,
        pool: &Arc<BufferPool>,
        look: impl FnOnce(OffsetIndex<'_>) -> T,
    ) -> Result<(T, bool)> {
        let loaded = self.load_indexes(pool)?;
        let indexes = self.indexes.read();
        let offsets = match &*indexes {
            Indexes::Memory { offsets, .. } => offsets.as_slice(),
            Indexes::Read { offsets, .. } => offsets.bytes(),
            Indexes::Unloaded => &[],
        };
        Ok((look(OffsetIndex::new(offsets, self.base_offset)), loaded))
    }

    /// Reads the index files, or rebuilds what they should say. Returns whether anything had to be done.
    fn load_indexes(&self, pool: &Arc<BufferPool>) -> Result<bool> {
        if !matches!(&*self.indexes.read(), Indexes::Unloaded) {
            return Ok(false);
        }
        let read = if let Some(read) = self.read_index_files(pool) {
            read
        } else {
            let (offsets, times) = self.rebuild_indexes(pool)?;
            Indexes::Memory { offsets, times }
        };
        let mut indexes = self.indexes.write();
        if matches!(&*indexes, Indexes::Unloaded) {
            *indexes = read;
        }
        Ok(true)
    }

    /// Whether the index files of a sealed segment reach as far as its batches do: a power cut may have left their
    /// names alone, or the first entries. Looks at their last entries; at more only where the segment's newest record
    /// stands far before its end.
    pub(crate) fn has_whole_indexes(&self, pool: &Arc<BufferPool>) -> bool {
        self.ends_of_indexes().is_some_and(|is_certain| is_certain || self.read_index_files(pool).is_some())
    }

    /// `None` where the index files do not reach far enough; else whether their last entries alone say that they do.
    fn ends_of_indexes(&self) -> Option<bool> {
        let [offsets, times] = self.index_paths();
        let offsets = self.last_entry(&offsets, OFFSET_INDEX_ENTRY_LEN)?;
        let times = self.last_entry(&times, TIME_INDEX_ENTRY_LEN)?;
        let len = self.len().ok()?;
        let last = OffsetIndex::new(&offsets, self.base_offset).last();
        let Some(newest) = TimeIndex::new(&times, self.base_offset).last() else {
            return (len == 0).then_some(true);
        };
        self.is_indexed_to(last, len).then_some(last.is_none_or(|last| newest.offset >= last.offset))
    }

    /// The last entry of an index file, or nothing where it is empty; `None` where it is no file of whole entries.
    fn last_entry(&self, path: &str, entry_len: usize) -> Option<Vec<u8>> {
        let file = self.storage.open(path, Access::Read).ok()?;
        let len = file.len().ok()?;
        if len % entry_len as u64 != 0 {
            return None;
        }
        // Of whole entries there are none, or one at least.
        let mut entry = vec![0; if len == 0 { 0 } else { entry_len }];
        let at = len.saturating_sub(entry_len as u64);
        (file.read_at(&mut entry, at).ok()? == entry.len()).then_some(entry)
    }

    /// Whether an offset index with this last entry reaches as far as batches that end at `len`. A batch that begins
    /// further than one interval behind the last entry would have made an entry of its own, so what lies behind that is
    /// an interval and one batch at most.
    fn is_indexed_to(&self, last: Option<OffsetIndexEntry>, len: Position) -> bool {
        let indexed = last.map_or(0, |last| last.position.0);
        let reach = u64::from(self.options.interval_bytes) + u64::from(self.options.batch_bytes_max);
        last.is_none_or(|last| last.position < len) && u64::from(len) <= u64::from(indexed) + reach
    }

    /// What the index files hold, if they look like indexes of this segment at all. Whether an entry points
    /// at the batch it names is seen when it is used.
    pub(super) fn read_index_files(&self, pool: &Arc<BufferPool>) -> Option<Indexes> {
        let len = self.len().ok()?;
        let [offsets, times] = self.index_paths();
        let (offsets, times) = (self.read_index(&offsets)?, self.read_index(&times)?);
        let offset_index = OffsetIndex::new(offsets.bytes(), self.base_offset);
        offset_index.check().ok()?;
        TimeIndex::new(times.bytes(), self.base_offset).check().ok()?;
        // No batches without a time, or hardly any: an empty file is more likely one that a power cut left behind.
        if !self.is_indexed_to(offset_index.last(), len) || (times.bytes().is_empty() && len > 0) {
            return None;
        }
        // A power cut may have brought back what was written before a truncation, or kept the first entries alone.
        let times_index = TimeIndex::new(times.bytes(), self.base_offset);
        if !bug(Bug::TrustTheIndex) && !self.matches_batches(&offset_index, &times_index, len, pool) {
            return None;
        }
        Some(Indexes::Read { offsets, times })
    }

    /// Whether the last entries of both indexes name batches that are there, and no newer batch follows that the time
    /// index does not know.
    fn matches_batches(
        &self,
        offsets: &OffsetIndex<'_>,
        times: &TimeIndex<'_>,
        len: Position,
        pool: &Arc<BufferPool>,
    ) -> bool {
        let mut cursor = Cursor::new(pool);
        let last = offsets.last();
        if let Some(last) = last {
            let Ok(Ok(batch)) = cursor.batch(self, last.position, len) else { return false };
            if !(batch.base_offset()..=batch.last_offset()).contains(&last.offset) {
                return false;
            }
        }
        let Some(newest) = times.last() else { return len == 0 };
        let mut position = offsets.lookup(newest.offset).position;
        loop {
            if position >= len {
                return false;
            }
            let Ok(Ok(batch)) = cursor.batch(self, position, len) else { return false };
            if batch.last_offset() >= newest.offset {
                if batch.base_offset() > newest.offset || batch.max_timestamp() != newest.timestamp {
                    return false;
                }
                break;
            }
            position += batch.size() as u32;
        }
        // From there on, and not from the last offset entry: where the clock went back, the newest batch may stand far
        // before the end, and a time index that lost its last entries would not miss it.
        while position < len {
            // Damage is reported when the records are read.
            let Ok(Ok(batch)) = cursor.batch(self, position, len) else { break };
            if batch.max_timestamp() > newest.timestamp {
                return false;
            }
            position += batch.size() as u32;
        }
        true
    }

    fn read_index(&self, path: &str) -> Option<IndexBytes> {
        let file = self.storage.open(path, Access::Read).ok()?;
        let len = usize::try_from(file.len().ok()?).ok()?;
        if len > INDEX_BYTES_MAX {
            return None;
        }
        if let Ok(Some(lease)) = file.lend(0, len) {
            return Some(IndexBytes::Lent(lease));
        }
        let mut bytes = vec![0; len];
        (file.read_at(&mut bytes, 0).ok()? == len).then_some(IndexBytes::Copied(bytes))
    }

    /// What the two indexes should hold, from the batches' headers. Goes on behind damage.
    fn rebuild_indexes(&self, pool: &Arc<BufferPool>) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut built, ..) = self.index_batches(pool, false)?;
        built.seal();
        // The batches know of records that no entry of a time index can name.
        self.largest_timestamp.fetch_max(built.largest_timestamp().0, Ordering::AcqRel);
        Ok((built.offsets, built.times))
    }

    /// Walks the whole segment and gives what its two indexes should hold before they are sealed, its last batch's
    /// timestamp, and where the walk ended: the position, and the offset that is due there.
    fn index_batches(
        &self,
        pool: &Arc<BufferPool>,
        check_crcs: bool,
    ) -> Result<(BuiltIndexes, TimestampMs, (Position, Offset))> {
        let len = self.len()?;
        let mut built = BuiltIndexes::new(self.base_offset, self.options.interval_bytes);
        let mut cursor = Cursor::new(pool);
        let mut effort = Effort::for_segment(u64::from(len));
        let (mut position, mut newest) = (Position(0), NO_TIMESTAMP);
        let mut due = Continuation {
            next_offset: self.base_offset,
            contiguous: self.options.contiguous,
            offset_end: Offset::MAX,
            durable_below: Offset(0),
            durable_position: 0,
            unbroken_from: Offset::MAX,
            epochs: None,
            epoch_before: None,
            check_crc: check_crcs,
        };
        while position < len {
            let mut bytes = Lent { cursor: &mut cursor, segment: self, end: len };
            let standing = due.judge_at(&mut bytes, u64::from(position), &mut effort);
            let Standing::Batch { batch, is_displaced, .. } = standing else {
                cursor.release();
                if !check_crcs {
                    // A header that was believed may have led here.
                    return self.index_batches(pool, true);
                }
                let Some((at, base_offset)) = self.resync(position, len, &due.plausible(), pool)?.batch else { break };
                (position, due.next_offset) = (at, base_offset);
                continue;
            };
            // By its header: what is read at another offset than it says may say one that none can have.
            let header = cursor.bytes(self, position, len, HEADER_LEN).unwrap_or_default();
            let Some(max_timestamp) = RecordBatch::peek_max_timestamp(header) else { break };
            newest = max_timestamp;
            built.on_batch(u64::from(position), batch.next_offset - 1, max_timestamp);
            if is_displaced {
                // The last one, by what an index says, which goes on saying it. An end is known by what batches say.
                break;
            }
            (position, due.next_offset) = (Position(batch.end as u32), batch.next_offset);
        }
        Ok((built, newest, (position, due.next_offset)))
    }

    /// Largest timestamp of a sealed segment's records: the last entry of its time index.
    pub(crate) fn largest_timestamp(&self, pool: &Arc<BufferPool>) -> Result<TimestampMs> {
        let known = self.largest_timestamp.load(Ordering::Acquire);
        if known != TIMESTAMP_UNKNOWN {
            return Ok(TimestampMs(known));
        }
        self.load_indexes(pool)?;
        let indexed = self.with_time_index(|index| index.last()).map_or(NO_TIMESTAMP, |entry| entry.timestamp);
        Ok(TimestampMs(self.largest_timestamp.fetch_max(indexed.0, Ordering::AcqRel).max(indexed.0)))
    }

    /// Largest timestamp of the batches themselves, each held against its CRC, and the last batch's. Corrects the
    /// indexes where they said otherwise.
    pub(crate) fn checked_timestamps(&self, pool: &Arc<BufferPool>) -> Result<(TimestampMs, TimestampMs)> {
        let (mut built, newest, _) = self.index_batches(pool, true)?;
        built.seal();
        let largest = built.largest_timestamp();
        self.replace_indexes(built.offsets, built.times);
        self.largest_timestamp.store(largest.0, Ordering::Release);
        Ok((largest, newest))
    }
}
