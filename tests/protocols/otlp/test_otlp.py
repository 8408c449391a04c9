"""OTLP's log records: which events they become in both encodings, resends, and the replies."""

import contextlib
from typing import Any, Final

import orjson
import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from metronome.errors import Malformed, PayloadTooLarge, SpoolFull, Unauthorized
from metronome.event import DocumentContext, Event, build_document
from metronome.protocol import IngestResult, Request
from metronome.protocols.otlp import protocol as otlp

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
CONTEXT: Final = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
ADDRESS: Final = "203.0.113.9"
NS: Final = 1_421_919_000_123_456_789
TIME: Final = "2015-01-22T09:30:00.123Z"


def text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def logs(*records: object, resource: Any = None, scope: Any = None) -> dict[str, Any]:
    scope_logs = {"scope": scope or {}, "logRecords": [*records]}
    return {"resourceLogs": [{"resource": resource or {}, "scopeLogs": [scope_logs]}]}


def as_protobuf(body: dict[str, Any]) -> bytes:
    message = ExportLogsServiceRequest()
    ParseDict(body, message)
    return message.SerializeToString()


def request(body: bytes, content_type: str = JSON, **headers: str) -> Request:
    return Request(body, content_type, 5, path="/v1/logs", headers={"Content-Type": content_type, **headers})


def events_of(sent: Request) -> list[Any]:
    """Return the fields of the events, without derived IDs, and the messages of errors."""
    found: list[Any] = []
    for event in otlp.parse(sent).events:
        if isinstance(event, Event):
            found.append({name: value for name, value in event.fields.items() if name != "event_id"})
        else:
            found.append(str(event))
    return found


def both(body: dict[str, Any]) -> list[Any]:
    """Return the events, which must be the same in both encodings."""
    found = events_of(request(orjson.dumps(body)))
    assert found == events_of(request(as_protobuf(body), PROTOBUF))
    return found


ACCESS: Final = {
    "timeUnixNano": str(NS),
    "attributes": [
        text("http.request.method", "GET"),
        text("url.path", "/data/wells.csv"),
        text("url.query", "a=1"),
        {"key": "http.response.status_code", "value": {"intValue": "200"}},
        text("user_agent.original", "Firefox"),
        text("client.address", "203.0.113.9"),
        {"key": "http.request.header.referer", "value": {"arrayValue": {"values": [{"stringValue": "https://a.example/"}]}}},
        {"key": "http.response.body.size", "value": {"intValue": "512"}},
    ],
}  # fmt: skip


def test_a_request_by_the_semantic_conventions_is_a_download() -> None:
    resource = {"attributes": [text("service.name", "portal")]}
    (found,) = both(logs(ACCESS, resource=resource, scope={"name": "nginx", "version": "1.2"}))
    assert found == {
        "event": "download",
        "id": "/data/wells.csv",
        "format": "csv",
        "method": "GET",
        "url": "/data/wells.csv?a=1",
        "status": 200,
        "bytes": 512,
        "referer": "https://a.example/",
        "agent": "Firefox",
        "clientip": "203.0.113.9",
        "@timestamp": TIME,
        "service.name": "portal",
        "otel.scope.name": "nginx",
        "otel.scope.version": "1.2",
    }


@pytest.mark.parametrize(
    "attributes",
    [
        [text("http.method", "GET"), text("http.target", "/x"), text("net.peer.ip", "203.0.113.9")],
        [text("http.request.method", "GET"), text("url.full", "https://a.example/x"), text("client.address", ADDRESS)],
        [text("http.request.method", "GET"), text("url.path", "/x"), text("network.peer.address", "203.0.113.9")],
    ],
)  # fmt: skip
def test_older_and_other_conventions_are_views(attributes: list[dict[str, Any]]) -> None:
    status = "http.status_code" if attributes[0]["key"] == "http.method" else "http.response.status_code"
    record = {"attributes": [*attributes, {"key": status, "value": {"intValue": 200}}]}
    (found,) = both(logs(record))
    assert (found["event"], found["id"], found["clientip"]) == ("view", "/x", "203.0.113.9")


def test_a_body_that_is_an_access_log_line_is_that_request() -> None:
    line = '203.0.113.9 - - [22/Jan/2015:09:00:00 +0000] "GET /wells HTTP/1.1" 200 5 "-" "Firefox"'
    (found,) = both(logs({"observedTimeUnixNano": str(NS), "body": {"stringValue": line}}))
    assert (found["event"], found["id"], found["@timestamp"]) == ("view", "/wells", "2015-01-22T09:00:00.000Z")


def test_a_log_record_keeps_its_severity_its_ids_and_values_of_all_types() -> None:
    record = {
        "observedTimeUnixNano": str(NS),
        "severityNumber": 17,
        "body": {"stringValue": "it failed"},
        "eventName": "app.crash",
        "attributes": [
            {"key": "ok", "value": {"boolValue": False}},
            {"key": "n", "value": {"intValue": "-7"}},
            {"key": "x", "value": {"doubleValue": 1.5}},
            {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "a"}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [text("inner", "b")]}}},
            {"key": "raw", "value": {"bytesValue": "w6Q="}},
            {"key": "none", "value": {}},
        ],
    }
    scope = {"attributes": [text("n", "of the scope"), text("part", "scope")]}
    resource = {"attributes": [text("part", "resource"), text("host.name", "h1")]}
    (found,) = both(logs(record, scope=scope, resource=resource))
    assert found == {
        "event": "log",
        "message": "it failed",
        "severity": "ERROR",
        "severity_number": 17,
        "@timestamp": TIME,
        "event_name": "app.crash",
        "ok": False,
        "n": -7,
        "x": 1.5,
        "list": [1, "a"],
        "map.inner": "b",
        "raw": "ä",
        "none": None,
        "part": "scope",
        "host.name": "h1",
    }


def test_trace_ids_are_the_same_text_in_both_encodings() -> None:
    body = orjson.dumps(logs({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174"}))
    message = ExportLogsServiceRequest()
    record = message.resource_logs.add().scope_logs.add().log_records.add()
    record.trace_id, record.span_id = (
        bytes.fromhex("5b8efff798038103d269b633813fc60c"),
        bytes.fromhex("eee19b7ec3c1b174"),
    )
    expected = {"trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174", "event": "log"}
    assert events_of(request(body)) == events_of(request(message.SerializeToString(), PROTOBUF)) == [expected]


def test_a_record_in_metronomes_format_stays_as_it_is() -> None:
    values = {"kvlistValue": {"values": [text("id", "wells"), text("event", "view"), text("event_id", "e1")]}}
    (event,) = otlp.parse(request(orjson.dumps(logs({"body": values, "timeUnixNano": NS})))).events
    assert isinstance(event, Event)
    assert event.fields == {"id": "wells", "event": "view", "event_id": "e1", "@timestamp": TIME}


def event_ids(body: bytes, content_type: str = JSON, **headers: str) -> list[Any]:
    return [
        event.fields.get("event_id") if isinstance(event, Event) else None
        for event in otlp.parse(request(body, content_type, **headers)).events
    ]


def test_a_resend_is_told_by_the_uid_of_records_or_by_times_finer_than_a_second() -> None:
    named = logs({"attributes": [text("log.record.uid", "01ARZ3")]}, {"timeUnixNano": str(NS)})
    first, second = event_ids(orjson.dumps(named))
    assert first == "01ARZ3"
    assert second.endswith("-1")
    assert event_ids(orjson.dumps(named)) == [first, second]
    assert event_ids(orjson.dumps(logs({"timeUnixNano": str(NS + 1_000_000)}))) != [second]
    # In whole seconds, equal records may be equal events of a busy second.
    assert event_ids(orjson.dumps(logs({"timeUnixNano": "1421919000000000000"}, {}))) == [None, None]
    assert event_ids(orjson.dumps(named), Idempotency_Key="k") == [first, second]
    assert event_ids(orjson.dumps(named), **{"Idempotency-Key": "k"}) == ["01ARZ3", None]


@pytest.mark.parametrize(
    "bad",
    [
        5,
        {"timeUnixNano": "noon"},
        {"timeUnixNano": True},
        {"body": {"intValue": "99999999999999999999"}},
        {"body": {"stringValue": 5}},
        {"body": {"what": 5}},
        {"attributes": [{"key": 5}]},
        {"attributes": [{"key": "a", "value": {"bytesValue": "?"}}]},
        {"attributes": {}},
        {"traceId": 5},
    ],
)
def test_an_invalid_record_loses_no_other(bad: object) -> None:
    good = {"body": {"stringValue": "good"}, "timeUnixNano": str(NS)}
    body = orjson.dumps(logs(good, bad, good))
    expected = {"message": "good", "event": "log", "@timestamp": TIME}
    first, error, last = events_of(request(body))
    assert (first, last) == (expected, expected)
    assert isinstance(error, str)


def test_an_invalid_record_in_protobuf_loses_no_other() -> None:
    good = logs({"body": {"stringValue": "good"}})
    body = as_protobuf(
        logs({"body": {"stringValue": "good"}}, {"body": {"stringValue": "bad!"}}, {"body": {"stringValue": "good"}})
    )
    found = events_of(request(body.replace(b"bad!", b"b\xff\xfe!"), PROTOBUF))
    assert found[::2] == both(good) * 2
    assert found[1].startswith("invalid protobuf LogRecord")


def test_deep_attributes_are_kept_or_rejected_alone() -> None:
    deep = '{"arrayValue":{"values":[' * 300 + "]}}" * 300
    body = orjson.dumps(logs({"attributes": [{"key": "a", "value": "deep"}]}, {})).decode().replace('"deep"', deep)
    for event in otlp.parse(request(body.encode())).events:
        if isinstance(event, Event):
            with contextlib.suppress(Malformed):
                build_document(event, CONTEXT, "spare")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", JSON),
        (b"[]", JSON),
        (b'{"resourceLogs":5}', JSON),
        (b'{"resourceLogs":[5]}', JSON),
        (b'{"resourceLogs":[{"scopeLogs":[{"scope":{"name":5}}]}]}', JSON),
        (b"\x0a\x7f\x00", PROTOBUF),
        (b"\xff", PROTOBUF),
        (b"\x0b", PROTOBUF),
    ],
)
def test_an_invalid_request_is_a_status_with_400(body: bytes, content_type: str) -> None:
    sent = request(body, content_type)
    with pytest.raises(Malformed) as raised:
        otlp.parse(sent)
    reply = otlp.reply_error(sent, raised.value)
    assert (reply.status, reply.content_type) == (400, content_type)
    if content_type == JSON:
        assert orjson.loads(reply.body).keys() == {"code", "message"}
    else:
        assert reply.body.startswith(b"\x08\x03\x12")


def test_errors_that_may_be_retried_say_when() -> None:
    full = otlp.reply_error(request(b"", PROTOBUF), SpoolFull("full"))
    assert full.status in {429, 503}
    assert int(full.headers["Retry-After"]) > 0
    assert otlp.reply_error(request(b""), Unauthorized("no key")).status == 401


def test_too_many_records_are_rejected() -> None:
    with pytest.raises(PayloadTooLarge):
        otlp.parse(request(orjson.dumps(logs(*[{}] * 6))))


def test_rejected_records_are_a_partial_success() -> None:
    sent = request(orjson.dumps(logs({}, 5)))
    result = IngestResult(1, {1: Malformed("é"), 0: Malformed("first")})
    reply = otlp.reply(sent, otlp.parse(sent), result)
    assert orjson.loads(reply.body) == {"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "first"}}
    sent = request(as_protobuf(logs({})), PROTOBUF)
    many = IngestResult(1, {index: Malformed("é" * 200) for index in range(300)})
    reply = otlp.reply(sent, otlp.parse(sent), many)
    partial = ExportLogsServiceResponse.FromString(reply.body).partial_success
    assert (partial.rejected_log_records, partial.error_message) == (300, "é" * 200)
    done = otlp.reply(sent, otlp.parse(sent), IngestResult(1, {}))
    assert (done.status, done.body, done.content_type) == (200, b"", PROTOBUF)
    done = otlp.reply(request(b"{}"), otlp.parse(request(b"{}")), IngestResult(0, {}))
    assert (done.status, done.body, done.content_type) == (200, b"{}", JSON)


VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["stringValue", "intValue", "doubleValue", "arrayValue", "kvlistValue", "values", "key"]),
        inner,
        max_size=3,
    ),
    max_leaves=6,
)  # fmt: skip
RECORDS: Final = st.dictionaries(
    st.sampled_from(["timeUnixNano", "severityNumber", "severityText", "body", "attributes", "traceId", "eventName"]),
    VALUES,
    max_size=4,
).map(logs)


@settings(max_examples=60)
@given(
    st.binary(max_size=60).map(lambda body: request(body, PROTOBUF))
    | st.binary(max_size=40).map(
        lambda body: request(b"\x0a" + bytes([len(body) + 2]) + b"\x12" + bytes([len(body)]) + body, PROTOBUF)
    )
    | RECORDS.map(lambda body: request(orjson.dumps(body)))
)  # fmt: skip
def test_arbitrary_requests_raise_nothing_but_malformed_and_too_large(sent: Request) -> None:
    try:
        events = list(otlp.parse(sent).events)
    except Malformed:
        return
    for event in events:
        if isinstance(event, Event):
            try:
                build_document(event, CONTEXT, "spare")
            except Malformed:
                continue
        else:
            assert isinstance(event, Malformed)


def test_a_value_nested_too_deeply_is_rejected_alone() -> None:
    deep = '{"arrayValue":{"values":[' * 300 + "]}}" * 300
    body = orjson.dumps(logs({"body": {"stringValue": "b"}}, {"body": "deep"})).decode().replace('"deep"', deep)
    found = events_of(request(body.encode()))
    assert found[0] == {"message": "b", "event": "log"}
