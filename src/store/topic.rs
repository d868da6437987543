//! A topic: how it is asked for, what it is, and what the store keeps of it.

use std::collections::BTreeMap;

use edgelog_core::LogConfig;

use super::settings::Overrides;
use crate::error::{Error, Result};
use crate::log::TopicPartition;
use crate::segment::file_names::TOPIC_CONFIG;

/// A topic has at most so many partitions.
pub const PARTITIONS_MAX: u32 = 10_000;

/// A topic to create.
///
/// ```
/// let topic = edgelog::NewTopic::new("telemetry").partitions(4).config("compression.type", "snappy");
/// # assert_eq!(topic.name, "telemetry");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewTopic {
    /// Its name, by Kafka's rules: 1 to 249 of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// How many partitions it has, 1 to [`PARTITIONS_MAX`].
    pub partitions: u32,
    /// Keys of its configuration that differ from the defaults.
    pub config: Vec<(String, String)>,
}

impl NewTopic {
    /// A topic of one partition with the default configuration.
    pub fn new(name: impl Into<String>) -> NewTopic {
        NewTopic { name: name.into(), partitions: 1, config: Vec::new() }
    }

    /// The same topic with so many partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> NewTopic {
        self.partitions = partitions;
        self
    }

    /// The same topic with a configuration key set.
    #[must_use]
    pub fn config(mut self, key: &str, value: &str) -> NewTopic {
        self.config.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// How many partitions it has: one more than the number of the last.
    pub partitions: u32,
    /// The numbers of the partitions that are there, in order: 0 to `partitions` - 1, but for those whose directories
    /// are not in the data directory.
    pub partition_ids: Vec<u32>,
    /// The keys that were set for it.
    pub overrides: BTreeMap<String, String>,
    /// The whole configuration in force.
    pub config: LogConfig,
    /// Why retention deletes nothing of this topic, where its settings are not known for certain: they were lost, or
    /// the files were copied here without any. Altering the topic ends that.
    pub retention_suspended: Option<String>,
}

/// What the store keeps of a topic.
#[derive(Debug, Clone, Default)]
pub(super) struct TopicSettings {
    pub(super) partitions: u32,
    /// The partitions that are there; in order.
    pub(super) present: Vec<u32>,
    pub(super) overrides: Overrides,
    pub(super) config: LogConfig,
    /// Why retention deletes nothing, where it does not.
    pub(super) suspended: Option<String>,
}

/// What reading the topics' names and files found, beyond the topics.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Topics of which retention deletes nothing, and why.
    pub(super) suspended: Vec<(String, String)>,
    /// Files of settings that are to be written again, and why.
    pub(super) heal: Vec<(String, &'static str, String)>,
    /// Topics that have no file of settings, nor had one before this version opened the store.
    pub(super) adopted: Vec<String>,
    /// Partitions that an older version began, which did not mark them as its own.
    pub(super) unmarked: Vec<TopicPartition>,
}

impl TopicSettings {
    /// The partitions that are there.
    pub(super) fn names(&self, topic: &str) -> Vec<TopicPartition> {
        self.present.iter().map(|&partition| TopicPartition::new(topic, partition)).collect()
    }

    pub(super) fn has(&self, partition: u32) -> bool {
        self.present.binary_search(&partition).is_ok()
    }

    pub(super) fn describe(&self, name: &str) -> Topic {
        Topic {
            name: name.to_owned(),
            partitions: self.partitions,
            partition_ids: self.present.clone(),
            overrides: self.overrides.clone(),
            config: self.config,
            retention_suspended: self.suspended.clone(),
        }
    }
}

/// The configuration that `overrides` make of the defaults.
pub(super) fn configure(defaults: LogConfig, overrides: &BTreeMap<String, String>) -> Result<LogConfig> {
    let mut config = defaults;
    for (key, value) in overrides {
        let invalid = |source| Error::InvalidConfig { key: key.clone(), value: value.clone(), source };
        config.set(key, value).map_err(invalid)?;
    }
    let invalid = |source| Error::InvalidConfig { key: "the configuration".to_owned(), value: String::new(), source };
    config.validate().map_err(invalid)?;
    Ok(config)
}

/// The configuration of a topic that is there already. What cannot be understood is passed over, and a reason not to
/// delete anything.
pub(super) fn configure_leniently(defaults: LogConfig, read: Overrides, doubt: Option<String>) -> TopicSettings {
    let (mut config, mut overrides) = (defaults, Overrides::new());
    let mut doubts: Vec<String> = doubt.into_iter().collect();
    for (key, value) in read {
        match config.set(&key, &value) {
            Ok(()) => drop(overrides.insert(key, value)),
            Err(error) => doubts.push(format!("{TOPIC_CONFIG}: {key}={value}: {error}")),
        }
    }
    if !doubts.is_empty() {
        (config.retention_ms, config.retention_bytes) = (-1, -1);
    }
    let suspended = (!doubts.is_empty()).then(|| doubts.join("; "));
    TopicSettings { overrides, config, suspended, ..TopicSettings::default() }
}

/// Whether the topic `name` is like `pattern`, in which `*` stands for any characters and `?` for one. No name has
/// either of them.
///
/// ```
/// assert!(edgelog::topic_matches("net.*", "net.eth0") && !edgelog::topic_matches("net.*", "network"));
/// ```
pub fn topic_matches(pattern: &str, name: &str) -> bool {
    let (name, pattern) = (name.as_bytes(), pattern.as_bytes());
    let (mut at, mut of) = (0, 0);
    // Where the last star stands, and what it covers up to.
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match pattern.get(of) {
            Some(b'*') => {
                star = Some((of, at));
                of += 1;
            }
            Some(&c) if c == b'?' || c == name[at] => (at, of) = (at + 1, of + 1),
            _ => match &mut star {
                Some((star_of, star_at)) => {
                    *star_at += 1;
                    (at, of) = (*star_at, *star_of + 1);
                }
                None => return false,
            },
        }
    }
    pattern[of..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (name, pattern, is_like) in [
            ("cpu", "cpu", true),
            ("cpu2", "cpu", false),
            ("cpu", "*", true),
            ("cpu", "c*u", true),
            ("cpu", "c?u", true),
            ("cpu", "c?", false),
            ("cpu", "pu", false),
            ("cpu", "*p*", true),
            ("abcabd", "*abd", true),
            ("abcabd", "a*b", false),
            ("", "*", true),
            ("cpu", "cpu**", true),
            ("cpu", "*cpu?", false),
            ("net.eth0", "net.*", true),
            ("network", "net.*", false),
            ("a-b-b-c", "a*b*c", true),
            ("a-c", "a*b*c", false),
            ("a", "a*a", false),
            ("x", "*x", true),
        ] {
            assert_eq!(topic_matches(pattern, name), is_like, "{name} {pattern}");
        }
    }
}
