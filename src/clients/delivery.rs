//! The answer to records that were sent: one shared object a batch, and of it a view for each record.
//!
//! 1. A batch is answered once: who moves `state` from `OPEN` to `ANSWERING` writes the answer.
//! 2. The answer is written before `state` becomes `ANSWERED` (Release), and read after it was seen (Acquire).
//! 3. `ANSWERED` is set before `listeners` is locked to look for them. Who adds a listener looks at `state` under that
//!    lock: either it sees the answer, or its listener is seen.
//! 4. Listeners are the program's code. They are called by the sender thread alone, which then holds no lock.

use std::fmt;
#[cfg(feature = "async")]
use std::future::Future;
#[cfg(feature = "async")]
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
#[cfg(feature = "async")]
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use edgelog_core::{LeaderEpoch, Offset, TimestampMs};

use super::producer_bell::Bell;
use super::producer_error::ProducerError;
use super::producer_record::RecordMetadata;
use crate::canary::{Bug, bug};
use crate::error::Error;
use crate::log::TopicPartition;
use crate::storage::ForkGuard;
use crate::sync::{AtomicI64, AtomicU8, AtomicU32, Mutex, Ordering, ThreadId, Wake, this_thread};

/// What a record comes to.
pub type DeliveryResult = Result<RecordMetadata, ProducerError>;

/// A program's function that is called with what a record came to.
pub(super) type Callback = Box<dyn FnOnce(DeliveryResult) + Send>;

mod state {
    pub(super) const OPEN: u8 = 0;
    pub(super) const ANSWERING: u8 = 1;
    pub(super) const ANSWERED: u8 = 2;
}

/// Answered batches that listeners wait for, and the sender who is to call these.
#[derive(Debug)]
pub(super) struct Reports {
    pub(super) bell: Bell,
    pub(super) fork: ForkGuard,
    answered: Mutex<Vec<Arc<Batch>>>,
    sender: OnceLock<ThreadId>,
    delivery_timeout: Duration,
}

impl Reports {
    pub(super) fn new(delivery_timeout: Duration) -> Reports {
        Reports {
            bell: Bell::default(),
            fork: ForkGuard::here(),
            answered: Mutex::default(),
            sender: OnceLock::new(),
            delivery_timeout,
        }
    }

    /// The caller is the sender from now on.
    pub(super) fn i_am_the_sender(&self) {
        let _ = self.sender.set(this_thread());
    }

    /// Whether the caller is the sender, and so a callback.
    pub(super) fn is_sender(&self) -> bool {
        self.sender.get().is_some_and(|sender| *sender == this_thread())
    }

    /// Calls the listeners of answered batches; whether there was such a batch.
    pub(super) fn call_listeners(&self) -> bool {
        let answered = std::mem::take(&mut *self.answered.lock());
        let any = !answered.is_empty();
        for batch in answered {
            let listeners = std::mem::take(&mut *batch.listeners.lock());
            for listener in listeners {
                listener.call(&batch);
            }
        }
        any
    }
}

/// What all batches of a partition have in common.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) name: Arc<TopicPartition>,
    pub(super) reports: Arc<Reports>,
}

/// The shared answer to the records of one batch.
pub(super) struct Batch {
    home: Arc<Home>,
    deadline: Instant,
    state: AtomicU8,
    base_offset: AtomicI64,
    leader_epoch: AtomicU32,
    error: Mutex<Option<ProducerError>>,
    wake: Wake,
    listeners: Mutex<Vec<Listener>>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("home", &self.home.name).finish_non_exhaustive()
    }
}

enum Listener {
    Callback {
        index: u32,
        timestamp: TimestampMs,
        call: Callback,
    },
    #[cfg(feature = "async")]
    Waker(Waker),
}

impl Listener {
    /// Calls it. Its panic is its own: the sender goes on.
    fn call(self, batch: &Batch) {
        let call = move || match self {
            Listener::Callback { index, timestamp, call } => {
                call(batch.outcome(index, timestamp).unwrap_or(Err(ProducerError::Closed)));
            }
            #[cfg(feature = "async")]
            Listener::Waker(waker) => waker.wake(),
        };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err() {
            tracing::error!(partition = %batch.home.name, "a delivery callback panicked; the producer goes on");
        }
    }
}

impl Batch {
    pub(super) fn new(home: &Arc<Home>, opened: Instant) -> Batch {
        Batch {
            home: Arc::clone(home),
            deadline: opened + home.reports.delivery_timeout,
            state: AtomicU8::new(state::OPEN),
            base_offset: AtomicI64::new(-1),
            leader_epoch: AtomicU32::new(u32::MAX),
            error: Mutex::new(None),
            wake: Wake::default(),
            listeners: Mutex::default(),
        }
    }

    /// The same object for another batch: no other handle of it is left.
    pub(super) fn renew(&mut self, opened: Instant) {
        *self = Batch::new(&self.home, opened);
    }

    /// Has `call` called with what the record of that index comes to.
    pub(super) fn call_back(self: &Arc<Batch>, index: u32, timestamp: TimestampMs, call: Callback) {
        let mut listeners = self.listeners.lock();
        listeners.push(Listener::Callback { index, timestamp, call });
        if self.is_answered() {
            self.report();
        }
    }

    /// Has the listeners called.
    fn report(self: &Arc<Batch>) {
        let reports = &self.home.reports;
        reports.answered.lock().push(Arc::clone(self));
        reports.bell.ring(Instant::now());
    }

    /// Answers all records of the batch; whether this was the answer, and not one before it.
    pub(super) fn answer(self: &Arc<Batch>, outcome: Result<(Offset, LeaderEpoch), ProducerError>) -> bool {
        let taken =
            self.state.compare_exchange(state::OPEN, state::ANSWERING, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !taken {
            return false;
        }
        if bug(Bug::AnswerBeforeTheOffset) {
            self.state.store(state::ANSWERED, Ordering::Release);
        }
        match outcome {
            Ok((base_offset, leader_epoch)) => {
                self.base_offset.store(base_offset.0, Ordering::Relaxed);
                self.leader_epoch.store(leader_epoch.0 as u32, Ordering::Relaxed);
            }
            Err(error) => *self.error.lock() = Some(error),
        }
        self.state.store(state::ANSWERED, Ordering::Release);
        self.wake.wake_all();
        let is_listened_to = !self.listeners.lock().is_empty();
        if is_listened_to {
            self.report();
        }
        true
    }

    pub(super) fn is_answered(&self) -> bool {
        self.state.load(Ordering::Acquire) == state::ANSWERED
    }

    fn outcome(&self, index: u32, timestamp: TimestampMs) -> Option<DeliveryResult> {
        if !self.is_answered() {
            return None;
        }
        let base_offset = self.base_offset.load(Ordering::Relaxed);
        if base_offset < 0 {
            if let Some(error) = &*self.error.lock() {
                return Some(Err(error.clone()));
            }
        }
        Some(Ok(RecordMetadata {
            topic_partition: Arc::clone(&self.home.name),
            // A repeat may be acknowledged without one.
            offset: (base_offset >= 0).then(|| Offset(base_offset) + i64::from(index)),
            leader_epoch: LeaderEpoch(self.leader_epoch.load(Ordering::Relaxed) as i32),
            timestamp,
        }))
    }

    /// Waits for the answer until `deadline` at the latest; whether it is there. Where `delivery.timeout.ms` is over
    /// before, that is the answer.
    fn wait(self: &Arc<Batch>, deadline: Option<Instant>) -> Result<bool, ProducerError> {
        if self.is_answered() {
            return Ok(true);
        }
        let reports = &self.home.reports;
        if reports.fork.forked() {
            return Err(Error::Forked.into());
        }
        if reports.is_sender() {
            return Err(ProducerError::InCallback);
        }
        let until = deadline.map_or(self.deadline, |deadline| deadline.min(self.deadline));
        if self.wake.wait_until(Some(until), || self.is_answered()) {
            return Ok(true);
        }
        if Instant::now() < self.deadline {
            return Ok(false);
        }
        let delivery_timeout_ms = reports.delivery_timeout.as_millis() as u64;
        self.answer(Err(ProducerError::DeliveryTimeout { delivery_timeout_ms }));
        // Another answer may be half written.
        Ok(self.wake.wait_until(None, || self.is_answered()))
    }
}

/// The handle of one record that was sent.
///
/// It is answered once, and answers the same from then on: when the record is as safe as `acks` asks for, or with the
/// error that kept it from that. Dropping it changes nothing for the record.
///
/// With the feature `async` it is a [`Future`](std::future::Future) that needs no runtime: the sender thread wakes the
/// task.
#[derive(Debug)]
#[must_use = "a record that failed says so here; with a callback there is no handle"]
pub struct Delivery(Inner);

#[derive(Debug)]
enum Inner {
    Ready(DeliveryResult),
    Pending {
        batch: Arc<Batch>,
        index: u32,
        timestamp: TimestampMs,
        /// Where this future's waker stands among the listeners.
        #[cfg(feature = "async")]
        listener: Option<usize>,
    },
}

impl Delivery {
    #[inline]
    pub(super) fn ready(outcome: DeliveryResult) -> Delivery {
        Delivery(Inner::Ready(outcome))
    }

    #[inline]
    pub(super) fn pending(batch: Arc<Batch>, index: u32, timestamp: TimestampMs) -> Delivery {
        Delivery(Inner::Pending {
            batch,
            index,
            timestamp,
            #[cfg(feature = "async")]
            listener: None,
        })
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// What kept the record from being acknowledged. [`ProducerError::DeliveryTimeout`] after `delivery.timeout.ms`,
    /// and then for all records of its batch. [`ProducerError::InCallback`] where a callback of the same producer asks
    /// before the answer is there.
    pub fn wait(&self) -> DeliveryResult {
        match &self.0 {
            Inner::Ready(outcome) => outcome.clone(),
            Inner::Pending { batch, index, timestamp, .. } => {
                batch.wait(None)?;
                batch.outcome(*index, *timestamp).expect("it was waited for")
            }
        }
    }

    /// Waits for the answer, at most so long; `None` where it has not come by then.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<DeliveryResult> {
        match &self.0 {
            Inner::Ready(outcome) => Some(outcome.clone()),
            Inner::Pending { batch, index, timestamp, .. } => match batch.wait(Instant::now().checked_add(timeout)) {
                Ok(_) => batch.outcome(*index, *timestamp),
                Err(error) => Some(Err(error)),
            },
        }
    }

    /// The answer, where it is there.
    pub fn try_wait(&self) -> Option<DeliveryResult> {
        match &self.0 {
            Inner::Ready(outcome) => Some(outcome.clone()),
            Inner::Pending { batch, index, timestamp, .. } => batch.outcome(*index, *timestamp),
        }
    }

    /// Whether the answer is there.
    pub fn is_done(&self) -> bool {
        match &self.0 {
            Inner::Ready(_) => true,
            Inner::Pending { batch, .. } => batch.is_answered(),
        }
    }
}

#[cfg(feature = "async")]
impl Future for Delivery {
    type Output = DeliveryResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<DeliveryResult> {
        let (batch, index, timestamp, listener) = match &mut self.0 {
            Inner::Ready(outcome) => return Poll::Ready(outcome.clone()),
            Inner::Pending { batch, index, timestamp, listener } => (batch, *index, *timestamp, listener),
        };
        let mut listeners = batch.listeners.lock();
        if let Some(outcome) = batch.outcome(index, timestamp) {
            return Poll::Ready(outcome);
        }
        let waker = context.waker();
        if let Some(Listener::Waker(known)) = listener.and_then(|at| listeners.get_mut(at)) {
            known.clone_from(waker);
        } else {
            *listener = Some(listeners.len());
            listeners.push(Listener::Waker(waker.clone()));
        }
        Poll::Pending
    }
}
