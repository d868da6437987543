//! What the check found for repair to do: to one log, and to each of its segments.

use edgelog_core::Offset;

use super::facts::LogFacts;
use crate::segment::passed_over::OffsetRange;

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
    /// Files that have wrong names, and the right ones.
    pub(super) renames: Vec<(String, String)>,
    /// The log's first segments are gone: it starts here now.
    pub(super) new_start: Option<Offset>,
    /// Batches that hold, out of order, and whose offsets stand nowhere else.
    pub(super) passed_over: Vec<LostBatches>,
}

/// Batches that hold, and that the log goes on without.
#[derive(Debug, Clone)]
pub(super) struct LostBatches {
    pub(super) path: String,
    pub(super) lost: OffsetRange,
    /// The log ends before them: no reader comes there.
    pub(super) is_behind_end: bool,
}

impl LogPlan {
    pub(super) fn has_work(&self) -> bool {
        self.new_start.is_some() || !self.segments.is_empty() || !self.renames.is_empty()
    }
}
