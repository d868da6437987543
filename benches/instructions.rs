//! Fixed work whose instructions `cargo xtask instructions` counts under Valgrind, and compares with the ledger
//! `instructions.txt`. Only what runs inside [`run_and_count`] is counted: no thread, no time and no chance is in it.
//!
//! `instructions NAME DIRECTORY` does the work of that name; without a name it lists them, each with how often it does
//! what is counted.

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use edgelog::clock::ManualClock;
use edgelog::{BatchBuilder, Durability, Log, NewRecord, NewTopic, Offset, OffsetSpec, Store, TimestampMs};

const TIME: TimestampMs = TimestampMs(1_767_225_600_000);
const VALUE: [u8; 100] = [b'v'; 100];
const BATCH_RECORDS: u32 = 100;

/// A kind of work: what it is called, how often it does what is counted, and the work.
type Work = (&'static str, u32, fn(&Path, u32));

const WORKS: [Work; 9] = [
    ("append-os", 4000, append_os),
    ("append-sync", 200, append_sync),
    ("append-batch-os", 200, append_batch),
    ("scan-batches", 20_000, scan_batches),
    ("scan-batches-unchecked", 20_000, scan_unchecked),
    ("scan-singles", 10_000, scan_singles),
    ("read-in-batches", 1000, read_in_batches),
    ("read-singles", 1000, read_singles),
    ("open-100-partitions", 1, open_partitions),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        for (name, times, _) in WORKS {
            println!("{name} {times}");
        }
        return ExitCode::SUCCESS;
    }
    let work = WORKS.iter().find(|(name, ..)| *name == arguments[0]);
    let (Some((_, times, work)), Some(directory)) = (work, arguments.get(1)) else {
        eprintln!("instructions NAME DIRECTORY; without arguments it lists the names");
        return ExitCode::FAILURE;
    };
    work(Path::new(directory), *times);
    ExitCode::SUCCESS
}

/// The instructions of `work` are counted: Valgrind finds this function by its name.
#[inline(never)]
fn run_and_count(work: &mut dyn FnMut()) {
    work();
    // Not the last thing it does: then it would be a jump.
    black_box(());
}

fn counted(mut work: impl FnMut()) {
    run_and_count(&mut work);
}

/// A store without a thread, whose clock stands still, and which stores through maps no matter on what file system.
fn open(directory: &Path) -> Store {
    let options = [("edgelog.housekeeping", "tick"), ("edgelog.storage", "map")]
        .into_iter()
        .fold(Store::options(), |options, (key, value)| options.set(key, value).expect("a key"));
    options.clock(ManualClock::new(TIME)).open(directory).expect("a directory that can be written")
}

fn topic(store: &Store, partitions: u32) -> Log {
    store.create_topic(&NewTopic::new("t").partitions(partitions)).expect("a new directory");
    store.log("t", 0).expect("it was just created")
}

fn record() -> NewRecord<'static> {
    NewRecord::value(black_box(&VALUE)).with_timestamp(TIME)
}

fn append(directory: &Path, times: u32, durability: Durability) {
    let store = open(directory);
    let log = topic(&store, 1);
    let append = || log.append_with(record(), durability).expect("room");
    append();
    counted(|| {
        for _ in 0..times {
            black_box(append());
        }
    });
}

fn append_os(directory: &Path, times: u32) {
    append(directory, times, Durability::Os);
}

fn append_sync(directory: &Path, times: u32) {
    append(directory, times, Durability::Sync);
}

fn fill(log: &Log, batch: &mut BatchBuilder, records: u32) {
    (0..records).for_each(|_| batch.push(record()).expect("room in a batch"));
    log.append_batch_with(batch, Durability::Os).expect("room");
}

fn append_batch(directory: &Path, times: u32) {
    let store = open(directory);
    let log = topic(&store, 1);
    let mut batch = log.batch();
    fill(&log, &mut batch, BATCH_RECORDS);
    counted(|| (0..times).for_each(|_| fill(&log, &mut batch, BATCH_RECORDS)));
}

/// A log of `records`, in batches of so many.
fn written(directory: &Path, records: u32, in_batch: u32) -> (Store, Log) {
    let store = open(directory);
    let log = topic(&store, 1);
    let mut batch = log.batch();
    (0..records / in_batch).for_each(|_| fill(&log, &mut batch, in_batch));
    (store, log)
}

fn scan(log: &Log, times: u32) {
    let read = || {
        let mut reader = log.reader(OffsetSpec::Earliest).expect("the log is open");
        let mut records = 0;
        while let Some(batch) = reader.next_batch().expect("sound batches") {
            for record in batch.records().expect("a sound batch") {
                black_box(record.expect("a sound record").value);
                records += 1;
            }
        }
        assert_eq!(records, times);
    };
    // The maps and the indexes are there when it counts.
    read();
    counted(read);
}

fn scan_batches(directory: &Path, times: u32) {
    scan(&written(directory, times, BATCH_RECORDS).1, times);
}

fn scan_singles(directory: &Path, times: u32) {
    scan(&written(directory, times, 1).1, times);
}

fn scan_unchecked(directory: &Path, times: u32) {
    drop(written(directory, times, BATCH_RECORDS));
    let options = Store::options().set("check.crcs", "false").and_then(|o| o.set("edgelog.housekeeping", "tick"));
    let store = options.expect("keys").clock(ManualClock::new(TIME)).open(directory).expect("it was just written");
    scan(&store.log("t", 0).expect("it was just written"), times);
}

/// One record by its offset, each time with a reader that stands elsewhere.
fn read_at_random(log: &Log, records: u32, times: u32) {
    let read = || {
        let mut reader = log.reader(OffsetSpec::Earliest).expect("the log is open");
        let mut at = 0;
        for _ in 0..times {
            // As good as chance, and the same each time.
            at = (at + 7919) % records;
            reader.seek(OffsetSpec::Offset(Offset(i64::from(at)))).expect("an offset of the log");
            let batch = reader.next_batch().expect("sound batches").expect("a batch");
            let record = batch.records().expect("a sound batch").next().expect("it is in its batch");
            black_box(record.expect("a sound record").value);
        }
    };
    read();
    counted(read);
}

fn read_in_batches(directory: &Path, times: u32) {
    read_at_random(&written(directory, 20_000, BATCH_RECORDS).1, 20_000, times);
}

fn read_singles(directory: &Path, times: u32) {
    read_at_random(&written(directory, 10_000, 1).1, 10_000, times);
}

fn open_partitions(directory: &Path, _: u32) {
    let store = open(directory);
    topic(&store, 100);
    for partition in 0..100 {
        let log = store.log("t", partition).expect("it was just created");
        for _ in 0..10 {
            log.append_with(record(), Durability::Os).expect("room");
        }
    }
    store.close().expect("a sound disk");
    let mut opened = None;
    counted(|| opened = Some(open(directory)));
    assert!(opened.is_some_and(|store| store.recovery_report().clean));
}
