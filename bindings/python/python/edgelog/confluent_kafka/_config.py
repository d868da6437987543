"""Configurations: what confluent_kafka accepts is accepted, with its errors; some of it means something here."""

import os

from ._errors import KafkaError, KafkaException, failed
from ._keys import ALIASES, TABLE

KEYS = {row[0]: row[1:] for row in (line.split("|") for line in TABLE.splitlines())}
PARTITIONERS = ("random", "consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random")
# Words that stand for a number.
WORDS = {"request.required.acks": {"all": "-1"}}
TRUE = ("true", "t", "1")
FALSE = ("false", "f", "0")
CALLABLES = {"error_cb": TypeError, "stats_cb": TypeError, "throttle_cb": ValueError, "oauth_cb": TypeError}


def _invalid(text):
    return failed(KafkaError._INVALID_ARG, text)


def _number(key, kind, text, allowed):
    if text is None or text == "":
        name = "Float" if kind == "float" else "Integer"
        raise _invalid(f'{name} configuration property "{key}" cannot be set to empty value')
    text = WORDS.get(key, {}).get(text.lower(), text)
    try:
        number = float(text) if kind == "float" and "x" not in text.lower() else int(text, 0)
    except ValueError:
        raise _invalid(f'Invalid value for configuration property "{key}"') from None
    low, high = (float(bound) if kind == "float" else int(bound) for bound in allowed.split(".."))
    if not low <= number <= high:
        raise _invalid(f'Configuration property "{key}" value {number:g} is outside allowed range {low:g}..{high:g}\n'
                       if kind == "float" else
                       f'Configuration property "{key}" value {number} is outside allowed range {low}..{high}\n')
    return number


def _value(key, value):
    """The value of a key in its own type; None where it is set back to its default."""
    kind, allowed, _ = KEYS[key]
    if kind == "api":
        raise _invalid(f'Property "{key}" must be set through dedicated .._set_..() function')
    text = None if value is None else str(value)
    if key == "partitioner":
        if text not in PARTITIONERS:
            raise _invalid(f'Invalid value for configuration property "partitioner": {text}')
        return text
    if kind in ("int", "float"):
        return _number(key, kind, text, allowed)
    if text is None:
        return None
    if kind == "bool" or allowed == "true, false":
        if text.lower() not in TRUE + FALSE:
            raise _invalid(f'Expected bool value for "{key}": true or false')
        return text.lower() in TRUE
    if kind in ("enum", "flags") and allowed:
        words = allowed.split(", ")
        given = [word.strip() for word in text.split(",")] if kind == "flags" else [text]
        if any(word not in words for word in given):
            raise _invalid(f'Invalid value "{text}" for configuration property "{key}"')
    return text


def directory_of(servers):
    """The directory that bootstrap.servers names, or None where it names brokers."""
    if not servers:
        return None
    if servers.startswith("edgelog://"):
        return servers[len("edgelog://"):]
    if servers.startswith(("/", "./", "../")) or os.path.isdir(servers):
        return servers
    return None


class Config:
    """A configuration that was read."""

    def __init__(self, args, kwargs, extra=()):
        if len(args) > 1:
            raise TypeError("expected tuple containing single dict")
        given = args[0] if args else None
        if given is None and kwargs:
            given = {}
        if not isinstance(given, dict):
            raise TypeError("expected configuration dict")
        self.given = {**given, **kwargs}
        self.extra = extra
        self.values = {}
        self.callbacks = {}
        self.own = {}

    def read(self):
        """Takes every key, or raises what confluent_kafka raises for the first that cannot be."""
        for key, value in self.given.items():
            self._take(key, value)
        self.servers = self.values.get("metadata.broker.list") or ""
        self.directory = directory_of(self.servers)
        return self

    def _take(self, key, value):
        if key in CALLABLES:
            if value is not None and not callable(value):
                raise CALLABLES[key](f"expected {key} property as a callable function")
            self.callbacks[key] = value
        elif key in self.extra:
            if value is not None and not callable(value):
                raise _invalid(f"{key} requires a callable object")
            self.callbacks[key] = value
        elif key == "logger":
            self.callbacks[key] = value
        elif key == "default.topic.config":
            for name in value.keys():
                self._take(name, value[name])
        elif isinstance(key, str) and key.startswith("edgelog."):
            self.own[key] = str(value)
        else:
            canonical = ALIASES.get(key, key)
            if canonical not in KEYS:
                raise _invalid(f'No such configuration property: "{key}"')
            self.values[canonical] = _value(canonical, value)

    def get(self, key, default=None):
        """A key's value: as given, or else librdkafka's default."""
        key = ALIASES.get(key, key)
        value = self.values.get(key)
        if value is not None:
            return value
        kind, _, text = KEYS[key]
        if default is not None or text == "":
            return default
        return _value(key, text)

    def is_set(self, key):
        return self.values.get(ALIASES.get(key, key)) is not None


def check_producer(config):
    """What librdkafka refuses of keys together."""
    idempotent = config.get("enable.idempotence", False)
    if config.is_set("transactional.id"):
        if config.is_set("enable.idempotence") and not idempotent:
            raise _invalid("Failed to create producer: `transactional.id` requires `enable.idempotence=true`")
        idempotent = True
    if idempotent and config.get("acks") != -1:
        raise _invalid("Failed to create producer: `acks` must be set to `all` when `enable.idempotence` is true")
    if idempotent and config.is_set("max.in.flight") and config.get("max.in.flight") > 5:
        raise _invalid("Failed to create producer: `max.in.flight` must be set <= 5 when `enable.idempotence` is true")
    timeout, linger = config.get("message.timeout.ms"), config.get("linger.ms")
    if config.is_set("linger.ms") and config.is_set("message.timeout.ms") and 0 < timeout <= linger:
        raise _invalid("Failed to create producer: `message.timeout.ms` must be greater than `linger.ms`")


def check_consumer(config):
    if config.get("group.protocol") == "consumer":
        where = "is not supported for `group.protocol=consumer`"
        for key in ("session.timeout.ms", "heartbeat.interval.ms"):
            if config.is_set(key):
                raise _invalid(f"Failed to create consumer: `{key}` {where} or share consumer. "
                               "It is defined broker side")
        if config.is_set("partition.assignment.strategy"):
            raise _invalid(f"Failed to create consumer: `partition.assignment.strategy` {where}. "
                           "Use `group.remote.assignor` instead")
    elif config.get("max.poll.interval.ms") < config.get("session.timeout.ms"):
        raise _invalid("Failed to create consumer: `max.poll.interval.ms`must be >= `session.timeout.ms`")


__all__ = ["Config", "KafkaException", "check_consumer", "check_producer", "directory_of"]
