#!/usr/bin/env python3
"""examples/sinks, killed again and again: telemetry into SQLite and PostgreSQL, with the positions in the consumer's
group and with the positions in the sink. Producer and consumer run at one time, each is killed (SIGKILL) at random
moments and started again; in the end both run to their end, and what is in the database and in the dead letters is held
against what was acknowledged.

    sinks.py DATABASE... [--kills N] [--seed SEED]

DATABASE is sqlite or postgresql. Needs EDGELOG_SINKS (the program), EDGELOG_BIN (the command line), and for PostgreSQL
the server of Debian's package: it gets a cluster of its own in a temporary directory, with a Unix socket there and no
port. As root, it runs as the user postgres.
"""

import argparse
import collections
import copy
import glob
import json
import os
import pathlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "kafka"))

from check import Broken, Checks, die_with_parent, tail  # noqa: E402

SINKS = os.environ.get("EDGELOG_SINKS", "edgelog-sinks")
EDGELOG = os.environ.get("EDGELOG_BIN", "edgelog")
KILLS_DEFAULT = 40
# A process lives so long before it is killed, in seconds, and where the machine is busy, at most some times as long as
# one takes to start: some die while they start, others with much behind them.
LIFE_SECONDS, LIFE_SECONDS_MAX, STARTS = (0.005, 0.15), 1, 3
# No run to the end takes longer, but one that hangs.
RUN_SECONDS_MAX = 60
# Records that the last producer appends to each partition, behind those that the killed ones got acknowledged.
LAST_RECORDS = 300
PER_SECOND = 1000

# What examples/sinks/src/telemetry.rs appends.
PARTITIONS = 2
DEVICES = ("boiler", "flow", "return", "outside")
TIME_BEGIN = 1_700_000_000_000
MALFORMED_EVERY, MALFORMED = 50, 25
GROUP = "database"


# --- what has to be there ---------------------------------------------------------------------------------------------


# readings: (device, seq) -> (at, temperature). counts: device -> readings. dead: (partition, offset) -> how often.
Content = collections.namedtuple("Content", "readings counts dead positions")


def expected(records):
    """What `records` of each partition come to, each counted once."""
    content = Content({}, collections.Counter(), collections.Counter(), {})
    for partition in range(PARTITIONS):
        content.positions[partition] = records
        for number in range(records):
            if number % MALFORMED_EVERY == MALFORMED:
                content.dead[partition, number] += 1
                continue
            device, tenths = f"{DEVICES[number % len(DEVICES)]}-{partition}", number % 100
            reading = (TIME_BEGIN + number * 1000, float(f"{20 + tenths // 10}.{tenths % 10}"))
            content.readings[device, number] = reading
            content.counts[device] += 1
    return content


def some(items):
    items = sorted(items)
    return f"{len(items)}: {', '.join(map(str, items[:5]))}{' ...' if len(items) > 5 else ''}"


def compare(want, found, positions):
    if missing := want.readings.keys() - found.readings.keys():
        raise Broken(f"readings were acknowledged and have no row, {some(missing)}")
    if more := found.readings.keys() - want.readings.keys():
        raise Broken(f"rows are of no reading, {some(more)}")
    if other := [key for key, reading in want.readings.items() if found.readings[key] != reading]:
        raise Broken(f"rows say something else than their readings, {some(other)}")
    # Whole records are numbered, so that they are once in the dead letters in both ways: also where they come again.
    if found.dead != want.dead:
        less, more = want.dead - found.dead, found.dead - want.dead
        raise Broken(f"malformed records without a dead letter, {some(less)}\ndead letters too many, {some(more)}")
    if positions == "sink":
        if found.counts != want.counts:
            raise Broken(f"each record has to count once\nexpected {want.counts}\nfound    {found.counts}")
        if found.positions != want.positions:
            raise Broken(f"the sink's positions are {found.positions}, expected {want.positions}")
    else:
        # At least once: what came again has counted again, which is what the other way is for.
        if less := {device for device, count in want.counts.items() if found.counts[device] < count}:
            raise Broken(f"devices with too few readings, {some(less)}")
        if found.positions:
            raise Broken(f"the sink has positions: {found.positions}")


def canary(want, found, positions):
    """Each of these has to be seen."""

    def without_a_row(content):
        del content.readings[max(content.readings)]

    def another_temperature(content):
        key = min(content.readings)
        content.readings[key] = (content.readings[key][0], 0.0)

    def counted_twice(content):
        content.counts["boiler-0"] += 1

    def counted_never(content):
        content.counts["boiler-0"] = 1

    def without_a_dead_letter(content):
        content.dead.subtract([max(content.dead)])

    def two_dead_letters(content):
        content.dead.update([min(content.dead)])

    changes = [without_a_row, another_temperature, counted_never, without_a_dead_letter, two_dead_letters]
    for change in changes + ([counted_twice] if positions == "sink" else []):
        changed = copy.deepcopy(found)
        change(changed)
        try:
            compare(want, changed, positions)
        except Broken:
            continue
        raise Broken(f"the comparison does not see {change.__name__}")


# --- databases --------------------------------------------------------------------------------------------------------


class Sqlite:
    def __init__(self, scratch):
        self.scratch = scratch
        self.made = 0

    def new(self):
        """The arguments of a new database."""
        self.made += 1
        return str(self.scratch / f"readings-{self.made}.db")

    def rows(self, database, sql):
        connection = sqlite3.connect(database)
        try:
            if connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                raise Broken(f"{database} is damaged")
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def stop(self):
        pass


class Postgresql:
    """A cluster of its own, as durable as one is by default."""

    def __init__(self, scratch):
        initdb = glob.glob("/usr/lib/postgresql/*/bin/initdb")
        if not initdb:
            raise Broken("there is no /usr/lib/postgresql/*/bin/initdb: install Debian's package postgresql")
        self.bin = pathlib.Path(max(initdb, key=lambda path: int(path.split("/")[4]))).parent
        # A socket's path has at most 107 bytes.
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="edgelog-postgresql-"))
        self.server, self.made = None, 0
        self.run_as = []
        if os.geteuid() == 0:
            shutil.chown(self.home, "postgres", "postgres")
            # PostgreSQL does not run as root. The signal is set behind the change of the user, which clears it.
            user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"]
            self.run_as = ["setpriv", *user, "--pdeathsig=QUIT", "--"]
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self):
        data = self.home / "data"
        auth = ["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"]
        self.call("initdb", "-D", str(data), *auth)
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.home), "fsync": "on"}
        log = (self.home / "log").open("wb")
        self.server = subprocess.Popen(
            [*self.run_as, str(self.bin / "postgres"), "-D", str(data)]
            + [word for key, value in settings.items() for word in ("-c", f"{key}={value}")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.home,
            preexec_fn=die_with_parent,
        )
        deadline = time.monotonic() + RUN_SECONDS_MAX
        while subprocess.run([self.bin / "pg_isready", "-q", "-h", self.home], check=False).returncode != 0:
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"PostgreSQL does not start\n{tail((self.home / 'log').read_bytes())}")
            time.sleep(0.05)

    def call(self, program, *arguments):
        command = [*self.run_as, str(self.bin / program), *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=RUN_SECONDS_MAX, cwd=self.home, check=False
        )
        if done.returncode != 0:
            raise Broken(f"{program} ended with {done.returncode}\n{tail(done.stdout)}\n{tail(done.stderr)}")
        return done.stdout.decode()

    def sql(self, database, sql):
        options = ["--no-psqlrc", "--tuples-only", "--no-align", "--field-separator=\t", "--set=ON_ERROR_STOP=1"]
        return self.call("psql", "-h", str(self.home), "-U", "postgres", "-d", database, *options, "-c", sql)

    def new(self):
        self.made += 1
        self.sql("postgres", f"CREATE DATABASE sink{self.made}")
        return f"host={self.home} user=postgres dbname=sink{self.made}"

    def rows(self, database, sql):
        lines = self.sql(database.rpartition("=")[2], sql).splitlines()
        # A device is text, all others are numbers.
        return [tuple(json.loads(f) if re.match(r"-?\d", f) else f for f in line.split("\t")) for line in lines]

    def session(self, database):
        """A client that takes statements at its standard input."""
        options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
        command = [str(self.bin / "psql"), "-h", str(self.home), "-U", "postgres", "-d", database.rpartition("=")[2]]
        return subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.home,
            preexec_fn=die_with_parent,
        )

    def stop(self):
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGINT)
            try:
                self.server.wait(RUN_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.server.kill()
        shutil.rmtree(self.home, ignore_errors=True)


DATABASES = {"sqlite": Sqlite, "postgresql": Postgresql}


# --- the two processes ------------------------------------------------------------------------------------------------


class Child:
    """A process whose lines are read as it prints them."""

    running = []

    def __init__(self, *arguments):
        self.arguments = arguments
        self.process = subprocess.Popen(
            [SINKS, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent,
        )
        self.lines, self.errors = [], bytearray()
        self.has_begun = threading.Event()
        self.readers = [threading.Thread(target=read, daemon=True) for read in (self.read_lines, self.read_errors)]
        for reader in self.readers:
            reader.start()
        Child.running.append(self)

    def read_lines(self):
        for line in self.process.stdout:
            # The last one of a process that was killed may be cut off.
            if line.endswith(b"\n"):
                self.lines.append(line.decode().split())
                self.has_begun.set()
        self.has_begun.set()

    def read_errors(self):
        for line in self.process.stderr:
            self.errors += line

    def end(self):
        code = self.process.wait(RUN_SECONDS_MAX)
        for reader in self.readers:
            reader.join()
        if self in Child.running:
            Child.running.remove(self)
        return code

    def expect(self, code):
        try:
            found = self.end()
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken(f"{self.arguments[0]} did not end within {RUN_SECONDS_MAX} s\n{tail(self.errors)}") from None
        if found != code:
            raise Broken(f"{self.arguments[0]} ended with {found}, expected {code}\n{tail(self.errors)}")

    def kill(self):
        """What it ended with: -SIGKILL, but where it had ended by itself."""
        self.process.kill()
        return self.end()


class Acknowledged:
    """How far each partition is, by what the producers say."""

    def __init__(self):
        self.last = dict.fromkeys((f"telemetry-{partition}" for partition in range(PARTITIONS)), -1)

    def note(self, producer):
        for words in producer.lines:
            name, number = words[0], int(words[-1])
            if words[1] == "goes" and number <= self.last[name]:
                raise Broken(f"{name} goes on at {number}, and {self.last[name]} is acknowledged: records are lost")
            if words[1] == "acknowledged":
                self.last[name] = max(self.last[name], number)


def kill_both(producer, consumer, kills, rng):
    """Runs both, kills each `kills` times at random moments, and says what is acknowledged."""
    acknowledged = Acknowledged()
    # A store that is not there cannot be attached to.
    began, first = time.monotonic(), Child(*producer)
    first.has_begun.wait(RUN_SECONDS_MAX)
    longest = min(LIFE_SECONDS[1] + STARTS * (time.monotonic() - began), LIFE_SECONDS_MAX)
    running = [[first, producer, 0], [Child(*consumer), consumer, 0]]
    due = [time.monotonic() + rng.uniform(LIFE_SECONDS[0], longest) for _ in running]
    while min(count for _, _, count in running) < kills:
        victim = due.index(min(due))
        time.sleep(max(0, due[victim] - time.monotonic()))
        child, arguments, count = running[victim]
        if (code := child.kill()) != -signal.SIGKILL:
            raise Broken(f"{arguments[0]} ended with {code} before it was killed\n{tail(child.errors)}")
        if victim == 0:
            acknowledged.note(child)
        running[victim] = [Child(*arguments), arguments, count + 1]
        due[victim] = time.monotonic() + rng.uniform(LIFE_SECONDS[0], longest)
    for child, arguments, _ in running:
        if (code := child.kill()) != -signal.SIGKILL:
            raise Broken(f"{arguments[0]} ended with {code} before it was killed\n{tail(child.errors)}")
    acknowledged.note(running[0][0])
    return acknowledged, sum(count + 1 for _, _, count in running)


def dead_letters(store):
    command = [EDGELOG, "--dir", store, "dlq", "show", "dlq.telemetry", "--group", GROUP, "--json"]
    done = subprocess.run(command, capture_output=True, timeout=RUN_SECONDS_MAX, check=False)
    if done.returncode != 0:
        raise Broken(f"edgelog dlq show ended with {done.returncode}\n{tail(done.stderr)}")
    found = map(json.loads, done.stdout.splitlines())
    return collections.Counter((dead_letter["source_partition"], dead_letter["source_offset"]) for dead_letter in found)


def content(database, to, store):
    readings = database.rows(to, "SELECT device, seq, at, temperature FROM readings")
    found = Content(
        {(device, seq): (at, temperature) for device, seq, at, temperature in readings},
        collections.Counter(dict(database.rows(to, "SELECT device, readings FROM devices"))),
        dead_letters(store),
        dict(database.rows(to, "SELECT partition, next_offset FROM positions")),
    )
    if len(readings) != len(found.readings):
        raise Broken(f"{len(readings) - len(found.readings)} rows are doubled")
    return found


def one_way(name, database, positions, store, to, kills, seed):
    rng = random.Random(f"{seed} {name} {positions}")
    producer = ["telemetry", store, "--records", 1_000_000_000, "--per-second", PER_SECOND]
    consumer = [name, store, to, "--positions", positions]
    acknowledged, killed = kill_both(producer, consumer, kills, rng)
    records = max(acknowledged.last.values()) + LAST_RECORDS
    asked = Child(*consumer)
    last = Child("telemetry", store, "--records", records, "--per-second", PER_SECOND)
    last.expect(0)
    acknowledged.note(last)
    if set(acknowledged.last.values()) != {records - 1}:
        raise Broken(f"the last producer has ended, and only this is acknowledged: {acknowledged.last}")
    # Asked to end, it ends; amid its work, or while it waits.
    asked.process.terminate()
    asked.expect(0)
    Child(*consumer, "--until-caught-up").expect(0)
    want, found = expected(records), content(database, to, store)
    compare(want, found, positions)
    canary(want, found, positions)
    again = sum(found.counts.values()) - len(found.readings)
    dead = sum(found.dead.values())
    return f"{killed} kills, {len(found.readings)} rows, {again} records counted again, {dead} dead letters"


def consume_behind(database, to, store, statements):
    """Runs the consumer to its end while another client has carried out the statements and not committed them: it
    commits once the consumer waits for it."""
    psql = database.session(to)
    try:
        psql.stdin.write(f"BEGIN; {statements}\n")
        carried_out(psql)
        consumer = Child("postgresql", store, to, "--positions", "sink", "--until-caught-up")
        commit_once_awaited(psql, database, to, consumer)
    finally:
        psql.kill()
        psql.wait()
    consumer.expect(0)


def carried_out(psql):
    """Waits until the server has carried out what was written to it."""
    psql.stdin.write("\\echo it holds\n")
    psql.stdin.flush()
    while (line := psql.stdout.readline()) != "it holds\n":
        if not line:
            raise Broken(f"psql ended with {psql.wait()}")


def commit_once_awaited(psql, database, to, consumer):
    """Commits the transaction of `psql` once the consumer waits for it."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    deadline = time.monotonic() + RUN_SECONDS_MAX
    while database.rows(to, waiting) != [(1,)]:
        if consumer.process.poll() is not None or time.monotonic() > deadline:
            consumer.kill()
            raise Broken(f"it does not wait for the transaction before\n{tail(consumer.errors)}")
        time.sleep(0.02)
    psql.stdin.write("COMMIT;\n")
    psql.stdin.close()
    if psql.wait(RUN_SECONDS_MAX) != 0:
        raise Broken(f"psql ended with {psql.returncode}")


def tables_are_being_made(database, store):
    """A process that was killed was making the tables, and its transaction goes on in the server."""
    source = (HERE.parent.parent / "examples/sinks/src/postgresql.rs").read_text()
    statements = re.findall(r"CREATE TABLE [^;]*;", source)
    for count in range(1, len(statements) + 1):
        to = database.new()
        consume_behind(database, to, store, " ".join(statements[:count]))
        if len(found := database.rows(to, "SELECT device FROM devices")) != len(DEVICES) * PARTITIONS:
            raise Broken(f"behind {count} tables: there are readings of the devices {found}")
    return f"{len(statements)} tables"


def a_transaction_goes_on(database, store, to):
    """The last transaction of a process that was killed goes on in the server while the next process has begun: it had
    sent its COMMIT. The next one has read the position of before, and may not write those records again.

    A client of the server is the killed process here; its COMMIT arrives when the next one waits for it."""
    before = max(n for n in content(database, to, store).positions.values())
    records, middle = before + LAST_RECORDS, before + LAST_RECORDS // 2
    Child("telemetry", store, "--records", records).expect(0)
    want, had, killed_at = expected(records), expected(before), expected(middle)
    rows = [(*key, *killed_at.readings[key]) for key in killed_at.readings.keys() - had.readings.keys()]
    rows = [row for row in rows if row[0].endswith("-0")]
    counts = collections.Counter(row[0] for row in rows)
    statements = [f"UPDATE positions SET next_offset = {middle} WHERE partition = 0;"]
    statements.append(f"INSERT INTO readings VALUES {', '.join(map(str, rows))};")
    for device, count in counts.items():
        statements.append(f"UPDATE devices SET readings = readings + {count} WHERE device = '{device}';")
    consume_behind(database, to, store, "\n".join(statements))
    compare(want, content(database, to, store), "sink")
    return f"{len(rows)} rows of the transaction before"


def run(checks, *check):
    """One check. Where it is broken, its processes end with it: they would write into what the next one reads."""
    try:
        return checks.run(*check)
    finally:
        for child in list(Child.running):
            child.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("databases", nargs="+", choices=DATABASES)
    parser.add_argument("--kills", type=int, default=KILLS_DEFAULT, help="of producer and of consumer, in each way")
    parser.add_argument("--seed", default=random.SystemRandom().randrange(1 << 32), help="(default: a new one)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"the kills are those of --seed {args.seed}", flush=True)
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="edgelog-sinks-") as scratch:
        scratch = pathlib.Path(scratch)
        for name in args.databases:
            started = []
            start = lambda name=name, started=started: started.append(DATABASES[name](scratch))  # noqa: E731
            checks.run(f"{name} is there", start)
            for database in started:
                try:
                    for positions in ("group", "sink"):
                        store, to = scratch / f"{name}-{positions}", database.new()
                        what = f"into {name}, positions in the {positions}"
                        where = (store, to, args.kills, args.seed)
                        is_right = run(checks, what, one_way, name, database, positions, *where) is not None
                    if name == "postgresql" and is_right:
                        run(checks, "a transaction goes on", a_transaction_goes_on, database, store, to)
                        run(checks, "the tables are being made", tables_are_being_made, database, store)
                finally:
                    database.stop()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
