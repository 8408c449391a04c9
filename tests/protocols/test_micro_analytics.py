"""true-micro-analytics: which requests are views, of which items, and which are queries."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed, SpoolFull
from metronome.event import DocumentContext, Event, build_document
from metronome.fields import NAME_MAX_BYTES
from metronome.protocol import IngestResult, ParsedRequest, Request
from metronome.protocols.micro_analytics import (
    METHOD_NOT_ALLOWED_REPLY,
    PROTOCOL,
    ReportKind,
    item_id_from_path,
    micro_analytics_endpoint,
    report_kind,
)

CONTEXT = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
BROWSER = {"Referer": "https://example.org/", "User-Agent": "Mozilla/5.0"}


def request_of(path: str, query: str = "", headers: dict[str, str] | None = None, client_ip: str = "") -> Request:
    return Request(b"", "", 10, "GET", path, query, headers or {}, client_ip)


def fields(path: str, query: str = "", headers: dict[str, str] | None = None, client_ip: str = "") -> dict[str, Any]:
    (event,) = PROTOCOL.parse(request_of(path, query, headers, client_ip)).events
    assert isinstance(event, Event)
    return dict(event.fields)


def test_the_endpoint_is_below_the_prefix() -> None:
    assert (micro_analytics_endpoint("/count").prefix, micro_analytics_endpoint("").prefix) == ("/count", "")
    assert micro_analytics_endpoint("/count").protocol is PROTOCOL


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
        ("/%ff", "/%FF"),
        ("/\udcff", "/%FF"),
    ],
)
def test_the_item_is_the_decoded_path(path: str, item: str) -> None:
    assert fields(path)["id"] == item_id_from_path(path) == item
    assert fields(path)["event"] == "view"


def test_the_query_is_in_the_url_and_not_in_the_item() -> None:
    assert fields("/a%20b", "from=mail&page=2") == {"event": "view", "id": "/a b", "url": "/a%20b?from=mail&page=2"}


def test_a_view_has_the_user_agent_referrer_and_ip_address_of_the_client() -> None:
    view = fields("/a", "", BROWSER, "192.0.2.7")
    assert view["agent"] == "Mozilla/5.0"
    assert view["referer"] == "https://example.org/"
    assert view["clientip"] == "192.0.2.7"


def test_a_request_for_the_icon_is_not_a_view() -> None:
    assert list(PROTOCOL.parse(request_of("/favicon.ico")).events) == []
    assert len(list(PROTOCOL.parse(request_of("/a/favicon.ico")).events)) == 1


@pytest.mark.parametrize(
    ("path", "query", "kind"),
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
def test_queries_are_not_views(path: str, query: str, kind: ReportKind | None) -> None:
    assert report_kind(path, query) is kind


def test_replies_with_204_that_is_not_cached() -> None:
    reply = PROTOCOL.reply(request_of("/a"), ParsedRequest([], is_batch=False), IngestResult(1, {}))
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["Cache-Control"] == "no-store"


def test_replies_with_problem_details() -> None:
    with pytest.raises(Malformed):
        PROTOCOL.reply(request_of("/a"), ParsedRequest([], is_batch=False), IngestResult(0, {0: Malformed("too long")}))
    reply = PROTOCOL.reply_error(request_of("/a"), SpoolFull("full"))
    assert reply.status == 503
    assert reply.headers["Retry-After"]
    assert orjson.loads(reply.body)["title"] == "SpoolFull"


def test_rejects_other_methods_as_plain_text() -> None:
    reply = METHOD_NOT_ALLOWED_REPLY
    assert (reply.status, reply.body, reply.content_type) == (405, b"Method not supported", "text/plain")


def test_finds_the_key_in_the_header() -> None:
    assert PROTOCOL.extract_key(request_of("/a", "key=no", {"Authorization": "Bearer k"})) == "k"


@given(st.text().map("/".__add__), st.text(), st.text())
def test_the_stored_item_of_any_path_is_the_one_that_is_queried(path: str, query: str, referer: str) -> None:
    report_kind(path, query)
    for event in PROTOCOL.parse(request_of(path, query, {"Referer": referer})).events:
        assert isinstance(event, Event)
        if len(item_id_from_path(path).encode()) <= NAME_MAX_BYTES:
            assert orjson.loads(build_document(event, CONTEXT, "spare"))["id"] == item_id_from_path(path)
