//! What is known of the line to the cluster: how long a round trip takes, how many bytes go through in a second, and
//! how much connections carry before they die. Learned from what is asked and answered anyway; shared by all
//! connections.
//!
//! On a line whose connections live for a minute, a request that takes longer to send never gets an answer. So none is
//! larger than half of what connections carried lately; each answer is progress, and lets the next one grow.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Requests and answers up to this size measure the round trip, larger ones the throughput.
const SMALL_BYTES: usize = 1 << 10;
/// A larger one tells how much goes through in a second.
const LARGE_BYTES: usize = 8 << 10;
/// Round trips that a transaction may have to wait for: its three requests, asked again where connections died.
const ROUND_TRIPS: u32 = 12;
const TIMEOUT_MIN: Duration = Duration::from_secs(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    shared: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    round_trip: Option<Duration>,
    bytes_per_second: Option<usize>,
    /// What a connection carried before it died, as a mean in which the last one counts half.
    carried: Option<usize>,
}

impl Line {
    /// A request of so many bytes was answered after so long; its connection has carried `carried` bytes in all.
    pub(super) fn answered(&self, bytes: usize, after: Duration, carried: usize) {
        let mut known = self.shared.lock();
        if bytes <= SMALL_BYTES {
            // Rises at once and falls slowly: what is waited for is the worst of them.
            let fallen = known.round_trip.map_or(after, |before| (before * 7 + after) / 8);
            known.round_trip = Some(fallen.max(after));
        } else if bytes >= LARGE_BYTES {
            let sending = after.saturating_sub(known.round_trip.unwrap_or_default());
            let rate = bytes.saturating_mul(1000) / usize::try_from(sending.as_millis()).unwrap_or(usize::MAX).max(1);
            known.bytes_per_second = Some(known.bytes_per_second.map_or(rate, |before| before.midpoint(rate)).max(1));
        }
        // One that lives has carried at least this. But it is those that live long which tell so: not at once.
        known.carried = known.carried.map(|mean| mean + carried.saturating_sub(mean) / 8);
    }

    /// A connection died, or fell silent, while a request of `under_way` bytes had no answer; it had carried `carried`
    /// bytes before. Some part of what was under way went through.
    pub(super) fn died(&self, carried: usize, under_way: usize) {
        let mut known = self.shared.lock();
        let found = carried + under_way / 4;
        known.carried = Some(known.carried.map_or(found, |mean| mean.midpoint(found)));
    }

    /// What a request may carry, in bytes.
    pub(super) fn request_bytes_max(&self) -> usize {
        self.shared.lock().carried.map_or(usize::MAX, |carried| carried / 2).max(1)
    }

    /// How long so many bytes take at most to be sent, beyond what any request takes.
    pub(super) fn sending(&self, bytes: usize) -> Duration {
        const MAX: usize = 3600;
        let rate = self.shared.lock().bytes_per_second;
        rate.map_or(Duration::ZERO, |rate| Duration::from_secs((bytes.saturating_mul(2) / rate).min(MAX) as u64))
    }

    /// What a transaction may carry that has `timeout` to end, in bytes: a quarter of the time for what follows the
    /// first request, whose own way does not count, since the transaction begins when it has arrived.
    pub(super) fn transaction_bytes_max(&self, timeout: Duration) -> usize {
        const ONE_REQUEST_BYTES: usize = 1 << 20;
        let rate = self.shared.lock().bytes_per_second;
        let Some(rate) = rate else { return usize::MAX };
        let seconds = usize::try_from(timeout.as_secs()).unwrap_or(usize::MAX);
        (rate.saturating_mul(seconds) / 4).max(self.request_bytes_max().min(ONE_REQUEST_BYTES))
    }

    /// How long a transaction may take: longer on a line with long round trips.
    pub(super) fn transaction_timeout(&self) -> Duration {
        let round_trip = self.shared.lock().round_trip.unwrap_or_default();
        (round_trip * ROUND_TRIPS).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn requests_shrink_until_one_is_answered_and_grow_while_connections_live() {
        let line = Line::default();
        assert_eq!(line.request_bytes_max(), usize::MAX);
        let (mut size, mut deaths) = (1 << 20, 0);
        // Connections carry 70,000 bytes.
        while size > 70_000 {
            line.died(0, size);
            size = line.request_bytes_max();
            deaths += 1;
        }
        assert!(deaths < 8, "{deaths}");
        for round in 0..20 {
            let fit = 70_000 / size;
            (1..=fit).for_each(|n| line.answered(size, SECOND, n * size));
            line.died(fit * size, size);
            size = line.request_bytes_max();
            assert!((8_000..70_000).contains(&size), "round {round}: {size}");
        }
        // The line is mended.
        let mut carried = 0;
        for _ in 0..40 {
            carried += size;
            line.answered(size, SECOND, carried);
            size = line.request_bytes_max().min(1 << 20);
        }
        assert_eq!(size, 1 << 20);
        // However bad it is, something is tried.
        (0..200).for_each(|_| line.died(0, line.request_bytes_max()));
        assert_eq!(line.request_bytes_max(), 1);
    }

    #[test]
    fn a_transaction_has_time_for_its_round_trips_and_carries_what_goes_through_in_a_part_of_it() {
        let line = Line::default();
        assert_eq!(line.transaction_timeout(), TIMEOUT_MIN);
        assert_eq!(line.transaction_bytes_max(60 * SECOND), usize::MAX);
        line.answered(100, 4 * SECOND, 100);
        assert_eq!(line.transaction_timeout(), 48 * SECOND);
        line.answered(100, 9 * SECOND, 100);
        assert_eq!(line.transaction_timeout(), TIMEOUT_MAX);
        // A thousand bytes in a second: one MiB in a request of its own, unless connections die.
        line.answered(30_000, 39 * SECOND, 100);
        assert_eq!(line.transaction_bytes_max(60 * SECOND), 1 << 20);
        assert!(line.sending(5_000) >= 9 * SECOND && line.sending(5_000) <= 11 * SECOND);
        line.died(40_000, 0);
        assert_eq!((line.request_bytes_max(), line.transaction_bytes_max(60 * SECOND)), (20_000, 20_000));
    }
}
