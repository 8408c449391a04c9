"""The keys of the installation, as a process that serves knows them: read now and then, found at once."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import structlog

from metronome.errors import MetronomeError
from metronome.keys import KIND, Key, find, key_of
from metronome.state.state import State

log = structlog.get_logger()

_LOOK_SECONDS: Final = 1.0
"""How often the keys are read: a key that is revoked may be used for so long."""
_AGAIN_SECONDS: Final = 0.2
"""How often at the most they are read for the sake of keys that are not known: anybody can make these up."""


class Keyring:
    """What keys there are.

    A key that was made is known at once, one that was revoked is not after a second. While the state does not answer,
    the keys stay as they were.

    Args:
        state: where they are kept.

    Attributes:
        is_read: whether they have been read at all.

    """

    def __init__(self, state: State) -> None:
        self.is_read = False
        self._state = state
        self._keys: Mapping[str, tuple[Key, ...]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._read_at = float("-inf")

    @property
    def is_empty(self) -> bool:
        """Whether no key has ever been made, as far as is known."""
        return not self._keys

    async def run(self) -> None:
        """Read the keys again and again, until this is cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(_LOOK_SECONDS)

    async def find(self, token: str) -> Key | None:
        """Return the key of a token, active or not, or None if there is none."""
        found = find(self._keys, token)
        if found is None:
            await self._read_again()
            found = find(self._keys, token)
        return found

    async def read(self) -> None:
        """Read the keys now."""
        try:
            records = await self._state.all(KIND)
        except MetronomeError as error:
            log.warning("keys_not_read", error=str(error), advice=error.advice)
            return
        keys: defaultdict[str, tuple[Key, ...]] = defaultdict(tuple)
        for name, record in records.items():
            key = key_of(name, record)
            keys[key.id] += (key,)
        self._keys = dict(keys)
        self.is_read = True

    async def _read_again(self) -> None:
        """Read the keys, once for all who wait for it, and not too often."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_soon())
        await asyncio.shield(self._reading)

    async def _read_soon(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._read_at + _AGAIN_SECONDS - loop.time()))
        self._read_at = loop.time()
        await self.read()
