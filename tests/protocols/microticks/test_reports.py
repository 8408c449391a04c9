"""The lists of microticks, on both stores."""

import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from metronome.errors import InvalidQuery
from metronome.event import DocumentContext, Event, build_document
from metronome.protocols.microticks.reports import (
    EVENT_COLUMNS,
    LIST_MAX_DOCUMENT_BYTES,
    SESSION_COLUMNS,
    SessionListQuery,
    list_events,
    list_sessions,
    parse_list_query,
)
from metronome.protocols.microticks.sessions import (
    Session,
    SessionAction,
    build_action_event,
    build_start_event,
    build_stop_event,
)
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.query import MAX_GROUPS
from tests.reports.filled import BACK_ENDS, opened

DOOR = DocumentContext(
    received_at="2017-09-01T00:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
pytestmark = pytest.mark.asyncio(loop_scope="module")
"""All tests ask the same stores, and so share the loop that these were opened in."""


def at(day: int, minute: int) -> str:
    return f"2017-08-{day:02}T12:{minute:02}:00.125Z"


A, B, C = (name * 32 for name in "abc")
"""The tokens of three sessions: the second was stopped, the third has no event and a neighbour's consumer."""
TABLE = Session("table", at(24, 0))
WALL = Session("wall", at(25, 0)).with_stop(at(25, 30))
OTHER = Session("table", at(25, 10))
HAPPENINGS = (
    (A, TABLE, SessionAction("click", '{"id":"moa"}', at(24, 1))),
    (A, TABLE, SessionAction("swipe", "left", at(24, 5))),
    (A, TABLE, SessionAction("click", '{"id":"moa"}', at(24, 3))),
    (B, WALL, SessionAction("click", "5", at(25, 2))),
    # Sent after the session's day was over.
    (A, TABLE, SessionAction("session_start", "{}", at(25, 1))),
)
LISTED_A = {
    "id": A,
    "consumer_id": "table",
    "started_at": at(24, 0),
    "stopped_at": None,
    "clicks": 2,
    "last_action": at(24, 3),
}
LISTED_B = {
    "id": B,
    "consumer_id": "wall",
    "started_at": at(25, 0),
    "stopped_at": at(25, 30),
    "clicks": 1,
    "last_action": at(25, 2),
}
LISTED_C = {
    "id": C,
    "consumer_id": "table",
    "started_at": at(25, 10),
    "stopped_at": None,
    "clicks": 0,
    "last_action": None,
}
STRANGERS: tuple[dict[str, Any], ...] = (
    {"id": "moa"},
    {"session": A, "event": "session_start", "consumer": "table"},
    {"protocol": "microticks"},
)


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    made = [
        *(build_start_event(token, session) for token, session in ((A, TABLE), (B, WALL), (C, OTHER))),
        *(build_action_event(*happening, f"e{number}") for number, happening in enumerate(HAPPENINGS)),
        build_stop_event(B, WALL),
        *(Event(fields) for fields in STRANGERS),
    ]
    async with opened(request.param, request, tmp_path_factory) as store:
        await write(store, made)
        yield store


async def write(store: Store, made: list[Event]) -> None:
    lines = [build_document(event, DOOR, f"spare{number}") for number, event in enumerate(made)]
    await store.write(DocumentBatch.from_documents(lines))
    await store.refresh()


async def test_sessions_are_listed_oldest_first_with_their_clicks_and_their_end(store: Store) -> None:
    assert await list_sessions(store, SessionListQuery()) == {
        "sessions": [LISTED_A, LISTED_B, LISTED_C],
        "count": 3,
        "status": 200,
    }


async def test_events_are_listed_oldest_first_with_their_data_as_it_was_sent(store: Store) -> None:
    found = await list_events(store, SessionListQuery())
    assert (found["count"], found["status"]) == (5, 200)
    assert found["events"][0] == {
        "id": "e0",
        "session_id": A,
        "time": at(24, 1),
        "action": "click",
        "data": {"id": "moa"},
    }
    assert [(event["id"], event["data"]) for event in found["events"]] == [
        ("e0", {"id": "moa"}),
        ("e2", {"id": "moa"}),
        ("e1", "left"),
        ("e4", {}),
        ("e3", 5),
    ]


@pytest.mark.parametrize(
    ("query", "tokens", "identities"),
    [
        ({"consumer": "table"}, "ac", "0214"),
        ({"consumer": "nobody"}, "", ""),
        ({"date": "2017-08-25"}, "bc", "3"),
        ({"date": "2017-08-24"}, "a", "0214"),
        ({"date": "2017-08"}, "abc", "02143"),
        ({"date": "2017-08-25T12"}, "bc", "3"),
        ({"date": "2017-08-25", "consumer": "table"}, "c", ""),
        ({"limit": "2"}, "ab", "02"),
        ({"limit": "2", "offset": "1"}, "bc", "21"),
        ({"offset": "2"}, "c", "143"),
        ({"offset": "9"}, "", ""),
        ({"offset": "9", "limit": "1"}, "", ""),
        ({"limit": "0"}, "", ""),
        ({"limit": "", "offset": "", "sort": "", "consumer": "", "date": "", "_": "1"}, "abc", "02143"),
        ({"sort": "id"}, "abc", "02143"),
        ({"sort": "id.desc"}, "cba", "34120"),
        ({"sort.desc": "id", "limit": "2"}, "cb", "34"),
        ({"sort": "id.desc", "limit": "1", "offset": "1"}, "b", "4"),
    ],
)
async def test_lists_are_filtered_sorted_and_cut(
    store: Store, query: Mapping[str, str], tokens: str, identities: str
) -> None:
    listed = await list_sessions(store, parse_list_query(query, SESSION_COLUMNS))
    happened = await list_events(store, parse_list_query(query, EVENT_COLUMNS))
    assert [session["id"] for session in listed["sessions"]] == [token * 32 for token in tokens]
    assert [event["id"] for event in happened["events"]] == [f"e{identity}" for identity in identities]
    assert (listed["count"], happened["count"]) == (len(tokens), len(identities))


@pytest.mark.parametrize(
    ("sort", "tokens"),
    [
        ("consumer", "acb"),
        ("consumer_id.desc", "bac"),
        ("started_at.desc", "cba"),
        ("stopped_at", "acb"),
        ("stopped_at.desc", "bac"),
        ("clicks", "cba"),
        ("clicks.desc", "abc"),
        ("last_action", "cab"),
        ("last_action.desc", "bac"),
    ],
)
async def test_sessions_are_sorted_by_any_column_and_those_without_a_value_are_least(
    store: Store, sort: str, tokens: str
) -> None:
    for limit, offset in itertools.product((None, 1, 2), (0, 1)):
        query = {"sort": sort, "offset": str(offset)} | ({} if limit is None else {"limit": str(limit)})
        found = await list_sessions(store, parse_list_query(query, SESSION_COLUMNS))
        expected = tokens[offset:] if limit is None else tokens[offset : offset + limit]
        assert [session["id"][0] for session in found["sessions"]] == list(expected)


@pytest.mark.parametrize(
    ("sort", "identities"),
    [
        ("time", "02143"),
        ("time.desc", "34120"),
        ("action", "02341"),
        ("action.desc", "14320"),
        ("session_id", "02143"),
        ("session_id.desc", "34120"),
    ],
)
async def test_events_are_sorted_by_any_column_however_few_are_kept_meanwhile(
    store: Store, sort: str, identities: str
) -> None:
    for limit, offset in itertools.product((None, 1, 2), (0, 1)):
        query = {"sort": sort, "offset": str(offset)} | ({} if limit is None else {"limit": str(limit)})
        found = await list_events(store, parse_list_query(query, EVENT_COLUMNS))
        expected = identities[offset:] if limit is None else identities[offset : offset + limit]
        assert [event["id"][1] for event in found["events"]] == list(expected)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"sort": "token"}, "sort=token is no column: there are id, time, action, session_id"),
        ({"sort": "1; DROP TABLE events"}, "is no column"),
        ({"sort": "time.asc"}, "is no column"),
        ({"sort.desc": "clicks"}, "sort=clicks is no column"),
        ({"limit": "-1"}, "limit=-1 is no number"),
        ({"limit": "many"}, "limit=many is no number"),
        ({"offset": "1e3"}, "offset=1e3 is no number"),
        ({"offset": "²"}, "offset=² is no number"),
        ({"date": "25.8.2017"}, "is no date"),
        ({"date": "2017-08-2%"}, "is no date"),
        ({"date": "yesterday"}, "is no date"),
        ({"ip": "129.240.239.173"}, "without addresses"),
    ],
)
async def test_what_a_list_cannot_be_asked_with_is_refused(query: Mapping[str, str], sentence: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_list_query(query, EVENT_COLUMNS)
    assert sentence in str(caught.value)


async def test_events_that_are_too_large_together_are_refused_and_fewer_of_them_are_not(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    data = orjson.dumps("x" * 2**20).decode()
    each = [SessionAction("click", data, at(24, minute)) for minute in range(LIST_MAX_DOCUMENT_BYTES // 2**20 + 1)]
    await write(store, [build_action_event(A, TABLE, happening, f"e{number}") for number, happening in enumerate(each)])
    with pytest.raises(InvalidQuery, match="over 32 MiB of events are more than one list holds"):
        await list_events(store, SessionListQuery())
    found = await list_events(store, SessionListQuery(limit=2, descending=True))
    assert [event["id"] for event in found["events"]] == [f"e{len(each) - 1}", f"e{len(each) - 2}"]
    await store.close()


async def test_more_sessions_than_one_list_holds_are_refused_and_fewer_of_them_are_not(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    made = [build_start_event(f"{number:032x}", TABLE) for number in range(MAX_GROUPS + 1)]
    await write(store, made)
    for asked in (SessionListQuery(), SessionListQuery(limit=MAX_GROUPS + 1)):
        with pytest.raises(InvalidQuery, match="over 100000 sessions are more than one list holds"):
            await list_sessions(store, asked)
    assert (await list_sessions(store, SessionListQuery(limit=3)))["count"] == 3
    assert (await list_sessions(store, SessionListQuery(offset=MAX_GROUPS)))["count"] == 1
    await store.close()


async def test_what_only_looks_like_a_session_breaks_no_list(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    forged = {"session": "s", "protocol": "microticks", "consumer": "c", "session_started": "2017"}
    await write(store, [Event({**forged, "session_stopped": 1e18, "action": "a"})])
    assert (await list_sessions(store, SessionListQuery()))["sessions"][0]["stopped_at"] is None
    assert (await list_events(store, SessionListQuery()))["events"][0]["data"] is None
    await store.close()
