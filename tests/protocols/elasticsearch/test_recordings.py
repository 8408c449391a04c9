"""Requests recorded from clients and shippers of Elasticsearch, with their versions."""

from typing import Any, Final, NamedTuple

import orjson
import pytest
from multidict import CIMultiDict

from metronome.event import Event, generate_event_ids
from metronome.protocol import IngestResult, Reply, Request
from metronome.protocols.elasticsearch import protocol

COMPATIBLE: Final = "application/vnd.elasticsearch+json;compatible-with="


class Recording(NamedTuple):
    """A request, and the expected status and media type of the reply and some fields of each event."""

    method: str
    target: str
    accept: str
    body: str
    status: int
    content_type: str
    events: list[dict[str, Any]]


PY_8: Final = "application/vnd.elasticsearch+json; compatible-with=8"
PY_9: Final = "application/vnd.elasticsearch+json; compatible-with=9"
JS_8: Final = "application/vnd.elasticsearch+json; compatible-with=8,text/plain"

RECORDINGS: Final = {
    # elasticsearch-py 8.19.3 and 9.5.1
    "py 8 bulk": Recording(
        "PUT",
        "/_bulk",
        PY_8,
        '{"create":{"_index":"logs"}}\n{"@timestamp":"2015-01-22T17:33:01.855087+00:00","message":"m0"}\n',
        200,
        COMPATIBLE + "8",
        [{"event": "log", "message": "m0", "@timestamp": "2015-01-22T17:33:01.855087+00:00"}],
    ),
    "py 9 bulk": Recording(
        "PUT",
        "/_bulk",
        PY_9,
        '{"create":{"_index":"logs"}}\n{"message":"m0"}\n{"index":{"_index":"logs"}}\n{"id":"a","event":"view"}\n',
        200,
        COMPATIBLE + "9",
        [{"event": "log", "message": "m0"}, {"event": "view", "id": "a"}],
    ),
    "py 8 ping": Recording("HEAD", "/", PY_8, "", 200, COMPATIBLE + "8", []),
    "py 9 index": Recording("POST", "/logs/_doc", PY_9, '{"id":"doc"}', 201, COMPATIBLE + "9", [{"id": "doc"}]),
    "py 9 index by id": Recording(
        "PUT", "/logs/_doc/k1", PY_9, '{"id":"doc"}', 201, COMPATIBLE + "9", [{"id": "doc", "event_id": "k1"}]
    ),
    "py 9 create": Recording(
        "PUT",
        "/logs/_create/c2015-01-22T17%3A33%3A02.466475%2B00%3A00",
        PY_9,
        '{"id":"doc","event":"view"}',
        201,
        COMPATIBLE + "9",
        [{"event_id": "c2015-01-22T17:33:02.466475+00:00"}],
    ),
    "py 9 health": Recording(
        "GET", "/_cluster/health?timeout=5s&wait_for_status=yellow", PY_9, "", 200, COMPATIBLE + "9", []
    ),
    "py 9 sniff": Recording("GET", "/_nodes/_all/http", PY_9, "", 200, COMPATIBLE + "9", []),
    "py 9 search": Recording("POST", "/logs/_search", PY_9, '{"query":{"match_all":{}}}', 405, COMPATIBLE + "9", []),
    # opensearch-py 3.2.0
    "opensearch-py": Recording(
        "POST",
        "/_bulk",
        "",
        '{"index":{"_index":"logs"}}\n{"message":"os"}\n{"index":{"_index":"logs"}}\n{"message":"os"}\n',
        200,
        "application/json",
        [{"message": "os"}, {"message": "os"}],
    ),
    # @elastic/elasticsearch 8.19.2
    "js refresh": Recording("GET", "/pino/_refresh", JS_8, "", 200, COMPATIBLE + "8", []),
    # pino-elasticsearch 9.0.0 with pino 10.4.0
    "pino index": Recording(
        "POST",
        "/_bulk",
        PY_8,
        '{"index":{"_index":"pino"}}\n'
        '{"level":30,"time":"2015-01-22T17:33:43.784Z","pid":9660,"hostname":"vm","msg":"hello pino"}\n',
        200,
        COMPATIBLE + "8",
        [{"event": "log", "message": "hello pino", "level": 30, "@timestamp": "2015-01-22T17:33:43.784Z"}],
    ),
    "pino create": Recording(
        "POST",
        "/_bulk",
        PY_8,
        '{"index":{"_index":"pino","op_type":"create"}}\n'
        '{"level":30,"time":"2015-01-22T17:33:45.604Z","pid":9803,"hostname":"vm","id":"doc9","event":"view",'
        '"@timestamp":"2015-01-22T17:33:45.604Z"}\n',
        200,
        COMPATIBLE + "8",
        [{"event": "view", "id": "doc9", "@timestamp": "2015-01-22T17:33:45.604Z"}],
    ),
    # winston-elasticsearch 0.19.0
    "winston": Recording(
        "POST",
        "/_bulk?wait_for_active_shards=1&timeout=200ms",
        PY_8,
        '{"index":{"_index":"logs-2015.01.22","pipeline":null},"attempts":0}\n'
        '{"@timestamp":"2015-01-22T17:33:47.425Z","message":"second","severity":"warn",'
        '"fields":{"user":"u","nested":{"a":1}}}\n',
        200,
        COMPATIBLE + "8",
        [{"event": "log", "message": "second", "severity": "warn", "fields.nested.a": 1}],
    ),
    "winston data stream": Recording(
        "POST",
        "/_bulk?wait_for_active_shards=1&timeout=200ms",
        PY_8,
        '{"create":{"_index":"logs-app-default","pipeline":null},"attempts":0}\n'
        '{"@timestamp":"2015-01-22T17:33:49.293Z","message":"hello winston","severity":"info","fields":{}}\n',
        200,
        COMPATIBLE + "8",
        [{"event": "log", "message": "hello winston"}],
    ),
    "winston template": Recording(
        "HEAD", "/_index_template/template_logs-app-default", JS_8, "", 200, COMPATIBLE + "8", []
    ),
    "winston health": Recording(
        "GET",
        "/_cluster/health?timeout=30s&wait_for_nodes=%3E%3D1&wait_for_status=yellow",
        JS_8,
        "",
        200,
        COMPATIBLE + "8",
        [],
    ),
    # rsyslog 8.2302.0 with omelasticsearch
    "rsyslog": Recording(
        "POST",
        "/_bulk",
        "*/*",
        '{"index":{"_index": "syslog"}}\n{"@timestamp":"2015-01-22T17:34:15.923119+00:00","host":"vm",'
        '"severity":"notice","message":"hello one"}\n{"index":{"_index": "syslog"}}\n'
        '{"@timestamp":"2015-01-22T17:34:15.923129+00:00","host":"vm","severity":"notice","message":"203.0.113.9 - - '
        '[17/May/2015:10:05:03 +0000] \\"GET /a/data.csv HTTP/1.1\\" 200 5 \\"-\\" \\"curl/8\\""}\n',
        200,
        "application/json",
        [
            {"event": "log", "message": "hello one", "host": "vm"},
            {"event": "download", "id": "/a/data.csv", "@timestamp": "2015-05-17T10:05:03.000Z", "severity": "notice"},
        ],
    ),
    # syslog-ng 3.38.1 with elasticsearch-http()
    "syslog-ng": Recording(
        "POST",
        "/_bulk",
        "*/*",
        '{"index":{"_index":"syslog-ng"}}\n{"PRIORITY":"notice","MESSAGE":"hello two","ISODATE":'
        '"2015-01-22T17:35:45+00:00","HOST":"vm","FACILITY":"user","@timestamp":"2015-01-22T17:35:45+00:00"}\n',
        200,
        "application/json",
        [{"event": "log", "message": "hello two", "HOST": "vm", "@timestamp": "2015-01-22T17:35:45+00:00"}],
    ),
}


def play(recording: Recording) -> tuple[list[dict[str, Any]], Reply]:
    """Return the events of a recorded request and the reply."""
    path, _, query = recording.target.partition("?")
    request = Request(
        recording.body.encode(),
        "",
        100,
        recording.method,
        path,
        query,
        CIMultiDict({"Accept": recording.accept, "Host": "metronome.example:8080"}),
        event_ids=generate_event_ids(),
    )
    parsed = protocol.parse(request)
    events = [dict(event.fields) for event in parsed.events if isinstance(event, Event)]
    return events, protocol.reply(request, parsed, IngestResult(len(events), {}))


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_request_is_parsed_and_answered(name: str) -> None:
    recording = RECORDINGS[name]
    events, reply = play(recording)
    assert [
        {field: event.get(field) for field in expected}
        for event, expected in zip(events, recording.events, strict=True)
    ] == recording.events
    assert (reply.status, reply.content_type) == (recording.status, recording.content_type)
    assert reply.headers["X-Elastic-Product"] == "Elasticsearch"
    response = orjson.loads(reply.body)
    if "_bulk" in recording.target:
        assert response["errors"] is False
        items = [item for operations in response["items"] for item in operations.values()]
        assert [item["status"] for item in items] == [201] * len(events)
        ids = [item["_id"] for item in items]
        assert ids == [event["event_id"] for event in events]
        assert len(set(ids)) == len(ids)


def test_the_item_of_op_type_create_is_named_create() -> None:
    _, reply = play(RECORDINGS["pino create"])
    assert [list(operations) for operations in orjson.loads(reply.body)["items"]] == [["create"]]


def test_sniffing_finds_the_address_of_the_request() -> None:
    _, reply = play(RECORDINGS["py 9 sniff"])
    addresses = [node["http"]["publish_address"] for node in orjson.loads(reply.body)["nodes"].values()]
    assert addresses == ["metronome.example:8080"]
