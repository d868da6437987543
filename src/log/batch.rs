//! A batch that a reader hands out, and its records. It keeps alive what it borrows.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use edgelog_core::{CompressionType, LeaderEpoch, Offset, Position, Record, RecordBatch, RecordsMark};

use crate::codec::{self, CodecError};
use crate::error::{DamageKind, Error, Result};
use crate::segment::{BatchBytes, BufferPool, PooledBuffer, Segment};

/// A record batch, borrowed from its segment for as long as it lives.
#[derive(Debug)]
pub struct Batch {
    bytes: BatchBytes,
    base_offset: Offset,
    last_offset: Offset,
    /// Records outside of these offsets were not asked for, or are the next segment's.
    asked: Range<Offset>,
    leader_epoch: LeaderEpoch,
    /// Where a compressed batch gets its buffer, and the bytes that it may take.
    pool: Option<(Arc<BufferPool>, usize)>,
    /// The decompressed records, once they were asked for.
    payload: OnceLock<PooledBuffer>,
}

impl Batch {
    /// The batch of these offsets that `bytes` is, with its records of the offsets `asked`. A compressed one needs the
    /// pool.
    #[inline]
    pub(super) fn new(
        bytes: BatchBytes,
        (base_offset, last_offset): (Offset, Offset),
        asked: Range<Offset>,
        leader_epoch: LeaderEpoch,
        pool: Option<(Arc<BufferPool>, usize)>,
    ) -> Batch {
        Batch { bytes, base_offset, last_offset, asked, leader_epoch, pool, payload: OnceLock::new() }
    }

    /// The batch as Kafka's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Header fields and, where it is not compressed, records: the core's view.
    pub fn view(&self) -> RecordBatch<'_> {
        RecordBatch::parse(&self.bytes).expect("the reader parsed these bytes, and they do not change")
    }

    /// Offset of the first record in the batch (which may lie before where the reader was asked to start).
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> Offset {
        self.last_offset
    }

    /// The segment and the byte in it where the batch stands.
    pub(super) fn stands_at(&self) -> (Arc<Segment>, Position) {
        (Arc::clone(self.bytes.segment()), self.bytes.position())
    }

    /// Offset of the first record that was asked for.
    pub(crate) fn first_asked_for(&self) -> Offset {
        self.asked.start.max(self.base_offset())
    }

    /// The leader epoch that the records were written in.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// The records from where the reader was asked to start, in order. A compressed batch is decompressed on
    /// the first call, into a buffer of the reader's.
    ///
    /// # Errors
    /// [`Error::CorruptBatch`] where the payload is not what its codec writes. [`Error::NotDecompressed`] where it may
    /// well be sound: the codec is not built in, more than `edgelog.decompressed.bytes.max` comes out, or the system
    /// has no memory for it. Each record's own error ([`Error::CorruptBatch`]) is given out in its place. The reader
    /// stands behind the batch already and goes on.
    #[inline]
    pub fn records(&self) -> Result<Records<'_>> {
        let batch = self.view();
        let inner = match batch.compression() {
            // Of a batch without records the payload is not looked at.
            _ if batch.record_count() == 0 => batch.records_in(&[]),
            CompressionType::None => batch.records_in(batch.payload()),
            codec => batch.records_in(self.decompressed(codec, batch.payload())?),
        };
        Ok(Records { inner, asked: self.asked.clone(), place: self.place() })
    }

    /// The records' bytes, before compression; all of them, also those before the offset asked for.
    ///
    /// # Errors
    /// As [`records`](Self::records), but for the records' own.
    #[cfg(feature = "bridge")]
    pub(crate) fn decompressed_payload(&self) -> Result<&[u8]> {
        let batch = self.view();
        match batch.compression() {
            CompressionType::None => Ok(batch.payload()),
            codec => self.decompressed(codec, batch.payload()),
        }
    }

    fn decompressed(&self, codec: CompressionType, payload: &[u8]) -> Result<&[u8]> {
        if self.payload.get().is_none() {
            let (pool, limit) = self.pool.as_ref().expect("a compressed batch was given a pool");
            let mut buffer = pool.take();
            codec::decompress(codec, payload, &mut buffer, *limit).map_err(|error| self.not_decompressed(error))?;
            let _ = self.payload.set(buffer);
        }
        Ok(self.payload.get().expect("set above"))
    }

    #[inline]
    fn place(&self) -> Place<'_> {
        let Batch { base_offset, last_offset, .. } = *self;
        Place { segment: self.bytes.segment(), position: self.bytes.position(), base_offset, last_offset }
    }

    #[cold]
    fn not_decompressed(&self, error: CodecError) -> Error {
        let place = self.place();
        if error.is_corrupt() {
            return place.corrupt(error.into());
        }
        Error::NotDecompressed {
            file: place.segment.path(),
            position: place.position,
            base_offset: place.base_offset,
            last_offset: place.last_offset,
            source: error,
        }
    }
}

/// Where a batch stands and which offsets it has. Points at nothing that moves with the batch.
#[derive(Debug, Clone)]
struct Place<'a> {
    segment: &'a Segment,
    position: Position,
    base_offset: Offset,
    last_offset: Offset,
}

impl Place<'_> {
    #[cold]
    fn corrupt(&self, source: DamageKind) -> Error {
        Error::CorruptBatch {
            file: self.segment.path(),
            position: self.position,
            base_offset: self.base_offset,
            last_offset: self.last_offset,
            source,
        }
    }
}

/// Iterates over the records of one batch; see [`Batch::records`].
#[derive(Debug, Clone)]
pub struct Records<'a> {
    inner: edgelog_core::Records<'a>,
    asked: Range<Offset>,
    place: Place<'a>,
}

impl Records<'_> {
    /// Where this stands now, for other records of the same batch.
    #[inline]
    pub(crate) fn mark(&self) -> RecordsMark {
        self.inner.mark()
    }

    /// Goes on from a mark of the same batch.
    #[inline]
    pub(crate) fn skip_to(&mut self, mark: RecordsMark) {
        self.inner.skip_to(mark);
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Result<Record<'a>>> {
        loop {
            match self.inner.next()? {
                Ok(record) if !self.asked.contains(&record.offset) => {}
                Ok(record) => return Some(Ok(record)),
                Err(error) => return Some(Err(self.place.corrupt(error.into()))),
            }
        }
    }
}
