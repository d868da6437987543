#!/usr/bin/env python3
"""Processor time for a MB sent: the bridge and librdkafka's producer, the same records into the same broker.

    run.py [--megabytes N] [--turns N]

Needs a C compiler, librdkafka-dev, Kafka's jars in $EDGELOG_KAFKA_LIB and the command line in $EDGELOG_BIN, as
`./test --only bridge` makes both. ../README.md has the figures and what they leave out.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests" / "kafka"))

import check as kafka  # noqa: E402

EDGELOG = os.environ.get("EDGELOG_BIN", "edgelog")
SNAPPY = ("--config", "compression.type=snappy")
# How the records lie in the store: in batches as a program makes that appends many at once, which go as they are; in
# smaller ones, which the bridge puts together; and every record alone. In bytes of values.
STORED = {"batches of 256 KiB": 256 << 10, "batches of 16 KiB": 16 << 10, "single records": 0}


def write_records(path, size, count):
    """Readings of a sensor as JSON, filled up with text that repeats: snappy makes them some three times smaller."""
    numbers = random.Random(size)
    with open(path, "w", encoding="ascii") as file:
        for n in range(count):
            value = f'{{"at":{1_700_000_000_000 + n * 100},"flow":{numbers.random():.6f},"state":"open","at_valve":'
            while len(value) < size:
                value += f'[{numbers.randrange(1000)},"pressure","temperature"],'
            file.write(value[:size] + "\n")


def processor_seconds(command):
    """Runs it and returns what it took, user and system, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout.decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, out


def bridge(broker, store, topic):
    """What sending took, and what a bridge takes that finds nothing to send."""
    command = [
        *(EDGELOG, "--dir", str(store), "bridge", "run", "--until-caught-up", "--json", "--device", f"bench-{topic}"),
        *("--bootstrap", broker.bootstrap, "--topics", "t", "--to", topic),
    ]
    sending, out = processor_seconds(command)
    sent = sum(e["records"] for e in map(json.loads, out.splitlines()) if e["event"] == "committed")
    idle, _ = processor_seconds(command)
    return sending - idle, sent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100, help="of values, each time (default %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="the best of so many counts (default %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgelog-compare-") as scratch, kafka.Broker(scratch) as broker:
        scratch = pathlib.Path(scratch)
        produce = scratch / "produce"
        flags = ["-O2", "-std=c11", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["cc", *flags, HERE / "produce.c", "-o", produce, "-lrdkafka"], check=True)
        broker.start()
        print("| records | stored as | librdkafka, ms/MB | bridge, ms/MB | ratio | `edgelog append` before, at `Os`, ms/MB |")
        print("|---|---|---|---|---|---|")
        for size in (100, 1024):
            count = args.megabytes * 1_000_000 // size
            records = scratch / "records"
            write_records(records, size, count)
            # Nothing is kept for longer than it takes: the disk is to hold one turn.
            configs = {"retention_bytes": 100_000_000, "segment_bytes": 50_000_000}
            per_mb = 1000 / args.megabytes
            least = []
            for turn in range(args.turns):
                broker.create_topic(f"rdkafka-{size}-{turn}", 1, **configs)
                out = processor_seconds([produce, broker.bootstrap, f"rdkafka-{size}-{turn}", records])[1]
                least.append(float(out) * per_mb)
            for stored, batch_bytes in STORED.items():
                store = scratch / "store"
                run = [EDGELOG, "--dir", str(store)]
                subprocess.run([*run, "topics", "create", "t", *SNAPPY], stdout=subprocess.DEVNULL, check=True)
                batch = max(1, batch_bytes // size)
                append = [*run, "append", "t", records, "--acks", "1", "--quiet", "--batch", str(batch)]
                appending = processor_seconds(append)[0] * per_mb
                took = []
                for turn in range(args.turns):
                    # A device of its own sends all of it again.
                    topic = f"bridge-{size}-{batch}-{turn}"
                    broker.create_topic(topic, 1, **configs)
                    used, sent = bridge(broker, store, topic)
                    if sent != count:
                        raise SystemExit(f"the bridge sent {sent} records of {count}")
                    took.append(used * per_mb)
                    for note in store.glob("edgelog.bridge.*"):
                        note.unlink()
                rdkafka, ours = min(least), min(took)
                figures = f"{rdkafka:.2f} | {ours:.2f} | {rdkafka / ours:.1f} | {appending:.1f}"
                print(f"| {size} B | {stored} | {figures} |", flush=True)
                subprocess.run(["rm", "-rf", store], check=True)


if __name__ == "__main__":
    main()
