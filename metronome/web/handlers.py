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

from metronome.auth.authorizer import Grant, Guard
from metronome.auth.client_address import Senders
from metronome.errors import Busy, Malformed, MetronomeError
from metronome.event import identities_again, own_identities
from metronome.intake import Intake
from metronome.protocol import Address, Request, Site, bearer
from metronome.reports import dwell_time, errors, flow, items, recommendations, tock
from metronome.reports.parameters import Parameters, read_parameters
from metronome.scopes import Scope
from metronome.stores.base import Store
from metronome.telemetry import Telemetry
from metronome.times import stamp_of
from metronome.web.bodies import read_body
from metronome.web.limits import Turns
from metronome.web.problems import ANY_ORIGIN, problem, refusal, response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_AUTHORIZATION: Final = "Authorization"
_ORIGIN: Final = "Origin"
_NO_REQUEST: Final = Request(b"", "", 0)


@dataclass(frozen=True, slots=True)
class Doorway:
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
    guard: Guard
    senders: Senders
    telemetry: Telemetry
    site: Site
    clock: Callable[[], float]
    max_bytes: int
    max_events: int


def route_of(address: Address, doorway: Doorway) -> web.RouteDef:
    """Make the route of an address that takes events."""
    handler = dialect_handler(address, doorway)
    # A GET's route would take a HEAD as well, and count it.
    more = {"allow_head": False} if address.method == hdrs.METH_GET else {}
    return web.route(address.method, address.prefix + address.path, handler, **more)


def dialect_handler(address: Address, doorway: Doorway) -> Handler:
    """Make the handler of an address at which any dialect is spoken."""
    dialect, guard = address.dialect, doorway.guard
    identities = own_identities()

    async def handle(request: web.Request) -> web.Response:
        again = request.headers.get(_IDEMPOTENCY_KEY)
        read = Request(
            b"",
            content_type(request),
            doorway.max_events,
            request.method,
            request.rel_url.raw_path[len(address.prefix) :],
            request.rel_url.raw_query_string,
            request.headers,
            doorway.senders.address(request),
            stamp_of(datetime.fromtimestamp(doorway.clock(), UTC)),
            identities,
            site=doorway.site,
        )
        try:
            read = read._replace(body=await read_body(request, doorway.max_bytes))
            if again:
                read = read._replace(identities=identities_again(again, request.rel_url.raw_path_qs, read.body))
            origin = request.headers.get(_ORIGIN, "")
            grant = await guard.admit(
                address.scope, dialect.key(read), origin, sender=read.sender, lenient=address.lenient
            )
            read = read._replace(believed=Scope.IMPORT in grant.scopes)
            return response(await doorway.intake.take(dialect, read))
        except MetronomeError as error:
            doorway.telemetry.refuse(error)
            return refusal(dialect, read, error)

    return handle


def content_type(request: web.Request) -> str:
    """Return the media type of a request in lower case, without parameters; may be empty."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


Report = dict[str, Any]
OfItem = Callable[[Store, str, Parameters], Awaitable[Report]]
OfAll = Callable[[Store, None, Parameters], Awaitable[Report]]

_JSON: Final = ".json"
_SCOPES: Final = {"errors": Scope.QUERY}
"""What is asked for needs the scope `tock`, unless it tells more than counts, as the messages of errors do."""

OF_ITEMS: Final[tuple[tuple[str, OfItem, frozenset[str]], ...]] = (
    (tock.NAME, tock.tock, tock.PARAMETERS),
    ("flow", flow.flow, flow.PARAMETERS),
    ("time", dwell_time.time, dwell_time.PARAMETERS),
    ("errors", errors.errors, errors.PARAMETERS),
)
"""What is asked of one item, at ``/NAME/{id}.json``: name, report, and the parameters that it takes."""

OF_ALL: Final[tuple[tuple[str, OfAll, frozenset[str]], ...]] = (
    ("flow", flow.flow, flow.PARAMETERS_OF_ALL),
    ("time", dwell_time.time, dwell_time.PARAMETERS),
    ("errors", errors.errors, errors.PARAMETERS),
)
"""What is asked of all items together, at ``/NAME.json``."""


@dataclass(frozen=True, slots=True)
class Answering:
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
    guard: Guard
    senders: Senders
    telemetry: Telemetry
    clock: Callable[[], float]
    min_visitors: int = recommendations.MIN_VISITORS
    turns: Turns = field(default_factory=Turns)

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    async def admit(self, request: web.Request, scope: Scope, token: str = "") -> Grant:
        """Return what a request may do by its ``Authorization``, else by *token* (see `Guard.admit`)."""
        return await self.guard.admit(
            scope,
            bearer(request.headers) or token,
            request.headers.get("Origin", ""),
            sender=self.senders.address(request),
        )

    @contextlib.asynccontextmanager
    async def turn(self, request: web.Request) -> AsyncIterator[None]:
        """Have a turn while the block runs.

        Raises:
            Busy: too many others wait, or whoever asked has hung up meanwhile.

        """
        async with self.turns.taken():
            if request.transport is None or request.transport.is_closing():
                raise Busy("whoever asked has hung up")
            yield


_QUICK: Final = {tock.NAME: tock.is_quick, items.NAME: items.is_quick}
"""The reports that may be answered beside those that wait for their turns, and when."""


def read_routes(answering: Answering) -> list[web.RouteDef]:
    """List the routes that answer reports."""

    async def ranked(store: Store, _: None, asked: Parameters) -> Report:
        return await items.items(store, asked, answering.now())

    async def recommended(store: Store, item: str | None, asked: Parameters) -> Report:
        return await recommendations.recommendations(store, item, asked, answering.min_visitors)

    of_items = (*OF_ITEMS, ("recommendations", recommended, recommendations.PARAMETERS))
    of_all: tuple[tuple[str, OfAll, frozenset[str]], ...] = (
        *OF_ALL,
        (items.NAME, ranked, items.PARAMETERS),
        ("recommendations", recommended, recommendations.PARAMETERS),
    )
    return [
        *(_route_of_items(name, report, parameters, answering) for name, report, parameters in of_items),
        *(_route_of_all(name, report, parameters, answering) for name, report, parameters in of_all),
    ]


def item_of(raw_path: str, prefix: str, suffix: str = _JSON) -> str:
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


def _route_of_items(name: str, report: OfItem, parameters: frozenset[str], answering: Answering) -> web.RouteDef:
    async def ask(request: web.Request) -> Report:
        item = item_of(request.rel_url.raw_path, f"/{name}/")
        asked = read_parameters(request.query, answering.now(), parameters)
        async with _turn(name, asked, request, answering):
            return await report(answering.store, item, asked)

    # Not `.+`: an id may hold line feeds.
    return web.get(rf"/{name}/{{id:[\s\S]+}}.json", _report(name, _SCOPES.get(name, Scope.TOCK), ask, answering))


def _route_of_all(name: str, report: OfAll, parameters: frozenset[str], answering: Answering) -> web.RouteDef:
    async def ask(request: web.Request) -> Report:
        asked = read_parameters(request.query, answering.now(), parameters)
        async with _turn(name, asked, request, answering):
            return await report(answering.store, None, asked)

    return web.get(f"/{name}.json", _report(name, _SCOPES.get(name, Scope.TOCK), ask, answering))


def _turn(
    name: str, asked: Parameters, request: web.Request, answering: Answering
) -> contextlib.AbstractAsyncContextManager[None]:
    """Have what takes long wait for its turn: all but what stores have counted already, and is no long list."""
    is_quick = _QUICK.get(name)
    return contextlib.nullcontext() if is_quick is not None and is_quick(asked) else answering.turn(request)


def _report(name: str, scope: Scope, ask: Callable[[web.Request], Awaitable[Report]], answering: Answering) -> Handler:
    took = answering.telemetry.answers.labels(name)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            await answering.admit(request, scope)
            with took.time():
                answer = orjson.dumps(await ask(request))
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return problem(error)
        return answered(request, answer, "application/json")

    return handle


def answered(request: web.Request, body: bytes, media_type: str, charset: str | None = None) -> web.Response:
    """Answer with a report, or with 304 where the asker has the same one already."""
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {**ANY_ORIGIN, "ETag": tag, "Cache-Control": "no-cache"}
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type=media_type, charset=charset, headers=headers)
