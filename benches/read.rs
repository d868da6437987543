//! Reading: scans with and without `check.crcs`, one record by offset, an offset by time, and how soon a follower has
//! what was appended; and, in the same run, what the machine allows for the same bytes.
//!
//! All logs are warm: they were written a moment ago and lie in the page cache. Durability is no matter of reading;
//! the followed log is appended to at `Os`.

#![allow(clippy::cast_precision_loss)] // Figures: their 53rd bit does not matter.

mod common;

use std::hint::{black_box, spin_loop};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use edgelog::edgelog_core::RecordBatch;
use edgelog::{Durability, Log, NewRecord, Offset, OffsetSpec, ReaderOptions, TimestampMs};

use common::{BATCH, Fresh, Latencies, Random, Results, SIZES, TOPIC, Values, append_bytes, batches_of, files_of};

/// Of each log that is read: four default segments.
const LOG_BYTES: u64 = 64 << 20;
const KEYS: &[(&str, &str)] = &[("max.message.bytes", "4194304")];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut results = Results::new("read");
    scans(&mut criterion);
    random_reads(&mut results);
    time_lookup(&mut results);
    follow(&mut results);
    criterion.final_summary();
}

fn written(len: usize, batches: bool) -> Fresh {
    let fresh = Fresh::new(KEYS);
    append_bytes(&fresh.log, len, LOG_BYTES, batches);
    fresh
}

/// Reads the whole log and touches what a reader of records sees of each: offset and length.
fn scan(log: &Log, check_crcs: bool) -> u64 {
    let options = ReaderOptions::default().check_crcs(check_crcs);
    let mut reader = log.reader_with(OffsetSpec::Earliest, options).expect("a reader");
    let mut sum = 0;
    while let Some(batch) = reader.next_batch().expect("reads") {
        for record in batch.records().expect("plain records") {
            let record = record.expect("a record");
            sum += record.offset.0 as u64 + record.value.map_or(0, <[u8]>::len) as u64;
        }
    }
    sum
}

/// The bytes of all segments, and where each batch stands. In memory: what the map would be, without the engine.
fn loaded(fresh: &Fresh) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut bytes, mut places) = (Vec::new(), Vec::new());
    for path in files_of(&fresh.dir().join(format!("{TOPIC}-0")), ".log") {
        let segment = std::fs::read(path).expect("a readable segment");
        let start = bytes.len();
        places.extend(batches_of(&segment).into_iter().map(|at| at.start + start..at.end + start));
        bytes.extend_from_slice(&segment);
    }
    (bytes, places)
}

fn scans(criterion: &mut Criterion) {
    for (kind, batches) in [("batches", true), ("singles", false)] {
        for (len, name) in SIZES {
            if !batches && len != 100 {
                continue;
            }
            let fresh = written(len, batches);
            let records = fresh.log.offsets().log_end_offset.0 as u64;
            let mut group = criterion.benchmark_group("read");
            group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(records));
            group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1500));
            for (check, check_crcs) in [("crc", true), ("nocrc", false)] {
                group.bench_function(format!("scan_{kind}/{check}/{name}"), |bencher| {
                    bencher.iter(|| scan(&fresh.log, check_crcs));
                });
            }
            group.finish();
            let mut group = criterion.benchmark_group("limit");
            group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(records));
            group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            let (bytes, places) = loaded(&fresh);
            group.bench_function(format!("scan_{kind}/crc/{name}"), |bencher| {
                bencher
                    .iter(|| places.iter().map(|at| u64::from(parse(&bytes[at.clone()]).compute_crc())).sum::<u64>());
            });
            group.bench_function(format!("scan_{kind}/decode/{name}"), |bencher| {
                bencher.iter(|| places.iter().map(|at| decode(&bytes[at.clone()])).sum::<u64>());
            });
            group.finish();
        }
    }
}

fn parse(bytes: &[u8]) -> RecordBatch<'_> {
    RecordBatch::parse(bytes).expect("a batch")
}

fn decode(bytes: &[u8]) -> u64 {
    let records = parse(bytes).records().expect("plain records").map(|record| record.expect("a record"));
    records.map(|record| record.offset.0 as u64 + record.value.map_or(0, <[u8]>::len) as u64).sum()
}

/// Seeks to an offset and takes the record there.
fn random_reads(results: &mut Results) {
    const COUNT: usize = 100_000;
    for (len, name) in &SIZES[..3] {
        let (fresh, mut values) = (written(*len, false), Values::new(*len));
        let end = fresh.log.offsets().high_watermark.0 as u64;
        let id = format!("random/single/crc/{name}");
        if results.wants(&id) {
            read_randomly(&fresh.log, COUNT, true).report(results, &id);
        }
        let id = format!("random/limit/crc/{name}");
        if results.wants(&id) {
            // The place of every record known, its header parsed, its CRC checked, its value seen.
            let (bytes, places) = loaded(&fresh);
            let mut random = Random::new(7);
            let mut latencies = Latencies::new(COUNT);
            for _ in 0..COUNT {
                let at = random.below(end.min(places.len() as u64)) as usize;
                let begun = Instant::now();
                let batch = parse(&bytes[places[at].clone()]);
                batch.verify_crc().expect("intact");
                let record = batch.records().expect("plain").next().expect("one record").expect("a record");
                black_box(record.value);
                latencies.push(begun.elapsed());
            }
            latencies.report(results, &id);
        }
        black_box(values.next());
    }
    for (len, name) in &SIZES[..3] {
        for (check, check_crcs) in [("crc", true), ("nocrc", false)] {
            let id = format!("random/batch/{check}/{name}");
            if results.wants(&id) {
                let fresh = written(*len, true);
                read_randomly(&fresh.log, COUNT, check_crcs).report(results, &id);
            }
        }
    }
}

fn read_randomly(log: &Log, count: usize, check_crcs: bool) -> Latencies {
    let end = log.offsets().high_watermark.0 as u64;
    let options = ReaderOptions::default().check_crcs(check_crcs);
    let mut reader = log.reader_with(OffsetSpec::Earliest, options).expect("a reader");
    let mut random = Random::new(7);
    let mut latencies = Latencies::new(count);
    // A first round loads every segment's index.
    for round in 0..2 {
        for _ in 0..if round == 0 { count / 10 } else { count } {
            let offset = random.below(end) as i64;
            let begun = Instant::now();
            reader.seek(OffsetSpec::Offset(Offset(offset))).expect("an offset of the log");
            let batch = reader.next_batch().expect("reads").expect("a batch");
            let record = batch.records().expect("plain").next().expect("a record").expect("a record");
            black_box(record.value);
            let elapsed = begun.elapsed();
            assert_eq!(record.offset, offset);
            if round == 1 {
                latencies.push(elapsed);
            }
        }
    }
    latencies
}

/// Timestamps that rise by one for each record, and the first offset at or behind one of them.
fn time_lookup(results: &mut Results) {
    const COUNT: usize = 20_000;
    const FIRST_MS: i64 = 1_700_000_000_000;
    let id = "time_lookup/batches/100B";
    if !results.wants(id) {
        return;
    }
    // Retention goes by timestamps, and these are long gone.
    let fresh = Fresh::new(&[("retention.ms", "-1"), ("segment.ms", "9223372036854775807")]);
    let mut values = Values::new(100);
    let mut batch = fresh.log.batch();
    let (mut written, mut next) = (0, 0);
    while written < LOG_BYTES {
        for _ in 0..BATCH {
            let record = NewRecord::value(values.next()).with_timestamp(TimestampMs(FIRST_MS + next));
            batch.push(record).expect("it fits");
            next += 1;
        }
        written += batch.size() as u64;
        fresh.log.append_batch_with(&mut batch, Durability::Os).expect("appends");
    }
    let mut random = Random::new(11);
    let mut latencies = Latencies::new(COUNT);
    for _ in 0..COUNT {
        let offset = random.below(next as u64) as i64;
        let begun = Instant::now();
        let found = fresh.log.offset_for_time(TimestampMs(FIRST_MS + offset)).expect("reads").expect("there is one");
        latencies.push(begun.elapsed());
        assert_eq!(found.offset, offset);
    }
    latencies.report(results, id);
}

/// From just before an append on one thread to the record in the hands of another.
fn follow(results: &mut Results) {
    let parked = ("follow/parked/os", 2_000, Duration::from_millis(1));
    let spinning = ("follow/spinning/os", 20_000, Duration::from_micros(30));
    for (id, count, pause) in [parked, spinning] {
        if results.wants(id) {
            follow_log(count, pause, id == spinning.0).report(results, id);
        }
    }
    let id = "follow/limit_unpark";
    if results.wants(id) {
        signal(2_000, Duration::from_millis(1), false).report(results, id);
    }
    let id = "follow/limit_spinning";
    if results.wants(id) {
        signal(20_000, Duration::from_micros(30), true).report(results, id);
    }
}

/// The next record is appended when the one before was taken: a follower that is behind shows how far, not how soon.
fn follow_log(count: usize, pause: Duration, spins: bool) -> Latencies {
    let fresh = Fresh::new(KEYS);
    let epoch = Instant::now();
    let taken = AtomicBool::new(true);
    thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut reader = fresh.log.reader(OffsetSpec::Latest).expect("a reader");
            let mut latencies = Latencies::new(count);
            for _ in 0..count {
                let batch = loop {
                    let batch =
                        if spins { reader.next_batch() } else { reader.next_batch_timeout(Duration::from_secs(10)) };
                    match batch.expect("reads") {
                        Some(batch) => break batch,
                        None => spin_loop(),
                    }
                };
                let record = batch.records().expect("plain").next().expect("one record").expect("a record");
                let sent = record.value.expect("a value").try_into().expect("eight bytes");
                latencies.push(epoch.elapsed().saturating_sub(Duration::from_nanos(u64::from_le_bytes(sent))));
                taken.store(true, Ordering::Release);
            }
            latencies
        });
        // The reader begins at the end: not before it is there.
        thread::sleep(Duration::from_millis(100));
        for _ in 0..count {
            rest(pause);
            wait_for(&taken);
            let sent = (epoch.elapsed().as_nanos() as u64).to_le_bytes();
            fresh.log.append_with(NewRecord::value(&sent), Durability::Os).expect("appends");
        }
        follower.join().expect("the follower")
    })
}

/// The same with nothing in between but a word and, where no thread spins, the system's own wake-up.
fn signal(count: usize, pause: Duration, spins: bool) -> Latencies {
    let epoch = Instant::now();
    let (sent, taken) = (AtomicU64::new(0), AtomicBool::new(true));
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut latencies = Latencies::new(count);
            for _ in 0..count {
                let at = loop {
                    match sent.swap(0, Ordering::Acquire) {
                        0 if spins => spin_loop(),
                        0 => thread::park(),
                        at => break at,
                    }
                };
                latencies.push(epoch.elapsed().saturating_sub(Duration::from_nanos(at)));
                taken.store(true, Ordering::Release);
            }
            latencies
        });
        for _ in 0..count {
            rest(pause);
            wait_for(&taken);
            sent.store(epoch.elapsed().as_nanos() as u64, Ordering::Release);
            if !spins {
                waiter.thread().unpark();
            }
        }
        waiter.join().expect("the waiter")
    })
}

fn wait_for(taken: &AtomicBool) {
    while !taken.swap(false, Ordering::Acquire) {
        thread::yield_now();
    }
}

/// Sleeps where that is possible at all, spins for what is too short.
fn rest(pause: Duration) {
    if pause >= Duration::from_millis(1) {
        thread::sleep(pause);
    } else {
        let begun = Instant::now();
        while begun.elapsed() < pause {
            spin_loop();
        }
    }
}
