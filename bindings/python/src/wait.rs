//! Waiting in pieces, so that Ctrl-C is noticed.

use std::time::{Duration, Instant};

use pyo3::PyResult;
use pyo3::exceptions::PyOverflowError;

/// So long at most a call waits before it looks for signals: Ctrl-C has 200 ms.
pub(crate) const SLICE: Duration = Duration::from_millis(100);

/// When a wait is over; `None` is never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// A timeout in seconds, as Python gives it. A negative one is none.
    pub(crate) fn after(seconds: f64) -> PyResult<Deadline> {
        if seconds.is_nan() {
            return Err(PyOverflowError::new_err("the timeout is not a number"));
        }
        if seconds < 0.0 {
            return Ok(Deadline(None));
        }
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Ok(Deadline(Instant::now().checked_add(wait)))
    }

    pub(crate) fn is_over(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }

    /// How long the next piece of the wait is.
    pub(crate) fn slice(self) -> Duration {
        self.left().map_or(SLICE, |left| left.min(SLICE))
    }

    /// What is left of it; `None` where it has no end.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }
}
