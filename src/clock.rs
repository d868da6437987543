//! The ground: what time it is. Everything below the store takes time as an argument.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use edgelog_core::TimestampMs;

/// Reads the wall clock's time.
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
        TimestampMs(time.tv_sec * 1000 + ms_of_nanoseconds(time.tv_nsec as u32))
    }
}

/// The whole milliseconds in nanoseconds of less than a second. Multiplied by 2^50 / 10^6: where this is built for
/// size, as in the C library, a division would stay one, and cost a quarter of what adding a record to a batch does.
#[inline]
const fn ms_of_nanoseconds(nanoseconds: u32) -> i64 {
    ((nanoseconds as u64 * 1_125_899_907) >> 50) as i64
}

/// A clock that stands still until it is set; for tests. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: TimestampMs) -> ManualClock {
        ManualClock(Arc::new(AtomicI64::new(now.0)))
    }

    /// Lets the clock show `now`, forwards or backwards.
    pub fn set(&self, now: TimestampMs) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    /// Moves the clock by `delta_ms`.
    pub fn advance(&self, delta_ms: i64) {
        self.0.fetch_add(delta_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::ms_of_nanoseconds;

    #[test]
    fn nanoseconds_become_milliseconds_as_by_division() {
        // The answer never falls, so both sides of every step are all there is.
        for ms in 0..1000 {
            assert_eq!(ms_of_nanoseconds(ms * 1_000_000), i64::from(ms));
            assert_eq!(ms_of_nanoseconds(ms * 1_000_000 + 999_999), i64::from(ms));
        }
    }
}
