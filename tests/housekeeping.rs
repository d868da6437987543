//! The work beside appends: what it does to files, and that it may run as often and as wildly as it likes.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use edgelog::{Durability, NewRecord, NewTopic, OffsetSpec, Store};
use support::{Place, batches_len, ticking};

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
    let mut reader = store.log("t", 0).unwrap().reader(OffsetSpec::Earliest).unwrap();
    let mut next = 0;
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            assert_eq!((record.offset, record.value), (next, Some(value(next).as_bytes())));
            next += 1;
        }
    }
    assert_eq!(next, to);
}

/// Kafka's tools and every other reader of the format: behind the batches of a sealed or closed segment no room is
/// left, whatever the durability that its last append had. Reads the files themselves.
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
            store.tick(1).unwrap();
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

/// Acknowledged records against housekeeping that several threads do at once, as a host may who calls `tick` beside
/// the store's own thread: every record is read back, from the same store and from the next one, and no sealed
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
                        store.tick(1).unwrap();
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
