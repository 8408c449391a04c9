"""``GET /tick.gif`` of a real server: what pages and developers see of it, and what is stored."""

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


async def ask(http: aiohttp.ClientSession, query: str, **headers: str) -> str:
    """Ask for the picture, see that it is one, and return what the header says of errors."""
    async with http.get(f"/tick.gif?{query}", headers={**BROWSER, **headers}) as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (200, "image/gif", TRANSPARENT_GIF)
        assert "no-store" in answer.headers["Cache-Control"]
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        return answer.headers.get(ERROR_HEADER, "")


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{item}.json")["views"].values())


@pytest.mark.parametrize("place", ["address", "header"])
async def test_an_event_counts_with_a_key_in_the_address_or_a_header(
    guarded: Server, http: aiohttp.ClientSession, place: str
) -> None:
    item, key = unique_name(), TOKENS["sends"]
    said = await (
        ask(http, f"id={item}&key={key}")
        if place == "address"
        else ask(http, f"id={item}", Authorization=f"Bearer {key}")
    )
    assert said == ""
    assert views(guarded, item) == 1


@pytest.mark.parametrize(
    ("query", "key", "said"),
    [
        ("id={item}", "", "a key with the scope tick is needed"),
        ("id={item}&key=unknown", "", "not known"),
        ("id={item}", "reads", "does not have the scope tick"),
        ("nothing", "sends", "holds no field"),
        ("id={item}&ts=yesterday", "sends", "invalid timestamp 'yesterday'"),
        ("id={item}&ts=1999-01-01", "sends", "raise tick_max_age"),
        ("id={item}" + "x" * 1100, "sends", "id is over 1024 bytes"),
    ],
)
async def test_the_picture_comes_whatever_is_wrong_and_a_header_says_what(
    guarded: Server, http: aiohttp.ClientSession, query: str, key: str, said: str
) -> None:
    item = unique_name()
    asked = query.format(item=item) + (f"&key={TOKENS[key]}" if key else "")
    assert said in await ask(http, asked)
    assert views(guarded, item) == 0


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
async def test_only_a_get_is_taken(http: aiohttp.ClientSession, method: str) -> None:
    async with http.request(method, f"/tick.gif?id=a&key={TOKENS['sends']}") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, OPTIONS"


async def test_the_picture_comes_when_the_spool_is_full(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", spool_max_bytes=1) as running:
        async with aiohttp.ClientSession(running.url) as http:
            assert "spool is at its limit" in await ask(http, "id=a")


@pytest.mark.clock
async def test_page_agent_and_a_cut_address_are_stored_and_the_key_is_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    key = await asyncio.to_thread(create_key, data, "page", Scope.TICK)
    with running_server(data) as running:
        async with aiohttp.ClientSession(running.url) as http:
            said = await ask(http, f"id=a&key={key}&title=Z%C3%BCrich", **{"X-Forwarded-For": "198.51.100.77"})
        assert said == ""
        running.wait_until_shipped()
    (found,) = await asyncio.to_thread(read_stored_documents, data)
    changing = {"@timestamp", "event_id", "@version", "visitor", "session", "enrich_version"}
    assert {name: found[name] for name in found if name not in changing} == {
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
