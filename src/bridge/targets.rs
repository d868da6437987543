//! The target topics: which there are, who leads them, and their own rules.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use edgelog_core::partition_for_key;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{CreateTopicsRequest, DescribeConfigsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::config::{BridgeConfig, PartitionRule};
use super::error::Result;
use super::event::BridgeEvent;
use super::partition::{ByKey, remote_name};
use super::partition_sender::PartitionSender;
use super::pause_reason::PauseReason;
use super::session::{Patience, Session};
use super::target_rules::{MAX_MESSAGE_BYTES_DEFAULT, TargetRules, TimeBounds};
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::kafka::{self, Cluster, Code, KafkaError, RemoteTopic, Role, check};

const UNKNOWN_TOPIC_OR_PARTITION: Code = Code::of(ResponseError::UnknownTopicOrPartition);
const TOPIC_ALREADY_EXISTS: i16 = ResponseError::TopicAlreadyExists.code();
/// How long brokers may take to know a topic that was created.
const CREATED_WITHIN: Duration = Duration::from_secs(30);
/// How long a broker may take after its start to know the topics that there are.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);
/// Why a topic cannot be used that the cluster says nothing of.
const NOT_NAMED: &str = "the cluster does not name it";

/// What the cluster says of topics.
type Found = HashMap<String, kafka::Result<RemoteTopic>>;

/// A topic for the bridge's own records.
#[derive(Debug, Clone)]
pub(super) struct InternalTopic {
    pub(super) partition: i32,
    pub(super) batch_bytes_max: usize,
}

/// The topics for dead letters and losses, by name; or why one cannot be used.
pub(super) type InternalTopics = HashMap<String, std::result::Result<InternalTopic, String>>;

/// What is known of the topics that the senders go to, and of those for the bridge's own records.
#[derive(Default)]
pub(super) struct Targets {
    /// Those that exist.
    topics: HashMap<String, RemoteTopic>,
    /// Those that were looked up last, whether they exist or not.
    names: Vec<String>,
    internal: InternalTopics,
    /// Where the bridge ends once it has caught up: until when absent targets are asked for again before it ends
    /// without them.
    known_by: Option<Instant>,
    /// Of which target's rules was warned.
    warned: HashSet<(String, String)>,
}

fn internal_names(config: &BridgeConfig, senders: &[PartitionSender]) -> BTreeSet<String> {
    let of = |template: &str, topic: &str| remote_name(template, &config.device, topic);
    let names = senders.iter().map(|sender| &sender.name().topic);
    names.flat_map(|topic| [of(&config.dead_letters, topic), of(&config.losses, topic)]).collect()
}

/// The topics that the senders go to, and those for the bridge's own records.
fn all_names(config: &BridgeConfig, senders: &[PartitionSender]) -> Vec<String> {
    let targets = senders.iter().map(|sender| sender.remote().to_owned());
    targets.chain(internal_names(config, senders)).collect::<BTreeSet<_>>().into_iter().collect()
}

impl Targets {
    /// A topic that exists.
    pub(super) fn topic(&self, name: &str) -> Option<&RemoteTopic> {
        self.topics.get(name)
    }

    /// The topics for the bridge's own records.
    pub(super) fn internal(&self) -> &InternalTopics {
        &self.internal
    }

    /// Who leads a partition, where any broker does.
    pub(super) fn leader(&self, (topic, partition): &(String, i32)) -> Option<i32> {
        let leader = *self.topics.get(topic)?.leaders.get(*partition as usize)?;
        Some(leader).filter(|leader| *leader >= 0)
    }

    /// Looks up leaders again, and with them whether a topic is another one than it was. What senders know of their
    /// targets stays what it is.
    pub(super) fn look_up_leaders(&mut self, session: &mut Session) -> Result<()> {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let found = session.cluster_mut().topics(&names)?;
        self.topics = found.into_iter().filter_map(|(name, topic)| Some((name, topic.ok()?))).collect();
        Ok(())
    }

    /// Learns which target topics there are, and their rules. Senders without one wait. `until_caught_up`: the bridge
    /// ends then, and does not meet a target again that is absent now.
    pub(super) fn look_up(
        &mut self,
        session: &mut Session,
        senders: &mut [PartitionSender],
        until_caught_up: bool,
    ) -> Result<()> {
        self.names = all_names(session.config(), senders);
        let names = self.names.clone();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let in_transactions = session.in_transactions();
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
        let mut found = session.retry(Patience::Asked, &mut look)?;
        let mut not_created = HashMap::new();
        if session.config().creation.wanted {
            (found, not_created) = create_absent(session, senders, found, &mut look)?;
        } else {
            self.wait_for_targets(session, senders, until_caught_up, &mut found, look);
        }
        self.topics.clear();
        let mut missing = BTreeMap::new();
        for (name, topic) in found {
            match topic {
                Ok(topic) => drop(self.topics.insert(name, topic)),
                Err(error) => drop(missing.insert(name, error.to_string())),
            }
        }
        missing.extend(not_created);
        let rules = self.read_rules(session)?;
        let grown = self.apply(session, senders, &missing, &rules);
        let config = session.config();
        let internal = internal_names(config, senders).into_iter().map(|name| {
            let missing = || missing.get(&name).map_or(NOT_NAMED, String::as_str).to_owned();
            let found = self.topics.get(&name).ok_or_else(missing).map(|topic| InternalTopic {
                partition: partition_for_key(config.device.as_bytes(), topic.leaders.len() as u32) as i32,
                batch_bytes_max: rules.get(&name).map_or(MAX_MESSAGE_BYTES_DEFAULT, |rules| rules.max_message_bytes),
            });
            (name, found)
        });
        self.internal = internal.collect();
        for (topic, before, now) in grown {
            let reason = format!(
                "{now} partitions, and had {before}: from here on a key may be in another one than before, and its \
                 records are in order only within each"
            );
            self.warn_once(session, topic, reason);
        }
        Ok(())
    }

    /// Has the senders know what was found out about their targets. Returns the targets whose partitions are chosen by
    /// keys and have become more, or less: how many there were, and are now.
    fn apply(
        &self,
        session: &Session,
        senders: &mut [PartitionSender],
        missing: &BTreeMap<String, String>,
        rules: &HashMap<String, TargetRules>,
    ) -> BTreeSet<(String, u32, u32)> {
        let mut grown = BTreeSet::new();
        for sender in senders {
            sender.set_cluster(session.cluster().id());
            let topic = sender.remote().to_owned();
            if let Some(rules) = rules.get(&topic) {
                sender.set_rules(rules.clone());
            }
            if let Some(found) = self.topics.get(&topic) {
                let by_key = ByKey::of(session.config().partition, found.leaders.len());
                grown.extend(sender.spread(by_key).map(|(before, now)| (topic, before, now)));
            } else {
                let reason = missing.get(&topic).map_or(NOT_NAMED, String::as_str).to_owned();
                sender.pause(PauseReason::TargetUnusable { topic, reason });
            }
        }
        grown
    }

    /// Asks again for a while for targets that are absent, where the bridge would end without them: a broker that was
    /// just started may not know all topics yet.
    fn wait_for_targets(
        &mut self,
        session: &mut Session,
        senders: &[PartitionSender],
        until_caught_up: bool,
        found: &mut Found,
        mut look: impl FnMut(&mut Cluster) -> kafka::Result<Found>,
    ) {
        let targets: BTreeSet<String> = senders.iter().map(|sender| sender.remote().to_owned()).collect();
        let absent = |found: &Found| targets.iter().find(|name| found.get(*name).is_none_or(is_absent)).cloned();
        if !until_caught_up || absent(found).is_none() {
            self.known_by = None;
            return;
        }
        let patience = KNOWN_WITHIN.min(session.config().request_timeout);
        let deadline = *self.known_by.get_or_insert_with(|| Instant::now() + patience);
        let _ = session.retry(Patience::Until(deadline), |cluster| {
            *found = look(cluster)?;
            match absent(found) {
                // The broker's own answer is none that is asked for again.
                Some(name) => Err(KafkaError::NotThereYet(format!("the cluster has no topic {name} yet"))),
                None => Ok(()),
            }
        });
    }

    /// Reports, once, rules by which the target refuses records for their time: what becomes of them is decided when
    /// it does (`edgelog.bridge.on.refused.timestamp`).
    pub(super) fn warn_of_times(&mut self, session: &mut Session, senders: &[PartitionSender]) -> Result<()> {
        let now = SystemClock.now();
        let mut found = Vec::new();
        for sender in senders {
            match sender.refused_times(now) {
                Ok(reasons) => found.extend(reasons.into_iter().map(|reason| (sender.remote().to_owned(), reason))),
                // Damage and losses are reported when they are reached.
                Err(error) if error.is_corrupt() || matches!(error, Error::OffsetOutOfRange { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for (topic, reason) in found {
            self.warn_once(session, topic, reason);
        }
        Ok(())
    }

    /// Reports, once, rules by which the target changes what is sent.
    fn warn_of_rules(&mut self, session: &mut Session, topic: &str, compression: Option<String>, time: Option<String>) {
        let mut reasons = Vec::new();
        if let Some(compression) = compression.filter(|compression| compression != "producer") {
            reasons.push(format!(
                "compression.type={compression} there: brokers compress batches again that came otherwise compressed"
            ));
        }
        if let Some(time) = time.filter(|time| time == "LogAppendTime") {
            reasons.push(format!(
                "message.timestamp.type={time} there: records get the time of their arrival instead of their own"
            ));
        }
        for reason in reasons {
            self.warn_once(session, topic.to_owned(), reason);
        }
    }

    fn warn_once(&mut self, session: &mut Session, topic: String, reason: String) {
        if self.warned.insert((topic.clone(), reason.clone())) {
            session.report(&BridgeEvent::Rewrites { topic, reason });
        }
    }

    /// What the target topics' configurations say of what is sent there. Where asking is forbidden, the defaults are
    /// taken, and that is reported.
    fn read_rules(&mut self, session: &mut Session) -> Result<HashMap<String, TargetRules>> {
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
            .topics
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
        let answer = session.retry(Patience::Asked, |cluster| {
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
                session.report(&BridgeEvent::RulesUnknown { topic: name, reason: error.to_string() });
                continue;
            }
            let value = |key: &str| {
                let config = result.configs.iter().find(|config| &*config.name == key)?;
                config.value.as_ref().map(ToString::to_string)
            };
            self.warn_of_rules(session, &name, value("compression.type"), value("message.timestamp.type"));
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
                    max_message_bytes: value("max.message.bytes")
                        .and_then(|bytes| bytes.parse().ok())
                        .unwrap_or(MAX_MESSAGE_BYTES_DEFAULT),
                    retention_ms: retention_ms.filter(|ms: &i64| deletes && *ms >= 0),
                    times: takes_times.then_some(times),
                    wants_keys: value("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
                },
            );
        }
        Ok(rules)
    }
}

/// Creates those topics that are absent; returns what there is then, and why some cannot be created.
fn create_absent(
    session: &mut Session,
    senders: &[PartitionSender],
    found: Found,
    mut look: impl FnMut(&mut Cluster) -> kafka::Result<Found>,
) -> Result<(Found, HashMap<String, String>)> {
    let absent: Vec<String> =
        found.iter().filter(|(_, topic)| is_absent(topic)).map(|(name, _)| name.clone()).collect();
    if absent.is_empty() {
        return Ok((found, HashMap::new()));
    }
    let not_created = create(session, senders, &absent)?;
    // Brokers learn of it a moment later.
    let deadline = Instant::now() + CREATED_WITHIN;
    let found = session.retry(Patience::Until(deadline), |cluster| {
        let found = look(cluster)?;
        let missing = |name: &&String| !not_created.contains_key(*name) && found.get(*name).is_none_or(is_absent);
        match absent.iter().find(missing) {
            Some(name) => {
                let words = format!("the cluster does not know the topic {name} yet, which was created");
                Err(KafkaError::NotThereYet(words))
            }
            None => Ok(found),
        }
    })?;
    Ok((found, not_created))
}

/// Creates topics; returns those that cannot be, with the reason.
fn create(session: &mut Session, senders: &[PartitionSender], names: &[String]) -> Result<HashMap<String, String>> {
    let config = session.config();
    let creation = &config.creation;
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let topics = names.iter().map(|name| {
        let senders = senders.iter().filter(|sender| sender.remote() == *name);
        let of_same_number = senders.map(|sender| sender.name().partition as i32 + 1).max();
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_replication_factor(creation.replication_factor);
        // The bridge's own records go to one partition of a topic as the cluster makes it.
        let Some(of_same_number) = of_same_number else { return topic.with_num_partitions(-1) };
        let keeps_numbers = match config.partition {
            PartitionRule::Same => true,
            PartitionRule::Auto => config.to.contains("{device}"),
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
    let timeout_ms = i32::try_from(config.request_timeout.as_millis()).unwrap_or(i32::MAX);
    let request = CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(timeout_ms);
    let answer = session.retry(Patience::Asked, |cluster| {
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

fn is_absent(topic: &kafka::Result<RemoteTopic>) -> bool {
    topic.as_ref().err().and_then(KafkaError::code) == Some(UNKNOWN_TOPIC_OR_PARTITION)
}

#[cfg(test)]
mod tests;
