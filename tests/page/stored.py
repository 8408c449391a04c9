"""A quarter of a year of made-up events in an embedded store, and views of them."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from metronome.event import DocumentContext, Event, build_document
from metronome.page.view import View, parse_view
from metronome.stores.base import DocumentBatch, Store
from metronome.stores.duckdb import DuckDBStore

NOW: Final = datetime(2015, 3, 31, 15, 30, tzinfo=UTC)
"""A Tuesday."""

_CONTEXT: Final = DocumentContext(
    received_at="2015-03-31T15:30:00.000Z", min_timestamp=None, max_timestamp="2030-01-01T00:00:00.000Z"
)
_SESSIONS: Final = 400


def made_up_events() -> Iterator[dict[str, Any]]:
    """Yield the same events in every run: sessions of people and a few robots, from 1 January to `NOW`."""
    draw = random.Random(7)
    start = datetime(2015, 1, 1, tzinfo=UTC)
    for _ in range(_SESSIONS):
        began = start + (NOW - start) * draw.random()
        visitor = f"v{draw.randrange(250)}-{began:%m%d}"
        common: dict[str, Any] = {
            "session": visitor,
            "visitor": visitor,
            "country": draw.choice(["CH", "DE", "US", "US"]),
            "browser": draw.choice(["Chrome", "Firefox"]),
            "os": draw.choice(["Linux", "Windows"]),
            "device": draw.choice(["desktop", "mobile"]),
            "channel": "direct",
        }
        if draw.random() < 0.5:
            host = draw.choice(["example.org", "news.example.net"])
            common |= {"referer": f"{host}/a{draw.randrange(3)}", "referer_group": host, "channel": "referral"}
        if draw.random() < 0.1:
            common |= {"bot": "Googlebot", "bot_kind": "search"}
        if draw.random() < 0.1:
            common["utm_campaign"] = "spring"
        for step in range(draw.randrange(1, 5)):
            fields: dict[str, Any] = {
                "ts": min(began + timedelta(seconds=40 * step), NOW).isoformat(),
                "id": draw.choice(["rivers", "trees", "a/b c", "x" * 30]),
                "event": "view",
                "title": "All the rivers",
                **common,
            }
            chance = draw.random()
            if chance < 0.1:
                fields |= {"event": "error", "message": "no map", "error_group": "no map"}
            elif chance < 0.3:
                fields |= {"event": "download", "format": draw.choice(["csv", "pdf"])}
            elif chance < 0.4:
                fields |= {"event": "timing", "LCP": draw.randrange(300, 3000), "CLS": 0.25}
            yield fields


@asynccontextmanager
async def store_of(folder: Path, events: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> AsyncIterator[Store]:
    """Have an embedded store hold events."""
    store = DuckDBStore(folder)
    await store.setup()
    lines = [build_document(Event(fields), _CONTEXT, str(number)) for number, fields in enumerate(events)]
    if lines:
        assert (await store.write(DocumentBatch.from_documents(lines))).stored == len(lines)
    yield store
    await store.close()


def view_of(address: str, **options: Any) -> View:
    """Return the view of an address's query string."""
    return parse_view(address.partition("?")[2], NOW, **options)
