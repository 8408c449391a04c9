"""Imported access logs give exact reports for each item."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from tests.imported_logs import ExpectedLog, ServerFactory, check_results, log, new_server, store, wait_until_counted
from tests.servers import running_server

__all__ = ["log", "new_server", "store"]


def test_the_expected_results_have_the_known_totals(log: ExpectedLog) -> None:
    counts = [
        sum(sum(answer[name].values()) for answer in log.expected_results.values())
        for name in ("views", "downloads", "referers")
    ]
    assert (len(log.expected_results), *counts) in {(268, 4122, 62, 705), (5, 35, 11, 18)}


async def test_counts_are_exact_after_importing_a_log_twice(
    log: ExpectedLog, store: dict[str, str], tmp_path: Path
) -> None:
    with running_server(tmp_path / "data", **store) as server:
        for _ in range(2):
            ended = await asyncio.to_thread(log.import_into, server)
            # Some lines of the small log are unreadable, which is reported, but is not a failure.
            assert ended.exit_code == 0, ended
            await check_results(server, log)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
async def test_counts_are_exact_after_the_server_was_killed_during_an_import(
    new_server: ServerFactory, log: ExpectedLog, store: dict[str, str], tmp_path: Path, workers: int
) -> None:
    batch = "--batch=5" if log.is_small else "--batch=100"
    server = new_server(tmp_path / "data", workers=workers, **store)
    await asyncio.to_thread(server.start)
    importing = asyncio.create_task(asyncio.to_thread(log.import_into, server, batch, "--retry-timeout=0"))
    await wait_until_counted("accepted", server, importing)
    server.kill()
    ended = await importing
    assert ended.exit_code in {0, 1}, ended
    if ended.exit_code:
        # All events of a small log may be on disk before the kill; what is left to do then is the server's.
        assert "no request is counted twice" in ended.stderr or "they need not be sent again" in ended.stderr
    await asyncio.to_thread(server.start)
    assert (await asyncio.to_thread(log.import_into, server, batch)).exit_code == 0
    await check_results(server, log)
    assert await asyncio.to_thread(server.stop) == 0
    assert server.error_lines() == []


@pytest.mark.slow
async def test_an_import_continues_after_the_server_was_killed_and_restarted(
    new_server: ServerFactory, log: ExpectedLog, store: dict[str, str], tmp_path: Path
) -> None:
    server = new_server(tmp_path / "data", **store)
    await asyncio.to_thread(server.start)
    run = partial(log.import_into, server, "--batch=5" if log.is_small else "--batch=100")
    importing = asyncio.create_task(asyncio.to_thread(run))
    for _ in range(2):
        await wait_until_counted("accepted", server, importing)
        server.kill()
        await asyncio.to_thread(server.start)
    assert (await importing).exit_code == 0
    await check_results(server, log)
    assert await asyncio.to_thread(server.stop) == 0
    assert server.error_lines() == []
