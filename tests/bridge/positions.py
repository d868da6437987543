#!/usr/bin/env python3
"""Where the bridge goes on: positions that the cluster forgets, topics that a person decides about, devices that stall,
and clusters whose transactions are not those of exactly-once delivery.

    positions.py run STORE --expect FILE [--seed N] [--only NAME,...]

Arguments, jars and the command line are those of transfer.py.
"""

import functools
import json
import functools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time

from harness import UNABLE, Broken, Broker, Run, append, command, kafka, main, px, values_of

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
        cases = {"asked": px.SWALLOW_ANSWER, "never-asked": px.SWALLOW_REQUEST}
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
        for label, fault in cases.items():
            broker.create_topic(label, 1, retention_ms=-1)
            store = world.scratch / f"expired-{label}"
            append(store, "t", lines("first"))
            Run(command(store, broker, label, label, topics="t", **sets)).expect(0)
            append(store, "t", lines("second"))
            injected = sum(broker.proxy.injected.values())
            # Another bridge commits there too: it is the next one of this device.
            broker.proxy.arm([(px.PRODUCE, px.LET_THROUGH), (px.END_TXN, fault)])
            run = Run(command(store, broker, label, label, topics="t", **sets))
            if not broker.proxy.wait_injected(injected + 2, 60):
                raise Broken(f"{label}: no commit was asked for")
            run.kill()
        for label in cases:
            until(f"the position of {label} is forgotten", lambda: not positions_of(broker, label))
        for label in cases:
            Run(command(world.scratch / f"expired-{label}", broker, label, label, topics="t", **sets)).expect(0)
            found = values_of(broker.consume_all(label))
            if found != lines("first") + lines("second"):
                raise Broken(f"{label}: found {len(found)} records, expected 100: {kafka.shorten(found)}")
        if not positions_of(broker, "idle"):
            raise Broken("the position of the log that had nothing to send was forgotten")
        idle.process.terminate()
        drain.join()
        again = sum(event["event"] == "committed" and event["records"] == 0 for event in idle.events)
        return f"{len(cases)} outcomes, {again} positions committed again"


def decided(world):
    """A topic that was deleted and created again: the log waits beside one that goes on, and is looked at again; what
    was chosen ahead is done, from the beginning or from where it was."""
    results = []
    for rule, wanted in (("restart", lines("one") + lines("two")), ("resume", lines("two"))):
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
        if not any("edgelog.bridge.on.recreated=" in reason and rule in reason for reason in reasons):
            raise Broken(f"it does not say what can be decided: {run.events}")
        for _ in range(2):
            sets = {"edgelog.bridge.on.recreated": rule}
            Run(command(store, world.broker, label, label, topics="t", **sets)).expect(0)
        found = values_of(world.broker.consume_all(label))
        if found != wanted:
            raise Broken(f"{rule}: found {kafka.shorten(found)}")
        results.append(len(found))
    return f"{results} records"


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
    """A log that waits for its topic goes on once somebody has created it, beside one that never waited; where that was
    chosen, topics are created as asked for."""
    store = world.scratch / "goes-on"
    for log in ("here", "absent"):
        append(store, log, lines(log))
    world.broker.create_topic("g.here", 1, retention_ms=-1)
    sets = {"edgelog.bridge.retry.ms": 500}
    run = Run(command(store, world.broker, "goes-on", "g.{topic}", forever=True, **sets))
    told = set()
    while {"waiting", "caught-up"} - told and (event := run.next_event()) is not None:
        told.add(event["event"])
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
        began = time.monotonic()
        Run(command(stores["two"], broker, "two", "shared", topics="t", **sets)).expect(0)
        # The consumer gives up when nothing came for the bound, and what the machine needs besides.
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
            # vain. (One record, which nobody tries to send in smaller pieces.)
            broker.proxy.arm([(px.PRODUCE, px.SWALLOW_ANSWER), (px.INIT_PRODUCER_ID, phase)])
            run = Run(command(store, broker, "lost", "t", topics="t", **sets)).expect(0)
            if broker.proxy.left():
                raise Broken(f"{phase}: {broker.proxy.faults} never happened; {run.events}")
        found = values_of(broker.consume_all("t"))
        if found != values:
            raise Broken(f"expected {len(values)} records, found {len(found)}")
    return f"{len(values)} records"


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
    "decided": decided,
    "set_back": set_back,
    "goes_on": goes_on,
    "stalled": stalled,
    "lost_claim": lost_claim,
    "at_least_once": at_least_once,
}


if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, Broker))
