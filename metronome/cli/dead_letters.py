"""``metronome dead``: shows the documents that the store refused for good, and gives it them again."""

import asyncio
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from metronome.config import read_settings
from metronome.errors import MetronomeError, describe
from metronome.files import FolderLock
from metronome.importer.summary import sanitize_for_terminal
from metronome.server.main import SPOOL_FOLDER
from metronome.spool import SpoolWriter
from metronome.spool.dead_letters import DEAD_LETTER_FOLDER, iterate_dead_letters, move_to_requeued
from metronome.stores.base import DocumentBatch

_REQUEUE_SPOOL = "again"
_BATCH_DOCUMENTS = 1000
_REASON_MAX_CHARACTERS = 100


def dead_letters(
    *,
    data: Annotated[
        Path | None, typer.Option(envvar="METRONOME_DATA", help="The server's data folder.", show_default="data")
    ] = None,
    requeue: Annotated[
        bool,
        typer.Option(
            "--again", help="With the server stopped: put them back into the spool, to be shipped as it starts."
        ),
    ] = False,
) -> None:
    """Show how many events the store refused for good, and why; with --again, have it try once more."""
    try:
        settings = read_settings({"data": data})
        folder = settings.data / DEAD_LETTER_FOLDER
        reasons = Counter(refusal.reason[:_REASON_MAX_CHARACTERS] for refusal in iterate_dead_letters(folder))
        for reason, count in reasons.most_common():
            typer.echo(f"{count:>12,}  {sanitize_for_terminal(reason)}")
        typer.echo(f"{reasons.total():>12,}  in all, in {folder}")
        if requeue and reasons:
            lock = FolderLock(settings.data)
            try:
                asyncio.run(_requeue(settings.data, settings.spool_max_bytes))
            finally:
                lock.release()
            typer.echo("they are in the spool again: start the server to ship them")
    except MetronomeError as error:
        typer.echo(f"metronome dead: {describe(error)}", err=True)
        raise typer.Exit(2) from None


async def _requeue(data: Path, spool_max_bytes: int) -> None:
    folder = data / DEAD_LETTER_FOLDER
    spool = SpoolWriter(data / SPOOL_FOLDER / _REQUEUE_SPOOL, spool_max_bytes)
    try:
        letters = iterate_dead_letters(folder)
        while refusals := list(islice(letters, _BATCH_DOCUMENTS)):
            batch = DocumentBatch.from_documents([refusal.document for refusal in refusals])
            await spool.put(batch.body, batch.count)
        move_to_requeued(folder)
    finally:
        await spool.close()
