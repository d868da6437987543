//! Retention holds: who still needs records, and from which offset on.
//!
//! A holder is a program that reads logs at its own pace and must not lose what it has not read: the bridge, and each
//! group of consumers. Each keeps one small file, `edgelog.HOLDER.hold`, of two slots (see `storage::small_file`, which
//! has the fields that all such files share): the bridge next to the logs, a group in its own directory
//! (`groups/NAME/edgelog.group.hold`). A holder may be another process than the one
//! that writes; its file is all that the writer knows of it. What a holder still needs is not deleted for its age.
//! (`retention.bytes` still counts: it keeps a device that is never connected again from filling its disk.)
//!
//! | off | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `EDGEHOLD` |
//! | 16 | 2 | format version, 1 |
//! | 18 | 6 | zero |
//! | 40 | 16 | zero |
//! | 56 | 4 | number of logs |
//! | 60 | 4 | length of the topics, in bytes |
//! | 64 | ... | the logs, then the topics |
//!
//! A log: name length u16, name; identity 16 (zeros: nothing of the log was read yet); offset i64, the first one that
//! is
//! still needed; length u32 and bytes of the holder's own, which no other program reads.
//!
//! The topics are names and patterns between commas. A log of theirs that is not among the logs is held from its
//! beginning: it was created after the holder wrote its file, which may be weeks away from its cluster. Kafka's own
//! topics, which begin with `__`, are none of them.
//!
//! A file without a valid slot holds every log from its beginning: what was read of it is not known.
//!
//! # The bridge's note of earlier versions
//!
//! `edgelog.bridge.0` and `edgelog.bridge.1` count as long as there is no `edgelog.bridge.hold`. Of the two, the newer
//! valid one counts. Each is text (see `storage::framed`), with a line for each log of ten fields between tabs, `-` for
//! what there is not:
//!
//! ```text
//! LOG TARGET PARTITION DONE META INTENT META PRODUCER EPOCH FIRST
//! ```
//!
//! `DONE` is the offset that is to be sent next, and its `META` names the log's identity (`log=`, 32 hexadecimal
//! digits).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use edgelog_core::{LogId, Offset};

use crate::canary::Bug;
use crate::error::{Error, Result};
use crate::log::{Log, TopicPartition};
use crate::sorted::sorted;
use crate::storage::framed::{read_whole, unframe};
use crate::storage::small_file::{HEADER_LEN, Slot, SlotForm, SlotMutants, TwoSlot, read_slots, u32_at};
use crate::storage::{DirEntry, Storage};
use crate::store::topic::topic_matches;

/// The holder that the bridge is.
pub(crate) const BRIDGE: &str = "bridge";
/// The holder that a group of consumers is, in its own directory.
pub(crate) const GROUP: &str = "group";
/// Where the groups of consumers have their directories.
pub(crate) const GROUPS_DIR: &str = "groups";
/// What the name of a group's directory ends with while it is being deleted. No group's directory has such a name.
pub(crate) const DELETED_GROUP_SUFFIX: &str = "%delete";
/// The bridge's note of earlier versions.
pub(crate) const OLD_NOTE_FILES: [&str; 2] = ["edgelog.bridge.0", "edgelog.bridge.1"];
/// An old note beyond this is none: 10,000 logs with the longest names stay below.
const OLD_NOTE_BYTES_MAX: u64 = 16 << 20;
/// Fields of a line of the old note.
pub(crate) const OLD_NOTE_FIELDS: usize = 10;
const MAGIC: &[u8; 8] = b"EDGEHOLD";
const VERSION: u16 = 1;
/// Room of a slot, so that a full disk does not stop a holder of usual size.
const SLOT_BYTES_MIN: usize = 16 << 10;
const GROUP_SLOT_BYTES_MIN: usize = 4 << 10;

/// What a holder keeps of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldLog {
    /// Of the log that the offset is one of; zeros where nothing of it was read.
    pub(crate) log_id: LogId,
    /// The first offset that the holder still needs.
    pub(crate) offset: Offset,
    /// The holder's own.
    pub(crate) own: Vec<u8>,
}

pub(crate) type HeldLogs = BTreeMap<TopicPartition, HeldLog>;

/// What a holder's file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) logs: HeldLogs,
    /// A log of these topics that is not among `logs` yet is held from its beginning.
    pub(crate) topics: Vec<String>,
}

/// Whether these names and patterns have the topic. Kafka's own are none of them.
pub(crate) fn covers(topics: &[String], topic: &str) -> bool {
    !topic.starts_with("__") && topics.iter().any(|pattern| topic_matches(pattern, topic))
}

/// What a holder left.
#[derive(Debug)]
pub(crate) enum Stored<T> {
    Nothing,
    /// A file is there, and cannot be read.
    Damaged,
    Whole(T),
}

/// From where on one log is kept at any age, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionHold {
    /// Who needs the records: `bridge`, or `group NAME`.
    pub holder: String,
    /// The first offset that is still needed.
    pub offset: Offset,
}

/// From where on each log is kept at any age. See [`Store::retention_holds`](crate::Store::retention_holds).
#[derive(Debug, Default)]
pub struct RetentionHolds {
    /// By holder; `None` where its file cannot be read.
    holders: Vec<(String, Option<Held>)>,
    /// Files that cannot be read, and why.
    pub(crate) unreadable: Vec<(String, String)>,
}

impl RetentionHolds {
    /// What the holders' files say now. The one reader of them, for retention and for people.
    ///
    /// # Errors
    /// Those of the disk, and of a file that is none: nothing is deleted where it is not known what is needed.
    pub(crate) fn read(storage: &dyn Storage) -> Result<RetentionHolds> {
        RetentionHolds::read_with(storage, Err)
    }

    /// The same, to be shown: a holder whose file is none, or cannot be opened, is one that needs everything.
    ///
    /// # Errors
    /// That of listing the data directory.
    pub(crate) fn read_leniently(storage: &dyn Storage) -> Result<RetentionHolds> {
        RetentionHolds::read_with(storage, |error| match error {
            Error::Storage { source, .. } => Ok(source.to_string()),
            error => Err(error),
        })
    }

    /// `forgive` says for an error of a single file why that cannot be read.
    fn read_with(storage: &dyn Storage, forgive: impl Fn(Error) -> Result<String>) -> Result<RetentionHolds> {
        let names = storage.read_dir("").map_err(Error::storage("list", "."))?;
        let (mut holders, mut unreadable) = (Vec::new(), Vec::new());
        let damaged = || "it is damaged, or of a newer version".to_owned();
        for holder in names.iter().filter(|entry| !entry.is_dir).filter_map(|entry| holder_of(&entry.name)) {
            let logs = match read_holder(storage, holder) {
                Ok(Stored::Whole(logs)) => Ok(logs),
                Ok(Stored::Nothing) => continue,
                Ok(Stored::Damaged) | Err(Error::UnsupportedVersion { .. }) => Err(damaged()),
                Err(error) => Err(forgive(error)?),
            };
            let logs = logs.map_err(|reason| unreadable.push((file_of(holder), reason))).ok();
            holders.push((holder.to_owned(), logs));
        }
        for group in names_of_groups(storage)? {
            let form = form_in(&format!("{GROUPS_DIR}/{group}/"), GROUP);
            let logs = match read_form(storage, &form) {
                Ok(Stored::Whole(logs)) => Ok(logs),
                Ok(Stored::Nothing) => continue,
                Ok(Stored::Damaged) | Err(Error::UnsupportedVersion { .. }) => Err(damaged()),
                Err(error) => Err(forgive(error)?),
            };
            let logs = logs.map_err(|reason| unreadable.push((form.file, reason))).ok();
            holders.push((format!("{GROUP} {group}"), logs));
        }
        if !holders.iter().any(|(holder, _)| holder == BRIDGE) {
            let logs = match read_old_note(storage) {
                Ok(Stored::Nothing) => return Ok(RetentionHolds { holders, unreadable }),
                Ok(Stored::Whole(lines)) => {
                    let logs = lines.iter().map(|line| parse_old_line(line)).collect::<Option<_>>();
                    logs.map(|logs| Held { logs, topics: Vec::new() }).ok_or_else(damaged)
                }
                Ok(Stored::Damaged) => Err(damaged()),
                Err(error) => Err(forgive(error)?),
            };
            let logs = logs.map_err(|reason| unreadable.push((OLD_NOTE_FILES[0].to_owned(), reason))).ok();
            holders.push((BRIDGE.to_owned(), logs));
        }
        // Groups are in order already, and what else holds is little.
        let mut ordered: Vec<(String, Option<Held>)> = Vec::with_capacity(holders.len());
        for holder in holders {
            ordered.insert(ordered.partition_point(|before| before.0 < holder.0), holder);
        }
        Ok(RetentionHolds { holders: ordered, unreadable })
    }

    /// Who keeps records of this log, and from which offset on. Empty where no holder does.
    pub fn of(&self, log: &Log) -> Vec<RetentionHold> {
        self.of_log(log.name(), log.id()).collect()
    }

    fn of_log<'a>(&'a self, log: &'a TopicPartition, id: LogId) -> impl Iterator<Item = RetentionHold> + 'a {
        self.holders.iter().filter_map(move |(holder, logs)| {
            let offset = match logs {
                None => Offset(0),
                Some(held) => match held.logs.get(log) {
                    Some(held) if held.log_id == id => held.offset,
                    // Of the log that had this name before: nothing of this one was read.
                    Some(_) => Offset(0),
                    None if covers(&held.topics, &log.topic) => Offset(0),
                    None => return None,
                },
            };
            Some(RetentionHold { holder: holder.clone(), offset })
        })
    }

    /// The first offset of this log that is not to be deleted for its age; `None` where no holder needs one.
    pub(crate) fn held_from(&self, log: &TopicPartition, id: LogId) -> Option<Offset> {
        self.of_log(log, id).map(|hold| hold.offset).min()
    }
}

fn file_of(holder: &str) -> String {
    format!("edgelog.{holder}.hold")
}

/// The holder whose file has this name.
fn holder_of(file: &str) -> Option<&str> {
    let holder = file.strip_prefix("edgelog.")?.strip_suffix(".hold")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!holder.is_empty() && holder.bytes().all(is_plain)).then_some(holder)
}

/// The directories of groups, by their names.
///
/// # Errors
/// Those of the disk.
pub(crate) fn names_of_groups(storage: &dyn Storage) -> Result<Vec<String>> {
    let entries = match storage.read_dir(GROUPS_DIR) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::storage("list", GROUPS_DIR)(error)),
    };
    let is_group = |entry: &DirEntry| entry.is_dir && !entry.name.ends_with(DELETED_GROUP_SUFFIX);
    Ok(sorted(entries.into_iter().filter(is_group).map(|entry| entry.name).collect()))
}

fn form(holder: &str) -> SlotForm {
    form_in("", holder)
}

/// Of the holder's file in the directory `dir`, which ends in a slash.
fn form_in(dir: &str, holder: &str) -> SlotForm {
    let mutants = SlotMutants {
        overwrite_the_holding_slot: Bug::OverwriteTheHoldingNote,
        trust_the_cached_slot: Bug::TrustTheCachedNote,
        leave_it_unflushed: Bug::LeaveTheNoteUnflushed,
    };
    // There may be thousands of groups, each with a few logs.
    let slot_bytes_min = if holder == GROUP { GROUP_SLOT_BYTES_MIN } else { SLOT_BYTES_MIN };
    SlotForm { file: format!("{dir}{}", file_of(holder)), magic: MAGIC, version: VERSION, slot_bytes_min, mutants }
}

/// What a holder's file says.
///
/// # Errors
/// Those of the disk, and [`Error::UnsupportedVersion`].
pub(crate) fn read_holder(storage: &dyn Storage, holder: &str) -> Result<Stored<Held>> {
    read_form(storage, &form(holder))
}

fn read_form(storage: &dyn Storage, form: &SlotForm) -> Result<Stored<Held>> {
    let mut found = read_slots(storage, form)?;
    while let Some(at) = found.newest() {
        if let Some(logs) = found.both[at].as_ref().and_then(decode) {
            return Ok(Stored::Whole(logs));
        }
        found.both[at] = None;
    }
    Ok(if found.exists { Stored::Damaged } else { Stored::Nothing })
}

/// What a slot says; `None` where its fields do not fill it.
fn decode(slot: &Slot) -> Option<Held> {
    let mut rest = slot.payload();
    let mut take = |len: usize| {
        let (taken, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(taken)
    };
    let mut logs = HeldLogs::new();
    for _ in 0..u32_at(slot.header(), 56) {
        let len = u16::from_be_bytes(take(2)?.try_into().ok()?);
        let name = TopicPartition::parse_dir(std::str::from_utf8(take(len.into())?).ok()?)?;
        let log_id = LogId::from_bytes(take(16)?.try_into().ok()?);
        let offset = Offset(i64::from_be_bytes(take(8)?.try_into().ok()?));
        let len = u32::from_be_bytes(take(4)?.try_into().ok()?);
        let own = take(len as usize)?.to_vec();
        logs.insert(name, HeldLog { log_id, offset, own });
    }
    let topics = std::str::from_utf8(take(u32_at(slot.header(), 60) as usize)?).ok()?;
    let topics = topics.split(',').filter(|topic| !topic.is_empty()).map(str::to_owned).collect();
    Some(Held { logs, topics })
}

/// A holder's file, open for writing.
#[derive(Debug)]
pub(crate) struct HolderFile {
    slots: TwoSlot,
    encoded: Vec<u8>,
}

impl HolderFile {
    /// Opens the file, or prepares to create it.
    ///
    /// # Errors
    /// Those of the disk, and [`Error::UnsupportedVersion`].
    pub(crate) fn open(storage: &Arc<dyn Storage>, holder: &str) -> Result<HolderFile> {
        assert!(holder_of(&file_of(holder)) == Some(holder), "the name of a holder: {holder}");
        let found = read_slots(&**storage, &form(holder))?;
        let mut slots = TwoSlot::open(storage, form(holder), &found);
        // A process before this one may have died of a flush that failed.
        slots.doubt();
        Ok(HolderFile { slots, encoded: Vec::new() })
    }

    /// Writes what the holder needs from now on. Durable on return.
    ///
    /// # Errors
    /// Those of the disk; what was written before still counts.
    pub(crate) fn write(&mut self, logs: &HeldLogs, topics: &[String]) -> Result<()> {
        let out = &mut self.encoded;
        out.clear();
        out.resize(HEADER_LEN, 0);
        let topics = topics.join(",");
        out[56..60].copy_from_slice(&(logs.len() as u32).to_be_bytes());
        out[60..64].copy_from_slice(&(topics.len() as u32).to_be_bytes());
        for (name, held) in logs {
            let name = name.to_string();
            out.extend_from_slice(&(name.len() as u16).to_be_bytes());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&held.log_id.to_bytes());
            out.extend_from_slice(&held.offset.0.to_be_bytes());
            out.extend_from_slice(&(held.own.len() as u32).to_be_bytes());
            out.extend_from_slice(&held.own);
        }
        out.extend_from_slice(topics.as_bytes());
        self.slots.write(out)
    }
}

/// The lines of the bridge's note of earlier versions.
///
/// # Errors
/// Those of the disk.
pub(crate) fn read_old_note(storage: &dyn Storage) -> Result<Stored<Vec<String>>> {
    let (mut newest, mut exists) = (None, false);
    for file in OLD_NOTE_FILES {
        let bytes = match read_whole(storage, file, OLD_NOTE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::storage("read", file)(error)),
        };
        exists = true;
        let Some((sequence, body)) = unframe(&bytes) else { continue };
        if newest.as_ref().is_none_or(|(before, _)| sequence > *before) {
            newest = Some((sequence, body.lines().map(str::to_owned).collect()));
        }
    }
    Ok(match newest {
        Some((_, lines)) => Stored::Whole(lines),
        None if exists => Stored::Damaged,
        None => Stored::Nothing,
    })
}

/// The fields of one line of the old note.
pub(crate) fn old_fields_of(line: &str) -> Option<[&str; OLD_NOTE_FIELDS]> {
    let mut fields = line.split('\t');
    let mut found = [""; OLD_NOTE_FIELDS];
    for field in &mut found {
        *field = fields.next()?;
    }
    fields.next().is_none().then_some(found)
}

fn parse_old_line(line: &str) -> Option<(TopicPartition, HeldLog)> {
    let [log, _, _, done, meta, ..] = old_fields_of(line)?;
    let (log_id, offset) = if done == "-" {
        (LogId::ZERO, 0)
    } else {
        (LogId::from_hex(meta.split(' ').find_map(|word| word.strip_prefix("log="))?)?, done.parse().ok()?)
    };
    Some((log.parse().ok()?, HeldLog { log_id, offset: Offset(offset), own: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::framed::frame;
    use crate::storage::tests::flip_a_byte;
    use crate::storage::{Access, MemoryStorage};
    use crate::{NewRecord, NewTopic, Store};
    use edgelog_core::TimestampMs;

    const DAY_MS: i64 = 86_400_000;
    const NOW: i64 = 1_700_000_000_000;

    /// A line of the old note.
    fn old_line(log: &str, done: Option<Offset>, id: LogId) -> String {
        match done {
            Some(done) => format!("{log}\tr\t0\t{done}\tedgelog/1 log={id:x} epoch=0 crc=0 topic=0\t-\t-\t-\t-\t-\n"),
            None => format!("{log}\tr\t0\t-\t-\t-\t-\t-\t-\t-\n"),
        }
    }

    fn put(storage: &MemoryStorage, name: &str, bytes: &[u8]) {
        let _ = storage.remove_file(name);
        storage.open(name, Access::CreateNew).unwrap().write_at(bytes, 0).unwrap();
    }

    fn hold(storage: &MemoryStorage, holder: &str, log: &str, offset: Offset, id: LogId) {
        let storage: Arc<dyn Storage> = Arc::new(storage.clone());
        let held = HeldLog { log_id: id, offset, own: b"own".to_vec() };
        let logs = HeldLogs::from([(log.parse().unwrap(), held)]);
        HolderFile::open(&storage, holder).unwrap().write(&logs, &[]).unwrap();
    }

    /// A store whose log `t-0` has a segment for each of 20 old records, and `retention.ms` of a day.
    fn old_log(storage: &MemoryStorage, more: &[(&str, &str)]) -> (Store, Log) {
        let options = Store::options().set("edgelog.housekeeping", "tick").unwrap();
        let store = options.open_on(storage.clone()).unwrap();
        let topic = NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", &DAY_MS.to_string());
        store.create_topic(&more.iter().fold(topic, |topic, (key, value)| topic.config(key, value))).unwrap();
        let log = store.log("t", 0).unwrap();
        for _ in 0..20 {
            log.append(NewRecord::value(&[7; 2500]).with_timestamp(TimestampMs(NOW - 2 * DAY_MS))).unwrap();
        }
        (store, log)
    }

    fn start_after_retention(store: &Store, log: &Log, now: i64) -> Offset {
        store.tick(TimestampMs(now)).unwrap();
        log.offsets().log_start_offset
    }

    fn hold_of(holder: &str, offset: Offset) -> RetentionHold {
        RetentionHold { holder: holder.to_owned(), offset }
    }

    #[test]
    fn what_a_holder_needs_is_not_deleted_for_its_age() {
        let storage = MemoryStorage::new();
        let (store, log) = old_log(&storage, &[]);
        assert_eq!((log.held_from().unwrap(), store.retention_holds().unwrap().of(&log)), (None, Vec::new()));
        hold(&storage, "bridge", "t-0", Offset(0), LogId::ZERO);
        assert_eq!(start_after_retention(&store, &log, NOW), 0, "nothing was read");
        hold(&storage, "bridge", "t-0", Offset(7), log.id());
        hold(&storage, "other", "t-0", Offset(9), log.id());
        assert_eq!(log.held_from().unwrap(), Some(Offset(7)));
        let holds = store.retention_holds().unwrap();
        assert_eq!(holds.of(&log), [hold_of("bridge", Offset(7)), hold_of("other", Offset(9))]);
        assert_eq!(start_after_retention(&store, &log, NOW + DAY_MS), 7);
        // Of the log that had this name before.
        hold(&storage, "bridge", "t-0", Offset(15), LogId::from_bytes([1; 16]));
        assert_eq!(log.held_from().unwrap(), Some(Offset(0)));
        storage.remove_file("edgelog.bridge.hold").unwrap();
        assert_eq!(start_after_retention(&store, &log, NOW + 2 * DAY_MS), 9);
        storage.remove_file("edgelog.other.hold").unwrap();
        assert_eq!(start_after_retention(&store, &log, NOW + 3 * DAY_MS), 19);
    }

    #[test]
    fn a_log_that_a_holder_does_not_know_yet_is_held_where_it_is_of_its_topics() {
        let storage = MemoryStorage::new();
        let (store, log) = old_log(&storage, &[]);
        let write = |topics: &[&str]| {
            let (storage, topics): (Arc<dyn Storage>, Vec<_>) =
                (Arc::new(storage.clone()), topics.iter().map(|topic| (*topic).to_owned()).collect());
            HolderFile::open(&storage, BRIDGE).unwrap().write(&HeldLogs::new(), &topics).unwrap();
            assert!(matches!(read_holder(&*storage, BRIDGE).unwrap(), Stored::Whole(held) if held.topics == topics));
        };
        write(&["u", "t*"]);
        assert_eq!(store.retention_holds().unwrap().of(&log), [hold_of("bridge", Offset(0))]);
        assert_eq!(start_after_retention(&store, &log, NOW), 0);
        assert!(!covers(&["*".to_owned()], "__consumer_offsets"));
        write(&["u"]);
        assert_eq!(start_after_retention(&store, &log, NOW + DAY_MS), 19);
    }

    #[test]
    fn retention_by_size_goes_on_and_other_logs_are_not_held() {
        let storage = MemoryStorage::new();
        let (store, log) = old_log(&storage, &[("retention.bytes", "25000")]);
        hold(&storage, "bridge", "t-0", Offset(2), log.id());
        let start = start_after_retention(&store, &log, NOW);
        assert!((9..12).contains(&start.0), "{start}");
        hold(&storage, "bridge", "u-0", Offset(0), LogId::from_bytes([1; 16]));
        assert_eq!(start_after_retention(&store, &log, NOW + DAY_MS), 19);
    }

    #[test]
    fn a_file_that_cannot_be_read_holds_everything() {
        let storage = MemoryStorage::new();
        let (store, log) = old_log(&storage, &[]);
        put(&storage, "edgelog.group-a.hold", b"EDGEHOLD");
        assert_eq!(store.retention_holds().unwrap().of(&log), [hold_of("group-a", Offset(0))]);
        assert_eq!(start_after_retention(&store, &log, NOW), 0);
        // One slot is damaged: the other counts. A newer version holds everything.
        hold(&storage, "bridge", "t-0", Offset(3), log.id());
        put(&storage, "edgelog.group-a.hold", b"");
        storage.remove_file("edgelog.group-a.hold").unwrap();
        let file = storage.open("edgelog.bridge.hold", Access::Write).unwrap();
        flip_a_byte(&*file, 70);
        assert_eq!(log.held_from().unwrap(), Some(Offset(3)));
        flip_a_byte(&*file, SLOT_BYTES_MIN as u64 + 70);
        assert_eq!(log.held_from().unwrap(), Some(Offset(0)));
        // Files of other names hold nothing.
        storage.remove_file("edgelog.bridge.hold").unwrap();
        for name in ["edgelog..hold", "edgelog.a.b.hold", "edgelog.bridge.hold.part", "bridge.hold"] {
            put(&storage, name, b"");
        }
        assert_eq!(start_after_retention(&store, &log, NOW + DAY_MS), 19);
    }

    #[test]
    fn the_note_of_earlier_versions_goes_on_protecting_until_there_is_the_new_file() {
        let storage = MemoryStorage::new();
        let (store, log) = old_log(&storage, &[]);
        put(&storage, OLD_NOTE_FILES[0], frame(1, &old_line("t-0", None, log.id())).as_bytes());
        assert_eq!(start_after_retention(&store, &log, NOW), 0, "nothing was delivered");
        put(&storage, OLD_NOTE_FILES[1], frame(2, &old_line("t-0", Some(Offset(7)), log.id())).as_bytes());
        assert_eq!(store.retention_holds().unwrap().of(&log), [hold_of("bridge", Offset(7))]);
        assert_eq!(start_after_retention(&store, &log, NOW + DAY_MS), 7);
        hold(&storage, "bridge", "t-0", Offset(11), log.id());
        assert_eq!(log.held_from().unwrap(), Some(Offset(11)));
        storage.remove_file("edgelog.bridge.hold").unwrap();
        // What cannot be read holds everything.
        storage.remove_file(OLD_NOTE_FILES[0]).unwrap();
        let whole = frame(1, &old_line("t-0", Some(Offset(19)), log.id()));
        for text in [&whole[..whole.len() - 1], "edgelog-bridge 2 of a newer version\n", "", &frame(1, "t-0\t-\n")] {
            put(&storage, OLD_NOTE_FILES[1], text.as_bytes());
            assert_eq!(log.held_from().unwrap(), Some(Offset(0)), "{text:?}");
        }
        put(&storage, OLD_NOTE_FILES[0], whole.as_bytes());
        assert_eq!(start_after_retention(&store, &log, NOW + 2 * DAY_MS), 19, "the other file is whole");
    }

    #[test]
    fn a_read_error_keeps_what_is_old_for_another_round() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let file = storage.open(OLD_NOTE_FILES[0], Access::CreateNew).unwrap();
        file.reserve(OLD_NOTE_BYTES_MAX + 1).unwrap();
        assert!(matches!(RetentionHolds::read(&*storage), Err(Error::Storage { .. })));
    }
}
