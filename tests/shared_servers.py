"""Servers that all processes of one test run share: pytest itself, or the workers of pytest-xdist.

The first worker that needs a server starts it, under a lock, in a process of its own. That process
stops the server as soon as pytest ends, however it ends: it waits for the exit of pytest's process
(the controller, under xdist), so Ctrl-C and ``kill -9`` leave nothing behind either.
"""

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, Final, Never

import orjson
import pytest

ROOT: Final = Path(__file__).parents[1]

_started: Final[list["subprocess.Popen[bytes]"]] = []


def shared_server(module: str, folders: pytest.TempPathFactory, *arguments: str) -> dict[str, Any]:
    """Start a server unless this test run has started it already, and return its description.

    Args:
        module: run as a script, this module calls `run_shared`.
        folders: where this test run keeps its files.
        arguments: which of several servers the module is to start, as its further arguments.

    """
    under_xdist = "PYTEST_XDIST_WORKER" in os.environ
    folder = folders.getbasetemp().parent if under_xdist else folders.getbasetemp()
    name = "-".join((module, *arguments))
    description = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not description.exists():
            owner = os.getppid() if under_xdist else os.getpid()
            _start(module, owner, description, arguments)
    found: dict[str, Any] = orjson.loads(description.read_bytes())
    return found


def _start(module: str, owner: int, description: Path, arguments: tuple[str, ...]) -> None:
    log = description.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(owner), str(description), *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C at the terminal reaches pytest only, and this process by pytest's end.
            start_new_session=True,
        )
    _started.append(process)
    while not description.exists():
        if process.poll() is not None:
            raise RuntimeError(f"{module} ended with {process.returncode}: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def run_shared(server: Callable[[], AbstractContextManager[Mapping[str, Any]]]) -> None:
    """Run a server until the process whose ID is the first argument exits; write its description to the second.

    Args:
        server: starts it and returns its description; stops it at its exit.

    """

    def stop(_: int, __: FrameType | None) -> Never:
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    description = Path(sys.argv[2])
    try:
        owner = os.pidfd_open(int(sys.argv[1]))
    except ProcessLookupError:
        return
    with server() as described:
        aside = description.with_suffix(".new")
        aside.write_bytes(orjson.dumps(described))
        aside.rename(description)
        select.select([owner], [], [])
