//! A batch that a reader hands out, and its records. It keeps alive what it borrows.

use std::cell::OnceCell;
use std::sync::Arc;

use edgelog_core::{CompressionType, LeaderEpoch, Offset, Record, RecordBatch};

use crate::codec;
use crate::error::{Error, Result};
use crate::segment::{BufferPool, PooledBuffer};
use crate::storage::Lease;

/// A compressed batch may hold this many times its size, or ...
const DECOMPRESSED_RATIO_MAX: usize = 1024;
/// ... this much, whichever is less: what a reader allocates for one batch is bounded whatever its header
/// claims.
const DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// What the records of a compressed payload may take at most.
pub(super) fn decompressed_limit(payload_len: usize) -> usize {
    payload_len.saturating_mul(DECOMPRESSED_RATIO_MAX).min(DECOMPRESSED_BYTES_MAX)
}

/// A record batch, borrowed from its segment for as long as it lives.
#[derive(Debug)]
pub struct Batch {
    lease: Lease,
    /// Records below this offset were not asked for.
    from: Offset,
    leader_epoch: LeaderEpoch,
    /// Where a compressed batch gets its buffer.
    pool: Option<Arc<BufferPool>>,
    /// The decompressed records, once somebody asked.
    payload: OnceCell<PooledBuffer>,
}

impl Batch {
    /// The records of `lease`, one whole batch, from offset `from` on. A compressed one needs the pool.
    #[inline]
    pub(super) fn new(lease: Lease, from: Offset, leader_epoch: LeaderEpoch, pool: Option<Arc<BufferPool>>) -> Batch {
        Batch { lease, from, leader_epoch, pool, payload: OnceCell::new() }
    }

    /// The batch as Kafka's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.lease
    }

    /// Header fields and, where it is not compressed, records: the core's view.
    pub fn view(&self) -> RecordBatch<'_> {
        RecordBatch::parse(&self.lease).expect("the reader parsed these bytes, and they do not change")
    }

    /// Offset of the first record in the batch (which may lie before where the reader was asked to start).
    pub fn base_offset(&self) -> Offset {
        self.view().base_offset()
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.view().last_offset()
    }

    /// The leader epoch that the records were written in.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The records from where the reader was asked to start, in order. A compressed batch is decompressed on
    /// the first call, into a buffer of the reader's.
    ///
    /// # Errors
    /// [`Error::Compression`] where the codec is not built in or the compressed bytes do not decode. Each
    /// record's own error is given out in its place.
    pub fn records(&self) -> Result<Records<'_>> {
        let batch = self.view();
        let records = match batch.compression() {
            CompressionType::None => batch.records().map_err(Error::InvalidRecord)?,
            codec => batch.records_in(self.decompressed(codec, batch.payload())?),
        };
        Ok(Records { records, from: self.from })
    }

    fn decompressed(&self, codec: CompressionType, payload: &[u8]) -> Result<&[u8]> {
        if self.payload.get().is_none() {
            let limit = decompressed_limit(payload.len());
            let pool = self.pool.as_ref().expect("a compressed batch was given a pool");
            let mut buffer = pool.take();
            codec::decompress(codec, payload, &mut buffer, limit)?;
            let _ = self.payload.set(buffer);
        }
        Ok(self.payload.get().expect("set above"))
    }
}

/// Iterates over the records of one batch; see [`Batch::records`].
#[derive(Debug, Clone)]
pub struct Records<'a> {
    records: edgelog_core::Records<'a>,
    from: Offset,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Result<Record<'a>>> {
        loop {
            match self.records.next()? {
                Ok(record) if record.offset < self.from => {}
                Ok(record) => return Some(Ok(record)),
                Err(error) => return Some(Err(Error::InvalidRecord(error))),
            }
        }
    }
}
