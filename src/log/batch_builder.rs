//! Many records as one batch: what `batch.size` and `linger.ms` are to a producer, in the caller's own hands.

use std::sync::Arc;

use edgelog_core::{EncodeError, RecordBatchBuilder, TimestampMs};

use super::types::NewRecord;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::zeros;

/// Collects records that are appended together, as one record batch; see [`Log::batch`](crate::Log::batch).
///
/// Its buffer is kept from one append to the next: filling and appending batches of about the same size
/// allocates nothing.
#[derive(Debug)]
pub struct BatchBuilder {
    builder: RecordBatchBuilder<Vec<u8>>,
    bytes_max: usize,
    clock: Arc<dyn Clock>,
}

impl BatchBuilder {
    pub(crate) fn new(bytes_max: usize, clock: Arc<dyn Clock>) -> BatchBuilder {
        BatchBuilder { builder: RecordBatchBuilder::new(Vec::new()), bytes_max, clock }
    }

    /// Adds a record. One without a timestamp gets the time of this call.
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`] where the batch would exceed `max.message.bytes`; the batch is as it was.
    #[inline(always)]
    #[allow(clippy::inline_always)] // As `RecordBatchBuilder::append`, which it is around.
    pub fn push(&mut self, record: NewRecord<'_>) -> Result<()> {
        let timestamp = record.timestamp.unwrap_or_else(|| self.clock.now());
        match self.builder.append(timestamp, record.key, record.value, record.headers) {
            Ok(_) => Ok(()),
            // A copy, so that only this way needs the record in memory.
            Err(error) => self.push_with_room(error, NewRecord { timestamp: Some(timestamp), ..record }),
        }
    }

    /// Out of the way of the records that find room.
    #[cold]
    #[inline(never)]
    fn push_with_room(&mut self, error: EncodeError, record: NewRecord<'_>) -> Result<()> {
        self.make_room(error)?;
        self.push(record)
    }

    /// Lengthens the buffer, where that is what is lacking.
    fn make_room(&mut self, error: EncodeError) -> Result<()> {
        match error {
            EncodeError::BufferTooSmall { needed, .. } if needed <= self.bytes_max => {
                const BUFFER_BYTES_MIN: usize = 4 << 10;
                let len = needed.next_power_of_two().max(BUFFER_BYTES_MIN).min(self.bytes_max.max(needed));
                zeros::resize(self.builder.buffer_mut(), len);
                Ok(())
            }
            EncodeError::BufferTooSmall { needed, .. } => {
                Err(Error::RecordTooLarge { given: needed, max: self.bytes_max })
            }
            error => Err(error.into()),
        }
    }

    /// The time that a record without a timestamp would get now, in milliseconds since 1970.
    pub fn now(&self) -> TimestampMs {
        self.clock.now()
    }

    /// How many records it holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.builder.record_count() as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.builder.is_empty()
    }

    /// Bytes of the batch as it would be appended now, before compression.
    #[inline]
    pub fn size(&self) -> usize {
        self.builder.size()
    }

    /// Forgets the records and keeps the buffer.
    pub fn clear(&mut self) {
        self.builder.clear();
    }

    /// Lets the batch grow up to so many bytes from now on.
    #[inline]
    pub(crate) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Marks the batch as a numbered producer's, until it is cleared.
    pub(crate) fn set_producer(&mut self, id: i64, epoch: i16, base_sequence: i32) {
        self.builder.set_producer(id, epoch, base_sequence);
    }

    /// Completes header and CRC; `None` where there is no record.
    #[inline]
    pub(crate) fn finish(&mut self) -> Option<i32> {
        if self.builder.is_empty() {
            return None;
        }
        self.builder.finish();
        Some(self.builder.record_count() - 1)
    }

    #[inline]
    pub(crate) fn max_timestamp(&self) -> TimestampMs {
        self.builder.max_timestamp()
    }

    /// The finished batch.
    #[inline]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        let size = self.builder.size();
        &mut self.builder.buffer_mut()[..size]
    }
}
