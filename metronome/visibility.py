"""Let reports wait until queries see the events that were acknowledged before.

A reply to a client means that its events are on disk; the store has them a moment later. A report that is requested in
between waits for them, for a limited time.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

import structlog

from metronome.errors import MetronomeError
from metronome.shipper import Shipper
from metronome.spool import Pending
from metronome.stores.base import Store
from metronome.telemetry import Telemetry

log = structlog.get_logger()

REFRESH_SECONDS: Final = 1.0
"""The minimum time between two refreshes: each of them costs Elasticsearch a segment."""
REFRESH_RETRY_SECONDS: Final = 60.0
"""How long reports do not wait after a refresh has failed: the store's credentials may not permit it."""

_Targets = list[tuple[Shipper, Pending]]


class Visibility:
    """Waits until queries see acknowledged events.

    Args:
        shippers: those of all spools.
        store: the store that they ship to.
        max_seconds: how long `wait_for` waits at most; 0 to never wait.
        telemetry: measures the waits.
        report_commits: reports to the shippers all commits of other processes so far.
        deletions: returns how often stored events were forgotten or dropped.

    """

    def __init__(
        self,
        shippers: Sequence[Shipper],
        store: Store,
        max_seconds: float,
        telemetry: Telemetry,
        report_commits: Callable[[], object] = lambda: None,
        deletions: Callable[[], int] = lambda: 0,
    ) -> None:
        self._shippers = shippers
        self._store = store
        self._max_seconds = max_seconds
        self._telemetry = telemetry
        self._report_commits = report_commits
        self.deletions = deletions
        """Returns how often stored events were forgotten or dropped."""
        self._refreshed_at = self._refresh_failed_at = float("-inf")
        self._next_refresh: asyncio.Task[None] | None = None
        self._running_refresh: asyncio.Task[None] | None = None
        self._running_seqs: dict[Shipper, int] = {}

    @property
    def version(self) -> int:
        """A number that grows whenever queries see more events, or fewer, as far as this process knows."""
        return self.deletions() + sum(shipper.pending.visible_seq for shipper in self._shippers)

    async def wait_for(self, items: Collection[str] = ()) -> int:
        """Wait until queries see the events that were acknowledged before this call.

        Do not wait while the store is unavailable, nor for all events if shipping them takes longer than the limit.

        Args:
            items: wait only for the events of these items; empty for all events.

        Returns:
            How many of these events queries may not see yet; 0 unless the limit was reached, or the store cannot
            accept some events.

        """
        if not self._max_seconds:
            return 0
        self._report_commits()
        shippers = [
            shipper
            for shipper in self._shippers
            if not shipper.is_idle or shipper.pending.has_unseen or shipper.pending.has_waiting
        ]
        if not shippers:
            return 0
        found = [(shipper, await shipper.pending.find(items)) for shipper in shippers]
        targets = [(shipper, pending) for shipper, pending in found if pending.events]
        if targets and self._is_worth_waiting(targets):
            with self._telemetry.read_wait_seconds.time():
                await self._wait(targets)
        waiting = sum(pending.waiting for _, pending in found)
        return waiting + sum(pending.events for _, pending in _unseen(targets))

    def _is_worth_waiting(self, targets: _Targets) -> bool:
        now = asyncio.get_running_loop().time()
        return now >= self._refresh_failed_at + REFRESH_RETRY_SECONDS and not any(
            shipper.is_failing
            or shipper.shipping_seconds > self._max_seconds
            or (pending.backlog_bytes and shipper.expected_seconds(pending.backlog_bytes) > self._max_seconds)
            for shipper, pending in targets
        )

    async def _wait(self, targets: _Targets) -> None:
        try:
            async with asyncio.timeout(self._max_seconds):
                stored = await asyncio.gather(
                    *(shipper.wait_until_stored(pending.last_seq) for shipper, pending in targets)
                )
                while all(stored) and (unseen := _unseen(targets)):
                    await asyncio.shield(self._refresh_for(unseen))
        except TimeoutError:
            pass
        except MetronomeError:
            # It is logged where it was raised, once for all reports that wait.
            pass

    def _refresh_for(self, targets: _Targets) -> "asyncio.Task[None]":
        """Return a refresh after which queries see events that the store has: the one that runs, or the next one."""
        if self._running_refresh is not None and all(
            self._running_seqs[shipper] >= pending.last_seq for shipper, pending in targets
        ):
            return self._running_refresh
        if self._next_refresh is None:
            self._next_refresh = asyncio.create_task(self._refresh())
            # The error is that of the requests that wait, of which there may be none left.
            self._next_refresh.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._next_refresh

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._refreshed_at + REFRESH_SECONDS - loop.time()))
        running, self._running_refresh, self._next_refresh = self._next_refresh, self._next_refresh, None
        self._refreshed_at = loop.time()
        seqs = self._running_seqs = {shipper: shipper.pending.stored_seq for shipper in self._shippers}
        try:
            await self._store.refresh_written()
        except MetronomeError as error:
            self._refresh_failed_at = loop.time()
            log.warning("refresh_failed", error=str(error), advice=error.advice)
            raise
        finally:
            if self._running_refresh is running:
                self._running_refresh = None
        for shipper, seq in seqs.items():
            shipper.pending.mark_visible(seq)


def _unseen(targets: _Targets) -> _Targets:
    return [(shipper, pending) for shipper, pending in targets if shipper.pending.visible_seq < pending.last_seq]
