//! How far one log is delivered: the end of what is durable here, and what the cluster has committed of it.

use edgelog_core::Offset;

use super::pause_reason::PauseReason;
use crate::TopicPartition;

/// How far one log is delivered; see [`Bridge::run_until_caught_up`](super::Bridge::run_until_caught_up).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogPosition {
    /// The local log.
    pub log: TopicPartition,
    /// The end of what is durable here, or may be: a program that was killed leaves records behind it that wait for a
    /// recovery. `None` where the log cannot be read.
    pub end_offset: Option<Offset>,
    /// The cluster has committed everything below; `None` where that is not known.
    pub committed_offset: Option<Offset>,
    /// How many offsets lie between the two; `None` where one of them is not known.
    pub lag: Option<u64>,
    /// How many offsets there are here, sent or not: what the lag is at most. `None` where the log cannot be read.
    pub held: Option<u64>,
    /// Why nothing of it is sent until a person does something.
    pub waits: Option<PauseReason>,
}

impl LogPosition {
    /// A log that holds the offsets from `log_start_offset` to `end_offset`.
    pub(super) fn of(
        log: TopicPartition,
        (log_start_offset, end_offset): (Offset, Offset),
        committed_offset: Option<Offset>,
        waits: Option<PauseReason>,
    ) -> LogPosition {
        let lag = committed_offset.map(|committed| between(committed, end_offset));
        let held = Some(between(log_start_offset, end_offset));
        LogPosition { log, end_offset: Some(end_offset), committed_offset, lag, held, waits }
    }

    /// A log of which nothing can be read here.
    pub(super) fn unreadable(log: TopicPartition, waits: PauseReason) -> LogPosition {
        LogPosition { log, end_offset: None, committed_offset: None, lag: None, held: None, waits: Some(waits) }
    }

    /// Whether the cluster has all of it that is durable here, or may be.
    pub fn is_delivered(&self) -> bool {
        self.lag == Some(0)
    }
}

fn between(from: Offset, to: Offset) -> u64 {
    u64::try_from(to - from).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_delivered() {
        let of = |committed| LogPosition::of(TopicPartition::new("t", 0), (Offset(3), Offset(10)), committed, None);
        assert_eq!((of(None).lag, of(None).held, of(None).is_delivered()), (None, Some(7), false));
        assert_eq!((of(Some(Offset(8))).lag, of(Some(Offset(8))).is_delivered()), (Some(2), false));
        assert!(of(Some(Offset(10))).is_delivered());
        let gone = LogPosition::unreadable(TopicPartition::new("t", 0), PauseReason::DirectoryMissing);
        assert!(!gone.is_delivered());
    }
}
