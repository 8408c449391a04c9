"""Archives with documents, written as the archiver writes them."""

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
    """Return a document as a line of NDJSON."""
    fields = {"@timestamp": timestamp, "event_id": event_id, "@version": "1", "id": item, "event": event}
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


async def put_objects(archive: Archive, number: int, lines: Sequence[bytes]) -> list[str]:
    """Upload documents as one commit, and return the paths of its objects, and of its manifest last."""
    time_ms = FIRST_MS + 1000 * number
    upload = build_objects(CommitRange("web1-00000000", number, number, (time_ms, time_ms)), [b"".join(lines)])
    for path, body in upload.objects.items():
        await archive.put(path, body)
    await archive.put(upload.manifest.path, encode_manifest(upload.manifest))
    return [*upload.objects, upload.manifest.path]


def create_archive(folder: Path, *uploads: Sequence[bytes]) -> tuple[str, list[list[str]]]:
    """Create an archive in a folder; return its URL, and the paths of each upload."""

    async def fill() -> list[list[str]]:
        archive = open_archive(f"file://{folder}", create=True)
        return [await put_objects(archive, number, lines) for number, lines in enumerate(uploads, start=1)]

    return f"file://{folder}", asyncio.run(fill())
