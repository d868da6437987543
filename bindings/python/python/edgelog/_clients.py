"""A producer and a consumer in Python's manner, over the native ones. Keys of both are those of docs/clients.md."""

from ._edgelog import ConsumerCore, ProducerCore, Store
from ._errors import made


def _opened(store, mode):
    return store if isinstance(store, Store) else Store(store, mode)


def _texts(keys):
    def text(value):
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {key: text(value) for key, value in keys.items()}


class Producer(ProducerCore):
    """Sends records without waiting, in batches.

    store: a Store, or the path of one. keys: those of the library's producer, such as {"linger.ms": 10}.
    """

    def __init__(self, store, keys=None, *, queue_max=100_000):
        self._open(_opened(store, "write"), _texts(keys or {}), errors=made, outstanding_max=queue_max,
                   record_bytes_max=2**31 - 1)

    def send(self, topic, value=None, *, key=None, partition=None, timestamp=None, headers=None, on_delivery=None):
        """Takes a record. `on_delivery(error, message)` is called by a later poll, flush or close, in that thread."""
        self.produce(topic, value, key, -1 if partition is None else partition, on_delivery, None, timestamp or 0,
                     headers)

    def close(self):
        """Appends and flushes what was sent, calls what waits for it, and ends."""
        self._close()

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.close()


class Consumer(ConsumerCore):
    """Reads topics or partitions. Iterating over it gives messages for ever; `poll` waits for one.

    store: a Store, or the path of one. keys: those of the library's consumer, such as {"group.id": "billing"}.
    """

    def __init__(self, store, keys=None):
        keys = _texts(keys or {})
        if keys.get("enable.auto.commit") == "true":
            raise ValueError("enable.auto.commit: call commit() after what was polled is processed")
        self._open(_opened(store, "read"), keys, errors=made)

    def subscribe(self, *topics):
        """Shares these topics with the other members of its group; or one pattern that begins with ^."""
        self._subscribe(list(topics))

    def assign(self, *partitions):
        """Reads these partitions, (topic, number) or (topic, number, offset), and no others."""
        self._assign([(*partition, None)[:3] for partition in partitions])

    def assignment(self):
        """The partitions that it reads, as (topic, number)."""
        return self._assignment()

    def poll(self, timeout=-1):
        """The next message, or None after `timeout` seconds; a negative one is none."""
        return self._poll(timeout)

    def consume(self, count, timeout=-1):
        """Up to `count` messages: as many as come within `timeout` seconds."""
        return self._consume(count, timeout)

    def commit(self):
        """Commits what was given out. Durable on return."""
        taken = self._take_stored()
        try:
            self._commit(taken)
        except BaseException:
            self._put_stored(taken)
            raise

    def committed(self, topic, partition=0):
        """The offset that the group reads next, or None."""
        found = self._committed([(topic, partition)])[0]
        return found and found[0]

    def position(self, topic, partition=0):
        """The offset behind the message of this partition that was given out last, or None."""
        offset = self._position(topic, partition)[0]
        return None if offset < 0 else offset

    def seek(self, topic, partition, offset):
        """The next message of this partition is the one at `offset`: -2 the first, -1 the next to come."""
        self._seek(topic, partition, offset)

    def pause(self, *partitions):
        """Polls give out nothing of these partitions, (topic, number), until they are resumed."""
        self._pause(list(partitions))

    def resume(self, *partitions):
        """Polls give out messages of these partitions again."""
        self._resume(list(partitions))

    def close(self):
        """Leaves its group and ends. Commits nothing."""
        self._close()

    def __iter__(self):
        return self

    def __next__(self):
        return self.poll()

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.close()
