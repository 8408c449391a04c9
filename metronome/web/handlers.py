"""The routes that answer reports.

The routes that take events.
"""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import orjson
from aiohttp import hdrs, web

from metronome.auth.authorizer import Authorizer, Permissions
from metronome.auth.client_address import ClientAddress
from metronome.errors import Malformed, MetronomeError, Overloaded
from metronome.event import generate_event_ids, idempotent_event_ids
from metronome.intake import Intake
from metronome.protocol import Endpoint, Request, SiteConfig, bearer_token
from metronome.reports import dwell_time, errors, flow, items, recommendations, tock
from metronome.reports.parameters import ReportParameters, parse_report_parameters
from metronome.scopes import Scope
from metronome.stores.base import Store
from metronome.telemetry import Telemetry
from metronome.times import format_timestamp
from metronome.web.bodies import read_body
from metronome.web.limits import ConcurrencyLimiter
from metronome.web.problems import ALLOW_ANY_ORIGIN, problem_response, protocol_error_response, reply_response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_IDEMPOTENCY_HEADER: Final = "Idempotency-Key"
_AUTHORIZATION_HEADER: Final = "Authorization"
_ORIGIN_HEADER: Final = "Origin"
_EMPTY_REQUEST: Final = Request(b"", "", 0)


@dataclass(frozen=True, slots=True)
class IngestContext:
    """What every route that takes events needs.

    Attributes:
        intake: where the events go.
        guard: says who may send.
        senders: tells where a request came from.
        telemetry: where refused requests are counted.
        site: what the operator says of what they publish.
        clock: seconds since 1970.
        max_bytes: how large a body may be.
        max_events: how many events it may hold.

    """

    intake: Intake
    authorizer: Authorizer
    client_address: ClientAddress
    telemetry: Telemetry
    site: SiteConfig
    clock: Callable[[], float]
    body_max_bytes: int
    batch_max_events: int


def build_ingest_route(address: Endpoint, context: IngestContext) -> web.RouteDef:
    """Make the route of an address that takes events."""
    handler = build_ingest_handler(address, context)
    # A GET's route would take a HEAD as well, and count it.
    more = {"allow_head": False} if address.method == hdrs.METH_GET else {}
    return web.route(address.method, address.prefix + address.path, handler, **more)


def build_ingest_handler(address: Endpoint, context: IngestContext) -> Handler:
    """Make the handler of an address at which any dialect is spoken."""
    dialect, guard = address.dialect, context.authorizer
    identities = generate_event_ids()

    async def handle(request: web.Request) -> web.Response:
        again = request.headers.get(_IDEMPOTENCY_HEADER)
        read = Request(
            b"",
            content_type(request),
            context.batch_max_events,
            request.method,
            request.rel_url.raw_path[len(address.prefix) :],
            request.rel_url.raw_query_string,
            request.headers,
            context.client_address.resolve_request(request),
            format_timestamp(datetime.fromtimestamp(context.clock(), UTC)),
            identities,
            site_config=context.site,
        )
        try:
            read = read._replace(body=await read_body(request, context.body_max_bytes))
            if again:
                read = read._replace(event_ids=idempotent_event_ids(again, request.rel_url.raw_path_qs, read.body))
            origin = request.headers.get(_ORIGIN_HEADER, "")
            grant = await guard.authorize(
                address.scope,
                dialect.extract_key(read),
                origin,
                client_address=read.client_ip,
                ignore_invalid_key=address.lenient,
            )
            read = read._replace(is_trusted=Scope.IMPORT in grant.scopes)
            return reply_response(await context.intake.ingest(dialect, read))
        except MetronomeError as error:
            context.telemetry.count_rejection(error)
            return protocol_error_response(dialect, read, error)

    return handle


def content_type(request: web.Request) -> str:
    """Return the media type of a request in lower case, without parameters; may be empty."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


Report = dict[str, Any]
ItemReport = Callable[[Store, str, ReportParameters], Awaitable[Report]]
SiteReport = Callable[[Store, None, ReportParameters], Awaitable[Report]]

_JSON: Final = ".json"
_REPORT_SCOPES: Final = {"errors": Scope.QUERY}
"""What is asked for needs the scope `tock`, unless it tells more than counts, as the messages of errors do."""

ITEM_REPORTS: Final[tuple[tuple[str, ItemReport, frozenset[str]], ...]] = (
    (tock.NAME, tock.tock_report, tock.PARAMETERS),
    ("flow", flow.flow_report, flow.PARAMETERS),
    ("time", dwell_time.time_report, dwell_time.PARAMETERS),
    ("errors", errors.errors_report, errors.PARAMETERS),
)
"""What is asked of one item, at ``/NAME/{id}.json``: name, report, and the parameters that it takes."""

SITE_REPORTS: Final[tuple[tuple[str, SiteReport, frozenset[str]], ...]] = (
    ("flow", flow.flow_report, flow.ALL_ITEMS_PARAMETERS),
    ("time", dwell_time.time_report, dwell_time.PARAMETERS),
    ("errors", errors.errors_report, errors.PARAMETERS),
)
"""What is asked of all items together, at ``/NAME.json``."""


@dataclass(frozen=True, slots=True)
class QueryContext:
    """What every route that answers reports needs.

    Attributes:
        store: is asked.
        guard: says who may ask.
        senders: tells where a request came from.
        telemetry: where answers and refusals are counted.
        clock: seconds since 1970.
        min_visitors: of how few people's visits nothing is recommended.
        turns: at what reads many events, so that what is quick never waits for that.

    """

    store: Store
    authorizer: Authorizer
    client_address: ClientAddress
    telemetry: Telemetry
    clock: Callable[[], float]
    min_visitors: int = recommendations.MIN_VISITORS
    limiter: ConcurrencyLimiter = field(default_factory=ConcurrencyLimiter)

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    async def authorize(self, request: web.Request, scope: Scope, token: str = "") -> Permissions:
        """Return what a request may do by its ``Authorization``, else by *token* (see `Guard.admit`)."""
        return await self.authorizer.authorize(
            scope,
            bearer_token(request.headers) or token,
            request.headers.get("Origin", ""),
            client_address=self.client_address.resolve_request(request),
        )

    @contextlib.asynccontextmanager
    async def acquire_slot(self, request: web.Request) -> AsyncIterator[None]:
        """Have a turn while the block runs.

        Raises:
            Busy: too many others wait, or whoever asked has hung up meanwhile.

        """
        async with self.limiter.acquire():
            if request.transport is None or request.transport.is_closing():
                raise Overloaded("whoever asked has hung up")
            yield


_CHEAP_REPORTS: Final = {tock.NAME: tock.is_cheap, items.NAME: items.is_cheap}
"""The reports that may be answered beside those that wait for their turns, and when."""


def report_routes(context: QueryContext) -> list[web.RouteDef]:
    """List the routes that answer reports."""

    async def ranked(store: Store, _: None, asked: ReportParameters) -> Report:
        return await items.items_report(store, asked, context.now())

    async def recommended(store: Store, item: str | None, asked: ReportParameters) -> Report:
        return await recommendations.recommendations_report(store, item, asked, context.min_visitors)

    of_items = (*ITEM_REPORTS, ("recommendations", recommended, recommendations.PARAMETERS))
    of_all: tuple[tuple[str, SiteReport, frozenset[str]], ...] = (
        *SITE_REPORTS,
        (items.NAME, ranked, items.PARAMETERS),
        ("recommendations", recommended, recommendations.PARAMETERS),
    )
    return [
        *(_item_report_route(name, report, parameters, context) for name, report, parameters in of_items),
        *(_site_report_route(name, report, parameters, context) for name, report, parameters in of_all),
    ]


def parse_item_id(raw_path: str, prefix: str, suffix: str = _JSON) -> str:
    """Take the item's id from a path, as it was sent: slashes and any Unicode may be in it.

    Args:
        raw_path: as it was sent, percent signs and all.
        prefix: what comes before the id, as ``/tock/``.
        suffix: what comes after it.

    Raises:
        Malformed: what its percent signs encode is no UTF-8.

    """
    path = raw_path.partition("?")[0]
    try:
        return unquote(path, errors="strict")[len(prefix) : -len(suffix)]
    except UnicodeDecodeError:
        raise Malformed("the id in the address is no UTF-8: encode it with encodeURIComponent") from None


def _item_report_route(
    name: str, report: ItemReport, parameters: frozenset[str], context: QueryContext
) -> web.RouteDef:
    async def ask(request: web.Request) -> Report:
        item = parse_item_id(request.rel_url.raw_path, f"/{name}/")
        asked = parse_report_parameters(request.query, context.now(), parameters)
        async with _limit_if_expensive(name, asked, request, context):
            return await report(context.store, item, asked)

    # Not `.+`: an id may hold line feeds.
    return web.get(
        rf"/{name}/{{id:[\s\S]+}}.json", _build_report_handler(name, _REPORT_SCOPES.get(name, Scope.TOCK), ask, context)
    )


def _site_report_route(
    name: str, report: SiteReport, parameters: frozenset[str], context: QueryContext
) -> web.RouteDef:
    async def ask(request: web.Request) -> Report:
        asked = parse_report_parameters(request.query, context.now(), parameters)
        async with _limit_if_expensive(name, asked, request, context):
            return await report(context.store, None, asked)

    return web.get(f"/{name}.json", _build_report_handler(name, _REPORT_SCOPES.get(name, Scope.TOCK), ask, context))


def _limit_if_expensive(
    name: str, parameters: ReportParameters, request: web.Request, context: QueryContext
) -> contextlib.AbstractAsyncContextManager[None]:
    """Have what takes long wait for its turn: all but what stores have counted already, and is no long list."""
    is_quick = _CHEAP_REPORTS.get(name)
    return contextlib.nullcontext() if is_quick is not None and is_quick(parameters) else context.acquire_slot(request)


def _build_report_handler(
    name: str, scope: Scope, run_report: Callable[[web.Request], Awaitable[Report]], context: QueryContext
) -> Handler:
    took = context.telemetry.report_seconds.labels(name)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            await context.authorize(request, scope)
            with took.time():
                answer = orjson.dumps(await run_report(request))
        except MetronomeError as error:
            context.telemetry.count_rejection(error)
            return problem_response(error)
        return report_response(request, answer, "application/json")

    return handle


def report_response(request: web.Request, body: bytes, media_type: str, charset: str | None = None) -> web.Response:
    """Answer with a report, or with 304 where the asker has the same one already."""
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {**ALLOW_ANY_ORIGIN, "ETag": tag, "Cache-Control": "no-cache"}
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type=media_type, charset=charset, headers=headers)
