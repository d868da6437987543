//! Who holds which record of a share-partition: a state machine that is given the time.
//!
//! # Invariants
//!
//! 1. Below `start` every record is done. It moves past records that are, and never back.
//! 2. A record is held by one owner at a time. Accepted and archived are final.
//! 3. A delivery count goes up by one with each acquisition, and never down, but where the record is not handed out.
//! 4. What became of a record is first planned ([`plan`](LockTable::plan)), then written, and then applied: no consumer
//!    is given a record on the word of a state that a power cut can take.

use std::collections::VecDeque;

use edgelog_core::Offset;

/// What a record is, in the numbers of Kafka's state records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryState {
    Available,
    Acquired,
    Acknowledged,
    /// It is set aside, and archived once its dead letter is durable.
    Archiving(Cause),
    Archived,
}

/// Why a record is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Rejected,
    DeliveryCountExceeded,
    /// Its time was over before it was handed out.
    Expired,
}

/// What a consumer says of a record that it was given: Kafka's `AcknowledgeType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckType {
    /// It is done, and does not come again.
    Accept,
    /// It is to come again, to this consumer or another, until `share.delivery.count.limit` is reached.
    Release,
    /// It cannot be processed: it is archived, and does not come again.
    Reject,
    /// More time is needed: its lock begins again. It stays with this consumer.
    Renew,
}

/// How long records are held, how often they come, and how soon again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) lock_ms: i64,
    pub(crate) deliveries: u16,
    pub(crate) in_flight: usize,
    /// 0: a record that was released comes again at once.
    pub(crate) backoff_ms: i64,
    pub(crate) backoff_ms_max: i64,
    /// What cannot be processed becomes a dead letter before it is archived.
    pub(crate) has_dead_letters: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    state: DeliveryState,
    count: u16,
    owner: u64,
    /// Acquired: when the lock ends. Available: not given out before.
    at_ms: i64,
}

const FRESH: Slot = Slot { state: DeliveryState::Available, count: 0, owner: 0, at_ms: i64::MIN };

/// What a record is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) offset: Offset,
    pub(crate) state: DeliveryState,
    pub(crate) count: u16,
}

/// The records from the start offset on that are not done, or lie between such.
#[derive(Debug)]
pub(crate) struct LockTable {
    limits: Limits,
    start: Offset,
    slots: VecDeque<Slot>,
    /// No lock ends before.
    first_end_ms: i64,
}

impl LockTable {
    pub(crate) fn new(start: Offset, limits: Limits) -> LockTable {
        LockTable { limits, start, slots: VecDeque::new(), first_end_ms: i64::MAX }
    }

    pub(crate) fn start(&self) -> Offset {
        self.start
    }

    /// The first offset that it knows nothing of.
    pub(crate) fn end(&self) -> Offset {
        self.start + self.slots.len() as i64
    }

    /// Takes in the offsets up to `end`, as many as may be in flight.
    pub(crate) fn admit(&mut self, end: Offset) {
        while self.end() < end && self.slots.len() < self.limits.in_flight {
            self.slots.push_back(FRESH);
        }
    }

    /// What the group's log said of a record, before anything is given out.
    pub(crate) fn restore(&mut self, change: Change) {
        while self.end() <= change.offset {
            self.slots.push_back(FRESH);
        }
        if let Some(slot) = self.slot(change.offset) {
            (slot.state, slot.count) = (change.state, change.count);
        }
        self.advance();
    }

    /// The log begins there: what lies before is gone.
    pub(crate) fn log_starts_at(&mut self, offset: Offset) {
        while self.start < offset {
            self.slots.pop_front();
            self.start += 1;
        }
        self.advance();
    }

    /// Gives at most `max` records to an owner, in order: their offsets and delivery counts.
    pub(crate) fn acquire(&mut self, owner: u64, now_ms: i64, max: usize, taken: &mut Vec<(Offset, u16)>) {
        let until = now_ms.saturating_add(self.limits.lock_ms);
        let mut left = max;
        for (n, slot) in self.slots.iter_mut().enumerate() {
            if left == 0 {
                break;
            }
            if slot.state == DeliveryState::Available && slot.at_ms <= now_ms {
                *slot = Slot { state: DeliveryState::Acquired, count: slot.count + 1, owner, at_ms: until };
                taken.push((self.start + n as i64, slot.count));
                left -= 1;
            }
        }
        if left < max {
            self.first_end_ms = self.first_end_ms.min(until);
        }
    }

    /// What a record becomes by an acknowledgement; `None`: its owner does not hold it. A renewal changes nothing that
    /// is written down.
    pub(crate) fn plan(&self, owner: u64, offset: Offset, ack: AckType, now_ms: i64) -> Option<Change> {
        let is_held =
            |slot: &&Slot| slot.state == DeliveryState::Acquired && slot.owner == owner && now_ms < slot.at_ms;
        let slot = self.get(offset).filter(is_held)?;
        let state = match ack {
            AckType::Accept => DeliveryState::Acknowledged,
            AckType::Reject => self.set_aside(Cause::Rejected),
            AckType::Release => self.given_back(slot.count),
            AckType::Renew => DeliveryState::Acquired,
        };
        Some(Change { offset, state, count: slot.count })
    }

    /// What becomes of a record that is given back after so many deliveries.
    fn given_back(&self, count: u16) -> DeliveryState {
        if count < self.limits.deliveries {
            return DeliveryState::Available;
        }
        self.set_aside(Cause::DeliveryCountExceeded)
    }

    /// A record that was acquired is not handed out before then.
    pub(crate) fn postpone(&mut self, owner: u64, offset: Offset, until_ms: i64) {
        let is_held = |slot: &&mut Slot| slot.state == DeliveryState::Acquired && slot.owner == owner;
        if let Some(slot) = self.slot(offset).filter(is_held) {
            (slot.state, slot.count, slot.at_ms) = (DeliveryState::Available, slot.count - 1, until_ms);
        }
    }

    /// What becomes of a record that was acquired and is not handed out, since its time is over.
    pub(crate) fn plan_expired(&self, owner: u64, offset: Offset) -> Option<Change> {
        let is_held = |slot: &&Slot| slot.state == DeliveryState::Acquired && slot.owner == owner;
        let slot = self.get(offset).filter(is_held)?;
        Some(Change { offset, state: self.set_aside(Cause::Expired), count: slot.count - 1 })
    }

    fn set_aside(&self, cause: Cause) -> DeliveryState {
        if self.limits.has_dead_letters { DeliveryState::Archiving(cause) } else { DeliveryState::Archived }
    }

    /// Records of an owner that is gone, and with `None` those whose locks have ended.
    pub(crate) fn plan_given_back(&self, owner: Option<u64>, now_ms: i64, changes: &mut Vec<Change>) {
        if owner.is_none() && now_ms < self.first_end_ms {
            return;
        }
        for (n, slot) in self.slots.iter().enumerate() {
            let is_over = owner.map_or(slot.at_ms <= now_ms, |owner| slot.owner == owner);
            if slot.state == DeliveryState::Acquired && is_over {
                let offset = self.start + n as i64;
                changes.push(Change { offset, state: self.given_back(slot.count), count: slot.count });
            }
        }
    }

    /// Does what was planned and is written.
    pub(crate) fn apply(&mut self, changes: &[Change], now_ms: i64) {
        for change in changes {
            let Limits { backoff_ms, backoff_ms_max, lock_ms, .. } = self.limits;
            let Some(slot) = self.slot(change.offset) else { continue };
            slot.state = change.state;
            slot.at_ms = match change.state {
                DeliveryState::Acquired => now_ms.saturating_add(lock_ms),
                _ if backoff_ms == 0 => i64::MIN,
                _ => {
                    let doublings = u32::from(slot.count.saturating_sub(1)).min(30);
                    now_ms.saturating_add(backoff_ms.saturating_mul(1 << doublings).min(backoff_ms_max))
                }
            };
        }
        self.advance();
        let held = self.slots.iter().filter(|slot| slot.state == DeliveryState::Acquired);
        self.first_end_ms = held.map(|slot| slot.at_ms).min().unwrap_or(i64::MAX);
    }

    /// When something becomes available by time alone: the end of a lock, or of a wait.
    pub(crate) fn next_ms(&self, now_ms: i64) -> Option<i64> {
        let by_time = self.slots.iter().filter(|slot| match slot.state {
            DeliveryState::Acquired => true,
            DeliveryState::Available => slot.at_ms > now_ms,
            _ => false,
        });
        by_time.map(|slot| slot.at_ms).min()
    }

    /// How many records are held, and how many from the start offset on are done.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let of = |state| self.slots.iter().filter(|slot| slot.state == state).count();
        (of(DeliveryState::Acquired), of(DeliveryState::Acknowledged) + of(DeliveryState::Archived))
    }

    /// What a snapshot says of the records that were ever given back or are done.
    pub(crate) fn written(&self, changes: &mut Vec<Change>) {
        for (n, slot) in self.slots.iter().enumerate() {
            let (state, count) = match slot.state {
                // A lock is not written: behind a restart the record is available. Its delivery counts.
                DeliveryState::Acquired => (DeliveryState::Available, slot.count - 1),
                state => (state, slot.count),
            };
            if state != DeliveryState::Available || count > 0 {
                changes.push(Change { offset: self.start + n as i64, state, count });
            }
        }
    }

    fn advance(&mut self) {
        let is_done = |slot: &Slot| matches!(slot.state, DeliveryState::Acknowledged | DeliveryState::Archived);
        while self.slots.front().is_some_and(is_done) {
            self.slots.pop_front();
            self.start += 1;
        }
    }

    fn get(&self, offset: Offset) -> Option<&Slot> {
        self.slots.get(usize::try_from(offset - self.start).ok()?)
    }

    fn slot(&mut self, offset: Offset) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(offset - self.start).ok()?)
    }
}

#[cfg(test)]
mod tests;
