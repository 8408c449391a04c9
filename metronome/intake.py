"""The narrow waist: every event goes in here, and what comes out is on disk."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import NamedTuple

from metronome.dialects.dialect import Dialect, Outcome, Readings, Reply, Request
from metronome.errors import Malformed, SpoolFull, TooLarge
from metronome.event import Door, Event, document
from metronome.spool import Spool
from metronome.telemetry import Telemetry
from metronome.timestamps import stamp_of

_AHEAD = timedelta(days=1)
_TURN_BYTES = 512 * 1024
"""So much is read at once before other work gets its turn."""


@dataclass(frozen=True, slots=True)
class DoorPolicy:
    """What is taken at the door, and how.

    Attributes:
        max_age: how old an event may be; None for any age.
        event_max_bytes: how large a single document may be.
        own_hosts: see `Door`.
        cut_addresses: see `Door`.

    """

    max_age: timedelta | None
    event_max_bytes: int
    own_hosts: frozenset[str]
    cut_addresses: bool


class _Arrival(NamedTuple):
    dialect: Dialect
    request: Request
    key: str
    reply: "asyncio.Future[Reply]"


class _Kept(NamedTuple):
    arrival: _Arrival
    readings: Readings
    outcome: Outcome


class Intake:
    """Make documents of events and put them into the spool.

    Args:
        spool: where they go.
        policy: what is taken.
        clock: seconds since 1970.
        telemetry: where they are counted.

    """

    def __init__(self, spool: Spool, policy: DoorPolicy, clock: Callable[[], float], telemetry: Telemetry) -> None:
        self._spool = spool
        self._policy = policy
        self._clock = clock
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._arrivals: list[_Arrival] = []
        self._identities = _own_identities()
        self._door_at = 0
        self._door = self._open_door(0)

    async def take(self, dialect: Dialect, request: Request, idempotency_key: str = "") -> Reply:
        """Take a request's events, each whatever its neighbours are.

        Args:
            dialect: what the request is written in.
            request: what came in.
            idempotency_key: what a sender that sends the same request again says again. Events without an
                ``event_id`` of their own are known by it and their position.

        Returns:
            What to answer. The events that it calls accepted are on disk.

        Raises:
            SpoolFull: there is no room, and none was taken.
            CallerError: what the dialect raises.

        """
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._arrivals.append(_Arrival(dialect, request, idempotency_key, reply))
        if len(self._arrivals) == 1:
            self._loop.call_soon(self._work)
        return await reply

    def _work(self) -> None:
        """Make documents of all that arrived in one turn of the loop: together they cost half as much."""
        self._look_at_clock()
        lines: list[bytes] = []
        kept: list[_Kept] = []
        size = taken = 0
        for arrival in self._arrivals:
            taken += 1
            size += len(arrival.request.body)
            before = len(lines)
            try:
                kept.append(self._read(arrival, lines))
            except Exception as error:  # noqa: BLE001  # whatever it is belongs to this request alone
                del lines[before:]
                _fail(arrival.reply, error)
            if size > _TURN_BYTES:
                break
        del self._arrivals[:taken]
        if self._arrivals:
            self._loop.call_soon(self._work)
        if not lines:
            self._answer(kept, None)
            return
        count = len(lines)
        lines.append(b"")
        try:
            self._spool.put(b"\n".join(lines), count).add_done_callback(partial(self._answer, kept))
        except SpoolFull as error:
            for arrival, _, _ in kept:
                _fail(arrival.reply, error)

    def _read(self, arrival: "_Arrival", lines: list[bytes]) -> "_Kept":
        dialect, request, key, _ = arrival
        readings = dialect.read(request)
        door, limit, before = self._door, self._policy.event_max_bytes, len(lines)
        identities = _identities_of(key) if key else self._identities
        rejected: dict[int, Malformed | TooLarge] = {}
        for index, reading in enumerate(readings.events):
            identity = next(identities)
            try:
                if type(reading) is not Event:
                    raise reading  # type: ignore[misc]  # what is no event is an error
                line = document(reading, door, identity)
                if len(line) > limit:
                    raise TooLarge(f"the event is over event_max_bytes ({limit}): send less, or raise that setting")
                lines.append(line)
            except (Malformed, TooLarge) as error:
                rejected[index] = error
                self._telemetry.refuse(error)
        return _Kept(arrival, readings, Outcome(len(lines) - before, rejected))

    def _answer(self, kept: list["_Kept"], commit: "asyncio.Future[None] | None") -> None:
        error = commit.exception() if commit is not None else None
        for (dialect, _, _, reply), readings, outcome in kept:
            if error is not None:
                _fail(reply, error)
            elif not reply.done():
                try:
                    reply.set_result(dialect.reply(readings, outcome))
                except Exception as rejection:  # noqa: BLE001  # the others wait for their replies
                    _fail(reply, rejection)

    def _look_at_clock(self) -> None:
        at = int(self._clock() * 1000)
        if at != self._door_at:
            self._door_at, self._door = at, self._open_door(at)

    def _open_door(self, at_ms: int) -> Door:
        now = datetime.fromtimestamp(at_ms / 1000, UTC)
        policy = self._policy
        return Door(
            arrival=stamp_of(now),
            earliest=None if policy.max_age is None or at_ms == 0 else stamp_of(now - policy.max_age),
            latest=stamp_of(now + _AHEAD),
            own_hosts=policy.own_hosts,
            cut_addresses=policy.cut_addresses,
        )


def _fail(reply: "asyncio.Future[Reply]", error: BaseException) -> None:
    if not reply.done():
        reply.set_exception(error)


def _own_identities() -> Iterator[str]:
    """Name events that bring no name: unique for ever by 80 random bits of this process, in order within it."""
    process = secrets.token_hex(10)
    return map(f"{process}-%08x".__mod__, count())


def _identities_of(key: str) -> Iterator[str]:
    """Name a request's events by its idempotency key and their position."""
    return map(f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}-%d".__mod__, count())
