"""Forget events on a running server: in the store, spools, dead letters and the archive; and drop old events.

A request is in the state before the client gets its reply, and continues after a restart. It concerns what was accepted
before it began: shippers and archivers are held, the last commit of each spool is recorded, and these commits and the
store are searched before later events are shipped. So events that arrive meanwhile are neither forgotten nor lost, even
if the process is killed at any point: after a restart, shippers are held until an unfinished request has continued.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import structlog

from metronome.archive.base import Archive
from metronome.archive.erasure import ArchiveErasure, ErasureProgress, Tombstone
from metronome.archiver import Archiver
from metronome.errors import MetronomeError, QueryTooExpensive, StoreUnavailable, Unavailable, describe
from metronome.retry import DEFAULT_BACKOFF, Backoff, retry
from metronome.shipper import Shipper
from metronome.spool.drain import DrainLoop
from metronome.spool.erasure import erase_dead_letters, erase_from_spool, last_commit
from metronome.state.base import Record, State
from metronome.stores.base import Store
from metronome.stores.query import Query
from metronome.stores.selection import Selection, stored_selection
from metronome.times import format_timestamp, start_of_first_kept_month

log: Final = structlog.get_logger()

Result = TypeVar("Result")

ERASURE_KIND: Final = "erasure"
VALUE_KIND: Final = "erasure-value"
"""Of the records with what a request names; removed once it is over, which leaves nothing of it in the state."""
_RETENTION_SECONDS: Final = 3600.0
"""How often to look for events that are too old; an event of a month that has just ended may still arrive."""


class Step(StrEnum):
    """How far a request is."""

    WAITING = "waiting"
    STORE = "store"
    ARCHIVE = "archive"
    DONE = "done"
    FAILED = "failed"


_UNFINISHED: Final = (Step.STORE, Step.ARCHIVE)


class SpoolDrains(NamedTuple):
    """A spool and its readers.

    Attributes:
        folder: the folder of the spool.
        shipper: ships it.
        archiver: archives it; None without an archive.

    """

    folder: Path
    shipper: Shipper
    archiver: Archiver | None


class Retention(NamedTuple):
    """How many whole months before the current one are kept, in UTC; None for ever.

    Attributes:
        events: of events.
        counts: of their counts.

    """

    events: int | None = None
    counts: int | None = None


@dataclass(frozen=True, slots=True)
class Erasure:
    """A request to forget events.

    Attributes:
        name: identifies it.
        selection: which events; hashed in the state, except while it is carried out.
        requested: timestamp of the request.
        step: how far it is.
        spools: the number of the last commit before, by the name of the spool.
        counts: the number of forgotten events by place: store, spool, dead_letters, archive.
        damaged: a sentence for each object of the archive that cannot be read.
        error: why it failed, or why the current step is repeated.

    """

    name: str
    selection: Selection
    requested: str
    step: Step = Step.WAITING
    spools: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing further happens."""
        return self.step in {Step.DONE, Step.FAILED}

    def to_record(self, node: str) -> Record:
        """Return the record of the state, without what the request names.

        Args:
            node: identifies the server whose spools it concerns.

        """
        selection = self.selection.hashed()
        return {
            "node": node,
            "by": selection.kind,
            "value": selection.value,
            "requested": self.requested,
            "step": self.step,
            "spools": dict(self.spools),
            "counts": dict(self.counts),
            "damaged": list(self.damaged),
            "error": self.error,
        }


def erasure_from_record(name: str, record: Record) -> Erasure:
    """Return the request in a record of the state.

    Raises:
        StoreUnavailable: it is not one.

    """
    try:
        return Erasure(
            name=name,
            selection=stored_selection(record["by"], record["value"]),
            requested=record["requested"],
            step=Step(record["step"]),
            spools=record["spools"],
            counts=record["counts"],
            damaged=tuple(record["damaged"]),
            error=record["error"],
        )
    except (LookupError, TypeError, ValueError) as error:
        raise StoreUnavailable(f"invalid record of an erasure in the state: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Preview:
    """What a request would forget.

    Attributes:
        events: the number of events in the store; None if counting them takes too long.
        first: label of the first UTC day; empty if there is none, or it is not known.
        last: label of the last one.

    """

    events: int | None
    first: str = ""
    last: str = ""


class Erasures:
    """Carries out requests to forget events, one after the other, and drops old events.

    Until `run` has read the requests of an earlier process, nothing is shipped or archived.

    Args:
        state: keeps the requests.
        store: the store.
        spools: all spools that this process ships; the first one identifies the server.
        dead_letter_folder: the folder of dead letters.
        archive: the archive; None without one.
        retention: how long events are kept.
        clock: seconds since 1970.
        backoff: the delays between attempts.

    """

    def __init__(  # noqa: PLR0913  # it works on all of them
        self,
        state: State,
        store: Store,
        spools: Sequence[SpoolDrains],
        dead_letter_folder: Path,
        archive: Archive | None,
        retention: Retention,
        clock: Callable[[], float],
        *,
        backoff: Backoff = DEFAULT_BACKOFF,
    ) -> None:
        self._state = state
        self._store = store
        self._spools = spools
        self._dead_letter_folder = dead_letter_folder
        self._archive = archive
        self._retention = retention
        self._clock = clock
        self._backoff = backoff
        self._node = spools[0].shipper.spool_name
        self._shippers: list[DrainLoop] = [spool.shipper for spool in spools]
        self._archivers: list[DrainLoop] = [spool.archiver for spool in spools if spool.archiver is not None]
        self._initial_hold = contextlib.ExitStack()
        _hold([*self._shippers, *self._archivers], self._initial_hold)
        self._started_event = asyncio.Event()
        self._wake_event = asyncio.Event()
        self.deletions = 0
        """How often stored events were forgotten or dropped."""
        self._current = ""
        self._progress: ErasureProgress | None = None
        self._error = ""

    async def wait_until_started(self, seconds: float) -> None:
        """Wait until `run` has read the requests of an earlier process, but not longer than a time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._started_event.wait()

    async def request(self, selection: Selection) -> Erasure:
        """Add a request to the state, and return it.

        Raises:
            StoreUnavailable, StoreAccessDenied: the state cannot be written.

        """
        now = self._now()
        erasure = Erasure(f"{now:%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}", selection, format_timestamp(now))
        await self._state.setup()
        await self._state.add(VALUE_KIND, erasure.name, {"value": selection.value})
        await self._state.add(ERASURE_KIND, erasure.name, erasure.to_record(self._node))
        self._wake_event.set()
        return erasure

    async def get(self, name: str) -> Erasure | None:
        """Return a request of this server, or None if there is none with this name."""
        record = await self._state.get(ERASURE_KIND, name)
        return None if record is None or record.get("node") != self._node else erasure_from_record(name, record)

    async def get_all(self) -> list[Erasure]:
        """Return all requests of this server, the oldest first."""
        records = await self._state.get_all(ERASURE_KIND)
        return [
            erasure_from_record(name, record)
            for name, record in sorted(records.items())
            if record.get("node") == self._node
        ]

    def progress(self, erasure: Erasure) -> tuple[int, int] | None:
        """Return how many of the archive's objects were searched, and their number; None unless that goes on."""
        if erasure.name != self._current or self._progress is None:
            return None
        return self._progress.done, self._progress.objects

    def problem(self, erasure: Erasure) -> str:
        """Return why a request failed or why its current step is repeated; empty if it is not."""
        return erasure.error or (self._error if erasure.name == self._current else "")

    async def preview(self, selection: Selection) -> Preview:
        """Count what a request would forget in the store."""
        where, end = selection.where, selection.before
        try:
            (result,) = await self._store.query(Query(group_by=("day",), where=where, end=end))
        except QueryTooExpensive:
            return Preview(None)
        if not result.is_complete:
            return Preview(None)
        days = {str(day): int(count or 0) for day, count in result.to_dict().items()}
        return Preview(sum(days.values()), min(days, default=""), max(days, default=""))

    async def run(self) -> None:
        """Continue unfinished requests, carry out new ones, and drop old events, until cancelled."""
        try:
            for erasure in await self._read_unfinished_at_start():
                await self._execute(erasure)
        except MetronomeError as error:
            # Only the state is unavailable: events must be shipped nevertheless.
            log.warning("erasures_not_read", error=str(error), advice=error.advice)
        except Exception as error:
            log.exception("erasure_crashed", error=str(error))
        self._initial_hold.close()
        self._started_event.set()
        retained_at: float | None = None
        while True:
            self._wake_event.clear()
            try:
                erasures = [erasure for erasure in await self.get_all() if not erasure.is_over]
                for erasure in erasures:
                    await self._execute(erasure)
                if retained_at is None or self._clock() - retained_at >= _RETENTION_SECONDS:
                    await self._drop_old()
                    retained_at = self._clock()
                seconds = _RETENTION_SECONDS
            except MetronomeError as error:
                log.warning("erasure_failed", error=str(error), advice=error.advice)
                seconds = self._backoff.max_seconds
            except Exception:
                log.exception("erasure_crashed")
                seconds = self._backoff.max_seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake_event.wait()

    async def _read_unfinished_at_start(self) -> list[Erasure]:
        """Return the requests that an earlier process began; wait while state and store are both unavailable.

        Raises:
            MetronomeError: only the state is unavailable.

        """
        while True:
            try:
                return await self._read_unfinished()
            except Unavailable:
                if await self._is_store_available():
                    raise
                await self._repeat(self._store.ping)

    async def _is_store_available(self) -> bool:
        try:
            await self._store.ping()
        except Unavailable:
            return False
        return True

    async def _read_unfinished(self) -> list[Erasure]:
        erasures = await self.get_all()
        values = await self._state.get_all(VALUE_KIND)
        for erasure in erasures:
            if erasure.is_over and erasure.name in values:
                # The process was killed between the two changes of the state.
                await self._state.remove(VALUE_KIND, erasure.name)
        return [erasure for erasure in erasures if erasure.step in _UNFINISHED]

    async def _execute(self, erasure: Erasure) -> None:
        self._current, self._progress, self._error = erasure.name, None, ""
        try:
            with contextlib.ExitStack() as archive_hold, contextlib.ExitStack() as store_hold:
                erasure = await self._erase(await self._repeat(lambda: self._name(erasure)), store_hold, archive_hold)
        except MetronomeError as error:
            log.error("forget_failed", by=erasure.selection.kind, error=str(error), advice=error.advice)  # noqa: TRY400  # no bug: no trace
            reason = describe(error)
            await self._repeat(lambda: self._finish(erasure, Step.FAILED, reason))
        else:
            log.info("forgotten", by=erasure.selection.kind, **erasure.counts, damaged=len(erasure.damaged))
        finally:
            self._current = ""

    async def _erase(
        self, erasure: Erasure, store_hold: contextlib.ExitStack, archive_hold: contextlib.ExitStack
    ) -> Erasure:
        """Carry out what is left of a request.

        Raises:
            MetronomeError: it cannot be carried out until the operator changes something.

        """
        _hold(self._archivers, archive_hold)
        if erasure.step is Step.WAITING:
            # Before the shippers are held: an archive may be unavailable for hours.
            await _wait_until_held(self._archivers)
        if erasure.step is not Step.ARCHIVE:
            _hold(self._shippers, store_hold)
        self._initial_hold.close()
        self._started_event.set()
        await _wait_until_held(self._archivers)
        if erasure.step is not Step.ARCHIVE:
            await _wait_until_held(self._shippers)
            if erasure.step is Step.WAITING:
                spools = {
                    spool.shipper.spool_name: await asyncio.to_thread(last_commit, spool.folder)
                    for spool in self._spools
                }
                erasure = await self._repeat(lambda: self._update(erasure, step=Step.STORE, spools=spools))
            counts = await self._erase_from_store(erasure)
            erasure = await self._repeat(lambda: self._update(erasure, step=Step.ARCHIVE, counts=counts))
        store_hold.close()
        if self._archive is not None:
            erasure = await self._erase_from_archive(erasure, self._archive, archive_hold)
        archive_hold.close()
        await self._repeat(self._store.purge_deleted)
        return await self._repeat(lambda: self._finish(erasure, Step.DONE))

    async def _erase_from_store(self, erasure: Erasure) -> dict[str, int]:
        selection = erasure.selection
        spooled = 0
        for spool in self._spools:
            last_seq = erasure.spools.get(spool.shipper.spool_name, 0)
            spooled += await asyncio.to_thread(erase_from_spool, spool.folder, selection, last_seq)
        dead = await asyncio.to_thread(erase_dead_letters, self._dead_letter_folder, selection)
        await self._repeat(self._store.setup)
        stored = await self._repeat(lambda: self._store.forget(selection))
        self.deletions += 1
        return {"store": stored, "spool": spooled, "dead_letters": dead}

    async def _erase_from_archive(
        self, erasure: Erasure, archive: Archive, archive_hold: contextlib.ExitStack
    ) -> Erasure:
        tombstone = Tombstone(erasure.name, erasure.selection, erasure.requested, erasure.spools)

        async def erase_incomplete_uploads() -> None:
            erasing = ArchiveErasure(archive, tombstone)
            await erasing.put_tombstone()
            await erasing.erase_incomplete_uploads(
                {archiver.spool_name: archiver.acknowledged_seq for archiver in self._archivers}
            )

        async def erase_complete_uploads() -> ErasureProgress:
            erasing = ArchiveErasure(archive, tombstone)
            self._progress = erasing.progress
            await erasing.erase_complete_uploads()
            return erasing.progress

        await self._repeat(erase_incomplete_uploads)
        archive_hold.close()
        progress = await self._repeat(erase_complete_uploads)
        self._progress = None
        counts = {**erasure.counts, "archive": progress.events}
        return await self._repeat(lambda: self._update(erasure, counts=counts, damaged=tuple(progress.damaged)))

    async def _name(self, erasure: Erasure) -> Erasure:
        """Return a request with what it names.

        Raises:
            StoreUnavailable: the state does not have it.

        """
        record = await self._state.get(VALUE_KIND, erasure.name)
        if record is None:
            raise StoreUnavailable("the state does not have what is to be forgotten")
        return replace(erasure, selection=Selection(erasure.selection.kind, record["value"]))

    async def _finish(self, erasure: Erasure, step: Step, error: str = "") -> Erasure:
        finished = await self._update(erasure, step=step, error=error)
        await self._state.remove(VALUE_KIND, erasure.name)
        return finished

    async def _update(self, erasure: Erasure, **changes: Any) -> Erasure:
        """Change a request in the state; only this process does."""
        changed = replace(erasure, **changes)
        current = await self._state.get(ERASURE_KIND, erasure.name)
        record = changed.to_record(self._node)
        if current is None:
            await self._state.add(ERASURE_KIND, erasure.name, record)
        elif current != record and not await self._state.compare_and_swap(ERASURE_KIND, erasure.name, current, record):
            raise StoreUnavailable("the state of an erasure has changed meanwhile")
        return changed

    async def _drop_old(self) -> None:
        if self._retention.events is None:
            return
        now = self._now()
        start = start_of_first_kept_month(now, self._retention.events)
        await self._store.setup()
        events = await self._store.drop_events(start)
        if self._retention.counts is not None:
            await self._store.drop_counts(min(start, start_of_first_kept_month(now, self._retention.counts)))
        if events:
            self.deletions += 1
            log.info("old_events_dropped", before=start.date().isoformat(), events=events)

    async def _repeat(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        """Return the result of an operation once what it needs is available."""

        def report(error: MetronomeError, seconds: float) -> None:
            self._error = str(error)
            log.warning("erasure_delayed", error=str(error), retry_seconds=round(seconds, 1))

        result = await retry(
            operation, self._backoff, should_retry=lambda error: isinstance(error, Unavailable), on_retry=report
        )
        self._error = ""
        return result

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _hold(drains: Sequence[DrainLoop], stack: contextlib.ExitStack) -> None:
    for drain in drains:
        drain.hold()
        stack.callback(drain.release)


async def _wait_until_held(drains: Sequence[DrainLoop]) -> None:
    for drain in drains:
        await drain.wait_until_held()
