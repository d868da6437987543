"""Errors of producers and consumers that serialize."""

from ._errors import KafkaError, KafkaException
from .serialization import SerializationError


class _KafkaClientError(KafkaException):
    """Holds a KafkaError, what has caused it, and the message that it is of."""

    def __init__(self, kafka_error, exception=None, kafka_message=None):
        super().__init__(kafka_error)
        self.exception = exception
        self.kafka_message = kafka_message

    @property
    def code(self):
        return self.args[0].code()

    @property
    def name(self):
        return self.args[0].name()


class ConsumeError(_KafkaClientError):
    """A message could not be consumed."""


class ProduceError(_KafkaClientError):
    """A message could not be produced."""

    def __init__(self, kafka_error, exception=None):
        super().__init__(kafka_error, exception, None)


def _reason(exception):
    return None if exception is None else str(exception)


class KeyDeserializationError(ConsumeError, SerializationError):
    """The key of a message could not be read."""

    def __init__(self, exception=None, kafka_message=None):
        super().__init__(KafkaError(KafkaError._KEY_DESERIALIZATION, _reason(exception)), exception, kafka_message)


class ValueDeserializationError(ConsumeError, SerializationError):
    """The value of a message could not be read."""

    def __init__(self, exception=None, kafka_message=None):
        super().__init__(KafkaError(KafkaError._VALUE_DESERIALIZATION, _reason(exception)), exception, kafka_message)


class KeySerializationError(ProduceError, SerializationError):
    """A key could not be written."""

    def __init__(self, exception=None):
        super().__init__(KafkaError(KafkaError._KEY_SERIALIZATION, _reason(exception)), exception)


class ValueSerializationError(ProduceError, SerializationError):
    """A value could not be written."""

    def __init__(self, exception=None):
        super().__init__(KafkaError(KafkaError._VALUE_SERIALIZATION, _reason(exception)), exception)
