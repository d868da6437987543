//! Models of [`Wake`] for loom, which runs them in every order that there is: `./test --only loom`.

use std::sync::Arc;

use loom::thread;

use super::{AtomicI64, Ordering, Wake, Watcher};
use crate::canary::{Bug, switch_on};

#[derive(Debug, Default)]
struct Published {
    wake: Wake,
    end: AtomicI64,
}

impl Published {
    fn publish(&self, end: i64) {
        self.end.fetch_max(end, Ordering::Release);
        self.wake.wake_all();
    }

    fn wait_for(&self, end: i64) {
        assert!(self.wake.wait_until(None, || self.end.load(Ordering::Acquire) >= end));
    }
}

/// Runs `model` in every order; where that would be too many, in those in which a thread that could go on is
/// interrupted `interruptions` times at most.
fn explore(name: &str, interruptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    use std::sync::atomic::AtomicU64;
    let runs = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(interruptions);
    builder.check(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    let which = interruptions.map_or("all there are".to_owned(), |most| format!("{most} interruptions at most"));
    println!("{name}: {} orders, {which}", runs.load(std::sync::atomic::Ordering::Relaxed));
}

fn one_waiter_one_publisher() {
    let published = Arc::new(Published::default());
    let waiter = {
        let published = Arc::clone(&published);
        thread::spawn(move || published.wait_for(1))
    };
    published.publish(1);
    waiter.join().unwrap();
}

#[test]
fn no_wake_up_is_lost() {
    explore("a waiter and a publisher", None, one_waiter_one_publisher);
}

/// That the models can fail: without its fence, a publisher looks for waiters before they see what it published.
#[test]
#[should_panic(expected = "deadlock")]
fn canary_a_wake_up_is_lost_without_the_fence() {
    explore("without the fence", None, || {
        switch_on(Some(Bug::WakeWithoutFence));
        one_waiter_one_publisher();
    });
}

#[test]
fn no_wake_up_is_lost_between_two_publishers() {
    explore("a waiter and two publishers", Some(3), || {
        let published = Arc::new(Published::default());
        let publisher = {
            let published = Arc::clone(&published);
            thread::spawn(move || published.publish(1))
        };
        let waiter = {
            let published = Arc::clone(&published);
            thread::spawn(move || published.wait_for(2))
        };
        published.publish(2);
        publisher.join().unwrap();
        waiter.join().unwrap();
    });
}

#[test]
fn one_wake_up_serves_all_waiters() {
    explore("two waiters and a publisher", Some(3), || {
        let published = Arc::new(Published::default());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let published = Arc::clone(&published);
                thread::spawn(move || published.wait_for(1))
            })
            .collect();
        published.publish(1);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[derive(Debug)]
struct CountingWatcher {
    published: Arc<Published>,
    times: AtomicI64,
}

impl Watcher for CountingWatcher {
    fn notify_if_ready(&self) -> bool {
        let ready = self.published.end.load(Ordering::Acquire) >= 1;
        if ready {
            self.times.fetch_add(1, Ordering::Relaxed);
        }
        ready
    }
}

/// A watcher is notified exactly once, by the publisher or by itself.
#[test]
fn a_watcher_is_notified_once() {
    explore("a watcher and a publisher", None, || {
        let published = Arc::new(Published::default());
        let watcher = Arc::new(CountingWatcher { published: Arc::clone(&published), times: AtomicI64::new(0) });
        let publisher = {
            let published = Arc::clone(&published);
            thread::spawn(move || published.publish(1))
        };
        published.wake.watch(Arc::clone(&watcher) as Arc<dyn Watcher>);
        publisher.join().unwrap();
        assert_eq!(watcher.times.load(Ordering::Relaxed), 1);
    });
}
