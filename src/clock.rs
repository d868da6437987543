//! The ground: what time it is. Everything below the store takes time as an argument.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use edgelog_core::TimestampMs;

/// Tells the wall clock's time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970-01-01T00:00Z, as this machine believes.
    fn now(&self) -> TimestampMs;
}

/// The machine's own clock, at the kernel's tick (1 to 10 ms): reading it costs a few nanoseconds, an exact
/// clock as much as the rest of an append.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> TimestampMs {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        #[allow(clippy::useless_conversion)] // Nanoseconds are a C `long`: 32 bits wide on some systems.
        let nanoseconds = i64::from(time.tv_nsec);
        time.tv_sec * 1000 + nanoseconds / 1_000_000
    }
}

/// A clock that stands still until it is told otherwise; for tests. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: TimestampMs) -> ManualClock {
        ManualClock(Arc::new(AtomicI64::new(now)))
    }

    /// Lets the clock show `now`, forwards or backwards.
    pub fn set(&self, now: TimestampMs) {
        self.0.store(now, Ordering::Relaxed);
    }

    /// Moves the clock by `delta_ms`.
    pub fn advance(&self, delta_ms: i64) {
        self.0.fetch_add(delta_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> TimestampMs {
        self.0.load(Ordering::Relaxed)
    }
}
