//! One log's oddity stays that log's: numbers that no log comes to, in its batches or in its entry of the checkpoint.

use std::ops::ControlFlow;
use std::sync::Arc;

use edgelog::edgelog_core::LogId;
use edgelog::inspect::{Selection, check, repair};
use edgelog::storage::{Access, MemoryStorage, Storage, StorageFile};
use edgelog::{Log, NewRecord, NewTopic, OffsetSpec, ReaderOptions, RecoveryReport, Store};

const CHECKPOINT: &str = "edgelog.checkpoint";
const RECORDS: i64 = 20;
/// Where a log's entry of the checkpoint has its fields, from the log's name on (see docs/format.md).
const LOG_START: usize = 3 + 17;
const RECOVERY_POINT: usize = 3 + 25;
const EPOCH: usize = 3 + 49;
const EPOCH_START: usize = 3 + 53;

fn open(storage: &MemoryStorage) -> Store {
    Store::options().set("edgelog.housekeeping", "tick").unwrap().open_on(storage.clone()).unwrap()
}

/// A closed store of two logs, and their identities.
fn two_logs() -> (MemoryStorage, [LogId; 2]) {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    let ids = ["a", "b"].map(|topic| {
        store.create_topic(&NewTopic::new(topic)).unwrap();
        let log = store.log(topic, 0).unwrap();
        for n in 0..RECORDS {
            log.append(NewRecord::value(&[n as u8])).unwrap();
        }
        log.id()
    });
    store.close().unwrap();
    (storage, ids)
}

fn bytes_of(file: &dyn StorageFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    let read = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(read);
    bytes
}

/// Changes both slots of the checkpoint where the entry of `a-0` stands, and puts their sums right.
fn edit(storage: &MemoryStorage, is_clean: bool, edits: &[(usize, &[u8])]) {
    let file = storage.open(CHECKPOINT, Access::Write).unwrap();
    let mut bytes = bytes_of(&*file);
    let slot_len = bytes.len() / 2;
    for slot in bytes.chunks_exact_mut(slot_len) {
        let name = slot.windows(3).position(|window| window == b"a-0").unwrap();
        for (at, new) in edits {
            slot[name + at..name + at + new.len()].copy_from_slice(new);
        }
        slot[19] = u8::from(is_clean);
        let payload_len = u32::from_be_bytes(slot[12..16].try_into().unwrap()) as usize;
        let sum = crc32fast::hash(&slot[12..64 + payload_len]);
        slot[8..12].copy_from_slice(&sum.to_be_bytes());
    }
    file.write_at(&bytes, 0).unwrap();
}

fn values(log: &Log) -> Vec<u8> {
    let mut reader = log.reader_with(OffsetSpec::Earliest, ReaderOptions::default()).unwrap();
    let mut values = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        values.extend(batch.records().unwrap().map(|record| record.unwrap().value.unwrap()[0]));
    }
    values
}

fn all() -> Vec<u8> {
    (0..RECORDS as u8).collect()
}

/// All records of both logs are there, in a log of the same identity, and the next one gets the next offset.
fn nothing_is_lost(storage: &MemoryStorage, ids: [LogId; 2]) -> RecoveryReport {
    let attached = Store::options().attach_on(storage.clone()).unwrap();
    for topic in ["a", "b"] {
        assert_eq!(values(&attached.log(topic, 0).unwrap()), all(), "{topic}, attached");
    }
    let store = open(storage);
    let report = store.recovery_report();
    for (topic, id) in ["a", "b"].into_iter().zip(ids) {
        let log = store.log(topic, 0).unwrap();
        assert_eq!((values(&log), log.id()), (all(), id), "{topic}: {report}");
        assert_eq!(log.append(NewRecord::value(b"next")).unwrap().base_offset, RECORDS, "{topic}: {report}");
    }
    store.close().unwrap();
    // It was put right once and for all.
    let again = open(storage);
    assert!(again.recovery_report().clean, "{}", again.recovery_report());
    report
}

#[test]
pub(crate) fn a_log_whose_checkpoint_says_what_cannot_be_costs_no_other_log() {
    let impossible = i64::MIN.to_be_bytes();
    let far_epoch = i32::MAX.to_be_bytes();
    for (at, new) in [(LOG_START, &impossible[..]), (RECOVERY_POINT, &impossible), (EPOCH, &far_epoch)] {
        for is_clean in [true, false] {
            let (storage, ids) = two_logs();
            edit(&storage, is_clean, &[(at, new)]);
            let report = nothing_is_lost(&storage, ids);
            assert!(!report.checkpoint_lost, "{report}");
            assert_eq!(report.odd.len(), 1, "{report}");
            assert!(report.to_string().contains("a-0: the checkpoint said what no log comes to"), "{report}");
        }
    }
}

/// The recovery point was believed: the next record got the offset 2^62, what was there could not be reached, and
/// repair
/// allocated for ever.
#[test]
pub(crate) fn a_recovery_point_or_a_log_start_that_no_segment_reaches_is_not_believed() {
    let far = (1_i64 << 62).to_be_bytes();
    let segment_too = [far, far].concat();
    for edits in [
        vec![(RECOVERY_POINT, &far[..])],
        vec![(RECOVERY_POINT, &segment_too)],
        vec![(LOG_START, &far)],
        vec![(LOG_START, &far), (RECOVERY_POINT, &segment_too)],
    ] {
        for is_clean in [true, false] {
            let (storage, ids) = two_logs();
            edit(&storage, is_clean, &edits);
            let shared: Arc<dyn Storage> = Arc::new(storage.clone());
            let mut go_on = |_| ControlFlow::Continue(());
            let found = check(&shared, &Selection::all(), &mut go_on).unwrap();
            let text: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
            assert!(text.iter().any(|text| text.contains("the checkpoint says")), "{text:?}");
            let report = nothing_is_lost(&storage, ids);
            let of_a = report.logs.iter().find(|log| log.name.topic == "a").unwrap();
            assert!(!of_a.doubts.is_empty() && of_a.lost.is_empty(), "{report}");
            assert!(report.to_string().contains("a-0: not believed: the checkpoint says"), "{report}");

            let (storage, ids) = two_logs();
            edit(&storage, is_clean, &edits);
            repair(&(Arc::new(storage.clone()) as Arc<dyn Storage>), &Selection::all(), false, &mut go_on).unwrap();
            nothing_is_lost(&storage, ids);
        }
    }
}

/// One bit of one batch's epoch field, which no checksum covers, made every checkpoint of the store invalid: each open
/// recovered all logs, and gave them new identities.
#[test]
fn a_flipped_bit_in_an_epoch_field_costs_the_store_no_checkpoint() {
    for bit in 0..8 {
        let (storage, _) = two_logs();
        storage.remove_file(CHECKPOINT).unwrap();
        let file = storage.open("a-0/00000000000000000000.log", Access::Write).unwrap();
        let bytes = bytes_of(&*file);
        let size = 12 + i32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
        file.write_at(&[bytes[size + 12] ^ (1 << bit)], (size + 12) as u64).unwrap();
        let store = open(&storage);
        let ids = ["a", "b"].map(|topic| store.log(topic, 0).unwrap().id());
        assert!(store.log("a", 0).unwrap().leader_epoch() < 10, "bit {bit}");
        store.close().unwrap();
        let store = open(&storage);
        let report = store.recovery_report();
        assert!(report.clean, "bit {bit}: {report}");
        assert_eq!(["a", "b"].map(|topic| store.log(topic, 0).unwrap().id()), ids, "bit {bit}");
    }
}

/// An epoch whose number or first offset no batch bears out took what was acknowledged above the recovery point for a
/// truncated history.
#[test]
pub(crate) fn an_epoch_that_no_segment_supports_hides_no_record() {
    let (far, near, number) = ((i64::MAX - (1 << 32) - 1).to_be_bytes(), RECORDS.to_be_bytes(), 7_i32.to_be_bytes());
    for edit_of in [(EPOCH_START, &far[..]), (EPOCH_START, &near), (EPOCH, &number)] {
        let (storage, _) = two_logs();
        let store = open(&storage);
        assert_eq!(store.log("a", 0).unwrap().append(NewRecord::value(b"!")).unwrap().base_offset, RECORDS);
        store.abandon();
        edit(&storage, false, &[edit_of]);
        let expected = [&all()[..], b"!"].concat();
        let attached = Store::options().attach_on(storage.clone()).unwrap();
        assert_eq!(values(&attached.log("a", 0).unwrap()), expected, "{edit_of:?}, attached");
        let shared: Arc<dyn Storage> = Arc::new(storage.clone());
        let found = check(&shared, &Selection::all(), &mut |_| ControlFlow::Continue(())).unwrap();
        let of_a = found.logs.iter().find(|log| log.name.topic == "a").unwrap();
        assert_eq!((of_a.records, of_a.log_end_offset.0), (RECORDS as u64 + 1, RECORDS + 1), "{:?}", found.findings);
        let store = open(&storage);
        let report = store.recovery_report();
        let log = store.log("a", 0).unwrap();
        assert_eq!(values(&log), expected, "{edit_of:?}: {report}");
        assert!(report.logs.iter().all(|log| log.cut.is_empty()), "{report}");
        assert_eq!(log.append(NewRecord::value(b"next")).unwrap().base_offset, RECORDS + 1);
    }
}
