//! What only the holder of the append lock sees: the active segment's writer, and what the next batch gets.

use std::sync::Arc;

use edgelog_core::{LeaderEpoch, Offset};

use crate::segment::SegmentWriter;
use crate::storage::StorageFile;

/// The writing end of a log: what only the holder of the append lock sees.
#[derive(Debug)]
pub(crate) struct Appender {
    /// Of the active segment.
    pub(crate) writer: SegmentWriter,
    pub(crate) next_offset: Offset,
    pub(crate) epoch: LeaderEpoch,
    /// Base offset of the oldest `Sync` append that waits for its flush: the high watermark stays there.
    pub(crate) sync_pending_from: Option<Offset>,
    /// End of the newest `Sync` append.
    pub(crate) sync_pending_end: Offset,
    /// A write failed half way: what it left behind the end must be fenced before the next append.
    pub(crate) torn: bool,
    /// The file made ready for the next segment, with its reserved length.
    pub(crate) prepared: Option<(Arc<dyn StorageFile>, u32)>,
}

impl Appender {
    pub(crate) fn new(writer: SegmentWriter, next_offset: Offset, epoch: LeaderEpoch) -> Appender {
        Appender {
            writer,
            next_offset,
            epoch,
            sync_pending_from: None,
            sync_pending_end: Offset(0),
            torn: false,
            prepared: None,
        }
    }

    /// The last offset of a batch that is appended now. One that no record can have stays one.
    #[inline]
    pub(super) fn last_offset(&self, last_offset_delta: i32) -> Offset {
        self.next_offset.saturating_add(i64::from(last_offset_delta))
    }
}
