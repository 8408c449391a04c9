"""Send requests to servers, and compare the responses with what a scenario expects."""

from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any, Final, NamedTuple

import orjson

from tests.scenarios.scenario_files import IngestRequest, QueryRequest
from tests.servers import Server

ESTIMATE_TOLERANCE: Final = 0.02
"""Largest relative error of an estimate; with so few values, most are exact."""

_TIMEOUT_SECONDS: Final = 60.0


class Response(NamedTuple):
    """The response of a server."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StoreServer(NamedTuple):
    """A server, and the name of its store."""

    server: Server
    store: str

    @property
    def may_estimate(self) -> bool:
        """Whether the store may return estimates."""
        return self.store != "duckdb"

    @property
    def failing_like(self) -> tuple[str, ...]:
        """The stores whose known failures it has: OpenSearch has those of Elasticsearch, and others."""
        return ("opensearch", "elasticsearch") if self.store == "opensearch" else (self.store,)


def fetch(
    server: Server, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, get: bool = True
) -> Response:
    """Send a GET request if there is no body, or if *get* is set and the body is empty; otherwise a POST request."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET" if body is None or (get and not body) else "POST", path, body, dict(headers or {}))
        response = connection.getresponse()
        return Response(response.status, dict(response.headers), response.read())
    finally:
        connection.close()


def send(server: Server, request: IngestRequest) -> None:
    """Send events, and check that exactly the invalid ones are rejected."""
    response = fetch(server, request.path, request.body, request.headers)
    assert response.status in {200, 204}, response
    if request.rejected is not None:
        rejected = [event["index"] for event in orjson.loads(response.body)["rejected"]]
        assert rejected == [*request.rejected], response.body.decode()


def check(target: StoreServer, request: QueryRequest) -> None:
    """Send the request, and check its response."""
    response = fetch(target.server, request.path, request.body, request.headers)
    expected = request.expected
    may_estimate = target.may_estimate and request.estimated
    body = response.body.decode()
    assert response.status == expected.get("status", 200), body
    for name, value in expected.get("response_headers", {}).items():
        assert response.headers.get(name) == value, response.headers
    for key in ("error", "contains"):
        for text in _as_texts(expected.get(key, ())):
            assert text in body, body
    if "text" in expected:
        assert body == expected["text"], body
    if "json" in expected:
        _check_json(orjson.loads(body), orjson.loads(expected["json"]), may_estimate=may_estimate)
    if "part" in expected:
        part = orjson.loads(expected["part"])
        actual = orjson.loads(body)
        _check_equal({name: actual.get(name) for name in part}, part)
    if "rows" in expected:
        rows = orjson.loads(expected["rows"])
        result = {"rows": rows, "total": expected.get("total", len(rows)), "exact": True}
        actual = orjson.loads(body)
        _check_json({name: actual[name] for name in result}, result, may_estimate=may_estimate)
    known_keys = {"status", "error", "contains", "text", "json", "part", "rows", "total", "response_headers"}
    assert known_keys >= expected.keys()


def _as_texts(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _check_json(actual: Any, expected: Any, *, may_estimate: bool) -> None:
    if not may_estimate:
        _check_equal(actual, expected)
        return
    assert actual.pop("exact") is False, actual
    expected.pop("exact", None)
    _check_near(actual, expected)


def _check_near(actual: Any, expected: Any) -> None:
    assert type(actual) is type(expected), (actual, expected)
    if isinstance(expected, dict):
        assert [*actual] == [*expected], (actual, expected)
        for name in expected:
            _check_near(actual[name], expected[name])
    elif isinstance(expected, list):
        assert len(actual) == len(expected), (actual, expected)
        for actual_value, expected_value in zip(actual, expected, strict=True):
            _check_near(actual_value, expected_value)
    elif isinstance(expected, float):
        assert abs(actual - expected) <= ESTIMATE_TOLERANCE * abs(expected), (actual, expected)
    else:
        # The number of so few distinct values is exact.
        assert actual == expected


def _check_equal(actual: Any, expected: Any) -> None:
    # As text, since the order of members and the types of numbers are part of the response.
    actual_text, expected_text = orjson.dumps(actual).decode(), orjson.dumps(expected).decode()
    assert actual_text == expected_text, f"{actual_text}\nexpected:\n{expected_text}"
