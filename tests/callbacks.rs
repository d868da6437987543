//! A `tracing` subscriber is the host's code: on each event it may call the store that the event is about, and the call
//! returns. The subscriber here makes every call that there is on each event, at every level.
//!
//! A call that hangs fails the test that made it, by name and with the event: each runs on a thread of its own, which
//! is waited for with a deadline.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak, mpsc};
use std::time::Duration;

use edgelog::clock::ManualClock;
use edgelog::storage::MemoryStorage;
use edgelog::{Durability, Error, Log, NewRecord, NewTopic, Offset, OffsetSpec, Store, StoreOptions, TimestampMs};
use edgelog_testkit::faults::{Fault, FaultyStorage, quiet_injected_panics};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

/// A call that has not returned by then never will: in memory, each takes microseconds.
const DEADLINE: Duration = Duration::from_secs(60);
const NOW: i64 = 1_700_000_000_000;

/// What the subscriber does on an event.
type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// One scenario at a time: the subscriber is the process's.
static SCENARIO: Mutex<()> = Mutex::new(());
static HOOK: Mutex<Option<Hook>> = Mutex::new(None);
/// Messages seen in the scenario, and the one whose calls are being made.
static SEEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static WITHIN: Mutex<String> = Mutex::new(String::new());

thread_local! {
    /// The hook is running on this thread: what its own calls cause is noted and not answered with more calls.
    static CALLING: Cell<bool> = const { Cell::new(false) };
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct CallsBack;

impl Subscriber for CallsBack {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("edgelog")
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        // A recovery report goes on with what was found.
        let words = message.0.split(':').next().unwrap_or_default();
        let text = format!("{} {words}", event.metadata().level());
        locked(&SEEN).insert(text.clone());
        let hook = locked(&HOOK).clone();
        let Some(hook) = hook else { return };
        if !CALLING.replace(true) {
            locked(&WITHIN).clone_from(&text);
            hook(&text);
            locked(&WITHIN).clear();
            CALLING.set(false);
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Runs `scenario` on a thread of its own and returns the messages of its events.
fn run(name: &str, scenario: impl FnOnce() + Send + 'static) -> BTreeSet<String> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing::subscriber::set_global_default(CallsBack).unwrap());
    let _alone = locked(&SCENARIO);
    locked(&SEEN).clear();
    let (done, returned) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        scenario();
        let _ = done.send(());
    });
    let returned = returned.recv_timeout(DEADLINE);
    *locked(&HOOK) = None;
    let hangs = returned == Err(mpsc::RecvTimeoutError::Timeout);
    assert!(!hangs, "{name}: a call out of the event {:?} never returns", locked(&WITHIN));
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
    std::mem::take(&mut *locked(&SEEN))
}

fn on_events(hook: impl Fn(&str) + Send + Sync + 'static) {
    *locked(&HOOK) = Some(Arc::new(hook));
}

/// Makes every call of `store` and of the log of "t", and ignores what each returns.
fn call_everything(store: &Store) {
    static TOPICS: AtomicUsize = AtomicUsize::new(0);
    let _ = (store.topics(), store.recovery_report(), store.config(), store.topic("t"));
    let name = format!("u-{}", TOPICS.fetch_add(1, Ordering::Relaxed));
    let _ = store.create_topic(&NewTopic::new(&name).partitions(2));
    let _ = store.delete_topic(&name);
    let _ = store.alter_topic("t", &[("max.message.bytes", Some("4000"))]);
    if let Ok(log) = store.log("t", 0) {
        call_log(&log);
    }
    let _ = (store.flush(), store.tick(TimestampMs(NOW)), store.topics());
}

fn call_log(log: &Log) {
    let _ = (log.offsets(), log.leader_epoch(), log.leader_epochs(), log.config(), log.failure(), log.size());
    let mut batch = log.batch();
    batch.push(NewRecord::value(&[7; 700])).unwrap();
    let _ = log.append_batch(&mut batch);
    for durability in [Durability::Os, Durability::Interval, Durability::Sync] {
        let _ = log.append_with(NewRecord::value(&[1; 300]), durability);
    }
    if let Ok(mut reader) = log.reader(OffsetSpec::Last(2)) {
        while let Ok(Some(batch)) = reader.next_batch() {
            let _ = log.append_encoded(batch.bytes(), Durability::Os);
            if reader.position().offset > log.offsets().log_start_offset + 4 {
                break;
            }
        }
        let _ = (reader.skip_damage(), reader.next_batch_timeout(Duration::ZERO));
    }
    let _ = (log.offset_for_time(TimestampMs(NOW)), log.held_from(), log.flush(), log.flush_up_to(Offset(i64::MAX)));
    let offsets = log.offsets();
    let _ = log.delete_records_before(offsets.log_start_offset + 1);
    let _ = log.truncate_to(offsets.log_end_offset - 1);
    let _ = log.append(NewRecord::value(b"after all"));
}

fn call_everything_on_events(store: &Arc<Store>) {
    let store: Weak<Store> = Arc::downgrade(store);
    on_events(move |_| {
        if let Some(store) = store.upgrade() {
            call_everything(&store);
        }
    });
}

fn options() -> StoreOptions {
    Store::options()
        .set("edgelog.housekeeping", "tick")
        .unwrap()
        .set("segment.bytes", "4096")
        .unwrap()
        .set("log.retention.check.interval.ms", "1")
        .unwrap()
        .clock(ManualClock::new(TimestampMs(NOW)))
}

/// A store on a storage without faults, with the topic "t", and the calls made on each of its events.
fn store() -> (FaultyStorage, Arc<Store>, Log) {
    let storage = FaultyStorage::new(MemoryStorage::new(), -1, Fault::Io, false);
    let store = Arc::new(options().open_on(storage.clone()).unwrap());
    store.create_topic(&NewTopic::new("t")).unwrap();
    let log = store.log("t", 0).unwrap();
    log.append(NewRecord::value(b"first")).unwrap();
    call_everything_on_events(&store);
    (storage, store, log)
}

fn assert_seen(seen: &BTreeSet<String>, messages: &[&str]) {
    for message in messages {
        assert!(seen.iter().any(|text| text.contains(message)), "{message:?} is not among {seen:#?}");
    }
}

#[test]
fn an_append_whose_flush_fails_calls_back() {
    let seen = run("an append whose flush fails", || {
        let (storage, store, log) = store();
        storage.fail_flushes(true);
        assert!(matches!(log.append(NewRecord::value(b"lost")), Err(Error::LogFailed { .. })));
        assert!(matches!(log.append(NewRecord::value(b"later")), Err(Error::PreviousIo { .. })));
        drop(store);
    });
    assert_seen(&seen, &["ERROR the log is read-only"]);
}

#[test]
fn an_append_whose_write_fails_calls_back() {
    for durability in [Durability::Os, Durability::Sync] {
        let seen = run("an append whose write fails", move || {
            let (storage, _store, log) = store();
            storage.fail_writes(true);
            assert!(matches!(log.append_with(NewRecord::value(b"lost"), durability), Err(Error::Storage { .. })));
        });
        assert_seen(&seen, &["ERROR the log is read-only"]);
    }
}

#[test]
fn a_flush_that_fails_calls_back() {
    type Call = fn(&Store, &Log) -> bool;
    let calls: [(&str, Call); 4] = [
        ("flush", |_, log| log.flush().is_err()),
        ("flush of the store", |store, _| store.flush().is_err()),
        ("truncation", |_, log| log.truncate_to(Offset(1)).is_err()),
        ("deletion of records", |_, log| log.delete_records_before(Offset(2)).is_err()),
    ];
    for (name, call) in calls {
        let seen = run(&format!("a {name} whose flush fails"), move || {
            let (storage, store, log) = store();
            for _ in 0..2 {
                log.append_with(NewRecord::value(b"in the cache"), Durability::Os).unwrap();
            }
            storage.fail_flushes(true);
            assert!(call(&store, &log), "{name}");
        });
        assert_seen(&seen, &["ERROR the log is read-only"]);
    }
}

/// The records of the callbacks are in the log, too, and the host's own appends go on behind them.
#[test]
fn a_roll_a_truncation_and_a_deletion_call_back() {
    let seen = run("a roll, a truncation and a deletion", || {
        let (_, _store, log) = store();
        for n in 0..30_u8 {
            let before = log.offsets().log_end_offset;
            let info = log.append_with(NewRecord::value(&[n; 900]), Durability::Os).unwrap();
            assert!(info.base_offset >= before && info.base_offset < log.offsets().log_end_offset);
        }
        let end = log.offsets().log_end_offset;
        log.truncate_to(end - 2).unwrap();
        log.delete_records_before(end - 8).unwrap();
        log.flush().unwrap();
    });
    assert_seen(&seen, &["DEBUG rolled", "INFO truncated", "INFO deleted a segment"]);
}

#[test]
fn a_tick_that_deletes_or_fails_calls_back() {
    let seen = run("a tick that deletes", || {
        let (storage, store, log) = store();
        store.alter_topic("t", &[("retention.bytes", Some("5000"))]).unwrap();
        for n in 0..12 {
            log.append_with(NewRecord::value(&[n; 900]), Durability::Os).unwrap();
        }
        log.flush().unwrap();
        store.tick(TimestampMs(NOW + 1000)).unwrap();
        log.append_with(NewRecord::value(&[0; 100]), Durability::Interval).unwrap();
        storage.fail_flushes(true);
        store.tick(TimestampMs(NOW + 1_000_000)).unwrap_err();
    });
    assert_seen(&seen, &["INFO deleted a segment", "ERROR the log is read-only"]);
}

/// Closing the store out of an event of its own housekeeping thread ends that thread when the call has returned.
#[test]
fn the_housekeeping_thread_calls_back_and_may_close_its_store() {
    let seen = run("housekeeping that fails", || {
        let storage = FaultyStorage::new(MemoryStorage::new(), -1, Fault::Io, false);
        let store = Arc::new(Store::options().set("flush.ms", "4").unwrap().open_on(storage.clone()).unwrap());
        store.create_topic(&NewTopic::new("t").config("flush.messages", "1000")).unwrap();
        let log = store.log("t", 0).unwrap();
        let (closed, is_closed) = mpsc::channel();
        let closed = Mutex::new(closed);
        let weak = Arc::downgrade(&store);
        on_events(move |_| {
            let own = std::thread::current().name() == Some("edgelog");
            if let (true, Some(store)) = (own, weak.upgrade()) {
                call_everything(&store);
                let _ = locked(&closed).send(store.close().is_ok());
            }
        });
        storage.fail_flushes(true);
        log.append_with(NewRecord::value(b"soon"), Durability::Interval).unwrap();
        assert!(!is_closed.recv().unwrap(), "a log has failed");
        assert!(matches!(log.append(NewRecord::value(b"late")), Err(Error::PreviousIo { .. } | Error::Closed)));
        drop(store);
    });
    assert_seen(&seen, &["ERROR the log is read-only"]);
}

#[test]
fn a_panic_of_the_housekeeping_thread_calls_back() {
    quiet_injected_panics();
    let seen = run("housekeeping that panics", || {
        let storage = FaultyStorage::panics_in_housekeeping(MemoryStorage::new(), 0);
        let store = Arc::new(Store::options().set("segment.bytes", "4096").unwrap().open_on(storage).unwrap());
        store.create_topic(&NewTopic::new("t")).unwrap();
        let log = store.log("t", 0).unwrap();
        let (met, is_met) = mpsc::channel();
        let met = Mutex::new(met);
        let weak = Arc::downgrade(&store);
        on_events(move |text| {
            if let (true, Some(store)) = (text.contains("panicked"), weak.upgrade()) {
                call_everything(&store);
                let answer = store.log("t", 0).map(|_| ());
                let _ = locked(&met).send(matches!(answer, Err(Error::Closed)));
            }
        });
        for n in 0..8 {
            let _ = log.append_with(NewRecord::value(&[n; 900]), Durability::Os);
        }
        assert!(is_met.recv().unwrap(), "the state is set before the event");
        assert!(matches!(store.close(), Err(Error::Closed)));
    });
    assert_seen(&seen, &["ERROR the housekeeping thread panicked"]);
}

/// Opens, creates, appends over rolls, ticks, flushes, deletes, truncates, reads and closes.
fn program(storage: &FaultyStorage, closes: bool) {
    let Ok(store) = options().open_on(storage.clone()) else { return };
    let store = Arc::new(store);
    call_everything_on_events(&store);
    let topic = NewTopic::new("t").config("retention.bytes", "8000");
    let _ = store.create_topic(&topic);
    if let Ok(log) = store.log("t", 0) {
        for n in 0..14_i64 {
            let how = [Durability::Sync, Durability::Os, Durability::Interval][n as usize % 3];
            let _ = log.append_with(NewRecord::value(&[n as u8; 900]).with_timestamp(TimestampMs(NOW + n)), how);
            if n % 6 == 5 {
                let _ = store.tick(TimestampMs(NOW + 10_000 * n));
            }
        }
        let _ = log.truncate_to(log.offsets().log_end_offset - 1);
        let _ = log.delete_records_before(log.offsets().log_start_offset + 3);
        let mut reader = log.reader(OffsetSpec::Earliest).ok();
        while let Some(Ok(Some(_))) = reader.as_mut().map(edgelog::Reader::next_batch) {}
        let _ = log.flush();
    }
    let _ = store.tick(TimestampMs(NOW + 1_000_000));
    if closes {
        let _ = store.close();
    }
}

/// Every call of the storage fails once, in each way, with the calls made on every event that this brings about; what
/// is left on the disk opens, with the calls made on the events of that.
#[test]
fn every_event_may_call_back_no_matter_what_fails() {
    let mut seen = BTreeSet::new();
    let all = FaultyStorage::new(MemoryStorage::new(), -1, Fault::Io, false);
    let counted = all.clone();
    seen.extend(run("no fault", move || program(&counted, true)));
    let calls = all.calls();
    assert!(calls > 200, "{calls} calls of the storage");
    // On an emulated machine, some of the calls.
    let every = std::env::var("EDGELOG_TEST_CALLBACKS_EVERY").map_or(1, |text| text.parse().expect("a number"));
    for fault in [Fault::Io, Fault::Full] {
        for stays in [false, true] {
            for at in (0..calls.min(2000)).step_by(every) {
                let name = format!("{fault:?} at call {at}, stays: {stays}");
                seen.extend(run(&name, move || {
                    let disk = MemoryStorage::new();
                    program(&FaultyStorage::new(disk.clone(), at, fault, stays), at % 2 == 0);
                    program(&FaultyStorage::new(disk, -1, fault, false), true);
                }));
            }
        }
    }
    if every > 1 {
        return;
    }
    let messages = [
        "ERROR the log is read-only",
        "WARN the segment made ready could not be used",
        "WARN the store could not be closed cleanly",
        "WARN cut a tail",
        "INFO truncated",
        "INFO deleted a segment",
        "DEBUG rolled",
        "DEBUG attached processes cannot flush what this one writes",
        "DEBUG indexes were not written",
        "DEBUG a derived file was not written",
    ];
    assert_seen(&seen, &messages);
}
