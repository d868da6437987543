//! What of a log's entry in the checkpoint is believed by all who open, attach to or check the log: what its segments
//! bear out, and, where the checkpoint says less, what their names prove. It is written after a roll and may be older
//! than what it lies next to, as the slot is that a torn write leaves.

use edgelog_core::{EpochTable, HEADER_LEN, LeaderEpoch, Offset, RecordBatch};

use super::saved_log::{SavedLog, proved_by_names};
use crate::segment::file_names;
use crate::storage::{Access, Storage};

/// What is believed of a log's entry in the checkpoint.
#[derive(Debug, Clone)]
pub(crate) struct Believed {
    /// `None` where the checkpoint does not know the log.
    pub(crate) saved: Option<SavedLog>,
    /// What the segments do not bear out.
    pub(crate) doubts: Vec<String>,
    /// See [`Continuation::unbroken_from`](edgelog_core::Continuation::unbroken_from).
    pub(crate) unbroken_from: Offset,
}

impl Believed {
    /// Of a log that no checkpoint knows.
    const NOTHING: Believed = Believed { saved: None, doubts: Vec::new(), unbroken_from: Offset::MAX };
}

/// What of `saved` the segments that begin at `bases` (ascending) bear out, and what they do not.
pub(crate) fn believed(saved: Option<&SavedLog>, storage: &dyn Storage, dir: &str, bases: &[Offset]) -> Believed {
    let Some(entry) = saved else { return Believed::NOTHING };
    let (mut saved, doubts) = entry.supported_by(bases);
    raise_by_names(&mut saved, storage, dir, bases);
    // All that was copied here was durable before the first append. A point that names alone give may lie within it.
    let is_point_known = (Offset(0)..=saved.durable.offset).contains(&entry.durable.offset);
    let unbroken_from = if is_point_known { saved.durable.offset } else { Offset::MAX };
    Believed { saved: Some(saved), doubts, unbroken_from }
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
    let (first, epoch) = RecordBatch::peek_place(&header)?;
    (is_whole && first >= base).then_some(epoch)
}
