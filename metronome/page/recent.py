"""Pages as they were last computed: for requests that repeat at once, and for when the store is unavailable."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from metronome.errors import MetronomeError, OperatorError, Unavailable

FRESH_SECONDS: Final = 1.0
"""How long a page is sent again without computing it, and how long the store is not tried again after a failure."""
_MAX_PAGES: Final = 200
_MAX_BYTES: Final = 8 * 2**20
"""Maximum size of all rendered pages; what they were rendered from takes a few times as much."""


@dataclass(frozen=True, slots=True)
class RecentPage:
    """A page.

    Attributes:
        content: what it was rendered from; None if it is not kept.
        body: the rendered page.
        gzipped: the same, compressed.
        etag: its entity tag.
        is_fresh: whether it may be sent again for a moment; that of an empty store is not, as the first event is to
            appear at once, nor one that lacks accepted events.

    """

    content: Any
    body: bytes
    gzipped: bytes
    etag: str
    is_fresh: bool = True


@dataclass(slots=True)
class _Entry:
    page: RecentPage
    version: int
    computed_at: float
    failed_at: float = 0.0
    error: MetronomeError | None = None


class RecentPages:
    """A bounded number of pages, the most recently requested ones.

    Args:
        version: returns a number that grows when the store has more events. A page is not sent again to a request that
            came after that.
        clock: seconds of a clock that is never set back.
        deletions: returns how often events were forgotten. A page is not sent after that, even if the store is
            unavailable.

    """

    def __init__(
        self,
        version: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
        deletions: Callable[[], int] = lambda: 0,
    ) -> None:
        self._version = version
        self._clock = clock
        self._deletions = deletions
        self._seen_deletions = deletions()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._bytes = 0
        self._running: dict[Hashable, tuple[int, asyncio.Task[RecentPage]]] = {}

    async def get(
        self, key: Hashable, compute: Callable[[], Awaitable[RecentPage]]
    ) -> tuple[RecentPage, MetronomeError | None]:
        """Return a page, and why it is out of date: the store is unavailable.

        Requests for a page that is being computed wait for that.

        Args:
            key: identifies the page; includes the rights of the request.
            compute: returns the page.

        Raises:
            MetronomeError: *compute* raised it, and the page was not computed before.

        """
        version = self._version()
        self._drop_outdated()
        if key in self._running and self._running[key][0] < version:
            # It may not see the events that this request expects, and two at once would take twice the time.
            await asyncio.wait([self._running[key][1]])
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            now = self._clock()
            if entry.page.is_fresh and entry.version >= version and now - entry.computed_at < FRESH_SECONDS:
                return entry.page, None
            if entry.error is not None and now - entry.failed_at < FRESH_SECONDS:
                return entry.page, entry.error
        try:
            # If a client disconnects, others may wait for the same page.
            return await asyncio.shield(self._start(key, compute)), None
        except (Unavailable, OperatorError) as error:
            entry = self._entries.get(key)
            if entry is None:
                raise
            entry.error, entry.failed_at = error, self._clock()
            return entry.page, error

    def _start(self, key: Hashable, compute: Callable[[], Awaitable[RecentPage]]) -> asyncio.Task[RecentPage]:
        if key not in self._running:
            version = self._version()
            task = asyncio.create_task(self._compute(key, compute, version))
            self._running[key] = version, task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return self._running[key][1]

    async def _compute(self, key: Hashable, compute: Callable[[], Awaitable[RecentPage]], version: int) -> RecentPage:
        deletions = self._deletions()
        page = await compute()
        self._drop_outdated()
        if deletions != self._seen_deletions:
            return page
        replaced = self._entries.pop(key, None)
        self._bytes += len(page.body) - (len(replaced.page.body) if replaced else 0)
        self._entries[key] = _Entry(page, version, self._clock())
        while len(self._entries) > _MAX_PAGES or self._bytes > _MAX_BYTES:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= len(oldest.page.body)
        return page

    def _drop_outdated(self) -> None:
        deletions = self._deletions()
        if deletions != self._seen_deletions:
            self._seen_deletions = deletions
            self._entries.clear()
            self._bytes = 0
