"""Who may do what: the one place where that is decided."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from metronome.auth.key_cache import Keyring
from metronome.auth.keys import Key
from metronome.errors import Away, NoKey, NotAllowed
from metronome.scopes import Scope, implied
from metronome.times import stamp_of


class Grant(NamedTuple):
    """What a request may do.

    Attributes:
        scopes: all that is allowed.
        name: of the key, or nothing if none came.

    """

    scopes: frozenset[Scope]
    name: str = ""


_LONGEST_ADDRESS: Final = 64
_EVERYTHING: Final = Grant(frozenset(Scope))


class Guard:
    """Decides what each request may do.

    While no key has been made and only this machine can reach the service, everyone there has every scope, and keys
    that come with requests are not looked at. Those who come through a proxy from elsewhere, and the pages of other
    sites in a browser on this machine, are not there.

    Args:
        keyring: the keys.
        public: what may be done without a key.
        clock: seconds since 1970.
        on_loopback: whether only this machine can reach the service.

    """

    def __init__(
        self, keyring: Keyring, public: frozenset[Scope], clock: Callable[[], float], *, on_loopback: bool
    ) -> None:
        self._keyring = keyring
        self._anyone = Grant(implied(public))
        self._clock = clock
        self._on_loopback = on_loopback

    @property
    def is_open(self) -> bool:
        """Whether everyone on this machine has every scope."""
        return self._on_loopback and self._keyring.is_read and self._keyring.is_empty

    def anonymous(self, origin: str = "", sender: str = "") -> Grant:
        """Return what a request without a key may do.

        Args:
            origin: the web origin that it came from, or nothing.
            sender: the address that it came from, or nothing where it came from this machine for sure.

        """
        return _EVERYTHING if self.is_open and _is_here(origin, sender) else self._anyone

    async def admit(
        self, scope: Scope, token: str, origin: str = "", *, sender: str = "", lenient: bool = False
    ) -> Grant:
        """Return what a request may do, if *scope* is part of it.

        A key allows what it is for, and what is public.

        Args:
            scope: what it needs.
            token: the key that came with it, or nothing.
            origin: the web origin that it came from, or nothing.
            sender: the address that it came from, or nothing where it came from this machine for sure.
            lenient: whether a key that is unknown or no longer active counts as none.

        Raises:
            NoKey: a key is needed and none came, or the one that came is unknown, has expired or was revoked.
            NotAllowed: the key does not allow *scope*, or not from *origin*.
            StoreAway: the key is not known, and the keys cannot be read.

        """
        grant = self.anonymous(origin, sender)
        if token and grant is not _EVERYTHING:
            key = await self._look_up(token, lenient=lenient and scope in grant.scopes)
            if key is not None and self.is_active(key):
                grant = self._grant_of(key, origin)
            elif not lenient:
                raise NoKey(_complaint(key))
        if scope not in grant.scopes:
            if not grant.name:
                raise NoKey(f"this needs a key with the scope {scope}")
            raise NotAllowed(f"the key {grant.name!r} lacks the scope {scope}")
        return grant

    async def find(self, token: str) -> Key | None:
        """Return the key of a token, active or not, or None if there is none.

        Raises:
            StoreAway: it is not known, and the keys cannot be read.

        """
        return await self._keyring.find(token)

    def is_active(self, key: Key) -> bool:
        """Tell whether a key allows anything now."""
        return key.is_active(stamp_of(datetime.fromtimestamp(self._clock(), UTC)))

    async def _look_up(self, token: str, *, lenient: bool) -> Key | None:
        try:
            return await self.find(token)
        except Away:
            if lenient:
                return None
            raise

    def _grant_of(self, key: Key, origin: str) -> Grant:
        if key.origins and origin not in key.origins:
            raise NotAllowed(
                f"the key {key.name!r} is for {', '.join(key.origins)} only, and this came from {origin or 'no origin'}"
            )
        return Grant(implied(key.scopes) | self._anyone.scopes, key.name)


def _is_here(origin: str, sender: str) -> bool:
    """Tell whether a request comes from this machine, and of its own accord and not of another site's page."""
    if sender and not _is_loopback(sender):
        return False
    if not origin:
        return True
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or (len(host) <= _LONGEST_ADDRESS and _is_loopback(host))


@lru_cache(maxsize=4096)
def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _complaint(key: Key | None) -> str:
    if key is None:
        return "the key is not known here"
    return f"the key {key.name!r} was revoked" if key.revoked else f"the key {key.name!r} expired on {key.expires}"
