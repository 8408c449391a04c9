"""Converting syslog messages to events."""

from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed
from metronome.event import DocumentContext, Event, IngestConfig, build_document
from metronome.items import compile_item_pattern
from metronome.protocols.syslog.messages import parse_message, parse_messages
from metronome.times import parse_timestamp

RECEIVED_AT = "2015-01-22T12:00:00.000Z"
CONTEXT = DocumentContext(received_at=RECEIVED_AT, min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z")
HIT = (
    '192.0.2.77 - - [22/Jan/2015:10:30:00 +0100] "GET /data/a.csv?x=1 HTTP/1.1" 200 612 "https://example.org/" "curl/7"'
)


def fields(
    message: str | bytes, received_at: str = RECEIVED_AT, client_ip: str = "", config: IngestConfig | None = None
) -> dict[str, Any]:
    frame = message.encode() if isinstance(message, str) else message
    return dict(parse_message(frame, received_at, client_ip, config or IngestConfig()).fields)


def document_of(message: str | bytes) -> dict[str, Any]:
    frame = message.encode() if isinstance(message, str) else message
    document: dict[str, Any] = orjson.loads(
        build_document(parse_message(frame, RECEIVED_AT, "", IngestConfig()), CONTEXT, "spare")
    )
    return {name: value for name, value in document.items() if name not in {"event_id", "@version"}}


NEW = "2003-10-11T22:14:15.003Z mymachine.example.com"
DATA = '[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"]'
RFC_5424 = [
    (
        f"<34>1 {NEW} su - ID47 - \ufeff'su root' failed for lonvick on /dev/pts/8",
        {
            "@timestamp": "2003-10-11T22:14:15.003Z",
            "facility": "auth",
            "severity": "crit",
            "host": "mymachine.example.com",
            "program": "su",
            "msgid": "ID47",
            "event": "log",
            "message": "'su root' failed for lonvick on /dev/pts/8",
        },
    ),
    (
        "<165>1 2003-08-24T05:14:15.000003-07:00 10.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
        {
            "@timestamp": "2003-08-24T12:14:15.000Z",
            "facility": "local4",
            "severity": "notice",
            "host": "10.0.2.1",
            "program": "myproc",
            "procid": "8710",
            "event": "log",
            "message": "%% It's time to make the do-nuts.",
        },
    ),
    (
        f"<165>1 {NEW} evntslog - ID47 {DATA} \ufeffAn application event log entry...",
        {
            "@timestamp": "2003-10-11T22:14:15.003Z",
            "facility": "local4",
            "severity": "notice",
            "host": "mymachine.example.com",
            "program": "evntslog",
            "msgid": "ID47",
            "iut": "3",
            "eventSource": "Application",
            "eventID": "1011",
            "event": "log",
            "message": "An application event log entry...",
        },
    ),
    (
        f'<165>1 {NEW} evntslog - ID47 {DATA}[examplePriority@32473 class="high"]',
        {
            "@timestamp": "2003-10-11T22:14:15.003Z",
            "facility": "local4",
            "severity": "notice",
            "host": "mymachine.example.com",
            "program": "evntslog",
            "msgid": "ID47",
            "iut": "3",
            "eventSource": "Application",
            "eventID": "1011",
            "class": "high",
            "event": "log",
            "message": "",
        },
    ),
]
RFC_3164 = [
    (
        "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
        {
            "@timestamp": "2014-10-11T22:14:15.000Z",
            "facility": "auth",
            "severity": "crit",
            "host": "mymachine",
            "program": "su",
            "event": "log",
            "message": "'su root' failed for lonvick on /dev/pts/8",
        },
    ),
    ("Use the BFG!", {"event": "log", "message": "Use the BFG!"}),
    (
        "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
        {
            "@timestamp": "2014-02-05T17:32:18.000Z",
            "facility": "user",
            "severity": "notice",
            "host": "10.0.0.99",
            "event": "log",
            "message": "Use the BFG!",
        },
    ),
    (
        "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.0 sched[0]: That's All Folks!",
        {
            "facility": "kern",
            "severity": "emerg",
            "event": "log",
            "message": "1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.0 sched[0]: That's All Folks!",
        },
    ),
]
USER = {"facility": "user", "severity": "notice", "event": "log"}
PROGRAMS = [
    # rsyslog, RSYSLOG_TraditionalForwardFormat, RSYSLOG_ForwardFormat and RSYSLOG_SyslogProtocol23Format
    (
        "<38>Jan 22 09:30:00 web1 sshd[812]: Accepted publickey for ops",
        {
            "@timestamp": "2015-01-22T09:30:00.000Z",
            "facility": "auth",
            "severity": "info",
            "host": "web1",
            "program": "sshd",
            "procid": "812",
            "event": "log",
            "message": "Accepted publickey for ops",
        },
    ),
    (
        "<38>2015-01-22T10:30:00.123456+01:00 web1 sshd[812]: Accepted publickey for ops",
        {
            "@timestamp": "2015-01-22T09:30:00.123Z",
            "facility": "auth",
            "severity": "info",
            "host": "web1",
            "program": "sshd",
            "procid": "812",
            "event": "log",
            "message": "Accepted publickey for ops",
        },
    ),
    (
        "<38>1 2015-01-22T10:30:00.123456+01:00 web1 sshd 812 - -  Accepted publickey for ops",
        {
            "@timestamp": "2015-01-22T09:30:00.123Z",
            "facility": "auth",
            "severity": "info",
            "host": "web1",
            "program": "sshd",
            "procid": "812",
            "event": "log",
            "message": " Accepted publickey for ops",
        },
    ),
    # syslog-ng, over its drivers for the old and for the new form
    (
        "<22>Jan 22 09:30:00 mail1 postfix/smtpd[77]: connect from unknown",
        {
            "@timestamp": "2015-01-22T09:30:00.000Z",
            "facility": "mail",
            "severity": "info",
            "host": "mail1",
            "program": "postfix/smtpd",
            "procid": "77",
            "event": "log",
            "message": "connect from unknown",
        },
    ),
    (
        "<45>1 2015-01-22T09:30:00+00:00 host1 syslog-ng 5 - [meta sequenceId=\"17\"] starting up; version='4.3'",
        {
            "@timestamp": "2015-01-22T09:30:00.000Z",
            "facility": "syslog",
            "severity": "notice",
            "host": "host1",
            "program": "syslog-ng",
            "procid": "5",
            "sequenceId": "17",
            "event": "log",
            "message": "starting up; version='4.3'",
        },
    ),
    # logger(1): as it is, with --rfc3164, with --rfc3164 --id, and over the local socket, without a host
    (
        '<13>1 2015-01-22T09:30:00.123456+00:00 host1 ops - - [timeQuality tzKnown="1" syncAccuracy="289500"] hello',
        {
            **USER,
            "@timestamp": "2015-01-22T09:30:00.123Z",
            "host": "host1",
            "program": "ops",
            "tzKnown": "1",
            "syncAccuracy": "289500",
            "message": "hello",
        },
    ),
    (
        "<13>Jan 22 09:30:00 host1 ops: hello",
        {**USER, "@timestamp": "2015-01-22T09:30:00.000Z", "host": "host1", "program": "ops", "message": "hello"},
    ),
    (
        "<13>Jan 22 09:30:00 ops[99]: hello: world",
        {**USER, "@timestamp": "2015-01-22T09:30:00.000Z", "program": "ops", "procid": "99", "message": "hello: world"},
    ),
    # NGINX during its start, with an empty host
    (
        "<189>Jan 22 09:30:00  nginx: 2015/01/22 09:30:00 [notice] 5#5: start worker processes",
        {
            "@timestamp": "2015-01-22T09:30:00.000Z",
            "facility": "local7",
            "severity": "notice",
            "program": "nginx",
            "event": "log",
            "message": "2015/01/22 09:30:00 [notice] 5#5: start worker processes",
        },
    ),
    # A switch, with the year and a colon after the time
    (
        "<189>Jan 22 2015 09:30:00: %ASA-6-302013: Built outbound TCP connection",
        {
            "@timestamp": "2015-01-22T09:30:00.000Z",
            "facility": "local7",
            "severity": "notice",
            "program": "%ASA-6-302013",
            "event": "log",
            "message": "Built outbound TCP connection",
        },
    ),
]


@pytest.mark.parametrize(("message", "expected"), [*RFC_5424, *RFC_3164, *PROGRAMS])
def test_a_message_with_a_header_becomes_a_log(message: str, expected: dict[str, Any]) -> None:
    assert fields(message) == expected
    assert document_of(message) == {"@timestamp": RECEIVED_AT, **expected}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("", ""),
        ("no header", "no header"),
        ("Jan 22 09:30:00 host1 ops: hello", "Jan 22 09:30:00 host1 ops: hello"),
        ("<192>Jan 22 09:30:00 host1 ops: hello", "<192>Jan 22 09:30:00 host1 ops: hello"),
        ("<013>hello", "<013>hello"),
        ("<13>hello", "hello"),
        ("<13>ops: hello", "ops: hello"),
        ("<13>Foo 22 09:30:00 host1 ops: hello", "Foo 22 09:30:00 host1 ops: hello"),
        ("<13>Jan 32 09:30:00 host1 ops: hello", "Jan 32 09:30:00 host1 ops: hello"),
        ("<13>Jan 22 25:30:00 host1 ops: hello", "Jan 22 25:30:00 host1 ops: hello"),
        ("<13>2015-13-22T09:30:00Z host1 ops: hello", "2015-13-22T09:30:00Z host1 ops: hello"),
        ("<13>1 2015-13-22T09:30:00Z h a - - - hello", "1 2015-13-22T09:30:00Z h a - - - hello"),
        ("<13>1 - h a - - [broken hello", "[broken hello"),
        ('<13>1 - h a - - [x a="1] hello', '[x a="1] hello'),
        ("<13>1 - h a - - -", ""),
        ("<13>1 - h a - -", ""),
        ("<13>1 - - - - - - -- hello", "-- hello"),
        ("<13>Jan 22 09:30:00 host1 a message", "a message"),
        (b"<13>caf\xe9 \xff", "caf\\xe9 \\xff"),
        ("<13>Jan 22 09:30:00 host1 ops:", ""),
        ("<13>Jan 22 09:30:00 host1 ops: one\ntwo", "one\ntwo"),
        ("<13>[1, 2]", "[1, 2]"),
        ("<13>{broken", "{broken"),
        ("<13>@cee: 7", "@cee: 7"),
    ],
)
def test_an_invalid_header_is_part_of_the_message(message: str | bytes, text: str) -> None:
    event = fields(message)
    assert event["message"] == text
    assert event["event"] == "log"


@pytest.mark.parametrize(
    ("received_at", "time", "timestamp"),
    [
        ("2015-01-01T00:00:05.000Z", "Dec 31 23:59:59", "2014-12-31T23:59:59.000Z"),
        ("2014-12-31T23:59:59.000Z", "Jan  1 00:00:05", "2015-01-01T00:00:05.000Z"),
        ("2015-01-22T12:00:00.000Z", "Jan 22 09:30:00.5", "2015-01-22T09:30:00.500Z"),
        ("2016-03-01T00:00:00.000Z", "Feb 29 09:30:00", "2016-02-29T09:30:00.000Z"),
        ("2017-01-05T00:00:00.000Z", "Feb 29 09:30:00", "2016-02-29T09:30:00.000Z"),
        ("2015-01-22T12:00:00.000Z", "Jan 2 09:30:00", "2015-01-02T09:30:00.000Z"),
        ("2015-11-30T12:00:00.000Z", "Jan  1 00:00:12", "2015-01-01T00:00:12.000Z"),
        ("2015-11-30T12:00:00.000Z", "Mar  1 10:00:00", "2015-03-01T10:00:00.000Z"),
        ("2015-11-30T12:00:00.000Z", "Dec  1 11:59:59", "2015-12-01T11:59:59.000Z"),
        ("2015-11-30T12:00:00.000Z", "Dec  1 12:00:01", "2014-12-01T12:00:01.000Z"),
        ("2018-06-01T00:00:00.000Z", "Feb 29 09:30:00", "2016-02-29T09:30:00.000Z"),
    ],
)
def test_a_time_without_a_year_is_the_latest_that_is_not_ahead(received_at: str, time: str, timestamp: str) -> None:
    assert fields(f"<13>{time} host1 ops: hello", received_at)["@timestamp"] == timestamp


WEEK = IngestConfig(max_age=timedelta(days=7))


@pytest.mark.parametrize(
    ("message", "claimed"),
    [
        ("<13>1 2031-01-01T00:00:12Z router x 77 - - m", "2031-01-01T00:00:12.000Z"),
        ("<13>1 2001-01-01T00:00:12Z router x 77 - - m", "2001-01-01T00:00:12.000Z"),
        ("<13>Jan  1 00:00:12 router dnsmasq[77]: started", "2015-01-01T00:00:12.000Z"),
        ("<13>Jan  1 2031 00:00:12 router dnsmasq[77]: started", "2031-01-01T00:00:12.000Z"),
        ('<13>1 - router x 77 - - {"event":"e","time":1924992000}', "2031-01-01T00:00:00.000Z"),
        (f"<13>{HIT.replace('2015:', '2009:')}", "2009-01-22T09:30:00.000Z"),
    ],
)
def test_a_time_that_cannot_be_true_is_replaced_by_the_arrival(message: str, claimed: str) -> None:
    event = parse_message(message.encode(), RECEIVED_AT, "", WEEK)
    context = DocumentContext(RECEIVED_AT, "2015-01-15T12:00:00.000Z", "2015-01-23T12:00:00.000Z")
    document = orjson.loads(build_document(event, context, "spare"))
    assert (document["@timestamp"], document["record_time"]) == (RECEIVED_AT, claimed)


def test_the_time_in_the_header_replaces_one_in_the_message_that_cannot_be_true() -> None:
    message = '<13>1 2015-01-22T09:00:00Z router x 77 - - {"event":"e","@timestamp":"2031-01-01T00:00:00Z"}'
    event = parse_message(message.encode(), RECEIVED_AT, "", WEEK).fields
    assert (event["@timestamp"], event["record_time"]) == ("2015-01-22T09:00:00.000Z", "2031-01-01T00:00:00.000Z")


def test_a_trusted_sender_may_set_any_time_in_the_past() -> None:
    message = b"<13>1 2001-01-01T00:00:12Z router x 77 - - m"
    event = parse_message(message, RECEIVED_AT, "", WEEK, is_trusted=True).fields
    assert event["@timestamp"] == "2001-01-01T00:00:12.000Z"


CISCO_MESSAGE = "list 110 denied tcp"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("77: Jan 22 09:30:00.306: ", {"sequence": 77, "@timestamp": "2015-01-22T09:30:00.306Z"}),
        (
            "77: 000012: .Jan 22 09:30:00: ",
            {"sequence": 77, "sequence_number": 12, "@timestamp": "2015-01-22T09:30:00.000Z"},
        ),
        (
            "77: sw1.example: *Jan 22 09:30:00.306 CET: ",
            {"sequence": 77, "host": "sw1.example", "@timestamp": "2015-01-22T08:30:00.306Z"},
        ),
        ("77: *Mar  1 00:00:12.306: ", {"sequence": 77, "record_time": "2014-03-01T00:00:12.306Z"}),
        ("77: 2w3d: ", {"sequence": 77}),
        ("77: 00:00:46: ", {"sequence": 77}),
        ("77: ", {"sequence": 77}),
        (": 2015 Jan 22 09:30:00.306 UTC: ", {"@timestamp": "2015-01-22T09:30:00.306Z"}),
        ("Jan 22 2015 09:30:00: ", {"@timestamp": "2015-01-22T09:30:00.000Z"}),
        ("Jan 22 2015 09:30:00 fw1 : ", {"@timestamp": "2015-01-22T09:30:00.000Z", "host": "fw1"}),
        ("77: Jan 22 2015 10:30:00.306 +0100: ", {"sequence": 77, "@timestamp": "2015-01-22T09:30:00.306Z"}),
        ("Jan 22 09:30:00 2015: ", {"@timestamp": "2015-01-22T09:30:00.000Z"}),
        ("Jan 22 09:30:00 2015 sw1 ", {"@timestamp": "2015-01-22T09:30:00.000Z", "host": "sw1"}),
        ("*Jan 22 09:30:00.306: ", {"@timestamp": "2015-01-22T09:30:00.306Z"}),
        (
            "32: RP/0/RSP0/CPU0:Jan 22 09:30:00.306 : ",
            {"sequence": 32, "host": "RP/0/RSP0/CPU0", "@timestamp": "2015-01-22T09:30:00.306Z"},
        ),
    ],
)
def test_headers_of_cisco_are_read(header: str, expected: dict[str, Any]) -> None:
    assert fields(f"<190>{header}%SEC-6-IPACCESSLOGP: {CISCO_MESSAGE}") == {
        "facility": "local7",
        "severity": "info",
        "program": "%SEC-6-IPACCESSLOGP",
        "event": "log",
        "message": CISCO_MESSAGE,
        **expected,
    }


@pytest.mark.parametrize(
    "message", ["77: a message", "77: host: a message", ": a message", "2015 Jan 22 09:30:00 UTC: x"]
)
def test_a_message_with_a_number_is_not_taken_for_ciscos(message: str) -> None:
    assert fields(f"<13>{message}") == {"facility": "user", "severity": "notice", "event": "log", "message": message}


def test_the_client_is_the_host_of_a_message_without_one() -> None:
    assert fields("hello", client_ip="192.0.2.9")["host"] == "192.0.2.9"
    assert fields("<13>1 - - a - - - hello", client_ip="192.0.2.9")["host"] == "192.0.2.9"
    assert fields("<13>1 - h a - - - hello", client_ip="192.0.2.9")["host"] == "h"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('[a x="1" y="2"][b z="3"]', {"x": "1", "y": "2", "z": "3"}),
        ('[a x="1"][b x="2"]', {"x": "1", "b.x": "2"}),
        ('[a x="1" x="2"]', {"x": ["1", "2"]}),
        (r'[a x="say \"hi\" [to\] c:\\d \n"]', {"x": r'say "hi" [to] c:\d \n'}),
        ('[a x="two\nlines"]', {"x": "two\nlines"}),
        ("[empty]", {}),
        ('[origin ip="192.0.2.1" software="rsyslogd"]', {"ip": "192.0.2.1", "software": "rsyslogd"}),
        ('[a id="/page" event="view" time="1" clientip="192.0.2.1" message="m"]', {
            "a.id": "/page", "a.event": "view", "a.time": "1", "a.clientip": "192.0.2.1", "a.message": "m",
        }),
        ('[a host="x" a.b="1"]', {"a.host": "x", "a.a.b": "1"}),
    ],
)  # fmt: skip
def test_structured_data_becomes_fields_with_names_that_are_free(data: str, expected: dict[str, Any]) -> None:
    header = {**USER, "host": "h", "program": "p", "message": "hello"}
    assert fields(f"<13>1 - h p - - {data} hello") == {**header, **expected}
    assert document_of(f"<13>1 - h p - - {data} hello")["event"] == "log"


@pytest.mark.parametrize(
    "header",
    ["", "<190>", "<190>Jan 22 09:30:00 web1 nginx: ", "<190>Jan 22 09:30:00 nginx: ", "<190>1 - web1 nginx - - - "],
)
def test_an_access_log_line_becomes_a_hit(header: str) -> None:
    hit = fields(header + HIT)
    assert (hit["event"], hit["id"], hit["format"]) == ("download", "/data/a.csv", "csv")
    assert (hit["clientip"], hit["status"], hit["url"]) == ("192.0.2.77", 200, "/data/a.csv?x=1")
    assert hit["@timestamp"] == "2015-01-22T09:30:00.000Z"
    assert "message" not in hit
    if "web1" in header:
        assert (hit["host"], hit["program"], hit["severity"]) == ("web1", "nginx", "info")


def test_finds_the_item_of_a_hit_by_the_operator_s_pattern() -> None:
    config = IngestConfig(compile_item_pattern("^/data/(?P<id>[a-z]+)"), frozenset({"example.org"}))
    hit = fields(f"<190>{HIT}", config=config)
    assert (hit["event"], hit["id"], hit["referer_url"]) == ("view", "a", "https://example.org/")


def test_a_hit_in_json_may_have_the_time_of_the_header() -> None:
    record = '{"remote_addr":"192.0.2.77","request":"GET /a HTTP/1.1","status":"200","time":0.25}'
    hit = fields(f"<190>Jan 22 09:30:00 web1 nginx: {record}")
    assert (hit["event"], hit["id"], hit["@timestamp"]) == ("view", "/a", "2015-01-22T09:30:00.000Z")


def test_the_document_of_a_hit_has_no_full_ip_address() -> None:
    odd = '{"remote_addr":"192.0.2.77","request":"GET /a HTTP/1.1","status":200,"a.b":{"c":1}}'
    for message in (HIT, f"<190>Jan 22 09:30:00 web1 nginx: {odd}"):
        document = document_of(message)
        assert document["clientip"] == "192.0.2.0"
        assert "192.0.2.77" not in str(document)


@pytest.mark.parametrize("cookie", ["", "@cee: ", "@cee:", " @cee: "])
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ('{"id":"report-7","event":"view"}', {"id": "report-7", "event": "view"}),
        ('{"id":"report-7"}', {"id": "report-7"}),
        ('{"event":"signup","n":1.5,"ok":true}', {"event": "signup", "n": 1.5, "ok": True}),
        ('{"level":"info","msg":"started"}', {"event": "log", "level": "info", "msg": "started"}),
        ('{"id":null,"event":"","msg":"x"}', {"id": None, "event": "log", "msg": "x"}),
        ('{"severity":"fatal","host":"db1","event":"e"}', {"severity": "fatal", "host": "db1", "event": "e"}),
        ("{}", {"event": "log"}),
    ],
)
def test_a_json_object_becomes_an_event_with_its_fields(cookie: str, record: str, expected: dict[str, Any]) -> None:
    header = {"facility": "user", "severity": "info", "host": "h", "program": "app"}
    message = f"<14>Jan 22 09:30:00 h app: {cookie}{record}"
    assert fields(message) == {**header, "@timestamp": "2015-01-22T09:30:00.000Z", **expected}


@pytest.mark.parametrize(
    ("time", "timestamp"),
    [
        ('"ts":"2015-01-20T00:00:00Z"', "2015-01-20T00:00:00.000Z"),
        ('"time":1421712000', "2015-01-20T00:00:00.000Z"),
        ('"time":"20/Jan/2015:00:00:00 +0000"', "2015-01-20T00:00:00.000Z"),
        ('"@timestamp":"2015-01-20T00:00:00+01:00"', "2015-01-19T23:00:00.000Z"),
        ('"time":0.25', "2015-01-22T09:30:00.000Z"),
        ('"time":"09:30"', "2015-01-22T09:30:00.000Z"),
        ('"time":null', "2015-01-22T09:30:00.000Z"),
        ('"@timestamp":"yesterday"', "2015-01-22T09:30:00.000Z"),
        ('"ts":{"a":1}', "2015-01-22T09:30:00.000Z"),
    ],
)
def test_a_valid_time_in_json_takes_precedence(time: str, timestamp: str) -> None:
    assert document_of('<14>Jan 22 09:30:00 h app: {"event":"e",%s}' % time)["@timestamp"] == timestamp  # noqa: UP031


def test_a_message_without_a_time_has_the_time_of_arrival() -> None:
    for message in ("hello", '{"event":"e","time":"?"}', "<13>1 - h a - - - hello"):
        assert document_of(message)["@timestamp"] == RECEIVED_AT


def test_keeps_the_original_of_a_message_with_nested_fields() -> None:
    message = '<14>Jan 22 09:30:00 h app: {"event":"e","inner":{"a":1}}'
    assert document_of(message)["event.original"] == message


def test_parses_several_messages() -> None:
    events = parse_messages([b"<13>a", b"b"], RECEIVED_AT, "192.0.2.9", IngestConfig())
    assert [event.fields["message"] for event in events if isinstance(event, Event)] == ["a", "b"]


_headers = st.sampled_from(
    [
        "<13>",
        "<190>1 ",
        "<13>1 - h p - - ",
        "<13>Jan 22 09:30:00 ",
        "<13>1 2015-01-22T09:30:00Z ",
        "@cee:",
        "",
        "<",
        "[",
    ]
)
_texts = st.one_of(
    st.text(),
    st.text(alphabet='<>[]="\\ 1a:-{}\n\u0660').map(str),
    st.dictionaries(st.sampled_from(["id", "event", "time", "@timestamp", "request", "status", "x"]), st.text()).map(
        lambda record: orjson.dumps(record).decode()
    ),
)


@given(st.lists(_headers, max_size=3).map("".join), _texts)
def test_any_text_becomes_a_document_or_is_rejected(header: str, text: str) -> None:
    frame = (header + text).replace("\0", " ").encode(errors="replace")
    (event,) = parse_messages([frame], RECEIVED_AT, "192.0.2.9", IngestConfig())
    assert isinstance(event, Event)
    try:
        document = orjson.loads(build_document(event, CONTEXT, "spare"))
    except Malformed as error:
        assert "time" in str(error) or "more than a day ahead" in str(error)  # noqa: PT017  # either may happen
    else:
        assert parse_timestamp(document["@timestamp"])


@given(st.binary().filter(lambda frame: b"\0" not in frame))
def test_any_bytes_become_an_event(frame: bytes) -> None:
    (event,) = parse_messages([frame], RECEIVED_AT, "192.0.2.9", IngestConfig())
    assert isinstance(event, (Event, Malformed))
