//! What the checkpoint says of one log, and which of it may be believed.
//!
//! Two judges, both without I/O. [`SavedLog::make_possible`] knows the numbers alone: the checkpoint's writer and its
//! reader ask it, so that what the one writes the other takes. [`SavedLog::supported_by`] knows which segments there
//! are: code that opens, attaches or checks a log asks it before anything is computed from what was saved.

use edgelog_core::limits::UNFLUSHED_SEGMENTS_MAX;
use edgelog_core::{EpochEntry, EpochTable, LogId, OFFSET_MAX, Offset, Position};

use super::origin::Origin;
use crate::canary::{Bug, bug};

/// So far beyond the base offset of the newest segment a recovery point or a log start can lie: more records than a
/// device writes in its life, and few enough that their place can be filled. What lies further is not believed.
pub(crate) const REACH_MAX: i64 = 1 << 40;
const _: () =
    assert!(edgelog_core::limits::HOLE_MAX < REACH_MAX, "what is believed behind a hole can be a recovery point");
/// An offset that the checkpoint does not know.
const UNKNOWN: Offset = Offset(-1);

/// A log's position that is durable: `offset` is the end of what was flushed, at `position` of the segment
/// `base_offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DurablePoint {
    pub(crate) offset: Offset,
    pub(crate) base_offset: Offset,
    pub(crate) position: Position,
}

impl DurablePoint {
    /// Where in the segment at `base_offset` it stands; 0 where it does not stand in it. An offset behind the greatest
    /// that a checkpoint says is not known to be the one at that place.
    pub(crate) fn position_in(&self, base_offset: Offset) -> u64 {
        if self.base_offset == base_offset && self.offset < OFFSET_MAX { u64::from(self.position) } else { 0 }
    }
}

/// What the checkpoint says of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedLog {
    pub(crate) id: LogId,
    pub(crate) origin: Origin,
    pub(crate) log_start_offset: Offset,
    pub(crate) durable: DurablePoint,
    pub(crate) epochs: Vec<EpochEntry>,
}

impl SavedLog {
    /// Takes out what no log comes to, and says what that was. The identity always stays; an offset that is taken out
    /// has to be found in the segments.
    pub(crate) fn make_possible(&mut self) -> Vec<String> {
        let mut odd = Vec::new();
        let is_possible = |offset: Offset| (Offset(0)..=OFFSET_MAX).contains(&offset);
        let DurablePoint { offset, base_offset, position } = self.durable;
        let is_known = (offset, base_offset) != (UNKNOWN, UNKNOWN);
        if is_known && !(is_possible(offset) && is_possible(base_offset)) {
            odd.push(format!("a recovery point at offset {offset} of segment {base_offset}, 0 to {OFFSET_MAX} can be"));
        } else if is_known && base_offset > offset {
            odd.push(format!("a recovery point at offset {offset}, before its segment {base_offset}"));
        } else if i32::try_from(position.0).is_err() {
            odd.push(format!("a recovery point at position {position} of its segment, {} is the greatest", i32::MAX));
        }
        if !odd.is_empty() {
            self.durable = DurablePoint { offset: UNKNOWN, base_offset: UNKNOWN, position: Position(0) };
        }
        if self.log_start_offset != UNKNOWN && !is_possible(self.log_start_offset) {
            odd.push(format!("a log start at offset {}, 0 to {OFFSET_MAX} can be", self.log_start_offset));
            self.log_start_offset = UNKNOWN;
        }
        let (mut epochs, mut left_out) = EpochTable::from_possible_entries(&self.epochs);
        if epochs.view().latest().is_some_and(|latest| latest.start_offset > OFFSET_MAX) {
            epochs.truncate_from_end(OFFSET_MAX);
            left_out = self.epochs.len() - epochs.view().entries().len();
        }
        if left_out > 0 {
            odd.push(format!("{left_out} of {} leader epochs that no log comes to, or that do not rise", {
                self.epochs.len()
            }));
            self.epochs = epochs.view().entries().to_vec();
        }
        odd
    }

    /// Takes out offsets beyond the greatest one that a checkpoint says: a log that was copied here may end behind it,
    /// and takes no more records. The place of its end in the last segment stays, for a clean close to be known by.
    pub(super) fn leave_out_far_offsets(&mut self) {
        if self.durable.offset > OFFSET_MAX {
            (self.durable.offset, self.durable.base_offset) = (UNKNOWN, UNKNOWN);
        }
        if self.log_start_offset > OFFSET_MAX {
            self.log_start_offset = UNKNOWN;
        }
        self.epochs.retain(|entry| entry.start_offset < OFFSET_MAX);
    }

    /// Where a log ends in its last segment whose offsets a checkpoint cannot say; `None` for any other log.
    pub(crate) fn far_end(&self) -> Option<Position> {
        (self.durable.offset == UNKNOWN && self.durable.position > 0).then_some(self.durable.position)
    }

    /// The same, as far as the segments that begin at `bases` (ascending) bear it out, and what they do not. Where the
    /// recovery point is not borne out, it becomes the one that the segments' names prove.
    pub(crate) fn supported_by(&self, bases: &[Offset]) -> (SavedLog, Vec<String>) {
        let mut log = self.clone();
        let mut doubts = Vec::new();
        if bug(Bug::BelieveTheCheckpoint) {
            return (log, doubts);
        }
        let (first, last) = (bases.first().copied(), bases.last().copied());
        let reach = |last: Offset| last.saturating_add(REACH_MAX);
        let too_far = last.filter(|&last| log.durable.offset > reach(last));
        if let Some(last) = too_far {
            doubts.push(format!(
                "the checkpoint says that records up to offset {} are durable, and the newest segment begins at {last}",
                log.durable.offset
            ));
        }
        if too_far.is_some() || log.durable.offset == UNKNOWN {
            log.durable = proved_by_names(bases);
        }
        let DurablePoint { offset, base_offset, position } = log.durable;
        // A point stands in the segment that ends with it, or that goes on behind it.
        let before = &bases[..bases.partition_point(|&base| base <= offset)];
        let begins_between = before.iter().find(|&&base| base_offset < base && base < offset);
        if let (Some(between), Some(&last)) = (begins_between, before.last()) {
            doubts.push(format!(
                "the checkpoint says that offset {offset} is at byte {position} of the segment that begins at \
                 {base_offset}, and another one begins at {between}"
            ));
            log.durable = DurablePoint { offset, base_offset: last, position: Position(0) };
        }
        let start = log.log_start_offset;
        // A log starts nowhere behind what is durable of it.
        let point = self.durable.offset;
        let is_point_known = too_far.is_none() && point != UNKNOWN;
        let limit = if is_point_known { Some(point) } else { last.map(reach) };
        let is_beyond = limit.is_some_and(|limit| start > limit);
        if is_beyond {
            let limit = limit.unwrap_or(Offset(0));
            doubts.push(format!("the checkpoint says that the log starts at offset {start}, {limit} is the furthest"));
        }
        if is_beyond || start == UNKNOWN {
            log.log_start_offset = first.unwrap_or(log.durable.offset);
        }
        let known = is_point_known.then_some(point);
        let is_out_of_reach = |entry: &EpochEntry| last.max(known).is_some_and(|last| entry.start_offset > reach(last));
        if let Some(entry) = log.epochs.iter().copied().find(is_out_of_reach) {
            doubts.push(format!(
                "the checkpoint says that leader epoch {} began at offset {}, {} is the furthest",
                entry.epoch,
                entry.start_offset,
                reach(last.max(known).unwrap_or(entry.start_offset))
            ));
            log.epochs.retain(|entry| !is_out_of_reach(entry));
        }
        (log, doubts)
    }
}

/// What the segments' names alone prove to be durable: a segment begins only when everything is but for the
/// [`UNFLUSHED_SEGMENTS_MAX`] before it.
pub(crate) fn proved_by_names(bases: &[Offset]) -> DurablePoint {
    match bases.get(bases.len().saturating_sub(1 + UNFLUSHED_SEGMENTS_MAX)) {
        Some(&base) => DurablePoint { offset: base, base_offset: base, position: Position(0) },
        None => DurablePoint::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgelog_core::LeaderEpoch;

    fn sample() -> SavedLog {
        SavedLog {
            id: LogId::from_bytes([7; 16]),
            origin: Origin::Own,
            log_start_offset: Offset(7),
            durable: DurablePoint { offset: Offset(100), base_offset: Offset(50), position: Position(4711) },
            epochs: vec![
                EpochEntry { epoch: LeaderEpoch(0), start_offset: Offset(0) },
                EpochEntry { epoch: LeaderEpoch(3), start_offset: Offset(70) },
            ],
        }
    }

    fn changed(change: fn(&mut SavedLog)) -> SavedLog {
        let mut log = sample();
        change(&mut log);
        log
    }

    type Change = fn(&mut SavedLog);

    #[test]
    fn what_no_log_comes_to_is_taken_out_and_the_rest_stays() {
        let unknown = DurablePoint { offset: UNKNOWN, base_offset: UNKNOWN, position: Position(0) };
        let with_point = |durable: DurablePoint| SavedLog { durable, ..sample() };
        let changes: [(Change, SavedLog); 10] = [
            (|_| {}, sample()),
            (|log| log.log_start_offset = Offset(-2), SavedLog { log_start_offset: UNKNOWN, ..sample() }),
            (|log| log.log_start_offset = Offset::MAX, SavedLog { log_start_offset: UNKNOWN, ..sample() }),
            (|log| log.durable.offset = Offset::MAX, with_point(unknown)),
            (|log| log.durable.base_offset = Offset(-7), with_point(unknown)),
            (|log| log.durable.base_offset = Offset(101), with_point(unknown)),
            (|log| log.durable.position = Position(u32::MAX), with_point(unknown)),
            (
                |log| log.epochs[1].epoch = LeaderEpoch(i32::MAX),
                SavedLog { epochs: sample().epochs[..1].to_vec(), ..sample() },
            ),
            (
                |log| log.epochs[1].start_offset = Offset(0),
                SavedLog { epochs: sample().epochs[..1].to_vec(), ..sample() },
            ),
            (
                |log| log.epochs[1].start_offset = Offset::MAX,
                SavedLog { epochs: sample().epochs[..1].to_vec(), ..sample() },
            ),
        ];
        for (n, (change, expected)) in changes.into_iter().enumerate() {
            let mut log = changed(change);
            let odd = log.make_possible();
            assert_eq!((&log, odd.len()), (&expected, usize::from(n > 0)), "{n}: {odd:?}");
            // What was taken out once is no news.
            assert_eq!(log.make_possible(), Vec::<String>::new(), "{n}");
        }
        // High offsets and epochs that a log can come to stay.
        let mut high = changed(|log| {
            log.durable.offset = OFFSET_MAX;
            log.log_start_offset = OFFSET_MAX;
            log.epochs[1] = EpochEntry { epoch: LeaderEpoch(i32::MAX / 2), start_offset: OFFSET_MAX - 1 };
        });
        assert_eq!((high.make_possible(), high.durable.offset), (Vec::new(), OFFSET_MAX));
    }

    #[test]
    fn a_recovery_point_that_no_segment_reaches_is_not_believed() {
        let bases = [0, 40, 50, 100, 101, 102, 103, 104, 105, 106].map(Offset);
        assert_eq!(sample().supported_by(&bases), (sample(), Vec::new()));
        // A segment may be lost: what it held keeps its offsets.
        let lost = changed(|log| {
            log.durable = DurablePoint { offset: Offset(5000), base_offset: Offset(4000), position: Position(9) }
        });
        assert_eq!(lost.supported_by(&bases), (lost.clone(), Vec::new()));
        assert_eq!(lost.supported_by(&[]), (lost.clone(), Vec::new()));

        let far = changed(|log| {
            log.durable = DurablePoint { offset: Offset(1 << 62), base_offset: Offset(0), position: Position(9) }
        });
        let (log, doubts) = far.supported_by(&bases);
        assert_eq!(log.durable, DurablePoint { offset: Offset(40), base_offset: Offset(40), position: Position(0) });
        assert_eq!((log.log_start_offset, &log.epochs, doubts.len()), (Offset(7), &sample().epochs, 1), "{doubts:?}");
        assert_eq!(
            far.supported_by(&[Offset(40)]).0.durable,
            DurablePoint { offset: Offset(40), base_offset: Offset(40), position: Position(0) }
        );

        let hidden = changed(|log| log.log_start_offset = Offset(101));
        let (log, doubts) = hidden.supported_by(&bases);
        assert_eq!((log.durable, log.log_start_offset, doubts.len()), (sample().durable, Offset(0), 1), "{doubts:?}");

        let both = changed(|log| {
            log.durable = DurablePoint { offset: Offset(1 << 62), base_offset: Offset(1 << 62), position: Position(9) };
            log.log_start_offset = Offset(1 << 62);
        });
        let (log, doubts) = both.supported_by(&bases);
        assert_eq!((log.durable.offset, log.log_start_offset, doubts.len()), (Offset(40), Offset(0), 2), "{doubts:?}");
    }

    /// The point stands in the segment that ends with it: where another begins before it, its position says nothing.
    #[test]
    fn a_recovery_point_in_a_segment_that_ends_before_it_is_looked_for_in_the_last_one() {
        let (log, doubts) = sample().supported_by(&[0, 50, 80, 90].map(Offset));
        assert_eq!(log.durable, DurablePoint { offset: Offset(100), base_offset: Offset(90), position: Position(0) });
        assert_eq!(doubts.len(), 1, "{doubts:?}");
        // The very end of a sealed segment.
        let at_end = [0, 50, 100].map(Offset);
        assert_eq!(sample().supported_by(&at_end), (sample(), Vec::new()));
    }

    #[test]
    fn names_prove_all_to_be_durable_but_for_as_many_segments_as_may_be_unflushed() {
        let bases: Vec<Offset> = (1..=12).map(|n| Offset(n * 10)).collect();
        let proved = |count: usize| proved_by_names(&bases[..count]).offset.0;
        // Of nine segments the eight that are sealed may all be unflushed.
        assert_eq!([0, 1, 2, 9, 10, 12].map(proved), [0, 10, 10, 10, 20, 40]);
    }

    #[test]
    fn an_epoch_that_begins_where_no_segment_reaches_is_not_believed() {
        let bases = [0, 40, 50].map(Offset);
        let far = changed(|log| log.epochs[1].start_offset = Offset(1 << 62));
        let (log, doubts) = far.supported_by(&bases);
        assert_eq!((&log.epochs[..], doubts.len()), (&sample().epochs[..1], 1), "{doubts:?}");
        // One that began behind what is durable is none of these: no record of it may have outlasted a stop.
        let ahead = changed(|log| log.epochs[1].start_offset = Offset(5000));
        assert_eq!(ahead.supported_by(&bases), (ahead.clone(), Vec::new()));
    }

    #[test]
    fn what_the_checkpoint_does_not_know_the_segments_give() {
        let mut log = changed(|log| {
            log.durable.offset = Offset::MIN;
            log.log_start_offset = Offset::MIN;
        });
        log.make_possible();
        let (found, doubts) = log.supported_by(&[Offset(30), Offset(60)]);
        assert_eq!((found.durable.offset, found.log_start_offset, doubts), (Offset(30), Offset(30), Vec::new()));
        let (found, _) = log.supported_by(&[]);
        assert_eq!((found.durable.offset, found.log_start_offset), (Offset(0), Offset(0)));
    }
}
