//! What a store has to hold: a plain model of what was appended and what was acknowledged as durable, and the check of
//! a recovered store against it.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgelog::storage::Storage;
use edgelog::{Log, NewTopic, OffsetSpec, Store};

use super::disk::SimDisk;

/// Timestamps count up from here, one a record.
pub(crate) const TIME_BASE: i64 = 1_700_000_000_000;

/// One record as it was appended. Its value follows from `seq` and `len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rec {
    pub(crate) seq: u32,
    pub(crate) len: u16,
    pub(crate) epoch: i32,
    /// It begins a batch.
    pub(crate) first: bool,
}

impl Rec {
    pub(crate) fn value(self) -> Vec<u8> {
        let mut value = vec![0; usize::from(self.len)];
        for (at, byte) in value.iter_mut().enumerate() {
            *byte = (self.seq as usize * 7 + at * 13 + (at >> 8) * 5 + 1) as u8;
        }
        value[..4].copy_from_slice(&self.seq.to_be_bytes());
        value
    }

    fn of(value: &[u8]) -> Option<Rec> {
        let seq = u32::from_be_bytes(*value.first_chunk()?);
        let rec = Rec { seq, len: value.len() as u16, epoch: 0, first: false };
        (rec.value() == value).then_some(rec)
    }

    /// The same data, whatever its place.
    fn same(self, other: Rec) -> bool {
        (self.seq, self.len) == (other.seq, other.len)
    }
}

/// What is known of one log.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogModel {
    pub(crate) id: [u8; 16],
    /// Every offset from 0 on, in the history that stands.
    pub(crate) records: Arc<Vec<Rec>>,
    /// What may follow: an append under way, or one that answered an error.
    pub(crate) maybe: Vec<Rec>,
    /// Where the log may begin.
    pub(crate) start: (i64, i64),
    /// Everything below is durable.
    pub(crate) durable: i64,
    /// The largest epoch in which anything was appended.
    pub(crate) epoch_max: i32,
    /// End of the newest `Interval` append.
    pub(crate) interval_end: i64,
}

impl LogModel {
    pub(crate) fn new() -> LogModel {
        LogModel { epoch_max: -1, ..LogModel::default() }
    }

    pub(crate) fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// First offset of the batch that holds `offset`.
    pub(crate) fn batch_start(&self, offset: i64) -> i64 {
        let mut at = offset as usize;
        while at < self.records.len() && !self.records[at].first {
            at -= 1;
        }
        at as i64
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Present,
    MaybeCreated,
    MaybeDeleted,
}

#[derive(Debug, Clone)]
pub(crate) struct TopicModel {
    pub(crate) presence: Presence,
    pub(crate) spec: NewTopic,
    pub(crate) logs: Vec<LogModel>,
}

/// Whether the next open may, must or must not find the store closed cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clean {
    Must,
    May,
    MustNot,
}

#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) topics: BTreeMap<String, TopicModel>,
    pub(crate) clean: Clean,
    /// A checkpoint was written, so one is there.
    pub(crate) has_checkpoint: bool,
    pub(crate) what: &'static str,
}

impl Model {
    pub(crate) fn new() -> Model {
        Model { topics: BTreeMap::new(), clean: Clean::May, has_checkpoint: false, what: "nothing yet" }
    }

    pub(crate) fn log_mut(&mut self, topic: &str, partition: usize) -> &mut LogModel {
        &mut self.topics.get_mut(topic).expect("a topic of the model").logs[partition]
    }
}

/// A record as a reader was given it.
struct Seen {
    offset: i64,
    rec: Rec,
}

fn read_from(log: &Log, from: OffsetSpec, limit: usize) -> Result<Vec<Seen>, String> {
    let mut reader = log.reader(from).map_err(|e| format!("no reader at {from:?}: {e}"))?;
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
            if record.timestamp != TIME_BASE + i64::from(rec.seq) {
                return Err(format!("offset {offset} has timestamp {}", record.timestamp));
            }
            let first = offset == batch.base_offset();
            seen.push(Seen { offset, rec: Rec { epoch: batch.leader_epoch(), first, ..rec } });
        }
    }
    Ok(seen)
}

/// Holds a store that was just opened against the model of what was before, and gives the model of what is now.
pub(crate) fn check(store: &Store, disk: &SimDisk, model: &Model) -> Result<Model, String> {
    let report = store.recovery_report();
    let mut now = model.clone();
    if !report.clean {
        now.clean = Clean::MustNot;
    }
    now.has_checkpoint = true;
    now.what = "recovered";
    // Where it may be either, it is found clean by a mark that need not be on the device yet.
    match (model.clean, report.clean) {
        (Clean::Must, false) => return Err("a cleanly closed store is reported unclean".into()),
        (Clean::MustNot, true) => return Err("an unclean store is reported clean".into()),
        _ => {}
    }
    if report.checkpoint_lost && model.has_checkpoint {
        return Err("the checkpoint was lost".into());
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
    for (name, expected) in &model.topics {
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
            let unclean_epoch = (!report.clean).then_some(log_model.epoch_max);
            let found = report.logs.iter().find(|l| l.name.topic == *name && l.name.partition as usize == partition);
            let found = found.ok_or_else(|| at("no line in the report".into()))?;
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
            for cut in &found.cut {
                let Some(kept) = &cut.kept_in else {
                    return Err(at(format!("a cut tail was not kept aside: {cut:?}")));
                };
                let len = disk.metadata(kept).map_err(|e| at(format!("{kept}: {e}")))?.len;
                if len < cut.bytes {
                    return Err(at(format!("{kept} has {len} bytes of {cut:?}")));
                }
            }
            topic_now.logs[partition] = log_now;
        }
    }
    Ok(now)
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
    if model.id != [0; 16] && model.id != log.id() {
        return Err("the log has another identity".into());
    }
    let seen = read_from(log, OffsetSpec::Earliest, usize::MAX)?;
    let mut records = model.records[..(end as usize).min(model.records.len())].to_vec();
    let mut next = start;
    for Seen { offset, rec } in &seen {
        if *offset != next {
            return Err(format!("offset {offset} where {next} should follow"));
        }
        next += 1;
        let at = *offset as usize;
        if let Some(expected) = records.get(at) {
            if *rec != *expected {
                return Err(format!("offset {offset} holds {rec:?}, not {expected:?}"));
            }
        } else {
            let extra = at.checked_sub(model.records.len()).and_then(|n| model.maybe.get(n));
            if !extra.is_some_and(|e| e.same(*rec) && e.first == rec.first) || end <= model.end() {
                return Err(format!("offset {offset} holds {rec:?}, which nobody appended there: {extra:?}"));
            }
            records.push(*rec);
        }
    }
    if next != end {
        return Err(format!("reading ends at {next}, the log at {end}"));
    }
    let whole = |at: usize| model.records.get(at).is_none_or(|rec| rec.first);
    if !whole(end as usize) || (end > model.end() && end != model.end() + model.maybe.len() as i64) {
        return Err(format!("the log ends inside a batch, at {end}"));
    }
    let epoch = log.leader_epoch();
    if let Some(epoch_max) = unclean_epoch {
        if epoch <= epoch_max {
            return Err(format!("epoch {epoch} was used before the crash ({epoch_max})"));
        }
    }
    for at in [start, start + (end - start) / 3, end - 1] {
        if at < start || at >= end {
            continue;
        }
        let some = read_from(log, OffsetSpec::Offset(at), 1)?;
        if some.first().map(|s| s.offset) != Some(at) {
            return Err(format!("a reader at {at} begins elsewhere"));
        }
        let rec = records[at as usize];
        let time = TIME_BASE + i64::from(rec.seq);
        match log.offset_for_time(time) {
            Ok(Some(found)) if found.offset <= at && found.offset >= start => {}
            other => return Err(format!("looking for the time of offset {at}: {other:?}")),
        }
    }
    let epoch_max = records.iter().chain(&model.maybe).map(|r| r.epoch).max().unwrap_or(-1).max(model.epoch_max);
    Ok(LogModel {
        id: log.id(),
        records: Arc::new(records),
        maybe: Vec::new(),
        start: (start, start),
        durable: end,
        epoch_max,
        interval_end: 0,
    })
}
