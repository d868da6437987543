#!/usr/bin/env python3
"""Runs what the pages show: each command of a `console` block, compared with the output that stands below it. Looks
whether links between pages lead somewhere, too.

    tests/papers/commands.py                 the blocks that need no broker
    tests/papers/commands.py --broker        the pages that have blocks for a broker, these too: starts one from
                                             EDGELOG_KAFKA_LIB
    tests/papers/commands.py PAGE...         these pages alone
    tests/papers/commands.py --show          prints what the commands print
    tests/papers/commands.py --canary        changes an expected line of each page, and fails if that goes unseen

EDGELOG_BIN is the command line to run (default: target/debug/edgelog). A page's blocks run in order, in one shell, in
an empty directory in which `edgelog` leads to the checkout and `run` to a script that runs the command line.

In a block, a line that begins with `$ ` is a command, and `> ` goes on with it. What follows is its output, on standard
output and standard error. `...` stands for any lines, or within a line for any text. Times, process numbers, free space
and the width of columns may differ. Each command has to end with 0. What a command in the background says on standard
error comes at any time, and is not compared.

A comment in the line before a block says what else to do with it:

    <!-- test: left out, WHY -->    the block is not run; the reason is printed and counted as skipped
    <!-- test: broker -->           it needs a broker at localhost:9092, and runs with --broker
    <!-- test: file NAME -->        the block is written to this file
"""

import argparse
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/tutorial.md", "docs/cookbook.md", "docs/operations.md", "docs/faq.md")
# What a page shows may wait for records and build a small program.
PAGE_SECONDS_MAX = 600
# Blocks that show something and are no command. Rust is compiled by doc tests and held by tests/configuration_docs.rs.
SHOWN = ("text", "toml", "rust", "rust,no_run", "properties", "ini")
BROKER = "localhost:9092"
MARK = "\x01"


class Block:
    """A fenced block of a page: its kind, its lines, and what the comment above it says."""

    def __init__(self, page, line, kind, mark):
        self.where = f"{page}:{line}"
        self.kind, self.mark, self.lines = kind, mark, []

    def commands(self):
        """(command, expected output) of each command of the block."""
        found = []
        for line in self.lines:
            if line.startswith("$ "):
                found.append([[line[2:]], []])
            elif line.startswith("> ") and found and not found[-1][1]:
                found[-1][0].append(line[2:])
            elif not found:
                raise SystemExit(f"{self.where}: output without a command: {line}")
            else:
                found[-1][1].append(line)
        return [("\n".join(command), output) for command, output in found]


def blocks(page):
    """The blocks of a page, in order."""
    found, block, mark, before = [], None, "", ""
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        if block is not None:
            if line == "```":
                found.append(block)
                block = None
            else:
                block.lines.append(line)
        elif line.startswith("```"):
            said = re.fullmatch(r"<!-- test: (.*) -->", before)
            mark = said.group(1) if said else ""
            block = Block(page, number, line[3:], mark)
        elif line.startswith("    ") and not before:
            raise SystemExit(f"{page}:{number}: an indented block: let it be a fenced one, so that it is run")
        before = line
    if block is not None:
        raise SystemExit(f"{block.where}: the block has no end")
    for block in found:
        if block.kind != "console" and block.kind not in SHOWN:
            raise SystemExit(f"{block.where}: what is a block of kind {block.kind!r}? Commands are `console`")
    return found


def plain(line):
    """A line of output without what differs from run to run."""
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME", line)
    line = re.sub(r"\(\d[\d.,]* ([KMGT]i)?B free\)", "(SIZE free)", line)
    line = re.sub(r"\bprocess \d+", "process N", line)
    line = re.sub(r"\((just now|\d+ \w+ ago)\)", "(AGE)", line)
    line = re.sub(r"\b127\.0\.0\.1:\d+", BROKER, line)
    return " ".join(line.split())


def agrees(expected, printed):
    """Whether the lines that were printed are those that the page shows."""
    pattern = ""
    for line in expected:
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += "[^\n]*".join(re.escape(part.strip()) for part in plain(line).split("...")) + "\n"
    return re.fullmatch(pattern, "".join(plain(line) + "\n" for line in printed)) is not None


def run_page(page, edgelog, broker, canary=False, show=False):
    """(commands that did as shown, what went wrong, blocks left out) of a page."""
    left_out, wrong, commands = [], [], []
    # The same place each time, so that a program of the page is built once; and outside of the checkout's workspace.
    scratch = pathlib.Path(tempfile.gettempdir()) / f"edgelog-pages-{os.getuid()}" / page.replace("/", "-")
    shutil.rmtree(scratch, ignore_errors=True)
    home = scratch / "home"
    (scratch / "bin").mkdir(parents=True)
    home.mkdir()
    (home / "edgelog").symlink_to(ROOT)
    (scratch / "bin" / "edgelog").symlink_to(edgelog)
    (home / "run").write_text('#!/bin/sh\nexec edgelog "$@"\n')
    (home / "run").chmod(0o755)
    script = [f"cd {home}"]
    files = []
    for block in blocks(page):
        if block.mark.startswith("file "):
            files.append((block.mark.removeprefix("file "), "\n".join(block.lines) + "\n"))
            here = scratch / f"file-{len(files)}"
            here.write_text(files[-1][1])
            name = files[-1][0]
            script.append(f"mkdir -p {pathlib.Path(name).parent} && cp {here} {name}")
            # The versions of the checkout, so that nothing has to be looked up.
            if name.endswith("Cargo.toml"):
                script.append(f"cp {ROOT}/Cargo.lock {pathlib.Path(name).parent}/")
        elif block.kind != "console":
            continue
        elif block.mark.startswith("left out, "):
            left_out.append(f"{block.where}: {block.mark.removeprefix('left out, ')}")
        elif block.mark == "broker" and not broker:
            left_out.append(f"{block.where}: it needs a broker: ./test --only bridge")
        elif block.mark not in ("", "broker"):
            raise SystemExit(f"{block.where}: what does {block.mark!r} mean?")
        else:
            for command, output in block.commands():
                commands.append((block.where, command, output))
                if broker:
                    command = command.replace(BROKER, broker)
                if command.endswith("&"):
                    command = f"{{ {command[:-1]}; }} 2>{scratch / 'background'} &"
                script.append(f"{command}\nended=$?; printf '{MARK}%s\\n' $ended; [ $ended = 0 ] || exit")
    if canary:
        where, command, output = next(c for c in commands if c[2] and c[2] != ["..."])
        output.append("a line that no command prints")
    said, ended = run_script(script, scratch, home)
    parts = said.split(MARK)
    # Each part but the first begins with the exit code of the command before.
    parts = ["\n" + parts[0], *parts[1:]]
    for (where, command, output), part, next_part in zip(commands, parts, parts[1:]):
        printed, status = part.partition("\n")[2], next_part.partition("\n")[0]
        lines = printed.splitlines()
        if show:
            print(f"$ {command}\n{printed}", end="")
        if status != "0":
            wrong.append(f"{where}: $ {command}\nended with {status}:\n{printed}")
        elif not agrees(output, lines):
            shown = "\n".join(output)
            wrong.append(f"{where}: $ {command}\nthe page shows:\n{shown}\nit printed:\n{printed}")
    if len(parts) - 1 < len(commands) and not wrong:
        where, command, _ = commands[len(parts) - 1]
        wrong.append(f"{where}: $ {command}\n{ended}:\n{parts[-1]}")
    return len(parts) - 1 - len(wrong), wrong, left_out


def run_script(script, scratch, home):
    """What bash printed, and how it ended."""
    path = scratch / "script"
    path.write_text("\n".join(script) + "\n")
    environment = {
        **os.environ,
        "PATH": f"{scratch / 'bin'}:{os.environ['PATH']}",
        "CARGO_TARGET_DIR": str(target() / "pages" / "target"),
        "LC_ALL": "C",
        "TZ": "UTC",
    }
    for name in [name for name in environment if name.startswith("EDGELOG_")]:
        del environment[name]
    process = subprocess.Popen(["bash", path], cwd=home, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        said, _ = process.communicate(timeout=PAGE_SECONDS_MAX)
        ended = f"the shell ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        ended = f"killed: over {PAGE_SECONDS_MAX} s"
    return said.decode(errors="replace"), ended


def target():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()


def anchors(page):
    """The names of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^a-z0-9 _-]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]


def broken_links():
    """Links from our pages to files and headings that are not there."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")]
    assert len(pages) > 15, "the pages have moved"
    for page in pages:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = link.partition("#")
            goal = page.parent / name if name else page
            if not goal.exists():
                yield f"{page.relative_to(ROOT)}: {link}: there is no such file"
            elif anchor and goal.suffix == ".md" and anchor not in anchors(goal):
                yield f"{page.relative_to(ROOT)}: {link}: {name or 'it'} has no such heading"


def start_broker(scratch):
    """A broker, which ends with its context."""
    sys.path.insert(0, str(ROOT / "tests" / "kafka"))
    import check  # noqa: PLC0415

    broker = check.Broker(pathlib.Path(scratch))
    broker.start()
    return broker


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE")
    parser.add_argument("--broker", action="store_true")
    parser.add_argument("--canary", action="store_true")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    edgelog = shutil.which(os.environ.get("EDGELOG_BIN", str(target() / "debug" / "edgelog")))
    if edgelog is None:
        raise SystemExit("there is no command line to run: cargo build -p edgelog-cli, or set EDGELOG_BIN")
    pages = args.pages or [page for page in PAGES if (ROOT / page).exists()]
    if args.broker:
        pages = [page for page in pages if any(block.mark == "broker" for block in blocks(page))]
        assert pages, "no page has a block for a broker"
    passed = failed = skipped = 0
    if not args.pages and not args.broker:
        broken = list(broken_links())
        for text in broken:
            print(f"BROKEN {text}")
        passed, failed = int(not broken), len(broken)
    # The broker ends before its directory is removed.
    with tempfile.TemporaryDirectory(prefix="edgelog-broker-") as scratch, contextlib.ExitStack() as stack:
        broker = stack.enter_context(start_broker(scratch)) if args.broker else None
        address = broker.bootstrap if broker else None
        for page in pages:
            good, wrong, left_out = run_page(page, pathlib.Path(edgelog).absolute(), address, args.canary, args.show)
            if args.canary:
                found = len(wrong) == 1 and "a line that no command prints" in wrong[0]
                print(f"{page}: the changed line was {'seen' if found else 'NOT SEEN'}")
                good, wrong = int(found), [] if found else [f"{page}: a changed line went unseen: {wrong}"]
            else:
                print(f"{page}: {good} commands do as the page shows")
            for text in wrong:
                print(f"BROKEN {text}\n")
            for text in left_out:
                print(f"left out: {text}")
            passed, failed, skipped = passed + good, failed + len(wrong), skipped + len(left_out)
    # `./test` counts these; what is left out here is left out of every run, and no reason to call a run incomplete.
    print(f"checks: {passed} passed, {failed} failed ({skipped} blocks left out, named above)")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
