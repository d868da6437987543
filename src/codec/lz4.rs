//! The LZ4 frame format, as Kafka's clients write it.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | magic `04 22 4D 18` |
//! | 1 | FLG: bits 7-6 version 01, 5 independent blocks, 4 block checksums, 3 content size, 2 its checksum, 0 dict |
//! | 1 | BD: bits 6-4 greatest block (4 is 64 KiB, each further one four times that, to 7), all others zero |
//! | 8 | content size, if FLG has it |
//! | 1 | the second byte of the XXH32 of FLG, BD and size |
//! | 4 | length of the block that follows, `u32`, little-endian; highest bit: it is stored as it is; 0: the end |
//! | n | the block, then its XXH32 if FLG has it |
//! | 4 | XXH32 of the content, if FLG has it |
//!
//! What is accepted is what Kafka's `Lz4BlockInputStream` accepts: version 1, independent blocks, no dictionary, one
//! frame. Header and block checksums are verified. The content's checksum has to be there and is not verified (the
//! batch has its own). Bytes behind the frame are not looked at, and a block of no bytes is the end, also one that says
//! that it is stored.
//!
//! `lz4_flex` has a reader of frames too, and it differs in all of that: it takes blocks that depend on each other,
//! goes on with a second frame, and refuses a wrong content checksum. So the frame is read here, and `lz4_flex`
//! decodes blocks, from the payload into the output without any buffer between.
//!
//! What is written is what Kafka's `Lz4BlockOutputStream` writes: blocks of 64 KiB, no checksum but the header's.

use edgelog_core::CompressionType;
use lz4_flex::block::{DecompressError, compress_into, decompress_into, get_maximum_output_size};

use super::error::CodecError;
use super::output::Output;
use super::xxhash::xxh32;
use crate::zeros;

const MAGIC: u32 = 0x184D_2204;
const FLG_VERSION_MASK: u8 = 0b1100_0000;
const FLG_VERSION: u8 = 0b0100_0000;
const FLG_BLOCKS_INDEPENDENT: u8 = 0b0010_0000;
const FLG_BLOCK_CHECKSUMS: u8 = 0b0001_0000;
const FLG_CONTENT_SIZE: u8 = 0b0000_1000;
const FLG_CONTENT_CHECKSUM: u8 = 0b0000_0100;
const FLG_RESERVED_OR_DICTIONARY: u8 = 0b0000_0011;
const BD_RESERVED: u8 = 0b1000_1111;
const BLOCK_STORED: u32 = 1 << 31;

/// No byte of an LZ4 block stands for more than 255, but for the first few.
const EXPANSION_MAX: usize = 255;

/// What a frame begins with: blocks of 64 KiB at most that do not depend on each other. The header's checksum follows.
const HEADER: [u8; 6] = [0x04, 0x22, 0x4D, 0x18, FLG_VERSION | FLG_BLOCKS_INDEPENDENT, 4 << 4];
const WRITTEN_BLOCK_BYTES: usize = 64 << 10;

/// Appends one frame for `payload`.
pub(super) fn compress(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&HEADER);
    out.push((xxh32(&HEADER[4..]) >> 8) as u8);
    for block in payload.chunks(WRITTEN_BLOCK_BYTES) {
        let head = out.len();
        let start = head + 4;
        zeros::resize(out, start + get_maximum_output_size(block.len()));
        let len = compress_into(block, &mut out[start..]).expect("there is room for the worst case");
        let len = if len < block.len() {
            len as u32
        } else {
            out[start..start + block.len()].copy_from_slice(block);
            block.len() as u32 | BLOCK_STORED
        };
        out[head..start].copy_from_slice(&len.to_le_bytes());
        out.truncate(start + (len & !BLOCK_STORED) as usize);
    }
    out.extend_from_slice(&[0; 4]);
}

/// Reads one frame.
pub(super) fn decompress(payload: &[u8], out: &mut Output<'_>) -> Result<(), CodecError> {
    let mut rest = payload;
    if take_u32(&mut rest)? != MAGIC {
        return Err(corrupt("no magic"));
    }
    let (flg, bd) = (take(&mut rest, 1)?[0], take(&mut rest, 1)?[0]);
    if flg & FLG_VERSION_MASK != FLG_VERSION {
        return Err(corrupt(format!("version {} where 1 is known", flg >> 6)));
    }
    if flg & FLG_RESERVED_OR_DICTIONARY != 0 || bd & BD_RESERVED != 0 || bd >> 4 < 4 {
        return Err(corrupt(format!("unknown flags {flg:#04x} {bd:#04x}")));
    }
    if flg & FLG_BLOCKS_INDEPENDENT == 0 {
        return Err(corrupt("its blocks depend on each other"));
    }
    if flg & FLG_CONTENT_SIZE != 0 {
        take(&mut rest, 8)?;
    }
    let descriptor = &payload[4..payload.len() - rest.len()];
    if take(&mut rest, 1)?[0] != (xxh32(descriptor) >> 8) as u8 {
        return Err(corrupt("the checksum of its header does not match"));
    }
    let block_bytes_max = 1 << (8 + 2 * (bd >> 4));
    loop {
        let head = take_u32(&mut rest)?;
        let len = (head & !BLOCK_STORED) as usize;
        if len == 0 {
            break;
        }
        if len > block_bytes_max {
            return Err(corrupt(format!("a block of {len} bytes where {block_bytes_max} are the most")));
        }
        let block = take(&mut rest, len)?;
        if flg & FLG_BLOCK_CHECKSUMS != 0 && take_u32(&mut rest)? != xxh32(block) {
            return Err(corrupt("the checksum of a block does not match"));
        }
        if head & BLOCK_STORED != 0 {
            out.append(block)?;
        } else {
            decompress_block(block, block_bytes_max, out)?;
        }
    }
    if flg & FLG_CONTENT_CHECKSUM != 0 {
        take(&mut rest, 4)?;
    }
    Ok(())
}

fn decompress_block(block: &[u8], block_bytes_max: usize, out: &mut Output<'_>) -> Result<(), CodecError> {
    let possible = block_bytes_max.min(block.len().saturating_mul(EXPANSION_MAX));
    let room = out.room().min(possible);
    match decompress_into(block, out.grow(room)?) {
        Ok(written) => {
            out.shrink(room - written);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { expected, .. }) if room < possible => {
            out.shrink(room);
            Err(out.too_large((out.len() as u64).saturating_add(expected as u64)))
        }
        Err(error) => Err(corrupt(error.to_string())),
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], CodecError> {
    let (taken, behind) = rest.split_at_checked(len).ok_or_else(|| corrupt("the frame ends too early"))?;
    *rest = behind;
    Ok(taken)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, CodecError> {
    let bytes = take(rest, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn corrupt(reason: impl Into<String>) -> CodecError {
    CodecError::corrupt(CompressionType::Lz4, reason)
}
