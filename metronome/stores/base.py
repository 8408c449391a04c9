"""The interface of every store.

`tests.contracts.store_contract` tests that all back ends fulfil what the docstrings promise.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Final

from metronome.errors import MetronomeError, RequestError, StoreUnavailable
from metronome.stores.query import Equals, Filter, Query, QueryResult
from metronome.stores.selection import Selection
from metronome.stores.sequences import EventSequence, SequenceQuery

LISTED_FIELDS_MAX: Final = 10_000
"""How many fields a store lists at least, if documents have as many; others may be queried without being listed."""


IDENTITY_PERIOD: Final = "month"
"""The UTC period in which an ``event_id`` counts once: in another month, it is another event."""


class StoreBusy(StoreUnavailable):
    """The store is reachable, but too busy to store some events."""

    advice = "give the store more resources if this lasts; the spool keeps the events"


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Documents to write to a store.

    Attributes:
        body: each document as one line of UTF-8 JSON with a line feed at its end, as `metronome.event.build_document`
            encodes it.
        count: the number of documents.

    """

    body: bytes
    count: int

    @classmethod
    def from_documents(cls, documents: list[bytes]) -> "DocumentBatch":
        """Return a batch of single documents, given without line feeds."""
        return cls(b"".join(line + b"\n" for line in documents), len(documents))

    @classmethod
    def concatenate(cls, batches: Iterable["DocumentBatch"]) -> "DocumentBatch":
        """Return one batch with the documents of several."""
        parts = list(batches)
        return cls(b"".join(part.body for part in parts), sum(part.count for part in parts))

    def documents(self) -> list[bytes]:
        """Return the single documents, without line feeds."""
        return self.body.split(b"\n")[:-1]

    def split_in_half(self) -> tuple["DocumentBatch", "DocumentBatch"]:
        """Return the two halves of a batch of at least two documents."""
        documents = self.documents()
        middle = len(documents) // 2
        return DocumentBatch.from_documents(documents[:middle]), DocumentBatch.from_documents(documents[middle:])


@dataclass(frozen=True, slots=True)
class RejectedDocument:
    """A document that the store will never accept, and the reason."""

    document: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The outcome of writing a batch.

    Attributes:
        stored: the number of documents that are new in the store.
        duplicates: the number of documents that the store already had, or that the batch has twice.
        rejected: the documents that the store will never accept.
        retry: the documents that the store was too busy to accept, to be written again later; None if there are none.
        waiting: the documents that the store cannot accept until its operator changes something that concerns only
            them, such as a closed index; None if there are none. Others must not wait for them.
        failure: why documents are in *retry* or *waiting*; None if there are none.

    """

    stored: int
    duplicates: int = 0
    rejected: tuple[RejectedDocument, ...] = ()
    retry: DocumentBatch | None = None
    waiting: DocumentBatch | None = None
    failure: MetronomeError | None = field(default=None, compare=False)

    def __add__(self, other: "WriteResult") -> "WriteResult":
        """Return the outcome of two parts of a batch."""
        return WriteResult(
            self.stored + other.stored,
            self.duplicates + other.duplicates,
            self.rejected + other.rejected,
            concatenate_batches(self.retry, other.retry),
            concatenate_batches(self.waiting, other.waiting),
            self.failure or other.failure,
        )


def concatenate_batches(*batches: DocumentBatch | None) -> DocumentBatch | None:
    """Return one batch with the documents of those that are given; None if none is."""
    present = [batch for batch in batches if batch is not None]
    return DocumentBatch.concatenate(present) if present else None


class Sink(ABC):
    """The target of a shipper.

    All methods may run concurrently in one event loop. Each may raise `StoreUnavailable` (retry; whether the call had
    an effect is unknown) and `StoreAccessDenied` (an operator has to change credentials first); other errors only where
    it lists them.
    """

    preferred_batch_bytes: ClassVar[int]
    """The batch size with the highest throughput, in bytes; larger batches are accepted."""
    refresh_seconds: ClassVar[float] = 0.0
    """How long queries may not see what `write` has stored; 0 if they see it at once."""

    @abstractmethod
    async def setup(self) -> None:
        """Prepare the back end for all other calls; idempotent, also when several nodes do it at once.

        Raises:
            ConfigurationError: something in the back end is in the way.

        """

    @abstractmethod
    async def write(self, batch: DocumentBatch) -> WriteResult:
        """Write documents, each exactly once however often it is sent.

        Two documents are the same if their ``event_id`` and `IDENTITY_PERIOD` are; the first one is kept. So
        writing a batch again, in whole or in part and in any order, adds nothing. When this returns, stored documents
        survive a crash of the process and of the machine. Queries see them after `Store.refresh`, or
        after `refresh_seconds`.
        A document that cannot be stored is rejected alone, and one that cannot be stored yet is in `WriteResult.retry`
        or `WriteResult.waiting`; the others in the batch are stored.
        """


class Store(Sink):
    """The store of events, which also runs queries."""

    @abstractmethod
    async def query(self, *queries: Query) -> tuple[QueryResult, ...]:
        """Run queries and return their results in the same order, from one snapshot where the back end can.

        Raises:
            InvalidQuery: a query uses a field or a filter that the back end cannot evaluate.
            QueryTooExpensive: the queries exceed the store's time or memory limit.
            Overloaded: the queries waited too long for others.

        """

    async def query_pages(self, query: Query) -> AsyncGenerator[QueryResult]:
        """Yield the result of a query in pages, at least one, each with the number of rows that it knows of.

        The last page has the total. A store may hold one page at a time in memory, so that results may have more rows
        than those of `query`.

        Raises:
            InvalidQuery, QueryTooExpensive, Overloaded: as `query`, before the first page.

        """
        (result,) = await self.query(query)
        yield result

    @abstractmethod
    async def newest_values(
        self,
        field: str,
        limit: int,
        where: Filter | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> tuple[str, ...]:
        """Return the values of a field that have the newest events.

        Args:
            field: a field at the top level of documents, such as ``session``.
            limit: the maximum number of values, at most 10,000.
            where: which events count; None for all.
            start: as in `Query`.
            end: as in `Query`.

        Returns:
            Distinct values, the one with the newest event first; of two with the same time, the greater text first.

        Raises:
            InvalidQuery: the field is not at the top level, or the back end cannot evaluate the filter.
            QueryTooExpensive: as for `query`.
            Overloaded: as for `query`.

        """

    @abstractmethod
    async def newest_documents(
        self, limit: int, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> tuple[bytes, ...]:
        """Return the documents of the newest events, unchanged.

        Args:
            limit: the maximum number of documents, at most 1,000.
            where: which events count; None for all.
            start: as in `Query`.
            end: as in `Query`.

        Returns:
            The newest first; those with the same time in any order.

        Raises:
            InvalidQuery: the back end cannot evaluate the filter.
            QueryTooExpensive: as for `query`.
            Overloaded: as for `query`.

        """

    @abstractmethod
    def sequences(self, sequence_query: SequenceQuery) -> AsyncIterator[EventSequence]:
        """Yield every sequence in the order of their keys, from one snapshot and in bounded memory.

        Raises:
            InvalidQuery: the back end cannot evaluate the filter.

        """

    @abstractmethod
    async def list_fields(self) -> frozenset[str]:
        """Return the fields that documents have at the top level and that can be queried.

        A store need not list more than `LISTED_FIELDS_MAX` fields: senders can invent any number of names.

        Raises:
            QueryTooExpensive: as for `query`.
            Overloaded: as for `query`.

        """

    @abstractmethod
    async def replace(self, batch: DocumentBatch) -> int:
        """Replace stored documents by those with the same ``event_id`` and time; others are ignored.

        Idempotent; queries see the change as they see writes. Returns the number of replaced documents.
        """

    @abstractmethod
    def iterate_documents(
        self, where: Filter | None = None, start: datetime | None = None, end: datetime | None = None
    ) -> AsyncIterator[bytes]:
        """Yield the documents that match a filter and a time range, oldest first, unchanged.

        Raises:
            InvalidQuery: the back end cannot evaluate the filter.

        """

    async def delete_events(
        self, *, before: datetime | None = None, item: str | None = None, visitor: str | None = None
    ) -> int:
        """Delete the events before a time, those of an item, or those of a visitor; idempotent.

        Reports count them no longer. An event that is written again is stored again: its ``event_id`` is deleted, too.

        Returns:
            The number of deleted events.

        Raises:
            ValueError: not exactly one of the three is given.

        """
        if sum(selection is not None for selection in (before, item, visitor)) != 1:
            raise ValueError("expected exactly one of before, item and visitor")
        if item is not None:
            return await self._delete_matching(Equals("id", item), None)
        return await self._delete_matching(None if visitor is None else Equals("visitor", visitor), before)

    async def forget(self, selection: Selection) -> int:
        """Delete selected events and their counts, as `delete_events`, and return the number of events."""
        return await self._delete_matching(selection.where, selection.before)

    async def drop_events(self, before: datetime) -> int:
        """Delete the events before the start of a UTC month, and return their number; idempotent.

        A store that counts events in advance keeps the counts until `drop_counts`. Where it does not, reports count
        them no longer.
        """
        return await self._delete_matching(None, before)

    async def drop_counts(self, before: datetime) -> None:
        """Delete the counts before the start of a UTC month whose events were dropped; idempotent."""

    async def purge_deleted(self) -> None:
        """Return once the store's own files have nothing of deleted events, as far as the store can tell."""

    @abstractmethod
    async def _delete_matching(self, where: Filter | None, before: datetime | None) -> int:
        """Delete the events that match a filter and are older than a time, and return their number."""

    async def back_up(self, folder: Path) -> None:  # noqa: ARG002  # for stores that can
        """Write a copy of the store into a folder, from which a store can be opened; writes may go on meanwhile.

        Raises:
            RequestError: the store has backups of its own.
            StoreUnavailable: the copy cannot be written.

        """
        raise RequestError("only the embedded store can be copied: use snapshots of Elasticsearch")

    @abstractmethod
    async def refresh(self) -> None:
        """Make all written documents visible to queries at once."""

    async def refresh_written(self) -> None:
        """Make the documents that this object has written visible to queries at once."""
        await self.refresh()

    @abstractmethod
    async def ping(self) -> None:
        """Return if the store is reachable; never wait behind queries."""

    @abstractmethod
    async def close(self) -> None:
        """Close connections and files; idempotent. No other method may be called afterwards."""
