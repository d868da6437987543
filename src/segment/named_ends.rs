//! Where batches end, as the files next to a segment say it: what a base offset that no checksum covers is held against
//! where no batch follows.
//!
//! Kafka keeps the last offset of a batch in the last entry of each index, and at a clean stop names a producer
//! snapshot by the log's end. These are no proof by themselves. But where they agree with the offset that is due, and
//! the batch there claims another one, the batch's field is the one that is damaged.

use edgelog_core::{OFFSET_INDEX_ENTRY_LEN, Offset, TIME_INDEX_ENTRY_LEN};

use super::file_names;
use crate::storage::{Access, Storage};

/// The ends of batches that other files name; 0 where one names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamedEnds {
    /// By the last entries of the offset index and of the time index.
    indexed: [Offset; 2],
    /// By the greatest snapshot of a log's last segment.
    snapshot: Offset,
}

impl NamedEnds {
    /// No file says where a batch ends.
    pub(crate) const NONE: NamedEnds = NamedEnds { indexed: [Offset(0); 2], snapshot: Offset(0) };

    /// What the files in the directory `dir` say of the segment at `base`. Only behind a log's last segment does a
    /// snapshot say where it ends: what stands before may be compacted.
    pub(crate) fn read(storage: &dyn Storage, dir: &str, base: Offset, is_last: bool) -> NamedEnds {
        let [index, time_index] = file_names::index_files(dir, base);
        let offset_entry = last_entry::<OFFSET_INDEX_ENTRY_LEN>(storage, &index);
        let time_entry = last_entry::<TIME_INDEX_ENTRY_LEN>(storage, &time_index);
        let relative = [offset_entry.map(|entry| relative(&entry[..4])), time_entry.map(|entry| relative(&entry[8..]))];
        let indexed = relative.map(|relative| relative.map_or(Offset(0), |it| base.saturating_add(it + 1)));
        let names = if is_last { storage.read_dir(dir).unwrap_or_default() } else { Vec::new() };
        let snapshots = names.iter().filter_map(|entry| file_names::parse_snapshot_file(&entry.name));
        NamedEnds { indexed, snapshot: snapshots.max().filter(|&end| end > base).unwrap_or(Offset(0)) }
    }

    /// Whether one of them is `end`.
    pub(crate) fn has(&self, end: Offset) -> bool {
        end > 0 && (self.indexed.contains(&end) || self.snapshot == end)
    }
}

fn relative(bytes: &[u8]) -> i64 {
    bytes.first_chunk().map_or(-1, |bytes| i64::from(i32::from_be_bytes(*bytes)))
}

/// The last entry of an index that is not all zeros: a broker that was killed leaves reserved room behind it.
fn last_entry<const LEN: usize>(storage: &dyn Storage, path: &str) -> Option<[u8; LEN]> {
    let file = storage.open(path, Access::Read).ok()?;
    let entry = |at: u64| {
        let mut bytes = [0; LEN];
        let is_whole = file.read_at(&mut bytes, at * LEN as u64).ok()? == LEN;
        (is_whole && bytes != [0; LEN]).then_some(bytes)
    };
    let (mut written, mut end) = (0, file.len().ok()? / LEN as u64);
    // Entries rise: up to some point none is all zeros, and from there on all are. The very first one may be.
    while written < end {
        let middle = written + (end - written) / 2;
        if entry(middle).is_some() {
            written = middle + 1;
        } else {
            end = middle;
        }
    }
    entry(written.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn put(storage: &MemoryStorage, path: &str, bytes: &[u8]) {
        storage.open(path, Access::CreateNew).unwrap().write_at(bytes, 0).unwrap();
    }

    #[test]
    fn the_last_entry_before_reserved_room_counts_and_so_does_the_greatest_snapshot() {
        let storage = MemoryStorage::new();
        storage.create_dir("t-0").unwrap();
        let base = Offset(100);
        let [index, time_index] = file_names::index_files("t-0", base);
        let entries = |count: i32| (1..=count).flat_map(|n| [(n * 10).to_be_bytes(), (n * 99).to_be_bytes()].concat());
        put(&storage, &index, &entries(7).chain([0; 8 * 30]).collect::<Vec<u8>>());
        put(&storage, &time_index, &[&[0, 0, 0, 0, 0, 0, 0, 9][..], &85_i32.to_be_bytes(), &[7; 5]].concat());
        for snapshot in [100, 140, 190] {
            put(&storage, &format!("t-0/{snapshot:020}.snapshot"), b"");
        }
        let ends = NamedEnds::read(&storage, "t-0", base, true);
        let named = |ends: NamedEnds| (0..300).filter(|&end| ends.has(Offset(end))).collect::<Vec<_>>();
        assert_eq!(named(ends), [171, 186, 190]);
        assert_eq!(named(NamedEnds::read(&storage, "t-0", base, false)), [171, 186]);
        assert_eq!(named(NamedEnds::read(&storage, "t-0", Offset(7), true)), [190]);
        assert_eq!(named(NamedEnds::NONE), Vec::<i64>::new());
    }
}
