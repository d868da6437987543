//! What damage has taken of a log.

use edgelog_core::{Offset, Position};

/// Offsets that damage has taken, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostRange {
    /// First offset that could not be read.
    pub first_offset: Offset,
    /// First offset that can be read again.
    pub next_offset: Offset,
    /// The segment file, relative to the data directory.
    pub file: String,
    /// First damaged byte in it.
    pub position: Position,
    /// First byte behind that is good again; `None` where that is in a later segment.
    pub resumes_at: Option<Position>,
    /// Where the search for good batches gave up because its effort was spent: bytes from here on were not
    /// looked at.
    pub unread_from: Option<Position>,
}
