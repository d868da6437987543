#!/usr/bin/env python3
"""Batches that the bridge makes again on their way: `compression.type` and `edgelog.bridge.partition=key`.

    rebatched.py run STORE --expect FILE

STORE and FILE are what examples/mixed_workload made. Needs what transfer.py in the same folder needs.
"""

import collections
import json
import re
import shutil
import sys

from harness import (
    EDGELOG,
    SAME,
    SMALL,
    Broken,
    Broker,
    Run,
    append,
    command,
    everything_once,
    kafka,
    main,
)

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
KILLS = 25


def batches(broker, prefix):
    """codec -> batches of records, not of markers, in the segments of these topics, as Kafka's tool says."""
    logs = sorted(broker.data.glob(f"{prefix}*/*.log"))
    if not logs:
        raise Broken(f"the broker has no segment of {prefix}*")
    tool = "org.apache.kafka.tools.DumpLogSegments"
    dump = kafka.java_ok(tool, "--files", ",".join(map(str, logs))).decode(errors="replace")
    if "isvalid: false" in dump:
        raise Broken("Kafka's tool finds a batch that is not valid")
    lines = re.findall(r"^baseOffset: .*$", dump, re.MULTILINE)
    of_records = [line for line in lines if "isControl: false" in line]
    return collections.Counter(re.search(r"compresscodec: (\w+)", line)[1].lower() for line in of_records)


def kill_again_and_again(world, arguments, events):
    """Runs a transfer and kills it after fewer than so many events, KILLS times."""
    for kills in range(KILLS):
        run = Run(arguments)
        left = world.random.randrange(0, events)
        while left > 0 and run.next_event() is not None:
            left -= 1
        if run.process.poll() is not None:
            raise Broken(f"only {kills} kills, expected {KILLS}: the transfer is too short")
        run.kill()


def sent_bytes(run):
    return sum(event["bytes"] for event in run.events if event["event"] == "committed")


def every_codec(world):
    """All of a store, some of whose topics are stored with snappy: each codec is what the target's segments hold, and
    the records are the same ones."""
    found = []
    for codec in CODECS:
        store, prefix = world.copy(f"wire-{codec}"), f"wire.{codec}."
        world.create_targets(prefix)
        sets = {**SAME, "compression.type": codec}
        run = Run(command(store, world.broker, f"wire-{codec}", prefix + "{topic}", **sets)).expect(0)
        everything_once(world.broker, world.expected, prefix)
        held = batches(world.broker, prefix)
        if codec == "none" and set(held) != {"none"} or codec != "none" and 2 * held[codec] < held.total():
            raise Broken(f"compression.type={codec}: the target's segments hold batches of {dict(held)}")
        found.append(f"{codec} {sent_bytes(run)} bytes")
    return f"{world.total} records for each codec: {', '.join(found)}"


def killed(world):
    """SIGKILL after some transactions, again and again: positions are those of the store's batches."""
    store = world.copy("wire-killed")
    world.create_targets("wk.")
    sets = {**SMALL, "compression.type": "lz4", "edgelog.bridge.transaction.bytes": "3000"}
    kill_again_and_again(world, command(store, world.broker, "wire-killed", "wk.{topic}", **sets), 6)
    sets = {**SAME, "compression.type": "zstd"}
    Run(command(store, world.broker, "wire-killed", "wk.{topic}", **sets)).expect(0)
    return f"{everything_once(world.broker, world.expected, 'wk.')}, {KILLS} kills"


def target_with_a_codec(world):
    """A target with a compression.type of its own compresses again what comes otherwise, and the bridge says so."""
    store = world.copy("wire-own")
    world.create_targets("wo.", compression_type="gzip")
    sets = {**SAME, "compression.type": "lz4"}
    run = Run(command(store, world.broker, "wire-own", "wo.{topic}", **sets)).expect(0)
    said = [event for event in run.events if "compression.type=gzip" in json.dumps(event)]
    held = batches(world.broker, "wo.")
    if not said or set(held) != {"gzip"}:
        raise Broken(f"it says {said}, and the target's segments hold batches of {dict(held)}")
    return f"{everything_once(world.broker, world.expected, 'wo.')}, {held.total()} batches of gzip"


def a_record_too_large_but_for_its_codec(world):
    """The target's limit counts what is sent: compressed, a record of 3 MB goes where 100 kB are the most."""
    store = world.scratch / "wire-large"
    config = ("--config", "max.message.bytes=8000000", "--config", "segment.bytes=33554432")
    kafka_topic = "wire-large"
    subprocess_topic(store, kafka_topic, *config)
    large = json.dumps({"rows": [{"sensor": "press", "ok": True}] * 100_000})
    append(store, kafka_topic, ["before", large, "after"])
    world.broker.create_topic("wl", 1, max_message_bytes=100_000)
    sets = {**SAME, "compression.type": "gzip"}
    run = Run(command(store, world.broker, "wire-large", "wl", topics=kafka_topic, **sets)).expect(0)
    values = [record["payload"] for record in world.broker.consume_all("wl")[0]]
    if values != ["before", large, "after"]:
        raise Broken(f"{len(values)} records arrived: {[value[:40] for value in values]}")
    return f"a record of {len(large)} bytes, {sent_bytes(run)} bytes sent"


def subprocess_topic(store, topic, *more):
    kafka.subprocess.run(
        [EDGELOG, "--dir", str(store), "topics", "create", topic, *more], check=True, capture_output=True
    )


def sensor(n):
    """A record as a device's sensor makes it."""
    value = {"ts": 1_700_000_000_000 + 250 * n, "sensor": f"press-{n % 17}", "temperature": 20 + n * 7919 % 997 / 100}
    return json.dumps({**value, "pressure": 1000 + n * 104_729 % 4999 / 10, "state": ["idle", "run", "fault"][n % 3]})


def bytes_of_json(world):
    """How many bytes of JSON records are sent with each codec; what was stored one by one, and in batches."""
    count, found = 20_000, []
    values = [sensor(n) for n in range(count)]
    for stored, more in (("one by one", ("--batch", "1")), ("in batches", ())):
        filled = world.scratch / f"json-{stored.replace(' ', '-')}"
        subprocess_topic(filled, "json", "--config", "flush.messages=100000")
        append(filled, "json", values, *more)
        for codec in ("stored", *CODECS):
            name = f"{filled.name}-{codec}"
            store = shutil.copytree(filled, world.scratch / name)
            world.broker.create_topic(name, 1)
            sets = {**SAME, "compression.type": codec}
            run = Run(command(store, world.broker, name, name, topics="json", **sets)).expect(0)
            if run.records() != count:
                raise Broken(f"{name}: {run.records()} records were sent, expected {count}")
            found.append((stored, codec, sent_bytes(run)))
    plain = sum(map(len, values))
    for stored, codec, sent in found:
        print(f"       {count} records of {plain / count:.0f} bytes, stored {stored}: {codec} {sent} bytes", flush=True)
    largest = {stored: sent for stored, codec, sent in found if codec == "none"}
    if any(2 * sent > largest[stored] for stored, codec, sent in found if codec not in ("stored", "none")):
        raise Broken("a codec leaves more than half of the bytes")
    return f"{plain} bytes of values"


def murmur2(key):
    """As Kafka's Utils.murmur2, written from its source: what the default partitioner of Java's clients takes."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(key)
    for at in range(0, len(key) - len(key) % 4, 4):
        k = int.from_bytes(key[at : at + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if rest := key[len(key) - len(key) % 4 :]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def by_key(world):
    """Three local partitions into six, by keys, with kills and a broker that dies: each key is in the one partition
    that Java's clients choose, every record is there once, and those of a key are in order."""
    store, targets = world.scratch / "by-key", 6
    config = ("--partitions", "3", "--config", "compression.type=snappy")
    subprocess_topic(store, "sensors", *config)
    count, keys = 6000, 90
    expected = {}
    for local in range(3):
        lines = []
        # Of each local partition keys of its own; every seventh record has none.
        for n in range(local, count, 3):
            key, value = f"key-{n % keys}" if n % 7 else "", f"{n} {'x' * (n * 31 % 400)}"
            lines.append(f"{key}|{value}" if key else value)
            expected.setdefault(key, []).append(value)
        append(store, f"sensors-{local}", lines, "--key-separator", "|")
    world.broker.create_topic("by-key", targets)
    sets = {"edgelog.bridge.partition": "key", "edgelog.bridge.transaction.bytes": "12000"}
    arguments = command(store, world.broker, "by-key", "by-key", topics="sensors", **sets)
    kill_again_and_again(world, arguments, 4)
    run = Run(arguments)
    while (event := run.next_event()) is not None and event["event"] != "committed":
        pass
    world.broker.kill()
    world.broker.start()
    run.expect(0)
    if Run(arguments).expect(0).records() != 0:
        raise Broken("a second run sent records again")
    arrived = world.broker.consume_all("by-key")
    found, total = {}, 0
    for partition, records in sorted(arrived.items()):
        total += len(records)
        for record in records:
            key = record["key"] or ""
            wanted = (murmur2(key.encode()) & 0x7FFFFFFF) % targets
            if key and partition != wanted:
                raise Broken(f"the key {key} is in partition {partition}, Java's clients choose {wanted}")
            found.setdefault(key, []).append(record["payload"])
    if total != count:
        raise Broken(f"{total} records arrived, expected {count}")
    for key, values in expected.items():
        # Keys are of one local partition; what has none may be in any order between partitions.
        if (found[key] if key else sorted(found[key])) != (values if key else sorted(values)):
            raise Broken(f"{key}: {len(found[key])} records are not the {len(values)} that were appended, or in order")
    if set(arrived) != set(range(targets)):
        raise Broken(f"only the partitions {sorted(arrived)} have records")
    return f"{total} records of {keys} keys compared, {KILLS} kills, one of the broker"


TESTS = {
    "by_key": by_key,
    "every_codec": every_codec,
    "killed": killed,
    "target_with_a_codec": target_with_a_codec,
    "a_record_too_large_but_for_its_codec": a_record_too_large_but_for_its_codec,
    "bytes_of_json": bytes_of_json,
}

if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, Broker))
