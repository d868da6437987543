#!/usr/bin/env python3
"""What the bridge does about records that the target does not take, and about those that are not there any more.

    refusals.py run STORE --expect FILE [--seed N] [--only NAME,...]

Arguments, jars and the command line are those of transfer.py.
"""

import functools
import json
import subprocess
import sys
import tempfile
import time

from harness import (
    EDGELOG,
    UNABLE,
    Broken,
    Broker,
    Run,
    append,
    command,
    held_back,
    in_parallel,
    kafka,
    main,
    px,
    values_of,
)

# Records that are older are refused where a test is about that.
AGE_MAX_MS = 5000
DEAD, LOST = "edgelog.dead.letters", "edgelog.losses"


def headers_of(record):
    return dict(zip(record["headers"][::2], record["headers"][1::2]))


def create(broker, *topics, **configs):
    in_parallel(*(functools.partial(broker.create_topic, t, 1, **{"retention_ms": -1, **configs}) for t in topics))


def side_topics(label):
    """Keys that send dead letters and losses to topics of one test's own."""
    return {"edgelog.bridge.dead.letter.topic": f"{label}.dead", "edgelog.bridge.loss.topic": f"{label}.lost"}


def of_one(found):
    """The records of a topic with one partition."""
    return found.get(0, [])


def expect_values(found, wanted, where):
    values = [record["payload"] for record in found]
    if values != wanted:
        raise Broken(f"{where}: expected {len(wanted)} records, found {len(values)}: {kafka.shorten(values)}")


def dead_letters(world):
    """A compacted topic takes no record without a key. Those become dead letters, with the broker's code, while the
    bridge is killed and its connections are cut; every record is either here or there, once, and in order. Since that
    is foreseen, no transaction is aborted for it."""
    label = "dead"
    store, sets = world.scratch / label, side_topics(label)
    create(world.broker, label, cleanup_policy="compact", min_compaction_lag_ms=86_400_000)
    create(world.broker, f"{label}.dead")
    lines = [f"{n}" if world.random.randrange(60) == 0 else f"k{n}:{n}" for n in range(1500)]
    # Those with a `:` have a key before it.
    append(store, "t", lines, "-K", ":")
    kills = 0
    small = {"edgelog.bridge.transaction.bytes": 4500}
    arguments = command(store, world.broker, label, label, topics="t", **sets, **small)
    # A cut in every phase of the first transaction that holds a dead letter, and of those around it.
    world.broker.proxy.arm([(api, phase) for phase in px.PHASES for api in (px.PRODUCE, px.END_TXN)])
    while True:
        run = Run(arguments)
        left = world.random.randrange(2, 8)
        while left > 0 and (event := run.next_event()) is not None:
            left -= event["event"] in ("committed", "aborted")
        if run.process.poll() is None and left == 0 and kills < 15:
            run.kill()
            kills += 1
            continue
        run.expect(0)
        break
    good, dead = in_parallel(
        lambda: world.broker.consume_all(label), lambda: world.broker.consume_all(f"{label}.dead")
    )
    expect_values(of_one(good), [line.partition(":")[2] for line in lines if ":" in line], "arrived")
    expect_values(of_one(dead), [line for line in lines if ":" not in line], "dead letters")
    for record in of_one(dead):
        headers = headers_of(record)
        found = [headers.get(f"__connect.errors.{name}") for name in ("topic", "partition", "offset")]
        if found != ["t", "0", record["payload"]] or headers.get("edgelog.error.code") != "87":
            raise Broken(f"a dead letter says {headers}")
        if "InvalidRecord" not in headers["__connect.errors.exception.message"]:
            raise Broken(f"it lacks the broker's answer: {headers}")
    if kills == 0:
        raise Broken("nothing was killed")
    named, aborts = refused_by_name(world, lines)
    return f"{len(of_one(dead))} of {len(lines)} refused, {kills} kills; {named} named by the broker, {aborts} aborts"


def refused_by_name(world, lines):
    """A topic that becomes a compacted one behind the bridge's look at it: the broker names the records that it
    refuses, all those of a batch at once."""
    label = "named"
    store, sets = world.scratch / label, side_topics(label)
    append(store, "t", lines, "-K", ":")
    create(world.broker, label, f"{label}.dead", min_compaction_lag_ms=86_400_000)
    run = held_back(
        lambda: alter(world.broker, label, "cleanup.policy=compact"),
        *(store, world.broker, label, label),
        topics="t",
        **sets,
    ).expect(0)
    good, dead = in_parallel(
        lambda: world.broker.consume_all(label), lambda: world.broker.consume_all(f"{label}.dead")
    )
    expect_values(of_one(good), [line.partition(":")[2] for line in lines if ":" in line], "arrived")
    expect_values(of_one(dead), [line for line in lines if ":" not in line], "dead letters")
    aborts = sum(event["event"] == "aborted" for event in run.events)
    # All of it is one batch, and so one refusal; another abort may come from a request that timed out.
    if not 1 <= aborts <= 3:
        raise Broken(f"{aborts} transactions were aborted for {len(of_one(dead))} records: {run.events}")
    return len(of_one(dead)), aborts


def too_large(world):
    """A record that no batch of the target can hold becomes a dead letter; where the target's limit cannot be known
    beforehand, the broker's refusal shows it."""
    results = []
    for label, grows in (("large", False), ("shrunk", True)):
        store, sets = world.scratch / label, side_topics(label)
        values = ["x" * 5000 if n % 40 == 7 else f"{n} " + "y" * 100 for n in range(100)]
        append(store, "t", values)
        create(world.broker, label, max_message_bytes=1_000_000 if grows else 3000)
        create(world.broker, f"{label}.dead")
        if grows:
            # The limit falls after the bridge has looked at it: the bridge knows a larger one.
            shrink = functools.partial(alter, world.broker, label, "max.message.bytes=3000")
            run = held_back(shrink, store, world.broker, label, label, topics="t", **sets)
        else:
            run = Run(command(store, world.broker, label, label, topics="t", **sets))
        run.expect(0)
        good, dead = in_parallel(
            lambda: world.broker.consume_all(label), lambda: world.broker.consume_all(f"{label}.dead")
        )
        expect_values(of_one(good), [value for value in values if len(value) < 3000], label)
        expect_values(of_one(dead), [value for value in values if len(value) >= 3000], f"{label}.dead")
        results.append(len(of_one(dead)))
    # Nothing else is there to be sent: it is not caught up before the dead letter is delivered.
    label = "alone"
    store, sets = world.scratch / label, side_topics(label)
    append(store, "t", ["x" * 5000])
    create(world.broker, label, max_message_bytes=3000)
    create(world.broker, f"{label}.dead")
    run = Run(command(store, world.broker, label, label, topics="t", **sets)).expect(0)
    expect_values(of_one(world.broker.consume_all(f"{label}.dead")), ["x" * 5000], f"{label}.dead")
    if [event["event"] for event in run.events[-2:]] != ["caught-up", "positions"]:
        raise Broken(f"it ended without saying that it has caught up: {run.events}")
    if any(event["event"] == "aborted" for event in run.events):
        raise Broken(f"a transaction was aborted for what could be foreseen: {run.events}")
    # Where the log waits instead, it says neither that nor success.
    label = "alone.waits"
    create(world.broker, label, max_message_bytes=3000)
    run = Run(command(store, world.broker, label, label, topics="t", **{"edgelog.bridge.on.refused": "stop"})).expect(2)
    if any(event["event"] == "caught-up" for event in run.events):
        raise Broken(f"it says that it has caught up, with a log that waits: {run.events}")
    plainly = [word for word in command(store, world.broker, label, label, topics="t") if word != "--json"]
    run = Run([*plainly, "--set", "edgelog.bridge.on.refused=stop"]).expect(2)
    if b"1 record of 1 log was not sent: t-0 1, for the reasons above" not in bytes(run.errors):
        raise Broken(f"it does not say how much was not sent: {tail(bytes(run.errors))}")
    # A name that no topic has is no success either.
    run = Run(command(store, world.broker, label, label, topics="tt")).expect(1)
    if b"the store has t" not in bytes(run.errors):
        raise Broken(f"it does not say which topics there are: {tail(bytes(run.errors))}")
    return f"{results} dead letters"


def alter(broker, topic, config):
    kafka.java_ok(
        "kafka.admin.ConfigCommand",
        *("--bootstrap-server", broker.bootstrap, "--alter", "--entity-type", "topics"),
        *("--entity-name", topic, "--add-config", config),
    )


def refused_times(world):
    """A time that the target refuses stops the log, unless dead letters were chosen for that. What is refused and can
    be no dead letter stops it too."""
    label = "times"
    store, sets = world.scratch / label, side_topics(label)
    values = [f"{n}" for n in range(30)]
    append(store, "t", values)
    appended = time.monotonic()
    # A broker holds the markers at the end of a transaction to this as well, forgets one that it refused, and completes
    # that transaction no more: no limit here that a marker could reach while it is written.
    create(world.broker, label, message_timestamp_before_max_ms=AGE_MAX_MS)
    time.sleep(max(0.0, appended + AGE_MAX_MS / 1000 + 1 - time.monotonic()))
    arguments = functools.partial(command, store, world.broker, label, label, topics="t", **sets)
    for more, words in (({}, "is refused"), ({"edgelog.bridge.on.refused.timestamp": "dead-letter"}, "times.dead")):
        run = Run(arguments(**more)).expect(UNABLE)
        reasons = [event["reason"] for event in run.events if event["event"] == "waiting"]
        if not reasons or words not in reasons[-1] or "InvalidTimestamp" not in reasons[-1]:
            raise Broken(f"expected {words!r} in {reasons}")
    create(world.broker, f"{label}.dead")
    run = Run(arguments(**{"edgelog.bridge.on.refused.timestamp": "dead-letter"})).expect(0)
    dead = of_one(world.broker.consume_all(f"{label}.dead"))
    expect_values(dead, values, f"{label}.dead")
    if any(int(headers_of(record)["edgelog.timestamp"]) >= record["ts"] for record in dead):
        raise Broken("a dead letter has the refused time, or does not name it")
    return f"{len(dead)} dead letters, {sum(event['event'] == 'aborted' for event in run.events)} aborts"


def losses(world):
    """What retention and damage took before it was sent is reported upstream, once, in the order in which it happened;
    or stops the log, where that was chosen."""
    label = "losses"
    store, sets = world.scratch / label, side_topics(label)
    topic = {"segment.bytes": 16384, "retention.bytes": 40000}
    subprocess.run(
        [EDGELOG, "--dir", str(store), "topics", "create", "t"]
        + [o for k, v in topic.items() for o in ("--config", f"{k}={v}")],
        check=True,
        capture_output=True,
    )
    values = [f"{n} {'z' * 200}" for n in range(400)]
    create(world.broker, label, f"{label}.lost")
    arguments = functools.partial(command, store, world.broker, label, label, topics="t", **sets)
    append(store, "t", values[:20])
    Run(arguments()).expect(0)
    # A program that stays, since retention looks every half a minute.
    writer = subprocess.Popen(
        [EDGELOG, "--dir", str(store), "append", "t", "--quiet", "--batch", "40"],
        stdin=subprocess.PIPE,
        preexec_fn=kafka.die_with_parent,
    )
    writer.stdin.write("".join(f"{value}\n" for value in values[20:]).encode())
    writer.stdin.flush()
    deadline = time.monotonic() + 120
    while (first := int(min((store / "t-0").glob("*.log")).stem)) <= 20 and time.monotonic() < deadline:
        time.sleep(0.1)
    writer.stdin.close()
    if writer.wait() != 0 or first <= 20:
        raise Broken(f"retention has deleted nothing: the log begins at {first}")
    # One byte of a record in the second segment.
    damaged = sorted((store / "t-0").glob("*.log"))[1]
    data = bytearray(damaged.read_bytes())
    data[100] ^= 0xFF
    damaged.write_bytes(data)
    run = Run(arguments(**{"edgelog.bridge.on.lost": "stop"})).expect(UNABLE)
    if not any("deleted here" in event.get("reason", "") for event in run.events):
        raise Broken(f"the loss is not reported: {run.events}")
    # Killed in the middle, and cut where it commits.
    world.broker.proxy.arm([(px.END_TXN, phase) for phase in px.PHASES])
    run = Run(arguments()).expect(0)
    if world.broker.proxy.left():
        raise Broken("some cuts never happened")
    Run(arguments()).expect(0)
    good, lost = in_parallel(
        lambda: world.broker.consume_all(label), lambda: world.broker.consume_all(f"{label}.lost")
    )
    reported = [json.loads(record["payload"]) for record in of_one(lost)]
    if [one["reason"] for one in reported] != ["retention", "damage"]:
        raise Broken(f"expected one loss by retention and one by damage, found {reported}")
    if (reported[0]["first_offset"], reported[0]["next_offset"], reported[0]["topic"]) != (20, first, "t"):
        raise Broken(f"expected the loss of 20 to {first}, found {reported[0]}")
    gone = {n for one in reported for n in range(one["first_offset"], one["next_offset"])}
    wanted = [value for n, value in enumerate(values) if n not in gone]
    expect_values(of_one(good), wanted, label)
    events = [event for event in run.events if event["event"] == "lost"]
    if len(events) != 2:
        raise Broken(f"expected two losses to be reported, found {events}")
    return f"{len(gone)} records reported as lost, {len(wanted)} arrived"


def rewritten(world):
    """A target that compresses again and gives records its own time: both are reported, once, and the records
    arrive."""
    label, store = "rewritten", world.scratch / "rewritten"
    world.broker.create_topic(
        label, 1, retention_ms=-1, compression_type="gzip", message_timestamp_type="LogAppendTime"
    )
    values = [f"{n} {'z' * 500}" for n in range(60)]
    begun = int(time.time() * 1000)
    append(store, "t", values, "--batch", "5")
    sets = {"edgelog.bridge.transaction.bytes": "4500"}
    run = Run(command(store, world.broker, label, label, topics="t", **sets)).expect(0)
    if sum(event["event"] == "committed" for event in run.events) < 2:
        raise Broken(f"it was all one transaction: {run.events}")
    reported = sorted(event["reason"] for event in run.events if event["event"] == "rewrites")
    words = ("compression.type=gzip", "message.timestamp.type=LogAppendTime")
    if len(reported) != len(words) or not all(reason.startswith(word) for reason, word in zip(reported, words)):
        raise Broken(f"expected reports of {words}, found {reported}")
    found = of_one(world.broker.consume_all(label))
    expect_values(found, values, label)
    if any(record["ts"] < begun for record in found):
        raise Broken("the target has not given them its own time: this shows nothing")
    return f"{len(found)} records; {len(reported)} rules reported"


def old_backlog(world):
    """Records from 2023 for a topic that keeps seven days, in a cluster that looks every second: nothing of them is
    sent by default; sent with new timestamps they stay, each with its own in a header; and they stay as they are once
    the topic's configuration keeps them."""
    with Broker(
        tempfile.mkdtemp(dir=world.scratch),
        **{"log.retention.check.interval.ms": 1000, "log.segment.delete.delay.ms": 0},
    ) as broker:
        broker.start()
        week = 7 * 86_400_000
        create(broker, "aged", "restamped", "sent", retention_ms=week)
        store = world.copy("backlog")
        run = Run(command(store, broker, "old", "aged", topics="aged")).expect(UNABLE)
        if run.records() or not any("retention.ms=" in event.get("reason", "") for event in run.events):
            raise Broken(f"expected a log that waits for what its target's retention allows: {run.events}")
        # What the cluster deletes is the person's own choice here.
        as_it_is = {"edgelog.bridge.expired": "send"}
        run = Run(command(world.copy("backlog-sent"), broker, "sent", "sent", topics="aged", **as_it_is)).expect(0)
        if run.records() != len(world.expected["aged", 0]):
            raise Broken(f"sent as it is: {run.records()} records")
        alter(broker, "aged", "retention.ms=-1")
        again = world.copy("backlog-restamped")
        restamp = {"edgelog.bridge.expired": "restamp"}
        small = {"edgelog.bridge.transaction.bytes": 30000}
        in_parallel(
            lambda: Run(command(store, broker, "old", "aged", topics="aged", **small)).expect(0),
            lambda: Run(command(again, broker, "new", "restamped", topics="aged", **small, **restamp)).expect(0),
        )
        # The consumers take four seconds to see that there is no more: time for several looks.
        for _ in range(2):
            kept, restamped = in_parallel(lambda: broker.consume_all("aged"), lambda: broker.consume_all("restamped"))
        wanted = world.expected["aged", 0]
        for have in (kept, restamped):
            expect_values(of_one(have), [record["payload"] for record in wanted], "aged")
        own = [int(headers_of(record)["edgelog.timestamp"]) for record in of_one(restamped)]
        if own != [record["ts"] for record in wanted] or any(r["ts"] in own for r in of_one(restamped)):
            raise Broken("restamped records have not their own time in the header, or have it still")
        if [r["ts"] for r in of_one(kept)] != own:
            raise Broken("what was sent as it is has another time")
        return f"{len(wanted)} records, twice"


TESTS = {
    "rewritten": rewritten,
    "dead_letters": dead_letters,
    "too_large": too_large,
    "refused_times": refused_times,
    "losses": losses,
    "old_backlog": old_backlog,
}


if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, Broker))
