//! The bridge's own note beside the store: which positions the cluster has acknowledged (*done*), and which transaction
//! was about to be committed (*intent*).
//!
//! The cluster owns the positions; the note is for when it has forgotten them (committed offsets expire), and to notice
//! a cluster that was set back. It is written, and is durable, before a transaction is committed.
//!
//! How its two files look is said in `log::delivery`, which reads them for retention: what was not delivered is not
//! deleted for its age. `META` is a position's metadata (see `position`). `PRODUCER`, `EPOCH` and `FIRST` say who was
//! about to commit, and the offset that the target gave the first batch; `FIRST@TOPIC-PARTITION` where that is not in
//! the target partition.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use edgelog_core::Offset;

use super::error::{BridgeError, Result};
use super::position::Position;
use super::stamp::Producer;
use crate::TopicPartition;
use crate::canary::{Bug, bug};
use crate::log::delivery::{NOTE_FILES as FILES, fields_of, frame, read_note, unframe};
use crate::storage::{Access, Storage, remove_if_there};

const MADE: &str = "edgelog.bridge.tmp";
/// Room taken ahead, so that a full disk does not stop a bridge of usual size.
const ROOM_BYTES: usize = 16 << 10;

/// What is known of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) remote: String,
    /// -1 until something was about to be committed.
    pub(super) partition: i32,
    pub(super) done: Option<Position>,
    pub(super) intent: Option<Intent>,
}

/// A commit that was about to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Intent {
    pub(super) to: Position,
    pub(super) producer: Producer,
    /// The offset that the transaction's first batch of this log got.
    pub(super) first_offset: Offset,
    /// Where that batch is, unless it is in the target partition: a dead letter, or what tells a loss.
    pub(super) elsewhere: Option<(String, i32)>,
}

#[derive(Debug)]
pub(super) struct Note {
    storage: Arc<dyn Storage>,
    pub(super) entries: BTreeMap<TopicPartition, Entry>,
    sequence: u64,
    /// Which of the files is written next.
    next: usize,
    exists: [bool; 2],
    /// What holds may be in the page cache alone: it is written once more, the same bytes, before the other file is. (A
    /// bridge before this one may have died of a flush that failed.)
    unconfirmed: Option<Vec<u8>>,
    /// A file is there and none is valid: what the note knew is lost.
    pub(super) is_damaged: bool,
}

impl Note {
    /// Reads the note; an empty one where there is none. Writes nothing.
    pub(super) fn open(storage: Arc<dyn Storage>) -> Result<Note> {
        let mut note = Note {
            storage,
            entries: BTreeMap::new(),
            sequence: 0,
            next: 0,
            exists: [false; 2],
            unconfirmed: None,
            is_damaged: false,
        };
        let mut any_valid = false;
        for (n, file) in FILES.iter().enumerate() {
            let bytes = match read_note(&*note.storage, file) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("read", file)(error)),
            };
            note.exists[n] = true;
            let Some((sequence, entries)) = parse(&bytes) else {
                // A cut while it was written: the other one counts, and this one is written next.
                note.next = if any_valid { n } else { note.next };
                continue;
            };
            if !any_valid || sequence > note.sequence {
                (note.sequence, note.entries, note.next) = (sequence, entries, 1 - n);
                note.unconfirmed = Some(bytes).filter(|_| !bug(Bug::TrustTheCachedNote));
            }
            any_valid = true;
        }
        note.is_damaged = !any_valid && note.exists.contains(&true);
        Ok(note)
    }

    /// Writes the note; durable on return.
    pub(super) fn write(&mut self) -> Result<()> {
        if let Some(bytes) = &self.unconfirmed {
            let file = FILES[1 - self.next];
            self.overwrite(file, bytes).and_then(|()| self.storage.sync_dir("")).map_err(failed("confirm", file))?;
            self.unconfirmed = None;
        }
        self.sequence += 1;
        let bytes = render(self.sequence, &self.entries);
        let next =
            if bug(Bug::OverwriteTheHoldingNote) && self.exists[1 - self.next] { 1 - self.next } else { self.next };
        let file = FILES[next];
        self.put(next, bytes.as_bytes()).map_err(failed("write", file))?;
        self.exists[next] = true;
        self.next = 1 - next;
        self.is_damaged = false;
        Ok(())
    }

    fn put(&self, n: usize, bytes: &[u8]) -> io::Result<()> {
        let name = FILES[n];
        if self.exists[n] {
            return self.overwrite(name, bytes);
        }
        remove_if_there(&*self.storage, MADE)?;
        let file = self.storage.open(MADE, Access::CreateNew)?;
        // Taken by zeros: where the first write to room that was only reserved fails, ext4 may lose the next ones, too.
        let mut room = bytes.to_vec();
        room.resize(bytes.len().max(ROOM_BYTES), 0);
        file.write_at(&room, 0)?;
        file.flush()?;
        self.storage.rename(MADE, name)?;
        self.storage.sync_dir("")
    }
}

impl Note {
    fn overwrite(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.storage.open(name, Access::Write)?;
        file.write_at(bytes, 0)?;
        if bug(Bug::LeaveTheNoteUnflushed) { Ok(()) } else { file.flush() }
    }
}

fn failed(operation: &'static str, file: &str) -> impl FnOnce(io::Error) -> BridgeError {
    let file = file.to_owned();
    move |source| BridgeError::Note { operation, file, source }
}

fn render(sequence: u64, entries: &BTreeMap<TopicPartition, Entry>) -> String {
    let mut body = String::new();
    for (log, entry) in entries {
        let _ = write!(body, "{log}\t{}\t{}", entry.remote, entry.partition);
        for position in [entry.done, entry.intent.as_ref().map(|intent| intent.to)] {
            let _ = match position {
                Some(position) => write!(body, "\t{}\t{}", position.offset, position.metadata()),
                None => write!(body, "\t-\t-"),
            };
        }
        let _ = match &entry.intent {
            Some(Intent { producer, first_offset, elsewhere, .. }) => {
                let _ = write!(body, "\t{}\t{}\t{first_offset}", producer.id, producer.epoch);
                match elsewhere {
                    Some((topic, partition)) => writeln!(body, "@{topic}-{partition}"),
                    None => writeln!(body),
                }
            }
            None => writeln!(body, "\t-\t-\t-"),
        };
    }
    frame(sequence, &body)
}

/// What a file says, where it is whole.
fn parse(bytes: &[u8]) -> Option<(u64, BTreeMap<TopicPartition, Entry>)> {
    let (sequence, body) = unframe(bytes)?;
    let entries = body.lines().map(parse_line).collect::<Option<_>>()?;
    Some((sequence, entries))
}

fn parse_line(line: &str) -> Option<(TopicPartition, Entry)> {
    let [log, remote, partition, done, done_meta, intent, intent_meta, producer, epoch, first] = fields_of(line)?;
    let position = |offset: &str, metadata: &str| match offset {
        "-" => Some(None),
        offset => Some(Some(Position::parse(offset.parse().ok()?, metadata).ok()?)),
    };
    let intent = match position(intent, intent_meta)? {
        None => None,
        Some(to) => {
            let (first, elsewhere) = match first.split_once('@') {
                Some((first, place)) => {
                    let (topic, partition) = place.rsplit_once('-')?;
                    (first, Some((topic.to_owned(), partition.parse().ok()?)))
                }
                None => (first, None),
            };
            let producer = Producer { id: producer.parse().ok()?, epoch: epoch.parse().ok()? };
            Some(Intent { to, producer, first_offset: first.parse().ok()?, elsewhere })
        }
    };
    let entry = Entry {
        remote: remote.to_owned(),
        partition: partition.parse().ok()?,
        done: position(done, done_meta)?,
        intent,
    };
    Some((log.parse().ok()?, entry))
}

#[cfg(test)]
mod tests {
    use super::super::position::BatchMark;
    use super::*;
    use crate::storage::MemoryStorage;
    use uuid::Uuid;

    fn position(offset: Offset) -> Position {
        let mark = BatchMark { leader_epoch: 2, crc: 9 };
        Position { offset, log_id: [1; 16], mark, topic_id: Uuid::from_u128(3) }
    }

    fn entry(offset: Offset) -> Entry {
        let producer = Producer { id: 5, epoch: 6 };
        let elsewhere = (offset % 2 == 0).then(|| ("dead-letters".to_owned(), 2));
        let intent = Intent { to: position(offset + 1), producer, first_offset: 44, elsewhere };
        Entry { remote: "r".to_owned(), partition: 1, done: Some(position(offset)), intent: Some(intent) }
    }

    fn open(storage: &Arc<dyn Storage>) -> Note {
        Note::open(Arc::clone(storage)).unwrap()
    }

    #[test]
    fn the_newest_of_two_files_counts_and_a_damaged_one_does_not() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let log = TopicPartition::new("a-b", 7);
        let mut note = open(&storage);
        assert!(note.entries.is_empty() && !note.is_damaged);
        for n in 0..5 {
            note.entries.insert(log.clone(), entry(n));
            note.write().unwrap();
            assert_eq!(open(&storage).entries, note.entries);
        }
        // The last write was cut off: the one before it counts, and the next goes where the damage is.
        let damaged = storage.open(FILES[1 - note.next], Access::Write).unwrap();
        damaged.write_at(b"X", 60).unwrap();
        let mut again = open(&storage);
        assert_eq!(again.entries[&log], entry(3));
        again.write().unwrap();
        assert_eq!((open(&storage).entries[&log].clone(), open(&storage).is_damaged), (entry(3), false));
        for file in FILES {
            storage.open(file, Access::Write).unwrap().write_at(b"X", 0).unwrap();
        }
        assert!(open(&storage).is_damaged);
    }

    #[test]
    fn any_cut_of_the_file_being_written_leaves_the_one_before() {
        let body = render(7, &BTreeMap::from([(TopicPartition::new("t", 0), entry(1))]));
        let older = render(5, &BTreeMap::from([(TopicPartition::new("t", 0), entry(100_000))]));
        for cut in 0..body.len() {
            let mut bytes = body.as_bytes()[..cut].to_vec();
            bytes.extend_from_slice(older.as_bytes().get(cut..).unwrap_or_default());
            let found = parse(&bytes).map(|(sequence, _)| sequence);
            assert!(found.is_none() || found == Some(5) && cut < 20, "cut at {cut}: {found:?}");
        }
    }
}
