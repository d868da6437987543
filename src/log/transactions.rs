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
//! for it, so the log itself is asked: one walk over its batches, when the first reader wants it, which goes on from
//! where it ended as the log grows. Each batch is held against its CRC, and damage is passed over as readers do it:
//! what is not read cannot end a transaction.
//!
//! Damage may hide a marker. Of a transaction that is open there, the records before are in doubt, no matter what
//! follows: readers of committed records get them reported and not given out. What the same producer writes behind the
//! damage is decided by the next marker, and neither holds back the other records. A marker whose key does not say what
//! it is counts as damage to its producer's transaction alone.

use std::collections::{BTreeMap, HashMap};

use edgelog_core::Offset;

use super::batch::Batch;

/// The transactions of one log, up to where it was looked at.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Which history was looked at: a truncation begins another one.
    pub(super) generation: u64,
    /// Everything below was looked at.
    pub(super) walked_to: Offset,
    /// By producer id.
    pub(super) open: HashMap<i64, Open>,
    /// First offset of each transaction whose records are not given out as committed, and why, by producer id and the
    /// offset of the marker or of the damage that ended it.
    pub(super) left_out: BTreeMap<(i64, Offset), (Offset, LeftOut)>,
}

/// Why records of a transaction are no committed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOut {
    Aborted,
    /// Its marker may be among what is damaged.
    InDoubt,
}

/// A transaction without an end so far.
#[derive(Debug)]
pub(super) struct Open {
    first_offset: Offset,
    /// Readers stop here, behind the batch before.
    holds_from: Offset,
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
    /// Takes a batch in that holds. The walk goes in the order of offsets.
    pub(super) fn note(&mut self, batch: &Batch) {
        let view = batch.view();
        if !view.is_transactional() {
            return;
        }
        let producer_id = view.producer_id();
        if view.is_control() {
            match marker(batch) {
                Marker::Abort => self.leave_out(producer_id, view.last_offset(), LeftOut::Aborted),
                Marker::Commit => drop(self.open.remove(&producer_id)),
                Marker::Other => {}
                Marker::Unreadable => self.leave_out(producer_id, view.base_offset(), LeftOut::InDoubt),
            }
        } else if view.record_count() > 0 {
            // A batch that compaction emptied has nothing to hide or to hold back. Where offsets have holes, the batch
            // before ends below this one, and a reader stands there.
            let holds_from = self.walked_to.min(view.base_offset());
            let first_offset = view.base_offset();
            self.open.entry(producer_id).or_insert(Open { first_offset, holds_from });
        }
    }

    fn leave_out(&mut self, producer_id: i64, end: Offset, why: LeftOut) {
        if let Some(open) = self.open.remove(&producer_id) {
            self.left_out.insert((producer_id, end), (open.first_offset, why));
        }
    }

    /// Damage took offsets from `lost_from` on: each open transaction may have ended in it.
    pub(super) fn doubt(&mut self, lost_from: Offset) {
        for (producer_id, open) in self.open.drain() {
            self.left_out.insert((producer_id, lost_from), (open.first_offset, LeftOut::InDoubt));
        }
    }

    /// Whether a batch of a transaction is left out, and why.
    pub(super) fn left_out(&self, producer_id: i64, base_offset: Offset) -> Option<LeftOut> {
        let ends = (producer_id, base_offset)..=(producer_id, Offset::MAX);
        let (_, (first_offset, why)) = self.left_out.range(ends).next()?;
        (*first_offset <= base_offset).then_some(*why)
    }

    pub(super) fn stable(&self) -> Stable {
        let open = self.open.values().map(|open| open.holds_from).min();
        Stable { end: open.unwrap_or(self.walked_to).min(self.walked_to), walked_to: self.walked_to }
    }
}

enum Marker {
    Abort,
    Commit,
    /// Of a type that ends no transaction.
    Other,
    Unreadable,
}

/// What a control batch says of the transaction. Kafka never compresses one, and its clients read one that is.
fn marker(batch: &Batch) -> Marker {
    let records = batch.records().ok();
    let Some(record) = records.and_then(|mut records| records.next()).and_then(Result::ok) else {
        return Marker::Unreadable;
    };
    match record.key.and_then(|key| key.first_chunk::<4>()) {
        Some(&[0..=0x7f, _, 0, 0]) => Marker::Abort,
        Some(&[0..=0x7f, _, 0, 1]) => Marker::Commit,
        Some(&[0..=0x7f, ..]) => Marker::Other,
        _ => Marker::Unreadable,
    }
}
