"""KafkaError and the exceptions."""

from ._codes import CODES


class KafkaException(Exception):
    """An error that a call raises; `args[0]` is its KafkaError."""


class IllegalStateException(RuntimeError):
    """A call that its client cannot do now."""


class ConcurrentModificationException(RuntimeError):
    """A client was called by two threads at once."""


class KafkaError(KafkaException):
    """What happened, with Kafka's code, or librdkafka's where it is negative. Equal to its code."""

    def __init__(self, error, reason=None, fatal=False, retriable=False, txn_requires_abort=False):
        if not isinstance(error, int):
            raise TypeError(f"'{type(error).__name__}' object cannot be interpreted as an integer")
        self._code = int(error)
        self._reason = reason
        self._fatal = bool(fatal)
        self._retriable = bool(retriable)
        self._txn_requires_abort = bool(txn_requires_abort)

    @property
    def args(self):
        # Raised by itself it is caught as a KafkaException, whose first argument is the error.
        return (self,)

    def code(self):
        return self._code

    def name(self):
        known = CODES.get(self._code)
        return known[0] if known else f"ERR_{self._code}?"

    def str(self):
        if self._reason is not None:
            return self._reason
        known = CODES.get(self._code)
        return known[1] if known else f"Err-{self._code}?"

    def fatal(self):
        return self._fatal

    def retriable(self):
        return self._retriable

    def txn_requires_abort(self):
        return self._txn_requires_abort

    def __repr__(self):
        fatal = "FATAL," if self._fatal else ""
        return f'KafkaError{{{fatal}code={self.name()},val={self._code},str="{self.str()}"}}'

    __str__ = __repr__

    def __reduce__(self):
        given = (self._code, self._reason, self._fatal, self._retriable, self._txn_requires_abort)
        return (KafkaError, given)

    def __hash__(self):
        return self._code

    def __bool__(self):
        return True

    def _other(self, other):
        if isinstance(other, KafkaError):
            return other._code
        return other if isinstance(other, int) else None

    def __eq__(self, other):
        return self._code == self._other(other)

    def __ne__(self, other):
        return not self == other

    def __lt__(self, other):
        code = self._other(other)
        return NotImplemented if code is None else self._code < code

    def __le__(self, other):
        code = self._other(other)
        return NotImplemented if code is None else self._code <= code

    def __gt__(self, other):
        code = self._other(other)
        return NotImplemented if code is None else self._code > code

    def __ge__(self, other):
        code = self._other(other)
        return NotImplemented if code is None else self._code >= code


for _code, (_name, _) in CODES.items():
    setattr(KafkaError, _name, _code)


def text_of(code):
    """librdkafka's text for a code."""
    return KafkaError(code).str()


def failed(code, text=None, **flags):
    """The exception of a code."""
    return KafkaException(KafkaError(code, text, **flags))
