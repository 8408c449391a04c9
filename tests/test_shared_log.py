"""Access logs, from the file to the answer: imported into a real server, each item's answer is exact.

The small log of the project is counted by hand below; the real one beside the project was counted by another program.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson
import pytest

from tests.servers import Ended, Server, delete_indices, refresh_indices, run_metronome, serving, unique_name

SHARED: Final = Path(__file__).parents[2] / "shared" / "data"
SMALL: Final = Path(__file__).parent / "data" / "access.log"
SECONDS: Final = aiohttp.ClientTimeout(total=120)
ACCEPTED: Final = re.compile(r"^metronome_events_accepted_total (\S+)", re.MULTILINE)

# The log's times are at +0200, so the day begins two hours into the log's own.
BEFORE, AFTER = "2025-03-03", "2025-03-04"
NEWS, MAPS, SEARCH = "news.example.com/2025/story", "example.org/maps", "search.example"
COUNTED_BY_HAND: Final = {
    # Lines 23 26 37 41 42 49, then 50 52 59 63; downloads 3 6 9 11; referers 37 41, 26, 59, and 50, which is no UTF-8.
    "rivers": {
        "views": {AFTER: 4, BEFORE: 6},
        "downloads": {"csv": 1, "geojson": 1, "kml": 1, "tar.gz": 1},
        "referers": {MAPS: 2, NEWS: 1, SEARCH: 1, "\\xe4\\xe5.example": 1},
    },
    # 7 10 27 28 29, then 53; 4 39; 27 28, 10.
    "air-quality": {
        "views": {AFTER: 1, BEFORE: 5},
        "downloads": {"csv": 1, "geojson": 1},
        "referers": {SEARCH: 2, NEWS: 1},
    },
    # 5 16 18 35 40 43, then 57 58; 20 30; 30 43, 16 20, 5 58.
    "trees-2024": {
        "views": {AFTER: 2, BEFORE: 6},
        "downloads": {"csv": 1, "geojson": 1},
        "referers": {MAPS: 2, NEWS: 2, SEARCH: 2},
    },
    # 15 19 38 45; 2 13 31; 15, 31.
    "bus-stops": {
        "views": {BEFORE: 4},
        "downloads": {"csv": 1, "geojson": 1, "kml": 1},
        "referers": {NEWS: 1, SEARCH: 1},
    },
    # 14 17 21 25 33 36 48; none; 25, 36.
    "cafés": {"views": {BEFORE: 7}, "downloads": {}, "referers": {NEWS: 1, MAPS: 1}},
}


@dataclass(frozen=True)
class Log:
    """A log, how it is to be imported, and what every item's answer is."""

    path: Path
    item_pattern: str
    own_hosts: tuple[str, ...]
    answers: dict[str, dict[str, dict[str, int]]]

    def command(self, server: Server, *options: object) -> tuple[object, ...]:
        hosts = [f"--own-host={host}" for host in self.own_hosts]
        return ("import", self.path, f"--url={server.url}", f"--item-pattern={self.item_pattern}", *hosts, *options)

    def import_into(self, server: Server, *options: object) -> Ended:
        return run_metronome(*self.command(server, *options), seconds=180)


def real_log() -> Log:
    expected = orjson.loads((SHARED / "apache_logs.expected.json").read_bytes())
    return Log(SHARED / expected["log"], expected["item_pattern"], tuple(expected["own_hosts"]), expected["items"])


def small_log() -> Log:
    pattern = r"^/datasets/(?P<id>[^/]+)(?:/.*?(?:\.(?P<format>csv|geojson|tar\.gz|KML)))?$"
    return Log(SMALL, pattern, ("data.example.net",), COUNTED_BY_HAND)


NewServer = Callable[..., Server]


@pytest.fixture
def new_server() -> Iterator[NewServer]:
    """Make servers as `Server` does; those that still run at the test's end are killed."""
    with ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(Server(*arguments, **settings))


@pytest.fixture(
    params=[
        "small",
        pytest.param(
            "real",
            marks=[
                pytest.mark.shared_data,
                pytest.mark.skipif(not SHARED.exists(), reason="the real log is not beside the project"),
            ],
        ),
    ]
)
def log(request: pytest.FixtureRequest) -> Log:
    return small_log() if request.param == "small" else real_log()


@pytest.fixture(params=["duckdb", pytest.param("elasticsearch", marks=pytest.mark.elasticsearch)])
def store(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The settings of each store."""
    if request.param == "duckdb":
        yield {"store": "duckdb"}
        return
    url, prefix = request.getfixturevalue("elasticsearch_url"), unique_name("log")
    yield {"store": url, "index_prefix": prefix}
    delete_indices(url, prefix)


async def answers(server: Server, ids: list[str]) -> dict[str, Any]:
    """Ask for each item, a few at a time."""
    connector = aiohttp.TCPConnector(limit=4)
    async with aiohttp.ClientSession(server.url, timeout=SECONDS, connector=connector) as http:

        async def ask(item: str) -> Any:
            async with http.get(f"/tock/{quote(item, safe='')}.json?bots=1&limit=0") as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()

        return dict(zip(ids, await asyncio.gather(*map(ask, ids)), strict=True))


async def check(server: Server, log: Log) -> None:
    """Check every item's answer, the order of its days, and that there are no other items."""
    await asyncio.to_thread(server.wait_until_shipped)
    if server.settings["store"] != "duckdb":
        node, prefix = str(server.settings["store"]), str(server.settings["index_prefix"])
        await asyncio.to_thread(refresh_indices, node, prefix)
    found = await answers(server, list(log.answers))
    assert found == log.answers
    for answer in found.values():
        assert list(answer["views"]) == sorted(answer["views"], reverse=True)
    listed = await asyncio.to_thread(server.get, "/items.json?bots=1&limit=0")
    assert {one["id"]: (one["views"], one["downloads"]) for one in listed["items"]} == {
        item: (sum(answer["views"].values()), sum(answer["downloads"].values())) for item, answer in log.answers.items()
    }


def test_the_answers_are_those_that_were_counted(log: Log) -> None:
    counts = [
        sum(sum(answer[name].values()) for answer in log.answers.values())
        for name in ("views", "downloads", "referers")
    ]
    assert (len(log.answers), *counts) in {(268, 4122, 62, 705), (5, 35, 11, 18)}


async def test_every_item_is_counted_exactly_however_often_its_log_is_imported(
    log: Log, store: dict[str, str], tmp_path: Path
) -> None:
    with serving(tmp_path / "data", **store) as server:
        for _ in range(2):
            ended = await asyncio.to_thread(log.import_into, server)
            # Some lines of the small one cannot be read, and that is told, but it is no failure.
            assert ended.code == 0, ended
            await check(server, log)


@pytest.mark.parametrize("workers", [1, 2])
async def test_every_item_is_counted_exactly_where_the_server_was_killed_amid_an_import(
    new_server: NewServer, log: Log, store: dict[str, str], tmp_path: Path, workers: int
) -> None:
    batch = "--batch=5" if log.path == SMALL else "--batch=100"
    server = new_server(tmp_path / "data", workers=workers, **store)
    await asyncio.to_thread(server.start)
    importing = asyncio.create_task(asyncio.to_thread(log.import_into, server, batch, "--patience=0"))
    await until_some_are_accepted(server, importing)
    server.kill()
    ended = await importing
    assert ended.code in {0, 1}, ended
    if ended.code:
        assert "nothing is counted twice" in ended.errors
    await asyncio.to_thread(server.start)
    assert (await asyncio.to_thread(log.import_into, server, batch)).code == 0
    await check(server, log)
    assert await asyncio.to_thread(server.stop) == 0
    assert server.complaints() == []


async def test_an_import_has_patience_with_a_server_that_is_killed_and_comes_back(
    new_server: NewServer, log: Log, store: dict[str, str], tmp_path: Path
) -> None:
    server = new_server(tmp_path / "data", **store)
    await asyncio.to_thread(server.start)
    run = partial(log.import_into, server, "--batch=5" if log.path == SMALL else "--batch=100")
    importing = asyncio.create_task(asyncio.to_thread(run))
    for _ in range(2):
        await until_some_are_accepted(server, importing)
        server.kill()
        await asyncio.to_thread(server.start)
    assert (await importing).code == 0
    await check(server, log)
    assert await asyncio.to_thread(server.stop) == 0
    assert server.complaints() == []


async def until_some_are_accepted(server: Server, importing: "asyncio.Task[Ended]") -> None:
    async with aiohttp.ClientSession(server.url, timeout=SECONDS) as http:
        while not importing.done():
            async with http.get("/metrics") as answer:
                found = ACCEPTED.search(await answer.text())
            if found is not None and float(found[1]) > 0:
                return
            await asyncio.sleep(0.005)
