"""Memory stays bounded, whoever sends: uploads that break off, and bodies that never end."""

import contextlib
import socket
from pathlib import Path
from typing import Final

import pytest

from tests.server.test_aborted_uploads import abort_upload
from tests.server.test_memory_budget import half_sent
from tests.servers import free_port, running_server

MB: Final = 10**6
UPLOADS: Final = 500
SECONDS: Final = 30.0
ATTACKS: Final = [
    (path, framing, end)
    for path in ("/tick", "/es/_bulk", "/query", "/documents", "/matomo.php")
    for framing in ("length", "chunked")
    for end in ("close", "reset")
]


@pytest.mark.slow  # sends 5 GB
def test_aborted_uploads_leave_memory_as_it_was(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        for path, framing, end in ATTACKS:
            abort_upload(server.port, path, "", framing, end)
        before = server.memory()
        for number in range(UPLOADS):
            path, framing, end = ATTACKS[number % len(ATTACKS)]
            abort_upload(server.port, path, "", framing, end)
        assert server.memory() - before < 100 * MB


@pytest.mark.slow  # sends gigabytes
def test_half_sent_bodies_take_no_more_than_the_budget(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", forward_port=free_port()) as server:
        before = server.memory()
        frame = b"\x93\xa1t\xdb" + (15 * MB).to_bytes(4, "big") + b"x" * (10 * MB)
        with contextlib.ExitStack() as stack:
            for path in ("/tick", "/es/_bulk", "/documents"):
                stack.enter_context(half_sent(server.port, path, 7 * MB, 50))
            for _ in range(20):
                address = ("127.0.0.1", int(str(server.settings["forward_port"])))
                client = stack.enter_context(socket.create_connection(address, SECONDS))
                with contextlib.suppress(ConnectionError):
                    client.sendall(frame)
            server.post_events(b'{"id":"x"}')
            # One address holds an eighth of 256 MiB; the rest is what the operating system and asyncio buffer.
            assert server.memory() - before < 200 * MB
        server.post_events(b'{"id":"x"}')
