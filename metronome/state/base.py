"""The port that every keeper of state stands behind.

State is small and changes seldom: keys, the sessions of microticks. Events are none of it. What each back end
promises, `tests.contracts.state` tests on all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import orjson

from metronome.errors import StoreAway

Record = Mapping[str, Any]
"""What is kept under a name: JSON, whose texts have no lone surrogates and whose whole numbers have 64 bits."""


class State(ABC):
    """Records, each known by its kind and its name.

    Any number of processes may work on the same state at the same time. When a method returns, what it changed
    survives the death of the process and of the machine, and every other process sees it. Each may raise
    `StoreAway` (try again: nothing is known of what was under way) and `StoreDenied`.

    A kind is a short word of our own; a name may be any text. Records are the same where they hold the same, in
    whatever order.
    """

    @abstractmethod
    async def setup(self) -> None:
        """Prepare to be read and written; idempotent, and safe beside other processes."""

    @abstractmethod
    async def get(self, kind: str, name: str) -> Record | None:
        """Return a record, or None if there is none."""

    @abstractmethod
    async def all(self, kind: str) -> dict[str, Record]:
        """Return all records of a kind by their names, in the names' order."""

    @abstractmethod
    async def add(self, kind: str, name: str, record: Record) -> bool:
        """Add a record where there is none of that name; returns whether that is so. Of two at once, one wins."""

    @abstractmethod
    async def swap(self, kind: str, name: str, before: Record, after: Record) -> bool:
        """Replace a record if it still is *before*; returns whether that is so. Of two at once, one wins."""

    @abstractmethod
    async def remove(self, kind: str, name: str) -> bool:
        """Remove a record; returns whether there was one."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections and files; idempotent. Nothing else may be called afterwards."""


def text_of(record: Record) -> bytes:
    """Write a record as it is kept: the same record as the same text."""
    return orjson.dumps(dict(record), option=orjson.OPT_SORT_KEYS)


def record_of(text: bytes | str) -> Record:
    """Read what `text_of` wrote.

    Raises:
        StoreAway: it is something else, so somebody else wrote it.

    """
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise StoreAway(f"a record cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise StoreAway("a record is no object")
    return found


def name_bytes(name: str) -> bytes:
    """Write a name, whatever it holds; in their order, names are in the order of their characters."""
    return name.encode(errors="surrogatepass")


def name_of(text: bytes) -> str:
    """Read what `name_bytes` wrote."""
    return text.decode(errors="surrogatepass")
