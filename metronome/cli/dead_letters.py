"""``metronome dead-letters``: list the documents that the store rejected, and requeue them."""

import asyncio
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Final

import typer

from metronome.cli.errors import EXIT_FAILED, print_error, reporting_errors
from metronome.cli.options import DataOption
from metronome.cli.output import print_lines
from metronome.config import read_settings
from metronome.errors import ConfigurationError
from metronome.files import FolderLock, make_new_files_private
from metronome.spool import SPOOL_FOLDER, SpoolWriter
from metronome.spool.dead_letters import DEAD_LETTER_FOLDER, iterate_dead_letters, move_to_requeued
from metronome.stores.base import DocumentBatch

_REQUEUE_SPOOL: Final = "again"
_BATCH_DOCUMENTS: Final = 1000
_REASON_MAX_CHARACTERS: Final = 100
_EXPECTED: Final = 'not a dead letter: expected {"at": …, "reason": "…", "document": "…"}; correct or delete the line'

dead_letters_app = typer.Typer(add_completion=False)


@dead_letters_app.callback(invoke_without_command=True)
def list_dead_letters(context: typer.Context, *, data: DataOption = None) -> None:
    """List or requeue documents that the store rejected.

    Without a subcommand, lists the number of documents by reason.
    """
    if context.invoked_subcommand is None:
        unreadable: list[str] = []
        with reporting_errors("dead-letters"):
            print_lines(_format_reasons(read_settings({"data": data}).data / DEAD_LETTER_FOLDER, unreadable))
        for location in unreadable:
            print_error("dead-letters", f"{location}: {_EXPECTED}")
        if unreadable:
            raise typer.Exit(EXIT_FAILED)


@dead_letters_app.command("requeue")
def requeue_dead_letters(context: typer.Context, *, data: DataOption = None) -> None:
    """Put the rejected documents back into the spool.

    Stop the server first; when it starts again, it sends them to the store.
    """
    with reporting_errors("dead-letters requeue"):
        # `dead-letters --data FOLDER requeue` works, too.
        settings = read_settings({"data": data or (context.parent and context.parent.params["data"])})
        folder = settings.data / DEAD_LETTER_FOLDER
        unreadable: list[str] = []
        lines = _format_reasons(folder, unreadable)
        if unreadable:
            # Requeued files are moved away, and the line with them.
            raise ConfigurationError(f"{unreadable[0]}: {_EXPECTED}; nothing was requeued")
        if any(iterate_dead_letters(folder)):
            make_new_files_private(settings.data_group)
            lock = FolderLock(settings.data)
            try:
                asyncio.run(_requeue(settings.data, settings.spool_max_bytes))
            finally:
                lock.release()
            lines.append("requeued: start the server to ship them")
        print_lines(lines)


def _format_reasons(folder: Path, unreadable: list[str]) -> list[str]:
    """Return a table of the reasons, and append the location of each line that is not a dead letter."""
    reasons = Counter(
        rejected.reason[:_REASON_MAX_CHARACTERS] for rejected in iterate_dead_letters(folder, unreadable.append)
    )
    return [
        *(f"{count:>12,}  {reason}" for reason, count in reasons.most_common()),
        f"{reasons.total():>12,}  in total, in {folder}",
    ]


async def _requeue(data: Path, spool_max_bytes: int) -> None:
    folder = data / DEAD_LETTER_FOLDER
    spool = SpoolWriter(data / SPOOL_FOLDER / _REQUEUE_SPOOL, spool_max_bytes)
    try:
        dead_letters = iterate_dead_letters(folder)
        while rejected := list(islice(dead_letters, _BATCH_DOCUMENTS)):
            batch = DocumentBatch.from_documents([document.document for document in rejected])
            await spool.put(batch.body, batch.count)
        move_to_requeued(folder)
    finally:
        await spool.close()
