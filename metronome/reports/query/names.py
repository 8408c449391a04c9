"""The names that can be asked for, and which are near to one that cannot.

Whoever asks for a field that nothing has is told so, and not answered with zeros. What is known of a name is
remembered, so that good questions cost nothing more.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from difflib import get_close_matches
from itertools import chain, islice
from time import monotonic
from typing import Final, NamedTuple

from metronome.errors import InvalidQuery, Overloaded, QueryTooExpensive
from metronome.reports.query.request import NUMERIC_METRICS, QUERY_PARAMETERS, FieldFilter, ParsedQuery
from metronome.reports.query.series import empty_value
from metronome.stores.base import Store
from metronome.stores.query import (
    COUNT,
    TIME_UNITS,
    AllOf,
    AnyOf,
    Exists,
    Filter,
    Metric,
    MetricKind,
    Not,
    Query,
    QueryResult,
    Range,
)

TEXT_FIELDS: Final = (
    *("id", "event", "event_id", "format", "referer", "referer_url", "url", "title", "message", "error_group"),
    *("user", "session", "visitor", "clientip", "agent", "browser", "browser_version", "os", "os_version", "device"),
    *("bot", "bot_kind", "country", "channel", "referer_group", "method"),
    *("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "enrich_version"),
)
"""Fields that Metronome knows, so that they can be asked for even while no document has them."""

NUMBER_FIELDS: Final = (
    *("duration", "value", "status", "bytes", "TTFB", "FCP", "LCP", "CLS", "INP"),
    *("pf_net", "pf_srv", "pf_tfr", "pf_dm1", "pf_dm2", "pf_onl"),
)
"""Likewise, those that hold numbers."""

FIELDS_MAX_AGE_SECONDS: Final = 2.0
"""How old the list of names may be that says of one that nothing has it."""

_KNOWN_FIELDS: Final = frozenset({*TEXT_FIELDS, *NUMBER_FIELDS})
_TIME_NAMES: Final = frozenset({"@timestamp", "timestamp", "ts", "time", "date", *TIME_UNITS})
TOP_LEVEL_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
"""Names that are looked for nowhere but at a document's top level."""
_CACHE_MAX_NAMES: Final = 10_000
_SUGGESTION_MAX_CANDIDATES: Final = 500
"""How many names are looked through for near ones: strangers can have sent any number of them."""
_SUGGESTION_MAX_CHARACTERS: Final = 40
_MAX_SUGGESTIONS: Final = 3
_EXCERPT_CHARACTERS: Final = 60


class FieldChecker:
    """What is known of the names that a store's documents have.

    Args:
        store: is asked for them.
        clock: seconds that only go forward.

    """

    def __init__(self, store: Store, clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._clock = clock
        self._top_level_fields: frozenset[str] = frozenset()
        self._fields_read_at = float("-inf")
        self._existing_fields: set[str] = set()
        self._numeric_fields: set[str] = set()

    async def check_query(self, parsed_query: ParsedQuery) -> None:
        """See, before a question is asked, that what can be known at once is right with its names.

        Raises:
            InvalidQuery: documents have no such field; the message tells near names.

        """
        missing = self._unknown_fields(parsed_query)
        if missing and self._clock() - self._fields_read_at >= FIELDS_MAX_AGE_SECONDS:
            self._top_level_fields = await self._store.list_fields()
            self._fields_read_at = self._clock()
            missing = self._unknown_fields(parsed_query)
        for name in sorted(missing):
            if TOP_LEVEL_NAME.fullmatch(name):
                raise self._unknown_field_error(name)

    async def check_result(self, parsed_query: ParsedQuery, result: QueryResult) -> None:
        """See, where an answer leaves it open, that fields are there and hold the numbers that were asked for.

        Args:
            parsed_query: what was asked.
            result: what the store said for the range itself, without columns that compare.

        Raises:
            InvalidQuery: documents have no such field, or no number in it; the message tells near names.

        """
        fields, numeric = (
            self._unknown_fields(parsed_query),
            parsed_query.numeric_fields - self._numeric_fields - {*NUMBER_FIELDS},
        )
        if not fields and not numeric:
            return
        shown = _fields_in_result(parsed_query, result)
        self._cache_fields(shown.fields & fields, shown.numeric & numeric)
        numeric -= shown.numeric
        for name in sorted((fields - shown.fields) | numeric):
            await self._check_field(name, parsed_query.query, needs_number=name in numeric)

    def _unknown_fields(self, parsed_query: ParsedQuery) -> frozenset[str]:
        return parsed_query.fields - _KNOWN_FIELDS - self._top_level_fields - self._existing_fields

    async def _check_field(self, name: str, query: Query, *, needs_number: bool) -> None:
        """Look in the range that was asked for, and if need be in all that there is."""
        metrics = (COUNT, Metric(MetricKind.VALUE_COUNT, name, name="numbers"))
        here = Query(metrics, where=Exists(name), start=query.start, end=query.end)
        count: object = 0
        for each in dict.fromkeys((here, replace(here, start=None, end=None))):
            try:
                (answer,) = await self._store.query(each)
            except (QueryTooExpensive, Overloaded):
                # Nobody can tell in time, so the answer stands.
                return
            ((count, numbers),) = answer.rows
            if numbers or (count and not needs_number):
                self._cache_fields({name}, {name} if numbers else set())
                return
        if count:
            raise self._not_numeric_error(name)
        if name not in _KNOWN_FIELDS and name not in self._top_level_fields:
            raise self._unknown_field_error(name)

    def _cache_fields(self, existing: Iterable[str], numeric: Iterable[str]) -> None:
        for memory, names in ((self._existing_fields, existing), (self._numeric_fields, numeric)):
            if len(memory) > _CACHE_MAX_NAMES:
                memory.clear()
            memory.update(names)

    def _unknown_field_error(self, name: str) -> InvalidQuery:
        if name in _TIME_NAMES:
            return InvalidQuery(f"no event has a field {name!r}: say from and to for a range, and by=day for a series")
        near = suggest_names(
            name, chain(_KNOWN_FIELDS, QUERY_PARAMETERS, self._existing_fields, self._top_level_fields)
        )
        return InvalidQuery(f"no event has a field {name[:_EXCERPT_CHARACTERS]!r}{near}")

    def _not_numeric_error(self, name: str) -> InvalidQuery:
        numeric = self._numeric_fields | {one for one in NUMBER_FIELDS if one in self._top_level_fields}
        near = suggest_names(name, numeric)
        if numeric and not near:
            near = f"; there are some in {', '.join(sorted(numeric)[:_MAX_SUGGESTIONS])}"
        return InvalidQuery(f"{name[:_EXCERPT_CHARACTERS]} holds no numbers{near}")


def suggest_names(name: str, known: Iterable[str]) -> str:
    """Return a question for the known names that are near to one, in brackets; nothing if none is."""
    if len(name) > _SUGGESTION_MAX_CHARACTERS:
        return ""
    folded: dict[str, str] = {}
    similar = (one for one in known if len(one) <= 2 * len(name) + 2)
    for one in islice(similar, _SUGGESTION_MAX_CANDIDATES):
        folded.setdefault(one.casefold(), one)
    near = [folded[one] for one in get_close_matches(name.casefold(), folded, _MAX_SUGGESTIONS)]
    return f" (do you mean {' or '.join(near)}?)" if near else ""


class _ResultFields(NamedTuple):
    fields: frozenset[str]
    numeric: frozenset[str]


def _fields_in_result(parsed_query: ParsedQuery, result: QueryResult) -> _ResultFields:
    """Return of which fields an answer shows that events have them, and of which that these hold numbers."""
    by = parsed_query.query.group_by
    fields, numeric = set(by if result.total else ()), set[str]()
    has_events = bool(by and result.total)
    for at, metric in enumerate(parsed_query.metrics, start=len(by)):
        found = {row[at] for row in result.rows} - {None}
        if found and (found != {0} or empty_value(metric) is None):
            has_events = True
            fields.add(metric.field)
            numeric |= {metric.field} if metric.kind in NUMERIC_METRICS else set()
    for each in _required_filters(parsed_query.query.where) if has_events else ():
        fields.add(each.field)
        numeric |= {each.field} if isinstance(each, Range) else set()
    return _ResultFields(frozenset(fields), frozenset(numeric))


def _required_filters(where: Filter | None) -> Iterator[FieldFilter]:
    """Yield the filters on fields that hold for every event that is let through."""
    if isinstance(where, AllOf):
        for inner in where.filters:
            yield from _required_filters(inner)
    elif where is not None and not isinstance(where, (Not, AnyOf)):
        yield where
