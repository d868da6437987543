#!/usr/bin/env python3
"""Writes the figures of the last `cargo bench` into benches/README.md.

    python3 benches/table.py [--target DIR] [--print]

Reads criterion's estimates (DIR/criterion) and what the benches measured themselves (DIR/edgelog-bench); DIR is
cargo's target directory. Replaces what stands between the two marks in benches/README.md, or prints it (--print).
A figure that was not measured is shown as `-`.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
README = HERE / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
LEVEL = {"os": "`Os`", "sync": "`Sync`", "interval_1s": "`Interval` 1 s"}
SIZES = ["16B", "100B", "1KiB", "16KiB"]


def load(target):
    """All figures by id: criterion's as {"value": per second}, ours as they were written; and when they were made."""
    figures, times = {}, []
    for path in target.glob("criterion/**/new/benchmark.json"):
        about = json.loads(path.read_text())
        estimates = path.with_name("estimates.json")
        if not estimates.exists() or not about.get("throughput"):
            continue
        median_ns = json.loads(estimates.read_text())["median"]["point_estimate"]
        elements = next(iter(about["throughput"].values()))
        figures[about["full_id"]] = {"value": elements / median_ns * 1e9, "unit": "records/s"}
        times.append(estimates.stat().st_mtime)
    for path in target.glob("edgelog-bench/*.jsonl"):
        for line in path.read_text().splitlines():
            figure = json.loads(line)
            figures[figure["id"]] = figure
        times.append(path.stat().st_mtime)
    return figures, times


def rate(per_second):
    """Records a second, to three digits."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if per_second >= limit:
            return f"{per_second / limit:.3g} {unit}/s"
    return f"{per_second:.3g}/s"


def time(ns):
    for limit, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if ns >= limit:
            return f"{ns / limit:.3g} {unit}"
    return f"{ns:.0f} ns"


def size(size_bytes):
    return f"{size_bytes / 1e6:.2f} MB"


class Table:
    def __init__(self, figures):
        self.figures = figures
        self.lines = []
        self.missed = []

    def head(self, title, text=""):
        self.lines += ["", f"### {title}", ""]
        if text:
            self.lines += [text, ""]
        self.lines.append("| figure | measured | limit in the same run | ratio | aim | note |")
        self.lines.append("|---|---|---|---|---|---|")

    def row(self, name, measured="-", limit="-", ratio="-", aim="-", note=""):
        if "**" in note:
            # What misses its aim is said again, in one place.
            self.missed.append(f"- {name}: {measured}; {note.split('**')[1]} ({aim})")
        self.lines.append(f"| {name} | {measured} | {limit} | {ratio} | {aim} | {note} |")

    def get(self, name, field="value"):
        return self.figures.get(name, {}).get(field)

    def rate(self, name, figure, limit=None, aim=None, note="", times=1):
        """A row of records a second: the ratio is what we reach of the limit, a miss of the aim is said."""
        ours, most = self.get(figure), self.get(limit)
        most = most * times if most else None
        notes = [note] if note else []
        if ours and aim and ours < aim:
            notes.insert(0, f"**{ours / aim:.0%} of the aim**")
        self.row(
            name,
            rate(ours) if ours else "-",
            rate(most) if most else "-",
            f"{ours / most:.2f}" if ours and most else "-",
            rate(aim) if aim else "-",
            "; ".join(notes),
        )

    def latency(self, name, figure, limit=None, aims=None, note=""):
        """A row of p50 / p99 / p99.9: the ratio is how many times the limit's p50 ours is."""
        fields = ("p50", "p99", "p999")
        ours = [self.get(figure, field) for field in fields]
        least = [self.get(limit, field) for field in fields]
        notes = [note] if note else []
        if ours[0] is not None:
            notes.append(f"max {time(self.get(figure, 'max'))}")
            missed = [f for f, our, aim in zip(fields, ours, aims or ()) if our > aim]
            if missed:
                notes.insert(0, f"**misses the aim at {', '.join(missed)}**")
        join = lambda numbers: " / ".join(time(n) for n in numbers) if numbers[0] is not None else "-"
        ratio = f"{ours[0] / least[0]:.1f} x" if ours[0] is not None and least[0] else "-"
        aim = " / ".join(time(aim) for aim in aims) if aims else "-"
        self.row(name, join(ours), join(least), ratio, aim, "; ".join(notes))


def append_rows(table):
    table.head(
        "Appending at `Os`: page cache, survives the process, not the power",
        "Limits: encoding, CRC-32C and a copy into a map whose pages are resident (single; `fresh` in the note is the "
        "same into allocated pages never touched before, which is where an endless log writes), one `pwrite` of the "
        "encoded batch into allocated room (batches).",
    )
    single = {"16B": 20e6, "100B": 14e6, "1KiB": 2.4e6, "16KiB": 200e3}
    for name in SIZES:
        fresh = table.get(f"limit/map_copy_fresh/{name}")
        note = f"fresh {rate(fresh)}" if fresh else ""
        limit = f"limit/map_copy_resident/{name}"
        table.rate(f"single {name}, `Os`", f"append/single/os/{name}", limit, single[name], note)
    batch = {"16B": 36e6, "100B": 16e6, "1KiB": 3.5e6, "16KiB": 210e3}
    for name in SIZES:
        limit = f"limit/pwrite/batch/{name}"
        table.rate(f"batch of 100 x {name}, `Os`", f"append/batch_plain/os/{name}", limit, batch[name])
    for name in SIZES:
        limit = f"limit/pwrite/batch/{name}"
        table.rate(f"batch of 100 x {name}, snappy, `Os`", f"append/batch_snappy/os/{name}", limit, None,
                   "limit: the plain bytes")
    for threads in (2, 8):
        limit = "limit/map_copy_resident/100B"
        aim = 9e6 if threads == 2 else None
        note = "limit: one thread's"
        table.rate(f"{threads} appenders, single 100B, `Os`", f"appenders/{threads}/single/os/100B", limit, aim, note)
        limit = "limit/pwrite/batch/100B"
        aim = 16e6 if threads == 2 else None
        table.rate(f"{threads} appenders, batches 100 x 100B, `Os`", f"appenders/{threads}/batch_plain/os/100B", limit,
                   aim, note)
    for name in ("100B", "1KiB"):
        table.rate(f"sustained, segments of 16 MiB, batches 100 x {name}, `Os`", f"sustained/batch_plain/os/{name}",
                   f"sustained/limit_pwrite_fdatasync/{name}", None,
                   "the disk is the measure; limit: `pwrite` and an `fdatasync` every 16 MiB")

    table.head(
        "Appending at `Sync`: on the disk when the append returns",
        "Limits: one `fdatasync` after a `pwrite` of the same bytes (singles: of 4 KiB) into `fallocate`d room; for "
        "several appenders as many times that as there are.",
    )
    durable = {"100B": 6.5e3}
    zero_filled = table.get("limit/pwrite_fdatasync/4KiB_zero_filled")
    zero_note = f"room filled with zeros before: {rate(zero_filled)}" if zero_filled else ""
    one = "limit/pwrite_fdatasync/4KiB_fallocated"
    for name in SIZES:
        note = zero_note if name == "100B" else ""
        table.rate(f"single {name}, `Sync`", f"append/single/sync/{name}", one, durable.get(name), note)
    for threads, aim in ((2, 12e3), (8, 45e3)):
        figure = f"appenders/{threads}/single/sync/100B"
        table.rate(f"{threads} appenders, single 100B, `Sync`", figure, one, aim, "they share flushes", threads)
    batch = {"16B": 700e3, "100B": 650e3, "1KiB": 460e3, "16KiB": 100e3}
    for codec, title in (("plain", ""), ("snappy", ", snappy")):
        for name in SIZES:
            aim, note = (batch[name], "") if codec == "plain" else (None, "limit: the plain bytes")
            table.rate(f"batch of 100 x {name}{title}, `Sync`", f"append/batch_{codec}/sync/{name}",
                       f"limit/pwrite_fdatasync/batch/{name}", aim, note)
    for threads in (2, 8):
        figure = f"appenders/{threads}/batch_plain/sync/100B"
        limit = "limit/pwrite_fdatasync/batch/100B"
        title = f"{threads} appenders, batches 100 x 100B, `Sync`"
        table.rate(title, figure, limit, None, "they share flushes", threads)

    table.head("Latency of one append: p50 / p99 / p99.9", "What reading the clock costs is taken off each sample.")
    table.latency("single 100B, `Os`", "latency/append_single/os/100B", "latency/limit_map_copy/100B", (50, 150, 400))
    table.latency("single 100B, `Sync`", "latency/append_single/sync/100B")


def read_rows(table):
    table.head(
        "Reading a warm log",
        "Limits: the CRC over every batch of the same bytes in memory; without `check.crcs`, walking all records of "
        "the same bytes in memory. Records a second; every record's offset and length are looked at.",
    )
    crc = {"16B": 100e6, "100B": 60e6, "1KiB": 15e6, "16KiB": 950e3}
    nocrc = {"16B": 110e6, "100B": 90e6, "1KiB": 60e6, "16KiB": 60e6}
    for name in SIZES:
        table.rate(f"scan {name}, CRC checked", f"read/scan_batches/crc/{name}", f"limit/scan_batches/crc/{name}",
                   crc[name])
    for name in SIZES:
        table.rate(f"scan {name}, `check.crcs=false`", f"read/scan_batches/nocrc/{name}",
                   f"limit/scan_batches/decode/{name}", nocrc[name])
    table.rate("scan 100B written one by one, CRC checked", "read/scan_singles/crc/100B", "limit/scan_singles/crc/100B")
    table.rate("scan 100B written one by one, `check.crcs=false`", "read/scan_singles/nocrc/100B",
               "limit/scan_singles/decode/100B")
    table.head(
        "Finding: p50 / p99 / p99.9",
        "Limit: the place of every record known beforehand, its CRC checked, its value touched.",
    )
    for name, aim in (("16B", 300), ("100B", 300), ("1KiB", 400)):
        table.latency(f"random read by offset, {name} written one by one, CRC checked", f"random/single/crc/{name}",
                      f"random/limit/crc/{name}", (aim,))
    for check, title in (("crc", "CRC checked"), ("nocrc", "`check.crcs=false`")):
        for name in SIZES[:3]:
            table.latency(f"random read by offset, {name} in batches of 100, {title}", f"random/batch/{check}/{name}")
    table.latency("offset by time, 100B in batches of 100", "time_lookup/batches/100B")
    table.head(
        "Following: from before the append (`Os`) to the record in the other thread's hands, p50 / p99 / p99.9",
        "Limits: a word and `Thread::unpark`; a word that the other thread spins on.",
    )
    table.latency("follower parked", "follow/parked/os", "follow/limit_unpark", (15_000,))
    table.latency("follower spinning", "follow/spinning/os", "follow/limit_spinning", (300,))


def recovery_rows(table):
    table.head(
        "Opening again and appending one record at `Os`, warm",
        "Crashes as `kill -9` leaves them, in the same boot: what lies above the recovery point is read, checked, "
        "written again and flushed. Limit: one listing of a directory of so many files.",
    )
    listing = table.get("reopen/limit_list_1280")
    for stop, title in (("clean", "clean close"), ("unclean_64KiB", "crash, 64 KiB above the recovery point"),
                        ("unclean_8MiB", "crash, 8 MiB above the recovery point"),
                        ("unclean_busy", "crash while 1 GiB was written in one go")):
        for name in ("64MiB", "1GiB", "20GB"):
            figure = f"reopen/{stop}/os/{name}"
            if stop == "unclean_busy" and name != "1GiB":
                continue
            ours = table.get(figure)
            aim = "3 ms" if stop in ("clean", "unclean_64KiB") else "3 ms + writing again"
            note, measured = "", "-"
            if ours:
                measured = f"{ours:.3g} ms"
                alone, segments, checked = (table.get(figure, field) for field in ("open", "segments", "recovered"))
                note = f"open alone {alone:.3g} ms; {segments:.0f} segments, {checked:.0f} records checked"
                if aim == "3 ms" and ours > 3:
                    note = f"**misses the aim**; {note}"
            limit = f"{listing:.3g} ms (listing)" if listing and name == "20GB" else "-"
            table.row(f"{title}, {name}", measured, limit, "-", aim, note)


def wear_rows(table):
    table.head(
        "Bytes to the device, small records (200 B) over a minute",
        "Pages of 4 KiB per flush: data and metadata in place, on a device of its own; the journal's on another. "
        "Above 1.2 pages a flush is a failure; where one flush carries more than 512 B, above 1.2 times the pages "
        "that it must touch.",
    )
    for level in ("sync", "interval_1s", "os"):
        for per_second in (1, 10, 100):
            figure = f"wear/rate/{level}/{per_second}_per_s"
            value = table.get(figure)
            if value is None:
                table.row(f"{per_second} a second, {LEVEL[level]}", aim="1.2 pages a flush")
                continue
            get = lambda field: table.get(figure, field) or 0
            flushes, log = get("flushes"), get("log")
            note = f"in all {get('data') / 4096:.0f} pages for {log / 4096:.1f} pages of log, " \
                   f"{get('journal') / 4096:.0f} pages of journal"
            if not get("on_device"):
                note = "**no loop device: write_bytes of the process, no journal**; " + note
            if flushes:
                touched = log / flushes / 4096 + 1
                if value > get("most"):
                    note = f"**FAILED: above {get('most'):.2f}**; " + note
                table.row(f"{per_second} a second, {LEVEL[level]}", f"{value:.2f} pages a flush",
                          f"{touched:.2f} touched", f"{value / touched:.2f} x",
                          f"{get('most'):.2f}", f"{flushes:.0f} flushes; {note}")
            else:
                table.row(f"{per_second} a second, {LEVEL[level]}", f"{value:.2f} bytes per byte of log", "1",
                          f"{value:.2f} x", "-", f"the kernel flushes; {note}")
    table.head("Bytes to the device per byte of payload, durable batches of 100 (`Sync`)")
    aims = {"plain": {"16B": 4.0, "1KiB": 1.05}, "snappy": {"16B": 1.5, "1KiB": 0.25}}
    for codec in ("plain", "snappy"):
        for name in ("1KiB", "16B"):
            figure, aim = f"wear/batch_{codec}/sync/{name}", aims[codec][name]
            value = table.get(figure)
            if value is None:
                table.row(f"100 x {name}, {codec}", aim=f"{aim}")
                continue
            get = lambda field: table.get(figure, field) or 0
            touched = (get("log") + get("flushes") * 4096) / get("payload")
            note = f"with the journal {(get('data') + get('journal')) / get('payload'):.2f}"
            if name == "16B":
                note += f"; a page a flush is {4096 / 1600:.2f} by itself"
            if value > aim * 1.005:
                note = f"**{value / aim:.1f} times the aim**; {note}"
            table.row(f"100 x {name}, {codec}", f"{value:.2f}", f"{touched:.2f} (pages touched)",
                      f"{value / touched:.2f} x", f"{aim}", note)


def memory_rows(table):
    table.head("Memory of the process's own (anonymous, without the page cache), most beyond what it began with")
    for name in SIZES[:3]:
        value = table.get(f"memory/append_single/os/{name}")
        table.row(f"appending single {name}, `Os`", size(value) if value else "-", aim="4 MB")
    for what, title in (("read_clean", "opening and reading all of"), ("open_unclean", "opening after a crash")):
        figure = f"memory/{what}/20GB"
        value = table.get(figure)
        note = f"at most {table.get(figure, 'files'):.0f} descriptors (64 allowed)" if value else ""
        table.row(f"{title} 20 GB in 1,280 segments", size(value) if value else "-", aim="8 MiB", note=note)


def machine(times):
    """One line about where the figures were made."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    directory = os.environ.get("EDGELOG_BENCH_DIR") or os.environ.get("TMPDIR") or "/tmp"
    run = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()
    file_system = run("findmnt", "-n", "-o", "FSTYPE", "-T", directory) or run("stat", "-f", "-c", "%T", directory)
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal"))
    day = lambda at: datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")
    made = f"{day(min(times))} to {day(max(times))} UTC" if times else "not yet run"
    return (f"{os.cpu_count()} x {cpu}, {memory / (1 << 20):.0f} GiB, Linux {platform.release()}, {file_system}, "
            f"{run('rustc', '--version')}; figures of {made}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("CARGO_TARGET_DIR") or HERE.parent / "target"
    parser.add_argument("--target", type=pathlib.Path, default=pathlib.Path(default), metavar="DIR")
    parser.add_argument("--print", action="store_true")
    args = parser.parse_args()
    figures, times = load(args.target)
    table = Table(figures)
    for rows in (append_rows, read_rows, recovery_rows, wear_rows, memory_rows):
        rows(table)
    lines = [BEGIN, "", machine(times) if times else "Not yet run."] + table.lines
    if times:
        lines += ["", "### Where we miss what we aim at", ""] + (table.missed or ["Nowhere in this run."])
    text = "\n".join(lines + ["", END])
    if args.print:
        print(text)
        return
    readme = README.read_text()
    if BEGIN not in readme or END not in readme:
        sys.exit(f"{README} lacks the marks {BEGIN} and {END}")
    README.write_text(readme[: readme.index(BEGIN)] + text + readme[readme.index(END) + len(END):])
    print(f"{len(figures)} figures from {args.target} in {README}")


if __name__ == "__main__":
    main()
