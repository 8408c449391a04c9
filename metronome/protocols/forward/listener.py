"""One connection of the forward protocol: frames in, acknowledgements out, in their order.

The listener for Fluentd's forward protocol: over TCP, or TLS where there is a certificate.

A chunk is acknowledged once its events are on disk. Where they cannot be, for want of room, it is tried again while
the client waits; it sends the chunk again after a time of its own, which does no harm, as a chunk's events are known
again by its id and what it holds.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple, cast

import structlog

from metronome.auth.authorizer import Authorizer
from metronome.config import ENV_PREFIX, Settings
from metronome.errors import (
    ConfigurationError,
    Malformed,
    MetronomeError,
    RequestError,
    RequestTimeout,
    SpoolFull,
    Unauthorized,
)
from metronome.event import derive_event_ids
from metronome.protocol import IngestResult, ParsedRequest, Reply, Request
from metronome.protocols.forward import handshake
from metronome.protocols.forward.frames import ForwardFrameReader
from metronome.protocols.forward.handshake import ForwardHandshake
from metronome.protocols.forward.protocol import ForwardProtocol
from metronome.protocols.forward.transport import (
    EntryEnds,
    ForwardMessage,
    decompress_message,
    merge_messages,
    parse_message,
    split_message,
)
from metronome.scopes import Scope
from metronome.web.handlers import IngestContext

log = structlog.get_logger()

_READ_BYTES: Final = 256 * 1024
_MAX_IN_FLIGHT_BYTES: Final = 1024 * 1024
"""So much of one connection is in the intake at once, or else a single part of a frame."""
_MIN_ENTRY_BYTES: Final = 128
"""So much an entry counts at the least: what becomes of one is larger than the smallest that there are."""
_DECOMPRESS_IN_THREAD_MIN_BYTES: Final = 64 * 1024
_MAX_MALFORMED_FRAMES: Final = 100
"""Whoever sends so many frames that are none speaks another protocol."""
_INITIAL_BACKOFF_SECONDS: Final = 0.1
_MAX_BACKOFF_SECONDS: Final = 2.0
_CLOSE_TIMEOUT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class ForwardConnectionContext:
    """What all connections share.

    Attributes:
        doorway: where events go.
        dialect: reads frames.
        stopping: set when the service stops.
        frame_seconds: how long a handshake may take, a frame that has begun, or a client that takes no answers.
        idle_seconds: how long nothing need come.

    """

    ingest: IngestContext
    protocol: ForwardProtocol
    shutdown: asyncio.Event
    frame_timeout_seconds: float = 60.0
    idle_timeout_seconds: float = 600.0


class _PendingAck(NamedTuple):
    """A part of a frame on its way to the disk: what is answered then, or None if it never gets there."""

    ack: "asyncio.Task[bytes | None]"
    size: int


class _MessageProtocol:
    """The dialect of one frame that was taken apart already; it tells of entries that were rejected."""

    def __init__(
        self,
        protocol: ForwardProtocol,
        message: ForwardMessage,
        entry_ends: EntryEnds,
        log_rejection: Callable[[MetronomeError, int], None],
    ) -> None:
        self.extract_key, self.reply_error = protocol.extract_key, protocol.reply_error
        self._protocol = protocol
        self._message, self._entry_ends = message, entry_ends
        self._log_rejection = log_rejection

    def parse(self, request: Request) -> ParsedRequest:
        return self._protocol.parse_message_entries(self._message, self._entry_ends, request)

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        for error in result.rejected.values():
            self._log_rejection(error, len(result.rejected))
            break
        return self._protocol.reply(request, parsed, result)


class ForwardConnection:
    """Serves one connection.

    Args:
        context: what it shares with others.
        handshake: the handshake that has to come first, if any.
        reader: what the client sends.
        writer: what it is answered.

    """

    def __init__(
        self,
        context: ForwardConnectionContext,
        handshake: ForwardHandshake | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._ingest, self._shutdown = context.ingest, context.shutdown
        self._protocol = context.protocol
        self._handshake = handshake
        self._has_shared_key = handshake is not None
        self._reader, self._writer = reader, writer
        self._client_ip = str((writer.get_extra_info("peername") or ("",))[0])
        self._loop = asyncio.get_running_loop()
        self._frame_timeout_seconds, self._idle_timeout_seconds = (
            context.frame_timeout_seconds,
            context.idle_timeout_seconds,
        )
        self._deadline = self._loop.time() + self._frame_timeout_seconds
        self._pending_acks: asyncio.Queue[_PendingAck | None] = asyncio.Queue()
        self._in_flight_bytes = 0
        self._capacity_freed = asyncio.Event()
        self._rejected_count = self._malformed_frames = 0
        self._is_client_gone = self._is_stopped = self._is_receiving = False
        self._reader_task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve the connection to its end."""
        listening = self._reader_task = asyncio.create_task(self._read_frames())
        answering = asyncio.create_task(self._write_acks())
        try:
            await asyncio.wait([listening, answering], return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                listening.cancel()
            await asyncio.wait([listening])
            if not listening.cancelled():
                listening.result()
            self._pending_acks.put_nowait(None)
            await answering
        finally:
            listening.cancel()
            answering.cancel()
            while not self._pending_acks.empty():
                left = self._pending_acks.get_nowait()
                if left is not None:
                    left.ack.cancel()
            if self._rejected_count > 1:
                log.warning("forward_refused_in_all", sender=self._client_ip, refused=self._rejected_count)
            await self._close()

    def stop(self) -> None:
        """Read no more; what was read is finished."""
        self._is_stopped = True
        if self._is_receiving and self._reader_task is not None:
            self._reader_task.cancel()

    async def _read_frames(self) -> None:
        frames = ForwardFrameReader(
            handshake.HANDSHAKE_MAX_BYTES if self._handshake else self._ingest.config.body_max_bytes
        )
        if self._handshake is not None:
            self._writer.write(self._handshake.encode_helo())
        try:
            while data := await self._receive(expects_data=frames.is_partial or self._handshake is not None):
                was_partial = frames.is_partial
                whole, broken = self._parse_frames(frames, data)
                if frames.is_partial and (whole or not was_partial):
                    self._deadline = self._loop.time() + self._frame_timeout_seconds
                for transport in merge_messages(whole):
                    await self._ingest_message(transport)
                if broken is not None:
                    raise broken
        except RequestError as error:
            self._count_rejection(error)

    async def _receive(self, *, expects_data: bool) -> bytes:
        """Return what comes, or nothing if the connection has ended or nothing more was to be expected of it."""
        if self._is_stopped:
            return b""
        seconds = self._deadline - self._loop.time() if expects_data else self._idle_timeout_seconds
        self._is_receiving = True
        try:
            async with asyncio.timeout(seconds):
                return await self._reader.read(_READ_BYTES)
        except TimeoutError:
            if expects_data:
                raise RequestTimeout(f"no whole frame came within {self._frame_timeout_seconds:.0f} seconds") from None
        except OSError:
            self._is_client_gone = True
        finally:
            self._is_receiving = False
        return b""

    def _parse_frames(
        self, frames: ForwardFrameReader, data: bytes
    ) -> tuple[list[ForwardMessage], RequestError | None]:
        """Return the frames that are whole, and why there can be no more of them."""
        whole: list[ForwardMessage] = []
        try:
            for frame in frames.feed(data):
                if self._handshake is not None:
                    self._authenticate(self._handshake, frame)
                    self._handshake = None
                    frames.max_bytes = self._ingest.config.body_max_bytes
                    continue
                try:
                    whole.append(parse_message(frame))
                except Malformed as error:
                    self._malformed_frames += 1
                    if self._malformed_frames >= _MAX_MALFORMED_FRAMES:
                        raise
                    self._count_rejection(error)
        except RequestError as error:
            return whole, error
        return whole, None

    def _authenticate(self, handshake: ForwardHandshake, frame: bytes) -> None:
        pong, reason = handshake.verify_ping(frame)
        self._writer.write(pong)
        if reason:
            raise Unauthorized(f"the client is not let in: {reason}")

    async def _ingest_message(self, message: ForwardMessage) -> None:
        """Send a frame's events to the intake, in parts if it has many.

        Raises:
            Unauthorized: the client may not send any more.
            Malformed, PayloadTooLarge: what is compressed cannot be read, or is too much.

        """
        believed = self._check_trust()
        message = await self._decompress(message)
        # Not of what came: a client that compresses it again gets other bytes.
        seed = _message_digest(message) if message.chunk_id else b""
        config = self._ingest.config
        for first, part, ends in split_message(message, config.batch_max_events):
            size = max(len(part.entries), len(ends[0]) * _MIN_ENTRY_BYTES)
            await self._wait_for_capacity(size)
            carried = _MessageProtocol(self._protocol, part, ends, self._log_rejection)
            request = Request(
                part.entries,
                "",
                config.batch_max_events,
                client_ip=self._client_ip,
                is_trusted=believed,
                config=config,
            )
            self._in_flight_bytes += size
            self._pending_acks.put_nowait(
                _PendingAck(asyncio.create_task(self._ingest_part(carried, request, seed, first)), size)
            )

    def _check_trust(self) -> bool:
        """Tell whether the client may send any time.

        Raises:
            Unauthorized: it may not send at all any more.

        """
        if self._has_shared_key:
            return True
        scopes = self._ingest.authorizer.anonymous_permissions().scopes
        if Scope.TICK not in scopes:
            raise Unauthorized(f"nobody may send without a key any more: set {ENV_PREFIX}FORWARD_SHARED_KEY")
        return Scope.IMPORT in scopes

    async def _decompress(self, message: ForwardMessage) -> ForwardMessage:
        if len(message.entries) < _DECOMPRESS_IN_THREAD_MIN_BYTES or not message.compression:
            return decompress_message(message, self._ingest.config.body_max_bytes)
        return await asyncio.to_thread(decompress_message, message, self._ingest.config.body_max_bytes)

    async def _wait_for_capacity(self, size: int) -> None:
        while self._in_flight_bytes and self._in_flight_bytes + size > _MAX_IN_FLIGHT_BYTES:
            self._capacity_freed.clear()
            await self._capacity_freed.wait()
            # What the client has sent meanwhile was not read.
            self._deadline = self._loop.time() + self._frame_timeout_seconds

    async def _ingest_part(
        self, protocol: _MessageProtocol, request: Request, event_id_seed: bytes, first_index: int
    ) -> bytes | None:
        """Bring a part of a frame to the disk, and return the answer, or None if it was given up."""
        pause = _INITIAL_BACKOFF_SECONDS
        while True:
            named: Iterator[str] | None = (
                islice(derive_event_ids(event_id_seed), first_index, None) if event_id_seed else None
            )
            try:
                return (await self._ingest.intake.ingest(protocol, request._replace(event_ids=named))).body
            except SpoolFull as error:
                if pause == _INITIAL_BACKOFF_SECONDS:
                    self._count_rejection(error)
                if self._shutdown.is_set() or (event_id_seed and self._is_client_disconnected()):
                    return None
            except RequestError as error:
                self._count_rejection(error)
                return b""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._shutdown.wait()
            pause = min(2 * pause, _MAX_BACKOFF_SECONDS)

    def _is_client_disconnected(self) -> bool:
        """Tell whether the client waits for no answers any more; what it gets none for, it sends again."""
        return self._is_client_gone or self._writer.transport.is_closing() or self._reader.at_eof()

    async def _write_acks(self) -> None:
        """Acknowledge what is on disk, in the order in which it came."""
        while (taking := await self._pending_acks.get()) is not None:
            answer = await taking.ack
            self._in_flight_bytes -= taking.size
            self._capacity_freed.set()
            if answer is None:
                return
            if answer and not self._is_client_gone:
                await self._write_ack(answer)

    async def _write_ack(self, ack: bytes) -> None:
        try:
            self._writer.write(ack)
            async with asyncio.timeout(self._frame_timeout_seconds):
                await self._writer.drain()
        except (OSError, TimeoutError):
            self._is_client_gone = True
            self.stop()

    def _count_rejection(self, error: MetronomeError) -> None:
        self._ingest.telemetry.count_rejection(error)
        self._log_rejection(error, 1)

    def _log_rejection(self, error: MetronomeError, count: int) -> None:
        """Log the first refusal of a connection; the others are only counted."""
        if not self._rejected_count:
            kind = type(error).__name__
            log.warning("forward_refused", sender=self._client_ip, kind=kind, error=str(error))
        self._rejected_count += count

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                if self._writer.can_write_eof() and not self._is_client_disconnected():
                    self._writer.write_eof()
                    # Left unread, it would reset the connection, and the answers on their way would be lost.
                    while await self._reader.read(_READ_BYTES):
                        pass
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


def _message_digest(message: ForwardMessage) -> bytes:
    content = blake2b(message.chunk_id, digest_size=32)
    content.update(message.entries)
    return content.digest()


_MAX_CONNECTIONS: Final = 1024
_TLS_HANDSHAKE_SECONDS: Final = 60.0
_HEARTBEAT_REPLY: Final = b"\0"
_HEARTBEAT_MAX_BYTES: Final = 128
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _ForwardCredentials:
    """What clients have to show.

    Attributes:
        shared_key: what they must know, or empty.
        users: passwords by user.

    """

    shared_key: str
    users: Mapping[str, str]

    def new_handshake(self) -> ForwardHandshake | None:
        """Return the handshake of a new connection, if there has to be one."""
        if not self.shared_key:
            return None
        nonce, auth = secrets.token_bytes(_NONCE_BYTES), secrets.token_bytes(_NONCE_BYTES)
        return ForwardHandshake(self.shared_key, nonce, auth, self.users)


def validate_forward_settings(settings: Settings, authorizer: Authorizer) -> None:
    """See that the settings of the listener go together.

    Raises:
        ConfigurationError: they do not; the message names one.

    """
    if settings.forward_users and not settings.forward_shared_key:
        raise ConfigurationError(f"{ENV_PREFIX}FORWARD_USERS needs {ENV_PREFIX}FORWARD_SHARED_KEY beside it")
    if not settings.forward_shared_key and Scope.TICK not in authorizer.anonymous_permissions().scopes:
        raise ConfigurationError(
            f"{ENV_PREFIX}PUBLIC lets nobody send without a key, and forward has none: set "
            f"{ENV_PREFIX}FORWARD_SHARED_KEY"
        )
    _build_tls_context(settings)


@contextlib.asynccontextmanager
async def run_forward_listener(
    settings: Settings, ingest: IngestContext, *, reuse_port: bool = False
) -> AsyncIterator[None]:
    """Listen at `Settings.forward_port` while the block runs; as it ends, finish what was sent and acknowledge it.

    Args:
        settings: the port, and who may send.
        ingest: where events go.
        reuse_port: whether other processes listen there too.

    Raises:
        ConfigurationError: the certificate cannot be read.
        OSError: the port cannot be listened on.

    """
    context = _build_tls_context(settings)
    listener = _ForwardListener(settings, ingest)
    loop = asyncio.get_running_loop()
    reuse = reuse_port or None
    server = await asyncio.start_server(
        listener.serve_connection,
        settings.host,
        settings.forward_port,
        limit=_READ_BYTES,
        ssl=context,
        ssl_handshake_timeout=_TLS_HANDSHAKE_SECONDS if context else None,
        reuse_port=reuse,
        backlog=1024,
    )
    try:
        where = server.sockets[0].getsockname()[:2]
        heartbeats, _ = await loop.create_datagram_endpoint(_HeartbeatResponder, where, reuse_port=reuse)
        try:
            log.info("listening_forward", host=where[0], port=where[1], tls=context is not None)
            yield
        finally:
            heartbeats.close()
    finally:
        server.close()
        await listener.stop(settings.stop_seconds)


class _ForwardListener:
    def __init__(self, settings: Settings, ingest: IngestContext) -> None:
        users = dict(user.split(":", 1) for user in settings.forward_users)
        self._credentials = _ForwardCredentials(settings.forward_shared_key, users)
        dialect = ForwardProtocol(ingest.config.body_max_bytes, settings.event_max_bytes)
        self._connection_context = ForwardConnectionContext(ingest, dialect, asyncio.Event())
        self._connections: dict[asyncio.Task[None], ForwardConnection] = {}

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _MAX_CONNECTIONS or self._connection_context.shutdown.is_set():
            log.warning("forward_connection_refused", connections=len(self._connections))
            writer.transport.abort()
            return
        conversation = ForwardConnection(self._connection_context, self._credentials.new_handshake(), reader, writer)
        self._connections[task] = conversation
        try:
            await conversation.run()
        except asyncio.CancelledError:
            # `stop` waits for it no longer. Streams would complain of a task that ends as cancelled.
            writer.transport.abort()
        finally:
            del self._connections[task]

    async def stop(self, timeout_seconds: float) -> None:
        """Read no more, finish what was read, and close all connections."""
        self._connection_context.shutdown.set()
        tasks = list(self._connections)
        for conversation in self._connections.values():
            conversation.stop()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class _HeartbeatResponder(asyncio.DatagramProtocol):
    """Answers the heartbeats of old Fluentds, which come over UDP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asked for its type: uvloop's has other ancestors.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        if len(data) <= _HEARTBEAT_MAX_BYTES:
            self._transport.sendto(_HEARTBEAT_REPLY, addr)


def _build_tls_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.forward_certificate is None:
        if settings.forward_certificate_key is not None:
            raise ConfigurationError(
                f"{ENV_PREFIX}FORWARD_CERTIFICATE_KEY needs {ENV_PREFIX}FORWARD_CERTIFICATE beside it"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.forward_certificate, settings.forward_certificate_key)
    except OSError as error:
        raise ConfigurationError(
            f"{ENV_PREFIX}FORWARD_CERTIFICATE and its key, in the same file or that of "
            f"{ENV_PREFIX}FORWARD_CERTIFICATE_KEY, cannot be used: {error}"
        ) from None
    return context
