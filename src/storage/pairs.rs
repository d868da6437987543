//! Text files of `key=value` lines: a topic's settings, and what a partition directory says of itself.

use std::collections::BTreeMap;
use std::io;

use super::small_file::{self, Lasting};
use super::{Access, Storage};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};

/// A file beyond this is none.
pub(crate) const PAIRS_BYTES_MAX: u64 = 64 << 10;
/// The first line of such a file, before the CRC-32 of what follows it. A person who edits the file takes the line out.
pub(crate) const CHECKSUM_LINE: &str = "# crc32=";

/// Keys and their values.
pub(crate) type Pairs = BTreeMap<String, String>;

/// What such a file holds.
#[derive(Debug)]
pub(crate) struct PairsFile {
    pub(crate) pairs: Pairs,
    /// Its checksum is there, and holds.
    pub(crate) checked: bool,
    /// Its last line has an end.
    pub(crate) ended: bool,
}

impl PairsFile {
    /// A file without a checksum was written by hand, or is what a torn one has left: it counts where it has keys, and
    /// where its last line is whole. Cut in the middle of a number, that line says another one.
    pub(crate) fn is_sound(&self) -> bool {
        self.checked || (!self.pairs.is_empty() && self.ended) || bug(Bug::TrustAnEmptySettingsFile)
    }
}

/// The pairs in the file at `path`; `None` where there is no such file.
///
/// # Errors
/// What reading it answers, and `InvalidData` for text that is not `key=value` lines.
pub(crate) fn read_pairs(storage: &dyn Storage, path: &str) -> io::Result<Option<PairsFile>> {
    let file = match storage.open(path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let len = file.len()?;
    if len > PAIRS_BYTES_MAX {
        return Err(invalid(format!("{len} bytes, more than {PAIRS_BYTES_MAX}")));
    }
    let mut bytes = vec![0; len as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    let text = String::from_utf8(bytes).map_err(|_| invalid("it is not text".to_owned()))?;
    let mut checked = false;
    if let Some(rest) = text.strip_prefix(CHECKSUM_LINE) {
        let (first, rest) = rest.split_once('\n').unwrap_or((rest, ""));
        let written = first.split(' ').next().and_then(|digits| u32::from_str_radix(digits, 16).ok());
        if written != Some(crc32fast::hash(rest.as_bytes())) || !text.contains('\n') {
            return Err(invalid("the checksum in its first line does not hold".to_owned()));
        }
        checked = true;
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut pairs = Pairs::new();
    for (number, line) in lines.enumerate() {
        let pair = line.split_once('=').ok_or_else(|| invalid(format!("line {} is no key=value", number + 1)))?;
        pairs.insert(pair.0.trim().to_owned(), pair.1.trim().to_owned());
    }
    Ok(Some(PairsFile { pairs, checked, ended: text.ends_with('\n') }))
}

/// Writes `lines` with their checksum to the file at `path`: a power cut leaves the old file or the new one.
///
/// # Durability
/// On return the file is durable, and so is every name in its directory.
pub(crate) fn replace_pairs(storage: &dyn Storage, path: &str, lines: &str) -> Result<()> {
    let text = format!("{CHECKSUM_LINE}{:08x} of the lines below\n{lines}", crc32fast::hash(lines.as_bytes()));
    small_file::replace(storage, path, text.as_bytes(), Lasting::PowerCut).map_err(Error::storage("write", path))
}
