"""How a client shows that it knows the shared key, and the server that it does: HELO, PING, PONG."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from msgpack import packb, unpackb

HANDSHAKE_MAX_BYTES: Final = 16 * 1024
"""No PING is larger; before it, nobody is trusted with more."""

_PING: Final = b"PING"
_PING_LENGTH: Final = len(("PING", "host name", "salt", "digest", "user", "password's digest"))
_SERVER_HOSTNAME: Final = "metronome"
"""The name in our PONG. Clients refuse a server that has their own, so it is not the machine's."""


class PingResult(NamedTuple):
    """What a PING is answered with.

    Attributes:
        pong: to be written back.
        reason: why the client is not let in, or empty if it is.

    """

    pong: bytes
    rejection_reason: str


@dataclass(frozen=True, slots=True)
class ForwardHandshake:
    """The handshake of one connection.

    Attributes:
        shared_key: what clients must know.
        users: passwords by user; without any, clients need not be one.
        nonce: random bytes of this connection, for the key's digest.
        auth: likewise, for the password's.

    """

    shared_key: str
    nonce: bytes
    auth_salt: bytes
    users: Mapping[str, str] = field(default_factory=dict)

    def encode_helo(self) -> bytes:
        """Return what the server begins with."""
        options = {"nonce": self.nonce, "auth": self.auth_salt if self.users else b"", "keepalive": True}
        return bytes(packb(["HELO", options]))

    def verify_ping(self, frame: bytes) -> PingResult:
        """Judge a client's first frame."""
        given = _parse_ping(frame)
        if given is None:
            return _rejected_ping("invalid ping message")
        host, salt, digest, user, password_digest = given
        key = self.shared_key.encode()
        if not hmac.compare_digest(_sha512_hex(salt, host, self.nonce, key), digest):
            return _rejected_ping("shared_key mismatch")
        if self.users and not self._verify_user(user, password_digest):
            return _rejected_ping("username/password mismatch")
        proof = _sha512_hex(salt, _SERVER_HOSTNAME.encode(), self.nonce, key).decode()
        return PingResult(bytes(packb(["PONG", True, "", _SERVER_HOSTNAME, proof])), "")

    def _verify_user(self, user: bytes, digest: bytes) -> bool:
        # Every password is tried, so that the time it takes tells of none.
        right = False
        for name, password in self.users.items():
            wanted = _sha512_hex(self.auth_salt, name.encode(), password.encode())
            right |= hmac.compare_digest(wanted, digest) & hmac.compare_digest(name.encode(), user)
        return right


def _parse_ping(frame: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes] | None:
    """Return what follows the word PING, or None if this is none."""
    try:
        found: Any = unpackb(frame, raw=True, strict_map_key=False, max_array_len=_PING_LENGTH, max_map_len=0)
    except (ValueError, TypeError):
        return None
    if type(found) is not list or len(found) != _PING_LENGTH or found[0] != _PING:
        return None
    _, host, salt, digest, user, password_digest = found
    if not all(type(value) is bytes for value in found):
        return None
    return host, salt, digest, user, password_digest


def _rejected_ping(reason: str) -> PingResult:
    return PingResult(bytes(packb(["PONG", False, reason, "", ""])), reason)


def _sha512_hex(*contents: bytes) -> bytes:
    return hashlib.sha512(b"".join(contents)).hexdigest().encode()
