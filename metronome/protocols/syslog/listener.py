"""The listeners for syslog: over TCP, which waits for the disk, and over UDP, which cannot.

A connection is read no further than what is on disk, so a sender that can wait loses nothing. A datagram for which
there is no room is counted as refused, and lost.
"""

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from metronome.auth.authorizer import Guard
from metronome.config import PREFIX
from metronome.enrich.addresses import read_address
from metronome.errors import Away, MetronomeError, Misconfigured, NoKey, SpoolFull, TooLarge
from metronome.protocol import Request
from metronome.protocols.syslog import messages as syslog
from metronome.protocols.syslog.frames import Frames, plain
from metronome.scopes import Scope
from metronome.times import stamp_of
from metronome.web.handlers import Doorway

log = structlog.get_logger()

FRAME_MAX_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 1000
"""So many senders may be connected to one process."""
IDLE_SECONDS: Final = 4 * 3600.0
"""A connection over which nothing comes for so long is closed: its sender may be gone without a word."""

_READ_BYTES: Final = 64 * 1024
_AGAIN_SECONDS: Final = 0.5
"""How long a connection rests when there is no room on the disk."""
_QUIET_SECONDS: Final = 0.1
"""When the service stops, a connection over which nothing comes for so long has nothing under way."""
_LAST_SECONDS: Final = 1.0
"""And so long others are listened to."""
_WAITING_MAX_BYTES: Final = 16 * 2**20
_WAITING_MAX: Final = 50_000
"""How many datagrams may wait for the disk."""
_SOCKET_BYTES: Final = 4 * 2**20
"""What of datagrams the system is asked to hold until they are read."""


def require_public_ticks(guard: Guard) -> None:
    """See that events are taken without a key, which syslog has no place for.

    Raises:
        Misconfigured: they are not.

    """
    if Scope.TICK not in guard.anonymous().scopes:
        raise Misconfigured(
            f"{PREFIX}SYSLOG_PORT is set, but {PREFIX}PUBLIC lets nobody send without a key, and syslog has no place "
            "for one"
        )


@contextlib.asynccontextmanager
async def listening_for_syslog(
    doorway: Doorway, host: str, port: int, *, shared: bool = False, idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[None]:
    """Listen for syslog over TCP and UDP while the block runs; as it ends, keep what has come whole.

    Args:
        doorway: where the messages go.
        host: the address to listen at.
        port: of both.
        shared: whether other processes listen there too.
        idle_seconds: how long a connection may be silent.

    Raises:
        OSError: the address cannot be listened on.

    """
    connections, datagrams = Connections(doorway, idle_seconds=idle_seconds), Datagrams(doorway)
    async with contextlib.AsyncExitStack() as listeners:
        server = await asyncio.start_server(connections.serve, host, port, reuse_port=shared or None, backlog=1024)
        listeners.push_async_callback(connections.stop, server)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: datagrams, local_addr=(host, port), reuse_port=shared or None
        )
        listeners.push_async_callback(datagrams.stop, transport)
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        for kind in ("tcp", "udp"):
            log.info("listening", url=f"syslog+{kind}://{host}:{port}")
        yield


class Connections:
    """Senders over TCP.

    Args:
        doorway: where their messages go.
        idle_seconds: how long a connection may be silent.
        max_connections: how many there may be at a time.

    """

    def __init__(
        self, doorway: Doorway, *, idle_seconds: float = IDLE_SECONDS, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        self._doorway = doorway
        self._idle_seconds = idle_seconds
        self._max_connections = max_connections
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._readings: set[asyncio.Timeout] = set()
        self._ends_at = float("inf")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what comes over one connection, until it ends."""
        task = asyncio.current_task()
        try:
            if task is None or len(self._tasks) >= self._max_connections:
                self._doorway.telemetry.refuse(Away(f"{self._max_connections} senders are connected already"))
                return
            self._tasks.add(task)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            remote = str((writer.get_extra_info("peername") or ("",))[0])
            await self._take_all(reader, read_address(remote) or remote)
        except MetronomeError as error:
            self._doorway.telemetry.refuse(error)
        except OSError:
            # The sender is gone: what it had sent is kept.
            pass
        finally:
            if task is not None:
                self._tasks.discard(task)
            writer.close()

    async def stop(self, server: asyncio.Server) -> None:
        """Let no more senders in, take what those who are there have sent, and hang up."""
        server.close()
        self._ends_at = self._loop.time() + _LAST_SECONDS
        for reading in self._readings:
            # One that has just run out of time cannot be given less.
            with contextlib.suppress(RuntimeError):
                reading.reschedule(self._loop.time() + _QUIET_SECONDS)
        # Those who have just come in have no task yet.
        await asyncio.sleep(0)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _take_all(self, reader: asyncio.StreamReader, sender: str) -> None:
        frames = Frames(FRAME_MAX_BYTES)
        cut = 0
        while data := await self._read(reader):
            whole, lost = frames.feed(data)
            await self._take(whole, sender)
            for _ in range(frames.cut - cut):
                self._doorway.telemetry.refuse(TooLarge(f"a line is over {FRAME_MAX_BYTES} bytes, and was cut"))
            cut = frames.cut
            if lost is not None:
                raise lost
        if data is not None:
            await self._take(frames.end(), sender)

    async def _read(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return what came: nothing if the sender has ended or is silent, None if the service stops."""
        if self._loop.time() >= self._ends_at:
            return None
        limit = asyncio.timeout(_QUIET_SECONDS if self._is_stopping else self._idle_seconds)
        self._readings.add(limit)
        try:
            async with limit:
                return await reader.read(_READ_BYTES)
        except TimeoutError:
            return None if self._is_stopping else b""
        finally:
            self._readings.discard(limit)

    async def _take(self, frames: Sequence[bytes], sender: str) -> None:
        """Take messages, however long the disk takes."""
        for part in _parts(frames, self._doorway.max_events):
            while True:
                try:
                    await _take(self._doorway, part, sender)
                    break
                except Away as error:
                    self._doorway.telemetry.refuse(error)
                    if self._is_stopping:
                        log.warning("syslog_lost", messages=len(part), reason=str(error))
                        break
                    await asyncio.sleep(_AGAIN_SECONDS)

    @property
    def _is_stopping(self) -> bool:
        return self._ends_at < float("inf")


class Datagrams(asyncio.DatagramProtocol):
    """Messages over UDP.

    Args:
        doorway: where they go.

    """

    def __init__(self, doorway: Doorway) -> None:
        self._doorway = doorway
        self._waiting: dict[str, list[bytes]] = defaultdict(list)
        self._waiting_bytes = 0
        self._waiting_count = 0
        self._taking: asyncio.Task[None] | None = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take one message, and hand on all that wait once the disk has taken those before."""
        full = self._waiting_bytes + len(data) > _WAITING_MAX_BYTES or self._waiting_count >= _WAITING_MAX
        if full:
            self._doorway.telemetry.refuse(SpoolFull("datagrams come faster than the disk takes them"))
            return
        frames = plain(data)
        if frames:
            self._waiting[addr[0]] += frames
            self._waiting_bytes += len(data)
            self._waiting_count += 1
            if self._taking is None:
                self._taking = asyncio.create_task(self._take())

    async def stop(self, transport: asyncio.DatagramTransport) -> None:
        """Hear no more, and take what was heard."""
        transport.close()
        if self._taking is not None:
            await self._taking

    async def _take(self) -> None:
        try:
            while self._waiting:
                # What has come in the same turn of the loop goes together.
                await asyncio.sleep(0)
                waiting, self._waiting = self._waiting, defaultdict(list)
                self._waiting_bytes = self._waiting_count = 0
                await asyncio.gather(*(self._take_from(sender, frames) for sender, frames in waiting.items()))
        finally:
            self._taking = None

    async def _take_from(self, sender: str, frames: Sequence[bytes]) -> None:
        for part in _parts(frames, self._doorway.max_events):
            try:
                await _take(self._doorway, part, read_address(sender) or sender)
            except MetronomeError as error:
                for _ in part:
                    self._doorway.telemetry.refuse(error)


async def _take(doorway: Doorway, frames: Sequence[bytes], sender: str) -> None:
    """Take messages; what returns is on disk.

    Raises:
        NoKey: nothing is taken without a key any more.
        SpoolFull: there is no room, and none was taken.

    """
    grant = doorway.guard.anonymous(sender=sender)
    if Scope.TICK not in grant.scopes:
        raise NoKey("syslog cannot carry a key, and events without one are not taken here")
    request = Request(
        syslog.SEPARATOR.join(frames),
        "",
        len(frames),
        sender=sender,
        arrival=stamp_of(datetime.fromtimestamp(doorway.clock(), UTC)),
        believed=Scope.IMPORT in grant.scopes,
        site=doorway.site,
    )
    await doorway.intake.take(syslog, request)


def _parts(frames: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (frames[at : at + size] for at in range(0, len(frames), size))
