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
from metronome.protocols.microticks import reports
from metronome.protocols.microticks.reports import (
    EVENT_COLUMNS,
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
from tests.reports.filled import BACK_ENDS, opened

CONTEXT = DocumentContext(
    received_at="2017-09-01T00:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
pytestmark = pytest.mark.asyncio(loop_scope="module")
"""The tests share the stores, so they have to share the event loop."""


def at(day: int, minute: int) -> str:
    return f"2017-08-{day:02}T12:{minute:02}:00.125Z"


A, B, C = (name * 32 for name in "abc")
"""The tokens of three sessions: the second is stopped, the third has no action and the consumer of the first."""
TABLE = Session("table", at(24, 0))
WALL = Session("wall", at(25, 0)).with_stop(at(25, 30))
OTHER = Session("table", at(25, 10))
ACTIONS = (
    (A, TABLE, SessionAction("click", '{"id":"moa"}', at(24, 1))),
    (A, TABLE, SessionAction("swipe", "left", at(24, 5))),
    (A, TABLE, SessionAction("click", '{"id":"moa"}', at(24, 3))),
    (B, WALL, SessionAction("click", "5", at(25, 2))),
    # On the day after the session's start.
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
OTHER_EVENTS: tuple[dict[str, Any], ...] = (
    {"id": "moa"},
    {"session": A, "event": "session_start", "consumer": "table"},
    {"protocol": "microticks"},
)


@pytest_asyncio.fixture(params=BACK_ENDS, scope="module", loop_scope="module")
async def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    events = [
        *(build_start_event(token, session) for token, session in ((A, TABLE), (B, WALL), (C, OTHER))),
        *(build_action_event(*action, f"e{number}") for number, action in enumerate(ACTIONS)),
        build_stop_event(B, WALL),
        *(Event(fields) for fields in OTHER_EVENTS),
    ]
    async with opened(request.param, request, tmp_path_factory) as store:
        await write(store, events)
        yield store


async def write(store: Store, events: list[Event]) -> None:
    lines = [build_document(event, CONTEXT, f"spare{number}") for number, event in enumerate(events)]
    await store.write(DocumentBatch.from_documents(lines))
    await store.refresh()


async def test_lists_sessions_oldest_first(store: Store) -> None:
    assert await list_sessions(store, SessionListQuery()) == {
        "sessions": [LISTED_A, LISTED_B, LISTED_C],
        "count": 3,
        "status": 200,
    }


async def test_lists_actions_oldest_first_with_their_data(store: Store) -> None:
    listed = await list_events(store, SessionListQuery())
    assert (listed["count"], listed["status"]) == (5, 200)
    assert listed["events"][0] == {
        "id": "e0",
        "session_id": A,
        "time": at(24, 1),
        "action": "click",
        "data": {"id": "moa"},
    }
    assert [(event["id"], event["data"]) for event in listed["events"]] == [
        ("e0", {"id": "moa"}),
        ("e2", {"id": "moa"}),
        ("e1", "left"),
        ("e4", {}),
        ("e3", 5),
    ]


@pytest.mark.parametrize(
    ("query", "tokens", "event_numbers"),
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
async def test_filters_sorts_and_limits_lists(
    store: Store, query: Mapping[str, str], tokens: str, event_numbers: str
) -> None:
    sessions = await list_sessions(store, parse_list_query(query, SESSION_COLUMNS))
    events = await list_events(store, parse_list_query(query, EVENT_COLUMNS))
    assert [session["id"] for session in sessions["sessions"]] == [token * 32 for token in tokens]
    assert [event["id"] for event in events["events"]] == [f"e{number}" for number in event_numbers]
    assert (sessions["count"], events["count"]) == (len(tokens), len(event_numbers))


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
async def test_sorts_sessions_by_any_column_with_missing_values_as_the_least(
    store: Store, sort: str, tokens: str
) -> None:
    for limit, offset in itertools.product((None, 1, 2), (0, 1)):
        query = {"sort": sort, "offset": str(offset)} | ({} if limit is None else {"limit": str(limit)})
        listed = await list_sessions(store, parse_list_query(query, SESSION_COLUMNS))
        expected = tokens[offset:] if limit is None else tokens[offset : offset + limit]
        assert [session["id"][0] for session in listed["sessions"]] == list(expected)


@pytest.mark.parametrize(
    ("sort", "event_numbers"),
    [
        ("time", "02143"),
        ("time.desc", "34120"),
        ("action", "02341"),
        ("action.desc", "14320"),
        ("session_id", "02143"),
        ("session_id.desc", "34120"),
    ],
)
async def test_sorts_actions_by_any_column_with_any_limit(store: Store, sort: str, event_numbers: str) -> None:
    for limit, offset in itertools.product((None, 1, 2), (0, 1)):
        query = {"sort": sort, "offset": str(offset)} | ({} if limit is None else {"limit": str(limit)})
        listed = await list_events(store, parse_list_query(query, EVENT_COLUMNS))
        expected = event_numbers[offset:] if limit is None else event_numbers[offset : offset + limit]
        assert [event["id"][1] for event in listed["events"]] == list(expected)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"sort": "token"}, "invalid sort 'token': expected id, time, action, session_id"),
        ({"sort": "1; DROP TABLE events"}, "invalid sort"),
        ({"sort": "time.asc"}, "invalid sort"),
        ({"sort.desc": "clicks"}, "invalid sort 'clicks'"),
        ({"limit": "-1"}, "invalid limit '-1'"),
        ({"limit": "many"}, "invalid limit 'many'"),
        ({"offset": "1e3"}, "invalid offset '1e3'"),
        ({"offset": "²"}, "invalid offset '²'"),
        ({"date": "25.8.2017"}, "invalid date"),
        ({"date": "2017-08-2%"}, "invalid date"),
        ({"date": "yesterday"}, "invalid date"),
        ({"ip": "129.240.239.173"}, "without IP addresses"),
    ],
)
async def test_rejects_invalid_parameters(query: Mapping[str, str], message: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_list_query(query, EVENT_COLUMNS)
    assert message in str(caught.value)


async def test_rejects_a_list_with_too_many_bytes_of_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "LIST_MAX_DOCUMENT_BYTES", 2**20)
    store = DuckDBStore(tmp_path)
    await store.setup()
    data = orjson.dumps("x" * 2**16).decode()
    actions = [SessionAction("click", data, at(24, minute)) for minute in range(2**20 // 2**16 + 1)]
    await write(store, [build_action_event(A, TABLE, action, f"e{number}") for number, action in enumerate(actions)])
    with pytest.raises(InvalidQuery, match="the list has over 1 MiB of events"):
        await list_events(store, SessionListQuery())
    listed = await list_events(store, SessionListQuery(limit=2, descending=True))
    assert [event["id"] for event in listed["events"]] == [f"e{len(actions) - 1}", f"e{len(actions) - 2}"]
    await store.close()


async def test_rejects_a_list_with_too_many_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_GROUPS", 100)
    store = DuckDBStore(tmp_path)
    await store.setup()
    events = [build_start_event(f"{number:032x}", TABLE) for number in range(101)]
    await write(store, events)
    for query in (SessionListQuery(), SessionListQuery(limit=101)):
        with pytest.raises(InvalidQuery, match="the list has over 100 sessions"):
            await list_sessions(store, query)
    assert (await list_sessions(store, SessionListQuery(limit=3)))["count"] == 3
    assert (await list_sessions(store, SessionListQuery(offset=100)))["count"] == 1
    await store.close()


async def test_lists_events_that_only_look_like_a_session(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path)
    await store.setup()
    forged = {"session": "s", "protocol": "microticks", "consumer": "c", "session_started": "2017"}
    await write(store, [Event({**forged, "session_stopped": 1e18, "action": "a"})])
    assert (await list_sessions(store, SessionListQuery()))["sessions"][0]["stopped_at"] is None
    assert (await list_events(store, SessionListQuery()))["events"][0]["data"] is None
    await store.close()
