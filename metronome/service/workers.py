"""The crew of worker processes, as the main process sees it."""

import asyncio
import contextlib
import errno
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from metronome.config import PREFIX, Settings

log = structlog.get_logger()

FOLDER_VARIABLE = "METRONOME_WORKER_FOLDER"
SOCKET_VARIABLE = "METRONOME_WORKER_SOCKET"
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_RESTART_SECONDS = 0.5
_FREE_SECONDS = 5.0


class Crew:
    """Worker processes that are started again when they die.

    Args:
        settings: what they are started with.
        folders: the spool of each.
        scratch: a folder for what lives as long as the crew: the main process's socket, the workers' metrics.

    """

    def __init__(self, settings: Settings, folders: Sequence[Path], scratch: Path) -> None:
        self.socket = scratch / "main.sock"
        self._settings = settings
        self._folders = folders
        self._metrics = scratch / "metrics"
        self._metrics.mkdir()
        self._port = settings.port
        self._stopping = False
        self._keepers: list[asyncio.Task[None]] = []
        self._processes: dict[Path, asyncio.subprocess.Process] = {}

    async def start(self) -> None:
        """Start the workers, once the address is known to be free.

        Raises:
            OSError: it is not.

        """
        # Workers share the port, and so would a stranger who has it already: look before they leap.
        self._port = await _port_to_have(self._settings.host, self._settings.port)
        for port in (self._settings.hit_port, *_streams(self._settings)):
            if port is not None:
                await _port_to_have(self._settings.host, port)
        for port in _streams(self._settings):
            if port is not None:
                await _port_to_have(self._settings.host, port, socket.SOCK_DGRAM)
        self._keepers = [asyncio.create_task(self._keep(folder)) for folder in self._folders]

    async def stop(self) -> None:
        """Let the workers finish their replies, and end them."""
        self._stopping = True
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        _, late = await asyncio.wait(self._keepers, timeout=self._settings.stop_seconds + 1)
        for process in self._processes.values() if late else ():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def collect(self) -> CollectorRegistry:
        """Return what the workers count, added up."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._metrics))  # type: ignore[no-untyped-call]
        return registry

    async def _keep(self, folder: Path) -> None:
        environment = {
            **os.environ,
            **_as_environment(self._settings),
            f"{PREFIX}PORT": str(self._port),
            FOLDER_VARIABLE: str(folder),
            SOCKET_VARIABLE: str(self.socket),
            _METRICS_VARIABLE: str(self._metrics),
        }
        while not self._stopping:
            process = await asyncio.create_subprocess_exec(
                # It reads nothing, but sees the end of the pipe when this process is no more.
                sys.executable,
                "-m",
                "metronome.service.worker",
                env=environment,
                stdin=asyncio.subprocess.PIPE,
            )
            self._processes[folder] = process
            if self._stopping:
                process.terminate()
            code = await process.wait()
            mark_process_dead(process.pid, path=str(self._metrics))  # type: ignore[no-untyped-call]
            if not self._stopping:
                log.error("worker_died", spool=str(folder), code=code)
                await asyncio.sleep(_RESTART_SECONDS)


@contextlib.asynccontextmanager
async def running(settings: Settings, folders: Sequence[Path]) -> AsyncIterator[Crew]:
    """Make a crew, not started yet, and the folder that it needs while the block runs."""
    # Not in the data folder: the path of a Unix socket must be short.
    scratch = Path(tempfile.mkdtemp(prefix="metronome-"))
    try:
        yield Crew(settings, folders, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _streams(settings: Settings) -> tuple[int | None, ...]:
    """Return the ports that are listened at over UDP as well as TCP."""
    return settings.forward_port, settings.syslog_port


async def _port_to_have(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return the port to listen on, once nobody else does.

    Workers whose main process was killed need a moment to go away.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + _FREE_SECONDS
    while True:
        with socket.socket(family, kind) as probe:
            # For datagrams this would mean that several may have the port.
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
            else:
                return int(probe.getsockname()[1])
        await asyncio.sleep(_RESTART_SECONDS)


def _as_environment(settings: Settings) -> dict[str, str]:
    values = settings.model_dump()
    values |= {name: ",".join(value) for name, value in values.items() if isinstance(value, tuple)}
    values["public"] = ",".join(settings.public) or "none"
    values["trusted_proxies"] = ",".join(settings.trusted_proxies) or "none"
    values |= {name: f"{int(value.total_seconds())}s" for name, value in values.items() if isinstance(value, timedelta)}
    values["spool_max_bytes"] = settings.spool_max_bytes // settings.workers
    return {f"{PREFIX}{name.upper()}": "" if value is None else str(value) for name, value in values.items()}
