"""The listener for Fluentd's forward protocol: over TCP, or TLS where there is a certificate.

A chunk is acknowledged once its events are on disk. Where they cannot be, for want of room, it is tried again while
the client waits; it sends the chunk again after a time of its own, which does no harm, as a chunk's events are known
again by its id and what it holds.
"""

import asyncio
import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

import structlog

from metronome.config import PREFIX, Settings
from metronome.dialects.forward.dialect import Forward
from metronome.dialects.forward.handshake import Handshake
from metronome.errors import Misconfigured
from metronome.keys import Scope
from metronome.service.forward_connection import Conversation, Surroundings
from metronome.service.guard import Guard
from metronome.service.writes import Doorway

log = structlog.get_logger()

_MAX_CONNECTIONS: Final = 1024
_READ_BYTES: Final = 256 * 1024
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
