"""Authorization: the only module that decides what a request may do."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from metronome.auth.key_cache import KeyCache
from metronome.auth.keys import Key
from metronome.errors import Forbidden, Unauthorized, Unavailable
from metronome.scopes import Scope, expand_scopes
from metronome.times import format_timestamp


class Permissions(NamedTuple):
    """What a request may do.

    Attributes:
        scopes: all allowed scopes.
        key_name: the name of the request's key, or empty without a key.

    """

    scopes: frozenset[Scope]
    key_name: str = ""


_ALL_PERMISSIONS: Final = Permissions(frozenset(Scope))


class Authorizer:
    """Decides what each request may do.

    While there are no keys and the server listens only on the loopback interface, every local client has all scopes,
    and keys are ignored. Which clients are local, `metronome.auth.client_address.ClientAddress.is_local` decides:
    those behind a proxy, and pages of other sites in a local browser, are not.

    Args:
        key_cache: the keys.
        public_scopes: what requests without a key may do.
        clock: seconds since 1970.
        on_loopback: whether the server listens only on the loopback interface.

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
        """Whether every local client has all scopes."""
        return self._on_loopback and self._key_cache.is_loaded and self._key_cache.is_empty

    @property
    def has_keys(self) -> bool:
        """Whether a key has ever been created, as far as this process knows."""
        return not self._key_cache.is_empty

    @property
    def public_permissions(self) -> Permissions:
        """What any request may do."""
        return self._public_permissions

    def anonymous_permissions(self, *, is_local: bool = False) -> Permissions:
        """Return what a request without a key may do.

        Args:
            is_local: whether it comes from this machine, and not from a page of another site.

        """
        return _ALL_PERMISSIONS if is_local and self.is_unrestricted else self._public_permissions

    async def authorize(
        self, scope: Scope, token: str, origin: str = "", *, is_local: bool = False, ignore_invalid_key: bool = False
    ) -> Permissions:
        """Return what a request may do, if that includes a scope.

        A key allows its own scopes and the public ones.

        Args:
            scope: what the request needs.
            token: the request's key, or empty.
            origin: the request's web origin, or empty.
            is_local: whether it comes from this machine, and not from a page of another site.
            ignore_invalid_key: treat a request with an unknown or inactive key as one without a key.

        Raises:
            Unauthorized: a key is needed but missing, or the key is unknown, expired or revoked.
            Forbidden: the key does not allow *scope*, or not from *origin*.
            StoreUnavailable: the key is unknown, and the keys cannot be read.

        """
        permissions = self.anonymous_permissions(is_local=is_local)
        if token and permissions is not _ALL_PERMISSIONS:
            try:
                key = await self.find_key(token)
            except Unavailable:
                if not ignore_invalid_key or scope not in permissions.scopes:
                    raise
                key = None
            if key is not None and self.is_key_active(key):
                _check_origin(key, origin)
                permissions = self.key_permissions(key)
            elif not ignore_invalid_key:
                raise Unauthorized(_invalid_key_message(key))
        if scope not in permissions.scopes:
            if not permissions.key_name:
                raise Unauthorized(f"a key with the scope {scope} is needed")
            raise Forbidden(f"the key {permissions.key_name!r} does not have the scope {scope}")
        return permissions

    async def find_key(self, token: str) -> Key | None:
        """Return the key of a token, active or not, or None if there is none.

        Raises:
            StoreUnavailable: the key is unknown, and the keys cannot be read.

        """
        return await self._key_cache.find(token)

    async def find_key_by_digest(self, key_id: str, digest: str) -> Key | None:
        """Return the key with an ID and a digest, active or not, or None if there is none; raises as `find_key`."""
        return await self._key_cache.find_by_digest(key_id, digest)

    def key_permissions(self, key: Key) -> Permissions:
        """Return what an active key allows: its own scopes and the public ones."""
        return Permissions(expand_scopes(key.scopes) | self._public_permissions.scopes, key.name)

    def is_key_active(self, key: Key) -> bool:
        """Return whether a key is valid now."""
        return key.is_active(format_timestamp(datetime.fromtimestamp(self._clock(), UTC)))


def _check_origin(key: Key, origin: str) -> None:
    if key.origins and origin not in key.origins:
        raise Forbidden(
            f"the key {key.name!r} is only for requests from {', '.join(key.origins)}, "
            f"not from {origin or 'clients without an origin'}"
        )


def _invalid_key_message(key: Key | None) -> str:
    if key is None:
        return "the key is unknown"
    return f"the key {key.name!r} was revoked" if key.revoked else f"the key {key.name!r} expired on {key.expires}"
