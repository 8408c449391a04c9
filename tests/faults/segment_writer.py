"""Write, replace and delete events in an embedded store at random until killed, and report each step."""

import asyncio
import random
import sys
from pathlib import Path

import orjson

from metronome.event import DocumentContext, Event, build_document
from metronome.stores.base import DocumentBatch
from metronome.stores.duckdb import DuckDBStore
from metronome.stores.duckdb.maintenance import StorageLimits

CONTEXT = DocumentContext("2026-03-01T00:00:00.000Z", None, "2027-01-01T00:00:00.000Z")
LIMITS = StorageLimits(
    table_rows=200,
    direct_rows=30,
    hot_rows=40,
    old_rows=20,
    merged_segments=3,
    filter_rows=50,
    rollup_rows=20,
    quiet_seconds=0.1,
)


def report(kind: str, item: str, count: int) -> None:
    """Print a step."""
    print(orjson.dumps([kind, item, count]).decode(), flush=True)  # noqa: T201  # the test reads it


def batch(item: str, count: int, version: str) -> DocumentBatch:
    """Return events of an item in two months."""
    events = [
        {"id": item, "event_id": f"{item}-{number}", "version": version, "ts": f"2026-0{1 + number % 2}-01"}
        for number in range(count)
    ]
    return DocumentBatch.from_documents([build_document(Event(event), CONTEXT, "") for event in events])


async def main(folder: Path, number: str) -> None:
    """Run until killed."""
    store = DuckDBStore(folder, limits=LIMITS)
    await store.setup()
    print("started", flush=True)  # noqa: T201  # the test reads it
    draw = random.Random()
    items: dict[str, int] = {}
    while True:
        item, count = f"{number}.{len(items)}", draw.randrange(1, 100)
        items[item] = count
        report("write", item, count)
        await store.write(batch(item, count, "old"))
        report("done", item, count)
        chosen = draw.choice([*items])
        if draw.random() < 0.3:
            report("delete", chosen, items[chosen])
            await store.delete_events(item=chosen)
            report("done", chosen, 0)
        elif draw.random() < 0.4:
            report("replace", chosen, items[chosen])
            await store.replace(batch(chosen, items[chosen], "new"))
            report("done", chosen, 0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
