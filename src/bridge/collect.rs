//! What a transaction will carry, complete before it is opened: for each log one contiguous range of offsets, as
//! batches that a broker takes.
//!
//! A stored batch of decent size goes as it is, undecoded. Small ones are coalesced, records unchanged, into one with
//! the log's own compression: a Produce carries one batch for a partition, and each takes a broker some time, however
//! small it is. So are batches that a broker would not take as they are, and one that is larger than the target, or the
//! line, allows becomes several. A range ends where a stored batch ends, but where a batch is more
//! than a transaction may carry, or than is tried at once while the record that the target refuses is looked for.
//!
//! Offsets that are not here any more are part of a range as well: the record that tells the loss stands for them. So
//! does a dead letter for a record that the target refused.

use std::collections::HashMap;

use bytes::BytesMut;
use edgelog_core::{CompressionType, EncodeError, HEADER_LEN, Header, Offset, RecordBatchBuilder, TimestampMs};
use kafka_protocol::error::ResponseError;

use super::config::{BridgeConfig, ExpiredRule, LostRule, RefusedRule};
use super::lane::Lane;
use super::letter::{self, Loss, Refusal, TIMESTAMP_HEADER};
use super::partition::remote_name;
use super::position::{BatchMark, RangeEnd};
use super::stamp;
use crate::codec;
use crate::error::Error;
use crate::kafka::Code;
use crate::{Batch, OffsetSpec, Reader, Record};

/// A stored batch below this is coalesced with its neighbours.
const SMALL_BYTES: usize = 16 << 10;
/// So is one below this that is not compressed and will not be: copying it takes less than a request of its own does.
const SMALL_PLAIN_BYTES: usize = COALESCED_BYTES / 2;
/// Coalesced batches hold so many bytes before compression.
const COALESCED_BYTES: usize = 256 << 10;
/// So many small batches are held at once: each holds a piece of a map.
const SMALL_COUNT_MAX: usize = 4096;
/// What one log may add before it is another one's turn.
const TURN_BYTES: usize = 512 << 10;
/// The broker's code for a batch beyond `max.message.bytes`, which is told here of a record that no batch can hold.
const MESSAGE_TOO_LARGE: Code = Code::of(ResponseError::MessageTooLarge);
/// Its code for a record's time, and the one for a record that breaks another rule of its topic.
const INVALID_TIMESTAMP: Code = Code::of(ResponseError::InvalidTimestamp);
const INVALID_RECORD: Code = Code::of(ResponseError::InvalidRecord);

/// A batch for one partition of the target, not yet stamped.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) lane: usize,
    /// The topic and partition that it goes to.
    pub(super) to: (String, i32),
    pub(super) kind: Kind,
    pub(super) wire: BytesMut,
    pub(super) records: i32,
    pub(super) runs: Runs,
    /// The local offsets that it stands for: from the first to before the next.
    pub(super) offsets: (Offset, Offset),
}

/// The local offsets of a batch's records: of each run of consecutive ones, the index and the offset of its first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Runs(Vec<(u32, Offset)>);

impl Runs {
    /// Records whose offsets are consecutive.
    fn from(first: Offset) -> Runs {
        Runs(vec![(0, first)])
    }

    /// The record at `index`, behind all before, has this offset.
    fn push(&mut self, index: u32, offset: Offset) {
        if self.offset_of(index) != Some(offset) {
            self.0.push((index, offset));
        }
    }

    /// The offset of the record at `index`, where there are so many records.
    pub(super) fn offset_of(&self, index: u32) -> Option<Offset> {
        let (first, offset) = self.0.iter().rev().find(|(first, _)| *first <= index)?;
        Some(*offset + i64::from(index - first))
    }
}

/// What a piece holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The log's records.
    Records,
    DeadLetter(Refusal),
    Loss(Loss),
}

/// What one transaction carries.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// In the order of each log's offsets.
    pub(super) pieces: Vec<Piece>,
    pub(super) ends: Vec<RangeEnd>,
    pub(super) bytes: usize,
}

impl Collected {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Records of the logs in all.
    pub(super) fn records(&self) -> u64 {
        let ours = self.pieces.iter().filter(|piece| piece.kind == Kind::Records);
        ours.map(|piece| piece.records as u64).sum()
    }
}

/// A topic for the bridge's own records.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) partition: i32,
    pub(super) batch_bytes_max: usize,
}

/// On what terms is collected.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) config: &'a BridgeConfig,
    /// The topics for dead letters and losses; or why one cannot be used.
    pub(super) sides: &'a HashMap<String, Result<Side, String>>,
    /// What a transaction may carry, in bytes.
    pub(super) bytes_max: usize,
    /// What a request may carry, in bytes.
    pub(super) request_bytes_max: usize,
    pub(super) now: TimestampMs,
    /// Nothing but this lane, which looks for what was refused; `None`: all that do not.
    pub(super) only: Option<usize>,
}

/// Reads from all lanes in turn until there is no more, or `bytes_max` are reached (by at most one batch each).
/// What a lane cannot send is told in its `waits`; what it had before that is sent.
pub(super) fn collect(lanes: &mut [Lane], terms: &Terms<'_>) -> Collected {
    let mut collected = Collected::default();
    let mut more = true;
    while more && collected.bytes < terms.bytes_max {
        more = false;
        for (n, lane) in lanes.iter_mut().enumerate() {
            if collected.bytes >= terms.bytes_max {
                break;
            }
            if terms.only.map_or(lane.is_searching(), |only| only != n) {
                continue;
            }
            let turn_max = (terms.bytes_max - collected.bytes).min(TURN_BYTES);
            more |= take_turn(n, lane, turn_max, terms, &mut collected);
        }
    }
    collected
}

/// One lane's turn; whether it may have more.
fn take_turn(n: usize, lane: &mut Lane, bytes_max: usize, terms: &Terms<'_>, collected: &mut Collected) -> bool {
    if lane.sits_out() {
        return false;
    }
    let Some(mut reader) = lane.reader.take() else { return false };
    let before = collected.ends.iter().find(|end| end.lane == n).map_or(lane.position, |end| end.offset);
    let sent = u64::try_from(before - lane.position).unwrap_or(0);
    let mut turn = Turn {
        n,
        lane,
        terms,
        small: Vec::new(),
        small_bytes: 0,
        small_records: 0,
        bytes: 0,
        records_left: lane.records_max().saturating_sub(sent),
        next: before,
        seen: before,
        end: None,
        collected,
    };
    let halt = turn.read(&mut reader, bytes_max).err();
    // What is read and not in the range is read again; where that was deleted meanwhile, the gap is noticed then.
    if reader.position().offset != turn.next {
        let back = reader.seek(OffsetSpec::Offset(turn.next));
        let _ = back.or_else(|_| reader.seek(OffsetSpec::Earliest));
    }
    let (end, any) = (turn.end, turn.end.is_some());
    if let Some((offset, mark)) = end {
        let end = RangeEnd { lane: n, offset, mark };
        match collected.ends.iter_mut().find(|end| end.lane == n) {
            Some(before) => *before = end,
            None => collected.ends.push(end),
        }
    }
    lane.reader = Some(reader);
    match halt {
        None => any,
        Some(Halt::Full) => false,
        Some(Halt::Wait(reason)) => {
            lane.waits = Some(reason);
            false
        }
        Some(Halt::Refused(refusal)) => {
            lane.wait_for(&refusal);
            false
        }
    }
}

/// Why a turn ended before its time.
enum Halt {
    /// A batch was cut: the transaction holds what it may.
    Full,
    Wait(String),
    /// The target refuses this record, and the log waits for that.
    Refused(Refusal),
}

impl Halt {
    /// With what led to it in front.
    fn because(self, what: &str) -> Halt {
        match self {
            Halt::Wait(reason) => Halt::Wait(format!("{what}; {reason}")),
            other => other,
        }
    }
}

struct Turn<'a> {
    n: usize,
    lane: &'a Lane,
    terms: &'a Terms<'a>,
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
    collected: &'a mut Collected,
}

impl Turn<'_> {
    fn read(&mut self, reader: &mut Reader, bytes_max: usize) -> Result<(), Halt> {
        while self.bytes + self.small_bytes < bytes_max && self.small_records < self.records_left {
            let from = reader.position().offset;
            if from > self.seen {
                self.flush()?;
                self.lose(from, "retention", "deleted here before they were sent".to_owned())?;
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
                        self.reach(next, BatchMark::behind_a_gap(self.lane.log.leader_epoch()));
                    }
                    break;
                }
                Err(Error::OffsetOutOfRange { requested, log_start_offset, .. }) if requested < log_start_offset => {
                    self.flush()?;
                    reader.seek(OffsetSpec::Earliest).map_err(|error| Halt::Wait(error.to_string()))?;
                }
                Err(error) if error.is_corrupt() && self.terms.config.on_lost == LostRule::Report => {
                    self.flush()?;
                    self.pass_over_damage(reader, &error)?;
                }
                Err(error) => {
                    self.flush()?;
                    return Err(Halt::Wait(error.to_string()));
                }
            }
        }
        self.flush()
    }

    /// Adds a stored batch, of which records before `from` were not asked for.
    fn add(&mut self, batch: Batch, from: Offset) -> Result<(), Halt> {
        let view = batch.view();
        let (at, size) = (view.base_offset(), view.size());
        if stamp::belongs_to_a_transaction(&view) {
            self.flush()?;
            return Err(Halt::Wait(format!("the batch at offset {at} is part of another producer's transaction")));
        }
        let records = u64::try_from(view.record_count()).unwrap_or(0);
        let restamps = match self.lane.retention_ms {
            Some(retention_ms) if is_expired(view.max_timestamp(), retention_ms, self.terms.now) => {
                match self.terms.config.expired {
                    ExpiredRule::Send => false,
                    ExpiredRule::Restamp => true,
                    ExpiredRule::Stop => {
                        self.flush()?;
                        return Err(Halt::Wait(format!(
                            "records at offset {at} are older than the target's retention.ms={retention_ms}, which \
                             would delete them on arrival; raise it there, or set edgelog.bridge.expired"
                        )));
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
        let is_plain = [view.compression(), self.lane.log.config().compression_type] == [CompressionType::None; 2];
        let is_small = size < if is_plain { SMALL_PLAIN_BYTES } else { SMALL_BYTES };
        if !is_small || self.small_bytes + size > COALESCED_BYTES {
            // No batch of what is left over: it would be one more.
            self.flush()?;
        }
        if !is_small && self.passes(&batch, from) {
            self.pass(&batch, from);
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

    /// Whether a batch goes as it is, of which records before `from` were not asked for.
    fn passes(&self, batch: &Batch, from: Offset) -> bool {
        let view = batch.view();
        stamp::goes_as_it_is(&view)
            && view.base_offset() >= from
            && view.size() <= self.piece_bytes_max()
            && !self.lane.refuses_within(from, batch.last_offset() + 1)
            && !(self.lane.wants_keys && lacks_keys(batch, from))
    }

    /// What a batch of several records may take.
    fn piece_bytes_max(&self) -> usize {
        self.lane.piece_bytes_max().min(self.terms.request_bytes_max)
    }

    /// One stored batch as it is.
    fn pass(&mut self, batch: &Batch, from: Offset) {
        let view = batch.view();
        let first = view.base_offset().max(from);
        let (next, mark) = mark_of(batch);
        self.push(BytesMut::from(batch.bytes()), view.record_count(), Runs::from(view.base_offset()), (first, next));
        self.reach(next, mark);
    }

    /// A batch of the log's records.
    fn push(&mut self, wire: BytesMut, records: i32, runs: Runs, offsets: (Offset, Offset)) {
        let target = self.lane.target.expect("a lane that sends has a target");
        let (lane, to) = (self.n, (self.lane.remote.clone(), target.partition));
        self.push_piece(Piece { lane, to, kind: Kind::Records, wire, records, runs, offsets });
    }

    /// One record of the bridge's own.
    fn push_own(&mut self, to: (String, i32), kind: Kind, wire: BytesMut, offsets: (Offset, Offset)) {
        self.push_piece(Piece { lane: self.n, to, kind, wire, records: 1, runs: Runs::default(), offsets });
    }

    fn push_piece(&mut self, piece: Piece) {
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
    fn flush(&mut self) -> Result<(), Halt> {
        let small = std::mem::take(&mut self.small);
        (self.small_bytes, self.small_records) = (0, 0);
        match &small[..] {
            [] => Ok(()),
            // The first batch of a range may begin below it.
            [batch] if self.passes(batch, self.next) => {
                self.pass(batch, self.next);
                Ok(())
            }
            _ => {
                let share = Share { bytes_max: usize::MAX, records_max: self.records_left, restamps: false };
                self.coalesce(&small, share)
            }
        }
    }

    /// Makes these batches' records new pieces, up to a share of them. What lies before a record that cannot be sent is
    /// in the range.
    fn coalesce(&mut self, batches: &[Batch], share: Share) -> Result<(), Halt> {
        let len = COALESCED_BYTES.min(self.piece_bytes_max()).max(HEADER_LEN);
        let builder = RecordBatchBuilder::new(vec![0; len]);
        let mut making = Making { builder, len, first: self.next, runs: Runs::default() };
        let taken = self.take_records(batches, share, &mut making);
        self.finish(&mut making);
        taken
    }

    fn take_records(&mut self, batches: &[Batch], share: Share, making: &mut Making) -> Result<(), Halt> {
        let (mut taken, bytes_before) = (0, self.bytes);
        for batch in batches {
            let at = batch.base_offset();
            let unreadable = |error: Error| Halt::Wait(format!("the batch at offset {at} cannot be read: {error}"));
            let (next, mark) = mark_of(batch);
            let records = match batch.records() {
                // Readers of the target may have the decoder, or the memory, that is missing here.
                Err(Error::NotDecompressed { .. }) if !share.restamps && self.passes(batch, self.next) => {
                    self.finish(making);
                    self.pass(batch, self.next);
                    making.first = self.next;
                    continue;
                }
                records => records.map_err(unreadable)?,
            };
            for record in records {
                let record = record.map_err(unreadable)?;
                let bytes = self.bytes - bytes_before + making.builder.size();
                if taken > 0 && (taken >= share.records_max || bytes >= share.bytes_max) {
                    return Err(Halt::Full);
                }
                if let Some(refusal) = self.append_unless_refused(making, &record, share.restamps)? {
                    self.finish(making);
                    self.bury(&record, mark, refusal)?;
                    making.first = self.next;
                }
                taken += 1;
                self.reach(record.offset + 1, mark);
            }
            self.reach(next, mark);
        }
        Ok(())
    }

    /// Appends a record to the batch in the making; or says why the target will refuse it, and appends nothing.
    fn append_unless_refused(
        &mut self,
        making: &mut Making,
        record: &Record<'_>,
        restamps: bool,
    ) -> Result<Option<Refusal>, Halt> {
        if let Some(known) = self.lane.refusal_of(record.offset) {
            return Ok(Some(known.clone()));
        }
        if self.lane.wants_keys && record.key.is_none() {
            let reason = "the target's cleanup.policy is compact, and the record has no key";
            return Ok(Some(foreseen(record.offset, INVALID_RECORD, reason)));
        }
        let own_time = record.timestamp.to_string();
        let mut headers: Vec<Header<'_>> = record.headers().collect();
        if restamps {
            headers.push(Header::new(TIMESTAMP_HEADER, own_time.as_bytes()));
        }
        let timestamp = if restamps { self.terms.now } else { record.timestamp };
        let single_bytes_max = self.lane.batch_bytes_max;
        loop {
            match making.builder.append(timestamp, record.key, record.value, &headers) {
                Ok(_) => {
                    let index = making.builder.record_count().saturating_sub(1).unsigned_abs();
                    making.runs.push(index, record.offset);
                    return Ok(None);
                }
                // Deltas from a batch's first timestamp have a range, as its bytes have.
                Err(EncodeError::BufferTooSmall { .. } | EncodeError::TimestampOutOfRange { .. })
                    if !making.builder.is_empty() =>
                {
                    self.finish(making);
                }
                Err(EncodeError::BufferTooSmall { needed, .. }) if needed <= single_bytes_max => {
                    making.builder.buffer_mut().resize(needed, 0);
                }
                Err(EncodeError::BufferTooSmall { needed, .. }) => {
                    let reason = format!(
                        "it needs a batch of {needed} bytes, and the target's max.message.bytes is {single_bytes_max}"
                    );
                    return Ok(Some(foreseen(record.offset, MESSAGE_TOO_LARGE, &reason)));
                }
                Err(error) => {
                    return Err(Halt::Wait(format!("the record at offset {} cannot be sent: {error}", record.offset)));
                }
            }
        }
    }

    /// The builder's records as a piece, compressed as the log is where that makes it smaller.
    fn finish(&mut self, making: &mut Making) {
        let Making { builder, len, first, runs } = making;
        let records = builder.record_count();
        if records == 0 {
            return;
        }
        let codec = self.lane.log.config().compression_type;
        let mut compressed = vec![0; HEADER_LEN];
        let is_compressed = codec != CompressionType::None
            && codec::compress(codec, builder.payload(), &mut compressed).is_ok()
            && compressed.len() < builder.size();
        let wire = if is_compressed {
            let payload_len = compressed.len() - HEADER_LEN;
            builder.finish_compressed(codec, &mut compressed, payload_len).expect("it has records, and the room");
            BytesMut::from(&compressed[..])
        } else {
            BytesMut::from(&*builder.finish())
        };
        builder.clear();
        // A record larger than the others may be has made it longer.
        builder.buffer_mut().truncate(*len);
        let offsets = (std::mem::replace(first, self.next), self.next);
        self.push(wire, records, std::mem::take(runs), offsets);
    }

    /// A dead letter in the place of a record that the target refuses; or the log waits before it.
    fn bury(&mut self, record: &Record<'_>, mark: BatchMark, refusal: Refusal) -> Result<(), Halt> {
        let config = self.terms.config;
        let rule = if refusal.code == INVALID_TIMESTAMP { config.on_refused_timestamp } else { config.on_refused };
        if rule == RefusedRule::Stop {
            return Err(Halt::Refused(refusal));
        }
        let (log, offset) = (&self.lane.name, refusal.offset);
        let side = self.side(&config.dead_letters);
        let (topic, side) = side.map_err(|halt| halt.because(&refusal.to_string()))?;
        let target = format!("{}-{}", self.lane.remote, self.lane.target.map_or(-1, |target| target.partition));
        let made = letter::dead_letter(&config.device, log, &target, record, &refusal, self.terms.now);
        let wire = made.map_err(|error| Halt::Wait(format!("the dead letter of offset {offset}: {error}")))?;
        if wire.len() > side.batch_bytes_max {
            return Err(Halt::Wait(format!(
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

    fn pass_over_damage(&mut self, reader: &mut Reader, error: &Error) -> Result<(), Halt> {
        let told = |error: &Error| Halt::Wait(error.to_string());
        let durable = self.lane.log.offsets().recovery_point;
        let lost = reader.skip_damage().map_err(|error| told(&error))?;
        if lost.next_offset <= lost.first_offset || lost.next_offset > durable {
            return Err(told(error));
        }
        self.lose(lost.next_offset, "damage", error.to_string())
    }

    /// A record that tells the loss of all offsets from the end of the range to `next`.
    fn lose(&mut self, next: Offset, reason: &'static str, detail: String) -> Result<(), Halt> {
        let lost = Loss { first_offset: self.next, next_offset: next, reason, detail };
        if self.terms.config.on_lost == LostRule::Stop {
            return Err(Halt::Wait(lost.to_string()));
        }
        let (topic, side) = self.side(&self.terms.config.losses).map_err(|halt| halt.because(&lost.to_string()))?;
        let config = self.terms.config;
        let group = config.group_id(&self.lane.name);
        let wire = letter::loss(&config.device, &self.lane.name, &group, &lost, self.terms.now)
            .map_err(|error| Halt::Wait(format!("{lost}: {error}")))?;
        let (offsets, mark) = ((self.next, next), BatchMark::behind_a_gap(self.lane.log.leader_epoch()));
        let to = (topic, side.partition);
        self.push_own(to, Kind::Loss(lost), wire, offsets);
        self.reach(next, mark);
        self.seen = next;
        Ok(())
    }

    /// The topic that a template for the bridge's own records names.
    fn side(&self, template: &str) -> Result<(String, &Side), Halt> {
        let topic = remote_name(template, &self.terms.config.device, &self.lane.name.topic);
        match self.terms.sides.get(&topic) {
            Some(Ok(side)) => Ok((topic, side)),
            Some(Err(reason)) => Err(Halt::Wait(format!("the topic {topic} cannot be used: {reason}"))),
            None => Err(Halt::Wait(format!("the topic {topic} cannot be used: the cluster does not name it"))),
        }
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

/// A piece in the making.
struct Making {
    builder: RecordBatchBuilder<Vec<u8>>,
    /// Of the builder's buffer, where no single record needs more.
    len: usize,
    /// The first offset that it stands for.
    first: Offset,
    runs: Runs,
}

/// A refusal that needs no broker to be known.
fn foreseen(offset: Offset, code: Code, reason: &str) -> Refusal {
    Refusal { offset, code, reason: format!("{code}: {reason}") }
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
