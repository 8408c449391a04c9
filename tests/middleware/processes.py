"""Hosts: real services with the middleware, run as processes under the servers that people use."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.installations import read_stored_documents
from tests.middleware.hosts.settings import ENVIRONMENT
from tests.servers import Server, free_port

ROOT: Final = Path(__file__).parents[2]
START_SECONDS: Final = 30
STOP_SECONDS: Final = 30
AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
REFERER: Final = "https://www.example.org/links/"
VISITOR_HEADERS: Final = {
    "User-Agent": AGENT,
    "Referer": REFERER,
    "Accept-Language": "de, en;q=0.5",
    "X-Forwarded-For": "203.0.113.77",
}

_HOSTS: Final = "tests.middleware.hosts"
_ASGI: Final = ("-m", "uvicorn", "--host", "127.0.0.1", "--no-access-log", "--no-proxy-headers", "--port", "{port}")
_WSGI: Final = ("-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "20")
_FLASK: Final = f"{_HOSTS}.with_flask:application"
HOSTS: Final = {
    "uvicorn, FastAPI": (*_ASGI, f"{_HOSTS}.with_fastapi:app"),
    "uvicorn with two workers, FastAPI": (*_ASGI, "--workers", "2", f"{_HOSTS}.with_fastapi:app"),
    "uvicorn, Starlette": (*_ASGI, f"{_HOSTS}.with_starlette:app"),
    "uvicorn, Django": (*_ASGI, f"{_HOSTS}.with_django:asgi_application"),
    "gunicorn threads, Flask": (*_WSGI, "--worker-class", "gthread", "--threads", "4", _FLASK),
    "gunicorn preload, Flask": (*_WSGI, "--preload", "--workers", "2", _FLASK),
    "gunicorn, Django": (*_WSGI, "--workers", "2", f"{_HOSTS}.with_django:application"),
    "aiohttp": ("-m", f"{_HOSTS}.with_aiohttp", "{port}"),
}
"""Arguments of Python for each host."""
WITH_WEBSOCKETS: Final = ("uvicorn, FastAPI", "aiohttp")


class Reply(NamedTuple):
    """A host's response."""

    status: int
    body: bytes


class Host:
    """A running host.

    Args:
        port: the port it listens on.
        process: its main process.
        log: the file of its output.

    """

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """Its output."""
        return self._log.read_text(errors="replace")

    def request(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request with the headers of the tests' visitor."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            content_type = {"Content-Type": "application/octet-stream"} if body is not None else {}
            connection.request(method, path, body, VISITOR_HEADERS | content_type | dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.read())
        finally:
            connection.close()

    def stop(self) -> int:
        """Stop it by SIGTERM, as a supervisor does; return its exit code."""
        self._process.terminate()
        return self._process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Kill it if it is running."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def hosting(name: str, folder: Path, **config: Any) -> Iterator[Host]:
    """Run one of `HOSTS` with a `ClientConfig`.

    Raises:
        AssertionError: it does not start.

    """
    port = free_port()
    command = [sys.executable, *(part.format(port=port) for part in HOSTS[name])]
    log = folder / "host.log"
    environment = os.environ | {ENVIRONMENT: json.dumps(config), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
    host = Host(port, process, log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_healthy(host):
            assert process.poll() is None, host.log
            assert time.monotonic() < deadline, host.log
            time.sleep(0.05)
        yield host
    finally:
        host.kill()


def _is_healthy(host: Host) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return host.request("/health").status == 200
    return False


def stored_events(server: Server) -> list[dict[str, Any]]:
    """Stop a Metronome server that has shipped everything, and return its store's documents by timestamp."""
    server.wait_until_shipped()
    assert server.stop() == 0
    return read_stored_documents(server.data)
