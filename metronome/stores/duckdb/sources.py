"""Where the events of a query come from: tables and segments, which hold fields in different ways, as one relation.

A field is a column of a table or segment, or it has to be read from the document. `EventColumns` collects the fields
that a statement uses, and then writes a relation that has each of them as one column, whatever holds it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from metronome.fields import ROLLUP_FIELDS, VALUE_MAX_CHARACTERS, is_top_level_name, param_name
from metronome.stores.query import replace_lone_surrogates

TEXT: Final = "VARCHAR"
WHOLE_NUMBER: Final = "BIGINT"
NUMBER: Final = "DOUBLE"
EMPTY: Final = ""
"""The type of a field that no document of a segment has; the segment has no column for it."""

EVENT_ID: Final = "event_id"
LENGTH_LIMITED_FIELDS: Final = frozenset((*ROLLUP_FIELDS, EVENT_ID))
"""On ingest these are only accepted if they are short enough to be counted."""
PARAMS_PREFIX: Final = "params."


@dataclass(frozen=True, slots=True)
class Part:
    """A table, or segments with the same columns.

    Attributes:
        relation: SQL that can follow ``FROM``; it has the columns ``ts`` and ``doc``.
        columns: the type of each column by its name (see `column_name`); other fields are read from the document.
        has_long_texts: whether columns have texts that are too long to be counted, too.
        number: identifies the part; that of a segment is its ID.

    """

    relation: str
    columns: Mapping[str, str]
    has_long_texts: bool
    number: int


class EventSource(Protocol):
    """What has parts: a snapshot of the store, or a single table."""

    def parts(
        self, columns: Iterable[str], start: datetime | None, end: datetime | None, *, separate: bool
    ) -> list[Part]:
        """Return the parts that may have events in a time range.

        Args:
            columns: the columns that are used; parts with the same ones may be returned as one.
            start: as in `metronome.stores.query.Query`.
            end: as in `metronome.stores.query.Query`.
            separate: whether to return each segment as its own part.

        """


def column_name(name: str) -> str:
    """Return the name of a field's column."""
    return name if is_top_level_name(name) else PARAMS_PREFIX + param_name(replace_lone_surrogates(name))


def json_pointer(column: str) -> str:
    """Return the JSON pointer to the field of a column in documents."""
    if not column.startswith(PARAMS_PREFIX):
        return f"/{column}"
    return "/params/" + column.removeprefix(PARAMS_PREFIX).replace("~", "~0").replace("/", "~1")


def quote_literal(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class EventColumns:
    """The fields that a statement uses, as columns of its relation.

    Each method that takes a field's name returns the name of a column. The relation also has ``ts``.
    """

    def __init__(self) -> None:
        self._aliases: dict[tuple[str, str], str] = {}

    def text(self, name: str) -> str:
        """Return the column with a field's text, NULL if it is too long to be counted."""
        return self._alias("raw" if name in LENGTH_LIMITED_FIELDS or not is_top_level_name(name) else "text", name)

    def raw_text(self, name: str) -> str:
        """Return the column with a field's text of any length. In documents it is read faster than `text`."""
        return self._alias("raw", name)

    def raw_column(self, column: str) -> str:
        """Return the column with the text of a field's column (see `column_name`)."""
        return self._aliases.setdefault(("raw", column), f"f{len(self._aliases)}")

    def exists(self, name: str) -> str:
        """Return the column that is true where a field has a text that can be counted; it may be NULL elsewhere."""
        return self._alias("exists", name)

    def number(self, name: str) -> str:
        """Return the column with a field's number, NULL if it has no finite one."""
        return self._alias("number", name)

    def raw_number(self, name: str) -> str:
        """Return the column with a field's number, which may be infinite. In documents it is read faster."""
        return self._alias("raw_number", name)

    def relation(
        self,
        source: EventSource,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        with_document: bool = False,
        with_number: bool = False,
    ) -> str:
        """Return the relation with all columns that were asked for.

        Args:
            source: has the events.
            start: the time range for which parts are chosen; events outside of it are not left out.
            end: as *start*.
            with_document: whether to add the column ``doc``.
            with_number: whether to add ``part``, the number of each event's part.

        """
        columns = dict.fromkeys(column for _, column in self._aliases)
        parts = source.parts(columns, start, end, separate=with_number)
        selections = [self._select(part, with_document=with_document, with_number=with_number) for part in parts]
        return f"({' UNION ALL '.join(selections)})"

    def _alias(self, kind: str, name: str) -> str:
        return self._aliases.setdefault((kind, column_name(name)), f"f{len(self._aliases)}")

    def _select(self, part: Part, *, with_document: bool, with_number: bool) -> str:
        in_document = [
            column for column in dict.fromkeys(name for _, name in self._aliases) if column not in part.columns
        ]
        relation, places = part.relation, {column: f"json[{at}]" for at, column in enumerate(in_document, 1)}
        if in_document:
            # All fields together: reading one parses the whole document.
            pointers = ", ".join(quote_literal(json_pointer(column)) for column in in_document)
            relation = f"(SELECT *, json_extract_string(doc, [{pointers}]) AS json FROM {relation})"
        selection = ["ts"]
        selection += ["doc"] if with_document else []
        selection += [f"{part.number} AS part"] if with_number else []
        selection += [
            f"{_expression(kind, column, part, places.get(column))} AS {alias}"
            for (kind, column), alias in self._aliases.items()
        ]
        return f"SELECT {', '.join(selection)} FROM {relation}"


def _expression(kind: str, column: str, part: Part, place: str | None) -> str:
    """Return the SQL for a field of a part.

    Args:
        kind: the name of the method of `EventColumns`, or ``raw`` for a text of any length.
        column: the field's column.
        part: the part.
        place: where the field is if it was read from the document; None if the part has the column.

    """
    column_type = TEXT if place is not None else part.columns[column]
    value = place or quote_name(column)
    is_limited = (place is None and not part.has_long_texts) or column in LENGTH_LIMITED_FIELDS
    if kind in {"number", "raw_number"}:
        return _number_expression(kind, value if is_limited or kind == "raw_number" else limit_text(value), column_type)
    if column_type == EMPTY:
        return "false" if kind == "exists" else f"NULL::{TEXT}"
    if kind == "exists":
        return f"{value} IS NOT NULL" if is_limited else f"length({value}) <= {VALUE_MAX_CHARACTERS}"
    if column_type != TEXT:
        return f"{value}::{TEXT}"
    return value if is_limited or kind == "raw" else limit_text(value)


def _number_expression(kind: str, value: str, column_type: str) -> str:
    if column_type == EMPTY:
        return f"NULL::{NUMBER}"
    if column_type != TEXT:
        return f"{value}::{NUMBER}"
    number = f"try_cast({value} AS {NUMBER})"
    return number if kind == "raw_number" else f"CASE WHEN isfinite({number}) THEN {number} END"


def limit_text(expression: str) -> str:
    """Return the SQL for a text, NULL if it is too long to be counted."""
    return f"CASE WHEN length({expression}) <= {VALUE_MAX_CHARACTERS} THEN {expression} END"
