//! A segment's file is no regular one: both sides of it stay readable, wherever it is, and it is named.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use edgelog::inspect::{self, ExportRange, Selection, Severity};
use edgelog::storage::{DirectoryStorage, DirectoryStorageOptions, Storage};
use edgelog::{Log, NewRecord, NewTopic, Offset, OffsetSpec, Store, TimestampMs, TopicPartition};
use edgelog_testkit::{TempDir, copy_dir, ticking};
use rustix::fs::{CWD, Mode, mkfifoat};

const THINGS: [&str; 4] = ["FIFO", "link", "socket", "directory"];

fn put(thing: &str, path: &Path) {
    fs::remove_file(path).unwrap();
    match thing {
        "FIFO" => mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap(),
        "link" => symlink("elsewhere", path).unwrap(),
        "socket" => drop(UnixListener::bind(path).unwrap()),
        _ => fs::create_dir(path).unwrap(),
    }
}

/// Twelve records in four segments, their times those of their offsets, closed cleanly.
fn store(dir: &Path) -> [i64; 4] {
    let store = ticking().open(dir).unwrap();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for n in 0..12 {
        log.append(NewRecord::value(&[b'x'; 1200]).with_timestamp(TimestampMs(1000 + n))).unwrap();
    }
    store.close().unwrap();
    [0, 3, 6, 9]
}

fn shared(dir: &Path) -> Arc<dyn Storage> {
    Arc::new(DirectoryStorage::open(dir, DirectoryStorageOptions::default()).unwrap())
}

/// Every offset that is read, as a command reads: past what cannot be opened. And what is named.
fn read(dir: &Path, log: &Log, from: OffsetSpec) -> (Vec<i64>, usize) {
    let (mut offsets, mut named) = (Vec::new(), 0);
    let mut reader = log.reader(from).unwrap();
    loop {
        let error = match reader.next_batch() {
            Ok(Some(batch)) => {
                offsets.extend(batch.records().unwrap().map(|record| record.unwrap().offset.0));
                continue;
            }
            Ok(None) => return (offsets, named),
            Err(error) => error,
        };
        named += 1;
        let position = reader.position().offset;
        let (_, next) = inspect::unreadable_segment(&shared(dir), log.name(), &error, position)
            .unwrap_or_else(|| panic!("{error}"));
        match next {
            Some(next) => reader.seek(OffsetSpec::Offset(next)).unwrap(),
            None => return (offsets, named),
        }
    }
}

#[test]
fn both_sides_of_a_segment_that_is_no_file_are_read() {
    let whole = TempDir::new();
    let bases = store(whole.path());
    let all: Vec<i64> = (0..12).collect();
    for thing in THINGS {
        for (base, is_known) in bases.iter().flat_map(|&base| [(base, true), (base, false)]) {
            let dir = TempDir::new();
            copy_dir(whole.path(), dir.path());
            put(thing, &dir.path().join(format!("t-0/{base:020}.log")));
            if !is_known {
                fs::remove_file(dir.path().join("edgelog.checkpoint")).unwrap();
            }
            let what = format!("{thing} at {base}, known: {is_known}");
            let left: Vec<i64> = all.iter().copied().filter(|offset| !(base..base + 3).contains(offset)).collect();
            let store = Store::attach(dir.path()).unwrap();
            let log = store.log("t", 0).unwrap();
            let hidden = inspect::check_hidden(&shared(dir.path()), log.name()).unwrap();
            let (offsets, named) = read(dir.path(), &log, OffsetSpec::Earliest);
            assert_eq!(offsets, left, "{what}");
            assert!(named + hidden.len() > 0, "{what}");
            for from in [3, 6, 9] {
                let expected: Vec<i64> = left.iter().copied().filter(|&offset| offset >= from).collect();
                if from <= log.offsets().log_end_offset.0 {
                    let (offsets, _) = read(dir.path(), &log, OffsetSpec::Offset(Offset(from)));
                    assert_eq!(offsets, expected, "{what}, from {from}");
                }
                let (offsets, _) = read(dir.path(), &log, OffsetSpec::Timestamp(TimestampMs(1000 + from)));
                assert_eq!(offsets, expected, "{what}, from time {from}");
            }
            assert_eq!(read(dir.path(), &log, OffsetSpec::Last(4)).0, left[5..], "{what}, the last");
            assert_eq!(log.size().unwrap().0, 4, "{what}");
            let mut exported = Vec::new();
            let mut collect = |record: &edgelog::Record<'_>, _| {
                exported.push(record.offset.0);
                Ok(())
            };
            let name = TopicPartition::new("t", 0);
            let (range, go_on) = (ExportRange::default(), &mut |_| ControlFlow::Continue(()));
            let report = inspect::export_records(&shared(dir.path()), &name, range, &mut collect, go_on).unwrap();
            assert_eq!(exported, left, "{what}");
            assert!(report.lost.iter().any(|finding| finding.severity == Severity::Lost), "{what}");
            assert!(!inspect::check_ends(&shared(dir.path()), &Selection::all()).unwrap().is_empty(), "{what}");
        }
    }
}
