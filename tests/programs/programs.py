"""Commands that start the installed clients."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

INSTALLED: Final = Path(os.environ.get("METRONOME_CLIENTS", ".cache/clients")).resolve()
"""The folder that install.py installs into."""

INGEST: Final = Path(__file__).parents[2] / "ingest"
SECONDS: Final = 60.0
_DRIVERS: Final = Path(__file__).parent / "drivers"
_LOOK_SECONDS: Final = 0.02


class Command(NamedTuple):
    """A program with its arguments and environment variables."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


def python(library: str, driver: str, *arguments: object) -> Command:
    """Return the command of a driver with a Python library."""
    command = [sys.executable, str(_DRIVERS / driver), *map(str, arguments)]
    return Command(command, {"PYTHONPATH": str(INSTALLED / "python" / library)})


def node(driver: str, *arguments: object, **environment: str) -> Command:
    """Return the command of a driver with the Node libraries."""
    command = ["node", str(_DRIVERS / driver), *map(str, arguments)]
    return Command(command, {"NODE_PATH": str(INSTALLED / "node" / "node_modules"), **environment})


def java(library: str, driver: str, *arguments: object) -> Command:
    """Return the command of a driver, a single Java file, with a Java library."""
    folder = INSTALLED / "java" / library / "lib"
    if not folder.exists():
        pytest.skip("Java's clients are not installed: installing them needs Maven")
    return Command(["java", "-Xmx256m", "-cp", f"{folder}/*", str(_DRIVERS / driver), *map(str, arguments)], {})


def go(driver: str, *arguments: object) -> Command:
    """Return the command of a driver with a Go library."""
    program = INSTALLED / "go" / driver / "driver"
    if not program.exists():
        pytest.skip("Go's clients are not installed: building them needs Go")
    return Command([str(program), *map(str, arguments)], {})


def debian(package: str, program: str, *arguments: object) -> Command:
    """Return the command of a program in an unpacked Debian package."""
    root = INSTALLED / "debian" / package
    libraries = [path for path in (*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu")) if path.is_dir()]
    libraries += [path.parent for path in root.glob("usr/lib/**/lib*.so.0")]
    search = ":".join(map(str, dict.fromkeys(libraries)))
    return Command([str(root / "usr/sbin" / program), *map(str, arguments)], {"LD_LIBRARY_PATH": search})


def filebeat(configuration: Path, folder: Path, *arguments: str) -> Command:
    """Return the command of Filebeat with a configuration and a state folder."""
    if not (INSTALLED / "filebeat" / "filebeat").exists():
        pytest.skip("Filebeat is not installed: building it needs Go")
    program = INSTALLED / "filebeat" / "filebeat"
    paths = [f"--path.{name}={folder / name}" for name in ("home", "data", "logs")]
    return Command([str(program), *arguments, "-e", "--strict.perms=false", "-c", str(configuration), *paths], {})


def finish(command: Command) -> str:
    """Run a command, assert that it succeeds, and return its output."""
    done = subprocess.run(
        command.arguments,
        env={**os.environ, **command.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextmanager
def started(command: Command, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program in a folder; its output is in the file ``said``."""
    with (folder / "said").open("ab") as said:
        process = subprocess.Popen(
            command.arguments,
            env={**os.environ, **command.environment},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait until a condition holds; fail with the text of *what* after a timeout."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(_LOOK_SECONDS)


def edited(name: str, folder: Path, replaced: Mapping[str, object]) -> Path:
    """Write a configuration of ingest/ into a folder, with replacements of texts that must occur in it."""
    text = (INGEST / name).read_text()
    for before, after in replaced.items():
        assert before in text, f"ingest/{name} has no {before!r}"
        text = text.replace(before, str(after))
    path = folder / Path(name).name
    path.write_text(text)
    return path
