//! Share groups on the simulated disk, with a power cut at every effect, and a second one during the recovery.
//!
//! A process appends jobs, mostly below `Sync`, takes them and answers them in every way. It may be killed, and a flush
//! may fail. After a cut:
//!
//! * a job whose ACCEPT or REJECT was committed does not come again;
//! * a delivery count is not below what was committed;
//! * a durable job that was neither accepted nor rejected comes.
//!
//! This file is a part of the library's tests, since it needs the simulated disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edgelog_core::TimestampMs;

use super::{AckType, ShareConsumer};
use crate::clients::double_cuts::disk::{Core, Fault, Quirks, Rng, SimDisk};
use crate::clients::double_cuts::{Seen, schedules, verify_cuts};
use crate::clock::ManualClock;
use crate::{Durability, NewRecord, NewTopic, Store};

const TIME: i64 = 1_700_000_000_000;

#[derive(Debug, Clone, Copy, Default)]
struct Job {
    is_durable: bool,
    /// It may be done, and it is for certain.
    may_be_done: bool,
    is_done: bool,
    /// So often it was given back, as far as that is committed.
    deliveries: u16,
}

type Known = BTreeMap<u32, Job>;

struct World {
    disk: SimDisk,
    clock: ManualClock,
    processes: u32,
    running: Option<(SimDisk, Arc<Store>, Option<ShareConsumer>)>,
    known: Known,
    trail: Vec<Arc<Known>>,
    next: u32,
    commits: usize,
    failed: usize,
}

fn open(disk: SimDisk, clock: &ManualClock) -> crate::Result<Arc<Store>> {
    let options = Store::options().set("edgelog.housekeeping", "tick")?.clock(clock.clone());
    options.open_on(disk).map(Arc::new)
}

fn worker(store: &Arc<Store>, records: &str) -> crate::clients::group::Result<ShareConsumer> {
    let keys = [
        ("group.id", "g"),
        ("share.acknowledgement.mode", "explicit"),
        ("share.delivery.count.limit", "1000"),
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
        if let Some((disk, ..)) = &self.running {
            disk.kill_process(false);
        }
        self.running = None;
    }

    fn append(&mut self, store: &Store, rng: &mut Rng) {
        let Ok(log) = store.log("jobs", 0) else {
            let _ = store.create_topic(&NewTopic::new("jobs").config("retention.ms", "-1"));
            return;
        };
        self.next += 1;
        let durability = [Durability::Os, Durability::Sync][rng.below(2)];
        let is_appended = log.append_with(NewRecord::value(&self.next.to_be_bytes()), durability).is_ok();
        let job = Job { is_durable: is_appended && durability == Durability::Sync, ..Job::default() };
        self.known.insert(self.next, job);
        self.mark();
    }

    /// One poll, with every job answered in some way.
    fn work(&mut self, worker: &mut ShareConsumer, rng: &mut Rng) -> crate::clients::group::Result<()> {
        let records = worker.poll(Duration::ZERO)?;
        let mut answers = Vec::new();
        for record in records.iter() {
            let record = record?;
            let ack = [AckType::Accept, AckType::Accept, AckType::Release, AckType::Reject][rng.below(4)];
            worker.acknowledge(&record, ack)?;
            answers.push((number(record.value), ack, record.delivery_count()));
        }
        for (job, ack, _) in &answers {
            let job = self.known.entry(*job).or_default();
            job.may_be_done |= *ack != AckType::Release;
        }
        self.mark();
        worker.commit_sync()?;
        for (job, ack, count) in &answers {
            let job = self.known.entry(*job).or_default();
            job.is_done |= *ack != AckType::Release;
            job.deliveries = *count;
        }
        self.commits += answers.len();
        self.mark();
        Ok(())
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
            let opened = consumer.take().map_or_else(|| worker(&store, "3"), Ok);
            let Ok(worker) = opened.and_then(|mut worker| self.work(&mut worker, rng).map(|()| worker)) else {
                self.failed += 1;
                self.running = Some((disk, store, None));
                return self.kill();
            };
            consumer = Some(worker);
        }
        self.running = Some((disk, store, consumer));
    }
}

fn run(seed: u64) -> (Vec<(Core, Arc<Known>)>, usize, usize) {
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
    };
    world.mark();
    for _ in 0..25 + rng.below(40) {
        world.step(&mut rng);
    }
    world.mark();
    let cuts = disk.take_cuts().into_iter().map(|core| (core.clone(), Arc::clone(&world.trail[core.mark]))).collect();
    disk.kill();
    (cuts, world.commits, world.failed)
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
    for (job, Job { is_durable, may_be_done, is_done, deliveries }) in known {
        match found.get(job) {
            Some(_) if *is_done => return Err(format!("job {job} is done, and comes again")),
            Some(count) if count <= deliveries => {
                return Err(format!("job {job} has come {deliveries} times, and its count is {count}"));
            }
            None if *is_durable && !may_be_done => return Err(format!("job {job} does not come")),
            _ => {}
        }
    }
    Ok(worker)
}

/// Goes through so many schedules; `Err` is the first violation.
fn search(seeds: std::ops::Range<u64>) -> Result<(Seen, usize, usize), String> {
    let (mut seen, mut commits, mut failed) = (Seen::default(), 0, 0);
    for seed in seeds {
        let run = run(seed);
        commits += run.1;
        failed += run.2;
        verify_cuts(seed, &run.0, &mut seen, verify)?;
    }
    Ok((seen, commits, failed))
}

#[test]
fn what_a_share_group_has_committed_survives_every_double_cut() {
    let (Seen { cuts, images, disks }, commits, failed) = search(0..schedules(25, 1500)).unwrap();
    println!(
        "share groups: {} schedules, {cuts} cuts, {images} images, {disks} of them differ, {commits} answers",
        schedules(25, 1500)
    );
    assert!(commits > 0 && failed > 0, "{commits} answers, {failed} failures");
}

#[cfg(edgelog_canary)]
#[test]
fn every_known_bug_of_a_share_group_is_found() {
    crate::clients::double_cuts::find_each(crate::canary::Bug::SHARE, || search(0..schedules(25, 1500)));
}
