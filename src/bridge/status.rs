//! Where the bridge of a store stands, as its note says: works offline, and next to a bridge that runs.

use std::path::Path;
use std::sync::Arc;

use edgelog_core::Offset;

use super::error::{BridgeError, Result};
use super::progress_file::ProgressFile;
use crate::error::Error;
use crate::storage::{DirectoryStorage, DirectoryStorageOptions};
use crate::{OffsetSpec, Store, TopicPartition};

/// One log as the bridge's note knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStatus {
    /// The local log.
    pub log: TopicPartition,
    /// The target topic.
    pub remote: String,
    /// The target partition; `None` until something was sent.
    pub remote_partition: Option<i32>,
    /// The cluster has acknowledged everything below this offset; `None` where it has acknowledged nothing.
    pub acknowledged: Option<Offset>,
    /// A commit up to this offset was under way when the note was written; the next start finds out whether it counts.
    pub committing: Option<Offset>,
    /// The local log's end, high watermark; `None` where the store has no such log any more.
    pub high_watermark: Option<Offset>,
    /// From here on, nothing is deleted for its age, since a holder still needs it: the bridge, until the cluster has
    /// it.
    /// `None` where the store has no such log any more.
    pub held_from: Option<Offset>,
    /// The names of those who need it; see [`Store::retention_holds`].
    pub held_by: Vec<String>,
    /// Records from the acknowledged position, or the log's start, to the high watermark.
    pub lag: Option<u64>,
}

/// What the note in the data directory `dir` says. Changes nothing.
///
/// The note trails what the cluster has by at most the transaction under way.
///
/// # Errors
/// [`BridgeError::Store`](super::BridgeError::Store), [`BridgeError::Note`](super::BridgeError::Note).
pub fn status(dir: impl AsRef<Path>) -> Result<Vec<LogStatus>> {
    let dir = dir.as_ref();
    let store = Store::attach(dir)?;
    let options = DirectoryStorageOptions { read_only: true, ..DirectoryStorageOptions::default() };
    let name = dir.display().to_string();
    let storage = DirectoryStorage::open(dir, options).map_err(Error::storage("open data directory", &name))?;
    let progress = ProgressFile::open(Arc::new(storage))?;
    if progress.is_damaged() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "it is damaged, or of a newer version");
        return Err(BridgeError::Note { operation: "read", file: "edgelog.bridge.hold".to_owned(), source });
    }
    let holds = store.retention_holds()?;
    let mut found = Vec::new();
    for (name, entry) in progress.entries() {
        let mut acknowledged = entry.acknowledged.map(|position| position.offset);
        let mut held_by = Vec::new();
        let (high_watermark, held_from, lag) = match store.log(&name.topic, name.partition) {
            Ok(log) => {
                // Of a log that had the name before, and says nothing of this one.
                if entry.acknowledged.is_some_and(|done| done.log_id != log.id()) {
                    acknowledged = None;
                }
                let mut reader = log.reader(OffsetSpec::Earliest)?;
                if let Some(offset) = acknowledged.filter(|offset| *offset > reader.position().offset) {
                    // A position beyond the end is a conflict that the next run reports; here there is no lag.
                    let _ = reader.seek(OffsetSpec::Offset(offset));
                }
                let held = holds.of(&log);
                let held_from = held.iter().map(|hold| hold.offset.max(log.offsets().log_start_offset)).min();
                held_by = held.into_iter().map(|hold| hold.holder).collect();
                (Some(log.offsets().high_watermark), held_from, Some(reader.lag()))
            }
            Err(Error::UnknownTopicOrPartition { .. }) => (None, None, None),
            Err(error) => return Err(error.into()),
        };
        found.push(LogStatus {
            log: name.clone(),
            remote: entry.remote.clone(),
            remote_partition: Some(entry.partition).filter(|&partition| partition >= 0),
            acknowledged,
            committing: entry.pending.as_ref().map(|intent| intent.to.offset),
            high_watermark,
            held_from,
            held_by,
            lag,
        });
    }
    Ok(found)
}
