"""The installation's keys, as a server process caches them."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from metronome.auth.keys import KEY_KIND, Key, find_key, find_key_by_digest, is_token, key_from_record
from metronome.auth.refreshed import RefreshedState
from metronome.errors import Malformed, MetronomeError, StoreUnavailable
from metronome.state.base import State

_REFRESH_SECONDS: Final = 1.0
"""A revoked key is accepted for up to this time."""
_MISS_REFRESH_SECONDS: Final = 0.2
"""Minimum time between two reads because of unknown keys, which any client can invent."""
_MISS_TIMEOUT_SECONDS: Final = 2.0
"""How long a request with an unknown key waits for the state."""


class KeyCache(RefreshedState):
    """Caches all keys.

    A new key is found at once, a revoked one is rejected within a second. While the state is unavailable, the keys
    stay as they were. Whatever clients send, at most one read is running and one waits for it.

    Args:
        state: where the keys are stored.

    Attributes:
        is_loaded: whether the keys have been read.
        is_empty: whether no key has ever been found; it stays false if the state is lost, so that nothing opens.

    """

    def __init__(self, state: State) -> None:
        super().__init__("keys_not_read", _REFRESH_SECONDS, _REFRESH_SECONDS)
        self.is_loaded = False
        self.is_empty = True
        self._state = state
        self._keys_by_id: Mapping[str, tuple[Key, ...]] = {}
        self._pending_refresh: asyncio.Task[bool] | None = None
        self._refresh_tasks: set[asyncio.Task[bool]] = set()
        self._refreshed_at = float("-inf")

    @contextlib.asynccontextmanager
    async def keep_refreshed(self, first_timeout_seconds: float | None = None) -> AsyncIterator[None]:
        """Read the keys, and again at intervals while the block runs; no key can be looked up after it."""
        try:
            async with super().keep_refreshed(first_timeout_seconds):
                yield
        finally:
            for task in self._refresh_tasks:
                task.cancel()
            await asyncio.gather(*self._refresh_tasks, return_exceptions=True)

    async def find(self, token: str) -> Key | None:
        """Return the key of a token, active or not, or None if there is none.

        Raises:
            StoreUnavailable: the key is unknown, and the keys cannot be read.

        """
        key = find_key(self._keys_by_id, token)
        if key is not None or not is_token(token):
            return key
        if not await self._refresh_after_miss():
            raise StoreUnavailable("the key is unknown, and the keys cannot be read at the moment")
        return find_key(self._keys_by_id, token)

    async def find_by_digest(self, key_id: str, digest: str) -> Key | None:
        """Return the key with an ID and a digest, active or not, or None if there is none; raises as `find` does."""
        key = find_key_by_digest(self._keys_by_id, key_id, digest)
        if key is not None:
            return key
        if not await self._refresh_after_miss():
            raise StoreUnavailable("the key is unknown, and the keys cannot be read at the moment")
        return find_key_by_digest(self._keys_by_id, key_id, digest)

    async def _refresh_after_miss(self) -> bool:
        """Read the keys, once for all requests that wait for it, and not too often."""
        if self._pending_refresh is None:
            self._pending_refresh = asyncio.create_task(self._refresh_throttled())
            self._refresh_tasks.add(self._pending_refresh)
            self._pending_refresh.add_done_callback(self._refresh_tasks.discard)
        try:
            return await asyncio.wait_for(asyncio.shield(self._pending_refresh), _MISS_TIMEOUT_SECONDS)
        except TimeoutError:
            return False

    async def _refresh_throttled(self) -> bool:
        async with self._refresh_lock:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, self._refreshed_at + _MISS_REFRESH_SECONDS - now))
            # Requests from now on may bring a key that this read does not find: they need another read.
            self._pending_refresh = None
            return await self._try_load()

    async def _load(self) -> dict[str, Any]:
        self._refreshed_at = asyncio.get_running_loop().time()
        records = await self._state.get_all(KEY_KIND)
        keys: defaultdict[str, tuple[Key, ...]] = defaultdict(tuple)
        problem = {}
        for name, record in records.items():
            try:
                key = key_from_record(name, record)
            except Malformed as error:
                problem = {"error": str(error), "advice": "the other keys remain valid"}
            else:
                keys[key.id] += (key,)
        self._keys_by_id = dict(keys)
        self.is_loaded = True
        self.is_empty = self.is_empty and not records
        return problem

    def _describe_failure(self, error: Exception) -> dict[str, Any]:
        if isinstance(error, MetronomeError):
            return {"error": str(error), "advice": error.advice}
        return {"error": repr(error), "advice": MetronomeError.advice}
