//! One segment's `.log` file: its published length, and what becomes of its files.

use std::fmt;
use std::sync::{Arc, OnceLock};

use edgelog_core::limits::{READABLE_BYTES_MAX, SEGMENT_BYTES_MAX};
use edgelog_core::{LogConfig, OFFSET_INDEX_ENTRY_LEN, Offset, Position, TIME_INDEX_ENTRY_LEN, TimestampMs};

use super::file_names;
use super::index_state::Indexes;
use super::named_ends::NamedEnds;
use crate::error::{Error, Result};
use crate::storage::{Access, Storage, StorageFile, remove_if_there};
use crate::sync::{AtomicBool, AtomicI64, AtomicU32, Ordering, RwLock};

const LEN_UNKNOWN: u32 = u32::MAX;
pub(super) const TIMESTAMP_UNKNOWN: i64 = i64::MIN;
const END_UNKNOWN: i64 = i64::MIN;

/// What the segments of one log have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentOptions {
    /// Whether this process writes the log.
    pub(crate) access: Access,
    /// `index.interval.bytes`.
    pub(crate) interval_bytes: u32,
    /// `max.message.bytes`.
    pub(crate) batch_bytes_max: u32,
    /// Base offsets are known to be contiguous: the log was written here. Else they need only rise.
    pub(crate) contiguous: bool,
}

/// A segment with batches behind the last position that Kafka can count: its length.
pub(crate) struct TooLong(pub(crate) u64);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the segment holds batches up to byte {}, and a segment has at most {SEGMENT_BYTES_MAX}", self.0)
    }
}

impl SegmentOptions {
    pub(crate) fn new(config: &LogConfig, access: Access, contiguous: bool) -> SegmentOptions {
        SegmentOptions {
            access,
            interval_bytes: config.index_interval_bytes,
            batch_bytes_max: config.max_message_bytes,
            contiguous,
        }
    }
}

/// One segment of a log.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    pub(super) dir: Arc<str>,
    /// What its file is called, where that is not its own name.
    file_name: Option<String>,
    pub(super) options: SegmentOptions,
    pub(super) storage: Arc<dyn Storage>,
    file: OnceLock<Arc<dyn StorageFile>>,
    /// Bytes of whole, valid batches that readers may look at. Published with Release after the bytes were
    /// written.
    pub(super) len: AtomicU32,
    pub(super) largest_timestamp: AtomicI64,
    /// The offset behind the last batch, once a reader has looked for it.
    known_end: AtomicI64,
    /// Sealed, and neither trimmed to its length nor flushed since.
    untrimmed: AtomicBool,
    /// The index files are missing, or say something else than the batches.
    pub(super) stale: AtomicBool,
    pub(super) indexes: RwLock<Indexes>,
}

impl Segment {
    /// A segment whose file exists and is looked at when it is needed.
    pub(crate) fn existing(
        storage: &Arc<dyn Storage>,
        dir: &Arc<str>,
        options: SegmentOptions,
        base_offset: Offset,
    ) -> Segment {
        Segment {
            base_offset,
            dir: Arc::clone(dir),
            file_name: None,
            options,
            storage: Arc::clone(storage),
            file: OnceLock::new(),
            len: AtomicU32::new(LEN_UNKNOWN),
            largest_timestamp: AtomicI64::new(TIMESTAMP_UNKNOWN),
            known_end: AtomicI64::new(END_UNKNOWN),
            untrimmed: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            indexes: RwLock::new(Indexes::Unloaded),
        }
    }

    /// The same, in a file that has another name than the segment's own.
    pub(crate) fn in_file(self, file_name: Option<&str>) -> Segment {
        Segment { file_name: file_name.map(str::to_owned), ..self }
    }

    /// A segment on an open file, with `len` published bytes and empty indexes in memory.
    pub(crate) fn on_file(
        storage: &Arc<dyn Storage>,
        dir: &Arc<str>,
        options: SegmentOptions,
        base_offset: Offset,
        file: Arc<dyn StorageFile>,
        len: Position,
    ) -> Segment {
        let segment = Segment::existing(storage, dir, options, base_offset);
        segment.file.set(file).expect("the cell was made empty one line above");
        segment.len.store(len.0, Ordering::Release);
        *segment.indexes.write() = Indexes::Memory { offsets: Vec::new(), times: Vec::new() };
        segment
    }

    /// The `.log` file's name, relative to the data directory.
    pub(crate) fn path(&self) -> String {
        match &self.file_name {
            Some(name) => format!("{}/{name}", self.dir),
            None => file_names::log_file(&self.dir, self.base_offset),
        }
    }

    /// Where batches of the segment end, by the files next to it.
    pub(crate) fn named_ends(&self, is_last: bool) -> NamedEnds {
        NamedEnds::read(&*self.storage, &self.dir, self.base_offset, is_last)
    }

    /// The `.log` file, opened on first use.
    pub(crate) fn file(&self) -> Result<&Arc<dyn StorageFile>> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let path = self.path();
        let file = self.storage.open(&path, self.options.access).map_err(Error::storage("open", &path))?;
        Ok(self.file.get_or_init(|| file))
    }

    /// Whether the `.log` file has been opened.
    pub(crate) fn is_open(&self) -> bool {
        self.file.get().is_some()
    }

    /// Published bytes. For a sealed segment that was not looked at yet, its file's length.
    pub(crate) fn len(&self) -> Result<Position> {
        let len = self.len.load(Ordering::Acquire);
        if len != LEN_UNKNOWN {
            return Ok(Position(len));
        }
        let path = self.path();
        let meta = self.storage.metadata(&path).map_err(Error::storage("look at", &path))?;
        // Bytes beyond what a position can count are not reachable by any reader.
        let len = meta.len.min(READABLE_BYTES_MAX) as u32;
        Ok(match self.len.compare_exchange(LEN_UNKNOWN, len, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Position(len),
            Err(published) => Position(published),
        })
    }

    /// Published bytes, where they are known without a look at the file.
    pub(crate) fn known_len(&self) -> Option<Position> {
        let len = self.len.load(Ordering::Acquire);
        (len != LEN_UNKNOWN).then_some(Position(len))
    }

    /// The offset behind the last batch of a sealed segment, where a reader has found it.
    pub(crate) fn known_end(&self) -> Option<Offset> {
        let end = self.known_end.load(Ordering::Relaxed);
        (end != END_UNKNOWN).then_some(Offset(end))
    }

    /// Keeps the offset behind the last batch of a sealed segment, which never changes.
    pub(crate) fn set_known_end(&self, end: Offset) {
        self.known_end.store(end.0, Ordering::Relaxed);
    }

    /// Lets readers see `len` bytes. Called by the one writer, after the bytes are in the file.
    #[inline]
    pub(crate) fn publish(&self, len: Position) {
        self.len.store(len.0, Ordering::Release);
    }

    /// As [`publish`](Self::publish), for a batch that was appended: its timestamp counts first.
    #[inline]
    pub(crate) fn publish_batch(&self, len: Position, max_timestamp: TimestampMs) {
        if max_timestamp > self.largest_timestamp.load(Ordering::Relaxed) {
            self.largest_timestamp.store(max_timestamp.0, Ordering::Relaxed);
        }
        self.publish(len);
    }

    /// The file may have room behind the last batch that has to be given back.
    pub(crate) fn set_untrimmed(&self) {
        self.untrimmed.store(true, Ordering::Release);
    }

    /// Whether the segment was sealed and its file not yet trimmed and flushed.
    pub(crate) fn is_untrimmed(&self) -> bool {
        self.untrimmed.load(Ordering::Acquire)
    }

    /// Gives the room reserved behind the last batch back and makes that, and everything before it, durable.
    pub(crate) fn trim_and_flush(&self) -> Result<()> {
        let path = self.path();
        let file = self.file()?;
        let len = u64::from(self.len()?);
        if file.len().map_err(Error::storage("look at", &path))? > len {
            file.truncate(len).map_err(Error::storage("trim", &path))?;
        }
        file.flush().map_err(Error::storage("flush", &path))?;
        self.untrimmed.store(false, Ordering::Release);
        Ok(())
    }

    /// The index files, if there are any, are not this segment's: they have to be rewritten.
    pub(crate) fn set_stale(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// Whether the index files were found to be missing, or not to be this segment's.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// Whether both index files are there.
    pub(crate) fn has_index_files(&self) -> bool {
        self.index_paths().iter().all(|path| self.storage.metadata(path).is_ok())
    }

    /// Whether both index files have whole entries, as far as their lengths show. A sealed segment's time index has one
    /// at least.
    pub(crate) fn has_index_entries(&self) -> bool {
        let [offsets, times] = self.index_paths();
        let len_of = |path: &str| self.storage.metadata(path).ok().map(|file| file.len);
        len_of(&offsets).is_some_and(|len| len % OFFSET_INDEX_ENTRY_LEN as u64 == 0)
            && len_of(&times).is_some_and(|len| len > 0 && len % TIME_INDEX_ENTRY_LEN as u64 == 0)
    }

    /// Removes the index files, which are about to be overtaken.
    pub(crate) fn remove_index_files(&self) {
        for path in self.index_paths() {
            let _ = self.storage.remove_file(&path);
        }
    }

    pub(super) fn index_paths(&self) -> [String; 2] {
        file_names::index_files(&self.dir, self.base_offset)
    }

    /// Removes the three files, the log last: a crash in between leaves a log without indexes, which is
    /// sound.
    pub(crate) fn remove_files(&self) -> Result<()> {
        for path in self.index_paths().into_iter().chain([self.path()]) {
            remove_if_there(&*self.storage, &path).map_err(Error::storage("remove", &path))?;
        }
        Ok(())
    }
}
