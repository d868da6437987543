use edgelog_core::TimestampMs;

use super::*;
use crate::clients::group::{delete_group, describe_group, list_groups};
use crate::clock::ManualClock;
use crate::storage::{Access, MemoryStorage};

const NOW: i64 = 1_700_000_000_000;

fn open(storage: &MemoryStorage, clock: &ManualClock) -> Arc<Store> {
    let options = Store::options().set("edgelog.housekeeping", "tick").unwrap();
    Arc::new(options.clock(clock.clone()).open_on(storage.clone()).unwrap())
}

fn at(offset: i64) -> OffsetAndMetadata {
    OffsetAndMetadata::new(Offset(offset))
}

/// A store whose log `t-0` has so many records.
fn store_of(storage: &MemoryStorage, clock: &ManualClock, records: u32) -> (Arc<Store>, Log) {
    let store = open(storage, clock);
    store.create_topic(&NewTopic::new("t")).unwrap();
    let log = store.log("t", 0).unwrap();
    let mut batch = log.batch();
    (0..records).for_each(|_| batch.push(NewRecord::value(b"x")).unwrap());
    log.append_batch(&mut batch).unwrap();
    (store, log)
}

#[test]
fn one_store_at_a_time_hosts_a_group_and_any_may_look() {
    let (storage, clock) = (MemoryStorage::new(), ManualClock::new(TimestampMs(NOW)));
    let (store, log) = store_of(&storage, &clock, 5);
    let group = Group::open(&store, "a/b").unwrap();
    group.commit(&[(&log, at(3).with_metadata("half"))]).unwrap();
    assert!(Arc::ptr_eq(&Group::open(&store, "a/b").unwrap().shared, &group.shared), "one process, one host");
    let other = Arc::new(Store::options().attach_on(storage.clone()).unwrap());
    let refused = Group::open(&other, "a/b").unwrap_err();
    let pid = std::process::id().to_string();
    assert!(matches!(refused, ConsumerError::GroupHosted { .. }) && refused.to_string().contains(&pid), "{refused}");
    assert!(matches!(delete_group(&other, "a/b"), Err(ConsumerError::GroupHosted { .. })));
    assert_eq!(list_groups(&other).unwrap(), ["a/b"]);
    let seen = describe_group(&other, "a/b").unwrap();
    assert!(seen.is_hosted);
    assert_eq!(seen.committed[log.name()].metadata, "half");
    drop(group);
    // An attached store hosts as well as the writer.
    let group = Group::open(&other, "a/b").unwrap();
    assert_eq!(group.committed(log.name()).unwrap().offset, Offset(3));
    group.commit(&[(&other.log("t", 0).unwrap(), at(4))]).unwrap();
    drop(group);
    assert!(!describe_group(&store, "a/b").unwrap().is_hosted);
    assert!(matches!(describe_group(&store, "x"), Err(ConsumerError::UnknownGroup { .. })));
    delete_group(&store, "a/b").unwrap();
    assert!(list_groups(&store).unwrap().is_empty());
    assert_eq!(Group::open(&store, "a/b").unwrap().committed(log.name()), None);
    // The store itself knows nothing of it.
    drop((store, other));
    let store = open(&storage, &clock);
    assert!(store.recovery_report().clean && store.recovery_report().left.is_empty());
    assert_eq!(store.topics().unwrap().len(), 1);
}

#[test]
fn what_is_not_durable_in_its_log_is_not_committed() {
    let (storage, clock) = (MemoryStorage::new(), ManualClock::new(TimestampMs(NOW)));
    let (store, log) = store_of(&storage, &clock, 5);
    log.append_with(NewRecord::value(b"y"), Durability::Os).unwrap();
    // The writer dies, and the attached process sees what it has left in the cache.
    let other = Arc::new(Store::options().attach_on(storage.clone()).unwrap());
    let seen = other.log("t", 0).unwrap();
    assert_eq!(seen.offsets().log_end_offset, Offset(6));
    store.abandon();
    let group = Group::open(&other, "g").unwrap();
    let error = group.commit(&[(&seen, at(6))]).unwrap_err();
    assert!(matches!(error, ConsumerError::NotDurable { offset: Offset(6), .. }), "{error}");
    assert_eq!(group.committed(seen.name()), None);
    drop((group, other));
    // A writer makes it so.
    let store = open(&storage, &clock);
    let (group, log) = (Group::open(&store, "g").unwrap(), store.log("t", 0).unwrap());
    log.append_with(NewRecord::value(b"z"), Durability::Os).unwrap();
    group.commit(&[(&log, at(7))]).unwrap();
    assert!(log.offsets().recovery_point >= Offset(7));
}

#[test]
fn a_year_of_commits_leaves_files_that_are_short_and_quickly_read() {
    let (storage, clock) = (MemoryStorage::new(), ManualClock::new(TimestampMs(NOW)));
    let (store, log) = store_of(&storage, &clock, 200);
    let group = Group::open(&store, "g").unwrap();
    let before = storage.bytes_used();
    let mut most = 0;
    for n in 0..20_000_i64 {
        clock.set(TimestampMs(NOW + n * 1000));
        group.commit(&[(&log, at(n % 200))]).unwrap();
        most = most.max(storage.bytes_used() - before);
    }
    assert!(most < 4 << 20, "{most} bytes");
    drop(group);
    let group = Group::open(&store, "g").unwrap();
    assert_eq!(group.committed(log.name()).unwrap().offset, Offset(19_999 % 200));
    assert!(group.recovery().is_clean());
    // What has to be read at an open is bounded, however many commits there were.
    let (positions, own) = (group.shared.positions.lock(), SNAPSHOT_BYTES + SEGMENT_BYTES.parse::<usize>().unwrap());
    let held = positions.log.offsets().log_end_offset - positions.log.offsets().log_start_offset;
    assert!(held < 4000, "{held} records");
    assert!(positions.log.size().unwrap().1 < 2 * own as u64);
}

#[test]
fn a_snapshot_keeps_every_position_of_many_partitions() {
    let (storage, clock) = (MemoryStorage::new(), ManualClock::new(TimestampMs(NOW)));
    let store = open(&storage, &clock);
    store.create_topic(&NewTopic::new("t").partitions(200)).unwrap();
    let logs: Vec<_> = (0..200).map(|n| store.log("t", n).unwrap()).collect();
    let group = Group::open(&store, "g").unwrap();
    let rounds = 30;
    for n in 0..rounds {
        let name = "m".repeat(100) + &n.to_string();
        let all: Vec<_> = logs.iter().map(|log| (log, at(0).with_metadata(name.clone()))).collect();
        group.commit(&all).unwrap();
    }
    let removed = logs[7].name().clone();
    group.delete_offsets(std::slice::from_ref(&removed)).unwrap();
    assert!(group.shared.positions.lock().log.offsets().log_start_offset > 0, "a snapshot was made");
    drop(group);
    let all = Group::open(&store, "g").unwrap().all_committed();
    assert_eq!(all.len(), 199);
    assert!(!all.contains_key(&removed));
    assert!(all.values().all(|at| at.metadata.ends_with(&(rounds - 1).to_string())));
}

/// Commits forward and back, closes, and damages one byte of the group's log.
fn damaged(flip: Option<usize>, without_hold: bool) -> (MemoryStorage, usize) {
    let (storage, clock) = (MemoryStorage::new(), ManualClock::new(TimestampMs(NOW)));
    let (store, log) = store_of(&storage, &clock, 20);
    let group = Group::open(&store, "g").unwrap();
    for offset in [5, 19, 3, 4] {
        group.commit(&[(&log, at(offset))]).unwrap();
    }
    drop(group);
    let file = "groups/g/__consumer_offsets-0/00000000000000000000.log";
    let file = storage.open(file, Access::Write).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    if let Some(position) = flip {
        file.write_at(&[bytes[position] ^ 0x10], position as u64).unwrap();
    }
    if without_hold {
        storage.remove_file("groups/g/edgelog.group.hold").unwrap();
    }
    (storage, bytes.len())
}

/// A position that moved back, and damage that takes the record of it, must not let the older and greater one count.
#[test]
fn damage_of_a_groups_log_is_reported_and_moves_no_position_forward() {
    for without_hold in [false, true] {
        let (_, len) = damaged(None, without_hold);
        let mut reported = 0;
        for position in 0..len {
            let (storage, _) = damaged(Some(position), without_hold);
            let store = open(&storage, &ManualClock::new(TimestampMs(NOW)));
            let group = Group::open(&store, "g").unwrap();
            let name = TopicPartition::new("t", 0);
            let found = group.committed(&name).map_or(Offset(0), |at| at.offset);
            assert!(found <= 4, "byte {position}: moved forward to {found}; {}", group.recovery());
            reported += usize::from(!group.recovery().is_clean());
            // It goes on, and what it healed stays.
            group.commit(&[(&store.log("t", 0).unwrap(), at(6))]).unwrap();
            drop(group);
            let group = Group::open(&store, "g").unwrap();
            assert_eq!(group.committed(&name).unwrap().offset, Offset(6), "byte {position}");
        }
        assert!(reported * 10 > len * 8, "{reported} of {len} were reported");
    }
}

#[test]
fn a_groups_log_that_is_gone_is_reported_and_the_hold_says_where_to_go_on() {
    let (storage, clock) = (MemoryStorage::new(), ManualClock::new(TimestampMs(NOW)));
    let (store, log) = store_of(&storage, &clock, 20);
    let group = Group::open(&store, "g").unwrap();
    group.commit(&[(&log, at(7))]).unwrap();
    drop(group);
    let nested = store.storage().nested("groups/g").unwrap();
    remove_all(&*nested, "__consumer_offsets-0").unwrap();
    let group = Group::open(&store, "g").unwrap();
    assert!(group.recovery().to_string().contains("is gone"), "{}", group.recovery());
    assert_eq!(group.committed(log.name()).unwrap().offset, Offset(7));
}

#[test]
fn a_full_disk_at_a_commit_is_an_error_and_the_next_one_is_taken() {
    let storage = MemoryStorage::with_capacity(6 << 20);
    let clock = ManualClock::new(TimestampMs(NOW));
    let (store, log) = store_of(&storage, &clock, 20);
    let group = Group::open(&store, "g").unwrap();
    group.commit(&[(&log, at(7))]).unwrap();
    let ballast = storage.open("ballast", Access::CreateNew).unwrap();
    let room = (6 << 20) - storage.bytes_used();
    ballast.reserve(room).unwrap();
    let mut refused = None;
    for n in 0..20_000 {
        if let Err(error) = group.commit(&[(&log, at(n % 20).with_metadata("m".repeat(4000)))]) {
            refused = Some((n, error));
            break;
        }
    }
    let (n, error) = refused.expect("the disk is full");
    assert!(matches!(&error, ConsumerError::Group { source, .. } if source.is_storage_full()), "{error}");
    assert_eq!(
        group.committed(log.name()).unwrap().offset,
        Offset(if n == 0 { 7 } else { (n - 1) % 20 }),
        "nothing is lost"
    );
    drop(ballast);
    storage.remove_file("ballast").unwrap();
    group.commit(&[(&log, at(11))]).unwrap();
    drop(group);
    assert_eq!(Group::open(&store, "g").unwrap().committed(log.name()).unwrap().offset, Offset(11));
}

#[test]
fn thousands_of_groups_cost_in_proportion() {
    let (storage, clock) = (MemoryStorage::new(), ManualClock::new(TimestampMs(NOW)));
    let (store, log) = store_of(&storage, &clock, 20);
    let mut used = Vec::new();
    for n in 0..400 {
        let group = Group::open(&store, &format!("g{n}")).unwrap();
        group.commit(&[(&log, at(n % 20))]).unwrap();
        drop(group);
        used.push(storage.bytes_used());
    }
    let (first, last) = (used[10] - used[0], used[399] - used[389]);
    assert!(last <= first + first / 100, "ten more take {last} bytes, and the first ten took {first}");
    assert!(last / 10 < 64 << 10, "{} bytes a group", last / 10);
    assert_eq!(store.retention_holds().unwrap().of(&log).len(), 400);
    assert_eq!(log.held_from().unwrap(), Some(Offset(0)));
}
