#!/usr/bin/env python3
"""A producer and a consumer as people write them; prints what they see.

    loop.py MODULE SERVERS

It runs unchanged for confluent_kafka with a cluster and for edgelog.confluent_kafka with a directory. The topic "loop"
has four partitions.
"""

import importlib
import sys

kafka = importlib.import_module(sys.argv[1])
SERVERS = {"bootstrap.servers": sys.argv[2]}
COUNT = 40
reports = []


def delivered(error, message):
    assert error is None, error
    reports.append((message.key(), message.partition(), message.offset()))


def produce():
    producer = kafka.Producer({**SERVERS, "queue.buffering.max.messages": 10, "linger.ms": 10})
    for number in range(COUNT):
        while True:
            try:
                producer.produce("loop", f"value {number}", f"key {number % 7}", on_delivery=delivered,
                                 headers={"number": str(number)})
                break
            except BufferError:
                producer.poll(1)
        producer.poll(0)
    assert producer.flush(60) == 0
    print("reports", sorted(reports))
    try:
        producer.produce("loop", b"", partition=99)
    except kafka.KafkaException as error:
        print("partition 99", error.args[0])
    print("partitions", sorted(producer.list_topics("loop", timeout=30).topics["loop"].partitions))


def consume(count, **keys):
    consumer = kafka.Consumer({**SERVERS, "group.id": "readers", "auto.offset.reset": "earliest",
                               "enable.auto.commit": False, "enable.partition.eof": True, **keys})
    changes = []
    consumer.subscribe(["loop"], on_assign=lambda _, partitions: changes.append(("assigned", len(partitions))),
                       on_revoke=lambda _, partitions: changes.append(("revoked", len(partitions))))
    messages, ends = [], set()
    while len(messages) < count or len(ends) < 4:
        for message in consumer.consume(5, 1):
            if message.error():
                assert message.error().code() == kafka.KafkaError._PARTITION_EOF, message.error()
                ends.add((message.partition(), message.offset()))
            else:
                messages.append(message)
    seen = [(message.partition(), message.offset(), message.key(), message.value(), message.headers(),
             message.timestamp()[0]) for message in messages]
    print("seen", sorted(seen))
    print("ends", sorted(ends))
    partitions = [kafka.TopicPartition("loop", number) for number in range(4)]
    print("positions", [partition.offset for partition in consumer.position(partitions)])
    print("watermarks", [consumer.get_watermark_offsets(partition, timeout=30) for partition in partitions])
    if messages:
        print("committed now", [(at.partition, at.offset) for at in consumer.commit(asynchronous=False)])
    print("committed", [at.offset for at in consumer.committed(partitions, timeout=30)])
    consumer.close()
    print("changes", changes)


produce()
consume(COUNT)
consume(0)
