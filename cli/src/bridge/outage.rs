//! How often failures are reported: at once where one begins, then once a minute, and after an hour once an hour.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A time in which what is tried fails, for any reason.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    /// When a failure was reported last, of this outage or of one before.
    reported: Option<Instant>,
    /// Whether one of this outage was reported.
    is_reported: bool,
}

/// What is to be reported of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// It is the first one.
    Failure,
    /// It goes on, for so long now.
    Still(Duration),
}

impl Outage {
    /// Something failed.
    pub(super) fn fail(&mut self, now: Instant) -> Due {
        let is_first = self.since.is_none();
        let lasts = now.duration_since(*self.since.get_or_insert(now));
        let every = if lasts < HOUR { MINUTE } else { HOUR };
        if self.reported.is_some_and(|reported| now.duration_since(reported) < every) {
            return Due::Nothing;
        }
        self.reported = Some(now);
        let was_reported = std::mem::replace(&mut self.is_reported, true);
        if is_first || !was_reported && lasts < MINUTE { Due::Failure } else { Due::Still(lasts) }
    }

    /// Something succeeded. How long the outage lasted, where it was reported.
    pub(super) fn end(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        std::mem::take(&mut self.is_reported).then(|| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_reported_at_once_then_once_a_minute_and_then_once_an_hour() {
        let (mut outage, begin) = (Outage::default(), Instant::now());
        let mut reports = Vec::new();
        // Ten tries a minute, for a day.
        for n in 0..24 * 600 {
            let since = Duration::from_secs(n * 6);
            match outage.fail(begin + since) {
                Due::Nothing => {}
                due => reports.push((since.as_secs(), due)),
            }
        }
        assert_eq!(reports[0], (0, Due::Failure));
        assert!(reports[1..60].iter().zip(1..).all(|(report, n)| *report == (n * 60, Due::Still(MINUTE * n as u32))));
        let later: Vec<u64> = reports[60..].iter().map(|(at, _)| *at).collect();
        assert!(later.len() <= 23 && later.windows(2).all(|pair| pair[1] - pair[0] == 3600), "{later:?}");
        let day = Duration::from_secs(86_400);
        assert_eq!(outage.end(begin + day), Some(day));
        assert_eq!(outage.end(begin + day), None);
    }

    #[test]
    fn failures_that_come_and_go_are_reported_once_a_minute() {
        let (mut outage, begin) = (Outage::default(), Instant::now());
        let (mut begun, mut ended) = (0, 0);
        for n in 0..600 {
            let now = begin + Duration::from_secs(n);
            begun += u32::from(outage.fail(now) != Due::Nothing);
            ended += u32::from(outage.end(now + Duration::from_millis(500)).is_some());
        }
        assert_eq!((begun, ended), (10, 10));
    }
}
