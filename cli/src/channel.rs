//! One topic of `record`, with what has been recorded into it.

use edgelog::{BatchBuilder, Log};

use crate::telemetry::Glance;

/// One topic that is recorded into.
pub(crate) struct Channel {
    pub(crate) at: usize,
    pub(crate) log: Log,
    pub(crate) batch: BatchBuilder,
    /// Records of this run.
    pub(crate) records: u64,
    pub(crate) glance: Glance,
}

impl Channel {
    /// Which of `telemetry::TOPICS` it is.
    pub(crate) fn topic_index(&self) -> usize {
        self.at
    }
}
