"""Events are converted to documents: known fields, and where all others go."""

import math
import re
from typing import Any

import orjson
import pytest

from metronome.errors import Malformed
from metronome.event import DOCUMENT_HEAD_PATTERN, REPEATED_FIELDS, DocumentContext, Event, IngestConfig, build_document

NOON = "2015-01-22T12:00:00.000Z"
CONTEXT = DocumentContext(
    received_at=NOON,
    min_timestamp="2015-01-15T12:00:00.000Z",
    max_timestamp="2015-01-23T12:00:00.000Z",
    config=IngestConfig(own_hosts=frozenset({"own.example"})),
)
OPEN = DocumentContext(
    received_at=NOON,
    min_timestamp=None,
    max_timestamp="9999-12-31T23:59:59.999Z",
    config=IngestConfig(anonymize_addresses=False),
)
HEAD = {"@timestamp": NOON, "event_id": "spare", "@version": "1"}


def made(fields: dict[str, Any], door: DocumentContext = CONTEXT, original: bytes | None = None) -> dict[str, Any]:
    """Return the document of an event, after checking that it is a line with the usual head."""
    line = build_document(Event(fields, original), door, "spare")
    assert re.match(DOCUMENT_HEAD_PATTERN, line)
    assert b"\n" not in line
    found: dict[str, Any] = orjson.loads(line)
    return found


def refusal(fields: dict[str, Any]) -> str:
    with pytest.raises(Malformed) as caught:
        build_document(Event(fields), CONTEXT, "spare")
    return str(caught.value)


def test_empty_event_is_a_view_at_the_time_of_receipt() -> None:
    assert made({}) == {**HEAD, "event": "view"}


def test_fields_keep_their_names_and_values() -> None:
    fields = {"id": "doc1", "event": "rated", "stars": 4, "half": 0.5, "user": "ann", "first": True, "note": None}
    assert made(fields) == {**HEAD, **fields}


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        ({}, "view"),
        ({"event": None}, "view"),
        ({"event": ""}, "view"),
        ({"format": "kml"}, "download"),
        ({"format": "kml", "event": None}, "download"),
        ({"format": "kml", "event": "preview"}, "preview"),
        ({"format": ""}, "view"),
        ({"format": None}, "view"),
        ({"event": "View"}, "View"),
        ({"event": 0}, "0"),
        ({"event": False}, "false"),
        ({"event": 2**64 - 1}, "18446744073709551615"),
        ({"event": {"x": 1}}, "unknown"),
        ({"event": ["a", "b"], "format": "kml"}, "unknown"),
    ],
)
def test_event_type_defaults_to_view_or_download(fields: dict[str, Any], event: str) -> None:
    assert made(fields)["event"] == event


@pytest.mark.parametrize(
    ("given", "form"),
    [("KML", "kml"), ("Tar.GZ", "tar.gz"), (7, "7"), ("ÉPS", "éps"), ("İ" * 341, "i\u0307" * 341)],
)
def test_format_is_converted_to_lower_case(given: object, form: str) -> None:
    assert made({"format": given})["format"] == form


@pytest.mark.parametrize(
    ("given", "item"),
    [
        ("a/b c?d#e", "a/b c?d#e"),
        (7, "7"),
        (0, "0"),
        (1.5, "1.5"),
        (-3, "-3"),
        (True, "true"),
        (False, "false"),
        (2**63 - 1, "9223372036854775807"),
        (2**63, "9223372036854775808"),
        (2**64 - 1, "18446744073709551615"),
        ("x" * 1024, "x" * 1024),
        ("é" * 512, "é" * 512),
        ("😀" * 256, "😀" * 256),
        (" ", " "),
    ],
)
def test_numeric_id_becomes_a_text(given: object, item: str) -> None:
    assert made({"id": given}) == {**HEAD, "id": item, "event": "view"}


@pytest.mark.parametrize("nothing", [None, ""])
@pytest.mark.parametrize("name", ["id", "event_id", "format", "referer", "bot"])
def test_empty_known_fields_are_dropped(name: str, nothing: object) -> None:
    assert made({name: nothing}) == {**HEAD, "event": "view"}


@pytest.mark.parametrize("name", ["id", "event", "format", "bot"])
@pytest.mark.parametrize("value", ["x" * 1025, "é" * 513, "😀" * 257, "x" * 2**20])
def test_rejects_names_over_1024_bytes(name: str, value: str) -> None:
    assert refusal({name: value}) == (
        f"{name} is over 1024 bytes: shorten it, or send its hash here and the whole text in another field"
    )


def test_rejects_a_format_that_exceeds_the_limit_in_lower_case() -> None:
    assert "format is over 1024 bytes" in refusal({"format": "İ" * 342})


@pytest.mark.parametrize(
    ("given", "identity"),
    [('a"b\\c\n\0é', 'a"b\\c\n\0é'), (5, "5"), (2**64 - 1, "18446744073709551615"), ("é" * 256, "é" * 256)],
)
def test_keeps_the_event_id_of_the_sender(given: object, identity: str) -> None:
    assert made({"event_id": given})["event_id"] == identity


def test_rejects_event_ids_over_512_bytes() -> None:
    assert refusal({"event_id": "x" * 513}).startswith("event_id is over 512 bytes")
    assert refusal({"event_id": "é" * 257}).startswith("event_id is over 512 bytes")


def test_empty_event_id_is_replaced() -> None:
    # The parser keeps 17 digits of a number with 30.
    assert made({"event_id": 1e29})["event_id"] == "spare"
    assert made({"event_id": {"a": 1}})["event_id"] == "spare"


@pytest.mark.parametrize("name", ["@timestamp", "timestamp", "ts", "time"])
@pytest.mark.parametrize("given", ["2015-01-22T09:30:00Z", 1421919000, 1421919000000, "1421919000"])
def test_timestamp_has_several_aliases(name: str, given: object) -> None:
    assert made({"a": 1, name: given}) == {**HEAD, "@timestamp": "2015-01-22T09:30:00.000Z", "a": 1, "event": "view"}


def test_first_timestamp_alias_takes_precedence() -> None:
    found = made({"time": "noon", "ts": 1421919000})
    assert (found["@timestamp"], found["time"]) == ("2015-01-22T09:30:00.000Z", "noon")


def test_null_timestamp_yields_to_the_next_alias() -> None:
    assert made({"@timestamp": None, "ts": 1421919000})["@timestamp"] == "2015-01-22T09:30:00.000Z"
    assert made({"@timestamp": None})["@timestamp"] == NOON


@pytest.mark.parametrize("other", [{"a": 1}, [1], 2**63, 1e30])
def test_second_timestamp_of_an_odd_type_goes_to_params(other: object) -> None:
    found = made({"ts": 1421919000, "time": other})
    assert "time" not in found
    assert orjson.loads(found["event.original"]) == {"ts": 1421919000, "time": other}


@pytest.mark.parametrize("given", ["yesterday", "", {"a": 1}, ["2015-01-22"], True, 10**22, 10**400, math.nan, -1])
def test_rejects_invalid_timestamps(given: object) -> None:
    assert "expected ISO 8601" in refusal({"time": given})


@pytest.mark.parametrize("given", ["2015-01-23T12:00:00.001Z", "9999-12-31", "2100-01-01", 1e12 * 4])
def test_rejects_timestamps_more_than_a_day_ahead(given: object) -> None:
    assert "more than a day ahead of the server's clock" in refusal({"ts": given})


def test_accepts_timestamps_up_to_a_day_ahead() -> None:
    assert made({"ts": "2015-01-23T12:00:00Z"})["@timestamp"] == "2015-01-23T12:00:00.000Z"


def test_rejects_events_older_than_the_minimum() -> None:
    said = refusal({"ts": "2015-01-15T11:59:59.999Z"})
    assert said.endswith("raise tick_max_age to accept older events, or send a key with the scope import")
    assert made({"ts": "2015-01-15T12:00:00Z"})["@timestamp"] == "2015-01-15T12:00:00.000Z"
    assert made({"ts": "1970"}, OPEN)["@timestamp"] == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize("name", ["referer", "referrer", "urlref"])
def test_referrer_is_normalized_and_its_url_kept(name: str) -> None:
    url = "https://www.Washingtonpost.com:443/articles/dc-news/?utm=1#top"
    assert made({name: url}) == {
        **HEAD,
        "event": "view",
        "referer": "washingtonpost.com/articles/dc-news",
        "referer_url": url,
    }


def test_normalized_referrer_is_stored_once() -> None:
    assert made({"referer": "arcgis.com"}) == {**HEAD, "event": "view", "referer": "arcgis.com"}


@pytest.mark.parametrize("url", ["https://www.own.example/a", "android-app://com.example/", "by word of mouth", "7"])
def test_own_or_invalid_referrer_is_kept_as_referer_url(url: str) -> None:
    assert made({"referer": url}) == {**HEAD, "event": "view", "referer_url": url}


def test_first_referrer_alias_takes_precedence() -> None:
    assert made({"referer": "", "referrer": None, "urlref": "a.example"})["referer"] == "a.example"
    found = made({"referer": "a.example", "urlref": "https://b.example/"})
    assert (found["referer"], found["urlref"]) == ("a.example", "https://b.example/")


def test_referer_url_of_the_sender_is_not_overwritten() -> None:
    found = made({"referer": "https://a.example/x/", "referer_url": "mine"})
    assert (found["referer"], found["referer_url"]) == ("a.example/x", "mine")
    assert found["params"] == {"referer_url": "https://a.example/x/"}


@pytest.mark.parametrize("bot", [False, 0, "0", "false", None, ""])
def test_false_bot_values_are_dropped(bot: object) -> None:
    assert "bot" not in made({"bot": bot})


@pytest.mark.parametrize(("bot", "name"), [(True, "true"), (1, "1"), ("Googlebot", "Googlebot")])
def test_bot_name_is_a_text(bot: object, name: str) -> None:
    assert made({"bot": bot})["bot"] == name


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("12", 12),
        ("-1.5", -1.5),
        ("1e3", 1000),
        ("9007199254740993", 9007199254740993),
        ("9223372036854775807", 9223372036854775807 if float("9223372036854775807") < 2**63 else "9223372036854775807"),
        ("nan", "nan"),
        ("-inf", "-inf"),
        ("1e400", "1e400"),
        ("9" * 5000, "9" * 5000),
        ("fast", "fast"),
        ("", ""),
        (3.5, 3.5),
    ],
)
@pytest.mark.parametrize("name", ["duration", "value"])
def test_numeric_texts_of_known_numbers_are_converted(name: str, given: object, number: object) -> None:
    found = made({name: given})[name]
    assert (found, type(found)) == (number, type(number))


def test_ip_addresses_are_anonymized_in_all_fields() -> None:
    assert made({"clientip": "203.0.113.77"})["clientip"] == "203.0.113.0"
    odd = b'{"clientip":"203.0.113.77","a.b":123456789012345678901234567890}'
    found = made(orjson.loads(odd), original=odd)
    assert found["event.original"] == '{"clientip":"203.0.113.0","a.b":123456789012345678901234567890}'
    escaped = rb'{"clientip":"203.0.113.7\u0037","a.b":1}'
    assert "203.0.113.0" in made(orjson.loads(escaped), original=escaped)["event.original"]
    assert b"113.77" not in build_document(Event({"clientip": "203.0.113.77", "a.b": 1}), CONTEXT, "spare")
    assert made({"clientip": "203.0.113.77", "a.b": 1}, OPEN)["event.original"] == '{"clientip":"203.0.113.77","a.b":1}'


WHOLE = "203.0.113.77"
LINE = f'{WHOLE} - - [22/Jan/2015:09:30:00 +0000] "GET /'


@pytest.mark.parametrize(
    ("fields", "original"),
    [
        ({"clientip": f"unknown, {WHOLE}"}, None),
        ({"clientip": f"for={WHOLE};by=10.0.0.1"}, None),
        ({"clientip": ", ".join([WHOLE, *["10.0.0.1"] * 20])}, None),
        ({"clientip": [WHOLE]}, None),
        ({"clientip": {"ip": WHOLE}}, None),
        ({"clientip": f"unknown, ::ffff:{WHOLE}"}, None),
        ({"clientip": None, REPEATED_FIELDS: ["clientip"]}, b'{"clientip":"203.0.113.77","clientip":null}'),
        ({"clientip": "", REPEATED_FIELDS: ["clientip"]}, b"clientip=203.0.113.77&clientip="),
        ({"clientip": "203.0.113.0", "http_x_forwarded_for": f"{WHOLE}, 10.0.0.1"}, None),
        ({"clientip": "203.0.113.0", "source.ip": WHOLE, "related.ip": [WHOLE]}, b'{"source":{"ip":"203.0.113.77"}}'),
        ({"event": "log", "message": LINE, "a.b": 1}, LINE.encode()),
        ({"event": "log", "message": f"www.example.org:443 {LINE}"}, None),
    ],
)
def test_ip_addresses_of_unusual_types_are_anonymized(fields: dict[str, Any], original: bytes | None) -> None:
    assert b"113.77" not in build_document(Event(fields, original), CONTEXT, "spare")
    kept = build_document(Event(fields, original), OPEN, "spare")
    assert b"113.77" in kept


def test_addresses_in_messages_are_anonymized() -> None:
    for message in ("192.0.2.77 is away", "no route to 192.0.2.77", "at 192.0.2.77 - - it [ends"):
        assert made({"event": "log", "message": message})["message"] == message.replace("77", "0")
        assert made({"event": "log", "message": message}, OPEN)["message"] == message


@pytest.mark.parametrize("given", ["999.1.1.1", {"a": 1}, "unknown", 7])
def test_invalid_clientip_goes_to_params(given: object) -> None:
    found = made({"clientip": given})
    assert "clientip" not in found
    assert orjson.loads(found["event.original"]) == {"clientip": given}


@pytest.mark.parametrize(
    ("name", "value", "param", "text"),
    [
        ("a.b", 1, "a.b", "1"),
        ("", "v", "_", "v"),
        (" ", "v", "_ ", "v"),
        ("_doc_count", 1000, "_doc_count", "1000"),
        ("_id", "x", "_id", "x"),
        ("@version", {"x": 1}, "@version", '{"x":1}'),
        ("params", {"x": 1}, "params", '{"x":1}'),
        ("event.original", "mine", "event.original", "mine"),
        ("9lives", True, "9lives", "true"),
        ("é", "v", "é", "v"),
        ("k\0z", "v\0w", "k\ufffdz", "v\ufffdw"),
        ("k" * 101, "v", "k" * 101, "v"),
        ("k" * 600, "v", "k" * 256, "v"),
        ("big", 2**63, "big", "9223372036854775808"),
        ("small", -(2**63), "small", "-9223372036854775808"),
        ("list", [1, "x", None], "list", '[1,"x",null]'),
        ("deep", {"a": {"b": "y" * 2000}}, "deep", '{"a":{"b":"' + "y" * 1013),
        ("session", {"a": 1}, "session", '{"a":1}'),
        ("id", {"x": 1}, "id", '{"x":1}'),
    ],
)
def test_odd_values_go_to_params_and_event_original(name: str, value: object, param: str, text: str) -> None:
    found = made({name: value})
    assert found["params"] == {param: text}
    assert orjson.loads(found["event.original"]) == {name: value}
    assert found.keys() == {*HEAD, "event", "params", "event.original"}


def test_event_original_keeps_every_digit() -> None:
    text = '{ "n": 123456789012345678901234567890, "q": 1, "q": 2 }'
    assert made({"n": 1.2345678901234568e29, "q": 2}, original=text.encode())["event.original"] == text


def test_version_field_of_logstash_is_accepted() -> None:
    assert made({"@version": "1", "a": 1}) == {**HEAD, "a": 1, "event": "view"}
    assert made({"@version": "2"})["params"] == {"@version": "2"}


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_not_stored_as_numbers(odd: float) -> None:
    assert made({"n": odd})["params"] == {"n": "null"}


def test_lone_surrogates_are_replaced() -> None:
    assert made({"s": "a\ud800b", "event_id": "x\udfff"}) == {
        **HEAD,
        "event_id": "x\ufffd",
        "s": "a\ufffdb",
        "event": "view",
    }
    assert made({"s": ["\ud800"]})["params"] == {"s": '["\\ud800"]'}


def test_top_level_fields_are_limited_except_core_fields() -> None:
    fields = {f"f{number}": number for number in range(5000)} | {"id": "a", "ts": 1421919000, "referer": "a.example"}
    found = made(fields)
    assert {name for name in found if name.startswith("f")} == {f"f{number}" for number in range(100)}
    assert (found["id"], found["@timestamp"], found["referer"]) == ("a", "2015-01-22T09:30:00.000Z", "a.example")
    assert found["params"]["f4999"] == "4999"
    assert orjson.loads(found["event.original"]) == fields
    exact = {f"f{number}": number for number in range(100)}
    assert made(exact) == {**HEAD, **exact, "event": "view"}


@pytest.mark.parametrize("levels", [20, 300, 900])
def test_nested_values_are_kept(levels: int) -> None:
    text = b'{"z":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"
    assert made(orjson.loads(text), original=text)["event.original"] == text.decode()


def test_rejects_nesting_that_cannot_be_encoded() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    assert "nested too deeply" in refusal({"z": value})
