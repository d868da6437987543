//! A request to stop, from any thread, and waiting that ends with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::error::{KafkaError, Result};

/// What is under way when a stop is requested may take so long to end.
const GRACE: Duration = Duration::from_secs(5);

/// Asks a bridge to stop; clones ask the same one. `Bridge::stop_handle` gives one.
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

    /// Whether it was asked for.
    pub fn is_stopped(&self) -> bool {
        self.shared.0.lock().is_some()
    }

    /// Fails once a stop was requested.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(KafkaError::Stopped) } else { Ok(()) }
    }

    /// Fails once a stop was requested and what is under way has had its time.
    pub(crate) fn check_grace(&self) -> Result<()> {
        let since = *self.shared.0.lock();
        if since.is_some_and(|since| since.elapsed() >= GRACE) { Err(KafkaError::Stopped) } else { Ok(()) }
    }

    /// Waits for `duration`, or until a stop is requested.
    pub(crate) fn wait(&self, duration: Duration) {
        let mut asked = self.shared.0.lock();
        if asked.is_none() {
            self.shared.1.wait_for(&mut asked, duration);
        }
    }

    /// Waits for `duration` before another try. Once a stop was requested, the tries that are left come sooner.
    pub(crate) fn wait_before_retry(&self, duration: Duration) {
        const SOONER: Duration = Duration::from_millis(50);
        if self.is_stopped() {
            std::thread::sleep(duration.min(SOONER));
        } else {
            self.wait(duration);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_woken_by_a_stop() {
        let stop = StopHandle::default();
        assert!(stop.check().is_ok());
        let other = stop.clone();
        let thread = std::thread::spawn(move || other.wait(Duration::from_secs(600)));
        stop.stop();
        thread.join().unwrap();
        assert!(matches!(stop.check(), Err(KafkaError::Stopped)));
        assert!(stop.check_grace().is_ok(), "a transaction under way has its time");
    }
}
