//! What this process is to a log: its writer, or one that is attached to what another process writes.

use std::sync::Arc;
use std::time::Duration;

use edgelog_core::{LeaderEpoch, Offset};

use super::attachment::Attachment;
use super::saved_log::DurablePoint;
use crate::segment::SegmentWriter;
use crate::storage::StorageFile;
use crate::sync::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Condvar, Mutex};

/// What a process is to a log, from the moment that it opens it.
#[derive(Debug)]
pub(super) enum Role {
    Writer(Writer),
    Attached(Attached),
}

/// What the writing process keeps of a log, apart from what its readers need.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// `None` until recovery has found the end of the log, and once its files are about to be deleted.
    pub(super) appender: Mutex<Option<Appender>>,
    /// Held while room behind the appender's is written to; taken before `appender`, never after it.
    pub(super) preparing: Mutex<()>,
    pub(super) durable: Mutex<DurablePoint>,
    pub(super) flush_state: Mutex<FlushState>,
    pub(super) flushed: Condvar,
    /// When the oldest unflushed `Interval` append was made; 0 where there is none.
    pub(super) interval_since: AtomicI64,
    /// `Sync` appends since the last flush began.
    pub(super) sync_appends: AtomicU32,
    /// Bytes of batches that were made durable since the log was opened, by any flush.
    pub(super) flushed_bytes: AtomicU64,
    /// A name in the partition directory is new and not yet synced.
    pub(super) names_dirty: AtomicBool,
}

/// What an attached process keeps of a log.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) attachment: Mutex<Attachment>,
    /// Held by the one who flushes; taken before `attachment`.
    pub(super) flushing: Mutex<()>,
}

/// Who flushes, and what the leader knows of the group that it flushes for.
#[derive(Debug, Default)]
pub(super) struct FlushState {
    pub(super) flushing: bool,
    /// `Sync` appends that the last flush served: about as many are to be expected again.
    pub(super) last_group: u32,
    /// How long a flush usually takes, a moving average.
    pub(super) usual: Duration,
}

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
