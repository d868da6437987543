//! The record that reports what was lost before it was sent. It goes in the transaction that moves the committed offset
//! past the loss. Its value is JSON:
//!
//! ```text
//! {"device":"press-17","topic":"cpu","partition":0,"first_offset":100,"next_offset":250,"time_ms":1700000000000,
//!  "reason":"retention","detail":"..."}
//! ```

use std::fmt::{self, Write as _};

use bytes::BytesMut;
use edgelog_core::{EncodeError, Offset, TimestampMs};

use super::dead_letter::batch_of_one;
use crate::TopicPartition;

/// Offsets that are not here any more and were not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) first_offset: Offset,
    pub(super) next_offset: Offset,
    /// One word: `retention` or `damage`.
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offsets {} to {}: {}", self.first_offset, self.next_offset, self.detail)
    }
}

/// The batch that reports a loss of `log`; its key is the group that keeps the log's position, so that what concerns
/// one log has one key.
pub(super) fn loss_record(
    device: &str,
    log: &TopicPartition,
    group: &str,
    lost: &Loss,
    now: TimestampMs,
) -> Result<BytesMut, EncodeError> {
    let mut value = String::new();
    // Names of devices and topics need no escapes.
    let _ = write!(
        value,
        "{{\"device\":\"{device}\",\"topic\":\"{}\",\"partition\":{},\"first_offset\":{},\"next_offset\":{},\
         \"time_ms\":{now},\"reason\":\"{}\",\"detail\":\"{}\"}}",
        log.topic,
        log.partition,
        lost.first_offset,
        lost.next_offset,
        lost.reason,
        escaped(&lost.detail)
    );
    batch_of_one(now, Some(group.as_bytes()), Some(value.as_bytes()), &[])
}

/// Text as it stands in a JSON string.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgelog_core::RecordBatch;

    #[test]
    fn a_loss_is_reported_as_json() {
        let lost = Loss {
            first_offset: Offset(3),
            next_offset: Offset(9),
            reason: "damage",
            detail: "a \"quoted\"\tC:\\path".to_owned(),
        };
        let batch =
            loss_record("d", &TopicPartition::new("cpu", 2), "edgelog:d:cpu-2", &lost, TimestampMs(77)).unwrap();
        let batch = RecordBatch::parse(&batch).unwrap();
        batch.verify_crc().unwrap();
        let record = batch.records().unwrap().next().unwrap().unwrap();
        assert_eq!((record.timestamp, record.key), (TimestampMs(77), Some(&b"edgelog:d:cpu-2"[..])));
        assert_eq!(
            std::str::from_utf8(record.value.unwrap()).unwrap(),
            "{\"device\":\"d\",\"topic\":\"cpu\",\"partition\":2,\"first_offset\":3,\"next_offset\":9,\"time_ms\":77,\
             \"reason\":\"damage\",\"detail\":\"a \\\"quoted\\\"\\u0009C:\\\\path\"}"
        );
    }
}
