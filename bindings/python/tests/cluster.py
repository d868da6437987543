"""A cluster for one test: librdkafka's mock cluster, in the process of the real confluent_kafka.

Prints its address, and ends with its standard input.
"""

import sys

from confluent_kafka import Producer

producer = Producer({"test.mock.num.brokers": 1, "log_level": 0})
# The first question about a topic makes it, with four partitions.
producer.list_topics("loop", timeout=30)
brokers = producer.list_topics(timeout=30).brokers.values()
print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
sys.stdin.read()
