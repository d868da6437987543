//! The search for the batch with which a segment goes on behind damage.

use std::sync::Arc;

use edgelog_core::{Effort, Offset, OffsetIndex, Plausible, Position, Resync, batch_at, resync};

use super::index_state::Indexes;
use super::log_file::Segment;
use super::{BufferPool, Window};
use crate::error::Result;

/// What the search behind damage found.
#[derive(Debug)]
pub(crate) struct Resynced {
    /// Position and base offset of the next good batch.
    pub(crate) batch: Option<(Position, Offset)>,
    /// Bytes from here on were not looked at: the search's bound was reached.
    pub(crate) unread_from: Option<Position>,
}

impl Segment {
    /// Searches for the batch with which the log goes on behind damage at `damaged`; `len` is where the batches end.
    ///
    /// The search is core's ([`resync`]) and bounded by its effort. Where that is spent, the places that the offset
    /// index names are tried.
    pub(crate) fn resync(
        &self,
        damaged: Position,
        len: Position,
        plausible: &Plausible<'_>,
        pool: &Arc<BufferPool>,
    ) -> Result<Resynced> {
        let mut window = Window::new(Arc::clone(self.file()?), u64::from(len));
        let mut effort = Effort::for_segment(u64::from(len));
        let damaged = u64::from(damaged);
        let found = |position: u64, base_offset| Some((Position(position as u32), base_offset));
        match resync(&mut window, damaged, damaged + 1, plausible, &mut effort) {
            Resync::Found(batch) => Ok(Resynced { batch: found(batch.position, batch.base_offset), unread_from: None }),
            Resync::Nothing => Ok(Resynced { batch: None, unread_from: None }),
            Resync::OutOfEffort { unread_from } => {
                let unread_from = Position(unread_from as u32);
                let mut budget = u64::from(len);
                let mut named = self.indexed_positions(unread_from, pool).into_iter();
                let batch = named.find_map(|at| batch_at(&mut window, u64::from(at), plausible, &mut budget));
                let batch = batch.and_then(|batch| found(batch.position, batch.base_offset));
                Ok(Resynced { batch, unread_from: Some(unread_from) })
            }
        }
    }

    /// Positions at or behind `from` that the offset index names, as it is held or stored: nothing is rebuilt for
    /// it, since rebuilding searches behind damage itself.
    fn indexed_positions(&self, from: Position, pool: &Arc<BufferPool>) -> Vec<Position> {
        let positions = |bytes: &[u8]| {
            let entries = OffsetIndex::new(bytes, self.base_offset).entries();
            entries.map(|entry| entry.position).filter(|&at| at >= from).collect()
        };
        match &*self.indexes.read() {
            Indexes::Memory { offsets, .. } => positions(offsets),
            Indexes::Read { offsets, .. } => positions(offsets.bytes()),
            Indexes::Unloaded => match self.read_index_files(pool) {
                Some(Indexes::Read { offsets, .. }) => positions(offsets.bytes()),
                _ => Vec::new(),
            },
        }
    }
}
