//! Where decompressed bytes go, and how many of them may come.

use edgelog_core::CompressionType;

use super::error::CodecError;

/// Where decompressed bytes go: behind what the caller's buffer held already, and never more than the limit.
pub(super) struct Output<'a> {
    codec: CompressionType,
    bytes: &'a mut Vec<u8>,
    start: usize,
    limit: usize,
}

impl<'a> Output<'a> {
    pub(super) fn new(codec: CompressionType, bytes: &'a mut Vec<u8>, limit: usize) -> Self {
        let start = bytes.len();
        Self { codec, bytes, start, limit }
    }

    /// Bytes decompressed so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The bytes decompressed from the `from`th on.
    #[cfg(feature = "zstd")]
    pub(super) fn since(&self, from: usize) -> &[u8] {
        &self.bytes[self.start + from..]
    }

    /// Bytes that may still come.
    pub(super) fn room(&self) -> usize {
        self.limit - self.len()
    }

    /// Sees to it that `len` more bytes fit, or refuses them.
    fn make_room(&mut self, len: usize) -> Result<(), CodecError> {
        if len > self.room() {
            return Err(self.too_large(self.len() as u64 + len as u64));
        }
        let wanted = self.bytes.len() + len;
        if wanted > self.bytes.capacity() {
            // By doubling, so that many small pieces cost no more than one large one; but never beyond the limit.
            let capacity = wanted.max(2 * self.bytes.capacity()).min(self.start.saturating_add(self.limit));
            let reserved = self.bytes.try_reserve_exact(capacity - self.bytes.len());
            // The host goes on where a batch does not fit its memory.
            reserved.map_err(|_| CodecError::OutOfMemory { codec: self.codec, needed: self.len() + len })?;
        }
        Ok(())
    }

    /// Appends `bytes`.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.make_room(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends `len` bytes, zeros for now, and returns them to be filled.
    #[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
    pub(super) fn grow(&mut self, len: usize) -> Result<&mut [u8], CodecError> {
        self.make_room(len)?;
        let old = self.bytes.len();
        crate::zeros::resize(self.bytes, old + len);
        Ok(&mut self.bytes[old..])
    }

    /// Appends `len` bytes that repeat the last `distance` ones, which are there.
    #[cfg(feature = "zstd")]
    pub(super) fn repeat(&mut self, distance: usize, len: usize) -> Result<(), CodecError> {
        self.make_room(len)?;
        let start = self.bytes.len() - distance;
        let mut left = len;
        while left > 0 {
            // What was just appended repeats as well: each turn can take twice as much.
            let piece = left.min(self.bytes.len() - start);
            self.bytes.extend_from_within(start..start + piece);
            left -= piece;
        }
        Ok(())
    }

    /// Takes the last `len` bytes back.
    #[cfg(any(feature = "gzip", feature = "lz4"))]
    pub(super) fn shrink(&mut self, len: usize) {
        self.bytes.truncate(self.bytes.len() - len);
    }

    pub(super) fn too_large(&self, claimed: u64) -> CodecError {
        CodecError::TooLarge { codec: self.codec, claimed, limit: self.limit }
    }
}
