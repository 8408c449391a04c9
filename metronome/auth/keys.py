"""Keys: what they are, and how they are stored.

The token of a key is 40 hexadecimal digits that are displayed once; only a hash is stored. The first eight digits are
the ID of the key. The hash needs neither a salt nor a slow function, since 160 random bits cannot be guessed.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import urlsplit

from metronome.errors import Malformed
from metronome.scopes import Scope

KEY_KIND: Final = "key"
"""The kind of their records in the state (see `metronome.state.base.State`), where their names are unique."""

NAME_MAX_CHARACTERS: Final = 100

_TOKEN_BYTES: Final = 20
_TOKEN: Final = re.compile(rf"[0-9a-f]{{{2 * _TOKEN_BYTES}}}")
_ID_DIGITS: Final = 8
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ORIGIN_MAX_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored.

    Attributes:
        name: chosen by the operator; also the name of a microticks consumer.
        scopes: the scopes that it was created with.
        id: the first digits of its token.
        digest: the SHA-256 of its token, in hexadecimal digits.
        origins: the web origins that may use it, such as ``https://example.org``; empty for any.
        created: timestamp.
        expires: timestamp; empty for never.
        revoked: timestamp; empty if it was not revoked.

    """

    name: str
    scopes: tuple[Scope, ...]
    id: str
    digest: str
    origins: tuple[str, ...]
    created: str
    expires: str = ""
    revoked: str = ""

    def is_active(self, now: str) -> bool:
        """Return whether it is valid at the timestamp *now*."""
        return not self.revoked and (not self.expires or now < self.expires)

    def to_record(self) -> dict[str, Any]:
        """Return the record that is stored under its name; `key_from_record` is the inverse."""
        return {
            "scopes": [scope.value for scope in self.scopes],
            "id": self.id,
            "digest": self.digest,
            "origins": list(self.origins),
            "created": self.created,
            "expires": self.expires,
            "revoked": self.revoked,
        }


def key_from_record(name: str, record: Mapping[str, Any]) -> Key:
    """Return the key that was stored as a record (see `Key.to_record`).

    Raises:
        Malformed: this version of Metronome cannot read it.

    """
    try:
        return Key(
            name,
            tuple(Scope(scope) for scope in record["scopes"]),
            str(record["id"]),
            str(record["digest"]),
            tuple(map(str, record["origins"])),
            str(record["created"]),
            str(record["expires"]),
            str(record["revoked"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Malformed(f"the stored key {name!r} cannot be read ({error!r}): revoke it and create another") from None


def validate_key_name(name: str) -> str:
    """Return the name if it is valid: readable by people and in logs.

    Raises:
        Malformed: it is invalid.

    """
    if 0 < len(name) <= NAME_MAX_CHARACTERS and name.isprintable() and name == name.strip():
        return name
    raise Malformed(
        f"invalid key name {name[:NAME_MAX_CHARACTERS]!r}: expected 1 to {NAME_MAX_CHARACTERS} printable characters, "
        "without spaces at the ends"
    )


def normalize_origin(text: str) -> str:
    """Return a web origin as browsers send it in ``Origin``: in lower case, without a default port or slash.

    Raises:
        Malformed: it is invalid.

    """
    try:
        parts = urlsplit(text if len(text) <= _ORIGIN_MAX_CHARACTERS else "")
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    rest = (parts.path.removeprefix("/"), parts.query, parts.fragment, parts.username, parts.password)
    if parts.scheme not in _DEFAULT_PORTS or re.fullmatch(r"[a-z0-9_.:-]+", host) is None or any(rest):
        raise Malformed(
            f"invalid web origin {text[:NAME_MAX_CHARACTERS]!r}: expected a scheme and a host, such as "
            "https://example.org, and a port if it is not the default"
        )
    bracketed = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{bracketed}" + (f":{port}" if port not in (None, _DEFAULT_PORTS[parts.scheme]) else "")


def generate_token() -> str:
    """Return the token of a new key."""
    return secrets.token_hex(_TOKEN_BYTES)


def is_token(text: str) -> bool:
    """Return whether a text has the form of a token; the credentials of other systems mostly have not."""
    return _TOKEN.fullmatch(text) is not None


def build_key(
    name: str,
    scopes: tuple[Scope, ...],
    token: str,
    created: str,
    *,
    origins: tuple[str, ...] = (),
    expires: str = "",
    revoked: str = "",
) -> Key:
    """Return a key with a token (see `generate_token`)."""
    return Key(name, scopes, token[:_ID_DIGITS], _hash_token(token), origins, created, expires, revoked)


def find_key(keys: Mapping[str, tuple[Key, ...]], token: str) -> Key | None:
    """Return the key with a token, active or not, comparing in constant time; None if there is none.

    Args:
        keys: by their IDs.
        token: from a request.

    """
    if not is_token(token):
        return None
    return find_key_by_digest(keys, token[:_ID_DIGITS], _hash_token(token))


def find_key_by_digest(keys: Mapping[str, tuple[Key, ...]], key_id: str, digest: str) -> Key | None:
    """Return the key with an ID and a digest, active or not, comparing in constant time; None if there is none."""
    return next((key for key in keys.get(key_id, ()) if compare_digest(key.digest, digest)), None)


def _hash_token(token: str) -> str:
    return sha256(token.encode()).hexdigest()
