"""``metronome backup``: copy the data folder of a running server."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from metronome.cli.errors import reporting_errors
from metronome.cli.options import DEFAULT_SERVER_URL, KeyOption, UrlOption
from metronome.cli.output import print_lines, show_progress
from metronome.errors import ConfigurationError
from metronome.files import fsync_path
from metronome.server_client import ServerClient

BACKUP_PATH: Final = "/backup"


def backup_command(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder for the backup, which must not exist or must be empty.")
    ],
    *,
    url: UrlOption = DEFAULT_SERVER_URL,
    key: KeyOption = None,
) -> None:
    """Back up a running server with an embedded store: its events, spool, dead letters, keys and salts.

    Run it on the machine of the server, as its user. Needs a key with the scope admin.

    To restore, start a server with a copy of DIR as its data folder.
    """
    with reporting_errors("backup"):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise ConfigurationError(f"{directory} exists and is not an empty folder: name another folder")
        prepared = Path(str(ServerClient(url, key).post_json(BACKUP_PATH, {}, "folder")["folder"]))
        with show_progress() as progress:
            size = copy_backup(prepared, directory, progress.start, progress.advance)
    print_lines([f"{size:,} bytes in {directory}"])


def copy_backup(prepared: Path, directory: Path, start: Callable[[int], None], advance: Callable[[int], None]) -> int:
    """Move a prepared backup to its place, and return its size in bytes; complete and synced, or not there at all.

    Args:
        prepared: the folder that the server prepared; deleted at the end.
        directory: the folder to write; absent or empty.
        start: called with the size in bytes.
        advance: called with the size of each file that has been copied.

    Raises:
        ConfigurationError: the prepared backup cannot be read.
        OSError: the folder cannot be written.

    """
    try:
        files = [(path, path.stat().st_size) for path in sorted(prepared.rglob("*")) if path.is_file()]
    except PermissionError:
        files = []
    if not files:
        raise ConfigurationError(
            f"cannot read {prepared}: run metronome backup on the machine of the server, as its user"
        )
    size = sum(length for _, length in files)
    start(size)
    partial = directory.absolute().with_name(f"{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for path, length in files:
        target = partial / path.relative_to(prepared)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        fsync_path(target)
        advance(length)
    for folder, _, _ in os.walk(partial):
        fsync_path(Path(folder))
    partial.replace(directory)
    fsync_path(directory.absolute().parent)
    # Another user may not delete it; the server does, at the next backup or start.
    shutil.rmtree(prepared, ignore_errors=True)
    return size
