"""micro-metrics: what senders write, the event that it becomes, and the document that comes back of it."""

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
from metronome.protocols.micro_metrics import batch, pixel, track
from metronome.protocols.micro_metrics.dates import parse_javascript_date
from metronome.protocols.micro_metrics.documents import build_event, parse_pairs, restore_document, tag_keys_field
from metronome.protocols.micro_metrics.payloads import ALLOWED_FIELDS, TAG_NAME_MAX_CHARACTERS, TAGS_MAX, parse_payload
from metronome.web.gif import TRANSPARENT_GIF

ARRIVAL = "2017-04-26T18:00:00.000Z"
DOOR = DocumentContext(received_at=ARRIVAL, min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z")
FORM = "application/x-www-form-urlencoded"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(st.text(max_size=12), JSON, max_size=5)


def request(body: bytes | Any = b"", content_type: str = "application/json", **more: Any) -> Request:
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    names = map("id-{}".format, count())
    return Request(
        text, content_type, 10, **{"arrival": ARRIVAL, "identities": names, "sender": "203.0.113.77", **more}
    )


def accepted(dialect: Protocol, asked: Request) -> tuple[ParsedRequest, Reply]:
    """Return what was read, and the reply if all of it is taken."""
    readings = dialect.parse(asked)
    events = list(readings.events)
    rejected = {at: one for at, one in enumerate(events) if not isinstance(one, Event)}
    again = readings._replace(events=events)
    return again, dialect.reply(asked, again, IngestResult(len(events) - len(rejected), rejected))


def stored(dialect: Protocol, asked: Request, *, cut: bool = True) -> dict[str, Any]:
    """Return the Logstash document of the only event of a request."""
    (event,) = dialect.parse(asked).events
    assert isinstance(event, Event)
    door = DocumentContext(ARRIVAL, None, DOOR.max_timestamp, IngestConfig(anonymize_addresses=cut))
    found: dict[str, Any] = orjson.loads(build_document(event, door, "spare"))
    return found


@pytest.mark.parametrize(
    ("text", "found"),
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
        # RFC 2822, and what Date writes itself.
        ("Mon, 25 Dec 1995 13:30:00 GMT", "1995-12-25T13:30:00.000"),
        ("Mon, 25 Dec 1995 13:30:00 +0430", "1995-12-25T09:00:00.000"),
        ("Wed Apr 26 2017 12:17:25 GMT+0200 (Central European Summer Time)", "2017-04-26T10:17:25.000"),
        ("Tue Apr 25 12:00:00 PDT 2017", "2017-04-25T19:00:00.000"),
        # What people write.
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
def test_a_time_is_read_as_javascript_reads_it(text: object, found: str) -> None:
    assert parse_javascript_date(text).isoformat(timespec="milliseconds") == f"{found}+00:00"


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "yesterday", "T", "2017-13-01", "2017-02-30", "2017-04-26T25:00", "2017-04-26T24:00:01Z"),
        *("12/25/1995 13:30 PM", "Foo 25 1995", "Dec 25", "25 1995", "1 2 3 4", "20170426", "2017-04-26T12:60Z"),
        *("-000001-01-01T00:00:00Z", "+012017-01-01", "0001-01-01T00:00:00+23:59", "1" * 16, "9" * 200, "25 ÿ 1995"),
        *(True, None, [2017], {}, float("inf"), float("nan"), 10**30, "12:00 XYZ 25 Dec 1995", "²/2/1995"),
    ],
)
def test_what_is_no_time_is_said_not_to_be(value: object) -> None:
    with pytest.raises(Malformed, match="is no time: write"):
        parse_javascript_date(value)


@given(st.text() | st.from_regex(r"[A-Za-z]{3},? \d{1,4} [A-Z][a-z]{2} \d{2,5} \d\d?:\d\d(:\d\d)?( [A-Z+-]{1,4}\d*)?"))
def test_whatever_text_comes_is_a_time_or_said_to_be_none(text: str) -> None:
    with suppress(Malformed):
        assert parse_javascript_date(text).tzinfo is UTC


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001  # made aware below
def test_every_time_that_is_written_as_iso_comes_back(moment: datetime) -> None:
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
def test_a_list_of_names_and_values_is_read(text: str, pairs: dict[str, str | bool]) -> None:
    assert parse_pairs(text) == pairs


def test_an_event_is_answered_with_the_document_that_is_stored_of_it() -> None:
    sent = {
        "type": "sale",
        "tags": {"currency": "CHF", "n": 5},
        "data": "counter only",
        "value": 4.5,
        "userID": "rosa",
        "sessionId": 7,
        "createdOn": "Wed, 26 Apr 2017 12:17:25 GMT",
    }
    _, reply = accepted(track, request(sent, "text/plain"))
    assert (reply.status, reply.content_type) == (200, "application/json")
    assert reply.body == (
        b'{"type":"sale","tags":{"currency":"CHF","n":5},"fields":{},"data":{"counter only":true},"value":4.5,'
        b'"userId":"rosa","sessionId":"7","createdOn":"2017-04-26T12:17:25.000Z","tagKeys":["currency","n"],"_id":"id-0"}'
    )


def test_only_the_type_is_required() -> None:
    _, reply = accepted(track, request({"type": "sale"}))
    assert orjson.loads(reply.body) == {
        "type": "sale",
        "tags": {},
        "fields": {},
        "data": {},
        "value": 1,
        "createdOn": ARRIVAL,
        "tagKeys": [],
        "_id": "id-0",
    }


@pytest.mark.parametrize(
    ("sent", "name", "found"),
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
        ({"createdOn": ""}, "createdOn", ARRIVAL),
        ({"tags": None}, "tags", {}),
        ({"tags": "a:b=1,c"}, "tags", {"a": "b=1", "c": True}),
        ({"fields": {"a": [1, {"b": None}]}}, "fields", {"a": [1, {"b": None}]}),
    ],
)
def test_what_may_be_left_out_or_written_in_several_ways_is_read(
    sent: dict[str, Any], name: str, found: object
) -> None:
    _, reply = accepted(track, request({"type": "sale", **sent}))
    assert orjson.loads(reply.body).get(name, "missing") == found


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "is no JSON"),
        (b"type=sale", "is no JSON"),
        (b"[]", "an event is a JSON object"),
        ({}, '"type" is required'),
        ({"type": ""}, '"type" is required'),
        ({"type": 5}, '"type" must be a string'),
        ({"type": "sale", "tag": 1}, '"tag" is not allowed'),
        ({"type": "sale", "a": 1, "b": 1, "c": 1, "d": 1}, '"a", "b", "c" and 1 more is not allowed'),
        ({"type": "sale", "tags": 5}, '"tags" must be an object'),
        ({"type": "sale", "data": ["a"]}, '"data" must be an object'),
        ({"type": "sale", "userId": {}}, '"userId" must be a string'),
        ({"type": "sale", "sessionId": True}, '"sessionId" must be a string'),
        ({"type": "sale", "createdOn": "soon"}, "'soon' is no time"),
        ({"type": "sale", "tags": dict.fromkeys(map(str, range(TAGS_MAX + 1)), 1)}, "over 200 names"),
        ({"type": "sale", "tags": {"x" * (TAG_NAME_MAX_CHARACTERS + 1): 1}}, "over 200 characters"),
        (b'{"type":"sale","data":{"a":' + b"[" * 300 + b"]" * 300 + b"}}", "cannot be kept as it is"),
    ],
)
def test_an_event_that_cannot_be_is_refused_with_the_reason(body: Any, sentence: str) -> None:
    with pytest.raises(Malformed) as caught:
        track.parse(request(body))
    assert sentence in str(caught.value)


def test_a_form_is_an_event_too() -> None:
    _, reply = accepted(track, request(b"type=sale&tags=a%3A1&value=2.5&key=secret", FORM))
    found = orjson.loads(reply.body)
    assert (found["type"], found["tags"], found["value"]) == ("sale", {"a": "1"}, 2.5)


def test_a_form_of_thousands_of_fields_is_not_read() -> None:
    with pytest.raises(PayloadTooLarge, match="over 1000 parameters"):
        track.parse(request(b"a=1&" * 2000, FORM))


def test_an_event_that_is_refused_at_the_door_is_the_requests_error() -> None:
    asked = request({"type": "sale"})
    with pytest.raises(Malformed, match="too old"):
        track.reply(asked, track.parse(asked), IngestResult(0, {0: Malformed("too old")}))


def test_errors_have_the_protocols_own_shape() -> None:
    reply = track.reply_error(request(), Malformed('"type" is required'))
    assert reply.status == 400
    assert orjson.loads(reply.body) == {
        "statusCode": 400,
        "error": "Bad Request",
        "message": '"type" is required',
    }
    assert track.reply_error(request(), SpoolFull("full")).headers == {"Retry-After": "5"}
    assert "WWW-Authenticate" in batch.reply_error(request(), Unauthorized("this needs a key")).headers


@pytest.mark.parametrize("dialect", [track, batch, pixel])
@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({"Authorization": "Bearer a"}, "key=b", "a"),
        ({}, "type=x&key=b%20c", "b c"),
        ({}, "type=x", ""),
        ({"Authorization": "Basic a"}, "", ""),
    ],
)
def test_the_key_comes_as_a_bearer_or_in_the_address(
    dialect: Protocol, headers: dict[str, str], query: str, key: str
) -> None:
    assert dialect.extract_key(request(headers=headers, query=query)) == key


def test_a_batch_is_answered_with_each_document_and_with_errors_in_their_places() -> None:
    events = [{"type": "a"}, {"kind": "b"}, 5, {"type": "c", "tags": "x"}]
    readings, reply = accepted(batch, request({"events": events}))
    assert readings.is_batch
    found = orjson.loads(reply.body)
    assert [one.get("type") for one in found] == ["a", None, None, "c"]
    assert [one.get("_id") for one in found] == ["id-0", None, None, "id-3"]
    assert [one.get("error") for one in found] == [None, "Bad Request", "Bad Request", None]
    assert found[1]["message"].startswith('"kind" is not allowed: an event has type')
    assert set(found[2]) == {"statusCode", "error", "message"}


def test_what_the_door_refuses_of_a_batch_is_told_in_its_place() -> None:
    asked = request({"events": [{"type": "a"}, {"type": "b"}]})
    readings = batch.parse(asked)
    reply = batch.reply(asked, readings, IngestResult(1, {0: PayloadTooLarge("the event is over event_max_bytes")}))
    first, second = orjson.loads(reply.body)
    assert (first["statusCode"], second["type"]) == (413, "b")


def test_an_empty_batch_is_answered_with_an_empty_array() -> None:
    assert accepted(batch, request({"events": []}))[1].body == b"[]"


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
def test_a_batch_that_cannot_be_read_is_refused_as_a_whole(body: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        batch.parse(request(body))


def test_a_pixel_tells_who_asked_for_it_and_where() -> None:
    headers = {"User-Agent": "Firefox", "Referer": "https://a.example/items/7?x=1"}
    query = "type=pageview&tags=tag1,tag2=x&userId=99&value=2.5&data=ip:1.2.3.4,plan:b&key=secret"
    site = IngestConfig(compile_item_pattern("^/items/(?P<id>[^/]+)"))
    asked = request(method="GET", query=query, headers=headers, site=site)
    readings, reply = accepted(pixel, asked)
    assert (reply.status, reply.content_type, reply.body) == (200, "image/gif", TRANSPARENT_GIF)
    assert not readings.is_batch
    doc = stored(pixel, request(method="GET", query=query, headers=headers, site=site))
    assert restore_document(orjson.dumps(doc)) == {
        "type": "pageview",
        "tags": {"tag1": True, "tag2": "x"},
        "fields": {},
        "data": {"plan": "b", "userAgent": "Firefox", "referrer": headers["Referer"], "ip": "203.0.113.0"},
        "value": 2.5,
        "userId": "99",
        "createdOn": ARRIVAL,
        "tagKeys": ["tag1", "tag2"],
        "_id": "id-0",
    }
    known = {name: doc.get(name) for name in ("id", "event", "clientip", "agent", "url", "user", "referer")}
    assert known == {
        "id": "7",
        "event": "pageview",
        "clientip": "203.0.113.0",
        "agent": "Firefox",
        "url": headers["Referer"],
        "user": "99",
        "referer": None,
    }


def test_the_browser_librarys_pixel_is_an_event_of_its_page() -> None:
    doc = stored(pixel, request(query="type=browser.performance&value=1234&tags=isMobile:false,url:%2Fabout"))
    found = {name: doc.get(name) for name in ("event", "value", "id", "url")}
    assert found == {"event": "browser.performance", "value": 1234, "id": "/about", "url": "/about"}
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
def test_the_value_in_an_address_is_json_or_text(query: str, value: object) -> None:
    assert restore_document(orjson.dumps(stored(pixel, request(query=f"type=a{query}"))))["value"] == value


@pytest.mark.parametrize("query", ["", "tags=a", "type=a&more=1", "type=a&createdOn=soon", "&".join(["a=1"] * 2000)])
def test_a_pixel_that_cannot_be_is_a_picture_all_the_same(query: str) -> None:
    asked = request(method="GET", query=query)
    with pytest.raises((Malformed, PayloadTooLarge)) as caught:
        pixel.parse(asked)
    reply = pixel.reply_error(asked, caught.value)
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
def test_an_event_is_of_the_item_that_its_tags_or_data_name(sent: dict[str, Any], item: str | None) -> None:
    site = IngestConfig(compile_item_pattern("^/items/(?P<id>[^/]+)"))
    assert stored(track, request({"type": "view", **sent}, site=site)).get("id") == item


def test_a_download_has_its_format() -> None:
    assert stored(track, request({"type": "download", "tags": "id:a,format:KML"}))["format"] == "kml"
    assert stored(track, request({"type": "download", "data": {"url": "https://a.example/b.csv"}}))["format"] == "csv"
    assert "format" not in stored(track, request({"type": "view", "tags": "format:kml"}))


@pytest.mark.parametrize("more", [{}, {"tags": "a"}, {"data": {"ip": "203.0.113.77", "was": ["203.0.113.9"]}}])
def test_no_whole_address_is_kept_where_addresses_are_cut(more: dict[str, Any]) -> None:
    sent = {"type": "a", "data": {"ip": "203.0.113.77"}, **more}
    sent["data"] = {**sent["data"], "ip": "203.0.113.77"}
    doc = stored(track, request(sent))
    assert b"203.0.113.77" not in orjson.dumps(doc)
    assert restore_document(orjson.dumps(doc))["data"] == {**sent["data"], "ip": "203.0.113.0"}
    whole = stored(track, request(sent), cut=False)
    assert restore_document(orjson.dumps(whole))["data"]["ip"] == "203.0.113.77"


def test_what_is_no_address_stays_where_it_is() -> None:
    doc = stored(track, request({"type": "a", "data": {"ip": "the office"}}))
    assert "clientip" not in doc
    assert restore_document(orjson.dumps(doc))["data"] == {"ip": "the office"}


def test_tags_can_be_asked_for_by_their_names() -> None:
    doc = stored(track, request({"type": "a", "tags": {"n": 5, "b": True, "o": {"x": [1]}}, "fields": "f:1"}))
    params = {"tags.n": "5", "tags.b": "true", "tags.o": '{"x":[1]}', "fields.f": "1", "tag.keys.0": '["b","n","o"]'}
    assert doc["params"] == params
    assert doc["protocol"] == "micrometrics"


@given(st.lists(st.text(max_size=TAG_NAME_MAX_CHARACTERS), max_size=TAGS_MAX, unique=True))
@example([f"{at:0200}" for at in range(TAGS_MAX)])
@example(['"' * 199 + str(at) for at in range(10)])
def test_the_names_of_tags_are_listed_whole_however_many_there_are(names: list[str]) -> None:
    tracked = parse_payload({"type": "a", "tags": dict.fromkeys(names, 1)}, ARRIVAL, "x")
    params = orjson.loads(build_document(build_event(tracked, compile_item_pattern(None)), DOOR, "x")).get("params", {})
    found: list[str] = []
    for part in count():
        text = params.get(tag_keys_field(part))
        if text is None:
            break
        found += orjson.loads(text)
    assert found == sorted(names)


@given(OBJECT, OBJECT, OBJECT, JSON, st.text(max_size=20), st.booleans())
def test_whatever_was_tracked_comes_back_of_the_document(
    tags: dict[str, Any],
    fields: dict[str, Any],
    data: dict[str, Any],
    value: Any,
    user: str,
    cut: bool,  # noqa: FBT001
) -> None:
    data.pop("ip", None)
    tags.pop("ip", None)
    sent = {"type": "a", "tags": tags, "fields": fields, "data": data, "value": value, "userId": user}
    tracked = orjson.loads(orjson.dumps(parse_payload(orjson.loads(orjson.dumps(sent)), ARRIVAL, "x")))
    door = DocumentContext(ARRIVAL, None, DOOR.max_timestamp, IngestConfig(anonymize_addresses=cut))
    assert restore_document(build_document(build_event(tracked, compile_item_pattern(None)), door, "y")) == tracked


@pytest.mark.parametrize("original", [None, "no JSON", "[1]", 5])
def test_an_event_of_another_protocol_that_bears_the_mark_does_no_harm(original: object) -> None:
    doc = {"@timestamp": ARRIVAL, "event_id": "x", "event": "a", "protocol": "micrometrics", "event.original": original}
    found = restore_document(orjson.dumps(doc))
    assert (found["type"], found["value"], found["tags"]) == ("a", None, {})


@given(st.binary(max_size=60) | JSON.map(orjson.dumps) | OBJECT.map(lambda one: orjson.dumps({"type": "a", **one})))
def test_whatever_body_comes_only_malformed_and_too_large_leave(body: bytes) -> None:
    for dialect, content_type in ((track, ""), (track, FORM), (batch, "")):
        try:
            for reading in dialect.read(request(body, content_type)).events:
                if isinstance(reading, Event):
                    build_document(reading, DOOR, "x")
        except (Malformed, PayloadTooLarge):
            pass


@given(
    st.dictionaries(st.sampled_from(ALLOWED_FIELDS), JSON, min_size=1).map(lambda one: {"type": "a", **one}),
    st.text(st.characters(codec="latin-1"), max_size=30),
    st.text(max_size=30),
)
def test_whatever_an_event_or_a_pixel_holds_only_malformed_and_too_large_leave(
    sent: dict[str, Any], header: str, query: str
) -> None:
    asked = request(method="GET", query=f"type=a&{query}", headers={"User-Agent": header, "Referer": header})
    for dialect, one in ((track, request(orjson.dumps(sent))), (pixel, asked)):
        try:
            (event,) = dialect.read(one).events
            assert isinstance(event, Event)
            build_document(event, DOOR, "x")
        except (Malformed, PayloadTooLarge):
            pass


def test_what_has_no_bytes_in_an_address_or_a_header_is_shown_as_unreadable() -> None:
    asked = request(query="type=a&tags=\udcff:x", headers={"User-Agent": "\udcff", "Referer": "\udcff"})
    found = restore_document(orjson.dumps(stored(pixel, asked)))
    assert (found["tags"], found["data"]["userAgent"]) == ({"?": "x"}, "?")
