#!/usr/bin/env python3
"""Runs the tests of this folder and sums them up in the line that `./test` reads."""

import sys
import unittest
from pathlib import Path


def main():
    tests = unittest.defaultTestLoader.discover(str(Path(__file__).parent), pattern="test_*.py")
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    passed = result.testsRun - failed - len(result.skipped)
    for test, why in result.skipped:
        print(f"LEFT OUT: {test}: {why}")
    # What is left out is not passed: it counts as failed, since nothing here may be missing.
    failed += len(result.skipped)
    print(f"checks: {passed} passed, {failed} failed", flush=True)
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    sys.exit(main())
