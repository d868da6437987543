//! One judgement: whoever reads a log (the writer after an open, an attached process, `fsck`) sees the same batches as
//! sound and the same bytes as damage, goes on at the same offset, and takes nothing sound away.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::support::{TempDir, ticking};
use edgelog::core::{LeaderEpoch, RecordBatch, encode_one, stamp_base};
use edgelog::inspect::{self, Selection, Severity};
use edgelog::storage::{DirectoryStorage, DirectoryStorageOptions, Storage};
use edgelog::{Error, Log, LostRange, NewRecord, NewTopic, Offset, OffsetSpec, Store, TimestampMs};

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
