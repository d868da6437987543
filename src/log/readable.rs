//! What of a log is readable: how far, when more comes, in which epochs, and where it goes on behind damage.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use edgelog_core::{Continuation, LeaderEpoch, Offset, OffsetAndEpoch, Position};

use super::role::Role;
use super::saved_log::DurablePoint;
use super::shared::LogShared;
use super::types::ReadUpTo;
use crate::error::{Error, Result};
use crate::segment::{Resynced, Segment};
use crate::sync::Ordering;

impl LogShared {
    #[inline]
    pub(super) fn bound(&self, up_to: ReadUpTo) -> Offset {
        match up_to {
            ReadUpTo::HighWatermark => self.high_watermark.load(Ordering::Acquire),
            ReadUpTo::LogEnd => self.log_end_offset.load(Ordering::Acquire),
            ReadUpTo::Durable => {
                let end = self.log_end_offset.load(Ordering::Acquire);
                self.recovery_point.load(Ordering::Acquire).min(end)
            }
        }
    }

    /// The next good batch of `segment` behind damage, among the offsets from `first_offset` up to `upper`.
    pub(super) fn resync(
        &self,
        segment: &Segment,
        damaged: Position,
        first_offset: Offset,
        upper: Offset,
    ) -> Result<Resynced> {
        let durable_position = self.durable_position(segment.base_offset);
        let due = Continuation { durable_position, ..self.due(first_offset, upper) };
        segment.resync(damaged, segment.len()?, &due.plausible(), &self.pool)
    }

    /// Where the recovery point stands in the segment at `base_offset`; 0 where it does not.
    pub(super) fn durable_position(&self, base_offset: Offset) -> u64 {
        let point = match &self.role {
            Role::Writer(writer) => *writer.durable.lock(),
            Role::Attached(attached) => attached.attachment.lock().durable,
        };
        self.position_in(base_offset, point)
    }

    /// Where the recovery point stands in the segment at `base_offset`, if it is `point`: it may have risen since.
    pub(super) fn position_in(&self, base_offset: Offset, point: DurablePoint) -> u64 {
        let is_now = point.offset == self.recovery_point.load(Ordering::Acquire);
        if is_now { point.position_in(base_offset) } else { 0 }
    }

    /// Waits until something lies beyond `position` for such a reader, the log is closed or fails, or the
    /// deadline passes.
    pub(super) fn wait_beyond(&self, position: Offset, up_to: ReadUpTo, deadline: Option<Instant>) -> Result<bool> {
        if self.is_attached() {
            return self.poll_beyond(position, up_to, deadline);
        }
        let generation = self.generation.load(Ordering::Acquire);
        Ok(self.wake.wait_until(deadline, || self.has_news(position, up_to, generation)))
    }

    /// Whether a reader that stands at `position` and has seen `generation` has something to do.
    pub(super) fn has_news(&self, position: Offset, up_to: ReadUpTo, generation: u64) -> bool {
        self.bound(up_to) > position
            || self.generation.load(Ordering::Acquire) != generation
            || self.check_alive().is_err()
    }

    /// The epoch that the record before `offset` was written in, as far as the table knows.
    pub(super) fn epoch_before(&self, offset: Offset) -> LeaderEpoch {
        self.epochs.read().view().epoch_for((offset - 1).max(Offset(0))).unwrap_or(edgelog_core::NO_LEADER_EPOCH)
    }

    /// The epoch that the table gives for `offset`, and the offsets for which that holds.
    pub(super) fn epoch_around(&self, offset: Offset) -> (Option<LeaderEpoch>, Range<Offset>) {
        let epochs = self.epochs.read();
        let entries = epochs.view().entries();
        let behind = entries.partition_point(|entry| entry.start_offset <= offset);
        // The next epoch begins at or behind the end as it is now.
        let end = self.log_end_offset.load(Ordering::Acquire);
        let until = entries.get(behind).map_or(end, |entry| entry.start_offset);
        match behind.checked_sub(1).and_then(|at| entries.get(at)) {
            Some(entry) => (Some(entry.epoch), entry.start_offset..until),
            None => (None, Offset::MIN..until),
        }
    }

    /// Whether a position that was handed out before still names the same history.
    pub(crate) fn check_epoch(&self, at: OffsetAndEpoch) -> Result<()> {
        let epochs = self.epochs.read();
        let view = epochs.view();
        let current = view.latest().map_or(LeaderEpoch(0), |entry| entry.epoch);
        if at.leader_epoch < 0 {
            return Ok(());
        }
        if at.leader_epoch > current {
            return Err(Error::UnknownLeaderEpoch { given: at.leader_epoch, current });
        }
        let end = self.log_end_offset.load(Ordering::Acquire);
        // Without an entry for it, that epoch lies before everything the log still holds.
        let Some(found) = view.end_offset_for(at.leader_epoch, end) else { return Ok(()) };
        if at.offset > found.offset {
            return Err(Error::FencedLeaderEpoch {
                offset: at.offset,
                given: at.leader_epoch,
                end_offset: found.offset,
                current,
            });
        }
        Ok(())
    }

    /// Keeps the number of sealed segments whose indexes are held bounded: the one loaded longest ago lets go
    /// of its own.
    pub(super) fn remember_loaded(&self, segment: &Arc<Segment>) {
        const LOADED_MAX: usize = 32;
        let mut loaded = self.loaded.lock();
        loaded.push_back(Arc::clone(segment));
        if loaded.len() > LOADED_MAX {
            if let Some(oldest) = loaded.pop_front() {
                oldest.unload_indexes();
            }
        }
    }
}
