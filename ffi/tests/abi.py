#!/usr/bin/env python3
"""What programs were linked against: every symbol with its signature, every constant, every field of every struct.

Reads include/edgelog.h and compares it to abi.txt. Additions are to be noted there (`--write`, `make -C ffi abi`); a
line that changes or goes is a break, and takes a new major number.
"""

import pathlib
import re
import sys

ffi = pathlib.Path(__file__).resolve().parent.parent


def lines(header):
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", header, flags=re.S)
    # The versions are another test's; the inline functions are compiled into their callers.
    text = text.split("#ifndef EDGELOG_H_INLINE")[0]
    for name, value in re.findall(r"^#define (EDGELOG_\w+) (-?\d+)$", text, flags=re.M):
        if not name.startswith("EDGELOG_VERSION"):
            yield f"constant {name} = {value}"
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    text = " ".join(text.split())
    results = text.partition("enum edgelog_result")[2].partition("}")[0]
    for name, value in re.findall(r"(EDGELOG_\w+) = (-?\d+)", results):
        yield f"result {name} = {value}"
    for fields, name in re.findall(r"typedef struct \{([^}]*)\} (\w+);", text):
        yield f"struct {name}"
        for field in fields.split(";"):
            if field.strip():
                yield f"struct {name}: {field.strip()}"
    for name in re.findall(r"typedef struct (\w+) \1;", text):
        yield f"opaque {name}"
    for name in re.findall(r"typedef ([^;{}]*\(\*\w+\)\([^)]*\));", text):
        yield f"callback {name}"
    for function in re.findall(r"(?<=[;{}] )((?:const )?\w+ \*?edgelog_\w+\([^)]*\));", text):
        yield f"function {re.sub(r' +', ' ', function)}"


def main():
    found = list(lines((ffi / "include/edgelog.h").read_text()))
    functions = sum(line.startswith("function") for line in found)
    # A canary: a reader that finds little would find nothing changed.
    assert functions > 50 and sum(line.startswith("struct") for line in found) > 80, f"read {len(found)} lines only"
    path = ffi / "abi.txt"
    if sys.argv[1:] == ["--write"]:
        path.write_text("\n".join(found) + "\n")
        return 0
    known = path.read_text().splitlines()
    gone = [line for line in known if line not in found]
    new = [line for line in found if line not in known]
    for line in gone:
        print(f"- {line}")
    for line in new:
        print(f"+ {line}")
    if not gone and not new and found != known:
        print("the order is another one: fields of a struct, or functions")
    print(f"{len(found)} lines, {functions} functions, {len(gone)} gone, {len(new)} new")
    return int(found != known)


sys.exit(main())
