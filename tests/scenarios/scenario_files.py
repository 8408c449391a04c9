"""Scenarios as they are written in the TOML files of this folder, read and unfolded.

A file has ``[[scenario]]`` after ``[[scenario]]``, each with a ``title``, its ``events``, and what is asked of them as
``[[scenario.ask]]``. Scenarios share one store: each has items, or a range of time, of its own.

An event is a table, or a text that is sent as it is. What a scenario's events have in common stands in ``common``. In
an event ``each = {visitor = ["a", "b"]}`` makes one event for each value, ``times = 3`` three equal ones, and
``ago = "90m"`` gives it the time so long before now. A value ``"$firefox"`` is what ``[names]`` of its file says.
Whatever is sent as another request than ``POST /tick`` is a ``[[scenario.send]]``.

What is asked is ``get``, an address, or ``post``, a question. Of the answer is expected either all, as ``answer``, or
its ``rows`` (of a question; ``total`` where it is another number), a ``part`` (these members, each of them whole),
its ``text``, or what it ``contains``; of a complaint its ``status`` and what it ``says``. Where
Elasticsearch may only estimate, ``estimated`` says so. What a store is known to answer otherwise, and ought not to, is
said in ``unmet``, by the store's name: as soon as it does, the test fails, and the word can go.

``<x*1025>`` is 1,025 times an x, wherever it stands.
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
ON_AN_EMPTY_STORE: Final = "empty"
"""The file whose scenario is asked of a store that nothing was sent to."""

_MANY: Final = re.compile(r"<([^<>*]+)\*(\d+)>")
_AGO: Final = re.compile(r"(-?\d+)([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_UNFOLDED: Final = frozenset({"each", "times", "ago"})
_TICK: Final = "/tick"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that brings events.

    Attributes:
        path: where to; without a body it is a GET.
        body: of the request.
        headers: likewise.
        rejected: the places of those events that break a limit, where the answer tells.

    """

    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    rejected: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked, and what has to be answered.

    Attributes:
        name: tells it from the others.
        path: what is asked for.
        body: a question, where it is posted.
        headers: of the request.
        expected: what is expected of the answer, by its kind.
        estimated: whether Elasticsearch may estimate.
        unmet: why a store answers otherwise as yet, by the store's name.

    """

    name: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]
    expected: Mapping[str, Any]
    estimated: bool
    unmet: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Events, and what is asked of them."""

    sent: tuple[Sent, ...]
    asked: tuple[Asked, ...]


def read_scenarios(now: datetime) -> dict[str, list[Scenario]]:
    """Return all scenarios by the names of their files."""
    return {path.stem: [*_read_file(path, now)] for path in sorted(FOLDER.glob("*.toml"))}


def _read_file(path: Path, now: datetime) -> Iterator[Scenario]:
    found = tomllib.loads(path.read_text())
    names = {f"${name}": value for name, value in found.get("names", {}).items()}
    for given in found["scenario"]:
        scenario = _unfolded(given, names)
        yield Scenario(tuple(_sent(scenario, now)), tuple(_asked(path.stem, scenario)))


def _unfolded(value: Any, names: Mapping[str, str]) -> Any:
    """Put names and many characters in the place of what stands for them."""
    if isinstance(value, dict):
        return {_unfolded(name, names): _unfolded(inner, names) for name, inner in value.items()}
    if isinstance(value, list):
        return [_unfolded(inner, names) for inner in value]
    if not isinstance(value, str):
        return value
    return names.get(value) or _MANY.sub(lambda many: many[1] * int(many[2]), value)


def _sent(scenario: dict[str, Any], now: datetime) -> Iterator[Sent]:
    common = scenario.get("common", {})
    lines = [line for event in scenario.get("events", ()) for line in _lines(event, common, now)]
    if lines:
        headers = {"Content-Type": "application/x-ndjson"}
        yield Sent(_TICK, b"\n".join(lines), headers, tuple(scenario.get("rejected", ())))
    for given in scenario.get("send", ()):
        body = given.get("body", "")
        headers = {"Content-Type": "application/json", **given.get("headers", {})} if body else given.get("headers", {})
        yield Sent(given.get("path", _TICK), body.encode(), headers)


def _lines(event: dict[str, Any] | str, common: dict[str, Any], now: datetime) -> Iterator[bytes]:
    if isinstance(event, str):
        yield event.encode()
        return
    fields = {name: value for name, value in (common | event).items() if name not in _UNFOLDED}
    if "ago" in event:
        fields["ts"] = _before(now, event["ago"]).isoformat()
    each: dict[str, list[Any]] = event.get("each", {})
    for values in product(*each.values()):
        line = orjson.dumps(fields | dict(zip(each, values, strict=True)))
        yield from [line] * event.get("times", 1)


def _before(now: datetime, ago: str) -> datetime:
    match = _AGO.fullmatch(ago)
    assert match is not None, ago
    return now.astimezone(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})


def _asked(file: str, scenario: dict[str, Any]) -> Iterator[Asked]:
    for number, given in enumerate(scenario["ask"], start=1):
        ask = dict(given)
        post = ask.pop("post", None)
        headers = ask.pop("headers", {})
        if "accept" in ask:
            headers["Accept"] = ask.pop("accept")
        if post is not None:
            headers["Content-Type"] = "application/json"
        yield Asked(
            name=f"{file}: {scenario['title']} ({number})",
            path=ask.pop("get", "/query"),
            body=post.encode() if isinstance(post, str) else None if post is None else orjson.dumps(post),
            headers=headers,
            estimated=ask.pop("estimated", False),
            unmet=ask.pop("unmet", {}),
            expected=ask,
        )
