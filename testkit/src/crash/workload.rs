//! What is done to a store while its disk is watched: operations, and the world that carries them out next to the
//! model.

use std::sync::{Arc, Mutex};

use edgelog::clock::ManualClock;
use edgelog::{
    Durability, Error, Log, NewRecord, NewTopic, Offset, OffsetSpec, ReadUpTo, ReaderOptions, Store, TimestampMs,
};

use super::batches::batch_at;
use super::disk::{Core, Fault, Image, Moment, Quirks, Rng, SimDisk};
use super::oracle::{Clean, LogModel, Model, Presence, Rec, TIME_BASE, TopicModel, check, tails_in};

pub const FLUSH_MS: i64 = 20;
/// `retention.ms` of topic c.
const RETENTION_MS: i64 = 400;
/// A clock that shows less was never set.
const DATED_FROM: i64 = 1_577_836_800_000;

/// A log by number: topic and partition.
pub const LOGS: [(&str, usize); 5] = [(A, 0), (B, 0), (B, 1), (C, 0), (C, 1)];
pub const TOPICS: [&str; 3] = [A, B, C];
/// Long enough that the checkpoint takes two sectors, with news of some logs in the one and of some in the other: only
/// then can a slot be torn.
const A: &str = "a.name.that.is.long.enough.for.the.checkpoint.to.take.more.than.one.sector.so.that.each.of.its.slots.\
                 can.be.torn.by.a.power.cut.which.comes.in.between.of.two";
const B: &str = "b.of.two.partitions.whose.places.in.the.checkpoint.are.on.both.sides.of.a.border.between.two.sectors";
const C: &str = "c";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Append {
        log: usize,
        records: u8,
        len: u16,
        durability: Durability,
        /// Another thread reads, and another one appends, while it is carried out.
        concurrent: bool,
    },
    /// So many appends at `Os`, each of about half a segment: the log rolls again and again, and nothing is flushed but
    /// where an append waits for it.
    Burst {
        log: usize,
        appends: u8,
    },
    Flush {
        log: usize,
    },
    FlushAll,
    Tick {
        advance: i64,
    },
    /// The clock is set.
    Clock {
        to: i64,
    },
    /// Back by so many records.
    Truncate {
        log: usize,
        back: u16,
    },
    /// Up to so many records before the end.
    DeleteRecords {
        log: usize,
        keep: u16,
    },
    Create {
        topic: usize,
    },
    Delete {
        topic: usize,
    },
    Reopen,
    /// The process dies, the machine stays up.
    Kill,
    /// The power goes after so many more effects.
    Cut {
        after: u16,
        image: Image,
    },
    /// A call fails: of those that can fail so, the one after so many others. Then the process is started again, or it
    /// goes on.
    Fail {
        after: u8,
        fault: Fault,
        goes_on: bool,
    },
}

pub fn new_topic(topic: usize) -> NewTopic {
    let spec = NewTopic::new(TOPICS[topic]).config("segment.bytes", "4096").config("index.interval.bytes", "256");
    match topic {
        0 => spec.config("retention.ms", "-1"),
        1 => spec.partitions(2).config("retention.ms", "-1").config("retention.bytes", "9000"),
        _ => spec.partitions(2).config("retention.ms", "400").config("flush.ms", "20"),
    }
}

pub struct World {
    pub disk: SimDisk,
    pub clock: ManualClock,
    pub store: Option<Store>,
    pub model: Model,
    /// The model at each mark, where cuts are recorded.
    pub trail: Option<Vec<Arc<Model>>>,
    pub seq: u32,
    /// What the clock shows before the first record.
    pub time_base: i64,
    /// Errors are answers too: some call was made to fail.
    pub tolerant: bool,
}

pub fn options(clock: &ManualClock) -> edgelog::StoreOptions {
    let set = |options: edgelog::StoreOptions, key, value| options.set(key, value).expect("a key");
    let options = set(Store::options(), "edgelog.housekeeping", "tick");
    let options = set(options, "edgelog.checkpoint.interval.ms", "1000");
    let options = set(options, "log.retention.check.interval.ms", "1");
    options.clock(clock.clone())
}

impl World {
    /// An empty disk with an open store.
    pub fn new(quirks: Quirks) -> World {
        World::on(SimDisk::new(quirks))
    }

    pub fn on(disk: SimDisk) -> World {
        World {
            disk,
            clock: ManualClock::new(TimestampMs(TIME_BASE)),
            store: None,
            model: Model::new(),
            trail: None,
            seq: 0,
            time_base: TIME_BASE,
            tolerant: false,
        }
    }

    pub fn record(&mut self) {
        self.disk.record();
        self.trail = Some(Vec::new());
        self.mark();
    }

    fn mark(&mut self) {
        if let Some(trail) = &mut self.trail {
            self.disk.set_mark(trail.len());
            trail.push(Arc::new(self.model.clone()));
        }
    }

    /// Opens the store and holds it against the model.
    pub fn open(&mut self) -> Result<(), String> {
        let before = self.disk.snapshot();
        if self.trail.is_some() && !self.tolerant && before.is_durable() {
            self.model.tails = tails_in(&before);
        }
        self.mark();
        match options(&self.clock).open_on(self.disk.clone()) {
            Ok(store) => {
                let now = check(&store, &self.disk, &before, &self.model);
                if now.is_err() && self.tolerant && self.disk.fault_hit() && !self.disk.is_dead() {
                    // The fault met this open, or the reading after it. Harmless, if another process finds everything.
                    drop(store);
                    self.tolerant = false;
                    self.restart(self.disk.snapshot().image(Image::Kill));
                    self.model.clean = if self.model.clean == Clean::Must { Clean::May } else { self.model.clean };
                    return self.open();
                }
                self.store = Some(store);
                if !self.disk.is_dead() {
                    self.model = now?;
                    if self.disk.fault_hit() {
                        // What the cache shows of the checkpoint may not be on the device.
                        self.model.clean = if self.model.clean == Clean::Must { Clean::May } else { self.model.clean };
                    }
                    self.mark();
                }
                Ok(())
            }
            Err(_) if self.disk.is_dead() => Ok(()),
            Err(_) if self.tolerant && self.disk.fault_hit() => Ok(()),
            Err(error) => Err(format!("open answers {error}")),
        }
    }

    /// The process is gone without another word; `core` is what the next one finds.
    pub fn restart(&mut self, core: Core) {
        if self.disk.in_distress() {
            let in_doubt = |topic: &&mut TopicModel| topic.presence != Presence::Present;
            self.model.topics.values_mut().filter(in_doubt).for_each(|topic| topic.presence = Presence::Wrecked);
        }
        self.disk.kill();
        self.store = None;
        self.disk = SimDisk::from_core(core);
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("an open store")
    }

    fn begin(&mut self, what: &'static str, change: impl FnOnce(&mut Model)) {
        change(&mut self.model);
        self.model.what = what;
        if !matches!(what, "flush" | "tick" | "close") {
            self.model.clean = if self.model.clean == Clean::MustNot { Clean::MustNot } else { Clean::May };
        } else if self.model.clean == Clean::Must {
            self.model.clean = Clean::May;
        }
        self.mark();
    }

    fn end(&mut self, change: impl FnOnce(&mut Model)) {
        change(&mut self.model);
        // The engine's own word on what is durable is held against it.
        let store = self.store.as_ref();
        for (name, topic) in &mut self.model.topics {
            for (partition, log_model) in topic.logs.iter_mut().enumerate() {
                let Some(Ok(log)) = store.map(|store| store.log(name, partition as u32)) else { continue };
                log_model.durable = log_model.durable.max(log.offsets().recovery_point.0);
            }
        }
        self.mark();
    }

    /// `Ok(None)`: the power is off, or the call failed as it was made to.
    fn outcome<T>(&self, what: &str, outcome: edgelog::Result<T>) -> Result<Option<T>, String> {
        match outcome {
            Ok(_) if self.disk.is_dead() => Ok(None),
            Ok(value) => Ok(Some(value)),
            Err(_) if self.disk.is_dead() || (self.tolerant && self.disk.fault_hit()) => Ok(None),
            Err(error) => Err(format!("{what} answers {error}")),
        }
    }

    pub fn is_there(&self, topic: &str) -> bool {
        self.model.topics.get(topic).is_some_and(|topic| topic.presence == Presence::Present)
    }

    /// Carries out one operation. `Err` is a violation.
    pub fn apply(&mut self, op: &Op) -> Result<(), String> {
        if self.store.is_none() {
            return Ok(());
        }
        match *op {
            Op::Append { log, records, len, durability, concurrent } => {
                self.append(log, records, len, durability, concurrent)
            }
            Op::Burst { log, appends } => {
                for n in 0..appends {
                    let (records, len) = [(3, 700), (1, 2100), (2, 1500)][usize::from(n) % 3];
                    self.append(log, records, len, Durability::Os, false)?;
                    if self.store.is_none() || self.disk.is_dead() {
                        break;
                    }
                }
                Ok(())
            }
            Op::Clock { to } => {
                self.time_base = to;
                self.clock.set(TimestampMs(to + i64::from(self.seq)));
                Ok(())
            }
            Op::Flush { log } => {
                let (topic, partition) = LOGS[log];
                if !self.is_there(topic) {
                    return Ok(());
                }
                self.begin("flush", |_| {});
                let flushed = self.store().log(topic, partition as u32).and_then(|log| log.flush());
                if self.outcome("flush", flushed)?.is_some() {
                    self.end(|model| {
                        let log = model.log_mut(topic, partition);
                        log.durable = log.end();
                    });
                }
                Ok(())
            }
            Op::FlushAll => {
                self.begin("flush", |_| {});
                if self.outcome("flush", self.store().flush())?.is_some() {
                    self.end(|model| {
                        for log in model.logs_in_use() {
                            log.durable = log.end();
                        }
                    });
                }
                Ok(())
            }
            Op::Tick { advance } => self.tick(advance),
            Op::Truncate { log, back } => self.truncate(log, back),
            Op::DeleteRecords { log, keep } => self.delete_records(log, keep),
            Op::Create { topic } => self.create(topic),
            Op::Delete { topic } => self.delete(topic),
            Op::Reopen => self.reopen(),
            Op::Kill | Op::Cut { .. } | Op::Fail { .. } => Ok(()),
        }
    }

    fn append(
        &mut self,
        log: usize,
        records: u8,
        len: u16,
        durability: Durability,
        concurrent: bool,
    ) -> Result<(), String> {
        let (topic, partition) = LOGS[log];
        if !self.is_there(topic) {
            return Ok(());
        }
        let log = self.store().log(topic, partition as u32).map_err(|e| e.to_string())?;
        let epoch = log.leader_epoch();
        let boot = self.disk.boot();
        let mut rec = |len: u16, first: bool| {
            self.seq += 1;
            Rec { seq: self.seq, len, epoch: epoch.0, first, time: self.time_base + i64::from(self.seq), boot }
        };
        let mut recs: Vec<Rec> = (0..records.max(1)).map(|n| rec(len.max(4) + u16::from(n), n == 0)).collect();
        let bystander = concurrent.then(|| Bystander::new(&log, rec(40, true), recs.len()));
        self.clock.set(TimestampMs(self.time_base + i64::from(self.seq)));
        let end = self.model.log_mut(topic, partition).end();
        let epoch_max = self.model.log_mut(topic, partition).epoch_max;
        // A store that is still marked as closed makes its epochs durable, with the mark, before a batch has one.
        let lasts = self.model.clean == Clean::MustNot;
        self.begin("append", |model| {
            let log = model.log_mut(topic, partition);
            log.epoch_max = if lasts { log.epoch_max.max(epoch.0) } else { log.epoch_max };
            log.maybe.push(recs.iter().copied().chain(bystander.as_ref().map(|bystander| bystander.rec)).collect());
        });
        if let Some(bystander) = &bystander {
            self.disk.concurrent(Some(bystander.on(self.disk.clone())));
        }
        let appended = if recs.len() == 1 {
            let value = recs[0].value();
            let record = NewRecord::value(&value).with_timestamp(TimestampMs(recs[0].time));
            log.append_with(record, durability)
        } else {
            let mut batch = log.batch();
            for rec in &recs {
                let record = rec.value();
                let record = NewRecord::value(&record).with_timestamp(TimestampMs(rec.time));
                batch.push(record).map_err(|e| e.to_string())?;
            }
            log.append_batch_with(&mut batch, durability)
        };
        self.disk.concurrent(None);
        let failed = appended.as_ref().err().map(Error::to_string);
        let rec = bystander.as_ref().map(|bystander| bystander.rec);
        let (concurrent, failed_concurrent) = match bystander.as_ref().map(Bystander::outcome).transpose()? {
            Some(ConcurrentAppend::Appended { epoch }) => (rec.map(|rec| Rec { epoch, ..rec }), Vec::new()),
            Some(ConcurrentAppend::Failed) => (None, rec.iter().map(|rec| vec![*rec]).collect()),
            _ => (None, Vec::new()),
        };
        let Some(info) = self.outcome("append", appended)? else {
            if failed.is_some() && !self.disk.is_dead() {
                // An epoch that could not be made durable is reported and not used.
                self.model.log_mut(topic, partition).epoch_max = epoch_max;
            }
            if failed.is_some() && !self.disk.is_dead() && log.offsets().log_end_offset > end {
                // It stands in the log, and only its flush failed.
                let (grown, now) = (log.offsets().log_end_offset, log.leader_epoch());
                self.end(|model| {
                    let log = model.log_mut(topic, partition);
                    let recs = recs.into_iter().map(|rec| Rec { epoch: now.0, ..rec });
                    let taken: Vec<Rec> = recs.chain(concurrent).collect();
                    if grown == log.end() + taken.len() as i64 {
                        Arc::make_mut(&mut log.records).extend(taken);
                        log.maybe = failed_concurrent;
                    }
                });
            }
            return Ok(());
        };
        if info.base_offset != end || info.last_offset != end + recs.len() as i64 - 1 {
            return Err(format!("an append at the end {end} answers {info:?}"));
        }
        if info.leader_epoch < epoch {
            return Err(format!("an append in epoch {epoch} answers {info:?}"));
        }
        for rec in &mut recs {
            rec.epoch = info.leader_epoch.0;
        }
        self.end(|model| {
            model.clean = Clean::MustNot;
            let log_model = model.log_mut(topic, partition);
            log_model.epoch_max = log_model.epoch_max.max(info.leader_epoch.0);
            log_model.maybe = failed_concurrent;
            Arc::make_mut(&mut log_model.records).extend(recs);
            let end = log_model.end();
            Arc::make_mut(&mut log_model.records).extend(concurrent);
            if durability == Durability::Sync {
                log_model.durable = end;
            }
            if durability == Durability::Interval {
                log_model.interval_end = end;
            }
        });
        Ok(())
    }

    fn tick(&mut self, advance: i64) -> Result<(), String> {
        let now = self.time_base + i64::from(self.seq) + advance;
        self.begin("tick", |model| {
            for (name, topic) in &mut model.topics {
                for log in &mut topic.logs {
                    // By age goes what is older than a dated record that is too old. By size, anything may.
                    let is_old = |rec: &Rec| rec.time >= DATED_FROM && now - rec.time > RETENTION_MS;
                    let aged = log.records.iter().rposition(is_old).map_or(0, |at| at as i64 + 1);
                    let until = if name == C { aged } else { log.end() };
                    log.start.1 = log.start.1.max(until);
                }
            }
        });
        let ticked = self.store().tick(TimestampMs(now));
        let ticked = self.outcome("tick", ticked)?.is_some();
        if self.disk.is_dead() {
            return Ok(());
        }
        // A log that met an error is passed over.
        let failed = self.tolerant && self.disk.fault_hit();
        let starts = self.starts();
        for (topic, partition, start) in &starts {
            let may = self.model.log_mut(topic, *partition).start.1;
            if *start > may {
                return Err(format!("retention took what is young from {topic}-{partition}: {start}, not {may}"));
            }
        }
        self.end(|model| {
            for (topic, partition, start) in starts {
                let log = model.log_mut(&topic, partition);
                log.start.1 = start.max(log.start.0);
                let flush_ms = if topic == C { FLUSH_MS } else { 1000 };
                if advance >= flush_ms && ticked && !failed {
                    log.durable = log.durable.max(log.interval_end);
                }
            }
        });
        Ok(())
    }

    fn starts(&self) -> Vec<(String, usize, i64)> {
        let mut starts = Vec::new();
        for (name, topic) in &self.model.topics {
            for partition in 0..topic.logs.len() {
                if let Ok(log) = self.store().log(name, partition as u32) {
                    starts.push((name.clone(), partition, log.offsets().log_start_offset.0));
                }
            }
        }
        starts
    }

    fn truncate(&mut self, log: usize, back: u16) -> Result<(), String> {
        let (topic, partition) = LOGS[log];
        if !self.is_there(topic) {
            return Ok(());
        }
        let log = self.store().log(topic, partition as u32).map_err(|e| e.to_string())?;
        let start = log.offsets().log_start_offset;
        let log_model = self.model.log_mut(topic, partition);
        let to = (log_model.end() - i64::from(back)).max(start.0);
        let floor = log_model.batch_start(to);
        if floor < start.0 {
            return Ok(());
        }
        self.begin("truncate", |model| {
            let log = model.log_mut(topic, partition);
            log.durable = log.durable.min(floor);
        });
        let outcome = log.truncate_to(Offset(to));
        let Some(end) = self.outcome("truncate", outcome)? else { return Ok(()) };
        if end != floor {
            return Err(format!("truncating to {to} answers {end}, the batch begins at {floor}"));
        }
        let log_model = self.model.log_mut(topic, partition);
        if end < log_model.end() && log.leader_epoch() <= log_model.epoch_max {
            return Err(format!("a truncation goes on in epoch {}", log.leader_epoch()));
        }
        self.end(|model| {
            model.clean = Clean::MustNot;
            let log = model.log_mut(topic, partition);
            log.durable = end.0;
            log.maybe.clear();
            log.interval_end = log.interval_end.min(end.0);
            Arc::make_mut(&mut log.records).truncate(end.0 as usize);
        });
        Ok(())
    }

    fn delete_records(&mut self, log: usize, keep: u16) -> Result<(), String> {
        let (topic, partition) = LOGS[log];
        if !self.is_there(topic) {
            return Ok(());
        }
        let log = self.store().log(topic, partition as u32).map_err(|e| e.to_string())?;
        let before = (self.model.log_mut(topic, partition).end() - i64::from(keep)).max(0);
        self.begin("delete records", |model| {
            let log = model.log_mut(topic, partition);
            log.start.1 = log.start.1.max(before);
        });
        let outcome = log.delete_records_before(Offset(before));
        let Some(start) = self.outcome("delete records", outcome)? else { return Ok(()) };
        if start < before {
            return Err(format!("deleting before {before} answers {start}"));
        }
        let high = log.offsets().log_start_offset;
        self.end(|model| {
            model.clean = Clean::MustNot;
            model.log_mut(topic, partition).start = (start.0, high.0);
        });
        Ok(())
    }

    fn create(&mut self, topic: usize) -> Result<(), String> {
        let spec = new_topic(topic);
        let name = spec.name.clone();
        if self.model.topics.contains_key(&name) {
            return Ok(());
        }
        let logs = vec![LogModel::new(); spec.partitions as usize];
        let created = TopicModel { presence: Presence::MaybeCreated, spec: spec.clone(), logs };
        self.begin("create topic", |model| drop(model.topics.insert(name.clone(), created)));
        let outcome = self.store().create_topic(&spec);
        if self.outcome("create topic", outcome)?.is_none() {
            return Ok(());
        }
        let mut ids = Vec::new();
        for partition in 0..spec.partitions {
            ids.push(self.store().log(&name, partition).map_err(|e| e.to_string())?.id());
        }
        self.end(|model| {
            model.clean = Clean::MustNot;
            model.has_checkpoint = true;
            let topic = model.topics.get_mut(&name).expect("just inserted");
            topic.presence = Presence::Present;
            for (log, id) in topic.logs.iter_mut().zip(ids) {
                log.id = id;
            }
        });
        Ok(())
    }

    fn delete(&mut self, topic: usize) -> Result<(), String> {
        let name = TOPICS[topic];
        if !self.is_there(name) {
            return Ok(());
        }
        self.begin("delete topic", |model| {
            model.kept.retain(|(path, _)| !path.starts_with(&format!("{name}-")));
            model.topics.get_mut(name).expect("it is there").presence = Presence::MaybeDeleted;
        });
        let outcome = self.store().delete_topic(name);
        if self.outcome("delete topic", outcome)?.is_some() {
            self.end(|model| {
                model.clean = Clean::MustNot;
                model.topics.remove(name);
            });
        }
        Ok(())
    }

    /// Closes cleanly and opens again.
    fn reopen(&mut self) -> Result<(), String> {
        self.close()?;
        if self.disk.is_dead() { Ok(()) } else { self.open() }
    }

    /// Closes the store, if it is open; it is not open on return, also if the close fails.
    pub fn close(&mut self) -> Result<(), String> {
        if self.store.is_none() {
            return Ok(());
        }
        self.begin("close", |_| {});
        // Where it may not have been closed before, a close that changes nothing makes no mark either.
        let before = self.model.clean;
        self.model.clean = Clean::May;
        self.mark();
        let store = self.store.take().expect("an open store");
        let outcome = store.close();
        if self.outcome("close", outcome)?.is_some() {
            let may = before == Clean::May || self.disk.fault_hit();
            self.model.clean = if may { Clean::May } else { Clean::Must };
            for log in self.model.logs_in_use() {
                log.durable = log.end();
            }
            self.mark();
        }
        Ok(())
    }

    /// As `append_everywhere`, but for logs that a failed write or flush has made read-only until they are opened
    /// again.
    pub fn append_everywhere_but_failed(&mut self) -> Result<(), String> {
        for (log, (topic, partition)) in LOGS.into_iter().enumerate() {
            if !self.is_there(topic) {
                continue;
            }
            let Ok(found) = self.store().log(topic, partition as u32) else { continue };
            if matches!(found.flush(), Err(Error::PreviousIo { .. })) {
                continue;
            }
            self.apply(&Op::Append { log, records: 1, len: 60, durability: Durability::Sync, concurrent: false })?;
        }
        Ok(())
    }

    /// Every log takes an append at once, and gives it back.
    pub fn append_everywhere(&mut self) -> Result<(), String> {
        for log in 0..LOGS.len() {
            let op = Op::Append { log, records: 1, len: 60, durability: Durability::Sync, concurrent: false };
            self.apply(&op)?;
        }
        Ok(())
    }
}

/// A workload in which everything happens, at every level, with rolls.
pub fn everything(seed: u64, count: usize) -> Vec<Op> {
    let mut rng = Rng::new(seed);
    let mut ops: Vec<Op> = (0..TOPICS.len()).map(|topic| Op::Create { topic }).collect();
    // A burst counts by its appends: each of them is cut at its own effects.
    let mut appended = 0;
    while ops.len() + appended < count {
        ops.push(random_op(&mut rng));
        if let Some(Op::Burst { appends, .. }) = ops.last() {
            appended += usize::from(*appends) - 1;
        }
        if matches!(ops.last(), Some(Op::Delete { topic }) if rng.chance(80) && *topic < 3) {
            let Some(Op::Delete { topic }) = ops.last().cloned() else { continue };
            ops.push(Op::Create { topic });
        }
    }
    ops
}

pub fn random_op(rng: &mut Rng) -> Op {
    const DURABILITIES: [Durability; 5] =
        [Durability::Sync, Durability::Os, Durability::Os, Durability::Interval, Durability::Sync];
    // One log is busy, so that it rolls.
    let log = if rng.chance(50) { rng.below(2) } else { rng.below(LOGS.len()) };
    match rng.below(100) {
        0..3 => Op::Burst { log, appends: 2 + rng.below(11) as u8 },
        3..70 => {
            // A batch fits into a segment.
            let (records, len) =
                [(1, 10), (1, 100), (1, 420), (1, 1500), (3, 40), (3, 700), (8, 20), (8, 300)][rng.below(8)];
            Op::Append { log, records, len, durability: DURABILITIES[rng.below(5)], concurrent: rng.chance(30) }
        }
        70..76 => Op::Tick { advance: [0, 5, FLUSH_MS, FLUSH_MS, 2000][rng.below(5)] },
        76..80 => Op::Flush { log },
        80..82 => Op::FlushAll,
        82..87 => Op::Truncate { log, back: [1, 2, 5, 20, 60][rng.below(5)] },
        87..91 => Op::DeleteRecords { log, keep: [0, 3, 10, 30][rng.below(4)] },
        91..93 => Op::Delete { topic: rng.below(3) },
        93..96 => Op::Create { topic: rng.below(3) },
        96..99 => Op::Reopen,
        _ => {
            // A device without a clock begins in 1970; it finds one, loses it again, or gets a wrong year.
            const YEAR: i64 = 365 * 86_400_000;
            Op::Clock { to: [0, YEAR, TIME_BASE, TIME_BASE, TIME_BASE + YEAR, TIME_BASE + 10_000][rng.below(6)] }
        }
    }
}

/// Who is there while a batch is appended: a reader that looks whether it sees anything too early, and an appender
/// whose batch comes while the flush for the other one is under way.
struct Bystander {
    log: Log,
    rec: Rec,
    end: i64,
    /// The end once the batch under way is in the log.
    end_after: i64,
    seen: Arc<Mutex<Result<ConcurrentAppend, String>>>,
}

/// What became of the bystander's own append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConcurrentAppend {
    NotTried,
    Failed,
    Appended { epoch: i32 },
}

impl Bystander {
    fn new(log: &Log, rec: Rec, records: usize) -> Bystander {
        let end = log.offsets().log_end_offset;
        Bystander {
            log: log.clone(),
            rec,
            end: end.0,
            end_after: (end + records as i64).0,
            seen: Arc::new(Mutex::new(Ok(ConcurrentAppend::NotTried))),
        }
    }

    fn on(&self, disk: SimDisk) -> super::disk::Concurrent {
        let (log, rec, end, end_after, seen) =
            (self.log.clone(), self.rec, self.end, self.end_after, Arc::clone(&self.seen));
        Box::new(move |moment, path| {
            let mut seen = seen.lock().expect("one thread");
            if matches!(*seen, Ok(ConcurrentAppend::NotTried)) && path.starts_with(&log.name().to_string()) {
                *seen = look_in(&log, &disk, (moment, path), rec, end, end_after);
            }
        })
    }

    fn outcome(&self) -> Result<ConcurrentAppend, String> {
        self.seen.lock().expect("one thread").clone()
    }
}

fn look_in(
    log: &Log,
    disk: &SimDisk,
    (moment, path): (Moment, &str),
    rec: Rec,
    end: i64,
    end_after: i64,
) -> Result<ConcurrentAppend, String> {
    let offsets = log.offsets();
    match moment {
        Moment::HalfStored => {
            let options = ReaderOptions::default().up_to(ReadUpTo::LogEnd);
            let mut reader = log.reader_with(OffsetSpec::Offset(Offset(end)), options).map_err(|e| e.to_string())?;
            match reader.next_batch() {
                Ok(None) => Ok(ConcurrentAppend::NotTried),
                Ok(Some(batch)) => Err(format!("a reader is given offset {} half written", batch.base_offset())),
                Err(error) => Err(format!("a reader at the end meets {error} while a batch is written")),
            }
        }
        Moment::Flushing if offsets.high_watermark > end => {
            Err(format!("readers see {end} of a `Sync` append before its flush"))
        }
        Moment::Flushed if offsets.log_end_offset == end_after => {
            // Not where it would roll: that waits for the flush which this is a part of.
            let bytes = disk.snapshot().contents(&[path]).pop().map(|(_, bytes)| bytes).unwrap_or_default();
            let mut position = 0;
            while let Some(batch) = batch_at(&bytes, position) {
                position += batch.size;
            }
            let newest = disk
                .snapshot()
                .contents(&[".log"])
                .into_iter()
                .map(|(path, _)| path)
                .max_by_key(|other| (other.split('/').next() == path.split('/').next()).then(|| other.clone()));
            if newest.as_deref() != Some(path) || position + 200 > 4096 {
                return Ok(ConcurrentAppend::NotTried);
            }
            let value = rec.value();
            let record = NewRecord::value(&value).with_timestamp(TimestampMs(rec.time));
            match log.append_with(record, Durability::Os) {
                Ok(info) if info.base_offset == end_after => {
                    Ok(ConcurrentAppend::Appended { epoch: info.leader_epoch.0 })
                }
                Ok(info) => Err(format!("an append during another one, at the end {end_after}, answers {info:?}")),
                Err(_) if disk.is_dead() || disk.fault_hit() => Ok(ConcurrentAppend::Failed),
                Err(error) => Err(format!("an append during another one answers {error}")),
            }
        }
        _ => Ok(ConcurrentAppend::NotTried),
    }
}
