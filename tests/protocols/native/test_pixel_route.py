"""``GET /tick.gif`` over HTTP: the reply, its error header, and the stored event."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from metronome.scopes import Scope
from metronome.web.gif import ERROR_HEADER, TRANSPARENT_GIF
from tests.installations import create_key, read_stored_documents
from tests.servers import Server, running_server, unique_name

BROWSER = {
    "Referer": "https://example.org/page?a=1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
}
TOKENS: dict[str, str] = {}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("pixel") / "guarded"
    TOKENS["sends"] = create_key(data, "sends", Scope.TICK)
    TOKENS["reads"] = create_key(data, "reads", Scope.QUERY)
    with running_server(data, workers=2, public="tock") as running:
        yield running


@pytest.fixture
async def http(guarded: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(guarded.url) as session:
        yield session


async def get_pixel(http: aiohttp.ClientSession, query: str, **headers: str) -> str:
    """Get the image, check it, and return the error in its header."""
    async with http.get(f"/tick.gif?{query}", headers={**BROWSER, **headers}) as response:
        assert (response.status, response.content_type, await response.read()) == (200, "image/gif", TRANSPARENT_GIF)
        assert "no-store" in response.headers["Cache-Control"]
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        return response.headers.get(ERROR_HEADER, "")


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{item}.json")["views"].values())


@pytest.mark.parametrize("place", ["query", "header"])
async def test_an_event_is_counted_with_a_key_in_the_query_or_a_header(
    guarded: Server, http: aiohttp.ClientSession, place: str
) -> None:
    item, key = unique_name(), TOKENS["sends"]
    error = await (
        get_pixel(http, f"id={item}&key={key}")
        if place == "query"
        else get_pixel(http, f"id={item}", Authorization=f"Bearer {key}")
    )
    assert error == ""
    assert views(guarded, item) == 1


@pytest.mark.parametrize(
    ("query", "key", "error"),
    [
        ("id={item}", "", "a key with the scope tick is needed"),
        ("id={item}&key=unknown", "", "the key is unknown"),
        ("id={item}", "reads", "does not have the scope tick"),
        ("nothing", "sends", "no field in the form"),
        ("id={item}&ts=yesterday", "sends", "invalid timestamp 'yesterday'"),
        ("id={item}&ts=1999-01-01", "sends", "raise tick_max_age"),
        ("id={item}" + "x" * 1100, "sends", "id is over 1024 bytes"),
    ],
)
async def test_the_reply_to_an_invalid_request_is_the_image_with_an_error_header(
    guarded: Server, http: aiohttp.ClientSession, query: str, key: str, error: str
) -> None:
    item = unique_name()
    full_query = query.format(item=item) + (f"&key={TOKENS[key]}" if key else "")
    assert error in await get_pixel(http, full_query)
    assert views(guarded, item) == 0


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
async def test_rejects_other_methods_than_get(http: aiohttp.ClientSession, method: str) -> None:
    async with http.request(method, f"/tick.gif?id=a&key={TOKENS['sends']}") as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, OPTIONS"


async def test_the_reply_is_the_image_when_the_spool_is_full(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", spool_max_bytes=1) as running:
        async with aiohttp.ClientSession(running.url) as http:
            assert "spool is at its limit" in await get_pixel(http, "id=a")


@pytest.mark.clock
async def test_stores_page_user_agent_and_anonymized_address_but_not_the_key(tmp_path: Path) -> None:
    data = tmp_path / "data"
    key = await asyncio.to_thread(create_key, data, "page", Scope.TICK)
    with running_server(data) as running:
        async with aiohttp.ClientSession(running.url) as http:
            error = await get_pixel(http, f"id=a&key={key}&title=Z%C3%BCrich", **{"X-Forwarded-For": "198.51.100.77"})
        assert error == ""
        running.wait_until_shipped()
    (document,) = await asyncio.to_thread(read_stored_documents, data)
    changing = {"@timestamp", "event_id", "@version", "visitor", "session", "enrich_version"}
    assert {name: document[name] for name in document if name not in changing} == {
        "id": "a",
        "event": "view",
        "title": "Zürich",
        "url": BROWSER["Referer"],
        "agent": BROWSER["User-Agent"],
        "clientip": "198.51.100.0",
        "browser": "Firefox",
        "browser_version": "140",
        "os": "Linux",
        "device": "desktop",
        "channel": "direct",
    }
