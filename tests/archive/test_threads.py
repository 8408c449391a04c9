"""Work in daemon threads is awaited, and does not keep the process alive."""

import asyncio
import subprocess
import sys
import threading

import pytest

from metronome.archive.objects import run_in_daemon_thread


async def test_returns_results_and_raises_errors() -> None:
    assert await run_in_daemon_thread(lambda: threading.current_thread().name) == "archive"
    with pytest.raises(ZeroDivisionError):
        await run_in_daemon_thread(lambda: 1 // 0)


async def test_runs_many_at_once() -> None:
    together = threading.Barrier(100, timeout=20)
    assert sorted(await asyncio.gather(*(run_in_daemon_thread(together.wait) for _ in range(100)))) == [*range(100)]


async def test_a_cancelled_call_is_abandoned() -> None:
    go_on = threading.Event()
    waiting = asyncio.create_task(run_in_daemon_thread(go_on.wait))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    go_on.set()
    await asyncio.sleep(0.05)
    assert waiting.cancelled()


SILENT = """
import asyncio, time
from metronome.archive.objects import run_in_daemon_thread
async def main():
    try:
        await asyncio.wait_for(run_in_daemon_thread(lambda: time.sleep(600)), 0.1)
    except TimeoutError:
        print("given up")
asyncio.run(main())
"""


def test_the_process_exits_without_waiting_for_threads() -> None:
    # The thread sleeps for longer than the timeout.
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, check=True, timeout=300)
    assert done.stdout == b"given up\n"
