//! Which files hold the segments of a log.
//!
//! A file's name says where its segment begins, and nothing protects a name: a copy may lie next to its original, a
//! segment may have been renamed. Where the first batch of a file contradicts its name, and the batch behind it or the
//! segment before it bears that out, the batches are believed. Recovery, attached processes and the tools all ask here.
//!
//! | the first batch begins | and | the file is |
//! |---|---|---|
//! | where the name says | | a segment |
//! | elsewhere | the same batch begins another file, which holds all that this one does | a copy: passed over |
//! | elsewhere | the same, but that one is damaged, and this one has all of it | the segment: that one is passed over |
//! | before the name | it is borne out | the segment that begins there |
//! | behind the name | it is borne out, and the segment before reaches over the name | the same |
//! | elsewhere | another file has that place, and this one holds what that one does not | a segment by its name |
//! | elsewhere | none of these | a segment by its name: its first batch is damaged there, or batches are missing |

use std::io::ErrorKind;

use edgelog_core::{HEADER_LEN, LeaderEpoch, Offset, Position, RecordBatch};

use super::HeaderWalk;
use super::file_names;
use super::held::{Held, left_of};
use crate::error::{Error, Result};
use crate::sorted::sorted;
use crate::storage::{Access, DirEntry, Storage};

/// So many `.cut` names are tried for one segment.
const CUT_NAMES_MAX: usize = 1000;

/// A file whose name is not that of the segment it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misnamed {
    /// The offset in its name.
    pub(crate) name: Offset,
    /// Where the segment begins that it holds.
    pub(crate) base: Offset,
    /// It is passed over: another file has that place.
    pub(crate) is_copy: bool,
}

/// The files that hold the segments of a log.
#[derive(Debug, Clone, Default)]
pub(crate) struct SegmentFiles {
    /// Base offsets, ascending.
    pub(crate) bases: Vec<Offset>,
    /// Those whose file has another name than theirs, and that name.
    elsewhere: Vec<(Offset, String)>,
}

impl SegmentFiles {
    /// By the names in the log's directory, of which `misnamed` are known to be wrong. Where a stop between two renames
    /// has left a segment under its `.cut` name, that file holds it.
    pub(crate) fn new(names: &[DirEntry], misnamed: &[Misnamed]) -> SegmentFiles {
        let named: Vec<Offset> = names.iter().filter_map(|entry| file_names::parse_log_file(&entry.name)).collect();
        let mut files = SegmentFiles::default();
        for &name in &named {
            match misnamed.iter().find(|known| known.name == name) {
                Some(known) if known.is_copy => {}
                Some(known) => files.elsewhere.push((known.base, file_names::log_file_name(name))),
                None => files.bases.push(name),
            }
        }
        // One that has its right name by now counts.
        files.elsewhere.retain(|(base, _)| !files.bases.contains(base));
        for part in names.iter().filter_map(|entry| file_names::parse_part_file(&entry.name)) {
            let displaced = file_names::displaced_segment(names.iter().map(|entry| entry.name.as_str()), part);
            if let (false, Some(cut)) = (named.contains(&part), displaced) {
                files.elsewhere.push((part, cut.to_owned()));
            }
        }
        files.bases.extend(files.elsewhere.iter().map(|(base, _)| *base));
        files.bases = sorted(files.bases);
        files.bases.dedup();
        files
    }

    /// What the file is called that holds the segment at `base`, where that is not its own name.
    pub(crate) fn elsewhere(&self, base: Offset) -> Option<&str> {
        self.elsewhere.iter().find(|(other, _)| *other == base).map(|(_, name)| name.as_str())
    }

    /// The first segment whose file, seen under another name, stands there no more, or has been taken out of the log:
    /// the copy that was in the making has its name now.
    pub(crate) fn first_moved(&self, storage: &dyn Storage, dir: &str) -> Option<Offset> {
        let is_there = |path: &str| storage.metadata(path).is_ok();
        let has_moved = |base: Offset, name: &str| {
            let is_cut = file_names::parse_cut_file(name).is_some();
            is_cut && is_there(&file_names::log_file(dir, base)) || !is_there(&format!("{dir}/{name}"))
        };
        self.elsewhere.iter().filter(|(base, name)| has_moved(*base, name)).map(|(base, _)| *base).min()
    }

    /// The file that holds the segment at `base`, which is in the directory `dir`.
    pub(crate) fn path(&self, dir: &str, base: Offset) -> String {
        self.elsewhere(base).map_or_else(|| file_names::log_file(dir, base), |name| format!("{dir}/{name}"))
    }

    /// Where the segment behind the one at `base` begins; `Offset::MAX` where there is none.
    pub(crate) fn base_after(&self, base: Offset) -> Offset {
        self.bases.iter().find(|&&other| other > base).copied().unwrap_or(Offset::MAX)
    }
}

/// How a file begins.
struct Head {
    name: Offset,
    /// By its first batch.
    base: Offset,
    header: [u8; HEADER_LEN],
}

impl Head {
    /// `None` where nothing that is a batch by its length stands there, or the file cannot be read.
    fn read(storage: &dyn Storage, dir: &str, name: Offset) -> Option<Head> {
        let mut header = [0; HEADER_LEN];
        let file = storage.open(&file_names::log_file(dir, name), Access::Read).ok()?;
        let is_batch = file.read_at(&mut header, 0).ok()? == HEADER_LEN && RecordBatch::peek_size(&header).is_ok();
        let (base, _) = RecordBatch::peek_place(&header).filter(|(base, _)| is_batch && *base >= 0)?;
        Some(Head { name, base, header })
    }

    /// Of two files that begin at the same offset, the one to have the place: by its name, or else the first.
    fn goes_before(&self, other: &Head) -> bool {
        self.base == other.base && self.name != other.name && (self.name == self.base || self.name < other.name)
    }

    /// The same batch, but for its epoch field.
    fn is_of_same_batch(&self, other: &Head) -> bool {
        self.header[..12] == other.header[..12] && self.header[16..] == other.header[16..]
    }
}

/// Where the first batch of the file at `path` ends, and where the one behind it begins; `None` where it does not hold.
fn first_batches(storage: &dyn Storage, path: &str) -> Option<(Offset, Option<Offset>)> {
    let mut headers = HeaderWalk::open(storage, path).ok()?;
    let next_offset = headers.next().filter(|first| first.verify_crc().is_ok())?.next_offset();
    Some((next_offset, headers.next().map(|second| second.base_offset())))
}

/// Whether some offsets are held by `one` and not by the `other`.
fn holds_more_than(one: &Held, other: &Held) -> bool {
    one.ranges.iter().any(|&range| !left_of(range, &other.ranges).is_empty())
}

/// Whether a batch of the file at `path` begins at `offset` or behind.
fn reaches(storage: &dyn Storage, path: &str, offset: Offset) -> bool {
    let Ok(mut headers) = HeaderWalk::open(storage, path) else { return false };
    while let Some(batch) = headers.next() {
        if batch.base_offset() >= offset {
            return true;
        }
    }
    false
}

/// Whether a name may be wrong among the files that are called by `names` (ascending), of a log that starts at `start`
/// and whose recovery point stands in the segment `point`, by looking at those from that one on alone: opening does not
/// grow with the log.
pub(crate) fn are_suspect(storage: &dyn Storage, dir: &str, names: &[Offset], start: Offset, point: Offset) -> bool {
    let is_missing = names.first().is_some_and(|&first| first > start) || names.binary_search(&point).is_err();
    let from_point = names.iter().filter(|&&name| name >= point);
    is_missing || from_point.filter_map(|&name| Head::read(storage, dir, name)).any(|head| head.base != head.name)
}

/// Of the files in `dir` that are called by `names`, those whose names are not those of the segments that they hold.
/// The log starts at `start`; `contiguous` is a log without holes.
pub(crate) fn misnamed(
    storage: &dyn Storage,
    dir: &str,
    names: &[Offset],
    contiguous: bool,
    start: Offset,
) -> Vec<Misnamed> {
    let heads: Vec<Head> = names.iter().filter_map(|&name| Head::read(storage, dir, name)).collect();
    let path = |name: Offset| file_names::log_file(dir, name);
    let mut found: Vec<Misnamed> = Vec::new();
    for head in heads.iter().filter(|head| head.base != head.name) {
        let Some((next_offset, second)) = first_batches(storage, &path(head.name)) else { continue };
        let (name, base) = (head.name, head.base);
        let held = |file: Offset| {
            let first = heads.iter().find(|head| head.name == file).map_or(base, |head| head.base);
            Held::read(storage, &path(file), Some(first), 0).unwrap_or_default()
        };
        let may_have_holes = base > name && !contiguous;
        let next_base = heads.iter().map(|other| other.base).filter(|&other| other > base).min();
        let twin = heads.iter().find(|other| other.goes_before(head) && other.is_of_same_batch(head));
        // Another file that has the place, by what it holds or by its name.
        let is_wrong = |name: Offset| found.iter().any(|known| known.name == name);
        let is_elsewhere = heads.iter().any(|other| other.name == base && other.base != base);
        let named_so = names.contains(&base) && !is_elsewhere && !is_wrong(base);
        let rival = twin.map(|twin| twin.name).or_else(|| named_so.then_some(base));
        if twin.is_none() {
            let before = heads.iter().filter(|other| other.base < base).max_by_key(|other| other.base);
            let reached = before.map_or(start, |before| held(before.name).span().map_or(before.base, |(_, next)| next));
            // Segments of a log with holes may overlap, and no batch begins where the next segment is to begin.
            let is_reached = || match before {
                Some(before) if !contiguous => reaches(storage, &path(before.name), name),
                _ => reached > name,
            };
            let goes_on = second.is_some_and(|second| {
                second == next_offset || second > next_offset && !contiguous && (second < name || may_have_holes)
            });
            // Of a file whose second batch is where the name says, the first one's base offset is what is wrong.
            let is_named_right = base < name && second.is_some_and(|second| second >= name);
            let follows = goes_on || reached == base && !is_named_right;
            if !(follows && (base < name || is_reached())) {
                continue;
            }
        }
        let Some(rival) = rival else {
            found.push(Misnamed { name, base, is_copy: false });
            continue;
        };
        if twin.is_none() && heads.iter().any(|other| other.name == rival && other.base == base) {
            // Two batches say the same offset: one of them is damaged in that field, and no file is a copy.
            continue;
        }
        let (own, other) = (held(name), held(rival));
        let holds_more = holds_more_than(&own, &other);
        // A sealed segment never grows: a file that has all of it, and what it misses, is better than the original.
        let is_sealed = next_base.is_some_and(|next| own.span().is_some_and(|(_, end)| end <= next));
        let is_better = holds_more && is_sealed && !holds_more_than(&other, &own) && !is_wrong(rival);
        if is_better {
            found.push(Misnamed { name: rival, base, is_copy: true });
        } else if holds_more {
            // What it holds stands nowhere else: it is no copy.
            continue;
        }
        found.push(Misnamed { name, base, is_copy: !is_better });
    }
    // A name that two files claim, or that a segment has rightly, is given to none: each keeps its own.
    loop {
        let before = found.clone();
        let is_wrong = |name: Offset| before.iter().any(|file| file.name == name);
        let claims = |base: Offset| before.iter().filter(|file| !file.is_copy && file.base == base).count();
        let is_free = |base: Offset| (!names.contains(&base) || is_wrong(base)) && claims(base) == 1;
        found.retain(|file| file.is_copy || is_free(file.base));
        if found.len() == before.len() {
            return found;
        }
    }
}

/// Renames the file that has the name of the segment at `base` to a `.cut` name that no file has.
pub(crate) fn set_aside(storage: &dyn Storage, dir: &str, base: Offset, epoch: LeaderEpoch) -> Result<()> {
    let path = file_names::log_file(dir, base);
    let names = (epoch.0..).map(|epoch| file_names::cut_file(dir, base, Position(0), LeaderEpoch(epoch)));
    let mut free = names.take(CUT_NAMES_MAX).filter(|name| storage.metadata(name).is_err());
    let kept = free.next().ok_or_else(|| Error::storage("keep aside", &path)(ErrorKind::AlreadyExists.into()))?;
    storage.rename(&path, &kept).map_err(Error::storage("keep aside", &path))
}

/// Gives the files that `misnamed` found the names of their segments; returns from which name to which.
///
/// After a stop in between, some have their right names, and the others are found once more: no order of renames hides
/// a segment.
///
/// # Durability
/// On return, the names are on the disk.
pub(crate) fn put_names_right(
    storage: &dyn Storage,
    dir: &str,
    names: &[Offset],
    misnamed: &[Misnamed],
) -> Result<Vec<(String, String)>> {
    let mut taken = names.to_vec();
    let mut left: Vec<Misnamed> = misnamed.to_vec();
    let mut done = Vec::new();
    let rename = |from: Offset, to: Offset| {
        let (from, to) = (file_names::log_file(dir, from), file_names::log_file(dir, to));
        storage.rename(&from, &to).map_err(Error::storage("put in place", &from))
    };
    for (at, &Misnamed { name, base, .. }) in misnamed.iter().enumerate().filter(|(_, file)| !file.is_copy) {
        if taken.contains(&base) && Head::read(storage, dir, base).is_none() {
            // Nothing in it contradicts a name: under another one it would be a segment.
            set_aside(storage, dir, base, LeaderEpoch(0))?;
        } else if taken.contains(&base) {
            // What has the name is misnamed itself: it goes to a name that no file has, and that is as wrong.
            let free =
                (1..=1 + taken.len() as i64).map(|step| base.saturating_add(step)).find(|free| !taken.contains(free));
            let free = free.unwrap_or(base);
            rename(base, free)?;
            taken.push(free);
            left.iter_mut().filter(|other| other.name == base).for_each(|other| other.name = free);
        }
        rename(left[at].name, base)?;
        taken.retain(|taken| *taken != left[at].name);
        taken.push(base);
        done.push((file_names::log_file(dir, name), file_names::log_file(dir, base)));
    }
    if !done.is_empty() {
        storage.sync_dir(dir).map_err(Error::storage("sync directory", dir))?;
    }
    Ok(done)
}
