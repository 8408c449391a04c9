"""The newest values are looked for among the newest events first, and are the same as among all."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.question import Equals
from metronome.stores.duckdb import schema
from metronome.stores.duckdb.newest import find_newest

START = datetime(2015, 1, 1, tzinfo=UTC)
ROWS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from([*"abcdefg", None]), st.sampled_from("xy")), max_size=40)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    database = duckdb.connect()
    database.execute(schema.TABLES)
    yield database
    database.close()


@pytest.mark.slow
@given(
    rows=ROWS,
    limit=st.integers(1, 8),
    item=st.sampled_from([None, "x"]),
    first=st.none() | st.integers(-5, 405),
    last=st.none() | st.integers(-5, 405),
)
def test_looking_back_day_by_day_finds_what_looking_at_all_does(
    database: duckdb.DuckDBPyConnection,
    rows: list[tuple[int, str | None, str]],
    limit: int,
    item: str | None,
    first: int | None,
    last: int | None,
) -> None:
    database.execute("DELETE FROM events")
    for day, session, of in rows:
        values = [(START + timedelta(days=day)).replace(tzinfo=None), session, of]
        database.execute("INSERT INTO events (ts, session, id) VALUES (?, ?, ?)", values)
    start = None if first is None else START + timedelta(days=first)
    end = None if last is None else START + timedelta(days=last)
    where = None if item is None else Equals("id", item)
    found = find_newest(database, "session", limit, where, start, end, few_events=0)
    newest: dict[str, int] = {}
    for day, session, of in rows:
        is_asked = item in {None, of} and (first is None or day >= first) and (last is None or day < last)
        if is_asked and session is not None:
            newest[session] = max(newest.get(session, 0), day)
    ranked = sorted(newest, key=lambda session: (newest[session], session), reverse=True)
    assert found == tuple(ranked[:limit])
