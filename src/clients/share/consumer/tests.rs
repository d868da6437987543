use super::*;
use crate::storage::MemoryStorage;
use crate::{NewRecord, NewTopic};

const NOW: Duration = Duration::ZERO;

fn store_on(storage: &Arc<MemoryStorage>) -> Arc<Store> {
    Arc::new(Store::options().open_shared(storage.clone()).unwrap())
}

fn store_with(records: usize) -> Arc<Store> {
    let store = store_on(&Arc::new(MemoryStorage::new()));
    fill(&store, records);
    store
}

fn fill(store: &Store, records: usize) {
    store.create_topic_if_absent(&NewTopic::new("jobs")).unwrap();
    let log = store.log("jobs", 0).unwrap();
    for n in 0..records {
        log.append(NewRecord::value(&[n as u8])).unwrap();
    }
}

fn worker(store: &Arc<Store>, keys: &[(&str, &str)]) -> ShareConsumer {
    let options = ShareConsumer::options().set("group.id", "g").unwrap();
    let options = options.set("share.acknowledgement.mode", "explicit").unwrap();
    let options = keys.iter().fold(options, |options, (key, value)| options.set(key, value).unwrap());
    let mut worker = options.open(store).unwrap();
    worker.subscribe(&["jobs"]).unwrap();
    worker
}

/// Polls once: the offsets and delivery counts.
fn polled(worker: &mut ShareConsumer) -> Vec<(i64, u16)> {
    let records = worker.poll(NOW).unwrap();
    let found: Vec<_> = records.iter().map(|record| record.unwrap()).collect();
    assert_eq!(found.len(), records.len());
    found.iter().map(|record| (record.offset.0, record.delivery_count())).collect()
}

fn answer(worker: &mut ShareConsumer, offset: i64, ack: AckType) {
    worker.acknowledge_offset(&TopicPartition::new("jobs", 0), Offset(offset), ack).unwrap();
}

#[test]
fn consumers_share_a_partition_and_what_is_dropped_goes_to_the_others_at_once() {
    let store = store_with(5);
    let keys = [("max.poll.records", "2")];
    let (mut a, mut b) = (worker(&store, &keys), worker(&store, &keys));
    assert_eq!(polled(&mut a), [(0, 1), (1, 1)]);
    assert_eq!(polled(&mut b), [(2, 1), (3, 1)]);
    // A consumer that holds records blocks no other.
    for offset in [2, 3] {
        answer(&mut b, offset, AckType::Accept);
    }
    assert_eq!(polled(&mut b), [(4, 1)]);
    drop(a);
    answer(&mut b, 4, AckType::Accept);
    assert_eq!(polled(&mut b), [(0, 2), (1, 2)]);
}

#[test]
fn a_record_is_released_until_the_limit_and_rejected_at_once() {
    let store = store_with(2);
    let mut a = worker(&store, &[("share.delivery.count.limit", "3")]);
    assert_eq!(polled(&mut a), [(0, 1), (1, 1)]);
    answer(&mut a, 0, AckType::Release);
    answer(&mut a, 1, AckType::Reject);
    for count in [2, 3] {
        assert_eq!(polled(&mut a), [(0, count)]);
        answer(&mut a, 0, AckType::Release);
    }
    assert_eq!(polled(&mut a), []);
    let name = TopicPartition::new("jobs", 0);
    assert_eq!(a.share.describe(&name), Some((Offset(2), 0, 0)));
    let error = a.acknowledge_offset(&name, Offset(0), AckType::Accept).unwrap_err();
    assert!(matches!(error, ConsumerError::InvalidRecordState { offset: Offset(0), .. }), "{error}");
}

#[test]
fn explicit_mode_wants_every_record_answered_and_a_renewed_one_comes_again_with_its_count() {
    let store = store_with(1);
    let mut a = worker(&store, &[]);
    assert_eq!(polled(&mut a), [(0, 1)]);
    let error = a.poll(NOW).unwrap_err();
    assert!(matches!(error, ConsumerError::Unacknowledged { offset: Offset(0), .. }), "{error}");
    answer(&mut a, 0, AckType::Renew);
    assert_eq!(polled(&mut a), [(0, 1)]);
    // The last one counts.
    answer(&mut a, 0, AckType::Release);
    answer(&mut a, 0, AckType::Accept);
    let (sender, answered) = std::sync::mpsc::channel();
    a.commit_async(move |outcome| sender.send(outcome.is_ok()).unwrap());
    assert_eq!(polled(&mut a), []);
    assert_eq!(answered.try_recv(), Ok(true));
}

#[test]
fn what_was_renewed_by_a_commit_comes_with_the_next_poll_in_both_modes() {
    for mode in ["explicit", "implicit"] {
        let store = store_with(2);
        let mut a = worker(&store, &[("share.acknowledgement.mode", mode)]);
        assert_eq!(polled(&mut a), [(0, 1), (1, 1)]);
        answer(&mut a, 0, AckType::Renew);
        answer(&mut a, 1, AckType::Accept);
        a.commit_sync().unwrap();
        a.commit_sync().unwrap();
        assert_eq!(polled(&mut a), [(0, 1)], "{mode}");
        if mode == "explicit" {
            assert!(matches!(a.poll(NOW), Err(ConsumerError::Unacknowledged { offset: Offset(0), .. })));
        }
        answer(&mut a, 0, AckType::Accept);
        assert_eq!(polled(&mut a), [], "{mode}");
        assert_eq!(a.share.describe(&TopicPartition::new("jobs", 0)), Some((Offset(2), 0, 0)));
    }
}

#[test]
fn what_was_renewed_and_whose_lock_has_ended_is_another_consumers() {
    let store = store_with(1);
    let keys = [("share.record.lock.duration.ms", "30")];
    let (mut a, mut b) = (worker(&store, &keys), worker(&store, &keys));
    assert_eq!(polled(&mut a), [(0, 1)]);
    answer(&mut a, 0, AckType::Renew);
    a.commit_sync().unwrap();
    assert_eq!(b.poll(Duration::from_secs(60)).unwrap().len(), 1);
    answer(&mut b, 0, AckType::Accept);
    b.commit_sync().unwrap();
    assert_eq!(polled(&mut a), []);
}

#[test]
fn implicit_mode_accepts_with_the_next_poll_and_close_gives_back_the_last_one() {
    let store = store_with(2);
    let keys = [("share.acknowledgement.mode", "implicit"), ("max.poll.records", "1")];
    let mut a = worker(&store, &keys);
    assert_eq!(polled(&mut a), [(0, 1)]);
    assert_eq!(polled(&mut a), [(1, 1)]);
    a.close().unwrap();
    assert_eq!(polled(&mut worker(&store, &keys)), [(1, 2)]);
}

#[test]
fn a_released_record_waits_for_its_backoff() {
    let store = store_with(1);
    let mut a = worker(
        &store,
        &[("edgelog.share.retry.backoff.ms", "3600000"), ("edgelog.share.retry.backoff.max.ms", "7200000")],
    );
    assert_eq!(polled(&mut a), [(0, 1)]);
    answer(&mut a, 0, AckType::Release);
    assert_eq!(polled(&mut a), []);
    assert!(a.share.next_in_ms().is_some_and(|ms| ms > 3_000_000));
}

#[test]
fn no_more_offsets_are_in_flight_than_allowed() {
    let store = store_with(5);
    let mut a = worker(&store, &[("share.partition.max.record.locks", "3")]);
    assert_eq!(polled(&mut a), [(0, 1), (1, 1), (2, 1)]);
    let mut b = worker(&store, &[]);
    assert_eq!(polled(&mut b), []);
    answer(&mut a, 1, AckType::Accept);
    a.commit_sync().unwrap();
    assert_eq!(polled(&mut b), [], "the first one is not done");
    answer(&mut a, 0, AckType::Accept);
    a.commit_sync().unwrap();
    assert_eq!(polled(&mut b), [(3, 1), (4, 1)]);
}

#[test]
fn the_state_outlives_the_store_and_its_files_stay_short() {
    let storage = Arc::new(MemoryStorage::new());
    {
        let store = store_on(&storage);
        fill(&store, 4);
        let mut a = worker(&store, &[("share.delivery.count.limit", "1000")]);
        assert_eq!(polled(&mut a).len(), 4);
        for (offset, ack) in [(0, AckType::Release), (1, AckType::Accept), (2, AckType::Reject), (3, AckType::Renew)] {
            answer(&mut a, offset, ack);
        }
        a.commit_sync().unwrap();
        a.close().unwrap();
    }
    let store = store_on(&storage);
    let mut a = worker(&store, &[("share.delivery.count.limit", "1000")]);
    assert_eq!(polled(&mut a), [(0, 2), (3, 2)]);
    answer(&mut a, 0, AckType::Accept);
    answer(&mut a, 3, AckType::Accept);
    for n in 4..4000 {
        fill(&store, 1);
        assert_eq!(polled(&mut a), [(n, 1)]);
        answer(&mut a, n, AckType::Accept);
        a.commit_sync().unwrap();
    }
    let own = Store::options().attach_shared(store.storage().nested("groups/g").unwrap()).unwrap();
    let offsets = own.log("__share_group_state", 0).unwrap().offsets();
    assert!(offsets.log_start_offset > 0, "{offsets:?}");
    a.close().unwrap();
    drop(store);
    let store = store_on(&storage);
    let mut a = worker(&store, &[]);
    assert_eq!(polled(&mut a), []);
    fill(&store, 1);
    assert_eq!(polled(&mut a), [(4000, 1)]);
}

#[test]
fn kinds_of_groups_do_not_mix() {
    use crate::clients::{Group, OffsetAndMetadata};
    let storage = Arc::new(MemoryStorage::new());
    let store = store_on(&storage);
    fill(&store, 1);
    let share = worker(&store, &[]);
    assert_eq!(Group::open(&store, "g").unwrap_err().to_string(), "group g is not a consumer group");
    drop(share);
    assert_eq!(Group::open(&store, "g").unwrap_err().to_string(), "group g is not a consumer group");
    let group = Group::open(&store, "other").unwrap();
    let open = || ShareConsumer::options().set("group.id", "other").unwrap().open(&store);
    assert_eq!(open().unwrap_err().to_string(), "group other is not a share group");
    group.commit(&[(&store.log("jobs", 0).unwrap(), OffsetAndMetadata::new(Offset(1)))]).unwrap();
    drop(group);
    assert_eq!(open().unwrap_err().to_string(), "group other is not a share group");
}

#[test]
fn a_waiting_poll_ends_with_a_record_and_with_what_another_gives_back() {
    let store = store_with(0);
    let (mut a, mut b) = (worker(&store, &[]), worker(&store, &[]));
    let long = Duration::from_secs(600);
    let waiting = std::thread::spawn(move || (a.poll(long).unwrap().len(), a));
    store.log("jobs", 0).unwrap().append(NewRecord::value(b"x")).unwrap();
    let (found, a) = waiting.join().unwrap();
    assert_eq!(found, 1);
    let waiting = std::thread::spawn(move || b.poll(long).unwrap().iter().next().unwrap().unwrap().delivery_count());
    drop(a);
    assert_eq!(waiting.join().unwrap(), 2);
}

#[test]
fn a_topic_that_is_created_again_begins_again() {
    let store = store_with(3);
    let mut a = worker(&store, &[]);
    assert_eq!(polled(&mut a).len(), 3);
    answer(&mut a, 0, AckType::Accept);
    store.delete_topic("jobs").unwrap();
    fill(&store, 2);
    a.subscribe(&["jobs"]).unwrap();
    assert_eq!(polled(&mut a), [(0, 1), (1, 1)]);
}
