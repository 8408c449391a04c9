"""Sign-in to the page with a key: sign-ins in the state, their cookie, and checks of requests and return paths.

A sign-in is a record in the state, so it holds on all processes and nodes that share the state. Its token is in a
cookie; the state has only a hash of it. Each request looks the sign-in and its key up, so a sign-in ends with its
key, at sign-out, and after `SIGN_IN_DURATION`.

Only routes of the page read the cookie. The API does not: it answers to pages of any origin.
"""

import asyncio
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Self

from aiohttp import web

from metronome.auth.authorizer import Authorizer
from metronome.auth.keys import Key
from metronome.errors import MetronomeError, StoreUnavailable
from metronome.state.base import Record, State
from metronome.times import format_timestamp

SIGN_IN_KIND: Final = "sign_in"
"""The kind of sign-ins in the state; their names there are hashes of their tokens."""
_COOKIE_NAME: Final = "metronome"
_PORT_PATTERN: Final = re.compile(r":(\d{1,5})\Z", re.ASCII)
SIGN_IN_DURATION: Final = timedelta(days=14)

_TOKEN_BYTES: Final = 32
_TOKEN_PATTERN: Final = re.compile(rf"[0-9a-f]{{{2 * _TOKEN_BYTES}}}")
_MAX_SIGN_INS_OF_A_KEY: Final = 50
"""Signing in again ends the oldest one, so that a script that signs in each time does not fill the state."""
_STATE_TIMEOUT_SECONDS: Final = 2.0
_REMEMBERED: Final = 1000
"""How many sign-ins stay valid in this process while the state is unavailable, as known keys do."""
_DOT_SEGMENT: Final = re.compile(r"/(\.|%2e){1,2}(/|$)", re.IGNORECASE)
_PATH_PATTERN: Final = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""A path, perhaps with a query, of printable ASCII without backslashes, which browsers take for slashes."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """A sign-in as it is stored.

    Attributes:
        key_name: the name of the key.
        key_id: its ID.
        key_digest: its digest.
        created: timestamp.
        expires: timestamp.

    """

    key_name: str
    key_id: str
    key_digest: str
    created: str
    expires: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self | None:
        """Return the sign-in of a record in the state, or None if another version wrote it."""
        try:
            return cls(**{name: str(record[name]) for name in cls.__slots__})
        except KeyError:
            return None

    def to_record(self) -> Record:
        """Return the record in the state; `from_record` reads it."""
        return asdict(self)


class SignIns:
    """The sign-ins of an installation.

    Args:
        state: where they are stored.
        authorizer: knows the keys.
        clock: seconds since 1970.

    """

    def __init__(self, state: State, authorizer: Authorizer, clock: Callable[[], float]) -> None:
        self._state = state
        self._authorizer = authorizer
        self._clock = clock
        self._remembered: OrderedDict[str, SignIn] = OrderedDict()

    async def start(self, key: Key) -> str:
        """Sign in with a key, and return the token for the cookie.

        Raises:
            StoreUnavailable: the state is unavailable.

        """
        now = self._now()
        await self._remove_old(key, format_timestamp(now))
        token = secrets.token_hex(_TOKEN_BYTES)
        expires = format_timestamp(now + SIGN_IN_DURATION)
        if key.expires:
            expires = min(expires, key.expires)
        sign_in = SignIn(key.name, key.id, key.digest, format_timestamp(now), expires)
        await self._state.add(SIGN_IN_KIND, _hash_token(token), sign_in.to_record())
        return token

    async def find_key(self, token: str) -> Key | None:
        """Return the active key of a sign-in, or None if the sign-in has ended or never existed.

        Raises:
            StoreUnavailable: the state is unavailable, and this process does not know the sign-in.

        """
        if _TOKEN_PATTERN.fullmatch(token) is None:
            return None
        name = _hash_token(token)
        sign_in = await self._find(name)
        if sign_in is None:
            self._remembered.pop(name, None)
            return None
        key = await self._authorizer.find_key_by_digest(sign_in.key_id, sign_in.key_digest)
        if key is None or not self._authorizer.is_key_active(key) or sign_in.expires <= format_timestamp(self._now()):
            await self._remove(name)
            return None
        self._remembered[name] = sign_in
        self._remembered.move_to_end(name)
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return key

    async def end(self, token: str) -> None:
        """End a sign-in; idempotent.

        Raises:
            StoreUnavailable: the state is unavailable, so the sign-in continues.

        """
        if _TOKEN_PATTERN.fullmatch(token) is not None:
            await self._remove(_hash_token(token))

    async def _find(self, name: str) -> SignIn | None:
        try:
            async with asyncio.timeout(_STATE_TIMEOUT_SECONDS):
                record = await self._state.get(SIGN_IN_KIND, name)
        except (MetronomeError, TimeoutError) as error:
            if name in self._remembered:
                return self._remembered[name]
            raise StoreUnavailable(f"sign-ins cannot be read: {str(error) or 'timed out'}") from error
        return None if record is None else SignIn.from_record(record)

    async def _remove(self, name: str) -> None:
        self._remembered.pop(name, None)
        await self._state.remove(SIGN_IN_KIND, name)

    async def _remove_old(self, key: Key, now: str) -> None:
        """Remove expired sign-ins, and the oldest of a key that has many."""
        records = await self._state.get_all(SIGN_IN_KIND)
        sign_ins = {name: SignIn.from_record(record) for name, record in records.items()}
        ended = [name for name, sign_in in sign_ins.items() if sign_in is None or sign_in.expires <= now]
        of_key = sorted(
            (sign_in.created, name)
            for name, sign_in in sign_ins.items()
            if sign_in is not None and name not in ended and sign_in.key_digest == key.digest
        )
        for name in (*ended, *(name for _, name in of_key[: len(of_key) + 1 - _MAX_SIGN_INS_OF_A_KEY])):
            await self._remove(name)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def cookie_name(request: web.Request) -> str:
    """Return the name of the cookie: browsers send it to all ports of a host, where other installations may be."""
    port = _PORT_PATTERN.search(request.host)
    return f"{_COOKIE_NAME}-{port[1]}" if port else _COOKIE_NAME


def read_cookie(request: web.Request) -> str:
    """Return the token of a request's sign-in, or an empty text."""
    return request.cookies.get(cookie_name(request), "")


def set_cookie(request: web.Request, response: web.Response, token: str, base_path: str, *, secure: bool) -> None:
    """Let a browser send the token with later requests to the page, if *secure* only over TLS.

    SameSite is Lax: with Strict, a link in a message or on another site would show its reader the page as if they had
    not signed in. Lax sends the cookie only when such a link is followed, not with the requests of other sites' pages,
    and following a link changes nothing here.
    """
    response.set_cookie(
        cookie_name(request),
        token,
        path=f"{base_path}/",
        max_age=int(SIGN_IN_DURATION.total_seconds()),
        httponly=True,
        samesite="Lax",
        secure=secure,
    )


def delete_cookie(request: web.Request, response: web.Response, base_path: str) -> None:
    """Let a browser forget the token."""
    response.del_cookie(cookie_name(request), path=f"{base_path}/", httponly=True, samesite="Lax")


def safe_return_path(path: str, base_path: str) -> str:
    """Return a path to go to after signing in: *path* if it is a page of this server, else the overview."""
    is_safe = _PATH_PATTERN.fullmatch(path) is not None and path.startswith(f"{base_path}/")
    is_page = not path.startswith((f"{base_path}/sign-in", f"{base_path}/sign-out"))
    # Browsers resolve such segments, out of the base path.
    has_dots = _DOT_SEGMENT.search(path.partition("?")[0]) is not None
    return path if is_safe and is_page and not has_dots else f"{base_path}/"


def _hash_token(token: str) -> str:
    return sha256(token.encode()).hexdigest()
