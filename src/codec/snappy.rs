//! Snappy as Kafka's clients write it.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | magic `82 53 4E 41 50 50 59 00`, version 1, least version that reads it 1, both `u32`, big-endian |
//! | 4 | length of the block that follows, `u32`, big-endian |
//! | n | one raw snappy block, of 32 KiB before compression |
//! | | ... and so on, length and block, to the end; another header may stand in a length's place |
//!
//! That is the stream of the xerial library, which Java's clients write. Others write one raw block without
//! anything around it: it is read as well, and recognised by the missing magic (which as a raw block would claim a
//! length that its bytes cannot have).

use std::cell::RefCell;

use edgelog_core::CompressionType;
use snap::raw::{Decoder, Encoder, decompress_len, max_compress_len};

use super::error::CodecError;
use super::output::Output;
use crate::zeros;

const HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const MAGIC_BYTES: usize = 8;
const BLOCK_BYTES: usize = 32 << 10;

/// No snappy element makes more than 64 bytes out of 3.
const EXPANSION_MAX: usize = 22;

/// What a thread keeps: the encoder's tables, and room for a block, take longer to make than a small batch takes to
/// compress. Together they grow to 70 KiB.
struct Compressor {
    encoder: Encoder,
    block: Vec<u8>,
}

thread_local! {
    static COMPRESSOR: RefCell<Compressor> =
        RefCell::new(Compressor { encoder: Encoder::new(), block: Vec::new() });
}

/// Appends the stream for `payload`.
pub(super) fn compress(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&HEADER);
    COMPRESSOR.with_borrow_mut(|Compressor { encoder, block: room }| {
        for block in payload.chunks(BLOCK_BYTES) {
            let worst = max_compress_len(block.len());
            if room.len() < worst {
                zeros::resize(room, worst);
            }
            let len = encoder.compress(block, room);
            let len = len.expect("a block this short, into room for the worst case, always compresses");
            out.extend_from_slice(&(len as u32).to_be_bytes());
            out.extend_from_slice(&room[..len]);
        }
    });
}

/// Reads either form. A stream ends where fewer bytes are left than a block's length has.
pub(super) fn decompress(payload: &[u8], out: &mut Output<'_>) -> Result<(), CodecError> {
    if payload.len() < HEADER.len() || !payload.starts_with(&HEADER[..MAGIC_BYTES]) {
        return decompress_block(payload, out);
    }
    let mut rest = &payload[HEADER.len()..];
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        if *len == HEADER[..4] {
            rest = behind_another_header(rest)?;
            continue;
        }
        let len = u32::from_be_bytes(*len) as usize;
        let Some((block, behind)) = behind.split_at_checked(len) else {
            return Err(corrupt(format!("a block of {len} bytes where {} are left", behind.len())));
        };
        decompress_block(block, out)?;
        rest = behind;
    }
    Ok(())
}

/// Where the blocks of a further stream begin. (Java looks at the version of such a header, and not of the first.)
fn behind_another_header(bytes: &[u8]) -> Result<&[u8], CodecError> {
    let Some((header, behind)) = bytes.split_first_chunk::<16>() else {
        return Err(corrupt("a further stream ends inside its header"));
    };
    let version = i32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    if header.starts_with(&HEADER[..MAGIC_BYTES]) && version < 1 {
        return Err(corrupt(format!("a further stream of version {version}, the least is 1")));
    }
    Ok(behind)
}

fn decompress_block(block: &[u8], out: &mut Output<'_>) -> Result<(), CodecError> {
    if block.is_empty() {
        return Err(corrupt("a block without any bytes"));
    }
    // The decoder would take the claimed length at its word.
    let len = decompress_len(block).map_err(|error| corrupt(error.to_string()))?;
    if len > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(corrupt(format!("a block of {} bytes claims to hold {len}", block.len())));
    }
    if len > out.room() {
        return Err(out.too_large(out.len() as u64 + len as u64));
    }
    let written = Decoder::new().decompress(block, out.grow(len)?).map_err(|error| corrupt(error.to_string()))?;
    if written == len { Ok(()) } else { Err(corrupt("a block is shorter than it claims")) }
}

fn corrupt(reason: impl Into<String>) -> CodecError {
    CodecError::corrupt(CompressionType::Snappy, reason)
}
