//! A stretch of a file in memory, moved along as its user reads on, so that memory does not grow with files.
//!
//! Always by system calls: a map of a file that its writer trims, or that a bad device cannot read, raises signals.
//! The search behind damage and the tools read this way.

use std::io;
use std::sync::Arc;

use edgelog_core::{HEADER_LEN, Offset, RecordBatch, SegmentBytes};

use super::named_ends::NamedEnds;
use crate::storage::StorageFile;

/// Bytes read in one go.
const STRETCH_BYTES: usize = 256 << 10;
/// Where a stretch cannot be read in one go, it is read in pieces of this size.
const PIECE_BYTES: usize = 4096;
/// So many unreadable pieces of one file are distinguished from zeros.
const UNREADABLE_MAX: usize = 1024;

/// The bytes of one file below a fixed end.
#[derive(Debug)]
pub(crate) struct Window {
    file: Arc<dyn StorageFile>,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Pieces that the disk could not read, by position, and its words. They read as zeros.
    unreadable: Vec<(u64, String)>,
    /// Where batches end, by the files next to this one.
    named_ends: NamedEnds,
}

impl Window {
    pub(crate) fn new(file: Arc<dyn StorageFile>, end: u64) -> Window {
        let named_ends = NamedEnds::NONE;
        Window { file, end, start: 0, bytes: Vec::new(), unreadable: Vec::new(), named_ends }
    }

    /// With what the files next to this one say of where batches end.
    pub(crate) fn with_named_ends(self, named_ends: NamedEnds) -> Window {
        Window { named_ends, ..self }
    }

    /// The end up to which bytes are looked at.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Looks at bytes up to `end` from now on, and at what was seen before once more.
    pub(crate) fn extend(&mut self, end: u64) {
        self.end = end;
        self.bytes.clear();
    }

    /// Bytes from `position` on: at least `wanted`, or as many as there are.
    pub(crate) fn at(&mut self, position: u64, wanted: usize) -> &[u8] {
        let left = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        let wanted = wanted.min(left);
        let covered = position >= self.start && position + wanted as u64 <= self.start + self.bytes.len() as u64;
        if !covered {
            self.read(position, wanted.max(STRETCH_BYTES).min(left));
        }
        &self.bytes[(position - self.start) as usize..]
    }

    /// The bytes of `position..position + len` that the last [`at`](Window::at) lent already.
    pub(crate) fn seen(&self, position: u64, len: usize) -> &[u8] {
        let from = (position - self.start) as usize;
        &self.bytes[from..from + len]
    }

    /// What the disk said to the first piece in `from..to` that it could not read.
    pub(crate) fn unreadable_in(&self, from: u64, to: u64) -> Option<&str> {
        let inside = |&&(position, _): &&(u64, String)| position < to && position + PIECE_BYTES as u64 > from;
        self.unreadable.iter().find(inside).map(|(_, reason)| reason.as_str())
    }

    /// The first byte at or behind `position` that is not zero.
    pub(crate) fn first_nonzero(&mut self, mut position: u64) -> Option<u64> {
        while position < self.end {
            let bytes = self.at(position, 1);
            if bytes.is_empty() {
                return None;
            }
            if let Some(found) = edgelog_core::first_nonzero(bytes) {
                return Some(position + found as u64);
            }
            position += bytes.len() as u64;
        }
        None
    }

    /// How many bytes from `position` on are no reserved room: zeros at the end are, but for those of a batch, by the
    /// length that it says. (A record without headers ends with one.)
    pub(crate) fn tail_bytes(&mut self, position: u64) -> u64 {
        let (mut at, mut behind) = (position, position);
        while at < self.end {
            let bytes = self.at(at, 1);
            if bytes.is_empty() {
                break;
            }
            let len = bytes.len() as u64;
            if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
                behind = at + last as u64 + 1;
            }
            at += len;
        }
        if self.unreadable_in(position, self.end).is_some() {
            // What cannot be read is no zeros: it is worth keeping.
            return self.end - position;
        }
        let mut at = position;
        while at < behind {
            let Ok(size) = RecordBatch::peek_size(self.at(at, HEADER_LEN)) else { break };
            at += size as u64;
            if at > self.end {
                break;
            }
            behind = behind.max(at);
        }
        behind - position
    }

    fn read(&mut self, position: u64, len: usize) {
        self.start = position;
        // A window that a large batch has stretched shrinks again.
        if self.bytes.capacity() > 4 * len.max(STRETCH_BYTES) {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.bytes.resize(len, 0);
        let mut filled = 0;
        while filled < len {
            match self.file.read_at(&mut self.bytes[filled..], position + filled as u64) {
                // The file is shorter by now; what is gone was no batch.
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(_) => {
                    filled = self.read_pieces(position, filled);
                    break;
                }
            }
        }
        self.bytes.truncate(filled);
    }

    /// Reads piece by piece what cannot be read in one go; returns how many bytes there are.
    #[cold]
    fn read_pieces(&mut self, position: u64, from: usize) -> usize {
        let len = self.bytes.len();
        let mut filled = from;
        while filled < len {
            let place = position + filled as u64;
            let piece = (PIECE_BYTES - (place % PIECE_BYTES as u64) as usize).min(len - filled);
            match self.file.read_at(&mut self.bytes[filled..filled + piece], place) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) => {
                    self.note_unreadable(place, &error);
                    self.bytes[filled..filled + piece].fill(0);
                    filled += piece;
                }
            }
        }
        filled
    }

    fn note_unreadable(&mut self, position: u64, error: &io::Error) {
        let position = position - position % PIECE_BYTES as u64;
        if self.unreadable.len() < UNREADABLE_MAX && self.unreadable.iter().all(|(known, _)| *known != position) {
            self.unreadable.push((position, error.to_string()));
        }
    }
}

impl SegmentBytes for Window {
    fn end(&self) -> u64 {
        self.end
    }

    fn at(&mut self, position: u64, wanted: usize) -> &[u8] {
        Window::at(self, position, wanted)
    }

    fn names_end(&mut self, end: Offset, _is_last: bool) -> bool {
        self.named_ends.has(end)
    }
}
