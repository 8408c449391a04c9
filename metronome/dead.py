"""Dead letters: documents that the store will never take, kept with the reason, so that none is lost."""

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from metronome.stores.store import Refusal

FOLDER_NAME: Final = "dead"


def bury(folder: Path, refused: Sequence[Refusal], now: datetime) -> None:
    """Append refused documents to the file of the day; when this returns they are on disk.

    The same refusal may be written twice, where the process died between this and the spool.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        orjson.dumps({"at": now, "reason": refusal.reason, "document": refusal.document.decode(errors="replace")})
        + b"\n"
        for refusal in refused
    ]
    with (folder / f"{now.astimezone(UTC):%Y-%m-%d}.ndjson").open("ab") as file:
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())


def exhume(folder: Path) -> Iterator[Refusal]:
    """Yield the dead letters, oldest first; a last line that was torn is left out."""
    for path in sorted(folder.glob("*.ndjson")):
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    letter = orjson.loads(line)
                    yield Refusal(letter["document"].encode(), letter["reason"])
