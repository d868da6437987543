#!/usr/bin/env python3
"""Lets Apache Kafka judge edgelog's bytes, and edgelog read Kafka's.

Nothing here knows edgelog's code: only files, Kafka's own tools and broker, and the command line. Python's standard
library is enough. The jars come from `pom.xml` beside this file; `./test --only kafka` does all of it in order.

Every subcommand prints one line per check and ends with `checks: N passed, N failed`; it exits 1 if any broke.
"""

import argparse
import atexit
import collections
import ctypes
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target"))
LIB = pathlib.Path(os.environ.get("EDGELOG_KAFKA_LIB", TARGET / "kafka" / "lib"))
EDGELOG = os.environ.get("EDGELOG_BIN", str(TARGET / "release" / "edgelog"))

JAVA = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
# Kafka's classes as a broker loaded them, parsed and verified: with them a broker or a tool starts with half of the
# work. `archive` makes it. Java says nothing of an archive that it cannot use, and goes on without it.
ARCHIVE = LIB.parent / "classes.jsa"
if ARCHIVE.exists():
    JAVA += [f"-XX:SharedArchiveFile={ARCHIVE}", "-Xlog:disable"]
TOOL_SECONDS_MAX = 120
# What a broker logs when it completes a transaction without the markers that end it in its partitions. Kafka 4.3.1
# does so where it is killed behind the answer to EndTxn, is started again within its session, and is its cluster's only
# node: it is elected with the metadata of before, loads the transaction, and knows no partition of it yet. What was
# committed stays open for good, the records as well as the position.
MARKERS_LEFT_OUT = "Couldn't find leader endpoint for partitions"
BROKER_START_SECONDS_MAX = 90
BROKER_STOP_SECONDS_MAX = 60
CLUSTER_ID = "AAAAAAAAQACAAAAAAAAAAQ"

# Between the fields that the console consumer prints. Control characters that no test data holds, so that keys and
# values may hold anything else, line breaks included.
FIELD, HEADER, RECORD, NULL = "\x1f", "\x1d", "\x1e", "\x02null\x02"


class Broken(Exception):
    """A check that did not hold; the message says what was expected and what was found."""


class Checks:
    """Counts what held and what broke, and goes on after a broken one so that one run shows all."""

    def __init__(self):
        self.held, self.broken = 0, 0

    def run(self, name, check, *args):
        started = time.monotonic()
        try:
            note = check(*args)
        except (Broken, OSError, subprocess.TimeoutExpired) as e:
            self.broken += 1
            print(f"BROKEN {name}\n       " + str(e).replace("\n", "\n       "), flush=True)
            return None
        self.held += 1
        print(f"ok     {name} ({note or 'ok'}, {time.monotonic() - started:.1f} s)", flush=True)
        return note

    def finish(self):
        print(f"checks: {self.held} passed, {self.broken} failed", flush=True)
        return 1 if self.broken or not self.held else 0


# --- Java -------------------------------------------------------------------------------------------------------------


def die_with_parent():
    """So that no broker outlives this process, however it ends: PR_SET_PDEATHSIG is 1."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def java(main, *args, heap="256m", jvm=(), classes=None, lib=LIB):
    """Runs one of Kafka's tools and returns (exit code, stdout, stderr), as bytes."""
    path = f"{lib}/*:{classes}" if classes else f"{lib}/*"
    command = [*JAVA, f"-Xmx{heap}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", *jvm, "-cp", path, main]
    done = subprocess.run(
        [*command, *map(str, args)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TOOL_SECONDS_MAX,
        preexec_fn=die_with_parent,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def java_ok(main, *args, **kwargs):
    code, out, err = java(main, *args, **kwargs)
    if code != 0:
        raise Broken(f"{main} {' '.join(map(str, args))}\nexit {code}, expected 0\n{tail(out)}\n{tail(err)}")
    return out


def tail(output, lines_max=20):
    return "\n".join(output.decode(errors="replace").splitlines()[-lines_max:])


# --- archive: what Java has parsed and verified ----------------------------------------------------------------------


def make_archive(scratch):
    made = ARCHIVE.with_suffix(".new")
    with Broker(scratch) as broker:
        before = JAVA[:]
        JAVA.extend([f"-XX:ArchiveClassesAtExit={made}", "-Xlog:disable"])
        broker.start()
        JAVA[:] = before
        broker.create_topic("t", 1)
        broker.offsets("t", -1)
        broker.stop()
    made.replace(ARCHIVE)
    return f"{ARCHIVE.stat().st_size >> 20} MiB"


# --- dump: kafka-dump-log over a copy ---------------------------------------------------------------------------------

Mode = collections.namedtuple("Mode", "name options suffixes")
MODES = [
    Mode("deep iteration", ["--deep-iteration"], [".log", ".index", ".timeindex"]),
    Mode("index sanity", ["--index-sanity-check"], [".index", ".timeindex"]),
    Mode("verify index", ["--verify-index-only"], [".index", ".timeindex"]),
]
FILES_PER_CALL_MAX = 150


def partition_dirs(root):
    """Every directory at or under `root` that holds segments."""
    return sorted({log.parent for log in pathlib.Path(root).rglob("*.log") if re.fullmatch(r"\d{20}", log.stem)})


def segment_files(directory, suffixes):
    return sorted(f for f in directory.iterdir() if f.suffix in suffixes and re.fullmatch(r"\d{20}", f.stem))


def copy_segments(directory, scratch):
    """The tool may change the files it reads: it only ever sees a copy."""
    copy = pathlib.Path(tempfile.mkdtemp(dir=scratch))
    for f in segment_files(directory, [".log", ".index", ".timeindex"]):
        shutil.copyfile(f, copy / f.name)
    return copy


def stderr_findings(stderr):
    """What the tool complains of, less one quirk: from 4.3 on it starts counting at -1, so it reports for each .log
    whose base offset B is not 0 that `-1 is followed by B`. Exactly that line, for exactly that file, is no finding."""
    findings, lines, i = [], stderr.decode(errors="replace").splitlines(), 0
    while i < len(lines):
        name = re.fullmatch(r"Non-consecutive offsets in :?\s*(.+)", lines[i])
        if name is None:
            findings += [lines[i]] if lines[i].strip() else []
            i += 1
            continue
        i += 1
        base = int(re.search(r"(\d{20})\.log", name[1])[1])
        while i < len(lines) and (pair := re.fullmatch(r"\s*(-?\d+) is followed by (\d+)", lines[i])):
            if (int(pair[1]), int(pair[2])) != (-1, base) or base == 0:
                findings.append(f"{name[0]}: {lines[i].strip()}")
            i += 1
    return findings


def dump_mode(directory, mode, scratch):
    copy = copy_segments(directory, scratch)
    files = segment_files(copy, mode.suffixes)
    records = batches = 0
    for at in range(0, len(files), FILES_PER_CALL_MAX):
        chunk = files[at : at + FILES_PER_CALL_MAX]
        code, out, err = java(
            "org.apache.kafka.tools.DumpLogSegments", *mode.options, "--files", ",".join(map(str, chunk))
        )
        text = out.decode(errors="replace")
        wrong = [line for line in text.splitlines() if "isvalid: false" in line or "invalid bytes" in line]
        wrong += stderr_findings(err)
        if code != 0 or wrong:
            raise Broken(f"exit {code}, expected 0; findings:\n" + "\n".join(wrong[:20]) + f"\n{tail(err)}")
        dumped = len(re.findall(r"^Dumping ", text, re.MULTILINE))
        if dumped != len(chunk):
            raise Broken(f"dumped {dumped} files, expected {len(chunk)}\n{tail(out)}")
        batches += len(re.findall(r"^baseOffset: ", text, re.MULTILINE))
        records += len(re.findall(r"^\| offset: ", text, re.MULTILINE))
    shutil.rmtree(copy)
    return f"{len(files)} files" + (f", {batches} batches, {records} records" if batches else "")


def index_order(directory):
    """What the tool does not see: an extra zero entry, an entry out of order, or a file without its neighbours."""
    entries = 0
    for log in segment_files(directory, [".log"]):
        for suffix, entry in ((".index", struct.Struct(">ii")), (".timeindex", struct.Struct(">qi"))):
            f = log.with_suffix(suffix)
            if not f.exists():
                raise Broken(f"{f} is missing")
            data = f.read_bytes()
            if len(data) % entry.size:
                raise Broken(f"{f}: {len(data)} bytes are no multiple of {entry.size}")
            last = (-1, -1) if suffix == ".timeindex" else (-1, 0)
            for n, found in enumerate(entry.iter_unpack(data)):
                # The first batch is never in the offset index, so its positions start above 0.
                if not (found[0] > last[0] and found[1] > last[1]):
                    raise Broken(f"{f}: entry {n} is {found}, expected both above {last}")
                if suffix == ".index" and found[1] >= log.stat().st_size:
                    raise Broken(f"{f}: entry {n} is {found}, but the log has {log.stat().st_size} bytes")
                last = found
                entries += 1
    return f"{entries} entries"


def check_dump(checks, root, scratch):
    directories = partition_dirs(root)
    if not directories:
        checks.run(f"segments under {root}", no_segments)
    for directory in directories:
        for mode in MODES:
            checks.run(f"kafka-dump-log, {mode.name}: {directory.name}", dump_mode, directory, mode, scratch)
        checks.run(f"index entries in order: {directory.name}", index_order, directory)


def no_segments():
    raise Broken("found no .log file; expected partition directories")


# --- canary: the harness must be able to fail -------------------------------------------------------------------------


def patch(f, position, change):
    data = bytearray(f.read_bytes())
    position %= len(data)
    data[position] = change(data[position])
    f.write_bytes(data)


DAMAGES = {
    "a flipped bit in a batch": (".log", lambda f: patch(f, -1, lambda b: b ^ 1)),
    "a torn last batch": (".log", lambda f: os.truncate(f, f.stat().st_size - 7)),
    "zeros behind the last batch": (".log", lambda f: os.truncate(f, f.stat().st_size + 4096)),
    "a zero entry behind the offset index": (".index", lambda f: os.truncate(f, f.stat().st_size + 8)),
    "an offset index entry for another batch": (".index", lambda f: patch(f, 3, lambda b: b ^ 1)),
    "half an offset index entry": (".index", lambda f: os.truncate(f, f.stat().st_size - 3)),
    "a zero entry behind the time index": (".timeindex", lambda f: os.truncate(f, f.stat().st_size + 12)),
    "a wrong timestamp in the time index": (".timeindex", lambda f: patch(f, 7, lambda b: b ^ 1)),
}


def canary(directory, suffix, damage, scratch):
    copy = copy_segments(directory, scratch)
    damaged = max(segment_files(copy, [suffix]), key=lambda f: f.stat().st_size)
    if damaged.stat().st_size == 0:
        raise Broken(f"{directory} has only empty {suffix} files: nothing to damage")
    damage(damaged)
    for check in [*(lambda m=m: dump_mode(copy, m, scratch) for m in MODES), lambda: index_order(copy)]:
        try:
            check()
        except Broken:
            shutil.rmtree(copy)
            return "seen"
    raise Broken("no check saw it")


def check_canary(checks, root, scratch):
    def size(directory):
        return max(f.stat().st_size for f in segment_files(directory, [".index"]))

    directory = max((d for d in partition_dirs(root)), key=size, default=None)
    if directory is None:
        checks.run(f"segments under {root}", no_segments)
        return
    for name, (suffix, damage) in DAMAGES.items():
        checks.run(f"damage is seen: {name}", canary, directory, suffix, damage, scratch)


# --- a real broker ----------------------------------------------------------------------------------------------------


class Broker:
    """One KRaft node on the loopback, as broker and controller, on ports that the kernel chose."""

    PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:0
listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
"""

    FORMAT_OPTIONS = ()
    # A quorum of its own; () for a node whose properties name the voters.
    QUORUM_OPTIONS = ("--standalone",)
    HOST = "127.0.0.1"
    REPLICAS = 1
    # Its own jars. Tools and consumers are those of LIB, whatever the broker's version.
    LIB = LIB

    # How often a broker of this process has forgotten what it had committed.
    left_out_markers = 0

    def __init__(self, home):
        self.home = pathlib.Path(home)
        self.data = self.home / "data"
        self.process = None
        self.bootstrap = None
        self.said = collections.deque(maxlen=200)
        self.properties = self.home / "server.properties"
        self.properties.write_text(self.PROPERTIES.format(data=self.data))
        options = (*self.QUORUM_OPTIONS, *self.FORMAT_OPTIONS)
        java_ok("kafka.tools.StorageTool", "format", *options, "-t", CLUSTER_ID, "-c", self.properties, lib=self.LIB)
        atexit.register(self.kill)

    def start(self):
        """Returns when the broker says that it serves; its ports are in what it says before."""
        lines = queue.Queue()
        level = "-Dorg.slf4j.simpleLogger."
        self.process = subprocess.Popen(
            [
                *JAVA,
                "-Xmx128m",
                f"{level}defaultLogLevel=warn",
                f"{level}log.kafka.server.KafkaRaftServer=info",
                f"{level}log.kafka.network.DataPlaneAcceptor=info",
                f"{level}log.kafka.coordinator.transaction.TransactionMarkerChannelManager=info",
                "-cp",
                f"{self.LIB}/*",
                "kafka.Kafka",
                str(self.properties),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,
        )

        def read(stream):
            for line in stream:
                self.said.append(line.decode(errors="replace").rstrip())
                if MARKERS_LEFT_OUT in self.said[-1]:
                    Broker.left_out_markers += 1
                lines.put(self.said[-1])
            lines.put(None)

        threading.Thread(target=read, args=(self.process.stdout,), daemon=True).start()
        deadline, ports = time.monotonic() + BROKER_START_SECONDS_MAX, []
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                self.kill()
                raise Broken("the broker did not start; it said:\n" + "\n".join(self.said))
            if found := re.search(rf"Awaiting socket connections on {re.escape(self.HOST)}:(\d+)\.", line):
                ports.append(int(found[1]))
            if "Kafka Server started" in line:
                break
        # The controller's socket opens first, the broker's second.
        self.bootstrap = f"{self.HOST}:{ports[1]}"

    def stop(self):
        """A clean shutdown: everything flushed, indexes trimmed."""
        process, self.process = self.process, None
        process.send_signal(signal.SIGTERM)
        code = process.wait(BROKER_STOP_SECONDS_MAX)
        if code != 143:
            raise Broken(f"the broker ended with {code}, expected 143; it said:\n" + "\n".join(self.said))

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def create_topic(self, topic, partitions, **configs):
        options = [o for k, v in configs.items() for o in ("--config", f"{k.replace('_', '.')}={v}")]
        java_ok(
            "org.apache.kafka.tools.TopicCommand",
            *("--bootstrap-server", self.bootstrap, "--create", "--topic", topic),
            *("--partitions", partitions, "--replication-factor", self.REPLICAS, *options),
        )

    def offsets(self, topic, which):
        """partition -> offset; `which` is -2 for the log start, -1 for the end."""
        out = java_ok(
            "org.apache.kafka.tools.GetOffsetShell",
            *("--bootstrap-server", self.bootstrap, "--topic", topic, "--time", which),
        )
        found = [line.rsplit(":", 2) for line in out.decode().splitlines() if line.startswith(topic + ":")]
        return {int(partition): int(offset) for _, partition, offset in found}

    def consume(self, topic, partition, records_max):
        """What Kafka's console consumer prints of a partition, in the shape of `kcat -J`."""
        formatter = {
            "print.timestamp": "true",
            "print.offset": "true",
            "print.headers": "true",
            "print.key": "true",
            "print.value": "true",
            "null.literal": NULL,
            "key.separator": FIELD,
            "headers.separator": HEADER,
            "line.separator": RECORD,
        }
        out = java_ok(
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            *("--bootstrap-server", self.bootstrap, "--topic", topic, "--partition", partition),
            *("--offset", "earliest", "--max-messages", records_max, "--timeout-ms", 30_000),
            *(o for k, v in formatter.items() for o in ("--formatter-property", f"{k}={v}")),
        )
        printed = out.decode().split(RECORD)
        if printed.pop() != "":
            raise Broken(f"the console consumer's output ends amid a record:\n{tail(out)}")
        return [parse_printed(topic, partition, line) for line in printed]


def parse_printed(topic, partition, line):
    """`CreateTime:T|Offset:N|h1:a;h2:b|key|value` with our separators."""
    time_field, offset_field, headers_field, key, value = line.split(FIELD)
    kind, timestamp = time_field.split(":")
    headers = []
    if headers_field != "NO_HEADERS":
        for header in headers_field.split(HEADER):
            name, header_value = header.split(":", 1)
            headers += [name, None if header_value == NULL else header_value]
    return {
        "topic": topic,
        "partition": partition,
        "offset": int(offset_field.removeprefix("Offset:")),
        "tstype": {"CreateTime": "create", "LogAppendTime": "logappend"}[kind],
        "ts": int(timestamp),
        "headers": headers,
        "key": None if key == NULL else key,
        "payload": None if value == NULL else value,
    }


FIELDS = ("topic", "partition", "offset", "tstype", "ts", "headers", "key", "payload")


def read_json_lines(text):
    records = []
    for n, line in enumerate(text.split("\n"), 1):
        if line:
            try:
                record = json.loads(line)
            except ValueError as e:
                raise Broken(f"line {n} is no JSON ({e}): {line[:200]}") from e
            # kcat leaves `headers` out where there are none.
            records.append({name: record.get(name, [] if name == "headers" else None) for name in FIELDS})
    return records


def by_partition(records):
    found = collections.defaultdict(list)
    for record in records:
        found[record["topic"], record["partition"]].append(record)
    return found


def shorten(value, characters_max=300):
    text = repr(value)
    return text if len(text) <= characters_max else f"{text[:characters_max]}... ({len(text)} characters)"


def same_records(expected, found):
    for want, have in zip(expected, found):
        if want != have:
            differing = [
                f"\n{name}: expected {shorten(want[name])}, found {shorten(have[name])}"
                for name in FIELDS
                if want[name] != have[name]
            ]
            raise Broken(f"the record expected at offset {want['offset']} differs:" + "".join(differing))
    if len(expected) != len(found):
        raise Broken(f"expected {len(expected)} records, found {len(found)}")


# --- serve: our partition directories under a broker ------------------------------------------------------------------


def split_name(name):
    """A topic may hold dashes: the partition is what follows the last one."""
    topic, _, partition = name.rpartition("-")
    if not topic or not partition.isdigit():
        raise Broken(f"{name!r} is no TOPIC-PARTITION")
    return topic, int(partition)


def put_under_broker(broker, directories, expected):
    """The broker knows the topics, is stopped, gets our files in place of its own, and must recover them unaided:
    no clean-shutdown mark, no index; of its own files only partition.metadata, which names the topic, stays."""
    log_starts = []
    partitions = collections.defaultdict(int)
    for topic, partition in directories:
        partitions[topic] = max(partitions[topic], partition + 1)
    broker.start()
    for topic, count in partitions.items():
        broker.create_topic(topic, count, retention_ms=-1)
    broker.stop()
    for (topic, partition), ours in directories.items():
        theirs = broker.data / f"{topic}-{partition}"
        for f in theirs.iterdir():
            if f.name != "partition.metadata":
                f.unlink()
        for f in segment_files(ours, [".log"]):
            shutil.copyfile(f, theirs / f.name)
        if (ours / "leader-epoch-checkpoint").exists():
            shutil.copyfile(ours / "leader-epoch-checkpoint", theirs / "leader-epoch-checkpoint")
        # Records were deleted up to the middle of a segment: a broker keeps that offset in a file of its own.
        first = min(int(f.stem) for f in segment_files(ours, [".log"]))
        if (records := expected.get((topic, partition))) and records[0]["offset"] > first:
            log_starts.append(f"{topic} {partition} {records[0]['offset']}\n")
    if log_starts:
        checkpoint = f"0\n{len(log_starts)}\n" + "".join(log_starts)
        (broker.data / "log-start-offset-checkpoint").write_text(checkpoint)
    (broker.data / ".kafka_cleanshutdown").unlink()
    broker.start()
    return f"{len(directories)} partitions"


def served(broker, topic, partition, expected):
    start, end = broker.offsets(topic, -2)[partition], broker.offsets(topic, -1)[partition]
    want = (expected[0]["offset"], expected[-1]["offset"] + 1)
    if (start, end) != want:
        raise Broken(f"the broker serves offsets {start} to {end}, expected {want[0]} to {want[1]}")
    same_records(expected, broker.consume(topic, partition, len(expected)))
    return f"{len(expected)} records from offset {start}"


def rebuilt_indexes(broker, name, ours):
    """The broker recovered our log and so built indexes of its own: byte for byte, they are ours. Call once stopped."""
    compared = 0
    for f in segment_files(ours, [".index", ".timeindex"]):
        theirs = (broker.data / name / f.name).read_bytes()
        if theirs != f.read_bytes():
            raise Broken(f"{f.name}: ours has {f.stat().st_size} bytes, the broker's {len(theirs)}; they differ")
        compared += 1
    return f"{compared} files"


def not_expected():
    raise Broken("it is not")


def check_serve(checks, directory, topic, expect, scratch):
    directory = pathlib.Path(directory)
    if segment_files(directory, [".log"]):
        ours = {split_name(topic if topic and topic.rpartition("-")[2].isdigit() else directory.name): directory}
    else:
        ours = {split_name(d.name): d for d in partition_dirs(directory)}
        ours = {name: d for name, d in ours.items() if topic in (None, name[0], f"{name[0]}-{name[1]}")}
    expected = by_partition(read_json_lines(pathlib.Path(expect).read_text(encoding="utf-8")))
    with Broker(scratch) as broker:
        started = f"a broker starts on the files of {directory.name}"
        if checks.run(started, put_under_broker, broker, ours, expected) is None:
            return
        for name in ours:
            if name in expected:
                checks.run(f"the console consumer reads {name[0]}-{name[1]}", served, broker, *name, expected[name])
            else:
                checks.run(f"{name[0]}-{name[1]} is in {expect}", not_expected)
        checks.run("the broker stops cleanly", broker.stop)
        for (topic, partition), ours_dir in ours.items():
            name = f"{topic}-{partition}"
            checks.run(f"the broker rebuilt the indexes of {name}", rebuilt_indexes, broker, name, ours_dir)


# --- write and read: the broker's partition directories here ----------------------------------------------------------

WRITTEN = "written-by.kafka"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def write(out, scratch):
    """A broker and Java producers write; what the console consumer prints is the expectation."""
    out = pathlib.Path(out)
    out.mkdir(parents=True)
    records = []
    with Broker(scratch) as broker:
        broker.start()
        broker.create_topic(WRITTEN, 2, retention_ms=-1, segment_bytes=1 << 20)
        java_ok(HERE / "Produce.java", broker.bootstrap, WRITTEN)
        for partition, end in sorted(broker.offsets(WRITTEN, -1).items()):
            records += broker.consume(WRITTEN, partition, end)
        broker.stop()
        for partition in (0, 1):
            name = f"{WRITTEN}-{partition}"
            shutil.copytree(broker.data / name, out / name)
    with open(out / "expect.jsonl", "w", encoding="utf-8") as f:
        f.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return f"{len(records)} records"


def every_codec(out, scratch):
    """Without this the test could grow weak unseen."""
    copy = copy_segments(pathlib.Path(out) / f"{WRITTEN}-0", scratch)
    logs = segment_files(copy, [".log"])
    dump = java_ok("org.apache.kafka.tools.DumpLogSegments", "--files", ",".join(map(str, logs))).decode()
    found = collections.Counter(re.findall(r"compresscodec: (\w+)", dump))
    if missing := [codec for codec in CODECS if codec not in found]:
        raise Broken(f"no batch is compressed with {', '.join(missing)}; found {dict(found)}")
    if len(logs) < 2:
        raise Broken("one segment only, expected a roll")
    return f"{len(logs)} segments, batches {dict(found)}"


def check_write(checks, out, scratch):
    if checks.run("a broker writes", write, out, scratch) is not None:
        checks.run("with every codec, in several segments", every_codec, out, scratch)


def edgelog_reads(data, topic, partition, expected):
    command = [EDGELOG, "--dir", str(data), "tail", f"{topic}-{partition}", "--from-beginning", "--no-follow", "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TOOL_SECONDS_MAX, check=False)
    if done.returncode != 0:
        raise Broken(f"{' '.join(command)}\nexit {done.returncode}, expected 0\n{tail(done.stderr)}")
    same_records(expected, read_json_lines(done.stdout.decode()))
    return f"{len(expected)} records"


def check_read(checks, directory, expect, scratch):
    """On a copy: opening for reading must not need the original to be writable, nor this check to be run but once."""
    expect = expect or pathlib.Path(directory) / "expect.jsonl"
    expected = by_partition(read_json_lines(pathlib.Path(expect).read_text(encoding="utf-8")))
    data = pathlib.Path(scratch) / "data"
    for d in partition_dirs(directory):
        shutil.copytree(d, data / d.name)
    for (topic, partition), records in sorted(expected.items()):
        checks.run(f"edgelog tail reads {topic}-{partition}", edgelog_reads, data, topic, partition, records)


# --- offsets: the positions of groups, by Kafka's own decoder ---------------------------------------------------------


def decoded_offsets(directory, scratch):
    """What kafka-dump-log --offsets-decoder says of a group's log: the last position of each partition."""
    copy = copy_segments(directory, scratch)
    logs = segment_files(copy, [".log"])
    command = ["org.apache.kafka.tools.DumpLogSegments", "--offsets-decoder", "--files", ",".join(map(str, logs))]
    text = java_ok(*command).decode()
    positions = {}
    for key, payload in re.findall(r"key: (\{.*?\}) payload: (\{.*\}|<DELETE>|null)$", text, re.MULTILINE):
        key = json.loads(key)
        if int(key["type"]) != 1 or set(key["data"]) != {"group", "topic", "partition"}:
            raise Broken(f"a key is {key}, expected an OffsetCommitKey of version 1")
        where = (key["data"]["group"], key["data"]["topic"], key["data"]["partition"])
        if payload in ("<DELETE>", "null"):
            positions.pop(where, None)
        else:
            positions[where] = json.loads(payload)
    if not positions:
        raise Broken(f"the decoder found no positions in\n{tail(text.encode())}")
    shutil.rmtree(copy)
    return positions


def same_positions(root, group_directory, scratch):
    positions = decoded_offsets(group_directory / "__consumer_offsets-0", scratch)
    group = next(iter(positions))[0]
    command = [EDGELOG, "--dir", str(root), "groups", "describe", group, "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TOOL_SECONDS_MAX, check=False)
    if done.returncode != 0:
        raise Broken(f"{' '.join(command)}\nexit {done.returncode}, expected 0\n{tail(done.stderr)}")
    ours = {}
    for line in done.stdout.decode().splitlines():
        at = json.loads(line)
        ours[(at["group"], at["topic"], at["partition"])] = (
            at["committed_offset"], -1 if at["leader_epoch"] is None else at["leader_epoch"], at["metadata"],
            at["commit_timestamp"],
        )
    theirs = {
        where: (int(said["data"]["offset"]), said["data"]["leaderEpoch"], said["data"]["metadata"],
                int(said["data"]["commitTimestamp"]))
        for where, said in positions.items()
    }
    if ours != theirs:
        raise Broken(f"edgelog says\n{ours}\nand Kafka's decoder\n{theirs}")
    return f"{len(ours)} positions"


def check_offsets(checks, root, scratch):
    groups = sorted((pathlib.Path(root) / "groups").iterdir())
    for directory in groups:
        checks.run(f"kafka-dump-log --offsets-decoder: {directory.name}", same_positions, root, directory, scratch)


# --- shares: the state of a share group, by Kafka's own decoder -------------------------------------------------------

# What the example job_queue does: so many jobs, of which every fifth fails once.
JOBS, FAILS_EVERY = 20, 5
ACKNOWLEDGED = 2


def decoded_shares(directory, scratch):
    """What kafka-dump-log --share-group-state-decoder says of a group's log: start offset and records by partition."""
    copy = copy_segments(directory, scratch)
    logs = segment_files(copy, [".log"])
    command = ["org.apache.kafka.tools.DumpLogSegments", "--share-group-state-decoder", "--files"]
    text = java_ok(*command, ",".join(map(str, logs))).decode()
    shares = {}
    for key, payload in re.findall(r"key: (\{.*?\}) payload: (\{.*\})$", text, re.MULTILINE):
        key, said = json.loads(key), json.loads(payload)["data"]
        start, records = shares.get(key["data"]["partition"], (0, {}))
        if key["type"] == "0":
            records = {}
        for batch in said["stateBatches"]:
            for offset in range(batch["firstOffset"], batch["lastOffset"] + 1):
                records[offset] = (batch["deliveryState"], batch["deliveryCount"])
        shares[key["data"]["partition"]] = (max(start, said["startOffset"]), records)
    if not shares:
        raise Broken(f"the decoder found no state in\n{tail(text.encode())}")
    shutil.rmtree(copy)
    return shares


def all_jobs_done(directory, scratch):
    (start, records), = decoded_shares(directory, scratch).values()
    expected = {n: (ACKNOWLEDGED, 2 if n % FAILS_EVERY == 0 else 1) for n in range(JOBS)}
    if records != expected:
        raise Broken(f"Kafka's decoder says\n{records}\nexpected\n{expected}")
    return f"{len(records)} records, start offset {start}"


def check_shares(checks, root, scratch):
    directory = pathlib.Path(root) / "groups" / "workers" / "__share_group_state-0"
    checks.run("kafka-dump-log --share-group-state-decoder", all_jobs_done, directory, scratch)


# --- command line -----------------------------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("archive", help="keep Kafka's classes as Java has parsed them: its programs start sooner")
    p = commands.add_parser("dump", help="run kafka-dump-log over a copy of every segment under DIR")
    p.add_argument("dir")
    p = commands.add_parser("canary", help="damage copies of DIR's segments: each damage must be seen by `dump`")
    p.add_argument("dir")
    p = commands.add_parser("serve", help="put partition directories under a broker, compare what it serves")
    p.add_argument("dir", help="a partition directory, or a directory of them")
    p.add_argument("--topic", help="TOPIC or TOPIC-PARTITION (default: all, by their names)")
    p.add_argument("--expect", required=True, help="JSON lines as `kcat -J` prints them")
    p = commands.add_parser("offsets", help="compare what Kafka's decoder says of the groups in DIR with edgelog")
    p.add_argument("dir", help="a data directory with groups")
    p = commands.add_parser("shares", help="compare what Kafka's decoder says of a share group with what job_queue did")
    p.add_argument("dir", help="its data directory")
    p = commands.add_parser("write", help="let a broker write partition directories and expect.jsonl to OUT")
    p.add_argument("out")
    p = commands.add_parser("read", help="compare `edgelog tail --json` on partition directories with the expectation")
    p.add_argument("dir")
    p.add_argument("--expect", help="JSON lines (default: DIR/expect.jsonl)")
    args = parser.parse_args()

    if args.command != "read" and not LIB.is_dir():
        parser.error(f"{LIB} is missing: `./test --only kafka` fetches Kafka's jars")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="edgelog-kafka-") as scratch:
        if args.command == "archive":
            checks.run("Kafka's classes are parsed once", make_archive, scratch)
        elif args.command == "dump":
            check_dump(checks, args.dir, scratch)
        elif args.command == "canary":
            check_canary(checks, args.dir, scratch)
        elif args.command == "serve":
            check_serve(checks, args.dir, args.topic, args.expect, scratch)
        elif args.command == "offsets":
            check_offsets(checks, args.dir, scratch)
        elif args.command == "shares":
            check_shares(checks, args.dir, scratch)
        elif args.command == "write":
            check_write(checks, args.out, scratch)
        else:
            check_read(checks, args.dir, args.expect, scratch)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
