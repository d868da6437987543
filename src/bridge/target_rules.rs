//! What a target topic's own configuration says of the records that it takes.

use edgelog_core::{Offset, TimestampMs};

use super::ownership::READING;
use crate::{Log, OffsetSpec};

/// What a broker allows where it does not say so: 1 MiB and the 12 bytes before a batch's length.
pub(super) const MAX_MESSAGE_BYTES_DEFAULT: usize = 1_048_588;

/// A topic's rules; the default ones are those of a topic that says nothing.
#[derive(Debug, Clone)]
pub(super) struct TargetRules {
    /// `max.message.bytes`
    pub(super) max_message_bytes: usize,
    /// What the target would delete on arrival: records with an earlier time than this long ago.
    pub(super) retention_ms: Option<i64>,
    /// The times of records that the target takes, where it takes those that records come with.
    pub(super) times: Option<TimeBounds>,
    /// It is compacted: it refuses records without a key.
    pub(super) wants_keys: bool,
}

impl Default for TargetRules {
    fn default() -> TargetRules {
        TargetRules { max_message_bytes: MAX_MESSAGE_BYTES_DEFAULT, retention_ms: None, times: None, wants_keys: false }
    }
}

/// How far from a broker's clock the time of a record may be, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeBounds {
    /// `message.timestamp.before.max.ms`
    pub(super) before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub(super) after_max_ms: i64,
}

impl TimeBounds {
    /// Which of these rules refuse records that are to be sent of `log`, from the offset `from` on, in words.
    /// Looks at the oldest batch and at the first record that is too new: enough for a warning.
    pub(super) fn refused_of(&self, log: &Log, from: Offset, now: TimestampMs) -> crate::Result<Vec<String>> {
        let (name, mut refused) = (log.name(), Vec::new());
        let mut reader = log.reader_with(OffsetSpec::Offset(from), READING)?;
        let oldest = reader.next_batch()?.map(|batch| batch.view().base_timestamp());
        let TimeBounds { before_max_ms: before, after_max_ms: after } = self;
        if oldest.is_some_and(|oldest| oldest >= 0 && oldest < now.saturating_sub(*before)) {
            refused
                .push(format!("message.timestamp.before.max.ms={before} there: older records of {name} are refused"));
        }
        let too_new = log.offset_for_time(now.saturating_add(*after).saturating_add(1))?;
        if too_new.is_some_and(|at| at.offset >= from) {
            refused.push(format!(
                "message.timestamp.after.max.ms={after} there: records of {name} whose clock was fast are refused"
            ));
        }
        Ok(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::{NewRecord, NewTopic, Store};

    #[test]
    fn records_that_the_target_s_clock_refuses_are_foreseen() {
        let store = Store::options().open_on(MemoryStorage::new()).unwrap();
        store.create_topic(&NewTopic::new("t")).unwrap();
        let log = store.log("t", 0).unwrap();
        for timestamp in [1_000, 5_000, 9_000] {
            log.append(NewRecord::value(b"v").with_timestamp(TimestampMs(timestamp))).unwrap();
        }
        let refused = |before_max_ms, after_max_ms, from| {
            let bounds = TimeBounds { before_max_ms, after_max_ms };
            bounds.refused_of(&log, from, TimestampMs(6_000)).unwrap().join(";")
        };
        assert_eq!(refused(i64::MAX, i64::MAX, Offset(0)), "");
        assert_eq!(refused(5_000, 3_000, Offset(0)), "");
        assert!(refused(4_999, 3_000, Offset(0)).starts_with("message.timestamp.before.max.ms=4999"));
        assert!(refused(5_000, 2_999, Offset(0)).starts_with("message.timestamp.after.max.ms=2999"));
        // What was sent is no matter any more.
        assert_eq!(refused(4_999, 3_000, Offset(1)), "");
        assert_eq!(refused(0, 0, Offset(3)), "");
    }
}
