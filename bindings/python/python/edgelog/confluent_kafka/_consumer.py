"""The consumer."""

import collections
import time

from .._edgelog import ConsumerCore, Message
from .._errors import Error
from ._client import Events, Handle, made, open_store, pause
from ._config import Config, check_consumer
from ._errors import KafkaError, failed, text_of
from ._topic_partition import OFFSET_INVALID, OFFSET_STORED, TopicPartition, one_partition, partitions_of

RESETS = {"smallest": "earliest", "earliest": "earliest", "beginning": "earliest", "largest": "latest",
          "latest": "latest", "end": "latest", "error": "none"}


def _said(code, what):
    """An exception with librdkafka's own text for a code."""
    return failed(code, f"{what}: {text_of(code)}")


class Consumer(ConsumerCore, Handle):
    """Reads topics with a group, or partitions of its own choice."""

    # Of one that was not initialised.
    _is_up = False
    _has_events = False
    _waiting = _extra = ()

    def __init__(self, *args, **kwargs):
        config = Config(args, kwargs, extra=("on_commit",))
        if not config.given.get("group.id"):
            raise ValueError("Failed to create consumer: group.id must be set")
        config.read()
        check_consumer(config)
        self._group = config.get("group.id")
        self._on_commit = config.callbacks.get("on_commit")
        self._listeners = {}
        self._auto_store = config.get("enable.auto.offset.store")
        self._commits = config.get("enable.auto.commit") and config.get("auto.commit.interval.ms") > 0
        self._store = open_store(config, "read")
        self._events = Events(config, "consumer", self._store)
        self._has_events = self._events.is_needed()
        # Callbacks that wait for a poll, and messages that are no records.
        self._waiting = collections.deque()
        self._extra = collections.deque()
        self._subscribed = []
        self._assigned = {}
        self._creates = config.get("allow.auto.create.topics")
        if self._store is not None:
            try:
                self._open(self._store, _native_keys(config), errors=made, auto_store=self._auto_store,
                           auto_commit_interval_ms=config.get("auto.commit.interval.ms") if self._commits else None,
                           says_ends=config.get("enable.partition.eof"))
            except Error as error:
                raise failed(error.code, f"Failed to create consumer: {error}") from error
        self._is_up = True

    def _handle_is_open(self):
        return self._is_up

    def _check(self):
        if not self._is_up:
            raise RuntimeError("Consumer closed")

    # What is read.

    def subscribe(self, topics, on_assign=None, on_revoke=None, on_lost=None):
        """Shares topics with the other members of the group; a name that begins with ^ is a pattern."""
        self._check()
        if not isinstance(topics, list):
            raise TypeError("expected list of topic unicode strings")
        listeners = {"on_assign": on_assign, "on_revoke": on_revoke, "on_lost": on_lost}
        for name, listener in listeners.items():
            if listener is not None and not callable(listener):
                raise TypeError(f"{name} expects a callable")
        names = [str(topic) for topic in topics]
        if not names or not all(names):
            raise _said(KafkaError._INVALID_ARG, "Failed to set subscription")
        if self._store is not None:
            if self._assigned and not self._subscribed:
                self._native("Failed to set subscription", self._assign, [])
            try:
                self._subscribe(_one_pattern(names))
            except Error as error:
                raise _said(KafkaError._INVALID_ARG, "Failed to set subscription") from error
            self._miss(names)
        self._listeners = listeners
        self._subscribed = names
        self._assigned = {} if self._store is None else self._assigned

    def _miss(self, names):
        """Topics that are not there are said by a poll."""
        if self._creates:
            return
        there = self._store.topics()
        for name in names:
            if not name.startswith("^") and name not in there:
                text = f"Subscribed topic not available: {name}: {text_of(KafkaError.UNKNOWN_TOPIC_OR_PART)}"
                self._say(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, text), name, 0)

    def _say(self, error, topic, partition):
        message = Message(topic=topic, partition=partition, value=error.str().encode(), error=error, timestamp=(0, -1))
        self._extra.append(message)

    def unsubscribe(self):
        """Gives up what was subscribed to or assigned."""
        self._check()
        if self._store is not None:
            self._commit_due(self._auto_offsets())
            self._unsubscribe()
        revoked, self._assigned = self._assigned, {}
        if revoked and self._subscribed and self._listeners.get("on_revoke"):
            partitions = [TopicPartition(*name) for name in sorted(revoked)]
            on_revoke = self._listeners["on_revoke"]
            self._waiting.append(lambda: on_revoke(self, partitions))
        self._subscribed = []
        self._extra.clear()

    def assign(self, partitions):
        """Reads these partitions, each from its offset where it has one, and no others."""
        self._check()
        wanted = {partition._key(): partition.offset for partition in partitions_of(partitions)}
        if len(wanted) != len(partitions):
            raise _said(KafkaError._INVALID_ARG, "Failed to set assignment")
        self._set_assignment(wanted)

    def incremental_assign(self, partitions):
        """Reads these partitions, too."""
        self._check()
        wanted = {}
        for partition in partitions_of(partitions):
            topic, number = partition._key()
            if partition._key() in self._assigned:
                # In a rebalance they were given out already.
                if self._subscribed:
                    continue
                raise failed(KafkaError._CONFLICT, f"{topic} [{number}] is already part of the current assignment")
            wanted[partition._key()] = partition.offset
        self._set_assignment({**self._assigned, **wanted})

    def unassign(self):
        """Reads nothing."""
        self._check()
        self._set_assignment({})

    def incremental_unassign(self, partitions):
        """Does not read these partitions any more."""
        self._check()
        left = dict(self._assigned)
        for partition in partitions_of(partitions):
            topic, number = partition._key()
            if left.pop(partition._key(), None) is None:
                raise failed(KafkaError._INVALID_ARG,
                             f"{topic} [{number}] can't be unassigned since it is not in the current assignment")
        self._set_assignment(left)

    def _set_assignment(self, wanted):
        if self._store is not None:
            if self._subscribed:
                wanted = self._keep_to_group(wanted)
            else:
                self._native("Failed to set assignment", self._assign, self._with_offsets(wanted))
        self._assigned = wanted

    def _with_offsets(self, wanted):
        there = self._store.topics()
        partitions = []
        for (topic, number), offset in wanted.items():
            if not 0 <= number < there.get(topic, 0):
                code = KafkaError.UNKNOWN_TOPIC_OR_PART
                text = f'Failed to fetch committed offset for group "{self._group}" topic {topic} [{number}]: '
                self._say(KafkaError(code, text + text_of(code)), topic, number)
                continue
            is_new = self._assigned.get((topic, number)) != offset
            partitions.append((topic, number, offset if is_new and offset >= -2 else None))
        return partitions

    def _keep_to_group(self, wanted):
        """In a subscription the group gives partitions out; assign says where to begin, and what to leave alone."""
        for (topic, number), offset in wanted.items():
            if (topic, number) in self._assigned and offset >= -2:
                self._native("Failed to set assignment", self._seek, topic, number, offset)
        left_alone = [name for name in self._assigned if name not in wanted]
        if left_alone:
            self._native("Failed to set assignment", self._pause, left_alone)
        return {name: wanted.get(name, OFFSET_INVALID) for name in self._assigned}

    def assignment(self):
        """The partitions that it reads."""
        self._check()

        def shown(offset):
            return OFFSET_STORED if offset == OFFSET_INVALID else offset

        return [TopicPartition(*name, shown(self._assigned[name])) for name in sorted(self._assigned)]

    def _rebalance(self, what, partitions):
        """Called in the middle of a poll."""
        given = [TopicPartition(topic, number) for topic, number in partitions]
        if what == "assign":
            self._assigned.update((name, OFFSET_INVALID) for name in partitions)
            if self._listeners.get("on_assign"):
                self._listeners["on_assign"](self, given)
            return
        on_lost = self._listeners.get("on_lost") if what == "lost" else None
        listener = on_lost or self._listeners.get("on_revoke")
        try:
            if listener:
                listener(self, given)
        finally:
            gone = set(partitions)
            if what == "revoke":
                self._commit_due([offset for offset in self._auto_offsets() if offset[:2] in gone])
            self._forget(partitions)
            for name in partitions:
                self._assigned.pop(tuple(name), None)

    # Records.

    def poll(self, timeout=-1):
        """The next message, or None after `timeout` seconds."""
        if self._waiting or self._extra or self._has_events or self._store is None:
            messages = self._poll_slowly(1, timeout)
            return messages[0] if messages else None
        return self._poll(timeout)

    def consume(self, num_messages=1, timeout=-1):
        """Up to `num_messages` messages: as many as come within `timeout` seconds."""
        self._check()
        if not isinstance(num_messages, int):
            raise TypeError(f"'{type(num_messages).__name__}' object cannot be interpreted as an integer")
        if not 0 <= num_messages <= 1_000_000:
            raise ValueError("num_messages must be between 0 and 1000000 (1M)")
        if self._waiting or self._extra or self._has_events or self._store is None:
            return self._poll_slowly(num_messages, timeout)
        return self._consume(num_messages, timeout)

    def _poll_slowly(self, count, timeout):
        """As poll, with everything else that waits to be said."""
        self._check()
        if not isinstance(timeout, (int, float)):
            raise TypeError(f"must be real number, not {type(timeout).__name__}")
        end = None if timeout < 0 else time.monotonic() + timeout
        messages = []
        while True:
            self._serve()
            while self._extra and len(messages) < count:
                messages.append(self._extra.popleft())
            left = 0.1 if end is None else min(0.1, max(0, end - time.monotonic()))
            if len(messages) < count:
                if self._store is not None:
                    messages += self._consume(count - len(messages), left if not messages else 0)
                elif not messages:
                    pause(left)
            if messages or count == 0 or (end is not None and time.monotonic() >= end):
                return messages

    def _serve(self):
        while self._waiting:
            self._waiting.popleft()()
        if self._has_events:
            self._events.serve()

    def seek(self, partition):
        """The next message of a partition is the one at its offset."""
        self._check()
        topic, number = one_partition(partition)._key()
        what = f"Failed to seek to offset {partition.offset}"
        if (topic, number) not in self._assigned:
            raise _said(KafkaError._UNKNOWN_PARTITION, what)
        if self._store is None:
            raise _said(KafkaError._STATE, what)
        self._native(what, self._seek, topic, number, partition.offset)

    def pause(self, partitions):
        """Polls give out nothing of these partitions until they are resumed."""
        self._check()
        self._set_paused(partitions, self._pause)

    def resume(self, partitions):
        """Polls give out messages of these partitions again."""
        self._check()
        self._set_paused(partitions, self._resume)

    def _set_paused(self, partitions, call):
        names = [partition._key() for partition in partitions_of(partitions)]
        names = [name for name in names if name in self._assigned]
        if self._store is not None and names:
            self._native("Failed to pause or resume", call, names)

    # Positions.

    def position(self, partitions):
        """Behind the message of each partition that was given out last."""
        self._check()
        answers = []
        for partition in partitions_of(partitions):
            offset, epoch = (OFFSET_INVALID, -1) if self._store is None else self._position(*partition._key())
            answers.append(partition._answer(offset, leader_epoch=epoch))
        return answers

    def committed(self, partitions, timeout=-1):
        """What the group has committed."""
        self._check()
        names = [partition._key() for partition in partitions_of(partitions)]
        what = "Failed to get committed offsets"
        if self._store is None:
            self._wait_in_vain(timeout)
            raise _said(KafkaError._TIMED_OUT, what)
        found = self._native(what, self._committed, names)
        return [partition._answer(*((at[0], None, at[1], at[2]) if at else ()))
                for partition, at in zip(partitions, found)]

    def get_watermark_offsets(self, partition, timeout=-1, cached=False):
        """The first offset of a partition, and the one behind its last."""
        self._check()
        topic, number = one_partition(partition)._key()
        what = "Failed to get watermark offsets"
        if self._store is None:
            if cached:
                return (OFFSET_INVALID, OFFSET_INVALID)
            self._wait_in_vain(timeout)
            raise _said(KafkaError._ALL_BROKERS_DOWN, what)
        if not 0 <= number < self._store.topics().get(topic, 0):
            if cached:
                return (OFFSET_INVALID, OFFSET_INVALID)
            raise _said(KafkaError._UNKNOWN_PARTITION, what)
        return self._native(what, self._store.offsets, topic, number)

    def offsets_for_times(self, partitions, timeout=-1):
        """The first offset of each partition with the time that stands as its offset, or a later one."""
        self._check()
        what = "Failed to get offsets"
        if not partitions_of(partitions):
            raise _said(KafkaError._INVALID_ARG, what)
        if self._store is None:
            self._wait_in_vain(timeout)
            raise _said(KafkaError._ALL_BROKERS_DOWN, what)
        found = self._native(what, self._offsets_for_times, [(*p._key(), p.offset) for p in partitions])
        return [p._answer(-1 if offset is None else offset) for p, offset in zip(partitions, found)]

    def store_offsets(self, message=None, offsets=None):
        """Stores offsets for the next commit."""
        self._check()
        if message is not None and offsets is not None:
            raise ValueError("message and offsets are mutually exclusive")
        if message is None and offsets is None:
            raise ValueError("expected either message or offsets")
        positions = _of_message(message, "store") if message is not None else partitions_of(offsets)
        what = "StoreOffsets failed"
        if self._auto_store:
            raise _said(KafkaError._INVALID_ARG, what)
        if any(position._key() not in self._assigned for position in positions):
            raise _said(KafkaError._UNKNOWN_PARTITION, what)
        for position in positions:
            if self._store is not None and position.offset >= 0:
                epoch = -1 if position.leader_epoch is None else position.leader_epoch
                self._keep(*position._key(), position.offset, epoch, position.metadata or "")

    def commit(self, message=None, offsets=None, asynchronous=True):
        """Commits what was stored, or behind a message, or these offsets."""
        self._check()
        if message is not None and offsets is not None:
            raise ValueError("message and offsets are mutually exclusive")
        if message is not None:
            positions = _of_message(message, "commit")
        elif offsets is not None:
            positions = partitions_of(offsets)
        else:
            positions = None
        try:
            done = self._commit_positions(positions)
            error = None
        except _CommitFailed as failure:
            done, error = failure.partitions, failure.error
            if not asynchronous:
                raise failed(error.code(), "Commit failed: " + error.str()) from None
        if not asynchronous:
            return done
        self._said_commit(error, done)
        return None

    def _said_commit(self, error, partitions):
        if self._on_commit is not None:
            on_commit = self._on_commit
            self._waiting.append(lambda: on_commit(error, partitions))

    def _commit_positions(self, positions):
        if positions is None:
            taken = self._take_stored() if self._store is not None else []
            taken = [offset for offset in taken if offset[:2] in self._assigned]
            stored = {offset[:2]: offset for offset in taken}
            done = [TopicPartition(*name, *(stored[name][2:3] if name in stored else ()))
                    for name in sorted(self._assigned)]
            if not taken:
                raise _CommitFailed(KafkaError(KafkaError._NO_OFFSET), done)
        else:
            taken = [(*p._key(), p.offset, -1 if p.leader_epoch is None else p.leader_epoch, p.metadata or "")
                     for p in positions if p.offset >= 0]
            done = [p._answer(p.offset, leader_epoch=p.leader_epoch, metadata=p.metadata) for p in positions]
            if not taken:
                raise _CommitFailed(KafkaError(KafkaError._NO_OFFSET), done)
        if self._store is None:
            raise _CommitFailed(KafkaError(KafkaError._WAIT_COORD), done)
        try:
            self._commit(taken)
        except Error as error:
            if positions is None:
                self._put_stored(taken)
            known = text_of(error.code)
            raise _CommitFailed(KafkaError(error.code, f"{known}: {error}"), done) from error
        return done

    def _auto_offsets(self):
        return self._take_stored() if self._commits and self._store is not None else []

    def _auto_commit(self):
        """Called by the native part when a commit is due."""
        self._commit_due(self._auto_offsets())

    def _commit_due(self, offsets):
        if not offsets:
            return
        partitions = [TopicPartition(*offset[:3]) for offset in offsets]
        try:
            self._commit(offsets)
            error = None
        except Error as failure:
            self._put_stored(offsets)
            error = KafkaError(failure.code, f"{text_of(failure.code)}: {failure}")
        self._said_commit(error, partitions)

    def consumer_group_metadata(self):
        """The group, as a transaction names it."""
        self._check()
        return b"CGMDv2:\xff\xff\xff\xff" + self._group.encode() + b"\x00\x00\x01"

    def memberid(self):
        """Its id as a member of its group."""
        self._check()
        return None if self._store is None else self._member_id()

    def close(self):
        """Commits where that is automatic, gives its partitions up, and ends."""
        if not self._is_up:
            return
        try:
            if self._store is not None and self._is_open():
                self._end()
        finally:
            self._is_up = False
            if self._store is not None:
                self._close()
                self._store.close()
        while self._waiting:
            self._waiting.popleft()()

    def _end(self):
        revoked = [TopicPartition(*name) for name in sorted(self._assigned)]
        try:
            if self._subscribed and revoked and self._listeners.get("on_revoke"):
                self._listeners["on_revoke"](self, revoked)
        finally:
            self._commit_due(self._auto_offsets())

    def _native(self, what, call, *given):
        """A call of the native part, with its error as confluent_kafka has it."""
        try:
            return call(*given)
        except (Error, ValueError, OverflowError) as error:
            code = getattr(error, "code", KafkaError._INVALID_ARG)
            raise failed(code, f"{what}: {text_of(code)}: {error}") from error

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.close()


class _CommitFailed(Exception):
    def __init__(self, error, partitions):
        super().__init__(error)
        self.error = error
        self.partitions = partitions


def _of_message(message, what):
    """Behind a message, as offsets."""
    if not isinstance(message, Message):
        raise TypeError("expected confluent_kafka.cimpl.Message")
    error = message.error()
    if error is not None:
        raise failed(KafkaError._INVALID_ARG, f"Cannot {what} offsets for message with error: '{error.str()}'")
    offset = OFFSET_INVALID if message.offset() is None else message.offset() + 1
    partition = -1 if message.partition() is None else message.partition()
    return [TopicPartition(message.topic(), partition, offset, leader_epoch=message.leader_epoch())]


def _one_pattern(names):
    """Names as the library subscribes to them: all without a pattern, or one pattern for all."""
    if not any(name.startswith("^") for name in names):
        return names
    parts = []
    for name in names:
        if not name.startswith("^"):
            parts.append(name.replace(".", "\\."))
        elif name.endswith("$"):
            parts.append(f"({name[1:-1]})")
        else:
            # librdkafka's patterns may end before the name does.
            parts.append(f"({name[1:]}).*")
    return ["^" + "|".join(parts)]


def _native_keys(config):
    keys = {
        "group.id": str(config.get("group.id")),
        "auto.offset.reset": RESETS[config.get("auto.offset.reset")],
        "isolation.level": config.get("isolation.level"),
        "max.poll.interval.ms": str(config.get("max.poll.interval.ms")),
        "max.partition.fetch.bytes": str(config.get("max.partition.fetch.bytes")),
        "fetch.max.bytes": str(max(config.get("fetch.max.bytes"), 1)),
    }
    if config.is_set("group.instance.id"):
        keys["group.instance.id"] = config.get("group.instance.id")
    if config.get("group.remote.assignor") in ("uniform", "range"):
        keys["group.remote.assignor"] = config.get("group.remote.assignor")
    if config.is_set("client.id"):
        keys["client.id"] = config.get("client.id")
    keys.update(config.own)
    return keys
