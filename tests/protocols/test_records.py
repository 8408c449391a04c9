"""Conversion of log shippers' records to events."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metronome.errors import Malformed, PayloadTooLarge
from metronome.event import DocumentContext, IngestConfig, build_document
from metronome.protocols.records import event_from_record

SITE = IngestConfig()
DOOR = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
CLIENT = "203.0.113.9"
LINE = f'{CLIENT} - - [17/May/2015:10:05:03 +0000] "GET /a/data.csv HTTP/1.1" 200 5 "-" "curl/8"'
HIT = {
    "@timestamp": "2015-05-17T10:05:03.000Z",
    "clientip": CLIENT,
    "method": "GET",
    "url": "/a/data.csv",
    "status": 200,
    "bytes": 5,
    "agent": "curl/8",
    "event": "download",
    "id": "/a/data.csv",
    "format": "csv",
}
READ = "2015-01-22T11:59:00.000Z"


def fields(record: dict[str, Any]) -> dict[str, Any]:
    return dict(event_from_record(dict(record), SITE).fields)


def stored(record: dict[str, Any]) -> dict[str, Any]:
    expected: dict[str, Any] = orjson.loads(
        build_document(event_from_record(dict(record), SITE, orjson.dumps(record)), DOOR, "spare")
    )
    return expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        # Filebeat: the time is when it read the line.
        (
            {
                "@timestamp": READ,
                "message": LINE,
                "host": {"name": "web1"},
                "agent": {"type": "filebeat"},
                "event": {"original": LINE, "module": "nginx"},
                "log": {"file": {"path": "/var/log/a.log"}, "offset": 3},
            },
            HIT
            | {"host.name": "web1", "agent.type": "filebeat", "event.module": "nginx"}
            | {"log.file.path": "/var/log/a.log", "log.offset": 3},
        ),
        # Fluent Bit, of a container's output.
        ({"date": 1.5, "log": LINE + "\n", "stream": "stdout", "time": READ}, HIT | {"date": 1.5, "stream": "stdout"}),
        # syslog-ng
        ({"@timestamp": READ, "MESSAGE": LINE, "HOST": "web1"}, HIT | {"HOST": "web1"}),
        # A hit whose record has names of its own for what a hit has.
        ({"message": LINE, "id": 7, "format": "x", "event_id": 4}, HIT | {"record_id": 7, "record_format": "x"}),
    ],
)
def test_an_access_log_line_is_a_request_at_the_time_in_the_line(
    record: dict[str, Any], expected: dict[str, Any]
) -> None:
    read = fields(record)
    assert {name: read.get(name) for name in expected} == expected
    assert not {"message", "MESSAGE", "event_id"} & read.keys()
    assert CLIENT not in orjson.dumps(stored(record)).decode()


def test_a_parsed_access_log_line_is_a_request() -> None:
    record = {
        "@timestamp": READ,
        "http": {"request": {"method": "GET"}, "response": {"status_code": 200}},
        "url": {"path": "/p"},
        "source": {"ip": CLIENT},
        "event": {"original": LINE, "dataset": "nginx.access"},
        "event_id": 4624,
    }
    assert fields(record) == {
        "@timestamp": READ,
        "method": "GET",
        "status": 200,
        "url": "/p",
        "clientip": CLIENT,
        "event": "view",
        "id": "/p",
        "event.dataset": "nginx.access",
        "record_event_id": 4624,
    }
    assert CLIENT not in orjson.dumps(stored(record)).decode()


@pytest.mark.parametrize(
    "record",
    [
        {"id": "a", "event": "view", "ts": 1531171082399, "event_id": "e"},
        {"event": "login", "message": LINE, "level": "info"},
        {"id": "a", "event": "api", "method": "GET", "status": 200, "url": "/p"},
        {"id": "a"},
        {"id": 7, "format": "csv", "nested": {"a": 1}},
    ],
)
def test_events_in_metronomes_format_stay_unchanged(record: dict[str, Any]) -> None:
    assert fields(record) == record


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        # pino
        (
            {"level": 30, "time": 1531171082399, "pid": 657, "hostname": "x", "msg": "hello"},
            {"level": 30, "@timestamp": "2018-07-09T21:18:02.399Z", "pid": 657, "hostname": "x", "message": "hello"},
        ),
        # winston
        (
            {"@timestamp": READ, "message": "m", "severity": "warn", "fields": {"user": "u", "nested": {"a": 1}}},
            {"@timestamp": READ, "message": "m", "severity": "warn", "fields.user": "u", "fields.nested.a": 1},
        ),
        # rsyslog
        (
            {"@timestamp": "2015-01-22T11:59:00.123456+00:00", "host": "vm", "severity": "notice", "message": " one"},
            {"@timestamp": "2015-01-22T11:59:00.123456+00:00", "host": "vm", "severity": "notice", "message": " one"},
        ),
        ({"log": "one\n"}, {"message": "one\n"}),
        ({"id": 7, "message": "user deleted"}, {"id": 7, "message": "user deleted"}),
        ({"event": "", "id": "x", "message": "m"}, {"id": "x", "message": "m"}),
        ({"event": {"kind": "metric"}, "cpu": 0.5}, {"event.kind": "metric", "cpu": 0.5}),
        ({"event": 5}, {"record_event": 5}),
        ({"time": "10:05", "ts": 0.25, "message": "m"}, {"record_time": "10:05", "record_ts": 0.25, "message": "m"}),
        ({"timestamp": "17/May/2015:10:05:03 +0000"}, {"@timestamp": "2015-05-17T10:05:03.000Z"}),
        ({"message": "m", "event_id": 4624}, {"message": "m", "record_event_id": 4624}),
        ({"message": "m", "list": [{"a": 1}]}, {"message": "m", "list": [{"a": 1}]}),
        ({}, {}),
    ],
)
def test_other_records_are_log_events(record: dict[str, Any], expected: dict[str, Any]) -> None:
    assert fields(record) == {"event": "log", **expected}
    assert stored(record)["event"] == "log"


def test_a_changed_log_record_keeps_its_original() -> None:
    record = {"@timestamp": READ, "message": "m", "host": {"name": "web1"}, "big": 10**19}
    expected = stored(record)
    assert expected["params"] == {"host.name": "web1", "big": "10000000000000000000"}
    assert orjson.loads(expected["event.original"]) == record


def test_an_invalid_time_rejects_a_record_only_in_timestamp() -> None:
    with pytest.raises(Malformed, match="invalid timestamp"):
        stored({"@timestamp": "nonsense", "message": "m"})
    assert stored({"time": "nonsense", "message": "m"})["@timestamp"] == DOOR.received_at


@pytest.mark.parametrize(
    "record",
    [
        {"a": {str(number): number for number in range(1000)}},
        {"a" * 300: {"b": 1}},
        {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}}},
    ],
)
def test_an_object_with_too_many_fields_stays_an_object(record: dict[str, Any]) -> None:
    expected = fields(record)
    assert len(expected) == 2
    assert any(type(value) is dict for value in expected.values())
    assert orjson.loads(stored(record)["event.original"]) == record


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(LINE)
USUAL = (
    "id event event_id message log msg time ts @timestamp request url status method clientip referer http agent host"
)
NAMES = st.sampled_from([*USUAL.split(), "format", "url.path", "response", "source"]) | st.text(max_size=5)
RECORDS = st.dictionaries(
    NAMES,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4)),
    max_size=8,
)


@given(RECORDS)
def test_any_record_is_an_event_or_is_rejected(record: dict[str, Any]) -> None:
    event = event_from_record(record, SITE)
    try:
        expected = orjson.loads(build_document(event, DOOR, "spare"))
    except (Malformed, PayloadTooLarge) as error:
        assert str(error)  # noqa: PT017  # that there is a reason is what is tested
    else:
        assert expected["event"]
