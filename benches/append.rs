//! Appending: one record and batches of 100, at `Os` and `Sync`, by one thread and by several, with the latencies of
//! one append; and, in the same run, what the machine allows for the same bytes.
//!
//! A figure's name says its durability. `os` is the page cache: it survives the process, not the power.

#![allow(clippy::cast_precision_loss)] // Figures: their 53rd bit does not matter.

mod common;

use std::os::unix::fs::FileExt;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use edgelog::edgelog_core::{LeaderEpoch, Offset, RecordBatchBuilder, TimestampMs, encode_one, stamp_base};
use edgelog::{Durability, Log, NewRecord};
use memmap2::MmapMut;

use common::{
    BATCH, Dir, Fresh, Latencies, ROOMY, ROOMY_SNAPPY, Results, SIZES, STORE_BYTES_MAX, Values, allocated_file,
    batch_size, durability_name, fill, mapped_file, on_fresh_stores, seconds, single_size,
};

/// A populated map that limits are measured in, round and round: it stays resident.
const RESIDENT_BYTES: usize = 64 << 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut results = Results::new("append");
    limits(&mut criterion);
    single(&mut criterion);
    batches(&mut criterion);
    appenders(&mut criterion);
    latencies(&mut results);
    sustained(&mut results);
    criterion.final_summary();
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(400)).measurement_time(Duration::from_millis(1800));
    group
}

/// Encodes one record, CRC and all, stamps it and copies it into the map: what no log of this format can be faster
/// than. Goes back to the start at the end of the map.
struct MapWriter {
    map: MmapMut,
    at: usize,
    offset: i64,
    buffer: Vec<u8>,
}

impl MapWriter {
    fn new(map: MmapMut) -> MapWriter {
        MapWriter { map, at: 0, offset: 0, buffer: vec![0; 32 << 10] }
    }

    #[inline]
    fn write(&mut self, value: &[u8]) {
        let size =
            encode_one(&mut self.buffer, TimestampMs(1_700_000_000_000), None, Some(value), &[]).expect("it fits");
        stamp_base(&mut self.buffer[..size], Offset(self.offset), LeaderEpoch(0));
        if self.at + size > self.map.len() {
            self.at = 0;
        }
        self.map[self.at..self.at + size].copy_from_slice(&self.buffer[..size]);
        self.at += size;
        self.offset += 1;
    }
}

/// A batch of 100 values as the log would write it.
fn encoded_batch(len: usize) -> Vec<u8> {
    let mut values = Values::new(len);
    let mut builder = RecordBatchBuilder::new(vec![0; batch_size(len) as usize + 1024]);
    for _ in 0..BATCH {
        builder.append(TimestampMs(1_700_000_000_000), None, Some(values.next()), &[]).expect("it fits");
    }
    builder.finish().to_vec()
}

/// What the machine allows.
fn limits(criterion: &mut Criterion) {
    let dir = Dir::new();
    let mut group = group(criterion, "limit");
    for (len, name) in SIZES {
        let mut values = Values::new(len);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("map_copy_resident/{name}"), |bencher| {
            let (_file, map) = mapped_file(dir.path(), RESIDENT_BYTES, true);
            let mut writer = MapWriter::new(map);
            bencher.iter(|| writer.write(values.next()));
        });
        group.bench_function(format!("map_copy_fresh/{name}"), |bencher| {
            let per_map = STORE_BYTES_MAX / single_size(len);
            bencher.iter_custom(|count| {
                let (mut left, mut total) = (count, Duration::ZERO);
                while left > 0 {
                    let now = left.min(per_map);
                    let (_file, map) = mapped_file(dir.path(), STORE_BYTES_MAX as usize, false);
                    let mut writer = MapWriter::new(map);
                    let begun = Instant::now();
                    (0..now).for_each(|_| writer.write(values.next()));
                    total += begun.elapsed();
                    left -= now;
                }
                total
            });
        });
    }
    for (len, name) in SIZES {
        let batch = encoded_batch(len);
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(format!("pwrite/batch/{name}"), |bencher| {
            let per_file = STORE_BYTES_MAX / batch.len() as u64;
            bencher.iter_custom(|count| {
                let (mut left, mut total) = (count, Duration::ZERO);
                while left > 0 {
                    let now = left.min(per_file);
                    let file = allocated_file(dir.path(), "written", STORE_BYTES_MAX as usize);
                    let begun = Instant::now();
                    (0..now).for_each(|n| file.write_all_at(&batch, n * batch.len() as u64).expect("it has room"));
                    total += begun.elapsed();
                    left -= now;
                }
                total
            });
        });
        group.bench_function(format!("pwrite_fdatasync/batch/{name}"), |bencher| {
            bencher.iter_custom(|count| flushes(&dir, &batch, count, false));
        });
    }
    group.throughput(Throughput::Elements(1));
    let page = vec![b'x'; 4096];
    group.bench_function("pwrite_fdatasync/4KiB_fallocated", |bencher| {
        bencher.iter_custom(|count| flushes(&dir, &page, count, false));
    });
    group.bench_function("pwrite_fdatasync/4KiB_zero_filled", |bencher| {
        bencher.iter_custom(|count| flushes(&dir, &page, count, true));
    });
    group.finish();
}

/// Writes `bytes` behind each other into allocated room, each time followed by `fdatasync`.
fn flushes(dir: &Dir, bytes: &[u8], count: u64, zero_filled: bool) -> Duration {
    const FILE_BYTES: u64 = 64 << 20;
    let per_file = FILE_BYTES / bytes.len() as u64;
    let file = allocated_file(dir.path(), "flushed", FILE_BYTES as usize);
    if zero_filled {
        let zeros = vec![0; 1 << 20];
        (0..FILE_BYTES >> 20).for_each(|n| file.write_all_at(&zeros, n << 20).expect("it has room"));
    }
    file.sync_all().expect("flushes");
    let mut total = Duration::ZERO;
    for n in 0..count {
        if n > 0 && n % per_file == 0 && !zero_filled {
            // Written once, its extents are no longer fresh.
            file.set_len(0).expect("shortens");
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, FILE_BYTES).expect("room");
            file.sync_all().expect("flushes");
        }
        let begun = Instant::now();
        file.write_all_at(bytes, n % per_file * bytes.len() as u64).expect("it has room");
        file.sync_data().expect("flushes");
        total += begun.elapsed();
    }
    total
}

fn append_singles(log: &Log, values: &mut Values, count: u64, durability: Durability) {
    for _ in 0..count {
        log.append_with(NewRecord::value(values.next()), durability).expect("appends");
    }
}

fn append_batches(log: &Log, values: &mut Values, count: u64, durability: Durability) {
    let mut batch = log.batch();
    for _ in 0..count {
        fill(&mut batch, values);
        log.append_batch_with(&mut batch, durability).expect("appends");
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

/// One record an append.
fn single(criterion: &mut Criterion) {
    let mut group = group(criterion, "append");
    group.throughput(Throughput::Elements(1));
    for durability in [Durability::Os, Durability::Sync] {
        for (len, name) in SIZES {
            let mut values = Values::new(len);
            group.bench_function(format!("single/{}/{name}", durability_name(durability)), |bencher| {
                bencher.iter_custom(|count| {
                    on_fresh_stores(ROOMY, count, single_size(len), |log, now| {
                        timed(|| append_singles(log, &mut values, now, durability))
                    })
                });
            });
        }
    }
    group.finish();
}

/// A hundred records an append; filling the batch is part of the figure.
fn batches(criterion: &mut Criterion) {
    let mut group = group(criterion, "append");
    group.throughput(Throughput::Elements(BATCH as u64));
    for durability in [Durability::Os, Durability::Sync] {
        for (codec, keys) in [("plain", ROOMY), ("snappy", ROOMY_SNAPPY)] {
            for (len, name) in SIZES {
                let mut values = Values::new(len);
                let id = format!("batch_{codec}/{}/{name}", durability_name(durability));
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|count| {
                        on_fresh_stores(keys, count, batch_size(len), |log, now| {
                            timed(|| append_batches(log, &mut values, now, durability))
                        })
                    });
                });
            }
        }
    }
    group.finish();
}

/// Several threads on one log; the figure is all of theirs together.
fn appenders(criterion: &mut Criterion) {
    const LEN: usize = 100;
    type Work = fn(&Log, &mut Values, u64, Durability);
    let works: [(&str, Work, u64, u64, Durability); 4] = [
        ("single", append_singles, 1, single_size(LEN), Durability::Os),
        ("batch_plain", append_batches, BATCH as u64, batch_size(LEN), Durability::Os),
        ("single", append_singles, 1, single_size(LEN), Durability::Sync),
        ("batch_plain", append_batches, BATCH as u64, batch_size(LEN), Durability::Sync),
    ];
    let mut group = group(criterion, "appenders");
    for threads in [2, 8] {
        for (kind, work, records, unit_bytes, durability) in works {
            // One iteration is one append of each thread.
            group.throughput(Throughput::Elements(records * threads));
            group.bench_function(format!("{threads}/{kind}/{}/100B", durability_name(durability)), |bencher| {
                bencher.iter_custom(|count| {
                    on_fresh_stores(ROOMY, count, unit_bytes * threads, |log, now| {
                        let barrier = Barrier::new(threads as usize + 1);
                        let mut begun = Instant::now();
                        thread::scope(|scope| {
                            for _ in 0..threads {
                                scope.spawn(|| {
                                    let mut values = Values::new(LEN);
                                    barrier.wait();
                                    work(log, &mut values, now, durability);
                                });
                            }
                            barrier.wait();
                            begun = Instant::now();
                        });
                        begun.elapsed()
                    })
                });
            });
        }
    }
    group.finish();
}

/// Each append by itself, a million of them; and the same of a bare copy into a map.
fn latencies(results: &mut Results) {
    const LEN: usize = 100;
    const COUNT: usize = 1_000_000;
    let mut values = Values::new(LEN);
    let id = "latency/append_single/os/100B";
    if results.wants(id) {
        let mut latencies = Latencies::new(COUNT);
        on_fresh_stores(ROOMY, COUNT as u64, single_size(LEN), |log, now| {
            for _ in 0..now {
                let begun = Instant::now();
                log.append_with(NewRecord::value(values.next()), Durability::Os).expect("appends");
                latencies.push(begun.elapsed());
            }
            Duration::ZERO
        });
        latencies.report(results, id);
    }
    let id = "latency/append_single/sync/100B";
    if results.wants(id) {
        const COUNT: usize = 4_000;
        let mut latencies = Latencies::new(COUNT);
        let fresh = Fresh::new(ROOMY);
        for _ in 0..COUNT {
            let begun = Instant::now();
            fresh.log.append_with(NewRecord::value(values.next()), Durability::Sync).expect("appends");
            latencies.push(begun.elapsed());
        }
        latencies.report(results, id);
    }
    let id = "latency/limit_map_copy/100B";
    if results.wants(id) {
        let dir = Dir::new();
        let (_file, map) = mapped_file(dir.path(), RESIDENT_BYTES, true);
        let mut writer = MapWriter::new(map);
        let mut latencies = Latencies::new(COUNT);
        for _ in 0..COUNT {
            let begun = Instant::now();
            writer.write(values.next());
            latencies.push(begun.elapsed());
        }
        latencies.report(results, id);
    }
}

/// The honest case: default segments of 16 MiB, for so long that the disk has to keep up, since the recovery point
/// may trail the end by one sealed segment at most. Next to it, the same bytes by `write` and `fdatasync`.
fn sustained(results: &mut Results) {
    const SEGMENT_BYTES: u64 = 16 << 20;
    let time = Duration::from_secs(seconds(5).min(5));
    for (len, name) in [(100, "100B"), (1 << 10, "1KiB")] {
        let id = format!("sustained/batch_plain/os/{name}");
        if results.wants(&id) {
            let fresh = Fresh::new(&[]);
            let mut values = Values::new(len);
            let begun = Instant::now();
            let mut appended = 0;
            while begun.elapsed() < time {
                append_batches(&fresh.log, &mut values, 100, Durability::Os);
                appended += 100 * BATCH;
            }
            fresh.log.flush().expect("flushes");
            let per_second = appended as f64 / begun.elapsed().as_secs_f64();
            results.write(&id, "records/s", &[("value", per_second)]);
        }
        let id = format!("sustained/limit_pwrite_fdatasync/{name}");
        if results.wants(&id) {
            let dir = Dir::new();
            let batch = encoded_batch(len);
            let begun = Instant::now();
            let mut appended = 0;
            for n in 0.. {
                if begun.elapsed() >= time {
                    break;
                }
                let file = allocated_file(dir.path(), &format!("{n}"), SEGMENT_BYTES as usize);
                for n in 0..SEGMENT_BYTES / batch.len() as u64 {
                    file.write_all_at(&batch, n * batch.len() as u64).expect("it has room");
                    appended += BATCH;
                }
                file.sync_data().expect("flushes");
            }
            let per_second = appended as f64 / begun.elapsed().as_secs_f64();
            results.write(&id, "records/s", &[("value", per_second)]);
        }
    }
}
