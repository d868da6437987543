//! The ground: locks, and the one way in which a publisher wakes whoever waits.

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, Ordering, fence};

use std::time::Instant;

/// Wakes those who wait for something to be published, and costs a publisher 5 ns while nobody waits.
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
}

impl Wake {
    /// Call after publishing.
    #[inline]
    pub(crate) fn wake_all(&self) {
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) != 0 {
            self.wake_waiters();
        }
    }

    #[cold]
    fn wake_waiters(&self) {
        *self.turn.lock() += 1;
        self.woken.notify_all();
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
