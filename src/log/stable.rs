//! What is stable of a log with transactions: its batches are walked, as far as a reader of committed records asks.

use std::sync::Arc;

use edgelog_core::Offset;
use edgelog_core::config::IsolationLevel;

use super::batch::Batch;
use super::origin::Origin;
use super::read::Reader;
use super::shared::LogShared;
use super::transactions::{LeftOut, Stable, Transactions};
use super::types::{OffsetSpec, ReadUpTo, ReaderOptions};
use crate::error::{Error, Result};
use crate::sync::Ordering;

/// So many transactions that are left out of one log are kept in memory, about 50 MB ...
const LEFT_OUT_MAX: usize = 1 << 20;
/// ... and so many that are open at a time.
const OPEN_MAX: usize = 1 << 17;

impl Transactions {
    /// Lets go of what retention has taken; an error where too much is left.
    fn bound_memory(&mut self, log: &LogShared) -> Result<()> {
        let start = log.log_start_offset.load(Ordering::Acquire);
        if self.left_out.len() > LEFT_OUT_MAX {
            self.left_out.retain(|(_, end), _| *end >= start);
        }
        for (given, max) in [(self.left_out.len(), LEFT_OUT_MAX), (self.open.len(), OPEN_MAX)] {
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
            ReaderOptions { up_to: ReadUpTo::LogEnd, check_crcs: true, isolation: IsolationLevel::ReadUncommitted };
        let mut reader = Reader::over_everything(Arc::clone(log), options);
        reader.seek(OffsetSpec::Offset(self.walked_to))?;
        while self.walked_to < end {
            match reader.next_batch() {
                Ok(Some(batch)) => {
                    self.note(&batch);
                    self.walked_to = self.walked_to.max(batch.last_offset() + 1);
                    self.bound_memory(log)?;
                }
                Ok(None) => {
                    self.walked_to = end;
                }
                Err(error) if error.is_corrupt() => {
                    let lost = reader.skip_damage()?;
                    let passed = lost.passed_over.iter().map(|range| range.0);
                    let first = passed.chain([lost.first_offset]).min().unwrap_or(lost.first_offset);
                    if lost.first_offset < lost.next_offset || !lost.passed_over.is_empty() {
                        self.doubt(first);
                        self.bound_memory(log)?;
                    }
                    self.walked_to = self.walked_to.max(lost.next_offset);
                }
                Err(Error::OffsetOutOfRange { requested, log_start_offset, .. }) if requested < log_start_offset => {
                    reader.seek(OffsetSpec::Offset(log_start_offset))?;
                    self.walked_to = log_start_offset;
                }
                Err(error) => {
                    // As damage: a transaction may have ended in what cannot be read.
                    let next = log.behind_unreadable(error)?.unwrap_or(end);
                    self.doubt(self.walked_to);
                    self.bound_memory(log)?;
                    self.walked_to = self.walked_to.max(next);
                    if next < end {
                        reader.seek(OffsetSpec::Offset(next))?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl LogShared {
    /// Whether this log can hold transactions at all: those that this process writes itself have none.
    pub(super) fn may_have_transactions(&self) -> bool {
        self.origin() != Origin::Own || self.is_attached()
    }

    /// What is stable below `end`.
    pub(super) fn stable_below(self: &Arc<Self>, end: Offset) -> Result<Stable> {
        let mut transactions = self.transactions.lock();
        transactions.walk(self, end)?;
        Ok(transactions.stable())
    }

    /// Whether a batch that was read is of a transaction that is left out of the committed records, and why.
    pub(super) fn left_out(&self, batch: &Batch) -> Option<LeftOut> {
        let view = batch.view();
        view.is_transactional().then(|| self.transactions.lock().left_out(view.producer_id(), view.base_offset()))?
    }
}
