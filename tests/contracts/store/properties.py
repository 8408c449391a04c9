"""Whatever is written and asked: the store answers as the model does."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

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
)
from metronome.stores.sequences import SequenceQuery
from tests.contracts.store.events import StoreContract, event_document, write_new_documents
from tests.contracts.store.model import (
    expected_newest_values,
    expected_result,
    expected_sequences,
    field_numbers,
    matches_query,
)

UNIQUE_TOLERANCE: Final = 0.02
"""How far an estimate of distinct values may be off."""

TEXTS: Final = ("", "a", "A", "ab", "a*", "é", "👍 y", '"', "'", "\\", "nul\0", "5", "x" * 1024, "x" * 1025)
FIELDS: Final = ("id", "event", "lang", "n", "duration", "utm.source", "a b", "nothing")
NUMBER_FIELDS: Final = ("n", "duration", "nothing")
ZONES: Final = ("UTC", "Europe/Zurich", "America/New_York", "America/St_Johns", "Asia/Kolkata", "Pacific/Auckland")
METRICS: Final = tuple(
    Metric.parse(text)
    for text in (
        "count",
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
"""Numbers that binary fractions hold exactly, so that sums do not depend on their order."""
_numbers = st.one_of(st.integers(-100, 100), _quarters)
_texts = st.sampled_from(TEXTS)
# Around the hours that spring skips and autumn repeats in Zurich, so that a few indices hold all.
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
    # Rows cannot be compared in an order that depends on an estimate.
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


class PropertyTests(StoreContract):
    """Random events and random questions, compared with the model."""

    @settings(
        max_examples=settings().max_examples // 2,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(events=st.lists(_events, max_size=25), queries=st.lists(_queries(), min_size=1, max_size=8))
    async def test_query_results_match_the_model(
        self, store: Store, events: list[dict[str, Any]], queries: list[Query]
    ) -> None:
        # Each example writes and asks under a mark of its own, into one and the same store.
        mark = uuid4().hex
        written = [
            event_document(each["at"].astimezone(UTC).isoformat(), **_without_time(each), run=mark) for each in events
        ]
        await write_new_documents(store, *written)
        marked = [_restrict_to_run(query, mark) for query in queries]
        documents = [orjson.loads(each) for each in written]
        for query, result in zip(marked, await store.query(*marked), strict=True):
            _check_result(query, result, documents)

    @settings(
        max_examples=settings().max_examples // 4,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
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
        mark = uuid4().hex
        written = [
            event_document(each["at"].astimezone(UTC).isoformat(), **_without_time(each), run=mark) for each in events
        ]
        await write_new_documents(store, *written)
        documents = [orjson.loads(each) for each in written]
        marked = _restrict_to_run(query, mark)
        asked = SequenceQuery(key, tuple(fields), marked.where, marked.start, marked.end)
        assert [trail async for trail in store.sequences(asked)] == expected_sequences(asked, documents)
        newest = await store.newest_values(key, limit, marked.where, marked.start, marked.end)
        assert newest == expected_newest_values(key, limit, marked, documents)

    @settings(
        max_examples=settings().max_examples // 6,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(events=st.lists(_events, max_size=15), query=_queries())
    async def test_documents_match_the_model(self, store: Store, events: list[dict[str, Any]], query: Query) -> None:
        mark = uuid4().hex
        written = [
            event_document(each["at"].astimezone(UTC).isoformat(), **_without_time(each), run=mark) for each in events
        ]
        await write_new_documents(store, *written)
        marked = _restrict_to_run(query, mark)
        found = [each async for each in store.iterate_documents(marked.where, marked.start, marked.end)]
        assert sorted(found) == sorted(each for each in written if matches_query(marked, orjson.loads(each)))


def _without_time(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "at"}


def _restrict_to_run(query: Query, run_id: str) -> Query:
    inner = () if query.where is None else (query.where,)
    return Query(
        query.metrics,
        query.group_by,
        AllOf((Equals("run", run_id), *inner)),
        query.start,
        query.end,
        query.time_zone,
        query.sort_keys,
        query.limit,
        query.offset,
    )


def _is_estimate(metric: Metric) -> bool:
    return metric.kind in (MetricKind.UNIQUE, MetricKind.PERCENTILE)


def _check_result(query: Query, result: QueryResult, documents: list[dict[str, Any]]) -> None:
    expected = expected_result(query, documents)
    assert result.columns == expected.columns
    assert result.total == expected.total
    assert len(result.rows) == len(expected.rows)
    assert result.exact or any(map(_is_estimate, query.metrics))
    width = len(query.group_by)
    for row, right in zip(result.rows, expected.rows, strict=True):
        assert row[:width] == right[:width]
        for metric, found, wanted in zip(query.metrics, row[width:], right[width:], strict=True):
            if metric.kind is MetricKind.PERCENTILE:
                _check_percentile(metric, found, documents)
            elif metric.kind is MetricKind.UNIQUE and not result.exact:
                assert isinstance(found, int)
                assert isinstance(wanted, int)
                assert abs(found - wanted) <= wanted * UNIQUE_TOLERANCE
            else:
                assert found == wanted
                assert type(found) is type(wanted)


def _check_percentile(metric: Metric, value: object, documents: list[dict[str, Any]]) -> None:
    numbers = field_numbers(documents, metric.field)
    if value is not None:
        assert isinstance(value, float)
        assert numbers[0] <= value <= numbers[-1]
