//! Topics: creating, deleting, describing, and their configuration, kept as `key=value` lines in the directory of
//! partition 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgelog_core::LogConfig;

use super::ours::{self, deleted_name, is_deleted_name, is_partition, remove_partition};
use super::random_id::random_id;
use super::report::RecoveryReport;
use super::settings::{
    Marker, Overrides, RECORDED_FILE, Settings, read_marker, read_settings, write_marker, write_settings,
};
use super::shared::{Recovering, StoreShared};
use super::topic::{Loaded, NewTopic, PARTITIONS_MAX, TopicSettings, configure, configure_leniently};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::log::{Log, LogHost, Origin, SavedLog, TopicPartition, check_topic_name};
use crate::segment::file_names::{OWN_FILE, TOPIC_CONFIG};
use crate::sorted::sorted;
use crate::storage::{Access, LEADS_NOWHERE};
use crate::sync::Ordering;

impl StoreShared {
    #[inline(never)]
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
        let settings = TopicSettings { partitions: topic.partitions, present, overrides, config, suspended: None };
        {
            // Holding the name from here on: of two callers that create a topic, one gets the error that it exists.
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
            self.undo_creation(dirs);
        }
        self.coming.lock().retain(|coming| *coming != topic.name);
        created
    }

    /// Removes directories of an unfinished creation, the newest first, and only those: one that was in the way is
    /// another program's. As in a deletion, the first partition's name goes for good before any other does, and every
    /// name before its files: the checkpoint may know the logs, and a cut must not bring a name back without its files.
    fn undo_creation(&self, created: Vec<(String, TopicPartition)>) {
        let (mut in_place, mut doomed) = (false, Vec::new());
        for (dir, name) in created.into_iter().rev() {
            let is_placed = TopicPartition::parse_dir(&dir).is_some();
            let to = deleted_name(&name, random_id());
            if !is_placed || self.storage.rename(&dir, &to).is_err() {
                in_place |= is_placed;
                doomed.push((dir, name));
                continue;
            }
            if name.partition == 0 {
                let _ = self.sync_names();
            }
            doomed.push((to, name));
        }
        let _ = self.sync_names();
        for (dir, name) in doomed {
            let _ = remove_partition(&*self.storage, &dir, &name);
        }
        if in_place {
            // Under its own name a directory is gone when that is on the disk.
            let _ = self.sync_names();
        }
    }

    /// Creates the partitions, the first one last: without it, the next open takes the others for leftovers.
    fn create_partitions(
        self: &Arc<Self>,
        topic: &str,
        settings: &TopicSettings,
        created: &mut Vec<(String, TopicPartition)>,
    ) -> Result<()> {
        self.allow_writing()?;
        if !self.leaving.lock().is_empty() {
            // A name that is on its way out and one that comes must not meet in a cut.
            self.sync_names()?;
        }
        self.keep_recorded()?;
        let unknown = Recovering {
            is_clean: false,
            same_boot: false,
            had_checkpoint: true,
            slots: [false; 2],
            saved: BTreeMap::new(),
            odd: Vec::new(),
        };
        let creation = format!("{:x}", random_id());
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
            self.create_marked(&name, &creation, &settings.overrides, created)?;
            let (log, outcome) = self.open_log(name.clone(), &unknown)?;
            if let Some(failure) = outcome.failure {
                return Err(Error::PreviousIo { log: dir, reason: failure });
            }
            self.logs.write().insert(name, log);
        }
        self.sync_names()?;
        self.checkpoint()
    }

    /// Makes a partition's directory, with the file that proves it to be ours and the first one with the settings,
    /// under a name that the next open removes, and gives it its own name when these last: no cut leaves the topic with
    /// other settings, nor a directory of unknown origin.
    fn create_marked(
        &self,
        name: &TopicPartition,
        creation: &str,
        overrides: &Overrides,
        created: &mut Vec<(String, TopicPartition)>,
    ) -> Result<()> {
        let (made, dir) = (deleted_name(name, random_id()), name.to_string());
        self.storage.create_dir(&made).map_err(Error::storage("create directory", &made))?;
        created.push((made.clone(), name.clone()));
        let is_first = name.partition == 0;
        let settings = is_first.then(|| overrides.clone());
        let marker = Marker { name: name.clone(), creation: creation.to_owned(), is_created: true, settings };
        let configure_late = bug(Bug::ConfigureAfterCreation);
        if !configure_late {
            write_marker(&*self.storage, &made, &marker)?;
            if is_first {
                write_settings(&*self.storage, &made, overrides)?;
            }
        }
        // Of an earlier log of this name a cut removal may have left the empty directory.
        let is_empty = || self.storage.read_dir(&dir).is_ok_and(|files| files.is_empty());
        if !self.storage.is_link(&dir) && is_empty() {
            self.storage.remove_dir(&dir).map_err(Error::storage("remove directory", &dir))?;
        }
        if let Some(reason) = ours::only_swap(&*self.storage, &dir) {
            let source = std::io::Error::new(std::io::ErrorKind::AlreadyExists, reason);
            return Err(Error::storage("create directory", &dir)(source));
        }
        self.storage.rename(&made, &dir).map_err(Error::storage("rename", &made))?;
        created.push((dir.clone(), name.clone()));
        if configure_late {
            write_marker(&*self.storage, &dir, &marker)?;
            if is_first {
                write_settings(&*self.storage, &dir, overrides)?;
            }
        }
        Ok(())
    }

    #[inline(never)]
    pub(super) fn delete_topic(&self, topic: &str) -> Result<()> {
        self.check_writable()?;
        let Some(settings) = self.topics.read().get(topic).cloned() else {
            return Err(Error::UnknownTopicOrPartition { name: topic.to_owned() });
        };
        for name in settings.names(topic).iter().filter(|name| self.storage.leads_nowhere(&name.to_string())) {
            // Its files would stay where its disk is, and nothing would name them any more.
            if let Some((_, source)) = self.unopened.read().get(name) {
                return Err(Error::NotOpened { log: name.to_string(), source: Arc::clone(source) });
            }
        }
        self.allow_writing()?;
        self.mark_partitions(topic, &settings);
        let mut doomed = Vec::new();
        if let Err(error) = self.rename_partitions(topic, &settings, &mut doomed) {
            // Some partitions are gone and the others are not: the names say which, and the next open or the next try
            // goes on from them. So nothing that has such a name is removed now. The settings in force stay in force.
            self.keep_what_is_left_of(topic);
            return Err(error);
        }
        self.topics.write().remove(topic);
        // That distinguishes them from directories that were removed from outside: these still stand there under their
        // new names.
        if !bug(Bug::DeleteFilesAtOnce) {
            self.sync_names()?;
        }
        let recorded = self.checkpoint();
        // Under its own name a directory is gone when that is on the disk.
        let in_place = doomed.iter().any(|(dir, _)| !is_deleted_name(dir));
        for (dir, name) in doomed.into_iter().rev() {
            remove_partition(&*self.storage, &dir, &name)?;
        }
        if in_place {
            self.sync_names()?;
        }
        // On a full disk there was no room to record it before. There is now.
        recorded.or_else(|_| self.checkpoint())
    }

    /// A deletion failed: the topic has the partitions from now on that still have their names, if any.
    fn keep_what_is_left_of(&self, topic: &str) {
        let mut topics = self.topics.write();
        let Some(settings) = topics.get_mut(topic) else { return };
        settings.present.retain(|&partition| {
            let name = TopicPartition::new(topic, partition);
            self.logs.read().contains_key(&name) || self.unopened.read().contains_key(&name)
        });
        settings.partitions = settings.present.last().map_or(0, |last| last + 1);
        if settings.present.is_empty() {
            topics.remove(topic);
        }
    }

    /// Sees to it that a cut in the middle of the topic's deletion leaves directories that are known to be ours. Those
    /// of an older version, and those that were copied here, have no file that says so. Where it cannot be written (a
    /// full disk), what a cut leaves is not removed by the next open, but named.
    fn mark_partitions(&self, topic: &str, settings: &TopicSettings) {
        let (mut creation, mut unmarked) = (None, Vec::new());
        // What a link leads to is removed where it says by itself whose it is: nothing is written there to prove it.
        let own = settings.names(topic).into_iter().filter(|name| !self.storage.is_link(&name.to_string()));
        for name in own {
            match read_marker(&*self.storage, &name.to_string()) {
                Ok(Some(marker)) if marker.name == name => creation = creation.or(Some(marker.creation)),
                Ok(_) => unmarked.push(name),
                // One that cannot be read now is not replaced: it says to which creation the directory belongs.
                Err(error) => tracing::debug!(%name, %error, "the mark of a directory that is about to go is unknown"),
            }
        }
        let creation = creation.unwrap_or_else(|| format!("{:x}", random_id()));
        for name in unmarked {
            let dir = name.to_string();
            let settings = (name.partition == 0 && settings.suspended.is_none()).then(|| settings.overrides.clone());
            if let Err(error) = write_marker(
                &*self.storage,
                &dir,
                &Marker { name, creation: creation.clone(), is_created: false, settings },
            ) {
                tracing::debug!(dir, %error, "a directory that is about to go was not marked");
            }
        }
    }

    /// Gives the partitions' directories the names of what is being deleted. The first partition's is the one that
    /// counts: once its new name lasts, an open after a cut takes the others away too.
    fn rename_partitions(
        &self,
        topic: &str,
        settings: &TopicSettings,
        doomed: &mut Vec<(String, TopicPartition)>,
    ) -> Result<()> {
        for name in settings.names(topic) {
            let (from, to) = (name.to_string(), deleted_name(&name, random_id()));
            let known = self.logs.read().contains_key(&name) || self.unopened.read().contains_key(&name);
            if !known {
                continue;
            }
            match self.storage.rename(&from, &to).map_err(Error::storage("rename", &from)) {
                Ok(()) => doomed.push((to, name.clone())),
                // btrfs needs room for a name and none to remove one: the files go from where they stand, and a crash
                // before the last of them leaves the rest as a topic still to be deleted. The checkpoint knows nothing
                // of it then, and a tail that was never flushed would look like damage.
                Err(error) if error.is_storage_full() => {
                    let log = self.logs.read().get(&name).cloned();
                    log.map_or(Ok(()), |shared| Log { shared }.flush())?;
                    doomed.push((from, name.clone()));
                }
                Err(error) => return Err(error),
            }
            let saved = self.logs.read().get(&name).and_then(|log| log.to_save());
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

    #[inline(never)]
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
        if settings.suspended.is_some() {
            // What was not deleted until now is deleted when a key says so, and not because another one was set.
            for key in ["retention.ms", "retention.bytes"] {
                if !changes.iter().any(|(changed, _)| *changed == key) {
                    overrides.insert(key.to_owned(), "-1".to_owned());
                }
            }
        }
        let config = configure(self.topic_defaults, &overrides)?;
        let name = TopicPartition::new(topic, settings.present.first().copied().unwrap_or(0));
        let dir = name.to_string();
        if self.storage.is_link(&dir) {
            if let Some((_, source)) = self.unopened.read().get(&name) {
                // The settings stand in a directory that is not written here.
                return Err(Error::NotOpened { log: dir, source: Arc::clone(source) });
            }
        }
        self.record_settings(&name, &overrides)?;
        // The change counts from here on.
        write_settings(&*self.storage, &dir, &overrides)?;
        (settings.overrides, settings.config, settings.suspended) = (overrides, config, None);
        for name in settings.names(topic) {
            if let Some(log) = self.logs.read().get(&name) {
                log.set_config(config);
            }
        }
        Ok(())
    }

    /// Writes a topic's settings to the file that keeps its second copy.
    fn record_settings(&self, name: &TopicPartition, overrides: &Overrides) -> Result<()> {
        let dir = name.to_string();
        let marker = read_marker(&*self.storage, &dir).ok().flatten().filter(|marker| marker.name == *name);
        let unknown =
            || Marker { name: name.clone(), creation: format!("{:x}", random_id()), is_created: false, settings: None };
        let marker = Marker { settings: Some(overrides.clone()), ..marker.unwrap_or_else(unknown) };
        write_marker(&*self.storage, &dir, &marker)
    }

    /// Reads which topics there are from the names in the data directory. `known` are the logs of the checkpoint, where
    /// they are not open yet.
    pub(super) fn load_topics(&self, known: &BTreeMap<TopicPartition, SavedLog>) -> Result<Loaded> {
        let names = self.storage.read_dir("").map_err(Error::storage("list", "."))?;
        let is_known = |name: &TopicPartition| {
            known.contains_key(name)
                || self.logs.read().contains_key(name)
                || self.unopened.read().contains_key(name)
                || self.coming.lock().contains(&name.topic)
        };
        let mut partitions: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for entry in &names {
            if let Some(name) = TopicPartition::parse_dir(&entry.name).filter(|name| name.partition < PARTITIONS_MAX) {
                if !entry.is_dir {
                    // A link to a disk that is away: the log is still this store's.
                    if is_known(&name) && self.storage.leads_nowhere(&entry.name) {
                        partitions.entry(name.topic).or_default().push(name.partition);
                    }
                } else if is_known(&name) || is_partition(&*self.storage, &entry.name) || bug(Bug::DeleteByName) {
                    partitions.entry(name.topic).or_default().push(name.partition);
                }
            }
        }
        let mut loaded = Loaded::default();
        let is_recorded = self.is_recorded();
        let mut topics = BTreeMap::new();
        for (topic, present) in partitions {
            let present = sorted(present);
            let first = TopicPartition::new(topic.as_str(), present[0]);
            let is_own = known.get(&first).is_some_and(|saved| saved.origin == Origin::Own);
            let may_adopt = !is_recorded && (is_own || self.attached || bug(Bug::TrustAnEmptySettingsFile));
            let mut settings = self.load_settings(&first, may_adopt, &mut loaded);
            // Where its files cannot be read any more, or are about to go, the settings in force stay in force.
            let before = self.topics.read().get(&topic).filter(|before| before.suspended.is_none()).cloned();
            if let Some(before) =
                before.filter(|before| settings.suspended.is_some() || before.present.first() != present.first())
            {
                settings = before;
            }
            settings.partitions = present.last().map_or(0, |last| last + 1);
            settings.present = present;
            if !is_recorded {
                let is_unmarked = |name: &TopicPartition| {
                    *name != first
                        && known.get(name).is_some_and(|saved| saved.origin == Origin::Own)
                        && matches!(read_marker(&*self.storage, &name.to_string()), Ok(None))
                };
                loaded.unmarked.extend(settings.names(&topic).into_iter().filter(is_unmarked));
            }
            loaded.suspended.extend(settings.suspended.clone().map(|why| (topic.clone(), why)));
            topics.insert(topic, settings);
        }
        *self.topics.write() = topics;
        Ok(loaded)
    }

    /// Attached: the partitions that the checkpoint names now and that have no directory.
    pub(super) fn find_missing(&self) -> Result<Vec<TopicPartition>> {
        let known = self.followed.lock().now(&*self.storage)?.logs.clone();
        let names = self.storage.read_dir("").map_err(Error::storage("list", "."))?;
        let is_there = |name: &TopicPartition| {
            let dir = name.to_string();
            names.iter().any(|entry| entry.name == dir && (entry.is_dir || self.storage.leads_nowhere(&dir)))
        };
        let mut missing: Vec<TopicPartition> = known.keys().filter(|name| !is_there(name)).cloned().collect();
        if !missing.is_empty() {
            let leftovers = ours::survey(&*self.storage, &names, &known);
            missing.retain(|name| !leftovers.deleted.iter().any(|(_, deleted)| deleted.topic == name.topic));
        }
        Ok(missing)
    }

    /// A topic's settings from the files of its first partition.
    fn load_settings(&self, first: &TopicPartition, may_adopt: bool, loaded: &mut Loaded) -> TopicSettings {
        let dir = first.to_string();
        let (read, doubt) = match read_settings(&*self.storage, &dir) {
            Settings::Absent if self.storage.leads_nowhere(&dir) => {
                (Overrides::new(), Some(format!("{dir}: {LEADS_NOWHERE}")))
            }
            Settings::Known { overrides, heal } => {
                loaded.heal.extend(heal.map(|(file, why)| (first.topic.clone(), file, why)));
                (overrides, None)
            }
            // Until this version, a topic without keys had no file.
            Settings::Absent if may_adopt || bug(Bug::TrustAnEmptySettingsFile) => {
                loaded.adopted.push(first.topic.clone());
                (Overrides::new(), None)
            }
            Settings::Absent => (Overrides::new(), Some(format!("{TOPIC_CONFIG} and {OWN_FILE} are missing"))),
            Settings::Damaged(reason) => (Overrides::new(), Some(reason)),
        };
        configure_leniently(self.topic_defaults, read, doubt)
    }

    /// Writes the files of settings again that were found lost or damaged, and those that topics of an older version do
    /// not have. The report gets what was lost and is there again, by path, and why it was written; and what could not
    /// be written.
    pub(super) fn heal_settings(&self, loaded: &Loaded, report: &mut RecoveryReport) {
        let mut all_recorded = true;
        let is_refused = |name: &TopicPartition| self.unopened.read().contains_key(name);
        for (topic, file, why) in &loaded.heal {
            let Some(settings) = self.topics.read().get(topic).cloned() else { continue };
            let name = TopicPartition::new(topic.as_str(), settings.present[0]);
            if settings.suspended.is_some() || is_refused(&name) {
                continue;
            }
            let dir = name.to_string();
            let written = if *file == TOPIC_CONFIG {
                write_settings(&*self.storage, &dir, &settings.overrides)
            } else {
                self.record_settings(&name, &settings.overrides)
            };
            match written {
                // The copy follows what a person or an older version wrote; and a store of that has none yet.
                Ok(()) if *file == OWN_FILE && (!why.contains("damaged") || !self.is_recorded()) => {}
                Ok(()) => report.healed.push((format!("{dir}/{file}"), why.clone())),
                Err(error) => {
                    all_recorded = false;
                    tracing::warn!(dir, file, %error, "a file of settings could not be written again");
                    report.unhealed.push((format!("{dir}/{file}"), format!("{why}: {error}")));
                }
            }
        }
        for topic in &loaded.adopted {
            let Some(settings) = self.topics.read().get(topic).cloned() else { continue };
            let name = TopicPartition::new(topic.as_str(), settings.present[0]);
            if is_refused(&name) {
                all_recorded = false;
                continue;
            }
            let written = self
                .record_settings(&name, &settings.overrides)
                .and_then(|()| write_settings(&*self.storage, &name.to_string(), &settings.overrides));
            if let Err(error) = written {
                all_recorded = false;
                tracing::warn!(topic, %error, "a topic's settings could not be recorded");
            }
        }
        for name in loaded.unmarked.iter().filter(|name| !is_refused(name)) {
            let marker = Marker { name: name.clone(), creation: String::new(), is_created: false, settings: None };
            if let Err(error) = write_marker(&*self.storage, &name.to_string(), &marker) {
                all_recorded = false;
                tracing::warn!(log = %name, %error, "a log of an older version could not be marked as this store's");
            }
        }
        if all_recorded && !self.topics.read().is_empty() {
            if let Err(error) = self.keep_recorded() {
                tracing::warn!(%error, "that all settings are recorded was not");
            }
        }
    }

    /// By the file, or by the checkpoint where that is lost.
    fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire) || self.storage.metadata(RECORDED_FILE).is_ok()
    }

    /// Every topic has its settings in two files from here on: makes that last.
    fn keep_recorded(&self) -> Result<()> {
        if self.storage.metadata(RECORDED_FILE).is_err() {
            match self.storage.open(RECORDED_FILE, Access::CreateNew) {
                Ok(_) => self.sync_names()?,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::storage("create", RECORDED_FILE)(error)),
            }
        }
        self.recorded.store(true, Ordering::Release);
        Ok(())
    }

    /// Removes what an unfinished creation or deletion has left behind, as far as it is proved to be this store's. The
    /// answer names what is gone, and what stays.
    ///
    /// # Durability
    /// The checkpoint forgets what goes before its files do, so that no open after a cut misses them; and a directory
    /// that the checkpoint alone proved to be ours says so itself before.
    pub(super) fn remove_leftovers(&self, known: &BTreeMap<TopicPartition, SavedLog>) -> Result<ours::Leftovers> {
        let names = self.storage.read_dir("").map_err(Error::storage("list", "."))?;
        let mut found = ours::survey(&*self.storage, &names, known);
        if found.unfinished.is_empty() && found.deleted.is_empty() {
            return Ok(found);
        }
        // Their names may be in the cache alone: a cut must not bring a name back without its files.
        self.sync_names()?;
        let unfinished = found.unfinished.iter().map(|name| (name.to_string(), name.clone()));
        for (dir, name) in found.deleted.iter().cloned().chain(unfinished) {
            if known.contains_key(&name) {
                self.mark_forgotten(&dir, name);
            }
        }
        // Where the checkpoint cannot be written, they go all the same: under their own names they would be a topic.
        if let Err(error) = self.forget_in_checkpoint(&found.gone) {
            tracing::warn!(%error, "the checkpoint still names what a deletion that was cut short has left");
        }
        let remove = |dir: &str, name: &TopicPartition| {
            let removed = remove_partition(&*self.storage, dir, name);
            if let Err(error) = &removed {
                // It takes room and nothing else; the next open tries again.
                tracing::warn!(dir, %error, "what an unfinished creation or deletion left could not be removed");
            }
            removed.is_ok()
        };
        found.unfinished.retain(|name| remove(&name.to_string(), name));
        if !found.unfinished.is_empty() {
            // Gone for good before what says that they are to go.
            self.sync_names()?;
        }
        found.deleted.retain(|(dir, name)| remove(dir, name));
        Ok(found)
    }

    /// Sees to it that the directory `dir`, which is to be removed, is known to be ours without the checkpoint.
    fn mark_forgotten(&self, dir: &str, name: TopicPartition) {
        let is_marked = || matches!(read_marker(&*self.storage, dir), Ok(Some(marker)) if marker.name == name);
        if self.storage.is_link(dir) || is_marked() {
            return;
        }
        let marker = Marker { name, creation: String::new(), is_created: false, settings: None };
        if let Err(error) = write_marker(&*self.storage, dir, &marker) {
            tracing::debug!(dir, %error, "a directory that is about to go was not marked");
        }
    }

    /// Takes logs out of the checkpoint whose files are about to be removed: an open after the next cut must not miss
    /// them.
    fn forget_in_checkpoint(&self, names: &BTreeSet<TopicPartition>) -> Result<()> {
        let mut state = self.checkpoint.lock();
        let mut checkpoint = state.written.clone();
        for name in names {
            checkpoint.logs.remove(name);
        }
        if checkpoint == state.written || bug(Bug::RemoveBeforeTheCheckpointForgets) {
            return Ok(());
        }
        checkpoint.clean = false;
        checkpoint.boot_id = self.storage.boot_id();
        let file = state.file.as_mut().ok_or(Error::Closed)?;
        file.write(&checkpoint)?;
        state.written = checkpoint;
        Ok(())
    }
}
