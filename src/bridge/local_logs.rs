//! The local logs that are to be sent: which there are, and whether each is still the one that was begun with.
//!
//! A topic may be deleted and created again while a bridge runs, and a whole store removed and made again. The
//! store's checkpoint names the identity of each log, so that one look at it shows either.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{BridgeError, Result};
use super::event::BridgeEvent;
use super::home::Home;
use super::log_position::LogPosition;
use super::partition;
use super::partition_sender::{PartitionSender, Presence};
use super::pause_reason::PauseReason;
use super::progress_file::{LogProgress, ProgressFile};
use super::uplink::Uplink;
use crate::error::Error;
use crate::kafka::CoordinatorKey;
use crate::store::failed_flushes::{BRIDGE_FILE, FailedFlushes};
use crate::{Store, TopicPartition, topic_matches};

/// So often is looked whether logs are still the ones they were.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A directory without the bridge's lock may be in the course of being removed: it is left alone for so long, or
/// its removal would meet a file that was not there before.
const REMOVED_WITHIN: Duration = Duration::from_secs(2);

impl Uplink {
    /// Whether any topic of the store is one that is to be sent. Where none is, a name is likely wrong.
    pub(super) fn check_topics(&self) -> Result<()> {
        let topics = self.store.topics()?;
        if topics.iter().any(|topic| self.is_asked_for(&topic.name)) {
            return Ok(());
        }
        let names = topics.into_iter().map(|topic| topic.name).filter(|name| !name.starts_with("__")).collect();
        Err(BridgeError::NoTopics { patterns: self.config.topics.join(","), names })
    }

    /// Whether a local topic is to be sent. Kafka's own, whose records mean nothing elsewhere, begin with `__`.
    fn is_asked_for(&self, topic: &str) -> bool {
        !topic.starts_with("__") && self.config.topics.iter().any(|pattern| topic_matches(pattern, topic))
    }

    /// The local logs that are to be sent, with the target of each.
    pub(super) fn find_senders(&mut self) -> Result<()> {
        self.look_at_identities()?;
        self.unreadable.clear();
        for missing in self.store.missing_partitions()? {
            if self.is_asked_for(&missing.topic) && !self.senders.iter().any(|sender| sender.name == missing) {
                self.unreadable.insert(missing, PauseReason::DirectoryMissing);
            }
        }
        for topic in self.store.topics()? {
            let name = &topic.name;
            if !self.is_asked_for(name) {
                continue;
            }
            for &number in &topic.partition_ids {
                let name = TopicPartition::new(name.as_str(), number);
                if self.senders.iter().any(|sender| sender.name == name) {
                    continue;
                }
                let log = match self.store.log(&name.topic, number) {
                    Ok(log) => log,
                    Err(Error::UnknownTopicOrPartition { .. }) => {
                        self.unreadable.insert(name, PauseReason::NoSegmentFiles);
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let remote = partition::remote_name(&self.config.to, &self.config.device, &name.topic);
                let group = CoordinatorKey::Group(self.config.group_id(&name));
                let mut sender = PartitionSender::new(name, log, group, remote);
                sender.store = Some(Arc::clone(&self.store));
                sender.inherit_failed_flush(&self.failed_flushes);
                self.senders.push(sender);
            }
        }
        // Before the cluster is reached: from here on, retention keeps what is to be sent.
        self.hold_senders()?;
        self.metrics.place(&self.senders);
        self.look_up_targets()
    }

    /// Names every sender in the progress file. (A damaged file holds everything, and stays as evidence.)
    fn hold_senders(&mut self) -> Result<()> {
        if self.progress.is_damaged {
            return Ok(());
        }
        for sender in &self.senders {
            if !self.progress.entries.contains_key(&sender.name) {
                let entry = LogProgress { remote: sender.remote.clone(), partition: -1, ..LogProgress::default() };
                self.progress.entries.insert(sender.name.clone(), entry);
                self.progress_is_behind = true;
            }
        }
        self.write_progress()
    }

    /// How far each log is delivered.
    pub(super) fn positions(&self) -> Vec<LogPosition> {
        let unreadable =
            self.unreadable.iter().map(|(log, reason)| LogPosition::unreadable(log.clone(), reason.clone()));
        let mut positions: Vec<LogPosition> =
            self.senders.iter().map(PartitionSender::delivered).chain(unreadable).collect();
        positions.sort_by(|a, b| a.log.cmp(&b.log));
        positions
    }

    /// Whether there are logs that have to be placed: new ones, or others under the names of those that were sent.
    /// Looks once in a second at most.
    pub(super) fn notice_changes(&mut self) -> Result<bool> {
        if self.looked_at_logs.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return Ok(false);
        }
        self.look_at_identities()
    }

    fn look_at_identities(&mut self) -> Result<bool> {
        self.looked_at_logs = Some(Instant::now());
        // What cannot be read there is reported of the logs themselves.
        let Ok(known) = self.store.lasting_ids() else { return Ok(false) };
        let is_moved = !known.is_empty() && self.move_home()?;
        // What is found there is taken over once the bridge's lock and files are there, too.
        let is_away = !is_moved && self.home.is_replaced();
        let mut changed = is_moved;
        let mut store = None;
        for n in 0..self.senders.len() {
            let sender = &self.senders[n];
            match known.get(&sender.name) {
                Some(_) if is_away => {}
                Some(id) if !is_moved && *id == sender.log.id() && !sender.is_cut_off() => {}
                Some(id) => {
                    let store = match &store {
                        Some(store) => Arc::clone(store),
                        None => Arc::clone(store.insert(self.store_of_now()?)),
                    };
                    changed |= self.take_over(n, *id, &store);
                }
                None if sender.presence != Presence::Gone && self.has_no_directory(&sender.name) => {
                    self.senders[n].mark_deleted();
                    changed = true;
                }
                None => {}
            }
        }
        self.store = store.unwrap_or_else(|| Arc::clone(&self.store));
        let is_new = |log: &TopicPartition| {
            let is_known = self.unreadable.contains_key(log) || self.senders.iter().any(|sender| sender.name == *log);
            !is_known && self.is_asked_for(&log.topic)
        };
        Ok(changed || known.keys().any(is_new))
    }

    /// The store as it is now. One that is attached keeps its logs by name, and with them what was there before.
    fn store_of_now(&self) -> Result<Arc<Store>> {
        let is_attached = self.senders.iter().any(|sender| sender.log.is_attached());
        if is_attached { Ok(Arc::new(Store::attach(&self.home.dir)?)) } else { Ok(Arc::clone(&self.store)) }
    }

    fn has_no_directory(&self, log: &TopicPartition) -> bool {
        let looked = self.home.storage.metadata(&log.to_string());
        looked.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    /// Goes on with the log that has this name now. `false` where it is not there yet.
    fn take_over(&mut self, n: usize, id: [u8; 16], store: &Arc<Store>) -> bool {
        let name = self.senders[n].name.clone();
        let log = match store.log(&name.topic, name.partition) {
            Ok(log) if log.id() == id => log,
            Ok(_) | Err(Error::UnknownTopicOrPartition { .. }) => return false,
            Err(error) => {
                self.senders[n].paused = Some(PauseReason::LocalLog { reason: error.to_string() });
                return false;
            }
        };
        let sender = &mut self.senders[n];
        let is_other = sender.was_placed && log.id() != sender.log.id();
        let not_sent = sender.not_sent();
        sender.take_over(log, is_other);
        sender.store = Some(Arc::clone(store));
        sender.inherit_failed_flush(&self.failed_flushes);
        if is_other {
            self.report(&BridgeEvent::LogReplaced { log: name, not_sent });
        }
        true
    }

    /// Where another directory has the store's name, the bridge's lock and files are those in that one from here on.
    /// Whether that was so.
    fn move_home(&mut self) -> Result<bool> {
        if !self.home.is_replaced() {
            self.home_missed = None;
            return Ok(false);
        }
        if self.home_missed.get_or_insert_with(Instant::now).elapsed() < REMOVED_WITHIN {
            return Ok(false);
        }
        self.home = Home::open(&self.home.dir)?;
        self.home_missed = None;
        self.failed_flushes =
            FailedFlushes::open(Arc::clone(&self.home.storage), BRIDGE_FILE)?.with_others(&*self.home.storage)?;
        self.progress = ProgressFile::open(Arc::clone(&self.home.storage))?;
        self.progress_is_behind = false;
        Ok(true)
    }
}
