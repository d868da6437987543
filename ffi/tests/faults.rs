//! No panic, abort or exit reaches the host, no matter what the storage does: every call of it fails once, in each way,
//! while a program of C calls runs; what was acknowledged as durable is there when the store is opened again. A log
//! callback calls the library on each event.

#[path = "support/callback.rs"]
mod callback;

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::mpsc;
use std::time::Duration;

use edgelog::storage::MemoryStorage;
use edgelog::{Offset, Store, StoreOptions};
use edgelog_ffi::*;
use edgelog_testkit::faults::{Fault, FaultyStorage, quiet_injected_panics};

fn options() -> StoreOptions {
    Store::options().set("edgelog.housekeeping", "tick").unwrap().set("segment.bytes", "4096").unwrap()
}

fn record(value: &[u8]) -> edgelog_new_record {
    edgelog_new_record {
        size: size_of::<edgelog_new_record>(),
        key: edgelog_bytes { data: ptr::null(), len: 0 },
        value: edgelog_bytes { data: value.as_ptr(), len: value.len() },
        headers: ptr::null(),
        header_count: 0,
        timestamp_ms: 0,
        has_timestamp: 0,
        reserved: 0,
    }
}

/// What the program saw.
#[derive(Default)]
struct Seen {
    /// Values whose durable append was acknowledged, by offset.
    acknowledged: Vec<(i64, Vec<u8>)>,
    panics: usize,
    errors: usize,
    opened: bool,
}

impl Seen {
    fn note(&mut self, result: edgelog_result) -> bool {
        match result {
            edgelog_result::EDGELOG_OK | edgelog_result::EDGELOG_END => {}
            edgelog_result::EDGELOG_PANIC => self.panics += 1,
            _ => self.errors += 1,
        }
        result == edgelog_result::EDGELOG_OK
    }
}

/// Creates, appends until it has rolled, flushes, reads, deletes, ticks, closes and frees.
fn program(storage: &FaultyStorage, calls_back: bool) -> Seen {
    let mut seen = Seen::default();
    // What `edgelog_store_open` does; the storage is what C cannot choose. A panic there is caught by it as well.
    let opened = catch_unwind(AssertUnwindSafe(|| options().open_on(storage.clone())));
    let Ok(Ok(store)) = opened else { return seen };
    seen.opened = true;
    let store = Box::into_raw(edgelog_store::from_store(store));
    let topic = CString::new("t").unwrap();
    let (mut log, mut reader): (*mut edgelog_log, *mut edgelog_reader) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: handles are made by the calls above each use and freed once, at the end; structs are whole.
    unsafe {
        seen.note(edgelog_store_create_topic(store, topic.as_ptr(), 1, ptr::null(), 0));
        seen.note(edgelog_store_log(store, topic.as_ptr(), 0, &raw mut log));
        if calls_back {
            let logs = if log.is_null() { &[][..] } else { &[log][..] };
            callback::lend(&[store], logs, false);
        }
        for n in 0..12 {
            let value = vec![b'a' + n; 900];
            let mut info = edgelog_append_info {
                size: size_of::<edgelog_append_info>(),
                base_offset: -1,
                last_offset: -1,
                max_timestamp_ms: 0,
                leader_epoch: 0,
                reserved: 0,
            };
            let how = if n % 3 == 2 { EDGELOG_OS } else { EDGELOG_SYNC };
            let record = record(&value);
            let done = seen.note(edgelog_log_append(log, &raw const record, how, &raw mut info));
            assert_eq!(done, info.base_offset >= 0, "outputs are written on success only");
            if done && how == EDGELOG_SYNC {
                seen.acknowledged.push((info.base_offset, value));
            }
            if n == 6 {
                seen.note(edgelog_store_tick(store, 1_700_000_000_000));
            }
        }
        seen.note(edgelog_log_flush(log));
        seen.note(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, ptr::null(), &raw mut reader));
        let mut batch: *mut edgelog_batch = ptr::null_mut();
        while seen.note(edgelog_reader_next(reader, &raw mut batch)) {
            edgelog_batch_free(batch);
        }
        seen.note(edgelog_log_delete_records(log, 2, ptr::null_mut()));
        seen.acknowledged.retain(|(offset, _)| *offset >= 2);
        let closed = edgelog_store_close(store);
        seen.note(closed);
        if seen.panics > 0 && closed != edgelog_result::EDGELOG_OK {
            assert_eq!(closed, edgelog_result::EDGELOG_PANIC, "after a panic, nothing else is answered");
        }
        callback::lend(&[], &[], false);
        edgelog_reader_free(reader);
        edgelog_log_free(log);
        edgelog_store_free(store);
    }
    seen
}

fn check_after(disk: &MemoryStorage, seen: &Seen, what: &str) {
    let store = options().open_on(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    if seen.acknowledged.is_empty() {
        return;
    }
    let log = store.log("t", 0).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (offset, value) in &seen.acknowledged {
        let mut reader =
            log.reader(edgelog::OffsetSpec::Offset(Offset(*offset))).unwrap_or_else(|e| panic!("{what}: {e}"));
        let batch = reader.next_batch().unwrap().unwrap_or_else(|| panic!("{what}: {offset} is lost"));
        let record = batch.records().unwrap().next().unwrap().unwrap();
        assert_eq!((record.offset, record.value), (Offset(*offset), Some(value.as_slice())), "{what}");
    }
}

#[test]
fn no_fault_of_the_storage_reaches_the_host_nor_loses_what_was_acknowledged() {
    quiet_injected_panics();
    let disk = MemoryStorage::new();
    let storage = FaultyStorage::new(disk.clone(), -1, Fault::Io, false);
    let seen = program(&storage, false);
    assert_eq!((seen.panics, seen.errors, seen.acknowledged.len()), (0, 0, 6));
    check_after(&disk, &seen, "no fault");
    let calls = storage.calls();
    assert!(calls > 100, "{calls} calls of the storage");

    let (mut panics, mut errors, mut unopened) = (0, 0, 0);
    for fault in [Fault::Io, Fault::Full, Fault::Panic] {
        for stays in [false, true] {
            for at in 0..calls {
                let disk = MemoryStorage::new();
                let seen = program(&FaultyStorage::new(disk.clone(), at, fault, stays), false);
                if fault != Fault::Panic {
                    assert_eq!(seen.panics, 0, "{fault:?} at call {at}");
                }
                panics += usize::from(seen.panics > 0);
                errors += usize::from(seen.errors > 0);
                unopened += usize::from(!seen.opened);
                check_after(&disk, &seen, &format!("{fault:?} at call {at}, stays: {stays}"));
            }
        }
    }
    // It has to have met what it is about.
    assert!(panics > 100 && errors > 100 && unopened > 3, "{panics} panics, {errors} errors, {unopened} unopened");
}

/// The same with a log callback that calls the library on each event. A call that never returns fails the test.
#[test]
fn a_log_callback_may_call_the_library_while_the_storage_fails() {
    const DEADLINE: Duration = Duration::from_secs(120);
    quiet_injected_panics();
    callback::install();
    let run = |name: String, storage: FaultyStorage, disk: MemoryStorage| {
        let (done, ended) = mpsc::channel();
        let thread = std::thread::spawn(move || done.send(program(&storage, true)).expect("the test waits"));
        match ended.recv_timeout(DEADLINE) {
            Ok(seen) => check_after(&disk, &seen, &name),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name}: a call never returns"),
            Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(thread.join().unwrap_err()),
        }
    };
    let disk = MemoryStorage::new();
    let storage = FaultyStorage::new(disk.clone(), -1, Fault::Io, false);
    run("no fault".to_owned(), storage.clone(), disk);
    let calls = storage.calls();
    assert!(calls > 200 && callback::called() > 3, "{calls} calls of the storage, {} events", callback::called());

    for fault in [Fault::Io, Fault::Full, Fault::Panic] {
        for stays in [false, true] {
            for at in 0..calls {
                let disk = MemoryStorage::new();
                let storage = FaultyStorage::new(disk.clone(), at, fault, stays);
                run(format!("{fault:?} at call {at}, stays: {stays}"), storage, disk);
            }
        }
    }
}

/// The housekeeping thread has no caller to return an error to. If it panics, the store answers CLOSED from then on,
/// threads that wait wake up, and the next open finds what was acknowledged.
#[test]
fn a_panic_of_the_housekeeping_thread_closes_the_store_and_reaches_no_caller() {
    quiet_injected_panics();
    // A roll wakes the thread, which has the sealed segment to flush and the checkpoint to write: these calls and more.
    for at in 0..3 {
        let disk = MemoryStorage::new();
        let storage = FaultyStorage::panics_in_housekeeping(disk.clone(), at);
        let store = Store::options().set("segment.bytes", "4096").unwrap().open_on(storage).unwrap();
        let store = Box::into_raw(edgelog_store::from_store(store));
        let topic = CString::new("t").unwrap();
        let mut seen = Seen { opened: true, ..Seen::default() };
        let (mut log, mut reader): (*mut edgelog_log, *mut edgelog_reader) = (ptr::null_mut(), ptr::null_mut());
        let mut held: *mut edgelog_batch = ptr::null_mut();
        // SAFETY: handles are made by the calls above each use and freed once, at the end; structs are whole.
        unsafe {
            assert!(seen.note(edgelog_store_create_topic(store, topic.as_ptr(), 1, ptr::null(), 0)));
            assert!(seen.note(edgelog_store_log(store, topic.as_ptr(), 0, &raw mut log)));
            assert!(seen.note(edgelog_reader_new(log, EDGELOG_FROM_EARLIEST, 0, ptr::null(), &raw mut reader)));
            let mut closed = false;
            for n in 0..12 {
                let value = vec![b'a' + n; 900];
                let record = record(&value);
                let done = edgelog_log_append(log, &raw const record, EDGELOG_SYNC, ptr::null_mut());
                if done == edgelog_result::EDGELOG_OK {
                    seen.acknowledged.push((i64::from(n), value));
                    assert!(!closed, "at call {at}: an append after the end");
                } else {
                    assert_eq!(done, edgelog_result::EDGELOG_CLOSED, "at call {at}");
                    closed = true;
                }
                if n == 0 {
                    assert!(seen.note(edgelog_reader_next(reader, &raw mut held)));
                }
            }
            let ended = loop {
                let mut batch = ptr::null_mut();
                match edgelog_reader_wait(reader, 60_000, &raw mut batch) {
                    edgelog_result::EDGELOG_OK => edgelog_batch_free(batch),
                    other => break other,
                }
            };
            assert_eq!(ended, edgelog_result::EDGELOG_CLOSED, "at call {at}: a reader that waits wakes up");
            let record = record(b"late");
            let late = edgelog_log_append(log, &raw const record, EDGELOG_OS, ptr::null_mut());
            assert_eq!(late, edgelog_result::EDGELOG_CLOSED, "at call {at}");
            assert_eq!(edgelog_store_tick(store, 0), edgelog_result::EDGELOG_CLOSED, "at call {at}");
            let mut offsets = edgelog_offsets { size: size_of::<edgelog_offsets>(), ..std::mem::zeroed() };
            assert_eq!(edgelog_log_get_offsets(log, &raw mut offsets), edgelog_result::EDGELOG_OK);
            // A batch stays readable, and closing says that it was no clean one; then the directory is free.
            let mut first = edgelog_record { size: size_of::<edgelog_record>(), ..std::mem::zeroed() };
            assert_eq!(edgelog_batch_next(held, &raw mut first), edgelog_result::EDGELOG_OK);
            assert_eq!((first.offset, first.value.len), (0, 900));
            assert_eq!(edgelog_store_close(store), edgelog_result::EDGELOG_CLOSED, "at call {at}");
            check_after(&disk, &seen, &format!("housekeeping panicked at its call {at}"));
            edgelog_batch_free(held);
            edgelog_reader_free(reader);
            edgelog_log_free(log);
            edgelog_store_free(store);
        }
        assert!(seen.acknowledged.len() > 1);
    }
}
