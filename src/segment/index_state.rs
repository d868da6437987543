//! Where a segment's indexes are: in their files, lent or copied from there, or in memory.

use crate::storage::Lease;

/// Where a segment's indexes are now.
#[derive(Debug)]
pub(super) enum Indexes {
    /// They were not needed yet; their files may be there.
    Unloaded,
    /// In memory, in the files' own encoding: the active segment's, and rebuilt ones until they are written.
    Memory { offsets: Vec<u8>, times: Vec<u8> },
    /// Read from their files.
    Read { offsets: IndexBytes, times: IndexBytes },
}

/// An index file's bytes, lent by its map or copied.
#[derive(Debug)]
pub(super) enum IndexBytes {
    Lent(Lease),
    Copied(Vec<u8>),
}

impl IndexBytes {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            IndexBytes::Lent(lease) => lease,
            IndexBytes::Copied(bytes) => bytes,
        }
    }
}
