//! Ctrl-C and SIGTERM: the first asks the command to finish what it is at, a second one ends it on the spot.
//!
//! A command that does not notice, since it waits for a pipe that is not read or for a file that does not answer, is
//! ended after a moment: the store survives that as it survives a power cut.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::{Failure, INTERRUPTED};

/// So long a command may take to notice that it is asked to stop.
const NOTICE_MAX: Duration = Duration::from_secs(3);
/// So long it may take to finish from then on.
const FINISH_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    /// The command was asked to stop, and has not looked yet.
    Raised,
    Noticed,
}

static ASKED: Mutex<Asked> = Mutex::new(Asked::No);
static RAISED: Condvar = Condvar::new();

fn asked() -> MutexGuard<'static, Asked> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on, Ctrl-C does not end the process, and [`raised`] and [`sleep_until`] report it; the process ends anyway
/// where the command does not notice, or does not come to its end.
pub(crate) fn install() -> Result<(), Failure> {
    install_with(Some(FINISH_MAX))
}

/// As [`install`], for a command that has time limits of its own for what it finishes.
#[cfg(feature = "bridge")]
pub(crate) fn install_patiently() -> Result<(), Failure> {
    install_with(None)
}

fn install_with(finish_max: Option<Duration>) -> Result<(), Failure> {
    ctrlc::set_handler(move || {
        let mut asked = asked();
        if *asked != Asked::No {
            end();
        }
        *asked = Asked::Raised;
        RAISED.notify_all();
        // Where there is no thread to be had, the second signal ends the command.
        let _ = std::thread::Builder::new().spawn(move || watch(finish_max));
    })
    .map_err(|error| Failure::new(format!("cannot listen for Ctrl-C: {error}")))
}

/// Ends a command that was asked to stop and does not.
fn watch(finish_max: Option<Duration>) {
    std::thread::sleep(NOTICE_MAX);
    if *asked() == Asked::Raised {
        end();
    }
    if let Some(finish_max) = finish_max {
        std::thread::sleep(finish_max);
        end();
    }
}

fn end() -> ! {
    std::process::exit(i32::from(INTERRUPTED));
}

/// Whether the command was asked to stop.
pub(crate) fn raised() -> bool {
    let mut asked = asked();
    notice(&mut asked)
}

fn notice(asked: &mut Asked) -> bool {
    if *asked == Asked::Raised {
        *asked = Asked::Noticed;
    }
    *asked == Asked::Noticed
}

/// Sleeps for `duration` or until the command is asked to stop; answers whether it was.
pub(crate) fn sleep(duration: Duration) -> bool {
    sleep_until(Instant::now() + duration)
}

/// Sleeps until `deadline` or until the command is asked to stop; answers whether it was.
pub(crate) fn sleep_until(deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let waited = RAISED.wait_timeout_while(asked(), left, |asked| *asked == Asked::No);
    notice(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
}
