//! What is known of the line to the cluster: how long a round trip takes, how many bytes go through in a second, and
//! how much connections carry before they die. Learned from requests and responses that are made anyway; shared by all
//! connections.
//!
//! On a line whose connections live for a minute, a request that takes longer to send never gets an answer. So none is
//! larger than half of what connections carried lately; each answer is progress, and lets the next one grow. Lifetimes
//! of connections scatter as widely as they are long (those of a line that fails at random are exponentially
//! distributed), so it takes several deaths to know what one carries: bytes that were acknowledged, by deaths, where
//! each death lets what was before count three quarters.
//!
//! At first nothing is known of a line but its round trips. Where they are long, it begins with little, and as much as
//! was acknowledged may be sent again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// Requests and answers up to this size measure the round trip, larger ones the throughput.
const SMALL_BYTES: usize = 1 << 10;
/// The least that a request is cut down to, as long as more than that may be under way.
const PIECE_BYTES_MIN: usize = 8 << 10;
/// A request of that size shows how much goes through in a second: pieces are a little smaller than they may be.
const LARGE_BYTES: usize = PIECE_BYTES_MIN / 2;
/// So much of what connections carried is remembered: a line that was good and turns bad is known as that soon.
const REMEMBERED_BYTES: f64 = (2 << 20) as f64;
/// Requests of this part of what may be under way are: what dies with a connection is then the less.
const PIECES: usize = 4;
/// On a line whose shortest round trip takes longer, nothing is taken for granted ...
const LONG_ROUND_TRIP: Duration = Duration::from_millis(250);
/// ... beyond so much in a request.
const FIRST_BYTES: usize = 16 << 10;
/// Round trips that a transaction may have to wait for: its three requests, asked again where connections died.
const ROUND_TRIPS: u32 = 16;
/// So many requests of one exchange are in flight to a broker: what waits to be read there fits the buffers of both
/// ends, so that neither waits for the other to read first.
pub(crate) const IN_FLIGHT_MAX: usize = 256;
/// The bytes of a request that commits an offset.
const COMMIT_BYTES: usize = 400;
/// How long a coordinator takes for one at least: it writes each to its log before it answers.
const COMMIT_TIME_MIN: Duration = Duration::from_millis(20);
/// The time that any transaction has is enough for so many offsets.
const FEW_OFFSETS: usize = 50;
/// A transaction has so many times as long as its offsets should take.
const COMMIT_SLACK: usize = 4;
const TIMEOUT_MIN: Duration = Duration::from_secs(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Default)]
pub(crate) struct LinkEstimator {
    shared: Arc<Mutex<Estimate>>,
}

#[derive(Debug, Default)]
struct Estimate {
    /// What is waited for: the worst of the last round trips.
    round_trip: Option<Duration>,
    /// What is no transmission: the best of them.
    shortest: Option<Duration>,
    /// How long the answer to a small request takes behind the answer before it: what a broker needs for one.
    behind: Option<Duration>,
    /// Bytes of the last large requests, and the seconds that those took, the later ones counting more: a mean of their
    /// rates would take the luck of one for the line's.
    sent: f64,
    sending: f64,
    /// Bytes that were acknowledged, and connections that died, the later ones counting more.
    acknowledged: f64,
    deaths: f64,
}

impl Estimate {
    fn bytes_per_second(&self) -> Option<usize> {
        (self.sending > 0.0).then(|| ((self.sent / self.sending) as usize).max(1))
    }

    /// What connections carry before they die; `None` where nothing says that it is less than is asked for.
    fn carried(&self) -> Option<usize> {
        let is_slow = self.shortest.is_some_and(|round_trip| round_trip > LONG_ROUND_TRIP);
        if self.deaths > 0.0 {
            Some((self.acknowledged / self.deaths) as usize)
        } else {
            let is_unknown = is_slow && self.acknowledged < REMEMBERED_BYTES;
            is_unknown.then(|| (2 * FIRST_BYTES).max(self.acknowledged as usize))
        }
    }
}

#[allow(clippy::cast_precision_loss)] // Bytes of one line: far below 2^52.
fn number(bytes: usize) -> f64 {
    bytes as f64
}

/// How long an answer was waited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waited {
    /// Since its request was sent, with nothing else under way on that connection.
    Alone(Duration),
    /// Since the answer to the request before it, behind which its own was sent.
    Behind(Duration),
}

impl LinkEstimator {
    /// A request of so many bytes was answered.
    pub(super) fn answered(&self, bytes: usize, waited: Waited) {
        let mut estimate = self.shared.lock();
        match waited {
            Waited::Alone(after) if bytes <= SMALL_BYTES => {
                // Rises at once and falls slowly; the other way about.
                let fallen = estimate.round_trip.map_or(after, |before| (before * 7 + after) / 8);
                estimate.round_trip = Some(fallen.max(after));
                let risen = estimate.shortest.map_or(after, |before| before + before / 16);
                estimate.shortest = Some(risen.min(after));
            }
            Waited::Behind(after) if bytes <= SMALL_BYTES => {
                estimate.behind = Some(estimate.behind.map_or(after, |before| (before * 7 + after) / 8));
            }
            _ if bytes >= LARGE_BYTES => {
                let sending = match waited {
                    Waited::Alone(after) => after.saturating_sub(estimate.shortest.unwrap_or_default()),
                    Waited::Behind(after) => after,
                };
                estimate.sent = estimate.sent * 0.75 + number(bytes);
                estimate.sending = estimate.sending * 0.75 + sending.as_secs_f64().max(0.001);
            }
            _ => {}
        }
        estimate.acknowledged += number(bytes);
        if estimate.acknowledged > REMEMBERED_BYTES {
            estimate.deaths *= REMEMBERED_BYTES / estimate.acknowledged;
            estimate.acknowledged = REMEMBERED_BYTES;
        }
    }

    /// A connection died, or fell silent, while `in_flight` bytes of requests had no response, the first of them, of
    /// `oldest` bytes, sent so long ago. Some part of them went through: where it is not known how much does in a
    /// second, a part of the first one.
    pub(super) fn died(&self, in_flight: usize, oldest: usize, since: Duration) {
        // Small requests die on connections that carry no others, and say nothing of what those would have carried.
        if in_flight <= SMALL_BYTES {
            return;
        }
        let mut estimate = self.shared.lock();
        let through = estimate.bytes_per_second().map_or(oldest / 4, |rate| {
            let ms = usize::try_from(since.as_millis()).unwrap_or(usize::MAX);
            in_flight.min(rate.saturating_mul(ms) / 1000)
        });
        estimate.acknowledged = estimate.acknowledged * 0.75 + number(through);
        estimate.deaths = estimate.deaths * 0.75 + 1.0;
    }

    /// What a request may carry, in bytes.
    pub(crate) fn request_bytes_max(&self) -> usize {
        self.shared.lock().carried().map_or(usize::MAX, |carried| carried / 2).max(1)
    }

    /// What one of several requests that are under way together should carry, in bytes.
    pub(crate) fn piece_bytes_max(&self) -> usize {
        match self.request_bytes_max() {
            usize::MAX => usize::MAX,
            max => (max / PIECES).max(max.min(PIECE_BYTES_MIN)),
        }
    }

    /// How long so many bytes take at most to be sent, beyond what any request takes.
    pub(super) fn sending(&self, bytes: usize) -> Duration {
        const MAX: usize = 3600;
        let rate = self.shared.lock().bytes_per_second();
        rate.map_or(Duration::ZERO, |rate| Duration::from_secs((bytes.saturating_mul(2) / rate).min(MAX) as u64))
    }

    /// What a transaction may carry that has `timeout` to end, in bytes: half of the time, so that one or two
    /// connections may die meanwhile; as much as two requests where it is not known how much goes through. One piece
    /// may take longer: its own way does not count, since the transaction begins when it has arrived.
    pub(crate) fn transaction_bytes_max(&self, timeout: Duration) -> usize {
        const ONE_PIECE_BYTES: usize = 1 << 20;
        let rate = self.shared.lock().bytes_per_second();
        let Some(rate) = rate else { return self.request_bytes_max().saturating_mul(2) };
        let seconds = usize::try_from(timeout.as_secs()).unwrap_or(usize::MAX);
        (rate.saturating_mul(seconds) / 2).max(self.piece_bytes_max().min(ONE_PIECE_BYTES))
    }

    /// How long a transaction that commits so many offsets may take: longer on a line with long round trips, and with
    /// many offsets.
    pub(crate) fn transaction_timeout(&self, offsets: usize) -> Duration {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let round_trip = self.shared.lock().round_trip.unwrap_or_default();
        let waits = round_trip.saturating_mul(ROUND_TRIPS.saturating_add(number(offsets / IN_FLIGHT_MAX)));
        let many = offsets.saturating_sub(FEW_OFFSETS).saturating_mul(COMMIT_SLACK);
        waits.saturating_add(self.commit_time().saturating_mul(number(many))).clamp(TIMEOUT_MIN, TIMEOUT_MAX)
    }

    /// How many offsets a transaction may commit that has `timeout` to end; one in any case.
    pub(crate) fn offsets_max(&self, timeout: Duration) -> usize {
        let ms = |time: Duration| usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
        let in_time = ms(timeout) / COMMIT_SLACK / ms(self.commit_time()).max(1);
        in_time.saturating_add(in_time.min(FEW_OFFSETS)).max(1)
    }

    /// How long it takes to commit one offset behind others.
    fn commit_time(&self) -> Duration {
        let estimate = self.shared.lock();
        let sending = estimate.bytes_per_second().map_or(0, |rate| COMMIT_BYTES * 1000 / rate);
        COMMIT_TIME_MIN.max(estimate.behind.unwrap_or_default()).max(Duration::from_millis(sending as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn requests_shrink_until_one_is_answered_and_grow_while_connections_live() {
        let link = LinkEstimator::default();
        assert_eq!((link.request_bytes_max(), link.piece_bytes_max()), (usize::MAX, usize::MAX));
        let (mut size, mut deaths) = (1 << 20, 0);
        // Connections carry 70,000 bytes.
        while size > 70_000 {
            link.died(size, size, SECOND);
            size = link.request_bytes_max();
            deaths += 1;
        }
        assert!(deaths < 8, "{deaths}");
        for round in 0..20 {
            let fit = 70_000 / size;
            (0..fit).for_each(|_| link.answered(size, Waited::Alone(SECOND)));
            link.died(size, size, SECOND);
            size = link.request_bytes_max();
            assert!((8_000..70_000).contains(&size), "round {round}: {size}");
        }
        // The line is mended.
        for _ in 0..200 {
            link.answered(size, Waited::Alone(SECOND));
            size = link.request_bytes_max().min(1 << 20);
        }
        assert_eq!(size, 1 << 20);
        // It turns bad again.
        (0..12).for_each(|_| link.died(link.request_bytes_max(), 0, SECOND / 20));
        assert!(link.request_bytes_max() < 70_000, "{}", link.request_bytes_max());
        // However bad it is, something is tried.
        (0..200).for_each(|_| link.died(link.request_bytes_max(), 0, SECOND / 1000));
        assert!((200..=SMALL_BYTES).contains(&link.request_bytes_max()), "{}", link.request_bytes_max());
    }

    /// Several requests under way on connections that carry less than the first of them: none was ever answered, and
    /// all together were taken for what goes through.
    #[test]
    fn what_is_under_way_behind_a_request_that_never_gets_through_says_nothing() {
        let link = LinkEstimator::default();
        let (first, all) = (66_000, 1_070_000);
        let mut deaths = 0;
        while link.request_bytes_max() > 30_000 {
            link.died(all, first, SECOND);
            deaths += 1;
        }
        assert!(deaths < 3, "{deaths}");
    }

    /// Connections that live for an exponentially distributed time, at 1,200 bytes a second and 72,000 bytes on
    /// average: with requests of what the line is said to carry, most of what is sent is acknowledged.
    #[test]
    fn what_connections_carry_is_found_from_lifetimes_that_scatter() {
        let (link, mut state) = (LinkEstimator::default(), 7_u64);
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            number((state >> 44) as usize) / number(1 << 20)
        };
        let (mut sent, mut acknowledged) = (0.0, 0.0);
        for death in 0..400 {
            let mut left = -72_000.0 * (1.0 - random()).ln();
            let mut bytes = number(link.request_bytes_max().min(1 << 20));
            while left >= bytes {
                let took = Duration::from_secs_f64(bytes / 1200.0);
                link.answered(bytes as usize, Waited::Alone(took));
                if death > 20 {
                    (sent, acknowledged) = (sent + bytes, acknowledged + bytes);
                }
                left -= bytes;
                bytes = number(link.request_bytes_max().min(1 << 20));
            }
            link.died(bytes as usize, bytes as usize, Duration::from_secs_f64(left / 1200.0));
            if death > 20 {
                sent += left;
                let max = link.request_bytes_max();
                assert!((6_000..200_000).contains(&max), "{max}");
            }
        }
        assert!(acknowledged > 0.6 * sent, "{acknowledged} of {sent}");
    }

    #[test]
    fn a_transaction_has_time_for_its_round_trips_and_carries_what_goes_through_in_a_part_of_it() {
        let link = LinkEstimator::default();
        assert_eq!(link.transaction_timeout(1), TIMEOUT_MIN);
        assert_eq!(link.transaction_bytes_max(60 * SECOND), usize::MAX);
        link.answered(100, Waited::Alone(3 * SECOND));
        assert_eq!(link.transaction_timeout(1), 48 * SECOND);
        link.answered(100, Waited::Alone(9 * SECOND));
        assert_eq!(link.transaction_timeout(1), TIMEOUT_MAX);
        // A piece of the smallest kind, with its batch a little smaller than it might be, is measured.
        let pieces = LinkEstimator::default();
        pieces.answered(100, Waited::Alone(SECOND));
        pieces.answered(PIECE_BYTES_MIN - 500, Waited::Behind(8 * SECOND));
        assert_eq!(pieces.transaction_bytes_max(60 * SECOND), (PIECE_BYTES_MIN - 500) / 8 * 30);
        // Nothing larger was answered yet.
        assert_eq!((link.request_bytes_max(), link.transaction_bytes_max(60 * SECOND)), (FIRST_BYTES, 2 * FIRST_BYTES));
        // A thousand bytes in a second.
        link.answered(30_000, Waited::Behind(30 * SECOND));
        assert_eq!(link.transaction_bytes_max(60 * SECOND), 30_000);
        assert!(link.sending(5_000) >= 9 * SECOND && link.sending(5_000) <= 11 * SECOND);
        assert_eq!(link.sending(30_000), 60 * SECOND);
        // A request alone: the shortest round trip is no transmission, and the longest says nothing of it.
        link.answered(30_000, Waited::Alone(34 * SECOND));
        assert!((59..=62).contains(&link.sending(30_000).as_secs()), "{:?}", link.sending(30_000));
        link.died(20_000, 20_000, 5 * SECOND);
        let carried = link.request_bytes_max();
        assert!((24_000..27_000).contains(&carried), "{carried}");
        assert!((29_000..30_000).contains(&link.transaction_bytes_max(60 * SECOND)));
        assert_eq!(link.transaction_bytes_max(10 * SECOND), PIECE_BYTES_MIN);
        assert_eq!(link.piece_bytes_max(), PIECE_BYTES_MIN);
    }

    /// Without that, 20 logs on a line of 0.7 s had a transaction that timed out.
    #[test]
    fn a_transaction_has_time_for_the_offsets_that_it_may_commit() {
        let link = LinkEstimator::default();
        assert_eq!(link.transaction_timeout(50), TIMEOUT_MIN);
        link.answered(100, Waited::Alone(SECOND * 7 / 10));
        assert_eq!(link.transaction_timeout(1), SECOND * 112 / 10);
        assert_eq!(link.transaction_timeout(200), SECOND * 232 / 10);
        assert_eq!(link.transaction_timeout(100_000), TIMEOUT_MAX);
        // Those that the timeout counts are those that may be in it.
        for offsets in [1, 60, 200, 400, 600] {
            let timeout = link.transaction_timeout(offsets);
            assert!(link.offsets_max(timeout) >= offsets, "{offsets} in {timeout:?}");
        }
        assert_eq!(link.offsets_max(TIMEOUT_MAX), 800);
        // Slow coordinators, or a slow line: fewer.
        (0..50).for_each(|_| link.answered(100, Waited::Behind(SECOND / 10)));
        assert_eq!(link.offsets_max(TIMEOUT_MAX), 200);
        link.answered(5_000, Waited::Behind(20 * SECOND));
        assert_eq!(link.offsets_max(TIMEOUT_MAX), 18);
        assert_eq!(link.offsets_max(SECOND), 1);
    }

    #[test]
    fn a_line_of_long_round_trips_gets_little_at_first_and_everything_once_it_has_carried_as_much() {
        let link = LinkEstimator::default();
        link.answered(100, Waited::Alone(SECOND / 10));
        assert_eq!((link.request_bytes_max(), link.piece_bytes_max()), (usize::MAX, usize::MAX));
        let link = LinkEstimator::default();
        link.answered(100, Waited::Alone(SECOND));
        let mut requests = 0;
        while link.request_bytes_max() < usize::MAX {
            link.answered(link.piece_bytes_max(), Waited::Behind(SECOND / 100));
            requests += 1;
        }
        assert!((8..40).contains(&requests), "{requests}");
    }
}
