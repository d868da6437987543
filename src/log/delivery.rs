//! What a bridge's note beside the store says to retention: how far each log was delivered.
//!
//! A bridge may be another process, and of another program than the one that writes; the note is all that the writer
//! knows of it. What was not delivered yet is not deleted for its age. (`retention.bytes` still counts: it is what
//! keeps a device that is never connected again from filling its disk.)
//!
//! The note is two files, `edgelog.bridge.0` and `edgelog.bridge.1`, of which the newer valid one counts. Each is
//! written in place, the older one first, and takes its name only when it is whole: a power cut leaves at least one. A
//! file is text:
//!
//! ```text
//! edgelog-bridge 1 SEQUENCE LENGTH CRC32      the CRC-32 of the sequence and the LENGTH bytes that follow, in
//! hexadecimal LOG TARGET PARTITION DONE META INTENT META PRODUCER EPOCH FIRST      separated by tabs, `-` for what
//! there is not
//! ```
//!
//! `DONE` is the offset that is to be sent next, and its `META` names the log's identity (`log=`, 32 hexadecimal
//! digits). The rest is the bridge's own.

use std::io;

use edgelog_core::Offset;

use crate::TopicPartition;
use crate::storage::{Access, Storage};

pub(crate) const NOTE_FILES: [&str; 2] = ["edgelog.bridge.0", "edgelog.bridge.1"];
const MAGIC: &str = "edgelog-bridge 1 ";
/// A file beyond this is none: 10,000 logs with the longest names stay below.
const BYTES_MAX: u64 = 16 << 20;
/// Fields of a line.
const FIELDS: usize = 10;

/// From where on one log has to be kept.
#[derive(Debug)]
struct Hold {
    log: TopicPartition,
    /// Of the log that the offset is one of; zeros where nothing was delivered.
    id: [u8; 16],
    offset: Offset,
}

/// From where on each log has to be kept for a bridge.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    logs: Vec<Hold>,
    /// There is a note, and it cannot be read: nobody knows what was delivered.
    everything: bool,
}

impl Holds {
    /// What the note says now; nothing is held where there is none.
    ///
    /// # Errors
    /// Those of the medium.
    pub(crate) fn read(storage: &dyn Storage) -> io::Result<Holds> {
        let (mut newest, mut any) = (None, false);
        for file in NOTE_FILES {
            let bytes = match read_note(storage, file) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            any = true;
            let Some((sequence, body)) = unframe(&bytes) else { continue };
            if newest.as_ref().is_none_or(|(before, _)| sequence > *before) {
                newest = Some((sequence, body.lines().map(parse_hold).collect::<Option<_>>()));
            }
        }
        Ok(match newest {
            Some((_, Some(logs))) => Holds { logs, everything: false },
            _ => Holds { logs: Vec::new(), everything: any },
        })
    }

    /// The first offset of this log that is not to be deleted for its age; `None` where no bridge sends it.
    pub(crate) fn of(&self, log: &TopicPartition, id: &[u8; 16]) -> Option<Offset> {
        match self.logs.iter().find(|hold| hold.log == *log) {
            Some(hold) if hold.id == *id => Some(hold.offset),
            // Of the log that had this name before: nothing of this one was delivered.
            Some(_) => Some(0),
            None => self.everything.then_some(0),
        }
    }
}

fn parse_hold(line: &str) -> Option<Hold> {
    let [log, _, _, done, meta, ..] = fields_of(line)?;
    let log = log.parse().ok()?;
    if done == "-" {
        return Some(Hold { log, id: [0; 16], offset: 0 });
    }
    let digits = meta.split(' ').find_map(|word| word.strip_prefix("log="))?;
    let mut id = [0; 16];
    for (n, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(n * 2..n * 2 + 2)?, 16).ok()?;
    }
    Some(Hold { log, id, offset: done.parse().ok()? })
}

/// The bytes of one file of the note.
pub(crate) fn read_note(storage: &dyn Storage, name: &str) -> io::Result<Vec<u8>> {
    let file = storage.open(name, Access::Read)?;
    let len = file.len()?;
    if len > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{len} bytes, {BYTES_MAX} are allowed")));
    }
    let mut bytes = vec![0; len as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The fields of one line of a note.
pub(crate) fn fields_of(line: &str) -> Option<[&str; FIELDS]> {
    let mut fields = line.split('\t');
    let mut found = [""; FIELDS];
    for field in &mut found {
        *field = fields.next()?;
    }
    fields.next().is_none().then_some(found)
}

/// A file's text: its first line, and the lines of the logs.
#[cfg(any(feature = "bridge", test))]
pub(crate) fn frame(sequence: u64, body: &str) -> String {
    format!("{MAGIC}{sequence} {} {:08x}\n{body}", body.len(), checksum(sequence, body.as_bytes()))
}

/// The sequence and the lines of the logs, where the file is whole.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::MemoryStorage;
    use crate::{NewRecord, NewTopic, Store};

    const DAY_MS: i64 = 86_400_000;
    const NOW: i64 = 1_700_000_000_000;

    fn line(log: &str, done: Option<Offset>, id: [u8; 16]) -> String {
        let id = u128::from_be_bytes(id);
        match done {
            Some(done) => {
                format!("{log}\tr\t0\t{done}\tedgelog/1 log={id:032x} epoch=0 crc=0 topic=0\t-\t-\t-\t-\t-\n")
            }
            None => format!("{log}\tr\t0\t-\t-\t-\t-\t-\t-\t-\n"),
        }
    }

    fn put(storage: &MemoryStorage, name: &str, text: &str) {
        let _ = storage.remove_file(name);
        storage.open(name, Access::CreateNew).unwrap().write_at(text.as_bytes(), 0).unwrap();
    }

    /// A store whose log `t-0` has a segment for each of 20 old records, and `retention.ms` of a day.
    fn old_log(storage: &MemoryStorage, more: &[(&str, &str)]) -> (Store, crate::Log) {
        let options = Store::options().set("edgelog.housekeeping", "tick").unwrap();
        let store = options.open_on(storage.clone()).unwrap();
        let topic = NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", &DAY_MS.to_string());
        store.create_topic(&more.iter().fold(topic, |topic, (key, value)| topic.config(key, value))).unwrap();
        let log = store.log("t", 0).unwrap();
        for _ in 0..20 {
            log.append(NewRecord::value(&[7; 2500]).with_timestamp(NOW - 2 * DAY_MS)).unwrap();
        }
        (store, log)
    }

    fn start_after_retention(store: &Store, log: &crate::Log, now: i64) -> Offset {
        store.tick(now).unwrap();
        log.offsets().log_start_offset
    }

    #[test]
    fn what_was_not_delivered_is_not_deleted_for_its_age() {
        let storage = MemoryStorage::new();
        let (store, log) = old_log(&storage, &[]);
        assert_eq!(log.held_from().unwrap(), None);
        put(&storage, NOTE_FILES[0], &frame(1, &line("t-0", None, log.id())));
        assert_eq!(start_after_retention(&store, &log, NOW), 0, "nothing was delivered");
        put(&storage, NOTE_FILES[1], &frame(2, &line("t-0", Some(7), log.id())));
        assert_eq!(log.held_from().unwrap(), Some(7));
        assert_eq!(start_after_retention(&store, &log, NOW + DAY_MS), 7);
        // The note of the log that had this name before.
        put(&storage, NOTE_FILES[0], &frame(3, &line("t-0", Some(15), [1; 16])));
        assert_eq!(start_after_retention(&store, &log, NOW + 2 * DAY_MS), 7);
        // No note: no bridge.
        for file in NOTE_FILES {
            storage.remove_file(file).unwrap();
        }
        assert_eq!(start_after_retention(&store, &log, NOW + 3 * DAY_MS), 19);
    }

    #[test]
    fn retention_by_size_goes_on_and_other_logs_are_not_held() {
        let storage = MemoryStorage::new();
        let (store, log) = old_log(&storage, &[("retention.bytes", "25000")]);
        put(&storage, NOTE_FILES[0], &frame(1, &line("t-0", Some(2), log.id())));
        let start = start_after_retention(&store, &log, NOW);
        assert!((9..12).contains(&start), "{start}");
        put(&storage, NOTE_FILES[0], &frame(2, &line("u-0", Some(0), [1; 16])));
        assert_eq!(start_after_retention(&store, &log, NOW + DAY_MS), 19);
    }

    #[test]
    fn a_note_that_cannot_be_read_holds_everything() {
        let storage = MemoryStorage::new();
        let (store, log) = old_log(&storage, &[]);
        let whole = frame(1, &line("t-0", Some(19), log.id()));
        for text in [&whole[..whole.len() - 1], "edgelog-bridge 2 what a newer one writes\n", "", &frame(1, "t-0\t-\n")]
        {
            put(&storage, NOTE_FILES[1], text);
            assert_eq!(log.held_from().unwrap(), Some(0), "{text:?}");
            assert_eq!(start_after_retention(&store, &log, NOW), 0, "{text:?}");
        }
        put(&storage, NOTE_FILES[0], &whole);
        assert_eq!(start_after_retention(&store, &log, NOW + DAY_MS), 19, "the other file is whole");
    }

    #[test]
    fn a_read_error_keeps_what_is_old_for_another_round() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let file = storage.open(NOTE_FILES[0], Access::CreateNew).unwrap();
        file.reserve(BYTES_MAX + 1).unwrap();
        assert_eq!(Holds::read(&*storage).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
