"""Whatever is written and asked: the store answers as the model does."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metronome.question import (
    TIME_UNITS,
    AllOf,
    Answer,
    AnyOf,
    Equals,
    Exists,
    Filter,
    Kind,
    Metric,
    Not,
    OneOf,
    Order,
    Prefix,
    Question,
    Range,
)
from metronome.stores.conformance.events import StoreTests, event, fill
from metronome.stores.conformance.model import answer_of, matches, newest_of, numbers_of, trails_of
from metronome.stores.store import Store
from metronome.trails import Trails

ESTIMATED_SHARE: Final = 0.02
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
_leaves: st.SearchStrategy[Filter] = st.one_of(
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
    _leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


@st.composite
def _questions(draw: st.DrawFn) -> Question:
    metrics = tuple(draw(st.lists(st.sampled_from(METRICS), min_size=1, max_size=4, unique=True)))
    by = tuple(draw(st.lists(st.sampled_from(FIELDS + TIME_UNITS), max_size=3, unique=True)))
    # Rows cannot be compared in an order that depends on an estimate.
    sortable = by + tuple(metric.name for metric in metrics if not _is_estimate(metric))
    orders = (
        st.lists(st.builds(Order, st.sampled_from(sortable), st.booleans()), max_size=2) if sortable else st.just([])
    )
    return Question(
        metrics=metrics,
        by=by,
        where=draw(st.none() | _filters),
        start=draw(st.none() | _moments),
        end=draw(st.none() | _moments),
        tz=draw(st.sampled_from(ZONES)),
        order=tuple(draw(orders)),
        limit=draw(st.none() | st.integers(0, 5)),
        offset=draw(st.integers(0, 2)),
    )


class PropertyTests(StoreTests):
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
    @given(events=st.lists(_events, max_size=25), questions=st.lists(_questions(), min_size=1, max_size=8))
    async def test_answers_as_the_model_does(
        self, store: Store, events: list[dict[str, Any]], questions: list[Question]
    ) -> None:
        # Each example writes and asks under a mark of its own, into one and the same store.
        mark = uuid4().hex
        written = [event(each["at"].astimezone(UTC).isoformat(), **_without_time(each), run=mark) for each in events]
        await fill(store, *written)
        marked = [_within_run(question, mark) for question in questions]
        documents = [orjson.loads(each) for each in written]
        for question, answer in zip(marked, await store.ask(*marked), strict=True):
            _compare(question, answer, documents)

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
        question=_questions(),
        key=st.sampled_from(["visitor", "id", "lang", "n"]),
        fields=st.lists(st.sampled_from(["id", "event", "lang", "n", "visitor"]), min_size=1, max_size=3, unique=True),
        limit=st.integers(1, 5),
    )
    async def test_tells_trails_as_the_model_does(
        self, store: Store, events: list[dict[str, Any]], question: Question, key: str, fields: list[str], limit: int
    ) -> None:
        mark = uuid4().hex
        written = [event(each["at"].astimezone(UTC).isoformat(), **_without_time(each), run=mark) for each in events]
        await fill(store, *written)
        documents = [orjson.loads(each) for each in written]
        marked = _within_run(question, mark)
        asked = Trails(key, tuple(fields), marked.where, marked.start, marked.end)
        assert [trail async for trail in store.trails(asked)] == trails_of(asked, documents)
        newest = await store.newest(key, limit, marked.where, marked.start, marked.end)
        assert newest == newest_of(key, limit, marked, documents)

    @settings(
        max_examples=settings().max_examples // 6,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
            HealthCheck.too_slow,
        ],
    )
    @given(events=st.lists(_events, max_size=15), question=_questions())
    async def test_gives_back_what_the_model_lets_through(
        self, store: Store, events: list[dict[str, Any]], question: Question
    ) -> None:
        mark = uuid4().hex
        written = [event(each["at"].astimezone(UTC).isoformat(), **_without_time(each), run=mark) for each in events]
        await fill(store, *written)
        marked = _within_run(question, mark)
        found = [each async for each in store.documents(marked.where, marked.start, marked.end)]
        assert sorted(found) == sorted(each for each in written if matches(marked, orjson.loads(each)))


def _without_time(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "at"}


def _within_run(question: Question, mark: str) -> Question:
    inner = () if question.where is None else (question.where,)
    return Question(
        question.metrics,
        question.by,
        AllOf((Equals("run", mark), *inner)),
        question.start,
        question.end,
        question.tz,
        question.order,
        question.limit,
        question.offset,
    )


def _is_estimate(metric: Metric) -> bool:
    return metric.kind in (Kind.UNIQUE, Kind.PERCENTILE)


def _compare(question: Question, answer: Answer, documents: list[dict[str, Any]]) -> None:
    expected = answer_of(question, documents)
    assert answer.columns == expected.columns
    assert answer.total == expected.total
    assert len(answer.rows) == len(expected.rows)
    assert answer.exact or any(map(_is_estimate, question.metrics))
    width = len(question.by)
    for row, right in zip(answer.rows, expected.rows, strict=True):
        assert row[:width] == right[:width]
        for metric, found, wanted in zip(question.metrics, row[width:], right[width:], strict=True):
            if metric.kind is Kind.PERCENTILE:
                _check_percentile(metric, found, documents)
            elif metric.kind is Kind.UNIQUE and not answer.exact:
                assert isinstance(found, int)
                assert isinstance(wanted, int)
                assert abs(found - wanted) <= wanted * ESTIMATED_SHARE
            else:
                assert found == wanted
                assert type(found) is type(wanted)


def _check_percentile(metric: Metric, found: object, documents: list[dict[str, Any]]) -> None:
    numbers = numbers_of(documents, metric.field)
    if found is not None:
        assert isinstance(found, float)
        assert numbers[0] <= found <= numbers[-1]
