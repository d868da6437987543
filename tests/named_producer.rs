//! Named producers: what has a number is appended once, gaps are errors, and the newer of two fences the older.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;

use edgelog::clients::{Producer, ProducerError, ProducerRecord};
use edgelog::edgelog_core::TimestampMs;
use edgelog::storage::MemoryStorage;
use edgelog::{Log, NewRecord, NewTopic, Offset, OffsetSpec, ReadUpTo, ReaderOptions, Store};
use edgelog_testkit::faults::{Fault, FaultyStorage};
use edgelog_testkit::ticking;

fn open(storage: &MemoryStorage) -> Arc<Store> {
    let store = Arc::new(ticking().open_on(storage.clone()).unwrap());
    store.create_topic_if_absent(&NewTopic::new("t").partitions(2)).unwrap();
    store
}

fn producer(store: &Arc<Store>, name: &str, keys: &[(&str, &str)]) -> Producer {
    let mut builder = Producer::builder(store).set("edgelog.producer.name", name).unwrap();
    for (key, value) in [("linger.ms", "0")].iter().chain(keys) {
        builder = builder.set(key, value).unwrap();
    }
    builder.open().unwrap()
}

fn record(value: &[u8]) -> ProducerRecord<'_> {
    ProducerRecord::new("t", value).with_partition(0)
}

/// Sends and waits; the offset.
fn send(producer: &Producer, record: ProducerRecord<'_>) -> Result<Option<i64>, ProducerError> {
    producer.send(record)?.wait().map(|metadata| metadata.offset.map(|offset| offset.0))
}

fn source(producer: &Producer, offset: i64) -> Result<Option<i64>, ProducerError> {
    send(producer, record(&offset.to_be_bytes()).with_source_offset(Offset(offset)))
}

fn exact(producer: &Producer, sequence: i64) -> Result<Option<i64>, ProducerError> {
    send(producer, record(&sequence.to_be_bytes()).with_sequence(sequence))
}

/// The producer's fields of each batch: epoch, base sequence, records.
fn batches(log: &Log) -> Vec<(i16, i32, i32)> {
    let options = ReaderOptions::default().up_to(ReadUpTo::LogEnd);
    let mut reader = log.reader_with(OffsetSpec::Earliest, options).unwrap();
    let mut found = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        let view = batch.view();
        view.verify_crc().unwrap();
        found.push((view.producer_epoch(), view.base_sequence(), view.record_count()));
    }
    found
}

fn refusal(outcome: Result<Option<i64>, ProducerError>) -> (i64, i64) {
    match outcome {
        Err(ProducerError::OutOfOrderSequence { sequence, expected, .. }) => (sequence, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_are_numbered_in_kafkas_fields_and_go_on_after_a_restart() {
    let storage = MemoryStorage::new();
    for round in 0..2 {
        let store = open(&storage);
        let first = producer(&store, "p", &[]);
        assert_eq!(first.last_sequence("t", 0).unwrap(), [None, Some(2)][round]);
        for _ in 0..3 {
            send(&first, record(b"x")).unwrap();
        }
        first.close().unwrap();
        store.close().unwrap();
    }
    let store = open(&storage);
    let expected = [(0, 0, 1), (0, 1, 1), (0, 2, 1), (1, 3, 1), (1, 4, 1), (1, 5, 1)];
    assert_eq!(batches(&store.log("t", 0).unwrap()), expected);
    assert_eq!(producer(&store, "p", &[]).last_sequence("t", 1).unwrap(), None);
    assert_eq!(producer(&store, "q", &[]).last_sequence("t", 0).unwrap(), None);
}

#[test]
fn what_is_sent_again_is_answered_with_its_offset_and_not_appended() {
    let storage = MemoryStorage::new();
    let store = open(&storage);
    let one = producer(&store, "p", &[]);
    store.log("t", 0).unwrap().append(NewRecord::value(b"plain")).unwrap();
    assert_eq!(exact(&one, 7).unwrap(), Some(1), "the first one may have any number");
    assert_eq!(exact(&one, 8).unwrap(), Some(2));
    assert_eq!([exact(&one, 7).unwrap(), exact(&one, 8).unwrap()], [Some(1), Some(2)]);
    let (sent, answered) = channel();
    one.send_with(record(b"").with_sequence(8), move |outcome| sent.send(outcome).unwrap()).unwrap();
    assert_eq!(answered.recv().unwrap().unwrap().offset, Some(Offset(2)), "a callback is called");
    drop(one);
    drop(store);
    let store = open(&storage);
    let two = producer(&store, "p", &[("acks", "1")]);
    assert_eq!(exact(&two, 8).unwrap(), Some(2));
    assert_eq!(refusal(exact(&two, 3)), (3, 9), "older than what there is, and known not to be there");
    assert_eq!(exact(&two, 9).unwrap(), Some(3));
    assert_eq!(store.log("t", 0).unwrap().offsets().log_end_offset, 4);
}

#[test]
fn a_gap_is_an_error_and_a_source_offset_may_pass_over_numbers() {
    let store = open(&MemoryStorage::new());
    let one = producer(&store, "p", &[]);
    exact(&one, 0).unwrap();
    assert_eq!(refusal(exact(&one, 2)), (2, 1));
    assert_eq!(refusal(exact(&one, -1)), (-1, 1));
    assert_eq!([source(&one, 5).unwrap(), source(&one, 9).unwrap()], [Some(1), Some(2)]);
    assert_eq!(source(&one, 5).unwrap(), Some(1));
    assert_eq!(refusal(source(&one, 7)), (7, 10), "it was passed over");
    let error = source(&one, 7).unwrap_err();
    assert_eq!(error.to_string(), "t-0: a record has the sequence 7, and 10 is expected");
    assert_eq!(error.kafka_code(), Some(45));
    assert_eq!(one.last_sequence("t", 0).unwrap(), Some(9));
}

#[test]
fn in_an_open_batch_numbers_are_the_same_as_in_the_log() {
    let store = open(&MemoryStorage::new());
    let one = producer(&store, "p", &[("linger.ms", "100000")]);
    let send = |offset: i64| one.send(record(&offset.to_be_bytes()).with_source_offset(Offset(offset)));
    // 3 and 4 in one batch; 8 begins another; the repeats are of the open batch, and of the one before.
    let sent: Vec<_> = [3, 4, 4, 8, 9, 9, 3].map(|offset| send(offset).unwrap()).into_iter().collect();
    assert_eq!(refusal(send(5).map(|_| None)), (5, 10));
    one.flush().unwrap();
    let offsets: Vec<_> = sent.iter().map(|delivery| delivery.wait().unwrap().offset.unwrap().0).collect();
    assert_eq!(offsets, [0, 1, 1, 2, 3, 3, 0]);
    assert_eq!(batches(&store.log("t", 0).unwrap()), [(0, 3, 2), (0, 8, 2)]);
}

/// So many numbers Kafka's sequence has.
const TURN: i64 = 1 << 31;

/// Kafka's sequence wraps at 2^31; the numbers do not.
#[test]
fn numbers_go_on_beyond_what_a_batch_can_say() {
    let storage = MemoryStorage::new();
    let numbers = [TURN - 2, TURN - 1, TURN, 3 * TURN + 5, 3 * TURN + 6, 9 * TURN, 9 * TURN + TURN - 1];
    {
        let store = open(&storage);
        let one = producer(&store, "p", &[]);
        for (at, number) in numbers.into_iter().enumerate() {
            assert_eq!(source(&one, number).unwrap(), Some(at as i64));
        }
    }
    let store = open(&storage);
    let sequences: Vec<i32> = batches(&store.log("t", 0).unwrap()).iter().map(|batch| batch.1).collect();
    assert_eq!(sequences, [i32::MAX - 1, i32::MAX, 0, 5, 6, 0, i32::MAX]);
    let two = producer(&store, "p", &[]);
    assert_eq!(two.last_sequence("t", 0).unwrap(), numbers.last().copied());
    // Of those before its last jump, the log is not asked where they stand.
    let again: Vec<_> = numbers.iter().map(|number| source(&two, *number).unwrap()).collect();
    assert_eq!(again, [None, None, None, None, None, Some(5), Some(6)]);
    assert_eq!(source(&two, 10 * TURN).unwrap(), Some(7));
    // One batch over the end of Kafka's numbers.
    let three = producer(&store, "q", &[("linger.ms", "100000")]);
    for number in TURN - 1..TURN + 2 {
        drop(three.send(record(b"").with_sequence(number)).unwrap());
    }
    three.flush().unwrap();
    assert_eq!(batches(&store.log("t", 0).unwrap()).last(), Some(&(0, i32::MAX, 3)));
    drop(three);
    assert_eq!(producer(&store, "q", &[]).last_sequence("t", 0).unwrap(), Some(TURN + 1));
}

#[test]
fn the_newer_producer_fences_the_older_also_between_threads() {
    let store = open(&MemoryStorage::new());
    let older = producer(&store, "p", &[]);
    source(&older, 1).unwrap();
    let waiting = producer(&store, "other", &[]);
    let newer = thread::scope(|scope| {
        let store = &store;
        // The older one sends from another thread for as long as it can.
        let sending = scope.spawn(move || {
            (2..).map(|offset| source(&older, offset)).find_map(Result::err).map(|error| (error, older))
        });
        let newer = producer(store, "p", &[]);
        let (error, older) = sending.join().unwrap().unwrap();
        assert!(
            matches!(&error, ProducerError::ProducerFenced { name, epoch: 0, newest: 1 } if name == "p"),
            "{error}"
        );
        assert_eq!(error.kafka_code(), Some(90));
        assert!(matches!(source(&older, 1), Err(ProducerError::ProducerFenced { .. })), "a repeat neither");
        assert!(matches!(older.last_sequence("t", 0), Err(ProducerError::ProducerFenced { .. })));
        newer
    });
    let last = newer.last_sequence("t", 0).unwrap().unwrap();
    assert_eq!(store.log("t", 0).unwrap().offsets().log_end_offset, last, "each number once, from 1 on");
    source(&newer, last + 1).unwrap();
    source(&waiting, 0).unwrap();
}

/// What stands in the older one's open batch is answered with the fence, and not appended behind the newer one's look.
#[test]
fn an_open_batch_of_a_fenced_producer_is_not_appended() {
    let store = open(&MemoryStorage::new());
    let older = producer(&store, "p", &[("linger.ms", "100000")]);
    let delivery = older.send(record(b"late").with_source_offset(Offset(4))).unwrap();
    let newer = producer(&store, "p", &[]);
    source(&newer, 4).unwrap();
    older.flush().unwrap();
    assert!(matches!(delivery.wait(), Err(ProducerError::ProducerFenced { .. })));
    assert_eq!(store.log("t", 0).unwrap().offsets().log_end_offset, 1);
}

#[test]
fn retention_takes_a_producers_last_batch_and_not_its_sequence() {
    let storage = MemoryStorage::new();
    let mut store = open(&storage);
    store.alter_topic("t", &[("segment.bytes", Some("4096")), ("retention.bytes", Some("4096"))]).unwrap();
    let one = producer(&store, "p", &[]);
    for n in 0..5 {
        source(&one, 1000 + n).unwrap();
    }
    let log = store.log("t", 0).unwrap();
    for _ in 0..20 {
        log.append(NewRecord::value(&[7; 500])).unwrap();
    }
    store.tick(TimestampMs(2_000_000_000_000)).unwrap();
    assert!(log.offsets().log_start_offset > 5, "{:?}", log.offsets());
    drop((log, one));
    for _ in 0..2 {
        drop(store);
        store = open(&storage);
        let one = producer(&store, "p", &[]);
        let end = store.log("t", 0).unwrap().offsets().log_end_offset;
        assert_eq!((one.last_sequence("t", 0).unwrap(), source(&one, 1004).unwrap()), (Some(1004), None));
        assert_eq!(store.log("t", 0).unwrap().offsets().log_end_offset, end);
    }
    let one = producer(&store, "p", &[]);
    assert!(source(&one, 1005).unwrap().is_some());
    // And what a program deletes.
    let log = store.log("t", 0).unwrap();
    log.delete_records_before(log.offsets().log_end_offset).unwrap();
    assert_eq!(producer(&store, "p", &[]).last_sequence("t", 0).unwrap(), Some(1005));
}

#[test]
fn a_truncation_takes_numbers_with_its_records() {
    let store = open(&MemoryStorage::new());
    let one = producer(&store, "p", &[]);
    for n in 0..6 {
        source(&one, n).unwrap();
    }
    store.log("t", 0).unwrap().truncate_to(Offset(4)).unwrap();
    assert_eq!(one.last_sequence("t", 0).unwrap(), Some(3));
    assert_eq!([source(&one, 3).unwrap(), source(&one, 4).unwrap()], [Some(3), Some(4)]);
    // Another producer of the name looked where the log ended; that is not believed once it was truncated.
    let two = producer(&store, "p", &[]);
    assert_eq!(two.last_sequence("t", 0).unwrap(), Some(4));
    store.log("t", 0).unwrap().truncate_to(Offset(1)).unwrap();
    let plain = store.log("t", 0).unwrap();
    for _ in 0..9 {
        plain.append(NewRecord::value(b"plain")).unwrap();
    }
    assert_eq!(producer(&store, "p", &[]).last_sequence("t", 0).unwrap(), Some(0));
}

/// A batch that was not appended leaves no hole: what comes behind it is refused until it comes again.
#[test]
fn behind_a_batch_that_failed_nothing_is_taken_before_it_comes_again() {
    let mut failures = 0;
    // A call of the storage that finds no room; which one that is, is looked for: it has to be one of an append.
    for at in 0..6 {
        let plain = MemoryStorage::new();
        open(&plain);
        let storage = FaultyStorage::new(plain, -1, Fault::Full, false);
        let store = Arc::new(ticking().open_on(storage.clone()).unwrap());
        let one = producer(&store, "p", &[("acks", "1")]);
        source(&one, 10).unwrap();
        storage.fail_after(at);
        let Some(next) = (11..15).find(|next| source(&one, *next).is_err()) else { continue };
        storage.fail_after(-1);
        assert_eq!(refusal(source(&one, next + 1)), (next + 1, next));
        assert_eq!(refusal(exact(&one, next + 1)), (next + 1, next));
        assert_eq!(source(&one, next).unwrap(), Some(next - 10));
        assert_eq!(source(&one, next + 5).unwrap(), Some(next - 9));
        failures += 1;
    }
    assert!(failures > 0, "no append failed");
    let store = open(&MemoryStorage::new());
    let next = 0;
    // Neither does one that was purged.
    let two = producer(&store, "p", &[("linger.ms", "100000")]);
    drop(two.send(record(b"").with_source_offset(Offset(next + 8))).unwrap());
    assert_eq!(two.purge().unwrap(), 1);
    assert!(matches!(
        two.send(record(b"").with_source_offset(Offset(next + 9))),
        Err(ProducerError::OutOfOrderSequence { .. })
    ));
    let delivery = two.send(record(b"").with_source_offset(Offset(next + 8))).unwrap();
    two.flush().unwrap();
    delivery.wait().unwrap();
}

#[test]
fn a_number_needs_a_name_and_a_partition() {
    let store = open(&MemoryStorage::new());
    let plain = Producer::builder(&store).open().unwrap();
    for outcome in [plain.send(record(b"").with_sequence(1)).map(drop), plain.last_sequence("t", 0).map(drop)] {
        assert!(matches!(outcome, Err(ProducerError::SequenceNotAllowed { .. })), "{outcome:?}");
    }
    let named = producer(&store, "p", &[]);
    let anywhere = ProducerRecord::new("t", b"").with_sequence(1);
    assert!(matches!(named.send(anywhere), Err(ProducerError::SequenceNotAllowed { .. })));
    assert!(send(&named, anywhere.with_key(b"k")).unwrap().is_some());
    for name in ["", "a b", "a/b", &"x".repeat(250)] {
        let error = Producer::builder(&store).set("edgelog.producer.name", name).unwrap_err();
        assert!(matches!(error, ProducerError::InvalidConfig(_)), "{error}");
    }
}

/// With `acks=all`, what was appended at `acks=1` is acknowledged when it is durable.
#[test]
fn a_repeat_is_flushed_before_it_is_acknowledged() {
    let store = open(&MemoryStorage::new());
    store.alter_topic("t", &[("flush.messages", Some("1000000"))]).unwrap();
    let log = store.log("t", 0).unwrap();
    let fast = producer(&store, "p", &[("acks", "1")]);
    source(&fast, 1).unwrap();
    assert_eq!(source(&fast, 1).unwrap(), Some(0));
    assert_eq!(log.offsets().recovery_point, 0);
    let safe = producer(&store, "p", &[]);
    assert_eq!(source(&safe, 1).unwrap(), Some(0));
    assert_eq!(log.offsets().recovery_point, 1);
}
