"""The routes that return reports: Metronome's own, queries, badges and COUNTER; and those of stored documents."""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from tempfile import TemporaryFile
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import hdrs, web
from multidict import MultiMapping

from metronome.errors import InvalidQuery, Malformed, NotFound, PayloadTooLarge, QueryTooExpensive, StoreUnavailable
from metronome.event import too_old_message, validate_document
from metronome.reports import badges, dwell_time, errors, flow, funnel, items, recommendations, stored_fields, tock
from metronome.reports.counter import dataset_report as dsr
from metronome.reports.counter import tally as usage
from metronome.reports.documents import parse_document_request, read_document_page
from metronome.reports.parameters import ReportParameters, parse_report_parameters
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.parse import parse_query_json, parse_query_string
from metronome.reports.query.request import ParsedQuery, RawQuery, parse_query
from metronome.reports.query.run import (
    TABLE_MAX_ROWS,
    find_partial_rows,
    format_result_csv,
    format_result_json,
    format_result_ndjson,
    query_pages,
    run_query,
)
from metronome.reports.tables import ENCODERS, MEDIA_TYPES, build_report_table
from metronome.scopes import Scope
from metronome.server_client import percent_encode
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.query import QueryResult
from metronome.times import format_timestamp, start_of_first_kept_month
from metronome.web.bodies import read_body
from metronome.web.handlers import (
    NamedItems,
    QueryContext,
    all_items,
    handle_errors,
    parse_item_id,
    report_handler,
)
from metronome.web.limits import COUNTER_ITEM_LIMITS, COUNTER_SITE_LIMITS, ConcurrencyLimiter
from metronome.web.negotiation import Content, cached_response, negotiate_media_type
from metronome.web.problems import ALLOW_ANY_ORIGIN

# Item IDs in paths match `[\s\S]+`, not `.+`: an ID may hold line feeds.


JSON_SUFFIX: Final = "json"
"""The suffix of the paths of reports as JSON; those of `MEDIA_TYPES` are of the same reports as tables."""
_SUFFIXES: Final = (JSON_SUFFIX, *MEDIA_TYPES)
_NO_LIMIT: Final = 0
_STAMP_SLICE: Final = slice(len('{"@timestamp":"'), len('{"@timestamp":"2015-01-22T09:30:00.000Z'))
PARTIAL_HEADER: Final = "Metronome-Partial"
"""Response header of tables with the time units that are incomplete."""


def _item_in_path(prefix: str, suffix: str = ".json") -> NamedItems:
    return lambda request: (parse_item_id(request, prefix, suffix),)


class Report(NamedTuple):
    """A report about one item at ``/NAME/{id}.json``, about all items at ``/NAME.json``, or both; also as tables.

    Attributes:
        name: the name in paths and metrics.
        run: returns the report about an item, or about all items if it is None.
        parameters: the parameters of the report about one item; None if there is no such report.
        site_parameters: the parameters of the report about all items; None if there is no such report.
        scope: what a request needs.
        is_cheap: returns whether the report may run beside expensive queries, by its parameters.

    """

    name: str
    run: Callable[[Store, Any, ReportParameters], Awaitable[dict[str, Any]]]
    parameters: frozenset[str] | None
    site_parameters: frozenset[str] | None
    scope: Scope = Scope.TOCK
    is_cheap: Callable[[ReportParameters], bool] = lambda _: False


def list_reports(context: QueryContext, min_visitors: int) -> tuple[Report, ...]:
    """Return all reports about items.

    Args:
        context: has the clock.
        min_visitors: minimum number of shared visitors a recommendation needs.

    """

    async def items_report(store: Store, _: None, parameters: ReportParameters) -> dict[str, Any]:
        return await items.items_report(store, parameters, context.now())

    recommend = partial(recommendations.recommendations_report, min_visitors=min_visitors)
    return (
        Report("tock", tock.tock_report, tock.PARAMETERS, None, is_cheap=tock.is_cheap),
        Report("items", items_report, None, items.PARAMETERS, is_cheap=items.is_cheap),
        Report("flow", flow.flow_report, flow.PARAMETERS, flow.ALL_ITEMS_PARAMETERS),
        Report("time", dwell_time.time_report, dwell_time.PARAMETERS, dwell_time.PARAMETERS),
        # Error messages tell more than counts.
        Report("errors", errors.errors_report, errors.PARAMETERS, errors.PARAMETERS, Scope.QUERY),
        Report("recommendations", recommend, recommendations.PARAMETERS, recommendations.PARAMETERS),
    )


class SelectionReport(NamedTuple):
    """A report about what its query string selects, at ``/NAME.json``; also as tables.

    Attributes:
        name: the name in paths and metrics.
        run: returns the report; its arguments are the store, the query string, and the common parameters in it.
        parameters: the parameters in the query string.
        scope: what a request needs.
        named_items: returns the items that the report is about.
        json_suffix: what follows the name in the path of the report as JSON.

    """

    name: str
    run: Callable[[Store, MultiMapping[str], ReportParameters], Awaitable[dict[str, Any]]]
    parameters: frozenset[str]
    scope: Scope
    named_items: NamedItems = all_items
    json_suffix: str = f".{JSON_SUFFIX}"


def list_selection_reports() -> tuple[SelectionReport, ...]:
    """Return all reports about what their query string selects."""

    async def several_tocks(store: Store, query: MultiMapping[str], parameters: ReportParameters) -> dict[str, Any]:
        prefix = query.getall("prefix", [""])
        if len(prefix) > 1:
            raise InvalidQuery("prefix is repeated: send a request for each")
        return await tock.several_tocks_report(store, tuple(query.getall("id", ())), prefix[0], parameters)

    async def run_funnel(store: Store, query: MultiMapping[str], parameters: ReportParameters) -> dict[str, Any]:
        request = funnel.parse_funnel(query.getall("step", []), query.getall("within", []))
        return await funnel.funnel_report(store, request, parameters)

    async def list_fields(store: Store, _: MultiMapping[str], parameters: ReportParameters) -> dict[str, Any]:
        return await stored_fields.fields_report(store, parameters)

    return (
        SelectionReport("tock", several_tocks, tock.SEVERAL_PARAMETERS, Scope.TOCK, _items_in_query),
        # Steps and examples tell more than counts.
        SelectionReport("funnel", run_funnel, funnel.PARAMETERS, Scope.QUERY),
        SelectionReport("fields", list_fields, stored_fields.PARAMETERS, Scope.QUERY, json_suffix=""),
    )


def _items_in_query(request: web.Request) -> tuple[str, ...]:
    """Return the items that a query string names; none if it has a prefix."""
    return () if request.query.get("prefix") else tuple(request.query.getall("id", ()))


def report_routes(context: QueryContext, min_visitors: int = recommendations.MIN_VISITORS) -> list[web.RouteDef]:
    """Return the routes of the reports about items, and about what is selected."""
    return [
        *(route for report in list_reports(context, min_visitors) for route in _routes_of_report(report, context)),
        *(route for selection in list_selection_reports() for route in _routes_of_selection(selection, context)),
    ]


def _routes_of_selection(report: SelectionReport, context: QueryContext) -> list[web.RouteDef]:
    authorize = context.require(report.scope)
    routes = []
    for suffix in _SUFFIXES:
        path = f"/{report.name}{report.json_suffix if suffix == JSON_SUFFIX else f'.{suffix}'}"
        run = partial(_run_selection, report, context, suffix)
        handler = report_handler(context, report.name, authorize, run, named_items=report.named_items)
        routes.append(web.get(path, handler))
    return routes


async def _run_selection(report: SelectionReport, context: QueryContext, suffix: str, request: web.Request) -> Content:
    limits = {} if suffix == JSON_SUFFIX else {"default_limit": _NO_LIMIT}
    parameters = parse_report_parameters(request.query, context.now(), report.parameters, **limits)
    async with context.slot(request):
        answer = await report.run(context.store, request.query, parameters)
        return await _encode_report(report.name, answer, suffix)


def _routes_of_report(report: Report, context: QueryContext) -> list[web.RouteDef]:
    routes = []
    for path, allowed in (
        (rf"/{report.name}/{{id:[\s\S]+}}", report.parameters),
        (f"/{report.name}", report.site_parameters),
    ):
        if allowed is None:
            continue
        authorize, has_item = context.require(report.scope), "{" in path
        for suffix in _SUFFIXES:
            run = partial(_run_report, report, allowed, context, has_item=has_item, suffix=suffix)
            named_items = _item_in_path(f"/{report.name}/", f".{suffix}") if has_item else all_items
            handler = report_handler(context, report.name, authorize, run, named_items=named_items)
            routes.append(web.get(f"{path}.{suffix}", handler))
    return routes


async def _run_report(
    report: Report, allowed: frozenset[str], context: QueryContext, request: web.Request, *, has_item: bool, suffix: str
) -> Content:
    item = parse_item_id(request, f"/{report.name}/", f".{suffix}") if has_item else None
    # A table is whole unless the client limits it: it has no place to say what is missing.
    limits = {} if suffix == JSON_SUFFIX else {"default_limit": _NO_LIMIT}
    parameters = parse_report_parameters(request.query, context.now(), allowed, **limits)
    async with context.slot(request, is_cheap=report.is_cheap(parameters)):
        answer = await report.run(context.store, item, parameters)
        return await _encode_report(report.name, answer, suffix)


async def _encode_report(name: str, answer: dict[str, Any], suffix: str) -> Content:
    if suffix == JSON_SUFFIX:
        is_small = sum(len(part) for part in answer.values() if isinstance(part, list | dict)) < _THREAD_MIN_ROWS
        return Content(orjson.dumps(answer) if is_small else await asyncio.to_thread(orjson.dumps, answer))

    def encode() -> bytes:
        columns, rows = build_report_table(name, answer)
        return ENCODERS[suffix](columns, rows)

    body = await asyncio.to_thread(encode)
    return Content(
        body, MEDIA_TYPES[suffix], "utf-8", _table_headers(answer.get("partial", ()), answer.get("exact", True))
    )


def _table_headers(partial_units: Iterable[str], exact: bool) -> dict[str, str]:  # noqa: FBT001  # a result's value
    """Return the headers of what a table has no place for."""
    headers = {EXACT_HEADER: "true" if exact else "false"}
    if partial_text := ", ".join(partial_units):
        headers[PARTIAL_HEADER] = partial_text
    return {**headers, hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: ", ".join(("ETag", *headers))}


_BADGE_HEADERS: Final = {
    # The image proxies of code hosts refetch a badge as often as this says.
    "Cache-Control": "max-age=300",
    # An SVG opened as a page must not run scripts either.
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}


def badge_routes(context: QueryContext) -> list[web.RouteDef]:
    """Return the route ``GET /badge/{id}.svg``."""

    async def get_badge(request: web.Request) -> Content:
        item = parse_item_id(request, "/badge/", ".svg")
        parameters = parse_report_parameters(request.query, context.now(), badges.PARAMETERS)
        style = badges.parse_badge_style(request.query)
        async with context.slot(request, is_cheap=True):
            badge = await badges.render_badge(context.store, item, parameters, style)
        return Content(badge.encode(), "image/svg+xml", "utf-8", _BADGE_HEADERS)

    named_items = _item_in_path("/badge/", ".svg")
    handler = report_handler(context, "badge", context.require(Scope.TOCK), get_badge, named_items=named_items)
    return [web.get(r"/badge/{id:[\s\S]+}.svg", handler)]


_SUSHI_STATUS: Final = {"serviceactive": True, "description": "COUNTER research data usage reports of a Metronome"}
_SUSHI_REPORTS: Final = [
    {
        "report-name": dsr.REPORT_NAME,
        "report-id": dsr.REPORT_ID,
        "release": dsr.RELEASE,
        "report-description": "usage by month and dataset",
        "path": f"/reports/{dsr.REPORT_ID}",
    }
]


def counter_routes(context: QueryContext, platform: dsr.Platform) -> list[web.RouteDef]:
    """Return the routes of an item's COUNTER usage, and of SUSHI.

    Table 11.1 of the Code of Practice (see `metronome.reports.counter`) lists the paths of SUSHI, here below
    ``/counter``. A harvester may send its key as ``api_key``, as SUSHI specifies. Counting reads every click, so few
    of these reports run at once.

    Args:
        context: the context of the routes.
        platform: what reports say about every dataset.

    """
    item_limiter, site_limiter = ConcurrencyLimiter(COUNTER_ITEM_LIMITS), ConcurrencyLimiter(COUNTER_SITE_LIMITS)

    async def get_usage(suffix: str, request: web.Request) -> Content:
        item = parse_item_id(request, "/counter/", f".{suffix}")
        parameters = parse_report_parameters(request.query, context.now(), usage.PARAMETERS)
        async with item_limiter.acquire(request), context.slot(request):
            answer = await usage.usage_report(context.store, item, parameters)
            return await _encode_report("counter", answer, suffix)

    async def get_report(request: web.Request) -> Content:
        name = request.match_info["report"]
        if name.lower() != dsr.REPORT_ID:
            raise NotFound(f"unknown report {name[:60]!r}: expected {dsr.REPORT_ID}")
        report_request = dsr.parse_dataset_report_request(request.query, context.now())
        limiter = site_limiter if report_request.dataset is None else item_limiter
        async with limiter.acquire(request), context.slot(request):
            return Content(await dsr.dataset_report(context.store, report_request, platform))

    async def get_status(_: web.Request) -> Content:
        return Content(orjson.dumps(_SUSHI_STATUS))

    async def get_reports(_: web.Request) -> Content:
        return Content(orjson.dumps(_SUSHI_REPORTS))

    def report_scope(request: web.Request) -> Scope:
        return Scope.TOCK if request.query.get("dataset_id") else Scope.QUERY

    def dataset_items(request: web.Request) -> tuple[str, ...]:
        dataset = request.query.get("dataset_id")
        return (dataset,) if dataset else ()

    respond = partial(cached_response, compress=True)
    authorize, authorize_report = context.require(Scope.TOCK, "api_key"), context.require(report_scope, "api_key")
    routes = [
        web.get(
            rf"/counter/{{id:[\s\S]+}}.{suffix}",
            report_handler(
                *(context, "counter", authorize, partial(get_usage, suffix)),
                named_items=_item_in_path("/counter/", f".{suffix}"),
                respond=respond,
            ),
        )
        for suffix in _SUFFIXES
    ]
    return routes + [
        web.get(path, report_handler(context, name, check, run, named_items=named_items, respond=respond))
        for path, name, check, run, named_items in (
            ("/counter/status", "counter_status", authorize, get_status, None),
            ("/counter/reports", "counter_reports", authorize, get_reports, None),
            ("/counter/reports/{report}", "counter_report", authorize_report, get_report, dataset_items),
        )
    ]


TOTAL_HEADER: Final = "Metronome-Total"
"""Response header with the number of rows without limit and offset; not every format has a place for it."""
EXACT_HEADER: Final = "Metronome-Exact"
"""Response header that says whether the result is exact."""

RESULT_MAX_BYTES: Final = 32 * 2**20
"""A result stays in memory until the client has received it."""

_TABLE_MAX_BYTES_IN_MEMORY: Final = 2**20
"""Longer tables are sent from their file."""
_THREAD_MIN_ROWS: Final = 1000
"""Encoding fewer rows takes less time than handing them to a thread."""


class _ResultFormat(NamedTuple):
    encode: Callable[[QueryResult, Mapping[str, list[str]]], bytes]
    charset: str | None = None


_RESULT_FORMATS: Final = {
    "application/json": _ResultFormat(format_result_json),
    "text/csv": _ResultFormat(lambda result, _: format_result_csv(result), "utf-8"),
    "application/x-ndjson": _ResultFormat(lambda result, _: format_result_ndjson(result)),
}


def query_routes(context: QueryContext, body_max_bytes: int) -> list[web.RouteDef]:
    """Return the routes ``GET /query`` and ``POST /query``, also with the suffixes of tables."""
    field_checker = FieldChecker(context.store)

    async def read_get(request: web.Request) -> RawQuery:
        return parse_query_string(request.rel_url.raw_query_string)

    async def read_post(request: web.Request) -> RawQuery:
        return parse_query_json(await read_body(request, body_max_bytes))

    async def run(read: Callable[[web.Request], Awaitable[RawQuery]], request: web.Request) -> Content:
        now = context.now()
        query = parse_query(await read(request), now)
        media_type = negotiate_media_type(request, tuple(_RESULT_FORMATS))
        async with context.slot(request):
            result = await run_query(context.store, field_checker, query, now)
            partial_units = find_partial_rows(query, result, now)
            body = await _encode_result(_RESULT_FORMATS[media_type], result, partial_units)
        headers = {
            TOTAL_HEADER: str(result.total),
            EXACT_HEADER: "true" if result.exact else "false",
            hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: f"ETag, {TOTAL_HEADER}, {EXACT_HEADER}",
            hdrs.VARY: hdrs.ACCEPT,
        }
        return Content(body, media_type, _RESULT_FORMATS[media_type].charset, headers)

    async def run_table(
        suffix: str, read: Callable[[web.Request], Awaitable[RawQuery]], request: web.Request
    ) -> Content:
        now = context.now()
        query = parse_query(await read(request), now, max_rows=TABLE_MAX_ROWS, default_rows=TABLE_MAX_ROWS)
        async with context.slot(request):
            return await _write_table(context.store, field_checker, query, now, suffix)

    authorize = context.require(Scope.QUERY)
    run_by_path: dict[str, Callable[..., Awaitable[Content]]] = {"/query": run}
    run_by_path |= {f"/query.{suffix}": partial(run_table, suffix) for suffix in MEDIA_TYPES}
    return [
        add(path, report_handler(context, "query", authorize, partial(run_any, read)))
        for path, run_any in run_by_path.items()
        for add, read in ((web.get, read_get), (web.post, read_post))
    ]


async def _write_table(
    store: Store, field_checker: FieldChecker, query: ParsedQuery, now: datetime, suffix: str
) -> Content:
    """Return the result of a query as a table: in a temporary file unless it is short, so that memory is bounded."""
    file = TemporaryFile()  # noqa: SIM115  # the response closes it
    digest = hashlib.blake2b(digest_size=12)
    total, exact, has_header = 0, True, True
    partial_units: dict[str, None] = {}

    def write_page(page: QueryResult) -> None:
        nonlocal total, exact, has_header
        body = ENCODERS[suffix](page.columns, page.rows, header=has_header)
        digest.update(body)
        file.write(body)
        for labels in find_partial_rows(query, page, now).values():
            partial_units.update(dict.fromkeys(labels))
        total, exact, has_header = page.total, exact and page.exact, False

    try:
        async with contextlib.aclosing(query_pages(store, field_checker, query, now)) as pages:
            async for page in pages:
                await asyncio.to_thread(write_page, page)
        size = file.tell()
        file.seek(0)
        headers = {
            **_table_headers(partial_units, exact),
            TOTAL_HEADER: str(total),
            hdrs.ETAG: f'"{digest.hexdigest()}"',
        }
        headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] += f", {TOTAL_HEADER}"
        if size > _TABLE_MAX_BYTES_IN_MEMORY:
            return Content(file, MEDIA_TYPES[suffix], "utf-8", headers)
        body = file.read()
    except BaseException:
        file.close()
        raise
    file.close()
    return Content(body, MEDIA_TYPES[suffix], "utf-8", headers)


async def _encode_result(
    result_format: _ResultFormat, result: QueryResult, partial_units: Mapping[str, list[str]]
) -> bytes:
    if len(result.rows) < _THREAD_MIN_ROWS:
        body = result_format.encode(result, partial_units)
    else:
        body = await asyncio.to_thread(result_format.encode, result, partial_units)
    if len(body) > RESULT_MAX_BYTES:
        raise QueryTooExpensive(f"the result is over {RESULT_MAX_BYTES // 2**20} MiB: use limit and offset")
    return body


_MAX_CLOCK_SKEW: Final = timedelta(days=1)
_WRITE_ATTEMPTS: Final = 5
_RETRY_SECONDS: Final = 0.5


class _RestoreResult(NamedTuple):
    duplicates: int
    rejected: dict[bytes, str]


NEXT_HEADER: Final = "Metronome-Next"
"""Response header of a page of documents with the value of ``after`` for the next page, percent-encoded."""


def document_routes(
    context: QueryContext, body_max_bytes: int, batch_max_events: int, keep_months: int | None = None
) -> list[web.RouteDef]:
    """Return the routes ``GET /documents`` and ``POST /documents``, which read and write stored documents.

    Writes are answered once the documents are in the store: they need no spool, since they come from an archive or an
    export.

    Args:
        context: has the store.
        body_max_bytes: maximum size of a body.
        batch_max_events: maximum number of documents in a request.
        keep_months: how many whole months before the current one are kept; None for all.

    """
    is_set_up = False
    field_checker = FieldChecker(context.store)

    async def get_documents(request: web.Request) -> Content:
        now = context.now()
        document_request = parse_document_request(request.rel_url.raw_query_string, now)
        async with context.slot(request):
            page = await read_document_page(context.store, field_checker, document_request, now)
        body = b"".join(document + b"\n" for document in page.documents)
        headers: dict[str, str] = {hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: f"ETag, {NEXT_HEADER}"}
        if page.next_page is not None:
            headers[NEXT_HEADER] = percent_encode(str(page.next_page))
        return Content(body, MEDIA_TYPES["ndjson"], headers=headers)

    async def post_documents(request: web.Request) -> web.StreamResponse:
        nonlocal is_set_up
        await context.authorize(request, Scope.IMPORT)
        body = await read_body(request, body_max_bytes)
        max_timestamp = format_timestamp(context.now() + _MAX_CLOCK_SKEW)
        kept_from = (
            "" if keep_months is None else format_timestamp(start_of_first_kept_month(context.now(), keep_months))
        )
        documents, rejected = await asyncio.to_thread(_validate_lines, body, max_timestamp, batch_max_events)
        for index in [index for index, document in documents.items() if document[_STAMP_SLICE] < kept_from.encode()]:
            stamp = documents.pop(index)[_STAMP_SLICE].decode()
            rejected[index] = too_old_message("@timestamp", stamp, kept_from)
        if not is_set_up:
            await context.store.setup()
            is_set_up = True
        result = await _restore_documents(context, list(documents.values()))
        rejected |= {
            index: result.rejected[document] for index, document in documents.items() if document in result.rejected
        }
        response = {
            "accepted": len(documents.keys() - rejected.keys()),
            "known": result.duplicates,
            "rejected": [{"index": index, "error": rejected[index]} for index in sorted(rejected)],
        }
        return web.Response(body=orjson.dumps(response), content_type="application/json", headers=ALLOW_ANY_ORIGIN)

    read_handler = report_handler(
        context,
        "documents",
        context.require(Scope.QUERY),
        get_documents,
        respond=partial(cached_response, compress=True),
    )
    return [
        web.get("/documents", read_handler),
        web.post("/documents", handle_errors(context, post_documents)),
    ]


def _validate_lines(body: bytes, max_timestamp: str, max_lines: int) -> tuple[dict[int, bytes], dict[int, str]]:
    """Return the valid documents, and why the other lines are invalid, by their index."""
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) > max_lines:
        raise PayloadTooLarge(f"the body holds over batch_max_events ({max_lines}) documents: send fewer at once")
    documents, rejected = {}, {}
    for index, line in enumerate(lines):
        try:
            documents[index] = validate_document(line, max_timestamp)
        except Malformed as error:
            rejected[index] = str(error)
    return documents, rejected


async def _restore_documents(context: QueryContext, documents: list[bytes]) -> _RestoreResult:
    """Write documents to the store, and retry those that it is too busy for."""
    batch = DocumentBatch.from_documents(documents) if documents else None
    duplicates, rejected = 0, dict[bytes, str]()
    for _ in range(_WRITE_ATTEMPTS):
        if batch is None:
            return _RestoreResult(duplicates, rejected)
        result = await context.store.write(batch)
        context.telemetry.shipped.inc(result.stored)
        context.telemetry.duplicates.inc(result.duplicates)
        duplicates += result.duplicates
        rejected |= {rejection.document: rejection.reason for rejection in result.rejected}
        batch = result.retry
        if batch is not None:
            await asyncio.sleep(_RETRY_SECONDS)
    if batch is not None:
        raise StoreUnavailable(f"the store is too busy for {batch.count} of {len(documents)} documents")
    return _RestoreResult(duplicates, rejected)
