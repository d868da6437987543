//! A copy of a segment lies under another name, or a segment was renamed: no sound batch is hidden or taken out, and
//! all who look at the log say the same of it.

#![allow(clippy::case_sensitive_file_extension_comparisons)] // The engine writes these names, in lower case.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgelog::edgelog_core::{LeaderEpoch, RecordBatchBuilder, stamp_base};
use edgelog::inspect::{self, CheckReport, ExportRange, Selection, Severity};
use edgelog::storage::{Access, DirEntry, FileMeta, MemoryStorage, Storage, StorageFile, StorageLock};
use edgelog::{Durability, Log, NewRecord, NewTopic, Offset, OffsetSpec, Reader, Store, TimestampMs, TopicPartition};
use edgelog_testkit::faults::FaultyStorage;
use edgelog_testkit::{Files, batches_len, files_of, storage_of, ticking};

/// Records in a batch.
const BATCH: i64 = 3;

fn path(base: i64) -> String {
    format!("t-0/{base:020}.log")
}

fn shared(storage: &MemoryStorage) -> Arc<dyn Storage> {
    Arc::new(storage.clone())
}

fn append(log: &Log, batches: i64) {
    for _ in 0..batches {
        let mut batch = log.batch();
        for _ in 0..BATCH {
            batch.push(NewRecord::value(&[b'x'; 250])).unwrap();
        }
        log.append_batch_with(&mut batch, Durability::Sync).unwrap();
    }
}

/// Offsets in a log, and the stores that hold it: closed cleanly, left by a kill, without its checkpoint.
struct Own {
    end: i64,
    bases: Vec<i64>,
    stores: Vec<(&'static str, Files)>,
}

/// Segments of four batches each, which begin at 0, 12, 24 and so on.
fn own(batches: i64) -> Own {
    let storage = MemoryStorage::new();
    let store = ticking().open_on(storage.clone()).unwrap();
    store.create_topic(&NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", "-1")).unwrap();
    append(&store.log("t", 0).unwrap(), batches);
    store.tick(TimestampMs(1)).unwrap();
    let killed = files_of(&storage);
    store.close().unwrap();
    let closed = files_of(&storage);
    let mut unknown = closed.clone();
    unknown.remove("edgelog.checkpoint").unwrap();
    // A copy of the segments alone, as from a broker: before the first open, and behind it.
    let copied: Files =
        closed.iter().filter(|(path, _)| path.ends_with(".log")).map(|(p, b)| (p.clone(), b.clone())).collect();
    let storage = storage_of(&copied);
    ticking().open_on(storage.clone()).unwrap().close().unwrap();
    let taken_over = files_of(&storage);
    let bases = bases_of(&closed);
    assert!(bases.len() > 3 && bases[1] == 4 * BATCH, "{bases:?}");
    let stores = vec![
        ("closed", closed),
        ("killed", killed),
        ("unknown", unknown),
        ("copied", copied),
        ("taken over", taken_over),
    ];
    Own { end: batches * BATCH, bases, stores }
}

fn bases_of(files: &Files) -> Vec<i64> {
    let names = files.keys().filter_map(|path| path.strip_prefix("t-0/")?.strip_suffix(".log"));
    names.map(|name| name.parse().unwrap()).collect()
}

fn read(log: &Log, from: OffsetSpec) -> Vec<i64> {
    let mut reader = log.reader(from).unwrap();
    let mut offsets = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap_or_else(|error| panic!("at {:?}: {error}", reader_at(&offsets)))
    {
        offsets.extend(batch.records().unwrap().map(|record| record.unwrap().offset.0));
    }
    offsets
}

fn reader_at(offsets: &[i64]) -> Option<&i64> {
    offsets.last()
}

fn check(storage: &MemoryStorage) -> CheckReport {
    inspect::check(&shared(storage), &Selection::all(), &mut |_| ControlFlow::Continue(())).unwrap()
}

fn repair(storage: &MemoryStorage, dry_run: bool) -> inspect::RepairReport {
    inspect::repair(&shared(storage), &Selection::all(), dry_run, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Every reader sees all offsets up to `end`, and no tool speaks of a loss.
fn is_whole(storage: &MemoryStorage, end: i64, what: &str) {
    let all: Vec<i64> = (0..end).collect();
    for from in [0, 1, end / 2, end - 2] {
        let store = ticking().attach_on(storage.clone()).unwrap();
        let log = store.log("t", 0).unwrap();
        assert_eq!(read(&log, OffsetSpec::Offset(Offset(from))), all[from as usize..], "{what}, attached at {from}");
        assert_eq!(log.offsets().log_end_offset, end, "{what}");
    }
    let mut exported = Vec::new();
    let mut collect = |record: &edgelog::Record<'_>, _| {
        exported.push(record.offset.0);
        Ok(())
    };
    let name = TopicPartition::new("t", 0);
    let (range, go_on) = (ExportRange::default(), &mut |_| ControlFlow::Continue(()));
    let report = inspect::export_records(&shared(storage), &name, range, &mut collect, go_on).unwrap();
    assert_eq!((&exported, &report.lost), (&all, &Vec::new()), "{what}, export");
    let target = MemoryStorage::new();
    let report = inspect::export_partition(&shared(storage), &name, &shared(&target), range, None, go_on).unwrap();
    assert_eq!((report.records as i64, &report.lost), (end, &Vec::new()), "{what}, export for a broker");
    assert_eq!(inspect::check_hidden(&shared(storage), &name).unwrap(), [], "{what}");
    assert_eq!(inspect::check_ends(&shared(storage), &Selection::all()).unwrap(), [], "{what}");
    let report = check(storage);
    assert!(report.worst != Some(Severity::Lost), "{what}: {report:#?}");
    assert_eq!((report.logs[0].records as i64, report.logs[0].log_end_offset.0), (end, end), "{what}: {report:#?}");
}

/// What `files` hold is read whole before and after an open, which goes on behind it, and before and after a repair.
fn nothing_is_lost(files: &Files, end: i64, what: &str) {
    let storage = storage_of(files);
    is_whole(&storage, end, what);
    assert_eq!(files_of(&storage), *files, "{what}: looking changes nothing");
    assert!(repair(&storage, true).after.is_none());
    assert_eq!(files_of(&storage), *files, "{what}: nor does a dry run");

    let repaired = repair(&storage, false);
    assert!(repaired.after.is_none_or(|after| after.is_sound()), "{what}");
    is_whole(&storage, end, &format!("{what}, repaired"));
    let report = check(&storage);
    assert!(report.is_sound(), "{what}, repaired: {report:#?}");
    let once = files_of(&storage);
    assert_eq!(repair(&storage, false).actions, [], "{what}, repaired twice");
    assert_eq!(files_of(&storage), once, "{what}, repaired twice");
    assert!(once.keys().all(|path| !path.ends_with(".cut")), "{what}: {:?}", once.keys());

    for mut files in [files.clone(), once] {
        for round in 1..=2 {
            let storage = storage_of(&files);
            let what = format!("{what}, open {round}");
            let store = ticking().open_on(storage.clone()).unwrap();
            let report = store.recovery_report();
            assert_eq!((report.lost_offsets(), report.cut_bytes()), (0, 0), "{what}: {report}");
            let log = store.log("t", 0).unwrap();
            let end = end + (round - 1) * 20 * BATCH;
            assert_eq!(read(&log, OffsetSpec::Offset(Offset(end / 2))), (end / 2..end).collect::<Vec<_>>(), "{what}");
            assert_eq!(read(&log, OffsetSpec::Earliest), (0..end).collect::<Vec<_>>(), "{what}");
            append(&log, 20);
            let all: Vec<i64> = (0..end + 20 * BATCH).collect();
            assert_eq!(read(&log, OffsetSpec::Earliest), all, "{what}, appended to");
            store.close().unwrap();
            is_whole(&storage, all.len() as i64, &what);
            files = files_of(&storage);
        }
    }
}

/// Names below, among and behind those of the segments.
fn other_names(own: &Own) -> Vec<i64> {
    let behind = [own.end + 1, own.end + 8 * BATCH, 1 << 62];
    (0..=own.end).chain(behind).filter(|name| !own.bases.contains(name)).collect()
}

#[test]
fn a_copy_of_a_segment_under_another_name_is_passed_over() {
    let own = own(14);
    for (state, files) in &own.stores {
        for &base in &own.bases {
            for name in other_names(&own) {
                let mut files = files.clone();
                files.insert(path(name), files[&path(base)].clone());
                nothing_is_lost(&files, own.end, &format!("{state}, a copy of {base} named {name}"));
                // One is named, and that is all.
                let report = check(&storage_of(&files));
                let named = report.findings.iter().filter(|finding| finding.file == path(name));
                let named: Vec<_> = named.map(|finding| finding.severity).collect();
                assert_eq!(named, [Severity::Note], "{report:#?}");
            }
        }
    }
}

/// What damage has taken of the original is read from the copy.
#[test]
fn a_copy_of_a_sealed_segment_that_holds_more_than_the_original_takes_its_place() {
    let own = own(14);
    for (state, files) in &own.stores {
        for &base in &own.bases[..own.bases.len() - 1] {
            for (name, is_cut) in [(base + 1, true), (base + 1, false), (own.end + 9, false), (own.end + 9, true)] {
                let mut files = files.clone();
                let mut original = files[&path(base)].clone();
                files.insert(path(name), original.clone());
                let middle = original.len() / 2;
                if is_cut {
                    original.truncate(middle);
                } else {
                    original[middle] ^= 1;
                }
                files.insert(path(base), original);
                nothing_is_lost(&files, own.end, &format!("{state}, {base} damaged, its copy is named {name}"));
            }
        }
    }
}

/// The names are looked at when a reader meets damage, and the attached log then begins again before its end.
#[test]
fn a_reader_that_begins_behind_a_copy_and_damage_reads_on_to_the_end() {
    let own = own(19);
    let last = *own.bases.last().unwrap();
    for (what, files) in &own.stores {
        let mut files = files.clone();
        let bytes = files[&path(last)].clone();
        let first_len = 12 + usize::try_from(u32::from_be_bytes(bytes[8..12].try_into().unwrap())).unwrap();
        let noise: Vec<u8> = (1..61).collect();
        files.insert(path(last), [&bytes[..first_len], &noise, &bytes[first_len..]].concat());
        files.insert(path(last - 1), bytes);
        let whole = attached_from(&files, 0);
        assert!(whole.contains(&(last + 2 * BATCH)), "{what}: {whole:?}");
        for from in last - BATCH..own.end {
            let expected: Vec<i64> = whole.iter().copied().filter(|&offset| offset >= from).collect();
            assert_eq!(attached_from(&files, from), expected, "{what}, from {from}");
        }
    }
}

/// What a reader of an attached log gives out from an offset on, over what is lost.
fn attached_from(files: &Files, from: i64) -> Vec<i64> {
    let store = ticking().attach_on(storage_of(files)).unwrap();
    let mut reader = store.log("t", 0).unwrap().reader(OffsetSpec::Offset(Offset(from))).unwrap();
    let mut offsets = Vec::new();
    loop {
        match reader.next_batch() {
            Ok(Some(batch)) => offsets.extend(batch.records().unwrap().map(|record| record.unwrap().offset.0)),
            Ok(None) => return offsets,
            Err(error) if error.is_corrupt() => drop(reader.skip_damage().unwrap()),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_renamed_segment_is_read_at_the_offsets_of_its_batches() {
    let own = own(14);
    for (state, files) in &own.stores {
        for &base in &own.bases {
            for name in other_names(&own) {
                let mut files = files.clone();
                let segment = files.remove(&path(base)).unwrap();
                files.insert(path(name), segment);
                let what = format!("{state}, {base} named {name}");
                nothing_is_lost(&files, own.end, &what);
                let storage = storage_of(&files);
                let report = check(&storage);
                let named = report.findings.iter().filter(|finding| finding.file == path(name));
                let named: Vec<_> = named.map(|finding| finding.severity).collect();
                let may_overlap = ["copied", "taken over"].contains(state);
                // A name that hides nothing is as good as its own, where segments may overlap.
                assert!(named == [Severity::Heals] || may_overlap && named.is_empty(), "{what}: {named:?}");
                repair(&storage, false);
                let bases = bases_of(&files_of(&storage));
                assert!(bases == own.bases || may_overlap && bases.contains(&name), "{what}: {bases:?}");
            }
        }
    }
}

/// By way of names that are as wrong: cut short anywhere, each segment is found.
#[test]
fn segments_that_have_each_others_names_get_their_own() {
    let own = own(14);
    let (a, b, c) = (own.bases[1], own.bases[2], own.bases[3]);
    for (state, files) in &own.stores {
        for (from, to) in [([a, b, c], [b, a, c]), ([a, b, c], [b, c, a]), ([a, b, c], [b, c, c + 9])] {
            let mut changed = files.clone();
            changed.retain(|file, _| !from.iter().any(|&base| *file == path(base)));
            changed.extend(from.iter().zip(to).map(|(&base, name)| (path(name), files[&path(base)].clone())));
            let what = format!("{state}, {from:?} named {to:?}");
            nothing_is_lost(&changed, own.end, &what);
            let storage = storage_of(&changed);
            repair(&storage, false);
            assert_eq!(bases_of(&files_of(&storage)), own.bases, "{what}");
        }
    }
}

/// The base offset of a first batch is not covered by its checksum: where the name is borne out, it is believed.
#[test]
fn a_first_batch_with_a_damaged_base_offset_does_not_rename_its_segment() {
    let own = own(14);
    for (state, files) in &own.stores {
        for &base in &own.bases[1..] {
            for claimed in [base - 1, base - BATCH, base + 1, base + BATCH, 0] {
                let mut files = files.clone();
                let segment = files.get_mut(&path(base)).unwrap();
                segment[..8].copy_from_slice(&claimed.to_be_bytes());
                let storage = storage_of(&files);
                let before = check(&storage);
                repair(&storage, false);
                let what = format!("{state}, {base} claims {claimed}: {before:#?}");
                assert_eq!(bases_of(&files_of(&storage)), own.bases, "{what}");
            }
        }
    }
}

/// A file of a broker may begin behind its name, since compaction took what stood before, and may overlap the next one.
#[test]
fn segments_that_overlap_keep_what_each_of_them_holds() {
    let batch = |&(base, records): &(i64, i64)| {
        let mut builder = RecordBatchBuilder::new(vec![0; 1000]);
        for _ in 0..records {
            builder.append(TimestampMs(1000 + base), None, Some(b"value"), &[]).unwrap();
        }
        let bytes = builder.finish();
        stamp_base(bytes, Offset(base), LeaderEpoch(0));
        bytes.to_vec()
    };
    let bytes = |batches: &[(i64, i64)]| batches.iter().flat_map(batch).collect::<Vec<u8>>();
    let files = Files::from([
        (path(0), bytes(&[(0, 2), (4, 1)])),
        (path(10), bytes(&[(12, 2), (14, 4)])),
        (path(15), bytes(&[(16, 1), (18, 1)])),
        (path(20), bytes(&[(25, 2)])),
        (path(30), bytes(&[(30, 1)])),
    ]);
    let expected = [0, 1, 4, 12, 13, 14, 15, 16, 17, 18, 25, 26, 30];
    let storage = storage_of(&files);
    let store = ticking().attach_on(storage.clone()).unwrap();
    assert_eq!(read(&store.log("t", 0).unwrap(), OffsetSpec::Earliest), expected);
    let store = ticking().set("retention.ms", "-1").unwrap().open_on(storage.clone()).unwrap();
    assert_eq!(read(&store.log("t", 0).unwrap(), OffsetSpec::Earliest), expected);
    store.close().unwrap();
    assert_eq!(bases_of(&files_of(&storage)), [0, 10, 15, 20, 30]);
}

/// A stop between the two renames of a cut leaves a segment under its `.cut` name. The next open puts it back; until
/// then, readers find it there.
#[test]
fn a_segment_that_stands_under_its_cut_name_is_read_there() {
    let own = own(14);
    for (state, files) in &own.stores {
        for &base in &own.bases {
            let mut files = files.clone();
            let segment = files.remove(&path(base)).unwrap();
            files.insert(format!("{}.part", path(base)), segment[..segment.len() / 2].to_vec());
            files.insert(format!("t-0/{base:020}-760-0.cut"), segment);
            let what = format!("{state}, {base}");
            is_whole(&storage_of(&files), own.end, &what);
            let storage = storage_of(&files);
            let store = ticking().open_on(storage.clone()).unwrap();
            assert_eq!(store.recovery_report().lost_offsets(), 0, "{what}");
            store.close().unwrap();
            assert_eq!(bases_of(&files_of(&storage)), own.bases, "{what}");
            is_whole(&storage, own.end, &what);
        }
    }
}

/// A process attached between those two renames, and took the file that was put aside for the segment from then on:
/// what was appended to the segment behind them was damage to it.
#[test]
fn who_attaches_between_the_renames_of_a_cut_goes_on_in_the_segment() {
    let written = MemoryStorage::new();
    let store = ticking().open_on(written.clone()).unwrap();
    store.create_topic(&NewTopic::new("t")).unwrap();
    let log = store.log("t", 0).unwrap();
    append(&log, 2);
    store.tick(TimestampMs(1)).unwrap();
    append(&log, 3);
    // The power goes, and of the last but one batch a part was not written.
    let mut files = files_of(&written);
    let segment = files.get_mut(&path(0)).unwrap();
    let batch = batches_len(segment) / 5;
    segment[3 * batch + 100] ^= 1;
    let disk = storage_of(&files);
    let attached: Arc<Mutex<Option<(Store, Reader)>>> = Arc::default();
    let (storage, seen) = (disk.clone(), Arc::clone(&attached));
    let storage = FaultyStorage::before_sync_dir(disk.clone(), move || {
        if files_of(&storage).contains_key(&format!("{}.part", path(0))) && !files_of(&storage).contains_key(&path(0)) {
            let store = ticking().attach_on(storage.clone()).unwrap();
            let mut reader = store.log("t", 0).unwrap().reader(OffsetSpec::Earliest).unwrap();
            while reader.next_batch().unwrap().is_some() {}
            seen.lock().unwrap().get_or_insert((store, reader));
        }
    });
    let store = ticking().open_on(storage).unwrap();
    let report = store.recovery_report();
    assert!(report.logs[0].cut[0].kept_in.is_some() && report.lost_offsets() == 0, "{report}");
    let (_attached, mut reader) = attached.lock().unwrap().take().expect("there is no .log between the renames");
    assert_eq!(reader.position().offset, Offset(3 * BATCH));
    let log = store.log("t", 0).unwrap();
    for n in 3..6 {
        append(&log, 1);
        // Durable by the checkpoint, which the attached process reads whenever it is due.
        store.tick(TimestampMs(n * 100_000)).unwrap();
        let batch = reader.next_batch_timeout(Duration::from_secs(60)).unwrap().expect("appended");
        assert_eq!((batch.base_offset(), reader.position().offset), (Offset(n * BATCH), Offset((n + 1) * BATCH)));
    }
    store.close().unwrap();
    assert!(reader.next_batch().unwrap().is_none());
}

/// A storage that counts how often directories are listed.
#[derive(Debug, Clone)]
struct Counting(MemoryStorage, Arc<AtomicUsize>);

impl Storage for Counting {
    fn lock(&self) -> io::Result<Box<dyn StorageLock>> {
        self.0.lock()
    }
    fn read_dir(&self, dir: &str) -> io::Result<Vec<DirEntry>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read_dir(dir)
    }
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn remove_dir(&self, dir: &str) -> io::Result<()> {
        self.0.remove_dir(dir)
    }
    fn open(&self, path: &str, access: Access) -> io::Result<Arc<dyn StorageFile>> {
        self.0.open(path, access)
    }
    fn metadata(&self, path: &str) -> io::Result<FileMeta> {
        self.0.metadata(path)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &str) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn boot_id(&self) -> [u8; 16] {
        self.0.boot_id()
    }
}

/// Without a checkpoint each segment is looked at. The directory, which has a name for each of them, is not.
#[test]
fn a_log_of_many_segments_is_attached_to_without_listing_them_for_each() {
    let listings = |batches: i64, state: usize| {
        let own = own(batches);
        let (name, files) = &own.stores[state];
        let counting = Counting(storage_of(files), Arc::default());
        let listed = Arc::clone(&counting.1);
        let store = ticking().attach_on(counting.clone()).unwrap();
        let log = store.log("t", 0).unwrap();
        assert_eq!(read(&log, OffsetSpec::Last(1)), [own.end - 1], "{name}");
        let attached = listed.swap(0, Ordering::Relaxed);
        let storage: Arc<dyn Storage> = Arc::new(counting);
        assert_eq!(inspect::check_ends(&storage, &Selection::all()).unwrap(), []);
        (attached, listed.load(Ordering::Relaxed))
    };
    for state in 0..5 {
        // 5 segments, and 30.
        assert_eq!(listings(18, state), listings(118, state), "{state}");
    }
}
