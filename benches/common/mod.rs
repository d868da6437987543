//! What the benches share: values to append, fresh stores, latencies, results as JSON lines, and a crashed log.

#![allow(dead_code)] // Each bench uses its own part of this.

pub(crate) mod crash;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use edgelog::{BatchBuilder, Durability, Log, NewRecord, NewTopic, Store, StoreOptions};
use memmap2::{MmapMut, MmapOptions};

/// Sizes of values, with the names that the figures have.
pub(crate) const SIZES: [(usize, &str); 4] = [(16, "16B"), (100, "100B"), (1 << 10, "1KiB"), (16 << 10, "16KiB")];
/// Records in a batch, wherever a figure speaks of batches.
pub(crate) const BATCH: usize = 100;
/// A store gets this much, then a fresh one takes its place: page cache that goes back and forth beyond that measures
/// the host of a virtual machine. All of it fits into one segment, so no appender waits for the disk.
pub(crate) const STORE_BYTES_MAX: u64 = 128 << 20;

pub(crate) const TOPIC: &str = "bench";

pub(crate) fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Os => "os",
        Durability::Interval => "interval",
        Durability::Sync => "sync",
    }
}

/// Different values of one size: JSON of a sensor, padded with more readings, cut to the byte.
pub(crate) struct Values {
    values: Vec<Vec<u8>>,
    at: usize,
}

impl Values {
    /// Few enough that they stay in the second cache level up to 1 KiB.
    const COUNT: usize = 64;

    pub(crate) fn new(len: usize) -> Values {
        let mut random = Random::new(len as u64);
        let values = (0..Self::COUNT).map(|n| value(len, n, &mut random)).collect();
        Values { values, at: 0 }
    }

    /// The next value, round and round.
    #[inline]
    pub(crate) fn next(&mut self) -> &[u8] {
        self.at = if self.at + 1 == Self::COUNT { 0 } else { self.at + 1 };
        &self.values[self.at]
    }
}

fn value(len: usize, n: usize, random: &mut Random) -> Vec<u8> {
    let mut text = String::with_capacity(len + 64);
    if len < 64 {
        let _ = write!(text, "{{\"t\":{:02}.{:04}}}  ", 18 + random.below(9), random.below(10_000));
    } else {
        let _ = write!(text, "{{\"device\":\"gateway-07\",\"seq\":{},\"ok\":true", 100_000 + n);
        let mut sensor = 0;
        while text.len() < len {
            let (whole, part) = (18 + sensor % 5, random.below(100));
            let _ = write!(text, ",\"sensor{sensor:02}\":{{\"celsius\":{whole}.{part:02}}}");
            sensor = (sensor + 1) % 32;
        }
    }
    let mut bytes = text.into_bytes();
    bytes.resize(len, b' ');
    bytes
}

/// A small generator (xorshift64*), the same numbers in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    #[inline]
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)) * u128::from(bound)) >> 64) as u64
    }
}

/// Where the benches put their data: `EDGELOG_BENCH_DIR`, or the system's directory for temporary files.
pub(crate) fn base_dir() -> PathBuf {
    std::env::var_os("EDGELOG_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A directory that is gone when this is dropped.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base_dir().join(format!("edgelog-bench-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for the bench's data; EDGELOG_BENCH_DIR names another place");
        Dir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Store options with topic keys set.
pub(crate) fn options(keys: &[(&str, &str)]) -> StoreOptions {
    let mut options = Store::options();
    for (key, value) in keys {
        options = options.set(key, value).expect("a key and a value that edgelog knows");
    }
    options
}

/// Room for a batch of 100 records of 16 KiB, and for all that a store gets in one segment.
pub(crate) const ROOMY: &[(&str, &str)] = &[("segment.bytes", "1073741824"), ("max.message.bytes", "4194304")];
pub(crate) const ROOMY_SNAPPY: &[(&str, &str)] =
    &[("segment.bytes", "1073741824"), ("max.message.bytes", "4194304"), ("compression.type", "snappy")];

/// A new store with one topic of one partition.
pub(crate) struct Fresh {
    store: Store,
    pub(crate) log: Log,
    dir: Dir,
}

impl Fresh {
    pub(crate) fn new(keys: &[(&str, &str)]) -> Fresh {
        let dir = Dir::new();
        let store = options(keys).open(dir.path()).expect("a new store");
        store.create_topic(&NewTopic::new(TOPIC)).expect("a new topic");
        let log = store.log(TOPIC, 0).expect("just created");
        Fresh { store, log, dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }
}

impl Drop for Fresh {
    /// Deletes before it closes: the page cache forgets what would have to be flushed.
    fn drop(&mut self) {
        let _ = self.store.delete_topic(TOPIC);
    }
}

/// Times `count` units of work, each of which appends about `unit_bytes`, on as many fresh stores as that takes.
/// Making and deleting stores is not timed.
pub(crate) fn on_fresh_stores(
    keys: &[(&str, &str)],
    count: u64,
    unit_bytes: u64,
    mut run: impl FnMut(&Log, u64) -> Duration,
) -> Duration {
    let per_store = (STORE_BYTES_MAX / unit_bytes).max(1);
    let (mut left, mut total) = (count, Duration::ZERO);
    while left > 0 {
        let now = left.min(per_store);
        let fresh = Fresh::new(keys);
        total += run(&fresh.log, now);
        left -= now;
    }
    total
}

/// Fills a batch with the next 100 values.
#[inline]
pub(crate) fn fill(batch: &mut BatchBuilder, values: &mut Values) {
    for _ in 0..BATCH {
        batch.push(NewRecord::value(values.next())).expect("100 records fit into a batch");
    }
}

/// Appends about `bytes` of values of `len`: in batches of 100, or one by one.
pub(crate) fn append_bytes(log: &Log, len: usize, bytes: u64, batches: bool) {
    let mut values = Values::new(len);
    let mut batch = log.batch();
    let mut written = 0;
    while written < bytes {
        if batches {
            fill(&mut batch, &mut values);
            written += batch.size() as u64;
            log.append_batch_with(&mut batch, Durability::Os).expect("appends");
        } else {
            log.append_with(NewRecord::value(values.next()), Durability::Os).expect("appends");
            written += single_size(len);
        }
    }
}

/// Bytes of a batch of one record of this size, about: 61 of header, at most 11 of the record's own.
pub(crate) fn single_size(len: usize) -> u64 {
    len as u64 + 72
}

/// Bytes of a batch of 100 records of this size, about.
pub(crate) fn batch_size(len: usize) -> u64 {
    (BATCH * (len + 9)) as u64 + 61
}

/// A file with allocated room, and a map of it.
pub(crate) fn mapped_file(dir: &Path, bytes: usize, populate: bool) -> (File, MmapMut) {
    let file = allocated_file(dir, "mapped", bytes);
    // SAFETY: the file is this process's alone, and is not shortened.
    let mut map = unsafe { MmapOptions::new().len(bytes).map_mut(&file) }.expect("a map");
    if populate {
        map.fill(1);
    }
    (file, map)
}

/// A file with `bytes` of room allocated and not written.
pub(crate) fn allocated_file(dir: &Path, name: &str, bytes: usize) -> File {
    let path = dir.join(name);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).expect("a file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes as u64).expect("room on the disk");
    file
}

/// How long each of many short works took, in nanoseconds.
pub(crate) struct Latencies {
    samples: Vec<u32>,
    /// What reading the clock costs by itself, taken off every sample.
    clock_ns: u32,
}

impl Latencies {
    pub(crate) fn new(capacity: usize) -> Latencies {
        // Written once, so that no sample pays for the first touch of a page.
        let mut samples = vec![1; capacity];
        let mut ticks: Vec<u32> = (0..20_001).map(|_| nanos(Instant::now().elapsed())).collect();
        ticks.sort_unstable();
        samples.clear();
        Latencies { samples, clock_ns: ticks[ticks.len() / 2] }
    }

    #[inline]
    pub(crate) fn push(&mut self, elapsed: Duration) {
        self.samples.push(nanos(elapsed).saturating_sub(self.clock_ns));
    }

    /// Sorts, prints and writes them.
    pub(crate) fn report(mut self, results: &mut Results, id: &str) {
        assert!(!self.samples.is_empty(), "{id}: nothing was measured");
        self.samples.sort_unstable();
        let at = |share: f64| f64::from(self.samples[((self.samples.len() - 1) as f64 * share) as usize]);
        let fields = [
            ("p50", at(0.5)),
            ("p99", at(0.99)),
            ("p999", at(0.999)),
            ("max", at(1.0)),
            ("samples", self.samples.len() as f64),
            ("clock", f64::from(self.clock_ns)),
        ];
        results.write(id, "ns", &fields);
    }
}

fn nanos(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX)
}

/// The middle one of some times, in milliseconds.
pub(crate) fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// What a bench measured itself: one JSON object a line, in `<target directory>/edgelog-bench/<bench>.jsonl`.
pub(crate) struct Results {
    file: Option<File>,
    filter: Option<String>,
}

impl Results {
    /// The results of one bench. Those of an earlier run go, unless only a part is run again.
    pub(crate) fn new(bench: &str) -> Results {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let filter = args.iter().find(|arg| !arg.starts_with('-')).cloned();
        // `cargo test --benches` wants to know whether it runs, not how fast; `--list` not even that.
        let measures = args.iter().any(|arg| arg == "--bench") && !args.iter().any(|arg| arg == "--list");
        let file = measures.then(|| {
            let exe = std::env::current_exe().expect("the bench's own path");
            // <target directory>/<profile>/deps/<bench>
            let dir = exe.ancestors().nth(3).expect("cargo's layout").join("edgelog-bench");
            fs::create_dir_all(&dir).expect("a directory for results");
            let path = dir.join(format!("{bench}.jsonl"));
            if filter.is_none() {
                let _ = fs::remove_file(&path);
            }
            OpenOptions::new().create(true).append(true).open(path).expect("a file for results")
        });
        Results { file, filter }
    }

    /// Whether to measure what goes by this name: `cargo bench --bench NAME -- PART` asks for a part.
    pub(crate) fn wants(&self, id: &str) -> bool {
        self.file.is_some() && self.filter.as_ref().is_none_or(|filter| id.contains(filter.as_str()))
    }

    /// Writes one figure and shows it.
    pub(crate) fn write(&mut self, id: &str, unit: &str, fields: &[(&str, f64)]) {
        let mut line = format!("{{\"id\":\"{id}\",\"unit\":\"{unit}\"");
        let mut shown = format!("{id:<40}");
        for (name, figure) in fields {
            let _ = write!(line, ",\"{name}\":{figure}");
            let _ = write!(shown, " {name} {figure:.3}");
        }
        println!("{shown} [{unit}]");
        if let Some(file) = self.file.as_mut() {
            writeln!(file, "{line}}}").expect("room for results");
        }
    }
}

/// How long the figures over time take: `EDGELOG_BENCH_SECONDS`, or so many.
pub(crate) fn seconds(default: u64) -> u64 {
    std::env::var("EDGELOG_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A number out of a file like `/proc/self/status`: the first one behind `key`.
pub(crate) fn proc_number(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Anonymous memory of this process, in bytes.
pub(crate) fn anonymous_bytes() -> u64 {
    proc_number("/proc/self/status", "RssAnon:").unwrap_or(0) << 10
}

/// The files of a directory whose names end so, in order.
pub(crate) fn files_of(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a readable directory");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.retain(|path| path.to_str().is_some_and(|path| path.ends_with(ending)));
    paths.sort();
    paths
}

/// Where the batches of a log in memory stand.
pub(crate) fn batches_of(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(size) = edgelog::edgelog_core::RecordBatch::peek_size(&bytes[at..]) {
        if at + size > bytes.len() {
            break;
        }
        found.push(at..at + size);
        at += size;
    }
    found
}
