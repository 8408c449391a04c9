"""Lines of access logs, read."""

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
RULE = compile_item_pattern("^/data/(?P<id>[^/.]+)(?:[.](?P<format>csv))?")
OWN = frozenset({"own.example"})
START = "192.0.2.1 - - [17/May/2015:10:05:03 +0000]"


def read(line: str | bytes, log_format: LogFormat = COMBINED, rule: ItemPattern = RULE) -> dict[str, Any]:
    fields = parse_line(line.encode() if isinstance(line, str) else line, log_format, rule, OWN)
    assert fields is not None
    return fields


def hit(
    request: str = "GET /data/a HTTP/1.1", status: str = "200", referer: str = "-", agent: str = "curl/8"
) -> dict[str, Any]:
    return read(f'{START} "{request}" {status} 5 "{referer}" "{agent}"')


def test_a_combined_line_gives_every_field() -> None:
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


def test_a_common_line_has_no_referer_and_no_agent() -> None:
    assert read(f'{START} "GET /data/a HTTP/1.0" 304 -', COMMON) == {
        "@timestamp": "2015-05-17T10:05:03.000Z",
        "event": "view",
        "id": "a",
        "clientip": "192.0.2.1",
        "method": "GET",
        "url": "/data/a",
        "status": 304,
    }


@pytest.mark.parametrize("host", ["www.example.org", "www.example.org:443", "2001:db8::1"])
def test_a_vhost_line_keeps_the_host_apart(host: str) -> None:
    fields = read(f'{host} {START} "GET /data/a HTTP/1.1" 200 5 "-" "curl/8"', VHOST)
    assert fields["host"] == host.removesuffix(":443") or host == "2001:db8::1"
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
def test_a_client_is_an_address_or_a_host(client: str, name: str, value: str) -> None:
    fields = read(f'{client} - - [17/May/2015:10:05:03 +0000] "GET /data/a HTTP/1.1" 200 5')
    assert fields[name] == value
    assert ("clientip" in fields) != ("clienthost" in fields)


def test_a_missing_client_is_left_out() -> None:
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
def test_a_user_may_hold_spaces(user: str, read_as: str | None) -> None:
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
def test_request_lines(request_line: str, method: str | None, url: str | None, item: str | None) -> None:
    fields = hit(request_line)
    assert (fields.get("method"), fields.get("url"), fields.get("id")) == (method, url, item)


def test_what_is_no_request_is_kept_as_it_is() -> None:
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
def test_only_referers_of_others_on_the_web_count(referer: str, name: str, value: str) -> None:
    fields = hit(referer=referer)
    assert fields[name] == value
    assert ("referer" in fields) != ("referer_url" in fields)


@pytest.mark.parametrize("referer", ["-", ""])
def test_a_missing_referer_is_left_out(referer: str) -> None:
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
def test_escapes_are_undone(agent: str, read_as: str | None) -> None:
    assert hit(agent=agent).get("agent") == read_as


def test_bytes_that_are_no_utf_8_read_as_their_escapes() -> None:
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
        ("", None),
    ],
)
def test_lines_end_in_many_ways(end: str, agent: str | None) -> None:
    fields = read(f'{START} "GET /data/a HTTP/1.1" 200 5 "https://news.example/" {end}')
    assert (fields.get("agent"), fields["referer"]) == (agent, "https://news.example/")


@pytest.mark.parametrize(
    ("time_read", "stamp"),
    [
        ("17/May/2015:10:05:03 +0000", "2015-05-17T10:05:03.000Z"),
        ("01/Jan/2025:00:30:00 +0530", "2024-12-31T19:00:00.000Z"),
        ("31/Dec/2024:23:30:00 -0800", "2025-01-01T07:30:00.000Z"),
        ("29/Feb/2024:00:00:00 +0000", "2024-02-29T00:00:00.000Z"),
    ],
)
def test_times_are_read_with_their_zone(time_read: str, stamp: str) -> None:
    assert read(f'192.0.2.1 - - [{time_read}] "-" 408 -')["@timestamp"] == stamp


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "no time in brackets"),
        ("logrotate: restarted", "no time in brackets"),
        ("192.0.2.1 - - [17/May/2015:10:05:03 +0000]", "no whole request in quotes"),
        (f'{START} "GET /data/', "no whole request in quotes"),
        (f'{START} "GET /data/a HTTP/1.1"', "its parts are not"),
        (f'{START} "GET /data/a HTTP/1.1" OK 5', "its parts are not"),
        (f'{START} "GET /data/a HTTP/1.1" 200 5x', "its parts are not"),
        (f'{START} "GET /data/a HTTP/1.1" 200 {"9" * 5000}', "its parts are not"),
        ('192.0.2.1 - - [17/Mai/2015:10:05:03 +0000] "-" 408 -', "invalid timestamp"),
        ('192.0.2.1 - - [31/Feb/2015:10:05:03 +0000] "-" 408 -', "invalid timestamp"),
        ('192.0.2.1 - - [17/May/2015:10:05:03] "-" 408 -', "invalid timestamp"),
        ('192.0.2.1 - - [17/May/1969:10:05:03 +0000] "-" 408 -', "invalid timestamp"),
        ('192.0.2.1 - - [31/Dec/9999:23:05:03 -0100] "-" 408 -', "invalid timestamp"),
        ("x" * (LINE_MAX_BYTES + 1), "over 65,536 bytes"),
    ],
)
def test_what_cannot_be_read_says_why(line: str, says: str) -> None:
    with pytest.raises(Malformed, match=says):
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
def test_the_format_is_found_from_the_first_lines(lines: list[bytes], name: str) -> None:
    assert detect_format(lines).name == name


@pytest.mark.parametrize("lines", [[], [b""], [b"{}", b"PK\x03\x04"], [b"x" * (LINE_MAX_BYTES + 1)]])
def test_no_format_is_found_where_there_is_none(lines: list[bytes]) -> None:
    with pytest.raises(Malformed, match="the formats known are vhost-combined, common, combined"):
        detect_format(lines)


def test_a_format_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no log format is called 'x'"):
        get_format("x")


def identity(line: bytes, offset: int = 0, first: bytes = COMBINED_LINE) -> str:
    event = AccessLog(COMBINED, log_fingerprint(first), RULE).parse_event(line, offset)
    assert event is not None
    return str(event["event_id"])


def test_a_hit_is_known_by_its_log_its_place_and_its_request() -> None:
    here = identity(COMBINED_LINE)
    assert len(here) == 32
    assert identity(COMBINED_LINE + b"\r\n") == here
    assert identity(COMBINED_LINE, offset=1) != here
    assert identity(COMBINED_LINE, first=COMMON_LINE.replace(b"10:05", b"10:06")) != here
    assert identity(COMBINED_LINE.replace(b"GET", b"PUT")) != here


def test_a_line_that_was_read_before_it_was_whole_stays_one_hit() -> None:
    torn = COMBINED_LINE[:-4]
    assert identity(torn) == identity(COMBINED_LINE)


def test_logs_whose_first_lines_differ_in_nothing_but_the_bytes_are_two() -> None:
    longer = COMMON_LINE.rpartition(b" ")[0] + b" 1234567"
    assert identity(COMMON_LINE, first=COMMON_LINE) != identity(longer, first=longer)


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
    st.sampled_from([RULE, ItemPattern()]),
)
@example(b'a - - [17/May/2015:10:05:03 +0000] "\\', COMBINED, RULE)
def test_any_bytes_are_read_or_malformed(line: bytes, log_format: LogFormat, rule: ItemPattern) -> None:
    with suppress(Malformed):
        fields = AccessLog(log_format, log_fingerprint(line), rule, OWN).parse_event(line, 0)
        assert fields is None or fields["event"] in {"view", "download", "error", "request"}


@given(st.lists(st.one_of(st.binary(), damaged_lines()), max_size=5))
def test_any_lines_have_a_format_or_none(lines: list[bytes]) -> None:
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
