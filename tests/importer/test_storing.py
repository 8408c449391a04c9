"""An import ends when the server has stored everything, and says how much of it was new."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from metronome.cli import app
from metronome.importer.storing import Counters, Stored, StoreWatch
from metronome.server_client import ServerClient
from tests.servers import Server, unique_name

LINE = '203.0.113.9 - - [17/May/2015:10:05:03 +0000] "GET {} HTTP/1.1" 200 5 "-" "Mozilla/5.0 (X11) Firefox/140.0"\n'


def test_an_import_says_what_was_stored_and_what_was_known_before(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    item = unique_name("/item-")
    log.write_text("".join(LINE.format(f"{item}/{number}") for number in range(20)))
    rows = []
    for more in ("", LINE.format(item) * 3):
        with log.open("a") as file:
            file.write(more)
        server.wait_until_shipped()
        result = CliRunner().invoke(app, ["import", str(log), "--url", server.url])
        assert result.exit_code == 0, result.output
        rows.append(dict(re.findall(r"^ *(stored|new|known before) +(\d+)$", result.stdout, re.MULTILINE)))
        # Without a wait: the command has waited.
        assert server.get(f"/query?id={item}/7&by=event")["rows"] == [["view", 1]]
    assert rows == [
        {"stored": "20", "new": "20", "known before": "0"},
        {"stored": "23", "new": "3", "known before": "20"},
    ]


class Fake:
    """A server whose health and metrics are given: one after another, the last one again and again."""

    def __init__(self) -> None:
        self.pending: list[tuple[int, float] | None] = []
        self.metrics: list[Counters | int] = []
        self.url = ""

    def respond(self, path: str) -> tuple[int, bytes]:
        if path == "/metrics":
            counters = self.metrics.pop(0) if len(self.metrics) > 1 else self.metrics[0]
            if isinstance(counters, int):
                return counters, b"{}"
            names = ("accepted", "shipped", "duplicate", "dead")
            pairs = zip(names, counters, strict=True)
            return 200, "".join(f"metronome_events_{name}_total {value}.0\n" for name, value in pairs).encode()
        pending = self.pending.pop(0) if len(self.pending) > 1 else self.pending[0]
        if pending is None:
            return 503, b'{"title":"StoreUnavailable","detail":"it is away"}'
        return 200, b'{"status":"ok","store":{"status":"ok","events":%d,"oldest_seconds":%f}}' % pending


@pytest.fixture
def fake() -> Iterator[Fake]:
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # as the standard library calls it
            status, body = fake.respond(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Do not log requests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        fake.url = f"http://127.0.0.1:{listening.server_port}"
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            listening.shutdown()
            thread.join()


COUNTED = Stored(is_complete=True, counters=Counters(7, 6, 1, 0))
OTHERS = "other events were sent meanwhile"


@pytest.mark.parametrize(
    ("pending", "metrics", "expected"),
    [
        ([(5, 9.0), (0, 0.0)], [(1, 1, 0, 0), (8, 7, 1, 0)], COUNTED),
        # The store has the events before they are counted.
        ([(0, 0.0)], [(1, 1, 0, 0), (8, 1, 0, 0), (8, 7, 1, 0)], COUNTED),
        # Others have sent three events, which wait longer than the import.
        ([(3, 0.0)], [(1, 1, 0, 0), (9, 9, 0, 0)], Stored(is_complete=True, reason=OTHERS)),
        ([(0, 0.0)], [403], Stored(is_complete=True, reason="that needs a key with the scope query")),
        ([None, None, (0, 0.0)], [404], Stored(is_complete=True, reason="the server does not report it")),
    ],
)  # fmt: skip
def test_new_and_known_are_exact_or_not_said(
    fake: Fake, pending: list[Any], metrics: list[Any], expected: Stored
) -> None:
    fake.pending = pending
    fake.metrics = [Counters(*counters) if isinstance(counters, tuple) else counters for counters in metrics]
    assert StoreWatch(ServerClient(fake.url), 5).wait(7) == expected


def test_a_store_that_stays_unavailable_is_reported(fake: Fake) -> None:
    fake.pending, fake.metrics = [None], [Counters(0, 0, 0, 0)]
    stored = StoreWatch(ServerClient(fake.url), 0.2).wait(7)
    assert stored is not None
    assert not stored.is_complete
    assert "it is away" in stored.reason
