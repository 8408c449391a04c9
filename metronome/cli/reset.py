"""``metronome reset``: set damaged files of the embedded store aside."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from metronome.cli.errors import reporting_errors
from metronome.cli.options import DataOption
from metronome.cli.output import print_lines
from metronome.config import read_settings
from metronome.errors import ConfigurationError
from metronome.files import FolderLock

_STORE_FILES: Final = ("metronome.duckdb", "metronome.duckdb.wal", "segments")
"""As `metronome.stores.duckdb` names them; importing it takes long."""


def reset_command(
    *,
    store: Annotated[bool, typer.Option("--store", help="Set the embedded store's files aside.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: DataOption = None,
) -> None:
    """Set the embedded store's files aside, so that the server starts with an empty store.

    Nothing is deleted: the files move to a folder next to them. Stop the server first. After its start, it stores the
    events of the spool; load an archive with `metronome replay`.
    """
    with reporting_errors("reset"):
        if not store:
            raise ConfigurationError("nothing to reset: say --store to set the files of the embedded store aside")
        folder = read_settings({"data": data}).data
        lock = FolderLock(folder)
        try:
            paths = [folder / name for name in _STORE_FILES if (folder / name).exists()]
            if not paths:
                raise ConfigurationError(f"{folder} has no files of an embedded store")
            aside = folder / f"store-{datetime.now(UTC):%Y%m%dT%H%M%S}"
            if not yes:
                typer.confirm(f"Move {', '.join(path.name for path in paths)} to {aside}?", abort=True)
            _move(paths, aside)
        finally:
            lock.release()
        print_lines([f"The store's files are in {aside}. Start the server, and load the archive, if there is one."])


def _move(paths: list[Path], aside: Path) -> None:
    aside.mkdir()
    for path in paths:
        path.rename(aside / path.name)
