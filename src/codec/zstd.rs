//! Zstandard frames.

use std::io::Read;

use edgelog_core::compression::CompressionType;
use ruzstd::decoding::StreamingDecoder;

use super::{CodecError, Output};

/// Output comes in pieces of this length.
const PIECE_BYTES: usize = 8 << 10;

/// Reads one frame.
pub(super) fn decompress(payload: &[u8], out: &mut Output<'_>) -> Result<(), CodecError> {
    let mut decoder = StreamingDecoder::new(payload).map_err(|error| corrupt(error.to_string()))?;
    loop {
        let room = out.room().min(PIECE_BYTES);
        let mut probe = [0];
        let buffer = if room == 0 { &mut probe[..] } else { out.grow(room)? };
        let got = decoder.read(buffer).map_err(|error| corrupt(error.to_string()))?;
        if room == 0 && got > 0 {
            return Err(out.too_large((out.len() + got) as u64));
        }
        out.shrink(room.saturating_sub(got));
        if got == 0 {
            return Ok(());
        }
    }
}

fn corrupt(reason: impl Into<String>) -> CodecError {
    CodecError::corrupt(CompressionType::Zstd, reason)
}
