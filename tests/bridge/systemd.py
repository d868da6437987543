#!/usr/bin/env python3
"""The bridge as a service: examples/edgelog-bridge.service as it is, started, watched, stopped and started again by a
systemd that is the first process of a machine of its own (boot_systemd: namespaces, and an overlay of this system).

    systemd.py run STORE --expect FILE [--only NAME,...]
    systemd.py probe [CONTROLLER]     fails with the reason where there is no such machine, or no such cgroup controller

Needs root. $EDGELOG_WRITER is examples/scripted_writer, which writes the store next to the bridge. On a system
that has cgroups v1 next to v2, EDGELOG_TEST_CGROUPS=2 takes v2.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import harness
import proxy as px
from harness import EDGELOG, FENCED, SMALL, TALLY, Broken, Broker, Run, command, everything_once, kafka, values_of

HERE = pathlib.Path(__file__).resolve().parent
UNIT = HERE.parents[1] / "examples" / "edgelog-bridge.service"
SERVICE = UNIT.name
# Where the unit says that the store is, seen from the service.
SENSORS = pathlib.Path("/var/lib/sensors")
# The user `sensors`: a system's own, as `adduser --system` would choose.
UID = 970
BOOT_SECONDS_MAX = 60
# Nothing that is waited for takes longer, RestartSec of the unit included.
SECONDS_MAX = 90
CGROUPS = pathlib.Path("/sys/fs/cgroup")
# The hierarchies of cgroups v1 that are taken, where this system has them.
HIERARCHIES = ("name=systemd", "memory", "pids", "devices")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


# --- a machine --------------------------------------------------------------------------------------------------------


def own_hierarchies():
    """The cgroups that this system can hand on: [(the argument of boot_systemd, the directory of a group to be in)]."""
    mounts, own = {}, {}
    for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="ascii").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        _, _, _, top, at, *_ = before.split(" ")
        for name in options.split(",") if kind == "cgroup" else ["2"] if kind == "cgroup2" else []:
            mounts[name] = (top, pathlib.Path(at))
    for line in pathlib.Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        number, name, path = line.split(":", 2)
        own["2" if number == "0" else name] = path
    name = f"edgelog-systemd-{os.getpid()}"
    version_1 = [hierarchy for hierarchy in HIERARCHIES if hierarchy in own and hierarchy in mounts]
    if version_1 and os.environ.get("EDGELOG_TEST_CGROUPS") != "2":
        found = []
        for hierarchy in version_1:
            top, at = mounts[hierarchy]
            found.append((hierarchy, at / os.path.relpath(own[hierarchy], top) / name))
        return found
    if "2" not in mounts:
        raise Broken("no cgroups are mounted")
    # Below the uppermost one: a group that has processes of its own hands no controllers on.
    top = mounts["2"][1]
    for controller in ("memory", "pids"):
        with contextlib.suppress(OSError):
            (top / "cgroup.subtree_control").write_text(f"+{controller}")
    return [("2", top / name)]


class Machine:
    """A booted systemd with the unit, which is not started."""

    def __init__(self, scratch):
        self.home = pathlib.Path(tempfile.mkdtemp(dir=scratch))
        # /var/lib/sensors of the machine, and the store in it.
        self.sensors = self.home / "sensors"
        self.store = self.sensors / "log"
        self.sensors.mkdir()
        os.chown(self.sensors, UID, UID)
        self.hierarchies = own_hierarchies()
        self.init = None
        self.unshare = None
        try:
            self.boot()
        except BaseException:
            self.end()
            raise

    def boot(self):
        overlay = self.home / "overlay"
        overlay.mkdir()
        for _, group in self.hierarchies:
            group.mkdir()

        def enter():
            kafka.die_with_parent()
            for _, group in self.hierarchies:
                (group / "cgroup.procs").write_text("0")

        up = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # In the abstract name space, which belongs to the network: it is the machine's, too.
        name = f"edgelog-systemd-{os.getpid()}-{self.home.name}"
        up.bind("\0" + name)
        with up, open(self.home / "boot.log", "wb") as log:
            namespaces = ["--cgroup", "--pid", "--mount", "--uts", "--ipc"]
            boot = [HERE / "boot_systemd", overlay, EDGELOG, UNIT, self.sensors, str(UID)]
            self.unshare = subprocess.Popen(
                ["unshare", "--fork", "--kill-child", *namespaces, *boot, *(name for name, _ in self.hierarchies)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NOTIFY_SOCKET": "@" + name},
                preexec_fn=enter,
            )
            deadline = time.monotonic() + BOOT_SECONDS_MAX
            up.settimeout(0.2)
            while True:
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in up.recv(4096):
                        break
                if self.unshare.poll() is not None or time.monotonic() > deadline:
                    raise Broken(f"systemd did not come up: {self.said()}")
        children = pathlib.Path(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children")
        self.init = int(children.read_text(encoding="ascii").split()[0])

    def said(self):
        return (self.home / "boot.log").read_text(errors="replace").strip() or "nothing was said"

    def end(self):
        """Ends all its processes, and removes its cgroups."""
        if self.init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
        elif self.unshare is not None:
            self.unshare.kill()
        if self.unshare is not None:
            self.unshare.wait()
        deadline = time.monotonic() + SECONDS_MAX
        for _, group in self.hierarchies:
            below = [path for path, _, _ in os.walk(group, topdown=False)]
            for path in below:
                # The kernel takes a moment to take leave of the last process.
                while time.monotonic() < deadline:
                    try:
                        os.rmdir(path)
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    # --- in it ---

    def root(self, path):
        """A path of the machine, from outside."""
        return pathlib.Path(f"/proc/{self.init}/root") / str(path).lstrip("/")

    def inside(self, *words):
        namespaces = ["--cgroup", "--pid", "--mount", "--uts", "--ipc"]
        return ["nsenter", "--target", str(self.init), *namespaces, "--", *map(str, words)]

    def run(self, *words, check=True):
        done = subprocess.run(self.inside(*words), env=ENVIRONMENT, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise Broken(f"{' '.join(map(str, words))} ended with {done.returncode}: {done.stderr}\n{self.journal()}")
        return done.stdout

    def start(self):
        """Returns when the service has said READY=1."""
        self.run("systemctl", "start", SERVICE)
        state = self.show("ActiveState", "SubState", "Type")
        if state != {"ActiveState": "active", "SubState": "running", "Type": "notify"}:
            raise Broken(f"it was started and is {state}\n{self.journal()}")

    def stop(self):
        """What became of it: `success` is no SIGKILL after TimeoutStopSec and no exit code but 0."""
        self.run("systemctl", "stop", SERVICE)
        state = self.show("ActiveState", "Result", "ExecMainCode", "ExecMainStatus")
        exited = str(os.CLD_EXITED)
        want = {"ActiveState": "inactive", "Result": "success", "ExecMainCode": exited, "ExecMainStatus": "0"}
        if state != want:
            raise Broken(f"it was stopped and is {state}\n{self.journal()}")

    def show(self, *names):
        found = self.run("systemctl", "show", SERVICE, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in found.splitlines())

    def status(self):
        return self.show("StatusText")["StatusText"]

    def restarts(self):
        return int(self.show("NRestarts")["NRestarts"])

    def main_pid(self):
        """Of the service, as the machine counts."""
        return int(self.show("MainPID")["MainPID"])

    def kill(self, name):
        TALLY["faults"] += 1
        self.run("systemctl", "kill", f"--signal={name}", "--kill-whom=main", SERVICE)

    def proc(self, file):
        return self.root(f"/proc/{self.main_pid()}/{file}")

    def journal(self, *more):
        """What systemd and the service said of the service."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={SERVICE}", *more, check=False)

    def lines(self):
        """What the program itself said: not what systemd says in its place before it is started."""
        of_it = (f"_SYSTEMD_UNIT={SERVICE}", "SYSLOG_IDENTIFIER=edgelog")
        return self.run("journalctl", "--no-pager", "--output=cat", *of_it).splitlines()

    def until(self, what, look):
        deadline = time.monotonic() + SECONDS_MAX
        while not (found := look()):
            if time.monotonic() > deadline:
                raise Broken(f"not within {SECONDS_MAX} s: {what}; {self.status()!r}\n{self.journal()}")
            time.sleep(0.05)
        return found

    def until_all_is_sent(self):
        self.until("all is sent", lambda: self.status() == "all is sent")

    def until_restarted(self, times):
        running = {"ActiveState": "active", "NRestarts": str(times)}
        self.until(f"started again {times} times", lambda: self.show(*running) == running)

    # --- what is in it ---

    def configure(self, device, bootstrap, to, **sets):
        settings = {
            "bootstrap.servers": bootstrap,
            "edgelog.device.id": device,
            "edgelog.bridge.topics": "*",
            "edgelog.bridge.to": to,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 500,
            **sets,
        }
        text = "".join(f"{key}={value}\n" for key, value in settings.items())
        self.root("/etc/edgelog/bridge.properties").write_text(text, encoding="utf-8")

    def drop_in(self, *lines):
        """Lines of [Service] on top of the unit's."""
        folder = self.root(f"/run/systemd/system/{SERVICE}.d")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text("\n".join(["[Service]", *lines, ""]), encoding="utf-8")
        self.run("systemctl", "daemon-reload")

    def copy_store(self, world):
        shutil.copytree(world.store, self.store)
        self.own()

    def own(self):
        """All of the store is the user's."""
        for path in [self.store, *self.store.rglob("*")]:
            os.chown(path, UID, UID)

    def as_sensors(self, *words):
        return self.inside("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *words)


class Writer:
    """The program that writes the store, as the user that the unit names."""

    def __init__(self, machine):
        shutil.copy(os.environ["EDGELOG_WRITER"], machine.root("/usr/bin/scripted_writer"))
        self.process = subprocess.Popen(
            machine.as_sensors("scripted_writer", SENSORS / "log"),
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def must(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        if not (said := self.process.stdout.readline()).startswith("ok"):
            raise Broken(f"the writer was sent {words} and says: {said!r}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


# --- the tests --------------------------------------------------------------------------------------------------------


def ends_of_transactions(broker, world, prefix):
    """How many markers lie in the targets, which consumers do not see: one for each partition of a transaction."""
    topics = sorted({topic for topic, _ in world.expected})
    ends = sum(sum(broker.offsets(prefix + topic, -1).values()) for topic in topics)
    return ends - world.total


def as_it_is(world):
    """The unit as it is: it is ready, confined, sends the backlog and what a program appends meanwhile, says how it
    stands, has no line for a transaction, and stops."""
    world.create_targets("u.")
    world.broker.create_topic("u.next", 1, retention_ms=-1)
    # Each transaction is followed by the next without waiting.
    sets = {**SMALL, "edgelog.bridge.interval.ms": 0}
    with Machine(world.scratch) as machine:
        machine.copy_store(world)
        machine.configure("unit", world.broker.address, "u.{topic}", **sets)
        machine.start()
        confined = dict(
            line.split(":\t", 1) for line in machine.proc("status").read_text(encoding="ascii").splitlines()
        )
        want = {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0" * 16, "CapEff": "0" * 16}
        if (found := {name: confined[name] for name in want}) != want:
            raise Broken(f"the process of the service has {found}, expected {want}")
        machine.until_all_is_sent()
        compared = everything_once(world.broker, world.expected, "u.")
        with Writer(machine) as writer:
            writer.must("create", "next")
            for n in range(100):
                writer.must("os", "next", f"next {n}")
            machine.until("the program's records", lambda: world.broker.offsets("u.next", -1)[0] > 100)
            machine.until_all_is_sent()
            # Stopped while that program runs on.
            machine.stop()
        found = values_of(world.broker.consume_all("u.next"))
        if found != [f"next {n}" for n in range(100)]:
            raise Broken(f"of 100 records that were appended meanwhile {len(found)} arrived: {kafka.shorten(found)}")
        lines = machine.lines()
        transactions = ends_of_transactions(world.broker, world, "u.")
        if transactions < 200:
            raise Broken(f"{transactions} transactions only: it shows nothing of the journal")
        if len(lines) > 5:
            raise Broken(f"{len(lines)} lines in the journal of {transactions} transactions:\n" + "\n".join(lines))
        # Where it is asked to, it has them: the journal is looked at rightly.
        machine.drop_in("ExecStart=", f"ExecStart={exec_start()} --verbose")
        machine.start()
        with Writer(machine) as writer:
            writer.must("os", "next", "one more")
            machine.until("a line for a transaction", lambda: "sent 1 record, " in "\n".join(machine.lines()))
        machine.stop()
        return f"{compared}, {transactions} ends of transactions, {len(lines)} lines in the journal: {lines}"


def exec_start():
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    return next(line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))


def killed(world):
    """SIGKILL amid a transfer, before and behind a commit: systemd starts it again, it goes on, and every record is
    there once."""
    world.create_targets("uk.")
    sets = {**SMALL, "edgelog.bridge.interval.ms": 0}
    faults = [(px.END_TXN, px.SWALLOW_REQUEST), (px.END_TXN, px.SWALLOW_ANSWER), (px.PRODUCE, px.SWALLOW_REQUEST)]
    with Machine(world.scratch) as machine:
        machine.copy_store(world)
        machine.configure("unit-killed", world.broker.address, "uk.{topic}", **sets)
        for n, (api, phase) in enumerate(faults):
            injected = sum(world.broker.proxy.injected.values())
            arm = [(api, px.LET_THROUGH)] * world.random.randrange(1, 20) + [(api, phase)]
            world.broker.proxy.arm(arm)
            if n == 0:
                machine.start()
            else:
                # Armed while the one before still waits for its answer: the next one cannot be through before that.
                machine.kill("SIGKILL")
                machine.until_restarted(n)
            if not world.broker.proxy.wait_injected(injected + len(arm), SECONDS_MAX):
                raise Broken(f"{px.NAMES[api]}: {phase}: never happened\n{machine.journal()}")
        machine.kill("SIGKILL")
        machine.until_restarted(len(faults))
        machine.until_all_is_sent()
        machine.stop()
        return f"{everything_once(world.broker, world.expected, 'uk.')}, {len(faults)} kills"


def without_a_cluster(world):
    """Before there is a cluster the service is up, says what is wrong, stops, and starts; one that comes is used. A
    cluster that is silent amid a commit keeps it no longer than its time to stop."""
    world.broker.create_topic("late", 1, retention_ms=-1)
    nothing = socket.socket()
    nothing.bind(("127.0.0.1", 0))
    port = nothing.getsockname()[1]
    with Machine(world.scratch) as machine:
        with Writer(machine) as writer:
            writer.must("create", "t")
            writer.must("sync", "t", "before the cluster")
            # A name: resolving it is part of what a service may do.
            machine.configure("unit-late", f"localhost:{port}", "late", **{"edgelog.bridge.interval.ms": 0})
            for _ in range(2):
                machine.start()
                machine.until("the cluster does not answer", lambda: "does not answer" in machine.status())
                machine.stop()
            machine.start()
            machine.until("the cluster does not answer", lambda: "does not answer" in machine.status())
            nothing.close()
            front = px.Proxy(("127.0.0.1", port))
            front.forward_to(int(world.broker.bootstrap.rpartition(":")[2]))
            machine.until_all_is_sent()
            injected = sum(world.broker.proxy.injected.values())
            world.broker.proxy.arm([(px.END_TXN, px.SWALLOW_REQUEST)] * 20)
            writer.must("sync", "t", "amid a commit")
            if not world.broker.proxy.wait_injected(injected + 1, SECONDS_MAX):
                raise Broken("no commit was asked for")
            machine.stop()
            world.broker.proxy.arm([])
            machine.start()
            machine.until_all_is_sent()
            machine.stop()
        front.close()
        found = values_of(world.broker.consume_all("late"))
        if found != ["before the cluster", "amid a commit"]:
            raise Broken(f"the cluster has {found}")
        lines = machine.lines()
        # One when it begins, one when it is over, for each outage; an outage lasts for no minute here.
        if len(lines) > 12:
            raise Broken(f"{len(lines)} lines in the journal of four outages:\n" + "\n".join(lines))
        return f"3 outages and a silent commit, {len(lines)} lines in the journal"


def watchdog(world):
    """A process that lives is let live; one that does not move is killed for it and started again."""
    world.broker.create_topic("watched", 1, retention_ms=-1)
    with Machine(world.scratch) as machine, Writer(machine) as writer:
        writer.must("create", "t")
        machine.configure("unit-watched", world.broker.address, "watched", **{"edgelog.bridge.interval.ms": 0})
        # Its own time is shown of a service that runs.
        machine.start()
        if (found := machine.show("WatchdogUSec")) != {"WatchdogUSec": "5min"}:
            raise Broken(f"the unit has another watchdog: {found}")
        machine.stop()
        machine.drop_in("WatchdogSec=10s")
        machine.start()
        heard = set()

        def fed():
            heard.add(machine.show("WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"])
            return len(heard) >= 4

        machine.until("it says that it lives, again and again", fed)
        if machine.restarts() != 0:
            raise Broken(f"it was killed while it lived:\n{machine.journal()}")
        machine.kill("SIGSTOP")
        writer.must("sync", "t", "while it does not move")
        machine.until_restarted(1)
        if "Failed with result 'watchdog'" not in (said := machine.journal()):
            raise Broken(f"it was started again, but not by the watchdog:\n{said}")
        machine.until_all_is_sent()
        machine.stop()
        found = values_of(world.broker.consume_all("watched"))
        if found != ["while it does not move"]:
            raise Broken(f"the cluster has {found}")
        return f"heard {len(heard)} times, then killed once"


def memory(world):
    """A backlog larger than the unit's memory goes through within it."""
    megabytes, limit = 256, 128 << 20
    with Machine(world.scratch) as machine:
        append = subprocess.Popen(
            [EDGELOG, "--dir", machine.store, "append", "t", "--acks", "1", "--quiet", "--batch", "1000"],
            stdin=subprocess.PIPE,
            preexec_fn=kafka.die_with_parent,
        )
        filler = os.urandom(1000).hex()[:989]
        for thousand in range(megabytes):
            append.stdin.write("".join(f"{thousand:07}{n:03}{filler}\n" for n in range(1000)).encode())
        append.stdin.close()
        if append.wait() != 0:
            raise Broken(f"`edgelog append` ended with {append.returncode}")
        machine.own()
        # Who reads a page from the disk has to answer for it.
        os.sync()
        for path in machine.store.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        configs = {"retention_bytes": 50_000_000, "segment_bytes": 20_000_000, "file_delete_delay_ms": 0}
        world.broker.create_topic("heavy", 1, **configs)
        machine.configure("unit-heavy", world.broker.address, "heavy")
        machine.start()
        group = machine.show("ControlGroup")["ControlGroup"].lstrip("/")
        if machine.hierarchies[0][0] == "2":
            at, files = CGROUPS / group, ("memory.max", "memory.peak")
        else:
            at, files = CGROUPS / "memory" / group, ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
        allowed = int(machine.root(at / files[0]).read_text(encoding="ascii"))
        if allowed != limit:
            raise Broken(f"the service may have {allowed} bytes, expected {limit}")
        machine.until_all_is_sent()
        most = int(machine.root(at / files[1]).read_text(encoding="ascii"))
        if machine.restarts() != 0 or most > limit:
            raise Broken(f"it had {most} bytes and was started again {machine.restarts()} times:\n{machine.journal()}")
        machine.stop()
        end = world.broker.offsets("heavy", -1)[0]
        if end < megabytes * 1000:
            raise Broken(f"{end} offsets in the cluster, {megabytes * 1000} records appended")
        # The limit is one: with less than it needs for itself it is killed.
        machine.drop_in("MemoryHigh=infinity", "MemoryMax=1M")
        machine.run("systemctl", "start", SERVICE, check=False)
        machine.until("it is killed for lack of memory", lambda: machine.restarts() > 0)
        return f"{megabytes} MB with {most >> 20} MiB of {limit >> 20}, pages of files included"


def decided(world):
    """Another copy of the device fences it: it waits for a person, and stays up; with on.fenced=exit it ends with 3,
    and is not started again."""
    world.broker.create_topic("copies", 1, retention_ms=-1)
    sets = {"edgelog.bridge.interval.ms": 0}
    with Machine(world.scratch) as machine, Writer(machine) as writer:
        writer.must("create", "t")
        writer.must("sync", "t", "one")
        machine.configure("unit-copies", world.broker.address, "copies", **sets)
        machine.start()
        machine.until_all_is_sent()
        copy = shutil.copytree(machine.store, machine.home / "copy")
        Run(command(copy, world.broker, "unit-copies", "copies")).expect(0)
        # That one had nothing to send, and claimed the id.
        writer.must("sync", "t", "two")
        machine.until("it waits", lambda: "1 log waits" in machine.status())
        if machine.show("ActiveState")["ActiveState"] != "active" or machine.restarts() != 0:
            raise Broken(f"it does not wait:\n{machine.journal()}")
        machine.stop()
        machine.configure("unit-copies", world.broker.address, "copies", **sets, **{"edgelog.bridge.on.fenced": "exit"})
        machine.start()
        machine.until_all_is_sent()
        copy = shutil.copytree(machine.store, machine.home / "another-copy")
        Run(command(copy, world.broker, "unit-copies", "copies")).expect(0)
        writer.must("sync", "t", "three")
        machine.until("it has ended", lambda: machine.show("ActiveState")["ActiveState"] != "active")
        want = {"ActiveState": "failed", "ExecMainStatus": str(FENCED), "NRestarts": "0"}
        if (state := machine.show(*want)) != want:
            raise Broken(f"expected {want}, it is {state}\n{machine.journal()}")
        return "waited, and ended with 3"


def made_again(world):
    """Before there is a store the service is started again until there is one. The store is removed and made again
    while it runs, and its sandbox lets it write in the new one."""
    world.broker.create_topic("again", 1, retention_ms=-1)
    sets = {"edgelog.bridge.interval.ms": 0, "edgelog.bridge.on.new.log": "restart"}
    with Machine(world.scratch) as machine:
        machine.configure("unit-again", world.broker.address, "again", **sets)
        machine.run("systemctl", "start", SERVICE, check=False)
        with Writer(machine) as writer:
            writer.must("create", "t")
            writer.must("sync", "t", "in the first")
            machine.until_restarted(1)
            machine.until_all_is_sent()
        shutil.rmtree(machine.store)
        with Writer(machine) as writer:
            writer.must("create", "t")
            writer.must("sync", "t", "in the second")
            said = "t-0 was deleted and created again here"
            machine.until("it is noticed", lambda: said in "\n".join(machine.lines()))
            machine.until("sent", lambda: values_of(world.broker.consume_all("again"))[-1] == "in the second")
            machine.until_all_is_sent()
            machine.stop()
        found = values_of(world.broker.consume_all("again"))
        if found != ["in the first", "in the second"] or machine.restarts() != 1:
            raise Broken(f"the cluster has {found}; {machine.restarts()} restarts\n{machine.journal()}")
        # The sandbox is there: without its door nothing can be written.
        machine.drop_in("ReadWritePaths=")
        machine.run("systemctl", "start", SERVICE, check=False)
        machine.until("it cannot write", lambda: "Read-only file system" in "\n".join(machine.lines()))
        return "2 records, and none where the store may not be written"


TESTS = {
    "as_it_is": as_it_is,
    "killed": killed,
    "without_a_cluster": without_a_cluster,
    "watchdog": watchdog,
    "decided": decided,
    "made_again": made_again,
    "memory": memory,
}


def probe(controllers):
    """Exits with 1 and the reason where such a machine cannot be had."""
    try:
        with tempfile.TemporaryDirectory(prefix="edgelog-systemd-") as scratch, Machine(scratch) as machine:
            at = "/sys/fs/cgroup"
            has = set(machine.run("ls", at).split())
            if "cgroup.controllers" in has:
                has = set(machine.run("cat", f"{at}/cgroup.controllers").split())
            if missing := set(controllers) - has:
                raise Broken(f"cgroups have no {', '.join(missing)} here")
    except (Broken, OSError) as why:
        sys.exit(str(why))


if __name__ == "__main__":
    if sys.argv[1:2] == ["probe"]:
        probe(sys.argv[2:])
    else:
        sys.exit(harness.main(__doc__, TESTS, Broker))
