//! What the check found for repair to do: to one log, and to each of its segments.

use edgelog_core::{EpochTable, Offset};

use super::facts::LogFacts;

/// What repair has to do to one segment.
#[derive(Debug, Clone)]
pub(super) struct SegmentPlan {
    pub(super) base_offset: Offset,
    /// Where the next segment begins, as the check went by it.
    pub(super) upper: Option<Offset>,
    /// It holds damage, or fields outside the CRC that are wrong.
    pub(super) rewrite: bool,
    /// The segment has to reach this offset.
    pub(super) fill_to: Option<Offset>,
    pub(super) indexes: bool,
}

/// What repair has to do to one log.
#[derive(Debug)]
pub(super) struct LogPlan {
    pub(super) facts: LogFacts,
    pub(super) segments: Vec<SegmentPlan>,
    /// The log's first segments are gone: it starts here now.
    pub(super) new_start: Option<Offset>,
    /// First offset that the log holds.
    pub(super) start: Offset,
    /// The offset behind the last batch that holds, once the plan is carried out.
    pub(super) end: Offset,
    /// For a log that no checkpoint knows: the epochs that its batches name, and whether their offsets have holes.
    pub(super) learned: EpochTable,
    pub(super) has_holes: bool,
}

impl LogPlan {
    pub(super) fn has_work(&self) -> bool {
        self.new_start.is_some() || !self.segments.is_empty()
    }
}
