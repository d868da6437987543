//! One segment of a log being checked: its batches against the log's rules, its indexes against its batches.

use std::fmt::Write as _;
use std::time::Duration;

use edgelog_core::limits::{READABLE_BYTES_MAX, SEGMENT_BYTES_MAX};
use edgelog_core::{
    Candidate, DecodeError, EpochTableView, HEADER_LEN, LeaderEpoch, NO_LEADER_EPOCH, Offset, OldMessage, Position,
    RecordBatch,
};

use super::indexes::IndexCheck;
use super::log_check::{LogCheck, PassedOver};
use super::pause;
use super::plan::SegmentPlan;
use super::report::{Severity, WRONG_BASE, behind_damage, not_looked_at, undecodable};
use crate::codec::CodecError;
use crate::error::{DamageKind, Result};
use crate::log::offsets_in_words;
use crate::segment::decompressor::{Decompressor, RecordsFault};
use crate::segment::passed_over::OffsetRange;
use crate::segment::walk::{Cause, Damage, Step, Walker};
use crate::segment::{TooLong, file_names};

/// A tail that may be in motion is looked at so often before it is called torn.
const TAIL_LOOKS: usize = 5;
const TAIL_PAUSE: Duration = Duration::from_millis(20);

/// Batches with another epoch than the table's, told as one finding.
#[derive(Debug, Default)]
struct WrongEpochs {
    batches: u64,
    /// The first one: where, which offset, the epoch of the table and its own.
    first: Option<(u64, Offset, LeaderEpoch, LeaderEpoch)>,
}

/// What a segment's walk says of the log.
pub(super) enum Flow {
    Continue,
    EndOfLog,
    Changed,
}

/// Whether a log that was durable below `point` ends at this damage: above that point, and without a checkpoint where
/// nothing good follows in the last segment.
pub(super) fn ends_log(point: Option<Offset>, durable: bool, is_last: bool, damage: &Damage) -> bool {
    let resumes = damage.resumes_at.is_some() || damage.wrong_base.is_some();
    if point.is_some() { !durable } else { is_last && !resumes }
}

/// Whether what stands there are messages of format 0 or 1, and no damage.
pub(super) fn is_old_format(damage: &Damage) -> bool {
    matches!(damage.cause, Cause::Decode(DecodeError::OldFormat { .. }))
}

/// A message's lengths are looked for in so many bytes: keys are shorter.
const OLD_MESSAGE_LOOK_BYTES: usize = 64 << 10;

/// The offset behind the messages of format 0 or 1 that stand at `position`.
pub(super) fn behind_old_messages(walker: &mut Walker, position: u64) -> Option<Offset> {
    let (mut at, mut behind) = (position, None);
    while at < walker.end() {
        let Some(message) = OldMessage::peek(walker.bytes(at, OLD_MESSAGE_LOOK_BYTES)) else { break };
        at += message.size as u64;
        behind = Some(message.offset.saturating_add(1));
    }
    behind
}

/// The valid batches behind damage that ends the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    /// First offset of the first one.
    pub(super) first: Offset,
    /// The offset behind the last one.
    pub(super) next: Offset,
    pub(super) records: u64,
}

/// Walks over the batches behind `damage`, where the walk stands. Those of a history that was truncated do not count.
pub(super) fn valid_behind(walker: &mut Walker, damage: &Damage, epochs: EpochTableView<'_>) -> Option<Behind> {
    damage.resumes_at?;
    let mut found: Option<Behind> = None;
    loop {
        match walker.next() {
            Step::Batch { .. } if walker.is_stale(epochs) => {}
            Step::Batch { .. } => {
                let batch = walker.batch();
                let (first, next) = (batch.base_offset(), walker.next_offset());
                let records = if batch.is_control() { 0 } else { u64::try_from(batch.record_count()).unwrap_or(0) };
                let before = found.unwrap_or(Behind { first, next, records: 0 });
                found = Some(Behind { first: before.first, next, records: before.records + records });
            }
            Step::Damage(_) => {}
            Step::Zeros { .. } | Step::End => return found,
        }
    }
}

/// How many records of a batch lie before `reached`, the end of the segments before or the log start, or from `next`
/// on, where the log goes on behind the batch: where segments overlap, readers have those from there.
fn records_elsewhere(reached: Offset, next: Offset, batch: &RecordBatch<'_>, decompressor: &mut Decompressor) -> u64 {
    if batch.base_offset() >= reached && batch.next_offset() <= next {
        return 0;
    }
    let Ok(records) = decompressor.records(batch) else { return 0 };
    let offsets = records.map_while(std::result::Result::ok).map(|record| record.offset);
    offsets.filter(|&offset| offset < reached || offset >= next).count() as u64
}

/// One segment being checked.
pub(super) struct SegmentCheck<'s, 'a, 'p> {
    log: &'s mut LogCheck<'a, 'p>,
    path: &'s str,
    upper: Option<Offset>,
    walker: Walker,
    indexes: IndexCheck,
    plan: SegmentPlan,
    wrong_epochs: WrongEpochs,
    /// Offsets below this one are there, or told as lost.
    told_to: Offset,
    /// Behind the last batch that holds.
    valid_end: u64,
    told_codec: bool,
    /// Where the segments before this one end.
    reached: Offset,
}

impl<'s, 'a, 'p> SegmentCheck<'s, 'a, 'p> {
    pub(super) fn new(
        log: &'s mut LogCheck<'a, 'p>,
        path: &'s str,
        base_offset: Offset,
        upper: Option<Offset>,
        walker: Walker,
        indexes: IndexCheck,
    ) -> SegmentCheck<'s, 'a, 'p> {
        let reached = log.log.log_end_offset;
        SegmentCheck {
            log,
            path,
            upper,
            walker,
            indexes,
            plan: SegmentPlan { base_offset, upper, rewrite: false, fill_to: None, indexes: false },
            wrong_epochs: WrongEpochs::default(),
            told_to: base_offset,
            valid_end: 0,
            told_codec: false,
            reached,
        }
    }

    pub(super) fn run(mut self) -> Result<Flow> {
        let flow = self.walk()?;
        self.log.epoch_before = self.walker.epoch_before();
        Ok(self.finish(flow))
    }

    fn add(&mut self, severity: Severity, position: u64, text: String) {
        self.log.add(severity, self.path.to_owned(), Some(position), None, text);
    }

    /// Whether what stands at the walk's place was durable: then what is wrong there is damage, and no end of the log.
    fn is_durable(&self) -> bool {
        // A log that no checkpoint knows is taken as it is.
        self.log.facts.recovery_point().is_none_or(|point| self.walker.expected() < point)
    }

    fn walk(&mut self) -> Result<Flow> {
        loop {
            let before = self.walker.position();
            let expected = self.walker.expected();
            let is_above = self.log.facts.recovery_point().is_some_and(|point| expected >= point);
            let durable = self.is_durable();
            let in_motion = !durable && self.upper.is_none() && !self.log.facts.clean;
            let step = if in_motion { self.next_in_motion() } else { self.walker.next() };
            let flow = match step {
                Step::Batch { position } => self.on_batch(position, is_above),
                Step::Damage(damage) => self.on_damage(&damage, durable),
                Step::Zeros { position } => {
                    if self.upper.is_some_and(|upper| self.walker.expected() >= upper) {
                        let room = self.walker.end() - position;
                        let text = format!("{room} bytes of reserved room behind the last batch of a sealed segment");
                        self.add(Severity::Note, position, text);
                    } else if let Some(upper) = self.upper.filter(|_| !self.log.facts.contiguous()) {
                        // As to a reader: room is reserved behind the last batch alone, and a hole has no bytes.
                        let expected = self.walker.expected();
                        let text = Cause::Hole.to_string();
                        self.log.lose(self.path.to_owned(), Some(position), expected, upper, text);
                        (self.plan.rewrite, self.plan.fill_to, self.told_to) = (true, Some(upper), upper);
                    }
                    Flow::Continue
                }
                Step::End => return Ok(Flow::Continue),
            };
            let looked_at = self.walker.position() - before;
            self.log.log.bytes += looked_at;
            self.log.meter.advance(looked_at)?;
            if !matches!(flow, Flow::Continue) {
                return Ok(flow);
            }
        }
    }

    /// The tail of the newest segment: a batch may be half written while it is looked at.
    fn next_in_motion(&mut self) -> Step {
        let position = self.walker.position();
        for _ in 0..TAIL_LOOKS {
            match self.walker.next_or_stop() {
                Step::Damage(_) => pause(TAIL_PAUSE),
                step => return step,
            }
            let len = self.log.storage().metadata(self.path).map_or(self.walker.end(), |meta| meta.len);
            self.walker.look_again(position, len.min(READABLE_BYTES_MAX));
        }
        self.walker.next()
    }

    /// A truncation makes its epoch durable first and exchanges the file then: whether that happens now.
    fn is_being_truncated(&self) -> bool {
        if self.log.facts.clean {
            return false;
        }
        let identity = || self.log.storage().metadata(self.path).ok().map(|meta| meta.identity);
        let before = identity();
        (0..TAIL_LOOKS).any(|_| {
            pause(TAIL_PAUSE);
            before.is_none() || identity() != before
        })
    }

    /// `is_above`: the batch stands above the recovery point, where one of another history may stand.
    fn on_batch(&mut self, position: u64, is_above: bool) -> Flow {
        let left_behind = is_above && self.walker.is_stale(self.log.facts.epochs.view());
        if left_behind && !self.log.is_last_attempt && self.is_being_truncated() {
            return Flow::Changed;
        }
        let batch = self.walker.batch();
        let (base_offset, next_offset) = (batch.base_offset(), self.walker.next_offset());
        let epoch = batch.partition_leader_epoch();
        let epochs = self.log.facts.epochs.view();
        if let Some(expected) = epochs.epoch_for(base_offset).filter(|&expected| expected != epoch) {
            if left_behind {
                let bytes = self.walker.tail_bytes(position);
                let text = format!(
                    "a batch of leader epoch {epoch} where {expected} is the offset's: another history. The log ends \
                     at offset {base_offset}; the next open keeps the {bytes} bytes behind aside"
                );
                self.add(Severity::Heals, position, text);
                return Flow::EndOfLog;
            }
            if is_above
                && epoch > epochs.latest().map_or(NO_LEADER_EPOCH, |latest| latest.epoch)
                && !self.log.is_last_attempt
            {
                // The writer may have raised the epoch since the checkpoint was read.
                return Flow::Changed;
            }
            self.wrong_epochs.batches += 1;
            self.wrong_epochs.first.get_or_insert((position, base_offset, expected, epoch));
            // Above the recovery point the bytes are recovery's to judge.
            self.plan.rewrite |= !is_above;
        }
        let offsets = next_offset - base_offset;
        let mut note = None;
        let mut lost = None;
        match self.log.decompressor.check(&batch) {
            Ok((0, _)) if batch.size() == HEADER_LEN => {
                note =
                    Some(format!("offsets {base_offset} to {} hold no records: a gap that is known", next_offset - 1));
            }
            Ok((count, largest)) => {
                // Markers of transactions are no records: no reader sees them.
                let seen = if batch.is_control() {
                    count
                } else {
                    // No reader gives out what lies before the log start, either.
                    let from = self.reached.max(self.log.facts.log_start());
                    records_elsewhere(from, next_offset, &batch, self.log.decompressor)
                };
                self.log.log.records += count - seen;
                if self.log.facts.contiguous() && i64::try_from(count) != Ok(offsets) {
                    note = Some(format!("the batch has {count} records for {offsets} offsets"));
                } else if count > 0 && largest != batch.max_timestamp() {
                    let says = batch.max_timestamp();
                    note = Some(format!("the batch says max timestamp {says}, and its records reach {largest}"));
                }
            }
            Err(RecordsFault::NotDecompressed(error)) => {
                self.log.log.unread_batches += 1;
                // One note a segment says that a codec is missing; of a batch that is too large, each has its own.
                let is_known = self.told_codec && matches!(error, CodecError::NotBuiltIn { .. });
                note = (!is_known).then(|| not_looked_at(base_offset, next_offset, &error));
                self.told_codec |= matches!(error, CodecError::NotBuiltIn { .. });
            }
            Err(fault) if !fault.is_damage() => note = Some(undecodable(base_offset, next_offset, &fault)),
            Err(fault) => lost = Some(undecodable(base_offset, next_offset, &fault)),
        }
        self.log.log.batches += 1;
        self.indexes.on_batch(position, &batch, next_offset - 1);
        if let Some(text) = note {
            self.add(Severity::Note, position, text);
        }
        if let Some(text) = lost {
            self.log.lose(self.path.to_owned(), Some(position), base_offset, next_offset, text);
            self.plan.rewrite = true;
        }
        (self.told_to, self.valid_end) = (next_offset, self.walker.position());
        Flow::Continue
    }

    fn on_damage(&mut self, damage: &Damage, durable: bool) -> Flow {
        if is_old_format(damage) {
            return self.on_old_format(damage);
        }
        let Damage { position, first_offset, .. } = *damage;
        let point = self.log.facts.recovery_point();
        let is_last = self.upper.is_none();
        let mut text = damage.cause.to_string();
        text.push_str(&behind_damage(damage.unread_from, None));
        if !durable && self.upper == Some(first_offset) {
            let end = damage.resumes_at.unwrap_or(self.walker.end());
            text.push_str("; the next segment goes on in front of it, and the next open keeps these bytes aside");
            self.add(Severity::Heals, position, text);
            self.indexes.skip_to(end, first_offset);
            return Flow::Continue;
        }
        if ends_log(point, durable, is_last, damage) {
            return self.on_damaged_end(damage, text);
        }
        self.plan.rewrite = true;
        if let Some(right) = damage.wrong_base {
            let next = self.walker.expected();
            if damage.is_read {
                // An open looks at no segment before the one of the recovery point.
                let is_looked_at = is_last || point.is_none();
                let by = if is_looked_at { "the next open" } else { "repair" };
                let _ = write!(text, "; where it ends says so: it is read as that, and {by} puts it right");
                self.add(Severity::Heals, position, text);
                self.count_displaced(&right);
            } else {
                let _ = write!(text, "; {WRONG_BASE}");
                self.log.lose(self.path.to_owned(), Some(position), first_offset, next, text);
                self.indexes.skip_to(right.end, next);
            }
            (self.told_to, self.valid_end) = (next, right.end);
            return Flow::Continue;
        }
        // Above the recovery point a history that was truncated ends the log; what else follows, it goes on with.
        let epochs = self.log.facts.epochs.view();
        let above = damage.resumes_at.filter(|_| is_last && damage.next_offset >= point);
        let is_left_behind = above.is_some_and(|at| self.walker.is_stale_at(at, epochs));
        let bound = point.filter(|_| is_left_behind).unwrap_or(Offset::MAX);
        let behind = self.upper.or(point).unwrap_or(first_offset);
        let next = damage.next_offset.unwrap_or(behind).min(bound);
        text.push_str(&behind_damage(None, damage.resumes_at));
        let passed = self.passed_over(damage, damage.resumes_at);
        let is_all = first_offset >= next && !passed.is_empty();
        let otherwise = is_all.then(|| text.clone());
        self.pass_over(position, passed, (first_offset, next), text.clone(), otherwise);
        if !is_all {
            self.log.lose(self.path.to_owned(), Some(position), first_offset, next, text);
        }
        self.indexes.skip_to(damage.resumes_at.unwrap_or(self.walker.end()), next);
        self.told_to = next;
        if damage.resumes_at.is_none() {
            self.plan.fill_to = Some(next);
            return Flow::Continue;
        }
        if is_left_behind {
            self.plan.fill_to = Some(next);
            let bytes = self.walker.tail_bytes(damage.resumes_at.unwrap_or(position));
            let text = format!("{bytes} bytes above the recovery point that do not continue the log");
            self.add(Severity::Heals, damage.resumes_at.unwrap_or(position), text);
            return Flow::EndOfLog;
        }
        Flow::Continue
    }

    /// The offsets of the batches that hold in the damage, up to where the log goes on, at `resumes_at`. In a log
    /// without holes what is not read of them is missing, and reported as that.
    fn passed_over(&mut self, damage: &Damage, resumes_at: Option<u64>) -> Vec<OffsetRange> {
        if self.log.facts.contiguous() {
            return Vec::new();
        }
        let behind = resumes_at.unwrap_or(self.walker.end());
        self.walker.sound_between(damage.position, behind, damage.first_offset)
    }

    fn pass_over(
        &mut self,
        position: u64,
        ranges: Vec<OffsetRange>,
        missing: OffsetRange,
        text: String,
        otherwise: Option<String>,
    ) {
        if !ranges.is_empty() {
            let path = self.path.to_owned();
            let is_behind_end = false;
            self.log.passed.push(PassedOver { path, position, ranges, missing, text, otherwise, is_behind_end });
        }
    }

    /// A batch that is read at another place than it says.
    fn count_displaced(&mut self, right: &Candidate) {
        let size = (right.end - right.position) as usize;
        let mut bytes = self.walker.bytes(right.position, size)[..size].to_vec();
        bytes[..8].copy_from_slice(&right.base_offset.0.to_be_bytes());
        let Ok(batch) = RecordBatch::parse(&bytes) else { return };
        self.log.log.batches += 1;
        if !batch.is_control() {
            let checked = self.log.decompressor.check(&batch);
            if let Err(fault) = &checked {
                if fault.is_damage() {
                    let (first, next) = (right.base_offset, right.next_offset);
                    let text = undecodable(first, next, fault);
                    self.log.lose(self.path.to_owned(), Some(right.position), first, next, text);
                }
            }
            let count = checked.map_or(0, |(count, _)| count);
            let from = self.reached.max(self.log.facts.log_start());
            self.log.log.records += count - records_elsewhere(from, right.next_offset, &batch, self.log.decompressor);
        }
        self.indexes.on_batch(right.position, &batch, right.next_offset - 1);
    }

    /// Damage above the recovery point ends the log. Where valid batches follow in the boot that wrote them, no crash
    /// has made it: what was acknowledged cannot be read.
    fn on_damaged_end(&mut self, damage: &Damage, mut text: String) -> Flow {
        let Damage { position, first_offset, .. } = *damage;
        let bytes = self.walker.tail_bytes(position);
        let facts = &self.log.facts;
        let may_be_whole = |error: &DecodeError| {
            matches!(
                error,
                DecodeError::BadCrc { .. } | DecodeError::NotContiguous { .. } | DecodeError::BadRecordCount { .. }
            )
        };
        let is_known = facts.saved.is_some();
        let in_this_boot = facts.stopped_in_this_boot;
        let is_suspect = (in_this_boot || !is_known && facts.contiguous())
            && matches!(&damage.cause, Cause::Decode(error) if may_be_whole(error));
        let epochs = is_known.then(|| facts.epochs.view());
        let whole = is_suspect.then(|| self.walker.written_whole(position, first_offset, epochs)).flatten();
        let behind = valid_behind(&mut self.walker, damage, facts.epochs.view());
        if let Cause::Decode(error @ DecodeError::BadOffset { .. }) = &damage.cause {
            let is_known_here = in_this_boot || facts.saved.is_none();
            let offsets = if is_known_here { self.walker.offsets_of_displaced(position) } else { None };
            if let Some(offsets) = offsets {
                // No crash leaves a batch that holds: what is in it was written, and cannot be read.
                let text = format!("the CRC holds, and no record can be read: {error}; the log ends before it");
                let lost = (first_offset, first_offset.saturating_add(offsets));
                let lost = Some(lost).filter(|(first, next)| first < next);
                self.log.add(Severity::Lost, self.path.to_owned(), Some(position), lost, text);
                return Flow::EndOfLog;
            }
        }
        let epoch = facts.epochs.view().latest().map_or(LeaderEpoch(0), |latest| latest.epoch);
        let cut = file_names::cut_file(&facts.dir, self.plan.base_offset, Position(position as u32), epoch);
        let _ = write!(
            text,
            "; the log ends at offset {first_offset}, and the next open keeps the {bytes} bytes behind aside"
        );
        let Some(behind) = behind else {
            let passed = if is_known { Vec::new() } else { self.passed_over(damage, None) };
            if !passed.is_empty() {
                self.pass_over(position, passed, (first_offset, first_offset), text.clone(), Some(text));
                self.log.passed.iter_mut().for_each(|passed| passed.is_behind_end |= passed.position == position);
            } else if let Some(next) = whole {
                text.push_str(". The batch was written whole: no stop of its writer leaves it like this");
                self.log.lose(self.path.to_owned(), Some(position), first_offset, next, text);
            } else {
                text.push_str(": an unfinished append, or damage to the last batch");
                self.add(Severity::Heals, position, text);
            }
            return Flow::EndOfLog;
        };
        let Behind { first, next, records } = behind;
        let offsets = offsets_in_words(first, next);
        let _ = write!(
            text,
            ": {records} valid records are in them, {offsets}; after it, `edgelog repair --salvage {cut}` appends them \
             again"
        );
        if in_this_boot {
            self.log.lose(self.path.to_owned(), Some(position), first_offset, next, text);
        } else {
            self.add(Severity::Heals, position, text);
        }
        Flow::EndOfLog
    }

    /// Messages of format 0 or 1: neither an open nor a repair changes the log.
    fn on_old_format(&mut self, damage: &Damage) -> Flow {
        let Damage { position, first_offset, .. } = *damage;
        let behind = damage.next_offset.or(self.upper).or_else(|| behind_old_messages(&mut self.walker, position));
        let next = behind.unwrap_or(first_offset).max(first_offset);
        let text = format!("{}; edgelog leaves the log as it is", damage.cause);
        let lost = Some((first_offset.max(self.log.facts.log_start()), next)).filter(|(first, next)| first < next);
        self.log.add(Severity::Lost, self.path.to_owned(), Some(position), lost, text);
        self.log.is_left_alone = true;
        self.indexes.skip_to(damage.resumes_at.unwrap_or(self.walker.end()), next);
        self.told_to = next;
        Flow::Continue
    }

    /// The segment ends here. Goes the log on where it has to, and do the indexes say what the batches say?
    fn finish(mut self, flow: Flow) -> Flow {
        let mut flow = flow;
        if self.valid_end > SEGMENT_BYTES_MAX {
            let text = format!("{}; edgelog reads the log, and leaves it as it is", TooLong(self.valid_end));
            self.add(Severity::Lost, SEGMENT_BYTES_MAX, text);
            self.log.is_left_alone = true;
        }
        let point = self.log.facts.recovery_point();
        let end = self.told_to;
        if let Flow::Continue = flow {
            let next = self.upper.or(point).unwrap_or(end);
            let (path, position) = (self.path.to_owned(), Some(self.valid_end));
            match self.upper {
                Some(next) if end < next && point.is_none() && !self.log.facts.contiguous() => {
                    let text = format!("offsets {end} to {} are in no segment: compacted, or missing", next - 1);
                    self.log.add(Severity::Note, path, position, None, text);
                }
                Some(next) if self.log.facts.contiguous() && point.is_some_and(|p| end < p && p < next) => {
                    // Nothing promised what lies beyond the point, and the next segment does not go on from it.
                    let point = point.unwrap_or(next);
                    let text =
                        format!("the segment ends before offset {end}, and everything below {point} was durable");
                    self.log.lose(path, position, end, point, text);
                    (self.plan.rewrite, self.plan.fill_to) = (true, Some(point));
                    flow = Flow::EndOfLog;
                }
                Some(next) if end < next && self.log.facts.contiguous() => {
                    if point.is_none_or(|point| end < point) {
                        let text =
                            format!("the segment ends with offset {}, and the next one begins at {next}", end - 1);
                        self.log.lose(path, position, end, next, text);
                        (self.plan.rewrite, self.plan.fill_to) = (true, Some(next));
                    } else {
                        flow = Flow::EndOfLog;
                    }
                }
                None if end < next => {
                    let text = DamageKind::LogEndsEarly { recovery_point: next }.to_string();
                    self.log.lose(path, position, end, next, text);
                    (self.plan.rewrite, self.plan.fill_to) = (true, Some(next));
                }
                _ => {}
            }
        }
        // A segment may lie within the one before.
        self.log.log.log_end_offset = self.plan.fill_to.unwrap_or(end).max(end).max(self.reached);
        if let Some((position, offset, expected, found)) = self.wrong_epochs.first {
            let others = match self.wrong_epochs.batches {
                1 => String::new(),
                batches => format!(", and so have {} batches more", batches - 1),
            };
            let text = format!(
                "offset {offset} has leader epoch {found} where the table says {expected}{others}; the table is right"
            );
            self.add(Severity::Heals, position, text);
        }
        if self.finish_indexes() { Flow::Changed } else { flow }
    }

    /// Whether an index was being written while it was read.
    fn finish_indexes(self) -> bool {
        let SegmentCheck { log, upper, indexes, mut plan, valid_end, .. } = self;
        // The active segment's indexes live in its writer's memory; what is on disk is from an earlier close.
        let complete = upper.is_some() || log.facts.clean;
        let reach = u64::from(log.facts.config.index_interval_bytes) + u64::from(log.facts.config.max_message_bytes);
        let faults = if valid_end > 0 { indexes.finish(reach, complete) } else { Vec::new() };
        if !log.facts.clean && !log.is_last_attempt {
            if log.pauses_left > 0 && faults.iter().any(|fault| !fault.missing) {
                log.pauses_left -= 1;
                pause(TAIL_PAUSE);
            }
            let len = |file: &str| log.storage().metadata(file).map_or(0, |meta| meta.len);
            if faults.iter().any(|fault| len(&fault.file) != fault.len) {
                return true;
            }
        }
        for fault in faults {
            if fault.missing && !complete {
                continue;
            }
            let heals = complete && (log.facts.clean || !fault.missing);
            plan.indexes |= heals;
            let severity = if heals { Severity::Heals } else { Severity::Note };
            let text = format!("{}; it is rebuilt from the batches when it is needed", fault.text);
            log.add(severity, fault.file, fault.position, None, text);
        }
        if plan.rewrite || plan.indexes {
            log.plan.segments.push(plan);
        }
        false
    }
}
