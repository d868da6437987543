//! The records of one batch, decompressed into a buffer that is used again.

use edgelog_core::{CompressionType, DecodeError, NO_TIMESTAMP, RecordBatch, Records, TimestampMs, TimestampType};

use crate::codec::{self, CodecError};

/// A payload may become so many times as long, or ...
const DECOMPRESSED_RATIO_MAX: usize = 1024;
/// ... this long, whichever is less.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;
/// A buffer that grew beyond this is let go of.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// What the records of a batch whose CRC holds came to.
#[derive(Debug)]
pub(super) enum RecordsFault {
    /// This build has no decoder for them.
    NotBuiltIn(CodecError),
    Codec(CodecError),
    Record(DecodeError),
}

impl std::fmt::Display for RecordsFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordsFault::NotBuiltIn(error) | RecordsFault::Codec(error) => write!(f, "{error}"),
            RecordsFault::Record(error) => write!(f, "{error}"),
        }
    }
}

/// Decompresses payloads, one at a time.
#[derive(Debug, Default)]
pub(super) struct Decompressor {
    buffer: Vec<u8>,
}

impl Decompressor {
    /// The records of `batch`.
    pub(super) fn records<'a>(&'a mut self, batch: &RecordBatch<'a>) -> Result<Records<'a>, RecordsFault> {
        let codec = batch.compression();
        if codec == CompressionType::None {
            return batch.records().map_err(RecordsFault::Record);
        }
        if self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        let payload = batch.payload();
        let limit = payload.len().saturating_mul(DECOMPRESSED_RATIO_MAX).min(DECOMPRESSED_BYTES_MAX);
        match codec::decompress(codec, payload, &mut self.buffer, limit) {
            Ok(()) => Ok(batch.records_in(&self.buffer)),
            Err(error @ CodecError::NotBuiltIn { .. }) => Err(RecordsFault::NotBuiltIn(error)),
            Err(error) => Err(RecordsFault::Codec(error)),
        }
    }

    /// How long the records of `batch` are, decompressed; it was the last one looked at.
    pub(super) fn payload_len(&self, batch: &RecordBatch<'_>) -> usize {
        if batch.compression() == CompressionType::None { batch.payload().len() } else { self.buffer.len() }
    }

    /// Looks at every record; returns how many there are and the largest timestamp among them.
    pub(super) fn check(&mut self, batch: &RecordBatch<'_>) -> Result<(u64, TimestampMs), RecordsFault> {
        let append_time = batch.timestamp_type() == TimestampType::LogAppendTime;
        let (mut count, mut largest) = (0, if append_time { batch.max_timestamp() } else { NO_TIMESTAMP });
        for record in self.records(batch)? {
            let record = record.map_err(RecordsFault::Record)?;
            count += 1;
            largest = largest.max(record.timestamp);
        }
        Ok((count, largest))
    }
}
