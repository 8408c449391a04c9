"""Limits on how many expensive queries run at once, and on how many requests a client sends."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

from aiohttp import web

from metronome.errors import Overloaded, RateLimited


class ConcurrencyLimits(NamedTuple):
    """How many queries of one kind may run, and how many may wait.

    Attributes:
        max_concurrent: how many run at once.
        max_waiting: how many more may wait.
        timeout_seconds: how long each may wait.

    """

    max_concurrent: int
    max_waiting: int
    timeout_seconds: float


QUERY_LIMITS: Final = ConcurrencyLimits(2, 64, 30.0)
"""Fewer than a store runs at once, so that cheap reports never wait for these. After 30 s most clients have gone."""
PUBLIC_QUERY_LIMITS: Final = ConcurrencyLimits(1, 64, 15.0)
"""Requests without a key also take a slot of `QUERY_LIMITS` each: one is left for the operator."""
COUNT_LIMITS: Final = ConcurrencyLimits(4, 256, 15.0)
"""Of reports that a store answers from its counts, in milliseconds."""
PUBLIC_COUNT_LIMITS: Final = ConcurrencyLimits(3, 256, 15.0)
PAGE_LIMITS: Final = ConcurrencyLimits(1, 32, 15.0)
"""Pages also take a slot of `QUERY_LIMITS` each: one is left for other queries, however many pages are requested."""
COUNTER_ITEM_LIMITS: Final = ConcurrencyLimits(2, 64, 8.0)
"""With the 50 s that counting may take, less than the minute that a worker waits for the main process."""
COUNTER_SITE_LIMITS: Final = ConcurrencyLimits(1, 4, 8.0)


class ConcurrencyLimiter:
    """Limit how many queries run at once; a bounded number may wait, in order of arrival."""

    def __init__(self, limits: ConcurrencyLimits = QUERY_LIMITS) -> None:
        self._limits = limits
        self._semaphore = asyncio.Semaphore(limits.max_concurrent)
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def acquire(self, request: web.Request | None = None) -> AsyncIterator[None]:
        """Hold a slot while the block runs.

        Args:
            request: its client may disconnect while it waits; the block then does not run.

        Raises:
            Overloaded: too many queries wait, the wait timed out, or the client has disconnected.

        """
        if self._semaphore.locked() and self._waiting >= self._limits.max_waiting:
            raise Overloaded(f"{self._waiting} other queries are already waiting")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                await self._semaphore.acquire()
        except TimeoutError:
            raise Overloaded(f"timed out after waiting {self._limits.timeout_seconds:g} s for other queries") from None
        finally:
            self._waiting -= 1
        try:
            if request is not None and (request.transport is None or request.transport.is_closing()):
                raise Overloaded("the client disconnected while its query waited")
            yield
        finally:
            self._semaphore.release()


class ReportSlots:
    """The slots of all reports, in two lanes: what a store answers from its counts, and everything else.

    Requests without a key hold at most a part of each lane.

    Args:
        queries: limits the lane of everything else.

    """

    def __init__(self, queries: ConcurrencyLimiter) -> None:
        self._queries = queries, ConcurrencyLimiter(PUBLIC_QUERY_LIMITS)
        self._counts = ConcurrencyLimiter(COUNT_LIMITS), ConcurrencyLimiter(PUBLIC_COUNT_LIMITS)

    @contextlib.asynccontextmanager
    async def acquire(
        self, request: web.Request | None = None, *, is_public: bool, is_cheap: bool = False
    ) -> AsyncIterator[None]:
        """Hold a slot while the block runs.

        Args:
            request: see `ConcurrencyLimiter.acquire`.
            is_public: whether the request comes without a key.
            is_cheap: whether the store answers the report from its counts.

        Raises:
            Overloaded: see `ConcurrencyLimiter.acquire`.

        """
        everyone, public = self._counts if is_cheap else self._queries
        async with contextlib.AsyncExitStack() as slots:
            if is_public:
                await slots.enter_async_context(public.acquire(request))
            await slots.enter_async_context(everyone.acquire(request))
            yield


_BURST: Final = 10
_MAX_CLIENTS: Final = 100_000


class RateLimiter:
    """Limit the requests of each client address to a rate, with bursts of ten times as many.

    For each client it keeps only the time until which its past requests last at that rate. The table is bounded: it
    forgets clients that could send a whole burst, and all of them if too many others remain.

    Args:
        per_second: the rate; 0 for no limit.
        clock: returns seconds.
        max_clients: the size of the table.

    """

    def __init__(
        self, per_second: float = 0.0, clock: Callable[[], float] = time.monotonic, max_clients: int = _MAX_CLIENTS
    ) -> None:
        self._interval = 1 / per_second if per_second else 0.0
        self._burst_seconds = self._interval * (_BURST * per_second - 0.5)
        self._message = f"over {per_second:g} requests a second, with bursts of {_BURST * per_second:g}"
        self._clock = clock
        self._max_clients = max_clients
        self._busy_until: dict[str, float] = {}

    def check(self, client: str) -> None:
        """Count a request.

        Args:
            client: its address or network; empty for one without a limit.

        Raises:
            RateLimited: there were too many.

        """
        if not client or not self._interval:
            return
        now = self._clock()
        busy_until = max(self._busy_until.get(client, now), now)
        if busy_until - now > self._burst_seconds:
            raise RateLimited(self._message)
        self._busy_until[client] = busy_until + self._interval
        if len(self._busy_until) > self._max_clients:
            self._forget_idle(now)

    def _forget_idle(self, now: float) -> None:
        busy = {client: until for client, until in self._busy_until.items() if until > now}
        self._busy_until = busy if len(busy) <= self._max_clients // 2 else {}
