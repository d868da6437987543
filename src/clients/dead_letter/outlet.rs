//! Topics that dead letters go to, and appends that are not done twice.
//!
//! The dead letters of one group are numbered in each partition of such a topic, as the records of a named producer are
//! (`log::sequences`). So the log itself says which of them it has: a crash or a truncation takes the number exactly
//! where it takes the dead letter, and retention takes it never.
//!
//! The topics are in the store, where this process writes it. Where it is attached, they are in the group's own store.

use std::collections::BTreeMap;

use crate::canary::{Bug, bug};
use crate::clients::group::{ConsumerError, Group, Result};
use crate::error::Error;
use crate::log::{BatchBuilder, Durability, Log, NewRecord, Numbered, NumberedBatch, SEQUENCE_MASK};
use crate::store::producer_ids::ProducerIdentity;
use crate::store::{NewTopic, Store};

/// Which store a dead letter topic is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Home {
    /// The one that the group's consumers read.
    Store,
    /// The group's own.
    Group,
}

/// A partition of a dead letter topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) home: Home,
    pub(crate) topic: String,
    pub(crate) partition: u32,
}

/// The end of a partition of a dead letter topic.
#[derive(Debug)]
pub(crate) struct Outlet {
    log: Log,
    identity: ProducerIdentity,
    numbered: Numbered,
    batch: BatchBuilder,
    /// The number of the first record of the batch.
    first: i64,
    /// What was found in the log is durable as well.
    is_flushed: bool,
}

/// The outlets that a group has opened.
#[derive(Debug, Default)]
pub(crate) struct Outlets {
    open: BTreeMap<(Target, String), Outlet>,
    /// By store and name.
    identities: BTreeMap<(Home, String), ProducerIdentity>,
    /// The first number that was not given out. No number is given out twice.
    next: BTreeMap<(Target, String), i64>,
}

impl Outlets {
    /// Where the dead letters of a partition go: to the same partition of the topic, modulo its partitions, as in
    /// Kafka. The topic is created where there is none, with one partition.
    ///
    /// # Errors
    /// [`ConsumerError::DeadLetters`].
    pub(crate) fn target(group: &Group, store: &Store, topic: &str, partition: u32) -> Result<Target> {
        let home = if store.is_attached() { Home::Group } else { Home::Store };
        let partitions = partitions(store_of(group, store, home), home, topic);
        let count = partitions.map_err(ConsumerError::dead_letters(topic))?;
        Ok(Target { home, topic: topic.to_owned(), partition: partition % count })
    }

    /// The outlet of a target, for the dead letters of one name.
    ///
    /// # Errors
    /// [`ConsumerError::DeadLetters`].
    pub(crate) fn outlet(&mut self, group: &Group, store: &Store, target: &Target, name: &str) -> Result<&mut Outlet> {
        let key = (target.clone(), name.to_owned());
        if !self.open.get(&key).is_some_and(Outlet::is_current) {
            self.open.remove(&key);
            let opened = self.open_outlet(store_of(group, store, target.home), target, name);
            self.open.insert(key.clone(), opened.map_err(ConsumerError::dead_letters(&target.topic))?);
        }
        let outlet = self.open.get_mut(&key).expect("it was opened");
        // What a recovery has appended since has numbers that were not given out here.
        let next = self.next.entry(key).or_insert(0);
        *next = (*next).max(outlet.numbered.last + 1);
        Ok(outlet)
    }

    fn open_outlet(&mut self, store: &Store, target: &Target, name: &str) -> crate::Result<Outlet> {
        partitions(store, target.home, &target.topic)?;
        let log = store.log(&target.topic, target.partition)?;
        let key = (target.home, name.to_owned());
        if !self.identities.contains_key(&key) {
            self.identities.insert(key.clone(), store.open_producer(name)?);
        }
        let identity = self.identities[&key].clone();
        let (numbered, batch) = (log.numbered(&identity.ids)?, log.batch());
        Ok(Outlet { log, identity, numbered, batch, first: 0, is_flushed: false })
    }

    /// Gives out the next number of an outlet that is open.
    pub(crate) fn give_out(&mut self, target: &Target, name: &str) -> i64 {
        let next = self.next.entry((target.clone(), name.to_owned())).or_insert(0);
        *next += 1;
        *next - 1
    }

    /// An append failed: the next one looks at the log again.
    pub(crate) fn close(&mut self, target: &Target, name: &str) {
        self.open.remove(&(target.clone(), name.to_owned()));
    }
}

impl Outlet {
    fn is_current(&self) -> bool {
        self.log.check_alive().is_ok() && self.numbered.generation == self.log.generation()
    }

    /// Whether the log has the dead letter of this number.
    pub(crate) fn has(&self, number: i64) -> bool {
        number <= self.numbered.last && !bug(Bug::DeadLetterWithoutALook)
    }

    /// Whether the log is known to have this number itself; others may have been passed over.
    pub(crate) fn finds(&self, number: i64) -> bool {
        self.numbered.find(number).is_some()
    }

    /// As [`push`](Outlet::push) behind the last number, which may pass over some. Before it, which comes of reading
    /// again from an earlier offset, a dead letter has no number.
    ///
    /// # Errors
    /// As [`push`](Outlet::push).
    pub(crate) fn push_rising(&mut self, number: i64, record: NewRecord<'_>) -> crate::Result<()> {
        if number > self.numbered.last {
            return self.push(number, record);
        }
        self.batch.push(record)?;
        let appended = self.log.append_batch_with(&mut self.batch, Durability::Sync);
        self.batch.clear();
        appended.map(drop)
    }

    /// Takes a dead letter, whose number is above those before it. [`finish`](Outlet::finish) makes it durable.
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`], and then it was not taken; what appending can answer.
    pub(crate) fn push(&mut self, number: i64, record: NewRecord<'_>) -> crate::Result<()> {
        if !self.batch.is_empty() && number != self.first + self.batch.len() as i64 {
            self.append()?;
        }
        if self.batch.is_empty() {
            self.first = number;
        }
        match self.batch.push(record) {
            Err(Error::RecordTooLarge { .. }) if !self.batch.is_empty() => {
                self.append()?;
                self.first = number;
                self.batch.push(record)
            }
            outcome => outcome,
        }
    }

    /// Makes what was taken durable, and what was found in the log.
    ///
    /// # Errors
    /// What appending and flushing can answer.
    ///
    /// # Durability
    /// On return, every dead letter up to the last one survives a power cut.
    pub(crate) fn finish(&mut self) -> crate::Result<()> {
        self.append()?;
        if !self.is_flushed && !bug(Bug::LeaveDeadLettersUnflushed) {
            // A process before may have died between its append and its flush.
            self.log.flush()?;
            self.is_flushed = true;
        }
        Ok(())
    }

    fn append(&mut self) -> crate::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let (first, last) = (self.first, self.first + self.batch.len() as i64 - 1);
        if first - (self.numbered.last + 1) > SEQUENCE_MASK {
            self.log.note_jump(&self.identity.ids, first - 1)?;
        }
        self.batch.set_producer(self.identity.id(), self.identity.epoch, (first & SEQUENCE_MASK) as i32);
        let durability = if bug(Bug::LeaveDeadLettersUnflushed) { Durability::Os } else { Durability::Sync };
        let info = self.log.append_batch_with(&mut self.batch, durability)?;
        let (base_offset, leader_epoch) = (info.base_offset, info.leader_epoch);
        self.numbered.note(NumberedBatch { first, last, base_offset, leader_epoch });
        Ok(())
    }
}

fn store_of<'a>(group: &'a Group, store: &'a Store, home: Home) -> &'a Store {
    match home {
        Home::Store => store,
        Home::Group => group.own_store(),
    }
}

/// How many partitions a dead letter topic has; it is created where there is none.
fn partitions(store: &Store, home: Home, name: &str) -> crate::Result<u32> {
    let mut topic = NewTopic::new(name);
    if home == Home::Group {
        topic = topic.config("segment.bytes", "4194304").config("segment.index.bytes", "65536");
    }
    store.create_topic_if_absent(&topic)?;
    Ok(store.topic(name)?.partition_ids.last().map_or(1, |last| last + 1))
}
