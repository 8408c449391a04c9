"""The salts that visitors are named with: one a UTC day, shared by all processes, and destroyed after two days.

Without a day's salt nobody can tell any more whose name a visitor's was, not even with the address and the agent at
hand; so a salt is never written to anything but the state, and never logged.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import structlog

from metronome.enrich.enrichment import NO_SALTS
from metronome.errors import MetronomeError, StoreAway
from metronome.state.base import State

log = structlog.get_logger()

KIND: Final = "salt"
_BYTES: Final = 32
_EARLY: Final = timedelta(hours=1)
"""So long before midnight the next day's salt is made: nobody waits for it, and clocks may differ a little."""
_LOOK_SECONDS: Final = 20.0
_AGAIN_SECONDS: Final = 2.0
"""How soon a state that did not answer is asked again."""
_PATIENCE_SECONDS: Final = 2.0
"""How long a start waits for the first salts; events are taken without, if need be."""
_DAY: Final = timedelta(days=1)


class _Days(NamedTuple):
    """The UTC days whose salts are of use at a time, as ``2015-01-22``."""

    yesterday: str
    needed: tuple[str, ...]


class Salts:
    """The salts of yesterday, of today and, as midnight comes near, of tomorrow.

    Args:
        state: where all processes find the same.
        clock: seconds since 1970.
        making: whether there are to be any; else old ones are destroyed, and that is all.

    """

    def __init__(self, state: State, clock: Callable[[], float], *, making: bool = True) -> None:
        self._state = state
        self._clock = clock
        self._making = making
        self._known: Mapping[str, bytes] = NO_SALTS
        self._read_for: _Days | None = None
        self._first_try = asyncio.Event()
        self._complaint = ""

    def known(self) -> Mapping[str, bytes]:
        """Return the salts that are known now, by their UTC days."""
        return self._known

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Have the right ones while the block runs, as far as the state answers."""
        keeping = asyncio.create_task(self._keep())
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._first_try.wait(), _PATIENCE_SECONDS)
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def read(self) -> bool:
        """Bring the salts up to the clock; returns whether that was possible."""
        days = self._days()
        if days == self._read_for:
            return True
        self._known = {day: salt for day, salt in self._known.items() if day >= days.yesterday}
        try:
            await self._read(days)
        except MetronomeError as error:
            self._complain(str(error))
            return False
        except Exception as error:  # noqa: BLE001  # whatever it is, the next days need their salts
            # Not its text, which might hold a salt.
            self._complain(type(error).__name__)
            return False
        self._read_for, self._complaint = days, ""
        return True

    async def _keep(self) -> None:
        while True:
            done = await self.read()
            self._first_try.set()
            await asyncio.sleep(_LOOK_SECONDS if done else _AGAIN_SECONDS)

    async def _read(self, days: _Days) -> None:
        found = await self._state.all(KIND)
        if self._making:
            for day in (*days.needed, days.yesterday):
                if day in found:
                    self._known = {**self._known, day: _salt_of(found[day])}
                elif day in days.needed:
                    self._known = {**self._known, day: await self._make(day)}
        for day in found:
            if day < days.yesterday:
                await self._state.remove(KIND, day)

    async def _make(self, day: str) -> bytes:
        salt = secrets.token_bytes(_BYTES)
        if await self._state.add(KIND, day, {"salt": salt.hex()}):
            return salt
        # Another process was sooner.
        record = await self._state.get(KIND, day)
        if record is None:
            raise StoreAway("a salt was there, and is gone")
        return _salt_of(record)

    def _days(self) -> _Days:
        now = datetime.fromtimestamp(self._clock(), UTC)
        # Of the same day but for the hour before midnight.
        needed = dict.fromkeys(_day(moment) for moment in (now, now + _EARLY))
        return _Days(_day(now - _DAY), tuple(needed))

    def _complain(self, complaint: str) -> None:
        """Log what is wrong, once and not at each try."""
        if complaint != self._complaint:
            missing = [day for day in self._days().needed if day not in self._known] if self._making else []
            advice = "see that the store runs and can be reached; it is tried again"
            log.warning("salts_not_read", error=complaint, no_visitors_on=missing, advice=advice)
        self._complaint = complaint


def _day(moment: datetime) -> str:
    return moment.date().isoformat()


def _salt_of(record: Mapping[str, object]) -> bytes:
    try:
        return bytes.fromhex(str(record["salt"]))
    except (KeyError, ValueError):
        raise StoreAway("a salt cannot be read: somebody else wrote it") from None
