"""The pixel: what its address says, what the browser adds, and a picture whatever happens."""

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

DOOR = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
PAGE = "https://example.org/reports?year=2015"
BROWSER = {"Referer": PAGE, "User-Agent": "Mozilla/5.0"}


def asked(query: str, headers: dict[str, str] | None = None, sender: str = "") -> Request:
    return Request(b"", "", 10, "GET", "", query, headers or {}, sender)


def reading(query: str, headers: dict[str, str] | None = None, sender: str = "") -> ParsedEvent:
    (found,) = pixel.parse(asked(query, headers, sender)).events
    return found


def fields(query: str, headers: dict[str, str] | None = None, sender: str = "") -> dict[str, Any]:
    found = reading(query, headers, sender)
    assert isinstance(found, Event)
    return dict(found.fields)


def test_it_is_taken_where_pages_ask_for_a_picture() -> None:
    assert [(one.method, one.prefix, one.path) for one in ENDPOINTS if one.protocol is pixel] == [
        ("GET", "", "/tick.gif")
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("id=a&event=view", {"id": "a", "event": "view"}),
        ("id=a%2Fb%20c&title=Z%C3%BCrich+HB", {"id": "a/b c", "title": "Zürich HB"}),
        ("id=a&note=", {"id": "a", "note": ""}),
        ("id=a&key=secret", {"id": "a"}),
        ("%6bey=secret&id=a", {"id": "a"}),
        ("id=a&id=b", {"id": "b", REPEATED_FIELDS: ["id"]}),
    ],
)
def test_parameters_are_an_event_and_the_key_is_none_of_it(query: str, found: dict[str, Any]) -> None:
    assert fields(query) == found


def test_a_browser_tells_the_page_the_agent_and_where_it_is() -> None:
    found = fields("id=a", BROWSER, "192.0.2.7")
    assert found == {"id": "a", "url": PAGE, "agent": "Mozilla/5.0", "clientip": "192.0.2.7"}


def test_what_the_address_says_is_not_overruled() -> None:
    given = {"id": "a", "url": "https://example.org/b", "agent": "mine", "clientip": "198.51.100.1"}
    assert fields(urlencode(given), BROWSER, "192.0.2.7") == given


@pytest.mark.parametrize("name", ["user_agent", "ua"])
def test_an_agent_by_another_name_is_not_overruled_either(name: str) -> None:
    assert "agent" not in fields(f"{name}=mine", BROWSER)


def test_the_page_is_no_referer() -> None:
    assert "referer" not in orjson.loads(build_document(Event(fields("id=a", BROWSER)), DOOR, "spare"))


def test_neither_the_key_nor_the_whole_address_stands_in_what_is_kept_of_an_odd_event() -> None:
    found = reading("id=a&a.b=1&key=secret&clientip=192.0.2.77", BROWSER)
    assert isinstance(found, Event)
    written = build_document(found, DOOR, "spare")
    kept = orjson.loads(written)
    assert kept["params"] == {"a.b": "1"}
    assert '"a.b":"1"' in kept["event.original"]
    assert b"secret" not in written
    assert b"192.0.2.77" not in written
    repeated = reading("q=1&q=2&key=secret")
    assert isinstance(repeated, Event)
    assert orjson.loads(build_document(repeated, DOOR, "spare"))["event.original"] == "q=1&q=2"


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
def test_the_key_is_in_the_address_or_a_header(query: str, headers: dict[str, str], key: str) -> None:
    assert pixel.extract_key(asked(query, headers)) == key


@pytest.mark.parametrize("query", ["", "&&", "id", "key=secret"])
def test_an_address_without_fields_is_malformed(query: str) -> None:
    assert isinstance(reading(query), Malformed)


def test_too_many_fields_are_too_large() -> None:
    assert isinstance(reading("&".join(["a=1"] * 1001)), PayloadTooLarge)


def test_the_picture_is_one_that_no_cache_keeps() -> None:
    reply = pixel.reply(asked("id=a"), ParsedRequest([], is_batch=False), IngestResult(1, {}))
    assert (reply.status, reply.body, reply.content_type) == (200, TRANSPARENT_GIF, "image/gif")
    assert len(TRANSPARENT_GIF) == 43
    assert TRANSPARENT_GIF.startswith(b"GIF89a\x01\x00\x01\x00")
    assert TRANSPARENT_GIF.endswith(b"\x3b")
    assert "no-store" in reply.headers["Cache-Control"]
    assert ERROR_HEADER not in reply.headers


@pytest.mark.parametrize("error", [Unauthorized("no key"), SpoolFull("it is full"), Malformed("2\n\x00ü is no time")])
def test_what_is_wrong_stands_in_a_header_beside_the_picture(error: Unauthorized | SpoolFull | Malformed) -> None:
    refused = pixel.reply_error(asked(""), error)
    assert (refused.status, refused.body, refused.content_type) == (200, TRANSPARENT_GIF, "image/gif")
    said = refused.headers[ERROR_HEADER]
    assert said
    assert said.isascii()
    assert said.isprintable()
    if isinstance(error, Malformed):
        assert pixel.reply(asked(""), ParsedRequest([], is_batch=False), IngestResult(0, {0: error})) == refused


def test_a_long_sentence_is_cut_in_the_header() -> None:
    assert len(pixel.reply_error(asked(""), Malformed("x" * 100_000)).headers[ERROR_HEADER]) < 1000


@given(st.one_of(st.text(), st.text(alphabet="ab=&%+;\ud8002Ff")), st.text(), st.text())
def test_any_address_is_an_event_or_refused(query: str, referer: str, sender: str) -> None:
    found = reading(query, {"Referer": referer}, sender)
    assert isinstance(found, (Event, Malformed, PayloadTooLarge))
    pixel.extract_key(asked(query))


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_no_spelling_brings_a_key_into_the_event(others: dict[str, str]) -> None:
    query = "&".join([*(f"{quote_plus(name)}={quote_plus(value)}" for name, value in others.items()), "k%65y=s&a=1"])
    assert "key" not in fields(query)
