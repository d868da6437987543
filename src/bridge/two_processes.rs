//! A writer and a bridge in two processes, on the simulated disk: what the bridge has sent survives every
//! power cut, and so does what its note has to say of it.
//!
//! The bridge's own code flushes what the writer has written, reads, collects, and writes its note; the cluster is a
//! map that loses nothing. Each takes turns with the other, also in the middle of a flush. Either process may be
//! killed, a flush of either may fail, and then the page cache may forget what the device never got. The power goes at
//! every effect and whenever something was sent or committed, and then:
//!
//! * every record that was ever sent is in the recovered log, at its offset, as it was sent, and the committed position
//!   is one of this log;
//! * the note that is read is the last one written, or one that was being written since;
//! * what the cluster has committed is in the note, as done or as intended; what the note calls done is committed.
//!
//! This file is a part of the library's tests, since it needs the bridge's insides.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgelog_core::{Offset, RecordBatch, TimestampMs};
use uuid::Uuid;

use super::accumulator::{DrainLimits, collect};
use super::committed_offset::CommittedOffset;
use super::config::BridgeConfig;
use super::ownership::{Ownership, check_ownership};
use super::partition_sender::PartitionSender;
use super::producer_header::Producer;
use super::progress_file::{LogProgress, ProgressFile};
use super::route::Target;
use super::sender_change::SenderChange;
use super::targets::InternalTopic as SideTopic;
use super::transaction_plan::{Kind, TransactionPlan};
use crate::clock::ManualClock;
use crate::kafka::CoordinatorKey;
use crate::storage::Storage;
use crate::store::failed_flushes::{BRIDGE_FILE, FailedFlushes};
use crate::{Durability, Log, NewRecord, NewTopic, OffsetSpec, Store, TopicPartition};

use crate::testing::disk::{Core, Fault, Image, LookedAt, Quirks, Rng, SimDisk};
use edgelog_testkit::on_every_processor;

const TIME: i64 = 1_700_000_000_000;
const TOPICS: [&str; 2] = ["a", "b"];
/// Long enough that a note takes more than one sector: only then can it be torn.
const REMOTE: &str = "a.name.that.is.long.enough.for.the.note.to.take.more.than.one.sector.so.that.each.of.its.files.\
                      can.be.torn.by.a.power.cut.which.comes.in.between.of.two";
const TOPIC_ID: Uuid = Uuid::from_u128(7);

/// What a bridge does wrong, to see that it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// The commit is asked for before the intent is durable.
    CommitFirst,
    /// The note says done before the cluster has answered.
    DoneFirst,
}

/// What the cluster has of one log.
#[derive(Debug, Clone, Default)]
struct Delivered {
    /// Every record that ever left the device, committed or not.
    sent: BTreeMap<Offset, Vec<u8>>,
    position: Option<CommittedOffset>,
}

type Entries = BTreeMap<TopicPartition, LogProgress>;

/// What is known when the power goes.
#[derive(Debug, Clone, Default)]
struct Known {
    cluster: BTreeMap<TopicPartition, Delivered>,
    /// What the note said when it was last written, and what was being written since.
    notes: Vec<Entries>,
    is_noted: bool,
    what: &'static str,
}

/// The bridge's process.
struct Process {
    disk: SimDisk,
    store: Store,
    progress: ProgressFile,
    failed: FailedFlushes,
    senders: Vec<PartitionSender>,
}

/// Everything but the writer.
struct Uplink {
    disk: SimDisk,
    process: Option<Process>,
    known: Known,
    trail: Vec<Arc<Known>>,
    rng: Rng,
    config: BridgeConfig,
    mistake: Mistake,
    epoch: i16,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    transactions: usize,
    records: usize,
    stopped: usize,
    beyond_checkpoint: usize,
    /// Flushes that failed for a bridge, and that the writer has resolved for it or for the next one.
    resolved: usize,
    /// Disks that a cut may leave and that differ, or what is known when it comes.
    disks: usize,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.transactions += other.transactions;
        self.records += other.records;
        self.stopped += other.stopped;
        self.beyond_checkpoint += other.beyond_checkpoint;
        self.resolved += other.resolved;
        self.disks += other.disks;
    }
}

fn name(topic: &str) -> TopicPartition {
    TopicPartition::new(topic, 0)
}

fn options(clock: &ManualClock) -> crate::StoreOptions {
    let options = Store::options().set("edgelog.housekeeping", "tick").unwrap().clock(clock.clone());
    // What the checkpoint names trails far behind.
    options.set("edgelog.checkpoint.interval.ms", "100000").unwrap()
}

fn number_of_process() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Uplink {
    fn mark(&mut self, what: &'static str) {
        self.known.what = what;
        self.disk.set_mark(self.trail.len());
        self.trail.push(Arc::new(self.known.clone()));
        self.disk.cut_here();
    }

    fn start(&mut self) -> Result<(), String> {
        let disk = self.disk.process(number_of_process());
        let Ok(store) = options(&ManualClock::new(TimestampMs(TIME))).attach_on(disk.clone()) else { return Ok(()) };
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let Ok(failed) = FailedFlushes::open(Arc::clone(&storage), BRIDGE_FILE) else { return Ok(()) };
        let Ok(progress) = ProgressFile::open(storage) else { return Ok(()) };
        if progress.is_damaged() && self.known.is_noted {
            return Err("a bridge that starts finds its note damaged".into());
        }
        self.process = Some(Process { disk, store, progress, failed, senders: Vec::new() });
        Ok(())
    }

    fn die(&mut self) {
        if let Some(process) = self.process.take() {
            process.disk.kill_process(false);
        }
    }

    /// The logs that there are by now, each where the cluster says, or where the note says that has the cluster's word.
    fn find_senders(&mut self) -> Result<(), String> {
        let by_note = self.rng.chance(30);
        let Some(process) = &mut self.process else { return Ok(()) };
        for topic in TOPICS {
            let name = name(topic);
            if process.senders.iter().any(|sender| *sender.name() == name) {
                continue;
            }
            let Ok(log) = process.store.log(topic, 0) else { continue };
            if process.store.lasting_ids().ok().and_then(|ids| ids.get(&name).copied()) != Some(log.id()) {
                continue;
            }
            let mut sender = PartitionSender::new(name.clone(), log, CoordinatorKey::Group("g".into()), REMOTE.into());
            sender.aim_at(Target { partition: 0, topic_id: TOPIC_ID });
            sender.inherit_failed_flush(&process.failed);
            let committed = self.known.cluster.get(&name).and_then(|delivered| delivered.position);
            let entry = process.progress.entries().get(&name);
            // The cluster has forgotten the position, and knows only the transaction that was intended.
            let noted = entry.and_then(|entry| match &entry.pending {
                Some(intent) if committed.is_some_and(|at| at.offset >= intent.to.offset) => Some(intent.to),
                _ => entry.acknowledged,
            });
            if noted != committed {
                return Err(format!("the note goes on at {noted:?}, the cluster at {committed:?}"));
            }
            let started = match if by_note { noted } else { committed } {
                Some(position) => match check_ownership(sender.log(), &position) {
                    Ok(Ownership::Ours) => sender.start_at(&position),
                    // As for damage: looked at again later.
                    Err(_) => continue,
                    Ok(other) => return Err(format!("a bridge that starts finds {position:?} to be {other:?}")),
                },
                None => sender.start_at_the_beginning(process.progress.began(&name, sender.log_start().log_id)),
            };
            if started.is_ok() {
                process.progress.hold(&name, REMOTE, sender.log_start());
                process.senders.push(sender);
            }
        }
        Ok(())
    }

    /// Whether the note was written; a bridge that cannot write it ends.
    fn write_progress(&mut self, pending: Vec<(TopicPartition, LogProgress)>) -> bool {
        let Some(mut entries) = self.process.as_ref().map(|process| process.progress.entries().clone()) else {
            return false;
        };
        for (log, entry) in &pending {
            // Where the log began stays until something is acknowledged.
            let began = entries.get(log).and_then(|before| before.began).filter(|_| entry.acknowledged.is_none());
            entries.insert(log.clone(), LogProgress { began, ..entry.clone() });
        }
        self.known.notes.push(entries.clone());
        self.mark("writing the note");
        let written =
            self.process.as_mut().is_some_and(|process| process.progress.write_before_commit(pending).is_ok());
        if written {
            (self.known.notes, self.known.is_noted) = (vec![entries], true);
            self.mark("the note is written");
        } else {
            self.die();
        }
        written
    }

    fn transact(&mut self) -> Result<(), String> {
        if self.process.is_none() {
            self.start()?;
        }
        self.find_senders()?;
        let Some(process) = &mut self.process else { return Ok(()) };
        let sides = SideTopic { partition: 0, batch_bytes_max: 1 << 20 };
        let sides = HashMap::from([("edgelog.losses".to_owned(), Ok(sides))]);
        let mut lent_logs = Vec::new();
        for (n, sender) in process.senders.iter_mut().enumerate() {
            let log = sender.log().clone();
            let had_failed = log.failed_flush().is_some();
            let before = log.offsets().recovery_point;
            let lent = sender.lend(n, Duration::ZERO, &mut process.failed);
            self.counts.beyond_checkpoint += usize::from(log.offsets().recovery_point > before);
            self.counts.resolved += usize::from(had_failed && log.failed_flush().is_none());
            let is_failed = self.disk.sees_flag(&log.name().to_string()).unwrap_or(false);
            self.counts.stopped += usize::from(is_failed && lent.is_none());
            let shows_more = log.offsets().log_end_offset > log.offsets().recovery_point;
            if is_failed && shows_more && lent.is_some() {
                return Err("a bridge goes on with a log whose writer has failed".into());
            }
            lent_logs.extend(lent);
        }
        let terms = DrainLimits {
            config: &self.config,
            internal: &sides,
            bytes_max: 16 << 10,
            request_bytes_max: 16 << 10,
            senders_max: usize::MAX,
            first: 0,
            now: TimestampMs(TIME),
            only: None,
        };
        let collected = collect(&mut lent_logs, &terms);
        let stopped: Vec<_> = lent_logs.into_iter().filter_map(|log| Some((log.sender, log.stopped?))).collect();
        for (n, change) in stopped {
            process.senders[n].apply(change);
        }
        for sender in &mut process.senders {
            // A minute later it is looked at again.
            if sender.end_pause().is_some() {
                let _ = sender.rewind();
            }
        }
        if collected.is_empty() { Ok(()) } else { self.send(&collected) }
    }

    fn send(&mut self, collected: &TransactionPlan) -> Result<(), String> {
        let process = self.process.as_mut().expect("it has collected");
        for piece in &collected.pieces {
            let delivered = self.known.cluster.entry(process.senders[piece.sender].name().clone()).or_default();
            if piece.kind != Kind::Records {
                continue;
            }
            let batch = RecordBatch::parse(&piece.wire).map_err(|error| format!("a piece: {error}"))?;
            let records = batch.records().map_err(|error| format!("records of a piece: {error}"))?;
            for (offset, record) in (piece.offsets.0.0..).map(Offset).zip(records) {
                let value = record.ok().and_then(|record| record.value).unwrap_or_default().to_vec();
                let before = delivered.sent.insert(offset, value.clone());
                if before.is_some_and(|before| before != value) {
                    return Err(format!("two records were sent as offset {offset}"));
                }
                self.counts.records += 1;
            }
        }
        self.epoch = self.epoch.wrapping_add(1);
        let producer = Producer { id: 1, epoch: self.epoch };
        let (mut positions, mut pending) = (Vec::new(), Vec::new());
        for log in &collected.logs {
            let mut entry = log.pending(producer, Some(((REMOTE.into(), 0), Offset(5))));
            if self.mistake == Mistake::DoneFirst {
                (entry.acknowledged, entry.pending) = (Some(log.to), None);
            }
            pending.push((log.name.clone(), entry));
            positions.push((log.name.clone(), log.to));
        }
        self.mark("sent");
        if self.mistake == Mistake::CommitFirst {
            self.commit(&positions);
        }
        if !self.write_progress(pending) {
            return Ok(());
        }
        // It dies, or cannot reach the cluster, which aborts what is open.
        if self.rng.chance(10) {
            self.die();
            return Ok(());
        }
        self.commit(&positions);
        self.counts.transactions += 1;
        if self.rng.chance(10) {
            self.die();
            return Ok(());
        }
        let process = self.process.as_mut().expect("it has written its note");
        for log in &collected.logs {
            let sender = &mut process.senders[log.sender];
            sender.apply(SenderChange::Committed(log.to));
            process.progress.acknowledge(sender.name(), sender.progress());
        }
        // When it has caught up.
        if self.rng.chance(40) {
            self.write_progress(Vec::new());
        }
        Ok(())
    }

    fn commit(&mut self, positions: &[(TopicPartition, CommittedOffset)]) {
        for (name, to) in positions {
            self.known.cluster.get_mut(name).expect("something was sent").position = Some(*to);
        }
        self.mark("committed");
    }
}

/// The writer's process, and what it has appended.
struct Writer {
    disk: SimDisk,
    clock: ManualClock,
    store: Option<Store>,
    next: Arc<AtomicU32>,
}

fn append(log: &Log, next: &AtomicU32, len: usize, durability: Durability) -> crate::Result<()> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    let mut value = vec![number as u8; len];
    value[..4].copy_from_slice(&number.to_be_bytes());
    log.append_with(NewRecord::value(&value).with_timestamp(TimestampMs(TIME + i64::from(number))), durability)
        .map(drop)
}

impl Writer {
    /// Where a fault meets it, the next try opens the store.
    fn open(&mut self) {
        self.disk = self.disk.process(number_of_process());
        self.store = options(&self.clock).open_on(self.disk.clone()).ok();
    }

    /// One random call, and its result is ignored. If the log fails, the process is started again, sometimes later.
    fn step(&mut self, rng: &mut Rng, delivered: &BTreeMap<TopicPartition, Delivered>) {
        let Some(store) = &self.store else { return self.open() };
        let topic = TOPICS[rng.below(TOPICS.len())];
        let Ok(log) = store.log(topic, 0) else {
            let topic = NewTopic::new(topic).config("segment.bytes", "4096").config("retention.ms", "-1");
            let _ = store.create_topic(&topic);
            return;
        };
        match rng.below(100) {
            0..70 => {
                let durability = [Durability::Os, Durability::Os, Durability::Interval, Durability::Sync][rng.below(4)];
                let _ = append(&log, &self.next, [20, 100, 420, 1400][rng.below(4)], durability);
            }
            70..76 => drop(log.flush()),
            76..86 => {
                self.clock.set(TimestampMs(TIME + i64::from(self.next.load(Ordering::Relaxed)) * 100));
                let _ = store.tick(TimestampMs(TIME + i64::from(self.next.load(Ordering::Relaxed)) * 100));
            }
            86..90 => {
                let position = delivered.get(&name(topic)).and_then(|delivered| delivered.position);
                let _ = log.delete_records_before(Offset(position.map_or(0, |at| at.offset.0) - rng.below(9) as i64));
            }
            90..94 => {
                let closed = store.close();
                self.store = None;
                if closed.is_err() {
                    self.disk.kill_process(rng.chance(50));
                }
            }
            _ => self.kill(rng.chance(50)),
        }
        let failed =
            |store: &Store| TOPICS.iter().any(|topic| store.log(topic, 0).is_ok_and(|l| l.failure().is_some()));
        if self.store.as_ref().is_some_and(failed) && rng.chance(30) {
            self.kill(rng.chance(70));
        }
    }

    fn kill(&mut self, forgets: bool) {
        self.disk.kill_process(forgets);
        self.store = None;
    }
}

struct Run {
    cuts: Vec<(Core, Arc<Known>)>,
    counts: Counts,
}

/// One schedule of both processes, from one seed, with a snapshot of the disk wherever the power may go.
fn run(seed: u64, mistake: Mistake) -> Result<Run, String> {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(Quirks::default());
    disk.record();
    let mut config = BridgeConfig::default();
    config.set("edgelog.device.id", "d").unwrap();
    let uplink = Uplink {
        disk: disk.clone(),
        process: None,
        known: Known { notes: vec![Entries::new()], ..Known::default() },
        trail: Vec::new(),
        rng: Rng::new(seed + 1),
        config,
        mistake,
        epoch: 0,
        counts: Counts::default(),
    };
    let uplink = Arc::new(Mutex::new(uplink));
    uplink.lock().unwrap().mark("nothing yet");
    let next = Arc::new(AtomicU32::new(1));
    let mut writer =
        Writer { disk: disk.clone(), clock: ManualClock::new(TimestampMs(TIME)), store: None, next: Arc::clone(&next) };
    writer.open();
    let found = Arc::new(Mutex::new(Ok(())));
    for _ in 0..25 + rng.below(40) {
        if rng.chance(6) {
            disk.fail_in(rng.below(4) as u64, Fault::Flush);
        }
        if rng.chance(35) {
            // The writer goes on while the bridge flushes.
            let logs: Vec<Log> =
                writer.store.iter().flat_map(|s| TOPICS.iter().filter_map(|t| s.log(t, 0).ok())).collect();
            let next = Arc::clone(&next);
            let mut left = rng.below(3);
            disk.concurrent(Some(Box::new(move |_, path| {
                let log = logs.iter().find(|log| path.starts_with(&log.name().to_string()));
                if let (Some(log), 1..) = (log, left) {
                    left -= 1;
                    let _ = append(log, &next, 60, Durability::Os);
                }
            })));
            let sent = uplink.lock().unwrap().transact();
            disk.concurrent(None);
            sent?;
        } else {
            // The bridge goes on while the writer writes and flushes.
            let delivered = uplink.lock().unwrap().known.cluster.clone();
            if rng.chance(30) {
                let (uplink, found) = (Arc::clone(&uplink), Arc::clone(&found));
                disk.concurrent(Some(Box::new(move |_, _| {
                    let sent = uplink.lock().unwrap().transact();
                    if sent.is_err() {
                        *found.lock().unwrap() = sent;
                    }
                })));
            }
            writer.step(&mut rng, &delivered);
            disk.concurrent(None);
            found.lock().unwrap().clone()?;
        }
        if rng.chance(3) {
            uplink.lock().unwrap().die();
        }
    }
    let mut uplink = uplink.lock().unwrap();
    uplink.mark("the end");
    let cuts = disk.take_cuts().into_iter().map(|core| (core.clone(), Arc::clone(&uplink.trail[core.mark]))).collect();
    disk.kill();
    uplink.process = None;
    Ok(Run { cuts, counts: uplink.counts })
}

/// What a power cut has left, against what is known.
fn verify(left: Core, known: &Known) -> Result<(), String> {
    let disk = SimDisk::from_core(left);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let progress = ProgressFile::open(storage).map_err(|error| format!("the note: {error}"))?;
    if progress.is_damaged() && known.is_noted {
        return Err("the note is damaged".into());
    }
    if !known.notes.contains(progress.entries()) {
        return Err(format!("the note is none of the last: {:?}, not of {:?}", progress.entries(), known.notes));
    }
    for (log, Delivered { position, .. }) in &known.cluster {
        let entry = progress.entries().get(log);
        let done = entry.and_then(|entry| entry.acknowledged);
        let intended = entry.and_then(|entry| entry.pending.as_ref()).map(|intent| intent.to);
        if done != *position && intended != *position {
            return Err(format!("the cluster has committed {position:?}, and the note has {done:?} and {intended:?}"));
        }
        if done.map(|done| done.offset) > position.map(|position| position.offset) {
            return Err(format!("the note calls {done:?} done, and the cluster has {position:?}"));
        }
    }
    let store = options(&ManualClock::new(TimestampMs(TIME)))
        .open_on(disk.clone())
        .map_err(|error| format!("open: {error}"))?;
    for (log_name, Delivered { sent, position }) in &known.cluster {
        let Some((&first, _)) = sent.first_key_value() else { continue };
        let gone = |error: crate::Error| format!("{log_name}, of which records were sent: {error}");
        let log = store.log(&log_name.topic, 0).map_err(gone)?;
        let start = log.offsets().log_start_offset;
        let mut here = BTreeMap::new();
        let mut reader = log.reader(OffsetSpec::Offset(start.max(first))).map_err(gone)?;
        while let Some(batch) = reader.next_batch().map_err(gone)? {
            for record in batch.records().map_err(gone)? {
                let record = record.map_err(gone)?;
                here.insert(record.offset, record.value.unwrap_or_default().to_vec());
            }
        }
        for (offset, value) in sent.range(start..) {
            match here.get(offset) {
                None => return Err(format!("offset {offset} was sent and is gone")),
                Some(found) if found != value => return Err(format!("offset {offset} was sent and is another one")),
                Some(_) => {}
            }
        }
        if let Some(position) = position {
            let verdict = check_ownership(&log, position).map_err(gone)?;
            if verdict != Ownership::Ours {
                return Err(format!("the committed {position:?} is {verdict:?}"));
            }
        }
    }
    disk.kill();
    Ok(())
}

/// Goes through so many schedules; `Err` is the first violation.
fn search(seeds: std::ops::Range<u64>, mistake: Mistake) -> Result<(usize, usize, Counts), String> {
    let (mut cuts, mut images, mut all) = (0, 0, Counts::default());
    for seed in seeds {
        let run = run(seed, mistake).map_err(|what| format!("seed {seed}: {what}"))?;
        all.add(&run.counts);
        let mut looked_at = LookedAt::nothing();
        for (n, (core, known)) in run.cuts.iter().enumerate() {
            cuts += 1;
            let chosen = Image::CHOSEN[(n + seed as usize) % Image::CHOSEN.len()];
            for image in [Image::AllLost, chosen, Image::Random(seed * 10_000 + n as u64)] {
                images += 1;
                let left = core.image(image);
                if !looked_at.is_new(known, &left) {
                    continue;
                }
                all.disks += 1;
                verify(left, known)
                    .map_err(|what| format!("seed {seed}, cut {n}, {}, {image:?}: {what}", known.what))?;
            }
        }
    }
    Ok((cuts, images, all))
}

/// The same, shared among the machine's processors.
fn search_together(count: u64) -> Result<(usize, usize, Counts), String> {
    let begins = |n: usize, of: usize| count * n as u64 / of as u64;
    let found = on_every_processor(|n, of| search(begins(n, of)..begins(n + 1, of), Mistake::None));
    let mut all = (0, 0, Counts::default());
    for share in found {
        let (cuts, images, counts) = share?;
        all.0 += cuts;
        all.1 += images;
        all.2.add(&counts);
    }
    Ok(all)
}

fn schedules() -> u64 {
    let wanted = std::env::var("EDGELOG_CRASH_SCHEDULES").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(if cfg!(debug_assertions) { 60 } else { 1500 })
}

#[test]
fn what_a_bridge_in_another_process_has_sent_survives_every_cut() {
    let (cuts, images, counts) = search_together(schedules()).unwrap();
    println!("a bridge next to the writer: {} schedules, {cuts} cuts, {images} images, {counts:?}", schedules());
    assert!(counts.transactions > 0 && counts.stopped > 0 && counts.beyond_checkpoint > 0, "{counts:?}");
    assert!(counts.resolved > 0, "{counts:?}");
}

#[test]
fn a_bridge_that_commits_or_notes_too_early_is_found_out() {
    for mistake in [Mistake::CommitFirst, Mistake::DoneFirst] {
        let found = search(0..schedules(), mistake).expect_err("it is wrong");
        println!("{mistake:?}: {found}");
    }
}

#[cfg(edgelog_canary)]
#[test]
fn every_known_bug_of_two_processes_is_found() {
    use crate::canary::{Bug, switch_on};
    let mut missed = Vec::new();
    for &bug in Bug::IN_TWO_PROCESSES {
        switch_on(Some(bug));
        match search(0..schedules(), Mistake::None) {
            Err(found) => println!("{bug:?}: {}", found.chars().take(200).collect::<String>()),
            Ok(_) => missed.push(bug),
        }
        switch_on(None);
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
