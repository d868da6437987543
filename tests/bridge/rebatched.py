#!/usr/bin/env python3
"""Batches that the bridge makes again on their way: `compression.type`.

    rebatched.py run STORE --expect FILE

STORE and FILE are what examples/mixed_workload made. Needs what transfer.py in the same folder needs.
"""

import collections
import json
import re
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
    """codec -> batches of records, not of markers, in the segments of the topics that begin so; as Kafka's tool says."""
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
    store, kills = world.copy("wire-killed"), 0
    world.create_targets("wk.")
    sets = {**SMALL, "compression.type": "lz4"}
    while kills < KILLS:
        run = Run(command(store, world.broker, "wire-killed", "wk.{topic}", **sets))
        left = world.random.randrange(0, 6)
        while left > 0 and run.next_event() is not None:
            left -= 1
        if run.process.poll() is not None:
            raise Broken(f"only {kills} kills, expected {KILLS}: the transfer is too short")
        run.kill()
        kills += 1
    sets = {**SAME, "compression.type": "zstd"}
    Run(command(store, world.broker, "wire-killed", "wk.{topic}", **sets)).expect(0)
    return f"{everything_once(world.broker, world.expected, 'wk.')}, {kills} kills"


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
        for codec in ("stored", *CODECS):
            name = f"json-{stored.replace(' ', '-')}-{codec}"
            store = world.scratch / name
            append(store, "json", values, *more)
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


TESTS = {
    "every_codec": every_codec,
    "killed": killed,
    "target_with_a_codec": target_with_a_codec,
    "a_record_too_large_but_for_its_codec": a_record_too_large_but_for_its_codec,
    "bytes_of_json": bytes_of_json,
}

if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, Broker))
