"""The ingest pipeline: parse, enrich and durably spool events."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import Final

from metronome.enrich.enrichment import NO_SALTS
from metronome.enrich.recent_visitors import RecentVisitors
from metronome.errors import Malformed, MetronomeError, PayloadTooLarge, SpoolFull
from metronome.event import DocumentContext, Event, IngestConfig, build_document, generate_event_ids
from metronome.partial_requests import PartialRequests
from metronome.protocol import IngestResult, ParsedEvent, Protocol, Reply, Request
from metronome.spool import SpoolWriter
from metronome.telemetry import Telemetry
from metronome.times import format_timestamp, start_of_first_kept_month

_MAX_CLOCK_SKEW = timedelta(days=1)
_GPC: Final = "Sec-GPC"
"""Global Privacy Control: the user objects to the sale and sharing of personal data."""
_DNT: Final = "DNT"
"""Do Not Track, the predecessor of Global Privacy Control."""
EVENT_MAX_FIELDS = 10_000
"""Maximum number of fields of an event: converting each takes a microsecond."""
_SLICE_MAX_SECONDS = 0.02
"""How long events are converted before the event loop runs other tasks."""
_DEADLINE_CHECK_EVENTS = 16
_LARGE_EVENT_FIELDS = 100
"""After an event with more fields, the deadline is checked in any case."""
_THREAD_MIN_BYTES = 256 * 1024
"""The deadline is checked after this many events: a hostile event can take a hundred times longer than usual."""
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True)
class _Batch:
    """The events of one `Intake.store` call; converting them may take several time slices."""

    events: Iterator[tuple[int, ParsedEvent]]
    is_trusted: bool
    event_ids: Iterator[str]
    opts_out_of_tracking: bool
    result: "asyncio.Future[IngestResult]"
    context: DocumentContext | None = None
    lines: list[bytes] = field(default_factory=list)
    rejected: dict[int, Malformed | PayloadTooLarge] = field(default_factory=dict)


class Intake:
    """Converts events to documents and writes them to the spool.

    Args:
        spool: the spool.
        config: what is accepted, and how it is stored.
        clock: returns seconds since 1970.
        telemetry: counts rejected events.
        salts: returns the known salts of visitor IDs by UTC day.

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
        self._queue: list[_Batch] = []
        self._event_ids = generate_event_ids()
        self._partial_requests = PartialRequests()
        self._recent_visitors = RecentVisitors()
        self._context_ms = -1
        self._refresh_context()

    async def ingest(self, protocol: Protocol, request: Request) -> Reply:
        """Parse a request, store its events and return the protocol's reply.

        Args:
            protocol: parses the request and builds the reply.
            request: has the body, and ``event_ids`` for events without an ``event_id`` of their own.

        Raises:
            SpoolFull: no event was stored.
            RequestError: raised by the protocol.

        """
        try:
            if len(request.body) > _THREAD_MIN_BYTES:
                # Parsing takes up to a tenth of a second.
                parsed = await asyncio.to_thread(protocol.parse, request)
            else:
                parsed = protocol.parse(request)
            result = await self.store(
                parsed.events, is_trusted=request.is_trusted, event_ids=request.event_ids, headers=request.headers
            )
            reply = protocol.reply(request, parsed, result)
        except MetronomeError as error:
            # Its traceback leads to frames that refer to it and to the body: a cycle that would keep both in memory.
            _drop_traceback(error)
            raise
        # Only after the reply: an error that the protocol raises is counted by the caller.
        for rejection in result.rejected.values():
            self._telemetry.count_rejection(rejection)
        return reply

    async def store(
        self,
        events: Iterable[ParsedEvent],
        *,
        is_trusted: bool = False,
        event_ids: Iterator[str] | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> IngestResult:
        """Enrich events and write them to the spool; an event that is rejected does not affect the others.

        Args:
            events: read once, in order.
            is_trusted: whether the sender may set any time and IP address.
            event_ids: one ID for each event, for those that have none of their own.
            headers: of the HTTP request, which may ask not to be tracked.

        Returns:
            The number of accepted events and the errors of the others, once the accepted ones are on disk. The caller
            counts the errors in the telemetry.

        Raises:
            SpoolFull: no event was stored.

        """
        result: asyncio.Future[IngestResult] = self._loop.create_future()
        opts_out = self._config.honor_privacy_signals and _opts_out_of_tracking(headers)
        self._queue.append(_Batch(enumerate(events), is_trusted, event_ids or self._event_ids, opts_out, result))
        if len(self._queue) == 1:
            self._loop.call_soon(self._process_queue)
        try:
            return await result
        finally:
            # An error in it refers to this frame: a cycle that would keep the events in memory.
            del result

    def _process_queue(self) -> None:
        """Convert all events that arrived in one turn of the loop; one write for all of them halves the cost."""
        self._refresh_context()
        completed: list[_Batch] = []
        unfinished: list[_Batch] = []
        processed = 0
        deadline = perf_counter() + _SLICE_MAX_SECONDS
        for batch in self._queue:
            processed += 1
            try:
                (completed if self._build_documents(batch, deadline) else unfinished).append(batch)
            except Exception as error:  # noqa: BLE001  # a failure of any kind concerns this batch alone
                _fail(batch.result, error)
            if perf_counter() > deadline:
                break
        del self._queue[:processed]
        self._queue += unfinished
        if self._queue:
            self._loop.call_soon(self._process_queue)
        lines = [line for batch in completed for line in batch.lines]
        if not lines:
            self._complete(completed, None)
            return
        count = len(lines)
        lines.append(b"")
        try:
            self._spool.put(b"\n".join(lines), count).add_done_callback(partial(self._complete, completed))
        except SpoolFull as error:
            for batch in completed:
                _fail(batch.result, error)

    def _build_documents(self, batch: _Batch, deadline: float) -> bool:
        """Convert the batch's events; return False if the time slice ran out."""
        if batch.context is None:
            batch.context = self._import_context if batch.is_trusted else self._context
            if batch.opts_out_of_tracking:
                batch.context = replace(batch.context, salts=NO_SALTS)
        context, event_ids, lines = batch.context, batch.event_ids, batch.lines
        opts_out = batch.opts_out_of_tracking
        limit = self._config.event_max_bytes
        for index, event in batch.events:
            event_id = next(event_ids)
            try:
                if type(event) is not Event:
                    raise event  # type: ignore[misc]  # anything but an event is an error
                if len(event.fields) > EVENT_MAX_FIELDS:
                    raise PayloadTooLarge(f"the event has over {EVENT_MAX_FIELDS:,} fields: send fewer")
                line = build_document(_without_visitor(event) if opts_out else event, context, event_id)
                if len(line) > limit:
                    raise PayloadTooLarge(
                        f"the event has {len(line)} bytes and is over event_max_bytes ({limit}): send a smaller event, "
                        "or raise METRONOME_EVENT_MAX_BYTES"
                    )
                lines.append(line)
            except (Malformed, PayloadTooLarge) as error:
                _drop_traceback(error)
                batch.rejected[index] = error
            is_large = type(event) is not Event or len(event.fields) > _LARGE_EVENT_FIELDS
            is_due = is_large or index % _DEADLINE_CHECK_EVENTS == _DEADLINE_CHECK_EVENTS - 1
            if is_due and perf_counter() > deadline:
                return False
        return True

    def _complete(self, completed: list[_Batch], commit: "asyncio.Future[None] | None") -> None:
        error = commit.exception() if commit is not None else None
        for batch in completed:
            if error is not None:
                _fail(batch.result, error)
            elif not batch.result.done():
                batch.result.set_result(IngestResult(len(batch.lines), batch.rejected))

    def _refresh_context(self) -> None:
        now_ms = int(self._clock() * 1000)
        if now_ms != self._context_ms:
            now = datetime.fromtimestamp(now_ms / 1000, UTC)
            max_age = self._config.max_age
            self._context_ms = now_ms
            self._import_context = DocumentContext(
                received_at=format_timestamp(now),
                min_timestamp=None,
                max_timestamp=format_timestamp(now + _MAX_CLOCK_SKEW),
                config=self._config,
                salts=self._salts(),
                partial_requests=self._partial_requests,
                recent_visitors=self._recent_visitors,
                kept_from=self._kept_from(now),
            )
            self._context = (
                self._import_context
                if max_age is None
                else replace(self._import_context, min_timestamp=format_timestamp(now - max_age))
            )

    def _kept_from(self, now: datetime) -> str | None:
        months = self._config.keep_months
        return None if months is None else format_timestamp(start_of_first_kept_month(now, months))


def _opts_out_of_tracking(headers: Mapping[str, str]) -> bool:
    """Return whether a request's headers ask not to be tracked."""
    return headers.get(_GPC) == "1" or headers.get(_DNT) == "1"


def _without_visitor(event: Event) -> Event:
    """Remove from an event what identifies its visitor."""
    visitor = event.fields.get("visitor")
    if visitor is None:
        return event
    identifying = {"visitor", "session"} if event.fields.get("session") == visitor else {"visitor"}
    # Without the original, which contains the visitor as well.
    return Event({name: value for name, value in event.fields.items() if name not in identifying})


def _fail(result: "asyncio.Future[IngestResult]", error: BaseException) -> None:
    if not result.done():
        if isinstance(error, MetronomeError):
            _drop_traceback(error)
        result.set_exception(error)


def _drop_traceback(error: MetronomeError) -> None:
    """Drop an error's references to frames, which refer to the error and the body: a cycle keeps both in memory."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
