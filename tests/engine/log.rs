//! One log from its public face: what is appended is read back, no matter what happens in between. Each test runs
//! on a directory in each way of storing, and in memory.

use edgelog::edgelog_core::{LeaderEpoch, OFFSET_MAX, Offset, Position, RecordBatchBuilder, TimestampMs, stamp_base};
use edgelog::storage::{Access, MemoryStorage, Storage};
use edgelog::{Durability, Error, Header, Log, NewRecord, NewTopic, OffsetSpec, Store};
use edgelog_testkit::faults::FaultyStorage;
use edgelog_testkit::{Place, TempDir, copy_dir, ticking};

fn small_topic() -> NewTopic {
    NewTopic::new("t")
        .config("segment.bytes", "4096")
        .config("index.interval.bytes", "512")
        .config("retention.ms", "-1")
}

fn value(n: i64) -> String {
    format!("value {n} {}", "x".repeat((n % 40) as usize))
}

fn append(log: &Log, from: i64, to: i64, durability: Durability) {
    for n in from..to {
        let (key, value) = (format!("k{n}"), value(n));
        let headers = [Header::new("h", b"v")];
        let record = NewRecord::value(value.as_bytes()).with_key(key.as_bytes()).with_headers(&headers);
        let info = log.append_with(record.with_timestamp(TimestampMs(1000 + n)), durability).unwrap();
        assert_eq!(info.base_offset, n);
    }
}

fn check(log: &Log, from: i64, to: i64) {
    let mut reader = log.reader(OffsetSpec::Offset(Offset(from))).unwrap();
    let mut next = from;
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            assert_eq!(record.offset, next);
            assert_eq!(record.value, Some(value(next).as_bytes()));
            assert_eq!(record.key, Some(format!("k{next}").as_bytes()));
            assert_eq!(record.timestamp, 1000 + next);
            assert_eq!(record.headers().next().unwrap().value, Some(&b"v"[..]));
            next += 1;
        }
    }
    assert_eq!(next, to);
}

#[test]
fn what_is_appended_is_read_back_over_many_segments_and_reopens() {
    for place in Place::all() {
        let mut end = 0;
        for round in 0..4 {
            let store = place.open(ticking());
            assert!(store.recovery_report().clean, "{}", store.recovery_report());
            store.create_topic_if_absent(&small_topic()).unwrap();
            let log = store.log("t", 0).unwrap();
            assert_eq!(log.offsets().log_end_offset, end);
            let durability = [Durability::Os, Durability::Sync, Durability::Interval, Durability::Os][round];
            append(&log, end, end + 200, durability);
            end += 200;
            store.tick(TimestampMs(i64::from(round as u8))).unwrap();
            for from in [0, 1, 57, end - 1, end] {
                check(&log, from, end);
            }
            assert!(log.size().unwrap().0 > 3);
            assert_eq!(log.leader_epoch(), 0);
            store.close().unwrap();
        }
    }
}

#[test]
fn a_store_that_was_not_closed_comes_back_with_a_new_epoch() {
    for place in Place::all() {
        let store = place.open(ticking());
        store.create_topic(&small_topic()).unwrap();
        let log = store.log("t", 0).unwrap();
        append(&log, 0, 300, Durability::Os);
        drop(log);
        // As after a crash: nothing of the closing happens.
        leak(store);
        if matches!(place, Place::Memory(_)) {
            continue;
        }
        let Place::Directory(dir, mode) = &place else { continue };
        let copy = TempDir::new();
        copy_dir(dir.path(), copy.path());
        let store = ticking().set("edgelog.storage", mode).unwrap().open(copy.path()).unwrap();
        let report = store.recovery_report();
        assert!(!report.clean);
        assert!(report.recovered_records() > 0 && report.cut_bytes() == 0, "{report}");
        let log = store.log("t", 0).unwrap();
        assert_eq!(log.leader_epoch(), 1);
        check(&log, 0, 300);
        append(&log, 300, 400, Durability::Sync);
        check(&log, 0, 400);
    }
}

fn leak(store: Store) {
    std::mem::forget(store);
}

#[test]
fn an_attached_reader_sees_what_the_writer_appends() {
    for place in Place::all() {
        let store = place.open(ticking());
        store.create_topic(&small_topic()).unwrap();
        let log = store.log("t", 0).unwrap();
        append(&log, 0, 10, Durability::Os);
        let attached = place.attach(ticking());
        let seen = attached.log("t", 0).unwrap();
        check(&seen, 0, 10);
        append(&log, 10, 500, Durability::Os);
        check(&seen, 0, 500);
        assert!(matches!(seen.append(NewRecord::value(b"no")), Err(Error::ReadOnly)));
        log.truncate_to(Offset(250)).unwrap();
        let end = log.offsets().log_end_offset;
        append(&log, end.0, 700, Durability::Os);
        check(&seen, 0, 700);
        let again = place.attach(ticking());
        check(&again.log("t", 0).unwrap(), 0, 700);
    }
}

#[test]
fn truncation_fences_readers_that_saw_what_it_removed() {
    for place in Place::all() {
        let store = place.open(ticking());
        store.create_topic(&small_topic()).unwrap();
        let log = store.log("t", 0).unwrap();
        append(&log, 0, 300, Durability::Os);
        let mut behind = log.reader(OffsetSpec::Earliest).unwrap();
        let held = behind.next_batch().unwrap().unwrap();
        let mut ahead = log.reader(OffsetSpec::Last(5)).unwrap();
        while ahead.next_batch().unwrap().is_some() {}
        let position = ahead.position();
        assert_eq!(position.offset, 300);
        assert_eq!(log.truncate_to(Offset(120)).unwrap(), 120);
        assert_eq!(log.leader_epoch(), 1);
        assert!(matches!(ahead.next_batch(), Err(Error::FencedLeaderEpoch { .. })));
        append(&log, 120, 400, Durability::Sync);
        assert!(matches!(log.reader(OffsetSpec::Position(position)), Err(Error::FencedLeaderEpoch { .. })));
        check(&log, 0, 400);
        assert_eq!(held.records().unwrap().next().unwrap().unwrap().value, Some(value(0).as_bytes()));
        let mut next = 1;
        while let Some(batch) = behind.next_batch().unwrap() {
            next += batch.records().unwrap().count() as i64;
        }
        assert_eq!(next, 400);
    }
}

#[test]
fn retention_and_delete_records_move_the_log_start() {
    for place in Place::all() {
        let store = place.open(ticking());
        store.create_topic(&small_topic()).unwrap();
        let log = store.log("t", 0).unwrap();
        append(&log, 0, 500, Durability::Os);
        assert_eq!(log.delete_records_before(Offset(333)).unwrap(), 333);
        check(&log, 333, 500);
        assert!(matches!(log.reader(OffsetSpec::Offset(Offset(332))), Err(Error::OffsetOutOfRange { .. })));
        drop(log);
        drop(store);
        let store = place.open(ticking());
        let log = store.log("t", 0).unwrap();
        assert_eq!(log.offsets().log_start_offset, 333);
        store.alter_topic("t", &[("retention.bytes", Some("8192"))]).unwrap();
        store.tick(TimestampMs(i64::MAX / 2)).unwrap();
        assert!(log.size().unwrap().1 < 8192 + 4096 + 1, "{:?}", log.size());
        assert!(log.offsets().log_start_offset > 333);
        check(&log, log.offsets().log_start_offset.0, 500);
    }
}

#[cfg(feature = "snappy")]
#[test]
fn batches_compress_and_read_back() {
    for place in Place::all() {
        let store = place.open(ticking());
        store.create_topic(&NewTopic::new("t").config("compression.type", "snappy")).unwrap();
        let log = store.log("t", 0).unwrap();
        let mut batch = log.batch();
        for n in 0..1000 {
            batch.push(NewRecord::value(value(n).as_bytes()).with_timestamp(TimestampMs(1000 + n))).unwrap();
            if n % 100 == 99 {
                log.append_batch(&mut batch).unwrap();
                assert!(batch.is_empty());
            }
        }
        let mut reader = log.reader(OffsetSpec::Offset(Offset(555))).unwrap();
        let mut next = 555;
        while let Some(batch) = reader.next_batch().unwrap() {
            assert_eq!(batch.view().compression(), edgelog::CompressionType::Snappy);
            for record in batch.records().unwrap() {
                assert_eq!(record.unwrap().value, Some(value(next).as_bytes()));
                next += 1;
            }
        }
        assert_eq!(next, 1000);
        for time in [0, 1000, 1555, 1999] {
            assert_eq!(log.offset_for_time(TimestampMs(time)).unwrap().unwrap().offset, (time - 1000).max(0));
        }
        assert_eq!(log.offset_for_time(TimestampMs(2000)).unwrap(), None);
    }
}

/// A reader stood before a damaged batch, and the log was truncated there: the reader went over the damage in the file
/// of before, and so over the records that were appended since.
#[test]
fn damage_that_was_truncated_is_passed_over_by_no_reader() {
    let storage = MemoryStorage::new();
    let store = ticking().open_on(storage.clone()).unwrap();
    store.create_topic(&NewTopic::new("t")).unwrap();
    let log = store.log("t", 0).unwrap();
    append(&log, 0, 4, Durability::Sync);
    let file = storage.open("t-0/00000000000000000000.log", Access::Write).unwrap();
    let mut byte = [0];
    let in_second = file.len().unwrap().min(150);
    file.read_at(&mut byte, in_second).unwrap();
    file.write_at(&[byte[0] ^ 1], in_second).unwrap();
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    assert!(reader.next_batch().unwrap().is_some());
    assert!(matches!(reader.next_batch(), Err(Error::CorruptRecord { offset: Offset(1), .. })));
    log.truncate_to(Offset(1)).unwrap();
    append(&log, 1, 3, Durability::Sync);
    let lost = reader.skip_damage().unwrap();
    assert_eq!((lost.first_offset, lost.next_offset, lost.file.as_str()), (Offset(1), Offset(1), ""));
    let mut read = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        read.push(batch.base_offset());
    }
    assert_eq!(read, [Offset(1), Offset(2)]);
    check(&log, 0, 3);
}

/// Both slots gone and a batch in the middle damaged: the names of the segments show that what lies behind was durable,
/// so only that batch is lost.
#[test]
fn a_lost_checkpoint_does_not_turn_damage_into_the_end_of_the_log() {
    let dir = TempDir::new();
    let open = || ticking().open(dir.path()).unwrap();
    let store = open();
    store.create_topic(&small_topic()).unwrap();
    append(&store.log("t", 0).unwrap(), 0, 300, Durability::Os);
    drop(store);
    std::fs::remove_file(dir.path().join("edgelog.checkpoint")).unwrap();
    let first = dir.path().join("t-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[16] ^= 0xff;
    std::fs::write(&first, bytes).unwrap();

    let store = open();
    let report = store.recovery_report();
    assert!(report.checkpoint_lost, "{report}");
    assert_eq!((report.lost_offsets(), report.cut_bytes()), (1, 0), "{report}");
    let log = store.log("t", 0).unwrap();
    assert_eq!(log.offsets().log_end_offset, 300);
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    assert!(matches!(reader.next_batch(), Err(Error::CorruptRecord { position: Position(0), offset: Offset(0), .. })));
    let lost = reader.skip_damage().unwrap();
    assert_eq!((lost.first_offset, lost.next_offset), (Offset(0), Offset(1)));
    check(&log, 1, 300);
}

/// A reader at the end of a segment, while those behind it are deleted: the offsets were deleted on purpose, which is
/// another error than that damage has taken them.
#[test]
fn a_reader_that_deletion_has_overtaken_reports_no_damage() {
    for place in Place::all() {
        let store = place.open(ticking());
        store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", "-1")).unwrap();
        let log = store.log("t", 0).unwrap();
        let value = [b'v'; 1000];
        for _ in 0..20 {
            log.append(NewRecord::value(&value)).unwrap();
        }
        let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
        for offset in 0..3 {
            assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), offset);
        }
        let start = log.delete_records_before(Offset(12)).unwrap();
        match reader.next_batch() {
            Err(Error::OffsetOutOfRange { requested: Offset(3), log_start_offset, .. }) => {
                assert_eq!(log_start_offset, start);
            }
            other => panic!("{other:?}"),
        }
        reader.seek(OffsetSpec::Earliest).unwrap();
        assert_eq!(reader.next_batch().unwrap().unwrap().base_offset(), start);
    }
}

#[test]
fn an_attached_process_makes_durable_what_it_sees_while_the_writer_vouches_for_it() {
    for place in Place::all() {
        let store = place.open(ticking());
        store.create_topic(&small_topic()).unwrap();
        let log = store.log("t", 0).unwrap();
        append(&log, 0, 500, Durability::Os);
        let attached = place.attach(ticking());
        let seen = attached.log("t", 0).unwrap();
        assert_eq!(seen.flush_up_to(Offset(i64::MAX)).unwrap(), 500);
        assert_eq!((seen.offsets().recovery_point, seen.offsets().log_end_offset), (Offset(500), Offset(500)));
        // What was truncated is durable no more, and what follows is another history.
        let end = log.truncate_to(Offset(250)).unwrap();
        append(&log, end.0, 300, Durability::Os);
        assert_eq!(seen.flush_up_to(Offset(i64::MAX)).unwrap(), 300);
        append(&log, 300, 310, Durability::Os);
        store.abandon();
        drop(store);
        // The writer may have died of a flush that failed: a flush from here would prove nothing.
        assert_eq!(seen.flush_up_to(Offset(i64::MAX)).unwrap(), 300);
        assert_eq!(seen.offsets().log_end_offset, 310);
        let _again = place.open(ticking());
        assert_eq!(seen.flush_up_to(Offset(i64::MAX)).unwrap(), 310);
    }
}

/// A writer and a process attached to it may both fail to flush one log, in either order: the others go on, from both.
#[test]
fn a_log_that_neither_process_can_flush_costs_the_other_logs_nothing() {
    for attached_first in [true, false] {
        let memory = MemoryStorage::new();
        let of_writer = FaultyStorage::with_flags(memory.clone());
        let of_attached = FaultyStorage::with_flags(memory.clone());
        let store = ticking().open_on(of_writer.clone()).unwrap();
        for name in ["bad", "good"] {
            store.create_topic(&NewTopic::new(name)).unwrap();
            append(&store.log(name, 0).unwrap(), 0, 1, Durability::Os);
        }
        let attach = |storage: FaultyStorage| ticking().attach_on(storage).unwrap();
        let attached = attach(of_attached.clone());
        let (bad, seen) = (store.log("bad", 0).unwrap(), attached.log("bad", 0).unwrap());
        let attached_fails = || {
            of_attached.fail_flushes(true);
            assert!(seen.flush_up_to(Offset(i64::MAX)).is_err(), "the flush has failed, or the flag is up");
            of_attached.fail_flushes(false);
        };
        if attached_first {
            attached_fails();
        }
        of_writer.fail_flushes(true);
        assert!(bad.flush().is_err());
        of_writer.fail_flushes(false);
        if !attached_first {
            attached_fails();
        }
        append(&store.log("good", 0).unwrap(), 1, 2, Durability::Os);
        assert_eq!(attached.log("good", 0).unwrap().flush_up_to(Offset(i64::MAX)).unwrap(), 2);
        // And the failed one stays failed, also for a process that comes later.
        assert!(matches!(seen.flush_up_to(Offset(i64::MAX)), Err(Error::PreviousIo { .. })));
        drop(attached);
        let later = attach(FaultyStorage::with_flags(memory));
        assert!(matches!(later.log("bad", 0).unwrap().flush_up_to(Offset(i64::MAX)), Err(Error::PreviousIo { .. })));
        assert_eq!(later.log("good", 0).unwrap().flush_up_to(Offset(i64::MAX)).unwrap(), 2);
    }
}

/// What could not be flushed by one attached process is not made durable by another, until the writer has resolved it.
#[test]
fn what_one_attached_process_could_not_flush_is_not_durable_for_another() {
    let memory = MemoryStorage::new();
    let store = ticking().open_on(memory.clone()).unwrap();
    store.create_topic(&NewTopic::new("t")).unwrap();
    let log = store.log("t", 0).unwrap();
    append(&log, 0, 1, Durability::Os);
    let failing = FaultyStorage::with_flags(memory.clone());
    let failing_store = ticking().attach_on(failing.clone()).unwrap();
    let other_store = ticking().attach_on(memory.clone()).unwrap();
    let (failed, other) = (failing_store.log("t", 0).unwrap(), other_store.log("t", 0).unwrap());
    failing.fail_flushes(true);
    assert!(matches!(failed.flush_up_to(Offset(i64::MAX)), Err(Error::Storage { .. })));
    failing.fail_flushes(false);
    assert!(matches!(other.flush_up_to(Offset(i64::MAX)), Err(Error::PreviousIo { .. })));
    append(&log, 1, 2, Durability::Sync);
    store.close().unwrap();
    let _again = ticking().open_on(memory).unwrap();
    assert_eq!(
        (failed.flush_up_to(Offset(i64::MAX)).unwrap(), other.flush_up_to(Offset(i64::MAX)).unwrap()),
        (Offset(2), Offset(2))
    );
}

/// What would take the end of the log beyond the greatest offset is refused, and nothing of it is written.
#[test]
fn offsets_are_given_out_up_to_the_greatest_and_not_beyond() {
    let encoded = |values: &[&[u8]]| {
        let mut builder = RecordBatchBuilder::new(vec![0; 1000]);
        for value in values {
            builder.append(TimestampMs(1000), None, Some(value), &[]).unwrap();
        }
        builder.finish().to_vec()
    };
    let disk = MemoryStorage::new();
    disk.create_dir("t-0").unwrap();
    let first = OFFSET_MAX - 4;
    let mut bytes = encoded(&[b"a", b"b"]);
    stamp_base(&mut bytes, first, LeaderEpoch(0));
    disk.open(&format!("t-0/{first:020}.log"), Access::CreateNew).unwrap().write_at(&bytes, 0).unwrap();

    let place = Place::Memory(disk);
    let store = place.open(ticking());
    let log = store.log("t", 0).unwrap();
    let before = log.size().unwrap();
    let refused = log.append_encoded(&encoded(&[b"c", b"d", b"e", b"f"]), Durability::Sync).unwrap_err();
    assert!(matches!(refused, Error::OffsetsUsedUp { records: 4, max, .. } if max == OFFSET_MAX - 1), "{refused}");
    assert_eq!((log.offsets().log_end_offset, log.size().unwrap()), (OFFSET_MAX - 2, before));

    let mut batch = log.batch();
    for value in [b"c", b"d"] {
        batch.push(NewRecord::value(value)).unwrap();
    }
    let info = log.append_batch(&mut batch).unwrap();
    assert_eq!((info.base_offset, info.last_offset), (OFFSET_MAX - 2, OFFSET_MAX - 1));
    for durability in [Durability::Os, Durability::Interval, Durability::Sync] {
        let refused = log.append_with(NewRecord::value(b"too much"), durability).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("9223372032559808510") && text.contains("1 records"), "{text}");
    }
    let values = |log: &Log| {
        let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
        let mut values = Vec::new();
        while let Some(batch) = reader.next_batch().unwrap() {
            values.extend(batch.records().unwrap().map(|record| record.unwrap().value.unwrap().to_vec()));
        }
        values
    };
    assert_eq!(values(&log), [b"a", b"b", b"c", b"d"]);
    assert_eq!(log.offsets().log_end_offset, OFFSET_MAX);
    store.close().unwrap();

    let store = place.open(ticking());
    let log = store.log("t", 0).unwrap();
    assert_eq!((values(&log).len(), log.offsets().log_end_offset), (4, OFFSET_MAX));
    log.append(NewRecord::value(b"too much")).unwrap_err();
}

/// A segment that was brought in may hold offsets that are not given out here: they are read, and nothing follows them.
#[test]
fn a_log_that_ends_beyond_the_greatest_offset_is_read_and_takes_nothing_more() {
    for last in [OFFSET_MAX, Offset(i64::MAX - 1)] {
        let mut builder = RecordBatchBuilder::new(vec![0; 1000]);
        builder.append(TimestampMs(1000), None, Some(b"far"), &[]).unwrap();
        let mut bytes = builder.finish().to_vec();
        stamp_base(&mut bytes, last, LeaderEpoch(0));
        let disk = MemoryStorage::new();
        disk.create_dir("t-0").unwrap();
        disk.open(&format!("t-0/{last:020}.log"), Access::CreateNew).unwrap().write_at(&bytes, 0).unwrap();
        let place = Place::Memory(disk);
        for _ in 0..2 {
            let store = place.open(ticking());
            let log = store.log("t", 0).unwrap();
            assert_eq!(log.offsets().log_end_offset, last + 1);
            for durability in [Durability::Os, Durability::Sync] {
                let refused = log.append_with(NewRecord::value(b"next"), durability).unwrap_err();
                assert!(matches!(refused, Error::OffsetsUsedUp { records: 1, .. }), "{refused}");
            }
            let batch = log.reader(OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
            assert_eq!((batch.base_offset(), batch.last_offset()), (last, last));
            store.close().unwrap();
        }
    }
}
