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

from metronome.auth.authorizer import Authorizer
from metronome.config import ENV_PREFIX
from metronome.enrich.addresses import normalize_address
from metronome.errors import ConfigurationError, MetronomeError, PayloadTooLarge, SpoolFull, Unauthorized, Unavailable
from metronome.protocol import Request
from metronome.protocols.syslog import messages as syslog
from metronome.protocols.syslog.frames import SyslogFrameReader, strip_frame
from metronome.scopes import Scope
from metronome.times import format_timestamp
from metronome.web.handlers import IngestContext

log = structlog.get_logger()

FRAME_MAX_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 1000
"""So many senders may be connected to one process."""
IDLE_TIMEOUT_SECONDS: Final = 4 * 3600.0
"""A connection over which nothing comes for so long is closed: its sender may be gone without a word."""

_READ_BYTES: Final = 64 * 1024
_RETRY_SECONDS: Final = 0.5
"""How long a connection rests when there is no room on the disk."""
_DRAIN_IDLE_SECONDS: Final = 0.1
"""When the service stops, a connection over which nothing comes for so long has nothing under way."""
_DRAIN_MAX_SECONDS: Final = 1.0
"""And so long others are listened to."""
_MAX_WAITING_BYTES: Final = 16 * 2**20
_MAX_WAITING_DATAGRAMS: Final = 50_000
"""How many datagrams may wait for the disk."""
_RECEIVE_BUFFER_BYTES: Final = 4 * 2**20
"""What of datagrams the system is asked to hold until they are read."""


def validate_syslog_access(authorizer: Authorizer) -> None:
    """See that events are taken without a key, which syslog has no place for.

    Raises:
        ConfigurationError: they are not.

    """
    if Scope.TICK not in authorizer.anonymous_permissions().scopes:
        raise ConfigurationError(
            f"{ENV_PREFIX}SYSLOG_PORT is set, but {ENV_PREFIX}PUBLIC lets nobody send without a key, and syslog "
            f"has no place "
            "for one"
        )


@contextlib.asynccontextmanager
async def run_syslog_listener(
    ingest: IngestContext,
    host: str,
    port: int,
    *,
    reuse_port: bool = False,
    idle_timeout_seconds: float = IDLE_TIMEOUT_SECONDS,
) -> AsyncIterator[None]:
    """Listen for syslog over TCP and UDP while the block runs; as it ends, keep what has come whole.

    Args:
        ingest: where the messages go.
        host: the address to listen at.
        port: of both.
        reuse_port: whether other processes listen there too.
        idle_timeout_seconds: how long a connection may be silent.

    Raises:
        OSError: the address cannot be listened on.

    """
    connections, datagrams = (
        SyslogConnections(ingest, idle_timeout_seconds=idle_timeout_seconds),
        SyslogDatagrams(ingest),
    )
    async with contextlib.AsyncExitStack() as listeners:
        server = await asyncio.start_server(connections.serve, host, port, reuse_port=reuse_port or None, backlog=1024)
        listeners.push_async_callback(connections.stop, server)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: datagrams, local_addr=(host, port), reuse_port=reuse_port or None
        )
        listeners.push_async_callback(datagrams.stop, transport)
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        for kind in ("tcp", "udp"):
            log.info("listening", url=f"syslog+{kind}://{host}:{port}")
        yield


class SyslogConnections:
    """Senders over TCP.

    Args:
        ingest: where their messages go.
        idle_timeout_seconds: how long a connection may be silent.
        max_connections: how many there may be at a time.

    """

    def __init__(
        self,
        ingest: IngestContext,
        *,
        idle_timeout_seconds: float = IDLE_TIMEOUT_SECONDS,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._ingest = ingest
        self._idle_timeout_seconds = idle_timeout_seconds
        self._max_connections = max_connections
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._read_timeouts: set[asyncio.Timeout] = set()
        self._drain_deadline = float("inf")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what comes over one connection, until it ends."""
        task = asyncio.current_task()
        try:
            if task is None or len(self._tasks) >= self._max_connections:
                self._ingest.telemetry.count_rejection(
                    Unavailable(f"{self._max_connections} senders are connected already")
                )
                return
            self._tasks.add(task)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            remote = str((writer.get_extra_info("peername") or ("",))[0])
            await self._ingest_connection(reader, normalize_address(remote) or remote)
        except MetronomeError as error:
            self._ingest.telemetry.count_rejection(error)
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
        self._drain_deadline = self._loop.time() + _DRAIN_MAX_SECONDS
        for reading in self._read_timeouts:
            # One that has just run out of time cannot be given less.
            with contextlib.suppress(RuntimeError):
                reading.reschedule(self._loop.time() + _DRAIN_IDLE_SECONDS)
        # Those who have just come in have no task yet.
        await asyncio.sleep(0)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _ingest_connection(self, reader: asyncio.StreamReader, client_ip: str) -> None:
        frames = SyslogFrameReader(FRAME_MAX_BYTES)
        cut = 0
        while data := await self._read(reader):
            whole, lost = frames.feed(data)
            await self._ingest_with_retry(whole, client_ip)
            for _ in range(frames.truncated_lines - cut):
                self._ingest.telemetry.count_rejection(
                    PayloadTooLarge(f"a line is over {FRAME_MAX_BYTES} bytes, and was cut")
                )
            cut = frames.truncated_lines
            if lost is not None:
                raise lost
        if data is not None:
            await self._ingest_with_retry(frames.finish(), client_ip)

    async def _read(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return what came: nothing if the sender has ended or is silent, None if the service stops."""
        if self._loop.time() >= self._drain_deadline:
            return None
        limit = asyncio.timeout(_DRAIN_IDLE_SECONDS if self._is_stopping else self._idle_timeout_seconds)
        self._read_timeouts.add(limit)
        try:
            async with limit:
                return await reader.read(_READ_BYTES)
        except TimeoutError:
            return None if self._is_stopping else b""
        finally:
            self._read_timeouts.discard(limit)

    async def _ingest_with_retry(self, frames: Sequence[bytes], client_ip: str) -> None:
        """Take messages, however long the disk takes."""
        for part in _split_batches(frames, self._ingest.config.batch_max_events):
            while True:
                try:
                    await _ingest_messages(self._ingest, part, client_ip)
                    break
                except Unavailable as error:
                    self._ingest.telemetry.count_rejection(error)
                    if self._is_stopping:
                        log.warning("syslog_lost", messages=len(part), reason=str(error))
                        break
                    await asyncio.sleep(_RETRY_SECONDS)

    @property
    def _is_stopping(self) -> bool:
        return self._drain_deadline < float("inf")


class SyslogDatagrams(asyncio.DatagramProtocol):
    """Messages over UDP.

    Args:
        ingest: where they go.

    """

    def __init__(self, ingest: IngestContext) -> None:
        self._ingest = ingest
        self._waiting: dict[str, list[bytes]] = defaultdict(list)
        self._waiting_bytes = 0
        self._waiting_count = 0
        self._ingest_task: asyncio.Task[None] | None = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Take one message, and hand on all that wait once the disk has taken those before."""
        full = self._waiting_bytes + len(data) > _MAX_WAITING_BYTES or self._waiting_count >= _MAX_WAITING_DATAGRAMS
        if full:
            self._ingest.telemetry.count_rejection(SpoolFull("datagrams come faster than the disk takes them"))
            return
        frames = strip_frame(data)
        if frames:
            self._waiting[addr[0]] += frames
            self._waiting_bytes += len(data)
            self._waiting_count += 1
            if self._ingest_task is None:
                self._ingest_task = asyncio.create_task(self._ingest_waiting())

    async def stop(self, transport: asyncio.DatagramTransport) -> None:
        """Hear no more, and take what was heard."""
        transport.close()
        if self._ingest_task is not None:
            await self._ingest_task

    async def _ingest_waiting(self) -> None:
        try:
            while self._waiting:
                # What has come in the same turn of the loop goes together.
                await asyncio.sleep(0)
                waiting, self._waiting = self._waiting, defaultdict(list)
                self._waiting_bytes = self._waiting_count = 0
                await asyncio.gather(*(self._ingest_from_client(sender, frames) for sender, frames in waiting.items()))
        finally:
            self._ingest_task = None

    async def _ingest_from_client(self, client_ip: str, frames: Sequence[bytes]) -> None:
        for part in _split_batches(frames, self._ingest.config.batch_max_events):
            try:
                await _ingest_messages(self._ingest, part, normalize_address(client_ip) or client_ip)
            except MetronomeError as error:
                for _ in part:
                    self._ingest.telemetry.count_rejection(error)


async def _ingest_messages(ingest: IngestContext, frames: Sequence[bytes], client_ip: str) -> None:
    """Take messages; what returns is on disk.

    Raises:
        Unauthorized: nothing is taken without a key any more.
        SpoolFull: there is no room, and none was taken.

    """
    grant = ingest.authorizer.anonymous_permissions(client_address=client_ip)
    if Scope.TICK not in grant.scopes:
        raise Unauthorized("syslog cannot carry a key, and events without one are not taken here")
    request = Request(
        syslog.MESSAGE_SEPARATOR.join(frames),
        "",
        len(frames),
        client_ip=client_ip,
        received_at=format_timestamp(datetime.fromtimestamp(ingest.clock(), UTC)),
        is_trusted=Scope.IMPORT in grant.scopes,
        config=ingest.config,
    )
    await ingest.intake.ingest(syslog, request)


def _split_batches(frames: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (frames[at : at + size] for at in range(0, len(frames), size))
