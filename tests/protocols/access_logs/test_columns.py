"""Logs in columns: the W3C's format (IIS and others), CloudFront, and S3."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed
from metronome.items import ItemPattern
from metronome.protocols.access_logs.reader import (
    LOG_FORMATS,
    AccessLog,
    LogFormat,
    detect_format,
    get_format,
    header_lines,
    log_fingerprint,
)
from metronome.protocols.access_logs.w3c import CLOUDFRONT_COLUMNS

W3C, CLOUDFRONT, S3 = map(get_format, ("w3c", "cloudfront", "s3"))
Fields = dict[str, Any]

IIS_FIELDS = (
    "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) cs(Referer) "
    "sc-status sc-substatus sc-win32-status time-taken"
)
IIS_HEAD = [
    "#Software: Microsoft Internet Information Services 10.0",
    "#Version: 1.0",
    "#Date: 2025-05-17 10:05:03",
    IIS_FIELDS,
]
IIS_LINE = (
    "2025-05-17 10:05:03 10.0.0.5 GET /data/rivers.csv a=1&b=2 443 AD\\ada 2001:db8::7 "
    "Mozilla/5.0+(X11;+Linux)+A%2BB https://news.example/a 200 0 0 15"
)


def log_of(lines: list[bytes], log_format: LogFormat) -> AccessLog:
    return AccessLog(log_format, log_fingerprint(header_lines(lines, log_format) or b""), ItemPattern())


def events(lines: list[str], log_format: LogFormat) -> list[Fields]:
    """Return the events of a log, without their identities."""
    found = []
    encoded = [line.encode() for line in lines]
    log = log_of(encoded, log_format)
    for offset, line in enumerate(encoded):
        event = log.parse_event(line, offset)
        if event is not None:
            assert len(event.pop("event_id")) == 32
            found.append(event)
    return found


def test_an_iis_line_has_every_field() -> None:
    assert events([*IIS_HEAD, IIS_LINE], W3C) == [
        {
            "@timestamp": "2025-05-17T10:05:03.000Z",
            "event": "download",
            "id": "/data/rivers.csv",
            "format": "csv",
            "clientip": "2001:db8::7",
            "user": "AD\\ada",
            "method": "GET",
            "url": "/data/rivers.csv?a=1&b=2",
            "status": 200,
            "referer": "https://news.example/a",
            "agent": "Mozilla/5.0 (X11; Linux) A%2BB",
            "duration": 15,
            "s-ip": "10.0.0.5",
            "s-port": "443",
            "sc-substatus": "0",
            "sc-win32-status": "0",
        }
    ]


def test_missing_values_are_omitted() -> None:
    line = "2025-05-17 10:05:03 10.0.0.5 GET / - 443 - - - - 404 0 2 -"
    assert events([*IIS_HEAD, line], W3C) == [
        {
            "@timestamp": "2025-05-17T10:05:03.000Z",
            "event": "error",
            "id": "/",
            "method": "GET",
            "url": "/",
            "status": 404,
            "s-ip": "10.0.0.5",
            "s-port": "443",
            "sc-substatus": "0",
            "sc-win32-status": "2",
        }
    ]


def test_the_columns_may_change_in_the_middle_of_a_log() -> None:
    other = [
        "#Fields: time c-ip cs-method cs-uri-stem sc-status sc-bytes cs-host",
        "10:06:00 ::1 HEAD /a 304 0 a.example:80",
    ]
    first, second = events([*IIS_HEAD, IIS_LINE, *other], W3C)
    assert first["agent"].startswith("Mozilla")
    # The day is the directive's where the lines have none.
    assert second == {
        "@timestamp": "2025-05-17T10:06:00.000Z",
        "event": "request",
        "id": "/a",
        "clientip": "::1",
        "method": "HEAD",
        "url": "/a",
        "status": 304,
        "bytes": 0,
        "host": "a.example",
    }


@pytest.mark.parametrize(
    ("columns", "line", "expected"),
    [
        ("time-taken", "7", {"duration": 7}),
        ("time-taken", "0.0125", {"duration": 12.5}),
        ("time-taken", "nan.0", {}),
        ("cs(User-Agent)", '"Reader ""Pro"" 2"', {"agent": 'Reader "Pro" 2'}),
        ("cs(User-Agent) x-b", '"Reader 2" b', {"agent": "Reader 2", "x-b": "b"}),
        ("cs(Cookie) x-forwarded-for", "id=1 192.0.2.1", {"clientip": "192.0.2.1"}),
        ("c-ip X-Forwarded-For", "10.0.0.1 192.0.2.1:5000,+10.0.0.9:80", {"clientip": "192.0.2.1"}),
        ("event id event_id agent", "a b c d", {"record_event": "a", "record_id": "b", "record_agent": "d"}),
        ("cs-uri", "/whole?a", {"url": "/whole?a", "id": "/whole"}),
    ],
)
def test_columns_of_other_servers(columns: str, line: str, expected: Fields) -> None:
    log = log_of([b"x"], W3C)
    log.skip_line(f"#Fields: date time {columns}".encode())
    event = log.parse_event(f"2025-05-17 10:05:03 {line}".encode(), 0)
    assert event is not None
    assert event.pop("event_id") != "c"
    assert event == {"@timestamp": "2025-05-17T10:05:03.000Z", "event": "request", **expected}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([IIS_LINE], "no #Fields directive"),
        ([*IIS_HEAD, IIS_LINE.rpartition(" ")[0]], "14 columns instead of the 15"),
        ([*IIS_HEAD, IIS_LINE + " 7"], "16 columns instead of the 15"),
        (["#Fields: date cs-uri-stem", "2025-05-17 /a"], "no date and time"),
        (["#Fields: time cs-uri-stem", "10:05:03 /a"], "no date and time"),
        (["#Fields: date time", "2025-05-17 25:00:00"], "invalid date and time"),
        (["#Fields: date time a", '2025-05-17 10:00:00 "a b'], "0 columns"),
        (["#Fields: date time sc-status", "2025-05-17 10:00:00 x"], "'x' is not an HTTP status"),
        (["#Fields: date time sc-status", "2025-05-17 10:00:00 12"], "'12' is not an HTTP status"),
        (["#Fields: date time sc-bytes", "2025-05-17 10:00:00 9999999999999999999"], "sc-bytes is"),
        (["#Fields: date time c-ip", "2025-05-17 10:00:00 GET"], "c-ip is 'GET', which is not an IP address"),
        (["#Fields: date time cs-method", "2025-05-17 10:00:00 /a"], "cs-method is '/a'"),
        (["#Fields: date time cs-uri-stem", "2025-05-17 10:00:00 curl"], "cs-uri-stem is 'curl', which is not a path"),
        (["#Fields: date time cs-username", "2025-05-17 10:00:00 ::1"], "where the user should be"),
        (["#Fields: date time cs-host", "2025-05-17 10:00:00 7"], "cs-host is '7', which is not a host"),
    ],
)
def test_rejects_an_invalid_line_with_a_reason(lines: list[str], reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        events(lines, W3C)


CLOUDFRONT_HEAD = ["#Version: 1.0", f"#Fields: {' '.join(CLOUDFRONT_COLUMNS)}"]
CLOUDFRONT_LINE = (
    "2025-05-17 10:05:03 FRA56-P1 392 2001:db8::7 GET d1.cloudfront.net /data/my%20rivers.csv 206 "
    "https://news.example/a Mozilla/5.0%2520(X11;%2520Linux)%20%22A%22 a=1 id=%3D7 Hit Req== www.example.org https 23 "
    "0.0015 192.0.2.77 TLSv1.3 TLS_AES Hit HTTP/2.0 - - 11040 0.001 Hit text/csv 78 - -"
).replace(" ", "\t")


@pytest.mark.parametrize("first", [CLOUDFRONT_HEAD, []])
def test_a_cloudfront_line_has_every_field_with_and_without_directives(first: list[str]) -> None:
    assert events([*first, CLOUDFRONT_LINE], CLOUDFRONT) == [
        {
            "@timestamp": "2025-05-17T10:05:03.000Z",
            "event": "download",
            "id": "/data/my rivers.csv",
            "format": "csv",
            "clientip": "2001:db8::7",
            "method": "GET",
            "url": "/data/my%20rivers.csv?a=1",
            "status": 206,
            "bytes": 392,
            "referer": "https://news.example/a",
            "agent": 'Mozilla/5.0 (X11; Linux) "A"',
            "host": "www.example.org",
            "duration": 1.5,
            "x-edge-location": "FRA56-P1",
            "x-edge-result-type": "Hit",
            "x-edge-request-id": "Req==",
            "cs-protocol": "https",
            "cs-bytes": "23",
            "ssl-protocol": "TLSv1.3",
            "ssl-cipher": "TLS_AES",
            "x-edge-response-result-type": "Hit",
            "cs-protocol-version": "HTTP/2.0",
            "c-port": "11040",
            "time-to-first-byte": "0.001",
            "x-edge-detailed-result-type": "Hit",
            "sc-content-type": "text/csv",
            "sc-content-len": "78",
        }
    ]


OWNER = "79a59df900b949e55d96a1e698fbaced"
S3_LINE = (
    f"{OWNER} bucket-1 [17/May/2025:12:05:03 +0200] 2001:db8::7 arn:aws:iam::1:user/ada 3E57427F3 REST.GET.OBJECT "
    'data/my%2520caf%25C3%25A9s.csv "GET /bucket-1/data/my%20caf%C3%A9s.csv?versionId=1 HTTP/1.1" 206 - 113 4406 41 28 '
    '"https://news.example/a" "S3 "odd" Console/0.4" v1 s9lzHYrFp76ZVx= SigV4 ECDHE-RSA AuthHeader '
    "bucket-1.s3.eu-central-1.amazonaws.com TLSV1.2 - Yes"
)


def test_an_s3_line_has_every_field() -> None:
    assert events([S3_LINE], S3) == [
        {
            "@timestamp": "2025-05-17T10:05:03.000Z",
            "event": "download",
            "id": "/data/my cafés.csv",
            "format": "csv",
            "clientip": "2001:db8::7",
            "user": "arn:aws:iam::1:user/ada",
            "method": "GET",
            "url": "/data/my%20caf%C3%A9s.csv?versionId=1",
            "status": 206,
            "bytes": 113,
            "object_size": 4406,
            "duration": 41,
            "turnaround": 28,
            "referer": "https://news.example/a",
            "agent": 'S3 "odd" Console/0.4',
            "host": "bucket-1.s3.eu-central-1.amazonaws.com",
            "bucket": "bucket-1",
            "operation": "REST.GET.OBJECT",
            "request_id": "3E57427F3",
            "version_id": "v1",
        }
    ]


@pytest.mark.parametrize(
    ("operation", "key", "request_line", "status", "event", "item"),
    [
        ("REST.GET.OBJECT", "a", '"GET /a HTTP/1.1"', "200", "view", "/a"),
        ("WEBSITE.GET.OBJECT", "index.html", '"GET / HTTP/1.1"', "304", "view", "/index.html"),
        ("REST.GET.OBJECT", "/a", '"GET /b//a HTTP/1.1"', "200", "view", "/a"),
        ("REST.GET.OBJECT", "100%2525", '"GET /100%25 HTTP/1.1"', "200", "view", "/100%"),
        ("REST.GET.OBJECT", "a%20b", '"GET /a%20b HTTP/1.1"', "200", "view", "/a b"),
        ("REST.GET.OBJECT", "a", '"GET /a HTTP/1.1"', "403", "error", "/a"),
        ("REST.HEAD.OBJECT", "a", '"HEAD /a HTTP/1.1"', "200", "request", "/a"),
        ("REST.PUT.OBJECT", "a", '"PUT /a HTTP/1.1"', "200", "request", "/a"),
        ("REST.GET.OBJECT_TAGGING", "a", '"GET /a?tagging HTTP/1.1"', "200", "request", "/a"),
        ("REST.GET.BUCKET", "-", '"GET /?list-type=2 HTTP/1.1"', "200", "request", "/"),
        ("BATCH.DELETE.OBJECT", "a", "-", "204", "request", "/a"),
        ("S3.EXPIRE.OBJECT", "a", "-", "-", "request", "/a"),
    ],
)
def test_only_operations_that_deliver_an_object_are_views(
    operation: str, key: str, request_line: str, status: str, event: str, item: str
) -> None:
    start = f"{OWNER} b [17/May/2025:10:05:03 +0000] 192.0.2.1 - 3E57"
    line = f'{start} {operation} {key} {request_line} {status} - - - - - "-" "-" -'
    (found,) = events([line], S3)
    assert (found["event"], found["id"]) == (event, item)
    assert not {"referer", "agent", "user", "bytes", "duration", "version_id", "host"} & found.keys()


def test_rejects_a_line_of_another_format_than_s3() -> None:
    with pytest.raises(Malformed, match="not an S3 log line"):
        events([S3_LINE.partition('"S3')[0]], S3)
    with pytest.raises(Malformed, match="invalid timestamp"):
        events([S3_LINE.replace("May", "Mai")], S3)


HEADS = {"w3c": IIS_HEAD, "cloudfront": CLOUDFRONT_HEAD, "s3": []}
LINES = {"w3c": IIS_LINE, "cloudfront": CLOUDFRONT_LINE, "s3": S3_LINE}


@pytest.mark.parametrize("name", HEADS)
def test_the_format_is_detected(name: str) -> None:
    lines = [*HEADS[name], LINES[name], "", "# Remark", LINES[name]]
    assert detect_format([f"{line}\r\n".encode() for line in lines]).name == name


def test_cloudfront_without_directives_is_detected() -> None:
    assert detect_format([CLOUDFRONT_LINE.encode()]).name == "cloudfront"


@pytest.mark.parametrize("name", HEADS)
def test_an_incomplete_line_keeps_its_event_id_when_completed(name: str) -> None:
    lines = [line.encode() for line in HEADS[name]]
    whole = LINES[name].encode()

    def identity(line: bytes, at: int = 999) -> str | None:
        log = log_of([*lines, whole], get_format(name))
        for directive in lines:
            log.parse_event(directive, 0)
        with suppress(Malformed):
            event = log.parse_event(line, at)
            assert event is not None
            return str(event["event_id"])
        return None

    known = {identity(whole[:length]) for length in range(len(whole) + 1)} - {None}
    assert known == {identity(whole), identity(whole + b"\r\n")}
    assert len(known) == 1
    assert identity(whole, 998) not in known


@pytest.mark.parametrize("name", ["w3c", "cloudfront"])
def test_logs_with_the_same_directives_differ_by_their_first_requests(name: str) -> None:
    log_format = get_format(name)

    def fingerprint(line: str) -> bytes:
        return log_of([text.encode() for text in [*HEADS[name], "", line, LINES[name]]], log_format).fingerprint

    today = LINES[name]
    assert fingerprint(today) == fingerprint(today + "\r")
    assert fingerprint(today) != fingerprint(today.replace("2025-05-17", "2025-05-18"))
    assert fingerprint(today) != fingerprint(today.replace("10:05:03", "10:05:04"))
    assert header_lines([line.encode() for line in HEADS[name]], log_format) is None


def test_a_skipped_directive_is_applied() -> None:
    log = log_of([b"x"], W3C)
    log.skip_line(IIS_LINE.encode())
    log.skip_line(IIS_HEAD[3].encode())
    assert log.parse_event(IIS_LINE.encode(), 0)


PIECES = st.lists(
    st.sampled_from(
        [*IIS_HEAD, IIS_LINE, *CLOUDFRONT_HEAD, CLOUDFRONT_LINE, S3_LINE, "#Fields: date time", "#Date:", "#", '"', " "]
    )
    | st.text(max_size=4),
    max_size=4,
).map("".join)


@given(st.lists(PIECES | st.sampled_from([*IIS_HEAD, *CLOUDFRONT_HEAD]), max_size=6), st.sampled_from(LOG_FORMATS))
def test_any_log_is_parsed_or_rejected(lines: list[str], log_format: LogFormat) -> None:
    log = log_of([b"x"], log_format)
    for line in lines:
        with suppress(Malformed):
            event = log.parse_event(line.encode(errors="replace"), 0)
            assert event is None or event["event"] in {"view", "download", "error", "request"}
    with suppress(Malformed):
        assert detect_format([line.encode(errors="replace") for line in lines]) in LOG_FORMATS
