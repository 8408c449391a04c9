"""The routes that answer the reports of micro-metrics, with errors in that protocol's own shape."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from metronome.errors import MetronomeError, Unaskable
from metronome.protocol import Request
from metronome.protocols.micro_metrics import reports as found
from metronome.protocols.micro_metrics import reports as measures
from metronome.protocols.micro_metrics import reports as names
from metronome.protocols.micro_metrics import reports as tables
from metronome.protocols.micro_metrics import track
from metronome.protocols.micro_metrics.payloads import KEY
from metronome.protocols.micro_metrics.reports import ALL, USUAL_LAST, read_asked
from metronome.scopes import Scope
from metronome.web.handlers import Answering, Handler, answered
from metronome.web.problems import refusal

_JSON: Final = "application/json"
_CSV: Final = "text/csv"
_CSV_ENDING: Final = ".csv"
_NO_REQUEST: Final = Request(b"", "", 0)


class _Report(NamedTuple):
    """One report.

    Attributes:
        path: its address.
        ask: answers it, of the store, what it is asked with and, where there is one, its own parameter.
        shape: makes what is sent as JSON of that answer.
        table: makes CSV of that answer, at the address with ``.csv``; None where there is none.
        own: its own parameter, which it needs.
        last: how far it looks back if nothing is said of that.

    """

    path: str
    ask: Callable[..., Awaitable[Any]]
    shape: Callable[[Any], Any]
    table: Callable[[Any], str] | None = None
    own: str = ""
    last: str = USUAL_LAST


def _as_it_is(answer: Any) -> Any:
    return answer


def _counted(answer: list[Any]) -> dict[str, Any]:
    return {"count": len(answer), "results": answer}


_REPORTS: Final = (
    _Report(
        "/api/report", found.report, lambda lines: _counted([*map(orjson.Fragment, lines)]), tables.documents_table
    ),
    _Report("/api/report/count", found.count, lambda count: {"count": count}, tables.count_table),
    _Report("/api/report/aggregate", measures.aggregate, _as_it_is, tables.aggregate_table),
    _Report("/api/report/groupby", measures.groupby, _as_it_is, tables.groupby_table, "groupby"),
    _Report("/api/report/unique", found.unique, _counted, tables.unique_table, "unique"),
    _Report("/api/tags", names.tags, _as_it_is, last=ALL),
    _Report("/api/tag-values", names.tag_values, _as_it_is, own="tag", last=ALL),
    _Report("/api/types", names.types, _counted, last=ALL),
)


def report_routes(answering: Answering) -> list[web.RouteDef]:
    """List the routes."""
    plain = [web.get(report.path, _handler(report, _in_json, answering)) for report in _REPORTS]
    tabular = [
        web.get(report.path + _CSV_ENDING, _handler(report, _in_csv, answering)) for report in _REPORTS if report.table
    ]
    return plain + tabular


def _handler(report: _Report, write: Callable[[_Report, Any], bytes], answering: Answering) -> Handler:
    took = answering.telemetry.answers.labels(f"micrometrics_{report.path.rpartition('/')[2]}")
    media, charset = (_CSV, "utf-8") if write is _in_csv else (_JSON, None)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            await answering.admit(request, Scope.QUERY, request.query.get(KEY, ""))
            with took.time():
                # Beside the loop: what is large takes a second to be written.
                body = await asyncio.to_thread(write, report, await _ask(report, request, answering))
        except MetronomeError as error:
            answering.telemetry.refuse(error)
            return refusal(track, _NO_REQUEST, error)
        return answered(request, body, media, charset)

    return handle


async def _ask(report: _Report, request: web.Request, answering: Answering) -> Any:
    query = request.query
    asked = read_asked(query, answering.now(), report.own, report.last)
    if not report.own:
        return await report.ask(answering.store, asked)
    if not query.get(report.own):
        raise Unaskable(f'"{report.own}" is required')
    return await report.ask(answering.store, asked, query[report.own])


def _in_json(report: _Report, answer: Any) -> bytes:
    return orjson.dumps(report.shape(answer))


def _in_csv(report: _Report, answer: Any) -> bytes:
    return report.table(answer).encode() if report.table else b""
