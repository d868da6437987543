//! What several targets share: a small store in memory whose files can be damaged, and what has to hold of it then.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use edgelog::inspect::{self, CheckReport, RepairReport, Selection};
use edgelog::storage::{Access, MemoryStorage, Storage};
use edgelog::{Durability, Error, NewRecord, NewTopic, OffsetSpec, Store, StoreOptions, TimestampMs};

/// Records of [`Files::sound`], from offset 0 on.
pub const RECORDS: i64 = 60;
/// The timestamp of offset 0; each record's is one more than the one before.
pub const TIME_BASE: i64 = 1_000;
/// Steps of a reader after which it must have come to an end.
const STEPS_MAX: usize = 100_000;

/// The value of the record at `offset` of the sound store.
pub fn value(offset: i64) -> Vec<u8> {
    format!("{offset} {}", "v".repeat((offset * 7 % 90) as usize)).into_bytes()
}

/// The files of a store, by path; directories are the paths' own.
#[derive(Clone)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

impl Files {
    /// A cleanly closed store of one log, in three segments with indexes.
    pub fn sound() -> &'static Files {
        static FILES: OnceLock<Files> = OnceLock::new();
        FILES.get_or_init(|| {
            let storage = MemoryStorage::new();
            let store = options().open_on(storage.clone()).expect("an empty disk");
            let topic = NewTopic::new("t").config("segment.bytes", "4096").config("index.interval.bytes", "256");
            store.create_topic(&topic.config("retention.ms", "-1")).expect("a new topic");
            let log = store.log("t", 0).expect("just created");
            for offset in 0..RECORDS {
                let value = value(offset);
                let record = NewRecord::value(&value).with_timestamp(TimestampMs(TIME_BASE + offset));
                log.append_with(record, Durability::Sync).expect("a disk without bounds");
            }
            store.close().expect("a disk without faults");
            let files = Files::of(&storage);
            assert!(files.check().is_sound() && files.0.len() > 9, "{:?}", files.0.keys());
            files
        })
    }

    /// Everything on `storage`.
    pub fn of(storage: &MemoryStorage) -> Files {
        let mut files = BTreeMap::new();
        let read = |path: &str| {
            let file = storage.open(path, Access::Read).expect("it is listed");
            let mut bytes = vec![0; file.len().expect("memory") as usize];
            assert_eq!(file.read_at(&mut bytes, 0).expect("memory"), bytes.len());
            bytes
        };
        for entry in storage.read_dir("").expect("the root") {
            if !entry.is_dir {
                files.insert(entry.name.clone(), read(&entry.name));
                continue;
            }
            for file in storage.read_dir(&entry.name).expect("it is listed") {
                let path = format!("{}/{}", entry.name, file.name);
                files.insert(path.clone(), read(&path));
            }
        }
        Files(files)
    }

    /// A disk with these files.
    pub fn storage(&self) -> MemoryStorage {
        let storage = MemoryStorage::new();
        for (path, bytes) in &self.0 {
            if let Some((dir, _)) = path.split_once('/') {
                let _ = storage.create_dir(dir);
            }
            let file = storage.open(path, Access::CreateNew).expect("each path once");
            file.write_at(bytes, 0).expect("a disk without bounds");
        }
        storage
    }

    /// What the inspection finds; it never fails on a store of a known format.
    pub fn check(&self) -> CheckReport {
        check(&self.storage()).expect("a known format")
    }
}

/// The options of a store whose housekeeping is the target's own.
pub fn options() -> StoreOptions {
    Store::options().set("edgelog.housekeeping", "tick").expect("a key")
}

/// Checks the store on `storage`.
pub fn check(storage: &MemoryStorage) -> edgelog::Result<CheckReport> {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    inspect::check(&storage, &Selection::all(), &mut |_| ControlFlow::Continue(()))
}

/// Repairs the store on `storage`.
pub fn repair(storage: &MemoryStorage) -> edgelog::Result<RepairReport> {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    inspect::repair(&storage, &Selection::all(), false, &mut |_| ControlFlow::Continue(()))
}

/// What a reader made of a log.
#[derive(Debug, Default)]
pub struct ReadAll {
    /// Offset and value of each record, in the order in which they came.
    pub records: Vec<(i64, Vec<u8>)>,
    /// Offsets that damage has taken.
    pub lost: Vec<(i64, i64)>,
}

/// Reads a log of a store from its start to its end, over damage.
pub fn read_all(store: &Store, topic: &str, partition: u32) -> ReadAll {
    let log = store.log(topic, partition).expect("the log is listed");
    read_from(&log, OffsetSpec::Earliest)
}

/// Reads a log from `from` on to its end, over damage. Offsets rise, and reading ends.
pub fn read_from(log: &edgelog::Log, from: OffsetSpec) -> ReadAll {
    let mut all = ReadAll::default();
    let mut reader = log.reader(from).expect("a position inside the log");
    for _ in 0..STEPS_MAX {
        match reader.next_batch() {
            Ok(None) => return all,
            Ok(Some(batch)) => match batch.records() {
                Ok(records) => {
                    for record in records {
                        // A batch with a good sum may still hold what is no record.
                        let Ok(record) = record else { break };
                        assert!(all.records.last().is_none_or(|(last, _)| *last < record.offset.0), "offsets rise");
                        all.records.push((record.offset.0, record.value.unwrap_or_default().to_vec()));
                    }
                }
                Err(Error::CorruptRecord { .. } | Error::Compression(_)) => {}
                Err(error) => panic!("records of a batch: {error}"),
            },
            Err(Error::CorruptRecord { .. }) => {
                let range = reader.skip_damage().expect("a disk without faults");
                assert!(range.first_offset <= range.next_offset, "{range:?}");
                all.lost.push((range.first_offset.0, range.next_offset.0));
            }
            Err(error) => panic!("reading from {from:?}: {error}"),
        }
    }
    panic!("reading does not end: {} records, {} stretches of damage", all.records.len(), all.lost.len());
}

/// The store on `storage` opens, no matter what was done to its files, unless they name a version that is not known;
/// then it is read, appended to and closed, and opens again with what was appended. `None` for an unknown version.
pub fn goes_on(storage: &MemoryStorage) -> Option<ReadAll> {
    let store = match options().open_on(storage.clone()) {
        Ok(store) => store,
        Err(Error::UnsupportedVersion { .. }) => return None,
        Err(error) => panic!("opening answers {error}"),
    };
    let mut all = ReadAll::default();
    let mut appended = Vec::new();
    for topic in store.topics().expect("an open store") {
        for partition in 0..topic.partitions {
            let Ok(log) = store.log(&topic.name, partition) else { continue };
            all = read_all(&store, &topic.name, partition);
            let end = log.offsets().log_end_offset;
            assert!(all.records.last().is_none_or(|(last, _)| *last < end.0), "nothing is read behind the end {end}");
            match log.append_with(NewRecord::value(b"goes on"), Durability::Sync) {
                Ok(info) => {
                    assert_eq!(info.base_offset, end);
                    appended.push((topic.name.clone(), partition, end));
                }
                Err(error) => panic!("appending answers {error}"),
            }
        }
    }
    store.close().expect("a disk without faults");
    let store = options().open_on(storage.clone()).expect("it was closed cleanly");
    assert!(store.recovery_report().clean, "{}", store.recovery_report());
    for (topic, partition, offset) in appended {
        let log = store.log(&topic, partition).expect("it was there");
        let read = read_from(&log, OffsetSpec::Offset(offset));
        assert_eq!(read.records, [(offset.0, b"goes on".to_vec())], "{topic}-{partition}");
    }
    Some(all)
}
