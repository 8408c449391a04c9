"""The native protocol: bodies and replies."""

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
CONTEXT = DocumentContext(
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
    found = orjson.loads(build_document(event, CONTEXT, "spare")).get("event.original")
    assert found is None or isinstance(found, str)
    return found


def rejection(body: bytes | str, content_type: str = "", max_events: int = 100) -> str:
    with pytest.raises((Malformed, PayloadTooLarge)) as caught:
        read(body, content_type, max_events)
    return str(caught.value)


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("body", ['{"id":"a","n":1}', ' {\n  "id": "a",\n  "n": 1\n}\r\n', '{ "id" : "a" , "n" : 1 }'])
def test_an_object_is_one_event_whatever_its_content_type(body: str, content_type: str) -> None:
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
def test_an_array_is_a_batch_whose_invalid_elements_do_not_affect_others(
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
def test_lines_are_recognized_without_their_content_type(body: str, found: list[Any], content_type: str) -> None:
    assert fields(body, content_type) == found
    assert read(body, content_type).is_batch


@pytest.mark.parametrize(
    ("body", "found"),
    [("", []), ("\n \n", []), ('{"id":"a"}', [{"id": "a"}]), ("x", [Malformed]), ('{"id":\n"a"}', [Malformed] * 2)],
)
@pytest.mark.parametrize("content_type", sorted(tick.NDJSON_CONTENT_TYPES))
def test_the_content_type_of_lines_makes_a_batch(body: str, found: list[Any], content_type: str) -> None:
    assert fields(body, content_type) == found
    assert read(body, content_type).is_batch


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("id=a&event=view", {"id": "a", "event": "view"}),
        ("id=a%2Fb+c%26d&n=1&empty=&bare", {"id": "a/b c&d", "n": "1", "empty": "", "bare": ""}),
        ("id=%C3%A9&x=\u00e9", {"id": "é", "x": "é"}),
        ("id=%ff", {"id": "%FF"}),
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
def test_rejects_a_form_without_fields_or_with_too_many(body: str, kind: type[Exception]) -> None:
    assert fields(body, FORM) == [kind]


@pytest.mark.parametrize("number", ["1", "1.5", '"text"', "true", "null"])
def test_rejects_json_without_an_event(number: str) -> None:
    assert rejection(number).startswith("expected a JSON object, an array")


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
def test_rejects_an_invalid_body(body: str | bytes, content_type: str) -> None:
    assert len(rejection(body, content_type)) < 250


def test_a_line_nested_too_deeply_does_not_affect_others() -> None:
    deep = '{"a":' + "[" * 40_000 + "]" * 40_000 + "}"
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
def test_rejects_a_request_with_too_many_events(body: str, content_type: str) -> None:
    assert "raise batch_max_events" in rejection(body, content_type, 2)
    assert len(list(read(body, content_type, 3).events)) == 3


def test_blank_lines_are_skipped() -> None:
    assert fields("\n" * 1000 + '{"id":"a"}\n{"id":"b"}', NDJSON, 2) == [{"id": "a"}, {"id": "b"}]


@pytest.mark.parametrize("body", ['{"q":1,"id":"a","q":2}', '{ "q" : 1, "id" : "a", "q" : 2 }'])
def test_duplicate_fields_are_kept_in_the_original(body: str) -> None:
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
def test_long_numbers_are_kept_in_the_original(number: str) -> None:
    body = f'{{"id":"a","n":{number}}}'
    assert original(body) == body
    assert original(f"[{body}]") == body
    assert original(f'[{{"id":"b"}},{body},{{"n":{number},"id":"c"}}]', at=1) == body
    assert original(f"{body}\n{{}}") == body


def test_elements_of_an_array_keep_their_original() -> None:
    assert original('[{"id":"a"},{"a.b":1,"c":"é"}]', at=1) == '{"a.b":1,"c":"é"}'


@pytest.mark.parametrize("levels", [1, 300, 900])
def test_nested_events_keep_their_original(levels: int) -> None:
    body = '{"a":' + "[" * levels + "]" * levels + "}"
    assert original(body) == original(f"[{body}]") == body


def test_replies_204_to_a_single_event_and_with_results_to_a_batch() -> None:
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


def test_a_rejected_single_event_is_answered_with_its_error() -> None:
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
def test_parsing_time_is_linear_in_the_size(body: bytes, content_type: str) -> None:
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
def test_any_body_is_parsed_or_rejected(body: bytes, content_type: str, max_events: int) -> None:
    try:
        parsed = tick.parse(Request(body, content_type, max_events))
    except (Malformed, PayloadTooLarge) as error:
        orjson.dumps(str(error))
        return
    events = list(parsed.events)
    assert len(events) <= max_events
    for event in events:
        if isinstance(event, Event):
            assert type(event.fields) is dict
        else:
            assert isinstance(event, Malformed | PayloadTooLarge)
            orjson.dumps(str(event))


@given(st.lists(st.dictionaries(st.text(), _json, max_size=4), max_size=4))
def test_arrays_and_lines_are_equivalent(events: list[dict[str, Any]]) -> None:
    lines = [json.dumps(event) for event in events]
    array = read(f"[{','.join(lines)}]")
    ndjson = read("\n".join(lines), NDJSON)
    assert fields(f"[{','.join(lines)}]") == fields("\n".join(lines), NDJSON)
    assert array.is_batch
    assert ndjson.is_batch


PAGE = {"Origin": "https://example.org", "User-Agent": "Mozilla/5.0 é"}
SENDER = "203.0.113.77"
BROWSER_FIELDS = {"agent": "Mozilla/5.0 é", "clientip": SENDER}


def events_of_page(body: str, content_type: str = "", headers: dict[str, str] | None = None) -> list[Event]:
    request = Request(body.encode(), content_type, 100, headers=PAGE if headers is None else headers, client_ip=SENDER)
    return [event for event in tick.parse(request).events if isinstance(event, Event)]


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
def test_events_of_a_page_get_the_fields_of_the_browser(body: str, content_type: str, count: int) -> None:
    found = events_of_page(body, content_type)
    assert len(found) == count
    assert all(event.fields.items() >= BROWSER_FIELDS.items() for event in found)
    assert all(event.fields.keys().isdisjoint(BROWSER_FIELDS) for event in events_of_page(body, content_type, {}))


@pytest.mark.parametrize("name", ["agent", "user_agent", "ua", "clientip"])
def test_an_event_that_describes_another_client_is_unchanged(name: str) -> None:
    assert [dict(event.fields) for event in events_of_page(f'[{{"{name}":"x"}},{{"{name}":""}}]')] == [
        {name: "x"},
        {name: "", **BROWSER_FIELDS},
    ]


def test_a_request_without_browser_fields_adds_none() -> None:
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
def test_the_original_of_a_page_has_every_digit_and_no_whole_address(body: str, content_type: str, at: int) -> None:
    line = build_document(events_of_page(body, content_type)[at], CONTEXT, "spare")
    kept = orjson.loads(line)["event.original"]
    assert json.loads(kept, parse_int=str) == {
        "n": "123456789012345678901234567890",
        "id": "a",
        "agent": "Mozilla/5.0 é",
        "clientip": "203.0.113.0",
    }
    assert SENDER.encode() not in line


@pytest.mark.parametrize(
    ("body", "content_type"), [('{"a.b":"1","a.b":"1"}', ""), ("a.b=1&c=é", FORM), ('{"a.b":"203.0.113.0"}', "")]
)
def test_unusual_events_of_pages_keep_their_original(body: str, content_type: str) -> None:
    (event,) = events_of_page(body, content_type)
    found = orjson.loads(build_document(event, CONTEXT, "spare"))
    assert orjson.loads(found["event.original"]).items() >= {**event.fields, "clientip": "203.0.113.0"}.items()


def test_a_header_with_invalid_bytes_is_accepted() -> None:
    (event,) = events_of_page('{"a.b":1}', headers={"Origin": "x", "User-Agent": "M\udcff"})
    assert event.fields["agent"] == "M?"
    assert orjson.loads(build_document(event, CONTEXT, "spare"))["agent"] == "M?"


def test_parses_the_elements_of_an_array_only_as_they_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed_texts: list[bytes] = []

    def parse_element(text: bytes) -> Event:
        parsed_texts.append(text)
        return Event(orjson.loads(text))

    monkeypatch.setattr(tick, "_parse_element", parse_element)
    body = b'[{"id":"a","inner":{"b":1}},{"id":"b"}]'
    events = iter(tick.parse(Request(body, "application/json", 10)).events)
    assert parsed_texts == []
    next(events)
    assert len(parsed_texts) == 1


@pytest.mark.parametrize("body", ['{"id":"a","event_id":%s}', '[{"id":"a","event_id":%s},{"id":"b"}]'])
@pytest.mark.parametrize("text", ["98765432109876543210987", "98765432109876543210988", "1.0"])
def test_an_event_id_keeps_all_digits_of_a_number(body: str, text: str) -> None:
    event, *_ = read(body % text).events
    assert isinstance(event, Event)
    assert orjson.loads(build_document(event, CONTEXT, "generated"))["event_id"] == text


@pytest.mark.parametrize(
    ("body", "charset", "title"),
    [
        (b"title=caf%E9", "iso-8859-1", "café"),
        (b"title=caf%C3%A9", "iso-8859-1", "café"),
        (b"title=%80", "latin1", "€"),
        (b"title=%CF%F0", '"Windows-1251"', "Пр"),
        (b"title=%93%FA", "shift_jis", "日"),
        (b"title=caf%E9", "utf-8", "caf%E9"),
        (b"title=caf%E9", "zip", "caf%E9"),
        (b"title=caf%E9", "unknown", "caf%E9"),
        (b"title=caf\xe9", "", "caf%E9"),
    ],
)
def test_a_form_is_in_its_charset(body: bytes, charset: str, title: str) -> None:
    headers = {"Content-Type": f"{FORM}; charset={charset}" if charset else FORM}
    (event,) = tick.parse(Request(body, FORM, 10, headers=headers)).events
    assert isinstance(event, Event)
    assert event.fields == {"title": title}
