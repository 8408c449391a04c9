"""The port that every keeper of state stands behind.

State is small and changes seldom: keys, the sessions of microticks. Events are none of it. What each back end
promises, `tests.contracts.state` tests on all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import orjson

from metronome.errors import StoreUnavailable

Record = Mapping[str, Any]
"""What is kept under a name: JSON, whose texts have no lone surrogates and whose whole numbers have 64 bits."""


class State(ABC):
    """Records, each known by its kind and its name.

    Any number of processes may work on the same state at the same time. When a method returns, what it changed
    survives the death of the process and of the machine, and every other process sees it. Each may raise
    `StoreUnavailable` (try again: nothing is known of what was under way) and `StoreAccessDenied`.

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
    async def get_all(self, kind: str) -> dict[str, Record]:
        """Return all records of a kind by their names, in the names' order."""

    @abstractmethod
    async def add(self, kind: str, name: str, record: Record) -> bool:
        """Add a record where there is none of that name; returns whether that is so. Of two at once, one wins."""

    @abstractmethod
    async def compare_and_swap(self, kind: str, name: str, expected: Record, replacement: Record) -> bool:
        """Replace a record if it still is *expected*; returns whether that is so. Of two at once, one wins."""

    @abstractmethod
    async def remove(self, kind: str, name: str) -> bool:
        """Remove a record; returns whether there was one."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections and files; idempotent. Nothing else may be called afterwards."""


def encode_record(record: Record) -> bytes:
    """Write a record as it is kept: the same record as the same text."""
    return orjson.dumps(dict(record), option=orjson.OPT_SORT_KEYS)


def decode_record(text: bytes | str) -> Record:
    """Read what `encode_record` wrote.

    Raises:
        StoreUnavailable: it is something else, so somebody else wrote it.

    """
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise StoreUnavailable(f"a record cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise StoreUnavailable("a record is no object")
    return found


def encode_name(name: str) -> bytes:
    """Write a name, whatever it holds; in their order, names are in the order of their characters."""
    return name.encode(errors="surrogatepass")


def decode_name(text: bytes) -> str:
    """Read what `encode_name` wrote."""
    return text.decode(errors="surrogatepass")
