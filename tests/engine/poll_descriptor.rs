//! A reader's descriptor is readable while there is something to read, and not before: no wake-up is lost, and none is
//! made up.

use std::os::fd::AsFd;
use std::thread;

use edgelog::{Durability, Error, Log, NewRecord, NewTopic, OffsetSpec, ReadUpTo, Reader, ReaderOptions, Store};
use edgelog_testkit::TempDir;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What takes longer than this hangs.
const DEADLINE_S: i64 = 60;

fn wait(reader: &mut Reader, seconds: i64) -> bool {
    let descriptor = reader.poll_descriptor().unwrap();
    let mut polled = [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 })).unwrap() == 1
}

fn is_readable(reader: &mut Reader) -> bool {
    wait(reader, 0)
}

fn store_with_log(dir: &TempDir) -> (Store, Log) {
    let store = Store::open(dir.path()).unwrap();
    store.create_topic(&NewTopic::new("t")).unwrap();
    let log = store.log("t", 0).unwrap();
    (store, log)
}

fn append(log: &Log, durability: Durability) {
    log.append_with(NewRecord::value(b"value"), durability).unwrap();
}

#[test]
fn it_is_readable_until_the_reader_has_found_nothing() {
    let dir = TempDir::new();
    let (store, log) = store_with_log(&dir);
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    assert!(is_readable(&mut reader), "the reader has not looked yet");
    assert!(reader.next_batch().unwrap().is_none());
    assert!(!is_readable(&mut reader));
    append(&log, Durability::Os);
    append(&log, Durability::Sync);
    for _ in 0..2 {
        assert!(is_readable(&mut reader));
        assert!(reader.next_batch().unwrap().is_some());
    }
    assert!(reader.next_batch().unwrap().is_none());
    assert!(!is_readable(&mut reader));
    store.close().unwrap();
    assert!(is_readable(&mut reader), "who polls finds out that the log is closed");
    assert!(matches!(reader.next_batch(), Err(Error::Closed)));
}

#[test]
fn a_reader_of_what_is_durable_is_woken_by_the_flush() {
    let dir = TempDir::new();
    let (_store, log) = store_with_log(&dir);
    let options = ReaderOptions::default().up_to(ReadUpTo::Durable);
    let mut reader = log.reader_with(OffsetSpec::Earliest, options).unwrap();
    assert!(is_readable(&mut reader));
    assert!(reader.next_batch().unwrap().is_none());
    append(&log, Durability::Os);
    assert!(!is_readable(&mut reader));
    log.flush().unwrap();
    assert!(is_readable(&mut reader));
    assert!(reader.next_batch().unwrap().is_some());
}

#[test]
fn no_record_of_many_appenders_is_missed() {
    const APPENDERS: usize = 3;
    const RECORDS: usize = 2000;
    let dir = TempDir::new();
    let (_store, log) = store_with_log(&dir);
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    thread::scope(|scope| {
        for _ in 0..APPENDERS {
            scope.spawn(|| (0..RECORDS).for_each(|_| append(&log, Durability::Os)));
        }
        let mut seen = 0;
        while seen < APPENDERS * RECORDS {
            assert!(wait(&mut reader, DEADLINE_S), "a wake-up was lost after {seen} records");
            while let Some(batch) = reader.next_batch().unwrap() {
                seen += batch.records().unwrap().count();
            }
        }
    });
}

#[test]
fn an_attached_reader_looks_again_by_itself() {
    let dir = TempDir::new();
    let (_store, log) = store_with_log(&dir);
    let attached = Store::attach(dir.path()).unwrap();
    let mut reader = attached.log("t", 0).unwrap().reader(OffsetSpec::Earliest).unwrap();
    for _ in 0..3 {
        assert!(wait(&mut reader, DEADLINE_S));
        while reader.next_batch().unwrap().is_some() {}
        append(&log, Durability::Os);
        let mut batch = None;
        while batch.is_none() {
            assert!(wait(&mut reader, DEADLINE_S));
            batch = reader.next_batch().unwrap();
        }
    }
}
