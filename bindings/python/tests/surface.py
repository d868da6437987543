#!/usr/bin/env python3
"""Calls that need no broker: prints what each returns or raises. The module is named by the first argument.

The test `test_exact.py` runs this for the real confluent_kafka and for ours, and compares.
"""

import importlib
import sys

kafka = importlib.import_module(sys.argv[1])
Consumer, KafkaError, KafkaException = kafka.Consumer, kafka.KafkaError, kafka.KafkaException
Message, Producer, TopicPartition = kafka.Message, kafka.Producer, kafka.TopicPartition


def said(error):
    if isinstance(error, KafkaException):
        error = error.args[0]
        flags = (error.fatal(), error.retriable(), error.txn_requires_abort())
        return f"KafkaException {error.code()} {error.name()} {error.str()!r} {flags}"
    return f"{type(error).__name__} {error}"


def show(label, call):
    try:
        print(label, "->", repr(call()))
    except Exception as error:
        print(label, "!!", said(error))


def constants():
    for name in sorted(dir(KafkaError)):
        code = getattr(KafkaError, name)
        if isinstance(code, int):
            print(name, code, KafkaError(code).name(), KafkaError(code).str())
    for name in sorted(dir(kafka)):
        if name.startswith(("OFFSET_", "TIMESTAMP_")):
            print(name, getattr(kafka, name))
    show("version", kafka.version)
    show("libversion", kafka.libversion)


def values():
    for error in (KafkaError(-191), KafkaError(3, "x"), KafkaError(3, "x", fatal=True), KafkaError(12345)):
        show("error", lambda: (error, str(error), hash(error), bool(error), error == error.code(), error < 99999))
    show("no code", lambda: KafkaError("x"))
    for offset in (-2, -1, -1000, -1001, 7):
        show("partition", lambda: TopicPartition("t", 0, offset))
    show("partition", lambda: TopicPartition("t", 1, 2, "m", 3))
    show("partition", lambda: TopicPartition("t") == 1)
    show("partition", lambda: TopicPartition("t") < 1)
    show("partition", lambda: TopicPartition(1))
    show("partition", lambda: TopicPartition("t", "x"))
    show("partition", lambda: setattr(TopicPartition("t"), "topic", "x"))
    show("partitions", lambda: sorted([TopicPartition("b", 1), TopicPartition("a", 2), TopicPartition("a", 1)]))
    message = Message("t", 1, 2, "k", "v", [("a", b"b")], None, (1, 4), 5.5, 3)
    show("message", lambda: message.__reduce__()[1])
    show("message", lambda: (len(Message(value=b"abc")), Message().timestamp(), Message().offset(), Message.__hash__))
    show("message", lambda: message == Message("t", 1, 2, "k", "v", [("a", b"b")], None, (1, 4), 5.5, 3))
    show("message", lambda: len(Message(value=1)))
    show("message", lambda: Message(timestamp=3))
    for name in ("murmur2", "consistent", "fnv1a"):
        function = getattr(kafka, name)
        keys = (b"", b"a", b"hejsan", b"23456", bytes(range(256)))
        show(name, lambda: [function(key, count) for key in keys for count in (1, 7, 17, 10_000)])
        show(name, lambda: function("abc", 3))
        show(name, lambda: function(b"abc", 0))


PRODUCERS = [
    {"foo": 1}, {"linger.ms": "x"}, {"linger.ms": -5}, {"acks": "foo"}, {"acks": 5000}, {"compression.type": "x"},
    {"group.id": "x"}, {"enable.idempotence": "maybe"}, {"error_cb": 1}, {"on_delivery": 1}, {"stats_cb": 1},
    {"throttle_cb": 1}, {"partitioner": 1}, {"partitioner": "x"}, {"dr_cb": None}, {"default.topic.config": 3},
    {"default.topic.config": {"foo": 1}}, {"default.topic.config": {"acks": 1}}, {"linger.ms": 1.5},
    {"linger.ms": True}, {"linger.ms": None}, {"enable.idempotence": True}, {"enable.idempotence": "T"},
    {"batch.size": 0}, {"queue.buffering.max.messages": -1}, {"linger.ms": ""}, {"linger.ms": "0x10"},
    {"enable.idempotence": True, "acks": 1}, {"enable.idempotence": True, "max.in.flight": 10},
    {"transactional.id": "x", "enable.idempotence": False}, {"message.timeout.ms": 1, "linger.ms": 5000},
    {"opaque": 1}, {"dr_msg_cb": 1}, {"on_commit": 1}, {"auto.offset.reset": "earliest"}, {"socket.timeout.ms": 1},
    {"compression.codec": "snappy"}, {"compression.level": 13}, {"statistics.interval.ms": -1}, {"log_level": 9},
]
CONSUMERS = [
    {}, {"foo": 1}, {"auto.offset.reset": "nope"}, {"auto.offset.reset": "smallest"}, {"on_commit": 1},
    {"group.protocol": "consumer", "session.timeout.ms": 1},
    {"group.protocol": "consumer", "partition.assignment.strategy": "range"},
    {"group.protocol": "consumer", "heartbeat.interval.ms": 1}, {"group.protocol": "x"}, {"linger.ms": 5},
    {"isolation.level": "x"}, {"max.poll.interval.ms": 5, "session.timeout.ms": 10}, {"on_delivery": print},
    {"enable.partition.eof": "yes"}, {"max.poll.records": 5},
]


def configurations():
    for given in (None, 3, [1]):
        show(f"Producer {given}", lambda: Producer(given))
    show("Producer", Producer)
    show("Consumer", Consumer)
    for given in PRODUCERS:
        show(f"Producer {given}", lambda: Producer(given) and "taken")
    show("Producer foo=1", lambda: Producer(foo=1))
    show("Producer both", lambda: Producer({"linger.ms": 1}, **{"linger.ms": "z"}))
    for given in CONSUMERS:
        show(f"Consumer {sorted(given)}", lambda: Consumer({"group.id": "g", **given}) and "taken")
    show("Consumer without a group", lambda: Consumer({"bootstrap.servers": "x"}))


def producing():
    producer = Producer({"message.timeout.ms": 300, "queue.buffering.max.messages": 5})
    for label, call in {
        "no topic": lambda: producer.produce(3), "topic None": lambda: producer.produce(None),
        "int": lambda: producer.produce("t", 3), "int key": lambda: producer.produce("t", b"x", 3),
        "bytearray": lambda: producer.produce("t", bytearray(b"x")),
        "headers tuple": lambda: producer.produce("t", b"x", headers=("a", "b")),
        "headers malformed": lambda: producer.produce("t", b"x", headers=["m"]),
        "headers int": lambda: producer.produce("t", b"x", headers={"a": 1}),
        "headers number": lambda: producer.produce("t", b"x", headers=5),
        "too large": lambda: producer.produce("t", b"x" * 2_000_000),
        "fill": lambda: [producer.produce("t", b"x") for _ in range(10)],
    }.items():
        show(label, call)
    show("length", lambda: (len(producer), bool(producer), producer.poll(0), producer.flush(0.01)))
    show("flush", producer.flush)
    said_of = []
    producer.produce("t", "v", "k", partition=2, headers={"a": "b"},
                     callback=lambda error, message: said_of.append((
                         error, message.topic(), message.partition(), message.offset(), message.key(),
                         message.value(), message.headers(), message.timestamp(), message.error(),
                         message.leader_epoch())))
    show("flush", producer.flush)
    print(said_of)
    batch = [{"value": b"x" * 2_000_000}, {"value": b"y"}]
    show("batch", lambda: (producer.produce_batch("t", batch), [message.get("_error") for message in batch]))
    show("batch", lambda: producer.produce_batch("t", "x"))
    show("batch", lambda: producer.produce_batch("t", ["x"]))
    show("list_topics", lambda: producer.list_topics(timeout=0.01))
    show("cluster_id", lambda: producer.cluster_id(0.01))
    show("init_transactions", lambda: producer.init_transactions(0.01))
    show("purge", lambda: (producer.purge(), producer.flush()))
    show("close", lambda: (producer.close(), producer.close(), len(producer), bool(producer)))
    for call in ("poll", "flush", "purge", "list_topics", "cluster_id", "init_transactions", "begin_transaction"):
        show(call, lambda: getattr(producer, call)())
    show("produce", lambda: producer.produce("t"))
    transactional = Producer({"transactional.id": "x"})
    for call in ("begin_transaction", "init_transactions", "begin_transaction", "commit_transaction"):
        given = () if call == "begin_transaction" else (0.05,)
        show(call, lambda: getattr(transactional, call)(*given))
    show("produce", lambda: transactional.produce("t", b"x"))


def consuming():
    partition = TopicPartition("t", 0)
    consumer = Consumer({"group.id": "g", "session.timeout.ms": 1000, "socket.timeout.ms": 100})
    unknown = TopicPartition("zz", 0, 4)
    for label, call in {
        "poll": lambda: consumer.poll(0.01), "consume": lambda: consumer.consume(2, 0.01),
        "subscribe str": lambda: consumer.subscribe("x"), "subscribe nothing": lambda: consumer.subscribe([]),
        "subscribe callback": lambda: consumer.subscribe(["a"], on_assign=5),
        "subscribe lost": lambda: consumer.subscribe(["a"], on_lost=5),
        "subscribe empty": lambda: consumer.subscribe([""]), "unsubscribe": consumer.unsubscribe,
        "assign str": lambda: consumer.assign("x"), "assign tuple": lambda: consumer.assign([("t", 0)]),
        "assign": lambda: consumer.assign([partition, TopicPartition("a", 1, 5)]),
        "assignment": consumer.assignment,
        "assign twice": lambda: consumer.assign([partition, TopicPartition("t", 0)]),
        "assign none": lambda: (consumer.assign([]), consumer.assignment()),
        "assign again": lambda: consumer.assign([partition]),
        "incremental_assign": lambda: consumer.incremental_assign([TopicPartition("u", 0)]),
        "incremental_assign twice": lambda: consumer.incremental_assign([TopicPartition("u", 0)]),
        "incremental_unassign": lambda: consumer.incremental_unassign([TopicPartition("u", 0)]),
        "incremental_unassign unknown": lambda: consumer.incremental_unassign([unknown]),
        "assignment now": consumer.assignment, "seek": lambda: consumer.seek(TopicPartition("t", 0, 4)),
        "seek unknown": lambda: consumer.seek(unknown), "seek str": lambda: consumer.seek("x"),
        "pause": lambda: consumer.pause([partition]), "pause unknown": lambda: consumer.pause([unknown]),
        "resume": lambda: consumer.resume([partition]), "pause str": lambda: consumer.pause("x"),
        "position": lambda: consumer.position([TopicPartition("t", 0), TopicPartition("zz", 0)]),
        "committed": lambda: consumer.committed([partition], timeout=0.01),
        "watermarks": lambda: consumer.get_watermark_offsets(partition, timeout=0.2),
        "watermarks cached": lambda: consumer.get_watermark_offsets(partition, cached=True),
        "times none": lambda: consumer.offsets_for_times([], timeout=0.01),
        "commit": lambda: consumer.commit(), "commit sync": lambda: consumer.commit(asynchronous=False),
        "commit both": lambda: consumer.commit(message=Message("t", 0, 1), offsets=[]),
        "commit str": lambda: consumer.commit(message="x"), "commit offsets": lambda: consumer.commit(offsets="x"),
        "commit error": lambda: consumer.commit(message=Message("t", 0, 1, error=KafkaError(3))),
        "store nothing": lambda: consumer.store_offsets(),
        "store": lambda: consumer.store_offsets(offsets=[TopicPartition("t", 0, 5)]),
        "store both": lambda: consumer.store_offsets(message=Message("t", 0, 1), offsets=[]),
        "memberid": consumer.memberid, "metadata": consumer.consumer_group_metadata,
        "list_topics": lambda: consumer.list_topics(timeout=0.01),
        "consume -1": lambda: consumer.consume(-1, 0.01), "consume 0": lambda: consumer.consume(0, 0.01),
        "consume many": lambda: consumer.consume(1_000_001, 0.01),
        "sasl": lambda: consumer.set_sasl_credentials("a", "b"),
        "sasl None": lambda: consumer.set_sasl_credentials(None, "b"),
        "close": lambda: (consumer.close(), consumer.close()),
    }.items():
        show(label, call)
    given = {"subscribe": (["a"],), "assign": ([],), "committed": ([],), "position": ([],), "seek": (partition,),
             "pause": ([],), "resume": ([],), "get_watermark_offsets": (partition,), "offsets_for_times": ([],)}
    for call in ("poll", "consume", "unsubscribe", "unassign", "assignment", "commit", "store_offsets", "memberid",
                 "list_topics", "cluster_id", "consumer_group_metadata", *given):
        show(call, lambda: getattr(consumer, call)(*given.get(call, ())))
    stores = Consumer({"group.id": "g", "enable.auto.offset.store": False})
    stores.assign([partition])
    show("store", lambda: stores.store_offsets(offsets=[TopicPartition("t", 0, 5)]))
    show("store unknown", lambda: stores.store_offsets(offsets=[unknown]))
    show("store error", lambda: stores.store_offsets(Message("t", 0, 1, error=KafkaError(3))))
    stores.close()


for part in (constants, values, configurations, producing, consuming):
    print(f"# {part.__name__}")
    part()
