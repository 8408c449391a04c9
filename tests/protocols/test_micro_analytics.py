"""True-micro-analytics: which requests are views, of what, and which ask."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed, SpoolFull
from metronome.event import DocumentContext, Event, build_document
from metronome.fields import NAME_MAX_BYTES
from metronome.protocol import IngestResult, ParsedRequest, Request
from metronome.protocols.micro_analytics import protocol as hit
from metronome.protocols.micro_analytics.protocol import ReportKind
from metronome.protocols.micro_analytics.routes import micro_analytics_endpoint

DOOR = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
BROWSER = {"Referer": "https://example.org/", "User-Agent": "Mozilla/5.0"}


def request_of(path: str, query: str = "", headers: dict[str, str] | None = None, sender: str = "") -> Request:
    return Request(b"", "", 10, "GET", path, query, headers or {}, sender)


def fields(path: str, query: str = "", headers: dict[str, str] | None = None, sender: str = "") -> dict[str, Any]:
    (found,) = hit.parse(request_of(path, query, headers, sender)).events
    assert isinstance(found, Event)
    return dict(found.fields)


def test_it_is_spoken_below_the_prefix_that_is_asked_for() -> None:
    assert (micro_analytics_endpoint("/count").prefix, micro_analytics_endpoint("").prefix) == ("/count", "")
    assert micro_analytics_endpoint("/count").dialect is hit


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("/a", "/a"),
        ("/a/b.html", "/a/b.html"),
        ("/a/", "/a/"),
        ("//", "//"),
        ("/a%20b%2Fc", "/a b/c"),
        ("/z%C3%BCrich", "/zürich"),
        ("/100%", "/100%"),
        ("/%FF", "/\ufffd"),
        ("/\udcff", "/\ufffd"),
    ],
)
def test_the_item_is_the_path_decoded_and_otherwise_as_it_came(path: str, item: str) -> None:
    assert fields(path)["id"] == hit.item_id_from_path(path) == item
    assert fields(path)["event"] == "view"


def test_a_query_is_kept_in_the_url_and_is_no_part_of_the_item() -> None:
    assert fields("/a%20b", "from=mail&page=2") == {"event": "view", "id": "/a b", "url": "/a%20b?from=mail&page=2"}


def test_agent_referer_and_address_are_those_of_whoever_asks() -> None:
    found = fields("/a", "", BROWSER, "192.0.2.7")
    assert found["agent"] == "Mozilla/5.0"
    assert found["referer"] == "https://example.org/"
    assert found["clientip"] == "192.0.2.7"


def test_the_icon_that_browsers_ask_for_is_no_view() -> None:
    assert list(hit.parse(request_of("/favicon.ico")).events) == []
    assert len(list(hit.parse(request_of("/a/favicon.ico")).events)) == 1


@pytest.mark.parametrize(
    ("path", "query", "what"),
    [
        ("/a", "", None),
        ("/a", "counts&viewed=1", None),
        ("/a", "count", ReportKind.COUNT),
        ("/a", "count=false", ReportKind.COUNT),
        ("/a", "x=1&c%6funt=", ReportKind.COUNT),
        ("/a", "views", ReportKind.VIEWS),
        ("/a", "views=1&count", ReportKind.COUNT),
        ("/a", "count&views", ReportKind.COUNT),
        ("/", "", ReportKind.PATHS),
        ("", "", ReportKind.PATHS),
        ("/", "count", ReportKind.PATHS),
        ("/favicon.ico", "count", None),
        ("//", "", None),
    ],
)
def test_who_asks_is_not_counted(path: str, query: str, what: ReportKind | None) -> None:
    assert hit.report_kind(path, query) is what


def test_a_view_is_answered_with_nothing_that_a_cache_keeps() -> None:
    reply = hit.reply(request_of("/a"), ParsedRequest([], is_batch=False), IngestResult(1, {}))
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["Cache-Control"] == "no-store"


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(Malformed):
        hit.reply(request_of("/a"), ParsedRequest([], is_batch=False), IngestResult(0, {0: Malformed("too long")}))
    refused = hit.reply_error(request_of("/a"), SpoolFull("full"))
    assert refused.status == 503
    assert refused.headers["Retry-After"]
    assert orjson.loads(refused.body)["title"] == "SpoolFull"


def test_another_method_is_answered_in_the_protocol_s_own_words() -> None:
    reply = hit.method_not_allowed_reply()
    assert (reply.status, reply.body, reply.content_type) == (405, b"Method not supported", "text/plain")


def test_the_key_is_in_the_header() -> None:
    assert hit.extract_key(request_of("/a", "key=no", {"Authorization": "Bearer k"})) == "k"


@given(st.text().map("/".__add__), st.text(), st.text())
def test_any_path_is_found_again_under_the_item_that_is_stored(path: str, query: str, referer: str) -> None:
    hit.report_kind(path, query)
    for found in hit.parse(request_of(path, query, {"Referer": referer})).events:
        assert isinstance(found, Event)
        if len(hit.item_id_from_path(path).encode()) <= NAME_MAX_BYTES:
            assert orjson.loads(build_document(found, DOOR, "spare"))["id"] == hit.item_id_from_path(path)
