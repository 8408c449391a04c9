"""Hosts as processes on the loopback, each as it would be run for real, and what is sent to them."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import orjson

from tests.middleware.hosts.settings import ENVIRONMENT
from tests.servers import Server, free_port

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 30
STOP_SECONDS: Final = 30
AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
REFERER: Final = "https://www.example.org/links/"
VISITOR: Final = {
    "User-Agent": AGENT,
    "Referer": REFERER,
    "Accept-Language": "de, en;q=0.5",
    "X-Forwarded-For": "203.0.113.77",
}

_HOSTS: Final = "tests.middleware.hosts"
_ASGI: Final = ("-m", "uvicorn", "--host", "127.0.0.1", "--no-access-log", "--no-proxy-headers")
_WSGI: Final = ("-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "20")
KINDS: Final = {
    "uvicorn, FastAPI": (*_ASGI, "--port", "{port}", f"{_HOSTS}.with_fastapi:app"),
    "uvicorn with two workers, FastAPI": (
        *_ASGI,
        "--port",
        "{port}",
        "--workers",
        "2",
        f"{_HOSTS}.with_fastapi:app",
    ),
    "uvicorn, Starlette": (*_ASGI, "--port", "{port}", f"{_HOSTS}.with_starlette:app"),
    "uvicorn, Django": (*_ASGI, "--port", "{port}", f"{_HOSTS}.with_django:asgi_application"),
    "gunicorn sync, Flask": (*_WSGI, f"{_HOSTS}.with_flask:application"),
    "gunicorn threads, Flask": (
        *_WSGI,
        "--worker-class",
        "gthread",
        "--threads",
        "4",
        f"{_HOSTS}.with_flask:application",
    ),
    "gunicorn preload, Flask": (*_WSGI, "--preload", "--workers", "2", f"{_HOSTS}.with_flask:application"),
    "gunicorn, Django": (*_WSGI, "--workers", "2", f"{_HOSTS}.with_django:application"),
    "aiohttp": ("-m", f"{_HOSTS}.with_aiohttp", "{port}"),
}
WITH_WEBSOCKETS: Final = ("uvicorn, FastAPI", "aiohttp")


class Reply(NamedTuple):
    """What a host answered."""

    status: int
    body: bytes


class Host:
    """A host that runs.

    Args:
        port: where it listens.
        process: its (main) process.
        log: what it has written.

    """

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace")

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send one request, as the visitor of the tests sends them."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            given = VISITOR | ({"Content-Type": "application/octet-stream"} if body is not None else {})
            line.request(method, path, body, given | dict(headers or {}))
            response = line.getresponse()
            return Reply(response.status, response.read())
        finally:
            line.close()

    def stop(self) -> int:
        """End it with SIGTERM, as a supervisor does; returns its exit code."""
        self._process.terminate()
        return self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def hosting(kind: str, folder: Path, **config: Any) -> Iterator[Host]:
    """Run a host of one of the `KINDS`, with a client that is configured so.

    Raises:
        AssertionError: it does not start.

    """
    port = free_port()
    command = [sys.executable, *(part.format(port=port) for part in KINDS[kind])]
    log = folder / "host.log"
    environment = os.environ | {ENVIRONMENT: json.dumps(config), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
    host = Host(port, process, log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(host):
            assert process.poll() is None, host.log
            assert time.monotonic() < deadline, host.log
            time.sleep(0.05)
        yield host
    finally:
        host.kill()


def _answers(host: Host) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return host.ask("/health").status == 200
    return False


def documents(server: Server) -> list[dict[str, Any]]:
    """End a Metronome that has shipped everything, and return what is in its store, by time."""
    server.wait_until_shipped()
    assert server.stop() == 0
    with duckdb.connect(server.data / "metronome.duckdb", read_only=True) as database:
        rows: Sequence[Any] = database.execute(
            "SELECT doc::VARCHAR FROM events ORDER BY doc->>'$.\"@timestamp\"'"
        ).fetchall()
    return [orjson.loads(doc) for (doc,) in rows]
