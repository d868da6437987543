//! What an export is asked for, and what it answers.

use edgelog_core::Offset;
use edgelog_core::config::IsolationLevel;

use super::report::Finding;

/// So many lost ranges are reported, and so many that were deleted meanwhile.
const LOST_MAX: usize = 1000;

/// Which part of a log is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportRange {
    /// From this offset on.
    pub from: Offset,
    /// Up to before this one.
    pub until: Offset,
    /// Which records of transactions [`export_records`](super::export_records) gives out. Batches go to a broker as
    /// they are.
    pub isolation: IsolationLevel,
    /// The most bytes that the records of a batch may decompress to; `None` is `edgelog.decompressed.bytes.max`'
    /// default.
    pub decompressed_bytes_max: Option<u32>,
}

impl Default for ExportRange {
    fn default() -> ExportRange {
        ExportRange {
            from: Offset(0),
            until: Offset::MAX,
            isolation: IsolationLevel::ReadUncommitted,
            decompressed_bytes_max: None,
        }
    }
}

impl ExportRange {
    /// The offsets `from` up to before `until`.
    pub fn between(from: Offset, until: Offset) -> ExportRange {
        ExportRange { from, until, ..ExportRange::default() }
    }

    /// The same, with or without the records of aborted transactions.
    #[must_use]
    pub fn isolation(self, isolation: IsolationLevel) -> ExportRange {
        ExportRange { isolation, ..self }
    }

    /// The same, with another bound on what a batch may decompress to.
    #[must_use]
    pub fn decompressed_bytes_max(self, bytes: Option<u32>) -> ExportRange {
        ExportRange { decompressed_bytes_max: bytes, ..self }
    }
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ExportReport {
    /// Segments written; 0 where records were.
    pub segments: usize,
    /// Batches exported.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes: whole batches, or batches read.
    pub bytes: u64,
    /// The first offset exported, and the one behind the last.
    pub offsets: Option<(Offset, Offset)>,
    /// What could not be exported, and where: damage, and as notes what is sound and cannot be decompressed here.
    pub lost: Vec<Finding>,
    /// Offsets of the range that were deleted, by retention or by a person, before they were read, each with the one
    /// behind. Those before the log start as it was when the export began are not among them.
    pub deleted: Vec<(Offset, Offset)>,
}

impl ExportReport {
    /// The offsets `first` up to before `next` were deleted before they were read.
    pub(super) fn delete(&mut self, first: Offset, next: Offset, range: ExportRange) {
        let (first, next) = (first.max(range.from), next.min(range.until));
        if first >= next {
            return;
        }
        if let Some((_, end)) = self.deleted.last_mut().filter(|(_, end)| *end == first) {
            *end = next;
        } else if self.deleted.len() < LOST_MAX {
            self.deleted.push((first, next));
        }
    }

    /// A reader at `position` goes on at `next`: whether that is before it, since the log was truncated. Behind it, the
    /// log start rose over the reader.
    pub(super) fn goes_back(&mut self, position: Offset, next: Offset, range: ExportRange) -> bool {
        self.delete(position, next, range);
        next < position
    }

    pub(super) fn lose(&mut self, finding: Finding) {
        if self.lost.len() < LOST_MAX {
            self.lost.push(finding);
        }
    }
}
