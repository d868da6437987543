//! The machine's processors, shared by the steps that run at one time.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

/// What a step needs while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Half of them: builds, and tests with a thread for each. Two such steps run at one time, and while one of them
    /// links, or waits for its slowest thread, the other one has the rest.
    Half,
    /// One of them.
    One,
    /// Next to nothing: it waits, for brokers to start and for times to run out.
    Waiting,
}

/// Gives processors to steps in the order in which they ask.
#[derive(Debug)]
pub(super) struct Processors {
    count: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    next_ticket: u64,
    queue: VecDeque<u64>,
}

/// Processors in use; dropped, they are free again.
#[derive(Debug)]
pub(super) struct InUse<'a> {
    processors: &'a Processors,
    count: usize,
}

impl Processors {
    pub(super) fn new(count: usize) -> Self {
        let state = State { free: count, next_ticket: 0, queue: VecDeque::new() };
        Self { count, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until what `needs` asks for is free, and all who asked before have theirs.
    pub(super) fn take(&self, needs: Needs) -> InUse<'_> {
        let count = match needs {
            Needs::Half => self.count.div_ceil(2),
            Needs::One => 1,
            Needs::Waiting => return InUse { processors: self, count: 0 },
        };
        let mut state = self.state.lock().expect("no thread panics with it");
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.queue.push_back(ticket);
        let mut state = self
            .changed
            .wait_while(state, |state| state.queue.front() != Some(&ticket) || state.free < count)
            .expect("no thread panics with it");
        state.queue.pop_front();
        state.free -= count;
        drop(state);
        self.changed.notify_all();
        InUse { processors: self, count }
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        self.processors.state.lock().expect("no thread panics with it").free += self.count;
        self.processors.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn two_who_need_half_run_at_one_time_and_a_third_one_waits() {
        for count in [2, 8] {
            let processors = Processors::new(count);
            let first = processors.take(Needs::Half);
            let _second = processors.take(Needs::Half);
            assert_eq!(processors.state.lock().unwrap().free, 0);
            drop(first);
            let _third = processors.take(Needs::Half);
            assert_eq!(processors.state.lock().unwrap().free, 0);
        }
    }

    #[test]
    fn who_needs_half_is_not_overtaken_by_who_needs_one() {
        let processors = Processors::new(4);
        let (began, order) = channel();
        let _half = processors.take(Needs::Half);
        let first = processors.take(Needs::One);
        thread::scope(|scope| {
            let start = |needs, name: &'static str| {
                let (began, waiting) = (began.clone(), processors.state.lock().unwrap().queue.len());
                let processors = &processors;
                scope.spawn(move || {
                    let _in_use = processors.take(needs);
                    began.send(name).unwrap();
                });
                while processors.state.lock().unwrap().queue.len() == waiting {
                    thread::yield_now();
                }
            };
            start(Needs::Half, "half");
            start(Needs::One, "one");
            let _waiting = processors.take(Needs::Waiting);
            assert!(order.try_recv().is_err(), "one processor is free");
            drop(first);
            assert_eq!(order.recv(), Ok("half"));
            assert_eq!(order.recv(), Ok("one"));
        });
    }
}
