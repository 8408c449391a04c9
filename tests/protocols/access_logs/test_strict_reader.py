"""A line is read right or not at all: columns that are added, dropped, swapped or prefixed are never read as others."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metronome.enrich.addresses import ProxyNetworks
from metronome.errors import Malformed
from metronome.event import DEFAULT_INGEST_CONFIG
from metronome.items import ItemPattern
from metronome.protocols.access_logs.reader import (
    AccessLog,
    detect_format,
    get_format,
    log_fingerprint,
    parse_hit_line,
)
from metronome.protocols.records import event_from_record
from metronome.protocols.syslog.messages import parse_message

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0"
REST = f'"GET /d/rivers HTTP/1.1" 200 8123 "https://news.example/a" "{AGENT}"'
TIME = "[17/May/2015:10:05:03 +0000]"
CLIENT = "198.51.100.7"
RIGHT = {"clientip": CLIENT, "url": "/d/rivers", "status": 200, "agent": AGENT}

W3C_FIELDS = (
    "date time s-sitename cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) cs(Referer) "
    "sc-status"
)
W3C_LINE = (
    f"2015-05-17 10:05:03 W3SVC1 GET /d/rivers - 80 - {CLIENT} {AGENT.replace(' ', '+')} https://news.example/a 200"
)
S3_LINE = (
    f"79a59df900b9 bucket {TIME} {CLIENT} arn:aws:iam::1:user/ada 3E57427F3 REST.GET.OBJECT d/rivers "
    f'"GET /d/rivers HTTP/1.1" 200 - 113 4406 41 28 "https://news.example/a" "{AGENT}" v1'
)
ALB_LINE = (
    f"https 2015-05-17T10:05:03.051646Z app/lb/3011 {CLIENT}:41542 - 0.000 0.217 0.000 200 200 233 8123 "
    f'"GET https://a.example:443/d/rivers HTTP/1.1" "{AGENT}" ECDHE TLSv1.2'
)


def read(lines: list[str], name: str | None = None) -> list[dict[str, Any] | None]:
    """Return the fields of each line that is a request; None for one that is unreadable."""
    encoded = [line.encode() for line in lines]
    log_format = get_format(name) if name else detect_format(encoded)
    log = AccessLog(log_format, log_fingerprint(encoded[0]), ItemPattern())
    found: list[dict[str, Any] | None] = []
    for offset, line in enumerate(encoded):
        try:
            fields = log.parse_event(line, offset)
        except Malformed:
            found.append(None)
        else:
            if fields is not None:
                found.append(fields)
    return found


def read_one(line: str, name: str | None = None) -> dict[str, Any]:
    (fields,) = read([line], name)
    assert fields is not None
    return fields


@pytest.mark.parametrize(
    ("head", "client"),
    [
        ("198.51.100.7, 192.0.2.17 - -", "198.51.100.7"),
        ("198.51.100.7,192.0.2.17,192.0.2.2 - -", "198.51.100.7"),
        ("10.1.1.1, 198.51.100.7, 192.0.2.2 - -", "198.51.100.7"),
        ("unknown, 198.51.100.7 - -", "198.51.100.7"),
        ("198.51.100.7, ::ffff:192.0.2.79 - -", "198.51.100.7"),
        ('"198.51.100.7" - -', "198.51.100.7"),
        ('"198.51.100.7, 192.0.2.9" - -', "198.51.100.7"),
        ("198.51.100.7 192.0.2.10 - -", "198.51.100.7"),
        ("198.51.100.7, 192.0.2.1 192.0.2.10 - -", "198.51.100.7"),
        ("- 192.0.2.10 - -", "192.0.2.10"),
        ("198.51.100.7:41542 - -", "198.51.100.7"),
        ("[2001:db8::7]:41542 - -", "2001:db8::7"),
        ("[2001:db8::7]:443, 10.0.0.1 - -", "2001:db8::7"),
        ("10.0.0.1 (198.51.100.7) - -", "198.51.100.7"),
        ("192.0.2.23 (198.51.100.7, 10.0.0.1) - ada", "198.51.100.7"),
        ("192.0.2.23 (-) - -", "192.0.2.23"),
        ("192.0.2.23 - [198.51.100.7] - -", "198.51.100.7"),
        ("192.0.2.23 - [198.51.100.7, 10.0.0.1] - ada", "198.51.100.7"),
        ("www.example.org 198.51.100.7, 10.0.0.1 - -", "198.51.100.7"),
        ("www.example.org:443 198.51.100.7 192.0.2.1 - -", "198.51.100.7"),
        ("[2001:db8::5]:443 198.51.100.7 - -", "198.51.100.7"),
        ("192.0.2.5:80 198.51.100.7 - -", "198.51.100.7"),
    ],
)
def test_the_client_is_the_first_address_that_is_not_a_proxy_s(head: str, client: str) -> None:
    fields = read_one(f"{head} {TIME} {REST}")
    assert fields["clientip"] == client
    assert fields.get("user") in (None, "ada")
    assert "clienthost" not in fields
    assert fields.get("host") in (None, "www.example.org", "[2001:db8::5]", "192.0.2.5")
    hit = parse_hit_line(f"{head} {TIME} {REST}", ItemPattern(), frozenset())
    assert hit is not None
    assert hit["clientip"] == client


@pytest.mark.parametrize(
    ("peer", "column", "client"),
    [
        ("10.0.0.5", '"198.51.100.7, 192.0.2.252"', CLIENT),
        ("10.0.0.5", '"198.51.100.7""51" "10.0.0.1:80"  "0.012"a.example:443', CLIENT),
        ("10.0.0.5", "198.51.100.7 0.01", CLIENT),
        ("10.0.0.5", '"-" "198.51.100.7"', "10.0.0.5"),
        ("10.0.0.5", '"10.0.0.9:80"', "10.0.0.5"),
        ("10.0.0.5", '"gzip" 0.01', "10.0.0.5"),
        ("203.0.113.5", '"198.51.100.7"', "203.0.113.5"),
    ],
)
def test_a_forwarded_address_after_the_user_agent_counts_if_the_peer_is_a_proxy(
    peer: str, column: str, client: str
) -> None:
    fields = read_one(f"{peer} - - {TIME} {REST} {column}")
    assert (fields["clientip"], fields["agent"]) == (client, AGENT)


def test_trusted_proxies_are_never_the_client() -> None:
    line = f'203.0.113.5 - - {TIME} {REST} "198.51.100.7, 203.0.113.9"'
    proxies = ProxyNetworks(["203.0.113.0/24"])
    hit = parse_hit_line(line, ItemPattern(), frozenset(), proxies)
    assert hit is not None
    assert hit["clientip"] == CLIENT


PREFIXES = [
    *("<13>Nov 29 04:33:01 web1 nginx: ", "Nov  9 04:33:01 web1 nginx[12]: ", "Nov 29 04:33:01 nginx: "),
    *(
        "2024-05-07T08:39:37.326492+00:00 ip-192-0-2-50 haproxy[22009]: ",
        "<190>1 2024-05-07T08:39:37Z web1 nginx - - - ",
    ),
    *("2024 May  7 08:39:37 web1 nginx: ", "Tue 2024-05-07 08:39:37 CEST web1 nginx[12]: "),
    *("2024-05-07T08:39:37.326492Z stdout F ", "2024-05-07T08:39:37.326492Z ", "web-1  | ", "nginx_1 | "),
    *("\x1b[36mweb-1  |\x1b[0m ", "[pod/web-7d/nginx] ", "nginx: ", "<190>"),
]
LINES = [f"{CLIENT} - - {TIME} {REST}", f"www.example.org:443 {CLIENT} - - {TIME} {REST}", ALB_LINE, S3_LINE]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("line", LINES)
def test_what_other_programs_write_before_a_line_is_skipped(prefix: str, line: str) -> None:
    fields = read_one(prefix + line)
    assert {name: fields[name] for name in ("clientip", "status", "agent")} == {
        "clientip": CLIENT,
        "status": 200,
        "agent": AGENT,
    }
    assert fields.get("host") in (None, "www.example.org")


@pytest.mark.parametrize("name", ["log", "MESSAGE", "message", "textPayload", "line"])
def test_a_line_within_a_json_object_is_read(name: str) -> None:
    for inner in (
        LINES[0],
        PREFIXES[0] + LINES[0],
        json.dumps(
            {
                "remote_addr": CLIENT,
                "request": "GET /d/rivers",
                "status": 200,
                "time": "2015-05-17T10:05:03Z",
                "user_agent": AGENT,
            }
        ),
    ):
        fields = read_one(json.dumps({name: inner + "\n", "stream": "stdout", "time": "2019-07-30T04:45:57Z"}))
        assert {key: fields[key] for key in RIGHT} == RIGHT
        assert fields["@timestamp"] == "2015-05-17T10:05:03.000Z"


@pytest.mark.parametrize(
    ("rest", "agent"),
    [
        (
            '"GET /d/rivers HTTP/1.1" 200 5 Mozilla/5.0 (compatible; Googlebot/2.1)',
            "Mozilla/5.0 (compatible; Googlebot/2.1)",
        ),
        ('"GET /d/rivers HTTP/1.1" 200 5 - curl/8.1', "curl/8.1"),
        ('"GET /d/rivers HTTP/1.1" 200 5 https://news.example/a curl/8.1', "curl/8.1"),
        ('"GET /d/rivers?t="Rivers of Europe" HTTP/1.1" 200 5', None),
        ('"GET /d/rivers?a=<b>("c")</b> HTTP/1.0" 200 5 "-" "curl/8"', "curl/8"),
        ('"GET /d/rivers HTTP/1.1" 200 5 0.012 "-" "curl/8"', "curl/8"),
        ('"GET /d/rivers HTTP/1.1" 200 5 "" "" 25792 302 "ft~" "bk01"', None),
        ('"GET /d/rivers HTTP/1.1" 200 5 "curl/8"', "curl/8"),
    ],
)
def test_unusual_lines_are_read(rest: str, agent: str | None) -> None:
    fields = read_one(f"{CLIENT} - - {TIME} {rest}", "combined")
    assert (fields["clientip"], fields["id"], fields["event"], fields.get("agent")) == (
        CLIENT,
        "/d/rivers",
        "view",
        agent,
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"- - {TIME} {REST}", "expected client, identity and user"),
        (f"- - {CLIENT} {TIME} {REST}", "an IP address where the identity or the user"),
        (f"INFO 0.12 {CLIENT} - - {TIME} {REST}", "neither an IP address nor a host name"),
        (f"www.example.org:80 - - {TIME} {REST}", "neither an IP address nor a host name"),
        (f'{CLIENT} - - {TIME} "GET / HTTP/1.1" 8123 200 "-" "curl/8"', "expected client"),
        (f'{CLIENT} - - {TIME} "GET / HTTP/1.1" 199 5 "-" "curl/8"', "'199' is not an HTTP status"),
        (f'{CLIENT} - - {TIME} "curl/8" 200 5 "-" "GET / HTTP/1.1"', "a request where"),
        (f'{CLIENT} - - {TIME} "-" 200 5 "GET / HTTP/1.1" "curl/8"', "a request where"),
        (f'{CLIENT} - - {TIME} "GET / HTTP/1.1" 200 5 "curl/8" "-"', "is where the referrer should be"),
        (f'{CLIENT} - - {TIME} "GET / HTTP/1.1" 200 5 "curl/8" "https://a.example/"', "is where the user agent"),
        (f'{CLIENT} - - {TIME} "GET / HTTP/1.1" 200 5 "https://a.example/"', 'expected "referrer" and "user agent"'),
        (f'{CLIENT} - - {TIME} "GET / HTTP/1.1" 200 5 "-" "192.0.2.1"', "an IP address where the user agent"),
        (f'{CLIENT} - Mozilla/5.0 {TIME} "GET / HTTP/1.1" 200 5', "is where the user should be"),
    ],
)
def test_a_line_whose_columns_are_others_is_unreadable(line: str, reason: str) -> None:
    log = AccessLog(get_format("combined"), b"", ItemPattern())
    with pytest.raises(Malformed, match=reason):
        log.parse_event(line.encode(), 0)


# Two columns of one kind, such as the addresses of server and client, cannot be told apart.
COLUMNS: dict[str, tuple[list[str], list[str], str]] = {
    "combined": (
        [],
        [CLIENT, "-", "-", TIME, '"GET /d/rivers HTTP/1.1"', "200", "8123", '"https://news.example/a"', f'"{AGENT}"'],
        " ",
    ),
    "vhost-combined": (
        [],
        ["www.example.org:443", CLIENT, "-", "-", TIME, '"GET /d/rivers HTTP/1.1"', "200", "8123", '"-"', f'"{AGENT}"'],
        " ",
    ),
    "w3c": ([f"#Fields: {W3C_FIELDS}"], W3C_LINE.split(" "), " "),
    "aws-alb": (
        [],
        [*ALB_LINE.split(" ")[:12], '"GET https://a.example:443/d/rivers HTTP/1.1"', f'"{AGENT}"', "ECDHE", "TLSv1.2"],
        " ",
    ),
}
ADDED = st.sampled_from(["-", "0.012", '"-"', "gzip", '"10.0.0.1:80"', "x=1", "[1]", "10"])


@st.composite
def changed_columns(draw: st.DrawFn) -> tuple[str, list[str]]:
    name = draw(st.sampled_from([*COLUMNS]))
    head, columns, separator = COLUMNS[name]
    changed = [*columns]
    at = draw(st.integers(0, len(changed) - 1))
    match draw(st.sampled_from(["add", "drop", "swap", "prefix"])):
        case "add":
            changed.insert(at, draw(ADDED))
        case "drop":
            del changed[at]
        case "swap":
            other = draw(st.integers(0, len(changed) - 1))
            changed[at], changed[other] = changed[other], changed[at]
        case _:
            return name, [*head, draw(st.sampled_from(PREFIXES)) + separator.join(changed)]
    return name, [*head, separator.join(changed)]


@settings(max_examples=200)
@given(changed_columns())
def test_changed_columns_are_refused_or_read_the_same(changed: tuple[str, list[str]]) -> None:
    name, lines = changed
    for fields in read(lines, name):
        if fields is not None:
            path = fields["url"].removeprefix("https://a.example:443").partition("?")[0]
            assert {**{key: fields.get(key) for key in RIGHT}, "url": path} == RIGHT


@settings(max_examples=100)
@given(changed_columns().filter(lambda changed: changed[0] in {"combined", "aws-alb"}))
def test_changed_columns_by_syslog_or_forward_are_a_message_or_read_the_same(changed: tuple[str, list[str]]) -> None:
    (line,) = changed[1]
    message = f"<190>1 2015-05-17T10:05:03Z web1 nginx 7 - - {line}"
    syslog = parse_message(message.encode(), "2015-05-17T10:05:03.000Z", "", DEFAULT_INGEST_CONFIG)
    forward = event_from_record({"log": line}, DEFAULT_INGEST_CONFIG)
    for fields in (syslog.fields, forward.fields):
        if fields["event"] != "log":
            path = fields["url"].removeprefix("https://a.example:443").partition("?")[0]
            assert {**{key: fields.get(key) for key in RIGHT}, "url": path} == RIGHT
