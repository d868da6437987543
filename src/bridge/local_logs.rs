//! The local logs that are to be sent: which there are, and whether each is still the one that was begun with.
//!
//! A topic may be deleted and created again while a bridge runs, and a whole store removed and made again. The
//! store's checkpoint names the identity of each log, so that one look at it shows either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::LogId;

use super::config::BridgeConfig;
use super::error::{BridgeError, Result};
use super::event::BridgeEvent;
use super::log_position::LogPosition;
use super::own_files::OwnFiles;
use super::partition;
use super::partition_sender::PartitionSender;
use super::pause_reason::PauseReason;
use super::session::Session;
use crate::error::Error;
use crate::kafka::CoordinatorKey;
use crate::{Store, TopicPartition, topic_matches};

/// So often is looked whether logs are still the ones they were.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct LocalLogs {
    store: Arc<Store>,
    /// When was looked whether they are still the ones they were.
    looked_at: Option<Instant>,
    /// Logs that are to be sent and cannot be read at all: the target topic of each, and why.
    unreadable: BTreeMap<TopicPartition, (String, PauseReason)>,
    /// How many logs of the store are not to be sent.
    not_selected: usize,
}

impl LocalLogs {
    pub(super) fn new(store: Arc<Store>) -> LocalLogs {
        LocalLogs { store, looked_at: None, unreadable: BTreeMap::new(), not_selected: 0 }
    }

    /// Whether each name that is to be sent is one of a topic here, and any topic is one that is to be sent. Else a
    /// name is likely wrong. Next to what is here, a pattern may match nothing yet.
    pub(super) fn check_topics(&self, config: &BridgeConfig) -> Result<()> {
        let mut names: Vec<String> = self.store.topics()?.into_iter().map(|topic| topic.name).collect();
        names.retain(|name| !name.starts_with("__"));
        let lost: Vec<String> = self.store.missing_partitions()?.into_iter().map(|missing| missing.topic).collect();
        let is_here = |pattern: &str| names.iter().chain(&lost).any(|name| topic_matches(pattern, name));
        let is_any_here = config.topics.iter().any(|pattern| is_here(pattern));
        let may_be_absent = |pattern: &str| is_any_here && pattern.contains(['*', '?']);
        let wrong = config.topics.iter().map(String::as_str).filter(|name| !is_here(name) && !may_be_absent(name));
        let wrong: Vec<&str> = wrong.collect();
        if wrong.is_empty() { Ok(()) } else { Err(BridgeError::NoTopics { patterns: wrong.join(","), names }) }
    }

    /// Which log each name is of, as far as that is durable.
    pub(super) fn lasting_ids(&self) -> Result<BTreeMap<TopicPartition, LogId>> {
        Ok(self.store.lasting_ids()?)
    }

    /// The local logs that are to be sent: adds a sender for each that has none, and names all of them in the progress
    /// file.
    pub(super) fn find(
        &mut self,
        session: &mut Session,
        files: &mut OwnFiles,
        senders: &mut Vec<PartitionSender>,
    ) -> Result<()> {
        self.look_at_identities(session, files, senders)?;
        let config = session.config();
        self.unreadable.clear();
        // A store that was removed may be made again: what is there then is looked at once the bridge's own files are
        // there, too.
        if files.is_replaced() {
            self.place(session, senders);
            return Ok(());
        }
        let remote_of = |topic: &str| partition::remote_name(&config.to, &config.device, topic);
        self.not_selected = 0;
        for missing in self.store.missing_partitions()? {
            if !config.sends(&missing.topic) {
                self.not_selected += 1;
            } else if !senders.iter().any(|sender| *sender.name() == missing) {
                let why = (remote_of(&missing.topic), PauseReason::DirectoryMissing);
                self.unreadable.insert(missing, why);
            }
        }
        for topic in self.store.topics()? {
            if !config.sends(&topic.name) {
                self.not_selected += topic.partition_ids.len();
                continue;
            }
            for &number in &topic.partition_ids {
                let name = TopicPartition::new(topic.name.as_str(), number);
                if senders.iter().any(|sender| *sender.name() == name) {
                    continue;
                }
                let log = match self.store.log(&name.topic, number) {
                    Ok(log) => log,
                    Err(Error::UnknownTopicOrPartition { .. }) => {
                        let why = (remote_of(&name.topic), PauseReason::NoSegmentFiles);
                        self.unreadable.insert(name, why);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let remote = remote_of(&name.topic);
                let group = CoordinatorKey::Group(config.group_id(&name));
                let mut sender = PartitionSender::new(name, log, group, remote).within(&self.store);
                sender.inherit_failed_flush(files.failed_flushes());
                senders.push(sender);
            }
        }
        files.progress().set_device(&session.config().device);
        // Before the cluster is reached: from here on, retention keeps what is to be sent. (A damaged file holds
        // everything, and stays as evidence.)
        if !files.progress().is_damaged() {
            for sender in &*senders {
                files.progress().hold(sender.name(), sender.remote(), sender.log_start());
            }
            // Behind them: what was there before the bridge came began where it begins now.
            files.progress().hold_topics(&session.config().topics);
            files.write_progress()?;
        }
        self.place(session, senders);
        Ok(())
    }

    /// Has the metrics say where each log stands.
    pub(super) fn place(&self, session: &Session, senders: &[PartitionSender]) {
        session.metrics().place(senders, &self.unreadable, self.not_selected);
    }

    /// How far each log is delivered.
    pub(super) fn positions(&self, senders: &[PartitionSender]) -> Vec<LogPosition> {
        let unreadable =
            self.unreadable.iter().map(|(log, (_, reason))| LogPosition::unreadable(log.clone(), reason.clone()));
        let mut positions: Vec<LogPosition> =
            senders.iter().map(PartitionSender::delivered).chain(unreadable).collect();
        positions.sort_by(|a, b| a.log.cmp(&b.log));
        positions
    }

    /// Which logs wait for a person, and why.
    pub(super) fn waiting(&self, senders: &[PartitionSender]) -> Vec<(TopicPartition, PauseReason)> {
        let waiting = senders.iter().filter_map(|sender| Some((sender.name().clone(), sender.waits()?)));
        let unreadable = self.unreadable.iter().map(|(log, (_, reason))| (log.clone(), reason.clone()));
        waiting.chain(unreadable).collect()
    }

    /// Whether there are logs that have to be placed: new ones, or others under the names of those that were sent.
    /// Looks once in a second at most.
    pub(super) fn notice_changes(
        &mut self,
        session: &mut Session,
        files: &mut OwnFiles,
        senders: &mut [PartitionSender],
    ) -> Result<bool> {
        if self.looked_at.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(false);
        }
        self.look_at_identities(session, files, senders)
    }

    fn look_at_identities(
        &mut self,
        session: &mut Session,
        files: &mut OwnFiles,
        senders: &mut [PartitionSender],
    ) -> Result<bool> {
        self.looked_at = Some(Instant::now());
        // What cannot be read there is reported of the logs themselves.
        let Ok(known) = self.store.lasting_ids() else { return Ok(false) };
        let is_moved = !known.is_empty() && files.move_if_replaced()?;
        // What is found there is taken over once the bridge's lock and files are there, too.
        let is_away = !is_moved && files.is_replaced();
        let is_attached = senders.iter().any(|sender| sender.log().is_attached());
        let mut changed = is_moved;
        let mut store = None;
        for sender in &mut *senders {
            match known.get(sender.name()) {
                Some(_) if is_away => {}
                Some(id) if !is_moved && *id == sender.log().id() && !sender.is_cut_off() => {
                    // Of a deletion that a stop has cut short, none is missing.
                    let is_missing = files.lacks_directory_of(sender.name())
                        && self.store.missing_partitions().is_ok_and(|missing| missing.contains(sender.name()));
                    changed |= sender.note_directory(!is_missing);
                }
                Some(id) => {
                    let store: &Arc<Store> = match &store {
                        Some(store) => store,
                        None => store.insert(self.store_of_now(is_attached, files)?),
                    };
                    changed |= take_over(session, files, sender, *id, store);
                }
                None if !sender.is_gone() && files.lacks_directory_of(sender.name()) => {
                    sender.mark_deleted();
                    changed = true;
                }
                None => {}
            }
        }
        self.store = store.unwrap_or_else(|| Arc::clone(&self.store));
        if !known.is_empty() {
            // Between two looks at the names of all topics.
            self.not_selected = known.keys().filter(|log| !session.config().sends(&log.topic)).count();
        }
        let is_new = |log: &TopicPartition| {
            let is_known = self.unreadable.contains_key(log) || senders.iter().any(|sender| sender.name() == log);
            !is_known && session.config().sends(&log.topic)
        };
        Ok(changed || !is_away && known.keys().any(is_new))
    }

    /// The store as it is now. One that is attached keeps its logs by name, and with them what was there before.
    fn store_of_now(&self, is_attached: bool, files: &OwnFiles) -> Result<Arc<Store>> {
        if is_attached { Ok(Arc::new(Store::attach(files.dir())?)) } else { Ok(Arc::clone(&self.store)) }
    }
}

/// Goes on with the log that has this name now. `false` where it is not there yet.
fn take_over(
    session: &mut Session,
    files: &mut OwnFiles,
    sender: &mut PartitionSender,
    id: LogId,
    store: &Arc<Store>,
) -> bool {
    let name = sender.name().clone();
    let log = match store.log(&name.topic, name.partition) {
        Ok(log) if log.id() == id => log,
        Ok(_) | Err(Error::UnknownTopicOrPartition { .. }) => return false,
        Err(error) => {
            sender.pause(PauseReason::of_local_log(&error));
            return false;
        }
    };
    if let Some((not_sent, looked_ms_before)) = sender.take_over(log, store, files.failed_flushes()) {
        session.report(&BridgeEvent::LogReplaced { log: name, not_sent, looked_ms_before });
    }
    true
}
