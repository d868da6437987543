//! Taking logs elsewhere: as a partition directory that a broker takes, or record by record.

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use edgelog_core::limits::READABLE_BYTES_MAX;
use edgelog_core::{
    HEADER_LEN, LeaderEpoch, LogConfig, LogId, Offset, Record, RecordBatch, RecordBatchBuilder, TimestampType,
};

use super::check::HiddenCheck;
use super::export_report::{ExportRange, ExportReport};
use super::facts::{Listing, LogFacts};
use super::log_check::PassedOver;
use super::pause;
use super::report::{Finding, PASSED_OVER, Progress, Severity, WRONG_BASE, behind_damage, undecodable};
use super::segment_check::{behind_old_messages, ends_log, is_old_format};
use super::shared::SharedStorage;
use crate::error::{DamageKind, Error, Result};
use crate::log::{Log, OffsetSpec, Reader, TopicPartition, is_unreadable};
use crate::segment::built_indexes::BuiltIndexes;
use crate::segment::built_indexes::write_indexes;
use crate::segment::decompressor::Decompressor;
use crate::segment::file_names;
use crate::segment::held::{held_nowhere, lost_everywhere};
use crate::segment::passed_over::{common, lost_of, take_out};
use crate::segment::sink::Sink;
use crate::segment::walk::{Cause, Damage, Step, WalkRules, Walker};
use crate::storage::{Access, DirectoryStorage, DirectoryStorageOptions, Storage, StoreMode};
use crate::store::Store;
use crate::store::checkpoint::{Checkpoint, Followed};

/// The epoch of every exported batch: a topic that a broker has just created is in this one.
const EXPORTED_EPOCH: LeaderEpoch = LeaderEpoch(0);
const PROGRESS_BYTES: u64 = 1 << 20;
/// Files that a writer exchanges meanwhile are waited for so often.
const EXCHANGED_MAX: usize = 10;
const EXCHANGED_PAUSE: Duration = Duration::from_millis(20);

/// What there is to say of a file of the log `name` that cannot be opened or read at all, by `error`: another user's,
/// or no regular one. A reader of the log stood at `position`; with it comes the offset where the next segment begins,
/// where there is one to go on with. `None` where `error` says something else.
pub fn unreadable_segment(
    storage: &Arc<dyn Storage>,
    name: &TopicPartition,
    error: &Error,
    position: Offset,
) -> Option<(Finding, Option<Offset>)> {
    let (dir, Error::Storage { path, source, .. }) = (name.to_string(), error) else { return None };
    let file = path.strip_prefix(&dir).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    if !is_unreadable(error) {
        return None;
    }
    let base = file_names::parse_log_file(file.trim_start_matches('/'));
    let segments = Listing::read(&**storage, &dir, None, false).unwrap_or_default().segments;
    let next = segments.iter().map(|(base, _)| *base).find(|&next| base.is_some_and(|base| next > base.max(position)));
    let (log, text) = (Some(name.clone()), format!("cannot be opened: {source}"));
    let lost = next.filter(|&next| position < next).map(|next| (position, next));
    Some((Finding { severity: Severity::Lost, log, file: path.clone(), position: None, lost, text }, next))
}

/// The directory `path`, created where it is missing, as a place to export to.
///
/// # Errors
/// [`Error::Storage`].
pub fn export_directory(path: impl AsRef<std::path::Path>) -> Result<Arc<dyn Storage>> {
    let path = path.as_ref();
    // For a broker, which is another user more often than not: the umask alone says who may read.
    let file_mode = 0o666;
    let options =
        DirectoryStorageOptions { store_mode: StoreMode::File, file_mode, ..DirectoryStorageOptions::default() };
    let name = path.display().to_string();
    Ok(Arc::new(DirectoryStorage::open(path, options).map_err(Error::storage("open directory", &name))?))
}

/// Writes one log as a partition directory that a Kafka broker takes, named like the log, under `target`.
///
/// In it are the segments with their batches as they are but for the leader epoch, which is 0 in all of them (it is
/// outside the CRC); their indexes, built again with
/// Kafka's own `index.interval.bytes`; `leader-epoch-checkpoint`; and with `topic_id` (Kafka's 22 characters)
/// `partition.metadata`. The broker's topic has to exist and have that id, the broker be stopped, and its
/// `.kafka_cleanshutdown` be removed.
///
/// Works next to a live writer: the log ends where its last valid batch ends. A batch that reaches over the log start
/// or an end of `range` is written again with the records inside; one of a transactional or idempotent producer is
/// exported whole. Damage is left out and named in the report.
///
/// # Errors
/// [`Error::Storage`], with `AlreadyExists` where `target` has such a directory already, or one with `.part` behind its
/// name, in which it is written, and with `Interrupted` where `progress` stopped it;
/// [`Error::UnknownTopicOrPartition`], also where the log has no segment. Nothing is then left under the directory's
/// name.
///
/// # Durability
/// On return, the directory is on the disk.
pub fn export_partition(
    storage: &Arc<dyn Storage>,
    name: &TopicPartition,
    target: &Arc<dyn Storage>,
    range: ExportRange,
    topic_id: Option<&str>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<ExportReport> {
    Export::new(storage, range)?.partition(name, target, topic_id, progress)
}

/// Exports several logs of a store: its checkpoint, which has all of them, is read once and again where a writer has
/// written it, and the store is attached once. So each log costs what it holds.
#[derive(Debug)]
pub struct Export {
    storage: Arc<dyn Storage>,
    range: ExportRange,
    /// The checkpoint as `hidden` knows it, to see whether another one was written.
    followed: Followed,
    seen: Option<Arc<Checkpoint>>,
    hidden: HiddenCheck,
    store: Option<Store>,
}

impl Export {
    /// An export of `range` of each log of the store on `storage`.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn new(storage: &Arc<dyn Storage>, range: ExportRange) -> Result<Export> {
        let mut followed = Followed::default();
        let seen = followed.now(&**storage).ok().cloned();
        let hidden = HiddenCheck::new(storage)?;
        Ok(Export { storage: Arc::clone(storage), range, followed, seen, hidden, store: None })
    }

    /// See [`export_partition`].
    ///
    /// # Errors
    /// As [`export_partition`].
    ///
    /// # Durability
    /// As [`export_partition`].
    pub fn partition(
        &mut self,
        name: &TopicPartition,
        target: &Arc<dyn Storage>,
        topic_id: Option<&str>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<ExportReport> {
        if let Some(id) = topic_id.filter(|id| parse_uuid(id).is_none()) {
            let reason = "a topic id is 22 characters of base64url, as `kafka-topics --describe` prints it";
            return Err(Error::storage("use topic id", id)(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let dir = name.to_string();
        let part = Part::of(target, &dir)?;
        let report = part.fill(self, name, topic_id, progress)?;
        part.put_in_place()?;
        Ok(report)
    }

    /// See [`export_records`].
    ///
    /// # Errors
    /// As [`export_records`].
    pub fn records(
        &mut self,
        name: &TopicPartition,
        each: &mut dyn FnMut(&Record<'_>, TimestampType) -> io::Result<()>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<ExportReport> {
        let (storage, range) = (Arc::clone(&self.storage), self.range);
        let mut attached = match self.attached(name, range.from, false) {
            Ok(attached) => attached,
            Err(error) => return self.all_lost(name, error),
        };
        let bytes_total = attached.log.size().map_or(0, |(_, bytes)| bytes);
        let mut report = ExportReport::default();
        let (mut reported, mut exchanged, mut doubted) = (0, 0, None);
        loop {
            let batch = match attached.reader.next_batch() {
                Ok(Some(batch)) => batch,
                Err(Error::CorruptRecord { source, .. })
                    if !matches!(source, DamageKind::OutcomeInDoubt)
                        && doubted != Some(attached.reader.position().offset) =>
                {
                    // A file that a truncation exchanges may look like damage: a new reader sees what is there.
                    let position = attached.reader.position().offset;
                    doubted = Some(position);
                    attached = self.attached(name, position, true)?;
                    attached.reader.set_asked_from(range.from);
                    if report.goes_back(position, attached.reader.position().offset, range) {
                        return Ok(report);
                    }
                    continue;
                }
                Err(error @ Error::CorruptRecord { .. }) => {
                    let range = attached.reader.skip_damage()?;
                    for skipped in Finding::all_skipped(name, &range, &error) {
                        report.lose(skipped);
                    }
                    continue;
                }
                Err(Error::OffsetOutOfRange { requested, log_start_offset, .. }) if requested < log_start_offset => {
                    // Retention was faster.
                    report.goes_back(requested, log_start_offset, range);
                    attached.reader.seek(OffsetSpec::Offset(log_start_offset))?;
                    continue;
                }
                // The end, or a truncation removed what was to come.
                Ok(None) | Err(Error::OffsetOutOfRange { .. } | Error::FencedLeaderEpoch { .. }) => {
                    self.lose_hidden(&mut report, name)?;
                    return Ok(report);
                }
                Err(Error::Storage { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && exchanged < EXCHANGED_MAX =>
                {
                    // Files are being exchanged under the reader: a new one looks at what there is.
                    exchanged += 1;
                    pause(EXCHANGED_PAUSE);
                    let position = attached.reader.position().offset;
                    attached = self.attached(name, position, true)?;
                    attached.reader.set_asked_from(range.from);
                    if report.goes_back(position, attached.reader.position().offset, range) {
                        return Ok(report);
                    }
                    continue;
                }
                Err(error) => {
                    let position = attached.reader.position().offset;
                    let Some((finding, next)) = unreadable_segment(&storage, name, &error, position) else {
                        return Err(error);
                    };
                    report.lose(finding);
                    let Some(next) = next else { return Ok(report) };
                    attached.reader.seek(OffsetSpec::Offset(next))?;
                    continue;
                }
            };
            exchanged = 0;
            if batch.base_offset() >= range.until {
                self.lose_hidden(&mut report, name)?;
                return Ok(report);
            }
            let before = report.records;
            // Every record is decoded before one is given: the whole batch can be read, or none of it.
            let records = batch.records().and_then(|records| {
                records.clone().try_for_each(|record| record.map(drop))?;
                Ok(records)
            });
            match records {
                Ok(records) => {
                    let kind = batch.view().timestamp_type();
                    let mut each = |record: &Record<'_>| each(record, kind);
                    give(records.flatten(), range.until, &mut report, &mut each)
                        .map_err(Error::storage("export", &name.to_string()))?;
                }
                Err(error) => {
                    let first = batch.base_offset().max(range.from);
                    let next = attached.reader.position().offset.min(range.until);
                    report.lose(Finding::undecodable(name, first, next, &error));
                }
            }
            report.batches += u64::from(report.records > before);
            report.bytes += batch.bytes().len() as u64;
            if report.bytes - reported >= PROGRESS_BYTES {
                reported = report.bytes;
                let bytes_total = bytes_total.max(reported);
                if progress(Progress { bytes_done: reported, bytes_total }).is_break() {
                    return Err(interrupted(name));
                }
            }
        }
    }

    /// Reads the checkpoint again where a writer has written it since.
    fn follow(&mut self) -> Result<()> {
        let now = self.followed.now(&*self.storage).ok();
        if !now.zip(self.seen.as_ref()).is_some_and(|(now, seen)| Arc::ptr_eq(now, seen)) {
            self.seen = now.cloned();
            self.hidden = HiddenCheck::new(&self.storage)?;
        }
        Ok(())
    }

    /// Adds what no reader of the log meets.
    fn lose_hidden(&mut self, report: &mut ExportReport, name: &TopicPartition) -> Result<()> {
        self.follow()?;
        let range = self.range;
        let is_asked_for =
            |finding: &Finding| finding.lost.is_none_or(|(first, next)| first < range.until && next > range.from);
        self.hidden.of(name)?.into_iter().filter(is_asked_for).for_each(|finding| report.lose(finding));
        Ok(())
    }

    /// What there is to say of a log that cannot be come to: nothing of it is exported. `error` where it is not known
    /// that anything of it is lost.
    fn all_lost(&mut self, name: &TopicPartition, error: Error) -> Result<ExportReport> {
        let mut report = ExportReport::default();
        // A directory that cannot be listed is looked at in vain once more.
        let hidden = self.lose_hidden(&mut report, name);
        let unreadable = unreadable_segment(&self.storage, name, &error, self.range.from);
        match unreadable.filter(|_| report.lost.is_empty()) {
            Some((finding, _)) => report.lose(Finding { lost: None, ..finding }),
            None if report.lost.is_empty() => return hidden.and(Err(error)),
            None => {}
        }
        Ok(report)
    }

    /// A reader of the log `name` at `from`, or where the log comes nearest to it; `again`: of a store that is attached
    /// now.
    fn attached(&mut self, name: &TopicPartition, from: Offset, again: bool) -> Result<Attached> {
        let mut attempt = 1;
        let mut again = again;
        loop {
            match self.try_attached(name, from, again) {
                Err(Error::Storage { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && attempt < EXCHANGED_MAX =>
                {
                    attempt += 1;
                    again = true;
                    pause(EXCHANGED_PAUSE);
                }
                begun => return begun,
            }
        }
    }

    fn try_attached(&mut self, name: &TopicPartition, from: Offset, again: bool) -> Result<Attached> {
        if self.store.is_none() || again {
            self.store = None;
            let options = Store::options().set("edgelog.housekeeping", "tick")?.set("edgelog.storage", "file")?;
            let mut options = options.set("isolation.level", self.range.isolation.name())?;
            if let Some(bytes) = self.range.decompressed_bytes_max {
                options = options.set("edgelog.decompressed.bytes.max", &bytes.to_string())?;
            }
            self.store = Some(options.attach_on(SharedStorage(Arc::clone(&self.storage)))?);
        }
        let log = self.store.as_ref().expect("attached above").log(&name.topic, name.partition)?;
        let offsets = log.offsets();
        let from = from.clamp(offsets.log_start_offset, offsets.log_end_offset.max(offsets.log_start_offset));
        let reader = log.reader(OffsetSpec::Offset(from))?;
        Ok(Attached { log, reader })
    }
}

/// A partition directory in the making, under a name that no log has. Dropped before it is in place, it is removed:
/// half a copy is none.
pub(super) struct Part<'a> {
    target: &'a Arc<dyn Storage>,
    dir: &'a str,
    begun_as: String,
    is_begun: Cell<bool>,
}

impl<'a> Part<'a> {
    /// # Errors
    /// [`Error::Storage`], with `AlreadyExists` where `target` has a directory `dir` already.
    pub(super) fn of(target: &'a Arc<dyn Storage>, dir: &'a str) -> Result<Part<'a>> {
        let exists = target.read_dir("").map_err(Error::storage("list", "."))?.iter().any(|entry| entry.name == dir);
        if exists {
            return Err(Error::storage("export to", dir)(io::ErrorKind::AlreadyExists.into()));
        }
        Ok(Part { target, dir, begun_as: format!("{dir}.part"), is_begun: Cell::new(false) })
    }

    /// Writes the log `name` of what is exported into it.
    pub(super) fn fill(
        &self,
        export: &mut Export,
        name: &TopicPartition,
        topic_id: Option<&str>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<ExportReport> {
        export.follow()?;
        let (storage, range) = (Arc::clone(&export.storage), export.range);
        let facts = LogFacts::new(&*storage, name, export.hidden.facts());
        let unknown = || Error::UnknownTopicOrPartition { name: name.to_string() };
        let listing = match Listing::read(&*storage, &facts.dir, facts.saved.as_ref(), true) {
            Ok(listing) => listing,
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return export.all_lost(name, unknown());
            }
            Err(error) => return export.all_lost(name, error),
        };
        if listing.segments.is_empty() {
            // As for a reader.
            return Err(unknown());
        }
        // What has that name already was made by another program, or by an export that was killed: it stays.
        self.target.create_dir(&self.begun_as).map_err(Error::storage("create directory", &self.begun_as))?;
        self.is_begun.set(true);
        let sizes = listing.segments.iter().filter_map(|(_, path)| storage.metadata(path).ok());
        let bytes_total = sizes.map(|meta| meta.len).sum();
        let mut exporter = Exporter {
            storage: &*storage,
            target: &**self.target,
            facts: &facts,
            part: &self.begun_as,
            range: ExportRange { from: range.from.max(facts.log_start()).max(listing.segments[0].0), ..range },
            progress,
            bytes_done: 0,
            bytes_reported: 0,
            bytes_total,
            report: ExportReport::default(),
            decompressor: range.decompressed_bytes_max.map_or_else(Decompressor::default, Decompressor::new),
            out: None,
            reached: None,
            segments: &listing.segments,
            spans: Vec::new(),
            passed: Vec::new(),
        };
        let exported = exporter.run(topic_id);
        let mut report = std::mem::take(&mut exporter.report);
        export.lose_hidden(&mut report, name)?;
        exported.map(|()| report)
    }

    /// Gives it its name, where there is anything in it.
    pub(super) fn put_in_place(&self) -> Result<()> {
        if self.is_begun.get() {
            self.target.rename(&self.begun_as, self.dir).map_err(Error::storage("put in place", self.dir))?;
            self.is_begun.set(false);
            self.target.sync_dir("").map_err(Error::storage("sync directory", "."))?;
        }
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if self.is_begun.get() {
            let _ = clear(&**self.target, &self.begun_as);
        }
    }
}

/// Removes the directory of an export that came to nothing.
pub(super) fn clear(target: &dyn Storage, dir: &str) -> Result<()> {
    let names = target.read_dir(dir).map_err(Error::storage("list", dir))?;
    for entry in names {
        let path = format!("{dir}/{}", entry.name);
        target.remove_file(&path).map_err(Error::storage("remove", &path))?;
    }
    target.remove_dir(dir).map_err(Error::storage("remove directory", dir))
}

struct Exporter<'a> {
    storage: &'a dyn Storage,
    target: &'a dyn Storage,
    facts: &'a LogFacts,
    part: &'a str,
    range: ExportRange,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    bytes_done: u64,
    bytes_reported: u64,
    bytes_total: u64,
    report: ExportReport,
    decompressor: Decompressor,
    /// The segment being written, and what its indexes are to hold.
    out: Option<(Sink, BuiltIndexes)>,
    /// The offset behind the last batch seen, exported or not.
    reached: Option<Offset>,
    segments: &'a [(Offset, String)],
    /// Of each segment that was gone over, its base offset, the offset that it reaches, and its file.
    spans: Vec<(Offset, Offset, String)>,
    /// Batches that hold and are passed over.
    passed: Vec<PassedOver>,
}

impl Exporter<'_> {
    fn run(&mut self, topic_id: Option<&str>) -> Result<()> {
        let segments = self.segments;
        for (at, (base, path)) in segments.iter().enumerate() {
            let upper = segments.get(at + 1).map(|(next, _)| *next);
            if *base >= self.range.until {
                break;
            }
            let goes_on = self.segment(*base, path, upper)?;
            self.spans.push((*base, self.reached.unwrap_or(*base), path.clone()));
            self.seal()?;
            if !goes_on {
                break;
            }
        }
        self.settle_passed_over();
        let start = if let Some((first, _)) = self.report.offsets {
            first
        } else {
            // A log without records is still a log that begins somewhere.
            let start = self.range.from.max(segments.first().map_or(Offset(0), |(base, _)| *base));
            Sink::create(self.target, file_names::log_file(self.part, start))?.finish()?;
            start
        };
        self.text(file_names::LEADER_EPOCH_CHECKPOINT, &format!("0\n1\n{EXPORTED_EPOCH} {start}\n"))?;
        if let Some(id) = topic_id {
            self.text(file_names::PARTITION_METADATA, &format!("version: 0\ntopic_id: {id}"))?;
        }
        self.target.sync_dir(self.part).map_err(Error::storage("sync directory", self.part))
    }

    fn text(&self, name: &str, text: &str) -> Result<()> {
        let mut out = Sink::create(self.target, format!("{}/{name}", self.part))?;
        out.write(text.as_bytes())?;
        out.finish().map(|_| ())
    }

    fn lose(&mut self, path: &str, position: u64, first: Offset, next: Offset, text: String) {
        let range = (first.max(self.range.from), next.min(self.range.until));
        let Some((first, next)) = Some(range).filter(|(first, next)| first < next) else { return };
        // In a log whose segments may overlap, another one may hold them.
        let mut others: Vec<(Offset, &str)> = Vec::new();
        if !self.facts.contiguous() {
            let seen = self.spans.iter().filter(|(_, end, _)| *end > first);
            others.extend(seen.map(|(base, _, path)| (*base, path.as_str())));
            let behind = self.segments.iter().skip(self.spans.len() + 1);
            others.extend(behind.map(|(base, path)| (*base, path.as_str())));
        }
        if let Some((first, next)) = lost_everywhere(self.storage, others.into_iter(), (first, next)) {
            let (log, file) = (Some(self.facts.name.clone()), path.to_owned());
            let (position, lost) = (Some(position), Some((first, next)));
            self.report.lose(Finding { severity: Severity::Lost, log, file, position, lost, text });
        }
    }

    /// Exports one segment; `false` where the log or the range ends in it.
    fn segment(&mut self, base: Offset, path: &str, upper: Option<Offset>) -> Result<bool> {
        let file = match self.storage.open(path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.passes_missing(base, upper)),
            Err(error) => {
                let next = upper.or(self.facts.recovery_point()).unwrap_or(base);
                self.lose(path, 0, base, next, format!("cannot be opened: {error}"));
                self.reached = Some(next.max(base));
                return Ok(true);
            }
        };
        let contiguous = self.facts.contiguous();
        let reached = *self.reached.get_or_insert(base);
        if contiguous && reached < base {
            let text = format!("the segment before ends before offset {reached}, and this one begins at {base}");
            self.lose(path, 0, reached, base, text);
        }
        let len = file.len().map_err(Error::storage("look at", path))?.min(READABLE_BYTES_MAX);
        let rules = WalkRules { contiguous, ..self.facts.walk_rules(self.storage, base, upper) };
        let mut walker = Walker::new(file, len, rules);
        loop {
            let before = walker.position();
            let expected = walker.expected();
            let durable = self.facts.recovery_point().is_none_or(|point| expected < point);
            let is_above = self.facts.recovery_point().is_some_and(|point| expected >= point);
            match walker.next() {
                Step::Batch { position } => {
                    if is_above && walker.is_stale(self.facts.epochs.view()) {
                        return Ok(false);
                    }
                    let batch = walker.batch();
                    if batch.base_offset() >= self.range.until {
                        return Ok(false);
                    }
                    let offsets = (batch.base_offset(), walker.next_offset());
                    self.reached = Some(offsets.1);
                    self.batch(path, position, base, &batch, offsets)?;
                }
                Step::Damage(damage) => {
                    let point = self.facts.recovery_point();
                    if ends_log(point, durable, upper.is_none(), &damage) && !is_old_format(&damage) {
                        return Ok(false);
                    }
                    self.damage(path, base, upper, &mut walker, &damage)?;
                }
                Step::Zeros { position } => {
                    if let Some(next) = upper.filter(|&next| !contiguous && expected < next) {
                        self.lose(path, position, expected, next, Cause::Hole.to_string());
                    }
                    break;
                }
                Step::End => break,
            }
            self.advance(walker.position() - before)?;
        }
        let point = self.facts.recovery_point().unwrap_or(Offset(0));
        // Of a first segment without a batch everything is missing up to the next one.
        let reached = *self.reached.get_or_insert(base.max(self.facts.log_start()));
        if upper.is_none() && reached < point {
            let text = DamageKind::LogEndsEarly { recovery_point: point }.to_string();
            self.lose(path, len, reached, point, text);
        }
        Ok(true)
    }

    /// Since it was listed, retention took a segment from the front, or a truncation from the end: whether the log goes
    /// on at `upper`, behind it.
    fn passes_missing(&mut self, base: Offset, upper: Option<Offset>) -> bool {
        let mut behind = self.segments.iter().filter(|(other, _)| *other > base);
        let Some(next) = upper.filter(|_| behind.any(|(_, path)| self.storage.metadata(path).is_ok())) else {
            return self.reached.is_none();
        };
        self.report.delete(self.reached.unwrap_or(base).max(self.facts.log_start()), next, self.range);
        self.reached = self.reached.map(|reached| reached.max(next));
        true
    }

    fn damage(
        &mut self,
        path: &str,
        base: Offset,
        upper: Option<Offset>,
        walker: &mut Walker,
        damage: &Damage,
    ) -> Result<()> {
        let Damage { position, first_offset, .. } = *damage;
        if let Some(right) = damage.wrong_base {
            let next = walker.expected();
            self.reached = Some(next);
            if !damage.is_read {
                self.lose(path, position, first_offset, next, format!("{}; {WRONG_BASE}", damage.cause));
                return Ok(());
            }
            let size = (right.end - right.position) as usize;
            let mut bytes = walker.bytes(position, size)[..size].to_vec();
            bytes[..8].copy_from_slice(&right.base_offset.0.to_be_bytes());
            if let Ok(batch) = RecordBatch::parse(&bytes) {
                return self.batch(path, position, base, &batch, (right.base_offset, right.next_offset));
            }
        }
        let behind = match upper {
            None if is_old_format(damage) => behind_old_messages(walker, position),
            upper => upper.or(self.facts.recovery_point()),
        };
        let next = damage.next_offset.or(behind).unwrap_or(first_offset);
        self.lose(path, position, first_offset, next, damage.cause.to_string());
        let passed = if self.facts.contiguous() {
            Vec::new()
        } else {
            walker.sound_between(position, damage.resumes_at.unwrap_or(walker.end()), first_offset)
        };
        if !passed.is_empty() {
            let text = format!("{}{}; {PASSED_OVER}", damage.cause, behind_damage(None, damage.resumes_at));
            let path = path.to_owned();
            let missing = (first_offset, next);
            self.passed.push(PassedOver {
                path,
                position,
                ranges: passed,
                missing,
                text,
                otherwise: None,
                is_behind_end: false,
            });
        }
        self.reached = Some(next);
        Ok(())
    }

    /// Batches that hold, out of order, are copies where their offsets stand elsewhere in the log; else they are lost.
    fn settle_passed_over(&mut self) {
        let passed = std::mem::take(&mut self.passed);
        let ranges: Vec<_> = passed.iter().flat_map(|passed| passed.ranges.iter().copied()).collect();
        if ranges.is_empty() {
            return;
        }
        let files = self.facts.files(self.storage, self.segments);
        let mut left = held_nowhere(self.storage, files, ranges);
        let end = self.reached.unwrap_or(Offset(0));
        for PassedOver { path, position, ranges, missing, text, .. } in passed {
            for (first, next) in lost_of(&ranges, common(&left, &ranges), missing, end) {
                take_out(&mut left, (first, next));
                self.lose(&path, position, first, next, text.clone());
            }
        }
    }

    fn batch(
        &mut self,
        path: &str,
        position: u64,
        segment_base: Offset,
        batch: &RecordBatch<'_>,
        (base_offset, next_offset): (Offset, Offset),
    ) -> Result<()> {
        if next_offset <= self.range.from || base_offset >= self.range.until {
            return Ok(());
        }
        match self.decompressor.check(batch) {
            // Where the batch goes there may be the decoder, or the memory, that is missing here.
            Ok(_) => {}
            Err(fault) if !fault.is_damage() => {}
            Err(fault) => {
                let text = undecodable(base_offset, next_offset, &fault);
                self.lose(path, position, base_offset, next_offset, text);
                return Ok(());
            }
        }
        let (from, until) = (self.range.from, self.range.until);
        let reaches_out = base_offset < from || next_offset > until;
        let trimmed = if reaches_out { self.trim(batch, base_offset)? } else { Trimmed::AsItIs };
        let (bytes, base_offset, next_offset) = match &trimmed {
            Trimmed::AsItIs => (batch.bytes(), base_offset, next_offset),
            Trimmed::Part { bytes, base_offset, next_offset } => (&bytes[..], *base_offset, *next_offset),
            Trimmed::Nothing => return Ok(()),
        };
        if self.out.is_none() {
            // A segment that is not exported from its start is one that begins later.
            let is_whole = segment_base >= self.range.from && position == 0;
            let base = if is_whole { segment_base } else { base_offset };
            let sink = Sink::create(self.target, file_names::log_file(self.part, base))?;
            // As the broker builds them again, unless its topic says otherwise.
            let interval = LogConfig::default().index_interval_bytes;
            self.out = Some((sink, BuiltIndexes::new(base, interval)));
        }
        let Some((sink, indexes)) = self.out.as_mut() else { return Ok(()) };
        let written = RecordBatch::parse(bytes).map_err(Error::InvalidRecord)?;
        indexes.on_batch(sink.position(), next_offset - 1, written.max_timestamp());
        sink.write_stamped(bytes, base_offset, EXPORTED_EPOCH)?;
        self.report.batches += 1;
        self.report.records +=
            if written.is_control() { 0 } else { u64::try_from(written.record_count()).unwrap_or(0) };
        self.report.bytes += bytes.len() as u64;
        let first = self.report.offsets.map_or(base_offset, |(first, _)| first);
        self.report.offsets = Some((first, next_offset));
        Ok(())
    }

    /// Those records of a batch alone that lie in the range, not compressed: what was deleted from the front of a log
    /// does not come back in a broker.
    fn trim(&mut self, batch: &RecordBatch<'_>, base_offset: Offset) -> Result<Trimmed> {
        // A record's length, timestamp and offset delta may each take some bytes more than they did.
        const SLACK_BYTES: usize = 32;
        let count_max = usize::try_from(batch.record_count()).unwrap_or(0);
        if batch.producer_id() >= 0 || batch.is_control() || count_max == 0 {
            return Ok(Trimmed::AsItIs);
        }
        let room = HEADER_LEN + self.decompressor.payload_len(batch) + SLACK_BYTES * count_max;
        let Ok(records) = self.decompressor.records(batch) else { return Ok(Trimmed::AsItIs) };
        let shift = base_offset - batch.base_offset();
        let mut builder = RecordBatchBuilder::new(vec![0; room]);
        let (mut first, mut due) = (None, base_offset);
        let mut headers = Vec::new();
        for record in records.flatten() {
            let offset = record.offset + shift;
            if offset < self.range.from || offset >= self.range.until {
                continue;
            }
            // Records that do not rise stay as they are.
            let delta = offset - *first.get_or_insert(offset);
            let Some(delta) = i32::try_from(delta).ok().filter(|_| offset >= due) else { return Ok(Trimmed::AsItIs) };
            due = offset + 1;
            headers.clear();
            headers.extend(record.headers());
            builder.append_at(delta, record.timestamp, record.key, record.value, &headers)?;
        }
        let part = |base_offset| Trimmed::Part { bytes: builder.finish().to_vec(), base_offset, next_offset: due };
        Ok(first.map_or(Trimmed::Nothing, part))
    }

    /// Finishes the segment being written, if there is one.
    fn seal(&mut self) -> Result<()> {
        if let Some((sink, mut indexes)) = self.out.take() {
            sink.finish()?;
            indexes.seal();
            write_indexes(self.target, self.part, &indexes)?;
            self.report.segments += 1;
        }
        Ok(())
    }

    fn advance(&mut self, bytes: u64) -> Result<()> {
        self.bytes_done += bytes;
        if self.bytes_done - self.bytes_reported < PROGRESS_BYTES {
            return Ok(());
        }
        self.bytes_reported = self.bytes_done;
        let bytes_total = self.bytes_total.max(self.bytes_done);
        match (self.progress)(Progress { bytes_done: self.bytes_done, bytes_total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(interrupted(&self.facts.name)),
        }
    }
}

/// What of a batch lies in the range.
enum Trimmed {
    /// It stays whole: it is a producer's own, or cannot be decoded here.
    AsItIs,
    /// A batch of those records, which keep their offsets and times.
    Part { bytes: Vec<u8>, base_offset: Offset, next_offset: Offset },
    /// The range lies in one of its holes.
    Nothing,
}

fn interrupted(name: &TopicPartition) -> Error {
    Error::storage("export", &name.to_string())(io::ErrorKind::Interrupted.into())
}

/// Reads one log as an attached reader does and gives every record of `range` to `each`, in order, with the kind of its
/// timestamp.
///
/// Works next to a live writer, up to where the log ended when it was come to. Damage is passed over and named in the
/// report.
///
/// # Errors
/// [`Error::UnknownTopicOrPartition`]; [`Error::Storage`], with an error of `each`, or with `Interrupted` where
/// `progress` stopped it.
pub fn export_records(
    storage: &Arc<dyn Storage>,
    name: &TopicPartition,
    range: ExportRange,
    each: &mut dyn FnMut(&Record<'_>, TimestampType) -> io::Result<()>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<ExportReport> {
    Export::new(storage, range)?.records(name, each, progress)
}

/// A log attached to, and a reader that stands in it.
struct Attached {
    log: Log,
    reader: Reader,
}

/// Gives the records of one batch out, up to before `until`.
fn give<'r>(
    records: impl Iterator<Item = Record<'r>>,
    until: Offset,
    report: &mut ExportReport,
    each: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
) -> io::Result<()> {
    for record in records.take_while(|record| record.offset < until) {
        each(&record)?;
        report.records += 1;
        let first = report.offsets.map_or(record.offset, |(first, _)| first);
        report.offsets = Some((first, record.offset + 1));
    }
    Ok(())
}

/// The sixteen bytes of an id as Kafka writes it: 22 characters of base64url without padding; not all zeros.
pub(super) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    text.parse().ok().filter(|id: &LogId| *id != LogId::ZERO).map(LogId::to_bytes)
}

#[cfg(test)]
mod tests {
    use super::parse_uuid;

    #[test]
    fn ids_are_read_as_kafka_writes_them() {
        assert_eq!(parse_uuid("AAAAAAAAQACAAAAAAAAAAQ"), Some([0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(parse_uuid("_____________________w"), Some([0xff; 16]));
        for bad in ["", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAQACAAAAAAAAAA=", "AAAAAAAAQACAAAAAAAAAAQ1"] {
            assert_eq!(parse_uuid(bad), None, "{bad}");
        }
    }
}
