"""The process that `tests.forking` has fork: run as a script, it imports Metronome, and forks for each request."""

import asyncio
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson
from prometheus_client import values

import metronome.state.elasticsearch
import metronome.stores.duckdb
import metronome.stores.elasticsearch  # noqa: F401  # the command imports only the store that it uses
from metronome.cli import main
from metronome.enrich.user_agents import parse_user_agent
from metronome.server import processes, worker
from tests.forking import CODE_BYTES, ForkedProcess, worker_name

_BROWSER: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_REQUEST_BYTES: Final = 200_000
_MOST_FILES: Final = 1 << 16
_COMMIT_PIPE: Final = 3
"""The file descriptor after the standard streams."""


def serve() -> Callable[[], None]:
    """Fork for each request; exit once there can be no more requests.

    Returns:
        in the forked processes: what they are to run.

    """
    # Reads the lists of user agents, once for all.
    parse_user_agent(_BROWSER)
    control = socket.socket(fileno=int(sys.argv[1]))
    workers = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    workers.bind(f"\0metronome-tests-{os.getpid()}")
    workers.listen()
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Ctrl-C ends pytest, and that ends this process.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    sources: list[socket.socket | int] = [control, workers, wake]
    reports: dict[int, int] = {}
    while True:
        ready, _, _ = select.select(sources, [], [])
        if wake in ready:
            os.read(wake, 1000)
            _reap(reports)
        for listener in {control, workers}.intersection(ready):
            connection = control if listener is control else workers.accept()[0]
            request, files, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 5)
            if not request and connection is control:
                _kill_all(reports)
            if not request:
                # A main process was killed before it asked for its worker.
                connection.close()
                continue
            report, *streams = files
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, before)
                for left in (control, connection, workers):
                    left.close()
                return _become(orjson.loads(request), streams)
            reports[pid] = report
            for stream in streams:
                os.close(stream)
            connection.send(pid.to_bytes(CODE_BYTES, "little"))
            if connection is not control:
                connection.close()


def _kill_all(processes: Mapping[int, int]) -> NoReturn:
    # Pytest has exited: if it was killed, there may be servers that it has not stopped.
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _reap(reports: dict[int, int]) -> None:
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        report = reports.pop(pid)
        with suppress(OSError):
            os.write(report, os.waitstatus_to_exitcode(status).to_bytes(CODE_BYTES, "little", signed=True))
        os.close(report)


def _become(request: dict[str, Any], streams: list[int]) -> Callable[[], None]:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(len(streams), min(_MOST_FILES, os.sysconf("SC_OPEN_MAX")))
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    if "worker_of" in request:
        Path("/proc/self/comm").write_text(worker_name(request["worker_of"]))
        os.environ[processes.COMMIT_PIPE_VARIABLE] = str(_COMMIT_PIPE)
        # It chose by the environment as it was imported.
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]
        sys.argv = ["-m"]
        return worker.main
    address = f"\0metronome-tests-{os.getppid()}"
    processes.start_worker_process = partial(_start_worker, address)
    sys.argv = ["-c", *request["arguments"]]
    return main


class _ForkedWorker:
    """A forked worker, with the methods of `asyncio.subprocess.Process` that its main process needs."""

    def __init__(self, pid: int, ended: int, stdin: int) -> None:
        self.pid = pid
        self._process = ForkedProcess(pid, ended)
        self._ended = ended
        self._stdin = stdin

    async def wait(self) -> int:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._ended, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._ended)
        os.close(self._stdin)
        return self._process.wait()

    def terminate(self) -> None:
        self._send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._send_signal(signal.SIGKILL)

    def _send_signal(self, number: int) -> None:
        # Not by the process's own method: that one closes the pipe once the worker has exited, and `wait` reads it.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


async def _start_worker(address: str, environment: Mapping[str, str], commit_pipe: int) -> Any:
    """Start a worker as `metronome.server.processes.start_worker_process` does."""
    request = orjson.dumps({"environment": environment, "folder": str(Path.cwd()), "worker_of": os.getpid()})
    ended, report = os.pipe()
    read, stdin = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(address)
        socket.send_fds(connection, [request], [report, read, 1, 2, commit_pipe])
        for sent in (read, report):
            os.close(sent)
        pid = int.from_bytes(connection.recv(CODE_BYTES), "little")
    return _ForkedWorker(pid, ended, stdin)


if __name__ == "__main__":
    # The forked process returns from `serve`, and then runs and exits as the command or the worker itself does.
    serve()()
