"""Segments of the embedded store: their files and columns, maintenance, and files of older versions."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from metronome.stores.base import DocumentBatch
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.duckdb.maintenance import (
    DEFAULT_LIMITS,
    Merge,
    Seal,
    StorageLimits,
    choose_merge,
    choose_quiet_merge,
    choose_rewrite,
    choose_seal,
)
from metronome.stores.duckdb.segments import FOLDER_NAME, FileKeeper, Segment, segment_path
from metronome.stores.query import Equals, Metric, Query
from tests.contracts.store_contract import count_events, event_document

LIMITS = StorageLimits(
    table_rows=0, direct_rows=1, old_rows=3, merged_segments=4, filter_rows=5, rollup_rows=2, quiet_seconds=3600
)
NOW = datetime(2026, 3, 1)  # noqa: DTZ001  # as DuckDB returns times
MONTH = date(2026, 1, 1)


def segment(number: int, rows: int, dropped: int = 0, month: date = MONTH) -> Segment:
    return Segment(number, month, rows, dropped, NOW, NOW, NOW, {})


def test_seals_the_oldest_month_with_many_events_once_the_hot_table_is_full() -> None:
    february, march = date(2026, 2, 1), date(2026, 3, 1)
    assert choose_seal({MONTH: (249_999, 5)}, DEFAULT_LIMITS) is None
    assert choose_seal({MONTH: (100_000, 5), february: (175_000, 6)}, DEFAULT_LIMITS) == Seal(MONTH, 5, 100_000)
    few_late = {MONTH: (1000, 7), february: (175_000, 6), march: (100_000, 7)}
    assert choose_seal(few_late, DEFAULT_LIMITS) == Seal(february, 6, 175_000)
    many_months = {date(2025, month, 1): (50_000 + month, month) for month in range(1, 13)}
    assert choose_seal(many_months, DEFAULT_LIMITS) == Seal(date(2025, 12, 1), 12, 50_012)


def test_keeps_a_small_store_in_the_hot_table() -> None:
    hot = {MONTH: (999_999, 5)}
    assert choose_seal(hot, DEFAULT_LIMITS, has_segments=False) is None
    assert choose_seal(hot, DEFAULT_LIMITS) == Seal(MONTH, 5, 999_999)
    assert choose_seal({MONTH: (1_000_000, 5)}, DEFAULT_LIMITS, has_segments=False) == Seal(MONTH, 5, 1_000_000)


def test_merges_segments_of_the_same_size_and_month() -> None:
    small = [segment(number, 20_000) for number in range(16)]
    assert choose_merge(small[:15], DEFAULT_LIMITS) is None
    assert choose_merge([segment(99, 500_000), *small], DEFAULT_LIMITS) == Merge(tuple(small))
    others = [segment(number, 20_000, month=date(2026, 2, 1)) for number in range(8)]
    assert choose_merge([*small[:8], *others], DEFAULT_LIMITS) is None
    # No segment has more events than the limit.
    large = [segment(number, 900_000) for number in range(16)]
    assert choose_merge(large, DEFAULT_LIMITS) == Merge(tuple(large[:4]))


def test_merges_further_in_a_quiet_month_if_that_doubles_the_largest() -> None:
    segments = [segment(0, 1_000_000), segment(1, 30_000), segment(2, 20_000), segment(3, 20_000)]
    quiet = NOW + timedelta(seconds=60)
    assert choose_quiet_merge(segments, DEFAULT_LIMITS, NOW + timedelta(seconds=20)) == (None, 40.0)
    assert choose_quiet_merge(segments, DEFAULT_LIMITS, quiet) == (Merge((segments[2], segments[3], segments[1])), 0.0)
    assert choose_quiet_merge(segments[:2], DEFAULT_LIMITS, quiet) == (None, None)
    dropped = segment(4, 1000, dropped=1)
    assert choose_quiet_merge([dropped], DEFAULT_LIMITS, quiet) == (Merge((dropped,)), 0.0)


def test_rewrites_segments_that_lost_events() -> None:
    few, many = segment(0, 1000, dropped=1), segment(1, 1000, dropped=125)
    assert choose_rewrite([few, many], at_once=False) == Merge((many,))
    assert choose_rewrite([few], at_once=True) == Merge((few,))
    assert choose_rewrite([segment(2, 1000)], at_once=True) is None


def test_keeps_the_files_of_replaced_segments_while_a_query_may_read_them(tmp_path: Path) -> None:
    keeper, old = FileKeeper(tmp_path), segment(7, 10)
    path = segment_path(tmp_path, old)
    path.parent.mkdir(parents=True)
    path.touch()
    with keeper.reading():
        keeper.remove([old])
        with keeper.reading():
            assert path.exists()
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("number", [1, 3])
async def test_segments_can_be_read_by_others_and_have_typed_columns(tmp_path: Path, number: int) -> None:
    store = DuckDBStore(tmp_path, limits=LIMITS)
    await store.setup()
    documents = [
        event_document(
            f"2015-01-{1 + at:02}T12:00:00Z",
            id=f"i{at % 3}",
            price=at,
            rate=at + 0.5,
            mixed=at if at % 2 else "x",
            **{"utm.source": "mail", "Odd name!": "x"},
        )
        for at in range(20)
    ]
    for first in range(0, 20, -(-20 // number)):
        await store.write(DocumentBatch.from_documents(documents[first : first + -(-20 // number)]))
    files = sorted((tmp_path / FOLDER_NAME / "2015-01").glob("*.parquet"))
    assert len(files) == number
    with duckdb.connect() as other:
        rows = other.execute("SELECT doc FROM read_parquet(?) ORDER BY ts", [[str(path) for path in files]]).fetchall()
        types = other.execute("SELECT column_name, column_type FROM (DESCRIBE FROM read_parquet(?))", [str(files[0])])
        columns: dict[str, Any] = dict(types.fetchall())
    assert [row[0].encode() for row in rows] == documents
    expected = {"ts": "TIMESTAMP", "id": "VARCHAR", "price": "BIGINT", "rate": "DOUBLE", "mixed": "VARCHAR"}
    assert {**columns, **expected, "params.utm.source": "VARCHAR"} == columns
    assert "country" not in columns
    (result,) = await store.query(
        Query(
            (Metric.parse("sum:price"), Metric.parse("max:rate"), Metric.parse("count:mixed")),
            where=Equals("utm.source", "mail"),
        )
    )
    (by_price,) = await store.query(Query(group_by=("price",), where=Equals("rate", "3.5")))
    await store.close()
    assert result.rows == ((190.0, 19.5, 10),)
    assert by_price.rows == (("3", 1),)


async def test_deletes_files_that_no_transaction_has_recorded_at_the_next_start(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path, limits=LIMITS)
    await store.setup()
    await store.write(DocumentBatch.from_documents([event_document(id="a") for _ in range(9)]))
    await store.close()
    (known,) = (tmp_path / FOLDER_NAME).rglob("*.parquet")
    unknown = [known.with_name("00000099.parquet"), known.with_name("00000099.filter"), known.with_name("x.tmp")]
    for path in unknown:
        path.write_bytes(b"half of it")
    reopened = DuckDBStore(tmp_path, limits=LIMITS)
    await reopened.setup()
    assert await count_events(reopened) == 9
    await reopened.close()
    assert known.exists()
    assert known.with_suffix(".filter").exists()
    assert not any(path.exists() for path in unknown)


@pytest.mark.slow
async def test_moves_the_events_of_an_older_file_month_by_month_and_continues_after_a_restart(tmp_path: Path) -> None:
    documents = [
        event_document(f"2015-{1 + at % 5:02}-{1 + at // 5:02}T12:00:00Z", event_id=f"e{at}", id=f"i{at % 7}", n=at)
        for at in range(60)
    ]
    with duckdb.connect(tmp_path / "metronome.duckdb") as older:
        older.execute("CREATE TABLE events(key UHUGEINT, ts TIMESTAMP, id VARCHAR, event VARCHAR, doc JSON)")
        older.execute(
            "INSERT INTO events SELECT md5_number(event_id || day), ts, id, 'view', doc FROM ("
            "SELECT doc->>'event_id' AS event_id, (doc->>'@timestamp')[:10] AS day, "
            "(doc->>'@timestamp')::TIMESTAMP AS ts, doc->>'id' AS id, doc "
            "FROM (SELECT unnest(?::VARCHAR[])::JSON AS doc))",
            [[document.decode() for document in documents]],
        )
        older.execute(
            "CREATE TABLE rollup AS SELECT id, ts::DATE AS day, event, NULL::VARCHAR AS format, "
            "NULL::VARCHAR AS referer, NULL::VARCHAR AS bot, count(*) AS n FROM events GROUP BY ALL"
        )
    for attempt in range(100):
        store = DuckDBStore(tmp_path, limits=LIMITS)
        await store.setup()
        written = await store.write(
            DocumentBatch.from_documents([*documents[:10], event_document(event_id=f"new{attempt}")])
        )
        assert (written.stored, written.duplicates) == (1, 10)
        days, sums = await store.query(Query(group_by=("day",)), Query((Metric.parse("sum:n"),)))
        assert sum(int(count or 0) for count in days.to_dict().values()) == 61 + attempt
        assert sums.rows == ((1770.0,),)
        await asyncio.sleep(0.05)
        await store.close()
        with duckdb.connect(tmp_path / "metronome.duckdb", read_only=True) as database:
            tables = {name for (name,) in database.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        if "events" not in tables:
            break
    else:
        pytest.fail("the old events were not moved")
    store = DuckDBStore(tmp_path, limits=LIMITS)
    await store.setup()
    stored = [document async for document in store.iterate_documents(end=datetime(2016, 1, 1, tzinfo=UTC))]
    await store.close()
    assert set(documents) <= set(stored)
    assert len(stored) == 61 + attempt
