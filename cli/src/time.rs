//! Times and durations as people write them, and as we print them.

use std::fmt::Write as _;
use std::time::Duration;

use edgelog::TimestampMs;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// Reads a duration: `100ms`, `30s`, `1h30m`, `2d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = signed_duration(text).ok_or("expected a duration such as 100ms, 30s, 5m or 1h30m")?;
    Duration::try_from(duration).map_err(|_| "a duration cannot be negative".to_owned())
}

/// As [`parse_duration`], and longer than nothing.
pub(crate) fn parse_period(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("expected a duration longer than nothing".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads a point in time, relative to now where it is a duration: RFC 3339, a date or a date and time (local),
/// milliseconds since 1970, `-5m`, `10m ago`, `2h`.
pub(crate) fn parse_time(text: &str) -> Result<TimestampMs, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| "more milliseconds than a timestamp can hold".to_owned());
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(TimestampMs(timestamp.as_millisecond()));
    }
    if let Some(duration) = signed_duration(text) {
        return Timestamp::now()
            .checked_sub(duration.abs())
            .map(Timestamp::as_millisecond)
            .map_err(|error| error.to_string())
            .map(TimestampMs);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        let zoned = local.to_zoned(TimeZone::system()).map_err(|error| error.to_string())?;
        return Ok(TimestampMs(zoned.timestamp().as_millisecond()));
    }
    Err("expected a time such as 2026-03-01T12:00:00Z, 2026-03-01 (local), 1767225600000 (ms since 1970), -5m or '10m ago'".to_owned())
}

/// Days count 24 hours and weeks seven days; months and years have no fixed length and are refused.
fn signed_duration(text: &str) -> Option<SignedDuration> {
    let span: Span = text.trim().parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

/// `2026-03-01T12:00:00.123Z`; the bare number where it is no time.
pub(crate) fn rfc3339(timestamp: TimestampMs) -> String {
    match Timestamp::from_millisecond(timestamp.0) {
        Ok(time) if timestamp >= 0 => format!("{time:.3}"),
        _ => timestamp.to_string(),
    }
}

/// Writes times one after the other. Records come in bursts: what is the same for a whole second is kept.
pub(crate) struct Stamps {
    zone: TimeZone,
    second: i64,
    /// Up to the second, and from the zone on; both empty where the second is no time.
    before: String,
    behind: String,
    text: String,
}

impl Stamps {
    /// In UTC, or in this machine's zone, which the text says.
    pub(crate) fn new(is_utc: bool) -> Stamps {
        let zone = if is_utc { TimeZone::UTC } else { TimeZone::system() };
        Stamps { zone, second: i64::MIN, before: String::new(), behind: String::new(), text: String::new() }
    }

    /// `2026-03-01T13:00:00.123+01:00`, with `Z` for UTC; the bare number where it is no time.
    pub(crate) fn of(&mut self, timestamp: TimestampMs) -> &str {
        let (second, ms) = (timestamp.0.div_euclid(1000), timestamp.0.rem_euclid(1000));
        if second != self.second {
            self.second = second;
            self.begin(second);
        }
        self.text.clear();
        if self.before.is_empty() {
            let _ = write!(self.text, "{timestamp}");
        } else {
            let digit = |number: i64| char::from(b'0' + (number % 10) as u8);
            self.text.push_str(&self.before);
            self.text.extend(['.', digit(ms / 100), digit(ms / 10), digit(ms)]);
            self.text.push_str(&self.behind);
        }
        &self.text
    }

    fn begin(&mut self, second: i64) {
        (self.before, self.behind) = (String::new(), String::new());
        let Some(time) = Timestamp::from_second(second).ok().filter(|_| second >= 0) else { return };
        let zoned = time.to_zoned(self.zone.clone());
        let _ = write!(self.before, "{}", zoned.strftime("%Y-%m-%dT%H:%M:%S"));
        let _ = match zoned.offset().seconds() {
            0 => write!(self.behind, "Z"),
            _ => write!(self.behind, "{}", zoned.strftime("%:z")),
        };
    }
}

/// How long ago that was, in one or two words.
pub(crate) fn ago(timestamp: TimestampMs) -> String {
    let seconds = (Timestamp::now().as_millisecond() - timestamp.0) / 1000;
    match seconds {
        ..0 => "in the future".to_owned(),
        0 => "just now".to_owned(),
        1..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86400),
    }
}

/// `3.4s`, `2m 05s`, `1h 02m`.
pub(crate) fn elapsed(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, ms) in [("100ms", 100), ("30s", 30_000), ("1h30m", 5_400_000), ("2d", 172_800_000), ("1.5s", 1500)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "-5s", "5 parsecs", "1y"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert!(parse_period("0s").is_err());
    }

    #[test]
    fn times_read_absolute_and_relative() {
        assert_eq!(parse_time("1767225600000"), Ok(TimestampMs(1_767_225_600_000)));
        assert_eq!(parse_time("2026-01-01T00:00:00Z"), Ok(TimestampMs(1_767_225_600_000)));
        assert_eq!(parse_time("2026-01-01T01:00:00.5+01:00"), Ok(TimestampMs(1_767_225_600_500)));
        assert!(parse_time("2026-01-01").is_ok() && parse_time("2026-01-01 10:00").is_ok());
        let now = Timestamp::now().as_millisecond();
        for text in ["-5m", "5m ago", "5m", "5 minutes ago"] {
            let time = parse_time(text).unwrap();
            assert!((now - 300_000..now - 290_000).contains(&time.0), "{text}: {time}, now {now}");
        }
        assert!(parse_time("yesterday").is_err() && parse_time("").is_err());
    }

    #[test]
    fn kept_seconds_change_no_time() {
        let zone = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC);
        let mut utc = Stamps::new(true);
        let mut local = Stamps { zone: zone.clone(), ..Stamps::new(true) };
        // The hour in which clocks are set back, and what is no time.
        let around = (1_792_889_998_000..1_792_890_002_000).step_by(333);
        let odd = [0, 7, -1, -1001, i64::MAX, i64::MIN, 253_402_300_799_999, 1_767_225_600_007];
        for ms in around.chain(odd).chain([1_767_225_600_007, 1_767_225_600_999, 1_767_225_600_007]) {
            let time = TimestampMs(ms);
            assert_eq!(utc.of(time), rfc3339(time), "{ms}");
            let shown = local.of(time).to_owned();
            match Timestamp::from_millisecond(ms).ok().filter(|_| ms >= 0 && zone != TimeZone::UTC) {
                Some(timestamp) => {
                    let zoned = timestamp.to_zoned(zone.clone());
                    assert_eq!(shown, zoned.strftime("%Y-%m-%dT%H:%M:%S.%3f%:z").to_string(), "{ms}");
                }
                None => assert_eq!(shown, rfc3339(time), "{ms}"),
            }
        }
    }

    #[test]
    fn times_print_in_utc() {
        assert_eq!(rfc3339(TimestampMs(1_767_225_600_007)), "2026-01-01T00:00:00.007Z");
        assert_eq!(rfc3339(TimestampMs(-1)), "-1");
        assert_eq!(rfc3339(TimestampMs(i64::MAX)), i64::MAX.to_string());
    }
}
