"""A partition, with an offset where one is asked for or answered."""

import operator

OFFSET_BEGINNING = -2
OFFSET_END = -1
OFFSET_STORED = -1000
OFFSET_INVALID = -1001


def _read_only(name):
    def refuse(self, value):
        raise AttributeError("readonly attribute")

    return property(lambda self: getattr(self, "_" + name), refuse)


class TopicPartition:
    """A topic and the number of a partition; equal, ordered and hashed by these two."""

    __slots__ = ("_topic", "_partition", "offset", "_metadata", "_leader_epoch", "_error")

    def __init__(self, topic, partition=-1, offset=OFFSET_INVALID, metadata=None, leader_epoch=None):
        if not isinstance(topic, str):
            raise TypeError(f"argument 1 must be str, not {type(topic).__name__}")
        self._topic = topic
        self._partition = operator.index(partition)
        self.offset = operator.index(offset)
        self._metadata = metadata
        self._leader_epoch = None if leader_epoch is None or leader_epoch < 0 else leader_epoch
        self._error = None

    topic = _read_only("topic")
    partition = _read_only("partition")
    metadata = _read_only("metadata")
    leader_epoch = _read_only("leader_epoch")
    error = _read_only("error")

    def _answer(self, offset=OFFSET_INVALID, error=None, leader_epoch=None, metadata=None):
        """The same partition with an answer."""
        answer = TopicPartition(self._topic, self._partition, offset, metadata, leader_epoch)
        answer._error = error
        return answer

    def __repr__(self):
        return (f"TopicPartition{{topic={self._topic},partition={self._partition},offset={self.offset},"
                f"leader_epoch={self._leader_epoch},error={self._error}}}")

    __str__ = __repr__

    def _key(self):
        return (self._topic, self._partition)

    def __hash__(self):
        return hash(self._key())

    def _compare(self, other, how):
        if not isinstance(other, TopicPartition):
            raise NotImplementedError
        return how(self._key(), other._key())

    def __eq__(self, other):
        return self._compare(other, operator.eq)

    def __ne__(self, other):
        return self._compare(other, operator.ne)

    def __lt__(self, other):
        return self._compare(other, operator.lt)

    def __le__(self, other):
        return self._compare(other, operator.le)

    def __gt__(self, other):
        return self._compare(other, operator.gt)

    def __ge__(self, other):
        return self._compare(other, operator.ge)


def partitions_of(given):
    """A list of TopicPartition, or a TypeError."""
    if not isinstance(given, list):
        raise TypeError("requires list of TopicPartition")
    for partition in given:
        one_partition(partition)
    return given


def one_partition(given):
    if not isinstance(given, TopicPartition):
        raise TypeError("expected cimpl.TopicPartition")
    return given
