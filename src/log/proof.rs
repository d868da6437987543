//! What of a log's entry in the checkpoint is believed by all who open, attach to or check the log: what its segments
//! bear out, and, where the checkpoint says less, what their names prove. It is written after a roll and may be older
//! than what it lies next to, as the slot is that a torn write leaves.

use edgelog_core::{EpochTable, HEADER_LEN, LeaderEpoch, Offset};

use super::saved_log::{SavedLog, proved_by_names};
use crate::segment::file_names;
use crate::storage::{Access, Storage};

/// What of `saved` the segments that begin at `bases` (ascending) bear out, and what they do not.
pub(crate) fn believed(
    saved: &SavedLog,
    storage: &dyn Storage,
    dir: &str,
    bases: &[Offset],
) -> (Option<SavedLog>, Vec<String>) {
    let (mut saved, doubts) = saved.supported_by(bases);
    raise_by_names(&mut saved, storage, dir, bases);
    (Some(saved), doubts)
}

/// Raises the recovery point to what the names of the segments that begin at `bases` (ascending) prove: a segment
/// begins only when everything is durable but for a few segments before it.
///
/// A truncation lowers the point first and removes segments afterwards. Names that a stop has left in between prove
/// nothing, and their batches are of an epoch before the checkpoint's.
fn raise_by_names(saved: &mut SavedLog, storage: &dyn Storage, dir: &str, bases: &[Offset]) {
    let proved = proved_by_names(bases);
    if bases.len() < 2 || proved.offset <= saved.durable.offset {
        return;
    }
    let newest = bases.iter().rev().take(2).find_map(|&base| Some((base, first_epoch(storage, dir, base)?)));
    let Some((base, epoch)) = newest else { return };
    let epochs = EpochTable::from_entries(saved.epochs.clone()).unwrap_or_default();
    let expected = epochs.view().epoch_for(base);
    if expected.is_none_or(|expected| epoch >= expected) {
        saved.durable = proved;
    }
}

/// The epoch of the segment's first batch; `None` where there is none at its start.
fn first_epoch(storage: &dyn Storage, dir: &str, base: Offset) -> Option<LeaderEpoch> {
    let mut header = [0; HEADER_LEN];
    let file = storage.open(&file_names::log_file(dir, base), Access::Read).ok()?;
    let is_whole = file.read_at(&mut header, 0).ok()? == HEADER_LEN && header != [0; HEADER_LEN];
    let first = Offset(i64::from_be_bytes(*header.first_chunk()?));
    let epoch = LeaderEpoch(i32::from_be_bytes(*header[12..].first_chunk()?));
    (is_whole && first >= base).then_some(epoch)
}
