//! How a log came to be, which decides what a valid continuation is.

use edgelog_core::{Offset, RecordBatch};

use crate::segment::{HeaderWalk, NamedEnds, file_names};
use crate::storage::Storage;
use crate::storage::pairs::read_pairs;

/// How a log came to be, which decides what a valid continuation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Origin {
    /// Written here: base offsets are contiguous.
    Own = 0,
    /// Brought in as files (from a broker, or a checkpoint was lost): base offsets need only rise.
    Imported = 1,
}

impl Origin {
    /// Whether a log of this origin can hold such a batch. One that was written here has a record for each of its
    /// offsets, or none where repair filled a gap, and is of no transaction.
    pub(crate) fn can_hold(self, batch: &RecordBatch<'_>) -> bool {
        self == Origin::Imported || (batch.is_whole() && !batch.is_control() && !batch.is_transactional())
    }
}

/// In `edgelog.properties`: how the log came to be, where that is known for good.
pub(crate) const ORIGIN_KEY: &str = "marker.origin";
/// It was empty when its directory was made: every record in it was appended here.
pub(crate) const ORIGIN_CREATED: &str = "created";

/// Whether the file of our own in `dir` says that every record of the log was appended here. One of an earlier version
/// does not say it.
pub(super) fn is_created_here(storage: &dyn Storage, dir: &str) -> bool {
    let file = read_pairs(storage, &format!("{dir}/{}", file_names::OWN_FILE)).ok().flatten();
    file.is_some_and(|file| file.checked && file.pairs.get(ORIGIN_KEY).is_some_and(|origin| origin == ORIGIN_CREATED))
}

/// Whether the log in `dir` was begun here, by a file that no copy of a broker's partition has.
pub(crate) fn is_begun_here(storage: &dyn Storage, dir: &str) -> bool {
    storage.metadata(&format!("{dir}/{}", file_names::OWN_FILE)).is_ok()
}

/// So many bytes of each segment say who wrote it: a compacted log shows its holes long before.
const LOOK_BYTES: u64 = 1 << 20;

/// Whether a log that no checkpoint knows, with segments at `bases` (ascending), was written here: a file of our own
/// says so. One of an earlier version says only that the log was begun here; then the first batches of each segment
/// have to be such as are written here, each behind the one before it. Between two segments offsets may be missing:
/// there a file is lost, or cut short. A hole inside of one is compaction's: a log that was copied here and taken over
/// has that file, too.
pub(crate) fn is_written_here(storage: &dyn Storage, dir: &str, bases: &[Offset]) -> bool {
    if !is_begun_here(storage, dir) {
        return false;
    }
    if is_created_here(storage, dir) {
        return true;
    }
    let mut reached = Some(Offset(0));
    bases.iter().enumerate().all(|(at, &base)| {
        let follows = reached.is_none_or(|reached| base >= reached);
        reached = Some(base);
        follows && has_own_batches(storage, dir, (base, bases.get(at + 1).copied()), &mut reached)
    })
}

/// Whether the batches of the segment at `base`, before the one at `next_base`, are such as are written here, from the
/// offset `reached` on, which then is the one behind the last; `None` where that was not come to. Damage says nothing
/// about who wrote them, nor about what follows it.
fn has_own_batches(
    storage: &dyn Storage,
    dir: &str,
    (base, next_base): (Offset, Option<Offset>),
    reached: &mut Option<Offset>,
) -> bool {
    let Ok(mut headers) = HeaderWalk::open(storage, &file_names::log_file(dir, base)) else {
        *reached = None;
        return true;
    };
    let (mut due, mut looked_at) = (base, 0);
    // The offset behind a batch by its own word, where it is not the one that is due.
    let mut displaced = None;
    while let Some(batch) = headers.next() {
        let (base_offset, next_offset) = (batch.base_offset(), batch.next_offset());
        let is_due = base_offset == due;
        // Behind a hole the log goes on. A base offset that is damaged has its own batch alone out of place.
        if !Origin::Own.can_hold(&batch) || displaced.is_some() && !is_due {
            return false;
        }
        displaced = (!is_due).then_some(next_offset);
        due = due.saturating_add(next_offset - base_offset);
        looked_at += batch.size() as u64;
        if looked_at >= LOOK_BYTES && displaced.is_none() {
            *reached = None;
            return true;
        }
    }
    *reached = Some(due).filter(|_| headers.is_at_end());
    displaced.is_none_or(|claimed| is_last_displaced(storage, dir, (base, next_base), (due, claimed)))
}

/// Whether the last batch of a segment, which says that it ends before `claimed`, is damaged in that field alone and
/// ends before `due`. Indexes know which; without them, a log that is written here has no hole before its last batch,
/// nor in front of its next segment.
fn is_last_displaced(
    storage: &dyn Storage,
    dir: &str,
    (base, next_base): (Offset, Option<Offset>),
    (due, claimed): (Offset, Offset),
) -> bool {
    let ends = NamedEnds::read(storage, dir, base, next_base.is_none());
    ends.has(due) || !ends.has(claimed) && next_base.is_none_or(|next| next == due)
}
