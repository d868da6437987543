//! The producer: what `send` takes, when it is answered and with what, and that nothing is left without an answer.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use edgelog::clients::{Delivery, DeliveryResult, Producer, ProducerError, ProducerRecord};
use edgelog::edgelog_core::TimestampMs;
use edgelog::storage::MemoryStorage;
use edgelog::{
    CompressionType, Error, Header, LeaderEpoch, Log, NewTopic, Offset, OffsetSpec, ReadUpTo, ReaderOptions, Store,
};
use edgelog_testkit::faults::{Fault, FaultyStorage, INJECTED, quiet_injected_panics};
use edgelog_testkit::ticking;

fn store() -> Arc<Store> {
    let store = ticking().open_on(MemoryStorage::new()).unwrap();
    store.create_topic(&NewTopic::new("t").partitions(3)).unwrap();
    Arc::new(store)
}

fn producer(store: &Arc<Store>, keys: &[(&str, &str)]) -> Producer {
    let mut builder = Producer::builder(store);
    for (key, value) in keys {
        builder = builder.set(key, value).unwrap();
    }
    builder.open().unwrap()
}

/// For the partition 0 of the topic `t`.
fn record(value: &[u8]) -> ProducerRecord<'_> {
    ProducerRecord::new("t", value).with_partition(0)
}

/// The values of a log, those that are not acknowledged too.
fn values(log: &Log) -> Vec<Vec<u8>> {
    let options = ReaderOptions::default().up_to(ReadUpTo::LogEnd);
    let mut reader = log.reader_with(OffsetSpec::Earliest, options).unwrap();
    let mut values = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        values.extend(batch.records().unwrap().map(|record| record.unwrap().value.unwrap().to_vec()));
    }
    values
}

fn code(outcome: DeliveryResult) -> String {
    format!("{:?}", outcome.unwrap_err())
}

/// Stops the sender in a callback until the answer is dropped or sent to.
fn stop_the_sender(producer: &Producer) -> Sender<()> {
    let (resume, resumed) = channel::<()>();
    let (stopped, is_stopped) = channel::<()>();
    let callback = move |_: DeliveryResult| {
        let _ = stopped.send(());
        let _ = resumed.recv();
    };
    producer.send_with(ProducerRecord::new("stopper", b"stop"), callback).unwrap();
    let flusher = producer.clone();
    thread::spawn(move || flusher.flush());
    is_stopped.recv().unwrap();
    resume
}

// --- what is sent ----------------------------------------------------------------------------------------------------

#[test]
fn a_record_arrives_as_it_was_sent_and_its_answer_names_it() {
    for acks in ["all", "1", "0"] {
        for linger in ["0", "2"] {
            let store = store();
            let producer = producer(&store, &[("acks", acks), ("linger.ms", linger)]);
            let headers = [Header { key: b"unit", value: Some(b"C") }, Header { key: b"none", value: None }];
            let sent = record(b"21.5").with_key(b"boiler").with_headers(&headers).with_timestamp(TimestampMs(77));
            let first = producer.send(sent).unwrap().wait().unwrap();
            let gone = ProducerRecord::tombstone("t", b"boiler").with_partition(0).with_timestamp(TimestampMs(78));
            let second = producer.send(gone).unwrap().wait().unwrap();
            assert_eq!((first.topic(), first.partition(), first.timestamp), ("t", 0, TimestampMs(77)));
            let offsets = [&first, &second].map(|metadata| metadata.offset);
            if acks == "0" {
                assert_eq!((offsets, first.position()), ([None, None], None));
            } else {
                assert_eq!((offsets, first.leader_epoch), ([Some(Offset(0)), Some(Offset(1))], LeaderEpoch(0)));
            }
            producer.flush().unwrap();

            let log = store.log("t", 0).unwrap();
            let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
            let batch = reader.next_batch().unwrap().unwrap();
            let record = batch.records().unwrap().next().unwrap().unwrap();
            assert_eq!((record.key, record.value), (Some(&b"boiler"[..]), Some(&b"21.5"[..])), "acks={acks}");
            let read: Vec<_> =
                record.headers().map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec))).collect();
            assert_eq!(read, [(b"unit".to_vec(), Some(b"C".to_vec())), (b"none".to_vec(), None)]);
            assert_eq!((record.timestamp, log.offsets().log_end_offset), (TimestampMs(77), Offset(2)));
            if acks == "all" {
                assert_eq!(log.offsets().recovery_point, Offset(2), "acknowledged, and so durable");
            }
        }
    }
}

#[test]
fn records_stand_in_the_order_in_which_they_were_sent() {
    for keys in [&[("acks", "1"), ("batch.size", "300")], &[("acks", "all"), ("linger.ms", "0")]] {
        let store = store();
        let producer = producer(&store, keys);
        let deliveries: Vec<Delivery> =
            (0..200_u32).map(|n| producer.send(record(&n.to_be_bytes())).unwrap()).collect();
        producer.flush().unwrap();
        for (n, delivery) in deliveries.iter().enumerate() {
            assert!(delivery.is_done());
            assert_eq!(delivery.wait().unwrap().offset, Some(Offset(n as i64)));
        }
        let expected: Vec<Vec<u8>> = (0..200_u32).map(|n| n.to_be_bytes().to_vec()).collect();
        assert_eq!(values(&store.log("t", 0).unwrap()), expected);
    }
}

#[test]
fn a_batch_waits_for_more_until_it_is_full_or_flushed() {
    let store = store();
    let producer = producer(&store, &[("acks", "1"), ("linger.ms", "100000"), ("batch.size", "1000")]);
    let log = store.log("t", 0).unwrap();
    let first = producer.send(record(&[1; 400])).unwrap();
    assert!(first.try_wait().is_none() && log.offsets().log_end_offset == 0);
    let second = producer.send(record(&[2; 400])).unwrap();
    assert!(!second.is_done() && log.offsets().log_end_offset == 0, "850 bytes are less than 1000");
    let third = producer.send(record(&[3; 400])).unwrap();
    assert_eq!(first.try_wait().unwrap().unwrap().offset, Some(Offset(0)));
    assert_eq!(second.try_wait().unwrap().unwrap().offset, Some(Offset(1)));
    assert!(!third.is_done() && log.offsets().log_end_offset == 2);
    producer.flush().unwrap();
    assert_eq!(third.try_wait().unwrap().unwrap().offset, Some(Offset(2)));
    // A record that is larger than a batch goes alone.
    let large = producer.send(record(&[4; 5000])).unwrap();
    let behind = producer.send(record(&[5; 1])).unwrap();
    assert!(large.is_done() && !behind.is_done());
    let metrics = producer.metrics();
    assert_eq!((metrics.record_send_total, metrics.batch_send_total), (4, 3));
    assert!(metrics.batch_size_max > 5000 && metrics.records_per_request_avg > 1.3);
    producer.close().unwrap();
    assert_eq!(behind.wait().unwrap().offset, Some(Offset(4)));
    assert_eq!(producer.metrics().buffer_available_bytes, producer.metrics().buffer_total_bytes);
}

#[test]
fn keys_choose_the_partition_and_records_without_one_stay_for_a_batch() {
    let store = store();
    store.create_topic(&NewTopic::new("wide").partitions(17)).unwrap();
    let partition = |producer: &Producer, key: &[u8]| {
        producer.send(ProducerRecord::new("wide", b"v").with_key(key)).unwrap().wait().unwrap().partition()
    };
    let murmur = producer(&store, &[("acks", "1"), ("linger.ms", "0")]);
    assert_eq!(partition(&murmur, b"hejsan"), 0x5ec1_9395 % 17);
    assert_eq!(partition(&murmur, b""), 0x106e_08d9 % 17);
    let crc = producer(&store, &[("acks", "1"), ("linger.ms", "0"), ("partitioner", "consistent_random")]);
    assert_eq!(partition(&crc, b"hejsan"), 0xd077_037e % 17);

    let sticky = producer(&store, &[("acks", "1"), ("batch.size", "1000"), ("partitioner.ignore.keys", "true")]);
    let partitions: Vec<u32> = (0..400)
        .map(|_| sticky.send(ProducerRecord::new("wide", &[7; 160]).with_key(b"k")).unwrap())
        .map(|delivery| delivery.wait().unwrap().partition())
        .collect();
    let changes = partitions.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert_eq!(changes, 66, "at every sixth record of 197 bytes at most");
    let mut used = partitions;
    used.sort_unstable();
    used.dedup();
    assert!(used.len() > 8, "{used:?}");
}

#[test]
fn batches_are_compressed_with_each_codec_that_this_build_writes() {
    let mut written = Vec::new();
    for codec in CompressionType::ALL {
        let store = store();
        let Ok(builder) = Producer::builder(&store).set("compression.type", codec.name()) else { continue };
        let producer = builder.set("acks", "1").unwrap().open().unwrap();
        for _ in 0..50 {
            drop(producer.send(record(&[b'x'; 100])).unwrap());
        }
        producer.flush().unwrap();
        let log = store.log("t", 0).unwrap();
        let mut reader = log.reader(OffsetSpec::Earliest).unwrap();
        assert_eq!(reader.next_batch().unwrap().unwrap().view().compression(), codec);
        assert_eq!(values(&log), vec![vec![b'x'; 100]; 50]);
        written.push(codec);
    }
    assert!(written.contains(&CompressionType::None));
    assert_eq!(written.contains(&CompressionType::Snappy), cfg!(feature = "snappy"));

    // Where the producer says nothing, the topic does.
    let store = store();
    if cfg!(feature = "snappy") {
        store.alter_topic("t", &[("compression.type", Some("snappy"))]).unwrap();
        let producer = producer(&store, &[]);
        producer.send(record(&[b'x'; 1000])).unwrap().wait().unwrap();
        let mut reader = store.log("t", 0).unwrap().reader(OffsetSpec::Earliest).unwrap();
        assert_eq!(reader.next_batch().unwrap().unwrap().view().compression(), CompressionType::Snappy);
    }
}

// --- what is refused -------------------------------------------------------------------------------------------------

#[test]
fn what_is_refused_says_the_limit_and_leaves_nothing() {
    let store = store();
    let strict = producer(&store, &[("allow.auto.create.topics", "false"), ("max.request.size", "1000")]);
    let error = strict.send(ProducerRecord::new("nowhere", b"v")).unwrap_err();
    assert_eq!(error.to_string(), "there is no topic nowhere, and allow.auto.create.topics=false");
    let error = strict.send(ProducerRecord::new("t", b"v").with_partition(3)).unwrap_err();
    assert_eq!(error.to_string(), "t has 3 partitions, and none with the number 3 that is there");
    let error = strict.send(record(&[0; 1000])).unwrap_err();
    assert!(error.to_string().contains("max.request.size allows 1000"), "{error}");
    store.alter_topic("t", &[("max.message.bytes", Some("200"))]).unwrap();
    let error = strict.send(record(&[0; 300])).unwrap_err();
    assert!(error.to_string().contains("max.message.bytes allows 200"), "{error}");
    let error = strict.send(record(b"v").with_timestamp(TimestampMs(-5))).unwrap_err();
    assert!(
        matches!(&error, ProducerError::Log(source) if matches!(**source, Error::InvalidTimestamp { .. })),
        "{error}"
    );
    let small = producer(&store, &[("batch.size", "100"), ("buffer.memory", "500")]);
    let error = small.send(record(&[0; 600])).unwrap_err();
    assert!(error.to_string().contains("buffer.memory allows 500"), "{error}");
    strict.close().unwrap();
    assert_eq!(store.log("t", 0).unwrap().offsets().log_end_offset, 0);
    let metrics = strict.metrics();
    assert_eq!(metrics.buffer_available_bytes, metrics.buffer_total_bytes, "what was refused holds no memory");

    let storage = MemoryStorage::new();
    drop(ticking().open_on(storage.clone()).unwrap());
    let attached = Arc::new(ticking().attach_on(storage).unwrap());
    let error = Producer::builder(&attached).open().unwrap_err();
    assert!(matches!(&error, ProducerError::Log(source) if matches!(**source, Error::ReadOnly)), "{error}");
}

#[test]
fn a_topic_is_created_at_its_first_record() {
    let store = store();
    let producer = producer(&store, &[]);
    let metadata = producer.send(ProducerRecord::new("new", b"v")).unwrap().wait().unwrap();
    assert_eq!((metadata.topic(), metadata.partition(), metadata.offset), ("new", 0, Some(Offset(0))));
    let error = producer.send(ProducerRecord::new("no/topic", b"v")).unwrap_err();
    assert!(matches!(&error, ProducerError::Log(source) if matches!(**source, Error::InvalidTopic { .. })), "{error}");
}

/// More topics than are found without a lock, several of them in one slot, and some replaced.
#[test]
fn many_topics_are_kept_apart() {
    let store = store();
    let producer = producer(&store, &[("acks", "1")]);
    for round in 0..2 {
        for n in 0..100 {
            let topic = format!("topic-{n}");
            let delivery = producer.send(ProducerRecord::new(&topic, b"v")).unwrap();
            producer.flush().unwrap();
            let metadata = delivery.wait().unwrap();
            assert_eq!(metadata.topic(), topic);
            assert_eq!(metadata.offset, Some(Offset(if n % 3 == 0 { 0 } else { round })));
        }
        for n in (0..100).step_by(3) {
            store.delete_topic(&format!("topic-{n}")).unwrap();
        }
    }
    assert_eq!(producer.metrics().record_send_total, 200, "those of deleted topics count");
}

#[test]
fn full_memory_is_waited_for_and_then_an_error() {
    let store = store();
    let keys = [("linger.ms", "100000"), ("batch.size", "1000"), ("buffer.memory", "1000")];
    let hasty = producer(&store, &[&keys[..], &[("max.block.ms", "0")]].concat());
    let first = hasty.send(record(b"a")).unwrap();
    let elsewhere = ProducerRecord::new("t", b"b").with_partition(1);
    let error = hasty.send(elsewhere).unwrap_err();
    assert!(error.is_retriable(), "{error}");
    assert_eq!(error.to_string(), "buffer.memory=1000 is used up, 1000 bytes were not free within max.block.ms=0");
    assert!(hasty.send(record(b"c")).is_ok(), "the open batch has its memory");
    hasty.flush().unwrap();
    assert_eq!(first.wait().unwrap().offset, Some(Offset(0)));
    assert_eq!(store.log("t", 1).unwrap().offsets().log_end_offset, 0, "nothing half sent");

    // Who may wait is served: the sender ends the batch that is in the way.
    let patient = producer(&store, &keys);
    for n in 0..20_u32 {
        drop(patient.send(ProducerRecord::new("t", &n.to_be_bytes()).with_partition(1 + n % 2)).unwrap());
    }
    patient.flush().unwrap();
    assert_eq!(store.log("t", 1).unwrap().offsets().log_end_offset, 10);
    assert!(patient.metrics().bufferpool_wait_time_ns_total > 0);
}

// --- answers ---------------------------------------------------------------------------------------------------------

fn called(producer: &Producer, record: ProducerRecord<'_>) -> Receiver<DeliveryResult> {
    let (answer, answered) = channel();
    producer.send_with(record, move |outcome| answer.send(outcome).unwrap()).unwrap();
    answered
}

#[test]
fn callbacks_are_called_once_and_a_flush_waits_for_them() {
    for acks in ["all", "1", "0"] {
        for linger in ["0", "100000"] {
            let store = store();
            let producer = producer(&store, &[("acks", acks), ("linger.ms", linger)]);
            let answers: Vec<_> = (0..10).map(|n| called(&producer, record(&[n]))).collect();
            producer.flush().unwrap();
            for (n, answer) in answers.iter().enumerate() {
                assert_eq!(answer.try_recv().unwrap().unwrap().offset, Some(Offset(n as i64)), "acks={acks}");
                assert!(answer.try_recv().is_err(), "once");
            }
        }
    }
}

#[test]
fn a_callback_may_call_the_producer_and_must_not_wait_for_it() {
    let store = store();
    let producer = producer(&store, &[("linger.ms", "0")]);
    let (answer, answered) = channel();
    let inner = producer.clone();
    producer
        .send_with(record(b"a"), move |_| {
            let delivery = inner.send(record(b"b")).unwrap();
            let waits = code(delivery.wait());
            let flush = format!("{:?}", inner.flush().unwrap_err());
            answer.send((delivery, waits, flush)).unwrap();
        })
        .unwrap();
    let (delivery, waits, flush) = answered.recv().unwrap();
    assert_eq!((waits.as_str(), flush.as_str()), ("InCallback", "InCallback"));
    assert_eq!(delivery.wait().unwrap().offset, Some(Offset(1)));

    // The close of a callback is a close.
    let (answer, answered) = channel();
    let inner = producer.clone();
    producer.send_with(record(b"c"), move |_| answer.send(inner.close().is_ok()).unwrap()).unwrap();
    assert!(answered.recv().unwrap());
    producer.close().unwrap();
    assert!(matches!(producer.send(record(b"d")), Err(ProducerError::Closed)));
    // And the last handle may be dropped by one.
    let last = Producer::builder(&store).open().unwrap();
    let (answer, answered) = channel();
    let inner = last.clone();
    last.send_with(record(b"e"), move |_| {
        drop(inner);
        answer.send(()).unwrap();
    })
    .unwrap();
    drop(last);
    answered.recv().unwrap();
}

#[test]
fn a_callback_that_panics_takes_nothing_with_it() {
    quiet_injected_panics();
    let store = store();
    let producer = producer(&store, &[]);
    producer.send_with(record(b"a"), |_| panic!("{INJECTED}")).unwrap();
    let second = called(&producer, record(b"b"));
    producer.flush().unwrap();
    assert_eq!(second.recv().unwrap().unwrap().offset, Some(Offset(1)));
    assert_eq!(producer.send(record(b"c")).unwrap().wait().unwrap().offset, Some(Offset(2)));
}

#[test]
fn who_waits_too_long_gets_an_answer() {
    let store = store();
    let producer = producer(&store, &[("linger.ms", "0"), ("delivery.timeout.ms", "20")]);
    let resume = stop_the_sender(&producer);
    let delivery = producer.send(record(b"a")).unwrap();
    let answer = called(&producer, record(b"b"));
    assert!(delivery.wait_timeout(std::time::Duration::ZERO).is_none());
    assert_eq!(code(delivery.wait()), "DeliveryTimeout { delivery_timeout_ms: 20 }");
    resume.send(()).unwrap();
    assert_eq!(code(answer.recv().unwrap()), "DeliveryTimeout { delivery_timeout_ms: 20 }", "of the same batch");
    assert_eq!(code(delivery.wait()), "DeliveryTimeout { delivery_timeout_ms: 20 }", "once and for all");
    // What is sent while that batch still stands open is of another one, and is called back all the same.
    let resume = stop_the_sender(&producer);
    let early = producer.send(record(b"c")).unwrap();
    assert!(early.wait().is_err());
    let (late, called_late) = (producer.send(record(b"d")).unwrap(), called(&producer, record(b"e")));
    assert!(!late.is_done());
    resume.send(()).unwrap();
    assert!(called_late.recv().unwrap().is_ok() && late.wait().is_ok());
    producer.close().unwrap();
    assert_eq!(producer.metrics().buffer_available_bytes, producer.metrics().buffer_total_bytes);
}

#[test]
fn a_purge_answers_what_was_not_appended() {
    let store = store();
    let producer = producer(&store, &[("linger.ms", "100000")]);
    let kept = producer.send(record(b"a")).unwrap();
    producer.flush().unwrap();
    let (purged, answer) = (producer.send(record(b"b")).unwrap(), called(&producer, record(b"c")));
    assert_eq!(producer.purge().unwrap(), 2);
    assert_eq!((code(purged.wait()), code(answer.recv().unwrap())), ("Purged".to_owned(), "Purged".to_owned()));
    assert_eq!(kept.wait().unwrap().offset, Some(Offset(0)));
    let next = producer.send(record(b"d")).unwrap();
    producer.close().unwrap();
    assert_eq!(next.wait().unwrap().offset, Some(Offset(1)));
    let metrics = producer.metrics();
    assert_eq!((metrics.record_send_total, metrics.record_error_total), (2, 2));
}

#[test]
fn closing_answers_everything_and_the_last_handle_closes() {
    let store = store();
    let first = producer(&store, &[("linger.ms", "100000")]);
    let deliveries: Vec<_> =
        (0..3).map(|n| first.send(ProducerRecord::new("t", b"v").with_partition(n)).unwrap()).collect();
    let clone = first.clone();
    drop(first);
    assert!(!deliveries[0].is_done());
    drop(clone);
    for delivery in deliveries {
        assert_eq!(delivery.try_wait().unwrap().unwrap().offset, Some(Offset(0)));
    }
    let second = producer(&store, &[]);
    second.close().unwrap();
    second.close().unwrap();
    assert!(matches!(second.send(record(b"v")), Err(ProducerError::Closed)));
    assert!(matches!(second.send(ProducerRecord::new("other", b"v")), Err(ProducerError::Closed)));
    second.flush().unwrap();
    assert_eq!(second.purge().unwrap(), 0);
}

#[cfg(feature = "async")]
#[test]
fn a_delivery_is_a_future_without_a_runtime() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Wake};

    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    fn block_on<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = Arc::new(Unpark(thread::current())).into();
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            thread::park();
        }
    }

    let store = store();
    for acks in ["all", "1"] {
        let producer = producer(&store, &[("acks", acks), ("linger.ms", "1")]);
        let offset = block_on(async {
            let first = producer.send(record(b"a")).unwrap();
            let second = producer.send(record(b"b")).unwrap();
            (first.await.unwrap().offset, second.await.unwrap().offset)
        });
        assert_eq!(offset.0.map(|offset| offset + 1), offset.1);
    }
    // One that is polled and then dropped is no harm.
    let producer = producer(&store, &[("linger.ms", "100000")]);
    let mut dropped = producer.send(record(b"c")).unwrap();
    let waker = Arc::new(Unpark(thread::current())).into();
    assert!(pin!(&mut dropped).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(dropped);
    producer.close().unwrap();
}

// --- what goes wrong -------------------------------------------------------------------------------------------------

#[test]
fn a_topic_that_is_deleted_fails_its_batch_and_a_new_one_is_found() {
    let store = store();
    let producer = producer(&store, &[("linger.ms", "100000")]);
    let lost = producer.send(record(b"a")).unwrap();
    store.delete_topic("t").unwrap();
    producer.flush().unwrap();
    assert_eq!(code(lost.wait()), "Log(Closed)");
    // Created again, by the next record.
    let next = producer.send(record(b"b")).unwrap();
    producer.flush().unwrap();
    assert_eq!(next.wait().unwrap().offset, Some(Offset(0)));
    assert_eq!(store.topic("t").unwrap().partitions, 1);
    // And by the program, with the same producer; at once, as nothing waits.
    store.delete_topic("t").unwrap();
    store.create_topic(&NewTopic::new("t").partitions(2)).unwrap();
    let next = producer.send(ProducerRecord::new("t", b"c").with_partition(1)).unwrap();
    producer.flush().unwrap();
    assert_eq!(next.wait().unwrap().offset, Some(Offset(0)), "it has more partitions now");
}

#[test]
fn a_store_that_is_closed_fails_what_is_open_and_takes_nothing_more() {
    let store = store();
    let producer = producer(&store, &[("linger.ms", "100000")]);
    let lost = producer.send(record(b"a")).unwrap();
    store.close().unwrap();
    assert_eq!(
        code(producer.send(ProducerRecord::new("t", b"b").with_partition(1)).map(|_| unreachable!())),
        "Log(Closed)"
    );
    producer.close().unwrap();
    assert_eq!(code(lost.wait()), "Log(Closed)");
}

#[test]
fn a_flush_that_fails_fails_its_batch_and_others_go_on() {
    let storage = FaultyStorage::new(MemoryStorage::new(), -1, Fault::Io, false);
    let store = Arc::new(ticking().open_on(storage.clone()).unwrap());
    store.create_topic(&NewTopic::new("t").partitions(2)).unwrap();
    let producer = producer(&store, &[("linger.ms", "0")]);
    assert!(producer.send(record(b"a")).unwrap().wait().is_ok());
    storage.fail_flushes(true);
    let failed = producer.send(record(b"b")).unwrap().wait().unwrap_err();
    assert!(matches!(&failed, ProducerError::Log(source) if matches!(**source, Error::LogFailed { .. })), "{failed}");
    storage.fail_flushes(false);
    let refused = producer.send(record(b"c")).unwrap().wait().unwrap_err();
    assert!(
        matches!(&refused, ProducerError::Log(source) if matches!(**source, Error::PreviousIo { .. })),
        "{refused}"
    );
    let other = producer.send(ProducerRecord::new("t", b"d").with_partition(1)).unwrap();
    assert_eq!(other.wait().unwrap().offset, Some(Offset(0)));
    producer.close().unwrap();
    let metrics = producer.metrics();
    assert_eq!((metrics.record_send_total, metrics.record_error_total), (2, 2));
    assert_eq!(metrics.buffer_available_bytes, metrics.buffer_total_bytes);
}

#[test]
fn a_full_disk_is_an_error_that_passes() {
    for acks in ["all", "1"] {
        let storage = FaultyStorage::new(MemoryStorage::with_capacity(1 << 20), -1, Fault::Io, false);
        let store = Arc::new(ticking().open_on(storage).unwrap());
        store.create_topic(&NewTopic::new("t").config("segment.bytes", "65536")).unwrap();
        let producer = producer(&store, &[("acks", acks), ("linger.ms", "0")]);
        let mut acknowledged = 0;
        let error = loop {
            match producer.send(record(&[7; 5000])).unwrap().wait() {
                Ok(metadata) => {
                    assert_eq!(metadata.offset, Some(Offset(acknowledged)));
                    acknowledged += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(error.is_retriable() && acknowledged > 50, "{error} after {acknowledged}");
        let log = store.log("t", 0).unwrap();
        log.delete_records_before(Offset(acknowledged / 2)).unwrap();
        store.tick(TimestampMs(2_000_000_000_000)).unwrap();
        let again = producer.send(record(&[7; 5000])).unwrap().wait().unwrap();
        assert_eq!(again.offset, Some(Offset(acknowledged)), "in its place, and nothing doubled");
        producer.close().unwrap();
    }
}

#[test]
fn a_truncation_before_the_flush_is_no_acknowledgement() {
    let store = store();
    let producer = producer(&store, &[("linger.ms", "100000"), ("batch.size", "250")]);
    let resume = stop_the_sender(&producer);
    let cut = producer.send(record(&[1; 150])).unwrap();
    let kept = producer.send(record(&[2; 150])).unwrap();
    let log = store.log("t", 0).unwrap();
    assert_eq!(log.offsets().log_end_offset, 1, "appended by who filled the batch");
    log.truncate_to(Offset(0)).unwrap();
    resume.send(()).unwrap();
    producer.flush().unwrap();
    // The second stands where the first did, and both were one flush.
    assert!(matches!(cut.wait(), Err(ProducerError::Truncated)), "{cut:?}");
    assert_eq!(kept.wait().unwrap().offset, Some(Offset(0)));
    producer.close().unwrap();
}

// --- threads ---------------------------------------------------------------------------------------------------------

/// What one thread does next: of each hundred steps, so many are a send, a flush, a wait.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed >> 8
}

/// Sent by a thread as its `n`-th record to a partition, and what it came to.
type Answered = (u64, u64, u32, DeliveryResult);

/// Sends from several threads in random steps, with flushes, purges and closes between: each record is answered once,
/// what was acknowledged is there at its offset, and of each thread in the order in which it was sent.
fn random_threads(seed: u64) {
    let store = store();
    let mut choice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut pick = |words: &[&'static str]| words[random(&mut choice) as usize % words.len()];
    let keys = [
        ("acks", pick(&["all", "1"])),
        ("linger.ms", pick(&["0", "1", "100000"])),
        ("batch.size", pick(&["0", "120", "2000"])),
        ("buffer.memory", pick(&["2500", "100000"])),
        ("compression.type", pick(if cfg!(feature = "snappy") { &["none", "snappy"] } else { &["none"] })),
    ];
    let (ends, purges) = (pick(&["close", "drop"]), pick(&["purges", "none"]) == "purges");
    let producer = producer(&store, &keys);
    let called = Arc::new(Mutex::new(Vec::<Answered>::new()));
    let (mut handles, mut sent) = (Vec::<(u64, u64, u32, Delivery)>::new(), 0);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..3_u64)
            .map(|thread| {
                let (producer, called) = (producer.clone(), Arc::clone(&called));
                scope.spawn(move || {
                    let mut seed = (seed * 3 + thread).wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
                    let (mut handles, mut sent) = (Vec::new(), 0);
                    for n in 0..60_u64 {
                        let value = (thread << 32 | n).to_be_bytes();
                        let partition = (random(&mut seed) % 3) as u32;
                        let record = ProducerRecord::new("t", &value).with_partition(partition);
                        match random(&mut seed) % 20 {
                            0 => producer.flush().unwrap(),
                            1 if purges => drop(producer.purge().unwrap()),
                            2 if thread == 0 && n > 40 => producer.close().unwrap(),
                            3..=9 => {
                                let called = Arc::clone(&called);
                                let push = move |outcome| called.lock().unwrap().push((thread, n, partition, outcome));
                                sent += u64::from(producer.send_with(record, push).is_ok());
                            }
                            _ => match producer.send(record) {
                                Ok(delivery) => {
                                    sent += 1;
                                    handles.push((thread, n, partition, delivery));
                                }
                                Err(error) => assert!(matches!(error, ProducerError::Closed), "{error}"),
                            },
                        }
                    }
                    (handles, sent)
                })
            })
            .collect();
        for thread in threads {
            let (more, count) = thread.join().unwrap();
            handles.extend(more);
            sent += count;
        }
    });
    if ends == "close" {
        producer.close().unwrap();
    }
    drop(producer);
    let mut answers = std::mem::take(&mut *called.lock().unwrap());
    answers.extend(handles.iter().map(|(thread, n, partition, delivery)| {
        (*thread, *n, *partition, delivery.try_wait().expect("answered by the close"))
    }));
    assert_eq!(answers.len() as u64, sent, "each is answered once");
    answers.sort_by_key(|answer| (answer.0, answer.1));
    answers.dedup_by_key(|answer| (answer.0, answer.1));
    assert_eq!(answers.len() as u64, sent, "and none twice");
    for partition in 0..3 {
        let log = store.log("t", partition).unwrap();
        let stored = values(&log);
        let mut acknowledged = 0;
        let mut last = [-1; 3];
        for (thread, n, of, outcome) in &answers {
            let Ok(metadata) = outcome else {
                assert!(matches!(outcome, Err(ProducerError::Purged)), "{outcome:?}");
                continue;
            };
            if *of == partition {
                let offset = metadata.offset.unwrap().0;
                assert_eq!(stored[offset as usize], (thread << 32 | n).to_be_bytes(), "at its offset");
                assert!(offset > last[*thread as usize], "in the order of its thread");
                last[*thread as usize] = offset;
                acknowledged += 1;
            }
        }
        assert_eq!(stored.len(), acknowledged, "nothing else is there");
        assert_eq!(log.offsets().log_end_offset, log.offsets().high_watermark);
    }
}

#[test]
fn every_record_of_every_thread_is_answered_once() {
    let count = std::env::var("EDGELOG_PRODUCER_SCHEDULES").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let first = std::env::var("EDGELOG_PRODUCER_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    for seed in first..first + count {
        let run = std::panic::catch_unwind(|| random_threads(seed));
        assert!(run.is_ok(), "with the seed {seed}");
    }
}
