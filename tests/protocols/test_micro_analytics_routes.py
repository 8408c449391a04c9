"""True-micro-analytics of a real server, of one process and of several, below its prefix and at its own port."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from metronome.scopes import Scope
from tests.installations import create_key, read_stored_documents
from tests.servers import Server, free_port, running_server, unique_name

TOKENS: dict[str, str] = {}


FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("hit") / "alone", hit_port=free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("hit") / "crew"
    TOKENS["reads"] = create_key(data, "reads", Scope.QUERY)
    with running_server(data, workers=2, hit_port=free_port(), hit_prefix="/c/hits") as running:
        yield running


@pytest.fixture(params=["alone below its prefix", "alone at its port", "crew below its prefix", "crew at its port"])
def place(request: pytest.FixtureRequest) -> tuple[Server, str]:
    name, _, where = request.param.partition(" ")
    server: Server = request.getfixturevalue(name)
    prefix = server.settings.get("hit_prefix", "/hit")
    port = server.settings["hit_port"]
    return server, server.url + str(prefix) if where == "below its prefix" else f"http://127.0.0.1:{port}"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"User-Agent": FIREFOX}) as session:
        yield session


async def view(http: aiohttp.ClientSession, url: str) -> None:
    async with http.get(url) as answer:
        assert (answer.status, await answer.read()) == (204, b"")


async def asked(http: aiohttp.ClientSession, url: str) -> Any:
    headers = {"Authorization": f"Bearer {TOKENS['reads']}"} if "reads" in TOKENS else {}
    async with http.get(url, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        return await answer.json()


@pytest.mark.clock
async def test_views_are_counted_and_told(place: tuple[Server, str], http: aiohttp.ClientSession) -> None:
    server, url = place
    path = f"/{unique_name()}/a"
    before = int(time.time() * 1000)
    for query in ("", "?page=2", "?q=count"):
        await view(http, f"{url}{path}{query}")
    await view(http, f"{url}{path}/")
    await asyncio.to_thread(server.wait_until_shipped)
    after = int(time.time() * 1000)
    assert await asked(http, f"{url}{path}?count") == {"views": 3}
    assert await asked(http, f"{url}{path}?views&count=1") == {"views": 3}
    assert await asked(http, f"{url}{path}/?count") == {"views": 1}
    listed = await asked(http, f"{url}{path}?views")
    assert list(listed) == ["views"]
    times = [one["ts"] for one in listed["views"]]
    assert [set(one) for one in listed["views"]] == [{"ts"}] * 3
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= after
    everything = await asked(http, f"{url}/")
    assert everything[path] == listed["views"]
    assert len(everything[f"{path}/"]) == 1


async def test_a_path_that_was_never_viewed_has_none(place: tuple[Server, str], http: aiohttp.ClientSession) -> None:
    _, url = place
    assert await asked(http, f"{url}/never?count") == {"views": 0}
    assert await asked(http, f"{url}/never?views") == {"views": []}


async def test_asking_and_the_icon_are_not_counted(place: tuple[Server, str], http: aiohttp.ClientSession) -> None:
    server, url = place
    await view(http, f"{url}/favicon.ico")
    await asyncio.to_thread(server.wait_until_shipped)
    everything = await asked(http, f"{url}/")
    assert "/favicon.ico" not in everything
    assert "/" not in everything
    assert "/never" not in everything


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_only_get_is_spoken(place: tuple[Server, str], http: aiohttp.ClientSession, method: str) -> None:
    _, url = place
    for path in ("/", "/a?count"):
        async with http.request(method, url + path) as answer:
            assert (answer.status, answer.content_type) == (405, "text/plain")
            assert await answer.text() == ("" if method == "HEAD" else "Method not supported")


async def test_a_view_by_another_protocol_counts_as_well_and_tock_tells_of_both(
    alone: Server, http: aiohttp.ClientSession
) -> None:
    path = f"/{unique_name()}"
    await view(http, f"{alone.url}/hit{path}")
    alone.post_events(b'{"id":"%b"}' % path.encode())
    alone.wait_until_shipped()
    assert await asked(http, f"{alone.url}/hit{path}?count") == {"views": 2}
    assert sum(alone.get(f"/tock/{path}.json")["views"].values()) == 2


async def test_the_prefix_without_its_slash_lists_all_paths(alone: Server, http: aiohttp.ClientSession) -> None:
    path = f"/{unique_name()}"
    await view(http, f"{alone.url}/hit{path}")
    alone.wait_until_shipped()
    assert path in await asked(http, f"{alone.url}/hit")


async def test_anyone_may_count_a_path_and_only_who_may_ask_lists_all(
    crew: Server, http: aiohttp.ClientSession
) -> None:
    for url in (f"{crew.url}/c/hits", f"http://127.0.0.1:{crew.settings['hit_port']}"):
        async with http.get(f"{url}/a?count") as answer:
            assert answer.status == 200
        async with http.get(f"{url}/") as answer:
            assert answer.status == 401
            assert (await answer.json(content_type="application/problem+json"))["title"] == "Unauthorized"


async def test_a_path_that_is_too_long_is_refused(alone: Server, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{alone.url}/hit/{'x' * 1100}") as answer:
        assert answer.status == 400
        assert "id is over 1024 bytes" in (await answer.json(content_type="application/problem+json"))["detail"]


async def test_what_browsers_tell_is_stored(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("hit") / "stored"
    with running_server(data) as running:
        headers = {"Referer": "https://www.example.org/x?y", "User-Agent": "curl/8", "X-Forwarded-For": "198.51.100.77"}
        async with aiohttp.ClientSession(headers=headers) as http:
            await view(http, f"{running.url}/hit/a%20b?q=1")
        running.wait_until_shipped()
    (found,) = await asyncio.to_thread(read_stored_documents, data)
    changing = {"@timestamp", "event_id", "@version", "visitor", "session", "enrich_version"}
    assert {name: found[name] for name in found if name not in changing} == {
        "id": "/a b",
        "event": "view",
        "url": "/a%20b?q=1",
        "agent": "curl/8",
        "clientip": "198.51.100.0",
        "referer": "example.org/x",
        "referer_url": "https://www.example.org/x?y",
        "browser": "curl",
        "browser_version": "8",
        "device": "script",
        "channel": "referral",
        "referer_group": "example.org",
    }
