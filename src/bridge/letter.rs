//! Records of the bridge's own making: the dead letter of a record that the target refused, and the record that tells
//! what was lost before it was sent. Either goes in the transaction that moves the position past what it speaks of.
//!
//! A dead letter has the refused record's key, value and headers, and behind these the headers below; those that Kafka
//! Connect's dead letters have as well are named as there. Its timestamp is the present time: the record's own may be
//! what was refused. The value that tells a loss is JSON:
//!
//! ```text
//! {"device":"press-17","topic":"cpu","partition":0,"first_offset":100,"next_offset":250,"time_ms":1700000000000,
//!  "reason":"retention","detail":"..."}
//! ```

use std::fmt::{self, Write as _};

use bytes::BytesMut;
use edgelog_core::{EncodeError, HEADER_LEN, Header, Offset, RecordBatchBuilder, TimestampMs};

use crate::kafka::Code;
use crate::{Record, TopicPartition};

/// The header in which a record keeps the timestamp that it was appended with, where it got another one.
pub(super) const TIMESTAMP_HEADER: &str = "edgelog.timestamp";

/// A record that the target does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) offset: Offset,
    pub(super) code: Code,
    /// What was asked, and the broker's words.
    pub(super) reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the record at offset {} is refused: {}", self.offset, self.reason)
    }
}

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

/// The batch that holds the dead letter of a record of `log`, meant for `target`.
pub(super) fn dead_letter(
    device: &str,
    log: &TopicPartition,
    target: &str,
    record: &Record<'_>,
    refusal: &Refusal,
    now: TimestampMs,
) -> Result<BytesMut, EncodeError> {
    let code = refusal.code.0.to_string();
    let (partition, offset, timestamp) =
        (log.partition.to_string(), record.offset.to_string(), record.timestamp.to_string());
    let mut headers: Vec<Header<'_>> = record.headers().collect();
    headers.extend([
        Header::new("__connect.errors.topic", log.topic.as_bytes()),
        Header::new("__connect.errors.partition", partition.as_bytes()),
        Header::new("__connect.errors.offset", offset.as_bytes()),
        Header::new("__connect.errors.exception.message", refusal.reason.as_bytes()),
        Header::new("edgelog.error.code", code.as_bytes()),
        Header::new("edgelog.device", device.as_bytes()),
        Header::new("edgelog.target", target.as_bytes()),
        Header::new(TIMESTAMP_HEADER, timestamp.as_bytes()),
    ]);
    batch_of_one(now, record.key, record.value, &headers)
}

/// The batch that tells a loss of `log`; its key is the group that keeps the log's position, so that what concerns one
/// log has one key.
pub(super) fn loss(
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

fn batch_of_one(
    timestamp: TimestampMs,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) -> Result<BytesMut, EncodeError> {
    let mut builder = RecordBatchBuilder::new(vec![0; HEADER_LEN]);
    loop {
        match builder.append(timestamp, key, value, headers) {
            Ok(_) => return Ok(BytesMut::from(&*builder.finish())),
            Err(EncodeError::BufferTooSmall { needed, .. }) => builder.buffer_mut().resize(needed, 0),
            Err(error) => return Err(error),
        }
    }
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
    fn a_loss_is_told_as_json() {
        let lost = Loss {
            first_offset: Offset(3),
            next_offset: Offset(9),
            reason: "damage",
            detail: "a \"quoted\"\tC:\\path".to_owned(),
        };
        let batch = loss("d", &TopicPartition::new("cpu", 2), "edgelog:d:cpu-2", &lost, TimestampMs(77)).unwrap();
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
