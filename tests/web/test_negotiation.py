"""Media types, compression and revalidation, by the headers of a request."""

from typing import Final

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from metronome.web.negotiation import (
    Content,
    accepts_gzip,
    cached_response,
    matches_etag,
    negotiate_media_type,
    uncached_response,
)

JSON, CSV, NDJSON = AVAILABLE = ("application/json", "text/csv", "application/x-ndjson")
BROWSER: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


def request_with(name: str, *values: str) -> web.Request:
    return make_mocked_request("GET", "/", CIMultiDict((name, value) for value in values))


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ((), JSON),
        (("",), JSON),
        (("*/*",), JSON),
        ((BROWSER,), JSON),
        (("application/json, text/plain, */*",), JSON),
        (("text/csv",), CSV),
        (("TEXT/CSV ; Charset=utf-8",), CSV),
        (("text/csv, */*",), CSV),
        (("*/*, text/csv",), CSV),
        (("application/*, text/csv",), CSV),
        (("image/png", "application/x-ndjson;q=0.6"), NDJSON),
        (("application/x-ndjson, application/json",), NDJSON),
        (("application/json, application/x-ndjson",), JSON),
        (("image/png",), JSON),
        ((",,;q=1,/,text/,a/b/c,text/csv",), CSV),
    ],
)
def test_the_first_available_media_type_is_chosen(accept: tuple[str, ...], media_type: str) -> None:
    assert negotiate_media_type(request_with("Accept", *accept), AVAILABLE) == media_type


@given(st.lists(st.text(max_size=100)))
def test_any_header_selects_an_available_media_type(accept: list[str]) -> None:
    assert negotiate_media_type(request_with("Accept", *accept), AVAILABLE) in AVAILABLE


@pytest.mark.parametrize(
    ("accept_encoding", "is_accepted"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate,gzip;q=0.5", True),
        ("gzip;q=1.0, identity;q=0.5", True),
        ("br, gzip ; q=0.001", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, br", False),
        ("br", False),
        ("gzipped", False),
        ("", False),
    ],
)
def test_gzip_is_accepted_unless_its_weight_is_zero(
    accept_encoding: str,
    is_accepted: bool,  # noqa: FBT001  # a column of the table
) -> None:
    assert accepts_gzip(request_with("Accept-Encoding", accept_encoding)) == is_accepted


@pytest.mark.parametrize(
    ("if_none_match", "is_known"),
    [('"a"', True), ('W/"a"', True), ('"b", "a"', True), ("*", True), ('"b"', False), ("a", False), ("", False)],
)
def test_entity_tags_are_compared_weakly(
    if_none_match: str,
    is_known: bool,  # noqa: FBT001  # a column of the table
) -> None:
    request = request_with("If-None-Match", if_none_match)
    assert matches_etag(request, '"a"') == matches_etag(request, 'W/"a"') == is_known


def test_known_content_is_not_sent_again() -> None:
    content = Content(b"{}", headers={"Cache-Control": "max-age=300"})
    response = cached_response(request_with("Accept", "*/*"), content)
    assert (response.status, response.body, response.headers["Cache-Control"]) == (200, b"{}", "max-age=300")
    again = cached_response(request_with("If-None-Match", response.headers["ETag"]), content)
    assert (again.status, again.body) == (304, None)
    assert again.headers["ETag"] == response.headers["ETag"]
    assert again.headers["Cache-Control"] == "max-age=300"


@pytest.mark.parametrize(("accept_encoding", "is_weak"), [("gzip", True), ("identity", False)])
def test_a_compressed_response_has_a_weak_entity_tag(
    accept_encoding: str,
    is_weak: bool,  # noqa: FBT001  # a column of the table
) -> None:
    request = request_with("Accept-Encoding", accept_encoding)
    response = cached_response(request, Content(b"{}"), compress=True)
    assert response.headers["ETag"].startswith("W/") == response.compression == is_weak
    assert response.headers["Vary"] == "Accept-Encoding"


def test_uncached_content_has_no_entity_tag() -> None:
    response = uncached_response(request_with("Accept", "*/*"), Content(b"x", "text/csv", "utf-8"))
    assert (response.content_type, response.charset) == ("text/csv", "utf-8")
    assert response.headers["Cache-Control"] == "no-store"
    assert "ETag" not in response.headers
