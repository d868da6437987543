//! Before the append lock: records become an encoded, compressed batch in the caller's own buffer, and a batch from
//! elsewhere is held to what those are.

use std::cell::{RefCell, RefMut};

use edgelog_core::{
    CompressionType, DecodeError, EncodeError, HEADER_LEN, NO_TIMESTAMP, RecordBatch, TimestampMs, TimestampType,
    encode_one, stamp_compressed,
};

use super::shared::LogShared;
use super::types::NewRecord;
use crate::codec;
use crate::error::{Error, Result};
use crate::sync::Ordering;
use crate::zeros;

/// What the path of every append hands up. An [`Error`] is three times as wide as an [`AppendInfo`]: by value, each
/// floor of the path would move the room of an error that is not there.
pub(super) type Outcome<T> = std::result::Result<T, Box<Error>>;

/// A thread keeps its encoding buffer up to this size.
const SCRATCH_KEPT_MAX: usize = 1 << 20;
/// Compressing less than this cannot pay: the smallest frame costs about as much.
const COMPRESS_BYTES_MIN: usize = 64;

/// A thread's own buffers: the encoded batch, and its compressed form.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) encoded: Vec<u8>,
    pub(super) compressed: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch { encoded: Vec::new(), compressed: Vec::new() }) };
}

/// Lends this thread's buffers, or new ones where they are in use (an append made by a log subscriber inside
/// an append).
#[inline]
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(scratch) => work(&mut Lent(scratch).0),
        Err(_) => work(&mut Scratch::default()),
    })
}

/// Lent buffers, which go back without what they grew to beyond the measure.
struct Lent<'a>(RefMut<'a, Scratch>);

impl Drop for Lent<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.encoded.capacity() > SCRATCH_KEPT_MAX || self.0.compressed.capacity() > SCRATCH_KEPT_MAX {
            *self.0 = Scratch::default();
        }
    }
}

/// Compresses an encoded batch into `out`; false where that does not make it smaller.
fn compress_batch(codec: CompressionType, batch: &[u8], out: &mut Vec<u8>) -> Result<bool> {
    out.clear();
    out.extend_from_slice(&batch[..HEADER_LEN]);
    codec::compress(codec, &batch[HEADER_LEN..], out)?;
    if out.len() >= batch.len() {
        return Ok(false);
    }
    stamp_compressed(out, codec);
    Ok(true)
}

impl LogShared {
    /// Holds a batch from elsewhere to what appends of our own are: its records decode, and their times are their
    /// makers'. Returns the greatest of these times, as Kafka's `LogValidator` computes it for each batch.
    pub(super) fn check_records(&self, batch: &RecordBatch<'_>) -> Result<TimestampMs> {
        let log_append_time = batch.timestamp_type() != TimestampType::CreateTime;
        if log_append_time || batch.is_transactional() {
            let attributes = batch.attributes();
            return Err(Error::InvalidRecord(DecodeError::UnsupportedAttributes { given: attributes }));
        }
        let mut buffer = self.pool.take();
        let records = match batch.compression() {
            CompressionType::None => batch.records().map_err(Error::InvalidRecord)?,
            codec => {
                codec::decompress(codec, batch.payload(), &mut buffer, self.decompressed_bytes_max)?;
                batch.records_in(&buffer)
            }
        };
        let mut max_timestamp = None;
        for record in records {
            let timestamp = record.map_err(Error::InvalidRecord)?.timestamp;
            max_timestamp = max_timestamp.max(Some(timestamp));
        }
        Ok(max_timestamp.unwrap_or(NO_TIMESTAMP))
    }

    /// Encodes one record as a batch, compressed as `compression.type` says.
    #[inline]
    pub(super) fn encode<'s>(
        &self,
        scratch: &'s mut Scratch,
        timestamp: TimestampMs,
        record: &NewRecord<'_>,
    ) -> Outcome<&'s mut [u8]> {
        let Scratch { encoded, compressed } = scratch;
        loop {
            match encode_one(encoded, timestamp, record.key, record.value, record.headers) {
                Ok(size) => {
                    let max = self.hot.batch_bytes_max.load(Ordering::Relaxed) as usize;
                    if size > max {
                        return Err(Error::RecordTooLarge { given: size, max }.into());
                    }
                    return self.compress(&mut encoded[..size], compressed);
                }
                Err(EncodeError::BufferTooSmall { needed, .. }) => self.grow(encoded, needed)?,
                Err(error) => return Err(Error::from(error).into()),
            }
        }
    }

    /// An encoded batch as it is appended: compressed, in `out`, where `compression.type` says so, that makes it
    /// smaller, and it can be decompressed again.
    #[inline]
    pub(super) fn compress<'s>(&self, batch: &'s mut [u8], out: &'s mut Vec<u8>) -> Outcome<&'s mut [u8]> {
        self.compress_with(self.compression(), batch, out)
    }

    /// As [`compress`](Self::compress), with the codec that the caller chose.
    #[inline]
    pub(super) fn compress_with<'s>(
        &self,
        codec: CompressionType,
        batch: &'s mut [u8],
        out: &'s mut Vec<u8>,
    ) -> Outcome<&'s mut [u8]> {
        let payload = batch.len() - HEADER_LEN;
        let pays = codec != CompressionType::None
            && (COMPRESS_BYTES_MIN..=self.decompressed_bytes_max).contains(&payload)
            && compress_batch(codec, batch, out)?;
        Ok(if pays { out } else { batch })
    }

    #[cold]
    fn grow(&self, buffer: &mut Vec<u8>, needed: usize) -> Result<()> {
        const BUFFER_BYTES_MIN: usize = 1 << 10;
        let max = self.hot.batch_bytes_max.load(Ordering::Relaxed) as usize;
        if needed > max {
            return Err(Error::RecordTooLarge { given: needed, max });
        }
        zeros::resize(buffer, needed.next_power_of_two().max(BUFFER_BYTES_MIN));
        Ok(())
    }
}
