"""With random events and queries, both stores agree with the reference implementation and with each other."""

import asyncio
import math
from datetime import date
from itertools import count as numbers
from typing import Any, Final
from urllib.parse import quote

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from metronome.stores.elasticsearch import ElasticsearchConfig, ElasticsearchStore
from metronome.stores.query import Equals
from tests.scenarios.client import ESTIMATE_TOLERANCE, StoreServer, fetch
from tests.scenarios.conftest import wait_until_searchable
from tests.scenarios.random_events import DAYS, ITEMS, OVERFLOWING, RUN, TEXT_FIRST, encode, events
from tests.scenarios.random_queries import DISTINCT, PERCENT, ZONES, Request, requests
from tests.scenarios.reference import Document, Row, columns_of, count, numbers_of
from tests.servers import Server

pytestmark = [pytest.mark.elasticsearch, pytest.mark.slow]

NDJSON_HEADERS: Final = {"Content-Type": "application/x-ndjson"}
ALL_FIELDS: Final[dict[str, Any]] = {
    RUN: "known",
    "p_n": 0,
    "p_lang": "x",
    "p_flag": True,
    "p.dot": "x",
    TEXT_FIRST: "none",
}
"""Fields of each day's first event; a query on a field that no event has would be rejected."""
REPORTS: Final = (
    *("tock/{id}.json", "tock/{id}.json?interval=hour&limit=1", "flow/{id}.json?steps=3", "time/{id}.json"),
    *("errors/{id}.json", "recommendations/{id}.json", "counter/{id}.json", "badge/{id}.svg?bots=1"),
)
REPORTS_OF_ALL: Final = (
    *("items.json", "items.json?order=downloads&bots=1", "items.json?order=visitors", "items.json?order=rising"),
    *("tock.json?prefix=r&interval=hour", "funnel.json?step=event:view&step=event:download&within=30m"),
    *("funnel.json?step=event:view&step=id:*,event!:view&step=format^:c,event:download",),
    *("flow.json?limit=3", "time.json", "errors.json", "recommendations.json?limit=0"),
)
RANGES: Final = ((DAYS[0], DAYS[-1]), (DAYS[0], DAYS[1]), (DAYS[-1], DAYS[-1]))
_run_numbers = numbers()


def slow_settings(examples: int) -> settings:
    """Return Hypothesis settings for slow tests."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        # No shrinking: each example queries two servers, so it would exceed the timeout.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )


@pytest.fixture(
    scope="module",
    params=[
        "elasticsearch",
        pytest.param(
            "opensearch",
            marks=pytest.mark.xfail(strict=False, reason="random reports still find differences that docs do not list"),
        ),
    ],
)
def servers(request: pytest.FixtureRequest, duckdb_server: Server) -> tuple[StoreServer, StoreServer]:
    """Provide a server on each store."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    # What OpenSearch's mapping lacks is not counted, which the result says.
    has_gaps = request.param == "elasticsearch"
    first = {**ALL_FIELDS, TEXT_FIRST: "none" if has_gaps else 0}
    lines = [orjson.dumps({**first, "ts": day.isoformat()}) for day in DAYS]
    both = StoreServer(duckdb_server, "duckdb"), StoreServer(server, request.param)
    send(both, lines)
    # More names than a day's mapping has room for, and then one more.
    for event in range(4 if has_gaps else 0):
        names = {f"p_full{event}_{at}": at for at in range(95)}
        send(both, [orjson.dumps({"ts": day.isoformat(), **names}) for day in DAYS])
    send(
        both, [orjson.dumps({"ts": day.isoformat(), RUN: "known", OVERFLOWING: "x" if has_gaps else 0}) for day in DAYS]
    )
    return both


@slow_settings(30)
@given(st.data(), events())
def test_query_results_match_the_reference_implementation(
    servers: tuple[StoreServer, StoreServer], data: st.DataObject, drawn: list[dict[str, Any]]
) -> None:
    number = next(_run_numbers)
    run = f"r{number}"
    send(servers, [encode(event, run, number) for event in drawn])
    documents = stored_documents(servers[1].server, run)
    for request in data.draw(st.lists(requests(run), min_size=8, max_size=8)):
        for target in servers:
            check(target, request, documents)


@slow_settings(6)
@given(events(), st.sampled_from(ZONES), st.sampled_from(RANGES))
def test_reports_of_both_stores_agree(
    servers: tuple[StoreServer, StoreServer], drawn: list[dict[str, Any]], tz: str, days: tuple[date, date]
) -> None:
    number = next(_run_numbers)
    run = f"r{number}"
    send(servers, [encode(event, run, number) for event in drawn])
    time_range = f"from={days[0]}&to={days[1]}&tz={quote(tz)}"
    paths = [path.format(id=quote(f"{run}/{item}", safe="")) for path in REPORTS for item in ITEMS]
    for path in (*paths, *REPORTS_OF_ALL):
        url_path = f"/{path}{'&' if '?' in path else '?'}{time_range}"
        duckdb, elasticsearch = (fetch(target.server, url_path) for target in servers)
        assert (duckdb.status, elasticsearch.status) == (200, 200), (duckdb, elasticsearch)
        if duckdb.headers["Content-Type"] != "application/json":
            assert duckdb.body == elasticsearch.body
        else:
            # OpenSearch does not interpolate percentiles of few numbers.
            tolerance = ESTIMATE_TOLERANCE if servers[1].store == "elasticsearch" else math.inf
            check_agreement(orjson.loads(duckdb.body), orjson.loads(elasticsearch.body), tolerance)


def send(targets: tuple[StoreServer, StoreServer], lines: list[bytes]) -> None:
    for target in targets:
        if lines:
            response = fetch(target.server, "/tick", b"\n".join(lines), NDJSON_HEADERS)
            assert orjson.loads(response.body) == {"accepted": len(lines), "rejected": []}
    for target in targets:
        wait_until_searchable(target.server)


def stored_documents(server: Server, run: str) -> list[Document]:
    """Return the stored documents of an example."""

    async def read() -> list[Document]:
        store = ElasticsearchStore(
            ElasticsearchConfig(str(server.settings["store"]), prefix=str(server.settings["index_prefix"]))
        )
        try:
            return [orjson.loads(line) async for line in store.iterate_documents(Equals(RUN, run))]
        finally:
            await store.close()

    return asyncio.run(read())


def check(target: StoreServer, request: Request, documents: list[Document]) -> None:
    """Check that a query's result is that of the reference implementation."""
    headers = {} if request.body is None else {"Content-Type": "application/json"}
    response = fetch(target.server, request.path, request.body, headers)
    assert response.status == 200, response.body.decode()
    result, query = orjson.loads(response.body), request.query
    rows = count(query, documents)
    end = None if query.limit is None else query.offset + query.limit
    assert (result["columns"], result["total"]) == (columns_of(query), len(rows)), (request.path, request.body)
    assert target.may_estimate or result["exact"] is True
    if result["exact"]:
        assert result["rows"] == rows[query.offset : end], (target.store, request.path, request.body, documents)
        return
    for actual, expected in zip(result["rows"], rows[query.offset : end], strict=True):
        check_row(result["columns"], actual, expected, documents)


def check_row(columns: list[str], actual_row: Row, expected_row: Row, documents: list[Document]) -> None:
    """Check a row; estimates may differ within their tolerance."""
    for column, actual, expected in zip(columns, actual_row, expected_row, strict=True):
        kind, _, field = column.partition(":")
        if not column.startswith((*DISTINCT, *PERCENT)) or actual is None or expected is None:
            assert actual == expected, column
        elif column.endswith(":change"):
            # The quotient of two estimates has no bound.
            assert isinstance(actual, float)
        elif column.startswith(DISTINCT):
            assert abs(actual - expected) <= ESTIMATE_TOLERANCE * expected, column
        else:
            possible = numbers_of(documents, field.partition(":")[0])
            assert possible[0] <= actual <= possible[-1], kind


def check_agreement(duckdb: Any, elasticsearch: Any, tolerance: float) -> None:
    """Check that two reports are equal except for Elasticsearch's estimates, within a relative tolerance."""
    if isinstance(duckdb, dict):
        # Elasticsearch reports whether it had to estimate. With few visitors, their number is exact.
        assert [*duckdb] == [name for name in elasticsearch if name != "exact"]
        for name in duckdb:
            check_agreement(duckdb[name], elasticsearch[name], tolerance)
    elif isinstance(duckdb, list):
        assert len(duckdb) == len(elasticsearch)
        for left, right in zip(duckdb, elasticsearch, strict=True):
            check_agreement(left, right, tolerance)
    elif isinstance(duckdb, float) and isinstance(elasticsearch, float):
        assert duckdb == pytest.approx(elasticsearch, rel=tolerance)
    else:
        assert duckdb == elasticsearch
