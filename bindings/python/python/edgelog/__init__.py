"""edgelog: Kafka's log as a library, for Python.

A `Store` is a directory with topics in it. A `Producer` sends records to it, a `Consumer` reads them. Programs that
were written for `confluent_kafka` use `edgelog.confluent_kafka` instead.
"""

from ._clients import Consumer, Producer
from ._edgelog import Message, Store, __version__
from ._errors import Error

__all__ = ["Consumer", "Error", "Message", "Producer", "Store", "__version__"]
