"""``metronome dead``: shows the documents that the store refused for good, and gives it them again."""

import asyncio
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from metronome.config import read_settings
from metronome.errors import MetronomeError
from metronome.files import FolderLock
from metronome.importer.summary import printable
from metronome.server.main import SPOOL_FOLDER
from metronome.spool import Spool
from metronome.spool.dead_letters import FOLDER_NAME, exhume, lay_aside
from metronome.stores.base import Batch

_SPOOL = "again"
_AT_ONCE = 1000
_REASON_CHARACTERS = 100


def dead_letters(
    *,
    data: Annotated[
        Path | None, typer.Option(envvar="METRONOME_DATA", help="The server's data folder.", show_default="data")
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="With the server stopped: put them back into the spool, to be shipped as it starts."
        ),
    ] = False,
) -> None:
    """Show how many events the store refused for good, and why; with --again, have it try once more."""
    try:
        settings = read_settings({"data": data})
        folder = settings.data / FOLDER_NAME
        reasons = Counter(refusal.reason[:_REASON_CHARACTERS] for refusal in exhume(folder))
        for reason, count in reasons.most_common():
            typer.echo(f"{count:>12,}  {printable(reason)}")
        typer.echo(f"{reasons.total():>12,}  in all, in {folder}")
        if again and reasons:
            lock = FolderLock(settings.data)
            try:
                asyncio.run(_put_back(settings.data, settings.spool_max_bytes))
            finally:
                lock.release()
            typer.echo("they are in the spool again: start the server to ship them")
    except MetronomeError as error:
        typer.echo(f"metronome dead: {error}; {error.advice}", err=True)
        raise typer.Exit(2) from None


async def _put_back(data: Path, spool_max_bytes: int) -> None:
    folder = data / FOLDER_NAME
    spool = Spool(data / SPOOL_FOLDER / _SPOOL, spool_max_bytes)
    try:
        letters = exhume(folder)
        while refusals := list(islice(letters, _AT_ONCE)):
            batch = Batch.of([refusal.document for refusal in refusals])
            await spool.put(batch.body, batch.count)
        lay_aside(folder)
    finally:
        await spool.close()
