"""The surface of confluent_kafka 2.16.1 over a store of edgelog.

`bootstrap.servers` names the store: `edgelog:///var/lib/app`, or a directory. Any other value is a broker, which is out
of reach here. The README of the package says what differs and what is missing.
"""

from .cimpl import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    OFFSET_STORED,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    ConcurrentModificationException,
    Consumer,
    IllegalStateException,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
    consistent,
    fnv1a,
    libversion,
    murmur2,
    version,
)
from .deserializing_consumer import DeserializingConsumer
from .serializing_producer import SerializingProducer

__version__ = version()


class ThrottleEvent:
    """A broker has delayed a client. No store does."""

    def __init__(self, broker_name, broker_id, throttle_time):
        self.broker_name = broker_name
        self.broker_id = broker_id
        self.throttle_time = throttle_time

    def __str__(self):
        return f"{self.broker_name}/{self.broker_id} throttled for {int(self.throttle_time * 1000)} ms"


__all__ = [
    "ConcurrentModificationException", "Consumer", "DeserializingConsumer", "IllegalStateException", "KafkaError",
    "KafkaException", "Message", "OFFSET_BEGINNING", "OFFSET_END", "OFFSET_INVALID", "OFFSET_STORED", "Producer",
    "SerializingProducer", "TIMESTAMP_CREATE_TIME", "TIMESTAMP_LOG_APPEND_TIME", "TIMESTAMP_NOT_AVAILABLE",
    "ThrottleEvent", "TopicPartition", "consistent", "fnv1a", "libversion", "murmur2", "version",
]
