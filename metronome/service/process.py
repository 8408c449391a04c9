"""What every process of the service has in common: its event loop, its signals, and how it ends."""

import asyncio
import gc
import resource
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

import uvloop

_YOUNG_OBJECTS = 20_000
_COLLECTION_SECONDS: Final = 30.0
"""A full collection stops the process for 1 to 15 ms: 50,000 objects take 10 ms."""
_FILES = 65_536
"""So many connections and files a process may have, if the machine allows: its usual limit of 1,024 is soon reached."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a process until it is told to stop.

    Args:
        main: what it does; the event that it gets is set on SIGTERM and SIGINT, upon which it ends cleanly.

    """
    _allow_many_files()
    # Requests leave little garbage in cycles: looking for it seldom saves a twentieth of the time. By these thresholds,
    # a full collection practically never happens. `_collect_garbage` runs one at regular intervals, since few objects
    # can hold much memory.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 50, 100)
    try:
        uvloop.run(_until_signalled(main))
    finally:
        # What stays frozen to the end, DuckDB's library calls leaked.
        gc.unfreeze()


def _allow_many_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _until_signalled(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    collecting = asyncio.create_task(_collect_garbage())
    try:
        await main(stop)
    finally:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)


async def _collect_garbage() -> None:
    """Run a full garbage collection at regular intervals."""
    while True:
        await asyncio.sleep(_COLLECTION_SECONDS)
        gc.collect()
