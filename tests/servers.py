"""Real Metronome servers: processes of their own, with a data folder, on a port of the loopback.

Tests and benchmarks start them here, and end only what they started, by its number.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import orjson

from tests.forking import ForkedProcess, can_fork, start, worker_pids

COMMAND: Final = (sys.executable, "-c", "from metronome.cli import main; main()")
START_TIMEOUT_SECONDS: Final = 30.0
STOP_TIMEOUT_SECONDS: Final = 30.0
REQUEST_TIMEOUT_SECONDS: Final = 30.0
SHIP_TIMEOUT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02
_MAX_LOG_CHARACTERS: Final = 4000


Process = ForkedProcess | subprocess.Popen[bytes]


class ServerError(Exception):
    """A server did not do what a test needs it to; the message ends with what it logged."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended, and what it said."""

    exit_code: int
    stdout: str
    stderr: str


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build_environment(**settings: object) -> dict[str, str]:
    """Return this process's environment with no other settings than these, named as in `Settings`."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("METRONOME_")}
    return plain | {f"METRONOME_{name.upper()}": str(value) for name, value in settings.items()}


def run_metronome(*arguments: object, timeout: float = 60.0, **settings: object) -> CommandResult:
    """Run a command of Metronome's to its end."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = _start([*map(str, arguments)], build_environment(**settings), output.fileno(), errors.fileno())
        try:
            code = process.wait(timeout)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
    return CommandResult(code, *texts)


def launch_metronome(*arguments: object, output: BinaryIO, **settings: object) -> Process:
    """Start a command of Metronome's, which writes to a file."""
    return _start([*map(str, arguments)], build_environment(**settings), output.fileno(), output.fileno())


def _start(arguments: list[str], variables: dict[str, str], stdout: int, stderr: int) -> Process:
    if can_fork(variables):
        with Path(os.devnull).open("rb") as nothing:
            return start(arguments, variables, nothing.fileno(), stdout, stderr)
    return subprocess.Popen(
        [*COMMAND, *arguments], env=variables, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
    )


class Server:
    """A ``metronome serve`` of its own; it can be started, stopped and killed any number of times.

    Args:
        data: its data folder; what it logs gathers in a file beside it.
        settings: other settings, named as in `Settings`.

    """

    def __init__(self, data: Path, **settings: object) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = settings
        self._log = data.with_name(f"{data.name}.log")
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """The number of its (main) process."""
        return self._require_process().pid

    @property
    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that it has logged, over all its lives."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def __enter__(self) -> Self:
        """Return this server, which is killed at the block's end if it runs then; it is not started yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind."""
        if self.is_running:
            self.kill()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerError: it ended, or does not answer.

        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        if self.is_running:
            raise ServerError("the server runs already")
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            variables = build_environment(data=self.data, port=self.port, **self.settings)
            self._process = _start(["serve"], variables, log.fileno(), log.fileno())

    def wait_until_ready(self) -> None:
        """Wait until it answers; raises as `start` does."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not (self._is_live() and self._has_all_workers()):
            if not self.is_running:
                raise ServerError(self._with_log(f"the server ended with {self._require_process().returncode}"))
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(self._with_log("the server did not answer"))
            time.sleep(_POLL_SECONDS)

    def stop(self) -> int:
        """End it with SIGTERM and return its exit code.

        Raises:
            ServerError: it did not end in time, and was killed.

        """
        process = self._require_process()
        process.terminate()
        return self.wait_for_end()

    def wait_for_end(self) -> int:
        """Wait until it has ended by itself, and return its exit code; raises as `stop` does."""
        process = self._require_process()
        try:
            return process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(self._with_log("the server did not end")) from None

    def kill(self) -> None:
        """End it with SIGKILL."""
        process = self._require_process()
        process.kill()
        process.wait()

    def worker_pids(self) -> list[int]:
        """Return the numbers of its worker processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        started = [int(child) for child in children if _read_command_line(child).endswith("metronome.server.worker")]
        return sorted(started + worker_pids(self.pid))

    def kill_worker(self, pid: int) -> None:
        """End one of its worker processes with SIGKILL."""
        if pid not in self.worker_pids():
            raise ServerError(f"process {pid} is no worker of this server")
        os.kill(pid, signal.SIGKILL)

    def peak_memory(self) -> int:
        """Return the most memory that its (main) process has had, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))

    def memory(self) -> int:
        """Return the memory that its (main) process has now, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def get(self, path: str) -> Any:
        """Return what it answers, as JSON, whatever the status."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=REQUEST_TIMEOUT_SECONDS) as answer:  # noqa: S310  # our own server
                return orjson.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return orjson.loads(error.read())

    def post_events(self, body: bytes, **headers: str) -> bytes:
        """Send events; raises where they are not taken."""
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(f"{self.url}/tick", body, headers)  # noqa: S310  # our own server
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as answer:  # noqa: S310  # our own server
            return bytes(answer.read())

    def accepted_events(self) -> int:
        """Return how many events it says that it has taken."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=REQUEST_TIMEOUT_SECONDS) as answer:  # noqa: S310  # our own server
            figures = answer.read().decode().splitlines()
        name = "metronome_events_accepted_total "
        return int(float(next(line for line in figures if line.startswith(name)).removeprefix(name)))

    def spooled_events(self) -> int:
        """Return how many events its spools hold."""
        return int(self.get("/health/ready")["store"]["events"])

    def wait_until_shipped(self, timeout: float = SHIP_TIMEOUT_SECONDS, poll_seconds: float = _POLL_SECONDS) -> None:
        """Wait until the store has all that was taken, and look each so many seconds.

        Raises:
            ServerError: it does not in time.

        """
        deadline = time.monotonic() + timeout
        while depth := self.spooled_events():
            if time.monotonic() > deadline:
                raise ServerError(self._with_log(f"{depth} events are in the spool still"))
            time.sleep(poll_seconds)

    def error_lines(self) -> list[str]:
        """Return the lines of its log that tell of a bug."""
        return [line for line in self.log.splitlines() if "Traceback" in line or "shipper_failed" in line]

    def _has_all_workers(self) -> bool:
        workers = int(str(self.settings.get("workers", 1)))
        # Each has a socket of its own that listens at the port they share.
        listening = f"0100007F:{self.port:04X} 00000000:0000 0A "
        return workers == 1 or Path("/proc/net/tcp").read_text().count(listening) == workers

    def _is_live(self) -> bool:
        with contextlib.suppress(OSError, HTTPException, ValueError):
            return bool(self.get("/health/live")["status"] == "ok")
        return False

    def _require_process(self) -> Process:
        if self._process is None:
            raise ServerError("the server was never started")
        return self._process

    def _with_log(self, sentence: str) -> str:
        return f"{sentence}; it logged: {self.log[-_MAX_LOG_CHARACTERS:]}"


@contextlib.contextmanager
def running_server(data: Path, **settings: object) -> Iterator[Server]:
    """Have a server run while the context lasts; what it logs must tell of no bug.

    Raises:
        ServerError: it does not start, does not stop, or complained.

    """
    server = Server(data, **settings)
    try:
        server.start()
        yield server
        complaints = server.error_lines()
        code = server.stop() if server.is_running else 0
    finally:
        if server.is_running:
            server.kill()
    complaints = complaints or server.error_lines()
    if complaints or code:
        raise ServerError(f"the server ended with {code}, and complained: {' '.join(complaints)[:_MAX_LOG_CHARACTERS]}")


def unique_name(prefix: str = "x") -> str:
    """Return a name that nothing else has."""
    return f"{prefix}{secrets.token_hex(8)}"


def delete_indices(elasticsearch: str, prefix: str) -> None:
    """Delete an installation's indices, its state and its index template from a node."""
    listed = f"{elasticsearch}/_cat/indices/{prefix}-*?h=index&format=json&expand_wildcards=all"
    with urllib.request.urlopen(listed, timeout=REQUEST_TIMEOUT_SECONDS) as answer:  # noqa: S310  # our own node
        names: Sequence[dict[str, str]] = orjson.loads(answer.read())
    paths = [*(f"/{one['index']}" for one in names), f"/state-{prefix}", f"/_index_template/{prefix}"]
    for path in paths:
        request = urllib.request.Request(elasticsearch + path, method="DELETE")  # noqa: S310  # our own node
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS).close()  # noqa: S310  # our own node


def refresh_indices(elasticsearch: str, prefix: str) -> None:
    """Make what a node has taken visible to questions."""
    request = urllib.request.Request(f"{elasticsearch}/{prefix}-*/_refresh", b"", method="POST")  # noqa: S310  # our own node
    with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS):  # noqa: S310  # our own node
        pass


def _read_command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")
    except OSError:
        return ""
