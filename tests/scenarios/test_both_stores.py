"""Whatever happens, and whatever is asked of it: both stores answer as a plain count does, and every report alike."""

import asyncio
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
from tests.scenarios.asking import ESTIMATED_SHARE, Stand, request
from tests.scenarios.conftest import settle
from tests.scenarios.counting import Document, Row, columns_of, count, numbers_of
from tests.scenarios.random_events import DAYS, ITEMS, RUN, encode, events
from tests.scenarios.random_questions import DISTINCT, PERCENT, ZONES, Request, requests
from tests.servers import Server

pytestmark = [pytest.mark.elasticsearch, pytest.mark.slow]

LINES: Final = {"Content-Type": "application/x-ndjson"}
KNOWN: Final[dict[str, Any]] = {RUN: "known", "p_n": 0, "p_lang": "x", "p_flag": True, "p.dot": "x"}
"""Of these fields each day's first event has a value: what nothing has cannot be asked for."""
REPORTS: Final = (
    *("tock/{id}.json", "tock/{id}.json?interval=hour&limit=1", "flow/{id}.json?steps=3", "time/{id}.json"),
    *("errors/{id}.json", "recommendations/{id}.json", "counter/{id}.json", "badge/{id}.svg?bots=1"),
)
REPORTS_OF_ALL: Final = (
    *("items.json", "items.json?order=downloads&bots=1", "items.json?order=visitors", "items.json?order=rising"),
    *("flow.json?limit=3", "time.json", "errors.json", "recommendations.json?limit=0"),
)
RANGES: Final = ((DAYS[0], DAYS[-1]), (DAYS[0], DAYS[1]), (DAYS[-1], DAYS[-1]))
_runs = numbers()


def patient(examples: int) -> settings:
    """Return settings for that many examples."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        # Each try asks two servers: to find a smaller example would take longer than a test may.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
    )


@pytest.fixture(scope="module")
def both(on_duckdb: Server, on_elasticsearch: Server) -> tuple[Stand, Stand]:
    """Give a server on each store."""
    known = [orjson.dumps({**KNOWN, "ts": day.isoformat()}) for day in DAYS]
    stands = Stand(on_duckdb, "duckdb"), Stand(on_elasticsearch, "elasticsearch")
    tell(stands, known)
    return stands


@patient(30)
@given(st.data(), events())
def test_questions_are_answered_as_a_plain_count_does(
    both: tuple[Stand, Stand], data: st.DataObject, drawn: list[dict[str, Any]]
) -> None:
    number = next(_runs)
    run = f"r{number}"
    tell(both, [encode(event, run, number) for event in drawn])
    documents = stored(both[1].server, run)
    for asked in data.draw(st.lists(requests(run), min_size=8, max_size=8)):
        for stand in both:
            check(stand, asked, documents)


@patient(6)
@given(events(), st.sampled_from(ZONES), st.sampled_from(RANGES))
def test_reports_are_alike(
    both: tuple[Stand, Stand], drawn: list[dict[str, Any]], tz: str, days: tuple[date, date]
) -> None:
    number = next(_runs)
    run = f"r{number}"
    tell(both, [encode(event, run, number) for event in drawn])
    within = f"from={days[0]}&to={days[1]}&tz={quote(tz)}"
    paths = [path.format(id=quote(f"{run}/{item}", safe="")) for path in REPORTS for item in ITEMS]
    for path in (*paths, *REPORTS_OF_ALL):
        whole = f"/{path}{'&' if '?' in path else '?'}{within}"
        one, other = (request(stand.server, whole) for stand in both)
        assert (one.status, other.status) == (200, 200), (one, other)
        if one.headers["Content-Type"] != "application/json":
            assert one.body == other.body
        else:
            check_alike(orjson.loads(one.body), orjson.loads(other.body))


def tell(stands: tuple[Stand, Stand], lines: list[bytes]) -> None:
    for stand in stands:
        if lines:
            got = request(stand.server, "/tick", b"\n".join(lines), LINES)
            assert orjson.loads(got.body) == {"accepted": len(lines), "rejected": []}
    for stand in stands:
        settle(stand.server)


def stored(server: Server, run: str) -> list[Document]:
    """Return the documents of an example, as they are stored."""

    async def read() -> list[Document]:
        store = ElasticsearchStore(
            ElasticsearchConfig(str(server.settings["store"]), prefix=str(server.settings["index_prefix"]))
        )
        try:
            return [orjson.loads(line) async for line in store.iterate_documents(Equals(RUN, run))]
        finally:
            await store.close()

    return asyncio.run(read())


def check(stand: Stand, asked: Request, documents: list[Document]) -> None:
    """See that a question's answer is what is counted."""
    headers = {} if asked.body is None else {"Content-Type": "application/json"}
    got = request(stand.server, asked.path, asked.body, headers)
    assert got.status == 200, got.body.decode()
    answer, question = orjson.loads(got.body), asked.question
    rows = count(question, documents)
    end = None if question.limit is None else question.offset + question.limit
    assert (answer["columns"], answer["total"]) == (columns_of(question), len(rows)), (asked.path, asked.body)
    assert stand.estimates or answer["exact"] is True
    if answer["exact"]:
        assert answer["rows"] == rows[question.offset : end], (stand.store, asked.path, asked.body, documents)
        return
    for found, right in zip(answer["rows"], rows[question.offset : end], strict=True):
        check_row(answer["columns"], found, right, documents)


def check_row(columns: list[str], found: Row, right: Row, documents: list[Document]) -> None:
    """See that a row is right, where it may be estimated as far as an estimate may go."""
    for column, one, other in zip(columns, found, right, strict=True):
        kind, _, field = column.partition(":")
        if not column.startswith((*DISTINCT, *PERCENT)) or one is None or other is None:
            assert one == other, column
        elif column.endswith(":change"):
            # The share of one estimate in another has no bound.
            assert isinstance(one, float)
        elif column.startswith(DISTINCT):
            assert abs(one - other) <= ESTIMATED_SHARE * other, column
        else:
            possible = numbers_of(documents, field.partition(":")[0])
            assert possible[0] <= one <= possible[-1], kind


def check_alike(one: Any, other: Any) -> None:
    """See that two reports are the same, but for what Elasticsearch may estimate."""
    if isinstance(one, dict):
        # Elasticsearch says where it had to estimate. Of few visitors, it knows how many there are.
        assert [*one] == [name for name in other if name != "exact"]
        for name in one:
            check_alike(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            check_alike(left, right)
    elif isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, rel=ESTIMATED_SHARE)
    else:
        assert one == other
