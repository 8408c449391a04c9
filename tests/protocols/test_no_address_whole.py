"""No document holds a client's address whole, whatever field of whatever protocol it comes in.

The spool, the stores and the archive are given the same bytes, so those are searched.
"""

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metronome.enrich.addresses import AddressRole, address_role, anonymize_address, anonymize_text, split_addresses
from metronome.errors import Malformed
from metronome.event import DocumentContext, Event, build_document
from metronome.items import ItemPattern
from metronome.protocol import Request
from metronome.protocols.access_logs.reader import LOG_FORMATS, parse_hit_line, parse_line
from metronome.protocols.elasticsearch import protocol as elasticsearch
from metronome.protocols.matomo import tracker as matomo
from metronome.protocols.micro_metrics.tracking import TrackProtocol
from metronome.protocols.native import pixel, tick
from metronome.protocols.otlp import protocol as otlp
from metronome.protocols.records import event_from_record
from metronome.protocols.syslog.messages import parse_message
from metronome.protocols.web_trackers import goatcounter, plausible, umami

CONTEXT = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
HOUSEHOLD_V4 = st.integers(0, 2**24 - 1).map(lambda rest: f"203.{rest >> 16}.{rest >> 8 & 255}.{1 + rest % 254}")
HOUSEHOLD_V6 = st.integers(1, 2**80 - 1).map(
    lambda rest: "2001:db8:1:" + ":".join(f"{rest >> shift & 0xFFFF:x}" for shift in (64, 48, 32, 16, 0))
)
NAMES = st.sampled_from(
    [
        *("X-Forwarded-For", "http_x_forwarded_for", "xff", "cf-connecting-ip", "True-Client-IP", "forwarded", "ip"),
        *("x_real_ip", "common_log", "message", "log", "msg", "user", "clienthost", "remote_addr", "agent", "title"),
        *("request.headers.X-Forwarded-For", "note", "custom", "peer", "host", "e_n", "search", "referer", "session"),
    ]
)
FORMS = st.sampled_from(
    [
        *("{}", "{}, 10.0.0.1", "unknown, {}", "at {}.", "({})", "ip={}", "ip:{}", "for={};proto=https", '"{}"'),
        "https://data.example.org/?ip={}&a=1",
    ]
)


def post(protocol: Any, body: bytes, content_type: str = "application/json", query: str = "", path: str = "") -> Any:
    request = Request(
        body=body, content_type=content_type, max_events=10, query=query, path=path, received_at=CONTEXT.received_at
    )
    return protocol.parse(request).events


def combined_line(fields: dict[str, Any]) -> list[Event]:
    text = "; ".join(str(value) for value in fields.values()).replace('"', "")
    request = f'"GET /?q={text.replace(" ", "+")} HTTP/1.1" 200 5 "-" "x ({text})"'
    hit = parse_hit_line(f"203.0.113.0 - - [17/May/2015:10:05:03 +0000] {request}", ItemPattern(), frozenset())
    return [] if hit is None else [Event(hit)]


def attributes(fields: dict[str, Any]) -> list[Any]:
    return [{"key": name, "value": {"stringValue": value}} for name, value in fields.items()]


def body_of(fields: dict[str, Any]) -> Any:
    return {"kvlistValue": {"values": attributes(fields)}}


SENDERS: dict[str, Callable[[dict[str, Any]], Iterable[Any]]] = {
    "tick": lambda fields: post(tick, orjson.dumps({"id": "a", **fields})),
    "tick form": lambda fields: post(tick, urlencode(fields).encode(), "application/x-www-form-urlencoded"),
    "pixel": lambda fields: post(pixel, b"", query=urlencode({"id": "a", **fields})),
    "bulk": lambda fields: post(
        elasticsearch, b'{"create":{}}\n' + orjson.dumps({"message": "m", **fields}) + b"\n", path="/_bulk"
    ),
    "matomo": lambda fields: post(
        matomo, b"", query=urlencode({"idsite": 1, "rec": 1, "url": "https://a.example/", **fields})
    ),
    "track": lambda fields: post(TrackProtocol(), orjson.dumps({"type": "a", "data": fields})),
    "plausible": lambda fields: post(
        plausible, orjson.dumps({"n": "a", "u": "https://a.example/", "d": "a", "p": fields})
    ),
    "umami": lambda fields: post(
        umami, orjson.dumps({"type": "event", "payload": {"website": "a", "data": fields, "url": fields.get("note")}})
    ),
    "goatcounter": lambda fields: post(goatcounter.API, orjson.dumps({"hits": [{"path": "/a", **fields}]})),
    "otlp": lambda fields: post(
        otlp,
        orjson.dumps(
            {
                "resourceLogs": [
                    {"scopeLogs": [{"logRecords": [{"attributes": attributes(fields)}, {"body": body_of(fields)}]}]}
                ]
            }
        ),
    ),
    "record": lambda fields: [event_from_record({"message": "m", **fields}, CONTEXT.config, orjson.dumps(fields))],
    "nested record": lambda fields: [
        event_from_record({"http": {"request": fields}, "list": [fields]}, CONTEXT.config)
    ],
    "syslog": lambda fields: [
        parse_message(
            b"<13>1 2015-01-22T12:00:00Z host app - - - " + orjson.dumps(fields),
            CONTEXT.received_at,
            "",
            CONTEXT.config,
        )
    ],
    "syslog text": lambda fields: [
        parse_message(f"<13>Jan 22 12:00:00 host app: {fields}".encode(), CONTEXT.received_at, "", CONTEXT.config)
    ],
    "access log": combined_line,
}


@settings(max_examples=100)
@given(st.sampled_from([*SENDERS]), st.dictionaries(NAMES, FORMS, min_size=1, max_size=3), HOUSEHOLD_V4 | HOUSEHOLD_V6)
def test_no_document_holds_an_address_whole(sender: str, fields: dict[str, str], address: str) -> None:
    planted = {name: form.format(address) for name, form in fields.items()}
    for event in SENDERS[sender](planted):
        if isinstance(event, Event):
            try:
                line = build_document(event, CONTEXT, "spare")
            except Malformed:
                continue
            assert address.encode() not in line
            assert address.replace(":", "%3A").encode() not in line


@settings(max_examples=50)
@given(HOUSEHOLD_V4 | HOUSEHOLD_V6)
def test_the_client_s_own_address_is_in_no_field(address: str) -> None:
    fields = {"id": f"/whois/{address}", "url": f"/whois/{address}", "clientip": address, "a.b": [{"c": address}]}
    assert address.encode() not in build_document(Event(fields), CONTEXT, "spare")


@pytest.mark.parametrize(
    ("client", "spelling"),
    [
        ("203.0.113.77", "::ffff:203.0.113.77"),
        ("203.0.113.77", "::FFFF:cb00:714d"),
        ("2001:db8:1:2::3", "2001:DB8:1:2::3"),
        ("2001:db8:1:2::3", "2001:0db8:0001:0002:0000:0000:0000:0003"),
        ("2001:db8:1:2::3", "2001%3Adb8%3A1%3A2%3A0%3A0%3A0%3A3"),
    ],
)
def test_an_item_holds_the_client_s_address_in_no_spelling(client: str, spelling: str) -> None:
    document = build_document(Event({"id": f"/whois/{spelling}", "clientip": client}), CONTEXT, "spare")
    assert spelling.encode() not in document


@pytest.mark.parametrize("text", ["203-0-113-77", "https://203-0-113-77.isp.example/x", "ip-203-0-113-77.internal"])
@pytest.mark.parametrize("name", ["id", "url", "referer", "host", "user", "note"])
def test_names_of_hosts_hold_the_client_s_address_in_no_field(name: str, text: str) -> None:
    document = build_document(Event({"id": "x", "clientip": "203.0.113.77", name: text}), CONTEXT, "spare")
    assert b"203-0-113-77" not in document
    others = build_document(Event({"id": "x", "clientip": "198.51.100.1", name: text}), CONTEXT, "spare")
    assert b"203-0-113-77" in others


@pytest.mark.parametrize("name", ["event", "format", "method", "event_id"])
def test_names_do_not_hold_the_client_s_address(name: str) -> None:
    fields = {"id": "a", "clientip": "203.0.113.77", name: "x 203.0.113.77"}
    assert b"203.0.113.77" not in build_document(Event(fields), CONTEXT, "spare")


def test_event_ids_with_the_client_s_address_stay_different() -> None:
    clients = [f"203.0.113.{number}" for number in (77, 78)]
    events = [Event({"id": "a", "clientip": client, "event_id": f"{client}-1"}) for client in clients]
    assert len({build_document(event, CONTEXT, "spare") for event in events}) == len(clients)


def test_an_item_that_is_named_like_another_address_stays() -> None:
    fields = {"id": "/whois/2001:DB8:9:9::9", "clientip": "2001:db8:1:2::3"}
    assert b'"id":"/whois/2001:DB8:9:9::9"' in build_document(Event(fields), CONTEXT, "spare")


@pytest.mark.parametrize(
    "line",
    [
        '198.51.100.7, 10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 5 "-" "curl/8"',
        '198.51.100.7 10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 5 "-" "curl/8"',
        'www.example.org 198.51.100.7 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 5 "-" "curl/8"',
        '10.0.0.1 - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 5 "-" "curl/8" "198.51.100.7"',
        'dsl-198-51-100-7.isp.example - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 5 "-" "curl/8"',
        '{"remote_addr":"198.51.100.7","request":"GET /","status":200,"time":"2015-05-17T10:05Z","x":"198.51.100.7"}',
    ],
)
def test_no_document_of_a_log_holds_the_client_whole(line: str) -> None:
    stored = []
    for log_format in LOG_FORMATS:
        try:
            fields = parse_line(line.encode(), log_format, ItemPattern(), frozenset())
        except Malformed:
            continue
        if fields is not None:
            stored.append(build_document(Event(fields), CONTEXT, "spare"))
    assert stored
    assert not [doc for doc in stored if b"198.51.100.7" in doc or b"198-51-100-7" in doc]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *[(name, AddressRole.CLIENT) for name in ("X-Forwarded-For", "xForwardedFor", "xff", "CF-Connecting-IP", "ip")],
        *[(name, AddressRole.CLIENT) for name in ("clienthost", "source.ip", "remote_addr", "request.client_ip")],
        *[(name, AddressRole.ANY) for name in ("message", "user", "title", "agent", "common_log", "url")],
        *[(name, AddressRole.SERVER) for name in ("host", "s-ip", "server_addr", "upstream_addr")],
        *[(name, AddressRole.NAME) for name in ("id", "event_id", "app_version")],
    ],
)
def test_what_the_addresses_in_a_field_are_follows_from_its_name(name: str, role: AddressRole) -> None:
    assert address_role(name) is role


@pytest.mark.parametrize(
    "text",
    [
        *("Firefox/3.6.0.12", "v1.2.3.4", "a-1.2.3.4.zip", "10:05:03", "std::string", "1.2.3", "1.3.6.1.4.1.5"),
        *("127.0.0.1", "::1", "203.0.113.0", "Chrome/131.0.0.0", "00:1a:2b:3c:4d:5e", ""),
    ],
)
def test_what_only_looks_like_an_address_stays(text: str) -> None:
    assert anonymize_text(text) == text


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("from 203.0.113.77.", "from 203.0.113.0."),
        ("203.0.113.77:443", "203.0.113.0:443"),
        ("[2001:db8:1:2::3]:443", "[2001:db8:1::]:443"),
        ("client 2001:db8:1:2::3: denied", "client 2001:db8:1::: denied"),
        ("?ip=2001%3Adb8%3A1%3A2%3A%3A3", "?ip=2001%3Adb8%3A1%3A%3A"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
    ],
)
def test_addresses_in_texts_are_truncated(text: str, cut: str) -> None:
    assert anonymize_text(text) == cut


def test_addresses_of_the_operator_s_own_network_stay_in_fields_about_servers() -> None:
    assert anonymize_text("10.0.0.5:80", AddressRole.SERVER) == "10.0.0.5:80"
    assert anonymize_text("203.0.113.5:80", AddressRole.SERVER) == "203.0.113.0:80"


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("203.0.113.7, 10.0.0.1", ["203.0.113.7", "10.0.0.1"]),
        ("unknown, 203.0.113.7:4711", ["203.0.113.7"]),
        ('for="[2001:db8::7]:4711";proto=https, for=10.0.0.1', ["2001:db8::7", "10.0.0.1"]),
        ("203.0.113.7, GET", []),
        ("-", []),
        ("", []),
    ],
)
def test_a_list_is_a_list_of_addresses(text: str, addresses: list[str]) -> None:
    assert split_addresses(text) == addresses
    assert all(anonymize_address(address) for address in addresses)
