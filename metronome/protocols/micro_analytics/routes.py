"""The routes of true-micro-analytics, where one address both takes views and tells of them."""

from typing import Final

import orjson
from aiohttp import hdrs, web

from metronome.errors import MetronomeError
from metronome.protocol import Address
from metronome.protocols.micro_analytics import protocol as hit
from metronome.protocols.micro_analytics import reports as hits
from metronome.protocols.micro_analytics.protocol import Asked
from metronome.scopes import Scope
from metronome.web.handlers import Answering, Doorway, Handler, dialect_handler
from metronome.web.problems import ANY_ORIGIN, problem, response

LEFT_OUT_HEADER: Final = "X-Metronome-Left-Out"
"""How many views are not listed, where there are more than `hits.MAX_VIEWS`."""
_SCOPES: Final = {Asked.COUNT: Scope.TOCK, Asked.VIEWS: Scope.TOCK, Asked.PATHS: Scope.QUERY}


def hit_address(prefix: str) -> Address:
    """Return where true-micro-analytics is spoken: below a prefix that the operator chooses, or at the root."""
    return Address("GET", prefix, r"/{path:[\s\S]*}", hit)


def hit_routes(prefix: str, doorway: Doorway, ask: Handler) -> list[web.RouteDef]:
    """List the routes below a prefix.

    Args:
        prefix: as ``/hit``, or nothing where the protocol has a port of its own.
        doorway: where views go.
        ask: answers what is asked (see `ask_handler`).

    """
    take = dialect_handler(hit_address(prefix), doorway)

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            return response(hit.refuse_method())
        return await (take if _asked(request, prefix) is None else ask)(request)

    return _routes(prefix, handle)


def ask_routes(prefix: str, answering: Answering) -> list[web.RouteDef]:
    """List the routes below a prefix at which the main process answers what its workers are asked."""
    return _routes(prefix, ask_handler(prefix, answering))


def ask_handler(prefix: str, answering: Answering) -> Handler:
    """Make the handler that answers what is asked below a prefix."""
    took = answering.telemetry.answers.labels("hits")

    async def handle(request: web.Request) -> web.StreamResponse:
        what = _asked(request, prefix) or Asked.COUNT
        try:
            await answering.admit(request, _SCOPES[what])
            with took.time():
                answer, left_out = await _answer(answering, what, hit.item_of(_path(request, prefix)))
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return problem(error)
        more = {LEFT_OUT_HEADER: str(left_out)} if left_out else {}
        headers = {**ANY_ORIGIN, "Cache-Control": "no-store", **more}
        return web.Response(body=answer, content_type="application/json", headers=headers)

    return handle


async def _answer(answering: Answering, what: Asked, item: str) -> tuple[bytes, int]:
    if what is Asked.COUNT:
        return orjson.dumps({"views": await hits.count(answering.store, item)}), 0
    found = await hits.views(answering.store, None if what is Asked.PATHS else item)
    paths = {path: [{"ts": ts} for ts in times] for path, times in found.by_path().items()}
    return orjson.dumps(paths if what is Asked.PATHS else {"views": paths.get(item, [])}), found.left_out


def _routes(prefix: str, handler: Handler) -> list[web.RouteDef]:
    below = web.route("*", prefix + hit_address(prefix).path, handler)
    return [below, web.route("*", prefix, handler)] if prefix else [below]


def _asked(request: web.Request, prefix: str) -> Asked | None:
    return hit.asked(_path(request, prefix), request.rel_url.raw_query_string)


def _path(request: web.Request, prefix: str) -> str:
    return request.rel_url.raw_path[len(prefix) :]
