"""Questions and reports over a million events of ninety days, on both stores, over HTTP."""

import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Final, NamedTuple

import orjson

from bench.figures import BenchmarkRow, temporary_folder
from tests.elasticsearch_node import elasticsearch_node
from tests.servers import Server, delete_indices, running_server, unique_name

EVENTS: Final = 1_000_000
DAYS: Final = 90
ITEMS: Final = 2000
EVENTS_PER_SESSION: Final = 5
"""Events of a session."""
EVENTS_PER_REQUEST: Final = 5000
REPETITIONS: Final = 20
AGENTS: Final = tuple(
    f"Mozilla/5.0 ({system}) {engine.format(version)}"
    for system in ("X11; Linux x86_64", "Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7")
    for engine in (
        "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36",
        "Gecko/20100101 Firefox/{}.0",
    )
    for version in range(110, 135)
)
_ITEM: Final = "doc0"


class _QueryCase(NamedTuple):
    """What is asked, and how long it may take at most on DuckDB and on Elasticsearch, in milliseconds."""

    name: str
    path: str
    duckdb: int
    elasticsearch: int | None


QUERY_CASES: Final = (
    _QueryCase("`/query` by a known field", "/query?by=browser&metrics=count", 20, None),
    _QueryCase("`/query` by an unknown field", "/query?by=topic&metrics=count", 200, None),
    _QueryCase("`/flow` of everything", "/flow.json", 300, 1000),
    _QueryCase("`/flow` of an item", f"/flow/{_ITEM}.json", 300, 1000),
    _QueryCase("`/time` of everything", "/time.json", 300, 1000),
    _QueryCase("`/time` of an item", f"/time/{_ITEM}.json", 300, 1000),
    _QueryCase("`/errors` of everything", "/errors.json", 300, 1000),
    _QueryCase("`/errors` of an item", f"/errors/{_ITEM}.json", 300, 1000),
    _QueryCase("`/recommendations` overall", "/recommendations.json", 300, 1000),
    _QueryCase("`/recommendations` of an item", f"/recommendations/{_ITEM}.json", 300, 1000),
)


def measure() -> list[BenchmarkRow]:
    """Fill each store alike and ask it."""
    with temporary_folder() as folder, running_server(folder / "data") as server:
        embedded = _run_queries(server)
    prefix = unique_name("questions")
    with (
        elasticsearch_node("1g") as url,
        temporary_folder() as folder,
        running_server(folder / "data", store=url, index_prefix=prefix) as server,
    ):
        searched = _run_queries(server)
        delete_indices(url, prefix)
    return [_row(each, *times) for each, *times in zip(QUERY_CASES, embedded, searched, strict=True)]


def _row(case: _QueryCase, duckdb_ms: float, elasticsearch_ms: float) -> BenchmarkRow:
    wanted = f"≤ {case.duckdb} ms" + (f", ≤ {case.elasticsearch:,} ms" if case.elasticsearch else "")
    return BenchmarkRow(
        f"{case.name}, {EVENTS:,} events over {DAYS} days, p50",
        f"DuckDB {duckdb_ms:.0f} ms, Elasticsearch {elasticsearch_ms:.0f} ms",
        "",
        "",
        wanted,
    )


def _run_queries(server: Server) -> list[float]:
    for body in _bodies():
        server.post_events(body, **{"Content-Type": "application/x-ndjson"})
    server.wait_until_shipped(1200, 0.2)
    line = HTTPConnection("127.0.0.1", server.port)
    return [
        statistics.median(_measure_milliseconds(line, each.path, number) for number in range(REPETITIONS))
        for each in QUERY_CASES
    ]


def _measure_milliseconds(connection: HTTPConnection, path: str, number: int) -> float:
    # A limit of its own each time, so that no cache has the answer.
    path += f"{'&' if '?' in path else '?'}limit={100 + number}"
    began = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    took = time.perf_counter() - began
    if response.status != 200:
        raise SystemExit(f"{path} was answered with {response.status}: {body.decode()}")
    return took * 1000


def _bodies() -> Iterator[bytes]:
    draw = random.Random(5)
    start = datetime.now(UTC) - timedelta(days=DAYS)
    step = timedelta(days=DAYS) / EVENTS
    gathered: list[bytes] = []
    for session in range(EVENTS // EVENTS_PER_SESSION):
        gathered += _session(draw, session, start + step * session * EVENTS_PER_SESSION)
        if len(gathered) >= EVENTS_PER_REQUEST:
            yield b"\n".join(gathered)
            gathered = []
    yield b"\n".join(gathered)


def _session(draw: random.Random, session: int, at: datetime) -> Iterator[bytes]:
    person = draw.randrange(150_000)
    common = {
        "session": f"{session:08x}",
        "agent": AGENTS[person % len(AGENTS)],
        "clientip": f"10.{person >> 16}.{person >> 8 & 255}.{person & 255}",
    }
    # Half of what a session looks at are neighbours of what it began with.
    first = min(int(draw.paretovariate(0.5)) - 1, ITEMS - 1)
    for number in range(EVENTS_PER_SESSION):
        item = (first + draw.randrange(4)) % ITEMS if draw.random() < 0.5 else draw.randrange(ITEMS)
        fields = {"id": f"doc{item if number else first}", "ts": (at + timedelta(seconds=20 * number)).isoformat()}
        yield orjson.dumps({**fields, **common, **_random_event(draw), "topic": f"t{item % 40}"})


def _random_event(draw: random.Random) -> dict[str, object]:
    chance = draw.random()
    if chance < 0.03:
        return {"event": "error", "message": f"cannot load tile {draw.randrange(1000)} of layer {draw.randrange(20)}"}
    if chance < 0.23:
        return {
            "event": "timing",
            "LCP": draw.randrange(300, 4000),
            "FCP": draw.randrange(100, 2000),
            "CLS": draw.randrange(100) / 400,
            "TTFB": draw.randrange(20, 900),
            "INP": draw.randrange(10, 400),
        }
    return {"event": "download", "format": "csv"} if chance < 0.35 else {"event": "view"}
