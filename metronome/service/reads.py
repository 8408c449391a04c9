"""The routes that answer reports."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import orjson
from aiohttp import web

from metronome.dialects.credentials import bearer
from metronome.errors import Malformed, MetronomeError
from metronome.keys import Scope
from metronome.reports import items, tock
from metronome.reports.parameters import read_parameters
from metronome.service.guard import Grant, Guard
from metronome.service.problems import ANY_ORIGIN, problem
from metronome.service.senders import Senders
from metronome.service.writes import Handler
from metronome.stores.store import Store
from metronome.telemetry import Telemetry

_TOCK: Final = "/tock/"
_JSON: Final = ".json"


@dataclass(frozen=True, slots=True)
class Answering:
    """What every route that answers reports needs.

    Attributes:
        store: is asked.
        guard: says who may ask.
        senders: tells where a request came from.
        telemetry: where answers and refusals are counted.
        clock: seconds since 1970.

    """

    store: Store
    guard: Guard
    senders: Senders
    telemetry: Telemetry
    clock: Callable[[], float]

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


def read_routes(answering: Answering) -> list[web.RouteDef]:
    """List the routes that answer reports."""
    store = answering.store

    async def get_tock(request: web.Request) -> dict[str, Any]:
        item = item_of(request.rel_url.raw_path)
        asked = read_parameters(request.query, answering.now(), tock.PARAMETERS)
        return await tock.tock(store, item, asked)

    async def get_items(request: web.Request) -> dict[str, Any]:
        asked = read_parameters(request.query, answering.now(), items.PARAMETERS)
        return await items.items(store, asked)

    return [
        # Not `.+`: an id may hold line feeds.
        web.get(r"/tock/{id:[\s\S]+}.json", _report("tock", Scope.TOCK, get_tock, answering)),
        web.get("/items.json", _report("items", Scope.TOCK, get_items, answering)),
    ]


def item_of(raw_path: str) -> str:
    """Take the item's id from the path of a tock, as it was sent: slashes and any Unicode may be in it.

    Raises:
        Malformed: what its percent signs encode is no UTF-8.

    """
    path = raw_path.partition("?")[0]
    try:
        return unquote(path, errors="strict")[len(_TOCK) : -len(_JSON)]
    except UnicodeDecodeError:
        raise Malformed("the id in the address is no UTF-8: encode it with encodeURIComponent") from None


def _report(name: str, scope: Scope, ask: Callable[[web.Request], Any], answering: Answering) -> Handler:
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
