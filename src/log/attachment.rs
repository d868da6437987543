//! Where an attached process stands in a log that another one writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::{EpochLearner, LeaderEpoch, LogId, Offset, Position};

use super::saved_log::DurablePoint;
use crate::segment::{Segment, SegmentFiles};

/// How often an idle follower looks: at first, and at most.
pub(super) const POLL_MIN: Duration = Duration::from_millis(1);
pub(super) const POLL_MAX: Duration = Duration::from_millis(50);
/// So long a writer that closes the store may take between giving up that it answers for it, and its last checkpoint;
/// and another one, to recover it.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

/// Where an attached log's validation stands.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) segment: Arc<Segment>,
    /// The log's identity in the writer's checkpoint; `None` while no checkpoint knows the log.
    pub(super) id: Option<LogId>,
    /// The topic was deleted and created again: nothing more is read under its name.
    pub(super) is_replaced: bool,
    /// Without a checkpoint the batches' own epochs make the table.
    pub(super) learner: EpochLearner,
    /// The file that was validated; another one under its name means a truncation.
    pub(super) identity: u64,
    pub(super) position: Position,
    pub(super) next_offset: Offset,
    /// The epoch field of the batch that ends here; `None` behind damage.
    pub(super) epoch_before: Option<LeaderEpoch>,
    /// The segments as the directory was listed last.
    pub(super) files: SegmentFiles,
    /// Where the next segment begins; `Offset::MAX` where none did then.
    pub(super) offset_end: Offset,
    pub(super) in_vain: u32,
    /// The place, by segment and position, behind which a batch was looked for last.
    pub(super) searched: Option<(Offset, Position)>,
    /// When the checkpoint was read last; `None` where it is to be read at once.
    pub(super) checkpoint_read: Option<Instant>,
    /// Everything below was made durable from here.
    pub(super) flushed: Offset,
    /// Everything below was durable when this process attached, by the checkpoint or by the segments' names.
    pub(super) proved: Offset,
    /// Where the checkpoint, or the segments' names, say that what is durable ends.
    pub(super) durable: DurablePoint,
    /// The names of the segments up to the one that begins here were made durable from here.
    pub(super) names_flushed: Option<Offset>,
    /// Since when, whenever a flush was asked for, more was seen than is durable, and no healthy writer had the store
    /// open.
    pub(super) unvouched_since: Option<Instant>,
    /// A flush from here failed, and the writer has not resolved it yet.
    pub(super) failed: Option<FailedFlush>,
}

impl Attachment {
    /// Whether a healthy writer answers now for what is seen.
    pub(super) fn note_vouched(&mut self, is_vouched: bool) {
        self.unvouched_since = if is_vouched { None } else { self.unvouched_since.or_else(|| Some(Instant::now())) };
    }

    #[cfg_attr(not(feature = "bridge"), allow(dead_code))]
    pub(super) fn is_unvouched(&self) -> bool {
        self.unvouched_since.is_some_and(|since| since.elapsed() >= HAND_OVER_MAX)
    }
}

/// A failed flush of an attached process: what it was to make durable may never be, although the next one succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FailedFlush {
    /// Nothing beyond this had been appended.
    pub(crate) end: Offset,
    /// The log had begun no later epoch.
    pub(crate) epoch: LeaderEpoch,
}
