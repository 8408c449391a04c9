"""One connection of the forward protocol: slow and silent clients, permissions, and a full spool."""

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from msgpack import packb, unpackb
from prometheus_client import CollectorRegistry, generate_latest

from metronome.auth.authorizer import Permissions
from metronome.config import read_settings
from metronome.protocols.forward.handshake import ForwardHandshake
from metronome.protocols.forward.listener import ForwardConnection, ForwardConnectionContext
from metronome.server.bootstrap import build_ingest_context, open_authorizer, open_state
from metronome.spool import SpoolReader, SpoolWriter
from metronome.telemetry import Telemetry

MIB: Final = 2**20
SECONDS: Final = 20.0
SHORT: Final = 0.2
LONG: Final = 600.0
HANDSHAKE: Final = ForwardHandshake("geheim", bytes(16), bytes(16))


@dataclass
class Listener:
    """A listener in this process.

    Attributes:
        folder: of its spool.
        telemetry: its metrics.
        local_clients: whether each client that permissions were asked for is local.
        shutdown: stops the listener.
        port: of the listener.
        closed_count: how many connections have ended.

    """

    folder: Path
    telemetry: Telemetry
    local_clients: list[bool] = field(default_factory=list)
    shutdown: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    closed_count: int = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def has_rejected(self, reason: str) -> bool:
        return f'metronome_refused_total{{reason="{reason}"}}'.encode() in generate_latest(self.telemetry.registry)

    def ship(self) -> int:
        """Empty the spool, as a shipper does, and return the number of events in it."""
        reader, count = SpoolReader(self.folder), 0
        acknowledged = 0
        while (chunk := reader.read_chunk(acknowledged, MIB)) is not None:
            count, acknowledged = count + chunk.batch.count, chunk.last_seq
            reader.acknowledge(acknowledged)
        reader.close()
        return count


@asynccontextmanager
async def running_listener(
    folder: Path,
    *,
    frame_seconds: float = LONG,
    idle_seconds: float = LONG,
    handshake: ForwardHandshake | None = None,
    server_socket: socket.socket | None = None,
    spool_max_bytes: int = 100 * MIB,
) -> AsyncIterator[Listener]:
    listener = Listener(folder / "spool", Telemetry(CollectorRegistry()))
    settings = read_settings({"data": folder})
    spool = SpoolWriter(listener.folder, spool_max_bytes, listener.telemetry.count_commit)
    async with open_authorizer(settings, open_state(settings)) as authorizer:

        def anonymous_permissions(*, is_local: bool = False) -> Permissions:
            listener.local_clients.append(is_local)
            return permissions(is_local=is_local)

        permissions = authorizer.anonymous_permissions
        authorizer.anonymous_permissions = anonymous_permissions  # type: ignore[method-assign]  # records the calls
        ingest = build_ingest_context(settings, spool, authorizer, listener.telemetry)
        context = ForwardConnectionContext(ingest, listener.shutdown, frame_seconds, idle_seconds)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await ForwardConnection(context, handshake, reader, writer).run()
            listener.closed_count += 1

        server = await asyncio.start_server(serve, sock=server_socket or socket.create_server(("127.0.0.1", 0)))
        listener.port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(SECONDS):
            yield listener
        server.close()
        await spool.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # the condition concerns another thread
        await asyncio.sleep(0.01)


def chunk(name: str, count: int = 1, size: int = 100) -> bytes:
    entries = [[0, {"id": "a", "event": "view", "text": "x" * size}]] * count
    return bytes(packb(["t", entries, {"chunk": name}]))


PARTIAL_FRAMES: Final = {
    "a head": b"\x93",
    "half an entry": chunk("c")[:40],
    "the length of the entries": b"\x92\xa1t\xc6\x00\x00\xff\xff",
    "half of the second": chunk("c") + chunk("d")[:-1],
}


@pytest.mark.parametrize("kind", PARTIAL_FRAMES)
async def test_closes_the_connection_if_a_frame_is_not_completed_in_time(tmp_path: Path, kind: str) -> None:
    async with running_listener(tmp_path, frame_seconds=SHORT) as listener:
        reader, writer = await listener.connect()
        writer.write(PARTIAL_FRAMES[kind])
        acks = await reader.read()
        assert acks == (b"\x81\xa3ack\xa1c" if kind == "half of the second" else b"")
        assert listener.has_rejected("RequestTimeout")
        writer.close()


async def test_the_frame_timeout_does_not_restart_with_each_byte(tmp_path: Path) -> None:
    async with running_listener(tmp_path, frame_seconds=SHORT) as listener:
        reader, writer = await listener.connect()
        for byte in chunk("c", 100, 1000):
            writer.write(bytes([byte]))
            await asyncio.sleep(SHORT / 10)
            if reader.at_eof() or writer.is_closing() or listener.closed_count:
                break
        assert listener.has_rejected("RequestTimeout")
        assert not listener.has_rejected("Malformed")
        writer.close()


async def test_closes_the_connection_without_a_handshake_in_time(tmp_path: Path) -> None:
    async with running_listener(tmp_path, frame_seconds=SHORT, handshake=HANDSHAKE) as listener:
        reader, writer = await listener.connect()
        assert unpackb(await reader.read())[0] == "HELO"
        assert listener.has_rejected("RequestTimeout")
        writer.close()


@pytest.mark.slow
async def test_closes_an_idle_connection_without_an_error(tmp_path: Path) -> None:
    async with running_listener(tmp_path, idle_seconds=SHORT, frame_seconds=0.0) as listener:
        reader, writer = await listener.connect()
        writer.write(chunk("c"))
        assert await reader.read() == b"\x81\xa3ack\xa1c"
        await until(lambda: listener.closed_count == 1)
        assert not listener.has_rejected("RequestTimeout")
        writer.close()


async def test_keeps_no_memory_of_a_message_while_the_client_is_silent(tmp_path: Path) -> None:
    async with running_listener(tmp_path) as listener:
        connections = [await listener.connect() for _ in range(4)]
        frame = chunk("c", size=3 * MIB)
        tracemalloc.start()
        try:
            for reader, writer in connections:
                writer.write(frame)
                assert await reader.readexactly(7) == b"\x81\xa3ack\xa1c"
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 6 * MIB
        for _, writer in connections:
            writer.close()


async def test_the_authorizer_receives_the_normalized_ip_address(tmp_path: Path) -> None:
    # This socket reports IPv4 clients as ::ffff:127.0.0.1.
    dual_stack = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    async with running_listener(tmp_path, server_socket=dual_stack) as listener:
        reader, writer = await listener.connect()
        writer.write(chunk("c"))
        assert await reader.readexactly(7) == b"\x81\xa3ack\xa1c"
        assert listener.local_clients == [True]
        writer.close()


async def test_retries_a_full_spool_while_the_client_waits(tmp_path: Path) -> None:
    async with running_listener(tmp_path, spool_max_bytes=60_000) as listener:
        reader, writer = await listener.connect()
        writer.write(chunk("a", 100, 300))
        assert await reader.readexactly(7) == b"\x81\xa3ack\xa1a"
        writer.write(chunk("b", 100, 300) + chunk("c", 1))
        await until(lambda: listener.has_rejected("SpoolFull"))
        assert listener.ship() >= 100
        assert await reader.readexactly(14) == b"\x81\xa3ack\xa1b\x81\xa3ack\xa1c"
        assert listener.ship() >= 1
        writer.close()


async def test_abandons_a_chunk_if_the_spool_is_full_and_the_client_has_left(tmp_path: Path) -> None:
    async with running_listener(tmp_path, spool_max_bytes=20_000) as listener:
        _, writer = await listener.connect()
        writer.write(chunk("a", 100, 300))
        await until(lambda: listener.has_rejected("SpoolFull"))
        writer.close()
        await until(lambda: listener.closed_count == 1)
        assert listener.ship() == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", ""])
async def test_abandons_entries_if_the_spool_is_full_at_shutdown(tmp_path: Path, name: str) -> None:
    async with running_listener(tmp_path, spool_max_bytes=20_000) as listener:
        reader, writer = await listener.connect()
        frame: Any = chunk("a", 100, 300) if name else packb(["t", unpackb(chunk("", 100, 300))[1]])
        # More than may be in flight at once, so that the connection waits for capacity.
        writer.write(frame * 60)
        await until(lambda: listener.has_rejected("SpoolFull"))
        listener.shutdown.set()
        assert await reader.read() == b""
        await until(lambda: listener.closed_count == 1)
        writer.close()
