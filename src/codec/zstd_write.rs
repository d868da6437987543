//! Zstandard frames, written by the reference library.
//!
//! Reading does without it (`zstd.rs`). No encoder in Rust both builds with 1.85 and is kept: ruzstd wants 1.87.

use edgelog_core::CompressionType;
use zstd_safe::{CCtx, compress_bound, get_error_name};

use super::error::CodecError;
use crate::zeros;

/// Kafka's default for its producers.
const LEVEL: i32 = 3;

/// Appends one frame for `payload`.
pub(super) fn compress(payload: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let start = out.len();
    let bound = compress_bound(payload.len());
    let no_memory = || CodecError::OutOfMemory { codec: CompressionType::Zstd, needed: bound };
    let mut context = CCtx::try_create().ok_or_else(no_memory)?;
    zeros::resize(out, start + bound);
    match context.compress(&mut out[start..], payload, LEVEL) {
        Ok(len) => {
            out.truncate(start + len);
            Ok(())
        }
        Err(code) => {
            // With room for the worst case, memory for its tables is all that it can lack.
            tracing::warn!(reason = get_error_name(code), "zstd did not compress");
            Err(no_memory())
        }
    }
}
