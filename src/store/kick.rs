//! What wakes the housekeeping thread, and when it did what last.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicI64, AtomicU64, Condvar, Mutex, Ordering};

/// Wakes the housekeeping thread.
#[derive(Debug, Default)]
pub(super) struct Kick {
    kicked: Mutex<bool>,
    changed: Condvar,
    pub(super) stop: AtomicBool,
    /// Held by the thread that does what is due. Two threads that made the next segment ready would remove each other's
    /// file.
    pub(super) working: Mutex<()>,
    pub(super) last_retention: AtomicI64,
    pub(super) last_checkpoint: AtomicI64,
    /// How much all logs had flushed then.
    pub(super) checkpointed_bytes: AtomicU64,
}

impl Kick {
    pub(super) fn kick(&self) {
        *self.kicked.lock() = true;
        self.changed.notify_one();
    }

    /// Sleeps until kicked or `period` has passed; `false` when it is time to stop.
    pub(super) fn wait(&self, period: Duration) -> bool {
        let deadline = Instant::now() + period;
        let mut kicked = self.kicked.lock();
        while !*kicked && !self.stop.load(Ordering::Acquire) {
            if self.changed.wait_until(&mut kicked, deadline).timed_out() {
                break;
            }
        }
        *kicked = false;
        !self.stop.load(Ordering::Acquire)
    }
}
