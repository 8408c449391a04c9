"""Starts Metronome's command in processes that are forked from one that has imported it already.

``metronome serve`` needs over a second of CPU time for its imports, and the tests start hundreds of servers and
commands. Forked processes have it at once. They are real processes otherwise, and run the same ``main()``, with an
environment, a working directory and standard streams of their own.
"""

import gc
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
from typing import Any, Final

import orjson

# The forked process returns from `serve`, and goes on and ends as the command itself does.
_CODE: Final = "from tests.forking import serve; serve(); from metronome.cli import main; main()"
_CODE_BYTES: Final = 4
_REQUEST_BYTES: Final = 200_000
_MOST_FILES: Final = 1 << 16
_AT_START: Final = ("PYTHON", "LD_", "MALLOC_")
"""What of the environment is read as a process starts; where it differs, forking is no substitute."""


class ForkedProcess:
    """A process of `start`, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended
        self._reading = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal's number; None if it runs."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it runs still.

        """
        code = self._look(timeout)
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

    def _look(self, timeout: float | None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._ended], [], [], left)[0]:
                return None
            with self._reading:
                if self.returncode is None:
                    code = os.read(self._ended, _CODE_BYTES)
                    os.close(self._ended)
                    # Nothing is written if the process that forks was ended.
                    self.returncode = int.from_bytes(code, "little", signed=True) if code else -signal.SIGKILL
        return self.returncode


_control: socket.socket | None = None
_owner = 0
_forking: Final = threading.Lock()
_processes: Final[list["subprocess.Popen[bytes]"]] = []


def can_fork(environment: dict[str, str]) -> bool:
    """Return whether a process with that environment may be forked."""
    names = {name for name in (*environment, *os.environ) if name.startswith(_AT_START)}
    return all(environment.get(name) == os.environ.get(name) for name in names)


def start(arguments: list[str], environment: dict[str, str], stdin: int, stdout: int, stderr: int) -> ForkedProcess:
    """Start the command ``metronome`` with these arguments, environment and file descriptors."""
    ended, report = os.pipe()
    request = orjson.dumps({"arguments": arguments, "environment": environment, "folder": str(Path.cwd())})
    try:
        with _forking:
            control = _connected()
            socket.send_fds(control, [request], [stdin, stdout, stderr, report])
            pid = int.from_bytes(control.recv(_CODE_BYTES), "little")
    finally:
        os.close(report)
    return ForkedProcess(pid, ended)


def _connected() -> socket.socket:
    global _control, _owner  # one for each process that runs tests
    if _control is None or _owner != os.getpid():
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-c", _CODE, str(theirs.fileno())]
            root = Path(__file__).parents[1]
            process = subprocess.Popen(
                command, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        _processes.append(process)
        _control, _owner = ours, os.getpid()
    return _control


def serve() -> None:
    """Fork for each request; return in the forked processes, and end once there can be no more requests."""
    control = socket.socket(fileno=int(sys.argv[1]))
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C ends pytest, and that ends this process.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 1000)
            _reap(reports)
        if control.fileno() not in ready:
            continue
        request, streams, _, _ = socket.recv_fds(control, _REQUEST_BYTES, 4)
        if not request:
            # Pytest has ended: if it was killed, there may be servers that it has not stopped.
            for server in reports:
                with suppress(ProcessLookupError):
                    os.kill(server, signal.SIGKILL)
            os._exit(0)
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, before)
            control.close()
            _become(orjson.loads(request), streams[:3])
            return
        reports[pid] = streams[3]
        for stream in streams[:3]:
            os.close(stream)
        control.send(pid.to_bytes(_CODE_BYTES, "little"))


def _reap(reports: dict[int, int]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        report = reports.pop(pid)
        with suppress(OSError):
            os.write(report, os.waitstatus_to_exitcode(status).to_bytes(_CODE_BYTES, "little", signed=True))
        os.close(report)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, min(1 << 16, os.sysconf("SC_OPEN_MAX")))
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    sys.argv = ["-c", *request["arguments"]]
