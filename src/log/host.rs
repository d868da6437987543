//! What a log asks of the store that it lives in.

use std::fmt;

use edgelog_core::{LogId, Offset};

use super::saved_log::SavedLog;
use super::types::TopicPartition;
use crate::error::Result;

/// What a log asks of the store that it lives in.
pub(crate) trait LogHost: Send + Sync + fmt::Debug {
    /// Returns once the checkpoint says that the store is not cleanly closed: the first byte of any log may
    /// change.
    fn allow_writing(&self) -> Result<()>;

    /// Takes the clean mark off the checkpoint, which goes on saying what it said otherwise; durable on return.
    fn unmark(&self) -> Result<()>;

    /// What the checkpoint says of a log now: another process writes it.
    fn read_saved(&self, name: &TopicPartition) -> Result<Option<SavedLog>>;

    /// Attached: whether a process of this machine, in this boot of it, has the store open for writing, and has raised
    /// the flag of every log that it could not write or flush.
    fn has_healthy_writer(&self) -> Result<bool>;

    /// Attached: makes the checkpoint and the names in the data directory durable as they are now.
    fn flush_attached(&self) -> Result<()>;

    /// From now on attached processes do not rely on this one: one of its logs has failed, and its flag could not be
    /// raised.
    fn distrust(&self);

    /// The first offset of a log that a holder still needs: from there on, nothing is deleted for its age. `None` where
    /// no holder needs any.
    fn held_from(&self, name: &TopicPartition, id: LogId) -> Result<Option<Offset>>;

    /// The ids of each named producer of the store: the first one names it for good.
    fn producer_ids(&self) -> Result<Vec<Vec<i64>>>;

    /// Writes the checkpoint with every log's epochs, start and recovery point as they are now; durable on
    /// return.
    fn checkpoint(&self) -> Result<()>;

    /// There is something to prepare, seal or flush.
    fn wake_housekeeping(&self);
}
