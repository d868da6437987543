//! Models of a delivery and of the sender's bell for loom, which runs them in every order that there is:
//! `./test --only loom`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as Counter;
use std::time::{Duration, Instant};

use edgelog_core::{LeaderEpoch, Offset, TimestampMs};
use loom::thread;

use super::delivery::{Batch, Delivery, Home, Reports};
use super::producer_bell::Bell;
use super::producer_error::ProducerError;
use super::producer_memory::Memory;
use crate::canary::{Bug, switch_on};
use crate::log::TopicPartition;
use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// In models of three threads, so often a thread is interrupted where it could go on.
const INTERRUPTIONS: Option<usize> = Some(3);

fn explore(name: &str, interruptions: Option<usize>, bug: Option<Bug>, model: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(Counter::new(0));
    let count = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(interruptions);
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        switch_on(bug);
        model();
    });
    let which = interruptions.map_or("all there are".to_owned(), |most| format!("{most} interruptions at most"));
    println!("{name}: {} orders, {which}", runs.load(Ordering::Relaxed));
}

/// A model's time stands still but for its waits, which end by what happens alone: an hour is for ever.
const HOUR: Duration = Duration::from_secs(3600);

fn batch() -> (Arc<Reports>, Arc<Batch>) {
    let reports = Arc::new(Reports::new(HOUR));
    let home = Arc::new(Home { name: Arc::new(TopicPartition::new("t", 0)), reports: Arc::clone(&reports) });
    (reports, Arc::new(Batch::new(&home, Instant::now())))
}

/// Who waits gets the whole answer.
fn waiting() {
    let (_, batch) = batch();
    let delivery = Delivery::pending(Arc::clone(&batch), 2, TimestampMs(1));
    let waiter = thread::spawn(move || delivery.wait().unwrap());
    assert!(batch.answer(Ok((Offset(40), LeaderEpoch(3)))));
    let metadata = waiter.join().unwrap();
    assert_eq!((metadata.offset, metadata.leader_epoch), (Some(Offset(42)), LeaderEpoch(3)));
}

#[test]
fn who_waits_gets_the_whole_answer() {
    explore("a delivery and who waits", None, None, waiting);
}

#[test]
#[should_panic]
fn canary_an_answer_is_seen_before_it_is_there() {
    explore("answered before the offset", None, Some(Bug::AnswerBeforeTheOffset), waiting);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_who_waits_sleeps_on_without_the_fence() {
    explore("a delivery without the fence", None, Some(Bug::WakeWithoutFence), waiting);
}

/// A timeout and the answer meet: one of them it is, for all who ask.
#[test]
fn a_batch_is_answered_once() {
    explore("two answers", INTERRUPTIONS, None, || {
        let (_, batch) = batch();
        let delivery = Delivery::pending(Arc::clone(&batch), 0, TimestampMs(1));
        let other = {
            let batch = Arc::clone(&batch);
            thread::spawn(move || batch.answer(Err(ProducerError::DeliveryTimeout { delivery_timeout_ms: 1 })))
        };
        let waiter = thread::spawn(move || delivery.wait());
        let mine = batch.answer(Ok((Offset(0), LeaderEpoch(0))));
        let theirs = other.join().unwrap();
        assert!(mine != theirs, "one of them");
        assert_eq!(waiter.join().unwrap().is_ok(), mine);
    });
}

/// A listener that is added while the batch is answered is called once, or sees the answer itself.
#[cfg(feature = "async")]
#[test]
fn a_waker_is_woken_or_the_answer_seen() {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Wake, Waker};

    struct Count(AtomicU32);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    explore("a waker and an answer", None, None, || {
        let (reports, batch) = batch();
        let mut delivery = Delivery::pending(Arc::clone(&batch), 0, TimestampMs(1));
        let answerer = thread::spawn(move || {
            batch.answer(Ok((Offset(0), LeaderEpoch(0))));
        });
        let woken = Arc::new(Count(AtomicU32::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let pending = Pin::new(&mut delivery).poll(&mut Context::from_waker(&waker)).is_pending();
        answerer.join().unwrap();
        reports.call_listeners();
        assert_eq!(woken.0.load(Ordering::SeqCst), u32::from(pending));
    });
}

/// The sender sleeps, and what is left for it is found.
fn ringing() {
    let shared = Arc::new((Bell::default(), AtomicBool::new(false)));
    let sender = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            while !shared.1.load(Ordering::SeqCst) {
                shared.0.sleep(None);
            }
        })
    };
    // A wish for later is none for now, and does not hide the one for now.
    shared.0.ring(Instant::now() + HOUR);
    shared.1.store(true, Ordering::SeqCst);
    shared.0.ring(Instant::now());
    sender.join().unwrap();
}

#[test]
fn the_sender_hears_the_bell() {
    explore("the bell", None, None, ringing);
}

#[test]
#[should_panic(expected = "deadlock")]
fn canary_the_sender_sleeps_on() {
    explore("a bell that does not wake", None, Some(Bug::LeaveTheSenderAsleep), ringing);
}

/// Two who need all of the memory, and each gives it back: both get it.
#[test]
fn memory_that_is_given_back_is_taken() {
    explore("memory", INTERRUPTIONS, None, || {
        let memory = Arc::new(Memory::new(10, HOUR));
        let other = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || {
                memory.take(10, || {}).unwrap();
                memory.give_back(10);
            })
        };
        memory.take(10, || {}).unwrap();
        memory.give_back(10);
        other.join().unwrap();
        assert_eq!((memory.free(), memory.waiting()), (10, 0));
    });
}

/// Who waits for memory is answered by a close.
#[test]
fn a_close_ends_the_wait_for_memory() {
    explore("memory and a close", None, None, || {
        let memory = Arc::new(Memory::new(10, HOUR));
        assert!(memory.try_take(10));
        let waiter = {
            let memory = Arc::clone(&memory);
            thread::spawn(move || memory.take(1, || {}))
        };
        memory.close();
        assert!(matches!(waiter.join().unwrap(), Err(ProducerError::Closed)));
    });
}
