"""A limit on the memory of requests that are being received or processed, over all connections of a process."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from aiohttp import web

from metronome.enrich.addresses import client_network
from metronome.errors import MemoryLimitReached, RequestTimeout

DEFAULT_BUDGET_BYTES: Final = 256 * 2**20
SMALL_MAX_BYTES: Final = 64 * 1024
_SMALL_SHARE: Final = 4
"""One part of this many is for requests up to `SMALL_MAX_BYTES`: large ones cannot shut them out."""
_CLIENT_SHARE: Final = 8
_MIN_BYTES_PER_SECOND: Final = 10_000
_GRACE_SECONDS: Final = 5.0
PACE_CHECK_SECONDS: Final = 1.0
"""How often a receiver should call `ByteLease.check_pace` while nothing arrives."""


class ByteBudget:
    """The bytes that requests may hold at once: what has arrived of their bodies, until they are answered.

    Small requests have a part of their own, and one client address (IPv6: its /64) has at most an eighth, but at least
    what the largest request takes.

    Args:
        max_bytes: of all requests.
        largest_request_bytes: what the largest request takes.
        clock: returns seconds.

    """

    def __init__(
        self,
        max_bytes: int = DEFAULT_BUDGET_BYTES,
        largest_request_bytes: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        max_bytes = max(max_bytes, largest_request_bytes * _SMALL_SHARE // (_SMALL_SHARE - 1))
        small_bytes = max_bytes // _SMALL_SHARE
        self._limits = {True: small_bytes, False: max_bytes - small_bytes}
        self._used = {True: 0, False: 0}
        self._client_limit = max(max_bytes // _CLIENT_SHARE, largest_request_bytes)
        self._clients: defaultdict[str, int] = defaultdict(int)

    @property
    def used_bytes(self) -> int:
        """The number of bytes that all requests hold."""
        return sum(self._used.values())

    def open(self, client: str) -> "ByteLease":
        """Return the lease of a request that has received nothing yet; it must be released.

        Args:
            client: its IP address.

        """
        return ByteLease(self, client_network(client))

    def resize(self, client: str, before: int, after: int) -> None:
        """Change what a request of a client holds (see `ByteLease.resize`)."""
        was_small, is_small = before <= SMALL_MAX_BYTES, after <= SMALL_MAX_BYTES
        if after > before:
            others = self._used[is_small] - (before if was_small == is_small else 0)
            if others + after > self._limits[is_small]:
                raise MemoryLimitReached("the requests that are being received take all memory that they may take")
            if self._clients[client] + after - before > self._client_limit:
                raise MemoryLimitReached("requests of this client's address take all memory that one client may take")
        self._used[was_small] -= before
        self._used[is_small] += after
        self._clients[client] += after - before
        if not self._clients[client]:
            del self._clients[client]

    def is_short(self, client: str, size: int) -> bool:
        """Return whether more than half is taken of what a request of this size and client may take."""
        is_small = size <= SMALL_MAX_BYTES
        return (
            self._used[is_small] * 2 > self._limits[is_small] or self._clients.get(client, 0) * 2 > self._client_limit
        )


class ByteLease:
    """What one request, or one connection of another protocol, holds of a budget."""

    __slots__ = ("_budget", "_client", "_started", "size")

    def __init__(self, budget: ByteBudget, client: str) -> None:
        self._budget = budget
        self._client = client
        self._started = budget.clock()
        self.size = 0

    def resize(self, size: int) -> None:
        """Change how many bytes are held.

        Raises:
            MemoryLimitReached: there is no room for that many; the size stays as it was.

        """
        self._budget.resize(self._client, self.size, size)
        self.size = size

    def restart(self) -> None:
        """Measure the pace from now on."""
        self._started = self._budget.clock()

    def check_pace(self) -> None:
        """Check that bytes arrive quickly enough, if the budget is short.

        Raises:
            RequestTimeout: they do not.

        """
        seconds = self._budget.clock() - self._started
        is_slow = seconds > _GRACE_SECONDS and self.size < seconds * _MIN_BYTES_PER_SECOND
        if is_slow and self._budget.is_short(self._client, self.size):
            raise RequestTimeout(
                f"the body arrives slower than {_MIN_BYTES_PER_SECOND} bytes per second, while memory is short"
            )

    def release(self) -> None:
        """Hold nothing."""
        self.resize(0)


class BodyBudget:
    """A budget for the bodies of HTTP requests, by client address.

    Args:
        budget: of the process.
        resolve_client: returns the IP address of a request's client.

    """

    def __init__(self, budget: ByteBudget, resolve_client: Callable[[web.Request], str]) -> None:
        self._budget = budget
        self._resolve_client = resolve_client
        self.leases: dict[int, ByteLease] = {}
        """By the `id` of the request: its own mapping would cost more, for requests without a lease, too."""

    def open(self, request: web.Request) -> ByteLease:
        """Return the lease of a request, which `release` ends."""
        lease = self.leases.get(id(request))
        if lease is None:
            lease = self.leases[id(request)] = self._budget.open(self._resolve_client(request))
        return lease

    def release(self, request: web.Request) -> None:
        """Release what a request holds, if anything."""
        lease = self.leases.pop(id(request), None)
        if lease is not None:
            lease.release()


BODY_BUDGET: Final = web.AppKey("body_budget", BodyBudget)
