//! The files that keep a topic's settings, and that prove a directory to be this store's.
//!
//! `topic.properties` in partition 0 has the topic's own keys, `key=value` a line, for people to read and to edit.
//! `edgelog.properties` stands in every partition that edgelog made: it names the partition, and in partition 0 it is
//! the second copy of the keys. A creation writes both under a name that the next open removes, so a topic never shows
//! without them; a change writes the copy first, and counts when `topic.properties` has its new content. Each file is
//! replaced as a whole, so a power cut leaves the old keys or the new ones, and a file that is lost or torn is written
//! again from the other one.
//!
//! Where neither file can be used, it is not known what was to be kept: retention then deletes nothing of the topic.

use std::fmt::Write as _;
use std::io;

use crate::error::Result;
use crate::log::TopicPartition;
use crate::log::{ORIGIN_CREATED, ORIGIN_KEY};
use crate::segment::file_names::{OWN_FILE, TOPIC_CONFIG};
use crate::storage::pairs::{Pairs, PairsFile, read_pairs, replace_pairs};
use crate::storage::{Access, Storage};

/// Stands in the data directory once every topic has its settings in two files: one that has none has lost them.
pub(super) const RECORDED_FILE: &str = "edgelog.recorded";
const TOPIC: &str = "marker.topic";
const PARTITION: &str = "marker.partition";
const CREATION: &str = "marker.creation";
const SETTINGS: &str = "marker.settings";

/// Keys and their values.
pub(super) type Overrides = Pairs;

/// What `edgelog.properties` of one partition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) name: TopicPartition,
    /// The same in all partitions of one creation, and in no others; empty where an older version made the partition.
    pub(super) creation: String,
    /// The log was empty when its directory was made: every record in it was appended here.
    pub(super) is_created: bool,
    /// The topic's keys; `None` where they were not known, and in all partitions but the first.
    pub(super) settings: Option<Overrides>,
}

/// A topic's settings, as far as its files hold them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Settings {
    /// The keys, and whether both files hold them.
    Known {
        /// The keys.
        overrides: Overrides,
        /// Which file is to be written again, and why.
        heal: Option<(&'static str, String)>,
    },
    /// There is no such file: the topic was copied here, or is older than the files.
    Absent,
    /// What there is cannot be used.
    Damaged(String),
}

/// The settings in a topic's first partition, `dir`.
pub(super) fn read_settings(storage: &dyn Storage, dir: &str) -> Settings {
    let marker = read_marker(storage, dir);
    let copy = match &marker {
        Ok(marker) => marker.as_ref().and_then(|marker| marker.settings.clone()),
        Err(_) => None,
    };
    let trouble = match read_pairs(storage, &format!("{dir}/{TOPIC_CONFIG}")) {
        Ok(Some(file)) if file.is_sound() => {
            let heal = match (&marker, &copy) {
                (Err(error), _) => Some((OWN_FILE, format!("it was damaged ({error})"))),
                (Ok(_), Some(copy)) if *copy == file.pairs => None,
                (Ok(_), Some(_)) => Some((OWN_FILE, "it had other keys".to_owned())),
                (Ok(_), None) => Some((OWN_FILE, "it was missing".to_owned())),
            };
            return Settings::Known { overrides: file.pairs, heal };
        }
        Ok(Some(file)) if !file.ended && !file.pairs.is_empty() => {
            "it was torn (its last line does not end with a line feed)".to_owned()
        }
        Ok(Some(_)) => "it holds no settings".to_owned(),
        Ok(None) => "it was missing".to_owned(),
        Err(error) => format!("it was damaged ({error})"),
    };
    match (copy, marker) {
        (Some(overrides), _) => Settings::Known { overrides, heal: Some((TOPIC_CONFIG, trouble)) },
        (None, Err(error)) => Settings::Damaged(format!("{TOPIC_CONFIG}: {trouble}; {OWN_FILE}: {error}")),
        (None, Ok(_)) if trouble == "it was missing" => Settings::Absent,
        (None, Ok(_)) => Settings::Damaged(format!("{TOPIC_CONFIG}: {trouble}")),
    }
}

/// What `edgelog.properties` of the partition directory `dir` says; `None` where there is none.
///
/// # Errors
/// `InvalidData` where the file is not whole; else those of reading it.
pub(super) fn read_marker(storage: &dyn Storage, dir: &str) -> io::Result<Option<Marker>> {
    let Some(PairsFile { mut pairs, checked, .. }) = read_pairs(storage, &format!("{dir}/{OWN_FILE}"))? else {
        return Ok(None);
    };
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if !checked {
        return Err(invalid("it has no checksum"));
    }
    let mut take = |key: &str| pairs.remove(key).ok_or_else(|| invalid(&format!("it has no {key}")));
    let (topic, partition, creation) = (take(TOPIC)?, take(PARTITION)?, take(CREATION)?);
    let partition = partition.parse().map_err(|_| invalid("it names no partition"))?;
    let is_created = pairs.remove(ORIGIN_KEY).is_some_and(|origin| origin == ORIGIN_CREATED);
    let has_settings = pairs.remove(SETTINGS).is_some();
    let settings = has_settings.then_some(pairs);
    Ok(Some(Marker { name: TopicPartition::new(topic, partition), creation, is_created, settings }))
}

/// Writes `edgelog.properties` in the directory `dir`. Durable on return, as is every name in the directory.
pub(super) fn write_marker(storage: &dyn Storage, dir: &str, marker: &Marker) -> Result<()> {
    let mut lines = String::new();
    let name = &marker.name;
    let _ = writeln!(lines, "{TOPIC}={}\n{PARTITION}={}\n{CREATION}={}", name.topic, name.partition, marker.creation);
    if marker.is_created {
        let _ = writeln!(lines, "{ORIGIN_KEY}={ORIGIN_CREATED}");
    }
    if let Some(settings) = &marker.settings {
        let _ = writeln!(lines, "{SETTINGS}=known");
        push_pairs(&mut lines, settings);
    }
    replace_pairs(storage, &format!("{dir}/{OWN_FILE}"), &lines)
}

/// Writes `topic.properties` in the directory `dir`. Durable on return, as is every name in the directory.
pub(super) fn write_settings(storage: &dyn Storage, dir: &str, overrides: &Overrides) -> Result<()> {
    let mut lines = String::new();
    push_pairs(&mut lines, overrides);
    replace_pairs(storage, &format!("{dir}/{TOPIC_CONFIG}"), &lines)
}

fn push_pairs(lines: &mut String, pairs: &Overrides) {
    for (key, value) in pairs {
        lines.extend([key, "=", value, "\n"]);
    }
}

/// The keys that a topic's files hold, for tools that look at its first partition, `dir`; none where there are none.
///
/// # Errors
/// `InvalidData` where neither file can be used.
pub(crate) fn read_config(storage: &dyn Storage, dir: &str) -> io::Result<Pairs> {
    match read_settings(storage, dir) {
        Settings::Known { overrides, .. } => Ok(overrides),
        Settings::Absent => Ok(Overrides::new()),
        Settings::Damaged(reason) => Err(io::Error::new(io::ErrorKind::InvalidData, reason)),
    }
}

/// Whether a directory has the name of a file of settings: no file takes its place, and it stays as it is.
pub(crate) fn is_in_the_way(storage: &dyn Storage, path: &str) -> bool {
    storage.open(path, Access::Read).is_err_and(|error| error.kind() == io::ErrorKind::IsADirectory)
}

/// Which of the files in a topic's first partition, `dir`, the next open writes again, and why.
pub(crate) fn settings_to_heal(storage: &dyn Storage, dir: &str) -> Option<(&'static str, String)> {
    match read_settings(storage, dir) {
        // The copy follows what a person or an older version wrote, and that is no damage.
        Settings::Known { heal, .. } => heal.filter(|(file, why)| *file == TOPIC_CONFIG || why.contains("damaged")),
        _ => None,
    }
}

/// Whether the topic whose first partition is `dir` had settings, and has none any more.
/// `is_recorded`: the checkpoint says that every topic has its settings in two files.
pub(crate) fn are_settings_lost(storage: &dyn Storage, dir: &str, is_recorded: bool) -> bool {
    (is_recorded || storage.metadata(RECORDED_FILE).is_ok()) && read_settings(storage, dir) == Settings::Absent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn put(storage: &MemoryStorage, name: &str, text: &[u8]) {
        let path = format!("t-0/{name}");
        let _ = storage.remove_file(&path);
        storage.open(&path, Access::CreateNew).unwrap().write_at(text, 0).unwrap();
    }

    fn bytes(storage: &MemoryStorage, name: &str) -> Vec<u8> {
        let file = storage.open(&format!("t-0/{name}"), Access::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn written() -> (MemoryStorage, Overrides) {
        let storage = MemoryStorage::new();
        storage.create_dir("t-0").unwrap();
        let overrides = Overrides::from([("retention.ms".to_owned(), "-1".to_owned())]);
        let name = TopicPartition::new("t", 0);
        let marker = Marker { name, creation: "00ff".to_owned(), is_created: true, settings: Some(overrides.clone()) };
        write_marker(&storage, "t-0", &marker).unwrap();
        write_settings(&storage, "t-0", &overrides).unwrap();
        assert_eq!(read_marker(&storage, "t-0").unwrap(), Some(marker));
        (storage, overrides)
    }

    /// Cut anywhere, filled with zeros anywhere, or changed in any byte: the other file is believed, and of both files
    /// damaged nothing is.
    #[test]
    fn no_damaged_file_passes_for_a_topic_without_keys() {
        let (storage, expected) = written();
        for (name, other) in [(TOPIC_CONFIG, OWN_FILE), (OWN_FILE, TOPIC_CONFIG)] {
            let (good, good_other) = (bytes(&storage, name), bytes(&storage, other));
            let mut damaged: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
            damaged.extend((0..good.len()).map(|at| [&good[..at], &vec![0; good.len() - at]].concat()));
            for at in 0..good.len() {
                let mut changed = good.clone();
                changed[at] ^= 1;
                damaged.push(changed);
            }
            for bad in damaged {
                put(&storage, name, &bad);
                let Settings::Known { overrides, heal } = read_settings(&storage, "t-0") else {
                    panic!("one is whole")
                };
                // Without its first line it is a file that a person wrote.
                let is_checked = bad.starts_with(crate::storage::pairs::CHECKSUM_LINE.as_bytes()) || name == OWN_FILE;
                assert_eq!(overrides["retention.ms"], expected["retention.ms"], "{name}");
                let is_healed = heal.is_none_or(|(file, _)| file == name);
                assert!(!is_checked || (overrides == expected && is_healed), "{name}");
                storage.remove_file(&format!("t-0/{other}")).unwrap();
                let alone = read_settings(&storage, "t-0");
                assert!(!matches!(alone, Settings::Known { ref overrides, .. } if overrides.is_empty()), "{alone:?}");
                put(&storage, other, &good_other);
            }
            put(&storage, name, &good);
        }
        storage.remove_file("t-0/topic.properties").unwrap();
        assert!(matches!(read_settings(&storage, "t-0"), Settings::Known { .. }));
        storage.remove_file("t-0/edgelog.properties").unwrap();
        assert_eq!(read_settings(&storage, "t-0"), Settings::Absent);
    }

    /// `retention.ms=31536000000` that a person wrote, cut to `retention.ms=31536`, let retention delete what was to be
    /// kept, and the copy followed.
    #[test]
    fn a_file_that_a_person_wrote_and_that_is_torn_does_not_count() {
        let (storage, expected) = written();
        let whole = b"# mine\nretention.ms=31536000000\n";
        for len in 0..whole.len() {
            put(&storage, TOPIC_CONFIG, &whole[..len]);
            let Settings::Known { overrides, heal } = read_settings(&storage, "t-0") else {
                panic!("the copy is whole")
            };
            assert!(
                overrides == expected && heal.as_ref().is_some_and(|(file, _)| *file == TOPIC_CONFIG),
                "{len}: {heal:?}"
            );
        }
    }

    #[test]
    fn a_file_that_a_person_wrote_counts_and_one_without_keys_does_not() {
        let (storage, _) = written();
        put(&storage, TOPIC_CONFIG, b"# mine\nretention.ms = 7000\n");
        let Settings::Known { overrides, heal } = read_settings(&storage, "t-0") else { panic!("it has a key") };
        assert_eq!((overrides["retention.ms"].as_str(), heal.unwrap().0), ("7000", OWN_FILE));
        storage.remove_file("t-0/edgelog.properties").unwrap();
        let torn = &b"retention.ms=7000\nsegment.bytes=40"[..];
        for text in [b"", torn, b"# mine\n", b"\n\n", b"\0\0\0\0", b"# crc32=", b"# crc32=00000000"] {
            put(&storage, TOPIC_CONFIG, text);
            assert!(matches!(read_settings(&storage, "t-0"), Settings::Damaged(_)), "{text:?}");
        }
        put(&storage, TOPIC_CONFIG, b"# crc32=00000000 of the lines below\n");
        let Settings::Known { overrides, .. } = read_settings(&storage, "t-0") else { panic!("a topic without keys") };
        assert!(overrides.is_empty());
    }
}
