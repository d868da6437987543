//! `isolation.level=read_committed`: which records of an imported log belong to aborted transactions, and where the
//! first transaction begins that has no end yet.
//!
//! Logs written here have no transactions, those of a broker may. A batch of a transaction carries its producer's id; a
//! control batch of the same id ends it. Its key says how:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | version 0, `i16`, big-endian |
//! | 2 | type, `i16`, big-endian: 0 abort, 1 commit |
//!
//! Kafka's brokers keep a `.txnindex` file of aborted transactions. A copied partition may lack it and nothing vouches
//! for it, so the log itself is asked: one walk over the headers of its batches, when the first reader wants it, which
//! goes on from where it ended as the log grows. CRCs are checked where a batch begins or ends a transaction.
//!
//! Damage may hide the end of a transaction. Records behind it stay readable: a transaction that is open at damage does
//! not hold readers back unless more of it follows, and where its end is not found it counts as committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use edgelog_core::config::IsolationLevel;
use edgelog_core::{Offset, RecordBatch};

use super::batch::Batch;
use super::read::{Reader, ReaderOptions};
use super::{LogShared, OffsetSpec, Origin, ReadUpTo};
use crate::error::{Error, Result};
use crate::sync::Ordering;

/// So many aborted transactions of one log are kept in memory, about 40 MB ...
const ABORTED_MAX: usize = 1 << 20;
/// ... and so many that are open at a time.
const OPEN_MAX: usize = 1 << 17;

/// The transactions of one log, up to where it was looked at.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Which history was looked at: a truncation begins another one.
    generation: u64,
    /// Everything below was looked at.
    walked_to: Offset,
    /// By producer id.
    open: HashMap<i64, Open>,
    /// First offset of each aborted transaction, by producer id and the offset of the marker that ended it.
    aborted: BTreeMap<(i64, Offset), Offset>,
}

/// A transaction without an end so far.
#[derive(Debug)]
struct Open {
    first_offset: Offset,
    /// Readers stop here, behind the batch before; `None` where damage may have hidden the end.
    holds_from: Option<Offset>,
}

/// What a reader of committed records knows of the log.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stable {
    /// It stops here: at the first open transaction, or where the walk ended.
    pub(super) end: Offset,
    /// Where the walk ended; news lie beyond.
    pub(super) walked_to: Offset,
}

impl Transactions {
    /// Takes a batch in. The walk goes in the order of offsets.
    fn note(&mut self, batch: &RecordBatch<'_>) {
        if !batch.is_transactional() {
            return;
        }
        let producer_id = batch.producer_id();
        // Where offsets have holes, the batch before ends below this one, and a reader stands there.
        let holds_from = self.walked_to.min(batch.base_offset());
        if batch.is_control() {
            match marker(batch) {
                _ if batch.verify_crc().is_err() => self.doubt(),
                Some(Marker::Abort) => {
                    if let Some(open) = self.open.remove(&producer_id) {
                        self.aborted.insert((producer_id, batch.last_offset()), open.first_offset);
                    }
                }
                Some(Marker::Commit) => drop(self.open.remove(&producer_id)),
                None => {}
            }
        } else if let Some(open) = self.open.get_mut(&producer_id) {
            open.holds_from.get_or_insert(holds_from);
        } else if batch.record_count() > 0 && batch.verify_crc().is_ok() {
            // A batch that compaction emptied has nothing to hide or to hold back.
            let open = Open { first_offset: batch.base_offset(), holds_from: Some(holds_from) };
            self.open.insert(producer_id, open);
        }
    }

    /// Damage: any open transaction may have ended in it.
    fn doubt(&mut self) {
        self.open.values_mut().for_each(|open| open.holds_from = None);
    }

    /// Whether a batch of a transaction is one of an aborted one.
    fn is_aborted(&self, producer_id: i64, base_offset: Offset) -> bool {
        let ends = (producer_id, base_offset)..=(producer_id, Offset::MAX);
        self.aborted.range(ends).next().is_some_and(|(_, first_offset)| *first_offset <= base_offset)
    }

    fn stable(&self) -> Stable {
        let open = self.open.values().filter_map(|open| open.holds_from).min();
        Stable { end: open.unwrap_or(self.walked_to).min(self.walked_to), walked_to: self.walked_to }
    }

    /// Lets go of what retention has taken; an error where too much is left.
    fn bound_memory(&mut self, log: &LogShared) -> Result<()> {
        let start = log.log_start_offset.load(Ordering::Acquire);
        if self.aborted.len() > ABORTED_MAX {
            self.aborted.retain(|(_, last_offset), _| *last_offset >= start);
        }
        for (given, max) in [(self.aborted.len(), ABORTED_MAX), (self.open.len(), OPEN_MAX)] {
            if given > max {
                return Err(Error::TooManyTransactions { log: log.name.to_string(), given, max });
            }
        }
        Ok(())
    }

    /// Walks on to `end`.
    fn walk(&mut self, log: &Arc<LogShared>, end: Offset) -> Result<()> {
        let generation = log.generation.load(Ordering::Acquire);
        if self.generation != generation {
            *self = Transactions { generation, ..Transactions::default() };
        }
        let start = log.log_start_offset.load(Ordering::Acquire);
        self.walked_to = self.walked_to.max(start);
        if self.walked_to >= end {
            return Ok(());
        }
        let options =
            ReaderOptions { up_to: ReadUpTo::LogEnd, check_crcs: false, isolation: IsolationLevel::ReadUncommitted };
        let mut reader = Reader::over_everything(Arc::clone(log), options);
        reader.seek(OffsetSpec::Offset(self.walked_to))?;
        while self.walked_to < end {
            match reader.next_batch() {
                Ok(Some(batch)) => {
                    self.note(&batch.view());
                    self.walked_to = self.walked_to.max(batch.last_offset() + 1);
                    self.bound_memory(log)?;
                }
                Ok(None) => {
                    self.walked_to = end;
                }
                Err(error) if error.is_corrupt() => {
                    self.doubt();
                    self.walked_to = self.walked_to.max(reader.skip_damage()?.next_offset);
                }
                Err(Error::OffsetOutOfRange { requested, log_start_offset, .. }) if requested < log_start_offset => {
                    reader.seek(OffsetSpec::Offset(log_start_offset))?;
                    self.walked_to = log_start_offset;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

enum Marker {
    Abort,
    Commit,
}

/// What a control batch says of the transaction; `None` where it says something else.
fn marker(batch: &RecordBatch<'_>) -> Option<Marker> {
    let record = batch.records().ok()?.next()?.ok()?;
    let &[_, _, high, low] = record.key?.first_chunk::<4>()?;
    match i16::from_be_bytes([high, low]) {
        0 => Some(Marker::Abort),
        1 => Some(Marker::Commit),
        _ => None,
    }
}

impl LogShared {
    /// Whether this log can hold transactions at all: those that this process writes itself have none.
    pub(super) fn may_have_transactions(&self) -> bool {
        self.origin() != Origin::Own || self.attachment.is_some()
    }

    /// What is stable below `end`.
    pub(super) fn stable_below(self: &Arc<Self>, end: Offset) -> Result<Stable> {
        let mut transactions = self.transactions.lock();
        transactions.walk(self, end)?;
        Ok(transactions.stable())
    }

    /// Whether a batch that was read belongs to an aborted transaction.
    pub(super) fn is_aborted(&self, batch: &Batch) -> bool {
        let view = batch.view();
        view.is_transactional() && self.transactions.lock().is_aborted(view.producer_id(), view.base_offset())
    }
}
