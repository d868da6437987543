//! What the engine takes of a small machine: heap, descriptors, address space and disk, counted while it works.
//!
//! Allocations are counted by thread, and the housekeeping is the test's own: what is counted is what the calls did.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edgelog::clients::{Consumer, Producer, ProducerRecord};
use edgelog::storage::{
    Access, DirEntry, DirectoryStorage, DirectoryStorageOptions, FileMeta, Lease, Storage, StorageFile, StorageLock,
};
use edgelog::{Durability, Log, NewRecord, NewTopic, Offset, OffsetSpec, Reader, StoreOptions, TimestampMs};
use edgelog_testkit::{TempDir, ticking};

const MIB: usize = 1 << 20;

// --- counting --------------------------------------------------------------------------------------------------------

struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(calls: usize, bytes: isize) {
    CALLS.with(|n| n.set(n.get() + calls));
    LIVE.with(|live| {
        live.set(live.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: everything is the system allocator's; this only counts, in cells that need no allocation themselves.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(0, -(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates on this thread.
fn allocations(work: impl FnOnce()) -> usize {
    let before = CALLS.get();
    work();
    CALLS.get() - before
}

/// What `work` gives, and the most heap that it held at a time on this thread, with what it still holds at its end.
fn heap<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    let bytes = |n: isize| usize::try_from(n - before).unwrap_or(0);
    (result, bytes(PEAK.get()), bytes(LIVE.get()))
}

/// Descriptors and maps are the process's: those who count them run one at a time.
static PROCESS: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Bytes of address space that map files below `dir`.
fn mapped_bytes(dir: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let of_dir = maps.lines().filter(|line| line.contains(dir.to_str().unwrap()));
    of_dir
        .map(|line| {
            let (begin, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            usize::from_str_radix(end, 16).unwrap() - usize::from_str_radix(begin, 16).unwrap()
        })
        .sum()
}

fn with_mode(mode: &str) -> StoreOptions {
    ticking().set("edgelog.storage", mode).unwrap()
}

// --- no allocation in the steady state -------------------------------------------------------------------------------

const VALUE: &[u8] =
    b"{\"temperature\":21.5,\"unit\":\"C\",\"humidity\":40.25,\"pressure\":1013.25,\"sensor\":\"roof\"}";

const COMPRESSIONS: &[&str] = if cfg!(feature = "snappy") { &["none", "snappy"] } else { &["none"] };

/// Fills up so far that room is reserved in large steps.
fn warm_up(log: &Log) {
    let mut batch = log.batch();
    for _ in 0..40 {
        for _ in 0..1000 {
            batch.push(NewRecord::value(VALUE)).unwrap();
        }
        log.append_batch_with(&mut batch, Durability::Os).unwrap();
    }
}

/// What `appends` calls of `append` allocate. Where one reserves room, its file grows, and it allocates a few times; of
/// the others, the index in memory grows now and then, or a further window of the file is mapped.
fn append_and_count(dir: &Path, appends: usize, mut append: impl FnMut(), what: &str) {
    const ONCE_IN: usize = 50;
    const RESERVING_MAX: usize = 8;
    let segments = || std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let of_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
    let reserved = || segments().filter(of_log).map(|path| path.metadata().unwrap().len()).sum::<u64>();
    append();
    let (mut others, mut reservations) = (0, 0);
    for _ in 0..appends {
        let before = reserved();
        let found = allocations(&mut append);
        if reserved() == before {
            others += found;
        } else {
            reservations += 1;
            assert!(found <= RESERVING_MAX, "{what}: {found} allocations in an append that reserves room");
        }
    }
    assert!(others <= appends / ONCE_IN + 1, "{what}: {others} allocations in {appends} appends");
    // A step is 4 MiB by then, which is more than all of them write.
    assert!(reservations <= 1, "{what}: {appends} appends reserved room {reservations} times");
}

/// No append allocates, at any durability, singly, in batches and compressed: counted over many appends, in
/// which the index in memory may grow and room may be reserved, now and then, but nothing happens each time.
#[test]
fn appends_do_not_allocate_in_the_steady_state() {
    for mode in ["map", "file"] {
        for &compression in COMPRESSIONS {
            let dir = TempDir::new();
            let store = with_mode(mode).open(dir.path()).unwrap();
            store.create_topic(&NewTopic::new("t").config("compression.type", compression)).unwrap();
            let log = store.log("t", 0).unwrap();
            warm_up(&log);
            let mut batch = log.batch();
            for durability in [Durability::Os, Durability::Interval, Durability::Sync] {
                let what = format!("{mode}, {compression}, {durability:?}");
                let appends = if durability == Durability::Sync { 200 } else { 2000 };
                let one = || {
                    let record = NewRecord::value(VALUE).with_key(b"roof");
                    log.append_with(record, durability).unwrap();
                };
                append_and_count(&dir.path().join("t-0"), appends, one, &what);
                let many = || {
                    for _ in 0..20 {
                        batch.push(NewRecord::value(VALUE)).unwrap();
                    }
                    log.append_batch_with(&mut batch, durability).unwrap();
                };
                append_and_count(&dir.path().join("t-0"), appends / 4, many, &format!("{what}, in batches"));
            }
            store.close().unwrap();
        }
    }
}

/// No record that is sent allocates: neither one that its caller appends at once, nor those that fill a batch.
#[test]
fn sending_does_not_allocate_in_the_steady_state() {
    const RECORDS: usize = 20_000;
    let dir = TempDir::new();
    let store = Arc::new(with_mode("map").open(dir.path()).unwrap());
    store.create_topic(&NewTopic::new("t")).unwrap();
    warm_up(&store.log("t", 0).unwrap());
    for linger in ["0", "1000"] {
        let producer = Producer::builder(&store).set("acks", "1").unwrap().set("linger.ms", linger).unwrap();
        let producer = producer.open().unwrap();
        let send = || drop(producer.send(ProducerRecord::new("t", VALUE).with_key(b"roof")).unwrap());
        (0..1000).for_each(|_| send());
        let found = allocations(|| (0..RECORDS).for_each(|_| send()));
        // A segment's index in memory grows, room is reserved, a segment is rolled now and then.
        assert!(found <= RECORDS / 200, "linger.ms={linger}: {found} allocations for {RECORDS} records");
    }
}

/// No record that is read allocates, nor does any batch: what is allocated is for stretches of many batches.
#[test]
fn reading_does_not_allocate_in_the_steady_state() {
    const BATCHES: usize = 4000;
    const RECORDS: usize = 10;
    for mode in ["map", "file"] {
        for &compression in COMPRESSIONS {
            let dir = TempDir::new();
            let store = with_mode(mode).open(dir.path()).unwrap();
            store.create_topic(&NewTopic::new("t").config("compression.type", compression)).unwrap();
            let log = store.log("t", 0).unwrap();
            let mut batch = log.batch();
            for _ in 0..BATCHES {
                (0..RECORDS).for_each(|_| batch.push(NewRecord::value(VALUE)).unwrap());
                log.append_batch_with(&mut batch, Durability::Os).unwrap();
            }
            let read = |reader: &mut Reader, batches: usize| {
                for _ in 0..batches {
                    let batch = reader.next_batch().unwrap().unwrap();
                    for record in batch.records().unwrap() {
                        assert_eq!(record.unwrap().value, Some(VALUE));
                    }
                }
            };
            let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
            read(&mut reader, BATCHES / 4);
            let found = allocations(|| read(&mut reader, BATCHES / 2));
            assert!(
                found <= BATCHES / 2 / 10,
                "{mode}, {compression}: {found} allocations for {} batches",
                BATCHES / 2
            );
            // One record at a time, as a follower reads.
            let mut reader = log.reader(OffsetSpec::Latest).unwrap();
            let mut follow = || {
                log.append_with(NewRecord::value(VALUE), Durability::Os).unwrap();
                read(&mut reader, 1);
            };
            (0..100).for_each(|_| follow());
            let found = allocations(|| (0..1000).for_each(|_| follow()));
            assert!(found <= 1000 + 100, "{mode}, {compression}: {found} allocations to follow 1000 records");
        }
    }
}

/// A poll allocates for its list of batches, and for the one that it returns a part of; no record does.
#[test]
fn polling_does_not_allocate_for_records() {
    const BATCHES: usize = 400;
    const RECORDS: usize = 1000;
    let dir = TempDir::new();
    let store = Arc::new(with_mode("map").open(dir.path()).unwrap());
    store.create_topic(&NewTopic::new("t")).unwrap();
    let log = store.log("t", 0).unwrap();
    let mut batch = log.batch();
    for _ in 0..BATCHES {
        (0..RECORDS).for_each(|_| batch.push(NewRecord::value(VALUE)).unwrap());
        log.append_batch_with(&mut batch, Durability::Os).unwrap();
    }
    let mut consumer = Consumer::options().set("auto.offset.reset", "earliest").unwrap().open(&store).unwrap();
    consumer.assign(&[log.name().clone()]).unwrap();
    let mut poll = |polls: usize| {
        for _ in 0..polls {
            let records = consumer.poll(Duration::ZERO).unwrap();
            assert_eq!(records.len(), 500);
            assert!(records.iter().all(|record| record.unwrap().value == Some(VALUE)));
        }
    };
    poll(100);
    let found = allocations(|| poll(400));
    assert!(found <= 400 * 4, "{found} allocations for 400 polls of 500 records");
}

// --- many segments ---------------------------------------------------------------------------------------------------

/// A directory that counts what is opened, and that lets itself be opened again after a store was forgotten.
#[derive(Debug)]
struct CountingStorage {
    inner: DirectoryStorage,
    opened: Arc<AtomicUsize>,
    /// Whether flushes reach the disk: making a large log takes seconds without them, and a minute with them.
    flushes: bool,
}

impl CountingStorage {
    fn new(dir: &Path, flushes: bool) -> CountingStorage {
        let inner = DirectoryStorage::open(dir, DirectoryStorageOptions::default()).unwrap();
        CountingStorage { inner, opened: Arc::default(), flushes }
    }
}

/// A file that says it was flushed.
#[derive(Debug)]
struct Unflushed(Arc<dyn StorageFile>);

impl StorageFile for Unflushed {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_at(bytes, position)
    }
    fn store_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.store_at(bytes, position)
    }
    fn lend(&self, position: u64, len: usize) -> io::Result<Option<Lease>> {
        self.0.lend(position, len)
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.0.reserve(len)
    }
    fn prepare(&self, range: Range<u64>) {
        self.0.prepare(range);
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct NoLock;

impl StorageLock for NoLock {}

impl Storage for CountingStorage {
    fn lock(&self) -> io::Result<Box<dyn StorageLock>> {
        Ok(Box::new(NoLock))
    }
    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(dir)
    }
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.inner.remove_dir(dir)
    }
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let file = self.inner.open(path, access)?;
        Ok(if self.flushes { file } else { Arc::new(Unflushed(file)) })
    }
    fn metadata(&self, path: &str) -> io::Result<FileMeta> {
        self.inner.metadata(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.inner.remove_file(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        if self.flushes { self.inner.sync_dir(dir) } else { Ok(()) }
    }
    fn boot_id(&self) -> [u8; 16] {
        self.inner.boot_id()
    }
}

fn big_value(n: usize, len: usize) -> Vec<u8> {
    let mut value = vec![(n % 251) as u8; len];
    value[..8].copy_from_slice(&(n as u64).to_be_bytes());
    value
}

/// A log of so many segments of so many bytes, four records each, cleanly closed.
fn create(dir: &Path, segments: usize, segment_bytes: usize) {
    let store = ticking().open_on(CountingStorage::new(dir, false)).unwrap();
    let topic = NewTopic::new("t").config("segment.bytes", &segment_bytes.to_string()).config("retention.ms", "-1");
    store.create_topic(&topic).unwrap();
    let log = store.log("t", 0).unwrap();
    for n in 0..segments * 4 {
        let value = big_value(n, segment_bytes / 4 - 100);
        log.append_with(NewRecord::value(&value), Durability::Os).unwrap();
        if n % 64 == 0 {
            store.tick(TimestampMs(n as i64)).unwrap();
        }
    }
    assert_eq!(log.size().unwrap().0, segments);
    store.close().unwrap();
}

/// Reads everything, and looks now and then how many descriptors are open.
fn follow(log: &Log, segments: usize) -> usize {
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    let (mut n, mut most) = (0, 0);
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            assert_eq!(record.unwrap().value.map(|value| &value[..8]), Some(&(n as u64).to_be_bytes()[..]));
            n += 1;
        }
        if n % 100 == 0 {
            most = most.max(descriptors());
        }
    }
    assert_eq!(n, segments * 4);
    most
}

/// 1,280 segments, as 20 GB have of 16 MiB: opened and read from end to end, by the writer and by an attached process,
/// the engine holds less than 8 MiB of heap and 64 descriptors, by maps and by system calls.
#[test]
fn a_log_of_many_segments_is_opened_and_read_in_little_memory() {
    const SEGMENTS: usize = 1280;
    let _alone = alone();
    let dir = TempDir::new();
    create(dir.path(), SEGMENTS, 64 << 10);
    for mode in ["map", "file"] {
        let before = descriptors();
        for attached in [false, true] {
            let open = || {
                let options = with_mode(mode);
                let store = if attached { options.attach(dir.path()) } else { options.open(dir.path()) }.unwrap();
                let most = follow(&store.log("t", 0).unwrap(), SEGMENTS);
                // At random, so that indexes are loaded too.
                let log = store.log("t", 0).unwrap();
                let mut random = edgelog_testkit::Random(1);
                for _ in 0..2000 {
                    let offset = random.below(SEGMENTS * 4) as i64;
                    let mut reader = log.reader(OffsetSpec::Offset(Offset(offset))).unwrap();
                    let batch = reader.next_batch().unwrap().unwrap();
                    assert_eq!(batch.records().unwrap().next().unwrap().unwrap().offset, offset);
                }
                (store, most.max(descriptors()))
            };
            let ((store, most), peak, _) = heap(open);
            println!("{mode}, attached: {attached}: {peak} bytes of heap, {} descriptors", most - before);
            assert!(peak < 8 * MIB, "{mode}, attached: {attached}: {peak} bytes of heap");
            assert!(most <= before + 64, "{mode}, attached: {attached}: {} descriptors", most - before);
            drop(store);
        }
        assert!(descriptors() <= before, "{mode}: descriptors are left open");
    }
}

/// Opening a log, after a clean close and after a crash, costs a listing of its directory and nothing else that grows
/// with it: no file of a sealed segment is opened, and of heap some two hundred bytes a segment are taken.
#[test]
fn opening_does_not_grow_with_the_number_of_segments() {
    const FEW: usize = 64;
    const MANY: usize = 1280;
    const SEGMENT_HEAP_MAX: usize = 256;
    let _alone = alone();
    let mut costs = Vec::new();
    for segments in [FEW, MANY] {
        let dir = TempDir::new();
        let open = || {
            let storage = CountingStorage::new(dir.path(), true);
            let opened = Arc::clone(&storage.opened);
            (ticking().open_on(storage).unwrap(), opened.load(Ordering::Relaxed))
        };
        create(dir.path(), segments, 4 << 10);
        let ((store, clean_opened), clean_peak, _) = heap(open);
        assert!(store.recovery_report().clean);
        // The mark goes with the first append; then the store is left as a crash leaves it.
        store.log("t", 0).unwrap().append(NewRecord::value(b"the last")).unwrap();
        std::mem::forget(store);
        let ((store, crash_opened), crash_peak, _) = heap(open);
        assert!(!store.recovery_report().clean);
        assert_eq!(store.log("t", 0).unwrap().offsets().log_end_offset, segments as i64 * 4 + 1);
        costs.push([(clean_peak, clean_opened), (crash_peak, crash_opened)]);
    }
    for (few, many, what) in [(costs[0][0], costs[1][0], "clean"), (costs[0][1], costs[1][1], "after a crash")] {
        assert_eq!(few.1, many.1, "{what}: files opened");
        // One of them, after a crash, to see whether the newest segment's name is its own.
        assert!(many.1 <= 16, "{what}: {} files opened", many.1);
        let grown = many.0.saturating_sub(few.0) / (MANY - FEW);
        println!("{what}: {grown} bytes of heap a segment, {} files opened", many.1);
        assert!(grown <= SEGMENT_HEAP_MAX, "{what}: {grown} bytes of heap a segment, {} in all", many.0);
    }
}

// --- the disk and the address space ----------------------------------------------------------------------------------

/// A hundred idle topics take less than 1.25 MiB of disk, as the file system counts it: new, after a clean close, and
/// open after that.
#[test]
fn a_hundred_idle_topics_take_less_than_a_mebibyte_and_a_quarter() {
    // Of each topic: a directory, a file of the log's, and the two copies of its settings.
    const IDLE_BYTES_MAX: u64 = (MIB + MIB / 4) as u64;
    fn blocks_bytes(dir: &Path) -> u64 {
        let mut bytes = std::fs::symlink_metadata(dir).unwrap().blocks() * 512;
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                bytes += blocks_bytes(&entry.path());
            } else {
                bytes += std::fs::symlink_metadata(entry.path()).unwrap().blocks() * 512;
            }
        }
        bytes
    }
    let _alone = alone();
    for mode in ["map", "file"] {
        let dir = TempDir::new();
        let store = with_mode(mode).open(dir.path()).unwrap();
        for n in 0..100 {
            store.create_topic(&NewTopic::new(format!("idle{n}"))).unwrap();
        }
        store.tick(TimestampMs(1)).unwrap();
        let open = blocks_bytes(dir.path());
        assert!(open < IDLE_BYTES_MAX, "{mode}: {open} bytes while open");
        store.close().unwrap();
        let closed = blocks_bytes(dir.path());
        assert!(closed < IDLE_BYTES_MAX, "{mode}: {closed} bytes when closed");
        drop(store);
        let store = with_mode(mode).open(dir.path()).unwrap();
        store.tick(TimestampMs(1)).unwrap();
        let again = blocks_bytes(dir.path());
        assert!(again < IDLE_BYTES_MAX, "{mode}: {again} bytes when open again");
        assert_eq!(store.topics().unwrap().len(), 100);
    }
}

/// With `edgelog.map.bytes.max` of 4 MiB, as a 32-bit machine may want, a log eight times as large is written and read
/// completely, also by a reader that lets go of nothing; no more than the bound is ever mapped.
#[test]
fn a_log_larger_than_what_may_be_mapped_is_written_and_read() {
    const RECORDS: usize = 2000;
    const RECORD_BYTES: usize = 16_000;
    let _alone = alone();
    let dir = TempDir::new();
    let options = || with_mode("map").set("edgelog.map.bytes.max", "4194304").unwrap();
    let within = |what: &str| {
        let mapped = mapped_bytes(dir.path());
        assert!(mapped <= 4 * MIB, "{what}: {mapped} bytes are mapped");
    };
    let store = options().open(dir.path()).unwrap();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "1048576").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for n in 0..RECORDS {
        log.append_with(NewRecord::value(&big_value(n, RECORD_BYTES)), Durability::Os).unwrap();
        if n % 100 == 0 {
            store.tick(TimestampMs(n as i64)).unwrap();
            within("writing");
        }
    }
    assert!(log.size().unwrap().1 > 28 * MIB as u64);
    store.close().unwrap();
    drop((log, store));
    for attached in [false, true] {
        let store = if attached { options().attach(dir.path()) } else { options().open(dir.path()) }.unwrap();
        let log = store.log("t", 0).unwrap();
        let mut held = Vec::new();
        let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            held.push(batch);
            if held.len() % 100 == 0 {
                within(&format!("reading, attached: {attached}, {} batches held", held.len()));
            }
        }
        assert_eq!(held.len(), RECORDS);
        for (n, batch) in held.iter().enumerate() {
            let record = batch.records().unwrap().next().unwrap().unwrap();
            assert!(record.value == Some(&big_value(n, RECORD_BYTES)), "record {n} is another");
        }
        drop(held);
        // Let go of, a window serves the next reader.
        assert!(follow(&log, RECORDS / 4) > 0);
        within("reading again");
        store.close().unwrap();
    }
}
