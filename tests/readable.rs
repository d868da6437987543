//! What a reader can read of a damaged store before it is repaired or opened for writing, it can read afterwards: the
//! same records at the same offsets.
//!
//! `EDGELOG_PROPERTY_SEEDS` is how many damaged stores there are (400 by default), `EDGELOG_PROPERTY_FIRST` with which
//! seed the first one begins. A failure names its seed and the damage. Files and memory are bounded: the system ends an
//! engine that goes beyond, and `readable-seed` in cargo's `target/tmp` has the seed.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use edgelog::edgelog_core::RecordBatch;
use edgelog::inspect::{self, Selection};
use edgelog::{Durability, Log, NewRecord, NewTopic, Offset, OffsetSpec, ReadUpTo, ReaderOptions, Store, TimestampMs};
use edgelog_testkit::{Random, TempDir, batches_len, copy_dir, ticking};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Of one log: a reader that goes on behind damage does so at most so often.
const SKIPS_MAX: usize = 1000;
const FAILURES_SHOWN_MAX: usize = 8;
/// Of one file: a hundred times what the stores have.
const FILE_BYTES_MAX: u64 = 16 << 20;
const MEMORY_BYTES_MAX: u64 = 2 << 30;

type Record = (i64, Option<Vec<u8>>, Option<Vec<u8>>);
type Records = BTreeMap<(String, Offset), Record>;

/// In memory, where the system has such a place: a store is flushed some twenty times here.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::below(memory) } else { TempDir::new() }
}

/// How the store came to be, before it was damaged.
#[derive(Debug, Clone, Copy)]
enum Origin {
    Closed,
    /// Killed, with everything acknowledged as durable.
    Killed,
    /// Killed, with the last records in the page cache alone.
    Unflushed,
    /// Partitions as a broker has them, and no checkpoint.
    Imported,
    /// As a broker's compaction leaves them: some batches are gone.
    Compacted,
    /// Compacted, and opened and closed by edgelog once.
    Adopted,
}

const ORIGINS: [Origin; 6] =
    [Origin::Closed, Origin::Killed, Origin::Unflushed, Origin::Imported, Origin::Compacted, Origin::Adopted];

fn make(origin: Origin, dir: &Path) {
    let mut random = Random(7);
    let store = ticking().open(dir).unwrap();
    for topic in ["small", "large"] {
        let segment_bytes = if topic == "small" { "4096" } else { "1048576" };
        store.create_topic(&NewTopic::new(topic).config("segment.bytes", segment_bytes)).unwrap();
        let log = store.log(topic, 0).unwrap();
        for n in 0..24 {
            let mut batch = log.batch();
            for m in 0..1 + random.below(4) {
                let value: Vec<u8> = (0..random.below(400)).map(|_| random.next() as u8).collect();
                batch.push(NewRecord::value(&value).with_key(format!("{n}-{m}").as_bytes())).unwrap();
            }
            let is_last = matches!(origin, Origin::Unflushed) && n >= 16;
            let durability = if is_last { Durability::Os } else { Durability::Sync };
            log.append_batch_with(&mut batch, durability).unwrap();
            if n == 8 {
                store.tick(TimestampMs(i64::from(n))).unwrap();
            }
        }
    }
    match origin {
        Origin::Killed | Origin::Unflushed => store.abandon(),
        _ => store.close().unwrap(),
    }
    drop(store);
    if matches!(origin, Origin::Imported | Origin::Compacted | Origin::Adopted) {
        fs::remove_file(dir.join("edgelog.checkpoint")).unwrap();
        for path in files(dir, "") {
            let name = path.file_name().unwrap().to_str().unwrap();
            if matches!(name, "topic.properties" | "edgelog.properties" | "partition.metadata" | ".lock") {
                fs::remove_file(&path).unwrap();
            }
        }
    }
    if matches!(origin, Origin::Compacted | Origin::Adopted) {
        for path in files(dir, ".log") {
            let bytes = fs::read(&path).unwrap();
            let mut kept = Vec::new();
            for (at, size) in batches(&bytes) {
                if !random.one_in(3) {
                    kept.extend(&bytes[at..at + size]);
                }
            }
            fs::write(&path, kept).unwrap();
        }
        // Of the batches before.
        for path in files(dir, "index") {
            fs::remove_file(path).unwrap();
        }
    }
    if matches!(origin, Origin::Adopted) {
        ticking().open(dir).unwrap().close().unwrap();
    }
}

/// The files in the directories of logs whose names end in `ending`, by name.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let logs = entries.filter(|path| path.is_dir());
    let inside = logs.flat_map(|log| fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()));
    let mut found: Vec<_> = inside.filter(|path| path.to_str().unwrap().ends_with(ending)).collect();
    found.sort();
    found
}

/// Where the batches at the start of `bytes` stand, and how long they are.
fn batches(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Ok(batch) = RecordBatch::parse(&bytes[at..]) {
        found.push((at, batch.size()));
        at += batch.size();
    }
    found
}

/// Damages the segments in one to three places, and says how.
fn damage(dir: &Path, random: &mut Random) -> Vec<String> {
    let mut done = Vec::new();
    for _ in 0..1 + random.below(3) {
        let segments = files(dir, ".log");
        let path = &segments[random.below(segments.len())];
        let mut bytes = fs::read(path).unwrap();
        let end = batches_len(&bytes).max(1).min(bytes.len());
        if bytes.is_empty() {
            continue;
        }
        let all = batches(&bytes);
        // Anywhere, or in the header of a batch, where the format's fields are.
        let at = match all.get(random.below(all.len().max(1))) {
            Some((at, _)) if random.one_in(2) => (at + random.below(61)).min(bytes.len() - 1),
            _ => random.below(end),
        };
        let name = path.strip_prefix(dir).unwrap().display().to_string();
        match random.below(6) {
            0 | 1 => {
                bytes[at] ^= 1 << random.below(8);
                done.push(format!("flip a bit at {at} of {name}"));
            }
            2 => {
                let len = (1 + random.below(200)).min(bytes.len() - at);
                let fill = if random.one_in(2) { 0 } else { random.next() as u8 };
                bytes[at..at + len].fill(fill);
                done.push(format!("fill {len} bytes at {at} of {name} with {fill}"));
            }
            3 => {
                bytes.truncate(at);
                done.push(format!("cut {name} at {at}"));
            }
            4 => {
                let len = 1 + random.below(80);
                let inserted: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, inserted);
                done.push(format!("insert {len} bytes at {at} of {name}"));
            }
            // Also with another log's.
            _ => {
                let other = &segments[random.below(segments.len())];
                let others = fs::read(other).unwrap();
                fs::write(other, &bytes).unwrap();
                bytes = others;
                done.push(format!("exchange {name} and {}", other.strip_prefix(dir).unwrap().display()));
            }
        }
        fs::write(path, bytes).unwrap();
    }
    done
}

/// Everything that readers of the store can read, on both sides of damage.
fn readable(store: &Store) -> Records {
    let mut found = Records::new();
    for topic in store.topics().unwrap_or_default() {
        for partition in 0..topic.partitions {
            if let Ok(log) = store.log(&topic.name, partition) {
                read(&log, &mut found);
            }
        }
    }
    found
}

fn read(log: &Log, found: &mut Records) {
    let options = ReaderOptions::default().up_to(ReadUpTo::LogEnd);
    let Ok(mut reader) = log.reader_with(OffsetSpec::Earliest, options) else { return };
    for _ in 0..SKIPS_MAX {
        match reader.next_batch() {
            Ok(Some(batch)) => {
                for record in batch.records().into_iter().flatten() {
                    let Ok(record) = record else { break };
                    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                    let record_read = (record.timestamp.0, owned(record.key), owned(record.value));
                    found.entry((log.name().to_string(), record.offset)).or_insert(record_read);
                }
            }
            Err(_) if reader.skip_damage().is_ok() => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// What is missing from `after`, or another record there.
fn lost(before: &Records, after: &Records) -> Vec<String> {
    let told = |(at, record): (&(String, Offset), &Record)| match after.get(at) {
        Some(found) if found == record => None,
        Some(_) => Some(format!("{} @ {}: another record", at.0, at.1)),
        None => Some(format!("{} @ {}: gone", at.0, at.1)),
    };
    before.iter().filter_map(told).collect()
}

/// How many records were readable; or what is lost of them, and how.
fn run(seed: u64, origin: Origin, original: &Path) -> Result<usize, String> {
    let mut random = Random(seed);
    let damaged = scratch();
    copy_dir(original, damaged.path());
    let done = damage(damaged.path(), &mut random);
    let mut before = match Store::attach(damaged.path()) {
        Ok(store) => readable(&store),
        Err(_) => return Ok(0),
    };
    // A base offset that damage has raised at a log's end, where offsets need only rise, is contradicted by nothing: a
    // record may show at an offset that the log never had. That is not what has to stay.
    let whole = Store::attach(original).map(|store| readable(&store)).map_err(|error| error.to_string())?;
    before.retain(|at, _| whole.contains_key(at));
    let holds = |what: &str, after: edgelog::Result<Records>| {
        let lost = match after {
            Ok(after) => lost(&before, &after),
            Err(error) => vec![error.to_string()],
        };
        let told = format!("seed {seed}, {origin:?}, {done:#?}: after {what}, of {} records: {lost:#?}", before.len());
        if lost.is_empty() { Ok(()) } else { Err(told) }
    };
    let attached = |dir: &TempDir| Store::attach(dir.path()).map(|store| readable(&store));

    let repaired = scratch();
    copy_dir(damaged.path(), repaired.path());
    let storage = inspect::open_directory_for_repair(repaired.path()).unwrap();
    let report = inspect::repair(&storage, &Selection::all(), false, &mut |_| ControlFlow::Continue(()));
    drop(storage);
    holds("repair", report.and_then(|_| attached(&repaired)))?;

    let opened = scratch();
    copy_dir(damaged.path(), opened.path());
    let store = ticking().open(opened.path());
    let closed = store.and_then(|store| {
        let found = readable(&store);
        store.close().map(|()| found)
    });
    holds("an open", closed)?;
    holds("a close", attached(&opened))?;
    Ok(before.len())
}

#[test]
fn what_was_readable_stays_readable() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse::<u64>().unwrap());
    let (first, seeds) = (number("EDGELOG_PROPERTY_FIRST", 1), number("EDGELOG_PROPERTY_SEEDS", 400));
    for (resource, bytes) in [(Resource::Fsize, FILE_BYTES_MAX), (Resource::Data, MEMORY_BYTES_MAX)] {
        setrlimit(resource, Rlimit { current: Some(bytes), maximum: None }).unwrap();
    }
    let originals = ORIGINS.map(|origin| {
        let dir = scratch();
        make(origin, dir.path());
        (origin, dir)
    });
    let (mut records, mut failures) = (0, Vec::new());
    for seed in first..first + seeds {
        let (origin, original) = &originals[seed as usize % originals.len()];
        fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("readable-seed"), seed.to_string()).unwrap();
        match run(seed, *origin, original.path()) {
            Ok(read) => records += read,
            Err(failure) => failures.push(failure),
        }
    }
    let shown = failures.iter().take(FAILURES_SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {seeds} damaged stores lost what was readable:\n{shown}", failures.len());
    assert!(records as u64 > seeds * 20, "only {records} records were read of {seeds} damaged stores");
}
