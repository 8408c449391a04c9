"""The keys of the installation, as a process that serves knows them: read now and then, found at once."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Final

import structlog

from metronome.auth.keys import KEY_KIND, Key, find_key, is_token, key_from_record
from metronome.errors import Malformed, MetronomeError, StoreUnavailable
from metronome.state.base import Record, State

log = structlog.get_logger()

_REFRESH_SECONDS: Final = 1.0
"""How often the keys are read: a key that is revoked may be used for so long."""
_MISS_REFRESH_SECONDS: Final = 0.2
"""How often at the most they are read for the sake of keys that are not known: anybody can make these up."""
_MISS_TIMEOUT_SECONDS: Final = 2.0
"""How long a request with a key that is not known waits for a state that does not answer."""


class KeyCache:
    """What keys there are.

    A key that was made is known at once, one that was revoked is not after a second. While the state does not answer,
    the keys stay as they were. Whatever strangers send, one reading is under way at the most, and one waits for it.

    Args:
        state: where they are kept.

    Attributes:
        is_read: whether they have been read at all.
        is_empty: whether no key has ever been made, as far as is known: a state that was lost opens nothing.

    """

    def __init__(self, state: State) -> None:
        self.is_loaded = False
        self.is_empty = True
        self._state = state
        self._keys: Mapping[str, tuple[Key, ...]] = {}
        self._refresh_lock = asyncio.Lock()
        self._pending_refresh: asyncio.Task[bool] | None = None
        self._refresh_tasks: set[asyncio.Task[bool]] = set()
        self._refreshed_at = float("-inf")
        self._last_problem = ""

    @contextlib.asynccontextmanager
    async def keep_refreshed(self) -> AsyncIterator[None]:
        """Read the keys again and again while the block runs; nobody may ask for one after it."""
        keeping = asyncio.create_task(self._refresh_loop())
        try:
            yield
        finally:
            tasks = [keeping, *self._refresh_tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, token: str) -> Key | None:
        """Return the key of a token, active or not, or None if there is none.

        Raises:
            StoreUnavailable: it is not known, but may have been made since the keys could last be read.

        """
        found = find_key(self._keys, token)
        if found is not None or not is_token(token):
            return found
        if not await self._refresh_after_miss():
            raise StoreUnavailable("the keys cannot be read at the moment, and this one was not known before")
        return find_key(self._keys, token)

    async def refresh(self) -> bool:
        """Read the keys now; returns whether that was possible."""
        async with self._refresh_lock:
            return await self._load()

    async def _refresh_loop(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            await self.refresh()

    async def _refresh_after_miss(self) -> bool:
        """Read the keys, once for all who wait for it, and not too often."""
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
            await asyncio.sleep(
                max(0.0, self._refreshed_at + _MISS_REFRESH_SECONDS - asyncio.get_running_loop().time())
            )
            # Whoever comes from now on may bring a key that this reading is too early to see.
            self._pending_refresh = None
            return await self._load()

    async def _load(self) -> bool:
        self._refreshed_at = asyncio.get_running_loop().time()
        try:
            self._replace_keys(await self._state.get_all(KEY_KIND))
        except MetronomeError as error:
            self._log_problem(str(error), error.advice)
            return False
        except Exception as error:  # noqa: BLE001  # whatever it is, later readings must find what was revoked
            self._log_problem(repr(error), MetronomeError.advice)
            return False
        return True

    def _replace_keys(self, records: Mapping[str, Record]) -> None:
        keys: defaultdict[str, tuple[Key, ...]] = defaultdict(tuple)
        broken = ""
        for name, record in records.items():
            try:
                key = key_from_record(name, record)
            except Malformed as error:
                broken = str(error)
            else:
                keys[key.id] += (key,)
        self._keys = dict(keys)
        self.is_loaded = True
        self.is_empty = self.is_empty and not records
        self._log_problem(broken, "the other keys can be used")

    def _log_problem(self, message: str, advice: str) -> None:
        """Log what is wrong with the keys, once and not each second."""
        if message and message != self._last_problem:
            log.warning("keys_not_read", error=message, advice=advice)
        self._last_problem = message
