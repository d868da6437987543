//! `buffer.memory`: how much may wait for its acknowledgement, counted by batches.

use std::time::{Duration, Instant};

use super::producer_error::ProducerError;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering, Wake};

#[derive(Debug)]
pub(super) struct Memory {
    total: u64,
    free: AtomicU64,
    max_block: Duration,
    freed: Wake,
    waiting: AtomicU32,
    /// No record is taken any more.
    closed: AtomicBool,
    waited_ns: AtomicU64,
}

impl Memory {
    pub(super) fn new(total: u64, max_block: Duration) -> Memory {
        Memory {
            total,
            free: AtomicU64::new(total),
            max_block,
            freed: Wake::default(),
            waiting: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            waited_ns: AtomicU64::new(0),
        }
    }

    /// Takes so many bytes, where they are free.
    pub(super) fn try_take(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let take = |free: u64| free.checked_sub(bytes);
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Takes so many bytes as soon as they are free. `hurry` is called once this call waits: it lets the sender do what
    /// frees some.
    ///
    /// # Errors
    /// `BufferFull` after `max.block.ms`, `Closed` once the producer is.
    pub(super) fn take(&self, bytes: usize, hurry: impl FnOnce()) -> Result<(), ProducerError> {
        let begun = Instant::now();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        hurry();
        let mut taken = false;
        // A wait that is too long for the clock has no end.
        self.freed.wait_until(begun.checked_add(self.max_block), || {
            taken = taken || self.try_take(bytes);
            taken || self.is_closed()
        });
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        self.waited_ns.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if taken {
            return Ok(());
        }
        if self.is_closed() {
            return Err(ProducerError::Closed);
        }
        Err(self.full(bytes))
    }

    pub(super) fn full(&self, needed: usize) -> ProducerError {
        let max_block_ms = self.max_block.as_millis() as u64;
        ProducerError::BufferFull { needed, buffer_memory: self.total, max_block_ms }
    }

    pub(super) fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.free.fetch_add(bytes as u64, Ordering::AcqRel);
            self.freed.wake_all();
        }
    }

    /// Whether a `send` waits for memory.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.freed.wake_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn waited_ns(&self) -> u64 {
        self.waited_ns.load(Ordering::Relaxed)
    }
}
