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

from metronome.errors import Malformed, MetronomeError, NoSuchPage, StoreAway, TooCostly, TooLarge
from metronome.event import checked_document
from metronome.reports.badges import PARAMETERS, badge, read_look
from metronome.reports.counter.dataset_report import (
    RELEASE,
    REPORT_ID,
    REPORT_NAME,
    Platform,
    dataset_report,
    read_harvest,
)
from metronome.reports.counter.tally import PARAMETERS as COUNTER_PARAMETERS
from metronome.reports.counter.tally import usage
from metronome.reports.parameters import read_parameters
from metronome.reports.query.names import Names
from metronome.reports.query.parse import read_address, read_json
from metronome.reports.query.request import Given, read_asked
from metronome.reports.query.run import as_csv, as_json, as_lines, query
from metronome.scopes import Scope
from metronome.stores.base import Batch, Store, Verdicts
from metronome.stores.query import Answer
from metronome.times import stamp_of
from metronome.web.bodies import read_body
from metronome.web.handlers import Answering, Handler, answered, item_of
from metronome.web.limits import Turns
from metronome.web.negotiation import preferred
from metronome.web.problems import ANY_ORIGIN, problem

_PREFIX: Final = "/badge/"
_SUFFIX: Final = ".svg"
_HEADERS: Final = {
    # The proxies through which code hosts show pictures ask again as often as this says.
    "Cache-Control": "max-age=300",
    # A picture that is opened as a page by itself does nothing either.
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}


def badge_routes(answering: Answering) -> list[web.RouteDef]:
    """List the route that answers ``GET /badge/{id}.svg``."""
    took = answering.telemetry.answers.labels("badge")

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            await answering.admit(request, Scope.TOCK)
            with took.time():
                item = item_of(request.rel_url.raw_path, _PREFIX, _SUFFIX)
                asked = read_parameters(request.query, answering.now(), PARAMETERS)
                picture = await badge(answering.store, item, asked, read_look(request.query))
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return problem(error)
        answer = answered(request, picture.encode(), "image/svg+xml", "utf-8")
        answer.headers.update(_HEADERS)
        return answer

    # Not `.+`: an id may hold line feeds.
    return [web.get(r"/badge/{id:[\s\S]+}.svg", handle)]


_STATUS: Final = {"serviceactive": True, "description": "COUNTER research data usage reports of a Metronome"}
_REPORTS: Final = [
    {
        "report-name": REPORT_NAME,
        "report-id": REPORT_ID,
        "release": RELEASE,
        "report-description": "usage by month and dataset",
        "path": f"/reports/{REPORT_ID}",
    }
]
_COUNTER: Final = "/counter/"
_GZIP: Final = "gzip"
_ITEMS: Final = (2, 64)
_REPORTS_OF_ALL: Final = (1, 4)
"""How many are worked on at once, and how many more may wait."""
_PATIENCE_SECONDS: Final = 8.0
"""Together with what counting may take, less than the minute that a worker waits."""


def counter_routes(answering: Answering, platform: Platform) -> list[web.RouteDef]:
    """List the routes, and beside SUSHI's that of an item's usage.

    Args:
        answering: what they need.
        platform: what reports say of every dataset.

    """
    of_items = Turns(*_ITEMS, _PATIENCE_SECONDS)
    of_all = Turns(*_REPORTS_OF_ALL, _PATIENCE_SECONDS)

    async def get_usage(request: web.Request) -> bytes:
        item = item_of(request.rel_url.raw_path, _COUNTER)
        asked = read_parameters(request.query, answering.now(), COUNTER_PARAMETERS)
        async with of_items.taken():
            return orjson.dumps(await usage(answering.store, item, asked))

    async def get_report(request: web.Request) -> bytes:
        name = request.match_info["report"]
        if name.lower() != REPORT_ID:
            raise NoSuchPage(f"there is no report {name[:60]!r}: ask for {REPORT_ID}")
        asked = read_harvest(request.query, answering.now())
        async with of_all.taken() if asked.dataset is None else of_items.taken():
            return await dataset_report(answering.store, asked, platform)

    async def get_status(_: web.Request) -> bytes:
        return orjson.dumps(_STATUS)

    async def get_reports(_: web.Request) -> bytes:
        return orjson.dumps(_REPORTS)

    return [
        # Not `.+`: an id may hold line feeds.
        web.get(rf"{_COUNTER}{{id:[\s\S]+}}.json", _handler("counter", get_usage, answering)),
        web.get(f"{_COUNTER}status", _handler("counter_status", get_status, answering)),
        web.get(f"{_COUNTER}reports", _handler("counter_reports", get_reports, answering)),
        web.get(f"{_COUNTER}reports/{{report}}", _handler("counter_report", get_report, answering, _scope_of)),
    ]


def _scope_of_item(_: web.Request) -> Scope:
    return Scope.TOCK


def _scope_of(request: web.Request) -> Scope:
    return Scope.TOCK if request.query.get("dataset_id") else Scope.QUERY


def _handler(
    name: str,
    ask: Callable[[web.Request], Awaitable[bytes]],
    answering: Answering,
    scope_of: Callable[[web.Request], Scope] = _scope_of_item,
) -> Handler:
    took = answering.telemetry.answers.labels(name)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            await answering.admit(request, scope_of(request), request.query.get("api_key", ""))
            with took.time():
                body = await ask(request)
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return problem(error)
        return _packed(request, answered(request, body, "application/json"))

    return handle


def _packed(request: web.Request, response: web.Response) -> web.Response:
    """Have an answer packed for those who take that; its tag is then one of the same answer, not of the same bytes."""
    response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
    if _takes_gzip(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
        response.headers[hdrs.ETAG] = f"W/{response.headers[hdrs.ETAG]}"
        if response.body is not None:
            response.enable_compression(web.ContentCoding.gzip)
    return response


def _takes_gzip(accepted: str) -> bool:
    for one in accepted.lower().split(","):
        coding, _, quality = one.partition(";")
        if coding.strip() == _GZIP:
            return quality.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


PATH: Final = "/documents"
_AHEAD: Final = timedelta(days=1)
_ATTEMPTS: Final = 5
_PAUSE_SECONDS: Final = 0.5


class _Checked(NamedTuple):
    """The lines of a body: what is a document, where each of them stood, and why the others are none."""

    documents: list[bytes]
    places: list[int]
    rejected: dict[int, str]


class _Restored(NamedTuple):
    known: int
    refused: dict[bytes, str]


def document_routes(answering: Answering, max_bytes: int, max_events: int) -> list[web.RouteDef]:
    """List the route, which answers for what is in the store, and not in a spool: documents are archived already.

    Args:
        answering: what it needs.
        max_bytes: how large a request's body may be.
        max_events: how many documents it may hold.

    """
    restorer = _Restorer(answering)

    async def post_documents(request: web.Request) -> web.StreamResponse:
        try:
            await answering.admit(request, Scope.IMPORT)
            body = await read_body(request, max_bytes)
            checked = await asyncio.to_thread(_check, body, stamp_of(answering.now() + _AHEAD), max_events)
            known, refused = await restorer.restore(checked.documents)
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return problem(error)
        rejected = checked.rejected | {
            place: refused[document]
            for place, document in zip(checked.places, checked.documents, strict=True)
            if document in refused
        }
        told = {
            "accepted": len(checked.documents) + len(checked.rejected) - len(rejected),
            "known": known,
            "rejected": [{"index": index, "error": rejected[index]} for index in sorted(rejected)],
        }
        return web.Response(body=orjson.dumps(told), content_type="application/json", headers=ANY_ORIGIN)

    return [web.post(PATH, post_documents)]


class _Restorer:
    """Writes documents into the store, and is done once it has them."""

    def __init__(self, answering: Answering) -> None:
        self._store: Store = answering.store
        self._telemetry = answering.telemetry
        self._is_set_up = False

    async def restore(self, documents: list[bytes]) -> _Restored:
        """Write documents.

        Raises:
            StoreAway: it does not answer, or is busy for long.
            StoreDenied: it lets nobody write.

        """
        if not self._is_set_up:
            await self._store.setup()
            self._is_set_up = True
        left: Batch | None = Batch.of(documents) if documents else None
        known, refused = 0, dict[bytes, str]()
        for _ in range(_ATTEMPTS):
            if left is None:
                break
            verdicts = await self._store.write(left)
            self._count(verdicts)
            known += verdicts.duplicates
            refused |= {refusal.document: refusal.reason for refusal in verdicts.refused}
            left = verdicts.again
            if left is not None:
                await asyncio.sleep(_PAUSE_SECONDS)
        if left is not None:
            raise StoreAway(f"the store is too busy for {left.count} of {len(documents)} documents")
        return _Restored(known, refused)

    def _count(self, verdicts: Verdicts) -> None:
        self._telemetry.shipped.inc(verdicts.stored)
        self._telemetry.duplicates.inc(verdicts.duplicates)


def _check(body: bytes, latest: str, max_events: int) -> _Checked:
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if len(lines) > max_events:
        raise TooLarge(f"the body holds over batch_max_events ({max_events}) documents: send fewer at once")
    documents, places, rejected = [], [], {}
    for index, line in enumerate(lines):
        try:
            documents.append(checked_document(line, latest))
            places.append(index)
        except Malformed as error:
            rejected[index] = str(error)
    return _Checked(documents, places, rejected)


QUERIES_PATH: Final = "/query"
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
        web.get(QUERIES_PATH, _queries_handler(read_get, names, answering)),
        web.post(QUERIES_PATH, _queries_handler(read_post, names, answering)),
    ]


def _queries_handler(read: Callable[[web.Request], Awaitable[Given]], names: Names, answering: Answering) -> Handler:
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
