//! One process writes, others read: every record once and in order, also while the writer rolls, deletes or dies.
//! And within one process: appenders that share flushes, followers that wait, and the lock that keeps writers apart.
//!
//! The writer is this test binary again, as a child. Nothing here waits for a time to pass; what must come is waited
//! for with a deadline that only a hang reaches.

use std::ffi::OsStr;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use edgelog::{
    Batch, Durability, Error, Log, NewRecord, NewTopic, Offset, OffsetSpec, ReadUpTo, Reader, ReaderOptions, Store,
};
use edgelog_testkit::{Place, TempDir, Watched, run_again, say, ticking};

/// What takes longer than this hangs.
const DEADLINE: Duration = Duration::from_secs(60);

fn child_variable(name: &str) -> Option<String> {
    std::env::var(format!("EDGELOG_TEST_{name}")).ok()
}

fn spawn(test: &str, dir: &Path, run: i64) -> Watched {
    let run = run.to_string();
    let test = format!("two_processes::{test}");
    run_again(&test, &[("EDGELOG_TEST_DIR", dir.as_os_str()), ("EDGELOG_TEST_RUN", OsStr::new(&run))])
}

/// Directory and number of the run, in a child.
fn child() -> Option<(String, i64)> {
    Some((child_variable("DIR")?, child_variable("RUN")?.parse().unwrap()))
}

/// What the run `run` of the writer writes at `offset`: two histories never agree on an offset.
fn value(run: i64, offset: i64) -> String {
    format!("run {run} offset {offset} {}", "-".repeat((offset % 50) as usize))
}

fn attach(dir: &Path, mode: &str) -> Store {
    let options = Store::options().set("edgelog.storage", mode).unwrap();
    options.attach(dir).unwrap()
}

fn next(reader: &mut Reader) -> Batch {
    reader.next_batch_timeout(DEADLINE).unwrap().expect("a record, and long before the deadline")
}

// --- a writer that rolls and deletes ---------------------------------------------------------------------------------

const ROLLED_RECORDS: i64 = 20_000;
/// The writer is at most so many records ahead of the reader, which are less bytes than retention leaves: the reader is
/// chased, and never overtaken.
const AHEAD_MAX: i64 = 300;
const ROLLING_RETENTION_BYTES: &str = "65536";

/// Writes into segments of 4 KiB, which last some milliseconds each, with retention at work every millisecond; learns
/// from its standard input how far the reader is.
fn write_and_roll(dir: &str) {
    let options = Store::options().set("log.retention.check.interval.ms", "1").unwrap();
    let store = options.open(dir).unwrap();
    let topic = NewTopic::new("t")
        .config("segment.bytes", "4096")
        .config("retention.bytes", ROLLING_RETENTION_BYTES)
        .config("retention.ms", "-1");
    store.create_topic(&topic).unwrap();
    let log = store.log("t", 0).unwrap();
    say("ready");
    let mut read = 0;
    let mut input = std::io::stdin().lock();
    for n in 0..ROLLED_RECORDS {
        while n - read >= AHEAD_MAX {
            let mut line = String::new();
            assert!(input.read_line(&mut line).unwrap() > 0, "the reader is gone");
            read = line.trim().parse().unwrap();
        }
        let durability = if n % 500 == 0 { Durability::Sync } else { Durability::Os };
        let info = log.append_with(NewRecord::value(value(0, n).as_bytes()), durability).unwrap();
        assert_eq!(info.base_offset, n);
    }
    assert!(log.offsets().log_start_offset > ROLLED_RECORDS / 2, "retention was at work: {:?}", log.offsets());
    store.close().unwrap();
}

/// An attached reader next to a writer whose segments last milliseconds and are deleted close behind the reader: each
/// record comes once, in order, by maps and by system calls; and batches that the reader holds stay what they were
/// after their files are gone. A signal would end this process.
#[test]
fn a_reader_follows_through_rolls_with_retention_at_its_heels() {
    if let Some((dir, _)) = child() {
        return write_and_roll(&dir);
    }
    for mode in ["auto", "map", "file"] {
        let dir = TempDir::new();
        let writer = spawn("a_reader_follows_through_rolls_with_retention_at_its_heels", dir.path(), 0);
        let mut lines = writer.lines();
        assert!(lines.any(|line| line == "ready"), "{mode}: the writer ended early");
        let mut progress = writer.stdin();
        let store = attach(dir.path(), mode);
        let mut reader = store.log("t", 0).unwrap().reader(OffsetSpec::Earliest).unwrap();
        let (mut expected, mut held) = (0, Vec::new());
        while expected < ROLLED_RECORDS {
            let batch = next(&mut reader);
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                assert_eq!(record.offset, expected, "{mode}");
                assert_eq!(record.value, Some(value(0, expected).as_bytes()), "{mode}");
                expected += 1;
            }
            if expected % 200 == 0 {
                held.push((expected - 1, batch));
            }
            if expected % 50 == 0 {
                // The writer may have ended: it has written what it had to.
                let _ = writeln!(progress, "{expected}");
            }
        }
        drop(progress);
        let status = writer.wait();
        assert!(status.success(), "{mode}: the writer failed: {status}\n{}", lines.collect::<Vec<_>>().join("\n"));
        assert!(matches!(
            store.log("t", 0).unwrap().reader(OffsetSpec::Offset(Offset(0))),
            Err(Error::OffsetOutOfRange { .. })
        ));
        for (offset, batch) in &held {
            let record = batch.records().unwrap().next().unwrap().unwrap();
            assert_eq!((record.offset, record.value), (Offset(*offset), Some(value(0, *offset).as_bytes())), "{mode}");
        }
    }
}

// --- a writer that is killed -----------------------------------------------------------------------------------------

/// Appends without end at changing durability, and reports each append that returned.
fn write_until_killed(dir: &str, run: i64) {
    let store = Store::options().open(dir).unwrap();
    let topic = NewTopic::new("t").config("segment.bytes", "16384").config("retention.ms", "-1");
    store.create_topic_if_absent(&topic).unwrap();
    let report = store.recovery_report();
    assert!(report.clean == (run == 0) && report.lost_offsets() == 0, "{report}");
    let log = store.log("t", 0).unwrap();
    assert_eq!(i64::from(log.leader_epoch().0), run);
    for n in log.offsets().log_end_offset.0.. {
        let durability = [Durability::Os, Durability::Sync, Durability::Interval][(n % 7 % 3) as usize];
        let info = if n % 5 == 0 {
            let mut batch = log.batch();
            batch.push(NewRecord::value(value(run, n).as_bytes())).unwrap();
            log.append_batch_with(&mut batch, durability).unwrap()
        } else {
            log.append_with(NewRecord::value(value(run, n).as_bytes()), durability).unwrap()
        };
        assert_eq!(info.base_offset, n);
        say(&format!("acknowledged {n}"));
    }
}

/// A writer that is killed again and again, and started again: it goes on at the next offset; an attached reader goes
/// on. What the reader saw, what the writer was acknowledged, and what the log holds in the end agree record by record.
/// Each run writes values of its own, so a history that was truncated and replaced cannot hide.
#[test]
fn a_writer_killed_again_and_again_goes_on_and_so_does_its_reader() {
    const RUNS: i64 = 6;
    if let Some((dir, run)) = child() {
        return write_until_killed(&dir, run);
    }
    for mode in ["auto", "file"] {
        let dir = TempDir::new();
        let (acknowledged, done) = (AtomicI64::new(-1), AtomicBool::new(false));
        let mut of_runs = Vec::new();
        let seen = std::thread::scope(|scope| {
            let follower = scope.spawn(|| follow_until(dir.path(), mode, &acknowledged, &done));
            for run in 0..RUNS {
                let writer = spawn("a_writer_killed_again_and_again_goes_on_and_so_does_its_reader", dir.path(), run);
                let mut count = 0;
                for line in writer.lines() {
                    let Some(offset) = line.strip_prefix("acknowledged ") else { continue };
                    let offset: i64 = offset.parse().unwrap();
                    assert!(
                        offset > acknowledged.load(Ordering::Relaxed),
                        "{mode}: offset {offset} is given out twice"
                    );
                    of_runs.push((offset, run));
                    acknowledged.store(offset, Ordering::Release);
                    count += 1;
                    if count > 300 + 37 * run {
                        break;
                    }
                }
                assert!(count > 300, "{mode}: the writer of run {run} ended early, {:?}", writer.kill());
                writer.kill();
            }
            done.store(true, Ordering::Release);
            follower.join().unwrap()
        });

        let store = Store::options().set("edgelog.storage", mode).unwrap().open(dir.path()).unwrap();
        let log = store.log("t", 0).unwrap();
        assert_eq!(i64::from(log.leader_epoch().0), RUNS);
        let held = read_all(&log);
        assert_eq!(held.len() as i64, log.offsets().log_end_offset.0);
        for &(offset, run) in &of_runs {
            assert_eq!(held[offset as usize], value(run, offset), "{mode}: acknowledged by run {run}");
        }
        // The reader may not have got to the very last ones when everything was over.
        assert!(seen.len() as i64 > acknowledged.load(Ordering::Acquire), "{mode}");
        assert_eq!(seen[..], held[..seen.len()], "{mode}: the reader saw another history");
    }
}

/// Follows the log of a writer that comes and goes until everything acknowledged was seen and it is over. Returns the
/// values by offset.
fn follow_until(dir: &Path, mode: &str, acknowledged: &AtomicI64, done: &AtomicBool) -> Vec<String> {
    let begun = Instant::now();
    let in_time = || assert!(begun.elapsed() < 2 * DEADLINE, "{mode}: the follower hangs");
    // Before the first append there is nothing to attach to.
    while acknowledged.load(Ordering::Acquire) < 0 {
        in_time();
        std::thread::yield_now();
    }
    let store = attach(dir, mode);
    let mut reader = store.log("t", 0).unwrap().reader(OffsetSpec::Earliest).unwrap();
    let mut seen = Vec::new();
    loop {
        in_time();
        let over = done.load(Ordering::Acquire);
        match reader.next_batch_timeout(Duration::from_millis(20)) {
            Ok(Some(batch)) => {
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    assert_eq!(record.offset, seen.len() as i64, "{mode}: a record is missing or comes twice");
                    seen.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
            Ok(None) if over && seen.len() as i64 > acknowledged.load(Ordering::Acquire) => return seen,
            Ok(None) => {}
            // A killed process takes nothing back that was in the page cache.
            Err(error) => panic!("{mode}: at {}: {error}", seen.len()),
        }
    }
}

fn read_all(log: &Log) -> Vec<String> {
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    let mut values = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            assert_eq!(record.offset, values.len() as i64);
            values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

// --- the lock --------------------------------------------------------------------------------------------------------

/// A second writer, in another process or in this one, gets an error that names the process which holds the data
/// directory. The lock goes with a clean close, with a drop, and with the death of its holder.
#[test]
fn one_writer_at_a_time_and_the_other_gets_its_pid() {
    let test = "one_writer_at_a_time_and_the_other_gets_its_pid";
    if let Some((dir, run)) = child() {
        match Store::open(&dir) {
            Ok(store) => {
                say("opened");
                if run == 1 {
                    // Holds it until it is killed.
                    let _ = std::io::stdin().read_line(&mut String::new());
                }
                store.close().unwrap();
            }
            Err(Error::DataDirLocked(error)) => say(&format!("locked {error}")),
            Err(error) => panic!("{error}"),
        }
        return;
    }
    let said = |writer: &Watched| {
        let mut lines = writer.lines();
        lines.find(|line| line == "opened" || line.starts_with("locked ")).expect("the child says how it went")
    };
    let dir = TempDir::new();
    let store = Store::open(dir.path()).unwrap();
    let refused = said(&spawn(test, dir.path(), 0));
    let pid = std::process::id().to_string();
    assert!(refused.starts_with("locked ") && words(&refused).any(|word| word == pid), "{refused}, not {pid}");
    match Store::open(dir.path()) {
        Err(Error::DataDirLocked(error)) => assert!(words(&error.to_string()).any(|word| word == pid), "{error}"),
        other => panic!("{other:?}"),
    }
    store.close().unwrap();
    assert_eq!(said(&spawn(test, dir.path(), 0)), "opened");

    let holder = spawn(test, dir.path(), 1);
    assert_eq!(said(&holder), "opened");
    match Store::open(dir.path()) {
        Err(Error::DataDirLocked(error)) => {
            assert!(words(&error.to_string()).any(|word| word == holder.id().to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    holder.kill();
    drop(Store::open(dir.path()).unwrap());
    drop(Store::open(dir.path()).unwrap());
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_digit())
}

// --- many threads of one process -------------------------------------------------------------------------------------

/// Eight appenders share flushes on one log, followers read meanwhile: each appender's records stand in its own
/// order, each where its append said; no follower sees a record before it is durable, none misses one.
#[test]
fn appenders_that_share_flushes_keep_their_order_and_followers_see_only_what_is_durable() {
    const APPENDERS: i64 = 8;
    const RECORDS: i64 = 150;
    for place in Place::all() {
        let store = place.open(Store::options());
        let topic = NewTopic::new("t").config("segment.bytes", "16384").config("retention.ms", "-1");
        store.create_topic(&topic).unwrap();
        let log = store.log("t", 0).unwrap();
        std::thread::scope(|scope| {
            let appenders: Vec<_> = (0..APPENDERS)
                .map(|appender| {
                    let log = log.clone();
                    scope.spawn(move || {
                        let mut placed = Vec::new();
                        for n in 0..RECORDS {
                            let value = format!("{appender} {n}");
                            let info = log.append_with(NewRecord::value(value.as_bytes()), Durability::Sync).unwrap();
                            assert!(log.offsets().recovery_point > info.last_offset, "acknowledged is durable");
                            placed.push(info.base_offset.0);
                        }
                        placed
                    })
                })
                .collect();
            let followers: Vec<_> = (0..2)
                .map(|_| {
                    let log = log.clone();
                    scope.spawn(move || {
                        let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
                        let (mut expected, mut of_appender) = (0, [0; APPENDERS as usize]);
                        let mut placed = vec![Vec::new(); APPENDERS as usize];
                        while expected < APPENDERS * RECORDS {
                            let batch = next(&mut reader);
                            let durable = log.offsets().recovery_point;
                            for record in batch.records().unwrap() {
                                let record = record.unwrap();
                                assert_eq!(record.offset, expected);
                                assert!(record.offset < durable, "seen before it was durable");
                                let text = std::str::from_utf8(record.value.unwrap()).unwrap();
                                let (appender, n) = text.split_once(' ').unwrap();
                                let appender: usize = appender.parse().unwrap();
                                assert_eq!(n.parse::<i64>().unwrap(), of_appender[appender], "appender {appender}");
                                of_appender[appender] += 1;
                                placed[appender].push(record.offset.0);
                                expected += 1;
                            }
                        }
                        placed
                    })
                })
                .collect();
            let appended: Vec<Vec<i64>> = appenders.into_iter().map(|thread| thread.join().unwrap()).collect();
            for follower in followers {
                assert_eq!(follower.join().unwrap(), appended, "{}", place.name());
            }
        });
        store.close().unwrap();
    }
}

/// A follower that waits is woken by every way in which there may be more: an append at each durability, a flush for
/// those who read only what is durable, a close. Two thousand times over, in step, so that a lost wake-up, which is a
/// race, has its chance; it would show as the deadline.
#[test]
fn a_waiting_follower_is_woken_by_every_append_flush_and_close() {
    const ROUNDS: i64 = 2000;
    for (place, up_to) in [
        (Place::Memory(edgelog::storage::MemoryStorage::new()), ReadUpTo::HighWatermark),
        (Place::Memory(edgelog::storage::MemoryStorage::new()), ReadUpTo::LogEnd),
        (Place::Memory(edgelog::storage::MemoryStorage::new()), ReadUpTo::Durable),
        (Place::Directory(TempDir::new(), "auto"), ReadUpTo::HighWatermark),
    ] {
        let store = place.open(ticking());
        store.create_topic(&NewTopic::new("t").config("segment.bytes", "65536")).unwrap();
        let log = store.log("t", 0).unwrap();
        let (got, gets) = mpsc::channel();
        std::thread::scope(|scope| {
            let reading = log.clone();
            scope.spawn(move || {
                let options = ReaderOptions::default().up_to(up_to);
                let mut reader = reading.reader_with(OffsetSpec::Earliest, options).unwrap();
                for n in 0..ROUNDS {
                    let batch = next(&mut reader);
                    assert_eq!((batch.base_offset(), batch.last_offset()), (Offset(n), Offset(n)));
                    got.send(n).unwrap();
                }
                // Ends when the log is closed, and only then.
                assert!(reader.follow().next().is_none());
                got.send(ROUNDS).unwrap();
            });
            let mut spins = edgelog_testkit::Random(7);
            for n in 0..ROUNDS {
                for _ in 0..spins.below(200) {
                    std::hint::spin_loop();
                }
                let durability = [Durability::Os, Durability::Interval, Durability::Sync][(n % 3) as usize];
                log.append_with(NewRecord::value(b"x"), durability).unwrap();
                if up_to == ReadUpTo::Durable && durability != Durability::Sync {
                    store.flush().unwrap();
                }
                assert_eq!(gets.recv_timeout(2 * DEADLINE), Ok(n), "{up_to:?}");
            }
            store.close().unwrap();
            assert_eq!(gets.recv_timeout(DEADLINE), Ok(ROUNDS));
        });
    }
}

/// Waiting ends at its timeout with nothing, or with an error if the log was truncated meanwhile.
#[test]
fn a_waiting_follower_learns_of_a_truncation() {
    for place in Place::all() {
        let store = place.open(Store::options());
        store.create_topic(&NewTopic::new("t")).unwrap();
        let log = store.log("t", 0).unwrap();
        for n in 0..10 {
            log.append_with(NewRecord::value(value(0, n).as_bytes()), Durability::Os).unwrap();
        }
        let (at_end, is_at_end) = mpsc::channel();
        std::thread::scope(|scope| {
            let reading = log.clone();
            let follower = scope.spawn(move || {
                let mut reader = reading.reader(OffsetSpec::Earliest).unwrap();
                while reader.next_batch().unwrap().is_some() {}
                assert!(reader.next_batch_timeout(Duration::from_millis(1)).unwrap().is_none());
                at_end.send(()).unwrap();
                reader.next_batch_timeout(DEADLINE)
            });
            is_at_end.recv_timeout(DEADLINE).unwrap();
            log.truncate_to(Offset(5)).unwrap();
            log.append_with(NewRecord::value(value(1, 5).as_bytes()), Durability::Os).unwrap();
            let outcome = follower.join().unwrap();
            assert!(matches!(outcome, Err(Error::FencedLeaderEpoch { .. })), "{}: {outcome:?}", place.name());
        });
    }
}

/// A reader's lines are whole: the pipe that the tests above trust.
#[test]
fn a_child_says_its_lines_whole() {
    if child().is_some() {
        for n in 0..1000 {
            say(&format!("line {n}"));
        }
        return;
    }
    let dir = TempDir::new();
    let child = spawn("a_child_says_its_lines_whole", dir.path(), 0);
    let lines: Vec<String> = child.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(lines, (0..1000).map(|n| format!("line {n}")).collect::<Vec<_>>());
    assert!(child.wait().success());
}
