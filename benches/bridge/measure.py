#!/usr/bin/env python3
"""The bridge into a real broker: what it sends in a second, what device and broker take for it, and how soon a record
is there; compared with librdkafka's producers and Kafka's own.

    measure.py throughput [--megabytes N] [--turns N]
    measure.py latency [--records N] [--every SECONDS]

Needs a C compiler and librdkafka-dev (throughput), confluent-kafka (latency), Kafka's jars in $EDGELOG_KAFKA_LIB and
the command line in $EDGELOG_BIN, as `./test --only bridge` makes them. ../README.md has the figures and what they leave
out.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests" / "kafka"))
sys.path.insert(0, str(HERE.parent / "compare"))

import check as kafka  # noqa: E402
import run as compare  # noqa: E402

EDGELOG = os.environ.get("EDGELOG_BIN", "edgelog")
TICKS = os.sysconf("SC_CLK_TCK")
RECORD_BYTES = 1024
# How records lie in the store: so many to a batch.
STORED = {"batches of 256": 256, "batches of 64": 64, "batches of 16": 16, "single records": 1}
CODECS = ("none", "snappy")
# What a transaction of the bridge carries at most, and so of the others.
TRANSACTION_BYTES = 4 << 20


def used_by(process):
    """The processor time, user and system, that a running process has had, in seconds."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


# --- throughput -------------------------------------------------------------------------------------------------------


class Bench:
    """A broker that is warm, and records to send."""

    def __init__(self, scratch, broker, args):
        self.scratch, self.broker, self.args = scratch, broker, args
        self.count = args.megabytes * 1_000_000 // RECORD_BYTES
        self.records = scratch / "records"
        self.topics = 0
        compare.write_records(self.records, RECORD_BYTES, self.count)
        self.produce = scratch / "produce"
        flags = ["-O2", "-std=c11", "-Wall", "-Wextra", "-Werror"]
        source = HERE.parent / "compare" / "produce.c"
        subprocess.run(["cc", *flags, source, "-o", self.produce, "-lrdkafka"], check=True)

    def topic(self):
        """A fresh one, of which no more is kept than the disk is to hold."""
        self.topics += 1
        self.broker.create_topic(f"t{self.topics}", 1, retention_bytes=100_000_000, segment_bytes=50_000_000)
        return f"t{self.topics}"

    def bridge(self, stored, codec):
        store = self.scratch / f"{stored} {codec}"
        run = [EDGELOG, "--dir", str(store)]
        create = [*run, "topics", "create", "t", "--config", f"compression.type={codec}"]
        subprocess.run(create, stdout=subprocess.DEVNULL, check=True)
        append = [*run, "append", "t", self.records, "--acks", "1", "--quiet", "--batch", str(STORED[stored])]
        subprocess.run(append, check=True)

        def command(topic):
            # A device of its own sends all of it again.
            for note in store.glob("edgelog.bridge.*"):
                note.unlink()
            return [
                *(*run, "bridge", "run", "--until-caught-up", "--json", "--device", f"bench-{topic}"),
                *("--bootstrap", self.broker.bootstrap, "--topics", "t", "--to", topic),
                *(option for pair in self.args.set for option in ("--set", pair)),
            ]

        return command

    def librdkafka(self, codec, transactional):
        def command(topic):
            more = [f"rdkafka-{topic}"] if transactional else []
            return [self.produce, self.broker.bootstrap, topic, self.records, codec, *more]

        return command

    def java(self, codec):
        def command(topic):
            keys = [f"bootstrap.servers={self.broker.bootstrap}", "acks=all", f"compression.type={codec}"]
            return [
                *(*kafka.JAVA, "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{kafka.LIB}/*"),
                *("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--throughput", "-1"),
                *("--num-records", str(self.count), "--payload-file", str(self.records), "--producer-props", *keys),
            ]

        return command

    def rows(self):
        """(sender, stored in, codec) -> what makes its command for a topic."""
        rows = {}
        for codec in CODECS:
            for stored in STORED:
                rows["edgelog bridge", stored, codec] = self.bridge(stored, codec)
            rows["librdkafka, idempotent", "", codec] = self.librdkafka(codec, transactional=False)
            rows["librdkafka, transactional", "", codec] = self.librdkafka(codec, transactional=True)
            rows["ProducerPerformance", "", codec] = self.java(codec)
        return rows

    def measure(self, sender, command):
        """Processor time of the broker and of the device, and the time that it took, all in seconds."""
        before, begun = used_by(self.broker.process), time.monotonic()
        device, out = compare.processor_seconds(command)
        seconds = time.monotonic() - begun
        if sender.startswith("librdkafka"):
            # What it says itself is without reading the file.
            device = float(out)
        return used_by(self.broker.process) - before, device, seconds


def throughput(args):
    with tempfile.TemporaryDirectory(prefix="edgelog-bridge-bench-") as scratch, kafka.Broker(scratch) as broker:
        broker.start()
        bench = Bench(pathlib.Path(scratch), broker, args)
        rows, best = bench.rows(), {}
        # The first turn is not counted: a cold broker takes twice as much and more. All rows take turns, so that a
        # machine that has become slower is slower for all of them.
        for turn in range(1 + args.turns):
            for row, command_of in rows.items():
                figures = bench.measure(row[0], command_of(bench.topic()))
                if turn > 0:
                    best[row] = [min(pair) for pair in zip(best.get(row, figures), figures)]
        print("| sender | stored in | codec | records/s | MB/s | device, ms/MB | broker, ms/MB |")
        print("|---|---|---|---|---|---|---|")
        megabytes = bench.count * RECORD_BYTES / 1_000_000
        for (sender, stored, codec), (used, device, seconds) in best.items():
            print(
                f"| {sender} | {stored} | {codec} | {bench.count / seconds:,.0f} | {megabytes / seconds:.0f} | "
                f"{device / megabytes * 1000:.2f} | {used / megabytes * 1000:.2f} |"
            )


# --- latency ----------------------------------------------------------------------------------------------------------


def latency_of(broker, scratch, name, args, interval_ms):
    """How long after its append each of a trickle's records reaches a read_committed consumer, in seconds; and how many
    transactions that took."""
    import confluent_kafka  # noqa: PLC0415 (throughput does without)

    broker.create_topic(name, 1, retention_ms=-1)
    store = scratch / name
    appending = [EDGELOG, "--dir", str(store), "append", "t", "--quiet"]
    with subprocess.Popen(appending, stdin=subprocess.PIPE) as writer:
        writer.stdin.write(b"first\n")
        writer.stdin.flush()
        sets = [] if interval_ms is None else ["--set", f"edgelog.bridge.interval.ms={interval_ms}"]
        command = [
            *(EDGELOG, "--dir", str(store), "bridge", "run", "--json", "--device", name),
            *("--bootstrap", broker.bootstrap, "--topics", "t", "--to", name, *sets),
        ]
        while not store.exists():
            time.sleep(0.05)
        out = scratch / f"{name}.out"
        with open(out, "wb") as said, subprocess.Popen(command, stdout=said, stderr=said) as bridge:
            consumer = confluent_kafka.Consumer(
                {
                    "bootstrap.servers": broker.bootstrap,
                    "group.id": name,
                    "isolation.level": "read_committed",
                    "fetch.wait.max.ms": 10,
                    "enable.auto.commit": False,
                }
            )
            consumer.assign([confluent_kafka.TopicPartition(name, 0, confluent_kafka.OFFSET_BEGINNING)])
            while consumer.poll(1) is None:
                pass
            before, waits, due = used_by(bridge), [], time.time()
            begun = due
            for n in range(args.records):
                # Not in step with anything.
                due += args.every * (0.5 + (n * 0.618034) % 1)
                while (left := due - time.time()) > 0:
                    take(consumer, min(left, 0.02), waits)
                writer.stdin.write(f"{time.time():.6f}\n".encode())
                writer.stdin.flush()
            while len(waits) < args.records:
                take(consumer, 1, waits)
            seconds, used = time.time() - begun, used_by(bridge) - before
            consumer.close()
            bridge.terminate()
    transactions = out.read_text(encoding="utf-8").count('"event":"committed"')
    waits.sort()
    at = [waits[int(len(waits) * part)] for part in (0.5, 0.9)]
    print(
        f"| {'default (10000)' if interval_ms is None else interval_ms} | {args.every:g} | {at[0]:.3f} | {at[1]:.3f} | "
        f"{waits[-1]:.3f} | {transactions / seconds * 3600:.0f} | {used / seconds * 1000:.1f} |",
        flush=True,
    )


def take(consumer, seconds, waits):
    message = consumer.poll(seconds)
    if message is not None and message.error() is None:
        waits.append(time.time() - float(message.value()))


def latency(args):
    with tempfile.TemporaryDirectory(prefix="edgelog-bridge-bench-") as scratch, kafka.Broker(scratch) as broker:
        broker.start()
        print("| `interval.ms` | a record in, s | p50, s | p90, s | max, s | transactions/h | device, ms/s |")
        print("|---|---|---|---|---|---|---|")
        for interval_ms in args.interval or (None, 0):
            name = f"interval-{'default' if interval_ms is None else interval_ms}"
            latency_of(broker, pathlib.Path(scratch), name, args, interval_ms)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("throughput")
    p.add_argument("--megabytes", type=int, default=200, help="of values, each time (default %(default)s)")
    p.add_argument("--turns", type=int, default=2, help="the best of so many counts, after one (default %(default)s)")
    p.add_argument("--set", action="append", default=[], help="a key of the bridge", metavar="KEY=VALUE")
    p.set_defaults(run=throughput)
    p = commands.add_parser("latency")
    p.add_argument("--records", type=int, default=40, help="appended one by one (default %(default)s)")
    p.add_argument("--every", type=float, default=15, help="seconds between two of them, on average (%(default)s)")
    p.add_argument("--interval", type=int, action="append", help="edgelog.bridge.interval.ms (the default, and 0)")
    p.set_defaults(run=latency)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
