//! Walks the batches of segments by borrowing a stretch at a time: lent by the map where it can, copied where
//! not.

use std::ops::Deref;
use std::sync::Arc;

use edgelog_core::{DecodeError, HEADER_LEN, Offset, Position, RecordBatch, SegmentBytes, follows};

use super::{BufferPool, PooledBuffer, Segment};
use crate::error::{DamageKind, Error, Result};
use crate::storage::Lease;
use crate::zeros;

/// The first stretch after a jump; each following one is twice as long.
const STRETCH_BYTES_MIN: usize = 16 << 10;
/// Stretches grow up to this: long enough to forget the cost of borrowing, short enough to stay in a cache.
const STRETCH_BYTES_MAX: usize = 256 << 10;

/// A borrowed stretch of one segment, moved along as its user reads on.
#[derive(Debug)]
pub(crate) struct Cursor {
    pool: Arc<BufferPool>,
    stretch: Option<Stretch>,
    stretch_len: usize,
}

#[derive(Debug)]
struct Stretch {
    lease: Lease,
    base_offset: Offset,
    position: Position,
    /// A batch of it was given out.
    is_lent: bool,
    /// What the batches that were given out of it share, from the second one on.
    loan: Option<Arc<Loan>>,
}

/// A borrowed stretch and the segment that it is of, kept by the batches in it: one count for both, since each batch
/// that is read alone pays for its counts.
#[derive(Debug)]
pub(crate) struct Loan {
    lease: Lease,
    segment: Arc<Segment>,
    position: Position,
}

/// The bytes of one batch, borrowed, and where they stand.
#[derive(Debug)]
pub(crate) struct BatchBytes {
    lent: LentBatch,
    position: Position,
    size: usize,
}

#[derive(Debug)]
enum LentBatch {
    /// The first of its stretch, and for a reader that follows an appender the only one: nothing is allocated for it.
    Alone(Lease, Arc<Segment>),
    Shared(Arc<Loan>),
}

impl BatchBytes {
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        match &self.lent {
            LentBatch::Alone(_, segment) => segment,
            LentBatch::Shared(loan) => &loan.segment,
        }
    }

    /// The first byte's place in the segment.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// How many there are, without a look at them.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

impl Deref for BatchBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.lent {
            LentBatch::Alone(lease, _) => lease,
            LentBatch::Shared(loan) => {
                let start = (self.position - loan.position) as usize;
                &loan.lease[start..start + self.size]
            }
        }
    }
}

impl Stretch {
    #[cold]
    fn lend_to_batches(&mut self, segment: &Arc<Segment>) -> Arc<Loan> {
        let loan = Loan { lease: self.lease.clone(), segment: Arc::clone(segment), position: self.position };
        Arc::clone(self.loan.insert(Arc::new(loan)))
    }
}

impl Cursor {
    pub(crate) fn new(pool: &Arc<BufferPool>) -> Cursor {
        Cursor { pool: Arc::clone(pool), stretch: None, stretch_len: STRETCH_BYTES_MIN }
    }

    /// Lets go of what is borrowed.
    pub(crate) fn release(&mut self) {
        self.stretch = None;
        self.stretch_len = STRETCH_BYTES_MIN;
    }

    /// The batch at `position` below `end`, framed but not yet checked against its CRC.
    ///
    /// The outer error is the file's, the inner one says what is wrong with the bytes.
    #[inline]
    pub(crate) fn batch(
        &mut self,
        segment: &Segment,
        position: Position,
        end: Position,
    ) -> Result<std::result::Result<RecordBatch<'_>, DecodeError>> {
        let available = (end - position) as usize;
        let head = self.bytes(segment, position, end, HEADER_LEN)?;
        let needed = match RecordBatch::peek_size(head) {
            // Nearly every batch. What else is wrong with it is judged once, below.
            Ok(size) if size <= available.min(STRETCH_BYTES_MIN) => size,
            // Before so much is read, the whole header has to hold.
            _ => match RecordBatch::parse(head) {
                Ok(batch) => batch.size(),
                Err(DecodeError::Truncated { needed, .. }) if needed <= available => needed,
                Err(error) => return Ok(Err(error)),
            },
        };
        Ok(RecordBatch::parse(self.bytes(segment, position, end, needed)?))
    }

    /// Hops over the batches from `position` on that end at or before `target`, as long as each follows the one
    /// before (at `expected`, where that is known): at once where the log is `contiguous`, else anywhere behind.
    /// Returns where it stopped, which offset is to follow there, and where the last batch stands that it passed over.
    ///
    /// What is odd is left for [`batch`](Cursor::batch) to look at.
    pub(crate) fn hop(
        &mut self,
        segment: &Segment,
        mut position: Position,
        end: Position,
        mut expected: Option<Offset>,
        target: Offset,
        contiguous: bool,
    ) -> Result<(Position, Option<Offset>, Position)> {
        let mut last = position;
        loop {
            let bytes = self.bytes(segment, position, end, HEADER_LEN)?;
            let mut from = 0;
            while let Ok(batch) = RecordBatch::parse(&bytes[from..]) {
                if batch.next_offset() > target || !follows(expected, batch.base_offset(), contiguous) {
                    return Ok((position + from as u32, expected, last));
                }
                expected = Some(batch.next_offset());
                last = position + from as u32;
                from += batch.size();
            }
            position += from as u32;
            if from == 0 || position >= end {
                return Ok((position, expected, last));
            }
        }
    }

    /// The bytes of the batch that [`batch`](Cursor::batch) found there, for as long as they are wanted.
    #[inline]
    pub(crate) fn keep(&mut self, segment: &Arc<Segment>, position: Position, size: usize) -> BatchBytes {
        let stretch = self.stretch.as_mut().expect("a batch was found in it");
        debug_assert!(stretch.base_offset == segment.base_offset && stretch.position <= position);
        let lent = match &stretch.loan {
            Some(loan) => LentBatch::Shared(Arc::clone(loan)),
            None if stretch.is_lent => LentBatch::Shared(stretch.lend_to_batches(segment)),
            None => {
                stretch.is_lent = true;
                let start = (position - stretch.position) as usize;
                LentBatch::Alone(stretch.lease.slice(start..start + size), Arc::clone(segment))
            }
        };
        BatchBytes { lent, position, size }
    }

    /// As [`keep`](Self::keep), a copy with the base offset that the batch is known to have.
    #[cold]
    pub(crate) fn keep_at(
        &self,
        segment: &Arc<Segment>,
        position: Position,
        size: usize,
        base_offset: Offset,
    ) -> BatchBytes {
        let stretch = self.stretch.as_ref().expect("a batch was found in it");
        let start = (position - stretch.position) as usize;
        let mut copy: PooledBuffer = self.pool.take();
        zeros::resize(&mut copy, size);
        copy.copy_from_slice(&stretch.lease[start..start + size]);
        copy[..8].copy_from_slice(&base_offset.0.to_be_bytes());
        let lent = LentBatch::Alone(Lease::new(Arc::new(copy), 0..size), Arc::clone(segment));
        BatchBytes { lent, position, size }
    }

    /// Bytes from `position` on, at least `wanted` of them where there are as many below `end`.
    #[inline]
    pub(crate) fn bytes(
        &mut self,
        segment: &Segment,
        position: Position,
        end: Position,
        wanted: usize,
    ) -> Result<&[u8]> {
        let wanted = wanted.min((end - position) as usize);
        let covered = self.stretch.as_ref().is_some_and(|s| {
            s.base_offset == segment.base_offset
                && s.position <= position
                && position.0 as usize + wanted <= s.position.0 as usize + s.lease.len()
        });
        if !covered {
            self.borrow(segment, position, end, wanted)?;
        }
        let stretch = self.stretch.as_ref().expect("just borrowed");
        Ok(&stretch.lease[(position - stretch.position) as usize..])
    }

    #[cold]
    fn borrow(&mut self, segment: &Segment, position: Position, end: Position, wanted: usize) -> Result<()> {
        let follows_on = self.stretch.as_ref().is_some_and(|s| {
            s.base_offset == segment.base_offset && position.0 as usize <= s.position.0 as usize + s.lease.len()
        });
        self.stretch_len = if follows_on { (self.stretch_len * 2).min(STRETCH_BYTES_MAX) } else { STRETCH_BYTES_MIN };
        self.stretch = None;
        let available = (end - position) as usize;
        let generous = self.stretch_len.max(wanted).min(available);
        let lease = match Self::lend(segment, position, generous, wanted)? {
            Some(lease) => lease,
            None => self.copy(segment, position, generous, wanted)?,
        };
        self.stretch = Some(Stretch { lease, base_offset: segment.base_offset, position, is_lent: false, loan: None });
        Ok(())
    }

    fn lend(segment: &Segment, position: Position, generous: usize, wanted: usize) -> Result<Option<Lease>> {
        let file = segment.file()?;
        let unreadable = |e| unreadable(segment, position, e);
        if let Some(lease) = file.lend(u64::from(position), generous).map_err(unreadable)? {
            return Ok(Some(lease));
        }
        // A long stretch may cross a map window where the one batch does not.
        if wanted < generous { file.lend(u64::from(position), wanted).map_err(unreadable) } else { Ok(None) }
    }

    fn copy(&self, segment: &Segment, position: Position, generous: usize, wanted: usize) -> Result<Lease> {
        let mut buffer: PooledBuffer = self.pool.take();
        zeros::resize(&mut buffer, generous);
        let read =
            segment.file()?.read_at(&mut buffer, u64::from(position)).map_err(|e| unreadable(segment, position, e))?;
        buffer.truncate(read);
        if read < wanted {
            // The file is shorter than what was published of it: another program has cut it.
            let shorter = DecodeError::Truncated { needed: wanted, available: read };
            return Err(damage(segment, position, DamageKind::Batch(shorter)));
        }
        Ok(Lease::new(Arc::new(buffer), 0..read))
    }
}

/// The bytes of a segment below `end`, as a cursor lends them. What cannot be read is asked for once more, and then not
/// lent.
pub(crate) struct Lent<'a> {
    pub(crate) cursor: &'a mut Cursor,
    pub(crate) segment: &'a Segment,
    pub(crate) end: Position,
}

impl SegmentBytes for Lent<'_> {
    fn end(&self) -> u64 {
        u64::from(self.end)
    }

    fn at(&mut self, position: u64, wanted: usize) -> &[u8] {
        let Some(position) = u32::try_from(position).ok().map(Position).filter(|&position| position < self.end) else {
            return &[];
        };
        if self.cursor.bytes(self.segment, position, self.end, wanted).is_err() {
            // Behind what a device refuses once, a log would end for good.
            self.cursor.release();
        }
        self.cursor.bytes(self.segment, position, self.end, wanted).unwrap_or_default()
    }

    fn names_end(&mut self, end: Offset, is_last: bool) -> bool {
        self.segment.named_ends(is_last).has(end)
    }
}

fn unreadable(segment: &Segment, position: Position, source: std::io::Error) -> Error {
    if source.kind() == std::io::ErrorKind::NotFound {
        // Retention took the file, which the storage had closed meanwhile and opens to read it.
        return Error::storage("open", &segment.path())(source);
    }
    damage(segment, position, DamageKind::Unreadable(source))
}

/// Damage in `segment`; the caller, who knows it, puts the offset in.
pub(crate) fn damage(segment: &Segment, position: Position, source: DamageKind) -> Error {
    Error::CorruptRecord { file: segment.path(), position, offset: segment.base_offset, source }
}
