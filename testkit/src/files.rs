//! A store's files as bytes.

use std::collections::BTreeMap;

use edgelog::edgelog_core::RecordBatch;
use edgelog::storage::{Access, MemoryStorage, Storage};

/// All files of a store, by their paths.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a store in memory has.
pub fn files_of(storage: &MemoryStorage) -> Files {
    let mut files = Files::new();
    for entry in storage.read_dir("").unwrap() {
        let paths = if entry.is_dir {
            let names = storage.read_dir(&entry.name).unwrap();
            names.into_iter().map(|file| format!("{}/{}", entry.name, file.name)).collect()
        } else {
            vec![entry.name]
        };
        for path in paths {
            let file = storage.open(&path, Access::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
            files.insert(path, bytes);
        }
    }
    files
}

/// A store in memory with these files.
pub fn storage_of(files: &Files) -> MemoryStorage {
    let storage = MemoryStorage::new();
    for (path, bytes) in files {
        if let Some((dir, _)) = path.split_once('/') {
            let _ = storage.create_dir(dir);
        }
        storage.open(path, Access::CreateNew).unwrap().write_at(bytes, 0).unwrap();
    }
    storage
}

/// How many bytes at the start of `bytes` are whole batches with good CRCs.
pub fn batches_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Ok(batch) = RecordBatch::parse(&bytes[at..]) {
        if batch.verify_crc().is_err() {
            break;
        }
        at += batch.size();
    }
    at
}
