"""true-micro-analytics on a real server with one and with several processes, below its prefix and on its own port."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from metronome.scopes import Scope
from tests.installations import create_key, read_stored_documents
from tests.servers import Server, free_port, running_server, unique_name

KEYS: dict[str, str] = {}


FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("hit") / "single", hit_port=free_port()) as running:
        yield running


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("hit") / "crew"
    KEYS["reads"] = create_key(data, "reads", Scope.QUERY)
    with running_server(data, workers=2, hit_port=free_port(), hit_prefix="/c/hits") as running:
        yield running


@pytest.fixture(params=["single below its prefix", "single on its port", "crew below its prefix", "crew on its port"])
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
    async with http.get(url) as response:
        assert (response.status, await response.read()) == (204, b"")


async def query(http: aiohttp.ClientSession, url: str) -> Any:
    headers = {"Authorization": f"Bearer {KEYS['reads']}"} if "reads" in KEYS else {}
    async with http.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        return await response.json()


@pytest.mark.crew
@pytest.mark.clock
async def test_counts_and_lists_views(place: tuple[Server, str], http: aiohttp.ClientSession) -> None:
    server, url = place
    path = f"/{unique_name()}/a"
    before = int(time.time() * 1000)
    for parameters in ("", "?page=2", "?q=count"):
        await view(http, f"{url}{path}{parameters}")
    await view(http, f"{url}{path}/")
    await asyncio.to_thread(server.wait_until_shipped)
    after = int(time.time() * 1000)
    assert await query(http, f"{url}{path}?count") == {"views": 3}
    assert await query(http, f"{url}{path}?views&count=1") == {"views": 3}
    assert await query(http, f"{url}{path}/?count") == {"views": 1}
    views = await query(http, f"{url}{path}?views")
    assert list(views) == ["views"]
    times = [view["ts"] for view in views["views"]]
    assert [set(view) for view in views["views"]] == [{"ts"}] * 3
    assert times == sorted(times)
    assert before <= times[0]
    assert times[-1] <= after
    paths = await query(http, f"{url}/")
    assert paths[path] == views["views"]
    assert len(paths[f"{path}/"]) == 1


async def test_a_path_without_views_has_zero(place: tuple[Server, str], http: aiohttp.ClientSession) -> None:
    _, url = place
    assert await query(http, f"{url}/never?count") == {"views": 0}
    assert await query(http, f"{url}/never?views") == {"views": []}


async def test_queries_and_the_icon_are_not_counted(place: tuple[Server, str], http: aiohttp.ClientSession) -> None:
    server, url = place
    await view(http, f"{url}/favicon.ico")
    await asyncio.to_thread(server.wait_until_shipped)
    paths = await query(http, f"{url}/")
    assert "/favicon.ico" not in paths
    assert "/" not in paths
    assert "/never" not in paths


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_rejects_other_methods(place: tuple[Server, str], http: aiohttp.ClientSession, method: str) -> None:
    _, url = place
    for path in ("/", "/a?count"):
        async with http.request(method, url + path) as response:
            assert (response.status, response.content_type) == (405, "text/plain")
            assert await response.text() == ("" if method == "HEAD" else "Method not supported")


async def test_counts_views_of_other_protocols(single: Server, http: aiohttp.ClientSession) -> None:
    path = f"/{unique_name()}"
    await view(http, f"{single.url}/hit{path}")
    single.post_events(b'{"id":"%b"}' % path.encode())
    single.wait_until_shipped()
    assert await query(http, f"{single.url}/hit{path}?count") == {"views": 2}
    assert sum(single.get(f"/tock/{path}.json")["views"].values()) == 2


async def test_the_prefix_without_a_slash_lists_all_paths(single: Server, http: aiohttp.ClientSession) -> None:
    path = f"/{unique_name()}"
    await view(http, f"{single.url}/hit{path}")
    single.wait_until_shipped()
    assert path in await query(http, f"{single.url}/hit")


async def test_listing_all_paths_needs_the_scope_query(crew: Server, http: aiohttp.ClientSession) -> None:
    for url in (f"{crew.url}/c/hits", f"http://127.0.0.1:{crew.settings['hit_port']}"):
        async with http.get(f"{url}/a?count") as response:
            assert response.status == 200
        async with http.get(f"{url}/") as response:
            assert response.status == 401
            assert (await response.json(content_type="application/problem+json"))["title"] == "Unauthorized"


async def test_rejects_a_path_that_is_too_long(single: Server, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{single.url}/hit/{'x' * 1100}") as response:
        assert response.status == 400
        assert "id is over 1024 bytes" in (await response.json(content_type="application/problem+json"))["detail"]


async def test_stores_the_headers_of_the_client(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("hit") / "stored"
    with running_server(data) as running:
        headers = {"Referer": "https://www.example.org/x?y", "User-Agent": "curl/8", "X-Forwarded-For": "198.51.100.77"}
        async with aiohttp.ClientSession(headers=headers) as http:
            await view(http, f"{running.url}/hit/a%20b?q=1")
        running.wait_until_shipped()
    (document,) = await asyncio.to_thread(read_stored_documents, data)
    changing = {"@timestamp", "event_id", "@version", "visitor", "session", "enrich_version"}
    assert {name: document[name] for name in document if name not in changing} == {
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
