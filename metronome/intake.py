"""The narrow waist: every event goes in here, and what comes out is on disk."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter
from typing import Final, NamedTuple

from metronome.enrich.enrichment import NO_SALTS, Enrichment
from metronome.errors import Malformed, MetronomeError, PayloadTooLarge, SpoolFull
from metronome.event import DocumentContext, Event, build_document, generate_event_ids
from metronome.protocol import IngestResult, ParsedEvent, ParsedRequest, Protocol, Reply, Request
from metronome.spool import SpoolWriter
from metronome.telemetry import Telemetry
from metronome.times import format_timestamp

_MAX_CLOCK_SKEW = timedelta(days=1)
_GPC: Final = "Sec-GPC"
"""Global Privacy Control, by which browsers say that their users want to be nobody's data."""
_DNT: Final = "DNT"
"""Do Not Track, its forerunner."""
_SLICE_MAX_BYTES = 512 * 1024
"""So much is read at once before other work gets its turn."""
_SLICE_MAX_SECONDS = 0.02
"""So long, likewise: what is made of an event can take a hundred times longer for one that somebody thought up."""
_DEADLINE_CHECK_EVENTS = 16
"""After so many events of one request it is seen whether that time is over."""


@dataclass(frozen=True, slots=True)
class IngestConfig:
    """What is taken at the door, and how.

    Attributes:
        max_age: how old an event may be, unless its sender is believed; None for any age.
        event_max_bytes: how large a single document may be.
        own_hosts: see `DocumentContext`.
        cut_addresses: see `DocumentContext`.
        enrichment: see `DocumentContext`.
        honour_privacy_signals: whether no visitor is known of a request that asks not to be followed.

    """

    max_age: timedelta | None
    event_max_bytes: int
    own_hosts: frozenset[str]
    anonymize_addresses: bool
    enrichment: Enrichment | None = None
    honor_privacy_signals: bool = True


class _QueuedRequest(NamedTuple):
    protocol: Protocol
    request: Request
    reply: "asyncio.Future[Reply]"


class _RequestInProgress(NamedTuple):
    """A request whose events are being made documents of, which may take several turns."""

    queued: _QueuedRequest
    parsed: ParsedRequest
    events: Iterator[tuple[int, ParsedEvent]]
    context: DocumentContext
    no_tracking: bool
    event_ids: Iterator[str]
    lines: list[bytes]
    rejected: dict[int, Malformed | PayloadTooLarge]


class _CompletedRequest(NamedTuple):
    queued: _QueuedRequest
    parsed: ParsedRequest
    result: IngestResult


class Intake:
    """Make documents of events and put them into the spool.

    Args:
        spool: where they go.
        config: what is taken.
        clock: seconds since 1970.
        telemetry: where they are counted.
        salts: tells what visitors are named with, as far as it is known now, by UTC days.

    """

    def __init__(
        self,
        spool: SpoolWriter,
        config: IngestConfig,
        clock: Callable[[], float],
        telemetry: Telemetry,
        salts: Callable[[], Mapping[str, bytes]] = lambda: NO_SALTS,
    ) -> None:
        self._spool = spool
        self._config = config
        self._clock = clock
        self._telemetry = telemetry
        self._salts = salts
        self._loop = asyncio.get_running_loop()
        self._queue: list[_QueuedRequest | _RequestInProgress] = []
        self._event_ids = generate_event_ids()
        self._context_ms = -1
        self._refresh_context()

    async def ingest(self, protocol: Protocol, request: Request) -> Reply:
        """Take a request's events, each whatever its neighbours are.

        Args:
            protocol: what the request is written in.
            request: what came in. Events without an ``event_id`` of their own are known by its ``identities``,
                where it has any.

        Returns:
            What to answer. The events that it calls accepted are on disk.

        Raises:
            SpoolFull: there is no room, and none was taken.
            RequestError: what the dialect raises.

        """
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._queue.append(_QueuedRequest(protocol, request, reply))
        if len(self._queue) == 1:
            self._loop.call_soon(self._process_queue)
        try:
            return await reply
        finally:
            # An error in it would hold this frame, and so itself and the whole body, until garbage is looked for.
            del reply

    def _process_queue(self) -> None:
        """Make documents of all that arrived in one turn of the loop: together they cost half as much."""
        self._refresh_context()
        lines: list[bytes] = []
        kept: list[_CompletedRequest] = []
        unfinished: list[_RequestInProgress] = []
        size = taken = 0
        until = perf_counter() + _SLICE_MAX_SECONDS
        for one in self._queue:
            taken += 1
            arrival = one.queued if isinstance(one, _RequestInProgress) else one
            size += len(arrival.request.body)
            try:
                begun = one if isinstance(one, _RequestInProgress) else self._start_request(arrival)
                if self._build_documents(begun, until):
                    lines += begun.lines
                    kept.append(
                        _CompletedRequest(arrival, begun.parsed, IngestResult(len(begun.lines), begun.rejected))
                    )
                else:
                    unfinished.append(begun)
            except Exception as error:  # noqa: BLE001  # whatever it is belongs to this request alone
                _fail(arrival.reply, error)
            if size > _SLICE_MAX_BYTES or perf_counter() > until:
                break
        del self._queue[:taken]
        self._queue += unfinished
        if self._queue:
            self._loop.call_soon(self._process_queue)
        if not lines:
            self._send_replies(kept, None)
            return
        count = len(lines)
        lines.append(b"")
        try:
            self._spool.put(b"\n".join(lines), count).add_done_callback(partial(self._send_replies, kept))
        except SpoolFull as error:
            for arrival, _, _ in kept:
                _fail(arrival.reply, error)

    def _start_request(self, queued: _QueuedRequest) -> _RequestInProgress:
        dialect, request, _ = queued
        readings = dialect.parse(request)
        door = self._import_context if request.is_trusted else self._context
        signalled = self._config.honor_privacy_signals and _opts_out_of_tracking(request.headers)
        if signalled:
            door = replace(door, salts=NO_SALTS)
        identities = request.event_ids or self._event_ids
        return _RequestInProgress(queued, readings, enumerate(readings.events), door, signalled, identities, [], {})

    def _build_documents(self, progress: _RequestInProgress, deadline: float) -> bool:
        """Make documents of a request's events; returns whether that are all, or time is over."""
        _, _, events, door, signalled, identities, lines, rejected = progress
        limit = self._config.event_max_bytes
        for index, reading in events:
            identity = next(identities)
            try:
                if type(reading) is not Event:
                    raise reading  # type: ignore[misc]  # what is no event is an error
                line = build_document(_without_visitor(reading) if signalled else reading, door, identity)
                if len(line) > limit:
                    raise PayloadTooLarge(
                        f"the event is over event_max_bytes ({limit}): send less, or raise that setting"
                    )
                lines.append(line)
            except (Malformed, PayloadTooLarge) as error:
                _drop_traceback(error)
                rejected[index] = error
            if index % _DEADLINE_CHECK_EVENTS == _DEADLINE_CHECK_EVENTS - 1 and perf_counter() > deadline:
                return False
        return True

    def _send_replies(self, completed: list["_CompletedRequest"], commit: "asyncio.Future[None] | None") -> None:
        error = commit.exception() if commit is not None else None
        for (dialect, request, reply), readings, outcome in completed:
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
                        self._telemetry.count_rejection(one)

    def _refresh_context(self) -> None:
        at = int(self._clock() * 1000)
        if at != self._context_ms:
            now = datetime.fromtimestamp(at / 1000, UTC)
            max_age = self._config.max_age
            self._context_ms = at
            self._import_context = DocumentContext(
                received_at=format_timestamp(now),
                min_timestamp=None,
                max_timestamp=format_timestamp(now + _MAX_CLOCK_SKEW),
                own_hosts=self._config.own_hosts,
                anonymize_addresses=self._config.anonymize_addresses,
                enrichment=self._config.enrichment,
                salts=self._salts(),
            )
            self._context = (
                self._import_context
                if max_age is None
                else replace(self._import_context, min_timestamp=format_timestamp(now - max_age))
            )


def _opts_out_of_tracking(headers: Mapping[str, str]) -> bool:
    """Tell whether a request's sender asks not to be followed."""
    return headers.get(_GPC) == "1" or headers.get(_DNT) == "1"


def _without_visitor(event: Event) -> Event:
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
            _drop_traceback(error)
        reply.set_exception(error)


def _drop_traceback(error: MetronomeError) -> None:
    """Free an error of the frames that it came through: they hold it in turn, and the body with it."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
