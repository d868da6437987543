//! Walks the batches of a file by their headers alone: no checksum is looked at.

use std::io;

use edgelog_core::{HEADER_LEN, RecordBatch};

use super::Window;
use crate::storage::{Access, Storage};

/// A walk over one file from batch to batch, as long as their headers hold.
#[derive(Debug)]
pub(crate) struct HeaderWalk {
    window: Window,
    position: u64,
}

impl HeaderWalk {
    /// A walk over the file at `path`, as far as a segment reaches.
    pub(crate) fn open(storage: &dyn Storage, path: &str) -> io::Result<HeaderWalk> {
        let file = storage.open(path, Access::Read)?;
        let len = file.len()?;
        Ok(HeaderWalk { window: Window::new(file, len.min(i32::MAX as u64)), position: 0 })
    }

    /// Goes on at `position`.
    pub(crate) fn start_at(&mut self, position: u64) {
        self.position = position;
    }

    /// The next batch; `None` where none stands.
    pub(crate) fn next(&mut self) -> Option<RecordBatch<'_>> {
        let position = self.position;
        let size = RecordBatch::peek_size(self.window.at(position, HEADER_LEN)).ok()?;
        let holds = RecordBatch::parse(self.window.at(position, size)).is_ok();
        self.position += if holds { size as u64 } else { 0 };
        holds.then(|| RecordBatch::parse(self.window.seen(position, size)).ok())?
    }

    /// Whether nothing was written where the walk stands, or behind.
    pub(crate) fn is_at_end(&mut self) -> bool {
        self.window.first_nonzero(self.position).is_none()
    }
}
