//! Topics: creating, deleting, describing, and their configuration, kept as `key=value` lines beside
//! partition 0.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use edgelog_core::LogConfig;

use super::{Recovering, StoreShared, random_id, saved_log};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::log::{LogHost, SavedLog, TopicPartition, check_topic_name};
use crate::segment::file_names::{TOPIC_CONFIG, parse_log_file};
use crate::storage::{Access, Storage};

/// A topic has at most so many partitions.
pub const PARTITIONS_MAX: u32 = 10_000;
/// A configuration file beyond this is none.
const CONFIG_BYTES_MAX: u64 = 64 << 10;
/// What the name of a directory ends with while it is being deleted, as in Kafka.
const DELETE_SUFFIX: &str = "-delete";
/// The first line of a configuration file, before the CRC-32 of what follows it. Who edits the file by hand takes the
/// line out.
const CHECKSUM_LINE: &str = "# crc32=";

/// A topic to create.
///
/// ```
/// let topic = edgelog::NewTopic::new("telemetry").partitions(4).config("compression.type", "snappy");
/// # assert_eq!(topic.name, "telemetry");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// What the store keeps of a topic.
#[derive(Debug, Clone, Default)]
pub(super) struct TopicSettings {
    pub(super) partitions: u32,
    /// The partitions that are there; in order.
    present: Vec<u32>,
    overrides: BTreeMap<String, String>,
    pub(super) config: LogConfig,
}

impl TopicSettings {
    /// The partitions that are there.
    pub(super) fn names(&self, topic: &str) -> Vec<TopicPartition> {
        self.present.iter().map(|&partition| TopicPartition::new(topic, partition)).collect()
    }

    pub(super) fn has(&self, partition: u32) -> bool {
        self.present.binary_search(&partition).is_ok()
    }

    pub(super) fn describe(&self, name: &str, _store: &StoreShared) -> Topic {
        Topic {
            name: name.to_owned(),
            partitions: self.partitions,
            partition_ids: self.present.clone(),
            overrides: self.overrides.clone(),
            config: self.config,
        }
    }
}

/// The configuration that `overrides` make of the defaults.
fn configure(defaults: LogConfig, overrides: &BTreeMap<String, String>) -> Result<LogConfig> {
    let mut config = defaults;
    for (key, value) in overrides {
        let invalid = |source| Error::InvalidConfig { key: key.clone(), value: value.clone(), source };
        config.set(key, value).map_err(invalid)?;
    }
    let invalid = |source| Error::InvalidConfig { key: "the configuration".to_owned(), value: String::new(), source };
    config.validate().map_err(invalid)?;
    Ok(config)
}

/// The configuration of a topic that is there already: what cannot be understood is passed over, told, and taken
/// as a reason not to delete anything.
fn configure_leniently(
    defaults: LogConfig,
    topic: &str,
    read: io::Result<BTreeMap<String, String>>,
) -> (BTreeMap<String, String>, LogConfig) {
    let mut config = defaults;
    let mut doubts = Vec::new();
    let mut overrides = BTreeMap::new();
    match read {
        Ok(read) => {
            for (key, value) in read {
                match config.set(&key, &value) {
                    Ok(()) => drop(overrides.insert(key, value)),
                    Err(error) => doubts.push(format!("{key}={value}: {error}")),
                }
            }
        }
        Err(error) => doubts.push(error.to_string()),
    }
    if !doubts.is_empty() {
        tracing::error!(
            topic,
            ?doubts,
            "{TOPIC_CONFIG} is damaged; nothing of the topic is deleted until it is altered"
        );
        (config.retention_ms, config.retention_bytes) = (-1, -1);
    }
    (overrides, config)
}

impl StoreShared {
    pub(super) fn create_topic(self: &Arc<Self>, topic: &NewTopic) -> Result<()> {
        self.check_writable()?;
        check_topic_name(&topic.name)?;
        if topic.partitions == 0 || topic.partitions > PARTITIONS_MAX {
            return Err(Error::InvalidPartitions { given: topic.partitions, max: PARTITIONS_MAX });
        }
        let mut overrides = BTreeMap::new();
        for (key, value) in &topic.config {
            overrides.insert(key.clone(), value.clone());
        }
        let config = configure(self.topic_defaults, &overrides)?;
        let present = (0..topic.partitions).collect();
        let settings = TopicSettings { partitions: topic.partitions, present, overrides, config };
        {
            // Holding the name from here on: of two who create a topic, one is told that it exists.
            let mut topics = self.topics.write();
            if topics.contains_key(&topic.name) {
                return Err(Error::TopicExists { name: topic.name.clone() });
            }
            topics.insert(topic.name.clone(), settings.clone());
        }
        self.coming.lock().push(topic.name.clone());
        let mut dirs = Vec::new();
        let created = self.create_partitions(&topic.name, &settings, &mut dirs);
        if created.is_err() {
            self.topics.write().remove(&topic.name);
            for name in settings.names(&topic.name) {
                self.logs.write().remove(&name);
            }
            self.take_back(dirs);
        }
        self.coming.lock().retain(|coming| *coming != topic.name);
        created
    }

    /// Removes directories of an unfinished creation, the newest first, and only those: one that was in the way is
    /// somebody else's. As in a deletion, the first partition's name goes for good before any file does.
    fn take_back(&self, created: Vec<String>) {
        for mut dir in created.into_iter().rev() {
            if let Some(first) = TopicPartition::parse_dir(&dir).filter(|name| name.partition == 0) {
                let to = deleted_name(&first);
                if self.storage.rename(&dir, &to).is_ok() {
                    let _ = self.sync_names();
                    dir = to;
                }
            }
            let _ = self.remove_dir_with_files(&dir);
        }
    }

    /// Creates the partitions, the first one last: without it, the next open takes the others for leftovers.
    fn create_partitions(
        self: &Arc<Self>,
        topic: &str,
        settings: &TopicSettings,
        created: &mut Vec<String>,
    ) -> Result<()> {
        self.allow_writing()?;
        if !self.leaving.lock().is_empty() {
            // A name that is on its way out and one that comes must not meet in a cut.
            self.sync_names()?;
        }
        let unknown = Recovering {
            is_clean: false,
            same_boot: false,
            had_checkpoint: true,
            saved: BTreeMap::new(),
            odd: Vec::new(),
        };
        let mut names = settings.names(topic);
        if !bug(Bug::CreateFirstPartitionFirst) {
            names.reverse();
        }
        for name in names {
            let dir = name.to_string();
            if name.partition == 0 && settings.partitions > 1 {
                // With the first partition's name the topic is there: a power cut must not keep that and lose another.
                self.sync_names()?;
            }
            let is_configured = name.partition == 0 && !settings.overrides.is_empty();
            if is_configured && !bug(Bug::ConfigureAfterCreation) {
                self.create_configured(&name, &settings.overrides, created)?;
            } else {
                self.storage.create_dir(&dir).map_err(Error::storage("create directory", &dir))?;
                created.push(dir.clone());
                if is_configured {
                    self.write_config(&dir, &settings.overrides)?;
                }
            }
            let (log, outcome) = self.open_log(name.clone(), &unknown)?;
            if let Some(failure) = outcome.failure {
                return Err(Error::PreviousIo { log: dir, reason: failure });
            }
            self.logs.write().insert(name, log);
        }
        self.sync_names()?;
        self.checkpoint()
    }

    /// Makes the first partition's directory with its configuration under a name that the next open removes, and
    /// gives it its own name when the configuration lasts: no cut leaves the topic with another configuration.
    fn create_configured(
        &self,
        name: &TopicPartition,
        overrides: &BTreeMap<String, String>,
        created: &mut Vec<String>,
    ) -> Result<()> {
        let (made, dir) = (deleted_name(name), name.to_string());
        self.storage.create_dir(&made).map_err(Error::storage("create directory", &made))?;
        created.push(made.clone());
        self.write_config(&made, overrides)?;
        self.storage.rename(&made, &dir).map_err(Error::storage("rename", &made))?;
        created.push(dir);
        Ok(())
    }

    pub(super) fn delete_topic(&self, topic: &str) -> Result<()> {
        self.check_writable()?;
        let Some(settings) = self.topics.read().get(topic).cloned() else {
            return Err(Error::UnknownTopicOrPartition { name: topic.to_owned() });
        };
        self.allow_writing()?;
        let mut doomed = Vec::new();
        if let Err(error) = self.rename_partitions(topic, &settings, &mut doomed) {
            // Some partitions are gone and the others are not: the names say which, and the next open or the next try
            // goes on from them. So nothing that has such a name is removed now.
            self.load_topics()?;
            return Err(error);
        }
        self.topics.write().remove(topic);
        // Told apart from directories that somebody else took away: these still stand there under their new names.
        if !bug(Bug::DeleteFilesAtOnce) {
            self.sync_names()?;
        }
        let told = self.checkpoint();
        // Under its own name a directory is gone when that is on the medium.
        let in_place = doomed.iter().any(|dir| deleted_partition(dir).is_none());
        for dir in doomed.into_iter().rev() {
            self.remove_dir_with_files(&dir)?;
        }
        if in_place {
            self.sync_names()?;
        }
        // A full disk that had no room to tell it before has now.
        told.or_else(|_| self.checkpoint())
    }

    /// Gives the partitions' directories the names of what is being deleted. The first partition's is the one that
    /// counts: once its new name lasts, an open after a cut takes the others away too.
    fn rename_partitions(&self, topic: &str, settings: &TopicSettings, doomed: &mut Vec<String>) -> Result<()> {
        for name in settings.names(topic) {
            let (from, to) = (name.to_string(), deleted_name(&name));
            let known = self.logs.read().contains_key(&name) || self.unopened.read().contains_key(&name);
            if !known {
                continue;
            }
            match self.storage.rename(&from, &to).map_err(Error::storage("rename", &from)) {
                Ok(()) => doomed.push(to),
                // btrfs needs room for a name and none to remove one: the files go from where they stand, and a crash
                // before the last of them leaves the rest as a topic still to be deleted.
                Err(error) if error.is_storage_full() => doomed.push(from),
                Err(error) => return Err(error),
            }
            let saved = self.logs.read().get(&name).map(|log| saved_log(log));
            let saved = saved.or_else(|| self.unopened.read().get(&name)?.0.clone());
            self.leaving.lock().extend(saved.map(|saved| (name.clone(), saved)));
            self.unopened.write().remove(&name);
            if let Some(log) = self.logs.write().remove(&name) {
                log.abandon();
            }
            if name.partition == 0 && settings.partitions > 1 {
                self.sync_names()?;
            }
        }
        Ok(())
    }

    pub(super) fn alter_topic(&self, topic: &str, changes: &[(&str, Option<&str>)]) -> Result<()> {
        self.check_writable()?;
        let mut topics = self.topics.write();
        let Some(settings) = topics.get_mut(topic) else {
            return Err(Error::UnknownTopicOrPartition { name: topic.to_owned() });
        };
        let mut overrides = settings.overrides.clone();
        for &(key, value) in changes {
            // Setting a key back needs the key to exist as much as setting it.
            let known = LogConfig::default().get(key).is_some();
            match value {
                Some(value) => drop(overrides.insert(key.to_owned(), value.to_owned())),
                None if known => drop(overrides.remove(key)),
                None => {
                    let value = "default".to_owned();
                    let source = LogConfig::default().set(key, "").expect_err("there is no such key");
                    return Err(Error::InvalidConfig { key: key.to_owned(), value, source });
                }
            }
        }
        let config = configure(self.topic_defaults, &overrides)?;
        self.write_config(&TopicPartition::new(topic, 0).to_string(), &overrides)?;
        (settings.overrides, settings.config) = (overrides, config);
        for name in settings.names(topic) {
            if let Some(log) = self.logs.read().get(&name) {
                log.set_config(config);
            }
        }
        Ok(())
    }

    /// Reads which topics there are from the names in the data directory.
    pub(super) fn load_topics(&self) -> Result<()> {
        let names = self.storage.read_dir("").map_err(Error::storage("list", "."))?;
        let mut topics: BTreeMap<String, TopicSettings> = BTreeMap::new();
        for entry in names.iter().filter(|entry| entry.is_dir) {
            if let Some(name) = TopicPartition::parse_dir(&entry.name).filter(|name| name.partition < PARTITIONS_MAX) {
                let settings = topics.entry(name.topic).or_default();
                settings.partitions = settings.partitions.max(name.partition + 1);
                settings.present.push(name.partition);
            }
        }
        for (topic, settings) in &mut topics {
            settings.present.sort_unstable();
            let dir = TopicPartition::new(topic.as_str(), 0).to_string();
            let read = read_config(&*self.storage, &dir);
            (settings.overrides, settings.config) = configure_leniently(self.topic_defaults, topic, read);
        }
        *self.topics.write() = topics;
        Ok(())
    }

    /// Removes what an unfinished deletion or creation has left behind. Returns the partitions, but for those of topics
    /// whose deletion is finished with that, and these topics.
    pub(super) fn remove_leftovers(
        &self,
        known: &BTreeMap<TopicPartition, SavedLog>,
    ) -> Result<(Vec<TopicPartition>, Vec<String>)> {
        let names = self.storage.read_dir("").map_err(Error::storage("list", "."))?;
        let mut removed = Vec::new();
        let dirs: Vec<&str> = names.iter().filter(|entry| entry.is_dir).map(|entry| entry.name.as_str()).collect();
        let is_leftover = |dir: &&&str| {
            deleted_partition(dir).is_some()
                || TopicPartition::parse_dir(dir).is_some_and(|name| self.is_unfinished(&dirs, &name))
        };
        let leftovers: Vec<&str> = dirs.iter().filter(is_leftover).copied().collect();
        if leftovers.is_empty() {
            return Ok((removed, Vec::new()));
        }
        // Their names may be in the cache alone: a cut must not bring a name back without its files.
        self.sync_names()?;
        let name_of = |dir: &str| {
            // A name that was cut short says by its hash which of the topics that there were it stands for.
            let deleted = known.keys().find(|name| is_deleted(dir, name)).cloned().or_else(|| deleted_partition(dir));
            deleted.or_else(|| TopicPartition::parse_dir(dir))
        };
        let going: Vec<TopicPartition> = leftovers.iter().filter_map(|dir| name_of(dir)).collect();
        // A creation that was cut short has no record, and is not in the checkpoint.
        let mut deleted: Vec<String> = leftovers
            .iter()
            .zip(&going)
            .filter(|(dir, name)| known.keys().any(|known| known.topic == name.topic) || self.has_records(dir))
            .map(|(_, name)| name.topic.clone())
            .collect();
        deleted.sort_unstable();
        deleted.dedup();
        // Where the checkpoint cannot be written, they go all the same: under their own names they would be a topic.
        let forgotten = self.forget_in_checkpoint(&going);
        if let Err(error) = forgotten {
            tracing::warn!(%error, "the checkpoint still names what a deletion that was cut short has left");
        }
        // Where one cannot be removed it takes room and nothing else; the next open tries again.
        for &dir in &leftovers {
            let unfinished = TopicPartition::parse_dir(dir).filter(|_| deleted_partition(dir).is_none());
            removed.extend(unfinished.filter(|_| self.remove_dir_with_files(dir).is_ok()));
        }
        if !removed.is_empty() {
            // Gone for good before what tells that they are to go.
            self.sync_names()?;
        }
        for &dir in &leftovers {
            if deleted_partition(dir).is_some() {
                removed.extend(name_of(dir).filter(|_| self.remove_dir_with_files(dir).is_ok()));
            }
        }
        removed.retain(|name| !deleted.contains(&name.topic));
        Ok((removed, deleted))
    }

    /// Whether a segment in the directory `dir` has any bytes.
    fn has_records(&self, dir: &str) -> bool {
        let files = self.storage.read_dir(dir).unwrap_or_default();
        files
            .iter()
            .filter(|file| parse_log_file(&file.name).is_some())
            .any(|file| self.storage.metadata(&format!("{dir}/{}", file.name)).is_ok_and(|meta| meta.len > 0))
    }

    /// A partition whose topic has no partition 0, because its deletion was cut short, or because its creation was
    /// and it has no records.
    fn is_unfinished(&self, dirs: &[&str], name: &TopicPartition) -> bool {
        let first = TopicPartition::new(name.topic.as_str(), 0);
        if name.partition == 0 || dirs.contains(&first.to_string().as_str()) {
            return false;
        }
        if dirs.iter().any(|dir| is_deleted(dir, &first)) {
            return true;
        }
        let dir = name.to_string();
        let files = self.storage.read_dir(&dir).unwrap_or_default();
        files
            .iter()
            .filter(|file| parse_log_file(&file.name).is_some())
            .all(|file| self.storage.metadata(&format!("{dir}/{}", file.name)).is_ok_and(|meta| meta.len == 0))
    }

    fn remove_dir_with_files(&self, dir: &str) -> Result<()> {
        let files = self.storage.read_dir(dir).map_err(Error::storage("list", dir))?;
        for file in files.iter().filter(|file| !file.is_dir) {
            let path = format!("{dir}/{}", file.name);
            self.storage.remove_file(&path).map_err(Error::storage("remove", &path))?;
        }
        self.storage.remove_dir(dir).map_err(Error::storage("remove directory", dir))
    }

    /// Writes the configuration under another name and puts it in place: a power cut leaves the old one or
    /// the new one.
    fn write_config(&self, dir: &str, overrides: &BTreeMap<String, String>) -> Result<()> {
        let path = format!("{dir}/{TOPIC_CONFIG}");
        let part = format!("{path}.part");
        let mut lines = String::new();
        for (key, value) in overrides {
            lines.extend([key, "=", value, "\n"]);
        }
        let text = format!("{CHECKSUM_LINE}{:08x} of the lines below\n{lines}", crc32fast::hash(lines.as_bytes()));
        let _ = self.storage.remove_file(&part);
        let file = self.storage.open(&part, Access::CreateNew).map_err(Error::storage("create", &part))?;
        file.write_at(text.as_bytes(), 0).and_then(|()| file.flush()).map_err(Error::storage("write", &part))?;
        self.storage.rename(&part, &path).map_err(Error::storage("swap in", &path))?;
        self.storage.sync_dir(dir).map_err(Error::storage("sync directory", dir))
    }
}

/// The keys in a topic's configuration file; none where there is no such file.
///
/// # Errors
/// What reading it answers, and `InvalidData` for text that is not `key=value` lines.
pub(crate) fn read_config(storage: &dyn Storage, dir: &str) -> io::Result<BTreeMap<String, String>> {
    let file = match storage.open(&format!("{dir}/{TOPIC_CONFIG}"), Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        file => file?,
    };
    let mut bytes = vec![0; file.len()?.min(CONFIG_BYTES_MAX) as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    let text = String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if let Some((first, rest)) = text.strip_prefix(CHECKSUM_LINE).and_then(|text| text.split_once('\n')) {
        let written = first.split(' ').next().and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if written != Some(crc32fast::hash(rest.as_bytes())) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum in its first line does not hold"));
        }
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut pairs = BTreeMap::new();
    for line in lines {
        let (key, value) = line.split_once('=').ok_or(io::ErrorKind::InvalidData)?;
        pairs.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(pairs)
}

/// The partition whose directory is being deleted under the name `dir`; the topic's name may be cut short.
pub(crate) fn deleted_partition(dir: &str) -> Option<TopicPartition> {
    let (name, _) = dir.strip_suffix(DELETE_SUFFIX)?.rsplit_once('.')?;
    TopicPartition::parse_dir(name)
}

/// Whether `name` is being deleted under the name `dir`.
fn is_deleted(dir: &str, name: &TopicPartition) -> bool {
    let Some(short) = deleted_partition(dir).filter(|short| short.partition == name.partition) else { return false };
    short.topic == name.topic
        || (name.topic.starts_with(&short.topic)
            && dir.trim_end_matches(DELETE_SUFFIX).rsplit('.').next().is_some_and(|id| id.starts_with(&hash_of(name))))
}

/// Eight digits that tell one topic's name from another that begins alike.
fn hash_of(name: &TopicPartition) -> String {
    format!("{:08x}", crc32fast::hash(name.topic.as_bytes()))
}

/// The name of a partition's directory while it is deleted: as in Kafka, the topic's name is cut where it would
/// get too long. Half of the sixteen digits are the whole name's hash, the others are random.
fn deleted_name(name: &TopicPartition) -> String {
    const NAME_LEN_MAX: usize = 255;
    let suffix = format!("-{}.{}{}{DELETE_SUFFIX}", name.partition, hash_of(name), hex(&random_id()[..4]));
    let topic = &name.topic[..name.topic.len().min(NAME_LEN_MAX - suffix.len())];
    format!("{topic}{suffix}")
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
