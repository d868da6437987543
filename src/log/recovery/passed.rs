//! Batches that hold, and that a copied log goes on without, since they stand out of order.

use std::sync::Arc;

use edgelog_core::limits::HOLE_MAX;
use edgelog_core::{Offset, Position};

use super::super::origin::Origin;
use super::super::saved_log::DurablePoint;
use super::{PassedOver, Recovery, lost_range};
use crate::error::Result;
use crate::segment::held::held_nowhere;
use crate::segment::passed_over::{OffsetRange, common, lost_of, sound_between, take_out};
use crate::segment::{Segment, Window};

impl Recovery<'_> {
    /// Looks for such batches from `position` of `segment` up to `behind`, where the log goes on. `missing` are the
    /// offsets that are lost there in any case.
    pub(super) fn pass_over(
        &mut self,
        segment: &Arc<Segment>,
        position: Position,
        behind: u64,
        missing: OffsetRange,
    ) -> Result<()> {
        if self.log.origin() == Origin::Own {
            return Ok(());
        }
        let mut window = Window::new(Arc::clone(segment.file()?), u64::from(segment.len()?));
        let ranges = sound_between(&mut window, (u64::from(position), behind), missing.0);
        if !ranges.is_empty() {
            self.passed.push(PassedOver { segment: Arc::clone(segment), position, ranges, missing });
        }
        Ok(())
    }

    /// Reports those of them as lost whose offsets stand nowhere else in the log, which has `segments` and ends at
    /// `end`. Nor are these offsets given out again.
    pub(super) fn report_passed_over(&mut self, segments: &[Arc<Segment>], saved: DurablePoint, end: Offset) {
        let passed = std::mem::take(&mut self.passed);
        let ranges: Vec<_> = passed.iter().flat_map(|passed| passed.ranges.iter().copied()).collect();
        if ranges.is_empty() {
            return;
        }
        let behind = segments.iter().skip(1).map(|next| Some(next.base_offset)).chain([None]);
        let rules = segments.iter().zip(behind).map(|(it, next)| (it.path(), self.walk_rules(it, next, saved)));
        let mut left = held_nowhere(&*self.log.storage, rules, ranges);
        for PassedOver { segment, position, ranges, missing } in passed {
            for (first, next) in lost_of(&ranges, common(&left, &ranges), missing, end) {
                take_out(&mut left, (first, next));
                // What lies before the log is asked for by no reader.
                let first = segments.first().map_or(first, |segment| segment.base_offset.max(first));
                if first >= next {
                    continue;
                }
                self.report.lost.push(lost_range(&self.log.dir, Some(&segment), first, next, position));
                if next.saturating_since(end) < HOLE_MAX {
                    self.kept_free = self.kept_free.max(next);
                }
            }
        }
    }
}
