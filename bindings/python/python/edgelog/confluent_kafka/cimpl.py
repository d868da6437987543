"""What confluent_kafka has in its native module, under the same names."""

from .._edgelog import Message, consistent, fnv1a, murmur2
from ._consumer import Consumer
from ._errors import ConcurrentModificationException, IllegalStateException, KafkaError, KafkaException
from ._producer import Producer
from ._topic_partition import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, OFFSET_STORED, TopicPartition
from ._new_topic import NewTopic

TIMESTAMP_NOT_AVAILABLE = 0
TIMESTAMP_CREATE_TIME = 1
TIMESTAMP_LOG_APPEND_TIME = 2


def version():
    """The version of confluent_kafka whose surface this is."""
    return "2.16.1"


def libversion():
    """The version of librdkafka whose behaviour this is, and the same as a number."""
    return ("2.16.0", 0x021000FF)


__all__ = [
    "ConcurrentModificationException", "Consumer", "IllegalStateException", "KafkaError", "KafkaException", "Message",
    "NewTopic", "OFFSET_BEGINNING", "OFFSET_END", "OFFSET_INVALID", "OFFSET_STORED", "Producer",
    "TIMESTAMP_CREATE_TIME", "TIMESTAMP_LOG_APPEND_TIME", "TIMESTAMP_NOT_AVAILABLE", "TopicPartition", "consistent",
    "fnv1a", "libversion", "murmur2", "version",
]
