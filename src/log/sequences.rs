//! How far named producers came in one log: found by a walk over its batches, from what a small file says.
//!
//! A batch of a named producer has its producer id, epoch and base sequence in Kafka's fields. Its records' numbers
//! have 63 bits; the batch has the lower 31 of the first one's. Numbers of one producer rise along the log, so the
//! upper bits follow: each batch's first number is the next one behind the number before it that ends in these 31
//! bits. Where a producer passes over 2^31 numbers or more, the file gets the number before the batch, durably, and
//! first.
//!
//! # `edgelog.sequences`
//!
//! One file in the partition's directory, of two slots (see `storage::small_file`, which has the fields that all such
//! files share). Its payload are entries, sorted by producer and `at`:
//!
//! | size | field |
//! |---|---|
//! | 8 | producer: its first id, i64 |
//! | 8 | number of its last record below `at`; -1 where there is none |
//! | 8 | `at`: an offset, i64 |
//! | 4 | leader epoch of the record before `at`, i32 |
//!
//! An entry counts what whole batches stand below `at`. It holds where `at` is not above the log start, since nothing
//! is truncated there, or where the record before `at` is of the epoch that it says: an offset and an epoch name one
//! record of one history. So what a crash or a truncation takes from the log, it takes from here as well.
//!
//! An entry is written before retention deletes a batch of a named producer, before its number jumps, at a producer's
//! first look, and at a look that had to walk far.

use std::io;
use std::sync::Arc;

use edgelog_core::config::IsolationLevel;
use edgelog_core::{LeaderEpoch, Offset, RecordBatch};

use super::handle::Log;
use super::read::Reader;
use super::shared::LogShared;
use super::types::{OffsetSpec, ReadUpTo, ReaderOptions};
use crate::canary::{Bug, bug};
use crate::error::{Error, Result};
use crate::segment::file_names::SEQUENCES;
use crate::sorted::sorted;
use crate::storage::small_file::{HEADER_LEN, SlotForm, SlotMutants, TwoSlot, read_slots};
use crate::sync::Ordering;

const MAGIC: &[u8; 8] = b"EDGESEQS";
const VERSION: u16 = 1;
const ENTRY_LEN: usize = 28;
/// So many entries of one producer are kept in a log: the oldest, and the newest others.
const ENTRIES_MAX: usize = 8;
/// A look that walked over more bytes leaves an entry, so that the next one does not.
const WALK_BYTES_MAX: u64 = 1 << 20;
/// Records' numbers end here.
pub(crate) const NUMBER_MAX: i64 = 1 << 62;
/// What of a number a batch has.
pub(crate) const SEQUENCE_MASK: i64 = 0x7fff_ffff;

/// What the log says of a named producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// The number of its last record; -1 where there is none.
    pub(crate) last: i64,
    /// Where its last batches stand, in order.
    pub(crate) recent: Vec<NumberedBatch>,
    /// Of numbers up to this one it is not known whether they are in the log; -1 where all are known.
    pub(crate) unknown_to: i64,
    /// The history that this is of: a truncation begins another one.
    pub(crate) generation: u64,
}

/// One batch of a named producer: the numbers of its records, and where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumberedBatch {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) base_offset: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
}

impl Numbered {
    /// So many batches are remembered; Kafka's brokers remember five.
    const RECENT_MAX: usize = 64;

    fn new(last: i64, generation: u64) -> Numbered {
        Numbered { last, recent: Vec::new(), unknown_to: last, generation }
    }

    /// Takes in the producer's next batch.
    pub(crate) fn note(&mut self, batch: NumberedBatch) {
        if self.recent.len() == Self::RECENT_MAX {
            self.unknown_to = self.recent.remove(0).last;
        }
        self.last = batch.last;
        self.recent.push(batch);
    }

    /// The batch that has this number.
    pub(crate) fn find(&self, number: i64) -> Option<&NumberedBatch> {
        let behind = self.recent.partition_point(|batch| batch.last < number);
        self.recent.get(behind).filter(|batch| batch.first <= number)
    }

    /// Takes in a batch of the log.
    fn note_stored(&mut self, batch: &RecordBatch<'_>) {
        let first = number_behind(self.last, batch.base_sequence());
        let last = first.saturating_add(i64::from(batch.last_offset_delta()));
        let (base_offset, leader_epoch) = (batch.base_offset(), batch.partition_leader_epoch());
        self.note(NumberedBatch { first, last, base_offset, leader_epoch });
    }
}

/// The first number behind `last` that a batch with this base sequence can have.
fn number_behind(last: i64, base_sequence: i32) -> i64 {
    let next = last.saturating_add(1);
    next.saturating_add((i64::from(base_sequence) - next) & SEQUENCE_MASK)
}

/// An entry of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    producer: i64,
    at: Offset,
    epoch: LeaderEpoch,
    last: i64,
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.producer.to_be_bytes());
        out.extend_from_slice(&self.last.to_be_bytes());
        out.extend_from_slice(&self.at.0.to_be_bytes());
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
    }

    fn decode(bytes: &[u8; ENTRY_LEN]) -> Entry {
        let number = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let epoch = i32::from_be_bytes(bytes[24..].try_into().expect("four bytes"));
        Entry { producer: number(0), last: number(8), at: Offset(number(16)), epoch: LeaderEpoch(epoch) }
    }
}

/// A producer, as the walk counts it.
struct Counted {
    producer: i64,
    /// Only batches that end behind are counted.
    from: Offset,
    numbered: Numbered,
}

impl Log {
    /// How far the producer with these ids came in this log. The first id names it. Where the file has no entry for it
    /// yet, one is written.
    ///
    /// # Errors
    /// Those of the disk; [`Error::Storage`] where the file has no valid slot.
    ///
    /// # Concurrency
    /// No batch of the producer is appended meanwhile, which is the caller's to see to.
    pub(crate) fn numbered(&self, ids: &[i64]) -> Result<Numbered> {
        let log = &self.shared;
        let _file = log.sequences.lock();
        let generation = log.generation.load(Ordering::Acquire);
        let end = log.log_end_offset.load(Ordering::Acquire);
        let mut entries = log.read_sequences()?;
        let known = log.newest_entry(&entries, ids[0], end);
        let from = known.map_or(Offset(0), |entry| entry.at);
        let numbered = Numbered::new(known.map_or(-1, |entry| entry.last), generation);
        let mut counted = [Counted { producer: ids[0], from, numbered }];
        let by_id = sorted(ids.iter().map(|id| (*id, 0)).collect());
        let walked = if bug(Bug::TrustTheSequencesAlone) { 0 } else { log.count(from, end, &by_id, &mut counted)? };
        let [Counted { numbered, .. }] = counted;
        if known.is_none() || walked > WALK_BYTES_MAX {
            log.add_entry(&mut entries, ids[0], numbered.last, end);
            log.write_sequences(&entries)?;
        }
        Ok(numbered)
    }

    /// Notes that the producer goes on behind `last`, from the log's end on. Durable on return.
    ///
    /// # Errors
    /// As [`numbered`](Log::numbered).
    pub(crate) fn note_jump(&self, ids: &[i64], last: i64) -> Result<()> {
        let log = &self.shared;
        let _file = log.sequences.lock();
        let mut entries = log.read_sequences()?;
        log.add_entry(&mut entries, ids[0], last, log.log_end_offset.load(Ordering::Acquire));
        log.write_sequences(&entries)
    }

    /// Counts truncations: what is known of the log's end is of one history.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }
}

impl LogShared {
    /// Notes how far named producers came below `start`, before the batches there are deleted. Durable on return.
    ///
    /// A file that is damaged stays as it is, and keeps nothing from being deleted: its producers answer an error.
    pub(super) fn keep_sequences(self: &Arc<Self>, start: Offset) -> Result<()> {
        let producers = self.host()?.producer_ids()?;
        if producers.is_empty() || bug(Bug::ForgetWhatRetentionTakes) {
            return Ok(());
        }
        let _file = self.sequences.lock();
        let mut entries = match self.read_sequences() {
            Err(Error::Storage { source, .. }) if source.kind() == io::ErrorKind::InvalidData => return Ok(()),
            entries => entries?,
        };
        let generation = self.generation.load(Ordering::Acquire);
        let end = self.log_end_offset.load(Ordering::Acquire);
        let all = entries.len();
        // One of another history must not come to lie below the log start, where each is believed.
        entries.retain(|entry| self.is_of_this_history(entry, end));
        let mut is_changed = entries.len() < all;
        let (mut by_id, mut counted) = (Vec::new(), Vec::new());
        for ids in &producers {
            let known = self.newest_entry(&entries, ids[0], end);
            if known.is_some_and(|entry| entry.at >= start) {
                continue;
            }
            by_id.extend(ids.iter().map(|id| (*id, counted.len())));
            let numbered = Numbered::new(known.map_or(-1, |entry| entry.last), generation);
            let from = known.map_or(Offset(0), |entry| entry.at);
            counted.push(Counted { producer: ids[0], from, numbered });
        }
        if let Some(from) = counted.iter().map(|counted| counted.from).min() {
            self.count(from, start, &sorted(by_id), &mut counted)?;
        }
        for counted in counted.iter().filter(|counted| counted.numbered.last >= 0) {
            self.add_entry(&mut entries, counted.producer, counted.numbered.last, start);
            is_changed = true;
        }
        if is_changed { self.write_sequences(&entries) } else { Ok(()) }
    }

    /// The newest entry of a producer that holds.
    fn newest_entry(&self, entries: &[Entry], producer: i64, end: Offset) -> Option<Entry> {
        let holds = |entry: &&Entry| entry.producer == producer && self.is_of_this_history(entry, end);
        entries.iter().filter(holds).max_by_key(|entry| entry.at).copied()
    }

    fn is_of_this_history(&self, entry: &Entry, end: Offset) -> bool {
        let start = self.log_start_offset.load(Ordering::Acquire);
        entry.at <= start || (entry.at <= end && self.epoch_before(entry.at) == entry.epoch)
    }

    /// Adds an entry, and takes those out that it makes useless.
    fn add_entry(&self, entries: &mut Vec<Entry>, producer: i64, last: i64, at: Offset) {
        let end = self.log_end_offset.load(Ordering::Acquire);
        let start = self.log_start_offset.load(Ordering::Acquire);
        entries.retain(|entry| entry.producer != producer || (entry.at != at && self.is_of_this_history(entry, end)));
        entries.push(Entry { producer, at, epoch: self.epoch_before(at), last });
        *entries = sorted(std::mem::take(entries));
        let its = |entry: &&Entry| entry.producer == producer;
        // Below the log start only the newest counts.
        let floor = entries.iter().filter(its).map(|entry| entry.at).filter(|at| *at <= start).max();
        entries.retain(|entry| entry.producer != producer || floor.is_none_or(|floor| entry.at >= floor));
        if entries.iter().filter(its).count() > ENTRIES_MAX {
            let second = entries.iter().position(|entry| entry.producer == producer).map(|first| first + 1);
            second.map(|second| entries.remove(second));
        }
    }

    /// Counts the batches from `from` on that end below `until`, of the producers in `by_id`, which is sorted. Returns
    /// how many bytes were walked over.
    fn count(
        self: &Arc<Self>,
        from: Offset,
        until: Offset,
        by_id: &[(i64, usize)],
        counted: &mut [Counted],
    ) -> Result<u64> {
        let mut position = from.max(self.log_start_offset.load(Ordering::Acquire));
        if position >= until {
            return Ok(0);
        }
        let options =
            ReaderOptions { up_to: ReadUpTo::LogEnd, check_crcs: true, isolation: IsolationLevel::ReadUncommitted };
        let mut reader = Reader::over_everything(Arc::clone(self), options);
        reader.seek(OffsetSpec::Offset(position))?;
        let mut bytes = 0;
        while position < until {
            match reader.next_batch() {
                Ok(Some(batch)) => {
                    let view = batch.view();
                    position = view.last_offset() + 1;
                    if position > until {
                        break;
                    }
                    bytes += view.size() as u64;
                    let found = by_id.binary_search_by_key(&view.producer_id(), |(id, _)| *id);
                    let producer = found.ok().map(|found| &mut counted[by_id[found].1]);
                    if let Some(producer) = producer.filter(|producer| view.last_offset() >= producer.from) {
                        if !view.is_control() && !view.is_transactional() && view.record_count() > 0 {
                            producer.numbered.note_stored(&view);
                        }
                    }
                }
                Ok(None) => break,
                // What is damaged is reported where it is read. Numbers behind it count.
                Err(error) if error.is_corrupt() => position = reader.skip_damage()?.next_offset.max(position),
                Err(Error::OffsetOutOfRange { requested, log_start_offset, .. }) if requested < log_start_offset => {
                    reader.seek(OffsetSpec::Offset(log_start_offset))?;
                    position = log_start_offset;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    fn sequences_form(&self) -> SlotForm {
        let mutants = SlotMutants {
            overwrite_the_holding_slot: Bug::OverwriteTheProducers,
            trust_the_cached_slot: Bug::TrustTheCachedProducers,
            leave_it_unflushed: Bug::LeaveTheProducersUnflushed,
        };
        let file = format!("{}/{SEQUENCES}", self.dir);
        SlotForm { file, magic: MAGIC, version: VERSION, slot_bytes_min: 0, mutants }
    }

    /// The file's entries.
    fn read_sequences(&self) -> Result<Vec<Entry>> {
        let form = self.sequences_form();
        let found = read_slots(&*self.storage, &form)?;
        let Some(slot) = found.newest().and_then(|at| found.both[at].as_ref()) else {
            if !found.exists {
                return Ok(Vec::new());
            }
            let reason = "it is damaged: without it, records of named producers may be appended twice; remove it to \
                          let them go on with what the log alone says";
            let error = io::Error::new(io::ErrorKind::InvalidData, reason);
            return Err(Error::storage("read", &form.file)(error));
        };
        let whole = slot.payload().chunks_exact(ENTRY_LEN);
        Ok(whole.map(|bytes| Entry::decode(bytes.try_into().expect("an entry's length"))).collect())
    }

    fn write_sequences(&self, entries: &[Entry]) -> Result<()> {
        self.check_writable()?;
        let form = self.sequences_form();
        let found = read_slots(&*self.storage, &form)?;
        let mut slots = TwoSlot::open(&self.storage, form, &found);
        // A process before may have died of a flush that failed.
        slots.doubt();
        let mut body = vec![0; HEADER_LEN];
        for entry in entries {
            entry.encode(&mut body);
        }
        slots.write(&mut body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_follows_from_the_one_before_and_its_lower_bits() {
        for (last, first) in
            [(-1, 0), (-1, 5), (7, 8), (7, 1 << 31), (SEQUENCE_MASK, 1 << 31), (1 << 40, (1 << 40) + 9)]
        {
            assert_eq!(number_behind(last, (first & SEQUENCE_MASK) as i32), first, "behind {last}");
        }
        // The greatest step that needs no entry, and the first that does.
        assert_eq!(number_behind(-1, i32::MAX), SEQUENCE_MASK);
        assert_eq!(number_behind(10, 10), 10 + (1 << 31));
    }

    #[test]
    fn a_batch_is_found_by_its_numbers_and_holes_are_not() {
        let mut numbered = Numbered::new(-1, 0);
        for at in 0..100 {
            let (first, last) = (at * 10, at * 10 + 4);
            numbered.note(NumberedBatch { first, last, base_offset: Offset(at * 5), leader_epoch: LeaderEpoch(0) });
        }
        assert_eq!(numbered.find(992).map(|batch| batch.base_offset), Some(Offset(495)));
        assert_eq!((numbered.find(995), numbered.find(989), numbered.find(3)), (None, None, None));
        assert_eq!((numbered.last, numbered.unknown_to), (994, 354));
    }
}
