"""Workers report commits to the main process, which wakes the drains of their spools."""

import asyncio
import os

from metronome.server.processes import open_commit_pipe


async def test_reported_commits_call_back() -> None:
    reported = asyncio.Event()
    with open_commit_pipe(reported.set) as commit_pipe:
        for _ in range(2):
            reported.clear()
            os.write(commit_pipe.descriptor, b"\0")
            await asyncio.wait_for(reported.wait(), 5)


async def test_a_full_pipe_does_not_block_the_worker() -> None:
    reported = asyncio.Event()
    with open_commit_pipe(reported.set) as commit_pipe:
        full = False
        while not full:
            try:
                os.write(commit_pipe.descriptor, b"\0" * 4096)
            except BlockingIOError:
                full = True
        await asyncio.wait_for(reported.wait(), 5)
