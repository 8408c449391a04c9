"""Bodies that arrive slowly or never take a limited part of memory, and leave room for others."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from metronome.scopes import Scope
from tests.faults.observations import wait_until
from tests.installations import create_key
from tests.servers import Server, free_port, running_server

KIB: Final = 1024
MIB: Final = 2**20
SECONDS: Final = 30.0
SMALL_EVENT: Final = b'{"id":"small"}'


@contextlib.contextmanager
def half_sent(port: int, path: str, sent: int, count: int) -> Iterator[list[socket.socket]]:
    """Provide connections that have sent a part of a body."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS)) for _ in range(count)]
        for client in clients:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 * sent}\r\n\r\n".encode()
            with contextlib.suppress(ConnectionError):
                client.sendall(head + b" " * sent)
        yield clients


def status_of(client: socket.socket) -> int:
    """Return the status of a response that is there or comes soon; 0 if the server waits for more."""
    client.settimeout(0.5)
    try:
        return int(client.recv(4096).split(b" ", 2)[1])
    except TimeoutError:
        return 0


def has_room(server: Server, size: int) -> bool:
    """Return whether a body of a size is accepted."""
    try:
        server.post_events(b" " * size + SMALL_EVENT)
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Provide a server with little memory for bodies."""
    data = tmp_path_factory.mktemp("small") / "data"
    settings = {"in_flight_max_bytes": 4 * MIB, "body_max_bytes": MIB, "forward_port": free_port()}
    with running_server(data, **settings) as server:
        yield server


@pytest.mark.parametrize(
    "path",
    [
        "/tick",
        *(pytest.param(path, marks=pytest.mark.slow) for path in ("/es/_bulk", "/query", "/documents", "/matomo.php")),
    ],
)
def test_bodies_beyond_the_limit_are_rejected_and_small_ones_are_not(small: Server, path: str) -> None:
    with half_sent(small.port, path, 400 * KIB, 8) as clients:
        statuses = [status_of(client) for client in clients]
        assert set(statuses) == {0, 503}
        small.post_events(SMALL_EVENT)
    # What is aborted is free again.
    small.post_events(b" " * (900 * KIB) + SMALL_EVENT)


def test_forward_connections_count_as_well(small: Server) -> None:
    port = int(str(small.settings["forward_port"]))
    frame = b"\x93\xa1t\xdb" + (800 * KIB).to_bytes(4, "big") + b"x" * (500 * KIB)
    # Connections of other tests give their memory back a moment after they are closed.
    wait_until(lambda: has_room(small, len(frame)), "there is room for a frame")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS)) for _ in range(6)]
        closed = 0
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.sendall(frame)
        for client in clients:
            client.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                try:
                    closed += client.recv(1) == b""
                except ConnectionError:
                    closed += 1
        assert 0 < closed < len(clients)
        small.post_events(SMALL_EVENT)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_key_is_checked_before_the_body(tmp_path: Path, workers: int) -> None:
    data = tmp_path / "data"
    create_key(data, "importer", Scope.IMPORT)
    with running_server(data, public="none", workers=workers) as server:
        for path in ("/tick", "/es/_bulk", "/query", "/query.csv", "/documents", "/api/track?key=x", "/api/event"):
            with half_sent(server.port, path, 1, 1) as (client,):
                client.settimeout(SECONDS)
                assert (path, int(client.recv(4096).split(b" ", 2)[1])) == (path, 401)
