//! One `.log` file from its first byte to its last: batches that hold, and what lies between them.

use std::fmt;
use std::sync::Arc;

use edgelog_core::limits::READABLE_BYTES_MAX;
use edgelog_core::{
    Candidate, Continuation, DecodeError, Effort, EpochTableView, HEADER_LEN, Judgement, LeaderEpoch, Offset,
    Plausible, RecordBatch, Resync, Standing, batch_at, displaced_batch, is_out_of_order, resync, written_whole,
};

use super::passed_over::{OffsetRange, sound_between};
use super::{NamedEnds, Window};
use crate::error::{Error, Result};
use crate::storage::{Access, Storage, StorageFile};

/// What the batches of a file are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalkRules {
    /// The offset that has to come first; `None` takes any offsets in any order.
    pub(crate) first_offset: Option<Offset>,
    /// Whether each base offset has to be the one that follows; else it may be greater.
    pub(crate) contiguous: bool,
    /// All offsets lie before this one: the next segment's base, or `Offset::MAX`.
    pub(crate) offset_end: Offset,
    /// Everything below was durable; 0 where no checkpoint knows the log.
    pub(crate) durable_below: Offset,
    /// Where in the file that point stands; 0 where it does not stand in it.
    pub(crate) durable_position: u64,
    /// See [`Continuation::unbroken_from`].
    pub(crate) unbroken_from: Offset,
    /// Where batches end, by the files next to this one.
    pub(crate) named_ends: NamedEnds,
}

impl WalkRules {
    /// For a file of which nothing else is known: each batch is held to itself alone.
    pub(crate) const ANY: WalkRules = WalkRules {
        first_offset: None,
        contiguous: false,
        offset_end: Offset::MAX,
        durable_below: Offset(0),
        durable_position: 0,
        unbroken_from: Offset::MAX,
        named_ends: NamedEnds::NONE,
    };
}

/// What stands where the walk is.
#[derive(Debug)]
pub(crate) enum Step {
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
pub(crate) struct Damage {
    pub(crate) position: u64,
    /// Where the next batch that holds starts; `None` where none does.
    pub(crate) resumes_at: Option<u64>,
    /// The offset that was expected at `position`.
    pub(crate) first_offset: Offset,
    /// Base offset of the next batch that holds.
    pub(crate) next_offset: Option<Offset>,
    pub(crate) cause: Cause,
    /// The search's effort was spent here; what lies behind was not looked at.
    pub(crate) unread_from: Option<u64>,
    /// A batch stands there and holds in all but its base offset, which can only have been this one's.
    pub(crate) wrong_base: Option<Candidate>,
    /// Every reader reads that batch, and the next open puts it right.
    pub(crate) is_read: bool,
}

/// Why bytes are no batch.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    Decode(DecodeError),
    /// Zeros, and something else behind them.
    Hole,
    Unreadable(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Decode(error) => write!(f, "{error}"),
            Cause::Hole => f.write_str("zeros where a batch was expected"),
            Cause::Unreadable(reason) => write!(f, "the disk cannot read it: {reason}"),
        }
    }
}

/// Walks one file.
#[derive(Debug)]
pub(crate) struct Walker {
    window: Window,
    rules: WalkRules,
    position: u64,
    expected: Option<Offset>,
    /// Size of the batch that the last step found.
    found: usize,
    /// What that batch says its epoch is, and what the one that ends where it begins does; `None` behind damage.
    epochs: (Option<LeaderEpoch>, Option<LeaderEpoch>),
    effort: Effort,
    /// Places of batches that an index names: tried when the search's effort is spent.
    hints: Vec<u64>,
}

impl Walker {
    /// A walk over the first `len` bytes of `file`.
    pub(crate) fn new(file: Arc<dyn StorageFile>, len: u64, rules: WalkRules) -> Walker {
        Walker {
            window: Window::new(file, len).with_named_ends(rules.named_ends),
            rules,
            position: 0,
            expected: rules.first_offset,
            found: 0,
            epochs: (None, None),
            effort: Effort::for_segment(len),
            hints: Vec::new(),
        }
    }

    /// A walk over the file at `path`, as far as a position reaches.
    pub(crate) fn open(storage: &dyn Storage, path: &str, rules: WalkRules) -> Result<Walker> {
        let file = storage.open(path, Access::Read).map_err(Error::storage("open", path))?;
        let len = file.len().map_err(Error::storage("look at", path))?.min(READABLE_BYTES_MAX);
        Ok(Walker::new(file, len, rules))
    }

    /// Places to try where the search's effort is spent, ascending.
    pub(crate) fn set_hints(&mut self, positions: Vec<u64>) {
        self.hints = positions;
    }

    /// Walks on to the end, and answers where the last batch that holds ends.
    pub(crate) fn valid_end(&mut self) -> u64 {
        let mut valid_end = 0;
        loop {
            match self.next() {
                Step::Batch { .. } => valid_end = self.position,
                Step::Damage(_) => {}
                Step::Zeros { .. } | Step::End => return valid_end,
            }
        }
    }

    /// Goes on at `position`.
    pub(crate) fn start_at(&mut self, position: u64) {
        self.position = position;
    }

    /// Where the walk stands: behind the last batch or damage that it gave out.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The file's end as far as the walk knows it.
    pub(crate) fn end(&self) -> u64 {
        self.window.end()
    }

    /// The offset that has to come next.
    pub(crate) fn expected(&self) -> Offset {
        self.expected.unwrap_or(Offset(0))
    }

    /// The offset behind the batch that the last [`next`](Walker::next) found, as far as what follows bears it out.
    pub(crate) fn next_offset(&self) -> Offset {
        self.expected.unwrap_or_else(|| self.batch().next_offset())
    }

    /// The batch that the last [`next`](Walker::next) found.
    pub(crate) fn batch(&self) -> RecordBatch<'_> {
        self.batch_at(self.position - self.found as u64, self.found)
    }

    fn batch_at(&self, position: u64, size: usize) -> RecordBatch<'_> {
        RecordBatch::parse(self.window.seen(position, size)).expect("the step before parsed these bytes")
    }

    /// The epoch field of the batch that ends where the walk stands; `None` behind damage.
    pub(crate) fn epoch_before(&self) -> Option<LeaderEpoch> {
        self.epochs.0
    }

    /// Goes on behind a batch, of another file, with this epoch field.
    pub(crate) fn set_epoch_before(&mut self, epoch: Option<LeaderEpoch>) {
        self.epochs.0 = epoch;
    }

    /// Above the recovery point: whether the batch that the last step found is of a history that was truncated.
    pub(crate) fn is_stale(&self, epochs: EpochTableView<'_>) -> bool {
        is_stale(&self.batch(), epochs, self.epochs.1)
    }

    /// As [`is_stale`](Self::is_stale), for the batch behind damage at `position`.
    pub(crate) fn is_stale_at(&mut self, position: u64, epochs: EpochTableView<'_>) -> bool {
        let size = self.claimed_size(position);
        RecordBatch::parse(self.window.at(position, size)).is_ok_and(|batch| is_stale(&batch, epochs, None))
    }

    /// The offset behind the batch that is due as `offset` at `position`, where its checksum does not hold and no kill
    /// of the writer has left it so. See [`written_whole`].
    pub(crate) fn written_whole(
        &mut self,
        position: u64,
        offset: Offset,
        epochs: Option<EpochTableView<'_>>,
    ) -> Option<Offset> {
        let due = Continuation { epochs, ..self.due(offset) };
        written_whole(&mut self.window, position, &due).map(|batch| batch.next_offset)
    }

    /// Bytes from `position` on, some of `wanted` at least where there are any.
    pub(crate) fn bytes(&mut self, position: u64, wanted: usize) -> &[u8] {
        self.window.at(position, wanted)
    }

    /// See [`Window::tail_bytes`].
    pub(crate) fn tail_bytes(&mut self, position: u64) -> u64 {
        self.window.tail_bytes(position)
    }

    /// The first byte at or behind `position` that is not zero.
    pub(crate) fn first_nonzero(&mut self, position: u64) -> Option<u64> {
        self.window.first_nonzero(position)
    }

    /// Looks once more at where the walk stands, in a file that is `len` long by now.
    pub(crate) fn look_again(&mut self, position: u64, len: u64) {
        self.window.extend(len);
        self.position = position;
    }

    /// As [`next`](Walker::next) where only one batch is looked for: damage is reported without a search behind it.
    pub(crate) fn next_or_stop(&mut self) -> Step {
        self.step(false)
    }

    /// The next batch, or what stands in its place; then the walk stands behind it.
    pub(crate) fn next(&mut self) -> Step {
        self.step(true)
    }

    fn step(&mut self, search: bool) -> Step {
        let position = self.position;
        if position >= self.window.end() {
            return Step::End;
        }
        match self.look(position) {
            Look::Displaced(batch) => {
                let found = self.base_offset_at(position).unwrap_or(batch.base_offset);
                let cause = Cause::Decode(DecodeError::NotContiguous { expected: batch.base_offset, found });
                (self.position, self.epochs) = (batch.end, (None, None));
                self.expected = Some(batch.next_offset);
                Step::Damage(Damage {
                    position,
                    resumes_at: Some(batch.end),
                    first_offset: batch.base_offset,
                    next_offset: Some(batch.next_offset),
                    cause,
                    unread_from: None,
                    wrong_base: Some(batch),
                    is_read: true,
                })
            }
            Look::Batch(size, next_offset) => {
                self.found = size;
                let batch = self.batch_at(position, size);
                let (epoch, base_offset) = (batch.partition_leader_epoch(), batch.base_offset());
                self.epochs = (Some(epoch), self.epochs.0.filter(|_| self.expected == Some(base_offset)));
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
        let standing = match self.expected {
            Some(next_offset) => self.due(next_offset).judge_at(&mut self.window, position, &mut self.effort),
            None => self.any_batch(position),
        };
        let left = usize::try_from(self.window.end() - position).unwrap_or(usize::MAX);
        let (cause, looked_at) = match standing {
            Standing::Batch { batch, is_displaced: true, .. } => return Look::Displaced(batch),
            Standing::Batch { batch, .. } => {
                // Lends all of it, for `batch`.
                let size = (batch.end - position) as usize;
                self.window.at(position, size);
                return Look::Batch(size, batch.next_offset);
            }
            // No epochs were given: nothing is stale.
            Standing::Stale | Standing::End => return Look::Zeros,
            Standing::Cut { needed } => {
                (Cause::Decode(DecodeError::Truncated { needed, available: left }), needed.min(left))
            }
            Standing::Damage(error @ DecodeError::BadCrc { .. }) => {
                (Cause::Decode(error), self.claimed_size(position).min(left))
            }
            Standing::Damage(error) => (Cause::Decode(error), HEADER_LEN.min(left)),
        };
        match self.window.unreadable_in(position, position + looked_at as u64) {
            Some(reason) => Look::Invalid(Cause::Unreadable(reason.to_owned())),
            None => Look::Invalid(cause),
        }
    }

    fn due(&self, next_offset: Offset) -> Continuation<'static> {
        Continuation {
            next_offset,
            contiguous: self.rules.contiguous,
            offset_end: self.rules.offset_end,
            durable_below: self.rules.durable_below,
            durable_position: self.rules.durable_position,
            unbroken_from: self.rules.unbroken_from,
            epochs: None,
            epoch_before: None,
            check_crc: true,
        }
    }

    /// How many bytes the batch at `position` says that it has; a header's at least.
    fn claimed_size(&mut self, position: u64) -> usize {
        RecordBatch::peek_size(self.window.at(position, HEADER_LEN)).map_or(HEADER_LEN, |size| size.max(HEADER_LEN))
    }

    /// The batch at `position`, of any offsets.
    fn any_batch(&mut self, position: u64) -> Standing {
        let bytes = self.window.at(position, HEADER_LEN);
        let first = RecordBatch::peek_place(bytes).map_or(Offset(0), |(first, _)| first.max(Offset(0)));
        // Held to its own offset, and to nothing else.
        let due = Continuation { offset_end: Offset::MAX, durable_below: Offset(0), ..self.due(first) };
        Continuation { contiguous: false, ..due }.judge_at(&mut self.window, position, &mut self.effort)
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
            is_read: false,
        };
        if !search {
            return Step::Damage(damage);
        }
        self.epochs = (None, None);
        // Read before the search moves the window.
        let displaced = self.expected.and_then(|expected| self.displaced(position, expected));
        let found;
        (found, damage.unread_from) = self.search(position);
        (damage.resumes_at, damage.next_offset) = (found.map(|it| it.position), found.map(|it| it.base_offset));
        self.position = damage.resumes_at.unwrap_or(self.window.end());
        let mut next_offset = damage.next_offset;
        if let Some(batch @ Candidate { end: behind, next_offset: next, .. }) = displaced {
            let fits = match (damage.resumes_at, damage.next_offset) {
                (Some(at), Some(base)) => at == behind && base == next,
                _ => self.leads_on(next) && self.window.first_nonzero(behind).is_none(),
            };
            if fits && !is_out_of_order(&mut self.window, &batch, &mut self.effort.corroboration) {
                damage.wrong_base = Some(batch);
                next_offset = Some(next);
                self.position = behind;
            }
        }
        if let (Some(expected), Some(next)) = (self.expected.as_mut(), next_offset) {
            *expected = next;
        }
        Step::Damage(damage)
    }

    /// Whether the log is known to go on at `next` behind this file's last batch.
    fn leads_on(&self, next: Offset) -> bool {
        let WalkRules { offset_end, durable_below, named_ends, .. } = self.rules;
        let is_last = offset_end == Offset::MAX;
        next == offset_end || is_last && next == durable_below || named_ends.has(next)
    }

    /// The batch at `position`, where nothing but its base offset keeps it from being the one of the offset `expected`.
    fn displaced(&mut self, position: u64, expected: Offset) -> Option<Candidate> {
        if self.base_offset_at(position) == Some(expected) {
            return None;
        }
        let batch = displaced_batch(&mut self.window, position, expected)?;
        let size = (batch.end - position) as usize;
        let mut bytes = self.window.at(position, size).get(..size)?.to_vec();
        bytes[..8].copy_from_slice(&expected.0.to_be_bytes());
        matches!(self.due(expected).judge(&bytes), Judgement::Continues { .. }).then_some(batch)
    }

    fn base_offset_at(&mut self, position: u64) -> Option<Offset> {
        Some(RecordBatch::peek_place(self.window.at(position, HEADER_LEN))?.0)
    }

    /// Where the log goes on behind damage, and from where on nothing was decided.
    fn search(&mut self, damaged: u64) -> (Option<Candidate>, Option<u64>) {
        let plausible = self.plausible();
        match resync(&mut self.window, damaged, damaged + 1, &plausible, &mut self.effort) {
            Resync::Found(batch) => (Some(batch), None),
            Resync::OutOfEffort { unread_from } => (self.search_hints(unread_from), Some(unread_from)),
            Resync::Nothing => (None, None),
        }
    }

    /// The offsets of the batches with records that hold in the bytes `from..to`. See [`sound_between`].
    pub(crate) fn sound_between(&mut self, from: u64, to: u64, due: Offset) -> Vec<OffsetRange> {
        sound_between(&mut self.window, (from, to), due)
    }

    /// How many offsets the batch at `position` has, where one holds in all but the offsets that it claims.
    pub(crate) fn offsets_of_displaced(&mut self, position: u64) -> Option<i64> {
        displaced_batch(&mut self.window, position, Offset(0)).map(|batch| batch.next_offset.0)
    }

    /// What a batch behind damage has to look like before its CRC is worth computing.
    fn plausible(&self) -> Plausible<'static> {
        let due = self.due(self.expected());
        // Where any offsets may come, none of them has to rise.
        if self.expected.is_some() {
            due.plausible()
        } else {
            Plausible { offset_min: Plausible::ANY_OFFSET, durable_below: Offset(0), ..due.plausible() }
        }
    }

    /// The first of the places that the index names where a batch holds.
    #[cold]
    fn search_hints(&mut self, from: u64) -> Option<Candidate> {
        let plausible = self.plausible();
        let mut budget = self.window.end();
        let places = from..self.window.end();
        let mut hints = self.hints.iter().copied().filter(|at| places.contains(at));
        let window = &mut self.window;
        hints.find_map(|at| batch_at(window, at, &plausible, &mut budget))
    }
}

/// Whether `batch`, behind one of the epoch `before`, is of a history that was truncated.
pub(crate) fn is_stale(batch: &RecordBatch<'_>, epochs: EpochTableView<'_>, before: Option<LeaderEpoch>) -> bool {
    let due = Continuation {
        next_offset: batch.base_offset(),
        contiguous: false,
        offset_end: Offset::MAX,
        durable_below: Offset(0),
        durable_position: 0,
        unbroken_from: Offset::MAX,
        epochs: Some(epochs),
        epoch_before: before,
        check_crc: false,
    };
    // Offsets before the table's first entry are older than all that it knows.
    epochs.epoch_for(batch.base_offset()).is_some() && matches!(due.judge(batch.bytes()), Judgement::Stale { .. })
}

enum Look {
    /// Size and the offset behind.
    Batch(usize, Offset),
    /// Its own field says another base offset.
    Displaced(Candidate),
    Zeros,
    Invalid(Cause),
}
