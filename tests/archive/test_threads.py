"""Threads of their own: what they do is waited for, and nothing else waits for them."""

import asyncio
import subprocess
import sys
import threading

import pytest

from metronome.archive.objects import run_in_daemon_thread


async def test_a_result_and_an_error_come_back() -> None:
    assert await run_in_daemon_thread(lambda: threading.current_thread().name) == "archive"
    with pytest.raises(ZeroDivisionError):
        await run_in_daemon_thread(lambda: 1 // 0)


async def test_many_run_at_once() -> None:
    together = threading.Barrier(100, timeout=20)
    assert sorted(await asyncio.gather(*(run_in_daemon_thread(together.wait) for _ in range(100)))) == [*range(100)]


async def test_one_that_is_no_longer_waited_for_disturbs_nobody() -> None:
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
from metronome.archive.objects import in_own_thread
async def main():
    try:
        await asyncio.wait_for(in_own_thread(lambda: time.sleep(600)), 0.1)
    except TimeoutError:
        print("given up")
asyncio.run(main())
"""


def test_a_process_ends_without_waiting_for_them() -> None:
    # It would sleep for longer than it is given.
    done = subprocess.run([sys.executable, "-c", SILENT], capture_output=True, check=True, timeout=300)
    assert done.stdout == b"given up\n"
