"""What an operator sees of a server in trouble: its health, its log and its metrics."""

import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import orjson

from tests.servers import REQUEST_TIMEOUT_SECONDS, Server

_TIMEOUT_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05


def wait_until(condition: Callable[[], object], what: str, timeout: float = _TIMEOUT_SECONDS) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it did not hold in time.

    """
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(_POLL_SECONDS)


def health(server: Server, part: str) -> str:
    """Return the status of a part of a server, as its health says."""
    return str(server.get(f"/health/ready/{part}")[part]["status"])


def is_ready(server: Server) -> bool:
    """Return whether the server says that it accepts events."""
    return bool(server.get("/health/ready")["status"] == "ok")


def log_lines(server: Server, event: str) -> list[dict[str, Any]]:
    """Return the lines of a server's log with an event."""
    lines = (line for line in server.log.splitlines() if line.startswith("{"))
    return [line for line in map(orjson.loads, lines) if line.get("event") == event]


def failures(server: Server) -> Counter[str]:
    """Return how many shipments of a server failed, by reason, as its metrics say."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
        text = response.read().decode()
    prefix = 'metronome_shipment_failures_total{reason="'
    samples = (line.removeprefix(prefix).split('"} ') for line in text.splitlines() if line.startswith(prefix))
    return Counter({reason: int(float(count)) for reason, count in samples})


def status_of(server: Server, path: str) -> int:
    """Return the HTTP status of a GET request."""
    try:
        with urllib.request.urlopen(server.url + path, timeout=REQUEST_TIMEOUT_SECONDS) as response:  # noqa: S310  # our own server
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
