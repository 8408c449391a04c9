"""Keys: who may do what.

A key is 40 hexadecimal digits that are shown once and stored as a hash only. Its first eight digits find it, the
hash of the whole proves it. The hash needs no salt and no slowness: nobody guesses 160 random bits.
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
"""What keys are called in the state (see `metronome.state.base.State`), where their names are unique."""

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
        name: what people call it, and what its consumer is called.
        scopes: what it allows, as it was made.
        id: the first digits of its token.
        digest: the SHA-256 of its token, in hexadecimal digits.
        origins: the web origins that it may be used from, as ``https://example.org``; none for anywhere.
        created: when it was made, as a stamp.
        expires: from when on it allows nothing, as a stamp; empty for never.
        revoked: when it was revoked, as a stamp; empty if it was not.

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
        """Tell whether it allows anything at the time of the stamp *now*."""
        return not self.revoked and (not self.expires or now < self.expires)

    def to_record(self) -> dict[str, Any]:
        """Return what is stored of it under its name; `key_from_record` reads it."""
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
    """Return the key that was stored as *record* (see `Key.record`).

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
        raise Malformed(
            f"the record of the key {name!r} cannot be read ({error!r}): revoke it and make another"
        ) from None


def validate_key_name(name: str) -> str:
    """Return a name that people and logs can read.

    Raises:
        Malformed: it is none; the message says what one is.

    """
    if 0 < len(name) <= NAME_MAX_CHARACTERS and name.isprintable() and name == name.strip():
        return name
    raise Malformed(
        f"{name[:NAME_MAX_CHARACTERS]!r} cannot name a key: write up to {NAME_MAX_CHARACTERS} printable characters, "
        "without blanks at the ends"
    )


def normalize_origin(text: str) -> str:
    """Return a web origin as browsers send it in ``Origin``: in lower case, without a usual port, slash or path.

    Raises:
        Malformed: it is none; the message says what one is.

    """
    try:
        parts = urlsplit(text if len(text) <= _ORIGIN_MAX_CHARACTERS else "")
        host, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    rest = (parts.path.removeprefix("/"), parts.query, parts.fragment, parts.username, parts.password)
    if parts.scheme not in _DEFAULT_PORTS or re.fullmatch(r"[a-z0-9_.:-]+", host) is None or any(rest):
        raise Malformed(
            f"{text[:NAME_MAX_CHARACTERS]!r} is no web origin: write a scheme and a host, as https://example.org, "
            "and its port where it has an unusual one"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port not in (None, _DEFAULT_PORTS[parts.scheme]) else "")


def generate_token() -> str:
    """Make the secret of a new key."""
    return secrets.token_hex(_TOKEN_BYTES)


def is_token(text: str) -> bool:
    """Tell whether a text could be the secret of a key: what other systems use as one mostly cannot."""
    return _TOKEN.fullmatch(text) is not None


def build_key(name: str, scopes: tuple[Scope, ...], token: str, created: str, **more: Any) -> Key:
    """Make a key of its secret (see `generate_token`); *more* are its other attributes."""
    return Key(name, scopes, token[:_ID_DIGITS], _hash_token(token), more.pop("origins", ()), created, **more)


def find_key(keys: Mapping[str, tuple[Key, ...]], token: str) -> Key | None:
    """Return the key of a token, whether it is active or not, comparing in constant time.

    Args:
        keys: by their ids.
        token: what came with a request.

    """
    if not is_token(token):
        return None
    digest = _hash_token(token)
    for key in keys.get(token[:_ID_DIGITS], ()):
        if compare_digest(key.digest, digest):
            return key
    return None


def _hash_token(token: str) -> str:
    return sha256(token.encode()).hexdigest()
