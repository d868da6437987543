//! What a reader makes of a place where something is odd: a walk from the start of the segment, each batch checked,
//! says what stands there.

use std::sync::Arc;

use edgelog_core::{Offset, Position};

use super::{Place, Reached, Reader};
use crate::error::{DamageKind, Error, Result};
use crate::log::shared::{is_gone, is_unreadable};
use crate::segment::Segment;
use crate::sync::Ordering;

/// Where a walk through a segment ended.
enum Walked {
    /// At the batch that holds the offset looked for, or at the first one behind it.
    Batch(Place),
    /// At the segment's end, or at damage behind which nothing at or before that offset follows.
    Stopped(Place),
}

impl Reader {
    /// Sorts out an error. Returns to try again where a walk from the segment's start comes to another place; gives the
    /// error back where a segment was taken by retention or records are lost.
    #[cold]
    pub(super) fn mend(&mut self, error: Error) -> Result<()> {
        if self.has_another_history() {
            return Ok(());
        }
        match self.sort_out(error) {
            Err(error) if is_gone(&error) => Err(self.behind_retention(error)?),
            other => other,
        }
    }

    /// Whether the log began again since the reader looked at it: what it found in the files of before is no damage.
    pub(super) fn has_another_history(&mut self) -> bool {
        let is_another = self.generation != self.log.generation.load(Ordering::Acquire);
        if is_another {
            (self.place, self.damage) = (None, None);
        }
        is_another
    }

    /// The same as [`mend`](Self::mend), but for what retention took.
    fn sort_out(&mut self, error: Error) -> Result<()> {
        if let (None, Error::CorruptRecord { .. }) = (&self.damage, &error) {
            self.damage = self.place.take();
        }
        if self.damage.is_some() && self.log.put_names_right()? {
            self.damage = None;
            return Ok(());
        }
        let Some(damage) = self.damage.take() else { return Err(error) };
        let is_walked = matches!(damage.reached, Reached::Walked | Reached::Damaged);
        if damage.expected.is_none() {
            self.correct_indexes(&damage.segment)?;
        }
        let is_before = |place: &&Place| {
            place.segment.base_offset == damage.segment.base_offset && place.position <= damage.position
        };
        let from = match self.resumed.as_ref().filter(is_before) {
            _ if is_walked => damage.clone(),
            Some(resumed) => resumed.clone(),
            None => Place::at_start(Arc::clone(&damage.segment)),
        };
        let place = match self.walk(from, self.position)? {
            // Looked at there: it may say other offsets than it has, and the error what stands there.
            Walked::Batch(place) | Walked::Stopped(place) => Place { reached: Reached::Damaged, ..place },
        };
        if !is_walked || place.position != damage.position {
            self.place = Some(place);
            return Ok(());
        }
        self.damage = Some(damage);
        Err(error)
    }

    /// Retention took the segment between looking it up and reading it: the error that says so.
    fn behind_retention(&mut self, error: Error) -> Result<Error> {
        (self.place, self.damage, self.resumed) = (None, None, None);
        self.cursor.release();
        let start = self.log.log_start_offset.load(Ordering::Acquire);
        self.log.forget_missing_segments()?;
        let start = start.max(self.log.log_start_offset.load(Ordering::Acquire));
        if self.position >= start {
            return Ok(error);
        }
        let end = self.log.log_end_offset.load(Ordering::Acquire);
        Ok(Error::OffsetOutOfRange { requested: self.position, log_start_offset: start, log_end_offset: end })
    }

    /// Walks on from a place that a walk from the segment's start has come to: from batch to batch by their checksums,
    /// and over damage as [`skip_damage`](Self::skip_damage) goes over it, up to the batch that holds `target`.
    ///
    /// A header that was believed unchecked can name any length and any offset; what was made of it is put right
    /// here. Damage among records before `target` takes nothing that was asked for.
    fn walk(&mut self, from: Place, target: Offset) -> Result<Walked> {
        let Place { segment, position: mut at, expected, .. } = from;
        let mut expected = expected.unwrap_or(segment.base_offset);
        let len = segment.len()?;
        let end = self.log.log_end_offset.load(Ordering::Acquire);
        let upper = self.log.segment_after(segment.base_offset).map_or(end, |next| next.base_offset);
        let place = |segment, position, expected| Place {
            segment,
            position,
            expected: Some(expected),
            reached: Reached::Walked,
        };
        while at < len {
            if let Some(batch) = self.batch_that_holds(&segment, at, len, expected) {
                if batch.next_offset > target {
                    return Ok(Walked::Batch(place(segment, at, expected)));
                }
                (at, expected) = (Position(batch.end as u32), batch.next_offset);
                continue;
            }
            match self.log.resync(&segment, at, expected, upper)?.batch {
                Some((position, base_offset)) if base_offset <= target => {
                    // What is passed over there may be of the offsets that were asked for.
                    let passes = target < Offset::MAX
                        && !self.passed_over(&segment, (at, position), (expected, base_offset))?.is_empty();
                    if passes {
                        break;
                    }
                    (at, expected) = (position, base_offset);
                }
                _ => break,
            }
        }
        Ok(Walked::Stopped(place(segment, at, expected)))
    }

    /// Before a hole is believed: does the batch hold that was passed over last? Where it does not, what seems to be
    /// the hole's end is the damage's. Returns whether there was one to look at.
    pub(super) fn check_hopped(&mut self) -> Result<bool> {
        let Some(place) = &mut self.place else { return Ok(false) };
        let Place { segment, reached: Reached::Hopped(last), .. } = &*place else { return Ok(false) };
        let len = segment.len()?;
        let holds = match self.cursor.batch(segment, *last, len)? {
            Ok(batch) if self.options.check_crcs => batch.verify_crc(),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        place.reached = Reached::Jumped;
        holds.map(|()| true).map_err(|error| self.damaged(DamageKind::Batch(error)))
    }

    /// The index led to a place that holds no batch: later readers shall not be led there.
    fn correct_indexes(&self, segment: &Segment) -> Result<()> {
        if segment.correct_indexes(&self.log.pool)? {
            tracing::warn!(log = %self.log.name, file = segment.path(), "an index did not match its segment");
        }
        Ok(())
    }

    /// The offset behind the last batch of a sealed segment, as reading it comes to it. Looked for once.
    pub(super) fn end_of(&mut self, segment: &Arc<Segment>) -> Result<Offset> {
        if let Some(end) = segment.known_end() {
            return Ok(end);
        }
        match self.find_end_of(segment) {
            Ok(end) => {
                segment.set_known_end(end);
                Ok(end)
            }
            // Retention took it, or it cannot be read: the reader reports that.
            Err(error) if is_gone(&error) || is_unreadable(&error) || error.is_corrupt() => Ok(segment.base_offset),
            Err(error) => Err(error),
        }
    }

    fn find_end_of(&mut self, segment: &Arc<Segment>) -> Result<Offset> {
        self.log.open_for_reading(segment)?;
        let (position, loaded) = segment.position_for(Offset::MAX, &self.log.pool)?;
        if loaded {
            self.log.remember_loaded(segment);
        }
        let len = segment.len()?;
        let named = if position > 0 { self.cursor.batch(segment, position, len)?.ok() } else { None };
        let named = named.map(|batch| batch.base_offset());
        if let Some(expected) = named.filter(|&base_offset| base_offset >= segment.base_offset) {
            let (mut at, mut expected) = (position, expected);
            while at < len {
                let Some(batch) = self.batch_that_holds(segment, at, len, expected) else { break };
                (at, expected) = (Position(batch.end as u32), batch.next_offset);
            }
            if at >= len {
                return Ok(expected);
            }
        }
        let (Walked::Batch(place) | Walked::Stopped(place)) =
            self.walk(Place::at_start(Arc::clone(segment)), Offset::MAX)?;
        Ok(place.expected.unwrap_or(segment.base_offset))
    }
}
