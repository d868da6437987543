//! From wherever reading begins (an offset, a time, so many records before the end), it gives what reading from the
//! beginning gives from there on, also where a log has holes, where its segments overlap and where it is damaged.

use std::fs;
use std::path::{Path, PathBuf};

use edgelog::edgelog_core::{CRC_START, LeaderEpoch, RecordBatch, RecordBatchBuilder, crc32c, stamp_base};
use edgelog::{Error, Log, NewRecord, NewTopic, Offset, OffsetSpec, Store, TimestampMs};
use edgelog_testkit::{Random, TempDir, ticking};

/// Offsets with the times of their records, and the offsets that are named as lost, in ranges.
type Seen = (Vec<(i64, i64)>, Vec<(i64, i64)>);

/// What a reader gives until its end; `None` where it cannot begin there.
fn read(log: &Log, from: OffsetSpec) -> Option<Seen> {
    let mut reader = match log.reader(from) {
        Ok(reader) => reader,
        Err(Error::OffsetOutOfRange { .. }) => return None,
        Err(error) => panic!("{from:?}: {error}"),
    };
    let (mut records, mut lost) = (Vec::new(), Vec::new());
    loop {
        match reader.next_batch() {
            Ok(Some(batch)) => records.extend(batch.records().unwrap().map(|record| {
                let record = record.unwrap();
                (record.offset.0, record.timestamp.0)
            })),
            Ok(None) => return Some((records, lost)),
            Err(error) if error.is_corrupt() => {
                let range = reader.skip_damage().unwrap();
                lost.push((range.first_offset.0, range.next_offset.0));
            }
            Err(error) => panic!("{from:?}: {error}"),
        }
    }
}

/// What of the ranges lies at or behind `from`; those that touch count as one.
fn behind(ranges: &[(i64, i64)], from: i64) -> Vec<(i64, i64)> {
    let mut kept: Vec<(i64, i64)> = Vec::new();
    for (first, next) in ranges.iter().map(|&(first, next)| (first.max(from), next)).filter(|(f, n)| f < n) {
        match kept.last_mut().filter(|last| last.1 == first) {
            Some(last) => last.1 = next,
            None => kept.push((first, next)),
        }
    }
    kept
}

fn check(log: &Log, what: &str, is_own: bool) {
    let offsets = log.offsets();
    let (start, end) = (offsets.log_start_offset.0, offsets.log_end_offset.0);
    let (records, lost) = read(log, OffsetSpec::Earliest).unwrap();
    assert!(records.windows(2).all(|two| two[0].0 < two[1].0), "{what}: {records:?}");
    let suffix = |from: i64| records.iter().copied().filter(|&(offset, _)| offset >= from).collect::<Vec<_>>();
    for from in start..=end + 1 {
        let Some((seen, lost_there)) = read(log, OffsetSpec::Offset(Offset(from))) else {
            assert!(from > end, "{what}: from {from}");
            continue;
        };
        assert_eq!(seen, suffix(from), "{what}: from {from}, lost {lost:?}");
        assert_eq!(behind(&lost_there, from), behind(&lost, from), "{what}: lost from {from}");
    }
    let mut times: Vec<i64> = records.iter().map(|&(_, time)| time).collect();
    times.extend([0, 1_000_000]);
    for time in times {
        let at = records.iter().position(|&(_, other)| other >= time).unwrap_or(records.len());
        let seen = read(log, OffsetSpec::Timestamp(TimestampMs(time))).unwrap().0;
        assert_eq!(seen, &records[at..], "{what}: from time {time}");
    }
    for count in 0..=records.len() + 1 {
        let seen = read(log, OffsetSpec::Last(count as u64)).unwrap().0;
        let expected =
            if is_own { suffix(end - count as i64) } else { records[records.len().saturating_sub(count)..].to_vec() };
        assert_eq!(seen, expected, "{what}: the last {count}");
    }
}

/// A batch with a record for each of `deltas`, as compaction leaves one that reached up to `last_delta`.
fn batch(base: i64, times: &mut impl FnMut() -> i64, deltas: &[i32], last_delta: i32) -> Vec<u8> {
    // The builder numbers records from 0 on: the gaps between the deltas are put in by hand.
    let mut builder = RecordBatchBuilder::new(vec![0; 4096]);
    for _ in deltas {
        builder.append(TimestampMs(times()), None, Some(b"some value"), &[]).unwrap();
    }
    let mut bytes = builder.finish().to_vec();
    let mut at = 61;
    for delta in deltas {
        // Length, attributes and a time delta of one or two bytes; then the offset delta, which stays one byte here.
        let place = at + 2 + bytes[at + 2..].iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        bytes[place] = (delta * 2) as u8;
        at += 1 + usize::from(bytes[at] / 2);
    }
    bytes[23..27].copy_from_slice(&last_delta.to_be_bytes());
    let crc = crc32c(&bytes[CRC_START..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    stamp_base(&mut bytes, Offset(base), LeaderEpoch(0));
    bytes
}

/// A partition as a broker has it: holes, thinned batches, and segments that overlap now and then.
fn imported(dir: &Path, random: &mut Random) {
    let partition = dir.join("t-0");
    fs::create_dir_all(&partition).unwrap();
    let mut base = random.below(20) as i64;
    let mut clock = 1000;
    for _ in 0..1 + random.below(3) {
        let (mut bytes, mut next, mut whole) = (Vec::new(), base, None);
        for n in 0..1 + random.below(6) {
            if n > 0 && random.one_in(3) {
                next += 1 + random.below(12) as i64;
            }
            let mut times = || {
                clock += 7;
                clock - if clock % 5 == 0 { 20 } else { 0 }
            };
            let last_delta = random.below(4) as i32;
            let mut deltas: Vec<i32> = (0..=last_delta).collect();
            if random.one_in(4) {
                deltas.remove(random.below(deltas.len()));
            }
            if deltas.is_empty() {
                deltas.push(0);
            }
            whole = (deltas.len() as i32 == last_delta + 1).then_some(deltas.len());
            bytes.extend(batch(next, &mut times, &deltas, last_delta));
            next += i64::from(last_delta) + 1;
        }
        fs::write(partition.join(format!("{base:020}.log")), bytes).unwrap();
        base = match random.below(4) {
            // Over a thinned batch goes no segment: where such a one ends is the next segment's word.
            0 => whole.map_or(next, |records| (next - 1 - random.below(records) as i64).max(base + 1)),
            1 => next + random.below(6) as i64,
            _ => next,
        };
    }
}

/// A store of our own with a few segments, closed cleanly.
fn own(dir: &Path, random: &mut Random) {
    let store = ticking().open(dir).unwrap();
    let topic = NewTopic::new("t").config("retention.ms", "-1").config("segment.bytes", "4096");
    store.create_topic(&topic.config("index.interval.bytes", "100")).unwrap();
    let log = store.log("t", 0).unwrap();
    for n in 0..15 + random.below(25) as i64 {
        let value = vec![b'v'; 100 + random.below(300)];
        let record =
            NewRecord::value(&value).with_timestamp(TimestampMs(1000 + n * 7 - if n % 5 == 0 { 20 } else { 0 }));
        log.append(record).unwrap();
    }
    store.close().unwrap();
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join("t-0")).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs
}

/// Damages one batch of one segment; says how.
fn damage(dir: &Path, random: &mut Random) -> String {
    let logs = segments(dir);
    let path = &logs[random.below(logs.len())];
    let mut bytes = fs::read(path).unwrap();
    let mut places = vec![0];
    while let Ok(batch) = RecordBatch::parse(&bytes[places[places.len() - 1]..]) {
        places.push(places[places.len() - 1] + batch.size());
    }
    if places.len() < 2 {
        return "nothing".to_owned();
    }
    let at = random.below(places.len() - 1);
    let (start, end) = (places[at], places[at + 1]);
    // No checksum covers a base offset, and of a thinned batch its own count does not bear it out either.
    let is_whole = RecordBatch::parse(&bytes[start..]).unwrap().is_whole();
    let how = match random.below(6) {
        0 => {
            bytes.insert(start, random.next() as u8);
            "a byte put in front of"
        }
        1 if is_whole => {
            let base = i64::from_be_bytes(*bytes[start..].first_chunk().unwrap());
            let other = base + 1 + random.below(4) as i64;
            bytes[start..start + 8].copy_from_slice(&other.to_be_bytes());
            "a greater base offset in"
        }
        2 => {
            bytes[start..end].fill(0);
            "zeros in the place of"
        }
        3 => {
            bytes[start + 23 + random.below(4)] ^= 1 << random.below(8);
            "another last offset in"
        }
        4 => {
            bytes[start + random.below(61)] ^= 1 << random.below(8);
            "a bit of the header of"
        }
        _ => {
            bytes[start + 61 + random.below(end - start - 61)] ^= 1 << random.below(8);
            "a bit of a record of"
        }
    };
    fs::write(path, bytes).unwrap();
    format!("{how} batch {at} of {}", path.file_name().unwrap().to_str().unwrap())
}

fn attached_and_opened(dir: &Path, what: &str, is_own: bool) {
    let store = Store::attach(dir).unwrap();
    if let Ok(log) = store.log("t", 0) {
        // What an attached process sees may end in a loss: the last records are those that are there.
        check(&log, &format!("{what}, attached"), false);
    }
    drop(store);
    let store = ticking().open(dir).unwrap();
    if let Ok(log) = store.log("t", 0) {
        check(&log, &format!("{what}, opened"), is_own);
    }
}

#[test]
fn reading_from_anywhere_gives_what_reading_from_the_beginning_gives() {
    for seed in 1..=std::env::var("EDGELOG_TEST_SEEDS").map_or(25, |seeds| seeds.parse().unwrap()) {
        for is_own in [false, true] {
            let dir = TempDir::new();
            let mut random = Random(seed * 7919 + u64::from(is_own));
            if is_own {
                own(dir.path(), &mut random);
            } else {
                imported(dir.path(), &mut random);
            }
            let damaged: Vec<String> = (0..random.below(3)).map(|_| damage(dir.path(), &mut random)).collect();
            let what = format!("seed {seed}, {}: {damaged:?}", if is_own { "own" } else { "imported" });
            attached_and_opened(dir.path(), &what, is_own);
        }
    }
}

/// A batch with a record at each delta from `base` on, at one time each.
fn simple(base: i64, records: i32) -> Vec<u8> {
    let mut time = 1000 + base;
    let mut times = || {
        time += 1;
        time
    };
    batch(base, &mut times, &(0..records).collect::<Vec<_>>(), records - 1)
}

fn write(dir: &Path, base: i64, bytes: &[u8]) {
    fs::create_dir_all(dir.join("t-0")).unwrap();
    fs::write(dir.join(format!("t-0/{base:020}.log")), bytes).unwrap();
}

#[test]
fn a_seek_into_a_hole_behind_damage_goes_on_with_the_next_record() {
    let dir = TempDir::new();
    let mut bytes: Vec<u8> = [0, 10, 20, 30, 40].iter().flat_map(|&base| simple(base, 2)).collect();
    let second = simple(0, 2).len();
    bytes[second + 59] ^= 0x80;
    write(dir.path(), 0, &bytes);
    write(dir.path(), 50, &simple(50, 2));
    attached_and_opened(dir.path(), "a damaged count", false);
    let dir = TempDir::new();
    write(dir.path(), 100, &[&[0][..], &simple(100, 2), &simple(150, 1), &simple(151, 1)].concat());
    attached_and_opened(dir.path(), "a byte before the first batch", false);
}

#[test]
fn where_segments_overlap_a_seek_reads_the_first_one_that_holds_the_offset() {
    let dir = TempDir::new();
    let mut time = 1000;
    let mut times = || {
        time += 1;
        time
    };
    write(dir.path(), 10, &simple(12, 3));
    let thinned = batch(13, &mut times, &[0, 2], 2);
    write(dir.path(), 13, &[thinned, simple(16, 2)].concat());
    let store = Store::attach(dir.path()).unwrap();
    let log = store.log("t", 0).unwrap();
    let offsets = |from| read(&log, from).unwrap().0.iter().map(|&(offset, _)| offset).collect::<Vec<_>>();
    assert_eq!(offsets(OffsetSpec::Earliest), [12, 13, 14, 15, 16, 17]);
    assert_eq!(offsets(OffsetSpec::Offset(Offset(14))), [14, 15, 16, 17]);
    let storage = edgelog::inspect::open_directory(dir.path()).unwrap();
    let go_on = &mut |_| std::ops::ControlFlow::Continue(());
    let report = edgelog::inspect::check(&storage, &edgelog::inspect::Selection::all(), go_on).unwrap();
    assert_eq!((report.logs[0].records, report.logs[0].log_end_offset), (6, Offset(18)));
    attached_and_opened(dir.path(), "overlap", false);
}

/// Its last records were given out twice: by it, and by the segment that begins before them.
#[test]
fn a_thinned_batch_that_the_next_segment_overlaps_gives_no_record_twice() {
    for records in [3, 5, 8] {
        let dir = TempDir::new();
        let mut time = 1000;
        let mut times = || {
            time += 1;
            time
        };
        write(dir.path(), 0, &batch(0, &mut times, &[0, 5, 9], 9));
        write(dir.path(), 5, &simple(5, records));
        let expected: Vec<i64> = std::iter::once(0).chain(5..5 + i64::from(records)).collect();
        let storage = edgelog::inspect::open_directory(dir.path()).unwrap();
        let go_on = &mut |_| std::ops::ControlFlow::Continue(());
        let report = edgelog::inspect::check(&storage, &edgelog::inspect::Selection::all(), go_on).unwrap();
        let store = Store::attach(dir.path()).unwrap();
        let seen = read(&store.log("t", 0).unwrap(), OffsetSpec::Earliest).unwrap().0;
        assert_eq!(seen.iter().map(|&(offset, _)| offset).collect::<Vec<_>>(), expected);
        assert_eq!(report.logs[0].records, expected.len() as u64);
        drop(store);
        attached_and_opened(dir.path(), "thinned and overlapped", false);
    }
}

/// A batch at the end whose records cannot all be decoded: those before the fault counted, and the last three records
/// of a log whose end is such were none.
#[test]
fn records_of_a_batch_that_cannot_be_decoded_do_not_count_as_the_last_ones() {
    let dir = TempDir::new();
    let mut clock = 0;
    let mut times = || {
        clock += 1;
        clock
    };
    let bases = [0, 7, 20, 31];
    let mut batches: Vec<Vec<u8>> = bases.iter().map(|&base| batch(base, &mut times, &[0, 2], 3)).collect();
    // It says six records, and holds two.
    let last = batches.last_mut().unwrap();
    last[57..61].copy_from_slice(&6_i32.to_be_bytes());
    last[23..27].copy_from_slice(&5_i32.to_be_bytes());
    let crc = crc32c(&last[CRC_START..]);
    last[17..21].copy_from_slice(&crc.to_be_bytes());
    fs::create_dir_all(dir.path().join("t-0")).unwrap();
    fs::write(dir.path().join(format!("t-0/{:020}.log", 0)), batches.concat()).unwrap();
    let sound = [0, 2, 7, 9, 20, 22];
    for is_taken_over in [false, true] {
        if is_taken_over {
            ticking().open(dir.path()).unwrap().close().unwrap();
        }
        let store = Store::attach(dir.path()).unwrap();
        let log = store.log("t", 0).unwrap();
        for count in 1..=6 {
            let mut reader = log.reader(OffsetSpec::Last(count as u64)).unwrap();
            let mut seen = Vec::new();
            while let Some(batch) = reader.next_batch().unwrap() {
                let records: Result<Vec<_>, _> = batch.records().unwrap().collect();
                seen.extend(records.into_iter().flatten().map(|record| record.offset.0));
            }
            assert_eq!(seen, sound[sound.len() - count..], "the last {count}, taken over {is_taken_over}");
        }
    }
}
