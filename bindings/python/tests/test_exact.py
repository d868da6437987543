"""Ours next to the real confluent_kafka 2.16.1: the same programs print the same."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from edgelog.confluent_kafka.admin import AdminClient, NewTopic

HERE = Path(__file__).resolve().parent
# Of the environment that has the real one; ./test sets it.
REAL = os.environ["CONFLUENT_KAFKA_PYTHON"]


def printed(python, script, *arguments):
    command = [python, str(HERE / script), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=240)
    if done.returncode:
        raise AssertionError(f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout.splitlines()


class Exact(unittest.TestCase):
    maxDiff = None

    def test_what_calls_return_and_raise_without_a_broker(self):
        theirs = printed(REAL, "surface.py", "confluent_kafka")
        self.assertGreater(len(theirs), 300)
        self.assertEqual(printed(sys.executable, "surface.py", "edgelog.confluent_kafka"), theirs)

    def test_one_program_sees_the_same_of_a_cluster_and_of_a_directory(self):
        cluster = subprocess.Popen([REAL, str(HERE / "cluster.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True)
        try:
            theirs = printed(REAL, "loop.py", "confluent_kafka", cluster.stdout.readline().strip())
        finally:
            cluster.stdin.close()
            cluster.wait()
            cluster.stdout.close()
        with tempfile.TemporaryDirectory() as folder:
            servers = f"edgelog://{folder}"
            created = AdminClient({"bootstrap.servers": servers}).create_topics([NewTopic("loop", 4)])
            created["loop"].result(60)
            ours = printed(sys.executable, "loop.py", "edgelog.confluent_kafka", servers)
        self.assertEqual(ours, theirs)


if __name__ == "__main__":
    unittest.main()
