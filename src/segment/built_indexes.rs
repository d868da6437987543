//! The two indexes of a segment, built from its batches, and their files.

use edgelog_core::{Offset, Position, RecordBatch, SegmentIndexer, TimestampMs};

use super::file_names;
use super::sink::Sink;
use super::walk::{Step, Walker};
use crate::error::{Error, Result};
use crate::storage::{Storage, remove_if_there};

/// What the indexes of a segment should hold.
#[derive(Debug)]
pub(crate) struct BuiltIndexes {
    base_offset: Offset,
    /// The rule, to go on behind the last batch.
    pub(super) indexer: SegmentIndexer,
    pub(crate) offsets: Vec<u8>,
    pub(crate) times: Vec<u8>,
}

impl BuiltIndexes {
    pub(crate) fn new(base_offset: Offset, interval_bytes: u32) -> BuiltIndexes {
        let indexer = SegmentIndexer::new(base_offset, interval_bytes);
        BuiltIndexes { base_offset, indexer, offsets: Vec::new(), times: Vec::new() }
    }

    pub(crate) fn on_batch(&mut self, position: u64, last_offset: Offset, max_timestamp: TimestampMs) {
        let Ok(position) = u32::try_from(position) else { return };
        if let Some((entry, time)) = self.indexer.on_batch(Position(position), last_offset, max_timestamp) {
            self.offsets.extend_from_slice(&entry.encode(self.base_offset));
            if let Some(time) = time {
                self.times.extend_from_slice(&time.encode(self.base_offset));
            }
        }
    }

    /// The largest timestamp of all batches, also where no entry can name it.
    pub(crate) fn largest_timestamp(&self) -> TimestampMs {
        self.indexer.largest_timestamp()
    }

    /// Adds the last time index entry.
    pub(crate) fn seal(&mut self) {
        if let Some(time) = self.indexer.on_seal() {
            self.times.extend_from_slice(&time.encode(self.base_offset));
        }
    }
}

/// Builds the indexes of the segment at `base_offset` from the batches of a walk.
pub(crate) fn build_indexes(mut walker: Walker, base_offset: Offset, interval_bytes: u32) -> BuiltIndexes {
    let mut built = BuiltIndexes::new(base_offset, interval_bytes);
    loop {
        match walker.next() {
            Step::Batch { position } => {
                let batch: RecordBatch<'_> = walker.batch();
                built.on_batch(position, walker.next_offset() - 1, batch.max_timestamp());
            }
            Step::Damage(_) => {}
            Step::Zeros { .. } | Step::End => break,
        }
    }
    built.seal();
    built
}

/// Writes both index files of a segment in the directory `dir`, where there are none. They are derived, so nothing is
/// flushed.
pub(crate) fn write_indexes(storage: &dyn Storage, dir: &str, built: &BuiltIndexes) -> Result<()> {
    let paths = file_names::index_files(dir, built.base_offset);
    for (path, bytes) in paths.into_iter().zip([&built.offsets, &built.times]) {
        if is_dir(storage, &path) {
            continue;
        }
        let mut out = Sink::create(storage, path)?;
        out.write(bytes)?;
        out.finish_derived()?;
    }
    Ok(())
}

/// Whether a directory stands in place of an index. It is not ours to remove: the log is read without the index.
fn is_dir(storage: &dyn Storage, path: &str) -> bool {
    storage.read_dir(path).is_ok()
}

/// Removes both index files of the segment at `base_offset` in the directory `dir`.
pub(crate) fn remove_indexes(storage: &dyn Storage, dir: &str, base_offset: Offset) -> Result<()> {
    for path in file_names::index_files(dir, base_offset) {
        if is_dir(storage, &path) {
            continue;
        }
        remove_if_there(storage, &path).map_err(Error::storage("remove", &path))?;
    }
    Ok(())
}
