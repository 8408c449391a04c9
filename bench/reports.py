"""Queries and reports over a million events of ninety days, over HTTP."""

import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Final, NamedTuple

import orjson

from bench.harness import BenchmarkRow, build_events, sized, temporary_folder
from tests.elasticsearch_node import elasticsearch_node
from tests.servers import Server, delete_indices, running_server, unique_name

EVENTS: Final = sized(1_000_000, 20_000)
DAYS: Final = 90
ITEMS: Final = 2000
EVENTS_PER_SESSION: Final = 5
EVENTS_PER_REQUEST: Final = 5000
REPETITIONS: Final = sized(20, 2)
TOCK_REPETITIONS: Final = sized(200, 5)
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
    """A query, and the maximum milliseconds it may take on DuckDB and on Elasticsearch."""

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
    _QueryCase("the overview of 30 days at `/`", "/?range=30d", 150, None),
    _QueryCase("an item's page at `/items/{id}`", f"/items/{_ITEM}?range=30d", 150, None),
    _QueryCase("`/recommendations` of an item", f"/recommendations/{_ITEM}.json", 300, 1000),
)


def measure_queries() -> list[BenchmarkRow]:
    """Fill both stores with the same events and run the queries."""
    with temporary_folder() as folder, running_server(folder / "data") as server:
        duckdb = _run_queries(server)
    prefix = unique_name("queries")
    with (
        elasticsearch_node("1g") as url,
        temporary_folder() as folder,
        running_server(folder / "data", store=url, index_prefix=prefix) as server,
    ):
        elasticsearch = _run_queries(server)
        delete_indices(url, prefix)
    return [_row(case, *times) for case, *times in zip(QUERY_CASES, duckdb, elasticsearch, strict=True)]


def _row(case: _QueryCase, duckdb_ms: float, elasticsearch_ms: float) -> BenchmarkRow:
    target = f"≤ {case.duckdb} ms" + (f", ≤ {case.elasticsearch:,} ms" if case.elasticsearch else "")
    return BenchmarkRow(
        f"{case.name}, {EVENTS:,} events over {DAYS} days, p50",
        f"DuckDB {duckdb_ms:.0f} ms, Elasticsearch {elasticsearch_ms:.0f} ms",
        "",
        "",
        target,
    )


def _run_queries(server: Server) -> list[float]:
    for body in _bodies():
        server.post_events(body, **{"Content-Type": "application/x-ndjson"})
    server.wait_until_shipped(1200, 0.2)
    connection = HTTPConnection("127.0.0.1", server.port)
    return [
        statistics.median(_measure_milliseconds(connection, case.path, number) for number in range(REPETITIONS))
        for case in QUERY_CASES
    ]


def _measure_milliseconds(connection: HTTPConnection, path: str, number: int) -> float:
    # Different each time, so that no result is cached; a page has no limit.
    is_page = "?range=" in path
    path += f"&offset={1 + number}" if is_page else f"{'&' if '?' in path else '?'}limit={100 + number}"
    started = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    seconds = time.perf_counter() - started
    if response.status != 200:
        raise SystemExit(f"{path} returned status {response.status}: {body.decode()}")
    return seconds * 1000


def _bodies() -> Iterator[bytes]:
    draw = random.Random(5)
    start = datetime.now(UTC) - timedelta(days=DAYS)
    step = timedelta(days=DAYS) / EVENTS
    batch: list[bytes] = []
    for session in range(EVENTS // EVENTS_PER_SESSION):
        batch += _session(draw, session, start + step * session * EVENTS_PER_SESSION)
        if len(batch) >= EVENTS_PER_REQUEST:
            yield b"\n".join(batch)
            batch = []
    yield b"\n".join(batch)


def _session(draw: random.Random, session: int, start: datetime) -> Iterator[bytes]:
    person = draw.randrange(150_000)
    common = {
        "session": f"{session:08x}",
        "agent": AGENTS[person % len(AGENTS)],
        "clientip": f"10.{person >> 16}.{person >> 8 & 255}.{person & 255}",
    }
    # Half of a session's items are neighbours of its first one.
    first = min(int(draw.paretovariate(0.5)) - 1, ITEMS - 1)
    for number in range(EVENTS_PER_SESSION):
        item = (first + draw.randrange(4)) % ITEMS if draw.random() < 0.5 else draw.randrange(ITEMS)
        fields = {"id": f"doc{item if number else first}", "ts": (start + timedelta(seconds=20 * number)).isoformat()}
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


def measure_tock() -> list[BenchmarkRow]:
    """Measure the tock of an item with a tenth of a million events on DuckDB."""
    with temporary_folder() as folder, running_server(folder / "data") as server:
        _fill_items(server)
        server.wait_until_shipped(600)
        connection = HTTPConnection("127.0.0.1", server.port)
        durations = [_measure_seconds(connection, "/tock/doc0.json") for _ in range(TOCK_REPETITIONS)]
        connection.close()
        views = sum(server.get("/tock/doc0.json")["views"].values())
    p50, p95 = statistics.median(durations) * 1000, statistics.quantiles(durations, n=20)[-1] * 1000
    return [
        BenchmarkRow(
            f"tock of an item with 10 % of {EVENTS:,} events ({views:,} views), DuckDB, over HTTP",
            f"p50 {p50:.1f} ms, p95 {p95:.1f} ms",
            "",
            "",
            "p50 < 5 ms",
        )
    ]


def _fill_items(server: Server) -> None:
    start = datetime.now(UTC) - timedelta(days=DAYS)
    step = timedelta(days=DAYS) / EVENTS
    events = build_events(100_000)
    for first in range(0, EVENTS, EVENTS_PER_REQUEST):
        batch = [
            events[number % len(events)][:-1] + f',"ts":"{(start + step * number).isoformat()}"}}'.encode()
            for number in range(first, first + EVENTS_PER_REQUEST)
        ]
        server.post_events(b"\n".join(batch), **{"Content-Type": "application/x-ndjson"})


def _measure_seconds(connection: HTTPConnection, path: str) -> float:
    started = time.perf_counter()
    connection.request("GET", path)
    orjson.loads(connection.getresponse().read())
    return time.perf_counter() - started
