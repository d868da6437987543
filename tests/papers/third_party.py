#!/usr/bin/env python3
"""Writes THIRD-PARTY.md: what is linked into the libraries and the command line, and under which licence.

    tests/papers/third_party.py            writes the file
    tests/papers/third_party.py --check    says whether it is as the lock file has it; 1 where it is not

The crates are those that `cargo metadata` names for the three targets, with all features, from the packages that are
shipped: programs that only build or test are no part of them. Where a crate offers several licences, the first of TAKEN
that it offers counts. The same lock file gives the same bytes.
"""

import difflib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "THIRD-PARTY.md"
SHIPPED = ("edgelog", "edgelog-cli", "edgelog-core", "edgelog-ffi")
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf")
# Licences that are compatible with both of ours, the one that is taken first in front. deny.toml allows the same.
TAKEN = ("Apache-2.0", "MIT", "ISC", "BSD-3-Clause", "Zlib")
# The name of a file that holds a licence, where its text is asked for.
FILES = {
    "MIT": r"LICENSE-MIT(\.md|\.txt)?|LICENSE(\.md|\.txt)?|COPYING",
    "ISC": r"LICENSE-ISC|LICENSE(\.md|\.txt)?",
    "BSD-3-Clause": r"LICENSE(\.md|\.txt)?|COPYING",
    "Zlib": r"LICENSE(-ZLIB)?(\.md|\.txt)?",
}

HEAD = """\
# Third-party notices

Written by `tests/papers/third_party.py` from `Cargo.lock`; the stage `lint` holds it to that. edgelog itself is under
Apache-2.0 or MIT, as you choose (`LICENSE-APACHE`, `LICENSE-MIT`). What it links is listed here, for all features and
targets. A build links fewer of them: `cargo tree -p edgelog -e normal` names those of yours. Rust's own standard
library is linked too, under MIT or Apache-2.0.

Where a crate offers several licences, the one that is named here is taken. The text of Apache-2.0 is in
`LICENSE-APACHE`, the other texts follow the list.

| crate | version | licence taken | from |
|---|---|---|---|
"""


def metadata(target):
    """What cargo says of the workspace on `target`."""
    command = [os.environ.get("CARGO", "cargo"), "metadata", "--locked", "--format-version", "1", "--all-features",
               "--filter-platform", target]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def linked(said):
    """The packages from elsewhere that the shipped ones link: not what runs at build time."""
    packages = {package["id"]: package for package in said["packages"]}
    nodes = {node["id"]: node for node in said["resolve"]["nodes"]}
    ways = [package["id"] for package in said["packages"] if package["name"] in SHIPPED and not package["source"]]
    seen = set()
    while ways:
        package = packages[ways.pop()]
        is_macro = any("proc-macro" in target["kind"] for target in package["targets"])
        if package["id"] in seen or is_macro:
            continue
        seen.add(package["id"])
        for dependency in nodes[package["id"]]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                ways.append(dependency["pkg"])
    return [packages[which] for which in seen if packages[which]["source"]]


def licences(package):
    """The licences that hold for it: one that is chosen, or all that it asks for together."""
    said = (package["license"] or "").replace("/", " OR ")
    if " AND " in said and " OR " not in said:
        return said.split(" AND ")
    offered = [part.strip("() ") for part in said.split(" OR ")]
    for licence in TAKEN:
        if licence in offered:
            return [licence]
    raise SystemExit(f"{package['name']} {package['version']} is under {said!r}: TAKEN has none of it")


def text_of(path):
    lines = path.read_text(encoding="utf-8").replace("\r\n", "\n").replace("\f", "").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def texts(package, taken):
    """The texts that have to come along: of a licence that differs from copy to copy, and every NOTICE."""
    folder = Path(package["manifest_path"]).parent
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    notices = [name for name in names if name.upper().startswith("NOTICE")]
    if len(taken) > 1:
        chosen = [name for name in names if name.upper().startswith("LICENSE")]
    elif taken == ["Apache-2.0"]:
        chosen = []
    else:
        fitting = [name for name in names if re.fullmatch(FILES[taken[0]], name, re.IGNORECASE)]
        # A file that names its licence goes before one that does not.
        chosen = sorted(fitting, key=lambda name: (taken[0].lower() not in name.lower(), name))[:1]
    if not chosen and taken != ["Apache-2.0"]:
        raise SystemExit(f"{package['name']} {package['version']} has no file with the text of {taken}: {names}")
    return [text_of(folder / name) for name in chosen + notices]


def page():
    found = {}
    for target in TARGETS:
        for package in linked(metadata(target)):
            found[package["name"], package["version"]] = package
    rows, by_text = [], {}
    for (name, version), package in sorted(found.items()):
        taken = licences(package)
        rows.append(f"| {name} | {version} | {' and '.join(taken)} | {package['repository'] or '-'} |\n")
        for text in texts(package, taken):
            by_text.setdefault(text, []).append(f"{name} {version}")
    out = [HEAD, *rows]
    for text, users in sorted(by_text.items(), key=lambda item: item[1]):
        out.append(f"\n## {', '.join(users)}\n\n```text\n{text}\n```\n")
    return "".join(out)


def main():
    made = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    there = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    sys.stdout.writelines(difflib.unified_diff(there.splitlines(True), made.splitlines(True), PAGE.name, "Cargo.lock"))
    if there != made:
        print(f"{PAGE.name} is out of date: tests/papers/third_party.py writes it")
    return int(there != made)


if __name__ == "__main__":
    sys.exit(main())
