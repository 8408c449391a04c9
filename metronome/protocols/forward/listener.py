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

from metronome.auth.authorizer import Guard
from metronome.config import PREFIX, Settings
from metronome.errors import CallerError, Malformed, MetronomeError, Misconfigured, NoKey, SpoolFull, TooSlow
from metronome.event import identities_of
from metronome.protocol import Outcome, Readings, Reply, Request
from metronome.protocols.forward import handshake
from metronome.protocols.forward.frames import Frames
from metronome.protocols.forward.handshake import Handshake
from metronome.protocols.forward.protocol import Forward
from metronome.protocols.forward.transport import Ends, Transport, joined, parts, plain, read_transport
from metronome.scopes import Scope
from metronome.web.handlers import Doorway

log = structlog.get_logger()

_READ_BYTES: Final = 256 * 1024
_IN_FLIGHT_BYTES: Final = 1024 * 1024
"""So much of one connection is in the intake at once, or else a single part of a frame."""
_ENTRY_BYTES: Final = 128
"""So much an entry counts at the least: what becomes of one is larger than the smallest that there are."""
_IN_A_THREAD_FROM: Final = 64 * 1024
_MAX_SENSELESS: Final = 100
"""Whoever sends so many frames that are none speaks another protocol."""
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all connections share.

    Attributes:
        doorway: where events go.
        dialect: reads frames.
        stopping: set when the service stops.
        frame_seconds: how long a handshake may take, a frame that has begun, or a client that takes no answers.
        idle_seconds: how long nothing need come.

    """

    doorway: Doorway
    dialect: Forward
    stopping: asyncio.Event
    frame_seconds: float = 60.0
    idle_seconds: float = 600.0


class _Taking(NamedTuple):
    """A part of a frame on its way to the disk: what is answered then, or None if it never gets there."""

    answer: "asyncio.Task[bytes | None]"
    size: int


class _Carried:
    """The dialect of one frame that was taken apart already; it tells of entries that were rejected."""

    def __init__(
        self, dialect: Forward, transport: Transport, entries: Ends, tell: Callable[[MetronomeError, int], None]
    ) -> None:
        self.key, self.refuse = dialect.key, dialect.refuse
        self._dialect = dialect
        self._transport, self._entries = transport, entries
        self._tell = tell

    def read(self, request: Request) -> Readings:
        return self._dialect.read_carried(self._transport, self._entries, request)

    def reply(self, request: Request, readings: Readings, outcome: Outcome) -> Reply:
        for error in outcome.rejected.values():
            self._tell(error, len(outcome.rejected))
            break
        return self._dialect.reply(request, readings, outcome)


class Conversation:
    """Serves one connection.

    Args:
        surroundings: what it shares with others.
        shake: the handshake that has to come first, if any.
        reader: what the client sends.
        writer: what it is answered.

    """

    def __init__(
        self,
        surroundings: Surroundings,
        shake: Handshake | None,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._doorway, self._stopping = surroundings.doorway, surroundings.stopping
        self._dialect = surroundings.dialect
        self._shake = shake
        self._is_trusted = shake is not None
        self._reader, self._writer = reader, writer
        self._sender = str((writer.get_extra_info("peername") or ("",))[0])
        self._loop = asyncio.get_running_loop()
        self._frame_seconds, self._idle_seconds = surroundings.frame_seconds, surroundings.idle_seconds
        self._deadline = self._loop.time() + self._frame_seconds
        self._taking: asyncio.Queue[_Taking | None] = asyncio.Queue()
        self._in_flight = 0
        self._eased = asyncio.Event()
        self._refused = self._senseless = 0
        self._is_gone = self._ends = self._is_receiving = False
        self._listening: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve the connection to its end."""
        listening = self._listening = asyncio.create_task(self._listen())
        answering = asyncio.create_task(self._answer())
        try:
            await asyncio.wait([listening, answering], return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                listening.cancel()
            await asyncio.wait([listening])
            if not listening.cancelled():
                listening.result()
            self._taking.put_nowait(None)
            await answering
        finally:
            listening.cancel()
            answering.cancel()
            while not self._taking.empty():
                left = self._taking.get_nowait()
                if left is not None:
                    left.answer.cancel()
            if self._refused > 1:
                log.warning("forward_refused_in_all", sender=self._sender, refused=self._refused)
            await self._close()

    def stop(self) -> None:
        """Read no more; what was read is finished."""
        self._ends = True
        if self._is_receiving and self._listening is not None:
            self._listening.cancel()

    async def _listen(self) -> None:
        frames = Frames(handshake.MAX_BYTES if self._shake else self._doorway.max_bytes)
        if self._shake is not None:
            self._writer.write(self._shake.helo())
        try:
            while data := await self._receive(is_waited_for=frames.is_partial or self._shake is not None):
                was_partial = frames.is_partial
                whole, broken = self._gather(frames, data)
                if frames.is_partial and (whole or not was_partial):
                    self._deadline = self._loop.time() + self._frame_seconds
                for transport in joined(whole):
                    await self._submit(transport)
                if broken is not None:
                    raise broken
        except CallerError as error:
            self._refuse(error)

    async def _receive(self, *, is_waited_for: bool) -> bytes:
        """Return what comes, or nothing if the connection has ended or nothing more was to be expected of it."""
        if self._ends:
            return b""
        seconds = self._deadline - self._loop.time() if is_waited_for else self._idle_seconds
        self._is_receiving = True
        try:
            async with asyncio.timeout(seconds):
                return await self._reader.read(_READ_BYTES)
        except TimeoutError:
            if is_waited_for:
                raise TooSlow(f"no whole frame came within {self._frame_seconds:.0f} seconds") from None
        except OSError:
            self._is_gone = True
        finally:
            self._is_receiving = False
        return b""

    def _gather(self, frames: Frames, data: bytes) -> tuple[list[Transport], CallerError | None]:
        """Return the frames that are whole, and why there can be no more of them."""
        whole: list[Transport] = []
        try:
            for frame in frames.feed(data):
                if self._shake is not None:
                    self._let_in(self._shake, frame)
                    self._shake = None
                    frames.max_bytes = self._doorway.max_bytes
                    continue
                try:
                    whole.append(read_transport(frame))
                except Malformed as error:
                    self._senseless += 1
                    if self._senseless >= _MAX_SENSELESS:
                        raise
                    self._refuse(error)
        except CallerError as error:
            return whole, error
        return whole, None

    def _let_in(self, shake: Handshake, frame: bytes) -> None:
        pong, reason = shake.answer(frame)
        self._writer.write(pong)
        if reason:
            raise NoKey(f"the client is not let in: {reason}")

    async def _submit(self, transport: Transport) -> None:
        """Send a frame's events to the intake, in parts if it has many.

        Raises:
            NoKey: the client may not send any more.
            Malformed, TooLarge: what is compressed cannot be read, or is too much.

        """
        believed = self._is_believed()
        transport = await self._unpacked(transport)
        # Not of what came: a client that compresses it again gets other bytes.
        seed = _digest(transport) if transport.chunk else b""
        max_events, site = self._doorway.max_events, self._doorway.site
        for first, part, ends in parts(transport, max_events):
            size = max(len(part.entries), len(ends[0]) * _ENTRY_BYTES)
            await self._wait_for_room(size)
            carried = _Carried(self._dialect, part, ends, self._tell)
            request = Request(part.entries, "", max_events, sender=self._sender, believed=believed, site=site)
            self._in_flight += size
            self._taking.put_nowait(_Taking(asyncio.create_task(self._take(carried, request, seed, first)), size))

    def _is_believed(self) -> bool:
        """Tell whether the client may send any time.

        Raises:
            NoKey: it may not send at all any more.

        """
        if self._is_trusted:
            return True
        scopes = self._doorway.guard.anonymous().scopes
        if Scope.TICK not in scopes:
            raise NoKey(f"nobody may send without a key any more: set {PREFIX}FORWARD_SHARED_KEY")
        return Scope.IMPORT in scopes

    async def _unpacked(self, transport: Transport) -> Transport:
        if len(transport.entries) < _IN_A_THREAD_FROM or not transport.encoding:
            return plain(transport, self._doorway.max_bytes)
        return await asyncio.to_thread(plain, transport, self._doorway.max_bytes)

    async def _wait_for_room(self, size: int) -> None:
        while self._in_flight and self._in_flight + size > _IN_FLIGHT_BYTES:
            self._eased.clear()
            await self._eased.wait()
            # What the client has sent meanwhile was not read.
            self._deadline = self._loop.time() + self._frame_seconds

    async def _take(self, carried: _Carried, request: Request, seed: bytes, first: int) -> bytes | None:
        """Bring a part of a frame to the disk, and return the answer, or None if it was given up."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            named: Iterator[str] | None = islice(identities_of(seed), first, None) if seed else None
            try:
                return (await self._doorway.intake.take(carried, request._replace(identities=named))).body
            except SpoolFull as error:
                if pause == _FIRST_PAUSE_SECONDS:
                    self._refuse(error)
                if self._stopping.is_set() or (seed and self._has_left()):
                    return None
            except CallerError as error:
                self._refuse(error)
                return b""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _has_left(self) -> bool:
        """Tell whether the client waits for no answers any more; what it gets none for, it sends again."""
        return self._is_gone or self._writer.transport.is_closing() or self._reader.at_eof()

    async def _answer(self) -> None:
        """Acknowledge what is on disk, in the order in which it came."""
        while (taking := await self._taking.get()) is not None:
            answer = await taking.answer
            self._in_flight -= taking.size
            self._eased.set()
            if answer is None:
                return
            if answer and not self._is_gone:
                await self._write(answer)

    async def _write(self, answer: bytes) -> None:
        try:
            self._writer.write(answer)
            async with asyncio.timeout(self._frame_seconds):
                await self._writer.drain()
        except (OSError, TimeoutError):
            self._is_gone = True
            self.stop()

    def _refuse(self, error: MetronomeError) -> None:
        self._doorway.telemetry.refuse(error)
        self._tell(error, 1)

    def _tell(self, error: MetronomeError, count: int) -> None:
        """Log the first refusal of a connection; the others are only counted."""
        if not self._refused:
            kind = type(error).__name__
            log.warning("forward_refused", sender=self._sender, kind=kind, error=str(error))
        self._refused += count

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                if self._writer.can_write_eof() and not self._has_left():
                    self._writer.write_eof()
                    # Left unread, it would reset the connection, and the answers on their way would be lost.
                    while await self._reader.read(_READ_BYTES):
                        pass
                self._writer.close()
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            self._writer.transport.abort()


def _digest(transport: Transport) -> bytes:
    content = blake2b(transport.chunk, digest_size=32)
    content.update(transport.entries)
    return content.digest()


_MAX_CONNECTIONS: Final = 1024
_TLS_SECONDS: Final = 60.0
_HEARTBEAT: Final = b"\0"
_HEARTBEAT_MAX_BYTES: Final = 128
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class _Security:
    """What clients have to show.

    Attributes:
        shared_key: what they must know, or empty.
        users: passwords by user.

    """

    shared_key: str
    users: Mapping[str, str]

    def handshake(self) -> Handshake | None:
        """Return the handshake of a new connection, if there has to be one."""
        if not self.shared_key:
            return None
        nonce, auth = secrets.token_bytes(_NONCE_BYTES), secrets.token_bytes(_NONCE_BYTES)
        return Handshake(self.shared_key, nonce, auth, self.users)


def check_forward(settings: Settings, guard: Guard) -> None:
    """See that the settings of the listener go together.

    Raises:
        Misconfigured: they do not; the message names one.

    """
    if settings.forward_users and not settings.forward_shared_key:
        raise Misconfigured(f"{PREFIX}FORWARD_USERS needs {PREFIX}FORWARD_SHARED_KEY beside it")
    if not settings.forward_shared_key and Scope.TICK not in guard.anonymous().scopes:
        raise Misconfigured(
            f"{PREFIX}PUBLIC lets nobody send without a key, and forward has none: set {PREFIX}FORWARD_SHARED_KEY"
        )
    _tls(settings)


@contextlib.asynccontextmanager
async def forwarding(settings: Settings, doorway: Doorway, *, shared: bool = False) -> AsyncIterator[None]:
    """Listen at `Settings.forward_port` while the block runs; as it ends, finish what was sent and acknowledge it.

    Args:
        settings: the port, and who may send.
        doorway: where events go.
        shared: whether other processes listen there too.

    Raises:
        Misconfigured: the certificate cannot be read.
        OSError: the port cannot be listened on.

    """
    context = _tls(settings)
    listener = _Listener(settings, doorway)
    loop = asyncio.get_running_loop()
    reuse = shared or None
    server = await asyncio.start_server(
        listener.converse,
        settings.host,
        settings.forward_port,
        limit=_READ_BYTES,
        ssl=context,
        ssl_handshake_timeout=_TLS_SECONDS if context else None,
        reuse_port=reuse,
        backlog=1024,
    )
    try:
        where = server.sockets[0].getsockname()[:2]
        heartbeats, _ = await loop.create_datagram_endpoint(_Heartbeats, where, reuse_port=reuse)
        try:
            log.info("listening_forward", host=where[0], port=where[1], tls=context is not None)
            yield
        finally:
            heartbeats.close()
    finally:
        server.close()
        await listener.stop(settings.stop_seconds)


class _Listener:
    def __init__(self, settings: Settings, doorway: Doorway) -> None:
        users = dict(user.split(":", 1) for user in settings.forward_users)
        self._security = _Security(settings.forward_shared_key, users)
        dialect = Forward(doorway.max_bytes, settings.event_max_bytes)
        self._surroundings = Surroundings(doorway, dialect, asyncio.Event())
        self._conversations: dict[asyncio.Task[None], Conversation] = {}

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        task = asyncio.current_task()
        if task is None or len(self._conversations) >= _MAX_CONNECTIONS or self._surroundings.stopping.is_set():
            log.warning("forward_connection_refused", connections=len(self._conversations))
            writer.transport.abort()
            return
        conversation = Conversation(self._surroundings, self._security.handshake(), reader, writer)
        self._conversations[task] = conversation
        try:
            await conversation.run()
        except asyncio.CancelledError:
            # `stop` waits for it no longer. Streams would complain of a task that ends as cancelled.
            writer.transport.abort()
        finally:
            del self._conversations[task]

    async def stop(self, seconds: float) -> None:
        """Read no more, finish what was read, and close all connections."""
        self._surroundings.stopping.set()
        tasks = list(self._conversations)
        for conversation in self._conversations.values():
            conversation.stop()
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class _Heartbeats(asyncio.DatagramProtocol):
    """Answers the heartbeats of old Fluentds, which come over UDP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asked for its type: uvloop's has other ancestors.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        if len(data) <= _HEARTBEAT_MAX_BYTES:
            self._transport.sendto(_HEARTBEAT, addr)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.forward_certificate is None:
        if settings.forward_certificate_key is not None:
            raise Misconfigured(f"{PREFIX}FORWARD_CERTIFICATE_KEY needs {PREFIX}FORWARD_CERTIFICATE beside it")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.forward_certificate, settings.forward_certificate_key)
    except OSError as error:
        raise Misconfigured(
            f"{PREFIX}FORWARD_CERTIFICATE and its key, in the same file or that of "
            f"{PREFIX}FORWARD_CERTIFICATE_KEY, cannot be used: {error}"
        ) from None
    return context
