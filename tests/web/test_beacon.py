"""The beacon as served: small, cached by browsers, and embeddable in any page."""

import gzip
import re
from collections.abc import AsyncIterator, Iterator
from typing import Final

import aiohttp
import pytest
from rjsmin import jsmin

from tests.docs.pages import ROOT
from tests.servers import Server, running_server

SECONDS: Final = aiohttp.ClientTimeout(total=60)
PATH: Final = "/metronome.js"
GZIPPED: Final = {"Accept-Encoding": "gzip, deflate, br, zstd"}
PLAIN: Final = {"Accept-Encoding": "identity"}
MAX_BYTES: Final = 4096
SCRIPT: Final = (ROOT / "metronome/web/beacon.min.js").read_bytes()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(server.url, timeout=SECONDS, auto_decompress=False) as session:
        yield session


async def test_the_compressed_script_is_smaller_than_4_kb(http: aiohttp.ClientSession) -> None:
    async with http.get(PATH, headers=GZIPPED) as response:
        body = await response.read()
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(body) == int(response.headers["Content-Length"]) < MAX_BYTES
    assert gzip.decompress(body) == SCRIPT


async def test_pages_of_any_origin_can_embed_it(http: aiohttp.ClientSession) -> None:
    async with http.get(PATH, headers={"Origin": "https://example.org", **PLAIN}) as response:
        assert (response.status, await response.read()) == (200, SCRIPT)
    assert (response.content_type, response.charset) == ("text/javascript", "utf-8")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Vary"] == "Accept-Encoding"
    assert "Set-Cookie" not in response.headers


async def test_browsers_cache_it_for_an_hour_and_then_revalidate_it(http: aiohttp.ClientSession) -> None:
    tags = set()
    for headers in (GZIPPED, PLAIN):
        async with http.get(PATH, headers=headers) as response:
            tag = response.headers["ETag"]
            assert response.headers["Cache-Control"] == "public, max-age=3600, must-revalidate"
        for cached in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            async with http.get(PATH, headers={"If-None-Match": cached, **headers}) as second:
                assert (second.status, await second.read(), second.headers["ETag"]) == (304, b"", tag)
        async with http.get(PATH, headers={"If-None-Match": '"other"', **headers}) as second:
            assert second.status == 200
        async with http.head(PATH, headers=headers) as head:
            assert (head.status, await head.read(), head.headers["ETag"]) == (200, b"", tag)
        tags.add(tag)
    # Two representations: a cache must not mistake one for the other.
    assert len(tags) == 2


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("deflate,gzip;q=0.5", "gzip"),
        ("gzip;q=1.0, identity;q=0.5", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.000, br", None),
        ("br", None),
        ("gzipped", None),
        ("", None),
    ],
)
async def test_it_is_compressed_for_clients_that_accept_gzip(
    http: aiohttp.ClientSession, accepted: str, encoding: str | None
) -> None:
    async with http.get(PATH, headers={"Accept-Encoding": accepted}) as response:
        assert response.headers.get("Content-Encoding") == encoding


async def test_other_methods_are_rejected(http: aiohttp.ClientSession) -> None:
    async with http.post(PATH) as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_it_works_under_a_strict_content_security_policy() -> None:
    served = SCRIPT.decode()
    forbidden = (
        r"\beval\b|\bFunction\(|innerHTML|outerHTML|document\.write|\.style\b|createElement|\.cookie|sessionStorage"
    )
    assert re.findall(forbidden, served) == []
    assert not re.search(r"^\s*//", served, re.MULTILINE)


def test_it_is_the_source_without_comments_and_white_space() -> None:
    source = (ROOT / "metronome/web/beacon.js").read_text()
    assert SCRIPT.decode() == jsmin(source), "run `make docs`"
