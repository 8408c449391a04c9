"""The routes of COUNTER usage: an item's, and the reports of SUSHI, which harvesters of usage statistics fetch.

Table 11.1 of the Code of Practice (see `metronome.reports.counter`) has SUSHI's addresses, which begin where a service
says: here at ``/counter``. A harvester may send its key as ``api_key``, where SUSHI has it. Since all clicks are looked
at one by one, few questions are worked on at once.

The route that answers badges.

The route that puts documents back into the store: ``POST /documents``.

The routes for questions of somebody's own: ``GET`` and ``POST /query``.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, NamedTuple

import orjson
from aiohttp import hdrs, web

from metronome.errors import Malformed, MetronomeError, NotFound, PayloadTooLarge, QueryTooExpensive, StoreUnavailable
from metronome.event import validate_document
from metronome.reports.badges import PARAMETERS, parse_badge_style, render_badge
from metronome.reports.counter.dataset_report import (
    RELEASE,
    REPORT_ID,
    REPORT_NAME,
    Platform,
    dataset_report,
    parse_dataset_report_request,
)
from metronome.reports.counter.tally import PARAMETERS as COUNTER_PARAMETERS
from metronome.reports.counter.tally import usage_report
from metronome.reports.parameters import parse_report_parameters
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.parse import parse_query_json, parse_query_string
from metronome.reports.query.request import RawQuery, parse_query
from metronome.reports.query.run import format_result_csv, format_result_json, format_result_ndjson, run_query
from metronome.scopes import Scope
from metronome.stores.base import DocumentBatch, Store, WriteResult
from metronome.stores.query import QueryResult
from metronome.times import format_timestamp
from metronome.web.bodies import read_body
from metronome.web.handlers import Handler, QueryContext, parse_item_id, report_response
from metronome.web.limits import ConcurrencyLimiter
from metronome.web.negotiation import negotiate_media_type
from metronome.web.problems import ALLOW_ANY_ORIGIN, problem_response

_BADGE_PREFIX: Final = "/badge/"
_BADGE_SUFFIX: Final = ".svg"
_BADGE_HEADERS: Final = {
    # The proxies through which code hosts show pictures ask again as often as this says.
    "Cache-Control": "max-age=300",
    # A picture that is opened as a page by itself does nothing either.
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}


def badge_routes(context: QueryContext) -> list[web.RouteDef]:
    """List the route that answers ``GET /badge/{id}.svg``."""
    took = context.telemetry.report_seconds.labels("badge")

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            await context.authorize(request, Scope.TOCK)
            with took.time():
                item = parse_item_id(request.rel_url.raw_path, _BADGE_PREFIX, _BADGE_SUFFIX)
                asked = parse_report_parameters(request.query, context.now(), PARAMETERS)
                picture = await render_badge(context.store, item, asked, parse_badge_style(request.query))
        except MetronomeError as error:
            context.telemetry.count_rejection(error)
            return problem_response(error)
        answer = report_response(request, picture.encode(), "image/svg+xml", "utf-8")
        answer.headers.update(_BADGE_HEADERS)
        return answer

    # Not `.+`: an id may hold line feeds.
    return [web.get(r"/badge/{id:[\s\S]+}.svg", handle)]


_SUSHI_STATUS: Final = {"serviceactive": True, "description": "COUNTER research data usage reports of a Metronome"}
_SUSHI_REPORTS: Final = [
    {
        "report-name": REPORT_NAME,
        "report-id": REPORT_ID,
        "release": RELEASE,
        "report-description": "usage by month and dataset",
        "path": f"/reports/{REPORT_ID}",
    }
]
_COUNTER_PREFIX: Final = "/counter/"
_GZIP: Final = "gzip"
_ITEM_LIMITS: Final = (2, 64)
_SITE_LIMITS: Final = (1, 4)
"""How many are worked on at once, and how many more may wait."""
_WAIT_TIMEOUT_SECONDS: Final = 8.0
"""Together with what counting may take, less than the minute that a worker waits."""


def counter_routes(context: QueryContext, platform: Platform) -> list[web.RouteDef]:
    """List the routes, and beside SUSHI's that of an item's usage.

    Args:
        context: what they need.
        platform: what reports say of every dataset.

    """
    of_items = ConcurrencyLimiter(*_ITEM_LIMITS, _WAIT_TIMEOUT_SECONDS)
    of_all = ConcurrencyLimiter(*_SITE_LIMITS, _WAIT_TIMEOUT_SECONDS)

    async def get_usage(request: web.Request) -> bytes:
        item = parse_item_id(request.rel_url.raw_path, _COUNTER_PREFIX)
        asked = parse_report_parameters(request.query, context.now(), COUNTER_PARAMETERS)
        async with of_items.acquire():
            return orjson.dumps(await usage_report(context.store, item, asked))

    async def get_report(request: web.Request) -> bytes:
        name = request.match_info["report"]
        if name.lower() != REPORT_ID:
            raise NotFound(f"there is no report {name[:60]!r}: ask for {REPORT_ID}")
        asked = parse_dataset_report_request(request.query, context.now())
        async with of_all.acquire() if asked.dataset is None else of_items.acquire():
            return await dataset_report(context.store, asked, platform)

    async def get_status(_: web.Request) -> bytes:
        return orjson.dumps(_SUSHI_STATUS)

    async def get_reports(_: web.Request) -> bytes:
        return orjson.dumps(_SUSHI_REPORTS)

    return [
        # Not `.+`: an id may hold line feeds.
        web.get(rf"{_COUNTER_PREFIX}{{id:[\s\S]+}}.json", _build_counter_handler("counter", get_usage, context)),
        web.get(f"{_COUNTER_PREFIX}status", _build_counter_handler("counter_status", get_status, context)),
        web.get(f"{_COUNTER_PREFIX}reports", _build_counter_handler("counter_reports", get_reports, context)),
        web.get(
            f"{_COUNTER_PREFIX}reports/{{report}}",
            _build_counter_handler("counter_report", get_report, context, _report_scope),
        ),
    ]


def _item_scope(_: web.Request) -> Scope:
    return Scope.TOCK


def _report_scope(request: web.Request) -> Scope:
    return Scope.TOCK if request.query.get("dataset_id") else Scope.QUERY


def _build_counter_handler(
    name: str,
    run_report: Callable[[web.Request], Awaitable[bytes]],
    context: QueryContext,
    get_scope: Callable[[web.Request], Scope] = _item_scope,
) -> Handler:
    took = context.telemetry.report_seconds.labels(name)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            await context.authorize(request, get_scope(request), request.query.get("api_key", ""))
            with took.time():
                body = await run_report(request)
        except MetronomeError as error:
            context.telemetry.count_rejection(error)
            return problem_response(error)
        return _compress_response(request, report_response(request, body, "application/json"))

    return handle


def _compress_response(request: web.Request, response: web.Response) -> web.Response:
    """Have an answer packed for those who take that; its tag is then one of the same answer, not of the same bytes."""
    response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    if _accepts_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
        response.headers[hdrs.ETAG] = f"W/{response.headers[hdrs.ETAG]}"
        if response.body is not None:
            response.enable_compression(web.ContentCoding.gzip)
    return response


def _accepts_gzip(accepted: str) -> bool:
    for one in accepted.lower().split(","):
        coding, _, quality = one.partition(";")
        if coding.strip() == _GZIP:
            return quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


DOCUMENTS_PATH: Final = "/documents"
_MAX_CLOCK_SKEW: Final = timedelta(days=1)
_WRITE_ATTEMPTS: Final = 5
_RETRY_SECONDS: Final = 0.5


class _ValidatedLines(NamedTuple):
    """The lines of a body: what is a document, where each of them stood, and why the others are none."""

    documents: list[bytes]
    line_indexes: list[int]
    rejected: dict[int, str]


class _RestoreResult(NamedTuple):
    duplicates: int
    rejected: dict[bytes, str]


def document_routes(context: QueryContext, max_bytes: int, max_events: int) -> list[web.RouteDef]:
    """List the route, which answers for what is in the store, and not in a spool: documents are archived already.

    Args:
        context: what it needs.
        max_bytes: how large a request's body may be.
        max_events: how many documents it may hold.

    """
    restorer = _DocumentRestorer(context)

    async def post_documents(request: web.Request) -> web.StreamResponse:
        try:
            await context.authorize(request, Scope.IMPORT)
            body = await read_body(request, max_bytes)
            checked = await asyncio.to_thread(
                _validate_lines, body, format_timestamp(context.now() + _MAX_CLOCK_SKEW), max_events
            )
            known, refused = await restorer.restore(checked.documents)
        except MetronomeError as error:
            context.telemetry.count_rejection(error)
            return problem_response(error)
        rejected = checked.rejected | {
            place: refused[document]
            for place, document in zip(checked.line_indexes, checked.documents, strict=True)
            if document in refused
        }
        told = {
            "accepted": len(checked.documents) + len(checked.rejected) - len(rejected),
            "known": known,
            "rejected": [{"index": index, "error": rejected[index]} for index in sorted(rejected)],
        }
        return web.Response(body=orjson.dumps(told), content_type="application/json", headers=ALLOW_ANY_ORIGIN)

    return [web.post(DOCUMENTS_PATH, post_documents)]


class _DocumentRestorer:
    """Writes documents into the store, and is done once it has them."""

    def __init__(self, answering: QueryContext) -> None:
        self._store: Store = answering.store
        self._telemetry = answering.telemetry
        self._is_set_up = False

    async def restore(self, documents: list[bytes]) -> _RestoreResult:
        """Write documents.

        Raises:
            StoreUnavailable: it does not answer, or is busy for long.
            StoreAccessDenied: it lets nobody write.

        """
        if not self._is_set_up:
            await self._store.setup()
            self._is_set_up = True
        left: DocumentBatch | None = DocumentBatch.from_documents(documents) if documents else None
        known, refused = 0, dict[bytes, str]()
        for _ in range(_WRITE_ATTEMPTS):
            if left is None:
                break
            verdicts = await self._store.write(left)
            self._count_writes(verdicts)
            known += verdicts.duplicates
            refused |= {refusal.document: refusal.reason for refusal in verdicts.rejected}
            left = verdicts.retry
            if left is not None:
                await asyncio.sleep(_RETRY_SECONDS)
        if left is not None:
            raise StoreUnavailable(f"the store is too busy for {left.count} of {len(documents)} documents")
        return _RestoreResult(known, refused)

    def _count_writes(self, verdicts: WriteResult) -> None:
        self._telemetry.shipped.inc(verdicts.stored)
        self._telemetry.duplicates.inc(verdicts.duplicates)


def _validate_lines(body: bytes, max_timestamp: str, max_events: int) -> _ValidatedLines:
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) > max_events:
        raise PayloadTooLarge(f"the body holds over batch_max_events ({max_events}) documents: send fewer at once")
    documents, places, rejected = [], [], {}
    for index, line in enumerate(lines):
        try:
            documents.append(validate_document(line, max_timestamp))
            places.append(index)
        except Malformed as error:
            rejected[index] = str(error)
    return _ValidatedLines(documents, places, rejected)


QUERY_PATH: Final = "/query"
TOTAL_HEADER: Final = "Metronome-Total"
"""The header that says how many rows there are without limit and offset, since not every form has a place for it."""
EXACT_HEADER: Final = "Metronome-Exact"
"""The header that says whether the answer is exact, likewise."""

RESULT_MAX_BYTES: Final = 32 * 2**20
"""How large an answer may be: it stays in memory until the slowest of clients has taken it."""

_THREAD_MIN_ROWS: Final = 1000
"""Fewer rows are written sooner than a thread takes them over."""


class _ResultFormat(NamedTuple):
    encode: Callable[[QueryResult], bytes]
    charset: str | None = None


_RESULT_FORMATS: Final = {
    "application/json": _ResultFormat(format_result_json),
    "text/csv": _ResultFormat(format_result_csv, "utf-8"),
    "application/x-ndjson": _ResultFormat(format_result_ndjson),
}


def query_routes(context: QueryContext, max_bytes: int) -> list[web.RouteDef]:
    """List the routes.

    Args:
        context: what they need.
        max_bytes: how large a request's body may be.

    """

    async def read_get(request: web.Request) -> RawQuery:
        return parse_query_string(request.rel_url.raw_query_string)

    async def read_post(request: web.Request) -> RawQuery:
        return parse_query_json(await read_body(request, max_bytes))

    names = FieldChecker(context.store)
    return [
        web.get(QUERY_PATH, _build_query_handler(read_get, names, context)),
        web.post(QUERY_PATH, _build_query_handler(read_post, names, context)),
    ]


def _build_query_handler(
    read: Callable[[web.Request], Awaitable[RawQuery]], names: FieldChecker, answering: QueryContext
) -> Handler:
    took = answering.telemetry.report_seconds.labels("query")

    async def handle(request: web.Request) -> web.StreamResponse:
        media = negotiate_media_type(request.headers.getall(hdrs.ACCEPT, ()), tuple(_RESULT_FORMATS))
        form = _RESULT_FORMATS[media]
        try:
            await answering.authorize(request, Scope.QUERY)
            now = answering.now()
            asked = parse_query(await read(request), now)
            async with answering.acquire_slot(request):
                with took.time():
                    answer = await run_query(answering.store, names, asked, now)
                    body = await _encode_result(form, answer)
        except MetronomeError as error:
            answering.telemetry.count_rejection(error)
            return problem_response(error)
        response = report_response(request, body, media, form.charset)
        response.headers.update(_result_headers(answer))
        return response

    return handle


async def _encode_result(form: _ResultFormat, answer: QueryResult) -> bytes:
    if len(answer.rows) < _THREAD_MIN_ROWS:
        body = form.encode(answer)
    else:
        body = await asyncio.to_thread(form.encode, answer)
    if len(body) > RESULT_MAX_BYTES:
        raise QueryTooExpensive(
            f"the answer is over {RESULT_MAX_BYTES // 2**20} MiB: ask for fewer rows with limit and offset"
        )
    return body


def _result_headers(answer: QueryResult) -> dict[str, str]:
    return {
        TOTAL_HEADER: str(answer.total),
        EXACT_HEADER: "true" if answer.exact else "false",
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: f"ETag, {TOTAL_HEADER}, {EXACT_HEADER}",
        hdrs.VARY: hdrs.ACCEPT,
    }
