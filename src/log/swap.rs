//! Segments that Kafka's log cleaner has written and not put in place: a broker stopped between two renames.
//!
//! The cleaner writes a segment under a `.swap` name, takes away those that it replaces, and renames it: the file may
//! be the only copy of records. Where a log was copied here and the file fits between its segments, the first open
//! finishes that as a broker does. Else it is named, and its offsets are not given out: what it replaces is not known.

use edgelog_core::{OFFSET_MAX, Offset};

use super::origin::is_begun_here;
use super::saved_log::SavedLog;
use crate::error::{Error, Result};
use crate::segment::file_names;
use crate::segment::held::Held;
use crate::sorted::sorted;
use crate::storage::Storage;

/// The base offsets in the names of those in the directory `dir`, ascending.
pub(super) fn swap_bases(storage: &dyn Storage, dir: &str) -> Result<Vec<Offset>> {
    let names = storage.read_dir(dir).map_err(Error::storage("list", dir))?;
    let files = names.iter().filter(|entry| !entry.is_dir);
    Ok(sorted(files.filter_map(|entry| file_names::parse_swap_file(&entry.name)).collect()))
}

/// The offset behind those that such a file holds. They are not given out: the file may be the only copy of records,
/// and has to fit in once it gets its name.
///
/// # Errors
/// [`Error::Storage`] where the file cannot be opened: which offsets are free is not known then.
pub(super) fn end_of_swap(storage: &dyn Storage, dir: &str, base: Offset) -> Result<Offset> {
    let held = Held::read(storage, &file_names::swap_file(dir, base), Some(base), 0)?;
    let damaged = held.damaged.last().map_or(Offset(0), |(first, next)| next.unwrap_or(first.saturating_add(1)));
    Ok(held.span().map_or(Offset(0), |(_, next)| next).max(damaged).min(OFFSET_MAX))
}

/// Whether the next open puts a file that holds `held`, with `base` in its name, in its place among the segments at
/// `bases` (ascending) of the log in `dir`: no checkpoint knows the log, it was not begun here, all of the file holds,
/// and no segment reaches into its offsets.
pub(crate) fn fits_in(
    storage: &dyn Storage,
    dir: &str,
    saved: Option<&SavedLog>,
    bases: &[Offset],
    (base, held): (Offset, &Held),
) -> bool {
    let Some((first, next)) = held.span() else { return false };
    if saved.is_some() || is_begun_here(storage, dir) || !held.damaged.is_empty() {
        return false;
    }
    let at = bases.partition_point(|&other| other < base);
    let ends_before = |&other: &Offset| {
        let held = Held::read(storage, &file_names::log_file(dir, other), Some(other), 0);
        held.is_ok_and(|held| held.span().is_none_or(|(_, end)| end <= first))
    };
    bases.get(at).is_none_or(|&behind| behind > base && next <= behind) && bases[..at].iter().all(ends_before)
}

/// Puts those that fit in their places among the segments at `bases`, and returns what they were called.
///
/// # Durability
/// On return, the names are on the disk.
pub(super) fn put_in_place(
    storage: &dyn Storage,
    dir: &str,
    saved: Option<&SavedLog>,
    bases: &mut Vec<Offset>,
) -> Result<Vec<String>> {
    let mut placed = Vec::new();
    for base in swap_bases(storage, dir)? {
        let path = file_names::swap_file(dir, base);
        let Ok(held) = Held::read(storage, &path, Some(base), 0) else { continue };
        if !fits_in(storage, dir, saved, bases, (base, &held)) {
            continue;
        }
        storage.rename(&path, &file_names::log_file(dir, base)).map_err(Error::storage("put in place", &path))?;
        bases.insert(bases.partition_point(|&other| other < base), base);
        placed.push(path);
    }
    if !placed.is_empty() {
        storage.sync_dir(dir).map_err(Error::storage("sync directory", dir))?;
    }
    Ok(placed)
}
