//! What the sender thread sleeps on.
//!
//! Who has work for the sender leaves it where the sender looks, and then says by when it is to look. The sender
//! forgets these wishes *before* it looks, so that none which comes meanwhile is lost: it is there when the sender
//! wants to sleep. A wish that is later than the sender's own alarm costs a lock and no system call.

use std::time::Instant;

use crate::canary::{Bug, bug};
use crate::sync::{Condvar, Mutex};

#[derive(Debug, Default)]
pub(super) struct Bell {
    wishes: Mutex<Wishes>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct Wishes {
    /// The earliest moment by which the sender is to look.
    by: Option<Instant>,
    is_asleep: bool,
    /// Until when the sender sleeps; `None` until it is woken.
    until: Option<Instant>,
}

impl Bell {
    /// Lets the sender look at `by` at the latest.
    pub(super) fn ring(&self, by: Instant) {
        let wakes = {
            let mut wishes = self.wishes.lock();
            if wishes.by.is_none_or(|earlier| by < earlier) {
                wishes.by = Some(by);
            }
            wishes.is_asleep && wishes.until.is_none_or(|until| by < until)
        };
        if wakes && !bug(Bug::LeaveTheSenderAsleep) {
            self.woken.notify_one();
        }
    }

    /// Sleeps until `alarm`, or the earliest wish before it; for the sender alone.
    pub(super) fn sleep(&self, alarm: Option<Instant>) {
        let mut wishes = self.wishes.lock();
        loop {
            let until = match (wishes.by, alarm) {
                (Some(by), Some(alarm)) => Some(by.min(alarm)),
                (by, alarm) => by.or(alarm),
            };
            if until.is_some_and(|until| until <= Instant::now()) {
                break;
            }
            (wishes.is_asleep, wishes.until) = (true, until);
            match until {
                Some(until) => {
                    let _ = self.woken.wait_until(&mut wishes, until);
                }
                None => self.woken.wait(&mut wishes),
            }
            wishes.is_asleep = false;
        }
        wishes.by = None;
    }
}
