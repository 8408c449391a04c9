"""The events of a spool that queries do not see yet, by item.

Ingest does nothing for this: a report that needs it reads the commits that are still in the spool, each of them once.
"""

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple, TypeVar

import orjson

from metronome.spool.reader import Chunk, SpoolReader

SEARCH_MAX_BYTES: Final = 32 * 2**20
"""The size of a backlog that is searched for items: it takes 0.1 s."""
_ITEM: Final = re.compile(rb'"id":("(?:[^"\\]++|\\.)*+")')
"""An item's ID as a JSON string. Texts in a document do not match, because their quotes are escaped."""
_WAITING_SEARCH_BYTES: Final = 2**22
_SLICE_BYTES: Final = 2**18
"""How much to search before other threads may run."""

Result = TypeVar("Result")

# The threads of the event loop may all be busy with reports.
_SEARCHING: Final = ThreadPoolExecutor(1, "spool-search")


class Pending(NamedTuple):
    """Events that queries do not see yet.

    Attributes:
        last_seq: the number of the last commit that has such events; 0 if there are none.
        events: their number.
        backlog_bytes: the size of all events that the store does not have yet; 0 if the events are those of certain
            items.
        waiting: the number of further events that the store cannot accept yet: nobody knows for how long.

    """

    last_seq: int
    events: int
    backlog_bytes: int = 0
    waiting: int = 0


class _Commits(NamedTuple):
    """Consecutive commits that queries do not see yet.

    Attributes:
        last_seq: the number of the last one.
        events: the number of events.
        items: the number of events of each item, by its ID as a JSON string.
        stored_at: when the store got them; None if it does not have them yet.

    """

    last_seq: int
    events: int
    items: Counter[bytes]
    stored_at: float | None = None


class PendingEvents:
    """The events of one spool that queries do not see yet.

    Args:
        reader: the reading end of the spool for the store.
        refresh_seconds: how long queries may not see what was written to the store.
        clock: returns seconds.

    """

    def __init__(
        self, reader: SpoolReader, refresh_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader = reader
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._lock = asyncio.Lock()
        self._commits: deque[_Commits] = deque()
        self.stored_seq = reader.acknowledged_seq
        """The number of the last commit that the store has."""
        self.visible_seq = self.stored_seq
        """The number of the last commit that queries see."""
        self.has_waiting = bool(reader.waiting_stats().events)
        """Whether the spool keeps events that the store cannot accept yet."""

    @property
    def has_unseen(self) -> bool:
        """Whether the store has events that queries may not see yet."""
        self._drop_visible()
        return self.visible_seq < self.stored_seq

    async def record_stored(self, chunk: Chunk) -> None:
        """Record that the store has the next chunk; call this before it is acknowledged to the spool."""
        if not self._refresh_seconds:
            self.stored_seq = chunk.last_seq
            self.mark_visible(chunk.last_seq)
            return
        async with self._lock:
            # From now on, only this knows its items.
            commits = await _in_thread(lambda: _index(chunk.last_seq, chunk.batch.count, chunk.batch.body))
            self._drop_visible()
            before = [other for other in self._commits if other.last_seq <= self.stored_seq]
            after = [other for other in self._commits if other.last_seq > chunk.last_seq]
            self._commits = deque([*before, commits._replace(stored_at=self._clock()), *after])
            self.stored_seq = chunk.last_seq

    def mark_visible(self, seq: int) -> None:
        """Record that queries see all commits up to and including *seq*."""
        self.visible_seq = max(self.visible_seq, seq)
        self._drop_visible()

    async def find(self, items: Collection[str]) -> Pending:
        """Return the events that queries do not see yet.

        Args:
            items: the items of the events; empty for all events. In a backlog over `SEARCH_MAX_BYTES`, all events are
                taken for theirs.

        """
        async with self._lock:
            self._drop_visible()
            last_seq, backlog = await _in_thread(lambda: self._reader.measure_backlog(self.stored_seq))
            waiting = await _in_thread(lambda: self._count_waiting(items)) if self.has_waiting else 0
            if items and backlog.bytes <= SEARCH_MAX_BYTES:
                await self._index_backlog()
                names = {_encode_item(item) for item in items}
                counts = [(commits.last_seq, sum([commits.items[name] for name in names])) for commits in self._commits]
                last_seq = max((seq for seq, count in counts if count), default=0)
                return Pending(last_seq, sum(count for _, count in counts), waiting=waiting)
        unseen = [commits.events for commits in self._commits if commits.last_seq <= self.stored_seq]
        last_seq = last_seq or (self.stored_seq if unseen else 0)
        return Pending(last_seq, backlog.events + sum(unseen), backlog.bytes, waiting)

    def _count_waiting(self, items: Collection[str]) -> int:
        stats = self._reader.waiting_stats()
        if not items or stats.bytes > SEARCH_MAX_BYTES:
            return stats.events
        names = {_encode_item(item) for item in items}
        count = after = 0
        while (chunk := self._reader.read_waiting(after, _WAITING_SEARCH_BYTES)) is not None:
            found = _index(0, chunk.batch.count, chunk.batch.body).items
            count += sum([found[name] for name in names])
            after = chunk.numbers[1]
        return count

    async def _index_backlog(self) -> None:
        indexed_seq = self._commits[-1].last_seq if self._commits else 0
        self._commits += await _in_thread(lambda: self._read_commits(max(self.stored_seq, indexed_seq)))
        # The store may have some of them by now.
        self._drop_visible()

    def _read_commits(self, after: int) -> list[_Commits]:
        read = []
        while (commit := self._reader.read_commit(after)) is not None:
            after, events, body = commit
            read.append(_index(after, events, body))
        return read

    def _drop_visible(self) -> None:
        now = self._clock()
        while self._commits:
            commits = self._commits[0]
            if commits.stored_at is not None and commits.stored_at + self._refresh_seconds <= now:
                self.visible_seq = max(self.visible_seq, commits.last_seq)
            if commits.last_seq > self.visible_seq:
                break
            self._commits.popleft()


def _index(last_seq: int, events: int, body: bytes) -> _Commits:
    items: Counter[bytes] = Counter()
    start = 0
    while start < len(body):
        end = body.find(b"\n", start + _SLICE_BYTES) + 1 or len(body)
        items.update(_ITEM.findall(body, start, end))
        start = end
    return _Commits(last_seq, events, items)


def _encode_item(item: str) -> bytes:
    # As `metronome.event.build_document` encodes it, where lone surrogates become U+FFFD.
    return orjson.dumps(item.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


async def _in_thread(work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(_SEARCHING, work)
