"""The keys of the installation, as a process that serves knows them: read now and then, found at once."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Final

import structlog

from metronome.auth.keys import KIND, Key, find, is_token, key_of
from metronome.errors import Malformed, MetronomeError, StoreAway
from metronome.state.base import Record, State

log = structlog.get_logger()

_LOOK_SECONDS: Final = 1.0
"""How often the keys are read: a key that is revoked may be used for so long."""
_AGAIN_SECONDS: Final = 0.2
"""How often at the most they are read for the sake of keys that are not known: anybody can make these up."""
_PATIENCE_SECONDS: Final = 2.0
"""How long a request with a key that is not known waits for a state that does not answer."""


class Keyring:
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
        self.is_read = False
        self.is_empty = True
        self._state = state
        self._keys: Mapping[str, tuple[Key, ...]] = {}
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[bool] | None = None
        self._tasks: set[asyncio.Task[bool]] = set()
        self._read_at = float("-inf")
        self._complaint = ""

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Read the keys again and again while the block runs; nobody may ask for one after it."""
        keeping = asyncio.create_task(self._read_for_ever())
        try:
            yield
        finally:
            tasks = [keeping, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, token: str) -> Key | None:
        """Return the key of a token, active or not, or None if there is none.

        Raises:
            StoreAway: it is not known, but may have been made since the keys could last be read.

        """
        found = find(self._keys, token)
        if found is not None or not is_token(token):
            return found
        if not await self._read_again():
            raise StoreAway("the keys cannot be read at the moment, and this one was not known before")
        return find(self._keys, token)

    async def read(self) -> bool:
        """Read the keys now; returns whether that was possible."""
        async with self._turn:
            return await self._read()

    async def _read_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.read()

    async def _read_again(self) -> bool:
        """Read the keys, once for all who wait for it, and not too often."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_soon())
            self._tasks.add(self._next)
            self._next.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.wait_for(asyncio.shield(self._next), _PATIENCE_SECONDS)
        except TimeoutError:
            return False

    async def _read_soon(self) -> bool:
        async with self._turn:
            await asyncio.sleep(max(0.0, self._read_at + _AGAIN_SECONDS - asyncio.get_running_loop().time()))
            # Whoever comes from now on may bring a key that this reading is too early to see.
            self._next = None
            return await self._read()

    async def _read(self) -> bool:
        self._read_at = asyncio.get_running_loop().time()
        try:
            self._take(await self._state.all(KIND))
        except MetronomeError as error:
            self._complain(str(error), error.advice)
            return False
        except Exception as error:  # noqa: BLE001  # whatever it is, later readings must find what was revoked
            self._complain(repr(error), MetronomeError.advice)
            return False
        return True

    def _take(self, records: Mapping[str, Record]) -> None:
        keys: defaultdict[str, tuple[Key, ...]] = defaultdict(tuple)
        broken = ""
        for name, record in records.items():
            try:
                key = key_of(name, record)
            except Malformed as error:
                broken = str(error)
            else:
                keys[key.id] += (key,)
        self._keys = dict(keys)
        self.is_read = True
        self.is_empty = self.is_empty and not records
        self._complain(broken, "the other keys can be used")

    def _complain(self, complaint: str, advice: str) -> None:
        """Log what is wrong with the keys, once and not each second."""
        if complaint and complaint != self._complaint:
            log.warning("keys_not_read", error=complaint, advice=advice)
        self._complaint = complaint
