//! How much of a log may be unflushed, and how far behind the checkpoint may be.

use edgelog::storage::MemoryStorage;
use edgelog::{Durability, NewRecord, NewTopic, OffsetSpec, Store, TimestampMs};
use edgelog_testkit::{TempDir, copy_dir, ticking};

/// A segment's worth of one record.
const VALUE: [u8; 3000] = [7; 3000];

/// An appender that had to wait at each roll for the segment before was as slow as the disk.
#[test]
fn eight_sealed_segments_may_wait_and_then_the_oldest_is_flushed_alone() {
    let store = ticking().open_on(MemoryStorage::new()).unwrap();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096")).unwrap();
    let log = store.log("t", 0).unwrap();
    let append = || log.append_with(NewRecord::value(&VALUE), Durability::Os).unwrap();
    for n in 0..9 {
        append();
        assert_eq!(log.offsets().recovery_point, 0, "after {n}");
    }
    for n in 1..5 {
        append();
        assert_eq!(log.offsets().recovery_point, n, "the oldest alone");
    }
    // Housekeeping flushes what is sealed, and the flush that was asked for all of it.
    store.tick(TimestampMs(1)).unwrap();
    assert_eq!(log.offsets().recovery_point, 12);
    log.flush().unwrap();
    assert_eq!(log.offsets().recovery_point, 13);
}

#[test]
fn unflushed_bytes_are_bounded_for_large_segments_too() {
    const MAX: i64 = 1 << 20;
    // Room is reserved in steps of so much, and looked at then.
    const STEP: i64 = 4 << 20;
    for segment_bytes in ["100000000", "200000"] {
        let options = ticking().set("edgelog.unflushed.bytes.max", &MAX.to_string()).unwrap();
        let store = options.open_on(MemoryStorage::new()).unwrap();
        store.create_topic(&NewTopic::new("t").config("segment.bytes", segment_bytes)).unwrap();
        let log = store.log("t", 0).unwrap();
        let mut most = 0;
        for _ in 0..7000 {
            log.append_with(NewRecord::value(&VALUE), Durability::Os).unwrap();
            let offsets = log.offsets();
            most = most.max((offsets.log_end_offset - offsets.recovery_point) * 3068);
        }
        assert!((MAX / 2..MAX + STEP + 4096).contains(&most), "{most} bytes, segments of {segment_bytes}");
        if segment_bytes == "200000" {
            assert!(most <= MAX + 200_000, "{most} bytes at a roll");
        }
    }
}

/// All was flushed, and a kill had the next open write a segment of a gibibyte again.
#[test]
fn the_checkpoint_follows_flushes_that_moved_far() {
    let (dir, copy) = (TempDir::new(), TempDir::new());
    let store = ticking().open(dir.path()).unwrap();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "1000000000")).unwrap();
    let log = store.log("t", 0).unwrap();
    let large = vec![1; 100_000];
    store.tick(TimestampMs(1)).unwrap();
    for _ in 0..60 {
        log.append_with(NewRecord::value(&large), Durability::Os).unwrap();
    }
    log.flush().unwrap();
    store.tick(TimestampMs(1)).unwrap();
    log.append_with(NewRecord::value(b"one more"), Durability::Os).unwrap();
    copy_dir(dir.path(), &copy.path().join("copy"));
    let killed = Store::open(copy.path().join("copy")).unwrap();
    assert_eq!(killed.recovery_report().recovered_records(), 1);
    let mut reader = killed.log("t", 0).unwrap().reader(OffsetSpec::Earliest).unwrap();
    let mut records = 0;
    while let Some(batch) = reader.next_batch().unwrap() {
        records += batch.records().unwrap().count();
    }
    assert_eq!(records, 61);
}
