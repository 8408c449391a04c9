"""Dead letters: documents that the store has rejected for good, kept with the reason so that none is lost."""

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
    """Append rejected documents to the file of the day, and flush it to disk.

    A document may be appended twice if the process dies before it is acknowledged to the spool.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        orjson.dumps({"at": now, "reason": rejection.reason, "document": rejection.document.decode(errors="replace")})
        + b"\n"
        for rejection in rejected
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
    """Yield the dead letters, oldest first. Torn lines are skipped: their documents were appended again."""
    for path in sorted(folder.glob("*.ndjson")):
        with path.open("rb") as file:
            for line in file:
                with suppress(orjson.JSONDecodeError):
                    letter = orjson.loads(line)
                    yield RejectedDocument(letter["document"].encode(), letter["reason"])


def move_to_requeued(folder: Path) -> None:
    """Move the files of all dead letters to a subfolder, because they are sent to the store again."""
    requeued = folder / "given-again"
    requeued.mkdir(exist_ok=True)
    for path in folder.glob("*.ndjson"):
        number = sum(1 for _ in requeued.glob(f"{path.stem}*"))
        path.rename(requeued / f"{path.stem}.{number}.ndjson")


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
