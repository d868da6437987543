"""Topics to create."""


class NewTopic:
    """A topic to create. A store has one copy of each record: replication_factor and replica_assignment are ignored."""

    def __init__(self, topic, num_partitions=-1, replication_factor=-1, replica_assignment=None, config=None):
        if not isinstance(topic, str):
            raise TypeError(f"argument 1 must be str, not {type(topic).__name__}")
        self.topic = topic
        self.num_partitions = num_partitions
        self.replication_factor = replication_factor
        self.replica_assignment = replica_assignment
        self.config = config

    def __repr__(self):
        return f"NewTopic(topic={self.topic},num_partitions={self.num_partitions})"

    def __str__(self):
        return self.topic

    def _key(self):
        return (self.topic, self.num_partitions)

    def __hash__(self):
        return hash(self._key())

    def __eq__(self, other):
        return isinstance(other, NewTopic) and self._key() == other._key()

    def __lt__(self, other):
        return self._key() < other._key()
