"""The port that every archive stands behind: objects, each a name and bytes.

What each back end promises, `tests.contracts.archive_contract` tests on all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object that is there.

    Attributes:
        path: its name, with slashes between the parts.
        bytes: how large it is.

    """

    path: str
    size: int


class Archive(ABC):
    """Where objects are put, listed and fetched.

    All methods may be called from one event loop at the same time. Each may raise `ArchiveUnavailable` (try again) and
    `ArchiveAccessDenied` (somebody has to change names or credentials first), and besides these only what it names.
    """

    @abstractmethod
    async def put(self, path: str, body: bytes) -> None:
        """Put an object, in the place of one of that name if there is one; idempotent.

        When this returns, the object survives the death of the process and of the machine. Until then there is either
        none or the one before: never a part of one.
        """

    @abstractmethod
    async def get(self, path: str) -> bytes:
        """Return an object's bytes.

        Raises:
            Damaged: there is no object of that name.

        """

    @abstractmethod
    def iterate_objects(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield the objects below a prefix, in any order.

        Args:
            prefix: whole parts of names, without a slash at the end: ``2015/01`` has ``2015/01/22/…`` and not
                ``2015/011``. Nothing: all objects.

        """

    @abstractmethod
    async def ping(self) -> None:
        """Return if the archive answers; raise if it does not."""
