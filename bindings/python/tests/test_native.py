"""The package's own face: stores, producers, consumers."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

import edgelog


class Stores(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "store")
        self.addCleanup(self.folder.cleanup)

    def test_a_topic_is_created_listed_and_deleted(self):
        store = edgelog.Store(self.path)
        self.assertTrue(store.create_topic("cpu", 3, {"compression.type": "snappy"}))
        self.assertFalse(store.create_topic("cpu", 3, exist_ok=True))
        self.assertEqual(store.topics(), {"cpu": 3})
        self.assertEqual(store.offsets("cpu", 2), (0, 0))
        with self.assertRaises(edgelog.Error) as raised:
            store.create_topic("cpu")
        self.assertEqual(raised.exception.code, 36)
        with self.assertRaises(edgelog.Error) as raised:
            store.offsets("cpu", 3)
        self.assertEqual(raised.exception.code, 3)
        store.delete_topic("cpu")
        self.assertEqual(store.topics(), {})
        store.close()
        with self.assertRaises(edgelog.Error):
            store.topics()

    def test_stores_of_one_directory_are_one(self):
        first, second = edgelog.Store(self.path), edgelog.Store(os.path.join(self.path, "."))
        first.create_topic("t")
        self.assertEqual(second.topics(), {"t": 1})

    def test_an_unknown_key_of_the_store_is_refused(self):
        with self.assertRaises(edgelog.Error):
            edgelog.Store(self.path, config={"no.such.key": "1"})
        with self.assertRaises(edgelog.Error):
            edgelog.Store(os.path.join(self.folder.name, "nowhere"), "attach")

    def test_what_was_sent_is_read_with_all_its_parts(self):
        said = []
        with edgelog.Producer(self.path, {"linger.ms": 1}) as producer:
            producer.send("t", b"v", key=b"k", timestamp=1234, headers=[("a", b"1"), ("b", None)],
                          on_delivery=lambda error, message: said.append((error, message.offset())))
            producer.send("t", None, key="k", partition=0)
        self.assertEqual(said, [(None, 0)])
        with edgelog.Consumer(self.path, {"group.id": "g", "auto.offset.reset": "earliest"}) as consumer:
            consumer.subscribe("t")
            first, second = consumer.consume(2, 30)
            self.assertEqual((first.key(), first.value(), first.timestamp()), (b"k", b"v", (1, 1234)))
            self.assertEqual(first.headers(), [("a", b"1"), ("b", None)])
            self.assertEqual((second.value(), second.offset(), second.headers()), (None, 1, None))
            self.assertIsNone(consumer.committed("t"))
            consumer.commit()
            self.assertEqual((consumer.committed("t"), consumer.position("t")), (2, 2))
        with edgelog.Consumer(self.path, {"group.id": "g"}) as consumer:
            consumer.assign(("t", 0))
            self.assertIsNone(consumer.poll(0))
            consumer.seek("t", 0, 1)
            self.assertEqual(consumer.poll(30).offset(), 1)

    def test_iterating_gives_messages(self):
        with edgelog.Producer(self.path) as producer:
            for number in range(5):
                producer.send("t", str(number))
        with edgelog.Consumer(self.path) as consumer:
            consumer.assign(("t", 0, -2))
            self.assertEqual([next(consumer).value() for _ in range(5)], [b"0", b"1", b"2", b"3", b"4"])

    def test_another_thread_runs_while_one_waits(self):
        edgelog.Store(self.path).create_topic("t")
        got = []
        consumer = edgelog.Consumer(self.path, {"auto.offset.reset": "earliest"})
        consumer.assign(("t", 0))
        waiting = threading.Thread(target=lambda: got.append(consumer.poll(60).value()))
        waiting.start()
        with edgelog.Producer(self.path) as producer:
            producer.send("t", b"here")
        waiting.join()
        self.assertEqual(got, [b"here"])
        consumer.close()


class Processes(unittest.TestCase):
    """What a process of its own has to survive."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def start(self, program):
        child = subprocess.Popen([sys.executable, "-c", program, self.folder.name], stdout=subprocess.PIPE)
        self.addCleanup(child.stdout.close)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def test_a_killed_producer_loses_nothing_that_its_callback_acknowledged(self):
        program = """
import os, sys
from edgelog.confluent_kafka import Producer
producer = Producer({"bootstrap.servers": sys.argv[1], "linger.ms": 1})
def acknowledged(error, message):
    assert error is None, error
    os.write(1, b"%d %s\\n" % (message.offset(), message.value()))
number = 0
while True:
    producer.produce("t", b"record %d" % number, on_delivery=acknowledged)
    number += 1
    producer.poll(0)
    if len(producer) > 1000:
        producer.flush()
"""
        child = self.start(program)
        lines = [child.stdout.readline() for _ in range(3000)]
        child.send_signal(signal.SIGKILL)
        child.wait()
        lines += child.stdout.read().splitlines(keepends=True)
        acknowledged = {}
        for line in lines:
            if line.endswith(b"\n"):
                offset, value = line.strip().split(b" ", 1)
                acknowledged[int(offset)] = value
        self.assertGreaterEqual(len(acknowledged), 3000)
        there = {}
        with edgelog.Consumer(self.folder.name) as consumer:
            consumer.assign(("t", 0, -2))
            while max(acknowledged) not in there:
                message = consumer.poll(60)
                self.assertIsNotNone(message)
                there[message.offset()] = message.value()
        lost = {offset: value for offset, value in acknowledged.items() if there.get(offset) != value}
        self.assertEqual(lost, {})

    def interrupted(self, call):
        program = f"""
import os, sys
from edgelog.confluent_kafka import Consumer, Producer
servers = sys.argv[1]
consumer = Consumer({{"bootstrap.servers": servers, "group.id": "g"}})
consumer.subscribe(["t"])
away = Producer({{"bootstrap.servers": "localhost:1"}})
away.produce("t", b"v")
producer = Producer({{"bootstrap.servers": servers}})
try:
    os.write(1, b"ready\\n")
    while True:  # a poll may return an error first: there is no topic
        {call}
except KeyboardInterrupt:
    os.write(1, b"interrupted\\n")
os._exit(0)
"""
        child = self.start(program)
        self.assertEqual(child.stdout.readline(), b"ready\n")
        # A signal before the call begins is an interrupt, too.
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.stdout.readline(), b"interrupted\n")
        child.wait()

    def test_control_c_ends_every_wait(self):
        for call in ("consumer.poll()", "consumer.consume(5)", "away.flush()", "producer.poll()"):
            with self.subTest(call):
                self.interrupted(call)

    def test_a_reader_follows_a_writer_in_another_process(self):
        program = """
import sys
from edgelog.confluent_kafka import Producer
producer = Producer({"bootstrap.servers": sys.argv[1]})
sys.stdout.write("open\\n"); sys.stdout.flush()
for number in range(100):
    producer.produce("t", str(number))
producer.flush()
sys.stdin.read()
"""
        edgelog.Store(self.folder.name).create_topic("t")
        child = subprocess.Popen([sys.executable, "-c", program, self.folder.name], stdout=subprocess.PIPE,
                                 stdin=subprocess.PIPE)
        try:
            self.assertEqual(child.stdout.readline(), b"open\n")
            with edgelog.Consumer(self.folder.name, {"group.id": "g"}) as consumer:
                consumer.assign(("t", 0, -2))
                values = [message.value() for message in consumer.consume(100, 60)]
                self.assertEqual(values, [str(number).encode() for number in range(100)])
                consumer.commit()
                self.assertEqual(consumer.committed("t"), 100)
        finally:
            child.stdin.close()
            child.wait()
            child.stdout.close()


if __name__ == "__main__":
    unittest.main()
