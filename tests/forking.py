"""Start ``metronome`` commands and workers by forking a process that has imported and loaded everything.

``metronome serve`` needs over two seconds of CPU time for imports and the user agent lists, a worker nearly as much,
and the tests start hundreds of servers and commands. Forking takes a tenth of that. Otherwise, forked processes are
equivalent: they run the same ``main()`` with their own environment, working directory and standard streams.

Workers are forked from the same process, since their main process has threads by then. Their parent is therefore not
the main process; `worker_pids` finds the workers of a main process.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson

CODE_BYTES: Final = 4
"""Size of a process ID or an exit code in messages."""
_STARTUP_PREFIXES: Final = ("PYTHON", "LD_", "MALLOC_")
"""Prefixes of environment variables that are read when a process starts; forking cannot change them."""


class ForkedProcess:
    """A process started by `start`, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended
        self._reading = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        return self._read_exit_code(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process exits, and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it is still running.

        """
        code = self._read_exit_code(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("metronome", timeout or 0)
        return code

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _read_exit_code(self, timeout: float | None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._ended], [], [], remaining)[0]:
                return None
            with self._reading:
                if self.returncode is None:
                    code = os.read(self._ended, CODE_BYTES)
                    os.close(self._ended)
                    # Nothing is written if the fork server was killed.
                    self.returncode = int.from_bytes(code, "little", signed=True) if code else -signal.SIGKILL
        return self.returncode


_control: socket.socket | None = None
_owner = 0
_forking: Final = threading.Lock()
_processes: Final[list["subprocess.Popen[bytes]"]] = []


def can_fork(environment: dict[str, str]) -> bool:
    """Return whether a forked process can have that environment."""
    names = {name for name in (*environment, *os.environ) if name.startswith(_STARTUP_PREFIXES)}
    return all(environment.get(name) == os.environ.get(name) for name in names)


def start(arguments: list[str], environment: dict[str, str], stdin: int, stdout: int, stderr: int) -> ForkedProcess:
    """Start the command ``metronome`` with these arguments, environment and file descriptors."""
    ended, report = os.pipe()
    request = orjson.dumps({"arguments": arguments, "environment": environment, "folder": str(Path.cwd())})
    try:
        with _forking:
            control = _connect()
            socket.send_fds(control, [request], [report, stdin, stdout, stderr])
            pid = int.from_bytes(control.recv(CODE_BYTES), "little")
    finally:
        os.close(report)
    return ForkedProcess(pid, ended)


def _connect() -> socket.socket:
    global _control, _owner  # one per process that runs tests
    if _control is None or _owner != os.getpid():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())]
            root = Path(__file__).parents[1]
            process = subprocess.Popen(
                command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        _processes.append(process)
        _control, _owner = ours, os.getpid()
    return _control


def worker_pids(main_pid: int) -> list[int]:
    """Return the IDs of the running forked workers of a main process."""
    name = worker_name(main_pid)
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/comm") if _read_text(path) == name]


def worker_name(main_pid: int) -> str:
    """Return the process name of the forked workers of a main process."""
    # Linux truncates process names to 15 characters.
    return f"worker-{main_pid}"


def _read_text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""
