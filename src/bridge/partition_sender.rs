//! One local log on its way to one target partition: where it stands, and why it does not go on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::{Offset, TimestampMs};

use super::committed_offset::{BatchMark, CommittedOffset};
use super::dead_letter::Refusal;
use super::lent_log::LentLog;
use super::log_position::LogPosition;
use super::ownership::{Ownership, READING, check_ownership};
use super::partition::ByKey;
use super::pause_reason::PauseReason;
use super::progress_file::{LogProgress, LogStart};
use super::refused_records::RefusedRecords;
use super::route::{Route, Target};
use super::sender_change::SenderChange;
use super::target_rules::TargetRules;
use super::transaction_plan::PlannedLog;
use crate::error::Error;
use crate::kafka::{Backoff, CoordinatorKey};
use crate::store::failed_flushes::FailedFlushes;
use crate::{Log, OffsetSpec, Reader, Store, TopicPartition};

/// Whether a log is the one that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Here,
    /// Another log has its name since, and has not been begun with.
    Replaced,
    /// There is no log of its name any more.
    Gone,
    /// The store has it, and its directory is not there.
    NoDirectory,
}

#[derive(Debug)]
pub(super) struct PartitionSender {
    route: Route,
    /// What the log belongs to: it is open for as long as this is.
    store: Option<Arc<Store>>,
    presence: Presence,
    /// It was known once where to go on.
    was_placed: bool,
    /// The offset to be sent next: everything below is committed in the cluster.
    position: Offset,
    /// The batch that ends there, where one is committed.
    mark: Option<BatchMark>,
    /// An operator's decision stands in the cluster in place of that offset.
    has_decision: bool,
    /// When that was committed, where it was by this bridge.
    committed_at: Option<Instant>,
    /// Stands at the first offset that no transaction under way holds.
    reader: Option<Reader>,
    /// When this process made it durable last, while another one writes it.
    flushed_at: Option<Instant>,
    /// When was looked last at what another process has appended.
    looked_at: Instant,
    /// A look at its directory found none.
    missed_directory: bool,
    /// Why nothing is sent of this log until a person does something.
    paused: Option<PauseReason>,
    /// Where its partition failed and others did not: left out until then.
    rests: Option<Rest>,
    refused: RefusedRecords,
}

/// A pause of one sender's own.
#[derive(Debug, Clone)]
struct Rest {
    until: Instant,
    backoff: Backoff,
}

/// Which log it is, and where it goes.
impl PartitionSender {
    /// A log on its way to the topic `remote`, of which nothing is known yet.
    pub(super) fn new(name: TopicPartition, log: Log, group: CoordinatorKey, remote: String) -> PartitionSender {
        PartitionSender {
            route: Route::new(name, log, group, remote),
            store: None,
            presence: Presence::Here,
            was_placed: false,
            position: Offset(0),
            mark: None,
            has_decision: false,
            committed_at: None,
            reader: None,
            flushed_at: None,
            looked_at: Instant::now(),
            missed_directory: false,
            paused: None,
            rests: None,
            refused: RefusedRecords::none(),
        }
    }

    /// Keeps the store open that its log is of.
    pub(super) fn within(mut self, store: &Arc<Store>) -> PartitionSender {
        self.store = Some(Arc::clone(store));
        self
    }

    pub(super) fn name(&self) -> &TopicPartition {
        self.route.name()
    }

    pub(super) fn log(&self) -> &Log {
        self.route.log()
    }

    /// The group that keeps its position, as its coordinator is asked for it.
    pub(super) fn group(&self) -> &CoordinatorKey {
        self.route.group()
    }

    pub(super) fn group_id(&self) -> &str {
        let CoordinatorKey::Group(group) = self.group() else { unreachable!("positions are kept by groups") };
        group
    }

    /// The target topic.
    pub(super) fn remote(&self) -> &str {
        self.route.remote()
    }

    /// The target partition, where it is known.
    pub(super) fn target(&self) -> Option<Target> {
        self.route.target()
    }

    /// The target partition of a sender that sends.
    pub(super) fn target_partition(&self) -> i32 {
        self.route.target_partition()
    }

    #[cfg(test)]
    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    pub(super) fn aim_at(&mut self, target: Target) {
        self.route.aim_at(target);
    }

    pub(super) fn set_cluster(&mut self, id: Option<&str>) {
        self.route.set_cluster(id);
    }

    pub(super) fn set_rules(&mut self, rules: TargetRules) {
        self.route.set_rules(rules);
    }

    /// Its records are spread over the target's partitions by their keys, or are not. Where they were, over another
    /// number: how many those were, and are now.
    pub(super) fn spread(&mut self, by_key: Option<ByKey>) -> Option<(u32, u32)> {
        self.route.spread(by_key)
    }

    /// Whether another log has its name since it was begun with.
    pub(super) fn is_replaced(&self) -> bool {
        self.presence == Presence::Replaced
    }

    /// Whether there is no log of its name any more.
    pub(super) fn is_gone(&self) -> bool {
        self.presence == Presence::Gone
    }

    /// Whether the handle of the log can be used no more, since another log has had its name.
    pub(super) fn is_cut_off(&self) -> bool {
        let looked = self.paused.as_ref().map(|_| self.log().reader_with(OffsetSpec::Latest, READING));
        self.is_gone() || matches!(looked, Some(Err(Error::LogReplaced { .. })))
    }

    /// Whether its files can be read: those that are there are its own.
    pub(super) fn has_files(&self) -> bool {
        !matches!(self.presence, Presence::Gone | Presence::NoDirectory)
    }

    /// The log is not there any more.
    pub(super) fn mark_deleted(&mut self) {
        let (not_sent, looked_ms_before) = self.last_words();
        let reason = PauseReason::Deleted { not_sent, looked_ms_before };
        (self.presence, self.reader, self.rests, self.paused) = (Presence::Gone, None, None, Some(reason));
    }

    /// Whether its directory is there, while the store has the log. Missing is one that two looks miss: a deletion
    /// removes the directory first. Returns whether it was missed and is there again, while the log waits for it.
    pub(super) fn note_directory(&mut self, is_there: bool) -> bool {
        let was_missed = std::mem::replace(&mut self.missed_directory, !is_there);
        if is_there {
            let waits = matches!(self.paused, Some(PauseReason::DirectoryMissing | PauseReason::LocalLog { .. }));
            if was_missed && waits {
                (self.presence, self.reader, self.paused) = (Presence::Here, None, None);
            }
            return was_missed && waits;
        }
        if was_missed && self.has_files() {
            (self.presence, self.rests) = (Presence::NoDirectory, None);
            self.paused = Some(PauseReason::DirectoryMissing);
        }
        false
    }

    /// How many offsets of a log that is gone were not sent, as far as that is known; and how long before it was looked
    /// at last, in milliseconds: 0 where its last file could still be read.
    fn last_words(&self) -> (Option<u64>, u64) {
        let is_asked = !self.log().is_attached() || self.log().look_at_open_file();
        let looked = if is_asked { Duration::ZERO } else { self.looked_at.elapsed() };
        let position = LogPosition::as_seen(self.name().clone(), self.log(), self.position(), None);
        (position.lag, u64::try_from(looked.as_millis()).unwrap_or(u64::MAX))
    }

    /// Goes on with this handle of the log. Where it is of another log of the same name than was sent: how many offsets
    /// of that one were durable and were not sent, as far as that is known, and how long before it was looked at last,
    /// in milliseconds.
    pub(super) fn take_over(
        &mut self,
        log: Log,
        store: &Arc<Store>,
        failed: &FailedFlushes,
    ) -> Option<(Option<u64>, u64)> {
        let is_other = self.was_placed && log.id() != self.log().id();
        // Where it was seen that it is gone, that was said then.
        let last_words = match self.paused {
            Some(PauseReason::Deleted { not_sent, looked_ms_before }) => (not_sent, looked_ms_before),
            _ => self.last_words(),
        };
        self.route.begin_at(log);
        self.store = Some(Arc::clone(store));
        self.presence = if is_other { Presence::Replaced } else { Presence::Here };
        (self.paused, self.reader, self.rests) = (None, None, None);
        (self.mark, self.has_decision, self.committed_at, self.flushed_at) = (None, false, None, None);
        (self.looked_at, self.missed_directory) = (Instant::now(), false);
        self.refused.begin_again();
        self.inherit_failed_flush(failed);
        is_other.then_some(last_words)
    }

    /// Takes over what the bridge before could not flush.
    pub(super) fn inherit_failed_flush(&mut self, failed: &FailedFlushes) {
        if let Some(flush) = failed.of(self.name(), self.log().id()) {
            self.log().inherit_failed_flush(flush, "a bridge before this one");
        }
    }
}

/// Where it stands.
impl PartitionSender {
    /// The offset that is sent next, where that is known.
    pub(super) fn position(&self) -> Option<Offset> {
        self.reader.as_ref().map(|_| self.position)
    }

    /// Where its log begins now.
    pub(super) fn log_start(&self) -> LogStart {
        let (log_id, offset) = (self.log().id(), self.log().offsets().log_start_offset);
        LogStart { log_id, offset, is_own: self.log().is_own() }
    }

    /// How far the log is delivered.
    pub(super) fn delivered(&self) -> LogPosition {
        match &self.paused {
            Some(reason) if !self.has_files() => LogPosition::unreadable(self.name().clone(), reason.clone()),
            // What waits is not looked at before each transaction.
            Some(reason) => {
                let waits = Some(reason.clone());
                LogPosition::looked_up(self.name().clone(), self.log(), self.position(), waits)
            }
            None => LogPosition::as_seen(self.name().clone(), self.log(), self.position(), self.waits()),
        }
    }

    /// Whether it is not known yet where to go on, and nothing says why.
    pub(super) fn is_unplaced(&self) -> bool {
        self.paused.is_none() && self.reader.is_none()
    }

    /// Whether it reads, and nothing keeps it from being sent for good.
    pub(super) fn is_sending(&self) -> bool {
        self.paused.is_none() && self.reader.is_some()
    }

    /// Of which log and history an offset is.
    pub(super) fn check_ownership(&self, offset: &CommittedOffset) -> crate::Result<Ownership> {
        check_ownership(self.log(), offset)
    }

    /// Begins to read at an offset that is this log's.
    pub(super) fn start_at(&mut self, position: &CommittedOffset) -> crate::Result<()> {
        (self.position, self.mark) = (position.offset, Some(position.mark));
        (self.presence, self.was_placed) = (Presence::Here, true);
        let reader = match self.log().reader_with(OffsetSpec::Offset(position.offset), READING) {
            // What lies between is a loss, which is found when something is collected.
            Err(Error::OffsetOutOfRange { log_start_offset, .. }) if log_start_offset > position.offset => {
                self.log().reader_with(OffsetSpec::Earliest, READING)
            }
            other => other,
        };
        self.reader = Some(reader?);
        Ok(())
    }

    /// Begins to read at the first record that the log holds, or reports as lost what it held from `began` on.
    pub(super) fn start_at_the_beginning(&mut self, began: Option<Offset>) -> crate::Result<()> {
        let reader = self.log().reader_with(OffsetSpec::Earliest, READING)?;
        let start = reader.position().offset;
        (self.position, self.mark) = (began.map_or(start, |began| began.min(start)), None);
        (self.presence, self.was_placed) = (Presence::Here, true);
        self.reader = Some(reader);
        Ok(())
    }

    /// Begins to read where a person has decided: there, or at the first record that the log holds.
    pub(super) fn start_as_decided(&mut self, at: Option<&CommittedOffset>) -> crate::Result<()> {
        match at {
            Some(offset) => self.start_at(offset)?,
            None => self.start_at_the_beginning(None)?,
        }
        self.has_decision = true;
        Ok(())
    }

    /// While another process writes the log: makes durable what it shows, so that it may be sent; once at most in
    /// each `interval`, since the writer waits for the same device. A log that its writer could not write or flush
    /// waits, and so does one that could not be flushed from here.
    fn make_durable(&mut self, interval: Duration, failed: &mut FailedFlushes) {
        let is_due = self.flushed_at.is_none_or(|at| at.elapsed() >= interval);
        if !is_due || !self.log().is_attached() || self.reader.is_none() || self.sits_out() {
            return;
        }
        let before = self.log().offsets().recovery_point;
        let outcome = self.log().flush_up_to(Offset::MAX);
        if outcome.is_ok() {
            self.looked_at = Instant::now();
        }
        match self.log().failed_flush() {
            Some(flush) => failed.remember(self.name(), self.log().id(), flush),
            None => failed.forget(self.name()),
        }
        match outcome {
            Ok(durable) if durable > before => self.flushed_at = Some(Instant::now()),
            Ok(_) => {}
            Err(error) => {
                self.flushed_at = None;
                self.paused = Some(PauseReason::of_local_log(&error));
            }
        }
    }

    /// Lends its log for the planning of a transaction, as the sender of this number; makes durable before what another
    /// process has written, once at most in each `interval`. `None` while it sits out, or is not known where to go on.
    pub(super) fn lend(
        &mut self,
        sender: usize,
        interval: Duration,
        failed: &mut FailedFlushes,
    ) -> Option<LentLog<'_>> {
        self.make_durable(interval, failed);
        if self.sits_out() {
            return None;
        }
        let (position, acknowledged) = (self.position, self.acknowledged());
        let PartitionSender { route, reader, refused, .. } = self;
        Some(LentLog {
            sender,
            route,
            reader: reader.as_mut()?,
            position,
            acknowledged,
            refused,
            is_searching: refused.is_searching(position),
            records_max: refused.records_max(position),
            batch_bytes_max: refused.bytes_max(route.rules().max_message_bytes),
            stopped: None,
        })
    }

    /// Reads again from the position on: what was collected was aborted.
    pub(super) fn rewind(&mut self) -> crate::Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        reader.seek(OffsetSpec::Offset(self.position)).or_else(|_| reader.seek(OffsetSpec::Earliest))
    }

    /// The position, where it was not committed for so long: the cluster forgets what is not.
    pub(super) fn stale_position(&self, recommit: Duration) -> Option<(Offset, BatchMark)> {
        if self.sits_out() || self.reader.is_none() || self.committed_at.is_some_and(|at| at.elapsed() < recommit) {
            return None;
        }
        Some((self.position, self.mark?))
    }

    /// The offset that takes the place of a decision that was applied, before anything else is sent.
    pub(super) fn decided_position(&self) -> Option<(Offset, BatchMark)> {
        if !self.has_decision || self.sits_out() || self.reader.is_none() {
            return None;
        }
        Some((self.position, self.mark.unwrap_or_else(|| BatchMark::behind_a_gap(self.log().leader_epoch()))))
    }

    /// What the progress file says of this sender. Acknowledged is where it stands, and not what the file said before:
    /// that bridge may have died between the commit and writing the file.
    pub(super) fn progress(&self) -> LogProgress {
        self.route.progress(self.acknowledged(), None)
    }

    /// Where it stands, once something of it is committed.
    pub(super) fn acknowledged(&self) -> Option<CommittedOffset> {
        Some(self.route.position_at(self.position, self.mark?))
    }

    /// What a transaction needs to know of it that commits this offset, and carries nothing of it.
    pub(super) fn planned(&self, sender: usize, end: (Offset, BatchMark)) -> PlannedLog {
        self.route.planned(sender, self.acknowledged(), end)
    }
}

/// What keeps it from being sent.
impl PartitionSender {
    /// Why nothing is sent of this log until a person does something.
    pub(super) fn paused(&self) -> Option<&PauseReason> {
        self.paused.as_ref()
    }

    /// Why nothing more is sent of this log until something is done here or in the cluster: it is paused, or all that
    /// is known to be durable is sent, and the rest has to be recovered, or to be written again after a failure.
    pub(super) fn waits(&self) -> Option<PauseReason> {
        if self.paused.is_some() {
            return self.paused.clone();
        }
        let offsets = self.log().offsets();
        // What was sent may lie beyond the checkpoint: a bridge flushed it while a writer answered for it.
        let is_left = |at: &Offset| (offsets.recovery_point..offsets.log_end_offset).contains(at);
        let from = self.position().filter(is_left)?;
        if self.log().is_unvouched() {
            return Some(PauseReason::NotRecovered { from });
        }
        let failure = self.log().failure().filter(|_| !self.log().is_attached());
        failure.map(|reason| PauseReason::LocalLog { reason })
    }

    pub(super) fn pause(&mut self, reason: PauseReason) {
        if reason.questions_position() {
            self.reader = None;
        }
        self.paused = Some(reason);
    }

    /// It is paused no more; why it was. (The loop looks at it again instead.)
    #[cfg(test)]
    pub(super) fn end_pause(&mut self) -> Option<PauseReason> {
        self.paused.take()
    }

    /// Waits for a person, who decides about all logs.
    pub(super) fn stand_back(&mut self, reason: PauseReason) {
        (self.paused, self.reader, self.has_decision) = (Some(reason), None, false);
    }

    /// What the cluster says is to be seen again: nothing keeps it from going on yet.
    pub(super) fn look_again(&mut self) {
        (self.paused, self.has_decision) = (None, false);
    }

    /// Nothing is sent until the target takes this record, or another rule is set. It is tried again then.
    fn wait_for(&mut self, refusal: &Refusal) {
        self.paused = Some(PauseReason::RecordRefused { reason: refusal.to_string() });
        self.refused.forget();
    }

    /// Whether nothing is collected of this sender now.
    pub(super) fn sits_out(&self) -> bool {
        self.paused.is_some() || self.rests.as_ref().is_some_and(|rest| Instant::now() < rest.until)
    }

    /// When a sender that rests goes on.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        let rest = self.rests.as_ref().filter(|_| self.paused.is_none())?;
        Some(rest.until).filter(|until| Instant::now() < *until)
    }

    /// Leaves this sender out for a while, longer each time.
    fn rest(&mut self, first: Backoff) {
        let mut backoff = self.rests.take().map_or(first, |rest| rest.backoff);
        self.rests = Some(Rest { until: Instant::now() + backoff.pause(), backoff });
    }

    pub(super) fn apply(&mut self, change: SenderChange) {
        match change {
            SenderChange::Committed(to) => self.advance(&to),
            SenderChange::Paused(reason) => self.pause(reason),
            SenderChange::WaitsFor(refusal) => self.wait_for(&refusal),
            SenderChange::BackOff(first) => self.rest(first),
            SenderChange::Refused { named, batch } => self.refused.batch_refused(named, &batch),
        }
    }

    /// A transaction with a range of this sender was committed.
    fn advance(&mut self, to: &CommittedOffset) {
        self.refused.advance(self.position, to.offset);
        (self.position, self.mark, self.committed_at) = (to.offset, Some(to.mark), Some(Instant::now()));
        (self.has_decision, self.rests) = (false, None);
    }
}

/// What the target takes.
impl PartitionSender {
    /// Whether what comes next is part of a batch that was refused.
    #[cfg(test)]
    pub(super) fn is_searching(&self) -> bool {
        self.refused.is_searching(self.position)
    }

    /// Which rules of the target refuse what is to be sent for its time, in words: none where nothing is sent.
    pub(super) fn refused_times(&self, now: TimestampMs) -> crate::Result<Vec<String>> {
        let Some(times) = self.route.rules().times.as_ref().filter(|_| self.is_sending()) else {
            return Ok(Vec::new());
        };
        let from = self.position.max(self.log().offsets().log_start_offset);
        times.refused_of(self.log(), from, now)
    }
}
