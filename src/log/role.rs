//! What this process is to a log: its writer, or one that is attached to what another process writes.

use std::time::Duration;

use super::appender::Appender;
use super::attachment::Attachment;
use super::saved_log::DurablePoint;
use crate::sync::{AtomicBool, AtomicI64, AtomicU32, Condvar, Mutex};

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
