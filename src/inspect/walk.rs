//! One `.log` file from its first byte to its last: batches that hold, and what lies between them.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use edgelog_core::{
    DecodeError, EpochTableView, HEADER_LEN, Offset, Plausible, RecordBatch, Resync, ScanRules, ScanStep,
    find_next_batch, scan_step,
};

use crate::storage::StorageFile;

/// The search behind damage moves on by this much at a time.
const SEARCH_STRIDE_BYTES: usize = 1 << 20;
/// At most so many times a file's bytes are checksummed in searches.
const CRC_PASSES_MAX: u64 = 8;
/// A larger batch is none, unless the topic allows it.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// So many batches behind damage are held against each other before one of them is believed.
const WITNESSES_MAX: usize = 16;
/// A byte that is lost has held at most so many records: the least record has seven bytes, and a codec makes at most a
/// thousand bytes of one. (A gap that repair or compaction left behind may be wider.)
const RECORDS_PER_BYTE_MAX: u64 = 150;

/// What the batches of a file are held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct WalkRules {
    /// The offset that has to come first; `None` takes any offsets in any order.
    pub(super) first_offset: Option<Offset>,
    /// Whether each base offset has to be the one that follows; else it may be greater.
    pub(super) contiguous: bool,
    /// All offsets lie before this one: the next segment's base, or `Offset::MAX`.
    pub(super) offset_end: Offset,
    /// `max.message.bytes` of the topic: the search behind damage looks for batches up to this size.
    pub(super) batch_bytes_max: usize,
}

/// What stands where the walk is.
#[derive(Debug)]
pub(super) enum Step {
    /// A batch that holds; [`Walker::batch`] lends it.
    Batch {
        /// Where it starts.
        position: u64,
    },
    /// Bytes that are no batch.
    Damage(Damage),
    /// Nothing but zeros up to the file's end.
    Zeros {
        /// Where they start.
        position: u64,
    },
    /// The file's end.
    End,
}

/// A stretch without a valid batch.
#[derive(Debug, Clone)]
pub(super) struct Damage {
    pub(super) position: u64,
    /// Where the next batch that holds starts; `None` where none does.
    pub(super) resumes_at: Option<u64>,
    /// The offset that was expected at `position`.
    pub(super) first_offset: Offset,
    /// Base offset of the next batch that holds.
    pub(super) next_offset: Option<Offset>,
    pub(super) cause: Cause,
    /// The search's effort was spent here; what lies behind was not looked at.
    pub(super) unread_from: Option<u64>,
    /// A batch stands there and holds in all but its base offset, which can only have been `first_offset`: its size.
    pub(super) wrong_base: Option<u32>,
}

/// Why bytes are no batch.
#[derive(Debug, Clone)]
pub(super) enum Cause {
    Decode(DecodeError),
    /// Zeros, and something else behind them.
    Hole,
    Unreadable(String),
    /// The batch reaches beyond where the next segment starts.
    BeyondEnd {
        last_offset: Offset,
        end: Offset,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Decode(error) => write!(f, "{error}"),
            Cause::Hole => f.write_str("zeros where a batch was expected"),
            Cause::Unreadable(reason) => write!(f, "the medium cannot read it: {reason}"),
            Cause::BeyondEnd { last_offset, end } => {
                write!(f, "the batch says last offset {last_offset}, and the next segment begins at {end}")
            }
        }
    }
}

/// Walks one file.
#[derive(Debug)]
pub(super) struct Walker {
    window: Window,
    rules: WalkRules,
    position: u64,
    expected: Option<Offset>,
    /// Size of the batch that the last step found.
    found: usize,
    crc_budget: u64,
    /// The same for holding batches behind damage against each other; once it is spent, the first is believed.
    witness_budget: u64,
    /// Places of batches that an index names: tried when the search's effort is spent.
    hints: Vec<u64>,
}

impl Walker {
    /// A walk over the first `len` bytes of `file`.
    pub(super) fn new(file: Arc<dyn StorageFile>, len: u64, rules: WalkRules) -> Walker {
        Walker {
            window: Window::new(file, len),
            rules,
            position: 0,
            expected: rules.first_offset,
            found: 0,
            crc_budget: len.saturating_mul(CRC_PASSES_MAX),
            witness_budget: len.saturating_mul(CRC_PASSES_MAX),
            hints: Vec::new(),
        }
    }

    /// Places to try where the search's effort is spent, ascending.
    pub(super) fn set_hints(&mut self, positions: Vec<u64>) {
        self.hints = positions;
    }

    /// Goes on at `position`.
    pub(super) fn start_at(&mut self, position: u64) {
        self.position = position;
    }

    /// Where the walk stands: behind the last batch or damage that it gave out.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The file's end as far as the walk knows it.
    pub(super) fn end(&self) -> u64 {
        self.window.end()
    }

    /// The offset that has to come next.
    pub(super) fn expected(&self) -> Offset {
        self.expected.unwrap_or(0)
    }

    /// The batch that the last [`next`](Walker::next) found.
    pub(super) fn batch(&self) -> RecordBatch<'_> {
        let bytes = self.window.seen(self.position - self.found as u64, self.found);
        RecordBatch::parse(bytes).expect("the step before parsed these bytes")
    }

    /// Above the recovery point: whether the batch that the last step found was left behind by a history that was
    /// taken back.
    ///
    /// What was left behind has an epoch that came before, and so has all that follows it. An epoch that never was, or
    /// a batch that the log's own history goes on behind, is a damaged field.
    pub(super) fn is_left_behind(&mut self, epochs: EpochTableView<'_>) -> bool {
        let batch = self.batch();
        let epoch = batch.partition_leader_epoch();
        let latest = epochs.latest().map_or(0, |latest| latest.epoch);
        if epochs.epoch_for(batch.base_offset()).is_none_or(|known| known == epoch) || epoch > latest || epoch < 0 {
            return false;
        }
        let stands = (self.position, self.expected, self.found);
        let goes_on = match self.step(false) {
            Step::Batch { .. } => {
                let next = self.batch();
                epochs.epoch_for(next.base_offset()) == Some(next.partition_leader_epoch())
            }
            _ => false,
        };
        (self.position, self.expected, self.found) = stands;
        // So that the batch is lent again.
        self.window.at(self.position - self.found as u64, self.found);
        !goes_on
    }

    /// Bytes from `position` on, some of `wanted` at least where there are any.
    pub(super) fn bytes(&mut self, position: u64, wanted: usize) -> &[u8] {
        self.window.at(position, wanted)
    }

    /// The first byte at or behind `position` that is not zero.
    pub(super) fn first_nonzero(&mut self, position: u64) -> Option<u64> {
        self.window.first_nonzero(position)
    }

    /// Looks once more at where the walk stands, in a file that is `len` long by now.
    pub(super) fn look_again(&mut self, position: u64, len: u64) {
        self.window.extend(len);
        self.position = position;
    }

    /// As [`next`](Walker::next) where only one batch is looked for: damage is told without a search behind it.
    pub(super) fn next_or_stop(&mut self) -> Step {
        self.step(false)
    }

    /// The next batch, or what stands in its place; then the walk stands behind it.
    pub(super) fn next(&mut self) -> Step {
        self.step(true)
    }

    fn step(&mut self, search: bool) -> Step {
        let position = self.position;
        if position >= self.window.end() {
            return Step::End;
        }
        match self.look(position) {
            Look::Batch(size, next_offset) => {
                self.found = size;
                self.position += size as u64;
                if self.expected.is_some() {
                    self.expected = Some(next_offset);
                }
                Step::Batch { position }
            }
            Look::Zeros if self.window.first_nonzero(position).is_none() => {
                let end = self.window.end();
                if let Some(reason) = self.window.unreadable_in(position, end) {
                    let cause = Cause::Unreadable(reason.to_owned());
                    return self.damage(position, cause, search);
                }
                self.position = end;
                Step::Zeros { position }
            }
            Look::Zeros => self.damage(position, Cause::Hole, search),
            Look::Invalid(cause) => self.damage(position, cause, search),
        }
    }

    fn look(&mut self, position: u64) -> Look {
        let left = self.window.end() - position;
        let batch_bytes_max = self.rules.batch_bytes_max.max(BATCH_BYTES_MAX);
        let rules = ScanRules {
            expected_offset: self.expected,
            contiguous: self.rules.contiguous,
            epochs: None,
            batch_bytes_max,
            check_crc: true,
        };
        let mut wanted = HEADER_LEN;
        let cause = loop {
            break match scan_step(self.window.at(position, wanted), &rules) {
                ScanStep::Batch(batch) | ScanStep::WrongEpoch { batch, .. } => {
                    let (size, next_offset) = (batch.size(), batch.next_offset());
                    let base_offset = batch.base_offset();
                    // Where offsets need only rise, one that jumps and is contradicted is a damaged field.
                    if let Some(expected) = self.expected.filter(|&expected| base_offset > expected) {
                        if self.believed(position) != position {
                            break Cause::Decode(DecodeError::NotContiguous { expected, found: base_offset });
                        }
                    }
                    if next_offset <= self.rules.offset_end {
                        return Look::Batch(size, next_offset);
                    }
                    Cause::BeyondEnd { last_offset: next_offset - 1, end: self.rules.offset_end }
                }
                ScanStep::End => return Look::Zeros,
                ScanStep::NeedMore { needed } if needed as u64 <= left && needed > wanted => {
                    wanted = needed;
                    continue;
                }
                ScanStep::NeedMore { needed } => {
                    let available = usize::try_from(left).unwrap_or(usize::MAX);
                    Cause::Decode(DecodeError::Truncated { needed, available })
                }
                ScanStep::Invalid(error) => Cause::Decode(error),
            };
        };
        match self.window.unreadable_in(position, position + wanted as u64) {
            Some(reason) => Look::Invalid(Cause::Unreadable(reason.to_owned())),
            None => Look::Invalid(cause),
        }
    }

    /// Describes the damage at `position` and goes on behind it.
    fn damage(&mut self, position: u64, cause: Cause, search: bool) -> Step {
        let first_offset = self.expected();
        let mut damage = Damage {
            position,
            resumes_at: None,
            first_offset,
            next_offset: None,
            cause,
            unread_from: None,
            wrong_base: None,
        };
        if !search {
            return Step::Damage(damage);
        }
        // Read before the search moves the window.
        let displaced = self.displaced_batch(position);
        (damage.resumes_at, damage.unread_from) = self.search(position + 1);
        match damage.resumes_at {
            Some(at) => {
                damage.next_offset = self.base_offset_at(at);
                self.position = at;
            }
            None => self.position = self.window.end(),
        }
        let mut next_offset = damage.next_offset;
        if let Some((size, next)) = displaced {
            let behind = position + u64::from(size);
            let fits = match (damage.resumes_at, damage.next_offset) {
                (Some(at), Some(base)) => at == behind && base == next,
                _ => {
                    self.rules.contiguous
                        && next == self.rules.offset_end
                        && self.window.first_nonzero(behind).is_none()
                }
            };
            if fits {
                damage.wrong_base = Some(size);
                next_offset = Some(next);
                self.position = behind;
            }
        }
        if let (Some(expected), Some(next)) = (self.expected.as_mut(), next_offset) {
            *expected = next;
        }
        Step::Damage(damage)
    }

    /// A batch that holds but for its base offset: its size, and the offset behind it were it where it should be.
    fn displaced_batch(&mut self, position: u64) -> Option<(u32, Offset)> {
        let expected = self.expected?;
        let bytes_max = self.rules.batch_bytes_max.max(BATCH_BYTES_MAX);
        let size = RecordBatch::peek_size(self.window.at(position, HEADER_LEN)).ok()?;
        if size > bytes_max || position + size as u64 > self.window.end() {
            return None;
        }
        // The offset that is wrong may also be one that no batch can have.
        let mut bytes = self.window.at(position, size).get(..size)?.to_vec();
        bytes[..8].copy_from_slice(&expected.to_be_bytes());
        let batch = RecordBatch::parse(&bytes).ok()?;
        batch.verify_crc().ok()?;
        Some((size as u32, batch.next_offset()))
    }

    fn base_offset_at(&mut self, position: u64) -> Option<Offset> {
        let bytes = self.window.at(position, 8).first_chunk::<8>()?;
        Some(Offset::from_be_bytes(*bytes))
    }

    /// Where the next batch that holds and is believed starts, and from where on nothing was decided.
    fn search(&mut self, from: u64) -> (Option<u64>, Option<u64>) {
        let mut budget = self.crc_budget;
        let found = self.find(from, &mut budget);
        self.crc_budget = budget;
        match found {
            Find::Batch(position) => (Some(self.believed(position)), None),
            Find::OutOfBudget(unread) => (self.search_hints(unread), Some(unread)),
            Find::Nothing => (None, None),
        }
    }

    /// What a batch behind damage has to look like before its CRC is worth computing.
    fn plausible(&self) -> Plausible<'static> {
        Plausible {
            offset_min: self.expected.unwrap_or(0),
            offset_end: self.rules.offset_end,
            contiguous: self.rules.contiguous,
            epochs: None,
            batch_bytes_max: self.rules.batch_bytes_max,
        }
    }

    /// The next batch that holds in itself.
    ///
    /// Headers that are plausible in every field are looked for, and of those the CRC is computed; in stretches that
    /// overlap by the largest batch there can be, so that memory does not grow with the file.
    fn find(&mut self, mut from: u64, budget: &mut u64) -> Find {
        let plausible = self.plausible();
        let overlap = self.rules.batch_bytes_max;
        let end = self.window.end();
        while from < end {
            let left = usize::try_from(end - from).unwrap_or(usize::MAX);
            let wanted = SEARCH_STRIDE_BYTES.saturating_add(overlap).min(left);
            let bytes = self.window.at(from, wanted);
            let bytes = &bytes[..bytes.len().min(wanted)];
            let is_last = bytes.len() >= left || bytes.len() < wanted;
            match find_next_batch(bytes, 0, &plausible, budget) {
                // One that begins in the overlap is found again, in its order, by the next stretch.
                Resync::Found { position } if is_last || position < SEARCH_STRIDE_BYTES => {
                    return Find::Batch(from + position as u64);
                }
                Resync::OutOfBudget { unread_from } => return Find::OutOfBudget(from + unread_from as u64),
                _ if is_last => return Find::Nothing,
                _ => from += SEARCH_STRIDE_BYTES as u64,
            }
        }
        Find::Nothing
    }

    /// Which of the batches from `first` on, which holds in itself, the walk goes on with.
    ///
    /// No CRC covers the base offset. Where what stands before does not say what it has to be, the batches that follow
    /// do: they are taken as witnesses, up to two that stand side by side and bear each other out, and of all ways to
    /// believe some of them, in rising order, the best one is taken ([`best_start`]). A base offset that damage has
    /// raised would else hide all that follows.
    fn believed(&mut self, first: u64) -> u64 {
        if self.expected.is_none() {
            return first;
        }
        let mut witnesses: Vec<Witness> = Vec::new();
        let mut is_borne_out = false;
        let mut at = first;
        while let Some(witness) = self.witness(at) {
            let end = witness.end;
            is_borne_out = witnesses.last().is_some_and(|last| last.bears_out(&witness, self.rules.contiguous));
            witnesses.push(witness);
            if is_borne_out || witnesses.len() == WITNESSES_MAX {
                break;
            }
            let mut budget = self.witness_budget;
            let next = self.find(end, &mut budget);
            self.witness_budget = budget;
            let Find::Batch(position) = next else { break };
            at = position;
        }
        let before = (self.position, self.expected());
        best_start(&witnesses, before, self.rules.contiguous, is_borne_out).unwrap_or(first)
    }

    /// The batch at `position`, where one holds in itself and could stand behind what the walk has seen.
    fn witness(&mut self, position: u64) -> Option<Witness> {
        let bytes_max = self.rules.batch_bytes_max.max(BATCH_BYTES_MAX);
        let size =
            RecordBatch::peek_size(self.window.at(position, HEADER_LEN)).ok().filter(|&size| size <= bytes_max)?;
        let batch = RecordBatch::parse(self.window.at(position, size)).ok()?;
        batch.verify_crc().ok()?;
        let (base_offset, next_offset) = (batch.base_offset(), batch.next_offset());
        Some(Witness { position, end: position + size as u64, base_offset, next_offset })
    }

    /// The first of the places that the index names where a batch holds.
    #[cold]
    fn search_hints(&mut self, from: u64) -> Option<u64> {
        let plausible = self.plausible();
        let mut budget = self.window.end();
        let hints = std::mem::take(&mut self.hints);
        let places = from..self.window.end();
        let found = hints.iter().copied().filter(|at| places.contains(at)).find(|&at| {
            let size = RecordBatch::peek_size(self.window.at(at, HEADER_LEN));
            let Some(size) = size.ok().filter(|&size| size <= plausible.batch_bytes_max) else { return false };
            let Some(bytes) = self.window.at(at, size).get(..size) else { return false };
            matches!(find_next_batch(bytes, 0, &plausible, &mut budget), Resync::Found { position: 0 })
        });
        self.hints = hints;
        found
    }
}

enum Look {
    /// Size and the offset behind.
    Batch(usize, Offset),
    Zeros,
    Invalid(Cause),
}

enum Find {
    Batch(u64),
    /// Nothing was decided from here on.
    OutOfBudget(u64),
    Nothing,
}

/// A batch that holds in itself, and what it says of its place.
#[derive(Debug, Clone, Copy)]
struct Witness {
    position: u64,
    end: u64,
    base_offset: Offset,
    next_offset: Offset,
}

impl Witness {
    /// Whether `later` can be the batch that comes next of those that are believed.
    fn agrees(&self, later: &Witness, contiguous: bool) -> bool {
        if contiguous && self.end == later.position {
            self.next_offset == later.base_offset
        } else {
            self.next_offset <= later.base_offset
        }
    }

    /// Whether the two stand side by side and agree: damage to one field does not make that of two batches.
    fn bears_out(&self, later: &Witness, contiguous: bool) -> bool {
        self.end == later.position && self.agrees(later, contiguous)
    }

    /// What it is worth to believe this one behind `before`, a place and the offset that was due there.
    fn worth(&self, before: (u64, Offset)) -> u32 {
        let (lost_bytes, lost_offsets) = (self.position - before.0, self.base_offset.abs_diff(before.1));
        if lost_offsets <= lost_bytes.saturating_mul(RECORDS_PER_BYTE_MAX) { 3 } else { 1 }
    }
}

/// Where the best of all ways to believe some of the witnesses starts.
///
/// Any two that follow each other in it agree. It is the one that is worth most; of two such, the one that ends with
/// the lower offset (damage raises more often than it lowers), and then the one that starts first. `is_borne_out`: the
/// last two bear each other out, and are believed in any case.
fn best_start(witnesses: &[Witness], before: (u64, Offset), contiguous: bool, is_borne_out: bool) -> Option<u64> {
    const BORNE_OUT: u32 = 1000;
    let last = witnesses.len().checked_sub(1)?;
    // From each witness on: what the rest of the way is worth, and the offset that it ends with.
    let mut ways: Vec<(u32, Reverse<Offset>)> = vec![(0, Reverse(0)); witnesses.len()];
    for (at, witness) in witnesses.iter().enumerate().rev() {
        let borne_out = if at == last && is_borne_out { BORNE_OUT } else { 0 };
        let end = (borne_out, Reverse(witness.next_offset));
        let goes_on = (at + 1..=last)
            // Of the two at the end, none is believed without the other.
            .filter(|&later| !is_borne_out || later < last || at + 1 == last)
            .filter(|&later| witness.agrees(&witnesses[later], contiguous));
        let behind = (witness.end, witness.next_offset);
        let on = goes_on.map(|later| (ways[later].0 + witnesses[later].worth(behind), ways[later].1)).max();
        ways[at] = on.map_or(end, |on| on.max(end));
    }
    let starts = witnesses.iter().zip(ways).map(|(witness, way)| ((way.0 + witness.worth(before), way.1), witness));
    let best = starts.max_by_key(|(way, witness)| (*way, Reverse(witness.position)));
    best.map(|(_, witness)| witness.position)
}
