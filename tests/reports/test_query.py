"""Questions of one's own: answers that can be counted by hand, and refusals that say what is meant, on both stores."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
import pytest_asyncio

from metronome.errors import InvalidQuery, QueryTooExpensive
from metronome.event import DocumentContext, Event, build_document
from metronome.reports.query.names import FieldChecker
from metronome.reports.query.parse import parse_query_string
from metronome.reports.query.request import ParsedQuery, parse_query
from metronome.reports.query.run import run_query
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.query import MAX_GROUPS, QueryResult
from tests.reports.filled import BACK_ENDS, filled

pytestmark = pytest.mark.asyncio(loop_scope="module")
"""All tests ask the same stores, and so share the loop that these were opened in."""

DOOR: Final = DocumentContext(
    received_at="2026-03-30T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
NOW: Final = datetime(2026, 3, 30, 12, tzinfo=UTC)
EVENTS: Final[list[dict[str, Any]]] = [
    {"id": "a", "ts": "2026-03-28T10:00:00Z", "visitor": "v1", "session": "s1", "LCP": 100, "tags.color": "red"},
    {"id": "a", "ts": "2026-03-28T22:30:00Z", "visitor": "v1", "session": "s1", "LCP": 200, "title": "One"},
    {"id": "a", "ts": "2026-03-28T23:30:00Z", "visitor": "v2", "session": "s2", "LCP": "300", "price": 7.5},
    {"id": "b", "ts": "2026-03-29T00:30:00Z", "visitor": "v2", "session": "s2", "title": "Two", "tags.color": "green"},
    {"id": "b", "ts": "2026-03-29T01:30:00Z", "visitor": "v1", "session": "s3", "referer": "arcgis.com/x"},
    {
        "id": "b",
        "ts": "2026-03-30T10:00:00Z",
        "visitor": "v3",
        "session": "s4",
        "format": "csv",
        "referer": "a.example",
    },
    {"id": "b", "ts": "2026-03-30T10:00:30Z", "visitor": "v3", "session": "s4", "format": "pdf", "price": 0},
    {"id": "c", "ts": "2026-03-30T10:01:00Z", "event": "error", "message": "boom", "user": 1},
    {"id": "a", "ts": "2026-03-30T11:00:00Z", "bot": "Googlebot", "LCP": 5000},
    {"id": "a", "ts": "2025-03-30T11:00:00Z", "visitor": "v9", "LCP": 50},
]


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, EVENTS) as store:
        yield store


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def empty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with filled(request.param, request, tmp_path_factory, []) as store:
        yield store


def read(text: str) -> ParsedQuery:
    return parse_query(parse_query_string(text), NOW)


async def ask(store: Store, text: str, names: FieldChecker | None = None) -> QueryResult:
    return await run_query(store, names or FieldChecker(store), read(text), NOW)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", [(9,)]),
        ("bots=1", [(10,)]),
        ("by=bot", [("Googlebot", 1)]),
        ("by=id&order=-count", [("a", 4), ("b", 4), ("c", 1)]),
        ("by=id&order=-count&limit=1&offset=1", [("b", 4)]),
        ("metrics=count,avg:LCP&by=id&event=view&from=2026-01-01", [("a", 3, 200.0), ("b", 2, None)]),
        ("metrics=sum:price,min:price,max:price,count:price", [(7.5, 0.0, 7.5, 2)]),
        ("metrics=visitors,sessions&by=event", [("download", 1, 1), ("error", 0, 0), ("view", 3, 3)]),
        ("metrics=first,last&by=id&id=b", [("b", "2026-03-29T00:30:00.000Z", "2026-03-30T10:00:30.000Z")]),
        ("by=tags.color", [("green", 1), ("red", 1)]),
        ("tags.color=red", [(1,)]),
        ("tags.color!=red", [(8,)]),
        ("LCP>=100&LCP<300", [(2,)]),
        ("LCP>=300&by=id", [("a", 1)]),
        ("referer^=arcgis&by=referer", [("arcgis.com/x", 1)]),
        ("format=csv&format=pdf", [(2,)]),
        ("format=*&format!=pdf", [(1,)]),
        ("price!=*&event=view", [(5,)]),
        ("user=1", [(1,)]),
        ("by=day&from=2026-03-28&to=2026-03-29", [("2026-03-28", 3), ("2026-03-29", 2)]),
        ("by=day&from=2026-03-29&to=2026-03-29&tz=Europe/Zurich", [("2026-03-29", 3)]),
        ("by=month", [("2025-03", 1), ("2026-03", 8)]),
        ("id=nobody", [(0,)]),
        ("id=nobody&by=referer", []),
    ],
)
async def test_results_equal_counts_by_hand(store: Store, text: str, rows: list[tuple[Any, ...]]) -> None:
    assert [*(await ask(store, text)).rows] == rows


async def test_the_total_ignores_limit_and_offset(store: Store) -> None:
    answer = await ask(store, "by=id&limit=1&offset=2")
    assert (answer.rows, answer.total, answer.exact) == ((("c", 1),), 3, True)
    assert (await ask(store, "by=id&limit=1&offset=9")).total == 3


async def test_a_series_has_every_hour_of_its_range_across_a_clock_change(store: Store) -> None:
    answer = await ask(store, "by=hour&fill=1&from=2026-03-28T23:00:00Z&to=2026-03-29T02:00:00Z&tz=Europe/Zurich")
    assert answer.rows == (
        ("2026-03-29T00:00:00+01:00", 1),
        ("2026-03-29T01:00:00+01:00", 1),
        ("2026-03-29T03:00:00+02:00", 1),
    )
    answer = await ask(store, "by=hour&fill=1&from=2026-03-29T00:00:00Z&to=2026-03-29T04:00:00Z&tz=Europe/Zurich&id=a")
    assert [row[1] for row in answer.rows] == [0, 0, 0, 0]


async def test_a_series_without_a_range_lasts_from_the_first_event_to_now(store: Store) -> None:
    answer = await ask(store, "by=day&fill=1&event=view&from=2026-01-01&id=b&metrics=count,avg:LCP")
    assert (answer.rows[0], answer.rows[-1], len(answer.rows)) == (("2026-01-01", 0, None), ("2026-03-30", 0, None), 89)
    answer = await ask(store, "by=day&fill=1&event=view&id=b")
    assert answer.rows == (("2026-03-29", 2), ("2026-03-30", 0))
    assert (await ask(store, "by=day&fill=1&id=nobody")).rows == ()


async def test_each_group_has_a_complete_series(store: Store) -> None:
    answer = await ask(store, "by=day,id&fill=1&from=2026-03-29&to=2026-03-30&id=a&id=b")
    assert answer.rows == (("2026-03-29", "b", 2), ("2026-03-30", "b", 2))
    answer = await ask(store, "by=id,day&fill=1&from=2026-03-28&to=2026-03-29&order=-count,day")
    assert answer.rows == (
        ("a", "2026-03-28", 3),
        ("b", "2026-03-29", 2),
        ("b", "2026-03-28", 0),
        ("a", "2026-03-29", 0),
    )


async def test_compares_groups_with_the_earlier_range(store: Store) -> None:
    answer = await ask(store, "by=id&from=2026-03-29&to=2026-03-29&compare=previous&order=-count:previous")
    assert answer.columns == ("id", "count", "count:previous", "count:change")
    assert answer.rows == (("a", 0, 3, -1.0), ("b", 2, 0, None))
    assert answer.total == 2


async def test_compares_time_units_by_position(store: Store) -> None:
    answer = await ask(store, "by=day&metrics=count,max:LCP&from=2026-03-30&to=2026-03-30&compare=year&bots=1")
    assert answer.columns == (
        *("day", "count", "count:year", "count:change", "max:LCP", "max:LCP:year", "max:LCP:change"),
    )
    assert answer.rows == (("2026-03-30", 4, 1, 3.0, 5000.0, 50.0, 99.0),)


async def test_fills_the_gaps_of_a_comparison(store: Store) -> None:
    answer = await ask(store, "by=day&from=2026-03-30&to=2026-03-31&compare=previous&fill=1&order=-day")
    assert answer.rows == (("2026-03-31", 0, 2, -1.0), ("2026-03-30", 3, 3, 0.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("by=refere", "no event has the field 'refere' (did you mean referer or referer_url"),
        ("lcp>5", "no event has the field 'lcp' (did you mean LCP or"),
        ("metrics=avg:prise", "no event has the field 'prise' (did you mean price?)"),
        ("metrics=unique:tittle", "no event has the field 'tittle' (did you mean title?)"),
        ("by=item", "no event has the field 'item' (did you mean id?)"),
        ("lmit=2", "no event has the field 'lmit' (did you mean limit?)"),
        ("qqqqqqqqqqqq=1", "no event has the field 'qqqqqqqqqqqq'"),
        ("params=1", "no event has the field 'params'"),
        ("day=2026-01-01", "no event has the field 'day': use from and to for a range, by=day for a series"),
        ("by=ts", "no event has the field 'ts': use from and to"),
        ("metrics=sum:country", "the field 'country' is a text"),
        ("metrics=count:message", "the field 'message' is a text"),
        ("browser_version>5", "the field 'browser_version' is a text"),
        ("metrics=count,p50:session&by=id", "the field 'session' is a text"),
    ],
)
async def test_rejects_unknown_fields_and_texts_used_as_numbers(store: Store, text: str, said: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        await ask(store, text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "metrics=sum:price&from=2026-03-29&to=2026-03-29",
        "price>100",
        "price>5&from=2030-01-01",
        "metrics=avg:title",
        "title>5",
        "metrics=sum:tags.color",
        "tags.colour=red",
        "metrics=avg:price&id=c",
    ],
)
async def test_fields_without_matching_numbers_have_empty_results(store: Store, text: str) -> None:
    answer = await ask(store, text)
    assert answer.rows in (((0.0,),), ((0,),), ((None,),))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", ((0,),)),
        ("by=id", ()),
        ("by=browser,day&country=CH", ()),
        ("metrics=avg:LCP,sum:duration,visitors,last&LCP>5", ((None, 0.0, 0, None),)),
        ("metrics=avg:title", ((None,),)),
        ("by=day&fill=1", ()),
        ("by=day&fill=1&from=2026-03-30", (("2026-03-30", 0),)),
        ("by=id&from=-1d&compare=year", ()),
        ("from=-1d&compare=year", ((0, 0, None),)),
    ],
)
async def test_an_empty_store_accepts_known_names(empty: Store, text: str, rows: tuple[Any, ...]) -> None:
    assert (await ask(empty, text)).rows == rows


async def test_the_name_of_a_country_is_rejected_unless_events_have_it(store: Store) -> None:
    for text in ("country=Germany", "country=Germany&by=day", "country=Germany&country=France&by=country"):
        with pytest.raises(InvalidQuery, match=r"no event has country=Germany: .* such as DE"):
            await ask(store, text)
    assert (await ask(store, "country=ZZ")).rows == ((0,),)
    assert (await ask(store, "country!=Germany")).rows[0][0]


async def test_an_empty_store_rejects_unknown_names(empty: Store) -> None:
    for text in ("price=1", "by=nothing"):
        with pytest.raises(InvalidQuery, match="no event has the field"):
            await ask(empty, text)


class Counting(DuckDBStore):
    """A store that tells how often it was asked what."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked = 0
        self.read = 0

    async def query(self, *queries: Any) -> tuple[QueryResult, ...]:
        self.asked += 1
        return await super().query(*queries)

    async def list_fields(self) -> frozenset[str]:
        self.read += 1
        return await super().list_fields()


async def fill(store: Store, events: list[dict[str, Any]]) -> None:
    lines = [build_document(Event(fields), DOOR, f"{len(events)}-{at}") for at, fields in enumerate(events)]
    await store.write(DocumentBatch.from_documents(lines))


@pytest_asyncio.fixture(loop_scope="module")
async def counting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Counting]:
    store = Counting(tmp_path_factory.mktemp("counting"))
    await store.setup()
    await fill(store, EVENTS)
    yield store
    await store.close()


async def test_each_query_is_one_query_to_the_store(counting: Counting) -> None:
    names = FieldChecker(counting)
    good = ("by=id", "metrics=avg:LCP", "by=title", "title=One", "metrics=avg:price", "price>1", "by=tags.color")
    for text in (*good, "metrics=unique:tags.color", "LCP>9e9", "from=2030-01-01&metrics=avg:price"):
        before = counting.asked
        await ask(counting, text, names)
        assert counting.asked == before + 1, text
    assert counting.read == 1


async def test_a_field_that_has_just_been_stored_is_known(counting: Counting) -> None:
    names = FieldChecker(counting)
    for number, field in enumerate(("mood", "temper"), 1):
        with pytest.raises(InvalidQuery):
            await ask(counting, f"{field}=good", names)
        await fill(counting, [{field: "good"}] * number)
        assert (await ask(counting, f"{field}=good", names)).rows == ((number,),)
    before = counting.read
    await ask(counting, "mood=good&temper=good", names)
    assert counting.read == before


class Crowded(DuckDBStore):
    """A store whose every answer has more groups than can be told."""

    async def query(self, *queries: Any) -> tuple[QueryResult, ...]:
        answers = await super().query(*queries)
        return tuple(QueryResult(answer.columns, answer.rows, MAX_GROUPS + 1, answer.exact) for answer in answers)


async def test_rejects_too_many_groups_even_with_a_small_limit(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = Crowded(tmp_path_factory.mktemp("crowded"))
    await store.setup()
    for text in ("by=visitor,day&limit=1", "by=visitor,day&from=-1d&compare=year&limit=1"):
        with pytest.raises(QueryTooExpensive, match="there are over 100,000 groups of visitor, day"):
            await ask(store, text)
    await store.close()


@pytest.mark.slow
async def test_rejects_a_series_of_too_many_rows(counting: Counting) -> None:
    for text in ("by=minute&fill=1&from=2020-01-01", "by=hour,id&fill=1&from=2020-01-01&metrics=count,avg:LCP"):
        with pytest.raises(QueryTooExpensive, match="100,000"):
            await ask(counting, text)
