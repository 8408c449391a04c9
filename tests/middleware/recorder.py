"""A real HTTP server that keeps the requests it receives and responds as a test specifies."""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import orjson


class ReceivedRequest(NamedTuple):
    """A request that the server has received."""

    path: str
    headers: dict[str, str]
    body: bytes


class CannedResponse(NamedTuple):
    """A response; a status of None closes the connection without one."""

    status: int | None
    body: bytes = b""
    headers: dict[str, str] | None = None


Respond = Callable[[ReceivedRequest], CannedResponse]


class Recorder:
    """The requests received so far.

    Args:
        respond: returns the response to a request.

    """

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.closed_connections = 0
        self.requests: list[ReceivedRequest] = []
        self.url = ""

    def events(self) -> list[Any]:
        """Return the events of all requests to ``/tick``."""
        return [orjson.loads(line) for request in self.requests for line in request.body.splitlines()]

    def wait_for_requests(self, count: int) -> None:
        """Wait until *count* requests have been received."""
        deadline = time.monotonic() + 30
        while len(self.requests) < count:
            assert time.monotonic() < deadline, self.requests
            time.sleep(0.01)


def accept_all(request: ReceivedRequest) -> CannedResponse:
    """Accept all events, as Metronome or Matomo does."""
    if request.path == "/tick":
        return CannedResponse(200, orjson.dumps({"accepted": len(request.body.splitlines()), "rejected": []}))
    count = len(orjson.loads(request.body)["requests"])
    return CannedResponse(200, orjson.dumps({"status": "success", "tracked": count, "invalid": 0}))


@contextlib.contextmanager
def recording(
    respond: Respond = accept_all, idle_seconds: float | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Recorder]:
    """Run a server.

    Args:
        respond: returns the response to a request.
        idle_seconds: how long until idle connections are closed.
        tls: for HTTPS.

    """
    recorder = Recorder(respond)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = idle_seconds

        def finish(self) -> None:
            super().finish()
            recorder.closed_connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = ReceivedRequest(self.path, headers, body)
            response = recorder.respond(request)
            recorder.requests.append(request)
            if response.status is None:
                self.close_connection = True
                return
            self.send_response_only(response.status)
            for name, value in {"Content-Length": str(len(response.body)), **(response.headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body)

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
