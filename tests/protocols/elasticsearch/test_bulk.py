"""Elasticsearch's protocol: actions, responses, handshakes and errors."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from metronome.errors import (
    Forbidden,
    Malformed,
    MethodNotAllowed,
    MetronomeError,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    SpoolFull,
    StoreUnavailable,
    Unauthorized,
    UnsupportedEncoding,
)
from metronome.event import DocumentContext, Event, build_document, derive_event_ids, generate_event_ids
from metronome.protocol import IngestResult, Reply, Request
from metronome.protocols.elasticsearch import protocol

CONTEXT: Final = DocumentContext(
    received_at="2015-01-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
TIMESTAMP: Final = "2015-01-22T11:59:00.123Z"
BEATS_FILTER: Final = "filter_path=errors%2Citems.%2A.error%2Citems.%2A.status"


class Node:
    """The protocol with an intake that keeps the documents in memory."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self._identities = generate_event_ids()

    def request(  # one parameter for each part of HTTP
        self, body: str, path: str, method: str, query: str, headers: Mapping[str, str]
    ) -> Request:
        return Request(
            body.encode(errors="surrogatepass"),
            "",
            100,
            method,
            path,
            query,
            CIMultiDict(headers),
            event_ids=self._identities,
        )

    def send(
        self,
        body: str = "",
        path: str = "/_bulk",
        method: str = "POST",
        query: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        request = self.request(body, path, method, query, headers or {})
        parsed = protocol.parse(request)
        rejected: dict[int, Malformed | PayloadTooLarge] = {}
        accepted = []
        for index, event in enumerate(parsed.events):
            try:
                if not isinstance(event, Event):
                    raise event
                accepted.append(orjson.loads(build_document(event, CONTEXT, "spare")))
            except (Malformed, PayloadTooLarge) as error:
                rejected[index] = error
        self.documents += accepted
        return protocol.reply(request, parsed, IngestResult(len(accepted), rejected))

    def bulk(self, *lines: str, path: str = "/_bulk", query: str = "", end: str = "\n") -> dict[str, Any]:
        reply = self.send("\n".join(lines) + end, path, query=query)
        assert reply.status == 200
        response: dict[str, Any] = orjson.loads(reply.body)
        return response

    def results(self, *lines: str, path: str = "/_bulk") -> list[tuple[str, int, str | None]]:
        """Return the operation, status and error type of each item."""
        response = self.bulk(*lines, path=path)
        results = [
            (operation, item["status"], item.get("error", {}).get("type"))
            for operations in response["items"]
            for operation, item in operations.items()
        ]
        assert response["errors"] is any(status >= 400 for _, status, _ in results)
        return results


@pytest.fixture
def node() -> Node:
    return Node()


CREATED: Final = ("create", 201, None)
INDEXED: Final = ("index", 201, None)
MAPPING_ERROR: Final = "mapper_parsing_exception"
ILLEGAL_ARGUMENT: Final = "illegal_argument_exception"


@pytest.mark.parametrize(
    ("lines", "results"),
    [
        (['{"index":{}}', "{}"], [INDEXED]),
        (['{"create":{"_index":"x"}}', '{"id":"a"}', "", '{"index":{"_index":"x"}}', '{"id":"b"}'], [CREATED, INDEXED]),
        (['{"create":{"_index":"x","_id":"1"}}\r', '{"id":"a"}\r'], [CREATED]),
        (['{"index":{"pipeline":null,"routing":"r"},"attempts":0}', "{}"], [INDEXED]),
        (['{"index":{"op_type":"create"}}', "{}"], [CREATED]),
        (['{"create":{"_id":5}}', "{}"], [CREATED]),
        (
            ['{"delete":{"_id":"1"}}', '{"create":{}}', '{"id":"a"}', '{"update":{"_id":"1"}}', '{"doc":{}}'],
            [("delete", 400, ILLEGAL_ARGUMENT), CREATED, ("update", 400, ILLEGAL_ARGUMENT)],
        ),
        (['{"create":{"_id":["1"]}}', "{}", '{"create":{}}', "{}"], [("create", 400, ILLEGAL_ARGUMENT), CREATED]),
        (['{"create":{"_id":""}}', "{}"], [("create", 400, ILLEGAL_ARGUMENT)]),
        (['{"create":{"_id":"' + "x" * 513 + '"}}', "{}"], [("create", 400, ILLEGAL_ARGUMENT)]),
        (['{"create":{"_index":"' + "x" * 256 + '"}}', "{}"], [("create", 400, ILLEGAL_ARGUMENT)]),
        (['{"create":{"_index":7}}', "{}"], [("create", 400, ILLEGAL_ARGUMENT)]),
        (['{"index":{"_id":"1","if_seq_no":1,"if_primary_term":1}}', "{}"], [("index", 400, ILLEGAL_ARGUMENT)]),
        (['{"create":{}}', "not JSON", '{"create":{}}', "{}"], [("create", 400, MAPPING_ERROR), CREATED]),
        (['{"create":{}}', "[1]", '{"create":{}}', "{}"], [("create", 400, MAPPING_ERROR), CREATED]),
        (['{"create":{}}', "", '{"create":{}}', "{}"], [("create", 400, MAPPING_ERROR), CREATED]),
        (['{"create":{}}', '{"@timestamp":"no"}', '{"create":{}}', "{}"], [("create", 400, MAPPING_ERROR), CREATED]),
        (['{"create":{}}', "{}", '{"create":{}}'], [CREATED, ("create", 400, MAPPING_ERROR)]),
    ],
)
def test_each_document_is_accepted_or_rejected_by_itself(
    node: Node, lines: list[str], results: list[tuple[str, int, str | None]]
) -> None:
    assert node.results(*lines) == results
    assert len(node.documents) == sum(status == 201 for _, status, _ in results)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\n\n",
        "[]",
        '[{"index":{}},{}]',
        '{"id":"a","event":"view"}\n',
        '{"index":{}}\n{}\n{"foo":{}}\n{}\n',
        '{"index":{}}\n{}\nnot JSON\n{}\n',
        '{"index":{},"create":{}}\n{}\n',
        '{"index":null}\n{}\n',
        '{"create":{}}\n{\n"id":"a"\n}\n',
    ],
)
def test_rejects_a_body_whose_lines_are_ambiguous(node: Node, body: str) -> None:
    with pytest.raises(Malformed):
        node.send(body)
    assert node.documents == []


def test_the_error_has_the_number_of_the_malformed_line(node: Node) -> None:
    with pytest.raises(Malformed, match=r"Malformed action/metadata line \[4\]"):
        node.send('{"index":{}}\n{}\n\n{"foo":{}}\n{}\n')


def test_rejects_a_body_with_too_many_actions(node: Node) -> None:
    with pytest.raises(PayloadTooLarge, match="batch_max_events"):
        node.send('{"index":{}}\n{}\n' * 101)
    assert len(node.bulk(*['{"index":{}}\n{}'] * 100)["items"]) == 100


@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
def test_the_last_line_may_have_no_line_end(node: Node, end: str) -> None:
    answer = node.bulk('{"index":{}}', '{"id":"a"}', end=end)
    assert answer["errors"] is False
    assert node.documents[0]["id"] == "a"


@pytest.mark.parametrize(
    ("path", "action", "index"),
    [
        ("/_bulk", "{}", "metronome"),
        ("/_bulk/", '{"_index":"mine"}', "mine"),
        ("/logs/_bulk", "{}", "logs"),
        ("/logs/_bulk", '{"_index":"mine"}', "mine"),
        ("/logs/_doc/_bulk", "{}", "logs"),
        ("/logs/type/_bulk", "{}", "logs"),
        ("/%3Clogs-%7Bnow%2Fd%7D%3E/_bulk", "{}", "<logs-{now/d}>"),
        ("/a%22b/_bulk", "{}", 'a"b'),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_the_response_repeats_the_index(node: Node, path: str, action: str, index: str, method: str) -> None:
    reply = node.send(f'{{"index":{action}}}\n{{}}\n', path, method)
    assert orjson.loads(reply.body)["items"][0]["index"]["_index"] == index


class TestEventIds:
    def test_the_id_of_the_action_wins_over_the_event_id_of_the_document(self, node: Node) -> None:
        node.results('{"index":{"_id":"n"}}', '{"id":"a","event_id":"own"}', '{"index":{"_id":"m"}}', '{"id":"a"}')
        assert [(found["event_id"], found.get("record_event_id")) for found in node.documents] == [
            ("n", "own"),
            ("m", None),
        ]

    def test_the_event_id_of_the_document_is_used_without_an_action_id(self, node: Node) -> None:
        answer = node.bulk('{"index":{}}', '{"id":"a","event_id":"own"}', '{"index":{}}', '{"id":"a","event_id":7}')
        assert [one["index"]["_id"] for one in answer["items"]] == ["own", "7"]
        assert [found["event_id"] for found in node.documents] == ["own", "7"]

    @pytest.mark.parametrize("text", ["7", "1.0", "-2.50", "1e3", "true", "false", "98765432109876543210987"])
    def test_an_id_that_is_no_string_is_its_text(self, node: Node, text: str) -> None:
        action, own = '{"create":{"_id" : ' + text + "}}", '{"id":"a","event_id":' + text + "}"
        answer = node.bulk(action, '{"id":"a"}', '{"create":{}}', own)
        assert [item["create"]["_id"] for item in answer["items"]] == [text, text]
        assert [document["event_id"] for document in node.documents] == [text, text]

    def test_the_response_repeats_any_id_unchanged(self, node: Node) -> None:
        names = ['a"b', "a\\b", "ä", "\x01", "x"]
        lines = [part for name in names for part in (orjson.dumps({"index": {"_id": name}}).decode(), "{}")]
        assert [one["index"]["_id"] for one in node.bulk(*lines)["items"]] == names
        own = [part for name in names for part in ('{"index":{}}', orjson.dumps({"id": 1, "event_id": name}).decode())]
        assert [one["index"]["_id"] for one in node.bulk(*own)["items"]] == names

    @pytest.mark.parametrize(
        ("sources", "same_ids"),
        [
            ([f'{{"@timestamp":"{TIMESTAMP}","message":"m"}}'], True),
            (['{"time":1531171082399,"message":"m"}'], True),
            (['{"time":1531171082.5,"message":"m"}'], True),
            (['{"@timestamp":"2015-01-22T11:59:00Z","message":"m"}'] * 2, False),
            (['{"@timestamp":"2015-01-22T11:59:00.000Z","a":1}', '{"ts":"2015-01-22T11:59:00","a":1}'], False),
            (['{"@timestamp":"2015-01-22T11:59:00Z","a":1}', '{"ts":"2015-01-22 11:59:00,020","a":1}'], True),
            (['{"time":1531171082399000}'], True),
            (['{"time":1531171082000000}', '{"time":1531171082000000000}', '{"time":1531171082000.0}'], False),
            (['{"timestamp" : "1531171082000000001"}'], True),
            (['{"time":0.25,"@timestamp":"2015-01-22T11:59:00Z"}'], False),
            (['{"@timestamp":"2015-01-22T11:59:00Z","message":"m"}'], False),
            (['{"@timestamp":"2015-01-22T11:59:00.000+00:00","message":"m"}'], False),
            (['{"time":1531171082000,"message":"m"}'], False),
            (['{"message":"m"}'], False),
            (['{"message":"m"}'] * 2, False),
            ([f'{{"@timestamp":"{TIMESTAMP}","message":"m"}}', '{"message":"m"}'], True),
            (['{"a":{"b":1},"text":"\\"time\\":"}'], False),
        ],
    )
    def test_a_resent_request_that_is_unique_gets_the_same_ids(
        self, node: Node, sources: list[str], *, same_ids: bool
    ) -> None:
        lines = [part for source in sources for part in ('{"create":{}}', source)]
        first, second = ({item["create"]["_id"] for item in node.bulk(*lines)["items"]} for _ in range(2))
        assert len(first) == len(second) == len(sources)
        assert (first == second) is same_ids
        other_path = {item["create"]["_id"] for item in node.bulk(*lines, path="/x/_bulk")["items"]}
        assert other_path.isdisjoint(first)

    def test_an_idempotency_key_determines_the_ids(self) -> None:
        body = b'{"index":{}}\n{"@timestamp":"' + TIMESTAMP.encode() + b'"}\n'
        request = Request(
            body,
            "",
            10,
            path="/_bulk",
            headers=CIMultiDict({"Idempotency-Key": "k"}),
            event_ids=derive_event_ids("k"),
        )
        (event,) = protocol.parse(request).events
        assert isinstance(event, Event)
        assert event.fields["event_id"] == next(derive_event_ids("k"))


def typed_headers(**headers: str) -> Mapping[str, str]:
    return CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})


V7 = "application/vnd.elasticsearch+json; compatible-with=7"
V8 = "application/vnd.elasticsearch+json;compatible-with=8"


class TestVersion7:
    @pytest.mark.parametrize(
        ("headers", "is_typed"),
        [
            (typed_headers(Accept=V7, Content_Type=V7), True),
            (typed_headers(Content_Type="application/vnd.elasticsearch+x-ndjson;compatible-with=7"), True),
            (typed_headers(User_Agent="elasticsearch-java/7.10.2 (Java/11.0.2)"), True),
            (typed_headers(User_Agent="Apache-HttpAsyncClient/4.1.4 (Java/1.8.0)"), True),
            (typed_headers(X_Elastic_Client_Meta="es=7.16.1,jv=8,t=7.16.1,hc=4.1.4"), True),
            (typed_headers(Accept=V8, User_Agent="elasticsearch-java/7.10.2 (Java/11.0.2)"), False),
            (typed_headers(User_Agent="elasticsearch-java/8.12.0 (Java/21)"), False),
            (typed_headers(Accept="*/*", User_Agent="curl/8.5.0"), False),
        ],
    )
    def test_each_document_has_a_type_for_clients_of_version_7(
        self, node: Node, headers: Mapping[str, str], *, is_typed: bool
    ) -> None:
        body = (
            '{"create":{"_id":"a"}}\n{}\n{"index":{}}\n{}\n{"index":{}}\n{"@timestamp":"no"}\n{"delete":{"_id":"b"}}\n'
        )
        items = orjson.loads(node.send(body, headers=headers).body)["items"]
        assert [item.get("_type") for operations in items for item in operations.values()] == (
            ["_doc" if is_typed else None] * 4
        )
        some = orjson.loads(node.send(body, query="filter_path=items.*._type", headers=headers).body)
        assert some.get("items", []) == (
            [{name: {"_type": "_doc"}} for name in ("create", "index", "index", "delete")] if is_typed else []
        )
        for method, path in (("POST", "/logs/_doc"), ("PUT", "/logs/_doc/1"), ("PUT", "/logs/_create/2")):
            reply = orjson.loads(node.send("{}", path, method, headers=headers).body)
            assert reply.get("_type") == ("_doc" if is_typed else None)

    def test_an_error_of_an_index_has_its_uuid(self, node: Node) -> None:
        error = orjson.loads(node.send('{"@timestamp":"no"}', "/logs/_doc").body)["error"]
        assert (error["index"], error["index_uuid"]) == ("logs", "_na_")
        assert error["root_cause"][0]["index_uuid"] == "_na_"


class TestUpdates:
    def test_an_upsert_creates_its_document(self, node: Node) -> None:
        lines = [
            *('{"update":{"_id":"a"}}', '{"doc":{"message":"one"},"doc_as_upsert":true}'),
            *('{"update":{"_id":"b"}}', '{"script":{"source":"x"},"upsert":{"message":"two"}}'),
        ]
        items = node.bulk(*lines)["items"]
        assert [(item["update"]["_id"], item["update"]["result"]) for item in items] == [
            ("a", "created"),
            ("b", "created"),
        ]
        assert [(found["event_id"], found["message"]) for found in node.documents] == [("a", "one"), ("b", "two")]

    @pytest.mark.parametrize(
        "lines",
        [
            ('{"update":{"_id":"a"}}', '{"doc":{"message":"one"}}'),
            ('{"update":{"_id":"a"}}', '{"doc":{"message":"one"},"doc_as_upsert":false}'),
            ('{"update":{"_id":"a"}}', '{"doc_as_upsert":true}'),
            ('{"update":{"_id":"a"}}', '{"upsert":{},"scripted_upsert":true}'),
            ('{"update":{}}', '{"doc":{},"doc_as_upsert":true}'),
        ],
    )
    def test_an_update_that_creates_nothing_is_rejected(self, node: Node, lines: tuple[str, str]) -> None:
        assert node.results(*lines) == [("update", 400, ILLEGAL_ARGUMENT)]
        assert not node.documents

    def test_an_upsert_that_would_change_a_document_of_the_request_is_rejected(self, node: Node) -> None:
        def upsert(text: str) -> tuple[str, str]:
            return '{"update":{"_id":"a"}}', '{"doc":{"message":"' + text + '"},"doc_as_upsert":true}'

        results = [("update", 201, None), ("update", 201, None), ("update", 400, ILLEGAL_ARGUMENT)]
        assert node.results(*upsert("one"), *upsert("one"), *upsert("two")) == results
        results = [("create", 201, None), ("update", 400, ILLEGAL_ARGUMENT)]
        assert node.results('{"create":{"_id":"a"}}', "{}", *upsert("one")) == results

    def test_a_single_upsert_creates_its_document(self, node: Node) -> None:
        reply = node.send('{"doc":{"message":"one"},"doc_as_upsert":true}', "/logs/_update/7")
        assert (reply.status, orjson.loads(reply.body)["_id"]) == (201, "7")
        reply = node.send('{"doc":{"message":"one"}}', "/logs/_update/8")
        assert (reply.status, orjson.loads(reply.body)["error"]["type"]) == (400, ILLEGAL_ARGUMENT)


class TestPretty:
    def test_replies_are_indented_as_elasticsearch_does_it(self, node: Node) -> None:
        reply = node.send('{"create":{"_id":"a"}}\n{"x":"é : {}"}\n', query="pretty").body.decode()
        assert reply.startswith('{\n  "took" : 0,\n  "errors" : false,\n  "items" : [\n    {\n      "create" : {\n')
        assert '          "failed" : 0\n' in reply
        assert reply.endswith("\n}\n")

    def test_empty_containers_have_a_space(self, node: Node) -> None:
        body = node.send("", "/_cluster/settings", "GET", "pretty=true").body
        assert body == b'{\n  "persistent" : { },\n  "transient" : { }\n}\n'

    def test_errors_are_indented(self, node: Node) -> None:
        assert b'\n  "status" : 405\n' in node.send("", "/_search", "GET", "pretty").body

    @pytest.mark.parametrize("query", ["", "pretty=false", "prettyprint=1"])
    def test_other_replies_are_compact(self, node: Node, query: str) -> None:
        assert b" : " not in node.send("", "/", "GET", query).body


class TestRepeatedIds:
    """The store deduplicates: the protocol passes on every document with its `_id`."""

    @pytest.mark.parametrize("operation", ["create", "index"])
    def test_a_repeated_id_is_accepted_and_keeps_its_event_id(self, node: Node, operation: str) -> None:
        lines = [f'{{"{operation}":{{"_index":"x","_id":"1"}}}}', '{"id":"a"}']
        created = (operation, 201, None)
        assert node.results(*lines) == [created]
        assert node.results(*lines, *lines) == [created, created]
        assert [document["event_id"] for document in node.documents] == ["1", "1", "1"]

    def test_a_repeated_id_is_accepted_after_its_first_document_is_rejected(self, node: Node) -> None:
        invalid = ['{"create":{"_id":"1"}}', '{"@timestamp":"no"}']
        assert node.results(*invalid, '{"create":{"_id":"1"}}', "{}") == [("create", 400, MAPPING_ERROR), CREATED]
        assert len(node.documents) == 1

    def test_a_single_document_with_a_repeated_id_is_created(self, node: Node) -> None:
        replies = [
            node.send('{"id":"a"}', "/x/_create/1", "PUT"),
            node.send('{"id":"a"}', "/x/_create/1", "POST"),
            node.send('{"id":"b"}', "/x/_doc/1", "PUT"),
            node.send('{"id":"a"}', "/x/_doc/1", "PUT", "op_type=create"),
        ]
        assert [(reply.status, orjson.loads(reply.body)["result"]) for reply in replies] == [(201, "created")] * 4


@pytest.mark.parametrize(
    ("query", "accepted", "rejected"),
    [
        ("", {"took", "errors", "items"}, {"_index", "_id", "status", "error"}),
        (BEATS_FILTER, {"errors", "items"}, {"status", "error"}),
        ("filter_path=errors,items.*.error,items.*.status&timeout=1m", {"errors", "items"}, {"status", "error"}),
        ("filter_path=errors", {"errors"}, None),
        ("filter_path=took,errors,items.index.error.type", {"took", "errors"}, {"error"}),
        ("filter_path=items.*._id,items.*.status", {"items"}, {"_id", "status"}),
        ("filter_path=errors,items", {"errors", "items"}, {"_index", "_id", "status", "error"}),
        ("filter_path=-took", {"took", "errors", "items"}, {"_index", "_id", "status", "error"}),
        ("filter_path=**.status", {"took", "errors", "items"}, {"_index", "_id", "status", "error"}),
        ("filter_path=", {"took", "errors", "items"}, {"_index", "_id", "status", "error"}),
        ("x=" + "filter_path" * 100, {"took", "errors", "items"}, {"_index", "_id", "status", "error"}),
    ],
)
def test_filter_path_selects_parts_of_the_response(
    node: Node, query: str, accepted: set[str], rejected: set[str] | None
) -> None:
    assert node.bulk('{"index":{"_id":"1"}}', "{}", query=query).keys() == accepted
    response = node.bulk('{"index":{"_id":"2"}}', "no", '{"index":{"_id":"1"}}', "{}", query=query)
    items = [item for operations in response.get("items", []) for item in operations.values()]
    assert [set(item) for item in items][:1] == ([rejected] if rejected else [])
    assert {item.get("status") for item in items} <= {None, 201, 400}


GET_AND_HEAD: Final = [
    *("", "/", "/_license", "/_xpack", "/_cluster/health", "/_cluster/health/logs", "/_cluster/settings"),
    *("/_nodes", "/_nodes/http", "/_nodes/_all/http", "/_cat/health", "/_index_template/t", "/_template/t"),
    *("/_component_template/t", "/_ingest/pipeline/p", "/_ilm/policy/p", "/_ilm/status", "/_data_stream/d"),
    *("/_alias/a", "/logs/_alias/a", "/logs", "/logs/", "/logs/_mapping"),
]
PUTS: Final = [
    *("/_index_template/t", "/_template/t", "/_component_template/t", "/_ingest/pipeline/p", "/_ilm/policy/p"),
    *("/_data_stream/d", "/_data_stream/d/_lifecycle", "/logs/_alias/a", "/logs", "/logs/_mapping", "/logs/_settings"),
]


class TestHandshakes:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            *(("GET", path) for path in GET_AND_HEAD),
            *(("HEAD", path) for path in GET_AND_HEAD),
            *(("PUT", path) for path in PUTS),
            *((method, path) for path in ("/logs/_refresh", "/_refresh", "/logs/_flush") for method in ("GET", "POST")),
            ("POST", "/_aliases"),
        ],
    )
    def test_handshakes_are_answered_and_store_nothing(self, node: Node, method: str, path: str) -> None:
        reply = node.send('{"id":"a"}', path, method)
        assert (reply.status, reply.headers["X-Elastic-Product"]) == (200, "Elasticsearch")
        assert reply.body
        assert reply.content_type == ("text/plain" if "_cat" in path else "application/json")
        assert method != "PUT" or orjson.loads(reply.body)["acknowledged"] is True
        assert node.documents == []

    def test_reports_a_version_that_clients_support(self, node: Node) -> None:
        found = orjson.loads(node.send("", "/", "GET").body)
        assert found["tagline"] == "You Know, for Search"
        assert (found["version"]["number"], found["version"]["build_flavor"]) == ("8.19.0", "default")
        assert orjson.loads(node.send("", "/_license", "GET").body)["license"]["status"] == "active"

    @pytest.mark.parametrize(
        ("host", "address"),
        [
            ("h:80", "h:80"),
            ("h", "h:80"),
            ("[::1]:9", "[::1]:9"),
            ("[::1]", "[::1]:80"),
            ("127.0.0.1:9", "127.0.0.1:9"),
        ],
    )
    def test_the_only_node_is_at_the_address_of_the_request(self, node: Node, host: str, address: str) -> None:
        reply = node.send("", "/_nodes/http", "GET", headers={"Host": host})
        (found,) = orjson.loads(reply.body)["nodes"].values()
        assert found["http"]["publish_address"] == address

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("DELETE", "/logs", 405),
            ("DELETE", "/logs/_doc/1", 405),
            ("GET", "/_bulk", 405),
            ("DELETE", "/_data_stream/d", 405),
            *(
                (method, f"/logs/{name}", 405)
                for name in ("_search", "_count", "_delete_by_query")
                for method in ("GET", "POST")
            ),
            *(("POST", f"/{name}", 405) for name in ("_search", "_msearch", "_mget", "_reindex")),
            ("GET", "/logs/_source/1", 405),
            ("GET", "/_nothing", 404),
            ("PUT", "/_nothing/at/all", 404),
            ("GET", "/_security/_authenticate", 404),
        ],
    )
    def test_unsupported_requests_get_an_error_in_elasticsearchs_format(
        self, node: Node, method: str, path: str, status: int
    ) -> None:
        reply = node.send('{"index":{}}\n{}\n', path, method)
        error = orjson.loads(reply.body)
        assert (reply.status, error["status"]) == (status, status)
        assert error["error"]["reason"] == error["error"]["root_cause"][0]["reason"]
        assert (status == 405) == ("Allow" in reply.headers)
        if "search" in path:
            assert "/tock" in error["error"]["reason"]
        assert node.documents == []


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (
            "application/vnd.elasticsearch+json; compatible-with=8",
            "application/vnd.elasticsearch+json;compatible-with=8",
        ),
        (
            "application/vnd.elasticsearch+json;compatible-with=9,text/plain",
            "application/vnd.elasticsearch+json;compatible-with=9",
        ),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/vnd.elasticsearch+json", "application/json"),
        (
            "application/vnd.elasticsearch+json; compatible-with=8\r\nX: y",
            "application/vnd.elasticsearch+json;compatible-with=8",
        ),
    ],
)
def test_the_reply_has_the_requested_media_type(node: Node, accept: str, answered: str) -> None:
    headers = {"Accept": accept}
    assert node.send("", "/", "GET", headers=headers).content_type == answered
    assert node.send('{"index":{}}\n{}\n', headers=headers).content_type == answered
    assert node.send("", "/_search", headers=headers).content_type == answered


class TestSingleDocuments:
    @pytest.mark.parametrize(
        ("method", "path", "name"),
        [
            ("POST", "/logs/_doc", None),
            ("POST", "/logs/_doc/", None),
            ("PUT", "/logs/_doc/a%2Fb", "a/b"),
            ("POST", "/logs/_create/n", "n"),
        ],
    )
    def test_single_documents_are_created(self, node: Node, method: str, path: str, name: str | None) -> None:
        reply = node.send('{"id":"x"}', path, method)
        answer = orjson.loads(reply.body)
        assert (reply.status, answer["result"], answer["_index"]) == (201, "created", "logs")
        assert answer["_id"] == (name or node.documents[0]["event_id"])
        assert [found["id"] for found in node.documents] == ["x"]

    @pytest.mark.parametrize("body", ["", "no", "[]", '{"@timestamp":"no"}'])
    def test_rejects_an_invalid_single_document(self, node: Node, body: str) -> None:
        reply = node.send(body, "/logs/_doc")
        answer = orjson.loads(reply.body)
        assert (reply.status, answer["status"], answer["error"]["type"]) == (400, 400, MAPPING_ERROR)
        assert answer["error"]["root_cause"][0]["reason"]

    def test_rejects_an_id_that_is_too_long(self, node: Node) -> None:
        with pytest.raises(Malformed, match="512"):
            node.send("{}", "/logs/_create/" + "x" * 513)


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (Unauthorized("n"), 401, "security_exception"),
        (Forbidden("n"), 403, "security_exception"),
        (NotFound("n"), 404, "resource_not_found_exception"),
        (MethodNotAllowed("n"), 405, ILLEGAL_ARGUMENT),
        (RequestTimeout("n"), 408, "timeout_exception"),
        (PayloadTooLarge("n"), 413, "content_too_long_exception"),
        (UnsupportedEncoding("n"), 415, "media_type_header_exception"),
        (Malformed("n"), 400, ILLEGAL_ARGUMENT),
        (SpoolFull("n"), 429, "es_rejected_execution_exception"),
        (StoreUnavailable("n"), 503, "unavailable_shards_exception"),
        (MetronomeError("n"), 500, "status_exception"),
    ],
)
def test_errors_have_elasticsearchs_format(node: Node, error: MetronomeError, status: int, error_type: str) -> None:
    for path in ("/_bulk", "/logs/_doc", "/"):
        reply = protocol.reply_error(node.request("", path, "POST", "", {}), error)
        answer = orjson.loads(reply.body)
        assert (reply.status, answer["status"], answer["error"]["type"]) == (status, status, error_type)
        assert answer["error"]["root_cause"][0]["type"] == error_type
        assert reply.headers["X-Elastic-Product"] == "Elasticsearch"
        assert ("WWW-Authenticate" in reply.headers) is (status == 401)
        assert ("Retry-After" in reply.headers) is error.retry


@pytest.mark.parametrize("query", ["", BEATS_FILTER])
def test_a_full_spool_rejects_each_document_for_now(node: Node, query: str) -> None:
    body = '{"index":{"_id":"1"}}\n{}\n{"create":{}}\nnot JSON\n{"delete":{"_id":"2"}}\n'
    reply = protocol.reply_error(node.request(body, "/x/_bulk", "POST", query, {}), SpoolFull("full"))
    answer = orjson.loads(reply.body)
    assert (reply.status, answer["errors"]) == (200, True)
    items = [(operation, item["status"]) for one in answer["items"] for operation, item in one.items()]
    assert items == [("index", 429), ("create", 429), ("delete", 429)]
    kinds = {item["error"]["type"] for one in answer["items"] for item in one.values()}
    assert kinds == {"es_rejected_execution_exception"}


def test_a_full_spool_rejects_the_request_if_the_sender_asks_for_that(node: Node) -> None:
    request = node.request('{"index":{}}\n{}\n', "/x/_bulk", "POST", "busy=whole", {})
    reply = protocol.reply_error(request, SpoolFull("full"))
    answer = orjson.loads(reply.body)
    assert (reply.status, answer["status"], answer["error"]["type"]) == (429, 429, "es_rejected_execution_exception")


@pytest.mark.parametrize(
    ("authorization", "key"),
    [
        ("Basic ZWxhc3RpYzpzZWNyZXQ=", "secret"),
        ("ApiKey aWQ6c2VjcmV0", "secret"),
        ("ApiKey secret", "secret"),
        ("Bearer secret", "secret"),
        ("", ""),
    ],
)
def test_reads_the_key_from_each_authorization_scheme(node: Node, authorization: str, key: str) -> None:
    request = node.request("", "/_bulk", "POST", "", {"Authorization": authorization})
    assert protocol.extract_key(request) == key


def test_a_duplicate_field_is_kept(node: Node) -> None:
    node.results('{"index":{}}', '{"id":"a","x":1,"x":2}', '{"index":{}}', '{"id":"a","text":"\\":"}')
    assert orjson.loads(node.documents[0]["params"]["[repeated]"]) == ["x"]
    assert node.documents[0]["event.original"] == '{"id":"a","x":1,"x":2}'
    assert "event.original" not in node.documents[1]


GOOD_ACTIONS: Final = ('{"index":{}}', '{"create":{"_index":"x","_id":"1"}}', '{"create":{"_id":null}}')
ODD_ACTIONS: Final = ('{"delete":{"_id":"2"}}', '{"update":{"_id":"3"}}', '{"index":{"_id":[]}}', '{"create":{},"a":0}')
ACTIONS = st.sampled_from([*GOOD_ACTIONS, *ODD_ACTIONS, '{"foo":{}}', "", "{", '{"index":1}'])
SOURCES = st.sampled_from(
    [
        "{}",
        '{"id":"a"}',
        '{"event_id":["x"]}',
        '{"@timestamp":5e300}',
        "[]",
        "",
        '{"a":{"b":{}}}',
        '"\\ud800"',
        "{" * 99,
    ]
) | st.text(max_size=10)
LINES = st.lists(ACTIONS | SOURCES, max_size=8).map("\n".join)


@given(LINES | st.text(max_size=50), st.sampled_from(["", BEATS_FILTER, "filter_path=items.*._id"]))
@example('{"index":{}}\n' * 3, "")
@example('{"create":{"_id":"1"}}\n{}\n{"index":{"_id":"1"}}\n{}\n{"create":{"_id":"1"}}\n{}', "")
def test_each_action_has_its_item_or_the_request_is_rejected(body: str, query: str) -> None:
    node = Node()
    try:
        reply = node.send(body, query=query)
    except (Malformed, PayloadTooLarge):
        assert node.documents == []
        return
    answer = orjson.loads(reply.body)
    if not query:
        statuses = [item["status"] for one in answer["items"] for item in one.values()]
        assert statuses.count(201) == len(node.documents)
        assert answer["errors"] is (len(node.documents) < len(statuses))
        busy = protocol.reply_error(node.request(body, "/_bulk", "POST", "", {}), SpoolFull("full"))
        assert len(orjson.loads(busy.body)["items"]) == len(statuses)


@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]),
    st.text(max_size=20) | st.sampled_from(["_bulk", "_doc/%00", "x/_doc/%ff", "x/_create/a%F0", "_nodes/%22"]),
    st.text(max_size=20),
)
def test_every_path_and_body_gets_a_reply(method: str, path: str, body: str) -> None:
    node = Node()
    try:
        reply = node.send(body, f"/{path}", method)
    except (Malformed, PayloadTooLarge):
        return
    assert reply.status in {200, 201, 400, 404, 405}
    assert reply.headers["X-Elastic-Product"] == "Elasticsearch"
