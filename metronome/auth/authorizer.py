"""Who may do what: the one place where that is decided."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from metronome.auth.key_cache import KeyCache
from metronome.auth.keys import Key
from metronome.errors import Forbidden, Unauthorized, Unavailable
from metronome.scopes import Scope, expand_scopes
from metronome.times import format_timestamp


class Permissions(NamedTuple):
    """What a request may do.

    Attributes:
        scopes: all that is allowed.
        name: of the key, or nothing if none came.

    """

    scopes: frozenset[Scope]
    key_name: str = ""


_ADDRESS_MAX_CHARACTERS: Final = 64
_ALL_PERMISSIONS: Final = Permissions(frozenset(Scope))


class Authorizer:
    """Decides what each request may do.

    While no key has been made and only this machine can reach the service, everyone there has every scope, and keys
    that come with requests are not looked at. Those who come through a proxy from elsewhere, and the pages of other
    sites in a browser on this machine, are not there.

    Args:
        key_cache: the keys.
        public_scopes: what may be done without a key.
        clock: seconds since 1970.
        on_loopback: whether only this machine can reach the service.

    """

    def __init__(
        self, key_cache: KeyCache, public_scopes: frozenset[Scope], clock: Callable[[], float], *, on_loopback: bool
    ) -> None:
        self._key_cache = key_cache
        self._public_permissions = Permissions(expand_scopes(public_scopes))
        self._clock = clock
        self._on_loopback = on_loopback

    @property
    def is_unrestricted(self) -> bool:
        """Whether everyone on this machine has every scope."""
        return self._on_loopback and self._key_cache.is_loaded and self._key_cache.is_empty

    def anonymous_permissions(self, origin: str = "", client_address: str = "") -> Permissions:
        """Return what a request without a key may do.

        Args:
            origin: the web origin that it came from, or nothing.
            client_address: the address that it came from, or nothing where it came from this machine for sure.

        """
        return (
            _ALL_PERMISSIONS
            if self.is_unrestricted and _is_local_request(origin, client_address)
            else self._public_permissions
        )

    async def authorize(
        self, scope: Scope, token: str, origin: str = "", *, client_address: str = "", ignore_invalid_key: bool = False
    ) -> Permissions:
        """Return what a request may do, if *scope* is part of it.

        A key allows what it is for, and what is public.

        Args:
            scope: what it needs.
            token: the key that came with it, or nothing.
            origin: the web origin that it came from, or nothing.
            client_address: the address that it came from, or nothing where it came from this machine for sure.
            ignore_invalid_key: whether a key that is unknown or no longer active counts as none.

        Raises:
            Unauthorized: a key is needed and none came, or the one that came is unknown, has expired or was revoked.
            Forbidden: the key does not allow *scope*, or not from *origin*.
            StoreUnavailable: the key is not known, and the keys cannot be read.

        """
        grant = self.anonymous_permissions(origin, client_address)
        if token and grant is not _ALL_PERMISSIONS:
            key = await self._find_key_unless_unavailable(
                token, ignore_unavailable=ignore_invalid_key and scope in grant.scopes
            )
            if key is not None and self.is_key_active(key):
                grant = self._key_permissions(key, origin)
            elif not ignore_invalid_key:
                raise Unauthorized(_invalid_key_message(key))
        if scope not in grant.scopes:
            if not grant.key_name:
                raise Unauthorized(f"this needs a key with the scope {scope}")
            raise Forbidden(f"the key {grant.key_name!r} lacks the scope {scope}")
        return grant

    async def find_key(self, token: str) -> Key | None:
        """Return the key of a token, active or not, or None if there is none.

        Raises:
            StoreUnavailable: it is not known, and the keys cannot be read.

        """
        return await self._key_cache.find(token)

    def is_key_active(self, key: Key) -> bool:
        """Tell whether a key allows anything now."""
        return key.is_active(format_timestamp(datetime.fromtimestamp(self._clock(), UTC)))

    async def _find_key_unless_unavailable(self, token: str, *, ignore_unavailable: bool) -> Key | None:
        try:
            return await self.find_key(token)
        except Unavailable:
            if ignore_unavailable:
                return None
            raise

    def _key_permissions(self, key: Key, origin: str) -> Permissions:
        if key.origins and origin not in key.origins:
            raise Forbidden(
                f"the key {key.name!r} is for {', '.join(key.origins)} only, and this came from {origin or 'no origin'}"
            )
        return Permissions(expand_scopes(key.scopes) | self._public_permissions.scopes, key.name)


def _is_local_request(origin: str, client_address: str) -> bool:
    """Tell whether a request comes from this machine, and of its own accord and not of another site's page."""
    if client_address and not _is_loopback(client_address):
        return False
    if not origin:
        return True
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or (len(host) <= _ADDRESS_MAX_CHARACTERS and _is_loopback(host))


@lru_cache(maxsize=4096)
def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _invalid_key_message(key: Key | None) -> str:
    if key is None:
        return "the key is not known here"
    return f"the key {key.name!r} was revoked" if key.revoked else f"the key {key.name!r} expired on {key.expires}"
