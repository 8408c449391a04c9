"""Reports as CSV, with a line of names first."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from metronome.reports.micrometrics.limits import too_much
from metronome.reports.sheets import csv_text

MAX_COLUMNS: Final = 1000
MAX_CELLS: Final = 10_000_000

_MEASURES: Final = {"Sum": "sum", "Avg": "avg", "Max": "max", "Min": "min"}
_GROUPS: Final = ("tags", "fields", "data")


def documents_table(documents: Sequence[bytes]) -> str:
    """Write documents: each tag, field and entry of data is a column, tagKeys one with commas.

    Args:
        documents: each as JSON.

    Raises:
        Unaskable: there would be too many columns.

    """
    inner: dict[str, set[str]] = {group: set() for group in _GROUPS}
    for line in documents:
        tracked = orjson.loads(line)
        for group in _GROUPS:
            inner[group].update(tracked[group])
        _check(sum(map(len, inner.values())), len(documents))
    columns: list[tuple[str, str]] = [("type", "")]
    columns += [("tags", name) for name in sorted(inner["tags"])]
    columns += [("fields", name) for name in sorted(inner["fields"])]
    columns += [("value", "")]
    columns += [("data", name) for name in sorted(inner["data"])]
    columns += [("userId", ""), ("sessionId", ""), ("createdOn", ""), ("tagKeys", "")]
    names = [f"{group}.{name}" if group in _GROUPS else group for group, name in columns]
    return csv_text(names, (_cells(orjson.loads(line), columns) for line in documents))


def aggregate_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the measures of values by time."""
    cells = ([row["dateString"], *(row[name] for name in _MEASURES.values())] for row in rows)
    return csv_text(["Date", *_MEASURES], cells)


def groupby_table(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Write the sums by time: one column for each value of the tag, zeros where it had none.

    Raises:
        Unaskable: there would be too many columns.

    """
    sums: dict[tuple[int, ...], dict[str, Any]] = {}
    for value, rows in groups.items():
        for row in rows:
            here = row["_id"]
            moment = (
                here["year"],
                here["month"],
                here["day"],
                *(here[unit] for unit in ("hour", "minute") if unit in here),
            )
            sums.setdefault(moment, {})[value] = row["sum"]
    values = sorted(groups)
    _check(len(values), len(sums))
    names = ["Date", *(value[:1].upper() + value[1:] for value in values)]
    cells = ([_date(moment), *(sums[moment].get(value, 0) for value in values)] for moment in sorted(sums))
    return csv_text(names, cells)


def unique_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write the different values of a field, with what their documents have in JSON."""
    names = ("_id", "types", "tags", "values", "data", "count")
    return csv_text(names, ([row[name] for name in names] for row in rows))


def count_table(count: int) -> str:
    """Write a single count."""
    return csv_text(["count"], [[count]])


def _cells(tracked: Mapping[str, Any], columns: Sequence[tuple[str, str]]) -> list[Any]:
    row = {**tracked, "tagKeys": ",".join(tracked["tagKeys"])}
    return [row[group].get(name) if group in _GROUPS else row.get(group) for group, name in columns]


def _date(moment: tuple[int, ...]) -> str:
    year, month, day, *time = moment
    clock = f" {time[0]:02}:{(time[1:] or [0])[0]:02}" if time else ""
    return f"{day}/{month}/{year}{clock}"


def _check(columns: int, rows: int) -> None:
    if columns > MAX_COLUMNS or columns * rows > MAX_CELLS:
        raise too_much(f"over {MAX_COLUMNS} columns or {MAX_CELLS} cells")
