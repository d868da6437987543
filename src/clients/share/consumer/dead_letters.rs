//! Where records go that cannot be processed.

use super::*;
use crate::clients::DeadLetter;
use crate::storage::MemoryStorage;
use crate::{Log, NewRecord, NewTopic};
use edgelog_core::Header;

const NOW: Duration = Duration::ZERO;

fn open_store(storage: &Arc<MemoryStorage>) -> Arc<Store> {
    Arc::new(Store::options().open_shared(storage.clone()).unwrap())
}

fn store_on(storage: &Arc<MemoryStorage>, jobs: u8) -> Arc<Store> {
    let store = open_store(storage);
    store.create_topic_if_absent(&NewTopic::new("jobs")).unwrap();
    let log = store.log("jobs", 0).unwrap();
    for n in 0..jobs {
        let value = [n];
        let headers = [Header::new("n", &value)];
        log.append(NewRecord::value(&value).with_key(b"k").with_headers(&headers).with_timestamp(time(n))).unwrap();
    }
    store
}

fn time(n: u8) -> edgelog_core::TimestampMs {
    edgelog_core::TimestampMs(1000 + i64::from(n))
}

fn worker(store: &Arc<Store>, keys: &[(&str, &str)]) -> ShareConsumer {
    let options = ShareConsumer::options().set("group.id", "g").unwrap();
    let options = options.set("share.acknowledgement.mode", "explicit").unwrap();
    let options = options.set("errors.deadletterqueue.topic.name", "dlq.jobs").unwrap();
    let options = keys.iter().fold(options, |options, (key, value)| options.set(key, value).unwrap());
    let mut worker = options.open(store).unwrap();
    worker.subscribe(&["jobs"]).unwrap();
    worker
}

/// Answers what a poll returns: the offsets and delivery counts of that.
fn answer(worker: &mut ShareConsumer, ack: impl Fn(i64) -> AckType) -> Vec<(i64, u16)> {
    let records = worker.poll(NOW).unwrap();
    let mut found = Vec::new();
    for record in records.iter() {
        let record = record.unwrap();
        worker.acknowledge(&record, ack(record.offset.0)).unwrap();
        found.push((record.offset.0, record.delivery_count()));
    }
    worker.commit_sync().unwrap();
    found
}

/// The dead letters of a log: the offset of each record, its delivery count, its value, and why.
fn dead_letters(log: &Log) -> Vec<(i64, u16, Option<Vec<u8>>, String)> {
    let mut found = Vec::new();
    let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let of = DeadLetter::parse(&record).unwrap();
            assert_eq!((of.log, of.group), (TopicPartition::new("jobs", 0), Some("g")));
            let value = record.value.map(<[u8]>::to_vec);
            found.push((of.offset.0, of.delivery_count.unwrap(), value, of.reason.to_owned()));
        }
    }
    found
}

const REJECTED: &str = "Offset rejected by client.";
const EXCEEDED: &str = "Offset delivery count exceeded the threshold.";

#[test]
fn what_is_rejected_or_comes_too_often_becomes_a_dead_letter_with_its_record() {
    let store = store_on(&Arc::new(MemoryStorage::new()), 4);
    let mut a = worker(&store, &[("share.delivery.count.limit", "2")]);
    let ack = |offset| [AckType::Accept, AckType::Reject, AckType::Release, AckType::Accept][offset as usize];
    assert_eq!(answer(&mut a, ack), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    assert_eq!(answer(&mut a, ack), [(2, 2)]);
    assert_eq!(answer(&mut a, ack), []);
    let log = store.log("dlq.jobs", 0).unwrap();
    let expected = [(1, 1, Some(vec![1]), REJECTED.to_owned()), (2, 2, Some(vec![2]), EXCEEDED.to_owned())];
    assert_eq!(dead_letters(&log), expected);
    let batch = log.reader(OffsetSpec::Earliest).unwrap().next_batch().unwrap().unwrap();
    let record = batch.records().unwrap().next().unwrap().unwrap();
    assert!(record.timestamp > time(200), "when it was set aside: {}", record.timestamp);
    let of = DeadLetter::parse(&record).unwrap();
    assert_eq!((record.key, of.timestamp), (Some(&b"k"[..]), Some(time(1))));
    assert_eq!(of.headers, [Header::new("n", &[1])]);
    let (start, held, done) = a.share.describe(&TopicPartition::new("jobs", 0)).unwrap();
    assert_eq!((start, held, done), (Offset(4), 0, 0));
    let error = a.subscribe(&["dlq.jobs"]).unwrap_err().to_string();
    assert!(error.contains("its own dead letters"), "{error}");
}

#[test]
fn what_a_dropped_consumer_held_for_the_last_time_becomes_a_dead_letter() {
    let store = store_on(&Arc::new(MemoryStorage::new()), 1);
    for _ in 0..2 {
        let mut a = worker(&store, &[("share.delivery.count.limit", "2")]);
        assert_eq!(a.poll(NOW).unwrap().len(), 1);
    }
    assert_eq!(dead_letters(&store.log("dlq.jobs", 0).unwrap()), [(0, 2, Some(vec![0]), EXCEEDED.to_owned())]);
}

#[test]
fn a_dead_letter_says_alone_where_the_record_was_where_that_is_wanted_or_it_has_no_room() {
    let store = store_on(&Arc::new(MemoryStorage::new()), 1);
    let mut a = worker(&store, &[("errors.deadletterqueue.copy.record.enable", "false")]);
    assert_eq!(answer(&mut a, |_| AckType::Reject), [(0, 1)]);
    drop(a);
    let log = store.log("dlq.jobs", 0).unwrap();
    assert_eq!(dead_letters(&log), [(0, 1, None, REJECTED.to_owned())]);
    store.alter_topic("dlq.jobs", &[("max.message.bytes", Some("1000"))]).unwrap();
    store.log("jobs", 0).unwrap().append(NewRecord::value(&[7; 2000])).unwrap();
    let mut a = worker(&store, &[]);
    assert_eq!(answer(&mut a, |_| AckType::Reject), [(1, 1)]);
    let found = dead_letters(&log).pop().unwrap();
    assert_eq!((found.0, &found.2), (1, &None));
    assert!(found.3.contains("2272 bytes, and 1000 are allowed"), "{}", found.3);
}

#[test]
fn what_cannot_be_written_stays_set_aside_and_the_queue_goes_on() {
    let storage = Arc::new(MemoryStorage::new());
    let store = store_on(&storage, 3);
    // Not even the headers have room.
    store.create_topic(&NewTopic::new("dlq.jobs").config("max.message.bytes", "100")).unwrap();
    let mut a = worker(&store, &[("max.poll.records", "1")]);
    let ack = |offset| if offset == 0 { AckType::Reject } else { AckType::Accept };
    assert_eq!(answer(&mut a, ack), [(0, 1)]);
    assert_eq!(answer(&mut a, ack), [(1, 1)]);
    assert_eq!(answer(&mut a, ack), [(2, 1)]);
    let error = a.poll(NOW).unwrap_err();
    assert!(matches!(&error, ConsumerError::DeadLetters { topic, .. } if topic == "dlq.jobs"), "{error}");
    let start = |worker: &ShareConsumer| worker.share.describe(&TopicPartition::new("jobs", 0)).unwrap().0;
    assert_eq!(start(&a), 0);
    drop(a);
    let options = ShareConsumer::options().set("group.id", "g").unwrap();
    assert!(matches!(options.clone().open(&store), Err(ConsumerError::DeadLetters { .. })));
    store.alter_topic("dlq.jobs", &[("max.message.bytes", Some("1000"))]).unwrap();
    // Where it goes is written down: a consumer without such a topic brings it there as well.
    let mut b = options.open(&store).unwrap();
    assert_eq!(dead_letters(&store.log("dlq.jobs", 0).unwrap()), [(0, 1, Some(vec![0]), REJECTED.to_owned())]);
    b.subscribe(&["jobs"]).unwrap();
    assert_eq!(b.poll(NOW).unwrap().len(), 0);
    assert_eq!(start(&b), 3);
}

#[test]
fn numbers_go_on_behind_what_a_recovery_has_appended() {
    let store = store_on(&Arc::new(MemoryStorage::new()), 3);
    store.create_topic(&NewTopic::new("dlq.jobs").config("max.message.bytes", "100")).unwrap();
    let mut a = worker(&store, &[("max.poll.records", "2")]);
    assert_eq!(answer(&mut a, |_| AckType::Reject), [(0, 1), (1, 1)]);
    drop(a);
    store.alter_topic("dlq.jobs", &[("max.message.bytes", Some("1000"))]).unwrap();
    let mut b = worker(&store, &[]);
    assert_eq!(answer(&mut b, |_| AckType::Reject), [(2, 1)]);
    let offsets: Vec<_> = dead_letters(&store.log("dlq.jobs", 0).unwrap()).iter().map(|found| found.0).collect();
    assert_eq!(offsets, [0, 1, 2]);
}

#[test]
fn what_was_set_aside_before_a_crash_becomes_a_dead_letter_without_its_consumer() {
    let storage = Arc::new(MemoryStorage::new());
    let store = store_on(&storage, 2);
    store.create_topic(&NewTopic::new("dlq.jobs").config("max.message.bytes", "100")).unwrap();
    let mut a = worker(&store, &[]);
    assert_eq!(answer(&mut a, |_| AckType::Reject), [(0, 1), (1, 1)]);
    drop(a);
    store.delete_topic("jobs").unwrap();
    store.alter_topic("dlq.jobs", &[("max.message.bytes", Some("1000"))]).unwrap();
    ShareConsumer::options().set("group.id", "g").unwrap().open(&store).unwrap();
    let found = dead_letters(&store.log("dlq.jobs", 0).unwrap());
    let gone = format!("{REJECTED} The record is not there any more.");
    assert_eq!(found, [(0, 1, None, gone.clone()), (1, 1, None, gone)]);
}

fn with_times(store: &Store, value: u8, headers: &[(&str, i64)]) {
    let texts: Vec<_> = headers.iter().map(|(name, ms)| (*name, ms.to_string())).collect();
    let headers: Vec<_> = texts.iter().map(|(name, text)| Header::new(name, text.as_bytes())).collect();
    store.log("jobs", 0).unwrap().append(NewRecord::value(&[value]).with_headers(&headers)).unwrap();
}

fn clocked() -> (crate::clock::ManualClock, Arc<Store>) {
    let clock = crate::clock::ManualClock::new(edgelog_core::TimestampMs(TIME));
    let store = Arc::new(Store::options().clock(clock.clone()).open_on(MemoryStorage::new()).unwrap());
    store.create_topic(&NewTopic::new("jobs")).unwrap();
    (clock, store)
}

const TIME: i64 = 1_700_000_000_000;

#[test]
fn a_job_is_not_handed_out_before_its_time_and_holds_up_no_other() {
    let (clock, store) = clocked();
    with_times(&store, 0, &[("edgelog.not.before", TIME + 1)]);
    with_times(&store, 1, &[("edgelog.not.before", TIME + 3_600_000)]);
    with_times(&store, 2, &[("edgelog.not.before", TIME)]);
    with_times(&store, 3, &[("edgelog.deadline", TIME + 1)]);
    let keys = [("max.poll.records", "1"), ("share.delivery.count.limit", "1")];
    let mut a = worker(&store, &[&keys[..], &[("share.record.lock.duration.ms", "100000000")]].concat());
    assert_eq!(answer(&mut a, |_| AckType::Accept), [(2, 1)]);
    assert_eq!(answer(&mut a, |_| AckType::Accept), [(3, 1)]);
    assert_eq!(answer(&mut a, |_| AckType::Accept), []);
    clock.set(edgelog_core::TimestampMs(TIME + 1));
    // The wait ends by itself.
    let records = a.poll(Duration::from_secs(600)).unwrap();
    let found: Vec<_> =
        records.iter().map(|record| record.unwrap()).map(|it| (it.offset, it.delivery_count())).collect();
    assert_eq!(found, [(Offset(0), 1)]);
    assert!(a.share.next_in_ms().is_some_and(|ms| ms <= 60_000), "it is looked at again within a minute");
}

#[test]
fn a_job_whose_time_is_over_is_set_aside_unless_it_was_handed_out() {
    let (clock, store) = clocked();
    with_times(&store, 0, &[("edgelog.deadline", TIME)]);
    with_times(&store, 1, &[("edgelog.deadline", TIME + 5), ("edgelog.not.before", TIME + 9)]);
    with_times(&store, 2, &[("edgelog.deadline", TIME + 5)]);
    let mut a = worker(&store, &[]);
    assert_eq!(a.poll(NOW).unwrap().len(), 1);
    a.acknowledge_offset(&TopicPartition::new("jobs", 0), Offset(2), AckType::Renew).unwrap();
    let expired =
        |offset, value| (offset, 0, Some(vec![value]), "Offset expired: its edgelog.deadline has passed.".to_owned());
    let log = store.log("dlq.jobs", 0).unwrap();
    assert_eq!(dead_letters(&log), [expired(0, 0)]);
    clock.set(edgelog_core::TimestampMs(TIME + 5));
    // What is renewed was handed out.
    assert_eq!(answer(&mut a, |_| AckType::Release), [(2, 1)]);
    let found = loop {
        // The wait for its time is one of milliseconds.
        assert_eq!(a.poll(Duration::from_millis(1)).unwrap().len(), 0);
        let found = dead_letters(&log);
        if found.len() == 3 {
            break found;
        }
    };
    assert!(found.contains(&expired(1, 1)), "{found:?}");
    assert!(
        found.iter().any(|found| found.0 == 2 && found.1 == 1 && found.3.starts_with("Offset expired")),
        "{found:?}"
    );
    assert_eq!(a.share.describe(&TopicPartition::new("jobs", 0)).unwrap(), (Offset(3), 0, 0));
}

#[test]
fn an_attached_process_has_its_dead_letters_in_the_group_s_own_store() {
    let storage = Arc::new(MemoryStorage::new());
    drop(store_on(&storage, 2));
    let attached = Arc::new(Store::options().attach_shared(storage.clone()).unwrap());
    let mut a = worker(&attached, &[]);
    assert_eq!(answer(&mut a, |_| AckType::Reject), [(0, 1), (1, 1)]);
    drop(a);
    assert!(attached.topic("dlq.jobs").is_err());
    let own = Store::options().attach_shared(attached.storage().nested("groups/g").unwrap()).unwrap();
    let expected = [(0, 1, Some(vec![0]), REJECTED.to_owned()), (1, 1, Some(vec![1]), REJECTED.to_owned())];
    assert_eq!(dead_letters(&own.log("dlq.jobs", 0).unwrap()), expected);
}

#[test]
fn more_dead_letters_than_a_batch_takes_are_all_there_in_order() {
    let storage = Arc::new(MemoryStorage::new());
    let store = store_on(&storage, 100);
    store.create_topic(&NewTopic::new("dlq.jobs").config("max.message.bytes", "2000")).unwrap();
    let mut a = worker(&store, &[]);
    assert_eq!(answer(&mut a, |_| AckType::Reject).len(), 100);
    let offsets: Vec<_> = dead_letters(&store.log("dlq.jobs", 0).unwrap()).iter().map(|found| found.0).collect();
    assert_eq!(offsets, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_topic_that_is_deleted_under_the_group_is_made_again() {
    let store = store_on(&Arc::new(MemoryStorage::new()), 2);
    let mut a = worker(&store, &[("max.poll.records", "1")]);
    assert_eq!(answer(&mut a, |_| AckType::Reject), [(0, 1)]);
    store.delete_topic("dlq.jobs").unwrap();
    assert_eq!(answer(&mut a, |_| AckType::Reject), [(1, 1)]);
    assert_eq!(dead_letters(&store.log("dlq.jobs", 0).unwrap()), [(1, 1, Some(vec![1]), REJECTED.to_owned())]);
}
