//! The read path, top to bottom: bound, segment, index, batch headers, CRC, a batch that keeps alive what it
//! borrows.

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::config::IsolationLevel;
use edgelog_core::{
    Candidate, CompressionType, Continuation, DecodeError, Effort, HEADER_LEN, LeaderEpoch, Offset, OffsetAndEpoch,
    Position, RecordBatch, Standing, follows,
};

use super::batch::Batch;
use super::handle::Log;
use super::lost_range::LostRange;
use super::origin::Origin;
use super::shared::LogShared;
use super::signal::Signal;
use super::transactions::{LeftOut, Stable};
use super::types::{OffsetSpec, ReadUpTo, ReaderOptions};
use crate::error::{DamageKind, Error, Result};
use crate::segment::{BatchBytes, Cursor, Lent, Segment};
use crate::sync::Ordering;

mod mend;

impl Log {
    /// A reader that begins where `from` says and stops at the high watermark.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`] where the log does not hold that position, [`Error::FencedLeaderEpoch`]
    /// where its history was truncated, and what reading a file can answer.
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
    pub(crate) fn check_position(&self, at: OffsetAndEpoch) -> Result<()> {
        self.shared.check_epoch(at)
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
    /// Where the last seek has led: what lies before was not asked for.
    asked_from: Offset,
    /// How often the log was looked through for batches that stand out of order.
    passed_looks: u32,
    /// Epoch of the last batch given out, or the one that the position came with.
    epoch: Option<LeaderEpoch>,
    /// The segment and place in it where the batch that holds `position` is looked for.
    place: Option<Place>,
    cursor: Cursor,
    generation: u64,
    /// Base offsets are contiguous: the log was written here.
    contiguous: bool,
    /// Where the segment begins that was read last, and where the one behind it does.
    bounds: (Offset, Offset),
    /// The epoch that the log's table gives for `epoch_range`, kept from batch to batch.
    table_epoch: Option<LeaderEpoch>,
    epoch_range: Range<Offset>,
    /// Where damage was met: reading stays there until `skip_damage` or `seek`.
    damage: Option<Place>,
    /// Behind the damage that was skipped last: a walk in its segment begins there, and meets none of it again.
    resumed: Option<Place>,
    /// Records of a transaction in doubt that reading stays at, and the place behind them.
    in_doubt: Option<(LostRange, Option<Place>)>,
    /// What is polled instead of waiting, once it was asked for.
    signal: Option<Signal>,
}

/// No segment was read yet.
const NO_BOUNDS: (Offset, Offset) = (Offset(-1), Offset::MAX);

#[derive(Debug, Clone)]
struct Place {
    segment: Arc<Segment>,
    position: Position,
    /// The base offset that must stand here, where it is known.
    expected: Option<Offset>,
    reached: Reached,
}

impl Place {
    fn at_start(segment: Arc<Segment>) -> Place {
        let expected = Some(segment.base_offset);
        Place { segment, position: Position(0), expected, reached: Reached::Walked }
    }
}

/// How a reader came to its place. From wherever reading begins, it has to give what reading from the beginning of the
/// segment gives: so no damage is judged but where a walk from there comes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// Batch by batch from the segment's start, each checked.
    Walked,
    /// As [`Walked`](Reached::Walked), and the walk found damage here, or the batch that was looked for.
    Damaged,
    /// By the offset index, or on from a batch that was passed over by its header.
    Jumped,
    /// By headers alone; the last batch that was passed over stands there.
    Hopped(Position),
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
            asked_from: Offset(0),
            passed_looks: 0,
            epoch: None,
            place: None,
            cursor,
            generation,
            contiguous,
            bounds: NO_BOUNDS,
            table_epoch: None,
            epoch_range: Offset(0)..Offset(0),
            damage: None,
            resumed: None,
            in_doubt: None,
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
            OffsetSpec::Last(count) => (self.log.offset_of_last(count, start, bound, self.options)?, None),
        };
        if offset < start || offset > end {
            return Err(Error::OffsetOutOfRange { requested: offset, log_start_offset: start, log_end_offset: end });
        }
        (self.position, self.epoch, self.place, self.damage) = (offset, epoch, None, None);
        self.asked_from = offset;
        (self.resumed, self.in_doubt) = (None, None);
        self.generation = self.log.generation.load(Ordering::Acquire);
        self.cursor.release();
        Ok(())
    }

    /// The next batch with records at or behind the reader's position, or `None` at the end of what it may
    /// read.
    ///
    /// # Errors
    /// [`Error::CorruptRecord`] where the bytes there are damaged: the reader stays, and
    /// [`skip_damage`](Reader::skip_damage) goes on behind. So does a reader of committed records at those of which
    /// damage has hidden whether they are ([`DamageKind::OutcomeInDoubt`]). [`Error::OffsetOutOfRange`] where retention
    /// has taken the position, [`Error::FencedLeaderEpoch`] where its history was truncated.
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
                Ok(Step::Batch(batch)) if self.stable.is_none() => return Ok(Some(batch)),
                Ok(Step::Batch(batch)) => match self.log.left_out(&batch) {
                    None => return Ok(Some(batch)),
                    Some(LeftOut::Aborted) => {}
                    Some(LeftOut::InDoubt) => return Err(self.stay_before(&batch)),
                },
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

    /// At the end, before saying so: arms the descriptor, if there is one, for what comes next. Returns whether it has
    /// come already.
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
    /// What reading a file can answer. Without damage, a range of no offsets is returned; so it is where the log was
    /// truncated since, and the damage with it.
    pub fn skip_damage(&mut self) -> Result<LostRange> {
        if let Some((range, behind)) = self.in_doubt.take() {
            (self.position, self.place) = (range.next_offset, behind);
            return Ok(range);
        }
        self.has_another_history();
        let Some(place) = self.damage.take() else {
            return Ok(LostRange {
                first_offset: self.position,
                next_offset: self.position,
                file: String::new(),
                position: Position(0),
                resumes_at: None,
                unread_from: None,
                passed_over: Vec::new(),
            });
        };
        self.cursor.release();
        let first_offset = self.position;
        let next_segment = self.log.segment_after(place.segment.base_offset);
        let upper =
            next_segment.as_ref().map_or(self.log.log_end_offset.load(Ordering::Acquire), |next| next.base_offset);
        let due = place.expected.unwrap_or(first_offset);
        let found = self.log.resync(&place.segment, place.position, due, upper)?;
        let mut range = LostRange {
            first_offset,
            // A segment may overlap the next one: what was read is not read again.
            next_offset: upper.max(first_offset),
            file: place.segment.path(),
            position: place.position,
            resumes_at: None,
            unread_from: found.unread_from,
            passed_over: Vec::new(),
        };
        let behind = found.batch.map_or(upper, |(_, base_offset)| base_offset);
        let end = found.batch.map_or(place.segment.len()?, |(position, _)| position);
        range.passed_over = self.passed_over(&place.segment, (place.position, end), (due, behind))?;
        if let Some((position, base_offset)) = found.batch {
            range.next_offset = base_offset.max(first_offset);
            range.resumes_at = Some(position);
            let (segment, expected, reached) = (place.segment, Some(base_offset), Reached::Walked);
            self.place = Some(Place { segment, position, expected, reached });
            self.resumed.clone_from(&self.place);
        } else {
            self.place = next_segment.map(Place::at_start);
        }
        self.position = range.next_offset;
        Ok(range)
    }

    /// What was asked for begins at `offset`, where the reader goes on behind it: another one has read up to here.
    pub(crate) fn set_asked_from(&mut self, offset: Offset) {
        self.asked_from = offset;
    }

    /// See [`LogShared::passed_over`]; as far as the reader was asked for these offsets.
    fn passed_over(
        &mut self,
        segment: &Segment,
        bytes: (Position, Position),
        missing: (Offset, Offset),
    ) -> Result<Vec<(Offset, Offset)>> {
        if self.contiguous {
            return Ok(Vec::new());
        }
        let mut left = self.log.passed_over(segment, bytes, missing, &mut self.passed_looks)?;
        for (first, _) in &mut left {
            *first = self.asked_from.max(*first);
        }
        left.retain(|(first, next)| first < next);
        Ok(left)
    }

    /// A batch was read that is not given out: stands before it again, and says why.
    #[cold]
    fn stay_before(&mut self, batch: &Batch) -> Error {
        let (segment, position) = batch.stands_at();
        let (file, offset) = (segment.path(), batch.first_asked_for());
        let behind = self.place.take();
        let range = LostRange {
            first_offset: offset,
            next_offset: self.position,
            file: file.clone(),
            position,
            resumes_at: behind.as_ref().map(|place| place.position),
            unread_from: None,
            passed_over: Vec::new(),
        };
        self.position = offset;
        let reached = behind.as_ref().map_or(Reached::Jumped, |place| place.reached);
        self.place = Some(Place { segment, position, expected: Some(batch.base_offset()), reached });
        self.in_doubt = Some((range, behind));
        Error::CorruptRecord { file, position, offset, source: DamageKind::OutcomeInDoubt }
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
            // What was appended between the look at the bound and the close is read before the end is reported.
            return if self.position < self.bound() { Ok(true) } else { Err(error) };
        }
        if self.generation != self.log.generation.load(Ordering::Acquire) {
            self.look_again()?;
        }
        if self.stable.is_some() {
            self.learn_stable_end()?;
        } else {
            self.log.refresh()?;
        }
        // Another look may have come before this one and moved the bound: what it found is not the end.
        let is_more = self.position < self.bound();
        if !is_more && self.stable.is_none() {
            self.log.check_last_segment()?;
        }
        Ok(is_more)
    }

    /// The list of segments is another one since a truncation: stands the position in the same history still?
    fn look_again(&mut self) -> Result<()> {
        // An attached log that begins again is looked at again from the start of a segment: waits until that is done.
        self.log.refresh()?;
        self.generation = self.log.generation.load(Ordering::Acquire);
        (self.place, self.resumed, self.in_doubt) = (None, None, None);
        self.cursor.release();
        (self.epoch_range, self.bounds) = (Offset(0)..Offset(0), NO_BOUNDS);
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
            Err(error) => {
                let displaced = self.displaced(position, len)?;
                return displaced.map_or_else(|| self.not_a_batch(error), Ok);
            }
        };
        let (base_offset, next_offset, size) = (batch.base_offset(), batch.next_offset(), batch.size());
        let offsets = (base_offset, batch.last_offset());
        if next_offset <= self.position
            && place.reached != Reached::Damaged
            && follows(place.expected, base_offset, self.contiguous)
        {
            let (contiguous, target) = (self.contiguous, self.position);
            let hopped = self.cursor.hop(segment, position, len, place.expected, target, contiguous)?;
            let last;
            (place.position, place.expected, last) = hopped;
            place.reached = Reached::Hopped(last);
            return Ok(Step::Moved);
        }
        let contiguous = self.contiguous;
        let expected = place.expected;
        let checked = if self.options.check_crcs { batch.verify_crc() } else { Ok(()) };
        let (control, compressed) = (batch.is_control(), batch.compression() != CompressionType::None);
        let claimed = batch.partition_leader_epoch();
        if self.bounds.0 != segment.base_offset || !contiguous {
            self.bounds = (segment.base_offset, self.log.base_after(segment.base_offset));
        }
        let due = Reader::due(&self.log, contiguous, self.bounds, expected.unwrap_or(base_offset));
        let misplaced = match due.check_place(&batch) {
            // An index names the last offset of a batch: none that reaches further stands at its word.
            Ok(()) if expected.is_none() && (base_offset > self.position || next_offset > self.position + 1) => {
                Some(DamageKind::WrongOffset { found: base_offset })
            }
            Ok(()) => None,
            Err(error) => Some(DamageKind::Batch(error)),
        };
        if let Err(error) = checked {
            return Err(self.damaged(DamageKind::Batch(error)));
        }
        // In a log whose offsets need only rise, the way here may know better than the batch where it belongs.
        if let Some(source) = misplaced.filter(|_| contiguous || expected.is_none()) {
            let displaced = if contiguous { self.displaced(position, len)? } else { None };
            return displaced.ok_or_else(|| self.damaged(source));
        }
        if !contiguous && base_offset > self.position && self.check_hopped()? {
            return Ok(Step::Moved);
        }
        // The CRC does not cover the epoch: where the table knows better, the table is right.
        if contiguous && !self.epoch_range.contains(&base_offset) {
            (self.table_epoch, self.epoch_range) = self.log.epoch_around(base_offset);
        }
        let epoch = if contiguous { self.table_epoch.unwrap_or(claimed) } else { claimed };
        let mut ends_before = next_offset;
        if !contiguous {
            let Some(next) = self.next_in_imported(due, position, len, size)? else {
                let displaced = self.displaced(position, len)?;
                return displaced.ok_or_else(|| self.damaged(DamageKind::WrongOffset { found: base_offset }));
            };
            ends_before = next;
        }
        // What lies behind where it ends, though it says otherwise, is read from where the log goes on.
        let until = if ends_before < next_offset { ends_before } else { Offset::MAX };
        let place = self.place.as_ref().expect("located above");
        let bytes = self.cursor.keep(&place.segment, position, size);
        Ok(self.give(bytes, offsets, (ends_before, until), epoch, (control, compressed)))
    }

    /// Gives out a batch that ends before `next_offset`, with its records up to before `until`, and goes on behind it.
    #[inline]
    fn give(
        &mut self,
        bytes: BatchBytes,
        offsets: (Offset, Offset),
        (next_offset, until): (Offset, Offset),
        epoch: LeaderEpoch,
        (control, compressed): (bool, bool),
    ) -> Step {
        let from = self.position;
        let place = self.place.as_mut().expect("located above");
        place.position += bytes.size() as u32;
        place.expected = Some(next_offset);
        match place.reached {
            Reached::Walked | Reached::Jumped => {}
            Reached::Damaged => place.reached = Reached::Walked,
            Reached::Hopped(_) => place.reached = Reached::Jumped,
        }
        if next_offset <= from {
            // The batches behind it bear out that it ends before what it says.
            return Step::Moved;
        }
        self.position = next_offset;
        self.epoch = Some(epoch);
        if control && !self.has_control {
            // Transaction markers in imported logs: no application ever sees them.
            return Step::Moved;
        }
        let pool = compressed.then(|| (Arc::clone(&self.log.pool), self.log.decompressed_bytes_max));
        Step::Batch(Batch::new(bytes, offsets, from..until, epoch, pool))
    }

    /// The batch at the reader's place, where what is known of its end says other offsets than it does itself. Only
    /// where each batch before it was checked is it known where it begins.
    #[cold]
    fn displaced(&mut self, position: Position, len: Position) -> Result<Option<Step>> {
        let place = self.place.as_ref().expect("in a segment");
        if matches!(place.reached, Reached::Jumped | Reached::Hopped(_)) {
            return Ok(None);
        }
        let (segment, Some(expected)) = (Arc::clone(&place.segment), place.expected) else { return Ok(None) };
        let due = self.due_in_full(&segment, expected);
        let mut lent = Lent { cursor: &mut self.cursor, segment: &segment, end: len };
        let found = due.judge_at(&mut lent, u64::from(position), &mut Effort::for_segment(u64::from(len)));
        let Standing::Batch { batch, epoch, is_displaced: true, .. } = found else { return Ok(None) };
        let size = (batch.end - batch.position) as usize;
        self.cursor.bytes(&segment, position, len, size)?;
        let bytes = self.cursor.keep_at(&segment, position, size, batch.base_offset);
        let Ok(view) = RecordBatch::parse(&bytes) else { return Ok(None) };
        let kind = (view.is_control(), view.compression() != CompressionType::None);
        let offsets = (batch.base_offset, batch.next_offset - 1);
        Ok(Some(self.give(bytes, offsets, (batch.next_offset, Offset::MAX), epoch, kind)))
    }

    /// What the batch of `next_offset` is held to, in the segment of these bounds.
    #[inline]
    fn due(log: &LogShared, contiguous: bool, bounds: (Offset, Offset), next_offset: Offset) -> Continuation<'static> {
        Continuation {
            next_offset,
            contiguous,
            offset_end: bounds.1,
            durable_below: if contiguous { Offset(0) } else { log.recovery_point.load(Ordering::Acquire) },
            durable_position: if contiguous { 0 } else { log.durable_position(bounds.0) },
            unbroken_from: if contiguous { Offset::MAX } else { log.unbroken_from.load(Ordering::Relaxed) },
            epochs: None,
            epoch_before: None,
            check_crc: false,
        }
    }

    /// The same with all that is known, the checksum included, where something is odd.
    #[cold]
    fn due_in_full(&self, segment: &Segment, next_offset: Offset) -> Continuation<'static> {
        let bounds = (segment.base_offset, self.log.base_after(segment.base_offset));
        Continuation {
            check_crc: true,
            durable_below: self.log.recovery_point.load(Ordering::Acquire),
            durable_position: self.log.durable_position(segment.base_offset),
            ..Reader::due(&self.log, self.contiguous, bounds, next_offset)
        }
    }

    /// In a log whose offsets need only rise: holds the batch at the reader's place against what stands behind it, and
    /// returns the offset that is due there; `None` where the batch is known to have other offsets than it says.
    fn next_in_imported(
        &mut self,
        due: Continuation<'_>,
        position: Position,
        end: Position,
        size: usize,
    ) -> Result<Option<Offset>> {
        let segment = Arc::clone(&self.place.as_ref().expect("located").segment);
        let mut effort = Effort::for_segment(u64::from(end));
        let mut bytes = Lent { cursor: &mut self.cursor, segment: &segment, end };
        match due.judge_at(&mut bytes, u64::from(position), &mut effort) {
            Standing::Batch { is_displaced: true, .. } => Ok(None),
            Standing::Batch { batch, .. } => {
                // The look at what stands behind may have moved the stretch on.
                self.cursor.bytes(&segment, position, end, size)?;
                Ok(Some(batch.next_offset))
            }
            Standing::Damage(error) => Err(self.damaged(DamageKind::Batch(error))),
            // A batch was parsed here: the file is another one by now.
            Standing::Cut { .. } | Standing::Stale | Standing::End => {
                let available = (end - position) as usize;
                Err(self.damaged(DamageKind::Batch(DecodeError::Truncated { needed: HEADER_LEN, available })))
            }
        }
    }

    /// The batch at `position` of `segment`, where one holds in every way and `expected` is the offset that is due.
    fn batch_that_holds(
        &mut self,
        segment: &Segment,
        position: Position,
        end: Position,
        expected: Offset,
    ) -> Option<Candidate> {
        match self.standing_at(segment, position, end, expected) {
            Standing::Batch { batch, .. } => Some(batch),
            _ => None,
        }
    }

    /// What stands at `position` of `segment`, every checksum computed, where `expected` is due.
    fn standing_at(&mut self, segment: &Segment, position: Position, end: Position, expected: Offset) -> Standing {
        let due = self.due_in_full(segment, expected);
        let mut bytes = Lent { cursor: &mut self.cursor, segment, end };
        due.judge_at(&mut bytes, u64::from(position), &mut Effort::for_segment(u64::from(end)))
    }

    /// Finds the segment that holds the position and, by its index, a batch at or before it.
    fn locate(&mut self) -> Result<Place> {
        let start = self.log.log_start_offset.load(Ordering::Acquire);
        let out_of_range = || Error::OffsetOutOfRange {
            requested: self.position,
            log_start_offset: start,
            log_end_offset: self.log.log_end_offset.load(Ordering::Acquire),
        };
        if self.position < start {
            return Err(out_of_range());
        }
        let mut segment = self.log.segment_for(self.position).ok_or_else(out_of_range)?;
        if !self.contiguous {
            segment = self.first_that_reaches(segment)?;
        }
        if segment.base_offset > self.position {
            // Deletion may have come between the two looks: the first segment that it left lies behind the position.
            self.check_not_deleted()?;
        }
        self.log.open_for_reading(&segment)?;
        let (position, loaded) = segment.position_for(self.position, &self.log.pool)?;
        if loaded {
            self.log.remember_loaded(&segment);
        }
        if position == 0 {
            return Ok(Place::at_start(segment));
        }
        Ok(Place { segment, position, expected: None, reached: Reached::Jumped })
    }

    /// Segments that were not written here may overlap, and what two of them hold is read from the first one: the
    /// first segment, up to `last`, that reaches beyond the reader's position.
    fn first_that_reaches(&mut self, last: Arc<Segment>) -> Result<Arc<Segment>> {
        let reaches = |segment: &&Arc<Segment>| segment.known_end().is_none_or(|end| end > self.position);
        let before: Vec<_> = {
            let segments = self.log.segments.read();
            let end = segments.partition_point(|segment| segment.base_offset < last.base_offset);
            segments[..end].iter().filter(reaches).cloned().collect()
        };
        for segment in before {
            if self.end_of(&segment)? > self.position {
                return Ok(segment);
            }
        }
        Ok(last)
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
            self.check_hopped()?;
            if self.log.put_names_right()? {
                return Ok(Step::Moved);
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
        self.damage = Some(place);
        self.cursor.release();
        error
    }
}

enum Step {
    Batch(Batch),
    Moved,
    End,
}
