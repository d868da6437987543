//! Every answer that a broker can give in every phase of a transaction, and those that never come: afterwards the
//! cluster has each record once and in order.

use std::cell::Cell;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgelog::bridge::{Bridge, BridgeConfig, BridgeError, BridgeEvent, LogPosition};
use edgelog::{NewRecord, NewTopic, Store};
use edgelog_fake_broker::Front;
use krafka::error::ErrorCode;
use krafka::testing::{ApiKey, Control, FakeBroker};
use tokio::runtime::Runtime;

/// What is asked between the first connection and a commit, in this order, but for ApiVersions.
const PHASES: [ApiKey; 7] = [
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::OffsetFetch,
    ApiKey::InitProducerId,
    ApiKey::Produce,
    ApiKey::TxnOffsetCommit,
    ApiKey::EndTxn,
];
/// An answer that never comes is waited for so long.
const REQUEST_TIMEOUT_MS: &str = "400";
const RECORDS: usize = 40;

thread_local! {
    /// Records that were read back in this test.
    static READ_BACK: Cell<usize> = const { Cell::new(0) };
}

/// A device with a few records, and a FakeBroker behind its front.
struct World {
    broker: FakeBroker,
    front: Front,
    store: std::path::PathBuf,
    values: Vec<String>,
    /// What the broker runs on: dropped behind it.
    _runtime: Runtime,
}

impl World {
    fn new() -> World {
        static WORLDS: AtomicUsize = AtomicUsize::new(0);
        let runtime = Runtime::new().expect("threads");
        let broker = runtime.block_on(FakeBroker::start()).expect("loopback");
        broker.set_transaction_version(2);
        broker.create_topic("t", 1);
        let front = Front::of(broker.broker_addr(0).expect("it listens"));
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let store = std::env::temp_dir().join(format!("edgelog-fake-{}-{number}", std::process::id()));
        let mut world = World { broker, front, store, values: Vec::new(), _runtime: runtime };
        world.append();
        world
    }

    fn append(&mut self) {
        let store = Store::open(&self.store).unwrap();
        if self.values.is_empty() {
            store.create_topic(&NewTopic::new("t")).unwrap();
        }
        let log = store.log("t", 0).unwrap();
        for _ in 0..RECORDS {
            let value = format!("record {}", self.values.len());
            log.append(NewRecord::value(value.as_bytes())).unwrap();
            self.values.push(value);
        }
        store.close().unwrap();
    }

    fn config(&self) -> BridgeConfig {
        let mut config = BridgeConfig::default();
        for (key, value) in [
            ("bootstrap.servers", self.front.address.to_string().as_str()),
            ("edgelog.device.id", "d"),
            ("edgelog.bridge.topics", "*"),
            ("request.timeout.ms", REQUEST_TIMEOUT_MS),
            ("reconnect.backoff.ms", "5"),
            ("reconnect.backoff.max.ms", "20"),
            // Several transactions for what is appended.
            ("edgelog.bridge.transaction.bytes", "1000"),
        ] {
            config.set(key, value).unwrap();
        }
        config
    }

    /// Sends all of it. Returns the events.
    fn send(&self, doing: &str) -> Vec<BridgeEvent> {
        let events = Arc::<Mutex<Vec<BridgeEvent>>>::default();
        let seen = events.clone();
        let mut bridge = Bridge::attach(&self.store, self.config()).unwrap();
        bridge = bridge.observe(move |event| seen.lock().unwrap().push(event.clone()));
        let positions = bridge.run_until_caught_up();
        let events = events.lock().unwrap().clone();
        let positions = positions.unwrap_or_else(|error| panic!("{doing}: {error}\n{events:?}"));
        let is_delivered = |log: &LogPosition| log.is_delivered() && log.waits.is_none();
        assert!(!positions.is_empty() && positions.iter().all(is_delivered), "{doing}: {positions:?}\n{events:?}");
        let found = self.broker.committed_records("t").expect("its own records");
        let found: Vec<_> = found
            .iter()
            .map(|record| String::from_utf8_lossy(record.value.as_deref().expect("a value")).into_owned())
            .collect();
        assert_eq!(found, self.values, "{doing}: {events:?}");
        READ_BACK.set(READ_BACK.get() + found.len());
        assert_eq!(self.broker.committed_offset("edgelog:d:t-0", "t", 0), Some(self.values.len() as i64), "{doing}");
        events
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.store);
    }
}

fn counted(control: Control) -> (Arc<AtomicUsize>, impl Fn(&krafka::testing::RequestInfo) -> Control) {
    let count = Arc::new(AtomicUsize::new(0));
    let fired = count.clone();
    (count, move |_: &krafka::testing::RequestInfo| {
        fired.fetch_add(1, Ordering::Relaxed);
        control.clone()
    })
}

#[test]
fn an_error_in_any_phase_is_followed_by_every_record_once() {
    use ErrorCode::*;
    let cases: [(ApiKey, &[ErrorCode]); 7] = [
        (ApiKey::Metadata, &[LeaderNotAvailable]),
        (ApiKey::FindCoordinator, &[CoordinatorNotAvailable]),
        (ApiKey::OffsetFetch, &[CoordinatorLoadInProgress, NotCoordinator, UnstableOffsetCommit]),
        (
            ApiKey::InitProducerId,
            &[CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator, ConcurrentTransactions],
        ),
        (
            ApiKey::Produce,
            &[
                LeaderNotAvailable,
                NotLeaderForPartition,
                RequestTimedOut,
                NotEnoughReplicas,
                NotEnoughReplicasAfterAppend,
                UnknownTopicOrPartition,
                ConcurrentTransactions,
            ],
        ),
        (ApiKey::TxnOffsetCommit, &[CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator]),
        (ApiKey::EndTxn, &[CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator, ConcurrentTransactions]),
    ];
    let mut injected = 0;
    for (key, codes) in cases {
        let mut world = World::new();
        for code in codes {
            let mut controls = vec![Control::Error(*code)];
            // A broker says these also of what it has carried out.
            if matches!(code, RequestTimedOut | NotEnoughReplicasAfterAppend) {
                controls.push(Control::ApplyThen(Box::new(Control::Error(*code))));
            }
            for control in controls {
                let doing = format!("{key:?}: {control:?}");
                let (count, hook) = counted(control);
                world.broker.on_times(key, 2, hook);
                world.append();
                world.send(&doing);
                assert_eq!(count.load(Ordering::Relaxed), 2, "{doing}");
                injected += 2;
            }
        }
    }
    println!("in all: {injected} faults injected, {} records read back and compared", READ_BACK.get());
}

/// The transaction of the session before is completed within milliseconds. A line is worth only one that is not.
#[test]
fn a_transaction_that_is_being_completed_is_waited_for_without_a_word_until_it_lasts() {
    let mut world = World::new();
    let retries = |events: &[BridgeEvent]| {
        events.iter().filter(|event| matches!(event, BridgeEvent::Retrying { .. })).cloned().collect::<Vec<_>>()
    };
    let mut injected = 0;
    for key in [ApiKey::InitProducerId, ApiKey::Produce, ApiKey::EndTxn] {
        let (count, hook) = counted(Control::Error(ErrorCode::ConcurrentTransactions));
        world.broker.on_times(key, 3, hook);
        world.append();
        let events = world.send(&format!("{key:?}"));
        assert_eq!((count.load(Ordering::Relaxed), retries(&events).len()), (3, 0), "{key:?}: {events:?}");
        injected += 3;
    }
    // As long as a request is waited for: 400 ms.
    let began = std::time::Instant::now();
    world.broker.on(ApiKey::InitProducerId, move |_| match began.elapsed() < Duration::from_secs(2) {
        true => Control::Error(ErrorCode::ConcurrentTransactions),
        false => Control::Pass,
    });
    world.append();
    let events = world.send("one that lasts");
    let said = retries(&events);
    assert!(!said.is_empty() && format!("{said:?}").contains("51 ConcurrentTransactions"), "{events:?}");
    println!("in all: {injected} faults injected, {} records read back and compared", READ_BACK.get());
}

#[test]
fn an_answer_that_never_comes_or_ends_midway_is_asked_for_again() {
    let controls = [
        Control::Disconnect,
        Control::Silence,
        Control::ApplyThen(Box::new(Control::Disconnect)),
        Control::ApplyThen(Box::new(Control::Silence)),
    ];
    let mut injected = 0;
    for key in PHASES {
        let mut world = World::new();
        for control in &controls {
            let (count, hook) = counted(control.clone());
            world.broker.on_once(key, hook);
            world.append();
            world.send(&format!("{key:?}: {control:?}"));
            assert_eq!(count.load(Ordering::Relaxed), 1, "{key:?} {control:?}");
        }
        world.front.halve(key.to_i16());
        world.append();
        world.send(&format!("half an answer to {key:?}"));
        assert_eq!(world.front.done(), 1, "{key:?}");
        injected += controls.len() + 1;
    }
    println!("in all: {injected} faults injected, {} records read back and compared", READ_BACK.get());
}

#[test]
fn an_error_that_ends_the_bridge_leaves_no_transaction_open() {
    let world = World::new();
    // The records have arrived, and with them the transaction is open; nothing makes this answer a better one.
    let (count, hook) = counted(Control::ApplyThen(Box::new(Control::Error(ErrorCode::InvalidRequest))));
    world.broker.on_once(ApiKey::Produce, hook);
    match Bridge::attach(&world.store, world.config()).unwrap().run_until_caught_up() {
        Err(error @ BridgeError::Broker { .. }) => assert!(error.to_string().contains("42 InvalidRequest"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    // A reader of what is committed is held back by nothing: it was aborted, and did not time out.
    assert!(!world.broker.transaction_is_open("edgelog:d"));
    assert_eq!(world.broker.request_count(ApiKey::EndTxn), 1);
    assert_eq!(world.broker.aborted_transactions("t", 0).len(), 1);
    assert_eq!(world.broker.committed_offset("edgelog:d:t-0", "t", 0), None);
    world.send("behind an error that ended the bridge");
    println!("in all: 1 faults injected, {} records read back and compared", READ_BACK.get());
}

#[test]
fn a_position_that_stays_open_lets_its_log_wait_and_ends_nothing() {
    let world = World::new();
    let (is_open, count) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (open, asked) = (is_open.clone(), count.clone());
    world.broker.on(ApiKey::OffsetFetch, move |_| {
        if !open.load(Ordering::Relaxed) {
            return Control::Pass;
        }
        asked.fetch_add(1, Ordering::Relaxed);
        Control::Error(ErrorCode::UnstableOffsetCommit)
    });
    let positions = Bridge::attach(&world.store, world.config()).unwrap().run_until_caught_up().unwrap();
    let [LogPosition { log, committed_offset: None, lag: None, held, waits: Some(reason), .. }] = &positions[..] else {
        panic!("{positions:?}")
    };
    let reason = reason.to_string();
    assert_eq!((log.to_string().as_str(), *held), ("t-0", Some(RECORDS as u64)));
    assert!(reason.contains("edgelog:d:t-0") && reason.contains("request.timeout.ms=400"), "{reason}");
    let asked = count.load(Ordering::Relaxed);
    assert!(asked >= 2, "asked {asked} times");
    is_open.store(false, Ordering::Relaxed);
    world.send("behind a position that was open for long");
    println!("in all: {asked} faults injected, {} records read back and compared", READ_BACK.get());
}

#[test]
fn an_answer_that_claims_more_than_it_holds_costs_a_connection_and_no_memory() {
    // Where the first array of each answer has its length: more elements than there is memory for.
    let cases: [(i16, &[u8]); 6] =
        [(18, &[0, 0]), (3, &[0, 0, 0, 0]), (10, &[0, 0, 0, 0]), (9, &[0, 0, 0, 0]), (0, &[]), (28, &[0, 0, 0, 0])];
    let mut world = World::new();
    for (n, (key, before)) in cases.into_iter().enumerate() {
        let forged = [before, &[0xFF, 0xFF, 0xFF, 0xFF, 0x0F], &[0; 64]].concat();
        world.front.forge(key, &forged);
        world.append();
        let events = world.send(&format!("a forged answer to request {key}"));
        assert_eq!(world.front.done(), n + 1, "request {key}");
        let is_reported = events.iter().any(|event| format!("{event:?}").contains("should follow where"));
        assert!(is_reported, "request {key}: {events:?}");
    }
    let forged = world.front.done();
    println!("in all: {forged} faults injected, {} records read back and compared", READ_BACK.get());
}

#[test]
fn a_throttled_producer_waits_as_long_as_the_broker_says() {
    let world = World::new();
    world.broker.set_throttle(ApiKey::Produce, Duration::from_millis(150));
    let began = std::time::Instant::now();
    world.send("throttled");
    // Five are under way together, and those behind them wait.
    let rounds = (world.broker.request_count(ApiKey::Produce) as u32).div_ceil(5);
    assert!(rounds >= 2 && began.elapsed() >= Duration::from_millis(150) * (rounds - 1), "{rounds} rounds");
}

#[test]
fn a_broker_that_lacks_what_is_needed_is_reported() {
    let run = |world: &World| match Bridge::attach(&world.store, world.config()).unwrap().run_until_caught_up() {
        Err(BridgeError::Unsupported(words)) => words,
        other => panic!("{other:?}"),
    };
    let world = World::new();
    world.broker.set_api_versions(ApiKey::EndTxn, 3, 4);
    assert!(run(&world).contains("request 26"));
    let world = World::new();
    world.broker.set_transaction_version(1);
    assert!(run(&world).contains("upgrade --feature transaction.version=2"));
    let world = World::new();
    world.broker.on(ApiKey::ApiVersions, |_| Control::Error(ErrorCode::UnsupportedVersion));
    assert!(run(&world).contains("older than Kafka 2.7"));
    // No listener: a port that was free a moment ago.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = world.config();
    config.set("bootstrap.servers", &gone.to_string()).unwrap();
    let bridge = Bridge::attach(&world.store, config).unwrap();
    let stop = bridge.stop_handle();
    let mut bridge = bridge.observe(move |event| {
        if matches!(event, BridgeEvent::Retrying { .. }) {
            stop.stop();
        }
    });
    assert!(bridge.run().is_ok());
}
