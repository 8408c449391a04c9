"""The embedded store keeps what every store promises, and what only it does."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from metronome.errors import QueryTooExpensive, StoreUnavailable
from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.duckdb.combined_query import compile_combined_query
from metronome.stores.duckdb.sql import can_use_rollup
from metronome.stores.duckdb.store import CancellableQuery
from metronome.stores.query import EXCLUDE_BOTS, AllOf, Equals, Metric, Not, OneOf, Query, SortKey
from tests.contracts.store import (
    DeletionTests,
    FilterTests,
    PropertyTests,
    QueryTests,
    ReplacementTests,
    SequenceTests,
    TimeZoneTests,
    WriteTests,
)

DOOR = DocumentContext("2026-03-01T00:00:00.000Z", None, "2027-01-01T00:00:00.000Z")


class OnDuckDB:
    """Gives each test a file of its own."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DuckDBStore]:
        store = DuckDBStore(tmp_path)
        await store.setup()
        yield store
        await store.close()


class TestWriting(OnDuckDB, WriteTests):
    pass


class TestAsking(OnDuckDB, QueryTests):
    pass


class TestFilters(OnDuckDB, FilterTests):
    pass


class TestZones(OnDuckDB, TimeZoneTests):
    pass


class TestForgetting(OnDuckDB, DeletionTests):
    pass


class TestTrails(OnDuckDB, SequenceTests):
    pass


class TestReplacing(OnDuckDB, ReplacementTests):
    pass


class TestProperties(OnDuckDB, PropertyTests):
    pass


class OnDuckDBThatMergesEachBatch(OnDuckDB):
    """Rewrites the rollup after each batch, which usually happens once in a hundred thousand events."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DuckDBStore]:
        store = DuckDBStore(tmp_path, merge_row_limits=(1, 1))
        await store.setup()
        yield store
        await store.close()


class TestAskingAfterMerges(OnDuckDBThatMergesEachBatch, QueryTests):
    pass


class TestReplacingAfterMerges(OnDuckDBThatMergesEachBatch, ReplacementTests):
    pass


class TestForgettingAfterMerges(OnDuckDBThatMergesEachBatch, DeletionTests):
    pass


def _batch(*names: str) -> DocumentBatch:
    return DocumentBatch.from_documents(
        [build_document(Event({"id": name, "event_id": name}), DOOR, "") for name in names]
    )


async def test_what_is_written_is_there_after_closing_and_opening_again(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    await store.write(_batch("a", "b"))
    await store.close()
    again = DuckDBStore(tmp_path)
    await again.setup()
    verdicts = await again.write(_batch("b", "c"))
    (answer,) = await again.query(Query())
    await again.close()
    assert (verdicts.stored, verdicts.duplicates) == (1, 1)
    assert answer.rows == ((3,),)


async def test_a_line_that_is_no_document_is_refused_and_its_neighbours_are_stored(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    good = _batch("a", "b", "c").documents()
    verdicts = await store.write(
        DocumentBatch.from_documents([good[0], b'{"@timestamp":"2026', good[1], b"[]", good[2]])
    )
    (answer,) = await store.query(Query())
    await store.close()
    assert verdicts.stored == 3
    assert [refusal.document for refusal in verdicts.rejected] == [b'{"@timestamp":"2026', b"[]"]
    assert all(refusal.reason for refusal in verdicts.rejected)
    assert answer.rows == ((3,),)


async def test_a_folder_that_another_store_holds_is_away_until_it_lets_go(tmp_path: Path) -> None:
    holder = DuckDBStore(tmp_path / "held")
    await holder.setup()
    blocked = DuckDBStore(tmp_path / "blocked")
    (tmp_path / "blocked" / "metronome.duckdb").mkdir()
    with pytest.raises(StoreUnavailable):
        await blocked.setup()
    (tmp_path / "blocked" / "metronome.duckdb").rmdir()
    await blocked.setup()
    assert (await blocked.write(_batch("a"))).stored == 1
    await blocked.close()
    await holder.close()


def test_what_the_rollup_can_answer_is_counted_from_it() -> None:
    midnight, noon = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)
    only_doc = AllOf((Equals("id", "doc"),))
    assert can_use_rollup(Query(group_by=("day",), where=only_doc, start=midnight))
    assert not can_use_rollup(Query(group_by=("day",), where=only_doc, start=noon))
    assert not can_use_rollup(Query(group_by=("day",), time_zone="Europe/Zurich"))
    assert not can_use_rollup(Query(group_by=("hour",)))
    assert not can_use_rollup(Query(group_by=("title",)))
    assert not can_use_rollup(Query(where=Equals("title", "x")))


async def test_questions_about_one_item_that_are_answered_in_one_pass_are_answered_as_singly(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    fields = [
        {"id": "doc", "event_id": f"{number}", "ts": f"2026-01-{1 + number % 20:02}T12:00:00Z", "event": event}
        | ({"format": "KML"} if event == "download" else {"referer": f"https://r{number % 3}.org/"})
        | ({"bot": "crawler"} if number % 7 == 0 else {})
        for number, event in enumerate(["view", "download", "error", "view"] * 25)
    ]
    await store.write(
        DocumentBatch.from_documents(
            [
                build_document(Event({**each, "id": item, "event_id": f"{item}{each['event_id']}"}), DOOR, "")
                for each in fields
                for item in ("doc", "other")
            ]
        )
    )
    item = Equals("id", "doc")
    start, end = datetime(2026, 1, 3, tzinfo=UTC), datetime(2026, 1, 15, tzinfo=UTC)
    questions = tuple(
        Query(
            group_by=(by,),
            where=AllOf((item, *filters)),
            start=start,
            end=end,
            sort_keys=(SortKey("count", descending=True),),
        )
        for by in ("day", "week", "month", "format", "referer", "event", "id", "bot")
        for filters in ((), (Equals("event", "view"),), (EXCLUDE_BOTS, OneOf("event", ("view", "download"))))
    )
    assert compile_combined_query(questions) is not None
    together = await store.query(*questions)
    singly = [(await store.query(question))[0] for question in questions]
    await store.close()
    assert list(together) == singly
    assert sum(int(row[1] or 0) for row in together[0].rows) == 60


def test_only_questions_about_one_item_are_answered_in_one_pass() -> None:
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
    ):
        assert compile_combined_query((about, other)) is None
    assert compile_combined_query((about,)) is None


async def test_forgetting_nothing_in_particular_does_not_forget_everything(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    await store.write(_batch("a"))
    with pytest.raises(ValueError, match="say what to forget"):
        await store.delete_events()
    (answer,) = await store.query(Query())
    await store.close()
    assert answer.rows == ((1,),)


async def test_the_file_of_an_older_metronome_is_brought_up_to_date(tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "metronome.duckdb") as older:
        older.execute(
            "CREATE TABLE events(key UHUGEINT, ts TIMESTAMP, id VARCHAR, event VARCHAR, format VARCHAR,"
            " referer VARCHAR, bot VARCHAR, visitor VARCHAR, session VARCHAR, doc JSON)"
        )
        line = build_document(Event({"id": "a", "event_id": "e", "LCP": 2.5, "os": "Plan 9", "mood": "good"}), DOOR, "")
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


async def test_what_takes_too_long_is_broken_off_and_the_next_question_is_answered(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path, query_timeout=0.05)
    await store.setup()
    await store.write(_batch(*map(str, range(20_000))))
    heavy = Query(tuple(Metric.parse(f"unique:f{at}") for at in range(50)), group_by=("event_id",))
    with pytest.raises(QueryTooExpensive, match=r"takes over 0\.05 s"):
        await store.query(heavy)
    (answer,) = await store.query(Query())
    await store.close()
    assert answer.rows == ((20_000,),)


def test_a_question_that_has_just_been_answered_can_be_ended() -> None:
    asking = CancellableQuery(duckdb.connect, lambda cursor: cursor.execute("SELECT 1").fetchall())
    assert asking.run() == [(1,)]
    asking.cancel()
