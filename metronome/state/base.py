"""The interface of state back ends.

State is small and changes rarely: API keys, salts, sessions of microticks. Events are in stores. The contract of all
back ends is in tests/contracts/state_contract.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import orjson

from metronome.errors import StoreUnavailable

Record = Mapping[str, Any]
"""A JSON object whose texts have no lone surrogates, and whose integers have 64 bits."""


class State(ABC):
    """Records, each identified by its kind and its name.

    Any number of processes may use the same state concurrently. When a method returns, its change is durable, and
    visible to all processes. Methods may raise `StoreUnavailable`, which leaves open whether the change was made, and
    `StoreAccessDenied`.

    A kind is a short word, such as ``key``; a name may be any text. The order of a record's fields does not matter.
    """

    @abstractmethod
    async def setup(self) -> None:
        """Prepare the state for reads and writes; idempotent, and safe while other processes use it."""

    @abstractmethod
    async def get(self, kind: str, name: str) -> Record | None:
        """Return a record, or None if there is none."""

    @abstractmethod
    async def get_all(self, kind: str) -> dict[str, Record]:
        """Return all records of a kind by name, sorted by name."""

    @abstractmethod
    async def add(self, kind: str, name: str, record: Record) -> bool:
        """Add a record and return True, or return False if there is one. One of several concurrent calls succeeds."""

    @abstractmethod
    async def compare_and_swap(self, kind: str, name: str, expected: Record, replacement: Record) -> bool:
        """Replace a record if it equals *expected*; return whether it did. One of several concurrent calls succeeds."""

    @abstractmethod
    async def remove(self, kind: str, name: str) -> bool:
        """Remove a record; return whether there was one."""

    @abstractmethod
    async def close(self) -> None:
        """Close connections and files; idempotent. No other method may be called afterwards."""


def encode_record(record: Record) -> bytes:
    """Encode a record for storage: equal records as equal texts."""
    return orjson.dumps(dict(record), option=orjson.OPT_SORT_KEYS)


def decode_record(text: bytes | str) -> Record:
    """Decode a stored record (see `encode_record`).

    Raises:
        StoreUnavailable: it is not a record, so another program wrote it.

    """
    try:
        record = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise StoreUnavailable(f"invalid record in the state: {error}") from error
    if not isinstance(record, dict):
        raise StoreUnavailable("invalid record in the state: expected an object")
    return record


def encode_name(name: str) -> bytes:
    """Encode a name with any characters. Encoded names sort like names."""
    return name.encode(errors="surrogatepass")


def decode_name(text: bytes) -> str:
    """Decode a stored name (see `encode_name`)."""
    return text.decode(errors="surrogatepass")
