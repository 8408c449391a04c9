"""Who may do what: the one place where that is decided."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from metronome.errors import NoKey, NotAllowed
from metronome.keys import Key, Scope, implied
from metronome.service.keyring import Keyring
from metronome.timestamps import stamp_of

_ALL: Final = frozenset(Scope)


class Grant(NamedTuple):
    """What a request may do.

    Attributes:
        scopes: all that is allowed.
        name: of the key, or nothing if none came.

    """

    scopes: frozenset[Scope]
    name: str = ""


class Guard:
    """Decides what each request may do.

    While no key has been made and only this machine can reach the service, everyone has every scope, and keys
    that come with requests are not looked at.

    Args:
        keyring: the keys.
        public: what may be done without a key.
        on_loopback: whether only this machine can reach the service.
        clock: seconds since 1970.

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
        """Whether everyone has every scope."""
        return self._on_loopback and self._keyring.is_read and self._keyring.is_empty

    def anonymous(self) -> Grant:
        """Return what a request without a key may do."""
        return Grant(_ALL) if self.is_open else self._anyone

    async def admit(self, scope: Scope, token: str, origin: str = "", *, lenient: bool = False) -> Grant:
        """Return what a request may do, if *scope* is part of it.

        Args:
            scope: what it needs.
            token: the key that came with it, or nothing.
            origin: the web origin that it came from, or nothing.
            lenient: whether a key that is unknown or no longer active counts as none.

        Raises:
            NoKey: a key is needed and none came, or the one that came is unknown, has expired or was revoked.
            NotAllowed: the key does not allow *scope*, or not from *origin*.

        """
        grant = self.anonymous()
        if token and not self.is_open:
            key = await self.find(token)
            if key is not None and key.is_active(self._now()):
                grant = _grant_of(key, origin)
            elif not lenient:
                raise NoKey(_complaint(key))
        if scope not in grant.scopes:
            if not grant.name:
                raise NoKey(f"this needs a key with the scope {scope}")
            raise NotAllowed(f"the key {grant.name!r} lacks the scope {scope}")
        return grant

    async def find(self, token: str) -> Key | None:
        """Return the key of a token, active or not, or None if there is none."""
        return await self._keyring.find(token)

    def is_active(self, key: Key) -> bool:
        """Tell whether a key allows anything now."""
        return key.is_active(self._now())

    def _now(self) -> str:
        return stamp_of(datetime.fromtimestamp(self._clock(), UTC))


def _grant_of(key: Key, origin: str) -> Grant:
    if key.origins and origin not in key.origins:
        raise NotAllowed(
            f"the key {key.name!r} is for {', '.join(key.origins)} only, and not for {origin or 'no origin'}"
        )
    return Grant(implied(key.scopes), key.name)


def _complaint(key: Key | None) -> str:
    if key is None:
        return "the key is not known here"
    return f"the key {key.name!r} was revoked" if key.revoked else f"the key {key.name!r} expired on {key.expires}"
