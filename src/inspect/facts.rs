//! What the tools know of a store and its logs before they look at a batch: names, checkpoint, configuration.

use std::sync::Arc;
use std::time::Duration;

use edgelog_core::{EpochTable, LogConfig, Offset, Position};

use super::pause;
use crate::error::{Error, Result};
use crate::log::{Believed, Origin, SavedLog, TopicPartition, believed, is_written_here, wrong_names};
use crate::segment::file_names;
use crate::segment::walk::WalkRules;
use crate::segment::{Misnamed, NamedEnds, SegmentFiles};
pub(super) use crate::storage::framed::read_whole;
use crate::storage::{DirEntry, Storage, StorageFile};
use crate::store::checkpoint::{self, Checkpoint, Found};
use crate::store::{PARTITIONS_MAX, is_partition, read_config};

/// A slot that is being written is looked at again so often.
const SLOT_LOOKS: usize = 4;
const SLOT_PAUSE: Duration = Duration::from_millis(5);

/// Which logs are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Selection {
    /// Only this topic.
    pub topic: Option<String>,
    /// Only this partition of it.
    pub partition: Option<u32>,
}

impl Selection {
    /// Every log of the store.
    pub fn all() -> Selection {
        Selection::default()
    }

    /// All partitions of one topic.
    pub fn topic(topic: impl Into<String>) -> Selection {
        Selection { topic: Some(topic.into()), partition: None }
    }

    /// One partition.
    pub fn partition(topic: impl Into<String>, partition: u32) -> Selection {
        Selection { topic: Some(topic.into()), partition: Some(partition) }
    }

    /// What `name` means in the store on `storage`: a topic with all of its partitions, or `topic-partition`; where
    /// there is a topic of the whole name, that one.
    ///
    /// # Errors
    /// [`Error::UnknownTopicOrPartition`], [`Error::Storage`].
    pub fn find(storage: &Arc<dyn Storage>, name: &str) -> Result<Selection> {
        let mut logs = list_logs(&**storage)?.0;
        let known = StoreFacts::read(&**storage)?.newest.unwrap_or_default().logs;
        logs.extend(known.into_keys());
        if logs.iter().any(|log| log.topic == name) {
            return Ok(Selection::topic(name));
        }
        match TopicPartition::parse_dir(name).filter(|log| logs.contains(log)) {
            Some(log) => Ok(Selection::partition(log.topic, log.partition)),
            None => Err(Error::UnknownTopicOrPartition { name: name.to_owned() }),
        }
    }

    /// The logs of the store that are meant, in order: those that are there, and those that the checkpoint knows.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn logs(&self, storage: &Arc<dyn Storage>) -> Result<Vec<TopicPartition>> {
        let mut logs = list_logs(&**storage)?.0;
        logs.extend(StoreFacts::read(&**storage)?.newest.unwrap_or_default().logs.into_keys());
        logs.retain(|name| self.matches(name));
        logs.sort_unstable();
        logs.dedup();
        Ok(logs)
    }

    /// Whether `name` is meant.
    pub fn matches(&self, name: &TopicPartition) -> bool {
        self.topic.as_ref().is_none_or(|topic| *topic == name.topic)
            && self.partition.is_none_or(|partition| partition == name.partition)
    }
}

/// The checkpoint file as it is.
#[derive(Debug, Default)]
pub(super) struct StoreFacts {
    /// The file exists.
    pub(super) exists: bool,
    /// Which of its two slots are valid.
    pub(super) valid: [bool; 2],
    /// Both are valid and say the same.
    pub(super) agree: bool,
    /// The newer of the valid ones.
    pub(super) newest: Option<Checkpoint>,
    /// What was taken out of it: the log, and what the checkpoint said of it.
    pub(super) odd: Vec<(String, String)>,
    /// Why the file could not be read, where it could not.
    pub(super) unreadable: Option<String>,
}

impl StoreFacts {
    /// Reads the checkpoint; where a slot does not hold it may be in the making, and is looked at again.
    pub(super) fn read(storage: &dyn Storage) -> Result<StoreFacts> {
        let mut facts = StoreFacts::read_once(storage)?;
        for _ in 1..SLOT_LOOKS {
            if !facts.exists || facts.valid == [true, true] {
                break;
            }
            pause(SLOT_PAUSE);
            facts = StoreFacts::read_once(storage)?;
        }
        Ok(facts)
    }

    fn read_once(storage: &dyn Storage) -> Result<StoreFacts> {
        match checkpoint::read(storage) {
            Ok(Found { exists, valid, newest, agree, odd }) => {
                Ok(StoreFacts { exists, valid, agree, newest, odd, unreadable: None })
            }
            Err(Error::Storage { source, .. }) => {
                Ok(StoreFacts { exists: true, unreadable: Some(source.to_string()), ..StoreFacts::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// The store was closed cleanly, as far as the checkpoint says.
    pub(super) fn clean(&self) -> bool {
        self.agree && self.newest.as_ref().is_some_and(|checkpoint| checkpoint.clean)
    }

    pub(super) fn saved(&self, name: &TopicPartition) -> Option<&SavedLog> {
        self.newest.as_ref()?.logs.get(name)
    }
}

/// What is known of one log.
#[derive(Debug, Clone)]
pub(super) struct LogFacts {
    pub(super) name: TopicPartition,
    pub(super) dir: Arc<str>,
    /// What the checkpoint says of the log, as far as the segments bear it out.
    pub(super) saved: Option<SavedLog>,
    /// And what they do not.
    pub(super) doubts: Vec<String>,
    /// See [`Believed::unbroken_from`].
    pub(super) unbroken_from: Offset,
    /// See [`SavedLog::far_end`].
    pub(super) far_end: Option<Position>,
    /// As the checkpoint says, or, where none knows the log, what it holds.
    pub(super) origin: Origin,
    pub(super) epochs: EpochTable,
    pub(super) config: LogConfig,
    /// The checkpoint cannot be read, so that nothing opens the store.
    pub(super) is_shut: bool,
    /// The store's clean mark stands.
    pub(super) clean: bool,
    /// Which slots of the checkpoint hold: where both do, no newer one was lost.
    pub(super) slots: [bool; 2],
    /// The writer was stopped in this boot: all that was appended is in the page cache, and a crash of the writer tears
    /// the last append at most. Nothing is appended behind the end that a clean close has noted.
    pub(super) stopped_in_this_boot: bool,
}

impl LogFacts {
    pub(super) fn new(storage: &dyn Storage, name: &TopicPartition, store: &StoreFacts) -> LogFacts {
        // As the engine: what the segments do not bear out is not believed.
        let bases: Vec<Offset> = Listing::read(storage, &name.to_string(), store.saved(name), false)
            .map(|listing| listing.segments.iter().map(|(base, _)| *base).collect())
            .unwrap_or_default();
        let far_end = store.saved(name).and_then(SavedLog::far_end);
        let Believed { saved, doubts, unbroken_from } = believed(store.saved(name), storage, &name.to_string(), &bases);
        let epochs = saved.as_ref().map(|saved| saved.epochs.clone()).unwrap_or_default();
        let dir = name.to_string();
        let origin = match &saved {
            Some(saved) => saved.origin,
            None if is_written_here(storage, &dir, &bases) => Origin::Own,
            None => Origin::Imported,
        };
        let mut config = LogConfig::default();
        let first = TopicPartition::new(name.topic.as_str(), 0).to_string();
        for (key, value) in read_config(storage, &first).unwrap_or_default() {
            // What the engine does not take either leaves the default in force.
            let _ = config.set(&key, &value);
        }
        LogFacts {
            name: name.clone(),
            dir: dir.into(),
            slots: store.valid,
            far_end,
            origin,
            epochs: EpochTable::from_entries(epochs).unwrap_or_default(),
            clean: store.clean() && saved.is_some() && doubts.is_empty(),
            is_shut: store.unreadable.is_some(),
            saved,
            doubts,
            unbroken_from,
            config,
            stopped_in_this_boot: !store.clean()
                && store.newest.as_ref().is_some_and(|newest| is_boot(storage, newest.boot_id)),
        }
    }

    /// Base offsets are contiguous.
    pub(super) fn contiguous(&self) -> bool {
        self.origin == Origin::Own
    }

    /// The recovery point, by the checkpoint or by the names of the segments: everything below was durable. `None`
    /// where no checkpoint knows the log.
    pub(super) fn recovery_point(&self) -> Option<Offset> {
        self.saved.as_ref().map(|saved| saved.durable.offset)
    }

    /// Whether more than names says where the log ends: no checkpoint knows it, or its writer was stopped in this boot.
    pub(super) fn is_end_in_doubt(&self) -> bool {
        self.saved.is_none() || self.stopped_in_this_boot
    }

    pub(super) fn log_start(&self) -> Offset {
        self.saved.as_ref().map_or(Offset(0), |saved| saved.log_start_offset)
    }

    /// The files of `segments`, each with what its batches are held to.
    pub(super) fn files<'s>(
        &'s self,
        storage: &'s dyn Storage,
        segments: &'s [(Offset, String)],
    ) -> impl Iterator<Item = (String, WalkRules)> + 's {
        segments.iter().enumerate().map(move |(at, (base, path))| {
            let upper = segments.get(at + 1).map(|(next, _)| *next);
            (path.clone(), self.walk_rules(storage, *base, upper))
        })
    }

    /// What the batches of the segment at `base` are held to; `upper`: where the next segment begins.
    pub(super) fn walk_rules(&self, storage: &dyn Storage, base: Offset, upper: Option<Offset>) -> WalkRules {
        let named_ends = match self.origin {
            Origin::Own => NamedEnds::NONE,
            Origin::Imported => NamedEnds::read(storage, &self.dir, base, upper.is_none()),
        };
        WalkRules {
            unbroken_from: self.unbroken_from,
            named_ends,
            first_offset: Some(base),
            contiguous: self.contiguous(),
            offset_end: upper.unwrap_or(Offset::MAX),
            durable_below: self.recovery_point().unwrap_or(Offset(0)),
            durable_position: self.saved.as_ref().map_or(0, |saved| saved.durable.position_in(base)),
        }
    }
}

/// Whether `boot_id` is the boot that the machine is in, where the storage knows it.
fn is_boot(storage: &dyn Storage, boot_id: [u8; 16]) -> bool {
    boot_id == storage.boot_id() && boot_id != [0; 16]
}

/// The names in a partition directory, sorted by what they are.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Base offsets with the file that holds the segment (a `.cut` one where putting it back was cut short, or one with
    /// a wrong name).
    pub(super) segments: Vec<(Offset, String)>,
    pub(super) parts: Vec<String>,
    pub(super) cuts: Vec<String>,
    pub(super) orphans: Vec<String>,
    pub(super) prepared: bool,
    /// Segments that Kafka's log cleaner has written and not yet put in place, with their base offsets.
    pub(super) swaps: Vec<(Offset, String)>,
    /// Segments that stand under their `.cut` name.
    pub(super) displaced: Vec<String>,
    /// Files whose names are wrong.
    pub(super) misnamed: Vec<Misnamed>,
}

impl Listing {
    /// As the names in `dir` say it, and the first batches of the files that have wrong ones. See [`wrong_names`].
    pub(super) fn read(
        storage: &dyn Storage,
        dir: &str,
        saved: Option<&SavedLog>,
        looks_at_all: bool,
    ) -> Result<Listing> {
        let wrong = |names: &[Offset]| wrong_names(storage, dir, names, saved, looks_at_all);
        Listing::with(storage, dir, wrong)
    }

    /// As the names in `dir` say it.
    pub(super) fn by_names(storage: &dyn Storage, dir: &str) -> Result<Listing> {
        Listing::with(storage, dir, |_| Vec::new())
    }

    fn with(storage: &dyn Storage, dir: &str, wrong: impl Fn(&[Offset]) -> Vec<Misnamed>) -> Result<Listing> {
        let names = storage.read_dir(dir).map_err(Error::storage("list", dir))?;
        // As the engine: a directory in place of a segment is a segment that cannot be opened.
        let is_listed = |entry: &DirEntry| !entry.is_dir || file_names::parse_log_file(&entry.name).is_some();
        let names: Vec<DirEntry> = names.into_iter().filter(is_listed).collect();
        let misnamed = wrong(&SegmentFiles::new(&names, &[]).bases);
        let files = SegmentFiles::new(&names, &misnamed);
        let segments = files.bases.iter().map(|&base| (base, files.path(dir, base))).collect();
        let mut listing = Listing { segments, misnamed, ..Listing::default() };
        let is_cut = |path: &&String| path.rsplit('/').next().and_then(file_names::parse_cut_file).is_some();
        listing.displaced = listing.segments.iter().map(|(_, path)| path).filter(is_cut).cloned().collect();
        for name in names.iter().map(|entry| entry.name.as_str()) {
            let path = || format!("{dir}/{name}");
            if file_names::parse_part_file(name).is_some() {
                listing.parts.push(path());
            } else if file_names::parse_cut_file(name).is_some() {
                listing.cuts.push(path());
            } else if name == file_names::PREPARED {
                listing.prepared = true;
            } else if let Some(base) = file_names::parse_swap_file(name) {
                listing.swaps.push((base, path()));
            }
        }
        for name in names.iter().map(|entry| entry.name.as_str()) {
            let base = file_names::parse_index_file(name);
            if base.is_some_and(|base| listing.segments.iter().all(|(other, _)| *other != base)) {
                listing.orphans.push(format!("{dir}/{name}"));
            }
        }
        listing.cuts.sort_unstable();
        listing.swaps.sort_unstable();
        Ok(listing)
    }
}

/// The logs of a store: its partition directories, sorted; and all names at its top.
pub(super) fn list_logs(storage: &dyn Storage) -> Result<(Vec<TopicPartition>, Vec<DirEntry>)> {
    let names = storage.read_dir("").map_err(Error::storage("list", "."))?;
    let directories = names.iter().filter(|entry| entry.is_dir);
    let mut logs: Vec<_> = directories.filter_map(|entry| TopicPartition::parse_dir(&entry.name)).collect();
    // As the engine: a name alone makes no log.
    logs.retain(|name| name.partition < PARTITIONS_MAX && is_partition(storage, &name.to_string()));
    logs.sort_unstable();
    Ok((logs, names))
}

/// How many bytes at the start of a `.cut` file are in the log still. Recovery keeps valid batches aside by renaming
/// the whole segment, of which the log goes on with a copy up to the position in the new name; all else is a copy of
/// what stood from that position on. The whole segment is recognised by its first batch, which has the offset that
/// names it.
pub(super) fn kept_before(file: &dyn StorageFile, len: u64, path: &str) -> Result<u64> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let position = file_names::cut_file_position(name).map_or(0, u64::from);
    let mut first = [0; 8];
    let read = file.read_at(&mut first, 0).map_err(Error::storage("read", path))?;
    let is_whole = read == first.len()
        && file_names::parse_cut_file(name) == Some(Offset(i64::from_be_bytes(first)))
        && position <= len;
    Ok(if is_whole { position } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Access, MemoryStorage};
    use edgelog_core::LeaderEpoch;

    /// A recovery that was cut between its two renames left the segment under its newest `.cut` name; the older one,
    /// first by name, is the tail of an earlier recovery, and putting that in place would lose the segment.
    #[test]
    fn of_several_cut_files_the_newest_stands_for_its_segment() {
        let storage = MemoryStorage::new();
        storage.create_dir("t-0").unwrap();
        let segment = file_names::cut_file("t-0", Offset(7), Position(50), LeaderEpoch(10));
        let older = file_names::cut_file("t-0", Offset(7), Position(4096), LeaderEpoch(9));
        let others = [
            file_names::cut_file("t-0", Offset(7), Position(60), LeaderEpoch(2)),
            file_names::cut_file("t-0", Offset(8), Position(0), LeaderEpoch(11)),
        ];
        for path in [&segment, &older, &others[0], &others[1], &file_names::part_file("t-0", Offset(7))] {
            storage.open(path, Access::CreateNew).unwrap();
        }
        let listing = Listing::by_names(&storage, "t-0").unwrap();
        assert_eq!(listing.displaced, std::slice::from_ref(&segment));
        assert_eq!(listing.segments, [(Offset(7), segment)]);
    }
}
