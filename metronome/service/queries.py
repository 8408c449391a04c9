"""The routes for questions of somebody's own: ``GET`` and ``POST /query``."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from aiohttp import hdrs, web

from metronome.errors import MetronomeError, TooCostly
from metronome.keys import Scope
from metronome.question import Answer
from metronome.reports.query.address import read_address
from metronome.reports.query.asked import Given, read_asked
from metronome.reports.query.body import read_json
from metronome.reports.query.names import Names
from metronome.reports.query.query import query
from metronome.reports.query.tables import as_csv, as_json, as_lines
from metronome.service.accepted import preferred
from metronome.service.bodies import read_body
from metronome.service.problems import problem
from metronome.service.reads import Answering, answered
from metronome.service.writes import Handler

PATH: Final = "/query"
TOTAL: Final = "Metronome-Total"
"""The header that says how many rows there are without limit and offset, since not every form has a place for it."""
EXACT: Final = "Metronome-Exact"
"""The header that says whether the answer is exact, likewise."""

MAX_BYTES: Final = 32 * 2**20
"""How large an answer may be: it stays in memory until the slowest of clients has taken it."""

_IN_A_THREAD_FROM: Final = 1000
"""Fewer rows are written sooner than a thread takes them over."""


class _Form(NamedTuple):
    write: Callable[[Answer], bytes]
    charset: str | None = None


_FORMS: Final = {
    "application/json": _Form(as_json),
    "text/csv": _Form(as_csv, "utf-8"),
    "application/x-ndjson": _Form(as_lines),
}


def query_routes(answering: Answering, max_bytes: int) -> list[web.RouteDef]:
    """List the routes.

    Args:
        answering: what they need.
        max_bytes: how large a request's body may be.

    """

    async def read_get(request: web.Request) -> Given:
        return read_address(request.rel_url.raw_query_string)

    async def read_post(request: web.Request) -> Given:
        return read_json(await read_body(request, max_bytes))

    names = Names(answering.store)
    return [
        web.get(PATH, _handler(read_get, names, answering)),
        web.post(PATH, _handler(read_post, names, answering)),
    ]


def _handler(read: Callable[[web.Request], Awaitable[Given]], names: Names, answering: Answering) -> Handler:
    took = answering.telemetry.answers.labels("query")

    async def handle(request: web.Request) -> web.StreamResponse:
        media = preferred(request.headers.getall(hdrs.ACCEPT, ()), tuple(_FORMS))
        form = _FORMS[media]
        try:
            await answering.admit(request, Scope.QUERY)
            now = answering.now()
            asked = read_asked(await read(request), now)
            async with answering.turn(request):
                with took.time():
                    answer = await query(answering.store, names, asked, now)
                    body = await _written(form, answer)
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return problem(error)
        response = answered(request, body, media, form.charset)
        response.headers.update(_headers(answer))
        return response

    return handle


async def _written(form: _Form, answer: Answer) -> bytes:
    if len(answer.rows) < _IN_A_THREAD_FROM:
        body = form.write(answer)
    else:
        body = await asyncio.to_thread(form.write, answer)
    if len(body) > MAX_BYTES:
        raise TooCostly(f"the answer is over {MAX_BYTES // 2**20} MiB: ask for fewer rows with limit and offset")
    return body


def _headers(answer: Answer) -> dict[str, str]:
    return {
        TOTAL: str(answer.total),
        EXACT: "true" if answer.exact else "false",
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: f"ETag, {TOTAL}, {EXACT}",
        hdrs.VARY: hdrs.ACCEPT,
    }
