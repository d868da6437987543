//! The read path, top to bottom: bound, segment, index, batch headers, CRC, a batch that keeps alive what it
//! borrows.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::config::IsolationLevel;
use edgelog_core::{
    Candidate, CompressionType, Continuation, DecodeError, Effort, HEADER_LEN, LeaderEpoch, Offset, OffsetAndEpoch,
    Position, Standing, TimestampMs, follows,
};

use super::batch::Batch;
use super::handle::Log;
use super::origin::Origin;
use super::shared::{LogShared, is_gone};
use super::signal::Signal;
use super::transactions::Stable;
use super::types::{OffsetSpec, ReadUpTo};
use crate::error::{DamageKind, Error, Result};
use crate::segment::{Cursor, Lent, Resynced, Segment};
use crate::sync::Ordering;

/// How a reader reads.
///
/// ```
/// # use edgelog::{ReadUpTo, ReaderOptions};
/// let options = ReaderOptions::default().up_to(ReadUpTo::Durable).check_crcs(false);
/// # assert!(!options.check_crcs);
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ReaderOptions {
    /// How far it may read.
    pub up_to: ReadUpTo,
    /// Whether each batch's CRC-32C is checked before it is handed out (`check.crcs`, default true).
    pub check_crcs: bool,
    /// Whether records of aborted transactions are left out (`isolation.level`, default `read_uncommitted`).
    pub isolation: IsolationLevel,
}

impl Default for ReaderOptions {
    fn default() -> ReaderOptions {
        ReaderOptions { up_to: ReadUpTo::HighWatermark, check_crcs: true, isolation: IsolationLevel::ReadUncommitted }
    }
}

impl ReaderOptions {
    /// The same, reading up to there.
    #[must_use]
    pub fn up_to(self, up_to: ReadUpTo) -> ReaderOptions {
        ReaderOptions { up_to, ..self }
    }

    /// The same, with each batch's CRC-32C checked or not.
    #[must_use]
    pub fn check_crcs(self, check_crcs: bool) -> ReaderOptions {
        ReaderOptions { check_crcs, ..self }
    }

    /// The same, with or without the records of aborted transactions.
    #[must_use]
    pub fn isolation(self, isolation: IsolationLevel) -> ReaderOptions {
        ReaderOptions { isolation, ..self }
    }
}

impl Log {
    /// A reader that begins where `from` says and stops at the high watermark.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] where the log does not hold that position, [`Error::FencedLeaderEpoch`]
    /// where its history was taken back, and what reading a file can answer.
    pub fn reader(&self, from: OffsetSpec) -> Result<Reader> {
        self.reader_with(from, self.reader_options())
    }

    /// The options of a reader that names none: up to the high watermark, the others as the store's keys say.
    pub fn reader_options(&self) -> ReaderOptions {
        ReaderOptions {
            up_to: ReadUpTo::HighWatermark,
            check_crcs: self.shared.hot.check_crcs.load(Ordering::Relaxed),
            isolation: self.shared.isolation_level,
        }
    }

    /// A reader with its own options. See [`reader`](Log::reader).
    ///
    /// # Errors
    /// As [`reader`](Log::reader).
    pub fn reader_with(&self, from: OffsetSpec, options: ReaderOptions) -> Result<Reader> {
        self.shared.check_alive()?;
        self.shared.refresh()?;
        let mut reader = Reader::new(Arc::clone(&self.shared), options);
        reader.seek(from)?;
        Ok(reader)
    }

    /// Whether a position that was handed out before still names the same history here.
    #[cfg(feature = "bridge")]
    pub(crate) fn check_position(&self, at: OffsetAndEpoch) -> Result<()> {
        self.shared.check_epoch(at)
    }

    /// The offset of the first record whose timestamp (milliseconds since 1970) is `timestamp` or later, as
    /// Kafka's `offsetsForTimes`; `None` where there is none.
    ///
    /// # Errors
    /// What reading a file can answer.
    pub fn offset_for_time(&self, timestamp: TimestampMs) -> Result<Option<OffsetAndEpoch>> {
        self.shared.check_alive()?;
        self.shared.refresh()?;
        self.shared.notice_retention()?;
        self.shared.offset_for_time(timestamp)
    }
}

/// Reads a log from one position on, batch by batch, without copying where the storage maps files.
///
/// # Concurrency
/// A reader belongs to one thread at a time; any number of readers may read one log. Batches it gave out stay
/// valid after it is gone.
#[derive(Debug)]
pub struct Reader {
    log: Arc<LogShared>,
    options: ReaderOptions,
    /// Where a reader of committed records stops; `None` where nothing is left out.
    stable: Option<Stable>,
    /// Control batches are given out too.
    has_control: bool,
    /// Offset of the next record to give out.
    position: Offset,
    /// Epoch of the last batch given out, or the one that the position came with.
    epoch: Option<LeaderEpoch>,
    /// The segment and place in it where the batch that holds `position` is looked for.
    place: Option<Place>,
    cursor: Cursor,
    generation: u64,
    /// Base offsets are contiguous: the log was written here.
    contiguous: bool,
    /// The epoch that the log's table gives for `epoch_range`, kept from batch to batch.
    table_epoch: Option<LeaderEpoch>,
    epoch_range: Range<Offset>,
    /// Where damage was met: reading stays there until `skip_damage` or `seek`.
    damage: Option<Place>,
    /// Segment and position from where on batches were hopped over by their headers alone.
    hopped_from: Option<(Offset, Position)>,
    /// What is polled in the place of waiting, once somebody asked for it.
    signal: Option<Signal>,
}

#[derive(Debug, Clone)]
struct Place {
    segment: Arc<Segment>,
    position: Position,
    /// The base offset that must stand here, where it is known.
    expected: Option<Offset>,
}

impl Place {
    fn at_start(segment: Arc<Segment>) -> Place {
        let expected = Some(segment.base_offset);
        Place { segment, position: Position(0), expected }
    }
}

/// Offsets that damage has taken, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRange {
    /// First offset that could not be read.
    pub first_offset: Offset,
    /// First offset that can be read again.
    pub next_offset: Offset,
    /// The segment file, relative to the data directory.
    pub file: String,
    /// First damaged byte in it.
    pub position: Position,
    /// First byte behind that is good again; `None` where that is in a later segment.
    pub resumes_at: Option<Position>,
    /// Where the search for good batches gave up because its effort was spent: bytes from here on were not
    /// looked at.
    pub unread_from: Option<Position>,
}

impl Reader {
    pub(super) fn new(log: Arc<LogShared>, options: ReaderOptions) -> Reader {
        let cursor = Cursor::new(&log.pool);
        let generation = log.generation.load(Ordering::Acquire);
        let contiguous = log.origin() == Origin::Own;
        let leaves_out = options.isolation == IsolationLevel::ReadCommitted && log.may_have_transactions();
        Reader {
            log,
            options,
            stable: leaves_out.then(Stable::default),
            has_control: false,
            position: Offset(0),
            epoch: None,
            place: None,
            cursor,
            generation,
            contiguous,
            table_epoch: None,
            epoch_range: Offset(0)..Offset(0),
            damage: None,
            hopped_from: None,
            signal: None,
        }
    }

    /// One that gives out control batches too.
    pub(super) fn over_everything(log: Arc<LogShared>, options: ReaderOptions) -> Reader {
        Reader { has_control: true, ..Reader::new(log, options) }
    }

    /// Where the reader stands: the next record's offset, with the epoch of the last record read.
    pub fn position(&self) -> OffsetAndEpoch {
        let epoch = self.epoch.unwrap_or_else(|| self.log.epoch_before(self.position));
        OffsetAndEpoch { offset: self.position, leader_epoch: epoch }
    }

    /// Records between the reader and the end of what it may read.
    pub fn lag(&self) -> u64 {
        u64::try_from(self.bound() - self.position).unwrap_or(0)
    }

    /// Goes elsewhere in the log.
    ///
    /// # Errors
    /// As [`Log::reader`]; the reader then stands where it stood.
    pub fn seek(&mut self, to: OffsetSpec) -> Result<()> {
        self.log.notice_retention()?;
        self.learn_stable_end()?;
        let start = self.log.log_start_offset.load(Ordering::Acquire);
        let bound = self.bound();
        let end = self.log.log_end_offset.load(Ordering::Acquire);
        let (offset, epoch) = match to {
            OffsetSpec::Earliest => (start, None),
            OffsetSpec::Latest => (bound, None),
            OffsetSpec::Offset(offset) => (offset, None),
            OffsetSpec::Position(at) => {
                self.log.check_epoch(at)?;
                (at.offset, Some(at.leader_epoch))
            }
            OffsetSpec::Timestamp(timestamp) => {
                (self.log.offset_for_time(timestamp)?.map_or(bound, |found| found.offset.min(bound)), None)
            }
            OffsetSpec::Last(count) => (self.log.offset_of_last(count, start, bound)?, None),
        };
        if offset < start || offset > end {
            return Err(Error::OffsetOutOfRange { requested: offset, log_start_offset: start, log_end_offset: end });
        }
        (self.position, self.epoch, self.place, self.damage) = (offset, epoch, None, None);
        self.generation = self.log.generation.load(Ordering::Acquire);
        self.cursor.release();
        Ok(())
    }

    /// The next batch with records at or behind the reader's position, or `None` at the end of what it may
    /// read.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`] where the bytes there are damaged: the reader stays, and
    /// [`skip_damage`](Reader::skip_damage) goes on behind. [`Error::OffsetOutOfRange`] where retention
    /// has taken the position, [`Error::FencedLeaderEpoch`] where its history was taken back.
    #[inline]
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        loop {
            if self.position >= self.bound() && !self.at_end_of_bound()? {
                if !self.has_more_after_arming()? {
                    return Ok(None);
                }
                if self.stable.is_some() {
                    continue;
                }
            }
            if self.generation != self.log.generation.load(Ordering::Acquire) {
                self.look_again()?;
            }
            match self.step() {
                Ok(Step::Batch(batch)) if self.stable.is_some() && self.log.is_aborted(&batch) => {}
                Ok(Step::Batch(batch)) => return Ok(Some(batch)),
                Ok(Step::Moved) => {}
                Ok(Step::End) if self.has_more_after_arming()? => {}
                Ok(Step::End) => return Ok(None),
                Err(error) => self.mend(error)?,
            }
        }
    }

    /// As [`next_batch`](Reader::next_batch), but waits for one up to `timeout`.
    ///
    /// In an attached process, which cannot be woken by the writer, the wait looks every 1 to 50 ms.
    ///
    /// # Errors
    /// As [`next_batch`](Reader::next_batch).
    pub fn next_batch_timeout(&mut self, timeout: Duration) -> Result<Option<Batch>> {
        // A timeout beyond the clock's range is no deadline at all.
        self.next_batch_deadline(Instant::now().checked_add(timeout))
    }

    fn next_batch_deadline(&mut self, deadline: Option<Instant>) -> Result<Option<Batch>> {
        loop {
            if let Some(batch) = self.next_batch()? {
                return Ok(Some(batch));
            }
            let (log, position, up_to) = (Arc::clone(&self.log), self.waits_at(), self.options.up_to);
            if !log.wait_beyond(position, up_to, deadline)? {
                return self.next_batch();
            }
        }
    }

    /// A descriptor for `poll`, `epoll` and the like, which stays the reader's: readable from now on whenever
    /// [`next_batch`](Reader::next_batch) may have something to say (a batch, an error, a closed log), until
    /// that answers `None`. Poll it and do not read it.
    ///
    /// It is an `eventfd` that appenders write to once for each time that the reader came to its end. In an
    /// attached process, which the writer cannot wake, it is a timer that asks to look again after 1 to 50 ms.
    ///
    /// # Errors
    /// [`Error::Storage`] where the system has no descriptor left.
    pub fn poll_descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        let signal = match self.signal.take() {
            Some(signal) => signal,
            None => Signal::new(self.log.is_attached())?,
        };
        Ok(self.signal.insert(signal).descriptor())
    }

    /// At the end, before saying so: has the descriptor, where there is one, tell what comes next. Whether it has come
    /// already.
    #[inline]
    fn has_more_after_arming(&mut self) -> Result<bool> {
        let position = self.waits_at();
        match &mut self.signal {
            None => Ok(false),
            Some(signal) => signal.arm(&self.log, position, self.options.up_to),
        }
    }

    /// Follows the log: an iterator that waits for the next batch for as long as it takes and ends when the
    /// log is closed.
    pub fn follow(&mut self) -> impl Iterator<Item = Result<Batch>> + '_ {
        std::iter::from_fn(move || match self.next_batch_deadline(None) {
            Ok(batch) => batch.map(Ok),
            Err(Error::Closed) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// Goes on behind the damage that [`next_batch`](Reader::next_batch) reported, and says what was lost.
    ///
    /// The search is bounded: positions in the index first, then headers that are plausible in every field,
    /// at most eight CRC passes over the segment; where that is not enough, reading goes on with the next
    /// segment and the range says what was not looked at.
    ///
    /// # Errors
    /// What reading a file can answer. Without damage, a range of no offsets is returned.
    pub fn skip_damage(&mut self) -> Result<LostRange> {
        let Some(place) = self.damage.take() else {
            return Ok(LostRange {
                first_offset: self.position,
                next_offset: self.position,
                file: String::new(),
                position: Position(0),
                resumes_at: None,
                unread_from: None,
            });
        };
        self.cursor.release();
        let first_offset = self.position;
        let next_segment = self.log.segment_after(place.segment.base_offset);
        let upper =
            next_segment.as_ref().map_or(self.log.log_end_offset.load(Ordering::Acquire), |next| next.base_offset);
        let found = self.log.resync(&place.segment, place.position, first_offset, upper)?;
        let mut range = LostRange {
            first_offset,
            next_offset: upper,
            file: place.segment.path(),
            position: place.position,
            resumes_at: None,
            unread_from: found.unread_from,
        };
        if let Some((position, base_offset)) = found.batch {
            range.next_offset = base_offset.max(first_offset);
            range.resumes_at = Some(position);
            self.place = Some(Place { segment: place.segment, position, expected: Some(base_offset) });
        } else {
            self.place = next_segment.map(Place::at_start);
        }
        self.position = range.next_offset;
        Ok(range)
    }

    /// The offset at which this reader stops now.
    #[inline]
    fn bound(&self) -> Offset {
        let bound = self.log.bound(self.options.up_to);
        self.stable.map_or(bound, |stable| stable.end.min(bound))
    }

    /// News for this reader lie beyond this offset: not yet where an open transaction holds it back.
    #[inline]
    fn waits_at(&self) -> Offset {
        self.stable.map_or(self.position, |stable| stable.walked_to.max(self.position))
    }

    /// Reading committed records: looks at the transactions up to the log's end as it is now.
    fn learn_stable_end(&mut self) -> Result<()> {
        if self.stable.is_some() {
            self.log.refresh()?;
            self.stable = Some(self.log.stable_below(self.log.bound(self.options.up_to))?);
        }
        Ok(())
    }

    /// At the bound: whether there is more after all (an attached log looks for it), or the position lies
    /// where it cannot.
    fn at_end_of_bound(&mut self) -> Result<bool> {
        if let Err(error) = self.log.check_alive() {
            // What was appended between the look at the bound and the close is read before the end is told.
            return if self.position < self.bound() { Ok(true) } else { Err(error) };
        }
        if self.generation != self.log.generation.load(Ordering::Acquire) {
            self.look_again()?;
        }
        if self.stable.is_some() {
            self.learn_stable_end()?;
        } else if !self.log.refresh()? {
            return Ok(false);
        }
        Ok(self.position < self.bound())
    }

    /// The list of segments is another one since a truncation: stands the position in the same history still?
    fn look_again(&mut self) -> Result<()> {
        // An attached log that begins anew is looked at again from the start of a segment: waits until that is done.
        self.log.refresh()?;
        self.generation = self.log.generation.load(Ordering::Acquire);
        self.place = None;
        self.cursor.release();
        self.epoch_range = Offset(0)..Offset(0);
        if let Some(epoch) = self.epoch {
            self.log.check_epoch(OffsetAndEpoch { offset: self.position, leader_epoch: epoch })?;
        }
        let end = self.log.log_end_offset.load(Ordering::Acquire);
        if self.position > end {
            let start = self.log.log_start_offset.load(Ordering::Acquire);
            return Err(Error::OffsetOutOfRange {
                requested: self.position,
                log_start_offset: start,
                log_end_offset: end,
            });
        }
        self.learn_stable_end()
    }

    /// Looks at the batch at the reader's place: gives it out, hops over it, or moves to the next segment.
    #[inline]
    fn step(&mut self) -> Result<Step> {
        if self.place.is_none() {
            self.place = Some(self.locate()?);
        }
        let place = self.place.as_mut().expect("just located");
        let len = place.segment.len()?;
        if place.position >= len {
            return self.next_segment();
        }
        let (segment, position) = (&place.segment, place.position);
        let batch = match self.cursor.batch(segment, position, len)? {
            Ok(batch) => batch,
            Err(error) => return self.not_a_batch(error),
        };
        let (base_offset, next_offset, size) = (batch.base_offset(), batch.next_offset(), batch.size());
        if next_offset <= self.position && follows(place.expected, base_offset, self.contiguous) {
            if self.hopped_from.is_none_or(|(base_offset, _)| base_offset != segment.base_offset) {
                self.hopped_from = Some((segment.base_offset, position));
            }
            let hopped = self.cursor.hop(segment, position, len, place.expected, self.position, self.contiguous)?;
            (place.position, place.expected) = hopped;
            return Ok(Step::Moved);
        }
        let contiguous = self.contiguous;
        let expected = place.expected;
        let checked = if self.options.check_crcs { batch.verify_crc() } else { Ok(()) };
        let (control, compressed) = (batch.is_control(), batch.compression() != CompressionType::None);
        let claimed = batch.partition_leader_epoch();
        let due = Reader::due(&self.log, contiguous, segment, expected.unwrap_or(base_offset));
        let misplaced = match due.check_place(&batch) {
            Ok(()) if expected.is_none() && contiguous && base_offset > self.position => {
                Some(DamageKind::WrongOffset { found: base_offset })
            }
            Ok(()) => None,
            Err(error) => Some(misplaced(error)),
        };
        if let Err(error) = checked {
            return Err(self.damaged(DamageKind::Batch(error)));
        }
        if let Some(source) = misplaced {
            return Err(self.damaged(source));
        }
        // The CRC does not cover the epoch: where the table knows better, the table is right.
        if contiguous && !self.epoch_range.contains(&base_offset) {
            (self.table_epoch, self.epoch_range) = self.log.epoch_around(base_offset);
        }
        let epoch = if contiguous { self.table_epoch.unwrap_or(claimed) } else { claimed };
        let lease = self.cursor.lease(position, size);
        let next_offset = if contiguous { next_offset } else { self.next_in_imported(due, position, len)? };
        let place = self.place.as_ref().expect("located above");
        let (segment, from) = (Arc::clone(&place.segment), self.position);
        let place = self.place.as_mut().expect("located above");
        place.position += size as u32;
        place.expected = Some(next_offset);
        if next_offset <= from {
            // The batches behind it bear out that it ends before what it says.
            return Ok(Step::Moved);
        }
        self.hopped_from = None;
        self.position = next_offset;
        self.epoch = Some(epoch);
        if control && !self.has_control {
            // Transaction markers in imported logs: no application ever sees them.
            return Ok(Step::Moved);
        }
        let pool = compressed.then(|| (Arc::clone(&self.log.pool), self.log.decompressed_bytes_max));
        Ok(Step::Batch(Batch::new(lease, (segment, position), from, epoch, pool)))
    }

    /// What the batch of `next_offset` is held to. Where base offsets are contiguous, they and the records' count say
    /// all, and no neighbour is asked.
    #[inline]
    fn due(log: &LogShared, contiguous: bool, segment: &Segment, next_offset: Offset) -> Continuation<'static> {
        Continuation {
            next_offset,
            contiguous,
            offset_end: if contiguous { Offset::MAX } else { log.base_after(segment.base_offset) },
            durable_below: if contiguous { Offset(0) } else { log.recovery_point.load(Ordering::Acquire) },
            epochs: None,
            check_crc: false,
        }
    }

    /// In a log whose offsets need only rise: holds the batch at the reader's place against what stands behind it, and
    /// returns the offset that is due there.
    fn next_in_imported(&mut self, due: Continuation<'_>, position: Position, end: Position) -> Result<Offset> {
        let segment = Arc::clone(&self.place.as_ref().expect("located").segment);
        let mut effort = Effort::for_segment(u64::from(end));
        let mut bytes = Lent { cursor: &mut self.cursor, segment: &segment, end };
        match due.judge_at(&mut bytes, u64::from(position), &mut effort) {
            Standing::Batch { batch, .. } => Ok(batch.next_offset),
            Standing::Damage(error) => Err(self.damaged(misplaced(error))),
            // A batch was parsed here: the file is another one by now.
            Standing::Cut { .. } | Standing::Stale | Standing::End => {
                let available = (end - position) as usize;
                Err(self.damaged(DamageKind::Batch(DecodeError::Truncated { needed: HEADER_LEN, available })))
            }
        }
    }

    /// The batch at `position` of `segment`, where one holds in every way; `expected`: its base offset, where it is
    /// known.
    fn batch_that_holds(
        &mut self,
        segment: &Segment,
        position: Position,
        end: Position,
        expected: Option<Offset>,
    ) -> Result<Option<Candidate>> {
        let Ok(batch) = self.cursor.batch(segment, position, end)? else { return Ok(None) };
        let next_offset = expected.unwrap_or(batch.base_offset());
        let due = Continuation { check_crc: true, ..Reader::due(&self.log, self.contiguous, segment, next_offset) };
        let mut effort = Effort::for_segment(u64::from(end));
        let mut bytes = Lent { cursor: &mut self.cursor, segment, end };
        match due.judge_at(&mut bytes, u64::from(position), &mut effort) {
            Standing::Batch { batch, .. } => Ok(Some(batch)),
            _ => Ok(None),
        }
    }

    /// Finds the segment that holds the position and, by its index, a batch at or before it.
    fn locate(&self) -> Result<Place> {
        let start = self.log.log_start_offset.load(Ordering::Acquire);
        let out_of_range = || Error::OffsetOutOfRange {
            requested: self.position,
            log_start_offset: start,
            log_end_offset: self.log.log_end_offset.load(Ordering::Acquire),
        };
        if self.position < start {
            return Err(out_of_range());
        }
        let segment = self.log.segment_for(self.position).ok_or_else(out_of_range)?;
        if segment.base_offset > self.position {
            // Deletion may have come between the two looks: the first segment that it left lies behind the position.
            self.check_not_deleted()?;
        }
        self.log.open_for_reading(&segment)?;
        let (position, loaded) = segment.position_for(self.position, &self.log.pool)?;
        if loaded {
            self.log.remember_loaded(&segment);
        }
        let expected = (position == 0).then_some(segment.base_offset);
        Ok(Place { segment, position, expected })
    }

    /// An error where the position lies before the log start as it is now.
    #[cold]
    fn check_not_deleted(&self) -> Result<()> {
        let start = self.log.log_start_offset.load(Ordering::Acquire);
        if self.position >= start {
            return Ok(());
        }
        let end = self.log.log_end_offset.load(Ordering::Acquire);
        Err(Error::OffsetOutOfRange { requested: self.position, log_start_offset: start, log_end_offset: end })
    }

    /// The segment's published bytes end here: goes to the next one, if there is one.
    fn next_segment(&mut self) -> Result<Step> {
        let place = self.place.as_ref().expect("in a segment");
        let Some(next) = self.log.segment_after(place.segment.base_offset) else {
            return self.end_of_last_segment();
        };
        // The length was read before the next segment was seen; a roll in between may have published more here.
        if place.position < place.segment.len()? {
            return Ok(Step::Moved);
        }
        if place.expected.is_some_and(|e| e < next.base_offset) && self.position < next.base_offset {
            // The start is raised before a segment leaves the list: what is missing there was taken, and not damaged.
            self.check_not_deleted()?;
            if self.contiguous {
                return Err(self.damaged(DamageKind::SegmentEndsEarly { next: next.base_offset }));
            }
            self.position = next.base_offset;
        }
        self.log.open_for_reading(&next)?;
        self.place = Some(Place::at_start(next));
        self.cursor.release();
        Ok(Step::Moved)
    }

    /// No batch and no segment follows. That is the end of what was published, unless the checkpoint knows an attached
    /// log to be longer than its files are.
    fn end_of_last_segment(&mut self) -> Result<Step> {
        let place = self.place.as_ref().expect("in a segment");
        let recovery_point = self.log.recovery_point.load(Ordering::Acquire);
        let end = self.log.log_end_offset.load(Ordering::Acquire).min(recovery_point);
        if !self.log.is_attached() || self.position >= end {
            return Ok(Step::End);
        }
        if place.position < place.segment.len()? || self.log.segment_after(place.segment.base_offset).is_some() {
            return Ok(Step::Moved);
        }
        Err(self.damaged(DamageKind::LogEndsEarly { recovery_point }))
    }

    /// What stands here is no batch. Zeros behind the last batch of a sealed segment are room that a crash
    /// kept from being trimmed; everything else is damage.
    fn not_a_batch(&mut self, error: DecodeError) -> Result<Step> {
        let place = self.place.as_mut().expect("in a segment");
        let len = place.segment.len()?;
        let has_next = self.log.segment_after(place.segment.base_offset).is_some();
        if has_next && self.cursor.bytes(&place.segment, place.position, len, HEADER_LEN)?.iter().all(|&b| b == 0) {
            let place = self.place.as_mut().expect("in a segment");
            let expected = place.expected;
            let next = self.log.segment_after(place.segment.base_offset).expect("seen above");
            if expected.is_none_or(|e| e >= next.base_offset) {
                place.position = len;
                return Ok(Step::Moved);
            }
        }
        Err(self.damaged(DamageKind::Batch(error)))
    }

    /// Remembers the place as damaged and says what is known.
    fn damaged(&mut self, source: DamageKind) -> Error {
        let place = self.place.take().expect("in a segment");
        let error = Error::CorruptRecord {
            file: place.segment.path(),
            position: place.position,
            offset: place.expected.unwrap_or(self.position).max(self.position),
            source,
        };
        // Damage at an index's word may be the index's lie: then the walk from the segment's start finds the batch.
        self.damage = Some(place);
        self.cursor.release();
        error
    }

    /// Sorts out an error. Returns to try again after an index that lied, or damage that took nothing which was
    /// asked for; gives the error back where a segment was taken by retention or records are lost.
    #[cold]
    fn mend(&mut self, error: Error) -> Result<()> {
        if let Some(place) = self.damage.take() {
            if place.expected.is_none() && place.position > 0 && self.walk_from_start(&place.segment)? {
                return Ok(());
            }
            let Some(place) = self.hop_again(place)? else { return Ok(()) };
            self.damage = Some(place);
        } else if is_gone(&error) {
            // Retention took the segment between looking it up and opening it.
            self.place = None;
            self.cursor.release();
            let start = self.log.log_start_offset.load(Ordering::Acquire);
            self.log.forget_missing_segments()?;
            let start = start.max(self.log.log_start_offset.load(Ordering::Acquire));
            if self.position < start {
                let end = self.log.log_end_offset.load(Ordering::Acquire);
                return Err(Error::OffsetOutOfRange {
                    requested: self.position,
                    log_start_offset: start,
                    log_end_offset: end,
                });
            }
        } else if let (Error::CorruptRecord { .. }, Some(place)) = (&error, self.place.take()) {
            self.damage = Some(place);
        }
        Err(error)
    }

    /// Damage among records before the reader's position concerns nobody, and may be what led here: the header of
    /// a batch that was hopped over unchecked can name any length. Goes from batch to batch again, by their
    /// CRCs now, to the one that holds the position. Gives the damage back where that is in the way.
    fn hop_again(&mut self, damage: Place) -> Result<Option<Place>> {
        let hopped = self.hopped_from.take().filter(|(base, _)| *base == damage.segment.base_offset);
        let (mut at, mut expected) = match (hopped, damage.expected) {
            (Some((_, hopped_from)), _) if hopped_from < damage.position => (hopped_from, None),
            (_, Some(expected)) if expected < self.position => (damage.position, Some(expected)),
            // An index led here: to a batch at or before the one that is looked for.
            (_, None) if damage.position > 0 => (damage.position, None),
            _ => return Ok(Some(damage)),
        };
        let segment = Arc::clone(&damage.segment);
        let len = segment.len()?;
        let next_segment = self.log.segment_after(segment.base_offset);
        let end = self.log.log_end_offset.load(Ordering::Acquire);
        let upper = next_segment.map_or(end, |next| next.base_offset);
        while at < len {
            let found = self.batch_that_holds(&segment, at, len, expected)?;
            if let Some(batch) = found.filter(|batch| batch.base_offset <= self.position) {
                if batch.next_offset > self.position {
                    self.place = Some(Place { segment, position: at, expected: None });
                    return Ok(None);
                }
                (at, expected) = (Position(batch.end as u32), Some(batch.next_offset));
                continue;
            }
            let first_offset = expected.unwrap_or(segment.base_offset);
            match self.log.resync(&segment, at, first_offset, upper)?.batch {
                Some((position, base_offset)) if base_offset <= self.position => {
                    (at, expected) = (position, Some(base_offset));
                }
                _ => return Ok(Some(Place { segment, position: at, expected })),
            }
        }
        Ok(Some(damage))
    }

    /// The index led to a place that holds no batch. Rebuilds the segment's index and tells whether that
    /// helped.
    fn walk_from_start(&mut self, segment: &Segment) -> Result<bool> {
        let lied = segment.correct_indexes(&self.log.pool)?;
        if lied {
            tracing::warn!(log = %self.log.name, file = segment.path(), "an index did not match its segment");
            self.place = None;
        }
        Ok(lied)
    }
}

/// The damage that a batch out of its place is.
fn misplaced(error: DecodeError) -> DamageKind {
    match error {
        DecodeError::NotContiguous { found, .. } => DamageKind::WrongOffset { found },
        error => DamageKind::Batch(error),
    }
}

enum Step {
    Batch(Batch),
    Moved,
    End,
}

impl LogShared {
    #[inline]
    pub(super) fn bound(&self, up_to: ReadUpTo) -> Offset {
        match up_to {
            ReadUpTo::HighWatermark => self.high_watermark.load(Ordering::Acquire),
            ReadUpTo::LogEnd => self.log_end_offset.load(Ordering::Acquire),
            ReadUpTo::Durable => {
                let end = self.log_end_offset.load(Ordering::Acquire);
                self.recovery_point.load(Ordering::Acquire).min(end)
            }
        }
    }

    /// The next good batch of `segment` behind damage, among the offsets from `first_offset` up to `upper`.
    pub(super) fn resync(
        &self,
        segment: &Segment,
        damaged: Position,
        first_offset: Offset,
        upper: Offset,
    ) -> Result<Resynced> {
        segment.resync(damaged, segment.len()?, &self.due(first_offset, upper).plausible(), &self.pool)
    }

    /// Waits until something lies beyond `position` for such a reader, the log is closed or fails, or the
    /// deadline passes.
    fn wait_beyond(&self, position: Offset, up_to: ReadUpTo, deadline: Option<Instant>) -> Result<bool> {
        if self.is_attached() {
            return self.poll_beyond(position, up_to, deadline);
        }
        let generation = self.generation.load(Ordering::Acquire);
        Ok(self.wake.wait_until(deadline, || self.has_news(position, up_to, generation)))
    }

    /// Whether a reader that stands at `position` and has seen `generation` has something to do.
    pub(super) fn has_news(&self, position: Offset, up_to: ReadUpTo, generation: u64) -> bool {
        self.bound(up_to) > position
            || self.generation.load(Ordering::Acquire) != generation
            || self.check_alive().is_err()
    }

    /// The epoch that the record before `offset` was written in, as far as the table knows.
    fn epoch_before(&self, offset: Offset) -> LeaderEpoch {
        self.epochs.read().view().epoch_for((offset - 1).max(Offset(0))).unwrap_or(edgelog_core::NO_LEADER_EPOCH)
    }

    /// The epoch that the table gives for `offset`, and the offsets for which that holds.
    fn epoch_around(&self, offset: Offset) -> (Option<LeaderEpoch>, Range<Offset>) {
        let epochs = self.epochs.read();
        let entries = epochs.view().entries();
        let behind = entries.partition_point(|entry| entry.start_offset <= offset);
        // The next epoch begins at or behind the end as it is now.
        let end = self.log_end_offset.load(Ordering::Acquire);
        let until = entries.get(behind).map_or(end, |entry| entry.start_offset);
        match behind.checked_sub(1).and_then(|at| entries.get(at)) {
            Some(entry) => (Some(entry.epoch), entry.start_offset..until),
            None => (None, Offset::MIN..until),
        }
    }

    /// Whether a position that was handed out before still names the same history.
    pub(crate) fn check_epoch(&self, at: OffsetAndEpoch) -> Result<()> {
        let epochs = self.epochs.read();
        let view = epochs.view();
        let current = view.latest().map_or(LeaderEpoch(0), |entry| entry.epoch);
        if at.leader_epoch < 0 {
            return Ok(());
        }
        if at.leader_epoch > current {
            return Err(Error::UnknownLeaderEpoch { given: at.leader_epoch, current });
        }
        let end = self.log_end_offset.load(Ordering::Acquire);
        // Without an entry for it, that epoch lies before everything the log still holds.
        let Some(found) = view.end_offset_for(at.leader_epoch, end) else { return Ok(()) };
        if at.offset > found.offset {
            return Err(Error::FencedLeaderEpoch {
                offset: at.offset,
                given: at.leader_epoch,
                end_offset: found.offset,
                current,
            });
        }
        Ok(())
    }

    /// Keeps the number of sealed segments whose indexes are held bounded: the one loaded longest ago lets go
    /// of its own.
    fn remember_loaded(&self, segment: &Arc<Segment>) {
        const LOADED_MAX: usize = 32;
        let mut loaded = self.loaded.lock();
        loaded.push_back(Arc::clone(segment));
        if loaded.len() > LOADED_MAX {
            if let Some(oldest) = loaded.pop_front() {
                oldest.unload_indexes();
            }
        }
    }
}
