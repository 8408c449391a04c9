"""true-micro-analytics: each GET of a path counts as a view of it; ``?count`` and ``?views`` return its views.

The item is the path after the protocol's prefix, percent-decoded and otherwise unchanged: ``/a`` and ``/a/`` are two
items. The query is not part of the item; it is stored in ``url``. Reports count all views of an item whose ID is a
path, whichever protocol they were sent by, and those of bots, too.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from aiohttp import hdrs, web

from metronome.errors import MetronomeError
from metronome.event import Event
from metronome.fields import decode_percent
from metronome.protocol import Endpoint, IngestResult, ParsedRequest, Reply, Request, bearer_token, problem_reply
from metronome.scopes import Scope
from metronome.stores.base import Store
from metronome.stores.query import AllOf, Equals, Filter, Prefix, Query, SortKey
from metronome.times import to_milliseconds
from metronome.web.handlers import Handler, IngestContext, QueryContext, build_ingest_handler, report_handler
from metronome.web.negotiation import Content, uncached_response
from metronome.web.problems import reply_response

MAX_VIEWS: Final = 100_000
_PARSED_AT_ONCE: Final = 1000
"""The maximum number of views in a list; the newest are listed."""
OMITTED_COUNT_HEADER: Final = "X-Metronome-Left-Out"
"""The number of views that a list omits."""

_ROOT_PATH: Final = "/"
_FAVICON_PATH: Final = "/favicon.ico"
_FIELD_HEADERS: Final = {"agent": "User-Agent", "referer": "Referer"}


class ReportKind(Enum):
    """What a request queries, if it does not count as a view."""

    COUNT = "count"
    """The number of views of a path."""
    VIEWS = "views"
    """The times of a path's views."""
    PATHS = "paths"
    """The times of the views of all paths."""


_REPORT_SCOPES: Final = {ReportKind.COUNT: Scope.TOCK, ReportKind.VIEWS: Scope.TOCK, ReportKind.PATHS: Scope.QUERY}


class MicroAnalyticsProtocol:
    """Views by GET (see `Protocol`)."""

    def extract_key(self, request: Request) -> str:
        """Return the key of ``Authorization: Bearer …``, or an empty string."""
        return bearer_token(request.headers)

    def parse(self, request: Request) -> ParsedRequest:
        """Parse a view; none for the icon, which browsers request by themselves (see `Protocol.parse`)."""
        if request.path == _FAVICON_PATH:
            return ParsedRequest([], is_batch=False)
        fields: dict[str, Any] = {
            "event": "view",
            "id": item_id_from_path(request.path),
            "url": f"{request.path}?{request.query}" if request.query else request.path,
            "clientip": request.client_ip,
            **{name: request.headers.get(header) for name, header in _FIELD_HEADERS.items()},
        }
        return ParsedRequest([Event({name: value for name, value in fields.items() if value})], is_batch=False)

    def reply(self, request: Request, parsed: ParsedRequest, result: IngestResult) -> Reply:
        """Return 204 (see `Protocol.reply`)."""
        del request, parsed
        result.raise_rejection()
        return Reply(204, headers={"Cache-Control": "no-store"})

    def reply_error(self, request: Request, error: MetronomeError) -> Reply:
        """Return the error as problem details, as the protocol has no format for errors."""
        del request
        return problem_reply(error)


PROTOCOL: Final = MicroAnalyticsProtocol()
METHOD_NOT_ALLOWED_REPLY: Final = Reply(405, b"Method not supported", "text/plain", {"Allow": "GET"})


def report_kind(path: str, query: str) -> ReportKind | None:
    """Return what a request queries, or None if it counts as a view.

    Args:
        path: after the protocol's prefix, percent-encoded.
        query: percent-encoded.

    """
    if path in {"", _ROOT_PATH}:
        return ReportKind.PATHS
    if path == _FAVICON_PATH:
        return None
    names = {name for name, _ in parse_qsl(query, keep_blank_values=True)}
    if "count" in names:
        return ReportKind.COUNT
    return ReportKind.VIEWS if "views" in names else None


def item_id_from_path(path: str) -> str:
    """Return the item of a path after the protocol's prefix, percent-encoded."""
    return decode_percent(path)


@dataclass(frozen=True, slots=True)
class PathViews:
    """The views of one or more paths.

    Attributes:
        timestamps: of each path, in milliseconds since 1970, oldest first.
        omitted: the number of older views that are not in the list.

    """

    timestamps: dict[str, list[int]]
    omitted: int = 0


async def count_views(store: Store, path: str) -> int:
    """Return the number of views of a path."""
    (result,) = await store.query(Query(where=_views_filter(path)))
    return sum(int(count or 0) for (count,) in result.rows)


async def list_views(store: Store, path: str | None, limit: int = MAX_VIEWS) -> PathViews:
    """Return the newest views.

    Args:
        store: runs the query.
        path: of the views, or None for all items whose ID begins with a slash.
        limit: the maximum number of views.

    """
    where = _views_filter(path)
    # A store returns the oldest documents first: skip the days before those of the newest views.
    (days,) = await store.query(Query(group_by=("day",), where=where, sort_keys=(SortKey("day", descending=True),)))
    start, total = None, 0
    for day, count in days.to_dict().items():
        if total < limit:
            start = datetime.fromisoformat(day).replace(tzinfo=UTC)
        total += int(count or 0)
    if start is None:
        return PathViews({})
    views: deque[tuple[str, int]] = deque(maxlen=limit)
    lines: list[bytes] = []
    async for line in store.iterate_documents(where, start):
        lines.append(line)
        if len(lines) == _PARSED_AT_ONCE:
            # In a thread: a hundred thousand views take half a second.
            views += await asyncio.to_thread(_parse_views, lines)
            lines = []
    views += _parse_views(lines)
    timestamps = await asyncio.to_thread(_group_views, views)
    return PathViews(timestamps, max(0, total - len(views)))


def _parse_views(lines: list[bytes]) -> list[tuple[str, int]]:
    documents = map(orjson.loads, lines)
    return [(each["id"], to_milliseconds(datetime.fromisoformat(each["@timestamp"]))) for each in documents]


def _group_views(views: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    timestamps: dict[str, list[int]] = {}
    for item, timestamp in views:
        timestamps.setdefault(item, []).append(timestamp)
    return timestamps


def micro_analytics_endpoint(prefix: str) -> Endpoint:
    """Return the endpoint below a prefix that the operator chooses, or at the root."""
    return Endpoint("GET", prefix, r"/{path:[\s\S]*}", PROTOCOL)


def build_routes(prefix: str, ingest: IngestContext, query_handler: Handler) -> list[web.RouteDef]:
    """Return the routes below a prefix.

    Args:
        prefix: such as ``/hit``, or empty if the protocol has a port of its own.
        ingest: where views go.
        query_handler: runs queries (see `build_query_handler`).

    """
    ingest_handler = build_ingest_handler(micro_analytics_endpoint(prefix), ingest)

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            return reply_response(METHOD_NOT_ALLOWED_REPLY)
        return await (ingest_handler if _requested_report(request, prefix) is None else query_handler)(request)

    return _routes_below(prefix, handle)


def build_query_routes(prefix: str, context: QueryContext) -> list[web.RouteDef]:
    """Return the routes below a prefix by which the main process runs the queries of its workers."""
    return _routes_below(prefix, build_query_handler(prefix, context))


def build_query_handler(prefix: str, context: QueryContext) -> Handler:
    """Return the handler that runs the queries below a prefix."""

    def kind_of(request: web.Request) -> ReportKind:
        return _requested_report(request, prefix) or ReportKind.COUNT

    async def run(request: web.Request) -> Content:
        item = item_id_from_path(_path_below_prefix(request, prefix))
        kind = kind_of(request)
        async with context.slot(request, is_cheap=kind is ReportKind.COUNT):
            body, omitted = await _run_query(context.store, kind, item)
        return Content(body, headers={OMITTED_COUNT_HEADER: str(omitted)} if omitted else {})

    def named_items(request: web.Request) -> tuple[str, ...]:
        is_about_all = kind_of(request) is ReportKind.PATHS
        return () if is_about_all else (item_id_from_path(_path_below_prefix(request, prefix)),)

    authorize = context.require(lambda request: _REPORT_SCOPES[kind_of(request)])
    return report_handler(context, "hits", authorize, run, named_items=named_items, respond=uncached_response)


async def _run_query(store: Store, kind: ReportKind, item: str) -> tuple[bytes, int]:
    """Return the result as JSON, and the number of views that it omits."""
    if kind is ReportKind.COUNT:
        return orjson.dumps({"views": await count_views(store, item)}), 0
    views = await list_views(store, None if kind is ReportKind.PATHS else item)

    def encode() -> bytes:
        paths = {path: [{"ts": timestamp} for timestamp in times] for path, times in views.timestamps.items()}
        return orjson.dumps(paths if kind is ReportKind.PATHS else {"views": paths.get(item, [])})

    return await asyncio.to_thread(encode), views.omitted


def _views_filter(path: str | None) -> Filter:
    return AllOf((Equals("event", "view"), Prefix("id", "/") if path is None else Equals("id", path)))


def _routes_below(prefix: str, handler: Handler) -> list[web.RouteDef]:
    below = web.route("*", prefix + micro_analytics_endpoint(prefix).path, handler)
    return [below, web.route("*", prefix, handler)] if prefix else [below]


def _requested_report(request: web.Request, prefix: str) -> ReportKind | None:
    return report_kind(_path_below_prefix(request, prefix), request.rel_url.raw_query_string)


def _path_below_prefix(request: web.Request, prefix: str) -> str:
    return request.rel_url.raw_path[len(prefix) :]
