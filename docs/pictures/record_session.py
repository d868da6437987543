#!/usr/bin/env python3
"""Records a session at a terminal as docs/pictures/session.svg: record, kill -9, record, fsck.

    docs/pictures/record_session.py PROGRAM      PROGRAM: the command line, a release build

A shell in a pseudo terminal runs the commands below, in a directory of its own. What the terminal shows, and when, is
what the picture shows: each line of the screen is a text for as long as it stood there. A program that does not play
it shows the last screen. So every run makes another picture, and no test holds it.
"""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import tempfile
import termios
import time
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
COLUMNS, ROWS = 106, 80
COMMANDS = ("edgelog record & sleep 3; kill -9 $!; wait", "edgelog record --for 2s", "edgelog fsck")
PROMPT = "$ "
SECONDS_MAX = 60
# A screen stands at least so long, in seconds: a live one is drawn five times a second.
FRAME = 0.4

COLOURS = {"": "#d7dadd", "1": "#ffffff", "2": "#8d959d", "31": "#f07a76", "32": "#7fc98a", "33": "#e2b45f",
           "36": "#6cbcd0"}
SIZE, LINE, LEFT, TOP = 13, 17, 16, 28
ADVANCE = 7.83


class Screen:
    """As much of a terminal as the command line asks for: what stands in each cell, as (character, colour)."""

    def __init__(self):
        self.rows = [[] for _ in range(ROWS)]
        self.row = self.column = 0
        self.colour = ""

    def write(self, text):
        for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[^\x1b]|\x1b", text):
            if part.startswith("\x1b["):
                self.control(part[2:-1], part[-1])
            elif part == "\n":
                self.row += 1
                if self.row == ROWS:
                    raise SystemExit(f"the session has more than {ROWS} lines: raise ROWS")
            elif part == "\r":
                self.column = 0
            elif part >= " ":
                row = self.rows[self.row]
                row.extend([(" ", "")] * (self.column + 1 - len(row)))
                row[self.column] = (part, self.colour)
                self.column += 1

    def control(self, argument, letter):
        if letter == "m":
            self.colour = "" if argument in ("", "0") else argument
        elif letter == "A":
            self.row -= int(argument or 1)
        elif letter == "K":
            del self.rows[self.row][self.column:]
        elif letter == "J":
            del self.rows[self.row][self.column:]
            for row in self.rows[self.row + 1:]:
                row.clear()
        elif letter not in "hl":
            raise SystemExit(f"a control sequence that this script does not know: {argument}{letter}")

    def shown(self):
        """Each row as a tuple of (column, text, colour)."""
        return [tuple(runs(row)) for row in self.rows]


def runs(row):
    """The stretches of one colour, without the blanks between and behind them."""
    at = 0
    while at < len(row):
        end = at
        while end < len(row) and row[end][1] == row[at][1]:
            end += 1
        text = "".join(character for character, _ in row[at:end])
        # Wide gaps are left out: the columns say where the rest begins.
        for piece in re.finditer(r"\S(?:.*?\S)??(?=\s{2}|\s*$)", text):
            yield at + piece.start(), piece.group(), row[at][1]
        at = end


def record(program):
    """The screens of the session, as (seconds since its begin, rows)."""
    with tempfile.TemporaryDirectory(prefix="edgelog-session-") as scratch:
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(scratch)
            Path("inputrc").write_text("set enable-bracketed-paste off\n")
            environment = {"PATH": f"{program.parent}:/usr/bin:/bin", "HOME": scratch, "TERM": "xterm-256color",
                           "LANG": "C.UTF-8", "PS1": PROMPT, "INPUTRC": "inputrc"}
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        screen, frames, left, begun, undecoded = Screen(), [], list(COMMANDS), time.monotonic(), b""
        is_quiet_since = begun
        while time.monotonic() - begun < SECONDS_MAX:
            readable, _, _ = select.select([terminal], [], [], FRAME)
            if readable:
                undecoded += os.read(terminal, 65536)
                text = undecoded.decode(errors="ignore")
                if text.encode() == undecoded and not text.endswith("\x1b["):
                    screen.write(text)
                    undecoded = b""
                is_quiet_since = time.monotonic()
            rows = screen.shown()
            if not frames or rows != frames[-1][1]:
                now = time.monotonic() - begun
                if frames and now - frames[-1][0] < FRAME:
                    frames[-1] = (frames[-1][0], rows)
                else:
                    frames.append((now, rows))
            at_prompt = screen.column == len(PROMPT) and screen.rows[screen.row][:1] == [("$", "")]
            if at_prompt and time.monotonic() - is_quiet_since > 0.8:
                if not left:
                    os.write(terminal, b"exit\n")
                    os.waitpid(pid, 0)
                    return frames
                os.write(terminal, left.pop(0).encode() + b"\n")
                is_quiet_since = time.monotonic()
        raise SystemExit(f"the session did not end within {SECONDS_MAX} s; the screen:\n" +
                         "\n".join("".join(character for character, _ in row) for row in screen.rows))


def versions(frames, row):
    """(begin, end, content) of what stood in `row`; the last one has no end."""
    found = []
    for begin, rows in frames:
        if not found or found[-1][2] != rows[row]:
            if found:
                found[-1][1] = begin
            found.append([begin, None, rows[row]])
    return [version for version in found if version[2]]


def svg(frames):
    """The picture."""
    used = max(row for row, content in enumerate(frames[-1][1]) if content) + 1
    width, height = round(2 * LEFT + ADVANCE * COLUMNS), TOP + LINE * used
    styles = "\n".join(f".c{name} {{ fill: {colour} }}" for name, colour in COLOURS.items())
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"',
        f'  viewBox="0 0 {width} {height}" role="img" aria-labelledby="title description">',
        '<title id="title">Record, kill -9, record</title>',
        '<desc id="description">A terminal: edgelog record shows what it records and is killed. Started again, it says '
        "what it recovered, and goes on at the next offset. fsck finds every byte sound.</desc>",
        "<style>",
        f'text {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {SIZE}px; '
        "white-space: pre }",
        styles,
        "</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#16191d"/>',
    ]
    for row in range(used):
        for begin, end, content in versions(frames, row):
            times = f'begin="{begin:.2f}s" end="{end:.2f}s"' if end else f'begin="0s" end="{begin:.2f}s"'
            hidden = ' visibility="hidden"' if end else ""
            to = "visible" if end else "hidden"
            lines.append(f"<g{hidden}>")
            if end or begin > 0:
                lines.append(f'<set attributeName="visibility" to="{to}" {times}/>')
            for column, text, colour in content:
                # As wide as in a terminal, with whichever font.
                x, length = LEFT + ADVANCE * column, ADVANCE * len(text)
                fit = f' textLength="{length:.1f}"' if len(text) > 1 else ""
                lines.append(f'<text class="c{colour}" x="{x:.1f}" y="{TOP + LINE * row}"{fit}>{escape(text)}</text>')
            lines.append("</g>")
    return "\n".join(lines) + "\n</svg>\n"


def main():
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        raise SystemExit(__doc__)
    program = Path(sys.argv[1]).resolve()
    if program.name != "edgelog":
        raise SystemExit(f"the program is to be named edgelog, as the commands have it, not {program.name}")
    frames = record(program)
    (HERE / "session.svg").write_text(svg(frames))
    print(f"docs/pictures/session.svg: {frames[-1][0]:.1f} s, {len(frames)} screens")


if __name__ == "__main__":
    main()
