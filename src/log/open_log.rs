//! What the store hands over to open one log.

use std::sync::{Arc, Weak};

use edgelog_core::config::IsolationLevel;
use edgelog_core::{LogConfig, LogId};

use super::host::LogHost;
use super::saved_log::SavedLog;
use super::types::TopicPartition;
use crate::clock::Clock;
use crate::segment::BufferPool;
use crate::storage::Storage;

/// What the store hands over to open one log.
#[derive(Clone)]
pub(crate) struct OpenLog {
    pub(crate) name: TopicPartition,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) host: Weak<dyn LogHost>,
    pub(crate) pool: Arc<BufferPool>,
    pub(crate) config: LogConfig,
    pub(crate) check_crcs: bool,
    pub(crate) decompressed_bytes_max: u32,
    pub(crate) unflushed_bytes_max: u64,
    pub(crate) isolation_level: IsolationLevel,
    pub(crate) saved: Option<SavedLog>,
    /// What was taken out of what the checkpoint says of the log: where anything was, the log is recovered.
    pub(crate) odd: Vec<String>,
    /// The checkpoint carries a clean mark that holds for the store.
    pub(crate) store_is_clean: bool,
    /// Which slots of the checkpoint hold: where both do, no newer one was lost.
    pub(crate) slots: [bool; 2],
    /// The machine has not booted since the checkpoint was written.
    pub(crate) same_boot: bool,
    /// Identity for a log that the checkpoint does not know.
    pub(crate) new_id: LogId,
}
