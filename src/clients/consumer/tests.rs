use std::sync::mpsc;
use std::thread;

use edgelog_core::LeaderEpoch;

use super::*;
use crate::clients::delete_group;
use crate::clock::ManualClock;
use crate::storage::MemoryStorage;
use crate::{NewRecord, NewTopic};

mod model;

const NOW: i64 = 1_700_000_000_000;

fn open(storage: &MemoryStorage) -> Arc<Store> {
    let options = Store::options().set("edgelog.housekeeping", "tick").unwrap();
    Arc::new(options.clock(ManualClock::new(TimestampMs(NOW))).open_on(storage.clone()).unwrap())
}

fn store_with(topics: &[(&str, u32)]) -> (MemoryStorage, Arc<Store>) {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    for (topic, partitions) in topics {
        store.create_topic(&NewTopic::new(*topic).partitions(*partitions)).unwrap();
    }
    (storage, store)
}

/// Appends records with these numbers as values, as one batch.
fn append(store: &Store, topic: &str, partition: u32, numbers: std::ops::Range<u32>) {
    let log = store.log(topic, partition).unwrap();
    let mut batch = log.batch();
    numbers.for_each(|n| batch.push(NewRecord::value(n.to_string().as_bytes())).unwrap());
    log.append_batch(&mut batch).unwrap();
}

fn options(group: &str) -> ConsumerOptions {
    Consumer::options().set("group.id", group).unwrap().set("auto.offset.reset", "earliest").unwrap()
}

fn numbers(records: &ConsumerRecords) -> Vec<u32> {
    let number = |record: Result<ConsumerRecord<'_>>| {
        std::str::from_utf8(record.unwrap().value.unwrap()).unwrap().parse::<u32>().unwrap()
    };
    records.iter().map(number).collect()
}

fn poll(consumer: &mut Consumer) -> Vec<u32> {
    numbers(&consumer.poll(Duration::ZERO).unwrap())
}

fn tp(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

#[test]
fn what_was_committed_is_where_the_next_one_begins() {
    let (storage, store) = store_with(&[("t", 1)]);
    append(&store, "t", 0, 0..5);
    let mut consumer = options("g").set("max.poll.records", "3").unwrap().open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&mut consumer), [0, 1, 2]);
    consumer.commit_sync().unwrap();
    assert_eq!(poll(&mut consumer), [3, 4]);
    assert_eq!(consumer.position(&tp("t", 0)).unwrap().offset, Offset(5));
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap().unwrap().offset, Offset(3));
    consumer.close().unwrap();
    drop(store);
    let store = open(&storage);
    let mut consumer = options("g").open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&mut consumer), [3, 4], "polled, and not committed");
    let log_id = Some(store.log("t", 0).unwrap().id());
    let committed = consumer.committed(&tp("t", 0)).unwrap().unwrap();
    assert_eq!((committed.log_id, committed.commit_timestamp), (log_id, TimestampMs(NOW)));
    assert_eq!(committed.leader_epoch, Some(LeaderEpoch(0)));
}

#[test]
fn a_poll_returns_no_more_than_asked_for_and_all_of_it_in_order() {
    let (_, store) = store_with(&[("t", 1)]);
    append(&store, "t", 0, 0..100);
    append(&store, "t", 0, 100..150);
    for max in [1, 7, 99, 100, 101, 500] {
        let max_text = max.to_string();
        let mut consumer = Consumer::options()
            .set("auto.offset.reset", "earliest")
            .and_then(|options| options.set("max.poll.records", &max_text))
            .and_then(|options| options.open(&store))
            .unwrap();
        consumer.assign(&[tp("t", 0)]).unwrap();
        let mut seen = Vec::new();
        for round in 0.. {
            let records = consumer.poll(Duration::ZERO).unwrap();
            assert!(records.len() <= max);
            if records.is_empty() {
                break;
            }
            // Where the records were not read, the next part begins without their help.
            let again: Vec<_> = if round % 2 == 0 { numbers(&records) } else { Vec::new() };
            let now = numbers(&records);
            assert!(again.is_empty() || again == now);
            assert_eq!(now.len(), records.len());
            seen.extend(now);
        }
        assert_eq!(seen, (0..150).collect::<Vec<_>>(), "max.poll.records={max}");
    }
}

#[test]
fn unread_parts_of_a_batch_do_not_move_the_next_ones() {
    let (_, store) = store_with(&[("t", 1)]);
    append(&store, "t", 0, 0..10);
    let mut consumer = options("g").set("max.poll.records", "3").unwrap().open(&store).unwrap();
    consumer.assign(&[tp("t", 0)]).unwrap();
    let _unread = consumer.poll(Duration::ZERO).unwrap();
    let half = consumer.poll(Duration::ZERO).unwrap();
    assert_eq!(half.iter().next().unwrap().unwrap().offset, Offset(3));
    assert_eq!(poll(&mut consumer), [6, 7, 8]);
    consumer.seek(&tp("t", 0), OffsetSpec::Offset(Offset(2))).unwrap();
    assert_eq!(poll(&mut consumer), [2, 3, 4], "what was left of the batch is dropped");
    assert_eq!(consumer.position(&tp("t", 0)).unwrap().offset, Offset(5));
    assert_eq!(consumer.lag(&tp("t", 0)).unwrap(), 5);
}

#[test]
fn partitions_take_turns_and_paused_ones_wait() {
    let (_, store) = store_with(&[("t", 3)]);
    for partition in 0..3 {
        for n in 0..4 {
            append(&store, "t", partition, 10 * partition + n..10 * partition + n + 1);
        }
    }
    let mut consumer = options("g").set("max.poll.records", "2").unwrap().open(&store).unwrap();
    consumer.assign(&[tp("t", 0), tp("t", 1), tp("t", 2)]).unwrap();
    assert_eq!(poll(&mut consumer), [0, 1]);
    assert_eq!(poll(&mut consumer), [10, 11]);
    consumer.pause(&[tp("t", 0)]).unwrap();
    assert_eq!(poll(&mut consumer), [20, 21]);
    assert_eq!(poll(&mut consumer), [12, 13]);
    assert_eq!(poll(&mut consumer), [22, 23]);
    assert_eq!(poll(&mut consumer), [] as [u32; 0]);
    assert_eq!(consumer.paused(), [tp("t", 0)]);
    consumer.resume(&[tp("t", 0)]).unwrap();
    assert_eq!(poll(&mut consumer), [2, 3]);
    assert!(matches!(consumer.pause(&[tp("u", 0)]), Err(ConsumerError::NotAssigned(name)) if name == tp("u", 0)));
}

#[test]
fn a_wait_over_many_logs_ends_with_the_first_record_and_with_a_wakeup() {
    let (_, store) = store_with(&[("t", 8)]);
    let mut consumer = options("g").open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&mut consumer), [] as [u32; 0]);
    let waker = consumer.waker();
    let (seen, sees) = mpsc::channel();
    let waiting = thread::spawn(move || {
        seen.send(Ok(numbers(&consumer.poll(Duration::MAX).unwrap()))).unwrap();
        seen.send(consumer.poll(Duration::MAX).map(|records| numbers(&records))).unwrap();
    });
    append(&store, "t", 5, 7..8);
    assert_eq!(sees.recv().unwrap().unwrap(), [7]);
    waker.wakeup();
    assert!(matches!(sees.recv().unwrap(), Err(ConsumerError::Wakeup)));
    waiting.join().unwrap();
}

#[test]
fn positions_of_another_log_are_no_positions() {
    let (_, store) = store_with(&[("t", 1)]);
    append(&store, "t", 0, 0..5);
    let mut consumer = options("g").open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    poll(&mut consumer);
    consumer.commit_sync().unwrap();
    store.delete_topic("t").unwrap();
    store.create_topic(&NewTopic::new("t")).unwrap();
    append(&store, "t", 0, 20..30);
    assert_eq!(poll(&mut consumer), (20..30).collect::<Vec<_>>(), "from the new log's beginning");
    drop(consumer);
    let strict = Consumer::options().set("group.id", "g").unwrap().set("auto.offset.reset", "none").unwrap();
    let mut consumer = strict.open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    let error = consumer.poll(Duration::ZERO).unwrap_err();
    assert!(error.to_string().contains("deleted and created again"), "{error}");
}

#[test]
fn a_truncated_log_goes_on_where_it_was_truncated_or_is_an_error() {
    let (_, store) = store_with(&[("t", 1)]);
    append(&store, "t", 0, 0..5);
    let mut consumer = options("g").open(&store).unwrap();
    consumer.assign(&[tp("t", 0)]).unwrap();
    poll(&mut consumer);
    consumer.commit_sync().unwrap();
    let log = store.log("t", 0).unwrap();
    log.truncate_to(Offset(2)).unwrap();
    append(&store, "t", 0, 50..55);
    let strict = || Consumer::options().set("group.id", "g").unwrap().set("auto.offset.reset", "none").unwrap();
    let mut other = strict().open(&store).unwrap();
    assert!(matches!(other.assign(&[tp("t", 0)]), Err(ConsumerError::NoPosition { .. } | ConsumerError::Log { .. })));
    assert_eq!(poll(&mut consumer), (50..55).collect::<Vec<_>>());
    consumer.commit_sync().unwrap();
    let mut fresh = options("g").open(&store).unwrap();
    fresh.assign(&[tp("t", 0)]).unwrap();
    assert_eq!(poll(&mut fresh), [] as [u32; 0]);
    // A position of what is gone cannot be committed.
    let stale = OffsetAndMetadata::new(Offset(4)).with_leader_epoch(LeaderEpoch(0));
    assert!(matches!(fresh.commit_offsets(&[(tp("t", 0), stale)]), Err(ConsumerError::Log { .. })));
    let beyond = OffsetAndMetadata::new(Offset(8));
    assert!(matches!(fresh.commit_offsets(&[(tp("t", 0), beyond)]), Err(ConsumerError::Log { .. })));
    let long = OffsetAndMetadata::new(Offset(3)).with_metadata("x".repeat(4097));
    let error = fresh.commit_offsets(&[(tp("t", 0), long)]).unwrap_err().to_string();
    assert_eq!(error, "t-0: 4097 bytes of metadata were to be committed, and 4096 are allowed");
}

#[test]
fn resets_begin_where_the_key_says() {
    let (_, store) = store_with(&[("t", 1)]);
    let log = store.log("t", 0).unwrap();
    for ago in [60_000, 4_000, 1_000] {
        log.append(NewRecord::value(b"7").with_timestamp(TimestampMs(NOW - ago))).unwrap();
    }
    for (reset, count) in [("earliest", 3), ("latest", 0), ("by_duration:PT5S", 2), ("by_duration:PT0S", 0)] {
        let options = Consumer::options().set("auto.offset.reset", reset).unwrap();
        let mut consumer = options.open(&store).unwrap();
        consumer.assign(&[tp("t", 0)]).unwrap();
        assert_eq!(poll(&mut consumer).len(), count, "{reset}");
    }
    let consumer = Consumer::options().open(&store).unwrap();
    let found = consumer.offsets_for_times(&[(tp("t", 0), TimestampMs(NOW - 4_000))]).unwrap();
    assert_eq!(found[0].map(|at| at.offset), Some(Offset(1)));
    assert_eq!(consumer.end_offsets(&[tp("t", 0)]).unwrap(), [Offset(3)]);
    assert_eq!(consumer.beginning_offsets(&[tp("t", 0)]).unwrap(), [Offset(0)]);
}

#[test]
fn retention_keeps_what_a_group_has_not_committed() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    let topic = NewTopic::new("t").config("segment.bytes", "4096").config("retention.ms", "1000");
    store.create_topic(&topic).unwrap();
    let log = store.log("t", 0).unwrap();
    for _ in 0..20 {
        log.append(NewRecord::value(&[7; 2500]).with_timestamp(TimestampMs(NOW - 10_000))).unwrap();
    }
    let mut consumer = options("g").set("max.poll.records", "7").unwrap().open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    let holds = store.retention_holds().unwrap().of(&log);
    assert_eq!((holds[0].holder.as_str(), holds[0].offset), ("group g", Offset(0)));
    store.tick(TimestampMs(NOW)).unwrap();
    assert_eq!(log.offsets().log_start_offset, Offset(0), "before the first commit");
    consumer.commit_sync().unwrap();
    consumer.close().unwrap();
    assert_eq!(log.held_from().unwrap(), Some(Offset(7)), "with the last one that goes");
    store.tick(TimestampMs(NOW + 86_400_000)).unwrap();
    assert_eq!(log.offsets().log_start_offset, Offset(7));
    delete_group(&store, "g").unwrap();
    assert_eq!(log.held_from().unwrap(), None);
    // A position that retention by size has taken is answered by the reset.
    let mut consumer = options("h").open(&store).unwrap();
    consumer.assign(&[tp("t", 0)]).unwrap();
    consumer.commit_offsets(&[(tp("t", 0), OffsetAndMetadata::new(Offset(8)))]).unwrap();
    drop(consumer);
    log.delete_records_before(Offset(12)).unwrap();
    let mut consumer = options("h").open(&store).unwrap();
    consumer.assign(&[tp("t", 0)]).unwrap();
    assert_eq!(consumer.position(&tp("t", 0)).unwrap().offset, Offset(12));
}

#[test]
fn patterns_find_topics_that_are_created_later() {
    let (_, store) = store_with(&[("cpu.load", 1), ("disk", 1)]);
    let mut consumer = options("g").set("metadata.max.age.ms", "0").unwrap().open(&store).unwrap();
    consumer.subscribe(&["^cpu\\..*"]).unwrap();
    poll(&mut consumer);
    assert_eq!(consumer.assignment(), [tp("cpu.load", 0)]);
    store.create_topic(&NewTopic::new("cpu.heat").partitions(2)).unwrap();
    append(&store, "cpu.heat", 1, 3..4);
    assert_eq!(poll(&mut consumer), [3]);
    store.delete_topic("cpu.load").unwrap();
    assert_eq!(poll(&mut consumer), [] as [u32; 0]);
    assert_eq!(consumer.assignment(), [tp("cpu.heat", 0), tp("cpu.heat", 1)]);
    assert!(matches!(consumer.subscribe(&["^a", "b"]), Err(ConsumerError::InvalidPattern { .. })));
    assert!(matches!(consumer.assign(&[]), Err(ConsumerError::SubscriptionConflict)));
}

struct Notes(mpsc::Sender<String>);

impl RebalanceListener for Notes {
    fn on_partitions_assigned(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) {
        self.0.send(format!("+{}", partitions.len())).unwrap();
    }

    fn on_partitions_revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        assert!(matches!(consumer.poll(Duration::ZERO), Err(ConsumerError::InListener)));
        consumer.commit_sync().unwrap();
        self.0.send(format!("-{}", partitions.len())).unwrap();
    }

    fn on_partitions_lost(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        assert!(consumer.commit_sync().is_ok(), "there is nothing to commit");
        self.0.send(format!("lost {}", partitions.len())).unwrap();
    }
}

#[test]
fn two_members_share_the_partitions_and_what_stays_is_not_interrupted() {
    let (_, store) = store_with(&[("t", 4)]);
    (0..4).for_each(|partition| append(&store, "t", partition, partition..partition + 1));
    let (notes, seen) = mpsc::channel();
    let mut first = options("g").open(&store).unwrap();
    first.subscribe_with(&["t"], Notes(notes)).unwrap();
    assert_eq!(poll(&mut first), [0, 1, 2, 3]);
    let mut second = options("g").open(&store).unwrap();
    second.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&mut second), [] as [u32; 0], "nothing was given up yet");
    assert_eq!(poll(&mut first), [] as [u32; 0]);
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["+4", "-2"]);
    assert_eq!(first.assignment().len(), 2);
    // What the listener has committed is where the other one goes on.
    assert_eq!(poll(&mut second), [] as [u32; 0]);
    assert_eq!(second.assignment().len(), 2);
    (0..4).for_each(|partition| append(&store, "t", partition, partition + 10..partition + 11));
    let mut all = poll(&mut first);
    all.extend(poll(&mut second));
    all.sort_unstable();
    assert_eq!(all, [10, 11, 12, 13]);
    // A consumer with a choice of its own commits only where there are no members.
    let mut alone = options("g").open(&store).unwrap();
    alone.assign(&[tp("t", 0)]).unwrap();
    let zero = [(tp("t", 0), OffsetAndMetadata::new(Offset(0)))];
    assert!(matches!(alone.commit_offsets(&zero), Err(ConsumerError::GroupHasMembers { .. })));
    second.close().unwrap();
    poll(&mut first);
    assert_eq!(first.assignment().len(), 4);
}

#[test]
fn a_member_that_does_not_poll_is_replaced_and_cannot_commit() {
    let (_, store) = store_with(&[("t", 1)]);
    append(&store, "t", 0, 0..3);
    let (notes, seen) = mpsc::channel();
    let mut slow = options("g").set("max.poll.interval.ms", "1").unwrap().open(&store).unwrap();
    slow.subscribe_with(&["t"], Notes(notes)).unwrap();
    assert_eq!(poll(&mut slow), [0, 1, 2]);
    let mut other = options("g").set("metadata.max.age.ms", "0").unwrap().open(&store).unwrap();
    other.subscribe(&["t"]).unwrap();
    // As soon as the time is over, which passes by itself.
    while poll(&mut other).is_empty() {}
    let error = slow.commit_sync().unwrap_err();
    assert!(error.to_string().contains("max.poll.interval.ms=1 allows"), "{error}");
    assert_eq!(other.committed(&tp("t", 0)).unwrap(), None);
    assert_eq!(poll(&mut slow), [] as [u32; 0]);
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["+1", "lost 1"]);
}

#[test]
fn an_asynchronous_commit_is_done_by_the_next_poll() {
    let (_, store) = store_with(&[("t", 1)]);
    append(&store, "t", 0, 0..4);
    let mut consumer = options("g").set("max.poll.records", "2").unwrap().open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    let (done, answers) = mpsc::channel();
    for _ in 0..2 {
        poll(&mut consumer);
        let done = done.clone();
        let answer = move |offsets: &[(TopicPartition, OffsetAndMetadata)], outcome: Result<()>| {
            outcome.unwrap();
            done.send(offsets[0].1.offset).unwrap();
        };
        consumer.commit_async(answer).unwrap();
    }
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [Offset(2)], "with the second poll");
    consumer.close().unwrap();
    assert_eq!(answers.try_iter().collect::<Vec<_>>(), [Offset(4)], "with the close");
}

#[test]
fn automatic_commits_are_what_earlier_polls_returned() {
    let (_, store) = store_with(&[("t", 1)]);
    append(&store, "t", 0, 0..4);
    let auto = || {
        let options = options("g").set("enable.auto.commit", "true").unwrap();
        options.set("auto.commit.interval.ms", "1").unwrap().set("max.poll.records", "2").unwrap()
    };
    let mut consumer = auto().open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&mut consumer), [0, 1]);
    assert_eq!(consumer.committed(&tp("t", 0)).unwrap(), None, "not before it was processed");
    drop(consumer);
    let mut consumer = auto().open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&mut consumer), [0, 1]);
    consumer.close().unwrap();
    let mut consumer = auto().open(&store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&mut consumer), [2, 3]);
}

#[test]
fn calls_that_need_a_group_or_a_subscription_say_so() {
    let (_, store) = store_with(&[("t", 1)]);
    let mut consumer = Consumer::options().open(&store).unwrap();
    assert!(matches!(consumer.poll(Duration::ZERO), Err(ConsumerError::NotSubscribed)));
    assert!(matches!(consumer.subscribe(&["t"]), Err(ConsumerError::NoGroup { call: "subscribe" })));
    consumer.assign(&[tp("t", 0)]).unwrap();
    assert!(matches!(consumer.commit_sync(), Err(ConsumerError::NoGroup { .. })));
    assert!(matches!(consumer.assign(&[tp("u", 0)]), Err(ConsumerError::Log { .. })));
    assert_eq!(consumer.assignment(), [tp("t", 0)]);
    store.close().unwrap();
    let closed = consumer.poll(Duration::ZERO).unwrap_err();
    assert!(matches!(closed, ConsumerError::Store(error) if matches!(*error, Error::Closed)));
}
