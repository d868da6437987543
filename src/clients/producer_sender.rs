//! The one thread of a producer: what is due, flushes, and the program's callbacks.

use std::sync::Arc;
use std::time::Instant;

use super::accumulator::{Attended, Partition, Rules};
use super::delivery::Reports;
use super::producer_error::ProducerError;
use crate::sync::{AtomicBool, AtomicU64, Ordering, Wake};

/// What the sender shares with those who ask something of it.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) rules: Arc<Rules>,
    pub(super) reports: Arc<Reports>,
    /// How often everything was asked for, and up to which of these it was done.
    asked: AtomicU64,
    done: AtomicU64,
    /// No record is taken any more, and all that were stand where the sender looks.
    closing: AtomicBool,
    /// There is no thread any more, and nothing left for it to do.
    ended: AtomicBool,
    progress: Wake,
}

/// Marks the end of the thread, also where that is a panic of ours: no thread may wait for it then.
struct Ended<'a>(&'a Sender);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let sender = self.0;
        sender.rules.memory.close();
        if std::thread::panicking() {
            // What is not answered yet is, by `delivery.timeout.ms`.
            tracing::error!("a producer's sender thread panicked; the producer is closed");
        }
        sender.ended.store(true, Ordering::SeqCst);
        sender.progress.wake_all();
    }
}

impl Sender {
    pub(super) fn new(rules: Arc<Rules>, reports: Arc<Reports>) -> Sender {
        Sender {
            rules,
            reports,
            asked: AtomicU64::new(0),
            done: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            progress: Wake::default(),
        }
    }

    /// The thread's work, until the producer is closed and nothing is left.
    pub(super) fn run(&self) {
        self.reports.i_am_the_sender();
        let ended = Ended(self);
        let mut partitions = Vec::new();
        loop {
            // Before the look, or what comes between would have no part in the last round.
            let closing = self.closing.load(Ordering::SeqCst);
            let again = self.round(&mut partitions, closing);
            if closing && partitions.is_empty() && self.rules.active.lock().is_empty() {
                break;
            }
            self.reports.bell.sleep(again);
        }
        while self.reports.call_listeners() {}
        drop(ended);
    }

    /// Looks at all partitions once. Returns when the next look is due.
    fn round(&self, partitions: &mut Vec<Arc<Partition>>, closing: bool) -> Option<Instant> {
        let asked = self.asked.load(Ordering::SeqCst);
        let all = closing || asked != self.done.load(Ordering::Relaxed) || self.rules.memory.is_waited_for();
        partitions.append(&mut self.rules.active.lock());
        let now = Instant::now();
        let mut again: Option<Instant> = None;
        let mut look_by = |by: Instant| again = Some(again.map_or(by, |earlier| earlier.min(by)));
        let mut flushes = Vec::new();
        partitions.retain(|partition| match partition.attend(&self.rules, now, all) {
            Attended::Nothing => false,
            Attended::Again(by) => {
                look_by(by);
                true
            }
            Attended::Flush(flushing) => {
                flushes.push((Arc::clone(partition), flushing));
                look_by(now);
                true
            }
        });
        for (partition, flushing) in flushes {
            partition.flush(flushing);
        }
        self.reports.call_listeners();
        if asked != self.done.load(Ordering::Relaxed) {
            self.done.store(asked, Ordering::Release);
            self.progress.wake_all();
        }
        again
    }

    /// Lets the sender do everything that is there now, and waits for it until `deadline` at the latest. Returns
    /// whether it was done: appended, flushed, answered, and its callbacks called.
    pub(super) fn ask(&self, deadline: Option<Instant>) -> Result<bool, ProducerError> {
        if self.reports.is_sender() {
            return Err(ProducerError::InCallback);
        }
        let ticket = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.reports.bell.ring(Instant::now());
        let done = || self.done.load(Ordering::Acquire) >= ticket || self.ended.load(Ordering::Acquire);
        Ok(self.progress.wait_until(deadline, done))
    }

    /// Ends the thread, once everything is done. Does not wait for it. From before this call on no record is taken.
    pub(super) fn close(&self) {
        debug_assert!(self.rules.memory.is_closed(), "records are still taken");
        self.closing.store(true, Ordering::SeqCst);
        self.reports.bell.ring(Instant::now());
    }

    /// Waits for the end of the thread. A callback, which runs on it, does not.
    pub(super) fn wait_for_the_end(&self) {
        if !self.reports.is_sender() {
            self.progress.wait_until(None, || self.ended.load(Ordering::Acquire));
        }
    }
}
