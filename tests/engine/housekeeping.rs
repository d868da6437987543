//! Housekeeping: what it does to files, and that it may run at any time and in any number of threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edgelog::clock::ManualClock;
use edgelog::storage::MemoryStorage;
use edgelog::{Durability, Error, NewRecord, NewTopic, Offset, OffsetSpec, Store, TimestampMs};
use edgelog_testkit::faults::{FaultyStorage, quiet_injected_panics};
use edgelog_testkit::{Place, TempDir, batches_len, copy_dir, ticking};

fn small_topic() -> NewTopic {
    NewTopic::new("t").config("segment.bytes", "8192").config("retention.ms", "-1")
}

fn value(n: i64) -> String {
    format!("record {n} {}", "x".repeat((n % 300) as usize))
}

fn append(store: &Store, from: i64, to: i64, durability: Durability) {
    let log = store.log("t", 0).unwrap();
    for n in from..to {
        let info = log.append_with(NewRecord::value(value(n).as_bytes()), durability).unwrap();
        assert_eq!(info.base_offset, n);
    }
}

fn check(store: &Store, to: i64) {
    assert_eq!(read_all(store), to);
}

/// Reads the records, each as `append` made it, and returns how many there are.
fn read_all(store: &Store) -> i64 {
    let mut reader = store.log("t", 0).unwrap().reader(OffsetSpec::Earliest).unwrap();
    let mut next = 0;
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            assert_eq!((record.offset, record.value), (Offset(next), Some(value(next).as_bytes())));
            next += 1;
        }
    }
    next
}

/// While the housekeeping thread prepares room, the writer is close behind it: a zero written a moment too late would
/// be in the middle of a batch.
#[test]
fn room_is_prepared_ahead_of_a_fast_writer_and_never_under_it() {
    const RECORDS: i64 = 4_000;
    let buffers: Vec<Vec<u8>> = (1..=251).map(|byte| vec![byte; 60_000]).collect();
    // From a few bytes to most of what is stored through a map.
    let value = |n: i64| &buffers[(n % 251) as usize][..(n * 7919 % 60_000) as usize];
    for place in Place::all() {
        let store = place.open(Store::options());
        // A few times as long as the steps in which room is reserved: also across rolls.
        let topic = NewTopic::new("t").config("segment.bytes", "20000000").config("retention.bytes", "100000000");
        store.create_topic(&topic).unwrap();
        let log = store.log("t", 0).unwrap();
        for n in 0..RECORDS {
            log.append_with(NewRecord::value(value(n)), Durability::Os).unwrap();
        }
        let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
        let mut next = 0;
        while let Some(batch) = reader.next_batch().unwrap() {
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                assert_eq!(record.offset, next, "{}", place.name());
                assert!(record.value == Some(value(next)), "{}: record {next}", place.name());
                next += 1;
            }
        }
        assert_eq!(next, RECORDS, "{}", place.name());
        store.close().unwrap();
    }
}

/// Kafka's tools and every other reader of the format: behind the batches of a sealed or closed segment no room is
/// left, at any durability of its last append. Reads the files themselves.
#[test]
fn sealed_segments_hold_batches_and_nothing_behind_them() {
    for durability in [Durability::Os, Durability::Interval, Durability::Sync] {
        for place in Place::all() {
            let store = place.open(ticking());
            store.create_topic(&small_topic()).unwrap();
            // A flush before every roll, at the very end of the segment, is what Sync does; here it hits each level.
            for n in 0..200 {
                append(&store, n, n + 1, durability);
                if n % 3 == 0 {
                    store.flush().unwrap();
                }
            }
            store.tick(TimestampMs(1)).unwrap();
            let logs = place.files("t-0", ".log");
            assert!(logs.len() > 4, "{} segments", logs.len());
            for (name, bytes) in &logs[..logs.len() - 1] {
                assert_eq!(bytes.len(), batches_len(bytes), "{durability:?}, {}: {name}", place.name());
            }
            store.close().unwrap();
            for (name, bytes) in place.files("t-0", ".log") {
                assert_eq!(bytes.len(), batches_len(&bytes), "{durability:?}, {}: {name} closed", place.name());
            }
        }
    }
}

/// Acknowledged records against housekeeping that several threads do at once, as in a host program that calls `tick`
/// next to the store's own thread. Every record is read back, from the same store and from the next one, and no sealed
/// segment has room behind its batches.
#[test]
fn housekeeping_from_many_threads_loses_nothing() {
    const RECORDS: i64 = 4000;
    for place in Place::all() {
        let store = place.open(Store::options());
        store.create_topic(&small_topic()).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        store.tick(TimestampMs(1)).unwrap();
                    }
                });
            }
            append(&store, 0, RECORDS, Durability::Os);
            done.store(true, Ordering::Relaxed);
        });
        check(&store, RECORDS);
        store.close().unwrap();
        drop(store);
        let store = place.open(Store::options());
        assert!(store.recovery_report().clean, "{}", store.recovery_report());
        check(&store, RECORDS);
        drop(store);
        for (name, bytes) in place.files("t-0", ".log") {
            assert_eq!(bytes.len(), batches_len(&bytes), "{}: {name}", place.name());
        }
    }
}

/// The indexes of sealed segments, which a crash may come before: once the store was closed cleanly every segment has
/// both, byte for byte those of a store that nothing happened to.
#[test]
fn a_crash_before_indexes_were_written_leaves_them_to_the_next_close() {
    for mode in ["map", "file"] {
        let (undisturbed, crashed) = (Place::Directory(TempDir::new(), mode), Place::Directory(TempDir::new(), mode));
        let clock = ManualClock::new(TimestampMs(1_700_000_000_000));
        for (place, crashes) in [(&undisturbed, false), (&crashed, true)] {
            let store = place.open(ticking().clock(clock.clone()));
            store.create_topic(&small_topic().config("index.interval.bytes", "500")).unwrap();
            append(&store, 0, 300, Durability::Sync);
            store.flush().unwrap();
            if crashes {
                // The descriptors stay open, and so does the lock: the next store is opened on a copy.
                std::mem::forget(store);
            } else {
                store.close().unwrap();
            }
        }
        let Place::Directory(dir, _) = &crashed else { unreachable!("made above") };
        let copy = TempDir::new();
        copy_dir(dir.path(), copy.path());
        let recovered = Place::Directory(copy, mode);
        let store = recovered.open(ticking());
        assert!(!store.recovery_report().clean);
        store.close().unwrap();
        for ending in [".index", ".timeindex"] {
            let (expected, found) = (undisturbed.files("t-0", ending), recovered.files("t-0", ending));
            assert!(expected.len() > 4 && expected.iter().any(|(_, bytes)| !bytes.is_empty()), "{ending}");
            let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&expected), names(&found), "{mode}");
            assert!(expected == found, "{mode}: the {ending} files differ");
        }
    }
}

/// A truncation into a sealed segment, whose indexes then know batches that are gone: after the next close all files
/// are those of a store that never had the truncated records.
#[test]
fn a_truncation_leaves_no_index_of_what_it_removed() {
    for place in Place::all() {
        let clock = ManualClock::new(TimestampMs(1_700_000_000_000));
        let store = place.open(ticking().clock(clock.clone()));
        store.create_topic(&small_topic().config("index.interval.bytes", "500")).unwrap();
        append(&store, 0, 300, Durability::Sync);
        store.tick(TimestampMs(1)).unwrap();
        assert_eq!(store.log("t", 0).unwrap().truncate_to(Offset(145)).unwrap(), 145);
        store.close().unwrap();

        let never = Place::Memory(MemoryStorage::new());
        let store = never.open(ticking().clock(clock));
        store.create_topic(&small_topic().config("index.interval.bytes", "500")).unwrap();
        append(&store, 0, 145, Durability::Sync);
        store.close().unwrap();
        for ending in [".log", ".index", ".timeindex"] {
            let (expected, found) = (never.files("t-0", ending), place.files("t-0", ending));
            assert!(expected.len() > 1 && expected == found, "{}: the {ending} files differ", place.name());
        }
    }
}

/// What a host does that caught a panic and trusts nothing that its process remembers.
#[test]
fn an_abandoned_store_is_recovered_by_the_next_open() {
    let place = TempDir::new();
    let store = Store::open(place.path()).unwrap();
    store.create_topic(&small_topic()).unwrap();
    append(&store, 0, 20, Durability::Sync);
    let log = store.log("t", 0).unwrap();
    store.abandon();
    assert!(matches!(log.append(NewRecord::value(b"late")), Err(edgelog::Error::Closed)));
    let store = Store::open(place.path()).unwrap();
    assert!(!store.recovery_report().clean);
    check(&store, 20);
}

/// The housekeeping thread has no caller to return an error to. If it panics, the store returns Closed from then on,
/// threads that wait wake up, and the next open finds what was acknowledged.
#[test]
fn a_panic_of_the_housekeeping_thread_closes_the_store_and_reaches_no_caller() {
    quiet_injected_panics();
    // A roll wakes the thread, which has the sealed segment to flush and the checkpoint to write: these calls and more.
    for at in 0..3 {
        let disk = MemoryStorage::new();
        let store = Store::options().open_on(FaultyStorage::panics_in_housekeeping(disk.clone(), at)).unwrap();
        store.create_topic(&small_topic()).unwrap();
        let log = store.log("t", 0).unwrap();
        let mut follower = log.reader(OffsetSpec::Earliest).unwrap();
        let mut acknowledged = 0;
        for n in 0..200 {
            match log.append(NewRecord::value(value(n).as_bytes())) {
                Ok(_) => acknowledged = n + 1,
                Err(error) => assert!(matches!(error, Error::Closed), "at call {at}: {error}"),
            }
        }
        let ended = loop {
            match follower.next_batch_timeout(Duration::from_secs(60)) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("at call {at}: a reader that waits wakes up"),
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, Error::Closed), "at call {at}: {ended}");
        assert!(matches!(log.append(NewRecord::value(b"late")), Err(Error::Closed)), "at call {at}");
        assert!(matches!(store.close(), Err(Error::Closed)), "at call {at}: it was no clean close");
        // The directory is free, though the store and what was made from it are still there.
        let next = Store::options().open_on(disk).unwrap();
        assert!(!next.recovery_report().clean, "at call {at}");
        assert!(read_all(&next) >= acknowledged, "at call {at}");
    }
}

/// A sensor that writes a record every ten seconds must not wear the flash with as many checkpoints; a log that moves
/// is checkpointed at each turn.
#[test]
fn a_slow_log_is_checkpointed_now_and_then_and_a_busy_one_each_time() {
    let dir = TempDir::new();
    let store = ticking().open(dir.path()).unwrap();
    store.create_topic(&NewTopic::new("t").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    let checkpoint = || std::fs::read(dir.path().join("edgelog.checkpoint")).unwrap();
    let mut now = 1_000_000;
    let mut written = |bytes: usize, turns: usize| {
        (0..turns).fold(0, |count, _| {
            let before = checkpoint();
            log.append_with(NewRecord::value(&vec![b'x'; bytes]), Durability::Sync).unwrap();
            now += 10_000;
            store.tick(TimestampMs(now)).unwrap();
            count + usize::from(checkpoint() != before)
        })
    };
    let slow = written(200, 60);
    assert!((8..=12).contains(&slow), "{slow} checkpoints");
    assert_eq!(written(70_000, 5), 5);
}
