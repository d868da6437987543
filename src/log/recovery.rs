//! Opening a log after any stop: finds the end, makes it durable, fences what a crash removed.
//!
//! After a clean close the checkpoint says it all, and opening looks at nothing but the directory's names and
//! the active segment's length. After any other stop:
//!
//! 1. From the segment of the checkpointed recovery point on, batches are walked. Below that point they were
//!    durable: what is wrong there is damage, reported and left in place. Above it, the first batch that breaks a
//!    rule (length, magic, CRC-32C, contiguous base offset, the epoch that the table gives) is the end of the log.
//! 2. What lies behind the end is kept aside, in a `.cut` file: torn bytes as a copy, valid batches by renaming
//!    the old file.
//! 3. What was accepted above the recovery point is made durable before it is served. Where the machine has not
//!    booted since, it is written again in place, the same bytes, past the page cache: after a failed flush that
//!    may hold what no flush will write.
//! 4. The leader epoch rises. The store makes it durable before the first append.

use std::io;
use std::sync::Arc;

use edgelog_core::limits::{HOLE_MAX, SEGMENT_BYTES_MAX};
use edgelog_core::{
    Candidate, Continuation, Effort, EpochLearner, LEADER_EPOCH_MAX, LeaderEpoch, OFFSET_MAX, Offset, Position,
    Standing,
};

use self::names::{are_as_closed, list, put_right};
use super::lost_range::LostRange;
use super::old_format::refuse_old_messages;
use super::open_log::OpenLog;
use super::origin::{Origin, is_begun_here, is_written_here};
use super::proof::{Believed, believed};
use super::role::{Appender, Role, Writer};
use super::saved_log::{DurablePoint, SavedLog, proved_by_names};
use super::shared::LogShared;
use super::swap::{end_of_swap, put_in_place, swap_bases};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::segment::held::lost_everywhere;
use crate::segment::passed_over::OffsetRange;
use crate::segment::walk::{WalkRules, Walker};
use crate::segment::{Cursor, Lent, Segment, SegmentWriter, TooLong, Window, file_names};
use crate::storage::Access;
use crate::sync::Ordering;

mod names;
mod passed;
mod report;
mod tail;

pub(super) use names::free_name;
pub use report::{CutTail, LogRecovery};

/// Of so many sealed segments, from the newest back, index files that are missing or short are written again. Those of
/// more (an imported log) are made when a reader comes there.
const STALE_INDEXES_MAX: usize = 32;
/// Of so many of these the files are opened, to see that they are whole; of the others their lengths are asked for. An
/// open after a crash opens a few files, at any number of segments.
const INDEXES_OPENED_MAX: usize = 5;

/// Opens a log for writing, no matter how it was stopped.
///
/// # Errors
/// Only where the directory cannot be listed or a file in it not be opened at all.
pub(crate) fn open(params: &OpenLog) -> Result<(Arc<LogShared>, LogRecovery)> {
    let dir: Arc<str> = params.name.to_string().into();
    let mut listed = list(&*params.storage, &dir)?;
    let are_as_closed = are_as_closed(params, &listed);
    let renamed = if are_as_closed { Vec::new() } else { put_right(params, &dir, &mut listed)? };
    let placed = put_in_place(&*params.storage, &dir, params.saved.as_ref(), &mut listed)?;
    let far_end = params.saved.as_ref().and_then(SavedLog::far_end);
    let Believed { saved, doubts, unbroken_from } = believed(params.saved.as_ref(), &*params.storage, &dir, &listed);
    let params = &OpenLog { saved: saved.clone(), ..params.clone() };
    let origin = saved.as_ref().map_or(Origin::Own, |saved| saved.origin);
    let log = LogShared::new(params, saved.as_ref(), origin, Role::Writer(Writer::default()));
    log.unbroken_from.store(unbroken_from, Ordering::Relaxed);
    let log = Arc::new(log);

    let mut report = LogRecovery {
        name: params.name.clone(),
        clean: false,
        log_start_offset: Offset(0),
        log_end_offset: Offset(0),
        recovery_point: saved.as_ref().map_or(Offset(0), |s| s.durable.offset),
        recovered_records: 0,
        leader_epoch: LeaderEpoch(0),
        cut: Vec::new(),
        lost: Vec::new(),
        doubts,
        swap_files: Vec::new(),
        placed,
        put_right: Vec::new(),
        renamed,
        failure: None,
    };
    let may_be_clean = report.doubts.is_empty() && params.odd.is_empty();
    let is_copied = params.saved.is_none() && !is_begun_here(&*params.storage, &dir);
    let writer = log.writer()?;
    let swap_bases = swap_bases(&*params.storage, &dir)?;
    let mut kept_free = Offset(0);
    for &base in swap_bases.iter().filter(|_| origin == Origin::Imported || params.saved.is_none()) {
        kept_free = kept_free.max(end_of_swap(&*params.storage, &dir, base)?);
    }
    let learner = EpochLearner::default();
    let report_of = &mut report;
    let epoch_before = None;
    let passed = Vec::new();
    let mut recovery =
        Recovery { log: &log, writer, params, report: report_of, learner, epoch_before, is_copied, passed, kept_free };
    let is_open = may_be_clean
        && match far_end {
            Some(position) => recovery.open_far(&listed, position)?,
            None => recovery.open_clean(&listed)?,
        };
    if !is_open {
        if params.store_is_clean {
            // The clean mark does not hold for this log, whose bytes are about to change: it goes first.
            params.host.upgrade().ok_or(Error::Closed)?.unmark()?;
        }
        if are_as_closed {
            recovery.report.renamed = put_right(params, &dir, &mut listed)?;
        }
        recovery.open_unclean(&listed)?;
    }
    let offsets = log.offsets();
    report.log_start_offset = offsets.log_start_offset;
    report.log_end_offset = offsets.log_end_offset;
    report.leader_epoch = log.epochs.read().view().latest().map_or(LeaderEpoch(0), |entry| entry.epoch);
    report.failure = log.failure();
    report.swap_files = swap_bases.iter().map(|&base| file_names::swap_file(&dir, base)).collect();
    Ok((log, report))
}

impl LogShared {
    /// Publishes what a log holds: `segments`, the last of them active with `position` bytes, and its end.
    fn begin(
        &self,
        segments: Vec<Arc<Segment>>,
        writer: SegmentWriter,
        position: Position,
        start: Offset,
        end: Offset,
    ) -> Result<()> {
        let active = Arc::clone(segments.last().expect("a log has a segment"));
        let epoch = self.epochs.read().view().latest().map_or(LeaderEpoch(0), |entry| entry.epoch);
        let appender = Appender::new(writer, end, epoch);
        let writer = self.writer()?;
        *writer.durable.lock() = DurablePoint { offset: end, base_offset: active.base_offset, position };
        *self.segments.write() = segments;
        *writer.appender.lock() = Some(appender);
        self.log_start_offset.store(start, Ordering::Release);
        self.recovery_point.store(end, Ordering::Release);
        self.log_end_offset.store(end, Ordering::Release);
        self.high_watermark.store(end, Ordering::Release);
        Ok(())
    }
}

/// One log being opened.
struct Recovery<'a> {
    log: &'a Arc<LogShared>,
    /// What the log keeps of its writer.
    writer: &'a Writer,
    params: &'a OpenLog,
    report: &'a mut LogRecovery,
    learner: EpochLearner,
    /// The epoch field of the batch that the walk came over last; `None` behind damage.
    epoch_before: Option<LeaderEpoch>,
    /// Batches that hold and that the log goes on without: where they begin, and their offsets.
    passed: Vec<PassedOver>,
    /// Offsets below this one are not given out: files of Kafka's log cleaner hold some of them.
    kept_free: Offset,
    /// No checkpoint knows the log, and no file of our own says that it was begun here: what it holds was durable
    /// elsewhere, and no stop of ours has left anything behind its end.
    is_copied: bool,
}

/// Where batches begin that hold and that the log goes on without, and their offsets.
struct PassedOver {
    segment: Arc<Segment>,
    position: Position,
    ranges: Vec<OffsetRange>,
    /// What is lost there in any case.
    missing: OffsetRange,
}

/// One batch that a walk came over.
struct Stepped {
    size: u32,
    next_offset: Offset,
    epoch: LeaderEpoch,
    records: u64,
    /// The base offset, where the batch's own field says another.
    right_base: Option<Offset>,
}

impl Stepped {
    fn new(batch: &Candidate, epoch: LeaderEpoch, is_displaced: bool) -> Stepped {
        let Candidate { position, end, base_offset, next_offset } = *batch;
        let records = u64::try_from(next_offset - base_offset).unwrap_or(0);
        let right_base = is_displaced.then_some(base_offset);
        Stepped { size: (end - position) as u32, next_offset, epoch, records, right_base }
    }
}

/// Where a walk over one segment stopped.
struct Walked {
    position: Position,
    next_offset: Offset,
    /// Records above the recovery point.
    records: u64,
    /// The file's bytes end here.
    to_the_end: bool,
}

impl Recovery<'_> {
    /// No checkpoint says up to where the log was durable. No power cut takes a checkpoint away, so nothing of a cut is
    /// behind the end, and what is sound behind damage stays in the log.
    fn is_whole(&self) -> bool {
        self.params.saved.is_none()
    }

    fn segment(&self, base_offset: Offset) -> Arc<Segment> {
        let log = self.log;
        Arc::new(Segment::existing(&log.storage, &log.dir, log.segment_options(), base_offset))
    }

    /// Opens by what the checkpoint says, if it was written by a clean close and still holds for this log.
    fn open_clean(&mut self, bases: &[Offset]) -> Result<bool> {
        let Some(saved) = self.params.saved.as_ref().filter(|_| self.params.store_is_clean) else { return Ok(false) };
        let at = saved.durable;
        if bases.last() != Some(&at.base_offset) || bases[0] > saved.log_start_offset.max(Offset(0)) {
            return Ok(false);
        }
        let active = self.segment(at.base_offset);
        if active.len()? != at.position || self.kept_free > at.offset {
            return Ok(false);
        }
        let (resumed, ends_at) = self.log.resume_writer(&active, at.position)?;
        if ends_at != Some(at.offset) && !bug(Bug::BelieveTheCheckpoint) {
            // Readers go by the batches: what they say is behind the last one has to be where the next one goes.
            return Ok(false);
        }
        if !self.params.same_boot && !bug(Bug::KeepTheEpochOverABoot) {
            // An epoch never spans two boots. That distinguishes a clock that was wrong from one that was set. It
            // lasts, with the mark, before the first batch of it.
            self.raise_epoch(at.offset, false);
        }
        let segments: Vec<_> =
            bases[..bases.len() - 1].iter().map(|&base| self.segment(base)).chain([active]).collect();
        let start = saved.log_start_offset.max(bases[0]).min(at.offset);
        self.log.begin(segments, resumed, at.position, start, at.offset)?;
        self.report.clean = true;
        Ok(true)
    }

    /// As [`open_clean`](Self::open_clean) for a log whose end lies behind the greatest offset that a checkpoint says:
    /// by the place of that end, and by the headers of the last segment.
    fn open_far(&mut self, bases: &[Offset], position: Position) -> Result<bool> {
        let (true, Some(&last)) = (self.params.store_is_clean, bases.last()) else { return Ok(false) };
        let active = self.segment(last);
        if active.len()? != position {
            return Ok(false);
        }
        let durable = DurablePoint { offset: Offset::MAX, base_offset: last, position };
        let Some(walked) = self.walk_once(&active, durable, None, false)? else { return Ok(false) };
        if walked.position != position || walked.next_offset <= OFFSET_MAX {
            return Ok(false);
        }
        let (resumed, _) = self.log.resume_writer(&active, position)?;
        let sealed = bases[..bases.len() - 1].iter().map(|&base| self.segment(base));
        let segments = sealed.chain([active]).collect();
        let start = self.params.saved.as_ref().map_or(bases[0], |saved| saved.log_start_offset.max(bases[0]));
        self.log.begin(segments, resumed, position, start, walked.next_offset)?;
        self.report.clean = true;
        Ok(true)
    }

    fn open_unclean(&mut self, bases: &[Offset]) -> Result<()> {
        self.refuse_old_formats(bases)?;
        // Without a checkpoint the names are left: a segment is not begun before all but a few are durable.
        let saved_point = self.params.saved.as_ref().map_or_else(|| proved_by_names(bases), |saved| saved.durable);
        self.refuse_long_segments(bases, saved_point)?;
        let is_unknown = self.params.saved.is_none() && !bases.is_empty();
        if is_unknown && !is_written_here(&*self.log.storage, &self.log.dir, bases) {
            self.log.origin.store(Origin::Imported as u8, Ordering::Relaxed);
        }
        let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(bases.len() + 1);
        // Everything before the segment of the recovery point is taken as it is: opening does not grow with the log.
        let known = self.params.saved.is_some();
        let bases = if known { self.without_a_hole(bases, saved_point.offset)? } else { bases };
        let first = if known { bases.partition_point(|&base| base <= saved_point.offset).saturating_sub(1) } else { 0 };
        segments.extend(bases[..first.min(bases.len())].iter().map(|&base| self.segment(base)));
        if let Some(sealed) = segments.last_mut().filter(|sealed| sealed.base_offset == saved_point.base_offset) {
            self.trim_at_point(sealed, saved_point.position)?;
        }
        let (mut position, mut end) = (Position(0), saved_point.offset);
        // The highest end of any segment: segments of an imported log may overlap.
        let mut reached = Offset(0);
        let mut ended_at = bases.len();
        let mut spans = Vec::new();
        for (at, &base) in bases.iter().enumerate().skip(first) {
            let segment = self.segment(base);
            let upper = bases.get(at + 1).copied();
            let walked = self.walk(&segment, saved_point, upper)?;
            self.report.recovered_records += walked.records;
            (position, end) = (walked.position, walked.next_offset);
            reached = end.max(reached);
            spans.push((base, end));
            segments.push(segment);
            // Without a checkpoint nothing says that what is missing or damaged at a segment's end was never
            // acknowledged.
            let goes_on =
                upper.is_some_and(|next| !known && end < next || self.continues(end, next, saved_point.offset));
            if let Some(next) = upper.filter(|_| goes_on) {
                self.report_missing_end(segments.last(), position, end, next);
            }
            if !goes_on {
                ended_at = at;
                if end >= saved_point.offset {
                    self.end_here(segments.last_mut().expect("just pushed"), &walked)?;
                }
                break;
            }
            self.trim_sealed(segments.last_mut().expect("just pushed"), position)?;
        }
        for &base in bases.iter().skip(ended_at + 1).rev() {
            self.cut_segment(base)?;
        }
        let deleted = self.deleted_below(bases, end, saved_point.offset);
        let mut start = deleted.max(bases.first().copied().unwrap_or(deleted.max(Offset(0)))).max(Offset(0));
        self.report_missing_start(start);
        if segments.is_empty() || end < saved_point.offset {
            // Durable records are gone. Their offsets are not given out again: a new segment begins behind them.
            let lost_from = if segments.is_empty() { start } else { end };
            let base_offset = self.claimed_behind(segments.last(), position, saved_point.offset)?;
            let reported = self.report.lost.last().is_some_and(|range| range.next_offset == base_offset);
            if lost_from < base_offset && !reported {
                self.report.lost.push(lost_range(&self.log.dir, segments.last(), lost_from, base_offset, position));
            }
            if segments.is_empty() {
                start = base_offset;
            }
            segments.push(Arc::new(self.new_segment(base_offset)?));
            (position, end) = (Position(0), base_offset);
        } else if end < reached {
            // The last segment lies within the one before it: no offset is given out twice.
            segments.push(Arc::new(self.new_segment(reached)?));
            (position, end) = (Position(0), reached);
        }
        self.report_passed_over(&segments, saved_point, end);
        if end < self.kept_free {
            segments.push(Arc::new(self.new_segment(self.kept_free)?));
            (position, end) = (Position(0), self.kept_free);
        }
        self.leave_out_what_overlaps(&spans);
        self.leave_out_deleted(deleted.max(Offset(0)));
        let durable = self.make_durable(&segments, saved_point);
        self.raise_epoch(end, bases.is_empty() && self.params.saved.is_none());
        let active = Arc::clone(segments.last().expect("a log has a segment"));
        active.publish(position);
        active.rebuild_into_memory(&self.log.pool)?;
        self.mark_stale_indexes(&segments, position);
        let (resumed, ends_at) = self.log.resume_writer(&active, position)?;
        if self.log.origin() == Origin::Imported {
            // Nor is an offset that the last batch says to have, also where the checkpoint says less.
            end = ends_at.map_or(end, |ends_at| ends_at.max(end));
        }
        self.log.begin(segments, resumed, position, start.min(end), end)?;
        if !durable {
            // The checkpoint goes on saying what is known to be durable.
            *self.writer.durable.lock() = saved_point;
            let known = saved_point.offset.clamp(start.min(end), end);
            self.log.recovery_point.store(known, Ordering::Release);
            // Nor is served what a power cut could remove.
            self.log.high_watermark.store(known, Ordering::Release);
        }
        Ok(())
    }

    /// The segments at `bases` of a log that was durable below `point`, but for those behind a hole in front of them
    /// all: a cut has lost the name in front of these, and with it records that were promised to no one.
    fn without_a_hole<'b>(&mut self, bases: &'b [Offset], point: Offset) -> Result<&'b [Offset]> {
        let begins_behind = bases.first().is_some_and(|&base| base > point);
        if bug(Bug::BeginBehindAHole) || self.log.origin() != Origin::Own || !begins_behind {
            return Ok(bases);
        }
        for &base in bases.iter().rev() {
            self.cut_segment(base)?;
        }
        Ok(&[])
    }

    /// Of the last segment, whose batches end at `position`, and of sealed ones: the crash may have come before the
    /// indexes of what was sealed last were written, or reached the disk.
    fn mark_stale_indexes(&self, segments: &[Arc<Segment>], position: Position) {
        let Some((active, sealed)) = segments.split_last() else { return };
        if position > 0 || active.has_index_files() {
            active.set_stale();
        }
        for (n, segment) in sealed.iter().rev().take(STALE_INDEXES_MAX).enumerate() {
            let opens = n < INDEXES_OPENED_MAX;
            if !(segment.has_index_entries() && (!opens || segment.has_whole_indexes(&self.log.pool))) {
                segment.set_stale();
            }
        }
    }

    /// Writes the right base offset of a batch that readers find to have another one than it says. They know it by its
    /// end; once the log goes on behind it, nothing would contradict it.
    fn put_base_right(&mut self, segment: &Segment, position: Position, base: Offset, next: Offset) -> Result<()> {
        let path = segment.path();
        let file = self.log.storage.open(&path, Access::Write).map_err(Error::storage("open", &path))?;
        // Made durable with all that is accepted. Torn, it is damage to the same field.
        file.write_at(&base.0.to_be_bytes(), u64::from(position)).map_err(Error::storage("write", &path))?;
        let range = lost_range(&path, None, base, next, position);
        self.report.put_right.push(LostRange { resumes_at: Some(position), ..range });
        Ok(())
    }

    /// The offset behind `point`, and, where offsets need only rise, behind all that the valid batches from `position`
    /// on say of themselves: readers may come to believe one of them, and an offset that it has is not given out again.
    fn claimed_behind(&self, segment: Option<&Arc<Segment>>, position: Position, point: Offset) -> Result<Offset> {
        let Some(segment) = segment.filter(|_| self.log.origin() == Origin::Imported) else { return Ok(point) };
        let claimed = self.valid_offsets_behind(segment, position)?.map(|(_, last)| last);
        // No reader believes a wider hole.
        let claimed = claimed.filter(|last| last.saturating_since(point) < HOLE_MAX);
        Ok(claimed.map_or(point, |last| last.saturating_add(1).min(OFFSET_MAX).max(point)))
    }

    /// The recovery point was the very end of this segment: what room it still has was never given back.
    fn trim_at_point(&mut self, sealed: &mut Arc<Segment>, position: Position) -> Result<()> {
        // No further than the file reaches: a disk that lied may have lost its end.
        let position = position.min(sealed.len()?);
        self.trim_sealed(sealed, position)?;
        if let Err(error) = sealed.trim_and_flush() {
            self.log.fail(&error.to_string());
        }
        Ok(())
    }

    /// What was deleted is not lost: a cut may bring some of the deleted segments back, and others not.
    fn leave_out_deleted(&mut self, deleted: Offset) {
        self.report.lost.retain(|range| range.next_offset > deleted);
        for range in &mut self.report.lost {
            range.first_offset = range.first_offset.max(deleted);
        }
    }

    /// The checkpoint says where the log starts before retention takes a segment: what else is missing in front of
    /// `start`, it did not take.
    fn report_missing_start(&mut self, start: Offset) {
        let is_start_known = self.params.store_is_clean || self.params.slots == [true; 2];
        let saved = self.params.saved.as_ref().filter(|_| is_start_known);
        if let Some(saved) = saved.filter(|saved| saved.log_start_offset < start) {
            self.report.lost.push(lost_range(&self.log.dir, None, saved.log_start_offset, start, Position(0)));
        }
    }

    /// The log goes on at `next` behind a segment that ends at `end`: in one that was written here, what lies between
    /// is lost, unless damage was reported up to there.
    fn report_missing_end(&mut self, segment: Option<&Arc<Segment>>, position: Position, end: Offset, next: Offset) {
        let is_reported = self.report.lost.last().is_some_and(|range| range.next_offset >= next);
        if self.log.origin() == Origin::Own && end < next && !is_reported {
            self.report.lost.push(lost_range(&self.log.dir, segment, end, next, position));
        }
    }

    /// In a log whose segments may overlap, damage in one of them is no loss of what another one holds.
    /// `spans`: what the segments that were walked reach over.
    fn leave_out_what_overlaps(&mut self, spans: &[(Offset, Offset)]) {
        if self.log.origin() == Origin::Own {
            return;
        }
        let files = spans.iter().map(|&(base, end)| (base, end, file_names::log_file(&self.log.dir, base)));
        let files: Vec<_> = files.collect();
        let storage = &*self.log.storage;
        self.report.lost.retain_mut(|range| {
            let others = files.iter().filter(|(_, end, path)| *end > range.first_offset && *path != range.file);
            let others = others.map(|(base, _, path)| (*base, path.as_str()));
            let left = lost_everywhere(storage, others, (range.first_offset, range.next_offset));
            (range.first_offset, range.next_offset) = left.unwrap_or((range.next_offset, range.next_offset));
            left.is_some()
        });
    }

    /// Everything below was deleted, as far as the records, which end at `end`, bear it out.
    fn deleted_below(&mut self, bases: &[Offset], end: Offset, recovery_point: Offset) -> Offset {
        let deleted = self.params.saved.as_ref().map_or(Offset::MIN, |saved| saved.log_start_offset);
        match bases.first() {
            // Below the recovery point a cut may have left names of deleted segments alone.
            Some(&first) if deleted > end.max(recovery_point) => {
                let text = format!(
                    "the checkpoint says that the log starts at offset {deleted}, and its records end at {end}"
                );
                self.report.doubts.push(text);
                first
            }
            _ => deleted,
        }
    }

    /// Before anything of the log is changed: no segment that recovery could cut begins with an old message format.
    fn refuse_old_formats(&self, bases: &[Offset]) -> Result<()> {
        let point = self.params.saved.as_ref().map_or(Offset(0), |saved| saved.durable.offset);
        for &base in bases.iter().filter(|&&base| base >= point) {
            let segment = self.segment(base);
            refuse_old_messages(&mut Cursor::new(&self.log.pool), &segment, Position(0), segment.len()?)?;
        }
        Ok(())
    }

    /// Before anything of the log is changed: no segment has batches behind the last position that Kafka can count.
    /// What is behind could be neither indexed nor appended to.
    fn refuse_long_segments(&self, bases: &[Offset], saved: DurablePoint) -> Result<()> {
        for (at, &base) in bases.iter().enumerate() {
            let segment = self.segment(base);
            if self.params.saved.is_some() && base < saved.base_offset || u64::from(segment.len()?) <= SEGMENT_BYTES_MAX
            {
                continue;
            }
            let rules = self.walk_rules(&segment, bases.get(at + 1).copied(), saved);
            let mut walker = Walker::open(&*self.log.storage, &segment.path(), rules)?;
            let end = walker.valid_end();
            if end > SEGMENT_BYTES_MAX {
                let reason = io::Error::new(io::ErrorKind::FileTooLarge, TooLong(end).to_string());
                return Err(Error::storage("open for writing", &segment.path())(reason));
            }
        }
        Ok(())
    }

    /// What the batches of a segment are held to, before the one that begins at `next_base`.
    fn walk_rules(&self, segment: &Segment, next_base: Option<Offset>, saved: DurablePoint) -> WalkRules {
        WalkRules {
            first_offset: Some(segment.base_offset),
            contiguous: self.log.origin() == Origin::Own,
            offset_end: next_base.unwrap_or(Offset::MAX),
            durable_below: saved.offset,
            durable_position: saved.position_in(segment.base_offset),
            unbroken_from: self.log.unbroken_from.load(Ordering::Relaxed),
            named_ends: segment.named_ends(next_base.is_none()),
        }
    }

    /// Whether the segment that begins at `next` goes on where the one before ended: behind `end` exactly, behind
    /// damage below the recovery point, or, in an imported log, anywhere: there may be holes, and segments may overlap.
    fn continues(&self, end: Offset, next: Offset, recovery_point: Offset) -> bool {
        let may_have_holes = self.log.origin() == Origin::Imported || bug(Bug::IgnoreContiguity);
        end == next || next <= recovery_point || may_have_holes || self.is_copied
    }

    /// Walks a segment from its start: below the recovery point by headers, above it by every rule.
    ///
    /// A damaged header that was believed unchecked shows only at what it leads to. So the first thing below the
    /// recovery point that is odd has the segment walked once more, with every checksum.
    fn walk(&mut self, segment: &Arc<Segment>, saved: DurablePoint, next_base: Option<Offset>) -> Result<Walked> {
        match self.walk_once(segment, saved, next_base, false)? {
            Some(walked) => Ok(walked),
            None => Ok(self.walk_once(segment, saved, next_base, true)?.expect("nothing is believed unchecked now")),
        }
    }

    /// `None` where something below the recovery point is odd, and not every checksum was looked at.
    fn walk_once(
        &mut self,
        segment: &Arc<Segment>,
        saved: DurablePoint,
        next_base: Option<Offset>,
        checks_all: bool,
    ) -> Result<Option<Walked>> {
        let log = self.log;
        let len = segment.len()?;
        let mut cursor = Cursor::new(&log.pool);
        let epoch_before = self.epoch_before;
        let mut walked =
            Walked { position: Position(0), next_offset: segment.base_offset, records: 0, to_the_end: false };
        while walked.position < len {
            let is_below = walked.next_offset < saved.offset;
            let mut due = self.due(walked.next_offset, saved, next_base);
            due.durable_position = saved.position_in(segment.base_offset);
            if self.is_whole() {
                due.durable_below = Offset(0);
            }
            due.check_crc |= checks_all;
            let is_checked = due.check_crc;
            let stepped = self.step(&mut cursor, segment, walked.position, len, due);
            // The last durable batch is due to end where the checkpoint says: bytes that were inserted before it only
            // move it.
            let is_odd = stepped.as_ref().map_or(true, |stepped| {
                stepped.as_ref().is_none_or(|batch| {
                    let is_moved = segment.base_offset == saved.base_offset
                        && batch.next_offset == saved.offset
                        && walked.position + batch.size != saved.position;
                    // Nor is one known to reach over the point.
                    is_moved || batch.next_offset > saved.offset
                })
            });
            let looks_again = if is_below {
                is_odd && !is_checked
            } else {
                !matches!(stepped, Ok(Some(_))) && !checks_all && self.stands_at_point(segment, &walked, saved)?
            };
            if looks_again {
                self.epoch_before = epoch_before;
                return Ok(None);
            }
            let Ok(Some(stepped)) = stepped else {
                // Zeros too: a sector that did not make it may stand before others that did.
                if !is_below {
                    refuse_old_messages(&mut cursor, segment, walked.position, len)?;
                }
                // Where everything was durable it is damage: goes on behind it, if anything good is there.
                cursor.release();
                if !(is_below || self.is_whole()) || !self.hop_damage(segment, &mut walked, saved, next_base)? {
                    return Ok(Some(walked));
                }
                continue;
            };
            if let Some(base_offset) = stepped.right_base {
                self.put_base_right(segment, walked.position, base_offset, stepped.next_offset)?;
            }
            if !(is_below || self.is_whole()) {
                walked.records += stepped.records;
            }
            if self.params.saved.is_none() {
                self.learn_epoch(stepped.epoch, walked.next_offset);
            }
            walked.position += stepped.size;
            walked.next_offset = stepped.next_offset;
            self.epoch_before = Some(stepped.epoch);
        }
        walked.to_the_end = true;
        Ok(Some(walked))
    }

    /// Whether the walk stands at the recovery point in front of something: what is odd there may begin below, with a
    /// batch of which only the header was looked at.
    fn stands_at_point(&self, segment: &Segment, walked: &Walked, saved: DurablePoint) -> Result<bool> {
        if self.is_whole() || walked.next_offset != saved.offset || walked.position == 0 {
            return Ok(false);
        }
        let mut window = Window::new(Arc::clone(segment.file()?), u64::from(segment.len()?));
        Ok(window.first_nonzero(u64::from(walked.position)).is_some())
    }

    /// What the batch that is due at `next_offset` is held to; [`step`](Self::step) adds the epochs.
    fn due(&self, next_offset: Offset, saved: DurablePoint, next_base: Option<Offset>) -> Continuation<'static> {
        Continuation {
            next_offset,
            contiguous: self.log.origin() == Origin::Own && !bug(Bug::IgnoreContiguity),
            offset_end: next_base.unwrap_or(Offset::MAX),
            durable_below: saved.offset,
            durable_position: 0,
            unbroken_from: self.log.unbroken_from.load(Ordering::Relaxed),
            epochs: None,
            epoch_before: None,
            check_crc: (next_offset >= saved.offset || self.is_whole()) && !bug(Bug::SkipCrc),
        }
    }

    /// The batch at `position`; `None` at zeros, an error at what is no batch of this log.
    fn step(
        &self,
        cursor: &mut Cursor,
        segment: &Segment,
        position: Position,
        len: Position,
        due: Continuation<'_>,
    ) -> std::result::Result<Option<Stepped>, ()> {
        let epochs = self.log.epochs.read();
        // Without a checkpoint there is no table to hold a batch against; below the recovery point none is needed.
        let check_epoch =
            self.params.saved.is_some() && due.next_offset >= due.durable_below && !bug(Bug::GoOnAfterStaleTail);
        let due = Continuation { epochs: check_epoch.then(|| epochs.view()), epoch_before: self.epoch_before, ..due };
        let mut effort = Effort::for_segment(u64::from(len));
        let mut bytes = Lent { cursor, segment, end: len };
        match due.judge_at(&mut bytes, u64::from(position), &mut effort) {
            Standing::Batch { batch, epoch, is_displaced, .. } => Ok(Some(Stepped::new(&batch, epoch, is_displaced))),
            Standing::End => Ok(None),
            Standing::Stale | Standing::Cut { .. } | Standing::Damage(_) => Err(()),
        }
    }

    /// Below the recovery point: finds the next good batch of the segment and reports what is lost before it. Where the
    /// damage reaches over the point, that is the batch that readers go on with, too.
    fn hop_damage(
        &mut self,
        segment: &Arc<Segment>,
        walked: &mut Walked,
        saved: DurablePoint,
        next_base: Option<Offset>,
    ) -> Result<bool> {
        self.epoch_before = None;
        let upper = next_base.unwrap_or(if self.is_whole() { Offset::MAX } else { saved.offset });
        let durable_below = if self.is_whole() { Offset(0) } else { saved.offset };
        let durable_position = saved.position_in(segment.base_offset);
        let due = Continuation { durable_below, durable_position, ..self.due(walked.next_offset, saved, next_base) };
        let mut found = segment.resync(walked.position, segment.len()?, &due.plausible(), &self.log.pool)?;
        if let Some((at, base)) = found.batch.filter(|(_, base)| !self.is_whole() && *base >= saved.offset) {
            let due = self.due(base, saved, next_base);
            let is_of_this_history =
                matches!(self.step(&mut Cursor::new(&self.log.pool), segment, at, segment.len()?, due), Ok(Some(_)));
            found.batch = found.batch.filter(|_| is_of_this_history);
        }
        if found.batch.is_none() && self.goes_on_at(segment, walked.position, saved)? {
            found.batch = Some((saved.position, saved.offset));
        }
        if found.batch.is_none() && next_base.is_none() && self.is_whole() {
            // Nothing follows: the log ends before these bytes.
            return Ok(false);
        }
        let next_offset = found.batch.map_or(upper, |(_, base)| base);
        // Damaged bytes between two batches, or in a segment that another one overlaps, may have taken no offset.
        if walked.next_offset < next_offset {
            self.report.lost.push(LostRange {
                first_offset: walked.next_offset,
                next_offset,
                file: segment.path(),
                position: walked.position,
                resumes_at: found.batch.map(|(position, _)| position),
                unread_from: found.unread_from,
                passed_over: Vec::new(),
            });
        }
        let behind = found.batch.map_or(u64::from(segment.len()?), |(position, _)| u64::from(position));
        self.pass_over(segment, walked.position, behind, (walked.next_offset, next_offset))?;
        let Some((position, base_offset)) = found.batch else {
            if next_base.is_some() {
                // The whole rest stays for readers to report; the next segment goes on.
                walked.position = segment.len()?;
            }
            return Ok(false);
        };
        (walked.position, walked.next_offset) = (position, base_offset);
        Ok(true)
    }

    /// What follows the last durable batch stands where the checkpoint says: whether what stands there, behind damage
    /// at `damaged`, is a batch of that offset, or room that was never written.
    fn goes_on_at(&self, segment: &Segment, damaged: Position, saved: DurablePoint) -> Result<bool> {
        let len = segment.len()?;
        if segment.base_offset != saved.base_offset || saved.position <= damaged || saved.position >= len {
            return Ok(false);
        }
        let mut cursor = Cursor::new(&self.log.pool);
        Ok(self.step(&mut cursor, segment, saved.position, len, self.due(saved.offset, saved, None)).is_ok())
    }

    /// Without a checkpoint the batches' own epochs make the table, as far as they rise.
    fn learn_epoch(&mut self, epoch: LeaderEpoch, offset: Offset) {
        self.learner.learn(&mut self.log.epochs.write(), epoch, offset);
    }

    fn new_segment(&self, base_offset: Offset) -> Result<Segment> {
        let log = self.log;
        let path = file_names::log_file(&log.dir, base_offset);
        let epoch = log.epochs.read().view().latest().map_or(LeaderEpoch(0), |entry| entry.epoch);
        free_name(&*log.storage, &log.dir, base_offset, epoch)?;
        let file = log.storage.open(&path, Access::CreateNew).map_err(Error::storage("create", &path))?;
        self.writer.names_dirty.store(true, Ordering::Release);
        Ok(Segment::on_file(&log.storage, &log.dir, log.segment_options(), base_offset, file, Position(0)))
    }

    /// Makes durable what was accepted, and says whether that worked. Where not, the log can be read and not
    /// written.
    fn make_durable(&self, segments: &[Arc<Segment>], saved: DurablePoint) -> bool {
        if bug(Bug::ServeUnflushed) {
            return true;
        }
        let first = segments.partition_point(|s| s.base_offset <= saved.offset).saturating_sub(1);
        for segment in &segments[first..] {
            let from = if segment.base_offset == saved.base_offset { saved.position } else { Position(0) };
            if let Err(error) = self.make_segment_durable(segment, from) {
                self.log.fail(&format!("flush {}: {error}", segment.path()));
                return false;
            }
        }
        if let Err(error) = self.log.storage.sync_dir(&self.log.dir) {
            self.log.fail(&format!("sync directory {}: {error}", self.log.dir));
            return false;
        }
        self.writer.names_dirty.store(false, Ordering::Release);
        true
    }

    fn make_segment_durable(&self, segment: &Segment, from: Position) -> io::Result<()> {
        let file = segment.file().map_err(|e| io::Error::other(e.to_string()))?;
        let len = segment.len().map_err(|e| io::Error::other(e.to_string()))?;
        if self.params.same_boot && from < len && !bug(Bug::RecoverByFlushAlone) {
            file.rewrite(u64::from(from)..u64::from(len))?;
        }
        if segment.is_untrimmed() {
            return segment.trim_and_flush().map_err(|e| io::Error::other(e.to_string()));
        }
        file.flush()
    }

    /// A crash may have removed records that a reader has seen: what comes now is another history.
    fn raise_epoch(&self, end: Offset, is_new: bool) {
        if bug(Bug::KeepTheEpoch) && !is_new {
            return;
        }
        let mut epochs = self.log.epochs.write();
        if epochs.view().latest().is_some_and(|latest| latest.epoch >= LEADER_EPOCH_MAX) {
            // No checkpoint says a higher one. The history goes on in this epoch, unless something of it may be gone.
            drop(epochs);
            let is_another_boot = !self.params.same_boot && !self.params.store_is_clean && self.params.saved.is_some();
            if is_another_boot || !self.report.cut.is_empty() || !self.report.lost.is_empty() {
                self.log.fail(&format!(
                    "its leader epoch is {LEADER_EPOCH_MAX}, the greatest, and what a stop took of it cannot be \
                     distinguished from what would be appended; its records can be copied to another topic"
                ));
            }
            return;
        }
        let epoch = match epochs.view().latest() {
            Some(latest) => latest.epoch.saturating_add(1),
            None if is_new => LeaderEpoch(0),
            None => LeaderEpoch(1),
        };
        epochs.assign(epoch, end);
    }
}

fn lost_range(
    dir: &str,
    segment: Option<&Arc<Segment>>,
    first_offset: Offset,
    next_offset: Offset,
    position: Position,
) -> LostRange {
    LostRange {
        first_offset,
        next_offset,
        file: segment.map_or_else(|| dir.to_owned(), |segment| segment.path()),
        position,
        resumes_at: None,
        unread_from: None,
        passed_over: Vec::new(),
    }
}
