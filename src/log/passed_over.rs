//! Batches that hold and that no reader of a copied log gives out, since they stand out of order.

use edgelog_core::{Offset, Position};

use super::origin::Origin;
use super::shared::LogShared;
use crate::error::Result;
use crate::segment::held::held_nowhere;
use crate::segment::passed_over::{OffsetRange, lost_of, sound_between};
use crate::segment::walk::WalkRules;
use crate::segment::{Segment, Window};
use crate::sync::Ordering;

/// So often a reader looks through the log for what stands out of order.
const LOOKS_MAX: u32 = 64;

impl LogShared {
    /// The offsets of the batches that hold between damage at `from` of `segment` and `to`, where the log goes on, and
    /// that stand nowhere else in the log. `missing` are those that are lost there in any case.
    ///
    /// Reads the log once where there may be some, which `looks` counts: beyond the bound, all count as lost.
    #[cold]
    pub(super) fn passed_over(
        &self,
        segment: &Segment,
        (from, to): (Position, Position),
        missing: OffsetRange,
        looks: &mut u32,
    ) -> Result<Vec<OffsetRange>> {
        if self.origin() == Origin::Own {
            return Ok(Vec::new());
        }
        let mut window = Window::new(segment.file()?.clone(), u64::from(segment.len()?));
        let ranges = sound_between(&mut window, (u64::from(from), u64::from(to)), missing.0);
        if ranges.is_empty() {
            return Ok(ranges);
        }
        *looks += 1;
        let files = if *looks <= LOOKS_MAX { self.files_to_walk() } else { Vec::new() };
        let left = held_nowhere(&*self.storage, files.into_iter(), ranges.clone());
        let mut left = lost_of(&ranges, left, missing, self.log_end_offset.load(Ordering::Acquire));
        let start = self.log_start_offset.load(Ordering::Acquire);
        for (first, _) in &mut left {
            *first = start.max(*first);
        }
        left.retain(|(first, next)| first < next);
        Ok(left)
    }

    /// The files of the segments, each with what its batches are held to.
    fn files_to_walk(&self) -> Vec<(String, WalkRules)> {
        let segments = self.segments.read().clone();
        let behind = segments.iter().skip(1).map(|next| next.base_offset).chain([Offset::MAX]);
        let rules = |segment: &Segment, offset_end: Offset| WalkRules {
            first_offset: Some(segment.base_offset),
            contiguous: self.origin() == Origin::Own,
            offset_end,
            durable_below: self.recovery_point.load(Ordering::Acquire),
            durable_position: self.durable_position(segment.base_offset),
            unbroken_from: self.unbroken_from.load(Ordering::Relaxed),
            named_ends: segment.named_ends(offset_end == Offset::MAX),
        };
        segments.iter().zip(behind).map(|(segment, next)| (segment.path(), rules(segment, next))).collect()
    }
}
