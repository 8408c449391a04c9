"""Salts that identify visitors: one per UTC day, shared by all processes, and deleted after two days.

Without the salt of a day, a visitor's ID cannot be traced back to a person, even with the IP address and user agent.
So a salt is stored only in the state, and never logged.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from metronome.auth.refreshed import RefreshedState
from metronome.enrich.enrichment import NO_SALTS
from metronome.errors import MetronomeError, StoreUnavailable
from metronome.state.base import State

SALT_KIND: Final = "salt"
_SALT_BYTES: Final = 32
_CREATE_AHEAD: Final = timedelta(hours=1)
"""How long before midnight the next day's salt is created, since clocks of processes may differ."""
_REFRESH_SECONDS: Final = 20.0
_RETRY_SECONDS: Final = 2.0
_STARTUP_TIMEOUT_SECONDS: Final = 2.0
"""How long a start waits for the salts; without them, events are stored without a visitor."""
_DAY: Final = timedelta(days=1)


class _SaltDays(NamedTuple):
    """The UTC days whose salts are in use, such as ``2015-01-22``."""

    yesterday: str
    needed: tuple[str, ...]


class VisitorSalts(RefreshedState):
    """The salts of yesterday, of today and, shortly before midnight, of tomorrow.

    Args:
        state: shared by all processes.
        clock: seconds since 1970.
        create_missing: whether to create salts; otherwise old ones are only deleted.

    """

    def __init__(self, state: State, clock: Callable[[], float], *, create_missing: bool = True) -> None:
        super().__init__("salts_not_read", _REFRESH_SECONDS, _RETRY_SECONDS)
        self._state = state
        self._clock = clock
        self._create_missing = create_missing
        self._salts_by_day: Mapping[str, bytes] = NO_SALTS
        self._loaded_days: _SaltDays | None = None

    def current(self) -> Mapping[str, bytes]:
        """Return the known salts by their UTC days."""
        return self._salts_by_day

    @contextlib.asynccontextmanager
    async def keep_refreshed(
        self, first_timeout_seconds: float | None = _STARTUP_TIMEOUT_SECONDS
    ) -> AsyncIterator[None]:
        """Keep the salts up to date while the block runs."""
        async with super().keep_refreshed(first_timeout_seconds):
            yield

    async def _load(self) -> dict[str, Any]:
        days = self._required_days()
        if days == self._loaded_days:
            return {}
        self._salts_by_day = {day: salt for day, salt in self._salts_by_day.items() if day >= days.yesterday}
        records = await self._state.get_all(SALT_KIND)
        if self._create_missing:
            for day in (*days.needed, days.yesterday):
                if day in records:
                    self._salts_by_day = {**self._salts_by_day, day: _decode_salt(records[day])}
                elif day in days.needed:
                    self._salts_by_day = {**self._salts_by_day, day: await self._create_salt(day)}
        for day in records:
            if day < days.yesterday:
                await self._state.remove(SALT_KIND, day)
        self._loaded_days = days
        return {}

    async def _create_salt(self, day: str) -> bytes:
        salt = secrets.token_bytes(_SALT_BYTES)
        if await self._state.add(SALT_KIND, day, {"salt": salt.hex()}):
            return salt
        # Another process was faster.
        record = await self._state.get(SALT_KIND, day)
        if record is None:
            raise StoreUnavailable("a salt disappeared right after another process created it")
        return _decode_salt(record)

    def _required_days(self) -> _SaltDays:
        now = datetime.fromtimestamp(self._clock(), UTC)
        # One day, except in the hour before midnight.
        needed = dict.fromkeys(_format_day(moment) for moment in (now, now + _CREATE_AHEAD))
        return _SaltDays(_format_day(now - _DAY), tuple(needed))

    def _describe_failure(self, error: Exception) -> dict[str, Any]:
        missing = (
            [day for day in self._required_days().needed if day not in self._salts_by_day]
            if self._create_missing
            else []
        )
        return {
            # Other errors might quote a salt.
            "error": str(error) if isinstance(error, MetronomeError) else type(error).__name__,
            "no_visitors_on": missing,
            "advice": "check that the store is running and reachable; Metronome retries",
        }


def _format_day(moment: datetime) -> str:
    return moment.date().isoformat()


def _decode_salt(record: Mapping[str, object]) -> bytes:
    try:
        return bytes.fromhex(str(record["salt"]))
    except (KeyError, ValueError):
        raise StoreUnavailable("a salt in the state is invalid") from None
