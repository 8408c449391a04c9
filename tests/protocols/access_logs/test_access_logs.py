"""Parsing of access logs in the Common Log Format and its relatives."""

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metronome.errors import ConfigurationError, Malformed
from metronome.items import ItemPattern, compile_item_pattern
from metronome.protocols.access_logs.reader import (
    LINE_MAX_BYTES,
    LOG_FORMATS,
    AccessLog,
    LogFormat,
    detect_format,
    get_format,
    log_fingerprint,
    parse_line,
)

COMMON = get_format("common")
COMBINED = get_format("combined")
VHOST = get_format("vhost-combined")
ITEM_PATTERN = compile_item_pattern("^/data/(?P<id>[^/.]+)(?:[.](?P<format>csv))?")
OWN = frozenset({"own.example"})
START = "192.0.2.1 - - [17/May/2015:10:05:03 +0000]"


def read(
    line: str | bytes, log_format: LogFormat = COMBINED, item_pattern: ItemPattern = ITEM_PATTERN
) -> dict[str, Any]:
    fields = parse_line(line.encode() if isinstance(line, str) else line, log_format, item_pattern, OWN)
    assert fields is not None
    return fields


def hit(
    request: str = "GET /data/a HTTP/1.1", status: str = "200", referer: str = "-", agent: str = "curl/8"
) -> dict[str, Any]:
    return read(f'{START} "{request}" {status} 5 "{referer}" "{agent}"')


def test_a_combined_line_has_every_field() -> None:
    line = (
        '192.0.2.1 - ada [17/May/2015:12:05:03 +0200] "GET /data/a.csv?x=1 HTTP/1.1" 200 512 '
        '"https://news.example/a" "curl/8"'
    )
    assert read(line) == {
        "@timestamp": "2015-05-17T10:05:03.000Z",
        "event": "download",
        "id": "a",
        "format": "csv",
        "clientip": "192.0.2.1",
        "user": "ada",
        "method": "GET",
        "url": "/data/a.csv?x=1",
        "status": 200,
        "bytes": 512,
        "referer": "https://news.example/a",
        "agent": "curl/8",
    }


def test_a_common_line_has_neither_referrer_nor_user_agent() -> None:
    assert read(f'{START} "GET /data/a HTTP/1.0" 304 -', COMMON) == {
        "@timestamp": "2015-05-17T10:05:03.000Z",
        "event": "view",
        "id": "a",
        "clientip": "192.0.2.1",
        "method": "GET",
        "url": "/data/a",
        "status": 304,
    }


@pytest.mark.parametrize("host", ["www.example.org", "www.example.org:443", "[2001:db8::1]:443"])
def test_a_vhost_line_has_the_host(host: str) -> None:
    fields = read(f'{host} {START} "GET /data/a HTTP/1.1" 200 5 "-" "curl/8"', VHOST)
    assert fields["host"] == host.removesuffix(":443")
    assert (fields["clientip"], fields["id"]) == ("192.0.2.1", "a")


@pytest.mark.parametrize(
    ("client", "name", "value"),
    [
        ("192.0.2.1", "clientip", "192.0.2.1"),
        ("2001:db8::17", "clientip", "2001:db8::17"),
        ("::ffff:192.0.2.1", "clientip", "::ffff:192.0.2.1"),
        ("crawler.example.com", "clienthost", "crawler.example.com"),
        ("unix:", "clienthost", "unix:"),
    ],
)
def test_a_client_is_an_ip_address_or_a_host_name(client: str, name: str, value: str) -> None:
    fields = read(f'{client} - - [17/May/2015:10:05:03 +0000] "GET /data/a HTTP/1.1" 200 5')
    assert fields[name] == value
    assert ("clientip" in fields) != ("clienthost" in fields)


def test_a_missing_client_is_omitted() -> None:
    fields = read('- - - [17/May/2015:10:05:03 +0000] "GET /data/a HTTP/1.1" 200 5')
    assert not {"clientip", "clienthost"} & fields.keys()


@pytest.mark.parametrize(
    ("user", "read_as"),
    [
        ("-", None),
        ("", None),
        ('""', None),
        ("ada", "ada"),
        ("Ada King Lovelace", "Ada King Lovelace"),
        ("a[b]", "a[b]"),
    ],
)
def test_a_user_name_may_have_spaces(user: str, read_as: str | None) -> None:
    fields = read(f'192.0.2.1 - {user} [17/May/2015:10:05:03 +0000] "GET /data/a HTTP/1.1" 200 5 "-" "-"')
    assert fields.get("user") == read_as


@pytest.mark.parametrize(
    ("request_line", "method", "url", "item"),
    [
        ("GET /data/a HTTP/1.1", "GET", "/data/a", "a"),
        ("GET /data/a", "GET", "/data/a", "a"),
        ("GET /data/a b HTTP/1.1", "GET", "/data/a b", "a b"),
        ("GET /data/a?b=/data/c HTTP/2.0", "GET", "/data/a?b=/data/c", "a"),
        ("GET http://own.example/data/a HTTP/1.1", "GET", "http://own.example/data/a", "a"),
        (r"GET /data/caf\xc3\xa9 HTTP/1.1", "GET", "/data/café", "café"),
        (r"GET /data/\"a\" HTTP/1.1", "GET", '/data/"a"', '"a"'),
        ("OPTIONS * HTTP/1.1", "OPTIONS", "*", None),
        ("M-SEARCH * HTTP/1.1", "M-SEARCH", "*", None),
        ("-", None, None, None),
        ("", None, None, None),
        ("GET", None, None, None),
        (r"\x16\x03 \x01", None, None, None),
    ],
)
def test_request_lines_are_split_into_method_and_url(
    request_line: str, method: str | None, url: str | None, item: str | None
) -> None:
    fields = hit(request_line)
    assert (fields.get("method"), fields.get("url"), fields.get("id")) == (method, url, item)


def test_an_invalid_request_line_is_kept() -> None:
    fields = hit(r"\x16\x03\x01", status="400")
    assert (fields["request"], fields["event"]) == ("\x16\x03\x01", "error")


@pytest.mark.parametrize(
    ("referer", "name", "value"),
    [
        ("https://news.example/a?b#c", "referer", "https://news.example/a?b#c"),
        ("HTTP://News.example/", "referer", "HTTP://News.example/"),
        ("http://www.own.example:8080/x", "referer_url", "http://www.own.example:8080/x"),
        ("android-app://com.example/", "referer_url", "android-app://com.example/"),
        ("news.example/a", "referer_url", "news.example/a"),
        (r"http://\xe4.example/", "referer", r"http://\xe4.example/"),
        ("http://[", "referer_url", "http://["),
    ],
)
def test_only_referrers_of_other_sites_are_counted(referer: str, name: str, value: str) -> None:
    fields = hit(referer=referer)
    assert fields[name] == value
    assert ("referer" in fields) != ("referer_url" in fields)


@pytest.mark.parametrize("referer", ["-", ""])
def test_a_missing_referrer_is_omitted(referer: str) -> None:
    assert not {"referer", "referer_url"} & hit(referer=referer).keys()


@pytest.mark.parametrize(
    ("agent", "read_as"),
    [
        (r"Reader \"Pro\" 2", 'Reader "Pro" 2'),
        (r"C:\\x \x41\xC3\xA9 \q", "C:\\x Aé \\q"),
        (r"\xff \xc3\xa9 \"", '\\xff é "'),
        (r"\x4", r"\x4"),
        ("Lésbar", "Lésbar"),
        ("-", None),
    ],
)
def test_escapes_are_decoded(agent: str, read_as: str | None) -> None:
    assert hit(agent=agent).get("agent") == read_as


def test_invalid_utf_8_becomes_escapes() -> None:
    line = f'{START} "GET /data/a HTTP/1.1" 200 5 "-" "'.encode()
    assert read(line + b'\xe4\xc3\xa9"')["agent"] == read(line + rb'\xE4\xC3\xA9"')["agent"] == r"\xe4é"


@pytest.mark.parametrize(
    ("end", "agent"),
    [
        ('"Mozilla/5.0 (compatible', "Mozilla/5.0 (compatible"),
        ('"Mozilla/5.0\\', "Mozilla/5.0"),
        ('"Mozilla/5.0\\"', 'Mozilla/5.0"'),
        ('"curl/8" 0.012 "-" "203.0.113.9"', "curl/8"),
        ('"curl/8"\r\n', "curl/8"),
    ],
)
def test_accepts_different_line_ends(end: str, agent: str | None) -> None:
    fields = read(f'{START} "GET /data/a HTTP/1.1" 200 5 "https://news.example/" {end}')
    assert (fields.get("agent"), fields["referer"]) == (agent, "https://news.example/")


@pytest.mark.parametrize(
    ("time_read", "timestamp"),
    [
        ("17/May/2015:10:05:03 +0000", "2015-05-17T10:05:03.000Z"),
        ("01/Jan/2025:00:30:00 +0530", "2024-12-31T19:00:00.000Z"),
        ("31/Dec/2024:23:30:00 -0800", "2025-01-01T07:30:00.000Z"),
        ("29/Feb/2024:00:00:00 +0000", "2024-02-29T00:00:00.000Z"),
    ],
)
def test_times_are_converted_to_utc(time_read: str, timestamp: str) -> None:
    assert read(f'192.0.2.1 - - [{time_read}] "-" 408 -')["@timestamp"] == timestamp


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "no time in brackets"),
        ("logrotate: restarted", "no time in brackets"),
        ("192.0.2.1 - - [17/May/2015:10:05:03 +0000]", "no complete request in quotes"),
        (f'{START} "GET /data/', "no complete request in quotes"),
        (f'{START} "GET /data/a HTTP/1.1"', "expected client, identity"),
        (f'{START} "GET /data/a HTTP/1.1" OK 5', "expected client, identity"),
        (f'{START} "GET /data/a HTTP/1.1" 200 5x', "expected client, identity"),
        (f'{START} "GET /data/a HTTP/1.1" 200 {"9" * 5000}', "expected client, identity"),
        ('192.0.2.1 - - [17/Mai/2015:10:05:03 +0000] "-" 408 -', "invalid timestamp"),
        ('192.0.2.1 - - [31/Feb/2015:10:05:03 +0000] "-" 408 -', "invalid timestamp"),
        ('192.0.2.1 - - [17/May/2015:10:05:03] "-" 408 -', "invalid timestamp"),
        ('192.0.2.1 - - [17/May/1969:10:05:03 +0000] "-" 408 -', "invalid timestamp"),
        ('192.0.2.1 - - [31/Dec/9999:23:05:03 -0100] "-" 408 -', "invalid timestamp"),
        ("x" * (LINE_MAX_BYTES + 1), "longer than 65,536 bytes"),
    ],
)
def test_rejects_an_invalid_line_with_a_reason(line: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        read(line)


COMBINED_LINE = f'{START} "GET / HTTP/1.1" 200 5 "-" "curl/8"'.encode()
COMMON_LINE = f'{START} "GET / HTTP/1.1" 200 5'.encode()


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ([COMMON_LINE], "common"),
        ([COMBINED_LINE], "combined"),
        ([b"www.example.org:80 " + COMBINED_LINE], "vhost-combined"),
        ([b"", b"# started", COMBINED_LINE + b"\r\n"], "combined"),
        ([COMMON_LINE, COMMON_LINE, COMBINED_LINE], "combined"),
        ([COMBINED_LINE.replace(b" - - ", b" - Ada Lovelace ")], "combined"),
        ([COMMON_LINE.replace(b" - - ", b" - Ada Lovelace ")], "common"),
    ],
)
def test_the_format_is_detected_from_the_first_lines(lines: list[bytes], name: str) -> None:
    assert detect_format(lines).name == name


@pytest.mark.parametrize("lines", [[], [b""], [b"{}", b"PK\x03\x04"], [b"x" * (LINE_MAX_BYTES + 1)]])
def test_rejects_a_log_of_unknown_format(lines: list[bytes]) -> None:
    with pytest.raises(Malformed, match="no line matches any of vhost-combined, common, combined"):
        detect_format(lines)


def test_rejects_an_unknown_format_name() -> None:
    with pytest.raises(ConfigurationError, match="unknown log format 'x'"):
        get_format("x")


def event_id(line: bytes, offset: int = 0, first: bytes = COMBINED_LINE) -> str:
    event = AccessLog(COMBINED, log_fingerprint(first), ITEM_PATTERN).parse_event(line, offset)
    assert event is not None
    return str(event["event_id"])


def test_the_event_id_depends_on_log_offset_and_request() -> None:
    here = event_id(COMBINED_LINE)
    assert len(here) == 32
    assert event_id(COMBINED_LINE + b"\r\n") == here
    assert event_id(COMBINED_LINE, offset=1) != here
    assert event_id(COMBINED_LINE, first=COMMON_LINE.replace(b"10:05", b"10:06")) != here
    assert event_id(COMBINED_LINE.replace(b"GET", b"PUT")) != here


def test_an_incomplete_line_keeps_its_event_id_when_completed() -> None:
    torn = COMBINED_LINE[:-4]
    assert event_id(torn) == event_id(COMBINED_LINE)


def test_logs_differ_if_their_first_lines_differ_in_the_bytes_sent() -> None:
    longer = COMMON_LINE.rpartition(b" ")[0] + b" 1234567"
    assert event_id(COMMON_LINE, first=COMMON_LINE) != event_id(longer, first=longer)


ODD = st.sampled_from(
    [b'"', b"\\", b"[", b"]", b" ", b"-", b"\\x", b"\xff", b"\0", b"HTTP/1.1", b"17/May/2015:10:05:03 +0000"]
)
PIECES = st.lists(st.one_of(ODD, st.binary(max_size=4)), max_size=30).map(b"".join)


@st.composite
def damaged_lines(draw: st.DrawFn) -> bytes:
    at = draw(st.integers(0, len(COMBINED_LINE)))
    until = draw(st.integers(at, len(COMBINED_LINE)))
    return COMBINED_LINE[:at] + draw(PIECES) + COMBINED_LINE[until:]


@given(
    st.one_of(st.binary(), PIECES, damaged_lines()),
    st.sampled_from(LOG_FORMATS),
    st.sampled_from([ITEM_PATTERN, ItemPattern()]),
)
@example(b'a - - [17/May/2015:10:05:03 +0000] "\\', COMBINED, ITEM_PATTERN)
def test_any_line_is_parsed_or_rejected(line: bytes, log_format: LogFormat, item_pattern: ItemPattern) -> None:
    with suppress(Malformed):
        fields = AccessLog(log_format, log_fingerprint(line), item_pattern, OWN).parse_event(line, 0)
        assert fields is None or fields["event"] in {"view", "download", "error", "request"}


@given(st.lists(st.one_of(st.binary(), damaged_lines()), max_size=5))
def test_any_lines_have_a_format_or_are_rejected(lines: list[bytes]) -> None:
    with suppress(Malformed):
        assert detect_format(lines) in LOG_FORMATS


@pytest.mark.parametrize(
    "piece",
    [" [", ' [17/May/2015:10:05:03 +0000] "', '"', '\\"', "\\", '" ', " ", "[", f'{START} "-" 200 - "', "\\x", "a"],
)
@pytest.mark.parametrize("start", ["", "a - ", f'{START} "', f'{START} "-" 200 5 "', f'{START} "-" 200 5 "-" "'])
def test_hostile_lines_take_no_longer_than_others(start: str, piece: str) -> None:
    line = (start + piece * LINE_MAX_BYTES).encode()[:LINE_MAX_BYTES]
    began = time.perf_counter()
    for log_format in LOG_FORMATS:
        with suppress(Malformed):
            read(line, log_format)
    assert time.perf_counter() - began < 1
