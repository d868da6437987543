//! The members of a group that this process hosts: its consumers, each on a thread of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::coordinator::Coordinator;
use super::waker::Waker;

#[derive(Debug)]
pub(super) struct Members {
    started: Instant,
    pub(super) state: Mutex<State>,
    /// What a member has to look at since: [`Coordinator::news`].
    pub(super) news: AtomicU64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) coordinator: Coordinator,
    pub(super) wakers: Vec<(String, Waker)>,
}

impl Members {
    pub(super) fn new() -> Members {
        let state = State { coordinator: Coordinator::new(), wakers: Vec::new() };
        Members { started: Instant::now(), state: Mutex::new(state), news: AtomicU64::new(0) }
    }

    /// Milliseconds since the group was opened here.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does something, and wakes the other members where they have to look at what became of it.
    pub(super) fn change<T>(&self, id: &str, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let before = state.coordinator.news();
        let outcome = act(&mut state);
        let news = state.coordinator.news();
        if news != before {
            self.news.store(news, Ordering::Release);
            state.wakers.iter().filter(|(other, _)| other != id).for_each(|(_, waker)| waker.nudge());
        }
        outcome
    }
}
