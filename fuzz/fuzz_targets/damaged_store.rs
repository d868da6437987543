#![no_main]
//! A whole store whose files were damaged. Nothing panics or loops: it is checked, opened, read over the damage,
//! appended to and closed; no reader gets a record that was not appended; and what repair leaves is sound.

use edgelog::Error;
use edgelog_fuzz::{Files, RECORDS, check, goes_on, options, read_all, repair, value};
use libfuzzer_sys::{arbitrary, fuzz_target};

#[derive(Debug, arbitrary::Arbitrary)]
struct Edit {
    /// Files are chosen by number.
    file: u8,
    at: u16,
    change: Change,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Change {
    Write(Vec<u8>),
    Fill {
        len: u8,
        byte: u8,
    },
    Cut,
    Remove,
    /// A stretch of the same file is put here.
    Repeat {
        from: u16,
        len: u16,
    },
}

fuzz_target!(|edits: Vec<Edit>| {
    let mut files = Files::sound().clone();
    let paths: Vec<String> = files.0.keys().cloned().collect();
    for edit in edits.iter().take(12) {
        let path = &paths[usize::from(edit.file) % paths.len()];
        let Some(bytes) = files.0.get_mut(path) else { continue };
        let at = usize::from(edit.at).min(bytes.len());
        match &edit.change {
            Change::Write(new) => write(bytes, at, new),
            Change::Fill { len, byte } => write(bytes, at, &vec![*byte; usize::from(*len)]),
            Change::Cut => bytes.truncate(at),
            Change::Remove => {
                files.0.remove(path);
            }
            Change::Repeat { from, len } => {
                let from = usize::from(*from).min(bytes.len());
                let to = (from + usize::from(*len)).min(bytes.len());
                let stretch = bytes[from..to].to_vec();
                write(bytes, at, &stretch);
            }
        }
    }
    let found = match check(&files.storage()) {
        Ok(found) => found,
        Err(Error::UnsupportedVersion { .. } | Error::UnknownTopicOrPartition { .. }) => return,
        Err(error) => panic!("checking answers {error}"),
    };
    if let Some(read) = goes_on(&files.storage()) {
        for (offset, read) in &read.records {
            // Base offsets are under no checksum; what a record says of itself is.
            let is_ours = (0..RECORDS).any(|offset| *read == value(offset));
            assert!(is_ours, "offset {offset} holds what was never appended: {read:?}");
        }
    }
    let repaired = files.storage();
    repair(&repaired).expect("a known format, and a disk without faults");
    let after = check(&repaired).expect("as above");
    assert!(after.is_sound(), "{found:#?}\nafter: {after:#?}");
    let store = options().open_on(repaired).expect("as above");
    for topic in store.topics().expect("an open store") {
        let read = read_all(&store, &topic.name, 0);
        assert_eq!(read.lost, [], "{found:#?}");
    }
});

fn write(bytes: &mut [u8], at: usize, new: &[u8]) {
    let len = new.len().min(bytes.len() - at);
    bytes[at..at + len].copy_from_slice(&new[..len]);
}
