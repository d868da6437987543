//! What a transaction will carry, complete before it is opened: for each log one contiguous range of offsets, as
//! batches that a broker takes.
//!
//! A stored batch of decent size goes as it is, undecoded; or with its payload compressed again, where
//! `compression.type` asks for another codec and that makes it smaller. Small ones are coalesced, records unchanged,
//! into one with the log's own compression, or the one that is asked for: a Produce carries one batch for a partition,
//! and each takes a broker some time, however small it is. So are batches that a broker would not take as they are, and
//! one that is larger than the target, or the line, allows becomes several. A range ends where a stored batch ends, but
//! where a batch is more than a transaction may carry, or than is tried at once while the record that the target
//! refuses is looked for.
//!
//! Where each record's key chooses its partition (`edgelog.bridge.partition=key`), all batches are made again, one for
//! each partition. Pieces still stand for every record below the end of the range: a transaction commits them together
//! with the position behind it.
//!
//! Offsets that are not here any more are part of a range as well: the record that reports the loss stands for them. So
//! does a dead letter for a record that the target refused.

use std::collections::BTreeMap;

use bytes::BytesMut;
use edgelog_core::{CompressionType, EncodeError, HEADER_LEN, Header, Offset, RecordBatch, RecordBatchBuilder};
use edgelog_core::{TimestampMs, stamp_compressed};
use kafka_protocol::error::ResponseError;

use super::committed_offset::BatchMark;
use super::config::{BridgeConfig, ExpiredRule, LostRule, RefusedRule, WireCompression};
use super::dead_letter::{self, Refusal, TIMESTAMP_HEADER};
use super::lent_log::LentLog;
use super::loss_record::{self, Loss};
use super::partition::{ByKey, remote_name};
use super::pause_reason::PauseReason;
use super::refused_records::RefusedRecords;
use super::route::Route;
use super::sender_change::SenderChange;
use super::targets::{InternalTopic, InternalTopics};
use super::transaction_plan::{Kind, ProducerBatch, Runs, TransactionPlan};
use crate::codec;
use crate::error::Error;
use crate::kafka::Code;
use crate::{Batch, OffsetSpec, Reader, Record};

/// Of a batch's attributes, those that say how its records are compressed.
const CODEC: i16 = 0b111;
/// A stored batch below this is coalesced with its neighbours.
const SMALL_BYTES: usize = 16 << 10;
/// So is one below this that is not compressed and will not be: copying it takes less than a request of its own does.
const SMALL_PLAIN_BYTES: usize = COALESCED_BYTES / 2;
/// Coalesced batches hold so many bytes before compression.
const COALESCED_BYTES: usize = 256 << 10;
/// What a batch in the making has room for at first, where there are as many as partitions.
const FIRST_BUFFER_BYTES: usize = 2 << 10;
/// So many small batches are held at once: each holds a piece of a map.
const SMALL_COUNT_MAX: usize = 4096;
/// What one log may add before it is another one's turn.
const TURN_BYTES: usize = 512 << 10;
/// The broker's code for a batch beyond `max.message.bytes`, which is used here for a record that no batch can hold.
const MESSAGE_TOO_LARGE: Code = Code::of(ResponseError::MessageTooLarge);
/// Its code for a record's time, and the one for a record that breaks another rule of its topic.
const INVALID_TIMESTAMP: Code = Code::of(ResponseError::InvalidTimestamp);
const INVALID_RECORD: Code = Code::of(ResponseError::InvalidRecord);

/// On what terms is collected.
#[derive(Debug)]
pub(super) struct DrainLimits<'a> {
    pub(super) config: &'a BridgeConfig,
    /// The topics for dead letters and losses; or why one cannot be used.
    pub(super) internal: &'a InternalTopics,
    /// What a transaction may carry, in bytes.
    pub(super) bytes_max: usize,
    /// What a request may carry, in bytes.
    pub(super) request_bytes_max: usize,
    /// The positions of so many senders can be committed in a transaction's time.
    pub(super) senders_max: usize,
    /// The sender whose turn is the first.
    pub(super) first: usize,
    pub(super) now: TimestampMs,
    /// Nothing but this sender, which looks for what was refused; `None`: all that do not.
    pub(super) only: Option<usize>,
}

/// Reads from all logs in turn until there is no more, or `bytes_max` are reached (by at most one batch each), or
/// `senders_max` have something in it.
/// A log that cannot go on is stopped; what it had before that is sent.
pub(super) fn collect(lent: &mut [LentLog<'_>], terms: &DrainLimits<'_>) -> TransactionPlan {
    let first = lent.iter().position(|log| log.sender >= terms.first).unwrap_or(0);
    let (mut collected, mut passed_over) = (TransactionPlan::default(), None);
    let mut more = true;
    while more && collected.bytes < terms.bytes_max {
        more = false;
        for n in (first..lent.len()).chain(0..first) {
            let log = &mut lent[n];
            if collected.bytes >= terms.bytes_max {
                passed_over.get_or_insert(log.sender);
                break;
            }
            if log.stopped.is_some() || terms.only.map_or(log.is_searching, |only| only != log.sender) {
                continue;
            }
            if collected.logs.len() >= terms.senders_max && collected.end_of(log.sender).is_none() {
                passed_over.get_or_insert(log.sender);
                continue;
            }
            let turn_max = (terms.bytes_max - collected.bytes).min(TURN_BYTES);
            more |= take_turn(log, turn_max, terms, &mut collected);
        }
    }
    collected.next_sender = passed_over.unwrap_or(terms.first);
    collected
}

/// One log's turn; whether it may have more.
fn take_turn(
    lent: &mut LentLog<'_>,
    bytes_max: usize,
    terms: &DrainLimits<'_>,
    collected: &mut TransactionPlan,
) -> bool {
    let before = collected.end_of(lent.sender).unwrap_or(lent.position);
    let sent = u64::try_from(before - lent.position).unwrap_or(0);
    let mut turn = Drain {
        sender: lent.sender,
        route: lent.route,
        refused: lent.refused,
        terms,
        bytes_max,
        batch_bytes_max: lent.batch_bytes_max.min(terms.request_bytes_max),
        small: Vec::new(),
        small_bytes: 0,
        small_records: 0,
        bytes: 0,
        records_left: lent.records_max.saturating_sub(sent),
        next: before,
        seen: before,
        end: None,
        collected,
    };
    let halt = turn.read(lent.reader).err();
    // What is read and not in the range is read again; where that was deleted meanwhile, the gap is noticed then.
    if lent.reader.position().offset != turn.next {
        let back = lent.reader.seek(OffsetSpec::Offset(turn.next));
        let _ = back.or_else(|_| lent.reader.seek(OffsetSpec::Earliest));
    }
    let end = turn.end;
    if let Some(end) = end {
        collected.reach(lent.route.planned(lent.sender, lent.acknowledged, end));
    }
    lent.stopped = match halt {
        None => return end.is_some(),
        Some(StopReason::Full) => None,
        Some(StopReason::Pause(reason)) => Some(SenderChange::Paused(reason)),
        Some(StopReason::Refused(refusal)) => Some(SenderChange::WaitsFor(refusal)),
    };
    false
}

/// Why a turn ended before its time.
enum StopReason {
    /// A batch was cut: the transaction holds what it may.
    Full,
    Pause(PauseReason),
    /// The target refuses this record, and the log waits for that.
    Refused(Refusal),
}

/// The log cannot be read here.
fn unreadable(error: &Error) -> StopReason {
    StopReason::Pause(PauseReason::of_local_log(error))
}

fn refused(reason: String) -> StopReason {
    StopReason::Pause(PauseReason::RecordRefused { reason })
}

fn not_sendable(reason: String) -> StopReason {
    StopReason::Pause(PauseReason::RecordNotSendable { reason })
}

fn lost(reason: String) -> StopReason {
    StopReason::Pause(PauseReason::Lost { reason })
}

struct Drain<'a> {
    sender: usize,
    route: &'a Route,
    refused: &'a RefusedRecords,
    terms: &'a DrainLimits<'a>,
    /// What the turn may add, in bytes.
    bytes_max: usize,
    /// What a batch of several records may take.
    batch_bytes_max: usize,
    /// Small batches that are to become one.
    small: Vec<Batch>,
    small_bytes: usize,
    small_records: u64,
    /// Bytes of finished pieces.
    bytes: usize,
    records_left: u64,
    /// The first offset that no piece stands for.
    next: Offset,
    /// The first offset that was not read yet.
    seen: Offset,
    /// Behind the last offset that a piece stands for.
    end: Option<(Offset, BatchMark)>,
    collected: &'a mut TransactionPlan,
}

impl Drain<'_> {
    fn read(&mut self, reader: &mut Reader) -> Result<(), StopReason> {
        while self.bytes + self.small_bytes < self.bytes_max && self.small_records < self.records_left {
            if self.small.is_empty() && self.has_no_room_for_another() {
                break;
            }
            let from = reader.position().offset;
            if from > self.seen {
                self.flush()?;
                self.report_loss(from, "retention", "deleted here before they were sent".to_owned())?;
                continue;
            }
            match reader.next_batch() {
                Ok(Some(batch)) => {
                    self.add(batch, from)?;
                    self.seen = reader.position().offset;
                }
                Ok(None) => {
                    self.flush()?;
                    // Markers of transactions, or a hole: the log gives out nothing below where its reader stands.
                    let next = reader.position().offset;
                    if next > self.next {
                        self.reach(next, BatchMark::behind_a_gap(self.route.log().leader_epoch()));
                    }
                    break;
                }
                Err(Error::OffsetOutOfRange { requested, log_start_offset, .. }) if requested < log_start_offset => {
                    self.flush()?;
                    reader.seek(OffsetSpec::Earliest).map_err(|error| unreadable(&error))?;
                }
                Err(error) if error.is_corrupt() && self.terms.config.on_lost == LostRule::Report => {
                    self.flush()?;
                    self.pass_over_damage(reader, &error)?;
                }
                Err(error) => {
                    self.flush()?;
                    return Err(unreadable(&error));
                }
            }
        }
        self.flush()
    }

    /// Whether the turn, which is not the transaction's last one, ends with the batch that was made: there would be a
    /// small one of what is left of it.
    fn has_no_room_for_another(&self) -> bool {
        self.bytes_max == TURN_BYTES && self.bytes + COALESCED_BYTES > TURN_BYTES
    }

    /// Adds a stored batch, of which records before `from` were not asked for; or leaves it to the next turn.
    fn add(&mut self, batch: Batch, from: Offset) -> Result<(), StopReason> {
        let view = batch.view();
        let (at, size) = (view.base_offset(), view.size());
        if belongs_to_a_transaction(&view) {
            self.flush()?;
            return Err(not_sendable(format!("the batch at offset {at} is part of another producer's transaction")));
        }
        let records = u64::try_from(view.record_count()).unwrap_or(0);
        let restamps = match self.route.rules().retention_ms {
            Some(retention_ms) if is_expired(view.max_timestamp(), retention_ms, self.terms.now) => {
                match self.terms.config.expired {
                    ExpiredRule::Send => false,
                    ExpiredRule::Restamp => true,
                    ExpiredRule::Stop => {
                        self.flush()?;
                        return Err(StopReason::Pause(PauseReason::Expired { offset: at, retention_ms }));
                    }
                }
            }
            _ => false,
        };
        if restamps || size > self.terms.bytes_max || self.small_records + records > self.records_left {
            self.flush()?;
            let bytes_max = self.terms.bytes_max.saturating_sub(self.collected.bytes);
            return self.coalesce(&[batch], Share { bytes_max, records_max: self.records_left, restamps });
        }
        let is_small = size < if self.is_cheap_to_join(view.compression()) { SMALL_PLAIN_BYTES } else { SMALL_BYTES };
        if !is_small || self.small_bytes + size > COALESCED_BYTES {
            // No batch of what is left over: it would be one more.
            self.flush()?;
            if is_small && self.has_no_room_for_another() {
                return Ok(());
            }
        }
        let alone = if is_small { None } else { self.whole(&batch, from) };
        if let Some(wire) = alone {
            self.pass(wire, &batch, from);
            return Ok(());
        }
        self.small_bytes += size;
        self.small_records += records;
        self.small.push(batch);
        if !is_small || self.small_bytes >= COALESCED_BYTES || self.small.len() >= SMALL_COUNT_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// The codec of the batches that are made here.
    fn codec(&self) -> CompressionType {
        match self.terms.config.compression {
            WireCompression::Stored => self.route.log().config().compression_type,
            WireCompression::Codec(codec) => codec,
        }
    }

    /// The partitions that keys choose among, where they do.
    fn by_key(&self) -> Option<ByKey> {
        self.route.by_key().filter(|by_key| by_key.partitions() > 1)
    }

    /// Whether joining batches that are stored so costs no compression that they would be spared alone.
    fn is_cheap_to_join(&self, stored: CompressionType) -> bool {
        let is_plain = stored == CompressionType::None
            && (self.codec() == CompressionType::None || self.terms.config.compression != WireCompression::Stored);
        is_plain || self.by_key().is_some()
    }

    /// A stored batch as it goes by itself, of which records before `from` were not asked for; `None` where its records
    /// have to be made new batches.
    fn whole(&self, batch: &Batch, from: Offset) -> Option<BytesMut> {
        let view = batch.view();
        let is_whole = self.by_key().is_none()
            && goes_as_it_is(&view)
            && view.base_offset() >= from
            && !self.refused.has_any_within(from, batch.last_offset() + 1)
            && !(self.route.rules().wants_keys && lacks_keys(batch, from));
        if !is_whole {
            return None;
        }
        let again = match self.terms.config.compression {
            WireCompression::Codec(codec) if codec != view.compression() => compressed_again(batch, codec),
            _ => None,
        };
        let len = again.as_ref().map_or(view.size(), BytesMut::len);
        (len <= self.batch_bytes_max).then(|| again.unwrap_or_else(|| BytesMut::from(batch.bytes())))
    }

    /// One stored batch, with its records as they are.
    fn pass(&mut self, wire: BytesMut, batch: &Batch, from: Offset) {
        let view = batch.view();
        let first = view.base_offset().max(from);
        let (next, mark) = mark_of(batch);
        let partition = self.partition();
        self.push(partition, wire, view.record_count(), Runs::from(view.base_offset()), (first, next));
        self.reach(next, mark);
    }

    /// The target partition of a log whose records are not spread.
    fn partition(&self) -> i32 {
        self.route.target_partition()
    }

    /// A batch of the log's records.
    fn push(&mut self, partition: i32, wire: BytesMut, records: i32, runs: Runs, offsets: (Offset, Offset)) {
        let (sender, to) = (self.sender, (self.route.remote().to_owned(), partition));
        self.push_piece(ProducerBatch { sender, to, kind: Kind::Records, wire, records, runs, offsets });
    }

    /// One record of the bridge's own.
    fn push_own(&mut self, to: (String, i32), kind: Kind, wire: BytesMut, offsets: (Offset, Offset)) {
        self.push_piece(ProducerBatch {
            sender: self.sender,
            to,
            kind,
            wire,
            records: 1,
            runs: Runs::default(),
            offsets,
        });
    }

    fn push_piece(&mut self, piece: ProducerBatch) {
        self.bytes += piece.wire.len();
        self.collected.bytes += piece.wire.len();
        self.records_left = self.records_left.saturating_sub(u64::try_from(piece.records).unwrap_or(0));
        self.collected.pieces.push(piece);
    }

    /// Pieces stand for everything below `next`.
    fn reach(&mut self, next: Offset, mark: BatchMark) {
        self.next = next;
        self.end = Some((next, mark));
    }

    /// Makes pieces of the small batches.
    fn flush(&mut self) -> Result<(), StopReason> {
        let small = std::mem::take(&mut self.small);
        (self.small_bytes, self.small_records) = (0, 0);
        if small.is_empty() {
            return Ok(());
        }
        if let [batch] = &small[..] {
            // The first batch of a range may begin below it.
            if let Some(wire) = self.whole(batch, self.next) {
                self.pass(wire, batch, self.next);
                return Ok(());
            }
        }
        // What was compressed well may become a multiple of its bytes.
        let bytes_max = self.terms.bytes_max.saturating_sub(self.collected.bytes).max(COALESCED_BYTES);
        let share = Share { bytes_max, records_max: self.records_left, restamps: false };
        let (pieces, before) = (self.collected.pieces.len(), Reached::of(self));
        let joined = self.coalesce(&small, share);
        // Where the transaction was full before, of those that are in it whole.
        let taken = small.iter().filter(|batch| batch.last_offset() < self.next);
        let stored = taken.map(|batch| batch.bytes().len()).sum::<usize>();
        let is_larger = matches!(joined, Ok(()) | Err(StopReason::Full)) && self.bytes - before.bytes > stored;
        if !is_larger || self.codec() == CompressionType::None {
            return joined;
        }
        // Other codecs have made less of them than is made of them together.
        let mut from = before.next;
        let mut alone = Vec::new();
        for batch in &small {
            let Some(wire) = self.whole(batch, from) else { return joined };
            from = batch.last_offset() + 1;
            alone.push(wire);
        }
        self.collected.pieces.truncate(pieces);
        before.restore(self);
        for (batch, wire) in small.iter().zip(alone) {
            self.pass(wire, batch, self.next);
        }
        Ok(())
    }

    /// Makes these batches' records new pieces, up to a share of them. What lies before a record that cannot be sent is
    /// in the range.
    fn coalesce(&mut self, batches: &[Batch], share: Share) -> Result<(), StopReason> {
        let len = COALESCED_BYTES.min(self.batch_bytes_max).max(HEADER_LEN);
        let keyless = match self.by_key() {
            // Another one each time, and the same one for the same records.
            Some(by_key) => (self.next.0.unsigned_abs() % u64::from(by_key.partitions())) as i32,
            None => self.partition(),
        };
        let first_len = if self.by_key().is_some() { FIRST_BUFFER_BYTES.min(len) } else { len };
        let mut making = BatchesInProgress { len, first_len, first: self.next, keyless, bytes: 0, of: BTreeMap::new() };
        let taken = self.take_records(batches, share, &mut making);
        self.finish_all(&mut making);
        taken
    }

    fn take_records(
        &mut self,
        batches: &[Batch],
        share: Share,
        making: &mut BatchesInProgress,
    ) -> Result<(), StopReason> {
        let (mut taken, bytes_before) = (0, self.bytes);
        for batch in batches {
            let at = batch.base_offset();
            let unreadable = |error: &Error| not_sendable(format!("the batch at offset {at} cannot be read: {error}"));
            let (next, mark) = mark_of(batch);
            let records = match batch.records() {
                // Readers of the target may have the decoder, or the memory, that is missing here.
                Err(error @ Error::NotDecompressed { .. }) => {
                    let whole = if share.restamps { None } else { self.whole(batch, self.next) };
                    let Some(wire) = whole else { return Err(unreadable(&error)) };
                    self.finish_all(making);
                    self.pass(wire, batch, self.next);
                    making.first = self.next;
                    continue;
                }
                records => records.map_err(|error| unreadable(&error))?,
            };
            for record in records {
                let record = record.map_err(|error| unreadable(&error))?;
                let bytes = self.bytes - bytes_before + making.bytes;
                if taken > 0 && (taken >= share.records_max || bytes >= share.bytes_max) {
                    return Err(StopReason::Full);
                }
                if let Some(refusal) = self.append_unless_refused(making, &record, share.restamps)? {
                    self.finish_all(making);
                    self.write_dead_letter(&record, mark, refusal)?;
                    making.first = self.next;
                }
                taken += 1;
                self.reach(record.offset + 1, mark);
            }
            self.reach(next, mark);
        }
        Ok(())
    }

    /// Appends a record to the batch in the making that it belongs to; or says why the target will refuse it, and
    /// appends nothing.
    fn append_unless_refused(
        &mut self,
        making: &mut BatchesInProgress,
        record: &Record<'_>,
        restamps: bool,
    ) -> Result<Option<Refusal>, StopReason> {
        if let Some(known) = self.refused.refusal_of(record.offset) {
            return Ok(Some(known.clone()));
        }
        if self.route.rules().wants_keys && record.key.is_none() {
            let reason = "the target's cleanup.policy is compact, and the record has no key";
            return Ok(Some(foreseen(record.offset, INVALID_RECORD, reason)));
        }
        let own_time = record.timestamp.to_string();
        let mut headers: Vec<Header<'_>> = record.headers().collect();
        if restamps {
            headers.push(Header::new(TIMESTAMP_HEADER, own_time.as_bytes()));
        }
        let timestamp = if restamps { self.terms.now } else { record.timestamp };
        let single_bytes_max = self.route.rules().max_message_bytes;
        let too_large = |needed| {
            let reason =
                format!("it needs a batch of {needed} bytes, and the target's max.message.bytes is {single_bytes_max}");
            foreseen(record.offset, MESSAGE_TOO_LARGE, &reason)
        };
        loop {
            let (codec, len) = (self.codec(), making.len);
            let partition = self.partition_of(record, making);
            let builder = &mut making.at(partition).builder;
            let before = if builder.is_empty() { 0 } else { builder.size() };
            match builder.append(timestamp, record.key, record.value, &headers) {
                Ok(_) => {
                    let size = builder.size();
                    // Alone, and compressed, it may be small enough.
                    if size > single_bytes_max && builder.record_count() == 1 {
                        let sent = compressed(codec, builder).map_or(size, |batch| batch.len());
                        if sent > single_bytes_max {
                            builder.clear();
                            builder.buffer_mut().truncate(len);
                            return Ok(Some(too_large(sent)));
                        }
                    }
                    making.bytes += size - before;
                    let making = making.at(partition);
                    let index = making.builder.record_count().saturating_sub(1).unsigned_abs();
                    making.runs.push(index, record.offset);
                    return Ok(None);
                }
                Err(EncodeError::BufferTooSmall { needed, .. })
                    if needed <= len && builder.buffer_mut().len() < len =>
                {
                    let doubled = builder.buffer_mut().len() * 2;
                    builder.buffer_mut().resize(doubled.max(needed).min(len), 0);
                }
                // Deltas from a batch's first timestamp have a range, as its bytes have.
                Err(EncodeError::BufferTooSmall { .. } | EncodeError::TimestampOutOfRange { .. })
                    if !builder.is_empty() =>
                {
                    self.finish(making, partition);
                }
                Err(EncodeError::BufferTooSmall { needed, .. })
                    if needed <= single_bytes_max || codec != CompressionType::None =>
                {
                    builder.buffer_mut().resize(needed, 0);
                }
                Err(EncodeError::BufferTooSmall { needed, .. }) => return Ok(Some(too_large(needed))),
                Err(error) => {
                    let offset = record.offset;
                    return Err(not_sendable(format!("the record at offset {offset} cannot be sent: {error}")));
                }
            }
        }
    }

    /// The target partition of a record.
    fn partition_of(&self, record: &Record<'_>, making: &BatchesInProgress) -> i32 {
        let chosen = self.by_key().and_then(|by_key| by_key.partition_of(record.key));
        chosen.unwrap_or(making.keyless)
    }

    /// All records in the making as pieces.
    fn finish_all(&mut self, making: &mut BatchesInProgress) {
        let partitions: Vec<i32> = making.of.keys().copied().collect();
        for partition in partitions {
            self.finish(making, partition);
        }
        making.first = self.next;
    }

    /// The records in the making for one partition as a piece.
    fn finish(&mut self, making: &mut BatchesInProgress, partition: i32) {
        let (codec, len, by_key) = (self.codec(), making.len, self.by_key());
        let BatchInProgress { builder, runs } = making.at(partition);
        let records = builder.record_count();
        if records == 0 {
            return;
        }
        let size = builder.size();
        let wire = compressed(codec, builder);
        let wire = wire.unwrap_or_else(|| BytesMut::from(&*builder.finish()));
        builder.clear();
        // A record larger than the others may be has made it longer.
        builder.buffer_mut().truncate(len);
        let runs = std::mem::take(runs);
        making.bytes -= size;
        let offsets = match by_key {
            None => (std::mem::replace(&mut making.first, self.next), self.next),
            // Those between are in the batches of other partitions.
            Some(by_key) => {
                if partition == making.keyless {
                    making.keyless = by_key.after(partition);
                }
                runs.ends(records.unsigned_abs()).expect("it has records")
            }
        };
        self.push(partition, wire, records, runs, offsets);
    }

    /// A dead letter in place of a record that the target refuses; or the log is paused before it.
    fn write_dead_letter(&mut self, record: &Record<'_>, mark: BatchMark, refusal: Refusal) -> Result<(), StopReason> {
        let config = self.terms.config;
        let rule = if refusal.code == INVALID_TIMESTAMP { config.on_refused_timestamp } else { config.on_refused };
        if rule == RefusedRule::Stop {
            return Err(StopReason::Refused(refusal));
        }
        let (log, offset) = (self.route.name(), refusal.offset);
        let side = self.side(&config.dead_letters);
        let (topic, side) = side.map_err(|reason| refused(format!("{refusal}; {reason}")))?;
        let chosen = self.by_key().and_then(|by_key| by_key.partition_of(record.key));
        let target = format!("{}-{}", self.route.remote(), chosen.unwrap_or_else(|| self.partition()));
        let made = dead_letter::dead_letter(&config.device, log, &target, record, &refusal, self.terms.now);
        let wire = made.map_err(|error| refused(format!("the dead letter of offset {offset}: {error}")))?;
        if wire.len() > side.batch_bytes_max {
            return Err(refused(format!(
                "{refusal}; its dead letter has {} bytes, and max.message.bytes of {topic} is {}",
                wire.len(),
                side.batch_bytes_max
            )));
        }
        let (to, next) = ((topic, side.partition), offset + 1);
        self.push_own(to, Kind::DeadLetter(refusal), wire, (self.next, next));
        self.reach(next, mark);
        Ok(())
    }

    fn pass_over_damage(&mut self, reader: &mut Reader, error: &Error) -> Result<(), StopReason> {
        let durable = self.route.log().offsets().recovery_point;
        let lost = reader.skip_damage().map_err(|error| unreadable(&error))?;
        if lost.next_offset <= lost.first_offset || lost.next_offset > durable {
            return Err(unreadable(error));
        }
        self.report_loss(lost.next_offset, "damage", error.to_string())
    }

    /// A record that reports the loss of all offsets from the end of the range to `next`.
    fn report_loss(&mut self, next: Offset, reason: &'static str, detail: String) -> Result<(), StopReason> {
        let loss = Loss { first_offset: self.next, next_offset: next, reason, detail };
        if self.terms.config.on_lost == LostRule::Stop {
            return Err(lost(loss.to_string()));
        }
        let (topic, side) = self.side(&self.terms.config.losses).map_err(|reason| lost(format!("{loss}; {reason}")))?;
        let config = self.terms.config;
        let group = config.group_id(self.route.name());
        let wire = loss_record::loss_record(&config.device, self.route.name(), &group, &loss, self.terms.now)
            .map_err(|error| lost(format!("{loss}: {error}")))?;
        let (offsets, mark) = ((self.next, next), BatchMark::behind_a_gap(self.route.log().leader_epoch()));
        let to = (topic, side.partition);
        self.push_own(to, Kind::Loss(loss), wire, offsets);
        self.reach(next, mark);
        self.seen = next;
        Ok(())
    }

    /// The topic that a template for the bridge's own records names.
    fn side(&self, template: &str) -> Result<(String, &InternalTopic), String> {
        let topic = remote_name(template, &self.terms.config.device, &self.route.name().topic);
        match self.terms.internal.get(&topic) {
            Some(Ok(side)) => Ok((topic, side)),
            Some(Err(reason)) => Err(format!("the topic {topic} cannot be used: {reason}")),
            None => Err(format!("the topic {topic} cannot be used: the cluster does not name it")),
        }
    }
}

/// How far a turn has come.
struct Reached {
    bytes: usize,
    collected_bytes: usize,
    records_left: u64,
    next: Offset,
    end: Option<(Offset, BatchMark)>,
}

impl Reached {
    fn of(turn: &Drain<'_>) -> Reached {
        let Drain { bytes, records_left, next, end, .. } = *turn;
        Reached { bytes, collected_bytes: turn.collected.bytes, records_left, next, end }
    }

    fn restore(self, turn: &mut Drain<'_>) {
        (turn.bytes, turn.collected.bytes) = (self.bytes, self.collected_bytes);
        (turn.records_left, turn.next, turn.end) = (self.records_left, self.next, self.end);
    }
}

/// What is taken of some batches: at least one record.
#[derive(Debug, Clone, Copy)]
struct Share {
    bytes_max: usize,
    records_max: u64,
    /// They get the present time.
    restamps: bool,
}

/// The pieces in the making: one, or one for each partition that keys have chosen.
struct BatchesInProgress {
    /// The bytes of a builder's buffer, where no single record needs more.
    len: usize,
    /// What a new one's buffer has. It grows as records come.
    first_len: usize,
    /// The first offset that the next piece stands for, where there is one alone.
    first: Offset,
    /// The partition of the records whose key chooses none.
    keyless: i32,
    /// Bytes in all of them.
    bytes: usize,
    of: BTreeMap<i32, BatchInProgress>,
}

impl BatchesInProgress {
    /// The one for a partition.
    fn at(&mut self, partition: i32) -> &mut BatchInProgress {
        let new = || RecordBatchBuilder::new(vec![0; self.first_len]);
        self.of.entry(partition).or_insert_with(|| BatchInProgress { builder: new(), runs: Runs::default() })
    }
}

/// A piece in the making.
struct BatchInProgress {
    builder: RecordBatchBuilder<Vec<u8>>,
    runs: Runs,
}

/// A refusal that needs no broker to be known.
fn foreseen(offset: Offset, code: Code, reason: &str) -> Refusal {
    Refusal { offset, code, reason: format!("{code}: {reason}") }
}

/// The builder's records as a compressed batch; `None` where that would be no smaller.
fn compressed(codec: CompressionType, builder: &RecordBatchBuilder<Vec<u8>>) -> Option<BytesMut> {
    if codec == CompressionType::None {
        return None;
    }
    let mut batch = vec![0; HEADER_LEN];
    codec::compress(codec, builder.payload(), &mut batch).ok()?;
    if batch.len() >= builder.size() {
        return None;
    }
    let payload_len = batch.len() - HEADER_LEN;
    builder.finish_compressed(codec, &mut batch, payload_len).expect("it has records, and the room");
    Some(BytesMut::from(&batch[..]))
}

/// A stored batch with its records compressed by `codec`, or not at all; `None` where it goes as it is stored: since it
/// would become no smaller, or cannot be decompressed here (readers of the target may have the decoder, or the memory).
fn compressed_again(batch: &Batch, codec: CompressionType) -> Option<BytesMut> {
    let records = batch.decompressed_payload().ok()?;
    if codec == CompressionType::None {
        return Some(with_payload(batch, codec, records));
    }
    let mut payload = Vec::new();
    codec::compress(codec, records, &mut payload).ok()?;
    let is_smaller = HEADER_LEN + payload.len() < batch.bytes().len();
    is_smaller.then(|| with_payload(batch, codec, &payload))
}

/// A stored batch with other records' bytes. Timestamps, counts and attributes but the codec stay.
fn with_payload(batch: &Batch, codec: CompressionType, payload: &[u8]) -> BytesMut {
    let mut made = BytesMut::with_capacity(HEADER_LEN + payload.len());
    made.extend_from_slice(&batch.bytes()[..HEADER_LEN]);
    made.extend_from_slice(payload);
    stamp_compressed(&mut made, codec);
    made
}

/// Whether a broker takes the batch as it is: nothing but its codec in the attributes (a LogAppendTime batch would get
/// other timestamps, a delete horizon is no timestamp), and no holes among its offsets.
fn goes_as_it_is(batch: &RecordBatch<'_>) -> bool {
    batch.attributes() & !CODEC == 0 && i64::from(batch.last_offset_delta()) + 1 == i64::from(batch.record_count())
}

/// Whether a transaction or a control record of another producer is in it: what that means for a reader depends on
/// markers elsewhere in its log.
fn belongs_to_a_transaction(batch: &RecordBatch<'_>) -> bool {
    batch.is_transactional() || batch.is_control()
}

/// Whether a record from `from` on has no key. What cannot be read here, the target judges.
fn lacks_keys(batch: &Batch, from: Offset) -> bool {
    let Ok(mut records) = batch.records() else { return false };
    records.any(|record| record.is_ok_and(|record| record.offset >= from && record.key.is_none()))
}

fn is_expired(timestamp: TimestampMs, retention_ms: i64, now: TimestampMs) -> bool {
    timestamp >= 0 && timestamp < now.saturating_sub(retention_ms)
}

fn mark_of(batch: &Batch) -> (Offset, BatchMark) {
    let mark = BatchMark { leader_epoch: batch.leader_epoch(), crc: batch.view().crc() };
    (batch.last_offset() + 1, mark)
}

#[cfg(test)]
mod tests;
