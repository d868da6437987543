//! Pauses between tries: longer each time, and never in step with other devices.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use super::error::KafkaError;

/// Pauses that double from `first` to `max`, each between half and all of that.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { next: first.min(max), max }
    }

    /// The next pause; the longest at once after what only a person can mend.
    pub(crate) fn pause_after(&mut self, error: &KafkaError) -> Duration {
        if error.is_refusal() {
            self.next = self.max;
        }
        self.pause()
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
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
}
