//! Floor 2, one segment: a `.log` file of record batches and its two indexes.
//!
//! A segment is *active* (the last of its log, written behind its published length) or *sealed* (never
//! written again). Bytes below the published length never change, so readers share them without a lock.

mod buffer;
pub(crate) mod built_indexes;
mod cursor;
mod damage;
pub(crate) mod decompressor;
pub(crate) mod file_names;
mod gap;
mod headers;
pub(crate) mod held;
mod index_state;
mod indexes;
mod log_file;
mod named_ends;
pub(crate) mod passed_over;
pub(crate) mod rewrite;
pub(crate) mod segment_files;
pub(crate) mod sink;
pub(crate) mod walk;
mod window;
mod writer;

pub(crate) use buffer::{BufferPool, PooledBuffer};
pub(crate) use cursor::{BatchBytes, Cursor, Lent};
pub(crate) use damage::Resynced;
pub(crate) use headers::HeaderWalk;
pub(crate) use indexes::INDEX_BYTES_MAX;
pub(crate) use log_file::{Segment, SegmentOptions, TooLong};
pub(crate) use named_ends::NamedEnds;
pub(crate) use segment_files::{Misnamed, SegmentFiles};
pub(crate) use window::Window;
pub(crate) use writer::{Room, RoomAhead, SegmentWriter};
