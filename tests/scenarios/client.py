"""Asks servers, and holds their answers against what is expected."""

from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any, Final, NamedTuple

import orjson

from tests.scenarios.reading import Asked, Sent
from tests.servers import Server

ESTIMATED_SHARE: Final = 0.02
"""How far an estimate may be off; of so few values most are right."""

_SECONDS: Final = 60.0


class Got(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Stand(NamedTuple):
    """A server, and what its store is called."""

    server: Server
    store: str

    @property
    def estimates(self) -> bool:
        """Whether its store may estimate."""
        return self.store == "elasticsearch"


def request(
    server: Server, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, get: bool = True
) -> Got:
    """Make a request: without a body, or one that is empty where *get* says so, a GET."""
    line = HTTPConnection("127.0.0.1", server.port, timeout=_SECONDS)
    try:
        line.request("GET" if body is None or (get and not body) else "POST", path, body, dict(headers or {}))
        answer = line.getresponse()
        return Got(answer.status, dict(answer.headers), answer.read())
    finally:
        line.close()


def send(server: Server, sent: Sent) -> None:
    """Send events, and see that they are taken, but for those that are to be rejected."""
    got = request(server, sent.path, sent.body, sent.headers)
    assert got.status in {200, 204}, got
    if sent.rejected is not None:
        rejected = [each["index"] for each in orjson.loads(got.body)["rejected"]]
        assert rejected == [*sent.rejected], got.body.decode()


def check(stand: Stand, asked: Asked) -> None:
    """Ask, and see that the answer is the one that is expected."""
    got = request(stand.server, asked.path, asked.body, asked.headers)
    expected = asked.expected
    estimates = stand.estimates and asked.estimated
    assert got.status == expected.get("status", 200), got.body.decode()
    for name, value in expected.get("has", {}).items():
        assert got.headers.get(name) == value, got.headers
    for kind in ("says", "contains"):
        for text in _texts(expected.get(kind, ())):
            assert text in got.body.decode(), got.body.decode()
    if "text" in expected:
        assert got.body.decode() == expected["text"], got.body.decode()
    if "answer" in expected:
        _check_whole(orjson.loads(got.body), orjson.loads(expected["answer"]), estimates=estimates)
    if "part" in expected:
        _check_part(orjson.loads(got.body), orjson.loads(expected["part"]))
    if "rows" in expected:
        rows = orjson.loads(expected["rows"])
        found = orjson.loads(got.body)
        right = {"rows": rows, "total": expected.get("total", len(rows)), "exact": True}
        _check_whole({name: found[name] for name in right}, right, estimates=estimates)
    assert {"status", "says", "contains", "text", "answer", "part", "rows", "total", "has"} >= expected.keys()


def _texts(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _check_whole(found: Any, right: Any, *, estimates: bool) -> None:
    if not estimates:
        # As text: the order of members and the kind of a number belong to the answer.
        _check_equal(found, right)
        return
    assert found.pop("exact") is False, found
    right.pop("exact", None)
    _check_near(found, right)


def _check_near(found: Any, right: Any) -> None:
    assert type(found) is type(right), (found, right)
    if isinstance(right, dict):
        assert [*found] == [*right], (found, right)
        for name in right:
            _check_near(found[name], right[name])
    elif isinstance(right, list):
        assert len(found) == len(right), (found, right)
        for one, other in zip(found, right, strict=True):
            _check_near(one, other)
    elif isinstance(right, float):
        assert abs(found - right) <= ESTIMATED_SHARE * abs(right), (found, right)
    else:
        # Of so few different values, how many there are is known.
        assert found == right


def _check_part(found: Any, right: dict[str, Any]) -> None:
    _check_equal({name: found.get(name) for name in right}, right)


def _check_equal(found: Any, right: Any) -> None:
    one, other = orjson.dumps(found).decode(), orjson.dumps(right).decode()
    assert one == other, f"{one}\nis not what was expected:\n{other}"
