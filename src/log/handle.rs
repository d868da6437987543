//! The handle of a log that programs hold.

use std::sync::Arc;

use edgelog_core::{LeaderEpoch, LogConfig, LogId, Offset};

use super::origin::Origin;
use super::shared::LogShared;
use super::types::{Durability, LogOffsets, TopicPartition};
use crate::error::Result;

/// A handle of one topic-partition's log. Clones are handles of the same log.
///
/// # Concurrency
/// Every call may come from any thread. Appenders take turns; readers never wait for them.
#[derive(Debug, Clone)]
pub struct Log {
    pub(crate) shared: Arc<LogShared>,
}

impl Log {
    /// The topic and partition.
    pub fn name(&self) -> &TopicPartition {
        &self.shared.name
    }

    /// The log's identity: made with the log, never changed, and different from every other log's by chance (128 random
    /// bits).
    pub fn id(&self) -> LogId {
        self.shared.id
    }

    /// The identity that the log keeps; `None` in an attached process while no checkpoint of the writer names the log.
    pub(crate) fn lasting_id(&self) -> Option<LogId> {
        self.shared.lasting_id()
    }

    /// The leader epoch of the record before `offset`, as far as the log knows; -1 where it does not.
    pub(crate) fn epoch_before(&self, offset: Offset) -> LeaderEpoch {
        self.shared.epoch_before(offset)
    }

    /// The four offsets as they are now.
    pub fn offsets(&self) -> LogOffsets {
        self.shared.offsets()
    }

    /// The leader epoch that the next record gets.
    pub fn leader_epoch(&self) -> edgelog_core::LeaderEpoch {
        self.shared.epochs.read().view().latest().map_or(LeaderEpoch(0), |entry| entry.epoch)
    }

    /// Which epoch began at which offset, oldest first.
    pub fn leader_epochs(&self) -> Vec<edgelog_core::EpochEntry> {
        self.shared.epochs.read().view().entries().to_vec()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.shared.config.read())
    }

    /// Whether the log was written here, from offset 0 on, and not copied from elsewhere.
    #[cfg_attr(not(feature = "bridge"), allow(dead_code))]
    pub(crate) fn is_own(&self) -> bool {
        self.shared.origin() == Origin::Own
    }

    /// Whether another process may be writing the log, and this one reads.
    #[cfg_attr(not(feature = "bridge"), allow(dead_code))]
    pub(crate) fn is_attached(&self) -> bool {
        self.shared.is_attached()
    }

    /// Why the log is read-only until the store is opened again, where a write or flush of it failed.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// The durability of an append that names none, as `flush.messages` and `flush.ms` ask for.
    #[inline]
    pub fn default_durability(&self) -> Durability {
        self.shared.default_durability()
    }

    /// How many segments the log has, and their bytes in all (whole batches, without room reserved ahead).
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) where a segment's file cannot be looked at.
    pub fn size(&self) -> Result<(usize, u64)> {
        self.shared.size()
    }
}
