"""COUNTER usage of a real server: an item's, and what a harvester of SUSHI reports fetches."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson
import pytest

from metronome.auth.keys import KEY_KIND, build_key, generate_token
from metronome.scopes import Scope
from metronome.state.sqlite import SQLiteState
from tests.servers import Server, running_server

SECONDS: Final = aiohttp.ClientTimeout(total=60)
JANUARY: Final = "begin_date=2026-01-01&end_date=2026-01-31"
DSR: Final = f"/counter/reports/dsr?{JANUARY}"
LAKES, DAMS = "https://doi.org/10.5072/lakes/1", "dams\n.json"
EVENTS: Final[list[dict[str, Any]]] = [
    {"id": LAKES, "ts": "2026-01-10T10:00:00Z", "session": "s", "title": "Lakes"},
    {"id": LAKES, "ts": "2026-01-10T10:00:20Z", "session": "s"},
    {"id": LAKES, "ts": "2026-01-10T10:01:00Z", "session": "s", "format": "csv"},
    {"id": LAKES, "ts": "2026-02-10T10:01:00Z", "session": "s", "device": "script", "format": "csv"},
    {"id": LAKES, "ts": "2026-01-10T10:01:00Z", "session": "s", "bot": "Googlebot"},
    {"id": DAMS, "ts": "2026-01-31T23:30:00Z"},
]
NOTHING: Final = {
    "total_investigations": 0,
    "unique_investigations": 0,
    "total_requests": 0,
    "unique_requests": 0,
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("counter") / "data", tick_max_age="0") as server:
        fill(server)
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """Give a server of which a key may ask anything, and that key."""
    data = tmp_path_factory.mktemp("guarded") / "data"
    data.mkdir()
    token = generate_token()
    asyncio.run(add_key(data, token))
    with running_server(data, tick_max_age="0") as server:
        fill(server)
        yield server, token


async def add_key(data: Path, token: str) -> None:
    state = SQLiteState(data)
    key = build_key("harvester", (Scope.QUERY,), token, "2026-01-01T00:00:00.000Z")
    assert await state.add(KEY_KIND, "harvester", key.to_record())
    await state.close()


def fill(server: Server) -> None:
    assert orjson.loads(server.post_events(orjson.dumps(EVENTS))) == {"accepted": len(EVENTS), "rejected": []}
    server.wait_until_shipped()


@pytest.fixture
async def http(filled: Server) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(filled.url, timeout=SECONDS, auto_decompress=False) as session:
        yield session


async def body_of(http: aiohttp.ClientSession, path: str, **headers: str) -> tuple[int, Any, bytes]:
    async with http.get(path, headers={"Accept-Encoding": "identity", **headers}) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_the_usage_of_an_item_has_the_shape_of_the_documentation(http: aiohttp.ClientSession) -> None:
    status, _, body = await body_of(http, f"/counter/{quote(LAKES, safe='')}.json")
    assert status == 200
    zero = orjson.dumps(NOTHING).decode()
    # As text: the order of the months is part of the answer.
    assert body.decode() == (
        '{"months":{"2026-02":' + zero[:-1] + ',"machine":{"total_investigations":1,"unique_investigations":1,'
        '"total_requests":1,"unique_requests":1}},"2026-01":{"total_investigations":2,"unique_investigations":1,'
        '"total_requests":1,"unique_requests":1,"machine":' + zero + "}}}"
    )


def test_an_items_usage_can_be_asked_for_a_range_and_a_zone(filled: Server) -> None:
    path = f"/counter/{quote(DAMS, safe='')}.json"
    assert list(filled.get(path)["months"]) == ["2026-01"]
    assert list(filled.get(f"{path}?tz=Europe/Zurich")["months"]) == ["2026-02"]
    assert filled.get(f"{path}?from=2026-02-01") == {"months": {}}
    assert filled.get(f"{path}?limit=1")["title"] == "InvalidQuery"


def test_a_dataset_report_has_all_items_that_were_used(filled: Server) -> None:
    found = filled.get(DSR)
    assert found["report-header"]["reporting-period"] == {"begin-date": "2026-01-01", "end-date": "2026-01-31"}
    assert [one["dataset-id"] for one in found["report-datasets"]] == [
        [{"type": "proprietary", "value": DAMS}],
        [{"type": "doi", "value": "10.5072/lakes/1"}],
    ]
    lakes = found["report-datasets"][1]
    assert lakes["dataset-title"] == "Lakes"
    assert [(one["metric-type"], one["count"]) for one in lakes["performance"][0]["instance"]] == [
        ("total-dataset-investigations", 2),
        ("unique-dataset-investigations", 1),
        ("total-dataset-requests", 1),
        ("unique-dataset-requests", 1),
    ]


def test_a_dataset_report_may_be_of_one_item(filled: Server) -> None:
    found = filled.get(f"{DSR}&dataset_id={quote(DAMS, safe='')}")
    assert [one["dataset-id"][0]["value"] for one in found["report-datasets"]] == [DAMS]


def test_harvesters_find_the_report(filled: Server) -> None:
    assert filled.get("/counter/status")["serviceactive"] is True
    (listed,) = filled.get("/counter/reports")
    assert (listed["report-id"], listed["release"]) == ("dsr", "rd1")
    assert filled.get(f"/counter{listed['path']}?{JANUARY}") == filled.get(DSR)
    assert filled.get(f"/counter/reports/DSR?{JANUARY}") == filled.get(DSR)


@pytest.mark.parametrize(
    ("path", "status", "title"),
    [
        (f"/counter/reports/tr?{JANUARY}", 404, "NotFound"),
        ("/counter/reports/dsr?begin_date=2026-01-05&end_date=2026-01-31", 400, "InvalidQuery"),
        ("/counter/reports/dsr?begin_date=2024-01&end_date=2026-01", 400, "QueryTooExpensive"),
        (f"{DSR}&tz=Mars/Olympus", 400, "InvalidQuery"),
        (f"{DSR}&dataset_id=%ED%A0%80", 200, None),
    ],
)
async def test_rejects_invalid_dataset_reports(
    http: aiohttp.ClientSession, path: str, status: int, title: str | None
) -> None:
    found, _, body = await body_of(http, path)
    assert (found, orjson.loads(body).get("title")) == (status, title)


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.000", False), ("deflate", False)],
)
async def test_compresses_reports_for_clients_that_accept_gzip(
    http: aiohttp.ClientSession,
    accepted: str,
    is_packed: bool,  # noqa: FBT001  # of a table
) -> None:
    _, plain_headers, plain = await body_of(http, DSR)
    status, headers, body = await body_of(http, DSR, **{"Accept-Encoding": accepted})
    assert status == 200
    assert headers.get("Content-Encoding") == ("gzip" if is_packed else None)
    assert (gzip.decompress(body) if is_packed else body) == plain
    assert headers["Vary"] == plain_headers["Vary"] == "Accept-Encoding"
    assert (headers["ETag"] == plain_headers["ETag"]) == (not is_packed)


@pytest.mark.parametrize("accepted", ["gzip", "identity"])
async def test_a_known_report_is_not_sent_again(http: aiohttp.ClientSession, accepted: str) -> None:
    _, headers, _ = await body_of(http, DSR, **{"Accept-Encoding": accepted})
    known = {"Accept-Encoding": accepted, "If-None-Match": headers["ETag"]}
    status, again, body = await body_of(http, DSR, **known)
    assert (status, again["ETag"], body) == (304, headers["ETag"], b"")


def test_only_the_report_about_all_items_needs_a_key(guarded: tuple[Server, str]) -> None:
    server, token = guarded
    assert server.get(DSR)["title"] == "Unauthorized"
    assert "report-datasets" in server.get(f"{DSR}&api_key={token}")
    assert "report-datasets" in server.get(f"{DSR}&dataset_id=x")
    assert server.get("/counter/x.json") == {"months": {}}
    assert server.get("/counter/status")["serviceactive"] is True


async def test_workers_relay_reports_to_the_main_process(crew: Server) -> None:
    crew.post_events(orjson.dumps({"id": "crewed", "session": "s"}))
    crew.wait_until_shipped()
    (month,) = crew.get("/counter/crewed.json")["months"].values()
    assert month == {**NOTHING, "total_investigations": 1, "unique_investigations": 1, "machine": NOTHING}
    assert crew.get("/counter/reports/dsr")["report-datasets"][0]["dataset-id"][0]["value"] == "crewed"
    async with aiohttp.ClientSession(crew.url, timeout=SECONDS, auto_decompress=False) as http:
        _, _, plain = await body_of(http, "/counter/reports/dsr")
        _, headers, packed = await body_of(http, "/counter/reports/dsr", **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed) == plain
