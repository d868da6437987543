#!/usr/bin/env python3
"""The bridge against a real Kafka broker: no matter which process dies on the way, a read_committed consumer finds
every record once and in order, as it was appended.

    transfer.py run STORE --expect FILE [--seed N] [--only NAME,...]

STORE and FILE are what examples/mixed_workload made. Kafka's jars are in $EDGELOG_KAFKA_LIB, the command line is
$EDGELOG_BIN; `./test --only bridge` builds and fetches both. What is found is read by Consume.java, a consumer
that knows the end.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from harness import (
    EDGELOG,
    FENCED,
    RUN_SECONDS_MAX,
    SAME,
    SMALL,
    TALLY,
    UNABLE,
    Broken,
    Broker,
    Example,
    Run,
    append,
    command,
    everything_once,
    in_parallel,
    kafka,
    main,
    px,
    same_records,
    tail,
    values_of,
)

# So often the bridge is killed during one transfer, at least; and at most, where luck would have it that it never ends.
KILLS_MIN, KILLS_MAX = 100, 400

# --- the tests --------------------------------------------------------------------------------------------------------

def plain(world):
    """All of it, and nothing when asked again; and the metrics say so."""
    store = world.copy("plain")
    world.create_targets("p.")
    to, metrics = "p.{topic}", world.scratch / "plain.prom"
    run = Run(command(store, world.broker, "plain", to, "--metrics-file", str(metrics), **SAME)).expect(0)
    counted = samples(metrics.read_text(encoding="utf-8"))
    for (topic, partition), records in world.expected.items():
        labels = {"device": "plain", "topic": topic, "partition": str(partition)}
        for name, want in (("sent_records_total", len(records)), ("lag_records", 0), ("waiting", 0)):
            if (found := counted[sample(name, **labels)]) != want:
                raise Broken(f"{name} of {topic}-{partition} is {found}, expected {want}")
    events = [event for event in run.events if event["event"] == "committed"]
    for name, labels, want in (
        ("transactions_total", {"outcome": "committed"}, len(events)),
        ("transaction_duration_seconds_count", {}, len(events)),
        ("up", {}, 1),
    ):
        if (found := counted[sample(name, device="plain", **labels)]) != want:
            raise Broken(f"{name} is {found}, expected {want}")
    bytes_sent = sum(value for (name, _), value in counted.items() if name == "edgelog_bridge_sent_bytes_total")
    if bytes_sent != sum(event["bytes"] for event in events):
        raise Broken(f"the metrics count {bytes_sent} bytes, the events other ones")
    if run.records() != world.total:
        raise Broken(f"the bridge says that it sent {run.records()} records, expected {world.total}")
    again = Run(command(store, world.broker, "plain", to, **SAME)).expect(0)
    if again.records() != 0:
        raise Broken(f"a second run sent {again.records()} records again")
    status = subprocess.run(
        [EDGELOG, "--dir", str(store), "bridge", "status", "--json"], capture_output=True, check=True
    ).stdout.decode()
    if any(json.loads(line)["lag"] != 0 for line in status.splitlines()) or not status:
        raise Broken(f"the status shows a lag:\n{status}")
    transactions = sum(event["event"] == "committed" for event in run.events)
    return f"{everything_once(world.broker, world.expected, 'p.')}, {transactions} transactions"


def sample(name, **labels):
    return f"edgelog_bridge_{name}", frozenset(labels.items())


def samples(text):
    """(name, labels) -> value, of text without escapes in Prometheus' format."""
    lines = (re.fullmatch(r"(\w+){(.*)} (\S+)", line) for line in text.splitlines() if not line.startswith("#"))
    return {(m[1], frozenset(re.findall(r'(\w+)="([^"]*)"', m[2]))): float(m[3]) for m in lines}


def killed(world):
    """SIGKILL after a random number of transactions, a hundred times and more during one transfer."""
    store = world.copy("killed")
    world.create_targets("k.")
    kills = 0
    sets = {**SMALL, "edgelog.bridge.transaction.bytes": "4500"}
    while True:
        run = Run(command(store, world.broker, "killed", "k.{topic}", **sets))
        left = world.random.randrange(0, 6)
        while left > 0 and run.next_event() is not None:
            left -= 1
        if run.process.poll() is None and left == 0 and kills < KILLS_MAX:
            run.kill()
            kills += 1
            if run.events and run.events[-1]["event"] in ("caught-up", "positions"):
                break
            continue
        run.expect(0)
        break
    if kills < KILLS_MIN:
        raise Broken(f"only {kills} kills, expected {KILLS_MIN}: the transfer is too short")
    Run(command(store, world.broker, "killed", "k.{topic}", **sets)).expect(0)
    return f"{everything_once(world.broker, world.expected, 'k.')}, {kills} kills"


def cut(world):
    """Connections cut before, amid and after every kind of request, twice."""
    store = world.copy("cut")
    world.create_targets("c.")
    begin = [px.API_VERSIONS, px.METADATA, px.FIND_COORDINATOR, px.OFFSET_FETCH, px.INIT_PRODUCER_ID]
    faults = [(api, phase) for api in begin for phase in px.PHASES]
    transaction = [(api, p) for api in (px.PRODUCE, px.TXN_OFFSET_COMMIT, px.END_TXN) for p in px.PHASES]
    for _ in range(2):
        world.random.shuffle(transaction)
        faults += transaction
    world.broker.proxy.arm(faults)
    run = Run(command(store, world.broker, "cut", "c.{topic}", **SMALL)).expect(0)
    if left := world.broker.proxy.left():
        raise Broken(f"{left} faults never happened; the next is {world.broker.proxy.faults[0]}")
    aborted = sum(event["event"] == "aborted" for event in run.events)
    return f"{everything_once(world.broker, world.expected, 'c.')}, {len(faults)} cuts, {aborted} aborted"


def refused_batch(world):
    """One log whose batches the cluster refuses, and connections cut in every phase of the abort that this takes: that
    log waits, the others arrive."""
    for n, phase in enumerate(px.PHASES):
        label = f"refused-{n}"
        store = world.copy(label)
        # Records from 2023 are too old for the one topic. (Not for its transactions' markers, which are of today.)
        in_parallel(
            lambda: world.broker.create_topic(f"{label}.dense", 1, retention_ms=-1),
            lambda: world.broker.create_topic(
                f"{label}.aged", 1, retention_ms=-1, message_timestamp_before_max_ms=86_400_000
            ),
        )
        world.broker.proxy.arm([(px.END_TXN, phase)])
        run = Run(command(store, world.broker, label, f"{label}.{{topic}}", topics="aged,dense")).expect(UNABLE)
        if world.broker.proxy.left() or not any(event["event"] == "aborted" for event in run.events):
            raise Broken(f"{label}: nothing was aborted, or its connection was not cut: {run.events}")
        foretold = [e["reason"] for e in run.events if e["event"] == "rewrites" and e["topic"] == f"{label}.aged"]
        if not any("message.timestamp.before.max.ms=86400000" in reason for reason in foretold):
            raise Broken(f"{label}: no event says that the topic would refuse old records: {run.events}")
        good, refused = in_parallel(
            lambda: world.broker.consume_all(f"{label}.dense"), lambda: world.broker.consume_all(f"{label}.aged")
        )
        same_records(world.expected["dense", 0], good.get(0, []), label)
        if refused:
            raise Broken(f"{label}: what was refused arrived")
    return f"{len(px.PHASES)} aborts cut"


def timed_out(world):
    """The cluster aborts a transaction of ours whose commit did not reach it in time: that is no other copy of us."""
    with Broker(
        tempfile.mkdtemp(dir=world.scratch),
        **{"transaction.abort.timed.out.transaction.cleanup.interval.ms": 200},
    ) as broker:
        broker.start()
        broker.create_topic("t", 1, retention_ms=-1)
        store = world.scratch / "timed-out"
        values = []
        # An answer is waited for longer than the transaction may take.
        sets = {"transaction.timeout.ms": 1000, "request.timeout.ms": 2000}
        # The commit never arrives, and the answer to the next try is that it is too late. Or the second of two batches
        # never arrives. The abort that follows is cut.
        late_commit = [(px.END_TXN, px.SWALLOW_REQUEST), (px.END_TXN, px.LET_THROUGH)]
        late_batch = [(px.PRODUCE, px.LET_THROUGH), (px.PRODUCE, px.SWALLOW_REQUEST)]
        aborts = 0
        for late in (late_commit, late_batch):
            for phase in px.PHASES:
                more = [f"{late} {phase} {n} {'-' * 200}" for n in range(1500)]
                append(store, "t", more)
                values += more
                broker.proxy.arm([*late, (px.END_TXN, phase)])
                run = Run(command(store, broker, "late", "t", topics="t", **sets)).expect(0)
                aborts += sum(event["event"] == "aborted" for event in run.events)
                if broker.proxy.left():
                    raise Broken(f"{phase}: {broker.proxy.faults} never happened; {run.events}")
        found = values_of(broker.consume_all("t"))
        if found != values:
            raise Broken(f"expected {len(values)} records, found {len(found)}")
    if aborts < 8:
        raise Broken(f"only {aborts} transactions timed out")
    return f"{aborts} transactions timed out"


def broker_killed(world):
    """The broker dies amid transfers and comes back, on another port."""
    store = world.copy("broker")
    world.create_targets("b.")
    run = Run(command(store, world.broker, "broker", "b.{topic}", **SMALL))
    kills = 0
    for _ in range(3):
        for _ in range(world.random.randrange(3, 12)):
            if run.next_event() is None:
                raise Broken(f"the transfer ended early:\n{tail(bytes(run.errors))}")
        world.broker.kill()
        TALLY["faults"] += 1
        world.broker.start()
        kills += 1
    run.expect(0)
    return f"{everything_once(world.broker, world.expected, 'b.')}, {kills} kills of the broker"


def prefix_of_one(found, histories):
    """The number of the one history that `found` is a prefix of."""
    of = [n for n, history in enumerate(histories) if found == history[: len(found)]]
    if not of:
        raise Broken(f"what the cluster has is no prefix of any copy's history: {kafka.shorten(found)}")
    return of


def next_to_a_writer(world):
    """A service next to a program that has the store open and goes on appending: it sends what the program
    appends, lets no second bridge in, and ends when it is asked to."""
    store = world.scratch / "next-to"
    world.broker.create_topic("next-to", 1, retention_ms=-1)
    append(store, "t", ["before"])
    writer = subprocess.Popen(
        [EDGELOG, "--dir", str(store), "append", "t", "--quiet"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=kafka.die_with_parent,
    )
    sets = {"edgelog.bridge.interval.ms": 0}
    run = Run(command(store, world.broker, "next-to", "next-to", topics="t", forever=True, **sets))
    values = ["before"]

    def wait_for_all():
        while True:
            event = run.next_event()
            if event is None:
                raise Broken(f"the bridge ended: {tail(bytes(run.errors))}")
            if event["event"] == "committed" and event["positions"][0]["offset"] == len(values):
                return

    wait_for_all()
    for part in range(2):
        more = [f"part {part} record {n} {'-' * 100}" for n in range(1000)]
        writer.stdin.write("".join(f"{value}\n" for value in more).encode())
        writer.stdin.flush()
        values += more
        wait_for_all()
    second = Run(command(store, world.broker, "next-to", "next-to", topics="t")).expect(1)
    if b"another bridge works for this store" not in second.errors:
        raise Broken(f"a second bridge was not recognised: {bytes(second.errors)}")
    run.process.terminate()
    run.expect(0)
    writer.stdin.close()
    if writer.wait() != 0:
        raise Broken(f"the writer failed: {tail(writer.stderr.read())}")
    Run(command(store, world.broker, "next-to", "next-to", topics="t")).expect(0)
    found = values_of(world.broker.consume_all("next-to"))
    if found != values:
        raise Broken(f"expected {len(values)} records, found {len(found)}: {kafka.shorten(found)}")
    return f"{len(found)} records"


def within_the_writer(world):
    """A program that appends and sends from a thread of its own, whose broker dies meanwhile: it never ceases to
    append, ends without an error, and the result says how long an append took, with and without a bridge."""
    program, records = os.environ["EDGELOG_WITHIN_EXAMPLE"], 6000
    world.broker.create_topic("within", 1, retention_ms=-1)
    sets = {
        "bootstrap.servers": world.broker.address,
        "edgelog.device.id": "within",
        "edgelog.bridge.topics": "readings",
        "edgelog.bridge.to": "within",
        "edgelog.bridge.interval.ms": 100,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 300,
    }
    run = Example([program, world.scratch / "within", records], sets)
    # Three, and one at least for what was appended since: the fourth does not wait for the machine's pace.
    for _ in range(3):
        run.until("Committed")
    world.broker.kill()
    TALLY["faults"] += 1
    world.broker.start()
    run.succeed()
    last = run.said.splitlines()[-1]
    if not last.startswith(f"appended {records};"):
        raise Broken(f"it said at last: {last}")
    found = values_of(world.broker.consume_all("within"))
    if found != [f"reading {n}" for n in range(records)]:
        raise Broken(f"expected {records} records, found {len(found)}: {kafka.shorten(found)}")
    if (committed := run.said.count("\nCommitted") + run.said.startswith("Committed")) < 4:
        raise Broken(f"{committed} transactions: it was all sent at once")
    alone = subprocess.run(
        [program, str(world.scratch / "alone"), str(records // 2)], stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    return f"{records} records in {committed} transactions; {last}; alone: {alone.strip()}"


def before_any_checkpoint(world):
    """A program that flushes nothing, and a bridge next to it: what it appends arrives long before its checkpoint names
    it. After the program died, what no writer vouches for is not sent until the store was opened again, and the bridge
    says so."""
    store = world.scratch / "vouched"
    world.broker.create_topic("v.t", 1, retention_ms=-1)
    append(store, "t", ["closed"])
    appending = [EDGELOG, "--dir", str(store), "append", "t", "--quiet", "--acks", "1"]
    options = {"topics": "t", "edgelog.bridge.interval.ms": "200"}
    expected = ["closed"]

    def recovery_point():
        stat = subprocess.run(
            [EDGELOG, "--dir", str(store), "stat", "t-0", "--json"], capture_output=True, check=True
        ).stdout
        return json.loads(stat)["recovery_point"]

    with subprocess.Popen(appending, stdin=subprocess.PIPE) as writer:
        run = Run(command(store, world.broker, "vouched", "v.{topic}", forever=True, **options))
        for n in range(5):
            expected.append(f"in the page cache {n}")
            writer.stdin.write(f"{expected[-1]}\n".encode())
            writer.stdin.flush()
            while run.records() < len(expected):
                if run.next_event() is None:
                    run.expect(0)
        if (named := recovery_point()) != 1:
            raise Broken(f"the writer's checkpoint names {named}: this shows nothing")
        run.kill()
        # What comes now is in the page cache alone when its writer dies.
        writer.stdin.write(b"unvouched\n")
        writer.stdin.flush()
        tail = [EDGELOG, "--dir", str(store), "tail", "t", "--offset", str(len(expected)), "-n", "1"]
        subprocess.run(tail, capture_output=True, check=True, timeout=RUN_SECONDS_MAX)
        writer.kill()
    left = Run(command(store, world.broker, "vouched", "v.{topic}", **options)).expect(UNABLE).events[-1]["logs"][0]
    if (left["lag"], f"from offset {len(expected)} on" in left["waits"]) != (1, True):
        raise Broken(f"it says {left}")
    if (found := values_of(world.broker.consume_all("v.t"))) != expected:
        raise Broken(f"expected {expected}, found {found}")
    append(store, "t", ["opened again"])
    Run(command(store, world.broker, "vouched", "v.{topic}", **options)).expect(0)
    expected += ["unvouched", "opened again"]
    if (found := values_of(world.broker.consume_all("v.t"))) != expected:
        raise Broken(f"expected {expected}, found {found}")
    return f"{len(expected)} records, {len(expected) - 3} of them before any checkpoint"


def cloned(world):
    """Two copies of one device that went on separately: one is fenced, and the cluster has one history."""
    fenced = conflicts = 0
    for turn in range(2):
        to = f"clone{turn}"
        device = f"clone{turn}"
        world.broker.create_topic(to, 1, retention_ms=-1)
        stores = [world.scratch / f"clone{turn}-{n}" for n in range(2)]
        common = [f"common {n}" for n in range(300)]
        append(stores[0], "t", common)
        # Half of the turns begin with copies that were sent from before, the others with new ones.
        if turn % 2:
            Run(command(stores[0], world.broker, device, to, topics="t")).expect(0)
        shutil.copytree(stores[0], stores[1])
        histories = []
        for n, store in enumerate(stores):
            own = [f"copy {n} record {m}" for m in range(3000)]
            append(store, "t", own)
            histories.append(common + own)
        sets = {"edgelog.bridge.transaction.bytes": "2000"}
        runs = [Run(command(store, world.broker, device, to, topics="t", **sets)) for store in stores]
        codes = [run.wait() for run in runs]
        if sorted(codes) not in ([0, FENCED], [FENCED, FENCED]):
            said = "\n".join(tail(bytes(run.errors)) for run in runs)
            raise Broken(f"turn {turn}: the copies ended with {codes}, expected one 3\n{said}")
        for run in runs:
            text = bytes(run.errors)
            fenced += b"fenced: another bridge" in text
            conflicts += b"is not one of the log here" in text
        found = values_of(world.broker.consume_all(to))
        winners = prefix_of_one(found, histories)
        # Started again, each says the same: the one whose history it is goes on, the other does nothing.
        again = [Run(command(store, world.broker, device, to, topics="t", **sets)).wait() for store in stores]
        winner = next((n for n in range(2) if again[n] == 0), None)
        if winner is None or again[1 - winner] != FENCED or winner not in winners:
            raise Broken(f"turn {turn}: started again the copies end with {again}, history {winners}")
        if values_of(world.broker.consume_all(to)) != histories[winner]:
            raise Broken(f"turn {turn}: the cluster has not exactly what copy {winner} holds")
    return f"{fenced} fenced, {conflicts} recognised before"


def wrong_copy_fences_no_bridge(world):
    """A restored backup, or a log that was created again under the same device: stops before it takes the id over."""
    to, device = "wrong", "wrong"
    world.broker.create_topic(to, 1, retention_ms=-1)
    right, backup, again = (world.scratch / f"wrong-{n}" for n in ("right", "backup", "again"))
    append(right, "t", ["one", "two"])
    shutil.copytree(right, backup)
    append(right, "t", ["three"])
    Run(command(right, world.broker, device, to, topics="t")).expect(0)
    append(again, "t", ["other"])
    for store, words in ((backup, b"ends at offset"), (again, b"another identity")):
        run = Run(command(store, world.broker, device, to, topics="t")).expect(FENCED)
        if words not in run.errors:
            raise Broken(f"expected {words}, found {bytes(run.errors)}")
    # The right one was not disturbed: it still holds its epoch, and goes on.
    append(right, "t", ["four"])
    Run(command(right, world.broker, device, to, topics="t")).expect(0)
    found = values_of(world.broker.consume_all(to))
    if found != ["one", "two", "three", "four"]:
        raise Broken(f"found {found}")
    return "2 copies stopped"


def forgotten(world):
    """The cluster has forgotten the position (here: the group is deleted): the note decides, also where the bridge died
    between asking for the commit and hearing of it, whichever way that went."""
    outcomes = {}
    for name, fault in (
        ("noted", None),
        ("never asked", px.SWALLOW_REQUEST),
        ("never heard", px.SWALLOW_ANSWER),
    ):
        for turn in range(2):
            label = f"forgot-{name.replace(' ', '-')}-{turn}"
            world.broker.create_topic(label, 1, retention_ms=-1)
            store = world.scratch / label
            values = []
            # The first transaction of all, and one behind others: with and without a position that is done.
            for part in range(turn + 1):
                more = [f"part {part} record {n}" for n in range(50)]
                append(store, "t", more)
                values += more
                if part < turn or fault is None:
                    Run(command(store, world.broker, label, label, topics="t")).expect(0)
                    continue
                injected = sum(world.broker.proxy.injected.values())
                world.broker.proxy.arm([(px.END_TXN, fault)])
                run = Run(command(store, world.broker, label, label, topics="t"))
                if not world.broker.proxy.wait_injected(injected + 1, RUN_SECONDS_MAX):
                    raise Broken(f"{label}: no commit was asked for")
                run.kill()
            if fault == px.SWALLOW_REQUEST:
                # A position is deleted only when no transaction holds it: claim the id, which aborts what is open.
                # The start that follows does that itself; the group is there only where something was committed.
                if turn > 0:
                    abort_open(world, store, label)
            elif turn > 0 or fault is not None:
                pass
            if turn > 0 or fault != px.SWALLOW_REQUEST:
                delete_group_of(world, label)
            Run(command(store, world.broker, label, label, topics="t")).expect(0)
            found = values_of(world.broker.consume_all(label))
            if found != values:
                raise Broken(f"{label}: expected {len(values)} records, found {len(found)}: {kafka.shorten(found)}")
            outcomes[label] = len(found)
    return f"{len(outcomes)} cases"


def abort_open(world, store, label):
    """Lets a copy of the bridge begin and stop: InitProducerId aborts what the dead one left open."""
    copy = world.scratch / f"{label}-begin"
    shutil.copytree(store, copy)
    world.broker.proxy.arm([(px.PRODUCE, px.SWALLOW_REQUEST)])
    injected = sum(world.broker.proxy.injected.values())
    run = Run(command(copy, world.broker, label, label, topics="t"))
    if not world.broker.proxy.wait_injected(injected + 1, RUN_SECONDS_MAX):
        raise Broken(f"{label}: the copy did not begin")
    run.kill()


def delete_group_of(world, label):
    world.broker.delete_group(f"edgelog:{label}:t-0")


def topic_recreated(world):
    """The target topic was deleted and created again: that is reported, and nothing is sent until a person decides."""
    world.broker.create_topic("again", 1, retention_ms=-1)
    store = world.scratch / "again"
    append(store, "t", ["one", "two"])
    Run(command(store, world.broker, "again", "again", topics="t")).expect(0)
    kafka.java_ok(
        "org.apache.kafka.tools.TopicCommand",
        *("--bootstrap-server", world.broker.bootstrap, "--delete", "--topic", "again"),
    )
    world.broker.create_topic("again", 1, retention_ms=-1)
    append(store, "t", ["three"])
    run = Run(command(store, world.broker, "again", "again", topics="t")).expect(UNABLE)
    reasons = [event["reason"] for event in run.events if event["event"] == "waiting"]
    if not any("re-created" in reason for reason in reasons):
        raise Broken(f"expected it to be reported as re-created, found {reasons}")
    if world.broker.consume_all("again"):
        raise Broken("something was sent all the same")
    return reasons[0]


def one_topic_cannot(world):
    """A topic that the cluster lacks, one whose records it would delete on arrival, one whose records are too large:
    each is reported, and the others go."""
    store = world.scratch / "cannot"
    for log in ("good", "absent", "old"):
        append(store, log, [f"{log} {n}" for n in range(10)])
    append(store, "large", ["small", "x" * 5000, "behind"])
    world.broker.create_topic("q.good", 1, retention_ms=-1)
    world.broker.create_topic("q.old", 1, retention_ms=1)
    world.broker.create_topic("q.large", 1, retention_ms=-1, max_message_bytes=3000)
    run = Run(command(store, world.broker, "cannot", "q.{topic}")).expect(UNABLE)
    reasons = {event["log"]: event["reason"] for event in run.events if event["event"] == "waiting"}
    for log, words in (("absent-0", "cannot be used"), ("old-0", "retention.ms"), ("large-0", "max.message.bytes")):
        if words not in reasons.get(log, ""):
            raise Broken(f"{log}: expected {words!r} in {reasons}")
    if "good-0" in reasons:
        raise Broken(f"good-0 waits: {reasons}")
    found = values_of(world.broker.consume_all("q.good"))
    if found != [f"good {n}" for n in range(10)]:
        raise Broken(f"q.good holds {found}")
    return "3 reported, 1 sent"


TESTS = {
    "plain": plain,
    "killed": killed,
    "cut": cut,
    "refused_batch": refused_batch,
    "timed_out": timed_out,
    "broker_killed": broker_killed,
    "next_to_a_writer": next_to_a_writer,
    "within_the_writer": within_the_writer,
    "before_any_checkpoint": before_any_checkpoint,
    "cloned": cloned,
    "wrong_copy_fences_no_bridge": wrong_copy_fences_no_bridge,
    "forgotten": forgotten,
    "topic_recreated": topic_recreated,
    "one_topic_cannot": one_topic_cannot,
}


if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, Broker))
