"""Backup of a running server with an embedded store: a copy of its data folder from which a server can start.

The server prepares the copy in its data folder, and ``metronome backup`` moves it to where it belongs. Each part is
consistent in itself. The spools come first: an event that is shipped meanwhile is in the copy of the spool and in that
of the store, which accepts it once, while the opposite order would lose it.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from metronome.errors import StoreUnavailable
from metronome.spool import SPOOL_FILE_NAME
from metronome.spool.dead_letters import DEAD_LETTER_FOLDER
from metronome.stores.base import Store

BACKUP_FOLDER: Final = "backup"


class Backups:
    """Prepares backups of a data folder, one at a time. One that is left over is deleted.

    Args:
        data: the data folder.
        store: the store.
        spools: the folders of the spools, in the data folder.

    """

    def __init__(self, data: Path, store: Store, spools: Sequence[Path]) -> None:
        self._data = data.absolute()
        self._folder = self._data / BACKUP_FOLDER
        self._store = store
        self._spools = tuple(spool.absolute() for spool in spools)
        self._lock = asyncio.Lock()
        # A command may have been killed before it deleted what it had copied.
        self._delete()

    async def prepare(self) -> Path:
        """Write a backup into the data folder, instead of an earlier one, and return its folder.

        Raises:
            RequestError: the store has backups of its own.
            StoreUnavailable: the store cannot be copied, for example because the disk is full.

        """
        async with self._lock:
            try:
                await asyncio.to_thread(_make_empty, self._folder)
                await asyncio.to_thread(self._copy_spools, self._folder)
                await self._store.back_up(self._folder)
                await asyncio.to_thread(self._copy_others, self._folder)
            except BaseException as error:
                self._delete()
                if isinstance(error, OSError | sqlite3.Error):
                    raise StoreUnavailable(f"cannot write the backup: {error}") from error
                raise
            return self._folder

    def _delete(self) -> None:
        # Its links would keep what was deleted from the store.
        shutil.rmtree(self._folder, ignore_errors=True)

    def _copy_spools(self, folder: Path) -> None:
        for spool in self._spools:
            copy = folder / spool.relative_to(self._data)
            copy.mkdir(parents=True)
            _copy_sqlite(spool / SPOOL_FILE_NAME, copy / SPOOL_FILE_NAME)

    def _copy_others(self, folder: Path) -> None:
        # The state's file.
        for path in self._data.glob("*.sqlite"):
            _copy_sqlite(path, folder / path.name)
        if (self._data / DEAD_LETTER_FOLDER).exists():
            shutil.copytree(self._data / DEAD_LETTER_FOLDER, folder / DEAD_LETTER_FOLDER)


def _make_empty(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o750)


def _copy_sqlite(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)
    target.chmod(source.stat().st_mode & 0o777)
