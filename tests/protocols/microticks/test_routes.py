"""Microticks on a real server: exhibits that start sessions, click and stop, and those who read the lists."""

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
ABOUT_NOW: Final = datetime.now(UTC).replace(microsecond=438_000)
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"


def at(minutes: float = 0) -> str:
    return format_timestamp(ABOUT_NOW + timedelta(minutes=minutes))


@dataclass(frozen=True)
class Said:
    """What a server has answered."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(compare=False)


def ask(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> Said:
    """Ask a server, each time over a connection of its own, so that any of its workers may answer."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body or None, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        found = orjson.loads(answer.read())
        assert found["status"] == answer.status
        return Said(answer.status, found, dict(answer.getheaders()))
    finally:
        connection.close()


def post(server: Server, path: str, fields: dict[str, Any], content_type: str = FORM, **headers: str) -> Said:
    body = urlencode(fields).encode() if content_type == FORM else orjson.dumps(fields)
    return ask(server, "POST", path, body, Content_Type=content_type, **headers)


def start(server: Server, consumer_key: str, **headers: str) -> str:
    said = post(server, "/sessions", {"consumer_key": consumer_key, "ts": at()}, **headers)
    assert (said.status, set(said.body)) == (200, {"status", "token"})
    return str(said.body["token"])


def listed(server: Server, name: str, query: str = "") -> list[dict[str, Any]]:
    server.wait_until_shipped()
    said = ask(server, "GET", f"/{name}?{query}&{urlencode({'key': READ_KEY})}")
    assert said.status == 200, said
    found: list[dict[str, Any]] = said.body[name]
    assert said.body["count"] == len(found)
    return found


def keep(data: Path, name: str, *scopes: Scope, **more: Any) -> str:
    """Make a key in the state of the server with that data folder, and return its secret."""
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
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("microticks") / "one", microticks_key=READ_KEY) as running:
        yield running


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("microticks") / "crew", microticks_key=READ_KEY, workers=2) as running:
        yield running


@pytest.fixture(params=["one", "crew"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def consumer(server: Server) -> tuple[str, str]:
    """A consumer that nobody else is: its name and its key."""
    name = unique_name("table-")
    return name, keep(server.data, name)


@pytest.mark.clock
@pytest.mark.parametrize("content_type", [FORM, JSON])
def test_a_session_is_started_filled_stopped_and_listed(
    server: Server, consumer: tuple[str, str], content_type: str
) -> None:
    name, key = consumer
    item = unique_name("item-")
    data = {"id": item, "target": "door", "clickX": 406, "deep": [1, {"a": None}]}
    started = post(server, "/sessions", {"consumer_key": key, "ts": at()}, content_type)
    token = started.body["token"]
    assert (len(token), int(token, 16) >= 0, started.status) == (32, True, 200)
    sent = data if content_type == JSON else orjson.dumps(data).decode()
    happened = [
        post(server, "/events", {"token": token, "action": action, "data": sent, "ts": at(minute)}, content_type)
        for action, minute in (("click", 1), ("click", 2), ("view", 3))
    ]
    assert [said.status for said in happened] == [200, 200, 200]
    identities = [said.body["event_id"] for said in happened]
    stopped = post(server, "/sessions/stop", {"token": token, "ts": at(4)}, content_type)
    assert stopped == Said(200, {"status": 200}, {})
    assert listed(server, "sessions", f"consumer={name}") == [
        {
            "id": token,
            "consumer_id": name,
            "started_at": at(),
            "stopped_at": at(4),
            "clicks": 2,
            "last_action": at(2),
        }
    ]
    assert listed(server, "events", f"consumer={name}&sort=time.desc&limit=1") == [
        {"id": identities[2], "session_id": token, "time": at(3), "action": "view", "data": data}
    ]
    assert [event["id"] for event in listed(server, "events", f"consumer={name}")] == identities
    tock = ask_tock(server, item)
    assert sum(tock["views"].values()) == 1


def ask_tock(server: Server, item: str) -> Any:
    return server.get(f"/tock/{item}.json")


def test_a_list_is_cut_to_a_day_and_to_its_limits(server: Server, consumer: tuple[str, str]) -> None:
    name, key = consumer
    tokens = {start(server, key) for _ in range(3)}
    day = at()[:10]
    assert {session["id"] for session in listed(server, "sessions", f"consumer={name}&date={day}")} == tokens
    assert listed(server, "sessions", f"consumer={name}&date=2001-01-01") == []
    pages = [listed(server, "sessions", f"consumer={name}&limit=2&offset={offset}") for offset in (0, 2)]
    assert [len(page) for page in pages] == [2, 1]
    assert {session["id"] for page in pages for session in page} == tokens


UNKNOWN: Final = "0" * 32
NO_JSON: Final = b'{"ts":'


@pytest.mark.parametrize(
    ("path", "fields", "status", "error"),
    [
        ("/sessions", {"ts": at()}, 401, "Invalid consumer_key"),
        ("/sessions", {"consumer_key": "", "ts": at()}, 401, "Invalid consumer_key"),
        ("/sessions", {"consumer_key": "f" * 40, "ts": at()}, 401, "Invalid consumer_key"),
        ("/sessions", {"consumer_key": "KEY"}, 400, 'No "ts" parameter provided'),
        ("/sessions", {"consumer_key": "KEY", "ts": "noon"}, 400, "\"ts\" is wrong: 'noon' is no time"),
        ("/sessions", {"consumer_key": "KEY", "ts": at(3 * 24 * 60)}, 400, "more than a day ahead"),
        ("/sessions", {"consumer_key": "KEY", "ts": "2017-08-25T17:09:19.438Z"}, 400, "are not taken here"),
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
def test_what_is_wrong_is_said_and_leaves_nothing_behind(
    server: Server, consumer: tuple[str, str], path: str, fields: dict[str, str], status: int, error: str
) -> None:
    name, key = consumer
    token = start(server, key)
    given = {part: {"KEY": key, "TOKEN": token}.get(text, text) for part, text in fields.items()}
    said = post(server, path, given)
    assert (said.status, set(said.body)) == (status, {"status", "error", "description"})
    assert error in said.body["error"]
    assert said.body["description"]
    assert said.headers["Access-Control-Allow-Origin"] == "*"
    assert listed(server, "events", f"consumer={name}") == []
    (session,) = listed(server, "sessions", f"consumer={name}")
    assert (session["id"], session["stopped_at"]) == (token, None)
    assert post(server, "/sessions/stop", {"token": token, "ts": at(1)}).status == 200


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [(NO_JSON, JSON, 400), (b"[]", JSON, 400), (b"--", "multipart/form-data", 400), (b"a" * 2**25, FORM, 413)],
    ids=["broken", "array", "parts", "large"],
)
def test_a_body_that_cannot_be_read_is_answered_in_the_same_shape(
    server: Server, body: bytes, content_type: str, status: int
) -> None:
    for path in ("/sessions", "/sessions/stop", "/events"):
        said = ask(server, "POST", path, body, Content_Type=content_type)
        assert (said.status, set(said.body)) == (status, {"status", "error", "description"})


def test_a_stopped_session_takes_no_more(server: Server, consumer: tuple[str, str]) -> None:
    name, key = consumer
    token = start(server, key)
    assert post(server, "/sessions/stop", {"token": token, "ts": at(1)}).status == 200
    for path, more in (("/sessions/stop", {}), ("/events", {"action": "click", "data": ""})):
        said = post(server, path, {"token": token, "ts": at(2), **more})
        assert (said.status, said.body["error"]) == (400, "Session was already stopped.")
        assert said.body["description"] == "Session was already stopped."
    (session,) = listed(server, "sessions", f"consumer={name}")
    assert (session["stopped_at"], session["clicks"]) == (at(1), 0)


async def test_of_many_stops_at_once_one_is_right(server: Server) -> None:
    name = unique_name("table-")
    key = await asyncio.to_thread(keep, server.data, name)
    for _ in range(5):
        token = await asyncio.to_thread(start, server, key)
        stops = [
            asyncio.to_thread(post, server, "/sessions/stop", {"token": token, "ts": at(minute)}) for minute in range(8)
        ]
        said = await asyncio.gather(*stops)
        assert sorted(each.status for each in said) == [200] + 7 * [400]
        assert {each.body["error"] for each in said if each.status == 400} == {"Session was already stopped."}
    await asyncio.to_thread(server.wait_until_shipped)
    sessions = await asyncio.to_thread(listed, server, "sessions", f"consumer={name}")
    assert len(sessions) == 5
    assert all(at(0) <= session["stopped_at"] <= at(7) for session in sessions)


def test_what_is_sent_again_with_its_idempotency_key_counts_once(server: Server, consumer: tuple[str, str]) -> None:
    name, key = consumer
    tokens = {start(server, key, Idempotency_Key="first") for _ in range(3)}
    tokens |= {start(server, key, Idempotency_Key="second")}
    first, *_ = sorted(tokens)
    click = {"token": first, "action": "click", "data": "", "ts": at(1)}
    identities = {post(server, "/events", click, Idempotency_Key="e1").body["event_id"] for _ in range(3)}
    identities |= {post(server, "/events", click, Idempotency_Key="e2").body["event_id"]}
    stops = [
        post(server, "/sessions/stop", {"token": first, "ts": at(2 + again)}, Idempotency_Key="end")
        for again in range(3)
    ]
    assert [stop.status for stop in stops] == [200, 200, 200]
    other = post(server, "/sessions/stop", {"token": first, "ts": at(2)}, Idempotency_Key="other")
    assert (len(tokens), len(identities), other.body["error"]) == (2, 2, "Session was already stopped.")
    sessions = {session["id"]: session for session in listed(server, "sessions", f"consumer={name}")}
    assert sessions.keys() == tokens
    assert (sessions[first]["clicks"], sessions[first]["stopped_at"]) == (2, at(2))


def test_sessions_outlive_a_server_that_is_killed_and_what_is_sent_again_counts_once(tmp_path: Path) -> None:
    with Server(tmp_path / "data", microticks_key=READ_KEY) as server:
        server.start()
        key = keep(server.data, "table")
        token = start(server, key, Idempotency_Key="start")
        click = {"token": token, "action": "click", "data": "{}", "ts": at(1)}
        said = post(server, "/events", click, Idempotency_Key="click")
        server.kill()
        server.start()
        assert start(server, key, Idempotency_Key="start") == token
        assert post(server, "/events", click, Idempotency_Key="click") == said
        assert post(server, "/sessions/stop", {"token": token, "ts": at(2)}, Idempotency_Key="stop").status == 200
        server.kill()
        server.start()
        assert post(server, "/sessions/stop", {"token": token, "ts": at(3)}, Idempotency_Key="stop").status == 200
        (session,) = listed(server, "sessions")
        assert (session["id"], session["clicks"], session["stopped_at"]) == (token, 1, at(2))
        assert not server.error_lines()


def test_a_stop_that_was_cut_off_in_the_middle_is_finished_by_the_next(one: Server) -> None:
    name = unique_name("table-")
    token = start(one, keep(one.data, name))

    async def cut_off() -> None:
        state = SQLiteState(one.data)
        await state.setup()
        before = await state.get("session", token)
        assert before is not None
        assert await state.compare_and_swap("session", token, before, {**before, "stopped": at(5)})
        await state.close()

    asyncio.run(cut_off())
    late = post(one, "/events", {"token": token, "action": "click", "data": "", "ts": at(6)})
    assert late.body["error"] == "Session was already stopped."
    assert post(one, "/sessions/stop", {"token": token, "ts": at(7)}).status == 200
    assert post(one, "/sessions/stop", {"token": token, "ts": at(7)}).status == 400
    (session,) = listed(one, "sessions", f"consumer={name}")
    assert session["stopped_at"] == at(5)


@pytest.mark.parametrize(
    "more", [{"revoked": "2017-02-01T00:00:00.000Z"}, {"expires": "2017-02-01T00:00:00.000Z"}], ids=["revoked", "late"]
)
def test_a_key_that_was_revoked_or_has_expired_starts_no_session(server: Server, more: dict[str, str]) -> None:
    key = keep(server.data, unique_name(), **more)
    said = post(server, "/sessions", {"consumer_key": key, "ts": at()})
    assert (said.status, said.body["error"]) == (401, "Consumer is not active.")


def test_a_consumer_that_is_revoked_can_only_end_what_it_began(one: Server) -> None:
    name = unique_name("table-")
    key = keep(one.data, name, Scope.IMPORT)
    token = start(one, key)
    old = {"token": token, "action": "click", "data": "", "ts": "2017-08-25T17:09:19.438Z"}
    assert post(one, "/events", old).status == 200
    keep(one.data, name, revoked=at())
    while (said := post(one, "/sessions", {"consumer_key": key, "ts": at()})).status == 200:
        pass  # The keys are read once a second.
    assert (said.status, said.body["error"]) == (401, "Consumer is not active.")
    for ts in (old["ts"], at(1)):
        said = post(one, "/events", {**old, "ts": ts})
        assert (said.status, said.body["error"]) == (401, "Consumer is not active.")
    assert post(one, "/sessions/stop", {"token": token, "ts": at(2)}).status == 200


@pytest.mark.parametrize(
    ("scopes", "more", "headers", "status"),
    [
        ((Scope.QUERY,), {}, {}, 401),
        ((Scope.TICK,), {"origins": ("https://museum.example",)}, {}, 401),
        ((Scope.TICK,), {"origins": ("https://museum.example",)}, {"Origin": "https://other.example"}, 401),
        ((Scope.TICK,), {"origins": ("https://museum.example",)}, {"Origin": "https://museum.example"}, 200),
    ],
)
def test_a_key_starts_sessions_where_it_may_be_used(
    one: Server, scopes: tuple[Scope, ...], more: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    key = keep(one.data, unique_name(), *scopes, **more)
    assert post(one, "/sessions", {"consumer_key": key, "ts": at()}, **headers).status == status


@pytest.mark.parametrize(("scope", "status"), [(Scope.TICK, 400), (Scope.IMPORT, 200)])
def test_old_events_need_a_key_that_may_import(one: Server, scope: Scope, status: int) -> None:
    name = unique_name("table-")
    key = keep(one.data, name, scope)
    old = {"ts": "2017-08-25T17:09:19.438Z"}
    assert post(one, "/sessions", {"consumer_key": key, **old}).status == status
    token = start(one, key)
    assert post(one, "/events", {"token": token, "action": "click", "data": "", **old}).status == status
    assert post(one, "/sessions/stop", {"token": token, **old}).status == status


@pytest.mark.parametrize("path", ["/sessions", "/events"])
def test_lists_are_read_with_the_setting_s_key_or_one_that_may_ask(server: Server, path: str) -> None:
    allowed, not_allowed = keep(server.data, unique_name(), Scope.QUERY), keep(server.data, unique_name(), Scope.TICK)
    revoked = keep(server.data, unique_name(), Scope.QUERY, revoked=at())
    for key, status in (
        (READ_KEY, 200),
        (allowed, 200),
        (not_allowed, 401),
        (revoked, 401),
        ("f" * 40, 401),
        ("é", 401),
    ):
        by_query = ask(server, "GET", f"{path}?{urlencode({'key': key})}")
        by_header = ask(server, "GET", path, Authorization=f"Bearer {key}")
        assert (by_query.status, by_header.status) == (status, status)
        if status == 401:
            assert by_query.body["error"] == "The key does not seem to be the right one."
    said = ask(server, "GET", path)
    assert (said.status, said.body["error"]) == (
        401,
        'Please specify an API key using the "key" query string parameter.',
    )


@pytest.mark.parametrize("query", ["sort=token", "limit=-1", "offset=x", "date=now", "ip=1.2.3.4"])
def test_a_list_that_cannot_be_asked_for_is_refused_in_the_same_shape(server: Server, query: str) -> None:
    for path in ("/sessions", "/events"):
        said = ask(server, "GET", f"{path}?{query}&{urlencode({'key': READ_KEY})}")
        assert (said.status, set(said.body)) == (400, {"status", "error", "description"})


def test_an_open_service_needs_a_consumer_still_but_no_key_to_read(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        said = post(server, "/sessions", {"consumer_key": "anything", "ts": at()})
        assert (said.status, said.body["error"]) == (401, "Invalid consumer_key")
        assert ask(server, "GET", "/sessions") == Said(200, {"sessions": [], "count": 0, "status": 200}, {})
        assert ask(server, "GET", "/events?key=any").body == {"events": [], "count": 0, "status": 200}
        key = keep(server.data, "table")
        start(server, key)
        assert ask(server, "GET", "/sessions").status == 401
        assert ask(server, "GET", f"/sessions?key={key}").status == 401


def test_the_setting_s_key_is_asked_for_on_an_open_service_too(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", microticks_key=READ_KEY) as server:
        assert [
            ask(server, "GET", path).status for path in ("/sessions", "/sessions?key=other", f"/events?key={'f' * 40}")
        ] == [401, 401, 401]
        assert listed(server, "sessions") == []


def test_a_full_spool_is_told_in_the_same_shape_and_a_stop_that_met_one_is_made_good_later(tmp_path: Path) -> None:
    # There is room for a start, and a stop is longer.
    session, door = Session("table", at()), DocumentContext(at(), None, at(60))
    sizes = [
        len(build_document(event, door, ""))
        for event in (build_start_event(UNKNOWN, session), build_stop_event(UNKNOWN, session.with_stop(at(1))))
    ]
    with Server(tmp_path / "data", microticks_key=READ_KEY, spool_max_bytes=sum(sizes) // 2) as server:
        server.start()
        token = start(server, keep(server.data, "table"))
        server.wait_until_shipped()
        said = post(server, "/sessions/stop", {"token": token, "ts": at(1)})
        assert (said.status, set(said.body)) == (503, {"status", "error", "description"})
        assert said.headers["Retry-After"]
        server.kill()
        server.settings["spool_max_bytes"] = 2**20
        server.start()
        assert post(server, "/sessions/stop", {"token": token, "ts": at(2)}).status == 200
        (found,) = listed(server, "sessions")
        assert found["stopped_at"] == at(1)
        assert not server.error_lines()


def test_browsers_of_any_origin_may_send(server: Server) -> None:
    for path in ("/sessions", "/sessions/stop", "/events"):
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("OPTIONS", path, headers={"Origin": "https://x.example"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, "*")
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        connection.close()
