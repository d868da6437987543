//! Locks and atomics for models of the engine under loom, which tries every order in which threads can meet: loom's
//! own, with the faces of those that the engine uses otherwise.
//!
//! A model has no time: nothing waits for a deadline, and a clock stands still.

pub(crate) use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

pub(crate) use loom::sync::RwLockReadGuard;
pub(crate) use loom::thread::{JoinHandle, ThreadId};

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

const UNPOISONED: &str = "a model ends with its first panic";

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.0.lock().expect(UNPOISONED)) }
    }
}

/// The guard is `None` only while it is given up inside of a call.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: Option<loom::sync::MutexGuard<'a, T>>,
}

impl<T> MutexGuard<'_, T> {
    pub(crate) fn unlocked<U>(this: &mut Self, work: impl FnOnce() -> U) -> U {
        this.guard = None;
        let answer = work();
        this.guard = Some(this.mutex.0.lock().expect(UNPOISONED));
        answer
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("it is held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("it is held")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn new() -> Condvar {
        Condvar::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.guard.take().expect("it is held");
        guard.guard = Some(self.0.wait(held).expect(UNPOISONED));
    }

    /// The deadline never comes.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

pub(crate) struct WaitTimeoutResult;

impl WaitTimeoutResult {
    #[allow(clippy::unused_self)] // the face of the other one
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> RwLock<T> {
        RwLock(loom::sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> loom::sync::RwLockReadGuard<'_, T> {
        self.0.read().expect(UNPOISONED)
    }

    pub(crate) fn write(&self) -> loom::sync::RwLockWriteGuard<'_, T> {
        self.0.write().expect(UNPOISONED)
    }
}

/// No time has passed since `_begun`.
pub(crate) fn elapsed(_begun: Instant) -> Duration {
    Duration::ZERO
}

/// A thread of the engine's own, on a stack that holds the whole engine.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    const STACK_WORDS: usize = 64 << 10;
    loom::thread::Builder::new().name(name.to_owned()).stack_size(STACK_WORDS).spawn(work)
}

pub(crate) fn this_thread() -> ThreadId {
    loom::thread::current().id()
}
