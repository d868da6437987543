//! Bad input, byte by byte: no matter which bytes stand in which file, opening and reading neither panic nor hang nor
//! take memory without bound; what was not touched is read, byte for byte, on both sides of the damage; what is lost is
//! named; and no offset is ever given out twice.
//!
//! A small store is damaged in every single byte, cut at every byte, and worse, and each time opened as after a
//! clean close and as after a crash, in the same boot and in another. An unoptimised build looks at a sample, and
//! says so; `EDGELOG_TEST_EVERY=1 cargo test --release --test damage` looks at every case, `EDGELOG_TEST_FEWER=4` at a
//! quarter of the sample.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edgelog::clock::ManualClock;
use edgelog::edgelog_core::RecordBatch;
use edgelog::storage::{Access, DirEntry, FileMeta, MemoryStorage, Storage, StorageFile, StorageLock};
use edgelog::{Durability, Error, Header, Log, NewRecord, NewTopic, Offset, OffsetSpec, TimestampMs};
use edgelog_testkit::on_every_processor;
use edgelog_testkit::{Random, ticking};

const NOW: i64 = 1_700_000_000_000;
const TOPICS: &[&str] = &["plain", "packed"];
const COMPRESSION: &str = if cfg!(feature = "snappy") { "snappy" } else { "none" };
/// No store of a few KiB has a reason to ask for more at once. (A test here panics on purpose. Printing a backtrace, if
/// backtraces were asked for, takes some 6 MB.)
const ALLOCATION_MAX: usize = 8 << 20;

/// Remembers the largest allocation.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system allocator's; this only looks at sizes.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

// --- a disk that can be copied
// ---------------------------------------------------------------------------------------

/// Memory that says in which boot it is.
#[derive(Debug, Clone)]
struct Disk {
    memory: MemoryStorage,
    boot_id: [u8; 16],
}

impl Storage for Disk {
    fn lock(&self) -> io::Result<Box<dyn StorageLock>> {
        self.memory.lock()
    }
    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.memory.read_dir(dir)
    }
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.memory.create_dir(dir)
    }
    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.memory.remove_dir(dir)
    }
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        self.memory.open(path, access)
    }
    fn metadata(&self, path: &str) -> io::Result<FileMeta> {
        self.memory.metadata(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)
    }
    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.memory.remove_file(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.memory.sync_dir(dir)
    }
    fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }
}

/// All files of a store, by their paths.
type Files = BTreeMap<String, Vec<u8>>;

fn files_of(disk: &Disk) -> Files {
    let mut files = Files::new();
    let mut read = |path: String| {
        let file = disk.open(&path, Access::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        files.insert(path, bytes);
    };
    for entry in disk.read_dir("").unwrap() {
        if entry.is_dir {
            disk.read_dir(&entry.name)
                .unwrap()
                .into_iter()
                .for_each(|file| read(format!("{}/{}", entry.name, file.name)));
        } else {
            read(entry.name);
        }
    }
    files
}

fn disk_with(files: &Files, boot_id: [u8; 16]) -> Disk {
    let disk = Disk { memory: MemoryStorage::new(), boot_id };
    for (path, bytes) in files {
        if let Some((dir, _)) = path.split_once('/') {
            let _ = disk.create_dir(dir);
        }
        disk.open(path, Access::CreateNew).unwrap().write_at(bytes, 0).unwrap();
    }
    disk
}

// --- the store that is damaged
// ---------------------------------------------------------------------------------------

/// One batch as it was written: where, what, and with which offsets.
struct Written {
    topic: &'static str,
    file: String,
    bytes: Range<usize>,
    offsets: Range<i64>,
}

struct Original {
    files: Files,
    /// The store was closed cleanly.
    clean: bool,
    batches: Vec<Written>,
    /// End of each topic's log, and the recovery point that the checkpoint gives it.
    ends: BTreeMap<&'static str, (i64, i64)>,
}

const BOOT: [u8; 16] = [7; 16];

fn value(topic: &str, n: i64) -> String {
    format!("{topic} record {n} {}", "value ".repeat((n % 9) as usize))
}

/// Several segments of plain batches, single records and more, with headers and without, in two epochs; and one of
/// compressed ones. A crash leaves records above the recovery point of the checkpoint.
fn original(clean: bool) -> Original {
    let disk = Disk { memory: MemoryStorage::new(), boot_id: BOOT };
    let store = ticking().clock(ManualClock::new(TimestampMs(NOW))).open_on(disk.clone()).unwrap();
    let topic = |name| NewTopic::new(name).config("segment.bytes", "4096").config("index.interval.bytes", "700");
    store.create_topic(&topic("plain")).unwrap();
    store.create_topic(&topic("packed").config("compression.type", COMPRESSION)).unwrap();
    let plain = store.log("plain", 0).unwrap();
    append(&plain, "plain", 40);
    plain.truncate_to(Offset(35)).unwrap();
    append(&plain, "plain", 90);
    append(&store.log("packed", 0).unwrap(), "packed", 60);
    if !clean {
        store.tick(TimestampMs(NOW + 60_000)).unwrap();
        append(&plain, "plain", 110);
    }
    let ends: BTreeMap<_, _> =
        TOPICS.iter().map(|&topic| (topic, (store.log(topic, 0).unwrap().offsets().log_end_offset.0, 0))).collect();
    let files = if clean {
        store.close().unwrap();
        files_of(&disk)
    } else {
        let files = files_of(&disk);
        std::mem::forget(store);
        files
    };
    let mut original = Original { files, clean, batches: Vec::new(), ends };
    for topic in TOPICS {
        for (file, bytes) in original.files.iter().filter(|(file, _)| is_log(file, topic)) {
            let mut at = 0;
            while let Ok(batch) = RecordBatch::parse(&bytes[at..]) {
                let offsets = batch.base_offset().0..batch.next_offset().0;
                original.batches.push(Written { topic, file: file.clone(), bytes: at..at + batch.size(), offsets });
                at += batch.size();
            }
        }
    }
    let undamaged = disk_with(&original.files, BOOT);
    let store = ticking().clock(ManualClock::new(TimestampMs(NOW))).open_on(undamaged).unwrap();
    for log in store.recovery_report().logs {
        let topic = TOPICS.iter().find(|&&topic| topic == log.name.topic).unwrap();
        original.ends.get_mut(topic).unwrap().1 = log.recovery_point.0;
    }
    let above = original.ends["plain"].0 - original.ends["plain"].1;
    assert!(if clean { above == 0 } else { above >= 10 }, "{above} records lie above the recovery point");
    assert!(original.batches.len() > 40 && original.files.keys().filter(|file| is_log(file, "plain")).count() > 2);
    original
}

fn is_log(file: &str, topic: &str) -> bool {
    file.starts_with(&format!("{topic}-0/")) && ending(file) == Some("log")
}

fn ending(file: &str) -> Option<&str> {
    file.rsplit_once('.').map(|(_, ending)| ending)
}

/// The directory that the file is in, for those of partitions.
fn dir(file: &str) -> Option<&str> {
    file.split_once('/').map(|(dir, _)| dir)
}

fn append(log: &Log, topic: &str, to: i64) {
    let mut n = log.offsets().log_end_offset.0;
    while n < to {
        let count = if topic == "packed" { 6 } else { 1 + n % 3 };
        let mut batch = log.batch();
        for n in n..n + count {
            let (key, value) = (format!("k{n}"), value(topic, n));
            let headers = [Header::new("h", b"v")];
            let record = NewRecord::value(value.as_bytes()).with_timestamp(TimestampMs(NOW + n));
            let record = if n % 2 == 0 { record.with_key(key.as_bytes()).with_headers(&headers) } else { record };
            batch.push(record).unwrap();
        }
        n = log.append_batch_with(&mut batch, Durability::Sync).unwrap().last_offset.0 + 1;
    }
}

// --- one case
// --------------------------------------------------------------------------------------------------------

/// What was read of one log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    start: i64,
    end: i64,
    found: BTreeSet<i64>,
    lost: Vec<Range<i64>>,
    /// What the store's own report names as lost.
    reported: Vec<Range<i64>>,
}

impl Original {
    /// Opens a store with `files`, of which `touched` differ from the original in these bytes, and holds it to
    /// what this test defends. Panics where it does not hold.
    fn examine(&self, files: &Files, touched: &[(String, Range<usize>)], same_boot: bool, reopen: bool) {
        LARGEST.store(0, Ordering::Relaxed);
        let disk = disk_with(files, if same_boot { BOOT } else { [8; 16] });
        let open = || ticking().clock(ManualClock::new(TimestampMs(NOW))).open_on(disk.clone()).unwrap();
        let store = open();
        let mut after = Vec::new();
        for &topic in TOPICS {
            let log = store.log(topic, 0).unwrap();
            let mut read = read_log(&log, topic, i64::MAX);
            let report = store.recovery_report().logs.into_iter().find(|log| log.name.topic == topic).unwrap();
            read.reported = report.lost.iter().map(|lost| lost.first_offset.0..lost.next_offset.0).collect();
            let (end, recovery_point) = self.ends[topic];
            self.judge(topic, &read, touched);

            let value = format!("{topic} after the damage");
            let info = log.append_with(NewRecord::value(value.as_bytes()), Durability::Sync).unwrap();
            assert_eq!(info.base_offset, read.end, "{topic}: the end is where the next record goes");
            // A crash may remove what lay above the recovery point, and nothing more.
            let given_out = if self.clean { end } else { recovery_point };
            assert!(info.base_offset >= given_out, "{topic}: offset {} is given out twice", info.base_offset);
            if info.base_offset < end {
                assert!(info.leader_epoch > 1, "{topic}: {info:?} passes for what stood there before");
            }
            let mut reader = log.reader(OffsetSpec::Position(info.position())).unwrap();
            let batch = reader.next_batch().unwrap().expect("what was appended");
            assert_eq!(batch.records().unwrap().next().unwrap().unwrap().value, Some(value.as_bytes()), "{topic}");
            after.push((topic, read, info.base_offset.0));
        }
        store.close().unwrap();
        if reopen {
            drop(store);
            let store = open();
            for (topic, before, appended) in &after {
                let log = store.log(topic, 0).unwrap();
                let mut read = read_log(&log, topic, *appended);
                assert!(read.found.remove(appended), "{topic}: what was appended after the damage is gone");
                read.end = before.end;
                assert_eq!(read.found, before.found, "{topic}: another opening finds something else");
            }
        }
        let largest = LARGEST.load(Ordering::Relaxed);
        assert!(largest <= ALLOCATION_MAX, "{largest} bytes were allocated at once");
    }

    /// The offsets of `topic` that the damage may cost: of batches with a touched byte, their epochs aside, which
    /// the table knows better; and of a crash's tail, all from the first such batch on, where only an older epoch shows
    /// that a batch was truncated.
    fn may_be_lost(&self, topic: &str, touched: &[(String, Range<usize>)]) -> BTreeSet<i64> {
        let mut lost = BTreeSet::new();
        for written in self.batches.iter().filter(|written| written.topic == topic) {
            let above = !self.clean && written.offsets.end > self.ends[topic].1;
            let epoch = written.bytes.start + 12..written.bytes.start + 16;
            let hit = touched.iter().any(|(file, bytes)| {
                // Right behind other damage nothing vouches for a batch whose epoch cannot be.
                let healed = !above && touched.len() == 1 && epoch.start <= bytes.start && bytes.end <= epoch.end;
                *file == written.file && bytes.start < written.bytes.end && written.bytes.start < bytes.end && !healed
            });
            if hit {
                lost.extend(written.offsets.clone());
                if above {
                    lost.extend(written.offsets.start..self.ends[topic].0);
                }
            }
        }
        lost
    }

    fn judge(&self, topic: &str, read: &Read, touched: &[(String, Range<usize>)]) {
        let may_be_lost = self.may_be_lost(topic, touched);
        for offset in 0..self.ends[topic].0 {
            let found = read.found.contains(&offset);
            assert!(
                found || may_be_lost.contains(&offset),
                "{topic}: offset {offset} was not touched and is gone; {read}"
            );
            let named = read.lost.iter().any(|range| range.contains(&offset));
            assert!(!(found && named), "{topic}: offset {offset} was read and named as lost");
            // After a crash it is not known whether retention had deleted what is missing in front.
            let named = named || read.reported.iter().any(|range| range.contains(&offset));
            let concerned = offset < read.end && (self.clean || offset >= read.start);
            assert!(found || named || !concerned, "{topic}: offset {offset} is gone without a word; {read}");
        }
        let beyond = read.found.range(self.ends[topic].0..).next();
        assert!(beyond.is_none(), "{topic}: offset {beyond:?} never was");
    }
}

impl std::fmt::Display for Read {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Read { start, end, found, lost, reported } = self;
        write!(
            f,
            "the log has {start} to {end}, {} records were read, named as lost: {lost:?}, {reported:?}",
            found.len()
        )
    }
}

/// Reads a log from its start, over all damage; every record must be what was appended, but for those from
/// `appended` on.
fn read_log(log: &Log, topic: &str, appended: i64) -> Read {
    let offsets = log.offsets();
    let mut read = Read { start: offsets.log_start_offset.0, end: offsets.log_end_offset.0, ..Read::default() };
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps < 1000, "{topic}: reading does not come to an end");
        match reader.next_batch() {
            Ok(Some(batch)) => {
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    assert!(read.found.insert(record.offset.0), "{topic}: offset {} comes twice", record.offset);
                    if record.offset < appended {
                        assert_eq!(record.value, Some(value(topic, record.offset.0).as_bytes()), "{topic}");
                        assert_eq!(record.timestamp, NOW + record.offset.0, "{topic}");
                    }
                }
            }
            Ok(None) => break,
            Err(Error::CorruptRecord { file, offset, .. }) => {
                assert!(file.starts_with(&format!("{topic}-0/")), "{topic}: damage is in {file}");
                let range = reader.skip_damage().unwrap();
                assert!(range.first_offset <= offset && offset <= range.next_offset, "{topic}: {offset}, {range:?}");
                assert!(range.next_offset >= range.first_offset, "{topic}: {range:?} goes back");
                assert_eq!(range.file, file, "{topic}");
                read.lost.push(range.first_offset.0..range.next_offset.0);
            }
            Err(error) => panic!("{topic}: {error}"),
        }
    }
    assert_eq!(reader.position().offset, read.end, "{topic}: reading ends before the end");
    read
}

/// Which cases a run looks at, and which of them this share of it does.
struct Sample {
    every: usize,
    share: usize,
    shares: usize,
    number: usize,
    looked_at: usize,
    /// What went wrong, case by case.
    failures: Vec<String>,
}

impl Sample {
    fn of_one_in(debug: usize) -> Sample {
        let number = |name| std::env::var(name).ok().map(|number| number.parse().expect("a number"));
        let every = number("EDGELOG_TEST_EVERY").unwrap_or(if cfg!(debug_assertions) { debug } else { debug / 8 + 1 });
        // A slow machine looks at so many times fewer cases. The space of each test differs: no one step fits them all.
        let every = every * number("EDGELOG_TEST_FEWER").unwrap_or(1);
        Sample { every, share: 0, shares: 1, number: 0, looked_at: 0, failures: Vec::new() }
    }

    /// Goes through the cases in as many shares as the machine has processors.
    fn shared(debug: usize, cases: impl Fn(&mut Sample) + Sync) -> Sample {
        let shares = on_every_processor(|share, shares| {
            let mut sample = Sample { share, shares, ..Sample::of_one_in(debug) };
            cases(&mut sample);
            sample
        });
        let merged = shares.into_iter().reduce(|mut all, share| {
            all.failures.extend(share.failures);
            all
        });
        merged.expect("a machine has a processor")
    }

    /// Looks at one case, if it is in the sample.
    fn case(&mut self, name: &dyn Fn() -> String, examine: impl FnOnce(bool, bool)) {
        self.number += 1;
        if self.number % self.every == 0 {
            self.looked_at += 1;
            if self.looked_at % self.shares != self.share {
                return;
            }
            let (same_boot, reopen) = (self.looked_at % 2 == 0, self.looked_at % 5 == 0);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| examine(same_boot, reopen))) {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
                self.failures.push(format!("{} (same boot: {same_boot}): {text}", name()));
            }
        }
    }

    fn done(self, what: &str) {
        println!("{what}: looked at {} of {} cases", self.looked_at, self.number);
        assert!(self.looked_at > 20, "{what}: the sample is empty");
        let shown: Vec<&str> = self.failures.iter().take(12).map(String::as_str).collect();
        let (failed, shown) = (self.failures.len(), shown.join("\n  "));
        assert!(failed == 0, "{what}: {failed} of {} cases failed:\n  {shown}", self.looked_at);
    }
}

fn both() -> [Original; 2] {
    [original(true), original(false)]
}

fn kind(original: &Original) -> &'static str {
    if original.clean { "closed" } else { "crashed" }
}

// --- the damages
// -----------------------------------------------------------------------------------------------------

/// A canary: the undamaged stores pass, and records that are gone without a touch do not.
#[test]
fn the_judge_can_fail() {
    for original in both() {
        original.examine(&original.files, &[], true, true);
        let mut files = original.files.clone();
        let (file, bytes) = files.iter_mut().find(|(file, _)| is_log(file, "plain")).unwrap();
        bytes[100] ^= 1;
        let touched = [(file.clone(), 100..101)];
        original.examine(&files, &touched, false, true);
        assert!(catch_unwind(AssertUnwindSafe(|| original.examine(&files, &[], false, true))).is_err());
    }
}

/// Every bit of every file flipped, and every byte inverted.
#[test]
fn one_changed_byte_costs_the_batch_it_is_in_and_nothing_else() {
    let originals = both();
    let sample = Sample::shared(23, |sample| {
        for original in &originals {
            for (file, bytes) in &original.files {
                for at in 0..bytes.len() {
                    for mask in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
                        let name = || format!("{}: {file}, byte {at} ^ {mask:#x}", kind(original));
                        sample.case(&name, |same_boot, reopen| {
                            let mut files = original.files.clone();
                            files.get_mut(file).unwrap()[at] ^= mask;
                            original.examine(&files, &[(file.clone(), at..at + 1)], same_boot, reopen);
                        });
                    }
                }
            }
        }
    });
    sample.done("changed bytes");
}

/// Every file, cut at every byte.
#[test]
fn a_file_cut_short_costs_what_was_cut_off_and_nothing_else() {
    let mut sample = Sample::of_one_in(17);
    for original in both() {
        for (file, bytes) in &original.files {
            for at in 0..bytes.len() {
                let name = || format!("{}: {file}, cut at {at} of {}", kind(&original), bytes.len());
                sample.case(&name, |same_boot, reopen| {
                    let mut files = original.files.clone();
                    files.get_mut(file).unwrap().truncate(at);
                    original.examine(&files, &[(file.clone(), at..bytes.len())], same_boot, reopen);
                });
            }
        }
    }
    sample.done("cut files");
}

/// Every sector of every file as zeros and as noise; and every file with a tail of zeros, of noise and of itself.
#[test]
fn a_lost_sector_costs_the_batches_it_held_and_nothing_else() {
    const SECTOR: usize = 512;
    let mut sample = Sample::of_one_in(1);
    let mut noise = Random(3);
    for original in both() {
        for (file, bytes) in &original.files {
            for at in (0..bytes.len()).step_by(SECTOR) {
                let end = (at + SECTOR).min(bytes.len());
                let zeros = vec![0; end - at];
                let wild: Vec<u8> = (at..end).map(|_| noise.next() as u8).collect();
                for (what, sector) in [("zeros", zeros), ("noise", wild)] {
                    let name = || format!("{}: {file}, {what} at {at}", kind(&original));
                    sample.case(&name, |same_boot, reopen| {
                        let mut files = original.files.clone();
                        files.get_mut(file).unwrap()[at..end].copy_from_slice(&sector);
                        original.examine(&files, &[(file.clone(), at..end)], same_boot, reopen);
                    });
                }
            }
            let wild: Vec<u8> = (0..1000).map(|_| noise.next() as u8).collect();
            for (what, tail) in [("zeros", &vec![0; 5000]), ("noise", &wild), ("itself", bytes)] {
                let name = || format!("{}: {file}, {what} behind its end", kind(&original));
                sample.case(&name, |same_boot, reopen| {
                    let mut files = original.files.clone();
                    files.get_mut(file).unwrap().extend_from_slice(tail);
                    original.examine(&files, &[], same_boot, reopen);
                });
            }
        }
    }
    sample.done("lost sectors");
}

/// Every file gone, and changed for every other.
#[test]
fn a_file_that_is_gone_or_another_costs_its_own_batches_and_nothing_else() {
    let mut sample = Sample::of_one_in(1);
    for original in both() {
        let whole = |file: &String| (file.clone(), 0..original.files[file].len());
        for file in original.files.keys() {
            let name = || format!("{}: {file} is gone", kind(&original));
            sample.case(&name, |same_boot, reopen| {
                let mut files = original.files.clone();
                files.remove(file);
                original.examine(&files, &[whole(file)], same_boot, reopen);
            });
            for other in original.files.keys().filter(|other| *other > file) {
                // A batch does not say of which topic it is. And with the checkpoint gone, it is the files that say
                // where the log ends: one without batches ends it.
                if ending(other) == Some("log")
                    && (file == "edgelog.checkpoint" || ending(file) == Some("log"))
                    && dir(file) != dir(other)
                {
                    continue;
                }
                let name = || format!("{}: {file} and {other} have changed places", kind(&original));
                sample.case(&name, |same_boot, reopen| {
                    let mut files = original.files.clone();
                    files.insert(file.clone(), original.files[other].clone());
                    files.insert(other.clone(), original.files[file].clone());
                    original.examine(&files, &[whole(file), whole(other)], same_boot, reopen);
                });
            }
        }
    }
    sample.done("lost and exchanged files");
}

/// Every sector with the bytes of another sector of its file, as a misdirected write leaves it: whole batches,
/// good in themselves, stand where they do not belong. They may cost their neighbours, since nothing distinguishes the
/// two. But what is read is what was written, and what is lost is named.
#[test]
fn a_misdirected_sector_is_never_taken_for_what_was_there() {
    const SECTOR: usize = 512;
    let mut sample = Sample::of_one_in(1);
    for original in both() {
        for (file, bytes) in original.files.iter().filter(|(file, _)| ending(file) == Some("log")) {
            let topic = TOPICS.iter().find(|topic| is_log(file, topic)).unwrap();
            let logs = original.files.iter().filter(|(file, _)| is_log(file, topic));
            let touched: Vec<_> = logs.map(|(file, bytes)| (file.clone(), 0..bytes.len())).collect();
            let sectors: Vec<Range<usize>> = (0..bytes.len() / SECTOR).map(|n| n * SECTOR..(n + 1) * SECTOR).collect();
            for to in &sectors {
                for from in sectors.iter().filter(|from| *from != to) {
                    let name = || format!("{}: {file}, {from:?} stands at {to:?}", kind(&original));
                    sample.case(&name, |same_boot, reopen| {
                        let mut files = original.files.clone();
                        files.get_mut(file).unwrap().copy_within(from.clone(), to.start);
                        original.examine(&files, &touched, same_boot, reopen);
                    });
                }
            }
        }
    }
    sample.done("misdirected sectors");
}

/// Several batches damaged at once, at random: good batches between them are read.
#[test]
fn several_damages_cost_the_batches_they_are_in() {
    let mut sample = Sample::of_one_in(4);
    let mut random = Random(5);
    for original in both() {
        let logs: Vec<&String> = original.files.keys().filter(|file| ending(file) == Some("log")).collect();
        for n in 0..2000 {
            let mut files = original.files.clone();
            let mut touched = Vec::new();
            for _ in 0..2 + random.below(5) {
                let file = logs[random.below(logs.len())];
                let bytes = files.get_mut(file).unwrap();
                let at = random.below(bytes.len());
                let end = (at + 1 + random.below(12)).min(bytes.len());
                bytes[at..end].iter_mut().for_each(|byte| *byte ^= 1 + random.below(255) as u8);
                touched.push((file.clone(), at..end));
            }
            let name = || format!("{}: case {n}, {touched:?}", kind(&original));
            sample.case(&name, |same_boot, reopen| original.examine(&files, &touched, same_boot, reopen));
        }
    }
    sample.done("several damages");
}

/// Indexes that are well-formed and wrong: every entry moved by the same distance, or those of another segment.
/// Every offset is found all the same, and so is every time.
#[test]
fn indexes_that_lie_consistently_cost_nothing() {
    let original = original(true);
    let mut lies: Vec<(String, Files)> = Vec::new();
    for (file, bytes) in &original.files {
        let (entry, wide) = match ending(file) {
            Some("index") => (8, false),
            Some("timeindex") => (12, true),
            _ => continue,
        };
        for (what, offset_by, other_by) in [
            ("offsets + 1", 1, 0),
            ("offsets - 1", -1, 0),
            ("places + 61", 0, 61),
            ("places - 100", 0, -100),
            ("both", 3, 500),
        ] {
            let mut files = original.files.clone();
            for entry in files.get_mut(file).unwrap().chunks_exact_mut(entry) {
                // Offset and position, or timestamp and offset.
                let (offset, other) = if wide { (8..12, 4..8) } else { (0..4, 4..8) };
                for (field, by) in [(offset, offset_by), (other, other_by)] {
                    let number = i32::from_be_bytes(entry[field.clone()].try_into().unwrap());
                    entry[field].copy_from_slice(&number.wrapping_add(by).max(0).to_be_bytes());
                }
            }
            lies.push((format!("{file}: {what}"), files));
        }
        for (other, bytes_of_other) in &original.files {
            if ending(other) == ending(file) {
                let mut files = original.files.clone();
                files.insert(file.clone(), bytes_of_other.clone());
                lies.push((format!("{file} is {other}"), files));
            }
        }
        assert!(bytes.len() % entry == 0);
    }
    assert!(lies.len() > 30);
    for (name, files) in lies {
        original.examine(&files, &[], false, true);
        let store = ticking().clock(ManualClock::new(TimestampMs(NOW))).open_on(disk_with(&files, BOOT)).unwrap();
        for &topic in TOPICS {
            let log = store.log(topic, 0).unwrap();
            let end = original.ends[topic].0;
            for offset in 0..end {
                let mut reader = log.reader(OffsetSpec::Offset(Offset(offset))).unwrap();
                let batch =
                    reader.next_batch().unwrap_or_else(|error| panic!("{name}, {topic} from {offset}: {error}"));
                let batch = batch.unwrap_or_else(|| panic!("{name}, {topic} from {offset}: nothing"));
                let record = batch.records().unwrap().next().unwrap().unwrap();
                assert_eq!(
                    (record.offset, record.value),
                    (Offset(offset), Some(value(topic, offset).as_bytes())),
                    "{name}"
                );
                let found = log.offset_for_time(TimestampMs(NOW + offset)).unwrap().map(|at| at.offset);
                assert_eq!(found, Some(Offset(offset)), "{name}, {topic}: the record of time + {offset}");
            }
            assert_eq!(log.offset_for_time(TimestampMs(NOW + end)).unwrap(), None, "{name}, {topic}");
        }
    }
}

/// A store is opened on nothing but noise in files of the right names.
#[test]
fn noise_in_every_file_opens_and_is_written_to() {
    let mut random = Random(11);
    let original = original(true);
    for round in 0..40 {
        let mut files = original.files.clone();
        for bytes in files.values_mut() {
            let len = random.below(9000);
            *bytes = (0..len)
                .map(|_| if round % 2 == 0 { random.next() as u8 } else { b"0123=\n\0\x02"[random.below(8)] })
                .collect();
        }
        LARGEST.store(0, Ordering::Relaxed);
        let disk = disk_with(&files, BOOT);
        let store = ticking().open_on(disk).unwrap();
        for &topic in TOPICS {
            let log = store.log(topic, 0).unwrap();
            let before = log.offsets().log_end_offset;
            let info = log.append(NewRecord::value(b"still here")).unwrap();
            assert!(info.base_offset >= before);
            let mut reader = log.reader(OffsetSpec::Offset(info.base_offset)).unwrap();
            assert!(reader.next_batch().unwrap().is_some());
        }
        store.close().unwrap();
        assert!(LARGEST.load(Ordering::Relaxed) <= ALLOCATION_MAX);
    }
}
