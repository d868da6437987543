//! The compressed payload of a batch: the codecs behind their features.
//!
//! Writing makes what Java's clients write. Reading takes what Kafka's own Java code takes, and refuses what that
//! refuses. Local logs are written with snappy or not at all (`compression.type`); the other codecs are written to
//! clusters. The caller's limit is a number of bytes and no ratio: a payload of one letter
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
#[cfg(feature = "zstd-write")]
mod zstd_write;

use edgelog_core::CompressionType;

pub use error::CodecError;
use output::Output;

/// Appends to `out` what `codec` makes of `payload`, as Java's clients write it at their default level.
///
/// Takes no memory but for `out` with none, with snappy (once a thread has compressed its first payload) and with lz4
/// (16 KiB on the stack); with gzip some 300 KiB, with zstd up to 1.5 MiB, until it returns.
///
/// # Errors
/// `NotBuiltIn` where the codec's feature is off, which the error names; `OutOfMemory`. What is in `out` behind what
/// it held has no meaning then.
pub(crate) fn compress(codec: CompressionType, payload: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    if let Some(feature) = feature_missing_to_write(codec) {
        return Err(CodecError::NotBuiltIn { codec, feature });
    }
    match codec {
        CompressionType::None => out.extend_from_slice(payload),
        #[cfg(feature = "gzip")]
        CompressionType::Gzip => gzip::compress(payload, out),
        #[cfg(feature = "snappy")]
        CompressionType::Snappy => snappy::compress(payload, out),
        #[cfg(feature = "lz4")]
        CompressionType::Lz4 => lz4::compress(payload, out),
        #[cfg(feature = "zstd-write")]
        CompressionType::Zstd => zstd_write::compress(payload, out)?,
        // What has no feature was refused above.
        #[allow(unreachable_patterns)]
        codec => unreachable!("{codec} is built in"),
    }
    Ok(())
}

/// The feature that this build lacks to write batches with `codec`, if it lacks one.
pub(crate) fn feature_missing_to_write(codec: CompressionType) -> Option<&'static str> {
    let (is_built_in, feature) = match codec {
        CompressionType::None => return None,
        CompressionType::Gzip => (cfg!(feature = "gzip"), "gzip"),
        CompressionType::Snappy => (cfg!(feature = "snappy"), "snappy"),
        CompressionType::Lz4 => (cfg!(feature = "lz4"), "lz4"),
        CompressionType::Zstd => (cfg!(feature = "zstd-write"), "zstd-write"),
    };
    (!is_built_in).then_some(feature)
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
