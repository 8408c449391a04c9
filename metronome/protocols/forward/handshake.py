"""The handshake of the forward protocol: HELO, PING and PONG prove that both sides know the shared key."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from msgpack import packb, unpackb

HANDSHAKE_MAX_BYTES: Final = 16 * 1024
"""The maximum size of a client's first frame, which is larger than any PING."""

_PING: Final = b"PING"
_PING_LENGTH: Final = len(("PING", "host name", "salt", "digest", "user", "password's digest"))
_SERVER_HOSTNAME: Final = "metronome"
"""The name in our PONG. Not the machine's: clients reject a server that has the same name as they."""


class PingResult(NamedTuple):
    """The reply to a PING.

    Attributes:
        pong: the frame to send.
        rejection_reason: why the client is rejected, or empty if it is not.

    """

    pong: bytes
    rejection_reason: str


@dataclass(frozen=True, slots=True)
class ForwardHandshake:
    """The handshake of one connection.

    Attributes:
        shared_key: must not be empty.
        nonce: random bytes of this connection, for the key's digest.
        auth_salt: random bytes of this connection, for the password's digest.
        users: passwords by user; if empty, clients need no user.

    """

    shared_key: str
    nonce: bytes
    auth_salt: bytes
    users: Mapping[str, str] = field(default_factory=dict)

    def encode_helo(self) -> bytes:
        """Return the frame that the server begins with."""
        options = {"nonce": self.nonce, "auth": self.auth_salt if self.users else b"", "keepalive": True}
        return bytes(packb(["HELO", options]))

    def verify_ping(self, frame: bytes) -> PingResult:
        """Verify a client's first frame."""
        ping = _parse_ping(frame)
        if ping is None:
            return _rejected_ping("invalid ping message")
        host, salt, digest, user, password_digest = ping
        key = self.shared_key.encode()
        if not hmac.compare_digest(_sha512_hex(salt, host, self.nonce, key), digest):
            return _rejected_ping("shared_key mismatch")
        if self.users and not self._verify_user(user, password_digest):
            return _rejected_ping("username/password mismatch")
        proof = _sha512_hex(salt, _SERVER_HOSTNAME.encode(), self.nonce, key).decode()
        return PingResult(bytes(packb(["PONG", True, "", _SERVER_HOSTNAME, proof])), "")

    def _verify_user(self, user: bytes, digest: bytes) -> bool:
        # All passwords are compared, so that the time it takes reveals nothing.
        is_valid = False
        for name, password in self.users.items():
            expected = _sha512_hex(self.auth_salt, name.encode(), password.encode())
            is_valid |= hmac.compare_digest(expected, digest) & hmac.compare_digest(name.encode(), user)
        return is_valid


def _parse_ping(frame: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes] | None:
    """Return the values after the word PING, or None if the frame is not a PING."""
    try:
        values: Any = unpackb(frame, raw=True, strict_map_key=False, max_array_len=_PING_LENGTH, max_map_len=0)
    except (ValueError, TypeError):
        return None
    if type(values) is not list or len(values) != _PING_LENGTH or values[0] != _PING:
        return None
    if not all(type(value) is bytes for value in values):
        return None
    _, host, salt, digest, user, password_digest = values
    return host, salt, digest, user, password_digest


def _rejected_ping(reason: str) -> PingResult:
    return PingResult(bytes(packb(["PONG", False, reason, "", ""])), reason)


def _sha512_hex(*contents: bytes) -> bytes:
    return hashlib.sha512(b"".join(contents)).hexdigest().encode()
