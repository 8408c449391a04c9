"""A replay of the archive into an empty store gives the same reports, even if servers are killed."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson
import pytest

from tests.imported_logs import (
    REAL_LOG_MARKS,
    ExpectedLog,
    ServerFactory,
    check_results,
    log,
    new_server,
    store,
    wait_until_counted,
)
from tests.s3_server import S3Server
from tests.servers import CommandResult, Server, delete_indices, run_metronome, unique_name

pytestmark = pytest.mark.slow

__all__ = ["log", "new_server", "store"]

NAMES: Final = ("log", "store", "archive", "workers")
INDIRECT: Final = ["log", "store", "archive"]
# Each log, store, kind of archive and number of workers is tested in both ways, and each with most of the others.
UNDISTURBED: Final = pytest.mark.parametrize(
    NAMES,
    [
        pytest.param("real", "duckdb", "folder", 2, marks=REAL_LOG_MARKS),
        pytest.param("small", "elasticsearch", "s3", 1, marks=pytest.mark.elasticsearch),
    ],
    indirect=INDIRECT,
)
KILLED: Final = pytest.mark.parametrize(
    NAMES,
    [
        ("small", "duckdb", "s3", 1),
        pytest.param("real", "elasticsearch", "folder", 2, marks=[pytest.mark.elasticsearch, *REAL_LOG_MARKS]),
    ],
    indirect=INDIRECT,
)


@pytest.fixture(params=["folder", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty archive."""
    if request.param == "folder":
        return f"file://{tmp_path}/archive"
    request.getfixturevalue("s3_environment")
    server: S3Server = request.getfixturevalue("s3")
    return f"s3://{server.create_unique_bucket()}/some/prefix"


@pytest.fixture
def other(store: dict[str, str]) -> Iterator[dict[str, str]]:
    """Settings of another, empty store of the same kind."""
    if store["store"] == "duckdb":
        yield store
        return
    prefix = unique_name("other")
    yield {**store, "index_prefix": prefix}
    delete_indices(store["store"], prefix)


def replay(archive: str, server: Server, folder: Path, *options: str) -> CommandResult:
    options = (f"--url={server.url}", f"--checkpoint={folder / 'progress'}", *options)
    return run_metronome("replay", archive, *options, timeout=180)


def verify(archive: str, server: Server) -> CommandResult:
    return run_metronome("verify", archive, f"--url={server.url}", timeout=180)


def count_of(ended: CommandResult, name: str) -> int:
    """Return a count in the summary of a command."""
    return int(next(line for line in ended.stdout.splitlines() if name in line).split()[-1].replace(",", ""))


@UNDISTURBED
async def test_a_replay_into_an_empty_store_gives_the_same_reports(
    new_server: ServerFactory,
    log: ExpectedLog,
    store: dict[str, str],
    other: dict[str, str],
    archive: str,
    tmp_path: Path,
    workers: int,
) -> None:
    first = new_server(tmp_path / "first", archive=archive, archive_roll_bytes=100_000, workers=workers, **store)
    await asyncio.to_thread(first.start)
    assert (await asyncio.to_thread(log.import_into, first)).exit_code == 0
    await check_results(first, log)
    assert await asyncio.to_thread(first.stop) == 0
    assert first.error_lines() == []

    second = new_server(tmp_path / "second", workers=workers, **other)
    await asyncio.to_thread(second.start)
    for attempt in range(2):
        ended = await asyncio.to_thread(replay, archive, second, tmp_path)
        assert ended.exit_code == 0, ended
        assert count_of(ended, "damaged") == count_of(ended, "rejected") == 0
        assert (count_of(ended, "new in the store") > 0) == (attempt == 0)
        await check_results(second, log)
    await asyncio.to_thread(first.start)
    for server in (first, second):
        same = await asyncio.to_thread(verify, archive, server)
        assert same.exit_code == 0, same
    # All enriched fields are the same, too.
    query = "/query?by=event,browser,country,day&limit=0&bots=1"
    assert await asyncio.to_thread(first.get, query) == await asyncio.to_thread(second.get, query)


@KILLED
async def test_a_replay_gives_the_same_reports_after_both_servers_were_killed(
    new_server: ServerFactory,
    log: ExpectedLog,
    store: dict[str, str],
    other: dict[str, str],
    archive: str,
    tmp_path: Path,
    workers: int,
) -> None:
    batch = "--batch=5" if log.is_small else "--batch=200"
    first = new_server(
        tmp_path / "first",
        archive=archive,
        archive_roll_bytes=5_000 if log.is_small else 400_000,
        archive_roll_age="1s",
        workers=workers,
        **store,
    )
    for _ in range(3):
        await asyncio.to_thread(first.start)
        importing = asyncio.create_task(asyncio.to_thread(log.import_into, first, batch, "--retry-timeout=0"))
        await wait_until_counted("shipped", first, importing)
        first.kill()
        await importing
    await asyncio.to_thread(first.start)
    assert (await asyncio.to_thread(log.import_into, first, batch)).exit_code == 0
    await check_results(first, log)
    assert await asyncio.to_thread(first.stop) == 0
    assert first.error_lines() == []

    second = new_server(tmp_path / "second", workers=workers, **other)
    for _ in range(3):
        await asyncio.to_thread(second.start)
        replaying = asyncio.create_task(asyncio.to_thread(replay, archive, second, tmp_path, "--retry-timeout=0"))
        await wait_until_counted("shipped", second, replaying)
        second.kill()
        assert (await replaying).exit_code in {0, 1}
    await asyncio.to_thread(second.start)
    # Objects that the killed servers have acknowledged are skipped, unless a replay was complete.
    ended = await asyncio.to_thread(replay, archive, second, tmp_path)
    assert ended.exit_code == 0, ended
    await check_results(second, log)
    same = await asyncio.to_thread(verify, archive, second)
    assert same.exit_code == 0, same
    assert await asyncio.to_thread(second.stop) == 0
    assert second.error_lines() == []


def test_the_archive_has_the_same_events_as_the_store(new_server: ServerFactory, tmp_path: Path, archive: str) -> None:
    server = new_server(tmp_path / "data", archive=archive)
    server.start()
    events = [{"id": "a", "event_id": f"e{number}", "ts": "2015-01-22", "n": [number]} for number in range(9)]
    server.post_events(orjson.dumps(events))
    server.post_events(orjson.dumps(events))
    assert server.stop() == 0
    server.start()
    # Each event was sent twice, and counts once.
    assert "9             9             0             0" in verify(archive, server).stdout
    server.post_events(b'{"id": "a", "event_id": "late", "ts": "2015-01-23", "event": "rated"}')
    server.wait_until_shipped()
    ended = verify(archive, server)
    assert ended.exit_code == 1
    assert re.search(r"^2015-01-23 +0 +1 +0 +1$", ended.stdout, re.MULTILINE), ended.stdout
    assert "1 events have not reached the archive" in ended.stdout
