//! The checkpoint: what the store knows of its logs beyond their bytes.
//!
//! One file, `edgelog.checkpoint`, of two slots (see `storage::small_file`, which has the fields that all such files
//! share). All numbers are big-endian, as in Kafka's files.
//!
//! | off | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `EDGELOG1` |
//! | 16 | 2 | format version, 1 |
//! | 18 | 2 | flags: bit 0 clean, bit 1 every topic has its settings in two files |
//! | 20 | 4 | compatible feature bits: unknown ones are ignored |
//! | 40 | 16 | boot id of the machine that wrote it |
//! | 56 | 4 | number of logs |
//! | 60 | 4 | zero |
//! | 64 | ... | the logs |
//!
//! A log: name length u16, name; identity 16; origin u8; log start i64; recovery point: offset i64, segment
//! base i64, position u32; number of epochs u32, each epoch i32 and start offset i64. An offset of -1 is not known.
//!
//! What one log's entry says stays that log's: a reader takes out what no log comes to ([`SavedLog::make_possible`]),
//! reports it, and keeps the rest of that log and all other logs. The writer asks the same judge, so that it never
//! writes what a reader takes out.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use edgelog_core::{EpochEntry, LeaderEpoch, LogId, Offset, Position};

use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::log::{DurablePoint, Origin, SavedLog, TopicPartition};
use crate::storage::small_file::{HEADER_LEN, SeenSlots, Slot, SlotForm, SlotMutants, Slots, TwoSlot};
use crate::storage::small_file::{is_unchanged, read_slots, u32_at};
use crate::storage::{Access, Storage};

pub(crate) const FILE: &str = "edgelog.checkpoint";
const MAGIC: &[u8; 8] = b"EDGELOG1";
const VERSION: u16 = 1;
const FLAG_CLEAN: u16 = 1;
const FLAG_RECORDED: u16 = 2;

fn form() -> SlotForm {
    let mutants = SlotMutants {
        overwrite_the_holding_slot: Bug::OverwriteTheHoldingSlot,
        trust_the_cached_slot: Bug::TrustTheCachedSlot,
        leave_it_unflushed: Bug::LeaveTheSlotUnflushed,
    };
    SlotForm { file: FILE.to_owned(), magic: MAGIC, version: VERSION, slot_bytes_min: 0, mutants }
}

/// What one slot says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checkpoint {
    pub(crate) clean: bool,
    /// Every topic has its settings in two files: one that has none has lost them.
    pub(crate) is_recorded: bool,
    pub(crate) boot_id: [u8; 16],
    pub(crate) logs: BTreeMap<TopicPartition, SavedLog>,
}

impl Checkpoint {
    /// By how many bytes in all the recovery points stand beyond those of `earlier`; `None` where anything else
    /// differs, another segment included.
    pub(crate) fn bytes_since(&self, earlier: &Checkpoint) -> Option<u64> {
        let same_names = self.logs.keys().eq(earlier.logs.keys());
        let same_marks = (self.clean, self.is_recorded) == (earlier.clean, earlier.is_recorded);
        if !same_marks || self.boot_id != earlier.boot_id || !same_names {
            return None;
        }
        let mut bytes = 0;
        for (now, earlier) in self.logs.values().zip(earlier.logs.values()) {
            let (from, to) = (earlier.durable, now.durable);
            if *now != (SavedLog { durable: to, ..earlier.clone() }) || to.base_offset != from.base_offset {
                return None;
            }
            bytes += u64::from(to.position.checked_since(from.position)?);
        }
        Some(bytes)
    }
}

/// What was found in the file.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// There is such a file.
    pub(crate) exists: bool,
    /// Which of its two slots are valid.
    pub(crate) valid: [bool; 2],
    /// The newer of the valid slots.
    pub(crate) newest: Option<Checkpoint>,
    /// Both slots are valid and say the same: only then does a clean mark count.
    pub(crate) agree: bool,
    /// What was taken out of the newest: the log, as far as its name can be read, and what it said.
    pub(crate) odd: Vec<(String, String)>,
}

/// Reads the checkpoint without changing anything. Every reader of the file reads it here.
///
/// # Errors
/// [`Error::Storage`] where the file is there and cannot be opened, and [`Error::UnsupportedVersion`].
pub(crate) fn read(storage: &dyn Storage) -> Result<Found> {
    Ok(found_in(&mut read_slots(storage, &form())?))
}

/// Makes durable what the file says now, whichever process wrote it.
pub(crate) fn flush(storage: &dyn Storage) -> Result<()> {
    let file = storage.open(FILE, Access::Read).map_err(Error::storage("open", FILE))?;
    file.flush().map_err(Error::storage("flush", FILE))
}

/// Decodes what the slots hold. A slot whose fields do not fill its payload is no slot.
fn found_in(slots: &mut Slots) -> Found {
    let mut found = Found { exists: slots.exists, ..Found::default() };
    while let Some(at) = slots.newest() {
        let slot = slots.both[at].as_ref().expect("it is the newest");
        if let Some((checkpoint, odd)) = decode(slot) {
            (found.newest, found.odd) = (Some(checkpoint), odd);
            break;
        }
        slots.both[at] = None;
    }
    found.agree = slots.agree();
    // The other one is only asked whether it is whole.
    let is_whole = |slot: &Slot| found.agree || decode(slot).is_some();
    found.valid = [0, 1].map(|at| slots.both[at].as_ref().is_some_and(is_whole));
    found
}

/// The checkpoint as an attached process follows it: decoded when it was written, and not whenever it is looked at.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    seen: Option<SeenSlots>,
    newest: Arc<Checkpoint>,
}

impl Followed {
    /// What the file says now. Costs two small reads where nothing was written since the last call.
    ///
    /// # Errors
    /// As [`read`].
    pub(crate) fn now(&mut self, storage: &dyn Storage) -> Result<&Arc<Checkpoint>> {
        if !self.seen.as_ref().is_some_and(|seen| is_unchanged(storage, &form(), seen)) {
            let mut slots = read_slots(storage, &form())?;
            // Where a slot does not hold, it may be in the making: the next call reads again.
            self.seen = slots.seen().cloned();
            self.newest = Arc::new(found_in(&mut slots).newest.unwrap_or_default());
        }
        Ok(&self.newest)
    }
}

/// The open checkpoint file.
#[derive(Debug)]
pub(crate) struct CheckpointFile {
    slots: TwoSlot,
    encoded: Vec<u8>,
}

impl CheckpointFile {
    /// Opens the file for writing, or prepares to create it, and says what was in it.
    pub(crate) fn open(storage: &Arc<dyn Storage>) -> Result<(CheckpointFile, Found)> {
        let mut slots = read_slots(&**storage, &form())?;
        let found = found_in(&mut slots);
        Ok((CheckpointFile { slots: TwoSlot::open(storage, form(), &slots), encoded: Vec::new() }, found))
    }

    /// The slot that holds is written again, the same bytes, before anything else is.
    pub(crate) fn doubt(&mut self) {
        self.slots.doubt();
    }

    /// Writes one slot, the older one. Durable on return.
    pub(crate) fn write(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        encode(checkpoint, &mut self.encoded);
        self.slots.write(&mut self.encoded)
    }

    /// Writes both slots, one after the other. Durable on return.
    pub(crate) fn write_both(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        encode(checkpoint, &mut self.encoded);
        self.slots.write_both(&mut self.encoded)
    }
}

/// Encodes all but the fields that two-slot files share.
fn encode(checkpoint: &Checkpoint, out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER_LEN, 0);
    let marks = [(checkpoint.clean, FLAG_CLEAN), (checkpoint.is_recorded, FLAG_RECORDED)];
    let flags = marks.iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, flag)| flags | flag);
    out[18..20].copy_from_slice(&flags.to_be_bytes());
    out[40..56].copy_from_slice(&checkpoint.boot_id);
    out[56..60].copy_from_slice(&(checkpoint.logs.len() as u32).to_be_bytes());
    for (name, saved) in &checkpoint.logs {
        let mut log = saved.clone();
        let odd = log.make_possible();
        if !odd.is_empty() {
            tracing::error!(log = %name, ?odd, "left out of the checkpoint: no log comes to this");
        }
        let name = name.to_string();
        out.extend_from_slice(&(name.len() as u16).to_be_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&log.id.to_bytes());
        out.push(log.origin as u8);
        out.extend_from_slice(&log.log_start_offset.0.to_be_bytes());
        out.extend_from_slice(&log.durable.offset.0.to_be_bytes());
        out.extend_from_slice(&log.durable.base_offset.0.to_be_bytes());
        out.extend_from_slice(&log.durable.position.0.to_be_bytes());
        out.extend_from_slice(&(log.epochs.len() as u32).to_be_bytes());
        for entry in &log.epochs {
            out.extend_from_slice(&entry.epoch.0.to_be_bytes());
            out.extend_from_slice(&entry.start_offset.0.to_be_bytes());
        }
    }
    debug_assert!(
        decode(&Slot::of_body(out))
            .is_some_and(|(again, odd)| odd.is_empty() && again.logs.keys().eq(checkpoint.logs.keys())),
        "the writer writes nothing that its reader takes out"
    );
}

/// What a slot says, and what was taken out of it; `None` where its fields do not fill it.
fn decode(slot: &Slot) -> Option<(Checkpoint, Vec<(String, String)>)> {
    let header = slot.header();
    let mut fields = Fields { bytes: slot.payload() };
    let count = u32_at(header, 56);
    // Every log takes bytes, so a count beyond them ends at the first that is missing.
    let (mut logs, mut odd) = (BTreeMap::new(), Vec::new());
    for _ in 0..count {
        let (name, mut saved) = fields.log()?;
        let taken_out = saved.make_possible();
        if bug(Bug::RefuseTheWholeSlot) && !taken_out.is_empty() {
            return None;
        }
        let text = String::from_utf8_lossy(name).into_owned();
        odd.extend(taken_out.into_iter().map(|what| (text.clone(), what)));
        match TopicPartition::parse_dir(&text).map(|name| logs.entry(name)) {
            Some(Entry::Vacant(entry)) => drop(entry.insert(saved)),
            Some(Entry::Occupied(_)) => odd.push((text, "a second entry of the same log".to_owned())),
            None => odd.push((text, "a name that no log has".to_owned())),
        }
    }
    let mut boot_id = [0; 16];
    boot_id.copy_from_slice(&header[40..56]);
    let has = |flag: u16| u16::from(header[19]) & flag != 0;
    Some((Checkpoint { clean: has(FLAG_CLEAN), is_recorded: has(FLAG_RECORDED), boot_id, logs }, odd))
}

/// Takes fields off the front of a payload.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*taken)
    }

    fn log(&mut self) -> Option<(&'a [u8], SavedLog)> {
        let name_len = usize::from(u16::from_be_bytes(self.take()?));
        let (name, rest) = self.bytes.split_at_checked(name_len)?;
        self.bytes = rest;
        let id = LogId::from_bytes(self.take()?);
        let origin = if self.take::<1>()?[0] == Origin::Own as u8 { Origin::Own } else { Origin::Imported };
        let log_start_offset = Offset(i64::from_be_bytes(self.take()?));
        let durable = DurablePoint {
            offset: Offset(i64::from_be_bytes(self.take()?)),
            base_offset: Offset(i64::from_be_bytes(self.take()?)),
            position: Position(u32::from_be_bytes(self.take()?)),
        };
        let count = u32::from_be_bytes(self.take()?);
        let mut epochs = Vec::new();
        for _ in 0..count {
            let epoch = i32::from_be_bytes(self.take()?);
            epochs
                .push(EpochEntry { epoch: LeaderEpoch(epoch), start_offset: Offset(i64::from_be_bytes(self.take()?)) });
        }
        Some((name, SavedLog { id, origin, log_start_offset, durable, epochs }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn sample(logs: usize, clean: bool) -> Checkpoint {
        let log = |n: usize| {
            let durable =
                DurablePoint { offset: Offset(100 + n as i64), base_offset: Offset(50), position: Position(4711) };
            let epochs = vec![
                EpochEntry { epoch: LeaderEpoch(0), start_offset: Offset(0) },
                EpochEntry { epoch: LeaderEpoch(3), start_offset: Offset(70) },
            ];
            let saved = SavedLog {
                id: LogId::from_bytes([n as u8; 16]),
                origin: Origin::Own,
                log_start_offset: Offset(7),
                durable,
                epochs,
            };
            (TopicPartition::new("t", n as u32), saved)
        };
        Checkpoint { clean, is_recorded: !clean, boot_id: [9; 16], logs: (0..logs).map(log).collect() }
    }

    fn storage() -> Arc<dyn Storage> {
        Arc::new(MemoryStorage::new())
    }

    #[test]
    fn what_is_written_is_read_back_also_after_growing() {
        let storage = storage();
        let (mut file, found) = CheckpointFile::open(&storage).unwrap();
        assert!(found.newest.is_none());
        for logs in [0, 1, 3, 500, 2] {
            file.write(&sample(logs, false)).unwrap();
            assert_eq!(read(&*storage).unwrap().newest, Some(sample(logs, false)), "{logs} logs");
        }
        drop(file);
        let (mut file, found) = CheckpointFile::open(&storage).unwrap();
        assert_eq!(found.newest, Some(sample(2, false)));
        file.write_both(&sample(2, true)).unwrap();
        let found = read(&*storage).unwrap();
        assert!(found.agree && found.newest.unwrap().clean);
    }

    #[test]
    fn one_clean_slot_does_not_agree_with_an_unclean_one() {
        let storage = storage();
        let (mut file, _) = CheckpointFile::open(&storage).unwrap();
        file.write_both(&sample(1, false)).unwrap();
        file.write(&sample(1, true)).unwrap();
        assert!(!read(&*storage).unwrap().agree);
    }

    /// No matter which byte is damaged, the other slot is valid: never a wrong checkpoint, never an error, never
    /// a panic.
    #[test]
    fn every_flipped_bit_leaves_one_of_the_two_written_states() {
        let storage = storage();
        let (mut file, _) = CheckpointFile::open(&storage).unwrap();
        file.write(&sample(2, false)).unwrap();
        let (older, newer) = (sample(1, false), sample(2, false));
        file.write(&older).unwrap();
        file.write(&newer).unwrap();
        let raw = storage.open(FILE, Access::Write).unwrap();
        let len = raw.len().unwrap();
        for position in 0..len {
            let mut byte = [0];
            raw.read_at(&mut byte, position).unwrap();
            for bit in 0..8 {
                raw.write_at(&[byte[0] ^ (1 << bit)], position).unwrap();
                let found = read(&*storage).unwrap().newest;
                assert!(found == Some(older.clone()) || found == Some(newer.clone()), "byte {position} bit {bit}");
            }
            raw.write_at(&byte, position).unwrap();
        }
    }

    /// Found by fuzzing: a slot with a good sum and a negative log start let offsets before zero be reported as lost,
    /// at
    /// every open. The log keeps what is possible, and the other logs keep everything.
    #[test]
    fn a_log_with_numbers_that_no_log_comes_to_keeps_the_rest_and_costs_no_other_log() {
        type Change = fn(&mut SavedLog);
        let changes: [Change; 7] = [
            |saved| saved.log_start_offset = Offset(-2),
            |saved| saved.log_start_offset = Offset(i64::MAX),
            |saved| saved.durable.offset = Offset(i64::MAX),
            |saved| saved.durable.base_offset = Offset(-7),
            |saved| saved.durable.base_offset = saved.durable.offset + 1,
            |saved| saved.durable.position = Position(u32::MAX),
            |saved| saved.epochs[1].epoch = LeaderEpoch(i32::MAX),
        ];
        for (n, change) in changes.iter().enumerate() {
            let storage = storage();
            let (mut file, _) = CheckpointFile::open(&storage).unwrap();
            let mut checkpoint = sample(3, true);
            let odd = TopicPartition::new("t", 1);
            change(checkpoint.logs.get_mut(&odd).unwrap());
            // As the writer writes it, and as a program that does not judge would.
            file.write_both(&checkpoint).unwrap();
            let found = read(&*storage).unwrap();
            assert_eq!((found.odd, found.agree), (Vec::new(), true), "{n}: the writer wrote what its reader refuses");
            let as_written = found.newest.unwrap();
            overwrite_without_judging(&storage, &odd, &checkpoint.logs[&odd], &as_written.logs[&odd]);
            let found = read(&*storage).unwrap();
            assert_eq!((found.odd.len(), found.valid), (1, [true, true]), "{n}: {:?}", found.odd);
            let newest = found.newest.unwrap();
            assert_eq!(newest, as_written, "{n}");
            assert_eq!((newest.logs.len(), newest.logs[&odd].id), (3, LogId::from_bytes([1; 16])), "{n}");
            for name in [TopicPartition::new("t", 0), TopicPartition::new("t", 2)] {
                assert_eq!(newest.logs[&name], checkpoint.logs[&name], "{n}");
            }
        }
    }

    /// Puts `odd` into both slots in place of `judged`, with valid checksums.
    fn overwrite_without_judging(storage: &Arc<dyn Storage>, name: &TopicPartition, odd: &SavedLog, judged: &SavedLog) {
        let payload_of = |saved: &SavedLog| {
            let mut out = Vec::new();
            out.extend_from_slice(name.to_string().as_bytes());
            out.extend_from_slice(&saved.id.to_bytes());
            out.push(saved.origin as u8);
            out.extend_from_slice(&saved.log_start_offset.0.to_be_bytes());
            out.extend_from_slice(&saved.durable.offset.0.to_be_bytes());
            out.extend_from_slice(&saved.durable.base_offset.0.to_be_bytes());
            out.extend_from_slice(&saved.durable.position.0.to_be_bytes());
            out.extend_from_slice(&(saved.epochs.len() as u32).to_be_bytes());
            for entry in &saved.epochs {
                out.extend_from_slice(&entry.epoch.0.to_be_bytes());
                out.extend_from_slice(&entry.start_offset.0.to_be_bytes());
            }
            out
        };
        let (new, old) = (payload_of(odd), payload_of(judged));
        let mut slots = read_slots(&**storage, &form()).unwrap();
        let mut body = slots.both[slots.newest().unwrap()].take().unwrap().into_bytes();
        let at = body.windows(old.len()).position(|window| window == old).unwrap();
        body.splice(at..at + old.len(), new);
        let found = read_slots(&**storage, &form()).unwrap();
        TwoSlot::open(storage, form(), &found).write_both(&mut body).unwrap();
    }

    #[test]
    fn what_is_followed_is_decoded_when_it_was_written_and_never_stale() {
        let storage = storage();
        let mut followed = Followed::default();
        assert_eq!(**followed.now(&*storage).unwrap(), Checkpoint::default());
        let (mut file, _) = CheckpointFile::open(&storage).unwrap();
        for logs in [1, 2, 300, 3] {
            file.write(&sample(logs, false)).unwrap();
            let first = Arc::clone(followed.now(&*storage).unwrap());
            assert_eq!(*first, sample(logs, false));
            assert!(Arc::ptr_eq(&first, followed.now(&*storage).unwrap()), "decoded again");
        }
    }
}
