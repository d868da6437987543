//! Checking: every byte of every batch and index, the checkpoint, and the other files there. Changes nothing, takes no
//! lock.
//!
//! Next to a live writer three things move while they are looked at: the newest segment's tail, which is looked at
//! again before it is called torn; the list of segments, from which retention takes the oldest; and segments
//! themselves, which a truncation exchanges. A log that changed that way is checked again.

use std::fmt::Write as _;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use edgelog_core::config::StoreConfig;
use edgelog_core::limits::READABLE_BYTES_MAX;
use edgelog_core::{LeaderEpoch, Offset, Position};

use super::facts::{Listing, LogFacts, Selection, StoreFacts, kept_before, list_logs};
use super::indexes::IndexCheck;
use super::log_check::{LogCheck, Meter, PassedOver};
use super::plan::{LogPlan, LostBatches};
use super::report::{CheckReport, CheckedLog, Finding, Findings, PASSED_OVER, Progress, Severity};
use super::segment_check::{Flow, SegmentCheck};
use crate::error::{Error, Result};
use crate::log::{SavedLog, TopicPartition, fits_in, offsets_in_words};
use crate::segment::decompressor::Decompressor;
use crate::segment::file_names;
use crate::segment::held::{Held, held_nowhere, left_of, lost_everywhere};
use crate::segment::passed_over::{common, lost_of, take_out};
use crate::segment::walk::Walker;
use crate::segment::{HeaderWalk, Window};
use crate::storage::{Access, DirEntry, LEADS_NOWHERE, LOCK_FILE, Storage};
use crate::store::{
    PARTITIONS_MAX, RetentionHolds, are_settings_lost, is_in_the_way, made_for_another, only_swap, read_config,
    settings_to_heal, survey,
};

/// A log that keeps changing under the check is checked so often.
const ATTEMPTS_MAX: usize = 4;
/// Of a log that was copied here, [`check_ends`] looks at so many bytes for offsets that do not rise.
const ENDS_LOOK_BYTES: u64 = 16 << 20;

/// Checks the logs of the store on `storage` that `selection` names, and, where it names all, the store's own files.
///
/// Nothing is changed and no lock is taken: a writer may be at work. `progress` gets how far the check is, about once a
/// MiB, and stops it by returning [`ControlFlow::Break`]. Memory stays bounded: files are looked at in stretches.
///
/// What is *lost* and what *heals* follows the log's own rules: below the recovery point that the checkpoint names,
/// every batch was durable, and bytes that are no batch are a loss; above it, the first batch that does not continue
/// the log is its end, and a torn tail behind it is what a crash leaves.
///
/// # Errors
/// [`Error::Storage`] where the data directory cannot be listed, or with `Interrupted` where `progress` stopped the
/// check; [`Error::UnsupportedVersion`]; [`Error::UnknownTopicOrPartition`] where `selection` names nothing that is
/// there. Damage is no error.
pub fn check(
    storage: &Arc<dyn Storage>,
    selection: &Selection,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<CheckReport> {
    check_within(storage, selection, StoreConfig::default().decompressed_bytes_max, progress)
}

/// As [`check`], with another bound in place of `edgelog.decompressed.bytes.max`' default: no file of a store says
/// what its programs set.
///
/// # Errors
/// As [`check`].
pub fn check_within(
    storage: &Arc<dyn Storage>,
    selection: &Selection,
    decompressed_bytes_max: u32,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<CheckReport> {
    Ok(check_store(storage, selection, Decompressor::new(decompressed_bytes_max), progress)?.0)
}

pub(super) fn check_store(
    storage: &Arc<dyn Storage>,
    selection: &Selection,
    mut decompressor: Decompressor,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(CheckReport, StoreFacts, Vec<LogPlan>)> {
    let (names, entries) = list_logs(&**storage)?;
    let mut facts = StoreFacts::read(&**storage)?;
    let mut report = CheckReport::default();
    if *selection == Selection::all() {
        let mut findings = Findings::default();
        check_checkpoint(&mut findings, &facts, !names.is_empty());
        if let Some(error) = in_place_of_the_lock(&**storage) {
            let text = format!("{error}; no program opens the store for writing before it is moved away");
            findings.store(Severity::Note, LOCK_FILE, text);
        }
        let newest = facts.newest.clone().unwrap_or_default();
        let (known, is_recorded) = (newest.logs, newest.is_recorded);
        let leftovers = survey(&**storage, &entries, &known);
        let unfinished = leftovers.unfinished.iter().map(ToString::to_string);
        for dir in leftovers.deleted.iter().map(|(dir, _)| dir.clone()).chain(unfinished) {
            let text = "a creation or deletion that was cut short; the next open removes what is left of it";
            findings.store(Severity::Note, &dir, text);
        }
        for (dir, reason) in &leftovers.left {
            let holds_records = only_swap(&**storage, dir).is_some();
            let severity = if holds_records { Severity::Lost } else { Severity::Note };
            findings.store(severity, dir, format!("no log of this store, and left as it is: {reason}"));
        }
        let is_named = |entry: &DirEntry| {
            leftovers
                .left
                .iter()
                .map(|(dir, _)| dir)
                .chain(leftovers.deleted.iter().map(|(dir, _)| dir))
                .any(|dir| *dir == entry.name)
        };
        for entry in entries.iter().filter(|entry| !is_named(entry)) {
            if let Some(text) = directory_note(entry) {
                findings.store(Severity::Note, &entry.name, text);
            }
        }
        for name in names.iter().filter(|name| name.partition == 0).map(ToString::to_string) {
            if let Err(error) = read_config(&**storage, &name) {
                let text = format!("damaged ({error}): the defaults count, and nothing is deleted until it is altered");
                findings.store(Severity::Note, &format!("{name}/{}", file_names::TOPIC_CONFIG), text);
            } else if let Some((file, reason)) = settings_to_heal(&**storage, &name) {
                let path = format!("{name}/{file}");
                if is_in_the_way(&**storage, &path) {
                    let text = "a directory, and left as it is: move it away, and the next open writes the file again";
                    findings.store(Severity::Note, &path, text);
                    continue;
                }
                let text = format!("{reason}; the next open writes it again from the topic's second copy");
                findings.store(Severity::Heals, &path, text);
            } else if are_settings_lost(&**storage, &name, is_recorded) {
                let text = "missing: the defaults count, and nothing is deleted until it is altered";
                findings.store(Severity::Note, &format!("{name}/{}", file_names::TOPIC_CONFIG), text);
            }
        }
        for name in &names {
            if let Some(made_for) = made_for_another(&**storage, name) {
                let text = format!("the directory was made for {made_for}: it was renamed, or copied, since");
                findings.store(Severity::Note, &format!("{name}/{}", file_names::OWN_FILE), text);
            }
        }
        for (file, reason) in RetentionHolds::read_leniently(&**storage)?.unreadable {
            let text = format!("cannot be read: {reason}; nothing is deleted for its age before it is removed");
            findings.store(Severity::Note, &file, text);
        }
        report.merge(findings);
    }
    let mut selected: Vec<TopicPartition> = names.into_iter().filter(|name| selection.matches(name)).collect();
    let known = facts.newest.iter().flat_map(|checkpoint| checkpoint.logs.keys());
    selected.extend(known.filter(|name| selection.matches(name)).cloned());
    selected.sort_unstable();
    selected.dedup();
    if let (true, Some(topic)) = (selected.is_empty(), &selection.topic) {
        let name = selection.partition.map_or_else(|| topic.clone(), |partition| format!("{topic}-{partition}"));
        return Err(Error::UnknownTopicOrPartition { name });
    }
    let bytes_total = selected.iter().map(|name| bytes_of(&**storage, name)).sum();
    let mut meter = Meter::new(progress, bytes_total);
    let mut plans = Vec::new();
    for name in selected {
        let whole = Extent::Whole;
        let (log, findings, plan) = check_log(storage, &name, &mut facts, whole, &mut meter, &mut decompressor)?;
        report.merge(findings);
        report.logs.push(log);
        if plan.has_work() {
            plans.push(plan);
        }
    }
    meter.report()?;
    Ok((report, facts, plans))
}

/// What no reader of the log `name` meets: records that the checkpoint knows to have been before the first segment;
/// batches that Kafka's log cleaner left under another name; what was damaged above the recovery point in the boot that
/// wrote it, where no stop of the writer explains it, and the valid batches behind it; and batches that hold at offsets
/// which no batch can have. The findings have [`Severity::Lost`], as those of [`check`].
///
/// Reads names alone where the store was closed cleanly or the machine has booted since, else the log from the segment
/// of its recovery point on, or its last segment where the checkpoint does not know it. For more than one log there is
/// [`HiddenCheck`].
///
/// # Errors
/// As [`check`].
pub fn check_hidden(storage: &Arc<dyn Storage>, name: &TopicPartition) -> Result<Vec<Finding>> {
    HiddenCheck::new(storage)?.of(name)
}

/// [`check_hidden`] for several logs of a store: the checkpoint, which has all of them, is read once.
#[derive(Debug)]
pub struct HiddenCheck {
    storage: Arc<dyn Storage>,
    facts: StoreFacts,
}

impl HiddenCheck {
    /// Reads the checkpoint of the store on `storage`.
    ///
    /// # Errors
    /// As [`check`].
    pub fn new(storage: &Arc<dyn Storage>) -> Result<HiddenCheck> {
        Ok(HiddenCheck { storage: Arc::clone(storage), facts: StoreFacts::read(&**storage)? })
    }

    /// The checkpoint as it was read last.
    pub(super) fn facts(&self) -> &StoreFacts {
        &self.facts
    }

    /// What no reader of the log `name` meets. See [`check_hidden`].
    ///
    /// # Errors
    /// As [`check`].
    pub fn of(&mut self, name: &TopicPartition) -> Result<Vec<Finding>> {
        let (log, findings, plan) = check_part(&self.storage, name, &mut self.facts, Extent::Hidden)?;
        let LogPlan { facts, passed_over, .. } = plan;
        let is_end_in_doubt = facts.is_end_in_doubt();
        let point = facts.recovery_point().unwrap_or(log.log_end_offset);
        let is_hidden = |finding: &Finding| {
            // Offsets that no batch can have are above all others; messages of an old format are the readers' to
            // report.
            let is_above = || finding.lost.map_or(!log.needs_decision, |(first, _)| first >= point);
            let mut passed = passed_over.iter().filter(|it| it.path == finding.file && Some(it.lost) == finding.lost);
            let is_unread = passed.next().map(|passed| passed.is_behind_end);
            finding.severity == Severity::Lost
                && (finding.position.is_none() || is_unread.unwrap_or_else(|| is_end_in_doubt && is_above()))
        };
        Ok(findings.into_iter().filter(is_hidden).collect())
    }
}

/// What is missing of the logs that `selection` names, as far as the ends of their segments show it: each has to lead
/// up to the next one, and the last one to the recovery point. For a command that says where logs stand and reads no
/// record. The findings have [`Severity::Lost`], as those of [`check`].
///
/// Reads the checkpoint once, of each log the names and the ends of its segments, and the last segment where the store
/// was not closed cleanly. Of a log that was copied here, which shows no end, it looks through the headers in the first
/// 16 MiB: offsets have to rise.
///
/// # Errors
/// As [`check`].
pub fn check_ends(storage: &Arc<dyn Storage>, selection: &Selection) -> Result<Vec<Finding>> {
    let mut facts = StoreFacts::read(&**storage)?;
    let mut lost = Vec::new();
    for name in selection.logs(storage)? {
        lost.extend(check_part(storage, &name, &mut facts, Extent::Ends)?.1);
    }
    lost.retain(|finding| finding.severity == Severity::Lost);
    Ok(lost)
}

fn check_part(
    storage: &Arc<dyn Storage>,
    name: &TopicPartition,
    facts: &mut StoreFacts,
    extent: Extent,
) -> Result<(CheckedLog, Vec<Finding>, LogPlan)> {
    let progress = &mut |_| ControlFlow::Continue(());
    let mut meter = Meter::new(progress, 0);
    let (log, findings, plan) = check_log(storage, name, facts, extent, &mut meter, &mut Decompressor::default())?;
    Ok((log, findings.list, plan))
}

/// Checks one log, again where its writer changed it meanwhile.
fn check_log(
    storage: &Arc<dyn Storage>,
    name: &TopicPartition,
    facts: &mut StoreFacts,
    extent: Extent,
    meter: &mut Meter<'_>,
    decompressor: &mut Decompressor,
) -> Result<(CheckedLog, Findings, LogPlan)> {
    let before = meter.bytes_done;
    let mut attempt = 1;
    loop {
        let log_facts = LogFacts::new(&**storage, name, facts);
        let mut check = LogCheck::new(storage, log_facts, meter, decompressor);
        check.is_last_attempt = attempt == ATTEMPTS_MAX;
        for doubt in check.facts.doubts.clone() {
            let text = format!("{doubt}; the next open goes by the log's segments instead");
            check.add(Severity::Heals, name.to_string(), None, None, text);
        }
        let mut ended = check.run(extent)?;
        let is_suspect = check.findings.worst > Some(Severity::Note) && !check.facts.clean;
        if is_suspect && ended == Ended::Done && attempt < ATTEMPTS_MAX {
            // A truncation between reading the checkpoint and reading the files looks like damage.
            let now = StoreFacts::read(&**storage)?;
            if !same_history(facts.saved(name), now.saved(name)) {
                ended = Ended::Changed;
            }
        }
        if ended == Ended::Done || attempt == ATTEMPTS_MAX {
            if ended == Ended::Changed {
                let text = "the log kept changing while it was checked; this is what was seen last";
                check.add(Severity::Note, name.to_string(), None, None, text.to_owned());
            }
            return Ok(check.into_parts());
        }
        attempt += 1;
        meter.bytes_done = before;
        *facts = StoreFacts::read(&**storage)?;
    }
}

/// What there is to say of a directory that is no log of the store, though its name is like one's.
fn directory_note(entry: &DirEntry) -> Option<String> {
    if !entry.is_dir {
        return None;
    }
    let beyond = TopicPartition::parse_dir(&entry.name).filter(|name| name.partition >= PARTITIONS_MAX);
    if let Some(TopicPartition { partition, .. }) = beyond {
        let last = PARTITIONS_MAX - 1;
        return Some(format!(
            "partition {partition} is beyond the last one, {last}: edgelog leaves the directory alone"
        ));
    }
    let is_like_one = ["-delete", "-stray", "-future"].iter().any(|ending| entry.name.ends_with(ending));
    is_like_one.then(|| "no log of this store: edgelog leaves the directory alone".to_owned())
}

/// Whether nothing was truncated between two looks at the checkpoint: appending alone changes neither epochs nor
/// start.
fn same_history(before: Option<&SavedLog>, now: Option<&SavedLog>) -> bool {
    let history = |saved: &SavedLog| (saved.id, saved.log_start_offset, saved.epochs.clone());
    before.map(history) == now.map(history)
}

/// What stands in place of the lock file, where that is no file: who writes the store, and repair, cannot lock it.
pub(super) fn in_place_of_the_lock(storage: &dyn Storage) -> Option<io::Error> {
    match storage.metadata(LOCK_FILE) {
        // Asked for its names, a file is no directory.
        Ok(_) => storage.read_dir(LOCK_FILE).is_ok().then(|| io::ErrorKind::IsADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::Other => Some(error),
        Err(_) => None,
    }
}

fn check_checkpoint(findings: &mut Findings, facts: &StoreFacts, has_logs: bool) {
    let file = crate::store::checkpoint::FILE;
    for (log, what) in &facts.odd {
        let text = format!("{log}: {what}; the next open goes by the log's segments instead");
        findings.store(Severity::Heals, file, text);
    }
    if let Some(reason) = &facts.unreadable {
        let text =
            format!("cannot be opened: {reason}; no command opens the store before it is put right or moved away");
        findings.store(Severity::Lost, file, text);
        return;
    }
    match (facts.exists, facts.valid) {
        (false, _) if has_logs => findings.store(
            Severity::Heals,
            file,
            "missing; the next open recovers every log from its segments, without the log starts that it alone knew",
        ),
        (false, _) => {}
        (true, [false, false]) => findings.store(
            Severity::Heals,
            file,
            "neither slot is valid; the next open recovers every log from its segments, without the log \
             starts that they alone knew",
        ),
        (true, [true, true]) => {
            let newest_clean = facts.newest.as_ref().is_some_and(|newest| newest.clean);
            if newest_clean && !facts.agree {
                let text = "closing was cut short between the two slots; the next open recovers";
                findings.store(Severity::Note, file, text);
            }
        }
        (true, [first, _]) => {
            let (bad, good) = if first { (2, 1) } else { (1, 2) };
            findings.store(Severity::Heals, file, format!("slot {bad} is not valid; slot {good} holds"));
        }
    }
}

fn bytes_of(storage: &dyn Storage, name: &TopicPartition) -> u64 {
    let Ok(listing) = Listing::by_names(storage, &name.to_string()) else { return 0 };
    listing.segments.iter().filter_map(|(_, path)| storage.metadata(path).ok()).map(|meta| meta.len).sum()
}

/// The offset behind the batches that follow each other from `position` on, by their headers.
fn batches_end_at(headers: &mut HeaderWalk, position: u64) -> Option<Offset> {
    headers.start_at(position);
    let mut reached = None;
    while let Some(batch) = headers.next() {
        if reached.is_some_and(|reached| reached != batch.base_offset()) {
            return None;
        }
        reached = Some(batch.next_offset());
    }
    reached
}

/// How much of a log is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    /// The segments from that of the recovery point on.
    End,
    /// How each segment ends, and the last one where it is not known to be whole.
    Ends,
    /// No segment: what their names say.
    Names,
    /// What no reader may meet: the end, where that is in doubt, else the names.
    Hidden,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    /// The writer exchanged or removed something meanwhile.
    Changed,
}

impl LogCheck<'_, '_> {
    fn run(&mut self, extent: Extent) -> Result<Ended> {
        let listing = match self.list(extent) {
            Ok(listing) => listing,
            Err(Error::Storage { .. }) if self.storage.leads_nowhere(&self.facts.dir) => {
                return Ok(self.away());
            }
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(self.no_dir()),
            Err(error) => return Err(error),
        };
        let extent = match extent {
            Extent::Hidden if self.facts.is_end_in_doubt() => Extent::End,
            Extent::Hidden => Extent::Names,
            extent => extent,
        };
        // What a file of Kafka's log cleaner holds is held against all segments.
        let extent = if listing.swaps.is_empty() { extent } else { Extent::Whole };
        let from = match extent {
            Extent::Whole => {
                self.leftovers(&listing);
                0
            }
            Extent::Ends => 0,
            Extent::End => {
                let point = self.facts.recovery_point().unwrap_or(Offset::MAX);
                listing.segments.partition_point(|(base, _)| *base <= point).saturating_sub(1)
            }
            Extent::Names | Extent::Hidden => listing.segments.len(),
        };
        if self.facts.saved.is_none() && !self.facts.is_shut && !listing.segments.is_empty() {
            let text = "the checkpoint does not know this log; the next open takes it over as it is";
            self.add(Severity::Note, self.facts.dir.to_string(), None, None, text.to_owned());
        }
        let Some(&(first, _)) = listing.segments.first() else {
            self.swap_files(&listing);
            return Ok(self.no_segments());
        };
        self.check_start(first, &listing);
        self.check_clean_end(&listing);
        self.log.log_start_offset = self.facts.log_start().max(first);
        self.log.log_end_offset = first;
        for (at, (base, path)) in listing.segments.iter().enumerate().skip(from) {
            let upper = listing.segments.get(at + 1).map(|(next, _)| *next);
            if extent == Extent::Ends && self.ends_well(*base, path, upper) {
                continue;
            }
            match self.check_segment(*base, path, upper)? {
                Flow::Continue => self.covered.push((*base, self.log.log_end_offset)),
                Flow::Changed => return Ok(Ended::Changed),
                Flow::EndOfLog => {
                    self.covered.push((*base, self.log.log_end_offset));
                    let behind = &listing.segments[at + 1..];
                    if behind.iter().any(|(_, path)| self.storage.metadata(path).is_err()) {
                        return Ok(Ended::Changed);
                    }
                    self.behind_the_end(&listing.segments[at + 1..]);
                    break;
                }
            }
        }
        self.settle_passed_over(&listing);
        if extent == Extent::Whole {
            self.settle_overlaps(&listing);
            self.swap_files(&listing);
            self.check_copies(&listing);
            self.check_epoch_file();
        }
        Ok(if self.has_missed_names(&listing, extent)? { Ended::Changed } else { Ended::Done })
    }

    fn list(&self, extent: Extent) -> Result<Listing> {
        let looks_at_all = matches!(extent, Extent::Whole | Extent::Ends);
        Listing::read(&**self.storage, &self.facts.dir, self.facts.saved.as_ref(), looks_at_all)
    }

    /// A name that comes to be while its directory is listed may be missed, and a later one not: whether what looks
    /// like a hole is that.
    fn has_missed_names(&self, listing: &Listing, extent: Extent) -> Result<bool> {
        if self.facts.clean || self.findings.worst <= Some(Severity::Note) {
            return Ok(false);
        }
        let again = self.list(extent)?.segments;
        let is_missed = |segment: &(Offset, String)| {
            listing.segments.last().is_some_and(|last| segment < last)
                && listing.segments.binary_search(segment).is_err()
        };
        Ok(again.iter().any(is_missed))
    }

    /// Kafka's log cleaner writes a segment under a `.swap` name, removes those that it replaces, and renames it. A
    /// crash in between leaves its records in no other file.
    fn swap_files(&mut self, listing: &Listing) {
        for (base, path) in &listing.swaps {
            let held = match Held::read(&**self.storage, path, Some(*base), 0) {
                Ok(held) => held,
                Err(error) => {
                    let cause =
                        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                    let text = format!(
                        "left by Kafka's log cleaner, and it cannot be opened: {cause}. Whether it holds the only copy \
                         of records is not known"
                    );
                    self.add(Severity::Lost, path.clone(), None, None, text);
                    self.log.needs_decision = true;
                    continue;
                }
            };
            let missing = |ranges: &[(Offset, Offset)]| -> Vec<(Offset, Offset)> {
                ranges.iter().flat_map(|&range| left_of(range, &self.covered)).collect()
            };
            let copied = missing(&held.ranges);
            // What stood in the damage reached up to what holds behind it, or to an end that is not known.
            let unknown = |&(first, next): &(Offset, Option<Offset>)| (first, next.unwrap_or(first.saturating_add(1)));
            let damaged = missing(&held.damaged.iter().map(unknown).collect::<Vec<_>>());
            if copied.is_empty() && damaged.is_empty() {
                let text = "left by Kafka's log cleaner; the segments hold all of its offsets, and nothing reads it";
                self.add(Severity::Note, path.clone(), None, None, text.to_owned());
                continue;
            }
            let segment = file_names::log_file(&self.facts.dir, *base);
            let bases: Vec<Offset> = listing.segments.iter().map(|(base, _)| *base).collect();
            let (dir, saved) = (&self.facts.dir, self.facts.saved.as_ref());
            let is_placed = fits_in(&**self.storage, dir, saved, &bases, (*base, &held));
            let advice = if is_placed {
                format!("the next open for writing renames it to {segment}")
            } else if listing.segments.iter().any(|(taken, _)| taken == base) {
                format!("put {segment} and what else it replaces aside, then rename it to {segment}")
            } else {
                format!("rename it to {segment}")
            };
            // Where the checkpoint knows of these offsets, they were reported as lost.
            for (first, next) in copied {
                let offsets = offsets_in_words(first, next);
                let text = format!("left by Kafka's log cleaner; it holds {offsets}, which no segment has: {advice}");
                self.add(Severity::Lost, path.clone(), None, None, text);
            }
            for (first, _) in damaged {
                let text = format!(
                    "left by Kafka's log cleaner; it is damaged where offset {first} was due, which no segment \
                     has, and what else stood there is not known"
                );
                self.add(Severity::Lost, path.clone(), None, None, text);
            }
            self.log.needs_decision |= !is_placed;
        }
    }

    /// Files that begin as another segment does, under a name that is not its own: readers pass over them.
    fn check_copies(&mut self, listing: &Listing) {
        for file in listing.misnamed.iter().filter(|file| file.is_copy) {
            let [path, other] = [file.name, file.base].map(|base| file_names::log_file(&self.facts.dir, base));
            let text = if file.name == file.base {
                "another file has all that is in it, and more, and nothing reads this one".to_owned()
            } else {
                format!("a copy of {other} under another name, and nothing reads it")
            };
            self.add(Severity::Note, path, None, None, text);
        }
    }

    /// Damage in one of several segments that overlap is no loss of what another one holds.
    fn settle_overlaps(&mut self, listing: &Listing) {
        if self.facts.contiguous() || self.findings.worst != Some(Severity::Lost) {
            return;
        }
        let spans: Vec<_> = listing.segments.iter().zip(&self.covered).collect();
        let storage = &**self.storage;
        self.findings.settle(|finding| {
            let (Some(_), Some(range)) = (finding.position, finding.lost) else { return };
            let others = spans
                .iter()
                .filter(|((_, path), (base, end))| *path != finding.file && *base < range.1 && range.0 < *end);
            let others: Vec<_> = others.map(|((base, path), _)| (*base, path.as_str())).collect();
            if others.is_empty() {
                return;
            }
            finding.lost = lost_everywhere(storage, others.into_iter(), range);
            if finding.lost.is_none() {
                finding.severity = Severity::Heals;
                finding.text.push_str("; another segment holds these offsets, and none is lost");
            }
        });
    }

    /// Batches that hold, out of order, are copies where their offsets stand elsewhere in the log; else they are lost.
    fn settle_passed_over(&mut self, listing: &Listing) {
        let passed = std::mem::take(&mut self.passed);
        let ranges: Vec<_> = passed.iter().flat_map(|passed| passed.ranges.iter().copied()).collect();
        if ranges.is_empty() {
            return;
        }
        let files = self.facts.files(&**self.storage, &listing.segments);
        let mut left = held_nowhere(&**self.storage, files, ranges);
        let end = self.log.log_end_offset;
        for PassedOver { path, position, ranges, missing, text, otherwise, is_behind_end } in passed {
            let found = lost_of(&ranges, common(&left, &ranges), missing, end);
            match otherwise.filter(|_| found.is_empty()) {
                // Nothing reads them, and an open keeps them aside.
                Some(text) if is_behind_end => self.add(Severity::Heals, path, Some(position), None, text),
                Some(text) => self.lose(path, Some(position), Offset(0), Offset(0), text),
                None => found.into_iter().for_each(|(first, next)| {
                    take_out(&mut left, (first, next));
                    // As to readers: nothing is asked for that lies before the log.
                    let first = first.max(self.log.log_start_offset);
                    if first >= next {
                        return;
                    }
                    let (path, lost) = (path.clone(), (first, next));
                    self.plan.passed_over.push(LostBatches { path: path.clone(), lost, is_behind_end });
                    self.lose(path, Some(position), first, next, format!("{text}; {PASSED_OVER}"));
                }),
            }
        }
    }

    /// The offsets of the batches that hold in a `.cut` file and that a salvage would append.
    fn offsets_in_cut(&self, path: &str, len: u64) -> Option<(Offset, Offset)> {
        let file = self.storage.open(path, Access::Read).map_err(Error::storage("open", path));
        let from = file.and_then(|file| kept_before(&*file, len, path)).ok()?;
        // Its name has the base offset of its segment; what was cut from it may have come from any time.
        Held::read(&**self.storage, path, None, from).ok()?.span()
    }

    /// Nothing is lost for good, and nothing can be read.
    fn away(&mut self) -> Ended {
        let (start, end) = (self.facts.log_start(), self.facts.recovery_point().unwrap_or(Offset(0)));
        let (dir, text) = (self.facts.dir.to_string(), format!("cannot be read: {LEADS_NOWHERE}"));
        if start < end {
            self.lose(dir, None, start, end, text);
        } else {
            self.add(Severity::Lost, dir, None, None, text);
        }
        self.log.needs_decision = true;
        Ended::Done
    }

    fn no_dir(&mut self) -> Ended {
        let (start, end) = (self.facts.log_start(), self.facts.recovery_point().unwrap_or(Offset(0)));
        let text = "the checkpoint names this log, and its directory is missing (or its deletion was cut short)";
        if start < end {
            self.lose(self.facts.dir.to_string(), None, start, end, text.to_owned());
        } else {
            self.add(Severity::Note, self.facts.dir.to_string(), None, None, text.to_owned());
        }
        Ended::Done
    }

    fn no_segments(&mut self) -> Ended {
        let (start, end) = (self.facts.log_start(), self.facts.recovery_point().unwrap_or(Offset(0)));
        if start < end {
            let text = "no segment is left of this log".to_owned();
            self.lose(self.facts.dir.to_string(), None, start, end, text);
            self.plan.new_start = Some(end);
        } else {
            let text = "no segment yet; the next open makes one".to_owned();
            self.add(Severity::Note, self.facts.dir.to_string(), None, None, text);
        }
        Ended::Done
    }

    fn leftovers(&mut self, listing: &Listing) {
        for path in &listing.displaced {
            let text =
                "recovery was cut short while it kept a tail aside; the next open puts the segment back".to_owned();
            self.add(Severity::Heals, path.clone(), None, None, text);
        }
        for file in listing.misnamed.iter().filter(|file| !file.is_copy) {
            let (from, to) = [file.name, file.base].map(|base| file_names::log_file(&self.facts.dir, base)).into();
            let text = format!("holds the segment that begins at offset {}; repair renames it to {to}", file.base);
            self.add(Severity::Heals, from.clone(), None, None, text);
            self.plan.renames.push((from, to));
        }
        for path in &listing.parts {
            let text = "an unfinished copy; the next open removes it".to_owned();
            self.add(Severity::Note, path.clone(), None, None, text);
        }
        for path in listing.cuts.iter().filter(|cut| !listing.displaced.contains(cut)) {
            let len = self.storage.metadata(path).map_or(0, |meta| meta.len);
            let mut text = format!("{len} bytes that were taken out of the log and kept; nothing reads them");
            if let Some((first, next)) = self.offsets_in_cut(path, len) {
                let offsets = offsets_in_words(first, next);
                let _ = write!(
                    text,
                    ": valid batches are in them, {offsets}; `edgelog repair --salvage {path}` appends them again"
                );
            }
            self.add(Severity::Note, path.clone(), None, None, text);
        }
        for path in &listing.orphans {
            let text = "an index without its segment; the next open removes it".to_owned();
            self.add(Severity::Note, path.clone(), None, None, text);
        }
        if listing.prepared && self.facts.clean {
            let file = format!("{}/{}", self.facts.dir, file_names::PREPARED);
            self.add(Severity::Note, file, None, None, "room of a segment that never began".to_owned());
        }
    }

    /// Does the log begin where the checkpoint says?
    fn check_start(&mut self, first: Offset, listing: &Listing) {
        let Some(saved) = &self.facts.saved else { return };
        let start = saved.log_start_offset;
        if first <= start {
            return;
        }
        let file = self.facts.dir.to_string();
        let config = &self.facts.config;
        let forgets = config.retention_ms >= 0 || config.retention_bytes >= 0;
        // Retention removes a segment's indexes before the segment itself.
        let has_orphans = !listing.orphans.is_empty();
        // And before it removes anything, the checkpoint says where the log starts then.
        if !self.facts.clean && forgets && !has_orphans && self.facts.slots != [true; 2] {
            let text = format!("the log begins at {first}; the checkpoint said {start}: retention has gone on since");
            self.add(Severity::Note, file, None, None, text);
        } else {
            let text =
                format!("the first segment begins at {first}, and the checkpoint says that the log starts at {start}");
            self.lose(file, None, start, first, text);
            self.plan.new_start = Some(first);
        }
    }

    /// Does a clean mark hold for this log?
    fn check_clean_end(&mut self, listing: &Listing) {
        let (true, Some(saved), Some((last, path))) = (self.facts.clean, &self.facts.saved, listing.segments.last())
        else {
            return;
        };
        let len = self.storage.metadata(path).map_or(0, |meta| meta.len);
        let mut at = saved.durable;
        if let Some(position) = self.facts.far_end {
            (at.base_offset, at.position) = (*last, position);
        }
        if *last == at.base_offset && len == u64::from(at.position) {
            return;
        }
        let text = format!(
            "the log was closed at byte {} of the segment that begins at {}, and now ends at byte {len} of this one",
            at.position, at.base_offset
        );
        let path = path.clone();
        self.add(Severity::Heals, path, Some(len), None, text);
        self.facts.clean = false;
        self.plan.facts.clean = false;
    }

    /// Whether a segment is known to end as it has to: the last one of a log that was closed cleanly, or one whose
    /// batches lead up to the next one, by their headers from the last one on that its index names. Where holes are
    /// legal, the offsets only have to rise.
    fn ends_well(&mut self, base: Offset, path: &str, upper: Option<Offset>) -> bool {
        if !self.facts.contiguous() {
            return (upper.is_some() || self.facts.clean) && self.rises(base, path);
        }
        let Some(next) = upper else { return self.facts.clean };
        let Ok(mut headers) = HeaderWalk::open(&**self.storage, path) else { return false };
        let [index, time_index] = file_names::index_files(&self.facts.dir, base);
        let indexed = IndexCheck::load(&**self.storage, index, time_index, base).positions().last().copied();
        indexed.into_iter().chain([0]).any(|from| batches_end_at(&mut headers, from) == Some(next))
    }

    /// Whether the headers of a segment say offsets that rise, as far as they are looked at.
    fn rises(&mut self, base: Offset, path: &str) -> bool {
        let Ok(mut headers) = HeaderWalk::open(&**self.storage, path) else { return false };
        let mut reached = base;
        while self.ends_looked_at < ENDS_LOOK_BYTES {
            let Some(batch) = headers.next() else { return headers.is_at_end() };
            if batch.base_offset() < reached {
                return false;
            }
            reached = batch.next_offset();
            self.ends_looked_at += batch.size() as u64;
        }
        true
    }

    fn check_segment(&mut self, base: Offset, path: &str, upper: Option<Offset>) -> Result<Flow> {
        let opened = self.storage.open(path, Access::Read).and_then(|file| {
            let len = file.len()?;
            Ok((file, len, self.storage.metadata(path)?.identity))
        });
        let (file, len, identity) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Flow::Changed),
            Err(error) => {
                let text = format!("cannot be opened: {error}; edgelog leaves the log as it is");
                let next = upper.or(self.facts.recovery_point()).unwrap_or(base);
                let lost = Some((base.max(self.facts.log_start()), next)).filter(|(first, next)| first < next);
                self.add(Severity::Lost, path.to_owned(), None, lost, text);
                self.is_left_alone = true;
                self.log.log_end_offset = self.log.log_end_offset.max(next);
                return Ok(Flow::Continue);
            }
        };
        let [index, time_index] = file_names::index_files(&self.facts.dir, base);
        let indexes = IndexCheck::load(&**self.storage, index, time_index, base);
        let rules = self.facts.walk_rules(&**self.storage, base, upper);
        let mut walker = Walker::new(file, len.min(READABLE_BYTES_MAX), rules);
        walker.set_hints(indexes.positions());
        walker.set_epoch_before(self.epoch_before.take());
        self.log.segments += 1;
        self.log.bytes += indexes.bytes;
        let flow = SegmentCheck::new(self, path, base, upper, walker, indexes).run()?;
        match self.storage.metadata(path) {
            Ok(meta) if meta.identity == identity => Ok(flow),
            _ => Ok(Flow::Changed),
        }
    }

    /// Segments behind the end of the log: the next open cuts them.
    fn behind_the_end(&mut self, segments: &[(Offset, String)]) {
        for (base, path) in segments {
            let opened = self.storage.open(path, Access::Read).and_then(|file| file.len().map(|len| (file, len)));
            let len = opened.map_or(0, |(file, len)| Window::new(file, len).tail_bytes(0));
            let end = self.log.log_end_offset;
            let mut text = format!(
                "the log ends at offset {end}, above its recovery point, and this segment begins at {base}: the next \
                 open keeps its {len} bytes aside"
            );
            let held = Held::read(&**self.storage, path, Some(*base), 0).unwrap_or_default();
            let Some((first, next)) = held.span() else {
                self.add(Severity::Heals, path.clone(), Some(0), None, text);
                continue;
            };
            let epoch = self.facts.epochs.view().latest().map_or(LeaderEpoch(0), |latest| latest.epoch);
            let cut = file_names::cut_file(&self.facts.dir, *base, Position(0), epoch);
            let _ = write!(
                text,
                ": valid batches are in them, {}; after it, `edgelog repair --salvage {cut}` appends them again",
                offsets_in_words(first, next)
            );
            if self.facts.stopped_in_this_boot {
                self.lose(path.clone(), Some(0), first, next, text);
            } else {
                self.add(Severity::Heals, path.clone(), Some(0), None, text);
            }
        }
    }

    /// Kafka's text file of epochs is derived; after a clean close it says what the checkpoint says.
    fn check_epoch_file(&mut self) {
        let path = format!("{}/{}", self.facts.dir, file_names::LEADER_EPOCH_CHECKPOINT);
        if !self.facts.clean {
            return;
        }
        let Ok(bytes) = super::facts::read_whole(&**self.storage, &path, 16 << 20) else { return };
        let found = String::from_utf8(bytes).ok().and_then(|text| text.parse::<edgelog_core::EpochTable>().ok());
        if found.as_ref() != Some(&self.facts.epochs) {
            let text = "differs from the checkpoint, which counts; the next close rewrites it".to_owned();
            self.add(Severity::Note, path, None, None, text);
        }
    }
}
