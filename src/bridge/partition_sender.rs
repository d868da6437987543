//! One local log on its way to one target partition: where it stands, and whether an offset that was committed is of
//! this log and its history.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgelog_core::config::IsolationLevel;
use edgelog_core::{LeaderEpoch, Offset, OffsetAndEpoch, TimestampMs};
use kafka_protocol::error::ResponseError;
use uuid::Uuid;

use super::committed_offset::{BatchMark, CommittedOffset, RangeEnd};
use super::dead_letter::Refusal;
use super::log_position::LogPosition;
use super::partition::ByKey;
use super::pause_reason::PauseReason;
use super::producer_header::Producer;
use super::progress_file::{LogProgress, PendingCommit};
use crate::error::Error;
use crate::kafka::{Backoff, Code, CoordinatorKey};
use crate::store::failed_flushes::FailedFlushes;
use crate::{Log, OffsetSpec, ReadUpTo, Reader, ReaderOptions, Store, TopicPartition};

/// Where a log's records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) partition: i32,
    pub(super) topic_id: Uuid,
}

/// What a broker allows where it does not say so: 1 MiB and the 12 bytes before a batch's length.
pub(super) const MAX_MESSAGE_BYTES_DEFAULT: usize = 1_048_588;

const MESSAGE_TOO_LARGE: Code = Code::of(ResponseError::MessageTooLarge);
const RECORD_LIST_TOO_LARGE: Code = Code::of(ResponseError::RecordListTooLarge);

/// Whether a log is the one that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Here,
    /// Another log has its name since, and has not been begun with.
    Replaced,
    /// There is no log of its name any more.
    Gone,
}

#[derive(Debug)]
pub(super) struct PartitionSender {
    pub(super) name: TopicPartition,
    pub(super) log: Log,
    /// What the log belongs to.
    pub(super) store: Option<Arc<Store>>,
    pub(super) presence: Presence,
    /// It was known once where to go on.
    pub(super) was_placed: bool,
    pub(super) group: CoordinatorKey,
    pub(super) remote: String,
    /// The id of the cluster that the target is in.
    pub(super) cluster: Option<String>,
    pub(super) target: Option<Target>,
    /// Its records go to partitions of the target that their keys choose, and not to that of `target`, for which its
    /// position is committed.
    pub(super) by_key: Option<ByKey>,
    /// The offset to be sent next: everything below is committed in the cluster.
    pub(super) position: Offset,
    /// The batch that ends there, where one is committed.
    pub(super) mark: Option<BatchMark>,
    /// An operator's decision stands in the cluster in the place of that offset.
    pub(super) has_decision: bool,
    /// When that was committed, where it was by this bridge.
    committed_at: Option<Instant>,
    /// Stands at the first offset that no transaction under way holds.
    pub(super) reader: Option<Reader>,
    /// When this process made it durable last, while another one writes it.
    flushed_at: Option<Instant>,
    /// Why nothing is sent of this log until a person does something.
    pub(super) paused: Option<PauseReason>,
    /// Where its partition failed and others did not: left out until then.
    pub(super) rests: Option<Rest>,
    /// What the target refused a batch of, and is looked for.
    search: Option<Search>,
    /// Records that the target is known to refuse.
    refused: BTreeMap<Offset, Refusal>,
    /// The target is compacted: it refuses records without a key.
    pub(super) wants_keys: bool,
    /// Batches of this size and more were refused as too large, although the target's configuration allows them.
    refused_bytes: usize,
    /// What the target would delete on arrival: records with an earlier time than this long ago.
    pub(super) retention_ms: Option<i64>,
    /// The times of records that the target takes, where it takes those that records come with.
    pub(super) times: Option<TimeBounds>,
    /// The target's `max.message.bytes`.
    pub(super) batch_bytes_max: usize,
}

impl PartitionSender {
    /// A log on its way to the topic `remote`, of which nothing is known yet.
    pub(super) fn new(name: TopicPartition, log: Log, group: CoordinatorKey, remote: String) -> PartitionSender {
        PartitionSender {
            name,
            log,
            store: None,
            presence: Presence::Here,
            was_placed: false,
            group,
            remote,
            cluster: None,
            target: None,
            by_key: None,
            position: Offset(0),
            mark: None,
            has_decision: false,
            committed_at: None,
            reader: None,
            flushed_at: None,
            paused: None,
            rests: None,
            search: None,
            refused: BTreeMap::new(),
            wants_keys: false,
            refused_bytes: usize::MAX,
            retention_ms: None,
            times: None,
            batch_bytes_max: MAX_MESSAGE_BYTES_DEFAULT,
        }
    }
}

/// How far from a broker's clock the time of a record may be, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeBounds {
    /// `message.timestamp.before.max.ms`
    pub(super) before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub(super) after_max_ms: i64,
}

impl TimeBounds {
    /// Which of these rules refuse records that are to be sent of `log`, from the offset `from` on, in words.
    /// Looks at the oldest batch and at the first record that is too new: enough for a warning.
    pub(super) fn refused_of(&self, log: &Log, from: Offset, now: TimestampMs) -> crate::Result<Vec<String>> {
        let (name, mut refused) = (log.name(), Vec::new());
        let mut reader = log.reader_with(OffsetSpec::Offset(from), READING)?;
        let oldest = reader.next_batch()?.map(|batch| batch.view().base_timestamp());
        let TimeBounds { before_max_ms: before, after_max_ms: after } = self;
        if oldest.is_some_and(|oldest| oldest >= 0 && oldest < now.saturating_sub(*before)) {
            refused
                .push(format!("message.timestamp.before.max.ms={before} there: older records of {name} are refused"));
        }
        let too_new = log.offset_for_time(now.saturating_add(*after).saturating_add(1))?;
        if too_new.is_some_and(|at| at.offset >= from) {
            refused.push(format!(
                "message.timestamp.after.max.ms={after} there: records of {name} whose clock was fast are refused"
            ));
        }
        Ok(refused)
    }
}

/// A pause of one sender's own.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    until: Instant,
    backoff: Backoff,
}

/// The search for the record that the target refuses: ranges are tried that become smaller with each refusal.
#[derive(Debug)]
struct Search {
    /// The refused batch's offsets; what lies before has nothing to do with it.
    from: Offset,
    until: Offset,
    /// So many records are tried next.
    records_max: u64,
}

impl PartitionSender {
    /// Whether nothing is collected of this sender now.
    pub(super) fn sits_out(&self) -> bool {
        self.paused.is_some() || self.rests.as_ref().is_some_and(|rest| Instant::now() < rest.until)
    }

    /// While another process writes the log: makes durable what it shows, so that it may be sent; once at most in
    /// each `interval`, since the writer waits for the same device. A log that its writer could not write or flush
    /// waits, and so does one that could not be flushed from here.
    pub(super) fn make_durable(&mut self, interval: Duration, failed: &mut FailedFlushes) {
        let is_due = self.flushed_at.is_none_or(|at| at.elapsed() >= interval);
        if !is_due || !self.log.is_attached() || self.reader.is_none() || self.sits_out() {
            return;
        }
        let before = self.log.offsets().recovery_point;
        let outcome = self.log.flush_up_to(Offset::MAX);
        match self.log.failed_flush() {
            Some(flush) => failed.remember(&self.name, self.log.id(), flush),
            None => failed.forget(&self.name),
        }
        match outcome {
            Ok(durable) if durable > before => self.flushed_at = Some(Instant::now()),
            Ok(_) => {}
            Err(error) => {
                self.flushed_at = None;
                self.paused = Some(PauseReason::LocalLog { reason: error.to_string() });
            }
        }
    }

    /// Takes over what the bridge before could not flush.
    pub(super) fn inherit_failed_flush(&mut self, failed: &FailedFlushes) {
        if let Some(flush) = failed.of(&self.name, self.log.id()) {
            self.log.inherit_failed_flush(flush, "a bridge before this one");
        }
    }

    /// How far the log is delivered.
    pub(super) fn delivered(&self) -> LogPosition {
        if self.presence == Presence::Gone {
            let reason = self.paused.clone().unwrap_or(PauseReason::Deleted { not_sent: None });
            return LogPosition::unreadable(self.name.clone(), reason);
        }
        let offsets = self.log.offsets();
        let committed = self.reader.as_ref().map(|_| self.position);
        let (start, end) = (offsets.log_start_offset, offsets.recovery_point);
        LogPosition::of(self.name.clone(), (start, end), committed, self.paused.clone())
    }

    /// How many offsets are durable and were not sent, as far as that is known.
    pub(super) fn not_sent(&self) -> u64 {
        self.delivered().lag.unwrap_or(0)
    }

    /// Whether it is not known yet where to go on, and nothing says why.
    pub(super) fn is_unplaced(&self) -> bool {
        self.paused.is_none() && self.reader.is_none()
    }

    /// Whether the handle of the log can be used no more, since another log has had its name.
    pub(super) fn is_cut_off(&self) -> bool {
        let looked = self.paused.as_ref().map(|_| self.log.reader_with(OffsetSpec::Latest, READING));
        self.presence == Presence::Gone || matches!(looked, Some(Err(Error::LogReplaced { .. })))
    }

    /// The log is not there any more.
    pub(super) fn mark_deleted(&mut self) {
        let reason = PauseReason::Deleted { not_sent: self.delivered().lag };
        (self.presence, self.reader, self.rests, self.paused) = (Presence::Gone, None, None, Some(reason));
    }

    /// Goes on with this handle of the log; `is_other`: it is of another log of the same name.
    pub(super) fn take_over(&mut self, log: Log, is_other: bool) {
        self.log = log;
        self.presence = if is_other { Presence::Replaced } else { Presence::Here };
        (self.paused, self.reader, self.rests, self.search) = (None, None, None, None);
        (self.mark, self.has_decision, self.committed_at, self.flushed_at) = (None, false, None, None);
        self.refused.clear();
    }

    /// When a sender that rests goes on.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        let rest = self.rests.as_ref().filter(|_| self.paused.is_none())?;
        Some(rest.until).filter(|until| Instant::now() < *until)
    }

    /// Leaves this sender out for a while, longer each time.
    pub(super) fn rest(&mut self, first: Backoff) {
        let mut backoff = self.rests.take().map_or(first, |rest| rest.backoff);
        self.rests = Some(Rest { until: Instant::now() + backoff.pause(), backoff });
    }

    /// Whether what comes next is part of a batch that was refused.
    pub(super) fn is_searching(&self) -> bool {
        self.search.as_ref().is_some_and(|search| self.position >= search.from)
    }

    /// How many records may be tried from the position on.
    pub(super) fn records_max(&self) -> u64 {
        match &self.search {
            None => u64::MAX,
            Some(search) if self.position < search.from => (search.from - self.position).unsigned_abs(),
            Some(search) => search.records_max,
        }
    }

    /// What is known of the record at this offset, where the target is known to refuse it.
    pub(super) fn refusal_of(&self, offset: Offset) -> Option<&Refusal> {
        self.refused.get(&offset)
    }

    /// Whether the target is known to refuse a record from `first` to before `next`.
    pub(super) fn refuses_within(&self, first: Offset, next: Offset) -> bool {
        first < next && self.refused.range(first..next).next().is_some()
    }

    /// What a batch of several records may take.
    pub(super) fn piece_bytes_max(&self) -> usize {
        self.batch_bytes_max.min(self.refused_bytes.saturating_sub(1))
    }

    /// A batch was refused that stands for these offsets: half of it is tried next. Of one with a single record, that
    /// record is the one.
    pub(super) fn narrow(&mut self, piece: &Refused) {
        let (from, next) = piece.offsets;
        if piece.records <= 1 {
            self.refuse(piece.refusal.clone());
            if let Some(search) = &mut self.search {
                (search.from, search.records_max) = (piece.refusal.offset, 1);
            }
            return;
        }
        if matches!(piece.refusal.code, MESSAGE_TOO_LARGE | RECORD_LIST_TOO_LARGE) {
            self.refused_bytes = self.refused_bytes.min(piece.bytes.div_ceil(2) + 1);
        }
        let until = self.search.as_ref().map_or(next, |search| search.until.max(next));
        self.search = Some(Search { from, until, records_max: u64::from(piece.records / 2) });
    }

    /// The target refuses this record: what becomes of it is decided when it is next.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refused.insert(refusal.offset, refusal);
    }

    /// Nothing is sent until the target takes this record, or another rule is set. It is tried again then.
    pub(super) fn wait_for(&mut self, refusal: &Refusal) {
        self.paused = Some(PauseReason::RecordRefused { reason: refusal.to_string() });
        self.refused.clear();
    }

    /// A transaction with a range of this sender was committed.
    pub(super) fn advance(&mut self, end: &RangeEnd) {
        if let Some(search) = self.search.as_mut().filter(|search| self.position >= search.from) {
            search.records_max = search.records_max.saturating_mul(2);
        }
        (self.position, self.mark, self.committed_at) = (end.offset, Some(end.mark), Some(Instant::now()));
        self.has_decision = false;
        self.refused = self.refused.split_off(&end.offset);
        self.search.take_if(|search| search.until <= end.offset);
        self.rests = None;
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
        Some((self.position, self.mark.unwrap_or_else(|| BatchMark::behind_a_gap(self.log.leader_epoch()))))
    }

    /// Reads again from the position on: what was collected was aborted.
    pub(super) fn rewind(&mut self) -> crate::Result<()> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        reader.seek(OffsetSpec::Offset(self.position)).or_else(|_| reader.seek(OffsetSpec::Earliest))
    }
}

/// What a transaction has found out about a sender.
#[derive(Debug)]
pub(super) enum SenderChange {
    /// The cluster has committed its range.
    Committed(RangeEnd),
    Paused(PauseReason),
    /// Its partition failed and others did not: it is left out for a while, longer each time.
    BackOff(Backoff),
    /// The target refused a batch, and named these records. Where it named none that was not known, less of the batch
    /// is tried next.
    Refused {
        named: Vec<Refusal>,
        batch: Refused,
    },
}

impl PartitionSender {
    pub(super) fn apply(&mut self, change: SenderChange) {
        match change {
            SenderChange::Committed(end) => self.advance(&end),
            SenderChange::Paused(reason) => self.paused = Some(reason),
            SenderChange::BackOff(first) => self.rest(first),
            SenderChange::Refused { named, batch } => {
                let known = self.refused.len();
                for refusal in named {
                    self.refuse(refusal);
                }
                if self.refused.len() == known {
                    self.narrow(&batch);
                }
            }
        }
    }
}

/// A batch that the target refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) offsets: (Offset, Offset),
    pub(super) records: u32,
    pub(super) bytes: usize,
    /// Of the first record in it.
    pub(super) refusal: Refusal,
}

/// Of which log and history a committed offset is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This log's, and the batch that ends there is the same here.
    Ours,
    /// Another log's: this one was created again, or this is another device.
    Foreign(String),
    /// Of this log by its identity, and of another history: another copy of this device went on without this one, or
    /// this one was set back.
    Diverged(String),
    /// This log's by its identity; the batch before it is damaged here, so that no more can be said.
    Damaged(String),
}

/// Only what no power cut can undo; and damage is an error also where `check.crcs` is off, since what is sent is what
/// was appended.
pub(super) const READING: ReaderOptions = ReaderOptions {
    up_to: ReadUpTo::Durable,
    check_crcs: true,
    // Batches of transactions stop the sender: they are not passed over.
    isolation: IsolationLevel::ReadUncommitted,
};

impl PartitionSender {
    /// Begins to read at an offset that is this log's.
    pub(super) fn start_at(&mut self, position: &CommittedOffset) -> crate::Result<()> {
        (self.position, self.mark) = (position.offset, Some(position.mark));
        (self.presence, self.was_placed) = (Presence::Here, true);
        let reader = match self.log.reader_with(OffsetSpec::Offset(position.offset), READING) {
            // What lies between is a loss, which is found when something is collected.
            Err(Error::OffsetOutOfRange { log_start_offset, .. }) if log_start_offset > position.offset => {
                self.log.reader_with(OffsetSpec::Earliest, READING)
            }
            other => other,
        };
        self.reader = Some(reader?);
        Ok(())
    }

    /// Begins to read at the first record that the log holds.
    pub(super) fn start_at_the_beginning(&mut self) -> crate::Result<()> {
        let reader = self.log.reader_with(OffsetSpec::Earliest, READING)?;
        (self.position, self.mark) = (reader.position().offset, None);
        (self.presence, self.was_placed) = (Presence::Here, true);
        self.reader = Some(reader);
        Ok(())
    }

    /// What the progress file says of this sender before a transaction up to `end` is committed, of which its first
    /// batch got that place and offset in the target, if it has one.
    pub(super) fn progress_before_commit(
        &self,
        end: &RangeEnd,
        producer: Producer,
        first: Option<((String, i32), Offset)>,
    ) -> LogProgress {
        let target = self.target.expect("a sender that sends has a target");
        self.progress(first.map(|(place, first_offset)| {
            let is_target = place.0 == self.remote && place.1 == target.partition;
            let elsewhere = Some(place).filter(|_| !is_target);
            PendingCommit { to: self.position_at(end.offset, end.mark), producer, first_offset, elsewhere }
        }))
    }

    /// What the progress file says of this sender. Acknowledged is where it stands, and not what the file said before:
    /// that bridge may have died between the commit and writing the file.
    pub(super) fn progress(&self, pending: Option<PendingCommit>) -> LogProgress {
        let target = self.target.expect("a sender that sends has a target");
        let acknowledged = self.mark.map(|mark| self.position_at(self.position, mark));
        let cluster = self.cluster.clone();
        LogProgress { remote: self.remote.clone(), partition: target.partition, acknowledged, pending, cluster }
    }

    /// The position that a transaction up to `offset` commits.
    pub(super) fn position_at(&self, offset: Offset, mark: BatchMark) -> CommittedOffset {
        let topic_id = self.target.map_or(Uuid::nil(), |target| target.topic_id);
        CommittedOffset { offset, log_id: self.log.id(), mark, topic_id }
    }
}

/// Of which log and history an offset is. Reads the batch that ends there.
pub(super) fn check_ownership(log: &Log, position: &CommittedOffset) -> crate::Result<Ownership> {
    if position.log_id != log.id() {
        return Ok(Ownership::Foreign("it belongs to a log of another identity".to_owned()));
    }
    let CommittedOffset { offset, mark, .. } = *position;
    let options = ReaderOptions { up_to: ReadUpTo::LogEnd, ..READING };
    let mut reader = match log.reader_with(OffsetSpec::Offset(offset - 1), options) {
        Ok(_) if mark.is_behind_a_gap() => return check_epoch(log, offset, mark.leader_epoch),
        Ok(reader) => reader,
        // The batch was delivered and deleted, or deleted with what followed: its epoch still says whether that
        // history is this one.
        Err(Error::OffsetOutOfRange { log_start_offset, .. }) if offset <= log_start_offset => {
            return check_epoch(log, offset, mark.leader_epoch);
        }
        Err(Error::OffsetOutOfRange { log_end_offset, .. }) => return Ok(ends_below(log_end_offset, offset)),
        Err(error) => return Err(error),
    };
    match reader.next_batch() {
        Ok(Some(batch)) => {
            let here = BatchMark { leader_epoch: batch.leader_epoch(), crc: batch.view().crc() };
            let end = batch.last_offset() + 1;
            if end >= offset && here == mark {
                return Ok(Ownership::Ours);
            }
            Ok(Ownership::Diverged(format!(
                "the batch before offset {offset} there has CRC {:08x} and leader epoch {}, here one that ends at \
                 {end} has CRC {:08x} and epoch {}",
                mark.crc, mark.leader_epoch, here.crc, here.leader_epoch
            )))
        }
        Ok(None) => Ok(ends_below(log.offsets().log_end_offset, offset)),
        Err(error) if error.is_corrupt() => Ok(Ownership::Damaged(error.to_string())),
        Err(error) => Err(error),
    }
}

fn check_epoch(log: &Log, offset: Offset, leader_epoch: LeaderEpoch) -> crate::Result<Ownership> {
    match log.check_position(OffsetAndEpoch { offset, leader_epoch }) {
        Ok(()) => Ok(Ownership::Ours),
        Err(error @ (Error::FencedLeaderEpoch { .. } | Error::UnknownLeaderEpoch { .. })) => {
            Ok(Ownership::Diverged(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn ends_below(log_end_offset: Offset, offset: Offset) -> Ownership {
    Ownership::Diverged(format!("the log ends at offset {log_end_offset}, and {offset} was committed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use crate::{NewRecord, NewTopic, Store};

    fn log_of(values: &[&str]) -> (Store, Log) {
        let store = Store::options().open_on(MemoryStorage::new()).unwrap();
        store.create_topic(&NewTopic::new("t")).unwrap();
        let log = store.log("t", 0).unwrap();
        for value in values {
            log.append(NewRecord::value(value.as_bytes()).with_timestamp(TimestampMs(1))).unwrap();
        }
        (store, log)
    }

    /// The position behind the record at `offset` - 1.
    fn position_of(log: &Log, offset: Offset) -> CommittedOffset {
        let batch = log.reader(OffsetSpec::Offset(offset - 1)).unwrap().next_batch().unwrap().unwrap();
        let mark = BatchMark { leader_epoch: batch.leader_epoch(), crc: batch.view().crc() };
        CommittedOffset { offset, log_id: log.id(), mark, topic_id: Uuid::nil() }
    }

    #[test]
    fn a_position_is_ours_only_where_the_same_batch_ends_there() {
        let (_store, log) = log_of(&["a", "b", "c"]);
        let position = position_of(&log, Offset(2));
        assert_eq!(check_ownership(&log, &position).unwrap(), Ownership::Ours);

        let (_other_store, other) = log_of(&["a", "b", "c"]);
        assert!(matches!(check_ownership(&other, &position).unwrap(), Ownership::Foreign(_)));
        // As if it were a copy of the same log.
        let as_copy = |log: &Log| CommittedOffset { log_id: log.id(), ..position };
        assert_eq!(check_ownership(&other, &as_copy(&other)).unwrap(), Ownership::Ours);
        let (_diverged_store, diverged) = log_of(&["a", "B", "c"]);
        assert!(matches!(check_ownership(&diverged, &as_copy(&diverged)).unwrap(), Ownership::Diverged(_)));
        let (_short_store, short) = log_of(&["a"]);
        assert!(matches!(check_ownership(&short, &as_copy(&short)).unwrap(), Ownership::Diverged(_)));
        let (_empty_store, empty) = log_of(&[]);
        assert!(matches!(check_ownership(&empty, &as_copy(&empty)).unwrap(), Ownership::Diverged(_)));
    }

    #[test]
    fn a_position_at_the_log_start_or_below_is_judged_by_its_epoch() {
        let (_store, log) = log_of(&["a", "b", "c"]);
        let (one, two) = (position_of(&log, Offset(1)), position_of(&log, Offset(2)));
        log.delete_records_before(Offset(2)).unwrap();
        assert_eq!(check_ownership(&log, &two).unwrap(), Ownership::Ours);
        let later = BatchMark { leader_epoch: two.mark.leader_epoch + 1, ..two.mark };
        assert!(matches!(
            check_ownership(&log, &CommittedOffset { mark: later, ..two }).unwrap(),
            Ownership::Diverged(_)
        ));
        assert_eq!(check_ownership(&log, &one).unwrap(), Ownership::Ours);
    }

    #[test]
    fn records_that_the_target_s_clock_refuses_are_foreseen() {
        let store = Store::options().open_on(MemoryStorage::new()).unwrap();
        store.create_topic(&NewTopic::new("t")).unwrap();
        let log = store.log("t", 0).unwrap();
        for timestamp in [1_000, 5_000, 9_000] {
            log.append(NewRecord::value(b"v").with_timestamp(TimestampMs(timestamp))).unwrap();
        }
        let refused = |before_max_ms, after_max_ms, from| {
            let bounds = TimeBounds { before_max_ms, after_max_ms };
            bounds.refused_of(&log, from, TimestampMs(6_000)).unwrap().join(";")
        };
        assert_eq!(refused(i64::MAX, i64::MAX, Offset(0)), "");
        assert_eq!(refused(5_000, 3_000, Offset(0)), "");
        assert!(refused(4_999, 3_000, Offset(0)).starts_with("message.timestamp.before.max.ms=4999"));
        assert!(refused(5_000, 2_999, Offset(0)).starts_with("message.timestamp.after.max.ms=2999"));
        // What was sent is no matter any more.
        assert_eq!(refused(4_999, 3_000, Offset(1)), "");
        assert_eq!(refused(0, 0, Offset(3)), "");
    }
}
