"""The columns of a panel, as Lens has them: what events are grouped by, and what is worked out of each group."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from metronome.dashboards.data_view import TIME_FIELD
from metronome.dashboards.objects import Json

RECORDS_FIELD: Final = "___records___"
"""What Lens calls the field of which it counts events."""

_NUMBER_STATE: Final[Json] = {"dataType": "number", "scale": "ratio", "isBucketed": False}
_NON_ID_CHARACTERS: Final = re.compile(r"[^a-z0-9]+")


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
    hidden_columns: Mapping[str, Json] = field(default_factory=dict)

    @property
    def is_bucketed(self) -> bool:
        """Whether it is what events are grouped by."""
        return bool(self.state["isBucketed"])


def date_histogram(label: str = "Day") -> Column:
    """Group by day, of the time zone that Kibana shows times in; days without events are there too."""
    params = {"interval": "1d", "includeEmptyRows": True, "dropPartials": False}
    return _bucket_column(label, "date", "date_histogram", "interval", TIME_FIELD, params)


def top_values(source_field: str, label: str, size: int, order: Column, *, include_other: bool = False) -> Column:
    """Group by the values of a field, of which only those with the most are shown.

    Each day is a shard of its own, so each is asked for 1,000 values at the least (``accuracyMode``): else what is
    rare on each of many days would be counted wrongly.

    Args:
        source_field: the field.
        label: what the column is called.
        size: how many values.
        order: of what they have the most.
        include_other: whether the rest is shown as one.

    """
    params = {
        "size": size,
        "accuracyMode": True,
        "orderBy": {"type": "column", "columnId": order.id},
        "orderDirection": "desc",
        "otherBucket": include_other,
        "missingBucket": False,
        "parentFormat": {"id": "terms"},
        "include": [],
        "exclude": [],
        "includeIsRegex": False,
        "excludeIsRegex": False,
    }
    return _bucket_column(label, "string", "terms", "ordinal", source_field, params)


def filter_buckets(label: str, *labelled_queries: tuple[str, str]) -> Column:
    """Group by which of some queries events match; *labelled_queries* are labels and their queries in KQL."""
    params = {"filters": [{"label": name, "input": _kql_query(query)} for name, query in labelled_queries]}
    return _bucket_column(label, "string", "filters", "ordinal", "", params)


def count_events(label: str, kql: str = "") -> Column:
    """Count events, if need be only those that match a query in KQL."""
    return _metric_column(label, "count", RECORDS_FIELD, {"emptyAsNull": True}, kql)


def count_values(label: str, source_field: str) -> Column:
    """Count the events that have a value in a field."""
    return _metric_column(label, "count", source_field, {"emptyAsNull": True})


def unique_count(label: str, source_field: str, kql: str = "") -> Column:
    """Count the different values of a field; of more than 3,000 Kibana estimates their number."""
    return _metric_column(label, "unique_count", source_field, {"emptyAsNull": True}, kql)


def percentile(label: str, source_field: str, percent: int) -> Column:
    """Work out a percentile of a field's numbers."""
    return _metric_column(label, "percentile", source_field, {"percentile": percent})


def last_timestamp(label: str) -> Column:
    """Tell when the newest event was."""
    column = _metric_column(label, "max", TIME_FIELD, {"emptyAsNull": True})
    return Column(column.id, {**column.state, "dataType": "date"})


def ratio(label: str, kql: str) -> Column:
    """Work out the share of events that match a query in KQL.

    It is a formula, and what Lens makes of one: a count of these events, one of all, and their quotient.
    """
    formula = f"count(kql='{kql}') / count()"
    name = _column_id(label)
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
        some: _metric_column(part, "count", RECORDS_FIELD, {"emptyAsNull": False}, kql).state,
        whole: _metric_column(part, "count", RECORDS_FIELD, {"emptyAsNull": False}).state,
        quotient: _computed_state(part, "math", {"tinymathAst": tree}, some, whole),
    }
    params = {"formula": formula, "isFormulaBroken": False, "format": {"id": "percent", "params": {"decimals": 1}}}
    return Column(name, _computed_state(label, "formula", params, quotient), parts)


def _bucket_column(label: str, data: str, operation: str, scale: str, source: str, params: Json) -> Column:
    state = {"operationType": operation, "dataType": data, "scale": scale, "isBucketed": True, "params": params}
    return Column(_column_id(label), {**_label_state(label), **state, **({"sourceField": source} if source else {})})


def _metric_column(label: str, operation: str, source: str, params: Json, only: str = "") -> Column:
    state = {"operationType": operation, "sourceField": source, "params": params, **_NUMBER_STATE}
    return Column(_column_id(label), {**_label_state(label), **state, **({"filter": _kql_query(only)} if only else {})})


def _computed_state(label: str, operation: str, params: Json, *references: str) -> Json:
    state = {"operationType": operation, "params": params, "references": [*references], **_NUMBER_STATE}
    return {**_label_state(label), **state}


def _label_state(label: str) -> Json:
    return {"label": label, "customLabel": True}


def _kql_query(query: str) -> Json:
    return {"query": query, "language": "kuery"}


def _column_id(label: str) -> str:
    return f"c-{_NON_ID_CHARACTERS.sub('-', label.lower()).strip('-')}"
