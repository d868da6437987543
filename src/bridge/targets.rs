//! The target topics: which there are, who leads them, and their own rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use edgelog_core::partition_for_key;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{CreateTopicsRequest, DescribeConfigsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::BridgeEvent;
use super::accumulator::InternalTopic;
use super::config::PartitionRule;
use super::error::Result;
use super::partition::{ByKey, remote_name};
use super::partition_sender::{MAX_MESSAGE_BYTES_DEFAULT, TimeBounds};
use super::pause_reason::PauseReason;
use super::uplink::{Patience, Uplink};
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::kafka::{self, Cluster, Code, KafkaError, RemoteTopic, Role, check};

const UNKNOWN_TOPIC_OR_PARTITION: Code = Code::of(ResponseError::UnknownTopicOrPartition);
const TOPIC_ALREADY_EXISTS: i16 = ResponseError::TopicAlreadyExists.code();
const LEADER_NOT_AVAILABLE: Code = Code::of(ResponseError::LeaderNotAvailable);
/// How long brokers may take to know a topic that was created.
const CREATED_WITHIN: Duration = Duration::from_secs(30);
/// How long a broker may take after its start to know the topics that there are.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

impl Uplink {
    /// The topics that the senders go to, and those for the bridge's own records.
    fn remote_names(&self) -> Vec<String> {
        let targets = self.senders.iter().map(|sender| sender.remote.clone());
        targets.chain(self.side_names()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn side_names(&self) -> BTreeSet<String> {
        let of = |template: &str, topic: &str| remote_name(template, &self.config.device, topic);
        let names = self.senders.iter().map(|sender| &sender.name.topic);
        names.flat_map(|topic| [of(&self.config.dead_letters, topic), of(&self.config.losses, topic)]).collect()
    }

    /// Looks up leaders again. Topic ids of senders stay what they are: see [`is_recreated`](Uplink::is_recreated).
    pub(super) fn look_up_leaders(&mut self) -> Result<()> {
        let names = self.remote_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = self.cluster.topics(&names)?;
        self.remote = found.into_iter().filter_map(|(name, topic)| Some((name, topic.ok()?))).collect();
        Ok(())
    }

    /// Whether the topic of this name is another one than the senders know.
    pub(super) fn is_recreated(&self, name: &str) -> bool {
        let Some(found) = self.remote.get(name) else { return false };
        self.senders
            .iter()
            .filter(|sender| sender.remote == name)
            .any(|sender| sender.target.is_some_and(|target| target.topic_id != found.id))
    }

    /// Learns which target topics there are, and their rules. Senders without one wait.
    pub(super) fn look_up_targets(&mut self) -> Result<()> {
        let names = self.remote_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let in_transactions = self.in_transactions();
        let mut look = |cluster: &mut Cluster| {
            let found = cluster.topics(&names)?;
            if in_transactions {
                cluster.check_features()?;
            }
            // Leaders that are just being chosen: a moment.
            match found.values().find_map(|topic| topic.as_ref().err().filter(|error| error.is_retriable())) {
                Some(KafkaError::Broker { doing, code, .. }) => Err(KafkaError::broker(doing.as_str(), *code, None)),
                _ => Ok(found),
            }
        };
        let mut found = self.retry(Patience::Asked, &mut look)?;
        let mut not_created = HashMap::new();
        if self.config.creation.wanted {
            let absent: Vec<String> =
                found.iter().filter(|(_, topic)| is_absent(topic)).map(|(name, _)| name.clone()).collect();
            if !absent.is_empty() {
                not_created = self.create(&absent)?;
                // Brokers learn of it a moment later.
                let deadline = Instant::now() + CREATED_WITHIN;
                found = self.retry(Patience::Until(deadline), |cluster| {
                    let found = look(cluster)?;
                    let missing =
                        |name: &&String| !not_created.contains_key(*name) && found.get(*name).is_none_or(is_absent);
                    match absent.iter().find(missing) {
                        Some(name) => {
                            Err(KafkaError::broker(format!("creating the topic {name}"), LEADER_NOT_AVAILABLE, None))
                        }
                        None => Ok(found),
                    }
                })?;
            }
        }
        if !self.config.creation.wanted {
            self.wait_for_targets(&mut found, look);
        }
        self.remote.clear();
        let mut missing = BTreeMap::new();
        for (name, topic) in found {
            match topic {
                Ok(topic) => drop(self.remote.insert(name, topic)),
                Err(error) => drop(missing.insert(name, error.to_string())),
            }
        }
        missing.extend(not_created);
        let rules = self.target_rules()?;
        let mut grown = BTreeSet::new();
        for sender in &mut self.senders {
            sender.cluster = self.cluster.id().map(str::to_owned);
            if let Some(topic) = self.remote.get(&sender.remote) {
                let by_key = ByKey::of(self.config.partition, topic.leaders.len());
                if let (Some(before), Some(now)) = (sender.by_key, by_key.filter(|now| sender.by_key != Some(*now))) {
                    grown.insert((sender.remote.clone(), before.partitions(), now.partitions()));
                }
                sender.by_key = by_key;
            }
            if !self.remote.contains_key(&sender.remote) {
                let reason = missing.get(&sender.remote).map_or("the cluster does not name it", String::as_str);
                let (topic, reason) = (sender.remote.clone(), reason.to_owned());
                sender.paused = Some(PauseReason::TargetUnusable { topic, reason });
            }
            if let Some(rules) = rules.get(&sender.remote) {
                sender.batch_bytes_max = rules.max_message_bytes.unwrap_or(MAX_MESSAGE_BYTES_DEFAULT);
                sender.retention_ms = rules.retention_ms;
                sender.times = rules.times;
                sender.wants_keys = rules.wants_keys;
            }
        }
        self.sides = self
            .side_names()
            .into_iter()
            .map(|name| {
                let missing = || missing.get(&name).map_or("the cluster does not name it", String::as_str).to_owned();
                let side = self.remote.get(&name).ok_or_else(missing).map(|topic| InternalTopic {
                    partition: partition_for_key(self.config.device.as_bytes(), topic.leaders.len() as u32) as i32,
                    batch_bytes_max: rules
                        .get(&name)
                        .and_then(|rules| rules.max_message_bytes)
                        .unwrap_or(MAX_MESSAGE_BYTES_DEFAULT),
                });
                (name, side)
            })
            .collect();
        for (topic, before, now) in grown {
            let reason = format!(
                "{now} partitions, and had {before}: from here on a key may be in another one than before, and its \
                 records are in order only within each"
            );
            self.warn_once(topic, reason);
        }
        Ok(())
    }

    /// Asks again for a while for targets that are absent, where the bridge would end without them: a broker that was
    /// just started may not know all topics yet.
    fn wait_for_targets(
        &mut self,
        found: &mut HashMap<String, kafka::Result<RemoteTopic>>,
        mut look: impl FnMut(&mut Cluster) -> kafka::Result<HashMap<String, kafka::Result<RemoteTopic>>>,
    ) {
        let targets: BTreeSet<String> = self.senders.iter().map(|sender| sender.remote.clone()).collect();
        let absent = |found: &HashMap<String, kafka::Result<RemoteTopic>>| {
            targets.iter().find(|name| found.get(*name).is_none_or(is_absent)).cloned()
        };
        if !self.until_caught_up || absent(found).is_none() {
            self.known_by = None;
            return;
        }
        let patience = KNOWN_WITHIN.min(self.config.request_timeout);
        let deadline = *self.known_by.get_or_insert_with(|| Instant::now() + patience);
        let _ = self.retry(Patience::Until(deadline), |cluster| {
            *found = look(cluster)?;
            match absent(found) {
                // In words of its own, since the broker's answer is none that is asked for again.
                Some(name) => {
                    let doing = format!("looking up the topic {name}");
                    Err(KafkaError::broker(doing, LEADER_NOT_AVAILABLE, Some("it is absent")))
                }
                None => Ok(()),
            }
        });
    }

    /// Reports, once, rules by which the target refuses records for their time: what becomes of them is decided when
    /// it does (`edgelog.bridge.on.refused.timestamp`).
    pub(super) fn warn_of_times(&mut self) -> Result<()> {
        let now = SystemClock.now();
        let mut found = Vec::new();
        for sender in self.senders.iter().filter(|sender| sender.reader.is_some() && sender.paused.is_none()) {
            let Some(times) = &sender.times else { continue };
            let from = sender.position.max(sender.log.offsets().log_start_offset);
            match times.refused_of(&sender.log, from, now) {
                Ok(reasons) => found.extend(reasons.into_iter().map(|reason| (sender.remote.clone(), reason))),
                // Damage and losses are reported when they are reached.
                Err(error) if error.is_corrupt() || matches!(error, Error::OffsetOutOfRange { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (topic, reason) in found {
            self.warn_once(topic, reason);
        }
        Ok(())
    }

    /// Reports, once, rules by which the target changes what is sent.
    fn warn_of_rules(&mut self, topic: &str, compression: Option<String>, time: Option<String>) {
        let mut reasons = Vec::new();
        if let Some(compression) = compression.filter(|compression| compression != "producer") {
            reasons.push(format!(
                "compression.type={compression} there: brokers compress batches again that came otherwise compressed"
            ));
        }
        if let Some(time) = time.filter(|time| time == "LogAppendTime") {
            reasons.push(format!(
                "message.timestamp.type={time} there: records get the time of their arrival in the place of their own"
            ));
        }
        for reason in reasons {
            self.warn_once(topic.to_owned(), reason);
        }
    }

    fn warn_once(&mut self, topic: String, reason: String) {
        if self.warned.insert((topic.clone(), reason.clone())) {
            self.report(&BridgeEvent::Rewrites { topic, reason });
        }
    }

    /// Creates topics; returns those that cannot be, with the reason.
    fn create(&mut self, names: &[String]) -> Result<HashMap<String, String>> {
        let creation = &self.config.creation;
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let topics = names.iter().map(|name| {
            let senders = self.senders.iter().filter(|sender| sender.remote == *name);
            let of_same_number = senders.map(|sender| sender.name.partition as i32 + 1).max();
            let topic = CreatableTopic::default()
                .with_name(TopicName(text(name)))
                .with_replication_factor(creation.replication_factor);
            // The bridge's own records go to one partition of a topic as the cluster makes it.
            let Some(of_same_number) = of_same_number else { return topic.with_num_partitions(-1) };
            let keeps_numbers = match self.config.partition {
                PartitionRule::Same => true,
                PartitionRule::Auto => self.config.to.contains("{device}"),
                PartitionRule::Device | PartitionRule::Fixed(_) | PartitionRule::Key(_) => false,
            };
            let partitions = match creation.partitions {
                -1 if keeps_numbers => of_same_number,
                partitions => partitions,
            };
            let configs = creation
                .config
                .iter()
                .map(|(key, value)| CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value))));
            topic.with_num_partitions(partitions).with_configs(configs.collect())
        });
        let timeout_ms = i32::try_from(self.config.request_timeout.as_millis()).unwrap_or(i32::MAX);
        let request = CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(timeout_ms);
        let answer = self.retry(Patience::Asked, |cluster| {
            let node = cluster.any_node();
            let answer = cluster.request(node, Role::Data, &request)?;
            let codes = answer.topics.iter().map(|topic| check("creating topics", topic.error_code));
            match codes.filter_map(kafka::Result::err).find(KafkaError::is_retriable) {
                Some(error) => Err(error),
                None => Ok(answer),
            }
        })?;
        let refused =
            answer.topics.into_iter().filter(|topic| topic.error_code != 0 && topic.error_code != TOPIC_ALREADY_EXISTS);
        Ok(refused
            .map(|topic| {
                let name = topic.name.0.to_string();
                let doing = format!("creating the topic {name}");
                let error = KafkaError::broker(doing, Code(topic.error_code), topic.error_message.as_deref());
                let error = error.needing("Create", &format!("the topic {name}"));
                (name, error.to_string())
            })
            .collect())
    }

    /// What the target topics' configurations say of what is sent there. Where asking is forbidden, the defaults are
    /// taken, and that is reported.
    fn target_rules(&mut self) -> Result<HashMap<String, TargetRules>> {
        const TOPIC_RESOURCE: i8 = 2;
        const KEYS: [&str; 7] = [
            "cleanup.policy",
            "compression.type",
            "max.message.bytes",
            "message.timestamp.after.max.ms",
            "message.timestamp.before.max.ms",
            "message.timestamp.type",
            "retention.ms",
        ];
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
        let answer = self.retry(Patience::Asked, |cluster| {
            let node = cluster.any_node();
            cluster.request(node, Role::Data, &request)
        })?;
        let mut rules = HashMap::new();
        for result in answer.results {
            let name = result.resource_name.to_string();
            if result.error_code != 0 {
                let error =
                    KafkaError::broker("DescribeConfigs", Code(result.error_code), result.error_message.as_deref())
                        .needing("DescribeConfigs", &format!("the topic {name}"));
                self.report(&BridgeEvent::RulesUnknown { topic: name, reason: error.to_string() });
                continue;
            }
            let value = |key: &str| {
                let config = result.configs.iter().find(|config| &*config.name == key)?;
                config.value.as_ref().map(ToString::to_string)
            };
            self.warn_of_rules(&name, value("compression.type"), value("message.timestamp.type"));
            let deletes = value("cleanup.policy").is_none_or(|policy| policy.contains("delete"));
            let bound = |key: &str| value(key).and_then(|ms| ms.parse().ok()).unwrap_or(i64::MAX);
            let times = TimeBounds {
                before_max_ms: bound("message.timestamp.before.max.ms"),
                after_max_ms: bound("message.timestamp.after.max.ms"),
            };
            let takes_times = value("message.timestamp.type").is_none_or(|kind| kind != "LogAppendTime");
            let retention_ms = value("retention.ms").and_then(|ms| ms.parse().ok());
            rules.insert(
                name,
                TargetRules {
                    max_message_bytes: value("max.message.bytes").and_then(|bytes| bytes.parse().ok()),
                    retention_ms: retention_ms.filter(|ms: &i64| deletes && *ms >= 0),
                    times: takes_times.then_some(times),
                    wants_keys: value("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
                },
            );
        }
        Ok(rules)
    }
}

fn is_absent(topic: &kafka::Result<RemoteTopic>) -> bool {
    topic.as_ref().err().and_then(KafkaError::code) == Some(UNKNOWN_TOPIC_OR_PARTITION)
}

#[derive(Debug)]
struct TargetRules {
    max_message_bytes: Option<usize>,
    retention_ms: Option<i64>,
    times: Option<TimeBounds>,
    /// It is compacted: records without a key are refused.
    wants_keys: bool,
}
