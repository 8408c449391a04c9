"""The port that every store stands behind.

What each back end promises, `tests.contracts.store` tests on all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from metronome.stores.query import Filter, Query, QueryResult
from metronome.stores.sequences import EventSequence, SequenceQuery


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Documents on their way into a store.

    Attributes:
        body: each document as one line of UTF-8 JSON that ends in a line feed, as
            `metronome.event.document` encodes them.
        count: how many there are.

    """

    body: bytes
    count: int

    @classmethod
    def from_documents(cls, documents: list[bytes]) -> "DocumentBatch":
        """Make a batch of single documents, none with its line's end."""
        return cls(b"".join(line + b"\n" for line in documents), len(documents))

    def documents(self) -> list[bytes]:
        """Return the documents singly, without their lines' ends."""
        return self.body.split(b"\n")[:-1]


@dataclass(frozen=True, slots=True)
class RejectedDocument:
    """A document that a store will never take, and why."""

    document: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of the documents of one batch.

    Attributes:
        stored: how many are new in the store.
        duplicates: how many were there already, or twice in the batch.
        refused: those that the store will never take.
        again: those that it was too busy for; they are to be written again, later. None if there are none.

    """

    stored: int
    duplicates: int = 0
    rejected: tuple[RejectedDocument, ...] = ()
    retry: DocumentBatch | None = None


class Sink(ABC):
    """Where a shipper brings documents.

    All methods may be called from one event loop at the same time. Each may raise
    `StoreUnavailable` (try again: nothing is known of what was under way) and `StoreAccessDenied` (somebody has to
    change credentials first), and besides these only what it names.
    """

    preferred_batch_bytes: ClassVar[int]
    """How large a batch is taken best, in bytes; larger ones are taken too."""

    @abstractmethod
    async def setup(self) -> None:
        """Prepare to be written, and whatever else it is for; idempotent, and safe beside other nodes."""

    @abstractmethod
    async def write(self, batch: DocumentBatch) -> WriteResult:
        """Write documents, each exactly once however often it comes.

        Two documents are the same if their ``event_id`` and UTC day are; the first one stays. So writing
        a batch again, wholly or in part, in any order, adds nothing. When this returns, what is said to
        be stored survives the death of the process and of the machine, and questions see it, at
        the latest after the back end's refresh (`Store.refresh`).
        A document that cannot be taken is refused alone; its neighbours are stored.
        """


class Store(Sink):
    """Where events end and questions are answered."""

    @abstractmethod
    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        """Answer questions, in their order, all from the same moment's events as far as the back end can.

        Raises:
            InvalidQuery: a question names something that cannot be asked.
            QueryTooExpensive: the answers take longer than a store gives them.

        """

    @abstractmethod
    async def newest_values(
        self,
        field: str,
        limit: int,
        where: Filter | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[str, ...]:
        """Return the values of a field whose newest events, of those let through, are the newest of all.

        Args:
            field: a plain one, such as ``session``.
            limit: how many values at most, 10,000 or fewer.
            where: which events count.
            start: as in `Query`.
            end: as in `Query`.

        Returns:
            Values, each once, that with the newest event first; of two with the same time the greater text.

        Raises:
            QueryTooExpensive: as `ask`.

        """

    @abstractmethod
    def sequences(self, sequence_query: SequenceQuery) -> AsyncIterator[EventSequence]:
        """Yield every trail, in the order of their keys, whatever is written meanwhile.

        Memory stays bounded however many there are.

        Raises:
            InvalidQuery: the key or a field is none that stands at a document's top level.

        """

    @abstractmethod
    async def list_fields(self) -> frozenset[str]:
        """Return the names that documents have at their top level, as far as they can be asked for."""

    @abstractmethod
    async def replace(self, batch: DocumentBatch) -> int:
        """Put documents in the place of those with the same identity; those that have none are left out.

        Idempotent; questions see it as they see what `write` wrote. Returns how many were replaced. Time
        and identity of a document stay: only what else it holds may differ.
        """

    @abstractmethod
    def iterate_documents(
        self, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the documents that a filter and a range of time let through, oldest first, as they were written."""

    @abstractmethod
    async def delete_events(
        self, *, before: datetime | None = None, item: str | None = None, visitor: str | None = None
    ) -> int:
        """Delete every event from before a time, of an item, or of a visitor: just one of these is given.

        Idempotent. Returns how many events were deleted.
        """

    @abstractmethod
    async def refresh(self) -> None:
        """Make what was written visible to questions at once, where the back end would take its time."""

    @abstractmethod
    async def ping(self) -> None:
        """Return if the store answers; raise if it does not. Never waits behind queries."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections and files; idempotent. Nothing else may be called afterwards."""
