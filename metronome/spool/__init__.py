"""The durable queue between intake and store or archive, with one writer and several readers."""

from typing import Final

from metronome.spool.file import SPOOL_FILE_NAME, SpoolStats, register_readers
from metronome.spool.pending import Pending, PendingEvents
from metronome.spool.reader import ARCHIVE_READER, STORE_READER, Chunk, CommitRange, SpoolReader, WaitingChunk, measure
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
    "Pending",
    "PendingEvents",
    "SpoolReader",
    "SpoolStats",
    "SpoolWriter",
    "WaitingChunk",
    "measure",
    "register_readers",
]
