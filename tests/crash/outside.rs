//! Disks that keep less than the documented assumptions: what is lost then, and that nothing panics.

use std::collections::BTreeMap;
use std::ops::Range;

use edgelog::clock::ManualClock;
use edgelog::{Durability, Error, Log, NewRecord, OffsetSpec, Store, TimestampMs};

use edgelog_testkit::crash::batches::batch_at;
use edgelog_testkit::crash::disk::{Core, Image, Quirks, Rng, SECTOR_BYTES, SimDisk, has_ending};
use edgelog_testkit::crash::oracle::{Model, Presence, Rec, TIME_BASE};
use edgelog_testkit::crash::search::{Outcome, guarded, record, shared};
use edgelog_testkit::crash::workload::{FLUSH_MS, LOGS, Op, TOPICS, new_topic, options, random_op};

/// Every effect of a run is cut on a disk without powersafe overwrite: a sector that is being rewritten may be garbage,
/// no matter what it held before. If something durable is gone after the cut, it stood in such a sector.
pub(crate) fn torn_sectors(ops: &[Op], images: u64) -> Outcome {
    let run = record(ops, Quirks { tears_sectors: true, ..Quirks::default() }).expect("a run without a cut");
    shared(run.cuts.len(), 1, |n, outcome| {
        let (core, model) = &run.cuts[n];
        for image in (0..images).map(|i| Image::Random(n as u64 * 977 + i)).chain([Image::Garbage]) {
            let image_of = core.image(image);
            let torn = image_of.torn();
            if torn.iter().all(|(path, _)| !has_ending(path, ".log")) {
                outcome.count("images without a torn segment", 1);
                continue;
            }
            outcome.count("images", 1);
            outcome.count("torn sectors", torn.len());
            let touched = touched(core, &torn);
            match guarded(|| lost_where_torn(&image_of, model, &touched)) {
                Ok(lost) => outcome.count("durable records lost", lost),
                Err(what) => outcome.add(n, &what, || format!("cut {n} during {}, {image:?}, {torn:?}", model.what)),
            }
        }
    })
}

/// The offsets of the batches that stood in torn sectors, by partition directory.
fn touched(core: &Core, torn: &[(String, usize)]) -> BTreeMap<String, Vec<Range<i64>>> {
    let mut touched: BTreeMap<String, Vec<Range<i64>>> = BTreeMap::new();
    for (path, bytes) in core.contents(&[".log"]) {
        let dir = path.split('/').next().unwrap_or_default();
        let mut position = 0;
        while let Some(batch) = batch_at(&bytes, position) {
            let sectors = position / SECTOR_BYTES..=(position + batch.size - 1) / SECTOR_BYTES;
            if torn.iter().any(|(other, sector)| *other == path && sectors.contains(sector)) {
                touched.entry(dir.to_owned()).or_default().push(batch.base_offset..batch.last_offset + 1);
            }
            position += batch.size;
        }
    }
    touched
}

/// Opens the store and reads over all damage. Returns how many records are gone that were durable.
fn lost_where_torn(image: &Core, model: &Model, touched: &BTreeMap<String, Vec<Range<i64>>>) -> Result<usize, String> {
    let clock = ManualClock::new(TimestampMs(TIME_BASE));
    let disk = SimDisk::from_core(image.clone());
    let store = options(&clock).open_on(disk.clone()).map_err(|e| format!("open answers {e}"))?;
    let mut lost = 0;
    for (name, topic) in model.topics.iter().filter(|(_, topic)| topic.presence == Presence::Present) {
        for (partition, model) in topic.logs.iter().enumerate() {
            let at = |what: String| format!("{name}-{partition}: {what}");
            let log = store.log(name, partition as u32).map_err(|e| at(e.to_string()))?;
            let found = read_over_damage(&log).map_err(at)?;
            if let Some((offset, _)) = found.iter().find(|(offset, rec)| !model.may_hold(**offset, **rec)) {
                return Err(at(format!("offset {offset} holds what was not appended there")));
            }
            let is_touched = |offset: i64| {
                let ranges = touched.get(&format!("{name}-{partition}"));
                ranges.is_some_and(|ranges| ranges.iter().any(|range| range.contains(&offset)))
            };
            for offset in model.start.1..model.durable {
                if !found.contains_key(&offset) {
                    if !is_touched(offset) {
                        return Err(at(format!("offset {offset} was durable, in no torn sector, and is gone")));
                    }
                    lost += 1;
                }
            }
            let appended = log.append_with(NewRecord::value(b"behind the damage"), Durability::Sync);
            appended.map_err(|e| at(format!("appending answers {e}")))?;
        }
    }
    disk.kill();
    Ok(lost)
}

fn read_over_damage(log: &Log) -> Result<BTreeMap<i64, Rec>, String> {
    let mut found = BTreeMap::new();
    let mut reader = log.reader(OffsetSpec::Earliest).map_err(|e| e.to_string())?;
    for _ in 0..10_000 {
        match reader.next_batch() {
            Ok(Some(batch)) => {
                for record in batch.records().map_err(|e| e.to_string())? {
                    let record = record.map_err(|e| e.to_string())?;
                    let rec = Rec::of(record.value.unwrap_or_default()).ok_or("what was never appended")?;
                    let first = record.offset == batch.base_offset();
                    found.insert(record.offset.0, Rec { time: record.timestamp.0, first, ..rec });
                }
            }
            Ok(None) => return Ok(found),
            Err(Error::CorruptRecord { .. }) => drop(reader.skip_damage().map_err(|e| e.to_string())?),
            Err(error) => return Err(format!("reading answers {error}")),
        }
    }
    Err("reading does not come to an end".into())
}

/// Schedules of operations and cuts on a disk that answers flushes and does nothing. Every error is an answer; a panic
/// is not, nor is a store that does not open.
pub(crate) fn lying_disk(count: usize) -> Outcome {
    shared(count, 1, |n, outcome| {
        let seed = n as u64;
        outcome.count("schedules", 1);
        match guarded(|| lied_to(seed)) {
            Ok(cuts) => outcome.count("cuts", cuts),
            Err(what) => outcome.add(n, &what, || format!("seed {seed}")),
        }
    })
}

fn lied_to(seed: u64) -> Result<usize, String> {
    let mut rng = Rng::new(seed);
    let everywhere = [Some(""), Some(".log"), Some(".checkpoint")][rng.below(3)];
    let quirks = Quirks { flush_lies: everywhere, sync_dir_lies: rng.chance(50), ..Quirks::default() };
    let clock = ManualClock::new(TimestampMs(TIME_BASE));
    let mut disk = SimDisk::new(quirks);
    let mut cuts = 0;
    for _ in 0..4 {
        let store = options(&clock).open_on(disk.clone()).map_err(|e| format!("open answers {e}"))?;
        for topic in 0..TOPICS.len() {
            let _ = store.create_topic(&new_topic(topic));
        }
        let store = (0..6 + rng.below(30)).try_fold(store, |store, _| carry_out(store, &disk, &clock, &mut rng));
        let image = if rng.chance(70) { Image::Random(rng.next()) } else { Image::CHOSEN[rng.below(10)] };
        let left = disk.snapshot().image(image);
        disk.kill();
        drop(store);
        cuts += 1;
        disk = SimDisk::from_core(left);
    }
    Ok(cuts)
}

/// Makes a call, ignores its result, and reads everything.
fn carry_out(store: Store, disk: &SimDisk, clock: &ManualClock, rng: &mut Rng) -> Result<Store, String> {
    let log = |n: usize| store.log(LOGS[n].0, LOGS[n].1 as u32);
    match random_op(rng) {
        Op::Append { log: n, records, len, durability, .. } => {
            for _ in 0..records {
                let value = vec![rng.next() as u8; usize::from(len)];
                let _ = log(n).map(|log| log.append_with(NewRecord::value(&value), durability));
            }
        }
        Op::Truncate { log: n, back } => {
            let _ = log(n).map(|log| log.truncate_to(log.offsets().log_end_offset - i64::from(back)));
        }
        Op::DeleteRecords { log: n, keep } => {
            let _ = log(n).map(|log| log.delete_records_before(log.offsets().log_end_offset - i64::from(keep)));
        }
        Op::Create { topic } => drop(store.create_topic(&new_topic(topic))),
        Op::Delete { topic } => drop(store.delete_topic(TOPICS[topic])),
        Op::Reopen => {
            let _ = store.close();
            drop(store);
            return options(clock).open_on(disk.clone()).map_err(|e| format!("open answers {e}"));
        }
        _ => drop(store.tick(TimestampMs(TIME_BASE + FLUSH_MS))),
    }
    for (topic, partition) in LOGS {
        let Ok(log) = store.log(topic, partition as u32) else { continue };
        let Ok(mut reader) = log.reader(OffsetSpec::Earliest) else { continue };
        for _ in 0..2000 {
            match reader.next_batch() {
                Ok(Some(batch)) => drop(batch.records().map(Iterator::count)),
                Ok(None) => break,
                Err(_) if reader.skip_damage().is_err() => break,
                Err(_) => {}
            }
        }
    }
    Ok(store)
}
