//! Share groups on the simulated disk, with a power cut at every effect, and a second one during the recovery.
//!
//! A process appends jobs, mostly below `Sync`, takes them and answers them in every way. It may be killed, and a flush
//! may fail. After a cut:
//!
//! * a job whose ACCEPT or REJECT was committed does not come again;
//! * a delivery count is not below what was committed;
//! * a durable job that was neither accepted nor set aside comes;
//! * a job that was set aside, since it was rejected or came too often, is in the dead letters, once; one that comes,
//!   or was accepted, is not.
//!
//! Half of the workers read in an attached process: their dead letters are in the group's own store.
//!
//! This file is a part of the library's tests, since it needs the simulated disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edgelog_core::{Header, TimestampMs};

use super::{AckType, ShareConsumer};
use crate::clients::DeadLetter;
use crate::clients::double_cuts::{Seen, schedules, verify_cuts};
use crate::clock::ManualClock;
use crate::testing::disk::{Core, Fault, Quirks, Rng, SimDisk};
use crate::{Durability, NewRecord, NewTopic, OffsetSpec, ReadUpTo, ReaderOptions, Store};

const TIME: i64 = 1_700_000_000_000;
const DELIVERIES: u16 = 3;
const DEAD_LETTERS: &str = "dlq.jobs";

#[derive(Debug, Clone, Copy, Default)]
struct Job {
    is_durable: bool,
    /// Its time was over when it was appended.
    is_expired: bool,
    may: Fate,
    /// What became of it for certain.
    is: Fate,
    /// So often it was given back, as far as that is committed.
    deliveries: u16,
}

/// What becomes of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fate {
    accepted: bool,
    set_aside: bool,
}

impl Fate {
    /// By an answer to its delivery of this number.
    fn by(self, ack: AckType, count: u16) -> Fate {
        let is_last = ack == AckType::Release && count >= DELIVERIES;
        Fate {
            accepted: self.accepted || ack == AckType::Accept,
            set_aside: self.set_aside || ack == AckType::Reject || is_last,
        }
    }

    fn is_done(self) -> bool {
        self.accepted || self.set_aside
    }
}

type Known = BTreeMap<u32, Job>;

struct World {
    disk: SimDisk,
    clock: ManualClock,
    processes: u32,
    running: Option<(SimDisk, Arc<Store>, Option<Worker>)>,
    known: Known,
    trail: Vec<Arc<Known>>,
    next: u32,
    commits: usize,
    failed: usize,
    set_aside: usize,
    attached: usize,
}

/// A consumer, and the process that it is in where that is attached.
struct Worker {
    consumer: ShareConsumer,
    attached: Option<SimDisk>,
}

fn open(disk: SimDisk, clock: &ManualClock) -> crate::Result<Arc<Store>> {
    let options = Store::options().set("edgelog.housekeeping", "tick")?.clock(clock.clone());
    options.open_on(disk).map(Arc::new)
}

fn worker(store: &Arc<Store>, records: &str) -> crate::clients::group::Result<ShareConsumer> {
    let keys = [
        ("group.id", "g"),
        ("share.acknowledgement.mode", "explicit"),
        ("share.delivery.count.limit", "3"),
        ("errors.deadletterqueue.topic.name", DEAD_LETTERS),
        ("max.poll.records", records),
    ];
    let options = keys.iter().try_fold(ShareConsumer::options(), |options, (key, value)| options.set(key, value))?;
    let mut worker = options.open(store)?;
    worker.subscribe(&["jobs"])?;
    Ok(worker)
}

fn number(value: Option<&[u8]>) -> u32 {
    let bytes = value.and_then(|value| value.first_chunk().copied());
    bytes.map(u32::from_be_bytes).expect("a job has its number")
}

impl World {
    fn mark(&mut self) {
        self.disk.set_mark(self.trail.len());
        self.trail.push(Arc::new(self.known.clone()));
        self.disk.cut_here();
    }

    fn kill(&mut self) {
        if let Some((disk, _, worker)) = &self.running {
            disk.kill_process(false);
            worker.iter().filter_map(|worker| worker.attached.as_ref()).for_each(|disk| disk.kill_process(false));
        }
        self.running = None;
    }

    /// A worker, in this process or in one that is attached.
    fn hire(&mut self, store: &Arc<Store>, rng: &mut Rng) -> Result<Worker, ()> {
        if rng.chance(50) {
            let consumer = worker(store, "3").map_err(drop)?;
            return Ok(Worker { consumer, attached: None });
        }
        self.processes += 1;
        let disk = self.disk.process(self.processes);
        let options = Store::options().clock(self.clock.clone());
        let opened = options.attach_on(disk.clone()).map(Arc::new).map_err(drop);
        let hired = opened.and_then(|store| worker(&store, "3").map_err(drop));
        if hired.is_err() {
            disk.kill_process(false);
        }
        Ok(Worker { consumer: hired?, attached: Some(disk) })
    }

    fn append(&mut self, store: &Store, rng: &mut Rng) {
        let Ok(log) = store.log("jobs", 0) else {
            let _ = store.create_topic(&NewTopic::new("jobs").config("retention.ms", "-1"));
            return;
        };
        self.next += 1;
        let durability = [Durability::Os, Durability::Sync][rng.below(2)];
        let (is_expired, deadline) = (rng.chance(10), (TIME - 1).to_string());
        let headers = [Header::new("edgelog.deadline", deadline.as_bytes())];
        let value = self.next.to_be_bytes();
        let record = NewRecord::value(&value).with_headers(&headers[..usize::from(is_expired)]);
        let is_appended = log.append_with(record, durability).is_ok();
        let may = Fate { set_aside: is_expired, ..Fate::default() };
        let is_durable = is_appended && durability == Durability::Sync;
        let job = Job { is_durable, is_expired, may, ..Job::default() };
        self.known.insert(self.next, job);
        self.mark();
    }

    /// What may become of jobs that are given back without an answer: their last delivery sets them aside.
    fn may_be_dropped(&mut self, jobs: &[(u32, u16)]) {
        for (job, count) in jobs {
            let job = self.known.entry(*job).or_default();
            job.may = job.may.by(AckType::Release, *count);
        }
        self.mark();
    }

    /// One poll, with every job answered in some way, or dropped with the worker.
    fn work(&mut self, mut hired: Worker, rng: &mut Rng) -> crate::clients::group::Result<Option<Worker>> {
        let worker = &mut hired.consumer;
        let records = worker.poll(Duration::ZERO)?;
        if rng.chance(10) {
            let jobs = records.iter().map(|record| record.map(|it| (number(it.value), it.delivery_count())));
            let jobs = jobs.collect::<Result<Vec<_>, _>>()?;
            self.may_be_dropped(&jobs);
            drop(hired);
            return Ok(None);
        }
        let mut answers = Vec::new();
        for record in records.iter() {
            let record = record?;
            let ack = [AckType::Accept, AckType::Accept, AckType::Release, AckType::Reject][rng.below(4)];
            worker.acknowledge(&record, ack)?;
            answers.push((number(record.value), ack, record.delivery_count()));
        }
        for (job, ack, count) in &answers {
            let job = self.known.entry(*job).or_default();
            // Where the commit fails, the worker is dropped and gives them back.
            job.may = job.may.by(*ack, *count).by(AckType::Release, *count);
        }
        self.mark();
        worker.commit_sync()?;
        for (job, ack, count) in &answers {
            let job = self.known.entry(*job).or_default();
            job.is = job.is.by(*ack, *count);
            job.deliveries = *count;
            self.set_aside += usize::from(job.is.set_aside);
        }
        self.commits += answers.len();
        self.attached += usize::from(hired.attached.is_some() && !answers.is_empty());
        self.mark();
        Ok(Some(hired))
    }

    fn step(&mut self, rng: &mut Rng) {
        if rng.chance(4) {
            self.disk.fail_in(rng.below(4) as u64, Fault::Flush);
        }
        if rng.chance(5) {
            self.kill();
        }
        let Some((disk, store, consumer)) = self.running.take() else {
            self.processes += 1;
            let disk = self.disk.process(self.processes);
            if let Ok(store) = open(disk.clone(), &self.clock) {
                self.running = Some((disk, store, None));
            }
            return;
        };
        let mut consumer = if rng.chance(5) { None } else { consumer };
        if rng.chance(45) {
            self.append(&store, rng);
        } else {
            let hired = consumer.take().map_or_else(|| self.hire(&store, rng), Ok);
            let Ok(worker) = hired.and_then(|hired| self.work(hired, rng).map_err(drop)) else {
                self.failed += 1;
                self.running = Some((disk, store, None));
                return self.kill();
            };
            consumer = worker;
        }
        self.running = Some((disk, store, consumer));
    }
}

fn run(seed: u64) -> (Vec<(Core, Arc<Known>)>, [usize; 4]) {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(Quirks::default());
    disk.record();
    let mut world = World {
        disk: disk.clone(),
        clock: ManualClock::new(TimestampMs(TIME)),
        processes: 0,
        running: None,
        known: Known::new(),
        trail: Vec::new(),
        next: 0,
        commits: 0,
        failed: 0,
        set_aside: 0,
        attached: 0,
    };
    world.mark();
    for _ in 0..25 + rng.below(40) {
        world.step(&mut rng);
    }
    world.mark();
    let cuts = disk.take_cuts().into_iter().map(|core| (core.clone(), Arc::clone(&world.trail[core.mark]))).collect();
    disk.kill();
    (cuts, [world.commits, world.failed, world.set_aside, world.attached])
}

/// How often each job is in the dead letters of a store.
fn count_dead_letters(store: &Store, found: &mut BTreeMap<u32, usize>) -> Result<(), String> {
    let Ok(log) = store.log(DEAD_LETTERS, 0) else { return Ok(()) };
    let options = ReaderOptions::default().up_to(ReadUpTo::LogEnd);
    let mut reader = log.reader_with(OffsetSpec::Earliest, options).map_err(|error| error.to_string())?;
    while let Some(batch) = reader.next_batch().map_err(|error| format!("dead letters: {error}"))? {
        for record in batch.records().map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            DeadLetter::parse(&record).ok_or("not a dead letter")?;
            *found.entry(number(record.value)).or_default() += 1;
        }
    }
    Ok(())
}

/// What a power cut has left, against what is known.
fn verify(disk: &SimDisk, known: &Known) -> Result<ShareConsumer, String> {
    let clock = ManualClock::new(TimestampMs(TIME));
    let store = open(disk.clone(), &clock).map_err(|error| format!("open: {error}"))?;
    let mut worker = worker(&store, "4000").map_err(|error| format!("the group: {error}"))?;
    let records = worker.poll(Duration::ZERO).map_err(|error| format!("poll: {error}"))?;
    let mut found = BTreeMap::new();
    for record in records.iter() {
        let record = record.map_err(|error| error.to_string())?;
        found.insert(number(record.value), record.delivery_count());
    }
    let mut dead = BTreeMap::new();
    count_dead_letters(&store, &mut dead)?;
    let nested = store.storage().nested("groups/g").map_err(|error| error.to_string())?;
    let own = Store::options().attach_shared(nested).map_err(|error| format!("the group's store: {error}"))?;
    count_dead_letters(&own, &mut dead)?;
    for (job, Job { is_durable, is_expired, may, is, deliveries }) in known {
        let is_dead = match dead.get(job) {
            Some(2..) => return Err(format!("job {job} is in the dead letters twice")),
            found => found.is_some(),
        };
        match found.get(job) {
            Some(_) if is.is_done() => return Err(format!("job {job} is done, and comes again")),
            Some(_) if *is_expired => return Err(format!("job {job} is expired, and comes")),
            Some(_) if is_dead => return Err(format!("job {job} is in the dead letters, and comes again")),
            Some(count) if count <= deliveries => {
                return Err(format!("job {job} has come {deliveries} times, and its count is {count}"));
            }
            None if is.set_aside && !is_dead => return Err(format!("job {job} is set aside, and no dead letter")),
            None if *is_durable && !may.is_done() => return Err(format!("job {job} does not come")),
            None if *is_durable && !may.accepted && !is_dead => {
                return Err(format!("job {job} does not come, and is no dead letter"));
            }
            _ if is_dead && !may.set_aside => return Err(format!("job {job} was not set aside, and is a dead letter")),
            _ if is_dead && is.accepted => return Err(format!("job {job} was accepted, and is a dead letter")),
            _ => {}
        }
    }
    Ok(worker)
}

/// Goes through so many schedules; `Err` is the first violation.
fn search(seeds: std::ops::Range<u64>) -> Result<(Seen, [usize; 4]), String> {
    let (mut seen, mut counts) = (Seen::default(), [0; 4]);
    for seed in seeds {
        let (cuts, of_one) = run(seed);
        counts.iter_mut().zip(of_one).for_each(|(all, one)| *all += one);
        verify_cuts(seed, &cuts, &mut seen, verify)?;
    }
    Ok((seen, counts))
}

#[test]
fn what_a_share_group_has_committed_survives_every_double_cut() {
    let (Seen { cuts, images, disks }, counts) = search(0..schedules(25, 1500)).unwrap();
    let [answers, failures, set_aside, attached] = counts;
    println!(
        "share groups: {} schedules, {cuts} cuts, {images} images, {disks} of them differ, {answers} answers, \
         {set_aside} set aside, {attached} commits of attached workers, {failures} failures",
        schedules(25, 1500)
    );
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[cfg(edgelog_canary)]
#[test]
fn every_known_bug_of_a_share_group_is_found() {
    crate::clients::double_cuts::find_each(crate::canary::Bug::SHARE, || search(0..schedules(25, 1500)));
}
