"""A model of stores, which computes results in the slowest and plainest way, and tests that compare stores with it."""

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4
from zoneinfo import ZoneInfo

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metronome.stores.base import Store
from metronome.stores.query import (
    TIME_UNITS,
    AllOf,
    AnyOf,
    Equals,
    Exists,
    Filter,
    Metric,
    MetricKind,
    Not,
    OneOf,
    Prefix,
    Query,
    QueryResult,
    Range,
    SortKey,
    build_result,
)
from metronome.stores.sequences import EventSequence, SequenceEvent, SequenceQuery, sequence_event_key
from tests.contracts.store_contract import StoreContract, event_document, write_new_documents

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Document = dict[str, Any]
Value = str | int | float | None

_TOP_LEVEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


def expected_result(query: Query, documents: Iterable[Document]) -> QueryResult:
    """Return the result of a query; percentiles are None (see `field_numbers`)."""
    groups: dict[tuple[str, ...], list[Document]] = {} if query.group_by else {(): []}
    for document in documents:
        labels = [_group_value(document, name, query.time_zone) for name in query.group_by]
        key = tuple(label for label in labels if label is not None)
        if matches_query(query, document) and len(key) == len(labels):
            groups.setdefault(key, []).append(document)
    rows: list[tuple[Value, ...]] = [
        (*key, *(_metric_value(metric, members) for metric in query.metrics)) for key, members in groups.items()
    ]
    return build_result(query, rows)


def matches_query(query: Query, document: Document) -> bool:
    """Return whether a document matches a query's filter and time range."""
    moment = _timestamp_of(document)
    in_time = (query.start is None or query.start <= moment) and (query.end is None or moment < query.end)
    return in_time and (query.where is None or matches_filter(query.where, document))


def matches_filter(where: Filter, document: Document) -> bool:  # noqa: PLR0911  # one for each kind of filter
    """Return whether a document matches a filter."""
    match where:
        case Equals(field, value):
            return field_text(document, field) == value
        case OneOf(field, values):
            return field_text(document, field) in values
        case Prefix(field, text):
            return (field_text(document, field) or "").startswith(text) and matches_filter(Exists(field), document)
        case Exists(field):
            return field_text(document, field) is not None
        case Range(field):
            return _is_in_range(where, field_number(document, field))
        case Not(inner):
            return not matches_filter(inner, document)
        case AllOf(inners):
            return all(matches_filter(inner, document) for inner in inners)
        case AnyOf(inners):
            return any(matches_filter(inner, document) for inner in inners)


def field_text(document: Document, field: str) -> str | None:
    """Return a field's value as text, None where it is missing."""
    top = _TOP_LEVEL.fullmatch(field) is not None and field != "params"
    value = document.get(field) if top else document.get("params", {}).get(field)
    if value is None:
        return None
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 1024 else None


def field_number(document: Document, field: str) -> float | None:
    """Return a field's number, None where it has none."""
    value = document.get(field)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def field_numbers(documents: Iterable[Document], field: str) -> list[float]:
    """Return all numbers of a field, the smallest first."""
    numbers = [field_number(document, field) for document in documents]
    return sorted(number for number in numbers if number is not None)


def expected_sequences(sequence_query: SequenceQuery, documents: Iterable[Document]) -> list[EventSequence]:
    """Return sequences in the order of their keys."""
    events: dict[str, list[SequenceEvent]] = {}
    query = Query(where=sequence_query.where, start=sequence_query.start, end=sequence_query.end)
    for document in documents:
        key = field_text(document, sequence_query.key_field)
        if key is not None and matches_query(query, document):
            at = (_timestamp_of(document) - _EPOCH) // timedelta(milliseconds=1)
            events.setdefault(key, []).append(
                SequenceEvent(at, tuple(field_text(document, field) for field in sequence_query.fields))
            )
    return [EventSequence(key, tuple(sorted(events[key], key=sequence_event_key))) for key in sorted(events)]


def expected_newest_values(field: str, limit: int, query: Query, documents: Iterable[Document]) -> tuple[str, ...]:
    """Return the values of a field that have the newest events of a query."""
    last: dict[str, datetime] = {}
    for document in documents:
        value = field_text(document, field)
        if value is not None and matches_query(query, document):
            last[value] = max(_timestamp_of(document), last.get(value, _EPOCH))
    return tuple(sorted(last, key=lambda value: (last[value], value), reverse=True)[:limit])


def _is_in_range(where: Range, number: float | None) -> bool:
    if number is None:
        return False
    return not (
        (where.above is not None and number <= where.above)
        or (where.at_least is not None and number < where.at_least)
        or (where.below is not None and number >= where.below)
        or (where.at_most is not None and number > where.at_most)
    )


def _metric_value(metric: Metric, documents: list[Document]) -> Value:  # noqa: PLR0911  # one for each kind
    if metric.kind is MetricKind.COUNT:
        return len(documents)
    if metric.kind in (MetricKind.VIEWS, MetricKind.DOWNLOADS):
        event = "view" if metric.kind is MetricKind.VIEWS else "download"
        return sum(field_text(document, "event") == event for document in documents)
    if metric.kind is MetricKind.VALUE_COUNT:
        return len(field_numbers(documents, metric.field))
    if metric.kind in (MetricKind.FIRST, MetricKind.LAST):
        stamps = sorted(document["@timestamp"] for document in documents)
        return stamps[0 if metric.kind is MetricKind.FIRST else -1] if stamps else None
    if metric.kind is MetricKind.UNIQUE:
        return len({field_text(document, metric.field) for document in documents} - {None})
    numbers = field_numbers(documents, metric.field)
    if metric.kind is MetricKind.SUM:
        return math.fsum(numbers)
    if not numbers or metric.kind is MetricKind.PERCENTILE:
        return None
    return {MetricKind.MIN: numbers[0], MetricKind.MAX: numbers[-1], MetricKind.AVG: math.fsum(numbers) / len(numbers)}[
        metric.kind
    ]


def _timestamp_of(document: Document) -> datetime:
    return datetime.fromisoformat(document["@timestamp"])


def _group_value(document: Document, name: str, tz: str) -> str | None:  # noqa: PLR0911  # one for each unit
    if name not in TIME_UNITS:
        return field_text(document, name)
    moment = _timestamp_of(document).astimezone(ZoneInfo(tz))
    match name:
        case "all":
            return name
        case "year":
            return f"{moment:%Y}"
        case "quarter":
            return f"{moment:%Y}-Q{(moment.month + 2) // 3}"
        case "month":
            return f"{moment:%Y-%m}"
        case "week":
            return f"{moment.date() - timedelta(days=moment.weekday())}"
        case "day":
            return f"{moment.date()}"
        case _:
            moment = moment.replace(second=0, microsecond=0, minute=moment.minute if name == "minute" else 0)
            return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


UNIQUE_TOLERANCE: Final = 0.02
"""The accepted relative error of an estimate of distinct values."""

TEXTS: Final = ("", "a", "A", "ab", "a*", "é", "👍 y", '"', "'", "\\", "nul\0", "5", "x" * 1024, "x" * 1025)
FIELDS: Final = ("id", "event", "lang", "n", "duration", "utm.source", "a b", "nothing")
NUMBER_FIELDS: Final = ("n", "duration", "nothing")
ZONES: Final = ("UTC", "Europe/Zurich", "America/New_York", "America/St_Johns", "Asia/Kolkata", "Pacific/Auckland")
METRICS: Final = tuple(
    Metric.parse(text)
    for text in (
        "count",
        "views",
        "downloads",
        "first",
        "last",
        "count:n",
        "count:duration",
        "visitors",
        "unique:lang",
        "sum:n",
        "avg:n",
        "min:duration",
        "max:n",
        "p50:n",
        "p90:duration",
    )
)

_quarters = st.integers(-400, 400).map(lambda number: number / 4)
"""Numbers that floats represent exactly, so that sums do not depend on their order."""
_numbers = st.one_of(st.integers(-100, 100), _quarters)
_texts = st.sampled_from(TEXTS)
# Near the hours that clocks in Zurich skip in spring and repeat in autumn; on few days, since each is an index.
_moments = st.builds(
    lambda base, minutes, rest: datetime.fromisoformat(base) + timedelta(minutes=minutes, milliseconds=rest),
    st.sampled_from(["2015-03-28T22:00:00+00:00", "2015-10-25T00:00:00+00:00"]),
    st.integers(0, 240),
    st.sampled_from([0, 1, 30_500, 59_999]),
)
_events = st.fixed_dictionaries(
    {"at": _moments},
    optional={
        "id": _texts.filter(lambda text: len(text) < 1000),
        "event": st.sampled_from(["view", "download", "error"]),
        "lang": st.one_of(_texts, st.booleans(), st.none()),
        "n": _numbers,
        "duration": st.one_of(_numbers, st.sampled_from(["12", "2.5", "none", ""])),
        "visitor": st.sampled_from(["v1", "v2", "v3"]),
        "utm.source": _texts.filter(lambda text: len(text) <= 1024 and "\0" not in text),
        "a b": st.one_of(st.sampled_from(["", "a", "ab", '"']), st.integers(0, 3)),
    },
)
_field_filters: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Equals, st.sampled_from(FIELDS), _texts),
    st.builds(OneOf, st.sampled_from(FIELDS), st.lists(_texts, max_size=3).map(tuple)),
    st.builds(Prefix, st.sampled_from(FIELDS), _texts.filter(lambda text: len(text) < 900)),
    st.builds(Exists, st.sampled_from(FIELDS)),
    st.builds(
        Range,
        st.sampled_from(NUMBER_FIELDS),
        above=st.none() | _quarters,
        at_least=st.none() | _quarters,
        below=st.none() | _quarters,
        at_most=st.none() | _quarters,
    ),
)
_filters: st.SearchStrategy[Filter] = st.recursive(
    _field_filters,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


@st.composite
def _queries(draw: st.DrawFn) -> Query:
    metrics = tuple(draw(st.lists(st.sampled_from(METRICS), min_size=1, max_size=4, unique=True)))
    by = tuple(draw(st.lists(st.sampled_from(FIELDS + TIME_UNITS), max_size=3, unique=True)))
    # Rows are not sorted by estimates, because those may differ from the model's.
    sortable = by + tuple(metric.name for metric in metrics if not _is_estimate(metric))
    orders = (
        st.lists(st.builds(SortKey, st.sampled_from(sortable), st.booleans()), max_size=2) if sortable else st.just([])
    )
    return Query(
        metrics=metrics,
        group_by=by,
        where=draw(st.none() | _filters),
        start=draw(st.none() | _moments),
        end=draw(st.none() | _moments),
        time_zone=draw(st.sampled_from(ZONES)),
        sort_keys=tuple(draw(orders)),
        limit=draw(st.none() | st.integers(0, 5)),
        offset=draw(st.integers(0, 2)),
    )


def _profile(divisor: int) -> settings:
    """Return settings that divide the profile's number of examples: each one writes and queries many events."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors, HealthCheck.too_slow]
    return settings(max_examples=settings().max_examples // divisor, suppress_health_check=checks)


class PropertyTests(StoreContract):
    """Random queries of random events have the same results as in the model.

    All examples use the same store, and each its own value of ``run``.
    """

    @_profile(2)
    @given(events=st.lists(_events, max_size=25), queries=st.lists(_queries(), min_size=1, max_size=8))
    async def test_query_results_match_the_model(
        self, store: Store, events: list[dict[str, Any]], queries: list[Query]
    ) -> None:
        run_id, lines = await _write_run(store, events)
        documents = [orjson.loads(line) for line in lines]
        run_queries = [_restrict_to_run(query, run_id) for query in queries]
        for query, result in zip(run_queries, await store.query(*run_queries), strict=True):
            _check_result(query, result, documents)

    @_profile(4)
    @given(
        events=st.lists(_events, max_size=25),
        query=_queries(),
        key=st.sampled_from(["visitor", "id", "lang", "n"]),
        fields=st.lists(st.sampled_from(["id", "event", "lang", "n", "visitor"]), min_size=1, max_size=3, unique=True),
        limit=st.integers(1, 5),
    )
    async def test_sequences_match_the_model(
        self, store: Store, events: list[dict[str, Any]], query: Query, key: str, fields: list[str], limit: int
    ) -> None:
        run_id, lines = await _write_run(store, events)
        documents = [orjson.loads(line) for line in lines]
        run_query = _restrict_to_run(query, run_id)
        sequence_query = SequenceQuery(key, tuple(fields), run_query.where, run_query.start, run_query.end)
        sequences = [sequence async for sequence in store.sequences(sequence_query)]
        assert sequences == expected_sequences(sequence_query, documents)
        newest = await store.newest_values(key, limit, run_query.where, run_query.start, run_query.end)
        assert newest == expected_newest_values(key, limit, run_query, documents)

    @_profile(6)
    @given(events=st.lists(_events, max_size=15), query=_queries())
    async def test_documents_match_the_model(self, store: Store, events: list[dict[str, Any]], query: Query) -> None:
        run_id, lines = await _write_run(store, events)
        run_query = _restrict_to_run(query, run_id)
        iterator = store.iterate_documents(run_query.where, run_query.start, run_query.end)
        expected = [line for line in lines if matches_query(run_query, orjson.loads(line))]
        assert sorted([line async for line in iterator]) == sorted(expected)
        newest = await store.newest_documents(5, run_query.where, run_query.start, run_query.end)
        times = sorted((orjson.loads(line)["@timestamp"] for line in expected), reverse=True)
        assert [orjson.loads(line)["@timestamp"] for line in newest] == times[:5]
        assert set(newest) <= set(expected)


async def _write_run(store: Store, events: list[dict[str, Any]]) -> tuple[str, list[bytes]]:
    run_id = uuid4().hex
    lines = [
        event_document(event["at"].astimezone(UTC).isoformat(), **_without_time(event), run=run_id) for event in events
    ]
    await write_new_documents(store, *lines)
    return run_id, lines


def _without_time(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "at"}


def _restrict_to_run(query: Query, run_id: str) -> Query:
    filters = () if query.where is None else (query.where,)
    return replace(query, where=AllOf((Equals("run", run_id), *filters)))


def _is_estimate(metric: Metric) -> bool:
    return metric.kind in (MetricKind.UNIQUE, MetricKind.PERCENTILE)


def _check_result(query: Query, result: QueryResult, documents: list[dict[str, Any]]) -> None:
    expected = expected_result(query, documents)
    assert result.columns == expected.columns
    assert result.total == expected.total
    assert len(result.rows) == len(expected.rows)
    assert result.exact or any(map(_is_estimate, query.metrics))
    width = len(query.group_by)
    for row, expected_row in zip(result.rows, expected.rows, strict=True):
        assert row[:width] == expected_row[:width]
        for metric, value, expected_value in zip(query.metrics, row[width:], expected_row[width:], strict=True):
            if metric.kind is MetricKind.PERCENTILE:
                _check_percentile(metric, value, documents)
            elif metric.kind is MetricKind.UNIQUE and not result.exact:
                assert isinstance(value, int)
                assert isinstance(expected_value, int)
                assert abs(value - expected_value) <= expected_value * UNIQUE_TOLERANCE
            else:
                assert value == expected_value
                assert type(value) is type(expected_value)


def _check_percentile(metric: Metric, value: object, documents: list[dict[str, Any]]) -> None:
    numbers = field_numbers(documents, metric.field)
    if value is not None:
        assert isinstance(value, float)
        assert numbers[0] <= value <= numbers[-1]
