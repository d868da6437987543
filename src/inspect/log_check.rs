//! One log being checked: what is known of it, what was found so far, and what repair has to do to it.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use edgelog_core::{LeaderEpoch, Offset};

use super::facts::LogFacts;
use super::plan::LogPlan;
use super::report::{CheckedLog, Finding, Findings, Progress, Severity};
use crate::error::{Error, Result};
use crate::segment::decompressor::Decompressor;
use crate::segment::passed_over::OffsetRange;
use crate::storage::Storage;

/// Indexes that are perhaps being written are waited for so often in one log.
const PAUSES_MAX: u32 = 8;
/// Progress is reported every so many bytes.
const METER_BYTES: u64 = 1 << 20;

pub(super) struct Meter<'a> {
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    pub(super) bytes_done: u64,
    bytes_total: u64,
    reported: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>, bytes_total: u64) -> Meter<'a> {
        Meter { progress, bytes_done: 0, bytes_total, reported: 0 }
    }

    pub(super) fn advance(&mut self, bytes: u64) -> Result<()> {
        self.bytes_done += bytes;
        if self.bytes_done.abs_diff(self.reported) >= METER_BYTES { self.report() } else { Ok(()) }
    }

    pub(super) fn report(&mut self) -> Result<()> {
        self.reported = self.bytes_done;
        let progress = Progress { bytes_done: self.bytes_done, bytes_total: self.bytes_total.max(self.bytes_done) };
        match (self.progress)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::storage("check", ".")(io::ErrorKind::Interrupted.into())),
        }
    }
}

/// Batches that hold and that the log goes on without, met at damage: whether they stand elsewhere is not known yet.
pub(super) struct PassedOver {
    pub(super) path: String,
    pub(super) position: u64,
    /// The offsets that they have.
    pub(super) ranges: Vec<OffsetRange>,
    /// What is lost there in any case.
    pub(super) missing: OffsetRange,
    /// What is to be said where they are lost.
    pub(super) text: String,
    /// What else is to be said at that place where none of them is.
    pub(super) otherwise: Option<String>,
    /// The log ends before them: no reader comes there.
    pub(super) is_behind_end: bool,
}

/// One log being checked.
pub(super) struct LogCheck<'a, 'p> {
    pub(super) storage: &'a Arc<dyn Storage>,
    /// What changes now is reported as it is.
    pub(super) is_last_attempt: bool,
    /// Of each segment, the offsets from its base to behind its last batch.
    pub(super) covered: Vec<(Offset, Offset)>,
    /// So many bytes were looked at for offsets that do not rise.
    pub(super) ends_looked_at: u64,
    /// Batches that hold and are passed over.
    pub(super) passed: Vec<PassedOver>,
    /// What the last batch of the segment before says its epoch is; `None` behind damage.
    pub(super) epoch_before: Option<LeaderEpoch>,
    /// A segment of it cannot be opened or is longer than one can be, or messages of format 0 or 1 are in it. Nothing
    /// is done to it, no matter what else is found.
    pub(super) is_left_alone: bool,
    /// So often the check may still wait for an index that is perhaps being written.
    pub(super) pauses_left: u32,
    pub(super) facts: LogFacts,
    pub(super) meter: &'a mut Meter<'p>,
    pub(super) decompressor: &'a mut Decompressor,
    pub(super) findings: Findings,
    pub(super) log: CheckedLog,
    pub(super) plan: LogPlan,
}

impl<'a, 'p> LogCheck<'a, 'p> {
    pub(super) fn new(
        storage: &'a Arc<dyn Storage>,
        facts: LogFacts,
        meter: &'a mut Meter<'p>,
        decompressor: &'a mut Decompressor,
    ) -> LogCheck<'a, 'p> {
        let log = CheckedLog {
            name: facts.name.clone(),
            segments: 0,
            bytes: 0,
            batches: 0,
            records: 0,
            unread_batches: 0,
            log_start_offset: facts.log_start(),
            log_end_offset: facts.log_start(),
            worst: None,
            needs_decision: false,
        };
        let plan = LogPlan {
            facts: facts.clone(),
            segments: Vec::new(),
            renames: Vec::new(),
            new_start: None,
            passed_over: Vec::new(),
        };
        LogCheck {
            storage,
            is_last_attempt: false,
            covered: Vec::new(),
            ends_looked_at: 0,
            passed: Vec::new(),
            epoch_before: None,
            is_left_alone: false,
            pauses_left: PAUSES_MAX,
            facts,
            meter,
            decompressor,
            findings: Findings::default(),
            log,
            plan,
        }
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        &**self.storage
    }

    pub(super) fn into_parts(mut self) -> (CheckedLog, Findings, LogPlan) {
        self.log.worst = self.findings.worst;
        self.log.needs_decision |= self.is_left_alone;
        if self.is_left_alone {
            (self.plan.segments, self.plan.new_start) = (Vec::new(), None);
        }
        (self.log, self.findings, self.plan)
    }

    pub(super) fn add(
        &mut self,
        severity: Severity,
        file: String,
        position: Option<u64>,
        lost: Option<(Offset, Offset)>,
        text: String,
    ) {
        let log = Some(self.facts.name.clone());
        self.findings.add(Finding { severity, log, file, position, lost, text });
    }

    /// Offsets `first..next` are gone. What lies before the log start is no loss, and damage between two batches that
    /// took no offset is not one either: repair takes it out.
    pub(super) fn lose(&mut self, file: String, position: Option<u64>, first: Offset, next: Offset, text: String) {
        let is_empty = first >= next;
        let first = first.max(self.facts.log_start());
        if first < next {
            self.add(Severity::Lost, file, position, Some((first, next)), text);
        } else if is_empty {
            self.add(Severity::Heals, file, position, None, format!("{text}; no offset is lost"));
        } else {
            self.add(Severity::Note, file, position, None, format!("{text} (all before the log start)"));
        }
    }
}
