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

use edgelog_core::{Offset, RecordBatch};

/// The transactions of one log, up to where it was looked at.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Which history was looked at: a truncation begins another one.
    pub(super) generation: u64,
    /// Everything below was looked at.
    pub(super) walked_to: Offset,
    /// By producer id.
    pub(super) open: HashMap<i64, Open>,
    /// First offset of each aborted transaction, by producer id and the offset of the marker that ended it.
    pub(super) aborted: BTreeMap<(i64, Offset), Offset>,
}

/// A transaction without an end so far.
#[derive(Debug)]
pub(super) struct Open {
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
    pub(super) fn note(&mut self, batch: &RecordBatch<'_>) {
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
    pub(super) fn doubt(&mut self) {
        self.open.values_mut().for_each(|open| open.holds_from = None);
    }

    /// Whether a batch of a transaction is one of an aborted one.
    pub(super) fn is_aborted(&self, producer_id: i64, base_offset: Offset) -> bool {
        let ends = (producer_id, base_offset)..=(producer_id, Offset::MAX);
        self.aborted.range(ends).next().is_some_and(|(_, first_offset)| *first_offset <= base_offset)
    }

    pub(super) fn stable(&self) -> Stable {
        let open = self.open.values().filter_map(|open| open.holds_from).min();
        Stable { end: open.unwrap_or(self.walked_to).min(self.walked_to), walked_to: self.walked_to }
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
