#!/usr/bin/env python3
"""The bridge on a bad line: few bytes a second, long round trips, and connections that die.

    lines.py run STORE --expect FILE [--seed N] [--only NAME,...]
    EDGELOG_TEST_LINE=satellite lines.py ...: with time as it is, which takes half an hour

With time ten times as fast it is a test, with bounds that hold on a busy machine: what counts there is that it ends,
and what it sends and throws away for that. With time as it is, it is a measurement of half an hour.

Arguments, jars and the command line are those of transfer.py.
"""

import os
import random
import sys
import time

from harness import TALLY, Broken, Broker, Run, append, command, kafka, main, px, values_of

# Bytes a second, seconds one way, mean seconds until a connection dies, bytes of the backlog, how long that may take as
# a multiple of what the line would need for the bytes alone, and how many bytes may go up for one that arrives. The
# second is the first with time ten times as fast.
LINES = {
    "satellite": (1200, 2.0, 60.0, 1 << 20, 2, 3),
    "scaled": (12000, 0.2, 6.0, 256 << 10, 10, 3),
}


def bad_line(world):
    """Batches of a size that no connection lives to carry arrive in pieces, and the line is used."""
    name = os.environ.get("EDGELOG_TEST_LINE", "scaled")
    rate, latency, lifetime, backlog_bytes, slowdown_max, resent_max = LINES[name]
    to, store = "line", world.scratch / "line"
    world.broker.create_topic(to, 1, retention_ms=-1)
    # No compression finds anything in these.
    texts = random.Random(world.random.random())
    values = [texts.randbytes(250).hex() for _ in range(backlog_bytes // 500)]
    append(store, "t", values, "--batch", "100000")
    link = px.Link(rate, latency, lifetime, world.random.random())
    # Of what the bridge does by the clock, as much faster as the line is.
    sets = {"reconnect.backoff.ms": int(lifetime * 1000 / 600), "reconnect.backoff.max.ms": int(lifetime * 1000 / 10)}
    if lifetime < 60:
        sets["transaction.timeout.ms"] = int(lifetime * 1000)
    world.broker.proxy.link = link
    try:
        began = time.monotonic()
        run = Run(command(store, world.broker, "line", to, topics="t", **sets), seconds_max=3 * 3600)
        run.expect(0)
        took = time.monotonic() - began
    finally:
        world.broker.proxy.link = None
    TALLY["faults"] += link.cuts
    found = values_of(world.broker.consume_all(to))
    if found != values:
        raise Broken(f"expected {len(values)} records, found {len(found)}: {kafka.shorten(found)}")
    sent = sum(map(len, values))
    at_best = sent / rate
    transactions = sum(event["event"] == "committed" for event in run.events)
    aborted = sum(event["event"] == "aborted" for event in run.events)
    told = (
        f"{sent} bytes at {rate} a second, {link.cuts} connections died: {took:.0f} s, {100 * at_best / took:.0f} % of "
        f"the line, {link.carried['up']} bytes up, {transactions} transactions, {aborted} aborted"
    )
    if took > slowdown_max * at_best or link.carried["up"] > resent_max * sent:
        raise Broken(told)
    return told


TESTS = {"bad_line": bad_line}


def broker(home):
    """The line lies between the device and the cluster: what a broker says to itself does not go over it."""
    return Broker(
        home,
        **{
            "listeners": "PLAINTEXT://127.0.0.1:0,INTERNAL://127.0.0.1:0,CONTROLLER://127.0.0.1:0",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "INTERNAL",
        },
    )


if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, broker))
