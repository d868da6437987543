//! The records of one batch, decompressed into a buffer that is used again.

use edgelog_core::config::StoreConfig;
use edgelog_core::{CompressionType, DecodeError, NO_TIMESTAMP, RecordBatch, Records, TimestampMs, TimestampType};

use crate::codec::{self, CodecError};

/// A buffer that grew beyond this is let go of.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// What the records of a batch whose CRC holds came to.
#[derive(Debug)]
pub(crate) enum RecordsFault {
    /// Another build, a higher limit or more memory may read them: no damage.
    NotDecompressed(CodecError),
    Codec(CodecError),
    Record(DecodeError),
    /// A transaction's marker: no reader gives it out, and none loses a record by it.
    Marker(String),
}

impl RecordsFault {
    pub(crate) fn is_damage(&self) -> bool {
        !matches!(self, RecordsFault::NotDecompressed(_) | RecordsFault::Marker(_))
    }
}

impl std::fmt::Display for RecordsFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordsFault::NotDecompressed(error) | RecordsFault::Codec(error) => write!(f, "{error}"),
            RecordsFault::Record(error) => write!(f, "{error}"),
            RecordsFault::Marker(why) => write!(f, "a transaction's marker cannot be decoded: {why}"),
        }
    }
}

impl From<CodecError> for RecordsFault {
    fn from(error: CodecError) -> RecordsFault {
        if error.is_corrupt() { RecordsFault::Codec(error) } else { RecordsFault::NotDecompressed(error) }
    }
}

/// Decompresses payloads, one at a time, each to `edgelog.decompressed.bytes.max` at most.
#[derive(Debug)]
pub(crate) struct Decompressor {
    buffer: Vec<u8>,
    bytes_max: usize,
}

impl Default for Decompressor {
    fn default() -> Decompressor {
        Decompressor::new(StoreConfig::default().decompressed_bytes_max)
    }
}

impl Decompressor {
    /// With `bytes_max` in place of the default.
    pub(crate) fn new(bytes_max: u32) -> Decompressor {
        Decompressor { buffer: Vec::new(), bytes_max: bytes_max as usize }
    }

    /// The records of `batch`.
    pub(crate) fn records<'a>(&'a mut self, batch: &RecordBatch<'a>) -> Result<Records<'a>, RecordsFault> {
        if self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        match batch.compression() {
            _ if batch.record_count() == 0 => Ok(batch.records_in(&[])),
            CompressionType::None => batch.records().map_err(RecordsFault::Record),
            codec => {
                codec::decompress(codec, batch.payload(), &mut self.buffer, self.bytes_max)?;
                Ok(batch.records_in(&self.buffer))
            }
        }
    }

    /// How long the records of `batch` are, decompressed; it was the last one looked at.
    pub(crate) fn payload_len(&self, batch: &RecordBatch<'_>) -> usize {
        if batch.compression() == CompressionType::None { batch.payload().len() } else { self.buffer.len() }
    }

    /// Looks at every record; returns how many there are and the largest timestamp among them.
    pub(crate) fn check(&mut self, batch: &RecordBatch<'_>) -> Result<(u64, TimestampMs), RecordsFault> {
        match self.check_records(batch) {
            Err(fault) if batch.is_control() && fault.is_damage() => Err(RecordsFault::Marker(fault.to_string())),
            checked => checked,
        }
    }

    fn check_records(&mut self, batch: &RecordBatch<'_>) -> Result<(u64, TimestampMs), RecordsFault> {
        let append_time = batch.timestamp_type() == TimestampType::LogAppendTime;
        let (mut count, mut largest) = (0, if append_time { batch.max_timestamp() } else { TimestampMs::MIN });
        for record in self.records(batch)? {
            let record = record.map_err(RecordsFault::Record)?;
            count += 1;
            largest = largest.max(record.timestamp);
        }
        Ok((count, if count > 0 { largest } else { NO_TIMESTAMP }))
    }
}
