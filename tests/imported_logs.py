"""Access logs with expected results, and helpers for tests that import them.

The small log was counted by hand, below; the real log, outside the checkout, was counted by another program.
"""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson
import pytest

from tests.servers import CommandResult, Server, delete_indices, refresh_indices, run_metronome, unique_name

SHARED_DATA: Final = Path(__file__).parents[2] / "shared" / "data"
SMALL_LOG: Final = Path(__file__).parent / "data" / "access.log"
TIMEOUT: Final = aiohttp.ClientTimeout(total=120)

# The log's times are at +0200, so UTC days begin at 02:00 in the log.
FIRST_DAY, SECOND_DAY = "2025-03-03", "2025-03-04"
NEWS, MAPS, SEARCH = "news.example.com/2025/story", "example.org/maps", "search.example"
SMALL_LOG_RESULTS: Final = {
    # Lines 23 26 37 41 42 49, then 50 52 59 63; downloads 3 6 9 11; referers 37 41, 26, 59, and 50, which is not UTF-8.
    "rivers": {
        "views": {SECOND_DAY: 4, FIRST_DAY: 6},
        "downloads": {"csv": 1, "geojson": 1, "kml": 1, "tar.gz": 1},
        "referers": {MAPS: 2, NEWS: 1, SEARCH: 1, "\\xe4\\xe5.example": 1},
    },
    # 7 10 27 28 29, then 53; 4 39; 27 28, 10.
    "air-quality": {
        "views": {SECOND_DAY: 1, FIRST_DAY: 5},
        "downloads": {"csv": 1, "geojson": 1},
        "referers": {SEARCH: 2, NEWS: 1},
    },
    # 5 16 18 35 40 43, then 57 58; 20 30; 30 43, 16 20, 5 58.
    "trees-2024": {
        "views": {SECOND_DAY: 2, FIRST_DAY: 6},
        "downloads": {"csv": 1, "geojson": 1},
        "referers": {MAPS: 2, NEWS: 2, SEARCH: 2},
    },
    # 15 19 38 45; 2 13 31; 15, 31.
    "bus-stops": {
        "views": {FIRST_DAY: 4},
        "downloads": {"csv": 1, "geojson": 1, "kml": 1},
        "referers": {NEWS: 1, SEARCH: 1},
    },
    # 14 17 21 25 33 36 48; none; 25, 36.
    "cafés": {"views": {FIRST_DAY: 7}, "downloads": {}, "referers": {NEWS: 1, MAPS: 1}},
}


@dataclass(frozen=True)
class ExpectedLog:
    """A log, the options to import it, and the expected results of each item."""

    path: Path
    item_pattern: str
    own_hosts: tuple[str, ...]
    expected_results: dict[str, dict[str, dict[str, int]]]

    @property
    def is_small(self) -> bool:
        """Whether this is the small log."""
        return self.path == SMALL_LOG

    def command(self, server: Server, *options: object) -> tuple[object, ...]:
        hosts = [f"--own-host={host}" for host in self.own_hosts]
        return ("import", self.path, f"--url={server.url}", f"--item-pattern={self.item_pattern}", *hosts, *options)

    def import_into(self, server: Server, *options: object) -> CommandResult:
        return run_metronome(*self.command(server, *options), timeout=180)


def real_log() -> ExpectedLog:
    expected = orjson.loads((SHARED_DATA / "apache_logs.expected.json").read_bytes())
    return ExpectedLog(
        SHARED_DATA / expected["log"], expected["item_pattern"], tuple(expected["own_hosts"]), expected["items"]
    )


def small_log() -> ExpectedLog:
    pattern = r"^/datasets/(?P<id>[^/]+)(?:/.*?(?:\.(?P<format>csv|geojson|tar\.gz|KML)))?$"
    return ExpectedLog(SMALL_LOG, pattern, ("data.example.net",), SMALL_LOG_RESULTS)


REAL_LOG_MARKS: Final = (
    pytest.mark.shared_data,
    pytest.mark.skipif(not SHARED_DATA.exists(), reason="the real log is not available"),
)
"""Marks of tests that read the real log."""

ServerFactory = Callable[..., Server]


@pytest.fixture
def new_server() -> Iterator[ServerFactory]:
    """Create servers with the arguments of `Server`; kill those that still run after the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(Server(*arguments, **settings))


@pytest.fixture(params=["small", pytest.param("real", marks=REAL_LOG_MARKS)])
def log(request: pytest.FixtureRequest) -> ExpectedLog:
    return small_log() if request.param == "small" else real_log()


@pytest.fixture(params=["duckdb", pytest.param("elasticsearch", marks=[pytest.mark.elasticsearch, pytest.mark.slow])])
def store(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Provide the settings for each store."""
    if request.param == "duckdb":
        yield {"store": "duckdb"}
        return
    url, prefix = request.getfixturevalue("elasticsearch_url"), unique_name("log")
    yield {"store": url, "index_prefix": prefix}
    delete_indices(url, prefix)


async def fetch_results(server: Server, item_ids: list[str]) -> dict[str, Any]:
    """Fetch the tock report of each item, a few concurrently."""
    connector = aiohttp.TCPConnector(limit=4)
    async with aiohttp.ClientSession(server.url, timeout=TIMEOUT, connector=connector) as http:

        async def fetch(item: str) -> Any:
            async with http.get(f"/tock/{quote(item, safe='')}.json?bots=1&limit=0") as response:
                assert response.status == 200, await response.text()
                return await response.json()

        return dict(zip(item_ids, await asyncio.gather(*map(fetch, item_ids)), strict=True))


async def check_results(server: Server, log: ExpectedLog) -> None:
    """Check the results of every item, the order of days, and that there are no other items."""
    await asyncio.to_thread(server.wait_until_shipped)
    if server.settings["store"] != "duckdb":
        url, prefix = str(server.settings["store"]), str(server.settings["index_prefix"])
        await asyncio.to_thread(refresh_indices, url, prefix)
    results = await fetch_results(server, list(log.expected_results))
    totals = {item: result.pop("totals") for item, result in results.items()}
    assert results == log.expected_results
    for item, result in results.items():
        assert totals[item] == {name: sum(result[name].values()) for name in ("views", "downloads")}
        assert list(result["views"]) == sorted(result["views"], reverse=True)
    report = await asyncio.to_thread(server.get, "/items.json?bots=1&limit=0")
    assert {item["id"]: (item["views"], item["downloads"]) for item in report["items"]} == {
        item: (sum(result["views"].values()), sum(result["downloads"].values()))
        for item, result in log.expected_results.items()
    }


async def wait_until_counted(counter: str, server: Server, task: "asyncio.Task[CommandResult]") -> None:
    """Wait until the server's event counter of that name is above zero, or the task is done."""
    pattern = re.compile(rf"^metronome_events_{counter}_total (\S+)", re.MULTILINE)
    async with aiohttp.ClientSession(server.url, timeout=TIMEOUT) as http:
        while not task.done():
            async with http.get("/metrics") as response:
                match = pattern.search(await response.text())
            if match is not None and float(match[1]) > 0:
                return
            await asyncio.sleep(0.005)
