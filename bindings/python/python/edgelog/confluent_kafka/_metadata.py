"""What list_topics answers."""


class ClusterMetadata:
    """The brokers and topics of a cluster."""

    def __init__(self):
        self.cluster_id = None
        self.controller_id = -1
        self.brokers = {}
        self.topics = {}
        self.orig_broker_id = -1
        self.orig_broker_name = None

    def __repr__(self):
        return f"ClusterMetadata({self.cluster_id})"

    def __str__(self):
        return str(self.cluster_id)


class BrokerMetadata:
    """One broker."""

    def __init__(self):
        self.id = -1
        self.host = None
        self.port = -1

    def __repr__(self):
        return f"BrokerMetadata({self.id}, {self.host}:{self.port})"

    def __str__(self):
        return f"{self.host}:{self.port}/{self.id}"


class TopicMetadata:
    """One topic."""

    def __init__(self):
        self.topic = None
        self.partitions = {}
        self.error = None

    def __repr__(self):
        what = self.error if self.error is not None else f"{len(self.partitions)} partitions"
        return f"TopicMetadata({self.topic}, {what})"

    def __str__(self):
        return str(self.topic)


class PartitionMetadata:
    """One partition of a topic."""

    def __init__(self):
        self.id = -1
        self.leader = -1
        self.replicas = []
        self.isrs = []
        self.error = None

    def __repr__(self):
        return f"PartitionMetadata({self.id})" if self.error is None else f"PartitionMetadata({self.id}, {self.error})"

    def __str__(self):
        return str(self.id)
