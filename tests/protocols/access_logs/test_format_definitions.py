"""Formats that are defined by a string, and JSON logs by the names of their fields."""

import json
from typing import Any

import pytest

from metronome.errors import ConfigurationError, Malformed
from metronome.items import ItemPattern
from metronome.protocols.access_logs.format_strings import MAX_FORMAT_CHARACTERS, compile_format
from metronome.protocols.access_logs.reader import LogFormat, detect_format, get_format, parse_hit_line, parse_line

AGENT = "Mozilla/5.0 (X11; Linux x86_64)"
CLIENT = "198.51.100.7"
RIGHT = {"clientip": CLIENT, "status": 200, "id": "/d/rivers", "event": "view"}


def read(line: str, log_format: LogFormat) -> dict[str, Any]:
    fields = parse_line(line.encode(), log_format, ItemPattern(), frozenset())
    assert fields is not None
    return fields


@pytest.mark.parametrize(
    ("name", "line", "others"),
    [
        (
            "aws-alb",
            (
                f"h2 2024-05-12T06:41:30.051646Z lb/3 {CLIENT}:41542 10.0.0.6:90 0.001 0.217 0.000 200 200 233 390 "
                f'"GET https://a.example:443/d/rivers HTTP/2.0" "{AGENT}" ECDHE-RSA TLSv1.2 arn:x "Root=1" "a.example"'
            ),
            {"agent": AGENT, "bytes": 390, "method": "GET"},
        ),
        (
            "aws-elb",
            (
                f"2024-05-12T06:41:30.051646Z lb {CLIENT}:41542 10.0.0.6:80 0.001 0.217 0.000 200 200 0 29 "
                f'"GET http://a.example:80/d/rivers HTTP/1.1" "{AGENT}" - -'
            ),
            {"agent": AGENT, "bytes": 29},
        ),
        (
            "haproxy",
            (
                f"Feb  6 12:14:14 lb haproxy[14389]: {CLIENT}:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 "
                f'10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {{a.example|{AGENT}}} {{}} "GET /d/rivers HTTP/1.1"'
            ),
            {"agent": AGENT, "host": "a.example", "duration": 109, "@timestamp": "2009-02-06T12:14:14.655Z"},
        ),
        (
            "haproxy",
            (
                f"{CLIENT}:33317 [06/Feb/2009:12:14:14.655] in~ a/<NOSRV> 0/-1/-1/-1/+0 200 +212 - - SC-- 0/0/0/0 0/0 "
                '"GET /d/rivers HTTP/1.1"'
            ),
            {"bytes": 212},
        ),
        (
            "haproxy",
            (
                "haproxy[1]: 2001:db8::7:443 [06/Feb/2009:12:14:14.655] https-in~ static/srv1 10/0/30/69/109 200 2750 "
                '- - ---- 1/1/1/1/0 0/0 "GET /d/rivers HTTP/1.1" 0/0000000000000000/0/0/0 a.example/TLSv1.3/AES'
            ),
            {"clientip": "2001:db8::7", "duration": 109},
        ),
        (
            "aws-alb",
            (
                "h2 2024-05-12T06:41:30.051646Z lb/3 2001:db8::7:41542 10.0.0.6:90 0.001 0.217 0.000 200 200 233 390 "
                f'"GET https://a.example:443/d/rivers HTTP/2.0" "{AGENT}" ECDHE-RSA TLSv1.2 arn:x "Root=1" "a.example"'
            ),
            {"clientip": "2001:db8::7"},
        ),
        (
            "envoy",
            (
                f'[2024-01-01T10:00:00.123Z] "GET /d/rivers HTTP/2" 200 - 0 1200 12 11 "{CLIENT}" "{AGENT}" "abc-1" '
                '"a.example" "10.0.0.1:80"'
            ),
            {"agent": AGENT, "bytes": 1200, "duration": 12, "host": "a.example"},
        ),
        (
            "envoy",
            (
                f'[2024-01-01T10:00:00.123Z] "GET /d/rivers HTTP/1.1" 200 - via - "-" 0 1200 12 11 "{CLIENT},10.0.0.9" '
                f'"{AGENT}" "abc-1" "a.example" "10.0.0.1:80" inbound|80|| 127.0.0.6:1 10.0.0.1:80'
            ),
            {"agent": AGENT, "bytes": 1200},
        ),
        (
            "nginx-proxy-manager",
            (
                '[17/May/2015:10:05:03 +0000] - 200 200 - GET https a.example "/d/rivers" '
                f'[Client {CLIENT}] [Length 45] [Gzip 2.1] [Sent-to 10.0.0.2] "{AGENT}" "https://news.example/a"'
            ),
            {"agent": AGENT, "bytes": 45, "host": "a.example", "referer": "https://news.example/a"},
        ),
        (
            "nginx-proxy-manager",
            (
                f'[17/May/2015:10:05:03 +0000] 200 - GET http a.b "/d/rivers" [Client {CLIENT}] [Length 4] [Gzip -] '
                f'"{AGENT}" "-"'
            ),
            {"agent": AGENT},
        ),
    ],
)
def test_a_line_of_each_format_is_read_and_its_format_found(name: str, line: str, others: dict[str, Any]) -> None:
    assert detect_format([line.encode()]).name == name
    fields = read(line, get_format(name))
    assert {key: fields.get(key) for key in [*RIGHT, *others]} == {**RIGHT, **others}


JSON_LINES: list[dict[str, Any]] = [
    {
        "ClientAddr": f"{CLIENT}:52025",
        "ClientHost": CLIENT,
        "DownstreamStatus": 200,
        "OriginStatus": 200,
        "DownstreamContentSize": 14,
        "Duration": 5726712,
        "RequestMethod": "GET",
        "RequestPath": "/d/rivers",
        "RequestHost": "a.example",
        "request_User-Agent": AGENT,
        "StartUTC": "2025-10-18T23:00:00.1Z",
        "msg": "",
        "time": "2025-10-18T23:00:00Z",
    },
    {
        "httpRequest": {
            "remoteIp": CLIENT,
            "requestMethod": "GET",
            "requestUrl": "https://a.example/d/rivers?x=1",
            "status": 200,
            "responseSize": "1200",
            "userAgent": AGENT,
            "latency": "0.045s",
        },
        "timestamp": "2024-01-01T10:00:00.123456Z",
    },
    {
        "date": "2024-12-12",
        "time": "20:54:17",
        "c-ip": CLIENT,
        "cs-method": "GET",
        "cs-uri-stem": "/d/rivers",
        "cs-uri-query": "-",
        "sc-status": "200",
        "cs(User-Agent)": AGENT.replace(" ", "%20"),
    },
    {
        "ClientIP": CLIENT,
        "ClientRequestMethod": "GET",
        "ClientRequestURI": "/d/rivers",
        "EdgeResponseStatus": 200,
        "EdgeStartTimestamp": 1704103200000000000,
        "ClientRequestUserAgent": AGENT,
    },
    {
        "time": "2024-01-01T10:00:00.1234567Z",
        "category": "FrontDoorAccessLog",
        "properties": {
            "clientIp": CLIENT,
            "httpMethod": "GET",
            "httpStatusCode": "200",
            "requestUri": "https://a.example:443/d/rivers",
            "userAgent": AGENT,
            "timeTaken": "0.230",
        },
    },
    {
        "start_time": "2024-01-01T10:00:00.123Z",
        "method": "GET",
        "path": "/d/rivers",
        "response_code": 200,
        "duration": 12,
        "x_forwarded_for": f"{CLIENT}, 10.0.0.2",
        "user_agent": AGENT,
        "downstream_remote_address": "10.0.0.2:55555",
    },
    {
        "remote_addr": "203.0.113.3",
        "X-Forwarded-For": CLIENT,
        "time_local": "26/Jun/2023:14:24:53 +0800",
        "method": "GET",
        "uri": "/d/rivers",
        "response_status": "200",
        "httpUserAgent": AGENT,
    },
    {
        "ts": "2021/02/02 10:00:00.000",
        "request": {
            "remote_addr": f"{CLIENT}:55",
            "method": "GET",
            "uri": "/d/rivers",
            "headers": {"User-Agent": [AGENT]},
        },
        "common_log": f"{CLIENT} - -",
        "duration": "24.3ms",
        "status": 200,
    },
]


@pytest.mark.parametrize("record", JSON_LINES)
def test_json_logs_are_read_by_the_names_of_their_fields(record: dict[str, Any]) -> None:
    line = json.dumps(record)
    fields = read(line, detect_format([line.encode()]))
    assert {key: fields.get(key) for key in RIGHT} == RIGHT
    assert fields["agent"] == AGENT
    assert "@timestamp" in fields
    assert "common_log" not in fields


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"status": "curl/8", "request": "GET / HTTP/1.1", "time": "2024-01-01T10:00Z"}, "is not an HTTP status"),
        ({"status": 200, "uri": "/", "remote_addr": "GET /", "time": "2024-01-01T10:00Z"}, "client's IP address"),
        (
            {"status": 200, "uri": "/", "http_user_agent": "https://a.example/", "time": "2024-01-01T10:00Z"},
            "user agent",
        ),
        ({"status": 200, "uri": "/", "remote_user": CLIENT, "time": "2024-01-01T10:00Z"}, "where the user should be"),
    ],
)
def test_json_with_other_values_is_unreadable(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        read(json.dumps(record), get_format("json"))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('%h %{X-Forwarded-For}i %l %u %t %D "%r" %>s %b', f'10.0.0.1 {CLIENT}, 10.0.0.2 - - [{{}}] 56 "{{}}" 200 5'),
        ('%t %a %v %u \\"%r\\" %>s %b', f'[{{}}] {CLIENT} a.example - "{{}}" 200 5'),
        ('%h,%l,%u,%t,"%r",%>s,%b,microsec,%D', f'{CLIENT},-,-,[{{}}],"{{}}",200,366,microsec,8847'),
        ('LogFormat "%h %l %u %t \\"%r\\" %>s %b" mine', f'{CLIENT} - Ada King [{{}}] "{{}}" 200 5'),
        ('$remote_addr [$time_local] "$request" $status "$http_cookie"', f'{CLIENT} [{{}}] "{{}}" 200 "a=1; b"'),
        (
            "log_format x '$remote_addr|$time_local|'\n '$request|${{status}}';".replace("{{", "{").replace("}}", "}"),
            f"{CLIENT}|{{}}|{{}}|200",
        ),
    ],
)
def test_a_format_string_is_nginx_s_or_apache_s(text: str, line: str) -> None:
    fields = read(line.format("17/May/2015:10:05:03 +0200", "GET /d/rivers HTTP/1.1"), get_format(text))
    assert {key: fields.get(key) for key in RIGHT} == RIGHT
    assert fields["@timestamp"] == "2015-05-17T08:05:03.000Z"


def test_a_json_format_of_nginx_is_read_by_its_variables() -> None:
    log_format = get_format('{"a":"$remote_addr","t":"$time_iso8601","r":"$request","s":$status,"x":"$upstream_addr"}')
    line = {"a": CLIENT, "t": "2015-05-17T10:05:03+02:00", "r": "GET /d/rivers HTTP/1.1", "s": 200, "x": "10.0.0.1"}
    fields = read(json.dumps(line), log_format)
    assert {key: fields.get(key) for key in RIGHT} == RIGHT


def test_a_line_of_another_format_is_refused_with_the_column() -> None:
    with pytest.raises(Malformed, match="expected status at 'OK 5', after '\" '"):
        read(f'{CLIENT} [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" OK 5', get_format('%a %t "%r" %>s %b'))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("%h %r", "has no time"), ("$time_local", "has no request"), ("%" * (MAX_FORMAT_CHARACTERS + 1), "over 4,096")],
)
def test_an_unusable_format_string_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        compile_format(text)


def test_a_line_by_syslog_or_a_shipper_may_have_these_formats() -> None:
    lines = [
        (
            f"{CLIENT}:33317 [06/Feb/2009:12:14:14.655] in app/srv 1/1/1/1/1 200 5 - - ---- 1/1/1/1/0 0/0 "
            '"GET /d/rivers HTTP/1.1"'
        ),
        f'[2024-01-01T10:00:00.123Z] "GET /d/rivers HTTP/2" 200 - 0 12 12 11 "{CLIENT}" "-" "abc" "a.example" "-"',
        (
            '[17/May/2015:10:05:03 +0000] - 200 200 - GET https a.example "/d/rivers" '
            f'[Client {CLIENT}] [Length 45] [Gzip 2.1] [Sent-to 10.0.0.2] "-" "-"'
        ),
    ]
    for line in lines:
        fields = parse_hit_line(line, ItemPattern(), frozenset())
        assert fields is not None
        assert {key: fields.get(key) for key in RIGHT} == RIGHT
