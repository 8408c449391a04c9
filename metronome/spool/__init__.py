"""The durable queue between a reply, and the store and the archive: one writes it, several read it."""

from typing import Final

from metronome.spool.file import SPOOL_FILE_NAME, SpoolStats, register_readers
from metronome.spool.reader import ARCHIVE_READER, STORE_READER, Chunk, CommitRange, SpoolReader, measure
from metronome.spool.writer import SpoolWriter

SPOOL_FOLDER: Final = "spool"
"""Subfolder of the data folder in which the spools are."""

__all__ = [
    "ARCHIVE_READER",
    "SPOOL_FILE_NAME",
    "SPOOL_FOLDER",
    "STORE_READER",
    "Chunk",
    "CommitRange",
    "SpoolReader",
    "SpoolStats",
    "SpoolWriter",
    "measure",
    "register_readers",
]
