//! Whether the names of a log's files are believed: asked by all who open, attach to or check the log.

use std::sync::Arc;

use edgelog_core::Offset;

use super::origin::{Origin, is_created_here};
use super::saved_log::SavedLog;
use super::shared::LogShared;
use crate::error::Result;
use crate::segment::segment_files::{are_suspect, misnamed, put_names_right};
use crate::segment::{Misnamed, Segment};
use crate::storage::Storage;
use crate::sync::Ordering;

/// Of the segments in `dir` that are called by `names` (ascending), those whose names are wrong. Where a checkpoint
/// knows the log (`saved`), they are looked for only if those from the segment of its recovery point on give a reason,
/// or if `looks_at_all`.
pub(crate) fn wrong_names(
    storage: &dyn Storage,
    dir: &str,
    names: &[Offset],
    saved: Option<&SavedLog>,
    looks_at_all: bool,
) -> Vec<Misnamed> {
    let start = saved.map_or(Offset(0), |saved| saved.log_start_offset.max(Offset(0)));
    let is_sound = |saved: &SavedLog| !are_suspect(storage, dir, names, start, saved.durable.base_offset);
    if !looks_at_all && saved.is_some_and(is_sound) {
        return Vec::new();
    }
    let contiguous = saved.map_or_else(|| is_created_here(storage, dir), |saved| saved.origin == Origin::Own);
    misnamed(storage, dir, names, contiguous, start)
}

impl LogShared {
    /// A reader has met damage: whether it is the names of files that are wrong, and not their batches. Then the list
    /// of segments is put right, and readers look for their places again. Asked once.
    #[cold]
    pub(super) fn put_names_right(&self) -> Result<bool> {
        if self.are_names_checked.swap(true, Ordering::AcqRel) {
            return Ok(false);
        }
        if self.attached().is_some() {
            return self.begin_with_right_names();
        }
        let names: Vec<Offset> = self.segments.read().iter().map(|segment| segment.base_offset).collect();
        let (contiguous, start) = (self.origin() == Origin::Own, self.log_start_offset.load(Ordering::Acquire));
        let mut wrong = misnamed(&*self.storage, &self.dir, &names, contiguous, start);
        if wrong.is_empty() {
            return Ok(false);
        }
        // What retention or a truncation has taken meanwhile stays away.
        let mut segments = self.segments.write();
        let Some((active, sealed)) = segments.split_last() else { return Ok(false) };
        wrong.retain(|file| sealed.iter().any(|segment| segment.base_offset == file.name));
        put_names_right(&*self.storage, &self.dir, &names, &wrong)?;
        let is_right = |segment: &&Arc<Segment>| wrong.iter().all(|file| file.name != segment.base_offset);
        let existing = |base| Segment::existing(&self.storage, &self.dir, self.segment_options(), base);
        let moved = wrong.iter().filter(|file| !file.is_copy).map(|file| Arc::new(existing(file.base)));
        let mut listed: Vec<_> = sealed.iter().filter(is_right).cloned().collect();
        listed.push(Arc::clone(active));
        for segment in moved {
            listed.insert(listed.partition_point(|other| other.base_offset < segment.base_offset), segment);
        }
        *segments = listed;
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(true)
    }
}
