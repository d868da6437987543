//! The bridge's progress file in the data directory: which offsets the cluster has acknowledged, and which transaction
//! was about to be committed (the *pending commit*). To users it is the bridge's note.
//!
//! The cluster owns the committed offsets; the file is for when it has forgotten them (committed offsets expire), and
//! to notice a cluster that was set back. It is written, and is durable, before a transaction is committed.
//!
//! It is the bridge's retention hold (see `store::retention_holds`, which has the form of the file): what was not
//! delivered is not deleted for its age. For each log, the offset that the cluster has not acknowledged yet, and of the
//! bridge's own, between tabs, `-` for what there is not:
//!
//! ```text
//! TARGET PARTITION DONE META INTENT META PRODUCER EPOCH FIRST [CLUSTER [BEGAN [DEVICE]]]
//! ```
//!
//! `DONE` is the offset that is to be sent next, `INTENT` the one that was about to be committed, each with the
//! metadata of the committed offset (see `committed_offset`). `PRODUCER`, `EPOCH` and `FIRST` say which producer was
//! about to commit, and the offset that the target gave the first batch; `FIRST@TOPIC-PARTITION` where that is not in
//! the target partition. `BEGAN` is written while nothing is acknowledged: `OFFSET@LOG`, where the log of this id began
//! when the bridge named it first. What is gone from there on was lost before it was sent. `DEVICE` is the device's id,
//! the same in each line.
//!
//! A file of an earlier version (`edgelog.bridge.0` and `.1`) is read where there is none of this form, and goes when
//! the first of this form is durable.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use edgelog_core::{LogId, Offset};

use super::committed_offset::CommittedOffset;
use super::error::{BridgeError, Result};
use super::producer_header::Producer;
use crate::TopicPartition;
use crate::error::Error;
use crate::kafka::is_cluster_id;
use crate::storage::{Storage, remove_if_there};
use crate::store::retention_holds::{
    BRIDGE, HeldLog, HolderFile, OLD_NOTE_FIELDS, OLD_NOTE_FILES, Stored, covers, old_fields_of, read_holder,
    read_old_note,
};

/// What is known of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LogProgress {
    pub(super) remote: String,
    /// -1 until something was about to be committed.
    pub(super) partition: i32,
    pub(super) acknowledged: Option<CommittedOffset>,
    pub(super) pending: Option<PendingCommit>,
    /// The id of the cluster that acknowledged it; versions before this one did not write it.
    pub(super) cluster: Option<String>,
    /// Where the log began when the bridge named it first; kept until something is acknowledged.
    pub(super) began: Option<Began>,
}

/// Where a log began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Began {
    pub(super) log_id: LogId,
    pub(super) offset: Offset,
}

/// Where a log begins now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogStart {
    pub(super) log_id: LogId,
    pub(super) offset: Offset,
    /// It was written here, from offset 0 on, and not copied.
    pub(super) is_own: bool,
}

/// A commit that was about to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingCommit {
    pub(super) to: CommittedOffset,
    pub(super) producer: Producer,
    /// The offset that the transaction's first batch of this log got.
    pub(super) first_offset: Offset,
    /// Where that batch is, unless it is in the target partition: a dead letter, or a loss record.
    pub(super) elsewhere: Option<(String, i32)>,
}

#[derive(Debug)]
pub(super) struct ProgressFile {
    storage: Arc<dyn Storage>,
    entries: BTreeMap<TopicPartition, LogProgress>,
    /// The names and patterns of what is to be sent: logs of theirs that have no entry yet are held, too.
    topics: Vec<String>,
    /// `edgelog.device.id` of the bridge that wrote it; versions before this one did not write it.
    device: Option<String>,
    /// What these say is not on the disk yet.
    is_behind: bool,
    /// Open for writing from the first write on.
    file: Option<HolderFile>,
    /// A file of an earlier version is there.
    has_old: bool,
    /// A file is there and cannot be read: what it said is lost.
    is_damaged: bool,
}

impl ProgressFile {
    /// Reads the file; an empty one where there is none. Writes nothing.
    pub(super) fn open(storage: Arc<dyn Storage>) -> Result<ProgressFile> {
        let old = read_old_note(&*storage).map_err(failed)?;
        let has_old = !matches!(old, Stored::Nothing);
        let (mut topics, mut device) = (Vec::new(), None);
        let lines: Stored<Vec<String>> = match read_holder(&*storage, BRIDGE).map_err(failed)? {
            Stored::Whole(held) => {
                topics = held.topics;
                let line =
                    |(log, held): (&TopicPartition, &HeldLog)| format!("{log}\t{}", String::from_utf8_lossy(&held.own));
                Stored::Whole(held.logs.iter().map(line).collect())
            }
            Stored::Damaged => Stored::Damaged,
            Stored::Nothing => old,
        };
        let entries: Option<BTreeMap<_, _>> = match lines {
            Stored::Nothing => Some(BTreeMap::new()),
            Stored::Damaged => None,
            Stored::Whole(lines) => {
                device = lines.iter().find_map(|line| device_of(line));
                lines.iter().map(|line| parse_line(line)).collect()
            }
        };
        let is_damaged = entries.is_none();
        let entries = entries.unwrap_or_default();
        Ok(ProgressFile { storage, entries, topics, device, is_behind: false, file: None, has_old, is_damaged })
    }

    /// Whether a file is there and cannot be read: what it said is lost. The first write replaces it.
    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// What it says of each log, or will say once it is written.
    pub(super) fn entries(&self) -> &BTreeMap<TopicPartition, LogProgress> {
        &self.entries
    }

    /// The id of the device whose bridge wrote it, where it says that.
    pub(super) fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// The bridge of this device writes it from here on. A damaged file stays as it is until there is more to say.
    pub(super) fn set_device(&mut self, device: &str) {
        if self.device.as_deref() != Some(device) {
            self.device = Some(device.to_owned());
            self.is_behind |= !self.is_damaged;
        }
    }

    /// These topics are to be sent: also a log that is created while the bridge cannot look is held.
    pub(super) fn hold_topics(&mut self, topics: &[String]) {
        if self.topics != topics {
            topics.clone_into(&mut self.topics);
            self.is_behind = true;
        }
    }

    /// The names and patterns of topics of which logs are held that have no entry yet.
    pub(super) fn topics(&self) -> &[String] {
        &self.topics
    }

    /// A log is to be sent to the topic `remote`, and begins there now: names it, where it is not named yet.
    pub(super) fn hold(&mut self, log: &TopicPartition, remote: &str, mut start: LogStart) {
        let is_covered = covers(&self.topics, &log.topic);
        let entry = self.entries.entry(log.clone()).or_insert_with(|| {
            self.is_behind = true;
            // It was created since the bridge looked last: with its first record.
            if is_covered && start.is_own {
                start.offset = Offset(0);
            }
            LogProgress { remote: remote.to_owned(), partition: -1, ..LogProgress::default() }
        });
        if entry.acknowledged.is_none() && entry.pending.is_none() && entry.remote != remote {
            remote.clone_into(&mut entry.remote);
            self.is_behind = true;
        }
        // Another log of that name begins by itself.
        if entry.acknowledged.is_none() && entry.began.is_none_or(|began| began.log_id != start.log_id) {
            entry.began = Some(Began { log_id: start.log_id, offset: start.offset });
            self.is_behind = true;
        }
    }

    /// Where this log began when it was named first, while nothing of it is acknowledged.
    pub(super) fn began(&self, log: &TopicPartition, id: LogId) -> Option<Offset> {
        let began = self.entries.get(log)?.began.filter(|began| began.log_id == id)?;
        Some(began.offset)
    }

    /// Writes what is known before a commit is asked for; durable on return.
    pub(super) fn write_before_commit(&mut self, of: Vec<(TopicPartition, LogProgress)>) -> Result<()> {
        for (log, entry) in of {
            self.put(log, entry);
        }
        self.write()
    }

    /// The cluster has acknowledged it.
    pub(super) fn acknowledge(&mut self, log: &TopicPartition, entry: LogProgress) {
        self.put(log.clone(), entry);
        self.is_behind = true;
    }

    fn put(&mut self, log: TopicPartition, mut entry: LogProgress) {
        if entry.acknowledged.is_none() {
            entry.began = self.entries.get(&log).and_then(|before| before.began);
        }
        self.entries.insert(log, entry);
    }

    /// A person has decided that the log goes on there: what it was before is no evidence of a cluster that was set
    /// back.
    pub(super) fn decided(&mut self, log: &TopicPartition, at: Option<CommittedOffset>) {
        let entry = self.entries.entry(log.clone()).or_default();
        (entry.acknowledged, entry.pending, entry.began) = (at, None, None);
        self.is_behind = true;
    }

    /// Names these logs no more; returns them.
    pub(super) fn forget(&mut self, is_chosen: impl Fn(&TopicPartition) -> bool) -> Vec<TopicPartition> {
        let gone: Vec<TopicPartition> = self.entries.keys().filter(|log| is_chosen(log)).cloned().collect();
        self.entries.retain(|log, _| !is_chosen(log));
        // They would be held all the same. A bridge that begins names its topics again.
        self.topics.clear();
        gone
    }

    /// Writes the file where it does not say what is known; durable on return.
    pub(super) fn write_if_behind(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_behind) { self.write() } else { Ok(()) }
    }

    /// Writes the file; durable on return.
    pub(super) fn write(&mut self) -> Result<()> {
        let device = self.device.as_deref();
        let logs = self.entries.iter().map(|(log, entry)| (log.clone(), entry.held(device))).collect();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(HolderFile::open(&self.storage, BRIDGE).map_err(failed)?),
        };
        file.write(&logs, &self.topics).map_err(failed)?;
        self.is_damaged = false;
        if self.has_old {
            for name in OLD_NOTE_FILES {
                remove_if_there(&*self.storage, name)
                    .map_err(|source| failed(Error::storage("remove", name)(source)))?;
            }
            self.has_old = false;
        }
        Ok(())
    }
}

fn failed(error: Error) -> BridgeError {
    match error {
        Error::Storage { operation, path, source } => BridgeError::Note { operation, file: path, source },
        error => BridgeError::Store(error),
    }
}

impl LogProgress {
    /// As the file of the holder has it.
    fn held(&self, device: Option<&str>) -> HeldLog {
        let mut own = format!("{}\t{}", self.remote, self.partition);
        for position in [self.acknowledged, self.pending.as_ref().map(|intent| intent.to)] {
            let _ = match position {
                Some(position) => write!(own, "\t{}\t{}", position.offset, position.metadata()),
                None => write!(own, "\t-\t-"),
            };
        }
        let _ = match &self.pending {
            Some(PendingCommit { producer, first_offset, elsewhere, .. }) => {
                let _ = write!(own, "\t{}\t{}\t{first_offset}", producer.id, producer.epoch);
                match elsewhere {
                    Some((topic, partition)) => write!(own, "@{topic}-{partition}"),
                    None => Ok(()),
                }
            }
            None => write!(own, "\t-\t-\t-"),
        };
        let began = self.began.filter(|_| self.acknowledged.is_none());
        if let Some(cluster) = self.cluster.as_deref().or(began.map(|_| "")).or(device.map(|_| "")) {
            let _ = write!(own, "\t{cluster}");
        }
        match began {
            Some(Began { log_id, offset }) => drop(write!(own, "\t{offset}@{log_id}")),
            None if device.is_some() => own.push('\t'),
            None => {}
        }
        if let Some(device) = device {
            let _ = write!(own, "\t{device}");
        }
        let (log_id, offset) = self.acknowledged.map_or((LogId::ZERO, 0), |done| (done.log_id, done.offset.0));
        HeldLog { log_id, offset: Offset(offset), own: own.into_bytes() }
    }
}

/// The device that a line names.
fn device_of(line: &str) -> Option<String> {
    let (at, _) = line.match_indices('\t').nth(OLD_NOTE_FIELDS + 1)?;
    Some(line[at + 1..].to_owned()).filter(|device| !device.is_empty())
}

fn parse_line(line: &str) -> Option<(TopicPartition, LogProgress)> {
    let (line, more) = match line.match_indices('\t').nth(OLD_NOTE_FIELDS - 1) {
        Some((at, _)) => (&line[..at], &line[at + 1..]),
        None => (line, ""),
    };
    let (cluster, more) = more.split_once('\t').unwrap_or((more, ""));
    let (began, _device) = more.split_once('\t').unwrap_or((more, ""));
    let cluster = Some(cluster.to_owned()).filter(|id| is_cluster_id(id));
    let began = began
        .split_once('@')
        .and_then(|(offset, id)| Some(Began { log_id: id.parse().ok()?, offset: Offset(offset.parse().ok()?) }));
    let [log, remote, partition, done, done_meta, intent, intent_meta, producer, epoch, first] = old_fields_of(line)?;
    let position = |offset: &str, metadata: &str| match offset {
        "-" => Some(None),
        offset => Some(Some(CommittedOffset::parse(offset.parse().ok()?, metadata).ok()?)),
    };
    let pending = match position(intent, intent_meta)? {
        None => None,
        Some(to) => {
            let (first, elsewhere) = match first.split_once('@') {
                Some((first, place)) => {
                    let (topic, partition) = place.rsplit_once('-')?;
                    (first, Some((topic.to_owned(), partition.parse().ok()?)))
                }
                None => (first, None),
            };
            let producer = Producer { id: producer.parse().ok()?, epoch: epoch.parse().ok()? };
            Some(PendingCommit { to, producer, first_offset: first.parse().ok()?, elsewhere })
        }
    };
    let entry = LogProgress {
        remote: remote.to_owned(),
        partition: partition.parse().ok()?,
        acknowledged: position(done, done_meta)?,
        pending,
        cluster,
        began,
    };
    Some((log.parse().ok()?, entry))
}

#[cfg(test)]
mod tests {
    use edgelog_core::LeaderEpoch;
    const FILE: &str = "edgelog.bridge.hold";

    use super::super::committed_offset::BatchMark;
    use super::*;
    use crate::storage::framed::frame;
    use crate::storage::tests::flip_a_byte;
    use crate::storage::{Access, MemoryStorage};
    use uuid::Uuid;

    fn position(offset: Offset) -> CommittedOffset {
        let mark = BatchMark { leader_epoch: LeaderEpoch(2), crc: 9 };
        CommittedOffset { offset, log_id: LogId::from_bytes([1; 16]), mark, topic_id: Uuid::from_u128(3) }
    }

    fn entry(offset: Offset) -> LogProgress {
        let producer = Producer { id: 5, epoch: 6 };
        let elsewhere = (offset.0 % 2 == 0).then(|| ("dead-letters".to_owned(), 2));
        let intent = PendingCommit { to: position(offset + 1), producer, first_offset: Offset(44), elsewhere };
        let cluster = (offset.0 % 3 == 0).then(|| "uZX-_1".to_owned());
        LogProgress {
            remote: "r".to_owned(),
            partition: 1,
            acknowledged: Some(position(offset)),
            pending: Some(intent),
            cluster,
            began: None,
        }
    }

    fn open(storage: &Arc<dyn Storage>) -> ProgressFile {
        ProgressFile::open(Arc::clone(storage)).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_and_a_damaged_slot_leaves_the_one_before() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let log = TopicPartition::new("a-b", 7);
        let mut progress = open(&storage);
        assert!(progress.entries.is_empty() && !progress.is_damaged);
        for n in 0..5 {
            progress.entries.insert(log.clone(), entry(Offset(n)));
            progress.write().unwrap();
            assert_eq!(open(&storage).entries, progress.entries);
        }
        let file = storage.open(FILE, Access::Write).unwrap();
        let slot_len = file.len().unwrap() / 2;
        let damage = |slot: u64| flip_a_byte(&*file, slot * slot_len + 100);
        // The first write filled both slots, with the sequences 1 and 2; the fifth has 6, and stands in the first.
        damage(0);
        let mut again = open(&storage);
        assert_eq!(again.entries[&log], entry(Offset(3)));
        again.write().unwrap();
        assert_eq!((open(&storage).entries[&log].clone(), open(&storage).is_damaged), (entry(Offset(3)), false));
        (0..2).for_each(damage);
        assert!(open(&storage).is_damaged);
    }

    #[test]
    fn the_device_is_named_in_each_line_and_changes_nothing_else() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut progress = open(&storage);
        for n in 0..4 {
            progress.entries.insert(TopicPartition::new("a", n), entry(Offset(i64::from(n))));
        }
        let start = LogStart { log_id: LogId::from_bytes([1; 16]), offset: Offset(3), is_own: true };
        progress.hold(&TopicPartition::new("b", 0), "r", start);
        progress.hold(&TopicPartition::new("c", 0), "r", start);
        progress.decided(&TopicPartition::new("c", 0), None);
        for device in [None, Some("d-1"), Some("d-2")] {
            if let Some(device) = device {
                progress.set_device(device);
            }
            progress.write_if_behind().unwrap();
            let read = open(&storage);
            assert_eq!((read.device(), read.entries()), (device, progress.entries()));
        }
        // A damaged file is evidence: it is not written because of that alone.
        let file = storage.open(FILE, Access::Write).unwrap();
        let slot_len = file.len().unwrap() / 2;
        (0..2).for_each(|slot| flip_a_byte(&*file, slot * slot_len + 100));
        let mut progress = open(&storage);
        progress.set_device("d-2");
        progress.write_if_behind().unwrap();
        assert!(open(&storage).is_damaged());
        progress.write().unwrap();
        assert!(!open(&storage).is_damaged());
    }

    #[test]
    fn where_a_log_began_is_kept_until_something_is_acknowledged() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let log = TopicPartition::new("a", 0);
        let (one, other) = (LogId::from_bytes([1; 16]), LogId::from_bytes([2; 16]));
        let mut progress = open(&storage);
        for (log_id, offset) in [(other, 7), (one, 3), (one, 8)] {
            progress.hold(&log, "r", LogStart { log_id, offset: Offset(offset), is_own: true });
        }
        let began = |progress: &ProgressFile| [one, other].map(|id| progress.began(&log, id));
        progress.write_if_behind().unwrap();
        assert_eq!(began(&open(&storage)), [Some(Offset(3)), None]);
        let mut open_commit = entry(Offset(0));
        (open_commit.acknowledged, open_commit.cluster) = (None, None);
        progress.write_before_commit(vec![(log.clone(), open_commit)]).unwrap();
        let again = open(&storage);
        assert_eq!((began(&again), again.entries()[&log].pending.is_some()), ([Some(Offset(3)), None], true));
        progress.acknowledge(&log, entry(Offset(4)));
        progress.write_if_behind().unwrap();
        assert_eq!(began(&open(&storage)), [None, None]);
    }

    #[test]
    fn a_log_of_its_topics_that_appears_later_has_begun_with_its_first_record() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut progress = open(&storage);
        let mut began = |topic: &str, is_own| {
            let (log, log_id) = (TopicPartition::new(topic, 0), LogId::from_bytes([1; 16]));
            progress.hold(&log, "r", LogStart { log_id, offset: Offset(7), is_own });
            let began = progress.began(&log, log_id);
            progress.hold_topics(&["a*".to_owned()]);
            progress.write_if_behind().unwrap();
            progress = open(&storage);
            began
        };
        let found = [began("a", true), began("ab", true), began("ac", false), began("b", true)];
        assert_eq!(found, [Some(Offset(7)), Some(Offset(0)), Some(Offset(7)), Some(Offset(7))]);
    }

    /// Also where the two were damaged, and the write of the new one failed.
    #[test]
    fn a_note_of_an_earlier_version_is_taken_over() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let log = TopicPartition::new("a-b", 7);
        let body = format!("{log}\t{}\n", String::from_utf8(entry(Offset(5)).held(None).own).unwrap());
        let put = |name: &str, text: &str| {
            storage.open(name, Access::CreateNew).unwrap().write_at(text.as_bytes(), 0).unwrap();
        };
        put(OLD_NOTE_FILES[0], &frame(8, &body));
        put(OLD_NOTE_FILES[1], &frame(9, &body)[..50]);
        let mut progress = open(&storage);
        assert_eq!((progress.entries.get(&log), progress.is_damaged), (Some(&entry(Offset(5))), false));
        progress.entries.insert(log.clone(), entry(Offset(6)));
        progress.write().unwrap();
        assert_eq!(open(&storage).entries[&log], entry(Offset(6)));
        let names: Vec<String> = storage.read_dir("").unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [FILE]);
    }
}
