//! Small text files with a checksum in their first line.
//!
//! ```text
//! edgelog-bridge 1 SEQUENCE LENGTH CRC32
//! ...
//! ```
//!
//! The CRC-32, in hexadecimal digits, is that of the sequence and of the LENGTH bytes behind the first line.

use std::io;

use super::{Access, Storage};

const MAGIC: &str = "edgelog-bridge 1 ";

/// A file's text: its first line, and `body`.
pub(crate) fn frame(sequence: u64, body: &str) -> String {
    format!("{MAGIC}{sequence} {} {:08x}\n{body}", body.len(), checksum(sequence, body.as_bytes()))
}

/// The sequence and the body, where the file is whole.
pub(crate) fn unframe(bytes: &[u8]) -> Option<(u64, &str)> {
    const FIRST_LINE_MAX: usize = 80;
    let end = bytes.iter().take(FIRST_LINE_MAX).position(|&b| b == b'\n')?;
    let first = std::str::from_utf8(&bytes[..end]).ok()?.strip_prefix(MAGIC)?;
    let mut words = first.split(' ');
    let sequence: u64 = words.next()?.parse().ok()?;
    let len: usize = words.next()?.parse().ok()?;
    let crc = u32::from_str_radix(words.next()?, 16).ok()?;
    let body = bytes.get(end + 1..)?.get(..len)?;
    if checksum(sequence, body) != crc {
        return None;
    }
    Some((sequence, std::str::from_utf8(body).ok()?))
}

/// Of the sequence as well: a new first line before an older body is no whole file.
fn checksum(sequence: u64, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc32fast::hash(&sequence.to_be_bytes()));
    hasher.update(body);
    hasher.finalize()
}

/// The bytes of a small file.
///
/// # Errors
/// Those of the disk, and `InvalidData` for a file of more than `bytes_max` bytes.
pub(crate) fn read_whole(storage: &dyn Storage, path: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = storage.open(path, Access::Read)?;
    let len = file.len()?;
    if len > bytes_max {
        let text = format!("{len} bytes, {bytes_max} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; len as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
