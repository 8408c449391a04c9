"""The titles of items, which senders may add to their events."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

import orjson

from metronome.errors import MetronomeError
from metronome.page.labels import FIELD_LABELS
from metronome.page.model import Chip, Live, Page, Table, TablePage
from metronome.reports.parameters import IS_VIEW
from metronome.stores.base import Store
from metronome.stores.query import EXCLUDE_BOTS, AllOf, Equals

TITLE_MAX_CHARACTERS: Final = 200
MAX_AGE_SECONDS: Final = 600.0
"""After this time, a title is read again."""
MAX_TITLES: Final = 10_000
_READ_VIEWS: Final = 20
"""Not every sender of views knows titles: access logs have none."""
WAIT_SECONDS: Final = 0.5
"""How long a page waits for titles; later ones are in the next page."""


async def read_title(store: Store, item: str, now: datetime) -> str:
    """Return the newest title in an item's newest views; empty if none has one."""
    for document in await store.newest_documents(
        _READ_VIEWS, AllOf((IS_VIEW, Equals("id", item), EXCLUDE_BOTS)), None, now
    ):
        title = orjson.loads(document).get("title")
        if isinstance(title, str) and title.strip():
            return title.strip()[:TITLE_MAX_CHARACTERS]
    return ""


class Titles:
    """Titles of items that have been shown lately.

    Args:
        store: has the events.

    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._titles: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._reads: dict[str, asyncio.Task[None]] = {}

    async def add_to_page(self, page: Page) -> Page:
        """Return a page whose tables, filters and events name items by their titles."""
        chips = page.controls.chips
        events = () if page.live is None else page.live.events
        named = {chip.item for chip in chips if chip.item} | {event.item for event in events if event.item}
        await self._read(_items(*page.tables) | named, page.computed_at)
        return replace(
            page,
            controls=replace(page.controls, chips=tuple(map(self._add_to_chip, chips))),
            tables=tuple(map(self._add_to_table, page.tables)),
            live=None if page.live is None else self.add_to_live(page.live),
        )

    async def add_to_table_page(self, page: TablePage) -> TablePage:
        """Return the page of a table that names items by their titles."""
        await self._read(_items(page.table), page.computed_at)
        return replace(page, table=self._add_to_table(page.table))

    def add_to_live(self, live: Live) -> Live:
        """Return the newest events, with those titles that are known."""
        return replace(live, events=tuple(replace(event, item=self._text(event.item)) for event in live.events))

    def _add_to_chip(self, chip: Chip) -> Chip:
        return replace(chip, text=f"{FIELD_LABELS['id']}: {self._text(chip.item)}") if chip.item else chip

    def _add_to_table(self, table: Table) -> Table:
        rows = tuple(replace(row, text=self._text(row.name)) if row.page_href else row for row in table.rows)
        return replace(table, rows=rows)

    def _text(self, item: str) -> str:
        return self._titles.get(item, (0.0, ""))[1] or item

    async def _read(self, items: Iterable[str], now: datetime) -> None:
        """Read the titles of items that are not known or too old, for a short time at most."""
        oldest = now.timestamp() - MAX_AGE_SECONDS
        tasks = []
        for item in items:
            if self._titles.get(item, (oldest, ""))[0] <= oldest:
                if item not in self._reads:
                    self._reads[item] = asyncio.create_task(self._read_one(item, now))
                tasks.append(self._reads[item])
        if tasks:
            await asyncio.wait(tasks, timeout=WAIT_SECONDS)

    async def _read_one(self, item: str, now: datetime) -> None:
        try:
            title = await read_title(self._store, item, now)
        except MetronomeError:
            # The page shows the ID, and the next one tries again.
            return
        finally:
            del self._reads[item]
        self._titles[item] = (now.timestamp(), title)
        self._titles.move_to_end(item)
        while len(self._titles) > MAX_TITLES:
            self._titles.popitem(last=False)


def _items(*tables: Table) -> set[str]:
    return {row.name for table in tables for row in table.rows if row.page_href}
