"""The routes that answer reports."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

import orjson
from aiohttp import web

from metronome.errors import Malformed, MetronomeError
from metronome.reports import items, tock
from metronome.reports.parameters import read_parameters
from metronome.service.problems import problem
from metronome.service.writes import ANY_ORIGIN, Handler
from metronome.stores.store import Store
from metronome.telemetry import Telemetry

_TOCK: Final = "/tock/"
_JSON: Final = ".json"


def read_routes(store: Store, telemetry: Telemetry, clock: Callable[[], float]) -> list[web.RouteDef]:
    """List the routes that answer reports."""

    async def get_tock(request: web.Request) -> dict[str, Any]:
        item = item_of(request.rel_url.raw_path)
        asked = read_parameters(request.query, _now(clock), tock.PARAMETERS)
        return await tock.tock(store, item, asked)

    async def get_items(request: web.Request) -> dict[str, Any]:
        asked = read_parameters(request.query, _now(clock), items.PARAMETERS)
        return await items.items(store, asked)

    return [
        # Not `.+`: an id may hold line feeds.
        web.get(r"/tock/{id:[\s\S]+}.json", _answering("tock", get_tock, telemetry)),
        web.get("/items.json", _answering("items", get_items, telemetry)),
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


def _answering(report: str, ask: Callable[[web.Request], Any], telemetry: Telemetry) -> Handler:
    took = telemetry.answers.labels(report)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            with took.time():
                answer = orjson.dumps(await ask(request))
        except MetronomeError as error:
            telemetry.refuse(error)
            return problem(error)
        tag = f'"{hashlib.blake2b(answer, digest_size=12).hexdigest()}"'
        headers = {**ANY_ORIGIN, "ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=answer, content_type="application/json", headers=headers)

    return handle


def _now(clock: Callable[[], float]) -> datetime:
    return datetime.fromtimestamp(clock(), UTC)
