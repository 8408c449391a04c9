"""The routes of COUNTER usage: an item's, and the reports of SUSHI, which harvesters of usage statistics fetch.

Table 11.1 of the Code of Practice (see `metronome.reports.counter`) has SUSHI's addresses, which begin where a service
says: here at ``/counter``. A harvester may send its key as ``api_key``, where SUSHI has it. Since all clicks are looked
at one by one, few questions are worked on at once.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from aiohttp import hdrs, web

from metronome.errors import MetronomeError, NoSuchPage
from metronome.keys import Scope
from metronome.reports.counter.harvest import RELEASE, read_harvest
from metronome.reports.counter.sushi import REPORT_ID, REPORT_NAME, Platform, dataset_report
from metronome.reports.counter.usage import PARAMETERS, usage
from metronome.reports.parameters import read_parameters
from metronome.service.problems import problem
from metronome.service.reads import Answering, answered, item_of
from metronome.service.turns import Turns
from metronome.service.writes import Handler

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
        asked = read_parameters(request.query, answering.now(), PARAMETERS)
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
