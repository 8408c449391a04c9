"""Who may do what, asked of real servers: each address with each kind of key."""

import asyncio
import time
import urllib.request
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError

import orjson
import pytest

from metronome.auth.keys import KEY_KIND, build_key, generate_token
from metronome.scopes import Scope
from metronome.state.sqlite import SQLiteState
from metronome.times import format_timestamp
from tests.servers import (
    REQUEST_TIMEOUT_SECONDS,
    START_TIMEOUT_SECONDS,
    Server,
    delete_indices,
    run_metronome,
    running_server,
    unique_name,
)

CREATED: Final = "2015-01-22T09:30:00.000Z"
SITE: Final = "https://example.org"
TICK, TOCK, ITEMS, METRICS = "/tick", "/tock/x.json", "/items.json", "/metrics"
GUARDED: Final = (TICK, TOCK, ITEMS, METRICS)
ALWAYS: Final = ("/health/live", "/health/ready", "/health/ready/spool")


class Answer(NamedTuple):
    status: int
    title: str
    detail: str = ""


OK, SENT = Answer(200, ""), Answer(204, "")
NO_KEY, NOT_ALLOWED = Answer(401, "Unauthorized"), Answer(403, "Forbidden")


def ask(
    server: Server,
    path: str,
    token: str = "",
    origin: str = "",
    sender: str | None = None,
    body: bytes = b'{"id":"x"}',
    headers: Mapping[str, str] = MappingProxyType({}),
) -> Answer:
    """Ask with a key, as a proxy would for a sender, and return the status and what error it tells of."""
    headers = {**headers, **({"Authorization": f"Bearer {token}"} if token else {})}
    headers |= {"Origin": origin} if origin else {}
    headers |= {} if sender is None else {"X-Forwarded-For": sender}
    request = urllib.request.Request(server.url + path, body if path == TICK else None, headers)  # noqa: S310  # our own server
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as answer:  # noqa: S310  # our own server
            answer.read()
            return Answer(answer.status, "")
    except HTTPError as error:
        with error:
            return refusal(error)


def refusal(error: HTTPError) -> Answer:
    problem = orjson.loads(error.read())
    assert error.headers["Content-Type"] == "application/problem+json"
    assert (error.headers["WWW-Authenticate"] is not None) == (error.code == 401)
    assert problem["status"] == error.code
    return Answer(error.code, problem["title"], problem["detail"])


def verdict(server: Server, path: str, token: str = "", origin: str = "") -> Answer:
    """Return an answer without its sentence."""
    return ask(server, path, token, origin)._replace(detail="")


def make_keys(data: Path) -> dict[str, str]:
    """Put a key of each kind into a data folder, and return their secrets by what they are."""
    more: dict[str, dict[str, Any]] = {
        "expired": {"scopes": (Scope.ADMIN,), "expires": CREATED},
        "revoked": {"scopes": (Scope.ADMIN,), "revoked": CREATED},
        "bound": {"scopes": (Scope.ADMIN,), "origins": (SITE,)},
        **{scope.value: {"scopes": (scope,)} for scope in Scope},
    }
    tokens = {name: generate_token() for name in more}

    async def add() -> None:
        state = SQLiteState(data)
        for name, attributes in more.items():
            key = build_key(name, token=tokens[name], created=CREATED, **attributes)
            assert await state.add(KEY_KIND, name, key.to_record())
        await state.close()

    asyncio.run(add())
    return {**tokens, "none": "", "unknown": generate_token(), "of another system": "anonymous"}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("open") / "data") as server:
        yield server


class Keyed(NamedTuple):
    """A server and the keys that it knows, by what they are."""

    server: Server
    tokens: dict[str, str]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    data = tmp_path_factory.mktemp("keyed") / "data"
    tokens = make_keys(data)
    with running_server(data) as server:
        yield Keyed(server, tokens)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """Provide a server of two workers that lets nobody in without a key."""
    data = tmp_path_factory.mktemp("closed") / "data"
    tokens = make_keys(data)
    with running_server(data, workers=2, public="none") as server:
        yield Keyed(server, tokens)


@pytest.mark.parametrize("path", GUARDED)
def test_before_a_key_is_made_everything_on_the_loopback_is_open(open_server: Server, path: str) -> None:
    expected = SENT if path == TICK else OK
    assert verdict(open_server, path) == expected
    assert verdict(open_server, path, generate_token()) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", (SENT, OK, OK, NO_KEY)),
        ("unknown", (NO_KEY,) * 4),
        ("of another system", (NO_KEY,) * 4),
        ("expired", (NO_KEY,) * 4),
        ("revoked", (NO_KEY,) * 4),
        ("bound", (NOT_ALLOWED,) * 4),
        ("tick", (SENT, OK, OK, NOT_ALLOWED)),
        ("import", (SENT, OK, OK, NOT_ALLOWED)),
        ("tock", (SENT, OK, OK, NOT_ALLOWED)),
        ("query", (SENT, OK, OK, OK)),
        ("admin", (SENT, OK, OK, OK)),
    ],
)
def test_with_keys_each_opens_what_it_is_for(keyed: Keyed, kind: str, expected: tuple[Answer, ...]) -> None:
    server, tokens = keyed
    assert tuple(verdict(server, path, tokens[kind]) for path in GUARDED) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", (NO_KEY,) * 4),
        ("unknown", (NO_KEY,) * 4),
        ("expired", (NO_KEY,) * 4),
        ("revoked", (NO_KEY,) * 4),
        ("bound", (NOT_ALLOWED,) * 4),
        ("tick", (SENT, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED)),
        ("import", (SENT, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED)),
        ("tock", (NOT_ALLOWED, OK, OK, NOT_ALLOWED)),
        ("query", (NOT_ALLOWED, OK, OK, OK)),
        ("admin", (SENT, OK, OK, OK)),
    ],
)
def test_where_nothing_is_public_workers_let_in_only_whom_a_key_allows(
    closed: Keyed, kind: str, expected: tuple[Answer, ...]
) -> None:
    server, tokens = closed
    for _ in range(2):
        # As each may come to another worker.
        assert tuple(verdict(server, path, tokens[kind]) for path in GUARDED) == expected


@pytest.mark.parametrize("origin", [SITE, "https://www.example.org", "http://example.org", "null"])
def test_a_bound_key_is_taken_from_its_own_origin_only(keyed: Keyed, closed: Keyed, origin: str) -> None:
    for server, tokens in (keyed, closed):
        expected = (SENT, OK, OK, OK) if origin == SITE else (NOT_ALLOWED,) * 4
        assert tuple(verdict(server, path, tokens["bound"], origin) for path in GUARDED) == expected


@pytest.mark.parametrize("path", ALWAYS)
def test_health_is_told_to_everyone(open_server: Server, keyed: Keyed, closed: Keyed, path: str) -> None:
    assert verdict(open_server, path) == OK
    for server, tokens in (keyed, closed):
        assert {verdict(server, path, token) for token in tokens.values()} == {OK}


def test_an_error_says_what_is_wrong_and_what_to_do(keyed: Keyed) -> None:
    server, tokens = keyed
    assert "a key with the scope query is needed; send a key as `Authorization: Bearer" in ask(server, METRICS).detail
    assert "the key 'tick' does not have the scope query" in ask(server, METRICS, tokens["tick"]).detail
    assert "the key 'expired' expired on 2015-01-22" in ask(server, TICK, tokens["expired"]).detail
    assert "the key 'revoked' was revoked" in ask(server, TICK, tokens["revoked"]).detail
    assert f"the key 'bound' is only for requests from {SITE}" in ask(server, TOCK, tokens["bound"], "null").detail


def test_only_the_scope_import_lets_old_events_in_where_there_are_keys(open_server: Server, keyed: Keyed) -> None:
    server, tokens = keyed
    old = orjson.dumps({"id": "x", "ts": format_timestamp(datetime.now(UTC) - timedelta(days=8))})
    for kind in ("none", "tick", "query"):
        answer = ask(server, TICK, tokens[kind], body=old)
        assert answer[:2] == (400, "Malformed")
        assert "raise tick_max_age to accept older events, or send a key with the scope import" in answer.detail
    for kind in ("import", "admin"):
        assert ask(server, TICK, tokens[kind], body=old) == SENT
    assert ask(open_server, TICK, body=old) == SENT


def pixel_headers(server: Server, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of the response to a pixel about an event of long ago."""
    request = urllib.request.Request(f"{server.url}/tick.gif?id=x&ts=2001-01-01", headers=dict(headers))  # noqa: S310  # our own server
    with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_SECONDS) as answer:  # noqa: S310  # our own server
        return dict(answer.headers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_whoever_comes_through_a_proxy_or_from_another_site_is_not_on_the_loopback(
    tmp_path: Path, workers: int
) -> None:
    old = orjson.dumps({"id": "x", "ts": format_timestamp(datetime.now(UTC) - timedelta(days=8))})
    with running_server(tmp_path / "data", workers=workers) as server:
        port = server.url.rpartition(":")[2]
        for headers in (
            *({"X-Forwarded-For": value} for value in ("203.0.113.7", "127.0.0.1, 203.0.113.7", "unknown", "::1", "")),
            *({"Origin": origin} for origin in (SITE, "null")),
            {"Host": f"rebinding.example.org:{port}"},
            {"Sec-Fetch-Site": "cross-site", "Metronome-Local-Client": "yes"},
        ):
            assert ask(server, METRICS, headers=headers)[:2] == NO_KEY[:2]
            assert ask(server, "/query?metric=count", headers=headers)[:2] == NO_KEY[:2]
            assert ask(server, ITEMS, headers=headers) == OK
            assert ask(server, TICK, headers=headers) == SENT
            assert ask(server, TICK, body=old, headers=headers)[:2] == (400, "Malformed")
            assert "X-Metronome-Error" in pixel_headers(server, headers)
        for headers in ({}, {"Origin": "http://localhost:3000"}, {"Host": f"localhost:{port}"}):
            assert ask(server, METRICS, headers=headers) == OK
            assert ask(server, TICK, body=old, headers=headers) == SENT
            assert "X-Metronome-Error" not in pixel_headers(server, headers)


@pytest.mark.slow
def test_beyond_the_loopback_nothing_but_what_is_public_is_open_without_keys(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", host="0.0.0.0") as server:  # noqa: S104  # for as long as the test takes
        assert [verdict(server, path) for path in GUARDED] == [SENT, OK, OK, NO_KEY]
        assert [verdict(server, path, generate_token()) for path in GUARDED] == [NO_KEY] * 4
        assert {verdict(server, path) for path in ALWAYS} == {OK}


def wait_until_turned_away(server: Server, token: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while verdict(server, METRICS, token) != NO_KEY:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_key_that_the_command_makes_works_at_once_and_one_that_it_revokes_no_more(
    tmp_path: Path, workers: int
) -> None:
    data = tmp_path / "data"
    with running_server(data, workers=workers) as server:
        assert verdict(server, METRICS) == OK
        made = run_metronome("keys", "create", "dashboard", "--scope", "query", data=data)
        token = made.stdout.splitlines()[-1]
        assert verdict(server, METRICS, token) == OK
        wait_until_turned_away(server, "")
        later = run_metronome("keys", "create", "later", "--scope", "tick", data=data).stdout.splitlines()[-1]
        # The first request of all with it: it is known at once.
        assert verdict(server, TICK, later) == SENT
        assert run_metronome("keys", "revoke", "dashboard", data=data).exit_code == 0
        wait_until_turned_away(server, token)


@pytest.mark.slow
@pytest.mark.elasticsearch
def test_with_elasticsearch_keys_are_kept_there(elasticsearch_url: str, tmp_path: Path) -> None:
    prefix = unique_name("test")
    store: dict[str, Any] = {"store": elasticsearch_url, "index_prefix": prefix}
    try:
        with running_server(tmp_path / "data", workers=2, **store) as server:
            assert verdict(server, METRICS) == OK
            made = run_metronome("keys", "create", "dashboard", "--scope", "query", **store)
            token = made.stdout.splitlines()[-1]
            assert verdict(server, METRICS, token) == OK
            wait_until_turned_away(server, "")
            later = run_metronome("keys", "create", "later", "--scope", "tick", **store).stdout.splitlines()[-1]
            assert verdict(server, TICK, later) == SENT
            assert "dashboard  query" in run_metronome("keys", "list", **store).stdout
    finally:
        delete_indices(elasticsearch_url, prefix)
