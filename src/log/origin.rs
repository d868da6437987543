//! How a log came to be, which decides what a valid continuation is.

use edgelog_core::{Offset, RecordBatch};

use crate::segment::{HeaderWalk, file_names};
use crate::storage::Storage;

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

/// Whether the log in `dir` was begun here, by a file that no copy of a broker's partition has.
pub(crate) fn is_begun_here(storage: &dyn Storage, dir: &str) -> bool {
    storage.metadata(&format!("{dir}/{}", file_names::OWN_FILE)).is_ok()
}

/// So many bytes of each segment say who wrote it: a compacted log shows its holes long before.
const LOOK_BYTES: u64 = 1 << 20;

/// Whether a log that no checkpoint knows, with segments at `bases` (ascending), was written here: a file of our own
/// says that it was begun here, and the first batches of each segment are such as are written here, each behind the one
/// before it. Between two segments offsets may be missing: there a file is lost, or cut short. A hole inside of one is
/// compaction's.
pub(crate) fn is_written_here(storage: &dyn Storage, dir: &str, bases: &[Offset]) -> bool {
    if !is_begun_here(storage, dir) {
        return false;
    }
    let mut reached = Some(Offset(0));
    bases.iter().all(|&base| {
        let follows = reached.is_none_or(|reached| base >= reached);
        reached = Some(base);
        follows && has_own_batches(storage, &file_names::log_file(dir, base), &mut reached)
    })
}

/// Whether the batches of a segment are such as are written here, from the offset `reached` on, which then is the one
/// behind the last; `None` where that was not come to. Damage says nothing about who wrote them, nor about what follows
/// it.
fn has_own_batches(storage: &dyn Storage, path: &str, reached: &mut Option<Offset>) -> bool {
    let Ok(mut headers) = HeaderWalk::open(storage, path) else {
        *reached = None;
        return true;
    };
    let mut looked_at = 0;
    while let Some(batch) = headers.next() {
        if *reached != Some(batch.base_offset()) || !Origin::Own.can_hold(&batch) {
            return false;
        }
        *reached = Some(batch.next_offset());
        looked_at += batch.size() as u64;
        if looked_at >= LOOK_BYTES {
            *reached = None;
            return true;
        }
    }
    *reached = reached.filter(|_| headers.is_at_end());
    true
}
