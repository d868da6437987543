#!/usr/bin/env python3
"""The bridge and a cluster that changes under it: three KRaft nodes that die in turn, brokers that come back elsewhere,
and one that has had enough for now.

    quorum.py run STORE --expect FILE [--seed N] [--only NAME,...]

As transfer.py.
"""

import concurrent.futures
import os
import pathlib
import re
import socket
import sys
import tempfile
import time

from harness import (
    SMALL,
    TALLY,
    Broken,
    Broker,
    Run,
    append,
    command,
    everything_once,
    kafka,
    main,
    px,
    tail,
    values_of,
)

NODES = (1, 2, 3)


def free_ports(host):
    """Two unused ones on this address, which is a node's own: the kernel gives them to no other program meanwhile."""
    with socket.create_server((host, 0)) as one, socket.create_server((host, 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


class Node(kafka.Broker):
    """One of three."""

    QUORUM_OPTIONS = ()

    def __init__(self, home, number, ports):
        self.HOST = host_of(number)
        broker, controller = ports[number]
        more = {
            "node.id": number,
            "controller.quorum.voters": ",".join(f"{n}@{host_of(n)}:{ports[n][1]}" for n in NODES),
            "listeners": f"PLAINTEXT://{self.HOST}:{broker},CONTROLLER://{self.HOST}:{controller}",
            "offsets.topic.replication.factor": 3,
            "offsets.topic.num.partitions": 3,
            "transaction.state.log.replication.factor": 3,
            "transaction.state.log.min.isr": 2,
            "transaction.state.log.num.partitions": 3,
            "min.insync.replicas": 2,
            "replica.lag.time.max.ms": 3000,
            "broker.session.timeout.ms": 3000,
        }
        lines = [line for line in kafka.Broker.PROPERTIES.splitlines() if "quorum.bootstrap" not in line]
        self.PROPERTIES = "\n".join([*lines, *(f"{k}={v}" for k, v in more.items())]) + "\n"
        super().__init__(home)


def host_of(number):
    return f"127.0.0.{20 + number}"


class Quorum(Broker):
    """Three nodes, each of which is broker and controller; every partition has a replica on each."""

    REPLICAS = 3

    def __init__(self, home):
        ports = {n: free_ports(host_of(n)) for n in NODES}
        homes = {n: pathlib.Path(tempfile.mkdtemp(dir=home)) for n in NODES}
        self.nodes = {n: Node(homes[n], n, ports) for n in NODES}
        # Kept: a node dies with the thread that started it.
        self.starters = concurrent.futures.ThreadPoolExecutor(len(NODES))
        self.bootstrap = self.address = ",".join(f"{host_of(n)}:{ports[n][0]}" for n in NODES)

    def start(self):
        # A node serves when two of them have agreed on who leads.
        list(self.starters.map(Node.start, self.nodes.values()))

    def stop(self):
        # Not in an orderly way: the last one would wait for a quorum.
        self.kill()

    def kill(self):
        for node in self.nodes.values():
            node.kill()

    def lead_again(self):
        """The first replica of every partition leads it again, wherever it went meanwhile."""
        # It fails where one of them leads already.
        kafka.java(
            "org.apache.kafka.tools.LeaderElectionCommand",
            *("--bootstrap-server", self.bootstrap, "--election-type", "preferred", "--all-topic-partitions"),
        )


# --- the tests --------------------------------------------------------------------------------------------------------


def nodes_killed(world):
    """Each of three nodes is killed amid a transfer and comes back, and leaders move: of partitions, of the
    transactional id, of groups, and of the cluster itself."""
    with Quorum(tempfile.mkdtemp(dir=world.scratch)) as quorum:
        quorum.start()
        world.broker, single = quorum, world.broker
        try:
            world.create_targets("n.")
            run = Run(command(world.copy("nodes"), quorum, "nodes", "n.{topic}", **SMALL))
            numbers = list(NODES)
            world.random.shuffle(numbers)
            for number in numbers:
                more_commits(run, world.random.randrange(2, 6))
                quorum.nodes[number].kill()
                TALLY["faults"] += 1
                # The others take over.
                more_commits(run, 3)
                quorum.nodes[number].start()
                more_commits(run, 2)
                quorum.lead_again()
            run.expect(0)
            moved = sum("NotLeader" in e.get("reason", "") or "NotCoord" in e.get("reason", "") for e in run.events)
            retried = sum(event["event"] == "retrying" for event in run.events)
            aborted = sum(event["event"] == "aborted" for event in run.events)
            compared = everything_once(quorum, world.expected, "n.")
        finally:
            world.broker = single
    return f"{compared}, {len(numbers)} kills, {retried} tries again ({moved} to who leads no more), {aborted} aborted"


def left_out(world):
    """A partition whose only replica is on a node that is down: its log is left out, after one transaction that is
    aborted for it, and tried again ever less often; the other goes on meanwhile, and all of it arrives in the end."""
    with Quorum(tempfile.mkdtemp(dir=world.scratch)) as quorum:
        quorum.start()
        for topic, nodes in (("lo.alone", "3"), ("lo.all", "1:2:3")):
            # With as many in sync as there are.
            in_sync = f"min.insync.replicas={min(2, len(nodes.split(':')))}"
            kafka.java_ok(
                "org.apache.kafka.tools.TopicCommand",
                *("--bootstrap-server", quorum.bootstrap, "--create", "--topic", topic),
                *("--replica-assignment", nodes, "--config", in_sync, "--config", "retention.ms=-1"),
            )
        store = world.scratch / "left-out"
        values = {log: [f"{log} {n} {'-' * 100}" for n in range(2000)] for log in ("alone", "all")}
        for at in range(0, 2000, 50):
            for log, of_log in values.items():
                append(store, log, of_log[at : at + 50])
        run = Run(command(store, quorum, "left-out", "lo.{topic}", **SMALL))
        more_commits(run, 2)
        quorum.nodes[3].kill()
        TALLY["faults"] += 1
        ends, before = {}, len(run.events)
        while ends.get("all-0") != 2000:
            event = run.next_event()
            if event is None:
                raise Broken(f"the transfer ended early:\n{tail(bytes(run.errors))}")
            if event["event"] == "committed":
                ends.update({position["log"]: position["offset"] for position in event["positions"]})
        aborted = sum(event["event"] == "aborted" for event in run.events[before:])
        if ends.get("alone-0") == 2000 or aborted == 0:
            raise Broken(f"the other was not left out: {ends}, {aborted} aborted")
        quorum.nodes[3].start()
        run.expect(0)
        for log, of_log in values.items():
            found = values_of(quorum.consume_all(f"lo.{log}"))
            if found != of_log:
                raise Broken(f"{log}: expected {len(of_log)} records, found {len(found)}")
    return f"the other's {len(of_log)} records went on, {aborted} aborted for the one that could not"


def more_commits(run, count):
    while count > 0:
        event = run.next_event()
        if event is None:
            raise Broken(f"the transfer ended early:\n{tail(bytes(run.errors))}")
        count -= event["event"] == "committed"


def moved(world):
    """A broker that comes back with another address is found by bootstrap.servers again: all that was known of the
    cluster leads nowhere."""
    with Broker(tempfile.mkdtemp(dir=world.scratch), **{"advertised.listeners": "PLAINTEXT://127.0.0.1:0"}) as broker:
        broker.start()
        broker.create_topic("moved", 1, retention_ms=-1)
        store = world.scratch / "moved"
        values = [f"moved {n} {'-' * 100}" for n in range(2000)]
        # Batches of their own: one goes into a transaction.
        for at in range(0, len(values), 50):
            append(store, "t", values[at : at + 50])
        sets = {"edgelog.bridge.transaction.bytes": 2000}
        run = Run(command(store, broker, "moved", "moved", topics="t", **sets))
        addresses = set()
        for _ in range(2):
            more_commits(run, 5)
            addresses.add(broker.bootstrap)
            broker.kill()
            TALLY["faults"] += 1
            broker.start()
        addresses.add(broker.bootstrap)
        run.expect(0)
        found = values_of(broker.consume_all("moved"))
        if found != values:
            raise Broken(f"expected {len(values)} records, found {len(found)}")
    if len(addresses) < 2:
        raise Broken(f"it never moved: {addresses}")
    return f"{len(found)} records, {len(addresses)} addresses"


NAME = "kafka.device.example"


class Named(Broker):
    """A broker whose clients know it by a name. What it says to itself, and these tests' tools, go another way."""

    INSIDE = "127.0.0.31"

    def __init__(self, home):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        super().__init__(
            home,
            **{
                "listeners": f"PLAINTEXT://127.0.0.1:0,INSIDE://{self.INSIDE}:0,CONTROLLER://127.0.0.1:0",
                "advertised.listeners": f"PLAINTEXT://{NAME}:{self.port},INSIDE://{self.INSIDE}:0",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "INSIDE",
            },
        )
        self.address = f"{NAME}:{self.port}"

    def start(self):
        kafka.Broker.start(self)
        self.outside = int(self.bootstrap.rpartition(":")[2])
        inside = re.compile(rf"on {re.escape(self.INSIDE)}:(\d+)\.")
        port = [found[1] for line in self.said if (found := inside.search(line))][-1]
        self.bootstrap = f"{self.INSIDE}:{port}"


def renamed(world):
    """The name that a broker is known by gets another address, and the old one leads nowhere: the bridge asks for the
    address again. Names are looked up in a file of the bridge's own, in its own name space of mounts."""
    addresses = ("127.0.0.32", "127.0.0.33")
    with Named(tempfile.mkdtemp(dir=world.scratch)) as broker:
        broker.start()
        broker.create_topic("renamed", 1, retention_ms=-1)
        store, hosts = world.scratch / "renamed", world.scratch / "hosts"
        values = [f"renamed {n} {'-' * 100}" for n in range(2000)]
        for at in range(0, len(values), 50):
            append(store, "t", values[at : at + 50])
        sets = {"edgelog.bridge.transaction.bytes": 2000}
        bridge = command(store, broker, "renamed", "renamed", topics="t", **sets)
        hosts.write_text(f"{addresses[0]} {NAME}\n")
        way = px.Proxy((addresses[0], broker.port))
        way.forward_to(broker.outside)
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        run = Run(["unshare", *(() if os.geteuid() == 0 else ("-r",)), "-m", "sh", "-c", script, hosts, *bridge])
        more_commits(run, 5)
        # In place: it is the file itself that is mounted there.
        hosts.write_text(f"{addresses[1]} {NAME}\n")
        there = px.Proxy((addresses[1], broker.port))
        there.forward_to(broker.outside)
        way.close()
        TALLY["faults"] += 1
        run.expect(0)
        found = values_of(broker.consume_all("renamed"))
    if found != values or there.accepted == 0:
        raise Broken(f"expected {len(values)} records, found {len(found)}; {there.accepted} connections")
    return f"{len(found)} records, {there.accepted} connections to the other address"


def throttled(world):
    """A quota makes the broker hold Produce back for longer than a transaction may take: it gets through all the same,
    since commits go another way."""
    client, rate, timeout_ms = "throttled-client", 3000, 3000
    world.broker.create_topic("throttled", 1, retention_ms=-1)
    kafka.java_ok(
        "kafka.admin.ConfigCommand",
        *("--bootstrap-server", world.broker.bootstrap, "--alter", "--entity-type", "clients"),
        *("--entity-name", client, "--add-config", f"producer_byte_rate={rate}"),
    )
    store = world.scratch / "throttled"
    values = [f"throttled {n} {'-' * 1000}" for n in range(120)]
    for at in range(0, len(values), 10):
        append(store, "t", values[at : at + 10])
    sets = {"client.id": client, "transaction.timeout.ms": timeout_ms, "edgelog.bridge.transaction.bytes": 40_000}
    started = time.monotonic()
    run = Run(command(store, world.broker, "throttled", "throttled", topics="t", **sets)).expect(0)
    # So long at the least, by the broker's arithmetic.
    passed_ms = (time.monotonic() - started) * 1000
    if passed_ms < 2 * timeout_ms:
        raise Broken(f"all of it took {passed_ms:.0f} ms: nothing was held back")
    found = values_of(world.broker.consume_all("throttled"))
    if found != values:
        raise Broken(f"expected {len(values)} records, found {len(found)}")
    aborted = sum(event["event"] == "aborted" for event in run.events)
    return f"{len(found)} records, in {passed_ms / 1000:.0f} s, {aborted} aborted"


TESTS = {
    "nodes_killed": nodes_killed,
    "left_out": left_out,
    "moved": moved,
    "renamed": renamed,
    "throttled": throttled,
}


if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, Broker))
