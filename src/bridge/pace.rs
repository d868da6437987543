//! When the next transaction may begin, while there is little to send: a pure function of the times of those before.
//!
//! Since the bridge began, there is no more than one transaction for each `edgelog.bridge.interval.ms`, and one. A
//! silence leaves some of them over, of which five at most are saved (`SAVED_MAX`). So what comes after silence goes
//! at once, and what follows soon after a twentieth of the interval later (`PARTS`). Under load nothing is saved, and
//! there is one in each interval.

use std::time::Duration;

/// So many transactions are saved at most.
const SAVED_MAX: u32 = 5;
/// Saved ones follow each other after this part of the interval, and so often is looked for records.
const PARTS: u32 = 20;
/// An idle bridge looks for records at least so often.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// It looks no more often than so, or than once in an interval.
const LOOK_OFTEN: Duration = Duration::from_millis(10);
/// Nor than so, where there is no interval.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// Times are those since the bridge began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    interval: Duration,
    /// When the last transaction began.
    last: Option<Duration>,
    /// Where the next transaction would begin, were each an interval behind the one before and nothing saved. Saved is
    /// what lies between this and now.
    next: Duration,
}

impl Pace {
    /// Nothing is saved yet.
    pub(super) fn new(interval: Duration) -> Pace {
        Pace { interval, last: None, next: Duration::ZERO }
    }

    /// From when on a transaction may begin, however small it is.
    pub(super) fn due(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |last| self.next.max(last + self.interval / PARTS))
    }

    /// A transaction has begun at this time, no matter what [`due`](Pace::due) says: one that is large does not wait.
    pub(super) fn begin(&mut self, now: Duration) {
        // A silence saves so much, and large ones take no more than what there is.
        let earliest = now.saturating_sub(self.interval * SAVED_MAX);
        self.next = self.next.clamp(earliest, now) + self.interval;
        self.last = Some(now);
    }

    /// For how long an idle bridge may look away.
    pub(super) fn look(&self) -> Duration {
        (self.interval / PARTS).clamp(LOOK_OFTEN, LOOK_MAX).min(self.interval.max(LOOK_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// When transactions begin for records that are appended at these times, and how long each record waits.
    fn transactions(appended: &[Duration]) -> (Vec<Duration>, Vec<Duration>) {
        let (mut pace, mut begun, mut waits) = (Pace::new(INTERVAL), Vec::new(), Vec::new());
        let mut left = appended;
        while let [first, ..] = left {
            // It was looked for just before: the worst case.
            let at = (*first + pace.look()).max(pace.due());
            pace.begin(at);
            begun.push(at);
            let (taken, behind) = left.split_at(left.partition_point(|time| *time <= at));
            waits.extend(taken.iter().map(|time| at.saturating_sub(*time)));
            left = behind;
        }
        (begun, waits)
    }

    /// Times of a Poisson process, the same for the same seed.
    fn at_random(mean: Duration, count: usize, mut seed: u64) -> Vec<Duration> {
        let mut now = Duration::ZERO;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            now += mean.mul_f64(-(f64::from((seed >> 33) as u32 + 1) / f64::from(1_u32 << 31)).ln());
            now
        };
        (0..count).map(|_| next()).collect()
    }

    fn every(period: Duration, count: u32) -> Vec<Duration> {
        (1..=count).map(|n| period * n).collect()
    }

    #[test]
    fn what_comes_after_silence_goes_at_once() {
        let (begun, waits) = transactions(&every(INTERVAL * 3 / 2, 100));
        assert_eq!(begun.len(), 100);
        assert!(waits.iter().all(|wait| *wait == Pace::new(INTERVAL).look()), "{waits:?}");
    }

    #[test]
    fn half_of_a_trickle_waits_for_less_than_a_second() {
        for (mean, seed) in [(60, 1), (30, 2), (20, 3), (15, 4), (12, 5)] {
            let (begun, mut waits) = transactions(&at_random(Duration::from_secs(mean), 1000, seed));
            waits.sort_unstable();
            assert!(waits[500] < Duration::from_secs(1), "one in {mean} s: {:?}, {} begun", waits[500], begun.len());
        }
    }

    #[test]
    fn load_is_sent_once_in_an_interval() {
        let (begun, waits) = transactions(&every(Duration::from_millis(10), 100_000));
        assert_eq!(begun.len(), 101, "1000 s and one at the beginning");
        assert!(waits.iter().all(|wait| *wait <= INTERVAL));
    }

    #[test]
    fn there_are_never_more_than_one_for_each_interval_since_the_beginning() {
        for (mean_ms, seed) in [(100, 11), (1000, 12), (5000, 13), (10_000, 14), (25_000, 15)] {
            let (begun, _) = transactions(&at_random(Duration::from_millis(mean_ms), 5000, seed));
            for (n, at) in (0..).zip(&begun) {
                assert!(INTERVAL * n <= *at, "one in {mean_ms} ms: {n} before {at:?}");
            }
        }
    }

    #[test]
    fn an_hour_of_load_after_silence_has_what_was_saved_and_no_more() {
        let day = Duration::from_secs(86_400);
        let appended: Vec<Duration> = every(Duration::from_millis(500), 7200).iter().map(|at| day + *at).collect();
        let (begun, _) = transactions(&appended);
        assert_eq!(begun.len(), 360 + 1 + SAVED_MAX as usize);
    }

    #[test]
    fn saved_transactions_do_not_follow_each_other_at_once() {
        let mut pace = Pace::new(INTERVAL);
        let now = INTERVAL * 100;
        pace.begin(now);
        assert_eq!(pace.due(), now + INTERVAL / PARTS);
    }

    #[test]
    fn after_large_transactions_none_waits_for_longer_than_an_interval() {
        let mut pace = Pace::new(INTERVAL);
        for n in 0..1000 {
            pace.begin(Duration::from_millis(n * 20));
        }
        assert_eq!(pace.due(), Duration::from_millis(999 * 20) + INTERVAL);
    }

    #[test]
    fn a_short_interval_makes_it_look_no_more_often_than_once_in_that() {
        for (interval_ms, look_ms) in [(0, 1), (5, 5), (100, 10), (1000, 50), (10_000, 500), (60_000, 1000)] {
            let look = Pace::new(Duration::from_millis(interval_ms)).look();
            assert_eq!(look, Duration::from_millis(look_ms), "interval {interval_ms} ms");
        }
    }

    #[test]
    fn without_an_interval_nothing_waits() {
        let mut pace = Pace::new(Duration::ZERO);
        pace.begin(Duration::from_secs(1));
        assert_eq!((pace.due(), pace.look()), (Duration::from_secs(1), LOOK_MIN));
    }
}
