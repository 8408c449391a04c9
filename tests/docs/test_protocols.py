"""docs/protocols.md lists the fields, addresses and sections of each protocol."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
import pytest
from msgpack import packb

from metronome.event import Event, IngestConfig, generate_event_ids
from metronome.matomo_parameters import PARAMETERS
from metronome.protocol import ParsedEvent, Protocol, Request
from metronome.protocols import micro_analytics
from metronome.protocols.elasticsearch import protocol as elasticsearch
from metronome.protocols.matomo import tracker
from metronome.protocols.micro_metrics import tracking
from metronome.protocols.microticks import sessions
from metronome.protocols.native import pixel
from metronome.protocols.otlp import protocol as otlp
from metronome.protocols.registry import ENDPOINTS
from metronome.protocols.syslog.messages import parse_message
from metronome.protocols.web_trackers import goatcounter, plausible, umami
from tests.docs.pages import first_cells, section, text_of
from tests.protocols.forward.parsing import parse_frame

PAGE: Final = "docs/protocols.md"
READ_LIKE: Final = {"Forward": "Elasticsearch"}
"""Protocols whose records are parsed as those of another protocol."""
HEADERS: Final = {"User-Agent": "Mozilla/5.0", "Referer": "https://example.org/page", "Accept-Language": "de"}
RECEIVED_AT: Final = "2015-01-22T10:00:00.000Z"


def request(body: bytes = b"", path: str = "", query: str = "", content_type: str = "") -> Request:
    method = "POST" if body else "GET"
    event_ids = generate_event_ids()
    return Request(
        body, content_type, 10, method, path, query, HEADERS, "203.0.113.9", RECEIVED_AT, event_ids, is_trusted=True
    )


def fields_of(protocol: Protocol, sent: Request) -> Mapping[str, Any]:
    return only_event(protocol.parse(sent).events).fields


def only_event(events: Iterable[ParsedEvent]) -> Event:
    (event,) = events
    assert isinstance(event, Event), event
    return event


def described(heading: str) -> set[str]:
    """Return the fields in a protocol's table; a name that ends in dots stands for all that begin like it."""
    return first_cells(section(PAGE, heading)) | first_cells(section("docs/api.md", "What an event may hold"))


def is_described(field: str, known: set[str]) -> bool:
    return field in known or any(name.endswith("…") and field.startswith(name[:-1]) for name in known)


TRACKED: Final = orjson.dumps(
    {
        "type": "download",
        "tags": {"id": "x", "format": "csv"},
        "data": {"userAgent": "a", "referrer": "https://example.org/", "ip": "203.0.113.9", "url": "/x"},
        "value": 2,
        "userId": "u",
        "sessionId": "s",
        "createdOn": "2015-01-22T09:00:00Z",
    }
)

SESSION: Final = sessions.Session("hall", "2015-01-22T09:00:00.000Z", "2015-01-22T10:00:00.000Z")
CLICK: Final = sessions.SessionAction("click", '{"id":"x"}', "2015-01-22T09:30:00.000Z")
SYSLOG: Final = b'<165>1 2015-01-22T10:00:00Z host app 7 ID [e@32473 room="hall"] it rains'
HIT: Final = b'{"remote_addr":"203.0.113.9","request":"GET /a.csv HTTP/1.1","status":"200","request_time":1}'
BULK: Final = b'{"create":{}}\n' + HIT
FRAME: Final = packb(["app.access", 1421919000, {"message": "it rains"}])

PLAUSIBLE: Final = {
    "n": "engagement",
    "u": "https://example.org/x",
    "d": "example.org",
    "r": "https://example.com/",
    "w": 1280,
    "i": False,
    "e": 10,
    "sd": 20,
    "$": {"currency": "EUR", "amount": 1},
}
PLAUSIBLE_DOWNLOAD: Final = {**PLAUSIBLE, "n": "File Download", "p": {"url": "https://example.org/a.csv"}}
PLAUSIBLE_LINK: Final = {**PLAUSIBLE, "n": "Outbound Link: Click", "p": {"url": "https://example.com/"}}
UMAMI: Final = {
    "type": "event",
    "payload": {
        "website": "w",
        "hostname": "example.org",
        "url": "/x",
        "title": "t",
        "referrer": "https://example.com/",
        "language": "de",
        "screen": "1x1",
        "tag": "a",
        "id": "u",
        "timestamp": 1421919000,
        "name": "view",
    },
}
GOATCOUNTER: Final = "p=/x&t=t&r=https%3A%2F%2Fexample.com%2F&q=a&s=1,1,1&b=150"

OTLP: Final = orjson.dumps(
    {
        "resourceLogs": [
            {
                "scopeLogs": [
                    {
                        "scope": {"name": "a", "version": "1"},
                        "logRecords": [
                            {
                                "timeUnixNano": "1421919000000000001",
                                "severityNumber": 9,
                                "traceId": "0a",
                                "spanId": "0b",
                                "eventName": "c",
                                "body": {"stringValue": "it rains"},
                            }
                        ],
                    }
                ]
            }
        ]
    }
)

EXAMPLES: Final = {
    "Pixel": fields_of(pixel, request(query="id=x&event=view")),
    "true-micro-analytics": fields_of(micro_analytics.PROTOCOL, request(path="/docs/intro", query="a=b")),
    "micro-metrics": {
        name.split(".")[0] if "." in name else name: value
        for name, value in fields_of(tracking.TRACK, request(TRACKED)).items()
        if not name.startswith(("tags.", "fields.", "data.", "tag.keys", "metric."))
    },
    "microticks": {
        **sessions.build_start_event("t", SESSION).fields,
        **sessions.build_stop_event("t", SESSION).fields,
        **sessions.build_action_event("t", SESSION, CLICK, "e").fields,
    },
    "Matomo": dict.fromkeys(
        {
            *(parameter.field for parameter in PARAMETERS),
            *fields_of(tracker, request(query="idsite=1&rec=1&url=http%3A%2F%2Fexample.org%2Fx&_id=1&cip=203.0.113.9")),
        }
    ),
    "Plausible": {
        name: value
        for body in (PLAUSIBLE, PLAUSIBLE_DOWNLOAD, PLAUSIBLE_LINK)
        for name, value in fields_of(plausible, request(orjson.dumps(body))).items()
    },
    "Umami": fields_of(umami, request(orjson.dumps(UMAMI))),
    "GoatCounter": fields_of(goatcounter.COUNT, request(query=GOATCOUNTER)),
    "OpenTelemetry": fields_of(otlp, request(OTLP, "/v1/logs")),
    "Elasticsearch": fields_of(elasticsearch, request(BULK, path="/_bulk")),
    "Syslog": {
        name: value
        for name, value in parse_message(SYSLOG, RECEIVED_AT, "", IngestConfig()).fields.items()
        if name != "room"
    },
    "Forward": only_event(parse_frame(FRAME)).fields,
}


@pytest.mark.parametrize("heading", EXAMPLES)
def test_each_field_that_a_protocol_sets_is_in_its_table(heading: str) -> None:
    known = described(heading) | (described(READ_LIKE[heading]) if heading in READ_LIKE else set())
    assert [field for field in EXAMPLES[heading] if not is_described(field, known)] == []


def test_each_address_of_a_protocol_is_on_the_page() -> None:
    text = text_of(PAGE) + text_of("docs/operations.md")
    addresses = {address.prefix + re.sub(r"/\{path:.*|:[^}]*", "", address.path) for address in ENDPOINTS}
    assert [address for address in addresses if f"{address}`" not in text] == []


def test_each_protocol_of_the_table_has_its_section() -> None:
    rows = re.findall(r"^\| \[[^]]+\]\((?:protocols\.md)?#?([\w.-]+)\)", text_of(PAGE), re.MULTILINE)
    assert len(rows) == 14
    headings = {
        re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))
        for heading in re.findall(r"^## (.+)$", text_of(PAGE), re.MULTILINE)
    }
    assert {row for row in rows if not row.endswith(".md")} <= headings
