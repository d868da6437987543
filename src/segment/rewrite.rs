//! Rewriting one segment: what holds is copied, fields outside the CRC are put right, and what is lost becomes a
//! gap that says so.

use edgelog_core::{EpochTableView, LeaderEpoch, NO_LEADER_EPOCH, Offset, Position, RecordBatch};

use super::built_indexes::remove_indexes;
use super::decompressor::Decompressor;
use super::file_names;
use super::gap::gap_batches;
use super::sink::Sink;
use super::walk::{Damage, Step, WalkRules, Walker};
use crate::error::{Error, Result};
use crate::storage::Storage;

/// A gap of more offsets stays a hole; 512 batches fill one of this width.
const GAP_OFFSETS_MAX: i64 = 1 << 40;

/// What rewriting a segment did.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    /// Files that keep what was taken out.
    pub(crate) cut_files: Vec<String>,
    /// Offsets that hold nothing now.
    pub(crate) gaps: Vec<(Offset, Offset)>,
    pub(crate) epochs_healed: u64,
    pub(crate) bases_healed: u64,
    /// Where the recovery point stands in the new file, if it does.
    pub(crate) recovery_position: Option<Position>,
}

/// One segment that is to be rewritten, and what its log knows of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rewrite<'a> {
    /// The partition's directory.
    pub(crate) dir: &'a str,
    pub(crate) base_offset: Offset,
    /// What its batches are held to.
    pub(crate) rules: WalkRules,
    pub(crate) epochs: EpochTableView<'a>,
    /// Below this offset everything was durable; from there on bytes are copied as they are.
    pub(crate) point: Offset,
    /// No segment follows.
    pub(crate) is_last: bool,
    /// The segment has to reach this offset.
    pub(crate) fill_to: Option<Offset>,
}

/// One segment being rewritten.
struct Rewriter<'a> {
    storage: &'a dyn Storage,
    of: Rewrite<'a>,
    walker: Walker,
    out: Sink,
    done: Rewritten,
    /// The offset that the new file reaches.
    reached: Offset,
}

/// Rewrites a segment and puts it in place.
///
/// In this order: the new file is whole and durable under a name of its own, and so is what was taken out; the indexes
/// go; the new file takes the segment's name; the directory is synced. Cut anywhere, what is left is the old segment
/// or the new.
pub(crate) fn rewrite_segment(
    storage: &dyn Storage,
    of: Rewrite<'_>,
    decompressor: &mut Decompressor,
) -> Result<Rewritten> {
    let path = file_names::log_file(of.dir, of.base_offset);
    let walker = Walker::open(storage, &path, of.rules)?;
    let part = file_names::part_file(of.dir, of.base_offset);
    let out = Sink::create(storage, part.clone())?;
    let mut rewriter = Rewriter { storage, of, walker, out, done: Rewritten::default(), reached: of.base_offset };
    rewriter.run(decompressor)?;
    let Rewriter { out, done, .. } = rewriter;
    out.finish()?;
    storage.sync_dir(of.dir).map_err(Error::storage("sync directory", of.dir))?;
    remove_indexes(storage, of.dir, of.base_offset)?;
    storage.rename(&part, &path).map_err(Error::storage("swap in", &path))?;
    storage.sync_dir(of.dir).map_err(Error::storage("sync directory", of.dir))?;
    Ok(done)
}

impl Rewriter<'_> {
    fn run(&mut self, decompressor: &mut Decompressor) -> Result<()> {
        loop {
            if self.reached >= self.of.point {
                self.note_point();
                return self.copy_rest(self.walker.position());
            }
            match self.walker.next() {
                Step::Batch { position } => {
                    let batch = self.walker.batch();
                    if decompressor.check(&batch).is_err_and(|fault| fault.is_damage()) {
                        let (first, next, size) = (batch.base_offset(), self.walker.next_offset(), batch.size() as u64);
                        self.cut(position, position + size)?;
                        self.gap(first, next)?;
                        continue;
                    }
                    let (base, next, epoch) =
                        (batch.base_offset(), self.walker.next_offset(), batch.partition_leader_epoch());
                    let right = self.of.epochs.epoch_for(base).unwrap_or(epoch);
                    self.done.epochs_healed += u64::from(right != epoch);
                    self.out.write_stamped(batch.bytes(), base, right)?;
                    self.reached = next;
                }
                Step::Damage(damage) => {
                    if !self.on_damage(&damage, decompressor)? {
                        break;
                    }
                }
                Step::Zeros { .. } | Step::End => break,
            }
        }
        if let Some(to) = self.of.fill_to.filter(|&to| to > self.reached) {
            self.gap(self.reached, to)?;
        }
        if self.reached >= self.of.point {
            self.note_point();
        }
        Ok(())
    }

    /// `false` where nothing good follows in this segment.
    fn on_damage(&mut self, damage: &Damage, decompressor: &mut Decompressor) -> Result<bool> {
        let Damage { position, first_offset, .. } = *damage;
        if let Some(batch) = damage.wrong_base {
            let size = (batch.end - batch.position) as usize;
            let bytes = self.walker.bytes(position, size)[..size].to_vec();
            let mut is_readable = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                bytes[..8].copy_from_slice(&batch.base_offset.0.to_be_bytes());
                RecordBatch::parse(&bytes)
                    .is_ok_and(|batch| !decompressor.check(&batch).is_err_and(|it| it.is_damage()))
            };
            if !is_readable(&bytes) {
                self.cut(position, batch.end)?;
                self.gap(batch.base_offset, batch.next_offset)?;
                return Ok(true);
            }
            let known = self.of.epochs.epoch_for(batch.base_offset);
            let own = RecordBatch::peek_place(&bytes).map_or(NO_LEADER_EPOCH, |(_, epoch)| epoch);
            self.out.write_stamped(&bytes, batch.base_offset, known.unwrap_or(own))?;
            self.done.bases_healed += 1;
            self.reached = self.walker.expected();
            return Ok(true);
        }
        self.cut(position, damage.resumes_at.unwrap_or(self.walker.end()))?;
        let (Some(at), Some(next)) = (damage.resumes_at, damage.next_offset) else { return Ok(false) };
        let point = self.of.point;
        if next < point || first_offset >= point {
            self.gap(first_offset, next)?;
            return Ok(true);
        }
        self.gap(first_offset, point)?;
        self.note_point();
        if self.of.is_last && self.walker.is_stale_at(at, self.of.epochs) {
            // What follows is of another history: recovery keeps it aside.
            self.copy_rest(at)?;
            return Ok(false);
        }
        self.gap(point, next)?;
        Ok(true)
    }

    fn note_point(&mut self) {
        self.done.recovery_position.get_or_insert(Position(self.out.position() as u32));
    }

    fn gap(&mut self, first: Offset, next: Offset) -> Result<()> {
        if next.saturating_since(first) > GAP_OFFSETS_MAX {
            // So wide a hole stays one: batches for it would fill the disk.
            self.reached = next;
            return Ok(());
        }
        for batch in gap_batches(first, next, self.of.epochs) {
            self.out.write(&batch)?;
        }
        if first < next {
            self.done.gaps.push((first, next));
            self.reached = next;
        }
        Ok(())
    }

    /// Keeps the bytes `from..to` of the old file aside, unless they are all zeros. (Some zeros at the end may be a
    /// batch's own.)
    fn cut(&mut self, from: u64, to: u64) -> Result<()> {
        if self.walker.first_nonzero(from).is_none_or(|first| first >= to) {
            return Ok(());
        }
        let path = self.cut_path(from);
        let mut kept = Sink::create(self.storage, path.clone())?;
        self.copy(from, to, &mut kept)?;
        kept.finish()?;
        self.done.cut_files.push(path);
        Ok(())
    }

    /// A name that no earlier cut has.
    fn cut_path(&self, position: u64) -> String {
        let epoch = self.of.epochs.latest().map_or(LeaderEpoch(0), |latest| latest.epoch);
        let names = (epoch.0..=i32::MAX).map(|epoch| {
            file_names::cut_file(self.of.dir, self.of.base_offset, Position(position as u32), LeaderEpoch(epoch))
        });
        let is_free = |path: &String| self.storage.metadata(path).is_err();
        names.into_iter().find(is_free).unwrap_or_default()
    }

    /// Copies the rest as it is: it is above the recovery point, and recovery's to judge.
    fn copy_rest(&mut self, from: u64) -> Result<()> {
        let mut at = from;
        while at < self.walker.end() {
            let bytes = self.walker.bytes(at, 1);
            if bytes.is_empty() {
                break;
            }
            self.out.write(bytes)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    fn copy(&mut self, from: u64, to: u64, out: &mut Sink) -> Result<()> {
        let mut at = from;
        while at < to {
            let bytes = self.walker.bytes(at, 1);
            let bytes = &bytes[..bytes.len().min((to - at) as usize)];
            if bytes.is_empty() {
                break;
            }
            out.write(bytes)?;
            at += bytes.len() as u64;
        }
        Ok(())
    }
}
