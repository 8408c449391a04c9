"""Badges of a real server: pictures that anybody may show, and image proxies keep for a while."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from xml.etree import ElementTree as ET

import aiohttp
import orjson
import pytest

from tests.servers import Server, running_server

SECONDS: Final = aiohttp.ClientTimeout(total=60)
SVG: Final = "{http://www.w3.org/2000/svg}"


@pytest.fixture
async def http(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as session:
        yield session


def fill(server: Server, *events: dict[str, Any]) -> None:
    assert orjson.loads(server.post_events(orjson.dumps(events))) == {"accepted": len(events), "rejected": []}
    server.wait_until_shipped()


def path(item: str, query: str = "") -> str:
    return f"/badge/{quote(item, safe='')}.svg{query}"


async def shown(http: aiohttp.ClientSession, address: str) -> tuple[str | None, ...]:
    """Return what a badge says: its label, its number, and its title."""
    async with http.get(address) as answer:
        assert (answer.status, answer.content_type, answer.charset) == (200, "image/svg+xml", "utf-8")
        picture = ET.fromstring(await answer.text())  # noqa: S314  # our own
    return (*(text.text for text in picture.iter(f"{SVG}text")), picture.findtext(f"{SVG}title"))


async def test_a_badge_shows_views_or_downloads_in_all_or_in_a_range(
    server: Server, http: aiohttp.ClientSession, item: str
) -> None:
    seen = [{"id": item, "ts": "2015-01-21T10:00:00Z"}] * 1100 + [{"id": item, "ts": "2015-01-22T10:00:00Z"}] * 134
    seen += [{"id": item, "ts": "2015-01-22T10:00:00Z", "format": "csv"}] * 3
    seen += [{"id": item, "ts": "2015-01-22T10:00:00Z", "bot": "crawler"}] * 2
    fill(server, *seen)
    assert await shown(http, path(item)) == ("views", "1.2k", "views: 1,234")
    assert await shown(http, path(item, "?metric=downloads")) == ("downloads", "3", "downloads: 3")
    assert await shown(http, path(item, "?from=2015-01-22")) == ("views", "134", "views: 134")
    assert await shown(http, path(item, "?to=2015-01-21")) == ("views", "1.1k", "views: 1,100")
    assert await shown(http, path(item, "?from=2015-01-22&bots=1")) == ("views", "136", "views: 136")
    labelled = path(item, "?label=Aufrufe%20%26%20%3Cmehr%3E&color=f60&style=flat-square")
    assert await shown(http, labelled) == ("Aufrufe & <mehr>", "1.2k", "Aufrufe & <mehr>: 1,234")


@pytest.mark.parametrize("name", ["a/b", "a.svg", "a b", "100%", "?", "é/中文", "x\ny", "<&>", "…/.json"])
async def test_any_item_has_a_badge(server: Server, http: aiohttp.ClientSession, item: str, name: str) -> None:
    fill(server, {"id": f"{item}{name}"})
    async with http.get(f"{server.url}{path(item + name)}") as answer:
        assert b">1</text>" in await answer.read()


async def test_an_item_that_was_never_seen_shows_nothing_but_a_zero(http: aiohttp.ClientSession, item: str) -> None:
    assert await shown(http, path(item)) == ("views", "0", "views: 0")


async def test_a_badge_may_be_shown_anywhere_and_kept_for_a_while(http: aiohttp.ClientSession, item: str) -> None:
    async with http.get(path(item), headers={"Origin": "https://example.org"}) as answer:
        headers = answer.headers
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Cache-Control"] == "max-age=300"
    assert headers["Content-Security-Policy"] == "default-src 'none'"
    async with http.get(path(item), headers={"If-None-Match": headers["ETag"]}) as again:
        assert (again.status, await again.read()) == (304, b"")
        assert (again.headers["ETag"], again.headers["Cache-Control"]) == (headers["ETag"], "max-age=300")
    async with http.head(path(item)) as head:
        assert (head.status, head.headers["ETag"]) == (200, headers["ETag"])


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?metric=visitors", "invalid metric=visitors: expected one of views, downloads"),
        ("?color=javascript:x", "invalid color=javascript:x"),
        ("?style=x", "invalid style=x"),
        ("?label=" + "x" * 65, "label has 65 characters"),
        ("?from=tomorrow", "invalid from=tomorrow: expected a time"),
        ("?limit=3", "unknown parameter 'limit'"),
    ],
)
async def test_rejects_invalid_parameters_of_badges(
    http: aiohttp.ClientSession, item: str, query: str, says: str
) -> None:
    async with http.get(path(item, query)) as answer:
        assert (answer.status, answer.content_type) == (400, "application/problem+json")
        assert says in orjson.loads(await answer.read())["detail"]


async def test_badges_need_a_key_if_reports_do(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", public="tick") as closed:
        async with (
            aiohttp.ClientSession(timeout=SECONDS) as session,
            session.get(f"{closed.url}/badge/x.svg", headers={"Origin": "https://example.org"}) as answer,
        ):
            assert answer.status == 401
