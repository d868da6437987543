#!/usr/bin/env python3
"""examples/c, as an engineer would try them: the loop is killed and started again, and so is the follower.

Every reading that the loop printed is printed by the follower; what it printed before it was killed, perhaps again.
"""

import pathlib
import select
import signal
import subprocess
import sys

programs, work = map(pathlib.Path, sys.argv[1:3])
DEADLINE_S = 60
checks = 0


def start(name, *arguments):
    return subprocess.Popen([programs / name, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            bufsize=0)  # Else select() would not see what was read ahead.


def read_until(process, done, seen):
    """Lines of the process into `seen`, until `done(seen)`."""
    while not done(seen):
        ready, _, _ = select.select([process.stdout], [], [], DEADLINE_S)
        assert ready, f"nothing for {DEADLINE_S} s: {seen[-3:]}, {process.args}"
        line = process.stdout.readline().decode()
        assert line.endswith("\n"), f"ended early: {process.stderr.read().decode()}"
        offset, _, value = line.strip().partition(" ")
        seen.append((int(offset), value))


def end(process, number):
    process.send_signal(number)
    rest, _ = process.communicate(timeout=DEADLINE_S)
    lines = [line.decode().partition(" ") for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
    return [(int(offset), value.strip()) for offset, _, value in lines]


store, position = work / "store", work / "position"
follower = start("follower", store, position)
appended, printed = [], []
for life in range(4):
    loop = start("sensor_loop", store, 5)
    want = len(appended) + 20
    read_until(loop, lambda seen: len(seen) >= want, appended)
    last = life == 3
    appended += end(loop, signal.SIGTERM if last else signal.SIGKILL)
    assert loop.returncode == (0 if last else -signal.SIGKILL), loop.returncode
    checks += 1
    if life == 1:
        # The follower goes too, and comes back: where it was, or just before.
        printed += end(follower, signal.SIGKILL)
        follower = start("follower", store, position)
    # A record appended as the loop was killed may be there without having been printed.
    read_until(follower, lambda seen: {o for o, _ in appended} <= {o for o, _ in seen}, printed)
    checks += 1
printed += end(follower, signal.SIGTERM)
assert follower.returncode == 0, follower.returncode

values = dict(printed)
assert sorted(values) == list(range(len(values))), "an offset is missing"
assert len(set(printed)) == len(values), "two values for one offset"
assert all(values[offset] == value for offset, value in appended), "a reading is another one"
repeated = len(printed) - len(values)
assert 0 <= repeated <= len(appended), repeated
assert [offset for offset, _ in appended] == sorted({offset for offset, _ in appended})
checks += 4
print(f"{len(appended)} readings acknowledged, {len(values)} followed, {repeated} printed twice around a kill")
print(f"checks: {checks} passed, 0 failed")
