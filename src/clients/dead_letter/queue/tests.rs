use super::*;
use crate::clients::DeadLetter;
use crate::storage::MemoryStorage;
use crate::{Durability, Log, NewTopic, Offset, OffsetSpec};

fn store_on(storage: &Arc<MemoryStorage>) -> Arc<Store> {
    Arc::new(Store::options().open_shared(storage.clone()).unwrap())
}

fn fill(store: &Store, values: &[&[u8]]) {
    store.create_topic_if_absent(&NewTopic::new("t")).unwrap();
    for value in values {
        store.log("t", 0).unwrap().append(NewRecord::value(value)).unwrap();
    }
}

fn open(store: &Arc<Store>, keys: &[(&str, &str)]) -> (Consumer, DeadLetterQueue) {
    let options = Consumer::options().set("group.id", "g").unwrap().set("auto.offset.reset", "earliest").unwrap();
    let mut consumer = options.open(store).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    let options = DeadLetterQueue::options().set("errors.deadletterqueue.topic.name", "dead").unwrap();
    let options = options.set("edgelog.errors.retry.delay.ms", "1").unwrap();
    let options = keys.iter().fold(options, |options, (key, value)| options.set(key, value).unwrap());
    let queue = options.open(&consumer).unwrap();
    (consumer, queue)
}

/// Processes what a poll returns; records whose value is `x` fail always. How many were set aside.
fn process(consumer: &mut Consumer, queue: &mut DeadLetterQueue) -> usize {
    let records = consumer.poll(Duration::ZERO).unwrap();
    let outcomes = records.iter().map(|record| {
        let fails = |record: &ConsumerRecord<'_>| if record.value == Some(b"x") { Err("it is an x") } else { Ok(()) };
        queue.process(&record.unwrap(), fails).unwrap()
    });
    outcomes.filter(|outcome| *outcome == Processed::SetAside).count()
}

fn dead_letters(log: &Log) -> Vec<(Offset, String, usize)> {
    let (mut found, mut reader) = (Vec::new(), log.reader(OffsetSpec::Earliest).unwrap());
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            let of = DeadLetter::parse(&record).unwrap();
            assert_eq!((of.log.to_string().as_str(), of.group), ("t-0", Some("g")));
            found.push((of.offset, of.reason.to_owned(), record.value.map_or(0, <[u8]>::len)));
        }
    }
    found
}

fn aside(offset: i64) -> (Offset, String, usize) {
    (Offset(offset), "it is an x".to_owned(), 1)
}

#[test]
fn what_goes_on_failing_is_set_aside_once_however_often_it_comes() {
    let storage = Arc::new(MemoryStorage::new());
    for round in 0..3 {
        let store = store_on(&storage);
        if round == 0 {
            fill(&store, &[b"a", b"x", b"b", b"x"]);
        }
        // Nothing is committed: all of it comes again, to another process.
        let (mut consumer, mut queue) = open(&store, &[("errors.retry.timeout", "0")]);
        assert_eq!(process(&mut consumer, &mut queue), 2);
        assert_eq!(dead_letters(&store.log("dead", 0).unwrap()), [aside(1), aside(3)]);
    }
}

#[test]
fn a_record_that_fails_for_the_first_time_behind_a_later_dead_letter_is_not_taken_for_one() {
    let store = store_on(&Arc::new(MemoryStorage::new()));
    fill(&store, &[b"a", b"b", b"x"]);
    let (mut consumer, mut queue) = open(&store, &[("errors.retry.timeout", "0")]);
    assert_eq!(process(&mut consumer, &mut queue), 1);
    consumer.seek(&crate::TopicPartition::new("t", 0), OffsetSpec::Offset(Offset(1))).unwrap();
    let records = consumer.poll(Duration::ZERO).unwrap();
    for record in &records {
        let outcome = queue.process(&record.unwrap(), |_| Err::<(), _>("it is an x")).unwrap();
        assert_eq!(outcome, Processed::SetAside);
    }
    assert_eq!(dead_letters(&store.log("dead", 0).unwrap()), [aside(2), aside(1)]);
}

/// An offset that is used again is another record's: by a truncation, or, where the record was not durable, by a cut.
#[test]
fn a_record_at_an_offset_that_was_truncated_is_not_taken_for_the_one_before() {
    let store = store_on(&Arc::new(MemoryStorage::new()));
    fill(&store, &[b"x"]);
    let (mut consumer, mut queue) = open(&store, &[("errors.retry.timeout", "0")]);
    assert_eq!(process(&mut consumer, &mut queue), 1);
    let log = store.log("t", 0).unwrap();
    log.truncate_to(Offset(0)).unwrap();
    fill(&store, &[b"x"]);
    drop((consumer, queue));
    let (mut consumer, mut queue) = open(&store, &[("errors.retry.timeout", "0")]);
    assert_eq!(process(&mut consumer, &mut queue), 1);
    assert_eq!(dead_letters(&store.log("dead", 0).unwrap()), [aside(0), aside(0)]);
}

#[test]
fn a_record_is_durable_before_it_is_set_aside() {
    let store = store_on(&Arc::new(MemoryStorage::new()));
    fill(&store, &[]);
    let log = store.log("t", 0).unwrap();
    log.append_with(NewRecord::value(b"x"), Durability::Os).unwrap();
    let (mut consumer, mut queue) = open(&store, &[("errors.retry.timeout", "0")]);
    assert_eq!(log.offsets().recovery_point, Offset(0));
    assert_eq!(process(&mut consumer, &mut queue), 1);
    assert_eq!(log.offsets().recovery_point, Offset(1));
}

#[test]
fn a_record_is_tried_again_until_it_succeeds_or_the_consumer_is_woken() {
    let store = store_on(&Arc::new(MemoryStorage::new()));
    fill(&store, &[b"a"]);
    let (mut consumer, mut queue) = open(&store, &[("errors.retry.timeout", "-1"), ("errors.retry.delay.max.ms", "2")]);
    let records = consumer.poll(Duration::ZERO).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    let mut tries = 0;
    let outcome = queue.process(&record, |_| {
        tries += 1;
        if tries < 5 { Err("not yet") } else { Ok(tries) }
    });
    assert_eq!(outcome.unwrap(), Processed::Done(5));
    let waker = consumer.waker();
    let outcome = queue.process(&record, |_| {
        waker.wakeup();
        Err::<(), _>("never")
    });
    assert!(matches!(outcome, Err(ConsumerError::Wakeup)), "{outcome:?}");
    assert!(store.topic("dead").is_err());
}

#[test]
fn a_record_without_room_goes_without_its_bytes_and_says_so() {
    let store = store_on(&Arc::new(MemoryStorage::new()));
    fill(&store, &[&[7; 900]]);
    store.create_topic(&NewTopic::new("dead").config("max.message.bytes", "1000")).unwrap();
    let (mut consumer, mut queue) = open(&store, &[]);
    let records = consumer.poll(Duration::ZERO).unwrap();
    queue.set_aside(&records.iter().next().unwrap().unwrap(), "why").unwrap();
    let found = dead_letters(&store.log("dead", 0).unwrap());
    assert_eq!((found.len(), found[0].2), (1, 0));
    assert!(found[0].1.starts_with("why (with its record") && found[0].1.contains("1000 are allowed"), "{found:?}");
}

#[test]
fn keys_are_checked_and_a_group_and_a_topic_are_needed() {
    let store = store_on(&Arc::new(MemoryStorage::new()));
    let error = DeadLetterQueue::options().set("errors.retry.timeouts", "1").unwrap_err().to_string();
    assert!(error.contains("did you mean errors.retry.timeout?"), "{error}");
    let error = DeadLetterQueue::options().set("errors.retry.timeout", "-2").unwrap_err().to_string();
    assert!(error.contains("a number from -1"), "{error}");
    let without_group = Consumer::options().open(&store).unwrap();
    let options = || DeadLetterQueue::options().set("errors.deadletterqueue.topic.name", "dead").unwrap();
    assert!(matches!(options().open(&without_group), Err(ConsumerError::NoGroup { .. })));
    let consumer = Consumer::options().set("group.id", "g").unwrap().open(&store).unwrap();
    let error = DeadLetterQueue::options().open(&consumer).unwrap_err().to_string();
    assert_eq!(error, "errors.deadletterqueue.topic.name=: it has to be set");
}
