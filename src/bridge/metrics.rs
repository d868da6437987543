//! What a bridge that runs can be asked at any time: how much it sent, how far behind it is, and whether the cluster
//! answers. Also as Prometheus text.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edgelog_core::{Offset, TimestampMs};
use parking_lot::Mutex;

use super::event::BridgeEvent;
use super::log_position::LogPosition;
use super::ownership::READING;
use super::partition_sender::PartitionSender;
use super::pause_reason::PauseReason;
use crate::clock::{Clock, SystemClock};
use crate::kafka;
use crate::{Log, OffsetSpec, ReadUpTo, ReaderOptions, TopicPartition};

/// Upper bounds of the classes that transactions' durations are counted in, in seconds.
const DURATION_BOUNDS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Reads a bridge's metrics while it runs; clones read the same ones. See [`Bridge::metrics`](super::Bridge::metrics).
#[derive(Debug, Clone)]
pub struct MetricsHandle {
    shared: Arc<Mutex<State>>,
}

/// What a bridge did since it was made, and where it stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BridgeMetrics {
    /// `edgelog.device.id`.
    pub device: String,
    /// `edgelog.bridge.topics`: the names and patterns of what is to be sent.
    pub topics: Vec<String>,
    /// Whether the cluster answers.
    pub connection: ConnectionState,
    /// When a broker last answered.
    pub last_answer: Option<SystemTime>,
    /// When the cluster last committed a transaction.
    pub last_commit: Option<SystemTime>,
    /// Transactions that the cluster committed, those with positions alone among them.
    pub transactions_committed: u64,
    /// Transactions that were aborted; what they held is sent again.
    pub transactions_aborted: u64,
    /// Requests that failed and were made again.
    pub retries: u64,
    /// How long transactions took that were committed: from the first batch to the answer to the commit.
    pub transaction_duration: DurationHistogram,
    /// Each log that is to be sent, by name.
    pub logs: Vec<LogMetrics>,
    /// How many logs of the store `edgelog.bridge.topics` leaves out, as the bridge found when it looked last.
    pub logs_not_selected: usize,
}

/// Whether the cluster answers, as far as the last request shows: an idle bridge makes few.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Nothing was asked yet.
    NotYet,
    /// The last request was answered.
    Connected,
    /// The last request was not answered, or a broker does not accept who we say we are.
    Failing {
        /// Why.
        reason: String,
    },
}

/// Durations by class, as Prometheus counts them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DurationHistogram {
    /// Upper bound in seconds, and how many took at most that long; in ascending order.
    pub buckets: Vec<(f64, u64)>,
    /// All of them together.
    pub sum: Duration,
    /// How many there are.
    pub count: u64,
}

/// What became of one log since the bridge was made, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogMetrics {
    /// The local log.
    pub log: TopicPartition,
    /// The target topic.
    pub target_topic: String,
    /// The target partition; `None` until it is known.
    pub target_partition: Option<i32>,
    /// Records that the cluster committed.
    pub sent_records: u64,
    /// Bytes of their batches, as they were sent.
    pub sent_bytes: u64,
    /// Records that became dead letters.
    pub dead_letters: u64,
    /// Offsets that were lost here before they were sent, and reported as lost.
    pub lost_records: u64,
    /// The offset that is sent next; `None` until the cluster has been asked, and where its answer is of another log.
    pub position: Option<Offset>,
    /// The end of what is durable here, or may be, as in [`LogPosition::end_offset`]. `None` where the log cannot be
    /// read.
    pub end_offset: Option<Offset>,
    /// Offsets from the position to that end, as in [`LogPosition::lag`]; `None` where one of them is not known.
    pub lag_records: Option<u64>,
    /// The age of the oldest record that is not sent, by its timestamp; `None` where there is none, where it has no
    /// timestamp or cannot be read, and where the lag is not known.
    pub lag_age: Option<Duration>,
    /// Why nothing of it is sent until a person does something.
    pub waits: Option<PauseReason>,
}

#[derive(Debug)]
struct State {
    metrics: BridgeMetrics,
    /// In the order of `metrics.logs`; `None` where there is no such log any more.
    logs: Vec<Option<Log>>,
}

impl MetricsHandle {
    pub(super) fn new(device: &str, topics: &[String]) -> MetricsHandle {
        let metrics = BridgeMetrics {
            device: device.to_owned(),
            topics: topics.to_vec(),
            connection: ConnectionState::NotYet,
            last_answer: None,
            last_commit: None,
            transactions_committed: 0,
            transactions_aborted: 0,
            retries: 0,
            transaction_duration: DurationHistogram::new(),
            logs: Vec::new(),
            logs_not_selected: 0,
        };
        MetricsHandle { shared: Arc::new(Mutex::new(State { metrics, logs: Vec::new() })) }
    }

    /// The metrics as they are now. Lags are looked up in the logs by this call.
    ///
    /// # Concurrency
    /// From any thread. Neither waits for the other: what the bridge writes here takes it as long as copying a few
    /// numbers.
    pub fn read(&self) -> BridgeMetrics {
        let (mut metrics, logs) = {
            let state = self.shared.lock();
            (state.metrics.clone(), state.logs.clone())
        };
        let now = SystemClock.now();
        for (found, log) in metrics.logs.iter_mut().zip(&logs) {
            if let Some(log) = log {
                found.look_up_lag(log, now);
            }
        }
        metrics
    }

    /// Where the senders stand, and which logs cannot be read, each with its target topic; so many logs of the store
    /// are not selected.
    pub(super) fn place(
        &self,
        senders: &[PartitionSender],
        unreadable: &BTreeMap<TopicPartition, (String, PauseReason)>,
        not_selected: usize,
    ) {
        let State { metrics, logs } = &mut *self.shared.lock();
        metrics.logs_not_selected = not_selected;
        for sender in senders {
            let at = place_of(metrics, logs, sender.name(), sender.remote());
            logs[at] = sender.has_files().then(|| sender.log().clone());
            let found = &mut metrics.logs[at];
            found.target_partition = sender.target().map(|target| target.partition);
            found.position = sender.position();
            found.waits = sender.waits();
        }
        for (log, (target, reason)) in unreadable {
            let at = place_of(metrics, logs, log, target);
            (logs[at], metrics.logs[at].position) = (None, None);
            metrics.logs[at].waits = Some(reason.clone());
        }
        // What could not be read and is not there any more has no sender.
        let is_placed =
            |log: &TopicPartition| unreadable.contains_key(log) || senders.iter().any(|sender| sender.name() == log);
        if metrics.logs.len() > senders.len() + unreadable.len() {
            let mut kept = metrics.logs.iter().map(|found| is_placed(&found.log)).collect::<Vec<_>>().into_iter();
            logs.retain(|_| kept.next().unwrap_or(true));
            metrics.logs.retain(|found| is_placed(&found.log));
        }
    }

    /// A request was answered, or was not.
    pub(super) fn heard<T>(&self, outcome: &kafka::Result<T>) {
        let metrics = &mut self.shared.lock().metrics;
        match outcome {
            Err(error) if error.code().is_none() => {
                // Else it has nothing to do with the line.
                if error.is_retriable() {
                    metrics.connection = ConnectionState::Failing { reason: error.to_string() };
                }
            }
            _ => {
                metrics.connection = ConnectionState::Connected;
                metrics.last_answer = Some(SystemTime::now());
            }
        }
    }

    /// The cluster has committed a transaction with these logs' records and bytes.
    pub(super) fn committed(&self, sent: &[(&TopicPartition, u64, u64)], took: Duration) {
        let metrics = &mut self.shared.lock().metrics;
        metrics.transactions_committed += 1;
        metrics.last_commit = Some(SystemTime::now());
        metrics.transaction_duration.add(took);
        for (log, records, bytes) in sent {
            if let Some(found) = metrics.log_mut(log) {
                found.sent_records += records;
                found.sent_bytes += bytes;
            }
        }
    }

    /// Something happened that is counted.
    pub(super) fn count(&self, event: &BridgeEvent) {
        let metrics = &mut self.shared.lock().metrics;
        match event {
            BridgeEvent::Retrying { .. } => metrics.retries += 1,
            BridgeEvent::Aborted { .. } => metrics.transactions_aborted += 1,
            BridgeEvent::DeadLetter { log, .. } => {
                if let Some(found) = metrics.log_mut(log) {
                    found.dead_letters += 1;
                }
            }
            BridgeEvent::Lost { log, first_offset, next_offset, .. } => {
                if let Some(found) = metrics.log_mut(log) {
                    found.lost_records += u64::try_from(*next_offset - *first_offset).unwrap_or(0);
                }
            }
            _ => {}
        }
    }
}

/// The index of a log's metrics, which are made where there are none.
fn place_of(metrics: &mut BridgeMetrics, logs: &mut Vec<Option<Log>>, log: &TopicPartition, target: &str) -> usize {
    metrics.logs.binary_search_by(|found| found.log.cmp(log)).unwrap_or_else(|at| {
        metrics.logs.insert(at, LogMetrics::new(log, target));
        logs.insert(at, None);
        at
    })
}

impl LogMetrics {
    fn new(log: &TopicPartition, target: &str) -> LogMetrics {
        LogMetrics {
            log: log.clone(),
            target_topic: target.to_owned(),
            target_partition: None,
            sent_records: 0,
            sent_bytes: 0,
            dead_letters: 0,
            lost_records: 0,
            position: None,
            end_offset: None,
            lag_records: None,
            lag_age: None,
            waits: None,
        }
    }

    /// Says nothing of a log that cannot be read: the bridge reports why.
    fn look_up_lag(&mut self, log: &Log, now: TimestampMs) {
        let position = LogPosition::looked_up(self.log.clone(), log, self.position, None);
        (self.end_offset, self.lag_records) = (position.end_offset, position.lag);
        if position.lag.is_none() {
            return;
        }
        let Some(from) = self.position else { return };
        let options = ReaderOptions { up_to: ReadUpTo::LogEnd, ..READING };
        let reader = log.reader_with(OffsetSpec::Offset(from), options);
        let Ok(mut reader) = reader.or_else(|_| log.reader_with(OffsetSpec::Earliest, options)) else { return };
        let Ok(Some(batch)) = reader.next_batch() else { return };
        if position.end_offset.is_none_or(|end| batch.base_offset() >= end) {
            return;
        }
        let timestamp = batch.view().base_timestamp();
        if timestamp >= 0 {
            self.lag_age = Some(Duration::from_millis(u64::try_from(now - timestamp).unwrap_or(0)));
        }
    }
}

impl DurationHistogram {
    fn new() -> DurationHistogram {
        DurationHistogram { buckets: DURATION_BOUNDS.map(|bound| (bound, 0)).to_vec(), sum: Duration::ZERO, count: 0 }
    }

    fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.buckets.iter_mut().filter(|(bound, _)| seconds <= *bound).for_each(|(_, count)| *count += 1);
        self.sum += duration;
        self.count += 1;
    }
}

impl BridgeMetrics {
    fn log_mut(&mut self, log: &TopicPartition) -> Option<&mut LogMetrics> {
        self.logs.iter_mut().find(|found| found.log == *log)
    }

    /// Records that the cluster committed, of all logs.
    pub fn sent_records(&self) -> u64 {
        self.logs.iter().map(|log| log.sent_records).sum()
    }

    /// Bytes of their batches, as they were sent.
    pub fn sent_bytes(&self) -> u64 {
        self.logs.iter().map(|log| log.sent_bytes).sum()
    }

    /// Offsets that are to be sent, of all logs whose lag is known; those of logs that wait as well.
    pub fn lag_records(&self) -> u64 {
        self.logs.iter().filter_map(|log| log.lag_records).sum()
    }

    /// The metrics in Prometheus' text format (version 0.0.4). Seconds and bytes are the units; counters begin at 0
    /// with each bridge that is made. Every sample has the label `device`, those of a log `topic` and `partition` too.
    pub fn to_prometheus(&self) -> String {
        let mut text = Exposition { text: String::new(), device: &self.device };
        text.family("up", "gauge", "Whether the cluster answered the last request.");
        text.sample("up", &[], u8::from(self.connection == ConnectionState::Connected));
        text.family("last_answer_timestamp_seconds", "gauge", "When a broker last answered, in seconds since 1970.");
        text.time("last_answer_timestamp_seconds", self.last_answer);
        text.family("last_commit_timestamp_seconds", "gauge", "When a transaction was last committed, likewise.");
        text.time("last_commit_timestamp_seconds", self.last_commit);
        text.family("transactions_total", "counter", "Transactions by how they ended.");
        text.sample("transactions_total", &[("outcome", "committed")], self.transactions_committed);
        text.sample("transactions_total", &[("outcome", "aborted")], self.transactions_aborted);
        text.family("retries_total", "counter", "Requests that failed and were made again.");
        text.sample("retries_total", &[], self.retries);
        text.histogram(
            "transaction_duration_seconds",
            "How long committed transactions took, from the first batch to the answer to the commit.",
            &self.transaction_duration,
        );
        text.logs(&self.logs);
        text.text
    }
}

/// Text in the making.
struct Exposition<'a> {
    text: String,
    device: &'a str,
}

impl Exposition<'_> {
    fn logs(&mut self, logs: &[LogMetrics]) {
        type Column = (&'static str, &'static str, &'static str, fn(&LogMetrics) -> Option<f64>);
        #[allow(clippy::cast_precision_loss)] // Prometheus' numbers are floats.
        const COLUMNS: [Column; 10] = [
            ("sent_records_total", "counter", "Records that the cluster committed.", |log| {
                Some(log.sent_records as f64)
            }),
            ("sent_bytes_total", "counter", "Bytes of their batches, as they were sent.", |log| {
                Some(log.sent_bytes as f64)
            }),
            ("dead_letters_total", "counter", "Records that became dead letters.", |log| Some(log.dead_letters as f64)),
            ("lost_records_total", "counter", "Offsets that were lost before they were sent.", |log| {
                Some(log.lost_records as f64)
            }),
            ("position", "gauge", "The offset that is sent next.", |log| log.position.map(|offset| offset.0 as f64)),
            ("end_offset", "gauge", "The end of what is durable here, or may be.", |log| {
                log.end_offset.map(|offset| offset.0 as f64)
            }),
            ("lag_records", "gauge", "Records from the position to that end.", |log| {
                log.lag_records.map(|lag| lag as f64)
            }),
            ("lag_seconds", "gauge", "The age of the oldest record that is not sent; 0 where there is none.", |log| {
                let age = log.lag_age.or_else(|| (log.lag_records == Some(0)).then_some(Duration::ZERO));
                age.map(|age| age.as_secs_f64())
            }),
            ("waiting", "gauge", "Whether nothing is sent until a person acts.", |log| {
                Some(f64::from(u8::from(log.waits.is_some())))
            }),
            ("log_info", "gauge", "Where the log goes.", |_| Some(1.0)),
        ];
        for (name, kind, help, value) in COLUMNS {
            self.family(name, kind, help);
            for log in logs {
                let (partition, target) = (log.log.partition.to_string(), log.target_partition);
                let target = target.map(|partition| partition.to_string()).unwrap_or_default();
                let mut labels = vec![("topic", log.log.topic.as_str()), ("partition", &partition)];
                if name == "log_info" {
                    labels.extend([("target_topic", log.target_topic.as_str()), ("target_partition", &target)]);
                }
                if let Some(value) = value(log) {
                    self.sample(name, &labels, value);
                }
            }
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &DurationHistogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in &histogram.buckets {
            self.sample(&bucket, &[("le", &bound.to_string())], count);
        }
        self.sample(&bucket, &[("le", "+Inf")], histogram.count);
        self.sample(&format!("{name}_sum"), &[], histogram.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), &[], histogram.count);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP edgelog_bridge_{name} {help}\n# TYPE edgelog_bridge_{name} {kind}");
    }

    fn time(&mut self, name: &str, time: Option<SystemTime>) {
        if let Some(since) = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()) {
            self.sample(name, &[], since.as_secs_f64());
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "edgelog_bridge_{name}{{device=\"{}\"", escaped(self.device));
        for (label, text) in labels {
            let _ = write!(self.text, ",{label}=\"{}\"", escaped(text));
        }
        let _ = writeln!(self.text, "}} {value}");
    }
}

/// Text as it stands in a label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn log(topic: &str, sent_records: u64) -> LogMetrics {
        LogMetrics {
            log: TopicPartition::new(topic, 3),
            target_topic: "factory".to_owned(),
            target_partition: None,
            sent_records,
            sent_bytes: 4096,
            dead_letters: 1,
            lost_records: 0,
            position: None,
            end_offset: Some(Offset(70)),
            lag_records: Some(7),
            lag_age: Some(Duration::from_millis(1500)),
            waits: Some(PauseReason::NoIdentity),
        }
    }

    type Labels = BTreeMap<String, String>;

    /// The labels in front of `}`, unescaped, and what stands behind it.
    fn labels_of(mut text: &str) -> (Labels, &str) {
        let mut labels = Labels::new();
        loop {
            let (name, rest) = text.split_once("=\"").expect("a label has a value in quotes");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            let (mut value, mut characters) = (String::new(), rest.char_indices());
            let end = loop {
                match characters.next().expect("the value ends") {
                    (at, '"') => break at + 1,
                    (_, '\\') => match characters.next().expect("something is escaped").1 {
                        'n' => value.push('\n'),
                        c @ ('\\' | '"') => value.push(c),
                        c => panic!("\\{c} is no escape"),
                    },
                    (_, c) => value.push(c),
                }
            };
            assert!(labels.insert(name.to_owned(), value).is_none(), "{name} is there twice");
            text = &rest[end..];
            match text.strip_prefix(',') {
                Some(rest) => text = rest,
                None => return (labels, text.strip_prefix("} ").expect("labels end before the value")),
            }
        }
    }

    /// Reads the text format by its rules: samples stand behind HELP and TYPE of their family, in one group; no sample
    /// twice; a histogram's classes grow, end with +Inf, and that one is its count.
    fn parse(text: &str) -> HashMap<(String, Labels), f64> {
        assert!(text.ends_with('\n'));
        let (mut kinds, mut samples) = (HashMap::new(), HashMap::new());
        let (mut family, mut last_bucket) = (String::new(), 0.0);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap().to_owned();
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is in two groups");
                last_bucket = 0.0;
                continue;
            }
            let (name, rest) = line.split_once('{').expect("every sample has labels");
            let kind = kinds.get(&family).expect("TYPE stands before samples").as_str();
            let (labels, value) = labels_of(rest);
            let value: f64 = value.parse().unwrap();
            match kind {
                "histogram" => {
                    let part = name.strip_prefix(&family).expect("samples follow their TYPE");
                    assert!(["_bucket", "_sum", "_count"].contains(&part), "{name}");
                    if part == "_bucket" {
                        assert!(value >= last_bucket, "{line}");
                        last_bucket = value;
                    }
                    assert!(part != "_count" || value.to_bits() == last_bucket.to_bits(), "{line}");
                }
                kind => {
                    assert_eq!(name, family);
                    assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                }
            }
            assert!(samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
        }
        samples
    }

    #[test]
    fn what_is_rendered_is_read_back_by_the_rules_of_the_format() {
        let handle = MetricsHandle::new("a\"b\\c\nd", &[]);
        handle.count(&BridgeEvent::Retrying { reason: String::new() });
        handle.heard(&Ok(()));
        let mut metrics = handle.read();
        metrics.logs = vec![log("cpu", 5), log("net.eth0", 6)];
        for ms in [5, 30, 70_000] {
            metrics.transaction_duration.add(Duration::from_millis(ms));
        }
        let samples = parse(&metrics.to_prometheus());
        let value = |name: &str, more: &[(&str, &str)]| {
            let labels = [("device", "a\"b\\c\nd")].iter().chain(more);
            let labels = labels.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
            samples.get(&(format!("edgelog_bridge_{name}"), labels)).copied()
        };
        let cpu = [("topic", "cpu"), ("partition", "3")];
        assert_eq!(value("up", &[]), Some(1.0));
        assert_eq!(value("retries_total", &[]), Some(1.0));
        assert_eq!(value("last_commit_timestamp_seconds", &[]), None);
        assert_eq!(value("sent_records_total", &cpu), Some(5.0));
        assert_eq!(value("position", &cpu), None);
        assert_eq!(value("lag_seconds", &cpu), Some(1.5));
        assert_eq!(value("waiting", &cpu), Some(1.0));
        let target = [("target_topic", "factory"), ("target_partition", "")];
        // What is not known has no sample: a 0 would say that all is sent.
        for (lag_records, lag_age, records, seconds) in [
            (None, None, None, None),
            (Some(5), None, Some(5.0), None),
            (Some(0), None, Some(0.0), Some(0.0)),
            (Some(5), Some(Duration::from_secs(3)), Some(5.0), Some(3.0)),
        ] {
            let unknown = LogMetrics { end_offset: None, lag_records, lag_age, ..log("unknown", 0) };
            let samples = parse(&BridgeMetrics { logs: vec![unknown], ..metrics.clone() }.to_prometheus());
            let of = |name: &str| {
                let found = samples.iter().find(|((sample, _), _)| *sample == format!("edgelog_bridge_{name}"));
                found.map(|(_, value)| *value)
            };
            assert_eq!((of("end_offset"), of("lag_records"), of("lag_seconds")), (None, records, seconds));
        }
        assert_eq!(value("log_info", &[&cpu[..], &target[..]].concat()), Some(1.0));
        let bucket = |bound| value("transaction_duration_seconds_bucket", &[("le", bound)]);
        assert_eq!((bucket("0.025"), bucket("60"), bucket("+Inf")), (Some(1.0), Some(2.0), Some(3.0)));
        assert_eq!(value("transaction_duration_seconds_sum", &[]), Some(70.035));
    }
}
