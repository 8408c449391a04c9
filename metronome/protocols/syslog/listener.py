"""The syslog listeners over TCP and UDP.

A TCP connection is not read further until the messages read so far are on disk, so no message is lost while the spool
is full. Datagrams that arrive while it is full are counted as rejected, and lost.
"""

import asyncio
import contextlib
import socket
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import is_loopback_host
from metronome.config import ENV_PREFIX
from metronome.enrich.addresses import normalize_address
from metronome.errors import ConfigurationError, MetronomeError, PayloadTooLarge, SpoolFull, Unauthorized, Unavailable
from metronome.protocols.syslog.frames import SyslogFrameReader, strip_frame
from metronome.protocols.syslog.messages import parse_messages
from metronome.retry import Backoff, retry
from metronome.scopes import Scope
from metronome.times import format_timestamp
from metronome.web.budget import ByteLease
from metronome.web.handlers import IngestContext

log = structlog.get_logger()

FRAME_MAX_BYTES: Final = 64 * 1024
MAX_CONNECTIONS: Final = 1000
"""The maximum number of TCP connections of one process."""
IDLE_TIMEOUT_SECONDS: Final = 4 * 3600.0
"""A TCP connection is closed if it is idle for so long: the sender may have gone without closing it."""

_READ_BYTES: Final = 64 * 1024
_LOG_SECONDS: Final = 60.0
"""How often to log that there are too many connections."""
_BACKOFF: Final = Backoff(0.5, 0.5)
_DRAIN_IDLE_SECONDS: Final = 0.1
"""At shutdown, a connection is closed once it is idle for so long."""
_DRAIN_MAX_SECONDS: Final = 5.0
"""How long connections that are not idle are read at shutdown."""
_ACCEPT_SECONDS: Final = 0.05
"""How long connections are still accepted at shutdown: closing the socket would reset those in the listen queue."""
_MAX_WAITING_BYTES: Final = 16 * 2**20
_MAX_WAITING_DATAGRAMS: Final = 50_000
"""How many datagrams may wait to be stored."""
_RECEIVE_BUFFER_BYTES: Final = 4 * 2**20
"""How many bytes of datagrams the operating system should buffer."""


def validate_syslog_access(authorizer: Authorizer) -> None:
    """Check that events may be sent without a key, as syslog cannot carry one.

    Raises:
        ConfigurationError: they may not.

    """
    if Scope.TICK not in authorizer.anonymous_permissions(is_local=True).scopes:
        raise ConfigurationError(
            f"{ENV_PREFIX}SYSLOG_PORT is set, but {ENV_PREFIX}PUBLIC does not allow sending without a key, and syslog "
            "cannot carry one"
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
    """Listen for syslog over TCP and UDP while the block runs; at its end, store the complete messages.

    Args:
        ingest: where the messages go.
        host: the address to listen on.
        port: of both protocols.
        reuse_port: whether other processes listen on the port too.
        idle_timeout_seconds: how long a TCP connection may be idle.

    Raises:
        OSError: the address is not available.

    """
    connections = SyslogConnections(ingest, idle_timeout_seconds=idle_timeout_seconds)
    datagrams = SyslogDatagrams(ingest)
    async with contextlib.AsyncExitStack() as listeners:
        server = await asyncio.start_server(connections.serve, host, port, reuse_port=reuse_port or None, backlog=1024)
        listeners.push_async_callback(connections.stop, server)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: datagrams, local_addr=(host, port), reuse_port=reuse_port or None
        )
        listeners.push_async_callback(datagrams.stop, transport)
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        for transport_name in ("tcp", "udp"):
            log.info("listening", url=f"syslog+{transport_name}://{host}:{port}")
        yield


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    client_ip: str
    idle_since: float = float("inf")
    """When it began to wait for data; infinity while it does not."""
    read_timeout: asyncio.Timeout | None = None


class SyslogConnections:
    """Receive messages over TCP.

    Args:
        ingest: where messages go.
        idle_timeout_seconds: how long a connection may be idle.
        max_connections: the maximum number of concurrent connections.

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
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._full_logged_at = float("-inf")
        self._read_timeouts: set[asyncio.Timeout] = set()
        self._drain_deadline = float("inf")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        task = asyncio.current_task()
        try:
            peer = str((writer.get_extra_info("peername") or ("",))[0])
            client_ip = normalize_address(peer) or peer
            if task is None or not self._make_room(client_ip):
                return
            connection = self._connections[task] = _Connection(reader, client_ip)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await self._ingest_connection(connection)
        except MetronomeError as error:
            self._ingest.telemetry.count_rejection(error)
        except OSError:
            # The sender has gone; the messages that it sent are stored.
            pass
        finally:
            if task is not None:
                self._connections.pop(task, None)
            writer.close()

    async def stop(self, server: asyncio.Server) -> None:
        """Accept no more connections, store the messages that have been sent, and close the connections."""
        await asyncio.sleep(_ACCEPT_SECONDS)
        server.close()
        self._drain_deadline = self._loop.time() + _DRAIN_MAX_SECONDS
        for read_timeout in self._read_timeouts:
            # A timeout that has just expired cannot be changed.
            with contextlib.suppress(RuntimeError):
                read_timeout.reschedule(self._loop.time() + _DRAIN_IDLE_SECONDS)
        # Connections that have just been accepted have no task yet.
        await asyncio.sleep(0)
        while self._connections:
            await asyncio.wait(list(self._connections))

    def _make_room(self, client_ip: str) -> bool:
        """Close an idle connection if there are too many; return False if none is idle.

        It is one of the address that has the most of them, so that idle connections of one client shut out no other.
        """
        if len(self._connections) < self._max_connections:
            return True
        counts = Counter(connection.client_ip for connection in self._connections.values())
        idle = [connection for connection in self._connections.values() if connection.idle_since < float("inf")]
        victim = min(idle, key=lambda connection: (-counts[connection.client_ip], connection.idle_since), default=None)
        error = Unavailable(f"the limit of {self._max_connections} connections is reached")
        self._ingest.telemetry.count_rejection(error)
        now = self._loop.time()
        if now > self._full_logged_at + _LOG_SECONDS:
            self._full_logged_at = now
            address, count = max(counts.items(), key=lambda item: item[1], default=(client_ip, 0))
            log.warning(
                "syslog_connections_full",
                error=str(error),
                client=client_ip,
                most=address,
                connections=count,
                advice="close idle connections of the address that has the most, or keep it out with a firewall",
            )
        if victim is None:
            return False
        victim.idle_since = float("inf")
        if victim.read_timeout is not None:
            # A timeout that has just expired cannot be changed.
            with contextlib.suppress(RuntimeError):
                victim.read_timeout.reschedule(now)
        return True

    async def _ingest_connection(self, connection: "_Connection") -> None:
        lease = self._ingest.budget.open(connection.client_ip)
        try:
            await self._ingest_stream(connection, lease)
        finally:
            lease.release()

    async def _ingest_stream(self, connection: "_Connection", lease: ByteLease) -> None:
        client_ip = connection.client_ip
        frame_reader = SyslogFrameReader(FRAME_MAX_BYTES)
        truncated_lines = 0
        while data := await self._read(connection):
            frames, too_large = frame_reader.feed(data)
            lease.resize(frame_reader.held_bytes + len(data))
            await self._ingest_frames(frames, client_ip)
            for _ in range(frame_reader.truncated_lines - truncated_lines):
                self._ingest.telemetry.count_rejection(
                    PayloadTooLarge(f"a line is over {FRAME_MAX_BYTES} bytes and was truncated")
                )
            truncated_lines = frame_reader.truncated_lines
            if too_large is not None:
                raise too_large
            lease.resize(frame_reader.held_bytes)
        if data is not None:
            await self._ingest_frames(frame_reader.finish(), client_ip)

    async def _read(self, connection: "_Connection") -> bytes | None:
        """Return received bytes: none if the connection has ended or is idle, None if the server stops."""
        if self._loop.time() >= self._drain_deadline:
            return None
        limit = asyncio.timeout(_DRAIN_IDLE_SECONDS if self._is_stopping else self._idle_timeout_seconds)
        self._read_timeouts.add(limit)
        connection.idle_since, connection.read_timeout = self._loop.time(), limit
        try:
            async with limit:
                return await connection.reader.read(_READ_BYTES)
        except TimeoutError:
            return None if self._is_stopping else b""
        finally:
            connection.idle_since = float("inf")
            self._read_timeouts.discard(limit)

    async def _ingest_frames(self, frames: Sequence[bytes], client_ip: str) -> None:
        for batch in _split_batches(frames, self._ingest.config.batch_max_events):
            try:
                await _store_messages(self._ingest, batch, client_ip)
            except Unavailable:
                # Only now: `retry` takes longer than storing a few messages.
                await self._retry(batch, client_ip)

    async def _retry(self, frames: Sequence[bytes], client_ip: str) -> None:
        """Store messages as soon as that is possible; at shutdown they are lost."""
        try:
            await retry(
                lambda: _store_messages(self._ingest, frames, client_ip),
                _BACKOFF,
                should_retry=lambda error: isinstance(error, Unavailable) and not self._is_stopping,
                on_retry=lambda error, _: self._ingest.telemetry.count_rejection(error),
            )
        except Unavailable as error:
            self._ingest.telemetry.count_rejection(error)
            log.warning("syslog_lost", messages=len(frames), reason=str(error))

    @property
    def _is_stopping(self) -> bool:
        return self._drain_deadline < float("inf")


class SyslogDatagrams(asyncio.DatagramProtocol):
    """Receive messages over UDP.

    Args:
        ingest: where messages go.

    """

    def __init__(self, ingest: IngestContext) -> None:
        self._ingest = ingest
        self._waiting: dict[str, list[bytes]] = defaultdict(list)
        self._waiting_bytes = 0
        self._waiting_count = 0
        self._ingest_task: asyncio.Task[None] | None = None

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Add a message to the waiting ones, which are stored together once those before are on disk."""
        is_full = self._waiting_bytes + len(data) > _MAX_WAITING_BYTES or self._waiting_count >= _MAX_WAITING_DATAGRAMS
        if is_full:
            self._ingest.telemetry.count_rejection(SpoolFull("datagrams arrive faster than they can be stored"))
            return
        frames = strip_frame(data)
        if frames:
            self._waiting[addr[0]] += frames
            self._waiting_bytes += len(data)
            self._waiting_count += 1
            if self._ingest_task is None:
                self._ingest_task = asyncio.create_task(self._ingest_waiting())

    async def stop(self, transport: asyncio.DatagramTransport) -> None:
        """Stop receiving, and store the messages that were received."""
        transport.close()
        if self._ingest_task is not None:
            await self._ingest_task

    async def _ingest_waiting(self) -> None:
        try:
            while self._waiting:
                # Store the messages of one turn of the event loop together.
                await asyncio.sleep(0)
                waiting, self._waiting = self._waiting, defaultdict(list)
                self._waiting_bytes = self._waiting_count = 0
                await asyncio.gather(*(self._ingest_from_client(peer, frames) for peer, frames in waiting.items()))
        finally:
            self._ingest_task = None

    async def _ingest_from_client(self, peer: str, frames: Sequence[bytes]) -> None:
        for batch in _split_batches(frames, self._ingest.config.batch_max_events):
            try:
                await _store_messages(self._ingest, batch, normalize_address(peer) or peer)
            except MetronomeError as error:
                for _ in batch:
                    self._ingest.telemetry.count_rejection(error)


async def _store_messages(ingest: IngestContext, frames: Sequence[bytes], client_ip: str) -> None:
    """Store messages; they are on disk when this returns.

    Raises:
        Unauthorized: sending without a key is no longer allowed.
        SpoolFull: no message was stored.

    """
    scopes = ingest.authorizer.anonymous_permissions(is_local=is_loopback_host(client_ip)).scopes
    if Scope.TICK not in scopes:
        raise Unauthorized("events need a key, which syslog cannot carry")
    received_at = format_timestamp(datetime.fromtimestamp(ingest.clock(), UTC))
    is_trusted = Scope.IMPORT in scopes
    events = parse_messages(frames, received_at, client_ip, ingest.config, is_trusted=is_trusted)
    result = await ingest.intake.store(events, is_trusted=is_trusted)
    for error in result.rejected.values():
        ingest.telemetry.count_rejection(error)


def _split_batches(frames: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (frames[at : at + size] for at in range(0, len(frames), size))
