//! How a log came to be, which decides what a valid continuation is.

use edgelog_core::RecordBatch;

use crate::segment::file_names;
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
