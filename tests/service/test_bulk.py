"""Elasticsearch's protocol as a real server speaks it, alone and with workers."""

import gzip
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from metronome.keys import Scope
from tests.installations import give_key, stored_documents
from tests.servers import REQUEST_SECONDS, Server, free_port, serving

NDJSON = "application/x-ndjson"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def statuses(self) -> list[int]:
        return [item["status"] for one in self.json["items"] for item in one.values()]


def ask(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=REQUEST_SECONDS)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": NDJSON, **named})
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


def lines(*documents: dict[str, Any], action: str = '{"create":{"_index":"logs"}}') -> bytes:
    return b"".join(action.encode() + b"\n" + orjson.dumps(document) + b"\n" for document in documents)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("bulk") / "data", body_max_bytes=100_000) as running:
        yield running


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{item}.json?bots=1&limit=0")["views"].values())


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("packed", [True, False])
def test_documents_are_counted(either: Server, item: str, method: str, *, packed: bool) -> None:
    body = lines(*[{"id": item, "event": "view"}] * 50)
    headers = {"Content_Encoding": "gzip"} if packed else {}
    answer = ask(either, method, "/es/_bulk", gzip.compress(body) if packed else body, **headers)
    assert (answer.status, answer.json["errors"], answer.statuses) == (200, False, [201] * 50)
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
    assert views(either, item) == 50


def test_what_a_shipper_sends_again_counts_once(either: Server, item: str) -> None:
    body = lines(*({"id": item, "event": "view", "ts": f"2026-01-0{day}T10:00:00Z"} for day in (1, 2, 3)))
    answers = [ask(either, "POST", "/es/_bulk", body, Connection="close") for _ in range(6)]
    assert {tuple(answer.statuses) for answer in answers} == {(201, 201, 201)}
    named = lines({"id": item, "event": "view"}, action=f'{{"create":{{"_id":"{item}"}}}}')
    statuses = {ask(either, "POST", "/es/_bulk", named, Connection="close").statuses[0] for _ in range(6)}
    assert 201 in statuses
    assert statuses <= {201, 409}
    assert views(either, item) == 4


def test_good_documents_are_kept_beside_bad_ones(either: Server, item: str) -> None:
    body = lines({"id": item}, {"id": item, "ts": "no"}) + b'{"delete":{"_id":"x"}}\n' + lines({"id": item})
    answer = ask(either, "POST", "/es/_bulk", body)
    assert (answer.json["errors"], answer.statuses) == (True, [201, 400, 400, 201])
    assert views(either, item) == 2


def test_a_line_of_an_access_log_is_a_view(either: Server, item: str) -> None:
    line = f'203.0.113.9 - - [17/May/2025:10:05:03 +0000] "GET /{item} HTTP/1.1" 200 5 "-" "Mozilla/5.0"'
    believed = {"message": line, "@timestamp": "2025-05-17T10:06:00Z"}
    assert ask(either, "POST", "/es/filebeat/_bulk", lines(believed)).statuses == [201]
    either.wait_until_shipped()
    assert either.get(f"/tock/%2F{item}.json?limit=0&bots=1&from=2025-05-17&to=2025-05-18")["views"] == {
        "2025-05-17": 1
    }


def test_single_documents_are_counted(either: Server, item: str) -> None:
    answers = [
        ask(either, "POST", "/es/logs/_doc", orjson.dumps({"id": item})),
        ask(either, "PUT", f"/es/logs/_doc/{item}-1", orjson.dumps({"id": item})),
        ask(either, "PUT", f"/es/logs/_create/{item}-2", orjson.dumps({"id": item})),
    ]
    assert [answer.status for answer in answers] == [201] * 3
    assert [answer.json["_id"] for answer in answers[1:]] == [f"{item}-1", f"{item}-2"]
    assert views(either, item) == 3


@pytest.mark.parametrize("path", ["/es", "/es/", "/es/_license", "/es/_index_template/t", "/es/logs"])
def test_handshakes_are_answered(either: Server, path: str) -> None:
    accept = "application/vnd.elasticsearch+json; compatible-with=9"
    found = ask(either, "GET", path, Accept=accept)
    assert (found.status, found.headers["X-Elastic-Product"]) == (200, "Elasticsearch")
    assert found.headers["Content-Type"] == "application/vnd.elasticsearch+json;compatible-with=9"
    head = ask(either, "HEAD", path, Accept=accept)
    assert (head.status, head.headers["X-Elastic-Product"], head.body) == (200, "Elasticsearch", b"")


def test_what_is_not_spoken_is_an_error_of_elasticsearchs(either: Server) -> None:
    assert ask(either, "POST", "/es/logs/_search", b"{}").json["status"] == 405
    assert ask(either, "DELETE", "/es/logs").headers["Allow"] == "GET, HEAD, PUT"
    assert ask(either, "GET", "/es/_nothing").json["error"]["type"] == "resource_not_found_exception"
    assert ask(either, "POST", "/es/_bulk", b'{"id":"x"}\n').json["error"]["type"] == "illegal_argument_exception"
    assert ask(either, "POST", "/es/_bulk", b"x", Content_Encoding="gzip").json["status"] == 400
    assert ask(either, "POST", "/es/_bulk", b"x", Content_Encoding="lzma").json["status"] == 415
    assert ask(either, "GET", "/established").json["type"] == "urn:metronome:error:NoSuchPage"


def test_what_is_too_large_is_413_so_that_it_is_split(server: Server) -> None:
    answer = ask(server, "POST", "/es/_bulk", lines({"text": "x" * 100_000}))
    assert (answer.status, answer.json["status"]) == (413, 413)


def test_keys_are_asked_for_in_elasticsearchs_way(tmp_path: Path, item: str) -> None:
    data = tmp_path / "data"
    token, reader = give_key(data, "shipper", Scope.TICK), give_key(data, "reader", Scope.TOCK)
    with serving(data, public="tock") as running:
        body = lines({"id": item})
        for path in ("/es/_bulk", "/es/", "/es/logs/_doc"):
            answer = ask(running, "POST" if path != "/es/" else "GET", path, body)
            assert (answer.status, answer.json["error"]["type"]) == (401, "security_exception")
            assert answer.headers["WWW-Authenticate"] == 'Basic realm="metronome", ApiKey'
            assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
        refused = ask(running, "POST", "/es/_bulk", body, Authorization=f"ApiKey {reader}")
        assert (refused.status, refused.json["error"]["type"]) == (403, "security_exception")
        for scheme in ("ApiKey", "Bearer"):
            assert ask(running, "POST", "/es/_bulk", body, Authorization=f"{scheme} {token}").statuses == [201]
        assert views(running, item) == 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_spool_refuses_each_document_for_now_and_takes_it_later(tmp_path: Path, item: str, workers: int) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    body = lines(*[{"id": item, "event": "view", "text": "x" * 100}] * 100, action='{"index":{}}')
    named = lines({"id": item, "event": "view"}, action=f'{{"create":{{"_id":"{item}"}}}}')
    taken = 0
    with serving(tmp_path / "data", store=away, spool_max_bytes=20_000, workers=workers, stop_seconds=1) as running:
        answer = ask(running, "POST", "/es/_bulk", body)
        while set(answer.statuses) == {201}:
            taken += 100
            answer = ask(running, "POST", "/es/_bulk", body)
        assert (answer.status, answer.json["errors"], set(answer.statuses)) == (200, True, {429})
        kinds = {item["index"]["error"]["type"] for item in answer.json["items"]}
        assert kinds == {"es_rejected_execution_exception"}
        single = ask(running, "POST", "/es/logs/_doc", orjson.dumps({"id": item, "text": "x" * 20_000}))
        assert (single.status, single.json["status"], single.headers["Retry-After"]) == (429, 429, "5")
    with serving(tmp_path / "data", workers=workers) as running:
        assert ask(running, "POST", "/es/_bulk", body + named).statuses == [201] * 101
        assert views(running, item) == taken + 101
    assert len(stored_documents(tmp_path / "data")) == taken + 101
