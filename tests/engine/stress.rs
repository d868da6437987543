//! Many threads on one log, compared with what each append returned: writers at every durability, batches and single
//! records, followers, readers anywhere, rolls all the time, retention and deletion close behind.
//!
//! Bounded by counts and not by time. `EDGELOG_STRESS_RECORDS` sets how many records each writer appends (3000 if it is
//! not set); `EDGELOG_STRESS_SEED` another seed than 1. What threads do follows from the seed; how they meet does not.

use std::sync::atomic::{AtomicBool, Ordering};

use edgelog::{Durability, Error, Log, NewRecord, NewTopic, OffsetSpec, ReadUpTo, ReaderOptions, Store};
use edgelog_testkit::{Place, Random};

const WRITERS: u64 = 3;
const FOLLOWERS: u64 = 2;
const READERS: u64 = 2;

fn number(key: &str, default: u64) -> u64 {
    std::env::var(key).ok().map_or(default, |text| text.parse().unwrap())
}

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    writer: u64,
    seq: u64,
}

impl Stamp {
    fn value(self) -> Vec<u8> {
        let mut value = format!("{} {} ", self.writer, self.seq).into_bytes();
        value.resize(value.len() + (self.seq * 7 % 120) as usize, b'.');
        value
    }

    fn of(value: &[u8]) -> Stamp {
        let text = std::str::from_utf8(value).unwrap();
        let mut words = text.split(' ').map_while(|word| word.parse().ok());
        let stamp = Stamp { writer: words.next().unwrap(), seq: words.next().unwrap() };
        assert_eq!(stamp.value(), value, "a record is whole");
        stamp
    }
}

/// Appends `records` records and answers at which offset each stands, in the order of appending.
fn write(log: &Log, writer: u64, records: u64, random: &mut Random) -> Vec<(i64, Stamp)> {
    let mut acknowledged = Vec::new();
    let mut batch = log.batch();
    let mut seq = 0;
    while seq < records {
        let durability = match random.below(40) {
            0 => Durability::Sync,
            1..4 => Durability::Interval,
            _ => Durability::Os,
        };
        let count = if random.one_in(4) { (2 + random.below(6) as u64).min(records - seq) } else { 1 };
        let info = if count == 1 {
            log.append_with(NewRecord::value(&Stamp { writer, seq }.value()), durability).unwrap()
        } else {
            for n in 0..count {
                batch.push(NewRecord::value(&Stamp { writer, seq: seq + n }.value())).unwrap();
            }
            log.append_batch_with(&mut batch, durability).unwrap()
        };
        assert_eq!(info.last_offset - info.base_offset + 1, count as i64);
        let offsets = log.offsets();
        assert!(offsets.log_end_offset > info.last_offset, "{info:?} {offsets:?}");
        if durability == Durability::Sync {
            assert!(offsets.recovery_point > info.last_offset, "acknowledged and not durable: {info:?} {offsets:?}");
            assert!(offsets.high_watermark > info.last_offset, "acknowledged and not served: {info:?} {offsets:?}");
        }
        for offset in info.base_offset.0..=info.last_offset.0 {
            acknowledged.push((offset, Stamp { writer, seq }));
            seq += 1;
        }
    }
    acknowledged
}

/// Reads on until the log is closed. Every record that retention left comes once and in order.
fn follow(log: &Log) -> Vec<(i64, Stamp)> {
    let mut seen: Vec<(i64, Stamp)> = Vec::new();
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    let mut expected = reader.position().offset;
    loop {
        let overtaken = reader.follow().find_map(|batch| match batch {
            Ok(batch) => {
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    if record.offset < expected {
                        continue; // a batch that the log start lies in
                    }
                    assert_eq!(record.offset, expected, "no offset twice, and none left out");
                    expected += 1;
                    seen.push((record.offset.0, Stamp::of(record.value.unwrap())));
                }
                None
            }
            Err(Error::OffsetOutOfRange { log_start_offset, .. }) => Some(log_start_offset),
            Err(error) => panic!("following: {error}"),
        });
        let Some(start) = overtaken else { return seen };
        assert!(start > expected, "only what retention has taken is left out: {start}, {expected}");
        loop {
            // The start may have moved on since it was looked at.
            let start = log.offsets().log_start_offset;
            if reader.seek(OffsetSpec::Offset(start)).is_ok() {
                expected = start;
                break;
            }
        }
    }
}

/// Reads here and there until `done`: what is read lies below the bound that was asked for.
fn read_anywhere(log: &Log, random: &mut Random, done: &AtomicBool) -> u64 {
    let mut count = 0;
    loop {
        let last_round = done.load(Ordering::Acquire);
        let up_to = [ReadUpTo::HighWatermark, ReadUpTo::LogEnd, ReadUpTo::Durable][random.below(3)];
        let options = ReaderOptions::default().up_to(up_to);
        let offsets = log.offsets();
        let span = usize::try_from(offsets.log_end_offset - offsets.log_start_offset).unwrap();
        let from = offsets.log_start_offset + random.below(span.max(1)) as i64;
        let mut reader = match log.reader_with(OffsetSpec::Offset(from), options) {
            Ok(reader) => reader,
            Err(Error::OffsetOutOfRange { .. }) => continue,
            Err(error) => panic!("a reader at {from} of {offsets:?}: {error}"),
        };
        let mut next = from;
        for _ in 0..20 {
            let batch = match reader.next_batch() {
                Ok(Some(batch)) => batch,
                Ok(None) | Err(Error::OffsetOutOfRange { .. }) => break,
                Err(error) => panic!("reading at {next}: {error}"),
            };
            let now = log.offsets();
            let bound = match up_to {
                ReadUpTo::HighWatermark => now.high_watermark,
                ReadUpTo::LogEnd => now.log_end_offset,
                ReadUpTo::Durable => now.recovery_point,
                other => panic!("{other:?}"),
            };
            assert!(batch.last_offset() < bound, "{up_to:?}: {} of {now:?}", batch.last_offset());
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                Stamp::of(record.value.unwrap());
                if record.offset >= next {
                    assert_eq!(record.offset, next);
                    next += 1;
                    count += 1;
                }
            }
        }
        if last_round {
            return count;
        }
    }
}

struct End<'a> {
    store: &'a Store,
    done: &'a AtomicBool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        if std::thread::panicking() {
            let _ = self.store.close();
        }
    }
}

fn stress(place: &Place, records: u64, seed: u64) {
    let options = Store::options().set("log.retention.check.interval.ms", "1").unwrap();
    let store = place.open(options.set("edgelog.checkpoint.interval.ms", "100").unwrap());
    let topic = NewTopic::new("t")
        .config("segment.bytes", "4096")
        .config("index.interval.bytes", "256")
        .config("retention.bytes", "262144")
        .config("retention.ms", "-1")
        .config("flush.messages", "1000000")
        .config("flush.ms", "5");
    store.create_topic(&topic).unwrap();
    let log = store.log("t", 0).unwrap();
    let done = AtomicBool::new(false);
    let (mut acknowledged, followed, read) = std::thread::scope(|scope| {
        let (log, done) = (&log, &done);
        // Where a thread fails, the others come to an end as well.
        let _end = End { store: &store, done };
        let random = |n: u64| Random(seed ^ (n << 32));
        let followers: Vec<_> = (0..FOLLOWERS).map(|_| scope.spawn(move || follow(log))).collect();
        let readers: Vec<_> =
            (0..READERS).map(|n| scope.spawn(move || read_anywhere(log, &mut random(100 + n), done))).collect();
        let deleter = scope.spawn(move || {
            let mut random = random(200);
            loop {
                // This thread may have run little next to the writers. It deletes once behind the last record.
                let last_round = done.load(Ordering::Acquire);
                let kept = if last_round { 500 } else { 500 + random.below(2000) as i64 };
                let before = log.offsets().high_watermark - kept;
                if before > 0 {
                    let start = log.delete_records_before(before).unwrap();
                    assert!(start >= before);
                }
                if last_round {
                    return;
                }
            }
        });
        let writers: Vec<_> =
            (0..WRITERS).map(|n| scope.spawn(move || write(log, n, records, &mut random(n)))).collect();
        let acknowledged: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::Release);
        deleter.join().unwrap();
        let read: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        // The end of the log is what ends a follower, asleep or not; it has seen everything by then.
        store.close().unwrap();
        let followed: Vec<_> = followers.into_iter().map(|follower| follower.join().unwrap()).collect();
        (acknowledged, followed, read)
    });
    // Each appender was answered rising offsets, and all answers together leave none out and give none twice.
    for acknowledged in &acknowledged {
        assert!(acknowledged.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
    let mut oracle: Vec<(i64, Stamp)> = acknowledged.drain(..).flatten().collect();
    oracle.sort_unstable_by_key(|(offset, _)| *offset);
    assert!(oracle.iter().enumerate().all(|(n, (offset, _))| *offset == n as i64));
    assert_eq!(oracle.len() as u64, WRITERS * records);
    for seen in &followed {
        assert_eq!(seen.last(), oracle.last(), "a follower ends behind the last record");
        assert!(seen.iter().all(|(offset, stamp)| oracle[*offset as usize].1 == *stamp));
    }
    let store = place.open(Store::options());
    assert!(store.recovery_report().clean);
    let log = store.log("t", 0).unwrap();
    let offsets = log.offsets();
    assert_eq!(offsets.log_end_offset, oracle.len() as i64);
    assert!(offsets.log_start_offset > 0, "something was deleted: {offsets:?}");
    let mut next = offsets.log_start_offset;
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            if record.offset >= next {
                assert_eq!((record.offset.0, Stamp::of(record.value.unwrap())), oracle[next.0 as usize]);
                next += 1;
            }
        }
    }
    assert_eq!(next, offsets.log_end_offset);
    let followed: usize = followed.iter().map(Vec::len).sum();
    println!("{}: {} appended, {followed} followed, {read} read elsewhere", place.name(), oracle.len());
}

#[test]
fn every_thread_sees_one_log_and_all_of_it() {
    let (records, seed) = (number("EDGELOG_STRESS_RECORDS", 3000), number("EDGELOG_STRESS_SEED", 1));
    for place in Place::all() {
        stress(&place, records, seed);
    }
}
