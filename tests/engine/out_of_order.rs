//! A partition that was copied here, and whose batches stand out of order: each reader takes those whose offsets rise.
//! Batches that hold and that it goes on without are a loss where their offsets stand nowhere else, and a note where
//! they are copies. Every command says so, in the same words and counts.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use edgelog::edgelog_core::{LeaderEpoch, RecordBatchBuilder, TimestampMs, crc32c, stamp_base};
use edgelog::inspect::{self, ExportRange, Finding, Selection, Severity};
use edgelog::storage::{DirectoryStorage, DirectoryStorageOptions, Storage};
use edgelog::{NewRecord, NewTopic, Offset, OffsetSpec, Store, TopicPartition};
use edgelog_testkit::{TempDir, copy_dir, ticking};

fn value(offset: i64) -> String {
    format!("o{offset}")
}

/// Three records at `base`, each of which names its offset.
fn batch(base: i64) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(vec![0; 400]);
    for offset in base..base + 3 {
        builder.append(TimestampMs(1_700_000_000_000), None, Some(value(offset).as_bytes()), &[]).unwrap();
    }
    stamp_base(builder.finish(), Offset(base), LeaderEpoch(0));
    let size = builder.size();
    builder.into_buffer()[..size].to_vec()
}

/// A segment named by `base` that holds batches at the offsets `order`.
fn put(dir: &Path, base: i64, order: &[i64]) {
    fs::create_dir_all(dir.join("t-0")).unwrap();
    let bytes: Vec<u8> = order.iter().flat_map(|&base| batch(base)).collect();
    fs::write(dir.join(format!("t-0/{base:020}.log")), bytes).unwrap();
}

fn storage(dir: &Path) -> Arc<dyn Storage> {
    Arc::new(DirectoryStorage::open(dir, DirectoryStorageOptions::default()).unwrap())
}

fn name() -> TopicPartition {
    "t-0".parse().unwrap()
}

/// The lost ranges of findings, and what is said of each.
fn lost(findings: &[Finding]) -> Vec<(i64, i64, String)> {
    let lost = findings.iter().filter(|finding| finding.severity == Severity::Lost);
    let mut lost: Vec<_> =
        lost.map(|found| (found.lost.unwrap().0.0, found.lost.unwrap().1.0, found.text.clone())).collect();
    lost.sort();
    lost
}

/// What a reader gives from `from` on, and says to be lost; with what no reader meets.
fn read(dir: &Path, from: OffsetSpec) -> (Vec<i64>, Vec<(i64, i64, String)>) {
    let store = Store::attach(dir).unwrap();
    let mut reader = store.log("t", 0).unwrap().reader(from).unwrap();
    let (mut offsets, mut findings) = (Vec::new(), Vec::new());
    loop {
        match reader.next_batch() {
            Ok(Some(batch)) => offsets.extend(batch.records().unwrap().map(|record| {
                let record = record.unwrap();
                assert_eq!(record.value, Some(value(record.offset.0).as_bytes()));
                record.offset.0
            })),
            Ok(None) => break,
            Err(error) if findings.len() > 100 => panic!("it never ends: {error}"),
            Err(error) => findings.extend(Finding::all_skipped(&name(), &reader.skip_damage().unwrap(), &error)),
        }
    }
    findings.extend(inspect::check_hidden(&storage(dir), &name()).unwrap());
    (offsets, lost(&findings))
}

/// What an open of a copy of the store says is lost, and the offset that it gives out next.
fn opened(dir: &Path) -> (Vec<(i64, i64)>, i64) {
    let copy = TempDir::new();
    copy_dir(dir, copy.path());
    let store = ticking().open(copy.path()).unwrap();
    let report = store.recovery_report();
    let log = report.logs.iter().find(|log| log.name == name()).unwrap();
    let mut ranges: Vec<_> = log.lost.iter().map(|range| (range.first_offset.0, range.next_offset.0)).collect();
    ranges.sort_unstable();
    let next = store.log("t", 0).unwrap().append(NewRecord::value(b"next")).unwrap().base_offset;
    store.close().unwrap();
    (ranges, next.0)
}

/// The values in all `.cut` files of the log.
fn kept(dir: &Path) -> Vec<u8> {
    let entries = fs::read_dir(dir.join("t-0")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|it| it == "cut")).flat_map(|it| fs::read(it).unwrap()).collect()
}

/// Holds every command to `seen` and `expected`, the ranges that are lost.
fn agree(dir: &Path, what: &str, seen: &[i64], expected: &[(i64, i64)]) {
    let (offsets, by_reader) = read(dir, OffsetSpec::Earliest);
    assert_eq!(offsets, seen, "{what}: {by_reader:?}");
    let ranges: Vec<_> = by_reader.iter().map(|(first, next, _)| (*first, *next)).collect();
    assert_eq!(ranges, expected, "{what}");
    let go_on = &mut |_| ControlFlow::Continue(());
    let report = inspect::check(&storage(dir), &Selection::all(), go_on).unwrap();
    assert_eq!(lost(&report.findings), by_reader, "{what}: fsck");
    assert_eq!(lost(&inspect::check_ends(&storage(dir), &Selection::all()).unwrap()), by_reader, "{what}: stat");
    let mut records = Vec::new();
    let mut tell = |record: &edgelog::Record<'_>, _| {
        records.push(record.offset.0);
        Ok(())
    };
    let exported = inspect::export_records(&storage(dir), &name(), ExportRange::default(), &mut tell, go_on).unwrap();
    assert_eq!((lost(&exported.lost), records), (by_reader.clone(), seen.to_vec()), "{what}: export");
    let dry = inspect::repair(&storage(dir), &Selection::all(), true, go_on).unwrap();
    assert_eq!(lost(&dry.before.findings), by_reader, "{what}: repair --dry-run");
    // From an offset behind, what is lost from there on.
    for from in [seen[0] + 1, seen[seen.len() - 1]] {
        let behind = read(dir, OffsetSpec::Offset(Offset(from)));
        assert_eq!(behind.0, seen.iter().copied().filter(|&at| at >= from).collect::<Vec<_>>(), "{what}");
    }
    let repaired = TempDir::new();
    copy_dir(dir, repaired.path());
    let repair =
        || inspect::repair(&storage(repaired.path()), &Selection::all(), false, &mut |_| ControlFlow::Continue(()));
    let done = repair().unwrap();
    assert!(done.after.as_ref().is_none_or(inspect::CheckReport::is_sound), "{what}: {done:?}");
    assert_eq!(read(repaired.path(), OffsetSpec::Earliest), (seen.to_vec(), Vec::new()), "{what}: repaired");
    let bytes = kept(repaired.path());
    // No batch ever had the offsets from 20 to 26.
    for (first, next) in expected.iter().filter(|range| range.0 != 20 || range.1 > 27) {
        let is_kept = |at: i64| bytes.windows(value(at).len()).any(|it| it == value(at).as_bytes());
        assert!((*first..*next).all(is_kept), "{what}: {:?}", done.actions);
    }
    assert_eq!(repair().unwrap().actions, [], "{what}: twice");
}

/// Two sound batches of a copied log stood before their time: no command showed them, and each said that nothing is
/// lost.
#[test]
fn batches_out_of_order_are_a_loss_where_they_stand_nowhere_else() {
    type Case<'a> = (&'a [i64], &'a [i64], &'a [(i64, i64)]);
    let cases: [Case<'_>; 10] = [
        (&[27, 17, 0, 37], &[0, 37], &[(17, 20), (27, 30)]),
        (&[20, 17, 0, 37], &[0, 37], &[(17, 23)]),
        (&[0, 17, 37, 27, 47], &[0, 17, 27, 47], &[(20, 27), (37, 40)]),
        (&[7, 0, 17, 37], &[0, 17, 37], &[(7, 10)]),
        // A copy of what is read, and one more of what is not.
        (&[17, 0, 17, 37], &[0, 17, 37], &[]),
        (&[27, 27, 0, 37], &[0, 37], &[(27, 30)]),
        // A copy that is as wide as the hole it stands in.
        (&[0, 17, 0, 23], &[0, 17, 23], &[(20, 23)]),
        // The last ones are exchanged: the recovery point says where the last one ends, and another one ends there.
        (&[0, 3, 9, 6], &[0, 3, 6], &[(9, 12)]),
        (&[3, 0], &[0], &[(3, 6)]),
        (&[0, 9, 3, 6], &[0, 3, 6], &[(9, 12)]),
    ];
    for (order, bases, expected) in cases {
        let seen: Vec<i64> = bases.iter().flat_map(|&base| base..base + 3).collect();
        let dir = TempDir::new();
        put(dir.path(), 0, order);
        let what = format!("{order:?}, as copied");
        agree(dir.path(), &what, &seen, expected);
        let (ranges, next) = opened(dir.path());
        let greatest = order.iter().max().unwrap();
        assert_eq!((ranges, next > *greatest), (expected.to_vec(), true), "{what}");

        // Taken over, closed cleanly, and brought out of order since.
        let dir = TempDir::new();
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        put(dir.path(), 0, &sorted);
        let store = ticking().open(dir.path()).unwrap();
        store.create_topic(&NewTopic::new("other")).unwrap();
        store.log("other", 0).unwrap().append(NewRecord::value(b"v")).unwrap();
        store.close().unwrap();
        put(dir.path(), 0, order);
        agree(dir.path(), &format!("{order:?}, taken over"), &seen, expected);
    }
}

/// A batch that compaction has thinned out says more offsets than it has records. Passed over, it counted with all that
/// it says, 2147483648 offsets at the most.
#[test]
fn a_batch_that_is_passed_over_counts_with_what_bears_it_out() {
    for delta in [2, 8, 1000, i32::MAX] {
        let (order, expected) = ([27, 17, 0, 37], [(17, 20), (27, 30)]);
        let dir = TempDir::new();
        put(dir.path(), 0, &order);
        let path = dir.path().join(format!("t-0/{:020}.log", 0));
        let mut bytes = fs::read(&path).unwrap();
        let at = order.iter().take_while(|&&base| base != 17).map(|&base| batch(base).len()).sum::<usize>();
        let thinned = &mut bytes[at..at + batch(17).len()];
        thinned[23..27].copy_from_slice(&delta.to_be_bytes());
        let crc = crc32c(&thinned[21..]);
        thinned[17..21].copy_from_slice(&crc.to_be_bytes());
        fs::write(&path, bytes).unwrap();
        let what = format!("{order:?}, {delta}");
        let (offsets, lost_to_readers) = read(dir.path(), OffsetSpec::Earliest);
        assert_eq!(offsets, [0, 1, 2, 37, 38, 39], "{what}");
        let ranges: Vec<_> = lost_to_readers.iter().map(|(first, next, _)| (*first, *next)).collect();
        assert_eq!(ranges, expected, "{what}");
        let report = inspect::check(&storage(dir.path()), &Selection::all(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(lost(&report.unwrap().findings), lost_to_readers, "{what}");
        assert_eq!(opened(dir.path()).0, expected, "{what}");
    }
}

/// The first batch of a file says another offset than the file's name. What lies before the log counts for no command,
/// what reaches into the offsets that are missing counts once, and a batch of other bytes is no copy of the one whose
/// offset it says: `fsck` called it one, and readers a loss.
#[test]
fn a_first_batch_that_says_another_offset_is_lost_once_to_all() {
    type Case<'a> = (&'a [(i64, &'a [i64])], usize, i64, (i64, i64));
    let cases: [Case<'_>; 5] = [
        (&[(100, &[100, 108])], 0, 97, (100, 108)),
        (&[(100, &[100, 108])], 0, 99, (100, 108)),
        (&[(0, &[0]), (24, &[24, 27])], 1, 23, (24, 27)),
        (&[(0, &[0, 3]), (6, &[6]), (9, &[9])], 1, 0, (6, 9)),
        (&[(100, &[100]), (157, &[157, 168])], 1, 0, (157, 168)),
    ];
    for (files, changed, claimed, expected) in cases {
        let dir = TempDir::new();
        for (base, order) in files {
            put(dir.path(), *base, order);
        }
        let path = dir.path().join(format!("t-0/{:020}.log", files[changed].0));
        let mut bytes = fs::read(&path).unwrap();
        bytes[..8].copy_from_slice(&claimed.to_be_bytes());
        fs::write(&path, bytes).unwrap();
        let what = format!("{claimed} in {files:?}");
        let (offsets, by_reader) = read(dir.path(), OffsetSpec::Earliest);
        assert!(offsets.iter().all(|at| !(expected.0..expected.1).contains(at)), "{what}: {offsets:?}");
        let ranges: Vec<_> = by_reader.iter().map(|(first, next, _)| (*first, *next)).collect();
        let report = inspect::check(&storage(dir.path()), &Selection::all(), &mut |_| ControlFlow::Continue(()));
        let by_fsck: Vec<_> = lost(&report.unwrap().findings).iter().map(|it| (it.0, it.1)).collect();
        assert_eq!((&ranges[..], by_fsck), (&[expected][..], vec![expected]), "{what}");
    }
}

/// A last batch that holds, at an offset that none can have behind the one before: its records were there, and no
/// reader comes to them. An open said nothing, and `fsck` and the readers did not say how many.
#[test]
fn a_last_batch_at_an_offset_that_none_can_have_is_a_loss_of_its_records() {
    for claimed in [i64::MIN, -1, 1 << 41, i64::MAX - 5, i64::MAX] {
        let dir = TempDir::new();
        put(dir.path(), 0, &[0, 17, 27]);
        let path = dir.path().join(format!("t-0/{:020}.log", 0));
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - batch(27).len();
        bytes[at..at + 8].copy_from_slice(&claimed.to_be_bytes());
        fs::write(&path, bytes).unwrap();
        let (offsets, by_reader) = read(dir.path(), OffsetSpec::Earliest);
        assert_eq!(offsets, [0, 1, 2, 17, 18, 19], "{claimed}");
        let ranges: Vec<_> = by_reader.iter().map(|(first, next, _)| (*first, *next)).collect();
        assert_eq!(ranges, [(20, 23)], "{claimed}");
        let report = inspect::check(&storage(dir.path()), &Selection::all(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(lost(&report.unwrap().findings), by_reader, "{claimed}");
        assert_eq!(opened(dir.path()), (vec![(20, 23)], 23), "{claimed}");
    }
}

/// Behind the last batch that is read, or in another segment: no reader comes there.
#[test]
fn batches_behind_the_end_of_a_copied_log_are_a_loss_where_they_stand_nowhere_else() {
    for (order, seen, expected) in [
        (&[0, 17, 20, 23, 3][..], [0, 17, 20, 23], &[(3, 6)][..]),
        (&[0, 17, 20, 23, 17], [0, 17, 20, 23], &[]),
        (&[0, 17, 20, 23, 3, 6], [0, 17, 20, 23], &[(3, 9)]),
    ] {
        let dir = TempDir::new();
        put(dir.path(), 0, order);
        let what = format!("{order:?}");
        let seen: Vec<i64> = seen.iter().flat_map(|&base| base..base + 3).collect();
        agree(dir.path(), &what, &seen, expected);
        assert_eq!(opened(dir.path()).0, expected, "{what}");
    }
    let dir = TempDir::new();
    put(dir.path(), 0, &[0, 3]);
    put(dir.path(), 100, &[100, 50, 103]);
    let seen: Vec<i64> = [0, 3, 100, 103].iter().flat_map(|&base| base..base + 3).collect();
    agree(dir.path(), "in a later segment", &seen, &[(50, 53)]);
    assert_eq!(opened(dir.path()).0, [(50, 53)]);
}

/// A reader that has gone on behind the first batch walked over it again for each that came later, and never ended.
#[test]
fn a_reader_from_any_offset_comes_to_the_end_and_gives_what_reading_from_the_beginning_gives() {
    for order in [&[37, 17, 27, 0][..], &[37, 17, 0, 27, 7], &[47, 0, 37, 7, 27, 17]] {
        let dir = TempDir::new();
        put(dir.path(), 0, order);
        put(dir.path(), 54, &[54, 64, 57]);
        for is_taken_over in [false, true] {
            if is_taken_over {
                ticking().open(dir.path()).unwrap().close().unwrap();
            }
            let whole = read(dir.path(), OffsetSpec::Earliest).0;
            assert!(whole.contains(&57), "{order:?}: {whole:?}");
            for from in 0..=*whole.last().unwrap() {
                let behind: Vec<i64> = whole.iter().copied().filter(|&offset| offset >= from).collect();
                assert_eq!(read(dir.path(), OffsetSpec::Offset(Offset(from))).0, behind, "{order:?}, from {from}");
            }
        }
    }
}
