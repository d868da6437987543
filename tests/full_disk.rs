//! Disks that are full: an error from the call that needs room, never a signal; what was acknowledged is there; the
//! store opens, reads, deletes and closes; and when there is room again, work goes on as if nothing had been.
//!
//! The tests on real file systems run by `./test --only filesystems`, which mounts small ones and names them in
//! `EDGELOG_TEST_MOUNTS=ext4:/path,xfs:/path,...`. The load runs in a child process, so that a SIGBUS is a failure
//! with a name and not the end of the test runner.
//!
//! btrfs takes writes that it has no room for when they are to reach the disk: a flush there fails with ENOSPC now and
//! then. A log whose flush failed is read-only until the store is opened again, and any file's flush may be the one. So
//! the story there is another one: full, room again, opened again, and nothing that was acknowledged is missing.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use edgelog::storage::{Access, MemoryStorage, Storage};
use edgelog::{Durability, Error, Log, NewRecord, NewTopic, Offset, OffsetSpec, Store, StoreOptions, TimestampMs};
use edgelog_testkit::{TempDir, Watched, run_again, say};

/// What other files take of the disk until the store has met its end: one of so many parts.
const BALLAST_PART: u64 = 2;
const MEMORY_BYTES: u64 = 4 << 20;
/// What each writer goes on trying after its first error: some of it finds a last hole.
const TRIES_AFTER_FULL: usize = 100;
/// A file system that gives room back later than this has lost it.
const ROOM_AGAIN_MAX: Duration = Duration::from_secs(60);

/// How each log is filled: its topic, and the durability of its appends.
const WRITERS: &[(&str, Durability)] = &[
    ("os", Durability::Os),
    ("interval", Durability::Interval),
    ("sync", Durability::Sync),
    ("batch", Durability::Os),
];

trait Disk: Sync {
    fn open(&self, options: StoreOptions) -> Store;
    fn add_ballast(&self);
    fn remove_ballast(&self);
    /// Whether room that a write was given is still there at its flush.
    fn keeps_room(&self) -> bool;
}

struct InMemory(MemoryStorage);

impl Disk for InMemory {
    fn open(&self, options: StoreOptions) -> Store {
        options.open_on(self.0.clone()).unwrap()
    }

    fn add_ballast(&self) {
        self.0.open("ballast", Access::CreateNew).unwrap().reserve(MEMORY_BYTES / BALLAST_PART).unwrap();
    }

    fn remove_ballast(&self) {
        self.0.remove_file("ballast").unwrap();
    }

    fn keeps_room(&self) -> bool {
        true
    }
}

struct OnMount {
    dir: PathBuf,
    mode: String,
    kind: String,
}

impl OnMount {
    fn try_open(&self, options: StoreOptions) -> edgelog::Result<Store> {
        options.set("edgelog.storage", &self.mode).unwrap().open(self.dir.join("store"))
    }
}

impl Disk for OnMount {
    fn open(&self, options: StoreOptions) -> Store {
        self.try_open(options).unwrap()
    }

    fn add_ballast(&self) {
        let mut file = File::create(self.dir.join("ballast")).unwrap();
        let room = rustix::fs::fstatvfs(&file).unwrap();
        let mut noise = edgelog_testkit::Random(1);
        let bytes: Vec<u8> = (0..room.f_bavail * room.f_frsize / BALLAST_PART).map(|_| noise.next() as u8).collect();
        file.write_all(&bytes).unwrap();
        file.sync_all().unwrap();
    }

    fn remove_ballast(&self) {
        std::fs::remove_file(self.dir.join("ballast")).unwrap();
    }

    fn keeps_room(&self) -> bool {
        self.kind != "btrfs"
    }
}

/// Does what goes well where there is room again. Some file systems give it back a while after the name is gone, and
/// until then say so.
fn with_room<T>(doing: impl Fn() -> String, mut work: impl FnMut() -> edgelog::Result<T>) -> T {
    let deadline = Instant::now() + ROOM_AGAIN_MAX;
    loop {
        match work() {
            Ok(done) => return done,
            Err(error) if error.is_retriable() && Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{}, although there is room: {error}", doing()),
        }
    }
}

/// Whether a log is read-only since a flush of it failed for lack of room: this call's own flush, or one before.
fn lost_its_room(error: &Error) -> bool {
    let is_read_only = matches!(error, Error::LogFailed { .. } | Error::PreviousIo { .. });
    is_read_only && error.to_string().contains("No space left on device")
}

/// The value of record `n`: of its own length, and nothing that a file system could compress away.
fn value(topic: &str, n: i64) -> Vec<u8> {
    let mut noise = edgelog_testkit::Random(n as u64);
    let mut value = format!("{topic} {n} ").into_bytes();
    let len = 20 + noise.below(700);
    value.extend((0..len).map(|_| noise.next() as u8));
    value
}

fn create_topics(store: &Store) {
    for &(name, _) in WRITERS {
        let topic = NewTopic::new(name).config("segment.bytes", "131072").config("retention.ms", "-1");
        store.create_topic(&topic).unwrap();
    }
    store.create_topic(&NewTopic::new("doomed").config("retention.ms", "-1")).unwrap();
    for n in 0..100 {
        store.log("doomed", 0).unwrap().append(NewRecord::value(&value("doomed", n))).unwrap();
    }
}

/// Appends what comes next to one log; `next` is the offset that it must get.
fn append(log: &Log, topic: &str, durability: Durability, next: &mut i64) -> edgelog::Result<()> {
    let info = if topic == "batch" {
        let mut batch = log.batch();
        for n in *next..*next + 10 {
            batch.push(NewRecord::value(&value(topic, n)).with_timestamp(TimestampMs(n)))?;
        }
        log.append_batch_with(&mut batch, durability)?
    } else {
        log.append_with(NewRecord::value(&value(topic, *next)).with_timestamp(TimestampMs(*next)), durability)?
    };
    assert_eq!(info.base_offset, *next, "{topic}: an append that failed takes no offset");
    *next = (info.last_offset + 1).0;
    Ok(())
}

/// A writer that ends, also by a panic: the others do not wait for it.
struct Last<'a> {
    written: &'a AtomicI64,
    full: &'a AtomicUsize,
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.written.store(i64::MAX, Ordering::Relaxed);
        if std::thread::panicking() {
            self.full.fetch_add(WRITERS.len(), Ordering::Relaxed);
        }
    }
}

/// All writers at once until each has met the end of the disk, and beyond. Returns up to where each log's records were
/// acknowledged.
fn fill(disk: &dyn Disk, store: &Store, ends: &[i64]) -> Vec<i64> {
    // No writer runs far ahead of the others, or one would have the whole disk. But no writer waits for another one's
    // flush.
    const AHEAD_MAX: i64 = 200;
    let written: Vec<AtomicI64> = WRITERS.iter().map(|_| AtomicI64::new(0)).collect();
    let (full, begin) = (AtomicUsize::new(0), Barrier::new(WRITERS.len()));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS.len())
            .map(|at| {
                let (written, full, begin) = (&written, &full, &begin);
                scope.spawn(move || {
                    let ((topic, durability), end) = (WRITERS[at], ends[at]);
                    let log = store.log(topic, 0).unwrap();
                    let others = || written.iter().zip(WRITERS).filter(|(_, writer)| writer.1 != Durability::Sync);
                    let slowest = || others().map(|(count, _)| count.load(Ordering::Relaxed)).min().unwrap();
                    let (mut next, mut in_want, mut tries) = (end, false, 0);
                    let _last = Last { written: &written[at], full };
                    begin.wait();
                    while tries < TRIES_AFTER_FULL {
                        while !in_want && next - end > slowest().saturating_add(AHEAD_MAX) {
                            std::thread::yield_now();
                        }
                        if let Err(error) = append(&log, topic, durability, &mut next) {
                            let is_over = !disk.keeps_room() && lost_its_room(&error);
                            let wants_room = error.is_storage_full() && error.is_retriable();
                            assert!(is_over || wants_room, "{topic} at {next}: {error}");
                            full.fetch_add(usize::from(!in_want), Ordering::Relaxed);
                            in_want = true;
                            if is_over {
                                tries = TRIES_AFTER_FULL;
                            }
                        }
                        written[at].store(if in_want { i64::MAX } else { next - end }, Ordering::Relaxed);
                        // Until all are in want, there is another who may free or take room.
                        tries += usize::from(full.load(Ordering::Relaxed) >= WRITERS.len());
                    }
                    next
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

/// Appends a few records to each log, where there is room again.
fn append_some(store: &Store, ends: &mut [i64]) {
    for (&(topic, durability), end) in WRITERS.iter().zip(ends) {
        let log = store.log(topic, 0).unwrap();
        for _ in 0..20 {
            let begin = *end;
            with_room(|| format!("{topic} at {begin}"), || append(&log, topic, durability, end));
        }
    }
}

/// Every record from `start` to `end`, each as it was appended.
fn check(log: &Log, start: i64, end: i64) {
    let topic = log.name().topic.clone();
    let mut reader = log.reader(OffsetSpec::Offset(Offset(start))).unwrap();
    let mut next = start;
    while let Some(batch) = reader.next_batch_timeout(Duration::ZERO).unwrap() {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            assert_eq!(record.offset, next, "{topic}");
            assert!(record.value == Some(&value(&topic, next)), "{topic}: the value at {next} is another");
            next += 1;
        }
    }
    assert_eq!(next, end, "{topic}: records are missing or too many");
}

fn check_all(store: &Store, starts: &[i64], ends: &[i64]) {
    for ((&(topic, _), &start), &end) in WRITERS.iter().zip(starts).zip(ends) {
        check(&store.log(topic, 0).unwrap(), start, end);
    }
}

/// The whole story on one disk.
fn fill_up_and_go_on(disk: &dyn Disk) {
    disk.add_ballast();
    let store = disk.open(Store::options());
    create_topics(&store);
    let mut starts = vec![0; WRITERS.len()];
    let mut ends = vec![0; WRITERS.len()];
    append_some(&store, &mut ends);
    ends = fill(disk, &store, &ends);
    assert!(
        ends.iter().all(|&end| end > 5) && ends.iter().sum::<i64>() > 1000,
        "the disk was full before anything was tested: {ends:?}"
    );
    check_all(&store, &starts, &ends);

    // Room, and the same store goes on.
    disk.remove_ballast();
    append_some(&store, &mut ends);
    check_all(&store, &starts, &ends);

    // Full again: closes, opens, reads, on a disk without room.
    ends = fill(disk, &store, &ends);
    store.close().unwrap();
    drop(store);
    let store = disk.open(Store::options());
    assert!(store.recovery_report().clean, "{}", store.recovery_report());
    check_all(&store, &starts, &ends);

    // Deletes, and what that freed can be written to.
    ends = fill(disk, &store, &ends);
    let log = store.log("os", 0).unwrap();
    starts[0] = ends[0] - 10;
    assert_eq!(log.delete_records_before(Offset(starts[0])).unwrap(), starts[0]);
    append_some(&store, &mut ends);
    check_all(&store, &starts, &ends);
    ends = fill(disk, &store, &ends);
    store.delete_topic("doomed").unwrap();
    assert!(matches!(store.log("doomed", 0), Err(Error::UnknownTopicOrPartition { .. })));
    ends = fill(disk, &store, &ends);
    check_all(&store, &starts, &ends);
    store.close().unwrap();
    drop(store);

    let store = disk.open(Store::options());
    assert!(store.recovery_report().clean, "{}", store.recovery_report());
    check_all(&store, &starts, &ends);
    assert_eq!(store.topics().unwrap().len(), WRITERS.len());
}

/// The story of a disk whose flushes may fail for lack of room: full, room again, opened again, and on.
fn fill_up_and_open_again(disk: &OnMount) {
    disk.add_ballast();
    let store = disk.open(Store::options());
    create_topics(&store);
    let mut ends = vec![0; WRITERS.len()];
    append_some(&store, &mut ends);
    let acknowledged = fill(disk, &store, &ends);
    disk.remove_ballast();
    // A log whose flush failed says so once more.
    let _ = store.close();
    drop(store);

    let store = with_room(|| "opening".to_owned(), || disk.try_open(Store::options()));
    let mut ends = ends_found(&store, &acknowledged);
    let starts = vec![0; WRITERS.len()];
    check_all(&store, &starts, &ends);
    append_some(&store, &mut ends);
    check_all(&store, &starts, &ends);
    store.delete_topic("doomed").unwrap();
    store.close().unwrap();
    drop(store);

    let store = disk.open(Store::options());
    assert!(store.recovery_report().clean, "{}", store.recovery_report());
    check_all(&store, &starts, &ends);
}

/// Where the logs end: nowhere before what was acknowledged, and perhaps behind an append whose flush failed.
fn ends_found(store: &Store, acknowledged: &[i64]) -> Vec<i64> {
    let found = WRITERS.iter().zip(acknowledged).map(|(&(topic, _), &acknowledged)| {
        let end = store.log(topic, 0).unwrap().offsets().log_end_offset;
        assert!((acknowledged..=acknowledged + 10).contains(&end.0), "{topic} ends at {end}, not {acknowledged}");
        end.0
    });
    found.collect()
}

/// A disk in memory that is full at 4 MiB goes through all of it, wherever the tests run.
#[test]
fn a_full_disk_in_memory_is_an_error_and_work_goes_on() {
    fill_up_and_go_on(&InMemory(MemoryStorage::with_capacity(MEMORY_BYTES)));
}

// --- file systems --------------------------------------------------------------------------------------------------

/// Kind and place of the mounts to test on.
fn mounts() -> Vec<(String, PathBuf)> {
    let mounts = std::env::var("EDGELOG_TEST_MOUNTS").expect("EDGELOG_TEST_MOUNTS names the mounts; see the stage");
    let split = |mount: &str| {
        let (kind, path) = mount.split_once(':').expect("kind:/path");
        (kind.to_owned(), PathBuf::from(path))
    };
    let mounts: Vec<_> = mounts.split(',').map(split).collect();
    assert!(!mounts.is_empty());
    mounts
}

/// One test at a time has the disks.
static MOUNTS: Mutex<()> = Mutex::new(());

fn spawn(test: &str, disk: &OnMount) -> Watched {
    let (dir, mode, kind) = (disk.dir.as_os_str(), disk.mode.as_ref(), disk.kind.as_ref());
    let named = [("EDGELOG_TEST_CHILD", dir), ("EDGELOG_TEST_CHILD_MODE", mode), ("EDGELOG_TEST_CHILD_KIND", kind)];
    run_again(test, &named)
}

/// The disk that this process works on, if it is such a child.
fn child() -> Option<OnMount> {
    let dir = PathBuf::from(std::env::var_os("EDGELOG_TEST_CHILD")?);
    let named = |what| std::env::var(what).unwrap();
    Some(OnMount { dir, mode: named("EDGELOG_TEST_CHILD_MODE"), kind: named("EDGELOG_TEST_CHILD_KIND") })
}

/// `auto` as users have it, `file`, and maps by force where stores through maps are known to be safe.
fn modes(kind: &str) -> &'static [&'static str] {
    if matches!(kind, "ext4" | "tmpfs") { &["auto", "map", "file"] } else { &["auto", "file"] }
}

/// On each file system, in each way of storing, a child process goes through the whole story and ends well.
#[test]
#[ignore = "needs mounts: ./test --only filesystems"]
fn a_full_file_system_is_an_error_and_work_goes_on() {
    if let Some(disk) = child() {
        return if disk.keeps_room() { fill_up_and_go_on(&disk) } else { fill_up_and_open_again(&disk) };
    }
    let _one_at_a_time = MOUNTS.lock();
    for (kind, mount) in mounts() {
        for mode in modes(&kind) {
            let dir = TempDir::below(&mount);
            let disk = OnMount { dir: dir.path().to_owned(), mode: (*mode).to_owned(), kind: kind.clone() };
            let child = spawn("a_full_file_system_is_an_error_and_work_goes_on", &disk);
            let said: Vec<String> = child.lines().collect();
            let status = child.wait();
            assert!(status.success(), "{kind}, {mode}: {status}\n{}", said.join("\n"));
            println!("{kind}, {mode}: ok");
        }
    }
}

/// On each file system, a child that has filled it is killed, without closing anything. On the disk that is still
/// full (btrfs has room again), the store opens and every record that the child was acknowledged is there.
#[test]
#[ignore = "needs mounts: ./test --only filesystems"]
fn a_process_killed_on_a_full_file_system_leaves_all_that_was_acknowledged() {
    if let Some(disk) = child() {
        if !disk.keeps_room() {
            disk.add_ballast(); // It is opened with the room of that.
        }
        let store = disk.open(Store::options());
        create_topics(&store);
        let mut ends = vec![0; WRITERS.len()];
        append_some(&store, &mut ends);
        let ends = fill(&disk, &store, &ends);
        let ends: Vec<String> = ends.iter().map(i64::to_string).collect();
        say(&format!("acknowledged {}", ends.join(" ")));
        // Killed here; or the parent is gone.
        let _ = std::io::stdin().read_line(&mut String::new());
        panic!("this process was not killed");
    }
    let _one_at_a_time = MOUNTS.lock();
    for (kind, mount) in mounts() {
        for mode in modes(&kind) {
            let dir = TempDir::below(&mount);
            let test = "a_process_killed_on_a_full_file_system_leaves_all_that_was_acknowledged";
            let disk = OnMount { dir: dir.path().to_owned(), mode: (*mode).to_owned(), kind: kind.clone() };
            let child = spawn(test, &disk);
            let ends = child.lines().find_map(|line| line.strip_prefix("acknowledged ").map(str::to_owned));
            let status = child.kill();
            let ends = ends.unwrap_or_else(|| panic!("{kind}, {mode}: the child ended early: {status}"));
            let ends: Vec<i64> = ends.split(' ').map(|end| end.parse().unwrap()).collect();

            let store = if disk.keeps_room() {
                disk.open(Store::options())
            } else {
                disk.remove_ballast();
                with_room(|| "opening".to_owned(), || disk.try_open(Store::options()))
            };
            let report = store.recovery_report();
            assert!(!report.clean && report.lost_offsets() == 0, "{kind}, {mode}: {report}");
            let found = ends_found(&store, &ends);
            assert!(!disk.keeps_room() || found == ends, "{kind}, {mode}: {found:?}, and acknowledged were {ends:?}");
            check_all(&store, &vec![0; WRITERS.len()], &found);
            check(&store.log("doomed", 0).unwrap(), 0, 100);
            store.delete_topic("doomed").unwrap();
            let log = store.log("os", 0).unwrap();
            // An epoch ends where a flush failed: there alone, since this is the boot of before.
            assert!(log.leader_epoch() == 1 || !disk.keeps_room(), "{kind}, {mode}: {}", log.leader_epoch());
            log.delete_records_before(Offset(ends[0] / 2)).unwrap();
            let mut next = found[0];
            append(&log, "os", Durability::Sync, &mut next).unwrap();
            check(&log, ends[0] / 2, next);
            store.close().unwrap();
            println!("{kind}, {mode}: ok, {ends:?} records");
        }
    }
}
