"""Start real Metronome servers and commands as processes, for tests and benchmarks.

Servers listen on the loopback interface. Only processes started here are stopped, by process ID.
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
    """A server failed to start, stop or ship; the message ends with its log."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The exit code and output of a command."""

    exit_code: int
    stdout: str
    stderr: str


def free_port() -> int:
    """Return a port that is currently unused."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def build_environment(**settings: object) -> dict[str, str]:
    """Return this process's environment with only these settings, named as in `Settings`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("METRONOME_")}
    return inherited | {f"METRONOME_{name.upper()}": str(value) for name, value in settings.items()}


def run_metronome(*arguments: object, timeout: float = 60.0, **settings: object) -> CommandResult:
    """Run a ``metronome`` command, and wait until it exits."""
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
    """Start a ``metronome`` command that writes its output to a file."""
    return _start([*map(str, arguments)], build_environment(**settings), output.fileno(), output.fileno())


def _start(arguments: list[str], variables: dict[str, str], stdout: int, stderr: int) -> Process:
    if can_fork(variables):
        with Path(os.devnull).open("rb") as null:
            return start(arguments, variables, null.fileno(), stdout, stderr)
    return subprocess.Popen(
        [*COMMAND, *arguments], env=variables, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
    )


class Server:
    """A ``metronome serve`` process that can be started, stopped and killed repeatedly.

    Args:
        data: its data folder; its log is written to a file next to it.
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
        """The ID of the main process."""
        return self._require_process().pid

    @property
    def is_running(self) -> bool:
        """Whether the main process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The log of all its runs."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def __enter__(self) -> Self:
        """Return this server, not started; it is killed after the block if it still runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the server if it still runs."""
        if self.is_running:
            self.kill()

    def start(self) -> None:
        """Start the server and wait until it is ready.

        Raises:
            ServerError: it exited, or did not become ready in time.

        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the server without waiting."""
        if self.is_running:
            raise ServerError("the server is already running")
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            variables = build_environment(data=self.data, port=self.port, **self.settings)
            self._process = _start(["serve"], variables, log.fileno(), log.fileno())

    def wait_until_ready(self) -> None:
        """Wait until the server is ready; raises like `start`."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not (self._is_live() and self._has_all_workers()):
            if not self.is_running:
                raise ServerError(self._with_log(f"the server exited with {self._require_process().returncode}"))
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(self._with_log("the server did not become ready"))
            time.sleep(_POLL_SECONDS)

    def stop(self) -> int:
        """Stop the server with SIGTERM and return its exit code.

        Raises:
            ServerError: it did not exit in time, and was killed.

        """
        process = self._require_process()
        process.terminate()
        return self.wait_for_end()

    def wait_for_end(self) -> int:
        """Wait until the server exits, and return its exit code; raises like `stop`."""
        process = self._require_process()
        try:
            return process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerError(self._with_log("the server did not exit")) from None

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        process = self._require_process()
        process.kill()
        process.wait()

    def worker_pids(self) -> list[int]:
        """Return the IDs of its worker processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        started = [int(child) for child in children if _read_command_line(child).endswith("metronome.server.worker")]
        return sorted(started + worker_pids(self.pid))

    def kill_worker(self, pid: int) -> None:
        """Kill one of its worker processes with SIGKILL."""
        if pid not in self.worker_pids():
            raise ServerError(f"process {pid} is not a worker of this server")
        os.kill(pid, signal.SIGKILL)

    def peak_memory(self) -> int:
        """Return the peak memory of the main process in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))

    def memory(self) -> int:
        """Return the current memory of the main process in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def get(self, path: str) -> Any:
        """Return the parsed JSON response to a GET request, regardless of its status."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
                return orjson.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return orjson.loads(error.read())

    def post_events(self, body: bytes, **headers: str) -> bytes:
        """Send events to ``/tick``; raises `HTTPError` if they are not accepted."""
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(f"{self.url}/tick", body, headers)  # noqa: S310  # our own server
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
            return bytes(response.read())

    def accepted_events(self) -> int:
        """Return the number of accepted events from its metrics."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
            metrics = response.read().decode().splitlines()
        name = "metronome_events_accepted_total "
        return int(float(next(line for line in metrics if line.startswith(name)).removeprefix(name)))

    def spooled_events(self) -> int:
        """Return the number of events in its spools."""
        return int(self.get("/health/ready")["store"]["events"])

    def wait_until_shipped(self, timeout: float = SHIP_TIMEOUT_SECONDS, poll_seconds: float = _POLL_SECONDS) -> None:
        """Wait until all accepted events are in the store.

        Raises:
            ServerError: the spools were not empty in time.

        """
        deadline = time.monotonic() + timeout
        while count := self.spooled_events():
            if time.monotonic() > deadline:
                raise ServerError(self._with_log(f"{count} events are still in the spool"))
            time.sleep(poll_seconds)

    def error_lines(self) -> list[str]:
        """Return the lines of its log that indicate a bug."""
        return [line for line in self.log.splitlines() if "Traceback" in line or "shipper_failed" in line]

    def _has_all_workers(self) -> bool:
        workers = int(str(self.settings.get("workers", 1)))
        # Each worker has its own socket, listening on the shared port.
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

    def _with_log(self, message: str) -> str:
        return f"{message}; its log: {self.log[-_MAX_LOG_CHARACTERS:]}"


@contextlib.contextmanager
def running_server(data: Path, **settings: object) -> Iterator[Server]:
    """Run a server during the block; fail if its log indicates a bug.

    Raises:
        ServerError: it failed to start or stop, or logged errors.

    """
    server = Server(data, **settings)
    try:
        server.start()
        yield server
        errors = server.error_lines()
        code = server.stop() if server.is_running else 0
    finally:
        if server.is_running:
            server.kill()
    errors = errors or server.error_lines()
    if errors or code:
        raise ServerError(f"the server exited with {code}, and logged: {' '.join(errors)[:_MAX_LOG_CHARACTERS]}")


def unique_name(prefix: str = "x") -> str:
    """Return a unique name."""
    return f"{prefix}{secrets.token_hex(8)}"


def delete_indices(elasticsearch: str, prefix: str) -> None:
    """Delete an installation's indices, its state and its templates from a node."""
    url = f"{elasticsearch}/_cat/indices/{prefix}-*?h=index&format=json&expand_wildcards=all"
    with urllib.request.urlopen(url, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310  # our own node
        indices: Sequence[dict[str, str]] = orjson.loads(response.read())
    paths = [*(f"/{index['index']}" for index in indices), f"/state-{prefix}", f"/_index_template/{prefix}"]
    paths += [f"/_component_template/{prefix}@{name}" for name in ("defaults", "custom")]
    for path in paths:
        request = urllib.request.Request(elasticsearch + path, method="DELETE")  # noqa: S310  # our own node
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS).close()  # noqa: S310  # our own node


def refresh_indices(elasticsearch: str, prefix: str) -> None:
    """Refresh an installation's indices, so that queries see all its documents."""
    request = urllib.request.Request(f"{elasticsearch}/{prefix}-*/_refresh", b"", method="POST")  # noqa: S310  # our own node
    with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS):  # noqa: S310  # our own node
        pass


def _read_command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")
    except OSError:
        return ""
