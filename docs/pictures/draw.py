#!/usr/bin/env python3
"""Draws the pictures of the pages, as SVG.

    docs/pictures/draw.py            writes them, next to this script
    docs/pictures/draw.py --check    says whether they are as they would be written; 1 where one is not

The fields of a record batch come from docs/format.md, the figures from benches/README.md: where these change, the
pictures are to be drawn again. Python's own library is all that is needed. The same pages give the same bytes.
(record_session.py makes session.svg, from commands that it runs.)
"""

import difflib
import math
import re
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# Each picture brings its own ground, so that it can be read on a light page and on a dark one. Where the reader's
# system asks for dark, it is dark.
STYLE = """
.ground { fill: #fbfbfa; stroke: #d5d5d0 }
text { font-family: system-ui, "DejaVu Sans", Helvetica, Arial, sans-serif; font-size: 14px; fill: #23272b }
.small { font-size: 12px; fill: #555c63 }
.head { font-weight: 600 }
.code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 12.5px }
.middle { text-anchor: middle }
.end { text-anchor: end }
.box { fill: #ffffff; stroke: #8a9199; stroke-width: 1.2 }
.a { fill: #dbe9f8; stroke: #3f78b5; stroke-width: 1.2 }
.b { fill: #dff0df; stroke: #4b8f4f; stroke-width: 1.2 }
.c { fill: #fbe9cf; stroke: #b9822f; stroke-width: 1.2 }
.d { fill: #ececea; stroke: #a3a8ad; stroke-width: 1.2; stroke-dasharray: 4 3 }
.bar { fill: #3f78b5 }
.limit { stroke: #b9822f; stroke-width: 2.5 }
.wire { stroke: #555c63; stroke-width: 1.6; fill: none }
.tip { fill: #555c63 }
.thin { stroke: #c4c8cc; stroke-width: 1 }
@media (prefers-color-scheme: dark) {
.ground { fill: #16191d; stroke: #3a4047 }
text { fill: #e4e7ea }
.small { fill: #a9b1b9 }
.box { fill: #20252a; stroke: #7b848d }
.a { fill: #1c344f; stroke: #6ba3dd }
.b { fill: #1d3a22; stroke: #73b878 }
.c { fill: #463317; stroke: #d9a657 }
.d { fill: #24282c; stroke: #6b737b }
.bar { fill: #6ba3dd }
.limit { stroke: #d9a657 }
.wire { stroke: #a9b1b9 }
.tip { fill: #a9b1b9 }
.thin { stroke: #3a4047 }
}
"""


class Picture:
    """An SVG in the making. Lengths are in pixels, from the upper left corner."""

    def __init__(self, width, height, title, description):
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"',
            f'  viewBox="0 0 {width} {height}" role="img" aria-labelledby="title description">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            f"<style>{STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        ]

    def box(self, x, y, width, height, kind="box", radius=5):
        self.lines.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}"/>')

    def text(self, x, y, words, kind=""):
        self.lines.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>')

    def line(self, x1, y1, x2, y2, kind="wire"):
        self.lines.append(f'<line class="{kind}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>')

    def arrow(self, x1, y1, x2, y2):
        """A straight one, along one of the axes."""
        self.line(x1, y1, x2, y2)
        dx, dy = (x2 > x1) - (x2 < x1), (y2 > y1) - (y2 < y1)
        left, right = (x2 - 9 * dx - 4.5 * dy, y2 - 9 * dy - 4.5 * dx), (x2 - 9 * dx + 4.5 * dy, y2 - 9 * dy + 4.5 * dx)
        points = " ".join(f"{x:g},{y:g}" for x, y in ((x2, y2), left, right))
        self.lines.append(f'<polygon class="tip" points="{points}"/>')

    def svg(self):
        return "\n".join(self.lines) + "\n</svg>\n"


def overview():
    """A device with its store and its bridge, and the cluster."""
    picture = Picture(860, 300, "From a program to a cluster",
                      "A program on the device appends records to the store, which is a directory of logs. Other "
                      "programs read it. The bridge sends the records to a Kafka cluster when there is a network.")
    picture.text(24, 32, "device", "head")
    picture.box(16, 44, 572, 240, "d", 8)
    picture.box(32, 66, 138, 62)
    picture.text(101, 92, "your program", "middle head")
    picture.text(101, 112, "links edgelog", "middle small")
    picture.box(32, 196, 138, 62)
    picture.text(101, 222, "readers", "middle head")
    picture.text(101, 242, "any number", "middle small")

    picture.box(280, 66, 152, 192, "a")
    picture.text(356, 88, "store", "middle head")
    picture.text(356, 105, "a directory on disk", "middle small")
    for n, name in enumerate(("boiler-0", "door-0", "door-1")):
        y = 118 + 44 * n
        for at in range(4):
            picture.box(298 + 29 * at, y, 26, 18, "box", 2)
        picture.text(298, y + 32, name, "code")
    picture.arrow(170, 97, 278, 97)
    picture.text(225, 88, "append", "middle small")
    picture.text(225, 114, "on the disk", "middle small")
    picture.text(225, 129, "when it returns", "middle small")
    picture.arrow(280, 227, 172, 227)
    picture.text(225, 218, "by offset", "middle small")
    picture.text(225, 244, "or by time", "middle small")

    picture.box(486, 126, 86, 72, "b")
    picture.text(529, 158, "bridge", "middle head")
    picture.text(529, 178, "one process", "middle small")
    picture.arrow(432, 162, 484, 162)
    picture.text(458, 153, "read", "middle small")

    picture.text(704, 32, "Kafka cluster", "head")
    picture.box(696, 44, 148, 240, "c", 8)
    for n, name in enumerate(("topic boiler", "topic door")):
        picture.box(710, 96 + 62 * n, 120, 44, "box")
        picture.text(770, 123 + 62 * n, name, "middle")
    picture.text(770, 246, "each record once,", "middle small")
    picture.text(770, 262, "in order", "middle small")
    picture.line(572, 162, 634, 162)
    picture.line(638, 152, 630, 172)
    picture.line(646, 152, 638, 172)
    picture.arrow(642, 162, 694, 162)
    picture.text(642, 142, "network", "middle small")
    picture.text(642, 190, "away for", "middle small")
    picture.text(642, 205, "hours or weeks", "middle small")
    return picture.svg()


def offsets():
    """The four offsets of a log, on a line."""
    picture = Picture(860, 360, "The four offsets of a log",
                      "On a line of records from old to new: the log start offset, the recovery point, the high "
                      "watermark and the log end offset, with what each of them bounds.")
    first, cell, count, y = 60, 31, 24, 182
    kinds = ["d"] * 5 + ["a"] * 10 + ["b"] * 5 + ["c"] * 3 + ["box"]
    names = [96 + n for n in range(count)]
    for n in range(count - 1):
        picture.box(first + cell * n, y, cell, 34, kinds[n], 0)
        picture.text(first + cell * (n + 0.5), y + 22, str(names[n]), "middle code")
    picture.box(first + cell * (count - 1), y, cell, 34, "d", 0)

    def mark(at, level, name, words, side="start"):
        x = first + cell * at
        top = 40 + 44 * level
        picture.line(x, top + 24, x, y + 34)
        kind = "end" if side == "end" else ""
        shift = 3 if side == "end" else -3
        picture.text(x + shift, top, f"{name}  {names[at]}", f"head {kind}")
        picture.text(x + shift, top + 17, words, f"small {kind}")

    mark(5, 0, "log start offset", "the oldest record that can be read")
    mark(15, 2, "recovery point", "everything before it is on the disk", "end")
    mark(20, 1, "high watermark", "readers get what is before it", "end")
    mark(23, 0, "log end offset", "the next record gets this offset", "end")

    def span(begin, end, row, words, small):
        x1, x2 = first + cell * begin + 2, first + cell * end - 2
        top = y + 50 + 46 * row
        picture.line(x1, top, x2, top)
        picture.line(x1, top - 5, x1, top + 5)
        picture.line(x2, top - 5, x2, top + 5)
        picture.text((x1 + x2) / 2, top + 19, words, "middle")
        picture.text((x1 + x2) / 2, top + 35, small, "middle small")

    span(0, 5, 0, "deleted", "by retention, for good")
    span(5, 15, 0, "survives a power cut", "damage in it is an error, never silence")
    span(15, 20, 0, "acknowledged at Os", "survives kill -9")
    span(20, 23, 0, "not yet", "acknowledged")
    picture.text(first, 318, "At Sync, the default, an append returns when the recovery point has passed it: a record "
                 "that is acknowledged", "small")
    picture.text(first, 335, "is before both. A power cut can truncate what is behind the recovery point; the leader "
                 "epoch then rises.", "small")
    return picture.svg()


def batch_fields():
    """(byte, size, name) of a record batch's header, from the page on the format."""
    page = (ROOT / "docs/format.md").read_text()
    part = page.split("\n## Record batch\n")[1].split("\n## ")[0]
    fields = [(int(at), int(size or 0), name.strip())
              for at, size, name in re.findall(r"^\| (\d+) \| (\d*) ?\| ([^|]+)\|", part, re.M)]
    at = 0
    for byte, size, name in fields:
        assert byte == at, f"docs/format.md: {name} is at byte {byte}, and the field before it ends at {at}"
        at += size
    assert fields[-1][2] == "records", "docs/format.md: a batch ends with its records"
    return fields


def record_fields():
    """The fields of a record, from the same page."""
    page = (ROOT / "docs/format.md").read_text()
    part = page.split("\n## Record\n")[1].split("\n## ")[0]
    return [name.strip() for name in re.findall(r"^\| ([a-z ]+)\|", part, re.M) if name.strip() != "field"]


def segment():
    """A segment's bytes: file, batch, record."""
    fields = batch_fields()
    header = fields[:-1]
    picture = Picture(860, 470, "The bytes of a segment",
                      "A segment file holds record batches one behind the other, then room that reads as zeros. A "
                      "batch has a header of 61 bytes and its records. A record has a length, deltas, key, value, "
                      "headers.")
    picture.text(24, 34, "00000000000000124416.log", "code head")
    picture.text(24, 52, "the active segment of a log; its name is the offset of its first record", "small")
    x, top = 24, 64
    for width, name in ((150, "batch 124416"), (110, "batch 124417"), (190, "batch 124418"), (96, "batch 124452")):
        picture.box(x, top, width, 36, "a", 0)
        picture.text(x + width / 2, top + 23, name, "middle code")
        x += width
    picture.box(x, top, 836 - x, 36, "d", 0)
    picture.text((x + 836) / 2, top + 23, "zeros: room reserved ahead", "middle small")
    picture.line(284, top + 36, 24, 150, "thin")
    picture.line(474, top + 36, 836, 150, "thin")

    picture.text(24, 172, "a record batch", "head")
    picture.text(836, 172, "green and blue: covered by the CRC", "small end")
    # To scale: 61 bytes over the whole width, in two rows.
    bytes_in_row = 31
    scale = 812 / bytes_in_row
    top = 182
    assert sum(size for _, size, _ in header) == 61
    short = {"partition leader epoch": "leader epoch", "producer epoch": "epoch", "attributes": "attr."}
    for at, size, name in header:
        # A field may go on in the next row.
        parts, begin, left = [], at, size
        while left:
            here = min(left, bytes_in_row - begin % bytes_in_row)
            parts.append((begin, here))
            begin, left = begin + here, left - here
        for begin, here in parts:
            row = begin // bytes_in_row
            px, py = 24 + scale * (begin % bytes_in_row), top + 58 * row
            kind = "c" if name == "CRC" else "box" if at < 21 else "b"
            picture.box(px, py, scale * here, 34, kind, 0)
        begin, here = max(parts, key=lambda part: part[1])
        px, py = 24 + scale * (begin % bytes_in_row), top + 58 * (begin // bytes_in_row)
        shown = short.get(name, name)
        is_inside = len(shown) * 6.2 < scale * here + 2
        picture.text(px + scale * here / 2, py + (21 if is_inside else -4), shown, "middle small")
        px, py = 24 + scale * (at % bytes_in_row), top + 58 * (at // bytes_in_row)
        picture.text(px + 1, py + 47, str(at), "code small")
    last = header[-1][0] + header[-1][1]
    px, py = 24 + scale * (last % bytes_in_row), top + 58
    picture.box(px, py, 836 - px, 34, "a", 0)
    picture.text(px + 1, py + 47, str(last), "code small")
    picture.box(24, top + 122, 812, 34, "a", 0)
    for n, name in enumerate(("record", "record", "record", "...")):
        picture.line(24 + 203 * (n + 1), top + 122, 24 + 203 * (n + 1), top + 156, "thin")
        picture.text(24 + 203 * (n + 0.5), top + 143, name, "middle small")
    picture.line(24, top + 156, 24, 372, "thin")
    picture.line(227, top + 156, 836, 372, "thin")

    picture.text(24, 392, "a record", "head")
    picture.text(836, 392, "lengths and deltas are varints: small numbers take one byte", "small end")
    names = record_fields()
    widths = [46 if name == "length" else 44 if name == "key" else 6.6 * len(name) + 6 for name in names]
    widths[names.index("value")] += 812 - sum(widths)
    x = 24
    for name, width in zip(names, widths):
        picture.box(x, 402, width, 34, "b" if name in ("key", "value", "headers") else "box", 0)
        picture.text(x + width / 2, 423, name, "middle small")
        x += width
    picture.text(24, 456, "Compressed batches hold all their records as one block behind the header.", "small")
    return picture.svg()


def figure(pages, name, column):
    """A cell of a row of the figures."""
    for line in pages.splitlines():
        cells = [cell.strip().strip("*") for cell in line.strip().strip("|").split(" | ")]
        if cells[0] == name:
            return cells[column]
    raise SystemExit(f"benches/README.md has no figure named {name}")


def number(words):
    """`9.42 k/s` as 9420.0."""
    value, unit = re.fullmatch(r"([\d.]+) ?([kM]?)/s", words).groups()
    return float(value) * {"": 1, "k": 1e3, "M": 1e6}[unit]


ROWS = (
    ("Sync: on the disk when the append returns", (
        ("one record of 100 bytes", "single 100B, `Sync`"),
        ("8 threads, 100 bytes each", "8 appenders, single 100B, `Sync`"),
        ("batch of 100 x 100 bytes", "batch of 100 x 100B, `Sync`"),
    )),
    ("Os: in the page cache, survives kill -9", (
        ("one record of 100 bytes", "single 100B, `Os`"),
        ("batch of 100 x 100 bytes", "batch of 100 x 100B, `Os`"),
    )),
    ("Reading, CRC checked", (
        ("scan of 100 bytes, in batches", "scan 100B, CRC checked"),
        ("scan of 100 bytes, one by one", "scan 100B written one by one, CRC checked"),
    )),
)


def figures():
    """Records a second, with what the machine allowed."""
    pages = (ROOT / "benches/README.md").read_text()
    rows = sum(len(rows) for _, rows in ROWS)
    height = 84 + 30 * rows + 34 * len(ROWS) + 44
    picture = Picture(860, height, "Records a second",
                      "Bars of records a second on a logarithmic scale, each with a mark for what the machine allowed "
                      "for the same bytes in the same run.")
    picture.text(24, 32, "Records a second", "head")
    picture.line(190, 26, 190, 36, "limit")
    picture.text(198, 35, "what the machine allowed for the same bytes in the same run", "small")
    left, right, low, high = 250, 740, 3, 9

    def across(value):
        return left + (right - left) * (math.log10(value) - low) / (high - low)

    bottom = height - 58
    for power, name in zip(range(low, high + 1), ("1 k", "10 k", "100 k", "1 M", "10 M", "100 M", "1 G")):
        x = across(10 ** power)
        picture.line(x, 52, x, bottom, "thin")
        picture.text(x, bottom + 17, name, "middle small")
    y = 50
    for group, members in ROWS:
        y += 22
        picture.text(24, y, group, "head")
        y += 10
        for name, row in members:
            measured, limit = figure(pages, row, 1), figure(pages, row, 2)
            picture.text(left - 10, y + 16, name, "end small")
            width = across(number(measured)) - left
            picture.box(left, y + 3, round(width, 1), 18, "bar", 2)
            x = round(across(number(limit)), 1)
            picture.line(x, y, x, y + 24, "limit")
            picture.text(max(left + width, x) + 8, y + 17, measured, "code")
            y += 30
    machine = re.search(r"<!-- figures: begin -->\s+(.+?), (\d+ GiB), .*?(ext4), rustc ([\d.]+).*?figures of (\S+)",
                        pages)
    assert machine, "benches/README.md does not say which machine its figures are of"
    cpu, _, disk, rust, date = machine.groups()
    picture.text(24, height - 18, f"{cpu}, {disk}, Rust {rust}, {date}. The scale is logarithmic. All rows, also those "
                 "that miss their aim: benches/README.md", "small")
    return picture.svg()


PICTURES = {"overview.svg": overview, "offsets.svg": offsets, "segment.svg": segment, "figures.svg": figures}


def main():
    is_check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not is_check:
        raise SystemExit(__doc__)
    differ = 0
    for name, draw in PICTURES.items():
        path, drawn = HERE / name, draw()
        stands = path.read_text() if path.exists() else ""
        if not is_check:
            path.write_text(drawn)
        elif stands != drawn:
            differ += 1
            print(f"BROKEN docs/pictures/{name} is not what docs/pictures/draw.py draws; run it and commit the result:")
            lines = difflib.unified_diff(stands.splitlines(), drawn.splitlines(), "committed", "drawn", n=0, lineterm="")
            print("\n".join(list(lines)[:12]))
    if is_check:
        print(f"checks: {len(PICTURES) - differ} passed, {differ} failed")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
