//! Named producers: which name has which producer id, and in which epoch it is.
//!
//! # `edgelog.producers`
//!
//! One file in the data directory, of two slots (see `storage::small_file`, which has the fields that all such files
//! share). Its payload:
//!
//! | size | field |
//! |---|---|
//! | 8 | the next producer id to give out, i64 |
//! | ... | the names |
//!
//! A name: length u16 and bytes; epoch i16; number of ids u16, and the ids, i64 each, oldest first. The last one is in
//! use. A name gets another id when its epochs are used up; its records have had all of them.
//!
//! The first id of a store is random, of 61 bits, and the others count up from there: a broker's ids, which imported
//! logs carry, are small numbers, and a store that lost this file gives out none that it gave before. A file that is
//! there without a valid slot is an error: its names would begin again, and repeat what they sent.
//!
//! An epoch is written and flushed before a producer has it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::random_id::random_id;
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::storage::small_file::{HEADER_LEN, SlotForm, SlotMutants, TwoSlot, read_slots};
use crate::sync::RwLock;

const FILE: &str = "edgelog.producers";
const MAGIC: &[u8; 8] = b"EDGEPIDS";
const VERSION: u16 = 1;
/// The greatest epoch of a producer id, as in Kafka.
const EPOCH_MAX: i16 = i16::MAX - 1;
/// So many names a store has at most.
const NAMES_MAX: usize = 10_000;

/// The newest epoch of a name. Who appends holds it for reading meanwhile, so that none of an older one does so behind
/// the moment at which a newer one is there.
pub(crate) type Fence = Arc<RwLock<(i64, i16)>>;

/// One producer of a name.
#[derive(Debug, Clone)]
pub(crate) struct ProducerIdentity {
    pub(crate) name: String,
    /// All ids of the name; the last one is in use.
    pub(crate) ids: Vec<i64>,
    pub(crate) epoch: i16,
    pub(crate) fence: Fence,
}

impl ProducerIdentity {
    /// The id in use.
    pub(crate) fn id(&self) -> i64 {
        *self.ids.last().expect("a name has an id")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    ids: Vec<i64>,
    epoch: i16,
}

/// The names of one store.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    /// What the file says, from the first look on.
    known: Option<Known>,
    fences: BTreeMap<String, Fence>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    next_id: i64,
    names: BTreeMap<String, Named>,
}

impl ProducerIds {
    /// The ids of each name.
    ///
    /// # Errors
    /// Those of the disk; [`Error::Storage`] where the file has no valid slot.
    pub(crate) fn ids(&mut self, storage: &dyn Storage) -> Result<Vec<Vec<i64>>> {
        Ok(self.known(storage)?.names.values().map(|named| named.ids.clone()).collect())
    }

    fn known(&mut self, storage: &dyn Storage) -> Result<&mut Known> {
        if self.known.is_none() {
            self.known = Some(read(storage)?);
        }
        Ok(self.known.as_mut().expect("it was read"))
    }

    /// The next producer of a name: of a new epoch, durable on return, in which no other one is.
    pub(super) fn open(&mut self, storage: &Arc<dyn Storage>, name: &str) -> Result<ProducerIdentity> {
        let mut known = self.known(&**storage)?.clone();
        if known.names.len() >= NAMES_MAX && !known.names.contains_key(name) {
            let reason = format!("{NAMES_MAX} producers have names, and no more are allowed");
            return Err(Error::storage("add a name to", FILE)(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let named = known.names.entry(name.to_owned()).or_insert(Named { ids: Vec::new(), epoch: EPOCH_MAX });
        if named.epoch >= EPOCH_MAX {
            named.ids.push(known.next_id);
            named.epoch = 0;
            known.next_id += 1;
        } else {
            named.epoch += 1;
        }
        let named = named.clone();
        if !bug(Bug::KeepTheProducersEpoch) || named.epoch == 0 {
            write(storage, &known)?;
        }
        self.known = Some(known);
        let newest = (*named.ids.last().expect("a name has an id"), named.epoch);
        let fence = self.fences.entry(name.to_owned()).or_insert_with(|| Arc::new(RwLock::new(newest)));
        // Waits for who appends, and ends what it may do.
        if !bug(Bug::FenceNoProducer) {
            *fence.write() = newest;
        }
        Ok(ProducerIdentity { name: name.to_owned(), ids: named.ids, epoch: named.epoch, fence: Arc::clone(fence) })
    }
}

fn form() -> SlotForm {
    let mutants = SlotMutants {
        overwrite_the_holding_slot: Bug::OverwriteTheProducers,
        trust_the_cached_slot: Bug::TrustTheCachedProducers,
        leave_it_unflushed: Bug::LeaveTheProducersUnflushed,
    };
    SlotForm { file: FILE.to_owned(), magic: MAGIC, version: VERSION, slot_bytes_min: 0, mutants }
}

fn read(storage: &dyn Storage) -> Result<Known> {
    let found = read_slots(storage, &form())?;
    if !found.exists {
        let first = i64::from_be_bytes(random_id().to_bytes()[..8].try_into().expect("eight bytes"));
        return Ok(Known { next_id: (first & ((1 << 60) - 1)) | 1 << 60, names: BTreeMap::new() });
    }
    let slot = found.newest().and_then(|at| found.both[at].as_ref());
    slot.and_then(|slot| decode(slot.payload())).ok_or_else(|| {
        let reason = "it is damaged: without it, named producers begin again, and may append twice what they sent; \
                      remove it to let them";
        Error::storage("read", FILE)(io::Error::new(io::ErrorKind::InvalidData, reason))
    })
}

fn decode(payload: &[u8]) -> Option<Known> {
    let mut rest = payload;
    let mut take = |len: usize| {
        let (taken, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(taken)
    };
    let mut known = Known { next_id: i64::from_be_bytes(take(8)?.try_into().ok()?), names: BTreeMap::new() };
    loop {
        let Some(len) = take(2) else { return Some(known) };
        let len = u16::from_be_bytes(len.try_into().ok()?);
        let name = std::str::from_utf8(take(len.into())?).ok()?.to_owned();
        let epoch = i16::from_be_bytes(take(2)?.try_into().ok()?);
        let count = u16::from_be_bytes(take(2)?.try_into().ok()?);
        let ids = take(usize::from(count) * 8)?.chunks_exact(8);
        let ids: Vec<i64> = ids.map(|id| i64::from_be_bytes(id.try_into().expect("eight bytes"))).collect();
        if ids.is_empty() {
            return None;
        }
        known.names.insert(name, Named { ids, epoch });
    }
}

fn write(storage: &Arc<dyn Storage>, known: &Known) -> Result<()> {
    let mut body = vec![0; HEADER_LEN];
    body.extend_from_slice(&known.next_id.to_be_bytes());
    for (name, Named { ids, epoch }) in &known.names {
        body.extend_from_slice(&(name.len() as u16).to_be_bytes());
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&epoch.to_be_bytes());
        body.extend_from_slice(&(ids.len() as u16).to_be_bytes());
        for id in ids {
            body.extend_from_slice(&id.to_be_bytes());
        }
    }
    let found = read_slots(&**storage, &form())?;
    let mut slots = TwoSlot::open(storage, form(), &found);
    // A process before may have died of a flush that failed.
    slots.doubt();
    slots.write(&mut body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tests::flip_a_byte;
    use crate::storage::{Access, MemoryStorage};

    #[test]
    fn a_name_keeps_its_id_and_its_epoch_rises_with_each_producer() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut ids = ProducerIds::default();
        let first = ids.open(&storage, "a").unwrap();
        let other = ids.open(&storage, "b").unwrap();
        assert_eq!((first.epoch, other.epoch, other.id()), (0, 0, first.id() + 1));
        assert!(first.id() >= 1 << 60, "a broker's ids are small: {}", first.id());
        // Another process.
        let mut ids = ProducerIds::default();
        let second = ids.open(&storage, "a").unwrap();
        assert_eq!((second.ids, second.epoch), (first.ids, 1));
        assert_eq!(ids.open(&storage, "c").unwrap().id(), other.id() + 1);
        assert_eq!(ids.ids(&*storage).unwrap().len(), 3);
    }

    #[test]
    fn a_name_whose_epochs_are_used_up_gets_another_id_and_keeps_the_old_one() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        let mut ids = ProducerIds::default();
        let first = ids.open(&storage, "a").unwrap();
        let known = ids.known.as_mut().unwrap();
        known.names.get_mut("a").unwrap().epoch = EPOCH_MAX - 1;
        assert_eq!(ids.open(&storage, "a").unwrap().epoch, EPOCH_MAX);
        let next = ids.open(&storage, "a").unwrap();
        assert_eq!((next.ids, next.epoch), (vec![first.id(), first.id() + 1], 0));
        assert_eq!(*next.fence.read(), (first.id() + 1, 0));
    }

    #[test]
    fn a_file_without_a_valid_slot_is_an_error_and_no_beginning() {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        ProducerIds::default().open(&storage, "a").unwrap();
        let file = storage.open(FILE, Access::Write).unwrap();
        for at in 0..file.len().unwrap() / 64 {
            flip_a_byte(&*file, at * 64 + 9);
        }
        let error = ProducerIds::default().open(&storage, "a").unwrap_err();
        assert!(error.to_string().contains("edgelog.producers"), "{error}");
    }
}
