"""The producer."""

from .._edgelog import ProducerCore
from .._errors import Error
from ._client import Events, Handle, made, open_store, pause
from ._config import Config, check_producer
from ._errors import KafkaError, failed, text_of

# Keys that the library's producer has in other words.
NATIVE = {"acks": "acks", "compression.type": "compression.type"}
HASHED_HERE = ("consistent", "murmur2", "fnv1a", "fnv1a_random")
BATCH_BYTES_MAX = 2**31 - 1


class Producer(ProducerCore, Handle):
    """Sends records: into a store, or to brokers that it cannot reach."""

    # Of one that was not initialised.
    _transactional_id = None

    def __init__(self, *args, **kwargs):
        config = Config(args, kwargs, extra=("on_delivery",)).read()
        check_producer(config)
        self._transactional_id = config.get("transactional.id")
        self._transaction = "Init"
        self._store = open_store(config, "write")
        if self._store is not None and self._transactional_id is not None:
            raise failed(KafkaError._INVALID_ARG, "Failed to create producer: `transactional.id` is not supported by "
                         "edgelog: there are no transactions, see edgelog.producer.name")
        self._events = Events(config, "producer", self._store)
        self._events.outstanding = self.__len__
        timeout = config.get("message.timeout.ms") or BATCH_BYTES_MAX
        try:
            self._open(
                self._store,
                _native_keys(config, timeout),
                errors=made,
                outstanding_max=config.get("queue.buffering.max.messages") or BATCH_BYTES_MAX,
                record_bytes_max=config.get("message.max.bytes"),
                timeout_ms=timeout,
                only_errors=config.get("delivery.report.only.error"),
                partitioner=config.get("partitioner") if config.get("partitioner") in HASHED_HERE else None,
                on_delivery=config.callbacks.get("on_delivery"),
                tick=self._events.serve if self._events.is_needed() else None,
            )
        except Error as error:
            raise failed(error.code, f"Failed to create producer: {error}") from error

    def _handle_is_open(self):
        return self._is_open()

    def produce(self, topic, value=None, key=None, partition=-1, callback=None, on_delivery=None, timestamp=0,
                headers=None):
        """Takes a record; `callback(error, message)` is called by a later poll, flush or close."""
        if self._refuses():
            raise failed(KafkaError._STATE, "Unable to produce message: " + text_of(KafkaError._STATE))
        super().produce(topic, value, key, partition, callback, on_delivery, timestamp, headers)

    def _refuses(self):
        return self._transactional_id is not None and self._is_open()

    def produce_batch(self, topic, messages, partition=-1, callback=None, on_delivery=None):
        """Takes records, each a dict; returns how many. One that was not taken has its error as `_error`."""
        if not isinstance(topic, str):
            raise TypeError(f"argument 1 must be str, not {type(topic).__name__}")
        if not isinstance(partition, int):
            raise TypeError(f"'{type(partition).__name__}' object cannot be interpreted as an integer")
        if not isinstance(messages, list):
            raise TypeError("messages must be a list")
        for at, message in enumerate(messages):
            _check_message(at, message)
        taken = 0
        default = on_delivery if callback is None else callback
        for message in messages:
            failure = self._try_produce(
                topic, message.get("value"), message.get("key"), message.get("partition", partition),
                message.get("callback", message.get("on_delivery", default)), message.get("timestamp", 0),
                message.get("headers"))
            if failure is None:
                taken += 1
            else:
                text = text_of(failure[0])
                message["_error"] = KafkaError(failure[0], f"Message failed: {text}")
        return taken

    def close(self):
        """Waits as flush does, and ends."""
        return self._close()

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self._close()

    def _transact(self, call, timeout=None):
        if not self._is_open():
            raise RuntimeError("Producer has been closed")
        if self._transactional_id is None:
            raise failed(KafkaError._NOT_CONFIGURED,
                         "The Transactional API requires transactional.id to be configured")
        if self._transaction == "Init" and call != "init":
            raise failed(KafkaError._STATE, "Operation not valid in state Init")
        if call != "init":
            raise failed(KafkaError._CONFLICT, "Conflicting init_transactions API call is already in progress",
                         retriable=True)
        self._transaction = "InProgress"
        self._wait_in_vain(timeout)
        raise failed(KafkaError._TIMED_OUT, "Timed out waiting for operation to finish, retry call to resume",
                     retriable=True)

    def init_transactions(self, timeout=-1):
        self._transact("init", timeout)

    def begin_transaction(self):
        self._transact("begin")

    def commit_transaction(self, timeout=-1):
        self._transact("commit")

    def abort_transaction(self, timeout=-1):
        self._transact("abort")

    def send_offsets_to_transaction(self, positions, group_metadata, timeout=-1):
        if not isinstance(group_metadata, bytes):
            raise TypeError(f"expected bytes, {type(group_metadata).__name__} found")
        self._transact("send_offsets")


def _check_message(at, message):
    if not isinstance(message, dict):
        raise TypeError(f"Message at index {at} must be a dict")
    for field in ("value", "key"):
        if not isinstance(message.get(field), (bytes, str, type(None))):
            raise TypeError(f"Message {field} at index {at} must be bytes or str")
    if not isinstance(message.get("partition", -1), int):
        raise TypeError(f"Message partition at index {at} must be int")


def _native_keys(config, timeout):
    batch = config.get("batch.size")
    linger = int(config.get("linger.ms"))
    keys = {
        "acks": {0: "0", 1: "1"}.get(config.get("acks"), "all"),
        "batch.size": str(batch),
        "linger.ms": str(min(linger, timeout)),
        "delivery.timeout.ms": str(min(timeout, BATCH_BYTES_MAX)),
        "buffer.memory": str(max(config.get("queue.buffering.max.kbytes") * 1024, batch)),
        # produce never waits: a full queue is a BufferError.
        "max.block.ms": "0",
        "max.request.size": str(BATCH_BYTES_MAX),
        "allow.auto.create.topics": "true",
    }
    if config.is_set("compression.type"):
        keys["compression.type"] = config.get("compression.type")
    partitioner = config.get("partitioner")
    if partitioner == "random":
        keys["partitioner.ignore.keys"] = "true"
    keys["partitioner"] = "murmur2" if partitioner == "murmur2_random" else "consistent_random"
    keys.update(config.own)
    return keys


__all__ = ["Producer", "pause"]
