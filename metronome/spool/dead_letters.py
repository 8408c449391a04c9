"""Dead letters: documents that the store will never take, kept with the reason, so that none is lost."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from metronome.files import fsync_path
from metronome.stores.base import RejectedDocument

DEAD_LETTER_FOLDER: Final = "dead"


def append_dead_letters(folder: Path, rejected: Sequence[RejectedDocument], now: datetime) -> None:
    """Append refused documents to the file of the day; when this returns they are on disk.

    The same refusal may be written twice, where the process died between this and the spool.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        orjson.dumps({"at": now, "reason": refusal.reason, "document": refusal.document.decode(errors="replace")})
        + b"\n"
        for refusal in rejected
    ]
    path = folder / f"{now.astimezone(UTC):%Y-%m-%d}.ndjson"
    with path.open("a+b") as file:
        if file.tell() and not _ends_with_newline(file):
            lines.insert(0, b"\n")
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())
    fsync_path(folder)


def iterate_dead_letters(folder: Path) -> Iterator[RejectedDocument]:
    """Yield the dead letters, oldest first; lines that were torn are left out: what they held was written again."""
    for path in sorted(folder.glob("*.ndjson")):
        with path.open("rb") as file:
            for line in file:
                with suppress(orjson.JSONDecodeError):
                    letter = orjson.loads(line)
                    yield RejectedDocument(letter["document"].encode(), letter["reason"])


def move_to_requeued(folder: Path) -> None:
    """Take all dead letters out of the count, because the store gets them once more; their files stay beside it."""
    aside = folder / "given-again"
    aside.mkdir(exist_ok=True)
    for path in folder.glob("*.ndjson"):
        number = sum(1 for _ in aside.glob(f"{path.stem}*"))
        path.rename(aside / f"{path.stem}.{number}.ndjson")


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
