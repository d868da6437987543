//! One verdict: whatever stands in a segment, the check, an attached reader, both exports, the dump, repair and the
//! open say the same of it, and none of them panics, hangs or takes memory without bound.
//!
//! Stores of every origin (written here, imported, thinned out by compaction, never opened, several side by side) get
//! fields of their batches changed and the checksums put right, seeded. `EDGELOG_TEST_VERDICTS=N` looks at N stores,
//! `EDGELOG_TEST_VERDICTS_FROM=SEED` begins elsewhere, `EDGELOG_TEST_VERDICTS_SAVE=DIR` keeps the last one.

#![allow(clippy::case_sensitive_file_extension_comparisons)] // The engine writes these names, in lower case.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edgelog::edgelog_core::{LeaderEpoch, RecordBatch, RecordBatchBuilder, TimestampMs, crc32c, stamp_base};
use edgelog::inspect::{self, CheckReport, DumpOptions, ExportRange, Finding, Selection, Severity};
use edgelog::storage::{MemoryStorage, Storage};
use edgelog::{Durability, Error, Log, NewRecord, NewTopic, Offset, OffsetSpec, Store, TopicPartition};
use edgelog_testkit::{Files, Random, files_of, storage_of, ticking};

const MIB: isize = 1 << 20;
/// What any of them may hold at a time, whatever a field claims.
const HEAP_MAX: isize = 200 * MIB;
/// Long enough for a loaded machine: reached only where something hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// A reader that answers so often without an end goes round in circles.
const STEPS_MAX: usize = 10_000;

// --- counting --------------------------------------------------------------------------------------------------------

struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    LIVE.with(|live| {
        live.set(live.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: everything is the system allocator's; this only counts, in cells that need no allocation themselves.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// --- stores ----------------------------------------------------------------------------------------------------------

/// Settings under which nothing is deleted whatever a timestamp says.
fn open(storage: &MemoryStorage) -> edgelog::Result<Store> {
    let clock = edgelog::clock::ManualClock::new(TimestampMs(1_700_000_000_000));
    ticking().set("retention.ms", "-1").unwrap().clock(clock).open_on(storage.clone())
}

fn batch(base_offset: Offset, records: usize) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; 1 << 16]);
    for n in 0..records {
        let value = format!("value {}", base_offset + n as i64).repeat(1 + n % 3);
        let time = TimestampMs(1_700_000_000_000 + base_offset.0);
        builder.append(time, Some(b"key"), Some(value.as_bytes()), &[]).unwrap();
    }
    let bytes = builder.finish();
    stamp_base(bytes, base_offset, LeaderEpoch(0));
    bytes.to_vec()
}

/// Puts a field and the checksum that goes with it.
fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Segments of hand-made batches; `thin` leaves holes, as compaction does.
fn hand_made(random: &mut Random, dir: &str, thin: bool) -> Files {
    let mut files = Files::new();
    let mut offset = if random.one_in(3) { 100 } else { 0 };
    for _ in 0..1 + random.below(3) {
        let base = offset;
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(5) {
            let records = 1 + random.below(4);
            let mut made = batch(Offset(offset), records);
            let mut span = records as i64;
            if thin && random.one_in(2) {
                span += random.below(20) as i64;
                put(&mut made, 23, &((span - 1) as i32).to_be_bytes());
            }
            bytes.extend(made);
            offset += span;
            if thin && random.one_in(3) {
                offset += random.below(30) as i64;
            }
        }
        files.insert(format!("{dir}/{base:020}.log"), bytes);
    }
    files
}

fn written_here(random: &mut Random, storage: &MemoryStorage, topic: &str) {
    let store = open(storage).unwrap();
    store.create_topic(&NewTopic::new(topic).config("segment.bytes", "4096")).unwrap();
    let log = store.log(topic, 0).unwrap();
    for n in 0..4 + random.below(30) {
        let value = format!("{n} ").repeat(20 + random.below(60));
        log.append_with(NewRecord::value(value.as_bytes()), Durability::Sync).unwrap();
    }
    if random.one_in(3) {
        // Not closed: what lies above the last checkpoint is a recovery's to judge.
        store.abandon();
    } else {
        store.close().unwrap();
    }
}

/// How a store came to be.
const ORIGINS: [&str; 6] = ["own", "imported", "compacted", "not opened", "compacted, not opened", "mixed"];

fn make(random: &mut Random) -> (&'static str, Files) {
    let origin = ORIGINS[random.below(ORIGINS.len())];
    let thin = origin.starts_with("compacted");
    let files = match origin {
        "own" => {
            let storage = MemoryStorage::new();
            written_here(random, &storage, "t");
            files_of(&storage)
        }
        "mixed" => {
            let storage = MemoryStorage::new();
            written_here(random, &storage, "t");
            let mut files = files_of(&storage);
            files.extend(hand_made(random, "u-0", true));
            files
        }
        "imported" | "compacted" => {
            let storage = storage_of(&hand_made(random, "t-0", thin));
            open(&storage).unwrap().close().unwrap();
            files_of(&storage)
        }
        _ => hand_made(random, "t-0", thin),
    };
    (origin, files)
}

fn places(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut places, mut at) = (Vec::new(), 0);
    while let Ok(batch) = RecordBatch::parse(&bytes[at..]) {
        places.push((at, batch.size()));
        at += batch.size();
    }
    places
}

/// Changes one field of one batch; says which.
fn mutate(random: &mut Random, files: &mut Files) -> Option<String> {
    let logs: Vec<String> = files.keys().filter(|path| path.ends_with(".log")).cloned().collect();
    let path = logs.get(random.below(logs.len().max(1)))?.clone();
    let bytes = files.get_mut(&path)?;
    let places = places(bytes);
    let &(at, size) = places.get(random.below(places.len().max(1)))?;
    let batch = &mut bytes[at..at + size];
    // Where it is, how many bytes it has, and its name.
    let fields = [
        (0, 8, "base offset"),
        (12, 4, "leader epoch"),
        (21, 2, "attributes"),
        (23, 4, "last offset delta"),
        (27, 8, "base timestamp"),
        (35, 8, "max timestamp"),
        (43, 8, "producer id"),
        (51, 2, "producer epoch"),
        (53, 4, "base sequence"),
        (57, 4, "record count"),
        (61, 1, "first record's length"),
        (8, 4, "batch length"),
        (16, 1, "magic"),
    ];
    let (field_at, len, name) = fields[random.below(fields.len())];
    let before = batch[field_at..field_at + len].iter().fold(0_i64, |value, &byte| value << 8 | i64::from(byte));
    let chosen = match random.below(9) {
        0 => 0,
        1 => -1,
        2 => i64::MAX >> (64 - 8 * len),
        3 => i64::MIN >> (64 - 8 * len),
        4 => before.wrapping_add(1),
        5 => before.wrapping_sub(1),
        6 => before.wrapping_add(1 + random.below(1000) as i64),
        7 => before ^ (1 << random.below(8 * len)),
        _ => random.next() as i64,
    };
    let field = &chosen.to_be_bytes()[8 - len..];
    put(batch, field_at, field);
    Some(format!("{name} of the batch at {at} of {path}: {before} is now {field:02x?}"))
}

// --- what each of them says ------------------------------------------------------------------------------------------

/// Ranges of offsets in order, merged where they touch.
fn merged(ranges: impl IntoIterator<Item = (Offset, Offset)>) -> Vec<(Offset, Offset)> {
    let mut ranges: Vec<_> = ranges.into_iter().filter(|(first, next)| first < next).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(Offset, Offset)> = Vec::new();
    for (first, next) in ranges {
        match merged.last_mut().filter(|last| last.1 >= first) {
            Some(last) => last.1 = last.1.max(next),
            None => merged.push((first, next)),
        }
    }
    merged
}

fn lost_in<'f>(findings: impl IntoIterator<Item = &'f Finding>, name: &TopicPartition) -> Vec<(Offset, Offset)> {
    let of_log = |finding: &&Finding| finding.log.as_ref() == Some(name) && finding.severity == Severity::Lost;
    merged(findings.into_iter().filter(of_log).filter_map(|finding| finding.lost))
}

/// What a reader saw of one log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    records: Vec<(Offset, Vec<u8>)>,
    lost: Vec<(Offset, Offset)>,
    failure: Option<String>,
}

fn read(log: &Log) -> Seen {
    let mut seen = Seen::default();
    if let Err(error) = read_into(log, &mut seen) {
        seen.failure = Some(error.to_string());
    }
    seen.lost = merged(std::mem::take(&mut seen.lost));
    seen
}

fn read_into(log: &Log, seen: &mut Seen) -> edgelog::Result<()> {
    let mut reader = log.reader(OffsetSpec::Earliest)?;
    for _ in 0..STEPS_MAX {
        let from = reader.position().offset;
        match reader.next_batch() {
            Ok(None) => return Ok(()),
            Ok(Some(batch)) => {
                let records: edgelog::Result<Vec<_>> = batch.records().and_then(|records| {
                    records.map(|record| record.map(|r| (r.offset, r.value.unwrap_or(b"null").to_vec()))).collect()
                });
                match records {
                    Ok(records) => seen.records.extend(records),
                    // A codec that this build lacks is no damage.
                    Err(error) if error.to_string().contains("not built in") => {}
                    Err(_) => seen.lost.push((from.max(batch.base_offset()), reader.position().offset)),
                }
            }
            Err(Error::CorruptRecord { .. }) => {
                let range = reader.skip_damage()?;
                seen.lost.push((range.first_offset, range.next_offset));
                seen.lost.extend(range.passed_over);
            }
            Err(error) => return Err(error),
        }
    }
    panic!("the reader does not come to an end");
}

fn read_attached(storage: &MemoryStorage, name: &TopicPartition) -> Seen {
    let store = ticking().attach_on(storage.clone()).unwrap();
    match store.log(&name.topic, name.partition) {
        Ok(log) => read(&log),
        Err(error) => Seen { failure: Some(error.to_string()), ..Seen::default() },
    }
}

fn go_on(_: inspect::Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn shared(storage: &MemoryStorage) -> Arc<dyn Storage> {
    Arc::new(storage.clone())
}

fn check(storage: &MemoryStorage) -> CheckReport {
    inspect::check(&shared(storage), &Selection::all(), &mut go_on).unwrap()
}

// --- the comparison --------------------------------------------------------------------------------------------------

/// What did not agree, by kind, each with its seed.
#[derive(Default)]
struct Disagreements(BTreeMap<(&'static str, &'static str), Vec<(u64, String)>>);

impl Disagreements {
    fn note(&mut self, kind: &'static str, origin: &'static str, seed: u64, text: String) {
        self.0.entry((kind, origin)).or_default().push((seed, text));
    }
}

const CHECK_AND_READER: &str = "the check and an attached reader name other lost offsets";
const EXPORT_OF_RECORDS: &str = "the export of records and an attached reader differ";
const EXPORT_FOR_BROKERS: &str = "the export for brokers and the check name other lost offsets";
const DUMP: &str = "the dump calls a file damaged, and the check calls its log sound";
const OPEN_HIDES: &str = "what was read before an open is not there after it";
const REPAIR_HIDES: &str = "what was read before a repair is not there after it";
const REPAIR_LEAVES: &str = "a repair does not make the store sound, and leaves no decision to a person";
const REPAIR_TWICE: &str = "a second repair changes something";
const REOPEN: &str = "a store that was opened and closed has lost what nothing was lost of before";

/// Runs everything on copies of the store and compares.
fn compare(seed: u64, origin: &'static str, what: &str, files: &Files, found: &mut Disagreements) {
    let storage = storage_of(files);
    let report = check(&storage);
    let mut note = |kind, text: String| found.note(kind, origin, seed, format!("{what}: {text}"));
    let mut seen_before = Vec::new();
    for log in &report.logs {
        let mut seen = read_attached(&storage, &log.name);
        // What stands behind the end no reader meets: the commands that print records ask for it.
        let hidden = inspect::check_hidden(&shared(&storage), &log.name).unwrap();
        seen.lost = merged(seen.lost.into_iter().chain(lost_in(&hidden, &log.name)));
        let lost = lost_in(&report.findings, &log.name);
        let is_damage = log.worst == Some(Severity::Lost);
        if seen.failure.is_some() || lost != seen.lost || is_damage == seen.lost.is_empty() {
            let worst = log.worst;
            note(CHECK_AND_READER, format!("check {worst:?} {lost:?}, reader {:?} {:?}", seen.lost, seen.failure));
        }
        let mut records = Vec::new();
        let mut tell = |record: &edgelog::Record<'_>, _| -> io::Result<()> {
            records.push((record.offset, record.value.unwrap_or(b"null").to_vec()));
            Ok(())
        };
        let range = ExportRange::default();
        let exported = inspect::export_records(&shared(&storage), &log.name, range, &mut tell, &mut go_on);
        match &exported {
            Ok(exported) => {
                let lost = lost_in(&exported.lost, &log.name);
                if records != seen.records || lost != seen.lost {
                    let counts = (records.len(), seen.records.len());
                    note(EXPORT_OF_RECORDS, format!("{counts:?} records, lost {lost:?} and {:?}", seen.lost));
                }
            }
            Err(error) => note(EXPORT_OF_RECORDS, error.to_string()),
        }
        let target = MemoryStorage::new();
        match inspect::export_partition(&shared(&storage), &log.name, &shared(&target), range, None, &mut go_on) {
            Ok(exported) if lost_in(&exported.lost, &log.name) == lost => {}
            Ok(exported) => {
                note(EXPORT_FOR_BROKERS, format!("{:?} and {lost:?}", lost_in(&exported.lost, &log.name)));
            }
            Err(error) => note(EXPORT_FOR_BROKERS, error.to_string()),
        }
        let dir = log.name.to_string();
        for path in files.keys().filter(|path| path.starts_with(&dir) && path.ends_with(".log")) {
            let options = DumpOptions::default().deep(true).data(true);
            let dumped = inspect::dump(&storage, path, options, &mut |_| Ok(())).unwrap();
            if dumped.damaged && log.worst < Some(Severity::Heals) {
                note(DUMP, path.clone());
            }
        }
        seen_before.push((log.name.clone(), seen));
    }
    inspect::repair(&shared(&storage), &Selection::all(), true, &mut go_on).unwrap();
    assert_eq!(&files_of(&storage), files, "looking changed a file");

    let opened = storage_of(files);
    let store = open(&opened).unwrap();
    for (name, before) in &seen_before {
        let after = store.log(&name.topic, name.partition).map(|log| read(&log)).unwrap_or_default();
        if let Some(hidden) = before.records.iter().find(|record| !after.records.contains(record)) {
            note(OPEN_HIDES, format!("offset {} of {name}", hidden.0));
        }
    }
    store.close().unwrap();
    let reopened = check(&opened);
    if report.worst < Some(Severity::Lost) && reopened.worst == Some(Severity::Lost) {
        note(REOPEN, format!("{:?}", reopened.findings.iter().find(|f| f.severity == Severity::Lost)));
    }

    let repaired = storage_of(files);
    let repair = inspect::repair(&shared(&repaired), &Selection::all(), false, &mut go_on).unwrap();
    for (name, before) in &seen_before {
        let after = read_attached(&repaired, name);
        if let Some(hidden) = before.records.iter().find(|record| !after.records.contains(record)) {
            let now = (after.records.len(), &after.lost, &after.failure);
            let recovery = repair.recovery.as_ref().map(ToString::to_string);
            note(REPAIR_HIDES, format!("offset {} of {name}; now {now:?}; {recovery:?}", hidden.0));
        }
    }
    let needs_decision = |report: &CheckReport| report.logs.iter().any(|log| log.needs_decision);
    let after = repair.after.as_ref().unwrap_or(&repair.before);
    if !after.is_sound() && !needs_decision(after) {
        note(REPAIR_LEAVES, format!("{:?}", after.findings.iter().find(|f| f.severity > Severity::Note)));
    }
    let before_again = files_of(&repaired);
    let again = inspect::repair(&shared(&repaired), &Selection::all(), false, &mut go_on).unwrap();
    let is_same = |path: &String| files_of(&repaired).get(path) == before_again.get(path);
    let logs = before_again.keys().filter(|path| path.ends_with(".log"));
    if after.is_sound() && (!again.actions.is_empty() || !logs.clone().all(is_same)) {
        note(REPAIR_TWICE, format!("{:?}", again.actions.first()));
    }
}

/// Aborts the process where one store takes too long, with its seed.
fn watch(current: &Arc<AtomicU64>) {
    let current = Arc::clone(current);
    std::thread::spawn(move || {
        let (mut seed, mut since) = (current.load(Ordering::Relaxed), Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let now = current.load(Ordering::Relaxed);
            if now == u64::MAX {
                return;
            }
            if now != seed {
                (seed, since) = (now, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                eprintln!("seed {seed} hangs");
                std::process::abort();
            }
        }
    });
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Writes the store to a directory, to be looked into.
fn save(files: &Files, dir: &std::path::Path) {
    for (path, bytes) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Looks at the stores and returns what did not agree.
fn search() -> Disagreements {
    let from = setting("EDGELOG_TEST_VERDICTS_FROM", 0);
    let stores = setting("EDGELOG_TEST_VERDICTS", 300);
    let current = Arc::new(AtomicU64::new(from));
    watch(&current);
    let mut found = Disagreements::default();
    for seed in from..from + stores {
        current.store(seed, Ordering::Relaxed);
        let mut random = Random(seed);
        let (origin, mut files) = make(&mut random);
        let mut what = Vec::new();
        // One store in ten stays as it was made.
        if !random.one_in(10) {
            for _ in 0..1 + random.below(2) {
                what.extend(mutate(&mut random, &mut files));
            }
        }
        let what = what.join("; ");
        if let Some(dir) = std::env::var_os("EDGELOG_TEST_VERDICTS_SAVE") {
            save(&files, std::path::Path::new(&dir));
        }
        let before = LIVE.get();
        PEAK.set(before);
        let ran = catch_unwind(AssertUnwindSafe(|| compare(seed, origin, &what, &files, &mut found)));
        let peak = PEAK.get() - before;
        assert!(ran.is_ok(), "seed {seed} panics: {what}");
        assert!(peak < HEAP_MAX, "seed {seed} holds {} MiB at a time: {what}", peak / MIB);
    }
    current.store(u64::MAX, Ordering::Relaxed);
    found
}

/// Batches of two records each, at these base offsets.
fn batches(bases: &[i64]) -> Vec<u8> {
    bases.iter().flat_map(|&base| batch(Offset(base), 2)).collect()
}

/// What a command that prints records, one that exports them, one that says where logs stand, and `fsck` find lost.
fn verdicts(storage: &MemoryStorage) -> [bool; 4] {
    let name = TopicPartition::new("t", 0);
    let is_lost = |findings: &[Finding]| findings.iter().any(|finding| finding.severity == Severity::Lost);
    let hidden = inspect::check_hidden(&shared(storage), &name).unwrap();
    let range = ExportRange::default();
    let exported = inspect::export_records(&shared(storage), &name, range, &mut |_, _| Ok(()), &mut go_on).unwrap();
    let ends = inspect::check_ends(&shared(storage), &Selection::all()).unwrap();
    [
        is_lost(&hidden) || !read_attached(storage, &name).lost.is_empty(),
        is_lost(&exported.lost),
        is_lost(&ends),
        check(storage).worst == Some(Severity::Lost),
    ]
}

/// A `.swap` file of Kafka's log cleaner may be the only copy of records. While it is, every command says that they are
/// missing. Where it fits in, the first open puts it in its place, and then none does.
#[test]
fn a_swap_file_with_the_only_copy_is_put_in_place_or_missing_to_all() {
    let file = |base: i64, ending: &str| format!("t-0/{base:020}.log{ending}");
    let offsets = |storage: &MemoryStorage| -> Vec<i64> {
        let seen = read_attached(storage, &TopicPartition::new("t", 0));
        seen.records.iter().map(|(offset, _)| offset.0).collect()
    };
    let mut damaged = batches(&[2, 4]);
    damaged[70] ^= 1;
    // What the swap file holds; a segment beside it; whether a store has opened the log before; whether it fits.
    let cases = [
        (2, batches(&[2]), 4, false, true),
        (2, batches(&[2]), 6, false, true),
        (8, batches(&[8]), 4, false, true),
        (2, batches(&[2, 4]), 4, false, false),
        (0, batches(&[0, 2]), 4, false, false),
        (1, batches(&[1, 3]), 5, false, false),
        (2, damaged, 6, false, false),
        (2, batches(&[2]), 4, true, false),
    ];
    for (base, swap, behind, is_known, fits) in cases {
        let case = format!("{base} before {behind}, known: {is_known}");
        let mut files = Files::from([(file(0, ""), batches(&[0])), (file(behind, ""), batches(&[behind]))]);
        if is_known {
            let storage = storage_of(&files);
            open(&storage).unwrap().close().unwrap();
            files = files_of(&storage);
        }
        files.insert(file(base, ".swap"), swap);
        let storage = storage_of(&files);
        assert_eq!(verdicts(&storage), [true; 4], "{case}");
        let repaired = storage_of(&files);
        inspect::repair(&shared(&repaired), &Selection::all(), false, &mut go_on).unwrap();
        let store = open(&storage).unwrap();
        let report = store.recovery_report().to_string();
        assert!(is_known || report.contains(&file(base, ".swap")), "{case}: {report}");
        store.close().unwrap();
        for (how, storage) in [("opened", &storage), ("repaired", &repaired)] {
            assert_eq!(verdicts(storage), [!fits; 4], "{case}, {how}");
            assert_eq!(files_of(storage).contains_key(&file(base, ".swap")), !fits, "{case}, {how}");
            let mut expected = vec![0, 1, behind, behind + 1];
            if fits {
                expected.extend([base, base + 1]);
                expected.sort_unstable();
            }
            assert_eq!(offsets(storage), expected, "{case}, {how}");
        }
    }
}

#[test]
fn every_command_comes_to_the_same_verdict() {
    let found = search();
    for ((kind, origin), cases) in &found.0 {
        println!("{kind} ({origin}): {}", cases.len());
        for (seed, text) in cases.iter().take(4) {
            println!("    seed {seed}: {text}");
        }
    }
    assert!(found.0.is_empty(), "see above");
}
