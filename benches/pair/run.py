#!/usr/bin/env python3
"""Two versions of edgelog, one after the other, on one machine: is this one slower than a commit before?

    benches/pair/run.py COMMIT [--rounds N] [--case NAME ...] [--dir DIRECTORY]

Builds libedgelog of COMMIT and of the working tree with the release profile, and one C program for each; the C ABI is
what both have in common. Each round runs every case with both, in an order that changes from round to round. What the
machine does besides then meets both alike, and the ratio of a round holds where its figures move. Printed are the
median of each, the median ratio with its middle half, and all of it again as Markdown with --markdown. A ratio above 1:
this one takes longer. It takes about four minutes, on a machine that does nothing else. DIRECTORY lies on a disk; the
cases `os`, `scan` and `random` measure the page cache, `sync` the disk with it.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "pair"
CASES = ["sync", "os", "os_batch", "scan", "scan_batches", "random", "random_batches"]
SYSTEM = ["-lpthread", "-ldl", "-lm"]


def build(name, tree):
    """The program of one version, linked with its static library."""
    print(f"building {name}", file=sys.stderr)
    target = TARGET / f"{name}-target"
    subprocess.run(["cargo", "rustc", "--quiet", "--release", "--locked", "--lib", "--crate-type", "staticlib"], cwd=tree / "ffi", check=True,
                   env={**os.environ, "CARGO_TARGET_DIR": str(target)})
    program = TARGET / name
    library = target / "release" / "libedgelog_ffi.a"
    subprocess.run(["cc", "-O2", "-std=c11", f"-I{tree}/ffi/include", str(HERE / "pair.c"), "-o", str(program),
                    str(library), *SYSTEM], check=True)
    return program


def measure(program, case, directory):
    store = directory / "edgelog-pair"
    shutil.rmtree(store, ignore_errors=True)
    try:
        ran = subprocess.run([program, str(store), case], check=True, capture_output=True, text=True)
    finally:
        shutil.rmtree(store, ignore_errors=True)
    # What the store left to write back is not measured with the next.
    subprocess.run(["sync", "-f", str(directory)], check=True)
    return float(ran.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--dir", type=pathlib.Path, default=TARGET)
    parser.add_argument("--markdown", action="store_true")
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "--verify", f"{arguments.commit}^{{commit}}"], cwd=ROOT,
                            check=True, capture_output=True, text=True).stdout.strip()
    before = TARGET / f"tree-{commit}"
    if not before.exists():
        before.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "x", "-C", str(before)], input=archive, check=True)
    versions = {"before": build(f"before-{commit}", before), "now": build("now", ROOT)}
    cases = arguments.case or CASES
    figures = {case: {"before": [], "now": []} for case in cases}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        order = list(versions) if number % 2 == 0 else list(reversed(versions))
        for case in cases:
            for version in order:
                figures[case][version].append(measure(versions[version], case, arguments.dir))
    head = ("case", f"{commit}, ns a record", "now, ns a record", "now/before", "middle half")
    rows = []
    for case, found in figures.items():
        ratios = [now / before for before, now in zip(found["before"], found["now"])]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        rows.append((case, f"{statistics.median(found['before']):,.1f}", f"{statistics.median(found['now']):,.1f}",
                     f"{statistics.median(ratios):.3f}", f"{low:.3f} to {high:.3f}"))
    if arguments.markdown:
        lines = [head, ("---",) * len(head), *rows]
        print("\n".join(f"| {' | '.join(row)} |" for row in lines))
    else:
        for row in (head, *rows):
            print("{:<16} {:>24} {:>18} {:>11} {:>18}".format(*row))


if __name__ == "__main__":
    main()
