//! What a bridge says of logs that are not what they were, of records that are refused, and of clusters that do not
//! know what they knew: held to a FakeBroker.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use edgelog::bridge::{Bridge, BridgeConfig, BridgeError, BridgeEvent, MetricsHandle, PauseReason, StopHandle};
use edgelog::storage::MemoryStorage;
use edgelog::{Durability, NewRecord, NewTopic, Offset, Store, TimestampMs};
use edgelog_fake_broker::Front;
use edgelog_testkit::faults::{Fault, FaultyStorage};
use edgelog_testkit::{run_again, say};
use krafka::testing::FakeBroker;
use tokio::runtime::Runtime;

const DEAD: &str = "edgelog.dead.letters";
/// Reached only where something hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A cluster, which has the topics for what is sent and for dead letters.
struct Cluster {
    broker: FakeBroker,
    front: Front,
    /// What the broker runs on: dropped behind it.
    _runtime: Runtime,
}

impl Cluster {
    fn new(topics: &[&str]) -> Cluster {
        let runtime = Runtime::new().expect("threads");
        let broker = runtime.block_on(FakeBroker::start()).expect("loopback");
        broker.set_transaction_version(2);
        for topic in topics {
            broker.create_topic(topic, 1);
        }
        let front = Front::of(broker.broker_addr(0).expect("it listens"));
        Cluster { broker, front, _runtime: runtime }
    }

    fn config(&self, more: &[(&str, &str)]) -> BridgeConfig {
        let mut config = BridgeConfig::default();
        let address = self.front.address.to_string();
        let keys = [
            ("bootstrap.servers", address.as_str()),
            ("edgelog.device.id", "d"),
            ("edgelog.bridge.topics", "*"),
            ("edgelog.bridge.interval.ms", "20"),
            ("request.timeout.ms", "2000"),
            ("reconnect.backoff.ms", "5"),
            ("reconnect.backoff.max.ms", "20"),
        ];
        for (key, value) in keys.iter().chain(more) {
            config.set(key, value).unwrap();
        }
        config
    }

    /// The values that a reader of what is committed finds.
    fn values(&self, topic: &str) -> Vec<String> {
        let found = self.broker.committed_records(topic).expect("its own records");
        let value = |value: Option<&[u8]>| String::from_utf8_lossy(value.expect("a value")).into_owned();
        found.iter().map(|record| value(record.value.as_deref())).collect()
    }
}

/// A device's store.
struct Device(PathBuf);

impl Device {
    fn new() -> Device {
        static DEVICES: AtomicUsize = AtomicUsize::new(0);
        let name = format!("edgelog-fake-logs-{}-{}", std::process::id(), DEVICES.fetch_add(1, Ordering::Relaxed));
        Device(std::env::temp_dir().join(name))
    }

    /// Appends records to the topic `t`, those with a key where `has_key` says so.
    fn append(&self, values: &[String], has_key: impl Fn(usize) -> bool) {
        let store = Store::open(&self.0).unwrap();
        store.create_topic_if_absent(&NewTopic::new("t")).unwrap();
        let log = store.log("t", 0).unwrap();
        for (n, value) in values.iter().enumerate() {
            let record = NewRecord::value(value.as_bytes());
            log.append(if has_key(n) { record.with_key(b"key") } else { record }).unwrap();
        }
        store.close().unwrap();
    }

    /// Sends all of it; returns what happened.
    fn send(&self, config: BridgeConfig) -> (Vec<edgelog::bridge::LogPosition>, Vec<BridgeEvent>) {
        let events = Arc::<Mutex<Vec<BridgeEvent>>>::default();
        let heard = events.clone();
        let mut bridge = Bridge::attach(&self.0, config).unwrap();
        bridge = bridge.observe(move |event| heard.lock().unwrap().push(event.clone()));
        let positions = bridge.run_until_caught_up().unwrap();
        let events = events.lock().unwrap().clone();
        (positions, events)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn values(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix} {n}")).collect()
}

/// A bridge that runs on a thread of its own.
struct Running {
    events: Receiver<BridgeEvent>,
    metrics: MetricsHandle,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), BridgeError>>>,
}

impl Running {
    fn new(device: &Device, config: BridgeConfig) -> Running {
        let (heard, events) = channel();
        let mut bridge =
            Bridge::attach(&device.0, config).unwrap().observe(move |event| drop(heard.send(event.clone())));
        let (metrics, stop) = (bridge.metrics(), bridge.stop_handle());
        let run = move || bridge.run().inspect_err(|error| println!("the bridge ended: {error}"));
        Running { events, metrics, stop, thread: Some(std::thread::spawn(run)) }
    }

    /// The events up to one for which this holds.
    fn until(&self, what: &str, is_it: impl Fn(&BridgeEvent) -> bool) -> Vec<BridgeEvent> {
        let mut before = Vec::new();
        loop {
            let event = self.events.recv_timeout(DEADLINE);
            before.push(event.unwrap_or_else(|error| panic!("{what}: {error} behind {before:?}")));
            if before.last().is_some_and(&is_it) {
                return before;
            }
        }
    }

    fn until_caught_up(&self) {
        self.until("caught up", |event| matches!(event, BridgeEvent::CaughtUp));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        let ended = self.thread.take().expect("it is joined once").join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

#[test]
fn a_refused_record_costs_one_aborted_transaction_where_the_target_names_it_and_none_where_it_is_foreseen() {
    // How the refusal is known, and how many transactions may be aborted for 64 of 500 records.
    for (how, aborted_max) in [("foreseen", 0), ("named", 1), ("searched", 64 * 9)] {
        let (cluster, device) = (Cluster::new(&["t", DEAD]), Device::new());
        let sent = values("record", 500);
        let has_key = |n: usize| n % 8 != 3 || n >= 512;
        device.append(&sent, has_key);
        cluster.front.refuse_without_key("t", how == "named");
        if how == "foreseen" {
            cluster.front.set_rule("t", "cleanup.policy", "compact,delete");
        }
        let (positions, events) = device.send(cluster.config(&[]));
        assert!(positions.iter().all(|log| log.is_delivered() && log.waits.is_none()), "{how}: {positions:?}");
        let kept = |wanted: bool| {
            let kept = sent.iter().enumerate().filter(move |(n, _)| has_key(*n) == wanted);
            kept.map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(cluster.values("t"), kept(true), "{how}");
        assert_eq!(cluster.values(DEAD), kept(false), "{how}");
        let count = |is_it: fn(&BridgeEvent) -> bool| events.iter().filter(|event| is_it(event)).count();
        let aborted = count(|event| matches!(event, BridgeEvent::Aborted { .. }));
        let committed = count(|event| matches!(event, BridgeEvent::Committed { .. }));
        println!("{how}: {aborted} aborted, {committed} committed, for {} of 500 records", kept(false).len());
        assert!(aborted <= aborted_max, "{how}: {aborted} transactions were aborted");
        assert_eq!(cluster.front.done() > 0, how != "foreseen", "{how}");
        if how != "searched" {
            assert_eq!(committed, 1, "{how}");
        }
    }
}

#[test]
fn a_record_beyond_the_target_s_limit_is_a_dead_letter_and_aborts_nothing() {
    let (cluster, device) = (Cluster::new(&["t", DEAD]), Device::new());
    cluster.front.set_rule("t", "max.message.bytes", "3000");
    let mut sent = values("record", 20);
    sent[7] = "x".repeat(5000);
    device.append(&sent, |_| true);
    let (positions, events) = device.send(cluster.config(&[]));
    assert!(positions[0].is_delivered(), "{positions:?}");
    assert_eq!(cluster.values(DEAD), [sent.remove(7)]);
    assert_eq!(cluster.values("t"), sent);
    assert!(!events.iter().any(|event| matches!(event, BridgeEvent::Aborted { .. })), "{events:?}");
    // Where the log is to wait instead, its position says so, and no event says that all is there.
    let other = Device::new();
    other.append(&["y".repeat(5000)], |_| true);
    let config = cluster.config(&[("edgelog.bridge.on.refused", "stop"), ("edgelog.device.id", "e")]);
    let (positions, events) = other.send(config);
    assert_eq!((positions[0].lag, positions[0].waits.is_some()), (Some(1), true), "{positions:?}");
    assert!(!events.iter().any(|event| matches!(event, BridgeEvent::CaughtUp)), "{events:?}");
}

#[test]
fn a_topic_that_is_deleted_and_created_again_under_a_bridge_is_sent_from_its_beginning_where_that_was_chosen() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    let (old, new) = (values("old", 10), values("new", 15));
    device.append(&old, |_| true);
    let bridge = Running::new(&device, cluster.config(&[("edgelog.bridge.on.new.log", "restart")]));
    bridge.until_caught_up();
    let store = Store::open(&device.0).unwrap();
    store.delete_topic("t").unwrap();
    store.close().unwrap();
    device.append(&new, |_| true);
    bridge.until("replaced", |event| matches!(event, BridgeEvent::LogReplaced { not_sent: Some(0), .. }));
    bridge.until_caught_up();
    assert_eq!(cluster.values("t"), [old, new].concat());
    assert_eq!(bridge.metrics.read().logs[0].lag_records, Some(0));
}

#[test]
fn a_topic_that_is_deleted_and_created_again_under_a_bridge_waits_with_the_reason_and_has_no_lag_of_0() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    let old = values("old", 10);
    device.append(&old, |_| true);
    let bridge = Running::new(&device, cluster.config(&[]));
    bridge.until_caught_up();
    let store = Store::open(&device.0).unwrap();
    store.delete_topic("t").unwrap();
    bridge.until(
        "deleted",
        |event| matches!(event, BridgeEvent::Waiting { reason, .. } if reason.to_string().contains("deleted")),
    );
    let metrics = bridge.metrics.read();
    assert_eq!((metrics.logs[0].lag_records, metrics.logs[0].end_offset), (None, None));
    assert!(!metrics.to_prometheus().contains("edgelog_bridge_lag_records{"));
    store.close().unwrap();
    device.append(&values("new", 15), |_| true);
    let words = "deleted and created again";
    bridge.until(
        words,
        |event| matches!(event, BridgeEvent::Waiting { reason, .. } if reason.to_string().contains(words)),
    );
    let log = bridge.metrics.read().logs[0].clone();
    assert_eq!((log.lag_records, log.waits.is_some()), (None, true));
    assert_eq!(cluster.values("t"), old);
}

#[test]
fn a_store_that_is_removed_and_made_again_under_a_bridge_is_sent_and_locked_for_it() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    let (old, new) = (values("old", 10), values("new", 15));
    device.append(&old, |_| true);
    let config = cluster.config(&[("edgelog.bridge.on.new.log", "restart")]);
    let bridge = Running::new(&device, config.clone());
    bridge.until_caught_up();
    std::fs::remove_dir_all(&device.0).unwrap();
    device.append(&new, |_| true);
    bridge.until("replaced", |event| matches!(event, BridgeEvent::LogReplaced { .. }));
    bridge.until_caught_up();
    assert_eq!(cluster.values("t"), [old, new].concat());
    // What it keeps there is kept in the new directory: its lock, and what retention has to keep.
    assert!(matches!(Bridge::attach(&device.0, config), Err(BridgeError::Locked(_))));
    drop(bridge);
    let noted = edgelog::bridge::status(&device.0).unwrap();
    assert_eq!((noted[0].acknowledged.map(|offset| offset.0), noted[0].lag), (Some(15), Some(0)));
}

/// An hour is far beyond what this test takes.
#[test]
fn a_topic_that_is_deleted_is_noticed_while_the_interval_between_transactions_lasts() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    device.append(&values("record", 10), |_| true);
    let bridge = Running::new(&device, cluster.config(&[("edgelog.bridge.interval.ms", "3600000")]));
    bridge.until("sent", |event| matches!(event, BridgeEvent::Committed { .. }));
    let store = Store::open(&device.0).unwrap();
    store.delete_topic("t").unwrap();
    store.close().unwrap();
    let is_deleted = |reason: &PauseReason| matches!(reason, PauseReason::Deleted { not_sent: Some(0), .. });
    bridge.until("deleted", |event| matches!(event, BridgeEvent::Waiting { reason, .. } if is_deleted(reason)));
}

/// Hours lie between two looks at the log, and it was written until it was deleted.
#[test]
fn of_a_topic_that_is_deleted_what_was_written_since_the_last_look_is_called_not_sent() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    device.append(&values("record", 10), |_| true);
    let bridge = Running::new(&device, cluster.config(&[("edgelog.bridge.interval.ms", "3600000")]));
    bridge.until("sent", |event| matches!(event, BridgeEvent::Committed { .. }));
    let store = Store::open(&device.0).unwrap();
    let log = store.log("t", 0).unwrap();
    for value in values("more", 5) {
        log.append(NewRecord::value(value.as_bytes())).unwrap();
    }
    store.delete_topic("t").unwrap();
    store.close().unwrap();
    let is_deleted = |reason: &PauseReason| matches!(reason, PauseReason::Deleted { .. });
    let deleted = |event: &BridgeEvent| matches!(event, BridgeEvent::Waiting { reason, .. } if is_deleted(reason));
    let events = bridge.until("deleted", deleted);
    let Some(BridgeEvent::Waiting { reason, .. }) = events.last() else { unreachable!() };
    assert_eq!(*reason, PauseReason::Deleted { not_sent: Some(5), looked_ms_before: 0 }, "{reason}");
}

#[test]
fn a_log_whose_directory_is_gone_is_not_called_sent_and_goes_on_once_it_is_there_again() {
    let (cluster, device) = (Cluster::new(&["t", "u"]), Device::new());
    let (old, new) = (values("old", 10), values("new", 5));
    device.append(&old, |_| true);
    let store = Store::open(&device.0).unwrap();
    store.create_topic(&NewTopic::new("u")).unwrap();
    store.close().unwrap();
    let bridge = Running::new(&device, cluster.config(&[]));
    bridge.until_caught_up();
    let (here, away) = (device.0.join("t-0"), device.0.with_extension("away"));
    std::fs::rename(&here, &away).unwrap();
    let missing = |event: &BridgeEvent| {
        matches!(event, BridgeEvent::Waiting { reason: PauseReason::DirectoryMissing, log } if log.topic == "t")
    };
    bridge.until("missing", missing);
    // The one that was there when the bridge came says the same as one that comes now.
    let metrics_of = |bridge: &Running| {
        let log = bridge.metrics.read().logs[0].clone();
        (log.log.to_string(), log.lag_records, log.end_offset, log.waits)
    };
    let is_missing = ("t-0".to_owned(), None, None, Some(PauseReason::DirectoryMissing));
    assert_eq!(metrics_of(&bridge), is_missing);
    drop(bridge);
    let bridge = Running::new(&device, cluster.config(&[]));
    bridge.until("missing", missing);
    assert_eq!(metrics_of(&bridge), is_missing);
    let noted = edgelog::bridge::status(&device.0).unwrap();
    assert_eq!((noted[0].lag, noted[0].held, noted[0].high_watermark), (None, None, None));
    drop(bridge);
    let (positions, _) = device.send(cluster.config(&[]));
    assert_eq!((positions[0].lag, positions[0].waits.clone()), (None, Some(PauseReason::DirectoryMissing)));
    std::fs::rename(&away, &here).unwrap();
    let bridge = Running::new(&device, cluster.config(&[]));
    bridge.until_caught_up();
    std::fs::rename(&here, &away).unwrap();
    bridge.until("missing", missing);
    std::fs::rename(&away, &here).unwrap();
    bridge.until_caught_up();
    drop(bridge);
    device.append(&new, |_| true);
    device.send(cluster.config(&[]));
    assert_eq!(cluster.values("t"), [old, new].concat());
}

/// It was all sent, to a topic that is not there any more: how much the one that is there lacks is not known.
#[test]
fn a_log_whose_target_was_deleted_and_created_again_under_a_bridge_has_no_lag() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    let old = values("old", 10);
    device.append(&old, |_| true);
    let bridge = Running::new(&device, cluster.config(&[("edgelog.bridge.retry.ms", "100")]));
    bridge.until_caught_up();
    cluster.broker.delete_topic("t");
    device.append(&values("new", 5), |_| true);
    let unusable =
        |event: &BridgeEvent| matches!(event, BridgeEvent::Waiting { reason: PauseReason::TargetUnusable { .. }, .. });
    bridge.until("unusable", unusable);
    cluster.broker.create_topic("t", 1);
    let recreated =
        |event: &BridgeEvent| matches!(event, BridgeEvent::Waiting { reason: PauseReason::TargetRecreated { .. }, .. });
    bridge.until("recreated", recreated);
    let log = bridge.metrics.read().logs[0].clone();
    assert_eq!((log.position, log.lag_records, log.end_offset), (None, None, Some(Offset(15))), "{log:?}");
}

#[test]
fn the_metrics_say_how_many_logs_are_not_selected() {
    let (cluster, device) = (Cluster::new(&["t", "u"]), Device::new());
    device.append(&values("record", 3), |_| true);
    let store = Store::open(&device.0).unwrap();
    store.create_topic(&NewTopic::new("u").partitions(2)).unwrap();
    store.close().unwrap();
    for (topics, not_selected) in [("t", 2), ("*", 0), ("u", 1)] {
        let bridge = Running::new(&device, cluster.config(&[("edgelog.bridge.topics", topics)]));
        bridge.until("caught up or waits", |event| {
            matches!(event, BridgeEvent::CaughtUp | BridgeEvent::Waiting { .. })
        });
        let metrics = bridge.metrics.read();
        assert_eq!((metrics.logs.len(), metrics.logs_not_selected), (3 - not_selected, not_selected), "{topics}");
    }
}

/// What is new in it is looked at when all of it is, and not while the bridge's own files are still those before.
#[test]
fn a_store_that_was_made_again_with_another_topic_is_not_called_one_without_identities() {
    let (cluster, device) = (Cluster::new(&["t", "u"]), Device::new());
    device.append(&values("old", 10), |_| true);
    let bridge = Running::new(&device, cluster.config(&[("edgelog.bridge.on.new.log", "restart")]));
    bridge.until_caught_up();
    std::fs::remove_dir_all(&device.0).unwrap();
    device.append(&values("new", 15), |_| true);
    let store = Store::open(&device.0).unwrap();
    store.create_topic(&NewTopic::new("u")).unwrap();
    store.log("u", 0).unwrap().append(NewRecord::value(b"first")).unwrap();
    store.close().unwrap();
    let events = bridge.until("replaced", |event| matches!(event, BridgeEvent::LogReplaced { .. }));
    let lacks = |event: &BridgeEvent| matches!(event, BridgeEvent::Waiting { reason: PauseReason::NoIdentity, .. });
    assert!(!events.iter().any(lacks), "{events:?}");
    bridge.until_caught_up();
    assert_eq!((cluster.values("t").len(), cluster.values("u").len()), (25, 1));
}

/// Seconds lie between the two, in which there is no directory.
#[test]
fn a_bridge_waits_for_a_store_that_was_removed_to_be_made_again() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    let (old, new) = (values("old", 10), values("new", 15));
    device.append(&old, |_| true);
    let bridge = Running::new(&device, cluster.config(&[("edgelog.bridge.on.new.log", "restart")]));
    bridge.until_caught_up();
    std::fs::remove_dir_all(&device.0).unwrap();
    let is_deleted = |reason: &PauseReason| matches!(reason, PauseReason::Deleted { not_sent: Some(0), .. });
    bridge.until("deleted", |event| matches!(event, BridgeEvent::Waiting { reason, .. } if is_deleted(reason)));
    device.append(&new, |_| true);
    bridge.until_caught_up();
    assert_eq!(cluster.values("t"), [old, new].concat());
}

#[test]
fn a_new_topic_is_sent_without_waiting_for_the_next_look_at_logs_that_wait() {
    let (cluster, device) = (Cluster::new(&["t", "u"]), Device::new());
    device.append(&values("t", 3), |_| true);
    // A minute is far beyond what this test takes.
    let bridge = Running::new(&device, cluster.config(&[("edgelog.bridge.retry.ms", "86400000")]));
    bridge.until_caught_up();
    let store = Store::open(&device.0).unwrap();
    store.create_topic(&NewTopic::new("u")).unwrap();
    store.log("u", 0).unwrap().append(NewRecord::value(b"first")).unwrap();
    store.close().unwrap();
    bridge.until("sent", |event| matches!(event, BridgeEvent::Committed { records: 1, .. }));
    assert_eq!(cluster.values("u"), ["first"]);
}

#[test]
fn a_broker_that_does_not_know_its_topics_yet_is_asked_again_before_a_log_is_given_up() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    let sent = values("record", 10);
    device.append(&sent, |_| true);
    cluster.front.forget_topics(3);
    let (positions, events) = device.send(cluster.config(&[]));
    assert!(positions[0].is_delivered(), "{positions:?} {events:?}");
    assert_eq!((cluster.values("t"), cluster.front.done()), (sent, 3));
    // No code is named that no broker has answered.
    let said = format!("{events:?}");
    assert!(said.contains("the cluster has no topic t yet") && !said.contains("LeaderNotAvailable"), "{said}");
    // One that never knows the topic lets the log wait.
    cluster.front.forget_topics(usize::MAX);
    let (positions, _) = device.send(cluster.config(&[("request.timeout.ms", "100")]));
    assert!(
        positions[0].waits.as_ref().is_some_and(|reason| reason.to_string().contains("UnknownTopic")),
        "{positions:?}"
    );
}

#[test]
fn a_cluster_that_was_wiped_is_called_one() {
    let (first, device) = (Cluster::new(&["t"]), Device::new());
    first.broker.with_state(|state| state.cluster_id = "AAAAcluster-1".to_owned());
    let sent = values("record", 10);
    device.append(&sent, |_| true);
    device.send(first.config(&[]));
    assert_eq!(first.values("t"), sent);
    // Its topics have other ids.
    let second = Cluster::new(&["another", "t"]);
    second.broker.with_state(|state| state.cluster_id = "BBBBcluster-2".to_owned());
    let (positions, _) = device.send(second.config(&[]));
    let reason = positions[0].waits.as_ref().expect("it waits").to_string();
    for words in ["another cluster", "AAAAcluster-1", "BBBBcluster-2", "edgelog.bridge.on.recreated=restart"] {
        assert!(reason.contains(words), "{reason}");
    }
    let (positions, _) = device.send(second.config(&[("edgelog.bridge.on.recreated", "restart")]));
    assert!(positions[0].is_delivered(), "{positions:?}");
    assert_eq!(second.values("t"), sent);
    // A topic that was deleted and created again in the same cluster is called that.
    let third = Cluster::new(&["another", "more", "t"]);
    third.broker.with_state(|state| state.cluster_id = "BBBBcluster-2".to_owned());
    let (positions, _) = device.send(third.config(&[]));
    let reason = positions[0].waits.as_ref().expect("it waits").to_string();
    assert!(reason.contains("deleted and re-created") && !reason.contains("another cluster"), "{reason}");
}

const KILLED_WRITER: &str = "EDGELOG_FAKE_KILLED_WRITER";

/// Not a test, but the other process of one: appends durably, and waits to be killed.
#[test]
fn a_writer_that_is_killed() {
    let Some(dir) = std::env::var_os(KILLED_WRITER) else { return };
    let store = Store::open(dir).unwrap();
    let log = store.log("t", 0).unwrap();
    for value in values("left", 5) {
        log.append(NewRecord::value(value.as_bytes())).unwrap();
    }
    say("appended");
    loop {
        std::thread::park();
    }
}

fn kill_a_writer(device: &Device) {
    let writer = run_again("a_writer_that_is_killed", &[(KILLED_WRITER, device.0.as_os_str())]);
    assert!(writer.lines().any(|line| line == "appended"));
    writer.kill();
}

/// Only a writer knows whether a flush of its predecessor failed: the bridge cannot make it durable.
#[test]
fn what_a_writer_that_was_killed_has_appended_is_not_called_delivered() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    let (old, left) = (values("old", 10), values("left", 5));
    device.append(&old, |_| true);
    kill_a_writer(&device);
    let (positions, events) = device.send(cluster.config(&[]));
    assert_eq!((positions[0].lag, positions[0].is_delivered()), (Some(5), false));
    let is_it = |reason: &PauseReason| *reason == PauseReason::NotRecovered { from: Offset(10) };
    assert!(positions[0].waits.as_ref().is_some_and(is_it), "{positions:?}");
    let waits = |event: &BridgeEvent| matches!(event, BridgeEvent::Waiting { reason, .. } if is_it(reason));
    assert!(events.iter().any(waits) && !events.iter().any(|e| matches!(e, BridgeEvent::CaughtUp)), "{events:?}");
    assert_eq!(cluster.values("t"), old);

    let bridge = Running::new(&device, cluster.config(&[]));
    bridge.until("waits", waits);
    let log = bridge.metrics.read().logs[0].clone();
    assert_eq!((log.lag_records, log.end_offset), (Some(5), Some(Offset(15))));
    Store::open(&device.0).unwrap().close().unwrap();
    bridge.until_caught_up();
    assert_eq!(bridge.metrics.read().logs[0].waits, None);
    assert_eq!(cluster.values("t"), [old, left].concat());
}

/// In the program that writes: its records are acknowledged, and not durable, so they are not sent.
#[test]
fn what_the_program_itself_could_not_flush_is_not_called_delivered() {
    let (cluster, device) = (Cluster::new(&["t"]), Device::new());
    std::fs::create_dir_all(&device.0).unwrap();
    let storage = FaultyStorage::new(MemoryStorage::new(), -1, Fault::Io, false);
    let options = Store::options().set("edgelog.housekeeping", "tick").unwrap();
    let store = Arc::new(options.open_on(storage.clone()).unwrap());
    store.create_topic(&NewTopic::new("t")).unwrap();
    let log = store.log("t", 0).unwrap();
    log.append_with(NewRecord::value(b"durable"), Durability::Sync).unwrap();
    log.append_with(NewRecord::value(b"not durable"), Durability::Os).unwrap();
    storage.fail_flushes(true);
    log.flush().unwrap_err();
    let mut bridge = Bridge::within(&device.0, Arc::clone(&store), cluster.config(&[])).unwrap();
    let metrics = bridge.metrics();
    let positions = bridge.run_until_caught_up().unwrap();
    assert_eq!((positions[0].lag, positions[0].end_offset), (Some(1), Some(Offset(2))), "{positions:?}");
    assert!(matches!(positions[0].waits, Some(PauseReason::LocalLog { .. })), "{positions:?}");
    assert_eq!(metrics.read().logs[0].lag_records, Some(1));
    assert_eq!(cluster.values("t"), ["durable"]);
}

/// The bridge has named the log, and nothing of it was sent yet: also then, what is gone was lost.
#[test]
fn what_is_deleted_before_anything_was_sent_is_reported_as_lost() {
    let (cluster, device) = (Cluster::new(&["t", "edgelog.losses"]), Device::new());
    device.append(&[], |_| true);
    assert!(device.send(cluster.config(&[])).0[0].is_delivered());
    let all = values("record", 10);
    device.append(&all, |_| true);
    let store = Store::open(&device.0).unwrap();
    store.log("t", 0).unwrap().delete_records_before(Offset(4)).unwrap();
    store.close().unwrap();
    let (positions, events) = device.send(cluster.config(&[]));
    let lost = |event: &BridgeEvent| match event {
        BridgeEvent::Lost { first_offset, next_offset, .. } => Some((*first_offset, *next_offset)),
        _ => None,
    };
    assert_eq!(events.iter().filter_map(lost).collect::<Vec<_>>(), [(Offset(0), Offset(4))]);
    assert!(positions[0].is_delivered());
    assert_eq!((cluster.values("t"), cluster.values("edgelog.losses").len()), (all[4..].to_vec(), 1));
    // Said once.
    assert!(!device.send(cluster.config(&[])).1.iter().any(|event| lost(event).is_some()));
}

/// A bridge that cannot reach its cluster for weeks does not look for new topics. Retention keeps them all the same.
#[test]
fn a_topic_that_is_created_while_the_cluster_is_away_is_kept_for_the_bridge() {
    let (cluster, device) = (Cluster::new(&["t", "edgelog.losses"]), Device::new());
    device.append(&[], |_| true);
    let mut config = cluster.config(&[]);
    config.set("bootstrap.servers", "127.0.0.1:1").unwrap();
    let bridge = Running::new(&device, config);
    bridge.until("away", |event| matches!(event, BridgeEvent::Retrying { .. }));
    let options = Store::options().set("edgelog.housekeeping", "tick").unwrap();
    let store = options.open(&device.0).unwrap();
    let topic = NewTopic::new("late").config("segment.bytes", "4096").config("retention.ms", "1000");
    store.create_topic(&topic).unwrap();
    let log = store.log("late", 0).unwrap();
    for value in values("late", 20) {
        log.append(NewRecord::value(&[value.as_bytes(), &[b' '; 1000]].concat())).unwrap();
    }
    let holds = store.retention_holds().unwrap().of(&log);
    assert_eq!((holds.len(), holds[0].holder.as_str(), holds[0].offset), (1, "bridge", Offset(0)));
    // The status counts it, too, and does not say that it is known how much of it was sent.
    let noted = edgelog::bridge::status(&device.0).unwrap();
    let counted: Vec<_> = noted.iter().map(|log| (log.log.to_string(), log.lag, log.held, log.held_from)).collect();
    let late = ("late-0".to_owned(), None, Some(20), Some(Offset(0)));
    assert_eq!(counted, [late, ("t-0".to_owned(), None, Some(0), Some(Offset(0)))]);
    store.tick(TimestampMs(i64::MAX / 2)).unwrap();
    assert_eq!(log.offsets().log_start_offset, 0);
    drop((log, bridge));
    // What the disk has no room for goes all the same, and is reported.
    store.log("late", 0).unwrap().delete_records_before(Offset(7)).unwrap();
    store.close().unwrap();
    cluster.broker.create_topic("late", 1);
    let (_, events) = device.send(cluster.config(&[]));
    let lost = |event: &BridgeEvent| match event {
        BridgeEvent::Lost { log, first_offset, next_offset, .. } => {
            Some((log.to_string(), *first_offset, *next_offset))
        }
        _ => None,
    };
    assert_eq!(events.iter().filter_map(lost).collect::<Vec<_>>(), [("late-0".to_owned(), Offset(0), Offset(7))]);
    assert_eq!(cluster.values("late").len(), 13);
}
