#!/usr/bin/env python3
"""What the bridge delivered, read by the consumers that people have: librdkafka's by way of confluent-kafka, and
Kafka's own console consumer, both with isolation.level=read_committed. Each record is compared by key, value, headers
and timestamp with what was appended.

    read_back.py run STORE --expect FILE

STORE and FILE are what examples/mixed_workload made. Needs confluent-kafka; else what transfer.py needs.
"""

import sys

import confluent_kafka
import harness
import proxy as px
from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_CREATE_TIME, Consumer, KafkaError, TopicPartition
from harness import RUN_SECONDS_MAX, SMALL, Broken, Broker, Run, command, everything_once, same_records

# No record takes longer to come; the end of a partition is reported, not waited for.
POLL_SECONDS_MAX = 30
TO = "{topic}"


def text(field):
    return None if field is None else field.decode()


def consumed(broker, partitions, isolation):
    """(topic, partition) -> its records, from the first to the last that `isolation` lets a consumer see."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            # Assigned by hand and never committed: a name that the client asks for, and nothing else.
            "group.id": "read-back",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
        }
    )
    found, open_ones = {key: [] for key in partitions}, set(partitions)
    consumer.assign([TopicPartition(*key, OFFSET_BEGINNING) for key in partitions])
    try:
        while open_ones:
            message = consumer.poll(POLL_SECONDS_MAX)
            if message is None:
                raise Broken(f"nothing came for {POLL_SECONDS_MAX} s; not at their ends: {sorted(open_ones)}")
            key = (message.topic(), message.partition())
            if (error := message.error()) is None:
                kind, timestamp = message.timestamp()
                if kind != TIMESTAMP_CREATE_TIME:
                    raise Broken(f"{key}: offset {message.offset()} has a timestamp of kind {kind}")
                found[key].append(
                    {
                        "topic": key[0],
                        "partition": key[1],
                        "offset": message.offset(),
                        "tstype": "create",
                        "ts": timestamp,
                        "headers": [part for name, value in message.headers() or () for part in (name, text(value))],
                        "key": text(message.key()),
                        "payload": text(message.value()),
                    }
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                open_ones.discard(key)
            else:
                raise Broken(f"{key}: {error}")
    finally:
        consumer.close()
    return found


def sent(world):
    """All of the store. The bridge dies three times before its commit arrives, so that aborted copies lie between."""
    store = world.copy("read-back")
    world.create_targets("")
    proxy = world.broker.proxy
    for deaths in (1, 2, 3):
        proxy.arm([(px.END_TXN, px.LET_THROUGH), (px.END_TXN, px.SWALLOW_REQUEST)])
        run = Run(command(store, world.broker, "read-back", TO, **SMALL))
        if not proxy.wait_injected(2 * deaths, RUN_SECONDS_MAX):
            raise Broken("no second commit was asked for")
        run.kill()
    Run(command(store, world.broker, "read-back", TO, **SMALL)).expect(0)
    return f"{world.total} records, {deaths} kills"


def librdkafka(world):
    found = consumed(world.broker, list(world.expected), "read_committed")
    for key, want in world.expected.items():
        same_records(want, found[key], "{}-{}".format(*key))
    return f"{sum(map(len, found.values()))} records compared, librdkafka {confluent_kafka.libversion()[0]}"


def aborted_copies(world):
    """There is something that read_committed keeps out: without it these checks would show less than they say."""
    found = consumed(world.broker, list(world.expected), "read_uncommitted")
    more = sum(map(len, found.values())) - world.total
    if more <= 0:
        raise Broken("read_uncommitted shows no aborted copy")
    return f"{more} aborted copies"


def console_consumer(world):
    return everything_once(world.broker, world.expected, "")


# In this order: each reads what the first has sent.
TESTS = {
    "sent": sent,
    "librdkafka": librdkafka,
    "aborted_copies": aborted_copies,
    "console_consumer": console_consumer,
}

if __name__ == "__main__":
    sys.exit(harness.main(__doc__, TESTS, Broker))
