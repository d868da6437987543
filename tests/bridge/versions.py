#!/usr/bin/env python3
"""The bridge against each version of Apache Kafka that it is for, and refused by those that it is not for.

    versions.py run STORE --expect FILE [--only NAME,...]

$EDGELOG_KAFKA_VERSIONS names the versions of brokers, which lie in broker-VERSION/lib next to $EDGELOG_KAFKA_LIB, as
`./test --only bridge` puts them there. That of $EDGELOG_KAFKA_LIB itself is always one of them, and drives the others.
"""

import functools
import os
import re
import subprocess
import sys
import tempfile

import harness
import proxy as px
from harness import EDGELOG, RUN_SECONDS_MAX, Broken, Broker, Run, append, command, kafka, values_of

VERSIONS = os.environ.get("EDGELOG_KAFKA_VERSIONS", "").replace(",", " ").split()
# What exactly-once delivery needs is in these, and in none before.
OLDEST = (4, 0)
# So that one transaction is followed by others. More than a batch, which is split else.
SETS = {"edgelog.bridge.transaction.bytes": "300000"}
BATCH = 200
# A stored batch of this size goes as it is.
SMALL_BYTES = 16 << 10


def numbers(version):
    return tuple(int(part) for part in version.split("."))


def transferred(world, broker, label):
    """Records stored one by one, and compressed ones in batches; the bridge dies before its second commit arrives."""
    store = world.scratch / label
    subprocess.run(
        [EDGELOG, "--dir", str(store), "topics", "create", "snappy", "--config", "compression.type=snappy"],
        check=True,
        capture_output=True,
    )
    sent = {
        "single": [f"single {n}" for n in range(400)],
        # Half of each can be compressed.
        "snappy": [f"{n} {world.random.randbytes(250).hex()}{'-' * 500}" for n in range(2000)],
    }
    append(store, "single", sent["single"])
    append(store, "snappy", sent["snappy"], "--batch", str(BATCH))
    for topic in sent:
        broker.create_topic(topic, 1, retention_ms=-1)
    before = sum(broker.proxy.injected.values())
    broker.proxy.arm([(px.END_TXN, px.LET_THROUGH), (px.END_TXN, px.SWALLOW_REQUEST)])
    run = Run(command(store, broker, label, "{topic}", **SETS))
    if not broker.proxy.wait_injected(before + 2, RUN_SECONDS_MAX):
        raise Broken(f"no second commit was asked for: {run.events}")
    run.kill()
    Run(command(store, broker, label, "{topic}", **SETS)).expect(0)
    for topic, values in sent.items():
        found = values_of(broker.consume_all(topic))
        if found != values:
            raise Broken(f"{topic}: expected {len(values)} records, found {len(found)}: {kafka.shorten(found)}")
    return sum(map(len, sent.values())), passed_as_stored(store, broker)


def passed_as_stored(store, broker):
    """How many stored batches lie in the broker's file as they lie in the device's, but for the header's fields."""
    there = b"".join(file.read_bytes() for file in sorted((broker.data / "snappy-0").glob("*.log")))
    passed = 0
    for file in sorted((store / "snappy-0").glob("*.log")):
        stored, at = file.read_bytes(), 0
        while at + 61 <= len(stored):
            end = at + 12 + int.from_bytes(stored[at + 8 : at + 12], "big")
            if end <= at + 61:
                break
            if stored[at + 22] & 7 != 2:
                raise Broken(f"the batch at {at} of {file} is not compressed by snappy")
            # Smaller ones are put together.
            if end - at >= SMALL_BYTES:
                if stored[at + 61 : end] not in there:
                    raise Broken(f"the broker has not the bytes of the batch at {at} of {file}")
                passed += 1
            at = end
    if passed < 2000 // BATCH // 2:
        raise Broken(f"the store has {passed} batches of {SMALL_BYTES} bytes, expected about {2000 // BATCH}")
    return passed


def holds(world, *, version):
    """One of the versions that the bridge is for."""
    with Broker(tempfile.mkdtemp(dir=world.scratch), lib=kafka.LIB.parent / f"broker-{version}" / "lib") as broker:
        broker.start()
        records, passed = transferred(world, broker, f"kafka-{version}")
        broker.stop()
    return f"{records} records, {passed} batches as they were stored"


def holds_here(world):
    """The version that all other tests have."""
    records, passed = transferred(world, world.broker, "here")
    return f"{records} records, {passed} batches as they were stored"


def is_refused(world, words, **options):
    """A cluster that cannot deliver exactly once: said in `words`, and nothing is sent. The key in them helps."""
    with Broker(tempfile.mkdtemp(dir=world.scratch), **options) as broker:
        broker.start()
        broker.create_topic("x", 1, retention_ms=-1)
        store = world.copy(f"store-{os.path.basename(broker.home)}")
        run = Run(command(store, broker, "old", "x", topics="plain")).expect(1)
        said = bytes(run.errors).decode()
        words = [word.format(address=broker.address) for word in words]
        if missing := [word for word in words if word not in said]:
            raise Broken(f"the refusal has not {missing}: {said}")
        if run.records() or broker.offsets("x", -1) != {0: 0}:
            raise Broken(f"something was sent: {run.events}")
        plainly = {"edgelog.bridge.delivery": "at-least-once"}
        Run(command(store, broker, "old", "x", topics="plain", **plainly)).expect(0)
        broker.stop()
    return re.sub(r"127\.0\.0\.1:\d+", "HOST:PORT", said.strip().splitlines()[-1])


# What each refusal says: what is missing, and both things that can be done.
REFUSED = (
    "exactly-once delivery needs 2",
    "Kafka 4.0 and later have it",
    "edgelog.bridge.delivery=at-least-once",
)
RAISE = "kafka-features.sh --bootstrap-server {address} upgrade --feature transaction.version=2"
# Where the brokers cannot have it, that command cannot help.
UPGRADE = "this broker is older: upgrade the brokers first; or set"


def of_this_version(version):
    if numbers(version) >= OLDEST:
        return functools.partial(holds, version=version)
    lib = kafka.LIB.parent / f"broker-{version}" / "lib"
    return functools.partial(is_refused, words=("transaction.version=0", UPGRADE, *REFUSED), lib=lib)


def of_transaction_version(version):
    feature = f"transaction.version={version}"
    return functools.partial(is_refused, words=(feature, RAISE, *REFUSED), features=[feature])


TESTS = {
    "here": holds_here,
    "transaction_version_0": of_transaction_version(0),
    "transaction_version_1": of_transaction_version(1),
    **{f"kafka_{version}": of_this_version(version) for version in VERSIONS},
}


if __name__ == "__main__":
    sys.exit(harness.main(__doc__, TESTS, Broker))
