"""micro-metrics: payloads, the documents and events they become, and the documents restored from events."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metronome.errors import Malformed, PayloadTooLarge, SpoolFull, Unauthorized
from metronome.event import DocumentContext, Event, IngestConfig, build_document
from metronome.items import compile_item_pattern
from metronome.protocol import IngestResult, ParsedRequest, Protocol, Reply, Request
from metronome.protocols.micro_metrics.dates import parse_javascript_date
from metronome.protocols.micro_metrics.documents import (
    ALLOWED_FIELDS,
    TAG_NAME_MAX_CHARACTERS,
    TAGS_MAX,
    build_event,
    parse_pairs,
    parse_payload,
    restore_document,
    tag_keys_field,
)
from metronome.protocols.micro_metrics.tracking import BATCH, PIXEL, TRACK
from metronome.web.gif import TRANSPARENT_GIF

RECEIVED_AT = "2017-04-26T18:00:00.000Z"
CONTEXT = DocumentContext(received_at=RECEIVED_AT, min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z")
FORM = "application/x-www-form-urlencoded"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.text(max_size=12), JSON, max_size=5)


def request(body: bytes | Any = b"", content_type: str = "application/json", **more: Any) -> Request:
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    event_ids = map("id-{}".format, count())
    return Request(
        text,
        content_type,
        10,
        **{"received_at": RECEIVED_AT, "event_ids": event_ids, "client_ip": "203.0.113.77", **more},
    )


def parse_and_reply(protocol: Protocol, request: Request) -> tuple[ParsedRequest, Reply]:
    """Return the parsed request, and the reply if all valid events are stored."""
    parsed = protocol.parse(request)
    events = list(parsed.events)
    rejected = {index: event for index, event in enumerate(events) if not isinstance(event, Event)}
    parsed = parsed._replace(events=events)
    return parsed, protocol.reply(request, parsed, IngestResult(len(events) - len(rejected), rejected))


def document_of(protocol: Protocol, request: Request, *, anonymize: bool = True) -> dict[str, Any]:
    """Return the Logstash document of the only event of a request."""
    (event,) = protocol.parse(request).events
    assert isinstance(event, Event)
    context = DocumentContext(RECEIVED_AT, None, CONTEXT.max_timestamp, IngestConfig(anonymize_addresses=anonymize))
    document: dict[str, Any] = orjson.loads(build_document(event, context, "spare"))
    return document


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # ECMA-262.
        ("2017-04-26T12:17:25.458Z", "2017-04-26T12:17:25.458"),
        ("2017-04-26T12:17:25.458987Z", "2017-04-26T12:17:25.458"),
        ("2017-04-26T12:17:25+02:00", "2017-04-26T10:17:25.000"),
        ("2017-04-26T12:17:25", "2017-04-26T12:17:25.000"),
        ("2017-04-26T12:17", "2017-04-26T12:17:00.000"),
        ("2017-04-26T24:00:00Z", "2017-04-27T00:00:00.000"),
        ("2017-04-26", "2017-04-26T00:00:00.000"),
        ("2017-04", "2017-04-01T00:00:00.000"),
        ("2017", "2017-01-01T00:00:00.000"),
        ("+002017-04-26T00:00:00Z", "2017-04-26T00:00:00.000"),
        # RFC 2822, and Date's own format.
        ("Mon, 25 Dec 1995 13:30:00 GMT", "1995-12-25T13:30:00.000"),
        ("Mon, 25 Dec 1995 13:30:00 +0430", "1995-12-25T09:00:00.000"),
        ("Wed Apr 26 2017 12:17:25 GMT+0200 (Central European Summer Time)", "2017-04-26T10:17:25.000"),
        ("Tue Apr 25 12:00:00 PDT 2017", "2017-04-25T19:00:00.000"),
        # Other formats.
        ("Dec 25, 1995", "1995-12-25T00:00:00.000"),
        ("25 December 1995", "1995-12-25T00:00:00.000"),
        ("25-Dec-95", "1995-12-25T00:00:00.000"),
        ("DEC 25 1995 10:00", "1995-12-25T10:00:00.000"),
        ("1995/12/25", "1995-12-25T00:00:00.000"),
        ("1/2/03", "2003-01-02T00:00:00.000"),
        ("12/25/1995 1:30 PM", "1995-12-25T13:30:00.000"),
        ("12/25/1995 12:05 AM", "1995-12-25T00:05:00.000"),
        ("12/25/1995 12:05 pm", "1995-12-25T12:05:00.000"),
        ("Dec 25, 1995 EST", "1995-12-25T05:00:00.000"),
        ("2017-4-6", "2017-04-06T00:00:00.000"),
        ("2017-04-26 12:17:25 +0200", "2017-04-26T10:17:25.000"),
        (" 2017-04-26 ", "2017-04-26T00:00:00.000"),
        # Milliseconds.
        (1493209045458, "2017-04-26T12:17:25.458"),
        (1493209045458.9, "2017-04-26T12:17:25.458"),
        ("1493209045458", "2017-04-26T12:17:25.458"),
        ("0", "1970-01-01T00:00:00.000"),
        (-1, "1969-12-31T23:59:59.999"),
    ],
)
def test_parses_a_time_as_javascript_does(text: object, expected: str) -> None:
    assert parse_javascript_date(text).isoformat(timespec="milliseconds") == f"{expected}+00:00"


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "yesterday", "T", "2017-13-01", "2017-02-30", "2017-04-26T25:00", "2017-04-26T24:00:01Z"),
        *("12/25/1995 13:30 PM", "Foo 25 1995", "Dec 25", "25 1995", "1 2 3 4", "20170426", "2017-04-26T12:60Z"),
        *("-000001-01-01T00:00:00Z", "+012017-01-01", "0001-01-01T00:00:00+23:59", "1" * 16, "9" * 200, "25 ÿ 1995"),
        *(True, None, [2017], {}, float("inf"), float("nan"), 10**30, "12:00 XYZ 25 Dec 1995", "²/2/1995"),
    ],
)
def test_rejects_invalid_times(value: object) -> None:
    with pytest.raises(Malformed, match="invalid time"):
        parse_javascript_date(value)


@given(st.text() | st.from_regex(r"[A-Za-z]{3},? \d{1,4} [A-Z][a-z]{2} \d{2,5} \d\d?:\d\d(:\d\d)?( [A-Z+-]{1,4}\d*)?"))
def test_any_text_is_a_time_or_rejected(text: str) -> None:
    with suppress(Malformed):
        assert parse_javascript_date(text).tzinfo is UTC


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001  # made aware below
def test_parses_every_iso_8601_time(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000)
    assert parse_javascript_date(aware.isoformat(timespec="milliseconds")) == aware


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        ("tag1,tag2", {"tag1": True, "tag2": True}),
        ("currency:yen,units=cents", {"currency": "yen", "units": "cents"}),
        ("url=http://a.example/?b=c", {"url": "http://a.example/?b=c"}),
        ("a:b=c,d=e:f", {"a": "b=c", "d": "e:f"}),
        ("a:,b=", {"a": "", "b": ""}),
        (",a,,:x,=y,", {"a": True}),
        ("a:1,a:2", {"a": "2"}),
        ("a b: c\n", {"a b": " c\n"}),
    ],
)
def test_parses_a_list_of_names_and_values(text: str, pairs: dict[str, str | bool]) -> None:
    assert parse_pairs(text) == pairs


def test_replies_with_the_document() -> None:
    sent = {
        "type": "sale",
        "tags": {"currency": "CHF", "n": 5},
        "data": "counter only",
        "value": 4.5,
        "userID": "rosa",
        "sessionId": 7,
        "createdOn": "Wed, 26 Apr 2017 12:17:25 GMT",
    }
    _, reply = parse_and_reply(TRACK, request(sent, "text/plain"))
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert reply.body == (
        b'{"type":"sale","tags":{"currency":"CHF","n":5},"fields":{},"data":{"counter only":true},"value":4.5,'
        b'"userId":"rosa","sessionId":"7","createdOn":"2017-04-26T12:17:25.000Z","tagKeys":["currency","n"],"_id":"id-0"}'
    )


def test_only_the_type_is_required() -> None:
    _, reply = parse_and_reply(TRACK, request({"type": "sale"}))
    assert orjson.loads(reply.body) == {
        "type": "sale",
        "tags": {},
        "fields": {},
        "data": {},
        "value": 1,
        "createdOn": RECEIVED_AT,
        "tagKeys": [],
        "_id": "id-0",
    }


@pytest.mark.parametrize(
    ("sent", "name", "expected"),
    [
        ({"value": None}, "value", None),
        ({"value": "5"}, "value", "5"),
        ({"value": ""}, "value", ""),
        ({"value": {"a": [1]}}, "value", {"a": [1]}),
        ({"userId": "a", "userID": "b"}, "userId", "a"),
        ({"userId": "", "userID": 8}, "userId", "8"),
        ({"userId": "", "userID": None}, "userId", "missing"),
        ({"sessionId": ""}, "sessionId", "missing"),
        ({"createdOn": 1493209045458}, "createdOn", "2017-04-26T12:17:25.458Z"),
        ({"createdOn": ""}, "createdOn", RECEIVED_AT),
        ({"tags": None}, "tags", {}),
        ({"tags": "a:b=1,c"}, "tags", {"a": "b=1", "c": True}),
        ({"fields": {"a": [1, {"b": None}]}}, "fields", {"a": [1, {"b": None}]}),
    ],
)
def test_accepts_optional_and_alternative_fields(sent: dict[str, Any], name: str, expected: object) -> None:
    _, reply = parse_and_reply(TRACK, request({"type": "sale", **sent}))
    assert orjson.loads(reply.body).get(name, "missing") == expected


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "invalid JSON"),
        (b"type=sale", "invalid JSON"),
        (b"[]", "expected a JSON object"),
        ({}, '"type" is required'),
        ({"type": ""}, '"type" is required'),
        ({"type": 5}, '"type" must be a string'),
        ({"type": "sale", "tag": 1}, '"tag" is not allowed'),
        ({"type": "sale", "a": 1, "b": 1, "c": 1, "d": 1}, '"a", "b", "c" and 1 more is not allowed'),
        ({"type": "sale", "tags": 5}, '"tags" must be an object'),
        ({"type": "sale", "data": ["a"]}, '"data" must be an object'),
        ({"type": "sale", "userId": {}}, '"userId" must be a string'),
        ({"type": "sale", "sessionId": True}, '"sessionId" must be a string'),
        ({"type": "sale", "createdOn": "soon"}, "invalid time 'soon'"),
        ({"type": "sale", "tags": dict.fromkeys(map(str, range(TAGS_MAX + 1)), 1)}, "over 200 names"),
        ({"type": "sale", "tags": {"x" * (TAG_NAME_MAX_CHARACTERS + 1): 1}}, "over 200 characters"),
        (b'{"type":"sale","data":{"a":' + b"[" * 300 + b"]" * 300 + b"}}", "cannot be stored"),
    ],
)
def test_rejects_an_invalid_event(body: Any, sentence: str) -> None:
    with pytest.raises(Malformed) as caught:
        TRACK.parse(request(body))
    assert sentence in str(caught.value)


def test_accepts_a_form() -> None:
    _, reply = parse_and_reply(TRACK, request(b"type=sale&tags=a%3A1&value=2.5&key=secret", FORM))
    document = orjson.loads(reply.body)
    assert (document["type"], document["tags"], document["value"]) == ("sale", {"a": "1"}, 2.5)


def test_rejects_a_form_with_too_many_fields() -> None:
    with pytest.raises(PayloadTooLarge, match="over 1000 parameters"):
        TRACK.parse(request(b"a=1&" * 2000, FORM))


def test_a_rejected_event_is_an_error_of_the_request() -> None:
    tracked = request({"type": "sale"})
    with pytest.raises(Malformed, match="too old"):
        TRACK.reply(tracked, TRACK.parse(tracked), IngestResult(0, {0: Malformed("too old")}))


def test_errors_have_the_protocol_s_shape() -> None:
    reply = TRACK.reply_error(request(), Malformed('"type" is required'))
    assert reply.status == 400
    assert orjson.loads(reply.body) == {
        "statusCode": 400,
        "error": "Bad Request",
        "message": '"type" is required',
    }
    assert TRACK.reply_error(request(), SpoolFull("full")).headers == {"Retry-After": "5"}
    assert "WWW-Authenticate" in BATCH.reply_error(request(), Unauthorized("this needs a key")).headers


@pytest.mark.parametrize("protocol", [TRACK, BATCH, PIXEL])
@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({"Authorization": "Bearer a"}, "key=b", "a"),
        ({}, "type=x&key=b%20c", "b c"),
        ({}, "type=x", ""),
        ({"Authorization": "Basic a"}, "", ""),
    ],
)
def test_finds_the_key_in_the_header_or_the_query(
    protocol: Protocol, headers: dict[str, str], query: str, key: str
) -> None:
    assert protocol.extract_key(request(headers=headers, query=query)) == key


def test_replies_to_a_batch_with_documents_and_errors_in_order() -> None:
    events = [{"type": "a"}, {"kind": "b"}, 5, {"type": "c", "tags": "x"}]
    parsed, reply = parse_and_reply(BATCH, request({"events": events}))
    assert parsed.is_batch
    replies = orjson.loads(reply.body)
    assert [reply.get("type") for reply in replies] == ["a", None, None, "c"]
    assert [reply.get("_id") for reply in replies] == ["id-0", None, None, "id-3"]
    assert [reply.get("error") for reply in replies] == [None, "Bad Request", "Bad Request", None]
    assert replies[1]["message"].startswith('"kind" is not allowed: an event has type')
    assert set(replies[2]) == {"statusCode", "error", "message"}


def test_replies_with_an_event_rejected_by_the_intake_in_its_place() -> None:
    tracked = request({"events": [{"type": "a"}, {"type": "b"}]})
    reply = BATCH.reply(
        tracked, BATCH.parse(tracked), IngestResult(1, {0: PayloadTooLarge("the event is over event_max_bytes")})
    )
    first, second = orjson.loads(reply.body)
    assert (first["statusCode"], second["type"]) == (413, "b")


def test_replies_to_an_empty_batch_with_an_empty_array() -> None:
    assert parse_and_reply(BATCH, request({"events": []}))[1].body == b"[]"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", Malformed),
        ([], Malformed),
        ({}, Malformed),
        ({"events": {"type": "a"}}, Malformed),
        ({"events": [], "more": 1}, Malformed),
        ({"events": [{"type": "a"}] * 11}, PayloadTooLarge),
    ],
)
def test_rejects_an_invalid_batch(body: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        BATCH.parse(request(body))


def test_a_pixel_has_the_client_and_the_page() -> None:
    headers = {"User-Agent": "Firefox", "Referer": "https://a.example/items/7?x=1"}
    query = "type=pageview&tags=tag1,tag2=x&userId=99&value=2.5&data=ip:1.2.3.4,plan:b&key=secret"
    config = IngestConfig(compile_item_pattern("^/items/(?P<id>[^/]+)"))
    parsed, reply = parse_and_reply(PIXEL, request(method="GET", query=query, headers=headers, config=config))
    assert (reply.status, reply.content_type, reply.body) == (200, "image/gif", TRANSPARENT_GIF)
    assert not parsed.is_batch
    doc = document_of(PIXEL, request(method="GET", query=query, headers=headers, config=config))
    assert restore_document(orjson.dumps(doc)) == {
        "type": "pageview",
        "tags": {"tag1": True, "tag2": "x"},
        "fields": {},
        "data": {"plan": "b", "userAgent": "Firefox", "referrer": headers["Referer"], "ip": "203.0.113.0"},
        "value": 2.5,
        "userId": "99",
        "createdOn": RECEIVED_AT,
        "tagKeys": ["tag1", "tag2"],
        "_id": "id-0",
    }
    fields = {name: doc.get(name) for name in ("id", "event", "clientip", "agent", "url", "user", "referer")}
    assert fields == {
        "id": "7",
        "event": "pageview",
        "clientip": "203.0.113.0",
        "agent": "Firefox",
        "url": headers["Referer"],
        "user": "99",
        "referer": None,
    }


def test_accepts_the_pixel_of_the_browser_library() -> None:
    doc = document_of(PIXEL, request(query="type=browser.performance&value=1234&tags=isMobile:false,url:%2Fabout"))
    fields = {name: doc.get(name) for name in ("event", "value", "id", "url")}
    assert fields == {"event": "browser.performance", "value": 1234, "id": "/about", "url": "/about"}
    assert restore_document(orjson.dumps(doc))["tags"] == {"isMobile": "false", "url": "/about"}


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("", 1),
        ("&value=", 1),
        ("&value=abc", "abc"),
        ("&value=%22abc%22", "abc"),
        ("&value=[1]", [1]),
        ("&value=-2", -2),
    ],
)
def test_the_value_in_a_query_is_json_or_text(query: str, value: object) -> None:
    assert restore_document(orjson.dumps(document_of(PIXEL, request(query=f"type=a{query}"))))["value"] == value


@pytest.mark.parametrize("query", ["", "tags=a", "type=a&more=1", "type=a&createdOn=soon", "&".join(["a=1"] * 2000)])
def test_an_invalid_pixel_is_the_image_with_the_error_in_a_header(query: str) -> None:
    pixel = request(method="GET", query=query)
    with pytest.raises((Malformed, PayloadTooLarge)) as caught:
        PIXEL.parse(pixel)
    reply = PIXEL.reply_error(pixel, caught.value)
    assert (reply.status, reply.body, reply.content_type) == (200, TRANSPARENT_GIF, "image/gif")
    assert reply.headers["X-Metronome-Error"]


@pytest.mark.parametrize(
    ("sent", "item"),
    [
        ({"tags": {"id": "a"}, "data": {"id": "b"}}, "a"),
        ({"data": {"id": 7}}, "7"),
        ({"tags": {"path": "/items/9"}}, "9"),
        ({"data": {"url": "https://a.example/items/10?x"}}, "10"),
        ({"tags": {"url": "/items/11"}}, "11"),
        ({"tags": {"url": "http://["}}, None),
        ({"tags": {"id": "x" * 2000, "path": "/other"}}, None),
        ({"tags": {"id": True}}, None),
        ({}, None),
    ],
)
def test_finds_the_item_in_tags_or_data(sent: dict[str, Any], item: str | None) -> None:
    config = IngestConfig(compile_item_pattern("^/items/(?P<id>[^/]+)"))
    assert document_of(TRACK, request({"type": "view", **sent}, config=config)).get("id") == item


def test_a_download_has_its_format() -> None:
    assert document_of(TRACK, request({"type": "download", "tags": "id:a,format:KML"}))["format"] == "kml"
    assert (
        document_of(TRACK, request({"type": "download", "data": {"url": "https://a.example/b.csv"}}))["format"] == "csv"
    )
    assert "format" not in document_of(TRACK, request({"type": "view", "tags": "format:kml"}))


@pytest.mark.parametrize("more", [{}, {"tags": "a"}, {"data": {"ip": "203.0.113.77", "was": ["203.0.113.9"]}}])
def test_anonymizes_the_ip_address(more: dict[str, Any]) -> None:
    sent = {"type": "a", "data": {"ip": "203.0.113.77"}, **more}
    sent["data"] = {**sent["data"], "ip": "203.0.113.77"}
    doc = document_of(TRACK, request(sent))
    assert not {b"203.0.113.77", b"203.0.113.9"} & set(re.findall(rb"[\d.]+", orjson.dumps(doc)))
    assert restore_document(orjson.dumps(doc))["data"].items() >= {"ip": "203.0.113.0"}.items()
    full = document_of(TRACK, request(sent), anonymize=False)
    assert restore_document(orjson.dumps(full))["data"]["ip"] == "203.0.113.77"


def test_does_not_move_text_that_is_not_an_ip_address() -> None:
    doc = document_of(TRACK, request({"type": "a", "data": {"ip": "the office"}}))
    assert "clientip" not in doc
    assert restore_document(orjson.dumps(doc))["data"] == {"ip": "the office"}


def test_stores_tags_and_their_names_as_fields() -> None:
    doc = document_of(TRACK, request({"type": "a", "tags": {"n": 5, "b": True, "o": {"x": [1]}}, "fields": "f:1"}))
    params = {"tags.n": "5", "tags.b": "true", "tags.o": '{"x":[1]}', "fields.f": "1", "tag.keys.0": '["b","n","o"]'}
    assert doc["params"] == params
    assert doc["protocol"] == "micrometrics"


@given(st.lists(st.text(max_size=TAG_NAME_MAX_CHARACTERS), max_size=TAGS_MAX, unique=True))
@example([f"{at:0200}" for at in range(TAGS_MAX)])
@example(['"' * 199 + str(at) for at in range(10)])
def test_stores_all_tag_names(names: list[str]) -> None:
    document = parse_payload({"type": "a", "tags": dict.fromkeys(names, 1)}, RECEIVED_AT, "x")
    params = orjson.loads(build_document(build_event(document, compile_item_pattern(None)), CONTEXT, "x")).get(
        "params", {}
    )
    stored_names: list[str] = []
    for part in count():
        text = params.get(tag_keys_field(part))
        if text is None:
            break
        stored_names += orjson.loads(text)
    assert stored_names == sorted(names)


@given(OBJECT, OBJECT, OBJECT, JSON, st.text(max_size=20), st.booleans())
def test_restores_the_document_of_any_event(
    tags: dict[str, Any],
    fields: dict[str, Any],
    data: dict[str, Any],
    value: Any,
    user: str,
    anonymize: bool,  # noqa: FBT001  # a parameter
) -> None:
    data.pop("ip", None)
    tags.pop("ip", None)
    sent = {"type": "a", "tags": tags, "fields": fields, "data": data, "value": value, "userId": user}
    tracked = orjson.loads(orjson.dumps(parse_payload(orjson.loads(orjson.dumps(sent)), RECEIVED_AT, "x")))
    context = DocumentContext(RECEIVED_AT, None, CONTEXT.max_timestamp, IngestConfig(anonymize_addresses=anonymize))
    assert restore_document(build_document(build_event(tracked, compile_item_pattern(None)), context, "y")) == tracked


@pytest.mark.parametrize("original", [None, "no JSON", "[1]", 5])
def test_restores_an_event_of_another_protocol_with_the_marker(original: object) -> None:
    doc = {
        "@timestamp": RECEIVED_AT,
        "event_id": "x",
        "event": "a",
        "protocol": "micrometrics",
        "event.original": original,
    }
    document = restore_document(orjson.dumps(doc))
    assert (document["type"], document["value"], document["tags"]) == ("a", None, {})


@given(
    st.binary(max_size=60) | JSON.map(orjson.dumps) | OBJECT.map(lambda fields: orjson.dumps({"type": "a", **fields}))
)
def test_any_body_is_parsed_or_rejected(body: bytes) -> None:
    protocols: tuple[tuple[Protocol, str], ...] = ((TRACK, ""), (TRACK, FORM), (BATCH, ""))
    for protocol, content_type in protocols:
        try:
            for event in protocol.parse(request(body, content_type)).events:
                if isinstance(event, Event):
                    build_document(event, CONTEXT, "x")
        except (Malformed, PayloadTooLarge):
            pass


@given(
    st.dictionaries(st.sampled_from(ALLOWED_FIELDS), JSON, min_size=1).map(lambda fields: {"type": "a", **fields}),
    st.text(st.characters(codec="latin-1"), max_size=30),
    st.text(max_size=30),
)
def test_any_event_and_any_pixel_is_parsed_or_rejected(sent: dict[str, Any], header: str, query: str) -> None:
    pixel = request(method="GET", query=f"type=a&{query}", headers={"User-Agent": header, "Referer": header})
    requests: tuple[tuple[Protocol, Request], ...] = ((TRACK, request(orjson.dumps(sent))), (PIXEL, pixel))
    for protocol, tracked in requests:
        try:
            (event,) = protocol.parse(tracked).events
            assert isinstance(event, Event)
            build_document(event, CONTEXT, "x")
        except (Malformed, PayloadTooLarge):
            pass


def test_replaces_lone_surrogates() -> None:
    pixel = request(query="type=a&tags=\udcff:x", headers={"User-Agent": "\udcff", "Referer": "\udcff"})
    document = restore_document(orjson.dumps(document_of(PIXEL, pixel)))
    assert (document["tags"], document["data"]["userAgent"]) == ({"%FF": "x"}, "?")
