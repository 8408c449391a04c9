"""The native protocol: what a body holds, and what is answered."""

import json
import time
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import DocumentContext, Event, build_document
from metronome.protocol import IngestResult, ParsedRequest, Request
from metronome.protocols.native import tick

FORM = "application/x-www-form-urlencoded"
NDJSON = "application/x-ndjson"
DOOR = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
TYPES = ("", "application/json", "text/plain", "image/png", "application/octet-stream")


REQUEST = Request(b"", "", 10)


def read(body: bytes | str, content_type: str = "", max_events: int = 100) -> ParsedRequest:
    return tick.parse(Request(body.encode() if isinstance(body, str) else body, content_type, max_events))


def fields(body: bytes | str, content_type: str = "", max_events: int = 100) -> list[Any]:
    """Return the fields of each event, or the kind of error in its place."""
    readings = read(body, content_type, max_events)
    return [dict(event.fields) if isinstance(event, Event) else type(event) for event in readings.events]


def original(body: bytes | str, content_type: str = "", at: int = 0) -> str | None:
    event = list(read(body, content_type).events)[at]
    assert isinstance(event, Event)
    found = orjson.loads(build_document(event, DOOR, "spare")).get("event.original")
    assert found is None or isinstance(found, str)
    return found


def refusal(body: bytes | str, content_type: str = "", max_events: int = 100) -> str:
    with pytest.raises((Malformed, PayloadTooLarge)) as caught:
        read(body, content_type, max_events)
    return str(caught.value)


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("body", ['{"id":"a","n":1}', ' {\n  "id": "a",\n  "n": 1\n}\r\n', '{ "id" : "a" , "n" : 1 }'])
def test_an_object_is_one_event_whatever_it_calls_itself(body: str, content_type: str) -> None:
    readings = read(body, content_type)
    assert fields(body, content_type) == [{"id": "a", "n": 1}]
    assert not readings.is_batch


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("[]", []),
        (" [ ] ", []),
        ('[{"id":"a"}]', [{"id": "a"}]),
        ('[{"id":"a"},{"id":"b"}]', [{"id": "a"}, {"id": "b"}]),
        ('[\n {"id" : "a"} ,\n {}\n]', [{"id": "a"}, {}]),
        ('[{"a":{"b":{"c":1}}},{"x":"\\":"}]', [{"a": {"b": {"c": 1}}}, {"x": '":'}]),
        ('[1,"x",null,[],{"id":"a"}]', [Malformed] * 4 + [{"id": "a"}]),
        ('[{"id":"a"},{"n":NaN},{"n":-Infinity},{"id":"b"}]', [{"id": "a"}, Malformed, Malformed, {"id": "b"}]),
        ('[{"s":"\\ud800"},{"id":"b"}]', [Malformed, {"id": "b"}]),
        ('[{"s":"a\tb"},{"id":"b"}]', [Malformed, {"id": "b"}]),
        ('[{"n":1e999},{"id":"b"}]', [Malformed, {"id": "b"}]),
        ('[{"n":' + "9" * 10_000 + '},{"id":"b"}]', [Malformed, {"id": "b"}]),
        ('[{"id":"a"},]', [{"id": "a"}]),
    ],
)
@pytest.mark.parametrize("content_type", TYPES)
def test_an_array_is_a_batch_in_which_nothing_broken_fails_its_neighbours(
    body: str, found: list[Any], content_type: str
) -> None:
    assert fields(body, content_type) == found
    assert read(body, content_type).is_batch


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('{"id":"a"}\n{"id":"b"}', [{"id": "a"}, {"id": "b"}]),
        ('\n\n{"id":"a"}\r\n \t\n{"id":"b"}\n\n', [{"id": "a"}, {"id": "b"}]),
        ('{"id":"a"}\n{"id":\n{"id":"b"}', [{"id": "a"}, Malformed, {"id": "b"}]),
        ('{"n":NaN}\n{"id":"b"}', [Malformed, {"id": "b"}]),
        ('{"id":"a"}\n[1]\n7\n{"id":"b"}', [{"id": "a"}, Malformed, Malformed, {"id": "b"}]),
        ('{"q":1,"q":2}\n{"id" : "b"}', [{"q": 2, "[repeated]": ["q"]}, {"id": "b"}]),
    ],
)
@pytest.mark.parametrize("content_type", [*TYPES, NDJSON, "application/jsonl"])
def test_lines_are_a_batch_by_their_look(body: str, found: list[Any], content_type: str) -> None:
    assert fields(body, content_type) == found
    assert read(body, content_type).is_batch


@pytest.mark.parametrize(
    ("body", "found"),
    [("", []), ("\n \n", []), ('{"id":"a"}', [{"id": "a"}]), ("x", [Malformed]), ('{"id":\n"a"}', [Malformed] * 2)],
)
@pytest.mark.parametrize("content_type", sorted(tick.NDJSON_CONTENT_TYPES))
def test_what_calls_itself_lines_is_a_batch(body: str, found: list[Any], content_type: str) -> None:
    assert fields(body, content_type) == found
    assert read(body, content_type).is_batch


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("id=a&event=view", {"id": "a", "event": "view"}),
        ("id=a%2Fb+c%26d&n=1&empty=&bare", {"id": "a/b c&d", "n": "1", "empty": "", "bare": ""}),
        ("id=%C3%A9&x=\u00e9", {"id": "é", "x": "é"}),
        ("id=%FF", {"id": "\ufffd"}),
        ("a=1&id=x&a=2", {"a": "2", "id": "x", "[repeated]": ["a"]}),
        ('{"id":"a"}', {"id": "a"}),
        (' {"id":"a"}', {"id": "a"}),
        ('%7B"id":"a"}=', {'{"id":"a"}': ""}),
    ],
)
def test_a_form_is_one_event(body: str, found: dict[str, Any]) -> None:
    assert fields(body, FORM) == [found]
    assert not read(body, FORM).is_batch


@pytest.mark.parametrize(("body", "kind"), [("", Malformed), ("&&", Malformed), ("a=1&" * 1001, PayloadTooLarge)])
def test_a_form_without_fields_or_with_too_many_is_refused(body: str, kind: type[Exception]) -> None:
    assert fields(body, FORM) == [kind]


@pytest.mark.parametrize("number", ["1", "1.5", '"text"', "true", "null"])
def test_json_that_holds_no_event_is_refused(number: str) -> None:
    assert refusal(number).startswith("the body is JSON but holds no event")


@pytest.mark.parametrize(
    "body",
    [
        "",
        " \n",
        "{",
        '{"id":"a"',
        '{"id":"a"}x',
        '{"id":"a"}{"id":"b"}',
        '{"n":NaN}',
        '{"n":' + "9" * 10_000 + "}",
        '{"s":"\\ud800"}',
        "id=a",
        "[",
        '[{"id":"a"}',
        '[{"id":"a"}x',
        '[{"id":"a"} {"id":"b"}]',
        '[{"id":"a"},,{"id":"b"}]',
        '[{"id":"a"}]]',
        '[{"id":"a"}] x',
        '{\n  "id": "a",\n  "n": NaN\n}',
        '{\n  "id": "a",\n',
        "\ufeff" + '{"id":"a"}',
        b"\xff\xfe{\x00",
        b'{"id":"\xff"}',
        b'[{"id":"\xff"}]',
        b'[{"id":"a"},{"id":"\xed\xa0\x80"}]',
        b"\x00",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize("content_type", TYPES)
def test_what_cannot_be_read_at_all_is_refused(body: str | bytes, content_type: str) -> None:
    assert len(refusal(body, content_type)) < 250


def test_nesting_of_a_hundred_thousand_brackets_fails_alone_among_lines() -> None:
    deep = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    assert fields(f'{{"id":"a"}}\n{deep}\n{{"id":"b"}}') == [{"id": "a"}, Malformed, {"id": "b"}]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("[{},{},{}]", ""),
        ('[{ "a" : 1 },{},{}]', ""),
        ('[{},{"n":NaN},{}]', ""),
        ("{}\n{}\n{}", ""),
        ("{}\n\n{}\n{}", NDJSON),
    ],
)
def test_more_events_than_a_request_may_hold_are_refused_together(body: str, content_type: str) -> None:
    assert "raise batch_max_events" in refusal(body, content_type, 2)
    assert len(list(read(body, content_type, 3).events)) == 3


def test_blank_lines_are_no_events() -> None:
    assert fields("\n" * 1000 + '{"id":"a"}\n{"id":"b"}', NDJSON, 2) == [{"id": "a"}, {"id": "b"}]


@pytest.mark.parametrize("body", ['{"q":1,"id":"a","q":2}', '{ "q" : 1, "id" : "a", "q" : 2 }'])
def test_fields_of_the_same_name_are_all_kept(body: str) -> None:
    assert fields(body) == [{"q": 2, "id": "a", "[repeated]": ["q"]}]
    assert original(body) == body
    assert original(f"[{body}]") == body
    assert original(f'[{{"id":"b"}}, {body} ]', at=1) == body
    assert original(f"{body}\n{{}}") == body
    assert original("q=1&id=a&q=2", FORM) == "q=1&id=a&q=2"
    assert original('{"id":"a","inner":{"q":1,"q":2}}') == '{"id":"a","inner":{"q":1,"q":2}}'


@pytest.mark.parametrize(
    "number", ["123456789012345678901234567890", "-98765432109876543210.0", "1.5e300", "[98765432109876543210]"]
)
def test_long_numbers_are_kept_to_the_last_digit(number: str) -> None:
    body = f'{{"id":"a","n":{number}}}'
    assert original(body) == body
    assert original(f"[{body}]") == body
    assert original(f'[{{"id":"b"}},{body},{{"n":{number},"id":"c"}}]', at=1) == body
    assert original(f"{body}\n{{}}") == body


def test_an_array_s_odd_events_keep_what_they_say() -> None:
    assert original('[{"id":"a"},{"a.b":1,"c":"é"}]', at=1) == '{"a.b":1,"c":"é"}'


@pytest.mark.parametrize("levels", [1, 300, 900])
def test_nested_events_are_kept_whole(levels: int) -> None:
    body = '{"a":' + "[" * levels + "]" * levels + "}"
    assert original(body) == original(f"[{body}]") == body


def test_a_single_event_is_answered_with_nothing_and_a_batch_with_what_became_of_each() -> None:
    done = tick.reply(REQUEST, read("{}"), IngestResult(1, {}))
    assert (done.status, done.body) == (204, b"")
    listed = tick.reply(
        REQUEST, read("[{},{},{}]"), IngestResult(1, {2: PayloadTooLarge("too large"), 0: Malformed("é")})
    )
    assert (listed.status, listed.content_type) == (200, "application/json")
    rejected = [{"index": 0, "error": "é"}, {"index": 2, "error": "too large"}]
    assert orjson.loads(listed.body) == {"accepted": 1, "rejected": rejected}
    empty = tick.reply(REQUEST, read("[]"), IngestResult(0, {}))
    assert (empty.status, empty.body) == (200, b'{"accepted":0,"rejected":[]}')


def test_a_single_event_that_was_rejected_is_answered_with_its_error() -> None:
    with pytest.raises(PayloadTooLarge, match="too large"):
        tick.reply(REQUEST, read("{}"), IngestResult(0, {0: PayloadTooLarge("too large")}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"k%d":1' % number for number in range(100_000)) + b',"k0":2}',
        b'{"a":"' + b'\\"' * 200_000 + b'"}',
        b"[" + b"{}," * 100_000,
        b"[" + b'{"a" :1},' * 50_000 + b"1]",
        b"\n" * 500_000,
        b"[" + b" " * 500_000,
        b"a=&" * 200_000,
        b'{"n":' + b"1" * 500_000 + b"}",
    ],
    ids=lambda body: repr(body[:16]),
)
@pytest.mark.parametrize("content_type", ["application/json", NDJSON, FORM])
def test_a_large_body_takes_no_longer_than_its_size_explains(body: bytes, content_type: str) -> None:
    began = time.process_time()
    with suppress(Malformed, PayloadTooLarge):
        tick.parse(Request(body, content_type, 10**6))
    assert time.process_time() - began < 2


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)
_bodies = st.one_of(
    st.binary(),
    st.text().map(lambda text: text.encode()),
    _json.map(lambda value: json.dumps(value).encode()),
    st.lists(_json.map(json.dumps), max_size=4).map(lambda lines: "\n".join(lines).encode()),
    st.lists(st.sampled_from([b"{", b"}", b"[", b"]", b'"a"', b":", b",", b"1", b"\n", b" ", b"NaN", b"\\"])).map(
        b"".join
    ),
)


@given(_bodies, st.sampled_from([*TYPES, NDJSON, FORM]), st.integers(1, 5))
def test_any_bytes_are_events_or_refused(body: bytes, content_type: str, max_events: int) -> None:
    try:
        readings = tick.parse(Request(body, content_type, max_events))
    except (Malformed, PayloadTooLarge) as error:
        orjson.dumps(str(error))
        return
    events = list(readings.events)
    assert len(events) <= max_events
    for reading in events:
        if isinstance(reading, Event):
            assert type(reading.fields) is dict
        else:
            assert isinstance(reading, Malformed | PayloadTooLarge)
            orjson.dumps(str(reading))


@given(st.lists(st.dictionaries(st.text(), _json, max_size=4), max_size=4))
def test_arrays_and_lines_hold_the_same_events(events: list[dict[str, Any]]) -> None:
    lines = [json.dumps(event) for event in events]
    array = read(f"[{','.join(lines)}]")
    told = read("\n".join(lines), NDJSON)
    assert fields(f"[{','.join(lines)}]") == fields("\n".join(lines), NDJSON)
    assert array.is_batch
    assert told.is_batch


PAGE = {"Origin": "https://example.org", "User-Agent": "Mozilla/5.0 é"}
SENDER = "203.0.113.77"
TOLD = {"agent": "Mozilla/5.0 é", "clientip": SENDER}


def sent_by_a_page(body: str, content_type: str = "", headers: dict[str, str] | None = None) -> list[Event]:
    asked = Request(body.encode(), content_type, 100, headers=PAGE if headers is None else headers, client_ip=SENDER)
    found = list(tick.parse(asked).events)
    return [event for event in found if isinstance(event, Event)]


@pytest.mark.parametrize(
    ("body", "content_type", "count"),
    [
        ('{"id":"a"}', "", 1),
        ("{}", "text/plain", 1),
        ('[{"id":"a"},7,{"id":"a"}]', "", 2),
        ('{"id":"a"}\n{"id":"a"}\nrubbish\n', NDJSON, 2),
        ("id=a&event=view", FORM, 1),
        ('[{"id":"a"},{"n":NaN}]', "", 1),
    ],
)
def test_a_page_in_a_browser_speaks_for_who_looks_at_it(body: str, content_type: str, count: int) -> None:
    found = sent_by_a_page(body, content_type)
    assert len(found) == count
    assert all(event.fields.items() >= TOLD.items() for event in found)
    assert all(event.fields.keys().isdisjoint(TOLD) for event in sent_by_a_page(body, content_type, {}))


@pytest.mark.parametrize("name", ["agent", "user_agent", "ua", "clientip"])
def test_an_event_that_speaks_of_somebody_else_is_left_alone(name: str) -> None:
    assert [dict(event.fields) for event in sent_by_a_page(f'[{{"{name}":"x"}},{{"{name}":""}}]')] == [
        {name: "x"},
        {name: "", **TOLD},
    ]


def test_a_page_that_tells_nothing_adds_nothing() -> None:
    asked = Request(b'{"id":"a"}', "", 10, headers={"Origin": "null"})
    assert [dict(event.fields) for event in tick.parse(asked).events if isinstance(event, Event)] == [{"id": "a"}]


@pytest.mark.parametrize(
    ("body", "content_type", "at"),
    [
        ('{"n":123456789012345678901234567890,"id":"a"} ', "", 0),
        ('[{"id":"b"},{"id":"a","n":123456789012345678901234567890}]', "", 1),
        ('{"id":"b"}\n{"n":123456789012345678901234567890,"id":"a"}\r\n', NDJSON, 1),
    ],
)
def test_what_a_page_sent_is_kept_to_the_last_digit_and_no_address_whole(body: str, content_type: str, at: int) -> None:
    line = build_document(sent_by_a_page(body, content_type)[at], DOOR, "spare")
    kept = orjson.loads(line)["event.original"]
    assert json.loads(kept, parse_int=str) == {
        "n": "123456789012345678901234567890",
        "id": "a",
        "agent": "Mozilla/5.0 é",
        "clientip": "203.0.113.0",
    }
    assert SENDER.encode() not in line


@pytest.mark.parametrize(
    ("body", "content_type"), [('{"a.b":"1","a.b":"1"}', ""), ("a.b=1&c=é", FORM), ('{"a.b":"203.0.113.77"}', "")]
)
def test_odd_events_of_pages_keep_what_they_said(body: str, content_type: str) -> None:
    (event,) = sent_by_a_page(body, content_type)
    found = orjson.loads(build_document(event, DOOR, "spare"))
    assert orjson.loads(found["event.original"]).items() >= {**event.fields, "clientip": "203.0.113.0"}.items()


def test_a_header_that_is_no_text_does_no_harm() -> None:
    (event,) = sent_by_a_page('{"a.b":1}', headers={"Origin": "x", "User-Agent": "M\udcff"})
    assert event.fields["agent"] == "M?"
    assert orjson.loads(build_document(event, DOOR, "spare"))["agent"] == "M?"
