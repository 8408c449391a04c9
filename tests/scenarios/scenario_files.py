"""Read the scenarios from the TOML files in this folder, and expand them into requests.

A file is a list of ``[[scenario]]`` tables, each with a ``title``, its ``events``, and the ``requests`` that are sent
afterwards. All scenarios share one store, so each uses its own items or its own time range.

An event is a table, or a string that is sent unchanged. ``common`` holds fields of all events of a scenario. In an
event, ``each = {visitor = ["a", "b"]}`` yields one event per value, ``times = 3`` three equal events, and
``ago = "90m"`` sets the time to that long before now. The value ``"$firefox"`` is looked up in the file's ``[names]``.
``[[scenario.send]]`` is any ingest request other than ``POST /tick``.

A request has ``get``, a path, or ``post``, the body of a query. Its expected response is ``json`` (the whole body),
``rows`` (of a query; with ``total`` if the number of rows differs), ``part`` (these members, each compared as a whole),
``text``, or ``contains``; for an error, its ``status`` and ``error``, a part of the message. ``estimated`` allows
Elasticsearch to estimate. ``known_failures`` gives, by store, the reason why a response is wrong for now; once it is
right, the test fails until the entry is removed.

``<x*1025>`` stands for 1,025 times an x, anywhere.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, Final

import orjson

FOLDER: Final = Path(__file__).parent
EMPTY_STORE_FILE: Final = "empty"
"""The file whose scenario runs on an empty store."""

_REPEATED: Final = re.compile(r"<([^<>*]+)\*(\d+)>")
_AGO: Final = re.compile(r"(-?\d+)([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_DIRECTIVES: Final = frozenset({"each", "times", "ago"})
_TICK: Final = "/tick"


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """A request that sends events.

    Attributes:
        path: the path and query string; without a body, the method is GET.
        body: of the request.
        headers: of the request.
        rejected: the indexes of the rejected events; None if the response does not list them.

    """

    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    rejected: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """A request, and its expected response.

    Attributes:
        name: unique among all scenarios.
        path: the path and query string.
        body: of a POST request; None for a GET request.
        headers: of the request.
        expected: what is expected of the response, by kind.
        estimated: whether Elasticsearch may estimate.
        known_failures: by store, why its response is wrong for now.

    """

    name: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]
    expected: Mapping[str, Any]
    estimated: bool
    known_failures: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Events, and the requests that are sent after them."""

    ingest_requests: tuple[IngestRequest, ...]
    requests: tuple[QueryRequest, ...]


def read_scenarios(now: datetime) -> dict[str, list[Scenario]]:
    """Return all scenarios by file name without suffix."""
    return {path.stem: [*_read_file(path, now)] for path in sorted(FOLDER.glob("*.toml"))}


def _read_file(path: Path, now: datetime) -> Iterator[Scenario]:
    content = tomllib.loads(path.read_text())
    names = {f"${name}": value for name, value in content.get("names", {}).items()}
    for table in content["scenario"]:
        scenario = _expand(table, names)
        yield Scenario(tuple(_ingest_requests(scenario, now)), tuple(_query_requests(path.stem, scenario)))


def _expand(value: Any, names: Mapping[str, str]) -> Any:
    """Replace references to names, and repetitions."""
    if isinstance(value, dict):
        return {_expand(name, names): _expand(inner, names) for name, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, names) for inner in value]
    if not isinstance(value, str):
        return value
    return names.get(value) or _REPEATED.sub(lambda match: match[1] * int(match[2]), value)


def _ingest_requests(scenario: dict[str, Any], now: datetime) -> Iterator[IngestRequest]:
    common = scenario.get("common", {})
    lines = [line for event in scenario.get("events", ()) for line in _encode_events(event, common, now)]
    if lines:
        headers = {"Content-Type": "application/x-ndjson"}
        yield IngestRequest(_TICK, b"\n".join(lines), headers, tuple(scenario.get("rejected", ())))
    for table in scenario.get("send", ()):
        body = table.get("body", "")
        headers = {"Content-Type": "application/json"} if body else {}
        headers |= table.get("headers", {})
        yield IngestRequest(table.get("path", _TICK), body.encode(), headers)


def _encode_events(event: dict[str, Any] | str, common: dict[str, Any], now: datetime) -> Iterator[bytes]:
    if isinstance(event, str):
        yield event.encode()
        return
    fields = {name: value for name, value in (common | event).items() if name not in _DIRECTIVES}
    if "ago" in event:
        fields["ts"] = _time_before(now, event["ago"]).isoformat()
    alternatives: dict[str, list[Any]] = event.get("each", {})
    for values in product(*alternatives.values()):
        line = orjson.dumps(fields | dict(zip(alternatives, values, strict=True)))
        yield from [line] * event.get("times", 1)


def _time_before(now: datetime, ago: str) -> datetime:
    match = _AGO.fullmatch(ago)
    assert match is not None, ago
    return now.astimezone(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})


def _query_requests(file: str, scenario: dict[str, Any]) -> Iterator[QueryRequest]:
    for number, table in enumerate(scenario["requests"], start=1):
        expected = dict(table)
        post = expected.pop("post", None)
        headers = expected.pop("headers", {})
        if "accept" in expected:
            headers["Accept"] = expected.pop("accept")
        if post is not None:
            headers["Content-Type"] = "application/json"
        yield QueryRequest(
            name=f"{file}: {scenario['title']} ({number})",
            path=expected.pop("get", "/query"),
            body=post.encode() if isinstance(post, str) else None if post is None else orjson.dumps(post),
            headers=headers,
            estimated=expected.pop("estimated", False),
            known_failures=expected.pop("known_failures", {}),
            expected=expected,
        )
