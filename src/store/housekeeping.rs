//! The work that no append waits for: one thread for all logs of a store, or the host's own calls of `tick`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use edgelog_core::TimestampMs;

use super::retention_holds::RetentionHolds;
use super::shared::StoreShared;
use crate::error::{Error, Result};
use crate::events;
use crate::sync::{AtomicI64, Ordering};

/// How long the thread sleeps when nothing is due.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// The checkpoint is written again where so much was flushed since.
const FAR_BYTES: u64 = 4 << 20;
/// And at least, at any `flush.ms`.
const PERIOD_MIN: Duration = Duration::from_millis(2);

/// The housekeeping thread of one store.
#[derive(Debug)]
pub(super) struct Housekeeper {
    thread: std::thread::JoinHandle<()>,
}

impl Housekeeper {
    pub(super) fn start(shared: &Arc<StoreShared>) -> Result<Housekeeper> {
        // Weak, so that a store that was leaked or forgotten does not keep its thread, nor the thread the store.
        let weak = Arc::downgrade(shared);
        let thread = std::thread::Builder::new()
            .name("edgelog".to_owned())
            .spawn(move || run(&weak))
            .map_err(Error::storage("start the housekeeping thread", "."))?;
        Ok(Housekeeper { thread })
    }

    /// Ends the thread; whether it ended well. Called by the thread itself (out of an event of its own), it ends when
    /// the call has returned.
    pub(super) fn stop(self, shared: &StoreShared) -> bool {
        shared.kick.stop.store(true, Ordering::Release);
        shared.kick.kick();
        self.thread.thread().id() == std::thread::current().id() || self.thread.join().is_ok()
    }
}

fn run(weak: &Weak<StoreShared>) {
    let mut period = IDLE_MAX;
    loop {
        let Some(shared) = weak.upgrade() else { return };
        if !shared.kick.wait(period) {
            return;
        }
        // Without housekeeping an `Interval` append would stay unflushed and no caller would know. So the store closes.
        let ended = Ended(&shared);
        if let Err(error) = shared.tick(shared.clock.now()) {
            tracing::warn!(%error, "housekeeping");
        }
        period = shared.next_period();
        std::mem::forget(ended);
    }
}

/// Ends the use of the store where housekeeping panicked.
struct Ended<'a>(&'a StoreShared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.let_go();
        tracing::error!("the housekeeping thread panicked; the store answers Closed until it is opened again");
    }
}

impl StoreShared {
    /// Does what is due. The first error is returned after everything else was done.
    pub(super) fn tick(&self, now: TimestampMs) -> Result<()> {
        if self.attached {
            return Ok(());
        }
        let _events = events::hold();
        let _one_at_a_time = self.kick.working.lock();
        // What is flushed looks by itself; what is acknowledged before it is flushed depends on this.
        self.check_lock()?;
        let logs: Vec<_> = self.logs.read().values().cloned().collect();
        let mut first = Ok(());
        let mut note = |outcome: Result<()>| {
            if first.is_ok() {
                first = outcome;
            }
        };
        let mut sealed = false;
        for log in &logs {
            note(log.tick(now).map(|any| sealed |= any));
        }
        self.storage.flush_ahead();
        if is_due(&self.kick.last_retention, now, self.config.retention_check_interval_ms) {
            // Where it is not known what is still needed, nothing is deleted in this round.
            match RetentionHolds::read(&*self.storage) {
                Ok(holds) => {
                    for log in &logs {
                        let held_from = holds.held_from(&log.name, log.id);
                        note(log.expire(now, held_from).map(|_| ()));
                    }
                }
                Err(error) => note(Err(error)),
            }
        }
        // At each roll, and where flushes moved far, so that what the next open has to walk and to write again stays
        // little; else now and then.
        let flushed = logs.iter().fold(0_u64, |sum, log| sum.wrapping_add(log.flushed_bytes()));
        let far = flushed.wrapping_sub(self.kick.checkpointed_bytes.load(Ordering::Relaxed)) >= FAR_BYTES;
        if is_due(&self.kick.last_checkpoint, now, self.config.checkpoint_interval_ms) || sealed || far {
            self.kick.checkpointed_bytes.store(flushed, Ordering::Relaxed);
            note(self.checkpoint_if_changed());
        }
        first
    }

    /// Until when nothing will be due, unless a kick says so.
    fn next_period(&self) -> Duration {
        let mut period = IDLE_MAX;
        let ms = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        period = period.min(ms(self.config.checkpoint_interval_ms)).min(ms(self.config.retention_check_interval_ms));
        for log in self.logs.read().values() {
            if let Some(interval) = log.interval_pending() {
                period = period.min(ms(interval) / 4);
            }
        }
        period.max(PERIOD_MIN)
    }
}

/// Whether `interval` has passed since the time in `last`, which is then set to `now`. A clock that was set
/// back counts as passed.
fn is_due(last: &AtomicI64, now: TimestampMs, interval: i64) -> bool {
    let before = last.load(Ordering::Relaxed);
    let due = now < before || now.saturating_sub(before) >= interval;
    if due {
        last.store(now.0, Ordering::Relaxed);
    }
    due
}
