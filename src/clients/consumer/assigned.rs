//! One partition that a consumer has: where it begins, what it takes, and how it goes on behind an error.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use edgelog_core::{Offset, OffsetAndEpoch};

use super::config::{ConsumerConfig, OffsetReset};
use super::records::{Held, Part, SharedBatch};
use crate::clients::group::{ConsumerError, Group, Result};
use crate::error::Error;
use crate::log::{Batch, Log, LostRange, OffsetSpec, Reader, ReaderOptions, TopicPartition};
use crate::store::Store;

#[derive(Debug)]
pub(super) struct Assigned {
    pub(super) name: Arc<TopicPartition>,
    pub(super) log: Log,
    reader: Reader,
    /// What the last poll has left of a batch.
    rest: Option<Rest>,
    pub(super) is_paused: bool,
    /// The position that was committed last, by this consumer or before it.
    pub(super) committed: Option<Offset>,
}

#[derive(Debug)]
struct Rest {
    shared: Arc<SharedBatch>,
    from: Offset,
    until: Offset,
}

/// What a poll may still take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) records: usize,
    pub(super) bytes: usize,
    pub(super) partition_bytes: usize,
}

/// What decides where a partition begins.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) store: &'a Store,
    pub(super) group: Option<&'a Group>,
    pub(super) config: &'a ConsumerConfig,
}

impl Assigned {
    /// The partition, where its group's position says, or else `auto.offset.reset`.
    pub(super) fn open(name: &TopicPartition, terms: Terms<'_>) -> Result<Assigned> {
        let log = terms.store.log(&name.topic, name.partition).map_err(ConsumerError::log(name))?;
        let config = terms.config;
        let options =
            ReaderOptions { isolation: config.isolation, check_crcs: config.check_crcs, ..log.reader_options() };
        let reader = log.reader_with(OffsetSpec::Earliest, options).map_err(ConsumerError::log(name))?;
        let name = Arc::new(name.clone());
        let mut assigned = Assigned { name, log, reader, rest: None, is_paused: false, committed: None };
        assigned.begin(terms)?;
        assigned.hold(terms)?;
        Ok(assigned)
    }

    fn begin(&mut self, terms: Terms<'_>) -> Result<()> {
        let Some(group) = terms.group else { return self.reset(terms, "there is no group") };
        let Some(at) = group.committed(&self.name) else {
            if group.recovery().is_clean() || terms.config.reset == OffsetReset::None {
                return self.reset(terms, "its group has committed none");
            }
            // It may have been among what the group's store has lost.
            return self.seek_log(OffsetSpec::Earliest);
        };
        match (at.log_id, self.log.lasting_id()) {
            (Some(then), Some(now)) if then != now => {
                return self.reset(terms, "the topic was deleted and created again since its group has committed one");
            }
            (Some(_), None) => {
                let reason = "the store's checkpoint does not say which log this is; open the store for writing once";
                return Err(ConsumerError::NoPosition { log: (*self.name).clone(), reason: reason.to_owned() });
            }
            _ => {}
        }
        let spec = match at.leader_epoch {
            Some(leader_epoch) => OffsetSpec::Position(OffsetAndEpoch { offset: at.offset, leader_epoch }),
            None => OffsetSpec::Offset(at.offset),
        };
        match self.reader.seek(spec) {
            Ok(()) => {
                self.committed = Some(at.offset);
                Ok(())
            }
            Err(error) => self.go_on_behind(error, terms),
        }
    }

    /// Where a position is not one of the log any more: at the end of what is still common where the log was truncated,
    /// and else as `auto.offset.reset` says.
    fn go_on_behind(&mut self, error: Error, terms: Terms<'_>) -> Result<()> {
        let is_none = terms.config.reset == OffsetReset::None;
        // The same offset is another position from here on.
        self.committed = None;
        match error {
            Error::FencedLeaderEpoch { end_offset, .. } if !is_none => {
                let start = self.log.offsets().log_start_offset;
                tracing::warn!(log = %self.name, %error, %end_offset, "the log was truncated; going on there");
                self.seek_log(OffsetSpec::Offset(end_offset.max(start)))
            }
            Error::OffsetOutOfRange { .. } | Error::UnknownLeaderEpoch { .. } | Error::FencedLeaderEpoch { .. } => {
                self.reset(terms, &error.to_string())
            }
            error => Err(ConsumerError::log(&self.name)(error)),
        }
    }

    fn reset(&mut self, terms: Terms<'_>, reason: &str) -> Result<()> {
        let spec = match terms.config.reset {
            OffsetReset::Earliest => OffsetSpec::Earliest,
            OffsetReset::Latest => OffsetSpec::Latest,
            OffsetReset::ByDuration(before) => OffsetSpec::Timestamp(before_now(terms.store, before)),
            OffsetReset::None => {
                return Err(ConsumerError::NoPosition { log: (*self.name).clone(), reason: reason.to_owned() });
            }
        };
        self.seek_log(spec)
    }

    fn seek_log(&mut self, to: OffsetSpec) -> Result<()> {
        self.reader.seek(to).map_err(ConsumerError::log(&self.name))?;
        self.rest = None;
        Ok(())
    }

    /// From its position on, retention keeps the log.
    fn hold(&self, terms: Terms<'_>) -> Result<()> {
        match terms.group {
            Some(group) => group.hold(&self.log, self.position().offset),
            None => Ok(()),
        }
    }

    pub(super) fn seek(&mut self, to: OffsetSpec, terms: Terms<'_>) -> Result<()> {
        self.seek_log(to)?;
        self.hold(terms)
    }

    /// The offset of the next record that a poll returns, with the leader epoch of the one before.
    pub(super) fn position(&self) -> OffsetAndEpoch {
        let behind = self.reader.position();
        match &self.rest {
            Some(rest) => OffsetAndEpoch { offset: rest.from, ..behind },
            None => behind,
        }
    }

    pub(super) fn lag(&self) -> u64 {
        let rest = self.rest.as_ref().map_or(0, |rest| u64::try_from(rest.until - rest.from).unwrap_or(0));
        self.reader.lag() + rest
    }

    pub(super) fn skip_damage(&mut self) -> Result<LostRange> {
        self.reader.skip_damage().map_err(ConsumerError::log(&self.name))
    }

    pub(super) fn poll_descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        self.reader.poll_descriptor().map_err(ConsumerError::log(&self.name))
    }

    /// Takes batches for as long as there is room.
    pub(super) fn take(&mut self, room: &mut Room, parts: &mut Vec<Part>) -> crate::Result<()> {
        let mut partition_bytes = room.partition_bytes;
        while room.records > 0 && room.bytes > 0 && partition_bytes > 0 {
            let rest = self.rest.take();
            let (held, from, until) = match rest {
                Some(rest) => (Held::Part(rest.shared), rest.from, rest.until),
                None => match self.next_batch()? {
                    Some((batch, from, until)) => (Held::Whole(batch), from, until),
                    None => return Ok(()),
                },
            };
            let bytes = match &held {
                Held::Whole(batch) => batch.bytes().len(),
                Held::Part(shared) => shared.batch.bytes().len(),
            };
            let count = usize::try_from(until - from).unwrap_or(usize::MAX);
            let partition = Arc::clone(&self.name);
            let taken = count.min(room.records);
            if taken < count {
                let shared = match held {
                    Held::Whole(batch) => SharedBatch::new(batch),
                    Held::Part(shared) => shared,
                };
                let middle = from + taken as i64;
                self.rest = Some(Rest { shared: Arc::clone(&shared), from: middle, until });
                parts.push(Part { partition, held: Held::Part(shared), from, until: middle });
            } else {
                parts.push(Part { partition, held, from, until });
            }
            room.records -= taken;
            room.bytes = room.bytes.saturating_sub(bytes);
            partition_bytes = partition_bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    /// The next batch with records, and which offsets of it are to be returned.
    #[inline]
    fn next_batch(&mut self) -> crate::Result<Option<(Batch, Offset, Offset)>> {
        loop {
            let Some(batch) = self.reader.next_batch()? else { return Ok(None) };
            let from = batch.first_asked_for();
            let until = (batch.last_offset() + 1).min(self.reader.position().offset);
            if until <= from || batch.view().record_count() == 0 {
                continue;
            }
            if batch.view().compression() == edgelog_core::CompressionType::None {
                return Ok(Some((batch, from, until)));
            }
            // One that cannot be decompressed is not passed over: a commit would.
            match batch.records().map(drop) {
                Ok(()) => return Ok(Some((batch, from, until))),
                Err(error) => {
                    self.reader.seek(OffsetSpec::Offset(from))?;
                    return Err(error);
                }
            }
        }
    }

    /// Goes on behind an error where that can be; else says what it was.
    pub(super) fn mend(&mut self, error: Error, terms: Terms<'_>) -> Result<Mended> {
        match error {
            Error::OffsetOutOfRange { .. } | Error::FencedLeaderEpoch { .. } | Error::UnknownLeaderEpoch { .. } => {
                self.go_on_behind(error, terms)?;
                self.hold(terms)?;
                Ok(Mended::GoesOn)
            }
            Error::Closed | Error::LogReplaced { .. } => {
                terms.store.check_open()?;
                match terms.store.log(&self.name.topic, self.name.partition) {
                    Ok(log) if log.id() != self.log.id() => {
                        let (is_paused, name) = (self.is_paused, Arc::clone(&self.name));
                        *self = Assigned { is_paused, ..Assigned::open(&name, terms)? };
                        Ok(Mended::GoesOn)
                    }
                    Ok(_) => Err(ConsumerError::log(&self.name)(error)),
                    Err(Error::UnknownTopicOrPartition { .. }) => Ok(Mended::IsGone),
                    Err(error) => Err(ConsumerError::log(&self.name)(error)),
                }
            }
            error => Err(ConsumerError::log(&self.name)(error)),
        }
    }
}

/// What became of a partition behind an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mended {
    GoesOn,
    /// The topic was deleted.
    IsGone,
}

/// So long before the present time of the store.
fn before_now(store: &Store, before: Duration) -> edgelog_core::TimestampMs {
    let ms = i64::try_from(before.as_millis()).unwrap_or(i64::MAX);
    edgelog_core::TimestampMs(store.clock().now().0.saturating_sub(ms))
}
