"""A real HTTP server that keeps what it is sent, and answers as it is told."""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import orjson


class Received(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


class Said(NamedTuple):
    """One answer; None as the status closes the line without one."""

    status: int | None
    body: bytes = b""
    headers: dict[str, str] | None = None


class Recorder:
    """What came in so far.

    Args:
        answer: says what each request is answered with.

    """

    def __init__(self, answer: Callable[[Received], Said]) -> None:
        self.answer = answer
        self.closed = 0
        self.received: list[Received] = []
        self.url = ""

    def wait_for(self, count: int) -> None:
        """Wait until so many requests have come."""
        deadline = time.monotonic() + 30
        while len(self.received) < count:
            assert time.monotonic() < deadline, self.received
            time.sleep(0.01)


def accepting(received: Received) -> Said:
    """Answer as Metronome does, or as Matomo does, that all is well."""
    if received.path == "/tick":
        return Said(200, orjson.dumps({"accepted": len(received.body.splitlines()), "rejected": []}))
    count = len(orjson.loads(received.body)["requests"])
    return Said(200, orjson.dumps({"status": "success", "tracked": count, "invalid": 0}))


@contextlib.contextmanager
def recording(
    answer: Callable[[Received], Said] = accepting,
    idle_seconds: float | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Recorder]:
    """Run such a server while the context lasts.

    Args:
        answer: says what each request is answered with.
        idle_seconds: after how long it closes a line over which nothing comes.
        tls: with what it speaks TLS, if it does.

    """
    recorder = Recorder(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = idle_seconds

        def finish(self) -> None:
            super().finish()
            recorder.closed += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received = Received(self.path, headers, body)
            said = recorder.answer(received)
            recorder.received.append(received)
            if said.status is None:
                self.close_connection = True
                return
            self.send_response_only(said.status)
            for name, value in {"Content-Length": str(len(said.body)), **(said.headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        recorder.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
