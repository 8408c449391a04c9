"""The listener for Fluentd's forward protocol, over TCP or TLS.

A chunk is acknowledged once its events are on disk, in the order of arrival. While the spool is full, storing it is
retried and the client waits; a client that times out sends the chunk again, which is harmless, as the IDs of a
chunk's events are derived from its ID and content.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Final, NamedTuple, cast

import structlog

from metronome.auth.authorizer import Authorizer
from metronome.auth.client_address import is_loopback_host
from metronome.config import ENV_PREFIX, Settings
from metronome.enrich.addresses import normalize_address
from metronome.errors import (
    ConfigurationError,
    Malformed,
    MemoryLimitReached,
    MetronomeError,
    RequestError,
    RequestTimeout,
    SpoolFull,
    Unauthorized,
)
from metronome.event import derive_event_ids
from metronome.protocol import ParsedEvent
from metronome.protocols.forward import handshake
from metronome.protocols.forward.entries import NO_GROUP, group_after, parse_entries
from metronome.protocols.forward.handshake import ForwardHandshake
from metronome.protocols.forward.messages import (
    ForwardFrameReader,
    ForwardMessage,
    encode_ack,
    merge_messages,
    parse_message,
    split_message,
)
from metronome.retry import Backoff, retry
from metronome.scopes import Scope
from metronome.web.bodies import decompress
from metronome.web.budget import PACE_CHECK_SECONDS, SMALL_MAX_BYTES
from metronome.web.handlers import IngestContext

log = structlog.get_logger()

_READ_BYTES: Final = 256 * 1024
_MAX_IN_FLIGHT_BYTES: Final = 1024 * 1024
"""How many bytes of one connection may be in the intake at once; a single part of a message may be larger."""
_MIN_ENTRY_BYTES: Final = 128
"""The size that a smaller entry counts as: the document that it becomes is larger."""
_DECOMPRESS_IN_THREAD_MIN_BYTES: Final = 64 * 1024
_MAX_MALFORMED_FRAMES: Final = 100
"""A client that sends this many invalid frames uses another protocol, and is disconnected."""
_BACKOFF: Final = Backoff(0.1, 2.0)
_CLOSE_TIMEOUT_SECONDS: Final = 1.0
_COMPRESSIONS: Final = frozenset({"gzip", "zstd"})
_BYTES_PER_MEMBER: Final = 16
"""Fluentd's buffer compresses each append as a member of its own, which may be a single entry."""
_MAX_CONNECTIONS: Final = 1024
_TLS_HANDSHAKE_SECONDS: Final = 60.0
_HEARTBEAT_REPLY: Final = b"\0"
_HEARTBEAT_MAX_BYTES: Final = 128
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class ForwardConnectionContext:
    """What all connections share.

    Attributes:
        ingest: where events go.
        shutdown: set when the server stops.
        frame_timeout_seconds: how long a handshake, the rest of a frame, and the client's reading of an
            acknowledgement may take.
        idle_timeout_seconds: how long a client may send nothing.

    """

    ingest: IngestContext
    shutdown: asyncio.Event
    frame_timeout_seconds: float = 60.0
    idle_timeout_seconds: float = 600.0


class _PendingAck(NamedTuple):
    """A part of a message that is being stored, with its acknowledgement, or None if the part was abandoned."""

    ack: "asyncio.Task[bytes | None]"
    size: int


class ForwardConnection:
    """Serve one connection.

    Args:
        context: what it shares with other connections.
        handshake: the handshake that the client has to begin with, if any.
        reader: receives from the client.
        writer: sends to the client.

    """

    def __init__(
        self,
        context: ForwardConnectionContext,
        handshake: ForwardHandshake | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._ingest, self._shutdown = context.ingest, context.shutdown
        self._handshake = handshake
        self._has_shared_key = handshake is not None
        self._reader, self._writer = reader, writer
        peer = str((writer.get_extra_info("peername") or ("",))[0])
        self._client_ip = normalize_address(peer) or peer
        self._loop = asyncio.get_running_loop()
        self._frame_timeout_seconds, self._idle_timeout_seconds = (
            context.frame_timeout_seconds,
            context.idle_timeout_seconds,
        )
        self._deadline = self._loop.time() + self._frame_timeout_seconds
        self._pending_acks: asyncio.Queue[_PendingAck | None] = asyncio.Queue()
        self._in_flight_bytes = self._held_bytes = 0
        self._lease = context.ingest.budget.open(self._client_ip)
        self._capacity_freed = asyncio.Event()
        self._rejected_count = self._malformed_frames = 0
        self._is_client_gone = self._is_stopped = self._is_receiving = False
        self._reader_task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve the connection until it ends."""
        reading = self._reader_task = asyncio.create_task(self._read_frames())
        writing = asyncio.create_task(self._write_acks())
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.result()
            self._pending_acks.put_nowait(None)
            await writing
        finally:
            reading.cancel()
            writing.cancel()
            while not self._pending_acks.empty():
                pending = self._pending_acks.get_nowait()
                if pending is not None:
                    pending.ack.cancel()
            self._lease.release()
            if self._rejected_count > 1:
                log.warning("forward_refused_in_all", sender=self._client_ip, refused=self._rejected_count)
            await self._close()

    def stop(self) -> None:
        """Stop reading, but finish what was read."""
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
                await self._process_bytes(frames, data)
        except (RequestError, MemoryLimitReached) as rejection:
            self._count_rejections([rejection])

    async def _process_bytes(self, frames: ForwardFrameReader, data: bytes) -> None:
        # Not in the loop above, whose variables would keep the last message in memory while the client is silent.
        was_partial = frames.is_partial
        messages, error = self._parse_frames(frames, data)
        if frames.is_partial and (messages or not was_partial):
            self._deadline = self._loop.time() + self._frame_timeout_seconds
            self._lease.restart()
        self._held_bytes = frames.held_bytes
        self._update_lease()
        for message in merge_messages(messages):
            await self._ingest_message(message)
        if error is not None:
            raise error

    def _update_lease(self) -> None:
        self._lease.resize(self._held_bytes + self._in_flight_bytes)

    async def _receive(self, *, expects_data: bool) -> bytes:
        """Return received bytes, or nothing if the connection has ended, is idle for too long, or is to be closed."""
        if self._is_stopped:
            return b""
        seconds = self._deadline - self._loop.time() if expects_data else self._idle_timeout_seconds
        self._is_receiving = True
        try:
            async with asyncio.timeout(seconds):
                while expects_data and self._held_bytes > SMALL_MAX_BYTES:
                    self._lease.check_pace()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(PACE_CHECK_SECONDS):
                            return await self._reader.read(_READ_BYTES)
                return await self._reader.read(_READ_BYTES)
        except TimeoutError:
            if expects_data:
                raise RequestTimeout(
                    f"no complete frame arrived within {self._frame_timeout_seconds:.0f} seconds"
                ) from None
        except OSError:
            self._is_client_gone = True
        finally:
            self._is_receiving = False
        return b""

    def _parse_frames(
        self, frames: ForwardFrameReader, data: bytes
    ) -> tuple[list[ForwardMessage], RequestError | None]:
        """Return the messages that are complete, and the error that ends the connection, if any."""
        messages: list[ForwardMessage] = []
        try:
            for frame in frames.feed(data):
                if self._handshake is not None:
                    self._authenticate(self._handshake, frame)
                    self._handshake = None
                    frames.max_bytes = self._ingest.config.body_max_bytes
                    continue
                try:
                    messages.append(parse_message(frame))
                except Malformed as error:
                    self._malformed_frames += 1
                    if self._malformed_frames >= _MAX_MALFORMED_FRAMES:
                        raise
                    self._count_rejections([error])
        except RequestError as error:
            return messages, error
        return messages, None

    def _authenticate(self, handshake: ForwardHandshake, frame: bytes) -> None:
        pong, reason = handshake.verify_ping(frame)
        self._writer.write(pong)
        if reason:
            raise Unauthorized(f"the handshake failed: {reason}")

    async def _ingest_message(self, message: ForwardMessage) -> None:
        """Send a message's events to the intake, in parts if it has many.

        Raises:
            Unauthorized: the client may no longer send.
            Malformed, PayloadTooLarge: the compressed entries are invalid or too large.

        """
        is_trusted = self._check_trust()
        message = await self._decompress(message)
        # Of the uncompressed entries: a client that compresses them again may send other bytes.
        event_id_seed = _message_digest(message) if message.chunk_id else b""
        group = NO_GROUP
        for first_index, part, entry_ends in split_message(message, self._ingest.config.batch_max_events):
            size = max(len(part.entries), len(entry_ends.offsets) * _MIN_ENTRY_BYTES)
            await self._wait_for_capacity(size)
            self._in_flight_bytes += size
            self._update_lease()
            events = partial(parse_entries, part, entry_ends, self._ingest.config, group)
            group = group_after(part, entry_ends, group)
            ack = self._ingest_part(part, events, event_id_seed, first_index, is_trusted=is_trusted)
            self._pending_acks.put_nowait(_PendingAck(asyncio.create_task(ack), size))

    def _check_trust(self) -> bool:
        """Return whether the client may send any time.

        Raises:
            Unauthorized: it may no longer send at all.

        """
        if self._has_shared_key:
            return True
        scopes = self._ingest.authorizer.anonymous_permissions(is_local=is_loopback_host(self._client_ip)).scopes
        if Scope.TICK not in scopes:
            raise Unauthorized(f"sending without a key is not allowed: set {ENV_PREFIX}FORWARD_SHARED_KEY")
        return Scope.IMPORT in scopes

    async def _decompress(self, message: ForwardMessage) -> ForwardMessage:
        if len(message.entries) < _DECOMPRESS_IN_THREAD_MIN_BYTES or not message.compression:
            return decompress_message(message, self._ingest.config.body_max_bytes)
        return await asyncio.to_thread(decompress_message, message, self._ingest.config.body_max_bytes)

    async def _wait_for_capacity(self, size: int) -> None:
        while self._in_flight_bytes and self._in_flight_bytes + size > _MAX_IN_FLIGHT_BYTES:
            self._capacity_freed.clear()
            await self._capacity_freed.wait()
            # Meanwhile nothing was read, so the client is not late.
            self._deadline = self._loop.time() + self._frame_timeout_seconds

    async def _ingest_part(
        self,
        part: ForwardMessage,
        parse_events: Callable[[], Iterator[ParsedEvent]],
        event_id_seed: bytes,
        first_index: int,
        *,
        is_trusted: bool,
    ) -> bytes | None:
        """Store a part of a message and return its acknowledgement, or None if the part was abandoned."""

        async def store() -> bytes:
            events = parse_events()
            event_ids = islice(derive_event_ids(event_id_seed), first_index, None) if event_id_seed else None
            result = await self._ingest.intake.store(events, is_trusted=is_trusted, event_ids=event_ids)
            self._count_rejections(list(result.rejected.values()))
            return encode_ack(part.chunk_id)

        def should_retry(error: BaseException) -> bool:
            is_abandoned = self._shutdown.is_set() or (event_id_seed and self._is_client_disconnected())
            return isinstance(error, SpoolFull) and not is_abandoned

        try:
            return await store()
        except SpoolFull as error:
            # Only now: `retry` takes longer than storing a small part.
            self._count_rejections([error])
        try:
            return await retry(store, _BACKOFF, should_retry=should_retry, sleep=self._sleep_unless_shutdown)
        except SpoolFull:
            return None

    async def _sleep_unless_shutdown(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._shutdown.wait()

    def _is_client_disconnected(self) -> bool:
        """Return whether the client no longer waits for acknowledgements, and will send again what has none."""
        return self._is_client_gone or self._writer.transport.is_closing() or self._reader.at_eof()

    async def _write_acks(self) -> None:
        """Acknowledge stored parts in the order of their arrival."""
        while (pending := await self._pending_acks.get()) is not None:
            ack = await pending.ack
            self._in_flight_bytes -= pending.size
            self._update_lease()
            self._capacity_freed.set()
            if ack is None:
                return
            if ack and not self._is_client_gone:
                await self._write_ack(ack)

    async def _write_ack(self, ack: bytes) -> None:
        try:
            self._writer.write(ack)
            async with asyncio.timeout(self._frame_timeout_seconds):
                await self._writer.drain()
        except (OSError, TimeoutError):
            self._is_client_gone = True
            self.stop()

    def _count_rejections(self, errors: Sequence[MetronomeError]) -> None:
        """Count rejections; log only the first one of the connection."""
        for error in errors:
            self._ingest.telemetry.count_rejection(error)
        if errors and not self._rejected_count:
            kind = type(errors[0]).__name__
            log.warning("forward_refused", sender=self._client_ip, kind=kind, error=str(errors[0]))
        self._rejected_count += len(errors)

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                if self._writer.can_write_eof() and not self._is_client_disconnected():
                    self._writer.write_eof()
                    # Unread bytes would reset the connection, and acknowledgements on their way would be lost.
                    while await self._reader.read(_READ_BYTES):
                        pass
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


def decompress_message(message: ForwardMessage, max_bytes: int) -> ForwardMessage:
    """Return a message with its entries uncompressed.

    Args:
        message: its entries may be compressed or not.
        max_bytes: the maximum size of the uncompressed entries.

    Raises:
        Malformed: the compression is unknown, or the entries are not compressed that way.
        PayloadTooLarge: the uncompressed entries are over the limit.

    """
    if not message.compression:
        return message
    if message.compression not in _COMPRESSIONS:
        raise Malformed(
            f"invalid compression {message.compression[:40]!r}: expected {', '.join(sorted(_COMPRESSIONS))} or text"
        )
    return message._replace(
        entries=decompress(message.entries, message.compression, max_bytes, _BYTES_PER_MEMBER), compression=""
    )


def _message_digest(message: ForwardMessage) -> bytes:
    content = blake2b(message.chunk_id, digest_size=32)
    content.update(message.entries)
    return content.digest()


@dataclass(frozen=True, slots=True)
class _ForwardCredentials:
    """The credentials that clients have to prove.

    Attributes:
        shared_key: may be empty; then clients need none.
        users: passwords by user.

    """

    shared_key: str
    users: Mapping[str, str]

    def new_handshake(self) -> ForwardHandshake | None:
        """Return the handshake of a new connection, if it needs one."""
        if not self.shared_key:
            return None
        nonce, auth_salt = secrets.token_bytes(_NONCE_BYTES), secrets.token_bytes(_NONCE_BYTES)
        return ForwardHandshake(self.shared_key, nonce, auth_salt, self.users)


def validate_forward_settings(settings: Settings, authorizer: Authorizer) -> None:
    """Check the listener's settings against each other and the permissions.

    Raises:
        ConfigurationError: they contradict each other; the message names one of them.

    """
    if settings.forward_users and not settings.forward_shared_key:
        raise ConfigurationError(f"{ENV_PREFIX}FORWARD_USERS needs {ENV_PREFIX}FORWARD_SHARED_KEY: set both")
    if not settings.forward_shared_key and Scope.TICK not in authorizer.anonymous_permissions(is_local=True).scopes:
        raise ConfigurationError(
            f"{ENV_PREFIX}PUBLIC does not allow sending without a key: set {ENV_PREFIX}FORWARD_SHARED_KEY"
        )
    _build_tls_context(settings)


@contextlib.asynccontextmanager
async def run_forward_listener(
    settings: Settings, ingest: IngestContext, *, reuse_port: bool = False
) -> AsyncIterator[None]:
    """Listen on `Settings.forward_port` while the block runs; at its end, store and acknowledge what was received.

    Args:
        settings: the port, the credentials and the certificate.
        ingest: where events go.
        reuse_port: whether other processes listen on the port too.

    Raises:
        ConfigurationError: the certificate cannot be read.
        OSError: the port is not available.

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
        address = server.sockets[0].getsockname()[:2]
        heartbeats, _ = await loop.create_datagram_endpoint(_HeartbeatResponder, address, reuse_port=reuse)
        try:
            log.info("listening_forward", host=address[0], port=address[1], tls=context is not None)
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
        self._connection_context = ForwardConnectionContext(ingest, asyncio.Event())
        self._connections: dict[asyncio.Task[None], ForwardConnection] = {}

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _MAX_CONNECTIONS or self._connection_context.shutdown.is_set():
            log.warning("forward_connection_refused", connections=len(self._connections))
            writer.transport.abort()
            return
        connection = ForwardConnection(self._connection_context, self._credentials.new_handshake(), reader, writer)
        self._connections[task] = connection
        try:
            await connection.run()
        except asyncio.CancelledError:
            # By `stop`. asyncio would log the exception of a connection task that ends as cancelled.
            writer.transport.abort()
        finally:
            del self._connections[task]

    async def stop(self, timeout_seconds: float) -> None:
        """Stop reading, finish what was read, and close all connections."""
        self._connection_context.shutdown.set()
        tasks = list(self._connections)
        for connection in self._connections.values():
            connection.stop()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class _HeartbeatResponder(asyncio.DatagramProtocol):
    """Answer the UDP heartbeats of old Fluentd versions."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not isinstance: uvloop's transport is of another class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        if len(data) <= _HEARTBEAT_MAX_BYTES:
            self._transport.sendto(_HEARTBEAT_REPLY, addr)


def _build_tls_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.forward_certificate is None:
        if settings.forward_certificate_key is not None:
            raise ConfigurationError(
                f"{ENV_PREFIX}FORWARD_CERTIFICATE_KEY needs {ENV_PREFIX}FORWARD_CERTIFICATE: set both"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.forward_certificate, settings.forward_certificate_key)
    except OSError as error:
        raise ConfigurationError(
            f"cannot load {ENV_PREFIX}FORWARD_CERTIFICATE and its key (from the same file or from "
            f"{ENV_PREFIX}FORWARD_CERTIFICATE_KEY): {error}"
        ) from None
    return context
