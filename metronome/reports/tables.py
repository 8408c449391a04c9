"""Reports as tables: the rows of the CSV and NDJSON forms of each report.

A report has several parts, a table has one: its first columns say which part a row belongs to.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from metronome.reports.csv import format_csv, format_csv_rows

Row = tuple[Any, ...]

_USAGE_METRICS: Final = ("total_investigations", "unique_investigations", "total_requests", "unique_requests")
_PERCENTILES: Final = ("count", "p50", "p75", "p95")


class Table(NamedTuple):
    """A report as a table.

    Attributes:
        columns: the names of the columns.
        rows: the values of each row; None for a column that a row has no value for.

    """

    columns: tuple[str, ...]
    rows: list[Row]


def build_report_table(name: str, report: dict[str, Any]) -> Table:
    """Return a report as a table.

    Args:
        name: the name of the report in paths, such as ``tock``.
        report: what it returned.

    """
    columns, iterate_rows = _TABLES[name](report)
    return Table(columns, list(iterate_rows))


def encode_csv(columns: Iterable[str], rows: Iterable[Row], *, header: bool = True) -> bytes:
    """Return rows as CSV, below the names of the columns unless *header* is false."""
    return (format_csv(columns, rows) if header else format_csv_rows(rows)).encode()


def encode_ndjson(columns: Iterable[str], rows: Iterable[Row], *, header: bool = True) -> bytes:  # noqa: ARG001  # as for CSV
    """Return each row as a JSON object on its own line."""
    names = tuple(columns)
    return b"".join(orjson.dumps(dict(zip(names, row, strict=True)), option=orjson.OPT_APPEND_NEWLINE) for row in rows)


ENCODERS: Final[dict[str, Callable[..., bytes]]] = {"csv": encode_csv, "ndjson": encode_ndjson}
"""The encoders of tables by the suffix of paths."""
MEDIA_TYPES: Final = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
"""The media types of tables by the suffix of paths."""


_Parts = tuple[tuple[str, ...], Iterable[Row]]


def _tock_table(report: dict[str, Any]) -> _Parts:
    columns = ("part", "label", "count")
    if "items" not in report:
        return columns, _iterate_counts(report)
    return ("id", *columns), ((item, *row) for item, each in report["items"].items() for row in _iterate_counts(each))


def _iterate_counts(report: dict[str, Any]) -> Iterator[Row]:
    for part in ("views", "downloads", "referers", "totals"):
        yield from ((part, label, count) for label, count in report[part].items())


def _items_table(report: dict[str, Any]) -> _Parts:
    columns = tuple(report["items"][0]) if report["items"] else ("id", "views", "downloads")
    return columns, (tuple(item.values()) for item in report["items"])


def _flow_table(report: dict[str, Any]) -> _Parts:
    if "transitions" in report:
        return ("from", "to", "count"), _iterate_transitions(report)
    return ("part", "steps", "id", "count"), _iterate_steps(report)


def _iterate_transitions(report: dict[str, Any]) -> Iterator[Row]:
    """Yield transitions; sessions begin with one from nowhere, and end with one to nowhere."""
    yield from ((None, item, count) for item, count in report["entries"].items())
    yield from ((each["from"], each["to"], each["count"]) for each in report["transitions"])
    yield from ((item, None, count) for item, count in report["exits"].items())


def _iterate_steps(report: dict[str, Any]) -> Iterator[Row]:
    yield from ((part, None, None, report[part]) for part in ("sessions", "entries", "exits"))
    for part, nearest in (("before", "previous"), ("after", "next")):
        for steps, counts in enumerate(report.get(part, [report[nearest]]), 1):
            yield from ((part, steps, item, count) for item, count in counts.items())


def _time_table(report: dict[str, Any]) -> _Parts:
    def rows() -> Iterator[Row]:
        yield ("on_item", None, *(report["on_item"][name] for name in _PERCENTILES))
        for timing, days in report["timings"].items():
            yield from ((timing, day, *(numbers[name] for name in _PERCENTILES)) for day, numbers in days.items())

    return ("part", "day", *_PERCENTILES), rows()


def _errors_table(report: dict[str, Any]) -> _Parts:
    def rows() -> Iterator[Row]:
        yield from (("day", day, None, count, None, None, None) for day, count in report["days"].items())
        for each in report["messages"]:
            yield ("message", each["message"], None, each["count"], each["sessions"], each["first"], each["last"])
        for each in report["browsers"]:
            yield ("browser", each["browser"], each["version"], each["count"], each["sessions"], None, None)
        yield from (("item", each["id"], None, each["count"], None, None, None) for each in report.get("items", ()))

    return ("part", "label", "version", "count", "sessions", "first", "last"), rows()


def _recommendations_table(report: dict[str, Any]) -> _Parts:
    if "pairs" in report:
        rows = ((*pair["items"], pair["score"], pair["visitors"]) for pair in report["pairs"])
        return ("id", "other_id", "score", "visitors"), rows
    return ("id", "score", "visitors"), ((each["id"], each["score"], each["visitors"]) for each in report["items"])


def _counter_table(report: dict[str, Any]) -> _Parts:
    def rows() -> Iterator[Row]:
        for month, usage in report["months"].items():
            for part, numbers in (("all", usage), ("machine", usage.get("machine"))):
                if numbers is not None:
                    yield (month, part, None, *(numbers.get(name) for name in _USAGE_METRICS))
                    for country, counts in numbers.get("countries", {}).items():
                        yield (month, part, country, *(counts.get(name) for name in _USAGE_METRICS))

    return ("month", "part", "country", *_USAGE_METRICS), rows()


def _funnel_table(report: dict[str, Any]) -> _Parts:
    names = ("sessions", "visitors", "share", "share_of_first", "median_ms")
    rows = ((at, each["step"], *(each[name] for name in names)) for at, each in enumerate(report["steps"], 1))
    return ("number", "step", *names), rows


def _fields_table(report: dict[str, Any]) -> _Parts:
    rows = ((each["name"], each["type"], each["share"], ", ".join(each["examples"])) for each in report["fields"])
    return ("name", "type", "share", "examples"), rows


_TABLES: Final[dict[str, Callable[[dict[str, Any]], _Parts]]] = {
    "tock": _tock_table,
    "items": _items_table,
    "flow": _flow_table,
    "funnel": _funnel_table,
    "fields": _fields_table,
    "time": _time_table,
    "errors": _errors_table,
    "recommendations": _recommendations_table,
    "counter": _counter_table,
}
