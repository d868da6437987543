//! Events for the host's own log, emitted when this thread holds no lock of the engine.
//!
//! A `tracing` subscriber, or a C program's log callback, is the host's code: it may append, read, flush or delete in
//! the store that the event is about. Emitted under a lock that such a call takes, an event would stop its own thread
//! for ever. So code that takes a lock under which an event can happen takes a [`hold`] first, and events go through
//! [`emit`]:
//!
//! 1. A hold is taken before the lock, and so is dropped after it.
//! 2. While a thread has a hold, its events wait, in their order. The drop of its last hold emits them.
//! 3. Before an event is emitted, or a hold dropped, the state is set that a call from the subscriber meets.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;

type Event = Box<dyn FnOnce()>;

thread_local! {
    static HOLDS: Cell<u32> = const { Cell::new(0) };
    /// Whether `WAITING` may hold something: most holds end without an event.
    static ANY_WAITING: Cell<bool> = const { Cell::new(false) };
    static WAITING: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
}

/// Keeps this thread's events until it is dropped.
#[must_use]
pub(crate) struct Hold(PhantomData<*const ()>);

/// Lets the events of this thread wait for as long as the answer lives.
pub(crate) fn hold() -> Hold {
    HOLDS.set(HOLDS.get() + 1);
    Hold(PhantomData)
}

/// Emits an event: now, or when the last hold of this thread is dropped.
#[cold]
pub(crate) fn emit(event: impl FnOnce() + 'static) {
    emit_boxed(Box::new(event));
}

fn emit_boxed(event: Event) {
    if HOLDS.get() == 0 {
        return event();
    }
    ANY_WAITING.set(true);
    // A thread that ends may have no such memory any more. It then has no caller that waits for the event either.
    let _ = WAITING.try_with(|waiting| waiting.borrow_mut().push(event));
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        let holds = HOLDS.get() - 1;
        HOLDS.set(holds);
        if holds == 0 && ANY_WAITING.replace(false) {
            emit_waiting();
        }
    }
}

#[cold]
fn emit_waiting() {
    let waiting = WAITING.try_with(|waiting| std::mem::take(&mut *waiting.borrow_mut())).unwrap_or_default();
    for event in waiting {
        event();
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn events_wait_for_the_last_hold_and_keep_their_order() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let note = |what: u32| {
            let seen = Rc::clone(&seen);
            move || seen.borrow_mut().push(what)
        };
        emit(note(1));
        assert_eq!(*seen.borrow(), [1]);
        let outer = hold();
        emit(note(2));
        {
            let _inner = hold();
            emit(note(3));
        }
        emit(note(4));
        assert_eq!(*seen.borrow(), [1]);
        drop(outer);
        assert_eq!(*seen.borrow(), [1, 2, 3, 4]);
        emit(note(5));
        assert_eq!(*seen.borrow(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn an_event_may_cause_others() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let outer = hold();
        let note = Rc::clone(&seen);
        emit(move || {
            let _inner = hold();
            let inner = Rc::clone(&note);
            emit(move || inner.borrow_mut().push("inner"));
            note.borrow_mut().push("outer");
        });
        drop(outer);
        assert_eq!(*seen.borrow(), ["outer", "inner"]);
    }
}
