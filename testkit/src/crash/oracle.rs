//! What a store has to hold: a plain model of what was appended and what was acknowledged as durable, and the check of
//! a recovered store against it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgelog::edgelog_core::LogId;
use edgelog::storage::Storage;
use edgelog::{Log, NewTopic, Offset, OffsetSpec, ReadUpTo, ReaderOptions, Store, TimestampMs, TopicPartition};

use super::batches::{Found, batch_at, batches_in};
use super::disk::{Core, SimDisk, has_ending};

/// Timestamps count up from here, one a record, where the clock does not jump.
pub const TIME_BASE: i64 = 1_700_000_000_000;

/// One record as it was appended. Its value follows from `seq` and `len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rec {
    pub seq: u32,
    pub len: u16,
    pub epoch: i32,
    /// It begins a batch.
    pub first: bool,
    pub time: i64,
    /// In which boot of the machine it was appended. No reader can see that.
    pub boot: u64,
}

impl Rec {
    pub fn value(self) -> Vec<u8> {
        let mut value: Vec<u8> = (0..usize::from(self.len)).map(|at| self.byte(at)).collect();
        value[..4].copy_from_slice(&self.seq.to_be_bytes());
        value
    }

    /// What stands at `at` of the value, behind the sequence number.
    fn byte(self, at: usize) -> u8 {
        (self.seq as usize * 7 + at * 13 + (at >> 8) * 5 + 1) as u8
    }

    pub fn of(value: &[u8]) -> Option<Rec> {
        let seq = u32::from_be_bytes(*value.first_chunk()?);
        let rec = Rec { seq, len: value.len() as u16, epoch: 0, first: false, time: 0, boot: 0 };
        let is_whole = value.iter().enumerate().skip(4).all(|(at, &byte)| byte == rec.byte(at));
        is_whole.then_some(rec)
    }

    /// The same data, no matter where it stands.
    pub fn same(self, other: Rec) -> bool {
        (self.seq, self.len, self.time, self.first) == (other.seq, other.len, other.time, other.first)
    }
}

/// What is known of one log.
#[derive(Debug, Clone, Default)]
pub struct LogModel {
    pub id: LogId,
    /// Every offset from 0 on, in the history that stands.
    pub records: Arc<Vec<Rec>>,
    /// What may follow: one of these, or its first batches. They are an append in flight, with what was appended
    /// concurrently, and the appends that returned an error.
    pub maybe: Vec<Vec<Rec>>,
    /// Where the log may begin.
    pub start: (i64, i64),
    /// Everything below is durable.
    pub durable: i64,
    /// The largest epoch in which anything was appended.
    pub epoch_max: i32,
    /// End of the newest `Interval` append.
    pub interval_end: i64,
}

impl LogModel {
    pub fn new() -> LogModel {
        LogModel { epoch_max: -1, ..LogModel::default() }
    }

    pub fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// Whether `rec` was appended, or perhaps appended, at `offset`.
    pub fn may_hold(&self, offset: i64, rec: Rec) -> bool {
        let Some(behind) = (offset as usize).checked_sub(self.records.len()) else {
            return self.records[offset as usize].same(rec);
        };
        self.maybe.iter().any(|maybe| maybe.get(behind).is_some_and(|other| other.same(rec)))
    }

    /// First offset of the batch that holds `offset`.
    pub fn batch_start(&self, offset: i64) -> i64 {
        let mut at = offset as usize;
        while at < self.records.len() && !self.records[at].first {
            at -= 1;
        }
        at as i64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Present,
    MaybeCreated,
    MaybeDeleted,
    /// Its creation or deletion met several errors: what is left of it belongs to no topic any more.
    Wrecked,
}

#[derive(Debug, Clone)]
pub struct TopicModel {
    pub presence: Presence,
    pub spec: NewTopic,
    pub logs: Vec<LogModel>,
}

/// Whether the next open may, must or must not find the store closed cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clean {
    Must,
    May,
    MustNot,
}

#[derive(Debug, Clone)]
pub struct Model {
    pub topics: BTreeMap<String, TopicModel>,
    pub clean: Clean,
    /// A checkpoint was written, so one is there.
    pub has_checkpoint: bool,
    pub what: &'static str,
    /// Files that the last recovery put aside, with the bytes they have at least.
    pub kept: Vec<(String, u64)>,
    /// What a recovery under way found behind the batches of segments, by path: it may cut it off, and not destroy it.
    pub tails: Vec<(String, Vec<u8>)>,
}

impl Model {
    pub fn new() -> Model {
        let (topics, kept, tails) = (BTreeMap::new(), Vec::new(), Vec::new());
        Model { topics, clean: Clean::May, has_checkpoint: false, what: "nothing yet", kept, tails }
    }

    /// The logs that a flush or a close of the store sees to: not those whose deletion met an error.
    pub fn logs_in_use(&mut self) -> impl Iterator<Item = &mut LogModel> {
        let in_use = self.topics.values_mut().filter(|topic| topic.presence == Presence::Present);
        in_use.flat_map(|topic| &mut topic.logs)
    }

    pub fn log_mut(&mut self, topic: &str, partition: usize) -> &mut LogModel {
        &mut self.topics.get_mut(topic).expect("a topic of the model").logs[partition]
    }
}

/// Of the tails that recovery cut from one log, the engine keeps so many.
const CUT_FILES_MAX: usize = 16;

/// A record as a reader was given it.
struct Seen {
    offset: i64,
    rec: Rec,
}

fn read_from(log: &Log, from: OffsetSpec, limit: usize, up_to: ReadUpTo) -> Result<Vec<Seen>, String> {
    let options = ReaderOptions::default().up_to(up_to);
    let mut reader = log.reader_with(from, options).map_err(|e| format!("no reader at {from:?}: {e}"))?;
    let mut seen = Vec::new();
    while seen.len() < limit {
        let batch = match reader.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(error) => return Err(format!("reading from {from:?} after {} records: {error}", seen.len())),
        };
        batch.view().verify_crc().map_err(|e| format!("a torn batch was served: {e}"))?;
        for record in batch.records().map_err(|e| format!("records of a batch: {e}"))? {
            let record = record.map_err(|e| format!("a record: {e}"))?;
            let offset = record.offset;
            let value = record.value.unwrap_or_default();
            let rec = Rec::of(value).ok_or_else(|| format!("offset {offset} holds what was never appended"))?;
            let first = offset == batch.base_offset();
            let rec = Rec { epoch: batch.leader_epoch().0, first, time: record.timestamp.0, ..rec };
            seen.push(Seen { offset: offset.0, rec });
        }
    }
    Ok(seen)
}

/// Holds a store that was just opened against the model of what was before, and gives the model of what is now.
pub fn check(store: &Store, disk: &SimDisk, before: &Core, model: &Model) -> Result<Model, String> {
    let report = store.recovery_report();
    let mut now = model.clone();
    if !report.clean {
        now.clean = Clean::MustNot;
    }
    now.has_checkpoint = true;
    now.what = "recovered";
    for (path, bytes) in std::mem::take(&mut now.kept) {
        let is_there = |(name, topic): (&String, &TopicModel)| {
            path.starts_with(&format!("{name}-")) && topic.presence == Presence::Present
        };
        if model.topics.iter().any(is_there) && disk.metadata(&path).map_or(0, |meta| meta.len) < bytes {
            return Err(format!("{path}, put aside by the recovery before, has lost its bytes"));
        }
    }
    // Where it may be either, it is found clean by a mark that need not be on the device yet.
    match (model.clean, report.clean) {
        (Clean::Must, false) => return Err("a cleanly closed store is reported unclean".into()),
        (Clean::MustNot, true) => return Err("an unclean store is reported clean".into()),
        _ => {}
    }
    if report.checkpoint_lost && model.has_checkpoint {
        return Err("the checkpoint was lost".into());
    }
    let is_present =
        |name: &TopicPartition| model.topics.get(&name.topic).is_some_and(|topic| topic.presence == Presence::Present);
    if report.missing.iter().any(is_present) || !report.odd.is_empty() {
        return Err(format!("directories are missing that nothing took away, or a log is odd: {report}"));
    }
    if !report.unopened.is_empty() || report.not_writable.is_some() {
        return Err(format!("not everything opened: {report}"));
    }
    let topics = store.topics().map_err(|e| e.to_string())?;
    for topic in &topics {
        if !model.topics.contains_key(&topic.name) {
            return Err(format!("topic {} is there and should not be", topic.name));
        }
    }
    for (name, expected) in model.topics.iter().filter(|(_, topic)| topic.presence != Presence::Wrecked) {
        let Some(topic) = topics.iter().find(|topic| topic.name == *name) else {
            if expected.presence == Presence::Present {
                return Err(format!("topic {name} is gone"));
            }
            now.topics.remove(name);
            continue;
        };
        if topic.partitions as usize != expected.logs.len() {
            let count = expected.logs.len();
            return Err(format!("topic {name} has {} partitions of {count}", topic.partitions));
        }
        for (key, value) in &expected.spec.config {
            if topic.overrides.get(key) != Some(value) {
                return Err(format!("topic {name} lost {key}={value}: {:?}", topic.overrides));
            }
        }
        let topic_now = now.topics.get_mut(name).expect("copied");
        topic_now.presence = Presence::Present;
        for (partition, log_model) in expected.logs.iter().enumerate() {
            let at = |e: String| format!("{name}-{partition}: {e}");
            let log = store.log(name, partition as u32).map_err(|e| at(e.to_string()))?;
            let found = report.logs.iter().find(|l| l.name.topic == *name && l.name.partition as usize == partition);
            let found = found.ok_or_else(|| at("no line in the report".into()))?;
            // A log that was closed cleanly, and that has all of its records, goes on in its epoch. It does not matter
            // what else is missing.
            let goes_on = found.clean && log.offsets().log_end_offset >= log_model.end();
            let unclean_epoch = (!goes_on).then_some(log_model.epoch_max);
            let log_now = check_log(&log, log_model, unclean_epoch).map_err(at)?;
            if found.log_end_offset != log_now.end() || found.log_start_offset != log_now.start.0 {
                return Err(at(format!("the report says {found:?}")));
            }
            if found.recovery_point > found.log_end_offset {
                return Err(at(format!("a recovery point behind the end: {found:?}")));
            }
            let above = (found.log_end_offset - found.recovery_point) as u64;
            if !found.clean && found.recovered_records != above && model.has_checkpoint {
                return Err(at(format!("not so many records were recovered: {found:?}")));
            }
            if !found.lost.is_empty() || found.failure.is_some() {
                return Err(at(format!("lost or failed: {found:?}")));
            }
            check_cuts(&found.cut, disk).map_err(at)?;
            now.kept.extend(found.cut.iter().filter_map(|cut| Some((cut.kept_in.clone()?, cut.bytes))));
            topic_now.logs[partition] = log_now;
        }
    }
    // Each costs reading every file: now and then.
    if !report.clean && before.effect % 3 == 0 {
        nothing_is_destroyed(before, &disk.snapshot(), model, &now)?;
    }
    tails_are_kept(&std::mem::take(&mut now.tails), disk, &now)?;
    Ok(now)
}

/// The bytes behind the batches of each segment, without zeros at their end.
pub fn tails_in(core: &Core) -> Vec<(String, Vec<u8>)> {
    let mut tails = Vec::new();
    for (path, mut bytes) in core.contents(&[".log"]) {
        bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
        let mut position = 0;
        while let Some(batch) = batch_at(&bytes, position) {
            position += batch.size;
        }
        if position < bytes.len() {
            tails.push((path, bytes.split_off(position)));
        }
    }
    tails
}

/// What a recovery that was itself cut short found behind the batches stands in a segment or in what is put aside.
fn tails_are_kept(tails: &[(String, Vec<u8>)], disk: &SimDisk, now: &Model) -> Result<(), String> {
    if tails.is_empty() {
        return Ok(());
    }
    let files = disk.snapshot().contents(&[".log", ".cut"]);
    for (path, tail) in tails {
        let dir = path.split('/').next().unwrap_or_default();
        let of_log = || files.iter().filter(|(path, _)| path.split('/').next() == Some(dir));
        let is_standing = now.topics.iter().any(|(name, topic)| {
            topic.presence == Presence::Present && dir.strip_prefix(name.as_str()).is_some_and(|n| n.starts_with('-'))
        });
        let bounded = of_log().filter(|(path, _)| has_ending(path, ".cut")).count() >= CUT_FILES_MAX;
        let is_kept = || of_log().any(|(_, bytes)| bytes.windows(tail.len()).any(|bytes| bytes == tail));
        if is_standing && !bounded && !is_kept() {
            return Err(format!("{path}: {} bytes behind its batches were destroyed", tail.len()));
        }
    }
    Ok(())
}

/// What the report says was cut is kept where it says, and holds the batches that it says.
fn check_cuts(cuts: &[edgelog::CutTail], disk: &SimDisk) -> Result<(), String> {
    for cut in cuts {
        let Some(kept) = &cut.kept_in else {
            return Err(format!("a cut tail was not kept aside: {cut:?}"));
        };
        let (_, bytes) =
            disk.snapshot().contents(&[kept]).pop().ok_or_else(|| format!("{kept} of {cut:?} is not there"))?;
        let position = cut.position.0 as usize;
        // A copy holds the tail alone; a file that was put aside as a whole also what stood before it.
        let tail = if bytes.len() as u64 == cut.bytes { &bytes[..] } else { bytes.get(position..).unwrap_or(&[]) };
        if (tail.len() as u64) < cut.bytes {
            return Err(format!("{kept} has {} bytes of {cut:?}", bytes.len()));
        }
        let mut next = 0;
        let mut range: Option<(Offset, Offset)> = None;
        for batch in batches_in(tail) {
            if batch.base_offset >= next {
                next = batch.last_offset + 1;
                range = Some((range.map_or(Offset(batch.base_offset), |(first, _)| first), Offset(batch.last_offset)));
            }
        }
        if cut.valid_offsets != range {
            return Err(format!("of {cut:?} the offsets {range:?} are valid"));
        }
    }
    Ok(())
}

/// Every valid batch that stood in a segment before the open is in one now, or in a file that was put aside.
fn nothing_is_destroyed(before: &Core, after: &Core, model: &Model, now: &Model) -> Result<(), String> {
    let mut there: BTreeMap<String, BTreeSet<(i64, u32)>> = BTreeMap::new();
    let mut cuts: BTreeMap<String, usize> = BTreeMap::new();
    for (path, bytes) in after.contents(&[".log", ".cut"]) {
        let dir = path.split('/').next().unwrap_or_default().to_owned();
        *cuts.entry(dir.clone()).or_default() += usize::from(has_ending(&path, ".cut"));
        there.entry(dir).or_default().extend(batches_in(&bytes).into_iter().map(Found::identity));
    }
    for (path, bytes) in before.contents(&[".log"]) {
        let dir = path.split('/').next().unwrap_or_default();
        let standing = |(name, _): &(&String, &TopicModel)| {
            model.topics.get(*name).is_some_and(|topic| topic.presence == Presence::Present)
        };
        let log = now.topics.iter().filter(standing).find_map(|(name, topic)| {
            let partition = dir.strip_prefix(name.as_str())?.strip_prefix('-')?.parse::<usize>().ok()?;
            topic.logs.get(partition)
        });
        // Of a topic that is deleted, all goes; of too many files put aside, the oldest.
        let Some(log) = log.filter(|_| cuts.get(dir).is_none_or(|&count| count < CUT_FILES_MAX)) else { continue };
        for batch in batches_in(&bytes) {
            let is_there = there.get(dir).is_some_and(|there| there.contains(&batch.identity()));
            if !is_there && batch.last_offset >= log.start.0 {
                return Err(format!("{path}: the batch at {} was destroyed: {batch:?}", batch.position));
            }
        }
    }
    Ok(())
}

fn check_log(log: &Log, model: &LogModel, unclean_epoch: Option<i32>) -> Result<LogModel, String> {
    let offsets = log.offsets();
    let (start, end) = (offsets.log_start_offset, offsets.log_end_offset);
    if start < model.start.0 || start > model.start.1 {
        return Err(format!("the log starts at {start}, not within {:?}", model.start));
    }
    if end < model.durable {
        return Err(format!("the log ends at {end}, and everything below {} was durable", model.durable));
    }
    if offsets.recovery_point != end || offsets.high_watermark != end {
        return Err(format!("not all that is served is said to be durable: {offsets:?}"));
    }
    if model.id != LogId::ZERO && model.id != log.id() {
        return Err("the log has another identity".into());
    }
    let seen = read_from(log, OffsetSpec::Earliest, usize::MAX, ReadUpTo::HighWatermark)?;
    let mut records = model.records[..(end.0 as usize).min(model.records.len())].to_vec();
    let mut next = start.0;
    // The record that would follow the last one read.
    let mut follows = model.records.get(end.0 as usize).copied();
    for Seen { offset, rec } in &seen {
        if *offset != next {
            return Err(format!("offset {offset} where {next} should follow"));
        }
        next += 1;
        let at = *offset as usize;
        if let Some(expected) = records.get(at) {
            if (rec.epoch, true) != (expected.epoch, rec.same(*expected)) {
                return Err(format!("offset {offset} holds {rec:?}, not {expected:?}"));
            }
        } else {
            let n = at - model.records.len();
            let so_far = &records[model.records.len()..];
            let is_it = |maybe: &&Vec<Rec>| {
                maybe.get(n).is_some_and(|next| next.same(*rec))
                    && so_far.iter().zip(*maybe).all(|(one, other)| one.same(*other))
            };
            let Some(maybe) = model.maybe.iter().find(is_it) else {
                let maybe = &model.maybe;
                return Err(format!("offset {offset} holds {rec:?}, which was not appended there: {maybe:?}"));
            };
            records.push(Rec { epoch: rec.epoch, ..maybe[n] });
            follows = maybe.get(n + 1).copied();
        }
    }
    if next != end.0 {
        return Err(format!("reading ends at {next}, the log at {end}"));
    }
    if follows.is_some_and(|rec| !rec.first) {
        return Err(format!("the log ends inside a batch, at {end}"));
    }
    let mut boots = BTreeMap::new();
    for rec in &records[start.0 as usize..] {
        if *boots.entry(rec.epoch).or_insert(rec.boot) != rec.boot {
            return Err(format!("epoch {} spans two boots of the machine", rec.epoch));
        }
    }
    let epoch = log.leader_epoch();
    if let Some(epoch_max) = unclean_epoch {
        if epoch <= epoch_max {
            return Err(format!("epoch {epoch} was used before the crash ({epoch_max})"));
        }
    }
    for at in (start.0..end.0).map(Offset) {
        // Of a longer log, the first, the last, and what a third of it is apart.
        if end - start > 40 && ![start, start + (end - start) / 3, end - 1].contains(&at) {
            continue;
        }
        let some = read_from(log, OffsetSpec::Offset(at), 1, ReadUpTo::HighWatermark)?;
        if some.first().map(|s| s.offset) != Some(at.0) {
            return Err(format!("a reader at {at} begins elsewhere"));
        }
        // A walk over all records finds the first that is not older.
        let time = records[at.0 as usize].time;
        let first = (start.0..end.0).find(|&offset| records[offset as usize].time >= time);
        match log.offset_for_time(TimestampMs(time)) {
            Ok(found) if found.map(|found| found.offset.0) == first => {}
            other => return Err(format!("looking for the time of offset {at} ({first:?}): {other:?}")),
        }
    }
    let epoch_max = records.iter().map(|rec| rec.epoch).max().unwrap_or(-1).max(model.epoch_max);
    Ok(LogModel {
        id: log.id(),
        records: Arc::new(records),
        maybe: Vec::new(),
        start: (start.0, start.0),
        durable: end.0,
        epoch_max,
        interval_end: 0,
    })
}

/// Attaches to the disk as it stands, no matter what its writer is doing, and reads everything. Nothing may be seen but
/// what was appended, at its offset. Returns how far a reader of durable records came in each log.
pub fn check_attached(attached: &Store, model: &Model) -> Result<BTreeMap<(String, usize), i64>, String> {
    let mut durable = BTreeMap::new();
    for (name, topic) in &model.topics {
        for (partition, model) in topic.logs.iter().enumerate() {
            let at = |e: String| format!("attached to {name}-{partition}: {e}");
            let log = match attached.log(name, partition as u32) {
                Ok(log) => log,
                Err(_) if topic.presence != Presence::Present => continue,
                Err(error) => return Err(at(error.to_string())),
            };
            for up_to in [ReadUpTo::LogEnd, ReadUpTo::Durable] {
                let start = log.offsets().log_start_offset.0;
                let seen = read_from(&log, OffsetSpec::Earliest, usize::MAX, up_to).map_err(at)?;
                let mut next = start;
                for Seen { offset, rec } in &seen {
                    if *offset < next || !model.may_hold(*offset, *rec) {
                        let maybe = &model.maybe;
                        return Err(at(format!("offset {offset} ({next} follows) holds {rec:?}; {maybe:?}")));
                    }
                    next = offset + 1;
                }
                if up_to == ReadUpTo::Durable {
                    durable.insert((name.clone(), partition), next);
                }
            }
        }
    }
    Ok(durable)
}
