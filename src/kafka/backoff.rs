//! Waiting: between tries, longer each time and never in step with other devices; and being told to stop meanwhile.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::error::{BridgeError, Result};

/// How long a transaction that is under way when somebody asks to stop may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// Asks a bridge to stop; clones ask the same one. See [`Bridge::stop_handle`](super::Bridge::stop_handle).
#[derive(Debug, Clone, Default)]
pub struct StopHandle {
    shared: Arc<(Mutex<Option<Instant>>, Condvar)>,
}

impl StopHandle {
    /// Asks to stop. The transaction under way is ended first where that takes no more than five seconds.
    pub fn stop(&self) {
        self.shared.0.lock().get_or_insert_with(Instant::now);
        self.shared.1.notify_all();
    }

    /// Whether somebody asked.
    pub fn is_stopped(&self) -> bool {
        self.shared.0.lock().is_some()
    }

    /// Fails once somebody asked.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(BridgeError::Stopped) } else { Ok(()) }
    }

    /// Fails once somebody asked and what is under way has had its time.
    pub(super) fn check_grace(&self) -> Result<()> {
        let since = *self.shared.0.lock();
        if since.is_some_and(|since| since.elapsed() >= GRACE) { Err(BridgeError::Stopped) } else { Ok(()) }
    }

    /// Waits for `duration`, or until somebody asks to stop.
    pub(super) fn wait(&self, duration: Duration) {
        let mut asked = self.shared.0.lock();
        if asked.is_none() {
            self.shared.1.wait_for(&mut asked, duration);
        }
    }
}

impl StopHandle {
    /// Waits for `duration` before another try. Where somebody asked to stop, the tries that are left come sooner.
    pub(super) fn wait_before_retry(&self, duration: Duration) {
        const SOONER: Duration = Duration::from_millis(50);
        if self.is_stopped() {
            std::thread::sleep(duration.min(SOONER));
        } else {
            self.wait(duration);
        }
    }
}

/// Pauses that double from `first` to `max`, each between half and all of that.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { next: first.min(max), max }
    }

    /// The next pause; the longest at once after what only a person can mend.
    pub(super) fn pause_after(&mut self, error: &BridgeError) -> Duration {
        if error.is_refusal() {
            self.next = self.max;
        }
        self.pause()
    }

    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (self.next * 2).min(self.max);
        // The standard library's per-map keys come from the system's random source.
        let random = RandomState::new().build_hasher().finish();
        let half = whole / 2;
        half + half.mul_f64(f64::from(random as u32) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_with_jitter() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for whole in [100, 200, 350, 350] {
            let pause = backoff.pause();
            assert!(pause >= Duration::from_millis(whole) / 2 && pause <= Duration::from_millis(whole), "{pause:?}");
        }
    }

    #[test]
    fn who_waits_is_woken_by_a_stop() {
        let stop = StopHandle::default();
        assert!(stop.check().is_ok());
        let other = stop.clone();
        let thread = std::thread::spawn(move || other.wait(Duration::from_secs(600)));
        stop.stop();
        thread.join().unwrap();
        assert!(matches!(stop.check(), Err(BridgeError::Stopped)));
        assert!(stop.check_grace().is_ok(), "a transaction under way has its time");
    }
}
