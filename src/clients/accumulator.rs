//! Where records wait for their batch: one open batch for each partition.
//!
//! # Who may do what at the same time
//!
//! 1. A record goes into its partition's open batch under the partition's lock, and a batch is appended under it: so
//!    records stand in the log in the order in which they were sent.
//! 2. Who fills a batch appends it. The sender thread appends those whose `linger.ms` is over, and with `acks=all`
//!    makes what was appended durable, without the lock: meanwhile the next batches fill.
//! 3. A partition that has something for the sender to do stands in `Active`, put there under the partition's lock.
//!    The sender takes it out of its list only where it has found, under that lock, that there is nothing to do.
//! 4. Locks are taken in this order: partition, then the list of active ones, the bell or a batch's own. The log's
//!    locks are taken under the partition's; events wait until it is free. No code of the program runs under it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::{CompressionType, HEADER_LEN, LeaderEpoch, Offset, TimestampMs};

use super::delivery::{Batch, Callback, Delivery, Home};
use super::named::{Naming, Numbers, Place};
use super::producer_config::Acks;
use super::producer_error::ProducerError;
use super::producer_memory::Memory;
use super::producer_metrics::Counters;
use super::producer_record::{ProducerRecord, RecordMetadata};
use crate::canary::{Bug, bug};
use crate::events;
use crate::log::{AppendInfo, BatchBuilder, Durability, Log};
use crate::sync::{Mutex, MutexGuard};

/// Partitions that may have something for the sender to do.
pub(super) type Active = Mutex<Vec<Arc<Partition>>>;

/// How batches are made and appended: the same for all partitions of a producer.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) acks: Acks,
    pub(super) linger: Duration,
    pub(super) batch_size: usize,
    /// As `batch_size`, for records that need no more than room: 0 where each has a number to look at.
    pub(super) batch_size_at_once: usize,
    /// Of a named producer.
    pub(super) naming: Option<Naming>,
    pub(super) compression: Option<CompressionType>,
    pub(super) memory: Memory,
    pub(super) active: Active,
}

/// Why a partition did not take a record.
pub(super) enum Refused {
    /// Its log is closed, and there may be another one of the name. The record's callback goes back.
    Stale(Option<Callback>),
    Because(ProducerError),
}

impl<E: Into<ProducerError>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Because(error.into())
    }
}

/// One partition of one producer.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) home: Arc<Home>,
    pub(super) log: Log,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    builder: BatchBuilder,
    /// Of the records in `builder`, where there are some.
    open: Option<Open>,
    /// Appended and not yet durable, in order.
    unflushed: Vec<Unflushed>,
    /// It stands in `Active`, or in the sender's own list.
    listed: bool,
    /// Of a named producer, from its first look on.
    numbers: Option<Box<Numbers>>,
    /// An answered batch of which likely no handle is left.
    spare: Option<Arc<Batch>>,
    counters: Counters,
}

/// A batch that is not answered yet. Dropped, it is, one way or the other.
#[derive(Debug)]
struct Open {
    batch: Arc<Batch>,
    opened: Instant,
    /// When its `linger.ms` is over.
    due: Instant,
    _taken: Taken,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.batch.answer(Err(ProducerError::Closed));
    }
}

/// Memory that was taken, and is given back when this is dropped.
#[derive(Debug)]
struct Taken {
    bytes: usize,
    rules: Arc<Rules>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.rules.memory.give_back(self.bytes);
    }
}

/// A batch that was appended, and is acknowledged by a flush.
#[derive(Debug)]
struct Unflushed {
    open: Open,
    records: u64,
    info: AppendInfo,
    appended: Instant,
}

/// What the sender is to do for a partition.
#[derive(Debug)]
pub(super) enum Attended {
    /// Nothing: the partition puts itself into the list where there is something again.
    Nothing,
    /// To look again by then.
    Again(Instant),
    /// To flush, and to look again then.
    Flush(Flushing),
}

/// What a flush of a partition's log acknowledges.
#[derive(Debug)]
pub(super) struct Flushing(Vec<Unflushed>);

impl Partition {
    pub(super) fn new(home: Arc<Home>, log: Log) -> Arc<Partition> {
        let builder = log.batch();
        let state = State {
            builder,
            open: None,
            unflushed: Vec::new(),
            listed: false,
            numbers: None,
            spare: None,
            counters: Counters::default(),
        };
        Arc::new(Partition { home, log, state: Mutex::new(state) })
    }

    /// Takes a record of `bytes_max` bytes at most. The record is in the log, or in an open batch, when this returns.
    ///
    /// Nearly always it fits into the open batch: that way nothing is appended, and so no event can come.
    #[inline]
    pub(super) fn send(
        self: &Arc<Partition>,
        rules: &Arc<Rules>,
        record: &ProducerRecord<'_>,
        bytes_max: usize,
        callback: Option<Callback>,
    ) -> Result<Delivery, Box<Refused>> {
        let mut guard = self.state.lock();
        let State { builder, open: Some(open), .. } = &mut *guard else {
            return self.send_slowly(guard, rules, record, bytes_max, callback);
        };
        let limit = rules.batch_size_at_once.min(self.log.batch_bytes_max());
        if builder.size() + bytes_max < limit
            && callback.is_none()
            && rules.acks != Acks::None
            && !open.batch.is_answered()
            && !rules.memory.is_closed()
        {
            let timestamp = record.timestamp.unwrap_or_else(|| builder.now());
            let index = builder.len() as u32;
            // An error is found again, and answered, on the slow way.
            if builder.push(record.for_log(timestamp)).is_ok() {
                return Ok(Delivery::pending(Arc::clone(&open.batch), index, timestamp));
            }
        }
        self.send_slowly(guard, rules, record, bytes_max, callback)
    }

    #[cold]
    #[inline(never)]
    fn send_slowly(
        self: &Arc<Partition>,
        guard: MutexGuard<'_, State>,
        rules: &Arc<Rules>,
        record: &ProducerRecord<'_>,
        bytes_max: usize,
        callback: Option<Callback>,
    ) -> Result<Delivery, Box<Refused>> {
        let _events = events::hold();
        let mut wish = None;
        // It drops the guard, and so before the hold, which emits its events then.
        let delivery = self.take(guard, rules, record, bytes_max, callback, &mut wish);
        self.ring(wish);
        delivery.map_err(Box::new)
    }

    /// Takes a record in each case that there is. Leaves in `wish` by when the sender is to look, also where it answers
    /// an error.
    fn take<'g>(
        self: &'g Arc<Partition>,
        guard: MutexGuard<'g, State>,
        rules: &Arc<Rules>,
        record: &ProducerRecord<'_>,
        bytes_max: usize,
        callback: Option<Callback>,
        wish: &mut Option<Instant>,
    ) -> Result<Delivery, Refused> {
        let mut taken = None;
        let mut state = guard;
        let limit = loop {
            if rules.memory.is_closed() {
                return Err(ProducerError::Closed.into());
            }
            let limit = rules.batch_size.min(self.log.batch_bytes_max());
            if let Some(open) = &state.open {
                // One that was answered early, by `delivery.timeout.ms`, is no answer to this record.
                if state.builder.size() + bytes_max > limit || open.batch.is_answered() {
                    *wish = self.append(rules, &mut state).or(*wish);
                }
            }
            if let Some(naming) = &rules.naming {
                match self.place(naming, &mut state, record)? {
                    Place::Next => {}
                    Place::BehindAHole => {
                        *wish = self.append(rules, &mut state).or(*wish);
                        continue;
                    }
                    Place::Open(index) => return Ok(self.repeat_open(rules, &state, record, index, callback)),
                    Place::InLog(offset, epoch) => {
                        drop(state);
                        return Ok(self.repeat(rules, record, (offset, epoch), callback));
                    }
                }
            }
            if state.open.is_some() || taken.is_some() {
                break limit;
            }
            if self.log.check_alive().is_err() {
                return Err(Refused::Stale(callback));
            }
            if rules.linger.is_zero() && rules.acks != Acks::All && callback.is_none() {
                return self.append_alone(rules, &mut state, record);
            }
            let bytes = rules.batch_size.max(bytes_max + HEADER_LEN);
            if !rules.memory.try_take(bytes) {
                drop(state);
                self.ring(wish.take());
                if self.home.reports.is_sender() {
                    return Err(rules.memory.full(bytes).into());
                }
                rules.memory.take(bytes, || self.home.reports.bell.ring(Instant::now()))?;
                state = self.state.lock();
            }
            taken = Some(Taken { bytes, rules: Arc::clone(rules) });
        };
        let (delivery, opened) = self.push(rules, &mut state, record, taken, callback)?;
        *wish = wish.or(opened);
        if state.builder.size() >= limit {
            *wish = self.append(rules, &mut state).or(*wish);
        }
        Ok(delivery)
    }

    fn ring(&self, by: Option<Instant>) {
        if let Some(by) = by {
            self.home.reports.bell.ring(by);
        }
    }

    /// Adds a record to the open batch, or opens one with it. Returns by when the sender is to look.
    #[inline]
    fn push(
        self: &Arc<Partition>,
        rules: &Rules,
        state: &mut State,
        record: &ProducerRecord<'_>,
        taken: Option<Taken>,
        callback: Option<Callback>,
    ) -> Result<(Delivery, Option<Instant>), Refused> {
        let timestamp = record.timestamp.unwrap_or_else(|| state.builder.now());
        if state.open.is_none() {
            state.builder.set_bytes_max(self.log.batch_bytes_max());
        }
        let index = state.builder.len() as u32;
        state.builder.push(record.for_log(timestamp))?;
        let mut wish = None;
        let open = match &mut state.open {
            Some(open) => open,
            open => {
                let opened = Instant::now();
                let due = opened + rules.linger;
                let batch = self.batch(state.spare.take(), opened);
                let taken = taken.expect("memory was taken for a batch that is opened");
                wish = Some(due);
                open.insert(Open { batch, opened, due, _taken: taken })
            }
        };
        if let Some(callback) = callback {
            open.batch.call_back(index, timestamp, callback);
        }
        let delivery = if rules.acks == Acks::None {
            Delivery::ready(Ok(self.unknown(timestamp)))
        } else {
            Delivery::pending(Arc::clone(&open.batch), index, timestamp)
        };
        if wish.is_some() {
            self.list(rules, state);
            // Read behind the list: who began to wait before the sender looked at that is seen here.
            if rules.memory.is_waited_for() {
                wish = Some(Instant::now());
            }
        }
        Ok((delivery, wish))
    }

    /// An answer for a new batch: the spare one, where no handle of it is left.
    fn batch(&self, spare: Option<Arc<Batch>>, opened: Instant) -> Arc<Batch> {
        if let Some(mut spare) = spare {
            if let Some(batch) = Arc::get_mut(&mut spare) {
                batch.renew(opened);
                return spare;
            }
        }
        Arc::new(Batch::new(&self.home, opened))
    }

    fn unknown(&self, timestamp: TimestampMs) -> RecordMetadata {
        let topic_partition = Arc::clone(&self.home.name);
        RecordMetadata { topic_partition, offset: None, leader_epoch: LeaderEpoch(-1), timestamp }
    }

    /// Appends one record at once, as its own batch, in its caller's thread: nothing waits here, and no thread is
    /// woken.
    fn append_alone(&self, rules: &Rules, state: &mut State, record: &ProducerRecord<'_>) -> Result<Delivery, Refused> {
        let timestamp = record.timestamp.unwrap_or_else(|| state.builder.now());
        state.builder.set_bytes_max(self.log.batch_bytes_max());
        state.builder.push(record.for_log(timestamp))?;
        let size = state.builder.size();
        let outcome = self.append_to_log(rules, state);
        state.builder.clear();
        state.counters.batch(1, size, Duration::ZERO);
        state.counters.answered(1, outcome.is_ok());
        if rules.acks == Acks::None {
            return Ok(Delivery::ready(Ok(self.unknown(timestamp))));
        }
        Ok(Delivery::ready(outcome.map(|info| RecordMetadata {
            offset: Some(info.base_offset),
            leader_epoch: info.leader_epoch,
            ..self.unknown(timestamp)
        })))
    }

    /// Appends what is in the builder, under its numbers where the producer has a name.
    fn append_to_log(&self, rules: &Rules, state: &mut State) -> Result<AppendInfo, ProducerError> {
        let durability = self.durability(rules);
        let append = |builder: &mut BatchBuilder| self.log.append_for_producer(builder, rules.compression, durability);
        match (&rules.naming, &mut state.numbers) {
            (Some(naming), Some(numbers)) => numbers.append(naming, &self.log, &mut state.builder, append),
            _ => Ok(append(&mut state.builder)?),
        }
    }

    /// What the number of a named producer's record means.
    fn place(&self, naming: &Naming, state: &mut State, record: &ProducerRecord<'_>) -> Result<Place, Refused> {
        let pending = state.builder.len();
        let numbers = self.numbers(naming, state)?;
        Ok(numbers.place(naming, &self.home.name, record.sequence, pending)?)
    }

    /// The numbers of the log as it is.
    fn numbers<'s>(&self, naming: &Naming, state: &'s mut State) -> Result<&'s mut Numbers, ProducerError> {
        let numbers = match state.numbers.take() {
            Some(numbers) if numbers.is_current(&self.log) => numbers,
            before => Box::new(Numbers::read(naming, &self.log, before.map(|before| *before))?),
        };
        Ok(state.numbers.insert(numbers))
    }

    /// The number of the last record of a named producer that the log has.
    pub(super) fn last_sequence(&self, naming: &Naming) -> Result<Option<i64>, ProducerError> {
        let _events = events::hold();
        let mut state = self.state.lock();
        self.numbers(naming, &mut state)?.last(naming)
    }

    /// Answers a record that stands in the open batch already.
    fn repeat_open(
        &self,
        rules: &Rules,
        state: &State,
        record: &ProducerRecord<'_>,
        index: u32,
        callback: Option<Callback>,
    ) -> Delivery {
        let timestamp = record.timestamp.unwrap_or_else(|| state.builder.now());
        let open = state.open.as_ref().expect("it has the record");
        if let Some(callback) = callback {
            open.batch.call_back(index, timestamp, callback);
        }
        if rules.acks == Acks::None {
            return Delivery::ready(Ok(self.unknown(timestamp)));
        }
        Delivery::pending(Arc::clone(&open.batch), index, timestamp)
    }

    /// Answers a record that the log has already: with `acks=all` when that is durable.
    fn repeat(
        &self,
        rules: &Rules,
        record: &ProducerRecord<'_>,
        at: (Offset, LeaderEpoch),
        callback: Option<Callback>,
    ) -> Delivery {
        let timestamp = record.timestamp.unwrap_or_else(|| self.state.lock().builder.now());
        let batch = Arc::new(Batch::new(&self.home, Instant::now()));
        if let Some(callback) = callback {
            batch.call_back(0, timestamp, callback);
        }
        let is_flushed = rules.acks == Acks::All && !bug(Bug::AcknowledgeARepeatAtOnce);
        // Of one whose offset is not known, all that there is.
        let end = if at.0 < 0 { Offset::MAX } else { at.0 + 1 };
        let flushed = if is_flushed { self.log.flush_up_to(end).map(drop) } else { Ok(()) };
        batch.answer(flushed.map(|()| at).map_err(ProducerError::from));
        if rules.acks == Acks::None {
            return Delivery::ready(Ok(self.unknown(timestamp)));
        }
        Delivery::pending(batch, 0, timestamp)
    }

    /// How what is appended becomes durable: by the sender's flush, or as the topic's keys say without one that waits.
    fn durability(&self, rules: &Rules) -> Durability {
        match (rules.acks, self.log.default_durability()) {
            (Acks::All, _) => Durability::Sync,
            (_, Durability::Interval) => Durability::Interval,
            _ => Durability::Os,
        }
    }

    /// Appends the open batch, where there is one. Returns by when the sender is to look, where that is for a flush.
    fn append(self: &Arc<Partition>, rules: &Rules, state: &mut State) -> Option<Instant> {
        let open = state.open.take()?;
        let (records, size) = (state.builder.len() as u64, state.builder.size());
        let appended = Instant::now();
        state.counters.batch(records, size, appended.saturating_duration_since(open.opened));
        let outcome = self.append_to_log(rules, state);
        state.builder.clear();
        match outcome {
            Ok(info) if rules.acks == Acks::All => {
                state.unflushed.push(Unflushed { open, records, info, appended });
                self.list(rules, state);
                return Some(appended);
            }
            Ok(info) => {
                state.counters.answered(records, true);
                open.batch.answer(Ok((info.base_offset, info.leader_epoch)));
            }
            Err(error) => {
                state.counters.answered(records, false);
                open.batch.answer(Err(error));
            }
        }
        state.spare = Some(Arc::clone(&open.batch));
        None
    }

    /// Puts the partition where the sender looks.
    fn list(self: &Arc<Partition>, rules: &Rules, state: &mut State) {
        if !state.listed {
            state.listed = true;
            rules.active.lock().push(Arc::clone(self));
        }
    }

    /// For the sender: appends what is due at `now`, or with `all` what there is.
    pub(super) fn attend(self: &Arc<Partition>, rules: &Rules, now: Instant, all: bool) -> Attended {
        let _events = events::hold();
        let mut state = self.state.lock();
        if state.open.as_ref().is_some_and(|open| all || open.due <= now) {
            self.append(rules, &mut state);
        }
        if !state.unflushed.is_empty() {
            return Attended::Flush(Flushing(std::mem::take(&mut state.unflushed)));
        }
        if let Some(open) = &state.open {
            return Attended::Again(open.due);
        }
        state.listed = false;
        Attended::Nothing
    }

    /// For the sender: makes durable what it was given, and answers it.
    pub(super) fn flush(&self, flushing: Flushing) {
        let Some(end) = flushing.0.last().map(|last| last.info.last_offset + 1) else { return };
        let flushed = if bug(Bug::AcknowledgeBeforeTheFlush) { Ok(end) } else { self.log.flush_up_to(end) };
        let flushed = flushed.map_err(ProducerError::from);
        let now = Instant::now();
        let mut spare = None;
        let mut counters = Counters::default();
        for Unflushed { open, records, info, appended } in flushing.0 {
            let info = &info;
            let outcome = match &flushed {
                // A truncation by the program meanwhile ends its epoch, and others have its offsets.
                Ok(durable) if *durable > info.last_offset && self.log.is_still_there(info) => {
                    Ok((info.base_offset, info.leader_epoch))
                }
                Ok(_) => Err(ProducerError::Truncated),
                Err(error) => Err(error.clone()),
            };
            counters.answered(records, outcome.is_ok());
            counters.flushed(now.saturating_duration_since(appended));
            open.batch.answer(outcome);
            spare = Some(Arc::clone(&open.batch));
        }
        let mut state = self.state.lock();
        state.spare = spare;
        state.counters.add(&counters);
    }

    /// Discards the records of the open batch. Returns how many there were.
    pub(super) fn purge(&self) -> u64 {
        let mut state = self.state.lock();
        let Some(open) = state.open.take() else { return 0 };
        let records = state.builder.len() as u64;
        state.builder.clear();
        if let Some(numbers) = &mut state.numbers {
            numbers.discard();
        }
        state.counters.answered(records, false);
        open.batch.answer(Err(ProducerError::Purged));
        records
    }

    /// Returns when no call of `send` is in the partition that began before this one.
    pub(super) fn pass_through(&self) {
        drop(self.state.lock());
    }

    /// What was counted so far.
    pub(super) fn count(&self, counters: &mut Counters) {
        counters.add(&self.state.lock().counters);
    }
}
