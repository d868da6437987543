"""The face of confluent_kafka, over a store."""

import os
import tempfile
import unittest

from edgelog.confluent_kafka import (
    Consumer,
    DeserializingConsumer,
    KafkaError,
    KafkaException,
    Producer,
    SerializingProducer,
    TopicPartition,
)
from edgelog.confluent_kafka.admin import AdminClient, NewTopic
from edgelog.confluent_kafka.serialization import IntegerDeserializer, IntegerSerializer, StringSerializer

EARLIEST = {"auto.offset.reset": "earliest"}


class Clients(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.servers = {"bootstrap.servers": "edgelog://" + os.path.join(self.folder.name, "store")}
        self.addCleanup(self.folder.cleanup)

    def create(self, topic, partitions=1):
        created = AdminClient(self.servers).create_topics([NewTopic(topic, partitions)])
        self.assertIsNone(created[topic].result(60))

    def producer(self, **keys):
        producer = Producer({**self.servers, **keys})
        self.addCleanup(producer.close)
        return producer

    def consumer(self, group="g", **keys):
        consumer = Consumer({**self.servers, "group.id": group, **EARLIEST, **keys})
        self.addCleanup(consumer.close)
        return consumer

    def fill(self, count, topic="t", partition=-1):
        producer = self.producer()
        for number in range(count):
            producer.produce(topic, str(number), partition=partition)
        self.assertEqual(producer.flush(), 0)

    def test_callbacks_run_in_the_caller_and_count_until_then(self):
        producer = self.producer()
        said = []
        producer.produce("t", "v", "k", headers={"a": "b"}, on_delivery=lambda *said_now: said.append(said_now))
        self.assertEqual((len(producer), said), (1, []))
        self.assertEqual(producer.poll(60), 1)
        error, message = said[0]
        self.assertIsNone(error)
        self.assertEqual((message.topic(), message.partition(), message.offset()), ("t", 0, 0))
        self.assertEqual((message.key(), message.value(), message.headers()), (b"k", b"v", None))
        self.assertGreaterEqual(message.latency(), 0)
        self.assertEqual(len(producer), 0)

    def test_a_full_queue_is_a_buffer_error(self):
        producer = self.producer(**{"queue.buffering.max.messages": 3})
        for _ in range(3):
            producer.produce("t", b"v")
        with self.assertRaisesRegex(BufferError, "^Local: Queue full$"):
            producer.produce("t", b"v")
        self.assertEqual(producer.flush(), 0)
        producer.produce("t", b"v")

    def test_a_callback_that_raises_stops_its_flush_and_no_other_report(self):
        producer = self.producer()
        said = []

        def once(error, message):
            said.append(message.value())
            if len(said) == 1:
                raise ValueError("boom")

        for number in range(3):
            producer.produce("t", str(number), on_delivery=once)
        with self.assertRaisesRegex(ValueError, "^boom$"):
            producer.flush()
        self.assertEqual(producer.flush(), 0)
        self.assertEqual(said, [b"0", b"1", b"2"])

    def test_keys_go_where_librdkafka_sends_them(self):
        from edgelog.confluent_kafka import consistent, fnv1a, murmur2
        self.create("t", 7)
        for name, function in (("consistent_random", consistent), ("consistent", consistent), ("murmur2", murmur2),
                               ("murmur2_random", murmur2), ("fnv1a", fnv1a), ("fnv1a_random", fnv1a)):
            producer = self.producer(partitioner=name)
            said = []
            for number in range(50):
                producer.produce("t", b"v", str(number), on_delivery=lambda _, message: said.append(message))
            producer.close()
            self.assertEqual([message.partition() for message in said],
                             [function(message.key(), 7) for message in said], name)

    def test_an_unknown_partition_and_a_large_message_are_refused_at_once(self):
        self.create("t")
        producer = self.producer()
        with self.assertRaises(KafkaException) as raised:
            producer.produce("t", b"v", partition=1)
        self.assertEqual(raised.exception.args[0].str(), "Unable to produce message: Local: Unknown partition")
        with self.assertRaises(KafkaException) as raised:
            producer.produce("t", b"v" * 2_000_000)
        self.assertEqual(raised.exception.args[0], KafkaError.MSG_SIZE_TOO_LARGE)

    def test_a_batch_keeps_headers_and_times(self):
        producer = self.producer()
        self.assertEqual(producer.produce_batch("t", [{"value": b"v", "headers": {"a": b"1"}, "timestamp": 55}]), 1)
        producer.flush()
        consumer = self.consumer()
        consumer.subscribe(["t"])
        message = consumer.poll(60)
        self.assertEqual((message.headers(), message.timestamp()), ([("a", b"1")], (1, 55)))

    def test_what_was_consumed_is_committed_and_the_rest_comes_again(self):
        self.fill(10)
        consumer = self.consumer(**{"enable.auto.commit": False})
        consumer.subscribe(["t"])
        for _ in range(4):
            self.assertIsNotNone(consumer.poll(60))
        done = consumer.commit(asynchronous=False)
        self.assertEqual([(partition.partition, partition.offset, partition.error) for partition in done],
                         [(0, 4, None)])
        with self.assertRaises(KafkaException) as raised:
            consumer.commit(asynchronous=False)
        self.assertEqual(str(raised.exception), 'KafkaError{code=_NO_OFFSET,val=-168,str="Commit failed: Local: No '
                         'offset stored"}')
        consumer.close()
        again = self.consumer()
        again.subscribe(["t"])
        self.assertEqual(again.poll(60).offset(), 4)

    def test_close_commits_what_was_consumed_and_calls_on_commit_and_on_revoke(self):
        self.fill(3)
        said = []
        consumer = self.consumer(on_commit=lambda error, partitions: said.append((error, partitions[0].offset)))
        consumer.subscribe(["t"], on_assign=lambda _, partitions: said.append(("assign", len(partitions))),
                           on_revoke=lambda _, partitions: said.append(("revoke", len(partitions))))
        self.assertEqual(len(consumer.consume(3, 60)), 3)
        consumer.close()
        self.assertEqual(said, [("assign", 1), ("revoke", 1), (None, 3)])
        with self.assertRaisesRegex(RuntimeError, "^Consumer closed$"):
            consumer.poll()

    def test_stored_offsets_are_what_a_commit_commits(self):
        self.fill(5)
        consumer = self.consumer(**{"enable.auto.offset.store": False, "enable.auto.commit": False})
        consumer.subscribe(["t"])
        messages = consumer.consume(5, 60)
        consumer.store_offsets(message=messages[1])
        consumer.commit(asynchronous=False)
        self.assertEqual(consumer.committed([TopicPartition("t", 0)])[0].offset, 2)
        consumer.commit(offsets=[TopicPartition("t", 0, 4, "why")], asynchronous=False)
        committed = consumer.committed([TopicPartition("t", 0)])[0]
        self.assertEqual((committed.offset, committed.metadata), (4, "why"))

    def test_a_rebalance_may_commit_and_seek_inside_its_callbacks(self):
        self.create("t", 2)
        for partition in (0, 1):
            self.fill(5, partition=partition)

        def begin_later(consumer, partitions):
            for partition in partitions:
                partition.offset = 3
            consumer.assign(partitions)

        committed = []

        def commit(consumer, partitions):
            # With the last revocation, that of close, there is nothing more to commit.
            if not committed:
                committed.extend(consumer.commit(asynchronous=False))

        first = self.consumer(**{"enable.auto.commit": False})
        first.subscribe(["t"], on_assign=begin_later, on_revoke=commit)
        offsets = sorted((message.partition(), message.offset()) for message in first.consume(4, 60))
        self.assertEqual(offsets, [(0, 3), (0, 4), (1, 3), (1, 4)])
        second = self.consumer(**{"enable.auto.commit": False})
        second.subscribe(["t"])
        while not second.assignment():
            self.assertIsNone(first.poll(0.05))
            self.assertIsNone(second.poll(0.05))
        self.assertEqual(len(first.assignment()), 1)
        self.assertEqual(sorted(partition.offset for partition in committed), [5, 5])

    def test_ends_are_said_once_where_they_are_asked_for(self):
        self.fill(2)
        consumer = self.consumer(**{"enable.partition.eof": True})
        consumer.assign([TopicPartition("t", 0)])
        messages = [consumer.poll(60) for _ in range(3)]
        self.assertEqual([message.error() for message in messages[:2]], [None, None])
        self.assertEqual(messages[2].error(), KafkaError._PARTITION_EOF)
        self.assertEqual((messages[2].topic(), messages[2].partition(), messages[2].offset()), ("t", 0, 2))
        self.assertIsNone(consumer.poll(0.1))

    def test_seek_pause_and_resume_pass_over_nothing(self):
        self.fill(10)
        consumer = self.consumer()
        partition = TopicPartition("t", 0)
        consumer.assign([partition])
        self.assertEqual(consumer.poll(60).offset(), 0)
        consumer.pause([partition])
        self.assertIsNone(consumer.poll(0.1))
        consumer.resume([partition])
        self.assertEqual(consumer.poll(60).offset(), 1)
        consumer.seek(TopicPartition("t", 0, 7))
        self.assertEqual(consumer.poll(60).offset(), 7)
        self.assertEqual(consumer.position([partition])[0].offset, 8)
        self.assertEqual(consumer.get_watermark_offsets(partition), (0, 10))
        self.assertEqual(consumer.offsets_for_times([TopicPartition("t", 0, 1)])[0].offset, 0)
        self.assertEqual(consumer.offsets_for_times([TopicPartition("t", 0, 2**60)])[0].offset, -1)

    def test_a_pattern_and_a_missing_topic(self):
        self.fill(1, "cpu.0")
        consumer = self.consumer()
        consumer.subscribe(["^cpu", "missing"])
        messages = [consumer.poll(60), consumer.poll(60)]
        self.assertEqual(messages[0].error(), KafkaError.UNKNOWN_TOPIC_OR_PART)
        self.assertEqual(messages[0].error().str(),
                         "Subscribed topic not available: missing: Broker: Unknown topic or partition")
        self.assertEqual(messages[1].topic(), "cpu.0")

    def test_topics_are_listed_with_their_partitions(self):
        self.create("t", 3)
        metadata = self.consumer().list_topics()
        self.assertEqual(sorted(metadata.topics["t"].partitions), [0, 1, 2])
        self.assertIsNotNone(self.producer().list_topics("none").topics["none"].error)
        created = AdminClient(self.servers).create_topics([NewTopic("t")])
        self.assertEqual(created["t"].exception(60).args[0], KafkaError.TOPIC_ALREADY_EXISTS)
        self.assertIsNone(AdminClient(self.servers).delete_topics(["t"])["t"].result(60))
        with self.assertRaisesRegex(NotImplementedError, "create_acls"):
            AdminClient(self.servers).create_acls([])

    def test_serializers_write_and_read(self):
        producer = SerializingProducer({**self.servers, "key.serializer": StringSerializer(),
                                        "value.serializer": IntegerSerializer()})
        producer.produce("t", key="k", value=5)
        producer.close()
        consumer = DeserializingConsumer({**self.servers, **EARLIEST, "group.id": "g",
                                          "value.deserializer": IntegerDeserializer()})
        self.addCleanup(consumer.close)
        consumer.subscribe(["t"])
        message = consumer.poll(60)
        self.assertEqual((message.key(), message.value()), (b"k", 5))

    def test_transactions_are_refused_by_name(self):
        with self.assertRaisesRegex(KafkaException, "there are no transactions"):
            Producer({**self.servers, "transactional.id": "x"})


if __name__ == "__main__":
    unittest.main()
