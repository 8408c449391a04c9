"""The narrow waist: every event goes in here, and what comes out is on disk."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter
from typing import Final, NamedTuple

from metronome.enrich.enrichment import NO_SALTS, Enrichment
from metronome.errors import Malformed, MetronomeError, SpoolFull, TooLarge
from metronome.event import Door, Event, document, own_identities
from metronome.protocol import Dialect, Outcome, Reading, Readings, Reply, Request
from metronome.spool import Spool
from metronome.telemetry import Telemetry
from metronome.times import stamp_of

_AHEAD = timedelta(days=1)
_GPC: Final = "Sec-GPC"
"""Global Privacy Control, by which browsers say that their users want to be nobody's data."""
_DNT: Final = "DNT"
"""Do Not Track, its forerunner."""
_TURN_BYTES = 512 * 1024
"""So much is read at once before other work gets its turn."""
_TURN_SECONDS = 0.02
"""So long, likewise: what is made of an event can take a hundred times longer for one that somebody thought up."""
_LOOK_EVENTS = 16
"""After so many events of one request it is seen whether that time is over."""


@dataclass(frozen=True, slots=True)
class DoorPolicy:
    """What is taken at the door, and how.

    Attributes:
        max_age: how old an event may be, unless its sender is believed; None for any age.
        event_max_bytes: how large a single document may be.
        own_hosts: see `Door`.
        cut_addresses: see `Door`.
        enrichment: see `Door`.
        honour_signals: whether no visitor is known of a request that asks not to be followed.

    """

    max_age: timedelta | None
    event_max_bytes: int
    own_hosts: frozenset[str]
    cut_addresses: bool
    enrichment: Enrichment | None = None
    honour_signals: bool = True


class _Arrival(NamedTuple):
    dialect: Dialect
    request: Request
    reply: "asyncio.Future[Reply]"


class _Begun(NamedTuple):
    """A request whose events are being made documents of, which may take several turns."""

    arrival: _Arrival
    readings: Readings
    events: Iterator[tuple[int, Reading]]
    door: Door
    signalled: bool
    identities: Iterator[str]
    lines: list[bytes]
    rejected: dict[int, Malformed | TooLarge]


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
        salts: tells what visitors are named with, as far as it is known now, by UTC days.

    """

    def __init__(
        self,
        spool: Spool,
        policy: DoorPolicy,
        clock: Callable[[], float],
        telemetry: Telemetry,
        salts: Callable[[], Mapping[str, bytes]] = lambda: NO_SALTS,
    ) -> None:
        self._spool = spool
        self._policy = policy
        self._clock = clock
        self._telemetry = telemetry
        self._salts = salts
        self._loop = asyncio.get_running_loop()
        self._arrivals: list[_Arrival | _Begun] = []
        self._identities = own_identities()
        self._door_at = -1
        self._look_at_clock()

    async def take(self, dialect: Dialect, request: Request) -> Reply:
        """Take a request's events, each whatever its neighbours are.

        Args:
            dialect: what the request is written in.
            request: what came in. Events without an ``event_id`` of their own are known by its ``identities``,
                where it has any.

        Returns:
            What to answer. The events that it calls accepted are on disk.

        Raises:
            SpoolFull: there is no room, and none was taken.
            CallerError: what the dialect raises.

        """
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._arrivals.append(_Arrival(dialect, request, reply))
        if len(self._arrivals) == 1:
            self._loop.call_soon(self._work)
        try:
            return await reply
        finally:
            # An error in it would hold this frame, and so itself and the whole body, until garbage is looked for.
            del reply

    def _work(self) -> None:
        """Make documents of all that arrived in one turn of the loop: together they cost half as much."""
        self._look_at_clock()
        lines: list[bytes] = []
        kept: list[_Kept] = []
        unfinished: list[_Begun] = []
        size = taken = 0
        until = perf_counter() + _TURN_SECONDS
        for one in self._arrivals:
            taken += 1
            arrival = one.arrival if isinstance(one, _Begun) else one
            size += len(arrival.request.body)
            try:
                begun = one if isinstance(one, _Begun) else self._begin(arrival)
                if self._is_read(begun, until):
                    lines += begun.lines
                    kept.append(_Kept(arrival, begun.readings, Outcome(len(begun.lines), begun.rejected)))
                else:
                    unfinished.append(begun)
            except Exception as error:  # noqa: BLE001  # whatever it is belongs to this request alone
                _fail(arrival.reply, error)
            if size > _TURN_BYTES or perf_counter() > until:
                break
        del self._arrivals[:taken]
        self._arrivals += unfinished
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

    def _begin(self, arrival: _Arrival) -> _Begun:
        dialect, request, _ = arrival
        readings = dialect.read(request)
        door = self._open_door if request.believed else self._door
        signalled = self._policy.honour_signals and _is_signalled(request.headers)
        if signalled:
            door = replace(door, salts=NO_SALTS)
        identities = request.identities or self._identities
        return _Begun(arrival, readings, enumerate(readings.events), door, signalled, identities, [], {})

    def _is_read(self, begun: _Begun, until: float) -> bool:
        """Make documents of a request's events; returns whether that are all, or time is over."""
        _, _, events, door, signalled, identities, lines, rejected = begun
        limit = self._policy.event_max_bytes
        for index, reading in events:
            identity = next(identities)
            try:
                if type(reading) is not Event:
                    raise reading  # type: ignore[misc]  # what is no event is an error
                line = document(_unfollowed(reading) if signalled else reading, door, identity)
                if len(line) > limit:
                    raise TooLarge(f"the event is over event_max_bytes ({limit}): send less, or raise that setting")
                lines.append(line)
            except (Malformed, TooLarge) as error:
                _free(error)
                rejected[index] = error
            if index % _LOOK_EVENTS == _LOOK_EVENTS - 1 and perf_counter() > until:
                return False
        return True

    def _answer(self, kept: list["_Kept"], commit: "asyncio.Future[None] | None") -> None:
        error = commit.exception() if commit is not None else None
        for (dialect, request, reply), readings, outcome in kept:
            if error is not None:
                _fail(reply, error)
            elif not reply.done():
                try:
                    reply.set_result(dialect.reply(request, readings, outcome))
                except Exception as rejection:  # noqa: BLE001  # the others wait for their replies
                    # Whoever is told of it counts it.
                    _fail(reply, rejection)
                else:
                    for one in outcome.rejected.values():
                        self._telemetry.refuse(one)

    def _look_at_clock(self) -> None:
        at = int(self._clock() * 1000)
        if at != self._door_at:
            now = datetime.fromtimestamp(at / 1000, UTC)
            max_age = self._policy.max_age
            self._door_at = at
            self._open_door = Door(
                arrival=stamp_of(now),
                earliest=None,
                latest=stamp_of(now + _AHEAD),
                own_hosts=self._policy.own_hosts,
                cut_addresses=self._policy.cut_addresses,
                enrichment=self._policy.enrichment,
                salts=self._salts(),
            )
            self._door = (
                self._open_door if max_age is None else replace(self._open_door, earliest=stamp_of(now - max_age))
            )


def _is_signalled(headers: Mapping[str, str]) -> bool:
    """Tell whether a request's sender asks not to be followed."""
    return headers.get(_GPC) == "1" or headers.get(_DNT) == "1"


def _unfollowed(event: Event) -> Event:
    """Take from an event what tells its visitor from others."""
    visitor = event.fields.get("visitor")
    if visitor is None:
        return event
    known = {"visitor", "session"} if event.fields.get("session") == visitor else {"visitor"}
    # Not even what came in may say who it was.
    return Event({name: value for name, value in event.fields.items() if name not in known})


def _fail(reply: "asyncio.Future[Reply]", error: BaseException) -> None:
    if not reply.done():
        if isinstance(error, MetronomeError):
            _free(error)
        reply.set_exception(error)


def _free(error: MetronomeError) -> None:
    """Free an error of the frames that it came through: they hold it in turn, and the body with it."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
