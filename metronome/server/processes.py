"""Server processes: event loop and signals, the pool of workers, and the relay from a worker to the main process."""

import asyncio
import contextlib
import errno
import gc
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import structlog
import uvloop
from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, UnixConnector, web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from yarl import URL

from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import FORWARDED_HEADER, FORWARDED_SCHEME_HEADER, ClientAddress
from metronome.config import ENV_PREFIX, FILE_SUFFIX, SECRET_SETTINGS, Settings
from metronome.errors import MetronomeError, StoreUnavailable
from metronome.protocol import bearer_token
from metronome.reports.tables import MEDIA_TYPES
from metronome.scopes import Scope
from metronome.web.bodies import read_body
from metronome.web.problems import problem_response

_GC_THRESHOLD = 20_000
_SWITCH_SECONDS: Final = 0.0005
"""How long the event loop waits for a thread that runs Python, such as one that builds a report; by default 5 ms."""
_COLLECTION_SECONDS: Final = 30.0
"""A full collection stops the process for 1 to 15 ms: 50,000 objects take 10 ms."""
_OPEN_FILES_LIMIT = 65_536
"""Maximum number of connections and files, if the system permits; the common limit of 1,024 is soon reached."""


def run_process(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a process until it is stopped by a signal.

    Args:
        main: must return soon after its event is set, by SIGTERM or SIGINT.

    """
    _raise_open_files_limit()
    # Requests leave few reference cycles, so collecting rarely saves 5 % of the time. With these thresholds, a full
    # collection practically never happens; `_collect_garbage` runs one at intervals, since few objects can hold much
    # memory.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 50, 100)
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        uvloop.run(_run_until_signal(main))
    finally:
        # DuckDB reports objects that are frozen at exit as leaked.
        gc.unfreeze()


def _raise_open_files_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES_LIMIT if hard == resource.RLIM_INFINITY else min(_OPEN_FILES_LIMIT, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run_until_signal(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    collecting = asyncio.create_task(_collect_garbage())
    try:
        await main(stop)
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)


async def _collect_garbage() -> None:
    """Run a full garbage collection at regular intervals."""
    while True:
        await asyncio.sleep(_COLLECTION_SECONDS)
        gc.collect()


_RELAY_TIMEOUT_SECONDS: Final = 60.0
_FORWARDED_HEADERS: Final = (
    "Accept",
    "Accept-Encoding",
    "Content-Type",
    "Cookie",
    "Host",
    "If-None-Match",
    "Origin",
    "Authorization",
    "Access-Control-Request-Method",
    "Access-Control-Request-Headers",
    "Sec-Fetch-Site",
)
_BODY_SCOPES: Final = {
    "/documents": Scope.IMPORT,
    **dict.fromkeys(("/query", *(f"/query.{suffix}" for suffix in MEDIA_TYPES)), Scope.QUERY),
}
"""What the paths with large bodies need: the main process, which authorizes requests, gets whole ones only."""
_OTHER_BODY_MAX_BYTES: Final = 64 * 1024
_DROPPED_HEADERS: Final = frozenset(
    {"Connection", "Content-Length", "Date", "Keep-Alive", "Server", "Transfer-Encoding"}
)


class MainProcessRelay:
    """Forwards requests from a worker to the main process.

    Args:
        socket_path: the Unix socket of the main process.
        max_bytes: maximum size of a request body, decompressed.
        client_address: finds the client's IP address and scheme, which are forwarded, too.
        authorizer: decides whose bodies are read.

    """

    def __init__(self, socket_path: str, max_bytes: int, client_address: ClientAddress, authorizer: Authorizer) -> None:
        self._max_bytes = max_bytes
        self._client_address = client_address
        self._authorizer = authorizer
        self._session = ClientSession(
            connector=UnixConnector(socket_path),
            timeout=ClientTimeout(total=_RELAY_TIMEOUT_SECONDS),
            auto_decompress=False,
            # A cookie that one client receives must not be sent with the requests of others.
            cookie_jar=DummyCookieJar(),
            # Responses are compressed for the client, not for the relay.
            skip_auto_headers=("Accept-Encoding",),
        )

    async def __aenter__(self) -> Self:
        """Return this relay."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._session.close()

    async def handle(self, request: web.Request, prefix: str = "") -> web.Response:
        """Return the response of the main process to a request, with *prefix* before the path."""
        try:
            body = await self._read_body(request) if request.body_exists else b""
            return await self._relay_request(request, body, prefix)
        except MetronomeError as error:
            return problem_response(error)

    async def _read_body(self, request: web.Request) -> bytes:
        """Return a request's body, if its client may send one as large as that."""
        scope = _BODY_SCOPES.get(request.path)
        if scope is None:
            return await read_body(request, min(self._max_bytes, _OTHER_BODY_MAX_BYTES))
        await self._authorizer.authorize(
            scope,
            bearer_token(request.headers),
            request.headers.get("Origin", ""),
            is_local=self._client_address.is_local(request),
        )
        return await read_body(request, self._max_bytes)

    async def _relay_request(self, request: web.Request, body: bytes, prefix: str) -> web.Response:
        headers = {name: request.headers[name] for name in _FORWARDED_HEADERS if name in request.headers}
        headers[FORWARDED_HEADER] = self._client_address.resolve_request(request)
        headers |= self._client_address.describe_local(request)
        headers[FORWARDED_SCHEME_HEADER] = self._client_address.resolve_scheme(request)
        # Not the raw path, which may start with a scheme and a host.
        url = URL(f"http://main{prefix}{request.rel_url.raw_path_qs}", encoded=True)
        try:
            async with self._session.request(
                request.method, url, data=body or None, headers=headers, allow_redirects=False
            ) as response:
                body = await response.read()
                response_headers = CIMultiDict(
                    (name, value) for name, value in response.headers.items() if name.title() not in _DROPPED_HEADERS
                )
        except (ClientError, TimeoutError, OSError) as error:
            raise StoreUnavailable(f"the main process does not respond: {type(error).__name__}") from error
        return web.Response(status=response.status, body=body, headers=response_headers)


log = structlog.get_logger()

SPOOL_FOLDER_VARIABLE = "METRONOME_WORKER_FOLDER"
SOCKET_VARIABLE = "METRONOME_WORKER_SOCKET"
COMMIT_PIPE_VARIABLE = "METRONOME_WORKER_COMMIT_PIPE"
"""The descriptor of the pipe by which a worker reports commits to its spool."""
_PIPE_READ_BYTES = 65_536
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_RESTART_SECONDS = 0.5
_PORT_TIMEOUT_SECONDS = 5.0


class WorkerPool:
    """Worker processes, restarted when they exit.

    Args:
        settings: of the installation.
        folders: the spool of each worker.
        scratch: a temporary folder for the main process's socket and the workers' metrics.

    """

    def __init__(self, settings: Settings, folders: Sequence[Path], scratch: Path) -> None:
        self.socket_path = scratch / "main.sock"
        self._settings = settings
        self._folders = folders
        self._metrics = scratch / "metrics"
        self._metrics.mkdir()
        self._port = settings.port
        self._stopping = False
        self._supervisors: list[asyncio.Task[None]] = []
        self._processes: dict[Path, asyncio.subprocess.Process] = {}
        self._commit_pipes: list[CommitPipe] = []

    async def start(self, on_commit: Callable[[Path], None]) -> None:
        """Start the workers, once their ports are free.

        Args:
            on_commit: called with the folder of a worker's spool after commits to it.

        Raises:
            OSError: a port is in use.

        """
        # Workers share the port; without a check, they would also share it with another program that uses it.
        self._port = await _wait_for_free_port(self._settings.host, self._settings.port)
        for port in (self._settings.hit_port, *_listener_ports(self._settings)):
            if port is not None:
                await _wait_for_free_port(self._settings.host, port)
        for port in _listener_ports(self._settings):
            if port is not None:
                await _wait_for_free_port(self._settings.host, port, socket.SOCK_DGRAM)
        self._supervisors = [asyncio.create_task(self._supervise(folder, on_commit)) for folder in self._folders]

    async def stop(self) -> None:
        """Stop the workers; they complete their responses first."""
        self._stopping = True
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        _, late = await asyncio.wait(self._supervisors, timeout=self._settings.stop_seconds + 1)
        for process in self._processes.values() if late else ():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.gather(*self._supervisors, return_exceptions=True)

    def report_commits(self) -> None:
        """Call back now for all commits that workers have reported.

        A worker reports a commit before it replies, but the event loop may get a later request first.
        """
        for pipe in self._commit_pipes:
            pipe.read()

    def collect_metrics(self) -> CollectorRegistry:
        """Return the sums of the workers' metrics."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._metrics))  # type: ignore[no-untyped-call]
        return registry

    async def _supervise(self, folder: Path, on_commit: Callable[[Path], None]) -> None:
        with open_commit_pipe(lambda: on_commit(folder)) as commit_pipe:
            self._commit_pipes.append(commit_pipe)
            try:
                await self._run_worker(folder, commit_pipe.descriptor)
            finally:
                self._commit_pipes.remove(commit_pipe)

    async def _run_worker(self, folder: Path, commit_pipe: int) -> None:
        """Run a worker, and restart it when it exits."""
        secret_files = {f"{ENV_PREFIX}{name.upper()}{FILE_SUFFIX}" for name in SECRET_SETTINGS}
        environment = {
            # The secrets themselves are among the settings.
            **{name: value for name, value in os.environ.items() if name.upper() not in secret_files},
            **_settings_to_environment(self._settings),
            f"{ENV_PREFIX}PORT": str(self._port),
            SPOOL_FOLDER_VARIABLE: str(folder),
            SOCKET_VARIABLE: str(self.socket_path),
            _METRICS_VARIABLE: str(self._metrics),
        }
        while not self._stopping:
            process = await start_worker_process(environment, commit_pipe)
            self._processes[folder] = process
            if self._stopping:
                process.terminate()
            code = await process.wait()
            mark_process_dead(process.pid, path=str(self._metrics))  # type: ignore[no-untyped-call]
            if not self._stopping:
                log.error(
                    "worker_died",
                    spool=str(folder),
                    code=code,
                    error=f"the worker exited with {code}",
                    advice="see its log lines before this one; it is restarted, and its spool is kept",
                )
                await asyncio.sleep(_RESTART_SECONDS)


class CommitPipe(NamedTuple):
    """A pipe by which a worker reports commits.

    Attributes:
        descriptor: the worker writes a byte to it for each commit.
        read: calls back if there is an unread report.

    """

    descriptor: int
    read: Callable[[], None]


@contextlib.contextmanager
def open_commit_pipe(on_commit: Callable[[], None]) -> Iterator[CommitPipe]:
    """Yield a pipe for a worker to report commits, and call back when it does."""
    loop = asyncio.get_running_loop()
    reading_end, writing_end = os.pipe()
    for end in (reading_end, writing_end):
        os.set_blocking(end, False)

    def read() -> None:
        try:
            os.read(reading_end, _PIPE_READ_BYTES)
        except BlockingIOError:
            return
        on_commit()

    loop.add_reader(reading_end, read)
    try:
        yield CommitPipe(writing_end, read)
    finally:
        loop.remove_reader(reading_end)
        os.close(reading_end)
        os.close(writing_end)


async def start_worker_process(environment: Mapping[str, str], commit_pipe: int) -> asyncio.subprocess.Process:
    """Start a worker process, which writes to a pipe for each commit.

    Its standard input is a pipe that this process never writes to: the worker stops when the pipe closes, which
    happens when this process exits, however it exits.
    """
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "metronome.server.worker",
        env={**environment, COMMIT_PIPE_VARIABLE: str(commit_pipe)},
        stdin=asyncio.subprocess.PIPE,
        pass_fds=(commit_pipe,),
    )


@contextlib.asynccontextmanager
async def open_worker_pool(settings: Settings, folders: Sequence[Path]) -> AsyncIterator[WorkerPool]:
    """Yield a pool of workers that are not started yet, and delete its temporary folder at the end of the block."""
    # Not in the data folder: the path of a Unix socket must be short.
    scratch = Path(tempfile.mkdtemp(prefix="metronome-"))
    try:
        yield WorkerPool(settings, folders, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _listener_ports(settings: Settings) -> tuple[int | None, ...]:
    """Return the ports that use both UDP and TCP."""
    return settings.forward_port, settings.syslog_port


async def _wait_for_free_port(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return the port once no other process listens on it.

    Workers whose main process was killed need a moment to exit.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + _PORT_TIMEOUT_SECONDS
    while True:
        with socket.socket(family, kind) as probe:
            # With datagrams, this would let several sockets use the port.
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


def _settings_to_environment(settings: Settings) -> dict[str, str]:
    values = settings.model_dump()
    values |= {name: ",".join(value) for name, value in values.items() if isinstance(value, tuple)}
    values["public"] = ",".join(settings.public) or "none"
    values["trusted_proxies"] = ",".join(settings.trusted_proxies) or "none"
    values |= {name: f"{int(value.total_seconds())}s" for name, value in values.items() if isinstance(value, timedelta)}
    values["spool_max_bytes"] = settings.spool_max_bytes // settings.workers
    return {f"{ENV_PREFIX}{name.upper()}": "" if value is None else str(value) for name, value in values.items()}
