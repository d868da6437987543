//! What lies behind the end of a log, and how recovery takes it out: torn bytes as a copy, valid batches by renaming
//! the file that they stand in. Nothing that could still be of use is destroyed.

use std::sync::Arc;

use edgelog_core::{
    Continuation, Effort, LeaderEpoch, Offset, Plausible, Position, RecordBatch, Resync, resync, written_whole,
};

use super::super::origin::Origin;
use super::super::saved_log::DurablePoint;
use super::report::CutTail;
use super::{Recovery, Walked, lost_range};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::segment::walk::is_stale;
use crate::segment::{Cursor, Segment, Window, file_names};
use crate::sorted::sorted;
use crate::storage::{Access, remove_if_there};
use crate::sync::Ordering;

/// A torn tail is copied aside up to this many bytes; a longer one keeps its whole file aside.
const CUT_COPY_BYTES_MAX: u64 = 1 << 20;
/// Batches behind the end are looked for behind so many damaged places.
const SEARCHES_MAX: usize = 64;
/// So many cut tails of one log are kept; the oldest goes first.
const CUT_FILES_MAX: usize = 16;

impl Recovery<'_> {
    /// Ends the log in `segment`, above the recovery point, where the walk has stopped.
    pub(super) fn end_here(&mut self, segment: &mut Arc<Segment>, walked: &Walked) -> Result<()> {
        let Walked { position, next_offset, to_the_end, .. } = *walked;
        let whole = self.written_whole(segment, position, next_offset)?;
        let lost_before =
            whole.map_or_else(|| self.lost_before(segment, position, next_offset), |next| Ok(Some(next)))?;
        if let Some(next) = lost_before {
            self.report.lost.push(lost_range(&self.log.dir, Some(segment), next_offset, next, position));
        }
        if self.is_whole() {
            let len = u64::from(segment.len()?);
            self.pass_over(segment, position, len, (next_offset, lost_before.unwrap_or(next_offset)))?;
        }
        self.cut_tail(segment, position, to_the_end)
    }

    /// The offset behind the batch that is due as `end` at `position` and does not hold, where no stop of a writer has
    /// left it so: its records were there, and perhaps acknowledged.
    fn written_whole(&self, segment: &Segment, position: Position, end: Offset) -> Result<Option<Offset>> {
        let is_known = self.params.saved.is_some();
        // Of a log that no checkpoint knows, one that was copied here may end in anything.
        let may_be_torn = if is_known { !self.is_in_this_boot() } else { self.log.origin() == Origin::Imported };
        if may_be_torn {
            return Ok(None);
        }
        let epochs = self.log.epochs.read();
        let epochs = is_known.then(|| epochs.view());
        let due = Continuation { epochs, ..self.due(end, DurablePoint::default(), None) };
        let mut window = Window::new(Arc::clone(segment.file()?), u64::from(segment.len()?));
        Ok(written_whole(&mut window, u64::from(position), &due).map(|batch| batch.next_offset))
    }

    /// Whether what stands above the recovery point was written since the machine has booted: a kill tears the last
    /// append at most. Nothing is appended behind the end that a clean close has noted.
    fn is_in_this_boot(&self) -> bool {
        self.params.saved.is_some() && self.params.same_boot && !self.params.store_is_clean
    }

    /// Where bytes that are no batch stand as `end` at `position`, in the boot that wrote them, and a batch of this
    /// history stands behind: its base offset. No stop of a writer leaves that, so what was before it is lost.
    fn lost_before(&self, segment: &Segment, position: Position, end: Offset) -> Result<Option<Offset>> {
        let len = u64::from(segment.len()?);
        if !self.is_in_this_boot() || u64::from(position) >= len {
            return Ok(None);
        }
        let mut window = Window::new(Arc::clone(segment.file()?), len);
        let at = u64::from(position);
        let plausible = self.due(end, DurablePoint::default(), None).plausible();
        let Resync::Found(found) = resync(&mut window, at, at + 1, &plausible, &mut Effort::for_segment(len)) else {
            return Ok(None);
        };
        let epochs = self.log.epochs.read();
        let batch = RecordBatch::parse(window.at(found.position, (found.end - found.position) as usize));
        let is_of_this_history = batch.is_ok_and(|batch| !is_stale(&batch, epochs.view(), None));
        Ok(Some(found.base_offset).filter(|&base| is_of_this_history && base > end))
    }

    /// Takes what lies behind the end out of the active segment and keeps it aside.
    pub(super) fn cut_tail(&mut self, segment: &mut Arc<Segment>, position: Position, to_the_end: bool) -> Result<()> {
        let log = self.log;
        let len = file_len(segment)?;
        let reaches_behind = len > u64::from(segment.len()?);
        let tail = if to_the_end && !reaches_behind { 0 } else { tail_bytes(segment, position, len)? };
        if tail == 0 {
            // Room that was reserved and never written: given back, so that nothing old can ever show through.
            segment.publish(position);
            if len > u64::from(position) {
                let path = segment.path();
                segment
                    .file()?
                    .truncate(u64::from(position))
                    .map_err(Error::storage("trim", &path))
                    .or_else(ignore_full)?;
            }
            return Ok(());
        }
        let file = segment.path();
        let valid_offsets = self.valid_offsets_behind(segment, position)?;
        let epoch = log.epochs.read().view().latest().map_or(LeaderEpoch(0), |entry| entry.epoch);
        let kept = file_names::cut_file(&log.dir, segment.base_offset, position, epoch);
        let by_rename = valid_offsets.is_some() || tail > CUT_COPY_BYTES_MAX;
        let kept_in = if by_rename {
            self.keep_by_rename(segment, position, &kept).map(|()| tail)
        } else {
            self.keep_by_copy(segment, position, tail, &kept)
        };
        let (kept_in, tail) = match kept_in {
            Ok(bytes) => (Some(kept), bytes),
            Err(error) => {
                tracing::warn!(log = %log.name, %error, "a cut tail could not be kept aside and stays behind the end");
                (None, tail)
            }
        };
        segment.publish(position);
        tracing::warn!(log = %log.name, file, position = position.0, bytes = tail, ?valid_offsets, "cut a tail");
        self.report.cut.push(CutTail { file, position, bytes: tail, kept_in, valid_offsets });
        self.bound_cut_files();
        Ok(())
    }

    /// Ends a sealed segment where the next one begins. What lies behind is room that was never given back, or what a
    /// failed append left there: the cut that took it off may not have lasted.
    pub(super) fn trim_sealed(&mut self, segment: &mut Arc<Segment>, position: Position) -> Result<()> {
        let len = file_len(segment)?;
        if len > u64::from(position) && tail_bytes(segment, position, len)? > 0 {
            self.cut_tail(segment, position, false)?;
            // The segment may stand in another file now. Like other sealed ones it gets its indexes at the next read
            // there.
            *segment = self.segment(segment.base_offset);
        }
        if len > u64::from(position) {
            segment.set_untrimmed();
        }
        segment.publish(position);
        Ok(())
    }

    /// Torn bytes: a small copy, then the file ends where the log ends. No reader has ever seen them as a
    /// batch. Returns how many bytes are kept.
    fn keep_by_copy(&self, segment: &Segment, position: Position, tail: u64, kept: &str) -> Result<u64> {
        let (storage, dir) = (&self.log.storage, &self.log.dir);
        let path = segment.path();
        // A recovery that was cut short behind the copy has kept all of them already; what is left in the log may be a
        // part. (No other tail has this name: the epoch in it rises before anything is appended.)
        let before = storage.metadata(kept).map_or(0, |meta| meta.len);
        if before < tail {
            self.copy_tail(segment, position, tail, kept)?;
        }
        // The copy has its name for good before the bytes leave the log's file.
        if !bug(Bug::CutBeforeKept) {
            storage.sync_dir(dir).map_err(Error::storage("sync directory", dir))?;
        }
        segment.file()?.truncate(u64::from(position)).map_err(Error::storage("cut", &path))?;
        Ok(before.max(tail))
    }

    fn copy_tail(&self, segment: &Segment, position: Position, tail: u64, kept: &str) -> Result<()> {
        let (storage, dir) = (&self.log.storage, &self.log.dir);
        let path = segment.path();
        let mut bytes = vec![0; tail as usize];
        let read = segment.file()?.read_at(&mut bytes, u64::from(position)).map_err(Error::storage("read", &path))?;
        // Under another name first: a recovery that was cut short may have left half a copy under this one.
        let part = file_names::part_file(dir, segment.base_offset);
        remove_if_there(&**storage, &part).map_err(Error::storage("replace", &part))?;
        let copy = storage.open(&part, Access::CreateNew).map_err(Error::storage("create", &part))?;
        if let Err(error) = copy.write_at(&bytes[..read], 0).and_then(|()| copy.flush()) {
            let _ = storage.remove_file(&part);
            return Err(Error::storage("write", &part)(error));
        }
        storage.rename(&part, kept).map_err(Error::storage("keep aside", kept))
    }

    /// Valid batches behind the end: the old file keeps them, and the log goes on in a copy of what it keeps.
    fn keep_by_rename(&self, segment: &mut Arc<Segment>, position: Position, kept: &str) -> Result<()> {
        let log = self.log;
        let part = file_names::part_file(&log.dir, segment.base_offset);
        let path = segment.path();
        self.keep_for_good(segment, position);
        let copy = log.copy_prefix(segment, &part, position)?;
        // The copy's name lasts before the segment may lose its own.
        log.storage.sync_dir(&log.dir).map_err(Error::storage("sync directory", &log.dir))?;
        // Between the two renames the segment has no name of its own; `list` of the next open knows what that means.
        log.storage.rename(&path, kept).map_err(Error::storage("keep aside", &path))?;
        // The first name lasts before the second may: else a cut could keep the copy and lose what was kept aside.
        log.storage.sync_dir(&log.dir).map_err(Error::storage("sync directory", &log.dir))?;
        log.storage.rename(&part, &path).map_err(Error::storage("swap in", &path))?;
        log.storage.sync_dir(&log.dir).map_err(Error::storage("sync directory", &log.dir))?;
        let options = log.segment_options();
        *segment = Arc::new(Segment::on_file(&log.storage, &log.dir, options, segment.base_offset, copy, position));
        Ok(())
    }

    /// What is put aside as a file is written again and flushed like what is served. A disk that refuses is no
    /// reason to stop: it is no part of the log.
    fn keep_for_good(&self, segment: &Segment, from: Position) {
        if let Err(error) = self.make_segment_durable(segment, from) {
            tracing::warn!(log = %self.log.name, %error, "what is put aside may not outlast a power cut");
        }
    }

    /// A whole segment behind the end of the log.
    pub(super) fn cut_segment(&mut self, base_offset: Offset) -> Result<()> {
        let log = self.log;
        let segment = self.segment(base_offset);
        let file = segment.path();
        let bytes = tail_bytes(&segment, Position(0), file_len(&segment)?)?;
        let valid_offsets = self.valid_offsets_behind(&segment, Position(0))?;
        let kept_in = if bytes == 0 {
            segment.remove_files()?;
            None
        } else {
            let epoch = log.epochs.read().view().latest().map_or(LeaderEpoch(0), |entry| entry.epoch);
            let kept = file_names::cut_file(&log.dir, base_offset, Position(0), epoch);
            self.keep_for_good(&segment, Position(0));
            let renamed = log.storage.rename(&file, &kept);
            // Where it cannot be kept it still has to go: behind the end it would be taken for a part of the log one
            // day.
            segment.remove_files()?;
            renamed.is_ok().then_some(kept)
        };
        if bytes > 0 {
            self.report.cut.push(CutTail { file, position: Position(0), bytes, kept_in, valid_offsets });
        }
        self.writer.names_dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// First and last offset of the batches from `position` on that are valid in themselves, found by bounded searches.
    /// One whose base offset those behind it contradict does not count.
    pub(super) fn valid_offsets_behind(
        &self,
        segment: &Segment,
        position: Position,
    ) -> Result<Option<(Offset, Offset)>> {
        let len = segment.len()?;
        let mut window = Window::new(Arc::clone(segment.file()?), u64::from(len));
        let mut effort = Effort::for_segment(u64::from(len));
        let (mut at, mut next, mut range) = (position, None, None);
        for _ in 0..SEARCHES_MAX {
            // The first may have any offset: one that did not get its own yet has 0.
            let due = self.log.due(next.unwrap_or(Offset(0)), Offset::MAX).plausible();
            let offset_min = next.unwrap_or(Plausible::ANY_OFFSET);
            // Nor do they follow each other without holes: stale ones of several histories may stand side by side.
            let plausible = Plausible { offset_min, contiguous: false, durable_below: Offset(0), ..due };
            match resync(&mut window, u64::from(at), u64::from(at), &plausible, &mut effort) {
                Resync::Found(found) => at = Position(found.position as u32),
                _ => break,
            }
            let mut cursor = Cursor::new(&self.log.pool);
            while let Ok(Ok(batch)) = cursor.batch(segment, at, len) {
                if next.is_some_and(|next| batch.base_offset() < next) || batch.verify_crc().is_err() {
                    break;
                }
                range = Some((range.map_or(batch.base_offset(), |(first, _)| first), batch.last_offset()));
                (at, next) = (at + batch.size() as u32, Some(batch.next_offset()));
            }
        }
        Ok(range)
    }

    /// Cut tails are kept, but not without bound.
    fn bound_cut_files(&self) {
        let (storage, dir) = (&self.log.storage, &self.log.dir);
        let Ok(names) = storage.read_dir(dir) else { return };
        let names = names.into_iter().map(|entry| entry.name);
        let cut = names.filter(|name| file_names::parse_cut_file(name).is_some());
        // The epoch in the name shows which came first.
        let cut = sorted(cut.map(|name| (file_names::cut_file_epoch(&name), name)).collect());
        for (_, name) in cut.iter().rev().skip(CUT_FILES_MAX) {
            tracing::warn!(log = %self.log.name, name, "removed the oldest of too many cut tails");
            let _ = storage.remove_file(&format!("{dir}/{name}"));
        }
    }
}

/// How long the file is: a segment's own length ends where positions do, at 2 GiB, and what lies behind is kept.
fn file_len(segment: &Segment) -> Result<u64> {
    segment.file()?.len().map_err(Error::storage("look at", &segment.path()))
}

/// Where trimming fails there is no harm: the zeros stay, and what is written over them is the same.
fn ignore_full(error: Error) -> Result<()> {
    if error.is_storage_full() { Ok(()) } else { Err(error) }
}

/// How many bytes from `position` on are no reserved room.
fn tail_bytes(segment: &Segment, position: Position, len: u64) -> Result<u64> {
    Ok(Window::new(Arc::clone(segment.file()?), len).tail_bytes(u64::from(position)))
}
