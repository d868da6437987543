//! The ground: locks, and the one way in which a publisher wakes the threads that wait.

#[cfg(not(loom))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::thread::{JoinHandle, ThreadId};

use std::fmt;
use std::sync::Arc;
#[cfg(not(loom))]
use std::time::Duration;
use std::time::Instant;

use crate::canary::{Bug, bug};

#[cfg(loom)]
mod modelled;
#[cfg(all(loom, test))]
mod models;

#[cfg(loom)]
pub(crate) use modelled::*;

/// One that cannot sleep in [`Wake::wait_until`] and is notified once instead.
pub(crate) trait Watcher: Send + Sync + fmt::Debug {
    /// Whether what it waits for has come; if so, it has notified its owner and is forgotten.
    fn notify_if_ready(&self) -> bool;
}

/// Wakes those who wait for something to be published, and costs a publisher 5 ns while no thread waits.
///
/// No wake-up is lost: a publisher *publishes, fences, looks for waiters*; a waiter *registers, fences, looks
/// at what is published*. Of two sequentially consistent fences one comes first, so at least one side sees
/// the other.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    waiters: AtomicU32,
    /// Counts wake-ups, so that one which falls between looking and sleeping is seen under the lock.
    turn: Mutex<u64>,
    woken: Condvar,
    /// Each counts as a waiter for as long as it stands here.
    watchers: Mutex<Vec<Arc<dyn Watcher>>>,
}

impl Wake {
    /// Call after publishing.
    #[inline]
    pub(crate) fn wake_all(&self) {
        if !bug(Bug::WakeWithoutFence) {
            fence(Ordering::SeqCst);
        }
        if self.waiters.load(Ordering::Relaxed) != 0 {
            self.wake_waiters();
        }
    }

    #[cold]
    fn wake_waiters(&self) {
        *self.turn.lock() += 1;
        self.woken.notify_all();
        self.notify_watchers();
    }

    fn notify_watchers(&self) {
        self.watchers.lock().retain(|watcher| {
            let notified = watcher.notify_if_ready();
            if notified {
                self.waiters.fetch_sub(1, Ordering::SeqCst);
            }
            !notified
        });
    }

    /// Notifies `watcher` once, as soon as it says that it is ready, which may be now. Publishers pay for it until
    /// then, and not while there is no watcher.
    pub(crate) fn watch(&self, watcher: Arc<dyn Watcher>) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        self.watchers.lock().push(watcher);
        fence(Ordering::SeqCst);
        self.notify_watchers();
    }

    /// Forgets `watcher`, notified or not.
    pub(crate) fn unwatch(&self, watcher: &Arc<dyn Watcher>) {
        self.watchers.lock().retain(|other| {
            let same = Arc::ptr_eq(other, watcher);
            if same {
                self.waiters.fetch_sub(1, Ordering::SeqCst);
            }
            !same
        });
    }

    /// Sleeps until `ready` answers true or the deadline passes; returns what `ready` answered last.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>, mut ready: impl FnMut() -> bool) -> bool {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let answer = loop {
            let seen = *self.turn.lock();
            if ready() {
                break true;
            }
            let mut turn = self.turn.lock();
            if *turn != seen {
                continue;
            }
            let late = if let Some(deadline) = deadline {
                self.woken.wait_until(&mut turn, deadline).timed_out()
            } else {
                self.woken.wait(&mut turn);
                false
            };
            drop(turn);
            if late {
                break ready();
            }
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

/// How long ago `begun` was.
#[cfg(not(loom))]
pub(crate) fn elapsed(begun: Instant) -> Duration {
    begun.elapsed()
}

/// Starts a thread with this name.
///
/// # Errors
/// The system's, where it has no more threads.
#[cfg(not(loom))]
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    #[cfg(edgelog_canary)]
    let bug = crate::canary::switched_on();
    let work = move || {
        // It makes the mistakes of who has started it.
        #[cfg(edgelog_canary)]
        crate::canary::switch_on(bug);
        work();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Who runs this.
#[cfg(not(loom))]
pub(crate) fn this_thread() -> ThreadId {
    std::thread::current().id()
}
