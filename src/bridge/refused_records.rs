//! The records of one log that its target refuses: those that are known, and the search for the one that made it refuse
//! a batch. Ranges are tried that become smaller with each refusal.

use std::collections::BTreeMap;

use edgelog_core::Offset;
use kafka_protocol::error::ResponseError;

use super::dead_letter::Refusal;
use crate::kafka::Code;

const MESSAGE_TOO_LARGE: Code = Code::of(ResponseError::MessageTooLarge);
const RECORD_LIST_TOO_LARGE: Code = Code::of(ResponseError::RecordListTooLarge);

/// A batch that the target refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) offsets: (Offset, Offset),
    pub(super) records: u32,
    pub(super) bytes: usize,
    /// Of the first record in it.
    pub(super) refusal: Refusal,
}

#[derive(Debug)]
pub(super) struct RefusedRecords {
    /// What the target refused a batch of, and is looked for.
    search: Option<Search>,
    /// Records that the target is known to refuse.
    known: BTreeMap<Offset, Refusal>,
    /// Batches of this size and more were refused as too large, although the target's configuration allows them.
    refused_bytes: usize,
}

#[derive(Debug)]
struct Search {
    /// The refused batch's offsets; what lies before has nothing to do with it.
    from: Offset,
    until: Offset,
    /// So many records are tried next.
    records_max: u64,
}

impl RefusedRecords {
    pub(super) fn none() -> RefusedRecords {
        RefusedRecords { search: None, known: BTreeMap::new(), refused_bytes: usize::MAX }
    }

    /// Another log goes to the target from here on: nothing is known of its records, and of the target what was.
    pub(super) fn begin_again(&mut self) {
        self.search = None;
        self.known.clear();
    }

    /// Whether what comes at this offset is part of a batch that was refused.
    pub(super) fn is_searching(&self, position: Offset) -> bool {
        self.search.as_ref().is_some_and(|search| position >= search.from)
    }

    /// How many records may be tried from this offset on.
    pub(super) fn records_max(&self, position: Offset) -> u64 {
        match &self.search {
            None => u64::MAX,
            Some(search) if position < search.from => (search.from - position).unsigned_abs(),
            Some(search) => search.records_max,
        }
    }

    /// What is known of the record at this offset, where the target is known to refuse it.
    pub(super) fn refusal_of(&self, offset: Offset) -> Option<&Refusal> {
        self.known.get(&offset)
    }

    /// Whether the target is known to refuse a record from `first` to before `next`.
    pub(super) fn has_any_within(&self, first: Offset, next: Offset) -> bool {
        first < next && self.known.range(first..next).next().is_some()
    }

    /// What a batch of several records may take, where the target allows `allowed`.
    pub(super) fn bytes_max(&self, allowed: usize) -> usize {
        allowed.min(self.refused_bytes.saturating_sub(1))
    }

    /// The target refused a batch, and named these records. Where it named none that was not known, less of the batch
    /// is tried next.
    pub(super) fn batch_refused(&mut self, named: Vec<Refusal>, batch: &Refused) {
        let known = self.known.len();
        for refusal in named {
            self.refuse(refusal);
        }
        if self.known.len() == known {
            self.narrow(batch);
        }
    }

    /// A batch was refused that stands for these offsets: half of it is tried next. Of one with a single record, that
    /// record is the one.
    fn narrow(&mut self, batch: &Refused) {
        let (from, next) = batch.offsets;
        if batch.records <= 1 {
            self.refuse(batch.refusal.clone());
            if let Some(search) = &mut self.search {
                (search.from, search.records_max) = (batch.refusal.offset, 1);
            }
            return;
        }
        if matches!(batch.refusal.code, MESSAGE_TOO_LARGE | RECORD_LIST_TOO_LARGE) {
            self.refused_bytes = self.refused_bytes.min(batch.bytes.div_ceil(2) + 1);
        }
        let until = self.search.as_ref().map_or(next, |search| search.until.max(next));
        self.search = Some(Search { from, until, records_max: u64::from(batch.records / 2) });
    }

    /// The target refuses this record: what becomes of it is decided when it is next.
    fn refuse(&mut self, refusal: Refusal) {
        self.known.insert(refusal.offset, refusal);
    }

    /// They are tried again.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// What lies from `from` to before `to` is committed.
    pub(super) fn advance(&mut self, from: Offset, to: Offset) {
        if let Some(search) = self.search.as_mut().filter(|search| from >= search.from) {
            search.records_max = search.records_max.saturating_mul(2);
        }
        self.known = self.known.split_off(&to);
        self.search.take_if(|search| search.until <= to);
    }
}
