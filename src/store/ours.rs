//! Which directories are this store's: what an open takes for a log, and what it may remove.
//!
//! A name is no proof. Other programs have directories that end in a number, and a broker deletes as this store does,
//! by a name that ends in `-delete`. An open removes a directory only where the checkpoint, or an
//! `edgelog.properties` in it, says that it is ours. All else that looks like a log stays where it is, and the report
//! names it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use edgelog_core::LogId;

use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::log::{SavedLog, TopicPartition};
use crate::segment::file_names::{self, OWN_FILE, parse_log_file};
use crate::sorted::sorted;
use crate::storage::{DirEntry, LEADS_NOWHERE, Storage, StorageLock};

use super::checkpoint;
use super::settings::{Marker, read_marker};

/// What the name of a directory ends with while it is being deleted, as in Kafka.
const DELETE_SUFFIX: &str = "-delete";
/// An unfinished creation has left no larger file than this.
const CREATED_BYTES_MAX: u64 = 64 << 10;

/// What an unfinished creation or deletion left, and what only looks so.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// Partitions under their own names that are to go.
    pub(crate) unfinished: Vec<TopicPartition>,
    /// Directories that are being deleted, and the partitions that they were.
    pub(crate) deleted: Vec<(String, TopicPartition)>,
    /// Directories that have a name like ours and are not ours, and why they stay.
    pub(crate) left: Vec<(String, String)>,
    /// The partitions of `unfinished` and `deleted` of which no log stays: the checkpoint has to forget them.
    pub(crate) gone: BTreeSet<TopicPartition>,
    /// Topics of which nothing stays, where what was cut short is their deletion: they had records, or the checkpoint
    /// knows them. A creation that was cut short has neither.
    pub(crate) finished_deletions: Vec<String>,
}

/// Looks over the names of a data directory.
pub(crate) fn survey(
    storage: &dyn Storage,
    names: &[DirEntry],
    known: &BTreeMap<TopicPartition, SavedLog>,
) -> Leftovers {
    let mut found = Leftovers::default();
    let mut partitions = BTreeSet::new();
    let mut markers = BTreeMap::new();
    for entry in names.iter().filter(|entry| entry.is_dir) {
        if deleted_partition(&entry.name).is_some() {
            let marker = read_marker(storage, &entry.name).ok().flatten();
            if is_cleared(storage, &entry.name) {
                let why = "it looks like a log that is being deleted, and holds nothing of a log";
                found.left.push((entry.name.clone(), why.to_owned()));
            } else if let Some(name) = deleted_by_us(storage, &entry.name, marker.as_ref(), known) {
                markers.extend(marker.map(|marker| (name.clone(), marker.creation)));
                found.deleted.push((entry.name.clone(), name));
            } else {
                let why = "it looks like a log that is being deleted, and not by this store";
                found.left.push((entry.name.clone(), why.to_owned()));
            }
        } else if let Some(name) = TopicPartition::parse_dir(&entry.name) {
            partitions.insert(name);
        }
    }
    let mut away = BTreeSet::new();
    for entry in names.iter().filter(|entry| !entry.is_dir && storage.leads_nowhere(&entry.name)) {
        let name = TopicPartition::parse_dir(&entry.name);
        // A file may have any name; a link, or what is known to be a log, leads to one that is away.
        if let Some(name) = name.filter(|name| known.contains_key(name) || storage.is_link(&entry.name)) {
            partitions.insert(name.clone());
            away.insert(name);
        }
    }
    for name in &partitions {
        let first = TopicPartition::new(name.topic.as_str(), 0);
        let is_orphan = name.partition > 0 && !partitions.contains(&first);
        let first_deleted = found.deleted.iter().any(|(_, deleted)| *deleted == first);
        if away.contains(name) {
            if !known.contains_key(name) {
                found.left.push((name.to_string(), LEADS_NOWHERE.to_owned()));
            }
        } else if is_orphan && is_unfinished(storage, name, known, first_deleted, markers.get(&first)) {
            found.unfinished.push(name.clone());
        } else if !known.contains_key(name) && !is_partition(storage, &name.to_string()) {
            let why = "it has a name like a partition's, and holds no log";
            let why = only_swap(storage, &name.to_string()).unwrap_or_else(|| why.to_owned());
            found.left.push((name.to_string(), why));
        }
    }
    found.judge(storage, partitions, known);
    found
}

impl Leftovers {
    /// Judges what is no more once the leftovers are removed. `partitions` are the directories that have a partition's
    /// own name.
    fn judge(
        &mut self,
        storage: &dyn Storage,
        mut partitions: BTreeSet<TopicPartition>,
        known: &BTreeMap<TopicPartition, SavedLog>,
    ) {
        if self.unfinished.is_empty() && self.deleted.is_empty() {
            return;
        }
        // A topic may have been created again while files of the deleted one are left.
        for name in &self.unfinished {
            partitions.remove(name);
        }
        let stays = |name: &TopicPartition| {
            let dir = name.to_string();
            partitions.contains(name) && (is_partition(storage, &dir) || storage.leads_nowhere(&dir))
        };
        let is_known = |topic: &str| {
            let mut from = known.range(TopicPartition::new(topic, 0)..);
            from.next().is_some_and(|(name, _)| name.topic == topic)
        };
        // In the order of the partitions.
        let topics_staying: Vec<&str> =
            partitions.iter().filter(|name| stays(name)).map(|name| name.topic.as_str()).collect();
        let mut finished = BTreeSet::new();
        let own_names = self.unfinished.iter().map(|name| (name.to_string(), name));
        for (dir, name) in self.deleted.iter().map(|(dir, name)| (dir.clone(), name)).chain(own_names) {
            if !stays(name) {
                self.gone.insert(name.clone());
            }
            let is_deletion = is_known(&name.topic) || has_records(storage, &dir);
            if is_deletion && topics_staying.binary_search(&name.topic.as_str()).is_err() {
                finished.insert(name.topic.clone());
            }
        }
        self.finished_deletions = finished.into_iter().collect();
    }
}

/// The partitions whose directories have more than one name, those of one directory together.
pub(crate) fn shared_directories(storage: &dyn Storage, logs: &[TopicPartition]) -> Vec<Vec<TopicPartition>> {
    let ids = logs.iter().filter_map(|name| Some((storage.directory_id(&name.to_string())?, name)));
    let ids = sorted(ids.collect());
    let shared = ids.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1);
    shared.map(|same| same.iter().map(|&(_, name)| name.clone()).collect()).collect()
}

/// The other names of a partition's directory.
pub(crate) fn others_of(shared: &[Vec<TopicPartition>], name: &TopicPartition) -> Vec<TopicPartition> {
    let its = shared.iter().filter(|names| names.contains(name));
    its.flatten().filter(|&other| other != name).cloned().collect()
}

/// Takes a partition's directory for writing: the lock of one that stands elsewhere, behind a link. `others` are the
/// partitions of this store that have the same directory.
///
/// # Errors
/// Why it is not written here: another store writes it, or it is another partition's; and where its link leads to no
/// directory.
pub(crate) fn claim(
    storage: &dyn Storage,
    name: &TopicPartition,
    others: &[TopicPartition],
) -> Result<Option<Box<dyn StorageLock>>> {
    let dir = name.to_string();
    let refused = |why: String| Error::storage("open", &dir)(io::Error::other(why));
    if storage.leads_nowhere(&dir) {
        return Err(refused(LEADS_NOWHERE.to_owned()));
    }
    if let Some(other) = others.first().filter(|_| !is_owner(storage, name, others)) {
        return Err(refused(format!("it is the directory of {other}, too, and one log alone writes a directory")));
    }
    storage.lock_linked(&dir, checkpoint::FILE).map_err(Error::storage("open", &dir))
}

/// Whether the directory that `name` shares with `others` is its own: that of the one name that is no link, else of the
/// one that the file in it says.
fn is_owner(storage: &dyn Storage, name: &TopicPartition, others: &[TopicPartition]) -> bool {
    let is_link = |name: &TopicPartition| storage.is_link(&name.to_string());
    match (is_link(name), others.iter().all(is_link)) {
        (false, true) => true,
        (true, true) => matches!(read_marker(storage, &name.to_string()), Ok(Some(marker)) if marker.name == *name),
        _ => false,
    }
}

/// Whether a segment in the directory `dir` has any bytes.
fn has_records(storage: &dyn Storage, dir: &str) -> bool {
    let files = storage.read_dir(dir).unwrap_or_default();
    let mut segments = files.iter().filter(|file| parse_log_file(&file.name).is_some());
    segments.any(|file| storage.metadata(&format!("{dir}/{}", file.name)).is_ok_and(|meta| meta.len > 0))
}

/// Whether the directory `dir` is a log by what it holds: a segment, or the file that edgelog puts into each. What a
/// link leads to has to hold that file: it may be another program's, and is not written for its name.
pub(crate) fn is_partition(storage: &dyn Storage, dir: &str) -> bool {
    let files = storage.read_dir(dir).unwrap_or_default();
    let may_be_copied = !storage.is_link(dir);
    let is_segment = |file: &DirEntry| may_be_copied && parse_log_file(&file.name).is_some();
    files.iter().any(|file| !file.is_dir && (file.name == OWN_FILE || is_segment(file)))
}

/// The partition that the directory of `name` was made for, where that is another one: it was renamed, or copied.
pub(crate) fn made_for_another(storage: &dyn Storage, name: &TopicPartition) -> Option<TopicPartition> {
    let marker = read_marker(storage, &name.to_string()).ok().flatten()?;
    Some(marker.name).filter(|made_for| made_for != name)
}

/// Whether the directory `dir` holds something, and nothing of a log: it is not removed under any name.
fn is_cleared(storage: &dyn Storage, dir: &str) -> bool {
    let files = storage.read_dir(dir).unwrap_or_default();
    !files.is_empty() && !files.iter().any(|file| !file.is_dir && file_names::is_of_log(&file.name))
}

/// What there is to say of a directory that holds no segment, but one that Kafka's log cleaner did not put in place.
pub(crate) fn only_swap(storage: &dyn Storage, dir: &str) -> Option<String> {
    let files = storage.read_dir(dir).ok()?;
    let is_swap = |file: &&DirEntry| file_names::parse_swap_file(&file.name).is_some();
    let swap = files.iter().filter(is_swap).map(|file| file.name.as_str()).min()?;
    let segment = swap.trim_end_matches(".swap");
    (!is_partition(storage, dir)).then(|| {
        format!(
            "it holds no segment, but {swap}, which Kafka's log cleaner left: rename it to {segment} to have its \
             records"
        )
    })
}

/// Which partition this store is deleting under the name `dir`; `None` where nothing proves that it is this store that
/// does.
fn deleted_by_us(
    storage: &dyn Storage,
    dir: &str,
    marker: Option<&Marker>,
    known: &BTreeMap<TopicPartition, SavedLog>,
) -> Option<TopicPartition> {
    if bug(Bug::DeleteByName) {
        return deleted_partition(dir);
    }
    let by_marker = marker.map(|marker| &marker.name).filter(|name| is_deleted(dir, name));
    // A name that was cut short says by its hash which of the topics that there were it stands for.
    if let Some(name) = by_marker.or_else(|| known.keys().find(|name| is_deleted(dir, name))) {
        return Some(name.clone());
    }
    // A creation begins under such a name, too, and may not have come to its first whole file.
    let short = deleted_partition(dir).filter(|short| is_deleted(dir, short))?;
    let files = storage.read_dir(dir).ok()?;
    let is_begun = |file: &DirEntry| {
        let is_own = [OWN_FILE, file_names::TOPIC_CONFIG].contains(&file.name.trim_end_matches(".part"));
        let is_small =
            || storage.metadata(&format!("{dir}/{}", file.name)).is_ok_and(|meta| meta.len <= CREATED_BYTES_MAX);
        !file.is_dir && is_own && is_small()
    };
    files.iter().all(is_begun).then_some(short)
}

/// A partition whose topic has no partition 0: because the topic's deletion was cut short, or because its creation was,
/// and nothing was ever appended.
fn is_unfinished(
    storage: &dyn Storage,
    name: &TopicPartition,
    known: &BTreeMap<TopicPartition, SavedLog>,
    first_deleted: bool,
    creation: Option<&String>,
) -> bool {
    let dir = name.to_string();
    let marker = read_marker(storage, &dir).ok().flatten().filter(|marker| marker.name == *name);
    let is_ours = marker.is_some() || bug(Bug::DeleteByName);
    if first_deleted {
        // Those of an older version were marked one by one.
        let same_creation = |marker: &Marker| {
            marker.creation.is_empty() || creation.is_none_or(|creation| *creation == marker.creation)
        };
        if marker.as_ref().map_or_else(|| known.contains_key(name), same_creation) || bug(Bug::DeleteByName) {
            return true;
        }
        // The topic was being created again while files of the deleted one were left.
    }
    let files = storage.read_dir(&dir).unwrap_or_default();
    let mut segments = files.iter().filter_map(|file| Some((parse_log_file(&file.name)?, &file.name)));
    is_ours
        && segments.all(|(base_offset, file)| {
            base_offset == 0 && storage.metadata(&format!("{dir}/{file}")).is_ok_and(|meta| meta.len == 0)
        })
}

/// Removes a partition's directory with the files of its log. Files that no log has stay, and the directory with them.
/// Of a link, what it leads to is removed as well, and the link alone where that is not proven to be the partition's,
/// or is in use by others.
///
/// The file that proves the directory to be ours goes last, and for good only after the others: a power cut leaves a
/// directory that the next open removes.
pub(super) fn remove_partition(storage: &dyn Storage, dir: &str, name: &TopicPartition) -> Result<()> {
    let _lock = match take_to_remove(storage, dir, name) {
        Ok(lock) => lock,
        Err(reason) => {
            tracing::warn!(dir, %name, reason, "the link is removed, and what it leads to stays");
            return storage.remove_file(dir).map_err(Error::storage("remove", dir));
        }
    };
    let remove = |name: &str| {
        let path = format!("{dir}/{name}");
        storage.remove_file(&path).map_err(Error::storage("remove", &path))
    };
    let files = storage.read_dir(dir).map_err(Error::storage("list", dir))?;
    let (of_log, others): (Vec<_>, Vec<_>) =
        files.iter().partition(|file| !file.is_dir && file_names::is_of_log(&file.name));
    for file in of_log.iter().filter(|file| file.name != OWN_FILE) {
        remove(&file.name)?;
    }
    if of_log.iter().any(|file| file.name == OWN_FILE) {
        storage.sync_dir(dir).map_err(Error::storage("sync directory", dir))?;
        remove(OWN_FILE)?;
    }
    if others.is_empty() {
        return storage.remove_dir(dir).map_err(Error::storage("remove directory", dir));
    }
    let others: Vec<&str> = others.iter().map(|file| file.name.as_str()).take(8).collect();
    tracing::warn!(dir, ?others, "a deleted log's directory holds files that are not the log's: they stay");
    Ok(())
}

/// The lock of what the link `dir` leads to, and that is to be removed as the partition `name`; `None` where it is no
/// link. An error says why it is not to be removed.
fn take_to_remove(
    storage: &dyn Storage,
    dir: &str,
    name: &TopicPartition,
) -> std::result::Result<Option<Box<dyn StorageLock>>, String> {
    if !storage.is_link(dir) {
        return Ok(None);
    }
    if storage.leads_nowhere(dir) {
        return Err(LEADS_NOWHERE.to_owned());
    }
    match read_marker(storage, dir) {
        Ok(Some(marker)) if marker.name == *name => {}
        Ok(Some(marker)) => return Err(format!("it leads to a directory of {}", marker.name)),
        Ok(None) => return Err(format!("it leads to a directory without {OWN_FILE}")),
        Err(error) => return Err(format!("it leads to a directory whose {OWN_FILE} cannot be used: {error}")),
    }
    let id = storage.directory_id(dir);
    let names = storage.read_dir("").map_err(|error| error.to_string())?;
    let is_same = |other: &&DirEntry| other.is_dir && other.name != dir && storage.directory_id(&other.name) == id;
    if let Some(other) = names.iter().find(is_same) {
        return Err(format!("it leads to the same directory as {}", other.name));
    }
    storage.lock_linked(dir, checkpoint::FILE).map_err(|error| error.to_string())
}

/// The partition whose directory is being deleted under the name `dir`; the topic's name may be cut short.
fn deleted_partition(dir: &str) -> Option<TopicPartition> {
    let (name, _) = dir.strip_suffix(DELETE_SUFFIX)?.rsplit_once('.')?;
    TopicPartition::parse_dir(name)
}

/// Whether `dir` is a name that this store gives to `name` while it is being deleted.
fn is_deleted(dir: &str, name: &TopicPartition) -> bool {
    let Some(short) = deleted_partition(dir).filter(|short| short.partition == name.partition) else { return false };
    let id = dir.trim_end_matches(DELETE_SUFFIX).rsplit('.').next().unwrap_or_default();
    name.topic.starts_with(&short.topic) && id.len() == 16 && id.starts_with(&hash_of(name))
}

/// Eight digits that differ for topics whose names begin alike.
fn hash_of(name: &TopicPartition) -> String {
    format!("{:08x}", crc32fast::hash(name.topic.as_bytes()))
}

/// The name of a partition's directory while it is deleted: as in Kafka, the topic's name is cut where it would
/// get too long. Half of the sixteen digits are the whole name's hash, the others are `random`.
pub(super) fn deleted_name(name: &TopicPartition, random: LogId) -> String {
    const NAME_LEN_MAX: usize = 255;
    let suffix = format!("-{}.{}{}{DELETE_SUFFIX}", name.partition, hash_of(name), &format!("{random:x}")[..8]);
    let topic = &name.topic[..name.topic.len().min(NAME_LEN_MAX - suffix.len())];
    format!("{topic}{suffix}")
}

/// Whether `dir` is a name that a log has while it is being deleted.
pub(super) fn is_deleted_name(dir: &str) -> bool {
    deleted_partition(dir).is_some()
}
