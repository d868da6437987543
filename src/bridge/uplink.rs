//! From local logs to the cluster: who we are, where each log stands there, and transaction after transaction from then
//! on.
//!
//! The order in which a bridge begins matters. The positions that the cluster holds are compared with the logs *before*
//! InitProducerId, which fences whoever used the id: a wrong copy, a restored backup or a log that was cut back stops
//! there. They are read again after it, when nobody else can move them any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::Offset;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{DescribeConfigsRequest, GroupId, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;

use super::backoff::{Backoff, StopHandle};
use super::cluster::{Cluster, Coordinated, RemoteTopic, Role};
use super::collect::collect;
use super::config::{BridgeConfig, ExpiredRule};
use super::connection::{Transport, check, code_of};
use super::error::{BridgeError, Class, Code, Result};
use super::lane::{Lane, MAX_MESSAGE_BYTES_DEFAULT, Target, Verdict, judge};
use super::note::{Entry, Note};
use super::partition;
use super::position::Position;
use super::settle::Settled;
use super::stamp::Producer;
use super::transaction::Ended;
use super::{BridgeEvent, Observer};
use crate::clock::{Clock, SystemClock};
use crate::{Store, TopicPartition};

/// How often logs that wait, and topics that are new, are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How often an idle bridge looks for records.
const LOOK_FOR_RECORDS: Duration = Duration::from_secs(1);

/// For how long something is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// Until somebody asks to stop.
    Asked,
    /// Until somebody asked to stop and what is under way has had its time.
    Grace,
    /// As `Grace`, and no longer than until then.
    Until(Instant),
}

/// A position that the cluster holds: under which partition, and what stands beside it.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) partition: i32,
    pub(super) offset: Offset,
    pub(super) metadata: String,
}

pub(super) struct Uplink {
    pub(super) config: BridgeConfig,
    store: Arc<Store>,
    pub(super) cluster: Cluster,
    pub(super) lanes: Vec<Lane>,
    /// The target topics that exist.
    pub(super) remote: HashMap<String, RemoteTopic>,
    pub(super) note: Note,
    /// What the note says in memory is not on the medium yet.
    pub(super) note_is_behind: bool,
    pub(super) producer: Option<Producer>,
    /// What a transaction may carry, in bytes.
    pub(super) bytes_max: usize,
    observer: Observer,
    /// Why a log waits, as it was told last.
    told: HashMap<TopicPartition, String>,
}

impl Uplink {
    pub(super) fn new(
        config: BridgeConfig,
        store: Arc<Store>,
        note: Note,
        stop: StopHandle,
        observer: Observer,
    ) -> Uplink {
        let (connect, request) = (config.connect_timeout, config.request_timeout);
        let transport = Transport::new(&config.client_id, connect, request, &config.security, stop);
        let cluster = Cluster::new(config.bootstrap.clone(), transport);
        let bytes_max = config.transaction_bytes;
        Uplink {
            config,
            store,
            cluster,
            lanes: Vec::new(),
            remote: HashMap::new(),
            note,
            note_is_behind: false,
            producer: None,
            bytes_max,
            observer,
            told: HashMap::new(),
        }
    }

    pub(super) fn observe(&mut self, observer: Observer) {
        self.observer = observer;
    }

    pub(super) fn tell(&mut self, event: &BridgeEvent) {
        match event {
            BridgeEvent::Retrying { reason } => tracing::debug!(reason, "the bridge tries again"),
            BridgeEvent::Aborted { reason } => tracing::info!(reason, "a transaction of the bridge was aborted"),
            BridgeEvent::Waiting { log, reason } => tracing::warn!(%log, reason, "nothing of this log is sent"),
            _ => tracing::debug!(?event, "bridge"),
        }
        (self.observer)(event);
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.config.backoff, self.config.backoff_max)
    }

    /// Asks again for as long as the answer may be another one later.
    pub(super) fn persist<T>(
        &mut self,
        patience: Patience,
        mut ask: impl FnMut(&mut Cluster) -> Result<T>,
    ) -> Result<T> {
        let mut backoff = self.backoff();
        // A transaction that is being completed takes milliseconds.
        let mut soon = Backoff::new(Duration::from_millis(10), self.config.backoff_max);
        loop {
            let error = match ask(&mut self.cluster) {
                Err(error) if error.is_retriable() => error,
                other => return other,
            };
            let stop = self.cluster.stop().clone();
            match patience {
                Patience::Asked => stop.check()?,
                Patience::Grace => stop.check_grace()?,
                Patience::Until(deadline) => {
                    stop.check_grace()?;
                    if Instant::now() >= deadline {
                        return Err(error);
                    }
                }
            }
            self.tell(&BridgeEvent::Retrying { reason: error.to_string() });
            let code = code_of(&error);
            let completing = matches!(code, Some(Code(51 | 88)));
            stop.wait_before_retry(if completing { soon.pause() } else { backoff.pause_after(&error) });
            if !error.is_refusal() && code.is_none_or(|code| matches!(code.0, 5..=9 | 13..=16)) {
                // Brokers may have moved; where nobody answers, the next try says so.
                let _ = self.cluster.topics(&[]);
            }
        }
    }

    /// Sends until somebody asks to stop, or, where asked for, until the cluster has everything that is durable here.
    /// Returns the logs that wait, with the reason.
    pub(super) fn run(&mut self, until_caught_up: bool) -> Result<Vec<(TopicPartition, String)>> {
        let outcome = self.run_on(until_caught_up);
        // Whatever happened: what was acknowledged is noted.
        let noted = self.write_note();
        match outcome {
            Ok(()) | Err(BridgeError::Stopped) => {}
            Err(error) => return Err(error),
        }
        noted?;
        Ok(self.waiting())
    }

    fn run_on(&mut self, until_caught_up: bool) -> Result<()> {
        let stop = self.cluster.stop().clone();
        self.begin()?;
        let mut looked = Instant::now();
        let mut was_caught_up = false;
        let mut backoff = self.backoff();
        loop {
            if stop.is_stopped() {
                return Ok(());
            }
            if !until_caught_up && looked.elapsed() >= LOOK_AGAIN {
                looked = Instant::now();
                if self.producer.is_none() {
                    self.begin()?;
                } else {
                    self.find_lanes()?;
                    self.learn_positions(Which::Waiting)?;
                }
            }
            self.tell_waiting();
            let since = Instant::now();
            let collected = collect(&mut self.lanes, self.bytes_max, SystemClock.now());
            if collected.is_empty() {
                self.tell_waiting();
                if !was_caught_up {
                    was_caught_up = true;
                    self.write_note()?;
                    self.tell(&BridgeEvent::CaughtUp);
                }
                if until_caught_up {
                    return Ok(());
                }
                stop.wait(LOOK_FOR_RECORDS.min(self.config.interval.max(Duration::from_millis(1))));
                continue;
            }
            was_caught_up = false;
            let bytes = collected.bytes;
            let ended = self.transact(collected)?;
            self.adapt(&ended, since.elapsed());
            match ended {
                Ended::Committed => {
                    backoff = self.backoff();
                    if !until_caught_up && bytes < self.config.batch_bytes {
                        stop.wait(self.config.interval.saturating_sub(since.elapsed()));
                    }
                }
                Ended::Aborted => {
                    stop.wait_before_retry(backoff.pause());
                    self.look_up_targets()?;
                    self.learn_positions(Which::Sending)?;
                }
            }
        }
    }

    /// Everything before the first transaction.
    fn begin(&mut self) -> Result<()> {
        self.find_lanes()?;
        self.learn_positions(Which::All)?;
        self.tell_waiting();
        if self.lanes.iter().all(|lane| lane.waits.is_some()) {
            // Nothing to send: no reason to fence anybody.
            return Ok(());
        }
        self.init_producer(None)?;
        self.learn_positions(Which::All)
    }

    /// The local logs that are to be sent, with the target of each.
    fn find_lanes(&mut self) -> Result<()> {
        for topic in self.store.topics()? {
            let name = &topic.name;
            // Kafka's own begin so; their records mean nothing elsewhere.
            let internal = name.starts_with("__");
            if internal || !self.config.topics.iter().any(|pattern| partition::matches(pattern, name)) {
                continue;
            }
            for number in 0..topic.partitions {
                let name = TopicPartition::new(name.as_str(), number);
                if self.lanes.iter().any(|lane| lane.name == name) {
                    continue;
                }
                let log = match self.store.log(&name.topic, number) {
                    Ok(log) => log,
                    // In the making, or unmaking.
                    Err(crate::Error::UnknownTopicOrPartition { .. }) => continue,
                    Err(error) => return Err(error.into()),
                };
                let remote = partition::remote_name(&self.config.to, &self.config.device, &name.topic);
                let group = Coordinated::Group(self.config.group_id(&name));
                self.lanes.push(Lane::new(name, log, group, remote));
            }
        }
        self.look_up_targets()
    }

    fn remote_names(&self) -> Vec<String> {
        let names: BTreeSet<&str> = self.lanes.iter().map(|lane| lane.remote.as_str()).collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// Learns leaders anew. Topic ids of lanes stay what they are: see [`is_recreated`](Uplink::is_recreated).
    pub(super) fn look_up_leaders(&mut self) -> Result<()> {
        let names = self.remote_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = self.cluster.topics(&names)?;
        self.remote = found.into_iter().filter_map(|(name, topic)| Some((name, topic.ok()?))).collect();
        Ok(())
    }

    /// Whether the topic of this name is another one than the lanes know.
    pub(super) fn is_recreated(&self, name: &str) -> bool {
        let Some(found) = self.remote.get(name) else { return false };
        self.lanes
            .iter()
            .filter(|lane| lane.remote == name)
            .any(|lane| lane.target.is_some_and(|target| target.topic_id != found.id))
    }

    /// Learns which target topics there are, and their rules. Lanes without one wait.
    fn look_up_targets(&mut self) -> Result<()> {
        let names = self.remote_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = self.persist(Patience::Asked, |cluster| {
            let found = cluster.topics(&names)?;
            cluster.check_features()?;
            // Leaders that are just being chosen: a moment.
            match found.values().find_map(|topic| topic.as_ref().err().filter(|error| error.is_retriable())) {
                Some(BridgeError::Broker { doing, code, .. }) => Err(BridgeError::broker(doing.as_str(), code.0, None)),
                _ => Ok(found),
            }
        })?;
        self.remote.clear();
        let mut missing = BTreeMap::new();
        for (name, topic) in found {
            match topic {
                Ok(topic) => drop(self.remote.insert(name, topic)),
                Err(error) => drop(missing.insert(name, error.to_string())),
            }
        }
        let rules = self.target_rules()?;
        for lane in &mut self.lanes {
            if !self.remote.contains_key(&lane.remote) {
                let reason = missing.get(&lane.remote).map_or("the cluster does not name it", String::as_str);
                lane.waits = Some(format!("its target topic {} cannot be used: {reason}", lane.remote));
            }
            if let Some(rules) = rules.get(&lane.remote) {
                lane.batch_bytes_max = rules.max_message_bytes.unwrap_or(MAX_MESSAGE_BYTES_DEFAULT);
                lane.retention_ms = rules.retention_ms.filter(|_| self.config.expired == ExpiredRule::Stop);
            }
        }
        Ok(())
    }

    /// What the target topics' configurations say of what is sent there. Where asking is forbidden, the defaults are
    /// taken, and that is told.
    fn target_rules(&mut self) -> Result<HashMap<String, TargetRules>> {
        const TOPIC_RESOURCE: i8 = 2;
        const KEYS: [&str; 3] = ["cleanup.policy", "max.message.bytes", "retention.ms"];
        let resources: Vec<_> = self
            .remote
            .keys()
            .map(|name| {
                DescribeConfigsResource::default()
                    .with_resource_type(TOPIC_RESOURCE)
                    .with_resource_name(StrBytes::from_string(name.clone()))
                    .with_configuration_keys(Some(KEYS.map(StrBytes::from_static_str).to_vec()))
            })
            .collect();
        if resources.is_empty() {
            return Ok(HashMap::new());
        }
        let request = DescribeConfigsRequest::default().with_resources(resources);
        let answer = self.persist(Patience::Asked, |cluster| {
            let node = cluster.any_node();
            cluster.request(node, Role::Data, &request)
        })?;
        let mut rules = HashMap::new();
        for result in answer.results {
            let name = result.resource_name.to_string();
            if result.error_code != 0 {
                let error = BridgeError::broker("DescribeConfigs", result.error_code, result.error_message.as_deref())
                    .needing("DescribeConfigs", &format!("the topic {name}"));
                self.tell(&BridgeEvent::RulesUnknown { topic: name, reason: error.to_string() });
                continue;
            }
            let value = |key: &str| {
                let config = result.configs.iter().find(|config| &*config.name == key)?;
                config.value.as_ref().map(ToString::to_string)
            };
            let deletes = value("cleanup.policy").is_none_or(|policy| policy.contains("delete"));
            let retention_ms = value("retention.ms").and_then(|ms| ms.parse().ok());
            rules.insert(
                name,
                TargetRules {
                    max_message_bytes: value("max.message.bytes").and_then(|bytes| bytes.parse().ok()),
                    retention_ms: retention_ms.filter(|ms: &i64| deletes && *ms >= 0),
                },
            );
        }
        Ok(rules)
    }

    /// The positions that the cluster holds for one lane's group under its target topic.
    pub(super) fn fetch_positions(&mut self, lane: usize, stable: bool) -> Result<Vec<Committed>> {
        let (group, remote) = (self.lanes[lane].group.clone(), self.lanes[lane].remote.clone());
        let Coordinated::Group(group_id) = &group else { unreachable!("positions are kept by groups") };
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(group_id.clone())))
            .with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![asked]).with_require_stable(stable);
        let doing = format!("reading the position of {}", self.lanes[lane].name);
        let answer = self.persist(Patience::Asked, |cluster| {
            let answer = cluster.ask_coordinator(&group, &request)?;
            let told = answer.groups.into_iter().next();
            let told =
                told.ok_or_else(|| BridgeError::broker(doing.as_str(), -1, Some("the answer names no group")))?;
            if matches!(told.error_code, 15 | 16) {
                cluster.forget_coordinator(&group);
            }
            check(&doing, told.error_code).map_err(|error| error.needing_id(&group))?;
            for partition in told.topics.iter().flat_map(|topic| &topic.partitions) {
                check(&doing, partition.error_code)?;
            }
            Ok(told)
        })?;
        let topics = answer.topics.into_iter().filter(|topic| *topic.name.0 == *remote);
        let partitions = topics.flat_map(|topic| topic.partitions).filter(|partition| partition.committed_offset >= 0);
        Ok(partitions
            .map(|partition| Committed {
                partition: partition.partition_index,
                offset: partition.committed_offset,
                metadata: partition.metadata.map(|metadata| metadata.to_string()).unwrap_or_default(),
            })
            .collect())
    }

    /// Learns where lanes stand. Before InitProducerId it only compares; after it, lanes begin to read there.
    fn learn_positions(&mut self, which: Which) -> Result<()> {
        let is_holder = self.producer.is_some();
        let mut foreign = None;
        let mut any_ours = false;
        for n in 0..self.lanes.len() {
            let sends = self.lanes[n].waits.is_none() && self.lanes[n].reader.is_some();
            if which == Which::Waiting && sends || which == Which::Sending && self.lanes[n].waits.is_some() {
                any_ours = true;
                continue;
            }
            let Some(topic) = self.remote.get(&self.lanes[n].remote).cloned() else { continue };
            self.lanes[n].waits = None;
            if self.store.lasting_id(&self.lanes[n].name)? != Some(self.lanes[n].log.id()) {
                let reason = "the store's checkpoint has no identity for it: open the store for writing once";
                self.lanes[n].waits = Some(reason.to_owned());
                continue;
            }
            let committed = self.fetch_positions(n, is_holder);
            let found = match committed.and_then(|committed| self.place(n, &topic, &committed, is_holder)) {
                Err(error) if code_of(&error).is_some_and(|code| code.class() == Class::Topic) => {
                    self.lanes[n].waits = Some(error.to_string());
                    continue;
                }
                found => found?,
            };
            let lane = &mut self.lanes[n];
            match found {
                Found::Ours(position) => {
                    any_ours = true;
                    if is_holder {
                        lane.start_at(&position)?;
                    }
                }
                Found::Beginning if is_holder => lane.start_at_the_beginning()?,
                Found::Beginning => {}
                Found::Foreign(reason) => {
                    foreign.get_or_insert_with(|| (lane.name.to_string(), reason.clone()));
                    lane.waits = Some(reason);
                }
                Found::Wait(reason) => lane.waits = Some(reason),
            }
        }
        match foreign {
            // One log that was begun anew is its own affair. Where none is known, this is another device's id.
            Some((log, reason)) if !any_ours => Err(BridgeError::Conflict { log, reason }),
            _ => Ok(()),
        }
    }

    /// Where one lane goes on.
    fn place(&mut self, n: usize, topic: &RemoteTopic, committed: &[Committed], is_holder: bool) -> Result<Found> {
        let lane = &self.lanes[n];
        let log = lane.name.to_string();
        let noted = self.note.entries.get(&lane.name).filter(|entry| entry.remote == lane.remote).cloned();
        let [committed] = committed else {
            if committed.len() > 1 {
                let partitions: Vec<i32> = committed.iter().map(|committed| committed.partition).collect();
                return Ok(Found::Wait(format!(
                    "its group has positions for several partitions of {}: {partitions:?}",
                    lane.remote
                )));
            }
            return self.place_by_note(n, topic, noted.as_ref(), is_holder);
        };
        if let Err(reason) = self.aim(n, topic, Some(committed.partition)) {
            return Ok(Found::Wait(reason));
        }
        let lane = &self.lanes[n];
        let position = match Position::parse(committed.offset, &committed.metadata) {
            Ok(position) => position,
            Err(reason) => return Ok(Found::Wait(format!("the cluster's position is not obeyed: {reason}"))),
        };
        if position.topic_id != topic.id {
            return Ok(Found::Wait(recreated(&lane.remote)));
        }
        let done = noted.and_then(|entry| entry.done).filter(|done| done.log_id == position.log_id);
        if let Some(done) = done.filter(|done| done.offset > position.offset) {
            return Ok(Found::Wait(format!(
                "the cluster's position is {}, and it had acknowledged {}: it was set back",
                position.offset, done.offset
            )));
        }
        match judge(&lane.log, &position)? {
            Verdict::Ours => Ok(Found::Ours(position)),
            Verdict::Foreign(reason) => Ok(Found::Foreign(reason)),
            Verdict::Diverged(reason) => Err(BridgeError::Conflict { log, reason }),
            Verdict::Unusable(reason) => Ok(Found::Wait(reason)),
        }
    }

    /// Where a lane goes on of which the cluster knows nothing: it is new there, or its position expired.
    fn place_by_note(
        &mut self,
        n: usize,
        topic: &RemoteTopic,
        noted: Option<&Entry>,
        is_holder: bool,
    ) -> Result<Found> {
        if self.note.is_damaged {
            let reason = "the cluster has no position of it, and the note beside the store is damaged";
            return Ok(Found::Wait(reason.to_owned()));
        }
        let known = noted.filter(|entry| entry.done.is_some() || entry.intent.is_some());
        if let Err(reason) = self.aim(n, topic, known.map(|entry| entry.partition)) {
            return Ok(Found::Wait(reason));
        }
        let lane = &self.lanes[n];
        let Some(entry) = known else { return Ok(Found::Beginning) };
        let newest = entry.intent.map(|intent| intent.to).or(entry.done).expect("one of both is there");
        if newest.log_id != lane.log.id() {
            return Ok(Found::Foreign("the note beside the store is of a log of another identity".to_owned()));
        }
        if newest.topic_id != topic.id {
            return Ok(Found::Wait(recreated(&lane.remote)));
        }
        let mut at = entry.done;
        if let Some(intent) = entry.intent {
            if !is_holder {
                // Settled when nobody can move it any more.
                return Ok(Found::Beginning);
            }
            match self.settle(n, &intent)? {
                Settled::Committed => at = Some(intent.to),
                Settled::Aborted => {}
                Settled::Gone(reason) => return Ok(Found::Wait(reason)),
            }
        }
        let Some(position) = at else { return Ok(Found::Beginning) };
        let lane = &self.lanes[n];
        match judge(&lane.log, &position)? {
            Verdict::Ours => Ok(Found::Ours(position)),
            Verdict::Foreign(reason) => Ok(Found::Foreign(reason)),
            Verdict::Diverged(reason) => Err(BridgeError::Conflict { log: lane.name.to_string(), reason }),
            Verdict::Unusable(reason) => Ok(Found::Wait(reason)),
        }
    }

    /// Fixes the target partition: where there is a position, it stays with it, also when partitions are added.
    fn aim(&mut self, n: usize, topic: &RemoteTopic, known: Option<i32>) -> std::result::Result<(), String> {
        let lane = &self.lanes[n];
        let count = topic.leaders.len();
        let partition = match known {
            Some(partition) if usize::try_from(partition).is_ok_and(|partition| partition < count) => partition,
            Some(partition) => {
                return Err(format!("its position is for partition {partition}, and {} has {count}", lane.remote));
            }
            None => {
                let owned = self.config.to.contains("{device}");
                let (rule, device) = (self.config.partition, &self.config.device);
                partition::choose(rule, owned, device, lane.name.partition, count)
                    .map_err(|reason| format!("its target topic {} cannot be used: {reason}", lane.remote))?
            }
        };
        self.lanes[n].target = Some(Target { partition, topic_id: topic.id });
        Ok(())
    }

    fn waiting(&self) -> Vec<(TopicPartition, String)> {
        self.lanes.iter().filter_map(|lane| Some((lane.name.clone(), lane.waits.clone()?))).collect()
    }

    /// Tells which logs wait, each once for each reason.
    fn tell_waiting(&mut self) {
        for (log, reason) in self.waiting() {
            if self.told.get(&log) != Some(&reason) {
                self.told.insert(log.clone(), reason.clone());
                self.tell(&BridgeEvent::Waiting { log, reason });
            }
        }
    }

    /// Makes the note say what is known, where it does not.
    fn write_note(&mut self) -> Result<()> {
        if std::mem::take(&mut self.note_is_behind) { self.note.write() } else { Ok(()) }
    }
}

fn recreated(remote: &str) -> String {
    format!(
        "the target topic {remote} is another one than the position was committed for: it was deleted and re-created"
    )
}

/// Which lanes are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Those that do not wait: what one waits for is not over because a transaction is.
    Sending,
    /// Those that do not send.
    Waiting,
}

/// Where a lane stands.
enum Found {
    Ours(Position),
    /// The cluster has nothing of this log.
    Beginning,
    Foreign(String),
    Wait(String),
}

#[derive(Debug)]
struct TargetRules {
    max_message_bytes: Option<usize>,
    retention_ms: Option<i64>,
}
