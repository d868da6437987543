//! How far one log is delivered: the end of what is durable here, and what the cluster has committed of it.
//!
//! This is the one place where a lag is counted: what a run returns, the metrics, and the status ask here.

use edgelog_core::Offset;

use super::ownership::READING;
use super::pause_reason::PauseReason;
use crate::{Log, OffsetSpec, TopicPartition};

/// How far one log is delivered; see [`Bridge::run_until_caught_up`](super::Bridge::run_until_caught_up).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogPosition {
    /// The local log.
    pub log: TopicPartition,
    /// The end of what is durable here, or may be: what another process has appended counts also where it cannot be
    /// made durable from here, and a program that was killed leaves records that wait for a recovery. `None` where the
    /// log cannot be read.
    pub end_offset: Option<Offset>,
    /// The cluster has committed everything below; `None` where that is not known.
    pub committed_offset: Option<Offset>,
    /// How many offsets lie between the two; `None` where one of them is not known, or where the committed offset lies
    /// beyond the end, and so is of another history.
    pub lag: Option<u64>,
    /// How many offsets there are here, sent or not: what the lag is at most. `None` where the log cannot be read.
    pub held: Option<u64>,
    /// Why nothing of it is sent until a person does something.
    pub waits: Option<PauseReason>,
}

impl LogPosition {
    /// A log as this process has seen it last, of which the cluster has committed everything below `committed_offset`.
    pub(super) fn as_seen(
        name: TopicPartition,
        log: &Log,
        committed_offset: Option<Offset>,
        waits: Option<PauseReason>,
    ) -> LogPosition {
        let offsets = log.offsets();
        // What a program could not flush here is not durable, and is not sent; it is no less behind for that.
        let counts_all = log.is_attached() || log.failure().is_some();
        let end = if counts_all { offsets.log_end_offset } else { offsets.recovery_point };
        LogPosition::of(name, (offsets.log_start_offset, end), committed_offset, waits)
    }

    /// As [`as_seen`](Self::as_seen), after a look at what another process has appended since.
    pub(super) fn looked_up(
        name: TopicPartition,
        log: &Log,
        committed_offset: Option<Offset>,
        waits: Option<PauseReason>,
    ) -> LogPosition {
        match log.reader_with(OffsetSpec::Latest, READING) {
            Ok(_) => LogPosition::as_seen(name, log, committed_offset, waits),
            Err(_) => LogPosition { committed_offset, waits, ..LogPosition::unknown(name) },
        }
    }

    /// A log that holds the offsets from `log_start_offset` to `end_offset`.
    fn of(
        log: TopicPartition,
        (log_start_offset, end_offset): (Offset, Offset),
        committed_offset: Option<Offset>,
        waits: Option<PauseReason>,
    ) -> LogPosition {
        let lag = committed_offset.and_then(|committed| LogPosition::lag_between(committed, end_offset));
        let held = u64::try_from(end_offset - log_start_offset).unwrap_or(0);
        LogPosition { log, end_offset: Some(end_offset), committed_offset, lag, held: Some(held), waits }
    }

    /// How many offsets lie between a committed offset and a log's end; `None` where it lies beyond.
    pub(super) fn lag_between(committed: Offset, end: Offset) -> Option<u64> {
        u64::try_from(end - committed).ok()
    }

    /// A log of which nothing can be read here.
    pub(super) fn unreadable(log: TopicPartition, waits: PauseReason) -> LogPosition {
        LogPosition { waits: Some(waits), ..LogPosition::unknown(log) }
    }

    fn unknown(log: TopicPartition) -> LogPosition {
        LogPosition { log, end_offset: None, committed_offset: None, lag: None, held: None, waits: None }
    }

    /// Whether the cluster has all of it that is durable here, or may be.
    pub fn is_delivered(&self) -> bool {
        self.lag == Some(0)
    }
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
        // A position beyond the end is of another history.
        assert_eq!((of(Some(Offset(11))).lag, of(Some(Offset(11))).is_delivered()), (None, false));
        let gone = LogPosition::unreadable(TopicPartition::new("t", 0), PauseReason::DirectoryMissing);
        assert!(!gone.is_delivered());
    }
}
