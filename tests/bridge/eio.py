#!/usr/bin/env python3
"""The bridge next to a writer on a disk that fails: what the disk never got is never sent.

    eio.py run STORE --expect FILE [--seed N] [--only NAME,...]

The store is on an ext4 of its own, on a loop device whose end is taken away while both processes work: the kernel
answers every write behind it with EIO, as for a disk with a dead region. The cut goes through the room that one log has
reserved, so that its data fail and nothing else does: no journal, no checkpoint, no note. Later it is given back.

Needs root, for loop devices and mounts. The writer is the example `scripted_writer`, in $EDGELOG_WRITER. Arguments,
jars and the command line are those of transfer.py, whose store is not used here.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from harness import EDGELOG, TALLY, Broken, Broker, Run, command, kafka, main, same_records, tail

WRITER = os.environ.get("EDGELOG_WRITER", "scripted_writer")
ROUNDS = int(os.environ.get("EDGELOG_EIO_ROUNDS", "8"))
LOG = "t-0"
# The bridge looks often, at records and at logs that wait.
SETS = {"edgelog.bridge.interval.ms": 100, "edgelog.bridge.retry.ms": 300}
# Nothing that is waited for takes longer, but what never comes.
SECONDS_MAX = 60
BLOCK = 4096
DEVICE_BYTES = 32 << 20
# So much of a log's reserved room has to lie behind the cut.
DEAD_BYTES_MIN = 64 << 10
EIO = "Input/output error"
# What the command line ends with where it found damage.
DAMAGED = 2
EXTENT = re.compile(r"^\s*\d+:\s*(\d+)\.\.\s*(\d+):\s*(\d+)\.\.\s*(\d+):", re.MULTILINE)


def system(*words):
    """Runs one of the system's tools."""
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise Broken(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout.strip()


def extents(path):
    """The blocks of a file as they lie on the device: (first in the file, first on the device, how many)."""
    found = EXTENT.findall(system("filefrag", "-v", path))
    return [(int(a), int(c), int(b) - int(a) + 1) for a, b, c, _ in found]


# --- a device that fails ----------------------------------------------------------------------------------------------


class Device:
    """A small ext4 on a loop device that may end early."""

    def __init__(self, scratch):
        self.home = pathlib.Path(tempfile.mkdtemp(dir=scratch))
        self.image, self.mount_point = self.home / "image", self.home / "mounted"
        self.mount_point.mkdir()
        self.store = self.mount_point / "store"
        self.loop = None
        # What lay behind the cut when the device failed.
        self.cut, self.behind = None, b""

    def __enter__(self):
        with open(self.image, "wb") as image:
            image.truncate(DEVICE_BYTES)
        # All that the file system needs lies there from the beginning.
        system("mkfs.ext4", "-q", "-m", 0, "-b", BLOCK, "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        try:
            self.loop = system("losetup", "--find", "--show", self.image)
            system("mount", self.loop, self.mount_point)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Broken):
            self.heal()
        if self.mount_point.is_mount():
            try:
                system("umount", self.mount_point)
            except Broken:
                system("umount", "--lazy", self.mount_point)
        if self.loop:
            system("losetup", "--detach", self.loop)
        shutil.rmtree(self.home)

    def room_behind_the_rest(self, log):
        """The first block on the device of a log's reserved room; None where that is small, or something lies behind it
        that has to go on working."""
        os.sync()
        path = max((self.store / log).glob("*.log"))
        others = [p for p in self.store.rglob("*") if p.is_file() and p != path and p.name != ".lock"]
        last = max(at + count for other in others for _, at, count in extents(other))
        # A page that has durable records in it does not fail.
        used = -(-written_bytes(path) // BLOCK)
        room = [(at + max(0, used - first), first + count - max(first, used)) for first, at, count in extents(path)]
        room = [(at, count) for at, count in room if count > 0]
        if not room or any(at < last for at, _ in room) or sum(count for _, count in room) * BLOCK < DEAD_BYTES_MIN:
            return None
        return min(at for at, _ in room)

    def fail(self, log):
        """From here on writing to the room that the log has reserved is answered with EIO."""
        self.cut = self.room_behind_the_rest(log) * BLOCK
        with open(self.image, "rb") as image:
            image.seek(self.cut)
            self.behind = image.read()
        os.truncate(self.image, self.cut)
        system("losetup", "--set-capacity", self.loop)
        TALLY["faults"] += 1

    def heal(self):
        if self.cut is None:
            return
        with open(self.image, "r+b") as image:
            image.seek(self.cut)
            image.write(self.behind)
        system("losetup", "--set-capacity", self.loop)
        self.cut = None

    def remount(self):
        """What is seen from here on is what the disk has."""
        self.heal()
        system("umount", self.mount_point)
        system("mount", self.loop, self.mount_point)


def written_bytes(path):
    """Where the zeros of reserved room begin."""
    return len(path.read_bytes().rstrip(b"\0"))


# --- both processes ---------------------------------------------------------------------------------------------------


class Writer:
    """A program that writes the store, and stays when a log of it fails."""

    def __init__(self, store):
        self.process = subprocess.Popen(
            [WRITER, str(store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=kafka.die_with_parent,
        )
        self.values = 0

    def order(self, *words):
        """The answer, and whether it is good."""
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        kind, _, rest = self.process.stdout.readline().strip().partition(" ")
        if kind not in ("ok", "error"):
            raise Broken(f"the writer ended when it got {words[:2]}")
        return kind == "ok", rest

    def must(self, *words):
        good, said = self.order(*words)
        if not good:
            raise Broken(f"the writer got {words[:2]} and says: {said}")
        return said

    def append(self, label, count=1, durability="os", topic="t"):
        """Records that take about a page each; no two the same. Returns the end of the log."""
        for _ in range(count):
            self.values += 1
            end = int(self.must(durability, topic, f"{label} {self.values} " + "x" * 3000)) + 1
        return end

    def append_until_it_fails(self, label):
        """What the first error says. A record may still fit in before the cut."""
        for n in range(1000):
            good, said = self.order("sync", "t", f"{label} {n} " + "y" * 3000)
            if not good:
                return said
        raise Broken("the device has failed, and a thousand records were durable")

    def kill(self):
        TALLY["faults"] += 1
        self.end()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Stage:
    """One device, its writer, and the bridge next to it, which sends to a topic of its own."""

    def __init__(self, world, name):
        self.broker, self.name, self.random = world.broker, name, world.random
        self.open = contextlib.ExitStack()
        self.device = self.open.enter_context(Device(world.scratch))
        self.store = self.device.store
        self.writer = None
        self.bridge = None
        self.open.callback(self.stop_bridge)
        self.open.callback(self.stop_writer)

    def __enter__(self):
        try:
            self.broker.create_topic(f"{self.name}.t", 1, retention_ms=-1)
            self.broker.create_topic(f"{self.name}.other", 1, retention_ms=-1)
            self.start_writer()
            self.writer.must("create", "t")
            self.writer.must("create", "other")
            self.start_bridge()
            self.writer.must("os", "other", "before")
            self.sent("other-0", 1)
            # The log grows until its room lies behind all else, the note included.
            end = self.writer.append("before", 8)
            for _ in range(40):
                self.sent(LOG, end)
                if self.device.room_behind_the_rest(LOG) is not None:
                    break
                end = self.writer.append("before", 8)
            else:
                raise Broken("the log's room does not come to lie behind everything else")
            self.end = end
        except BaseException:
            self.open.close()
            raise
        return self

    def __exit__(self, *_):
        self.open.close()

    def start_writer(self):
        self.writer = Writer(self.store)

    def stop_writer(self):
        if self.writer is not None:
            self.writer.end()

    def start_bridge(self):
        to = self.name + ".{topic}"
        self.bridge = Run(command(self.store, self.broker, self.name, to, forever=True, **SETS), 2 * SECONDS_MAX)

    def stop_bridge(self):
        if self.bridge is not None:
            self.bridge.process.kill()
            self.bridge.wait()
            self.bridge = None

    def event(self, what, is_it):
        """Reads what the bridge says until it is that."""
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            event = self.bridge.next_event()
            if event is None:
                self.bridge.wait()
                raise Broken(f"the bridge ended; {what}\n{tail(bytes(self.bridge.errors))}")
            if is_it(event):
                return event
        raise Broken(f"not within {SECONDS_MAX} s: {what}; it said {self.bridge.events[-5:]}")

    def sent(self, log, end):
        self.event(
            f"{log} sent up to {end}",
            lambda e: e["event"] == "committed" and any(p["log"] == log and p["offset"] >= end for p in e["positions"]),
        )

    def waits(self, *words):
        """The bridge says that nothing of the log is sent, for this reason."""
        return self.event(
            f"waits: {words}",
            lambda e: e["event"] == "waiting" and e["log"] == LOG and all(word in e["reason"] for word in words),
        )["reason"]

    def in_the_log(self, may_be_damaged=False):
        """What a reader finds there, attached. A device that lost a page and kept a later one leaves a valid batch
        behind damage at the end of the log: the export says so, and ends with 2."""
        done = subprocess.run(
            [EDGELOG, "--dir", str(self.store), "export", LOG, "--format", "json", "--to", "-"],
            capture_output=True,
            check=False,
        )
        lost_its_end = done.returncode == DAMAGED and b"; the log ends at offset " in done.stderr
        if done.returncode != 0 and not (may_be_damaged and lost_its_end):
            raise Broken(f"export ended with {done.returncode}: {done.stderr.decode()}")
        return kafka.read_json_lines(done.stdout.decode())

    def in_the_cluster(self):
        return self.broker.consume_all(f"{self.name}.t").get(0, [])

    def nothing_undurable_was_sent(self):
        """All that the cluster has is on the disk, at the same place in the log. Who reads and writes has ended."""
        before = self.in_the_log()
        self.device.remount()
        on_disk, found = self.in_the_log(may_be_damaged=True), self.in_the_cluster()
        if len(found) > len(on_disk):
            raise Broken(f"the cluster has {len(found)} records, and the disk {len(on_disk)} of {len(before)}")
        same_records(on_disk[: len(found)], found, f"{self.name}: what the disk has")
        return len(before) - len(on_disk)

    def both_agree(self):
        """The log and the cluster have the same, once and in order."""
        found = self.in_the_cluster()
        same_records(self.in_the_log(), found, f"{self.name}: the log")
        return len(found)


def in_the_end(stage):
    """A writer that opens the store goes on, and a bridge sends the rest: once, in order, with other records where some
    were lost."""
    stage.start_writer()
    stage.start_bridge()
    end = stage.writer.append("after", 5, "sync")
    stage.sent(LOG, end)
    stage.stop_bridge()
    stage.writer.end()
    stage.device.remount()
    return stage.both_agree()


def lost_and_gone_on(stage):
    """Both have ended: the device has lost records, and none of them was sent; and what comes goes on."""
    lost = stage.nothing_undurable_was_sent()
    if lost <= 0:
        raise Broken("the device has lost nothing: this test shows nothing")
    return f"{lost} records lost by the device, none of them sent; {in_the_end(stage)} in the end"


# --- the tests --------------------------------------------------------------------------------------------------------


def the_writer_meets_it(world):
    """The writer's own flush is answered with EIO: its log is read-only, the bridge stops with it and says why, and the
    other log goes on. What was not durable is not sent, and is lost when the disk is looked at."""
    with Stage(world, "writer-meets") as stage:
        stage.bridge.process.send_signal(signal.SIGSTOP)
        stage.device.fail(LOG)
        stage.writer.append("in the cache", 5)
        said = stage.writer.append_until_it_fails("never")
        if EIO not in said:
            raise Broken(f"the writer was answered with {said}")
        good, again = stage.writer.order("os", "t", "once more")
        if good or EIO not in again:
            raise Broken(f"the log is not read-only: {again}")
        stage.bridge.process.send_signal(signal.SIGCONT)
        stage.waits("could not write or flush")
        stage.writer.must("sync", "other", "goes on")
        stage.sent("other-0", 2)
        stage.stop_bridge()
        stage.writer.kill()
        return lost_and_gone_on(stage)


def it_goes_on_by_itself(world):
    """After the error the device is mended, and the writer opens the store again: in one boot the recovery writes what
    the page cache has once more, past that cache. The bridge that waited sends all of it by itself, no matter which
    process met the error first. A bridge that was started meanwhile does so too. The disk has it as well, and what was
    appended behind it."""
    compared = []
    for who in ("writer", "bridge", "bridge-before"):
        with Stage(world, f"goes-on-{who}") as stage:
            if who == "writer":
                stage.bridge.process.send_signal(signal.SIGSTOP)
            stage.device.fail(LOG)
            if who == "writer":
                stage.writer.append_until_it_fails("again")
                stage.bridge.process.send_signal(signal.SIGCONT)
                stage.waits("could not write or flush")
            else:
                stage.writer.append("again", 5)
                stage.waits(EIO)
            if who == "bridge-before":
                stage.bridge.kill()
                stage.start_bridge()
                stage.waits("a bridge before this one could not flush")
            stage.device.heal()
            stage.writer.must("open")
            stage.sent(LOG, stage.writer.append("after", 5, "sync"))
            stage.stop_bridge()
            stage.both_agree()
            stage.writer.kill()
            stage.device.remount()
            compared.append(stage.both_agree())
    return f"{', '.join(map(str, compared))} records compared"


def the_bridge_meets_it(world):
    """The bridge's flush is answered with EIO, since the writer does not flush meanwhile. Nothing that is not durable
    is sent: not by that bridge, and not by one that is started after it was killed, although the kernel reports no
    error to that one and its flush would succeed; and the writer meets the error at its own next flush."""
    with Stage(world, "bridge-meets") as stage:
        stage.device.fail(LOG)
        stage.writer.append("in the cache", 5)
        stage.waits(EIO)
        stage.bridge.kill()
        # From here on every write succeeds; what failed is clean for the kernel.
        stage.device.heal()
        stage.start_bridge()
        stage.waits("a bridge before this one could not flush")
        stage.writer.must("os", "other", "goes on")
        stage.sent("other-0", 2)
        stage.bridge.kill()
        good, said = stage.writer.order("flush", "t")
        if good or EIO not in said:
            raise Broken(f"the writer's flush says {said or 'ok'}")
        stage.writer.kill()
        return lost_and_gone_on(stage)


def either_meets_it(world):
    """The device fails while both append, flush and send as they come; then both are killed in either order, or the
    bridge alone is started again."""
    lost, compared = 0, 0
    for n in range(ROUNDS):
        with Stage(world, f"either-{n}") as stage:
            stage.device.fail(LOG)
            heals = stage.random.random() < 0.5
            for step in range(30):
                durability = stage.random.choice(("os", "os", "os", "sync"))
                good, _ = stage.writer.order(durability, "t", f"amid {step} " + "z" * stage.random.randrange(4000))
                if not good:
                    break
                if stage.random.random() < 0.2:
                    stage.bridge.kill()
                    stage.start_bridge()
                if heals and stage.random.random() < 0.2:
                    stage.device.heal()
            # It has looked at what was appended last, and it does not matter what it found.
            stage.writer.must("os", "other", "the last one")
            stage.sent("other-0", 2)
            for end in stage.random.sample((stage.bridge.kill, stage.writer.kill), 2):
                end()
            lost += stage.nothing_undurable_was_sent()
            compared += in_the_end(stage)
    return f"{ROUNDS} devices, {lost} records lost by them, none of them sent; {compared} in the end"


TESTS = {
    "writer_meets_it": the_writer_meets_it,
    "bridge_meets_it": the_bridge_meets_it,
    "goes_on_by_itself": it_goes_on_by_itself,
    "either_meets_it": either_meets_it,
}


if __name__ == "__main__":
    sys.exit(main(__doc__, TESTS, Broker))
