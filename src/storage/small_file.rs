//! Small files that are written as a whole: one of two slots, or the whole file under another name.
//!
//! # Two slots
//!
//! A file of two slots of equal size, each a multiple of 4 KiB, so that they share no sector. A write goes to the slot
//! that does not hold, and is flushed before anything relies on it: a power cut leaves one whole slot. The file grows
//! only when it is written again under another name. All numbers are big-endian, as in Kafka's files.
//!
//! | off | size | field |
//! |---|---|---|
//! | 0 | 8 | magic, of the kind of file |
//! | 8 | 4 | CRC-32 (IEEE) over bytes 12 to the end of the payload |
//! | 12 | 4 | payload length: bytes from offset 64 on |
//! | 16 | 2 | format version |
//! | 18 | 6 | of the kind of file |
//! | 24 | 4 | incompatible feature bits: unknown ones refuse the file |
//! | 28 | 4 | slot size |
//! | 32 | 8 | sequence number; the valid slot with the higher one holds |
//! | 40 | 24 | of the kind of file |
//! | 64 | ... | the payload |
//!
//! Nothing valid is all zeros.

use std::io;
use std::sync::Arc;

use super::{Access, Storage, StorageFile, remove_if_there};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};

/// Bytes before a slot's payload.
pub(crate) const HEADER_LEN: usize = 64;
const SLOT_ALIGN: usize = 4096;
/// A slot beyond this is none.
const SLOT_BYTES_MAX: usize = 64 << 20;
/// A sequence number beyond this was not counted up to: the file is written again from 1 on.
const SEQUENCE_MAX: u64 = 1 << 62;

/// A kind of file with two slots.
#[derive(Debug, Clone)]
pub(crate) struct SlotForm {
    pub(crate) file: String,
    pub(crate) magic: &'static [u8; 8],
    pub(crate) version: u16,
    /// A new file has slots of this size at least.
    pub(crate) slot_bytes_min: usize,
    pub(crate) mutants: SlotMutants,
}

/// The mistakes that a search for crashes switches on for a kind of file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotMutants {
    pub(crate) overwrite_the_holding_slot: Bug,
    pub(crate) trust_the_cached_slot: Bug,
    pub(crate) leave_it_unflushed: Bug,
}

/// One valid slot: header and payload.
#[derive(Debug)]
pub(crate) struct Slot {
    bytes: Vec<u8>,
    /// Of its place in the file.
    size: usize,
    sequence: u64,
}

impl Slot {
    /// What `body`, which is not sealed yet, will say.
    pub(crate) fn of_body(body: &[u8]) -> Slot {
        Slot { bytes: body.to_vec(), size: 0, sequence: 0 }
    }

    pub(crate) fn header(&self) -> &[u8] {
        &self.bytes[..HEADER_LEN]
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Header and payload.
    #[cfg(test)]
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Says the same as `other`, whichever was written first.
    fn agrees_with(&self, other: &Slot) -> bool {
        let content = |slot: &Slot| {
            let header = slot.header();
            (header[..8].to_vec(), header[16..28].to_vec(), header[40..].to_vec())
        };
        content(self) == content(other) && self.payload() == other.payload()
    }
}

/// What a file with two slots holds.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    pub(crate) exists: bool,
    len: u64,
    pub(crate) both: [Option<Slot>; 2],
    seen: Option<SeenSlots>,
}

/// Shows whether a file still holds what was read: its length, and both headers, which carry the checksums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenSlots {
    len: u64,
    headers: [(u64, [u8; HEADER_LEN]); 2],
}

impl Slots {
    /// The valid slot with the higher sequence number, by its place.
    pub(crate) fn newest(&self) -> Option<usize> {
        match &self.both {
            [Some(first), Some(second)] => Some(usize::from(second.sequence > first.sequence)),
            slots => slots.iter().position(Option::is_some),
        }
    }

    /// Both slots are valid and say the same.
    pub(crate) fn agree(&self) -> bool {
        matches!(&self.both, [Some(first), Some(second)] if first.agrees_with(second))
    }

    /// What shows later, at little cost, whether the file was written since. `None` where a slot is not valid: it may
    /// be being written.
    pub(crate) fn seen(&self) -> Option<&SeenSlots> {
        self.seen.as_ref()
    }
}

/// Reads a file with two slots, without changing anything. A disk that cannot read one slot leaves the other.
///
/// # Errors
/// [`Error::Storage`] where the file is there and cannot be opened, and [`Error::UnsupportedVersion`].
pub(crate) fn read_slots(storage: &dyn Storage, form: &SlotForm) -> Result<Slots> {
    let name = &form.file;
    let file = match storage.open(name, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Slots::default()),
        Err(error) => return Err(Error::storage("open", name)(error)),
    };
    let len = file.len().map_err(Error::storage("look at", name))?;
    let first = read_slot(&*file, 0, len, form)?;
    // The second slot stands where the first says, or in the middle, should the first be gone.
    let second_at = first.as_ref().map_or(len / 2, |slot| slot.size as u64);
    let second = if second_at == 0 { None } else { read_slot(&*file, second_at, len, form)? };
    let seen = match (&first, &second) {
        (Some(first), Some(second)) => {
            let header = |slot: &Slot| slot.header().try_into().expect("a header");
            Some(SeenSlots { len, headers: [(0, header(first)), (second_at, header(second))] })
        }
        _ => None,
    };
    Ok(Slots { exists: true, len, both: [first, second], seen })
}

/// Whether the file holds what it held when `seen` was read. Reads two headers.
pub(crate) fn is_unchanged(storage: &dyn Storage, form: &SlotForm, seen: &SeenSlots) -> bool {
    let Ok(file) = storage.open(&form.file, Access::Read) else { return false };
    let holds = |(position, header): &(u64, [u8; HEADER_LEN])| {
        let mut now = [0; HEADER_LEN];
        matches!(read_all(&*file, &mut now, *position), Ok(HEADER_LEN)) && now == *header
    };
    file.len().is_ok_and(|len| len == seen.len) && seen.headers.iter().all(holds)
}

/// The slot at `position`; `None` where none is whole and valid.
fn read_slot(file: &dyn StorageFile, position: u64, len: u64, form: &SlotForm) -> Result<Option<Slot>> {
    let mut bytes = vec![0; HEADER_LEN];
    if !matches!(read_all(file, &mut bytes, position), Ok(HEADER_LEN)) || !bytes.starts_with(form.magic) {
        return Ok(None);
    }
    let payload_len = u32_at(&bytes, 12) as usize;
    let whole_len = HEADER_LEN.saturating_add(payload_len);
    // No more is taken than the file has.
    if whole_len > SLOT_BYTES_MAX || position.saturating_add(whole_len as u64) > len {
        return Ok(None);
    }
    bytes.resize(whole_len, 0);
    // Header and payload in one call: a write between two calls would leave a sum that does not hold.
    if !matches!(read_all(file, &mut bytes, position), Ok(read) if read == whole_len) {
        return Ok(None);
    }
    decode(bytes, form)
}

/// The slot that `bytes` are, to their end.
///
/// # Errors
/// Only [`Error::UnsupportedVersion`]: a whole slot of a format that this version does not know.
fn decode(bytes: Vec<u8>, form: &SlotForm) -> Result<Option<Slot>> {
    let is_whole = bytes.starts_with(form.magic)
        && u32_at(&bytes, 12) as usize == bytes.len() - HEADER_LEN
        && crc32fast::hash(&bytes[12..]) == u32_at(&bytes, 8);
    if !is_whole {
        return Ok(None);
    }
    let (version, features) = (u16::from_be_bytes([bytes[16], bytes[17]]), u32_at(&bytes, 24));
    if version > form.version || features != 0 {
        let (file, known) = (form.file.clone(), form.version);
        return Err(Error::UnsupportedVersion { file, found: version, features, known });
    }
    let sequence = u64::from_be_bytes(bytes[32..40].try_into().expect("eight bytes"));
    Ok(Some(Slot { size: u32_at(&bytes, 28) as usize, sequence, bytes }))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads until `buffer` is full or the file ends. A disk that refuses once is asked again.
fn read_all(file: &dyn StorageFile, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let at = position + filled as u64;
        match file.read_at(&mut buffer[filled..], at).or_else(|_| file.read_at(&mut buffer[filled..], at))? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// A file with two slots, open for writing.
#[derive(Debug)]
pub(crate) struct TwoSlot {
    storage: Arc<dyn Storage>,
    form: SlotForm,
    file: Option<Arc<dyn StorageFile>>,
    slot_len: usize,
    sequence: u64,
    /// The slot that holds may stand in the page cache alone: a flush may have failed since this machine booted.
    unconfirmed: bool,
    /// A file is there of which neither slot holds.
    lost: bool,
}

impl TwoSlot {
    /// Opens the file for writing, or prepares to create it. `found` is what [`read_slots`] has answered.
    pub(crate) fn open(storage: &Arc<dyn Storage>, form: SlotForm, found: &Slots) -> TwoSlot {
        let _ = storage.remove_file(&part_of(&form.file));
        let newest = found.newest().and_then(|at| found.both[at].as_ref());
        let (mut slot_len, mut sequence) = newest.map_or((0, 0), |slot| (slot.size, slot.sequence));
        // A file whose slots do not fill it exactly is written again under another name by the next write.
        let fits = slot_len > 0 && found.len == 2 * slot_len as u64 && sequence < SEQUENCE_MAX;
        let file = if fits { storage.open(&form.file, Access::Write).ok() } else { None };
        if file.is_none() {
            slot_len = 0;
        }
        if sequence >= SEQUENCE_MAX {
            sequence = 0;
        }
        let lost = newest.is_none() && found.exists && found.len > 0;
        TwoSlot { storage: Arc::clone(storage), form, file, slot_len, sequence, unconfirmed: false, lost }
    }

    /// The slot that holds is written again, the same bytes, before anything else is.
    pub(crate) fn doubt(&mut self) {
        self.unconfirmed = !bug(self.form.mutants.trust_the_cached_slot);
    }

    /// Writes the slot that holds once more, in place, and flushes: after a failed flush the page cache shows what the
    /// device never got, and writing the other slot over would leave nothing but what was before both.
    fn confirm(&mut self) -> Result<()> {
        if let (true, Some(file)) = (self.unconfirmed, &self.file) {
            let name = &self.form.file;
            let position = (self.sequence % 2) * self.slot_len as u64;
            let mut slot = vec![0; self.slot_len];
            let read = file.read_at(&mut slot, position).map_err(Error::storage("read", name))?;
            file.write_at(&slot[..read], position).map_err(Error::storage("write", name))?;
            file.flush().map_err(Error::storage("flush", name))?;
            // The name may be as new as the bytes. (The topics' names last by this, too.)
            if !bug(Bug::ServeUnsyncedTopics) {
                self.sync_dir()?;
            }
        }
        self.unconfirmed = false;
        Ok(())
    }

    /// Makes the file's name durable.
    fn sync_dir(&self) -> Result<()> {
        let dir = dir_of(&self.form.file);
        let name = if dir.is_empty() { "." } else { dir };
        self.storage.sync_dir(dir).map_err(Error::storage("sync directory", name))
    }

    /// Writes one slot, the older one. Durable on return.
    ///
    /// `body` is a header, of which the fields of this module are set here, and the payload.
    pub(crate) fn write(&mut self, body: &mut [u8]) -> Result<()> {
        if body.len() > SLOT_BYTES_MAX {
            // What no reader takes is not written.
            let text = format!("{} bytes, {SLOT_BYTES_MAX} are allowed", body.len());
            let error = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(Error::storage("write", &self.form.file)(error));
        }
        self.confirm()?;
        if body.len() > self.slot_len || self.file.is_none() {
            return self.write_again(body);
        }
        self.write_slot(body, if bug(self.form.mutants.overwrite_the_holding_slot) { 2 } else { 1 })
    }

    /// Writes both slots, one after the other. Durable on return.
    pub(crate) fn write_both(&mut self, body: &mut [u8]) -> Result<()> {
        self.write(body)?;
        if bug(Bug::MarkOneSlot) {
            return Ok(());
        }
        self.write_slot(body, 1)
    }

    /// Writes the slot whose turn it is `further` numbers from the one that holds.
    fn write_slot(&mut self, body: &mut [u8], further: u64) -> Result<()> {
        let file = self.file.as_ref().expect("the caller saw to it");
        // Counted on only when it lasted: what failed half way is written over before the slot that holds is.
        let sequence = self.sequence + further;
        seal(body, &self.form, self.slot_len, sequence);
        let position = (sequence % 2) * self.slot_len as u64;
        file.write_at(body, position).map_err(Error::storage("write", &self.form.file))?;
        if !bug(self.form.mutants.leave_it_unflushed) {
            file.flush().map_err(Error::storage("flush", &self.form.file))?;
        }
        self.sequence = sequence;
        Ok(())
    }

    /// Writes a new file with larger slots, both of them filled, and puts it in the old one's place.
    #[cold]
    fn write_again(&mut self, body: &mut [u8]) -> Result<()> {
        // Room for twice as much, so that growing stays rare.
        let slot_len = (body.len() * 2).max(self.form.slot_bytes_min).next_multiple_of(SLOT_ALIGN);
        let (name, part) = (&self.form.file, part_of(&self.form.file));
        let _ = self.storage.remove_file(&part);
        let file = self.storage.open(&part, Access::CreateNew).map_err(Error::storage("create", &part))?;
        match file.reserve(2 * slot_len as u64) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                file.truncate(2 * slot_len as u64).map_err(Error::storage("extend", &part))?;
            }
            reserved => reserved.map_err(Error::storage("reserve room in", &part))?,
        }
        let mut sequence = self.sequence;
        for _ in 0..2 {
            sequence += 1;
            seal(body, &self.form, slot_len, sequence);
            // To the end of the slot: where the first write to room that was only reserved fails, ext4 may lose the
            // next ones, too.
            let mut whole = body.to_vec();
            whole.resize(slot_len, 0);
            let position = (sequence % 2) * slot_len as u64;
            file.write_at(&whole, position).map_err(Error::storage("write", &part))?;
        }
        if !bug(Bug::SwapInUnflushedCheckpoint) {
            file.flush().map_err(Error::storage("flush", &part))?;
        }
        if self.lost {
            // Nothing of which a person might still make something is destroyed. A cut behind this leaves no file, as
            // before.
            let _ = self.storage.rename(name, &format!("{name}.lost"));
            self.lost = false;
        }
        self.storage.rename(&part, name).map_err(Error::storage("swap in", name))?;
        self.sequence = sequence;
        // The open file has no name any more: should the new name not last either, the next write makes a file again.
        (self.file, self.slot_len) =
            if bug(Bug::TrustTheNewName) { (Some(Arc::clone(&file)), slot_len) } else { (None, 0) };
        self.sync_dir()?;
        (self.file, self.slot_len) = (Some(file), slot_len);
        self.unconfirmed = false;
        Ok(())
    }
}

/// The directory that a file stands in; empty for the data directory itself.
fn dir_of(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn part_of(file: &str) -> String {
    format!("{file}.part")
}

/// Puts the fields of this module into the header of `body`.
fn seal(body: &mut [u8], form: &SlotForm, slot_len: usize, sequence: u64) {
    let payload_len = (body.len() - HEADER_LEN) as u32;
    body[..8].copy_from_slice(form.magic);
    body[12..16].copy_from_slice(&payload_len.to_be_bytes());
    body[16..18].copy_from_slice(&form.version.to_be_bytes());
    body[28..32].copy_from_slice(&(slot_len as u32).to_be_bytes());
    body[32..40].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32fast::hash(&body[12..]);
    body[8..12].copy_from_slice(&crc.to_be_bytes());
    debug_assert!(
        matches!(decode(body.to_vec(), form), Ok(Some(slot)) if (slot.size, slot.sequence) == (slot_len, sequence)),
        "what is written to {} is read again",
        form.file
    );
}

/// What a file that was replaced survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// A power cut leaves the old file or the new one; the new one on return.
    PowerCut,
    /// The end of this process. Nothing is asked of the disk: for files that are derived, or that count within one
    /// boot of the machine.
    Process,
}

/// Writes `bytes` under another name and puts that file in place of `path`: nothing reads half of it.
///
/// # Errors
/// Those of the disk; the file is then as it was.
pub(crate) fn replace(storage: &dyn Storage, path: &str, bytes: &[u8], lasting: Lasting) -> io::Result<()> {
    let part = part_of(path);
    remove_if_there(storage, &part)?;
    let file = storage.open(&part, Access::CreateNew)?;
    file.write_at(bytes, 0)?;
    if lasting == Lasting::PowerCut {
        file.flush()?;
    }
    storage.rename(&part, path)?;
    if lasting == Lasting::PowerCut {
        storage.sync_dir(dir_of(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::storage::tests::flip_a_byte;

    fn form() -> SlotForm {
        let mutants = SlotMutants {
            overwrite_the_holding_slot: Bug::OverwriteTheHoldingSlot,
            trust_the_cached_slot: Bug::TrustTheCachedSlot,
            leave_it_unflushed: Bug::LeaveTheSlotUnflushed,
        };
        SlotForm { file: "f".to_owned(), magic: b"EDGETEST", version: 1, slot_bytes_min: 0, mutants }
    }

    fn body(payload: &[u8]) -> Vec<u8> {
        [&[0; HEADER_LEN], payload].concat()
    }

    fn newest(storage: &dyn Storage) -> Option<Vec<u8>> {
        let found = read_slots(storage, &form()).unwrap();
        found.newest().map(|at| found.both[at].as_ref().unwrap().payload().to_vec())
    }

    fn open(storage: &Arc<dyn Storage>) -> TwoSlot {
        TwoSlot::open(storage, form(), &read_slots(&**storage, &form()).unwrap())
    }

    #[test]
    fn the_newer_slot_counts_and_a_write_since_the_last_look_is_seen() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut file = open(&storage);
        assert_eq!(newest(&*storage), None);
        let mut before: Option<SeenSlots> = None;
        for payload in [b"one".to_vec(), b"two".to_vec(), vec![7; 9000], Vec::new(), b"five".to_vec()] {
            file.write(&mut body(&payload)).unwrap();
            assert_eq!(newest(&*storage), Some(payload));
            let found = read_slots(&*storage, &form()).unwrap();
            assert!(before.is_none_or(|before| !is_unchanged(&*storage, &form(), &before)));
            assert!(is_unchanged(&*storage, &form(), found.seen().unwrap()));
            before = found.seen().cloned();
        }
        assert!(!read_slots(&*storage, &form()).unwrap().agree());
        open(&storage).write_both(&mut body(b"six")).unwrap();
        assert!(read_slots(&*storage, &form()).unwrap().agree());
        storage.remove_file("f").unwrap();
        assert!(!is_unchanged(&*storage, &form(), &before.unwrap()));
    }

    /// A slot whose payload is not whole yet is looked at again, although its header stays.
    #[test]
    fn a_slot_in_the_making_is_not_taken_for_seen() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut file = open(&storage);
        file.write(&mut body(b"one")).unwrap();
        file.write(&mut body(b"two")).unwrap();
        let raw = storage.open("f", Access::Write).unwrap();
        flip_a_byte(&*raw, HEADER_LEN as u64);
        let found = read_slots(&*storage, &form()).unwrap();
        assert!(found.newest().is_some() && found.seen().is_none());
    }

    #[test]
    fn a_sequence_that_was_never_counted_up_to_does_not_stop_the_file() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        open(&storage).write(&mut body(b"one")).unwrap();
        let raw = storage.open("f", Access::Write).unwrap();
        let mut slot = body(b"two");
        seal(&mut slot, &form(), SLOT_ALIGN, u64::MAX);
        raw.write_at(&slot, 0).unwrap();
        assert_eq!(newest(&*storage).unwrap(), b"two");
        let mut file = open(&storage);
        for payload in [b"three", b"four!"] {
            file.write(&mut body(payload)).unwrap();
            assert_eq!(newest(&*storage).unwrap(), payload);
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let storage = MemoryStorage::new();
        storage.create_dir("d").unwrap();
        for (bytes, lasting) in [(&b"longer"[..], Lasting::PowerCut), (b"short", Lasting::Process)] {
            replace(&storage, "d/f", bytes, lasting).unwrap();
            let mut read = [0; 9];
            let len = storage.open("d/f", Access::Read).unwrap().read_at(&mut read, 0).unwrap();
            assert_eq!(&read[..len], bytes);
            assert_eq!(storage.read_dir("d").unwrap().len(), 1);
        }
    }
}
