//! One judgement: whoever reads a log (the writer after an open, an attached process, `fsck`) sees the same batches as
//! sound and the same bytes as damage, goes on at the same offset, and takes nothing sound away.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use edgelog::edgelog_core::{
    LeaderEpoch, RecordBatch, RecordBatchBuilder, crc32c, empty_batch, encode_one, stamp_base,
};
use edgelog::inspect::{self, Selection, Severity};
use edgelog::storage::{DirectoryStorage, DirectoryStorageOptions, Storage};
use edgelog::{Error, Log, LostRange, NewRecord, NewTopic, Offset, OffsetSpec, Store, TimestampMs};
use edgelog_testkit::{TempDir, ticking};

/// One batch of one record at `base`.
fn batch(base: i64, timestamp: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; value.len() + 200];
    let size = encode_one(&mut bytes, TimestampMs(timestamp), None, Some(value), &[]).unwrap();
    stamp_base(&mut bytes, Offset(base), LeaderEpoch(0));
    bytes.truncate(size);
    bytes
}

/// A partition directory as a broker has it: segments by their base offsets, and no checkpoint of ours.
fn imported(dir: &Path, segments: &[(i64, Vec<u8>)]) {
    let partition = dir.join("t-0");
    fs::create_dir_all(&partition).unwrap();
    for (base, bytes) in segments {
        fs::write(partition.join(format!("{base:020}.log")), bytes).unwrap();
    }
}

/// A store with `count` records of one batch each, closed cleanly, and its segment's bytes.
fn own(dir: &Path, count: i64) -> Vec<u8> {
    let store = ticking().open(dir).unwrap();
    store.create_topic(&NewTopic::new("t").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for n in 0..count {
        log.append(NewRecord::value(format!("record {n} {}", "-".repeat(40 + n as usize)).as_bytes())).unwrap();
    }
    store.close().unwrap();
    fs::read(segment(dir)).unwrap()
}

/// A store with nine records of 1,000 bytes, which fill a few segments, closed cleanly, and where its segments begin.
fn own_in_segments(dir: &Path) -> Vec<i64> {
    let store = ticking().open(dir).unwrap();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for _ in 0..9 {
        log.append(NewRecord::value(&[b'x'; 1000])).unwrap();
    }
    store.close().unwrap();
    bases_of(dir)
}

fn segment(dir: &Path) -> std::path::PathBuf {
    dir.join("t-0/00000000000000000000.log")
}

/// Where each batch of `bytes` starts, and where the last one ends.
fn places(bytes: &[u8]) -> Vec<usize> {
    let mut places = vec![0];
    while let Ok(batch) = RecordBatch::parse(&bytes[places[places.len() - 1]..]) {
        places.push(places[places.len() - 1] + batch.size());
    }
    places
}

/// Every offset that can be read from `from` on, and what is damaged in between.
fn read(log: &Log, from: OffsetSpec) -> (Vec<i64>, Vec<LostRange>) {
    let (mut offsets, mut lost) = (Vec::new(), Vec::new());
    let mut reader = log.reader(from).unwrap();
    loop {
        match reader.next_batch() {
            Ok(Some(batch)) => offsets.extend(batch.records().unwrap().map(|record| record.unwrap().offset.0)),
            Ok(None) => return (offsets, lost),
            Err(error) if error.is_corrupt() => lost.push(reader.skip_damage().unwrap()),
            Err(error) => panic!("{error}"),
        }
    }
}

fn ranges(lost: &[LostRange]) -> Vec<(i64, i64)> {
    lost.iter().map(|range| (range.first_offset.0, range.next_offset.0)).collect()
}

/// The offsets that fsck calls lost.
fn lost_by_fsck(dir: &Path) -> Vec<(i64, i64)> {
    let storage: Arc<dyn Storage> = Arc::new(DirectoryStorage::open(dir, DirectoryStorageOptions::default()).unwrap());
    let report = inspect::check(&storage, &Selection::all(), &mut |_| ControlFlow::Continue(())).unwrap();
    let lost = report.findings.iter().filter(|finding| finding.severity == Severity::Lost);
    lost.filter_map(|finding| finding.lost).map(|(first, next)| (first.0, next.0)).collect()
}

fn attached(dir: &Path) -> (Store, Log) {
    let store = Store::attach(dir).unwrap();
    let log = store.log("t", 0).unwrap();
    (store, log)
}

fn opened(dir: &Path) -> (Store, Log) {
    let store = ticking().open(dir).unwrap();
    let log = store.log("t", 0).unwrap();
    (store, log)
}

/// All three say the same of what is there and of what is lost.
fn all_agree(dir: &Path, offsets: &[i64], lost: &[(i64, i64)]) {
    let (_store, log) = attached(dir);
    let (seen, damage) = read(&log, OffsetSpec::Earliest);
    assert_eq!((&seen[..], &ranges(&damage)[..]), (offsets, lost), "attached");
    assert_eq!(lost_by_fsck(dir), lost, "fsck");
    let (_store, log) = opened(dir);
    let (seen, damage) = read(&log, OffsetSpec::Earliest);
    assert_eq!((&seen[..], &ranges(&damage)[..]), (offsets, lost), "opened");
}

#[test]
fn a_reader_in_a_log_with_holes_begins_at_the_record_asked_for_or_the_next() {
    let dir = TempDir::new();
    let offsets = [0, 1, 10, 20, 30, 40, 41];
    let bytes = |range: &[i64]| range.iter().flat_map(|&n| batch(n, 1000 + n, b"value")).collect::<Vec<u8>>();
    imported(dir.path(), &[(0, bytes(&offsets[..4])), (25, bytes(&offsets[4..]))]);
    all_agree(dir.path(), &offsets, &[]);
    let check = |log: &Log| {
        for from in 0..42 {
            let expected: Vec<i64> = offsets.iter().copied().filter(|&n| n >= from).collect();
            assert_eq!(read(log, OffsetSpec::Offset(Offset(from))).0, expected, "from {from}");
            assert_eq!(read(log, OffsetSpec::Timestamp(TimestampMs(1000 + from))).0, expected, "from time {from}");
        }
        for count in 0..9_usize {
            let expected = &offsets[offsets.len().saturating_sub(count)..];
            assert_eq!(read(log, OffsetSpec::Last(count as u64)).0, expected, "last {count}");
        }
    };
    check(&attached(dir.path()).1);
    check(&opened(dir.path()).1);
}

/// A batch at the greatest number holds, and no log can go on behind it: none of its records is given out, and all say
/// so.
#[test]
fn a_batch_at_an_offset_that_none_can_have_is_reported_by_all() {
    let max = i64::MAX;
    for batches in [vec![batch(max - 1, 1000, b"value"), batch(max, 1000, b"value")], vec![batch(max, 1000, b"value")]]
    {
        let dir = TempDir::new();
        let first = if batches.len() == 2 { max - 1 } else { max };
        imported(dir.path(), &[(first, batches.concat())]);
        let storage = inspect::open_directory(dir.path()).unwrap();
        let name = "t-0".parse().unwrap();
        let hidden = inspect::check_hidden(&storage, &name).unwrap();
        assert!(hidden.len() == 1 && hidden[0].severity == Severity::Lost, "{hidden:?}");
        assert!(hidden[0].text.contains("out of range"), "{hidden:?}");
        let go_on = &mut |_| ControlFlow::Continue(());
        let report = inspect::check(&storage, &Selection::all(), go_on).unwrap();
        assert!(report.findings.contains(&hidden[0]), "{report:?}");
        let mut seen = 0;
        let mut tell = |_: &edgelog::Record<'_>, _| {
            seen += 1;
            Ok(())
        };
        let range = inspect::ExportRange::default();
        let exported = inspect::export_records(&storage, &name, range, &mut tell, go_on).unwrap();
        assert_eq!(exported.lost, hidden);
        assert_eq!(seen, batches.len() - 1);
    }
}

/// Segments, and the offsets of their records.
type Case<'a> = (&'a [(i64, Vec<u8>)], &'a [i64]);

#[test]
fn a_copied_partition_is_whole_before_its_first_open() {
    let one = |n: i64| batch(n, 1000, b"value");
    // A hole between segments, an empty segment, segments that overlap, one that lies within another.
    let cases: [Case<'_>; 4] = [
        (&[(0, [one(0), one(1)].concat()), (5, [one(5), one(6)].concat()), (9, one(9))], &[0, 1, 5, 6, 9]),
        (&[(0, one(0)), (3, Vec::new()), (7, one(7))], &[0, 7]),
        (&[(0, [one(0), one(1), one(2)].concat()), (1, [one(1), one(2), one(3)].concat())], &[0, 1, 2, 3]),
        (&[(0, [one(0), one(1), one(2), one(3)].concat()), (1, one(1))], &[0, 1, 2, 3]),
    ];
    for (segments, offsets) in cases {
        let dir = TempDir::new();
        imported(dir.path(), segments);
        all_agree(dir.path(), offsets, &[]);
        // Nothing is given out twice.
        let (_store, log) = opened(dir.path());
        let end = offsets[offsets.len() - 1] + 1;
        assert_eq!(log.append(NewRecord::value(b"next")).unwrap().base_offset, end);
    }
}

#[test]
fn bytes_that_were_inserted_move_a_batch_and_take_nothing() {
    for at in 0..6 {
        let dir = TempDir::new();
        let bytes = own(dir.path(), 6);
        let place = places(&bytes)[at];
        fs::write(segment(dir.path()), [&bytes[..place], b"ten bytes!", &bytes[place..]].concat()).unwrap();
        let (_store, log) = attached(dir.path());
        assert_eq!(read(&log, OffsetSpec::Earliest).0, [0, 1, 2, 3, 4, 5], "attached, before batch {at}");
        let (store, log) = opened(dir.path());
        assert_eq!(read(&log, OffsetSpec::Earliest).0, [0, 1, 2, 3, 4, 5], "opened, before batch {at}");
        let cut: Vec<_> = store.recovery_report().logs.into_iter().flat_map(|log| log.cut).collect();
        assert!(cut.iter().all(|tail| tail.valid_offsets.is_none()), "{cut:?}");
        assert_eq!(log.append(NewRecord::value(b"next")).unwrap().base_offset, 6);
    }
}

/// No checksum covers a base offset. Behind damage, one of random bytes was believed by an attached process, which then
/// handed out records at wrong offsets and hid those behind.
#[test]
fn a_base_offset_that_damage_has_raised_is_believed_by_nobody() {
    for raised in [7, 500, 1 << 20, 1 << 40, i64::MAX / 3] {
        let dir = TempDir::new();
        let mut bytes = own(dir.path(), 8);
        let places = places(&bytes);
        bytes[places[2] + 70] ^= 1;
        bytes[places[3]..places[3] + 8].copy_from_slice(&i64::to_be_bytes(raised));
        fs::write(segment(dir.path()), &bytes).unwrap();
        all_agree(dir.path(), &[0, 1, 4, 5, 6, 7], &[(2, 4)]);
    }
}

/// Where offsets need only rise, a raised base offset may look like a hole, and the batch behind it like damage.
#[test]
fn a_base_offset_raised_by_less_than_a_batch_has_hides_nothing() {
    for (raised, is_opened) in [(3, false), (4, false), (3, true), (4, true)] {
        let dir = TempDir::new();
        let batches = [batch_of(0, 2), batch_of(2, 3), batch_of(5, 3)];
        imported(dir.path(), &[(0, batches.concat())]);
        if is_opened {
            opened(dir.path()).0.close().unwrap();
        }
        let mut bytes = fs::read(segment(dir.path())).unwrap();
        bytes[batches[0].len() + 7] = raised;
        fs::write(segment(dir.path()), &bytes).unwrap();
        all_agree(dir.path(), &[0, 1, 5, 6, 7], &[(2, 5)]);
    }
}

/// The last batch below the recovery point, raised so that it reaches over the point: all read it where it ends. An
/// open goes on behind the point, where nothing would contradict the batch any more: so it puts the offset right.
#[test]
fn a_base_offset_raised_over_the_recovery_point_takes_nothing_and_an_open_puts_it_right() {
    for raised in [1, 2, 7, 1000, 1 << 33] {
        let dir = TempDir::new();
        let batches = [batch_of(0, 2), batch_of(2, 2), batch_of(6, 2), batch_of(8, 2)];
        imported(dir.path(), &[(0, batches.concat())]);
        opened(dir.path()).0.close().unwrap();
        let mut bytes = fs::read(segment(dir.path())).unwrap();
        let at = batches[..3].concat().len();
        bytes[at..at + 8].copy_from_slice(&i64::to_be_bytes(8 + raised));
        fs::write(segment(dir.path()), &bytes).unwrap();
        let whole = TempDir::new();
        edgelog_testkit::copy_dir(dir.path(), whole.path());
        repair(whole.path());
        let (_store, log) = attached(whole.path());
        assert_eq!(read(&log, OffsetSpec::Earliest), (vec![0, 1, 2, 3, 6, 7, 8, 9], vec![]), "{raised}: repaired");

        let (_store, log) = attached(dir.path());
        let (seen, lost) = read(&log, OffsetSpec::Earliest);
        assert_eq!((&seen[..], &ranges(&lost)[..]), (&[0, 1, 2, 3, 6, 7, 8, 9][..], &[][..]), "{raised}");
        assert_eq!(lost_by_fsck(dir.path()), [], "{raised}");
        for (from, count) in [(6, 4), (8, 2), (9, 1)] {
            let (seen, lost) = read(&log, OffsetSpec::Offset(Offset(from)));
            assert_eq!((seen.len(), lost), (count, vec![]), "{raised}: from {from}");
        }
        let (store, log) = opened(dir.path());
        assert_eq!(read(&log, OffsetSpec::Earliest), (vec![0, 1, 2, 3, 6, 7, 8, 9], vec![]), "{raised}: opened");
        let report = store.recovery_report();
        assert_eq!((report.lost_offsets(), report.logs[0].put_right.len()), (0, 1), "{raised}: {report}");
        store.close().unwrap();
        assert_eq!(append_and_find(dir.path()), 10, "{raised}");
        all_agree(dir.path(), &[0, 1, 2, 3, 6, 7, 8, 9, 10], &[]);
    }
}

/// A log of six records in a store that was closed, and `count` more by a writer that was killed, all acknowledged.
/// Damage has made the base offset of the one at `offset` say `claimed`.
fn killed_and_raised(dir: &Path, count: usize, offset: usize, claimed: i64) {
    own(dir, 6);
    let (store, log) = opened(dir);
    for _ in 0..count {
        log.append(NewRecord::value(b"acknowledged")).unwrap();
    }
    store.abandon();
    drop((log, store));
    let mut bytes = fs::read(segment(dir)).unwrap();
    let at = places(&bytes)[offset];
    bytes[at..at + 8].copy_from_slice(&claimed.to_be_bytes());
    fs::write(segment(dir), &bytes).unwrap();
}

/// Puts the base offset right, opens and closes the store, and raises it again.
fn own_again_and_raise(dir: &Path, raised: i64) {
    for (from, to) in [(8 + raised, 8), (8, 8 + raised)] {
        let mut bytes = fs::read(segment(dir)).unwrap();
        let at = places(&bytes)[8];
        assert_eq!(bytes[at..at + 8], from.to_be_bytes());
        bytes[at..at + 8].copy_from_slice(&i64::to_be_bytes(to));
        fs::write(segment(dir), &bytes).unwrap();
        if to == 8 {
            opened(dir).0.close().unwrap();
        }
    }
}

/// Above the recovery point, in the boot that wrote it: no stop of the writer gives a batch that holds another offset.
#[test]
fn a_raised_base_offset_at_the_end_of_a_log_is_reported_as_a_loss() {
    for raised in [1, 2, 1000, 1 << 33] {
        let dir = TempDir::new();
        killed_and_raised(dir.path(), 3, 8, 8 + raised);
        assert_eq!(lost_by_fsck(dir.path()), [(8, 9)], "{raised}");
        let storage: Arc<dyn Storage> =
            Arc::new(DirectoryStorage::open(dir.path(), DirectoryStorageOptions::default()).unwrap());
        let hidden = inspect::check_hidden(&storage, &"t-0".parse().unwrap()).unwrap();
        assert_eq!(hidden.iter().map(|found| found.lost).collect::<Vec<_>>(), [Some((Offset(8), Offset(9)))]);
        let (store, log) = opened(dir.path());
        assert_eq!(read(&log, OffsetSpec::Earliest).0.len(), 8);
        let report = store.recovery_report();
        assert_eq!(report.lost_offsets(), 1, "{raised}: {report}");
        assert!(report.to_string().contains("repair --salvage"), "{report}");
    }
}

/// Sound batches behind one that damage has raised are set aside with it: as many as there are, by the offsets that
/// they have, and the dry run of a repair says so before.
#[test]
fn what_stands_behind_a_raised_base_offset_is_counted_when_it_is_set_aside() {
    let dir = TempDir::new();
    killed_and_raised(dir.path(), 5, 7, 1 << 33);
    assert_eq!(lost_by_fsck(dir.path()), [(7, 11)]);
    let storage: Arc<dyn Storage> =
        Arc::new(DirectoryStorage::open(dir.path(), DirectoryStorageOptions::default()).unwrap());
    let dry = inspect::repair(&storage, &Selection::all(), true, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(dry.actions.iter().any(|action| action.text.contains("offsets 8 to 10")), "{:?}", dry.actions);
    let report = opened(dir.path()).0.recovery_report();
    assert_eq!(report.set_aside_offsets(), 3, "{report}");
    assert_eq!(report.logs[0].cut[0].valid_offsets, Some((Offset(8), Offset(10))), "{report}");
}

/// The checkpoint of a killed store is lost: what was written here has no hole before its last batch.
#[test]
fn without_a_checkpoint_a_raised_base_offset_at_the_end_of_an_own_log_is_a_loss() {
    for (raised, is_closed) in [(1, true), (1000, true), (1 << 33, true), (1, false), (1000, false), (1 << 33, false)] {
        let dir = TempDir::new();
        killed_and_raised(dir.path(), 3, 8, 8 + raised);
        if is_closed {
            own_again_and_raise(dir.path(), raised);
        }
        fs::remove_file(dir.path().join("edgelog.checkpoint")).unwrap();
        let (_store, log) = attached(dir.path());
        let (seen, _) = read(&log, OffsetSpec::Earliest);
        assert_eq!(seen, (0..8).collect::<Vec<_>>(), "{raised}, closed {is_closed}: attached");
        assert_eq!(lost_by_fsck(dir.path()), [(8, 9)], "{raised}, closed {is_closed}");
        let (store, log) = opened(dir.path());
        assert_eq!(read(&log, OffsetSpec::Earliest).0, (0..8).collect::<Vec<_>>(), "{raised}: opened");
        assert!(store.recovery_report().lost_offsets() == 1, "{raised}: {}", store.recovery_report());
    }
}

/// Above the recovery point of a log that was copied here, all was written here: no batch leaves a hole before it.
#[test]
fn a_raised_base_offset_behind_what_was_copied_here_is_a_loss() {
    for raised in [1, 2, 1000, 1 << 33] {
        let dir = TempDir::new();
        imported(dir.path(), &[(0, [batch_of(0, 2), batch_of(6, 2)].concat())]);
        opened(dir.path()).0.close().unwrap();
        let (store, log) = opened(dir.path());
        for _ in 0..3 {
            log.append(NewRecord::value(b"acknowledged")).unwrap();
        }
        store.abandon();
        drop((log, store));
        let last = dir.path().join(format!("t-0/{:020}.log", 8));
        let mut bytes = fs::read(&last).unwrap();
        let at = places(&bytes)[2];
        bytes[at..at + 8].copy_from_slice(&i64::to_be_bytes(10 + raised));
        fs::write(&last, &bytes).unwrap();
        let (_store, log) = attached(dir.path());
        assert_eq!(read(&log, OffsetSpec::Earliest).0, [0, 1, 6, 7, 8, 9], "{raised}");
        assert_eq!(lost_by_fsck(dir.path()), [(10, 11)], "{raised}");
        let (store, log) = opened(dir.path());
        assert_eq!(read(&log, OffsetSpec::Earliest).0, [0, 1, 6, 7, 8, 9], "{raised}");
        assert_eq!(store.recovery_report().lost_offsets(), 1, "{raised}: {}", store.recovery_report());
    }
}

/// A copy that was never opened: the last entry of an index, or a snapshot that a broker left at a clean stop, says
/// where the last batch ends.
#[test]
fn a_raised_base_offset_at_the_end_of_a_copy_is_contradicted_by_the_files_next_to_it() {
    for raised in [1, 2, 1000, 1 << 33] {
        for witness in ["index", "timeindex", "snapshot", "none"] {
            let dir = TempDir::new();
            let batches = [batch_of(0, 2), batch_of(6, 2), batch_of(8, 2)];
            let mut bytes = batches.concat();
            let at = batches[..2].concat().len();
            bytes[at..at + 8].copy_from_slice(&i64::to_be_bytes(8 + raised));
            imported(dir.path(), &[(0, bytes)]);
            let entry = match witness {
                "index" => [9_i32.to_be_bytes(), (at as i32).to_be_bytes()].concat(),
                "timeindex" => [&1_700_000_000_000_i64.to_be_bytes()[..], &9_i32.to_be_bytes()].concat(),
                _ => Vec::new(),
            };
            let name = if witness == "snapshot" { 10 } else { 0 };
            if witness != "none" {
                fs::write(dir.path().join(format!("t-0/{name:020}.{witness}")), entry).unwrap();
            }
            if witness == "none" {
                // Nothing says anything else: compaction leaves such a hole.
                let offsets = [0, 1, 6, 7, 8 + raised, 9 + raised];
                all_agree(dir.path(), &offsets, &[]);
                continue;
            }
            let (_store, log) = attached(dir.path());
            let (seen, _) = read(&log, OffsetSpec::Earliest);
            assert_eq!(seen, [0, 1, 6, 7, 8, 9], "{raised}, {witness}: attached");
            assert_eq!(lost_by_fsck(dir.path()), [], "{raised}, {witness}");
            let repaired = TempDir::new();
            edgelog_testkit::copy_dir(dir.path(), repaired.path());
            repair(repaired.path());
            all_agree(repaired.path(), &[0, 1, 6, 7, 8, 9], &[]);
            let (store, log) = opened(dir.path());
            assert_eq!(read(&log, OffsetSpec::Earliest), (vec![0, 1, 6, 7, 8, 9], vec![]), "{raised}, {witness}");
            let report = store.recovery_report();
            assert_eq!((report.lost_offsets(), report.logs[0].put_right.len()), (0, 1), "{raised}: {report}");
            store.close().unwrap();
            assert_eq!(append_and_find(dir.path()), 10, "{raised}, {witness}");
        }
    }
}

/// Without a checkpoint, one odd batch does not make a log another's: a file of our own says that every record of it
/// was appended here.
#[test]
fn without_a_checkpoint_one_damaged_field_is_damage_and_not_another_origin() {
    type Damage = fn(&mut Vec<u8>, &[usize]);
    let cases: [(Damage, &[i64], (i64, i64)); 3] = [
        (|bytes, places| drop(bytes.drain(places[3]..places[4])), &[0, 1, 2, 4, 5, 6, 7], (3, 4)),
        (|bytes, places| bytes[places[3] + 7] = 30, &[0, 1, 2, 4, 5, 6, 7], (3, 4)),
        (
            |bytes, places| {
                bytes[places[3] + 26] = 1;
                let crc = crc32c(&bytes[places[3] + 21..places[4]]);
                bytes[places[3] + 17..places[3] + 21].copy_from_slice(&crc.to_be_bytes());
            },
            &[0, 1, 2, 4, 5, 6, 7],
            (3, 4),
        ),
    ];
    for (damage, offsets, lost) in cases {
        let dir = TempDir::new();
        let mut bytes = own(dir.path(), 8);
        let places = places(&bytes);
        damage(&mut bytes, &places);
        fs::write(segment(dir.path()), &bytes).unwrap();
        fs::remove_file(dir.path().join("edgelog.checkpoint")).unwrap();
        all_agree(dir.path(), offsets, &[lost]);
    }
}

/// Without a checkpoint, what is sound in the last segment stays in the log behind one that ends in damage.
#[test]
fn without_a_checkpoint_the_last_segment_stays_behind_one_that_is_cut_short() {
    let dir = TempDir::new();
    let bases = own_in_segments(dir.path());
    let [.., before, last] = bases[..] else { panic!("{bases:?}") };
    let path = dir.path().join(format!("t-0/{before:020}.log"));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 30]).unwrap();
    fs::remove_file(dir.path().join("edgelog.checkpoint")).unwrap();
    let offsets: Vec<i64> = (0..9).filter(|&offset| offset != last - 1).collect();
    all_agree(dir.path(), &offsets, &[(last - 1, last)]);
}

#[test]
fn a_file_that_lost_its_end_at_a_batch_boundary_is_reported() {
    for kept in 0..5 {
        let dir = TempDir::new();
        let bytes = own(dir.path(), 5);
        fs::write(segment(dir.path()), &bytes[..places(&bytes)[kept]]).unwrap();
        let offsets: Vec<i64> = (0..kept as i64).collect();
        all_agree(dir.path(), &offsets, &[(kept as i64, 5)]);
        let (_store, log) = opened(dir.path());
        assert_eq!(log.append(NewRecord::value(b"next")).unwrap().base_offset, 5);
    }
}

#[test]
fn a_batch_as_large_as_its_topic_allows_is_sound_to_all() {
    let dir = TempDir::new();
    let store = ticking().open(dir.path()).unwrap();
    let large = NewTopic::new("t").config("max.message.bytes", "100000000").config("segment.bytes", "200000000");
    store.create_topic(&large).unwrap();
    let log = store.log("t", 0).unwrap();
    log.append(NewRecord::value(&vec![b'x'; 70 << 20])).unwrap();
    log.append(NewRecord::value(b"behind")).unwrap();
    store.close().unwrap();
    all_agree(dir.path(), &[0, 1], &[]);
    // Behind damage, too.
    let mut bytes = fs::read(segment(dir.path())).unwrap();
    let second = batch(2, 1000, &vec![b'y'; 70 << 20]);
    let behind = bytes.len();
    bytes.extend_from_slice(b"damage");
    bytes.extend_from_slice(&second);
    fs::write(segment(dir.path()), &bytes).unwrap();
    let (store, log) = attached(dir.path());
    assert_eq!(read(&log, OffsetSpec::Earliest).0[..2], [0, 1]);
    drop((store, log));
    let storage: Arc<dyn Storage> =
        Arc::new(DirectoryStorage::open(dir.path(), DirectoryStorageOptions::default()).unwrap());
    let report = inspect::repair(&storage, &Selection::all(), false, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.after.is_none_or(|after| after.is_sound()));
    let (_store, log) = opened(dir.path());
    assert_eq!(read(&log, OffsetSpec::Earliest).0[..2], [0, 1], "{behind}");
}

/// A batch of `records` records at `base`.
fn batch_of(base: i64, records: usize) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; 100 + 100 * records]);
    for n in 0..records {
        let value = format!("value {}", base + n as i64);
        builder.append(TimestampMs(1000), None, Some(value.as_bytes()), &[]).unwrap();
    }
    stamp_base(builder.finish(), Offset(base), LeaderEpoch(0));
    let size = builder.size();
    builder.into_buffer()[..size].to_vec()
}

/// Appends one record, closes, and answers where it was acknowledged; an attached process then finds it there.
fn append_and_find(dir: &Path) -> i64 {
    let (store, log) = opened(dir);
    let given = log.append(NewRecord::value(b"acknowledged")).unwrap().base_offset;
    store.close().unwrap();
    let (_store, log) = attached(dir);
    let mut reader = log.reader(OffsetSpec::Offset(given)).unwrap();
    let batch = reader.next_batch().unwrap().expect("what was acknowledged");
    let record = batch.records().unwrap().next().unwrap().unwrap();
    assert_eq!((record.offset, record.value), (given, Some(&b"acknowledged"[..])));
    given.0
}

fn repair(dir: &Path) {
    let storage: Arc<dyn Storage> = Arc::new(DirectoryStorage::open(dir, DirectoryStorageOptions::default()).unwrap());
    inspect::repair(&storage, &Selection::all(), false, &mut |_| ControlFlow::Continue(())).unwrap();
}

/// Batches end at the recovery point of the checkpoint that goes with them. Where one reaches over it, the files were
/// put there later, and no byte of them is damaged.
#[test]
fn a_recovery_point_inside_a_batch_takes_nothing_away() {
    for repaired in [false, true] {
        let dir = TempDir::new();
        own(dir.path(), 3);
        let other = [batch_of(0, 2), batch_of(2, 2), batch_of(4, 2)].concat();
        fs::write(segment(dir.path()), other).unwrap();
        let all = [0, 1, 2, 3, 4, 5];
        assert_eq!(read(&attached(dir.path()).1, OffsetSpec::Earliest).0, all, "attached");
        if repaired {
            repair(dir.path());
        }
        assert_eq!(append_and_find(dir.path()), 6);
        assert_eq!(read(&opened(dir.path()).1, OffsetSpec::Earliest).0, [0, 1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn a_segment_that_overlaps_the_recovery_point_loses_nothing() {
    for (base, bytes) in [(2, [batch_of(2, 2), batch_of(4, 1)].concat()), (1, batch_of(1, 4))] {
        let dir = TempDir::new();
        own(dir.path(), 3);
        fs::write(dir.path().join(format!("t-0/{base:020}.log")), bytes).unwrap();
        let before = read(&attached(dir.path()).1, OffsetSpec::Earliest).0;
        assert_eq!(before, [0, 1, 2, 3, 4]);
        assert_eq!(append_and_find(dir.path()), 5);
        repair(dir.path());
        assert_eq!(read(&attached(dir.path()).1, OffsetSpec::Earliest).0, [0, 1, 2, 3, 4, 5]);
    }
}

/// The writer went by the checkpoint and readers by the batches: an append was acknowledged at an offset that readers
/// gave to the batch before.
#[test]
fn an_append_behind_a_batch_that_says_too_much_is_found_where_it_was_acknowledged() {
    let changes: [fn(&mut [u8]); 2] = [
        |last| last[7] += 1,
        |last| {
            last[26] += 1;
            let crc = crc32c(&last[21..]);
            last[17..21].copy_from_slice(&crc.to_be_bytes());
        },
    ];
    for change in changes {
        let dir = TempDir::new();
        let before = [batch(0, 1000, b"v"), batch(1, 1000, b"v"), batch(5, 1000, b"v")].concat();
        imported(dir.path(), &[(0, [&before[..], &batch(6, 1000, b"v")].concat())]);
        // Closed cleanly: the checkpoint knows the log, and that it ends at 7.
        opened(dir.path()).0.close().unwrap();
        let mut bytes = fs::read(segment(dir.path())).unwrap();
        change(&mut bytes[before.len()..]);
        fs::write(segment(dir.path()), bytes).unwrap();
        append_and_find(dir.path());
        append_and_find(dir.path());
    }
}

/// The checkpoint's end says which of two batches that contradict each other is the damaged one.
#[test]
fn the_batch_that_ends_at_the_recovery_point_is_believed() {
    let dir = TempDir::new();
    let places = [batch_of(0, 2), batch_of(4, 2), batch_of(6, 5), batch_of(11, 5)];
    imported(dir.path(), &[(0, places.concat())]);
    opened(dir.path()).0.close().unwrap();
    let mut bytes = fs::read(segment(dir.path())).unwrap();
    bytes[places[0].len() + places[1].len() + 7] += 2;
    fs::write(segment(dir.path()), bytes).unwrap();
    let sound = [0, 1, 4, 5, 11, 12, 13, 14, 15];
    all_agree(dir.path(), &sound, &[(6, 11)]);
    assert_eq!(append_and_find(dir.path()), 16);
    assert_eq!(read(&attached(dir.path()).1, OffsetSpec::Earliest).0, [&sound[..], &[16]].concat());
}

/// A segment begins only when all is durable but for eight before it: what an older checkpoint does not say yet.
#[test]
fn damage_that_an_older_checkpoint_does_not_cover_is_damage_all_the_same() {
    let dir = TempDir::new();
    let store = ticking().open(dir.path()).unwrap();
    store.create_topic(&NewTopic::new("t").config("retention.ms", "-1").config("segment.bytes", "4096")).unwrap();
    let append = |store: &Store, count: i64| {
        let log = store.log("t", 0).unwrap();
        for n in 0..count {
            log.append(NewRecord::value(format!("record {n} {}", "-".repeat(200)).as_bytes())).unwrap();
        }
    };
    append(&store, 10);
    store.close().unwrap();
    let checkpoint = dir.path().join("edgelog.checkpoint");
    let older = fs::read(&checkpoint).unwrap();
    let store = ticking().open(dir.path()).unwrap();
    append(&store, 300);
    store.close().unwrap();
    fs::write(&checkpoint, older).unwrap();
    let mut segments: Vec<_> =
        fs::read_dir(dir.path().join("t-0")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    assert!(segments.len() > 18, "{} segments", segments.len());
    let damaged = &segments[segments.len() / 2];
    let mut bytes = fs::read(damaged).unwrap();
    let lost = i64::from_be_bytes(bytes[..8].try_into().unwrap());
    bytes[70] ^= 1;
    fs::write(damaged, bytes).unwrap();
    let sound: Vec<i64> = (0..310).filter(|&n| n != lost).collect();
    all_agree(dir.path(), &sound, &[(lost, lost + 1)]);
}

/// No power cut takes a checkpoint away. Where it is gone, nothing behind damage is what a cut has left.
#[test]
fn without_a_checkpoint_what_is_sound_behind_damage_stays_in_the_log() {
    let dir = TempDir::new();
    let mut bytes = own(dir.path(), 10);
    let damaged = places(&bytes)[3];
    bytes[damaged + 70] ^= 1;
    fs::write(segment(dir.path()), bytes).unwrap();
    fs::remove_file(dir.path().join("edgelog.checkpoint")).unwrap();
    let sound = [0, 1, 2, 4, 5, 6, 7, 8, 9];
    assert_eq!(read(&attached(dir.path()).1, OffsetSpec::Earliest).0, sound);
    assert_eq!(append_and_find(dir.path()), 10);
    assert_eq!(read(&attached(dir.path()).1, OffsetSpec::Earliest).0, [&sound[..], &[10]].concat());
}

/// Kafka refuses a segment of more than 2^31 - 1 bytes. It is read here, and neither cut nor moved.
#[cfg(target_pointer_width = "64")]
#[test]
fn a_segment_longer_than_a_segment_can_be_is_read_and_left_alone() {
    use std::os::unix::fs::FileExt;
    let dir = TempDir::new();
    let (large, small) = (batch(0, 1000, &vec![0; 64 << 20]), batch(0, 1000, b"v"));
    imported(dir.path(), &[(0, Vec::new())]);
    let file = fs::OpenOptions::new().write(true).open(segment(dir.path())).unwrap();
    let mut at = 0;
    for n in 0..36_i64 {
        let bytes = if n < 34 { &large } else { &small };
        // The value is zeros, which a file need not hold.
        file.write_all_at(&n.to_be_bytes(), at).unwrap();
        file.write_all_at(&bytes[8..bytes.len().min(200)], at + 8).unwrap();
        at += bytes.len() as u64;
    }
    file.set_len(at).unwrap();
    let all: Vec<i64> = (0..36).collect();
    assert_eq!(read(&attached(dir.path()).1, OffsetSpec::Earliest).0, all);
    let store = ticking().open(dir.path()).unwrap();
    let error = store.log("t", 0).unwrap_err().to_string();
    assert!(error.contains("2147483647"), "{error}");
    store.close().unwrap();
    assert_eq!((file.metadata().unwrap().len(), places_in(dir.path())), (at, 1));
}

/// How many `.log` and `.cut` files the partition has.
#[cfg(target_pointer_width = "64")]
fn places_in(dir: &Path) -> usize {
    let names = fs::read_dir(dir.join("t-0")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| [".log", ".cut"].iter().any(|end| name.to_string_lossy().ends_with(end))).count()
}

/// A follower that was attached before never shows a record of the new topic behind one of the old.
#[test]
fn a_topic_that_was_created_again_is_not_read_for_the_old_one() {
    let dir = TempDir::new();
    let store = ticking().open(dir.path()).unwrap();
    let topic = NewTopic::new("t").config("segment.bytes", "4096");
    let fill = |values: std::ops::Range<i64>| {
        store.create_topic(&topic).unwrap();
        let log = store.log("t", 0).unwrap();
        for n in values {
            log.append(NewRecord::value(format!("value {n} {}", "-".repeat(200)).as_bytes())).unwrap();
        }
    };
    fill(0..100);
    // One reader is behind, in a segment that it has not opened; one is at the end.
    let (_behind, log) = attached(dir.path());
    let mut behind = log.reader(OffsetSpec::Earliest).unwrap();
    let mut at_end = log.reader(OffsetSpec::Latest).unwrap();
    assert_eq!(behind.next_batch().unwrap().unwrap().base_offset(), 0);
    assert!(at_end.next_batch().unwrap().is_none());
    store.delete_topic("t").unwrap();
    fill(1000..1200);
    let mut offsets = 1;
    let ended = loop {
        match behind.next_batch() {
            Ok(Some(batch)) => {
                let record = batch.records().unwrap().next().unwrap().unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                assert!(value.starts_with(&format!("value {offsets} ")), "{value}");
                offsets += 1;
            }
            Ok(None) => panic!("the end at {offsets}: the old topic's is not known to be the end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, Error::LogReplaced { .. }), "{ended}");
    assert!(matches!(at_end.next_batch(), Err(Error::LogReplaced { .. })));
    // Who attaches now reads the new one.
    let (_new, log) = attached(dir.path());
    assert_eq!(read(&log, OffsetSpec::Earliest).0.len(), 200);
}

/// Kafka's positions are 31 bits wide. What a file holds beyond them is no part of a segment, and is not destroyed.
#[test]
fn what_lies_beyond_two_gibibytes_is_kept() {
    use std::os::unix::fs::FileExt;
    let dir = TempDir::new();
    own(dir.path(), 3);
    let file = fs::OpenOptions::new().write(true).open(segment(dir.path())).unwrap();
    file.write_all_at(b"far behind", (1 << 31) + 5).unwrap();
    drop(file);
    let (store, log) = opened(dir.path());
    assert_eq!(read(&log, OffsetSpec::Earliest).0, [0, 1, 2]);
    let cut = store.recovery_report().logs.into_iter().flat_map(|log| log.cut).next().unwrap();
    let kept = fs::File::open(dir.path().join(cut.kept_in.unwrap())).unwrap();
    let mut bytes = [0; 10];
    kept.read_exact_at(&mut bytes, (1 << 31) + 5).unwrap();
    assert_eq!(&bytes, b"far behind");
}

/// Where the segments of the log begin.
fn bases_of(dir: &Path) -> Vec<i64> {
    let names = fs::read_dir(dir.join("t-0")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut bases: Vec<i64> = names.filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    bases.sort_unstable();
    bases
}

/// A whole batch is gone from a log that was written here, and what stands behind it goes on from it: the batch right
/// there is no damage, and stays.
#[test]
fn a_batch_behind_a_missing_one_is_read_and_kept() {
    for is_known in [true, false] {
        for missing in [2, 5, 6] {
            let dir = TempDir::new();
            let mut bytes = own(dir.path(), 8);
            let places = places(&bytes);
            drop(bytes.drain(places[missing]..places[missing + 1]));
            fs::write(segment(dir.path()), &bytes).unwrap();
            if !is_known {
                if missing == 6 {
                    // Nothing says whether the base offset of the last batch is damaged, or one before it is missing.
                    continue;
                }
                fs::remove_file(dir.path().join("edgelog.checkpoint")).unwrap();
            }
            let missing = missing as i64;
            let offsets: Vec<i64> = (0..8).filter(|&offset| offset != missing).collect();
            let repaired = TempDir::new();
            edgelog_testkit::copy_dir(dir.path(), repaired.path());
            repair(repaired.path());
            assert_eq!(
                read(&attached(repaired.path()).1, OffsetSpec::Earliest),
                (offsets.clone(), vec![]),
                "{missing}"
            );
            all_agree(dir.path(), &offsets, &[(missing, missing + 1)]);
        }
    }
}

/// A recovery point that its own position contradicts takes nothing: what is sound behind it stays.
#[test]
fn a_recovery_point_in_a_segment_that_ends_before_it_cuts_nothing() {
    let dir = TempDir::new();
    let bases = own_in_segments(dir.path());
    let [.., sealed, _] = bases[..] else { panic!("{bases:?}") };
    change_checkpoint(dir.path(), |point| {
        point[8..16].copy_from_slice(&sealed.to_be_bytes());
        point[16..20].copy_from_slice(&1080_i32.to_be_bytes());
    });
    let (_store, log) = attached(dir.path());
    assert_eq!(read(&log, OffsetSpec::Earliest), ((0..9).collect(), vec![]));
    let (store, log) = opened(dir.path());
    assert_eq!(read(&log, OffsetSpec::Earliest), ((0..9).collect(), vec![]));
    let report = store.recovery_report().to_string();
    assert!(report.contains("not believed") && !report.contains(".cut"), "{report}");
}

/// Changes the recovery point of the one log in both slots of the checkpoint: offset, base offset, position.
fn change_checkpoint(dir: &Path, change: impl Fn(&mut [u8])) {
    let path = dir.join("edgelog.checkpoint");
    let mut bytes = fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    for slot in [&mut bytes[..half].to_vec(), &mut bytes[half..].to_vec()].into_iter().enumerate() {
        let (n, slot) = slot;
        let len = u32::from_be_bytes(slot[12..16].try_into().unwrap()) as usize;
        // The payload begins with the name's length and the name; then identity, origin and log start.
        let at = 64 + 2 + 3 + 16 + 1 + 8;
        change(&mut slot[at..at + 20]);
        let crc = crc32fast::hash(&slot[12..64 + len]);
        slot[8..12].copy_from_slice(&crc.to_be_bytes());
        bytes[n * half..(n + 1) * half].copy_from_slice(slot);
    }
    fs::write(&path, &bytes).unwrap();
}

/// The name of a segment is not covered by anything: a hole of 2^62 offsets is not filled. The batches say where the
/// segment begins; where the first one is damaged, the file is kept aside.
#[test]
fn a_segment_whose_name_is_far_beyond_the_log_is_not_led_up_to() {
    for (is_known, is_damaged) in [(true, true), (true, false), (false, true), (false, false)] {
        let dir = TempDir::new();
        let last = *own_in_segments(dir.path()).last().unwrap();
        let path = |base: i64| dir.path().join(format!("t-0/{base:020}.log"));
        fs::rename(path(last), path(1 << 62)).unwrap();
        if is_damaged {
            let mut bytes = fs::read(path(1 << 62)).unwrap();
            bytes[80] ^= 1;
            fs::write(path(1 << 62), bytes).unwrap();
        }
        if !is_known {
            fs::remove_file(dir.path().join("edgelog.checkpoint")).unwrap();
        }
        repair(dir.path());
        let bytes: u64 =
            fs::read_dir(dir.path().join("t-0")).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 200_000, "{bytes} bytes, the checkpoint known: {is_known}");
        let (_store, log) = opened(dir.path());
        let end = if is_damaged { last } else { 9 };
        assert_eq!(read(&log, OffsetSpec::Earliest).0, (0..end).collect::<Vec<_>>());
    }
}

/// Kafka's log cleaner keeps batches without records of producers, and a repair fills a wide gap with such. A look at
/// what stands behind one of them does not lose the one itself.
#[test]
fn many_batches_without_records_in_a_row_hide_nothing() {
    let dir = TempDir::new();
    let empty = |n: i64| empty_batch(Offset(1 + 3 * n), Offset(4 + 3 * n), LeaderEpoch(0)).to_vec();
    let bytes = [batch(0, 1000, b"first"), (0..700).flat_map(empty).collect(), batch(2101, 1000, b"last")].concat();
    imported(dir.path(), &[(0, bytes)]);
    all_agree(dir.path(), &[0, 2101], &[]);
}

/// One flipped bit in the header of an acknowledged batch, in the boot that wrote it: the open calls lost what `fsck`
/// called lost.
#[test]
fn an_open_reports_what_damage_to_a_header_has_taken() {
    for byte in [8, 10, 16, 20, 21, 24, 43, 51, 57] {
        let dir = TempDir::new();
        killed_and_raised(dir.path(), 3, 7, 7);
        let mut bytes = fs::read(segment(dir.path())).unwrap();
        let at = places(&bytes)[7];
        bytes[at + byte] ^= 1 << 6;
        fs::write(segment(dir.path()), &bytes).unwrap();
        assert_eq!(lost_by_fsck(dir.path()), [(7, 9)], "{byte}");
        let report = opened(dir.path()).0.recovery_report();
        assert_eq!((report.lost_offsets(), report.set_aside_offsets()), (1, 1), "{byte}: {report}");
    }
}

/// A copy of a store that left out all files of settings, but has the checkpoint: nothing is deleted.
#[test]
fn settings_that_are_lost_to_the_last_file_delete_nothing() {
    let dir = TempDir::new();
    let store = ticking().open(dir.path()).unwrap();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for n in 0..20 {
        log.append(NewRecord::value(&[b'x'; 1000]).with_timestamp(TimestampMs(1_000_000_000_000 + n))).unwrap();
    }
    store.close().unwrap();
    drop((log, store));
    for file in ["t-0/topic.properties", "t-0/edgelog.properties", "edgelog.recorded"] {
        fs::remove_file(dir.path().join(file)).unwrap();
    }
    let (store, log) = opened(dir.path());
    store.tick(TimestampMs(1_900_000_000_000)).unwrap();
    assert_eq!(read(&log, OffsetSpec::Earliest).0, (0..20).collect::<Vec<_>>());
    assert_eq!(store.recovery_report().suspended.len(), 1, "{}", store.recovery_report());
}

/// A batch of a copied log with records at `deltas`, as compaction leaves it, which ends before `base + offsets`.
fn thinned(base: i64, deltas: &[i32], offsets: i32) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; 1000]);
    for &delta in deltas {
        let value = format!("record {}", base + i64::from(delta));
        builder.append_at(delta, TimestampMs(1000 + base), None, Some(value.as_bytes()), &[]).unwrap();
    }
    let bytes = builder.finish();
    stamp_base(bytes, Offset(base), LeaderEpoch(0));
    bytes[23..27].copy_from_slice(&(offsets - 1).to_be_bytes());
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.to_vec()
}

/// Two batches claim the same offsets at the end of a log that no checkpoint knows, behind a legal hole: repair, which
/// has another damage to put right, keeps the one that was read.
#[test]
fn repair_keeps_the_one_of_two_batches_that_is_read() {
    let all = [0, 4, 9];
    for (repeated, deltas, offsets) in [(37, [0, 1, 2], 10), (38, [0, 1, 2], 9), (30, [0, 1, 2], 17)] {
        let dir = TempDir::new();
        let mut first = [thinned(0, &all, 10), thinned(10, &all, 10)].concat();
        first[70] ^= 1;
        let last = [thinned(20, &all, 10), thinned(37, &all, 10), thinned(repeated, &deltas, offsets)].concat();
        imported(dir.path(), &[(0, first), (20, last)]);
        let records = |log: &Log| {
            let mut records = Vec::new();
            let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
            loop {
                match reader.next_batch() {
                    Ok(Some(batch)) => records.extend(batch.records().unwrap().map(|record| {
                        let record = record.unwrap();
                        (record.offset.0, record.value.unwrap().to_vec())
                    })),
                    Ok(None) => return records,
                    Err(_) => drop(reader.skip_damage().unwrap()),
                }
            }
        };
        let seen = records(&attached(dir.path()).1);
        assert!(seen.iter().any(|(offset, _)| *offset == 37), "{repeated}: {seen:?}");
        repair(dir.path());
        assert_eq!(records(&attached(dir.path()).1), seen, "{repeated}, repaired");
        repair(dir.path());
        assert_eq!(records(&opened(dir.path()).1), seen, "{repeated}, opened");
    }
}
