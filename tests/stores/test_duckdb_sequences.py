"""Sequences and newest values in the embedded store."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.stores.duckdb import DuckDBStore, schema
from metronome.stores.duckdb.segments import Snapshot
from metronome.stores.duckdb.sequences import find_newest_values
from metronome.stores.query import Equals
from metronome.stores.sequences import SequenceQuery
from tests.contracts.store_contract import event_document, read_sequences, write_new_documents

EVENTS = (
    *(event_document(f"2015-01-22T10:00:0{second}Z", session="long", id=f"i{second}") for second in (5, 3, 1, 4, 2)),
    *(event_document("2015-01-22T11:00:00Z", session="tied", id=item) for item in ("b", "a", None, "a")),
    event_document("2015-01-22T12:00:00Z", session="short", id="only"),
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBStore]:
    store = DuckDBStore(tmp_path)
    await store.setup()
    await write_new_documents(store, *EVENTS)
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("max_events", "long", "tied"),
    [
        (None, ["i1", "i2", "i3", "i4", "i5"], [None, "a", "a", "b"]),
        (9, ["i1", "i2", "i3", "i4", "i5"], [None, "a", "a", "b"]),
        (3, ["i1", "i2", "i3"], [None, "a", "a"]),
        (1, ["i1"], [None]),
    ],
)
async def test_limits_the_events_of_each_sequence(
    store: DuckDBStore, max_events: int | None, long: list[str], tied: list[str | None]
) -> None:
    sequences = await read_sequences(store, SequenceQuery("session", ("id",), max_events=max_events))
    items = {key: [item for _, item in events] for key, events in sequences}
    assert items == {"long": long, "short": ["only"], "tied": tied}


START = datetime(2015, 1, 1, tzinfo=UTC)
ROWS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from([*"abcdefg", None]), st.sampled_from("xy")), max_size=40)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    database = duckdb.connect()
    schema.create_tables(database)
    yield database
    database.close()


@given(
    rows=ROWS,
    limit=st.integers(1, 8),
    item=st.sampled_from([None, "x"]),
    first=st.none() | st.integers(-5, 405),
    last=st.none() | st.integers(-5, 405),
)
def test_windows_find_the_same_newest_values_as_a_full_scan(
    database: duckdb.DuckDBPyConnection,
    rows: list[tuple[int, str | None, str]],
    limit: int,
    item: str | None,
    first: int | None,
    last: int | None,
) -> None:
    database.execute("DELETE FROM hot")
    for day, session, item_id in rows:
        values = [(START + timedelta(days=day)).replace(tzinfo=None), session, item_id]
        database.execute("INSERT INTO hot (ts, session, id) VALUES (?, ?, ?)", values)
    start = None if first is None else START + timedelta(days=first)
    end = None if last is None else START + timedelta(days=last)
    where = None if item is None else Equals("id", item)
    snapshot = Snapshot((schema.HOT_PART,), (), Path())
    newest_values = find_newest_values(database, snapshot, "session", limit, where, start, end, full_scan_max_events=0)
    last_days: dict[str, int] = {}
    for day, session, item_id in rows:
        is_selected = item in {None, item_id} and (first is None or day >= first) and (last is None or day < last)
        if is_selected and session is not None:
            last_days[session] = max(last_days.get(session, 0), day)
    expected = sorted(last_days, key=lambda session: (last_days[session], session), reverse=True)
    assert newest_values == tuple(expected[:limit])
