//! A new file of a segment, written from its first byte to its last.

use std::sync::Arc;

use edgelog_core::{LeaderEpoch, Offset, stamp_base};

use crate::error::{Error, Result};
use crate::storage::{Access, Storage, StorageFile};

/// Written in one go.
const PIECE_BYTES: usize = 256 << 10;

/// A file that is written from front to end.
#[derive(Debug)]
pub(crate) struct Sink {
    path: String,
    file: Arc<dyn StorageFile>,
    written: u64,
    buffer: Vec<u8>,
}

impl Sink {
    /// Creates `path`, in place of a leftover.
    pub(crate) fn create(storage: &dyn Storage, path: String) -> Result<Sink> {
        let _ = storage.remove_file(&path);
        let file = storage.open(&path, Access::CreateNew).map_err(Error::storage("create", &path))?;
        Ok(Sink { path, file, written: 0, buffer: Vec::new() })
    }

    pub(crate) fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES { self.spill() } else { Ok(()) }
    }

    /// Writes a batch with another base offset and epoch; neither is under the CRC.
    pub(crate) fn write_stamped(&mut self, batch: &[u8], base_offset: Offset, epoch: LeaderEpoch) -> Result<()> {
        let from = self.buffer.len();
        self.buffer.extend_from_slice(batch);
        stamp_base(&mut self.buffer[from..], base_offset, epoch);
        if self.buffer.len() >= PIECE_BYTES { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written).map_err(Error::storage("write", &self.path))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Leaves it to the system when the bytes become durable: for what is derived.
    pub(crate) fn finish_derived(mut self) -> Result<()> {
        self.spill()
    }

    /// Makes the bytes durable; the name is its directory's to sync.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.spill()?;
        self.file.flush().map_err(Error::storage("flush", &self.path))?;
        Ok(self.written)
    }
}
