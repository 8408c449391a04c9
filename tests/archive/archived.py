"""Archives that hold something, written as the roller writes them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import orjson

from metronome.archive.base import Archive
from metronome.archive.objects import open_archive
from metronome.archive.segments import build_objects, encode_manifest
from metronome.spool import CommitRange

FIRST_MS = 1_421_919_000_000


def build_document(
    event_id: str, item: str = "rivers", timestamp: str = "2015-01-22T09:30:00.000Z", event: str = "view"
) -> bytes:
    """Make a document's line."""
    fields = {"@timestamp": timestamp, "event_id": event_id, "@version": "1", "id": item, "event": event}
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


async def put_objects(archive: Archive, number: int, lines: Sequence[bytes]) -> list[str]:
    """Put a roll of one commit, and return the paths of its objects and of its manifest, which is the last."""
    at = FIRST_MS + 1000 * number
    made = build_objects(CommitRange("web1-00000000", number, number, (at, at)), [b"".join(lines)])
    for path, body in made.objects.items():
        await archive.put(path, body)
    await archive.put(made.manifest.path, encode_manifest(made.manifest))
    return [*made.objects, made.manifest.path]


def create_archive(folder: Path, *rolls: Sequence[bytes]) -> tuple[str, list[list[str]]]:
    """Make an archive in a folder with so many rolls; return its address, and each roll's paths."""

    async def fill() -> list[list[str]]:
        archive = open_archive(f"file://{folder}", create=True)
        return [await put_objects(archive, number, lines) for number, lines in enumerate(rolls, start=1)]

    return f"file://{folder}", asyncio.run(fill())
