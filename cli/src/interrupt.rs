//! Ctrl-C and SIGTERM: the first asks the command to finish what it is at, a second one ends it on the spot.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::{Failure, INTERRUPTED};

static INTERRUPTED_FLAG: Mutex<bool> = Mutex::new(false);
static RAISED: Condvar = Condvar::new();

/// From now on, Ctrl-C does not end the process but is told by [`raised`] and [`sleep_until`].
pub(crate) fn install() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        let mut raised = INTERRUPTED_FLAG.lock().unwrap_or_else(PoisonError::into_inner);
        if *raised {
            std::process::exit(i32::from(INTERRUPTED));
        }
        *raised = true;
        RAISED.notify_all();
    })
    .map_err(|error| Failure::new(format!("cannot listen for Ctrl-C: {error}")))
}

/// Whether somebody asked to stop.
pub(crate) fn raised() -> bool {
    *INTERRUPTED_FLAG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sleeps for `duration` or until somebody asks to stop; tells whether that was so.
pub(crate) fn sleep(duration: Duration) -> bool {
    sleep_until(Instant::now() + duration)
}

/// Sleeps until `deadline` or until somebody asks to stop; tells whether that was so.
pub(crate) fn sleep_until(deadline: Instant) -> bool {
    let raised = INTERRUPTED_FLAG.lock().unwrap_or_else(PoisonError::into_inner);
    let left = deadline.saturating_duration_since(Instant::now());
    let waited = RAISED.wait_timeout_while(raised, left, |raised| !*raised);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}
