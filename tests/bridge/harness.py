"""What the bridge's tests share: a broker behind a proxy, the command line, and what has to be there in the end."""

import argparse
import atexit
import collections
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "kafka"))

import check as kafka  # noqa: E402
import proxy as px  # noqa: E402
from check import Broken, Checks, tail  # noqa: E402

EDGELOG = os.environ.get("EDGELOG_BIN", "edgelog")
# No run of the bridge takes longer, but one that hangs.
RUN_SECONDS_MAX = 180
FENCED = 3
UNABLE = 2

SAME = {"edgelog.bridge.partition": "same"}
SMALL = {**SAME, "edgelog.bridge.transaction.bytes": "12000"}


# What was done to bridges, brokers and connections, and what was read back and held to what was appended.
TALLY = collections.Counter()
PROXIES = []


def tally():
    faults = TALLY["faults"] + sum(sum(proxy.injected.values()) for proxy in PROXIES)
    return f"in all: {faults} faults injected, {TALLY['records']} records read back and compared"


@functools.cache
def consumer_classes():
    """Where Consume.java is compiled to, once for all that is consumed."""
    classes = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, classes, ignore_errors=True)
    subprocess.run(["javac", "-cp", f"{kafka.LIB}/*", "-d", classes, HERE / "Consume.java"], check=True)
    return classes


class Broker(kafka.Broker):
    """A broker behind a proxy whose address never changes."""

    def __init__(self, home, *, features=(), format_options=(), lib=kafka.LIB, **properties):
        self.LIB = lib
        self.proxy = px.Proxy()
        PROXIES.append(self.proxy)
        # Where bridges connect to.
        self.address = self.proxy.address
        advertised = f"PLAINTEXT://{self.proxy.address}"
        if "INTERNAL" in properties.get("listeners", ""):
            advertised += ",INTERNAL://127.0.0.1:0"
        more = {"advertised.listeners": advertised, **properties}
        self.PROPERTIES = kafka.Broker.PROPERTIES + "".join(f"{k}={v}\n" for k, v in more.items())
        self.FORMAT_OPTIONS = [*format_options, *(o for feature in features for o in ("--feature", feature))]
        super().__init__(home)

    def start(self):
        super().start()
        self.proxy.forward_to(int(self.bootstrap.rpartition(":")[2]))

    def consume_all(self, topic):
        """partition -> what a read_committed consumer finds there, from the first record to the last."""
        marks = (kafka.FIELD, kafka.HEADER, kafka.RECORD, kafka.NULL)
        out = kafka.java_ok("Consume", self.bootstrap, topic, *marks, classes=consumer_classes())
        printed = out.decode().split(kafka.RECORD)
        if printed.pop() != "":
            raise Broken(f"the consumer's output ends amid a record:\n{tail(out)}")
        found = {}
        for line in printed:
            time_field, partition_field, rest = line.split(kafka.FIELD, 2)
            partition = int(partition_field.removeprefix("Partition:"))
            record = kafka.parse_printed(topic, partition, time_field + kafka.FIELD + rest)
            found.setdefault(partition, []).append(record)
        TALLY["records"] += len(printed)
        return found

    def delete_group(self, group):
        kafka.java_ok(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            *("--bootstrap-server", self.bootstrap, "--delete", "--group", group),
        )


# --- the bridge -------------------------------------------------------------------------------------------------------


def command(store, broker, device, to, *more, topics="*", forever=False, **sets):
    """The bridge's command line; where it is not to run `forever`, it ends when it has caught up."""
    settings = {"reconnect.backoff.ms": "20", "reconnect.backoff.max.ms": "500", **sets}
    return [
        *(EDGELOG, "--dir", str(store), "bridge", "run", "--json"),
        *(() if forever else ("--until-caught-up",)),
        *("--bootstrap", broker.address, "--device", device, "--topics", topics, "--to", to),
        *(o for k, v in settings.items() for o in ("--set", f"{k}={v}")),
        *more,
    ]


def alarm_of(process, seconds_max):
    """Kills a process that hangs, unless it is cancelled."""
    alarm = threading.Timer(seconds_max, process.kill)
    # A test that broke does not wait for it.
    alarm.daemon = True
    alarm.start()
    return alarm


class Run:
    """A running bridge, whose lines are read as it prints them."""

    def __init__(self, arguments, seconds_max=RUN_SECONDS_MAX):
        self.arguments = arguments
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=kafka.die_with_parent,
        )
        self.events = []
        self.errors = bytearray()
        self.reader = threading.Thread(target=self.read_errors, daemon=True)
        self.reader.start()
        self.alarm = alarm_of(self.process, seconds_max)

    def read_errors(self):
        for line in self.process.stderr:
            self.errors += line

    def next_event(self):
        """The next thing it says; None when it has ended."""
        line = self.process.stdout.readline()
        if not line:
            return None
        self.events.append(json.loads(line))
        return self.events[-1]

    def kill(self):
        TALLY["faults"] += 1
        self.process.kill()
        return self.wait()

    def wait(self):
        while self.next_event() is not None:
            pass
        code = self.process.wait()
        self.alarm.cancel()
        self.reader.join()
        if code in (0, UNABLE) and {"--json", "--until-caught-up"} <= set(self.arguments):
            self.hold_to_positions(code)
        return code

    def hold_to_positions(self, code):
        """Caught up means delivered: a log that does not wait has a lag of 0, and only where none waits all is well."""
        last = self.events[-1] if self.events else {}
        if last.get("event") != "positions" or not last["logs"]:
            raise Broken(f"it ended with {code} without saying how far each log is delivered: {last}")
        behind = [log for log in last["logs"] if log["waits"] is None and log["lag"] != 0]
        waits = any(log["waits"] is not None for log in last["logs"])
        said = any(event["event"] == "caught-up" for event in self.events[-2:])
        if behind or waits != (code == UNABLE) or said == waits:
            raise Broken(f"it ended with {code}, and says that it has caught up: {said}; {last}")
        TALLY["positions"] += len(last["logs"])

    def expect(self, code):
        found = self.wait()
        if found != code:
            said = "\n".join(map(json.dumps, self.events[-10:]))
            raise Broken(f"the bridge ended with {found}, expected {code}\n{said}\n{tail(bytes(self.errors))}")
        return self

    def records(self):
        return sum(event["records"] for event in self.events if event["event"] == "committed")


def held_back(change, store, broker, *more, **sets):
    """A bridge that has looked at its targets and is let on only behind `change`, however long that takes."""
    broker.proxy.arm([(px.INIT_PRODUCER_ID, px.SWALLOW_REQUEST)] * 20)
    injected = sum(broker.proxy.injected.values())
    run = Run(command(store, broker, *more, **sets, **{"request.timeout.ms": 5000}))
    if not broker.proxy.wait_injected(injected + 1, 60):
        raise Broken("it did not begin")
    change()
    broker.proxy.arm([])
    return run


class Example:
    """A program of examples/, run with the bridge's settings. What it says, errors included, is read as it says it."""

    def __init__(self, arguments, sets, seconds_max=RUN_SECONDS_MAX):
        self.said = ""
        self.process = subprocess.Popen(
            [*map(str, arguments), *(f"{key}={value}" for key, value in sets.items())],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=kafka.die_with_parent,
            text=True,
        )
        self.alarm = alarm_of(self.process, seconds_max)

    def until(self, words):
        for line in self.process.stdout:
            self.said += line
            if words in line:
                return
        raise Broken(f"it ended without {words!r}: {self.said}")

    def succeed(self):
        self.said += self.process.stdout.read()
        self.alarm.cancel()
        if self.process.wait() != 0:
            raise Broken(f"it ended with {self.process.returncode}: {self.said}")


# --- what must be there -----------------------------------------------------------------------------------------------


def anonymous(record):
    """Without the offset, which control records shift, and the topic, which is another one there."""
    return {name: value for name, value in record.items() if name not in ("offset", "topic", "tstype")}


def same_records(want, found, where):
    for n, (wanted, have) in enumerate(zip(want, found)):
        if anonymous(wanted) != anonymous(have):
            raise Broken(
                f"{where}: record {n} differs\nexpected {kafka.shorten(anonymous(wanted))}\n"
                f"found    {kafka.shorten(anonymous(have))}"
            )
        if n > 0 and have["offset"] <= found[n - 1]["offset"]:
            raise Broken(f"{where}: offset {have['offset']} follows {found[n - 1]['offset']}")
    if len(want) != len(found):
        raise Broken(f"{where}: expected {len(want)} records, found {len(found)}")


def roll(digest, records):
    """Takes these records on into a hash of all before them."""
    for record in records:
        digest.update(json.dumps(anonymous(record), sort_keys=True).encode())


def everything_once(broker, expected, prefix):
    """Every record of every log, once and in order, in the partition of the same number; and a hash that rolls over
    all of them is the same on both sides."""
    compared, here, there = 0, hashlib.sha256(), hashlib.sha256()
    topics = sorted({topic for topic, _ in expected})
    consumed = in_parallel(*(functools.partial(broker.consume_all, prefix + topic) for topic in topics))
    for topic, found in zip(topics, consumed):
        partitions = {partition for name, partition in expected if name == topic}
        for partition in sorted(partitions | set(found)):
            want = expected.get((topic, partition), [])
            same_records(want, found.get(partition, []), f"{prefix}{topic}-{partition}")
            roll(here, want)
            roll(there, found.get(partition, []))
            compared += len(want)
    if here.digest() != there.digest():
        raise Broken(f"{prefix}: the records' hash is {there.hexdigest()}, expected {here.hexdigest()}")
    return f"{compared} records compared, {here.hexdigest()[:8]} on both sides"


def in_parallel(*calls):
    """What each of these answers; Kafka's tools mostly wait."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


class World:
    """A store to send from, what is in it, and a broker with the target topics."""

    def __init__(self, broker, store, expected, scratch, seed):
        self.broker, self.store, self.expected = broker, pathlib.Path(store), expected
        self.scratch, self.random = pathlib.Path(scratch), random.Random(seed)
        self.total = sum(map(len, expected.values()))

    def copy(self, name):
        """A copy to bridge from: each test its own note."""
        return pathlib.Path(shutil.copytree(self.store, self.scratch / name))

    def create_targets(self, prefix, **configs):
        counts = {}
        for topic, partition in self.expected:
            counts[topic] = max(counts.get(topic, 0), partition + 1)
        create = functools.partial(self.broker.create_topic, retention_ms=-1, **configs)
        in_parallel(*(functools.partial(create, prefix + topic, count) for topic, count in counts.items()))


# --- small stores -----------------------------------------------------------------------------------------------------


def append(store, log, values, *more):
    """Appends lines; the CLI closes the store cleanly, so all of it is durable."""
    subprocess.run(
        [EDGELOG, "--dir", str(store), "append", log, "--quiet", *more],
        input="".join(f"{value}\n" for value in values).encode(),
        check=True,
        capture_output=True,
    )


def values_of(found):
    return [record["payload"] for _, records in sorted(found.items()) for record in records]


# --- the command line -------------------------------------------------------------------------------------------------


def main(doc, tests, make_broker):
    """The command line of a file of tests, each of which gets a World."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("run", help="all tests, or some")
    p.add_argument("store", help="the data directory that mixed_workload filled")
    p.add_argument("--expect", required=True, help="what is in it, as mixed_workload wrote it")
    p.add_argument("--seed", type=int, help="of what is random; printed where it is not given")
    p.add_argument("--only", help=f"some of {', '.join(tests)}")
    p.add_argument("--without", help="all but some of these", default="")
    args = parser.parse_args()
    if not kafka.LIB.is_dir():
        parser.error(f"{kafka.LIB} is missing: `./test --only bridge` fetches Kafka's jars")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = args.seed if args.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    expected = kafka.by_partition(kafka.read_json_lines(pathlib.Path(args.expect).read_text(encoding="utf-8")))
    checks = Checks()

    def run(names):
        """Returns those that broke while their broker forgot what it had committed: kafka.MARKERS_LEFT_OUT."""
        forgotten = []
        with tempfile.TemporaryDirectory(prefix="edgelog-bridge-") as scratch:
            with make_broker(tempfile.mkdtemp(dir=scratch)) as broker:
                broker.start()
                world = World(broker, args.store, expected, scratch, seed)
                for name in names:
                    before = (checks.broken, kafka.Broker.left_out_markers)
                    checks.run(name.replace("_", " "), tests[name], world)
                    if checks.broken > before[0] and kafka.Broker.left_out_markers > before[1]:
                        forgotten.append(name)
                broker.stop()
        return forgotten

    # One more try for each, on a broker that has forgotten nothing.
    names = args.only.split(",") if args.only else tests
    for name in run([name for name in names if name not in args.without.split(",")]):
        print(f"again  {name.replace('_', ' ')}: its broker completed a transaction without its markers", flush=True)
        checks.broken -= 1
        run([name])
    print(tally(), flush=True)
    return checks.finish()
