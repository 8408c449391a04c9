"""Requests as records: JSON logs of NGINX and Caddy, records of shippers, and lines of unknown formats."""

import copy
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed
from metronome.items import ItemPattern, compile_item_pattern
from metronome.protocols.access_logs.reader import (
    LINE_MAX_BYTES,
    detect_format,
    get_format,
    parse_hit_line,
    parse_hit_record,
    parse_line,
)

ITEM_PATTERN = compile_item_pattern("^/data/(?P<id>[^/.]+)(?:[.](?P<format>csv))?")
OWN = frozenset({"own.example"})
Fields = dict[str, Any]

NGINX: Fields = {
    "time_iso8601": "2025-05-17T12:05:03+02:00",
    "remote_addr": "2001:db8::7",
    "remote_user": "ada",
    "request": "GET /data/a.csv?x=1 HTTP/1.1",
    "status": "200",
    "body_bytes_sent": "512",
    "http_referer": "https://news.example/a",
    "http_user_agent": 'Reader "Pro"',
    "server_name": "www.example.org",
    "request_time": "0.0125",
    "upstream": "10.0.0.1:80",
}
HIT: Fields = {
    "@timestamp": "2025-05-17T10:05:03.000Z",
    "event": "download",
    "id": "a",
    "format": "csv",
    "clientip": "2001:db8::7",
    "user": "ada",
    "method": "GET",
    "url": "/data/a.csv?x=1",
    "status": 200,
    "bytes": 512,
    "referer": "https://news.example/a",
    "agent": 'Reader "Pro"',
    "host": "www.example.org",
    "duration": 12.5,
}
CADDY: Fields = {
    "level": "info",
    "ts": 1747476303.25,
    "logger": "http.log.access.log0",
    "msg": "handled request",
    "request": {
        "remote_ip": "10.0.0.1",
        "remote_port": "41342",
        "client_ip": "2001:db8::7",
        "proto": "HTTP/2.0",
        "method": "GET",
        "host": "www.example.org:443",
        "uri": "/data/a.csv?x=1",
        "headers": {
            "User-Agent": ['Reader "Pro"'],
            "Referer": ["https://news.example/a"],
            "Cookie": ["id=7"],
            "X-Forwarded-For": ["192.0.2.7"],
        },
        "tls": {"resumed": False},
    },
    "bytes_read": 0,
    "user_id": "ada",
    "duration": 0.0125,
    "size": 512,
    "status": 200,
    "resp_headers": {"Server": ["Caddy"]},
}


def web(record: Fields) -> Fields:
    found = parse_hit_record(record, ITEM_PATTERN, OWN)
    assert found is not None
    return found


def read(record: Fields, name: str) -> Fields | None:
    return parse_line(json.dumps(record).encode(), get_format(name), ITEM_PATTERN, OWN)


def test_a_line_of_nginx_has_every_field_and_keeps_others() -> None:
    assert read(NGINX, "nginx-json") == {**HIT, "upstream": "10.0.0.1:80"}


def test_a_line_of_caddy_has_every_field() -> None:
    assert read(CADDY, "caddy-json") == {**HIT, "@timestamp": "2025-05-17T10:05:03.250Z", "bytes_read": 0}


SPELLINGS: list[tuple[str, list[Fields]]] = [
    ("clientip", [{name: "2001:db8::7"} for name in ("clientip", "remote", "remote_addr", "source.ip", "client_ip")]),
    ("clientip", [{"source": {"ip": "2001:db8::7"}}, {"host": "2001:db8::7"}]),
    ("status", [{name: "200"} for name in ("response", "code", "status", "http.response.status_code")]),
    ("status", [{"http": {"response": {"status_code": 200}}}, {"status": 200.0}]),
    ("method", [{name: "GET"} for name in ("verb", "method", "request_method", "http.request.method")]),
    ("method", [{"http": {"request": {"method": "get"}}}]),
    ("url", [{name: "/data/a.csv?x=1"} for name in ("request", "path", "url", "uri", "request_uri", "url.original")]),
    ("url", [{"url": {"path": "/data/a.csv", "query": "x=1"}}, {"uri": "/data/a.csv", "args": "x=1"}]),
    ("bytes", [{name: "512"} for name in ("bytes", "size", "body_bytes_sent", "bytes_sent")]),
    ("bytes", [{"http": {"response": {"body": {"bytes": 512}}}}, {"http.response.body.bytes": 512}]),
    ("referer", [{name: HIT["referer"]} for name in ("referrer", "referer", "http_referer", "http.request.referrer")]),
    ("agent", [{name: HIT["agent"]} for name in ("agent", "user_agent", "http_user_agent", "user_agent.original")]),
    ("agent", [{"user_agent": {"original": HIT["agent"]}}]),
    ("host", [{name: "www.example.org:80"} for name in ("host", "server_name", "http_host")]),
    ("clientip", [{"req": {"remoteAddress": "2001:db8::7"}}]),
    ("status", [{"res": {"statusCode": 200}}]),
    ("method", [{"req": {"method": "GET"}}]),
    ("url", [{"req": {"url": "/data/a.csv?x=1"}}]),
    ("referer", [{"req": {"headers": {"referer": HIT["referer"]}}}]),
    ("agent", [{"req": {"headers": {"user-agent": HIT["agent"]}}}]),
    ("host", [{"req": {"headers": {"host": "www.example.org:80"}}}]),
    ("user", [{"remote_user": "ada"}, {"user": "ada"}, {"user": {"name": "ada"}}]),
    ("duration", [{"request_time": 0.0125}, {"request_time": "0.0125"}]),
    ("@timestamp", [{name: "17/May/2025:12:05:03 +0200"} for name in ("time", "time_local", "timestamp")]),
    ("@timestamp", [{"@timestamp": "2025-05-17T10:05:03Z"}, {"msec": "1747476303.000"}, {"time": 1747476303}]),
]


@pytest.mark.parametrize(("name", "spelling"), [(name, one) for name, spellings in SPELLINGS for one in spellings])
def test_each_field_is_found_under_different_names(name: str, spelling: Fields) -> None:
    others = {"url": ["id", "event", "format"], "method": ["event", "format"], "status": ["event", "format"]}
    known = {"request_uri": "/data/a.csv?x=1", "request_method": "GET", "status": "200"}
    alike = {"url": "request_uri", "method": "request_method", "status": "status"}
    record = {key: value for key, value in known.items() if key != alike.get(name)}
    before = copy.deepcopy({**record, **spelling})
    found = web({**record, **spelling})
    expected = ["url", "method", "status", "id", "event", "format", name, *others.get(name, [])]
    assert found == {part: HIT[part] for part in expected}
    assert {**record, **spelling} == before


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"agent": {"type": "filebeat", "id": 7}}, {"agent": "UA", "agent.type": "filebeat", "agent.id": 7}),
        ({"host": {"name": "machine"}}, {"host.name": "machine"}),
        ({"event": {"dataset": "nginx.access"}}, {"event.dataset": "nginx.access"}),
        ({"event": "access", "id": "r7"}, {"record_event": "access", "record_id": "r7"}),
        ({"source": {"ip": "192.0.2.1", "port": 7}}, {"clientip": "192.0.2.1", "source": {"port": 7}}),
        (
            {"url": {"original": "/data/a", "domain": "a.example"}, "path": "/var/log/a.log"},
            {"url.domain": "a.example"},
        ),
        (
            {"clientip": "192.0.2.1", "message": "192.0.2.1 - -", "x_forwarded_for": "192.0.2.1, ::1"},
            {"clientip": "192.0.2.1"},
        ),
        ({"remote": "crawler.example", "message": "kept"}, {"clienthost": "crawler.example", "message": "kept"}),
        ({"remote_user": "-", "referer": "", "server_name": "_"}, {"server_name": "_"}),
        ({"size": True, "request_time": "-1", "time": "soon", "duration": "1 s"}, None),
        ({"bytes": "many", "code": [7], "method": 7}, {"record_bytes": "many", "code": [7], "record_method": 7}),
        ({"time": 0.25, "tags": ["a"]}, {"time": 0.25, "tags": ["a"]}),
        ({"referer": "http://own.example/"}, {"referer_url": "http://own.example/"}),
    ],
)
def test_other_fields_are_kept_or_renamed(extra: Fields, expected: Fields | None) -> None:
    record = {"request": "GET /data/a HTTP/1.1", "status": 200, "user_agent": "UA", **extra}
    plain = {"url": "/data/a", "method": "GET", "status": 200, "agent": "UA", "event": "view", "id": "a"}
    found = web(record)
    if "path" in extra:
        assert found.pop("path") == "/var/log/a.log"
    assert found == {**plain, **(extra if expected is None else expected)}


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"message": "hello", "status": 200, "method": "GET"},
        {"path": "/data/a"},
        {"path": "logs/a", "status": 200},
        {"url": {"domain": "a.example"}, "status": 200},
        {"request": "r-77 of many", "status": 200},
        {"request": "-", "status": 400},
        {"request": None, "path": 7, "status": 200},
        {"request": {"id": 7}, "status": 200},
        {"request": {"uri": "/data/a"}},
        {"request": {"uri": "/data/a", "method": "GET"}, "ts": "soon"},
    ],
)
def test_other_records_are_not_requests(record: Fields) -> None:
    assert parse_hit_record(record, ITEM_PATTERN, OWN) is None


def test_an_invalid_request_line_is_kept_if_there_is_a_client() -> None:
    found = web({"request": "\x16\x03\x01", "status": "400", "remote_addr": "::1"})
    assert (found["event"], found["request"]) == ("error", "\x16\x03\x01")


@pytest.mark.parametrize(
    ("name", "record", "reason"),
    [
        ("nginx-json", {"status": "200"}, "no request or path"),
        ("nginx-json", {"request": "GET / HTTP/1.1", "status": "200"}, "no time: log .time_iso8601"),
        ("nginx-json", ["/"], "not a JSON object"),
        ("caddy-json", {"request": {"method": "GET"}}, "no request with a uri"),
        ("caddy-json", {"request": {"method": "GET", "uri": "/"}}, "no time"),
        ("caddy-json", {**CADDY, "ts": "soon"}, "invalid timestamp"),
    ],
)
def test_rejects_other_json_with_a_reason(name: str, record: Fields, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        read(record, name)


def test_rejects_invalid_json() -> None:
    for line, reason in ((b"{", "invalid JSON"), (b"GET /", "not a JSON object")):
        with pytest.raises(Malformed, match=reason):
            parse_line(line, get_format("nginx-json"), ITEM_PATTERN, OWN)


def test_other_messages_of_caddy_are_skipped() -> None:
    assert read({"level": "info", "ts": 1747476303, "msg": "server running"}, "caddy-json") is None


@pytest.mark.parametrize(("name", "record"), [("nginx-json", NGINX), ("caddy-json", CADDY)])
def test_the_json_format_is_detected(name: str, record: Fields) -> None:
    lines = [b'{"level":"info","ts":1747476303,"msg":"started"}', json.dumps(record).encode()]
    assert detect_format(lines).name == name
    assert detect_format(lines[1:]).name == name


COMBINED = '192.0.2.1 - - [17/May/2025:10:05:03 +0000] "GET /data/a HTTP/1.1" 200 5 "-" "curl/8"'


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (COMBINED, {"agent": "curl/8"}),
        (COMBINED.partition(' "-"')[0], {"bytes": 5}),
        (f"www.example.org:80 {COMBINED}\n", {"host": "www.example.org"}),
        (COMBINED.replace("curl/8", "cürl/\udc80"), {"agent": "cürl/\\udc80"}),
        (f"  {json.dumps(NGINX)}", {"duration": 12.5}),
        (json.dumps(CADDY), {"duration": 12.5}),
    ],
)
def test_a_line_of_a_known_format_is_parsed(line: str, expected: Fields) -> None:
    found = parse_hit_line(line, ITEM_PATTERN, OWN)
    assert found is not None
    assert found["id"] == "a"
    assert expected.items() <= found.items()
    if "\udc80" not in line:
        assert parse_hit_line(line.encode(), ITEM_PATTERN, OWN) == found


@pytest.mark.parametrize(
    "line",
    [
        *("", "hello", '[x] "y"', "{", "{}", '{"message": "GET /"}', "[1]", "{" * 10_000, "\ud800", '\ud800 [] "'),
        COMBINED.replace("May", "Mai"),
        COMBINED + "x" * LINE_MAX_BYTES,
        '{"level":"info","msg":"started"}',
    ],
)
def test_other_lines_are_not_requests(line: str) -> None:
    assert parse_hit_line(line, ITEM_PATTERN, OWN) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["-", "/a", "200"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["ip", "path", "method", "a"]), inner),
    max_leaves=4,
)
NAMES = st.sampled_from(
    [*NGINX, *CADDY, "source", "url", "http", "user_agent", "user", "host", "agent", "clientip", "event", "id", "time"]
)
RECORDS = st.one_of(
    st.dictionaries(NAMES | st.text(max_size=3), JSON),
    st.dictionaries(NAMES, JSON).map(lambda some: {**NGINX, **some}),
    st.dictionaries(NAMES, JSON).map(lambda some: {**CADDY, **some}),
    st.dictionaries(st.sampled_from([*CADDY["request"]]), JSON).map(
        lambda some: {**CADDY, "request": {**CADDY["request"], **some}}
    ),
)


@given(RECORDS, st.sampled_from([ITEM_PATTERN, ItemPattern()]))
def test_any_record_is_a_request_or_none_and_is_not_changed(record: Fields, item_pattern: ItemPattern) -> None:
    before = copy.deepcopy(record)
    found = parse_hit_record(record, item_pattern, OWN)
    assert repr(record) == repr(before)
    assert found is None or found["event"] in {"view", "download", "error", "request"}


LINES = st.one_of(
    st.text(),
    st.binary(),
    RECORDS.map(json.dumps),
    st.tuples(st.integers(0, len(COMBINED)), st.text(max_size=4)).map(
        lambda cut: COMBINED[: cut[0]] + cut[1] + COMBINED[cut[0] :]
    ),
)


@given(LINES)
def test_any_line_is_a_request_or_none(line: str | bytes) -> None:
    found = parse_hit_line(line, ITEM_PATTERN, OWN)
    assert found is None or (found["event"] in {"view", "download", "error", "request"} and "@timestamp" in found)
    with suppress(Malformed):
        parse_line(
            line if isinstance(line, bytes) else line.encode(errors="replace"),
            get_format("caddy-json"),
            ITEM_PATTERN,
            OWN,
        )
