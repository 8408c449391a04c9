"""One connection of the forward protocol: clients that are slow or silent, and a spool that has no room for a while."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from msgpack import packb, unpackb
from prometheus_client import CollectorRegistry, generate_latest

from metronome.config import read_settings
from metronome.protocols.forward.handshake import ForwardHandshake
from metronome.protocols.forward.listener import ForwardConnection, ForwardConnectionContext
from metronome.protocols.forward.protocol import ForwardProtocol
from metronome.server.bootstrap import build_ingest_context, open_authorizer, open_state
from metronome.spool import SpoolReader, SpoolWriter
from metronome.telemetry import Telemetry

MIB: Final = 2**20
SECONDS: Final = 20.0
SOON: Final = 0.2
LONG: Final = 600.0
HANDSHAKE: Final = ForwardHandshake("geheim", bytes(16), bytes(16))


@dataclass
class Place:
    """Where clients connect to.

    Attributes:
        folder: of its spool.
        telemetry: what it counts.
        stopping: what tells it to stop.
        port: where it listens.
        ended: the conversations that have ended.

    """

    folder: Path
    telemetry: Telemetry
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    ended: int = 0

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def counted(self, reason: str) -> bool:
        return f'metronome_refused_total{{reason="{reason}"}}'.encode() in generate_latest(self.telemetry.registry)

    def ship(self) -> int:
        """Take everything out of the spool, as a shipper does, and return how many events that were."""
        outlet, count = SpoolReader(self.folder), 0
        upto = 0
        while (taken := outlet.read_chunk(upto, MIB)) is not None:
            count, upto = count + taken.batch.count, taken.last_seq
            outlet.acknowledge(upto)
        outlet.close()
        return count


@asynccontextmanager
async def listening(
    folder: Path,
    *,
    frame_seconds: float = LONG,
    idle_seconds: float = LONG,
    handshake: ForwardHandshake | None = None,
    spool_max_bytes: int = 100 * MIB,
) -> AsyncIterator[Place]:
    place = Place(folder / "spool", Telemetry(CollectorRegistry()))
    settings = read_settings({"data": folder})
    spool = SpoolWriter(place.folder, spool_max_bytes, place.telemetry.count_commit)
    async with open_authorizer(settings, open_state(settings)) as guard:
        doorway = build_ingest_context(settings, spool, guard, place.telemetry)
        dialect = ForwardProtocol(MIB, MIB)
        surroundings = ForwardConnectionContext(doorway, dialect, place.stopping, frame_seconds, idle_seconds)

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await ForwardConnection(surroundings, handshake, reader, writer).run()
            place.ended += 1

        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        place.port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(SECONDS):
            yield place
        server.close()
        await spool.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # it is of a thread, or of what tells nobody
        await asyncio.sleep(0.01)


def chunk(name: str, count: int = 1, size: int = 100) -> bytes:
    entries = [[0, {"id": "a", "event": "view", "text": "x" * size}]] * count
    return bytes(packb(["t", entries, {"chunk": name}]))


HALVES: Final = {
    "a head": b"\x93",
    "half an entry": chunk("c")[:40],
    "a promise": b"\x92\xa1t\xc6\x00\x00\xff\xff",
    "half of the second": chunk("c") + chunk("d")[:-1],
}


@pytest.mark.parametrize("half", HALVES)
async def test_a_frame_that_has_begun_must_go_on(tmp_path: Path, half: str) -> None:
    async with listening(tmp_path, frame_seconds=SOON) as place:
        reader, writer = await place.connect()
        writer.write(HALVES[half])
        answers = await reader.read()
        assert answers == (b"\x81\xa3ack\xa1c" if half == "half of the second" else b"")
        assert place.counted("RequestTimeout")
        writer.close()


async def test_nor_may_it_come_byte_by_byte_for_ever(tmp_path: Path) -> None:
    async with listening(tmp_path, frame_seconds=SOON) as place:
        reader, writer = await place.connect()
        for byte in chunk("c", 100, 1000):
            writer.write(bytes([byte]))
            await asyncio.sleep(SOON / 10)
            if reader.at_eof() or writer.is_closing() or place.ended:
                break
        assert place.counted("RequestTimeout")
        assert not place.counted("Malformed")
        writer.close()


async def test_a_handshake_must_come(tmp_path: Path) -> None:
    async with listening(tmp_path, frame_seconds=SOON, handshake=HANDSHAKE) as place:
        reader, writer = await place.connect()
        assert unpackb(await reader.read())[0] == "HELO"
        assert place.counted("RequestTimeout")
        writer.close()


async def test_a_connection_may_be_silent_for_a_while_and_is_then_closed_without_complaint(tmp_path: Path) -> None:
    async with listening(tmp_path, idle_seconds=SOON, frame_seconds=0.0) as place:
        reader, writer = await place.connect()
        writer.write(chunk("c"))
        assert await reader.read() == b"\x81\xa3ack\xa1c"
        await until(lambda: place.ended == 1)
        assert not place.counted("RequestTimeout")
        writer.close()


async def test_a_spool_without_room_is_tried_again_while_the_client_waits(tmp_path: Path) -> None:
    async with listening(tmp_path, spool_max_bytes=60_000) as place:
        reader, writer = await place.connect()
        writer.write(chunk("a", 100, 300))
        assert await reader.readexactly(7) == b"\x81\xa3ack\xa1a"
        writer.write(chunk("b", 100, 300) + chunk("c", 1))
        await until(lambda: place.counted("SpoolFull"))
        assert place.ship() >= 100
        assert await reader.readexactly(14) == b"\x81\xa3ack\xa1b\x81\xa3ack\xa1c"
        assert place.ship() >= 1
        writer.close()


async def test_a_chunk_that_finds_no_room_is_given_up_once_its_client_has_left(tmp_path: Path) -> None:
    async with listening(tmp_path, spool_max_bytes=20_000) as place:
        _, writer = await place.connect()
        writer.write(chunk("a", 100, 300))
        await until(lambda: place.counted("SpoolFull"))
        writer.close()
        await until(lambda: place.ended == 1)
        assert place.ship() == 0


@pytest.mark.parametrize("name", ["a", ""])
async def test_a_stop_gives_up_what_finds_no_room(tmp_path: Path, name: str) -> None:
    async with listening(tmp_path, spool_max_bytes=20_000) as place:
        reader, writer = await place.connect()
        frame: Any = chunk("a", 100, 300) if name else packb(["t", unpackb(chunk("", 100, 300))[1]])
        # More than may be in flight at once, so that the connection waits for room.
        writer.write(frame * 60)
        await until(lambda: place.counted("SpoolFull"))
        place.stopping.set()
        assert await reader.read() == b""
        await until(lambda: place.ended == 1)
        writer.close()
