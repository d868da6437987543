//! The positions of a group on the simulated disk: what was committed is there after every power cut, and after a
//! second one during the recovery from the first.
//!
//! A writer appends to two logs, mostly below `Sync`. A group of consumers commits positions in them, forward and back,
//! hosted by the writer itself or by a process that is attached. Either process may be killed, and a flush may fail.
//! The power goes at every effect and whenever a commit was acknowledged, and then:
//!
//! * the position of each log is the last one that was acknowledged, or one that was being committed since;
//! * the log has the records before it, and the last of them is the one that was there when it was committed;
//! * the retention hold is not ahead of it;
//! * nothing is reported as damaged.
//!
//! This file is a part of the library's tests, since it needs the insides of a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgelog_core::{Offset, TimestampMs};

use super::{ConsumerError, Group, OffsetAndMetadata};
use crate::clients::double_cuts::{Seen, schedules, verify_cuts};
use crate::clock::ManualClock;
use crate::store::retention_holds::{GROUP, Stored, read_holder};
use crate::testing::disk::{Core, Fault, Quirks, Rng, SimDisk};
use crate::{Durability, Log, NewRecord, NewTopic, OffsetSpec, Store, TopicPartition};

const TIME: i64 = 1_700_000_000_000;
const TOPICS: [&str; 2] = ["a", "b"];

/// What is known of one log's position when the power goes.
#[derive(Debug, Clone, Default)]
struct Position {
    /// The last one that was acknowledged, and what the record before it says.
    acknowledged: Option<(Offset, Vec<u8>)>,
    /// What was being committed since.
    coming: Vec<(Offset, Vec<u8>)>,
}

type Known = BTreeMap<TopicPartition, Position>;

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    commits: usize,
    attached: usize,
    backward: usize,
    refused: usize,
    not_durable: usize,
}

struct World {
    disk: SimDisk,
    clock: ManualClock,
    processes: u32,
    writer: Option<(SimDisk, Arc<Store>)>,
    /// The group, with the process that it is in where that is attached.
    group: Option<(Option<SimDisk>, Arc<Store>, Group)>,
    known: Known,
    trail: Vec<Arc<Known>>,
    next: u32,
    counts: Counts,
}

fn options(clock: &ManualClock) -> crate::StoreOptions {
    Store::options().set("edgelog.housekeeping", "tick").unwrap().clock(clock.clone())
}

/// What the record before an offset says; empty at the log's beginning.
fn record_before(log: &Log, offset: Offset) -> Option<Vec<u8>> {
    if offset <= log.offsets().log_start_offset {
        return Some(Vec::new());
    }
    let mut reader = log.reader(OffsetSpec::Offset(offset - 1)).ok()?;
    let batch = reader.next_batch().ok()??;
    let record = batch.records().ok()?.next()?.ok()?;
    record.value.map(<[u8]>::to_vec)
}

impl World {
    fn mark(&mut self) {
        self.disk.set_mark(self.trail.len());
        self.trail.push(Arc::new(self.known.clone()));
        self.disk.cut_here();
    }

    fn process(&mut self) -> SimDisk {
        self.processes += 1;
        self.disk.process(self.processes)
    }

    fn open_writer(&mut self) {
        let disk = self.process();
        if let Ok(store) = options(&self.clock).open_on(disk.clone()) {
            self.writer = Some((disk, Arc::new(store)));
        }
    }

    fn kill_writer(&mut self, forgets: bool) {
        if let Some((disk, _)) = &self.writer {
            disk.kill_process(forgets);
        }
        if self.group.as_ref().is_some_and(|(own, ..)| own.is_none()) {
            self.group = None;
        }
        self.writer = None;
    }

    fn kill_group(&mut self) {
        if let Some((Some(disk), ..)) = &self.group {
            disk.kill_process(false);
        }
        self.group = None;
    }

    fn open_group(&mut self, is_attached: bool) {
        let opened = if is_attached {
            let disk = self.process();
            options(&self.clock).attach_on(disk.clone()).ok().map(|store| (Some(disk), Arc::new(store)))
        } else {
            self.writer.as_ref().map(|(_, store)| (None, Arc::clone(store)))
        };
        let Some((disk, store)) = opened else { return };
        match Group::open(&store, "g") {
            Ok(group) => self.group = Some((disk, store, group)),
            Err(_) => drop(disk.map(|disk| disk.kill_process(false))),
        }
    }

    fn append(&mut self, rng: &mut Rng) {
        let Some((_, store)) = &self.writer else { return self.open_writer() };
        let topic = TOPICS[rng.below(TOPICS.len())];
        let Ok(log) = store.log(topic, 0) else {
            let _ =
                store.create_topic(&NewTopic::new(topic).config("segment.bytes", "4096").config("retention.ms", "-1"));
            return;
        };
        self.next += 1;
        let value = [self.next.to_be_bytes().to_vec(), vec![7; [20, 400][rng.below(2)]]].concat();
        let durability = [Durability::Os, Durability::Os, Durability::Interval, Durability::Sync][rng.below(4)];
        let _ = log.append_with(NewRecord::value(&value), durability);
    }

    fn commit(&mut self, rng: &mut Rng) {
        let Some((own, store, group)) = &self.group else {
            return self.open_group(rng.chance(60));
        };
        let is_attached = own.is_some();
        let (group, mut offsets) = (group.clone(), Vec::new());
        for topic in TOPICS {
            let Ok(log) = store.log(topic, 0) else { continue };
            if rng.chance(30) {
                continue;
            }
            // What a reader sees: acknowledged to its appender, durable or not.
            let Ok(reader) = log.reader(OffsetSpec::Latest) else { continue };
            let end = reader.position().offset;
            let before = group.committed(log.name()).map_or(Offset(0), |at| at.offset);
            let back = rng.chance(25) && before > 1;
            let offset = if back { Offset(rng.below(before.0 as usize) as i64) } else { end };
            let Some(value) = record_before(&log, offset) else { continue };
            self.counts.backward += usize::from(offset < before);
            self.known.entry(log.name().clone()).or_default().coming.push((offset, value.clone()));
            offsets.push((log, OffsetAndMetadata::new(offset), value));
        }
        self.mark();
        let named: Vec<_> = offsets.iter().map(|(log, at, _)| (log, at.clone())).collect();
        match group.commit(&named) {
            Ok(()) => {
                for (log, at, value) in &offsets {
                    let position = self.known.get_mut(log.name()).expect("it is coming");
                    *position = Position { acknowledged: Some((at.offset, value.clone())), coming: Vec::new() };
                }
                self.counts.commits += usize::from(!offsets.is_empty());
                self.counts.attached += usize::from(!offsets.is_empty() && is_attached);
                self.mark();
            }
            Err(ConsumerError::NotDurable { .. }) => self.counts.not_durable += 1,
            Err(_) => {
                self.counts.refused += 1;
                // What the group's own log has now is seen when it is opened again.
                drop(group);
                self.kill_group_or_writer();
            }
        }
    }

    fn kill_group_or_writer(&mut self) {
        if self.group.as_ref().is_some_and(|(own, ..)| own.is_none()) {
            self.kill_writer(false);
        } else {
            self.kill_group();
        }
    }

    fn step(&mut self, rng: &mut Rng) {
        if rng.chance(4) {
            self.disk.fail_in(rng.below(4) as u64, Fault::Flush);
        }
        match rng.below(100) {
            0..40 => self.append(rng),
            40..80 => self.commit(rng),
            80..84 => {
                if let Some((_, store)) = &self.writer {
                    let _ = store.flush();
                }
            }
            84..88 => {
                let now = TimestampMs(TIME + i64::from(self.next) * 20_000);
                self.clock.set(now);
                if let Some((_, store)) = &self.writer {
                    let _ = store.tick(now);
                }
            }
            88..92 => self.kill_group(),
            92..96 => {
                // The group's handle closes it.
                self.group = None;
            }
            _ => self.kill_writer(rng.chance(50)),
        }
        let failed = |store: &Store| TOPICS.iter().any(|t| store.log(t, 0).is_ok_and(|log| log.failure().is_some()));
        if self.writer.as_ref().is_some_and(|(_, store)| failed(store)) && rng.chance(40) {
            self.kill_writer(rng.chance(70));
        }
    }
}

struct Run {
    cuts: Vec<(Core, Arc<Known>)>,
    counts: Counts,
}

fn run(seed: u64) -> Run {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new(Quirks::default());
    disk.record();
    let mut world = World {
        disk: disk.clone(),
        clock: ManualClock::new(TimestampMs(TIME)),
        processes: 0,
        writer: None,
        group: None,
        known: Known::new(),
        trail: Vec::new(),
        next: 0,
        counts: Counts::default(),
    };
    world.mark();
    world.open_writer();
    for _ in 0..25 + rng.below(40) {
        world.step(&mut rng);
    }
    world.mark();
    let cuts = disk.take_cuts().into_iter().map(|core| (core.clone(), Arc::clone(&world.trail[core.mark]))).collect();
    disk.kill();
    Run { cuts, counts: world.counts }
}

/// What a power cut has left, against what is known.
fn verify(disk: &SimDisk, known: &Known) -> Result<Group, String> {
    let clock = ManualClock::new(TimestampMs(TIME));
    let store = Arc::new(options(&clock).open_on(disk.clone()).map_err(|error| format!("open: {error}"))?);
    let group = Group::open(&store, "g").map_err(|error| format!("the group: {error}"))?;
    if !group.recovery().is_clean() {
        return Err(format!("the group was damaged: {}", group.recovery()));
    }
    let nested = store.storage().nested("groups/g").map_err(|error| error.to_string())?;
    let held = match read_holder(&*nested, GROUP).map_err(|error| error.to_string())? {
        Stored::Whole(held) => held.logs,
        Stored::Nothing => BTreeMap::new(),
        Stored::Damaged => return Err("the hold is damaged".into()),
    };
    for (name, Position { acknowledged, coming }) in known {
        let found = group.committed(name);
        let candidates: Vec<_> = acknowledged.iter().chain(coming).collect();
        let Some(at) = &found else {
            if acknowledged.is_some() {
                return Err(format!("{name}: {acknowledged:?} was acknowledged, and is gone"));
            }
            continue;
        };
        let values: Vec<_> =
            candidates.iter().filter(|(offset, _)| *offset == at.offset).map(|(_, value)| value).collect();
        if values.is_empty() {
            return Err(format!("{name}: the position is {}, which is none of {candidates:?}", at.offset));
        }
        let log = store.log(&name.topic, 0).map_err(|error| format!("{name}: {error}"))?;
        if at.log_id != Some(log.id()) {
            return Err(format!("{name}: the position is of another log"));
        }
        if at.offset > log.offsets().log_end_offset {
            return Err(format!("{name}: the position {} is ahead of the log's {:?}", at.offset, log.offsets()));
        }
        let here = record_before(&log, at.offset);
        if !values.iter().any(|value| Some(*value) == here.as_ref()) {
            return Err(format!("{name}: the record before the position {} is another one", at.offset));
        }
        match held.get(name) {
            Some(hold) if hold.offset <= at.offset => {}
            other => return Err(format!("{name}: the hold is {other:?}, and the position {}", at.offset)),
        }
    }
    Ok(group)
}

/// Goes through so many schedules; `Err` is the first violation.
fn search(seeds: std::ops::Range<u64>) -> Result<(Seen, Counts), String> {
    let (mut seen, mut all) = (Seen::default(), Counts::default());
    for seed in seeds {
        let run = run(seed);
        let Counts { commits, attached, backward, refused, not_durable } = run.counts;
        all.commits += commits;
        all.attached += attached;
        all.backward += backward;
        all.refused += refused;
        all.not_durable += not_durable;
        verify_cuts(seed, &run.cuts, &mut seen, verify)?;
    }
    Ok((seen, all))
}

#[test]
fn what_a_group_has_committed_survives_every_double_cut_and_is_never_ahead_of_its_log() {
    let (Seen { cuts, images, disks }, counts) = search(0..schedules(25, 1500)).unwrap();
    println!(
        "positions of a group: {} schedules, {cuts} cuts, {images} images, {disks} of them differ, {counts:?}",
        schedules(25, 1500)
    );
    assert!(counts.attached > 0 && counts.commits > counts.attached && counts.backward > 0, "{counts:?}");
    assert!(counts.refused > 0 && counts.not_durable > 0, "{counts:?}");
}

#[cfg(edgelog_canary)]
#[test]
fn every_known_bug_of_a_group_is_found() {
    crate::clients::double_cuts::find_each(crate::canary::Bug::GROUPS, || search(0..schedules(25, 1500)));
}
