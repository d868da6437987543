//! The engine's threads, met in every order that loom finds: the same code that runs otherwise, with loom's locks and
//! atomics in place of the real ones (`src/sync.rs`), on a storage that sees a byte that is read and written at
//! once, and knows what was flushed.
//!
//! `./test --only loom` runs them, and those of `src/sync/models.rs`. Each prints through how many orders it went. Most
//! go through all that there are; where three threads have too many, a thread that could go on is interrupted
//! [`INTERRUPTIONS`] times at most (`LOOM_MAX_PREEMPTIONS=N` for more).

#![cfg(all(loom, edgelog_canary))]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use edgelog::canary::{Bug, switch_on};
use edgelog::clients::{Delivery, Producer, ProducerError, ProducerRecord};
use edgelog::clock::ManualClock;
use edgelog::storage::{Access, DirEntry, FileMeta, Lease, MemoryStorage, Storage, StorageFile, StorageLock};
use edgelog::{Durability, Error, Log, NewRecord, NewTopic, Offset, OffsetSpec, Reader, Store, TimestampMs};
use loom::sync::atomic::AtomicU32;
use loom::thread;

/// In models of three threads, so often a thread is interrupted where it could go on.
const INTERRUPTIONS: Option<usize> = Some(2);
const EVERY_ORDER: Option<usize> = None;
/// A model's threads run the whole engine: loom's own stacks are too small. In words.
const STACK_WORDS: usize = 64 << 10;

// --- a storage that watches ------------------------------------------------------------------------------------------

/// A stretch of a file that was written, and whether it was, as each thread sees it. The flag orders nothing by itself.
/// A thread that reads without synchronising first may still find it unset, and loom tries that too.
type Stretch = (Range<u64>, Arc<AtomicU32>);

#[derive(Debug, Default)]
struct Watch {
    stretches: Mutex<Vec<Stretch>>,
    written: AtomicU64,
    flushed: AtomicU64,
}

/// Memory, in which it is a failure to read bytes without an order between that and their writing.
#[derive(Debug, Clone)]
struct WatchedStorage {
    memory: MemoryStorage,
    files: Arc<Mutex<BTreeMap<u64, Arc<Watch>>>>,
}

impl WatchedStorage {
    fn new() -> WatchedStorage {
        WatchedStorage { memory: MemoryStorage::new(), files: Arc::default() }
    }

    /// How many bytes of `path` a flush has made durable.
    fn flushed(&self, path: &str) -> u64 {
        let identity = self.memory.metadata(path).unwrap().identity;
        self.files.lock().unwrap()[&identity].flushed.load(Ordering::Relaxed)
    }

    /// How many bytes of `path` were written.
    fn written(&self, path: &str) -> u64 {
        let identity = self.memory.metadata(path).unwrap().identity;
        self.files.lock().unwrap()[&identity].written.load(Ordering::Relaxed)
    }
}

impl Storage for WatchedStorage {
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
        let file = self.memory.open(path, access)?;
        let identity = self.memory.metadata(path)?.identity;
        let watch = Arc::clone(self.files.lock().unwrap().entry(identity).or_default());
        Ok(Arc::new(WatchedFile { file, watch, is_log: path.ends_with(".log") }))
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
        self.memory.boot_id()
    }
}

struct WatchedFile {
    file: Arc<dyn StorageFile>,
    watch: Arc<Watch>,
    is_log: bool,
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchedFile")
    }
}

impl WatchedFile {
    fn wrote(&self, position: u64, len: usize) {
        if !self.is_log {
            return; // other files have one writer, and readers that expect anything
        }
        let range = position..position + len as u64;
        self.watch.written.fetch_max(range.end, Ordering::Relaxed);
        let written = Arc::new(AtomicU32::new(0));
        self.watch.stretches.lock().unwrap().push((range, Arc::clone(&written)));
        written.store(1, Ordering::Relaxed);
    }

    fn reads(&self, position: u64, len: usize) {
        let end = position + len as u64;
        let touched = |(range, _): &&Stretch| range.start < end && position < range.end;
        let flags: Vec<_> =
            self.watch.stretches.lock().unwrap().iter().filter(touched).map(|(_, flag)| Arc::clone(flag)).collect();
        for written in flags {
            assert_eq!(written.load(Ordering::Relaxed), 1, "bytes at {position} are read that are not there yet");
        }
    }
}

impl StorageFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.reads(position, buffer.len());
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_at(bytes, position)?;
        self.wrote(position, bytes.len());
        Ok(())
    }

    fn store_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.store_at(bytes, position)?;
        self.wrote(position, bytes.len());
        Ok(())
    }

    fn lend(&self, position: u64, len: usize) -> io::Result<Option<Lease>> {
        self.reads(position, len);
        self.file.lend(position, len)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.file.reserve(len)
    }

    fn prepare(&self, range: Range<u64>) {
        self.file.prepare(range);
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn flush(&self) -> io::Result<()> {
        let written = self.watch.written.load(Ordering::Relaxed);
        // A flush takes its time: others run meanwhile.
        thread::yield_now();
        self.watch.flushed.fetch_max(written, Ordering::Relaxed);
        self.file.flush()
    }
}

// --- the models ------------------------------------------------------------------------------------------------------

/// Runs `model` in every order (with so many interruptions at most), on stacks that are large enough, with `bug`
/// switched on.
fn explore(name: &str, interruptions: Option<usize>, bug: Option<Bug>, model: fn()) {
    let runs = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.preemption_bound = builder.preemption_bound.or(interruptions);
    let which =
        builder.preemption_bound.map_or("all there are".to_owned(), |most| format!("{most} interruptions at most"));
    // Each run has to take the same steps: the buffer that a thread encodes into has its size from here on.
    builder.check(|| {
        let warm_up = || append(&store(&WatchedStorage::new(), 0).1, 0, Durability::Os);
        spawn(warm_up).join().unwrap();
    });
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        switch_on(bug);
        spawn(model).join().unwrap();
    });
    println!("{name}: {} orders, {which}", runs.load(Ordering::Relaxed));
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().stack_size(STACK_WORDS).spawn(work).unwrap()
}

/// A store with a log of which `records` were appended already.
fn store(storage: &WatchedStorage, records: i64) -> (Store, Log) {
    let options =
        Store::options().set("edgelog.housekeeping", "tick").unwrap().clock(ManualClock::new(TimestampMs(1000)));
    let store = options.open_on(storage.clone()).unwrap();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for offset in 0..records {
        append(&log, offset, Durability::Os);
    }
    (store, log)
}

/// Three records fill a segment.
fn value(offset: i64) -> Vec<u8> {
    vec![offset as u8 + 1; 1200]
}

fn append(log: &Log, offset: i64, durability: Durability) {
    let info = log.append_with(NewRecord::value(&value(offset)).with_timestamp(TimestampMs(1000)), durability).unwrap();
    assert_eq!(info.base_offset, offset);
}

/// Takes what there is; the bytes are whole, and the next ones.
fn read(reader: &mut Reader, expected: &mut i64) {
    while let Some(batch) = reader.next_batch().unwrap() {
        take(&batch, expected);
    }
}

fn take(batch: &edgelog::Batch, expected: &mut i64) {
    for record in batch.records().unwrap() {
        let record = record.unwrap();
        assert_eq!((record.offset, record.value), (Offset(*expected), Some(&value(*expected)[..])));
        *expected += 1;
    }
}

/// An appender and a reader: what the reader is shown stands there.
fn publishing() {
    let (_store, log) = store(&WatchedStorage::new(), 0);
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    let appender = spawn(move || {
        append(&log, 0, Durability::Os);
        append(&log, 1, Durability::Os);
    });
    let mut expected = 0;
    read(&mut reader, &mut expected);
    read(&mut reader, &mut expected);
    appender.join().unwrap();
    read(&mut reader, &mut expected);
    assert_eq!(expected, 2);
}

#[test]
fn readers_see_whole_batches() {
    explore("publishing to a reader", EVERY_ORDER, None, publishing);
}

#[test]
#[should_panic(expected = "not there yet")]
fn canary_a_batch_is_published_before_its_bytes_are_there() {
    explore("published before copied", EVERY_ORDER, Some(Bug::PublishBeforeCopy), || {
        let (_store, log) = store(&WatchedStorage::new(), 0);
        let options = edgelog::ReaderOptions::default().up_to(edgelog::ReadUpTo::LogEnd);
        let mut reader = log.reader_with(OffsetSpec::Earliest, options).unwrap();
        let appender = spawn(move || append(&log, 0, Durability::Os));
        read(&mut reader, &mut 0);
        appender.join().unwrap();
    });
}

/// The reader stands at the end of a segment while the next one is begun.
#[test]
fn readers_go_through_a_roll() {
    explore("rolling under a reader", EVERY_ORDER, None, || {
        let (_store, log) = store(&WatchedStorage::new(), 2);
        let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
        let mut expected = 0;
        read(&mut reader, &mut expected);
        let appender = spawn(move || {
            append(&log, 2, Durability::Os);
            append(&log, 3, Durability::Os); // rolls
        });
        read(&mut reader, &mut expected);
        appender.join().unwrap();
        read(&mut reader, &mut expected);
        assert_eq!(expected, 4);
    });
}

/// A follower that has nothing to read sleeps, and wakes for the next record. (If it slept for good, that would be a
/// deadlock, which loom reports.)
fn following() {
    let (_store, log) = store(&WatchedStorage::new(), 0);
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    let appender = spawn(move || append(&log, 0, Durability::Os));
    let mut expected = 0;
    let batch = reader.follow().next().unwrap().unwrap();
    take(&batch, &mut expected);
    appender.join().unwrap();
    assert_eq!(expected, 1);
}

#[test]
fn followers_wake_for_what_is_appended() {
    explore("following", EVERY_ORDER, None, following);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_a_follower_sleeps_on_without_the_fence() {
    explore("following without the fence", EVERY_ORDER, Some(Bug::WakeWithoutFence), following);
}

/// Two appenders share flushes: each returns when its own record is durable, and is shown to readers.
fn group_commit() {
    let storage = WatchedStorage::new();
    let (_store, log) = store(&storage, 0);
    let commit = |log: Log, storage: WatchedStorage| {
        let info =
            log.append_with(NewRecord::value(&value(0)).with_timestamp(TimestampMs(1000)), Durability::Sync).unwrap();
        let offsets = log.offsets();
        assert!(offsets.recovery_point > info.last_offset && offsets.high_watermark > info.last_offset, "{offsets:?}");
        let flushed = storage.flushed("t-0/00000000000000000000.log");
        assert!(
            flushed >= (info.last_offset.0 as u64 + 1) * 1200,
            "acknowledged {info:?} with {flushed} bytes flushed"
        );
        // What is said to be durable is.
        assert!(flushed >= offsets.recovery_point.0 as u64 * 1200, "{offsets:?} with {flushed} bytes flushed");
    };
    let other = {
        let (log, storage) = (log.clone(), storage.clone());
        spawn(move || commit(log, storage))
    };
    commit(log, storage);
    other.join().unwrap();
}

#[test]
fn appenders_that_share_a_flush_are_all_durable() {
    explore("group commit", EVERY_ORDER, None, group_commit);
}

#[test]
#[should_panic(expected = "bytes flushed")]
fn canary_the_end_after_the_flush_is_not_durable() {
    explore(
        "group commit up to the end after the flush",
        EVERY_ORDER,
        Some(Bug::TakeTheEndAfterTheFlush),
        group_commit,
    );
}

/// The same where one of the two begins a new segment: what was sealed is flushed as well.
#[test]
fn appenders_share_a_flush_over_a_roll() {
    explore("group commit over a roll", EVERY_ORDER, None, || {
        let storage = WatchedStorage::new();
        let (_store, log) = store(&storage, 2);
        let commit = |log: Log| {
            let record = NewRecord::value(&[7; 1200]).with_timestamp(TimestampMs(1000));
            let info = log.append_with(record, Durability::Sync).unwrap();
            assert!(log.offsets().recovery_point > info.last_offset);
            info.last_offset
        };
        let other = {
            let log = log.clone();
            spawn(move || commit(log))
        };
        let (one, two) = (commit(log), other.join().unwrap());
        assert_eq!((one.min(two), one.max(two)), (Offset(2), Offset(3)));
        for base_offset in [0, 3] {
            let path = format!("t-0/{base_offset:020}.log");
            assert_eq!(storage.flushed(&path), storage.written(&path));
        }
    });
}

/// Segments are deleted under a reader: it reads on without a hole, or gets the error that its position is gone.
/// A truncation may take a record before its append has flushed it: the append ends, and does not acknowledge it.
#[test]
fn a_truncated_append_is_not_acknowledged() {
    explore("a truncation next to a durable append", Some(2), None, || {
        let (_store, log) = store(&WatchedStorage::new(), 1);
        log.flush().unwrap();
        let appender = {
            let log = log.clone();
            spawn(move || {
                let record = value(1);
                let record = NewRecord::value(&record).with_timestamp(TimestampMs(1000));
                log.append_with(record, Durability::Sync).map(|info| (info.base_offset, info.leader_epoch))
            })
        };
        let end = log.truncate_to(Offset(1));
        let appended = appender.join().unwrap();
        assert_eq!(end.unwrap(), 1);
        let offsets = log.offsets();
        match appended {
            Ok((offset, epoch)) if offsets.log_end_offset == 2 => {
                assert_eq!((offset, offsets.recovery_point), (Offset(1), Offset(2)), "{epoch}");
            }
            // It was durable, and was truncated afterwards.
            Ok(_) => assert_eq!(offsets.log_end_offset, 1),
            Err(Error::FencedLeaderEpoch { offset, end_offset, .. }) => {
                assert_eq!((offset, end_offset, offsets.log_end_offset), (Offset(2), Offset(1), Offset(1)));
            }
            Err(error) => panic!("{error}"),
        }
    });
}

#[test]
fn readers_learn_what_was_deleted() {
    explore("deleting under a reader", EVERY_ORDER, None, || {
        let (_store, log) = store(&WatchedStorage::new(), 7);
        let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
        let deleter = spawn(move || {
            log.delete_records_before(Offset(6)).unwrap();
        });
        let mut expected = 0;
        loop {
            match reader.next_batch() {
                Ok(Some(batch)) => take(&batch, &mut expected),
                Ok(None) => break assert_eq!(expected, 7),
                Err(Error::OffsetOutOfRange { log_start_offset, .. }) => {
                    break assert!(log_start_offset > expected);
                }
                Err(error) => panic!("{error}"),
            }
        }
        deleter.join().unwrap();
    });
}

// --- a producer ------------------------------------------------------------------------------------------------------

/// A producer whose sender takes each record at once.
fn producer(storage: &WatchedStorage, acks: &str) -> (Arc<Store>, Producer) {
    let store = Arc::new(store(storage, 0).0);
    let builder = Producer::builder(&store).set("linger.ms", "0").unwrap().set("acks", acks).unwrap();
    let producer = builder.open().unwrap();
    (store, producer)
}

fn send(producer: &Producer, offset: i64) -> Result<Delivery, ProducerError> {
    producer.send(ProducerRecord::new("t", &value(offset)).with_timestamp(TimestampMs(1000)))
}

/// A record that is sent is answered, and is durable then.
fn producing() {
    let storage = WatchedStorage::new();
    let (_store, producer) = producer(&storage, "all");
    let delivery = send(&producer, 0).unwrap();
    assert_eq!(delivery.wait().unwrap().offset, Some(Offset(0)));
    let flushed = storage.flushed("t-0/00000000000000000000.log");
    assert!(flushed >= 1200, "acknowledged with {flushed} bytes flushed");
    producer.close().unwrap();
}

#[test]
fn a_record_that_is_sent_is_answered_and_durable() {
    explore("a producer and its sender", INTERRUPTIONS, None, producing);
}

#[test]
#[should_panic(expected = "bytes flushed")]
fn canary_a_producer_acknowledges_before_its_flush() {
    explore("a producer that does not flush", INTERRUPTIONS, Some(Bug::AcknowledgeBeforeTheFlush), producing);
}

/// A record that is sent while the producer is closed is answered, or refused: with a callback as well, once.
#[test]
fn closing_a_producer_answers_what_it_took() {
    explore("closing a producer", INTERRUPTIONS, None, || {
        let (store, producer) = producer(&WatchedStorage::new(), "all");
        let closer = {
            let producer = producer.clone();
            spawn(move || producer.close().unwrap())
        };
        let sent = send(&producer, 0);
        producer.close().unwrap();
        let end = store.log("t", 0).unwrap().offsets();
        match sent {
            Ok(delivery) => {
                let outcome = delivery.try_wait().expect("a close answers everything");
                assert_eq!((outcome.unwrap().offset, end.recovery_point), (Some(Offset(0)), Offset(1)));
            }
            Err(ProducerError::Closed) => assert_eq!(end.log_end_offset, 0),
            Err(error) => panic!("{error}"),
        }
        closer.join().unwrap();
    });
}

fn append_or_closed(log: &Log) -> i64 {
    match log.append_with(NewRecord::value(&value(0)).with_timestamp(TimestampMs(1000)), Durability::Os) {
        Ok(info) => (info.last_offset + 1).0,
        Err(Error::Closed) => 0,
        Err(error) => panic!("{error}"),
    }
}

fn follow_to_the_end(mut reader: Reader) -> i64 {
    let mut expected = 0;
    reader.follow().for_each(|batch| take(&batch.unwrap(), &mut expected));
    expected
}

/// A follower sleeps, or is about to, when the store is closed: it comes to an end.
#[test]
fn closing_wakes_followers() {
    explore("closing next to a follower", EVERY_ORDER, None, || {
        let (store, log) = store(&WatchedStorage::new(), 1);
        let reader = log.reader(OffsetSpec::Earliest).unwrap();
        let follower = spawn(move || follow_to_the_end(reader));
        store.close().unwrap();
        assert_eq!(follower.join().unwrap(), 1);
    });
}

/// An append during a close is in the log, or is refused.
#[test]
fn closing_takes_no_more() {
    explore("closing next to an appender", EVERY_ORDER, None, || {
        let storage = WatchedStorage::new();
        let (store, log) = store(&storage, 0);
        let appender = spawn(move || append_or_closed(&log));
        store.close().unwrap();
        let appended = appender.join().unwrap();
        drop(store);
        let store = Store::options().set("edgelog.housekeeping", "tick").unwrap().open_on(storage).unwrap();
        assert!(store.recovery_report().clean);
        assert_eq!(store.log("t", 0).unwrap().offsets().log_end_offset, appended);
    });
}

/// And with both: the follower gets what was appended before it comes to its end.
#[test]
fn followers_get_all_before_the_end() {
    explore("closing next to an appender and a follower", INTERRUPTIONS, None, || {
        let (store, log) = store(&WatchedStorage::new(), 0);
        let reader = log.reader(OffsetSpec::Earliest).unwrap();
        let appender = spawn(move || append_or_closed(&log));
        let follower = spawn(move || follow_to_the_end(reader));
        store.close().unwrap();
        assert_eq!(follower.join().unwrap(), appender.join().unwrap());
    });
}
