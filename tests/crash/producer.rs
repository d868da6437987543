//! A producer on the simulated disk: every record that it has acknowledged at `acks=all` is in the recovered log, at
//! its offset, after the power went at any effect; and those of one partition stand in the order of their sending, each
//! once.
//!
//! Its sender is a thread of its own, so that two runs of a seed need not do the same. What is acknowledged is noted by
//! the sender itself, in a callback, before it goes on: a cut behind that has to keep it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use edgelog::clients::{Producer, ProducerRecord};
use edgelog::clock::ManualClock;
use edgelog::edgelog_core::TimestampMs;
use edgelog::{NewTopic, OffsetSpec, Store};

use edgelog_testkit::crash::disk::{Core, Image, Quirks, Rng, SimDisk};
use edgelog_testkit::crash::oracle::TIME_BASE;
use edgelog_testkit::crash::search::{Outcome, guarded, shared};
use edgelog_testkit::crash::workload::options;

const PARTITIONS: u32 = 2;

/// A record that was acknowledged: its partition, its offset, its value.
type Acknowledged = (u32, i64, Vec<u8>);

pub(crate) struct Run {
    cuts: Vec<Core>,
    acknowledged: Vec<Acknowledged>,
}

fn value(number: usize, len: usize) -> Vec<u8> {
    let mut value = (number as u64).to_be_bytes().to_vec();
    value.resize(8 + len, number as u8);
    value
}

/// Sends about `records` records and watches every effect on the disk.
pub(crate) fn record(seed: u64, records: usize, quirks: Quirks) -> Run {
    let (disk, clock, mut rng) = (SimDisk::new(quirks), ManualClock::new(TimestampMs(TIME_BASE)), Rng::new(seed));
    let store = Arc::new(options(&clock).open_on(disk.clone()).unwrap());
    store.create_topic(&NewTopic::new("t").partitions(PARTITIONS).config("segment.bytes", "4096")).unwrap();
    disk.record();
    let linger = if rng.chance(50) { "0" } else { "1" };
    let producer = Producer::builder(&store).set("linger.ms", linger).unwrap().set("batch.size", "600").unwrap();
    let producer = producer.open().unwrap();
    let acknowledged = Arc::new(Mutex::new(Vec::<Acknowledged>::new()));
    for number in 0..records {
        let value = value(number, rng.below(500));
        let record = ProducerRecord::new("t", &value).with_partition(rng.below(PARTITIONS as usize) as u32);
        let (disk, acknowledged, value) = (disk.clone(), Arc::clone(&acknowledged), value.clone());
        let note = move |outcome: edgelog::clients::DeliveryResult| {
            let metadata = outcome.expect("no fault is injected");
            let mut acknowledged = acknowledged.lock().unwrap();
            acknowledged.push((metadata.partition(), metadata.offset.expect("acks=all").0, value));
            disk.set_mark(acknowledged.len());
            disk.cut_here();
        };
        producer.send_with(record, note).unwrap();
        if rng.chance(20) {
            producer.flush().unwrap();
        }
    }
    producer.close().unwrap();
    let cuts = disk.take_cuts();
    disk.kill();
    drop((producer, store));
    let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
    assert_eq!(acknowledged.len(), records, "a close answers everything");
    Run { cuts, acknowledged }
}

/// The values of each partition.
fn read(store: &Store) -> Result<BTreeMap<u32, Vec<Vec<u8>>>, String> {
    let mut found = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let log = store.log("t", partition).map_err(|error| error.to_string())?;
        let mut reader = log.reader(OffsetSpec::Earliest).map_err(|error| error.to_string())?;
        let mut values = Vec::new();
        while let Some(batch) = reader.next_batch().map_err(|error| error.to_string())? {
            for record in batch.records().map_err(|error| error.to_string())? {
                let record = record.map_err(|error| error.to_string())?;
                assert_eq!(record.offset.0, values.len() as i64);
                values.push(record.value.unwrap_or_default().to_vec());
            }
        }
        found.insert(partition, values);
    }
    Ok(found)
}

fn check(disk: &SimDisk, acknowledged: &[Acknowledged]) -> Result<(), String> {
    let clock = ManualClock::new(TimestampMs(TIME_BASE));
    let store = options(&clock).open_on(disk.clone()).map_err(|error| format!("opening: {error}"))?;
    let found = read(&store)?;
    disk.kill();
    for (partition, offset, value) in acknowledged {
        match found[partition].get(*offset as usize) {
            Some(there) if there == value => {}
            Some(_) => return Err(format!("another record at an acknowledged offset: t-{partition} at {offset}")),
            None => return Err(format!("an acknowledged record is gone: t-{partition} at {offset}")),
        }
    }
    for (partition, values) in &found {
        let numbers: Vec<&[u8]> = values.iter().map(|value| &value[..8]).collect();
        if !numbers.is_sorted_by(|earlier, later| earlier < later) {
            return Err(format!("not in the order of sending, or twice: t-{partition}"));
        }
    }
    Ok(())
}

/// Cuts the run at every `step`th effect, in the chosen images and `randoms` random ones, and each of these once more
/// right after it was opened.
pub(crate) fn cuts(run: &Run, step: usize, randoms: u64) -> Outcome {
    shared(run.cuts.len(), step, |n, outcome| {
        let core = &run.cuts[n];
        outcome.count("cuts", 1);
        let acknowledged = &run.acknowledged[..core.mark];
        let randoms = (0..randoms).map(|random| Image::Random(random * 7919 + n as u64));
        for image in Image::CHOSEN.into_iter().chain(randoms) {
            outcome.count("images", 1);
            let checked = guarded(|| {
                let disk = SimDisk::from_core(core.image(image));
                check(&disk, acknowledged)?;
                let again = SimDisk::from_core(disk.snapshot().image(Image::AllLost));
                check(&again, acknowledged).map_err(|what| format!("cut again right after opening: {what}"))
            });
            if let Err(what) = checked {
                outcome.add(n, &what, || format!("cut {n}, {image:?}, {} acknowledged", core.mark));
            }
        }
    })
}
