//! The inspection tools against stores that were damaged on purpose: what they find, where, how bad, and what repair
//! makes of it. Damage is done to the files of a store that the engine wrote.

#![allow(clippy::case_sensitive_file_extension_comparisons)] // The engine writes these names, in lower case.

use std::collections::BTreeMap;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edgelog::edgelog_core::{LeaderEpoch, RecordBatchBuilder, stamp_base};
use edgelog::inspect::{self, CheckReport, DumpItem, DumpOptions, DumpText, ExportRange, Selection, Severity};
use edgelog::storage::{Access, DirEntry, FileMeta, Lease, MemoryStorage, Storage, StorageFile, StorageLock};
use edgelog::{Durability, Error, Header, Log, NewRecord, NewTopic, Offset, OffsetSpec, Store, TimestampMs};

/// A store in memory, and the way to its bytes.
#[derive(Clone)]
struct Disk(MemoryStorage);

impl Disk {
    fn new() -> Disk {
        Disk(MemoryStorage::new())
    }

    fn open(&self) -> Store {
        Store::options().set("edgelog.housekeeping", "tick").unwrap().open_on(self.0.clone()).unwrap()
    }

    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.0.clone())
    }

    fn read(&self, path: &str) -> Vec<u8> {
        let file = self.0.open(path, Access::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        let read = file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(read, bytes.len());
        bytes
    }

    fn write(&self, path: &str, at: usize, bytes: &[u8]) {
        self.0.open(path, Access::Write).unwrap().write_at(bytes, at as u64).unwrap();
    }

    /// Replaces a whole file.
    fn put(&self, path: &str, bytes: &[u8]) {
        let _ = self.0.remove_file(path);
        self.0.open(path, Access::CreateNew).unwrap().write_at(bytes, 0).unwrap();
    }

    fn flip(&self, path: &str, at: usize) {
        let byte = self.read(path)[at];
        self.write(path, at, &[byte ^ 0x40]);
    }

    fn truncate(&self, path: &str, len: usize) {
        self.0.open(path, Access::Write).unwrap().truncate(len as u64).unwrap();
    }

    fn remove(&self, path: &str) {
        self.0.remove_file(path).unwrap();
    }

    fn check(&self) -> CheckReport {
        inspect::check(&self.storage(), &Selection::all(), &mut |_| ControlFlow::Continue(())).unwrap()
    }

    /// Every file of the store.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for entry in self.0.read_dir("").unwrap() {
            if entry.is_dir {
                let names = self.0.read_dir(&entry.name).unwrap();
                files.extend(names.into_iter().map(|file| format!("{}/{}", entry.name, file.name)));
            } else {
                files.push(entry.name);
            }
        }
        files.sort();
        files
    }

    fn logs(&self) -> Vec<String> {
        self.files().into_iter().filter(|file| file.ends_with(".log")).collect()
    }

    /// A second disk with the same bytes.
    fn copy(&self) -> Disk {
        let copy = Disk::new();
        for file in self.files() {
            if let Some((dir, _)) = file.split_once('/') {
                let _ = copy.0.create_dir(dir);
            }
            copy.put(&file, &self.read(&file));
        }
        copy
    }
}

fn small_topic() -> NewTopic {
    NewTopic::new("t")
        .config("segment.bytes", "4096")
        .config("index.interval.bytes", "512")
        .config("retention.ms", "-1")
}

fn value(n: i64) -> String {
    format!("value {n} {}", "x".repeat((n % 40) as usize))
}

fn append(log: &Log, from: i64, to: i64) {
    for n in from..to {
        let (key, value) = (format!("k{n}"), value(n));
        let headers = [Header::new("h", b"v")];
        let record = NewRecord::value(value.as_bytes()).with_key(key.as_bytes()).with_headers(&headers);
        log.append_with(record.with_timestamp(TimestampMs(1000 + n)), Durability::Sync).unwrap();
    }
}

/// A store that was closed cleanly, with records 0 to `records` in several segments.
fn closed_store(records: i64) -> Disk {
    let disk = Disk::new();
    let store = disk.open();
    store.create_topic(&small_topic()).unwrap();
    append(&store.log("t", 0).unwrap(), 0, records);
    store.tick(TimestampMs(1)).unwrap();
    store.close().unwrap();
    assert!(disk.check().findings.is_empty(), "{:?}", disk.check());
    disk
}

/// A store whose process died: a copy of the bytes while it is open.
fn crashed_store(records: i64) -> Disk {
    let disk = Disk::new();
    let store = disk.open();
    store.create_topic(&small_topic()).unwrap();
    append(&store.log("t", 0).unwrap(), 0, records);
    store.tick(TimestampMs(1_000_000)).unwrap();
    append(&store.log("t", 0).unwrap(), records, records + 10);
    disk.copy()
}

/// Where the batches of a segment start, with base offset and the offset behind.
fn batches(bytes: &[u8]) -> Vec<(usize, i64, i64)> {
    let (mut at, mut found) = (0, Vec::new());
    while let Ok(batch) = edgelog::edgelog_core::RecordBatch::parse(&bytes[at..]) {
        found.push((at, batch.base_offset().0, batch.next_offset().0));
        at += batch.size();
    }
    found
}

#[track_caller]
fn assert_worst(report: &CheckReport, worst: Severity) {
    assert_eq!(report.worst, Some(worst), "{:#?}", report.findings);
}

#[track_caller]
fn assert_lost(report: &CheckReport, lost: &[(i64, i64)]) {
    let found: Vec<_> =
        report.findings.iter().filter_map(|finding| finding.lost).map(|(first, next)| (first.0, next.0)).collect();
    assert_eq!(found, lost, "{:#?}", report.findings);
    let expected = if lost.is_empty() { None } else { Some(Severity::Lost) };
    assert_eq!(report.worst.filter(|&worst| worst == Severity::Lost), expected, "{:#?}", report.findings);
}

#[test]
fn sound_stores_are_sound() {
    let disk = closed_store(200);
    let report = disk.check();
    assert!(report.is_sound() && report.findings.is_empty(), "{report:#?}");
    let log = &report.logs[0];
    assert_eq!((log.log_start_offset, log.log_end_offset, log.records), (Offset(0), Offset(200), 200));
    assert!(log.segments > 3 && log.bytes > 10_000);
    // Crashed, and attached next to a live writer: nothing but notes.
    let report = crashed_store(200).check();
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!(report.logs[0].log_end_offset, 210);
}

#[test]
fn a_flipped_bit_in_a_batch_is_lost_offsets_at_that_place() {
    let disk = closed_store(200);
    let path = &disk.logs()[1];
    let (position, base, next) = batches(&disk.read(path))[3];
    // Length, magic, CRC, attributes, counts, payload. (Base offset and epoch have tests of their own.)
    for byte in [8, 9, 10, 11, 16, 17, 21, 22, 23, 26, 30, 38, 45, 57, 60, 61, 70] {
        let damaged = disk.copy();
        damaged.flip(path, position + byte);
        let report = damaged.check();
        assert_lost(&report, &[(base, next)]);
        let finding = report.findings.iter().find(|finding| finding.lost.is_some()).unwrap();
        assert_eq!((&finding.file, finding.position), (path, Some(position as u64)), "byte {byte}");
        assert_eq!(report.logs[0].records, 199);
    }
}

#[test]
fn a_wrong_base_offset_is_lost_to_readers_and_reported_as_such() {
    let disk = closed_store(200);
    let path = &disk.logs()[1];
    let all = batches(&disk.read(path));
    for at in [0, 3, all.len() - 2, all.len() - 1] {
        let (position, base, next) = all[at];
        for byte in 0..8 {
            let damaged = disk.copy();
            damaged.flip(path, position + byte);
            let report = damaged.check();
            assert!(report.findings[0].text.contains("repair puts it right"), "{report:#?}");
            if at < all.len() - 1 {
                assert_lost(&report, &[(base, next)]);
                continue;
            }
            // Where the next segment begins says what the last one's is, and readers read it.
            assert_worst(&report, Severity::Heals);
            assert_eq!((report.findings.len(), report.findings[0].position), (1, Some(position as u64)), "{report:#?}");
            assert_eq!(report.logs[0].records, 200);
        }
    }
}

#[test]
fn a_wrong_epoch_heals() {
    let disk = closed_store(200);
    let path = &disk.logs()[1];
    let all = batches(&disk.read(path));
    for at in [0, 3, all.len() - 1] {
        for byte in 12..16 {
            let damaged = disk.copy();
            damaged.flip(path, all[at].0 + byte);
            let report = damaged.check();
            assert_worst(&report, Severity::Heals);
            assert_eq!(report.findings[0].position, Some(all[at].0 as u64));
        }
    }
}

#[test]
fn a_sector_of_zeros_is_lost_and_what_is_behind_is_found() {
    let disk = closed_store(200);
    let path = &disk.logs()[1];
    let bytes = disk.read(path);
    disk.write(path, 1024, &[0; 512]);
    let all = batches(&bytes);
    let first = all.iter().find(|(position, _, next)| *next > 0 && position + 200 > 1024 - 200).unwrap();
    let first = all.iter().rfind(|(position, ..)| *position <= 1024).unwrap_or(first);
    let behind = all.iter().find(|(position, ..)| *position >= 1536).unwrap();
    assert_lost(&disk.check(), &[(first.1, behind.1)]);
}

#[test]
fn a_segment_that_was_cut_short_or_is_gone_is_lost() {
    let disk = closed_store(200);
    let logs = disk.logs();
    let (all, next_base) = (batches(&disk.read(&logs[1])), batches(&disk.read(&logs[2]))[0].1);
    // In the middle of a batch; between two; all of it.
    let (position, base, _) = all[4];
    for len in [position + 10, position + 70, position] {
        let damaged = disk.copy();
        damaged.truncate(&logs[1], len);
        assert_lost(&damaged.check(), &[(base, next_base)]);
    }
    let damaged = disk.copy();
    damaged.remove(&logs[1]);
    assert_lost(&damaged.check(), &[(all[0].1, next_base)]);
    // The last segment, and the first.
    let last = batches(&disk.read(logs.last().unwrap()))[0].1;
    let damaged = disk.copy();
    damaged.remove(logs.last().unwrap());
    assert_lost(&damaged.check(), &[(last, 200)]);
    let damaged = disk.copy();
    damaged.remove(&logs[0]);
    assert_lost(&damaged.check(), &[(0, all[0].1)]);
    // All of them.
    let damaged = disk.copy();
    for path in &logs {
        damaged.remove(path);
    }
    assert_lost(&damaged.check(), &[(0, 200)]);
}

#[test]
fn a_torn_tail_above_the_recovery_point_heals() {
    let disk = crashed_store(200);
    let path = disk.logs().pop().unwrap();
    let all = batches(&disk.read(&path));
    let (position, base, _) = all[all.len() - 2];
    let torn = disk.copy();
    torn.flip(&path, position + 65);
    let report = torn.check();
    assert_worst(&report, Severity::Heals);
    assert_eq!(report.logs[0].log_end_offset, base);
    assert!(report.findings.iter().any(|f| f.position == Some(position as u64)), "{report:#?}");
    // An epoch that never was is a damaged field, and no end.
    let damaged = disk.copy();
    damaged.write(&path, position + 12, &7_i32.to_be_bytes());
    let report = damaged.check();
    assert_worst(&report, Severity::Heals);
    assert_eq!(report.logs[0].log_end_offset, 210);
}

#[test]
fn indexes_that_are_wrong_heal() {
    let disk = closed_store(200);
    let log = &disk.logs()[1];
    let (index, time_index) = (log.replace(".log", ".index"), log.replace(".log", ".timeindex"));
    let (entries, times) = (disk.read(&index), disk.read(&time_index));
    assert!(entries.len() >= 40 && times.len() >= 48, "{} {}", entries.len(), times.len());
    let damaged = |path: &str, bytes: Option<Vec<u8>>| {
        let copy = disk.copy();
        copy.remove(path);
        if let Some(bytes) = bytes {
            copy.put(path, &bytes);
        }
        let report = copy.check();
        assert_worst(&report, Severity::Heals);
        assert!(report.findings.iter().all(|finding| finding.file == *path), "{:#?}", report.findings);
    };
    for (path, bytes, entry) in [(&index, &entries, 8), (&time_index, &times, 12)] {
        damaged(path, None);
        damaged(path, Some(Vec::new()).filter(|_| entry == 12).or(Some(vec![0; 8])));
        damaged(path, Some([bytes.as_slice(), &vec![0; entry]].concat()));
        damaged(path, Some([bytes.as_slice(), &bytes[bytes.len() - entry..]].concat()));
        damaged(path, Some(bytes[..bytes.len() - 1].to_vec()));
        // Every byte of every entry.
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            damaged(path, Some(flipped));
        }
    }
    damaged(&time_index, Some(times[..times.len() - 12].to_vec()));
}

#[test]
fn a_checkpoint_slot_that_is_garbled_heals() {
    let disk = closed_store(50);
    let path = "edgelog.checkpoint";
    let half = disk.read(path).len() / 2;
    for slot in [0, half] {
        let damaged = disk.copy();
        damaged.flip(path, slot + 70);
        assert_worst(&damaged.check(), Severity::Heals);
        assert!(damaged.check().findings[0].text.contains("is not valid"));
    }
    let damaged = disk.copy();
    damaged.flip(path, 70);
    damaged.flip(path, half + 70);
    assert_worst(&damaged.check(), Severity::Heals);
    disk.remove(path);
    assert_worst(&disk.check(), Severity::Heals);
}

#[test]
fn what_lies_about_is_noted() {
    let disk = closed_store(50);
    for name in [
        "00000000000000000000.log.part",
        "00000000000000000000-12-3.cut",
        "00000000000000000999.index",
        "next.prepared",
    ] {
        disk.put(&format!("t-0/{name}"), b"x");
    }
    let report = disk.check();
    assert!(report.is_sound(), "{report:#?}");
    assert_eq!(report.findings.len(), 4, "{report:#?}");
}

#[test]
fn one_topic_can_be_asked_for() {
    let disk = closed_store(10);
    let check = |selection| inspect::check(&disk.storage(), &selection, &mut |_| ControlFlow::Continue(()));
    assert_eq!(check(Selection::topic("t")).unwrap().logs.len(), 1);
    assert_eq!(check(Selection::partition("t", 0)).unwrap().logs.len(), 1);
    let Err(Error::UnknownTopicOrPartition { name }) = check(Selection::partition("t", 1)) else { panic!() };
    assert_eq!(name, "t-1");
    let stopped = inspect::check(&disk.storage(), &Selection::all(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Storage { source, .. }) if source.kind() == std::io::ErrorKind::Interrupted));
}

/// No value of any byte of any file makes the check panic or hang; a flip inside a batch is never passed over.
#[test]
fn every_flipped_byte_of_a_small_store_is_seen() {
    let disk = Disk::new();
    let store = disk.open();
    store.create_topic(&small_topic().config("compression.type", "snappy")).unwrap();
    append(&store.log("t", 0).unwrap(), 0, 40);
    store.close().unwrap();
    assert!(disk.logs().len() > 1);
    for path in disk.files() {
        let bytes = disk.read(&path);
        for at in 0..bytes.len() {
            // A slot that does not hold may be in the making, and is waited for: that takes its time.
            let masks: &[u8] = if path.contains("checkpoint") { &[0x10] } else { &[0x01, 0x80, 0xff] };
            for mask in masks {
                disk.write(&path, at, &[bytes[at] ^ mask]);
                let report = disk.check();
                if path.ends_with(".log") || path.ends_with("index") {
                    let severity = report.worst;
                    assert!(severity >= Some(Severity::Heals), "{path} byte {at} mask {mask}: {report:#?}");
                }
                disk.write(&path, at, &bytes[at..=at]);
            }
        }
    }
    assert!(disk.check().findings.is_empty());
}

/// What a reader reads: values by offset, and the ranges that it had to pass over.
fn read_all(store: &Store) -> (BTreeMap<i64, String>, Vec<(i64, i64)>) {
    let log = store.log("t", 0).unwrap();
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    let (mut values, mut lost) = (BTreeMap::new(), Vec::new());
    loop {
        match reader.next_batch() {
            Ok(Some(batch)) => {
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    let text = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                    assert_eq!(values.insert(record.offset.0, text), None, "offset {}", record.offset);
                }
            }
            Ok(None) => return (values, lost),
            Err(error) => {
                assert!(error.is_corrupt(), "{error}");
                let range = reader.skip_damage().unwrap();
                lost.push((range.first_offset.0, range.next_offset.0));
            }
        }
    }
}

/// Repairs, and holds the outcome to what it promises: sound, read without error, nothing lost but `lost`, and
/// appended to again behind everything there was.
#[track_caller]
fn repair_and_read(disk: &Disk, start: i64, end: i64, lost: &[(i64, i64)]) -> inspect::RepairReport {
    let before: Vec<_> = disk.files().into_iter().map(|path| (disk.read(&path), path)).collect();
    let dry = inspect::repair(&disk.storage(), &Selection::all(), true, &mut |_| ControlFlow::Continue(())).unwrap();
    for (bytes, path) in before {
        assert_eq!(disk.read(&path), bytes, "a dry run changed {path}");
    }
    assert!(!dry.actions.is_empty(), "{dry:#?}");
    let report =
        inspect::repair(&disk.storage(), &Selection::all(), false, &mut |_| ControlFlow::Continue(())).unwrap();
    let after = disk.check();
    assert!(after.is_sound(), "{after:#?}\n{report:#?}");
    for _ in 0..2 {
        let store = disk.open();
        assert!(store.recovery_report().clean, "{}", store.recovery_report());
        let (values, passed) = read_all(&store);
        assert_eq!(passed, [], "{report:#?}");
        let is_lost = |n: i64| lost.iter().any(|(first, next)| (*first..*next).contains(&n));
        let expected: BTreeMap<_, _> = (start..end).filter(|&n| !is_lost(n)).map(|n| (n, value(n))).collect();
        assert_eq!(values.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{report:#?}");
        assert_eq!(values, expected);
        store.close().unwrap();
    }
    // The log goes on, in a higher epoch, and stays sound over another close.
    let store = disk.open();
    let log = store.log("t", 0).unwrap();
    assert_eq!(log.offsets().log_end_offset, end);
    append(&log, end, end + 30);
    store.close().unwrap();
    assert!(disk.check().is_sound(), "{:#?}", disk.check());
    report
}

#[test]
fn repair_leaves_a_gap_where_records_are_lost_and_all_others_readable() {
    let disk = closed_store(200);
    let logs = disk.logs();
    for path in &logs {
        let all = batches(&disk.read(path));
        for at in [0, 1, all.len() / 2, all.len() - 1] {
            let (position, base, next) = all[at];
            for byte in [8, 16, 30, 70] {
                let damaged = disk.copy();
                damaged.flip(path, position + byte);
                let report = repair_and_read(&damaged, 0, 200, &[(base, next)]);
                let kept = damaged.files().into_iter().find(|file| file.ends_with(".cut")).unwrap();
                let mut bytes = damaged.read(&kept);
                bytes[byte] ^= 0x40;
                assert_eq!(batches(&bytes), [(0, base, next)], "{report:#?}");
            }
        }
    }
}

#[test]
fn repair_puts_fields_outside_the_checksum_right() {
    let disk = closed_store(200);
    let path = &disk.logs()[1];
    let original = disk.read(path);
    let all = batches(&original);
    for at in [0, 3, all.len() - 1] {
        for byte in [0, 6, 7, 12, 15] {
            let damaged = disk.copy();
            damaged.flip(path, all[at].0 + byte);
            repair_and_read(&damaged, 0, 200, &[]);
            assert_eq!(damaged.read(path), original);
        }
    }
}

#[test]
fn repair_heals_missing_and_short_segments() {
    let disk = closed_store(200);
    let logs = disk.logs();
    let (all, next_base) = (batches(&disk.read(&logs[1])), batches(&disk.read(&logs[2]))[0].1);
    let (position, base, _) = all[4];
    for len in [position + 10, position + 70, position, 0] {
        let damaged = disk.copy();
        damaged.truncate(&logs[1], len);
        let from = if len == 0 { all[0].1 } else { base };
        repair_and_read(&damaged, 0, 200, &[(from, next_base)]);
    }
    let damaged = disk.copy();
    damaged.remove(&logs[1]);
    repair_and_read(&damaged, 0, 200, &[(all[0].1, next_base)]);
    let last = batches(&disk.read(logs.last().unwrap()))[0].1;
    let damaged = disk.copy();
    damaged.remove(logs.last().unwrap());
    repair_and_read(&damaged, 0, 200, &[(last, 200)]);
    let damaged = disk.copy();
    damaged.truncate(logs.last().unwrap(), 100);
    repair_and_read(&damaged, 0, 200, &[(last, 200)]);
    let damaged = disk.copy();
    damaged.remove(&logs[0]);
    repair_and_read(&damaged, all[0].1, 200, &[]);
    let damaged = disk.copy();
    for path in &logs {
        damaged.remove(path);
    }
    repair_and_read(&damaged, 200, 200, &[]);
}

#[test]
fn repair_rebuilds_indexes() {
    let disk = closed_store(200);
    let log = &disk.logs()[1];
    for index in [log.replace(".log", ".index"), log.replace(".log", ".timeindex")] {
        let original = disk.read(&index);
        let damaged = disk.copy();
        damaged.flip(&index, 9);
        repair_and_read(&damaged, 0, 200, &[]);
        assert_eq!(damaged.read(&index), original);
        let damaged = disk.copy();
        damaged.remove(&index);
        repair_and_read(&damaged, 0, 200, &[]);
        assert_eq!(damaged.read(&index), original);
    }
}

#[test]
fn repair_after_a_crash_keeps_what_is_above_the_recovery_point() {
    let disk = crashed_store(200);
    let logs = disk.logs();
    // Nothing but the crash.
    repair_and_read(&disk.copy(), 0, 210, &[]);
    // Damage below the recovery point: in a sealed segment, in the active one, and in the very last durable batch.
    let active = logs.last().unwrap();
    let in_active = batches(&disk.read(active));
    let in_first = batches(&disk.read(&logs[0]));
    let last_durable = in_active.iter().find(|(_, _, next)| *next == 200).unwrap();
    for (path, (position, base, next)) in [(&logs[0], in_first[2]), (active, in_active[0]), (active, *last_durable)] {
        let damaged = disk.copy();
        damaged.flip(path, position + 70);
        assert_lost(&damaged.check(), &[(base, next)]);
        repair_and_read(&damaged, 0, 210, &[(base, next)]);
    }
    // And a torn tail as well.
    let damaged = disk.copy();
    let (torn, end, _) = in_active[in_active.len() - 1];
    damaged.flip(&logs[0], in_first[2].0 + 70);
    damaged.flip(active, torn + 70);
    repair_and_read(&damaged, 0, end, &[(in_first[2].1, in_first[2].2)]);
}

#[test]
fn repair_without_a_checkpoint_keeps_what_is_behind_damage() {
    let disk = closed_store(200);
    let path = &disk.logs()[1];
    let (position, base, next) = batches(&disk.read(path))[3];
    disk.flip(path, position + 70);
    disk.remove("edgelog.checkpoint");
    repair_and_read(&disk, 0, 200, &[(base, next)]);
}

#[test]
fn repair_of_a_sound_store_does_nothing() {
    let disk = closed_store(50);
    let before: Vec<_> = disk.files().into_iter().map(|path| (disk.read(&path), path)).collect();
    let report =
        inspect::repair(&disk.storage(), &Selection::all(), false, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.actions.is_empty() && report.recovery.is_none());
    for (bytes, path) in before {
        assert_eq!(disk.read(&path), bytes, "{path}");
    }
    let store = disk.open();
    let locked = inspect::repair(&disk.storage(), &Selection::all(), false, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(locked, Err(Error::DataDirLocked(_))));
    drop(store);
}

#[test]
fn what_was_cut_can_be_salvaged_as_new_records() {
    let disk = crashed_store(200);
    let path = disk.logs().pop().unwrap();
    let all = batches(&disk.read(&path));
    let (position, torn, _) = all[all.len() - 4];
    disk.flip(&path, position + 70);
    // Recovery ends the log at the torn batch, and keeps the three good ones behind it.
    disk.open().close().unwrap();
    let cut = disk.files().into_iter().find(|file| file.ends_with(".cut")).unwrap();
    let report = inspect::salvage(&disk.storage(), &cut).unwrap();
    assert!(report.renamed_to.ends_with(".cut.salvaged"), "{report:#?}");
    // Those three and no others: what stands before them in the file is in the log still.
    assert_eq!((report.batches, report.records, report.from), (3, 3, position as u64), "{report:#?}");
    assert_eq!(report.old_offsets, Some((Offset(torn + 1), Offset(torn + 4))), "{report:#?}");
    let store = disk.open();
    let (values, lost) = read_all(&store);
    assert_eq!(lost, []);
    let (first, next) = report.offsets.unwrap();
    assert_eq!((first, next), (Offset(torn), Offset(torn + i64::try_from(report.records).unwrap())));
    assert_eq!(values.len() as i64, torn + 3);
    for n in 0..3 {
        assert_eq!(values[&(torn + n)], value(torn + 1 + n));
    }
    assert!(inspect::salvage(&disk.storage(), &cut).is_err());
}

fn export(disk: &Disk, range: ExportRange) -> (Disk, inspect::ExportReport) {
    let target = Disk::new();
    let name = "t-0".parse().unwrap();
    let id = Some("AAAAAAAAQACAAAAAAAAAAQ");
    let go_on = &mut |_| ControlFlow::Continue(());
    let report = inspect::export_partition(&disk.storage(), &name, &target.storage(), range, id, go_on).unwrap();
    (target, report)
}

#[test]
fn an_exported_partition_is_the_log_in_epoch_0() {
    let disk = crashed_store(200);
    disk.open().close().unwrap();
    let store = disk.open();
    append(&store.log("t", 0).unwrap(), 210, 230);
    assert_eq!(store.log("t", 0).unwrap().leader_epoch(), 1);
    // While the writer runs.
    let (target, report) = export(&disk, ExportRange::default());
    assert_eq!((report.records, report.offsets), (230, Some((Offset(0), Offset(230)))));
    assert_eq!(target.logs(), disk.logs());
    for path in disk.logs() {
        let (mut before, after) = (disk.read(&path), target.read(&path));
        for (at, ..) in batches(&before) {
            before[at + 12..at + 16].fill(0);
        }
        assert_eq!(after, before[..after.len()], "{path}");
        assert!(before[after.len()..].iter().all(|&byte| byte == 0));
    }
    store.close().unwrap();
    assert_eq!(target.files().iter().filter(|path| path.ends_with("index")).count(), 2 * target.logs().len());
    assert_eq!(target.read("t-0/leader-epoch-checkpoint"), b"0\n1\n0 0\n");
    assert_eq!(target.read("t-0/partition.metadata"), b"version: 0\ntopic_id: AAAAAAAAQACAAAAAAAAAAQ");
    // Taken over by a store, it holds and reads the same.
    assert!(
        target
            .check()
            .findings
            .iter()
            .all(|finding| finding.file == "edgelog.checkpoint" || finding.severity == Severity::Note)
    );
    let store = target.open();
    assert_eq!(read_all(&store), ((0..230).map(|n| (n, value(n))).collect(), vec![]));
    store.close().unwrap();
    assert!(target.check().is_sound());
    let name = "t-0".parse().unwrap();
    let go_on = &mut |_| ControlFlow::Continue(());
    let again =
        inspect::export_partition(&disk.storage(), &name, &target.storage(), ExportRange::default(), None, go_on);
    assert!(matches!(again, Err(Error::Storage { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists));
}

#[test]
fn a_part_of_a_log_is_exported_as_whole_batches() {
    let disk = closed_store(200);
    let (target, report) = export(&disk, ExportRange::between(Offset(50), Offset(150)));
    assert_eq!(report.offsets, Some((Offset(50), Offset(150))));
    assert_eq!(target.read("t-0/leader-epoch-checkpoint"), b"0\n1\n0 50\n");
    let store = target.open();
    assert_eq!(read_all(&store).0.into_keys().collect::<Vec<_>>(), (50..150).collect::<Vec<_>>());
}

/// What was deleted from the front of a log does not come back in a broker, although its batch is there still.
#[cfg(feature = "snappy")]
#[test]
fn a_batch_that_reaches_over_the_range_is_exported_in_part() {
    for codec in ["none", "snappy"] {
        let disk = Disk::new();
        let store = disk.open();
        store.create_topic(&small_topic().config("compression.type", codec)).unwrap();
        let log = store.log("t", 0).unwrap();
        let values: Vec<String> = (0..100).map(value).collect();
        for ten in values.chunks(10) {
            let mut batch = log.batch();
            for (n, value) in ten.iter().enumerate() {
                let record =
                    NewRecord::value(value.as_bytes()).with_timestamp(TimestampMs(5000 - i64::try_from(n).unwrap()));
                batch.push(record).unwrap();
            }
            log.append_batch(&mut batch).unwrap();
        }
        log.delete_records_before(Offset(37)).unwrap();
        store.close().unwrap();
        let (target, report) = export(&disk, ExportRange::between(Offset(0), Offset(85)));
        assert_eq!((report.offsets, report.records), (Some((Offset(37), Offset(85))), 48));
        assert_eq!(target.logs()[0], "t-0/00000000000000000037.log");
        let store = target.open();
        assert_eq!(read_all(&store), ((37..85).map(|n| (n, value(n))).collect(), vec![]), "{codec}");
        store.close().unwrap();
        assert!(target.check().is_sound(), "{:#?}", target.check());
    }
}

/// In a compacted log the offsets of a batch have holes, and times may be before 1970: the batches at the edges of the
/// range were exported whole, and a time before 1970 ended the export.
#[test]
fn a_compacted_batch_that_reaches_over_the_range_is_exported_in_part() {
    let disk = Disk::new();
    disk.0.create_dir("t-0").unwrap();
    let mut log = Vec::new();
    for base in [0, 10, 20] {
        let mut builder = RecordBatchBuilder::new(vec![0; 512]);
        for delta in [0, 4, 9] {
            let (offset, time) = (base + i64::from(delta), TimestampMs(-5000 - i64::from(delta)));
            builder.append_at(delta, time, Some(b"key"), Some(value(offset).as_bytes()), &[]).unwrap();
        }
        let batch = builder.finish();
        stamp_base(batch, Offset(base), LeaderEpoch(0));
        log.extend_from_slice(batch);
    }
    disk.put("t-0/00000000000000000000.log", &log);
    for (from, until, expected) in
        [(12, 24, &[14, 19, 20][..]), (0, 10, &[0, 4, 9]), (5, 9, &[]), (10, 15, &[10, 14]), (14, 15, &[14])]
    {
        let (target, report) = export(&disk, ExportRange::between(Offset(from), Offset(until)));
        assert_eq!(report.records, expected.len() as u64, "{from} to {until}");
        if expected.is_empty() {
            continue;
        }
        let store = target.open();
        let read = expected.iter().map(|&n| (n, value(n))).collect();
        assert_eq!(read_all(&store), (read, vec![]), "{from} to {until}");
        store.close().unwrap();
        assert!(target.check().is_sound(), "{:#?}", target.check());
    }
}

/// The checkpoint has all logs of a store: read once for each of them, it costs the square of their number.
#[test]
fn an_export_of_many_logs_reads_the_checkpoint_once() {
    let read_for = |logs: u32, for_broker: bool| {
        let disk = Disk::new();
        let store = disk.open();
        store.create_topic(&NewTopic::new("t").partitions(logs)).unwrap();
        for partition in 0..logs {
            append(&store.log("t", partition).unwrap(), 0, 3);
        }
        store.close().unwrap();
        let counted = Pulled { disk: disk.0.clone(), left: Arc::new(AtomicUsize::new(0)), checkpoint: Arc::default() };
        let storage: Arc<dyn Storage> = Arc::new(counted.clone());
        let mut export = inspect::Export::new(&storage, ExportRange::default()).unwrap();
        let (target, mut records) = (Disk::new(), 0);
        for partition in 0..logs {
            let name = edgelog::TopicPartition::new("t", partition);
            let go_on = &mut |_| ControlFlow::Continue(());
            let report = if for_broker {
                export.partition(&name, &target.storage(), None, go_on)
            } else {
                export.records(&name, &mut |_, _| Ok(()), go_on)
            };
            records += report.unwrap().records;
        }
        assert_eq!(records, u64::from(logs) * 3);
        counted.checkpoint.load(Ordering::Relaxed)
    };
    for for_broker in [false, true] {
        assert_eq!(read_for(64, for_broker), read_for(128, for_broker), "for a broker: {for_broker}");
    }
}

#[test]
fn damage_is_left_out_of_exports_and_reported() {
    let disk = closed_store(200);
    let path = &disk.logs()[1];
    let (position, base, next) = batches(&disk.read(path))[3];
    disk.flip(path, position + 70);
    let (target, report) = export(&disk, ExportRange::default());
    assert_eq!((report.records, report.lost[0].lost), (199, Some((Offset(base), Offset(next)))));
    // What is there holds to the last byte; offsets need only rise in a log that was brought in.
    assert_eq!(target.check().worst, Some(Severity::Heals), "{:#?}", target.check());
    let mut offsets = Vec::new();
    let mut collect = |record: &edgelog::Record<'_>, kind| {
        assert_eq!(kind, edgelog::edgelog_core::TimestampType::CreateTime);
        offsets.push(record.offset);
        Ok(())
    };
    let go_on = &mut |_| ControlFlow::Continue(());
    let name = "t-0".parse().unwrap();
    let report = inspect::export_records(&disk.storage(), &name, ExportRange::default(), &mut collect, go_on).unwrap();
    assert_eq!((report.records, report.lost[0].lost), (199, Some((Offset(base), Offset(next)))));
    assert_eq!(offsets, (0..200).filter(|&n| n < base || n >= next).collect::<Vec<_>>());
}

/// What retention takes before an export comes to it was missing without a word.
#[test]
fn an_export_names_what_is_deleted_before_it_is_read() {
    let disk = Disk::new();
    let store = disk.open();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for n in 0..500_i64 {
        let value = [b'v'; 100];
        log.append(NewRecord::value(&value).with_timestamp(TimestampMs(1_700_000_000_000 + n))).unwrap();
    }
    drop(log);
    store.close().unwrap();
    let store = disk.open();
    let log = store.log("t", 0).unwrap();
    let mut offsets = Vec::new();
    let mut collect = |record: &edgelog::Record<'_>, _| {
        if offsets.is_empty() {
            log.delete_records_before(Offset(333)).unwrap();
        }
        offsets.push(record.offset);
        Ok(())
    };
    let go_on = &mut |_| ControlFlow::Continue(());
    let name = "t-0".parse().unwrap();
    let range = ExportRange::between(Offset(0), Offset(450));
    let report = inspect::export_records(&disk.storage(), &name, range, &mut collect, go_on).unwrap();
    assert!(!report.deleted.is_empty() && report.lost.is_empty(), "{report:?}");
    for &(first, next) in &report.deleted {
        offsets.extend((first.0..next.0).map(Offset));
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..450).map(Offset).collect::<Vec<_>>());
}

/// A partition's export ended, without a word, where retention had taken the segment behind the one that it read.
#[test]
fn a_partitions_export_goes_on_behind_segments_that_are_deleted_meanwhile() {
    let disk = Disk::new();
    let store = disk.open();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "65536").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for n in 0..300_i64 {
        let value = [b'v'; 10_000];
        log.append(NewRecord::value(&value).with_timestamp(TimestampMs(1_700_000_000_000 + n))).unwrap();
    }
    let target = Disk::new();
    let mut has_deleted = false;
    let mut delete = |_| {
        if !std::mem::replace(&mut has_deleted, true) {
            log.delete_records_before(Offset(250)).unwrap();
        }
        ControlFlow::Continue(())
    };
    let name = "t-0".parse().unwrap();
    let range = ExportRange::between(Offset(0), Offset(290));
    let report =
        inspect::export_partition(&disk.storage(), &name, &target.storage(), range, None, &mut delete).unwrap();
    let &[(first, next)] = &report.deleted[..] else { panic!("{report:?}") };
    assert!(first > 100 && next <= 250 && next > 240 && report.lost.is_empty(), "{report:?}");
    assert_eq!((report.records as i64, report.offsets), (290 - (next - first), Some((Offset(0), Offset(290)))));
    drop(log);
    store.close().unwrap();
}

/// Records before the log start were counted, and no reader gives them out.
#[test]
fn a_check_counts_records_from_the_log_start_on() {
    let disk = Disk::new();
    let store = disk.open();
    store.create_topic(&NewTopic::new("t").config("retention.ms", "-1")).unwrap();
    let log = store.log("t", 0).unwrap();
    for _ in 0..5 {
        let mut batch = log.batch();
        for _ in 0..4 {
            batch.push(NewRecord::value(b"v")).unwrap();
        }
        log.append_batch(&mut batch).unwrap();
    }
    // Inside the second batch.
    log.delete_records_before(Offset(6)).unwrap();
    drop(log);
    store.close().unwrap();
    let report = disk.check();
    assert_eq!((report.logs[0].log_start_offset, report.logs[0].records), (Offset(6), 14), "{report:?}");
}

#[test]
fn a_dump_is_kafkas_to_the_letter() {
    let disk = Disk::new();
    let store = disk.open();
    store.create_topic(&NewTopic::new("d")).unwrap();
    let log = store.log("d", 0).unwrap();
    let mut batch = log.batch();
    let headers = [Header::new("a", b"1"), Header::new("b", b"")];
    batch
        .push(NewRecord::value(b"one").with_key(b"k").with_headers(&headers).with_timestamp(TimestampMs(1000)))
        .unwrap();
    batch.push(NewRecord::tombstone(b"k2").with_timestamp(TimestampMs(999))).unwrap();
    log.append_batch(&mut batch).unwrap();
    log.append(NewRecord::value(b"two").with_timestamp(TimestampMs(2000))).unwrap();
    store.close().unwrap();
    let dump = |options| {
        let path = "d-0/00000000000000000000.log";
        let mut text = DumpText::new(Vec::new(), path, options).unwrap();
        let write = &mut |item: DumpItem<'_>| text.write(&item);
        let report = inspect::dump(&*disk.storage(), path, options, write).unwrap();
        (String::from_utf8(text.finish().unwrap()).unwrap(), report)
    };
    let (text, report) = dump(DumpOptions::default().deep(true).data(true));
    assert!(!report.damaged && report.entries == 2 && report.gaps.is_empty());
    let bytes = disk.read("d-0/00000000000000000000.log");
    let crc = |at: usize| u32::from_be_bytes(bytes[at + 17..at + 21].try_into().unwrap());
    let second = batches(&bytes)[1].0;
    let (size, rest) = (second, bytes.len() - second);
    let expected = format!(
        "Dumping d-0/00000000000000000000.log\nLog starting offset: 0\n\
        baseOffset: 0 lastOffset: 1 count: 2 baseSequence: -1 lastSequence: -1 producerId: -1 producerEpoch: -1 \
        partitionLeaderEpoch: 0 isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty \
        position: 0 CreateTime: 1000 size: {size} magic: 2 compresscodec: none crc: {} isvalid: true\n\
        | offset: 0 CreateTime: 1000 keySize: 1 valueSize: 3 sequence: -1 headerKeys: [a,b] key: k payload: one\n\
        | offset: 1 CreateTime: 999 keySize: 2 valueSize: -1 sequence: -1 headerKeys: [] key: k2\n\
        baseOffset: 2 lastOffset: 2 count: 1 baseSequence: -1 lastSequence: -1 producerId: -1 producerEpoch: -1 \
        partitionLeaderEpoch: 0 isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty \
        position: {size} CreateTime: 2000 size: {rest} magic: 2 compresscodec: none crc: {} isvalid: true\n\
        | offset: 2 CreateTime: 2000 keySize: -1 valueSize: 3 sequence: -1 headerKeys: [] payload: two\n",
        crc(0),
        crc(second),
    );
    assert_eq!(text, expected);
    // Damage: the batch is reported as not valid, and the dump goes on.
    disk.flip("d-0/00000000000000000000.log", 70);
    disk.write("d-0/00000000000000000000.log", bytes.len(), &[0; 100]);
    let (text, report) = dump(DumpOptions::default());
    assert!(report.damaged);
    assert_eq!((report.entries, report.invalid_bytes, report.reserved_bytes), (1, size as u64, 100));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[2].ends_with("isvalid: false") && lines[4].ends_with("isvalid: true"), "{text}");
    assert!(lines[3].starts_with(&format!("Found {size} invalid bytes at position 0 of ")), "{text}");
    assert!(lines[5].starts_with("100 bytes of reserved room"), "{text}");
}

/// A disk that is pulled out after so many changes: every later change of it fails.
#[derive(Debug, Clone)]
struct Pulled {
    disk: MemoryStorage,
    left: Arc<AtomicUsize>,
    /// How often more of the checkpoint was read than the headers of its slots.
    checkpoint: Arc<AtomicUsize>,
}

impl Pulled {
    fn change(&self) -> io::Result<()> {
        let took = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        took.map(|_| ()).map_err(|_| io::Error::other("pulled out"))
    }
}

impl Storage for Pulled {
    fn lock(&self) -> io::Result<Box<dyn StorageLock>> {
        self.disk.lock()
    }
    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(dir)
    }
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.change()?;
        self.disk.create_dir(dir)
    }
    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.change()?;
        self.disk.remove_dir(dir)
    }
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        if access == Access::CreateNew {
            self.change()?;
        }
        let is_checkpoint = path == "edgelog.checkpoint";
        Ok(Arc::new(PulledFile { file: self.disk.open(path, access)?, disk: self.clone(), is_checkpoint }))
    }
    fn metadata(&self, path: &str) -> io::Result<FileMeta> {
        self.disk.metadata(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change()?;
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.change()?;
        self.disk.remove_file(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.change()?;
        self.disk.sync_dir(dir)
    }
    fn boot_id(&self) -> [u8; 16] {
        self.disk.boot_id()
    }
}

#[derive(Debug)]
struct PulledFile {
    file: Arc<dyn StorageFile>,
    disk: Pulled,
    is_checkpoint: bool,
}

impl StorageFile for PulledFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        if self.is_checkpoint && buffer.len() > 1024 {
            self.disk.checkpoint.fetch_add(1, Ordering::Relaxed);
        }
        self.file.read_at(buffer, position)
    }
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        // Half of it gets there.
        if let Err(error) = self.disk.change() {
            let _ = self.file.write_at(&bytes[..bytes.len() / 2], position);
            return Err(error);
        }
        self.file.write_at(bytes, position)
    }
    fn store_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_at(bytes, position)
    }
    fn lend(&self, position: u64, len: usize) -> io::Result<Option<Lease>> {
        self.file.lend(position, len)
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.file.reserve(len)
    }
    fn prepare(&self, range: Range<u64>) {
        self.file.prepare(range);
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.change()?;
        self.file.truncate(len)
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.change()?;
        self.file.flush()
    }
}

/// Cut at any change that it makes, a repair leaves what another repair makes whole, and loses nothing more.
#[test]
fn a_repair_that_is_cut_short_anywhere_can_be_run_again() {
    let disk = closed_store(200);
    let logs = disk.logs();
    let (lost, wrong) = (batches(&disk.read(&logs[1]))[3], batches(&disk.read(&logs[2]))[3]);
    disk.flip(&logs[1], lost.0 + 70);
    disk.flip(&logs[2], wrong.0 + 14);
    let gone = batches(&disk.read(&logs[3]));
    disk.remove(&logs[3]);
    disk.flip(&logs[0].replace(".log", ".index"), 9);
    disk.flip("edgelog.checkpoint", 80);
    let lost = [(lost.1, lost.2), (gone[0].1, gone[gone.len() - 1].2)];
    let mut whole = false;
    for changes in 0.. {
        let copy = disk.copy();
        let pulled =
            Pulled { disk: copy.0.clone(), left: Arc::new(AtomicUsize::new(changes)), checkpoint: Arc::default() };
        let storage: Arc<dyn Storage> = Arc::new(pulled);
        let done = inspect::repair(&storage, &Selection::all(), false, &mut |_| ControlFlow::Continue(()));
        drop(storage);
        if whole {
            assert!(changes > 40, "{changes}");
            break;
        }
        whole = done.is_ok_and(|report| report.after.is_some_and(|after| after.is_sound()));
        // However far it got, opening the store loses nothing that the damage had not taken.
        let opened = copy.copy().open();
        let log = opened.log("t", 0).unwrap();
        assert_eq!(log.offsets().log_end_offset, 200, "{changes}");
        let readable = read_all(&opened).0;
        let is_lost = |n: i64| lost.iter().any(|(first, next)| (*first..*next).contains(&n));
        let missing: Vec<_> = (0..200).filter(|n| !is_lost(*n) && !readable.contains_key(n)).collect();
        assert_eq!(missing, Vec::<i64>::new(), "{changes}");
        if !whole {
            repair_and_read(&copy, 0, 200, &lost);
        }
    }
}

/// Damage of every kind at once, in any file: check never panics, and what repair leaves is sound, reads without an
/// error, and holds every record whose batch the damage did not touch.
#[test]
fn repair_makes_any_damaged_store_whole() {
    const ROUNDS: u64 = 200;
    for round in 0..ROUNDS {
        let mut state = round.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut random = |below: usize| {
            // Xorshift: the same damage in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below.max(1) as u64) as usize
        };
        let disk = if round % 2 == 0 { closed_store(150) } else { crashed_store(140) };
        let files = disk.files();
        for _ in 0..=random(4) {
            let path = &files[random(files.len())];
            if !disk.files().contains(path) {
                continue;
            }
            let len = disk.read(path).len();
            if len == 0 {
                continue;
            }
            let at = random(len);
            match random(6) {
                0 | 1 => disk.flip(path, at),
                2 => disk.write(path, at, &vec![0; 512.min(len - at)]),
                3 => disk.write(path, at, &(0..64.min(len - at)).map(|n| n as u8 ^ 0x5a).collect::<Vec<_>>()),
                4 => disk.truncate(path, at),
                _ => disk.remove(path),
            }
        }
        let found = disk.check();
        let go_on = &mut |_| ControlFlow::Continue(());
        let report = inspect::repair(&disk.storage(), &Selection::all(), false, go_on).unwrap();
        let after = disk.check();
        assert!(after.is_sound(), "round {round}: {found:#?}\n{report:#?}\n{after:#?}");
        let store = disk.open();
        let (values, lost) = read_all(&store);
        assert_eq!(lost, [], "round {round}: {report:#?}");
        assert!(values.iter().all(|(n, text)| *text == value(*n)), "round {round}");
        let durable = if round % 2 == 0 { 150 } else { 140 };
        if found.is_sound() {
            assert!(values.len() >= usize::try_from(durable).unwrap(), "round {round}: {found:#?}");
        }
        // What the check did not call lost is there still.
        let reported: Vec<_> = found.findings.iter().filter_map(|finding| finding.lost).collect();
        // Without a checkpoint it is not known what there was. An older slot of it knows less of a store that was in
        // use.
        let checkpoint = found.findings.iter().find(|finding| finding.file == "edgelog.checkpoint");
        let known = checkpoint.is_none_or(|finding| round % 2 == 0 && finding.text.contains("holds"));
        let is_lost = |n: i64| reported.iter().any(|(first, next)| (first.0..next.0).contains(&n));
        let missing: Vec<_> = (0..durable).filter(|n| known && !is_lost(*n) && !values.contains_key(n)).collect();
        assert_eq!(missing, Vec::<i64>::new(), "round {round}: {found:#?}\n{report:#?}");
    }
}
