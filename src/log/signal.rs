//! Waiting without sleeping in a call: a descriptor that becomes readable when a reader has something to do.
//!
//! # Invariants
//!
//! 1. The descriptor is readable from the moment it is made: the reader has not looked yet.
//! 2. It is made unreadable only by [`Signal::arm`], which the reader calls when it has found nothing, and which looks
//!    once more after it: what was published before is found there, what is published later signals.
//! 3. A signal that has fired is not armed: it fires once, and appenders pay for it no more until the reader has come
//!    to its end again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use edgelog_core::Offset;
use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::attachment::{POLL_MAX, POLL_MIN};
use super::shared::LogShared;
use super::types::ReadUpTo;
use crate::error::{Error, Result};
use crate::sync::{Mutex, Ordering, Watcher};

/// A reader's descriptor, and what makes it readable.
#[derive(Debug)]
pub(super) enum Signal {
    /// Appenders of this process write to it.
    Event { event: Arc<Event>, watched: Option<(Weak<LogShared>, Arc<dyn Watcher>)> },
    /// No appender can: another process appends. It fires when it is time to look again.
    Timer { timer: OwnedFd, pause: Duration, position: Offset },
}

/// An `eventfd`, and what its reader waits for.
#[derive(Debug)]
pub(super) struct Event {
    descriptor: OwnedFd,
    wanted: Mutex<Option<Wanted>>,
}

#[derive(Debug)]
struct Wanted {
    log: Weak<LogShared>,
    position: Offset,
    up_to: ReadUpTo,
    generation: u64,
}

impl Signal {
    pub(super) fn new(attached: bool) -> Result<Signal> {
        let failed = |error: rustix::io::Errno| Error::storage("make a descriptor to poll", ".")(error.into());
        if !attached {
            let descriptor = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
            let event = Arc::new(Event { descriptor, wanted: Mutex::default() });
            return Ok(Signal::Event { event, watched: None });
        }
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(failed)?;
        fire_after(&timer, Duration::from_nanos(1)).map_err(failed)?;
        Ok(Signal::Timer { timer, pause: POLL_MIN, position: Offset(-1) })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Signal::Event { event, .. } => event.descriptor.as_fd(),
            Signal::Timer { timer, .. } => timer.as_fd(),
        }
    }

    /// The reader stands at `position` and has found nothing there: makes the descriptor unreadable until there may be
    /// something. Answers whether there is by now.
    pub(super) fn arm(&mut self, log: &Arc<LogShared>, position: Offset, up_to: ReadUpTo) -> Result<bool> {
        match self {
            Signal::Event { event, watched } => {
                let generation = log.generation.load(Ordering::Acquire);
                if let Some((log, watcher)) = watched.take() {
                    forget(&log, &watcher);
                }
                event.clear();
                if log.has_news(position, up_to, generation) {
                    // What ends the log is reported by the next call, and has to be polled until then.
                    event.fire();
                    return Ok(log.bound(up_to) > position || log.check_alive().is_err());
                }
                *event.wanted.lock() = Some(Wanted { log: Arc::downgrade(log), position, up_to, generation });
                let watcher: Arc<dyn Watcher> = Arc::clone(event) as Arc<dyn Watcher>;
                log.wake.watch(Arc::clone(&watcher));
                *watched = Some((Arc::downgrade(log), watcher));
                Ok(false)
            }
            Signal::Timer { timer, pause, position: seen } => {
                // Something was read since: the writer is appending.
                *pause = if *seen == position { (*pause * 2).min(POLL_MAX) } else { POLL_MIN };
                *seen = position;
                let failed = |error: rustix::io::Errno| Error::storage("set a timer", ".")(error.into());
                fire_after(timer, *pause).map_err(failed)?;
                Ok(false)
            }
        }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        if let Signal::Event { watched: Some((log, watcher)), .. } = self {
            forget(log, watcher);
        }
    }
}

fn forget(log: &Weak<LogShared>, watcher: &Arc<dyn Watcher>) {
    if let Some(log) = log.upgrade() {
        log.wake.unwatch(watcher);
    }
}

/// Makes the timer readable once, so much later, and unreadable until then.
fn fire_after(timer: &OwnedFd, pause: Duration) -> rustix::io::Result<()> {
    let value = Timespec { tv_sec: pause.as_secs() as _, tv_nsec: pause.subsec_nanos() as _ };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).map(|_| ())
}

impl Event {
    fn fire(&self) {
        // Full is readable too.
        let _ = rustix::io::write(&self.descriptor, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        // Empty already: the program read it, against the rule.
        let _ = rustix::io::read(&self.descriptor, &mut [0; 8]);
    }
}

impl Watcher for Event {
    fn notify_if_ready(&self) -> bool {
        let wanted = self.wanted.lock();
        let ready = wanted.as_ref().is_none_or(|wanted| {
            wanted.log.upgrade().is_none_or(|log| log.has_news(wanted.position, wanted.up_to, wanted.generation))
        });
        if ready {
            self.fire();
        }
        ready
    }
}
