//! When a record may be handed out, as its headers say.

use edgelog_core::{Record, TimestampMs};

/// In milliseconds since 1970, as text: not before.
const NOT_BEFORE: &str = "edgelog.not.before";
/// In milliseconds since 1970, as text: only before.
const DEADLINE: &str = "edgelog.deadline";
/// A clock may be set: what waits is looked at again after so many milliseconds.
const WAIT_MS_MAX: i64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Now,
    /// In so many milliseconds it is looked at again.
    Later(i64),
    /// Its time is over.
    Never,
}

/// What the record's headers say at `now`. A header that is no number says nothing.
pub(super) fn when(record: &Record<'_>, now: TimestampMs) -> When {
    let headers = record.headers();
    if headers.is_empty() {
        return When::Now;
    }
    let time = |name: &str| {
        let text = std::str::from_utf8(headers.last_value(name)??).ok()?;
        text.trim().parse::<i64>().ok()
    };
    let (not_before, deadline) = (time(NOT_BEFORE), time(DEADLINE));
    if deadline.is_some_and(|deadline| deadline <= now.0) {
        return When::Never;
    }
    match not_before {
        Some(from) if from > now.0 => {
            let next = from.min(deadline.unwrap_or(i64::MAX));
            When::Later(next.saturating_sub(now.0).min(WAIT_MS_MAX))
        }
        _ => When::Now,
    }
}
