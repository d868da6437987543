#!/usr/bin/env python3
"""Prints how many lines the tests run through, by crate and room.

    tests/coverage/run.py [--work DIR] [PACKAGE...]     without one: edgelog-core edgelog edgelog-cli

The tests are built with counters (`-C instrument-coverage`) by Debian's Rust 1.85, whose LLVM is 19, and read with
that LLVM's tools. A line of a test counts where it stands in a module's own file; files of tests alone are left out.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("edgelog-core", "edgelog", "edgelog-cli")
LLVM = "19"
# The rooms that lines are counted by: the bridge and its protocol need a broker for most of theirs.
ROOMS = (("no_std_core/src/", "edgelog-core"), ("src/bridge/", "edgelog: bridge"), ("src/kafka/", "edgelog: protocol"),
         ("src/", "edgelog: engine"), ("cli/src/", "edgelog-cli"), ("ffi/src/", "edgelog-ffi"))


def tool(name):
    """LLVM's tool of the version whose counters the compiler writes."""
    found = shutil.which(f"{name}-{LLVM}") or shutil.which(name, path=f"/usr/lib/llvm-{LLVM}/bin")
    if not found:
        raise SystemExit(f"{name}-{LLVM} is missing: apt-get install llvm-{LLVM}")
    return found


def room_of(path):
    """Where a file belongs; none for tests and for what is not ours."""
    path = Path(path)
    if not path.is_relative_to(ROOT):
        return None
    inside = path.relative_to(ROOT).as_posix()
    if re.search(r"(^|/)tests?(\.rs$|/)", inside):
        return None
    return next((name for begin, name in ROOMS if inside.startswith(begin)), None)


def build_and_run(packages, work):
    """The programs that were run; their counts are in `work`."""
    environment = {**os.environ, "RUSTC": "/usr/bin/rustc", "RUSTDOC": "/usr/bin/rustdoc",
                   "CARGO_TARGET_DIR": str(work / "target"), "RUSTFLAGS": "-C instrument-coverage",
                   "LLVM_PROFILE_FILE": str(work / "counts/%p-%m.profraw")}
    command = ["/usr/bin/cargo", "test", "--locked", "--all-features", "--no-fail-fast", "--lib", "--bins", "--tests"]
    for package in packages:
        command += ["--package", package]
    listed = subprocess.run([*command, "--no-run", "--message-format", "json-render-diagnostics"], cwd=ROOT,
                            env=environment, stdout=subprocess.PIPE, check=True)
    said = [json.loads(line) for line in listed.stdout.splitlines()]
    programs = [one["executable"] for one in said if one.get("executable")]
    # What building ran (build scripts, macros) counted, too.
    shutil.rmtree(work / "counts", ignore_errors=True)
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return programs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=ROOT / "target/coverage")
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    args = parser.parse_args()
    profdata, cov = tool("llvm-profdata"), tool("llvm-cov")
    programs = build_and_run(args.packages, args.work.absolute())
    counts = sorted(map(str, (args.work / "counts").glob("*.profraw")))
    merged = args.work / "all.profdata"
    names = args.work / "counts.txt"
    names.write_text("\n".join(counts))
    subprocess.run([profdata, "merge", "--sparse", "--input-files", names, "--output", merged], check=True)
    objects = [word for program in programs[1:] for word in ("--object", program)]
    exported = subprocess.run([cov, "export", "--summary-only", "--instr-profile", merged, programs[0], *objects],
                              stdout=subprocess.PIPE, check=True)
    lines, run = defaultdict(int), defaultdict(int)
    for file in json.loads(exported.stdout)["data"][0]["files"]:
        room = room_of(file["filename"])
        if room:
            lines[room] += file["summary"]["lines"]["count"]
            run[room] += file["summary"]["lines"]["covered"]
    if not lines:
        raise SystemExit("no line of ours was counted")
    print(f"\n{'':<20}{'lines':>9}{'run':>9}")
    for room in sorted(lines):
        print(f"{room:<20}{lines[room]:>9,}{run[room]:>9,}{100 * run[room] / lines[room]:>8.1f} %")


if __name__ == "__main__":
    sys.exit(main())
