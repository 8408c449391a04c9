"""What several tests of reports have in common."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from metronome.stores.base import Store
from tests.reports.filled import BACK_ENDS, Fill, filled


@pytest_asyncio.fixture(params=BACK_ENDS, loop_scope="module")
async def fill(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fill]:
    """Give what fills a new store with events."""
    async with AsyncExitStack() as opened:

        async def fill(events: Iterable[dict[str, Any]]) -> Store:
            return await opened.enter_async_context(filled(request.param, request, tmp_path_factory, events))

        yield fill
