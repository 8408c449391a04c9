"""The script for web pages, as it is served: small, kept by browsers, and to be embedded anywhere."""

import gzip
import re
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import pytest

from metronome.web.beacon import build_script
from tests.docs.pages import ROOT
from tests.servers import Server

SECONDS: Final = aiohttp.ClientTimeout(total=60)
PATH: Final = "/metronome.js"
GZIPPED: Final = {"Accept-Encoding": "gzip, deflate, br, zstd"}
PLAIN: Final = {"Accept-Encoding": "identity"}
MOST_BYTES: Final = 4096


@pytest.fixture
async def http(either: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(either.url, timeout=SECONDS, auto_decompress=False) as session:
        yield session


async def test_all_of_it_is_under_4_kb_of_gzip(http: aiohttp.ClientSession) -> None:
    async with http.get(PATH, headers=GZIPPED) as answer:
        body = await answer.read()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(body) == int(answer.headers["Content-Length"]) < MOST_BYTES
    assert gzip.decompress(body) == build_script()


async def test_it_may_be_embedded_by_pages_of_any_origin(http: aiohttp.ClientSession) -> None:
    async with http.get(PATH, headers={"Origin": "https://example.org", **PLAIN}) as answer:
        assert (answer.status, await answer.read()) == (200, build_script())
    assert (answer.content_type, answer.charset) == ("text/javascript", "utf-8")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert "Set-Cookie" not in answer.headers


async def test_browsers_keep_it_for_an_hour_and_then_ask_whether_it_has_changed(http: aiohttp.ClientSession) -> None:
    tags = set()
    for asked in (GZIPPED, PLAIN):
        async with http.get(PATH, headers=asked) as answer:
            tag = answer.headers["ETag"]
            assert answer.headers["Cache-Control"] == "public, max-age=3600, must-revalidate"
        for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            async with http.get(PATH, headers={"If-None-Match": known, **asked}) as again:
                assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", tag)
        async with http.get(PATH, headers={"If-None-Match": '"other"', **asked}) as again:
            assert again.status == 200
        async with http.head(PATH, headers=asked) as head:
            assert (head.status, await head.read(), head.headers["ETag"]) == (200, b"", tag)
        tags.add(tag)
    # They are two representations: what has one may not take the other for it.
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
async def test_it_is_packed_for_those_who_can_unpack_it(
    http: aiohttp.ClientSession, accepted: str, encoding: str | None
) -> None:
    async with http.get(PATH, headers={"Accept-Encoding": accepted}) as answer:
        assert answer.headers.get("Content-Encoding") == encoding


async def test_it_takes_no_other_method(http: aiohttp.ClientSession) -> None:
    async with http.post(PATH) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


def test_what_is_served_does_nothing_that_a_strict_policy_forbids() -> None:
    served = build_script().decode()
    forbidden = (
        r"\beval\b|\bFunction\(|innerHTML|outerHTML|document\.write|\.style\b|createElement|\.cookie|sessionStorage"
    )
    assert re.findall(forbidden, served) == []
    assert not re.search(r"^\s*//", served, re.MULTILINE)


def test_all_names_are_served_as_they_stand_in_the_source() -> None:
    source = (ROOT / "metronome/web/beacon.js").read_text()
    code = re.sub(r"^\s*//.*$|/\*.*?\*/", "", source, flags=re.MULTILINE)
    assert re.findall(r"\w+", build_script().decode()) == re.findall(r"\w+", code)
