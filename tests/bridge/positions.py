#!/usr/bin/env python3
"""Where the bridge goes on: positions that the cluster forgets, topics that a person decides about, devices that stall,
and clusters whose transactions are not those of exactly-once delivery.

    positions.py run STORE --expect FILE [--seed N] [--only NAME,...]

Arguments, jars and the command line are those of transfer.py.
"""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from harness import (
    EDGELOG,
    FENCED,
    TALLY,
    UNABLE,
    Broken,
    Broker,
    Run,
    append,
    command,
    in_parallel,
    kafka,
    main,
    px,
    tail,
    values_of,
)

# No position is forgotten later than this: a minute of silence, and the cluster's look every half second.
FORGOTTEN_SECONDS_MAX = 150


def lines(name, count=50):
    return [f"{name} {n}" for n in range(count)]


def delete_topic(broker, topic):
    kafka.java_ok(
        "org.apache.kafka.tools.TopicCommand",
        *("--bootstrap-server", broker.bootstrap, "--delete", "--topic", topic),
    )


def positions_of(broker, label):
    """What the cluster knows of a device's only log, as the tool prints it."""
    _, out, _ = kafka.java(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        *("--bootstrap-server", broker.bootstrap, "--describe", "--group", f"edgelog:{label}:t-0"),
    )
    return [line for line in out.decode().splitlines() if line.split()[:1] == [f"edgelog:{label}:t-0"]]


def until(what, call):
    """Asks until it is so."""
    deadline = time.monotonic() + FORGOTTEN_SECONDS_MAX
    while not call():
        if time.monotonic() > deadline:
            raise Broken(f"never: {what}")


def expired(world):
    """Positions expire after a minute of silence in this cluster. A bridge that was killed between asking for a commit
    and hearing of it is started again once its position is forgotten: whichever way the commit went, every record is
    there once. One that had nothing to send meanwhile has committed its position again."""
    with Broker(
        tempfile.mkdtemp(dir=world.scratch),
        **{
            "offsets.retention.minutes": 1,
            "offsets.retention.check.interval.ms": 500,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
        },
    ) as broker:
        broker.start()
        faults = {"asked": px.SWALLOW_ANSWER, "never-asked": px.SWALLOW_REQUEST}
        cases = {f"{what}{when}": (what, fault) for what in ("", "dead-", "lost-") for when, fault in faults.items()}
        sets = {"transaction.timeout.ms": 5000}
        # The one that stays: looked at in the end.
        broker.create_topic("idle", 1, retention_ms=-1)
        append(world.scratch / "idle", "t", lines("idle"))
        idle = Run(
            command(
                world.scratch / "idle",
                *(broker, "idle", "idle"),
                topics="t",
                forever=True,
                **{"edgelog.bridge.recommit.ms": 10_000},
            ),
            seconds_max=2 * FORGOTTEN_SECONDS_MAX,
        )
        while (event := idle.next_event()) is not None and event["event"] != "caught-up":
            pass
        drain = threading.Thread(target=idle.wait, daemon=True)
        drain.start()
        compacted = {"cleanup_policy": "compact", "min_compaction_lag_ms": 86_400_000}
        in_parallel(
            *(functools.partial(broker.create_topic, label, 1, retention_ms=-1, **compacted) for label in cases),
            *(functools.partial(broker.create_topic, f"{label}.dead", 1, retention_ms=-1) for label in cases),
            *(functools.partial(broker.create_topic, f"aside.{label}", 1, retention_ms=-1) for label in cases),
        )

        def arguments(label):
            # A topic's name decides about its place in a request: what is lost is the first thing there.
            side = {
                "edgelog.bridge.dead.letter.topic": f"{label}.dead",
                "edgelog.bridge.loss.topic": f"aside.{label}",
            }
            return command(world.scratch / f"expired-{label}", broker, label, label, topics="t", **sets, **side)

        # Those without a key become dead letters: all that the open transaction carries.
        second = {"": [f"k:{line}" for line in lines("second")], "dead-": ["second 0"]}
        second["lost-"] = second[""]
        for label, (what, fault) in cases.items():
            store = world.scratch / f"expired-{label}"
            append(store, "t", [f"k:{line}" for line in lines("first")], "-K", ":")
            Run(arguments(label)).expect(0)
            segment = store / "t-0" / f"{0:020}.log"
            undamaged = segment.stat().st_size
            if what == "lost-":
                append(store, "t", ["k:damaged"], "-K", ":")
            append(store, "t", second[what], "-K", ":")
            if what == "lost-":
                data = bytearray(segment.read_bytes())
                data[undamaged + 70] ^= 0xFF
                segment.write_bytes(data)
            # Another bridge commits there too: it is the next one of this device.
            armed = [(px.PRODUCE, px.LET_THROUGH), (px.END_TXN, fault)]
            injected = sum(broker.proxy.injected.values())
            broker.proxy.arm(armed)
            run = Run(arguments(label))
            if not broker.proxy.wait_injected(injected + len(armed), 60):
                raise Broken(f"{label}: no commit was asked for")
            run.kill()
        for label in cases:
            until(f"the position of {label} is forgotten", lambda label=label: not positions_of(broker, label))
        for label, (what, _) in cases.items():
            Run(arguments(label)).expect(0)
            wanted = {label: lines("first"), f"{label}.dead": []}
            wanted[f"{label}.dead" if what == "dead-" else label] += [line.removeprefix("k:") for line in second[what]]
            topics = (*wanted, f"aside.{label}")
            found = in_parallel(*(functools.partial(broker.consume_all, topic) for topic in topics))
            *found, lost = map(values_of, found)
            for (where, values), records in zip(wanted.items(), found, strict=True):
                if records != values:
                    raise Broken(f"{where}: expected {len(values)} records, found {kafka.shorten(records)}")
            reported = [json.loads(one)["first_offset"] for one in lost]
            if reported != ([len(lines("first"))] if what == "lost-" else []):
                raise Broken(f"{label}: reported as lost is {kafka.shorten(lost)}")
        if not positions_of(broker, "idle"):
            raise Broken("the position of the log that had nothing to send was forgotten")
        idle.process.terminate()
        drain.join()
        again = sum(event["event"] == "committed" and event["records"] == 0 for event in idle.events)
        return f"{len(cases)} outcomes, {again} positions committed again"


def producer_forgotten(world):
    """A cluster that forgets producers and transactional ids after ten seconds of silence: a bridge that has nothing
    to send meanwhile, and one that is killed and started again then, go on with a producer of the same name."""
    with Broker(
        tempfile.mkdtemp(dir=world.scratch),
        **{
            "producer.id.expiration.ms": 10_000,
            "producer.id.expiration.check.interval.ms": 200,
            "transactional.id.expiration.ms": 10_000,
            "transaction.remove.expired.transaction.cleanup.interval.ms": 200,
        },
    ) as broker:
        broker.start()
        broker.create_topic("silent", 1, retention_ms=-1)
        store = world.scratch / "silent"

        def rows(*what):
            out = kafka.java_ok(
                "org.apache.kafka.tools.TransactionsCommand", "--bootstrap-server", broker.bootstrap, *what
            )
            return out.decode().splitlines()[1:]

        def is_forgotten():
            return not rows("describe-producers", "--topic", "silent", "--partition", "0") and not rows("list")

        def start():
            sets = {"edgelog.bridge.interval.ms": 0}
            seconds_max = 2 * FORGOTTEN_SECONDS_MAX
            return Run(command(store, broker, "silent", "silent", topics="t", forever=True, **sets), seconds_max)

        def until_sent(run, count):
            while (event := run.next_event()) is not None:
                if event["event"] == "committed" and event["positions"][0]["offset"] == count:
                    return
            raise Broken(f"the bridge ended: {tail(bytes(run.errors))}")

        values, run = [], None
        for part in ("first", "second", "third"):
            append(store, "t", lines(part))
            values += lines(part)
            if run is None:
                run = start()
            until_sent(run, len(values))
            if part == "first" and is_forgotten():
                raise Broken("the cluster knows of no producer: this shows nothing")
            if part == "second":
                run.kill()
                run = None
            until("the producer is forgotten", is_forgotten)
            TALLY["faults"] += 1
        run.process.terminate()
        run.expect(0)
        found = values_of(broker.consume_all("silent"))
        if found != values:
            raise Broken(f"expected {len(values)} records, found {len(found)}: {kafka.shorten(found)}")
        return f"{len(found)} records, forgotten 3 times"


def murmur2(data):
    """As Kafka's producers hash keys, with the sign bit taken away."""
    word, mix, mask = len(data) & ~3, 0x5BD1E995, 0xFFFFFFFF
    digest = 0x9747B28C ^ len(data)
    for at in range(0, word, 4):
        k = int.from_bytes(data[at : at + 4], "little") * mix & mask
        k = (k ^ k >> 24) * mix & mask
        digest = (digest * mix & mask) ^ k
    if rest := data[word:]:
        digest = (digest ^ int.from_bytes(rest, "little")) * mix & mask
    digest = (digest ^ digest >> 13) * mix & mask
    return (digest ^ digest >> 15) & 0x7FFFFFFF


def partitions_added(world):
    """Devices that share a topic keep their partitions when it gets more; a new device is given one of all of them.
    Where the target's name has the device's, partitions have the same numbers there as here."""
    broker, devices, before, after = world.broker, [f"adder-{n}" for n in range(6)], 2, 7
    broker.create_topic("shared", before, retention_ms=-1)

    def send(device, part):
        append(world.scratch / device, "t", lines(f"{device} {part}", 5))
        Run(command(world.scratch / device, broker, device, "shared", topics="t")).expect(0)

    in_parallel(*(functools.partial(send, device, "before") for device in devices))
    kafka.java_ok(
        "org.apache.kafka.tools.TopicCommand",
        *("--bootstrap-server", broker.bootstrap, "--alter", "--topic", "shared", "--partitions", str(after)),
    )
    in_parallel(*(functools.partial(send, device, "after") for device in [*devices, "newcomer"]))
    expected = {device: (murmur2(device.encode()) % before, ("before", "after")) for device in devices}
    expected["newcomer"] = (murmur2(b"newcomer") % after, ("after",))
    if all(murmur2(device.encode()) % after == expected[device][0] for device in devices):
        raise Broken("no device would have got another partition: this shows nothing")
    found = broker.consume_all("shared")
    for device, (partition, parts) in expected.items():
        want = [line for part in parts for line in lines(f"{device} {part}", 5)]
        for at, records in found.items():
            have = [record["payload"] for record in records if record["payload"].startswith(f"{device} ")]
            if have != (want if at == partition else []):
                raise Broken(f"{device} belongs to partition {partition}; partition {at} has {have}")

    store = world.scratch / "numbered"
    create = [EDGELOG, "--dir", str(store), "topics", "create", "m", "--partitions", "3"]
    subprocess.run(create, check=True, capture_output=True)
    for partition in range(3):
        append(store, f"m-{partition}", lines(f"of {partition}"))
    made = {"edgelog.bridge.create.topics": "true"}
    Run(command(store, broker, "numbered", "factory.{device}.{topic}", topics="m", **made)).expect(0)
    numbered = broker.consume_all("factory.numbered.m")
    for partition in range(3):
        if (have := values_of({0: numbered.get(partition, [])})) != lines(f"of {partition}"):
            raise Broken(f"partition {partition} of factory.numbered.m has {have}")
    return f"{len(expected)} devices, {before} partitions, then {after}; 3 by their numbers"


def decided(world):
    """A topic that was deleted and created again: the log waits while another one goes on, and is looked at again. What
    was chosen ahead is done, from the beginning or from where it was. So is what is decided then, although the cluster
    has forgotten the position."""
    results = []
    for rule, wanted in (("restart", lines("one") + lines("two")), ("resume", lines("two")), ("adopt", lines("two"))):
        label = f"decided-{rule}"
        world.broker.create_topic(label, 1, retention_ms=-1)
        store = world.scratch / label
        append(store, "t", lines("one"))
        Run(command(store, world.broker, label, label, topics="t")).expect(0)
        delete_topic(world.broker, label)
        world.broker.create_topic(label, 1, retention_ms=-1)
        append(store, "t", lines("two"))
        run = Run(command(store, world.broker, label, label, topics="t")).expect(UNABLE)
        reasons = [event.get("reason", "") for event in run.events]
        if not any("edgelog.bridge.on.recreated=" in reason for reason in reasons):
            raise Broken(f"it does not say what can be decided: {run.events}")
        sets = {"edgelog.bridge.on.recreated": rule}
        if rule == "adopt":
            sets = {}
            decide(world.broker, label, "--dir", store, "bridge", "adopt")
        for _ in range(2):
            Run(command(store, world.broker, label, label, topics="t", **sets)).expect(0)
        found = values_of(world.broker.consume_all(label))
        if found != wanted:
            raise Broken(f"{rule}: found {kafka.shorten(found)}")
        results.append(len(found))
    return f"{results} records"


def log_recreated(world):
    """A log was deleted on the device and created again: it waits while another one goes on. If that was chosen, it is
    sent from its own beginning, behind what the old one had sent."""
    label, store = "recreated", world.scratch / "recreated"
    in_parallel(*(functools.partial(world.broker.create_topic, f"recreated.{log}", 1, retention_ms=-1) for log in "tu"))
    for log in "tu":
        append(store, log, lines("old"))
    arguments = functools.partial(command, store, world.broker, label, "recreated.{topic}")
    Run(arguments()).expect(0)
    subprocess.run([EDGELOG, "--dir", str(store), "topics", "delete", "t", "--yes"], check=True, capture_output=True)
    for log in "tu":
        append(store, log, lines("new"))
    run = Run(arguments()).expect(UNABLE)
    reasons = {event["log"]: event["reason"] for event in run.events if event["event"] == "waiting"}
    if list(reasons) != ["t-0"] or "edgelog.bridge.on.new.log=restart" not in reasons["t-0"]:
        raise Broken(f"expected t-0 alone to wait for a decision: {reasons}")
    if values_of(world.broker.consume_all("recreated.t")) != lines("old"):
        raise Broken("something of it was sent all the same")
    Run(arguments(**{"edgelog.bridge.on.new.log": "restart"})).expect(0)
    if Run(arguments()).expect(0).records():
        raise Broken("what was decided once is asked again, or sent again")
    for log in "tu":
        found = values_of(world.broker.consume_all(f"recreated.{log}"))
        if found != lines("old") + lines("new"):
            raise Broken(f"{log}: found {kafka.shorten(found)}")
    return "1 of 2 logs"


def set_back(world):
    """The cluster knows less than it had acknowledged: a backup of it was restored. Followed, what it lost is there
    twice where it was not lost; resumed, nothing is."""
    for rule, wanted in (("follow", lines("one") + lines("two") * 2), ("resume", lines("one") + lines("two"))):
        label = f"back-{rule}"
        world.broker.create_topic(label, 1, retention_ms=-1)
        store = world.scratch / label
        append(store, "t", lines("one"))
        arguments = functools.partial(command, store, world.broker, label, label, topics="t")
        Run(arguments()).expect(0)
        then = shutil.copytree(store, world.scratch / f"{label}-then")
        append(store, "t", lines("two"))
        Run(arguments()).expect(0)
        # The device as it was then has nothing to send, and commits its position again.
        world.broker.delete_group(f"edgelog:{label}:t-0")
        Run(command(then, world.broker, label, label, topics="t")).expect(0)
        run = Run(arguments()).expect(UNABLE)
        if not any("set back" in event.get("reason", "") for event in run.events):
            raise Broken(f"not noticed: {run.events}")
        Run(arguments(**{"edgelog.bridge.on.set.back": rule})).expect(0)
        found = values_of(world.broker.consume_all(label))
        if found != wanted:
            raise Broken(f"{rule}: found {len(found)} records, expected {len(wanted)}: {kafka.shorten(found)}")
    return "followed and resumed"


def goes_on(world):
    """A log that waits for its topic goes on once the topic was created. Another log never waits. If that was chosen,
    topics are created as asked for."""
    store = world.scratch / "goes-on"
    for log in ("here", "absent"):
        append(store, log, lines(log))
    world.broker.create_topic("g.here", 1, retention_ms=-1)
    sets = {"edgelog.bridge.retry.ms": 500}
    run = Run(command(store, world.broker, "goes-on", "g.{topic}", forever=True, **sets))
    seen = set()
    while {"waiting", "committed"} - seen and (event := run.next_event()) is not None:
        seen.add(event["event"])
    world.broker.create_topic("g.absent", 1, retention_ms=-1)
    while (event := run.next_event()) is not None:
        if event["event"] == "committed" and any(p["log"] == "absent-0" for p in event["positions"]):
            break
    run.process.terminate()
    run.expect(0)
    create = {
        "edgelog.bridge.create.topics": "true",
        "edgelog.bridge.create.partitions": 3,
        "edgelog.bridge.create.config": "retention.ms=-1;max.message.bytes=54321",
        "edgelog.bridge.dead.letter.topic": "made.dead",
        "edgelog.bridge.loss.topic": "made.lost",
    }
    again = world.scratch / "made"
    append(again, "here", lines("here"))
    Run(command(again, world.broker, "made", "made.{topic}", **create)).expect(0)
    described = kafka.java_ok(
        "org.apache.kafka.tools.TopicCommand",
        *("--bootstrap-server", world.broker.bootstrap, "--describe", "--topic", "made.*"),
    ).decode()
    for words in ("made.here", "PartitionCount: 3", "max.message.bytes=54321", "made.dead", "made.lost"):
        if words not in described:
            raise Broken(f"expected {words!r} in\n{described}")
    for topic, log in (("g.here", "here"), ("g.absent", "absent"), ("made.here", "here")):
        found = values_of(world.broker.consume_all(topic))
        if found != lines(log):
            raise Broken(f"{topic}: found {kafka.shorten(found)}")
    return "3 topics"


def stalled(world):
    """A device is stopped in the middle of a transaction. Another one's records in the same partition are readable, for
    read_committed, within that transaction's timeout and the cluster's interval of looking for such ones; and when the
    device goes on, every record of both is there once."""
    timeout, interval = 5, 2
    with Broker(
        tempfile.mkdtemp(dir=world.scratch),
        **{"transaction.abort.timed.out.transaction.cleanup.interval.ms": interval * 1000},
    ) as broker:
        broker.start()
        broker.create_topic("shared", 1, retention_ms=-1)
        sets = {"transaction.timeout.ms": timeout * 1000}
        stores = {name: world.scratch / f"stalled-{name}" for name in ("one", "two")}
        for name, store in stores.items():
            append(store, "t", lines(name))
        # The commit does not arrive, and then the device stops.
        broker.proxy.arm([(px.END_TXN, px.SWALLOW_REQUEST)])
        run = Run(command(stores["one"], broker, "one", "shared", topics="t", **sets))
        if not broker.proxy.wait_injected(1, 60):
            raise Broken("no commit was asked for")
        os.kill(run.process.pid, signal.SIGSTOP)
        TALLY["faults"] += 1
        began = time.monotonic()
        Run(command(stores["two"], broker, "two", "shared", topics="t", **sets)).expect(0)
        # The consumer gives up when nothing came for the bound, and for the time that the machine needs in addition.
        out = kafka.java_ok(
            "org.apache.kafka.tools.consumer.ConsoleConsumer",
            *("--bootstrap-server", broker.bootstrap, "--topic", "shared", "--from-beginning"),
            *("--isolation-level", "read_committed", "--max-messages", 50),
            *("--timeout-ms", (timeout + interval) * 1000 + 3000),
        ).decode()
        took = time.monotonic() - began
        if out.splitlines() != lines("two"):
            raise Broken(f"the other device's records are not readable: {kafka.shorten(out)}")
        os.kill(run.process.pid, signal.SIGCONT)
        run.expect(0)
        found = values_of(broker.consume_all("shared"))
        if sorted(found) != sorted(lines("one") + lines("two")):
            raise Broken(f"found {kafka.shorten(found)}")
        return f"readable after {took:.1f} s, with {timeout} s and {interval} s"


def lost_claim(world):
    """A transaction of ours timed out, and the answer that gave us the next epoch was lost: asking again, we have an
    older one than the cluster. That is no other copy of us."""
    with Broker(
        tempfile.mkdtemp(dir=world.scratch),
        **{"transaction.abort.timed.out.transaction.cleanup.interval.ms": 200},
    ) as broker:
        broker.start()
        broker.create_topic("t", 1, retention_ms=-1)
        store, values = world.scratch / "lost-claim", []
        sets = {"transaction.timeout.ms": 1000, "request.timeout.ms": 2000}
        for phase in (px.AFTER_REQUEST, px.AMID_ANSWER, px.SWALLOW_ANSWER):
            append(store, "t", [phase])
            values.append(phase)
            # The batch arrives, and we do not hear of it until it is too late; the claim that follows is answered in
            # vain. (One record, which cannot be sent in smaller pieces.)
            broker.proxy.arm([(px.PRODUCE, px.SWALLOW_ANSWER), (px.INIT_PRODUCER_ID, phase)])
            run = Run(command(store, broker, "lost", "t", topics="t", **sets)).expect(0)
            if broker.proxy.left():
                raise Broken(f"{phase}: {broker.proxy.faults} never happened; {run.events}")
        found = values_of(broker.consume_all("t"))
        if found != values:
            raise Broken(f"expected {len(values)} records, found {len(found)}")
    return f"{len(values)} records"


def edgelog(*arguments):
    """What a command of edgelog prints."""
    done = subprocess.run([EDGELOG, *map(str, arguments)], capture_output=True, check=False)
    if done.returncode:
        raise Broken(f"{arguments} ended with {done.returncode}: {tail(done.stderr)}")
    return done.stdout.decode()


def in_cluster(broker, device):
    """What the cluster keeps of a device's only log, as any machine sees it."""
    out = edgelog("bridge", "status", "--json", "--bootstrap", broker.address, "--device", device)
    (line,) = out.splitlines()
    return json.loads(line)["cluster"]


def decide(broker, device, *arguments):
    edgelog(*arguments, "--yes", "--bootstrap", broker.address, "--device", device)


def wait_for(run, what, is_it):
    while (event := run.next_event()) is not None:
        if is_it(event):
            return event
    raise Broken(f"it ended before {what}: {run.events[-5:]} {tail(bytes(run.errors))}")


def sent_up_to(offset):
    return lambda event: event["event"] == "committed" and event["positions"][0]["offset"] == offset


def waits_since(words):
    return lambda event: event["event"] == "waiting" and words in event["reason"]


def adopted(world):
    """Two copies of a device run for ever. The one that is not the cluster's waits, and so does the other one once a
    person has decided against it; neither takes turns with the other, and each goes on where it was."""
    broker, label = world.broker, "adopted"
    broker.create_topic(label, 1, retention_ms=-1)
    right, clone = (world.scratch / f"{label}-{name}" for name in ("right", "clone"))
    append(right, "t", lines("common"))
    sets = {"edgelog.bridge.retry.ms": 300, "edgelog.bridge.interval.ms": 0}
    arguments = functools.partial(command, broker=broker, device=label, to=label, topics="t", forever=True, **sets)
    Run(command(right, broker, label, label, topics="t")).expect(0)
    shutil.copytree(right, clone)
    append(right, "t", lines("right"))
    append(clone, "t", lines("clone"))
    first = Run(arguments(right))
    wait_for(first, "all was sent", sent_up_to(100))
    Run(arguments(clone, **{"edgelog.bridge.on.fenced": "exit"})).expect(FENCED)
    second = Run(arguments(clone))
    wait_for(second, "it waits", waits_since("is not one of the log here"))
    # The right one was not disturbed.
    append(right, "t", lines("more"))
    wait_for(first, "it goes on", sent_up_to(150))
    found = in_cluster(broker, label)
    if found["offset"] != 150 or found["decided"] or len(found["log_id"]) != 32:
        raise Broken(f"the status is {found}")
    # The clone it is to be: what it has sent itself, before it was cloned, is not sent again.
    decide(broker, label, "--dir", clone, "bridge", "adopt")
    wait_for(second, "it was adopted", sent_up_to(100))
    append(right, "t", lines("unsent"))
    wait_for(first, "it is fenced", waits_since("fenced"))
    for n in range(3):
        append(clone, "t", lines(f"later {n}"))
        wait_for(second, "it goes on", sent_up_to(150 + 50 * n))
    second.process.terminate()
    second.expect(0)
    # And back again; no other process runs, so no store has to be named.
    decide(broker, label, "bridge", "adopt")
    wait_for(first, "it was adopted", sent_up_to(200))
    first.process.terminate()
    first.expect(0)
    if in_cluster(broker, label)["decided"]:
        raise Broken("a decision that was obeyed still stands")
    found = values_of(broker.consume_all(label))
    names = ["common", "right", "more", "clone", "later 0", "later 1", "later 2", "unsent"]
    if found != [line for name in names for line in lines(name)]:
        raise Broken(f"found {len(found)} records: {kafka.shorten(found)}")
    return f"{len(found)} records, decided twice"


def fenced(world):
    """Two copies of a device that hold the same: the one that was started first is fenced and stays back, though the
    cluster's position is one of its own log as well: they do not take turns."""
    broker, label = world.broker, "fenced"
    broker.create_topic(label, 1, retention_ms=-1)
    stores = [world.scratch / f"{label}-{n}" for n in range(2)]
    append(stores[0], "t", lines("common"))
    sets = {"edgelog.bridge.retry.ms": 100, "edgelog.bridge.interval.ms": 0}
    arguments = functools.partial(command, broker=broker, device=label, to=label, topics="t", forever=True, **sets)
    Run(command(stores[0], broker, label, label, topics="t")).expect(0)
    shutil.copytree(*stores)
    runs = []
    for store in stores:
        runs.append(Run(arguments(store)))
        wait_for(runs[-1], "it has begun", lambda event: event["event"] == "caught-up")
    append(stores[0], "t", lines("never sent"))
    wait_for(runs[0], "it is fenced", waits_since("fenced"))
    for n in range(3):
        append(stores[1], "t", lines(f"later {n}"))
        wait_for(runs[1], "it goes on", sent_up_to(100 + 50 * n))
    for run in runs:
        run.process.terminate()
        run.expect(0)
    found = values_of(broker.consume_all(label))
    if found != [line for name in ("common", "later 0", "later 1", "later 2") for line in lines(name)]:
        raise Broken(f"found {len(found)} records: {kafka.shorten(found)}")
    return f"{len(found)} records"


def reset(world):
    """After a reset everything is sent again, once: by a bridge that runs meanwhile, and by one that is started later,
    also where its note knew better. The note in the store's directory keeps nothing any more."""
    broker, label = world.broker, "reset"
    broker.create_topic(label, 1, retention_ms=-1)
    store = world.scratch / label
    append(store, "t", lines("one"))
    sets = {"edgelog.bridge.retry.ms": 300, "edgelog.bridge.interval.ms": 0}
    run = Run(command(store, broker, label, label, topics="t", forever=True, **sets))
    wait_for(run, "all was sent", sent_up_to(50))
    decide(broker, label, "bridge", "reset")
    if in_cluster(broker, label)["decided"] != "restart":
        raise Broken(f"the status is {in_cluster(broker, label)}")
    append(store, "t", lines("two"))
    wait_for(run, "it is fenced", waits_since("fenced"))
    wait_for(run, "it was sent again", sent_up_to(100))
    run.process.terminate()
    run.expect(0)
    decide(broker, label, "bridge", "reset")
    arguments = command(store, broker, label, label, topics="t")
    counts = [Run(arguments).expect(0).records() for _ in range(2)]
    if counts != [100, 0]:
        raise Broken(f"it sent {counts} records after the reset")
    decide(broker, label, "--dir", store, "bridge", "reset", "--topics", "t")
    if noted := edgelog("--dir", store, "bridge", "status", "--json"):
        raise Broken(f"the note still says {noted}")
    counts = [Run(arguments).expect(0).records() for _ in range(2)]
    if counts != [100, 0]:
        raise Broken(f"it sent {counts} records after the reset of both")
    found = values_of(broker.consume_all(label))
    if found != lines("one") + (lines("one") + lines("two")) * 3:
        raise Broken(f"found {len(found)} records: {kafka.shorten(found)}")
    return f"{len(found)} records, reset 3 times"


def mistyped(world):
    """A reset for a device that the cluster does not know names those that it knows, and changes nothing."""
    broker, label = world.broker, "mistyped"
    broker.create_topic(label, 1, retention_ms=-1)
    store = world.scratch / label
    append(store, "t", lines("one"))
    append(store, "other", lines("two"))
    run = Run(command(store, broker, label, label, topics="t")).expect(0)
    caught_up = [event for event in run.events if event["event"] == "caught-up"]
    if [(event["topics"], event["logs"], event["logs_not_selected"]) for event in caught_up] != [("t", 1, 1)]:
        raise Broken(f"it says of what is selected: {caught_up}")
    plain = [word for word in command(store, broker, label, label, topics="t") if word != "--json"]
    said = subprocess.run(plain, check=True, capture_output=True).stderr.decode()
    if "of the 1 log of edgelog.bridge.topics=t; 1 other log of this store is not sent" not in said:
        raise Broken(f"it says of what is selected: {said}")
    noted = edgelog("--dir", store, "bridge", "status", "--json")
    for more, device in [(["--dir", str(store)], "mistyped2"), ([], "mistyped2")]:
        reset = [EDGELOG, *more, "bridge", "reset", "--yes", "--bootstrap", broker.address, "--device", device]
        done = subprocess.run(reset, capture_output=True)
        words = done.stderr.decode()
        if done.returncode != 1 or label not in words.replace(device, ""):
            raise Broken(f"{more}: {done.returncode}: {words}")
    adopt = [EDGELOG, "bridge", "adopt", "--yes", "--bootstrap", broker.address, "--device", "mistyped2"]
    done = subprocess.run(adopt, capture_output=True)
    if done.returncode != 1 or b"no position of the device mistyped2; it has positions of" not in done.stderr:
        raise Broken(f"adopt: {done.returncode}: {done.stderr.decode()}")
    if edgelog("--dir", store, "bridge", "status", "--json") != noted or in_cluster(broker, label)["decided"]:
        raise Broken("something was changed")
    if Run(command(store, broker, label, label, topics="t")).expect(0).records():
        raise Broken("it was sent again")
    return "refused by name"


def at_least_once(world):
    """A cluster without transactions of version 2 gets every record, in order but for what is there twice, while the
    bridge is killed and its connections are cut."""
    with Broker(tempfile.mkdtemp(dir=world.scratch), features=["transaction.version=1"]) as broker:
        broker.start()
        broker.create_topic("t", 1, retention_ms=-1)
        store = world.scratch / "at-least-once"
        values = lines("record", 2000)
        append(store, "t", values, "--batch", "20")
        sets = {"edgelog.bridge.delivery": "at-least-once", "edgelog.bridge.transaction.bytes": 2000}
        arguments = command(store, broker, "old", "t", topics="t", **sets)
        broker.proxy.arm([(api, phase) for phase in px.PHASES for api in (px.INIT_PRODUCER_ID, px.PRODUCE)])
        kills = 0
        while True:
            run = Run(arguments)
            left = world.random.randrange(1, 6)
            while left > 0 and (event := run.next_event()) is not None:
                left -= event["event"] == "committed"
            if run.process.poll() is None and left == 0 and kills < 10:
                run.kill()
                kills += 1
                continue
            run.expect(0)
            break
        if Run(arguments).expect(0).records():
            raise Broken("a second run sent records again")
        found = values_of(broker.consume_all("t"))
        at = {value: n for n, value in enumerate(values)}
        seen = -1
        for value in found:
            if at[value] > seen + 1:
                raise Broken(f"record {at[value]} comes behind {seen}: some are missing")
            seen = max(seen, at[value])
        if seen != len(values) - 1:
            raise Broken(f"the last record is {seen}, expected {len(values) - 1}")
        return f"{len(values)} records, {len(found) - len(values)} of them again, {kills} kills"


TESTS = {
    "expired": expired,
    "producer_forgotten": producer_forgotten,
    "partitions_added": partitions_added,
    "decided": decided,
    "log_recreated": log_recreated,
    "set_back": set_back,
    "goes_on": goes_on,
    "stalled": stalled,
    "lost_claim": lost_claim,
    "adopted": adopted,
    "fenced": fenced,
    "reset": reset,
    "mistyped": mistyped,
    "at_least_once": at_least_once,
}


if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, Broker))
