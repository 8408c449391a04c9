"""How long an answer may take."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from metronome.errors import TooCostly


@asynccontextmanager
async def in_time(seconds: float, ping: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Break the block off once it takes too long.

    The connection of a search that is broken off is closed, at which Elasticsearch gives the search up.

    Args:
        seconds: how long it may take.
        ping: raises where the store does not answer anything; then that is what is wrong.

    Raises:
        TooCostly: it took longer, though the store answers.

    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        await ping()
        raise TooCostly(f"the answer takes over {seconds:g} s") from None
