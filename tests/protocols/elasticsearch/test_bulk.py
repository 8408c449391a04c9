"""Elasticsearch's protocol: actions, answers, conflicts, handshakes and errors."""

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
from metronome.protocols.elasticsearch.known import RecentDocumentIds
from metronome.protocols.elasticsearch.protocol import ElasticsearchProtocol

DOOR: Final = DocumentContext(
    received_at="2026-11-22T12:00:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
SENT: Final = "2026-11-22T11:59:00.123Z"
BEATS: Final = "filter_path=errors%2Citems.%2A.error%2Citems.%2A.status"


class Node:
    """What is there for a sender: a dialect with its memory, and a door that refuses what cannot be a document."""

    def __init__(self, known: RecentDocumentIds | None = None) -> None:
        self.dialect = ElasticsearchProtocol(known or RecentDocumentIds())
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
        readings = self.dialect.parse(request)
        rejected: dict[int, Malformed | PayloadTooLarge] = {}
        taken = []
        for index, reading in enumerate(readings.events):
            try:
                if not isinstance(reading, Event):
                    raise reading
                taken.append(orjson.loads(build_document(reading, DOOR, "spare")))
            except (Malformed, PayloadTooLarge) as error:
                rejected[index] = error
        self.documents += taken
        return self.dialect.reply(request, readings, IngestResult(len(taken), rejected))

    def bulk(self, *lines: str, path: str = "/_bulk", query: str = "", end: str = "\n") -> dict[str, Any]:
        reply = self.send("\n".join(lines) + end, path, query=query)
        assert reply.status == 200
        answer: dict[str, Any] = orjson.loads(reply.body)
        return answer

    def results(self, *lines: str, path: str = "/_bulk") -> list[tuple[str, int, str | None]]:
        """Return the operation, status and kind of error of each item."""
        answer = self.bulk(*lines, path=path)
        found = [
            (operation, item["status"], item.get("error", {}).get("type"))
            for one in answer["items"]
            for operation, item in one.items()
        ]
        assert answer["errors"] is any(status >= 400 for _, status, _ in found)
        return found


@pytest.fixture
def node() -> Node:
    return Node()


CREATED: Final = ("create", 201, None)
INDEXED: Final = ("index", 201, None)
UNCHANGED: Final = ("index", 200, None)
MAPPER: Final = "mapper_parsing_exception"
ILLEGAL: Final = "illegal_argument_exception"
CONFLICT: Final = ("create", 409, "version_conflict_engine_exception")


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
            [("delete", 400, ILLEGAL), CREATED, ("update", 400, ILLEGAL)],
        ),
        (['{"create":{"_id":true}}', "{}", '{"create":{}}', "{}"], [("create", 400, ILLEGAL), CREATED]),
        (['{"create":{"_id":""}}', "{}"], [("create", 400, ILLEGAL)]),
        (['{"create":{"_id":"' + "x" * 513 + '"}}', "{}"], [("create", 400, ILLEGAL)]),
        (['{"create":{"_index":"' + "x" * 256 + '"}}', "{}"], [("create", 400, ILLEGAL)]),
        (['{"create":{"_index":7}}', "{}"], [("create", 400, ILLEGAL)]),
        (['{"index":{"_id":"1","if_seq_no":1,"if_primary_term":1}}', "{}"], [("index", 400, ILLEGAL)]),
        (['{"create":{}}', "not JSON", '{"create":{}}', "{}"], [("create", 400, MAPPER), CREATED]),
        (['{"create":{}}', "[1]", '{"create":{}}', "{}"], [("create", 400, MAPPER), CREATED]),
        (['{"create":{}}', "", '{"create":{}}', "{}"], [("create", 400, MAPPER), CREATED]),
        (['{"create":{}}', '{"@timestamp":"no"}', '{"create":{}}', "{}"], [("create", 400, MAPPER), CREATED]),
        (['{"create":{}}', "{}", '{"create":{}}'], [CREATED, ("create", 400, MAPPER)]),
    ],
)
def test_each_document_is_taken_or_refused_by_itself(
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
def test_where_nobody_knows_what_is_a_document_nothing_is_taken(node: Node, body: str) -> None:
    with pytest.raises(Malformed):
        node.send(body)
    assert node.documents == []


def test_the_line_that_is_no_action_is_named(node: Node) -> None:
    with pytest.raises(Malformed, match=r"Malformed action/metadata line \[4\]"):
        node.send('{"index":{}}\n{}\n\n{"foo":{}}\n{}\n')


def test_more_actions_than_may_be_are_too_large(node: Node) -> None:
    with pytest.raises(PayloadTooLarge, match="batch_max_events"):
        node.send('{"index":{}}\n{}\n' * 101)
    assert len(node.bulk(*['{"index":{}}\n{}'] * 100)["items"]) == 100


@pytest.mark.parametrize("end", ["\n", "", "\r\n"])
def test_the_last_line_may_lack_its_end(node: Node, end: str) -> None:
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
def test_the_index_is_given_back(node: Node, path: str, action: str, index: str, method: str) -> None:
    reply = node.send(f'{{"index":{action}}}\n{{}}\n', path, method)
    assert orjson.loads(reply.body)["items"][0]["index"]["_index"] == index


class TestNames:
    def test_the_actions_id_is_the_events_and_one_of_its_own_stays_beside_it(self, node: Node) -> None:
        node.results('{"index":{"_id":"n"}}', '{"id":"a","event_id":"own"}', '{"index":{"_id":"m"}}', '{"id":"a"}')
        assert [(found["event_id"], found.get("record_event_id")) for found in node.documents] == [
            ("n", "own"),
            ("m", None),
        ]

    def test_without_one_the_events_own_counts(self, node: Node) -> None:
        answer = node.bulk('{"index":{}}', '{"id":"a","event_id":"own"}', '{"index":{}}', '{"id":"a","event_id":7}')
        assert [one["index"]["_id"] for one in answer["items"]] == ["own", "7"]
        assert [found["event_id"] for found in node.documents] == ["own", "7"]

    def test_any_id_is_given_back_as_it_is(self, node: Node) -> None:
        names = ['a"b', "a\\b", "ä", "\x01", "x"]
        lines = [part for name in names for part in (orjson.dumps({"index": {"_id": name}}).decode(), "{}")]
        assert [one["index"]["_id"] for one in node.bulk(*lines)["items"]] == names
        own = [part for name in names for part in ('{"index":{}}', orjson.dumps({"id": 1, "event_id": name}).decode())]
        assert [one["index"]["_id"] for one in node.bulk(*own)["items"]] == names

    @pytest.mark.parametrize(
        ("sources", "again"),
        [
            ([f'{{"@timestamp":"{SENT}","message":"m"}}'], True),
            (['{"time":1531171082399,"message":"m"}'], True),
            (['{"time":1531171082.5,"message":"m"}'], True),
            (['{"@timestamp":"2026-11-22T11:59:00Z","message":"m"}'] * 2, True),
            (['{"@timestamp":"2026-11-22T11:59:00.000Z","a":1}', '{"ts":"2026-11-22T11:59:00","a":1}'], True),
            (['{"@timestamp":"2026-11-22T11:59:00Z","message":"m"}'], False),
            (['{"@timestamp":"2026-11-22T11:59:00.000+00:00","message":"m"}'], False),
            (['{"time":1531171082000,"message":"m"}'], False),
            (['{"message":"m"}'], False),
            (['{"message":"m"}'] * 2, False),
            ([f'{{"@timestamp":"{SENT}","message":"m"}}', '{"message":"m"}'], False),
            (['{"a":{"b":1},"text":"\\"time\\":"}'], False),
        ],
    )
    def test_what_is_surely_sent_again_has_the_same_names_again(
        self, node: Node, sources: list[str], *, again: bool
    ) -> None:
        lines = [part for source in sources for part in ('{"create":{}}', source)]
        names = [{one["create"]["_id"] for one in node.bulk(*lines)["items"]} for _ in range(2)]
        assert [len(some) for some in names] == [len(sources)] * 2
        assert (names[0] == names[1]) is again
        elsewhere = {one["create"]["_id"] for one in node.bulk(*lines, path="/x/_bulk")["items"]}
        assert elsewhere.isdisjoint(names[0])

    def test_an_idempotency_key_names_them_where_there_is_one(self, node: Node) -> None:
        body = b'{"index":{}}\n{"@timestamp":"' + SENT.encode() + b'"}\n'
        request = Request(
            body,
            "",
            10,
            path="/_bulk",
            headers=CIMultiDict({"Idempotency-Key": "k"}),
            event_ids=derive_event_ids("k"),
        )
        (event,) = node.dialect.parse(request).events
        assert isinstance(event, Event)
        assert event.fields["event_id"] == next(derive_event_ids("k"))


class TestConflicts:
    def test_a_document_that_is_on_disk_is_not_created_again(self, node: Node) -> None:
        lines = ['{"create":{"_index":"x","_id":"1"}}', '{"id":"a"}']
        assert node.results(*lines) == [CREATED]
        assert node.results(*lines, '{"create":{"_index":"x","_id":"2"}}', "{}") == [CONFLICT, CREATED]
        assert [found["event_id"] for found in node.documents] == ["1", "2"]

    def test_indexing_is_no_conflict_but_makes_one_and_changes_nothing(self, node: Node) -> None:
        assert node.results(*['{"index":{"_id":"1"}}', "{}"] * 2) == [INDEXED, UNCHANGED]
        assert node.results('{"index":{"_id":"1"}}', '{"id":"b"}') == [UNCHANGED]
        assert len(node.documents) == 1
        assert node.results('{"create":{"_id":"1"}}', "{}") == [CONFLICT]

    def test_another_index_is_another_document(self, node: Node) -> None:
        assert node.results('{"create":{"_index":"x","_id":"1"}}', "{}") == [CREATED]
        assert node.results('{"create":{"_index":"y","_id":"1"}}', "{}") == [CREATED]

    def test_the_second_one_in_a_request_is_one(self, node: Node) -> None:
        lines = ['{"create":{"_id":"1"}}', "{}"] * 2
        assert node.results(*lines) == [CREATED, CONFLICT]
        assert len(node.documents) == 1

    def test_what_was_refused_is_none(self, node: Node) -> None:
        bad = ['{"create":{"_id":"1"}}', '{"@timestamp":"no"}']
        assert node.results(*bad) == [("create", 400, MAPPER)]
        assert node.results('{"create":{"_id":"1"}}', "{}") == [CREATED]

    def test_the_second_one_comes_again_where_the_first_one_was_refused(self, node: Node) -> None:
        bad = ['{"create":{"_id":"1"}}', '{"@timestamp":"no"}']
        good = ['{"create":{"_id":"1"}}', "{}"]
        assert node.results(*bad, *good) == [
            ("create", 400, MAPPER),
            ("create", 429, "es_rejected_execution_exception"),
        ]
        assert node.results(*good) == [CREATED]

    def test_nothing_is_known_of_what_did_not_get_to_disk(self, node: Node) -> None:
        body = '{"create":{"_id":"1"}}\n{}\n'
        request = node.request(body, "/_bulk", "POST", "", {})
        assert len(list(node.dialect.parse(request).events)) == 1
        node.dialect.reply_error(request, SpoolFull("full"))
        assert node.results('{"create":{"_id":"1"}}', "{}") == [CREATED]

    @pytest.mark.parametrize("known", [RecentDocumentIds(max_ids=4), RecentDocumentIds(max_characters=4)])
    def test_what_is_known_is_bounded(self, known: RecentDocumentIds) -> None:
        for number in range(100):
            known.add(("x", str(number)))
            assert ("x", str(number)) in known
        assert sum(("x", str(number)) in known for number in range(100)) <= 5

    def test_single_documents_too(self, node: Node) -> None:
        first = node.send('{"id":"a"}', "/x/_create/1", "PUT")
        again = node.send('{"id":"a"}', "/x/_create/1", "POST")
        assert (first.status, again.status) == (201, 409)
        assert orjson.loads(again.body)["error"]["type"] == "version_conflict_engine_exception"
        changed = node.send('{"id":"b"}', "/x/_doc/1", "PUT")
        assert (changed.status, orjson.loads(changed.body)["result"]) == (200, "noop")
        assert node.send('{"id":"a"}', "/x/_doc/1", "PUT", "op_type=create").status == 409


@pytest.mark.parametrize(
    ("query", "taken", "refused"),
    [
        ("", {"took", "errors", "items"}, {"_index", "_id", "status", "error"}),
        (BEATS, {"errors", "items"}, {"status", "error"}),
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
def test_an_answer_shows_what_is_asked_for(node: Node, query: str, taken: set[str], refused: set[str] | None) -> None:
    assert node.bulk('{"index":{"_id":"1"}}', "{}", query=query).keys() == taken
    answer = node.bulk('{"index":{"_id":"2"}}', "no", '{"index":{"_id":"1"}}', "{}", query=query)
    assert [set(item) for one in answer.get("items", []) for item in one.values()][:1] == ([refused] if refused else [])
    for one in answer.get("items", []):
        assert one["index"].get("status") in {None, 200, 400}


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
    def test_they_are_answered_and_take_nothing(self, node: Node, method: str, path: str) -> None:
        reply = node.send('{"id":"a"}', path, method)
        assert (reply.status, reply.headers["X-Elastic-Product"]) == (200, "Elasticsearch")
        assert reply.body
        assert reply.content_type == ("text/plain" if "_cat" in path else "application/json")
        assert method != "PUT" or orjson.loads(reply.body)["acknowledged"] is True
        assert node.documents == []

    def test_this_is_a_version_that_clients_know(self, node: Node) -> None:
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
    def test_the_one_node_is_where_it_was_asked(self, node: Node, host: str, address: str) -> None:
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
            ("POST", "/logs/_update/1", 405),
            ("GET", "/logs/_source/1", 405),
            ("GET", "/_nothing", 404),
            ("PUT", "/_nothing/at/all", 404),
            ("GET", "/_security/_authenticate", 404),
        ],
    )
    def test_what_cannot_be_done_is_said_in_elasticsearchs_way(
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
def test_the_media_type_is_the_one_that_was_asked_for(node: Node, accept: str, answered: str) -> None:
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
    def test_they_are_created(self, node: Node, method: str, path: str, name: str | None) -> None:
        reply = node.send('{"id":"x"}', path, method)
        answer = orjson.loads(reply.body)
        assert (reply.status, answer["result"], answer["_index"]) == (201, "created", "logs")
        assert answer["_id"] == (name or node.documents[0]["event_id"])
        assert [found["id"] for found in node.documents] == ["x"]

    @pytest.mark.parametrize("body", ["", "no", "[]", '{"@timestamp":"no"}'])
    def test_one_that_is_none_is_refused_as_an_error(self, node: Node, body: str) -> None:
        reply = node.send(body, "/logs/_doc")
        answer = orjson.loads(reply.body)
        assert (reply.status, answer["status"], answer["error"]["type"]) == (400, 400, MAPPER)
        assert answer["error"]["root_cause"][0]["reason"]

    def test_an_id_that_is_too_long_is_refused(self, node: Node) -> None:
        with pytest.raises(Malformed, match="512"):
            node.send("{}", "/logs/_create/" + "x" * 513)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (Unauthorized("n"), 401, "security_exception"),
        (Forbidden("n"), 403, "security_exception"),
        (NotFound("n"), 404, "resource_not_found_exception"),
        (MethodNotAllowed("n"), 405, ILLEGAL),
        (RequestTimeout("n"), 408, "timeout_exception"),
        (PayloadTooLarge("n"), 413, "content_too_long_exception"),
        (UnsupportedEncoding("n"), 415, "media_type_header_exception"),
        (Malformed("n"), 400, ILLEGAL),
        (SpoolFull("n"), 429, "es_rejected_execution_exception"),
        (StoreUnavailable("n"), 503, "unavailable_shards_exception"),
        (MetronomeError("n"), 500, "status_exception"),
    ],
)
def test_errors_have_the_shape_of_elasticsearchs(node: Node, error: MetronomeError, status: int, kind: str) -> None:
    for path in ("/_bulk", "/logs/_doc", "/"):
        reply = node.dialect.reply_error(node.request("", path, "POST", "", {}), error)
        answer = orjson.loads(reply.body)
        assert (reply.status, answer["status"], answer["error"]["type"]) == (status, status, kind)
        assert answer["error"]["root_cause"][0]["type"] == kind
        assert reply.headers["X-Elastic-Product"] == "Elasticsearch"
        assert ("WWW-Authenticate" in reply.headers) is (status == 401)
        assert ("Retry-After" in reply.headers) is error.retry


@pytest.mark.parametrize("query", ["", BEATS])
def test_a_full_spool_is_said_of_each_document_so_that_shippers_send_them_again(node: Node, query: str) -> None:
    body = '{"index":{"_id":"1"}}\n{}\n{"create":{}}\nnot JSON\n{"delete":{"_id":"2"}}\n'
    reply = node.dialect.reply_error(node.request(body, "/x/_bulk", "POST", query, {}), SpoolFull("full"))
    answer = orjson.loads(reply.body)
    assert (reply.status, answer["errors"]) == (200, True)
    items = [(operation, item["status"]) for one in answer["items"] for operation, item in one.items()]
    assert items == [("index", 429), ("create", 429), ("delete", 429)]
    kinds = {item["error"]["type"] for one in answer["items"] for item in one.values()}
    assert kinds == {"es_rejected_execution_exception"}


def test_a_full_spool_is_said_of_the_whole_request_to_those_who_ask_for_that(node: Node) -> None:
    request = node.request('{"index":{}}\n{}\n', "/x/_bulk", "POST", "busy=whole", {})
    reply = node.dialect.reply_error(request, SpoolFull("full"))
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
def test_a_key_comes_in_any_of_elasticsearchs_ways(node: Node, authorization: str, key: str) -> None:
    request = node.request("", "/_bulk", "POST", "", {"Authorization": authorization})
    assert node.dialect.extract_key(request) == key


def test_a_field_that_is_there_twice_is_not_lost(node: Node) -> None:
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


@given(LINES | st.text(max_size=50), st.sampled_from(["", BEATS, "filter_path=items.*._id"]))
@example('{"index":{}}\n' * 3, "")
@example('{"create":{"_id":"1"}}\n{}\n{"index":{"_id":"1"}}\n{}\n{"create":{"_id":"1"}}\n{}', "")
def test_whatever_comes_each_action_has_its_item_or_nothing_is_taken(body: str, query: str) -> None:
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
        busy = node.dialect.reply_error(node.request(body, "/_bulk", "POST", "", {}), SpoolFull("full"))
        assert len(orjson.loads(busy.body)["items"]) == len(statuses)


@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]),
    st.text(max_size=20) | st.sampled_from(["_bulk", "_doc/%00", "x/_doc/%ff", "x/_create/a%F0", "_nodes/%22"]),
    st.text(max_size=20),
)
def test_whatever_is_asked_is_answered(method: str, path: str, body: str) -> None:
    node = Node()
    try:
        reply = node.send(body, f"/{path}", method)
    except (Malformed, PayloadTooLarge):
        return
    assert reply.status in {200, 201, 400, 404, 405}
    assert reply.headers["X-Elastic-Product"] == "Elasticsearch"
