//! Named producers on the simulated disk: what is sent again is there once after every power cut, and after a second
//! one during the recovery from the first; and nothing that was acknowledged is lost.
//!
//! A named producer sends records with rising numbers to two partitions, between plain records, with `acks` 1 or all.
//! Now and then it sends again what it sent. Retention deletes its last batches. The process is killed, the producer is
//! opened again next to its older one, and a flush may fail. The power goes at every effect and whenever a record was
//! acknowledged, and then:
//!
//! * a record that was acknowledged is at its offset, or was deleted by retention;
//! * a producer of the name that is opened then has an epoch that none had before;
//! * everything that was sent is sent again: nothing that was acknowledged is appended again, and each number is there
//!   once, in rising order.
//!
//! This file is a part of the library's tests, since it needs the insides of a store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgelog_core::{Offset, TimestampMs};

use crate::clients::double_cuts::{Seen, schedules, verify_cuts};
use crate::clients::{Producer, ProducerError, ProducerRecord, RecordMetadata};
use crate::clock::ManualClock;
use crate::testing::disk::{Core, Fault, Quirks, Rng, SimDisk};
use crate::{Durability, Log, NewRecord, NewTopic, OffsetSpec, ReadUpTo, ReaderOptions, Store};

const TIME: i64 = 1_700_000_000_000;
const PARTITIONS: u32 = 2;
/// What a plain record begins with; numbers are below.
const PLAIN: i64 = i64::MAX;

/// What is known of one partition when the power goes.
#[derive(Debug, Clone, Default)]
struct Partition {
    /// All numbers that were sent, in order.
    sent: BTreeSet<i64>,
    /// Those that were acknowledged, with their offsets where these are known.
    acknowledged: BTreeMap<i64, Option<Offset>>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    partitions: [Partition; PARTITIONS as usize],
    /// The newest id and epoch that a producer was given.
    newest: Option<(i64, i16)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    sent: usize,
    repeated: usize,
    without_offset: usize,
    jumps: usize,
    fenced: usize,
    failed: usize,
    deleted: usize,
}

struct World {
    disk: SimDisk,
    clock: ManualClock,
    processes: u32,
    store: Option<(SimDisk, Arc<Store>)>,
    producer: Option<Producer>,
    older: Option<Producer>,
    known: Known,
    trail: Vec<Arc<Known>>,
    plain: i64,
    counts: Counts,
}

fn options(clock: &ManualClock) -> crate::StoreOptions {
    Store::options().set("edgelog.housekeeping", "tick").unwrap().clock(clock.clone())
}

fn open_producer(store: &Arc<Store>, acks: &str) -> Result<Producer, ProducerError> {
    let builder = Producer::builder(store).set("edgelog.producer.name", "p")?.set("acks", acks)?;
    builder.set("linger.ms", "0")?.set("allow.auto.create.topics", "false")?.open()
}

fn send(producer: &Producer, partition: u32, number: i64, len: usize) -> Result<RecordMetadata, ProducerError> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(8 + len, 7);
    let record = ProducerRecord::new("t", &value).with_partition(partition).with_source_offset(Offset(number));
    producer.send(record)?.wait()
}

/// The numbers of the named producer's records, by offset.
fn numbers(log: &Log) -> Result<BTreeMap<Offset, i64>, String> {
    let options = ReaderOptions::default().up_to(ReadUpTo::LogEnd);
    let mut reader = log.reader_with(OffsetSpec::Earliest, options).map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    while let Some(batch) = reader.next_batch().map_err(|error| error.to_string())? {
        for record in batch.records().map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let number = record.value.and_then(|value| value.first_chunk()).map_or(PLAIN, |it| i64::from_be_bytes(*it));
            if number != PLAIN {
                found.insert(record.offset, number);
            }
        }
    }
    Ok(found)
}

impl World {
    fn mark(&mut self) {
        self.disk.set_mark(self.trail.len());
        self.trail.push(Arc::new(self.known.clone()));
        self.disk.cut_here();
    }

    fn open(&mut self) {
        self.processes += 1;
        let disk = self.disk.process(self.processes);
        let Ok(store) = options(&self.clock).open_on(disk.clone()) else { return disk.kill_process(false) };
        let topic = NewTopic::new("t").partitions(PARTITIONS).config("segment.bytes", "4096");
        // May fail with a flush.
        let _ = store.create_topic_if_absent(&topic.config("retention.bytes", "4096"));
        self.store = Some((disk, Arc::new(store)));
    }

    fn kill(&mut self, forgets: bool) {
        if let Some((disk, _)) = &self.store {
            disk.kill_process(forgets);
        }
        (self.producer, self.older) = (None, None);
        self.store = None;
    }

    fn open_producer(&mut self, rng: &mut Rng) -> Result<(), String> {
        let Some((_, store)) = &self.store else {
            self.open();
            return Ok(());
        };
        let store = Arc::clone(store);
        let Ok(producer) = open_producer(&store, ["1", "all"][rng.below(2)]) else {
            self.counts.failed += 1;
            self.kill(rng.chance(50));
            return Ok(());
        };
        let identity = producer.identity().expect("it has a name");
        if self.known.newest.is_some_and(|newest| newest >= identity) {
            return Err(format!("an epoch was given out twice: {identity:?} after {:?}", self.known.newest));
        }
        self.known.newest = Some(identity);
        self.older = self.producer.replace(producer);
        self.mark();
        Ok(())
    }

    fn send(&mut self, rng: &mut Rng) -> Result<(), String> {
        let Some(producer) = self.producer.clone() else { return self.open_producer(rng) };
        let at = rng.below(PARTITIONS as usize);
        let partition = &mut self.known.partitions[at];
        let last = partition.sent.last().copied();
        let number = match last {
            Some(last) if rng.chance(35) => {
                self.counts.repeated += 1;
                let back = partition.sent.len() - 1 - rng.below(partition.sent.len().min(4));
                if rng.chance(70) { last } else { partition.sent.iter().nth(back).copied().unwrap_or(last) }
            }
            _ if rng.chance(4) => {
                self.counts.jumps += 1;
                last.unwrap_or(0) + (1 << 31) + rng.below(1000) as i64
            }
            _ => last.map_or(0, |last| last + 1) + [0, 0, 0, 2][rng.below(4)],
        };
        // In order: what was sent before and is not in the log comes first.
        let from = producer.last_sequence("t", at as u32).ok().flatten();
        let due: Vec<i64> =
            partition.sent.iter().copied().filter(|sent| from.is_none_or(|from| *sent > from)).collect();
        partition.sent.insert(number);
        self.mark();
        let mut queue: Vec<i64> = due.into_iter().filter(|due| *due < number).collect();
        queue.push(number);
        for number in queue {
            self.counts.sent += 1;
            match send(&producer, at as u32, number, [20, 300][rng.below(2)]) {
                Ok(metadata) => {
                    self.counts.without_offset += usize::from(metadata.offset.is_none());
                    if producer.is_acks_all() {
                        let acknowledged = &mut self.known.partitions[at].acknowledged;
                        let known = acknowledged.entry(number).or_default();
                        *known = known.or(metadata.offset);
                        self.mark();
                    }
                }
                Err(ProducerError::Log(_) | ProducerError::UnknownTopic { .. }) => {
                    self.counts.failed += 1;
                    self.kill(rng.chance(50));
                    break;
                }
                Err(error) => return Err(format!("number {number}: {error}")),
            }
        }
        Ok(())
    }

    /// The older producer of the name.
    fn send_by_the_older(&mut self, rng: &mut Rng) -> Result<(), String> {
        let (Some(older), at) = (&self.older, rng.below(PARTITIONS as usize)) else { return Ok(()) };
        let number = self.known.partitions[at].sent.last().map_or(0, |last| last + 1);
        match send(older, at as u32, number, 20) {
            Err(ProducerError::ProducerFenced { .. }) => {
                self.counts.fenced += 1;
                Ok(())
            }
            Err(ProducerError::Log(_) | ProducerError::UnknownTopic { .. }) => Ok(()),
            outcome => Err(format!("an older producer is not fenced: {outcome:?}")),
        }
    }

    fn step(&mut self, rng: &mut Rng) -> Result<(), String> {
        if rng.chance(3) {
            self.disk.fail_in(rng.below(4) as u64, Fault::Flush);
        }
        match rng.below(100) {
            0..55 => return self.send(rng),
            55..70 => {
                let Some((_, store)) = &self.store else { return Ok(()) };
                let Ok(log) = store.log("t", rng.below(PARTITIONS as usize) as u32) else { return Ok(()) };
                self.plain += 1;
                let value = [PLAIN.to_be_bytes().to_vec(), vec![9; 700]].concat();
                let durability = [Durability::Os, Durability::Sync][rng.below(2)];
                for _ in 0..1 + rng.below(5) {
                    let _ = log.append_with(NewRecord::value(&value), durability);
                }
            }
            70..80 => {
                let now = TimestampMs(TIME + (i64::from(self.processes) + self.plain) * 400_000);
                self.clock.set(now);
                if let Some((_, store)) = &self.store {
                    let starts = |store: &Store| {
                        let of = |n| store.log("t", n).map_or(0, |log| log.offsets().log_start_offset.0);
                        (0..PARTITIONS).map(of).sum::<i64>()
                    };
                    let before = starts(store);
                    let _ = store.flush();
                    let _ = store.tick(now);
                    self.counts.deleted += usize::from(starts(store) > before);
                }
            }
            80..87 => return self.open_producer(rng),
            87..92 => return self.send_by_the_older(rng),
            92..95 => {
                // A clean stop.
                (self.producer, self.older) = (None, None);
                self.store = None;
            }
            _ => self.kill(rng.chance(50)),
        }
        Ok(())
    }
}

struct Run {
    cuts: Vec<(Core, Arc<Known>)>,
    counts: Counts,
}

fn run(seed: u64) -> Result<Run, String> {
    let (disk, clock, mut rng) = (SimDisk::new(Quirks::default()), ManualClock::new(TimestampMs(TIME)), Rng::new(seed));
    let mut world = World {
        disk: disk.clone(),
        clock,
        processes: 0,
        store: None,
        producer: None,
        older: None,
        known: Known::default(),
        trail: Vec::new(),
        plain: 0,
        counts: Counts::default(),
    };
    disk.record();
    world.mark();
    let mut outcome = Ok(());
    for _ in 0..60 {
        outcome = world.step(&mut rng);
        if outcome.is_err() {
            break;
        }
    }
    world.mark();
    let cuts = disk.take_cuts().into_iter().map(|core| (core.clone(), Arc::clone(&world.trail[core.mark]))).collect();
    disk.kill();
    drop((world.producer, world.older, world.store));
    outcome.map(|()| Run { cuts, counts: world.counts })
}

/// What a power cut has left, against what is known.
fn verify(disk: &SimDisk, known: &Known) -> Result<(), String> {
    let clock = ManualClock::new(TimestampMs(TIME));
    let store = Arc::new(options(&clock).open_on(disk.clone()).map_err(|error| format!("open: {error}"))?);
    let Ok(_) = store.topic("t") else {
        let is_empty = known.partitions.iter().all(|partition| partition.acknowledged.is_empty());
        return if is_empty { Ok(()) } else { Err("the topic is gone".into()) };
    };
    let producer = open_producer(&store, "all").map_err(|error| format!("the producer: {error}"))?;
    let identity = producer.identity();
    if identity <= known.newest {
        return Err(format!("an epoch was given out twice: {identity:?} after {:?}", known.newest));
    }
    for (n, partition) in known.partitions.iter().enumerate() {
        let log = store.log("t", n as u32).map_err(|error| error.to_string())?;
        let start = log.offsets().log_start_offset;
        let found = numbers(&log)?;
        for (number, offset) in &partition.acknowledged {
            let is_there = match offset {
                Some(offset) => *offset < start || found.get(offset) == Some(number),
                None => start > 0 || found.values().any(|found| found == number),
            };
            if !is_there {
                return Err(format!("t-{n}: {number} was acknowledged at {offset:?}, and is gone: {found:?}"));
            }
        }
        let end = log.offsets().log_end_offset;
        let last = producer.last_sequence("t", n as u32).map_err(|error| error.to_string())?;
        if last < partition.acknowledged.keys().next_back().copied() {
            return Err(format!("t-{n}: the last sequence is {last:?}, of {:?}", partition.acknowledged));
        }
        // Again from the beginning, and twice.
        for round in 0..2 {
            for number in &partition.sent {
                let answer = send(&producer, n as u32, *number, 20).map_err(|error| format!("{number}: {error}"))?;
                let is_repeat = round > 0 || last.is_some_and(|last| *number <= last);
                if is_repeat && answer.offset.is_some_and(|offset| offset >= end && round == 0) {
                    return Err(format!("t-{n}: {number} was sent again, and appended again at {:?}", answer.offset));
                }
            }
        }
        let found: Vec<i64> = numbers(&log)?.into_values().collect();
        if !found.is_sorted_by(|earlier, later| earlier < later) {
            return Err(format!("t-{n}: not each number once and in order: {found:?}"));
        }
        let behind = partition.sent.iter().filter(|number| last.is_none_or(|last| **number > last));
        if !behind.clone().all(|number| found.contains(number)) {
            return Err(format!(
                "t-{n}: {:?} were sent again, and are not there: {found:?}",
                behind.collect::<Vec<_>>()
            ));
        }
    }
    Ok(())
}

/// Goes through so many schedules; `Err` is the first violation.
fn search(seeds: std::ops::Range<u64>) -> Result<(Seen, Counts), String> {
    let (mut seen, mut all) = (Seen::default(), Counts::default());
    for seed in seeds {
        let run = run(seed).map_err(|what| format!("seed {seed}: {what}"))?;
        let Counts { sent, repeated, without_offset, jumps, fenced, failed, deleted } = run.counts;
        all.sent += sent;
        all.repeated += repeated;
        all.without_offset += without_offset;
        all.jumps += jumps;
        all.fenced += fenced;
        all.failed += failed;
        all.deleted += deleted;
        verify_cuts(seed, &run.cuts, &mut seen, verify)?;
    }
    Ok((seen, all))
}

#[test]
fn what_a_named_producer_sends_again_is_there_once_after_every_double_cut() {
    let first = std::env::var("EDGELOG_CRASH_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (Seen { cuts, images, disks }, counts) = search(first..first + schedules(12, 600)).unwrap();
    println!(
        "named producers: {} schedules, {cuts} cuts, {images} images, {disks} of them differ, {counts:?}",
        schedules(12, 600)
    );
    assert!(counts.repeated > 0 && counts.without_offset > 0 && counts.jumps > 0, "{counts:?}");
    assert!(counts.fenced > 0 && counts.failed > 0 && counts.deleted > 0, "{counts:?}");
}

#[cfg(edgelog_canary)]
#[test]
fn every_known_bug_of_a_named_producer_is_found() {
    crate::clients::double_cuts::find_each(crate::canary::Bug::NAMED, || search(0..schedules(12, 600)));
}
