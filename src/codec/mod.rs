//! The compressed payload of a batch: the codecs behind their features.
//!
//! Writing is snappy alone, in the framing that Java's clients write. Reading takes what Kafka's own Java code takes,
//! and refuses what that refuses. The caller's limit is a number of bytes, whatever the ratio: a payload of one letter
//! shrinks to a thirty-thousandth. Memory is taken as bytes come out, never because a header claims them, and a system
//! that has none left is an error.

mod error;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
mod output;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(test)]
mod tests;
#[cfg(any(feature = "lz4", feature = "zstd"))]
mod xxhash;
#[cfg(feature = "zstd")]
mod zstd;

use edgelog_core::CompressionType;

pub use error::CodecError;
use output::Output;

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
