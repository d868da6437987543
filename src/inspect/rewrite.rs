//! Writing one segment anew: what holds is copied, fields outside the CRC are put right, and what is lost becomes a
//! gap that says so.
//!
//! A gap is a batch without records, as Kafka's own compaction leaves them: 61 bytes, valid in every rule, that say
//! "the offsets from here to there hold nothing". So a repaired log stays contiguous, and keeps the rule by which a
//! stale batch can never continue it.

use std::sync::Arc;

use edgelog_core::{
    CRC_START, EpochTableView, HEADER_LEN, LeaderEpoch, MAGIC, NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP, Offset, Position, RecordBatch, crc32c, stamp_base,
};

use super::facts::LogFacts;
use super::indexes::BuiltIndexes;
use super::plan::SegmentPlan;
use super::records::Decompressor;
use super::walk::{Damage, Step, Walker};
use crate::error::{Error, Result};
use crate::segment::file_names;
use crate::storage::{Access, Storage, StorageFile, remove_if_there};

/// A gap of more offsets stays a hole where holes are legal; 512 batches fill one of this width.
const GAP_OFFSETS_MAX: Offset = 1 << 40;
/// Written in one go.
const PIECE_BYTES: usize = 256 << 10;

/// A file that is written from front to end.
#[derive(Debug)]
pub(super) struct Sink {
    path: String,
    file: Arc<dyn StorageFile>,
    written: u64,
    buffer: Vec<u8>,
}

impl Sink {
    /// Creates `path`, in the place of a leftover.
    pub(super) fn create(storage: &dyn Storage, path: String) -> Result<Sink> {
        let _ = storage.remove_file(&path);
        let file = storage.open(&path, Access::CreateNew).map_err(Error::storage("create", &path))?;
        Ok(Sink { path, file, written: 0, buffer: Vec::new() })
    }

    pub(super) fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES { self.spill() } else { Ok(()) }
    }

    /// Writes a batch with another base offset and epoch; neither is under the CRC.
    pub(super) fn write_stamped(&mut self, batch: &[u8], base_offset: Offset, epoch: LeaderEpoch) -> Result<()> {
        let from = self.buffer.len();
        self.buffer.extend_from_slice(batch);
        stamp_base(&mut self.buffer[from..], base_offset, epoch);
        if self.buffer.len() >= PIECE_BYTES { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written).map_err(Error::storage("write", &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Leaves it to the system when the bytes become durable: for what is derived.
    fn finish_derived(mut self) -> Result<()> {
        self.spill()
    }

    /// Makes the bytes durable; the name is its directory's to sync.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.spill()?;
        self.file.flush().map_err(Error::storage("flush", &self.path))?;
        Ok(self.written)
    }
}

/// The batch that says that the offsets `first..next` hold no records.
fn gap_batch(first: Offset, next: Offset, epoch: LeaderEpoch) -> [u8; HEADER_LEN] {
    debug_assert!(first < next && next - first <= i64::from(i32::MAX), "a batch's offsets fit 31 bits");
    let mut bytes = [0; HEADER_LEN];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &first.to_be_bytes());
    put(8, &edgelog_core::BATCH_LENGTH_MIN.to_be_bytes());
    put(12, &epoch.to_be_bytes());
    put(16, &MAGIC.to_be_bytes());
    put(23, &((next - first - 1) as i32).to_be_bytes());
    put(27, &NO_TIMESTAMP.to_be_bytes());
    put(35, &NO_TIMESTAMP.to_be_bytes());
    put(43, &NO_PRODUCER_ID.to_be_bytes());
    put(51, &NO_PRODUCER_EPOCH.to_be_bytes());
    put(53, &NO_SEQUENCE.to_be_bytes());
    let crc = crc32c(&bytes[CRC_START..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The gap `first..next` as batches, each within one epoch.
pub(super) fn gap_batches(first: Offset, next: Offset, epochs: EpochTableView<'_>) -> Vec<[u8; HEADER_LEN]> {
    let mut batches = Vec::new();
    let mut from = first;
    while from < next {
        let starts = epochs.entries().iter().map(|entry| entry.start_offset);
        let epoch_end = starts.filter(|&start| start > from).min().unwrap_or(Offset::MAX);
        let to = next.min(epoch_end).min(from.saturating_add(i64::from(i32::MAX)));
        batches.push(gap_batch(from, to, epochs.epoch_for(from).unwrap_or(NO_LEADER_EPOCH)));
        from = to;
    }
    batches
}

/// What writing a segment anew did.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// Files that keep what was taken out.
    pub(super) cut_files: Vec<String>,
    /// Offsets that hold nothing now.
    pub(super) gaps: Vec<(Offset, Offset)>,
    pub(super) epochs_healed: u64,
    pub(super) bases_healed: u64,
    /// Where the recovery point stands in the new file, if it does.
    pub(super) recovery_position: Option<Position>,
}

/// One segment being written anew.
struct Rewriter<'a> {
    storage: &'a dyn Storage,
    facts: &'a LogFacts,
    plan: &'a SegmentPlan,
    /// Below this offset everything was durable.
    point: Offset,
    walker: Walker,
    out: Sink,
    done: Rewritten,
    /// The offset that the new file reaches.
    reached: Offset,
}

/// Writes the segment of `plan` anew and puts it in place.
///
/// In this order: the new file is whole and durable under a name of its own, and so is what was taken out; the indexes
/// go; the new file takes the segment's name; the directory is synced. Cut anywhere, what is left is the old segment
/// or the new.
pub(super) fn rewrite_segment(
    storage: &dyn Storage,
    facts: &LogFacts,
    plan: &SegmentPlan,
    point: Offset,
) -> Result<Rewritten> {
    let path = file_names::log_file(&facts.dir, plan.base_offset);
    let file = storage.open(&path, Access::Read).map_err(Error::storage("open", &path))?;
    let len = file.len().map_err(Error::storage("look at", &path))?.min(i32::MAX as u64);
    let rules = facts.walk_rules(plan.base_offset, plan.upper);
    let part = file_names::part_file(&facts.dir, plan.base_offset);
    let out = Sink::create(storage, part.clone())?;
    let mut rewriter = Rewriter {
        storage,
        facts,
        plan,
        point,
        walker: Walker::new(file, len, rules),
        out,
        done: Rewritten::default(),
        reached: plan.base_offset,
    };
    rewriter.run(&mut Decompressor::default())?;
    let Rewriter { out, done, .. } = rewriter;
    out.finish()?;
    storage.sync_dir(&facts.dir).map_err(Error::storage("sync directory", &facts.dir))?;
    remove_indexes(storage, facts, plan.base_offset)?;
    storage.rename(&part, &path).map_err(Error::storage("swap in", &path))?;
    storage.sync_dir(&facts.dir).map_err(Error::storage("sync directory", &facts.dir))?;
    Ok(done)
}

impl Rewriter<'_> {
    fn run(&mut self, decompressor: &mut Decompressor) -> Result<()> {
        loop {
            if self.reached >= self.point {
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
                    let right = self.facts.epochs.view().epoch_for(base).unwrap_or(epoch);
                    self.done.epochs_healed += u64::from(right != epoch);
                    self.out.write_stamped(batch.bytes(), base, right)?;
                    self.reached = next;
                }
                Step::Damage(damage) => {
                    if !self.on_damage(&damage)? {
                        break;
                    }
                }
                Step::Zeros { .. } | Step::End => break,
            }
        }
        if let Some(to) = self.plan.fill_to.filter(|&to| to > self.reached) {
            self.gap(self.reached, to)?;
        }
        if self.reached >= self.point {
            self.note_point();
        }
        Ok(())
    }

    /// `false` where nothing good follows in this segment.
    fn on_damage(&mut self, damage: &Damage) -> Result<bool> {
        let Damage { position, first_offset, .. } = *damage;
        if let Some(size) = damage.wrong_base {
            let bytes = self.walker.bytes(position, size as usize)[..size as usize].to_vec();
            let known = self.facts.epochs.view().epoch_for(first_offset);
            let own = LeaderEpoch::from_be_bytes(bytes[12..16].try_into().expect("four bytes"));
            self.out.write_stamped(&bytes, first_offset, known.unwrap_or(own))?;
            self.done.bases_healed += 1;
            self.reached = self.walker.expected();
            return Ok(true);
        }
        self.cut(position, damage.resumes_at.unwrap_or(self.walker.end()))?;
        let (Some(at), Some(next)) = (damage.resumes_at, damage.next_offset) else { return Ok(false) };
        let bound = self.plan.upper.map_or(self.point, |_| Offset::MAX);
        self.gap(first_offset, next.min(bound))?;
        if next > bound {
            // What follows stands above the recovery point and does not continue the log: recovery keeps it aside.
            self.note_point();
            self.copy_rest(at)?;
            return Ok(false);
        }
        Ok(true)
    }

    fn note_point(&mut self) {
        self.done.recovery_position.get_or_insert(self.out.position() as Position);
    }

    fn gap(&mut self, first: Offset, next: Offset) -> Result<()> {
        if next.saturating_sub(first) > GAP_OFFSETS_MAX && !self.facts.contiguous() {
            // Offsets need only rise here. So wide a hole stays one: batches for it would fill the disk.
            self.reached = next;
            return Ok(());
        }
        for batch in gap_batches(first, next, self.facts.epochs.view()) {
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
        let epoch = self.facts.epochs.view().latest().map_or(0, |latest| latest.epoch);
        let names = (epoch..=i32::MAX)
            .map(|epoch| file_names::cut_file(&self.facts.dir, self.plan.base_offset, position as Position, epoch));
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

fn remove_indexes(storage: &dyn Storage, facts: &LogFacts, base_offset: Offset) -> Result<()> {
    for path in [file_names::index_file(&facts.dir, base_offset), file_names::time_index_file(&facts.dir, base_offset)]
    {
        remove_if_there(storage, &path).map_err(Error::storage("remove", &path))?;
    }
    Ok(())
}

/// Builds the indexes of a segment from its batches and writes them. They are derived: a crash in between leaves a
/// segment without indexes, which is sound.
pub(super) fn rebuild_indexes(storage: &dyn Storage, facts: &LogFacts, plan: &SegmentPlan) -> Result<()> {
    let path = file_names::log_file(&facts.dir, plan.base_offset);
    let file = storage.open(&path, Access::Read).map_err(Error::storage("open", &path))?;
    let len = file.len().map_err(Error::storage("look at", &path))?.min(i32::MAX as u64);
    let built =
        build_indexes(Walker::new(file, len, facts.walk_rules(plan.base_offset, plan.upper)), plan.base_offset, facts);
    remove_indexes(storage, facts, plan.base_offset)?;
    write_indexes(storage, &facts.dir, &built)
}

fn build_indexes(mut walker: Walker, base_offset: Offset, facts: &LogFacts) -> BuiltIndexes {
    let mut built = BuiltIndexes::new(base_offset, facts.config.index_interval_bytes);
    loop {
        match walker.next() {
            Step::Batch { position } => {
                let batch: RecordBatch<'_> = walker.batch();
                built.on_batch(position, walker.next_offset() - 1, batch.max_timestamp());
            }
            Step::Damage(_) => {}
            Step::Zeros { .. } | Step::End => break,
        }
    }
    built.seal();
    built
}

/// Writes both index files of a segment in the directory `dir`, where there are none. They are derived, so nothing is
/// flushed.
pub(super) fn write_indexes(storage: &dyn Storage, dir: &str, built: &BuiltIndexes) -> Result<()> {
    let base_offset = built.base_offset();
    let files = [
        (file_names::index_file(dir, base_offset), &built.offsets),
        (file_names::time_index_file(dir, base_offset), &built.times),
    ];
    for (path, bytes) in files {
        let mut out = Sink::create(storage, path)?;
        out.write(bytes)?;
        out.finish_derived()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgelog_core::{EpochEntry, EpochTableView, ScanRules, ScanStep, scan_step};

    /// Gaps are valid batches by every rule of a log, never cross an epoch, and cover exactly what was lost.
    #[test]
    fn gaps_are_valid_batches_without_records() {
        let entries = [EpochEntry { epoch: 0, start_offset: 10 }, EpochEntry { epoch: 4, start_offset: 100 }];
        let epochs = EpochTableView(&entries);
        for (first, next) in [(10, 11), (50, 100), (50, 150), (5, 200), (0, 5_000_000_000)] {
            let mut rules = ScanRules {
                expected_offset: Some(first),
                contiguous: true,
                epochs: Some(epochs),
                batch_bytes_max: 1000,
                check_crc: true,
            };
            for bytes in gap_batches(first, next, epochs) {
                let ScanStep::Batch(batch) = scan_step(&bytes, &rules) else { panic!("{first} to {next}") };
                assert_eq!((batch.record_count(), batch.records().unwrap().count()), (0, 0));
                rules = rules.after(&batch);
            }
            assert_eq!(rules.expected_offset, Some(next));
        }
    }
}
