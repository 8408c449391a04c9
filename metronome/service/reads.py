"""The routes that answer reports."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import orjson
from aiohttp import web

from metronome.dialects.credentials import bearer
from metronome.errors import Busy, Malformed, MetronomeError
from metronome.keys import Scope
from metronome.reports import errors, flow, items, recommendations, timings, tock
from metronome.reports.parameters import Parameters, read_parameters
from metronome.service.guard import Grant, Guard
from metronome.service.problems import ANY_ORIGIN, problem
from metronome.service.senders import Senders
from metronome.service.turns import Turns
from metronome.service.writes import Handler
from metronome.stores.store import Store
from metronome.telemetry import Telemetry

Report = dict[str, Any]
OfItem = Callable[[Store, str, Parameters], Awaitable[Report]]
OfAll = Callable[[Store, None, Parameters], Awaitable[Report]]

_JSON: Final = ".json"
_SCOPES: Final = {"errors": Scope.QUERY}
"""What is asked for needs the scope `tock`, unless it tells more than counts, as the messages of errors do."""

OF_ITEMS: Final[tuple[tuple[str, OfItem, frozenset[str]], ...]] = (
    (tock.NAME, tock.tock, tock.PARAMETERS),
    ("flow", flow.flow, flow.PARAMETERS),
    ("time", timings.time, timings.PARAMETERS),
    ("errors", errors.errors, errors.PARAMETERS),
)
"""What is asked of one item, at ``/NAME/{id}.json``: name, report, and the parameters that it takes."""

OF_ALL: Final[tuple[tuple[str, OfAll, frozenset[str]], ...]] = (
    ("flow", flow.flow, flow.PARAMETERS_OF_ALL),
    ("time", timings.time, timings.PARAMETERS),
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


def answered(request: web.Request, body: bytes, content_type: str, charset: str | None = None) -> web.Response:
    """Answer with a report, or with 304 where the asker has the same one already."""
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {**ANY_ORIGIN, "ETag": tag, "Cache-Control": "no-cache"}
    if tag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type=content_type, charset=charset, headers=headers)
