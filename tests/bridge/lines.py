#!/usr/bin/env python3
"""The bridge on a bad line: few bytes a second, long round trips, connections that die; and many logs on a long one.

    lines.py run STORE --expect FILE [--seed N] [--only NAME,...]
    EDGELOG_TEST_LINE=satellite lines.py ...: with time as it is, which takes half an hour

With time ten times as fast it is a test, with bounds that hold on a busy machine: what counts there is that it ends,
and what it sends and throws away for that. With time as it is, it is a measurement of half an hour.

Arguments, jars and the command line are those of transfer.py.
"""

import collections
import os
import random
import struct
import subprocess
import sys
import time

from harness import EDGELOG, SAME, TALLY, Broken, Broker, Run, append, command, kafka, main, px, values_of

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
    result = (
        f"{sent} bytes at {rate} a second, {link.cuts} connections died: {took:.0f} s, {100 * at_best / took:.0f} % of "
        f"the line, {link.carried['up']} bytes up, {transactions} transactions, {aborted} aborted"
    )
    if took > slowdown_max * at_best or link.carried["up"] > resent_max * sent:
        raise Broken(result)
    return result


class Flights(px.Link):
    """A line of long round trips that loses nothing, which counts requests by kind, and flights: requests that left
    after an answer had come. What leaves together costs one round trip."""

    def __init__(self, round_trip):
        super().__init__(100_000_000, round_trip / 2, 1e9, 0)
        self.requests = collections.Counter()
        self.flights, self.is_answered = 0, True

    def carry(self, client, broker):
        super().carry(Seen(client, self.seen), broker)

    def seen(self, api):
        """A request of this kind has left; `None`: an answer has come."""
        with self.lock:
            if api is None:
                self.is_answered = True
                return
            self.requests[px.NAMES.get(api, api)] += 1
            self.flights += self.is_answered
            self.is_answered = False


class Seen:
    """A connection, of which every request that comes from it and every answer that goes to it is reported."""

    def __init__(self, connection, seen):
        self.connection, self.seen = connection, seen
        self.left = bytearray()

    def __getattr__(self, name):
        return getattr(self.connection, name)

    def recv(self, size):
        piece = self.connection.recv(size)
        self.left += piece
        while len(self.left) >= 6 and len(self.left) >= 4 + (size := struct.unpack_from(">i", self.left)[0]):
            self.seen(struct.unpack_from(">h", self.left, 4)[0])
            del self.left[: 4 + size]
        return piece

    def sendall(self, piece):
        self.seen(None)
        self.connection.sendall(piece)


LOGS = 200
# To look up the topic, its rules and the coordinators, read the positions twice with a claim in between, send and
# commit: each is a flight, and so is ApiVersions.
FLIGHTS_MAX = 12


def many_logs(world):
    """What is asked of every log is asked of all at once: the number of round trips does not grow with them."""
    to, store = "many", world.scratch / "many"
    world.broker.create_topic(to, LOGS, retention_ms=-1)
    create = [EDGELOG, "--dir", store, "topics", "create", "t", "--partitions", str(LOGS)]
    subprocess.run(create, check=True, capture_output=True)
    values = [f"value {n}" for n in range(LOGS)]
    for n, value in enumerate(values):
        append(store, f"t-{n}", [value])
    # A broker that was just made makes its own topics when they are asked for first.
    append(store, "w", ["warm"])
    Run(command(store, world.broker, "many", to, topics="w", **SAME)).expect(0)
    arguments = command(store, world.broker, "many", to, topics="t", **SAME)
    results = []
    # The second time, the positions of those without news are committed again: a transaction of their own.
    for doing in ("at its first start", "where some have news"):
        line = world.broker.proxy.link = Flights(0.7)
        try:
            began = time.monotonic()
            run = Run(arguments).expect(0)
            took = time.monotonic() - began
        finally:
            world.broker.proxy.link = None
        ends = line.requests["EndTxn"]
        said = f"{doing} {line.flights} flights, {took:.1f} s, {dict(line.requests)}"
        if any(event["event"] in ("aborted", "retrying") for event in run.events):
            raise Broken(f"{said}\n{run.events[:10]}")
        # Each transaction has three flights more: Produce, the positions, EndTxn; or the first position, the others.
        flights_max = FLIGHTS_MAX + 3 * max(0, ends - 1)
        bounds = {"FindCoordinator": 3, "OffsetFetch": 2 * LOGS // 50, "TxnOffsetCommit": LOGS, "EndTxn": 2}
        if line.flights > flights_max or any(line.requests[name] > most for name, most in bounds.items()):
            raise Broken(f"{said}: at most {flights_max} flights and {bounds}")
        results.append(said)
        for n in range(LOGS // 10) if len(results) == 1 else ():
            values.append(f"again {n}")
            append(store, f"t-{n}", values[-1:])
    found = world.broker.consume_all(to)
    if sorted(values_of(found)) != sorted(["warm", *values]):
        raise Broken(f"expected {len(values) + 1} records, found {sum(map(len, found.values()))}")
    return "; ".join(results)


TESTS = {"bad_line": bad_line, "many_logs": many_logs}


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
