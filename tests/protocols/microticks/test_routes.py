"""microticks on a real server: sessions, actions and lists."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import orjson
import pytest

from metronome.auth import keys
from metronome.auth.keys import build_key, generate_token
from metronome.event import DocumentContext, build_document
from metronome.protocols.microticks.sessions import Session, build_start_event, build_stop_event
from metronome.scopes import Scope
from metronome.state.sqlite import SQLiteState
from metronome.times import format_timestamp
from tests.servers import Server, running_server, unique_name

READ_KEY: Final = "let me read"
NOW: Final = datetime.now(UTC).replace(microsecond=438_000)
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"


def at(minutes: float = 0) -> str:
    return format_timestamp(NOW + timedelta(minutes=minutes))


@dataclass(frozen=True)
class Response:
    """A response of the server."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(compare=False)


def send(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
    """Send a request over a new connection, so that any worker may receive it."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        content = orjson.loads(response.read())
        assert content["status"] == response.status
        return Response(response.status, content, dict(response.getheaders()))
    finally:
        connection.close()


def post(server: Server, path: str, fields: dict[str, Any], content_type: str = FORM, **headers: str) -> Response:
    body = urlencode(fields).encode() if content_type == FORM else orjson.dumps(fields)
    return send(server, "POST", path, body, Content_Type=content_type, **headers)


def start(server: Server, consumer_key: str, **headers: str) -> str:
    response = post(server, "/sessions", {"consumer_key": consumer_key, "ts": at()}, **headers)
    assert (response.status, set(response.body)) == (200, {"status", "token"})
    return str(response.body["token"])


def list_entries(server: Server, name: str, query: str = "") -> list[dict[str, Any]]:
    server.wait_until_shipped()
    response = send(server, "GET", f"/{name}?{query}&{urlencode({'key': READ_KEY})}")
    assert response.status == 200, response
    entries: list[dict[str, Any]] = response.body[name]
    assert response.body["count"] == len(entries)
    return entries


def create_consumer(data: Path, name: str, *scopes: Scope, **more: Any) -> str:
    """Create a key in the state in a data folder, or change it, and return the token."""
    token = generate_token()
    key = build_key(name, scopes or (Scope.TICK,), token, "2017-01-01T00:00:00.000Z", **more)

    async def add() -> None:
        state = SQLiteState(data)
        await state.setup()
        before = await state.get(keys.KEY_KIND, name)
        if before is None:
            assert await state.add(keys.KEY_KIND, name, key.to_record())
        else:
            assert await state.compare_and_swap(keys.KEY_KIND, name, before, {**before, **more})
        await state.close()

    asyncio.run(add())
    return token


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("microticks") / "single", microticks_key=READ_KEY) as running:
        yield running


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("microticks") / "crew", microticks_key=READ_KEY, workers=2) as running:
        yield running


@pytest.fixture(params=["single", "crew"])
def server(request: pytest.FixtureRequest) -> Server:
    running: Server = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def consumer(server: Server) -> tuple[str, str]:
    """Return the name and the key of a new consumer."""
    name = unique_name("table-")
    return name, create_consumer(server.data, name)


@pytest.mark.crew
@pytest.mark.clock
@pytest.mark.parametrize("content_type", [FORM, JSON])
def test_starts_fills_stops_and_lists_a_session(server: Server, consumer: tuple[str, str], content_type: str) -> None:
    name, key = consumer
    item = unique_name("item-")
    data = {"id": item, "target": "door", "clickX": 406, "deep": [1, {"a": None}]}
    started = post(server, "/sessions", {"consumer_key": key, "ts": at()}, content_type)
    token = started.body["token"]
    assert (len(token), int(token, 16) >= 0, started.status) == (32, True, 200)
    sent = data if content_type == JSON else orjson.dumps(data).decode()
    actions = [
        post(server, "/events", {"token": token, "action": action, "data": sent, "ts": at(minute)}, content_type)
        for action, minute in (("click", 1), ("click", 2), ("view", 3))
    ]
    assert [action.status for action in actions] == [200, 200, 200]
    event_ids = [action.body["event_id"] for action in actions]
    stopped = post(server, "/sessions/stop", {"token": token, "ts": at(4)}, content_type)
    assert stopped == Response(200, {"status": 200}, {})
    assert list_entries(server, "sessions", f"consumer={name}") == [
        {
            "id": token,
            "consumer_id": name,
            "started_at": at(),
            "stopped_at": at(4),
            "clicks": 2,
            "last_action": at(2),
        }
    ]
    assert list_entries(server, "events", f"consumer={name}&sort=time.desc&limit=1") == [
        {"id": event_ids[2], "session_id": token, "time": at(3), "action": "view", "data": data}
    ]
    assert [event["id"] for event in list_entries(server, "events", f"consumer={name}")] == event_ids
    tock = get_tock(server, item)
    assert sum(tock["views"].values()) == 1


def get_tock(server: Server, item: str) -> Any:
    return server.get(f"/tock/{item}.json")


def test_lists_are_limited_by_date_and_count(server: Server, consumer: tuple[str, str]) -> None:
    name, key = consumer
    tokens = {start(server, key) for _ in range(3)}
    day = at()[:10]
    assert {session["id"] for session in list_entries(server, "sessions", f"consumer={name}&date={day}")} == tokens
    assert list_entries(server, "sessions", f"consumer={name}&date=2001-01-01") == []
    pages = [list_entries(server, "sessions", f"consumer={name}&limit=2&offset={offset}") for offset in (0, 2)]
    assert [len(page) for page in pages] == [2, 1]
    assert {session["id"] for page in pages for session in page} == tokens


UNKNOWN: Final = "0" * 32
INVALID_JSON: Final = b'{"ts":'


@pytest.mark.parametrize(
    ("path", "fields", "status", "error"),
    [
        ("/sessions", {"ts": at()}, 401, "Invalid consumer_key"),
        ("/sessions", {"consumer_key": "", "ts": at()}, 401, "Invalid consumer_key"),
        ("/sessions", {"consumer_key": "f" * 40, "ts": at()}, 401, "Invalid consumer_key"),
        ("/sessions", {"consumer_key": "KEY"}, 400, 'No "ts" parameter provided'),
        ("/sessions", {"consumer_key": "KEY", "ts": "noon"}, 400, 'invalid "ts"'),
        ("/sessions", {"consumer_key": "KEY", "ts": at(3 * 24 * 60)}, 400, "more than a day ahead"),
        ("/sessions", {"consumer_key": "KEY", "ts": "2017-08-25T17:09:19.438Z"}, 400, "raise tick_max_age"),
        ("/sessions/stop", {"token": UNKNOWN, "ts": at()}, 400, "Could not find session"),
        ("/sessions/stop", {"token": "x' OR 1=1", "ts": at()}, 400, "Could not find session"),
        ("/sessions/stop", {"ts": at()}, 400, 'No "token" parameter provided'),
        ("/sessions/stop", {"token": "TOKEN"}, 400, 'No "ts" parameter provided'),
        ("/sessions/stop", {"token": "TOKEN", "ts": at(3 * 24 * 60)}, 400, "more than a day ahead"),
        ("/events", {"token": UNKNOWN, "action": "a", "data": "", "ts": at()}, 400, "Could not find session"),
        ("/events", {"token": "TOKEN", "data": "", "ts": at()}, 400, 'No "action" parameter provided'),
        ("/events", {"token": "TOKEN", "action": "a", "ts": at()}, 400, 'No "data" parameter provided'),
        ("/events", {"token": "TOKEN", "action": "a", "data": ""}, 400, 'No "ts" parameter provided'),
        ("/events", {"token": "TOKEN", "action": "a" * 1025, "data": "", "ts": at()}, 400, "event is over 1024 bytes"),
        ("/events", {"token": "TOKEN", "action": "a", "data": "x" * 2**20, "ts": at()}, 413, "event_max_bytes"),
    ],
)
def test_rejects_invalid_requests_without_storing_anything(
    server: Server, consumer: tuple[str, str], path: str, fields: dict[str, str], status: int, error: str
) -> None:
    name, key = consumer
    token = start(server, key)
    values = {name: {"KEY": key, "TOKEN": token}.get(text, text) for name, text in fields.items()}
    response = post(server, path, values)
    assert (response.status, set(response.body)) == (status, {"status", "error", "description"})
    assert error in response.body["error"]
    assert response.body["description"]
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert list_entries(server, "events", f"consumer={name}") == []
    (session,) = list_entries(server, "sessions", f"consumer={name}")
    assert (session["id"], session["stopped_at"]) == (token, None)
    assert post(server, "/sessions/stop", {"token": token, "ts": at(1)}).status == 200


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [(INVALID_JSON, JSON, 400), (b"[]", JSON, 400), (b"--", "multipart/form-data", 400), (b"a" * 2**25, FORM, 413)],
    ids=["broken", "array", "parts", "large"],
)
def test_rejects_invalid_bodies_in_the_protocol_s_shape(
    server: Server, body: bytes, content_type: str, status: int
) -> None:
    for path in ("/sessions", "/sessions/stop", "/events"):
        response = send(server, "POST", path, body, Content_Type=content_type)
        assert (response.status, set(response.body)) == (status, {"status", "error", "description"})


def test_a_stopped_session_accepts_nothing(server: Server, consumer: tuple[str, str]) -> None:
    name, key = consumer
    token = start(server, key)
    assert post(server, "/sessions/stop", {"token": token, "ts": at(1)}).status == 200
    for path, more in (("/sessions/stop", {}), ("/events", {"action": "click", "data": ""})):
        response = post(server, path, {"token": token, "ts": at(2), **more})
        assert (response.status, response.body["error"]) == (400, "Session was already stopped.")
        assert response.body["description"] == "Session was already stopped."
    (session,) = list_entries(server, "sessions", f"consumer={name}")
    assert (session["stopped_at"], session["clicks"]) == (at(1), 0)


async def test_one_of_many_concurrent_stops_succeeds(server: Server) -> None:
    name = unique_name("table-")
    key = await asyncio.to_thread(create_consumer, server.data, name)
    for _ in range(5):
        token = await asyncio.to_thread(start, server, key)
        stops = [
            asyncio.to_thread(post, server, "/sessions/stop", {"token": token, "ts": at(minute)}) for minute in range(8)
        ]
        responses = await asyncio.gather(*stops)
        assert sorted(response.status for response in responses) == [200] + 7 * [400]
        assert {response.body["error"] for response in responses if response.status == 400} == {
            "Session was already stopped."
        }
    await asyncio.to_thread(server.wait_until_shipped)
    sessions = await asyncio.to_thread(list_entries, server, "sessions", f"consumer={name}")
    assert len(sessions) == 5
    assert all(at(0) <= session["stopped_at"] <= at(7) for session in sessions)


def test_counts_resent_requests_once(server: Server, consumer: tuple[str, str]) -> None:
    name, key = consumer
    tokens = {start(server, key, Idempotency_Key="first") for _ in range(3)}
    tokens |= {start(server, key, Idempotency_Key="second")}
    first, *_ = sorted(tokens)
    click = {"token": first, "action": "click", "data": "", "ts": at(1)}
    event_ids = {post(server, "/events", click, Idempotency_Key="e1").body["event_id"] for _ in range(3)}
    event_ids |= {post(server, "/events", click, Idempotency_Key="e2").body["event_id"]}
    stops = [
        post(server, "/sessions/stop", {"token": first, "ts": at(2 + attempt)}, Idempotency_Key="end")
        for attempt in range(3)
    ]
    assert [stop.status for stop in stops] == [200, 200, 200]
    other = post(server, "/sessions/stop", {"token": first, "ts": at(2)}, Idempotency_Key="other")
    assert (len(tokens), len(event_ids), other.body["error"]) == (2, 2, "Session was already stopped.")
    sessions = {session["id"]: session for session in list_entries(server, "sessions", f"consumer={name}")}
    assert sessions.keys() == tokens
    assert (sessions[first]["clicks"], sessions[first]["stopped_at"]) == (2, at(2))


@pytest.mark.slow
def test_sessions_survive_a_kill_of_the_server(tmp_path: Path) -> None:
    with Server(tmp_path / "data", microticks_key=READ_KEY) as server:
        server.start()
        key = create_consumer(server.data, "table")
        token = start(server, key, Idempotency_Key="start")
        click = {"token": token, "action": "click", "data": "{}", "ts": at(1)}
        response = post(server, "/events", click, Idempotency_Key="click")
        server.kill()
        server.start()
        assert start(server, key, Idempotency_Key="start") == token
        assert post(server, "/events", click, Idempotency_Key="click") == response
        assert post(server, "/sessions/stop", {"token": token, "ts": at(2)}, Idempotency_Key="stop").status == 200
        server.kill()
        server.start()
        assert post(server, "/sessions/stop", {"token": token, "ts": at(3)}, Idempotency_Key="stop").status == 200
        (session,) = list_entries(server, "sessions")
        assert (session["id"], session["clicks"], session["stopped_at"]) == (token, 1, at(2))
        assert not server.error_lines()


def test_the_next_stop_completes_an_interrupted_one(single: Server) -> None:
    name = unique_name("table-")
    token = start(single, create_consumer(single.data, name))

    async def interrupt_stop() -> None:
        state = SQLiteState(single.data)
        await state.setup()
        before = await state.get("session", token)
        assert before is not None
        assert await state.compare_and_swap("session", token, before, {**before, "stopped": at(5)})
        await state.close()

    asyncio.run(interrupt_stop())
    late = post(single, "/events", {"token": token, "action": "click", "data": "", "ts": at(6)})
    assert late.body["error"] == "Session was already stopped."
    assert post(single, "/sessions/stop", {"token": token, "ts": at(7)}).status == 200
    assert post(single, "/sessions/stop", {"token": token, "ts": at(7)}).status == 400
    (session,) = list_entries(single, "sessions", f"consumer={name}")
    assert session["stopped_at"] == at(5)


@pytest.mark.parametrize(
    "more", [{"revoked": "2017-02-01T00:00:00.000Z"}, {"expires": "2017-02-01T00:00:00.000Z"}], ids=["revoked", "late"]
)
def test_rejects_a_session_with_a_revoked_or_expired_key(server: Server, more: dict[str, str]) -> None:
    key = create_consumer(server.data, unique_name(), **more)
    response = post(server, "/sessions", {"consumer_key": key, "ts": at()})
    assert (response.status, response.body["error"]) == (401, "Consumer is not active.")


def test_a_revoked_consumer_may_only_stop_its_sessions(single: Server) -> None:
    name = unique_name("table-")
    key = create_consumer(single.data, name, Scope.IMPORT)
    token = start(single, key)
    old = {"token": token, "action": "click", "data": "", "ts": "2017-08-25T17:09:19.438Z"}
    assert post(single, "/events", old).status == 200
    create_consumer(single.data, name, revoked=at())
    while (response := post(single, "/sessions", {"consumer_key": key, "ts": at()})).status == 200:
        pass  # The server reads the keys once a second.
    assert (response.status, response.body["error"]) == (401, "Consumer is not active.")
    for ts in (old["ts"], at(1)):
        response = post(single, "/events", {**old, "ts": ts})
        assert (response.status, response.body["error"]) == (401, "Consumer is not active.")
    assert post(single, "/sessions/stop", {"token": token, "ts": at(2)}).status == 200


@pytest.mark.parametrize(
    ("scopes", "more", "headers", "status"),
    [
        ((Scope.QUERY,), {}, {}, 401),
        ((Scope.TICK,), {"origins": ("https://museum.example",)}, {}, 401),
        ((Scope.TICK,), {"origins": ("https://museum.example",)}, {"Origin": "https://other.example"}, 401),
        ((Scope.TICK,), {"origins": ("https://museum.example",)}, {"Origin": "https://museum.example"}, 200),
    ],
)
def test_a_key_needs_the_scope_tick_and_the_right_origin(
    single: Server, scopes: tuple[Scope, ...], more: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    key = create_consumer(single.data, unique_name(), *scopes, **more)
    assert post(single, "/sessions", {"consumer_key": key, "ts": at()}, **headers).status == status


@pytest.mark.parametrize(("scope", "status"), [(Scope.TICK, 400), (Scope.IMPORT, 200)])
def test_old_events_need_the_scope_import(single: Server, scope: Scope, status: int) -> None:
    name = unique_name("table-")
    key = create_consumer(single.data, name, scope)
    old = {"ts": "2017-08-25T17:09:19.438Z"}
    assert post(single, "/sessions", {"consumer_key": key, **old}).status == status
    token = start(single, key)
    assert post(single, "/events", {"token": token, "action": "click", "data": "", **old}).status == status
    assert post(single, "/sessions/stop", {"token": token, **old}).status == status


@pytest.mark.parametrize("path", ["/sessions", "/events"])
def test_lists_need_the_key_of_the_setting_or_the_scope_query(server: Server, path: str) -> None:
    reader, sender = (
        create_consumer(server.data, unique_name(), Scope.QUERY),
        create_consumer(server.data, unique_name(), Scope.TICK),
    )
    revoked = create_consumer(server.data, unique_name(), Scope.QUERY, revoked=at())
    for key, status in (
        (READ_KEY, 200),
        (reader, 200),
        (sender, 401),
        (revoked, 401),
        ("f" * 40, 401),
        ("é", 401),
    ):
        by_query = send(server, "GET", f"{path}?{urlencode({'key': key})}")
        by_header = send(server, "GET", path, Authorization=f"Bearer {key}")
        assert (by_query.status, by_header.status) == (status, status)
        if status == 401:
            assert by_query.body["error"] == "The key does not seem to be the right one."
    response = send(server, "GET", path)
    assert (response.status, response.body["error"]) == (
        401,
        'Please specify an API key using the "key" query string parameter.',
    )


@pytest.mark.parametrize("query", ["sort=token", "limit=-1", "offset=x", "date=now", "ip=1.2.3.4"])
def test_rejects_invalid_list_parameters_in_the_protocol_s_shape(server: Server, query: str) -> None:
    for path in ("/sessions", "/events"):
        response = send(server, "GET", f"{path}?{query}&{urlencode({'key': READ_KEY})}")
        assert (response.status, set(response.body)) == (400, {"status", "error", "description"})


def test_an_unrestricted_server_needs_a_consumer_but_no_key_for_lists(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        response = post(server, "/sessions", {"consumer_key": "anything", "ts": at()})
        assert (response.status, response.body["error"]) == (401, "Invalid consumer_key")
        assert send(server, "GET", "/sessions") == Response(200, {"sessions": [], "count": 0, "status": 200}, {})
        assert send(server, "GET", "/events?key=any").body == {"events": [], "count": 0, "status": 200}
        key = create_consumer(server.data, "table")
        start(server, key)
        assert send(server, "GET", "/sessions").status == 401
        assert send(server, "GET", f"/sessions?key={key}").status == 401


def test_an_unrestricted_server_needs_the_key_of_the_setting_for_lists(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", microticks_key=READ_KEY) as server:
        assert [
            send(server, "GET", path).status for path in ("/sessions", "/sessions?key=other", f"/events?key={'f' * 40}")
        ] == [401, 401, 401]
        assert list_entries(server, "sessions") == []


def test_a_stop_that_met_a_full_spool_is_completed_later(tmp_path: Path) -> None:
    # The spool has room for a start; a stop is larger.
    session, context = Session("table", at()), DocumentContext(at(), None, at(60))
    sizes = [
        len(build_document(event, context, ""))
        for event in (build_start_event(UNKNOWN, session), build_stop_event(UNKNOWN, session.with_stop(at(1))))
    ]
    with Server(tmp_path / "data", microticks_key=READ_KEY, spool_max_bytes=sum(sizes) // 2) as server:
        server.start()
        token = start(server, create_consumer(server.data, "table"))
        server.wait_until_shipped()
        response = post(server, "/sessions/stop", {"token": token, "ts": at(1)})
        assert (response.status, set(response.body)) == (503, {"status", "error", "description"})
        assert response.headers["Retry-After"]
        server.kill()
        server.settings["spool_max_bytes"] = 2**20
        server.start()
        assert post(server, "/sessions/stop", {"token": token, "ts": at(2)}).status == 200
        (session_entry,) = list_entries(server, "sessions")
        assert session_entry["stopped_at"] == at(1)
        assert not server.error_lines()


def test_browsers_of_any_origin_may_send(server: Server) -> None:
    for path in ("/sessions", "/sessions/stop", "/events"):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("OPTIONS", path, headers={"Origin": "https://x.example"})
        response = connection.getresponse()
        assert (response.status, response.headers["Access-Control-Allow-Origin"]) == (204, "https://x.example")
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        connection.close()
