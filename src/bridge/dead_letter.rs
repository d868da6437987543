//! The dead letter of a record that the target refused. It goes in the transaction that moves the committed offset past
//! that record.
//!
//! It has the refused record's key, value and headers, and behind these the headers below; those that Kafka Connect's
//! dead letters have as well are named as there. Its timestamp is the present time: the record's own may be what was
//! refused.

use std::fmt;

use bytes::BytesMut;
use edgelog_core::{EncodeError, HEADER_LEN, Header, Offset, RecordBatchBuilder, TimestampMs};

use crate::clients::dead_letter::DeadLetterHeaders;
use crate::kafka::Code;
use crate::{Record, TopicPartition};

pub(super) use crate::clients::dead_letter::TIMESTAMP_HEADER;

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

/// The batch that holds the dead letter of a record of `log`, meant for `target`.
pub(super) fn dead_letter(
    device: &str,
    log: &TopicPartition,
    target: &str,
    record: &Record<'_>,
    refusal: &Refusal,
    now: TimestampMs,
) -> Result<BytesMut, EncodeError> {
    let headers = DeadLetterHeaders::connect(log, record.offset, None, &refusal.reason)
        .with("edgelog.error.code", refusal.code.0.to_string())
        .with("edgelog.device", device)
        .with("edgelog.target", target)
        .with(TIMESTAMP_HEADER, record.timestamp.to_string());
    batch_of_one(now, record.key, record.value, &headers.behind(Some(record)))
}

/// A batch of the bridge's own with one record.
pub(super) fn batch_of_one(
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
