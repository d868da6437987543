//! Time in the log: finding records by it, rolling, forgetting and flushing by it. A naive search over all records is
//! the oracle. The only clock stands still until the test sets it.

use edgelog::clock::ManualClock;
use edgelog::edgelog_core::{CRC_START, Offset, RecordBatch, RecordBatchBuilder, TimestampMs, crc32c};
use edgelog::storage::{Access, MemoryStorage, Storage};
use edgelog::{Durability, Log, NewRecord, NewTopic, OffsetSpec, Store};
use edgelog_testkit::{Place, Random, ticking};

const NOW: i64 = 1_700_000_000_000;

fn append(log: &Log, timestamps: &[i64]) {
    let mut batch = log.batch();
    for &timestamp in timestamps {
        batch
            .push(
                NewRecord::value(b"a value of some length, so that segments fill up")
                    .with_timestamp(TimestampMs(timestamp)),
            )
            .unwrap();
    }
    log.append_batch_with(&mut batch, Durability::Os).unwrap();
}

/// Kafka's `offsetsForTimes` against a walk over all records: random timestamps that rise, fall and repeat, over many
/// segments; asked of the log as it was written, after the front was deleted, after a clean close, and by an attached
/// process.
#[test]
fn the_first_record_of_a_time_is_the_one_that_a_walk_finds() {
    for seed in 0..4 {
        for place in Place::all() {
            let mut random = Random(seed);
            let open = || place.open(ticking().clock(ManualClock::new(TimestampMs(NOW))));
            let store = open();
            let topic = NewTopic::new("t")
                .config("segment.bytes", "4096")
                .config("index.interval.bytes", ["0", "200", "1000", "4096"][seed as usize])
                .config("retention.ms", "-1");
            store.create_topic(&topic).unwrap();
            let log = store.log("t", 0).unwrap();
            let mut timestamps = Vec::new();
            while timestamps.len() < 1500 {
                // Mostly forwards, in batches that are out of order in themselves.
                let base = NOW + timestamps.len() as i64 * 10;
                let wild = [50, 500, 20_000][random.below(3)];
                let batch: Vec<i64> =
                    (0..=random.below(6)).map(|_| base + random.below(2 * wild) as i64 - wild as i64).collect();
                append(&log, &batch);
                timestamps.extend(batch);
            }
            assert!(log.size().unwrap().0 > 15);
            let compare = |log: &Log, what: &str, random: &mut Random| {
                let start = log.offsets().log_start_offset;
                for n in 0..400 {
                    let time = match n {
                        0 => i64::MIN,
                        1 => 0,
                        2 => i64::MAX,
                        n if n % 2 == 0 => timestamps[random.below(timestamps.len())] + (n % 3) - 1,
                        _ => NOW - 25_000 + random.below(70_000) as i64,
                    };
                    let is_it = |offset: &i64| timestamps[*offset as usize] >= time;
                    let expected = (start.0..timestamps.len() as i64).find(is_it).map(Offset);
                    let found = log.offset_for_time(TimestampMs(time)).unwrap().map(|at| at.offset);
                    assert_eq!(found, expected, "{}, seed {seed}, {what}: time {time}", place.name());
                    let reader = log.reader(OffsetSpec::Timestamp(TimestampMs(time))).unwrap();
                    assert_eq!(reader.position().offset, expected.unwrap_or(Offset(timestamps.len() as i64)), "{what}");
                }
            };
            compare(&log, "as written", &mut random);
            store.tick(TimestampMs(NOW)).unwrap();
            compare(&log, "with indexes on disk", &mut random);
            log.delete_records_before(Offset(333)).unwrap();
            compare(&log, "after a deletion", &mut random);
            store.close().unwrap();
            drop((log, store));
            let store = open();
            compare(&store.log("t", 0).unwrap(), "opened again", &mut random);
            store.close().unwrap();
            drop(store);
            let attached = match &place {
                Place::Directory(dir, mode) => ticking().set("edgelog.storage", mode).unwrap().attach(dir.path()),
                Place::Memory(storage) => ticking().attach_on(storage.clone()),
            };
            compare(&attached.unwrap().log("t", 0).unwrap(), "attached", &mut random);
        }
    }
}

/// Some producers leave 0 or -1 in the header's max timestamp (old sarama did): as in a broker, the records decide.
#[test]
fn the_max_timestamp_of_an_encoded_batch_is_that_of_its_records() {
    for (times, claims) in [
        ([NOW + 5, NOW + 9, NOW + 7], [0, -1, NOW + 5, NOW + 9, i64::MAX, i64::MIN]),
        ([-5000, -3000, -4000], [0, -1, -5000, -3000, i64::MAX, i64::MIN]),
    ] {
        for claimed in claims {
            let mut builder = RecordBatchBuilder::new(vec![0; 1000]);
            // The builder takes no times before 1970; other producers do. Records count from the base timestamp.
            let shift = if times[0] < 0 { 10_000 } else { 0 };
            for time in times {
                builder.append(TimestampMs(time + shift), None, Some(b"value"), &[]).unwrap();
            }
            let mut bytes = builder.finish().to_vec();
            bytes[27..35].copy_from_slice(&times[0].to_be_bytes());
            bytes[35..43].copy_from_slice(&claimed.to_be_bytes());
            let crc = crc32c(&bytes[CRC_START..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());

            let store = ticking().clock(ManualClock::new(TimestampMs(NOW))).open_on(MemoryStorage::new()).unwrap();
            store.create_topic(&NewTopic::new("t")).unwrap();
            let log = store.log("t", 0).unwrap();
            let info = log.append_encoded(&bytes, Durability::Sync).unwrap();
            assert_eq!(info.max_timestamp, times[1], "claimed {claimed}");
            let stored = log.reader(OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
            let stored = RecordBatch::parse(stored.bytes()).unwrap();
            assert_eq!(
                (stored.max_timestamp(), stored.verify_crc()),
                (TimestampMs(times[1]), Ok(())),
                "claimed {claimed}"
            );
            assert_eq!(stored.payload(), RecordBatch::parse(&bytes).unwrap().payload());
            let found = |time| log.offset_for_time(time).unwrap().map(|position| position.offset);
            let expected = [(times[0], Some(0)), (times[0] + 1, Some(1)), (times[1], Some(1)), (times[1] + 1, None)];
            for (time, offset) in expected {
                assert_eq!(found(TimestampMs(time)), offset.map(Offset), "time {time}, claimed {claimed}");
            }
        }
    }
}

fn base_offsets(place: &Place) -> Vec<i64> {
    let names = place.files("t-0", ".log").into_iter().map(|(name, _)| name);
    names.map(|name| name.trim_end_matches(".log").parse().unwrap()).collect()
}

/// `segment.ms` by the records' own timestamps: a batch whose largest timestamp lies more than that after the first
/// batch's goes into a new segment; what goes backwards stays; and it is the same after the log was opened again.
#[test]
fn a_segment_is_rolled_when_its_records_span_more_than_segment_ms() {
    for place in Place::all() {
        let open = || place.open(ticking().clock(ManualClock::new(TimestampMs(NOW))));
        let store = open();
        let topic = NewTopic::new("t").config("segment.ms", "1000").config("retention.ms", "-1");
        store.create_topic(&topic).unwrap();
        let log = store.log("t", 0).unwrap();
        append(&log, &[NOW]);
        append(&log, &[NOW + 1000]);
        assert_eq!(base_offsets(&place), [0], "{}: exactly segment.ms is not more", place.name());
        append(&log, &[NOW - 5, NOW + 1001]);
        assert_eq!(base_offsets(&place), [0, 2], "{}", place.name());
        append(&log, &[NOW - 90_000]);
        append(&log, &[NOW + 2001]);
        assert_eq!(base_offsets(&place), [0, 2], "{}: it is the first batch's largest that counts", place.name());
        store.close().unwrap();
        drop((log, store));
        let store = open();
        let log = store.log("t", 0).unwrap();
        append(&log, &[NOW + 2000]);
        assert_eq!(base_offsets(&place), [0, 2], "{}: opened again", place.name());
        append(&log, &[NOW + 2002]);
        assert_eq!(base_offsets(&place), [0, 2, 7], "{}: opened again", place.name());
    }
}

/// `retention.ms` by the newest record of each segment, oldest segments first, and never past one that must stay; the
/// active segment always stays; nothing goes before `log.retention.check.interval.ms` has passed.
#[test]
fn retention_by_age_takes_whole_old_segments_from_the_front() {
    for place in Place::all() {
        let clock = ManualClock::new(TimestampMs(NOW));
        let open = || {
            let options = ticking().set("log.retention.check.interval.ms", "1000").unwrap();
            place.open(options.clock(clock.clone()))
        };
        let store = open();
        let topic = NewTopic::new("t").config("segment.ms", "1000").config("retention.ms", "60000");
        store.create_topic(&topic).unwrap();
        let log = store.log("t", 0).unwrap();
        // Segments at 0, 1, 3 and 4; the second holds a record of the future.
        append(&log, &[NOW]);
        append(&log, &[NOW + 5_000]);
        append(&log, &[NOW + 1_000]);
        append(&log, &[NOW + 10_000]);
        append(&log, &[NOW + 20_000]);
        assert_eq!(base_offsets(&place), [0, 1, 3, 4], "{}", place.name());
        let after = |store: &Store, ms: i64| {
            clock.set(TimestampMs(NOW + ms));
            store.tick(TimestampMs(NOW + ms)).unwrap();
            store.log("t", 0).unwrap().offsets().log_start_offset
        };
        assert_eq!(after(&store, 60_000), 0, "{}: exactly retention.ms is not more", place.name());
        assert_eq!(after(&store, 60_500), 0, "{}: it was looked at half a second ago", place.name());
        assert_eq!(after(&store, 61_000), 1, "{}", place.name());
        assert_eq!(after(&store, 65_000), 1, "{}", place.name());
        store.close().unwrap();
        drop((log, store));
        let store = open();
        assert_eq!(after(&store, 69_000), 3, "{}: opened again", place.name());
        assert_eq!(after(&store, 1_000_000), 4, "{}: the active segment stays", place.name());
        assert_eq!(base_offsets(&place), [4], "{}", place.name());
        assert!(store.log("t", 0).unwrap().reader(OffsetSpec::Offset(Offset(3))).is_err());
    }
}

/// An `Interval` append is durable once `flush.ms` has passed since the first that waits, and not before; a clock that
/// was set back does not keep it waiting.
#[test]
fn an_interval_append_is_flushed_by_the_tick_that_its_time_has_come() {
    for place in Place::all() {
        let clock = ManualClock::new(TimestampMs(NOW));
        let store = place.open(ticking().clock(clock.clone()));
        let topic = NewTopic::new("t").config("flush.messages", "1000000").config("flush.ms", "500");
        store.create_topic(&topic).unwrap();
        let log = store.log("t", 0).unwrap();
        let recovery_point = |now: i64| {
            clock.set(TimestampMs(now));
            store.tick(TimestampMs(now)).unwrap();
            log.offsets().recovery_point
        };
        log.append(NewRecord::value(b"first")).unwrap();
        assert_eq!(log.offsets().high_watermark, 1, "{}: seen at once", place.name());
        assert_eq!(recovery_point(NOW + 499), 0, "{}", place.name());
        log.append(NewRecord::value(b"second, on the way of the first")).unwrap();
        assert_eq!(recovery_point(NOW + 500), 2, "{}", place.name());
        log.append(NewRecord::value(b"third")).unwrap();
        assert_eq!(recovery_point(NOW + 999), 2, "{}: its time begins with it", place.name());
        assert_eq!(recovery_point(NOW + 1000), 3, "{}", place.name());
        log.append(NewRecord::value(b"fourth")).unwrap();
        assert_eq!(recovery_point(NOW - 1_000_000), 4, "{}: the clock was set back", place.name());
        // Sync takes along what waits.
        log.append(NewRecord::value(b"fifth")).unwrap();
        log.append_with(NewRecord::value(b"sixth"), Durability::Sync).unwrap();
        assert_eq!(log.offsets().recovery_point, 6, "{}", place.name());
    }
}

/// Looking up a time found nothing: a power cut had kept the whole offset index and the first entry of the time index,
/// and behind the newest record, before the last indexed place, the clock had gone back.
#[test]
fn a_time_index_that_lost_its_end_before_the_clock_went_back_is_not_believed() {
    let storage = MemoryStorage::new();
    let open = || ticking().clock(ManualClock::new(TimestampMs(NOW))).open_on(storage.clone()).unwrap();
    let store = open();
    store.create_topic(&NewTopic::new("t").config("index.interval.bytes", "100").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for time in [NOW, NOW + 10, NOW + 90_000, NOW + 20, NOW + 30, NOW + 40] {
        append(&log, &[time, time]);
    }
    store.close().unwrap();
    drop((log, store));
    let index = storage.open("t-0/00000000000000000000.timeindex", Access::Write).unwrap();
    assert!(index.len().unwrap() > 12, "there are more entries than the first");
    index.truncate(12).unwrap();
    let store = open();
    let found = store.log("t", 0).unwrap().offset_for_time(TimestampMs(NOW + 90_000)).unwrap();
    assert_eq!(found.map(|found| found.offset), Some(Offset(4)));
}
