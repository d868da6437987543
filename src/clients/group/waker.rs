//! What ends a consumer's wait from another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::error;
use crate::error::{Error, Result};

/// Ends the wait of a consumer's `poll` from any thread, as Kafka's `wakeup`.
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    descriptor: OwnedFd,
    is_woken: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> Result<Waker> {
        let descriptor = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| Error::storage("make a descriptor to poll", ".")(error.into()))?;
        Ok(Waker { shared: Arc::new(Shared { descriptor, is_woken: AtomicBool::new(false) }) })
    }

    /// The `poll` that waits, or else the next one, answers [`Wakeup`](crate::clients::ConsumerError::Wakeup).
    pub fn wakeup(&self) {
        self.shared.is_woken.store(true, Ordering::Release);
        self.nudge();
    }

    /// The consumer looks at its group again.
    pub(crate) fn nudge(&self) {
        // A full counter is readable, too.
        let _ = rustix::io::write(&self.shared.descriptor, &1_u64.to_ne_bytes());
    }

    /// Whether it was woken since the last call.
    pub(crate) fn take(&self) -> bool {
        self.shared.is_woken.swap(false, Ordering::AcqRel)
    }

    /// Waits until one of `others` is readable, [`nudge`](Waker::nudge) is called, or `time` is over.
    ///
    /// # Errors
    /// Those of `others`, and [`Error::Storage`] where the system does not wait.
    pub(crate) fn wait<'a>(
        &'a self,
        others: impl Iterator<Item = error::Result<BorrowedFd<'a>>>,
        time: Duration,
    ) -> error::Result<()> {
        let own = std::iter::once(Ok(self.shared.descriptor.as_fd()));
        let readable =
            |other: error::Result<BorrowedFd<'a>>| other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN));
        let mut descriptors = others.chain(own).map(readable).collect::<error::Result<Vec<_>>>()?;
        let time = Timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ };
        match poll(&mut descriptors, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::storage("wait for records", ".")(error.into()).into()),
        }
        let _ = rustix::io::read(&self.shared.descriptor, &mut [0; 8]);
        Ok(())
    }
}
