"""A consumer whose keys and values are deserialized."""

from ._consumer import Consumer
from .error import ConsumeError, KeyDeserializationError, ValueDeserializationError
from .serialization import MessageField, SerializationContext


class DeserializingConsumer(Consumer):
    """As Consumer, with `key.deserializer` and `value.deserializer` in its configuration."""

    def __init__(self, conf):
        conf = dict(conf)
        self._key_deserializer = conf.pop("key.deserializer", None)
        self._value_deserializer = conf.pop("value.deserializer", None)
        super().__init__(conf)

    def poll(self, timeout=-1):
        message = super().poll(timeout)
        if message is None:
            return None
        if message.error() is not None:
            raise ConsumeError(message.error(), kafka_message=message)
        context = SerializationContext(message.topic(), MessageField.VALUE, message.headers())
        if self._value_deserializer is not None:
            try:
                value = self._value_deserializer(message.value(), context)
            except Exception as error:
                raise ValueDeserializationError(error, message) from error
            message.set_value(value)
        context.field = MessageField.KEY
        if self._key_deserializer is not None:
            try:
                key = self._key_deserializer(message.key(), context)
            except Exception as error:
                raise KeyDeserializationError(error, message) from error
            message.set_key(key)
        return message

    def consume(self, num_messages=1, timeout=-1):
        raise NotImplementedError
