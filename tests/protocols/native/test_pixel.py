"""The native pixel: parameters, fields of the browser, and the reply."""

from typing import Any
from urllib.parse import quote_plus, urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed, PayloadTooLarge, SpoolFull, Unauthorized
from metronome.event import REPEATED_FIELDS, DocumentContext, Event, build_document
from metronome.protocol import IngestResult, ParsedEvent, ParsedRequest, Request
from metronome.protocols.native import pixel
from metronome.protocols.registry import ENDPOINTS
from metronome.web.gif import ERROR_HEADER, TRANSPARENT_GIF

CONTEXT = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
PAGE = "https://example.org/reports?year=2015"
BROWSER = {"Referer": PAGE, "User-Agent": "Mozilla/5.0"}


def pixel_request(query: str, headers: dict[str, str] | None = None, sender: str = "") -> Request:
    return Request(b"", "", 10, "GET", "", query, headers or {}, sender)


def parse_one(query: str, headers: dict[str, str] | None = None, sender: str = "") -> ParsedEvent:
    (event,) = pixel.parse(pixel_request(query, headers, sender)).events
    return event


def fields(query: str, headers: dict[str, str] | None = None, sender: str = "") -> dict[str, Any]:
    event = parse_one(query, headers, sender)
    assert isinstance(event, Event)
    return dict(event.fields)


def test_the_pixel_is_at_tick_gif() -> None:
    assert [
        (endpoint.method, endpoint.prefix, endpoint.path) for endpoint in ENDPOINTS if endpoint.protocol is pixel
    ] == [("GET", "", "/tick.gif")]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("id=a&event=view", {"id": "a", "event": "view"}),
        ("id=a%2Fb%20c&title=Z%C3%BCrich+HB", {"id": "a/b c", "title": "Zürich HB"}),
        ("id=a&note=", {"id": "a", "note": ""}),
        ("id=a&key=secret", {"id": "a"}),
        ("%6bey=secret&id=a", {"id": "a"}),
        ("id=a&id=b", {"id": "b", REPEATED_FIELDS: ["id"]}),
    ],
)
def test_parameters_except_the_key_are_fields(query: str, expected: dict[str, Any]) -> None:
    assert fields(query) == expected


def test_page_user_agent_and_address_come_from_the_request() -> None:
    assert fields("id=a", BROWSER, "192.0.2.7") == {
        "id": "a",
        "url": PAGE,
        "agent": "Mozilla/5.0",
        "clientip": "192.0.2.7",
    }


def test_parameters_win_over_the_request() -> None:
    given = {"id": "a", "url": "https://example.org/b", "agent": "mine", "clientip": "198.51.100.1"}
    assert fields(urlencode(given), BROWSER, "192.0.2.7") == given


@pytest.mark.parametrize("name", ["user_agent", "ua"])
def test_a_user_agent_by_another_name_wins_over_the_request(name: str) -> None:
    assert "agent" not in fields(f"{name}=mine", BROWSER)


def test_the_page_is_not_a_referrer() -> None:
    assert "referer" not in orjson.loads(build_document(Event(fields("id=a", BROWSER)), CONTEXT, "spare"))


def test_the_original_event_has_neither_the_key_nor_the_whole_address() -> None:
    event = parse_one("id=a&a.b=1&key=secret&clientip=192.0.2.77", BROWSER)
    assert isinstance(event, Event)
    document = build_document(event, CONTEXT, "spare")
    fields_ = orjson.loads(document)
    assert fields_["params"] == {"a.b": "1"}
    assert '"a.b":"1"' in fields_["event.original"]
    assert b"secret" not in document
    assert b"192.0.2.77" not in document
    repeated = parse_one("q=1&q=2&key=secret")
    assert isinstance(repeated, Event)
    assert orjson.loads(build_document(repeated, CONTEXT, "spare"))["event.original"] == "q=1&q=2"


@pytest.mark.parametrize(
    ("query", "headers", "key"),
    [
        ("id=a", {}, ""),
        ("id=a&key=k1%2B", {}, "k1+"),
        ("key=k1&key=k2", {}, "k2"),
        ("id=a", {"Authorization": "Bearer k3"}, "k3"),
        ("id=a&key=k1", {"Authorization": "Bearer k3"}, "k3"),
    ],
)
def test_the_key_is_in_the_query_or_a_header(query: str, headers: dict[str, str], key: str) -> None:
    assert pixel.extract_key(pixel_request(query, headers)) == key


@pytest.mark.parametrize("query", ["", "&&", "id", "key=secret"])
def test_rejects_a_query_without_fields(query: str) -> None:
    assert isinstance(parse_one(query), Malformed)


def test_rejects_a_query_with_too_many_fields() -> None:
    assert isinstance(parse_one("&".join(["a=1"] * 1001)), PayloadTooLarge)


def test_the_reply_is_an_image_that_is_not_cached() -> None:
    reply = pixel.reply(pixel_request("id=a"), ParsedRequest([], is_batch=False), IngestResult(1, {}))
    assert (reply.status, reply.body, reply.content_type) == (200, TRANSPARENT_GIF, "image/gif")
    assert len(TRANSPARENT_GIF) == 43
    assert TRANSPARENT_GIF.startswith(b"GIF89a\x01\x00\x01\x00")
    assert TRANSPARENT_GIF.endswith(b"\x3b")
    assert "no-store" in reply.headers["Cache-Control"]
    assert ERROR_HEADER not in reply.headers


@pytest.mark.parametrize("error", [Unauthorized("no key"), SpoolFull("it is full"), Malformed("2\n\x00ü is no time")])
def test_an_error_is_in_a_header_of_the_image(error: Unauthorized | SpoolFull | Malformed) -> None:
    error_reply = pixel.reply_error(pixel_request(""), error)
    assert (error_reply.status, error_reply.body, error_reply.content_type) == (200, TRANSPARENT_GIF, "image/gif")
    header = error_reply.headers[ERROR_HEADER]
    assert header
    assert header.isascii()
    assert header.isprintable()
    if isinstance(error, Malformed):
        assert (
            pixel.reply(pixel_request(""), ParsedRequest([], is_batch=False), IngestResult(0, {0: error}))
            == error_reply
        )


def test_a_long_error_is_truncated_in_the_header() -> None:
    assert len(pixel.reply_error(pixel_request(""), Malformed("x" * 100_000)).headers[ERROR_HEADER]) < 1000


@given(st.one_of(st.text(), st.text(alphabet="ab=&%+;\ud8002Ff")), st.text(), st.text())
def test_any_query_is_an_event_or_is_rejected(query: str, referer: str, sender: str) -> None:
    event = parse_one(query, {"Referer": referer}, sender)
    assert isinstance(event, (Event, Malformed, PayloadTooLarge))
    pixel.extract_key(pixel_request(query))


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_an_encoded_key_is_not_a_field(others: dict[str, str]) -> None:
    query = "&".join([*(f"{quote_plus(name)}={quote_plus(value)}" for name, value in others.items()), "k%65y=s&a=1"])
    assert "key" not in fields(query)
