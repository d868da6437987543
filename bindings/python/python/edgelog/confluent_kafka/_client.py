"""What producers, consumers and admin clients share: their store, events, and what is known of topics."""

import itertools
import json
import logging
import time

from .._edgelog import Store
from .._errors import Error
from ._errors import KafkaError, KafkaException, failed, text_of
from ._metadata import BrokerMetadata, ClusterMetadata, PartitionMetadata, TopicMetadata

_numbers = itertools.count(1)
# The one broker that a store is.
BROKER = 1


def open_store(config, mode):
    """The store that a configuration names, or None for brokers."""
    if config.directory is None:
        return None
    try:
        return Store(config.directory, mode)
    except Error as error:
        raise failed(error.code, f"{config.directory}: {error}") from error


def made(code, text, retriable, raises):
    """For the native module: what `produce` raises, and what a message says instead of a record."""
    known = text_of(code)
    full = text if text == known or code == KafkaError._PARTITION_EOF else (
        known if code in PLAIN else f"{known}: {text}")
    if not raises:
        return KafkaError(code, full, retriable=retriable)
    return KafkaException(KafkaError(code, f"Unable to produce message: {full}", retriable=retriable))


# What librdkafka's own text says in full.
PLAIN = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._UNKNOWN_PARTITION, KafkaError._MSG_TIMED_OUT,
         KafkaError._PURGE_QUEUE, KafkaError._QUEUE_FULL)


def pause(seconds):
    """Waits; what Ctrl-C raises comes at once."""
    time.sleep(max(seconds, 0))


class Events:
    """What a client says to its program besides records: errors, statistics, logs."""

    def __init__(self, config, kind, store):
        self.kind = kind
        self.name = f"{config.get('client.id', 'rdkafka')}#{kind}-{next(_numbers)}"
        self.client_id = config.get("client.id")
        self.started = time.monotonic()
        self.error_cb = config.callbacks.get("error_cb")
        self.stats_cb = config.callbacks.get("stats_cb")
        self.interval = config.get("statistics.interval.ms") / 1000
        self.said = self.started
        self.outstanding = lambda: 0
        self.queue_max = config.get("queue.buffering.max.messages")
        self.pending = []
        hosts = [host.strip() for host in config.servers.split(",") if host.strip()] if store is None else []
        for host in hosts:
            text = f"{host}/bootstrap: edgelog connects to no broker: bootstrap.servers may name a directory"
            self.pending.append(KafkaError(KafkaError._TRANSPORT, text))
        if hosts:
            text = f"{len(hosts)}/{len(hosts)} brokers are down"
            self.pending.append(KafkaError(KafkaError._ALL_BROKERS_DOWN, text))
        logger = config.callbacks.get("logger")
        self.log = None
        if logger is not None and config.is_set("debug"):
            self.log = lambda: logger.log(logging.DEBUG, f"INIT [{self.name}] [thrd:app]: edgelog opened {self.name}")

    def is_needed(self):
        return bool(self.error_cb or self.log or (self.stats_cb and self.interval))

    def serve(self):
        """Says what is due; returns how much that was."""
        served = 0
        if self.log:
            log, self.log = self.log, None
            log()
        if self.error_cb:
            while self.pending:
                served += 1
                self.error_cb(self.pending.pop(0))
        if self.stats_cb and self.interval and time.monotonic() - self.said >= self.interval:
            self.said = time.monotonic()
            served += 1
            self.stats_cb(self.statistics())
        return served

    def statistics(self):
        now = time.monotonic()
        return json.dumps({
            "name": self.name, "client_id": self.client_id, "type": self.kind, "ts": int(now * 1e6),
            "time": int(time.time()), "age": int((now - self.started) * 1e6), "replyq": 0,
            "msg_cnt": self.outstanding(), "msg_max": self.queue_max, "brokers": {}, "topics": {},
        })


def cluster_metadata(store, path, topic):
    """The topics of a store as list_topics gives them."""
    metadata = ClusterMetadata()
    metadata.cluster_id = f"edgelog://{path}"
    metadata.controller_id = BROKER
    metadata.brokers = {BROKER: BrokerMetadata()}
    metadata.brokers[BROKER].id, metadata.brokers[BROKER].host, metadata.brokers[BROKER].port = BROKER, "edgelog", 0
    metadata.orig_broker_id, metadata.orig_broker_name = BROKER, f"edgelog/{BROKER}"
    try:
        topics = store.topics()
    except Error as error:
        raise failed(error.code, f"Failed to get metadata: {error}") from error
    if topic is not None:
        topics = {topic: topics.get(topic, 0)}
    for name, partitions in topics.items():
        of_topic = TopicMetadata()
        of_topic.topic = name
        if not partitions:
            of_topic.error = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        for number in range(partitions):
            partition = PartitionMetadata()
            partition.id, partition.leader = number, BROKER
            partition.replicas, partition.isrs = [BROKER], [BROKER]
            of_topic.partitions[number] = partition
        metadata.topics[name] = of_topic
    return metadata


class Handle:
    """The calls that every client has."""

    _store = None
    _events = None

    def _handle_is_open(self):
        raise NotImplementedError

    def _check_handle(self):
        if not self._handle_is_open():
            raise RuntimeError("Handle has been closed")

    def list_topics(self, topic=None, timeout=-1):
        """The topics of the store."""
        self._check_handle()
        if self._store is None:
            self._wait_in_vain(timeout)
            raise failed(KafkaError._TRANSPORT, "Failed to get metadata: " + text_of(KafkaError._TRANSPORT))
        return cluster_metadata(self._store, self._store.path, topic)

    def cluster_id(self, timeout=-1):
        """The store's own name for itself: its directory."""
        self._check_handle()
        if self._store is None:
            self._wait_in_vain(timeout)
            raise failed(KafkaError._TIMED_OUT, "Failed to retrieve cluster id: Local: Timed out. The broker must "
                         "support KIP-78 (>= 0.10.1) for the cluster id to be available.")
        return f"edgelog://{self._store.path}"

    def set_sasl_credentials(self, username, password):
        """Accepted, and without effect: there is no broker."""
        for at, given in enumerate((username, password), 1):
            if not isinstance(given, str):
                kind = "None" if given is None else type(given).__name__
                raise TypeError(f"argument {at} must be str, not {kind}")
        self._check_handle()

    def _wait_in_vain(self, timeout):
        """As long as librdkafka waits for a broker."""
        end = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        while end is None or time.monotonic() < end:
            pause(0.1 if end is None else min(0.1, end - time.monotonic()))
