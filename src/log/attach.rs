//! A log that another process writes: its end is found by validating what stands there, not by being told.
//!
//! The attached process looks by `read_at`, since the writer trims its files and a probe through a map behind
//! the end would raise SIGBUS. What was validated (length, CRC-32C, offset) is published exactly as an
//! appender would, and from there on every reader works as in the writing process. Behind the end it looks
//! for the next segment's name and for another file under this one's (a truncation).

use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::{EpochEntry, EpochTable, HEADER_LEN, Offset, Plausible, Position, ScanRules, ScanStep, scan_step};

use super::beside::FailedFlush;
use super::old_format::behind_old_messages;
use super::recovery::OpenLog;
use super::{LogShared, ReadUpTo, is_gone, state};
use crate::error::{Error, Result};
use crate::segment::{PooledBuffer, Segment, file_names};
use crate::sync::{Mutex, Ordering};
use crate::zeros;

/// How often an idle follower looks: at first, and at most.
pub(super) const POLL_MIN: Duration = Duration::from_millis(1);
pub(super) const POLL_MAX: Duration = Duration::from_millis(50);
/// How often the writer's checkpoint is read again: it is written at a roll, else every ten seconds, a slow
/// log's every minute.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// Bytes looked at in one go.
const LOOK_BYTES: usize = 64 << 10;
/// So many looks in vain at bytes that are no batch, before the directory is listed for what may lie behind
/// them.
const LIST_EVERY: u32 = 16;

/// Where an attached log's validation stands.
#[derive(Debug)]
pub(crate) struct Attachment {
    segment: Arc<Segment>,
    /// The file that was validated; another one under its name means a truncation.
    identity: u64,
    position: Position,
    next_offset: Offset,
    in_vain: u32,
    /// When the checkpoint was read last; `None` where it is to be read at once.
    checkpoint_read: Option<Instant>,
    /// Everything below was made durable from here.
    pub(super) flushed: Offset,
    /// The names of the segments up to the one that begins here were made durable from here.
    pub(super) names_flushed: Option<Offset>,
    /// A flush from here failed, and the writer has not settled it yet.
    pub(super) failed: Option<FailedFlush>,
}

/// Attaches to a log that somebody else writes, or wrote.
pub(crate) fn attach(params: &OpenLog) -> Result<Arc<LogShared>> {
    let log = LogShared::new(params, params.saved.as_ref());
    let mut log = log;
    log.state.store(state::ATTACHED, Ordering::Release);
    let bases = log.list_segments()?;
    let recovery_point = params.saved.as_ref().map_or(0, |saved| saved.durable.offset);
    let attachment = log.take_over(&bases, recovery_point)?;
    log.attachment = Some(Mutex::new(attachment));
    let start = params.saved.as_ref().map_or(0, |saved| saved.log_start_offset).max(bases[0]);
    log.log_start_offset.store(start, Ordering::Release);
    log.recovery_point.store(recovery_point, Ordering::Release);
    let log = Arc::new(log);
    log.refresh()?;
    Ok(log)
}

impl LogShared {
    /// Looks for what the writing process has appended since. `false` where there is nothing new, or nobody
    /// to look for.
    pub(super) fn refresh(&self) -> Result<bool> {
        let Some(attachment) = &self.attachment else { return Ok(false) };
        let mut at = attachment.lock();
        let mut any = false;
        if at.checkpoint_read.is_none_or(|at| at.elapsed() >= CHECKPOINT_EVERY) {
            any |= self.read_checkpoint(&mut at)?;
        }
        loop {
            any |= self.validate_on(&mut at)?;
            if !self.move_on(&mut at)? && !self.pass_old_messages(&mut at)? && !self.pass_damage(&mut at)? {
                break;
            }
            any = true;
        }
        Ok(any)
    }

    /// Takes over what the writer's checkpoint says by now: what is durable, and where the log starts.
    pub(super) fn read_checkpoint(&self, at: &mut Attachment) -> Result<bool> {
        at.checkpoint_read = Some(Instant::now());
        let Some(saved) = self.host()?.read_saved(&self.name)?.filter(|saved| saved.id == self.id) else {
            return Ok(false);
        };
        self.log_start_offset.fetch_max(saved.log_start_offset, Ordering::AcqRel);
        if let Some(from) = self.rewritten_from(at, &saved.epochs) {
            *self.epochs.write() = EpochTable::from_entries(saved.epochs).unwrap_or_default();
            self.begin_anew(at, from)?;
            at.checkpoint_read = Some(Instant::now());
        }
        let durable = saved.durable.offset.max(at.flushed);
        Ok(self.recovery_point.swap(durable, Ordering::AcqRel) != durable)
    }

    /// Where another history begins below the end that is seen here: a truncation, a repair or a recovery took back
    /// what this process has looked at, and the writer's epochs tell.
    fn rewritten_from(&self, at: &Attachment, saved: &[EpochEntry]) -> Option<Offset> {
        let known = self.epochs.read().view().latest().map_or(-1, |entry| entry.epoch);
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
        if self.attachment.is_none() {
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
        if self.attachment.is_none() {
            return Ok(());
        }
        let bases = self.list_segments()?;
        self.segments.write().retain(|segment| segment.base_offset >= bases[0]);
        self.log_start_offset.fetch_max(bases[0], Ordering::AcqRel);
        Ok(())
    }

    fn list_segments(&self) -> Result<Vec<Offset>> {
        let names = self.storage.read_dir(&self.dir).map_err(Error::storage("list", &self.dir))?;
        let mut bases: Vec<Offset> = names.iter().filter_map(|entry| file_names::parse_log_file(&entry.name)).collect();
        bases.sort_unstable();
        if bases.is_empty() {
            // Between two names of a truncation, or a topic in the making or unmaking.
            return Err(Error::UnknownTopicOrPartition { name: self.name.to_string() });
        }
        Ok(bases)
    }

    /// Begins at the segment of the recovery point: what lies before was durable and is validated when it is
    /// read.
    fn take_over(&self, bases: &[Offset], recovery_point: Offset) -> Result<Attachment> {
        let first = bases.partition_point(|&base| base <= recovery_point).saturating_sub(1);
        let segments: Vec<Arc<Segment>> = bases[..=first].iter().map(|&base| self.attached_segment(base)).collect();
        let segment = Arc::clone(segments.last().expect("at least the first"));
        segment.publish(0);
        let identity = self.identity(&segment)?;
        let next_offset = segment.base_offset;
        self.log_end_offset.store(next_offset, Ordering::Release);
        self.high_watermark.store(next_offset, Ordering::Release);
        *self.segments.write() = segments;
        Ok(Attachment {
            segment,
            identity,
            position: 0,
            next_offset,
            in_vain: 0,
            checkpoint_read: None,
            flushed: 0,
            names_flushed: None,
            failed: None,
        })
    }

    fn attached_segment(&self, base_offset: Offset) -> Arc<Segment> {
        Arc::new(Segment::existing(&self.storage, &self.dir, self.segment_options(), base_offset))
    }

    fn identity(&self, segment: &Segment) -> Result<u64> {
        let path = segment.path();
        Ok(self.storage.metadata(&path).map_err(Error::storage("look at", &path))?.identity)
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
                Err(error) if is_gone(&error) => return Ok(any),
                Err(error) => return Err(error),
            };
            let before = at.position;
            let needed = self.validate(at, &buffer[..read]);
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

    /// What stands here was durable once and is no batch now: damage. Goes on at the next good batch of the
    /// segment, so that readers meet the damage, report it, and find what lies behind.
    fn pass_damage(&self, at: &mut Attachment) -> Result<bool> {
        let recovery_point = self.recovery_point.load(Ordering::Acquire);
        if at.next_offset >= recovery_point {
            return Ok(false);
        }
        let path = at.segment.path();
        let len = match at.segment.file().map(|file| file.len()) {
            Ok(len) => len.map_err(Error::storage("look at", &path))?.min(i32::MAX as u64) as Position,
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        if at.position >= len {
            return Ok(false);
        }
        let plausible = Plausible {
            offset_min: at.next_offset,
            offset_end: Offset::MAX,
            contiguous: self.origin() == super::Origin::Own,
            epochs: None,
            batch_bytes_max: i32::MAX as usize,
        };
        // Where nothing good follows, the damage reaches to the recovery point: readers are led into it.
        let found = at.segment.resync(at.position, len, &plausible, &self.pool).batch;
        (at.position, at.next_offset) = found.unwrap_or((len, recovery_point));
        at.segment.publish(at.position);
        self.log_end_offset.store(at.next_offset, Ordering::Release);
        self.high_watermark.store(at.next_offset, Ordering::Release);
        Ok(true)
    }

    /// Messages of format 0 or 1 stand here: goes on behind them. Readers meet them, report them, and read what
    /// follows.
    fn pass_old_messages(&self, at: &mut Attachment) -> Result<bool> {
        let file = match at.segment.file() {
            Ok(file) => file,
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let behind = file.len().and_then(|len| {
            let len = Position::try_from(len).unwrap_or(i32::MAX as Position);
            behind_old_messages(&**file, at.position, len)
        });
        let behind = behind.map_err(Error::storage("read", &at.segment.path()))?;
        let Some((position, next_offset)) = behind else { return Ok(false) };
        (at.position, at.next_offset) = (position, next_offset.max(at.next_offset));
        at.segment.publish(at.position);
        self.log_end_offset.store(at.next_offset, Ordering::Release);
        self.high_watermark.store(at.next_offset, Ordering::Release);
        Ok(true)
    }

    /// Publishes every whole, valid batch at the start of `bytes`; returns how many bytes the next one needs,
    /// if it is cut off.
    fn validate(&self, at: &mut Attachment, bytes: &[u8]) -> Option<usize> {
        let mut from = 0;
        let mut needed = None;
        loop {
            let rules = ScanRules {
                expected_offset: Some(at.next_offset),
                contiguous: self.origin() == super::Origin::Own,
                epochs: None,
                batch_bytes_max: i32::MAX as usize,
                check_crc: true,
            };
            match scan_step(&bytes[from..], &rules) {
                ScanStep::Batch(batch) => {
                    let epoch = batch.partition_leader_epoch();
                    let latest = self.epochs.read().view().latest();
                    if epoch >= 0 && latest.is_none_or(|latest| epoch > latest.epoch) {
                        self.epochs.write().assign(epoch, batch.base_offset());
                    } else if latest
                        .is_some_and(|latest| epoch < latest.epoch && batch.base_offset() >= latest.start_offset)
                    {
                        // Left behind by a history that was taken back.
                        break;
                    }
                    at.next_offset = batch.next_offset();
                    from += batch.size();
                }
                ScanStep::NeedMore { needed: more } => {
                    needed = Some(more);
                    break;
                }
                _ => break,
            }
        }
        if from > 0 {
            at.position += from as u32;
            at.segment.publish(at.position);
            self.log_end_offset.store(at.next_offset, Ordering::Release);
            self.high_watermark.store(at.next_offset, Ordering::Release);
        }
        needed
    }

    /// At the end of what is valid: goes to the next segment, or begins anew where the file was exchanged.
    fn move_on(&self, at: &mut Attachment) -> Result<bool> {
        let next = file_names::log_file(&self.dir, at.next_offset);
        if at.next_offset > at.segment.base_offset {
            match self.storage.metadata(&next) {
                Ok(meta) => {
                    // Once more: what was appended before the roll is complete now.
                    if self.validate_on(at)? {
                        return Ok(true);
                    }
                    self.enter(at, at.next_offset, meta.identity);
                    return Ok(true);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::storage("look at", &next)(error)),
            }
        }
        match self.identity(&at.segment) {
            Ok(identity) if identity == at.identity => {}
            Ok(_) => return self.begin_anew(at, at.segment.base_offset).map(|()| false),
            Err(error) if is_gone(&error) => return self.begin_anew(at, at.segment.base_offset).map(|()| false),
            Err(error) => return Err(error),
        }
        let is_damage = at.next_offset < self.recovery_point.load(Ordering::Acquire);
        if is_damage || at.in_vain % LIST_EVERY == LIST_EVERY - 1 {
            // A later segment exists although this one does not reach it: what lies between is damaged, and readers say
            // so.
            let bases = self.list_segments()?;
            if let Some(&base) = bases.iter().find(|&&base| base > at.next_offset) {
                let identity = self.identity(&self.attached_segment(base))?;
                at.next_offset = base;
                self.enter(at, base, identity);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn enter(&self, at: &mut Attachment, base_offset: Offset, identity: u64) {
        let segment = self.attached_segment(base_offset);
        segment.publish(0);
        self.segments.write().push(Arc::clone(&segment));
        (at.segment, at.identity, at.position, at.in_vain) = (segment, identity, 0, 0);
        self.log_end_offset.store(at.next_offset, Ordering::Release);
        self.high_watermark.store(at.next_offset, Ordering::Release);
    }

    /// The writer truncated the log: another file stands under the name of the segment that holds `from`, or the
    /// segment is gone, or other batches stand there.
    fn begin_anew(&self, at: &mut Attachment, from: Offset) -> Result<()> {
        let bases = self.list_segments()?;
        *at = Attachment { failed: at.failed, ..self.take_over(&bases, from)? };
        // What was durable of the history that is gone says nothing of this one.
        self.recovery_point.fetch_min(at.next_offset, Ordering::AcqRel);
        self.log_start_offset.fetch_max(bases[0], Ordering::AcqRel);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.validate_on(at)?;
        Ok(())
    }
}

const _: () = assert!(LOOK_BYTES > HEADER_LEN, "a look sees a header");
