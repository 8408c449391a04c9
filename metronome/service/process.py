"""What every process of the service has in common: its event loop, its signals, and how it ends."""

import asyncio
import gc
import resource
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

_YOUNG_OBJECTS = 20_000
_FILES = 65_536
"""So many connections and files a process may have, if the machine allows: its usual limit of 1,024 is soon reached."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a process until it is told to stop.

    Args:
        main: what it does; the event that it gets is set on SIGTERM and SIGINT, upon which it ends cleanly.

    """
    _allow_many_files()
    # Requests leave little garbage in cycles: looking for it seldom saves a twentieth of the time.
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
    await main(stop)
