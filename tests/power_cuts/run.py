#!/usr/bin/env python3
"""Power cuts of a virtual machine: what was acknowledged as durable is there after the next boot.

    run.py --work DIR [--filesystem ext4|xfs|xfs-no-reflink|f2fs|btrfs|all] [--cuts N] [--seed S] [--only PART,...]
    run.py --work DIR --filesystem ext4 --cuts 4 --break-the-disk

A Linux machine under qemu has the stores on a disk of ours (disk.py), which keeps what is written in a volatile cache
until it is flushed. Two writers in the machine, each with a store of its own on one file system, take orders from this
program: appends at `Sync` and `Os`, flushes, rolls, retention, topics created, altered and deleted, repairs, closes
and kills. At a random write or flush the disk stops answering, the machine is killed, and each write that
was not flushed is kept, dropped or torn. Then the machine boots again on what is left: `fsck` looks at the stores first
and must find nothing lost, a writer opens them, and every record is compared with what was sent and what was
acknowledged. An acknowledgement counts when it has arrived here, outside of the machine. In one boot of four the power
goes again while the file system and the stores recover.

The parts: `cuts` (as above, for each file system), `refusal` (vfat and exFAT are refused by name, and nothing is left
behind), `canary` (a disk that lies about flushes has to be found). `--break-the-disk` is the canary for the file
systems that are given.

Needs root for nothing but `--install`, which installs qemu and the mkfs tools by apt-get. The kernel is fetched with
`apt-get download` once, and kept in DIR. The programs are $EDGELOG_BIN, the command line, and $EDGELOG_WRITER, the
example `scripted_writer`. Where KVM does not boot a machine, the processor is emulated: about half a minute a cut.

What is random comes from the seed. But the machine keeps its own time, so that a seed repeats the kinds of things that
happen, and not each write. Of a cut that breaks, the disk before and after, the logs and the orders are kept in DIR.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

from disk import SECTOR, Disk
from machine import WRITERS, Hangs, Machine, Parts, PowerCut, choose_accelerator, tool

EDGELOG = os.environ.get("EDGELOG_BIN", "edgelog")
WRITER = os.environ.get("EDGELOG_WRITER", "scripted_writer")
# XFS wants 300 MiB at least. The files are sparse.
DISK_BYTES = 320 << 20
MOUNTED = "/mnt"
# How a file system is made, and the kernel's name for it.
MKFS = {
    "ext4": ("ext4", "mkfs.ext4", "-q", "-F"),
    "xfs": ("xfs", "mkfs.xfs", "-q", "-f"),
    # Here edgelog writes through maps.
    "xfs-no-reflink": ("xfs", "mkfs.xfs", "-q", "-f", "-m", "reflink=0"),
    "f2fs": ("f2fs", "mkfs.f2fs", "-q", "-f"),
    "btrfs": ("btrfs", "mkfs.btrfs", "-q", "-f"),
    "vfat": ("vfat", "mkfs.vfat"),
    "exfat": ("exfat", "mkfs.exfat"),
}
JOURNALED = ("ext4", "xfs", "xfs-no-reflink", "f2fs", "btrfs")
# Both write their superblock in place, with a checksum, and take it for one unit: torn, they do not mount.
WHOLE = {"ext4": ((0, 4096),), "btrfs": ((64 << 10, 4096), (64 << 20, 4096))}
# f2fs takes a block for one unit. Of a block that was being written when the power went it looks at the last sector
# alone: where that one is kept and the first is not, its recovery makes the file empty, with all that was durable in
# it. `--sector-bytes 512` shows it.
UNIT = {"f2fs": 4096}
# The disk stops after so many writes and flushes of the workload at most; or of mount and recovery.
EFFECTS_MAX = 1200
# Then it waits for so many writes in its cache, but not for long.
CACHED_MIN = (0, 0, 5, 20, 40)
RECOVERY_EFFECTS_MAX = 120
WORKLOAD_SECONDS_MAX = 30
IN_FLIGHT_MAX = 16
# What `fsck` ends with.
SOUND, HEALS_ITSELF, LOST = 0, 1, 2
TOPICS = {
    "plain": {"segment.bytes": 16384},
    "large": {"segment.bytes": 262144},
    "kept": {"segment.bytes": 8192, "retention.bytes": 65536},
}
# How often a writer gets `sync`, `os`, `flush` and `open`; chosen for each boot.
ORDERS = ((35, 52, 10, 1), (5, 90, 4, 1), (80, 15, 4, 1), (2, 96, 1, 1))
# After how many hundredths of a second the machine writes back what was not flushed; its own default is 3000.
WRITEBACK = (10, 20, 50, 3000)
# Created and deleted again and again, under the same name.
FLEETING = "fleeting"


class Broken(Exception):
    """What has to hold does not."""


class Lost(Broken):
    """Records that were acknowledged as durable are not there."""

    def __init__(self, text, records=1):
        super().__init__(text)
        self.records = records


class Checks:
    """Counts what held and what broke."""

    def __init__(self):
        self.held, self.broken = 0, 0

    def say(self, good, name, note):
        self.held, self.broken = self.held + good, self.broken + (not good)
        print(f"{'ok    ' if good else 'BROKEN'} {name} ({note})", flush=True)

    def finish(self):
        print(f"checks: {self.held} passed, {self.broken} failed", flush=True)
        return 1 if self.broken or not self.held else 0


# --- what has to be there ---------------------------------------------------------------------------------------------


class Topic:
    """What this program knows of one topic. `state` is here, gone, or either, while an order is on its way."""

    def __init__(self, name, config):
        self.name, self.config = name, config
        self.state = "gone"
        self.forget()

    def forget(self):
        # Offset -> value, of all that was appended; the log's end; up to where it was acknowledged as durable.
        self.values, self.start, self.end, self.durable_end = {}, 0, 0, 0
        # Values on their way, in order.
        self.sent = collections.deque()

    def appended(self, offset):
        """An append was answered with this offset."""
        if offset != self.end:
            raise Broken(f"{self.name}: an append was answered with offset {offset}, expected {self.end}")
        self.values[offset] = self.sent.popleft()
        self.end = offset + 1

    def compare(self, found, where):
        """Holds what a reader found, (offset, value), to what is known. Returns how many were compared."""
        start = found[0][0] if found else 0
        if found and (start < self.start or (start > 0 and "retention.bytes" not in self.config)):
            raise Broken(f"{where}: the log begins at offset {start}")
        maybe = list(self.sent)
        for n, (offset, value) in enumerate(found):
            if offset != start + n:
                raise Broken(f"{where}: offset {offset} stands where {start + n} is expected")
            ahead = offset - self.end
            if ahead >= len(maybe):
                raise Broken(f"{where}: offset {offset} was never appended: {value[:60]!r}")
            expected = self.values[offset] if ahead < 0 else maybe[ahead]
            if value != expected:
                kind = Lost if offset < self.durable_end else Broken
                raise kind(f"{where}: offset {offset} has {value[:60]!r}, expected {expected[:60]!r}")
        end = start + len(found)
        if end < self.durable_end:
            raise Lost(
                f"{where}: the log ends at {end}, and {self.durable_end} was acknowledged: "
                f"{self.durable_end - end} records are lost",
                self.durable_end - end,
            )
        kept = sum(len(value) for _, value in found)
        if start > self.start and kept + 200 * len(found) < self.config["retention.bytes"]:
            raise Broken(f"{where}: retention left {kept} bytes of values, from offset {start} on")
        return len(found)

    def is_now(self, found):
        """What an open has served is durable from here on, and all there is."""
        maybe = list(self.sent)
        for offset, value in found:
            if offset >= self.end:
                assert value == maybe[offset - self.end]
                self.values[offset] = value
        self.start = found[0][0] if found else 0
        end = found[-1][0] + 1 if found else 0
        self.values = {offset: value for offset, value in self.values.items() if self.start <= offset < end}
        self.end = self.durable_end = end
        self.sent.clear()
        self.state = "here"


# --- a store and its writer -------------------------------------------------------------------------------------------


def is_of_an_index(finding):
    return finding["severity"] == "heals" and finding["file"].endswith((".index", ".timeindex"))


class Store:
    """One store in the machine: what it has to have, and the writer that takes its orders."""

    def __init__(self, number, seed):
        self.number, self.path = number, f"{MOUNTED}/store{number}"
        self.fd = 4 + number
        self.random = random.Random(f"{seed} store {number}")
        self.topics = {name: Topic(name, config) for name, config in TOPICS.items()}
        self.topics[FLEETING] = Topic(FLEETING, {"segment.bytes": 4096})
        self.counter = self.runs = self.acknowledged = self.stale_indexes = 0
        self.weights, self.ended = ORDERS[0], None
        self.in_flight = collections.deque()
        self.port = self.machine = None
        self.orders = []

    def boots(self, machine):
        self.machine, self.port = machine, machine.writers[self.number]
        self.in_flight.clear()
        self.weights = self.random.choice(ORDERS)

    # --- the writer ---

    def start_writer(self):
        """Returns when it has opened the store."""
        self.runs += 1
        self.machine.control.send(f"writer {self.fd} {self.runs} {self.path}")
        self.note(f"begin {self.runs}")
        self.port.send(f"begin {self.runs}")
        # A topic that is here; the first run creates it.
        self.order("create", "first")
        self.wait_for_answers()

    def order(self, kind, topic="", value=""):
        self.in_flight.append((kind, topic))
        self.note(f"{kind} {topic} {value[:40]}")
        self.port.send(" ".join(word for word in (kind, topic, value) if word))

    def note(self, line):
        self.orders.append(f"{time.time():.3f} store{self.number} {line}\n")

    def answers(self):
        """Takes the answers that have come."""
        for line in self.port.lines():
            self.note(f"  {line}")
            if line.startswith(f"ended {self.runs} "):
                self.ended = line.split(" ")[2]
                continue
            if not self.in_flight:
                raise Broken(f"store{self.number}: an answer to nothing: {line}")
            kind, name = self.in_flight.popleft()
            said, _, rest = line.partition(" ")
            if said != "ok":
                raise Broken(f"store{self.number}: the writer got {kind} {name} and says: {line}")
            if kind in ("sync", "os"):
                self.topics[name].appended(int(rest))
                if kind == "sync":
                    self.all_durable(self.topics[name])
            elif kind == "flush":
                self.all_durable(self.topics[name])
            elif kind == "open":
                # It was closed, which flushes, or else recovered.
                self.all_durable(*self.topics.values())

    def all_durable(self, *topics):
        """Answers come in order: all that has an offset by now was appended before."""
        for topic in topics:
            self.acknowledged += topic.end - topic.durable_end
            topic.durable_end = topic.end

    def wait_for_answers(self):
        """Waits until nothing is on its way."""
        self.answers()
        while self.in_flight:
            self.machine.wait_for(self.port)
            self.answers()

    def stop_writer(self, how):
        """`close` lets it close the store; `kill` is SIGKILL amid its work."""
        if how == "close":
            self.wait_for_answers()
        else:
            self.machine.order("kill", "-9", f"$(cat /tmp/writer{self.fd}.pid)")
        self.note(how)
        self.port.send(f"end {self.runs}")
        # What it answered before it died comes before that.
        self.ended = None
        while self.ended is None:
            self.machine.wait_for(self.port)
            self.answers()
        code = self.ended
        if code != ("0" if how == "close" else "137"):
            said = self.machine.order("cat", f"/tmp/writer{self.fd}.err")[1]
            raise Broken(f"store{self.number}: the writer ended with {code} after {how}: {said}")
        self.in_flight.clear()
        if how == "close":
            self.all_durable(*self.topics.values())

    # --- the command line ---

    def cli(self, *words):
        return self.machine.order("/edgelog/edgelog", "--dir", self.path, *words)

    def must(self, *words):
        self.note(" ".join(words))
        code, out, err = self.cli(*words)
        self.note(f"  {code} {err.strip()}")
        if code != 0:
            raise Broken(f"store{self.number}: {' '.join(words)} ended with {code}: {err}{out}")
        return out

    def read(self, name):
        """(offset, value) of all records of a topic."""
        lines = self.must("export", name, "--format", "json", "--to", "-").splitlines()
        return [(record["offset"], record["payload"]) for record in map(json.loads, lines)]

    def fsck(self, allowed, when):
        code, out, err = self.cli("fsck", "--json")
        self.note(f"fsck {when}: {code} {out.strip()} {err.strip()}")
        if code not in allowed or not out.strip():
            text = f"store{self.number}: fsck {when} ended with {code}: {out}{err}"
            raise Lost(text, json.loads(out)["lost_offsets"]) if code == LOST else Broken(text)
        return code, json.loads(out)

    def sound_but_for_indexes(self, when):
        """Indexes are not flushed, and after a cut they may be empty. They are rebuilt in memory when they are needed;
        the files stay as they are until `edgelog repair`, and `fsck` names them with exit code 1."""
        code, report = self.fsck((SOUND, HEALS_ITSELF), when)
        damage = [finding for finding in report["findings"] if finding["severity"] != "note"]
        others = [finding for finding in damage if not is_of_an_index(finding)]
        if others or (code != SOUND and not damage):
            raise Broken(f"store{self.number}: fsck {when} ended with {code}: {others or report}")
        self.stale_indexes += len(damage)
        return report

    def repair(self):
        """Without a writer. Nothing is left for `fsck` to find."""
        self.must("repair")
        self.fsck((SOUND,), "after a repair")

    # --- after a boot ---

    def recover(self):
        """Looks at the store before anything opens it, opens it, and compares. Returns what `fsck` said, and how many
        records were compared."""
        here = self.machine.order("test", "-e", f"{self.path}/edgelog.checkpoint")[0] == 0
        known = any(topic.state == "here" for topic in self.topics.values())
        if known and not here:
            raise Lost(f"store{self.number}: there is no store any more")
        code, before, report = SOUND, {}, {"logs": []}
        if here:
            code, report = self.fsck((SOUND, HEALS_ITSELF), "before the open")
            for name in self.listed():
                before[name] = self.read(name)
                self.topics[name].compare(before[name], f"store{self.number}/{name}, before the open")
        self.start_writer()
        after = self.sound_but_for_indexes("after the open")
        compared = 0
        listed = self.listed()
        for name, topic in self.topics.items():
            if name not in listed:
                if topic.state == "here":
                    raise Lost(f"store{self.number}: topic {name} is gone")
                topic.forget()
                topic.state = "gone"
                continue
            if topic.state == "gone":
                raise Broken(f"store{self.number}: topic {name} was deleted, and is here")
            found = self.read(name)
            compared += topic.compare(found, f"store{self.number}/{name}")
            # Who only reads sees before the open what is there behind it, but for what retention takes.
            if name in before:
                seen = [record for record in before[name] if found and record[0] >= found[0][0]]
                if seen != found:
                    raise Broken(
                        f"store{self.number}/{name}: a reader saw {len(seen)} records up to "
                        f"{seen[-1:]} before the open, and there are {len(found)} up to {found[-1:]} behind it"
                    )
            topic.is_now(found)
        self.ends_agree(report, after)
        return code, compared

    def listed(self):
        """The names of the topics, but for the one that shows that a writer is there."""
        names = {json.loads(line)["topic"] for line in self.must("topics", "--json").splitlines()} - {"first"}
        if not names <= set(self.topics):
            raise Broken(f"store{self.number}: topics that were never created: {names - set(self.topics)}")
        return names

    def ends_agree(self, before, after):
        ends = {log["topic"]: log["log_end_offset"] for log in before["logs"]}
        for log in after["logs"]:
            end = ends.get(log["topic"], log["log_end_offset"])
            if end != log["log_end_offset"]:
                raise Broken(
                    f"store{self.number}/{log['topic']}: fsck said before the open that the log ends at {end}, "
                    f"and behind it that it ends at {log['log_end_offset']}"
                )

    # --- the workload ---

    def create(self, name):
        topic = self.topics[name]
        topic.forget()
        topic.state = "either"
        config = [word for key, value in topic.config.items() for word in ("--config", f"{key}={value}")]
        self.must("topics", "create", name, *config)
        topic.state = "here"

    def delete(self, name):
        self.topics[name].state = "either"
        self.must("topics", "delete", name, "--yes")
        self.topics[name].forget()
        self.topics[name].state = "gone"

    def between_runs(self):
        """What takes the writer's place for a moment: topics are created, deleted and altered."""
        killed = self.random.random() < 0.3
        self.stop_writer("kill" if killed else "close")
        if killed:
            self.after_a_kill()
        for name in TOPICS:
            if self.topics[name].state != "here":
                self.create(name)
        if self.random.random() < 0.7:
            if self.topics[FLEETING].state == "here":
                self.delete(FLEETING)
            if self.random.random() < 0.7:
                self.create(FLEETING)
        if self.random.random() < 0.3:
            self.must("topics", "alter", "large", "--config", f"segment.ms={self.random.randrange(10**6, 10**9)}")
        if self.random.random() < 0.15:
            self.repair()
        self.start_writer()

    def after_a_kill(self):
        """In the same boot the page cache has all that was answered. A command that opens the store recovers it."""
        self.start_writer()
        for name in self.listed():
            topic = self.topics[name]
            found = self.read(name)
            durable_end, topic.durable_end = topic.durable_end, topic.end
            topic.compare(found, f"store{self.number}/{name}, after a kill")
            # What comes back from a recovery has been made durable.
            topic.is_now(found)
            self.acknowledged += topic.durable_end - durable_end
        self.stop_writer("close")

    def next_order(self):
        here = [name for name, topic in self.topics.items() if topic.state == "here"]
        kind = self.random.choices(("sync", "os", "flush", "open"), self.weights)[0]
        if self.machine.disk.left is not None and self.machine.disk.left <= 0:
            # The disk waits for its cache to fill.
            kind = "os"
        if kind == "open":
            self.order("open")
            return
        name = self.random.choice(here)
        if kind == "flush":
            self.order("flush", name)
            return
        self.counter += 1
        size = self.random.randrange(200) if self.random.random() < 0.7 else self.random.randrange(3000)
        value = f"store{self.number} {name} {self.counter} " + "abcdefgh"[self.counter % 8] * size
        self.topics[name].sent.append(value)
        self.order(kind, name, value)


# --- one file system --------------------------------------------------------------------------------------------------


class Run:
    """Cuts of one file system, one after the other on the same disk."""

    def __init__(self, parts, name, args, lies=False):
        self.parts, self.name, self.args, self.lies = parts, name, args, lies
        self.random = random.Random(f"{args.seed} {name} {lies}")
        self.home = args.work / (f"{name}-lies" if lies else name)
        self.tally = collections.Counter()
        self.disk = None
        self.boot_ids = set()
        self.new_disk()

    def new_disk(self):
        if self.disk is not None:
            self.disk.close()
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        kernels_name, *make = MKFS[self.name]
        self.filesystem = kernels_name
        unit = self.args.sector_bytes or UNIT.get(self.name, SECTOR)
        whole = WHOLE.get(self.name, ())
        self.disk = Disk(self.home, DISK_BYTES, self.random, unit=unit, whole=whole, lies=self.lies)
        tool(*make, self.home / "durable")
        shutil.copyfile(self.home / "durable", self.home / "current")
        self.stores = [Store(n, self.random.random()) for n in range(WRITERS)]

    def boot(self, cached):
        return Machine(
            *(self.parts, self.disk, self.filesystem, self.home / "machine"),
            cached=cached,
            processors=self.args.processors,
        )

    def cut(self, number):
        """One boot: recovery, comparison, workload, cut. Returns a note."""
        cached = self.random.random() < 0.8
        self.copy_before()
        acknowledged = sum(store.acknowledged for store in self.stores)
        machine = self.boot(cached)
        cache = "cached" if cached else "written through"
        said, phase, broken = "", "boot", None
        try:
            boot_id = machine.hello()
            if boot_id in self.boot_ids:
                raise Broken(f"the boot id {boot_id} has been there before")
            self.boot_ids.add(boot_id)
            phase = "mount"
            for name in ("dirty_writeback_centisecs", "dirty_expire_centisecs"):
                machine.control.send(f"echo {self.random.choice(WRITEBACK)} >/proc/sys/vm/{name}")
            if number > 0 and not self.lies and self.random.random() < 0.25:
                self.disk.arm(self.random.randrange(1, RECOVERY_EFFECTS_MAX))
            code, _, err = machine.order("mount", "-t", self.filesystem, machine.device, MOUNTED)
            if code != 0:
                raise Broken(f"the file system does not mount: {err.strip()}")
            phase = "recovery"
            for store in self.stores:
                store.boots(machine)
            for store in self.stores:
                code, compared = store.recover()
                self.tally["compared"] += compared
                self.tally[f"fsck {code}"] += 1
                said += f"{', ' if said else ''}fsck {code}, {compared} compared"
            phase = "workload"
            self.workload(machine, number)
        except PowerCut:
            machine.drain(self.random.choice((0, 0.05, 0.3)))
            try:
                for store in self.stores:
                    if store.port is not None and store.machine is machine:
                        store.answers()
            except Broken as e:
                broken = e
        except (Broken, Hangs) as e:
            broken = self.with_evidence(e, machine)
        finally:
            counts = machine.end()
        for key, count in counts.items():
            self.tally[key] += count
        self.tally[f"cut in {phase}"] += 1
        acknowledged = sum(store.acknowledged for store in self.stores) - acknowledged
        self.tally["acknowledged"] += acknowledged
        self.write_orders(f"cut {number + 1}, {cache}, {phase}, {counts}")
        if broken:
            raise broken
        return (
            f"{cache}, {said or 'nothing compared'}; in {phase} after {counts['writes']} writes and "
            f"{counts['flushes']} flushes; {acknowledged} acknowledged; {counts['unflushed']} writes in the cache, "
            f"{counts['torn']} torn, {counts['dropped_sectors']} sectors dropped"
        )

    def arm(self):
        self.disk.arm(int(EFFECTS_MAX ** self.random.uniform(0.3, 1)), self.random.choice(CACHED_MIN))

    def workload(self, machine, number):
        """Ends by a cut."""
        if self.disk.left is None and number > 0:
            self.arm()
        for store in self.stores:
            if any(store.topics[name].state != "here" for name in TOPICS):
                store.between_runs()
        if self.disk.left is None:
            self.arm()
        depths = [self.random.choice((1, 4, IN_FLIGHT_MAX)) for _ in self.stores]
        deadline = time.monotonic() + WORKLOAD_SECONDS_MAX
        while True:
            for store, depth in zip(self.stores, depths):
                store.answers()
                while len(store.in_flight) < depth:
                    store.next_order()
                if store.random.random() < 0.004:
                    store.between_runs()
            machine.wait_for(*(store.port for store in self.stores))
            if time.monotonic() > deadline:
                self.disk.stop()

    def look_at_the_last(self):
        """One more boot without a cut: recovery, comparison, repair."""
        self.copy_before()
        machine = self.boot(True)
        compared = 0
        try:
            machine.hello()
            code, _, err = machine.order("mount", "-t", self.filesystem, machine.device, MOUNTED)
            if code != 0:
                raise Broken(f"the file system does not mount: {err.strip()}")
            for store in self.stores:
                store.boots(machine)
                compared += store.recover()[1]
                store.stop_writer("close")
                store.repair()
                for name in store.listed():
                    store.topics[name].compare(store.read(name), f"store{store.number}/{name}, after a repair")
            self.tally["compared"] += compared
            return f"{compared} compared, fsck 0 behind a repair"
        except (Broken, Hangs) as e:
            self.with_evidence(e, machine)
            raise
        finally:
            machine.end()
            self.write_orders(f"the last boot of {self.args.cuts}")

    def copy_before(self):
        """The disk as a boot finds it, for the case that it breaks."""
        before = self.home / "before"
        shutil.rmtree(before, ignore_errors=True)
        before.mkdir()
        tool("cp", "--sparse=always", self.home / "durable", before / "durable")
        (self.home / "evidence").unlink(missing_ok=True)

    def write_orders(self, title):
        with open(self.home / "orders", "a", encoding="utf-8") as out:
            out.write(f"--- {title}\n")
            for store in self.stores:
                out.writelines(store.orders)
                store.orders.clear()

    def with_evidence(self, error, machine):
        """What the machine itself sees of the file system, as long as it runs; and whether that reads all files."""
        if self.disk.stopped.is_set():
            return error
        try:
            listed = machine.order("ls", "-laR", MOUNTED)
            read = machine.order("find", MOUNTED, "-type", "f", "-exec", "md5sum", "{}", "+")
            dmesg = machine.order("dmesg")
        except (Hangs, PowerCut) as e:
            error.args = (f"{error}; and then: {e}",)
            return error
        (self.home / "evidence").write_text("\n".join("\n".join(map(str, part)) for part in (listed, read, dmesg)))
        unreadable = (listed[2] + read[2]).strip()
        if unreadable:
            error.args = (f"{error}; the file system itself: {unreadable}",)
        return error

    def keep(self, number):
        """Copies what shows why a cut broke."""
        kept = self.args.work / f"broken-{self.home.name}-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for name in ("durable", "current", "before/durable"):
            tool("cp", "--sparse=always", self.home / name, kept / name.replace("/", "-"))
        for name in ("orders", "evidence", "machine/console", "machine/qemu"):
            if (self.home / name).exists():
                shutil.copyfile(self.home / name, kept / pathlib.Path(name).name)
        return kept


def cuts(parts, name, args, checks):
    run = Run(parts, name, args)
    began = time.monotonic()
    for number in range(args.cuts + 1):
        began_cut = time.monotonic()
        last = number == args.cuts
        what = f"{name}, after the last cut" if last else f"{name}, cut {number + 1}"
        try:
            note = run.look_at_the_last() if last else run.cut(number)
            checks.say(True, what, f"{note}; {time.monotonic() - began_cut:.0f} s")
        except (Broken, Hangs) as e:
            run.tally["broken"] += 1
            run.tally["lost"] += e.records if isinstance(e, Lost) else 0
            kept = run.keep(number + 1)
            checks.say(False, what, f"{type(e).__name__}: {e}; kept in {kept.name}")
            run.new_disk()
    tally, indexes = run.tally, sum(store.stale_indexes for store in run.stores)
    seconds = (time.monotonic() - began) / args.cuts
    print(
        f"       {name}: {args.cuts} cuts ({tally['cut in recovery'] + tally['cut in mount']} in a recovery), "
        f"{tally['acknowledged']} records acknowledged as durable, {tally['lost']} of them lost, {tally['compared']} "
        f"records compared; {tally['writes']} writes, {tally['flushes']} flushes, {tally['fuas']} FUA; "
        f"{tally['unflushed']} writes in the cache at the cuts, {tally['torn']} torn, {tally['dropped_sectors']} "
        f"sectors dropped, {tally['kept_sectors']} kept; fsck before the open: {tally['fsck 0']} sound, "
        f"{tally['fsck 1']} heal themselves; behind it {indexes} stale indexes; {seconds:.0f} s a cut",
        flush=True,
    )


def canary(parts, name, args, checks):
    """A disk that answers flushes and keeps nothing: records that it has lost have to be found."""
    run = Run(parts, name, args, lies=True)
    found = 0
    for number in range(args.cuts):
        try:
            print(f"       {name}, a disk that lies, cut {number}: nothing found ({run.cut(number)})", flush=True)
        except (Broken, Hangs) as e:
            found += isinstance(e, Lost)
            print(f"       {name}, a disk that lies, cut {number}: {type(e).__name__}: {e}", flush=True)
            run.new_disk()
    checks.say(found > 0, f"{name}, a disk that lies", f"found lost records in {found} of {args.cuts} boots")


# --- refused file systems ---------------------------------------------------------------------------------------------


def refusal(parts, name, args):
    """No store begins there, the error names the file system, and nothing is left behind. An export may go there."""
    run = Run(parts, name, args)
    machine = Machine(parts, run.disk, run.filesystem, run.home / "machine")
    try:
        machine.hello()
        code, _, err = machine.order("mount", "-t", run.filesystem, machine.device, MOUNTED)
        if code != 0:
            raise Broken(f"the file system does not mount: {err}")
        said, wrong = [], []
        for words in (
            ("/edgelog/edgelog", "--dir", f"{MOUNTED}/store", "topics", "create", "t"),
            ("/edgelog/edgelog", "--dir", f"{MOUNTED}/store", "append", "t", "/init"),
            ("/edgelog/edgelog", "--dir", MOUNTED, "topics", "create", "t"),
            ("/edgelog/scripted_writer", f"{MOUNTED}/store"),
        ):
            machine.order("rm", "-rf", f"{MOUNTED}/store")
            code, out, err = machine.order(*words)
            said.append(err.strip())
            if code == 0 or name not in err.lower():
                wrong.append(f"{' '.join(words)} ended with {code}: {out}{err}")
            left = machine.order("find", MOUNTED, "-mindepth", "1")[1].split()
            if left:
                wrong.append(f"{' '.join(words)} left behind: {' '.join(left)}")
        elsewhere = ("/edgelog/edgelog", "--dir", "/tmp/store")
        for words in (
            (*elsewhere, "append", "t", "/init"),
            (*elsewhere, "export", "t", "--format", "json", "--to", f"{MOUNTED}/t.jsonl"),
            (*elsewhere, "export", "t", "--format", "kafka", "--to", f"{MOUNTED}/kafka"),
            ("test", "-s", f"{MOUNTED}/t.jsonl", "-a", "-s", f"{MOUNTED}/kafka/t-0/00000000000000000000.log"),
        ):
            code, out, err = machine.order(*words)
            if code != 0:
                wrong.append(f"{' '.join(words)} ended with {code}: {out}{err}")
        if wrong:
            raise Broken("; ".join([*wrong, f"it says: {said[0]}"]))
        return said[0]
    finally:
        machine.end()


# --- the command line -------------------------------------------------------------------------------------------------


def program(path):
    found = shutil.which(path)
    if not found:
        sys.exit(f"run.py: there is no {path}: set EDGELOG_BIN and EDGELOG_WRITER")
    return pathlib.Path(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, required=True, help="where disks, logs and the kernel are kept")
    parser.add_argument("--filesystem", choices=[*JOURNALED, "all"], default="all")
    parser.add_argument("--cuts", type=int, default=8, help="for each file system; one more boot looks at the last")
    parser.add_argument("--seed", type=int, help="of what is random; printed where it is not given")
    parser.add_argument("--only", default="cuts,refusal,canary", help="some of cuts, refusal, canary")
    parser.add_argument("--break-the-disk", action="store_true", help="the disk lies about flushes: to be found")
    parser.add_argument("--accelerator", choices=["auto", "kvm", "tcg"], default="auto")
    parser.add_argument("--processors", type=int, default=1, help="of the machine")
    parser.add_argument(
        "--sector-bytes", type=int, choices=[512, 4096], help="torn writes are torn there; default 512, f2fs 4096"
    )
    parser.add_argument("--install", action="store_true", help="install qemu and the mkfs tools by apt-get first")
    args = parser.parse_args()
    args.seed = args.seed if args.seed is not None else random.randrange(1 << 32)
    args.work = args.work.resolve()
    args.work.mkdir(parents=True, exist_ok=True)
    print(f"seed {args.seed}", flush=True)
    parts = Parts(args.work, program(EDGELOG), program(WRITER), args.install)
    probe = args.work / "probe"
    probe.mkdir(exist_ok=True)
    parts.accelerator = choose_accelerator(
        parts, args.accelerator, Disk(probe, DISK_BYTES, random.Random(0)), probe / "machine"
    )
    print(f"kernel {parts.version}, {parts.accelerator}", flush=True)
    checks = Checks()
    names = JOURNALED if args.filesystem == "all" else (args.filesystem,)
    wanted = ["canary"] if args.break_the_disk else args.only.split(",")
    if "cuts" in wanted:
        for name in names:
            cuts(parts, name, args, checks)
    if "refusal" in wanted:
        for name in ("vfat", "exfat"):
            try:
                checks.say(True, f"{name} is refused", refusal(parts, name, args))
            except (Broken, Hangs, OSError) as e:
                checks.say(False, f"{name} is refused", str(e))
    if "canary" in wanted:
        for name in names if args.break_the_disk else names[:1]:
            canary(parts, name, args, checks)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
