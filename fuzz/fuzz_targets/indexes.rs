#![no_main]
//! Indexes. Any bytes are searched without a panic, as a walk over the entries would; and no matter what the index
//! files of a sound store say, every record is found by its offset: an index is never evidence.

use edgelog::OffsetSpec;
use edgelog::edgelog_core::{
    OFFSET_INDEX_ENTRY_LEN, Offset, OffsetIndex, Position, TIME_INDEX_ENTRY_LEN, TimeIndex, TimestampMs,
};
use edgelog_fuzz::{Files, RECORDS, TIME_BASE, options, read_from, value};
use libfuzzer_sys::{arbitrary, fuzz_target};

#[derive(Debug, arbitrary::Arbitrary)]
enum Input {
    Bytes {
        bytes: Vec<u8>,
        base_offset: u32,
        target: u64,
    },
    /// Files are chosen by number; each becomes `bytes`, or has them written into it.
    Files {
        edits: Vec<Edit>,
        offsets: [u8; 3],
    },
}

#[derive(Debug, arbitrary::Arbitrary)]
struct Edit {
    file: u8,
    at: Option<u8>,
    bytes: Vec<u8>,
}

fuzz_target!(|input: Input| match input {
    Input::Bytes { bytes, base_offset, target } => {
        let base_offset = i64::from(base_offset);
        let target = base_offset.wrapping_add(target as i64);
        offset_index(&bytes, base_offset, target);
        time_index(&bytes, base_offset, target);
    }
    Input::Files { edits, offsets } => files(&edits, &offsets),
});

fn offset_index(bytes: &[u8], base_offset: i64, target: i64) {
    let index = OffsetIndex::new(bytes, Offset(base_offset));
    assert_eq!(index.len(), bytes.len() / OFFSET_INDEX_ENTRY_LEN);
    let entries: Vec<_> = index.entries().collect();
    assert_eq!((entries.len(), entries.last().copied()), (index.len(), index.last()));
    let (by_offset, by_position) = (index.lookup(Offset(target)), index.lookup_position(Position(target as u32)));
    if index.check().is_ok() {
        // Sorted: the walk is the obvious way.
        let walked = entries.iter().rev().find(|entry| entry.offset <= target);
        assert_eq!(by_offset.position, walked.map_or(0, |entry| entry.position.0));
        let walked = entries.iter().rev().find(|entry| entry.position <= target as u32);
        assert_eq!(by_position.position, walked.map_or(0, |entry| entry.position.0));
        for entry in &entries {
            assert!(entry.encode(Offset(base_offset)).iter().eq(bytes_of(bytes, &entries, *entry)));
        }
    }
}

fn bytes_of<'a>(
    bytes: &'a [u8],
    entries: &[edgelog::edgelog_core::OffsetIndexEntry],
    entry: edgelog::edgelog_core::OffsetIndexEntry,
) -> &'a [u8] {
    let n = entries.iter().position(|other| *other == entry).expect("it is one of them");
    &bytes[n * OFFSET_INDEX_ENTRY_LEN..][..OFFSET_INDEX_ENTRY_LEN]
}

fn time_index(bytes: &[u8], base_offset: i64, target: i64) {
    let index = TimeIndex::new(bytes, Offset(base_offset));
    assert_eq!(index.len(), bytes.len() / TIME_INDEX_ENTRY_LEN);
    let entries: Vec<_> = index.entries().collect();
    assert_eq!((entries.len(), entries.last().copied()), (index.len(), index.last()));
    let found = index.lookup(TimestampMs(target));
    if index.check().is_ok() {
        let walked = entries.iter().rev().find(|entry| entry.timestamp <= target);
        assert_eq!(found.offset, walked.map_or(base_offset, |entry| entry.offset.0));
    }
}

fn files(edits: &[Edit], offsets: &[u8]) {
    let mut files = Files::sound().clone();
    let paths: Vec<String> = files.0.keys().filter(|path| path.ends_with("index")).cloned().collect();
    for edit in edits.iter().take(8) {
        let path = &paths[usize::from(edit.file) % paths.len()];
        let bytes = files.0.get_mut(path).expect("one of them");
        match edit.at {
            None => bytes.clone_from(&edit.bytes),
            Some(at) => {
                let at = usize::from(at).min(bytes.len());
                let len = edit.bytes.len().min(bytes.len() - at);
                bytes[at..at + len].copy_from_slice(&edit.bytes[..len]);
            }
        }
    }
    let store = options().open_on(files.storage()).expect("indexes are derived");
    let log = store.log("t", 0).expect("it is there");
    for &offset in offsets {
        let offset = i64::from(offset) % RECORDS;
        let read = read_from(&log, OffsetSpec::Offset(Offset(offset)));
        let expected: Vec<_> = (offset..RECORDS).map(|offset| (offset, value(offset))).collect();
        assert_eq!((read.records, read.lost), (expected, Vec::new()));
        if let Some(found) = log.offset_for_time(TimestampMs(TIME_BASE + offset)).expect("a sound log") {
            assert!(found.offset >= offset, "offset {} is older than asked for", found.offset);
        }
    }
}
