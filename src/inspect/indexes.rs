//! A segment's two indexes, held against its batches one by one as a walk comes by them.

use std::fmt::Write as _;

use edgelog_core::{
    IndexError, NO_TIMESTAMP, Offset, OffsetIndex, OffsetIndexEntry, RecordBatch, SegmentIndexer, TimeIndex,
    TimeIndexEntry, TimestampMs,
};

use super::facts::read_whole;
use crate::segment::INDEX_BYTES_MAX;
use crate::storage::Storage;

/// What is wrong with one index file.
#[derive(Debug)]
pub(super) struct IndexFault {
    pub(super) file: String,
    pub(super) position: Option<u64>,
    pub(super) text: String,
    /// The file is not there at all.
    pub(super) missing: bool,
    /// Bytes that it had when it was read.
    pub(super) len: u64,
}

#[derive(Debug)]
struct Entries<T> {
    file: String,
    list: Vec<T>,
    /// The next one to be met.
    at: usize,
    missing: bool,
    len: u64,
    fault: Option<(Option<u64>, String)>,
    wrong: u64,
}

impl<T> Entries<T> {
    fn new(file: String) -> Entries<T> {
        Entries { file, list: Vec::new(), at: 0, missing: false, len: 0, fault: None, wrong: 0 }
    }

    /// The entry that the walk has come to is wrong.
    fn wrong(&mut self, entry_len: usize, text: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.fault.is_none() {
            self.fault = Some((Some((self.at * entry_len) as u64), text()));
        }
        self.at += 1;
    }

    fn into_fault(self) -> Option<IndexFault> {
        let (position, mut text) = self.fault?;
        if self.wrong > 1 {
            let _ = write!(text, ", and {} entries more are wrong", self.wrong - 1);
        }
        Some(IndexFault { file: self.file, position, text, missing: self.missing, len: self.len })
    }
}

/// The indexes of one segment being checked.
#[derive(Debug)]
pub(super) struct IndexCheck {
    offsets: Entries<OffsetIndexEntry>,
    times: Entries<TimeIndexEntry>,
    largest: TimestampMs,
    /// The rule by which the segment is indexed, without a batch.
    rule: SegmentIndexer,
    /// Behind the last batch that an entry can name.
    nameable_end: u64,
    /// Bytes of both files.
    pub(super) bytes: u64,
}

const OFFSET_LEN: usize = edgelog_core::OFFSET_INDEX_ENTRY_LEN;
const TIME_LEN: usize = edgelog_core::TIME_INDEX_ENTRY_LEN;

impl IndexCheck {
    pub(super) fn load(storage: &dyn Storage, index: String, time_index: String, base_offset: Offset) -> IndexCheck {
        let mut offsets = Entries::new(index);
        let mut bytes = 0;
        if let Some(read) = load(storage, &mut offsets) {
            bytes += read.len() as u64;
            let index = OffsetIndex::new(&read, base_offset);
            match index.check() {
                Ok(()) => offsets.list = index.entries().collect(),
                Err(error) => offsets.fault = Some((None, error.to_string())),
            }
        }
        let mut times = Entries::new(time_index);
        if let Some(read) = load(storage, &mut times) {
            bytes += read.len() as u64;
            let index = TimeIndex::new(&read, base_offset);
            let is_true_or_zeros = |at| at == 0 && TimeIndex::new(&read[TIME_LEN..], base_offset).check().is_ok();
            match index.check() {
                Ok(()) => times.list = index.entries().collect(),
                // The one entry that may be all zeros: it is compared with the batch it names.
                Err(IndexError::ZeroEntry { entry }) if is_true_or_zeros(entry) => {
                    times.list = index.entries().collect();
                }
                Err(error) => times.fault = Some((None, error.to_string())),
            }
        }
        let rule = SegmentIndexer::new(base_offset, 0);
        IndexCheck { offsets, times, largest: NO_TIMESTAMP, rule, nameable_end: 0, bytes }
    }

    /// Places that the offset index names.
    pub(super) fn positions(&self) -> Vec<u64> {
        self.offsets.list.iter().map(|entry| u64::from(entry.position)).collect()
    }

    /// The next batch of the segment, which ends with `last_offset`.
    pub(super) fn on_batch(&mut self, position: u64, batch: &RecordBatch<'_>, last_offset: Offset) {
        let base_offset = batch.base_offset();
        let offsets = &mut self.offsets;
        while let Some(&entry) = offsets.list.get(offsets.at) {
            let named = u64::from(entry.position);
            if named > position {
                break;
            }
            if named == position && entry.offset == last_offset {
                offsets.at += 1;
                continue;
            }
            offsets.wrong(OFFSET_LEN, || {
                if named == position {
                    format!(
                        "the entry says that the batch at {named} ends with offset {}, and it ends with {last_offset}",
                        entry.offset
                    )
                } else {
                    format!("the entry for offset {} points at {named}, where no batch starts", entry.offset)
                }
            });
        }
        let largest = batch.max_timestamp();
        let first_reached = largest > self.largest;
        let times = &mut self.times;
        while let Some(&entry) = times.list.get(times.at) {
            if entry.offset > last_offset {
                break;
            }
            if entry.offset == last_offset && entry.timestamp == largest && first_reached {
                times.at += 1;
                continue;
            }
            times.wrong(TIME_LEN, || {
                let TimeIndexEntry { timestamp, offset } = entry;
                if offset < base_offset || offset < last_offset {
                    format!("the entry names offset {offset}, and no batch ends with it")
                } else {
                    format!(
                        "the entry says timestamp {timestamp} at offset {offset}, and the batch there has {largest}"
                    )
                }
            });
        }
        if self.rule.fits(last_offset) {
            self.largest = self.largest.max(largest);
            self.nameable_end = position + batch.size() as u64;
        }
    }

    /// A stretch where nothing can be said: up to byte `position`, below offset `offset`.
    pub(super) fn skip_to(&mut self, position: u64, offset: Offset) {
        while self.offsets.list.get(self.offsets.at).is_some_and(|entry| u64::from(entry.position) < position) {
            self.offsets.at += 1;
        }
        while let Some(entry) = self.times.list.get(self.times.at).filter(|entry| entry.offset < offset) {
            self.largest = self.largest.max(entry.timestamp);
            self.times.at += 1;
        }
    }

    /// The segment ends. `reach` is the most that may lie behind the last entry; a complete index of a sealed segment
    /// has to reach that far.
    pub(super) fn finish(mut self, reach: u64, complete: bool) -> Vec<IndexFault> {
        while let Some(&entry) = self.offsets.list.get(self.offsets.at) {
            self.offsets.wrong(OFFSET_LEN, || {
                format!("the entry for offset {} points at {}, behind the last batch", entry.offset, entry.position)
            });
        }
        while let Some(&entry) = self.times.list.get(self.times.at) {
            self.times.wrong(TIME_LEN, || format!("the entry names offset {}, behind the last batch", entry.offset));
        }
        if complete {
            let indexed = self.offsets.list.last().map_or(0, |entry| u64::from(entry.position));
            let len = self.nameable_end;
            if self.offsets.fault.is_none() && len > indexed.saturating_add(reach) {
                let text = format!("the last entry points at {indexed} of {len} bytes: entries are missing");
                self.offsets.fault = Some((None, text));
            }
            let last = self.times.list.last().map_or(NO_TIMESTAMP, |entry| entry.timestamp);
            if self.times.fault.is_none() && last < self.largest {
                let text = format!("the last entry says timestamp {last}, and the segment reaches {}", self.largest);
                self.times.fault = Some((None, text));
            }
        }
        [self.offsets.into_fault(), self.times.into_fault()].into_iter().flatten().collect()
    }
}

fn load<T>(storage: &dyn Storage, entries: &mut Entries<T>) -> Option<Vec<u8>> {
    match read_whole(storage, &entries.file, INDEX_BYTES_MAX as u64) {
        Ok(bytes) => {
            entries.len = bytes.len() as u64;
            Some(bytes)
        }
        Err(error) => {
            entries.missing = error.kind() == std::io::ErrorKind::NotFound;
            let text = if entries.missing { "missing".to_owned() } else { format!("cannot be read: {error}") };
            entries.fault = Some((None, text));
            None
        }
    }
}
