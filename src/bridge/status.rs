//! Where the bridge of a store stands, as its note says: works offline, and next to a bridge that runs.

use std::path::Path;
use std::sync::Arc;

use edgelog_core::{LogId, Offset};

use super::error::{BridgeError, Result};
use super::log_position::LogPosition;
use super::progress_file::{LogProgress, ProgressFile};
use crate::error::Error;
use crate::storage::{DirectoryStorage, DirectoryStorageOptions};
use crate::store::retention_holds::{RetentionHolds, covers};
use crate::{Store, TopicPartition};

/// One log as the bridge's note knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStatus {
    /// The local log.
    pub log: TopicPartition,
    /// Its identity; `None` where the store has no such log any more, or it cannot be read.
    pub log_id: Option<LogId>,
    /// The target topic; empty where no bridge has met the log yet.
    pub remote: String,
    /// The target partition; `None` until something was sent.
    pub remote_partition: Option<i32>,
    /// The cluster has acknowledged everything below this offset; `None` where it has acknowledged nothing.
    pub acknowledged: Option<Offset>,
    /// A commit up to this offset was under way when the note was written; the next start finds out whether it counts.
    pub committing: Option<Offset>,
    /// The local log's end, high watermark; `None` where the store has no such log any more, or it cannot be read.
    pub high_watermark: Option<Offset>,
    /// From here on, nothing is deleted for its age, since a holder still needs it: the bridge, until the cluster has
    /// it.
    /// `None` where the store has no such log any more.
    pub held_from: Option<Offset>,
    /// The names of those who need it; see [`Store::retention_holds`].
    pub held_by: Vec<String>,
    /// Offsets from the acknowledged position to the end, as in [`LogPosition::lag`]. `None` where one of them is not
    /// known: a note that has nothing acknowledged does not say that the cluster has nothing.
    pub lag: Option<u64>,
    /// How many offsets there are here, sent or not, as in [`LogPosition::held`]: what the lag is at most.
    pub held: Option<u64>,
}

impl LogStatus {
    /// How many offsets of the log the cluster lacks that has committed everything below `committed`, which is a
    /// position of the log of this identity; as in [`LogPosition::lag`].
    pub fn lag_behind(&self, committed: Offset, log_id: LogId) -> Option<u64> {
        let end = self.high_watermark.filter(|_| self.log_id == Some(log_id))?;
        LogPosition::lag_between(committed, end)
    }
}

/// The device whose bridge wrote the note in the data directory `dir`; `None` where there is no note, or it does not
/// say. Changes nothing.
///
/// # Errors
/// As [`status`].
pub fn noted_device(dir: impl AsRef<Path>) -> Result<Option<String>> {
    Ok(read_note(dir.as_ref())?.device().map(str::to_owned))
}

fn read_note(dir: &Path) -> Result<ProgressFile> {
    let options = DirectoryStorageOptions { read_only: true, ..DirectoryStorageOptions::default() };
    let name = dir.display().to_string();
    let storage = DirectoryStorage::open(dir, options).map_err(Error::storage("open data directory", &name))?;
    ProgressFile::open(Arc::new(storage))
}

/// What the note in the data directory `dir` says: of the logs that it names, and of those that are there and are of
/// the topics that it keeps for a bridge. Changes nothing.
///
/// The note trails what the cluster has by at most the transaction under way.
///
/// # Errors
/// [`BridgeError::Store`](super::BridgeError::Store), [`BridgeError::Note`](super::BridgeError::Note).
pub fn status(dir: impl AsRef<Path>) -> Result<Vec<LogStatus>> {
    let dir = dir.as_ref();
    let store = Store::attach(dir)?;
    let progress = read_note(dir)?;
    if progress.is_damaged() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "it is damaged, or of a newer version");
        return Err(BridgeError::Note { operation: "read", file: "edgelog.bridge.hold".to_owned(), source });
    }
    let holds = store.retention_holds()?;
    let mut found = Vec::new();
    for (log, entry) in progress.entries() {
        found.push(status_of(&store, &holds, log, Some(entry))?);
    }
    let is_chosen =
        |log: &TopicPartition| covers(progress.topics(), &log.topic) && !progress.entries().contains_key(log);
    found.extend(unnoted(&store, &holds, is_chosen)?);
    found.sort_by(|a, b| a.log.cmp(&b.log));
    Ok(found)
}

/// The logs of the store in `dir` whose topics match one of `topics` (names and patterns with `*`), as if there were no
/// note: how much each holds.
///
/// # Errors
/// [`BridgeError::Store`](super::BridgeError::Store).
pub fn status_without_note(dir: impl AsRef<Path>, topics: &[String]) -> Result<Vec<LogStatus>> {
    let store = Store::attach(dir)?;
    let holds = store.retention_holds()?;
    unnoted(&store, &holds, |log| covers(topics, &log.topic))
}

/// Those logs of the store that are chosen, in order, of which no note says anything.
fn unnoted(
    store: &Store,
    holds: &RetentionHolds,
    is_chosen: impl Fn(&TopicPartition) -> bool,
) -> Result<Vec<LogStatus>> {
    let mut logs = store.missing_partitions()?;
    for topic in store.topics()? {
        logs.extend(topic.partition_ids.iter().map(|&number| TopicPartition::new(topic.name.as_str(), number)));
    }
    logs.sort();
    logs.dedup();
    logs.into_iter().filter(is_chosen).map(|log| status_of(store, holds, &log, None)).collect()
}

fn status_of(
    store: &Store,
    holds: &RetentionHolds,
    name: &TopicPartition,
    entry: Option<&LogProgress>,
) -> Result<LogStatus> {
    let mut found = LogStatus {
        log: name.clone(),
        log_id: None,
        remote: entry.map(|entry| entry.remote.clone()).unwrap_or_default(),
        remote_partition: entry.map(|entry| entry.partition).filter(|&partition| partition >= 0),
        acknowledged: entry.and_then(|entry| entry.acknowledged).map(|position| position.offset),
        committing: entry.and_then(|entry| entry.pending.as_ref()).map(|intent| intent.to.offset),
        high_watermark: None,
        held_from: None,
        held_by: Vec::new(),
        lag: None,
        held: None,
    };
    let log = match store.log(&name.topic, name.partition) {
        Ok(log) => log,
        Err(Error::UnknownTopicOrPartition { .. }) => return Ok(found),
        Err(error) => return Err(error.into()),
    };
    // Of a log that had the name before, and says nothing of this one.
    if entry.and_then(|entry| entry.acknowledged).is_some_and(|done| done.log_id != log.id()) {
        found.acknowledged = None;
    }
    let position = LogPosition::looked_up(name.clone(), &log, found.acknowledged, None);
    let held = holds.of(&log);
    found.held_from = held.iter().map(|hold| hold.offset.max(log.offsets().log_start_offset)).min();
    found.held_by = held.into_iter().map(|hold| hold.holder).collect();
    (found.log_id, found.high_watermark) = (Some(log.id()), position.end_offset);
    (found.lag, found.held) = (position.lag, position.held);
    Ok(found)
}
