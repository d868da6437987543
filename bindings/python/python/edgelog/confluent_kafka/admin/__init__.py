"""Creating, deleting and listing topics. What has no meaning here, or is not written yet, refuses by name."""

import concurrent.futures

from ..._edgelog import Store
from ..._errors import Error
from .._client import Events, Handle, open_store
from .._config import Config
from .._errors import KafkaError, failed, text_of
from .._metadata import BrokerMetadata, ClusterMetadata, PartitionMetadata, TopicMetadata
from .._new_topic import NewTopic

NOT_HERE = (
    "alter_configs", "alter_consumer_group_offsets", "alter_user_scram_credentials", "create_acls",
    "create_partitions", "delete_acls", "delete_consumer_groups", "delete_records", "describe_acls",
    "describe_cluster", "describe_configs", "describe_consumer_groups", "describe_topics",
    "describe_user_scram_credentials", "elect_leaders", "incremental_alter_configs", "list_consumer_group_offsets",
    "list_consumer_groups", "list_groups", "list_offsets",
)


class AdminClient(Handle):
    """Looks after the topics of a store."""

    def __init__(self, conf, **kwargs):
        config = Config((conf,), kwargs).read()
        self._directory = config.directory
        self._store = open_store(config, "read")
        self._events = Events(config, "producer", self._store)
        self._timeout = config.get("socket.timeout.ms") / 1000

    def _handle_is_open(self):
        return True

    def poll(self, timeout=-1):
        """Serves callbacks; returns how many."""
        return self._events.serve()

    def __len__(self):
        return 0

    def __bool__(self):
        return True

    def _change(self, names, change, timeout):
        """A future for each name, with None or what went wrong."""
        futures = {name: concurrent.futures.Future() for name in names}
        if self._store is None:
            executor = concurrent.futures.ThreadPoolExecutor(1)
            executor.submit(self._change_in_vain, futures, timeout)
            executor.shutdown(wait=False)
            return futures
        try:
            # Who changes topics writes the store for that time.
            store = Store(self._directory)
        except Error as error:
            for future in futures.values():
                future.set_exception(failed(error.code, f"{text_of(error.code)}: {error}"))
            return futures
        try:
            for name, future in futures.items():
                try:
                    change(store, name)
                    future.set_result(None)
                except Error as error:
                    future.set_exception(failed(error.code, str(error)))
        finally:
            store.close()
        return futures

    def _change_in_vain(self, futures, timeout):
        self._wait_in_vain(timeout)
        for future in futures.values():
            future.set_exception(failed(KafkaError._TIMED_OUT, "Failed while waiting for controller: "
                                        + text_of(KafkaError._TIMED_OUT)))

    def create_topics(self, new_topics, **kwargs):
        """Creates topics; a future for each name."""
        topics = {topic.topic: topic for topic in _some(new_topics, NewTopic, "NewTopic")}

        def create(store, name):
            topic = topics[name]
            partitions = 1 if topic.num_partitions == -1 else topic.num_partitions
            if partitions < 1:
                raise Error(KafkaError.INVALID_PARTITIONS, f"{partitions} partitions")
            config = {key: str(value) for key, value in (topic.config or {}).items()}
            if not kwargs.get("validate_only"):
                store.create_topic(name, partitions, config)

        return self._change(topics, create, kwargs.get("request_timeout", self._timeout))

    def delete_topics(self, topics, **kwargs):
        """Deletes topics with their records; a future for each name."""
        names = _some(topics, str, "str")
        timeout = kwargs.get("request_timeout", self._timeout)
        return self._change(names, lambda store, name: store.delete_topic(name), timeout)


def _refusal(name):
    def refuse(self, *args, **kwargs):
        raise NotImplementedError(f"edgelog has no AdminClient.{name}")

    refuse.__name__ = name
    return refuse


def _some(given, kind, name):
    if not isinstance(given, list):
        raise TypeError(f"Expected non-empty list of {name}")
    if not given:
        raise ValueError(f"Expected non-empty list of {name}")
    for one in given:
        if not isinstance(one, kind):
            raise TypeError(f"Expected list of {name}")
    return given


for _name in NOT_HERE:
    setattr(AdminClient, _name, _refusal(_name))

__all__ = ["AdminClient", "BrokerMetadata", "ClusterMetadata", "NewTopic", "PartitionMetadata", "TopicMetadata"]
