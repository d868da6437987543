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
    pub(super) fn corrupt(codec: CompressionType, reason: impl Into<String>) -> Self {
        Self::Corrupt { codec, reason: reason.into() }
    }
}
