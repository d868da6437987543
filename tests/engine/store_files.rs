//! The store's own files other than its logs: damaged, unreadable or half renamed.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use edgelog::inspect::{Selection, check};
use edgelog::storage::{Access, MemoryStorage, Storage};
use edgelog::{NewRecord, NewTopic, Offset, Store};
use edgelog_testkit::faults::FaultyStorage;
use edgelog_testkit::ticking;

fn open(storage: &MemoryStorage) -> Store {
    ticking().open_on(storage.clone()).unwrap()
}

fn change(storage: &MemoryStorage, path: &str, at: u64, from: u8, to: u8) {
    let file = storage.open(path, Access::Write).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, at).unwrap();
    assert_eq!(byte[0], from, "{path} at {at}");
    file.write_at(&[to], at).unwrap();
}

/// A changed digit in a topic's retention was believed, and deleted records.
#[test]
fn a_changed_digit_in_a_topics_settings_is_not_believed() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    store.create_topic(&NewTopic::new("t").config("retention.ms", "900000000")).unwrap();
    store.close().unwrap();
    drop(store);
    let file = storage.open("t-0/topic.properties", Access::Read).unwrap();
    let mut text = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut text, 0).unwrap();
    let text = String::from_utf8(text).unwrap();
    let at = text.find("=900000000").unwrap() as u64 + 1;
    change(&storage, "t-0/topic.properties", at, b'9', b'1');
    // The second copy holds, and the file is written again from it.
    let store = open(&storage);
    assert_eq!(store.topic("t").unwrap().config.retention_ms, 900_000_000);
    let report = store.recovery_report();
    assert!(report.clean && report.has_notes() && report.healed[0].0 == "t-0/topic.properties", "{report}");
    drop(store);
    // Of both files damaged, nothing is believed.
    change(&storage, "t-0/topic.properties", at, b'9', b'1');
    storage.remove_file("t-0/edgelog.properties").unwrap();
    let topic = open(&storage).topic("t").unwrap();
    assert_eq!(topic.config.retention_ms, -1, "nothing is deleted until a person has looked");
    assert!(topic.retention_suspended.is_some());
    // Who edits by hand takes the checksum out, and is believed.
    storage.remove_file("t-0/topic.properties").unwrap();
    let file = storage.open("t-0/topic.properties", Access::CreateNew).unwrap();
    file.write_at(b"retention.ms=7000000\n", 0).unwrap();
    assert_eq!(open(&storage).topic("t").unwrap().config.retention_ms, 7_000_000);
}

/// Of a topic with a name of 249 characters, the partitions whose deletion was cut short came back.
#[test]
fn a_cut_deletion_of_a_topic_with_the_longest_name_is_finished() {
    let storage = MemoryStorage::new();
    let name = "n".repeat(249);
    let other = format!("{}m", "n".repeat(248));
    let store = open(&storage);
    for topic in [&name, &other] {
        store.create_topic(&NewTopic::new(topic.as_str()).partitions(2)).unwrap();
        store.log(topic, 1).unwrap().append(NewRecord::value(b"a record")).unwrap();
    }
    store.close().unwrap();
    drop(store);
    // What a cut between the two renames of a deletion leaves: the first partition has its new name, the other has not.
    let crc = crc32fast::hash(name.as_bytes());
    let suffix = format!("-0.{crc:08x}01234567-delete");
    storage.rename(&format!("{name}-0"), &format!("{}{suffix}", &name[..255 - suffix.len()])).unwrap();
    let store = open(&storage);
    let topics: Vec<String> = store.topics().unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(topics, [other], "{}", store.recovery_report());
    assert!(store.recovery_report().missing.is_empty(), "{}", store.recovery_report());
}

/// What the deletion of a topic had left cost the topic of the same name that was created behind it its state.
#[test]
fn leftovers_of_a_deletion_go_and_the_topic_that_was_created_again_stays() {
    let storage = MemoryStorage::new();
    let left = format!("t-0.{:08x}01234567-delete", crc32fast::hash(b"t"));
    let store = open(&storage);
    store.create_topic(&NewTopic::new("t")).unwrap();
    store.log("t", 0).unwrap().append(NewRecord::value(b"of the old topic")).unwrap();
    store.close().unwrap();
    drop(store);
    storage.rename("t-0", &left).unwrap();
    let store = open(&storage);
    assert_eq!(store.recovery_report().finished_deletions, ["t"]);
    store.create_topic(&NewTopic::new("t")).unwrap();
    let (log, id) = (store.log("t", 0).unwrap(), store.log("t", 0).unwrap().id());
    log.append(NewRecord::value(b"of the new topic")).unwrap();
    store.close().unwrap();
    drop((store, log));
    // As where the files of the old one could not be removed.
    storage.create_dir(&left).unwrap();
    for name in ["edgelog.properties", "00000000000000000000.log"] {
        let from = storage.open(&format!("t-0/{name}"), Access::Read).unwrap();
        let mut bytes = vec![0; from.len().unwrap() as usize];
        from.read_at(&mut bytes, 0).unwrap();
        storage.open(&format!("{left}/{name}"), Access::CreateNew).unwrap().write_at(&bytes, 0).unwrap();
    }
    let store = open(&storage);
    let report = store.recovery_report();
    assert!(report.clean && report.finished_deletions.is_empty() && report.missing.is_empty(), "{report}");
    assert!(report.removed.len() == 1 && report.has_notes() && report.to_string().contains("removed"), "{report}");
    assert!(storage.read_dir(&left).is_err());
    let log = store.log("t", 0).unwrap();
    assert_eq!((log.id(), log.offsets().log_end_offset), (id, Offset(1)));
}

/// A checkpoint of which neither slot holds is no reason not to open, and is kept for who can make something of it.
#[test]
fn a_checkpoint_that_cannot_be_read_is_kept_aside_and_all_records_are_read() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    store.create_topic(&NewTopic::new("t")).unwrap();
    store.log("t", 0).unwrap().append(NewRecord::value(b"a record")).unwrap();
    let id = store.log("t", 0).unwrap().id();
    store.close().unwrap();
    drop(store);
    let file = storage.open("edgelog.checkpoint", Access::Write).unwrap();
    let len = file.len().unwrap();
    for slot in [0, len / 2] {
        file.write_at(b"EDGELOG0", slot).unwrap();
    }
    let store = open(&storage);
    assert!(store.recovery_report().checkpoint_lost);
    let log = store.log("t", 0).unwrap();
    assert_eq!(log.offsets().log_end_offset, 1);
    assert_ne!(log.id(), id, "its epochs and its start are gone with the checkpoint: it is another history");
    let kept = storage.open("edgelog.checkpoint.lost", Access::Read).unwrap();
    assert_eq!(kept.len().unwrap(), len);
}

/// While a topic was being created, another thread got its log: what that appended and heard acknowledged went with a
/// name that no power cut had to keep.
#[test]
fn no_thread_appends_to_a_topic_before_its_name_lasts() {
    let creator: Arc<OnceLock<Weak<Store>>> = Arc::default();
    let got: Arc<Mutex<Vec<bool>>> = Arc::default();
    let (other, seen) = (Arc::clone(&creator), Arc::clone(&got));
    let storage = FaultyStorage::before_sync_dir(MemoryStorage::new(), move || {
        if let Some(store) = other.get().and_then(Weak::upgrade) {
            seen.lock().unwrap().extend((0..2).map(|partition| store.log("t", partition).is_ok()));
        }
    });
    let store = Arc::new(ticking().open_on(storage).unwrap());
    creator.set(Arc::downgrade(&store)).unwrap();
    store.create_topic(&NewTopic::new("t").partitions(2)).unwrap();
    let looks = std::mem::take(&mut *got.lock().unwrap());
    assert!(looks.len() >= 4 && !looks.contains(&true), "{looks:?}");
    for partition in 0..2 {
        store.log("t", partition).unwrap().append(NewRecord::value(b"there")).unwrap();
    }
}

/// The file of our own in a partition's directory names the partition: that of another one is noted.
#[test]
fn directories_that_were_exchanged_are_noted() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    store.create_topic(&NewTopic::new("t").partitions(3)).unwrap();
    store.close().unwrap();
    drop(store);
    let notes = || {
        let shared: Arc<dyn Storage> = Arc::new(storage.clone());
        let report = check(&shared, &Selection::all(), &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(report.is_sound(), "{report:?}");
        report.findings.iter().map(ToString::to_string).filter(|text| text.contains("made for")).collect::<Vec<_>>()
    };
    assert_eq!(notes(), [""; 0]);
    for (from, to) in [("t-1", "t-7"), ("t-2", "t-1"), ("t-7", "t-2")] {
        storage.rename(from, to).unwrap();
    }
    let expected = [("t-1", "t-2"), ("t-2", "t-1")].map(|(name, made_for)| {
        format!("{name}/edgelog.properties: the directory was made for {made_for}: it was renamed, or copied, since")
    });
    assert_eq!(notes(), expected);
}
