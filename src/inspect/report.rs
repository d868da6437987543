//! What checking found, for programs to look at and for people to read.

use std::fmt::{self, Write as _};

use edgelog_core::{Offset, Position};

use crate::codec::CodecError;
use crate::error::Error;
use crate::log::{LostRange, TopicPartition, offsets_in_words};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing, and no damage.
    Note,
    /// Damage that the next open or [`repair`](super::repair) makes good without losing a record.
    Heals,
    /// Records are lost, or cannot be read.
    Lost,
}

impl Severity {
    /// `note`, `heals` or `lost`.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Heals => "heals",
            Severity::Lost => "lost",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that checking found, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The log concerned; `None` where it is the store.
    pub log: Option<TopicPartition>,
    /// The file, relative to the data directory.
    pub file: String,
    /// The byte in that file where it begins, where there is one.
    pub position: Option<u64>,
    /// The offsets that are lost: the first one, and the first one behind them that is there again.
    pub lost: Option<(Offset, Offset)>,
    /// What was expected and what was found.
    pub text: String,
}

impl Finding {
    /// What a reader of `log` had to skip, worded as [`check`](super::check()) words it: `range` is what
    /// [`Reader::skip_damage`](crate::Reader::skip_damage) returned after `error`.
    ///
    /// The severity is [`Severity::Lost`], or [`Severity::Heals`] where damaged bytes took no offset.
    pub fn skipped(log: &TopicPartition, range: &LostRange, error: &Error) -> Finding {
        let mut text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        text.push_str(&behind_damage(range.unread_from.map(u64::from), range.resumes_at.map(u64::from)));
        let lost = (range.first_offset < range.next_offset).then_some((range.first_offset, range.next_offset));
        let severity = if lost.is_some() { Severity::Lost } else { Severity::Heals };
        let (log, file, position) = (Some(log.clone()), range.file.clone(), Some(u64::from(range.position)));
        Finding { severity, log, file, position, lost, text }
    }

    /// All that a reader of `log` had to skip: as [`skipped`](Finding::skipped), and the batches that hold, out of
    /// order, whose offsets stand nowhere else ([`LostRange::passed_over`]).
    pub fn all_skipped(log: &TopicPartition, range: &LostRange, error: &Error) -> Vec<Finding> {
        let skipped = Finding::skipped(log, range, error);
        let text = format!("{}; {PASSED_OVER}", skipped.text);
        let finding = |&lost: &(Offset, Offset)| {
            let (file, position) = (range.file.clone(), Some(u64::from(range.position)));
            let (log, text) = (Some(log.clone()), text.clone());
            Finding { severity: Severity::Lost, log, file, position, lost: Some(lost), text }
        };
        let damage = Some(skipped).filter(|damage| damage.lost.is_some() || range.passed_over.is_empty());
        damage.into_iter().chain(range.passed_over.iter().map(finding)).collect()
    }

    /// The batch of the offsets `first..next` in `log`, of which no record is handed out because `error` kept one from
    /// being decoded, worded as [`check`](super::check()) words it.
    ///
    /// The severity is [`Severity::Lost`], or [`Severity::Note`] where the batch may well be sound and is not
    /// decompressed here ([`Error::NotDecompressed`]).
    pub fn undecodable(log: &TopicPartition, first: Offset, next: Offset, error: &Error) -> Finding {
        let (severity, lost) = (Severity::Lost, Some((first, next)));
        let at = |file: &String, position: &Position| (file.clone(), Some(u64::from(*position)));
        let (severity, (file, position), lost, text) = match error {
            // The cause alone: the place is the finding's own.
            Error::CorruptBatch { file, position, base_offset, last_offset, source } => {
                let text = undecodable(*base_offset, last_offset.saturating_add(1), source);
                (severity, at(file, position), lost, text)
            }
            Error::NotDecompressed { file, position, base_offset, last_offset, source } => {
                let text = not_looked_at(*base_offset, last_offset.saturating_add(1), source);
                (Severity::Note, at(file, position), None, text)
            }
            other => (severity, (log.to_string(), None), lost, undecodable(first, next, other)),
        };
        Finding { severity, log: Some(log.clone()), file, position, lost, text }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(position) = self.position {
            write!(f, " at {position}")?;
        }
        if let Some((first, next)) = self.lost {
            write!(f, ": {} lost", offsets_in_words(first, next))?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Of batches that hold, and that the log goes on without.
pub(super) const PASSED_OVER: &str = "the batches of these offsets are valid and out of order, and are passed over: \
                                      their offsets stand nowhere else";

/// Of a batch that no reader reads where repair will put it.
pub(super) const WRONG_BASE: &str = "the batch holds but for its base offset: repair puts it right";

/// What is wrong with the batch of the offsets `first..next`, whose CRC holds.
pub(super) fn undecodable(first: Offset, next: Offset, fault: &dyn fmt::Display) -> String {
    let last = next.saturating_sub(1);
    format!("the CRC holds, and the records of the batch {first}..={last} cannot be read: {fault}")
}

/// What keeps the records of a batch that may well be sound from being decompressed here.
pub(super) fn not_looked_at(first: Offset, next: Offset, error: &CodecError) -> String {
    format!("{}: records were not looked at: {error}", offsets_in_words(first, next))
}

/// How the search behind damage ended, to be appended to the damage's cause.
pub(super) fn behind_damage(unread_from: Option<u64>, resumes_at: Option<u64>) -> String {
    let mut text = String::new();
    if let Some(unread) = unread_from {
        let _ = write!(text, "; from byte {unread} on the search's effort was spent, and little was looked at");
    }
    if let Some(at) = resumes_at {
        let _ = write!(text, "; good again at byte {at}");
    }
    text
}

/// What one log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedLog {
    /// The log.
    pub name: TopicPartition,
    /// Segments looked at.
    pub segments: usize,
    /// Bytes looked at, in segments and indexes.
    pub bytes: u64,
    /// Batches that hold.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Batches among them whose records were not looked at, and may well be sound: more comes out than
    /// `edgelog.decompressed.bytes.max` allows, or the codec is not built in. A note says of which.
    pub unread_batches: u64,
    /// First offset that the log holds.
    pub log_start_offset: Offset,
    /// The offset behind the last batch that holds and continues the log.
    pub log_end_offset: Offset,
    /// The worst that was found in it; `None` where nothing was.
    pub worst: Option<Severity>,
    /// Repair leaves something of it as it is, for a person to decide: messages of format 0 or 1, or a file of Kafka's
    /// log cleaner that holds the only copy of records.
    pub needs_decision: bool,
}

/// The outcome of [`check`](super::check).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// What was found, store first, then log by log in the order of the bytes.
    pub findings: Vec<Finding>,
    /// Findings beyond those listed: of each log a bounded number is kept.
    pub more_findings: u64,
    /// Each log that was looked at.
    pub logs: Vec<CheckedLog>,
    /// The worst of all findings, those that were not kept too.
    pub worst: Option<Severity>,
}

impl CheckReport {
    /// Batches whose records were not looked at, in all logs: they may well be sound, and no reader gives them out.
    pub fn unread_batches(&self) -> u64 {
        self.logs.iter().map(|log| log.unread_batches).sum()
    }

    /// Nothing but notes was found.
    pub fn is_sound(&self) -> bool {
        self.worst.is_none_or(|worst| worst == Severity::Note)
    }

    /// How many offsets are lost.
    pub fn lost_offsets(&self) -> u64 {
        let ranges = self.findings.iter().filter_map(|finding| finding.lost);
        ranges.map(|(first, next)| u64::try_from(next.saturating_since(first)).unwrap_or(0)).sum()
    }

    pub(super) fn merge(&mut self, findings: Findings) {
        self.worst = self.worst.max(findings.worst);
        self.more_findings += findings.more;
        self.findings.extend(findings.list);
    }
}

/// Of one log (or of the store) so many findings are kept.
const FINDINGS_MAX: usize = 1000;

/// Findings in the making.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    more: u64,
    pub(super) worst: Option<Severity>,
}

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.worst = self.worst.max(Some(finding.severity));
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding);
        } else if let Some(milder) = self.list.iter_mut().find(|kept| kept.severity < finding.severity) {
            // What is worse is never the one left out.
            *milder = finding;
            self.more += 1;
        } else {
            self.more += 1;
        }
    }

    /// Judges once more what was found, by what was found since.
    pub(super) fn settle(&mut self, judge: impl FnMut(&mut Finding)) {
        self.list.iter_mut().for_each(judge);
        if self.more == 0 {
            self.worst = self.list.iter().map(|finding| finding.severity).max();
        }
    }

    /// About the store itself.
    pub(super) fn store(&mut self, severity: Severity, file: &str, text: impl Into<String>) {
        let file = file.to_owned();
        self.add(Finding { severity, log: None, file, position: None, lost: None, text: text.into() });
    }
}

/// How far a long task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes looked at so far.
    pub bytes_done: u64,
    /// Bytes in all, as counted at the beginning.
    pub bytes_total: u64,
}
