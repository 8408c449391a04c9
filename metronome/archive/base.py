"""The interface of every archive: objects, each with a path and bytes.

`tests.contracts.archive_contract` tests what each implementation has to guarantee.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple


class DateRange(NamedTuple):
    """A range of UTC days.

    Attributes:
        first: first day; None for no limit.
        last: last day, inclusive; None for no limit.

    """

    first: date | None = None
    last: date | None = None

    def __contains__(self, day: object) -> bool:
        """Return whether a day is in the range."""
        if not isinstance(day, date):
            return False
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object of an archive, as listed.

    Attributes:
        path: path of the object, separated by slashes.
        size: size in bytes.

    """

    path: str
    size: int


class Archive(ABC):
    """Stores, lists and returns objects.

    All methods may be called concurrently from one event loop. Each may raise `ArchiveUnavailable` (retry) and
    `ArchiveAccessDenied` (the operator has to fix the URL or the credentials), and other errors only where documented.
    """

    @abstractmethod
    async def put(self, path: str, body: bytes) -> None:
        """Store an object, replacing one at the same path; idempotent.

        When this returns, the object survives a crash of the process and of the machine. Until then, the path holds
        the previous object or none, never a part of the new one.
        """

    @abstractmethod
    async def get(self, path: str) -> bytes:
        """Return the bytes of an object.

        Raises:
            ArchiveDamaged: there is no object at this path.

        """

    @abstractmethod
    async def delete(self, path: str) -> None:
        """Delete an object; idempotent."""

    @abstractmethod
    def iterate_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield the objects below a prefix, in any order.

        Args:
            prefix: whole parts of paths, without a trailing slash: ``2015/01`` matches ``2015/01/22/…`` and not
                ``2015/011``. Empty for all objects.

        """

    @abstractmethod
    async def ping(self) -> None:
        """Return if the archive responds; raise an error otherwise."""
