"""Dead letters: documents that the store has rejected for good, kept with the reason so that none is lost."""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import orjson

from metronome.files import fsync_path
from metronome.stores.base import RejectedDocument

DEAD_LETTER_FOLDER: Final = "dead"
REQUEUED_FOLDER: Final = "given-again"
"""Subfolder of the dead letters that were sent to the store again."""


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


def iterate_dead_letters(
    folder: Path, on_unreadable: Callable[[str], None] = lambda _location: None
) -> Iterator[RejectedDocument]:
    """Yield the dead letters, oldest first.

    Torn lines are skipped: their documents were appended again.

    Args:
        folder: the folder of dead letters.
        on_unreadable: called with the file and the number of each line of JSON that is not a dead letter, such as one
            that was edited by hand. It is skipped.

    """
    for path in sorted(folder.glob("*.ndjson")):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    letter = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                if _is_dead_letter(letter):
                    yield RejectedDocument(letter["document"].encode(), letter["reason"])
                else:
                    on_unreadable(f"{path}, line {number}")


def _is_dead_letter(letter: object) -> bool:
    return (
        isinstance(letter, dict)
        and isinstance(letter.get("reason"), str)
        and isinstance(letter.get("document"), str)
        # The spool separates documents by line feeds.
        and "\n" not in letter["document"]
    )


def move_to_requeued(folder: Path) -> None:
    """Move the files of all dead letters to a subfolder, because they are sent to the store again."""
    requeued = folder / REQUEUED_FOLDER
    requeued.mkdir(exist_ok=True)
    for path in folder.glob("*.ndjson"):
        number = sum(1 for _ in requeued.glob(f"{path.stem}*"))
        path.rename(requeued / f"{path.stem}.{number}.ndjson")


def _ends_with_newline(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
