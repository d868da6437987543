//! Repair: makes a damaged store whole again, without hiding what is lost.
//!
//! Under the store's lock, and in this order, so that it can be cut anywhere and run again:
//!
//! 1. where no checkpoint knows a damaged log, the store is opened and closed once by the engine: it says what of the
//!    log is durable, and the steps below go by that;
//! 2. the checkpoint says, in both slots, that the store is in use: the next open recovers, and raises every log's
//!    epoch;
//! 3. segments with damage are rewritten, each swapped in whole: good batches as they were, wrong epochs and base
//!    offsets put right, and a batch without records in place of what is lost; the damaged bytes are kept in
//!    `.cut` files;
//! 4. indexes that do not hold are rebuilt;
//! 5. the checkpoint gets the recovery points' new places;
//! 6. the store is opened and closed once by the engine, which heals what an open heals: torn tails, the other slot.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use edgelog_core::Offset;

use super::check::{check_store, in_place_of_the_lock};
use super::facts::{Listing, LogFacts, Selection, StoreFacts, kept_before, list_logs};
use super::plan::{LogPlan, SegmentPlan};
use super::report::{CheckReport, Finding, PASSED_OVER, Progress, Severity};
use super::shared::SharedStorage;
use crate::error::{Error, Result};
use crate::log::{Durability, DurablePoint, SavedLog, TopicPartition, offsets_in_words, wrong_names};
use crate::segment::built_indexes::{build_indexes, remove_indexes, write_indexes};
use crate::segment::decompressor::Decompressor;
use crate::segment::file_names;
use crate::segment::rewrite::{Rewrite, Rewritten, rewrite_segment};
use crate::segment::segment_files::put_names_right;
use crate::segment::walk::{Step, WalkRules, Walker};
use crate::storage::{Access, LOCK_FILE, Storage, StorageLock};
use crate::store::checkpoint::{self, Checkpoint, CheckpointFile};
use crate::store::{RecoveryReport, Store, claim, others_of, shared_directories};

/// Repair goes over the store so often at most.
const ROUNDS_MAX: usize = 3;

/// One thing that repair did, or in a dry run would do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairAction {
    /// The log concerned; `None` where it is the store.
    pub log: Option<TopicPartition>,
    /// The file, relative to the data directory.
    pub file: String,
    /// What was done to it.
    pub text: String,
}

impl fmt::Display for RepairAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.text)
    }
}

/// The outcome of [`repair`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was found before anything was done.
    pub before: CheckReport,
    /// What was done, or would be.
    pub actions: Vec<RepairAction>,
    /// What opening the store found afterwards; `None` in a dry run, and where nothing had to be done.
    pub recovery: Option<RecoveryReport>,
    /// What a check finds now; `None` in a dry run, and where nothing had to be done and nothing is lost.
    pub after: Option<CheckReport>,
}

/// Makes the store on `storage` whole again: see the [module](super) and `edgelog repair`.
///
/// What is lost stays lost, and readers pass over it: in its place stands a batch without records, and the damaged
/// bytes are kept in a `.cut` file next to the segment ([`salvage`] looks for records in it). With `dry_run` nothing is
/// changed, and the report says what would be done.
///
/// # Errors
/// [`Error::DataDirLocked`] where a process writes the store; [`Error::Storage`]; those of [`check`](super::check()).
/// The store is then in a state that the next open, or another repair, makes good.
///
/// # Durability
/// On return, everything that was done is on the disk.
pub fn repair(
    storage: &Arc<dyn Storage>,
    selection: &Selection,
    dry_run: bool,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<RepairReport> {
    if dry_run {
        let (before, facts, plans) = check_store(storage, selection, Decompressor::default(), progress)?;
        if facts.unreadable.is_some() {
            // What repair, and every open, meets as well.
            checkpoint::read(&**storage)?;
        }
        if let Some(error) = in_place_of_the_lock(&**storage) {
            return Err(Error::storage("lock", LOCK_FILE)(error));
        }
        let actions = planned(&before, &facts, &plans);
        return Ok(RepairReport { before, actions, ..RepairReport::default() });
    }
    let mut held = Held::take(&**storage)?;
    let mut actions = held.refusals();
    put_in_place(&**storage, selection, &held, &mut actions)?;
    let (before, mut facts, mut plans) = check_store(storage, selection, Decompressor::default(), progress)?;
    held.keep_own(&mut plans);
    let sound = before.is_sound() && plans.is_empty() && facts.clean();
    if sound || (before.logs.is_empty() && !facts.exists) {
        // What is lost there, no open makes good: files of Kafka's cleaner in directories that are no logs.
        let after = (before.worst == Some(Severity::Lost)).then(|| before.clone());
        return Ok(RepairReport { before, actions, after, ..RepairReport::default() });
    }
    let mut recovery = None;
    let mut round = 1;
    if plans.iter().any(|plan| plan.facts.saved.is_none()) {
        // What is durable of a log that no checkpoint knows is the open's to say, once: a point that was set here,
        // behind the last batch that is read, would be one more witness for another one.
        drop(held);
        recovery = Some(open_and_close(storage)?);
        held = Held::take(&**storage)?;
        (_, facts, plans) = check_store(storage, selection, Decompressor::default(), progress)?;
        held.keep_own(&mut plans);
        plans.retain(|plan| plan.facts.saved.is_some());
    }
    loop {
        carry_out(storage, &facts, &plans, &mut actions)?;
        drop(held);
        let opened = open_and_close(storage)?;
        // The first opening met what the damage had left; a later one meets what repair made of it.
        recovery.get_or_insert(opened);
        held = Held::take(&**storage)?;
        rebuild_missing_indexes(storage, selection, &held, progress)?;
        let after;
        (after, facts, plans) = check_store(storage, selection, Decompressor::default(), progress)?;
        held.keep_own(&mut plans);
        // What the engine learns from batches where a checkpoint is lost may show fields to be wrong only now.
        if after.is_sound() || plans.is_empty() || round == ROUNDS_MAX {
            return Ok(RepairReport { before, actions, recovery, after: Some(after) });
        }
        round += 1;
    }
}

/// What repair holds while it writes: the store's lock, and those of directories that stand elsewhere.
struct Held {
    _store: Box<dyn StorageLock>,
    _directories: Vec<Box<dyn StorageLock>>,
    /// Logs that are not written here, and why.
    refused: Vec<(TopicPartition, String)>,
}

impl Held {
    fn take(storage: &dyn Storage) -> Result<Held> {
        let store = take_lock(storage)?;
        let logs = list_logs(storage)?.0;
        let shared = shared_directories(storage, &logs);
        let (mut directories, mut refused) = (Vec::new(), Vec::new());
        for name in logs {
            match claim(storage, &name, &others_of(&shared, &name)) {
                Ok(lock) => directories.extend(lock),
                Err(error) => refused.push((name, error.to_string())),
            }
        }
        Ok(Held { _store: store, _directories: directories, refused })
    }

    fn is_own(&self, name: &TopicPartition) -> bool {
        self.refused.iter().all(|(refused, _)| refused != name)
    }

    fn keep_own(&self, plans: &mut Vec<LogPlan>) {
        plans.retain(|plan| self.is_own(&plan.facts.name));
    }

    fn refusals(&self) -> Vec<RepairAction> {
        let action = |(name, why): &(TopicPartition, String)| RepairAction {
            log: Some(name.clone()),
            file: name.to_string(),
            text: format!("left as it is: {why}"),
        };
        self.refused.iter().map(action).collect()
    }
}

/// Lets the engine recover the store, and close it.
fn open_and_close(storage: &Arc<dyn Storage>) -> Result<RecoveryReport> {
    let store = Store::options().set("edgelog.housekeeping", "tick")?.open_on(SharedStorage(Arc::clone(storage)))?;
    let recovery = store.recovery_report();
    store.close()?;
    Ok(recovery)
}

/// What the engine builds in memory alone is written here: indexes of a segment that it recovered and that got no
/// appends.
fn rebuild_missing_indexes(
    storage: &Arc<dyn Storage>,
    selection: &Selection,
    held: &Held,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<()> {
    let (_, _, mut plans) = check_store(storage, selection, Decompressor::default(), progress)?;
    held.keep_own(&mut plans);
    for plan in &plans {
        for segment in plan.segments.iter().filter(|segment| segment.indexes && !segment.rewrite) {
            rebuild_indexes(&**storage, &plan.facts, segment)?;
        }
    }
    Ok(())
}

fn take_lock(storage: &dyn Storage) -> Result<Box<dyn StorageLock>> {
    storage.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::DataDirLocked(error),
        _ => Error::storage("lock", LOCK_FILE)(error),
    })
}

/// What would be done, in words.
fn planned(before: &CheckReport, facts: &StoreFacts, plans: &[LogPlan]) -> Vec<RepairAction> {
    let mut actions = Vec::new();
    let mut add = |log: Option<&TopicPartition>, file: String, text: String| {
        actions.push(RepairAction { log: log.cloned(), file, text });
    };
    for plan in plans {
        let name = Some(&plan.facts.name);
        if let Some(start) = plan.new_start {
            add(name, plan.facts.dir.to_string(), format!("let the log start at offset {start}"));
        }
        for (from, to) in &plan.renames {
            add(name, from.clone(), format!("rename it to {to}"));
        }
        for segment in &plan.segments {
            let path = file_names::log_file(&plan.facts.dir, segment.base_offset);
            if segment.rewrite {
                let damage = before.findings.iter().filter(|finding| finding.file == path);
                let lost: i64 = damage.filter_map(|finding| finding.lost).map(|(first, next)| next - first).sum();
                let text = match lost {
                    0 => "rewrite the segment with the fields that are wrong corrected".to_owned(),
                    lost => format!(
                        "rewrite the segment without its damage ({lost} offsets; those whose batch is valid are kept), \
                         keep the damaged bytes in .cut files"
                    ),
                };
                add(name, path, text);
            } else if segment.indexes {
                let index = file_names::index_file(&plan.facts.dir, segment.base_offset);
                add(name, index, "rebuild the segment's indexes".to_owned());
            }
        }
    }
    // What is lost above the recovery point is the open's to keep aside, and a file of Kafka's cleaner the open's to
    // put in its place, but in a log that is left alone.
    let is_the_opens = |finding: &Finding| {
        let log = before.logs.iter().find(|log| Some(&log.name) == finding.log.as_ref());
        let name = finding.file.rsplit('/').next().unwrap_or_default();
        let is_work = finding.position.is_some() || file_names::parse_swap_file(name).is_some();
        finding.severity == Severity::Lost && is_work && log.is_some_and(|log| !log.needs_decision)
    };
    for finding in &before.findings {
        let covered =
            plans.iter().any(|plan| Some(&plan.facts.name) == finding.log.as_ref() && !plan.segments.is_empty());
        let is_renamed = plans.iter().any(|plan| plan.renames.iter().any(|(from, _)| *from == finding.file));
        if covered || is_renamed {
            continue;
        }
        let text = match finding.severity {
            Severity::Heals => format!("open the store, which heals: {}", finding.text),
            _ if is_the_opens(finding) => format!("open the store: {}", finding.text),
            _ => continue,
        };
        add(finding.log.as_ref(), finding.file.clone(), text);
    }
    if actions.is_empty() && facts.exists && !facts.clean() {
        let text = "open and close the store, which was not closed cleanly".to_owned();
        actions.push(RepairAction { log: None, file: crate::store::checkpoint::FILE.to_owned(), text });
    }
    actions
}

/// Puts segments back that an interrupted recovery left under their `.cut` names, and gives those that have wrong names
/// the right ones, as the engine's open does.
fn put_in_place(
    storage: &dyn Storage,
    selection: &Selection,
    held: &Held,
    actions: &mut Vec<RepairAction>,
) -> Result<()> {
    let (logs, facts) = (list_logs(storage)?.0, StoreFacts::read(storage)?);
    for name in logs.into_iter().filter(|name| selection.matches(name) && held.is_own(name)) {
        let dir = name.to_string();
        let listing = Listing::by_names(storage, &dir)?;
        for (base, path) in listing.segments.iter().filter(|(_, path)| listing.displaced.contains(path)) {
            let to = file_names::log_file(&dir, *base);
            storage.rename(path, &to).map_err(Error::storage("restore", path))?;
            storage.sync_dir(&dir).map_err(Error::storage("sync directory", &dir))?;
            let text = format!("put back in its place from {path}");
            actions.push(RepairAction { log: Some(name.clone()), file: to, text });
        }
        let names: Vec<Offset> = listing.segments.iter().map(|(base, _)| *base).collect();
        let wrong = wrong_names(storage, &dir, &names, facts.saved(&name), true);
        for (from, to) in put_names_right(storage, &dir, &names, &wrong)? {
            actions.push(RepairAction { log: Some(name.clone()), file: from, text: format!("renamed to {to}") });
        }
    }
    Ok(())
}

fn carry_out(
    storage: &Arc<dyn Storage>,
    facts: &StoreFacts,
    plans: &[LogPlan],
    actions: &mut Vec<RepairAction>,
) -> Result<()> {
    let (mut file, _) = CheckpointFile::open(storage)?;
    let mut checkpoint = facts.newest.clone().unwrap_or_default();
    // Behind the end of a clean close nothing was appended, also in this boot.
    checkpoint.boot_id = if facts.clean() { [0; 16] } else { storage.boot_id() };
    checkpoint.clean = false;
    for plan in plans {
        prepare(&mut checkpoint, plan);
    }
    file.write_both(&checkpoint)?;
    for plan in plans {
        if let Some(start) = plan.new_start {
            let text = format!("the log starts at offset {start} now");
            let (log, file) = (Some(plan.facts.name.clone()), plan.facts.dir.to_string());
            actions.push(RepairAction { log, file, text });
        }
        repair_log(&**storage, &mut checkpoint, plan, actions)?;
    }
    file.write_both(&checkpoint)
}

fn saved_of<'a>(checkpoint: &'a mut Checkpoint, name: &TopicPartition) -> Option<&'a mut SavedLog> {
    checkpoint.logs.get_mut(name)
}

/// What the checkpoint has to say of a log before its files change.
fn prepare(checkpoint: &mut Checkpoint, plan: &LogPlan) {
    let name = &plan.facts.name;
    if let (Some(saved), Some(believed)) = (saved_of(checkpoint, name), &plan.facts.saved) {
        // What the segments do not bear out is not written again.
        (saved.durable, saved.log_start_offset) = (believed.durable, believed.log_start_offset);
        saved.epochs.clone_from(&believed.epochs);
    }
    let (Some(start), Some(saved)) = (plan.new_start, saved_of(checkpoint, name)) else { return };
    saved.log_start_offset = saved.log_start_offset.max(start);
    let mut epochs = plan.facts.epochs.clone();
    epochs.truncate_from_start(start);
    saved.epochs = epochs.view().entries().to_vec();
}

fn repair_log(
    storage: &dyn Storage,
    checkpoint: &mut Checkpoint,
    plan: &LogPlan,
    actions: &mut Vec<RepairAction>,
) -> Result<()> {
    let facts = &plan.facts;
    // What lies above is recovery's to judge.
    let point = facts.recovery_point().unwrap_or(Offset(0));
    let mut report = |file: String, text: String| {
        actions.push(RepairAction { log: Some(plan.facts.name.clone()), file, text });
    };
    for segment in &plan.segments {
        let path = file_names::log_file(&facts.dir, segment.base_offset);
        if segment.rewrite {
            let done =
                rewrite_segment(storage, rewrite_of(storage, facts, segment, point), &mut Decompressor::default())?;
            if let (Some(position), Some(saved)) = (done.recovery_position, saved_of(checkpoint, &facts.name)) {
                saved.durable = DurablePoint { offset: point, base_offset: segment.base_offset, position };
            }
            for text in in_words(&done) {
                report(path.clone(), text);
            }
            for passed in plan.passed_over.iter().filter(|passed| passed.path == path) {
                let offsets = offsets_in_words(passed.lost.0, passed.lost.1);
                report(path.clone(), format!("{offsets} are lost to readers: {PASSED_OVER}"));
            }
        }
        rebuild_indexes(storage, facts, segment)?;
        if segment.indexes {
            report(file_names::index_file(&facts.dir, segment.base_offset), "rebuilt the segment's indexes".to_owned());
        }
    }
    Ok(())
}

fn in_words(done: &Rewritten) -> Vec<String> {
    let mut words = Vec::new();
    for &(first, next) in &done.gaps {
        words.push(format!("offsets {first} to {} are lost: a batch without records stands in their place", next - 1));
    }
    for path in &done.cut_files {
        words.push(format!("kept damaged bytes in {path}"));
    }
    if done.epochs_healed > 0 {
        words.push(format!("put the leader epochs of {} batches right", done.epochs_healed));
    }
    if done.bases_healed > 0 {
        words.push(format!("put the base offsets of {} batches right", done.bases_healed));
    }
    words
}

/// The outcome of [`salvage`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvageReport {
    /// The log that the records went to.
    pub log: TopicPartition,
    /// Batches appended again.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Their first new offset, and the one behind the last.
    pub offsets: Option<(Offset, Offset)>,
    /// The least offset that they had in the file, and the one behind the greatest.
    pub old_offsets: Option<(Offset, Offset)>,
    /// Where in the file the salvage began: what stands before it is still in the log.
    pub from: u64,
    /// Batches that hold and cannot be appended: markers of transactions, or such as compaction thinned out.
    pub refused: u64,
    /// Bytes that are no batch.
    pub invalid_bytes: u64,
    /// What the file is called now.
    pub renamed_to: String,
}

/// Appends the batches that hold in a `.cut` file once more to its log, as new records: at new offsets, with the
/// timestamps that they had. `path` is relative to the data directory (`cpu-0/00000000000000000000-4096-1.cut`).
///
/// Where the file is the whole segment, what stands before the position in its name was kept by the log and is passed
/// over. Nothing else is checked against what the log holds already: whether records come twice is the caller's to
/// know. The file is then renamed to end in `.salvaged`, so that it is not taken twice by mistake.
///
/// # Errors
/// [`Error::DataDirLocked`] where a process writes the store, [`Error::UnknownTopicOrPartition`], [`Error::Storage`],
/// and those of appending.
///
/// # Durability
/// On return, the records are on the disk.
pub fn salvage(storage: &Arc<dyn Storage>, path: &str) -> Result<SalvageReport> {
    let name = path.split_once('/').and_then(|(dir, name)| {
        file_names::parse_cut_file(name)?;
        TopicPartition::parse_dir(dir)
    });
    let Some(name) = name else {
        let wanted = "not a .cut file in a partition directory";
        return Err(Error::storage("salvage", path)(io::Error::new(io::ErrorKind::InvalidInput, wanted)));
    };
    let file = storage.open(path, Access::Read).map_err(Error::storage("open", path))?;
    let len = file.len().map_err(Error::storage("look at", path))?;
    let store = Store::options().set("edgelog.housekeeping", "tick")?.open_on(SharedStorage(Arc::clone(storage)))?;
    let log = store.log(&name.topic, name.partition)?;
    let from = kept_before(&*file, len, path)?;
    let mut walker = Walker::new(file, len, WalkRules::ANY);
    walker.start_at(from);
    let renamed_to = format!("{path}.salvaged");
    let mut report = SalvageReport {
        log: name,
        batches: 0,
        records: 0,
        offsets: None,
        old_offsets: None,
        from,
        refused: 0,
        invalid_bytes: 0,
        renamed_to: renamed_to.clone(),
    };
    loop {
        match walker.next() {
            Step::Batch { .. } => {
                let batch = walker.batch();
                let (old_first, old_next) = (batch.base_offset(), batch.next_offset());
                match log.append_encoded(batch.bytes(), Durability::Os) {
                    Ok(info) => {
                        report.batches += 1;
                        report.records += u64::try_from(batch.record_count()).unwrap_or(0);
                        let first = report.offsets.map_or(info.base_offset, |(first, _)| first);
                        report.offsets = Some((first, info.last_offset + 1));
                        let (first, next) = report.old_offsets.unwrap_or((old_first, old_next));
                        report.old_offsets = Some((first.min(old_first), next.max(old_next)));
                    }
                    Err(Error::InvalidRecord(_) | Error::RecordTooLarge { .. }) => report.refused += 1,
                    Err(error) => return Err(error),
                }
            }
            Step::Damage(damage) => {
                report.invalid_bytes += damage.resumes_at.unwrap_or(walker.end()) - damage.position;
            }
            Step::Zeros { .. } | Step::End => break,
        }
    }
    log.flush()?;
    storage.rename(path, &renamed_to).map_err(Error::storage("rename", path))?;
    let dir = report.log.to_string();
    storage.sync_dir(&dir).map_err(Error::storage("sync directory", &dir))?;
    store.close()?;
    Ok(report)
}

/// What the log knows of a segment that is to be rewritten.
fn rewrite_of<'a>(storage: &dyn Storage, facts: &'a LogFacts, plan: &SegmentPlan, point: Offset) -> Rewrite<'a> {
    Rewrite {
        dir: &facts.dir,
        base_offset: plan.base_offset,
        rules: facts.walk_rules(storage, plan.base_offset, plan.upper),
        epochs: facts.epochs.view(),
        point,
        is_last: plan.upper.is_none(),
        fill_to: plan.fill_to,
    }
}

/// Builds the indexes of a segment from its batches and writes them. They are derived: a crash in between leaves a
/// segment without indexes, which is sound.
fn rebuild_indexes(storage: &dyn Storage, facts: &LogFacts, plan: &SegmentPlan) -> Result<()> {
    let path = file_names::log_file(&facts.dir, plan.base_offset);
    let walker = Walker::open(storage, &path, facts.walk_rules(storage, plan.base_offset, plan.upper))?;
    let built = build_indexes(walker, plan.base_offset, facts.config.index_interval_bytes);
    remove_indexes(storage, &facts.dir, plan.base_offset)?;
    write_indexes(storage, &facts.dir, &built)
}
