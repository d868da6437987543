//! What a file holds by itself, whichever log it is a part of: a segment that another one overlaps, or one that stands
//! under another name.

use edgelog_core::Offset;

use super::passed_over::{OffsetRange, joined, take_out};
use super::walk::{Step, WalkRules, Walker};
use crate::error::Result;
use crate::storage::Storage;

/// The offsets of the batches that hold in one file.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Ranges that follow each other, each with the first offset and the one behind the last.
    pub(crate) ranges: Vec<(Offset, Offset)>,
    /// Where bytes are no batch: the offset that was due there, and that of the next batch that holds.
    pub(crate) damaged: Vec<(Offset, Option<Offset>)>,
}

impl Held {
    /// Looks at the file at `path` from the byte `from` on; its offsets begin at `base_offset` or behind, or anywhere
    /// where that is `None`.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) where the file cannot be opened.
    pub(crate) fn read(storage: &dyn Storage, path: &str, base_offset: Option<Offset>, from: u64) -> Result<Held> {
        // What the checkpoint says is durable says nothing of a file that is no part of the log.
        let rules = WalkRules { first_offset: base_offset, ..WalkRules::ANY };
        let mut walker = Walker::open(storage, path, rules)?;
        walker.start_at(from);
        let mut held = Held::default();
        loop {
            match walker.next() {
                Step::Batch { .. } => {
                    let (first, next) = (walker.batch().base_offset(), walker.next_offset());
                    match held.ranges.last_mut().filter(|last| last.1 == first) {
                        Some(last) => last.1 = next,
                        None => held.ranges.push((first, next)),
                    }
                }
                Step::Damage(damage) => held.damaged.push((damage.first_offset, damage.next_offset)),
                Step::Zeros { .. } | Step::End => return Ok(held),
            }
        }
    }

    /// The least offset, and the one behind the greatest; `None` where no batch holds.
    pub(crate) fn span(&self) -> Option<(Offset, Offset)> {
        let (first, next) = (self.ranges.iter().map(|range| range.0), self.ranges.iter().map(|range| range.1));
        first.min().zip(next.max())
    }
}

/// What is left of the offsets `first..next` without those of `covered`.
pub(crate) fn left_of((first, next): (Offset, Offset), covered: &[(Offset, Offset)]) -> Vec<(Offset, Offset)> {
    let mut left = vec![(first, next)];
    for &(from, to) in covered {
        let pieces = left.into_iter().flat_map(|(first, next)| [(first, next.min(from)), (first.max(to), next)]);
        left = pieces.filter(|(first, next)| first < next).collect();
    }
    left
}

/// What is left of the lost offsets `range` of the segment at `path` where others may hold some of them: from the first
/// to behind the last. `others` are their files with their base offsets.
pub(crate) fn lost_everywhere<'s>(
    storage: &dyn Storage,
    others: impl Iterator<Item = (Offset, &'s str)>,
    range: (Offset, Offset),
) -> Option<(Offset, Offset)> {
    let mut left = vec![range];
    for (base, path) in others.filter(|(base, _)| *base < range.1) {
        let Ok(held) = Held::read(storage, path, Some(base), 0) else { continue };
        left = left.into_iter().flat_map(|range| left_of(range, &held.ranges)).collect();
    }
    left.first().zip(left.last()).map(|(first, last)| (first.0, last.1))
}

/// What of `ranges` no reader gives out of the files: `files` are all that the log holds, each with what its batches
/// are held to. What is missing between their end and the recovery point is left out: it is reported as that.
pub(crate) fn held_nowhere(
    storage: &dyn Storage,
    files: impl Iterator<Item = (String, WalkRules)>,
    ranges: Vec<OffsetRange>,
) -> Vec<OffsetRange> {
    let mut left = joined(ranges);
    let (mut reached, mut durable_below) = (Offset(0), Offset(0));
    for (path, rules) in files {
        durable_below = rules.durable_below;
        let Ok(mut walker) = Walker::open(storage, &path, rules) else { continue };
        while !left.is_empty() {
            match walker.next() {
                Step::Batch { .. } => {
                    let (first, next) = (walker.batch().base_offset(), walker.next_offset());
                    reached = reached.max(next);
                    if walker.batch().record_count() > 0 {
                        take_out(&mut left, (first, next));
                    }
                }
                Step::Damage(damage) => {
                    if let Some(batch) = damage.wrong_base.filter(|_| damage.is_read) {
                        reached = reached.max(batch.next_offset);
                        take_out(&mut left, (batch.base_offset, batch.next_offset));
                    }
                }
                Step::Zeros { .. } | Step::End => break,
            }
        }
    }
    take_out(&mut left, (reached, durable_below));
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(first: i64, next: i64, covered: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let covered: Vec<_> = covered.iter().map(|&(from, to)| (Offset(from), Offset(to))).collect();
        left_of((Offset(first), Offset(next)), &covered).into_iter().map(|(first, next)| (first.0, next.0)).collect()
    }

    #[test]
    fn what_others_cover_is_left_out() {
        assert_eq!(left(2, 8, &[]), [(2, 8)]);
        assert_eq!(left(2, 8, &[(0, 2), (8, 9)]), [(2, 8)]);
        assert_eq!(left(2, 8, &[(0, 4), (7, 9)]), [(4, 7)]);
        assert_eq!(left(2, 8, &[(4, 6)]), [(2, 4), (6, 8)]);
        assert_eq!(left(2, 8, &[(4, 6), (0, 3), (7, 8)]), [(3, 4), (6, 7)]);
        assert_eq!(left(2, 8, &[(0, 5), (5, 8)]), []);
    }
}
