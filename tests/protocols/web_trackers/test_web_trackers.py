"""Plausible, Umami and GoatCounter: which events their requests become, and the replies."""

import contextlib
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import DocumentContext, Event, IngestConfig, build_document, generate_event_ids
from metronome.items import compile_item_pattern
from metronome.protocol import IngestResult, Protocol, Request
from metronome.protocols.web_trackers import goatcounter, plausible, umami
from metronome.web.gif import TRANSPARENT_GIF

BROWSER: Final = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
HEADERS: Final = {"User-Agent": BROWSER}
CONTEXT: Final = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
PAGE: Final = "https://data.example.org/wells?utm_source=letter#map"
VIEW: Final = {"n": "pageview", "u": PAGE, "d": "data.example.org", "r": None, "w": 1280, "h": 0}
WEBSITE: Final = "94db1cb1-74f4-4a40-ad6c-962362670409"
UMAMI_PAGE: Final = {"website": WEBSITE, "hostname": "data.example.org", "url": "/wells?a=1"}
PROTOCOLS: Final = (plausible, umami, goatcounter.COUNT, goatcounter.API)


def request(body: object = b"", query: str = "", headers: Mapping[str, str] = HEADERS, pattern: str = "") -> Request:
    return Request(
        body if isinstance(body, bytes) else orjson.dumps(body),
        "text/plain",
        3,
        query=query,
        headers=headers,
        client_ip="203.0.113.9",
        received_at=CONTEXT.received_at,
        event_ids=generate_event_ids(),
        config=IngestConfig(item_pattern=compile_item_pattern(pattern or None)),
    )


def fields_of(protocol: Protocol, sent: Request) -> dict[str, Any]:
    """Return the fields of the only event, without those of the client."""
    (event,) = protocol.parse(sent).events
    if not isinstance(event, Event):
        raise event
    fields = dict(event.fields)
    assert (fields.pop("agent"), fields.pop("clientip")) == (BROWSER, "203.0.113.9")
    return fields


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, {}),
        ({"r": "https://news.example/a"}, {"referer": "https://news.example/a"}),
        ({"h": 1}, {"id": "/wells#map"}),
        ({"p": '{"plan":"gold","url":"/x"}'}, {"plan": "gold", "prop_url": "/x"}),
        ({"n": "Signup", "p": {"plan": "gold"}}, {"event": "Signup", "plan": "gold"}),
        ({"n": "view"}, {"event": "event", "name": "view"}),
        ({"n": "Buy", "$": {"currency": "EUR", "amount": 9.5}}, {"event": "Buy", "revenue": 9.5, "currency": "EUR"}),
        ({"n": "Scroll", "i": False}, {"event": "Scroll", "interactive": False}),
        ({"n": "engagement", "e": 3100, "sd": 40}, {"event": "heartbeat", "engagement_ms": 3100, "scroll_depth": 40}),
        (
            {"n": "File Download", "p": {"url": "https://data.example.org/files/a.CSV"}},
            {
                "event": "download",
                "id": "/files/a.CSV",
                "format": "csv",
                "download": "https://data.example.org/files/a.CSV",
            },
        ),
        (
            {"n": "Outbound Link: Click", "p": {"url": "https://other.example/"}},
            {"event": "outlink", "link": "https://other.example/"},
        ),
    ],
)
def test_an_event_of_plausible(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    view = {"event": "view", "id": "/wells", "url": PAGE, "domain": "data.example.org", "screen_width": 1280}
    assert fields_of(plausible, request({**VIEW, **sent})) == {**view, **expected}


def test_plausible_accepts_the_long_names_of_back_ends() -> None:
    sent = {
        "name": "pageview",
        "url": PAGE,
        "domain": "data.example.org",
        "referrer": "https://a.example/",
        "props": None,
    }
    found = fields_of(plausible, request(sent))
    assert (found["event"], found["id"], found["referer"]) == ("view", "/wells", "https://a.example/")


def test_plausible_replies_ok_with_202() -> None:
    sent = request(VIEW)
    reply = plausible.reply(sent, plausible.parse(sent), IngestResult(1, {}))
    assert (reply.status, reply.body) == (202, b"ok")


@pytest.mark.parametrize(
    ("protocol", "body", "message"),
    [
        (plausible, {**VIEW, "u": ""}, "url is missing"),
        (plausible, {"u": PAGE, "d": "a"}, "name is missing"),
        (plausible, {**VIEW, "d": None}, "domain is missing"),
        (plausible, {**VIEW, "n": ["pageview"]}, "invalid n: expected text, got an array"),
        (plausible, {**VIEW, "p": "x"}, "invalid props"),
        (plausible, [VIEW], "expected a JSON object"),
        (umami, {"type": "event"}, "type and payload are required"),
        (umami, {"type": ["event"], "payload": UMAMI_PAGE}, "type and payload are required"),
        (umami, {"type": "event", "payload": {"url": "/"}}, "payload.website is missing"),
        (umami, {"type": "event", "payload": {**UMAMI_PAGE, "data": 5}}, "invalid data: expected a JSON object"),
        (goatcounter.API, {"hits": []}, "hits is missing"),
        (goatcounter.API, {"path": "/a"}, "hits is missing"),
    ],
)
def test_an_invalid_request_is_rejected_with_what_to_do(protocol: Protocol, body: object, message: str) -> None:
    with pytest.raises(Malformed, match=re.escape(message)):
        fields_of(protocol, request(body))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, {}),
        (
            {"title": "Wells", "referrer": "https://news.example/", "language": "de-CH", "screen": "1920x1080"},
            {"title": "Wells", "referer": "https://news.example/", "lang": "de-CH", "res": "1920x1080"},
        ),
        ({"url": PAGE}, {"url": PAGE}),
        (
            {"name": "signup", "data": {"plan": "gold", "id": 3}},
            {"event": "signup", "plan": "gold", "data_id": 3},
        ),
        ({"name": "download"}, {"event": "event", "name": "download"}),
        ({"timestamp": 1421919000}, {"@timestamp": 1421919000}),
        ({"id": "u-7", "tag": "b"}, {"user": "u-7", "tag": "b"}),
    ],
)
def test_an_event_of_umami(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    view = {"event": "view", "id": "/wells", "url": "https://data.example.org/wells?a=1", "website": WEBSITE}
    assert fields_of(umami, request({"type": "event", "payload": {**UMAMI_PAGE, **sent}})) == {**view, **expected}


def test_an_identification_of_umami_is_no_view() -> None:
    found = fields_of(umami, request({"type": "identify", "payload": {"website": WEBSITE, "data": {"team": "a"}}}))
    assert found == {"event": "identify", "website": WEBSITE, "team": "a"}


def test_a_back_end_names_its_client_to_umami() -> None:
    payload = {**UMAMI_PAGE, "ip": "198.51.100.7", "userAgent": "Firefox"}
    (event,) = umami.parse(request({"type": "event", "payload": payload})).events
    assert isinstance(event, Event)
    assert (event.fields["clientip"], event.fields["agent"]) == ("198.51.100.7", "Firefox")
    assert b"198.51.100.7" not in build_document(event, CONTEXT, "spare")


def test_umami_gets_its_identifiers_back_for_as_long_as_a_page_is_open() -> None:
    def reply_to(headers: Mapping[str, str]) -> dict[str, str]:
        sent = request({"type": "event", "payload": UMAMI_PAGE}, headers=headers)
        reply = umami.reply(sent, umami.parse(sent), IngestResult(1, {}))
        assert reply.status == 200
        body: dict[str, str] = orjson.loads(reply.body)
        return body

    first, other = reply_to(HEADERS), reply_to(HEADERS)
    assert first.keys() == {"cache", "sessionId", "visitId"}
    assert first["sessionId"] != other["sessionId"]
    assert reply_to({"x-umami-cache": first["cache"]}) == first
    # Older scripts repeat the whole reply.
    assert reply_to({"x-umami-cache": orjson.dumps(first).decode()}) == first
    assert reply_to({"x-umami-cache": "x"}) not in (first, other)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("p=%2Fwells&t=Wells&r=&e=false&s=1920%2C1080%2C1&b=0&q=&rnd=8kgu5", {"title": "Wells", "res": "1920,1080,1"}),
        ("p=/wells&r=https://news.example/a", {"referer": "https://news.example/a"}),
        ("p=wells", {}),
        ("p=/wells&q=%3Futm_source%3Dletter", {"url": "/wells?utm_source=letter"}),
        ("p=/wells&b=153", {"bot": "webdriver"}),
        ("p=/wells&b=5", {}),
        ("p=/wells&b=199", {"bot": "goatcounter 199"}),
    ],
)
def test_a_view_of_goatcounter(query: str, expected: dict[str, Any]) -> None:
    assert fields_of(goatcounter.COUNT, request(query=query)) == {
        "event": "view",
        "id": "/wells",
        "url": "/wells",
        **expected,
    }


@pytest.mark.parametrize("flag", ["1", "true"])
def test_an_event_of_goatcounter_has_its_name_and_no_item(flag: str) -> None:
    found = fields_of(goatcounter.COUNT, request(query=f"p=click-banner&t=Banner&e={flag}"))
    assert found == {"event": "click-banner", "title": "Banner"}


@pytest.mark.parametrize("header", ["Purpose", "Sec-Purpose", "X-Purpose", "X-Moz"])
def test_what_a_browser_fetches_in_advance_is_not_counted_by_goatcounter(header: str) -> None:
    sent = request(query="p=/wells", headers={**HEADERS, header: "prefetch;prerender"})
    parsed = goatcounter.COUNT.parse(sent)
    assert list(parsed.events) == []
    assert goatcounter.COUNT.reply(sent, parsed, IngestResult(0, {})).body == TRANSPARENT_GIF


@pytest.mark.parametrize(("query", "reason"), [("t=a", "missing"), (f"p=/{'a' * 2048}", "2048 bytes")])
def test_goatcounter_is_told_the_reason_in_a_header(query: str, reason: str) -> None:
    sent = request(query=query)
    (error,) = goatcounter.COUNT.parse(sent).events
    assert isinstance(error, Malformed)
    reply = goatcounter.COUNT.reply_error(sent, error)
    assert (reply.status, reply.body) == (400, TRANSPARENT_GIF)
    assert reason in reply.headers["X-Goatcounter"]


def test_hits_of_goatcounters_api_do_not_affect_each_other() -> None:
    hits = [
        {"path": "/wells", "user_agent": BROWSER, "ip": "203.0.113.9", "created_at": "2015-01-22T10:00:00Z",
         "size": [1920, 1080, 1], "ref": "https://news.example/", "session": "s1", "query": "a=1"},
        {"title": "no path"},
        5,
    ]  # fmt: skip
    sent = request({"no_sessions": True, "hits": hits}, headers={"User-Agent": "Go-http-client/1.1"})
    first, second, third = goatcounter.API.parse(sent).events
    assert isinstance(first, Event)
    assert first.fields == {
        "event": "view",
        "id": "/wells",
        "url": "/wells?a=1",
        "clientip": "203.0.113.9",
        "agent": BROWSER,
        "referer": "https://news.example/",
        "session": "s1",
        "res": "1920,1080,1",
        "@timestamp": "2015-01-22T10:00:00Z",
    }
    assert isinstance(second, Malformed)
    assert isinstance(third, Malformed)
    result = IngestResult(1, {1: second, 2: third})
    reply = goatcounter.API.reply(sent, goatcounter.API.parse(sent), result)
    assert (reply.status, orjson.loads(reply.body)["errors"].keys()) == (400, {"1", "2"})
    assert goatcounter.API.reply(sent, goatcounter.API.parse(sent), IngestResult(3, {})).status == 202
    with pytest.raises(PayloadTooLarge):
        goatcounter.API.parse(request({"hits": [{"path": "/a"}] * 4}))


@pytest.mark.parametrize(
    ("protocol", "sent"),
    [
        (plausible, {"body": VIEW}),
        (umami, {"body": {"type": "event", "payload": UMAMI_PAGE}}),
        (goatcounter.COUNT, {"query": "p=/wells"}),
    ],
)
def test_the_item_pattern_finds_the_item(protocol: Protocol, sent: dict[str, Any]) -> None:
    assert fields_of(protocol, request(**sent, pattern=r"^/(?P<id>[a-z]+)"))["id"] == "wells"
    assert "id" not in fields_of(protocol, request(**sent, pattern=r"^/maps/(?P<id>[a-z]+)"))


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES: Final = st.sampled_from(
    [*"nudrpmiehws$", "name", "url", "domain", "props", "revenue", "type", "payload", "hits", "path", "website",
     "hostname", "data", "id", "ip", "timestamp", "screen", "bot", "size", "event", "query", "created_at"]
)  # fmt: skip
PAYLOAD: Final = st.dictionaries(NAMES, JSON, max_size=8)


@settings(max_examples=40)
@given(
    st.sampled_from(PROTOCOLS),
    st.binary(max_size=60)
    | st.one_of(
        PAYLOAD.map(lambda sent: {**VIEW, **sent}),
        PAYLOAD.map(lambda sent: {"type": "event", "payload": {"website": "w", **sent}}),
        PAYLOAD.map(lambda sent: {"hits": [sent]}),
    ).map(orjson.dumps),
    st.text(st.characters(codec="latin-1"), max_size=40),
)
def test_arbitrary_requests_raise_nothing_but_malformed_and_too_large(
    protocol: Protocol, body: bytes, query: str
) -> None:
    sent = request(body, query, {"User-Agent": "a\udcff", "Referer": f"http://{query}"})
    try:
        events = list(protocol.parse(sent).events)
    except (Malformed, PayloadTooLarge) as error:
        events = [error]
    for event in events:
        if isinstance(event, Event):
            with contextlib.suppress(Malformed):
                build_document(event, CONTEXT, "spare")
        else:
            assert protocol.reply_error(sent, event).status in {400, 413}
