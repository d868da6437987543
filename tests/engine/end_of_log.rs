//! The end of a log whose writer was killed, in the boot that wrote it: damage there is not taken for what a kill can
//! leave, both sides of it stay readable, and all who look say the same.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgelog::edgelog_core::RecordBatch;
use edgelog::inspect::{self, CheckReport, Finding, Selection, Severity};
use edgelog::storage::Storage;
use edgelog::{Log, NewRecord, NewTopic, OffsetSpec, Store};
use edgelog_testkit::{TempDir, ticking};

/// Records below the recovery point of the checkpoint, and above it.
const BELOW: i64 = 10;
const ABOVE: i64 = 10;

fn segment(dir: &Path) -> PathBuf {
    dir.join("t-0/00000000000000000000.log")
}

/// A store of one log, killed: a batch for each record, and its segment up to behind the last one.
fn killed(dir: &Path) -> Vec<u8> {
    for (first, count) in [(0, BELOW), (BELOW, ABOVE)] {
        let store = ticking().open(dir).unwrap();
        if first == 0 {
            store.create_topic(&NewTopic::new("t").config("retention.ms", "-1")).unwrap();
        }
        let log = store.log("t", 0).unwrap();
        for n in first..first + count {
            log.append(NewRecord::value(format!("record {n} {}", "-".repeat(30 + n as usize)).as_bytes())).unwrap();
        }
        if first == 0 {
            store.close().unwrap();
        } else {
            store.abandon();
        }
    }
    let bytes = fs::read(segment(dir)).unwrap();
    let end = places(&bytes)[(BELOW + ABOVE) as usize];
    bytes[..end].to_vec()
}

/// Where each batch of `bytes` starts, and where the last one ends.
fn places(bytes: &[u8]) -> Vec<usize> {
    let mut places = vec![0];
    while let Ok(batch) = RecordBatch::parse(&bytes[places[places.len() - 1]..]) {
        places.push(places[places.len() - 1] + batch.size());
    }
    places
}

/// Every offset that can be read, and those that are reported as damaged.
fn read(log: &Log) -> (Vec<i64>, Vec<(i64, i64)>) {
    let (mut offsets, mut lost) = (Vec::new(), Vec::new());
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    loop {
        match reader.next_batch() {
            Ok(Some(batch)) => offsets.extend(batch.records().unwrap().map(|record| record.unwrap().offset.0)),
            Ok(None) => return (offsets, lost),
            Err(error) if error.is_corrupt() => {
                let range = reader.skip_damage().unwrap();
                lost.push((range.first_offset.0, range.next_offset.0));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn storage(dir: &Path) -> Arc<dyn Storage> {
    inspect::open_directory_for_repair(dir).unwrap()
}

fn check(dir: &Path) -> CheckReport {
    inspect::check(&storage(dir), &Selection::all(), &mut |_| ControlFlow::Continue(())).unwrap()
}

fn lost(findings: &[Finding]) -> Vec<(i64, i64)> {
    let lost = findings.iter().filter(|finding| finding.severity == Severity::Lost);
    lost.filter_map(|finding| finding.lost).map(|(first, next)| (first.0, next.0)).collect()
}

fn hidden(dir: &Path) -> Vec<(i64, i64)> {
    lost(&inspect::check_hidden(&storage(dir), &"t-0".parse().unwrap()).unwrap())
}

fn attached(dir: &Path) -> (Vec<i64>, Vec<(i64, i64)>) {
    read(&Store::attach(dir).unwrap().log("t", 0).unwrap())
}

/// Damages the segment, whose batches stand at the places given: the last one below the recovery point, and the next.
type Damage = fn(&mut Vec<u8>, &[usize], usize, usize);

/// An open hid what was sound behind damage that reaches over the recovery point: it put it aside, or left it in the
/// file behind the end without a word.
#[test]
fn damage_over_the_recovery_point_leaves_both_sides_readable() {
    let (last_below, first_above) = (BELOW as usize - 1, BELOW as usize);
    let damages: [(&str, Damage); 4] = [
        ("records of both", |bytes, at, below, above| {
            bytes[at[below] + 70] ^= 0x40;
            bytes[at[above] + 70] ^= 0x40;
        }),
        ("a length, and records", |bytes, at, below, above| {
            bytes[at[below] + 10] ^= 0x40;
            bytes[at[above] + 70] ^= 0x40;
        }),
        ("all of both", |bytes, at, below, above| bytes[at[below]..at[above + 1]].fill(0x55)),
        ("zeros", |bytes, at, below, above| bytes[at[below]..at[above + 1]].fill(0)),
    ];
    let range = (BELOW - 1, BELOW + 1);
    let sound: Vec<i64> = (0..BELOW + ABOVE).filter(|n| !(range.0..range.1).contains(n)).collect();
    for (what, damage) in damages {
        for repaired in [false, true] {
            let dir = TempDir::new();
            let mut bytes = killed(dir.path());
            let places = places(&bytes);
            damage(&mut bytes, &places, last_below, first_above);
            fs::write(segment(dir.path()), &bytes).unwrap();
            assert_eq!(attached(dir.path()), (sound.clone(), vec![range]), "{what}");
            assert_eq!(lost(&check(dir.path()).findings), [range], "{what}");
            assert_eq!(hidden(dir.path()), [], "{what}: readers meet it");
            if repaired {
                let go_on = &mut |_| ControlFlow::Continue(());
                let report = inspect::repair(&storage(dir.path()), &Selection::all(), false, go_on).unwrap();
                assert!(report.after.as_ref().is_some_and(CheckReport::is_sound), "{what}: {report:?}");
                assert_eq!(attached(dir.path()), (sound.clone(), Vec::new()), "{what}, repaired");
            }
            let store = ticking().open(dir.path()).unwrap();
            let log = store.log("t", 0).unwrap();
            let reported = if repaired { Vec::new() } else { vec![range] };
            assert_eq!(read(&log), (sound.clone(), reported.clone()), "{what}: {}", store.recovery_report());
            assert_eq!(log.append(NewRecord::value(b"next")).unwrap().base_offset, BELOW + ABOVE, "{what}");
            store.close().unwrap();
            assert_eq!(attached(dir.path()), ([&sound[..], &[BELOW + ABOVE]].concat(), reported), "{what}");
        }
    }
}

/// Bytes were inserted, and the batch behind them is damaged: what was acknowledged behind it stands elsewhere than the
/// checkpoint says, and an open left it behind the end.
#[test]
fn damage_before_batches_that_were_moved_hides_none_of_them() {
    let dir = TempDir::new();
    let mut bytes = killed(dir.path());
    let last_below = places(&bytes)[BELOW as usize - 1];
    bytes[last_below + 70] ^= 0x40;
    bytes.splice(last_below..last_below, *b"ten bytes!");
    fs::write(segment(dir.path()), &bytes).unwrap();
    let sound: Vec<i64> = (0..BELOW + ABOVE).filter(|&n| n != BELOW - 1).collect();
    let expected = (sound, vec![(BELOW - 1, BELOW)]);
    assert_eq!(attached(dir.path()), expected);
    let store = ticking().open(dir.path()).unwrap();
    assert_eq!(read(&store.log("t", 0).unwrap()), expected, "{}", store.recovery_report());
}

/// The last batch, of which a byte was changed, was called an unfinished append.
#[test]
fn a_last_batch_that_was_written_whole_is_no_unfinished_append() {
    let last = BELOW + ABOVE - 1;
    for at in [22, 40, 61, 75, 100] {
        let dir = TempDir::new();
        let mut bytes = killed(dir.path());
        let place = places(&bytes)[last as usize];
        bytes[place + at] ^= 0x10;
        fs::write(segment(dir.path()), &bytes).unwrap();
        let report = check(dir.path());
        if at == 22 {
            // The codec is another one: whether a whole batch stands there is not known.
            continue;
        }
        assert_eq!(lost(&report.findings), [(last, last + 1)], "byte {at}: {:?}", report.findings);
        assert!(report.findings.iter().any(|found| found.text.contains("written whole")), "{:?}", report.findings);
        assert_eq!(hidden(dir.path()), [(last, last + 1)]);
        let store = ticking().open(dir.path()).unwrap();
        let report = store.recovery_report();
        let log = &report.logs[0];
        let range = &log.lost[0];
        assert_eq!((range.first_offset.0, range.next_offset.0), (last, last + 1), "{report}");
        let kept = fs::read(dir.path().join(log.cut[0].kept_in.as_ref().unwrap())).unwrap();
        assert_eq!(kept, bytes[place..]);
        assert!(!report.to_string().contains("unfinished"), "{report}");
        assert_eq!(read(&store.log("t", 0).unwrap()).0, (0..last).collect::<Vec<_>>());
    }
}

/// What a kill leaves of an append: its first bytes, and zeros or nothing behind them.
#[test]
fn an_append_that_a_kill_has_torn_is_no_loss() {
    let last = (BELOW + ABOVE - 1) as usize;
    for (kept, is_cut) in [(8, false), (30, false), (61, false), (90, false), (40, true), (90, true)] {
        let dir = TempDir::new();
        let mut bytes = killed(dir.path());
        let place = places(&bytes)[last];
        bytes[place + kept..].fill(0);
        if is_cut {
            bytes.truncate(place + kept);
        }
        fs::write(segment(dir.path()), &bytes).unwrap();
        let report = check(dir.path());
        assert_eq!(report.worst, Some(Severity::Heals), "{kept} {is_cut}: {:?}", report.findings);
        let words = "an unfinished append, or damage to the last batch";
        assert!(report.findings.iter().any(|found| found.text.contains(words)), "{:?}", report.findings);
        assert_eq!(hidden(dir.path()), []);
        let store = ticking().open(dir.path()).unwrap();
        let report = store.recovery_report();
        assert!(report.logs[0].lost.is_empty() && report.logs[0].cut[0].kept_in.is_some(), "{report}");
        assert!(report.to_string().contains("of unfinished appends, or of damaged last batches,"), "{report}");
    }
}

/// A power cut may have left index files without their last entries. Empty ones were written again by an open, short
/// ones by `repair` alone.
#[test]
fn short_index_files_of_sealed_segments_are_written_again() {
    for abandons in [true, false] {
        let dir = TempDir::new();
        let store = ticking().open(dir.path()).unwrap();
        let topic = NewTopic::new("t").config("retention.ms", "-1").config("segment.bytes", "16384");
        let topic = topic.config("index.interval.bytes", "256").config("max.message.bytes", "1024");
        store.create_topic(&topic).unwrap();
        let log = store.log("t", 0).unwrap();
        for n in 0..400 {
            // A millisecond each: of records of one time, one alone is in the time index.
            let time = edgelog::TimestampMs(1_700_000_000_000 + n);
            let value = format!("record {n} {}", "-".repeat(200));
            log.append(NewRecord::value(value.as_bytes()).with_timestamp(time)).unwrap();
        }
        drop(log);
        store.tick(edgelog::TimestampMs(2_000_000_000_000)).unwrap();
        if abandons {
            store.abandon();
        } else {
            store.close().unwrap();
        }
        let mut segments: Vec<PathBuf> =
            fs::read_dir(dir.path().join("t-0")).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        segments.sort();
        assert!(segments.len() > 5, "{segments:?}");
        // Some hold some of their entries, others a part of one.
        for (at, ending, len) in [(1, "index", 16), (2, "index", 13), (2, "timeindex", 5), (3, "timeindex", 24)] {
            let path = segments[at].with_extension(ending);
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            assert!(file.metadata().unwrap().len() > len, "{}", path.display());
            file.set_len(len).unwrap();
        }
        assert!(check(dir.path()).worst >= Some(Severity::Note));
        let store = ticking().open(dir.path()).unwrap();
        assert_eq!(store.recovery_report().clean, !abandons);
        if !abandons {
            // A clean open looks at no sealed segment: who reads there notices.
            assert_eq!(read(&store.log("t", 0).unwrap()).0.len(), 400);
            for n in 0..400 {
                store
                    .log("t", 0)
                    .unwrap()
                    .reader(OffsetSpec::Offset(edgelog::Offset(n)))
                    .unwrap()
                    .next_batch()
                    .unwrap();
            }
        }
        store.log("t", 0).unwrap().append(NewRecord::value(b"next")).unwrap();
        store.close().unwrap();
        let report = check(dir.path());
        assert!(report.is_sound(), "abandoned: {abandons}: {:?}", report.findings);
    }
}
