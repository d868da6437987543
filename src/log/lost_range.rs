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
    /// Other offsets that no reader comes to, from the first to behind the last: in a log that was copied here, batches
    /// that hold stand out of order, and their offsets stand nowhere else. They may lie before `first_offset` and
    /// behind `next_offset`.
    pub passed_over: Vec<(Offset, Offset)>,
}
