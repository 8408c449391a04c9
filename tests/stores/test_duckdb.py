"""The embedded store: the contract of stores, and its own behaviour."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import duckdb
import orjson
import pytest

from metronome.errors import QueryTooExpensive
from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.duckdb.combined_query import compile_combined_query, group_by_scan
from metronome.stores.duckdb.maintenance import StorageLimits
from metronome.stores.duckdb.sql import IRREGULAR_ZONES, can_use_rollup, total_field
from metronome.stores.duckdb.store import CancellableQuery, StoreFileDamaged
from metronome.stores.query import EXCLUDE_BOTS, AllOf, Equals, Exists, Metric, Not, OneOf, Query, Range, SortKey
from tests.contracts.store_contract import (
    DeletionTests,
    FilterTests,
    QueryTests,
    ReplacementTests,
    TimeZoneTests,
    WriteTests,
    event_document,
)
from tests.contracts.store_model import PropertyTests
from tests.contracts.store_sequences import SequenceTests

CONTEXT = DocumentContext("2026-03-01T00:00:00.000Z", None, "2027-01-01T00:00:00.000Z")


class OnDuckDB:
    """Gives each test its own file."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DuckDBStore]:
        store = DuckDBStore(tmp_path)
        await store.setup()
        yield store
        await store.close()


class TestWriting(OnDuckDB, WriteTests):
    pass


class TestQueries(OnDuckDB, QueryTests):
    pass


class TestFilters(OnDuckDB, FilterTests):
    pass


class TestTimeZones(OnDuckDB, TimeZoneTests):
    pass


class TestDeletion(OnDuckDB, DeletionTests):
    pass


class TestSequences(OnDuckDB, SequenceTests):
    pass


class TestReplacement(OnDuckDB, ReplacementTests):
    pass


class TestProperties(OnDuckDB, PropertyTests):
    pass


SEGMENT_LIMITS = StorageLimits(
    table_rows=0,
    direct_rows=1,
    hot_rows=1,
    old_rows=2,
    merged_segments=2,
    filter_rows=2,
    rollup_rows=0,
    quiet_seconds=0,
)
"""Each batch becomes a segment at once, and segments are merged all the time."""
SEAL_LIMITS = replace(SEGMENT_LIMITS, direct_rows=1_000_000)
"""Each batch gets into the hot table, and from there into a segment."""


class OnDuckDBWithSegments(OnDuckDB):
    """Moves events through segments all the time, which otherwise happens once in a hundred thousand events."""

    @pytest.fixture(
        params=[
            pytest.param(SEGMENT_LIMITS, marks=pytest.mark.slow, id="direct"),
            pytest.param(SEAL_LIMITS, marks=pytest.mark.slow, id="sealed"),
        ]
    )
    async def store(self, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[DuckDBStore]:
        store = DuckDBStore(tmp_path, limits=request.param)
        await store.setup()
        yield store
        await store.close()


class TestWritingSegments(OnDuckDBWithSegments, WriteTests):
    pass


class TestQueriesOfSegments(OnDuckDBWithSegments, QueryTests):
    pass


class TestFiltersOfSegments(OnDuckDBWithSegments, FilterTests):
    pass


class TestSequencesOfSegments(OnDuckDBWithSegments, SequenceTests):
    pass


class TestReplacementInSegments(OnDuckDBWithSegments, ReplacementTests):
    pass


class TestDeletionFromSegments(OnDuckDBWithSegments, DeletionTests):
    pass


class TestPropertiesOfSegments(OnDuckDBWithSegments, PropertyTests):
    pass


def _batch(*names: str) -> DocumentBatch:
    return DocumentBatch.from_documents(
        [build_document(Event({"id": name, "event_id": name}), CONTEXT, "") for name in names]
    )


async def test_reads_its_file_again_after_closing(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    await store.write(_batch("a", "b"))
    await store.close()
    reopened = DuckDBStore(tmp_path)
    await reopened.setup()
    result = await reopened.write(_batch("b", "c"))
    (query_result,) = await reopened.query(Query())
    await reopened.close()
    assert (result.stored, result.duplicates) == (1, 1)
    assert query_result.rows == ((3,),)


async def test_rejects_lines_that_are_not_documents_and_stores_the_others(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    good = _batch("a", "b", "c").documents()
    result = await store.write(DocumentBatch.from_documents([good[0], b'{"@timestamp":"2026', good[1], b"[]", good[2]]))
    (query_result,) = await store.query(Query())
    await store.close()
    assert result.stored == 3
    assert [rejected.document for rejected in result.rejected] == [b'{"@timestamp":"2026', b"[]"]
    assert all(rejected.reason for rejected in result.rejected)
    assert query_result.rows == ((3,),)


async def test_is_unavailable_while_its_file_cannot_be_opened(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    (tmp_path / "metronome.duckdb").mkdir()
    with pytest.raises(StoreFileDamaged, match="cannot be read"):
        await store.setup()
    (tmp_path / "metronome.duckdb").rmdir()
    await store.setup()
    assert (await store.write(_batch("a"))).stored == 1
    await store.close()


def test_uses_the_rollup_only_for_counts_of_whole_utc_days_by_its_fields() -> None:
    midnight, noon = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)
    only_doc = AllOf((Equals("id", "doc"),))
    assert can_use_rollup(Query(group_by=("day",), where=only_doc, start=midnight))
    assert not can_use_rollup(Query(group_by=("day",), where=only_doc, start=noon))
    assert not can_use_rollup(Query(group_by=("day",), time_zone="Europe/Zurich"))
    assert not can_use_rollup(Query(group_by=("hour",)))
    assert not can_use_rollup(Query(group_by=("title",)))
    assert not can_use_rollup(Query(where=Equals("title", "x")))


def test_knows_which_queries_the_totals_can_answer() -> None:
    midnight, noon = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 12, tzinfo=UTC)
    people = AllOf((Equals("event", "view"), EXCLUDE_BOTS))
    assert total_field(Query()) == ""
    assert total_field(Query(group_by=("day", "event"), where=people, start=midnight)) == ""
    assert total_field(Query(group_by=("country",), where=people)) == "country"
    assert total_field(Query(group_by=("week",), where=Not(Equals("country", "CH")))) == "country"
    assert total_field(Query(group_by=("bot",), where=Exists("bot"))) == "bot"
    assert total_field(Query(where=Equals("bot", "x"))) == "bot"
    assert total_field(Query(start=noon)) == ""
    for query in (
        Query(group_by=("id",)),
        Query(group_by=("country", "browser")),
        Query(group_by=("country",), where=Equals("bot", "x")),
        Query(group_by=("hour",)),
        Query(group_by=("day",), time_zone="Europe/Zurich"),
        Query(where=Range("country", above=1)),
        Query(start=noon, end=datetime(2026, 1, 2, 12, tzinfo=UTC)),
        Query((Metric.parse("visitors"),)),
    ):
        assert total_field(query) is None, query


@pytest.mark.parametrize("zone", ["Europe/Zurich", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"])
async def test_local_days_are_counted_by_quarter_hours_as_by_events(tmp_path: Path, zone: str) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    moments = [datetime(2015, 3, 1, tzinfo=UTC) + timedelta(minutes=397 * number) for number in range(1000)]
    documents = [
        event_document(moment.isoformat(), event_id=str(number), country=["CH", "DE"][number % 2])
        for number, moment in enumerate(moments)
    ]
    await store.write(DocumentBatch.from_documents(documents))
    for group_by in (("day",), ("week", "country"), ("country", "month")):
        query = Query(group_by=group_by, start=datetime(2015, 1, 1, tzinfo=UTC), time_zone=zone)
        counted, read = await store.query(query, replace(query, start=datetime(2000, 1, 1, tzinfo=UTC)))
        assert counted == read
    await store.close()


@pytest.mark.slow  # it looks at every day of every zone
def test_time_zones_change_their_offsets_only_at_quarter_hours() -> None:
    days = [datetime(2012, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(9_000)]
    quarter = timedelta(minutes=15)
    for name in available_timezones() - IRREGULAR_ZONES:
        zone = ZoneInfo(name)
        offsets = [day.astimezone(zone).utcoffset() or timedelta() for day in days]
        assert not any(offset % quarter for offset in set(offsets)), name
        for at, (before, after) in enumerate(pairwise(offsets)):
            if before != after:
                quarters = (days[at] + quarter * number for number in range(97))
                moments = [moment for moment in quarters if (moment.astimezone(zone).utcoffset() == after)]
                just_before = moments[0] - timedelta(seconds=1)
                assert just_before.astimezone(zone).utcoffset() == before, name


@pytest.mark.slow
async def test_totals_are_those_of_the_events_after_each_kind_of_write(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path, limits=replace(SEAL_LIMITS, rollup_rows=20))
    await store.setup()

    def document(number: int, country: str) -> bytes:
        bot = {"bot": "Googlebot"} if number % 5 == 0 else {}
        return event_document(
            f"2015-01-{1 + number % 3:02}T12:00:00Z",
            event_id=str(number),
            id="a",
            country=country,
            browser=country[:1],
            **bot,
        )

    uncounted = Not(Equals("event_id", "nothing"))
    noon, end = datetime(2015, 1, 1, 12, tzinfo=UTC), datetime(2015, 1, 3, 12, 0, 0, 1, tzinfo=UTC)
    ranges = ((None, None), (noon, end), (noon + timedelta(seconds=1), None), (None, end))

    async def check() -> None:
        for where in (EXCLUDE_BOTS, Exists("bot"), Exists("country"), Not(Equals("country", "CH"))):
            for start, end in ranges:
                queries = [
                    Query(group_by=group_by, where=where, start=start, end=end)
                    for group_by in ((), ("day",), ("country",), ("browser",), ("os",), ("country", "day", "event"))
                    if not ("country" in repr(where) and {"browser", "os"} & {*group_by})
                ]
                assert all(total_field(query) is not None for query in queries)
                read = [replace(query, where=AllOf((uncounted, where))) for query in queries]
                assert await store.query(*queries) == tuple([(await store.query(query))[0] for query in read])

    for start in range(0, 60, 20):
        numbers = range(start, start + 20)
        await store.write(
            DocumentBatch.from_documents([document(number, ["CH", "DE", "x" * 1025][number % 3]) for number in numbers])
        )
        await check()
    await store.replace(DocumentBatch.from_documents([document(number, "FR") for number in range(7)]))
    await check()
    await store.delete_events(before=datetime(2015, 1, 2, tzinfo=UTC))
    await check()
    await store.close()


async def test_queries_that_share_a_scan_have_the_same_results_as_single_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    values = ["a", "b", "", "x" * 1024, "x" * 1025]
    fields = ("country", "browser", "os")
    documents = [
        event_document(event_id=str(number), **{name: values[number % (3 + at)] for at, name in enumerate(fields)})
        for number in range(60)
    ]
    await store.write(DocumentBatch.from_documents([*documents, event_document(event_id="none")]))
    most_first = (SortKey("count", descending=True),)
    everything = Not(Equals("event_id", "nothing"))
    queries = [
        *(
            Query(group_by=(name,), where=everything, sort_keys=most_first, limit=2, offset=at)
            for at, name in enumerate(fields)
        ),
        Query(),
        Query(group_by=("country",), where=AllOf((everything, Exists("id")))),
        Query(group_by=("country",), where=everything),
    ]
    assert group_by_scan(queries) == {0: [0, 1, 2, 5]}
    single = [(await store.query(query))[0] for query in queries]
    assert list(await store.query(*queries)) == single
    assert single[2].total == 4
    monkeypatch.setattr("metronome.stores.duckdb.store._PYTHON_SORT_MAX_ROWS", 2)
    assert list(await store.query(*queries)) == single
    await store.close()


@pytest.mark.parametrize("is_without_bots", [False, True])
async def test_combined_queries_have_the_same_results_as_single_ones(tmp_path: Path, is_without_bots: bool) -> None:  # noqa: FBT001  # a parameter of the test
    store = DuckDBStore(tmp_path)
    await store.setup()
    events = [
        {"id": "doc", "event_id": f"{number}", "ts": f"2026-01-{1 + number % 20:02}T12:00:00Z", "event": kind}
        | ({"format": "KML"} if kind == "download" else {"referer": f"https://r{number % 3}.org/"})
        | ({"bot": "crawler"} if number % 7 == 0 else {})
        for number, kind in enumerate(["view", "download", "error", "view"] * 25)
    ]
    await store.write(
        DocumentBatch.from_documents(
            [
                build_document(Event({**event, "id": item, "event_id": f"{item}{event['event_id']}"}), CONTEXT, "")
                for event in events
                for item in ("doc", "other")
            ]
        )
    )
    item = Equals("id", "doc")
    start, end = datetime(2026, 1, 3, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)
    queries = tuple(
        Query(
            group_by=(group,),
            where=AllOf((item, EXCLUDE_BOTS, *filters) if is_without_bots else (item, *filters)),
            start=start,
            end=end,
            sort_keys=(SortKey("count", descending=True),),
        )
        for group in ("day", "week", "month", "format", "referer", "event", "id", "bot")
        for filters in ((Equals("event", "view"),), (OneOf("event", ("view", "download")),))
    )
    assert compile_combined_query(queries) is not None
    combined = await store.query(*queries)
    single = [(await store.query(query))[0] for query in queries]
    await store.close()
    assert list(combined) == single
    assert sum(int(row[1] or 0) for row in combined[0].rows) == (25 if is_without_bots else 30)


def test_combines_only_queries_of_the_same_item_and_time_range() -> None:
    item, view = Equals("id", "doc"), Equals("event", "view")
    about = Query(group_by=("day",), where=AllOf((item, view)))
    assert compile_combined_query((about, replace(about, group_by=("referer",)))) is not None
    for other in (
        replace(about, where=view),
        replace(about, where=AllOf((Equals("id", "other"), view))),
        replace(about, where=Not(item)),
        replace(about, group_by=("hour",)),
        replace(about, group_by=("day", "event")),
        replace(about, time_zone="Europe/Zurich"),
        replace(about, start=datetime(2026, 1, 1, tzinfo=UTC)),
        replace(about, metrics=(Metric.parse("visitors"),)),
        replace(about, where=item),
        replace(about, where=AllOf((item, view, EXCLUDE_BOTS))),
    ):
        assert compile_combined_query((about, other)) is None
    assert compile_combined_query((about,)) is None


async def test_upgrades_the_file_of_an_older_version(tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "metronome.duckdb") as older:
        older.execute(
            "CREATE TABLE events(key UHUGEINT, ts TIMESTAMP, id VARCHAR, event VARCHAR, format VARCHAR,"
            " referer VARCHAR, bot VARCHAR, visitor VARCHAR, session VARCHAR, doc JSON)"
        )
        line = build_document(
            Event({"id": "a", "event_id": "e", "LCP": 2.5, "os": "Plan 9", "mood": "good"}), CONTEXT, ""
        )
        older.execute(
            "INSERT INTO events SELECT md5_number('e2026-03-01'), '2026-03-01', 'a', 'view', NULL, NULL, NULL, NULL,"
            " NULL, ?",
            [line.decode()],
        )
        older.execute(
            "CREATE TABLE rollup AS SELECT 'a' AS id, DATE '2026-03-01' AS day, 'view' AS event,"
            " NULL::VARCHAR AS format, NULL::VARCHAR AS referer, NULL::VARCHAR AS bot, 1::BIGINT AS n"
        )
    store = DuckDBStore(tmp_path)
    for _ in range(2):
        await store.setup()
    assert (await store.write(DocumentBatch.from_documents([line]))).duplicates == 1
    assert (await store.write(_batch("b"))).stored == 1
    known, unknown, measured, rolled_up = await store.query(
        Query(group_by=("os",)),
        Query(group_by=("mood",)),
        Query((Metric.parse("max:LCP"),)),
        Query(group_by=("id",)),
    )
    fields = await store.list_fields()
    await store.close()
    assert known.rows == (("Plan 9", 1),)
    assert unknown.rows == (("good", 1),)
    assert measured.rows == ((2.5,),)
    assert rolled_up.rows == (("a", 1), ("b", 1))
    assert {"mood", "LCP", "id", "os"} <= fields


async def test_cancels_a_query_that_takes_too_long_and_runs_the_next_one(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path, query_timeout=0.05)
    await store.setup()
    await store.write(_batch(*map(str, range(20_000))))
    heavy = Query(tuple(Metric.parse(f"unique:f{at}") for at in range(200)), group_by=("event_id",))
    with pytest.raises(QueryTooExpensive, match=r"takes over 0\.05 s"):
        await store.query(heavy)
    (query_result,) = await store.query(Query())
    await store.close()
    assert query_result.rows == ((20_000,),)


def test_cancels_a_query_that_has_just_finished() -> None:
    asking = CancellableQuery(duckdb.connect, lambda cursor: cursor.execute("SELECT 1").fetchall())
    assert asking.run() == [(1,)]
    asking.cancel()


async def test_senders_cannot_fill_the_list_of_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metronome.stores.duckdb.store.LISTED_FIELDS_MAX", 50)
    store = DuckDBStore(tmp_path)
    await store.setup()
    for number in range(5):
        fields = {f"name{number}_{index}": index for index in range(30)}
        line = orjson.dumps({"@timestamp": "2015-01-22T09:30:00.000Z", "event_id": str(number), **fields})
        assert (await store.write(DocumentBatch.from_documents([line]))).stored == 1
    listed = await store.list_fields()
    await store.close()
    assert 30 <= len(listed) <= 50


async def test_a_query_that_takes_too_much_memory_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()

    def run_out_of_memory(*_: object) -> object:
        raise duckdb.OutOfMemoryException("could not allocate block of size 256.0 KiB")

    monkeypatch.setattr(store, "_run_queries", run_out_of_memory)
    with pytest.raises(QueryTooExpensive, match="METRONOME_DUCKDB_MEMORY"):
        await store.query(Query())
    monkeypatch.undo()
    assert len(await store.query(Query())) == 1
    await store.close()
