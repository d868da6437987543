//! The names of a log's files, before its batches are looked at.

use edgelog_core::{LeaderEpoch, Offset};

use super::super::names::wrong_names;
use super::super::open_log::OpenLog;
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::segment::segment_files::{put_names_right, set_aside};
use crate::segment::{SegmentFiles, file_names};
use crate::sorted::sorted;
use crate::storage::Storage;

/// Base offsets of the segments in a partition directory, ascending. Leftovers of what was interrupted are removed
/// where a file of our own says that the log was begun here: files that were copied here are not judged by their names.
pub(super) fn list(storage: &dyn Storage, dir: &str) -> Result<Vec<Offset>> {
    let names = storage.read_dir(dir).map_err(Error::storage("list", dir))?;
    let is_own = names.iter().any(|entry| entry.name == file_names::OWN_FILE) || bug(Bug::DeleteByName);
    let mut bases: Vec<Offset> = names.iter().filter_map(|entry| file_names::parse_log_file(&entry.name)).collect();
    for part in names.iter().filter_map(|entry| file_names::parse_part_file(&entry.name)) {
        let displaced = file_names::displaced_segment(names.iter().map(|entry| entry.name.as_str()), part);
        if let (false, Some(cut)) = (bases.contains(&part), displaced) {
            let (from, to) = (format!("{dir}/{cut}"), file_names::log_file(dir, part));
            storage.rename(&from, &to).map_err(Error::storage("restore", &from))?;
            // For good before the copy goes, which says that there is something to restore.
            storage.sync_dir(dir).map_err(Error::storage("sync directory", dir))?;
            bases.push(part);
        }
    }
    let bases = sorted(bases);
    for entry in &names {
        let orphan = file_names::parse_index_file(&entry.name).is_some_and(|base| bases.binary_search(&base).is_err());
        let unfinished = file_names::parse_part_file(&entry.name).is_some() || entry.name == file_names::PREPARED;
        if is_own && !entry.is_dir && (orphan || unfinished) {
            // Where it cannot be removed it only takes room; the next open tries again.
            let _ = storage.remove_file(&format!("{dir}/{}", entry.name));
        }
    }
    Ok(bases)
}

/// Gives the files in `dir`, which are called by `names` (ascending), the names of the segments that they hold, where
/// those are others, and returns what was renamed. In `names` are the base offsets of the segments then, without
/// copies.
pub(super) fn put_right(params: &OpenLog, dir: &str, names: &mut Vec<Offset>) -> Result<Vec<(String, String)>> {
    let (storage, saved) = (&*params.storage, params.saved.as_ref());
    let wrong = wrong_names(storage, dir, names, saved, false);
    if wrong.is_empty() {
        return Ok(Vec::new());
    }
    let renamed = put_names_right(storage, dir, names, &wrong)?;
    let entries = storage.read_dir(dir).map_err(Error::storage("list", dir))?;
    *names = SegmentFiles::new(&entries, &[]).bases;
    let left = wrong_names(storage, dir, names, saved, true);
    for copy in &left {
        let name = copy.name.0;
        tracing::warn!(log = %params.name, name, "the file is a copy of another segment, and passed over");
    }
    *names = SegmentFiles::new(&entries, &left).bases;
    Ok(renamed)
}

/// Whether the segments that are called by `names` (ascending) are those of a clean close: their names are what is
/// looked at then, and no file is.
pub(super) fn are_as_closed(params: &OpenLog, names: &[Offset]) -> bool {
    params.saved.as_ref().filter(|_| params.store_is_clean).is_some_and(|saved| {
        names.last() == Some(&saved.durable.base_offset) && names[0] <= saved.log_start_offset.max(Offset(0))
    })
}

/// Puts aside what has the name of the segment that begins at `base`, which is no file of the log: a copy of another
/// segment, which is passed over until a segment needs its name.
pub(in crate::log) fn free_name(storage: &dyn Storage, dir: &str, base: Offset, epoch: LeaderEpoch) -> Result<()> {
    if storage.metadata(&file_names::log_file(dir, base)).is_err() {
        return Ok(());
    }
    set_aside(storage, dir, base, epoch)
}
