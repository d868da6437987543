//! Where a batch has to end is known by more than the batch itself: by where the next segment begins, and by the place
//! of the recovery point, which a clean close puts at the end. What contradicts it is not believed.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use edgelog::edgelog_core::{LeaderEpoch, RecordBatch, RecordBatchBuilder, TimestampMs, crc32c, stamp_base};
use edgelog::inspect::{self, CheckReport, Selection, Severity};
use edgelog::storage::{DirectoryStorage, DirectoryStorageOptions, Storage};
use edgelog::{Log, NewRecord, NewTopic, Offset, OffsetSpec, Store};

use edgelog_testkit::{TempDir, copy_dir, ticking};

/// What a record at `offset` says.
fn value(offset: i64) -> String {
    format!("o{offset}-{}", "v".repeat(220))
}

/// Batches of three records in segments of five such, closed cleanly: 51 records that name their offsets. Where the
/// segments begin.
fn own(dir: &Path) -> Vec<i64> {
    let store = ticking().open(dir).unwrap();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for n in (0..51).step_by(3) {
        let mut batch = log.batch();
        for offset in n..n + 3 {
            batch.push(NewRecord::value(value(offset).as_bytes())).unwrap();
        }
        log.append_batch(&mut batch).unwrap();
    }
    drop(log);
    store.close().unwrap();
    let names = fs::read_dir(dir.join("t-0")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut bases: Vec<i64> = names.filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    bases.sort_unstable();
    bases
}

fn segment(dir: &Path, base: i64) -> std::path::PathBuf {
    dir.join(format!("t-0/{base:020}.log"))
}

/// Where each batch of `bytes` starts, and where the last one ends.
fn places(bytes: &[u8]) -> Vec<usize> {
    let mut places = vec![0];
    while let Ok(batch) = RecordBatch::parse(&bytes[places[places.len() - 1]..]) {
        places.push(places[places.len() - 1] + batch.size());
    }
    places
}

/// What a reader says: each record with its offset, and the offsets that are lost.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    records: Vec<(i64, String)>,
    lost: Vec<(i64, i64)>,
}

impl Seen {
    fn offsets(&self) -> Vec<i64> {
        self.records.iter().map(|(offset, _)| *offset).collect()
    }
}

fn read(log: &Log, from: OffsetSpec) -> Seen {
    let mut seen = Seen::default();
    let mut reader = log.reader(from).unwrap();
    loop {
        match reader.next_batch() {
            Ok(Some(batch)) => seen.records.extend(batch.records().unwrap().map(|record| {
                let record = record.unwrap();
                (record.offset.0, String::from_utf8(record.value.unwrap().to_vec()).unwrap())
            })),
            Ok(None) => break,
            Err(error) if error.is_corrupt() => {
                let lost = reader.skip_damage().unwrap();
                seen.lost.push((lost.first_offset.0, lost.next_offset.0));
            }
            Err(error) => panic!("{error}"),
        }
    }
    seen.lost = merged(seen.lost);
    seen
}

/// Ranges in order, joined where they touch.
fn merged(ranges: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (first, next) in ranges.into_iter().filter(|(first, next)| first < next) {
        match joined.last_mut().filter(|last| last.1 == first) {
            Some(last) => last.1 = next,
            None => joined.push((first, next)),
        }
    }
    joined
}

/// The store, attached, and its log: from each offset on, a reader gives out the rest of `records`.
fn read_from_anywhere(dir: &Path, records: &[(i64, String)], case: &str) -> (Store, Log) {
    let store = Store::attach(dir).unwrap();
    let log = store.log("t", 0).unwrap();
    for from in 0..51 {
        let behind = read(&log, OffsetSpec::Offset(Offset(from)));
        assert_eq!(behind.records, records[from as usize..], "{case}, from {from}");
    }
    (store, log)
}

fn attached(dir: &Path) -> Seen {
    let store = Store::attach(dir).unwrap();
    read(&store.log("t", 0).unwrap(), OffsetSpec::Earliest)
}

fn opened(dir: &Path) -> Seen {
    let store = ticking().open(dir).unwrap();
    read(&store.log("t", 0).unwrap(), OffsetSpec::Earliest)
}

fn storage(dir: &Path) -> Arc<dyn Storage> {
    Arc::new(DirectoryStorage::open(dir, DirectoryStorageOptions::default()).unwrap())
}

fn check(dir: &Path) -> CheckReport {
    inspect::check(&storage(dir), &Selection::all(), &mut |_| ControlFlow::Continue(())).unwrap()
}

fn lost_by_fsck(dir: &Path) -> Vec<(i64, i64)> {
    let report = check(dir);
    let lost = report.findings.iter().filter(|finding| finding.severity == Severity::Lost);
    merged(lost.filter_map(|finding| finding.lost).map(|(first, next)| (first.0, next.0)).collect())
}

/// Repairs a copy of the store, twice: the second time changes nothing. What a reader says afterwards.
fn repaired(dir: &Path) -> Seen {
    let copy = TempDir::new();
    copy_dir(dir, copy.path());
    let repair =
        || inspect::repair(&storage(copy.path()), &Selection::all(), false, &mut |_| ControlFlow::Continue(()));
    repair().unwrap();
    assert!(check(copy.path()).is_sound(), "{:?}", check(copy.path()));
    assert_eq!(repair().unwrap().actions, []);
    attached(copy.path())
}

/// Gives the last batch in the file another base offset, which no checksum covers.
fn claim_of_last_batch(path: &Path, claimed: i64) {
    let mut bytes = fs::read(path).unwrap();
    let places = places(&bytes);
    let last = places[places.len() - 2];
    let epoch = RecordBatch::parse(&bytes[last..]).unwrap().partition_leader_epoch();
    stamp_base(&mut bytes[last..], Offset(claimed), epoch);
    fs::write(path, &bytes).unwrap();
}

/// Two faults at once: one batch is damaged, and the base offset of the next, the last of its segment, is another one.
/// It was believed, and its records were given out at wrong offsets.
#[test]
fn the_last_batch_behind_damage_is_never_read_at_a_wrong_offset() {
    for claimed_by in [-3, -1, 2, 1 << 33] {
        for base in [15, 45] {
            let dir = TempDir::new();
            assert_eq!(own(dir.path()), [0, 15, 30, 45]);
            let path = segment(dir.path(), base);
            let mut bytes = fs::read(&path).unwrap();
            let places = places(&bytes);
            let [damaged, last] = [places[places.len() - 3], places[places.len() - 2]];
            bytes[damaged + 100] ^= 1;
            let right = RecordBatch::parse(&bytes[last..]).unwrap().base_offset().0;
            stamp_base(&mut bytes[last..], Offset(right + claimed_by), LeaderEpoch(0));
            fs::write(&path, &bytes).unwrap();

            let case = format!("{claimed_by} in {base}");
            // Where the checkpoint says that it ends, it is known where it begins: it is read there.
            let good_again = if base == 45 { right } else { right + 3 };
            let sound: Vec<_> = (0..51).filter(|&n| n < right - 3 || n >= good_again).collect();
            let lost = vec![(right - 3, good_again)];
            let seen = attached(dir.path());
            assert_eq!((seen.offsets(), &seen.lost), (sound.clone(), &lost), "{case}");
            assert!(seen.records.iter().all(|(offset, is)| *is == value(*offset)), "{case}: {seen:?}");
            assert_eq!(lost_by_fsck(dir.path()), lost, "{case}");
            let store = Store::attach(dir.path()).unwrap();
            let log = store.log("t", 0).unwrap();
            for from in 0..=51 {
                let behind = read(&log, OffsetSpec::Offset(Offset(from))).offsets();
                assert_eq!(behind, sound.iter().copied().filter(|&n| n >= from).collect::<Vec<_>>(), "{case}");
            }
            // What is put right is where it belongs; what a reader has seen stays.
            let repaired = repaired(dir.path());
            assert!(repaired.records.iter().all(|(offset, is)| *is == value(*offset)), "{case}: {repaired:?}");
            assert!(sound.iter().all(|n| repaired.offsets().contains(n)), "{case}");
            let seen = opened(dir.path());
            assert_eq!((seen.offsets(), &seen.lost), (sound, &lost), "{case}, opened");
        }
    }
}

/// The last batch of a sealed segment begins where the one before it ends, and ends where the next segment begins.
/// Readers called it lost until a repair.
#[test]
fn the_last_batch_of_a_sealed_segment_is_read_where_it_belongs() {
    for claimed in [0, 12, 9, 11, 13, 15, 30, 1 << 41, -5, i64::MIN, i64::MAX] {
        let dir = TempDir::new();
        assert_eq!(own(dir.path()), [0, 15, 30, 45]);
        let sound = attached(dir.path());
        claim_of_last_batch(&segment(dir.path(), 0), claimed);
        let case = format!("{claimed}");
        assert_eq!(attached(dir.path()), sound, "{case}");
        drop(read_from_anywhere(dir.path(), &sound.records, &case));
        let worst = if claimed == 12 { None } else { Some(Severity::Heals) };
        assert_eq!(check(dir.path()).worst.filter(|&worst| worst > Severity::Note), worst, "{case}");
        assert!(inspect::check_ends(&storage(dir.path()), &Selection::all()).unwrap().is_empty(), "{case}");
        assert_eq!(lost_to_the_open(dir.path()), [], "{case}");
        assert_eq!(repaired(dir.path()), sound, "{case}");
        assert_eq!(opened(dir.path()), sound, "{case}");
    }
}

/// Of a copied log, an index next to a sealed segment says where its last batch ends. `fsck` said so, and readers
/// called more lost than that.
#[test]
fn the_last_batch_of_a_sealed_segment_of_a_copied_log_is_read_where_its_index_says_that_it_ends() {
    for claimed in [7, 8, 9, 1 << 33, i64::MIN] {
        let dir = TempDir::new();
        copied(dir.path(), &[0, 7]);
        fs::write(segment(dir.path(), 20), batch(20)).unwrap();
        fs::remove_file(dir.path().join("edgelog.checkpoint")).unwrap();
        ticking().open(dir.path()).unwrap().close().unwrap();
        let sound = attached(dir.path());
        assert_eq!(sound.offsets(), [0, 1, 2, 7, 8, 9, 20, 21, 22]);
        let bytes = fs::read(segment(dir.path(), 0)).unwrap();
        // One that stands right behind the batch before.
        fs::write(segment(dir.path(), 0), [&batch(0)[..], &batch(3)[..]].concat()).unwrap();
        assert_eq!(bytes.len(), batch(0).len() + batch(7).len());
        let entry = [5_i32.to_be_bytes(), (batch(0).len() as i32).to_be_bytes()].concat();
        fs::write(dir.path().join(format!("t-0/{:020}.index", 0)), entry).unwrap();
        claim_of_last_batch(&segment(dir.path(), 0), claimed);
        let seen = attached(dir.path());
        assert_eq!(seen.offsets(), [0, 1, 2, 3, 4, 5, 20, 21, 22], "{claimed}: {:?}", seen.lost);
        assert_eq!((&seen.lost, lost_by_fsck(dir.path())), (&vec![], vec![]), "{claimed}");
        assert!(seen.records.iter().all(|(offset, is)| *is == value(*offset)), "{claimed}");
        assert_eq!(repaired(dir.path()), seen, "{claimed}");
        assert_eq!(opened(dir.path()), seen, "{claimed}");
    }
}

/// A batch in the middle whose base offset is wrong is lost to readers before a repair, and so it is to both exports:
/// the one for a broker gave it out, and said that nothing was lost.
#[test]
fn a_batch_that_only_repair_puts_right_is_lost_to_readers_and_exports_alike() {
    for claimed in [0, 20, 1 << 33, i64::MIN] {
        let dir = TempDir::new();
        own(dir.path());
        let path = segment(dir.path(), 15);
        let mut bytes = fs::read(&path).unwrap();
        let at = places(&bytes)[2];
        bytes[at..at + 8].copy_from_slice(&i64::to_be_bytes(claimed));
        fs::write(&path, &bytes).unwrap();
        let seen = attached(dir.path());
        assert_eq!((&seen.lost, seen.records.len()), (&vec![(21, 24)], 48), "{claimed}");
        assert_eq!(lost_by_fsck(dir.path()), seen.lost, "{claimed}");
        let target = TempDir::new();
        let (log, range) = ("t-0".parse().unwrap(), inspect::ExportRange::default());
        let go_on = &mut |_| ControlFlow::Continue(());
        let exported =
            inspect::export_partition(&storage(dir.path()), &log, &storage(target.path()), range, None, go_on).unwrap();
        let lost = exported.lost.iter().filter_map(|finding| finding.lost).map(|(first, next)| (first.0, next.0));
        assert_eq!((merged(lost.collect()), exported.records), (seen.lost, 48), "{claimed}");
        assert_eq!(repaired(dir.path()).offsets(), (0..51).collect::<Vec<_>>(), "{claimed}");
    }
}

/// A partition as a broker has it, in batches of three records at these offsets, taken over and closed cleanly.
fn copied(dir: &Path, bases: &[i64]) {
    let bytes: Vec<u8> = bases.iter().flat_map(|&base| batch(base)).collect();
    fs::create_dir_all(dir.join("t-0")).unwrap();
    fs::write(segment(dir, bases[0]), bytes).unwrap();
    // A store is marked as in use, and so as closed, where something was written.
    let store = ticking().open(dir).unwrap();
    store.create_topic(&NewTopic::new("other")).unwrap();
    store.log("other", 0).unwrap().append(NewRecord::value(b"v")).unwrap();
    store.close().unwrap();
}

/// Three records at `base`, each of which names its offset.
fn batch(base: i64) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; 2000]);
    for offset in base..base + 3 {
        builder.append(TimestampMs(1_700_000_000_000), None, Some(value(offset).as_bytes()), &[]).unwrap();
    }
    stamp_base(builder.finish(), Offset(base), LeaderEpoch(0));
    let size = builder.size();
    builder.into_buffer()[..size].to_vec()
}

/// What the open of a copy of the store calls lost of the log.
fn lost_to_the_open(dir: &Path) -> Vec<(i64, i64)> {
    let copy = TempDir::new();
    copy_dir(dir, copy.path());
    let store = ticking().open(copy.path()).unwrap();
    let report = store.recovery_report();
    let lost = report.logs.iter().filter(|log| log.name.topic == "t").flat_map(|log| &log.lost);
    merged(lost.map(|range| (range.first_offset.0, range.next_offset.0)).collect())
}

/// The clean close noted where the log ends, and all below is there: what stands behind takes nothing. `fsck` and
/// `stat` called three offsets lost that there never were.
#[test]
fn what_stands_behind_a_clean_end_is_no_loss() {
    for is_own in [true, false] {
        let dir = TempDir::new();
        let last = if is_own {
            own(dir.path());
            45
        } else {
            copied(dir.path(), &[0, 7, 20]);
            0
        };
        let path = segment(dir.path(), last);
        let mut bytes = fs::read(&path).unwrap();
        let places = places(&bytes);
        bytes.extend_from_within(places[places.len() - 2]..);
        fs::write(&path, &bytes).unwrap();
        let before = attached(dir.path());
        assert_eq!((before.records.len(), &before.lost), (if is_own { 51 } else { 9 }, &Vec::new()));
        let report = check(dir.path());
        assert_eq!(report.worst, Some(Severity::Heals), "own {is_own}: {report:?}");
        assert!(inspect::check_ends(&storage(dir.path()), &Selection::all()).unwrap().is_empty());
        assert_eq!(lost_to_the_open(dir.path()), []);
        assert_eq!(repaired(dir.path()), before, "own {is_own}");
        let copy = TempDir::new();
        copy_dir(dir.path(), copy.path());
        let go_on = &mut |_| ControlFlow::Continue(());
        let repair = inspect::repair(&storage(copy.path()), &Selection::all(), false, go_on).unwrap();
        assert_eq!(repair.recovery.unwrap().lost_offsets(), 0, "own {is_own}");
        assert_eq!(opened(dir.path()), before, "own {is_own}");
    }
}

/// A segment that begins beyond the recovery point goes on from an end alone, as it does for an open: readers went on
/// there and called all lost up to its name. Where its first batch does not hold, the name is all that says where it
/// begins; else the batches do.
#[test]
fn a_last_segment_under_a_higher_name_is_behind_the_end_of_the_log() {
    for named in [52, 60, 1000, 1 << 39] {
        let dir = TempDir::new();
        own(dir.path());
        fs::rename(segment(dir.path(), 45), segment(dir.path(), named)).unwrap();
        let seen = attached(dir.path());
        assert_eq!((seen.offsets(), &seen.lost), ((0..51).collect(), &vec![]), "{named}");
        let mut bytes = fs::read(segment(dir.path(), named)).unwrap();
        bytes[80] ^= 1;
        fs::write(segment(dir.path(), named), bytes).unwrap();
        let seen = attached(dir.path());
        assert_eq!((seen.offsets(), &seen.lost), ((0..45).collect(), &vec![(45, 51)]), "{named}");
        let report = check(dir.path());
        assert_eq!((lost_by_fsck(dir.path()), report.logs[0].log_end_offset), (vec![(45, 51)], Offset(51)), "{named}");
        let store = Store::attach(dir.path()).unwrap();
        assert_eq!(store.log("t", 0).unwrap().offsets().log_end_offset, 51, "{named}");
        assert_eq!(lost_to_the_open(dir.path()), [(45, 51)], "{named}");
        repaired(dir.path());
        assert_eq!(opened(dir.path()).offsets(), (0..45).collect::<Vec<_>>(), "{named}");
    }
}

/// A copied log whose offsets need only rise, closed cleanly: the checkpoint knows where its last batch ends, and no
/// checksum covers where it begins. An open puts that right, and readers called the batch lost, or gave its records at
/// wrong offsets where it said a little more.
#[test]
fn the_last_batch_of_a_copied_log_is_read_where_it_ends() {
    for (bases, is_appended_to) in [([0, 7, 10], false), ([0, 7, 20], false), ([0, 7, 20], true)] {
        let right = if is_appended_to { 23 } else { bases[2] };
        for claimed in [right - 3, right - 1, right, right + 1, right + 3, 1 << 41, i64::MIN] {
            let dir = TempDir::new();
            copied(dir.path(), &bases);
            if is_appended_to {
                let store = ticking().open(dir.path()).unwrap();
                store.log("t", 0).unwrap().append(NewRecord::value(value(23).as_bytes())).unwrap();
                store.close().unwrap();
            }
            let sound = attached(dir.path());
            assert_eq!(sound.records.len(), 9 + usize::from(is_appended_to));
            // The records of the copy are old: what is appended begins a segment.
            let path = segment(dir.path(), if is_appended_to { right } else { 0 });
            claim_of_last_batch(&path, claimed);

            let case = format!("{claimed} for {right} in {bases:?}");
            let seen = attached(dir.path());
            assert_eq!(seen, sound, "{case}");
            let store = Store::attach(dir.path()).unwrap();
            let log = store.log("t", 0).unwrap();
            for (n, (from, _)) in sound.records.iter().enumerate() {
                let behind = read(&log, OffsetSpec::Offset(Offset(*from)));
                assert_eq!(behind.records, sound.records[n..], "{case}, from {from}");
            }
            assert_eq!(read(&log, OffsetSpec::Last(2)).records, sound.records[sound.records.len() - 2..], "{case}");
            drop((log, store));
            let report = check(dir.path());
            let is_wrong = claimed != right;
            let worst = if is_wrong { Severity::Heals } else { Severity::Note };
            assert_eq!(report.worst, Some(worst), "{case}: {report:?}");
            let log = report.logs.iter().find(|log| log.name.topic == "t").unwrap();
            assert_eq!(
                (log.records as usize, log.log_end_offset.0),
                (sound.records.len(), right + if is_appended_to { 1 } else { 3 })
            );
            assert_eq!(lost_to_the_open(dir.path()), [], "{case}");
            assert_eq!(repaired(dir.path()), sound, "{case}");
            assert_eq!(opened(dir.path()), sound, "{case}");
            assert_eq!(check(dir.path()).worst.filter(|&worst| worst > Severity::Note), None, "{case}");
        }
    }
}

/// The same, where a record of the batch cannot be decoded: readers called it lost, and `fsck` did not.
#[test]
fn a_last_batch_with_another_base_offset_and_a_record_that_cannot_be_decoded_is_lost_to_all() {
    let dir = TempDir::new();
    copied(dir.path(), &[0, 7, 20]);
    let path = segment(dir.path(), 0);
    let mut bytes = fs::read(&path).unwrap();
    let places = places(&bytes);
    let last = &mut bytes[places[2]..places[3]];
    last[..8].copy_from_slice(&25_i64.to_be_bytes());
    last[57..61].copy_from_slice(&2_i32.to_be_bytes());
    let crc = crc32c(&last[21..]);
    last[17..21].copy_from_slice(&crc.to_be_bytes());
    fs::write(&path, bytes).unwrap();
    let store = Store::attach(dir.path()).unwrap();
    let mut reader = store.log("t", 0).unwrap().reader(OffsetSpec::Offset(Offset(10))).unwrap();
    let batch = reader.next_batch().unwrap().unwrap();
    assert!(batch.base_offset() == 20 && batch.records().map_or(true, |mut records| records.any(|it| it.is_err())));
    drop((batch, reader, store));
    assert_eq!(lost_by_fsck(dir.path()), [(20, 23)]);
    assert_eq!(repaired(dir.path()).offsets(), [0, 1, 2, 7, 8, 9]);
}

/// The last batch of a log that was written here, closed cleanly or not: it ends where the checkpoint says, and begins
/// where the batch before ends. Readers called it lost, and so did the open.
#[test]
fn the_last_batch_of_a_log_that_was_written_here_is_read_where_it_belongs() {
    for is_closed in [true, false] {
        for claimed in [0, 45, 47, 49, 51, 1 << 41, -5, i64::MIN, i64::MAX] {
            let dir = TempDir::new();
            own(dir.path());
            if !is_closed {
                // The mark of a clean close goes with the first change of the store.
                let store = ticking().open(dir.path()).unwrap();
                store.create_topic(&NewTopic::new("other")).unwrap();
                store.log("other", 0).unwrap().append(NewRecord::value(b"v")).unwrap();
                store.abandon();
            }
            let sound = attached(dir.path());
            assert_eq!(sound.offsets(), (0..51).collect::<Vec<_>>());
            let path = segment(dir.path(), 45);
            claim_of_last_batch(&path, claimed);

            let case = format!("{claimed}, closed {is_closed}");
            assert_eq!(attached(dir.path()), sound, "{case}");
            let (store, log) = read_from_anywhere(dir.path(), &sound.records, &case);
            assert_eq!(read(&log, OffsetSpec::Last(2)).offsets(), [49, 50], "{case}");
            drop((log, store));
            let report = check(dir.path());
            assert_eq!(report.worst, Some(Severity::Heals), "{case}: {report:?}");
            assert!(inspect::check_ends(&storage(dir.path()), &Selection::all()).unwrap().is_empty(), "{case}");
            assert_eq!(lost_to_the_open(dir.path()), [], "{case}");
            assert_eq!(repaired(dir.path()), sound, "{case}");
            assert_eq!(opened(dir.path()), sound, "{case}");
            assert_eq!(check(dir.path()).worst.filter(|&worst| worst > Severity::Note), None, "{case}");
        }
    }
}
