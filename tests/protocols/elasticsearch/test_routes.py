"""Elasticsearch's protocol over HTTP, with and without worker processes."""

import gzip
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from metronome.scopes import Scope
from tests.installations import create_key, read_stored_documents
from tests.servers import REQUEST_TIMEOUT_SECONDS, Server, free_port, running_server

NDJSON = "application/x-ndjson"


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def statuses(self) -> list[int]:
        return [item["status"] for operations in self.json["items"] for item in operations.values()]


def send(server: Server, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=REQUEST_TIMEOUT_SECONDS)
    try:
        all_headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": NDJSON, **all_headers})
        response = connection.getresponse()
        return Response(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def lines(*documents: dict[str, Any], action: str = '{"create":{"_index":"logs"}}') -> bytes:
    return b"".join(action.encode() + b"\n" + orjson.dumps(document) + b"\n" for document in documents)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("bulk") / "data", body_max_bytes=100_000) as running:
        yield running


def views(server: Server, item: str) -> int:
    server.wait_until_shipped()
    return sum(server.get(f"/tock/{item}.json?bots=1&limit=0")["views"].values())


@pytest.mark.clock
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("compressed", [True, False])
def test_bulk_documents_are_counted(either: Server, item: str, method: str, *, compressed: bool) -> None:
    body = lines(*[{"id": item, "event": "view"}] * 50)
    headers = {"Content_Encoding": "gzip"} if compressed else {}
    response = send(either, method, "/es/_bulk", gzip.compress(body) if compressed else body, **headers)
    assert (response.status, response.json["errors"], response.statuses) == (200, False, [201] * 50)
    assert response.headers["X-Elastic-Product"] == "Elasticsearch"
    assert views(either, item) == 50


@pytest.mark.crew
def test_a_resent_request_is_counted_once(either: Server, item: str) -> None:
    body = lines(*({"id": item, "event": "view", "ts": f"2026-01-0{day}T10:00:00.5Z"} for day in (1, 2, 3)))
    responses = [send(either, "POST", "/es/_bulk", body, Connection="close") for _ in range(6)]
    assert {tuple(response.statuses) for response in responses} == {(201, 201, 201)}
    with_id = lines({"id": item, "event": "view"}, action=f'{{"create":{{"_id":"{item}"}}}}')
    assert {send(either, "POST", "/es/_bulk", with_id, Connection="close").statuses[0] for _ in range(6)} == {201}
    keyed = lines({"id": item, "event": "view", "ts": "2026-01-04T10:00:00Z"})
    for _ in range(6):
        send(either, "POST", "/es/_bulk", keyed, Connection="close", Idempotency_Key=item)
    assert views(either, item) == 5


@pytest.mark.crew
def test_equal_requests_with_whole_seconds_count_each(either: Server, item: str) -> None:
    body = lines(*[{"id": item, "event": "view", "@timestamp": "2026-01-05T10:00:00Z"}] * 25)
    for _ in range(4):
        send(either, "POST", "/es/_bulk", body, Connection="close")
    assert views(either, item) == 100


def test_valid_documents_are_stored_beside_invalid_ones(either: Server, item: str) -> None:
    body = lines({"id": item}, {"id": item, "ts": "no"}) + b'{"delete":{"_id":"x"}}\n' + lines({"id": item})
    response = send(either, "POST", "/es/_bulk", body)
    assert (response.json["errors"], response.statuses) == (True, [201, 400, 400, 201])
    assert views(either, item) == 2


def test_an_access_log_line_counts_as_a_view(either: Server, item: str) -> None:
    line = f'203.0.113.9 - - [17/May/2025:10:05:03 +0000] "GET /{item} HTTP/1.1" 200 5 "-" "Mozilla/5.0"'
    record = {"message": line, "@timestamp": "2025-05-17T10:06:00Z"}
    assert send(either, "POST", "/es/filebeat/_bulk", lines(record)).statuses == [201]
    either.wait_until_shipped()
    assert either.get(f"/tock/%2F{item}.json?limit=0&bots=1&from=2025-05-17&to=2025-05-18")["views"] == {
        "2025-05-17": 1
    }


def test_single_documents_are_counted(either: Server, item: str) -> None:
    responses = [
        send(either, "POST", "/es/logs/_doc", orjson.dumps({"id": item})),
        send(either, "PUT", f"/es/logs/_doc/{item}-1", orjson.dumps({"id": item})),
        send(either, "PUT", f"/es/logs/_create/{item}-2", orjson.dumps({"id": item})),
    ]
    assert [response.status for response in responses] == [201] * 3
    assert [response.json["_id"] for response in responses[1:]] == [f"{item}-1", f"{item}-2"]
    assert views(either, item) == 3


@pytest.mark.parametrize("path", ["/es", "/es/", "/es/_license", "/es/_index_template/t", "/es/logs"])
def test_handshakes_are_answered_in_the_requested_media_type(either: Server, path: str) -> None:
    accept = "application/vnd.elasticsearch+json; compatible-with=9"
    response = send(either, "GET", path, Accept=accept)
    assert (response.status, response.headers["X-Elastic-Product"]) == (200, "Elasticsearch")
    assert response.headers["Content-Type"] == "application/vnd.elasticsearch+json;compatible-with=9"
    head = send(either, "HEAD", path, Accept=accept)
    assert (head.status, head.headers["X-Elastic-Product"], head.body) == (200, "Elasticsearch", b"")


def test_unsupported_requests_get_an_error_in_elasticsearchs_format(either: Server) -> None:
    assert send(either, "POST", "/es/logs/_search", b"{}").json["status"] == 405
    assert send(either, "DELETE", "/es/logs").headers["Allow"] == "GET, HEAD, PUT"
    assert send(either, "GET", "/es/_nothing").json["error"]["type"] == "resource_not_found_exception"
    assert send(either, "POST", "/es/_bulk", b'{"id":"x"}\n').json["error"]["type"] == "illegal_argument_exception"
    assert send(either, "POST", "/es/_bulk", b"x", Content_Encoding="gzip").json["status"] == 400
    assert send(either, "POST", "/es/_bulk", b"x", Content_Encoding="lzma").json["status"] == 415
    assert send(either, "GET", "/established").json["type"] == "urn:metronome:error:NotFound"


def test_a_body_over_the_limit_is_413(server: Server) -> None:
    response = send(server, "POST", "/es/_bulk", lines({"text": "x" * 100_000}))
    assert (response.status, response.json["status"]) == (413, 413)


@pytest.mark.slow
def test_a_missing_or_insufficient_key_gets_an_error_in_elasticsearchs_format(tmp_path: Path, item: str) -> None:
    data = tmp_path / "data"
    token, reader = create_key(data, "shipper", Scope.TICK), create_key(data, "reader", Scope.TOCK)
    with running_server(data, public="tock") as running:
        body = lines({"id": item})
        for path in ("/es/_bulk", "/es/", "/es/logs/_doc"):
            response = send(running, "POST" if path != "/es/" else "GET", path, body)
            assert (response.status, response.json["error"]["type"]) == (401, "security_exception")
            assert response.headers["WWW-Authenticate"] == 'Basic realm="metronome", ApiKey'
            assert response.headers["X-Elastic-Product"] == "Elasticsearch"
        rejected = send(running, "POST", "/es/_bulk", body, Authorization=f"ApiKey {reader}")
        assert (rejected.status, rejected.json["error"]["type"]) == (403, "security_exception")
        for scheme in ("ApiKey", "Bearer"):
            assert send(running, "POST", "/es/_bulk", body, Authorization=f"{scheme} {token}").statuses == [201]
        assert views(running, item) == 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_spool_rejects_each_document_until_there_is_room(tmp_path: Path, item: str, workers: int) -> None:
    unreachable_store = f"http://127.0.0.1:{free_port()}"
    body = lines(*[{"id": item, "event": "view", "text": "x" * 100}] * 100, action='{"index":{}}')
    with_id = lines({"id": item, "event": "view"}, action=f'{{"create":{{"_id":"{item}"}}}}')
    accepted = 0
    with running_server(
        tmp_path / "data", store=unreachable_store, spool_max_bytes=20_000, workers=workers, stop_seconds=1
    ) as running:
        response = send(running, "POST", "/es/_bulk", body)
        while set(response.statuses) == {201}:
            accepted += 100
            response = send(running, "POST", "/es/_bulk", body)
        assert (response.status, response.json["errors"], set(response.statuses)) == (200, True, {429})
        error_types = {item["index"]["error"]["type"] for item in response.json["items"]}
        assert error_types == {"es_rejected_execution_exception"}
        single = send(running, "POST", "/es/logs/_doc", orjson.dumps({"id": item, "text": "x" * 20_000}))
        assert (single.status, single.json["status"], single.headers["Retry-After"]) == (429, 429, "5")
    with running_server(tmp_path / "data", workers=workers) as running:
        assert send(running, "POST", "/es/_bulk", body + with_id).statuses == [201] * 101
        assert views(running, item) == accepted + 101
    assert len(read_stored_documents(tmp_path / "data")) == accepted + 101
