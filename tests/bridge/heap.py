#!/usr/bin/env python3
"""The bridge holds no more memory of its own for a long backlog than for a short one: at most 32 MiB, which the kernel
counts while it sends.

    heap.py [--megabytes N] [--batch N] [--kib-max N]

What is counted is anonymous memory (/proc/PID/smaps_rollup): heap, stacks and what the program wrote in its own data.
The kernel may drop pages of the log's files at any time, so they do not count. Kafka's jars are in $EDGELOG_KAFKA_LIB,
the command line is $EDGELOG_BIN.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

from harness import EDGELOG, Broken, Checks, kafka

# The bound that docs/bridge.md promises with default settings.
KIB_MAX = 32 << 10
RECORD_BYTES = 1000
SAMPLES_PER_SECOND = 100


class Broker(kafka.Broker):
    """A broker that keeps next to nothing: the backlog lies on this disk once already."""

    PROPERTIES = kafka.Broker.PROPERTIES + "log.retention.check.interval.ms=500\n"


def fill(store, megabytes, batch):
    """Appends lines of which no two are the same, so many to a batch."""
    append = subprocess.Popen(
        [EDGELOG, "--dir", store, "append", "t", "--acks", "1", "--quiet", "--batch", str(batch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    filler = os.urandom(RECORD_BYTES).hex()[: RECORD_BYTES - 11]
    for thousand in range(megabytes):
        lines = "".join(f"{thousand:07}{n:03}{filler}\n" for n in range(1000))
        append.stdin.write(lines.encode())
    append.stdin.close()
    if append.wait() != 0:
        raise Broken(f"`edgelog append` ended with {append.returncode}")


def anonymous_kib(pid):
    """What it has now; None when it has ended."""
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = [int(line.split()[1]) for line in text.splitlines() if line.startswith("Anonymous:")]
    return found[0] if found else None


def send(broker, store):
    """Sends all of it, and returns the most memory that was seen, and how often was looked."""
    bridge = subprocess.Popen(
        [
            *(EDGELOG, "--dir", store, "bridge", "run", "--until-caught-up", "--json", "--device", "heap"),
            *("--bootstrap", broker.bootstrap, "--topics", "t", "--to", "t"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=kafka.die_with_parent,
    )
    said = bytearray()
    reader = threading.Thread(target=lambda: said.extend(bridge.stdout.read()), daemon=True)
    reader.start()
    most, looked = 0, 0
    while bridge.poll() is None:
        most, looked = max(most, anonymous_kib(bridge.pid) or 0), looked + 1
        time.sleep(1 / SAMPLES_PER_SECOND)
    reader.join()
    if bridge.returncode != 0:
        raise Broken(f"the bridge ended with {bridge.returncode}:\n{kafka.tail(bytes(said))}")
    return most, looked


def bounded(scratch, megabytes, batch, kib_max):
    with Broker(tempfile.mkdtemp(dir=scratch)) as broker:
        broker.start()
        configs = {"retention_bytes": 50_000_000, "segment_bytes": 20_000_000, "file_delete_delay_ms": 0}
        broker.create_topic("t", 1, **configs)
        store = os.path.join(scratch, "store")
        fill(store, megabytes, batch)
        begun = time.monotonic()
        most, looked = send(broker, store)
        seconds = time.monotonic() - begun
        end = broker.offsets("t", -1)[0]
    # Each transaction's marker has an offset too.
    if end < megabytes * 1000:
        raise Broken(f"{end} offsets in the cluster, {megabytes * 1000} records appended")
    if looked < 20:
        raise Broken(f"looked {looked} times only: it shows nothing")
    if most > kib_max:
        raise Broken(f"{most} KiB of memory of its own, {kib_max} allowed")
    return f"at most {most} KiB over {megabytes} MB in {seconds:.0f} s, looked {looked} times"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=256, help="the backlog (default %(default)s)")
    parser.add_argument("--batch", type=int, default=1000, help="records of 1 kB to a batch (default %(default)s)")
    parser.add_argument("--kib-max", type=int, default=KIB_MAX, help="the bound (default %(default)s)")
    args = parser.parse_args()
    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="edgelog-heap-") as scratch:
        checks.run("memory while sending", bounded, scratch, args.megabytes, args.batch, args.kib_max)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
