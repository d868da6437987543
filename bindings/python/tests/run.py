#!/usr/bin/env python3
"""Builds the wheel, installs it into a clean virtual environment, and runs the tests there.

    bindings/python/tests/run.py build          the wheel, and the environments
    bindings/python/tests/run.py test           the package's own tests
    bindings/python/tests/run.py upstream DIR   confluent_kafka's own unit tests, of a checkout of its repository

Everything is below target/python, or below $CARGO_TARGET_DIR/python.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent
ROOT = PACKAGE.parents[1]
WORK = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "python"
WHEELS = WORK / "wheels"


def run(*command, **options):
    print("$", *command, flush=True)
    subprocess.run([str(word) for word in command], check=True, **options)


def environment(name):
    """A new virtual environment; its Python."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def install(python, *what):
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)


def build():
    """The wheel by maturin, in the dev profile: as fast to build as it can be."""
    tools = environment("tools")
    install(tools, "--no-deps", "-r", TESTS / "requirements.txt")
    shutil.rmtree(WHEELS, ignore_errors=True)
    cargo = os.environ.get("CARGO")
    path = os.environ["PATH"] if cargo is None else f"{Path(cargo).parent}{os.pathsep}{os.environ['PATH']}"
    maturin = ["-m", "maturin", "build", "--profile", "dev", "--locked", "--out", WHEELS]
    variables = {**os.environ, "CARGO_TARGET_DIR": str(WORK / "build"), "PATH": path}
    run(tools, *maturin, cwd=PACKAGE, env=variables)
    clean = environment("clean")
    wheels = list(WHEELS.glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"one wheel was to be built, and there are {wheels}")
    # Nothing but the wheel: it needs no other package.
    install(clean, "--no-index", wheels[0])


def test():
    clean = WORK / "clean" / "bin" / "python"
    variables = {**os.environ, "CONFLUENT_KAFKA_PYTHON": str(WORK / "tools" / "bin" / "python")}
    done = subprocess.run([str(clean), str(TESTS / "unit.py")], env=variables)
    return done.returncode


def upstream(checkout):
    python = environment("upstream")
    install(python, "--no-deps", "-r", TESTS / "upstream" / "requirements.txt")
    install(python, "--no-index", *WHEELS.glob("*.whl"))
    return subprocess.run([str(python), str(TESTS / "upstream" / "run.py"), checkout]).returncode


def main():
    words = sys.argv[1:]
    if words == ["build"]:
        build()
        return 0
    if words == ["test"]:
        return test()
    if len(words) == 2 and words[0] == "upstream":
        return upstream(words[1])
    sys.exit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
