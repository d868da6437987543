"""edgelog.confluent_kafka under the name confluent_kafka, for that project's own tests.

What ours does not have is a class that refuses by name, so that a file of tests can be imported: its tests fail then.
"""

import importlib
import sys
import types

import edgelog.confluent_kafka as ours

SUBMODULES = (
    "admin", "aio", "avro", "cimpl", "deserializing_consumer", "error", "kafkatest", "schema_registry",
    "serialization", "serializing_producer",
)


def missing(name):
    """A class that stands for one that edgelog does not have."""

    def refuse(self, *args, **kwargs):
        raise NotImplementedError(f"edgelog.confluent_kafka has no {name}")

    return type(name, (), {"__init__": refuse, "edgelog_has_none": True})


class Shim(types.ModuleType):
    """A module that has what ours has, and refuses the rest."""

    def __init__(self, name, of):
        super().__init__(name)
        self.__path__ = []
        self.__dict__["_ours"] = of

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if hasattr(self._ours, name):
            return getattr(self._ours, name)
        made = missing(name)
        setattr(self, name, made)
        return made


for _name in SUBMODULES:
    try:
        _ours = importlib.import_module(f"edgelog.confluent_kafka.{_name}")
    except ImportError:
        _ours = None
    sys.modules[f"confluent_kafka.{_name}"] = Shim(f"confluent_kafka.{_name}", _ours)
_shim = Shim("confluent_kafka", ours)
for _name in SUBMODULES:
    setattr(_shim, _name, sys.modules[f"confluent_kafka.{_name}"])
sys.modules["confluent_kafka"] = _shim
