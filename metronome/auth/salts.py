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
from metronome.errors import MetronomeError, StoreUnavailable
from metronome.state.base import State

log = structlog.get_logger()

SALT_KIND: Final = "salt"
_SALT_BYTES: Final = 32
_CREATE_AHEAD: Final = timedelta(hours=1)
"""So long before midnight the next day's salt is made: nobody waits for it, and clocks may differ a little."""
_REFRESH_SECONDS: Final = 20.0
_RETRY_SECONDS: Final = 2.0
"""How soon a state that did not answer is asked again."""
_STARTUP_TIMEOUT_SECONDS: Final = 2.0
"""How long a start waits for the first salts; events are taken without, if need be."""
_DAY: Final = timedelta(days=1)


class _SaltDays(NamedTuple):
    """The UTC days whose salts are of use at a time, as ``2015-01-22``."""

    yesterday: str
    needed: tuple[str, ...]


class VisitorSalts:
    """The salts of yesterday, of today and, as midnight comes near, of tomorrow.

    Args:
        state: where all processes find the same.
        clock: seconds since 1970.
        create_missing: whether there are to be any; else old ones are destroyed, and that is all.

    """

    def __init__(self, state: State, clock: Callable[[], float], *, create_missing: bool = True) -> None:
        self._state = state
        self._clock = clock
        self._create_missing = create_missing
        self._salts_by_day: Mapping[str, bytes] = NO_SALTS
        self._loaded_days: _SaltDays | None = None
        self._first_attempt = asyncio.Event()
        self._last_problem = ""

    def current(self) -> Mapping[str, bytes]:
        """Return the salts that are known now, by their UTC days."""
        return self._salts_by_day

    @contextlib.asynccontextmanager
    async def keep_refreshed(self) -> AsyncIterator[None]:
        """Have the right ones while the block runs, as far as the state answers."""
        keeping = asyncio.create_task(self._refresh_loop())
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._first_attempt.wait(), _STARTUP_TIMEOUT_SECONDS)
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def refresh(self) -> bool:
        """Bring the salts up to the clock; returns whether that was possible."""
        days = self._required_days()
        if days == self._loaded_days:
            return True
        self._salts_by_day = {day: salt for day, salt in self._salts_by_day.items() if day >= days.yesterday}
        try:
            await self._load_and_rotate(days)
        except MetronomeError as error:
            self._log_problem(str(error))
            return False
        except Exception as error:  # noqa: BLE001  # whatever it is, the next days need their salts
            # Not its text, which might hold a salt.
            self._log_problem(type(error).__name__)
            return False
        self._loaded_days, self._last_problem = days, ""
        return True

    async def _refresh_loop(self) -> None:
        while True:
            done = await self.refresh()
            self._first_attempt.set()
            await asyncio.sleep(_REFRESH_SECONDS if done else _RETRY_SECONDS)

    async def _load_and_rotate(self, days: _SaltDays) -> None:
        found = await self._state.get_all(SALT_KIND)
        if self._create_missing:
            for day in (*days.needed, days.yesterday):
                if day in found:
                    self._salts_by_day = {**self._salts_by_day, day: _decode_salt(found[day])}
                elif day in days.needed:
                    self._salts_by_day = {**self._salts_by_day, day: await self._create_salt(day)}
        for day in found:
            if day < days.yesterday:
                await self._state.remove(SALT_KIND, day)

    async def _create_salt(self, day: str) -> bytes:
        salt = secrets.token_bytes(_SALT_BYTES)
        if await self._state.add(SALT_KIND, day, {"salt": salt.hex()}):
            return salt
        # Another process was sooner.
        record = await self._state.get(SALT_KIND, day)
        if record is None:
            raise StoreUnavailable("a salt was there, and is gone")
        return _decode_salt(record)

    def _required_days(self) -> _SaltDays:
        now = datetime.fromtimestamp(self._clock(), UTC)
        # Of the same day but for the hour before midnight.
        needed = dict.fromkeys(_format_day(moment) for moment in (now, now + _CREATE_AHEAD))
        return _SaltDays(_format_day(now - _DAY), tuple(needed))

    def _log_problem(self, message: str) -> None:
        """Log what is wrong, once and not at each try."""
        if message != self._last_problem:
            missing = (
                [day for day in self._required_days().needed if day not in self._salts_by_day]
                if self._create_missing
                else []
            )
            advice = "see that the store runs and can be reached; it is tried again"
            log.warning("salts_not_read", error=message, no_visitors_on=missing, advice=advice)
        self._last_problem = message


def _format_day(moment: datetime) -> str:
    return moment.date().isoformat()


def _decode_salt(record: Mapping[str, object]) -> bytes:
    try:
        return bytes.fromhex(str(record["salt"]))
    except (KeyError, ValueError):
        raise StoreUnavailable("a salt cannot be read: somebody else wrote it") from None
