"""What every process of the service has in common: its event loop, its signals, and how it ends."""

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

_YOUNG_OBJECTS = 20_000


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a process until it is told to stop.

    Args:
        main: what it does; the event that it gets is set on SIGTERM and SIGINT, upon which it ends cleanly.

    """
    # Requests leave little garbage in cycles: looking for it seldom saves a twentieth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 50, 100)
    try:
        uvloop.run(_until_signalled(main))
    finally:
        # What stays frozen to the end, DuckDB's library calls leaked.
        gc.unfreeze()


async def _until_signalled(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await main(stop)
