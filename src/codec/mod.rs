//! The compressed payload of a batch: the codecs behind their features.
//!
//! Writing is snappy alone, in the framing that Java's clients write. Reading takes what Kafka's own Java code takes,
//! and refuses what that refuses. The caller's limit is a number of bytes, whatever the ratio: a payload of one letter
//! shrinks to a thirty-thousandth. Memory is taken as bytes come out, never because a header claims them, and a system
//! that has none left is an error.

#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(test)]
mod tests;
#[cfg(any(feature = "lz4", feature = "zstd"))]
mod xxhash;
#[cfg(feature = "zstd")]
mod zstd;

use edgelog_core::CompressionType;

/// Why a payload cannot be compressed or decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The codec is not in this build.
    #[error("{codec} is not built in: enable the feature `{feature}`")]
    NotBuiltIn {
        /// The codec asked for.
        codec: CompressionType,
        /// The feature that brings it.
        feature: &'static str,
    },
    /// The codec is only read, in any build.
    #[error("{codec} is read but not written: snappy is")]
    NotWritten {
        /// The codec asked for.
        codec: CompressionType,
    },
    /// What comes out would be longer than allowed. The payload may well be sound.
    #[error(
        "the {codec} payload decompresses to {claimed} bytes or more, \
         edgelog.decompressed.bytes.max={limit} allows no more"
    )]
    TooLarge {
        /// The codec.
        codec: CompressionType,
        /// A length that the payload is known to reach, or claims.
        claimed: u64,
        /// `edgelog.decompressed.bytes.max`.
        limit: usize,
    },
    /// The system has no memory for what comes out. The payload may well be sound.
    #[error("no memory for the {needed} bytes that the {codec} payload decompresses to so far")]
    OutOfMemory {
        /// The codec.
        codec: CompressionType,
        /// Bytes that the output needs by now.
        needed: usize,
    },
    /// The bytes are not what the codec writes.
    #[error("not a {codec} payload: {reason}")]
    Corrupt {
        /// The codec.
        codec: CompressionType,
        /// What is wrong with them.
        reason: String,
    },
}

impl CodecError {
    /// Whether the payload itself is damaged. Where not, another build, a higher limit or more memory reads it.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    #[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
    fn corrupt(codec: CompressionType, reason: impl Into<String>) -> Self {
        Self::Corrupt { codec, reason: reason.into() }
    }
}

/// Appends to `out` what `codec` makes of `payload`. Takes no memory but for `out`, once a thread has
/// compressed its first payload.
///
/// # Errors
/// `NotWritten` for all codecs but none and snappy, `NotBuiltIn` for snappy without its feature.
pub(crate) fn compress(codec: CompressionType, payload: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    match codec {
        CompressionType::None => {
            out.extend_from_slice(payload);
            Ok(())
        }
        #[cfg(feature = "snappy")]
        CompressionType::Snappy => {
            snappy::compress(payload, out);
            Ok(())
        }
        #[cfg(not(feature = "snappy"))]
        CompressionType::Snappy => Err(CodecError::NotBuiltIn { codec, feature: "snappy" }),
        CompressionType::Gzip | CompressionType::Lz4 | CompressionType::Zstd => Err(CodecError::NotWritten { codec }),
    }
}

/// Appends to `out` what `payload` was before `codec` compressed it, `limit` bytes at most.
///
/// What `out` held stays in front; after an error what is behind it has no meaning.
///
/// # Errors
/// `NotBuiltIn` where the codec's feature is off, `TooLarge` where `limit` is not enough, `OutOfMemory` where the
/// system has no more, `Corrupt` for all other bytes.
pub(crate) fn decompress(
    codec: CompressionType,
    payload: &[u8],
    out: &mut Vec<u8>,
    limit: usize,
) -> Result<(), CodecError> {
    #[cfg(not(all(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd")))]
    let not_built_in = |feature| Err(CodecError::NotBuiltIn { codec, feature });
    match codec {
        CompressionType::None => Output::new(codec, out, limit).append(payload),
        #[cfg(feature = "gzip")]
        CompressionType::Gzip => gzip::decompress(payload, &mut Output::new(codec, out, limit)),
        #[cfg(not(feature = "gzip"))]
        CompressionType::Gzip => not_built_in("gzip"),
        #[cfg(feature = "snappy")]
        CompressionType::Snappy => snappy::decompress(payload, &mut Output::new(codec, out, limit)),
        #[cfg(not(feature = "snappy"))]
        CompressionType::Snappy => not_built_in("snappy"),
        #[cfg(feature = "lz4")]
        CompressionType::Lz4 => lz4::decompress(payload, &mut Output::new(codec, out, limit)),
        #[cfg(not(feature = "lz4"))]
        CompressionType::Lz4 => not_built_in("lz4"),
        #[cfg(feature = "zstd")]
        CompressionType::Zstd => zstd::decompress(payload, &mut Output::new(codec, out, limit)),
        #[cfg(not(feature = "zstd"))]
        CompressionType::Zstd => not_built_in("zstd"),
    }
}

/// Where decompressed bytes go: behind what the caller's buffer held already, and never more than the limit.
struct Output<'a> {
    codec: CompressionType,
    bytes: &'a mut Vec<u8>,
    start: usize,
    limit: usize,
}

impl<'a> Output<'a> {
    fn new(codec: CompressionType, bytes: &'a mut Vec<u8>, limit: usize) -> Self {
        let start = bytes.len();
        Self { codec, bytes, start, limit }
    }

    /// Bytes decompressed so far.
    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The bytes decompressed from the `from`th on.
    #[cfg(feature = "zstd")]
    fn since(&self, from: usize) -> &[u8] {
        &self.bytes[self.start + from..]
    }

    /// Bytes that may still come.
    fn room(&self) -> usize {
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
    fn append(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        self.make_room(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends `len` bytes, zeros for now, and returns them to be filled.
    #[cfg(any(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
    fn grow(&mut self, len: usize) -> Result<&mut [u8], CodecError> {
        self.make_room(len)?;
        let old = self.bytes.len();
        crate::zeros::resize(self.bytes, old + len);
        Ok(&mut self.bytes[old..])
    }

    /// Appends `len` bytes that repeat the last `distance` ones, which are there.
    #[cfg(feature = "zstd")]
    fn repeat(&mut self, distance: usize, len: usize) -> Result<(), CodecError> {
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
    fn shrink(&mut self, len: usize) {
        self.bytes.truncate(self.bytes.len() - len);
    }

    fn too_large(&self, claimed: u64) -> CodecError {
        CodecError::TooLarge { codec: self.codec, claimed, limit: self.limit }
    }
}
