#!/usr/bin/env python3
"""Lets Kafka's consumers and edgelog's run the same scripts (groups.txt), and compares what they see.

    groups.py run                      both, with a Kafka 4.4 broker of its own
    groups.py compare KAFKA EDGELOG    what they have printed before

A check that changes what edgelog has seen in one point has to find each change (the canary).
"""

import argparse
import collections
import concurrent.futures
import copy
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import check
from check import Broken, Broker, Checks

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCRIPTS = HERE / "groups.txt"
# The newest broker, and its own client; the tools that read its files are those of the others.
VERSION = os.environ.get("EDGELOG_KAFKA_NEWEST", "4.4.0")
LIB = check.LIB.parent / f"broker-{VERSION}" / "lib"
DRIVER = os.environ.get("EDGELOG_GROUP_SCRIPT", str(check.TARGET / "debug" / "examples" / "group_script"))
RUN_SECONDS_MAX = 240
HOWS = ("owners", "moves", "shares")


class GroupBroker(Broker):
    """A broker whose groups notice soon what a script does."""

    LIB = LIB
    PROPERTIES = (
        Broker.PROPERTIES
        + """\
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=100
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.assignment.interval.ms=0
group.coordinator.append.linger.ms=0
group.share.min.heartbeat.interval.ms=100
group.share.heartbeat.interval.ms=100
group.share.assignment.interval.ms=0
group.share.min.record.lock.duration.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.append.linger.ms=0
"""
    )


# --- what the scripts say ---------------------------------------------------------------------------------------------


class Step:
    """A step of a share group's script that shows something."""

    def __init__(self, script, number, step, line):
        self.script, self.number, self.step, self.line = script, number, step, line
        # What Kafka and edgelog see, where that is not the same.
        self.differs = None

    def __str__(self):
        return f"{self.script}, point {self.number} ({SCRIPTS.name}, line {self.line}: {self.step})"


class Point:
    """What a script of a consumer group says of one of its stable points."""

    def __init__(self, script, number, how, line):
        self.script, self.number, self.how, self.line = script, number, how, line
        # Of each member: the topics that it subscribes to. Of each topic: its partitions.
        self.members, self.topics = {}, {}
        # Members that have joined since the last point, and static ones that are away.
        self.joined, self.away = set(), set()

    def __str__(self):
        return f"{self.script}, point {self.number} ({SCRIPTS.name}, line {self.line})"


def scripts_of(text):
    """The lines of each script, with their numbers; and which of them are those of share groups."""
    scripts, shares = {}, set()
    for line, said in enumerate(text.splitlines(), 1):
        step, *words = ("" if said.startswith("#") else said).split() or [""]
        if step in ("consumers", "shares"):
            script = scripts[words[0]] = []
            if step == "shares":
                shares.add(words[0])
        elif step:
            script.append((line, step, words))
    return scripts, shares


def points_of(text):
    """All that the scripts have both sides print, by script and number."""
    points, (scripts, shares) = {}, scripts_of(text)
    for script, lines in scripts.items():
        found = steps_of(script, lines) if script in shares else stable_points_of(script, lines)
        points |= {(script, point.number): point for point in found}
    return points


def steps_of(script, lines):
    steps = []
    for line, step, words in lines:
        if step in ("take", "work", "none", "answer", "commit", "close"):
            steps.append(Step(script, len(steps) + 1, " ".join([step, *words]), line))
        elif step == "differs":
            of_kafka, of_edgelog, page, *phrase = words
            if " ".join(phrase) not in (ROOT / page.rstrip(":")).read_text():
                raise Broken(f"{SCRIPTS.name}, line {line}: {page} does not say: {' '.join(phrase)}")
            steps[-1].differs = json.loads(of_kafka), json.loads(of_edgelog)
        elif step not in ("topic", "produce", "open", "crash"):
            raise Broken(f"{SCRIPTS.name}, line {line}: {step}: no such step")
    return steps


def stable_points_of(script, lines):
    points, members, topics, joined, away, static = [], {}, {}, set(), set(), set()
    for line, step, words in lines:
        if step in ("topic", "partitions"):
            topics[words[0]] = int(words[1])
        elif step in ("join", "subscribe"):
            members[words[0]] = words[1].split(",")
            if step == "join":
                joined.add(words[0])
                away.discard(words[0])
            if "static" in words[2:]:
                static.add(words[0])
        elif step in ("leave", "crash"):
            del members[words[0]]
            if step == "leave" and words[0] in static:
                away.add(words[0])
        elif step == "stable":
            point = Point(script, len(points) + 1, words[0], line)
            point.members, point.topics = copy.deepcopy((members, topics))
            point.joined, point.away, joined = joined, set(away), set()
            if point.how not in HOWS:
                raise Broken(f"{SCRIPTS.name}, line {line}: {point.how}: one of {', '.join(HOWS)} is allowed")
            points.append(point)
        else:
            raise Broken(f"{SCRIPTS.name}, line {line}: {step}: no such step")
    return points


# --- what has to hold -------------------------------------------------------------------------------------------------


def owners(seen):
    return {partition: member for member, owned in seen["owned"].items() for partition in owned}


def by_itself(point, before, seen):
    """What has to hold of one side alone, at a point and since the one before it."""
    if set(seen["owned"]) != set(point.members):
        yield f"has the members {sorted(seen['owned'])}, expected {sorted(point.members)}"
        return
    every = [partition for owned in seen["owned"].values() for partition in owned]
    if doubled := [name for name, count in collections.Counter(every).items() if count > 1]:
        yield f"{doubled} have two owners"
    topics = {topic for of in point.members.values() for topic in of}
    wanted = {f"{topic}-{n}" for topic in topics for n in range(point.topics[topic])}
    if not point.away and set(every) != wanted:
        yield f"{sorted(wanted ^ set(every))} are not owned, or not there"
    for member, owned in seen["owned"].items():
        if wrong := [name for name in owned if name.rsplit("-", 1)[0] not in point.members[member]]:
            yield f"{member} has {wrong} and subscribes to {point.members[member]}"
        had = set(before["owned"].get(member, ())) if before and member not in point.joined else set()
        for what, expected in [("assigned", set(owned) - had), ("revoked", had - set(owned)), ("lost", set())]:
            if seen[what][member] != sorted(expected):
                yield f"{member}: {what} {seen[what][member]}, expected {sorted(expected)}"


def compared(how, before, seen):
    """What is the same of both sides at a point of this kind."""
    if how == "owners":
        return {what: seen[what] for what in ("owned", "assigned", "revoked", "lost")}
    if how == "shares":
        of = {m: collections.Counter(name.rsplit("-", 1)[0] for name in owned) for m, owned in seen["owned"].items()}
        return {"partitions of each topic": {member: dict(sorted(counts.items())) for member, counts in of.items()}}
    was, now = owners(before) if before else {}, owners(seen)
    moves = collections.Counter((was.get(name, "-"), now.get(name, "-")) for name in was.keys() | now.keys())
    return {
        "partitions": {member: len(owned) for member, owned in seen["owned"].items()},
        "moved": {f"{a} to {b}": count for (a, b), count in sorted(moves.items()) if a != b},
    }


def step_problems(step, kafka, edgelog):
    """Where a step of a share group was not the same, and not different as its script says."""
    if not kafka["step"] == edgelog["step"] == step.step:
        yield f"{step}: was not done: {kafka['step']}, {edgelog['step']}"
    expected = step.differs or (kafka["seen"], kafka["seen"])
    if (kafka["seen"], edgelog["seen"]) != tuple(expected):
        words = "" if step.differs is None else f"\n  expected {step.differs}"
        yield f"{step}\n  Kafka   {kafka['seen']}\n  edgelog {edgelog['seen']}{words}"
    if step.differs and step.differs[0] == step.differs[1]:
        yield f"{step}: {step.differs} do not differ"
    if step.step.startswith("none ") and edgelog["seen"]:
        yield f"{step}: something came: {edgelog['seen']}"


def problems_of(points, kafka, edgelog):
    """Every sentence is a difference, or a rule that one side breaks."""
    sides = {"Kafka": kafka, "edgelog": edgelog}
    for name, side in sides.items():
        if missing := [str(point) for key, point in points.items() if key not in side]:
            yield f"{name} has not seen {missing}"
        if more := [key for key in side if key not in points]:
            yield f"{name} has seen {more}, which no script has"
    for (script, number), point in points.items():
        if not all((script, number) in side for side in sides.values()):
            continue
        if isinstance(point, Step):
            yield from step_problems(point, kafka[script, number], edgelog[script, number])
            continue
        found = {}
        for name, side in sides.items():
            before, seen = side.get((script, number - 1)), side[script, number]
            for problem in by_itself(point, before, seen):
                yield f"{point}: {name}: {problem}"
            found[name] = compared(point.how, before, seen)
        for what, of_kafka in found["Kafka"].items():
            if found["edgelog"][what] != of_kafka:
                yield f"{point}: {what}\n  Kafka   {of_kafka}\n  edgelog {found['edgelog'][what]}"


def read_lines(text):
    seen = {}
    for line in text.splitlines():
        one = json.loads(line)
        key = one["script"], one["point"]
        if key in seen:
            raise Broken(f"{key} was printed twice")
        seen[key] = one
    return seen


def same(points, kafka, edgelog):
    problems = list(problems_of(points, kafka, edgelog))
    if problems:
        raise Broken("\n".join(problems[:20]))
    kinds = collections.Counter(point.how for point in points.values() if isinstance(point, Point))
    steps = [point for point in points.values() if isinstance(point, Step)]
    counted = [f"{kinds[how]} points by {how}" for how in HOWS]
    differ = sum(step.differs is not None for step in steps)
    seen = [kafka[step.script, step.number]["seen"] for step in steps]
    deliveries = sum(len(said) for said in seen if isinstance(said, list))
    return ", ".join([*counted, f"{len(steps)} steps of share groups with {deliveries} deliveries, {differ} otherwise"])


# --- the canary -------------------------------------------------------------------------------------------------------


def renamed(value, names):
    """The same with other names, everywhere below."""
    if isinstance(value, dict):
        return {names.get(key, key): renamed(of, names) for key, of in value.items()}
    if isinstance(value, list):
        return sorted(names.get(one, one) for one in value)
    return value


def whole_changes(points, seen):
    """Scripts whose names were exchanged from the beginning to the end: each side is right by itself."""
    for script in sorted({point.script for point in points.values() if isinstance(point, Point)}):
        of = [point for point in points.values() if point.script == script]
        members = sorted({member for point in of for member in point.members})
        exchanged = {"exchanged members": dict(zip(members, members[1:] + members[:1]))}
        if any(point.how == "owners" and len(point.members) > 1 for point in of) and script == "range":
            exchanged["exchanged partitions"] = {"t-0": "t-4", "t-4": "t-0"}
        for what, names in exchanged.items():
            changed = copy.deepcopy(seen)
            for key, one in seen.items():
                if key[0] == script:
                    changed[key] = renamed(one, names)
            yield f"{script}: {what}", changed


def point_changes(points, seen):
    """Each point with one thing changed in it."""
    def changed(key, what, member, change):
        copied = copy.deepcopy(seen)
        change(copied[key][what], member)
        return copied

    for key, one in seen.items():
        if isinstance(points[key], Step):
            continue
        point, members = points[key], sorted(one["owned"])
        for member in members:
            if one["owned"][member]:
                stays = one["owned"][member][0]
                for what in ("revoked", "lost"):
                    said = changed(key, what, member, lambda of, m, stays=stays: of[m].append(stays))
                    yield f"{point}: {member} {what} {stays}", said
                yield f"{point}: {member} owns one less", changed(key, "owned", member, lambda of, m: of[m].pop())
            if one["assigned"][member]:
                fewer = changed(key, "assigned", member, lambda of, m: of[m].pop())
                yield f"{point}: {member} was given one less", fewer
        for a, b in zip(members, members[1:]):
            if one["owned"][a]:
                moved = changed(key, "owned", a, lambda of, a, b=b: of[b].append(of[a].pop()))
                yield f"{point}: one of {a} is {b}'s", moved
                doubled = changed(key, "owned", a, lambda of, a, b=b: of[b].append(of[a][0]))
                yield f"{point}: {b} has one of {a}, too", doubled
        gone = copy.deepcopy(seen)
        del gone[key]
        yield f"{point}: is not there", gone


def step_changes(points, seen):
    """Each step of a share group with one thing changed in it."""
    for key, step in points.items():
        if isinstance(step, Point):
            continue
        said = seen[key]["seen"]
        others = [other for other in ("ok", "refused", "InvalidRecordState") if other != said]
        if isinstance(said, list):
            # One delivery more, one less, one of another record, and one with another count.
            others = [[*said, [1000, 1]]]
            if said:
                offset, count = said[-1]
                others += [said[:-1], [*said[:-1], [offset + 1, count]], [*said[:-1], [offset, count + 1]]]
        for other in others:
            changed = copy.deepcopy(seen)
            changed[key]["seen"] = other
            yield f"{step}: {other}", changed


def canary(points, kafka, edgelog):
    changes = [*whole_changes(points, edgelog), *point_changes(points, edgelog), *step_changes(points, edgelog)]
    unchanged = list(problems_of(points, kafka, edgelog))
    unseen = [what for what, changed in changes if list(problems_of(points, kafka, changed)) == unchanged]
    if unseen or len(changes) < len(points):
        raise Broken(f"of {len(changes)} changes, these are not seen: {unseen}")
    return f"each of {len(changes)} changes is seen"


# --- what became of the records of share groups -----------------------------------------------------------------------

STATES = {0: "available", 2: "acknowledged", 4: "archived"}


def states_of(directories, scratch):
    """What Kafka's decoder prints last of each record of each group: its state and its delivery count."""
    copies = [check.copy_segments(directory, scratch) for directory in directories]
    logs = [log for copied in copies for log in check.segment_files(copied, [".log"])]
    command = ["org.apache.kafka.tools.DumpLogSegments", "--share-group-state-decoder", "--files"]
    text = check.java_ok(*command, ",".join(map(str, logs))).decode()
    states = collections.defaultdict(dict)
    for key, payload in re.findall(r"key: (\{.*?\}) payload: (\{.*\})$", text, re.MULTILINE):
        group, said = json.loads(key)["data"]["groupId"], json.loads(payload)["data"]
        for batch in said["stateBatches"]:
            for offset in range(batch["firstOffset"], batch["lastOffset"] + 1):
                states[group][offset] = f"{STATES[batch['deliveryState']]}, {batch['deliveryCount']}"
    return states


def same_states(scripts, kafka, edgelog):
    problems = []
    for script in scripts:
        offsets = sorted(kafka[script].keys() | edgelog[script].keys())
        differ = [n for n in offsets if kafka[script].get(n) != edgelog[script].get(n)]
        problems += [f"{script}, {n}: Kafka: {kafka[script].get(n)}; edgelog: {edgelog[script].get(n)}" for n in differ]
        if not offsets:
            problems.append(f"{script}: neither has any state")
    if problems:
        raise Broken("\n".join(problems[:20]))
    found = collections.Counter(state.split(",")[0] for script in scripts for state in edgelog[script].values())
    return ", ".join(f"{found[state]} {state}" for state in STATES.values())


def state_canary(scripts, kafka, edgelog):
    """Every record with another state, another count, and without a state: each is seen."""
    changes = 0
    for script in scripts:
        for offset, state in edgelog[script].items():
            words, count = state.split(", ")
            other = STATES[2] if words != STATES[2] else STATES[4]
            for changed in (f"{other}, {count}", f"{words}, {int(count) + 1}", None):
                with_it = {**edgelog, script: {**edgelog[script], offset: changed}}
                changes += 1
                try:
                    same_states(scripts, kafka, with_it)
                except Broken:
                    continue
                raise Broken(f"{script}, {offset}: {changed} in the place of {state} is not seen")
    return f"each of {changes} changes is seen"


# --- the programs -----------------------------------------------------------------------------------------------------


def output_of(command):
    done = subprocess.run(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=RUN_SECONDS_MAX,
        preexec_fn=check.die_with_parent,
        check=False,
    )
    if done.returncode != 0:
        said = f"{check.tail(done.stdout)}\n{check.tail(done.stderr, 40)}"
        raise Broken(f"{command[0]} ended with {done.returncode}\n{said}")
    return done.stdout.decode()


def of_edgelog(scratch):
    return output_of([DRIVER, scratch / "edgelog", SCRIPTS])


def of_kafka(scratch):
    # Compiled, since it starts itself again for the members that are killed.
    classes = scratch / "classes"
    output_of(["javac", "-cp", f"{LIB}/*", "-d", classes, HERE / "Groups.java"])
    with GroupBroker(scratch) as broker:
        broker.start()
        level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
        java = [*check.JAVA, "-Xmx128m", level, "-cp", f"{LIB}/*:{classes}", "Groups"]
        text = output_of([*java, broker.bootstrap, SCRIPTS])
        broker.stop()
        return text


def keep(texts, name, running):
    texts[name] = running.result()
    return f"{len(texts[name].splitlines())} lines"


def check_states(checks, scratch):
    scripts, shares = scripts_of(SCRIPTS.read_text())
    # What is said to differ there ends otherwise, too.
    shares = sorted(name for name in shares if not any(step == "differs" for _, step, _ in scripts[name]))
    of_edgelog = [scratch / "edgelog" / name / "groups" / name / "__share_group_state-0" for name in shares]
    sides = {}

    def read():
        sides["kafka"] = states_of([scratch / "data" / "__share_group_state-0"], scratch)
        sides["edgelog"] = states_of(of_edgelog, scratch)
        return f"{len(shares)} share groups"

    checks.run("Kafka's decoder reads both states", read)
    if len(sides) == 2:
        checks.run("records end the same", same_states, shares, sides["kafka"], sides["edgelog"])
        checks.run("... and a change would be seen", state_canary, shares, sides["kafka"], sides["edgelog"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("run", help="run both, and compare")
    p.add_argument("--keep", help="a directory for what both have printed")
    p = commands.add_parser("compare", help="compare what both have printed")
    p.add_argument("kafka")
    p.add_argument("edgelog")
    args = parser.parse_args()
    if args.command == "run" and not LIB.is_dir():
        parser.error(f"{LIB} is missing: `./test --only kafka` fetches Kafka's jars")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    checks, texts = Checks(), {}
    if args.command == "run":
        with tempfile.TemporaryDirectory(prefix="edgelog-groups-") as scratch:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                # Both wait most of their time.
                edgelog, kafka = (pool.submit(of, pathlib.Path(scratch)) for of in (of_edgelog, of_kafka))
                checks.run("edgelog runs the scripts", keep, texts, "edgelog", edgelog)
                checks.run(f"Kafka {VERSION} runs the scripts", keep, texts, "kafka", kafka)
            if len(texts) == 2:
                check_states(checks, pathlib.Path(scratch))
        if args.keep:
            for name, text in texts.items():
                (pathlib.Path(args.keep) / f"{name}.jsonl").write_text(text)
    else:
        texts = {name: pathlib.Path(getattr(args, name)).read_text() for name in ("kafka", "edgelog")}
    if len(texts) == 2:
        points = points_of(SCRIPTS.read_text())
        sides = points, read_lines(texts["kafka"]), read_lines(texts["edgelog"])
        checks.run("both see the same", same, *sides)
        checks.run("... and a change would be seen", canary, *sides)
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
