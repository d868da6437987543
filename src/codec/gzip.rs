//! Gzip (RFC 1952) as Java's `GZIPInputStream` reads it, and as its `GZIPOutputStream` writes it: one member.
//!
//! | bytes | what |
//! |---|---|
//! | 2 | magic `1F 8B` |
//! | 1 | method, 8 |
//! | 1 | flags: bit 1 header checksum, 2 extra field, 3 name, 4 comment; bit 0 and the others have no meaning |
//! | 6 | time, extra flags, system: not looked at |
//! | 2 + n | the extra field and its length, if there is one; then name and comment, each to its zero byte |
//! | 2 | the low half of the CRC-32 of the header before it, if the flags say so |
//! | n | deflated bytes |
//! | 8 | CRC-32 of the bytes before compression, and their number modulo 2^32, both `u32`, little-endian |
//!
//! Members may follow each other. What follows the last one and is no member's header ends the payload: Java does not
//! look at it. flate2's own reader of members refuses those bytes, so the frame is read here and flate2 inflates.

use crc32fast::Hasher;
use edgelog_core::CompressionType;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::error::CodecError;
use super::output::Output;

/// Output comes in pieces of this length, as a member says nowhere how much there will be.
const PIECE_BYTES: usize = 32 << 10;
/// A member has 20 bytes at least. Behind another one, Java does not look for it in this few.
const MEMBER_BYTES_IGNORED: usize = 18;

const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;

/// What a member begins with: no flags, no time, no system.
const HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0];
/// Java's default.
const LEVEL: u32 = 6;

/// Appends one member for `payload`.
pub(super) fn compress(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&HEADER);
    let mut deflater = Compress::new(Compression::new(LEVEL), false);
    loop {
        out.reserve(PIECE_BYTES);
        let rest = &payload[deflater.total_in() as usize..];
        let deflated = deflater.compress_vec(rest, out, FlushCompress::Finish);
        if deflated.expect("a deflater that is only asked to finish has no state to be wrong") == Status::StreamEnd {
            break;
        }
    }
    out.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
}

/// Reads all members.
pub(super) fn decompress(payload: &[u8], out: &mut Output<'_>) -> Result<(), CodecError> {
    let mut rest = header(payload)?;
    loop {
        rest = member(rest, out)?;
        if rest.len() <= MEMBER_BYTES_IGNORED {
            return Ok(());
        }
        match header(rest) {
            Ok(behind) => rest = behind,
            Err(_) => return Ok(()),
        }
    }
}

/// What stands behind the header at the front of `bytes`.
fn header(bytes: &[u8]) -> Result<&[u8], CodecError> {
    let mut rest = bytes;
    let &[first, second, method, flags, ..] = take(&mut rest, 10)? else { return Err(ends_early()) };
    if [first, second] != [0x1F, 0x8B] {
        return Err(corrupt("no magic"));
    }
    if method != 8 {
        return Err(corrupt("a method that is not deflate"));
    }
    if flags & FLAG_EXTRA != 0 {
        let len = take_little_endian(&mut rest, 2)?;
        take(&mut rest, len as usize)?;
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            let len = rest.iter().position(|&byte| byte == 0).ok_or_else(ends_early)?;
            take(&mut rest, len + 1)?;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        let before = &bytes[..bytes.len() - rest.len()];
        if take_little_endian(&mut rest, 2)? != crc32fast::hash(before) & 0xFFFF {
            return Err(corrupt("the checksum of a header does not match"));
        }
    }
    Ok(rest)
}

/// Inflates one member, whose header ends where `rest` begins, and checks its trailer. Returns what stands behind it.
fn member<'a>(mut rest: &'a [u8], out: &mut Output<'_>) -> Result<&'a [u8], CodecError> {
    let mut inflater = Decompress::new(false);
    let mut crc = Hasher::new();
    loop {
        // Also a member that fills the room to its last byte has an end, which is found with no room left.
        let room = out.room().min(PIECE_BYTES);
        let mut spare = [0];
        let piece = if room == 0 { &mut spare[..] } else { out.grow(room)? };
        let (read, written) = (inflater.total_in(), inflater.total_out());
        let inflated = inflater.decompress(rest, piece, FlushDecompress::None);
        let status = inflated.map_err(|error| corrupt(error.to_string()))?;
        let (read, written) = ((inflater.total_in() - read) as usize, (inflater.total_out() - written) as usize);
        crc.update(&piece[..written]);
        if room > 0 {
            out.shrink(room - written);
        } else if written > 0 {
            return Err(out.too_large(out.len() as u64 + 1));
        }
        rest = &rest[read..];
        match status {
            Status::StreamEnd => break,
            // Nothing moves: what is missing is input.
            _ if read == 0 && written == 0 => return Err(ends_early()),
            _ => {}
        }
    }
    if take_little_endian(&mut rest, 4)? != crc.finalize() {
        return Err(corrupt("the checksum of its content does not match"));
    }
    if take_little_endian(&mut rest, 4)? != inflater.total_out() as u32 {
        return Err(corrupt("its content is not as long as it claims"));
    }
    Ok(rest)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], CodecError> {
    let (taken, behind) = rest.split_at_checked(len).ok_or_else(ends_early)?;
    *rest = behind;
    Ok(taken)
}

/// A number of up to four bytes.
fn take_little_endian(rest: &mut &[u8], len: usize) -> Result<u32, CodecError> {
    let mut bytes = [0; 4];
    bytes[..len].copy_from_slice(take(rest, len)?);
    Ok(u32::from_le_bytes(bytes))
}

fn ends_early() -> CodecError {
    corrupt("a member ends too early")
}

fn corrupt(reason: impl Into<String>) -> CodecError {
    CodecError::corrupt(CompressionType::Gzip, reason)
}
