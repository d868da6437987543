"""What the library answers when something cannot be done."""


class Error(Exception):
    """An error of the store or of a client.

    code: Kafka's code for it, or librdkafka's where it is negative.
    retriable: whether the same call may succeed later.
    """

    def __init__(self, code, text, retriable=False):
        super().__init__(text)
        self.code = code
        self.retriable = retriable


def made(code, text, retriable, raises):
    """For the native module: what a client raises, and what a delivery report says."""
    return Error(code, text, retriable)
