//! A log that another process writes: its end is found by validating what stands there. The writer does not report it.
//!
//! The attached process looks by `read_at`, since the writer trims its files and a probe through a map behind
//! the end would raise SIGBUS. What was validated (length, CRC-32C, offset) is published exactly as an
//! appender would, and from there on every reader works as in the writing process. Behind the end it looks
//! for the next segment's name and for another file under this one's (a truncation).

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::limits::READABLE_BYTES_MAX;
use edgelog_core::{
    Continuation, Effort, EpochEntry, EpochLearner, EpochTable, HEADER_LEN, Judgement, NO_LEADER_EPOCH, Offset,
    Position, RecordBatch, SegmentBytes, Standing,
};

use super::attachment::{Attachment, POLL_MAX, POLL_MIN};
use super::names::wrong_names;
use super::old_format::behind_old_messages;
use super::open_log::OpenLog;
use super::origin::{Origin, is_written_here};
use super::proof::{Believed, believed};
use super::role::{Attached, Role};
use super::saved_log::DurablePoint;
use super::shared::{LogShared, is_gone, is_unreadable};
use super::types::{ReadUpTo, TopicPartition};
use crate::error::{Error, Result};
use crate::segment::segment_files::misnamed;
use crate::segment::{Misnamed, PooledBuffer, Segment, SegmentFiles, SegmentOptions, Window};
use crate::storage::{Access, LEADS_NOWHERE, Storage};
use crate::sync::{Mutex, Ordering};
use crate::zeros;

/// How often the writer's checkpoint is read again: it is written at a roll, else every ten seconds, a slow
/// log's every minute.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Bytes looked at in one go.
const LOOK_BYTES: usize = 64 << 10;
/// So many looks in vain at bytes that are no batch, before the directory is listed for what may lie behind
/// them.
const LIST_EVERY: u32 = 16;

/// Attaches to a log that another process writes, or wrote.
pub(crate) fn attach(params: &OpenLog) -> Result<Arc<LogShared>> {
    let (storage, dir): (_, Arc<str>) = (&params.storage, params.name.to_string().into());
    let mut files = list_segments(&**storage, &dir, &params.name, &[])?;
    let misnamed = wrong_names(&**storage, &dir, &files.bases, params.saved.as_ref(), false);
    if !misnamed.is_empty() {
        files = list_segments(&**storage, &dir, &params.name, &misnamed)?;
    }
    let bases = files.bases.clone();
    let Believed { saved, unbroken_from, .. } = believed(params.saved.as_ref(), &**storage, &dir, &bases);
    let recovery_point = saved.as_ref().map_or(Offset(0), |saved| saved.durable.offset);
    // A log that no checkpoint knows was copied from a broker, and its offsets need only rise; or its checkpoint is
    // lost, and a hole is a loss.
    let origin = match &saved {
        Some(saved) => saved.origin,
        None if is_written_here(&**storage, &dir, &bases) => Origin::Own,
        None => Origin::Imported,
    };
    let options = SegmentOptions::new(&params.config, Access::Read, origin == Origin::Own);
    let segment_at = |base, name: Option<&str>| Arc::new(Segment::existing(storage, &dir, options, base).in_file(name));
    let (segments, mut attachment) = stand_at(&**storage, segment_at, files, recovery_point)?;
    attachment.proved = recovery_point;
    attachment.durable = saved.as_ref().map_or_else(DurablePoint::default, |saved| saved.durable);
    attachment.id = saved.as_ref().map(|saved| saved.id);
    let end = attachment.next_offset;
    let role = Role::Attached(Attached { attachment: Mutex::new(attachment), flushing: Mutex::new(()) });
    let log = LogShared::new(params, saved.as_ref(), origin, role);
    log.unbroken_from.store(unbroken_from, Ordering::Relaxed);
    *log.misnamed.write() = misnamed;
    *log.segments.write() = segments;
    log.log_end_offset.store(end, Ordering::Release);
    log.high_watermark.store(end, Ordering::Release);
    let start = saved.as_ref().map_or(Offset(0), |saved| saved.log_start_offset).max(bases[0]);
    log.log_start_offset.store(start, Ordering::Release);
    log.recovery_point.store(recovery_point, Ordering::Release);
    let log = Arc::new(log);
    log.refresh()?;
    Ok(log)
}

/// The segments in `dir`: one at least. The names of `misnamed` are known to be wrong.
fn list_segments(
    storage: &dyn Storage,
    dir: &str,
    name: &TopicPartition,
    misnamed: &[Misnamed],
) -> Result<SegmentFiles> {
    let names = storage.read_dir(dir).map_err(|error| {
        let is_away = storage.leads_nowhere(dir);
        Error::storage("list", dir)(if is_away { io::Error::other(LEADS_NOWHERE) } else { error })
    })?;
    let files = SegmentFiles::new(&names, misnamed);
    if files.bases.is_empty() {
        // Between two names of a truncation, or a topic in the making or unmaking.
        return Err(Error::UnknownTopicOrPartition { name: name.to_string() });
    }
    Ok(files)
}

/// The segments up to the one that holds `from`, and an attachment at the beginning of that one: what lies before was
/// durable and is validated when it is read.
fn stand_at(
    storage: &dyn Storage,
    segment_at: impl Fn(Offset, Option<&str>) -> Arc<Segment>,
    files: SegmentFiles,
    from: Offset,
) -> Result<(Vec<Arc<Segment>>, Attachment)> {
    let at = files.bases.partition_point(|&base| base <= from).saturating_sub(1);
    let listed = files.bases[..=at].iter();
    let segments: Vec<Arc<Segment>> = listed.map(|&base| segment_at(base, files.elsewhere(base))).collect();
    let segment = Arc::clone(&segments[at]);
    segment.publish(Position(0));
    let identity = identity_of(storage, &segment)?;
    let next_offset = segment.base_offset;
    let attachment = Attachment {
        segment,
        id: None,
        is_replaced: false,
        learner: EpochLearner::default(),
        identity,
        position: Position(0),
        next_offset,
        epoch_before: None,
        offset_end: files.base_after(next_offset),
        files,
        in_vain: 0,
        searched: None,
        checkpoint_read: None,
        flushed: Offset(0),
        proved: Offset(0),
        durable: DurablePoint::default(),
        names_flushed: None,
        unvouched_since: None,
        failed: None,
    };
    Ok((segments, attachment))
}

/// The file that stands under a segment's name; 0 for what is no regular file.
fn identity_of(storage: &dyn Storage, segment: &Segment) -> Result<u64> {
    let path = segment.path();
    match storage.metadata(&path).map_err(Error::storage("look at", &path)) {
        Ok(file) => Ok(file.identity),
        Err(error) if is_unreadable(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

impl LogShared {
    /// Looks for what the writing process has appended since. `false` where there is nothing new, or where this process
    /// is the writer.
    pub(super) fn refresh(&self) -> Result<bool> {
        let Some(attached) = self.attached() else { return Ok(false) };
        let mut at = attached.attachment.lock();
        let mut any = false;
        if at.checkpoint_read.is_none_or(|at| at.elapsed() >= CHECKPOINT_EVERY) {
            any |= self.read_checkpoint(&mut at)?;
        }
        self.check_not_replaced(&at)?;
        loop {
            any |= self.validate_on(&mut at)?;
            if !self.move_on(&mut at)? && !self.pass_old_messages(&mut at)? && !self.pass_damage(&mut at)? {
                break;
            }
            any = true;
        }
        Ok(any)
    }

    /// Of an attached log: the error where the segment that begins at its end cannot be opened. Whether it holds
    /// anything is not known, and no reader meets it on its way.
    #[cold]
    pub(super) fn check_last_segment(&self) -> Result<()> {
        let end = self.log_end_offset.load(Ordering::Acquire);
        let last = if self.is_attached() { self.segments.read().last().cloned() } else { None };
        match last.filter(|segment| segment.base_offset == end).map(|segment| segment.file().map(drop)) {
            Some(Err(error)) if is_unreadable(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes over what the writer's checkpoint says by now: what is durable, and where the log starts.
    pub(super) fn read_checkpoint(&self, at: &mut Attachment) -> Result<bool> {
        at.checkpoint_read = Some(Instant::now());
        let Some(saved) = self.host()?.read_saved(&self.name)? else { return Ok(false) };
        match at.id {
            Some(id) if id != saved.id => {
                at.is_replaced = true;
                return Err(Error::LogReplaced { name: self.name.to_string() });
            }
            Some(_) => {}
            None => {
                // A writer has opened the store since, and recovered the log: it is read again by what is known now.
                at.id = Some(saved.id);
                self.origin.store(saved.origin as u8, Ordering::Relaxed);
                let bases: Vec<Offset> = self.segments.read().iter().map(|segment| segment.base_offset).collect();
                let known = believed(Some(&saved), &*self.storage, &self.dir, &bases);
                self.unbroken_from.store(known.unbroken_from, Ordering::Relaxed);
                *self.epochs.write() = EpochTable::from_entries(saved.epochs.clone()).unwrap_or_default();
                let start = self.log_start_offset.load(Ordering::Acquire);
                self.begin_again(at, start)?;
            }
        }
        let bases: Vec<Offset> = self.segments.read().iter().map(|segment| segment.base_offset).collect();
        let (saved, _) = saved.supported_by(&bases);
        if saved.epochs.last().map(|entry| entry.epoch) > self.epochs.read().view().latest().map(|entry| entry.epoch) {
            // Perhaps by a truncation: what was proved of the history before says nothing of this one.
            at.proved = Offset(0);
        }
        if saved.durable.offset > at.proved {
            at.durable = saved.durable;
        }
        self.log_start_offset.fetch_max(saved.log_start_offset, Ordering::AcqRel);
        if let Some(from) = self.rewritten_from(at, &saved.epochs) {
            *self.epochs.write() = EpochTable::from_entries(saved.epochs).unwrap_or_default();
            self.begin_again(at, from)?;
            at.checkpoint_read = Some(Instant::now());
        } else {
            self.take_epochs(saved.epochs);
        }
        let durable = saved.durable.offset.max(at.flushed).max(at.proved);
        Ok(self.recovery_point.swap(durable, Ordering::AcqRel) != durable)
    }

    /// Takes over epochs that began at or behind the end that is seen here.
    fn take_epochs(&self, saved: Vec<EpochEntry>) {
        let newest = saved.last().map(|entry| entry.epoch);
        let mut epochs = self.epochs.write();
        if newest > epochs.view().latest().map(|entry| entry.epoch) {
            *epochs = EpochTable::from_entries(saved).unwrap_or_default();
        }
    }

    fn check_not_replaced(&self, at: &Attachment) -> Result<()> {
        if at.is_replaced { Err(Error::LogReplaced { name: self.name.to_string() }) } else { Ok(()) }
    }

    /// Whether a file that was just opened by its name is this log's. The files of a topic that is created again come
    /// to be only after the checkpoint has forgotten the old topic: so the checkpoint is read behind the opening.
    fn confirm_identity(&self) -> Result<()> {
        let Some(attached) = self.attached() else { return Ok(()) };
        self.confirm(&mut attached.attachment.lock())
    }

    /// Opens a segment's file. In an attached process the name may be another topic's by now.
    pub(super) fn open_for_reading(&self, segment: &Segment) -> Result<()> {
        if !self.is_attached() || segment.is_open() {
            return Ok(());
        }
        segment.file()?;
        self.confirm_identity()
    }

    fn confirm(&self, at: &mut Attachment) -> Result<()> {
        self.check_not_replaced(at)?;
        let Some(id) = at.id else { return Ok(()) };
        if self.host()?.read_saved(&self.name)?.is_some_and(|saved| saved.id == id) {
            return Ok(());
        }
        at.is_replaced = true;
        self.check_not_replaced(at)
    }

    /// Where another history begins below the end that is seen here: the writer's epochs show that a truncation, a
    /// repair or a recovery took away what this process has looked at.
    fn rewritten_from(&self, at: &Attachment, saved: &[EpochEntry]) -> Option<Offset> {
        let known = self.epochs.read().view().latest().map_or(NO_LEADER_EPOCH, |entry| entry.epoch);
        let new = saved.iter().filter(|entry| entry.epoch > known && entry.start_offset < at.next_offset);
        new.map(|entry| entry.start_offset).min()
    }

    /// Waits, looking now and then, until something lies beyond `position`.
    pub(super) fn poll_beyond(&self, position: Offset, up_to: ReadUpTo, deadline: Option<Instant>) -> Result<bool> {
        let mut pause = POLL_MIN;
        loop {
            self.check_alive()?;
            self.refresh()?;
            if self.bound(up_to) > position {
                return Ok(true);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(false);
            }
            std::thread::sleep(left.map_or(pause, |left| left.min(pause)));
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Learns at once, and not with the next checkpoint, that the writer's retention took segments: where the first one
    /// known here is gone. One look at a file; nothing in the writing process.
    pub(super) fn notice_retention(&self) -> Result<()> {
        if !self.is_attached() {
            return Ok(());
        }
        let Some(first) = self.segments.read().first().map(Arc::clone) else { return Ok(()) };
        match self.identity(&first) {
            Err(error) if is_gone(&error) => self.forget_missing_segments(),
            other => other.map(drop),
        }
    }

    /// Drops segments that the writer's retention has taken from the list.
    pub(super) fn forget_missing_segments(&self) -> Result<()> {
        if !self.is_attached() {
            return Ok(());
        }
        let first = self.list_segments()?.bases[0];
        self.segments.write().retain(|segment| segment.base_offset >= first);
        self.log_start_offset.fetch_max(first, Ordering::AcqRel);
        Ok(())
    }

    fn list_segments(&self) -> Result<SegmentFiles> {
        list_segments(&*self.storage, &self.dir, &self.name, &self.misnamed.read())
    }

    fn attached_segment(&self, base_offset: Offset, file_name: Option<&str>) -> Arc<Segment> {
        let segment = Segment::existing(&self.storage, &self.dir, self.segment_options(), base_offset);
        Arc::new(segment.in_file(file_name))
    }

    fn identity(&self, segment: &Segment) -> Result<u64> {
        identity_of(&*self.storage, segment)
    }

    /// Takes over what the last segment holds, also where its file has lost its name; `false` where it is not open.
    pub(super) fn look_at_open_file(&self, at: &mut Attachment) -> bool {
        at.segment.is_open() && self.validate_on(at).is_ok()
    }

    /// Validates batches from where the attachment stands and publishes them.
    fn validate_on(&self, at: &mut Attachment) -> Result<bool> {
        let mut any = false;
        let mut wanted = LOOK_BYTES;
        let mut buffer: PooledBuffer = self.pool.take();
        loop {
            zeros::resize(&mut buffer, wanted);
            let path = at.segment.path();
            let read = match at.segment.file().map(|file| file.read_at(&mut buffer, u64::from(at.position))) {
                Ok(read) => read.map_err(Error::storage("read", &path))?,
                // Readers meet what cannot be opened, and go on with the next segment.
                Err(error) if is_gone(&error) || is_unreadable(&error) => return Ok(any),
                Err(error) => return Err(error),
            };
            let before = at.position;
            let needed = self.validate(at, &buffer[..read])?;
            any |= at.position > before;
            match needed {
                // A batch longer than the look: look again, once, at all of it.
                Some(needed) if at.position == before && needed > wanted && read == wanted => wanted = needed,
                Some(_) if at.position > before => wanted = LOOK_BYTES,
                None if at.position > before && read == wanted => wanted = LOOK_BYTES,
                _ => break,
            }
        }
        at.in_vain = if any { 0 } else { at.in_vain.saturating_add(1) };
        Ok(any)
    }

    /// What stands here is due to be a batch and is none: below the recovery point, or in a log that no writer has
    /// opened. Goes on at the next good batch of the segment, so that readers meet the damage, report it, and find
    /// what lies behind.
    fn pass_damage(&self, at: &mut Attachment) -> Result<bool> {
        let recovery_point = self.recovery_point.load(Ordering::Acquire);
        let is_durable = at.next_offset < recovery_point;
        // Without a writer nothing is in motion: one look at each place is enough.
        let place = (at.segment.base_offset, at.position);
        if !is_durable && (at.id.is_some() || at.searched == Some(place)) {
            return Ok(false);
        }
        at.searched = Some(place);
        if is_durable && self.changed_meanwhile(at)? {
            return Ok(true);
        }
        let path = at.segment.path();
        let len = match at.segment.file().map(|file| file.len()) {
            Ok(len) => Position(len.map_err(Error::storage("look at", &path))?.min(READABLE_BYTES_MAX) as u32),
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) if is_unreadable(&error) => Position(0),
            Err(error) => return Err(error),
        };
        if at.position < len && self.resume_behind(at, len, Offset::MAX)? {
            return Ok(true);
        }
        if !is_durable {
            return Ok(false);
        }
        // Nothing good follows: the loss reaches up to the recovery point, and readers are led into it.
        (at.position, at.next_offset, at.epoch_before) = (at.position.max(len), recovery_point, None);
        self.publish(at);
        Ok(true)
    }

    /// Goes on behind damage at the attachment's place with the next good batch of the segment, whose batches end at
    /// `len`. `false` where none of this history follows.
    fn resume_behind(&self, at: &mut Attachment, len: Position, offset_end: Offset) -> Result<bool> {
        let durable_position = self.position_in(at.segment.base_offset, at.durable);
        let due = Continuation { durable_position, ..self.due(at.next_offset, offset_end) };
        let plausible = due.plausible();
        let Some((position, next_offset)) = at.segment.resync(at.position, len, &plausible, &self.pool)?.batch else {
            return Ok(false);
        };
        if at.id.is_some() && next_offset >= self.recovery_point.load(Ordering::Acquire) {
            let epochs = self.epochs.read().clone();
            let due = Continuation { epochs: Some(epochs.view()), ..self.due(next_offset, offset_end) };
            if let Standing::Stale = judge_in_file(at, position, due)? {
                return Ok(false);
            }
        }
        (at.position, at.next_offset, at.epoch_before) = (position, next_offset, None);
        self.publish(at);
        Ok(true)
    }

    /// Before an end below the recovery point is called damage: whether a truncation explains it. That writes the
    /// checkpoint before it changes a file.
    fn changed_meanwhile(&self, at: &mut Attachment) -> Result<bool> {
        let before = (at.next_offset, self.recovery_point.load(Ordering::Acquire));
        self.read_checkpoint(at)?;
        Ok(self.validate_on(at)? || before != (at.next_offset, self.recovery_point.load(Ordering::Acquire)))
    }

    fn publish(&self, at: &Attachment) {
        at.segment.publish(at.position);
        // Segments of an imported log may overlap: the end never falls but where the log is begun again.
        self.log_end_offset.fetch_max(at.next_offset, Ordering::AcqRel);
        self.high_watermark.fetch_max(at.next_offset, Ordering::AcqRel);
    }

    /// Messages of format 0 or 1 stand here: goes on behind them. Readers meet them, report them, and read what
    /// follows.
    fn pass_old_messages(&self, at: &mut Attachment) -> Result<bool> {
        let file = match at.segment.file() {
            Ok(file) => file,
            Err(error) if is_gone(&error) || is_unreadable(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let behind = file.len().and_then(|len| {
            let len = Position(len.min(READABLE_BYTES_MAX) as u32);
            behind_old_messages(&**file, at.position, len)
        });
        let behind = behind.map_err(Error::storage("read", &at.segment.path()))?;
        let Some((position, next_offset)) = behind else { return Ok(false) };
        (at.position, at.next_offset, at.epoch_before) = (position, next_offset.max(at.next_offset), None);
        self.publish(at);
        Ok(true)
    }

    /// Publishes every whole batch at the start of `bytes` that continues the log; returns how many bytes the next one
    /// needs, if it is cut off.
    fn validate(&self, at: &mut Attachment, bytes: &[u8]) -> Result<Option<usize>> {
        let mut from = 0;
        let mut needed = None;
        let mut may_ask = true;
        loop {
            let epochs = self.epochs.read();
            let due = Continuation {
                epochs: at.id.map(|_| epochs.view()),
                epoch_before: at.epoch_before,
                durable_position: self.position_in(at.segment.base_offset, at.durable),
                ..self.due(at.next_offset, at.offset_end)
            };
            let batch = match due.judge(bytes.get(from..).unwrap_or_default()) {
                Judgement::Continues { right_epoch: Some(_), .. } | Judgement::Stale { .. } if may_ask => {
                    // An epoch lasts in the checkpoint before its first batch: one that is not known here may be new,
                    // or the field is damaged.
                    drop(epochs);
                    may_ask = false;
                    let stands = (at.position, at.next_offset, self.generation.load(Ordering::Acquire));
                    self.read_checkpoint(at)?;
                    if stands != (at.position, at.next_offset, self.generation.load(Ordering::Acquire)) {
                        return Ok(None);
                    }
                    continue;
                }
                Judgement::Continues { batch, .. } => Some(batch),
                Judgement::NeedMore { needed: more } => {
                    needed = Some(more);
                    break;
                }
                // What is known of its end may say that its base offset alone is damaged.
                Judgement::Damage(_) if may_be_displaced(at, &due) => None,
                Judgement::Stale { .. } | Judgement::End | Judgement::Damage(_) => break,
            };
            let due = Continuation { epochs: None, ..due };
            drop(epochs);
            let is_as_it_says = |batch: &RecordBatch<'_>| {
                let is_at_point = u64::from(at.position) + batch.size() as u64 == due.durable_position;
                due.contiguous || batch.base_offset() == due.next_offset && batch.is_whole() && !is_at_point
            };
            let (size, base_offset, next_offset, epoch) = match batch.filter(is_as_it_says) {
                Some(batch) => (batch.size(), batch.base_offset(), batch.next_offset(), batch.partition_leader_epoch()),
                // What stands behind it may contradict its offsets.
                None => match judge_in_file(at, at.position, due)? {
                    Standing::Batch { batch, epoch, .. } => {
                        ((batch.end - batch.position) as usize, batch.base_offset, batch.next_offset, epoch)
                    }
                    _ => break,
                },
            };
            if at.id.is_none() {
                at.learner.learn(&mut self.epochs.write(), epoch, base_offset);
            }
            at.next_offset = next_offset;
            at.epoch_before = Some(epoch);
            at.position += size as u32;
            from += size;
            // Published one by one: what is read of the checkpoint in between may begin the log again.
            self.publish(at);
        }
        Ok(needed)
    }

    /// At the end of what is valid: goes to the next segment, or begins again where the file was exchanged.
    fn move_on(&self, at: &mut Attachment) -> Result<bool> {
        if at.next_offset > at.segment.base_offset {
            let next = at.files.path(&self.dir, at.next_offset);
            match self.storage.metadata(&next) {
                // Once more: what was appended before the roll is complete now.
                Ok(_) if self.validate_on(at)? => return Ok(true),
                Ok(_) => return self.enter(at, at.next_offset).map(|()| true),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let error = Error::storage("look at", &next)(error);
                    // Readers meet it.
                    let is_there = is_unreadable(&error);
                    return if is_there { self.enter(at, at.next_offset).map(|()| true) } else { Err(error) };
                }
            }
        }
        if let Some(base) = at.files.first_moved(&*self.storage, &self.dir) {
            // It was seen while a recovery, a truncation or a repair put another file in its place.
            self.confirm(at)?;
            return self.begin_again(at, base.min(at.segment.base_offset)).map(|()| true);
        }
        match self.identity(&at.segment) {
            Ok(identity) if identity == at.identity => {}
            Err(error) if !is_gone(&error) => return Err(error),
            // Another file stands under this one's name, or none: a truncation, or another topic of this name.
            _ => {
                self.confirm(at)?;
                return self.begin_again(at, at.segment.base_offset).map(|()| true);
            }
        }
        let is_damage = at.next_offset < self.recovery_point.load(Ordering::Acquire);
        let has_holes = self.origin() == Origin::Imported || at.id.is_none();
        // As recovery goes on: what begins above the recovery point continues an end alone.
        let goes_on_at = |base: Offset| has_holes || base <= self.recovery_point.load(Ordering::Acquire);
        if is_damage || (has_holes && at.in_vain <= 1) || at.in_vain % LIST_EVERY == LIST_EVERY - 1 {
            self.list_behind(at, at.segment.base_offset)?;
            let bound = std::mem::replace(&mut at.offset_end, at.files.base_after(at.segment.base_offset));
            if at.offset_end > bound {
                // A truncation has taken what began there.
                return Ok(true);
            }
            match at.offset_end {
                // It came to be since the look at its name.
                base if base == at.next_offset => return Ok(true),
                Offset::MAX => {}
                base if goes_on_at(base) => return self.go_on_to(at, base).map(|()| true),
                _ => {}
            }
        }
        Ok(false)
    }

    /// A later segment exists although this one does not lead to it: there is a hole, or damage. Goes on behind the
    /// damage where something good follows in this segment, else to the segment at `base`.
    fn go_on_to(&self, at: &mut Attachment, base: Offset) -> Result<()> {
        if self.validate_on(at)? {
            return Ok(());
        }
        let path = at.segment.path();
        let len = match at.segment.file() {
            Ok(file) => Position(file.len().map_err(Error::storage("look at", &path))?.min(READABLE_BYTES_MAX) as u32),
            Err(error) if is_unreadable(&error) => Position(0),
            Err(error) => return Err(error),
        };
        if at.position < len {
            if self.resume_behind(at, len, base.max(at.next_offset))? {
                return Ok(());
            }
            if !is_zero(at, len)? {
                // Readers are led into the damage.
                at.position = len;
                at.segment.publish(len);
            }
        }
        self.enter(at, base)
    }

    /// Lists the directory, to see which segment is behind the one at `base`. Without a writer one that was listed
    /// before still is: the directory is not listed for each of many segments.
    fn list_behind(&self, at: &mut Attachment, base: Offset) -> Result<()> {
        if at.id.is_some() || at.files.base_after(base) == Offset::MAX {
            at.files = self.list_segments()?;
        }
        Ok(())
    }

    /// Goes on with the segment at `base`, which exists.
    fn enter(&self, at: &mut Attachment, base: Offset) -> Result<()> {
        self.list_behind(at, base)?;
        let segment = self.attached_segment(base, at.files.elsewhere(base));
        let identity = self.identity(&segment)?;
        if let Err(error) = segment.file().map(drop) {
            if !is_unreadable(&error) {
                return Err(error);
            }
        }
        self.confirm(at)?;
        segment.publish(Position(0));
        self.segments.write().push(Arc::clone(&segment));
        // Segments of an imported log may overlap: what stands in both is passed over by readers.
        (at.segment, at.identity, at.position, at.in_vain) = (segment, identity, Position(0), 0);
        let reached = at.next_offset.max(base);
        at.offset_end = at.files.base_after(base);
        at.next_offset = if self.origin() == Origin::Own { reached } else { base };
        self.log_end_offset.fetch_max(reached, Ordering::AcqRel);
        self.high_watermark.fetch_max(reached, Ordering::AcqRel);
        Ok(())
    }

    /// Holds the names of the files against their batches; where some are wrong, begins again with the right ones.
    pub(super) fn begin_with_right_names(&self) -> Result<bool> {
        let Some(attached) = self.attached() else { return Ok(false) };
        let mut at = attached.attachment.lock();
        let names = list_segments(&*self.storage, &self.dir, &self.name, &[])?.bases;
        let (contiguous, start) = (self.origin() == Origin::Own, self.log_start_offset.load(Ordering::Acquire));
        let wrong = misnamed(&*self.storage, &self.dir, &names, contiguous, start);
        if *self.misnamed.read() == wrong {
            return Ok(false);
        }
        *self.misnamed.write() = wrong;
        let (point, proved, flushed) = (self.recovery_point.load(Ordering::Acquire), at.proved, at.flushed);
        self.begin_again(&mut at, point)?;
        // Nothing was truncated.
        (at.proved, at.flushed) = (proved, flushed);
        self.recovery_point.store(point, Ordering::Release);
        Ok(true)
    }

    /// The writer truncated the log: another file stands under the name of the segment that holds `from`, or the
    /// segment is gone, or other batches stand there.
    fn begin_again(&self, at: &mut Attachment, from: Offset) -> Result<()> {
        let files = self.list_segments()?;
        let first = files.bases[0];
        let segment_at = |base, name: Option<&str>| self.attached_segment(base, name);
        let (segments, attachment) = stand_at(&*self.storage, segment_at, files, from)?;
        *at = Attachment { failed: at.failed, id: at.id, durable: at.durable, ..attachment };
        {
            // Who sees the new list sees the lowered offsets, too.
            let mut listed = self.segments.write();
            self.log_end_offset.store(at.next_offset, Ordering::Release);
            self.high_watermark.store(at.next_offset, Ordering::Release);
            // What was durable of the history that is gone says nothing of this one.
            self.recovery_point.fetch_min(at.next_offset, Ordering::AcqRel);
            *listed = segments;
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.log_start_offset.fetch_max(first, Ordering::AcqRel);
        self.validate_on(at)?;
        Ok(())
    }
}

/// Whether the end of what stands at the attachment's place may be known: below the place of the recovery point, in a
/// sealed segment, and in a log that no checkpoint knows.
fn may_be_displaced(at: &Attachment, due: &Continuation<'_>) -> bool {
    u64::from(at.position) < due.durable_position || due.offset_end != Offset::MAX || at.id.is_none()
}

/// Judges the batch at `position` of the attachment's segment by what stands behind it in the file.
fn judge_in_file(at: &Attachment, position: Position, due: Continuation<'_>) -> Result<Standing> {
    let path = at.segment.path();
    let file = at.segment.file()?;
    let len = file.len().map_err(Error::storage("look at", &path))?.min(READABLE_BYTES_MAX);
    let mut bytes = InFile { window: Window::new(Arc::clone(file), len), segment: &at.segment };
    Ok(due.judge_at(&mut bytes, u64::from(position), &mut Effort::for_segment(len)))
}

/// The bytes of a segment by system calls, and what the files next to it say.
struct InFile<'a> {
    window: Window,
    segment: &'a Segment,
}

impl SegmentBytes for InFile<'_> {
    fn end(&self) -> u64 {
        self.window.end()
    }

    fn at(&mut self, position: u64, wanted: usize) -> &[u8] {
        self.window.at(position, wanted)
    }

    fn names_end(&mut self, end: Offset, is_last: bool) -> bool {
        self.segment.named_ends(is_last).has(end)
    }
}

/// Whether nothing was ever written from the attachment's place to `len`.
fn is_zero(at: &Attachment, len: Position) -> Result<bool> {
    let mut window = Window::new(Arc::clone(at.segment.file()?), u64::from(len));
    Ok(window.first_nonzero(u64::from(at.position)).is_none())
}

const _: () = assert!(LOOK_BYTES > HEADER_LEN, "a look sees a header");
