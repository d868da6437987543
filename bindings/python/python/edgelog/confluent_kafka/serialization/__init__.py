"""Keys and values as Python's own types, to bytes and back."""

import struct
from enum import Enum

from .._errors import KafkaException


class MessageField(str, Enum):
    """Which part of a message is serialized."""

    NONE = "none"
    KEY = "key"
    VALUE = "value"

    def __str__(self):
        return str(self.value)


class SerializationContext:
    """The topic, and the part of a message, that a serializer works on."""

    def __init__(self, topic, field, headers=None):
        self.topic = topic
        self.field = field
        self.headers = headers


class SerializationError(KafkaException):
    """An object could not be made of bytes, or bytes of it."""


class Serializer:
    """Makes bytes of an object."""

    def __call__(self, obj, ctx=None):
        raise NotImplementedError


class Deserializer:
    """Makes an object of bytes."""

    def __call__(self, value, ctx=None):
        raise NotImplementedError


def _packed(layout, given):
    if given is None:
        return None
    try:
        return struct.pack(layout, given)
    except struct.error as error:
        raise SerializationError(str(error)) from None


def _unpacked(layout, given):
    if given is None:
        return None
    try:
        return struct.unpack(layout, given)[0]
    except struct.error as error:
        raise SerializationError(str(error)) from None


class DoubleSerializer(Serializer):
    """A float, as eight bytes, the highest first."""

    def __call__(self, obj, ctx=None):
        return _packed(">d", obj)


class DoubleDeserializer(Deserializer):
    """Eight bytes, as a float."""

    def __call__(self, value, ctx=None):
        return _unpacked(">d", value)


class IntegerSerializer(Serializer):
    """An int of 32 bits, as four bytes, the highest first."""

    def __call__(self, obj, ctx=None):
        return _packed(">i", obj)


class IntegerDeserializer(Deserializer):
    """Four bytes, as an int."""

    def __call__(self, value, ctx=None):
        return _unpacked(">i", value)


class StringSerializer(Serializer):
    """A str, in an encoding."""

    def __init__(self, codec="utf_8"):
        self.codec = codec

    def __call__(self, obj, ctx=None):
        if obj is None:
            return None
        try:
            return obj.encode(self.codec)
        except UnicodeEncodeError as error:
            raise SerializationError(str(error)) from None


class StringDeserializer(Deserializer):
    """Bytes in an encoding, as a str."""

    def __init__(self, codec="utf_8"):
        self.codec = codec

    def __call__(self, value, ctx=None):
        if value is None:
            return None
        try:
            return value.decode(self.codec)
        except UnicodeDecodeError as error:
            raise SerializationError(str(error)) from None


__all__ = [
    "Deserializer", "DoubleDeserializer", "DoubleSerializer", "IntegerDeserializer", "IntegerSerializer",
    "MessageField", "SerializationContext", "SerializationError", "Serializer", "StringDeserializer",
    "StringSerializer",
]
