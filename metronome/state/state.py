"""The port that every keeper of state stands behind.

State is small and changes seldom: keys, the sessions of microticks. Events are none of it. What each back end
promises, `metronome.state.conformance` tests on all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]
"""What is kept under a name: JSON."""


class State(ABC):
    """Records, each known by its kind and its name.

    Any number of processes may work on the same state at the same time. When a method returns, what it changed
    survives the death of the process and of the machine, and every other process sees it. Each may raise
    `StoreAway` (try again: nothing is known of what was under way) and `StoreDenied`.

    A kind is a short word of our own; a name may be any text.
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
