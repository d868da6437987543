//! Taking a topic in: the partition directories of a broker, or of an export, become logs of a store.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::export::{Export, Part, clear};
use super::export_report::{ExportRange, ExportReport};
use super::report::Progress;
use crate::error::{Error, Result};
use crate::log::{TopicPartition, check_topic_name};
use crate::storage::{LOCK_FILE, Storage};

/// Copies logs of `source` into the data directory `store` as partitions of `topic`, which the store must not have:
/// `source` is a directory with partition directories, as a stopped broker or
/// [`export_partition`](super::export_partition) leaves them, or another data directory. Every record keeps its offset.
///
/// As an export does, it writes batches as they are but for the leader epoch, which is 0 in all of them, and new
/// indexes; damage is left out and named in the reports. The next open for writing takes the partitions over, as any
/// that a broker wrote: until the topic is altered, retention deletes nothing of it.
///
/// # Errors
/// [`Error::DataDirLocked`] where another process has the store open for writing; [`Error::Storage`], with
/// `AlreadyExists` where the store has such a partition already, and with `Interrupted` where `progress` stopped it;
/// [`Error::InvalidTopic`];
/// [`Error::UnknownTopicOrPartition`] for a log without a segment. After an error the store is as it was before; a kill
/// while several partitions get their names may leave some of them, each whole.
///
/// # Durability
/// On return, the partitions are on the disk.
///
/// # Concurrency
/// Holds the lock of the data directory. `source` may have a live writer.
pub fn import_partitions(
    source: &Arc<dyn Storage>,
    logs: &[TopicPartition],
    store: &Arc<dyn Storage>,
    topic: &str,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<ExportReport>> {
    check_topic_name(topic)?;
    let _lock = store.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::DataDirLocked(error),
        _ => Error::storage("lock", LOCK_FILE)(error),
    })?;
    let dirs: Vec<String> = logs.iter().map(|log| TopicPartition::new(topic, log.partition).to_string()).collect();
    for dir in &dirs {
        // Under the lock no other import is at work: what stands there was left by one that was killed.
        let part = format!("{dir}.part");
        match clear(&**store, &part) {
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            cleared => cleared?,
        }
    }
    let parts: Vec<Part<'_>> = dirs.iter().map(|dir| Part::of(store, dir)).collect::<Result<_>>()?;
    let mut reports = Vec::with_capacity(parts.len());
    let mut export = Export::new(source, ExportRange::default())?;
    for (log, part) in logs.iter().zip(&parts) {
        reports.push(part.fill(&mut export, log, None, progress)?);
    }
    for part in &parts {
        part.put_in_place()?;
    }
    Ok(reports)
}
