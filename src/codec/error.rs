//! Why a payload cannot be compressed or decompressed.

use edgelog_core::CompressionType;

/// Why a payload cannot be compressed or decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The codec is not in this build.
    #[error("{codec} is not built in: enable the feature `{feature}`")]
    NotBuiltIn {
        /// The codec asked for.
        codec: CompressionType,
        /// The feature that brings it.
        feature: &'static str,
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
    /// The system has no memory for what comes out, or for compressing it. The payload may well be sound.
    #[error("no memory for {needed} bytes that a {codec} payload needs")]
    OutOfMemory {
        /// The codec.
        codec: CompressionType,
        /// Bytes that are needed at least.
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
    pub(super) fn corrupt(codec: CompressionType, reason: impl Into<String>) -> Self {
        Self::Corrupt { codec, reason: reason.into() }
    }
}
