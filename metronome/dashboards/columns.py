"""The columns of a panel, as Lens has them: what events are grouped by, and what is worked out of each group."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from metronome.dashboards.data_view import TIME
from metronome.dashboards.objects import Json

RECORDS: Final = "___records___"
"""What Lens calls the field of which it counts events."""

_NUMBER: Final[Json] = {"dataType": "number", "scale": "ratio", "isBucketed": False}
_NO_NAME: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        id: its name within the panel.
        state: what Lens knows of it.
        parts: columns that it is worked out from, by their names: they are shown nowhere.

    """

    id: str
    state: Json
    parts: Mapping[str, Json] = field(default_factory=dict)

    @property
    def is_group(self) -> bool:
        """Whether it is what events are grouped by."""
        return bool(self.state["isBucketed"])


def by_day(label: str = "Day") -> Column:
    """Group by day, of the time zone that Kibana shows times in; days without events are there too."""
    params = {"interval": "1d", "includeEmptyRows": True, "dropPartials": False}
    return _group(label, "date", "date_histogram", "interval", TIME, params)


def top(source: str, label: str, size: int, order: Column, *, others: bool = False) -> Column:
    """Group by the values of a field, of which only those with the most are shown.

    Each day is a shard of its own, so each is asked for 1,000 values at the least (``accuracyMode``): else what is
    rare on each of many days would be counted wrongly.

    Args:
        source: the field.
        label: what the column is called.
        size: how many values.
        order: of what they have the most.
        others: whether the rest is shown as one.

    """
    params = {
        "size": size,
        "accuracyMode": True,
        "orderBy": {"type": "column", "columnId": order.id},
        "orderDirection": "desc",
        "otherBucket": others,
        "missingBucket": False,
        "parentFormat": {"id": "terms"},
        "include": [],
        "exclude": [],
        "includeIsRegex": False,
        "excludeIsRegex": False,
    }
    return _group(label, "string", "terms", "ordinal", source, params)


def split(label: str, *parts: tuple[str, str]) -> Column:
    """Group by which of some queries events match; *parts* are labels and their queries in KQL."""
    params = {"filters": [{"label": name, "input": _kql(query)} for name, query in parts]}
    return _group(label, "string", "filters", "ordinal", "", params)


def count(label: str, only: str = "") -> Column:
    """Count events, if need be only those that match a query in KQL."""
    return _metric(label, "count", RECORDS, {"emptyAsNull": True}, only)


def values(label: str, source: str) -> Column:
    """Count the events that have a value in a field."""
    return _metric(label, "count", source, {"emptyAsNull": True})


def distinct(label: str, source: str, only: str = "") -> Column:
    """Count the different values of a field; of more than 3,000 Kibana estimates their number."""
    return _metric(label, "unique_count", source, {"emptyAsNull": True}, only)


def percentile(label: str, source: str, percent: int) -> Column:
    """Work out a percentile of a field's numbers."""
    return _metric(label, "percentile", source, {"percentile": percent})


def latest(label: str) -> Column:
    """Tell when the newest event was."""
    column = _metric(label, "max", TIME, {"emptyAsNull": True})
    return Column(column.id, {**column.state, "dataType": "date"})


def share(label: str, only: str) -> Column:
    """Work out the share of events that match a query in KQL.

    It is a formula, and what Lens makes of one: a count of these events, one of all, and their quotient.
    """
    formula = f"count(kql='{only}') / count()"
    name = _name(label)
    some, whole, quotient = (f"{name}X{at}" for at in range(3))
    tree = {
        "type": "function",
        "name": "divide",
        "args": [some, whole],
        "location": {"min": 0, "max": len(formula)},
        "text": formula,
    }
    part = f"Part of {label}"
    parts = {
        some: _metric(part, "count", RECORDS, {"emptyAsNull": False}, only).state,
        whole: _metric(part, "count", RECORDS, {"emptyAsNull": False}).state,
        quotient: _worked_out(part, "math", {"tinymathAst": tree}, some, whole),
    }
    params = {"formula": formula, "isFormulaBroken": False, "format": {"id": "percent", "params": {"decimals": 1}}}
    return Column(name, _worked_out(label, "formula", params, quotient), parts)


def _group(label: str, data: str, operation: str, scale: str, source: str, params: Json) -> Column:
    state = {"operationType": operation, "dataType": data, "scale": scale, "isBucketed": True, "params": params}
    return Column(_name(label), {**_labelled(label), **state, **({"sourceField": source} if source else {})})


def _metric(label: str, operation: str, source: str, params: Json, only: str = "") -> Column:
    state = {"operationType": operation, "sourceField": source, "params": params, **_NUMBER}
    return Column(_name(label), {**_labelled(label), **state, **({"filter": _kql(only)} if only else {})})


def _worked_out(label: str, operation: str, params: Json, *references: str) -> Json:
    state = {"operationType": operation, "params": params, "references": [*references], **_NUMBER}
    return {**_labelled(label), **state}


def _labelled(label: str) -> Json:
    return {"label": label, "customLabel": True}


def _kql(query: str) -> Json:
    return {"query": query, "language": "kuery"}


def _name(label: str) -> str:
    return f"c-{_NO_NAME.sub('-', label.lower()).strip('-')}"
